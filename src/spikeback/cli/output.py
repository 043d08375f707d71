"""What the command prints: what the terminal cannot show is replaced, and nobody has to read to the end."""

import codecs
import os
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console

STAND_IN = "spikeback.stand-in"
ALIKE = str.maketrans("–−×±…│✓✗≤≥∙·█▉▊▋▌▍▎▏", "--x~.|+x<>..########")  # one for one, so that columns stay in line


class Terminal(Console):
    """rich's console, but text is no markup, as a folder may be named [a], and a reader that left is an exception."""

    def __init__(self) -> None:
        super().__init__(markup=False)

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


@contextmanager
def forgiving_output() -> Iterator[None]:
    """Within: a character that a stream cannot encode is replaced. At the end nothing is left for the interpreter to
    write, which would fail where a reader has left (`| head`).
    """
    streams: list[Any] = [stream for stream in (sys.stdout, sys.stderr) if hasattr(stream, "reconfigure")]
    before = [stream.errors for stream in streams]
    for stream in streams:
        stream.reconfigure(errors=STAND_IN)
    try:
        yield
    finally:
        for stream, errors in zip(streams, before, strict=True):
            if not _has_left(stream):
                stream.reconfigure(errors=errors)


def reader_left() -> bool:
    """Whether nobody reads standard output any more: which of all pipes is broken cannot be told from the error."""
    return _has_left(sys.stdout, "\n")


def _has_left(stream: TextIO, text: str = "") -> bool:
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)  # where goes what is yet to be written
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        return True
    return False


def _stand_in(error: UnicodeError) -> tuple[str, int]:
    """For `codecs.register_error`: characters that look like those that an encoding lacks, or "?"."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    plain = (unicodedata.normalize("NFKC", character).translate(ALIKE) for character in lacking)
    return "".join(one if len(one) == 1 and one.isascii() else "?" for one in plain), error.end


codecs.register_error(STAND_IN, _stand_in)
