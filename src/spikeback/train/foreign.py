"""What a file is that was given as a checkpoint and is none of ours, and what to give instead."""

import zipfile
from codecs import getincrementaldecoder
from contextlib import suppress
from pathlib import Path

from PIL import Image

BEST, LAST, PREVIOUS = "best.ckpt", "last.ckpt", "previous.ckpt"
EXAMPLE = "give a trial's folder, e.g. runs/demo/evolutionary-seed0, or its best.ckpt"
EMPTY, OTHER, LIGHTNING = "an empty file", "a file of another kind", "a Lightning checkpoint of another program"
MARK = b"pytorch-lightning_version"  # what every checkpoint of Lightning holds
STARTS = {  # what files of a kind begin with
    b"\x89HDF\r\n": "an HDF5 file, e.g. of Keras",
    b"\x93NUMPY": "a NumPy array",
    b"\x1f\x8b": "a compressed file (gzip)",
    b"BZh": "a compressed file (bzip2)",
    b"\xfd7zXZ": "a compressed file (xz)",
    b"%PDF": "a PDF document",
}


def kind_of(path: Path) -> str:
    """What a file seems to be, judged by its first bytes: "a text file". Nothing in it is run."""
    with path.open("rb") as file:
        start = file.read(4096)
    if not start:
        return EMPTY
    if start.startswith(b"PK\x03\x04"):
        return _archive(path)
    if start[8:9] == b"{":
        length = int.from_bytes(start[:8], "little")
        if length < 1 << 40:
            whole = length + 8 <= path.stat().st_size
            return (
                "a file of weights alone (safetensors)" if whole else "a file of weights (safetensors) that is cut off"
            )
    if start[0] == 0x80 and start[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        return "a pickle, which could run code; spikeback opens none"
    for beginning, kind in STARTS.items():
        if start.startswith(beginning):
            return kind
    with suppress(Exception), Image.open(path) as image:
        return f"an image ({image.format})"
    with suppress(UnicodeDecodeError):
        if len(start) > 3 and b"\0" not in getincrementaldecoder("utf-8")().decode(start).encode():
            return "a text file"
    return OTHER


def _archive(path: Path) -> str:
    """PyTorch writes zip archives; others do as well."""
    try:
        with zipfile.ZipFile(path) as archive:
            names, damaged = archive.namelist(), archive.testzip()
            pickles = [name for name in names if name.endswith("data.pkl")]
            lightning = bool(pickles) and MARK in archive.read(pickles[0])
    except Exception:  # whatever the damage may raise
        return "a PyTorch file or another zip archive that is damaged or cut off"
    if pickles and damaged:
        return f"a PyTorch file that is damaged: the checksum of {damaged} is wrong"
    if pickles:
        return LIGHTNING if lightning else "another PyTorch file"
    return "an archive of NumPy arrays (npz)" if any(name.endswith(".npy") for name in names) else "a zip archive"


def instead(path: Path) -> str:
    """What to give instead: another checkpoint of the same trial, a trial of the same run, or what one looks like."""
    folder = path.parent
    for name in (BEST, LAST, PREVIOUS):
        if (other := folder / name).is_file() and other != path:
            return f"give {other}, which lies beside it"
    for trial in sorted(folder.glob(f"*/{BEST}")):
        return f"give a trial's folder, e.g. {trial.parent}"
    return EXAMPLE
