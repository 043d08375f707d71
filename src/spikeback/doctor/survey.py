"""One forward pass over the spiking layers, and nothing else: what each of them does now."""

from collections.abc import Collection
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from spikeback.doctor.case import forward
from spikeback.doctor.neurons import spiking_layers
from spikeback.doctor.spikes import Layer, Seen
from spikeback.doctor.undisturbed import listening, undisturbed


def survey(
    net: nn.Module, x: Tensor, batch: int, names: Collection[str] | None = None
) -> tuple[dict[str, Layer], dict[str, Tensor]]:
    """What every spiking layer (or those of `names`) does, in training mode, in the order of their first calls, and the
    weights of the layer last called before each.
    """
    layers = spiking_layers(net) if names is None else {name: net.get_submodule(name) for name in names}
    seen, latest = {name: Seen(name, module, batch) for name, module in layers.items()}, [torch.empty(0)]
    feeds: dict[str, Tensor] = {}

    def fed(name: str, current: Any, spikes: Any) -> None:
        seen[name].add(current, spikes)
        feeds[name] = latest[0]

    def weighted(weight: Tensor, _input: Any, _output: Any) -> None:
        latest[0] = weight

    with undisturbed(net), torch.no_grad(), ExitStack() as hooks:
        net.train()
        for module in net.modules():
            weight = getattr(module, "weight", None)
            if isinstance(weight, Tensor) and weight.ndim > 1:
                hooks.enter_context(listening(module, partial(weighted, weight)))
        for name, module in layers.items():
            hooks.enter_context(listening(module, partial(fed, name)))
        forward(net, x)
    return {name: seen[name].layer() for name in feeds}, feeds
