import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikeback.data.events import cache
from spikeback.data.events.cache import cached
from spikeback.data.events.parallel import parallel
from spikeback.errors import UsageError

SHAPE = (6, 2, 3)
CONTENT = np.arange(36, dtype=np.uint8).reshape(SHAPE)
ROW = 6000  # bytes, beyond what a file's buffer would keep back
FORK = multiprocessing.get_context("fork")


def blocks() -> Iterator[np.ndarray]:
    yield CONTENT[:1]
    yield CONTENT[1:5]
    yield CONTENT[5:]


def run(*targets: Callable[[], object]) -> list[Any]:
    """Start each in a process of its own."""
    processes = [FORK.Process(target=target) for target in targets]
    for process in processes:
        process.start()
    return processes


def wait_for(path: Path) -> None:
    for _ in range(1000):
        if path.exists():
            return
        time.sleep(0.01)
    raise AssertionError(f"no {path.name} within 10 s")


@pytest.mark.parametrize(("name", "key"), [("set", {}), ("set", {"a": 1}), ("another", {})])
def test_a_killed_build_leaves_nothing_that_is_taken_for_whole(tmp_path: Path, name: str, key: dict[str, int]) -> None:
    folder, sign = tmp_path / "cache", tmp_path / "half"

    def slow() -> Iterator[np.ndarray]:
        yield CONTENT[:3]
        sign.touch()
        time.sleep(60)

    (process,) = run(lambda: cached(folder, "set", {}, SHAPE, slow))
    wait_for(sign)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert [path.suffix for path in folder.iterdir()] == [".part"]
    (folder / ".another.part").touch()  # not the cache's
    assert np.array_equal(cached(folder, name, key, SHAPE, blocks), CONTENT)
    assert sorted(path.suffix for path in folder.iterdir()) == [".npy", ".part"]  # so the leftover is gone


def dawdle(i: int) -> np.ndarray:
    time.sleep(0.01)
    return np.full((1, ROW), i % 251, np.uint8)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_build_by_several_processes_can_be_ended_and_begun_again(tmp_path: Path, how: signal.Signals) -> None:
    folder = tmp_path / "cache"

    def build() -> np.ndarray:
        return cached(folder, "set", {}, (300, ROW), lambda: parallel(dawdle, range(300), "Work", workers=2))

    def group() -> None:
        os.setsid()  # Ctrl-C reaches the builder and its workers alike
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the traceback is no news
        build()

    (process,) = run(group)
    wait_for(folder)
    while not [path for path in folder.iterdir() if path.stat().st_size > 128]:
        time.sleep(0.01)
    (os.killpg if how == signal.SIGINT else os.kill)(process.pid, how)
    process.join(10)
    assert process.exitcode not in (None, 0)
    assert not list(folder.glob("*.npy"))
    assert build()[:, 0].tolist() == [i % 251 for i in range(300)]  # so the lock of the ended build is gone
    assert [path.suffix for path in folder.iterdir()] == [".npy"]


def test_a_disk_that_fills_up_stops_the_processes(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 17, limits[1]))
    begun = time.monotonic()
    try:
        with pytest.raises(UsageError, match="File too large"):
            cached(tmp_path, "set", {}, (9000, ROW), lambda: parallel(dawdle, range(9000), "Work", workers=2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert multiprocessing.active_children() == []
    assert time.monotonic() - begun < 20  # all of it would take 45 seconds


@pytest.mark.parametrize("locks", [True, False])
def test_two_builders_at_once_both_get_it_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locks: bool) -> None:
    folder, log = tmp_path / "cache", tmp_path / "log"
    if not locks:

        def flock(handle: int, how: int) -> None:
            raise OSError(38, "Function not implemented")

        monkeypatch.setattr(cache.fcntl, "flock", flock)

    def slow() -> Iterator[np.ndarray]:
        with log.open("a") as file:
            file.write("built\n")
        for block in blocks():
            time.sleep(0.1)
            yield block

    def build() -> None:
        assert np.array_equal(cached(folder, "set", {}, SHAPE, slow), CONTENT)

    processes = run(build, build, build)
    for process in processes:
        process.join(20)
        assert process.exitcode == 0
    assert log.read_text().count("built") == (1 if locks else 3)  # with locks, two have waited for the first
    assert [path.suffix for path in folder.iterdir()] == [".npy"]


def test_a_disk_that_fills_up_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))  # the kernel refuses to write beyond 1 MB
    try:
        with pytest.raises(UsageError, match=r"^cannot write .*set-\w{16}\.npy: File too large; .*$") as error:
            cached(tmp_path, "set", {}, (4, 1 << 19), lambda: np.zeros((4, 1, 1 << 19), np.uint8))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []
