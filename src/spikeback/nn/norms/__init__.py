"""Norms, one file each, and by name: `register` adds one, `from_text("TdBatchNorm2d(alpha=1.0)")` makes what makes one.

What is registered takes the number of channels first.
"""

from collections.abc import Callable
from typing import Any

from torch import nn

from spikeback.nn.norms.batch import BatchNorm2d
from spikeback.nn.norms.td import TdBatchNorm2d
from spikeback.nn.registry import Registry

__all__ = ["NORMS", "BatchNorm2d", "TdBatchNorm2d", "from_text", "register"]

NORMS = Registry("norm", leading=1)
register = NORMS.register
register(BatchNorm2d)
register(TdBatchNorm2d)


def from_text(text: str, **open_arguments: Any) -> Callable[[int], nn.Module]:
    """(number of channels) -> the norm that a text names; `open_arguments` are for what the text leaves open."""
    return NORMS.maker(text, **open_arguments)
