from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from spikeback.data import to_frames
from spikeback.data.events import EVENT
from spikeback.data.events.frames import Resize
from spikeback.errors import UsageError

H, W = 3, 5
events_in_order = st.lists(
    st.tuples(st.integers(0, 200), st.integers(0, W - 1), st.integers(0, H - 1), st.integers(0, 1)), max_size=60
).map(lambda events: np.array(sorted(events, key=lambda event: event[0]), EVENT))


def random_events(n: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    events = np.empty(n, EVENT)
    events["t"], events["p"] = np.sort(rng.integers(0, 10_000, n)), rng.integers(0, 2, n)
    events["x"], events["y"] = rng.integers(0, W, n), rng.integers(0, H, n)
    return events


def one_by_one(events: np.ndarray, bounds: list[int]) -> torch.Tensor:
    """Frame i counts events[bounds[i] : bounds[i + 1]], one event at a time."""
    frames = torch.zeros(len(bounds) - 1, 2, H, W)
    for i in range(len(bounds) - 1):
        for _, x, y, p in events[bounds[i] : bounds[i + 1]].tolist():
            frames[i, p, y, x] += 1
    return frames


@settings(max_examples=300, deadline=None)
@given(events_in_order, st.integers(1, 12))
def test_by_count_every_frame_has_as_many_events_and_the_last_the_rest(events: np.ndarray, steps: int) -> None:
    bounds = [i * (len(events) // steps) for i in range(steps)] + [len(events)]
    assert torch.equal(to_frames(events, steps, (H, W)), one_by_one(events, bounds))


@settings(max_examples=300, deadline=None)
@given(events_in_order, st.integers(1, 12))
def test_by_time_every_frame_spans_the_same_time_and_the_last_the_rest(events: np.ndarray, steps: int) -> None:
    t = events["t"]
    span = (t[-1] - t[0]) // steps if len(t) else 0
    bounds = [int(np.searchsorted(t, t[0] + i * span)) if len(t) else 0 for i in range(steps)] + [len(events)]
    assert torch.equal(to_frames(events, steps, (H, W), by="time"), one_by_one(events, bounds))


def test_repeated_events_are_all_counted() -> None:
    events = np.array([(0, 1, 2, 1)] * 1000 + [(0, 1, 2, 0)] * 300, EVENT)
    frames = to_frames(events, 1, (H, W))
    assert (frames[0, 1, 2, 1], frames[0, 0, 2, 1]) == (1000, 300)
    assert frames.sum() == 1300
    assert (frames.shape, frames.dtype) == ((1, 2, H, W), torch.float32)


@pytest.mark.parametrize("by", ["count", "time"])
def test_no_events_are_empty_frames(by: Any) -> None:
    assert torch.equal(to_frames(np.empty(0, EVENT), 4, (H, W), by=by), torch.zeros(4, 2, H, W))


def test_a_span_without_events_is_an_empty_frame() -> None:
    events = np.array([(1_605_537_493_718_345 + t, 0, 0, 1) for t in (0, 10, 60, 99, 100)], EVENT)
    assert to_frames(events, 10, (H, W), by="time").sum((1, 2, 3)).tolist() == [1, 1, 0, 0, 0, 0, 1, 0, 0, 2]


@pytest.mark.parametrize("by", ["count", "time"])
def test_fewer_events_than_frames_all_fall_into_the_last(by: Any) -> None:
    events = np.array([(0, 0, 0, 1), (1, 0, 0, 1), (2, 0, 0, 1)], EVENT)
    assert to_frames(events, 5, (H, W), by=by).sum((1, 2, 3)).tolist() == [0, 0, 0, 0, 3]


def test_by_time_counts_from_the_earliest_event_even_if_it_is_not_the_first() -> None:
    events = np.array([(50, 0, 0, 1), (0, 0, 0, 1), (99, 0, 0, 1)], EVENT)
    assert to_frames(events, 3, (H, W), by="time").sum((1, 2, 3)).tolist() == [1, 1, 1]


def test_by_time_takes_any_time_stamps() -> None:
    events = np.array([(t, 0, 0, 1) for t in (-(2**63), -(2**62), 0, 2**63 - 1)], EVENT)
    assert to_frames(events, 4, (H, W), by="time").sum((1, 2, 3)).tolist() == [1, 1, 1, 1]


def test_binary_says_where_there_was_any_event() -> None:
    events = random_events(60)
    counts = to_frames(events, 2, (H, W))
    assert counts.max() > 1
    assert torch.equal(to_frames(events, 2, (H, W), mode="binary"), (counts > 0).float())


@pytest.mark.parametrize("mode", ["count", "binary"])
@pytest.mark.parametrize("size", [2, (2, 4), (6, 10), 7])
def test_resizing_is_torchs(size: Any, mode: Any) -> None:
    events = random_events(200)
    frames = to_frames(events, 3, (H, W), mode=mode)
    for resize in get_args(Resize):
        expected = F.interpolate(frames, size, mode=resize, antialias=resize == "bilinear")
        assert torch.equal(to_frames(events, 3, (H, W), size, mode=mode, resize=resize), expected)


def test_area_over_a_whole_factor_is_the_mean() -> None:
    events = np.array([(0, 0, 0, 1), (1, 1, 1, 1), (2, 3, 0, 0)], EVENT)
    frames = to_frames(events, 1, (2, 4), (1, 2), resize="area")
    assert torch.equal(frames, torch.tensor([[[[0, 0.25]], [[0.5, 0]]]]))


def test_the_sensors_own_size_changes_nothing() -> None:
    events = random_events(50)
    assert torch.equal(to_frames(events, 2, (H, W), (H, W), resize="area"), to_frames(events, 2, (H, W)))


def test_events_are_left_as_they_were() -> None:
    events = random_events(50)
    before = events.copy()
    to_frames(events, 3, (H, W), by="time")
    assert np.array_equal(events, before)


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ((0, W, 0, 1), f"x from {W} to {W}; expected 0 to {W - 1}"),
        ((0, -1, 0, 1), "x from -1 to -1"),
        ((0, 0, H, 1), f"y from {H} to {H}"),
        ((0, 0, 0, 2), "p from 2 to 2; expected 0 to 1"),
    ],
)
def test_an_event_outside_the_frames_is_refused(event: tuple[int, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        to_frames(np.array([event], EVENT), 1, (H, W))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "number"}, "by 'number' is unknown; choose from count, time"),
        ({"mode": "sum"}, "mode 'sum' is unknown; choose from count, binary"),
        ({"resize": "bicubic"}, "resize 'bicubic' is unknown; choose from nearest, bilinear, area"),
        ({"time_steps": 0}, "time_steps 0 must be a whole number from 1 on"),
        ({"time_steps": -2}, "time_steps -2 must be"),
        ({"time_steps": 2.5}, "time_steps 2.5 must be a whole"),
        ({"time_steps": 10**12}, "more than 1073741824 counts"),
        ({"sensor": (0, 5)}, r"sensor \(0, 5\) must be \(height, width\)"),
        ({"sensor": (30_000, 30_000)}, "more than"),
        ({"size": 30_000}, "more than"),
        ({"size": 0}, r"size \(0, 0\) must be"),
        ({"size": (4, 4, 4)}, "size"),
        ({"events": np.zeros(3)}, "events are float64"),
        ({"events": np.zeros((3, 3), EVENT)}, r"of shape \(3, 3\)"),
    ],
)
def test_options_that_make_no_frames_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        to_frames(**({"events": random_events(5), "time_steps": 2, "sensor": (H, W)} | options))
