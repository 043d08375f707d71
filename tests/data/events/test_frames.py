from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from spikeback.data import to_frames
from spikeback.data.config import EventConfig
from spikeback.data.events import EVENT
from spikeback.data.events.decode import FrameOptions
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


@settings(max_examples=100, deadline=None)
@given(events_in_order, st.integers(1, 12))
def test_by_count_every_frame_has_as_many_events_and_the_last_the_rest(events: np.ndarray, steps: int) -> None:
    bounds = [i * (len(events) // steps) for i in range(steps)] + [len(events)]
    assert torch.equal(to_frames(events, steps, (H, W)), one_by_one(events, bounds))


@settings(max_examples=100, deadline=None)
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


@pytest.mark.parametrize("by", ["count", "time"])
def test_time_that_goes_back_is_refused_and_the_advice_works(by: Any) -> None:
    events = np.array([(50, 0, 0, 1), (60, 0, 0, 1), (0, 0, 0, 1), (99, 0, 0, 1)], EVENT)
    with pytest.raises(
        UsageError, match=r"events: time goes back 1 times, first at index 2, from 60 to 0 us; "
    ) as said:
        to_frames(events, 3, (H, W), by=by)
    ordered = eval(str(said.value).partition("; ")[2].partition(" sorts them")[0], {"np": np, "events": events})
    assert to_frames(ordered, 3, (H, W), by="time").sum((1, 2, 3)).tolist() == [1, 2, 1]


def test_a_clock_that_started_again_is_told_and_the_advice_works() -> None:
    events = np.array([(2**32 - 10, 0, 0, 1), (5, 1, 0, 1)], EVENT)
    with pytest.raises(UsageError, match=r"a clock of 32 bits that started again\? add 2\*\*32 to t from there on"):
        to_frames(events, 2, (H, W), by="time")
    events["t"][1:] += 2**32
    assert to_frames(events, 2, (H, W), by="time").nonzero()[:, [0, 3]].tolist() == [[0, 0], [1, 1]]


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


@settings(max_examples=60, deadline=None)
@given(events_in_order.filter(len), st.integers(1, 12), st.integers(-20, 220), st.integers(1, 150))
def test_a_trial_is_cut_by_time(events: np.ndarray, steps: int, start: int, duration: int) -> None:
    part = events[(events["t"] >= start) & (events["t"] < start + duration)]
    if not len(part):
        with pytest.raises(UsageError, match=f"no events from {start} to {start + duration} us; time runs from"):
            to_frames(events, steps, (H, W), start=start, duration=duration)
        return
    by_count = to_frames(events, steps, (H, W), start=start, duration=duration)
    assert torch.equal(by_count, to_frames(part, steps, (H, W)))
    span = duration // steps  # of the trial, whenever its events come
    bounds = [int(np.searchsorted(part["t"], start + i * span)) if span else 0 for i in range(steps)] + [len(part)]
    frames = to_frames(events, steps, (H, W), by="time", start=start, duration=duration)
    assert torch.equal(frames, one_by_one(part, bounds))


def test_a_trial_may_have_one_end_alone() -> None:
    events = np.array([(1_000_000 + t, 0, 0, 1) for t in (0, 10, 20, 90)], EVENT)
    first = to_frames(events, 2, (H, W), by="time", duration=40)
    assert first.sum((1, 2, 3)).tolist() == [2, 1]
    assert to_frames(events, 2, (H, W), by="time", start=1_000_010).sum((1, 2, 3)).tolist() == [2, 1]
    assert torch.equal(to_frames(events[:0], 2, (H, W), start=5, duration=5), torch.zeros(2, 2, H, W))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": 0.5}, "start 0.5 must be a whole number of microseconds"),
        ({"duration": 0}, "duration 0 must be a whole number of microseconds from 1 on"),
        ({"duration": -5}, "duration -5 must be"),
        ({"duration": 1.5}, "duration 1.5 must be"),
    ],
)
def test_a_trial_that_is_none_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        to_frames(random_events(5), 2, (H, W), **options)


@pytest.mark.parametrize(
    ("fields", "on"),
    [
        ([("x", int), ("y", int), ("t", int), ("p", int)], 1),  # tonic's order
        ([("x", "i2"), ("y", "i2"), ("ts", "u8"), ("polarity", bool)], True),
        ([("timestamp", "i8"), ("x", "u2"), ("y", "u2"), ("pol", "i1")], 1),
    ],
)
def test_structured_arrays_of_other_names_and_orders_are_the_same_events(fields: Any, on: Any) -> None:
    events = random_events(40)
    columns = {name[0]: events[name[0]] for name, _ in fields}
    if ("pol", "i1") in fields:
        columns["p"] = np.where(events["p"] == on, 1, -1)
    other = np.array([*zip(*(columns[name[0]].tolist() for name, _ in fields), strict=True)], fields)
    assert torch.equal(to_frames(other, 3, (H, W), by="time"), to_frames(events, 3, (H, W), by="time"))


@pytest.mark.parametrize(
    ("events", "message"),
    [
        (np.zeros(3, [("x", int), ("y", int), ("t", float), ("p", int)]), r"t float64; .* \(t \* 1e6\)"),
        (np.zeros(3, [("x", int), ("y", int), ("t", int)]), "no p or pol or polarity among x, y, t"),
        (np.zeros(3, [("x", int), ("y", int), ("t", int), ("ts", int), ("p", int)]), "t and ts are both t"),
        (np.full(1, 2**63, [("x", int), ("y", int), ("t", "u8"), ("p", "i1")]), "t up to 9223372036854775808"),
        (np.zeros((3, 4), int), "which column is which"),
    ],
)
def test_arrays_that_are_no_events_are_named(events: np.ndarray, message: str) -> None:
    if "p" in (events.dtype.names or ()):
        events["p"] = 1
        events["x"] = events["y"] = 0
    with pytest.raises(UsageError, match=message):
        to_frames(events, 2, (H, W))


@pytest.mark.parametrize("pair", [np.array([H, W]), [H, W], np.array([H, W], np.uint8), torch.tensor([H, W])])
def test_any_sequence_of_two_whole_numbers_is_a_size(pair: Any) -> None:
    events = random_events(50)
    assert torch.equal(to_frames(events, 2, pair), to_frames(events, 2, (H, W)))
    assert torch.equal(to_frames(events, 2, (H, W), 2 * np.asarray(pair)), to_frames(events, 2, (H, W), (2 * H, 2 * W)))
    assert FrameOptions(size=pair).shape((9, 9)) == (10, 2, H, W)
    assert FrameOptions(size=pair) == FrameOptions(size=(H, W))
    assert EventConfig(sensor=np.asarray(pair)) == EventConfig(sensor=(H, W))  # pyright: ignore[reportArgumentType]


def test_a_number_of_numpy_is_a_size() -> None:
    events = random_events(50)
    assert torch.equal(to_frames(events, 2, (H, W), np.int64(4)), to_frames(events, 2, (H, W), 4))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("pair", [np.array([H, W, 2]), np.array([1.0 * H, W]), np.array(H), np.array([[H, W]]), "35"])
def test_what_is_no_size_is_refused(pair: Any) -> None:
    with pytest.raises(UsageError, match="sensor"):
        to_frames(random_events(5), 2, pair)


def test_a_coordinate_beyond_int16_is_told_as_it_was_given() -> None:
    events = np.array([(0, 1, 2, 1), (1, 70_000, 2, 0)], [("t", "i8"), ("x", "i8"), ("y", "i8"), ("p", "i1")])
    with pytest.raises(UsageError, match=r"^events have x from 1 to 70000; expected 0 to 7$"):
        to_frames(events, 2, (8, 8))
