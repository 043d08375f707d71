"""AEDAT 2.0, as jAER writes it and CIFAR10-DVS is published, and AEDAT 4, as DV writes it."""

import json
import struct
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np

from spikeback.data.events.dtype import EVENT, FAR, Recording
from spikeback.errors import UsageError

Axes = Literal["jaer", "spikingjelly"]
DVS128 = (128, 128)
RECORD = 8  # bytes an event of AEDAT 2.0: big-endian uint32 address, big-endian uint32 time stamp in microseconds
CHUNK = 1 << 15  # events decoded at a time: they stay in the processor's cache
MAGIC4 = b"#!AER-DAT4.0\r\n"


def read_aedat2(path: Path, axes: Axes = "jaer") -> Recording:
    """Decode the AEDAT 2.0 file of a DVS128: lines that start with '#', then RECORD bytes an event.

    Bits of an address: 0 polarity (0 is ON), 1 to 7 x_raw, from 8 on y_raw. In jAER's axes x = 127 - x_raw, since the
    chip counts from the right, and y = y_raw; in SpikingJelly's x = 127 - y_raw, y = 127 - x_raw. An address with a bit
    above 14, as external triggers have, so gets a coordinate outside the sensor.
    Source: jAER's DVS128 extractor; SpikingJelly's CIFAR10DVS.
    """
    with path.open("rb") as file:
        start = _end_of_header(path, file)
        data = np.fromfile(file, "u1")
    loose = len(data) % RECORD
    words = data[: len(data) - loose].view(">u4").reshape(-1, 2)
    events = np.empty(len(words), EVENT)
    for i in range(0, len(events), CHUNK):
        part = events[i : i + CHUNK]
        address, part["t"] = words[i : i + CHUNK].astype("=u4").T
        x = 127 - (address >> 1 & 127).astype("i2")
        y = np.minimum(address >> 8, FAR).astype("i2")
        part["x"], part["y"] = (x, y) if axes == "jaer" else (127 - y, x)
        part["p"] = ~address & 1
    broken = start + len(data) - loose if loose else None
    return Recording(events, DVS128, lambda i: f"at byte {start + RECORD * i}", broken)


def _end_of_header(path: Path, file: BinaryIO) -> int:
    """Leave `file` behind its last header line, and say at which byte that is."""
    start, version = 0, b""
    while (line := file.readline()).startswith(b"#"):
        if not line.endswith(b"\n") or b"\0" in line:
            raise UsageError(f"{path} is damaged: the header line at byte {start} has no end or is not text")
        version = version or (line.strip() if line.startswith(b"#!AER-DAT") else b"")
        start += len(line)
    if version != b"#!AER-DAT2.0":
        named = f"names its version {version.decode('latin1')}" if version else "names no version"
        raise UsageError(f"{path} {named} in bytes 0 to {start}; expected a header with the line #!AER-DAT2.0")
    file.seek(start)
    return start


def read_aedat4(path: Path) -> Recording:
    """Decode the first stream of events in an AEDAT 4 file through the library aedat; t is Unix time.

    A header that is not UTF-8 aborts the process that aedat runs in, so that is a process of its own (0.2 s). Of a
    damaged file the packets before the damage count. Raises UsageError if aedat is not installed, or the file has no
    legible header or no stream of events.
    """
    if find_spec("aedat") is None:
        raise UsageError(f"{path} needs a reader of AEDAT 4: pip install 'spikeback[events]'")
    starts = _packets(path)
    decoder = Path(__file__).with_name("aedat4_process.py")
    done = subprocess.run([sys.executable, "-P", str(decoder), str(path)], capture_output=True)
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise UsageError(f"{path} cannot be read as AEDAT 4; its header, from byte {len(MAGIC4)} on, gives: {reason}")
    head = done.stdout.partition(b"\n")[0]
    found = json.loads(head)
    if found["sensor"] is None:
        raise UsageError(f"{path} holds no stream of events")
    events = np.frombuffer(done.stdout, EVENT, offset=len(head) + 1).copy()  # writable, as those of other formats
    broken = starts[found["packets"]] if found["packets"] < len(starts) else None
    return Recording(events, tuple(found["sensor"]), lambda i: f"number {i}", broken)


def _packets(path: Path) -> list[int]:
    """The byte at which each packet of an AEDAT 4 file begins; the last one may be incomplete.

    After MAGIC4: uint32 length, a flatbuffer whose field 1, int64, says where the packets end, -1: with the file. Each
    packet: int32 stream, uint32 length, content. aedat itself takes a file that ends between two packets for complete.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        try:
            (length,) = struct.unpack_from("<I", file.read(len(MAGIC4) + 4), len(MAGIC4))
            header = file.read(length)
            (table,) = struct.unpack_from("<I", header)
            vtable = table - struct.unpack_from("<i", header, table)[0]
            fields, field = struct.unpack_from("<H4xH", header, vtable)
            end = struct.unpack_from("<q", header, table + field)[0] if fields > 6 and field else -1
        except struct.error:
            raise UsageError(f"{path} breaks off in its header, which begins at byte {len(MAGIC4)}") from None
        starts, at = [], len(MAGIC4) + 4 + length
        while at != end and (at < size or at == size < end):
            starts.append(at)
            file.seek(at)
            head = file.read(8)
            at += 8 + struct.unpack("<iI", head)[1] if len(head) == 8 else size
    return starts
