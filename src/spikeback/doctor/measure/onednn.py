"""Layers of a network at which PyTorch can damage the memory of the process (docs/onednn.md)."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from spikeback.nn.conv import Conv2d
from spikeback.nn.pointwise import is_strided, strided


def exposed(net: nn.Module) -> dict[str, nn.Conv2d]:
    """PyTorch's 1x1 convolutions with a stride and few channels, on a processor whose kernel has the fault."""
    if not torch.backends.mkldnn.is_available() or not (kind := _kind()).startswith("AVX"):
        return {}
    few = 8 if kind == "AVX2" else 16  # the kernel counts by as many channels as the processor's registers hold
    layers = {name: layer for name, layer in net.named_modules() if isinstance(layer, nn.Conv2d)}
    return {
        name: layer
        for name, layer in layers.items()
        if not isinstance(layer, Conv2d) and layer.in_channels < few and is_strided(layer, layer.weight[:1])
    }


def _kind() -> str:
    return torch.backends.cpu.get_cpu_capability()


def note(net: nn.Module) -> str | None:
    """What to tell about such layers; None: there are none."""
    names = list(exposed(net))
    if not names:
        return None
    return (
        f"{names[0]}{f' and {len(names) - 1} more' if names[1:] else ''}: a 1x1 convolution with a stride and few "
        "input channels. If images are channels-last, or have one channel, its weight gradient in PyTorch can crash "
        "the process on this processor, in float32 and in bfloat16. Put spikeback.nn.Conv2d in the place of nn.Conv2d "
        "(docs/onednn.md)."
    )


@contextmanager
def avoided(net: nn.Module) -> Iterator[None]:
    """Within, these layers are computed as `spikeback.nn.Conv2d` computes them."""
    layers = list(exposed(net).values())
    for layer in layers:
        layer._conv_forward = partial(_conv_forward, layer.stride)  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        for layer in layers:
            del layer._conv_forward


def _conv_forward(stride: tuple[int, ...], x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return strided(x, weight, bias, stride)
