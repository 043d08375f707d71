"""Frames of events on disk: built once, in parallel, opened at memory speed, whole or not at all.

An entry is one file `<name>-<key>.npy`: an array as NumPy writes it, then the sha256 of all bytes before. The key is a
hash of every option and of every source file's name, size and time of change: hashing the contents of gigabytes of
recordings at every start would take minutes. So a file that was rewritten with the same size and time goes unnoticed.
"""

import hashlib
import json
import os
import secrets
import shutil
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from spikeback.errors import UsageError

try:
    import fcntl
except ImportError:  # not a Unix: two builders then both build, and the later one's file stays
    fcntl = None

FORMAT = 1  # part of every key: to be raised whenever the same options give other frames
DIGEST = hashlib.sha256().digest_size
BLOCK = 1 << 20  # bytes read at a time


def cache_folder(root: Path | None, cache: Path | None = None) -> Path:
    """Where entries go: `cache` if given, else <root>/.spikeback, else (no root, or not writable) the user's cache."""
    if cache is not None:
        return cache
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spikeback"
    beside = root / ".spikeback" if root is not None else user
    return beside if os.access(beside if beside.exists() else beside.parent, os.W_OK | os.X_OK) else user


def stamps(root: Path, files: Iterable[Path]) -> list[tuple[str, int, int]]:
    """(name below `root`, bytes, time of change in ns) of every file: what a key holds of them.

    Raises UsageError naming a file that is missing or unreadable.
    """
    return [(path.relative_to(root).as_posix(), *_stamp(path)) for path in files]


def cached(
    folder: Path,
    name: str,
    key: Mapping[str, Any],
    shape: Sequence[int],
    samples: Callable[[], Iterable[np.ndarray]],
    dtype: str = "uint8",
) -> np.ndarray:
    """Open the entry of `folder` for `key`, read-only and memory-mapped; where there is none, build it first.

    `key` names everything that decides the content, as JSON can hold it. `samples()` yields the array of `shape` piece
    by piece, each a block of `dtype` of any number of rows, in order. An entry that does not match its checksum is
    warned of and built anew. A second process that asks for the same entry waits for the first.
    Raises UsageError naming the file that cannot be written, for lack of space say, or the one that `samples` cannot
    read; nothing is left behind then.
    """
    text = json.dumps({"format": FORMAT, "shape": list(shape), "dtype": dtype, **key}, sort_keys=True)
    path = folder / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.npy"
    found = _open(path)
    if found is not None:
        return found
    _make(folder)
    with _lock(folder) as alone:
        found = _open(path) if alone else None  # built by another process meanwhile?
        if found is not None:
            return found
        if alone:
            for leftover in folder.glob(".*.npy.*.part"):  # of builds that were killed, of this entry or another
                leftover.unlink(missing_ok=True)
        _build(path, tuple(shape), np.dtype(dtype), samples)
    return np.load(path, mmap_mode="r")


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    return status.st_size, status.st_mtime_ns


def _open(path: Path) -> np.ndarray | None:
    """The entry, its checksum verified; None if there is none, or, after a warning, if it is damaged."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            left = os.fstat(file.fileno()).st_size - DIGEST
            while left > 0 and (block := file.read(min(BLOCK, left))):
                digest.update(block)
                left -= len(block)
            if left == 0 and file.read() == digest.digest():
                return np.load(path, mmap_mode="r")
    except (FileNotFoundError, NotADirectoryError):  # the latter is said when the folder is made
        return None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}; remove it or name another --data.cache") from None
    warnings.warn(f"{path} is damaged: its checksum does not match; it is built anew", stacklevel=3)
    return None


def _build(path: Path, shape: tuple[int, ...], dtype: np.dtype, samples: Callable[[], Iterable[np.ndarray]]) -> None:
    header = BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": dtype.str, "fortran_order": False, "shape": shape})
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if (free := shutil.disk_usage(path.parent).free) < size:
        raise UsageError(
            f"cannot write {path}: it takes {size / 1e6:.0f} MB, {free / 1e6:.0f} are free; name another --data.cache"
        )
    part = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    digest = hashlib.sha256(header.getvalue())
    try:
        # closed at once when writing fails: the processes behind the samples must not go on
        with _writing(path), part.open("xb") as file, closing(_read(samples())) as pieces:
            file.write(header.getvalue())
            for block in pieces:
                if block.dtype != dtype:
                    raise TypeError(f"{path.name} holds {dtype}, not {block.dtype}")
                data = np.ascontiguousarray(block).data
                digest.update(data)
                size -= data.nbytes
                file.write(data)
            if size:
                raise ValueError(f"{path.name}: the samples do not fill {shape}, {size} bytes are missing")
            file.write(digest.digest())
            file.flush()
            os.fsync(file.fileno())
        with _writing(path):
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        blocked = isinstance(error, FileExistsError | NotADirectoryError)
        reason = "a file is in the way" if blocked else error.strerror or error
        raise UsageError(f"{folder} cannot be made for the cache: {reason}; name another --data.cache") from None


def _read(blocks: Iterable[np.ndarray]) -> Generator[np.ndarray, None, None]:
    """The same blocks; a file that lacks or is broken is its own error and none of writing the cache."""
    try:
        yield from blocks
    except OSError as error:
        what = f"{error.filename} cannot be read" if error.filename else "the recordings cannot be decoded"
        raise UsageError(f"{what}: {error.strerror or error}") from None


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}; name another --data.cache") from None


@contextmanager
def _lock(folder: Path) -> Iterator[bool]:
    """Build alone in `folder`, as far as the file system can tell: True if no other process builds there meanwhile.

    The lock lies on the folder itself and ends with its process, however that ends.
    """
    handle = os.open(folder, os.O_RDONLY) if fcntl else -1
    alone = False
    try:
        if fcntl:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                alone = True
            except OSError:  # a network file system without locks: renaming still keeps every entry whole
                pass
        yield alone
    finally:
        if fcntl:
            os.close(handle)
