"""Every recipe in the package parses, is plain YAML, and runs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from spikeback.cli.options import recipes

TINY = ["--model.width", 4, "--data.size", 8, "--train.epochs", 1, "--train.probe", 8]


def test_recipes_are_found_by_name() -> None:
    assert "demo" in recipes()
    assert all(path.name == f"{name.rpartition('/')[2]}.yaml" for name, path in recipes().items())


@pytest.mark.parametrize("name", recipes())
def test_recipe_runs_for_one_step(
    name: str, command: Callable[..., Any], draw_tree: Callable[..., Path], tmp_path: Path
) -> None:
    given = yaml.safe_load(recipes()[name].read_text())
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
