"""What one spiking layer does in a forward pass: rates, silent and saturated neurons, where its membranes are."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from spikeback.doctor.adapters.families import events
from spikeback.doctor.adapters.neurons import Neuron, neuron_of
from spikeback.doctor.measure.finite import require_finite_current
from spikeback.errors import UsageError
from spikeback.foreign import Layout, first

SAMPLES = 16  # of a batch, whose currents and membranes are looked at
EDGES = torch.linspace(-2, 4, 49)  # of the membrane's histogram, in thresholds
STUCK = 0.95  # share of a layer's neurons that never fire (dead), or never change (saturated)
NEGLIGIBLE = 0.01  # of the peak: a derivative without bounded support counts as inactive below


@dataclass
class Layer:
    """One spiking layer in one forward pass. What needs the membrane is None for a neuron that is not known."""

    name: str
    family: str  # the package of its class: "spikeback", "spikingjelly", ...
    rate: float  # spikes per neuron and time step
    rate_by_step: list[float]
    silent: float  # share of the neurons (C, H, W) that never fire in the batch
    saturated: float  # share of those that fire at every step of every sample
    current_mean: float
    current_std: float
    threshold: float | None = None
    leak: float | None = None
    active: float | None = None  # share of membranes where the surrogate's derivative is not negligible
    derivative: float | None = None  # its mean
    second_moment: float | None = None  # its mean square
    fires_without_leak: float | None = None  # share of neurons whose summed current passes the threshold in a sample
    membrane: dict[str, list[float]] | None = None


def stuck(silent: float, saturated: float) -> Literal["dead", "saturated"] | None:
    """Whether nearly all neurons of a layer never fire, or nearly none ever changes; shares as in `Layer`."""
    if silent >= STUCK:
        return "dead"
    return "saturated" if saturated > 1 - STUCK and silent + saturated >= STUCK else None


class Seen:
    """What was seen of one layer, call by call: currents and spikes of a few samples, firing counts of all."""

    def __init__(self, name: str, module: nn.Module, batch: int, layout: Layout) -> None:
        self.name, self.module, self.batch, self.layout = name, module, batch, layout
        self.neuron = neuron_of(module)
        self.currents: list[Tensor] = []
        self.spikes: list[Tensor] = []
        self.rates: list[Tensor] = []  # (T, ...): spikes, a mean over the samples
        self.firing: list[Tensor] = []  # (T, ...): share of the samples with a spike or several

    def add(self, current: Any, spikes: Any) -> None:
        require_finite_current(self.name, current)
        c, s = (self.layout.time_first(first(z).detach(), self.batch) for z in (current, spikes))
        self.currents.append(c[:, :SAMPLES].float())
        self.spikes.append(s[:, :SAMPLES].float().clone())  # a residual sum may be taken in place, on top of them
        count = events(self.module, s)
        self.rates.append(count.sum(1, dtype=torch.float32) / self.batch)
        self.firing.append(self.rates[-1] if count is s else (count > 0).sum(1, dtype=torch.float32) / self.batch)

    def layer(self) -> Layer:
        """The numbers of the layer; those of currents and membranes are of the first samples only."""
        current, some = (self._joined(calls, 2) for calls in (self.currents, self.spikes))
        rates, firing = (self._joined(calls, 1) for calls in (self.rates, self.firing))
        overall, firing = rates.mean(0), firing.mean(0)
        layer = Layer(
            self.name,
            type(self.module).__module__.partition(".")[0],
            rate=overall.mean().item(),
            rate_by_step=rates.flatten(1).mean(1).tolist(),
            silent=(overall == 0).float().mean().item(),
            saturated=(firing >= 1).float().mean().item(),
            current_mean=current.mean().item(),
            current_std=current.std(correction=0).item(),
        )
        if self.neuron is not None:
            with torch.no_grad():
                _membranes(layer, self.neuron, current, some)
        return layer

    def _joined(self, calls: list[Tensor], axes: int) -> Tensor:
        """Calls of one time step each, in a row; calls over all time, of a layer in several places, side by side."""
        if len(calls) == 1:
            return calls[0]
        if all(len(z) == 1 for z in calls) and len({z.shape for z in calls}) == 1:
            return torch.cat(calls)
        if len({len(z) for z in calls}) > 1 or len(calls[0]) == 1:
            raise UsageError(
                f"layer {self.name!r} is called with different shapes, one time step at a time: several places seem to "
                "share it; give each place a neuron of its own"
            )
        return torch.cat([z.flatten(axes) for z in calls], -1)


def _membranes(layer: Layer, neuron: Neuron, current: Tensor, spikes: Tensor) -> None:
    """Fill in what follows from the membranes of a few samples."""
    u = neuron.membrane(current, spikes)
    g = neuron.derivative(u)
    layer.threshold, layer.leak = neuron.threshold, neuron.leak
    layer.active = (g > _floor(neuron, u)).float().mean().item()
    layer.derivative, layer.second_moment = g.mean().item(), g.square().mean().item()
    summed = (neuron.scale * current).cumsum(0).amax((0, 1))
    layer.fires_without_leak = (summed > neuron.threshold).float().mean().item()
    inside = (u / neuron.threshold).flatten().cpu().clamp(EDGES[0], EDGES[-1] - 1e-4)
    counts = torch.histogram(inside, EDGES).hist
    layer.membrane = {"edges": EDGES.tolist(), "density": (counts / counts.sum()).tolist()}


def _floor(neuron: Neuron, like: Tensor) -> float:
    """Where the derivative begins to count: above 0 if its support is bounded, else above 1 % of its peak."""
    far = like.new_tensor([1.01 * neuron.threshold + 4.0])
    if neuron.derivative(neuron.threshold + torch.cat([-far, far])).max() == 0:
        return 0.0
    near = torch.linspace(-1, 3, 401, dtype=like.dtype, device=like.device) * neuron.threshold
    return NEGLIGIBLE * neuron.derivative(near).max().item()
