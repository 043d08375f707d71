"""--resume trains what is missing and touches nothing else."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from spikeback.cli.interrupt import Interrupted

CLOCK = "seconds_per_step"  # the only number of a trial that does not repeat


def trials_of(folder: Path) -> dict[tuple[str, int], dict[str, Any]]:
    results = json.loads((folder / "results.json").read_text())
    return {(t["method"], t["seed"]): {k: v for k, v in t.items() if k != CLOCK} for t in results["trials"]}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]


def assert_same_weights(one: Path, other: Path) -> None:
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.slow
def test_only_the_missing_trial_is_trained(
    run: Path, finished: Path, command: Callable[..., Any], resume: Callable[..., list[str]]
) -> None:
    words = resume(run, "evolutionary", 0, forget=True)
    others = {p: p.stat().st_mtime_ns for p in run.glob("*/*") if p.parent.name != "evolutionary-seed0"}
    assert len(others) == 15  # three trials, each with three checkpoints, the network and the log
    assert command(*words).code == 0
    assert {p: p.stat().st_mtime_ns for p in others} == others
    assert trials_of(run) == trials_of(finished)
    assert_same_weights(run / "evolutionary-seed0", finished / "evolutionary-seed0")


@pytest.mark.slow
def test_finished_run_has_nothing_to_resume(run: Path, command: Callable[..., Any], tiny: list[str]) -> None:
    before = {p: p.stat().st_mtime_ns for p in run.glob("*/*")}
    words = ["--methods", "vanilla", "evolutionary", "--seeds", 0, 1]
    assert command("compare", *tiny, *words, "--out", run, "--resume").code == 0
    assert {p: p.stat().st_mtime_ns for p in run.glob("*/*")} == before


@pytest.mark.slow
def test_config_of_the_run_is_its_recipe(run: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    again = tmp_path / "again"
    words = ["--methods", "vanilla", "evolutionary", "--seeds", 0, 1]
    assert command("compare", "--config", run / "config.yaml", *words, "--out", run, "--resume").code == 0
    fit = ["fit", "--config", run / "config.yaml", "--method", "vanilla", "--out", again]
    assert command(*fit).code == 0
    assert (again / "config.yaml").read_bytes() == (run / "config.yaml").read_bytes()
    assert yaml.safe_load((run / "config.yaml").read_text()) == json.loads((run / "results.json").read_text())["config"]
    assert trials_of(again)["vanilla", 0] == trials_of(run)["vanilla", 0]


@pytest.mark.parametrize("change", [["--train.lr", "0.2"], ["--data.limit", "96"], ["--model.surrogate", "Tanh(k=2)"]])
def test_another_recipe_is_refused(change: list[str], run: Path, refused: Callable[..., str], tiny: list[str]) -> None:
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    line = refused("compare", *tiny, *change, "--out", run, "--resume")
    assert str(run) in line
    assert "another recipe" in line
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == before


def test_used_folder_is_refused_without_resume(run: Path, refused: Callable[..., str], tiny: list[str]) -> None:
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    line = refused("compare", *tiny, "--out", run)
    assert str(run) in line
    assert "--resume" in line
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == before


@pytest.mark.slow
def test_ctrl_c_says_what_is_kept_and_resume_ends_the_same(
    tiny: list[str], tmp_path: Path, command: Callable[..., Any], finished: Path
) -> None:
    parts = tmp_path / "parts"
    words = [*tiny, "--methods", "vanilla", "evolutionary", "--seeds", "0"]
    script = "from spikeback.cli.main import main; main()"
    start = [sys.executable, "-c", script, "compare", *words, "--out", str(parts)]
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(
        start, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | threads
    )
    kept = parts / "evolutionary-seed0" / "last.ckpt"
    try:
        deadline = time.monotonic() + 60
        while not kept.is_file():  # the second trial has done its first epoch
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()

    assert "Traceback" not in out + err
    assert process.returncode == 130
    assert len(err.splitlines()) == 1
    assert err.startswith("error: interrupted: 1 of 2 trials are finished and kept in " + str(parts))
    assert "--resume" in err
    assert re.search(r"^1 of 2: vanilla, seed 0, \d+\.\d % of the test images$", out, re.MULTILINE)

    assert command("compare", *words, "--out", parts, "--resume").code == 0
    assert '"resumed"' in (kept.parent / "events.jsonl").read_text()
    whole = {name: trial for name, trial in trials_of(finished).items() if name[1] == 0}
    assert len(whole) == 2
    assert trials_of(parts) == whole
    for trial in ("vanilla-seed0", "evolutionary-seed0"):
        assert_same_weights(parts / trial, finished / trial)


def test_ctrl_c_while_the_data_are_read_names_no_folder(
    refused: Callable[..., str], tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise Interrupted("interrupted")

    monkeypatch.setattr("spikeback.train.trials.Run.data", stop)
    line = refused("fit", *tiny, "--out", tmp_path / "run", code=130)
    assert line.startswith("error: interrupted: no trial was begun; to go on: spikeback fit ")
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_ctrl_c_while_a_checkpoint_is_written(
    command: Callable[..., Any], tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupting(io.BytesIO):
        writes = 0

        def write(self, data: Any) -> int:
            Interrupting.writes += 1
            if Interrupting.writes == 100:
                os.kill(os.getpid(), signal.SIGINT)
            return super().write(data)

    monkeypatch.setattr("spikeback.train.checkpoint.io.BytesIO", Interrupting)
    outcome = command("fit", *tiny, "--out", tmp_path / "run")
    assert outcome.code == 130
    assert outcome.err.startswith("error: interrupted: 0 of 1 trials")
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".ckpt", ".part")]
