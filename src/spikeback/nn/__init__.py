"""Modules: the neuron, normalisation, and the blocks networks are made of."""

from spikeback.nn.blocks import BasicBlock, Stack
from spikeback.nn.conv import Conv2d, ConvNorm
from spikeback.nn.fuse import current, fire
from spikeback.nn.neurons.lif import LIF
from spikeback.nn.neurons.neuron import Neuron
from spikeback.nn.norms.batch import BatchNorm2d
from spikeback.nn.norms.td import TdBatchNorm2d
from spikeback.nn.pool import Pool
from spikeback.nn.why import why_not_fused
from spikeback.ops.lif import plain
from spikeback.ops.processes import local_statistics

__all__ = [
    "LIF",
    "BasicBlock",
    "BatchNorm2d",
    "Conv2d",
    "ConvNorm",
    "Neuron",
    "Pool",
    "Stack",
    "TdBatchNorm2d",
    "current",
    "fire",
    "local_statistics",
    "plain",
    "why_not_fused",
]
