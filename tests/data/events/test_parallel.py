import os
import signal
import time
import warnings
from multiprocessing import get_context
from pathlib import Path

import pytest

from spikeback.data.events import parallel as module
from spikeback.data.events.parallel import parallel
from spikeback.errors import UsageError

MANY = list(range(100))  # enough to start processes


def slow_where_early(i: int) -> tuple[int, int]:
    time.sleep(0.005 if i < 20 else 0)
    return i * i, os.getpid()


def test_results_come_in_order_from_several_processes() -> None:
    squares, pids = zip(*parallel(slow_where_early, MANY, "Work", workers=3), strict=True)
    assert list(squares) == [i * i for i in MANY]
    assert os.getpid() not in pids
    assert len(set(pids)) > 1


@pytest.mark.parametrize(("items", "workers"), [(MANY, 1), (MANY[:64], 3), ([], None)])
def test_little_work_or_one_worker_starts_no_process(items: list[int], workers: int | None) -> None:
    results = list(parallel(slow_where_early, items, "Work", workers))
    assert results == [(i * i, os.getpid()) for i in items]


def fail_at_70(i: int) -> int:
    if i == 70:
        raise UsageError("70.aedat is broken at byte 8")
    return i


@pytest.mark.parametrize("workers", [1, 2])
def test_the_first_error_comes_as_it_was_raised(workers: int) -> None:
    with pytest.raises(UsageError, match=r"^70\.aedat is broken at byte 8$"):
        list(parallel(fail_at_70, MANY, "Work", workers))


def die_at_70(i: int) -> None:
    if i == 70:
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_is_one_line() -> None:
    with pytest.raises(UsageError, match="a worker process was killed, most likely for lack of memory"):
        list(parallel(die_at_70, MANY, "Work", 2))


def complain(i: int) -> int:
    if i % 10 == 3:
        warnings.warn(f"{i}.aedat: time goes backwards", stacklevel=1)
    return i


@pytest.mark.parametrize("workers", [1, 2])
def test_warnings_of_all_items_are_one_counted_warning(workers: int) -> None:
    with pytest.warns(UserWarning, match=r"^Work: 10 warnings, the first: 3\.aedat: time goes backwards$") as caught:
        assert list(parallel(complain, MANY, "Work", workers)) == MANY
    assert len(caught) == 1


def test_no_more_is_computed_ahead_than_is_asked_for(tmp_path: Path) -> None:
    def note(i: int) -> None:
        (tmp_path / str(i)).touch()

    results = parallel(note, range(2000), "Work", 2)
    next(results)
    time.sleep(0.3)
    results.close()  # type: ignore[attr-defined]
    most = (module.AHEAD * 2 + 1) * module.CHUNK
    assert module.CHUNK <= len(list(tmp_path.iterdir())) <= most


def test_workers_end_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    def note(i: int) -> None:
        (tmp_path / str(os.getpid())).touch()
        time.sleep(0.02)

    parent = get_context("fork").Process(target=lambda: list(parallel(note, range(10000), "Work", 2)))
    parent.start()
    deadline = time.monotonic() + 20
    while len(list(tmp_path.iterdir())) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    parent.kill()
    parent.join()
    while any(Path(f"/proc/{path.name}/cmdline").exists() for path in tmp_path.iterdir()):
        if all(Path(f"/proc/{path.name}/stat").read_text("ascii").split()[2] == "Z" for path in tmp_path.iterdir()):
            break  # ended, only nobody has asked for its exit status
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_terminal_shows_progress_on_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    list(parallel(fail_at_70, MANY[:70], "Decoding n-mnist", 2))
    out, err = capsys.readouterr()
    assert out == ""
    assert "Decoding n-mnist" in err
