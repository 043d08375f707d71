"""Every recipe in the package parses, is plain YAML, and runs; files build on each other by `base`."""

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from spikeback.cli.main import build_parser
from spikeback.cli.options import merged, packaged_recipe, read_recipe, recipe_of, recipes, run_folder, studies
from spikeback.data import Pictures, PictureSet
from spikeback.train import Method, Recipe, compare
from spikeback.train.cost import SAMPLES, cost_text
from spikeback.train.trials import Run

TINY = ["--model.width", 4, "--data.size", 8, "--train.epochs", 1, "--train.probe", 8]
METHODS = ("vanilla", "shortcut", "evolutionary")
# The paper's own rows: method, accuracy in %, deviation where there is one, table. Where it contradicts itself, both.
PAPER = {
    "cifar10/resnet18-t1": ["shortcut 93.89 ± 0.11 Table 2"],
    "cifar10/resnet18-t2": [
        "shortcut 93.92 ± 0.08 Table 2",
        "evolutionary 94.30 ± 0.09 Table 2",
        "shortcut 93.89 ± 0.11 Table 2, other reading",
        "evolutionary 93.92 ± 0.08 Table 2, other reading",
    ],
    "cifar10/resnet18-t4": ["evolutionary 94.46 ± 0.11 Table 2", "shortcut 94.30 ± 0.09 Table 2, other reading"],
    "cifar100/resnet18-t2": [
        *("vanilla 71.42 Table 1", "shortcut 73.68 Table 1", "evolutionary 74.02 Table 1"),
        *("shortcut 73.68 ± 0.10 Table 2", "evolutionary 74.78 ± 0.09 Table 2"),
    ],
    "cifar100/resnet18-t4": [
        *("vanilla 72.22 Table 1", "shortcut 74.78 Table 1", "evolutionary 74.83 Table 1"),
        *("shortcut 74.02 ± 0.08 Table 2", "evolutionary 74.83 ± 0.11 Table 2"),
    ],
    "cifar100/resnet34-t2": ["vanilla 69.82 Table 1", "shortcut 74.06 Table 1", "evolutionary 74.17 Table 1"],
    "cifar100/resnet34-t4": ["vanilla 69.98 Table 1", "shortcut 75.67 Table 1", "evolutionary 75.81 Table 1"],
    "imagenet/resnet18-t4": ["shortcut 64.47 ± 0.21 Table 3", "evolutionary 65.12 ± 0.18 Table 3"],
    "imagenet/resnet34-t4": ["shortcut 67.90 ± 0.17 Table 3", "evolutionary 68.14 ± 0.15 Table 3"],
    "cifar10-dvs/resnet18-t10": ["shortcut 82.00 ± 0.10 Table 4", "evolutionary 83.30 ± 0.10 Table 4"],
}
TITLES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "imagenet": "ImageNet", "cifar10-dvs": "CIFAR10-DVS"}
OTHERS = [name for name in recipes() if name not in PAPER]
PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"


@cache
def parser() -> Any:
    return build_parser()[0]


@cache
def cost(name: str) -> str:
    return cost_text(packaged_recipe(name), 9)


def parsed(*words: object) -> Any:
    """The options of a subcommand, its name the first word."""
    return parser().parse_args([str(word) for word in words])[str(words[0])]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """write("a.yaml", base="demo", ...): a file of options."""

    def to_file(name: str, **options: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(options, sort_keys=False))
        return path

    return to_file


def test_recipes_are_found_by_name() -> None:
    assert {"demo", *PAPER} <= recipes().keys()
    assert all(path.name == f"{name.rpartition('/')[2]}.yaml" for name, path in recipes().items())
    assert not [name for name in recipes() if name.endswith("base")]


@pytest.mark.parametrize("name", OTHERS)
def test_recipe_runs_for_one_step(
    name: str, command: Callable[..., Any], draw_tree: Callable[..., Path], tmp_path: Path
) -> None:
    given = read_recipe(recipes()[name])
    few = 8 if given["data"]["name"] == "folder" else 64
    data = ["--data.limit", few, "--data.batch_size", few]
    if given["data"]["name"] == "folder":
        data += ["--data.root", draw_tree("cats", "dogs")]
    outcome = command("fit", "--config", name, *TINY, *data, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["title"] == given["title"]
    assert results["trials"][0]["steps"] == 1
    for section in ("model", "branches"):
        for option, value in given.get(section, {}).items():
            assert option == "width" or results["config"][section][option] == value


def drawn(recipe: Recipe) -> PictureSet:
    """Random samples of the recipe's kind, 2 of each of the first 8 classes: pictures, or frames of events."""
    kind, side = SAMPLES[recipe.data.name], recipe.data.size or 0
    steps = [recipe.data.events.time_steps] if recipe.data.name == "cifar10-dvs" else []
    shape = (*steps, kind.channels, side, side)
    pictures = lambda y: Pictures(torch.randint(0, 256, (len(y), *shape), dtype=torch.uint8), y)
    classes = tuple(map(str, range(kind.classes)))
    return PictureSet("drawn", "at random", classes, pictures(torch.arange(16) % 8), pictures(torch.arange(8)))


@pytest.mark.parametrize("name", PAPER)
def test_row_of_the_paper_runs_for_one_step_of_each_method(name: str, tmp_path: Path) -> None:
    side = 32 if name.startswith("imagenet") else 8
    tiny = [*TINY, "--data.size", side, "--data.batch_size", 8, "--data.num_workers", 0, "--train.precision", "32-true"]
    config = parsed("compare", "--config", recipes()[name], *tiny)
    recipe = recipe_of(config)
    assert config.methods == [*METHODS]
    assert config.seeds == [0, 1, 2]
    results = compare(
        Run(recipe, tmp_path, pictures=drawn(recipe)), [Method.from_text(text) for text in config.methods], [0]
    )
    assert [(trial["method"], trial["steps"]) for trial in results["trials"]] == [(method, 1) for method in METHODS]
    steps = {"cifar10-dvs": [10]}.get(recipe.data.name, [])
    assert results["dataset"]["shape"] == [*steps, 2 if steps else 3, side, side]


@pytest.mark.parametrize("name", [*PAPER, *OTHERS])
def test_every_subcommand_with_a_recipe_takes_every_recipe(name: str) -> None:
    for subcommand in ("compare", "fit", "sweep", "diagnose"):
        config = parsed(subcommand, "--config", recipes()[name])
        assert recipe_of(config) == packaged_recipe(name)
        if subcommand == "compare":
            assert run_folder(config) == Path("runs") / name.replace("/", "-")


@pytest.mark.parametrize("name", PAPER)
def test_header_says_what_the_paper_and_the_cost_are(name: str) -> None:
    header = [line[1:].strip() for line in recipes()[name].read_text().splitlines() if line.startswith("#")]
    assert [" ".join(line.split()) for line in header if line.startswith(METHODS)] == PAPER[name]
    recipe = packaged_recipe(name)
    assert f"Cost: {cost(name)}." in header
    assert f"spikeback compare --config {name} --data.root FOLDER" in header
    dataset, layers, steps = re.fullmatch(r"(.+)/resnet(\d+)-t(\d+)", name).groups()  # pyright: ignore
    assert recipe.title == f"Spiking ResNet-{layers}, T = {steps}, {TITLES[dataset]}"
    assert header[0].startswith(f"{TITLES[dataset]}, Spiking ResNet-{layers}, T = {steps}.")
    assert (recipe.data.name, recipe.model.name) == (dataset, f"spiking_resnet{layers}")
    assert int(steps) == (recipe.data.events if dataset == "cifar10-dvs" else recipe.model).time_steps


@pytest.mark.parametrize("name", PAPER)
def test_a_row_does_not_change_with_the_defaults(name: str) -> None:
    given = read_recipe(recipes()[name])
    unused = {"width", "time_steps"} if name.startswith("cifar10-dvs") else {"width"}  # empty: the network's own
    assert given["model"].keys() == vars(Recipe().model).keys() - unused
    assert given["branches"].keys() == vars(Recipe().branches).keys()
    optimiser = {"epochs", "optimizer", "lr", "momentum", "weight_decay", "calibrate", "precision", "best_on"}
    assert given["train"].keys() == optimiser


def page_rows() -> list[str]:
    """A line of docs/recipes.md for each row: what the paper has, recipe, hours. `docs/recipes.md` holds them all."""
    rows = []
    for name, numbers in PAPER.items():
        found = {m: [n for n in numbers if n.startswith(f"{m} ") and "other" not in n] for m in METHODS}
        cells = [
            " or ".join(re.sub(r"^\w+ (.*) Table (\d)$", r"\1 (T\2)", n) for n in found[m]) or "–" for m in METHODS
        ]
        macs, one, nine = re.fullmatch(
            r"(\S+) MACs a trial; (\S+) GPU hours .*, (\S+) for 9 trials", cost(name)
        ).groups()  # pyright: ignore
        rows.append(f"| `{name}` | {' | '.join(cells)} | {macs} | {one} | {nine} |")
    return rows


def test_page_has_every_row() -> None:
    page = PAGE.read_text()
    assert "\n".join(page_rows()) in page
    for name in PAPER:
        assert page.count(f"`{name}`") == 1


def test_options_on_the_page_exist() -> None:
    known = set(vars(parsed("compare").as_flat()))
    named = set(re.findall(r"--((?:data|model|branches|train)[\w.]+)", PAGE.read_text()))
    assert named <= known
    for path in [*recipes().values(), *(path.with_name("base.yaml") for path in recipes().values())]:
        if path.is_file():
            assert set(re.findall(r"--((?:data|model|branches|train)[\w.]+)", path.read_text())) <= known


def test_a_file_overrides_its_base_key_by_key(write: Callable[..., Path]) -> None:
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


def test_a_later_file_overrides_an_earlier_one(write: Callable[..., Path]) -> None:
    one, two = write("one.yaml", base="demo", train={"lr": 0.5}), write("two.yaml", data={"limit": 64})
    recipe = recipe_of(config := parsed("compare", "--config", one, "--config", two))
    assert (recipe.train.lr, recipe.data.limit, recipe.data.size) == (0.5, 64, 14)
    assert run_folder(config) == Path("runs/two")


def test_base_is_looked_for_beside_the_file_then_in_the_package(write: Callable[..., Path]) -> None:
    write("deep/er/b.yaml", title="mine")
    write("deep/demo", title="mine, without an ending")
    assert read_recipe(write("deep/a.yaml", base="er/b.yaml")) == {"title": "mine"}
    assert read_recipe(write("deep/a.yaml", base="demo")) == {"title": "mine, without an ending"}
    assert read_recipe(write("a.yaml", base="demo")) == read_recipe(recipes()["demo"])
    assert read_recipe(write("a.yaml", base="cifar100/base"))["data"]["name"] == "cifar100"


def test_dotted_names_and_numbers_with_an_exponent_are_options_too(tmp_path: Path, write: Callable[..., Path]) -> None:
    write("b.yaml", data={"limit": 1, "events": {"roll": 1}})
    path = tmp_path / "a.yaml"
    path.write_text("base: b.yaml\ndata.limit: 64\ndata: {events.roll: 2}\ntrain.weight_decay: 1e-5\n")
    expected = {"data": {"limit": 64, "events": {"roll": 2}}, "train": {"weight_decay": 1e-5}}
    assert read_recipe(path) == expected
    assert recipe_of(parsed("fit", "--config", path)) == Recipe.from_dict(merged(Recipe().as_dict(), expected))


def test_study_on_a_base(write: Callable[..., Path]) -> None:
    vary = {"layers": {56: {"train.lr": 0.2}, 44: {"model.name": "spiking_resnet44_he"}}}
    config = parsed("sweep", "--config", write("study.yaml", base="depth", seeds=[0], vary=vary))
    assert (config.title, config.methods, config.seeds) == ("Gradient against depth", [*METHODS], [0])
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
    base: Any, words: list[str], subcommand: str, write: Callable[..., Path], refused: Callable[..., str]
) -> None:
    write("b.yaml", base="a.yaml")
    write("c.yaml", train=3)
    (write("d.yaml")).write_text("a: [")
    line = refused(subcommand, "--config", write("a.yaml", base=base))
    assert all(word in line for word in words), line


def test_an_option_that_no_subcommand_has_is_still_a_mistake(
    write: Callable[..., Path], refused: Callable[..., str]
) -> None:
    line = refused("fit", "--config", write("a.yaml", base=str(write("b.yaml", mehtods=["vanilla"]))))
    assert "mehtods" in line
