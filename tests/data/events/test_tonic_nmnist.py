"""N-MNIST through tonic itself: the files as they are published, where tonic looks for them."""

import json
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spikeback.cli.main import main
from spikeback.data import read_events, to_frames
from spikeback.data.events.decode import FrameOptions
from spikeback.data.sets.tonic import tonic_set

from ..nmnist_files import MARK, record

pytestmark = pytest.mark.slow

HALF = 10_000  # recordings: tonic takes a half for incomplete if it has fewer
SMALL = [
    *("--model.name", "spiking_resnet20_he", "--model.width", "4", "--model.stem", "dvs", "--data.size", "8"),
    *("--data.events.time_steps", "2", "--data.limit", "96", "--data.batch_size", "32", "--data.held_out", "0.01"),
    *("--train.epochs", "1", "--train.precision", "32-true", "--train.probe", "32"),
]


@pytest.fixture(scope="module")
def datasets() -> Any:
    """tonic.datasets; skips where tonic is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what tonic imports
        pytest.importorskip("tonic", reason="tonic is not installed (GPL, an extra): pip install 'spikeback[tonic]'")
        return import_module("tonic.datasets")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """NMNIST/{Train,Test}/<digit>/<number>.bin, and the archives these came from; every third file has a marker."""
    root, rng = tmp_path_factory.mktemp("tonic"), np.random.default_rng(0)
    for half in ("Train", "Test"):
        for digit in range(10):
            (root / "NMNIST" / half / str(digit)).mkdir(parents=True)
        (root / "NMNIST" / f"{half.lower()}.zip").touch()
        where, polarity = rng.integers(0, 34, (HALF, 12, 2)).tolist(), rng.integers(0, 2, (HALF, 12)).tolist()
        for i in range(HALF):
            lines = [record((40 * t, *where[i][t], polarity[i][t])) for t in range(12)]
            marked = [*lines[:5], MARK, *lines[5:]] if i % 3 == 0 else lines
            (root / "NMNIST" / half / str(i % 10) / f"{i + 1:05d}.bin").write_bytes(b"".join(marked))
    return root


def test_tonic_reads_the_same_events(datasets: Any, root: Path) -> None:
    theirs = datasets.NMNIST(str(root), train=False)
    for row in range(0, HALF, 100):
        events, label = theirs[row]
        mine = read_events(theirs.data[row])
        for field in "txyp":
            assert np.array_equal(events[field], mine[field])
        assert label == int(Path(theirs.data[row]).parent.name)


def test_frames_and_labels_are_those_of_the_files(datasets: Any, root: Path) -> None:
    loaded = tonic_set("NMNIST", root, FrameOptions(time_steps=2, size=8))
    assert (loaded.split, loaded.sensor, loaded.classes[7]) == ("official", (34, 34), "7 - seven")
    for part, half in ((loaded.train, "Train"), (loaded.test, "Test")):
        files = sorted((root / "NMNIST" / half).glob("*/*.bin"))
        assert part.labels.tolist() == [int(file.parent.name) for file in files]
        expected = [to_frames(read_events(file), 2, (34, 34), 8) for file in files[::500]]
        assert torch.equal(part.read(torch.arange(0, HALF, 500)).float(), torch.stack(expected))


def test_a_few_steps_are_trained_by_the_command(datasets: Any, root: Path, tmp_path: Path) -> None:
    main(["fit", "--data", "tonic:NMNIST", "--data.root", str(root), *SMALL, "--out", str(tmp_path / "run")])
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["dataset"]["name"] == "NMNIST"
    assert f"as tonic {import_module('tonic').__version__} reads it" in results["dataset"]["provenance"]
    assert (results["dataset"]["train"], results["dataset"]["test"]) == (96, HALF)
    assert results["trials"][0]["steps"] == 3
    assert np.isfinite(results["trials"][0]["history"]["train_loss"]).all()
