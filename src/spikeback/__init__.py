"""Train deep spiking neural networks, see where their gradient dies, and get the plain network back.

`T B C H W K` are time steps, batch, channels, height, width, classes; time comes first.
"""

import importlib
from typing import Any

from spikeback import losses, nn
from spikeback.doctor import calibrate, diagnose
from spikeback.foreign import register_stateful
from spikeback.models import create_model, list_models
from spikeback.nn import LIF, blocks, neurons, norms
from spikeback.ops import lif, packed_spikes, surrogate, tune_allocator
from spikeback.shortcut import (
    Constant,
    Cosine,
    Evolutionary,
    Shortcut,
    ShortcutNet,
    TimeAveraged,
    Unrolled,
    Vanilla,
)
from spikeback.targets import Fidelity, Gain
from spikeback.version import __version__

__all__ = [
    "LIF",
    "Constant",
    "Cosine",
    "Evolutionary",
    "Fidelity",
    "Gain",
    "Shortcut",
    "ShortcutNet",
    "TimeAveraged",
    "Unrolled",
    "Vanilla",
    "__version__",
    "blocks",
    "calibrate",
    "create_model",
    "diagnose",
    "lif",
    "list_models",
    "losses",
    "neurons",
    "nn",
    "norms",
    "packed_spikes",
    "register_stateful",
    "surrogate",
    "tune_allocator",
]


def __dir__() -> list[str]:
    return sorted([*__all__, "data"])


def __getattr__(name: str) -> Any:
    """`sb.data` on first use: it brings Lightning, which takes seconds to import."""
    if name == "data":
        return importlib.import_module("spikeback.data")
    raise AttributeError(f"module 'spikeback' has no attribute {name!r}")
