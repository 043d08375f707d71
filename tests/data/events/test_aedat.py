import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from time import process_time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spikeback.data import read_events
from spikeback.data.events import EVENT
from spikeback.errors import UsageError

MINIMAL = b"#!AER-DAT2.0\r\n"
HEADERS = {
    "minimal": MINIMAL,
    "jAER": MINIMAL + b"# This is a raw AE data file - do not edit\r\n"
    b"# Data format is int32 address, int32 timestamp (8 bytes total), repeated for each event\r\n"
    b"# Timestamps tick is 1 us\r\n# created Thu Apr 07 15:06:24 CEST 2016\r\n"
    b"# AEChip: ch.unizh.ini.jaer.chip.retina.DVS128\r\n",
    "Unix line ends": b"#!AER-DAT2.0\n# a comment\n#\n#without a blank\n",
    "version not first": b"# a comment, 1 \xb5s\r\n#!AER-DAT2.0\r\n#End Of ASCII Header\r\n",
}
Event = tuple[int, int, int, int]  # t, x, y, p in jAER's axes
events_of_a_dvs128 = st.lists(st.tuples(st.integers(0, 2**32 - 1), *[st.integers(0, 127)] * 2, st.integers(0, 1)))
fuzzed = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def aedat2(events: Sequence[Event]) -> bytes:
    """The camera's bytes for these events, written one by one."""
    return b"".join(struct.pack(">II", y << 8 | (127 - x) << 1 | (1 - p), t) for t, x, y, p in events)


def in_order(events: Sequence[Event]) -> list[Event]:
    return sorted(events, key=lambda event: event[0])


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(content: bytes, name: str = "recording.aedat") -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
@fuzzed
@given(events_of_a_dvs128)
def test_aedat2_reads_back_event_for_event(write: Callable[..., Path], header: bytes, events: list[Event]) -> None:
    read = read_events(write(header + aedat2(in_order(events))))
    assert read.dtype == EVENT
    assert read.tolist() == in_order(events)


@fuzzed
@given(st.binary(max_size=400))
def test_spikingjelly_decodes_the_same_up_to_the_axes(write: Callable[..., Path], noise: bytes) -> None:
    words = np.frombuffer(noise[: len(noise) // 8 * 8], ">u4").reshape(-1, 2) & (0x7FFF, 0xFFFFFFFF)
    words = words[np.argsort(words[:, 1])].astype(">u4")
    # as SpikingJelly publishes it, for CIFAR10-DVS
    address, t = words.T
    polarity, x, y = address & 1, (address & 0xFE) >> 1, (address & 0x7F00) >> 8
    theirs = {"t": t, "x": 127 - y, "y": 127 - x, "p": 1 - polarity}

    path = write(MINIMAL + words.tobytes())
    same, jaer = read_events(path, axes="spikingjelly"), read_events(path)
    for field, column in theirs.items():
        assert np.array_equal(same[field], column)
    assert np.array_equal(jaer["x"], theirs["y"])
    assert np.array_equal(jaer["y"], 127 - theirs["x"])
    assert np.array_equal(jaer[["t", "p"]], same[["t", "p"]])


def test_more_events_than_are_decoded_at_a_time(write: Callable[..., Path]) -> None:
    rng = np.random.default_rng(0)
    words = np.stack([rng.integers(0, 1 << 15, 100_000), np.arange(100_000)], 1)
    read = read_events(write(MINIMAL + words.astype(">u4").tobytes()))
    assert np.array_equal(read["t"], words[:, 1])
    assert np.array_equal((127 - read["x"]) << 1 | read["y"].astype(int) << 8 | 1 - read["p"], words[:, 0])


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_a_header_alone_is_a_recording_without_events(write: Callable[..., Path], header: bytes) -> None:
    read = read_events(write(header))
    assert (read.shape, read.dtype) == ((0,), EVENT)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"#!AER-DAT1.0\r\n" + bytes(6), "names its version #!AER-DAT1.0 in bytes 0 to 14"),
        (b"# only a comment\r\n" + bytes(8), "names no version in bytes 0 to 18"),
        (bytes(16), "names no version in bytes 0 to 0"),
        (MINIMAL + b"# the disk was fu", "the header line at byte 14 has no end"),
        (MINIMAL + b"#" + bytes(7) + b"\n" + bytes(7), "the header line at byte 14 has no end or is not text"),
    ],
    ids=["version 1", "no version", "no header", "breaks off", "an event that looks like a comment"],
)
def test_a_wrong_header_is_named(write: Callable[..., Path], content: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_events(write(content))


@pytest.mark.parametrize("bit", range(15, 32))
def test_an_address_with_a_high_bit_is_no_pixel(write: Callable[..., Path], bit: int) -> None:
    path = write(MINIMAL + aedat2([(1, 2, 3, 1)]) + struct.pack(">II", 1 << bit, 5) + aedat2([(9, 8, 7, 0)]))
    for axes in ("jaer", "spikingjelly"):
        with pytest.raises(
            UsageError, match="1 events lie outside the sensor of 128 x 128 pixels, the first at byte 22"
        ):
            read_events(path, axes=axes)
    with pytest.warns(UserWarning, match="1 events lie outside"):
        assert read_events(path, policy="warn").tolist() == [(1, 2, 3, 1), (9, 8, 7, 0)]


@pytest.mark.parametrize("left", range(1, 8))
def test_a_record_that_breaks_off_is_named(write: Callable[..., Path], left: int) -> None:
    path = write(MINIMAL + aedat2([(1, 2, 3, 1)]) + bytes(left))
    with pytest.raises(UsageError, match=rf"recording.aedat: the record at byte 22 is incomplete .* {left} bytes"):
        read_events(path)
    with pytest.warns(UserWarning, match="byte 22"):
        assert read_events(path, policy="warn").tolist() == [(1, 2, 3, 1)]


def test_ten_million_events_take_less_than_half_a_second(write: Callable[..., Path]) -> None:
    words = np.arange(20_000_000, dtype=">u4").reshape(-1, 2)
    words[:, 0] &= 0x7FFF
    path = write(MINIMAL + words.tobytes())
    seconds = []
    for _ in range(5):
        start = process_time()  # not that of others who are at work on this machine
        assert len(read_events(path)) == 10_000_000
        seconds.append(process_time() - start)
    assert min(seconds) < 0.5
