"""Medians and ratios of repetitions, each with a 95 % bootstrap interval."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

RESAMPLES = 10_000
COVERAGE = 0.95


def median_interval(values: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """The median and its 95 % percentile bootstrap interval; the resampling is seeded, so it repeats."""
    data = np.asarray(values, dtype=float)
    picks = np.random.default_rng(0).integers(0, len(data), (RESAMPLES, len(data)))
    tail = 50 * (1 - COVERAGE)
    low, high = np.percentile(np.median(data[picks], axis=1), [tail, 100 - tail])
    return float(np.median(data)), (float(low), float(high))


@dataclass(frozen=True)
class Ratio:
    """What arm `of` takes over what arm `to` takes, repetition by repetition, times `scale`.

    `key` is the figure compared, one a repetition: "seconds" or "peak_bytes". `most` and `least` are what is expected
    of the median.
    """

    title: str
    of: str
    to: str
    key: str = "seconds"
    scale: float = 1.0
    most: float | None = None
    least: float | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return self.of, self.to

    def values(self, of: Sequence[float], to: Sequence[float]) -> list[float]:
        return [self.scale * a / b for a, b in zip(of, to, strict=True) if b > 0]


@dataclass(frozen=True)
class Slope:
    """Exponent of the power law through the seconds of the arms `names` at `at`, in each repetition; 1 is linear."""

    title: str
    names: tuple[str, ...]
    at: tuple[int, ...]
    key: str = "seconds"
    most: float | None = None
    least: float | None = None

    def values(self, *columns: Sequence[float]) -> list[float]:
        rows = zip(*columns, strict=True)
        return [float(np.polyfit(np.log(self.at), np.log(row), 1)[0]) for row in rows]


def compare(comparison: Ratio | Slope, arms: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
    """The entry of one comparison in the results; None if an arm it needs has no figures.

    The figures it joins were taken within one repetition, so that drift of the machine cancels.
    """
    records = [arms.get(name, {}) for name in comparison.names]
    if not all(whole(record) for record in records):
        return None
    values = comparison.values(*(record[comparison.key] for record in records))
    if not values:
        return None
    median, interval = median_interval(values)
    most, least = comparison.most, comparison.least
    met = None if most is least is None else (most is None or median <= most) and (least is None or median >= least)
    return vars(comparison) | {"values": values, "median": median, "interval": interval, "met": met}


def whole(record: dict[str, Any]) -> bool:
    """Whether an arm did all its repetitions."""
    return bool(record.get("seconds")) and "error" not in record
