"""AEDAT 4, as DV writes it."""

import json
import struct
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from spikeback.data.events.dtype import EVENT, Recording
from spikeback.errors import UsageError

MAGIC4 = b"#!AER-DAT4.0\r\n"


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
