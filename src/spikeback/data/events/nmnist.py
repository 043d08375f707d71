"""N-MNIST's binary files, a format shared by N-Caltech101."""

from pathlib import Path

import numpy as np

from spikeback.data.events.clock import unwrapped
from spikeback.data.events.dtype import EVENT, Recording

NMNIST = (34, 34)
RECORD = 5  # bytes an event: x, y, then 1 bit polarity (1 = ON) and 23 bits time in microseconds, big-endian
CLOCK = 23  # bits of the time stamps, which start again after 8.4 seconds where no markers count
OVERFLOW = 240  # the y that marks no event, but that 2**13 us are to be added to every later time stamp
CHUNK = 1 << 15  # events decoded at a time: they stay in the processor's cache


def read_nmnist(path: Path) -> Recording:
    """Decode one .bin file. Source: Orchard et al. 2015 and the authors' Read_Ndataset."""
    raw = np.fromfile(path, "u1")
    loose = len(raw) % RECORD
    records = raw[: len(raw) - loose].reshape(-1, RECORD)
    events, count, late = np.empty(len(records), EVENT), 0, 0
    for i in range(0, len(records), CHUNK):
        x, y, high, middle, low = records[i : i + CHUNK].T
        t = (high & 127).astype("i8") << 16 | middle.astype("i4") << 8 | low
        marks = y == OVERFLOW
        keep = slice(None)
        if late or marks.any():
            t += late + (np.cumsum(marks) << 13)
            late, keep = late + (np.count_nonzero(marks) << 13), ~marks
        part = events[count : count + len(marks) - np.count_nonzero(marks)]
        part["t"], part["x"], part["y"], part["p"] = t[keep], x[keep], y[keep], high[keep] >> 7
        count += len(part)
    events["t"][:count] = unwrapped(events["t"][:count], CLOCK)
    broken = len(raw) - loose if loose else None
    where = lambda i: f"at byte {RECORD * np.flatnonzero(records[:, 1] != OVERFLOW)[i]}"
    return Recording(events[:count], NMNIST, where, broken)
