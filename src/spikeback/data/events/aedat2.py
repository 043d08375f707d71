"""AEDAT 2.0, as jAER and v2e write it and CIFAR10-DVS is published: of a DVS128 or of a DAVIS."""

import re
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np

from spikeback.data.events.clock import unwrapped
from spikeback.data.events.dtype import EVENT, FAR, Recording, Sensor, option
from spikeback.errors import UsageError

Axes = Literal["jaer", "spikingjelly"]
DVS128 = (128, 128)
DAVIS = {"240": (180, 240), "346": (260, 346), "640": (480, 640), "208": (192, 208), "128": (128, 128)}
NAMED = re.compile(r"DAVIS\D*(\d+)")  # the name of a DAVIS, in capitals, with its width
RECORD = 8  # bytes an event: big-endian uint32 address, big-endian uint32 time stamp in microseconds
CHUNK = 1 << 15  # events decoded at a time: they stay in the processor's cache
SPECIAL = 1 << 31 | 1 << 10  # set in a DAVIS's samples of an image or of motion, and in signals from outside


def read_aedat2(path: Path, axes: Axes = "jaer", sensor: Sensor | None = None) -> Recording:
    """Decode an AEDAT 2.0 file: lines that start with '#', then RECORD bytes an event.

    The line '# AEChip:' names the camera. Without one it is a DVS128; if most addresses are beyond that, a DAVIS of the
    `sensor` (height, width), which the caller must know. The clock of 32 bits goes on where it starts again.
    Raises UsageError for a header that is none, another camera, and addresses that are not of a DVS128 for the most.
    """
    with path.open("rb") as file:
        start, chip = _header(path, file)
        data = np.fromfile(file, "u1")
    loose = len(data) % RECORD
    words = data[: len(data) - loose].view(">u4").reshape(-1, 2)
    size = _sensor(path, chip, sensor, words)
    rows = None
    if size is None:
        events, size = _dvs128(words, axes), DVS128
    elif axes != "jaer":
        raise UsageError(f"{path} is of a DAVIS, axes {axes!r} are of a DVS128 alone; expected 'jaer'")
    else:
        rows = np.flatnonzero(words[:, 0] & SPECIAL == 0)
        events = _davis(words[rows], size)
    events["t"] = unwrapped(events["t"].astype("u4"))
    broken = start + len(data) - loose if loose else None
    return Recording(events, size, lambda i: f"at byte {start + RECORD * (i if rows is None else rows[i])}", broken)


def _dvs128(words: np.ndarray, axes: Axes) -> np.ndarray:
    """Bits of an address: 0 polarity (0 is ON), 1 to 7 x_raw, from 8 on y_raw.

    In jAER's axes x = 127 - x_raw, since the chip counts from the right, and y = y_raw; in SpikingJelly's
    x = 127 - y_raw, y = 127 - x_raw. An address with a bit above 14, as external triggers have, so gets a coordinate
    outside the sensor. Source: jAER's DVS128 extractor; SpikingJelly's CIFAR10DVS.
    """
    events = np.empty(len(words), EVENT)
    for i in range(0, len(events), CHUNK):
        part = events[i : i + CHUNK]
        address, part["t"] = words[i : i + CHUNK].astype("=u4").T
        x = 127 - (address >> 1 & 127).astype("i2")
        y = np.minimum(address >> 8, FAR).astype("i2")
        part["x"], part["y"] = (x, y) if axes == "jaer" else (127 - y, x)
        part["p"] = ~address & 1
    return events


def _davis(words: np.ndarray, sensor: Sensor) -> np.ndarray:
    """Bits of an address: 11 polarity (1 is ON), 12 to 21 x_raw, 22 to 30 y_raw.

    x = width - 1 - x_raw, since the chip counts from the right, and y = y_raw, from the bottom, as jAER has them.
    Source: jAER's DavisBaseCamera; v2e's AEDat2Output writes the same.
    """
    events = np.empty(len(words), EVENT)
    address, events["t"] = words.astype("=u4").T
    events["x"] = sensor[1] - 1 - (address >> 12 & 1023).astype("i2")
    events["y"], events["p"] = address >> 22 & 511, address >> 11 & 1
    return events


def _sensor(path: Path, chip: str, sensor: Sensor | None, words: np.ndarray) -> Sensor | None:
    """(height, width) of a DAVIS, None of a DVS128. Raises UsageError for a camera that is neither."""
    name = chip.rpartition(".")[2].upper()
    if (davis := NAMED.match(name)) and davis[1] in DAVIS:
        return DAVIS[davis[1]]
    if name and not re.search(r"(DVS|TMPDIFF)\D*128", name):
        raise UsageError(
            f"{path} is of the camera {chip} (# AEChip:), which is not known here; expected a DVS128 or a DAVIS of "
            f"{', '.join(DAVIS)} pixels: convert it to .npz with arrays t, x, y, p"
        )
    high = words[:, 0] >> 15 != 0
    if 2 * np.count_nonzero(high) > len(words):
        if not name and sensor is not None and max(sensor) > max(DVS128):
            return sensor
        raise UsageError(_not_dvs128(path, chip, words[:, 0].astype("=u4"), int(high.sum())))
    return None


def _not_dvs128(path: Path, chip: str, address: np.ndarray, count: int) -> str:
    """What to say of a file most of whose addresses are beyond a DVS128's: whose they are, if a DAVIS can be."""
    pixels = address[address & SPECIAL == 0]
    width, height = (int(raw.max(initial=0)) + 1 for raw in (pixels >> 12 & 1023, pixels >> 22 & 511))
    fits = [size for size in sorted(DAVIS.values()) if height <= size[0] and width <= size[1]]
    said = f"{path} names {chip or 'no camera (# AEChip:)'}, but {count} of {len(address)} addresses are no DVS128's"
    if chip or not fits:
        return f"{said}; it is damaged or of another camera"
    return f"{said}; a DAVIS, as v2e simulates one, needs its size: {option(fits[0])} would hold them"


def _header(path: Path, file: BinaryIO) -> tuple[int, str]:
    """Leave `file` behind its last header line, and say at which byte that is and which camera is named ('': none)."""
    start, version, chip = 0, b"", b""
    while (line := file.readline()).startswith(b"#"):
        if version and any(byte < 32 and byte not in b"\t\r\n" for byte in line):
            break  # the first event's address begins with the byte of '#', as do some of a DAVIS
        if not line.endswith(b"\n") or b"\0" in line:
            raise UsageError(f"{path} is damaged: the header line at byte {start} has no end or is not text")
        version = version or (line.strip() if line.startswith(b"#!AER-DAT") else b"")
        chip = chip or line.partition(b"AEChip:")[2].strip()
        start += len(line)
        if line.strip().replace(b"# ", b"#") == b"#End Of ASCII Header":
            break
    if version != b"#!AER-DAT2.0":
        named = f"names its version {version.decode('latin1')}" if version else "names no version"
        raise UsageError(f"{path} {named} in bytes 0 to {start}; expected a header with the line #!AER-DAT2.0")
    file.seek(start)
    return start, chip.decode("latin1")
