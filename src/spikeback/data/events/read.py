"""Recordings of event cameras, whatever their format."""

import warnings
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from spikeback.data.events.aedat import Axes, read_aedat2, read_aedat4
from spikeback.data.events.aedat3 import read_aedat3
from spikeback.data.events.dtype import EVENT, FAR, Recording, Sensor, checked_size
from spikeback.data.events.nmnist import read_nmnist
from spikeback.errors import UsageError
from spikeback.files import as_path
from spikeback.values import instead

Policy = Literal["raise", "warn"]
FORMATS = "AEDAT 2.0, 3.1 or 4, N-MNIST's .bin or .npz with arrays t, x, y, p"


def read_events(
    path: str | Path, axes: Axes = "jaer", sensor: Sensor | None = None, policy: Policy = "raise"
) -> np.ndarray:
    """Read a recording: a structured array (N,) of EVENT, t int64 in microseconds, x and y int16, p uint8, 1 = ON.

    Formats: AEDAT 2.0 of a DVS128 (the original CIFAR10-DVS), AEDAT 3.1 (DVS128 Gesture), AEDAT 4 (needs
    `pip install 'spikeback[events]'`), N-MNIST's .bin, and .npz with integer arrays t, x, y, p. Events stay in the
    file's order. A recording without events (a header alone, arrays of length 0) is an empty array; a file without a
    byte is an error.

    Args:
        path: the file.
        axes: of AEDAT 2.0 alone: "jaer", or "spikingjelly", whose (x, y) is (127 - y, x) of the other.
        sensor: (height, width) that all events must lie in; None: the format's (AEDAT 2.0: 128 x 128, .bin: 34 x 34) or
            the header's (AEDAT 4); AEDAT 3.1 and .npz have none.
        policy: "raise" an error at a record that is broken and at events outside the sensor, or "warn" once, with their
            number, and drop them. Time that goes backwards is kept, with one warning.

    Raises:
        UsageError: the file is missing, unreadable, empty or in no known format; or as `policy` says, naming the place.
    """
    for name, value, choices in (("axes", axes, get_args(Axes)), ("policy", policy, get_args(Policy))):
        if value not in choices:
            raise UsageError(f"{name} {value!r} is unknown{instead(value, choices)}")
    path, sensor = as_path(path), None if sensor is None else checked_size(sensor, "sensor")
    try:
        recording = _decode(path, axes)
    except (OSError, MemoryError) as error:
        raise UsageError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    events, problems = _inside(recording, sensor or recording.sensor)
    if recording.broken is not None:
        rest = path.stat().st_size - recording.broken
        problems.append(f"the record at byte {recording.broken} is incomplete or damaged, {rest} bytes from the end")
    if problems and policy == "raise":
        raise UsageError(f"{path}: {'; '.join(problems)}; policy 'warn' would drop them")
    if problems:
        warnings.warn(f"{path}: {'; '.join(problems)}; dropped", stacklevel=2)
    if backwards := np.count_nonzero(events["t"][1:] < events["t"][:-1]):
        warnings.warn(f"{path}: time goes backwards {backwards} times; events stay in the file's order", stacklevel=2)
    return events


def _decode(path: Path, axes: Axes) -> Recording:
    """Choose the format by the first bytes, then by the name."""
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is not a file; expected {FORMATS}")
    with path.open("rb") as file:
        magic = file.read(14)
    if not magic:
        raise UsageError(f"{path} is empty, 0 bytes; expected {FORMATS}")
    suffix = path.suffix.lower()
    if suffix == ".bin":  # has no magic: its first byte may be any x
        return read_nmnist(path)
    if magic.startswith(b"#!AER-DAT3"):
        return read_aedat3(path)
    if magic.startswith(b"#!AER-DAT4"):
        return read_aedat4(path)
    if magic.startswith(b"#") or suffix == ".aedat":
        return read_aedat2(path, axes)
    if suffix == ".npz":
        return _read_npz(path)
    raise UsageError(f"{path} begins with {magic!r} at byte 0; expected {FORMATS}")


def _read_npz(path: Path) -> Recording:
    """Arrays t, x, y, p of equal length, whole numbers; p is a truth value, 0 and 1, or -1 and 1."""
    try:
        with np.load(path) as file:
            columns = {name: file[name] for name in EVENT.names or ()}
    except Exception as error:  # a broken archive raises whatever its decoder meets first
        raise UsageError(f"{path} cannot be read as .npz with arrays t, x, y, p: {error}") from None
    if len({column.shape for column in columns.values()}) > 1 or columns["t"].ndim != 1:
        shapes = ", ".join(f"{name} {column.shape}" for name, column in columns.items())
        raise UsageError(f"{path} has arrays {shapes}; expected one dimension and equal lengths")
    if odd := [f"{name} {column.dtype}" for name, column in columns.items() if column.dtype.kind not in "iub"]:
        raise UsageError(f"{path} has {', '.join(odd)}; expected whole numbers, t in microseconds")
    if not np.isin(columns["p"], (-1, 0, 1)).all():
        raise UsageError(f"{path} has values of p other than 0 and 1, or -1 and 1")
    events = np.empty(len(columns["t"]), EVENT)
    events["t"], events["p"] = columns["t"], columns["p"] > 0
    for name in "xy":
        events[name] = columns[name].clip(-1 if columns[name].dtype.kind == "i" else 0, FAR)
    return Recording(events, None, lambda i: f"number {i}")


def _inside(recording: Recording, sensor: Sensor | None) -> tuple[np.ndarray, list[str]]:
    """The events that lie inside the sensor, and what is to be said about the others."""
    events, (height, width) = recording.events, sensor or (FAR, FAR)
    x, y = events["x"], events["y"]
    outside = (x.view("u2") >= width) | (y.view("u2") >= height)  # as unsigned numbers, negative ones are large
    if not (count := np.count_nonzero(outside)):
        return events, []
    first = int(outside.argmax())
    place = f"the first {recording.where(first)}, x = {x[first]}, y = {y[first]}"
    return events[~outside], [f"{count} events lie outside the sensor of {height} x {width} pixels, {place}"]
