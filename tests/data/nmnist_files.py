"""Writes N-MNIST's recordings event by event: x, y, then polarity (1 bit) and microseconds (23 bits), big-endian."""

from collections.abc import Sequence
from pathlib import Path

Event = tuple[int, int, int, int]  # t, x, y, p
MARK = bytes([7, 240, 0, 0, 0])  # y = 240: no event, but 8192 microseconds more for all that follow


def record(event: Event) -> bytes:
    t, x, y, p = event
    return bytes([x, y]) + (p << 23 | t).to_bytes(3, "big")


def write(path: Path, events: Sequence[Event]) -> Path:
    path.write_bytes(b"".join(map(record, events)))
    return path
