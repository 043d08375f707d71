"""What helps a sick network: each remedy with its reason, the line that applies it, and the function that does."""

import statistics
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from spikeback.doctor.calibrate import calibrate
from spikeback.doctor.case import forward, layouts_of
from spikeback.doctor.neurons import spiking_layers
from spikeback.doctor.residual import residual_norms
from spikeback.doctor.spikes import Layer, Seen, stuck
from spikeback.doctor.undisturbed import listening, undisturbed
from spikeback.errors import UsageError
from spikeback.foreign import Layout
from spikeback.nn import LIF
from spikeback.ops.surrogate import Rectangle
from spikeback.shortcut import ShortcutNet

Apply = Callable[[nn.Module, Tensor, Tensor], nn.Module]
USUAL = 0.5  # threshold over the spread of the current: that of the authors' code behind a batch norm
TAUS = (0.25, 0.5, 0.75, 0.9, 1.0)
FAITHFUL = 0.7  # what calibration asks of the forward pass
BETWEEN_TAPS = 0.1  # what the gradient may fall to between one branch and the next
UPDATE = (1e-5, 1e-2, 1e-1)  # update over weight in one step: below, as it should be, above


@dataclass(frozen=True)
class Remedy:
    """One thing to do: `code` is what to type; `apply(net, x, y)` does it and returns the network to train.

    That is the same network, treated, or a `ShortcutNet` around it.
    """

    title: str
    why: str
    code: str
    apply: Apply = field(repr=False, compare=False)


def remedies_for(kind: str, cause: str, facts: dict[str, Any]) -> tuple[Remedy, ...]:
    """Remedies of a kind and its cause (one word of the verdict's), in the order of expected gain."""
    if kind == "healthy":
        return ()
    repairs = {"leak": [_TAU, _THRESHOLD], "threshold": [_THRESHOLD], "initialisation": [_VARIANCE, _NORM]}
    ours = [layer for layer in facts["layers"] if layer["family"] == "spikeback"]
    calibration = [_calibration(facts["residual"], max(layer["threshold"] for layer in ours))] if ours else []
    branches = [_branches(propose_taps(facts["blocks"]))] if kind in ("vanishing", "chaotic") else []
    found = [*repairs.get(cause, []), *calibration, *([] if facts["branches"] else branches)]
    return (*found, *([_WIDTH] if cause == "width" or not ours else []), *_rates(facts))


def propose_taps(rows: list[dict[str, Any]]) -> list[str]:
    """Blocks to branch from: from the output inwards, one wherever the gradient has fallen to a tenth since the last.

    The first block is always among them, the last (the main branch's own) never.
    """
    taps, since = [], rows[-1]["gradient"]
    for row in reversed(rows[:-1]):
        if row["gradient"] <= BETWEEN_TAPS * since or row is rows[0]:
            taps.append(row["name"])
            since = row["gradient"]
    return taps[::-1]


def _branches(taps: list[str]) -> Remedy:
    return Remedy(
        "branches",
        "a branch from each of these blocks hands it a gradient of its own during training, and is removed afterwards "
        "(Take A Shortcut Back)",
        f"model = sb.ShortcutNet(net, taps={taps}, example=x)  # with sb.Evolutionary(0.25); command: "
        "--branches.taps block",
        lambda net, x, y: ShortcutNet(net, taps, example=x),
    )


def _rates(facts: dict[str, Any]) -> list[Remedy]:
    """A learning rate, where one step would change the weights by far too much or too little."""
    updates = [row["update"] for row in facts["weights"] if row["update"]]
    if not updates or UPDATE[0] <= (middle := statistics.median(updates)) <= UPDATE[2]:
        return []
    factor = UPDATE[1] / middle
    better = (
        f"--train.lr {facts['lr'] * factor:.2g}" if 1e-3 < factor < 1e3 else "--train.optimizer adam --train.lr 0.003"
    )
    why = f"with {facts['lr']:g} one step of plain SGD changes the weights by {middle:.1e} of their size (median)"
    return [Remedy("learning rate", why, better, lambda net, x, y: net)]


def _calibration(residual: bool, threshold: float) -> Remedy:
    """Gains and, where there are residual branches, also these, and a surrogate that fits an identity shortcut."""
    if not residual:
        why = "surrogate heights with which every block passes the gradient on as it is"
        return Remedy("calibrate", why, "sb.calibrate(net, x)  # command: --train.calibrate gain", _calibrate)
    flat = covering(threshold)
    return Remedy(
        "calibrate",
        "residual branches that start small keep what the network is shown; a flat surrogate that reaches 0 and 1, the "
        "membranes that an identity shortcut makes, at a height with which every block passes the gradient on as it is",
        f"neuron = sb.LIF(surrogate=sb.surrogate.{flat}); sb.calibrate(net, x, fidelity={FAITHFUL})  # command: "
        f"--model.surrogate '{flat}' --train.calibrate both",
        _calibrate,
    )


def _calibrate(net: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
    residual = bool(residual_norms(net))
    for neuron in _ours(net) if residual else []:
        neuron.surrogate = covering(neuron.threshold)
    calibrate(net, x, y, fidelity=FAITHFUL if residual else None)
    return net


def covering(threshold: float) -> Rectangle:
    """A rectangle that reaches a quarter beyond 0 and 1, the membranes that an identity shortcut alone would make.

    Where residual branches are small, membranes lie close to these: a surrogate that falls off there makes noise of it.
    """
    return Rectangle(2 * max(threshold, 1 - threshold) + 0.5)


def _widen(net: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
    for neuron in _ours(net):
        neuron.surrogate = Rectangle(2.0)
    return net


def _raise_tau(net: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
    """The smallest usual tau with which every layer fires."""
    for tau in TAUS:
        for neuron in _ours(net):
            neuron.tau = max(neuron.tau, tau)
        if not any(stuck(layer.silent, layer.saturated) == "dead" for layer in survey(net, x, len(y))[0].values()):
            break
    return net


def _set_thresholds(net: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
    """A threshold of half the current's spread above its mean for layers that are stuck, until none is."""
    modules = dict(net.named_modules())
    for _ in _ours(net):
        sick = [
            layer
            for layer in survey(net, x, len(y))[0].values()
            if stuck(layer.silent, layer.saturated) and layer.current_std > 0
        ]
        if not sick:
            break
        for layer in sick:
            neuron = modules[layer.name]
            if isinstance(neuron, LIF):
                neuron.threshold = max(layer.current_mean, 0.0) + USUAL * layer.current_std
    return net


@torch.no_grad()
def _unit_variance(net: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
    """Scale weights, layer by layer, so that every current has a spread of 1 (Mishkin and Matas, ICLR 2016: LSUV).

    Filters that lift the mean of their current above the threshold are centred first. Then surrogates' heights are set,
    for gradients of the same size everywhere.
    """
    for name in spiking_layers(net):
        for _ in range(3):  # a mean, a spread, and the spread again where two convolutions feed a neuron
            layers, feeds = survey(net, x, len(y))
            layer, weight = layers.get(name), feeds.get(name)
            if layer is None or weight is None or layer.current_std == 0:
                break
            if layer.current_mean > max(layer.threshold or 0.0, layer.current_std):
                weight.sub_(weight.mean([*range(1, weight.ndim)], keepdim=True))
            else:
                weight.div_(layer.current_std)
    if any(isinstance(module, LIF) for module in net.modules()):
        calibrate(net, x, y)
    return net


def survey(net: nn.Module, x: Tensor, batch: int) -> tuple[dict[str, Layer], dict[str, Tensor]]:
    """What every spiking layer does, in training mode, and the weights of the layer last called before it."""
    layers, feeds = spiking_layers(net), {}
    layout = layouts_of(net, x, batch, [*layers]).outputs.get
    seen = {name: Seen(name, module, batch, layout(name) or Layout()) for name, module in layers.items()}
    latest = [torch.empty(0)]

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
    return {name: calls.layer() for name, calls in seen.items() if calls.spikes}, feeds


def _ours(net: nn.Module) -> list[LIF]:
    found = [module for module in net.modules() if isinstance(module, LIF)]
    if not found:
        raise UsageError(
            "this remedy can be applied to spikeback.LIF only; for other neurons do what its code says by hand"
        )
    return found


_WIDTH = Remedy(
    "surrogate width",
    "a wider surrogate reaches more membranes",
    "neuron = sb.LIF(surrogate=sb.surrogate.Rectangle(2.0))  # command: --model.surrogate 'Rectangle(a=2.0)'",
    _widen,
)
_TAU = Remedy(
    "tau",
    "a membrane that remembers adds up currents that are too small one by one",
    "sb.LIF(tau=0.5)  # command: --model.tau 0.5",
    _raise_tau,
)
_THRESHOLD = Remedy(
    "threshold",
    "half a standard deviation of the current is the usual one: a third of the neurons fires",
    "sb.LIF(threshold=0.5)  # behind a batch norm; command: --model.threshold 0.5",
    _set_thresholds,
)
_VARIANCE = Remedy(
    "initialisation",
    "weights that give every layer's current a spread of 1, layer by layer (LSUV)",
    "diagnosis.verdict.remedies[0].apply(net, x, y)  # or nn.init.kaiming_normal_(conv.weight, mode='fan_in')",
    _unit_variance,
)
_NORM = Remedy(
    "norm",
    "a batch norm before every neuron keeps its current's spread at 1, whatever the weights",
    "nn.BatchNorm2d(channels)  # before every spiking layer; ours: sb.create_model(..., norm=None) has it",
    _unit_variance,  # the same, for a network whose layers are given
)
