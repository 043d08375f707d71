"""A run killed with SIGKILL, at random moments and in the midst of every kind of write, ends as one left alone."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

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


def trained(root: Path, out: Path, **options: Any) -> tuple[str, dict[str, Any]]:
    """What a run printed, and the last line's numbers."""
    options |= {"words": [*WORDS, "--data.root", str(root)], "out": str(out)}
    script = str(Path(__file__).with_name("killing.py"))
    process = subprocess.run(
        [sys.executable, script, json.dumps(options)],
        capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout, json.loads(process.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, float]:
    """Pictures, a run on them that was left alone, and how long it takes."""
    folder, rng = tmp_path_factory.mktemp("whole"), np.random.default_rng(0)
    for label in ("cats", "dogs"):
        (folder / "pictures" / label).mkdir(parents=True)
        for i in range(20):
            Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(folder / "pictures" / label / f"{i}.png")
    _, found = trained(folder / "pictures", folder / "run")
    return folder / "pictures", folder / "run", found["seconds"]


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


def test_killed_at_random_moments(whole: tuple[Path, Path, float], tmp_path: Path) -> None:
    pictures, run, seconds = whole
    epoch = seconds / (EPOCHS * len(TRIALS))
    _, found = trained(pictures, tmp_path / "run", kills=KILLS, seed=0, longest=1.5 * epoch)
    assert found["killed"] >= KILLS / 2
    assert_same_run(tmp_path / "run", run)


def test_killed_in_the_midst_of_every_write(whole: tuple[Path, Path, float], tmp_path: Path) -> None:
    pictures, run, _ = whole
    out = tmp_path / "run"
    printed, found = trained(pictures, out, moments=MOMENTS)
    assert found["killed"] == len(MOMENTS)
    assert f"{out / TRIALS[0] / 'last.ckpt'} is missing: going on from previous.ckpt, after epoch 1" in printed
    assert f"{out / TRIALS[0] / 'best.ckpt'} is missing: written anew from last.ckpt" in printed
    assert_same_run(out, run)
