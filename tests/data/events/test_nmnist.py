from pathlib import Path
from time import process_time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spikeback.data import read_events
from spikeback.errors import UsageError

from ..nmnist_files import MARK, Event, record, write

events_of_an_atis = st.lists(st.tuples(st.integers(0, 2**23 - 1), *[st.integers(0, 33)] * 2, st.integers(0, 1)))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events_of_an_atis.filter(len))
def test_events_read_back_event_for_event(tmp_path: Path, events: list[Event]) -> None:
    events = sorted(events, key=lambda event: event[0])
    assert read_events(write(tmp_path / "00001.bin", events)).tolist() == events


def test_every_overflow_marker_adds_8192_microseconds_to_what_follows(tmp_path: Path) -> None:
    path = tmp_path / "00001.bin"
    path.write_bytes(
        record((5, 1, 2, 1)) + MARK + record((6, 3, 4, 0)) + MARK + MARK + record((7, 5, 6, 1)) + record((8, 7, 8, 0))
    )
    late = 2**13
    assert read_events(path).tolist() == [
        (5, 1, 2, 1),
        (6 + late, 3, 4, 0),
        (7 + 3 * late, 5, 6, 1),
        (8 + 3 * late, 7, 8, 0),
    ]


def test_markers_alone_are_a_recording_without_events(tmp_path: Path) -> None:
    (tmp_path / "00001.bin").write_bytes(3 * MARK)
    assert read_events(tmp_path / "00001.bin").shape == (0,)


def test_more_events_than_are_decoded_at_a_time(tmp_path: Path) -> None:
    records = np.random.default_rng(0).integers(0, 34, (100_000, 5), dtype=np.uint8)
    records[:, 2:] = (np.arange(100_000)[:, None] >> np.array([16, 8, 0])) & 255
    records.tofile(tmp_path / "00001.bin")
    read = read_events(tmp_path / "00001.bin")
    assert np.array_equal(read["t"], np.arange(100_000))
    assert np.array_equal(np.stack([read["x"], read["y"]], 1), records[:, :2])


@pytest.mark.slow
def test_ten_million_events_take_less_than_half_a_second(tmp_path: Path) -> None:
    records = np.zeros((10_000_000, 5), np.uint8)
    records[::1000, 1] = 240
    records.tofile(tmp_path / "00001.bin")
    seconds = []
    for _ in range(5):
        start = process_time()  # not that of others who are at work on this machine
        read = read_events(tmp_path / "00001.bin")
        seconds.append(process_time() - start)
        assert (len(read), read["t"][-1]) == (9_990_000, 10_000 << 13)
    assert min(seconds) < 0.5


def test_places_in_the_file_count_the_markers(tmp_path: Path) -> None:
    path = tmp_path / "00001.bin"
    path.write_bytes(record((5, 1, 2, 1)) + MARK + record((6, 34, 4, 0)) + record((7, 1, 1, 1)) + b"abc")
    message = (
        r"00001.bin: 1 events lie outside the sensor of 34 x 34 pixels, the first at byte 10, x = 34, y = 4; "
        r"the record at byte 20 is incomplete or damaged, 3 bytes from the end"
    )
    with pytest.raises(UsageError, match=message):
        read_events(path)
    with pytest.warns(UserWarning, match=message) as warned:
        assert read_events(path, policy="warn").tolist() == [(5, 1, 2, 1), (7 + 2**13, 1, 1, 1)]
    assert len(warned) == 1


def test_a_larger_sensor_admits_its_events(tmp_path: Path) -> None:
    path = write(tmp_path / "image_0001.bin", [(1, 239, 179, 1)])
    assert read_events(path, sensor=(180, 240)).tolist() == [(1, 239, 179, 1)]


def test_a_real_recording(real_data: Path) -> None:
    read = read_events(real_data / "events" / "sample_nmnist.bin")
    assert len(read) == 4325
    assert read[0].tolist() == (654, 7, 15, 1)
    assert 300_000 < read["t"][-1] < 320_000  # three saccades of 100 ms


def test_time_goes_on_where_the_clock_of_23_bits_starts_again(tmp_path: Path) -> None:
    path = write(tmp_path / "00001.bin", [(2**23 - 5, 1, 2, 1), (3, 3, 4, 0), (9, 5, 6, 1)])
    assert read_events(path)["t"].tolist() == [2**23 - 5, 2**23 + 3, 2**23 + 9]


def test_a_recording_of_a_larger_camera_is_told_the_sensor_that_holds_it(tmp_path: Path) -> None:
    path = write(tmp_path / "image_0001.bin", [(i, 60 + i, 179, 1) for i in range(180)])
    for policy in ("raise", "warn"):
        with pytest.raises(UsageError, match=r"180 events lie outside .* sensor=\(180, 240\) \(rec.* would hold them"):
            read_events(path, policy=policy)  # type: ignore[arg-type]
    assert len(read_events(path, sensor=(180, 240))) == 180
