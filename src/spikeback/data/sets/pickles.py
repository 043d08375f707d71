"""Pickles of arrays, as CIFAR is published, opened without trust.

torchvision's own classes read the same files, but with `pickle.load`, which runs whatever code a file asks for. That is
safe behind a checksum only, and data.unchecked takes files whose checksum is another. So this reader is needed there;
behind the checksum it takes as long as theirs, so that one reader serves both.
"""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from spikeback.errors import UsageError

NEEDED = {"_reconstruct", "ndarray", "dtype"}  # what a pickle names for an array


def read_pickle(path: Path) -> dict[str, Any]:
    """A dictionary of arrays, lists and text. Raises UsageError naming the file if it is anything else."""
    try:
        with path.open("rb") as file:
            entry = _Unpickler(file, encoding="latin1").load()
        if isinstance(entry, dict):
            return {key: _bytes(each) if isinstance(each, _Array) else each for key, each in entry.items()}
    except Exception as error:  # bytes at random run into whatever comes first
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"{path} cannot be read as a pickle of arrays ({reason}): fetch it again") from None
    raise UsageError(f"{path} holds a {type(entry).__name__}, not a dictionary: fetch it again")


class _Array:
    """What a pickle says of an array. NumPy does not read it itself: a damaged type of numbers can crash it."""

    state: tuple[Any, ...] = ()

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state


def _bytes(array: _Array) -> np.ndarray:
    """An array of bytes; any other kind raises."""
    _, shape, kind, column_first, content = array.state
    if kind.arguments[0] != "u1" or column_first:
        raise ValueError(f"an array of {kind.arguments[0]}{', column by column' if column_first else ''}")
    content = content.encode("latin1") if isinstance(content, str) else content
    return np.frombuffer(content, np.uint8).reshape(shape).copy()


class _Unpickler(pickle._Unpickler):  # not C's, which asks for all memory where one number is damaged
    """Builds text, lists and descriptions of arrays, and refuses everything else that a pickle can make Python do."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        if module_name in ("numpy.core.multiarray", "numpy._core.multiarray", "numpy") and global_name in NEEDED:
            return _Array
        if (module_name, global_name) == ("_codecs", "encode"):  # Python 3 writes bytes so
            return lambda text, encoding: text.encode("latin1")
        raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}")
