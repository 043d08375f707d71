"""The fused neuron as `torch.library` operators: normalisation, residual addition and LIF in one, with its gradient.

Every device brings the same primitives (cpu.py, triton.py): `moments`, `normaliser`, `forward`, `backward`,
`gradients`, `combine`. Neither the normalised current nor the membrane is kept for the backward pass: it computes them
again from x, the convolution's output.
"""

import importlib
from collections.abc import Sequence
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor

from spikeback.ops.allocator import empty
from spikeback.ops.library import define, differentiate, fake
from spikeback.ops.lif.layout import Affine, is_channels_last, membrane_like
from spikeback.ops.processes import sum_over_processes

PRIMITIVES = {"cpu": "spikeback.ops.lif.cpu", "cuda": "spikeback.ops.lif.triton"}
TENSORS = (
    "x", "gain", "weight", "bias", "statistics", "residual", "weight2", "bias2", "statistics2", "state",
)  # fmt: skip


class Constants(NamedTuple):
    """The numbers of a neuron: leak, V_th, the surrogate's kind and parameter (`spikeback.ops.lif.code`), reset."""

    tau: float
    threshold: float
    kind: int
    parameter: float
    detach_reset: bool

    @classmethod
    def of(cls, numbers: Sequence[float]) -> "Constants":
        """From the numbers that an operator gets, which are all floats."""
        tau, threshold, kind, parameter, detach_reset = numbers
        return cls(tau, threshold, int(kind), parameter, bool(detach_reset))


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
    gain: Tensor,
    constants: Sequence[float],
    time_steps: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    statistics: Tensor | None = None,
    residual: Tensor | None = None,
    weight2: Tensor | None = None,
    bias2: Tensor | None = None,
    statistics2: Tensor | None = None,
    state: Tensor | None = None,
    over: str = "running",
    keep_membrane: bool = True,
) -> tuple[Tensor, Tensor]:
    """LIF of (x - mean) * inverse * weight + bias, plus the residual, normalised likewise if `weight2` is given.

    Args:
        x: (T, B, C, ...), or one step (1, B, C, ...) shown `time_steps` times.
        gain: as in `spikeback.lif`.
        constants: tau, threshold, the surrogate's kind and parameter (`code`), detach_reset: see `Constants`.
        time_steps: T.
        weight: of the norm, (C,) float32, or None: no normalisation.
        bias: likewise.
        statistics: mean and inverse, which is 1 / sqrt(variance + eps), (2, C) float32. They get no gradient.
        residual: of x's shape, or None.
        weight2: of the residual's norm, or None: it is added as it is.
        bias2: likewise.
        statistics2: likewise.
        state: as in `spikeback.lif`.
        over: what the statistics are of: "running" ones are constants; of this "batch", or of those of all "processes"
            together, the gradient of x flows through them too.
        keep_membrane: otherwise an empty tensor stands for the membrane.

    Returns:
        spikes (T, B, C, ...), and the membrane after the last reset, (B, C, ...) float32.
    """
    affine, affine2 = _affine(weight, bias, statistics), _affine(weight2, bias2, statistics2)
    if affine is None and affine2 is not None:
        raise ValueError("norm_lif: a residual with a norm needs an x with one; change places")
    tau, threshold, *_ = constants
    return primitives(x.device).forward(x, affine, residual, affine2, state, time_steps, tau, threshold, keep_membrane)


@fake(norm_lif)
def _(
    x: Tensor, gain: Tensor, constants: Any, time_steps: int, weight: Any = None, bias: Any = None,
    statistics: Any = None, residual: Any = None, weight2: Any = None, bias2: Any = None, statistics2: Any = None,
    state: Any = None, over: str = "", keep_membrane: bool = True,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    spikes = empty((time_steps, *x.shape[1:]), x, is_channels_last(x))
    return spikes, membrane_like(x) if keep_membrane else x.new_empty(0, dtype=torch.float32)


@define()
def norm_lif_backward(
    grad: Tensor | None,
    grad_membrane: Tensor | None,
    x: Tensor,
    gain: Tensor,
    constants: Sequence[float],
    time_steps: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    statistics: Tensor | None = None,
    residual: Tensor | None = None,
    weight2: Tensor | None = None,
    bias2: Tensor | None = None,
    statistics2: Tensor | None = None,
    state: Tensor | None = None,
    over: str = "running",
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of `norm_lif`: (x, residual, state, parameters); parameters are (4, C) of weight, bias, weight2, bias2.

    A residual that is added as it is has the current's gradient: without `weight` that is x's, and none is returned.
    """
    kernels = primitives(x.device)
    grad = x.new_zeros(()).expand(time_steps, *x.shape[1:]) if grad is None else grad
    affine, affine2 = _affine(weight, bias, statistics), _affine(weight2, bias2, statistics2)
    g, grad_state, sums = kernels.backward(
        grad, grad_membrane, x, affine, residual, affine2, state, gain, time_steps, *Constants.of(constants)
    )
    nothing = partial(x.new_empty, 0)  # outputs of an operator may not be one tensor twice
    grad_state = nothing() if state is None else grad_state
    if affine is None:
        return g, nothing(), grad_state, nothing()
    count, pooled = x.numel() // x.shape[2], None
    if over == "processes":  # the mean and variance of all depend on every process's x
        pooled = sum_over_processes(torch.cat((sums, sums.new_full((1, sums.shape[1]), count))))
    parameters, coefficients, coefficients2 = kernels.gradients(
        sums, pooled, count, affine, affine2, over != "running"
    )  # fmt: skip
    if residual is None:
        grad_x, grad_residual = kernels.combine(g, x, coefficients, out=g), nothing()
    elif affine2 is None:
        grad_x, grad_residual = kernels.combine(g, x, coefficients), g
    else:
        grad_residual = kernels.combine(g, residual, coefficients2)
        grad_x = kernels.combine(g, x, coefficients, out=g)
    return grad_x, grad_residual, grad_state, parameters


@fake(norm_lif_backward)
def _(
    grad: Any, grad_membrane: Any, x: Tensor, gain: Tensor, constants: Any, time_steps: int,
    weight: Tensor | None = None, bias: Any = None, statistics: Any = None, residual: Tensor | None = None,
    weight2: Any = None, bias2: Any = None, statistics2: Any = None, state: Tensor | None = None, over: str = "",
) -> Any:  # fmt: skip
    last, nothing = is_channels_last(x), partial(x.new_empty, 0)
    grad_state = nothing() if state is None else membrane_like(x)
    if weight is None:
        return empty(x.shape, x, last), nothing(), grad_state, nothing()
    grad_residual = nothing() if residual is None else empty(x.shape, x, last)
    return empty(x.shape, x, last), grad_residual, grad_state, weight.new_empty((4, x.shape[2]))


def _affine(weight: Tensor | None, bias: Tensor | None, statistics: Tensor | None) -> Affine | None:
    if weight is None or bias is None or statistics is None:
        return None
    mean, inverse = statistics.contiguous()  # kernels read them so
    return weight.contiguous(), bias.contiguous(), mean, inverse


_tensors, _options = itemgetter(*TENSORS), itemgetter("constants", "time_steps", "over")


def _save(ctx: Any, given: dict[str, Any], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*_tensors(given))
    ctx.options = _options(given)
    ctx.set_materialize_grads(False)


def _backward(
    ctx: Any, needed: set[str], grad: Tensor | None, grad_membrane: Tensor | None
) -> dict[str, Tensor | None]:
    given: dict[str, Any] = dict(zip(TENSORS, ctx.saved_tensors, strict=True))
    constants, time_steps, over = ctx.options
    x, gain, *others = ctx.saved_tensors
    x, residual, state, parameters = norm_lif_backward(
        grad, grad_membrane, x, gain, constants, time_steps, *others, over
    )
    found: dict[str, Tensor | None] = {"x": x, "residual": residual, "state": state}
    if given["weight"] is None:
        found["residual"] = x
    else:
        found |= zip(("weight", "bias", "weight2", "bias2"), parameters, strict=True)
    return {name: value for name, value in found.items() if given[name] is not None}


differentiate(norm_lif, _save, _backward)
