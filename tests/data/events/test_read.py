import io
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spikeback.data import read_events
from spikeback.data.events import EVENT
from spikeback.errors import UsageError

NAMES = ("a.aedat", "a.bin", "a.npz", "a.npy", "a.dat")
MAGIC = (
    b"",
    b"#",
    b"#!AER-DAT2.0\r\n",
    b"#!AER-DAT2.0\n# c\n",
    b"#!AER-DAT3.1\r\n",
    b"PK\x03\x04",
    b"\x93NUMPY\x01\x00",
)
fuzzed = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def columns(**changes: Any) -> dict[str, Any]:
    return {
        "t": np.array([1, 5, 9]),
        "x": np.array([0, 1, 2]),
        "y": np.array([3, 4, 5]),
        "p": np.array([0, 1, 1]),
    } | changes


def npz(folder: Path, **changes: Any) -> Path:
    np.savez(folder / "a.npz", **columns(**changes))
    return folder / "a.npz"


@pytest.mark.parametrize("p", [[0, 1, 1], [-1, 1, 1], [False, True, True], np.array([0, 1, 1], np.uint8)])
def test_npz_reads_back_event_for_event(tmp_path: Path, p: Any) -> None:
    read = read_events(npz(tmp_path, p=np.array(p)))
    assert read.dtype == EVENT
    assert read.tolist() == [(1, 0, 3, 0), (5, 1, 4, 1), (9, 2, 5, 1)]


def test_npz_may_be_compressed_empty_and_of_any_integers(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", **{name: c.astype(np.uint64) for name, c in columns().items()})
    assert len(read_events(tmp_path / "a.npz")) == 3
    assert read_events(npz(tmp_path, **dict.fromkeys("txyp", np.empty(0, int)))).shape == (0,)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": np.array([0, 1])}, r"arrays t \(3,\), x \(2,\)"),
        ({name: np.ones((2, 2), int) for name in "txyp"}, r"t \(2, 2\)"),
        ({"t": np.array([0.001, 0.002, 0.003])}, "has t float64; expected whole numbers, t in microseconds"),
        ({"p": np.array([0, 1, 2])}, "values of p other than 0 and 1"),
        ({"p": np.array([None, 1, 1])}, "cannot be read as .npz"),
        (
            {"y": np.array([0, 70_000, 2], np.uint32)},
            "1 events lie outside 0 to 32766, .* the first number 1, x = 1, y = 70000",
        ),
        (
            {"x": np.array([0, -1, 70_000])},
            "2 events lie outside 0 to 32766, the x and y that any sensor may have, the first number 1, x = -1, y = 4",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=rf"a.npz.*{message}"):
        read_events(npz(tmp_path, **changes))


def test_a_missing_array_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", t=np.arange(3), x=np.arange(3), y=np.arange(3))
    with pytest.raises(UsageError, match=r"a.npz cannot be read as .npz with arrays t, x, y, p: .*p"):
        read_events(tmp_path / "a.npz")


@pytest.mark.parametrize("claimed", [7, 13, 18, 30])
def test_a_header_that_claims_too_much_is_an_error(tmp_path: Path, claimed: int) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<i8", "fortran_order": False, "shape": (10**claimed,)})
    with zipfile.ZipFile(npz(tmp_path), "w") as file:
        for name in "txyp":
            file.writestr(f"{name}.npy", header.getvalue() + bytes(24))
    with pytest.raises(UsageError, match=r"a.npz cannot be read"):
        read_events(tmp_path / "a.npz")


def test_a_given_sensor_bounds_the_events(tmp_path: Path) -> None:
    path = npz(tmp_path)
    assert len(read_events(path, sensor=(6, 3))) == 3
    with pytest.raises(
        UsageError, match="1 events lie outside the sensor of 5 x 3 pixels, the first number 2, x = 2, y = 5"
    ):
        read_events(path, sensor=(5, 3))
    with pytest.warns(UserWarning, match="1 events lie outside .* dropped"):
        assert len(read_events(path, sensor=(5, 3), policy="warn")) == 2


def test_time_that_goes_back_is_refused_or_sorted_with_one_warning(tmp_path: Path) -> None:
    path = npz(tmp_path, t=np.array([5, 6, 4]))
    said = r"a.npz: time goes back 1 times, first at index 2, from 6 to 4 us"
    with pytest.raises(UsageError, match=f"{said}; policy 'warn' sorts them, which is right if several streams were"):
        read_events(path)
    with pytest.warns(UserWarning, match=f"{said}; the events are sorted by time") as warned:
        assert read_events(path, policy="warn")[["t", "x"]].tolist() == [(4, 2), (5, 0), (6, 1)]
    assert len(warned) == 1
    assert warned[0].filename == __file__


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_recording_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(UsageError, match=f"{name} cannot be read: No such file"):
        read_events(path)
    path.touch()
    with pytest.raises(UsageError, match=f"{name} is empty, 0 bytes"):
        read_events(path, policy="warn")
    path.unlink()
    path.mkdir()
    with pytest.raises(UsageError, match=f"{name} is not a file"):
        read_events(path)


def test_a_file_without_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(self: Path, *args: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)  # chmod would not stop an administrator
    with pytest.raises(UsageError, match=r"a.bin cannot be read: Permission denied"):
        read_events(tmp_path / "a.bin")


@pytest.mark.parametrize(
    "options", [{"axes": "xy"}, {"policy": "ignore"}, {"sensor": 128}, {"sensor": (0, 5)}, {"sensor": (4.5, 5)}]
)
def test_unknown_options_are_named(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        read_events(npz(tmp_path), **options)


@pytest.mark.slow
@fuzzed
@given(st.sampled_from(NAMES), st.sampled_from(MAGIC), st.binary(max_size=300), st.sampled_from(["raise", "warn"]))
def test_any_bytes_are_events_or_one_error(tmp_path: Path, name: str, magic: bytes, noise: bytes, policy: Any) -> None:
    (tmp_path / name).write_bytes(magic + noise)
    message = ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            read = read_events(tmp_path / name, policy=policy)
        except UsageError as error:
            message, read = str(error), None
    if read is None:
        assert name in message
        assert "\n" not in message
        return
    assert read.dtype == EVENT
    assert read["x"].min(initial=0) >= 0
    assert read["y"].min(initial=0) >= 0
    assert read["p"].max(initial=0) <= 1


def packed(**changes: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **columns(**changes))
    return buffer.getvalue()


@pytest.mark.slow
@fuzzed
@given(st.data())
def test_a_damaged_npz_is_events_or_one_error(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(packed())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    (tmp_path / "a.npz").write_bytes(content[: data.draw(st.integers(1, len(content)))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            assert read_events(tmp_path / "a.npz").dtype == EVENT
        except UsageError as error:
            message = str(error)
        else:
            return
    assert "a.npz" in message
    assert "\n" not in message


TONIC = np.dtype([("x", int), ("y", int), ("t", int), ("p", int)])


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_tonics_structured_arrays_are_read(tmp_path: Path, name: str) -> None:
    events = np.array([(0, 3, 1, 0), (1, 4, 5, 1), (2, 5, 9, 1)], TONIC)
    (np.save if name == "a.npy" else np.savez)(tmp_path / name, events)
    assert read_events(tmp_path / name).tolist() == [(1, 0, 3, 0), (5, 1, 4, 1), (9, 2, 5, 1)]


def test_arrays_may_have_other_names(tmp_path: Path) -> None:
    names = {"t": "timestamp", "x": "X", "y": "y", "p": "polarity"}
    np.savez(tmp_path / "a.npz", **{names[name]: column for name, column in columns().items()})
    assert read_events(tmp_path / "a.npz").tolist() == [(1, 0, 3, 0), (5, 1, 4, 1), (9, 2, 5, 1)]


def test_columns_without_names_are_refused_and_the_advice_works(tmp_path: Path) -> None:
    a = np.array([[0, 3, 1, 0], [1, 4, 5, 1]])
    np.save(tmp_path / "a.npy", a)
    with pytest.raises(UsageError, match=r"a.npy cannot be read as .npy .*does not say which column is which") as said:
        read_events(tmp_path / "a.npy")
    np.save(tmp_path / "a.npy", eval(str(said.value).rpartition(" make ")[2], {"np": np, "a": a}))
    assert read_events(tmp_path / "a.npy").tolist() == [(1, 0, 3, 0), (5, 1, 4, 1)]


@pytest.mark.parametrize("dtype", [np.uint32, np.int32, ">u4"])
def test_a_clock_of_32_bits_in_arrays_goes_on_where_it_starts_again(tmp_path: Path, dtype: Any) -> None:
    start = 2**31 if dtype == np.int32 else 2**32
    t = np.array([start - 9, start - 1, start + 4])
    assert read_events(npz(tmp_path, t=t.astype(dtype)))["t"].tolist() == t.tolist()
    other = np.array([(t + 2**32 if t < 0 else t, 0, 0, 1) for t in t.astype(dtype).tolist()], EVENT)
    if dtype != np.int32:
        with pytest.raises(UsageError, match=r"add 2\*\*32 to t from there on"):
            read_events(npz(tmp_path, **{name: other[name] for name in "txyp"}))


def test_values_beyond_the_sensor_are_told_as_the_file_has_them(tmp_path: Path) -> None:
    path = npz(tmp_path, x=np.array([0, 1, 2**40]), y=np.array([-7, 4, 5]))
    with pytest.raises(UsageError, match=r"outside the sensor of 9 x 9 pixels, the first number 0, x = 0, y = -7;"):
        read_events(path, sensor=(9, 9))
    with pytest.raises(UsageError, match=rf"1 events .* the first number 2, x = {2**40}, y = 5;"):
        read_events(npz(tmp_path, x=np.array([0, 1, 2**40])), sensor=(9, 9))


@pytest.mark.parametrize(("t", "bits"), [
    ([5, 2**32 - 9, 3], 32),
    ([2**32 - 9, 3, 9, 2**32 - 4, 6], 32),  # twice
    ([2**31 - 9, -(2**31) + 4], 32),
    ([2**31 - 9, 4], 31),
    ([2**16 - 1, 0], 16),
    ([2**32 - 9, 3, 9, 7], None),  # once, and a step that is none
    ([2**31 + 9, 2**30], None),
    ([5, 4], None),
    ([3 * 2**31, 9], None),
    ([2**33, 2**33 - 2**32 + 5], None),  # past the end of a clock of 32 bits
    ([70_000, 70_000 - 2**16 + 9], None),
    ([50_000_000, 0], None),
])  # fmt: skip
def test_a_clock_is_said_to_start_again_only_at_its_end(tmp_path: Path, t: list[int], bits: int | None) -> None:
    many = np.arange(len(t))
    path = npz(tmp_path, t=np.array(t), x=many, y=many, p=many % 2)
    with pytest.raises(UsageError, match="time goes back") as said:
        read_events(path)
    if bits:
        assert f"add 2**{bits} to t from there on, each time" in str(said.value)
        assert "sort" not in str(said.value)  # which would play the end first
        right = np.array(t) + (np.cumsum(np.diff(t, prepend=t[0]) < 0) << bits)
        assert read_events(npz(tmp_path, t=right, x=many, y=many, p=many % 2))["t"].tolist() == right.tolist()
    else:
        assert "a clock of" not in str(said.value)
        assert str(said.value).endswith("policy 'warn' sorts them, which is right if several streams were merged")


@pytest.mark.parametrize("policy", ["raise", "warn"])
def test_losing_most_events_is_an_error_that_names_the_sensor(tmp_path: Path, policy: Any) -> None:
    path = npz(tmp_path)
    with pytest.raises(
        UsageError, match=r"2 events lie outside the sensor of 6 x 1 .* sensor=\(6, 3\) \(rec.* would hold them"
    ):
        read_events(path, sensor=(6, 1), policy=policy)
    assert len(read_events(path, sensor=(6, 3), policy=policy)) == 3
    with pytest.raises(UsageError, match=r"no sensor=\(height, width\) would hold them"):
        read_events(npz(tmp_path, x=np.array([-1, 40_000, 1])), policy=policy)


def test_losing_most_of_a_file_is_an_error_under_either_policy(tmp_path: Path) -> None:
    path = tmp_path / "a.aedat"
    head = b"#!AER-DAT3.1\r\n#!END-HEADER\r\n" + np.array([1 | 1 << 16, 8, 4, 0, 100, 100, 100], "<u4").tobytes()
    path.write_bytes(head + bytes(100 * 8 - 1))
    with pytest.raises(UsageError, match="byte 28 is incomplete or damaged, 827 bytes from the end; fetch or record"):
        read_events(path, policy="warn")
