"""One process at a time in a folder. The lock is the system's: it ends with its process, however that ends."""

import errno
import json
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from spikeback.errors import UsageError
from spikeback.files import cannot_write, remove_parts, write_atomic

LOCK, HOLDER = ".lock", ".lock.json"  # what is locked, and who locked it; of a process that was killed both stay
UNKNOWN = ("ENOSYS", "ENOLCK", "ENOTSUP", "EOPNOTSUPP", "EINVAL")  # a file system without locks


@contextmanager
def alone(folder: Path, command: str = "") -> Iterator[None]:
    """Nobody else trains in `folder` meanwhile, on any machine. Within itself it changes nothing.

    The folder is made, and removed if it is still empty at the end. `command` is told to others who ask.

    Raises:
        UsageError: another process holds it; says which.
        WriteError: the folder cannot be made or written to.
    """
    lock = FileLock(folder / LOCK, timeout=0, fallback_to_soft=False, is_singleton=True)
    if lock.is_locked:
        yield
        return
    with ExitStack() as stack:
        try:
            stack.callback(_remove_empty, _make(folder))
            lock.acquire()
            stack.callback(_leave, lock)
            remove_parts(folder)
            holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": _now(), "command": command}
            write_atomic(folder / HOLDER, json.dumps(holder).encode())
        except Timeout:
            raise UsageError(
                f"{folder} is in use by {_holder(folder)}; wait until it has ended, or name another out=..."
            ) from None
        except OSError as error:
            if not _has_no_locks(error):
                raise cannot_write(folder, error) from error
            warnings.warn(
                f"{folder} lies on a file system without locks: let no other process train there", stacklevel=2
            )
        yield


@contextmanager
def in_turn(folder: Path) -> Iterator[bool]:
    """Wait until nobody else is in `folder`; False where its file system has no locks or cannot be written to."""
    lock = FileLock(folder / LOCK, fallback_to_soft=False)
    with ExitStack() as stack:
        with suppress(OSError):
            lock.acquire()
            stack.callback(_leave, lock)
        yield lock.is_locked


def is_used(folder: Path) -> bool:
    """Whether a folder holds anything but a lock."""
    return folder.is_dir() and any(path.name not in (LOCK, HOLDER) for path in folder.iterdir())


def _leave(lock: FileLock) -> None:
    """Let go of a lock, and leave no trace; who has the file open already sees that it is gone, and makes another."""
    path = Path(lock.lock_file)
    with suppress(OSError):
        path.with_name(HOLDER).unlink(missing_ok=True)
    with suppress(OSError):  # Windows removes it afterwards
        path.unlink(missing_ok=True)
    lock.release()


def _make(folder: Path) -> list[Path]:
    """Make a folder and those above it. Returns which were made, the innermost first."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return made


def _remove_empty(folders: list[Path]) -> None:
    with suppress(OSError):  # not empty, as it should be
        for folder in folders:
            folder.rmdir()


def _has_no_locks(error: OSError) -> bool:
    return errno.errorcode.get(error.errno or 0) in UNKNOWN


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _holder(folder: Path) -> str:
    """Who holds the lock, in words; it may not have said so yet."""
    try:
        holder = json.loads((folder / HOLDER).read_text(encoding="utf-8"))
        return "process {pid} on {host} since {since} ({command})".format_map(holder)
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
