"""Ctrl-C as an exception that unwinds a training properly."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Interrupted(BaseException):
    """Ctrl-C or a termination signal: not an error, nor a KeyboardInterrupt, at which Lightning leaves the process."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Within: the first SIGINT or SIGTERM raises Interrupted, a second one ends the process at once."""

    owner = os.getpid()

    def interrupt(signum: int, frame: Any) -> None:
        if os.getpid() != owner:  # a process that loads data: the owner says what there is to say
            raise KeyboardInterrupt if signum == signal.SIGINT else SystemExit
        signal.signal(signum, signal.SIG_DFL)
        raise Interrupted("interrupted")

    names = ("SIGINT", "SIGTERM", "SIGBREAK")  # the last one on Windows
    known = [getattr(signal, name) for name in names if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():  # only that one may listen
        known = []
    before = {signum: signal.signal(signum, interrupt) for signum in known}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
