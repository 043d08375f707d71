"""The fused neuron as `torch.library` operators: normalisation, residual addition and LIF in one, with its gradient.

Every device brings the same primitives (cpu.py, triton.py): `moments`, `normaliser`, `forward`, `backward`,
`gradients`, `combine`. Neither the normalised current nor the membrane is kept for the backward pass: it computes them
again from x, the convolution's output.
"""

import importlib
from functools import partial
from typing import Any

import torch
from torch import Tensor

from spikeback.ops.allocator import empty
from spikeback.ops.library import define, differentiate, fake
from spikeback.ops.lif.layout import Affine, is_channels_last, membrane_like
from spikeback.ops.processes import sum_over_processes

PRIMITIVES = {"cpu": "spikeback.ops.lif.cpu", "cuda": "spikeback.ops.lif.triton"}


def primitives(device: torch.device) -> Any:
    """The module with the primitives for a device."""
    return importlib.import_module(PRIMITIVES[device.type])


@define()
def moments(x: Tensor) -> Tensor:
    """Mean and biased variance by channel of (T, B, C, ...): (2, C) float64."""
    return primitives(x.device).moments(x)


@fake(moments)
def _(x: Tensor) -> Tensor:
    return x.new_empty((2, x.shape[2]), dtype=torch.float64)


@define(mutates=("running_mean", "running_var", "tracked"))
def normaliser(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    tracked: Tensor | None,
    momentum: float,
    eps: float,
) -> Tensor:
    """Mean and 1 / sqrt(variance + eps) by channel of (T, B, C, ...), (2, C) float32.

    The running statistics and their number of batches go on as those of `nn.BatchNorm2d`, if they are given.
    """
    return primitives(x.device).normaliser(x, (running_mean, running_var, tracked), momentum, eps)


@fake(normaliser)
def _(x: Tensor, *args: Any) -> Tensor:
    return x.new_empty((2, x.shape[2]), dtype=torch.float32)


@define()
def norm_lif(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    inverse: Tensor | None,
    residual: Tensor | None,
    weight2: Tensor | None,
    bias2: Tensor | None,
    mean2: Tensor | None,
    inverse2: Tensor | None,
    state: Tensor | None,
    gain: Tensor,
    batch_statistics: bool,
    shared: bool,
    time_steps: int,
    tau: float,
    threshold: float,
    kind: int,
    parameter: float,
    detach_reset: bool,
    keep_membrane: bool,
) -> tuple[Tensor, Tensor]:
    """LIF of (x - mean) * inverse * weight + bias, plus the residual, normalised likewise if `weight2` is given.

    x is (T, B, C, ...), or one step (1, B, C, ...) shown `time_steps` times. weight, bias, mean and inverse, which is
    1 / sqrt(variance + eps), are (C,) float32, or all None: no normalisation; those with a 2 are the residual's. state,
    gain, tau, threshold and detach_reset are as in `spikeback.lif`, kind and parameter the surrogate's (`code`). With
    batch_statistics, mean and inverse are those of x itself (and of the residual): x's gradient flows through them too,
    and they get none of their own; if `shared`, they are those of all processes' x together. Without keep_membrane an
    empty tensor stands for the membrane.

    Returns:
        spikes (T, B, C, ...), and the membrane after the last reset, (B, C, ...) float32.
    """
    affine, affine2 = _affine(weight, bias, mean, inverse), _affine(weight2, bias2, mean2, inverse2)
    if affine is None and affine2 is not None:
        raise ValueError("norm_lif: a residual with a norm needs an x with one; change places")
    return primitives(x.device).forward(
        x, affine, residual, affine2, state, time_steps, tau, threshold, keep_membrane
    )  # fmt: skip


@fake(norm_lif)
def _(x: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    last, steps, keep_membrane = is_channels_last(x), args[13], args[-1]
    spikes = empty((steps, *x.shape[1:]), x, last)
    return spikes, membrane_like(x) if keep_membrane else x.new_empty(0, dtype=torch.float32)


@define()
def norm_lif_backward(
    grad: Tensor | None,
    grad_membrane: Tensor | None,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    inverse: Tensor | None,
    residual: Tensor | None,
    weight2: Tensor | None,
    bias2: Tensor | None,
    mean2: Tensor | None,
    inverse2: Tensor | None,
    state: Tensor | None,
    gain: Tensor,
    batch_statistics: bool,
    shared: bool,
    time_steps: int,
    tau: float,
    threshold: float,
    kind: int,
    parameter: float,
    detach_reset: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of `norm_lif`: (x, residual, state, parameters); parameters are (4, C) of weight, bias, weight2, bias2.

    A residual that is added as it is has the current's gradient: without `weight` that is x's, and none is returned.
    """
    kernels = primitives(x.device)
    grad = x.new_zeros(()).expand(time_steps, *x.shape[1:]) if grad is None else grad
    affine, affine2 = _affine(weight, bias, mean, inverse), _affine(weight2, bias2, mean2, inverse2)
    g, grad_state, sums = kernels.backward(
        grad, grad_membrane, x, affine, residual, affine2, state, gain, time_steps, tau, threshold, kind, parameter,
        detach_reset,
    )  # fmt: skip
    nothing = partial(x.new_empty, 0)  # outputs of an operator may not be one tensor twice
    grad_state = nothing() if state is None else grad_state
    if affine is None:
        return g, nothing(), grad_state, nothing()
    count, pooled = x.numel() // x.shape[2], None
    if shared:  # the mean and variance of all depend on every process's x
        pooled = sum_over_processes(torch.cat((sums, sums.new_full((1, sums.shape[1]), count))))
    parameters, coefficients, coefficients2 = kernels.gradients(sums, pooled, count, affine, affine2, batch_statistics)
    if residual is None:
        grad_x, grad_residual = kernels.combine(g, x, coefficients, out=g), nothing()
    elif affine2 is None:
        grad_x, grad_residual = kernels.combine(g, x, coefficients), g
    else:
        grad_residual = kernels.combine(g, residual, coefficients2)
        grad_x = kernels.combine(g, x, coefficients, out=g)
    return grad_x, grad_residual, grad_state, parameters


@fake(norm_lif_backward)
def _(grad: Tensor | None, grad_membrane: Tensor | None, x: Tensor, weight: Tensor | None, *args: Any) -> Any:
    last, residual = is_channels_last(x), args[3]
    nothing = partial(x.new_empty, 0)
    state = nothing() if args[8] is None else membrane_like(x)
    if weight is None:
        return empty(x.shape, x, last), nothing(), state, nothing()
    grad_residual = nothing() if residual is None else empty(x.shape, x, last)
    return empty(x.shape, x, last), grad_residual, state, weight.new_empty((4, x.shape[2]))


def _affine(weight: Tensor | None, bias: Tensor | None, mean: Tensor | None, inverse: Tensor | None) -> Affine | None:
    if weight is None or bias is None or mean is None or inverse is None:
        return None
    return weight.contiguous(), bias.contiguous(), mean.contiguous(), inverse.contiguous()  # kernels read them so


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    tensors, ctx.options = inputs[:12], inputs[12:-1]
    ctx.save_for_backward(*tensors)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor | None, grad_membrane: Tensor | None) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors
    weight, residual, weight2, state = (tensors[i] for i in (1, 5, 6, 10))
    grad_x, grad_residual, grad_state, parameters = norm_lif_backward(grad, grad_membrane, *tensors, *ctx.options)
    if residual is not None and weight is None:
        grad_residual = grad_x
    grads: list[Tensor | None] = [grad_x, None, None, None, None, None if residual is None else grad_residual]
    grads += [None] * (len(tensors) + len(ctx.options) + 1 - len(grads))
    if weight is not None:
        grads[1:3] = parameters[0], parameters[1]
    if weight2 is not None:
        grads[6:8] = parameters[2], parameters[3]
    grads[10] = None if state is None else grad_state
    return tuple(grads)


differentiate(norm_lif, _setup, _backward)
