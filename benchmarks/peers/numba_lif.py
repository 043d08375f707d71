"""The neuron in numba, the other way to native code that was considered: triangle surrogate, float32, T steps of N."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

TAU, THRESHOLD = np.float32(0.25), np.float32(0.5)
ONE, PIECE = np.float32(1), 2048


@njit(parallel=True, error_model="numpy")
def fire(x: Any, spikes: Any) -> None:
    steps, size = x.shape
    for piece in prange((size + PIECE - 1) // PIECE):
        start, end = piece * PIECE, min(size, piece * PIECE + PIECE)
        u = np.zeros(PIECE, np.float32)
        for t in range(steps):
            for j in range(start, end):
                v = TAU * u[j - start] + x[t, j]
                s = ONE if v > THRESHOLD else ONE - ONE
                spikes[t, j] = s
                u[j - start] = v * (ONE - s)


@njit(parallel=True, error_model="numpy")
def fire_backward(grad: Any, x: Any, out: Any) -> None:
    steps, size = x.shape
    for piece in prange((size + PIECE - 1) // PIECE):
        start, end = piece * PIECE, min(size, piece * PIECE + PIECE)
        u, carry = np.zeros((steps, PIECE), np.float32), np.zeros(PIECE, np.float32)
        for t in range(steps):
            for j in range(start, end):
                v = TAU * carry[j - start] + x[t, j]
                u[t, j - start] = v
                carry[j - start] = v if v <= THRESHOLD else ONE - ONE
        carry[:] = 0
        for t in range(steps - 1, -1, -1):
            for j in range(start, end):
                v = u[t, j - start]
                s = ONE if v > THRESHOLD else ONE - ONE
                slope = max(ONE - abs(v / THRESHOLD - ONE), ONE - ONE)
                g = carry[j - start] * (ONE - s) + (grad[t, j] - carry[j - start] * v) * slope
                out[t, j] = g
                carry[j - start] = TAU * g


class Fire(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        spikes = torch.empty_like(x)
        fire(x.detach().flatten(1).numpy(), spikes.flatten(1).numpy())
        return spikes

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        out = torch.empty_like(x)
        fire_backward(grads[0].flatten(1).numpy(), x.detach().flatten(1).numpy(), out.flatten(1).numpy())
        return out


def neuron_alone() -> Callable[[Tensor], Tensor]:
    """Current (T, B, ...), contiguous -> spikes."""
    return Fire.apply
