"""Means over space: average pooling of every time step, and firing rates."""

import math

from torch import Tensor, nn

from spikeback.nn.conv import over_time
from spikeback.ops.lif.layout import is_channels_last


class Pool(nn.AvgPool2d):
    """Average pooling of every time step, (T, B, C, H, W) -> (T, B, C, H', W')."""

    def forward(self, input: Tensor) -> Tensor:
        return over_time(super().forward, input)


def firing_rates(spikes: Tensor, per_step: bool = True) -> Tensor:
    """Means over space, (T, B, C, ...) -> (T, B, C), or over space and time, -> (1, B, C).

    Of channels-last images the mean is taken with C last, so that its gradient lies as they do. It is a sum divided:
    the gradient of `mean` is written out for every pixel, and in half precision it copies its input into float32 first.
    """
    last = is_channels_last(spikes)
    x, axes = (spikes.permute(0, 1, 3, 4, 2), [2, 3]) if last else (spikes, [*range(3, spikes.ndim)])
    rates = x.sum(axes) / math.prod(x.shape[axis] for axis in axes) if axes else x
    return rates if per_step else rates.mean(0, keepdim=True)
