"""Time stamps: clocks that start again at 0, and time that goes back."""

import warnings
from typing import Literal

import numpy as np

from spikeback.errors import UsageError

Policy = Literal["raise", "warn"]
CLOCK = 32  # bits of the clock of most cameras, which starts again every 71.6 minutes
CLOCKS = (16, 23, 24, 31, CLOCK)  # bits of clocks that are in use


def unwrapped(t: np.ndarray, bits: int = CLOCK) -> np.ndarray:
    """Time stamps (N,) of a clock of so many bits as int64 that goes on where the clock starts again.

    A step back by more than three quarters of the clock's range is such a new start, and then as long a step forward
    one back across it. Any other step stays as it is, and so does time that never goes back, however long its gaps.
    """
    t = t.astype("i8")
    steps, most = np.diff(t), 3 << bits - 2
    if (steps >= 0).all():
        return t
    starts = (steps < -most).astype("i8") - (steps > most)
    return t + np.concatenate([[0], np.cumsum(starts) << bits])


def ordered(events: np.ndarray, source: str, policy: Policy | None = "raise") -> np.ndarray:
    """The same `events` if their time t never goes back. If it does, `policy` "warn" sorts them, with one warning.

    Raises UsageError otherwise, naming the `source` and the first index that goes back; `policy` None: of an array,
    which has no policy.
    """
    t = events["t"]
    back = np.flatnonzero(t[1:] < t[:-1]) + 1
    if not len(back):
        return events
    first, bits = int(back[0]), _clock(t, back)
    said = f"{source}: time goes back {len(back)} times, first at index {first}, from {t[first - 1]} to {t[first]} us"
    if bits:
        said += f" (a clock of {bits} bits that started again? add 2**{bits} to t from there on, each time)"
    if policy == "warn":
        warnings.warn(f"{said}; the events are sorted by time", stacklevel=4)
        return events[np.argsort(t, kind="stable")]
    sort = 'events[np.argsort(events["t"], kind="stable")]' if policy is None else "policy 'warn'"
    raise UsageError(said if bits else f"{said}; {sort} sorts them, which is right if several streams were merged")


def _clock(t: np.ndarray, back: np.ndarray) -> int | None:
    """The bits of a clock that would have started again wherever t (N,) goes `back`, None if there is none.

    It goes back from the end of its range to the beginning, by almost the whole range.
    """
    before, after = t[back - 1].astype("i8"), t[back].astype("i8")
    for bits in CLOCKS:
        most = 1 << bits
        low = -(most >> 1) if after.min() < 0 else 0  # where it counts from
        gap = most - (before - after)  # between the two events, if it did
        if ((before < low + most) & (after >= low) & (gap <= most >> 4)).all():
            return bits
    return None
