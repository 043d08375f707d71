"""What the doctor needs of a spiking layer: its membrane, replayed from what was recorded, and its derivative."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class Neuron:
    """What the doctor knows of one spiking layer: how its membrane follows from currents and spikes, and g'.

    Attributes:
        threshold: V_th, one number for the layer.
        leak: lambda of u_{t+1} = lambda * post(u_t) + kappa * c_{t+1}; None: the recursion is another one.
        scale: kappa.
        reset: post(u) is u (1 - s) if "hard", u - threshold * s if "soft", u if "none".
        detach_reset: no gradient flows through the reset.
        membrane: (current, spikes), (T, B, ...) each -> u just before firing, (T, B, ...), float32. It follows the
            spikes that were recorded, so a membrane at the threshold cannot go astray by a rounding.
        derivative: u -> the derivative used in the backward pass, gain included, of the same shape.
    """

    threshold: float
    leak: float | None
    scale: float
    reset: Literal["hard", "soft", "none"]
    detach_reset: bool
    membrane: Callable[[Tensor, Tensor], Tensor]
    derivative: Callable[[Tensor], Tensor]


def replay(step: Callable[[Any, Tensor, Tensor], tuple[Tensor, Any]], start: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """The `membrane` of a recursion `step(state, c_t, s_t) -> (u_t, state)` that begins in the state `start`."""

    @torch.no_grad()
    def membrane(current: Tensor, spikes: Tensor) -> Tensor:
        state, membranes = start, []
        for c, s in zip(current.float(), spikes.float(), strict=True):
            u, state = step(state, c, s)
            membranes.append(u)
        return torch.stack(membranes)

    return membrane


def slope(fire: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The `derivative` of an elementwise spike function, as autograd has it; 0 of a function that has none."""

    def derivative(u: Tensor) -> Tensor:
        with torch.enable_grad():
            u = u.detach().requires_grad_()
            spikes = fire(u)
            if not spikes.requires_grad:
                return torch.zeros_like(u)
            return torch.autograd.grad(spikes.sum(), u)[0]

    return derivative


def number(value: Any) -> float | None:
    """A parameter of a neuron as one number; None if it differs from neuron to neuron."""
    values = torch.as_tensor(value, dtype=torch.float64).detach().flatten()
    return values[0].item() if len(values) and bool((values == values[0]).all()) else None
