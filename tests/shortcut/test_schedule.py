"""Schedules are pure functions of progress i / I."""

import math
from typing import Any

import pytest

import spikeback as sb
from spikeback.errors import UsageError

ALL = [sb.Vanilla(), sb.Shortcut(), sb.Evolutionary(0.25), sb.Cosine(0.25), sb.Constant(0.25)]


@pytest.mark.parametrize("progress", [0.0, 0.1, 1 / 3, 0.5, 0.999, 1.0])
def test_values(progress: float) -> None:
    assert sb.Vanilla()(progress) == 0.0
    assert sb.Shortcut()(progress) == 1.0
    assert sb.Evolutionary(0.25)(progress) == 0.25 * (1 - progress)
    assert sb.Constant(0.25)(progress) == 0.25
    assert sb.Cosine(0.25)(progress) == pytest.approx(0.25 * math.cos(math.pi * progress / 2) ** 2, abs=1e-16)


def test_evolutionary_falls_from_its_start_to_exactly_zero() -> None:
    assert sb.Evolutionary(0.25)(0.0) == 0.25
    assert sb.Evolutionary(0.25)(1.0) == 0.0
    assert sb.Evolutionary(1.0)(0.75) == 0.25
    assert (sb.Cosine(0.25)(0.0), sb.Cosine(0.25)(1.0)) == (0.25, 0.0)


@pytest.mark.parametrize("kind", [sb.Evolutionary, sb.Cosine, sb.Constant])
@pytest.mark.parametrize("start", [-0.1, float("nan"), float("inf")])
def test_start_must_be_a_weight(kind: Any, start: float) -> None:
    with pytest.raises(UsageError, match=f"{kind.__name__}: start must be a number of at least 0"):
        kind(start)


@pytest.mark.parametrize("schedule", ALL, ids=str)
def test_nothing_is_counted_in_secret(schedule: Any) -> None:
    forward = [schedule(i / 10) for i in range(11)]
    backward = [schedule(i / 10) for i in reversed(range(11))]
    assert forward == backward[::-1]


@pytest.mark.parametrize("schedule", ALL, ids=str)
@pytest.mark.parametrize("progress", [-0.01, 1.01, float("nan"), float("inf")])
def test_progress_outside_zero_to_one_is_an_error(schedule: Any, progress: float) -> None:
    with pytest.raises(UsageError, match="progress"):
        schedule(progress)


def test_schedules_are_values() -> None:
    assert sb.Evolutionary(0.25) == sb.Evolutionary(0.25) != sb.Evolutionary(0.5)
    assert sb.Vanilla() == sb.Vanilla()
    assert sb.Shortcut() == sb.Shortcut()
