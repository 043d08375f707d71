"""Every recipe in the package parses, is plain YAML, and runs; its header and the page say what is true."""

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from spikeback.cli.options import packaged_recipe, read_recipe, recipe_of, recipes, run_folder
from spikeback.data import Images, ImageSet
from spikeback.data.sets.source import find
from spikeback.lab.paper.cost import cost_text
from spikeback.train import Method, Recipe, compare
from spikeback.train.trials import Run

Parsed = Callable[..., Any]
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
def cost(name: str) -> str:
    return cost_text(packaged_recipe(name), 9)


def test_recipes_are_found_by_name() -> None:
    assert {"demo", *PAPER} <= recipes().keys()
    assert all(path.name == f"{name.rpartition('/')[2]}.yaml" for name, path in recipes().items())
    assert not [name for name in recipes() if name.endswith("base")]


@pytest.mark.slow
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


def drawn(recipe: Recipe) -> ImageSet:
    """Random samples of the recipe's kind, 2 of each of the first 8 classes: images, or frames of events."""
    source, side = find(recipe.data.name), recipe.data.size or 0
    kind, steps = source.published, [recipe.data.events.time_steps] if source.frames else []
    assert kind is not None
    shape = (*steps, kind.channels, side, side)
    images = lambda y: Images(torch.randint(0, 256, (len(y), *shape), dtype=torch.uint8), y)
    classes = tuple(map(str, range(kind.classes)))
    return ImageSet("drawn", "at random", classes, images(torch.arange(16) % 8), images(torch.arange(8)))


@pytest.mark.slow
@pytest.mark.parametrize("name", PAPER)
def test_row_of_the_paper_runs_for_one_step(name: str, parsed: Parsed, tmp_path: Path) -> None:
    """Of each method for the first row; what a method does is the same for all."""
    side = 32 if name.startswith("imagenet") else 8
    tiny = [*TINY, "--data.size", side, "--data.batch_size", 8, "--data.num_workers", 0, "--train.precision", "32-true"]
    config = parsed("compare", "--config", recipes()[name], *tiny)
    recipe = recipe_of(config)
    assert config.methods == [*METHODS]
    assert config.seeds == [0, 1, 2]
    methods = METHODS if name == next(iter(PAPER)) else METHODS[-1:]
    results = compare(Run(recipe, tmp_path, images=drawn(recipe)), [Method.from_text(text) for text in methods], [0])
    assert [(trial["method"], trial["steps"]) for trial in results["trials"]] == [(method, 1) for method in methods]
    steps = {"cifar10-dvs": [10]}.get(recipe.data.name, [])
    assert results["dataset"]["shape"] == [*steps, 2 if steps else 3, side, side]


@pytest.mark.parametrize("name", [*PAPER, *OTHERS])
def test_every_subcommand_with_a_recipe_takes_every_recipe(name: str, parsed: Parsed) -> None:
    for subcommand in ("compare", "fit", "sweep", "diagnose"):
        config = parsed(subcommand, "--config", recipes()[name])
        assert recipe_of(config) == packaged_recipe(name)
        if subcommand == "compare":
            assert run_folder(config) == Path("runs") / name.replace("/", "-")


@pytest.mark.slow
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
    assert given["branches"].keys() == vars(Recipe().branches).keys() - {"combine"}  # the former name of train.loss
    optimiser = {"loss", "epochs", "optimizer", "lr", "momentum", "weight_decay", "calibrate", "precision", "best_on"}
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


@pytest.mark.slow
def test_page_has_every_row() -> None:
    page = PAGE.read_text()
    assert "\n".join(page_rows()) in page
    for name in PAPER:
        assert page.count(f"`{name}`") == 1


def test_options_on_the_page_exist(parsed: Parsed) -> None:
    known = set(vars(parsed("compare").as_flat()))
    named = set(re.findall(r"--((?:data|model|branches|train)[\w.]+)", PAGE.read_text()))
    assert named <= known
    for path in [*recipes().values(), *(path.with_name("base.yaml") for path in recipes().values())]:
        if path.is_file():
            assert set(re.findall(r"--((?:data|model|branches|train)[\w.]+)", path.read_text())) <= known
