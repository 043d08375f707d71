"""Modules: the neuron, normalisation, and the blocks networks are made of."""

from spikeback.nn.block import BasicBlock, Conv2d, ConvNorm, Stack
from spikeback.nn.neurons.lif import LIF
from spikeback.nn.norms.batch import BatchNorm2d, TdBatchNorm2d
from spikeback.ops.lif import plain
from spikeback.ops.processes import local_statistics

__all__ = [
    "LIF",
    "BasicBlock",
    "BatchNorm2d",
    "Conv2d",
    "ConvNorm",
    "Stack",
    "TdBatchNorm2d",
    "local_statistics",
    "plain",
]
