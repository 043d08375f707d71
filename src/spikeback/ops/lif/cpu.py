"""The primitives of the fused neuron on the CPU: compiled kernels (ops/native) behind tensors.

Tensors are (T, B, C, ...); results have x's dtype and layout. The current is (x - mean) * (weight * inverse) + bias by
channel, plus a residual that is added as it is or normalised likewise, by `affine2`. `affine` holds weight, bias, mean
and inverse, (C,) float32 each; None: the current is x itself.
"""

import math
from typing import Any

import torch
from torch import Tensor

from spikeback.ops import native
from spikeback.ops.allocator import empty
from spikeback.ops.lif.layout import Affine, Statistics, dense, is_channels_last, membrane_like

DTYPES = (torch.float32, torch.bfloat16)


def forward(
    x: Tensor,
    affine: Affine | None,
    residual: Tensor | None,
    affine2: Affine | None,
    state: Tensor | None,
    time_steps: int,
    tau: float,
    threshold: float,
    keep_membrane: bool = True,
) -> tuple[Tensor, Tensor]:
    """Spikes (T, B, C, ...) and the membrane after the last reset (B, C, ...), float32; empty if it is not kept.

    x has T time steps, or one that is shown T times.
    """
    last = is_channels_last(x)
    spikes = empty((time_steps, *x.shape[1:]), x, last)
    membrane = membrane_like(x) if keep_membrane else None
    _run(
        "forward", x, last, time_steps, out=spikes, affine=affine, residual=residual, affine2=affine2,
        state=state, membrane=membrane, tau=tau, threshold=threshold,
    )  # fmt: skip
    return spikes, x.new_empty(0, dtype=torch.float32) if membrane is None else membrane


def backward(
    grad: Tensor,
    grad_membrane: Tensor | None,
    x: Tensor,
    affine: Affine | None,
    residual: Tensor | None,
    affine2: Affine | None,
    state: Tensor | None,
    gain: Tensor,
    time_steps: int,
    tau: float,
    threshold: float,
    kind: int,
    parameter: float,
    detach_reset: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """g = dL/d(current), dL/d(state) if there is one, and sums by channel, (3, C) float64.

    g has x's shape: of a single step of x it is the sum over time.
    The sums are those of g and g * (x - mean), 0 without `affine`, and g * (residual - its mean), 0 without
    `affine2`. The membrane is computed again from x, piece by piece.
    """
    last = is_channels_last(x)
    g = empty(x.shape, x, last)
    grad_state = None if state is None else membrane_like(x)
    sums = torch.zeros(3, 1 if affine is None else x.shape[2], dtype=torch.float64)
    _run(
        "backward", x, last, time_steps, out=g, affine=affine, residual=residual, affine2=affine2, state=state,
        grad=grad, grad_membrane=grad_membrane, grad_state=grad_state, sums=sums, tau=tau, threshold=threshold,
        gain=float(gain), kind=kind, parameter=parameter, detach_reset=detach_reset,
    )  # fmt: skip
    return g, x.new_empty(0) if grad_state is None else grad_state, sums


def moments(x: Tensor) -> Tensor:
    """Mean and biased variance by channel, over everything but C: (2, C) float64."""
    if x.numel() == 0:
        return x.new_full((2, x.shape[2]), math.nan, dtype=torch.float64)
    result = x.new_empty(2, x.shape[2], dtype=torch.float64)
    _run("moments", x, is_channels_last(x), x.shape[0], sums=result)
    return result


def normaliser(x: Tensor, statistics: Statistics, momentum: float, eps: float) -> Tensor:
    """Mean and 1 / sqrt(variance + eps), (2, C) float32; float32 running statistics go on, if there are any."""
    running_mean, running_var, tracked = statistics
    result = x.new_empty(2, x.shape[2], dtype=torch.float32)
    count = x.numel() // x.shape[2]
    native.call("normaliser", moments(x), x.shape[2], count, momentum, eps, running_mean, running_var, result)
    if tracked is not None:
        tracked.add_(1)
    return result


def gradients(
    sums: Tensor, pooled: Tensor | None, count: int, affine: Affine, affine2: Affine | None, batch_statistics: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """From the sums of `backward`: gradients by weight, bias, weight2, bias2, and coefficients for x and the residual.

    All are (4, C) float32, the coefficients for `combine`: with batch_statistics a gradient flows through mean and
    variance too, those of `count` values or, of several processes, of all: `pooled` are their sums and counts, (4, C).
    """
    (weight, _, mean, inverse), (weight2, _, mean2, inverse2) = affine, affine2 or [None] * 4
    channels = sums.shape[1]
    parameters, coefficients, coefficients2 = numbers = sums.new_empty(3, 4, channels, dtype=torch.float32)
    native.call(
        "gradients", sums, pooled, weight, mean, inverse, weight2, mean2, inverse2, channels, count, batch_statistics,
        numbers,
    )  # fmt: skip
    return parameters, coefficients, coefficients2


def combine(g: Tensor, x: Tensor, coefficients: Tensor, out: Tensor | None = None) -> Tensor:
    """a * g + b * (x - mean) + d by channel, into `out`, which may be g; coefficients (4, C) are mean, a, b, d."""
    last = is_channels_last(x)
    out = empty(x.shape, x, last) if out is None else out
    _run("combine", x, last, x.shape[0], grad=g, coefficients=coefficients, out=out)
    return out


def _run(name: str, x: Tensor, last: bool, time_steps: int, **values: Any) -> None:
    """Bring every tensor into x's layout, name steps and sizes, and run the kernel."""
    values["x"] = x
    for key in ("x", "residual", "grad"):
        if (t := values.get(key)) is not None:
            values[key] = t = dense(t if t.dtype == x.dtype else t.to(x.dtype), last)
            values[f"{key}_step"] = t.stride(0)
    for key in ("affine", "affine2"):
        if (of := values.get(key)) is not None:
            weight, bias, mean, inverse = of
            values[key] = torch.stack((mean, weight * inverse, bias))
    for key in ("state", "grad_membrane"):
        if (t := values.get(key)) is not None:
            values[key] = dense(t[None].float(), last)[0]
    size = math.prod(x.shape[1:])
    if name in ("forward", "backward") and values["affine"] is None:
        outer, channels, inner = 1, 1, size  # no channel matters: one long row
    else:
        channels = x.shape[2]
        inner = 1 if last else math.prod(x.shape[3:])
        outer = size // max(channels * inner, 1)
    repeated = x.shape[0] == 1 < time_steps
    native.run(
        name, size * time_steps, x.dtype == torch.bfloat16, steps=time_steps, outer=outer, channels=channels,
        inner=inner, repeated=repeated, **values | ({"x_step": 0} if repeated else {}),
    )  # fmt: skip
