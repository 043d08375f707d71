"""Ctrl-C as an exception that unwinds a training properly."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Interrupted(BaseException):
    """Ctrl-C or a termination signal: not an error, nor a KeyboardInterrupt, at which Lightning leaves the process."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Within: the first SIGINT or SIGTERM raises Interrupted, a second one ends the process at once."""

    def interrupt(signum: int, frame: Any) -> None:
        signal.signal(signum, signal.SIG_DFL)
        raise Interrupted("interrupted")

    before = {signum: signal.signal(signum, interrupt) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
