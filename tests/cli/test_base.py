"""Recipe files that build on others by `base`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from spikeback.cli.options import merged, read_recipe, recipe_of, recipes, run_folder, studies
from spikeback.train import Recipe

Parsed = Callable[..., Any]
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """write("a.yaml", base="demo", ...): a file of options."""

    def to_file(name: str, **options: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(options, sort_keys=False))
        return path

    return to_file


def test_a_file_overrides_its_base_key_by_key(write: Write, parsed: Parsed) -> None:
    write("b.yaml", base="demo", title="B", data={"events": {"roll": 2}}, methods=["shortcut"], seeds=[3])
    path = write("a.yaml", base="b.yaml", data={"events": {"time_steps": 3}, "limit": 64}, train={"lr": 0.5})
    demo = read_recipe(recipes()["demo"])
    assert read_recipe(path) == demo | {
        "title": "B",
        "data": demo["data"] | {"events": {"roll": 2, "time_steps": 3}, "limit": 64},
        "train": demo["train"] | {"lr": 0.5},
        "methods": ["shortcut"],
        "seeds": [3],
    }
    config = parsed("compare", "--config", path, "--train.lr", 0.25, "--seeds", 4, "--data.events.roll", 1)
    recipe = recipe_of(config)
    assert (recipe.train.lr, recipe.train.epochs, recipe.model.name) == (0.25, 5, "spiking_resnet34")
    assert (recipe.data.events.roll, recipe.data.events.time_steps, recipe.data.limit) == (1, 3, 64)
    assert (config.methods, config.seeds) == (["shortcut"], [4])
    assert run_folder(config) == Path("runs/a")


def test_a_later_file_overrides_an_earlier_one(write: Write, parsed: Parsed) -> None:
    one, two = write("one.yaml", base="demo", train={"lr": 0.5}), write("two.yaml", data={"limit": 64})
    recipe = recipe_of(config := parsed("compare", "--config", one, "--config", two))
    assert (recipe.train.lr, recipe.data.limit, recipe.data.size) == (0.5, 64, 14)
    assert run_folder(config) == Path("runs/two")


def test_base_is_looked_for_beside_the_file_then_in_the_package(write: Write) -> None:
    write("deep/er/b.yaml", title="mine")
    write("deep/demo", title="mine, without an ending")
    assert read_recipe(write("deep/a.yaml", base="er/b.yaml")) == {"title": "mine"}
    assert read_recipe(write("deep/a.yaml", base="demo")) == {"title": "mine, without an ending"}
    assert read_recipe(write("a.yaml", base="demo")) == read_recipe(recipes()["demo"])
    assert read_recipe(write("a.yaml", base="cifar100/base"))["data"]["name"] == "cifar100"


def test_dotted_names_and_numbers_with_an_exponent_are_options_too(
    tmp_path: Path, write: Write, parsed: Parsed
) -> None:
    write("b.yaml", data={"limit": 1, "events": {"roll": 1}})
    path = tmp_path / "a.yaml"
    path.write_text("base: b.yaml\ndata.limit: 64\ndata: {events.roll: 2}\ntrain.weight_decay: 1e-5\n")
    expected = {"data": {"limit": 64, "events": {"roll": 2}}, "train": {"weight_decay": 1e-5}}
    assert read_recipe(path) == expected
    assert recipe_of(parsed("fit", "--config", path)) == Recipe.from_dict(merged(Recipe().as_dict(), expected))


def test_study_on_a_base(write: Write, parsed: Parsed) -> None:
    vary = {"layers": {56: {"train.lr": 0.2}, 44: {"model.name": "spiking_resnet44_he"}}}
    config = parsed("sweep", "--config", write("study.yaml", base="depth", seeds=[0], vary=vary))
    assert (config.title, config.methods, config.seeds) == (
        "Gradient against depth",
        ["vanilla", "shortcut", "evolutionary"],
        [0],
    )
    points = read_recipe(studies()["depth"])["vary"]["layers"]
    assert config.vary == {"layers": points | {56: points[56] | {"train.lr": 0.2}, 44: vary["layers"][44]}}


@pytest.mark.parametrize("subcommand", ["compare", "fit", "sweep"])
@pytest.mark.parametrize(
    ("base", "words"),
    [
        ("nothing", ["a.yaml: base:", "'nothing'", "demo", "cifar10/base"]),
        ("b.yaml", ["b.yaml: base:", "a.yaml", "builds on this one"]),
        ("a.yaml", ["a.yaml: base:", "builds on this one"]),
        (["demo", "depth"], ["a.yaml: base", "one file", "['demo', 'depth']"]),
        (None, ["a.yaml: base", "one file", "None"]),
        ("c.yaml", ["c.yaml: train must hold options by name"]),
        ("d.yaml", ["d.yaml is not YAML"]),
    ],
)
def test_a_base_that_is_none(
    base: Any, words: list[str], subcommand: str, write: Write, refused: Callable[..., str]
) -> None:
    write("b.yaml", base="a.yaml")
    write("c.yaml", train=3)
    (write("d.yaml")).write_text("a: [")
    line = refused(subcommand, "--config", write("a.yaml", base=base))
    assert all(word in line for word in words), line


def test_an_option_that_no_subcommand_has_is_still_a_mistake(write: Write, refused: Callable[..., str]) -> None:
    line = refused("fit", "--config", write("a.yaml", base=str(write("b.yaml", mehtods=["vanilla"]))))
    assert "mehtods" in line


def test_axes_keep_the_order_of_the_file(tmp_path: Path, parsed: Parsed) -> None:
    (tmp_path / "study.yaml").write_text("base: small\nvary:\n  train.lr: [0.2, 0.1]\n  data.limit: [20, 10]\n")
    vary = parsed("sweep", "--config", str(tmp_path / "study.yaml")).vary
    assert [*vary] == ["train.lr", "data.limit"]
