import numpy as np
import pytest

from spikeback.lab.bench.numbers import Ratio, Slope, compare, median_interval


def test_interval_covers_the_median_nineteen_times_in_twenty() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(100):
        _, (low, high) = median_interval(rng.lognormal(0, 0.3, 20).tolist())
        hits += low <= 1 <= high  # exp(0), the true median
    assert 88 <= hits <= 100


def test_interval_of_equal_values_is_a_point_and_repeats() -> None:
    assert median_interval([2.0, 2.0, 2.0]) == (2.0, (2.0, 2.0))
    values = [1.0, 5.0, 2.0, 4.0]
    assert median_interval(values) == median_interval(values)
    assert median_interval(values)[0] == 3.0


def test_ratio_is_taken_within_repetitions_so_drift_cancels() -> None:
    drift = [1.0, 1.4, 0.8, 1.1]
    arms = {"a": {"seconds": [3 * d for d in drift]}, "b": {"seconds": [2 * d for d in drift]}}
    entry = compare(Ratio("a / b", "a", "b", most=1.6), arms)
    assert entry is not None
    assert entry["values"] == pytest.approx([1.5] * 4)
    assert entry["interval"] == pytest.approx((1.5, 1.5))
    assert entry["met"] is True


@pytest.mark.parametrize(("most", "least", "met"), [(None, None, None), (1.0, None, False), (None, 1.5, True)])
def test_expectation_is_about_the_median(most: float | None, least: float | None, met: bool | None) -> None:
    entry = compare(Ratio("", "a", "b", most=most, least=least), {"a": {"seconds": [3.0]}, "b": {"seconds": [2.0]}})
    assert entry is not None
    assert entry["met"] is met


def test_an_arm_without_figures_is_compared_with_nothing() -> None:
    whole, broken = {"seconds": [1.0]}, {"seconds": [1.0], "error": "it broke"}
    for arms in ({"a": whole}, {"a": whole, "b": {"seconds": [], "absent": "no"}}, {"a": whole, "b": broken}):
        assert compare(Ratio("", "a", "b"), arms) is None


def test_slope_of_a_power_law_is_its_exponent() -> None:
    arms = {str(t): {"seconds": [d * t**0.9 for d in (1.0, 2.0)]} for t in (1, 4, 16)}
    entry = compare(Slope("", ("1", "4", "16"), (1, 4, 16)), arms)
    assert entry is not None
    assert entry["values"] == pytest.approx([0.9, 0.9])
