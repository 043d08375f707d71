"""A run killed with SIGKILL, at random moments and in the midst of every kind of write, ends as one left alone."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytestmark = pytest.mark.slow

EPOCHS, KILLS = 4, 6
WORDS = [
    *("compare", "--model.name", "spiking_resnet20_he", "--model.width", "2", "--model.time_steps", "1"),
    *("--data.name", "folder", "--data.size", "8", "--data.batch_size", "8", "--train.threads", "1"),
    *("--train.epochs", str(EPOCHS), "--train.precision", "32-true", "--train.probe", "4"),
    *("--methods", "vanilla", "evolutionary", "--seeds", "0"),
]
TRIALS = ("vanilla-seed0", "evolutionary-seed0")
MOMENTS = [  # in the order in which a run comes to them
    ("write", "config.yaml"),
    ("rename", "results.json"),
    ("write", "last.ckpt"),
    ("rename", "last.ckpt"),
    ("write", "best.ckpt"),
    ("rename", "previous.ckpt"),
    ("rename", "last.ckpt"),  # has become previous.ckpt
    ("write", "net.safetensors"),
    ("rename", "net.safetensors"),
    ("write", "results.json"),
    ("rename", "best.ckpt"),  # of the second trial
    ("write", "results.csv"),
    ("write", "report.html"),
]


RUNS: dict[str, dict[str, Any]] = {  # the options of killing.py
    "whole": {},
    "random": {"kills": KILLS, "seed": 0, "longest": 1.5 / (EPOCHS * len(TRIALS))},  # one and a half epochs
    "every write": {"moments": MOMENTS},
}


@dataclass
class Found:
    """A run: its folder, what it printed, how many times it was killed."""

    out: Path
    printed: str
    killed: int


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Found]:
    """One run left alone and those that were killed, all forked by one process, whose imports take longer than a run.

    Not to be changed.
    """
    folder, rng = tmp_path_factory.mktemp("runs"), np.random.default_rng(0)
    for label in ("cats", "dogs"):
        (folder / "images" / label).mkdir(parents=True)
        for i in range(20):
            Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(folder / "images" / label / f"{i}.png")
    words = [*WORDS, "--data.root", str(folder / "images")]
    given = [json.dumps({"words": words, "out": str(folder / name)} | options) for name, options in RUNS.items()]
    script = str(Path(__file__).with_name("killing.py"))
    process = subprocess.run(
        [sys.executable, script, *given], capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert process.returncode == 0, process.stdout + process.stderr
    parts = re.split(r'^{"killed": (\d+)}\n', process.stdout, flags=re.MULTILINE)
    assert len(parts) == 2 * len(RUNS) + 1
    return {
        name: Found(folder / name, printed, int(killed))
        for name, printed, killed in zip(RUNS, parts[:-1:2], parts[1::2], strict=True)
    }


def results_of(run: Path) -> dict[str, Any]:
    """results.json but for clocks, for what was typed, and for the commit, which may change meanwhile."""
    results = json.loads((run / "results.json").read_text())
    left_out = {"seconds", "started", "command", "environment", "resumed"}
    trials = [{k: v for k, v in trial.items() if k != "seconds_per_step"} for trial in results["trials"]]
    return {k: v for k, v in results.items() if k not in left_out} | {"trials": trials}


def assert_same_run(one: Path, other: Path) -> None:
    assert results_of(one) == results_of(other)
    for trial in TRIALS:
        assert (one / trial / "net.safetensors").read_bytes() == (other / trial / "net.safetensors").read_bytes()
        for name in ("last.ckpt", "best.ckpt", "previous.ckpt"):
            a, b = (torch.load(run / trial / name, weights_only=True) for run in (one, other))
            assert a["global_step"] == b["global_step"]
            assert a["lr_schedulers"] == b["lr_schedulers"]
            torch.testing.assert_close(a["state_dict"], b["state_dict"], rtol=0, atol=0)
            states = [content["optimizer_states"][0]["state"] for content in (a, b)]  # momentum
            assert states[0]
            torch.testing.assert_close(*states, rtol=0, atol=0)
        assert {p.name for p in (one / trial).iterdir()} == {p.name for p in (other / trial).iterdir()}


def test_killed_at_random_moments(runs: dict[str, Found]) -> None:
    found = runs["random"]
    assert found.killed >= KILLS / 2
    assert_same_run(found.out, runs["whole"].out)


def test_killed_in_the_midst_of_every_write(runs: dict[str, Found]) -> None:
    found = runs["every write"]
    assert runs["whole"].killed == 0
    assert found.killed == len(MOMENTS)
    trial = found.out / TRIALS[0]
    assert f"{trial / 'last.ckpt'} is missing: going on from previous.ckpt, after epoch 1" in found.printed
    assert f"{trial / 'best.ckpt'} is missing: written anew from last.ckpt" in found.printed
    assert_same_run(found.out, runs["whole"].out)
