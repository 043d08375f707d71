"""What the doctor knows of a spiking layer: its recursion and the derivative of its backward pass."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from spikeback.nn import LIF


@dataclass(frozen=True)
class Neuron:
    """What the doctor knows of one spiking layer: how its membrane follows from currents and spikes, and g'."""

    threshold: float
    leak: float | None
    scale: float
    reset: Literal["hard", "soft", "none"]
    detach_reset: bool
    membrane: Callable[[Tensor, Tensor], Tensor]
    derivative: Callable[[Tensor], Tensor]


def neuron_of(module: nn.Module) -> Neuron | None:
    """The `Neuron` of a layer we know, else None."""
    if not isinstance(module, LIF):
        return None
    lif = module

    def membrane(current: Tensor, spikes: Tensor) -> Tensor:
        u, out = torch.zeros_like(current[0], dtype=torch.float32), []
        for c, s in zip(current.float(), spikes.float(), strict=True):
            u = lif.tau * u + c
            out.append(u)
            u = u * (1 - s)
        return torch.stack(out)

    def derivative(u: Tensor) -> Tensor:
        return lif.gain * lif.surrogate(u, lif.threshold)

    return Neuron(lif.threshold, lif.tau, 1.0, "hard", lif.detach_reset, membrane, derivative)


def spiking_layers(net: nn.Module, is_spiking: Callable[[nn.Module], bool] | None = None) -> dict[str, nn.Module]:
    """Spiking layers by dotted name, in network order."""
    known = is_spiking or (lambda module: neuron_of(module) is not None)
    return {name: module for name, module in net.named_modules() if known(module)}
