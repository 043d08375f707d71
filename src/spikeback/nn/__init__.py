"""Modules: the neuron, normalisation, and the blocks networks are made of."""

from spikeback.nn.block import BasicBlock, ConvNorm, Stack
from spikeback.nn.neuron import LIF
from spikeback.nn.norm import TdBatchNorm2d
from spikeback.ops.lif import plain

__all__ = ["LIF", "BasicBlock", "ConvNorm", "Stack", "TdBatchNorm2d", "plain"]
