"""The blocks of spiking networks: convolution + norm on merged pictures, and the post-activation residual block."""

import copy
import math
from collections.abc import Callable
from functools import reduce
from operator import add

from torch import Tensor, nn

from spikeback.nn.fuse import fused, is_watched
from spikeback.nn.neurons.lif import LIF
from spikeback.nn.norms.batch import halve_variance, norm_for
from spikeback.nn.pointwise import is_strided, strided
from spikeback.ops.convolution import convolve, is_faster
from spikeback.ops.lif.layout import is_channels_last


def over_time(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a layer for pictures to all time steps at once: (T, B, C, H, W) -> (T*B, C, H, W) -> (T, B, C', H', W')."""
    return layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def firing_rates(spikes: Tensor, per_step: bool = True) -> Tensor:
    """Means over space, (T, B, C, ...) -> (T, B, C), or over space and time, -> (1, B, C).

    Of channels-last pictures the mean is taken with C last, so that its gradient lies as they do. It is a sum divided:
    the gradient of `mean` is written out for every pixel, and in half precision it copies its input into float32 first.
    """
    last = is_channels_last(spikes)
    x, axes = (spikes.permute(0, 1, 3, 4, 2), [2, 3]) if last else (spikes, [*range(3, spikes.ndim)])
    rates = x.sum(axes) / math.prod(x.shape[axis] for axis in axes) if axes else x
    return rates if per_step else rates.mean(0, keepdim=True)


def fire(neuron: nn.Module, *terms: tuple[nn.Module, Tensor], time_steps: int | None = None) -> Tensor:
    """neuron(sum of layer(x)), in one operation after the convolutions where that can be (nn/fuse.py).

    Args:
        neuron: a `LIF`, or any module that takes currents (T, B, C, H, W).
        terms: pairs of a layer and its input x, (T, B, C, H, W).
        time_steps: T, if the current is one time step that is shown T times.
    """
    parts = [_before_norm(layer, x) for layer, x in terms]
    steps = time_steps or parts[0][0].shape[0]
    spikes = fused(neuron, parts, steps)
    if spikes is None:
        current = reduce(add, [y if norm is None else over_time(norm, y) for y, norm in parts])
        spikes = neuron(current.expand(steps, *current.shape[1:]))
    return spikes


def _before_norm(layer: nn.Module, x: Tensor) -> tuple[Tensor, nn.Module | None]:
    """A layer's output before its last norm, and that norm; None: there is none, or someone listens to the layer."""
    if is_watched(layer):
        return layer(x), None
    if type(layer) is ConvNorm:
        conv, norm = layer
        return over_time(conv, x), None if type(norm) is nn.Identity else norm
    if type(layer) is nn.Sequential and len(layer) > 1:
        *before, last = layer
        for module in before:
            x = module(x)
        return _before_norm(last, x)
    return layer(x), None


def neuron_for(prototype: nn.Module | None) -> nn.Module:
    """A deep copy of the prototype neuron; None is `LIF()`, the defaults of the authors' code."""
    return LIF() if prototype is None else copy.deepcopy(prototype)


class Conv2d(nn.Conv2d):
    """`nn.Conv2d`, with the kernels of ops/convolution.py where they are faster: 3x3 with stride 1 or 2.

    On the CPU a 1x1 convolution with a stride is a linear layer, clear of a fault of PyTorch's (nn/pointwise.py).
    """

    def forward(self, input: Tensor) -> Tensor:
        if is_faster(self, input):
            y = convolve(input, self.weight, self.stride[0])
            return y if self.bias is None else y + self.bias[:, None, None]
        return super().forward(input)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if is_strided(self, input):
            return strided(input, weight, bias, self.stride)
        return super()._conv_forward(input, weight, bias)


class ConvNorm(nn.Sequential):
    """Convolution without bias, then norm, on every time step: (T, B, C, H, W) -> (T, B, C', H', W').

    Statistics of a batch norm run over (T, B, H, W). Padding keeps the size.
    """

    def __init__(self, in_channels: int, channels: int, kernel: int, norm: nn.Module | None, stride: int = 1) -> None:
        conv = Conv2d(in_channels, channels, kernel, stride, padding=kernel // 2, bias=False)
        super().__init__(conv, norm_for(norm, channels))

    def forward(self, x: Tensor) -> Tensor:
        return over_time(super().forward, x)


class Stack(nn.Sequential):
    """Layers in a row; a convolution with norm and the neuron behind it are one operation (`fire`)."""

    def forward(self, input: Tensor, before: nn.Module | None = None, time_steps: int | None = None) -> Tensor:
        """As `nn.Sequential`, with a layer `before` the first that lives elsewhere; its one step is shown T times."""
        x = input
        for layer in self:
            if before is None and type(layer) is ConvNorm:
                before = layer
                continue
            if before is None:
                x = layer(x)
            elif isinstance(layer, Stack):
                x = layer(x, before, time_steps)
            else:
                x = fire(layer, (before, x), time_steps=time_steps)
            before = time_steps = None
        return x if before is None else before(x)


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
            halve_variance(project[1])
        halve_variance(self.conv2[1])
        self.lif2 = neuron_for(neuron)

    def forward(self, x: Tensor) -> Tensor:
        spikes = fire(self.lif1, (self.conv1, x))
        return fire(self.lif2, (self.conv2, spikes), (self.shortcut, x))


class Pool(nn.AvgPool2d):
    """Average pooling of every time step, (T, B, C, H, W) -> (T, B, C, H', W')."""

    def forward(self, input: Tensor) -> Tensor:
        return over_time(super().forward, input)
