"""The pixel of a simulated event camera: luminance over time in, threshold crossings out; after v2e.

Y. Hu, S.-C. Liu, T. Delbruck, "v2e: From Video Frames to Realistic DVS Events", CVPR workshops 2021. Levels and
thresholds are whole multiples of UNIT kept in float32, which adds, subtracts and compares such numbers exactly: a
level that returns to where it was fires as many events on the way back, and none is gained or lost by rounding.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from spikeback.errors import UsageError

KNEE = 20.0  # digital units of luminance up to which the pixel responds linearly
UNIT = 2.0**-20  # of log intensity; the brightest level, ln 255, is 5.8 million of them, and float32 is exact to 2^24
LEAST_THRESHOLD = 0.01  # a mismatched pixel's, in log intensity


def check_numbers(parameters: Any) -> None:
    """Raises UsageError unless every field of a dataclass of numbers is finite and at least 0."""
    for field in fields(parameters):
        value = getattr(parameters, field.name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise UsageError(
                f"{type(parameters).__name__} {field.name} must be a finite number, 0 or above, not {value}"
            )


@dataclass(frozen=True)
class PixelModel:
    """How the pixels of the camera respond: parameters of a simulation; the defaults are the preset "clean".

    Args:
        threshold: Change of log intensity (natural logarithm) that fires an event, mean over the pixels.
        mismatch: Standard deviation of the threshold from pixel to pixel, drawn for ON and OFF apart.
        cutoff: Corner frequency in Hz of the first-order low-pass that the log intensity goes through; 0: none. It is
            the same for dark and bright pixels, where v2e's rises with luminance.
        leak: ON events a pixel fires without any light changing, Hz.
        shot_noise: Events a pixel fires by chance, half of them ON, Hz; as often in the dark as in bright light.
        refractory: Seconds after an event that a pixel is blind for, rounded up to a whole step of the simulation.
    """

    threshold: float = 0.2
    mismatch: float = 0.02
    cutoff: float = 0.0
    leak: float = 0.0
    shot_noise: float = 0.0
    refractory: float = 0.0

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.threshold < LEAST_THRESHOLD:
            raise UsageError(f"PixelModel threshold must be at least {LEAST_THRESHOLD}, not {self.threshold}")

    def draw_thresholds(self, pixels: int, rng: np.random.Generator) -> np.ndarray:
        """Thresholds of ON and OFF in UNITs, float32 (2, P)."""
        drawn = rng.normal(self.threshold, self.mismatch, (2, pixels))
        return np.rint(np.maximum(drawn, LEAST_THRESHOLD) / UNIT).astype(np.float32)


PRESETS = {
    "clean": PixelModel(),
    "noisy": PixelModel(mismatch=0.05, cutoff=30.0, leak=0.1, shot_noise=5.0, refractory=0.01),
}


def log_intensity(luminance: np.ndarray) -> np.ndarray:
    """Log of luminance 0..255, float32, any shape: ln x above KNEE, below it the straight line from 0 to ln KNEE."""
    slope = np.float32(math.log(KNEE) / KNEE)
    return np.log(np.maximum(luminance, KNEE) / KNEE) + slope * np.minimum(luminance, KNEE)


def comparator_levels(
    luminance: Iterable[np.ndarray], on: np.ndarray, times: np.ndarray, model: PixelModel
) -> Iterator[np.ndarray]:
    """What the pixels compare: luminance as logarithm, low-passed, raised by the leak, in UNITs; float32, each (P,).

    `luminance` yields (P,) at each of `times` (K + 1,), microseconds; `on` (P,) are the ON thresholds in UNITs.
    """
    decay = np.exp(-2e-6 * np.pi * model.cutoff * np.diff(times, prepend=times[0])) if model.cutoff else 0 * times
    leaked = (1e-6 * model.leak * times).astype(np.float32)
    level = None
    for seen, kept, leak in zip(luminance, decay.astype(np.float32), leaked, strict=True):
        target = log_intensity(seen)
        level = target if level is None else target + kept * (level - target)
        yield np.rint(level * np.float32(1 / UNIT) + leak * on)


class Crossings(NamedTuple):
    """Events of one step: pixel i fires `count[i]` times, when `first[i]`, `first[i]` + `each[i]`, ... of it is over.

    `pixel` int64, `rises` bool (ON, else OFF), the others float32: all (n,).
    """

    pixel: np.ndarray
    rises: np.ndarray
    count: np.ndarray
    first: np.ndarray
    each: np.ndarray


def crossings(
    levels: Iterable[np.ndarray], thresholds: np.ndarray, times: np.ndarray, model: PixelModel, rng: np.random.Generator
) -> Iterator[Crossings]:
    """Yield the events of each of K steps, within which `levels`, K + 1 times (P,), change at a constant rate.

    A pixel remembers the level of its last event and fires whenever the level is a threshold away from it. In a step
    that it is blind in or fires by chance in, it sees nothing, and remembers the level at the end.
    """
    on, off = thresholds
    memory, blind_until = None, np.zeros_like(on)
    for (start, end), (since, until) in zip(pairwise(levels), pairwise(times.tolist()), strict=True):
        memory = start.copy() if memory is None else memory
        noise = _noise(model.shot_noise * 1e-6 * (until - since), len(on), rng)
        if model.refractory:
            blind = np.flatnonzero(blind_until > since)
            memory[blind] = end[blind]
            noise = Crossings(*(column[blind_until[noise.pixel] <= since] for column in noise))
        memory[noise.pixel] = end[noise.pixel]
        gap = end - memory
        count = np.floor(np.maximum(gap / on, gap / -off))
        pixel = np.flatnonzero(count > 0)
        count = np.minimum(count[pixel], 1 if model.refractory else np.inf)
        rises, rise, old = gap[pixel] > 0, (end - start)[pixel], memory[pixel]
        threshold = np.where(rises, on[pixel], -off[pixel])
        memory[pixel] = end[pixel] if model.refractory else old + count * threshold
        fired = Crossings(pixel, rises, count, (old + threshold - start[pixel]) / rise, threshold / rise)
        if len(noise.pixel):
            fired = Crossings(*map(np.concatenate, zip(fired, noise, strict=True)))
        if model.refractory:
            blind_until[fired.pixel] = since + fired.first * (until - since) + 1e6 * model.refractory
        yield fired


def _noise(mean: float, pixels: int, rng: np.random.Generator) -> Crossings:
    """Events that are a Poisson process of `mean` in each pixel, save that each fires at most once."""
    pixel = np.unique(rng.integers(pixels, size=rng.poisson(mean * pixels)))
    moment, zero = rng.random(len(pixel), np.float32), np.zeros(len(pixel), np.float32)
    return Crossings(pixel, rng.random(len(pixel)) < 0.5, zero + 1, moment, zero)
