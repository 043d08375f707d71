"""Own recordings, a folder a class: files of every format, written here byte by byte."""

import hashlib
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from spikeback.data import DataConfig, load
from spikeback.data.check import check
from spikeback.data.config import EventConfig
from spikeback.data.events import EVENT, to_frames
from spikeback.data.events.decode import FrameOptions
from spikeback.data.sets.folder import divide, list_folder
from spikeback.data.sets.recordings import RECORDINGS, recordings, size_of
from spikeback.data.split import hold_out
from spikeback.errors import UsageError

from ..nmnist_files import write as write_bin
from .test_aedat4 import header, packet

Event = tuple[int, int, int, int]  # t, x, y, p
OPTIONS = FrameOptions(time_steps=2)
TONIC = np.dtype([("x", int), ("y", int), ("t", int), ("p", int)])


def dvs128(path: Path, events: Sequence[Event]) -> None:
    words = b"".join(struct.pack(">II", y << 8 | (127 - x) << 1 | (1 - p), t) for t, x, y, p in events)
    path.write_bytes(b"#!AER-DAT2.0\r\n" + words)


def davis(
    path: Path, events: Sequence[Event], chip: bytes = b"# AEChip: eu.seebetter.ini.chips.davis.DAVIS240C\r\n"
) -> None:
    words = b"".join(struct.pack(">II", y << 22 | (239 - x) << 12 | p << 11, t) for t, x, y, p in events)
    path.write_bytes(b"#!AER-DAT2.0\r\n" + chip + words)


def aedat3(path: Path, events: Sequence[Event]) -> None:
    head = struct.pack("<HHIIIIII", 1, 1, 8, 4, 0, len(events), len(events), len(events))
    words = b"".join(struct.pack("<II", x << 17 | y << 2 | p << 1 | 1, t) for t, x, y, p in events)
    path.write_bytes(b"#!AER-DAT3.1\r\n#!END-HEADER\r\n" + head + words)


def aedat4(path: Path, events: Sequence[Event]) -> None:
    path.write_bytes(header("EVTS") + packet(0, events))  # its sensor is 30 x 40


def npz(path: Path, events: Sequence[Event]) -> None:
    t, x, y, p = np.array(events).reshape(-1, 4).T
    np.savez(path, t=t, x=x, y=y, p=p)


def npy(path: Path, events: Sequence[Event]) -> None:
    np.save(path, np.array([(x, y, t, p) for t, x, y, p in events], TONIC))


WRITE: dict[str, Callable[[Path, Sequence[Event]], Any]] = {
    "0.aedat": dvs128,
    "1.aedat": aedat3,
    "2.npz": npz,
    "3.npy": npy,
    "4.bin": write_bin,
}


def events_of(label: int, i: int) -> list[Event]:
    return [(10, 2 * label, i, 1), (20, i, label, 0), (30, 30 + label, i, 1), (40, 30 + label, i, 1)]


def tree(root: Path, halves: Sequence[str] = ("train", "test"), write: Any = WRITE) -> Path:
    """Two classes, with a recording of each kind of file."""
    for half in halves:
        for label, each in enumerate(("left", "right")):
            (root / half / each).mkdir(parents=True)
            for i, (name, kind) in enumerate(write.items()):
                kind(root / half / each / name, events_of(label, i))
    return root


def test_recordings_of_mixed_formats_are_frames_with_their_labels(tmp_path: Path) -> None:
    loaded = recordings(tree(tmp_path / "own"), OPTIONS)
    assert (loaded.name, loaded.classes, loaded.sensor) == ("own", ("left", "right"), (128, 128))  # the .aedat's
    assert (loaded.split, loaded.mirror) == ("folders", None)
    assert "recordings from the folder own" in loaded.provenance
    for part in (loaded.train, loaded.test):
        assert part.labels.tolist() == [0] * 5 + [1] * 5
        expected = [to_frames(np.array(events_of(y, i), EVENT), 2, (128, 128)) for y in (0, 1) for i in range(5)]
        assert torch.equal(part.read(torch.arange(10)).float(), torch.stack(expected))
    names = [f"{each}/{name}" for each in ("left", "right") for name in WRITE]
    text = "\n".join("\t".join([half, *(f"{half}/{name}" for name in names)]) for half in ("train", "test"))
    assert loaded.manifest == hashlib.sha256(text.encode()).hexdigest()


def test_one_level_is_divided_as_images_are(tmp_path: Path) -> None:
    whole = recordings(tree(tmp_path, ["."]), OPTIONS)
    labels = torch.arange(2).repeat_interleave(5)
    train, test = hold_out(labels, 0.2)
    frames = torch.cat([whole.train.read(torch.arange(8)), whole.test.read(torch.arange(2))])
    expected = [
        to_frames(np.array(events_of(row // 5, row % 5), EVENT), 2, (128, 128))
        for row in [*train.tolist(), *test.tolist()]
    ]
    assert torch.equal(frames.float(), torch.stack(expected))
    assert whole.split == "random-0"


def test_a_set_that_is_opened_again_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(tmp_path)
    first = recordings(root, OPTIONS).hash()
    monkeypatch.setattr("spikeback.data.sets.recordings.read_with_sensor", None)
    monkeypatch.setattr("spikeback.data.events.decode.read_events", None)
    assert recordings(root, OPTIONS).hash() == first


@pytest.mark.parametrize(
    ("name", "kind", "size"),
    [
        ("a.aedat", dvs128, [128, 128, 1]),
        ("a.aedat", davis, [180, 240, 1]),
        ("a.aedat", aedat3, [2, 32, 0]),  # the least that holds all events
        ("a.aedat4", aedat4, [30, 40, 1]),
        ("a.bin", write_bin, [34, 34, 0]),
        ("a.npz", npz, [2, 32, 0]),
    ],
)
def test_a_files_sensor_is_the_one_it_names_or_the_least(tmp_path: Path, name: str, kind: Any, size: list[int]) -> None:
    if name == "a.aedat4":
        pytest.importorskip("aedat")
    kind(tmp_path / name, events_of(1, 0))
    assert size_of(tmp_path / name, OPTIONS).tolist() == [size]


def test_without_a_name_the_sensor_is_the_least_that_holds_all_events_of_all_files(tmp_path: Path) -> None:
    files = {"0.npz": npz, "1.npy": npy, "2.npz": lambda path, _: npz(path, [(0, 3, 50, 1)])}
    assert recordings(tree(tmp_path, write=files), OPTIONS).sensor == (51, 32)


def test_files_that_name_different_sensors_are_refused_and_the_advice_works(tmp_path: Path) -> None:
    root = tree(tmp_path, write={"0.aedat": dvs128, "1.aedat": davis, "2.npz": npz})
    with pytest.raises(UsageError, match=r"0.aedat is of 128 x 128, .*1.aedat is of 180 x 240 pixels") as said:
        load("recordings", root)
    size = str(said.value).rpartition("data.events.sensor=")[2]
    assert size == "[180,240]"
    loaded = load("recordings", root, events=EventConfig(time_steps=2, sensor=(180, 240)))
    expected = [to_frames(np.array(events_of(y, i), EVENT), 2, (180, 240)) for y in (0, 1) for i in range(3)]
    assert torch.equal(loaded.train.read(torch.arange(6)).float(), torch.stack(expected))


def test_v2es_recordings_are_told_their_sensor_and_the_advice_works(tmp_path: Path) -> None:
    bare = lambda path, events: davis(path, [*events, (50, 0, 0, 1), (60, 239, 179, 1)], b"# created in v2e\r\n")
    root = tree(tmp_path, write={"0.aedat": bare, "1.aedat": bare})
    with pytest.raises(UsageError, match=r"left.0.aedat names no camera .*data.events.sensor=\[180,240\]"):
        load("recordings", root)
    assert len(load("recordings", root, events=EventConfig(time_steps=2, sensor=(180, 240))).train) == 4


def test_a_trial_of_every_recording(tmp_path: Path) -> None:
    root = tree(tmp_path)
    cut = load("recordings", root, events=EventConfig(time_steps=2, by="time", start=10, duration=20))
    assert cut.train.read(torch.arange(10)).sum((2, 3, 4)).tolist() == [[1, 1]] * 10
    with pytest.raises(UsageError, match=r"left.0.aedat: no events from 110 us on; time runs from 10 to 40"):
        load("recordings", root, events=EventConfig(time_steps=2, start=100))


def test_every_mistake_is_named(tmp_path: Path) -> None:
    root = tree(tmp_path / "own")
    broken = root / "train" / "left" / "2.npz"
    good = broken.read_bytes()
    broken.write_bytes(good[:50])
    with pytest.raises(UsageError, match=r"left.2.npz cannot be read as .npz"):
        recordings(root, OPTIONS)
    broken.write_bytes(good)
    (root / "train" / "left" / "notes.txt").touch()
    assert "notes.txt" in recordings(root, OPTIONS).notes[0]
    (root / "test" / "right").rename(root / "test" / "wrong")
    with pytest.raises(UsageError, match="must have the same class folders; 'right' is in only one"):
        recordings(root, OPTIONS)
    with pytest.raises(UsageError, match=r"data\.name=recordings needs data\.root, .*recordings"):
        load("recordings")


def test_recordings_without_any_event_need_a_sensor(tmp_path: Path) -> None:
    root = tree(tmp_path, write={"0.npz": lambda path, _: npz(path, []), "1.npz": lambda path, _: npz(path, [])})
    with pytest.raises(UsageError, match=r"all others hold no event .*data.events.sensor=\[128,128\]"):
        recordings(root, OPTIONS)
    loaded = recordings(root, OPTIONS, (4, 5))
    assert loaded.train.read(torch.arange(4)).sum() == 0


def test_data_check_knows_them(tmp_path: Path) -> None:
    finding = check(tree(tmp_path / "own"))
    assert (finding.source, finding.whole, finding.checked) == ("recordings", True, 20)
    assert finding.counts == {half: {"left": 5, "right": 5} for half in ("train", "test")}
    assert finding.samples["left"][0].shape == (1, 2, 128, 128)
    assert finding.hashes
    broken = tmp_path / "own" / "train" / "left" / "2.npz"
    broken.write_bytes(b"PK\3\4")
    assert check(tmp_path / "own").broken[0].startswith(f"{broken} cannot be read as .npz")
    alone = check(tree(tmp_path / "alone", ["."]))
    assert (alone.source, alone.whole) == ("recordings", True)
    assert "no test recordings: 20% of every class will be drawn as the test split" in alone.notes


@pytest.mark.parametrize("sensor", [[128], [1, 2, 3], [0, 5], 0])
def test_a_sensor_that_is_none_is_named(sensor: Any) -> None:
    with pytest.raises(UsageError, match=r"data\.events\.sensor"):
        EventConfig(sensor=sensor)


def test_the_simulated_sensor_is_square(tmp_path: Path) -> None:
    assert DataConfig("simulated-dvs", events=EventConfig(sensor=(16, 16))).events.sensor == 16
    with pytest.raises(UsageError, match=r"data\.events\.sensor=\[16, 20\] must be one number"):
        load("simulated-dvs", events=EventConfig(sensor=(16, 20)))


def advised(message: str) -> tuple[str, Path]:
    """The name and the root in `data.name=NAME data.root=DIR takes them`."""
    words = message.rpartition(": data.name=")[2].removesuffix(" takes them").split(" data.root=")
    return words[0], Path(words[1])


@pytest.mark.parametrize("halves", [["."], ["train", "test"], ["in/there"], ["deep/down/train", "deep/down/test"]])
def test_recordings_taken_for_images_name_what_works(tmp_path: Path, halves: list[str]) -> None:
    root = tree(tmp_path / "own", halves)
    with pytest.raises(UsageError, match="it holds recordings") as said:
        load("folder", root)
    name, place = advised(str(said.value))
    assert name == "recordings"
    assert load(name, place, events=EventConfig(time_steps=2)).classes == ("left", "right")


@pytest.mark.parametrize("inner", ["", "deep"])
def test_images_taken_for_recordings_name_what_works(tmp_path: Path, inner: str) -> None:
    for each in ("left", "right"):
        (tmp_path / inner / each).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (8, 8)).save(tmp_path / inner / each / f"{i}.png")
    with pytest.raises(UsageError, match="it holds images") as said:
        load("recordings", tmp_path)
    assert load(*advised(str(said.value))).classes == ("left", "right")


def test_the_hint_is_of_the_kind_that_was_asked_for_where_there_is_any(tmp_path: Path) -> None:
    root = tree(tmp_path / "own", ["."])
    (root / "empty").mkdir()
    with pytest.raises(
        UsageError, match="own/empty is a class without recordings; add some, or move the folder else"
    ) as e:
        load("recordings", root)
    assert "images" not in str(e.value)
    with pytest.raises(
        UsageError, match=r"in is not a folder; expected train/<class>/ and test/<class>/, or <class>/$"
    ):
        load("folder", tmp_path / "in")


@pytest.mark.parametrize("halves", [["."], ["train", "test"]])
@pytest.mark.parametrize("write", [{"0.npz": npz, "1.npz": npz}, {"a.aedat": dvs128, "b.aedat": dvs128}])
def test_one_folder_too_deep_or_too_high_is_said_of_recordings_as_of_images(
    tmp_path: Path, halves: list[str], write: Any
) -> None:
    root = tree(tmp_path / "above" / "own", halves, write)
    for given in (root / halves[0] / "left", tmp_path, tmp_path / "above"):
        for look in (check, lambda root: load("recordings", root)):
            with pytest.raises(UsageError, match="did you mean") as said:
                look(given)
            meant = str(said.value).rpartition("did you mean ")[2].removeprefix("data.root=").removesuffix("?")
            assert Path(meant) == root


@pytest.mark.parametrize("suffix", [".aedat", ".aedat2", ".aedat4", ".AEDAT4", ".npz", ".npy", ".bin"])
def test_files_of_every_format_are_recordings(suffix: str, tmp_path: Path) -> None:
    files = [tmp_path / name / f"{i}{suffix}" for name in ("clap", "wave") for i in range(2)]
    for path in files:
        path.parent.mkdir(exist_ok=True)
        path.touch()  # nothing is opened yet
    assert divide(list_folder(tmp_path, RECORDINGS)).paths == files
