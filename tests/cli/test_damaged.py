"""A checkpoint that is damaged is noticed, and the run goes on from the one before, to the same bits, saying so."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from spikeback.files import write_atomic

pytestmark = pytest.mark.slow

TRIAL = "vanilla-seed0"


def flipped(data: bytes) -> bytes:
    """With one bit changed, in the middle: of a weight."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def foreign(data: bytes) -> bytes:
    """A sound file of torch with something else in it."""
    buffer = io.BytesIO()
    torch.save({"state_dict": {"fc.weight": torch.zeros(2, 2)}}, buffer)
    return buffer.getvalue()


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "half": lambda data: data[: len(data) // 2],
    "a bit": flipped,
    "foreign": foreign,
}


@pytest.fixture(autouse=True)
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take longer than the rest."""
    monkeypatch.setattr("spikeback.cli.live.save_plots", lambda results, out: [])
    monkeypatch.setattr("spikeback.cli.live.write_report", lambda results, path: write_atomic(path, b""))


def damage(path: Path, how: Callable[[bytes], bytes]) -> bytes:
    """Replace a file by a damaged copy of it, and return that."""
    damaged = how(path.read_bytes())
    path.write_bytes(damaged)
    return damaged


def events(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / TRIAL / "events.jsonl").read_text().splitlines()]


def recovered(run: Path) -> list[str]:
    return [event["message"] for event in events(run) if event["event"] == "recovered"]


def assert_same_trial(run: Path, finished: Path) -> None:
    net = f"{TRIAL}/net.safetensors"
    assert (run / net).read_bytes() == (finished / net).read_bytes()
    a, b = (torch.load(folder / TRIAL / "last.ckpt", weights_only=True)["state_dict"] for folder in (run, finished))
    torch.testing.assert_close(a, b, rtol=0, atol=0)
    records = [
        {(t["method"], t["seed"]): t | {"seconds_per_step": 0} for t in json.loads(path.read_text())["trials"]}
        for path in (run / "results.json", finished / "results.json")
    ]
    assert records[0] == records[1]


@pytest.mark.parametrize("how", DAMAGES)
def test_damaged_checkpoint_falls_back_to_the_one_before(
    how: str, run: Path, finished: Path, resume: Callable[..., list[str]], command: Callable[..., Any]
) -> None:
    words, last = resume(run, "vanilla", 0), run / TRIAL / "last.ckpt"
    damaged = damage(last, DAMAGES[how])
    outcome = command(*words)
    assert outcome.code == 0, outcome.err
    line = f"{last} is damaged (kept as last.ckpt.damaged): going on from previous.ckpt, after epoch 1"
    assert line in outcome.out
    assert recovered(run) == [line]
    assert events(run)[-3]["event"] == "resumed"  # then one epoch, and the end
    assert last.with_name("last.ckpt.damaged").read_bytes() == damaged
    assert_same_trial(run, finished)


def test_both_checkpoints_damaged_start_the_trial_anew(
    run: Path, finished: Path, resume: Callable[..., list[str]], command: Callable[..., Any]
) -> None:
    words = resume(run, "vanilla", 0)
    for name in ("last.ckpt", "previous.ckpt"):
        damage(run / TRIAL / name, DAMAGES["half"])
    outcome = command(*words)
    assert outcome.code == 0, outcome.err
    (line,) = recovered(run)
    assert "last.ckpt is damaged" in line
    assert "previous.ckpt is damaged" in line
    assert line.endswith(": the trial starts anew")
    assert line in outcome.out
    assert len(list((run / TRIAL).glob("*.damaged"))) == 2
    assert_same_trial(run, finished)
