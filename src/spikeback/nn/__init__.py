"""Modules: the neuron, normalisation, and the blocks networks are made of."""

from spikeback.nn.block import BasicBlock, ConvNorm
from spikeback.nn.neuron import LIF

__all__ = ["LIF", "BasicBlock", "ConvNorm"]
