"""AEDAT 4, whose flatbuffers are laid out here by hand from DV's schemas."""

import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spikeback.data import read_events
from spikeback.data.events import EVENT, aedat
from spikeback.errors import UsageError

Event = tuple[int, int, int, int]
STREAM = """<node name="{id}" path="/mainloop/Recorder/outInfo/{id}/">
<attr key="typeIdentifier" type="string">{kind}</attr>
<node name="info"><attr key="sizeX" type="int">40</attr><attr key="sizeY" type="int">30</attr></node></node>"""
FIRST, SECOND = [(10, 0, 0, 1), (11, 39, 29, 0)], [(2**40, 5, 6, 1)]


def header(*kinds: str, end: int = -1) -> bytes:
    """IOHeader {compression: int32 = none; file_data_position: int64; description: string}, as in ioheader.fbs."""
    streams = "".join(STREAM.format(id=i, kind=kind) for i, kind in enumerate(kinds))
    text = f'<dv version="2.0"><node name="outInfo" path="/mainloop/Recorder/outInfo/">{streams}</node></dv>'.encode()
    vtable = struct.pack("<5H2x", 10, 20, 12, 4, 16)
    table = struct.pack("<iqiI", 12, end, 0, 4) + struct.pack("<I", len(text)) + text + b"\0"
    body = struct.pack("<I4s", 20, b"IOHE") + vtable + table
    return b"#!AER-DAT4.0\r\n" + struct.pack("<I", len(body)) + body


def packet(stream: int, events: Sequence[Event], kind: bytes = b"EVTS") -> bytes:
    """EventPacket {elements: [Event {t: int64; x, y: int16; on: bool}]}, size-prefixed, as in events.fbs."""
    elements = b"".join(struct.pack("<qhh?3x", t, x, y, bool(p)) for t, x, y, p in events)
    body = struct.pack("<I4s3H2xiII", 16, kind, 6, 8, 4, 8, 4, len(events)) + elements
    return struct.pack("<iII", stream, 4 + len(body), len(body)) + body


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(content: bytes) -> Path:
        path = tmp_path / "recording.aedat4"
        path.write_bytes(content)
        return path

    return write


def test_events_read_back_event_for_event(write: Callable[[bytes], Path]) -> None:
    read = read_events(write(header("EVTS") + packet(0, FIRST) + packet(0, []) + packet(0, SECOND)))
    assert read.dtype == EVENT
    assert read.tolist() == FIRST + SECOND
    read["t"] -= read["t"][0]  # writable


def test_packets_end_where_the_header_says(write: Callable[[bytes], Path]) -> None:
    packets = packet(0, FIRST)
    start = len(header("EVTS"))
    content = header("EVTS", end=start + len(packets)) + packets + b"the table of the file's data"
    assert read_events(write(content)).tolist() == FIRST
    assert read_events(write(header("EVTS", end=0) + packets)).tolist() == FIRST  # never filled in


def test_only_the_first_stream_of_events_is_read(write: Callable[[bytes], Path]) -> None:
    content = header("TRIG", "EVTS", "EVTS") + packet(2, SECOND) + packet(1, FIRST) + packet(0, [], b"TRIG")
    assert read_events(write(content)).tolist() == FIRST


def test_a_header_alone_is_a_recording_without_events(write: Callable[[bytes], Path]) -> None:
    assert read_events(write(header("EVTS"))).shape == (0,)


def test_a_file_without_events_is_named(write: Callable[[bytes], Path]) -> None:
    with pytest.raises(UsageError, match=r"recording.aedat4 holds no stream of events"):
        read_events(write(header("TRIG")))


def test_an_event_outside_the_headers_sensor_is_named(write: Callable[[bytes], Path]) -> None:
    inside = [*FIRST, (11, 0, 0, 1)]
    path = write(header("EVTS") + packet(0, [*inside, (12, 40, 0, 1), (13, 0, 30, 1), (14, -1, 0, 1)]))
    with pytest.raises(
        UsageError, match="3 events lie outside the sensor of 30 x 40 pixels, the first number 3, x = 40"
    ):
        read_events(path)
    with pytest.warns(UserWarning, match="3 events lie outside"):
        assert read_events(path, policy="warn").tolist() == inside
    assert len(read_events(write(header("EVTS") + packet(0, [(12, 40, 0, 1)])), sensor=(30, 41))) == 1


@pytest.mark.slow
def test_damage_is_named_by_the_byte_its_packet_begins_at(write: Callable[[bytes], Path]) -> None:
    begin = len(header("EVTS") + packet(0, FIRST))
    whole = header("EVTS", end=begin + len(packet(0, SECOND))) + packet(0, FIRST) + packet(0, SECOND)
    damaged = whole[: begin + 30] + b"\xff\xff" + whole[begin + 32 :]
    for content in (whole[:-1], whole[: begin + 9], whole[: begin + 5], whole[:begin], damaged):
        path = write(content)
        with pytest.raises(UsageError, match=f"recording.aedat4: the record at byte {begin} is incomplete or damaged"):
            read_events(path)
        with pytest.warns(UserWarning, match=f"byte {begin}"):
            assert read_events(path, policy="warn").tolist() == FIRST


@pytest.mark.parametrize("length", [13, 14, 17, 18, 30, 60])
def test_a_header_that_breaks_off_is_named(write: Callable[[bytes], Path], length: int) -> None:
    with pytest.raises(UsageError, match="header"):
        read_events(write(header("EVTS")[:length]))


def test_a_damaged_header_does_not_end_the_process(write: Callable[[bytes], Path]) -> None:
    content = header("EVTS") + packet(0, FIRST)
    far = content[:60] + b"\xff" + content[61:]  # the description now begins 16 MB further on
    with pytest.raises(UsageError, match=r"its header, from byte 14 on, gives: .* out of range"):
        read_events(write(far))
    with pytest.raises(UsageError, match=r"its header, from byte 14 on, gives: .*aborting"):
        read_events(write(content.replace(b"<dv", b"<\xcav")))  # not UTF-8


def test_without_the_reader_the_extra_is_named(write: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aedat, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'spikeback\[events\]'"):
        read_events(write(header("EVTS")))


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_packets_are_found_or_refused_in_any_bytes(write: Callable[[bytes], Path], data: st.DataObject) -> None:
    content = bytearray(header("EVTS") + packet(0, FIRST) + packet(0, SECOND))
    for place in data.draw(st.lists(st.integers(14, len(content) - 1), max_size=6)):
        content[place] = data.draw(st.sampled_from([0, 1, 127, 128, 255]))
    path = write(bytes(content[: data.draw(st.integers(14, len(content)))]))
    try:
        starts = aedat._packets(path)
    except UsageError:
        return
    assert starts == sorted(set(starts))
    assert all(start <= path.stat().st_size for start in starts)


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_damage_is_an_error_or_a_recording(write: Callable[[bytes], Path], data: st.DataObject) -> None:
    content = bytearray(header("EVTS") + packet(0, FIRST) + packet(0, SECOND))
    for place in data.draw(st.lists(st.integers(14, len(content) - 1), min_size=1, max_size=4)):
        content[place] = data.draw(st.sampled_from([0, 1, 127, 128, 255]))
    try:
        assert read_events(write(bytes(content)), sensor=(1000, 1000)).dtype == EVENT
    except UsageError as error:
        message = str(error)
    else:
        return
    assert "recording.aedat4" in message
    assert "\n" not in message


@pytest.mark.filterwarnings("error")
def test_a_real_recording(real_data: Path) -> None:
    read = read_events(real_data / "events" / "sample.aedat4")
    assert len(read) == 111_954
    assert read[0].tolist() == (1605537493718345, 154, 204, 0)
    assert 0.4 < read["p"].mean() < 0.6
    assert (read["x"].max(), read["y"].max()) == (319, 239)
    assert np.all(np.diff(read["t"]) >= 0)
