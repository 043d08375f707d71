"""`spikeback tables`: finds runs, prints the tables in four formats, and says how to get what is missing."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spikeback.lab.paper.command import result_files

Command = Callable[..., Any]
DVS = "cifar10-dvs/resnet18-t10"


@pytest.fixture
def put(tmp_path: Path, row_results: Callable[..., Any]) -> Callable[..., Path]:
    """put("a/b", recipe, accuracies, ...): writes results.json into this folder."""

    def write(where: str, *words: Any, **changed: Any) -> Path:
        folder = tmp_path / where
        folder.mkdir(parents=True)
        (folder / "results.json").write_text(json.dumps(row_results(*words, **changed)))
        return folder

    return write


def test_without_results_it_says_how_to_get_them_and_the_cost(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = command("tables", "--table", 4)
    assert outcome.code == 0, outcome.err
    assert "83.30±0.10" in outcome.out
    assert "Table 1" not in outcome.out
    assert f"spikeback compare --config {DVS} --data.root DIR" in outcome.out
    facts = json.loads(command("tables", "--table", 4, "--format", "json").out)
    (entry,) = facts["to_run"]
    assert (entry["recipe"], entry["trials"]) == (DVS, 9)
    assert 1 < entry["gpu_hours"] < 10
    assert not any(tmp_path.iterdir())


def test_runs_of_two_machines_merge(command: Command, put: Callable[..., Path], tmp_path: Path) -> None:
    put("here/deep/down", DVS, {"evolutionary": [0.80]})
    there = put("there/run", DVS, {"evolutionary": [0.80, 0.82], "shortcut": [0.5]})
    outcome = command("tables", tmp_path / "here", there, "--table", 4, "--format", "markdown")
    assert outcome.code == 0, outcome.err
    assert "| 83.30 ± 0.10 | 82.00 ± 1.41 | 81.00 ± 1.41 | 2 | same (1) |" in outcome.out
    assert "| 82.00 ± 0.10 | 51.00 | 50.00 | 1 | same (1) |" in outcome.out
    assert "How to get ours" not in outcome.out


@pytest.mark.parametrize("columns", [80, 120])
def test_no_line_is_wider_than_the_terminal(
    columns: int, command: Command, put: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    put("runs/one", "cifar10/resnet18-t2", {"vanilla": [0.9, 0.8], "shortcut": [0.8, 0.9], "evolutionary": [0.7, 0.9]})
    two = put("runs/two", "cifar100/resnet18-t2", {"evolutionary": [0.8]})
    outcome = command("tables", two.parent, "--table", 2)
    assert outcome.code == 0, outcome.err
    assert max(map(len, outcome.out.splitlines())) <= columns
    assert ("SNN training" in outcome.out) == (columns == 120)  # the column "type" needs room
    for figure in ("93.92±0.08", "85.00±7.07", "81.00"):
        assert figure in outcome.out


@pytest.mark.parametrize(("kind", "start"), [("terminal", "Table 4"), ("html", "<!doctype html>"), ("markdown", "# ")])
def test_out_is_a_file(kind: str, start: str, command: Command, put: Callable[..., Path], tmp_path: Path) -> None:
    path = tmp_path / "new" / "tables"
    folder = put("run", DVS, {"evolutionary": [0.8]})
    outcome = command("tables", folder, "--table", 4, "--format", kind, "--out", path)
    assert outcome.code == 0, outcome.err
    assert path.read_text().startswith(start)
    assert "83.30" in path.read_text().replace("\N{NO-BREAK SPACE}", " ")
    assert str(path) in outcome.out.replace("\n", "")


def test_default_is_runs_and_a_file_found_twice_counts_once(
    put: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert result_files([]) == []
    folder = put("runs/one", DVS, {"evolutionary": [0.8]})
    assert result_files([]) == [Path("runs/one/results.json")]
    assert len(result_files([str(folder), "runs", str(tmp_path)])) == 1


def test_bad_input_is_one_line(refused: Callable[..., str], put: Callable[..., Path], tmp_path: Path) -> None:
    assert "no folder nowhere: name the folder of a run" in refused("tables", "nowhere")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert f"no results.json in {empty} or below" in refused("tables", empty)
    one, two = put("one", DVS, {"evolutionary": [0.8]}), put("two", DVS, {"evolutionary": [0.7]})
    line = refused("tables", one, two)
    assert f"{one / 'results.json'} and {two / 'results.json'} both hold evolutionary, seed 0" in line
    (one / "results.json").write_text("{")
    assert f"{one / 'results.json'} is not JSON" in refused("tables", one)
    assert "--table" in refused("tables", "--table", 5)
