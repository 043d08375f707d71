"""The published recordings in the folders that SpikingJelly and tonic leave behind."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from spikeback.data import load
from spikeback.data.check import check
from spikeback.data.config import EventConfig
from spikeback.data.events.frame_set import FrameSet
from spikeback.data.sets import cifar10_dvs as dvs
from spikeback.data.sets import dvs128_gesture as gesture
from spikeback.data.sets import nmnist as sets
from spikeback.errors import UsageError

from ..nmnist_files import write as write_bin
from .test_recordings import aedat3, dvs128

Event = tuple[int, int, int, int]
EVENTS = EventConfig(time_steps=2)


def spikingjelly_npz(path: Path, events: list[Event], turn: bool = False) -> None:
    """As SpikingJelly converts a file: t is the file's 32-bit clock; of CIFAR10-DVS x is 127 - y_raw, y 127 - x_raw."""
    path.parent.mkdir(parents=True, exist_ok=True)
    t, x, y, p = np.array(events).T
    np.savez(path, t=t.astype(">u4" if turn else "u4"), x=127 - y if turn else x, y=x if turn else y, p=p)


def of_dvs(label: int, i: int) -> list[Event]:
    """Four events; in every other recording the clock of 32 bits starts again."""
    late = 2**32 - 25 if i % 2 else 0
    return [
        ((late + t) % 2**32, x, y, p)
        for t, x, y, p in [(10, label, i, 1), (20, i, 90 + label, 0), (30, 127, i, 1), (40, 0, 1, 1)]
    ]


def write_dvs(folder: Path, arrays: bool = False) -> None:
    for label, name in enumerate(dvs.CLASSES):
        for i in range(dvs.PER_CLASS):
            path = folder / name / f"cifar10_{name}_{i}"
            path.parent.mkdir(parents=True, exist_ok=True)
            if arrays:
                spikingjelly_npz(path.with_suffix(".npz"), of_dvs(label, i), turn=True)
            else:
                dvs128(path.with_suffix(".aedat"), of_dvs(label, i))


def write_nmnist(folder: Path, arrays: bool = False) -> None:
    for half, count in sets.NMNIST.items():
        for n in range(1, count + 1):
            events, digit = [(t, n, 7 * n % 10, 1) for t in (5, 100_000)], str(7 * n % 10)
            if arrays:
                spikingjelly_npz(folder / half.lower() / digit / f"{n:05d}.npz", events)
            else:
                (folder / half / digit).mkdir(parents=True, exist_ok=True)
                write_bin(folder / half / digit / f"{n:05d}.bin", events)


def write_gesture(folder: Path, arrays: bool = False) -> None:
    for half in gesture.HALVES:
        parts = [[(1000 * label + 10 * i, i, label, 1) for i in range(5)] for label in range(11)]
        if arrays:
            for label, events in enumerate(parts):
                spikingjelly_npz(folder / half / str(label) / "user01_led_0.npz", events)
            continue
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"trials_to_{half}.txt").write_text(f"{half}.aedat\n")
        aedat3(folder / f"{half}.aedat", [event for events in parts for event in events])
        rows = "".join(f"{label + 1},{1000 * label},{1000 * label + 1000}\n" for label in range(11))
        (folder / f"{half}_labels.csv").write_text(f"class,startTime_usec,endTime_usec\n{rows}")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dvs, "PER_CLASS", 2)
    monkeypatch.setattr(sets, "NMNIST", {"Train": 20, "Test": 10})


def opened(name: str, root: Path) -> FrameSet:
    loaded = load(name, root, events=EVENTS)
    assert isinstance(loaded, FrameSet)
    return loaded


@pytest.mark.parametrize(
    ("name", "write", "inner"),
    [
        ("cifar10-dvs", write_dvs, ["extract"]),
        ("nmnist", write_nmnist, ["extract", "NMNIST"]),
        ("dvs128-gesture", write_gesture, ["extract/DvsGesture", "DvsGesture"]),
    ],
)
def test_the_original_files_are_the_same_set_wherever_they_lie(
    tmp_path: Path, name: str, write: Callable[[Path], None], inner: list[str]
) -> None:
    write(tmp_path / "plain")
    plain = opened(name, tmp_path / "plain")
    for i, folder in enumerate(inner):
        root = tmp_path / str(i)
        (root / "download").mkdir(parents=True)
        write(root / folder)
        moved = opened(name, root)
        assert (moved.hash(), moved.manifest) == (plain.hash(), plain.manifest)
        finding = check(root)
        assert (finding.source, finding.whole, finding.hashes) == (name, True, check(tmp_path / "plain").hashes)


@pytest.mark.parametrize(("name", "write"), [("cifar10-dvs", write_dvs), ("nmnist", write_nmnist)])
@pytest.mark.parametrize("axes", ["jaer", "spikingjelly"])
def test_spikingjellys_arrays_are_the_same_frames_and_the_same_split(
    tmp_path: Path, name: str, write: Callable[..., None], axes: str
) -> None:
    write(tmp_path / "plain")
    write(tmp_path / "theirs" / "events_np", arrays=True)
    events = EventConfig(time_steps=2, axes=axes)  # type: ignore[arg-type]
    plain, theirs = (load(name, tmp_path / root, events=events) for root in ("plain", "theirs"))
    assert isinstance(plain, FrameSet)
    assert isinstance(theirs, FrameSet)
    assert torch.equal(
        theirs.train.read(torch.arange(len(theirs.train))), plain.train.read(torch.arange(len(plain.train)))
    )
    assert (theirs.hash(), theirs.manifest, theirs.mirror) == (plain.hash(), plain.manifest, plain.mirror)
    finding = check(tmp_path / "theirs")
    assert (finding.source, finding.whole) == (name, True)


def test_spikingjellys_gestures_are_read(tmp_path: Path) -> None:
    write_gesture(tmp_path / "events_np", arrays=True)
    loaded = opened("dvs128-gesture", tmp_path)
    assert loaded.train.labels.tolist() == list(range(11))
    assert (check(tmp_path).source, check(tmp_path).whole) == ("dvs128-gesture", True)


def test_the_original_is_preferred_to_arrays_made_of_it(tmp_path: Path) -> None:
    write_dvs(tmp_path / "extract")
    write_dvs(tmp_path / "events_np", arrays=True)
    assert "original AEDAT 2.0" in load("cifar10-dvs", tmp_path, events=EVENTS).provenance


@pytest.mark.parametrize("root", [".", "CIFAR10DVS"])
def test_tonics_recordings_are_named_with_what_reads_them(tmp_path: Path, root: str) -> None:
    for name in dvs.CLASSES:
        (tmp_path / "CIFAR10DVS" / name).mkdir(parents=True)
        (tmp_path / "CIFAR10DVS" / name / "0.aedat4").touch()
    expected = rf"tonic's version of cifar10-dvs; data.name=tonic:CIFAR10DVS data.root={tmp_path} reads it"
    with pytest.raises(UsageError, match=expected):
        load("cifar10-dvs", tmp_path / root)


def test_tonics_gestures_are_named_with_what_reads_them(tmp_path: Path) -> None:
    (tmp_path / "DVSGesture" / "ibmGestureTrain" / "user01_fluorescent").mkdir(parents=True)
    for root in (tmp_path, tmp_path / "DVSGesture"):
        for call in (lambda root=root: load("dvs128-gesture", root), lambda root=root: check(root)):
            with pytest.raises(UsageError, match=rf"data.name=tonic:DVSGesture data.root={tmp_path} reads it"):
                call()


@pytest.mark.parametrize("name", ["cifar10-dvs", "nmnist", "dvs128-gesture"])
def test_archives_that_nobody_unpacked_are_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "download").mkdir()
    (tmp_path / "download" / "airplane.zip").touch()
    with pytest.raises(
        UsageError, match=rf"in download/ \(airplane.zip\); unpack these archives into {tmp_path}/extract"
    ):
        load(name, tmp_path)
