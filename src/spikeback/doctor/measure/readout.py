"""Layers that are read out by their membranes, and modules that may spike without anyone having said so."""

from collections.abc import Collection, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from spikeback.doctor.adapters.families import NEURONS, ancestors, reads_out
from spikeback.doctor.measure.case import Case
from spikeback.errors import UsageError
from spikeback.foreign import first
from spikeback.foreign.outputs import judged_of, over_time, shapes_of
from spikeback.foreign.undisturbed import listening
from spikeback.losses import Loss
from spikeback.nn import Neuron
from spikeback.shortcut import ShortcutNet, TimeAveraged, Unrolled

FEW, MANY = 8, 32  # values: what spikes puts out few, of what takes in many
SOME = 4096  # entries that are looked at
NEURON_PACKAGES = ("spikingjelly.activation_based.neuron", "spikingjelly.timing_based.neuron", "snntorch._neurons")
PARTS = {"RecurrentOneToOne"}  # of neurons: snnTorch's
OWN = ("torch", "spikeback")  # packages whose modules need no second look


class Reached:
    """Whether a gradient arrives at a layer's spikes, and at its current."""

    def __init__(self) -> None:
        self.spikes = self.current = False

    def heard(self, current: Any, output: Any) -> None:
        for name, z in (("current", current), ("spikes", first(output))):
            if isinstance(z, Tensor) and z.requires_grad:
                z.register_hook(partial(self._note, name))

    def _note(self, name: str, grad: Tensor) -> None:
        setattr(self, name, getattr(self, name) or bool(grad.any()))

    @property
    def by_membrane(self) -> bool:
        """Its spikes do not matter to the loss, and yet its current does: the membrane is what is read."""
        return self.current and not self.spikes


def watched(layers: Mapping[str, nn.Module]) -> dict[str, Reached]:
    """One `Reached` for each layer that may hand out a membrane: our neurons put out spikes alone."""
    return {name: Reached() for name, layer in layers.items() if not isinstance(layer, Neuron)}


def without_readouts(blocks: list[str], readouts: Collection[str], unreached: Collection[str]) -> list[str]:
    """The blocks but those of `unreached` that hold a readout: they are part of the classifier."""
    holds = lambda block: any(name == block or name.startswith(f"{block}.") for name in readouts)
    return [block for block in blocks if not (block in unreached and holds(block))] or blocks


def unfamiliar(case: Case) -> dict[str, str]:
    """Modules that seem to spike and that nobody knows, by name, with the name of their class.

    Such are those of a known framework's neurons that are not known themselves, and any other whose output has a few
    values only where its input has many, or where it has weights. Of two, one inside the other, the inner one counts.
    """
    found = {name: type(module).__name__ for name, module in _strangers(case).items() if _of_neurons(module)}
    judged: dict[str, list[bool]] = {}
    strangers = {name: module for name, module in _strangers(case).items() if name not in found}
    if strangers:
        with torch.no_grad(), ExitStack() as hooks:
            for name, module in strangers.items():
                weighs = any(p.ndim > 1 for p in module.parameters())
                hooks.enter_context(listening(module, partial(_judge, judged.setdefault(name, []), weighs)))
            case.logits()
    stepping = {name: type(strangers[name]).__name__ for name, calls in judged.items() if calls and all(calls)}
    found |= {n: kind for n, kind in stepping.items() if not any(other.startswith(f"{n}.") for other in stepping)}
    return found


def notes(unknown: Mapping[str, str], readouts: Collection[str]) -> list[str]:
    """What the reader of a diagnosis should know of the layers, a sentence each."""
    found = []
    if readouts:
        which = (
            f"The membrane of {', '.join(readouts)} is"
            if len(readouts) == 1
            else f"Membranes of {', '.join(readouts)} are"
        )
        found.append(f"{which} what the network puts out: part of the readout, not judged as spikes.")
    if unknown:
        which = ", ".join(f"{name} ({kind})" for name, kind in unknown.items())
        found.append(
            f"Not known, and not measured as spiking: {which}. If they spike, say so: is_spiking=lambda m: "
            f"type(m).__name__ in {sorted(set(unknown.values()))}."
        )
    return found


def several(case: Case) -> str | None:
    """What to say, under the default loss, of a network that returns several tensors alike: spikes and membranes."""
    net, outputs = case.net, []
    while isinstance(net, ShortcutNet | Unrolled | TimeAveraged):
        net = net.net
    with torch.enable_grad(), listening(net, lambda _, output: outputs.append(output)):
        case.logits()
    output = outputs[0] if len(outputs) == 1 else over_time(outputs)
    if not isinstance(case.criterion, Loss) or not isinstance(output, tuple) or len(shapes_of(output)) < 2:
        return None
    place = judged_of(output)
    said = (
        f"output[{place}] is what is judged, the membrane potential: output[0] holds only 0 and 1, spikes"
        if place
        else "the first is what is judged"
    )
    return (
        f"The network returns {len(shapes_of(output))} tensors of shape {shapes_of(output)[0]}, and {said}. To have "
        "another judged, give loss=..., which gets all that the network returns."
    )


def _strangers(case: Case) -> dict[str, nn.Module]:
    """Modules of other packages than PyTorch and ours that neither are, hold, nor lie in a known neuron."""
    spiking = {id(m) for layer in case.layers.values() for m in layer.modules()}
    known = spiking | {id(inner) for m in case.net.modules() if reads_out(m) for inner in m.modules()}
    foreign = {
        name: module
        for name, module in case.net.named_modules()
        if name and type(module).__module__.partition(".")[0] not in OWN
    }
    return {name: m for name, m in foreign.items() if not any(id(inner) in known for inner in m.modules())}


def _of_neurons(module: nn.Module) -> bool:
    """Whether a class, or one that it derives from, comes from the package of a known framework's neurons."""
    classes = [cls for cls in type(module).__mro__ if cls.__module__.partition(".")[0] in NEURONS]
    parts = any(name in PARTS for _, name in ancestors(module))
    return not parts and any(cls.__module__.startswith(NEURON_PACKAGES) for cls in classes)


def _judge(calls: list[bool], weighs: bool, current: Any, output: Any) -> None:
    """Notes whether one call made few values of many."""
    try:
        x, y = (first(z).detach().flatten()[:SOME] for z in (current, output))
    except (UsageError, RuntimeError, TypeError):  # what takes or puts out something else is no neuron
        calls.append(False)
        return
    calls.append(1 < len(y.unique()) <= FEW and (weighs or len(x.unique()) > MANY))
