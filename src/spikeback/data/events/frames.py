"""Events to frames."""

import math
import warnings
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from numbers import Integral
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from spikeback.data.events.clock import ordered
from spikeback.data.events.columns import from_columns, pick
from spikeback.data.events.dtype import EVENT, Sensor, Size, checked_size
from spikeback.errors import UsageError
from spikeback.values import instead

By = Literal["count", "time"]
Mode = Literal["count", "binary"]
Resize = Literal["nearest", "bilinear", "area"]
MOST = 1 << 30  # counts in all frames together: 8 GB while they are made


def to_frames(
    events: np.ndarray,
    time_steps: int,
    sensor: Size,
    size: int | Size | None = None,
    by: By = "count",
    mode: Mode = "count",
    resize: Resize = "nearest",
    start: int | None = None,
    duration: int | None = None,
) -> Tensor:
    """Count events per pixel and polarity in each of T spans: float32 (T, 2, H, W), channel 0 OFF, channel 1 ON.

    Args:
        events: structured array (N,) of EVENT, as `read_events` returns it, or with such fields of whole numbers, as
            tonic's; in order of time.
        time_steps: T.
        sensor: (height, width) of the camera in pixels, any sequence of two whole numbers.
        size: (H, W) to scale the frames to, or one number for both; None: the sensor's.
        by: "count", N // T events a frame, or "time", the recording's span // T microseconds a frame, or duration // T.
            What is left over goes into the last frame; a span without events is an empty frame.
        mode: "count", or "binary", 1 where at least one event fell; before scaling.
        resize: "nearest" (whole counts remain whole), "bilinear" (antialiased) or "area" (the mean over the pixels).
        start: of a trial: events with t >= start alone, microseconds as in events["t"]; None: from the first event.
        duration: of a trial: events with t < start + duration alone, microseconds; None: to the last event.

    Raises:
        UsageError: an option is unknown or not positive, time goes back, an event lies outside the sensor, or a
            recording has no events in the trial.
    """
    shape, size = _checked(time_steps, sensor, size, by, mode, resize)
    given, events = events, trial(ordered(_events(events), "events", None), start, duration)
    index = _spans(events["t"], time_steps, by, start, duration)
    for name, length in zip("pyx", shape[1:], strict=True):
        column = events[name]
        if len(column) and not 0 <= column.min() <= column.max() < length:
            whole = column if given.dtype == EVENT else pick(given)[name]  # as given, beyond int16 as well
            raise UsageError(f"events have {name} from {whole.min()} to {whole.max()}; expected 0 to {length - 1}")
        index *= length
        index += column
    counts = torch.from_numpy(np.bincount(index, minlength=math.prod(shape))).float().reshape(shape)
    frames = counts.clamp_(max=1) if mode == "binary" else counts
    return frames if size == shape[2:] else F.interpolate(frames, size, mode=resize, antialias=resize == "bilinear")


def trial(events: np.ndarray, start: int | None, duration: int | None) -> np.ndarray:
    """The part of `events`, in order of time, from `start` on and before start + duration; see `to_frames`."""
    for name, value, least in (("start", start, -(2**63)), ("duration", duration, 1)):
        whole = isinstance(value, Integral) and not isinstance(value, bool)
        if value is not None and not (whole and least <= value < 2**63):
            raise UsageError(f"{name} {value!r} must be a whole number of microseconds{' from 1 on' * (least == 1)}")
    t = events["t"]
    if not len(t) or (start is None and duration is None):
        return events
    begin = int(t[0] if start is None else start)
    end = int(t[-1]) + 1 if duration is None else begin + int(duration)
    low, high = (bisect_left(t, bound) for bound in (begin, end))
    if low == high:
        span = f"from {begin} to {end} us" if end > begin else f"from {begin} us on"
        raise UsageError(f"no events {span}; time runs from {t[0]} to {t[-1]} us: give another start")
    return events[low:high]


def _events(events: np.ndarray) -> np.ndarray:
    """An array given by hand as EVENT (N,)."""
    if not isinstance(events, np.ndarray):
        raise UsageError(f"events must be a NumPy array with the fields t, x, y, p, not {type(events).__name__}")
    wanted = f"events are {events.dtype} of shape {events.shape}; expected {EVENT} of shape (N,)"
    if events.ndim != 1 and events.dtype.names:
        raise UsageError(wanted)
    try:
        return events if events.dtype == EVENT else from_columns("events", pick(events))
    except LookupError as error:
        raise UsageError(f"{wanted}: {error}") from None


def _checked(
    time_steps: int, sensor: Size, size: int | Size | None, by: By, mode: Mode, resize: Resize
) -> tuple[tuple[int, int, int, int], Sensor]:
    """The shape before scaling, (T, 2, H, W), and the size after it. Raises UsageError naming the option."""
    for name, value, choices in (("by", by, By), ("mode", mode, Mode), ("resize", resize, Resize)):
        if value not in get_args(choices):
            raise UsageError(f"{name} {value!r} is unknown{instead(value, get_args(choices))}")
    sensor = checked_size(sensor, "sensor")
    both = (int(size), int(size)) if isinstance(size, Integral) else size
    size = sensor if both is None else checked_size(both, "size")
    if isinstance(time_steps, bool) or not isinstance(time_steps, Integral) or time_steps < 1:
        raise UsageError(f"time_steps {time_steps!r} must be a whole number from 1 on")
    shape = time_steps, 2, *sensor
    if max(math.prod(shape), math.prod((time_steps, 2, *size))) > MOST:
        raise UsageError(f"time_steps {time_steps} of 2 x {sensor}, scaled to {size}, are more than {MOST} counts")
    return shape, size


def largest_count(dtype: str) -> float:
    """The largest count that frames kept as `dtype`, uint8 or a float, hold."""
    return 255 if dtype == "uint8" else float(np.finfo(dtype).max)


def warning_of_cuts(name: str, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield `blocks`, frames as they are kept, and warn at the end of how many counts reach the largest possible."""
    full, most = 0, 0.0
    for block in blocks:
        most = largest_count(block.dtype.name)
        full += np.count_nonzero(block >= most)
        yield block
    if full:
        warnings.warn(
            f"{name}: {full} counts of a pixel in a frame reach {most:.0f}, the largest that is kept; "
            "what was above is cut off, more data.events.time_steps keep more of it",
            stacklevel=2,
        )


def _spans(t: np.ndarray, time_steps: int, by: By, start: int | None, duration: int | None) -> np.ndarray:
    """The frame that each event belongs to, int64 (N,)."""
    if not len(t):
        return np.empty(0, np.int64)
    if by == "count":
        position, whole = np.arange(len(t)), len(t)
    else:
        position = (t - (t[0] if start is None else start)).view("u8")  # no span is too long for uint64
        whole = int(position[-1]) if duration is None else int(duration)
    span = whole // int(time_steps)
    if span == 0:  # fewer events, or microseconds, than frames: all of them are left over
        return np.full(len(t), time_steps - 1)
    position //= span
    return np.minimum(position, time_steps - 1, out=position).view(np.int64)
