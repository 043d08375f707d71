"""1x1 convolutions with a stride, which on the CPU are linear layers over the channels of the pixels they look at.

oneDNN's kernel for the weight gradient of such a convolution writes beyond its memory (docs/onednn.md).
"""

from torch import Tensor, nn


def is_strided(layer: nn.Conv2d, x: Tensor) -> bool:
    """Whether this is a 1x1 convolution with a stride on the CPU. With padding or groups it takes other, sound kernels.

    Of an input that does not fit it is not: PyTorch has the error.
    """
    pointwise = layer.kernel_size == (1, 1) and layer.stride != (1, 1) and layer.groups == 1
    padded = any(layer._reversed_padding_repeated_twice)  # whatever `padding` is: numbers, "valid" or "same"
    fits = x.ndim in (3, 4) and x.shape[-3] == layer.in_channels and x.is_floating_point()
    return pointwise and not padded and fits and x.device.type == "cpu"


def strided(x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, ...]) -> Tensor:
    """(N, C, H, W), or one image (C, H, W), with weights (K, C, 1, 1) -> (N, K, H', W').

    The result lies in memory as PyTorch's does: channels-last if input or weights do. Pooling over single pixels takes
    every second one, say, exactly, and its gradient lies channels-last, as that of slicing does not.
    """
    channels_last = any(_is_channels_last(y) for y in (x, weight))
    x = x.movedim(-3, -1).contiguous().movedim(-1, -3)
    pixels = nn.functional.avg_pool2d(x, 1, stride).movedim(-3, -1)  # (..., H', W', C)
    y = nn.functional.linear(pixels, weight.flatten(1), bias).movedim(-1, -3)
    return y if channels_last else y.contiguous()


def _is_channels_last(x: Tensor) -> bool:
    """Of (N, C, H, W); what has one pixel counts by how the pixels of more would lie."""
    return x.ndim == 4 and x.stride(1) == 1 and (x.stride(3) != 1 or x.shape[2:].numel() > 1)
