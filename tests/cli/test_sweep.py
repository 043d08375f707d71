"""`spikeback sweep`: a study becomes runs of `compare`, which fail, stop and go on one by one."""

import contextlib
import io
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from spikeback.cli.interrupt import Interrupted
from spikeback.cli.main import main
from spikeback.cli.options import recipe_of, studies
from spikeback.files import write_atomic
from spikeback.lab.sweep import command as sweep
from spikeback.lab.sweep import jobs
from spikeback.lab.sweep.study import cells_of
from spikeback.report import summarise
from spikeback.train import Recipe

REGIMES = {"low": {"model.surrogate": "Triangle(gamma=1.0)"}, "high": {"model.surrogate": "Rectangle(a=1.0)"}}
STUDY = {
    "title": "Tiny",
    "data": {"name": "folder", "batch_size": 7, "num_workers": 0},
    "model": {"name": "spiking_resnet20_he", "width": 4, "time_steps": 1},
    "train": {"epochs": 1, "precision": "32-true", "probe": 7},
    "methods": ["vanilla"],
    "seeds": [0],
    "vary": {"regime": REGIMES},
}


@pytest.fixture
def write(tmp_path: Path, draw_tree: Callable[..., Path]) -> Callable[..., Path]:
    """write(vary=...): the study with other keys, as a file; 20 images, of which 14 are trained on."""
    data = STUDY["data"] | {"root": str(draw_tree("cats", "dogs"))}

    def to_file(**changes: Any) -> Path:
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump(STUDY | {"data": data} | changes, sort_keys=False))
        return path

    return to_file


def in_this_process(names: list[str]) -> Callable[..., None]:
    """`run_jobs` one after the other, without the start of processes; the names of those started go into the list."""

    def run(words_by_name: dict[str, list[str]], at_once: int, ended: Any, watch: Any) -> None:
        for name, words in words_by_name.items():
            names.append(name)
            watch([name])
            error, printed = None, io.StringIO()
            try:
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(printed):
                    main(words)
            except SystemExit:
                error = printed.getvalue().strip().removeprefix("error: ")
            ended(name, error)

    return run


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the cells that were trained, in this process and without their plots, which take seconds."""
    names: list[str] = []
    monkeypatch.setattr("spikeback.cli.live.save_plots", lambda results, out: [write_atomic(out / "accuracy.png", b"")])
    monkeypatch.setattr("spikeback.cli.live.write_report", lambda results, path: write_atomic(path, b""))
    monkeypatch.setattr(sweep, "run_jobs", in_this_process(names))
    return names


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_points_of_all_axes_are_crossed() -> None:
    vary = {"regime": REGIMES, "train.lr": [0.1, "3e-3"], "branches.taps": ["block", ["layer1", "layer2.0"]]}
    cells = cells_of(Recipe(title="T"), vary, ["vanilla", "Evolutionary(0.5)"], [0, 1], Path("out"))
    assert [cell.name for cell in cells] == [
        f"{regime}-{lr}-{taps}"
        for regime in ("low", "high")
        for lr in ("0.1", "3e-3")
        for taps in ("block", "layer1-layer2.0")
    ]
    last = cells[-1]
    assert last.folder == Path("out/high-3e-3-layer1-layer2.0")
    assert last.point == {"regime": "high", "train.lr": "3e-3", "branches.taps": "['layer1', 'layer2.0']"}
    assert last.trials == [(m, s) for s in (0, 1) for m in ("vanilla", "Evolutionary(start=0.5)")]
    assert last.recipe.title == "T: high-3e-3-layer1-layer2.0"
    assert (last.recipe.model.surrogate, last.recipe.train.lr) == ("Rectangle(a=1.0)", 0.003)
    assert last.recipe.branches.taps == ["layer1", "layer2.0"]
    assert last.recipe.train.threads == 1
    assert cells[0].recipe.model.surrogate == "Triangle(gamma=1.0)"


BAD: dict[str, tuple[Any, list[str]]] = {
    "nothing": ({}, ["vary", "at least one axis"]),
    "an option misspelt": ({"train.ir": [1]}, ["vary.train.ir", "did you mean", "train.lr"]),
    "an option in a point": ({"a": {"b": {"modle.width": 1}}}, ["vary.a.b", "'modle.width'", "model.width"]),
    "no such option at all": ({"xyzzy": [1]}, ["vary.xyzzy", "choose from", "branches.taps", "train.lr"]),
    "a section": ({"train": [1]}, ["vary.train", "no option 'train'"]),
    "a number": ({"train.lr": 0.1}, ["vary.train.lr", "list of values"]),
    "points without options": ({"a": {"b": 1}}, ["vary.a", "options by name"]),
    "no point": ({"train.lr": []}, ["vary.train.lr", "no point"]),
    "wrong type": ({"train.lr": ["fast"]}, ["vary.train.lr.fast", "--train.lr", "fast", "float"]),
    "wrong choice": ({"train.calibrate": ["gian"]}, ["--train.calibrate", "gian", "none", "gain", "fidelity", "both"]),
    "wrong value": ({"a": {"b": {"train.lr": -1}}}, ["vary.a.b", "--train.lr", "positive"]),
    "one option twice": ({"regime": REGIMES, "model.surrogate": ["Tanh"]}, ["model.surrogate", "another axis"]),
    "one folder twice": ({"a": {"b c": {}, "b-c": {}}}, ["'b-c'", "other names"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_study_is_one_line(case: str, write: Any, refused: Any, tmp_path: Path) -> None:
    vary, expected = BAD[case]
    line = refused("sweep", "--config", write(vary=vary), "--out", tmp_path / "out")
    assert [part for part in expected if part not in line] == []
    assert not (tmp_path / "out").exists()


def test_bad_words_are_one_line(write: Any, refused: Any, tmp_path: Path) -> None:
    study, out = write(), tmp_path / "out"
    line = refused("sweep", "--config", "calibrat")
    assert [name for name in ("'calibrat'", "calibrate", "depth", "demo") if name not in line] == []
    assert "--jobs must be at least 1" in refused("sweep", "--config", study, "--jobs", 0, "--out", out)
    assert "--keep" in refused("sweep", "--config", study, "--keep", "some", "--out", out)
    assert "Evolutionary" in refused("sweep", "--config", study, "--methods", "vanila", "--out", out)
    assert "at least one" in refused("sweep", "--config", study, "--seeds", "--out", out)
    assert not out.exists()


@pytest.mark.slow
def test_every_cell_is_a_run(write: Any, command: Any, started: list[str], refused: Any, tmp_path: Path) -> None:
    out, words = tmp_path / "out", ["sweep", "--config", write(), "--train.momentum", "0.8", "--keep", "results"]
    outcome = command(*words, "--out", out)
    assert outcome.code == 0, outcome.err
    assert started == ["low", "high"]
    images = {
        f"{name}.{kind}" for name in ("accuracy", "low-first-layer", "high-first-layer") for kind in ("png", "svg")
    }
    assert files(out) == {"sweep.json", "sweep.md", *images, *(f"{n}/{f}" for n in started for f in sweep.KEPT)}
    found = json.loads((out / "sweep.json").read_text())
    assert (found["schema"], found["study"]["axes"], found["study"]["vary"]) == (1, ["regime"], {"regime": REGIMES})
    assert found["cells"] == [
        {"name": n, "point": {"regime": n}, "options": REGIMES[n], "results": f"{n}/results.json", "error": None}
        for n in started
    ]
    for row, cell in zip(found["rows"], found["cells"], strict=True):
        results = json.loads((out / cell["results"]).read_text())
        assert results["config"]["model"]["surrogate"] == REGIMES[cell["name"]]["model.surrogate"]
        assert (results["config"]["train"]["momentum"], results["config"]["train"]["threads"]) == (0.8, 1)
        assert row == {"cell": cell["name"], "point": cell["point"], **summarise(results)[0]}
    page = (out / "sweep.md").read_text()
    assert page.startswith("# Tiny\n")
    assert "| high | vanilla | 1 |" in page

    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.*")}
    assert "not empty" in refused(*words, "--out", out)
    assert "another recipe" in refused(*words, "--train.lr", "0.2", "--out", out, "--resume")
    plan = command(*words, "--seeds", 0, 1, "--plan", "--out", out, "--resume")
    assert plan.code == 0, plan.err
    rows = [line.split() for line in plan.out.splitlines() if line.startswith(("low", "high", "all"))]
    assert [row[:2] for row in rows[:3]] == [["low", "1"], ["high", "1"], ["all", "2"]]  # two that are missing
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.*")} == before
    assert command(*words, "--out", out, "--resume").code == 0
    assert started == ["low", "high"]


@pytest.mark.slow
def test_failing_cell_stops_no_other(write: Any, command: Any, started: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["sweep", "--config", write(vary={"lr": {"huge": {"train.lr": 1e30}, "small": {"train.lr": 0.01}}})]
    outcome = command(*words, "--out", out)
    assert outcome.code == 1
    assert outcome.err.startswith("error: 1 of 2 runs failed: huge; to try again: spikeback sweep")
    assert outcome.err.endswith("--resume\n")
    assert "failed   huge: the weights are no longer finite after step 2 of 2: lower --train.lr" in outcome.out
    found = json.loads((out / "sweep.json").read_text())
    assert "no longer finite" in found["cells"][0]["error"]
    assert [row["cell"] for row in found["rows"]] == ["small"]
    assert "- huge: the weights" in (out / "sweep.md").read_text()
    assert command(*words, "--out", out, "--resume").code == 1
    assert started == ["huge", "small", "huge"]


@pytest.mark.slow
def test_interrupted_cells_keep_whole_epochs(
    write: Any, command: Any, started: list[str], monkeypatch: Any, tmp_path: Path
) -> None:
    """Two processes, stopped by Ctrl-C as soon as one has done an epoch; in this process, they go on from there."""
    out = tmp_path / "out"

    def until_an_epoch(words: Any, at_once: int, ended: Any, watch: Any) -> None:
        def look(names: list[str]) -> None:
            watch(names)
            if list(out.glob("*/*/last.ckpt")):
                os.kill(os.getpid(), signal.SIGINT)

        jobs.run_jobs(words, at_once, ended, look)

    words = ["sweep", "--config", write(), "--train.epochs", "10", "--out", out, "--jobs", 2]
    with monkeypatch.context() as patched:
        patched.setattr(sweep, "run_jobs", until_an_epoch)
        outcome = command(*words)
    assert outcome.code == 130
    assert outcome.err.startswith("error: interrupted: 0 of 2 trials are finished and kept, those under way to their")
    assert outcome.err.endswith("--jobs 2 --resume\n")
    assert not [path for path in out.rglob("*") if path.suffix == ".part"]
    assert not (out / "sweep.json").exists()
    kept = list(out.glob("*/*/last.ckpt"))

    assert command(*words, "--resume").code == 0
    assert started == ["low", "high"]
    assert [row["seeds"] for row in json.loads((out / "sweep.json").read_text())["rows"]] == [1, 1]
    for path in kept:
        assert '"resumed"' in (path.parent / "events.jsonl").read_text()


def script(code: str) -> list[str]:
    return [sys.executable, "-c", code]


@pytest.mark.slow
def test_jobs_run_so_many_at_a_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = """
import sys, time
print("note\\nerror: no", sys.argv[1], file=sys.stderr)
time.sleep(0.3)
sys.exit(sys.argv[1] == "b")
"""
    monkeypatch.setattr(jobs, "COMMAND", script(code))
    outcomes: dict[str, str | None] = {}
    seen: list[list[str]] = []
    jobs.run_jobs({name: [name] for name in "abc"}, 2, outcomes.__setitem__, seen.append)
    assert outcomes == {"a": None, "b": "no b", "c": None}
    assert seen[0] == ["a", "b"]
    assert max(map(len, seen)) == 2


def test_killed_job_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "COMMAND", script("import os; os.kill(os.getpid(), 9)"))
    outcomes: dict[str, str | None] = {}
    jobs.run_jobs({"a": []}, 1, outcomes.__setitem__, lambda names: None)
    assert outcomes == {"a": "killed by SIGKILL"}


def test_interrupt_reaches_every_job_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = """
import pathlib, signal, sys, time
path = pathlib.Path(sys.argv[1])

def keep(*args):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends it
    time.sleep(0.2)
    path.write_text("kept")
    sys.exit()

signal.signal(signal.SIGTERM, keep)
path.write_text("started")
time.sleep(60)
"""
    monkeypatch.setattr(jobs, "COMMAND", script(code))
    paths = [tmp_path / name for name in "ab"]

    def watch(names: list[str]) -> None:
        if all(path.is_file() and path.read_text() for path in paths):
            raise Interrupted("interrupted")

    start = time.monotonic()
    with pytest.raises(Interrupted):
        jobs.run_jobs({path.name: [str(path)] for path in paths}, 2, lambda name, error: None, watch)
    assert [path.read_text() for path in paths] == ["kept", "kept"]
    assert time.monotonic() - start < 30


STUDIES = {
    "attempts": (3, 3), "bf16": (1, 6), "branches": (4, 8), "calibrate": (32, 192), "depth": (3, 27), "events": (1, 3),
    "fidelity": (2, 18), "lambda": (1, 12), "layers": (4, 16), "start": (8, 32), "start-cifar10": (4, 16),
    "surrogate": (3, 6), "table1": (8, 72),
}  # fmt: skip


def test_every_study_is_counted() -> None:
    assert sorted(studies()) == sorted(STUDIES)


@pytest.mark.parametrize(("name", "cells", "trials"), [(name, *counts) for name, counts in STUDIES.items()])
@pytest.mark.slow
def test_packaged_studies(name: str, cells: int, trials: int) -> None:
    from spikeback.cli.main import build_parser

    parser, _ = build_parser()
    config: Any = parser.parse_args(["sweep", "--config", str(studies()[name])])["sweep"]
    found = cells_of(recipe_of(config), config.vary, config.methods, config.seeds, Path("out"))
    assert len(found) == cells
    assert sum(len(cell.trials) for cell in found) == trials
