"""Gradients, spikes and membranes of one network on one batch, from one forward and one backward pass."""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from spikeback.doctor.adapters.neurons import spiking_layers
from spikeback.doctor.measure.case import Case
from spikeback.doctor.measure.readout import watched
from spikeback.doctor.measure.spikes import Layer, Seen
from spikeback.foreign import Layout, first
from spikeback.foreign.undisturbed import entering, listening, undisturbed

LOGARITHMS = torch.linspace(-12, 2, 57)  # of a gradient's entries, to the base of 10


@dataclass(eq=False)
class Flow:
    """What is known of dL/d(output) of a module after a backward pass: sums of squares by call and time step."""

    layout: Layout = field(default_factory=Layout)
    batch: int = 0  # 0: not known, and time steps are not told apart
    steps: list[int] = field(default_factory=list)  # of each call
    squares: dict[int, Tensor] = field(default_factory=dict)  # by call

    def watch(self, z: Tensor) -> None:
        """Note the gradient that reaches `z` once it is known; nothing of `z` is kept."""
        call = len(self.steps)
        self.steps.append(len(self._by_time(z)))
        if z.requires_grad:
            z.register_hook(partial(self._note, call))

    def _note(self, call: int, grad: Tensor) -> None:
        steps = torch.linalg.vector_norm(self._by_time(grad.detach()).flatten(1), dim=1, dtype=torch.float64)
        self.squares[call] = steps.square().cpu()

    def _by_time(self, z: Tensor) -> Tensor:
        return self.layout.time_first(z, self.batch) if self.batch else z.unsqueeze(0)

    @property
    def norm(self) -> float:
        """||dL/d(output)||, over all calls."""
        return math.sqrt(sum(rows.sum().item() for rows in self.squares.values()))

    @property
    def by_step(self) -> list[float]:
        """The same for every time step."""
        steps = [self.squares.get(i, torch.zeros(count)) for i, count in enumerate(self.steps)]
        return torch.cat(steps).sqrt().tolist() if steps else []


@dataclass
class Pass:
    """One forward and backward pass: gradients at inputs and outputs of blocks, and of the weights."""

    loss: float
    flows: dict[str, Flow]
    inputs: dict[str, Flow]
    gradients: dict[str, Tensor]
    layers: list[Layer]
    readouts: list[str] = field(default_factory=list)  # layers whose membranes are read, not their spikes

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
    x: Tensor | None = None,
    layout: Callable[[str], Layout] = lambda name: Layout(),
) -> Pass:
    """Run `loss`, which calls `net` once, forwards and backwards, in the network's mode.

    Args:
        net: the network whose modules are named.
        blocks: dotted module names, in network order.
        loss: computes the scalar loss.
        layers: spiking layers to look at, by name.
        batch: the number of samples; 0: time steps are not told apart.
        x: the input, if it requires a gradient: then even what lies before the first trained weight gets one.
        layout: where the output of a named module has its time and samples; it is not asked if `batch` is 0.
    """
    record = Record(blocks, batch, layout)
    seen = {name: Seen(name, module, batch, layout(name)) for name, module in (layers or {}).items()}
    reached = watched(layers or {})
    with torch.enable_grad():
        with ExitStack() as hooks:  # none is left in the backward pass, which may run parts of the network again
            for name in blocks:
                block = net.get_submodule(name)
                hooks.enter_context(entering(block, partial(record.entered, name)))
                hooks.enter_context(listening(block, partial(record.left, name)))
            for name, calls in seen.items():
                hooks.enter_context(listening(net.get_submodule(name), calls.add))
            for name, notes in reached.items():
                hooks.enter_context(listening(net.get_submodule(name), notes.heard))
            value = loss()
        found = [calls.layer() for calls in seen.values() if calls.spikes]
        seen.clear()
        parameters = {name: p for name, p in net.named_parameters() if p.requires_grad}
        start = [value, *([x] if x is not None and x.requires_grad else [])]
        grads = torch.autograd.grad(value, [*start, *parameters.values()], allow_unused=True)[len(start) :]
    known = {name: g for name, g in zip(parameters, grads, strict=True) if g is not None}
    readouts = [name for name, notes in reached.items() if notes.by_membrane]
    found = [layer for layer in found if layer.name not in readouts] or found
    return Pass(value.item(), record.flows, record.inputs, known, found, readouts)


class Record:
    """Flows at outputs and inputs of blocks. A block's input that the block before put out shares its flow."""

    def __init__(self, blocks: list[str], batch: int, layout: Callable[[str], Layout]) -> None:
        self.flows = {name: Flow(layout(name), batch) for name in blocks}
        self.inputs = {name: Flow() for name in blocks}
        self.latest: tuple[Any, Flow] | None = None

    def left(self, name: str, _input: Any, output: Any) -> None:
        z = first(output)
        self.flows[name].watch(z)
        self.latest = (z, self.flows[name])

    def entered(self, name: str, x: Any) -> None:
        z, flow = self.latest or (None, None)
        if x is z and flow is not None and not self.inputs[name].steps:
            self.inputs[name] = flow
        elif x is not None and self.inputs[name] not in self.flows.values():
            self.inputs[name].watch(first(x))


def cost(case: Case, repetitions: int = 7) -> float:
    """Time of the pass that records gradients and layers over that of a plain forward and backward pass.

    Median of ratios of passes that take turns, in training mode.
    """

    def timed(work: Callable[[], Any]) -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    def plain() -> None:
        torch.autograd.grad(case.loss(), [p for p in case.net.parameters() if p.requires_grad], allow_unused=True)

    def recorded() -> None:
        propagate(case.net, case.blocks, case.loss, case.layers, case.batch, layout=case.layout)

    with undisturbed(case.net):
        case.net.train()
        plain()
        recorded()
        ratios = [timed(recorded) / timed(plain) for _ in range(repetitions)]
    return statistics.median(ratios)


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
