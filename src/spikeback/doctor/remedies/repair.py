"""Weights that give every layer's current a spread of 1, all of them or none."""

import math
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from spikeback.doctor.adapters.neurons import spiking_layers
from spikeback.doctor.calibrate import calibrate
from spikeback.doctor.measure.case import layouts_of
from spikeback.doctor.measure.feeds import Feed, is_norm, is_zero, survey
from spikeback.doctor.measure.spikes import Layer, stuck
from spikeback.errors import UsageError
from spikeback.nn import Neuron

TRIES = 12  # passes for a layer: a sum of a branch and a shortcut comes near by degrees
NEAR, FAR = 0.05, 0.2  # in the logarithm of a current's spread: what is aimed at, what is not called near 1 any more


def unit_currents(net: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
    """Scale what feeds every layer, layer by layer, so that its current has a spread of 1.

    After LSUV (Mishkin and Matas, ICLR 2016). What is scaled is the weight (and bias) of the norm before the neuron, or
    of the convolution where there is no norm. A mean that keeps neurons from firing, or firing always, is taken off
    first; weights that are all 0 are drawn anew. Then surrogates' heights are set, for gradients of the same size
    everywhere. The caller puts a network back on errors.

    Raises:
        UsageError: a layer's current did not come near 1, or it is still silent.
    """
    names = [*spiking_layers(net)]
    look = partial(survey, net, x, len(y), names, layouts_of(net, x, len(y), names))
    for name in look()[0]:
        for _ in range(TRIES):
            layers, feeds = look()
            if not _adjust(net, layers[name], feeds[name]):
                break
    layers = look()[0]
    off = [
        f"{name} ({layer.current_mean:.2g} ± {layer.current_std:.2g})" for name, layer in layers.items() if _off(layer)
    ]
    if off:
        raise UsageError(
            f"initialisation: the current of {len(off)} of {len(layers)} layers cannot be brought to a spread of 1 by "
            f"scaling what feeds it: {_some(off)}; nothing was changed"
        )
    require_firing(layers, "currents with a spread of 1")
    if any(isinstance(module, Neuron) for module in net.modules()):
        calibrate(net, x, y)
    return net


def redraw(net: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
    """Draw weights that are all 0 anew, where nothing goes through them (of layers' feeds, and behind the last layer).

    Raises:
        UsageError: as `unit_currents`.
    """
    feeds = survey(net, x, len(y))[1].values()
    feeding = {name for feed in feeds for name in [*feed.nearest, *feed.behind]}
    with torch.no_grad():
        _draw(m for name, m in net.named_modules() if name not in feeding and is_zero(m) and not is_norm(m))
    return unit_currents(net, x, y)


def require_firing(layers: dict[str, Layer], done: str) -> None:
    """Raises UsageError if a layer is still silent after what was `done`."""
    silent = [name for name, layer in layers.items() if stuck(layer.silent, layer.saturated) == "dead"]
    if silent:
        of = ", ".join(f"{layer.threshold:g}" for name in silent[:1] if (layer := layers[name]).threshold is not None)
        raise UsageError(
            f"with {done}, {len(silent)} of {len(layers)} layers are still silent: {_some(silent)}"
            f"{f' (threshold {of})' if of else ''}; nothing was changed"
        )


@torch.no_grad()
def _adjust(net: nn.Module, layer: Layer, feed: Feed) -> bool:
    """One step towards a spread of 1; False if there is nothing to do, or nothing that can be done."""
    modules = [net.get_submodule(name) for name in feed.nearest]
    if not _off(layer, NEAR) or not modules:
        return False
    if _draw(m for name in [*feed.nearest, *feed.behind] if is_zero(m := net.get_submodule(name))):
        return True
    if layer.current_std == 0:
        return False
    if _shifted(layer):
        return _centre(modules, layer.current_mean)
    for tensor in _of(modules, "weight") + _of(modules, "bias"):
        tensor.div_(layer.current_std)
    return True


def _draw(empty: Iterable[Any]) -> bool:
    """New weights for modules that have none but 0: 1 of a norm, and as He et al. draw them of a convolution."""
    drawn = False
    for module in empty:
        drawn = True
        if is_norm(module):
            nn.init.ones_(module.weight)
        else:
            nn.init.kaiming_normal_(module.weight)
    return drawn


def _centre(modules: list[nn.Module], mean: float) -> bool:
    """Take a current's mean off: from a bias where there is one, else from every filter."""
    biases = _of(modules, "bias")
    if biases:
        biases[-1].sub_(mean)
        return True
    filters = [weight for weight in _of(modules, "weight") if weight.ndim > 1]
    for weight in filters:
        weight.sub_(weight.mean([*range(1, weight.ndim)], keepdim=True))
    return bool(filters)


def _off(layer: Layer, far: float = FAR) -> bool:
    spread = layer.current_std
    return not spread > 0 or abs(math.log(spread)) > far or _shifted(layer)


def _shifted(layer: Layer) -> bool:
    """Whether the mean alone decides who fires."""
    return abs(layer.current_mean) > max(layer.threshold or 0.0, layer.current_std) * 1.05


def _of(modules: list[nn.Module], name: str) -> list[Tensor]:
    return [t for module in modules if isinstance(t := getattr(module, name, None), Tensor)]


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
