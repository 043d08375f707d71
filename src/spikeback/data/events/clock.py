"""Time stamps: clocks that start again at 0, and time that goes back."""

import warnings
from typing import Literal

import numpy as np

from spikeback.errors import UsageError

Policy = Literal["raise", "warn"]
CLOCK = 32  # bits of the clock of most cameras, which starts again every 71.6 minutes


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
    first = int(back[0])
    said = f"{source}: time goes back {len(back)} times, first at index {first}, from {t[first - 1]} to {t[first]} us"
    if int(t[first - 1]) - int(t[first]) > 1 << CLOCK - 1:
        said += f" (a clock of {CLOCK} bits that started again? add 2**{CLOCK} to t from there on)"
    if policy == "warn":
        warnings.warn(f"{said}; the events are sorted by time", stacklevel=4)
        return events[np.argsort(t, kind="stable")]
    remedy = (
        'events[np.argsort(events["t"], kind="stable")] sorts them' if policy is None else "policy 'warn' sorts them"
    )
    raise UsageError(f"{said}; {remedy}")
