"""Gradients, spikes and membranes of one network on one batch, from one forward and one backward pass."""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from spikeback.doctor.neurons import Neuron, neuron_of, spiking_layers
from spikeback.doctor.undisturbed import undisturbed
from spikeback.shortcut.adapt import first

SAMPLES = 16  # of a batch, whose membranes are looked at
EDGES = [-2 + 0.125 * i for i in range(49)]  # of the membrane's histogram, in thresholds


@dataclass
class Flow:
    """Sums of squares of dL/d(output) by leading index, for every call of a module in one forward."""

    shapes: list[torch.Size] = field(default_factory=list)
    squares: dict[int, Tensor] = field(default_factory=dict)  # by call

    def watch(self, z: Tensor) -> None:
        """Note the gradient that reaches `z` once it is known; nothing of `z` is kept."""
        call = len(self.shapes)
        self.shapes.append(z.shape)
        if z.requires_grad:
            z.register_hook(lambda grad: self._note(call, grad))

    def _note(self, call: int, grad: Tensor) -> None:
        rows = grad.detach().flatten(1) if grad.ndim > 1 else grad.detach()[:, None]
        self.squares[call] = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float32).double().square()

    @property
    def norm(self) -> float:
        """||dL/d(output)||, over all calls."""
        return math.sqrt(sum(rows.sum().item() for rows in self.squares.values()))

    def by_step(self, batch: int) -> list[float]:
        """The same for every time step of outputs (T, B, ...), (T*B, ...) or, called T times, (B, ...)."""
        rows = [self.squares.get(i, torch.zeros(shape[0])) for i, shape in enumerate(self.shapes)]
        if len(rows) == 1:
            steps = rows[0] if _time_first(self.shapes[0], batch) else rows[0].unflatten(0, (-1, batch)).sum(1)
        else:
            steps = torch.stack([r.sum() for r in rows]) if rows else torch.zeros(0)
        return steps.sqrt().tolist()


@dataclass
class Layer:
    """One spiking layer in one forward pass; rates and shares are fractions."""

    name: str
    threshold: float | None
    rate: float
    rate_by_step: list[float]
    silent: float  # neurons that never fire in the batch
    saturated: float  # that fire at every step of every sample
    current_mean: float
    current_std: float
    active: float | None = None  # membranes where the surrogate's derivative is not 0 (unbounded: above 1 % of its peak)
    derivative: float | None = None  # its mean
    second_moment: float | None = None  # its mean square
    fires_without_leak: float | None = None  # neurons whose summed current exceeds the threshold in some sample
    membrane: dict[str, list[float]] | None = None


def block_gradients(net: nn.Module, blocks: list[str], loss: Callable[[], Tensor]) -> dict[str, float]:
    """Norm of dL/d(block output) for each named block of `net`, in training mode.

    Args:
        net: the network whose modules are named.
        blocks: dotted module names, in network order.
        loss: computes the scalar loss by calling `net` once.
    """
    with undisturbed(net):
        net.train()
        return {name: flow.norm for name, flow in flows(net, blocks, loss)[1].items()}


def flows(net: nn.Module, blocks: list[str], loss: Callable[[], Tensor]) -> tuple[Tensor, dict[str, Flow], Tensors]:
    """The loss, how the gradient flows through the outputs of the blocks, and the gradient of every parameter."""
    found = {name: Flow() for name in blocks}
    with torch.enable_grad(), ExitStack() as hooks:
        for name, flow in found.items():
            hooks.enter_context(listening(net.get_submodule(name), lambda _in, out, flow=flow: flow.watch(first(out))))
        value = loss()
    parameters = {name: p for name, p in net.named_parameters() if p.requires_grad}
    grads = torch.autograd.grad(value, [*parameters.values()], allow_unused=True)
    return value.detach(), found, {n: g for n, g in zip(parameters, grads, strict=True) if g is not None}
