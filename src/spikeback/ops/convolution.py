"""Convolutions 3x3 by Winograd's minimal filtering F(4x4, 3x3) as `torch.library` operators, with their gradients.

A quarter of the multiplications of PyTorch's direct convolution (ops/native/convolution.cpp, arXiv:1509.09308). The
results differ from the direct ones by rounding: some 1e-6 of their size, where TF32, PyTorch's default for convolutions
on GPUs, has 1e-3.
"""

from typing import Any

import torch
from torch import Tensor, nn

from spikeback.errors import UsageError
from spikeback.ops import native
from spikeback.ops.library import define, differentiate, fake
from spikeback.ops.lif import is_plain

PANEL, TILE = 16, 4  # channels that the kernels take together, outputs of a tile along each axis
LEAST_CHANNELS = LEAST_TILES = 32  # with fewer of either the transforms cost what they save; measured on AVX2


@define()
def convolve(x: Tensor, weight: Tensor, turned: bool = False) -> Tensor:
    """Convolution with stride 1 and padding 1: (N, C, H, W) with weights (K, C, 3, 3) -> (N, K, H, W).

    `turned` is its transpose, for the gradient of the input: weights (C, K, 3, 3), each filter turned by 180 degrees.
    float32 on the CPU; C and K are multiples of 16. The result is channels-last.

    Raises:
        UsageError: other operands, or no kernel for this processor.
    """
    fits = weight.shape[not turned] == x.shape[1] and weight.shape[2:] == (3, 3)
    return _run("convolve", x, weight, weight.shape[turned], fits, _fake_convolve(x, weight, turned), turned)


@fake(convolve)
def _fake_convolve(x: Tensor, weight: Tensor, turned: bool = False) -> Tensor:
    return _channels_last(x, x.shape[0], weight.shape[turned], *x.shape[2:])


@define()
def convolve_weights(x: Tensor, grad: Tensor) -> Tensor:
    """Gradient (K, C, 3, 3) of `convolve`'s weights from its x (N, C, H, W) and its output's gradient (N, K, H, W).

    Raises:
        UsageError: as `convolve`.
    """
    fits = (grad.shape[0], *grad.shape[2:]) == (x.shape[0], *x.shape[2:])
    return _run("convolve_weights", x, grad, grad.shape[1], fits, _fake_convolve_weights(x, grad))


@fake(convolve_weights)
def _fake_convolve_weights(x: Tensor, grad: Tensor) -> Tensor:
    return _channels_last(x, grad.shape[1], x.shape[1], 3, 3)


def _channels_last(like: Tensor, *shape: int) -> Tensor:
    n, c, h, w = shape
    return like.new_empty((n, h, w, c)).permute(0, 3, 1, 2)


def _run(
    name: str, x: Tensor, other: Tensor, channels_out: int, fits: bool, out: Tensor, turned: bool = False
) -> Tensor:
    n, c, h, w = x.shape
    known = all((y.dtype, y.device.type) == (torch.float32, "cpu") for y in (x, other))
    if not (fits and known) or (c | channels_out) % PANEL:
        given = " and ".join(f"{tuple(y.shape)} {y.dtype} on {y.device}" for y in (x, other))
        raise UsageError(f"{name}: needs float32 on the CPU, multiples of {PANEL} channels, 3x3 weights, got {given}")
    if not native.CONVOLVES:
        raise UsageError(f"{name}: no kernel was built for this processor; use torch.nn.functional.conv2d")
    if x.numel() == 0:
        return out.zero_()
    x, other = (y.contiguous(memory_format=torch.channels_last) for y in (x, other))
    native.run_convolution(name, x, other, out, (n, h, w, c, channels_out), turned)
    return out


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, ctx.turned = inputs
    ctx.save_for_backward(x, weight)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    (x, weight), (of_x, of_weight, *_) = ctx.saved_tensors, ctx.needs_input_grad
    grad_x = convolve(grad, weight, not ctx.turned) if of_x else None
    sides = (grad, x) if ctx.turned else (x, grad)
    return grad_x, convolve_weights(*sides) if of_weight else None, None


def _setup_weights(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward_weights(ctx: Any, grad_weight: Tensor) -> tuple[Tensor | None, Tensor | None]:
    (x, grad), (of_x, of_grad) = ctx.saved_tensors, ctx.needs_input_grad
    return (
        convolve(grad, grad_weight, True) if of_x else None,
        convolve(x, grad_weight) if of_grad else None,
    )


differentiate(convolve, _setup, _backward)
differentiate(convolve_weights, _setup_weights, _backward_weights)


def is_faster(layer: nn.Conv2d, x: Tensor) -> bool:
    """Whether a convolution can go, and goes faster, through `convolve`; inside `plain()` none does."""
    if is_plain() or not native.CONVOLVES or torch.is_autocast_enabled("cpu") or torch.compiler.is_exporting():
        return False  # what is exported may run elsewhere
    geometry = (layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups, layer.padding_mode)
    out, channels, *kernel = layer.weight.shape
    if (
        geometry != ((3, 3), (1, 1), (1, 1), (1, 1), 1, "zeros")
        or kernel != [3, 3]
        or min(out, channels) < LEAST_CHANNELS
    ):
        return False
    if x.ndim != 4 or x.shape[1] != channels or (out | channels) % PANEL:
        return False  # PyTorch has the error for channels that do not match
    if any((y.dtype, y.device.type) != (torch.float32, "cpu") for y in (x, layer.weight)):
        return False
    n, _, h, w = x.shape
    many = min(h, w) >= TILE and n * -(-h // TILE) * -(-w // TILE) >= LEAST_TILES
    return many and x.is_contiguous(memory_format=torch.channels_last)
