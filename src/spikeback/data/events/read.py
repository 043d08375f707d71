"""Recordings of event cameras, whatever their format."""

import warnings
from pathlib import Path
from typing import get_args

import numpy as np

from spikeback.data.events.aedat import read_aedat4
from spikeback.data.events.aedat2 import Axes, read_aedat2
from spikeback.data.events.aedat3 import read_aedat3
from spikeback.data.events.clock import Policy, ordered
from spikeback.data.events.columns import read_arrays
from spikeback.data.events.dtype import FAR, Recording, Sensor, Size, checked_size, option
from spikeback.data.events.nmnist import read_nmnist
from spikeback.errors import UsageError
from spikeback.files import as_path
from spikeback.values import instead

SUFFIXES = (".aedat", ".aedat2", ".aedat4", ".npz", ".npy", ".bin")
FORMATS = "AEDAT 2.0, 3.1 or 4, N-MNIST's .bin, .npz with arrays t, x, y, p or .npy with a structured array of these"
REMEDY = "policy 'warn' would drop them"


def read_events(
    path: str | Path, axes: Axes = "jaer", sensor: Size | None = None, policy: Policy = "raise"
) -> np.ndarray:
    """Read a recording: a structured array (N,) of EVENT, t int64 in microseconds, x and y int16, p uint8, 1 = ON.

    Formats: AEDAT 2.0 of a DVS128 (the original CIFAR10-DVS) or of a DAVIS, AEDAT 3.1 (DVS128 Gesture), AEDAT 4 (needs
    `pip install 'spikeback[events]'`), N-MNIST's .bin, .npz with integer arrays t, x, y, p, and structured arrays with
    such fields, as tonic has them, in .npz or .npy. Time never goes back: a clock of 32 bits or less goes on where it
    started again. A recording without events (a header alone, arrays of length 0) is an empty array; a file without a
    byte is an error.

    Args:
        path: the file.
        axes: of AEDAT 2.0 of a DVS128 alone: "jaer", or "spikingjelly", whose (x, y) is (127 - y, x) of the other.
        sensor: (height, width) that all events must lie in; None: the format's (.bin: 34 x 34) or the header's (AEDAT
            2.0, 128 x 128 where it names no camera, and 4); AEDAT 3.1 and arrays have none.
        policy: "raise" an error at a record that is broken, at events outside the sensor and at other time that goes
            back, or "warn" once, with their number, and drop these records and events, and sort the others by time.

    Raises:
        UsageError: the file is missing, unreadable, empty, in no known format or of an unknown camera; it loses more
            than half of its events or bytes, whatever the policy; or as `policy` says, naming the place.
    """
    return read_with_sensor(path, axes, sensor, policy)[0]


def read_with_sensor(
    path: str | Path, axes: Axes = "jaer", sensor: Size | None = None, policy: Policy = "raise"
) -> tuple[np.ndarray, Sensor | None]:
    """`read_events`, and the (height, width) that the format or the header says; None if neither does."""
    for name, value, choices in (("axes", axes, get_args(Axes)), ("policy", policy, get_args(Policy))):
        if value not in choices:
            raise UsageError(f"{name} {value!r} is unknown{instead(value, choices)}")
    path, sensor = as_path(path), None if sensor is None else checked_size(sensor, "sensor")
    try:
        recording = _decode(path, axes, sensor)
    except (OSError, MemoryError) as error:
        raise UsageError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    events, problems, most = _inside(recording, sensor or recording.sensor)
    if recording.broken is not None:
        size = path.stat().st_size
        rest = size - recording.broken
        problems.append(f"the record at byte {recording.broken} is incomplete or damaged, {rest} bytes from the end")
        most = most or ("fetch or record it again" if 2 * rest > size else "")
    if problems and (policy == "raise" or most):
        raise UsageError(f"{path}: {'; '.join([*problems, most or REMEDY])}")
    if problems:
        warnings.warn(f"{path}: {'; '.join(problems)}; dropped", stacklevel=3)
    return ordered(events, str(path), policy), recording.sensor


def _decode(path: Path, axes: Axes, sensor: Sensor | None) -> Recording:
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
    if magic.startswith(b"#") or suffix in (".aedat", ".aedat2"):
        return read_aedat2(path, axes, sensor)
    if suffix in (".npz", ".npy"):
        return read_arrays(path)
    raise UsageError(f"{path} begins with {magic!r} at byte 0; expected {FORMATS}")


def _inside(recording: Recording, sensor: Sensor | None) -> tuple[np.ndarray, list[str], str]:
    """The events that lie inside the sensor, what is to be said about the others, and what to do if these are most."""
    events, (height, width) = recording.events, sensor or (FAR, FAR)
    x, y = events["x"], events["y"]
    outside = (x.view("u2") >= width) | (y.view("u2") >= height)  # as unsigned numbers, negative ones are large
    if not (count := np.count_nonzero(outside)):
        return events, [], ""
    first = int(outside.argmax())
    at = recording.pixel(first) if recording.pixel else (x[first], y[first])
    place = f"the first {recording.where(first)}, x = {at[0]}, y = {at[1]}"
    bounds = f"the sensor of {height} x {width} pixels"
    if height == width == FAR:
        bounds = f"0 to {FAR - 1}, the x and y that any sensor may have"
    said = f"{count} events lie outside {bounds}, {place}"
    return events[~outside], [said], _larger(x, y) if 2 * count > len(events) else ""


def _larger(x: np.ndarray, y: np.ndarray) -> str:
    """The advice to someone who would lose most events for the sensor's sake."""
    if min(x.min(), y.min()) < 0 or max(x.max(), y.max()) >= FAR:
        return "they are most, and no sensor=(height, width) would hold them: the file is damaged or in another format"
    size = int(y.max()) + 1, int(x.max()) + 1
    return f"they are most: give the size of their camera, {option(size)} would hold them"
