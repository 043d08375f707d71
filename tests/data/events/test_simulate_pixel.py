"""The pixel of the simulated camera against a slow one, written event by event, and against its physics."""

import math
from itertools import pairwise

import numpy as np
import pytest

from spikeback.data.events.pixel import (
    LEAST_THRESHOLD,
    PRESETS,
    UNIT,
    PixelModel,
    comparator_levels,
    crossings,
    log_intensity,
)
from spikeback.errors import UsageError

IDEAL = PixelModel(mismatch=0.0)


def thresholds(on: float, off: float, pixels: int) -> np.ndarray:
    return np.repeat(np.rint(np.array([[on], [off]]) / UNIT).astype(np.float32), pixels, axis=1)


def fire(levels: np.ndarray, both: np.ndarray, model: PixelModel = IDEAL, ms: float = 10, seed: int = 0) -> np.ndarray:
    """All crossings one by one, float64 rows of (step, pixel, ON, fraction of the step); `levels` in UNITs."""
    times = np.rint(np.arange(len(levels)) * 1000 * ms).astype(np.int64)
    rows = [
        (step, pixel, rises, first + j * each)
        for step, fired in enumerate(crossings(levels, both, times, model, np.random.default_rng(seed)))
        for pixel, rises, count, first, each in zip(*fired, strict=True)
        for j in range(int(count))
    ]
    return np.array(rows, dtype=np.float64).reshape(-1, 4)


def slow_pixel(levels: list[int], on: int, off: int) -> list[tuple[int, int, float]]:
    """(step, ON, fraction of the step) of one pixel, event by event, in whole numbers."""
    events, memory = [], levels[0]
    for step, (start, end) in enumerate(pairwise(levels)):
        while end - memory >= on:
            memory += on
            events.append((step, 1, (memory - start) / (end - start)))
        while memory - end >= off:
            memory -= off
            events.append((step, 0, (memory - start) / (end - start)))
    return events


def wander(steps: int, pixels: int, seed: int = 0) -> np.ndarray:
    """Levels in UNITs within 0..ln 255 that jump, creep and stand still."""
    rng = np.random.default_rng(seed)
    jumps = rng.normal(0, 1, (steps, pixels)) * rng.choice([0, 0.001, 0.1, 3], (steps, pixels))
    folded = np.abs(np.cumsum(jumps, 0) % (2 * math.log(255)) - math.log(255))
    return np.rint(folded / UNIT).astype(np.float32)


def test_every_event_is_the_slow_pixels() -> None:
    levels = wander(200, 200)
    both = IDEAL.draw_thresholds(200, np.random.default_rng(1))
    both = np.rint(both * np.random.default_rng(2).uniform(0.2, 2, both.shape)).astype(np.float32)
    found = fire(levels, both)
    for pixel, (column, on, off) in enumerate(zip(levels.T, *both, strict=True)):
        expected = np.array(slow_pixel([int(v) for v in column], int(on), int(off))).reshape(-1, 3)
        mine = found[found[:, 1] == pixel]
        mine = mine[np.lexsort((mine[:, 3], mine[:, 0]))]  # a step holds events of one polarity only
        assert np.array_equal(mine[:, [0, 2]], expected[:, :2])
        assert np.abs(mine[:, 3] - expected[:, 2]).max(initial=0) < 1e-5  # a tenth of a microsecond in 10 ms
    assert len(found) > 50_000


def test_levels_that_are_exact_multiples_of_the_threshold_fire_on_the_spot() -> None:
    theta = 0.25
    levels = np.array([[0], [1], [0], [3], [3], [2.75], [3]]) * np.float32(theta / UNIT)
    step, _, on, fraction = fire(levels, thresholds(theta, theta, 1)).T
    assert step.tolist() == [0, 1, 2, 2, 2]
    assert on.tolist() == [1, 0, 1, 1, 1]
    assert fraction.tolist() == pytest.approx([1, 1, 1 / 3, 2 / 3, 1], abs=1e-6)


def test_mirrored_levels_swap_the_polarities() -> None:
    levels, both = wander(100, 50), thresholds(0.2, 0.2, 50)
    up, down = fire(levels, both), fire(-levels, both)
    assert np.array_equal(up[:, [0, 1, 3]], down[:, [0, 1, 3]])
    assert np.array_equal(up[:, 2], 1 - down[:, 2])


def test_log_intensity_is_v2es() -> None:
    luminance = np.linspace(0, 255, 1021, dtype=np.float32)
    expected = [x * math.log(20) / 20 if x <= 20 else math.log(x) for x in luminance.tolist()]
    assert np.abs(log_intensity(luminance) - expected).max() < 1e-6


def test_the_low_pass_answers_a_step_exponentially() -> None:
    model, times = PixelModel(cutoff=30.0), np.arange(0, 100_001, 1000)
    luminance = [np.full(1, 255.0 if k else 20.0, np.float32) for k in range(len(times))]
    (levels,) = np.stack(list(comparator_levels(luminance, np.ones(1, np.float32), times, model))).T * UNIT
    rise = math.log(255) - math.log(20)
    expected = math.log(255) - rise * np.exp(-2 * np.pi * 30 * times * 1e-6)
    assert np.abs(levels - expected).max() < 1e-5


def test_the_leak_fires_on_events_at_its_rate_in_every_pixel() -> None:
    model, times = PixelModel(leak=4.0), np.arange(0, 10_000_001, 10_000)  # 10 s
    both = model.draw_thresholds(50, np.random.default_rng(0))
    levels = comparator_levels([np.full(50, 99, np.float32)] * len(times), both[0], times, model)
    found = fire(np.stack(list(levels)), both)
    assert set(found[:, 2]) == {1.0}
    assert np.isin(np.bincount(found[:, 1].astype(int), minlength=50), (39, 40)).all()  # the last may just be missed


def test_shot_noise_is_poisson_and_even() -> None:
    model, steps, pixels = PixelModel(shot_noise=5.0), 200, 5000  # 2 s
    found = fire(np.ones((steps + 1, pixels), np.float32), thresholds(0.2, 0.2, pixels), model)
    mean = steps * pixels * -math.expm1(-5 * 0.01)
    assert abs(len(found) - mean) < 5 * math.sqrt(mean)
    assert abs(found[:, 2].sum() - len(found) / 2) < 2.5 * math.sqrt(len(found))
    assert 0 <= found[:, 3].min() < 0.01
    assert 0.99 < found[:, 3].max() < 1
    per_pixel = np.bincount(found[:, 1].astype(int), minlength=pixels)
    assert abs(per_pixel.var() / per_pixel.mean() - math.exp(-5 * 0.01)) < 0.1  # binomial: once a step at most


def test_noise_adds_events_but_no_memory_of_them() -> None:
    """A pixel that fired by chance compares with the level it then sees: a still scene brings no event back."""
    model, both = PixelModel(shot_noise=50.0), thresholds(0.2, 0.2, 100)
    noisy = fire(np.full((101, 100), 1e6, np.float32), both, model)
    drawn = fire(np.zeros((101, 100), np.float32), both, model)
    assert np.array_equal(noisy, drawn)


@pytest.mark.parametrize("noise", [0.0, 40.0])
def test_no_two_events_of_a_pixel_are_closer_than_the_refractory_period(noise: float) -> None:
    model = PixelModel(refractory=0.025, shot_noise=noise)
    found = fire(wander(300, 100), thresholds(0.2, 0.2, 100), model)
    when = (found[:, 0] + found[:, 3]) * 0.01
    gaps = np.concatenate([np.diff(np.sort(when[found[:, 1] == pixel])) for pixel in range(100)])
    assert len(gaps) > 3000
    assert gaps.min() >= 0.025 - 1e-8  # float32 of a microsecond clock


def test_what_changes_while_a_pixel_is_blind_is_lost() -> None:
    theta = np.float32(0.25 / UNIT)
    levels = np.array([[0], [1], [9], [9], [9], [10]]) * theta
    found = fire(levels, thresholds(0.25, 0.25, 1), PixelModel(refractory=0.01))
    assert found[:, 0].tolist() == [0, 4]  # the eight thresholds of step 1 pass unseen


def test_thresholds_spread_by_their_mismatch_and_never_vanish() -> None:
    drawn = PixelModel(mismatch=0.05).draw_thresholds(100_000, np.random.default_rng(0)) * UNIT
    assert drawn.shape == (2, 100_000)
    assert np.abs(drawn.mean(1) - 0.2).max() < 5 * 0.05 / math.sqrt(100_000)
    assert np.abs(drawn.std(1) - 0.05).max() < 0.001
    assert abs(np.corrcoef(drawn).min()) < 0.02
    assert (
        PixelModel(mismatch=1.0).draw_thresholds(1000, np.random.default_rng(0)).min() * UNIT >= LEAST_THRESHOLD - UNIT
    )


def test_the_presets_are_those_of_v2e() -> None:
    assert PRESETS["clean"] == PixelModel(0.2, 0.02, 0, 0, 0, 0)
    assert PRESETS["noisy"] == PixelModel(0.2, 0.05, 30, 0.1, 5, 0.01)


@pytest.mark.parametrize("name", ["threshold", "mismatch", "cutoff", "leak", "shot_noise", "refractory"])
@pytest.mark.parametrize("value", [-1, math.nan, math.inf, True, "0.2"])
def test_a_parameter_that_is_no_number_from_0_on_is_named(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"PixelModel {name} must be"):
        PixelModel(**{name: value})  # type: ignore[arg-type]


def test_a_threshold_near_0_is_refused() -> None:
    with pytest.raises(UsageError, match=r"threshold must be at least 0\.01, not 0\.001"):
        PixelModel(threshold=0.001)
