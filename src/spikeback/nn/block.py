"""The blocks of spiking networks: convolution + norm on merged pictures, and the post-activation residual block."""

import copy
from collections.abc import Callable

from torch import Tensor, nn

from spikeback.nn.neuron import LIF
from spikeback.nn.norm import norm_for


def over_time(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a layer for pictures to all time steps at once: (T, B, C, H, W) -> (T*B, C, H, W) -> (T, B, C', H', W')."""
    return layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def neuron_for(prototype: nn.Module | None) -> nn.Module:
    """A deep copy of the prototype neuron; None is `LIF()`, the defaults of the authors' code."""
    return LIF() if prototype is None else copy.deepcopy(prototype)


class ConvNorm(nn.Sequential):
    """Convolution without bias, then norm, on every time step: (T, B, C, H, W) -> (T, B, C', H', W').

    Statistics of a batch norm run over (T, B, H, W). Padding keeps the size.
    """

    def __init__(self, in_channels: int, channels: int, kernel: int, norm: nn.Module | None, stride: int = 1) -> None:
        conv = nn.Conv2d(in_channels, channels, kernel, stride, padding=kernel // 2, bias=False)
        super().__init__(conv, norm_for(norm, channels))

    def forward(self, x: Tensor) -> Tensor:
        return over_time(super().forward, x)


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
        norm: nn.Module | None = None,
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
        self.lif2 = neuron_for(neuron)

    def forward(self, x: Tensor) -> Tensor:
        return self.lif2(self.conv2(self.lif1(self.conv1(x))) + self.shortcut(x))


class Pool(nn.AvgPool2d):
    """Average pooling of every time step, (T, B, C, H, W) -> (T, B, C, H', W')."""

    def forward(self, input: Tensor) -> Tensor:
        return over_time(super().forward, input)
