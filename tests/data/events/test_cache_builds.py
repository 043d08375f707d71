import errno
import multiprocessing
import os
import re
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikeback.data.events import cache
from spikeback.data.events.cache import Blocks, cached
from spikeback.data.events.parallel import parallel
from spikeback.errors import UsageError

pytestmark = pytest.mark.slow

SHAPE = (6, 2, 3)
CONTENT = np.arange(36, dtype=np.uint8).reshape(SHAPE)
ROW = 6000  # bytes, beyond what a file's buffer would keep back
FORK = multiprocessing.get_context("fork")


def blocks(missing: np.ndarray) -> Blocks:
    return ((row, CONTENT[row : row + 1]) for row in missing.tolist())


def run(*targets: Callable[[], object]) -> list[Any]:
    """Start each in a process of its own."""
    processes = [FORK.Process(target=target) for target in targets]
    for process in processes:
        process.start()
    return processes


def never(missing: np.ndarray) -> Blocks:
    raise AssertionError("made before there was a file to write to")


@contextmanager
def filling_up(folder: Path, room: int) -> Iterator[None]:
    """A disk with `room` bytes, of which the cache learns when it writes: header and sums fit in any case."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache._File, "open", lambda entry: Full(entry, room))
        yield


class Full(FileIO):
    """An entry's file on a full disk."""

    def __init__(self, entry: Any, room: int) -> None:
        opened(entry).close()
        super().__init__(entry.path, "r+")
        self.room = room

    def write(self, data: Any) -> int:
        self.room -= len(data)
        if self.room < 0 and len(data) != cache.SUM:
            super().write(data[: len(data) // 2])  # as a disk does
            raise OSError(28, "No space left on device")
        return super().write(data) or 0


opened = cache._File.open


def wait_for(path: Path) -> None:
    for _ in range(1000):
        if path.exists():
            return
        time.sleep(0.01)
    raise AssertionError(f"no {path.name} within 10 s")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_stopped_build_is_not_taken_for_whole_and_gone_on_with(tmp_path: Path, how: signal.Signals) -> None:
    folder, sign, asked = tmp_path / "cache", tmp_path / "half", []

    def slow(missing: np.ndarray) -> Blocks:
        yield 0, CONTENT[:3]
        sign.touch()
        time.sleep(60)

    def build() -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the traceback is no news
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
        cached(folder, "set", {}, SHAPE, slow)

    (process,) = run(build)
    wait_for(sign)
    os.kill(process.pid, how)
    process.join(10)
    assert process.exitcode not in (None, 0)
    (entry,) = folder.glob("*.npy")  # and the lock of a process that was killed, until the next build
    few = cached(folder, "set", {}, SHAPE, blocks, rows=np.arange(2))
    assert few.sums.any(1).tolist() == [True, True] + 4 * [False]
    whole = cached(folder, "set", {}, SHAPE, lambda missing: asked.extend(missing.tolist()) or blocks(missing))
    assert np.array_equal(whole.frames, CONTENT)
    assert asked in ([3, 4, 5], [2, 3, 4, 5])  # the last one written may have been lost with the process
    assert [*folder.iterdir()] == [entry]


def dawdle(i: int) -> np.ndarray:
    time.sleep(0.01)
    return np.full((1, ROW), i % 251, np.uint8)


def work(missing: np.ndarray) -> Blocks:
    rows = missing.tolist()
    return zip(rows, parallel(dawdle, rows, "Work", workers=2), strict=False)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_build_by_several_processes_can_be_ended_and_gone_on_with(tmp_path: Path, how: signal.Signals) -> None:
    folder, asked = tmp_path / "cache", []

    def group() -> None:
        os.setsid()  # Ctrl-C reaches the builder and its workers alike
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the traceback is no news
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
        cached(folder, "set", {}, (300, ROW), work)

    (process,) = run(group)
    wait_for(folder)
    while not [path for path in folder.iterdir() if path.stat().st_blocks * 512 > 10 * ROW]:
        time.sleep(0.01)
    (os.killpg if how == signal.SIGINT else os.kill)(process.pid, how)
    process.join(10)
    assert process.exitcode not in (None, 0)
    whole = cached(folder, "set", {}, (300, ROW), lambda missing: asked.extend(missing.tolist()) or work(missing))
    assert whole.frames[:, 0].tolist() == [i % 251 for i in range(300)]  # so the lock of the ended build is gone
    assert asked == [*range(asked[0], 300)]
    assert asked[0] > 0


def test_a_disk_that_fills_up_stops_the_processes(tmp_path: Path) -> None:
    begun = time.monotonic()
    with filling_up(tmp_path, 1 << 17), pytest.raises(UsageError, match="No space left on device"):
        cached(tmp_path, "set", {}, (9000, ROW), work)
    assert multiprocessing.active_children() == []
    assert time.monotonic() - begun < 20  # all of it would take 45 seconds


@pytest.mark.parametrize("locks", [True, False])
def test_two_builders_at_once_both_get_it_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locks: bool) -> None:
    folder, log = tmp_path / "cache", tmp_path / "log"
    if not locks:

        def acquire(*args: object, **options: object) -> None:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

        monkeypatch.setattr("filelock.FileLock.acquire", acquire)

    def slow(missing: np.ndarray) -> Blocks:
        with log.open("a") as file:
            file.write("built\n")
        for block in blocks(missing):
            time.sleep(0.1)
            yield block

    def build() -> None:
        assert np.array_equal(cached(folder, "set", {}, SHAPE, slow).frames, CONTENT)

    processes = run(build, build, build)
    for process in processes:
        process.join(20)
        assert process.exitcode == 0
    assert log.read_text().count("built") == (1 if locks else 3)  # with locks, two have waited for the first
    assert [path.suffix for path in folder.iterdir()] == [".npy"]


def test_a_disk_that_fills_up_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    big = np.ones((4, 1 << 19), np.uint8)
    with filling_up(tmp_path, 1 << 20), pytest.raises(UsageError) as error:
        cached(tmp_path, "set", {}, big.shape, lambda missing: [(0, big)])
    assert re.fullmatch(r"cannot write \S+set-\w{16}\.npy: No space left on device; .*data\.cache", str(error.value))
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_later_costs_nothing_that_was_there(tmp_path: Path) -> None:
    cached(tmp_path, "set", {}, SHAPE, blocks, rows=np.arange(4))
    with filling_up(tmp_path, 0), pytest.raises(UsageError, match="No space left on device"):
        cached(tmp_path, "set", {}, SHAPE, blocks)
    asked = []
    whole = cached(tmp_path, "set", {}, SHAPE, lambda missing: asked.extend(missing.tolist()) or blocks(missing))
    assert np.array_equal(whole.frames, CONTENT)
    assert asked == [4, 5]


def test_a_file_larger_than_allowed_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))  # the kernel refuses to write beyond 1 MB
    try:
        with pytest.raises(UsageError, match=r"^cannot write .*set-\w{16}\.npy: File too large; .*$"):
            cached(tmp_path, "set", {}, (4, 1 << 19), never)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []
