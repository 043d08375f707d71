"""What one spiking layer does in a forward pass: rates, silent and saturated neurons, where its membranes are."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from spikeback.doctor.neurons import Neuron, neuron_of
from spikeback.shortcut.adapt import first

SAMPLES = 16  # of a batch, whose membranes are looked at
EDGES = torch.linspace(-2, 4, 49)  # of the membrane's histogram, in thresholds
STUCK = 0.95  # share of a layer's neurons that never fire (dead), or never change (saturated)
NEGLIGIBLE = 0.01  # of the peak: a derivative without bounded support counts as inactive below


@dataclass
class Layer:
    """One spiking layer in one forward pass. What needs the membrane is None for a neuron that is not known."""

    name: str
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


@dataclass
class Seen:
    """Currents and spikes of one layer, call by call."""

    currents: list[Tensor] = field(default_factory=list)
    spikes: list[Tensor] = field(default_factory=list)

    def add(self, current: Any, spikes: Any) -> None:
        self.currents.append(first(current).detach())
        self.spikes.append(first(spikes).detach())

    def over_time(self, batch: int) -> tuple[Tensor, Tensor]:
        """(currents, spikes), each (T, B, ...)."""
        return over_time(self.currents, batch), over_time(self.spikes, batch)


def time_first(shape: torch.Size, batch: int) -> bool:
    """Whether an output is (T, B, ...), rather than (B, ...) or (T*B, ...)."""
    return len(shape) > 1 and shape[1] == batch and (len(shape) in (3, 5) or shape[0] != batch)


def over_time(calls: list[Tensor], batch: int) -> Tensor:
    """What a module put out in one forward, as (T, B, ...): called once with (T, B, ...) or (T*B, ...), or T times."""
    if len(calls) > 1:
        return torch.stack(calls)
    (z,) = calls
    return z if time_first(z.shape, batch) else z.unflatten(0, (-1, batch))


def _swap(batch: int, z: Tensor) -> Tensor:
    """(B, T, ...) or (B*T, ...) -> (T, B, ...)."""
    return (z if z.shape[0] == batch else z.unflatten(0, (batch, -1))).transpose(0, 1)


def look(name: str, module: nn.Module, seen: Seen, batch: int) -> Layer:
    """The numbers of one layer, from what was seen of it; currents and membranes of the first samples only."""
    neuron = neuron_of(module)
    if neuron is not None and neuron.batch_first:
        seen = Seen([*map(partial(_swap, batch), seen.currents)], [*map(partial(_swap, batch), seen.spikes)])
    current, spikes = seen.over_time(batch)
    current, some = current[:, :SAMPLES].float(), spikes[:, :SAMPLES].float()
    counts = spikes.sum(1, dtype=torch.float32) / batch  # (T, ...): over the whole batch in one go
    over_all = counts.mean(0)
    layer = Layer(
        name,
        rate=over_all.mean().item(),
        rate_by_step=counts.flatten(1).mean(1).tolist(),
        silent=(over_all == 0).float().mean().item(),
        saturated=(over_all >= 1).float().mean().item(),
        current_mean=current.mean().item(),
        current_std=current.std(correction=0).item(),
    )
    if neuron is not None:
        with torch.no_grad():
            _membranes(layer, neuron, current, some)
    return layer


def _membranes(layer: Layer, neuron: Neuron, current: Tensor, spikes: Tensor) -> None:
    """Fill in what follows from the membranes of a few samples."""
    u = neuron.membrane(current, spikes)
    g = neuron.derivative(u)
    layer.threshold, layer.leak = neuron.threshold, neuron.leak
    layer.active = (g > floor(neuron)).float().mean().item()
    layer.derivative, layer.second_moment = g.mean().item(), g.square().mean().item()
    summed = (neuron.scale * current).cumsum(0).amax((0, 1))
    layer.fires_without_leak = (summed > neuron.threshold).float().mean().item()
    inside = (u / neuron.threshold).clamp(EDGES[0], EDGES[-1] - 1e-4)
    counts = torch.histogram(inside.flatten().cpu(), EDGES).hist
    layer.membrane = {"edges": EDGES.tolist(), "density": (counts / counts.sum()).tolist()}


def floor(neuron: Neuron) -> float:
    """Where the derivative begins to count: above 0 if its support is bounded, else above 1 % of its peak."""
    far = torch.tensor([1.01 * neuron.threshold + 4.0])
    near = torch.linspace(-1, 3, 401) * neuron.threshold
    if neuron.derivative(neuron.threshold + torch.cat([-far, far])).max() == 0:
        return 0.0
    return NEGLIGIBLE * neuron.derivative(near).max().item()
