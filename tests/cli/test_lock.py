"""One process at a time trains in a folder; a lock ends with its process, names it, and leaves nothing behind."""

import errno
import json
import multiprocessing
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from spikeback import lock
from spikeback.errors import UsageError, WriteError
from spikeback.lock import alone, in_turn, is_used

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def elsewhere() -> Iterator[Callable[[Path], Any]]:
    """elsewhere(folder): another process trains there, until it is killed."""
    processes = []

    def hold(folder: Path) -> Any:
        def work(ready: Any) -> None:
            with alone(folder, "spikeback fit --seed 3"):
                FORK.Process(target=time.sleep, args=(5,), daemon=True).start()  # as workers that load data
                ready.set()
                time.sleep(60)

        ready = FORK.Event()
        process = FORK.Process(target=work, args=(ready,))
        process.start()
        processes.append(process)
        assert ready.wait(10)
        return process

    yield hold
    for process in processes:
        process.kill()
        process.join()


def files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_another_process_is_refused_and_named_until_it_is_killed(
    elsewhere: Callable[[Path], Any], tmp_path: Path
) -> None:
    folder = tmp_path / "runs" / "one"
    process = elsewhere(folder)
    before = files(tmp_path)
    who = rf"process {process.pid} on {re.escape(socket.gethostname())} since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC"
    with pytest.raises(UsageError, match=rf"{folder} is in use by {who} \(spikeback fit --seed 3\); .* another out="):
        alone(folder).__enter__()
    assert files(tmp_path) == before
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not is_used(folder)  # the dead one's lock is nothing that a user has to see to
    with alone(folder, "mine"):
        assert json.loads((folder / lock.HOLDER).read_text())["command"] == "mine"
    assert not any(folder.iterdir())


@pytest.mark.slow
def test_neither_resume_nor_the_same_command_trains_beside_a_live_run(
    elsewhere: Callable[[Path], Any], tmp_path: Path, refused: Callable[..., str], command: Any, tiny: list[str]
) -> None:
    out = tmp_path / "run"
    process = elsewhere(out)
    before = files(tmp_path)
    for words in (["fit"], ["fit", "--resume"], ["compare"], ["sweep", "--vary", "{train.lr: [0.1]}"]):
        line = refused(*words, *tiny, "--out", out, alone=True)
        assert f"{out} is in use by process {process.pid} on " in line
    assert files(tmp_path) == before
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert command("fit", *tiny, "--out", out).code == 0  # without --resume: the folder holds nothing of a run
    assert not {path.name for path in out.iterdir()} & {lock.LOCK, lock.HOLDER}


def test_a_sweep_and_the_runs_in_it_do_not_stand_in_each_others_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Any, tiny: list[str], refused: Callable[..., str]
) -> None:
    seen = []

    def run_jobs(jobs: dict[str, list[str]], at_once: int, ended: Any, watch: Any) -> None:
        with FORK.Pool(1) as pool:
            for name in jobs:
                seen.append(
                    (pool.apply(can_hold, [tmp_path / "sweep"]), pool.apply(can_hold, [tmp_path / "sweep" / name]))
                )
        raise UsageError("enough")

    monkeypatch.setattr("spikeback.lab.sweep.command.run_jobs", run_jobs)
    refused("sweep", *tiny, "--vary", "{train.lr: [0.1, 0.2]}", "--out", tmp_path / "sweep")
    assert seen == [(False, True)] * 2


def can_hold(folder: Path) -> bool:
    try:
        with alone(folder):
            return True
    except UsageError:
        return False


def test_it_may_be_held_twice_by_one_and_not_by_two_threads(tmp_path: Path) -> None:
    found = []
    with alone(tmp_path / "run"):
        with alone(tmp_path / "run"):
            pass
        thread = threading.Thread(target=lambda: found.append(can_hold(tmp_path / "run")))
        thread.start()
        thread.join()
        assert not can_hold_elsewhere(tmp_path / "run")
    assert found == [False]
    assert can_hold_elsewhere(tmp_path / "run")


def can_hold_elsewhere(folder: Path) -> bool:
    with FORK.Pool(1) as pool:
        return pool.apply(can_hold, [folder])


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "\xff"])
def test_who_it_is_may_be_unknown(tmp_path: Path, content: str) -> None:
    with FileLock(tmp_path / lock.LOCK):
        (tmp_path / lock.HOLDER).write_text(content, encoding="latin-1")
        with pytest.raises(UsageError, match="is in use by another process; wait"):
            alone(tmp_path).__enter__()


def test_what_is_in_the_folder_stays_and_remains_of_the_dead_go(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("{}")
    (tmp_path / ".results.json.17.part").write_text("{")
    with alone(tmp_path):
        assert is_used(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.parametrize("name", ["EACCES", "EROFS", "ENOSPC"])
def test_a_folder_that_cannot_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str], tiny: list[str], name: str
) -> None:
    number = getattr(errno, name)

    def fail(*args: object, **options: object) -> None:
        raise OSError(number, os.strerror(number), "somewhere")

    monkeypatch.setattr("filelock.FileLock.acquire", fail)
    for words in (["fit"], ["fit", "--resume"]):
        line = refused(*words, *tiny, "--out", tmp_path / "run", alone=True)
        assert f"cannot write {tmp_path / 'run'}: {os.strerror(number)}; " in line
    assert not any(tmp_path.iterdir())
    monkeypatch.undo()
    monkeypatch.setattr(Path, "mkdir", fail)
    with pytest.raises(WriteError, match="cannot write"):
        alone(tmp_path / "run").__enter__()


def test_a_file_in_the_way_is_one_line(tmp_path: Path, refused: Callable[..., str], tiny: list[str]) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        assert "cannot write" in refused("fit", *tiny, "--out", out)


def test_where_the_file_system_has_no_locks_it_says_so_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("filelock.FileLock.acquire", fail)
    with pytest.warns(UserWarning, match="file system without locks"), alone(tmp_path / "run"):
        assert (tmp_path / "run").is_dir()
    with in_turn(tmp_path) as held:
        assert not held


def test_an_error_within_is_not_taken_for_one_of_the_lock(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="disk"), alone(tmp_path / "run"):
        raise OSError(errno.EIO, "disk")
    assert not any(tmp_path.iterdir())
