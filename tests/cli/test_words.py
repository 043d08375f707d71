"""What the command says of options is true of the subcommand that was called: it names none that it lacks."""

import re
from collections.abc import Callable, Iterator

import pytest

from spikeback.cli.main import Parser, build_parser

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
        from spikeback.cli.main import expanded

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


def test_only_options_that_the_command_has_are_named(
    commands: dict[tuple[str, ...], Parser], parse: Callable[..., str]
) -> None:
    everywhere = sorted({option for parser in commands.values() for option in parser.options} | {"--run", "--zzz"})
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
    (("predict",), "spikeback predict: RUN and --pictures are required (see spikeback predict --help)"),
    (("fit", "--train", "nofile"), "spikeback fit: --train: no file nofile"),
    (("bench", "data", "--data", "{seize: 3}"), "spikeback: bench: a file or braces name an option that it"),
    ((), "spikeback: needs a SUBCOMMAND, one of compare,fit,"),
])  # fmt: skip
def test_the_words_are_those_that_were_typed(words: tuple[str, ...], said: str, refused: Refused) -> None:
    assert said in refused(*words)
