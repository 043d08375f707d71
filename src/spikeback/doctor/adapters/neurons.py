"""Which modules of a network spike, and what is known of them: our neurons and those of four other frameworks."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from spikeback.doctor.adapters.families import ADAPTERS, origin, spikes
from spikeback.doctor.adapters.recursion import Neuron, replay
from spikeback.nn import Neuron as OurNeuron

__all__ = ["Neuron", "neuron_of", "spiking_layers"]


def neuron_of(module: nn.Module) -> Neuron | None:
    """What is known of a spiking layer; None of one whose recursion is unknown (rates and gradients can be had still).

    Known are `spikeback.nn.Neuron` and all that derive from it (`LIF`); SpikingJelly's IFNode, LIFNode,
    ParametricLIFNode; snnTorch's Leaky and Lapicque;
    norse's IAF, LIF and LIFBox without recurrence; sinabs' IAF and LIF. A layer whose neurons have different thresholds
    is not. Membranes start at rest: a layer that was called before must have been reset.
    """
    if isinstance(module, OurNeuron):
        return _ours(module)
    framework, name = origin(module)
    try:
        return ADAPTERS[framework](name, module) if framework else None
    except AttributeError:  # another version of the framework
        return None


def spiking_layers(net: nn.Module, is_spiking: Callable[[nn.Module], bool] | None = None) -> dict[str, nn.Module]:
    """The spiking layers of `net` by dotted name, in order of registration.

    Ours and those of the frameworks that `neuron_of` names (also the kinds it does not know) are recognised; a
    predicate adds others. A layer inside a spiking layer is part of it. A module registered twice has its first name.
    """

    def walk(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
        if id(module) in seen:
            return
        seen.add(id(module))
        if isinstance(module, OurNeuron) or spikes(module) or (is_spiking is not None and is_spiking(module)):
            yield name, module
            return
        for child_name, child in module.named_children():
            yield from walk(child, f"{name}.{child_name}" if name else child_name)

    seen: set[int] = set()
    return dict(walk(net, ""))


def _ours(neuron: OurNeuron) -> Neuron:
    """u = charge(v, x), fired at when strictly exceeded, v = after(u, s)."""

    def derivative(u: Tensor) -> Tensor:
        return neuron.gain.detach() * neuron.surrogate(u, neuron.threshold)

    def step(v: Any, x: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        u = neuron.charge(torch.zeros_like(x) if v is None else v, x)
        return u, neuron.after(u, s)

    membrane = replay(step, None)
    return Neuron(
        neuron.threshold, neuron.leak, neuron.scale, neuron.reset, neuron.detach_reset, membrane, derivative
    )  # fmt: skip
