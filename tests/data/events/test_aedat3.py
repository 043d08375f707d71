import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spikeback.data.events import read_events
from spikeback.errors import UsageError

HEADER = b"#!AER-DAT3.1\r\n#Format: RAW\r\n# any comment\r\n#!END-HEADER\r\n"
Event = tuple[int, int, int, int]


def packet(events: list[Event], overflow: int = 0, kind: int = 1, valid: int = 1) -> bytes:
    """A packet of (t, x, y, p), little-endian throughout."""
    head = struct.pack("<HHIIIIII", kind, 1, 8, 4, overflow, len(events), len(events), len(events))
    return head + b"".join(struct.pack("<II", x << 17 | y << 2 | p << 1 | valid, t) for t, x, y, p in events)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.lists(
            st.tuples(st.integers(0, 2**31 - 1), st.integers(0, 127), st.integers(0, 127), st.integers(0, 1)),
            max_size=6,
        ),
        max_size=4,
    )
)
def test_every_event_of_every_packet_comes_back(tmp_path: Path, packets: list[list[Event]]) -> None:
    times = iter(sorted(event[0] for events in packets for event in events))
    packets = [[(next(times), *event[1:]) for event in events] for events in packets]
    (tmp_path / "a.aedat").write_bytes(HEADER + b"".join(map(packet, packets)))
    read = read_events(tmp_path / "a.aedat", sensor=(128, 128))
    assert read.tolist() == [event for events in packets for event in events]


def test_other_packets_and_invalid_events_are_left_out_and_time_goes_on_after_31_bits(tmp_path: Path) -> None:
    path = tmp_path / "a.aedat"
    path.write_bytes(
        HEADER
        + packet([(2**31 - 1, 1, 2, 1)])
        + packet([(5, 9, 9, 1)], kind=0)
        + packet([(6, 9, 9, 1)], valid=0)
        + packet([(7, 3, 4, 0)], overflow=1)
    )
    assert read_events(path).tolist() == [(2**31 - 1, 1, 2, 1), (2**31 + 7, 3, 4, 0)]


def test_a_recording_of_a_header_alone_is_empty(tmp_path: Path) -> None:
    (tmp_path / "a.aedat").write_bytes(HEADER)
    assert len(read_events(tmp_path / "a.aedat")) == 0


def test_a_packet_that_breaks_off_is_named_by_its_byte(tmp_path: Path) -> None:
    path, whole = tmp_path / "a.aedat", HEADER + packet([(1, 2, 3, 1)])
    for cut in range(1, 36):
        path.write_bytes(whole + packet([(4, 5, 6, 0)])[:cut])
        with pytest.raises(UsageError, match=rf"a\.aedat: .* byte {len(whole)} "):
            read_events(path)
    with pytest.warns(UserWarning, match=f"byte {len(whole)} "):
        assert read_events(path, policy="warn").tolist() == [(1, 2, 3, 1)]


def test_an_event_outside_the_sensor_is_named_by_its_byte(tmp_path: Path) -> None:
    path = tmp_path / "a.aedat"
    path.write_bytes(HEADER + packet([(0, 9, 9, 1)], valid=0) + packet([(1, 2, 3, 1), (4, 128, 6, 0)]))
    with pytest.raises(UsageError, match=rf"at byte {len(HEADER) + 36 + 28 + 8}, x = 128, y = 6"):
        read_events(path, sensor=(128, 128))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HEADER.replace(b"3.1", b"3.2"), "starts with b'#!AER-DAT3.2' at byte 0; expected #!AER-DAT3.1"),
        (HEADER[:20], "breaks off at byte 20, in its header"),
        (HEADER + struct.pack("<HHIIIIII", 1, 1, 12, 4, 0, 0, 0, 0), f"events of 12 bytes at byte {len(HEADER)}"),
    ],
)
def test_what_is_no_such_recording_is_said(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.aedat").write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_events(tmp_path / "a.aedat")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=120))
def test_garbage_is_an_error_or_events_inside_the_sensor(tmp_path: Path, garbage: bytes) -> None:
    path = tmp_path / "a.aedat"
    path.write_bytes(HEADER + garbage)
    message = ""
    try:
        events = read_events(path, sensor=(128, 128))
        assert np.all((events["x"] < 128) & (events["y"] < 128))
    except UsageError as error:
        message = str(error)
    assert not message or ("a.aedat" in message and "\n" not in message)


def test_time_goes_on_where_no_counter_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.aedat"
    path.write_bytes(HEADER + packet([(2**31 - 5, 1, 2, 1), (3, 3, 4, 0)]) + packet([(9, 5, 6, 1)]))
    assert read_events(path)["t"].tolist() == [2**31 - 5, 2**31 + 3, 2**31 + 9]
