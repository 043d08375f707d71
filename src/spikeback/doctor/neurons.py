"""Stand-in."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from spikeback.nn import LIF


@dataclass(frozen=True)
class Neuron:
    threshold: float
    leak: float | None
    scale: float
    reset: Literal["hard", "soft", "none"]
    detach_reset: bool
    membrane: Callable[[Tensor, Tensor], Tensor]
    derivative: Callable[[Tensor], Tensor]


def _membrane(leak, current, spikes):
    u, out = torch.zeros_like(current[0], dtype=torch.float32), []
    for c, s in zip(current.float(), spikes.float(), strict=True):
        u = leak * u + c
        out.append(u)
        u = u * (1 - s)
    return torch.stack(out)


def neuron_of(module: nn.Module) -> Neuron | None:
    if not isinstance(module, LIF):
        return None
    return Neuron(
        module.threshold,
        module.tau,
        1.0,
        "hard",
        module.detach_reset,
        partial(_membrane, module.tau),
        lambda u: module.gain * module.surrogate(u, module.threshold),
    )


def spiking_layers(net, is_spiking=None):
    return {n: m for n, m in net.named_modules() if isinstance(m, LIF) or (is_spiking and is_spiking(m))}
