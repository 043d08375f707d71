"""Memory layouts of (T, B, C, ...): every time step lies densely, contiguous or, of images, channels-last."""

import torch
from torch import Tensor

from spikeback.ops.allocator import empty

Affine = tuple[Tensor, Tensor, Tensor, Tensor]  # (x - mean) * (weight * inverse) + bias: weight, bias, mean, inverse
Statistics = tuple[Tensor | None, Tensor | None, Tensor | None]  # running mean, running variance, batches so far


def is_channels_last(x: Tensor) -> bool:
    """Whether the images of (T, B, C, H, W) lie channels-last; contiguous ones do not count."""
    if x.ndim != 5:
        return False
    step = x[0]
    return not step.is_contiguous() and step.is_contiguous(memory_format=torch.channels_last)


def dense(x: Tensor, channels_last: bool) -> Tensor:
    """x if each of its steps lies densely in that layout, else a copy that does."""
    if x[0].is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format):
        return x
    return empty(x.shape, x, channels_last).copy_(x)


def membrane_like(x: Tensor) -> Tensor:
    """An empty membrane (B, C, ...), float32, for a current (T, B, C, ...)."""
    return empty((1, *x.shape[1:]), x, is_channels_last(x), dtype=torch.float32)[0]
