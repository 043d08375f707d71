"""N-MNIST's binary files, a format shared by N-Caltech101."""

from pathlib import Path

import numpy as np

from spikeback.data.events.dtype import EVENT, Recording

NMNIST = (34, 34)
RECORD = 5  # bytes an event: x, y, then 1 bit polarity (1 = ON) and 23 bits time in microseconds, big-endian
OVERFLOW = 240  # the y that marks no event, but that 2**13 us are to be added to every later time stamp
CHUNK = 1 << 15  # events decoded at a time: they stay in the processor's cache


def read_nmnist(path: Path) -> Recording:
    """Decode one .bin file. Source: Orchard et al. 2015 and the authors' Read_Ndataset."""
    raw = np.fromfile(path, "u1")
    loose = len(raw) % RECORD
    records = raw[: len(raw) - loose].reshape(-1, RECORD)
    events = np.empty(len(records), EVENT)
    for i in range(0, len(records), CHUNK):
        part = events[i : i + CHUNK]
        part["x"], part["y"], high, middle, low = records[i : i + CHUNK].T
        part["p"] = high >> 7
        part["t"] = (high & 127).astype("i4") << 16 | middle.astype("i4") << 8 | low
    marks = events["y"] == OVERFLOW
    if marks.any():
        events["t"] += np.cumsum(marks) << 13
        events = events[~marks]
    broken = len(raw) - loose if loose else None
    return Recording(events, NMNIST, lambda i: f"at byte {RECORD * np.flatnonzero(~marks)[i]}", broken)
