"""What the command says of options is true of the subcommand that was called: it names none that it lacks."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from spikeback.cli.main import build_parser, expanded
from spikeback.cli.options import EXAMPLES
from spikeback.cli.parser import Parser
from spikeback.cli.words import as_typed
from spikeback.errors import UsageError
from spikeback.files import write_atomic

Refused = Callable[..., str]
TYPED = r"(?<![\w-])--[a-zA-Z][\w.]*\+?"


@pytest.fixture(scope="module")
def commands() -> dict[tuple[str, ...], Parser]:
    """Every command that can be called: ("fit",), ("data", "check"), ..."""

    def below(parser: Parser, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Parser]]:
        for word, child in parser.children.items():
            yield from below(child, (*words, word)) if child.children else [((*words, word), child)]

    return dict(below(build_parser()[0], ()))


@pytest.fixture
def parse(capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """parse(*words): the line that the parser refuses the words with; nothing is run."""
    parser, _ = build_parser()

    def refuse(*words: str) -> str:
        with pytest.raises(SystemExit) as leaving:
            parser.parse_args(expanded(parser, [*words]))
        assert leaving.value.code == 2
        return capfd.readouterr().err

    return refuse


def needed(parser: Parser) -> dict[str, list[str]]:
    """As it is typed: each argument that the command needs, and a value for it."""
    required = [action for action in parser._actions if action.required]
    return {
        next(iter(action.option_strings), str(action.metavar)): [*action.option_strings[:1], "value"]
        for action in required
    }


def test_a_missing_argument_is_named_as_it_is_typed(
    commands: dict[tuple[str, ...], Parser], parse: Callable[..., str]
) -> None:
    tried = 0
    for words, parser in commands.items():
        given = needed(parser)
        for lacking in given:
            rest = [word for name, value in given.items() if name != lacking for word in value]
            said = parse(*words, *rest)
            assert said.startswith(f"error: spikeback {' '.join(words)}: {lacking} is required (see "), said
            assert re.search(rf"(?m)^ +{lacking}\b", parser.format_help())
            tried += 1
        if len(given) > 1:
            assert f": {' and '.join(given)} are required (see " in parse(*words)
    assert tried >= 5


@pytest.mark.slow
def test_only_options_that_the_command_has_are_named(
    commands: dict[tuple[str, ...], Parser], parse: Callable[..., str]
) -> None:
    everywhere = {option for parser in commands.values() for option in parser.options}
    everywhere = [*sorted(everywhere)[::3], "--out", "--run", "--images", "--zzz"]  # a third is enough
    for words, parser in commands.items():
        given = [word for value in needed(parser).values() for word in value]
        known = {*parser.options, "--help"}
        for option in everywhere:
            if any(each.startswith(option) for each in known):  # it is one, or short for one
                continue
            said = parse(*words, *given, option, "value")
            assert {*re.findall(TYPED, said)} <= known | {option}, said
            assert option in said


@pytest.mark.parametrize(("words", "said"), [
    (("test", "x", "--out", "y"), "spikeback test: unrecognized arguments: --out y (see"),
    (("test", "x", "--config", "demo"), "spikeback test: unrecognized arguments: --config demo (see"),
    (("predict",), "spikeback predict: RUN and --images are required (see spikeback predict --help)"),
    (("fit", "--train", "nofile"), "spikeback fit: --train: no file nofile"),
    (("bench", "data", "--data", "{seize: 3}"), "spikeback: bench: a file or braces name an option that it"),
    ((), "spikeback: needs a SUBCOMMAND, one of compare,fit,"),
])  # fmt: skip
def test_the_words_are_those_that_were_typed(words: tuple[str, ...], said: str, refused: Refused) -> None:
    assert said in refused(*words)


@pytest.mark.parametrize("words", [
    ("test", "RUN", "--data.root", "x"), ("exits", "RUN", "--data.root", "x"), ("diagnose", "RUN", "--data.root", "x"),
], ids=lambda words: words[0])  # fmt: skip
@pytest.mark.slow
def test_a_root_for_images_in_the_package_is_refused_with_advice_that_works(
    words: tuple[str, ...], refused: Refused, finished: Path, command: Callable[..., Any], tmp_path: Path
) -> None:
    words = tuple(str(finished / "vanilla-seed0") if word == "RUN" else word for word in words)
    assert refused(*words).endswith("was trained on the images in the package; leave it out\n")
    if words[0] == "test":
        assert command(*words[:2]).code == 0


def test_options_of_a_training_are_said_to_be_of_it_where_the_command_has_none(
    refused: Refused, run: Path, tmp_path: Path
) -> None:
    checkpoint = run / "vanilla-seed0" / "best.ckpt"
    content = torch.load(checkpoint, weights_only=True)
    for callback in content["callbacks"].values():
        if "card" in callback:
            callback["card"]["recipe"]["data"]["name"] = "cifar10"
    torch.save(content, checkpoint)
    line = refused("test", checkpoint, "--data.root", tmp_path)
    assert "--data.download true fetches them (--data.download: of `spikeback fit`, not of this command)" in line
    assert "of `spikeback fit`" not in refused("fit", "--data", "cifar10", "--data.root", tmp_path)


@pytest.mark.parametrize(("said", "typed"), [
    ("data.root=photos lacks a.png", "--data.root photos lacks a.png"),
    ("give data.download=True, or data.flip=False", "give --data.download true, or --data.flip false"),
    ("lower train.lr (0.1), with another out=...", "lower --train.lr (0.1), with another --out"),
    ("out=runs/a is not empty: add resume=True", "--out runs/a is not empty: add --resume"),
    ("resume: runs/a differs in train.lr;", "--resume: runs/a differs in --train.lr;"),
    ("vary.train.lr.0.1: train.lr must be a number", "vary.train.lr.0.1: --train.lr must be a number"),
    ("no option 'trian.lr' (did you mean 'train.lr'?)", "no option 'trian.lr' (did you mean 'train.lr'?)"),
    ("to go on: spikeback fit --out=runs/a --train.lr=1", "to go on: spikeback fit --out=runs/a --train.lr=1"),
    ("gain=1.0 is set; the cut out: a part", "gain=1.0 is set; the cut out: a part"),
    ("a/out=b, sb.out=c and model.unknown=d", "a/out=b, sb.out=c and model.unknown=d"),
])  # fmt: skip
def test_arguments_of_the_library_are_named_as_they_are_typed(said: str, typed: str) -> None:
    options = ["--data.root", "--data.download", "--data.flip", "--train.lr", "--out", "--resume"]
    assert as_typed(said, options) == typed


def test_data_check_speaks_of_the_folder_it_was_given(refused: Refused, draw_tree: Callable[..., Path]) -> None:
    root = draw_tree("cats", "dogs")
    assert refused("data", "check", root / "cats").endswith(f"; did you mean {root}?\n")


@pytest.mark.parametrize("section", EXAMPLES)
def test_a_file_of_no_options_is_named_with_an_example_that_works(
    section: str, refused: Refused, parsed: Callable[..., Any], tmp_path: Path
) -> None:
    file = tmp_path / "options"
    for content, said in ((b"hello", "must hold options by name"), (b"", "must hold"), (b"\xff\xfe\0", "is not YAML")):
        file.write_bytes(content)
        line = refused("fit", f"--{section}", file)
        assert f"--{section}: {file} {said}" in line
    file.write_text(EXAMPLES[section])
    name, value = EXAMPLES[section].split(": ")
    config = parsed(*expanded(build_parser()[0], ["fit", f"--{section}", str(file)]))
    assert str(config[f"{section}.{name}"]) == value


def test_a_folder_where_a_file_is_to_be_written_is_said_to_be_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"Is a directory; name a file in it, e.g. {tmp_path / 'new'}$"):
        write_atomic(tmp_path, b"")
    write_atomic(tmp_path / "new", b"")


@pytest.mark.parametrize(("words", "said"), [
    (("fit", "--seed", "-1"), "--seed must lie in 0 .. "),
    (("diagnose", "--seed", "-1"), "--seed must lie in 0 .. "),
    (("diagnose", "--weight", "1e400"), "--weight must be a finite number, not inf"),
    (("compare", "--seeds", "-1"), "--seeds: a seed must lie in 0 .. "),
    (("sweep",), "--vary: needs at least one axis"),
])  # fmt: skip
def test_a_number_out_of_range_names_its_option(
    words: tuple[str, ...], said: str, refused: Refused, tmp_path: Path
) -> None:
    assert refused(*words, "--out", tmp_path / "out").startswith(f"error: {said}")
    assert not any(tmp_path.iterdir())
