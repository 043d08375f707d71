"""Which modules with weights make the current of a spiking layer, read from the autograd graph of a forward pass."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from spikeback.doctor.adapters.neurons import spiking_layers
from spikeback.doctor.measure.case import forward, layouts_of
from spikeback.doctor.measure.spikes import Layer, Seen
from spikeback.foreign import Layout, Layouts
from spikeback.foreign.undisturbed import entering, listening, undisturbed


@dataclass
class Feed:
    """What makes a layer's current, by module name, the nearest first.

    `nearest`: the modules whose outputs are added up to it, through whatever has no weights; norms or convolutions.
    `behind`: what feeds these in turn, back to the spikes of the layers before.
    """

    nearest: list[str] = field(default_factory=list)
    behind: list[str] = field(default_factory=list)


@contextmanager
def traced(net: nn.Module, layers: Mapping[str, nn.Module]) -> Iterator[dict[str, Feed]]:
    """Feeds by layer, in the order of the layers' first calls: of forward passes with a graph while this lasts."""
    feeds: dict[str, Feed] = {}
    made: dict[Any, str] = {}  # by what autograd knows an output as
    fired: set[Any] = set()

    def put_out(name: str, _input: Any, output: Any) -> None:
        made.update(dict.fromkeys(_nodes(output), name))

    def fire(_input: Any, output: Any) -> None:
        fired.update(_nodes(output))

    def enter(name: str, current: Any) -> None:
        feed = feeds.setdefault(name, Feed())
        seen, waiting = set(), [(node, False) for node in _nodes(current)]
        while waiting:
            node, behind = waiting.pop(0)
            if (node, behind) in seen or node in fired:
                continue
            seen.add((node, behind))
            module = made.get(node)
            known = feed.behind if behind else feed.nearest
            if module is not None and module not in known:
                known.append(module)
            waiting += [(n, behind or module is not None) for n, _ in node.next_functions if n is not None]

    inside = {id(m) for layer in layers.values() for m in layer.modules()}
    with ExitStack() as hooks:
        for name, module in net.named_modules():
            if id(module) not in inside and any(True for _ in module.parameters(recurse=False)):
                hooks.enter_context(listening(module, partial(put_out, name)))
        for name, layer in layers.items():
            hooks.enter_context(entering(layer, partial(enter, name)))
            hooks.enter_context(listening(layer, fire))
        yield feeds


def _nodes(value: Any) -> list[Any]:
    values = value if isinstance(value, tuple | list) else [value]
    return [v.grad_fn for v in values if isinstance(v, Tensor) and v.grad_fn is not None]


def survey(
    net: nn.Module, x: Tensor, batch: int, names: Collection[str] | None = None, layouts: Layouts | None = None
) -> tuple[dict[str, Layer], dict[str, Feed]]:
    """What every spiking layer does in training mode, in the order of their calls, and what feeds it.

    Args:
        net: the network.
        x: its input.
        batch: B.
        names: the layers that are looked at; None is all.
        layouts: of these layers; None finds them out.
    """
    layers = spiking_layers(net) if names is None else {name: net.get_submodule(name) for name in names}
    layout = (layouts or layouts_of(net, x, batch, [*layers])).outputs.get
    seen = {name: Seen(name, module, batch, layout(name) or Layout()) for name, module in layers.items()}
    x = x.detach().requires_grad_() if x.is_floating_point() else x  # so that frozen weights have a graph, too
    with undisturbed(net), torch.enable_grad(), ExitStack() as hooks:
        net.train()
        feeds = hooks.enter_context(traced(net, layers))
        for name, module in layers.items():
            hooks.enter_context(listening(module, seen[name].add))
        forward(net, x)
    return {name: seen[name].layer() for name in feeds if seen[name].spikes}, feeds


def is_norm(module: nn.Module) -> bool:
    """Whether a module normalises (or only scales): it has no weight of two axes, or says so in its name."""
    return "Norm" in type(module).__name__ or all(p.ndim < 2 for p in module.parameters(recurse=False))


def fed_by(net: nn.Module, feed: Feed) -> dict[str, Any]:
    """A feed in plain values: `fed_by` names, `by_norm` whether they normalise, `zero` those whose weights are all 0,
    `lift` the mean of the biases that they add."""
    near = {name: net.get_submodule(name) for name in feed.nearest}
    zero = [name for name in [*feed.nearest, *feed.behind] if is_zero(net.get_submodule(name))]
    biases = [
        b.detach().float().mean().item() for m in near.values() if isinstance(b := getattr(m, "bias", None), Tensor)
    ]
    by_norm = bool(near) and all(map(is_norm, near.values()))
    return {"fed_by": list(near), "by_norm": by_norm, "zero": zero, "lift": sum(biases)}


def is_zero(module: nn.Module) -> bool:
    """Whether a module's weight is 0 throughout."""
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and not weight.any()
