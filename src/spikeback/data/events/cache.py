"""Frames of events on disk: each sample made once, in parallel, opened at memory speed, and never half of one.

An entry is one file `<name>-<key>.npy`: an array as NumPy writes it, then the sha256 of each sample, 0 where there is
none yet. A sample counts if what lies in its place has its sum. So an entry may lack samples, a build that was stopped
goes on where it was, and damage costs the samples that it hit. The key is a hash of every option and of every source
file's name, size and time of change: hashing the contents of gigabytes of recordings at every start would take minutes.
So a file that was rewritten with the same size and time goes unnoticed.
"""

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from spikeback.errors import UsageError
from spikeback.lock import in_turn

FORMAT = 3  # part of every key: to be raised whenever the same options give other frames
SUM = hashlib.sha256().digest_size
Blocks = Iterable[tuple[int, np.ndarray]]  # samples, and the row in which the first of them belongs


class Entry(NamedTuple):
    """What `cached` returns: the array, and the sha256 of each sample asked for, uint8 (N, 32), 0 for the others."""

    frames: np.ndarray
    sums: np.ndarray


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
    samples: Callable[[np.ndarray], Blocks],
    dtype: str = "uint8",
    rows: np.ndarray | None = None,
) -> Entry:
    """Open the entry of `folder` for `key`, read-only and memory-mapped; make those samples of `rows` that it lacks.

    `key` names everything that decides the content, as JSON can hold it. `rows` None are all, shape[0] of them.
    `samples(missing)` yields blocks of `dtype` that hold at least the rows `missing`. Samples that do not match their
    sum are warned of and made anew. A second process that asks for the same entry waits for the first.
    Raises UsageError naming the file that cannot be written, for lack of space say, or the one that `samples` cannot
    read; an entry that was only begun is removed then.
    """
    text = json.dumps({"format": FORMAT, "shape": list(shape), "dtype": dtype, **key}, sort_keys=True)
    path = folder / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.npy"
    file = _File(path, tuple(shape), np.dtype(dtype))
    rows = np.arange(shape[0]) if rows is None else np.unique(rows)
    sums, _ = file.verify(rows)
    if not sums[rows].any(1).all():
        _make(folder)
        with in_turn(folder) as alone:  # if not alone, all builders write the same
            sums, damaged = file.verify(rows)  # made by another process meanwhile?
            if damaged:
                warnings.warn(
                    f"{path} is damaged: {damaged} samples do not match their checksum; they are made anew",
                    stacklevel=2,
                )
            if len(missing := rows[~sums[rows].any(1)]):
                _build(file, missing, samples, sums, alone)
    with _writing(path):
        return Entry(np.load(path, mmap_mode="r"), sums)


@dataclass(frozen=True)
class _File:
    """How an entry lies in its file: header, samples, sums."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype

    @cached_property
    def header(self) -> bytes:
        header, what = BytesIO(), {"descr": self.dtype.str, "fortran_order": False, "shape": self.shape}
        np.lib.format.write_array_header_1_0(header, what)
        return header.getvalue()

    @cached_property
    def sample(self) -> int:
        """Bytes of a sample."""
        return prod(self.shape[1:]) * self.dtype.itemsize

    def place(self, row: int) -> int:
        """Where a sample begins; the sums begin behind the last one."""
        return len(self.header) + row * self.sample

    @property
    def size(self) -> int:
        return self.place(self.shape[0]) + self.shape[0] * SUM

    def verify(self, rows: np.ndarray) -> tuple[np.ndarray, int]:
        """The sums of those of `rows` that are as they were written, 0 for all other samples; how many are damaged."""
        good, damaged = np.zeros((self.shape[0], SUM), np.uint8), 0
        try:
            with self.path.open("rb") as file:
                size, header = os.fstat(file.fileno()).st_size, file.read(len(self.header))
                if size != self.size or header != self.header:
                    begun = size in (0, self.size) and not any(header)  # another process is about to write it
                    return good, 0 if begun else len(rows)
                file.seek(self.place(self.shape[0]))
                sums = np.frombuffer(file.read(), np.uint8).reshape(-1, SUM)
                for row in rows[sums[rows].any(1)].tolist():
                    file.seek(self.place(row))
                    if hashlib.sha256(file.read(self.sample)).digest() == sums[row].tobytes():
                        good[row] = sums[row]
                    else:
                        damaged += 1
        except (FileNotFoundError, NotADirectoryError):  # the latter is said when the folder is made
            pass
        except OSError as error:
            raise UsageError(
                f"{self.path} cannot be read: {error.strerror}; remove it or name another data.cache"
            ) from None
        return good, damaged

    def open(self) -> BinaryIO:
        """Open it for writing, and give it its size and header if it lacks them; no sample is lost."""
        file = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666), "r+b")
        try:
            file.truncate(self.size)
            file.write(self.header)
            file.flush()
        except BaseException:
            file.close()
            raise
        return file


def _build(
    file: _File, missing: np.ndarray, samples: Callable[[np.ndarray], Blocks], sums: np.ndarray, alone: bool
) -> None:
    """Write the samples in `missing`, each before its sum, which goes into `sums` as well."""
    path, size, new = file.path, len(missing) * file.sample, not file.path.exists()
    if (free := shutil.disk_usage(path.parent).free) < size:
        raise UsageError(
            f"cannot write {path}: it takes {size / 1e6:.0f} MB, {free / 1e6:.0f} are free; name another data.cache"
        )
    try:
        # closed at once when writing fails: the processes behind the samples must not go on
        with _writing(path), file.open() as out, closing(_read(samples(missing))) as pieces:
            for first, block in pieces:
                if block.dtype != file.dtype or block.shape[1:] != file.shape[1:]:
                    raise TypeError(f"{path.name} holds {file.dtype} {file.shape}, not {block.dtype} {block.shape}")
                for row, sample in enumerate(block, first):
                    data = sample.tobytes()
                    sums[row] = np.frombuffer(hashlib.sha256(data).digest(), np.uint8)
                    out.seek(file.place(row))
                    out.write(data)
                    out.seek(file.place(file.shape[0]) + row * SUM)
                    out.write(sums[row].tobytes())
            if left := np.count_nonzero(~sums[missing].any(1)):
                raise ValueError(f"{path.name}: {left} of {len(missing)} samples were not made")
            out.flush()
            os.fsync(out.fileno())
    except Exception:
        if new and alone:  # stopped from outside, by Ctrl-C say, it stays, to be gone on with
            path.unlink(missing_ok=True)
        raise


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    return status.st_size, status.st_mtime_ns


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        blocked = isinstance(error, FileExistsError | NotADirectoryError)
        reason = "a file is in the way" if blocked else error.strerror or error
        raise UsageError(f"{folder} cannot be made for the cache: {reason}; name another data.cache") from None


def _read(blocks: Blocks) -> Generator[tuple[int, np.ndarray], None, None]:
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
        raise UsageError(f"cannot write {path}: {error.strerror or error}; name another data.cache") from None
