"""Neurons of other frameworks, recognised by the names of their classes: none of the frameworks is imported.

One function a framework: (class name, module) -> `Neuron`, or None for a class or a setting that it does not know. Each
recursion is written in the order of operations of the framework, so that the replayed membrane is the same number.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from spikeback.doctor.recursion import Neuron, number, replay, slope

NEURONS = {  # base classes of the neurons that spike
    "spikingjelly": {"BaseNode", "SimpleBaseNode"},
    "snntorch": {"SpikingNeuron"},
    "norse": {"SNN", "SNNCell", "SNNRecurrent", "SNNRecurrentCell"},
    "sinabs": {"StatefulLayer"},
}
SILENT = {"LI", "LICell", "LIBoxCell", "ExpLeak"}  # derived from them, but they put out a membrane


def ancestors(module: nn.Module) -> list[tuple[str, str]]:
    """(framework, class name) of the classes of `module` that belong to a known framework, the nearest first."""
    classes = [(cls.__module__.partition(".")[0], cls.__name__) for cls in type(module).__mro__]
    return [(framework, name) for framework, name in classes if framework in NEURONS]


def origin(module: nn.Module) -> tuple[str, str]:
    """Framework and class of a neuron: of a user's subclass the framework's class; ("", "") of anything else."""
    return next(iter(ancestors(module)), ("", ""))


def spikes(module: nn.Module) -> bool:
    """Whether `module` is a spiking neuron of a known framework."""
    classes = ancestors(module)
    silent = any(name in SILENT for _, name in classes)
    return not silent and any(name in NEURONS[framework] for framework, name in classes)


def spikingjelly(name: str, node: Any) -> Neuron | None:
    """v - (v - rest) q + x, or v + (x - (v - rest)) q with `decay_input`; q = 1 / tau; fired at when reached."""
    threshold, to = number(node.v_threshold), node.v_reset
    rest = 0.0 if to is None else to

    def decay(difference: Any) -> Any:
        return difference * node.w.sigmoid() if name == "ParametricLIFNode" else difference / node.tau

    def charge(v: Any, x: Tensor) -> Tensor:
        if integrates:
            return v + x
        return v + decay(x - (v - rest)) if node.decay_input else v - decay(v - rest) + x

    def post(u: Tensor, s: Tensor) -> Tensor:
        return u - s * node.v_threshold if to is None else s * to + (1 - s) * u

    integrates = name in ("IFNode", "SimpleIFNode")
    known = integrates or name in ("LIFNode", "SimpleLIFNode", "ParametricLIFNode")
    if not known or threshold is None:
        return None
    q = 0.0 if integrates else number(decay(1.0))
    leak = None if q is None or rest != 0 else 1 - q
    scale = q if q is not None and not integrates and node.decay_input else 1.0
    fire = slope(lambda u: node.surrogate_function(u - node.v_threshold))
    reset = "soft" if to is None else "hard"
    return Neuron(threshold, leak, scale, reset, node.detach_reset, replay(charge, post, rest), fire)


ADAPTERS: dict[str, Callable[[str, Any], Neuron | None]] = {
    "spikingjelly": spikingjelly,
}
