"""Convolutions for every time step: `Conv2d`, and `ConvNorm`, a convolution with the norm behind it."""

from collections.abc import Callable

from torch import Tensor, nn

from spikeback.nn.norms.prototype import Norm, norm_for
from spikeback.nn.pointwise import is_strided, strided
from spikeback.ops.convolution import convolve, is_faster


def over_time(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a layer for images to all time steps at once: (T, B, C, H, W) -> (T*B, C, H, W) -> (T, B, C', H', W')."""
    return layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def normalise(norm: nn.Module, x: Tensor) -> Tensor:
    """norm(x) of currents (T, B, C, H, W): a norm that says `takes_time` gets them so, any other merged images."""
    return norm(x) if getattr(norm, "takes_time", False) else over_time(norm, x)


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

    def __init__(self, in_channels: int, channels: int, kernel: int, norm: Norm, stride: int = 1) -> None:
        conv = Conv2d(in_channels, channels, kernel, stride, padding=kernel // 2, bias=False)
        super().__init__(conv, norm_for(norm, channels))

    def forward(self, x: Tensor) -> Tensor:
        conv, norm = self
        return normalise(norm, over_time(conv, x))
