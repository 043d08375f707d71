import hashlib
import os
import re
import shutil
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spikeback.data.events import cache
from spikeback.data.events.cache import SUM, Blocks, cache_folder, cached, stamps
from spikeback.data.events.frame_set import Frames, FrameSet
from spikeback.errors import UsageError

SHAPE = (6, 2, 3)
CONTENT = np.arange(36, dtype=np.uint8).reshape(SHAPE)


def blocks(missing: np.ndarray) -> Blocks:
    for first, end in ((0, 1), (1, 5), (5, 6)):
        if np.any((first <= missing) & (missing < end)):
            yield first, CONTENT[first:end]


def never(missing: np.ndarray) -> Blocks:
    raise AssertionError("built again")


def test_what_was_built_once_is_opened_ever_after(tmp_path: Path) -> None:
    built = cached(tmp_path / "deep" / "down", "set", {"a": 1}, SHAPE, blocks)
    opened = cached(tmp_path / "deep" / "down", "set", {"a": 1}, SHAPE, never)
    assert np.array_equal(built.sums, opened.sums)
    assert built.sums[3].tobytes() == hashlib.sha256(CONTENT[3].tobytes()).digest()
    for frames in (built.frames, opened.frames):
        assert isinstance(frames, np.memmap)
        assert not frames.flags.writeable
        assert frames.dtype == np.uint8
        assert np.array_equal(frames, CONTENT)
    assert len(list((tmp_path / "deep" / "down").iterdir())) == 1


def test_an_entry_is_an_array_that_numpy_reads(tmp_path: Path) -> None:
    cached(tmp_path, "set", {}, SHAPE, blocks)
    (entry,) = tmp_path.glob("set-*.npy")
    assert np.array_equal(np.load(entry), CONTENT)


@pytest.mark.parametrize(
    "other",
    [
        {"key": {"a": 2}},
        {"key": {"a": 1, "b": None}},
        {"name": "other"},
        {"shape": (3, 4, 3)},
        {"dtype": "int8"},
    ],
)
def test_any_other_option_is_another_entry(tmp_path: Path, other: dict[str, Any]) -> None:
    options: dict[str, Any] = {"name": "set", "key": {"a": 1}, "shape": SHAPE, "dtype": "uint8"}
    cached(tmp_path, samples=blocks, **options)
    options |= other
    content = CONTENT.astype(options["dtype"]).reshape(options["shape"])
    cached(tmp_path, samples=lambda missing: [(0, content)], **options)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_new_version_of_the_decoder_is_another_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached(tmp_path, "set", {}, SHAPE, blocks)
    monkeypatch.setattr(cache, "FORMAT", cache.FORMAT + 1)
    cached(tmp_path, "set", {}, SHAPE, blocks)
    assert len(list(tmp_path.iterdir())) == 2


def test_stamps_are_name_size_and_time_and_change_with_each(tmp_path: Path) -> None:
    path = tmp_path / "a" / "1.bin"
    path.parent.mkdir()
    path.write_bytes(b"abc")
    os.utime(path, ns=(5, 7_000_000_001))
    assert stamps(tmp_path, [path]) == [("a/1.bin", 3, 7_000_000_001)]
    with pytest.raises(UsageError, match=r"2\.bin cannot be read: No such file"):
        stamps(tmp_path, [path, tmp_path / "2.bin"])


def test_a_build_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def broken(missing: np.ndarray) -> Blocks:
        yield 0, CONTENT[:2]
        raise UsageError("3.aedat is broken")

    with pytest.raises(UsageError, match=r"^3\.aedat is broken$"):
        cached(tmp_path, "set", {}, SHAPE, broken)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ((0, CONTENT[:-1]), "1 of 6 samples were not made"),
        ((1, CONTENT), "out of bounds"),
        ((0, CONTENT.astype(np.float32)), r"holds uint8 \(6, 2, 3\), not float32 \(6, 2, 3\)"),
        ((0, CONTENT[:, :1]), r"not uint8 \(6, 1, 3\)"),
    ],
)
def test_samples_that_do_not_fit_never_become_an_entry(tmp_path: Path, block: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError, IndexError), match=message):
        cached(tmp_path, "set", {}, SHAPE, lambda missing: [block])
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_too_small_is_said_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=35))
    with pytest.raises(UsageError, match=r"cannot write .*set-\w{16}\.npy: it takes .* MB, .* are free; .*data\.cache"):
        cached(tmp_path, "set", {}, SHAPE, never)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("folder", ["file", "file/cache", "file/deep/down"])
def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    message = f"{tmp_path / folder} cannot be made for the cache: a file is in the way; name another data.cache"
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        cached(tmp_path / folder, "set", {}, SHAPE, never)


def test_a_recording_that_cannot_be_read_is_no_fault_of_the_cache(tmp_path: Path) -> None:
    def vanished(missing: np.ndarray) -> Blocks:
        yield 0, CONTENT[:1]
        (tmp_path / "3.aedat").read_bytes()

    with pytest.raises(UsageError, match=rf"^{tmp_path}/3\.aedat cannot be read: No such file or directory$"):
        cached(tmp_path / "cache", "set", {}, SHAPE, vanished)
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_entry_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    cached(tmp_path, "set", {}, SHAPE, blocks)
    (entry,) = tmp_path.iterdir()
    entry.unlink()
    entry.mkdir()
    with pytest.raises(UsageError, match=rf"{entry.name} cannot be read: Is a directory; .*data\.cache"):
        cached(tmp_path, "set", {}, SHAPE, never)


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_to_an_entry_goes_unnoticed(tmp_path: Path, data: st.DataObject) -> None:
    frames = cached(tmp_path, "set", {}, SHAPE, blocks).frames
    (entry,) = tmp_path.iterdir()
    whole = bytearray(entry.read_bytes())
    position = data.draw(st.integers(1, len(whole) - 1), "position")
    match data.draw(st.sampled_from(["cut", "flip", "insert", "zero"]), "damage"):
        case "cut":
            damaged = whole[:position]
        case "flip":
            damaged = whole[:position] + bytes([whole[position] ^ 1 << position % 8]) + whole[position + 1 :]
        case "insert":
            damaged = whole[:position] + bytes(data.draw(st.integers(1, 99), "length")) + whole[position:]
        case _:
            damaged = whole[:1] + bytes(len(whole) - 1)
    replacement = entry.with_suffix(".tmp")
    replacement.write_bytes(damaged)
    replacement.replace(entry)
    with pytest.warns(UserWarning, match=r"is damaged: \d samples do not match their checksum; they are made anew"):
        again = cached(tmp_path, "set", {}, SHAPE, blocks).frames
    assert np.array_equal(again, CONTENT)
    assert np.array_equal(frames, CONTENT)  # whoever had the old one open keeps it
    assert entry.read_bytes() == whole


@pytest.mark.parametrize("size", [0, 128 + 36 + 6 * SUM])
def test_what_another_process_has_only_begun_is_no_damage(tmp_path: Path, size: int) -> None:
    cached(tmp_path, "set", {}, SHAPE, blocks)
    (entry,) = tmp_path.iterdir()
    assert entry.stat().st_size == 128 + 36 + 6 * SUM
    entry.write_bytes(bytes(size))
    assert np.array_equal(cached(tmp_path, "set", {}, SHAPE, blocks).frames, CONTENT)


def test_damage_costs_the_samples_that_it_hit(tmp_path: Path) -> None:
    cached(tmp_path, "set", {}, SHAPE, blocks)
    (entry,) = tmp_path.iterdir()
    with entry.open("r+b") as file:
        file.seek(-6 * SUM - 1, os.SEEK_END)  # the last byte of the last sample
        file.write(b"\0")
    asked = []
    with pytest.warns(UserWarning, match="is damaged: 1 samples"):
        cached(tmp_path, "set", {}, SHAPE, lambda missing: asked.append(missing.tolist()) or blocks(missing))
    assert asked == [[5]]


def test_samples_that_are_not_asked_for_are_not_made(tmp_path: Path) -> None:
    asked = []

    def one_by_one(missing: np.ndarray) -> Blocks:
        asked.append(missing.tolist())
        return [(row, CONTENT[row : row + 1]) for row in missing.tolist()]

    few = cached(tmp_path, "set", {}, SHAPE, one_by_one, rows=np.array([4, 1, 4]))
    assert few.sums.any(1).tolist() == [False, True, False, False, True, False]
    assert np.array_equal(few.frames[[1, 4]], CONTENT[[1, 4]])
    whole = cached(tmp_path, "set", {}, SHAPE, one_by_one)
    assert asked == [[1, 4], [0, 2, 3, 5]]
    assert np.array_equal(whole.frames, CONTENT)
    again = cached(tmp_path, "set", {}, SHAPE, never, rows=np.array([1, 4]))
    assert np.array_equal(again.sums, few.sums)  # whatever else the entry holds


def test_an_entry_is_read_once_to_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = torch.arange(6)
    entry = cached(tmp_path, "set", {}, SHAPE, blocks)
    built = Frames(entry.frames, labels, None, entry.sums)
    hashed = []
    sha256 = hashlib.sha256
    monkeypatch.setattr(hashlib, "sha256", lambda data=b"": hashed.append(bytes(data)) or sha256(data))
    entry = cached(tmp_path, "set", {}, SHAPE, never)
    frames = Frames(entry.frames, labels, None, entry.sums)
    opened = FrameSet("", "", ("a",), frames, frames.part(labels[:2])).hash()
    assert [hashed.count(sample.tobytes()) for sample in CONTENT] == [1] * 6
    assert opened == FrameSet("", "", ("a",), built, built.part(labels[:2])).hash()
    assert opened == FrameSet("", "", ("a",), Frames(CONTENT, labels), Frames(CONTENT[:2], labels[:2])).hash()


def test_building_and_opening_hold_one_block_in_memory(tmp_path: Path) -> None:
    shape, block = (64, 1 << 20), np.zeros((1, 1 << 20), np.uint8)
    tracemalloc.start()
    for _ in range(2):
        cached(tmp_path, "set", {}, shape, lambda missing: ((row, block) for row in range(64)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20  # of 64 MB


def test_the_cache_lies_beside_the_data_if_it_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder(tmp_path) == tmp_path / ".spikeback"
    assert cache_folder(tmp_path, tmp_path / "mine") == tmp_path / "mine"
    assert cache_folder(None) == tmp_path / "xdg" / "spikeback"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert cache_folder(tmp_path) == tmp_path / "xdg" / "spikeback"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder(None) == tmp_path / ".cache" / "spikeback"
