"""The protocol: who works when, and what becomes of an arm that fails."""

import io
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import spikeback as sb
from spikeback.lab.bench import worker
from spikeback.lab.bench.race import Arm, _described, race, turn

pytestmark = pytest.mark.slow

FACTORIES = """
import os, time
from spikeback.lab.bench.worker import Absent

def works(name, log, dies_at=None):
    calls = []
    def work():
        calls.append(0)
        if len(calls) == dies_at:
            raise RuntimeError("it broke")
        start = time.monotonic()
        time.sleep(0.21)
        with open(log, "a") as file:
            file.write(f"{name} {start} {time.monotonic()}\\n")
    print("libraries print what they like")
    return work, {"fact": 1}

def absent():
    raise Absent("no such thing here")

def dies():
    os._exit(3)
"""
SPEC = {"factory": "made_up:works", "small": None, "allocator": "kept", "device": "cpu"}


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that arms write to; `made_up` with their factories can be imported, here and in other processes."""
    (tmp_path / "made_up.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "log"


def answers(spec: dict[str, Any], repetitions: int) -> list[dict[str, Any]]:
    """What an arm says, run in this process."""
    stream = io.StringIO()
    worker.main(spec, io.StringIO("\n" * repetitions), stream)
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_arm_states_facts_then_answers_every_line(log: Path) -> None:
    first, *others = answers(SPEC | {"options": {"name": "a", "log": str(log)}}, 2)
    assert first["facts"]["fact"] == 1
    assert first["facts"]["calls"] == 1
    assert [sorted(answer) for answer in others] == [["peak_bytes", "seconds"]] * 2
    assert all(0.2 < answer["seconds"] < 2 for answer in others)
    lines = log.read_text("utf-8").splitlines()
    assert len(lines) == worker.WARM_UP + 2 * 2  # an untimed call comes before each timed one


@pytest.mark.parametrize(
    ("factory", "why"), [("made_up:absent", "no such thing here"), ("gone:net", "No module named 'gone'")]
)
def test_an_absent_arm_says_why(log: Path, factory: str, why: str) -> None:
    assert answers(SPEC | {"factory": factory, "options": {}}, 2) == [{"absent": why}]


def test_order_rotates() -> None:
    assert [turn(["a", "b", "c"], r) for r in range(4)] == [
        ["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"],
    ]  # fmt: skip
    assert turn([], 1) == []


def test_one_arm_works_at_a_time_and_failures_stop_nobody(log: Path) -> None:
    def arm(name: str, **options: Any) -> Arm:
        return Arm(name, "made_up:works", {"name": name, "log": str(log)} | options)

    dies_at = worker.WARM_UP + 2 + 1  # in its second repetition
    records = race(
        [
            arm("a"),
            Arm("absent", "made_up:absent", {}),
            Arm("dies", "made_up:dies", {}),
            arm("breaks", dies_at=dies_at),
        ],
        repetitions=2,
        threads=1,
    )
    a, absent, dies, breaks = records
    assert absent["absent"] == "no such thing here"
    assert dies["error"] == "ended with exit code 3"
    assert breaks["error"] == "RuntimeError: it broke"
    assert [len(record["seconds"]) for record in records] == [2, 0, 0, 1]
    assert all(0.2 < seconds < 2 for seconds in a["seconds"])
    lines = [line.split() for line in log.read_text("utf-8").splitlines()]
    spans = [(float(start), float(end)) for _, start, end in lines]
    assert all(earlier[1] <= later[0] for earlier, later in pairwise(spans))
    order = [name for name, _, _ in lines[2 * worker.WARM_UP :]]
    assert order == ["a", "a", "breaks", "breaks", "a", "a"]  # in its second turn, now the first, breaks broke


@pytest.mark.parametrize("allocator", ["kept", "stock"])
def test_only_an_arm_that_keeps_memory_tunes_the_allocator(
    log: Path, allocator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned = []
    monkeypatch.setattr(sb, "tune_allocator", lambda: tuned.append(True), raising=False)
    (first,) = answers(SPEC | {"options": {"name": "a", "log": str(log)}, "allocator": allocator}, 0)
    assert first["facts"]["allocator"] == allocator
    assert tuned == [True] * (allocator == "kept")


def test_quick_work_is_called_often_enough_to_be_timed() -> None:
    assert worker._calls(lambda: None) > 1000


def test_a_python_inside_the_working_folder_is_recorded_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    described = [_described(Arm("a", "m:f", {}, python=p)) for p in (tmp_path / "bin/python", Path("/x/python"))]
    assert [one["python"] for one in described] == ["bin/python", "/x/python"]
