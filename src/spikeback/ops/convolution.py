"""Convolutions 3x3 by Winograd's minimal filtering as `torch.library` operators, with their gradients.

A quarter of the multiplications of PyTorch's direct convolution with stride 1, 9 of 16 with stride 2
(ops/native/convolution.cpp, arXiv:1509.09308). The results differ from the direct ones by rounding: some 1e-6 of their
size, where TF32, PyTorch's default for convolutions on GPUs, has 1e-3.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from spikeback.errors import UsageError
from spikeback.ops import native
from spikeback.ops.allocator import empty
from spikeback.ops.library import define, differentiate, fake
from spikeback.ops.lif import is_plain

PANEL, TILE = 16, 4  # channels that the kernels take together, outputs of a tile along each axis
# With fewer the transforms cost what they save; measured on AVX2.
LEAST_CHANNELS, LEAST_TILES = {1: 32, 2: 64}, 32  # by stride


@define()
def convolve(x: Tensor, weight: Tensor, stride: int = 1) -> Tensor:
    """Convolution with padding 1: (N, C, H, W) with weights (K, C, 3, 3) -> (N, K, ceil(H / stride), ceil(W / stride)).

    The stride is 1 or 2. float32 on the CPU; C and K are multiples of 16. The result is channels-last.

    Raises:
        UsageError: other operands, or no kernel for this processor.
    """
    _check(
        "convolve", x, weight, stride, lambda: weight.shape[1:] == (x.shape[1], 3, 3) and weight.shape[0] % PANEL == 0
    )
    return _run("convolve", x, weight, x, weight.shape[0], stride, _fake_convolve(x, weight, stride))


@fake(convolve)
def _fake_convolve(x: Tensor, weight: Tensor, stride: int = 1) -> Tensor:
    return empty((x.shape[0], weight.shape[0], *_outputs(x.shape[2:], stride)), x, channels_last=True)


@define()
def convolve_input(grad: Tensor, weight: Tensor, height: int, width: int, stride: int = 1) -> Tensor:
    """Gradient (N, C, height, width) of `convolve`'s x from its output's gradient and its weights (K, C, 3, 3).

    Raises:
        UsageError: as `convolve`.
    """
    sizes = lambda: (weight.shape[0], *_outputs((height, width), stride), 3, 3)
    _check("convolve_input", grad, weight, stride, lambda: (*grad.shape[1:], *weight.shape[2:]) == sizes())
    out = _fake_convolve_input(grad, weight, height, width, stride)
    return _run("convolve_input", grad, weight, out, grad.shape[1], stride, out)


@fake(convolve_input)
def _fake_convolve_input(grad: Tensor, weight: Tensor, height: int, width: int, stride: int = 1) -> Tensor:
    return empty((grad.shape[0], weight.shape[1], height, width), grad, channels_last=True)


@define()
def convolve_weights(x: Tensor, grad: Tensor, stride: int = 1) -> Tensor:
    """Gradient (K, C, 3, 3) of `convolve`'s weights from its x (N, C, H, W) and its output's gradient.

    Raises:
        UsageError: as `convolve`.
    """
    sizes = lambda: (x.shape[0], grad.shape[1], *_outputs(x.shape[2:], stride))
    _check("convolve_weights", x, grad, stride, lambda: grad.shape == sizes())
    return _run("convolve_weights", x, grad, x, grad.shape[1], stride, _fake_convolve_weights(x, grad))


@fake(convolve_weights)
def _fake_convolve_weights(x: Tensor, grad: Tensor, stride: int = 1) -> Tensor:
    return empty((grad.shape[1], x.shape[1], 3, 3), x, channels_last=True)


def _outputs(size: Sequence[int], stride: int) -> tuple[int, ...]:
    return tuple(-(-n // stride) for n in size)


def _check(name: str, x: Tensor, other: Tensor, stride: int, fits: Callable[[], bool]) -> None:
    """`fits` says whether sizes belong together, and is asked once the operands are known to have four."""
    known = all((y.ndim, y.dtype, y.device.type) == (4, torch.float32, "cpu") for y in (x, other))
    if not (known and stride in (1, 2) and (x.shape[1] | other.shape[1]) % PANEL == 0 and fits()):
        given = " and ".join(f"{tuple(y.shape)} {y.dtype} on {y.device}" for y in (x, other))
        needs = f"float32 on the CPU, multiples of {PANEL} channels, 3x3 weights, stride 1 or 2, sizes that fit"
        raise UsageError(f"{name}: needs {needs}; got {given}, stride {stride}")
    if not native.CONVOLVES:
        raise UsageError(f"{name}: no kernel was built for this processor; use torch.nn.functional.conv2d")


def _run(name: str, x: Tensor, other: Tensor, input: Tensor, channels_out: int, stride: int, out: Tensor) -> Tensor:
    """A kernel of a convolution whose input has the shape of `input`."""
    if x.numel() == 0:
        return out.zero_()
    n, c, h, w = input.shape
    x, other = (y.contiguous(memory_format=torch.channels_last) for y in (x, other))
    native.run_convolution(name, x, other, out, (n, h, w, c, channels_out, stride))
    return out


Grads = dict[str, Tensor]  # by the names of the arguments


def _save(*names: str) -> Callable[..., None]:
    """What an operator keeps for its gradient: two tensors by name, and its stride."""

    def save(ctx: Any, given: dict[str, Any], output: Tensor) -> None:
        ctx.save_for_backward(*(given[name] for name in names))
        ctx.stride = given["stride"]

    return save


def _backward(ctx: Any, needed: set[str], grad: Tensor) -> Grads:
    (x, weight), found = ctx.saved_tensors, {}
    if "x" in needed:
        found["x"] = convolve_input(grad, weight, *x.shape[2:], ctx.stride)
    if "weight" in needed:
        found["weight"] = convolve_weights(x, grad, ctx.stride)
    return found


def _backward_input(ctx: Any, needed: set[str], slope: Tensor) -> Grads:
    (grad, weight), found = ctx.saved_tensors, {}
    if "grad" in needed:
        found["grad"] = convolve(slope, weight, ctx.stride)
    if "weight" in needed:
        found["weight"] = convolve_weights(slope, grad, ctx.stride)
    return found


def _backward_weights(ctx: Any, needed: set[str], slope: Tensor) -> Grads:
    (x, grad), found = ctx.saved_tensors, {}
    if "x" in needed:
        found["x"] = convolve_input(grad, slope, *x.shape[2:], ctx.stride)
    if "grad" in needed:
        found["grad"] = convolve(x, slope, ctx.stride)
    return found


differentiate(convolve, _save("x", "weight"), _backward)
differentiate(convolve_input, _save("grad", "weight"), _backward_input)
differentiate(convolve_weights, _save("x", "grad"), _backward_weights)


def is_faster(layer: nn.Conv2d, x: Tensor) -> bool:
    """Whether a convolution can go, and goes faster, through `convolve`; inside `plain()` none does."""
    if is_plain() or not native.CONVOLVES or torch.is_autocast_enabled("cpu") or torch.compiler.is_exporting():
        return False  # what is exported may run elsewhere
    geometry = (layer.kernel_size, layer.padding, layer.dilation, layer.groups, layer.padding_mode)
    out, channels, *kernel = layer.weight.shape
    if geometry != ((3, 3), (1, 1), (1, 1), 1, "zeros") or layer.stride not in ((1, 1), (2, 2)):
        return False
    if kernel != [3, 3] or min(out, channels) < LEAST_CHANNELS[layer.stride[0]]:
        return False
    if x.ndim != 4 or x.shape[1] != channels or (out | channels) % PANEL:
        return False  # PyTorch has the error for channels that do not match
    if any((y.dtype, y.device.type) != (torch.float32, "cpu") for y in (x, layer.weight)):
        return False
    h, w = _outputs(x.shape[2:], layer.stride[0])
    many = min(h, w) >= TILE and x.shape[0] * -(-h // TILE) * -(-w // TILE) >= LEAST_TILES
    return many and x.is_contiguous(memory_format=torch.channels_last)
