"""Events to frames."""

import math
import warnings
from collections.abc import Iterable, Iterator
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from spikeback.data.events.dtype import EVENT, Sensor, checked_size
from spikeback.errors import UsageError
from spikeback.values import instead

By = Literal["count", "time"]
Mode = Literal["count", "binary"]
Resize = Literal["nearest", "bilinear", "area"]
MOST = 1 << 30  # counts in all frames together: 8 GB while they are made


def to_frames(
    events: np.ndarray,
    time_steps: int,
    sensor: Sensor,
    size: int | Sensor | None = None,
    by: By = "count",
    mode: Mode = "count",
    resize: Resize = "nearest",
) -> Tensor:
    """Count events per pixel and polarity in each of T spans: float32 (T, 2, H, W), channel 0 OFF, channel 1 ON.

    Args:
        events: structured array of EVENT, as `read_events` returns it.
        time_steps: T.
        sensor: (height, width) of the camera in pixels.
        size: (H, W) to scale the frames to, or one number for both; None: the sensor's.
        by: "count", N // T events a frame, or "time", the recording's span // T microseconds a frame. What is left over
            goes into the last frame; a span without events is an empty frame.
        mode: "count", or "binary", 1 where at least one event fell; before scaling.
        resize: "nearest" (whole counts remain whole), "bilinear" (antialiased) or "area" (the mean over the pixels).

    Raises:
        UsageError: an option is unknown or not positive, or an event lies outside the sensor.
    """
    shape, size = _checked(time_steps, sensor, size, by, mode, resize)
    if events.dtype != EVENT or events.ndim != 1:
        raise UsageError(f"events are {events.dtype} of shape {events.shape}; expected {EVENT} of shape (N,)")
    index = _spans(events, time_steps, by)
    for name, length in zip("pyx", shape[1:], strict=True):
        column = events[name]
        if len(column) and not 0 <= column.min() <= column.max() < length:
            raise UsageError(f"events have {name} from {column.min()} to {column.max()}; expected 0 to {length - 1}")
        index *= length
        index += column
    counts = torch.from_numpy(np.bincount(index, minlength=math.prod(shape))).float().reshape(shape)
    frames = counts.clamp_(max=1) if mode == "binary" else counts
    return frames if size == shape[2:] else F.interpolate(frames, size, mode=resize, antialias=resize == "bilinear")


def _checked(
    time_steps: int, sensor: Sensor, size: int | Sensor | None, by: By, mode: Mode, resize: Resize
) -> tuple[tuple[int, int, int, int], Sensor]:
    """The shape before scaling, (T, 2, H, W), and the size after it. Raises UsageError naming the option."""
    for name, value, choices in (("by", by, By), ("mode", mode, Mode), ("resize", resize, Resize)):
        if value not in get_args(choices):
            raise UsageError(f"{name} {value!r} is unknown{instead(value, get_args(choices))}")
    sensor = checked_size(sensor, "sensor")
    size = sensor if size is None else checked_size((size, size) if isinstance(size, int) else size, "size")
    if not isinstance(time_steps, int) or time_steps < 1:
        raise UsageError(f"time_steps {time_steps} must be a whole number from 1 on")
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
            "what was above is cut off, more --data.events.time_steps keep more of it",
            stacklevel=2,
        )


def _spans(events: np.ndarray, time_steps: int, by: By) -> np.ndarray:
    """The frame that each event belongs to, int64 (N,)."""
    if not len(events):
        return np.empty(0, np.int64)
    t = events["t"]
    position = np.arange(len(t)) if by == "count" else (t - t.min()).view("u8")  # no span is too long for uint64
    span = (len(t) if by == "count" else int(position.max())) // time_steps
    if span == 0:  # fewer events, or microseconds, than frames: all of them are left over
        return np.full(len(t), time_steps - 1)
    position //= span
    return np.minimum(position, time_steps - 1, out=position).view(np.int64)
