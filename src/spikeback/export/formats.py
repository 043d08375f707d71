"""The ways out of a training, by name: a function that takes the plain network, and what else it needs."""

from collections.abc import Callable
from typing import Any

from spikeback.errors import UsageError
from spikeback.export.fold import fold
from spikeback.values import instead

Format = Callable[..., Any]  # (net, ...) -> what came of it
FORMATS: dict[str, Format] = {"fold": fold}


def register(name: str, function: Format) -> Format:
    """Add a format. Raises UsageError if another has the name."""
    if FORMATS.setdefault(name, function) is not function:
        raise UsageError(f"there is a format {name!r} already; give yours another name")
    return function


def format_of(name: str) -> Format:
    """The function of a format. Raises UsageError that lists the choices."""
    if name not in FORMATS:
        raise UsageError(f"no format {name!r}{instead(name, FORMATS)}")
    return FORMATS[name]
