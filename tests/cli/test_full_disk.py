"""A disk that fills up ends a run in one line; what is kept is whole, and the run goes on from it to the same bits."""

import errno
import json
import os
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Any

import pytest
import torch

from spikeback import files
from spikeback.train.checkpoint import read_checkpoint

pytestmark = pytest.mark.slow

# In the order in which a run comes to them; a second "last.ckpt" is that of the second epoch.
NAMES = [
    *("config.yaml", "results.json", "events.jsonl", "last.ckpt", "best.ckpt", "last.ckpt"),
    *("net.safetensors", "results.csv", "report.html"),
]


class Disk:
    """Full from the first write to a file of this name on."""

    def __init__(self) -> None:
        self.name, self.full = "", False

    def write(self, file: FileIO, data: bytes, write: Any = files._write) -> None:  # pyright: ignore
        name = Path(str(file.name)).name
        self.full = self.full or name == self.name or name.startswith(f".{self.name}.")
        if self.full:
            file.write(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(file, data)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr("spikeback.files._write", disk.write)
    return disk


def assert_whole(run: Path) -> None:
    """No file is half-written, and every checkpoint can be read."""
    for path in run.rglob("*"):
        assert not path.name.endswith(".part")
        if path.suffix == ".ckpt":
            read_checkpoint(path)
        if path.name == "events.jsonl":
            assert [json.loads(line) for line in path.read_text().splitlines()] or path.stat().st_size == 0


def test_full_disk_at_every_file(
    disk: Disk,
    refused: Callable[..., str],
    command: Callable[..., Any],
    tiny: list[str],
    finished: Path,
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    words = ["fit", *tiny, "--method", "evolutionary", "--out", run, "--resume"]
    trial = run / "evolutionary-seed0"
    for name in NAMES:
        disk.name, disk.full = name, False
        started = name not in ("config.yaml", "results.json")
        line = refused(*words, code=1 if started else 2)
        path = (trial if (name.endswith("ckpt") or name in ("events.jsonl", "net.safetensors")) else run) / name
        assert f"cannot write {path}: No space left on device; free some space" in line
        finished_trials = NAMES.index(name) >= NAMES.index("results.csv")
        kept = (
            f"{finished_trials:d} of 1 trials are finished and kept in {run}, the one under way to its last whole epoch"
        )
        assert not started or f"{kept}; to go on: spikeback fit " in line
        assert_whole(run)
    disk.name, disk.full = "-", False
    assert command(*words).code == 0
    assert_whole(run)

    other = finished / trial.name
    assert (trial / "net.safetensors").read_bytes() == (other / "net.safetensors").read_bytes()
    a, b = (torch.load(folder / "last.ckpt", weights_only=True)["state_dict"] for folder in (trial, other))
    torch.testing.assert_close(a, b, rtol=0, atol=0)
    (record,) = json.loads((run / "results.json").read_text())["trials"]
    expected = next(
        t
        for t in json.loads((finished / "results.json").read_text())["trials"]
        if (t["method"], t["seed"]) == ("evolutionary", 0)
    )
    assert record | {"seconds_per_step": 0} == expected | {"seconds_per_step": 0}
