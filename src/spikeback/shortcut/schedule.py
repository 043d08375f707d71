"""Schedules: lambda, the weight of the branches, as a pure function of the training progress i / I in [0, 1].

i is the number of optimiser steps already taken and I that of all steps. So the first step has progress 0, and the last
one (I - 1) / I.
"""

import math
from dataclasses import dataclass

from spikeback.errors import UsageError
from spikeback.values import is_number


@dataclass(frozen=True)
class Schedule:
    """Base of the schedules. A schedule of your own overrides `weight`.

    Calling a schedule returns lambda. It raises `UsageError` if the progress is outside [0, 1].
    """

    def __call__(self, progress: float) -> float:
        if not 0 <= progress <= 1:
            raise UsageError(f"{type(self).__name__}: progress must lie in [0, 1], got {progress}")
        return self.weight(progress)

    def weight(self, progress: float) -> float:
        """Lambda at a progress in [0, 1]."""
        raise NotImplementedError


@dataclass(frozen=True)
class Vanilla(Schedule):
    """lambda = 0: plain training of the main branch, Eq. 7. No branch is evaluated."""

    def weight(self, progress: float) -> float:
        return 0.0


@dataclass(frozen=True)
class Shortcut(Schedule):
    """lambda = 1: shortcut back-propagation, Eq. 6. The output is the sum of all branches, o = sum_l b_l(x)."""

    def weight(self, progress: float) -> float:
        return 1.0


def _check(schedule: "Evolutionary | Cosine | Constant") -> None:
    if not is_number(schedule.start) or not 0 <= schedule.start < float("inf"):
        raise UsageError(f"{type(schedule).__name__}: start must be a number of at least 0, got {schedule.start!r}")


@dataclass(frozen=True)
class Evolutionary(Schedule):
    """lambda = start * (1 - i / I): evolutionary training, Eq. 10.

    Lambda falls in a straight line from `start`, a number of at least 0. The paper's `start` is 0.25.
    """

    start: float = 0.25
    __post_init__ = _check

    def weight(self, progress: float) -> float:
        return self.start * (1 - progress)


@dataclass(frozen=True)
class Cosine(Schedule):
    """lambda = start * (1 + cos(pi i / I)) / 2: it falls later than that of `Evolutionary`.

    It is not in the paper. It tests whether the straight line matters.
    """

    start: float = 0.25
    __post_init__ = _check

    def weight(self, progress: float) -> float:
        return self.start * (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True)
class Constant(Schedule):
    """lambda = start, to the end.

    It is not in the paper. Beside `Evolutionary` it shows what the fall is good for.
    """

    start: float = 0.25
    __post_init__ = _check

    def weight(self, progress: float) -> float:
        return self.start
