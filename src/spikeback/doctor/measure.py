"""Gradients, spikes and membranes of one network on one batch, from one forward and one backward pass."""

import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from spikeback.doctor.neurons import spiking_layers
from spikeback.doctor.spikes import Layer, Seen, look, time_first
from spikeback.doctor.undisturbed import entering, listening, undisturbed
from spikeback.shortcut.adapt import first

LOGARITHMS = torch.linspace(-12, 2, 57)  # of a gradient's entries, to the base of 10


@dataclass
class Flow:
    """What is known of dL/d(output) of a module after a backward pass: sums of squares by call and leading index."""

    shapes: list[torch.Size] = field(default_factory=list)
    squares: dict[int, Tensor] = field(default_factory=dict)  # by call

    def watch(self, z: Tensor) -> None:
        """Note the gradient that reaches `z` once it is known; nothing of `z` is kept."""
        call = len(self.shapes)
        self.shapes.append(z.shape)
        if z.requires_grad:
            z.register_hook(partial(self._note, call))

    def _note(self, call: int, grad: Tensor) -> None:
        grad = grad.detach()
        rows = torch.linalg.vector_norm(grad.to(torch.promote_types(grad.dtype, torch.float32)).flatten(1), dim=1)
        self.squares[call] = rows.double().square().cpu()

    @property
    def norm(self) -> float:
        """||dL/d(output)||, over all calls."""
        return math.sqrt(sum(rows.sum().item() for rows in self.squares.values()))

    def by_step(self, batch: int) -> list[float]:
        """The same for every time step of outputs (T, B, ...), (T*B, ...) or, called T times, (B, ...)."""
        rows = [self.squares.get(i, torch.zeros(shape[0])) for i, shape in enumerate(self.shapes)]
        if len(rows) == 1:
            timed = time_first(self.shapes[0], batch)
            steps = rows[0] if timed or len(rows[0]) % batch else rows[0].unflatten(0, (-1, batch)).sum(1)
        else:
            steps = torch.stack([r.sum() for r in rows]) if rows else torch.zeros(0)
        return steps.sqrt().tolist()


@dataclass
class Pass:
    """One forward and backward pass: gradients at inputs and outputs of blocks, and of the weights."""

    loss: float
    flows: dict[str, Flow]
    inputs: dict[str, Flow]
    gradients: dict[str, Tensor]
    layers: list[Layer]

    @property
    def norms(self) -> dict[str, float]:
        """||dL/d(block output)|| by block."""
        return {name: flow.norm for name, flow in self.flows.items()}

    @property
    def gains(self) -> dict[str, float | None]:
        """||dL/d(block input)|| / ||dL/d(block output)|| by block; None where either is unknown or 0."""
        pairs = {name: (self.inputs[name], flow) for name, flow in self.flows.items()}
        return {name: x.norm / z.norm if x.squares and z.norm > 0 else None for name, (x, z) in pairs.items()}


def propagate(
    net: nn.Module,
    blocks: list[str],
    loss: Callable[[], Tensor],
    layers: Mapping[str, nn.Module] | None = None,
    batch: int = 0,
) -> Pass:
    """Run `loss`, which calls `net` once, forwards and backwards, in the network's mode.

    Args:
        net: the network whose modules are named.
        blocks: dotted module names, in network order.
        loss: computes the scalar loss.
        layers: spiking layers to look at, by name.
        batch: the number of samples, which tells time and samples apart.
    """
    flows, inputs = {name: Flow() for name in blocks}, {name: Flow() for name in blocks}
    seen = {name: Seen() for name in layers or {}}
    latest: list[tuple[Any, Flow]] = [(None, Flow())]  # the last block's output is mostly the next one's input

    def left(name: str, z: Tensor) -> None:
        flows[name].watch(z)
        latest[0] = (z, flows[name])

    def entered(name: str, x: Any) -> None:
        z, flow = latest[0]
        if x is z and len(flow.shapes) == 1 and not inputs[name].shapes:
            inputs[name] = flow
        elif x is not None:
            inputs[name].watch(first(x))

    with torch.enable_grad(), ExitStack() as hooks:
        for name in blocks:
            block = net.get_submodule(name)
            hooks.enter_context(entering(block, partial(entered, name)))
            hooks.enter_context(listening(block, lambda _, out, name=name: left(name, first(out))))
        for name, calls in seen.items():
            hooks.enter_context(listening(net.get_submodule(name), calls.add))
        value = loss()
        latest.clear()
        found = [look(name, (layers or {})[name], calls, batch) for name, calls in seen.items() if calls.spikes]
        seen.clear()
        parameters = {name: p for name, p in net.named_parameters() if p.requires_grad}
        grads = torch.autograd.grad(value, [value, *parameters.values()], allow_unused=True)[1:]
    known = {name: g for name, g in zip(parameters, grads, strict=True) if g is not None}
    return Pass(value.item(), flows, inputs, known, found)


def block_gradients(net: nn.Module, blocks: list[str], loss: Callable[[], Tensor]) -> dict[str, float]:
    """Norm of dL/d(block output) for each named block of `net`, in training mode.

    Args:
        net: the network whose modules are named.
        blocks: dotted module names, in network order.
        loss: computes the scalar loss by calling `net` once.
    """
    with undisturbed(net):
        net.train()
        return propagate(net, blocks, loss).norms if blocks else {}


def block_names(net: Any) -> list[str]:
    """The residual blocks (layers of a VGG) by dotted name, in network order, from `feature_info`."""
    return [entry["module"] for entry in net.feature_info if entry["kind"] == "block"]


def firing_rate(net: nn.Module, x: Tensor) -> float:
    """Spikes per neuron and time step, averaged over the spiking layers of `net` in evaluation mode."""
    rates: list[float] = []
    with undisturbed(net), torch.no_grad(), ExitStack() as hooks:
        net.eval()
        for layer in spiking_layers(net).values():
            hooks.enter_context(listening(layer, lambda _, out: rates.append(first(out).float().mean().item())))
        net(x)
    return sum(rates) / len(rates) if rates else 0.0


def keep_histogram(record: dict[str, Any], gradient: Tensor | None) -> None:
    """Append the distribution of log10 |gradient| to `record`: `edges`, and rows of `counts` and `zeros`.

    What lies beyond the edges is counted in the outermost bins.
    """
    record.setdefault("edges", LOGARITHMS.tolist())
    values = torch.zeros(0) if gradient is None else gradient.detach().float().abs().flatten().cpu()
    logs = values[values > 0].log10().clamp(LOGARITHMS[0], LOGARITHMS[-1])
    record.setdefault("counts", []).append(torch.histogram(logs, LOGARITHMS).hist.int().tolist())
    record.setdefault("zeros", []).append(int((values == 0).sum()))
