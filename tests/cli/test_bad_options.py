"""A mistake on the command line or in a recipe: one line, exit code 2, nothing written."""

from collections.abc import Callable
from pathlib import Path

import pytest

import spikeback as sb
from spikeback.cli.main import main

Refused = Callable[..., str]

# words -> what the line must contain: the offending name, and what would be right
OPTIONS: dict[str, tuple[list[str], list[str]]] = {
    "model": (["--model.name", "resnet9"], ["--model.name", "'resnet9'", *sb.list_models()]),
    "stem": (["--model.stem", "mnist"], ["--model.stem", "mnist", "cifar", "imagenet", "dvs"]),
    "tap": (["--branches.taps", "[layer9]"], ["--branches.taps", "'layer9'", "layer1.0", "layer3"]),
    "read": (["--branches.read", "volts"], ["--branches.read", "volts", "spikes", "current"]),
    "combine": (["--branches.combine", "sums"], ["--branches.combine", "sums", "logits", "losses"]),
    "method": (["--methods", "vanila"], ["--methods", "'vanila'", "Vanilla", "Shortcut", "Evolutionary"]),
    "methods twice": (["--methods", "vanilla", "shortcut", "vanilla"], ["methods", "once", "vanilla"]),
    "method by two names": (["--methods", "evolutionary", "Evolutionary(0.25)"], ["methods", "once", "evolutionary"]),
    "method's value": (["--methods", "Evolutionary(start=-1)"], ["--methods", "start", "-1", "at least 0"]),
    "surrogate": (["--model.surrogate", "Trinagle"], ["--model.surrogate", "'Trinagle'", "Triangle", "Tanh", "ATan"]),
    "surrogate's parameter": (["--model.surrogate", "Triangle(beta=2)"], ["--model.surrogate", "beta", "gamma"]),
    "surrogate's value": (["--model.surrogate", "Tanh(k=-3)"], ["--model.surrogate", "k", "-3", "positive"]),
    "surrogate's bracket": (["--model.surrogate", "Tanh("], ["--model.surrogate", "'Tanh('", "Tanh(k=3.0"]),
    "surrogate is code": (["--model.surrogate", "exit()"], ["--model.surrogate", "'exit()'", "Triangle"]),
    "option": (["--model.widht", "4"], ["--model.widht", "--model.width"]),
    "recipe": (["--config", "demoo"], ["--config", "'demoo'", "demo"]),
    "recipe, one word": (["--config=demoo"], ["--config", "'demoo'", "demo"]),
    "dataset": (["--data.name", "mnist"], ["--data.name", "'mnist'", "embedded", "fashion-mnist", "folder"]),
    "dataset path": (["--data.name", "folder", "--data.root", "gone"], ["--data.root", "gone", "<class>/"]),
    "no dataset path": (["--data.name", "folder"], ["--data.root", "train/"]),
    "Fashion-MNIST path": (
        ["--data.name", "fashion-mnist", "--data.root", "gone"],
        ["--data.root", "gone", "train-images-idx3-ubyte"],
    ),
    "epochs in words": (["--train.epochs", "many"], ["--train.epochs", "many", "int"]),
    "half an epoch": (["--train.epochs", "1.5"], ["--train.epochs", "1.5", "int"]),
    "no epoch": (["--train.epochs", "0"], ["--train.epochs", "at least 1", "0"]),
    "rate in words": (["--train.lr", "fast"], ["--train.lr", "fast", "float"]),
    "negative rate": (["--train.lr", "-0.1"], ["--train.lr", "positive", "-0.1"]),
    "precision": (["--train.precision", "8-bit"], ["--train.precision", "8-bit", "32-true", "bf16-mixed"]),
    "no time step": (["--model.time_steps", "0"], ["--model.time_steps", "at least 1", "0"]),
    "negative time steps": (["--model.time_steps", "-2"], ["--model.time_steps", "at least 1", "-2"]),
    "tau": (["--model.tau", "1.5"], ["--model.tau", "[0, 1]", "1.5"]),
    "SpikingJelly's tau": (["--model.tau", "2.0"], ["--model.tau", "[0, 1]", "SpikingJelly's tau=2.0 is tau=0.5 here"]),
    "tau in words": (["--model.tau", "half"], ["--model.tau", "half", "a number (float)"]),
    "half a time step": (["--model.time_steps", "2.5"], ["--model.time_steps", "2.5", "a whole number (int)"]),
    "half a channel": (
        ["--model.width", "2.5"],
        ["--model.width: expected a whole number (int) or null. Got value: 2.5"],
    ),
    "no seeds": (["--seeds"], ["--seeds", "at least one"]),
    "seeds twice": (["--seeds", "0", "1", "0"], ["seeds", "once", "[0, 1, 0]"]),
    "seed in words": (["--seeds", "a"], ["--seeds", "a", "int"]),
    "negative seed": (["--seeds", "-1"], ["seeds", "-1", "0 .."]),
    "enormous seed": (["--seeds", "9" * 30], ["seeds", "9" * 30, str(2**32 - 1)]),
    "batch": (["--data.batch_size", "1000"], ["--data.batch_size", "1000", "at most 128"]),
    "nothing held out": (["--data.held_out", "0"], ["--data.held_out", "0.1"]),
}

# the text of a recipe -> what the line must contain besides the file's name
RECIPES: dict[str, tuple[str, list[str]]] = {
    "misspelt key": ("model: {widht: 4}", ["model.widht", "--model.width"]),
    "misspelt section": ("modle: {width: 4}", ["modle.width", "--model.width"]),
    "wrong type": ("train: {epochs: many}", ["train.epochs", "many", "int"]),
    "unknown model": ("model: {name: resnet9}", ["--model.name", "'resnet9'", "spiking_resnet18"]),
    "no seeds": ("seeds: []", ["seeds", "at least one"]),
    "no methods": ("methods: []", ["methods", "at least one"]),
    "not YAML": ("model: [unclosed", ["recipe.yaml", "not YAML", "line 1"]),
    "plain text": ("just text", ["recipe.yaml", "options by name", "epochs"]),
    "empty": ("", ["recipe.yaml", "options by name", "epochs"]),
    "a list": ("- a\n- b", ["recipe.yaml", "options by name", "epochs"]),
    "section is a number": ("model: 5", ["recipe.yaml", "model", "options by name"]),
    "empty section": ("model:", ["recipe.yaml", "model", "options by name"]),
    "not text": ("\0\udcff", ["recipe.yaml", "not YAML"]),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_bad_option_is_one_line(case: str, refused: Refused, tiny: list[str], tmp_path: Path) -> None:
    words, expected = OPTIONS[case]
    line = refused("compare", *tiny, *words, "--out", tmp_path / "run")
    assert [part for part in expected if part not in line] == []
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("case", RECIPES)
def test_bad_recipe_is_one_line(case: str, refused: Refused, tiny: list[str], tmp_path: Path) -> None:
    text, expected = RECIPES[case]
    recipe = tmp_path / "recipe.yaml"
    recipe.write_bytes(text.encode(errors="surrogateescape"))
    line = refused("compare", *tiny, "--config", recipe, "--out", tmp_path / "run")
    assert [part for part in expected if part not in line] == []
    assert list(tmp_path.iterdir()) == [recipe]


@pytest.mark.parametrize("word", ["trian", "--bogus"])
def test_unknown_subcommand_is_one_line(word: str, refused: Refused) -> None:
    line = refused(word)
    assert word in line
    assert "spikeback --help" in line


MEANT = {  # words -> the word that was meant
    ("fti",): "fit",
    ("data", "chek"): "check",
    ("bench", "stpe"): "step",
    ("fit", "--config", "dmeo"): "demo",
    ("fit", "--config=cifar10/resnet18-t22"): "cifar10/resnet18-t2",
    ("sweep", "--config", "tabel1"): "table1",
    ("fit", "--data", "fashion-mnits"): "fashion-mnist",
    ("fit", "--data.events.source", "embeded"): "embedded",
    ("fit", "--model.name", "spiking_resnet81"): "spiking_resnet18",
    ("fit", "--model.stem", "cifra"): "cifar",
    ("fit", "--train.optimizer", "adm"): "adam",
    ("fit", "--method", "evolutionray"): "evolutionary",
    ("fit", "--modle.width", "4"): "--model.width",
    ("sweep", "--vary", "{trian.lr: [1]}"): "train.lr",
    ("tables", "--format", "htlm"): "html",
    ("diagnose", "--passes", "fidelty"): "fidelity",
}


@pytest.mark.parametrize("words", MEANT, ids=" ".join)
def test_the_word_that_was_meant(words: tuple[str, ...], refused: Refused) -> None:
    assert f"(did you mean '{MEANT[words]}'?)" in refused(*words)


@pytest.mark.parametrize("words", [("data",), ("bench",)], ids=" ".join)
def test_a_subcommand_without_its_action(words: tuple[str, ...], refused: Refused) -> None:
    assert f"{words[0]} needs an ACTION, one of" in refused(*words)


def test_fit_names_its_own_option(refused: Refused, tiny: list[str], tmp_path: Path) -> None:
    assert "--method: no schedule 'vanila' (did you mean 'vanilla'?); choose from" in refused(
        "fit", *tiny, "--method", "vanila", "--out", tmp_path / "run"
    )
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["compare", "fit", "sweep", "test", "predict", "report"])
def test_every_subcommand_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main([name, "--help"])
    assert leaving.value.code == 0
    assert capsys.readouterr().out.startswith("usage: spikeback")
