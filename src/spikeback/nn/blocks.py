"""The blocks of spiking networks: layers in a row, and the post-activation residual block.

`register` adds a residual block by name; it is called as `BasicBlock` is.
"""

import copy
from typing import Any

from torch import Tensor, nn

from spikeback.nn.conv import ConvNorm
from spikeback.nn.fuse import Current, current, fire
from spikeback.nn.neurons.lif import LIF
from spikeback.nn.norms.prototype import Norm
from spikeback.nn.norms.td import halve_variance
from spikeback.nn.pool import Pool
from spikeback.nn.registry import Registry

BLOCKS = Registry("block", leading=6)
register = BLOCKS.register


def neuron_for(prototype: nn.Module | None) -> nn.Module:
    """A deep copy of the prototype neuron; None is `LIF()`, the defaults of the authors' code."""
    return LIF() if prototype is None else copy.deepcopy(prototype)


class BasicBlock(nn.Module):
    """Post-activation residual block, o = g(f(x) + x), Eq. 5: (T, B, C, H, W) -> (T, B, C', H/stride, W/stride).

    f is conv3x3-norm-LIF-conv3x3-norm, g is LIF. Where the shape changes the shortcut is a 1x1 convolution + norm with
    the block's stride or, with `pooled_shortcut`, average pooling by the stride and a 1x1 convolution + norm.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int = 1,
        neuron: nn.Module | None = None,
        norm: Norm = None,
        pooled_shortcut: bool = False,
    ) -> None:
        super().__init__()
        self.conv1 = ConvNorm(in_channels, channels, 3, norm, stride=stride)
        self.lif1 = neuron_for(neuron)
        self.conv2 = ConvNorm(channels, channels, 3, norm)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            pool = pooled_shortcut and stride > 1
            project = ConvNorm(in_channels, channels, 1, norm, stride=1 if pool else stride)
            self.shortcut = nn.Sequential(Pool(stride, ceil_mode=True), project) if pool else project
            halve_variance(project[1])
        halve_variance(self.conv2[1])
        self.lif2 = neuron_for(neuron)

    def forward(self, x: Tensor) -> Tensor:
        """lif2(conv2(lif1(conv1(x))) + shortcut(x))"""
        spikes = fire(self.lif1, current(self.conv1, x))
        return fire(self.lif2, current(self.conv2, spikes) + current(self.shortcut, x))


register(BasicBlock, "post")


class Stack(nn.Sequential):
    """Layers in a row. What follows a convolution with norm is a neuron, or a stack that begins with one."""

    def forward(self, input: Tensor, before: nn.Module | None = None, time_steps: int | None = None) -> Tensor:
        """As `nn.Sequential`, with a layer `before` the first that lives elsewhere; its one step is shown T times."""
        x: Any = input if before is None else current(before, input, time_steps)
        for layer in self:
            if type(layer) is ConvNorm:
                x = current(layer, x.tensor() if isinstance(x, Current) else x)
            elif not isinstance(x, Current):
                x = layer(x)
            elif isinstance(layer, Stack):
                ((before, z),) = x.terms
                x = layer(z, before, x.time_steps)
            else:
                x = fire(layer, x)
        return x.tensor() if isinstance(x, Current) else x
