import os
import re
import shutil
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spikeback.data.events import cache
from spikeback.data.events.cache import cache_folder, cached, stamps
from spikeback.errors import UsageError

SHAPE = (6, 2, 3)
CONTENT = np.arange(36, dtype=np.uint8).reshape(SHAPE)


def blocks() -> Iterator[np.ndarray]:
    yield CONTENT[:1]
    yield CONTENT[1:5]
    yield CONTENT[5:]


def never() -> Iterator[np.ndarray]:
    raise AssertionError("built again")


def test_what_was_built_once_is_opened_ever_after(tmp_path: Path) -> None:
    built = cached(tmp_path / "deep" / "down", "set", {"a": 1}, SHAPE, blocks)
    opened = cached(tmp_path / "deep" / "down", "set", {"a": 1}, SHAPE, never)
    for frames in (built, opened):
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
    content = CONTENT.astype(options["dtype"])
    cached(tmp_path, samples=lambda: [content], **options)
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
    def broken() -> Iterator[np.ndarray]:
        yield CONTENT[:2]
        raise UsageError("3.aedat is broken")

    with pytest.raises(UsageError, match=r"^3\.aedat is broken$"):
        cached(tmp_path, "set", {}, SHAPE, broken)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [CONTENT[:-1], np.concatenate([CONTENT, CONTENT[:1]])])
def test_samples_that_do_not_fill_the_shape_never_become_an_entry(tmp_path: Path, content: np.ndarray) -> None:
    with pytest.raises(ValueError, match="do not fill"):
        cached(tmp_path, "set", {}, SHAPE, lambda: [content])
    with pytest.raises(TypeError, match="holds uint8, not float32"):
        cached(tmp_path, "set", {}, SHAPE, lambda: [CONTENT.astype(np.float32)])
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_too_small_is_said_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=35))
    with pytest.raises(
        UsageError, match=r"cannot write .*set-\w{16}\.npy: it takes .* MB, .* are free; .*--data\.cache"
    ):
        cached(tmp_path, "set", {}, SHAPE, never)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("folder", ["file", "file/cache", "file/deep/down"])
def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    message = f"{tmp_path / folder} cannot be made for the cache: a file is in the way; name another --data.cache"
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        cached(tmp_path / folder, "set", {}, SHAPE, never)


def test_a_recording_that_cannot_be_read_is_no_fault_of_the_cache(tmp_path: Path) -> None:
    def vanished() -> Iterator[np.ndarray]:
        yield CONTENT[:1]
        (tmp_path / "3.aedat").read_bytes()

    with pytest.raises(UsageError, match=rf"^{tmp_path}/3\.aedat cannot be read: No such file or directory$"):
        cached(tmp_path / "cache", "set", {}, SHAPE, vanished)
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_entry_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    cached(tmp_path, "set", {}, SHAPE, blocks)
    (entry,) = tmp_path.iterdir()
    entry.unlink()
    entry.mkdir()
    with pytest.raises(UsageError, match=rf"{entry.name} cannot be read: Is a directory; .*--data\.cache"):
        cached(tmp_path, "set", {}, SHAPE, never)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_to_an_entry_goes_unnoticed(tmp_path: Path, data: st.DataObject) -> None:
    frames = cached(tmp_path, "set", {}, SHAPE, blocks)
    (entry,) = tmp_path.iterdir()
    whole = bytearray(entry.read_bytes())
    position = data.draw(st.integers(0, len(whole) - 1), "position")
    match data.draw(st.sampled_from(["cut", "flip", "insert", "zero"]), "damage"):
        case "cut":
            damaged = whole[:position]
        case "flip":
            damaged = whole[:position] + bytes([whole[position] ^ 1 << position % 8]) + whole[position + 1 :]
        case "insert":
            damaged = whole[:position] + bytes(data.draw(st.integers(1, 99), "length")) + whole[position:]
        case _:
            damaged = bytes(len(whole))
    replacement = entry.with_suffix(".tmp")
    replacement.write_bytes(damaged)
    replacement.replace(entry)
    with pytest.warns(UserWarning, match="is damaged: its checksum does not match; it is built anew"):
        again = cached(tmp_path, "set", {}, SHAPE, blocks)
    assert np.array_equal(again, CONTENT)
    assert np.array_equal(frames, CONTENT)  # whoever had the old one open keeps it
    assert entry.read_bytes() == whole


def test_without_fcntl_it_still_builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "fcntl", None)
    assert np.array_equal(cached(tmp_path, "set", {}, SHAPE, blocks), CONTENT)


def test_building_and_opening_hold_one_block_in_memory(tmp_path: Path) -> None:
    shape, block = (64, 1 << 20), np.zeros((1, 1 << 20), np.uint8)
    tracemalloc.start()
    for _ in range(2):
        cached(tmp_path, "set", {}, shape, lambda: (block for _ in range(64)))
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
