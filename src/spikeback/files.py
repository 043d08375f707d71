"""Files by name, in UTF-8 whatever the locale; they appear whole or not at all."""

import errno
import os
from io import FileIO
from pathlib import Path

from spikeback.errors import WriteError


def as_path(path: str | Path) -> Path:
    """A path that a user gave. `~` is the home folder, as in the shell, which does not see it in --out=~/run; names are
    UTF-8 on the disk, where the locale knows fewer letters as well.
    """
    name = os.fsdecode(os.fspath(path).encode(errors="surrogateescape"))
    return Path(os.path.expanduser(name))  # noqa: PTH111 - of an unknown user, ~name is a name like any other


def read_text(path: Path) -> str:
    """The text in a file, without the mark that some editors put before it. Raises UnicodeDecodeError."""
    return path.read_text(encoding="utf-8-sig")


def as_text(name: str, errors: str = "replace") -> str:
    """A name from the file system or the command line as text: UTF-8 also where the locale, and so Python, knows fewer
    letters. What is not even that is replaced.
    """
    return name.encode(errors="surrogateescape").decode(errors=errors)


def write_atomic(path: str | Path, data: bytes | str, previous: Path | None = None) -> Path:
    """Write `data`, text as UTF-8, to a temporary file beside `path`, then rename it: readers see the old file or the
    new one.

    The data is on the disk before the name is, so a power loss leaves the old file or the new one as well: which of
    the two is up to the file system. With `previous`, the old file gets that name.

    Raises:
        WriteError: the folder cannot be made or written to, or the disk is full; an old file is left as it was.
    """
    path, data = as_path(path), as_text(data).encode() if isinstance(data, str) else data
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileIO(temporary, "w") as file:
                _write(file, data)
                os.fsync(file.fileno())
            if previous and path.exists():
                path.replace(previous)  # a moment without `path`, but none without a whole file
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error
    return path


def append_line(path: Path, line: str) -> None:
    """Add a line to a file, all of it or nothing. Raises WriteError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileIO(path, "a") as file:
            end = file.seek(0, os.SEEK_END)
            try:
                _write(file, f"{line}\n".encode())
            except OSError:
                file.truncate(end)
                raise
    except OSError as error:
        raise cannot_write(path, error) from error


def remove_parts(folder: Path) -> None:
    """Remove the temporary files of processes that were killed. Nobody else may be writing there."""
    for part in folder.glob(".*.part"):
        part.unlink(missing_ok=True)


def cannot_write(path: Path, error: OSError) -> WriteError:
    """The error that says why a file or folder cannot be written, and what to do."""
    remedies = {  # by name: Windows has no EDQUOT in all versions
        "ENOSPC": "free some space", "EDQUOT": "free some space", "EISDIR": f"name a file in it, e.g. {path / 'new'}"
    }  # fmt: skip
    remedy = remedies.get(errno.errorcode.get(error.errno or 0, ""), "name a folder you can write to")
    return WriteError(f"cannot write {path}: {error.strerror or error}; {remedy}")


def _write(file: FileIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:  # a disk that is nearly full takes a part, and only then says so
        rest = rest[file.write(rest) :]
