"""AEDAT 3.1, as caer writes it and DVS128 Gesture is published."""

import struct
from bisect import bisect_right
from pathlib import Path

import numpy as np

from spikeback.data.events.clock import unwrapped
from spikeback.data.events.dtype import EVENT, Recording
from spikeback.errors import UsageError

HEADER = struct.Struct("<HHIIIIII")  # type, source, event's bytes, place of its time, overflow, capacity, number, valid
POLARITY = 1  # the type of packet that holds events
RECORD = 8  # bytes an event: little-endian uint32 data, little-endian uint32 time stamp in microseconds
CLOCK = 31  # bits of a time stamp, where no counter goes on with it
BITS = 0x7FFF  # of a coordinate


def read_aedat3(path: Path) -> Recording:
    """Decode an AEDAT 3.1 file: lines that start with '#', then packets, of which those of other kinds are skipped.

    Bits of an event's data: 0 valid, 1 polarity (1 is ON), 2 to 16 y, 17 to 31 x. Events marked as invalid are left
    out. The packet's overflow counter is added to the time as bit 31; where it does not count, time goes on all the
    same. Source: iniVation's AEDAT 3.1 specification.
    A packet that breaks off ends the recording. Raises UsageError for another version or a header that does not end.
    """
    content = path.read_bytes()
    packets, end = _packets(path, content)
    events, counts = np.empty(sum(capacity for _, capacity, _ in packets), EVENT), [0]
    for start, capacity, overflow in packets:
        data, time = np.frombuffer(content, "<u4", 2 * capacity, start).reshape(-1, 2).T
        if not (valid := data & 1).all():
            data, time = data[valid > 0], time[valid > 0]
        part = events[counts[-1] : counts[-1] + len(data)]
        part["t"], part["p"] = time.astype("i8") + (overflow << CLOCK), data >> 1 & 1
        part["x"], part["y"] = data >> 17, data >> 2 & BITS
        counts.append(counts[-1] + len(data))

    events["t"][: counts[-1]] = unwrapped(events["t"][: counts[-1]], CLOCK)

    def place(event: int) -> str:
        packet = bisect_right(counts, event) - 1
        start, capacity, _ = packets[packet]
        valid = np.flatnonzero(np.frombuffer(content, "<u4", 2 * capacity, start)[::2] & 1)
        return f"at byte {start + RECORD * valid[event - counts[packet]]}"

    return Recording(events[: counts[-1]], None, place, end if end < len(content) else None)


def _packets(path: Path, content: bytes) -> tuple[list[tuple[int, int, int]], int]:
    """(first byte of its events, their number, overflow counter) of each packet of events; where the last one ends."""
    packets, begin = [], _end_of_header(path, content)
    while begin + HEADER.size <= len(content):
        kind, _, size, _, overflow, capacity, _, _ = HEADER.unpack_from(content, begin)
        start = begin + HEADER.size
        if start + size * capacity > len(content):
            break
        if kind == POLARITY:
            if size != RECORD:
                raise UsageError(f"{path} has events of {size} bytes at byte {begin}; expected {RECORD}")
            packets.append((start, capacity, overflow))
        begin = start + size * capacity
    return packets, begin


def _end_of_header(path: Path, content: bytes) -> int:
    if not content.startswith(b"#!AER-DAT3.1"):
        raise UsageError(f"{path} starts with {content[:12]!r} at byte 0; expected #!AER-DAT3.1")
    mark = b"#!END-HEADER\r\n"
    start = 0
    while content.startswith(b"#", start):
        end = content.find(b"\n", start) + 1
        if not end:
            raise UsageError(f"{path} breaks off at byte {len(content)}, in its header; fetch the file again")
        if content[start:end] == mark:
            return end
        start = end
    return start
