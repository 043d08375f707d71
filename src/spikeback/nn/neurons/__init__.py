"""Neurons, one file each, and by name: `register` adds one, `from_text("LIF(tau=0.5)")` makes one."""

from typing import Any

from torch import nn

from spikeback.nn.neurons.lif import LIF
from spikeback.nn.neurons.neuron import Neuron
from spikeback.nn.registry import Registry

__all__ = ["LIF", "NEURONS", "Neuron", "from_text", "register"]

NEURONS = Registry("neuron")
register = NEURONS.register
register(LIF)


def from_text(text: str, **open_arguments: Any) -> nn.Module:
    """The neuron that a text names; `open_arguments` are for what the text leaves open, if the neuron takes them."""
    return NEURONS.maker(text, **open_arguments)()
