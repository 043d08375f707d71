"""The one form in which events travel through the library."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from torch import Tensor

from spikeback.errors import UsageError

EVENT = np.dtype([("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("p", "u1")])  # t in microseconds; p 1 = ON, 0 = OFF
Sensor = tuple[int, int]  # (height, width) in pixels
Size = Sequence[int] | np.ndarray | Tensor  # the same, as it may be given
FAR = 32767  # stands for every coordinate too large for int16: outside any sensor


@dataclass(frozen=True, eq=False)
class Recording:
    """What a decoder hands over, before anything is checked.

    events: EVENT (N,). sensor: what the format or the header says, None if neither does. where: the index of an event
    -> its place in the file, in words. broken: the byte at which an incomplete or damaged record begins. pixel: the
    index -> x and y as the file has them, where `events` may hold FAR or -1 instead.
    """

    events: np.ndarray
    sensor: Sensor | None
    where: Callable[[int], str]
    broken: int | None = None
    pixel: Callable[[int], tuple[int, int]] | None = None


def option(size: Sensor) -> str:
    """How to say that the camera has (height, width), in Python and on the command line for --data recordings."""
    return f"sensor={size} (recordings: data.events.sensor=[{size[0]},{size[1]}])"


def checked_size(size: Any, name: str) -> Sensor:
    """(height, width), any sequence or array, as Python's numbers; raises UsageError unless they are two positive whole
    numbers."""
    given: Any = size.tolist() if isinstance(size, np.ndarray | Tensor) else size
    match given:
        case (Integral() as height, Integral() as width) if 0 < int(height) <= FAR and 0 < int(width) <= FAR:
            return int(height), int(width)
    raise UsageError(f"{name} {size!r} must be (height, width) in pixels, each from 1 to {FAR}")
