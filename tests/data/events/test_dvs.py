import hashlib
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spikeback.data.events.decode import FrameOptions
from spikeback.data.sets import cifar10_dvs as dvs
from spikeback.data.sets.cifar10_dvs import CLASSES, cifar10_dvs, recordings, split_rows
from spikeback.errors import UsageError

OPTIONS = FrameOptions(time_steps=2, size=None)


def write_aedat(path: Path, events: list[tuple[int, int, int, int]]) -> None:
    """An AEDAT 2.0 file of (t, x, y, p), bit by bit: 1 - p, then 127 - x, then y."""
    records = [struct.pack(">II", y << 8 | (127 - x) << 1 | (1 - p), t) for t, x, y, p in events]
    path.write_bytes(b"#!AER-DAT2.0\r\n# made up\r\n" + b"".join(records))


def events_of(label: int, i: int) -> list[tuple[int, int, int, int]]:
    """Four events that tell every recording apart: two in each of two frames, twice the same pixel in the second."""
    return [(10, label, i, 1), (20, i, label, 0), (30, 127, i, 1), (40, 127, i, 1)]


def frames_of(label: int, i: int) -> np.ndarray:
    """Those events as counts, (2, 2, 128, 128), by hand."""
    frames = np.zeros((2, 2, 128, 128), np.uint8)
    frames[0, 1, i, label] += 1
    frames[0, 0, label, i] += 1
    frames[1, 1, i, 127] += 2
    return frames


@pytest.fixture
def write_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Path]:
    """write_tree(n) writes the ten classes with n recordings each, n then standing for the 1000."""

    def write(per_class: int) -> Path:
        monkeypatch.setattr(dvs, "PER_CLASS", per_class)
        for label, name in enumerate(CLASSES):
            (tmp_path / "dvs" / name).mkdir(parents=True)
            for i in range(per_class):
                write_aedat(tmp_path / "dvs" / name / f"cifar10_{name}_{i}.aedat", events_of(label, i))
        return tmp_path / "dvs"

    return write


def numbers(rows: torch.Tensor, label: int) -> list[int]:
    """The files of a class among rows."""
    return [row % 1000 for row in rows.tolist() if row // 1000 == label]


LAST_IN_TEXT = sorted([909, *range(91, 100), *range(910, 1000)])  # ..., 909, 91, 910, ..., 919, 92, 920, ..., 999


@pytest.mark.parametrize(
    ("split", "test"),
    [
        ("numeric-first-900", list(range(900, 1000))),
        ("lexicographic-first-900", LAST_IN_TEXT),
        ("tebn-first-100-test", list(range(100))),
    ],
)
def test_each_named_split_is_what_its_users_have(split: str, test: list[int]) -> None:
    train_rows, test_rows = split_rows(split)
    assert test_rows.dtype == train_rows.dtype == torch.int64
    for label in range(10):
        assert numbers(test_rows, label) == test
        assert numbers(train_rows, label) == sorted(set(range(1000)) - set(test))


def test_lexicographic_and_tebn_share_nine_test_files_of_a_class() -> None:
    shared = set(split_rows("lexicographic-first-900")[1].tolist()) & set(split_rows("tebn-first-100-test")[1].tolist())
    assert len(shared) == 90


def test_random_splits_are_decided_by_their_seed_alone() -> None:
    train, test = split_rows("random-7")
    assert torch.equal(torch.cat([train, test]).sort().values, torch.arange(10000))
    assert torch.equal(train, train.sort().values)
    assert (test // 1000).bincount().tolist() == [100] * 10
    assert torch.equal(test, split_rows("random-7")[1])
    assert not torch.equal(test, split_rows("random-8")[1])
    assert numbers(test, 0) != numbers(test, 1)
    torch.rand(1)
    on_every_machine = "394255aa7f79ef3160b66755188032df3d2176f07c2acae2bf9f25678295e1fe"
    assert hashlib.sha256(test.numpy().astype("<i8").data).hexdigest() == on_every_machine


@pytest.mark.parametrize(
    "split", ["", "numeric", "random", "random-", "random--1", "random-1.5", "random-²", "Random-1"]
)
def test_an_unknown_split_is_answered_with_the_known_ones(split: str) -> None:
    choices = re.escape(f"; choose from {', '.join(dvs.SPLITS)}")
    hint = r"( \(did you mean '\S+'\?\))?"
    expected = re.escape(f"data.split='{split}' is unknown") + hint + choices
    with pytest.raises(UsageError, match=expected):
        split_rows(split)


def test_every_recording_becomes_its_own_frames_and_label(write_tree: Callable[[int], Path]) -> None:
    root = write_tree(10)
    loaded = cifar10_dvs(root, OPTIONS)
    assert (loaded.name, loaded.classes, loaded.sensor) == ("CIFAR10-DVS", CLASSES, (128, 128))
    assert loaded.split == "numeric-first-900"
    assert "split numeric-first-900" in loaded.provenance
    assert (len(loaded.train), len(loaded.test)) == (90, 10)
    assert loaded.train.shape == (2, 2, 128, 128)
    for part, files in ((loaded.train, range(9)), (loaded.test, [9])):
        expected = [(label, i) for label in range(10) for i in files]
        assert part.labels.tolist() == [label for label, _ in expected]
        frames = part.read(torch.arange(len(part)))
        assert frames.dtype == torch.uint8
        assert np.array_equal(frames.numpy(), np.stack([frames_of(*which) for which in expected]))


def test_several_processes_decode_the_same(write_tree: Callable[[int], Path], tmp_path: Path) -> None:
    root = write_tree(10)
    hashes = {
        cifar10_dvs(root, FrameOptions(time_steps=2, cache=tmp_path / f"{n}", workers=n)).hash() for n in (1, 2, 3)
    }
    assert len(hashes) == 1


def test_the_paper_has_ten_frames_of_48_pixels(write_tree: Callable[[int], Path]) -> None:
    loaded = cifar10_dvs(write_tree(2))
    assert loaded.train.shape == (10, 2, 48, 48)
    assert isinstance(loaded.train.frames, np.memmap)


def test_splits_share_one_cache_and_differ_in_hash(write_tree: Callable[[int], Path]) -> None:
    root = write_tree(12)
    sets = [cifar10_dvs(root, OPTIONS, split) for split in (*dvs.SPLITS[:3], "random-0", "random-1")]
    assert len(list((root / ".spikeback").iterdir())) == 1
    assert len({loaded.hash() for loaded in sets}) == 5
    assert len({loaded.manifest for loaded in sets}) == 5


def test_the_manifest_is_the_hash_of_the_names(write_tree: Callable[[int], Path]) -> None:
    loaded = cifar10_dvs(write_tree(2), OPTIONS)
    halves = (
        ["train", *(f"{c}/cifar10_{c}_0.aedat" for c in CLASSES)],
        ["test", *(f"{c}/cifar10_{c}_1.aedat" for c in CLASSES)],
    )
    text = "\n".join("\t".join(half) for half in halves)
    assert loaded.manifest == hashlib.sha256(text.encode()).hexdigest()


def test_a_changed_recording_is_decoded_again(write_tree: Callable[[int], Path]) -> None:
    root = write_tree(2)
    before = cifar10_dvs(root, OPTIONS)
    write_aedat(root / "cat" / "cifar10_cat_1.aedat", [(1, 5, 6, 0)])
    after = cifar10_dvs(root, OPTIONS)
    assert after.hash() != before.hash()
    assert after.test.read(torch.tensor([3])).nonzero().tolist() == [[0, 1, 0, 6, 5]]


def drop_class(root: Path) -> str:
    (root / "dog").rename(root / "dogs")
    return r"data\.root=.*dvs lacks the class folder dog; expected airplane, .*, truck"


def drop_files(root: Path) -> str:
    for i in (1, 2):
        (root / "ship" / f"cifar10_ship_{i}.aedat").unlink()
    return r"ship lacks 2 of 3 recordings, the first is cifar10_ship_1\.aedat"


def add_file(root: Path) -> str:
    (root / "ship" / "cifar10_ship_3.aedat").touch()
    return r"cifar10_ship_3\.aedat does not belong to CIFAR10-DVS; expected only cifar10_ship_0\.aedat to 2"


def make_folder(root: Path) -> str:
    (root / "ship" / "cifar10_ship_1.aedat").unlink()
    (root / "ship" / "cifar10_ship_1.aedat").mkdir()
    return r"cifar10_ship_1\.aedat is not a file"


def truncate(root: Path) -> str:
    path = root / "ship" / "cifar10_ship_1.aedat"
    path.write_bytes(path.read_bytes()[:-3])
    return r"cifar10_ship_1\.aedat: .* byte 49"


def empty(root: Path) -> str:
    (root / "ship" / "cifar10_ship_1.aedat").write_bytes(b"")
    return r"cifar10_ship_1\.aedat is empty"


def garble(root: Path) -> str:
    (root / "ship" / "cifar10_ship_1.aedat").write_bytes(b"PK\3\4 something else")
    return r"cifar10_ship_1\.aedat"


@pytest.mark.parametrize("spoil", [drop_class, drop_files, add_file, make_folder, truncate, empty, garble])
def test_each_mistake_in_the_tree_is_named(write_tree: Callable[[int], Path], spoil: Callable[[Path], str]) -> None:
    root = write_tree(3)
    message = spoil(root)
    with pytest.raises(UsageError, match=message) as error:
        cifar10_dvs(root, OPTIONS)
    assert "\n" not in str(error.value)
    assert not list(root.glob(".spikeback/*"))


def test_a_class_folder_that_cannot_be_read_is_named(
    write_tree: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(self: Path) -> None:
        raise PermissionError(13, "Permission denied")

    root = write_tree(1)
    monkeypatch.setattr(Path, "iterdir", forbidden)
    with pytest.raises(UsageError, match="airplane cannot be read: Permission denied"):
        recordings(root)


def test_damage_is_dropped_with_one_warning_where_asked_for(write_tree: Callable[[int], Path]) -> None:
    root = write_tree(3)
    truncate(root)
    with pytest.warns(UserWarning, match=r"Decoding cifar10-dvs: 1 warnings, the first: .*cifar10_ship_1\.aedat"):
        loaded = cifar10_dvs(root, FrameOptions(time_steps=2, policy="warn"))
    assert loaded.train.read(torch.tensor([17])).sum() == 3


def test_hidden_files_and_what_lies_beside_the_classes_do_no_harm(write_tree: Callable[[int], Path]) -> None:
    root = write_tree(1)
    (root / "airplane" / ".DS_Store").touch()
    (root / "airplane.zip").touch()
    assert len(recordings(root)) == 10


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.one_of(st.binary(max_size=60), st.binary(max_size=60).map(lambda tail: b"#!AER-DAT2.0\r\n" + tail)))
@pytest.mark.slow
def test_whatever_a_file_holds_it_is_decoded_or_named(
    write_tree: Callable[[int], Path], tmp_path: Path, content: bytes
) -> None:
    root = tmp_path / "dvs"
    if not root.exists():
        write_tree(1)
    (root / "frog" / "cifar10_frog_0.aedat").write_bytes(content)
    shutil.rmtree(root / ".spikeback", ignore_errors=True)
    message = ""
    try:
        loaded = cifar10_dvs(root, OPTIONS, "tebn-first-100-test")
        assert loaded.test.read(torch.arange(10))[:, 0].sum(dtype=torch.int64) >= 9 * 2
    except UsageError as error:
        message = str(error)
        assert not list(root.glob(".spikeback/*"))
    assert not message or ("cifar10_frog_0.aedat" in message and "\n" not in message)


def test_a_mirrored_recording_is_the_same_whatever_the_axes(write_tree: Callable[[int], Path]) -> None:
    root = write_tree(10)
    jaer, other = (cifar10_dvs(root, FrameOptions(time_steps=2, axes=axes)) for axes in ("jaer", "spikingjelly"))
    assert (jaer.mirror, other.mirror) == (-2, -1)
    x, u = (split.read(torch.arange(len(split))) for split in (jaer.train, other.train))
    assert torch.equal(u, x.transpose(-2, -1).flip(-1))  # upright: rows are jAER's x, columns 127 - its y
    assert torch.equal(u.flip(-1), x.flip(-2).transpose(-2, -1).flip(-1))
