"""What helps a sick network: each remedy with its reason, the line that applies it, and the function that does."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from spikeback.doctor.calibrate import calibrate
from spikeback.doctor.causes import typical_update
from spikeback.doctor.measure.finite import require_finite
from spikeback.doctor.measure.residual import residual_norms
from spikeback.doctor.measure.statistics import refresh
from spikeback.doctor.remedies.repair import redraw, unit_currents
from spikeback.doctor.remedies.treatments import raise_leaks, set_thresholds, widen
from spikeback.errors import UsageError
from spikeback.foreign.undisturbed import all_or_nothing
from spikeback.nn import Neuron
from spikeback.ops.surrogate import Rectangle
from spikeback.shortcut import ShortcutNet, TimeAveraged

Apply = Callable[[nn.Module, Tensor, Tensor], nn.Module]
Plan = Callable[[nn.Module, Tensor, int, Collection[str]], Any]  # what has `code` and `apply`, or None
FAITHFUL = 0.7  # what calibration asks of the forward pass
BETWEEN_TAPS = 0.1  # what the gradient may fall to between one branch and the next
USUAL_UPDATE = 1e-2  # over the weight, in one step


@dataclass(frozen=True)
class Remedy:
    """One thing to do: `code` is what to type; `apply(net, x, y)` does it and returns the network to train.

    That is the same network, treated, or a `ShortcutNet` around it. Where it cannot be done, or does not help,
    UsageError says what was reached, and the network is left as it was, bit for bit.
    """

    title: str
    why: str
    code: str
    apply: Apply = field(repr=False, compare=False)
    plan: Plan | None = field(default=None, repr=False, compare=False)


def fitted(remedies: Iterable[Remedy], net: nn.Module, x: Tensor, y: Tensor, names: list[str]) -> tuple[Remedy, ...]:
    """Those that can be applied to this network, with what they set there; `names`: its spiking layers."""
    found = []
    for remedy in remedies:
        if remedy.plan is None:
            found.append(remedy)
        elif treatment := remedy.plan(net, x, len(y), names):
            found.append(replace(remedy, code=treatment.code(net), apply=_whole(treatment.apply)))
    return tuple(found)


def remedies_for(kind: str, cause: str, facts: dict[str, Any]) -> tuple[Remedy, ...]:
    """Remedies of a kind and its cause (one word of the verdict's), in the order of expected gain."""
    return tuple(replace(remedy, apply=_whole(remedy.apply)) for remedy in _chosen(kind, cause, facts))


def _chosen(kind: str, cause: str, facts: dict[str, Any]) -> list[Remedy]:
    if kind in ("healthy", "statistics"):
        return [*([_STATISTICS] if kind == "statistics" else []), *_rates(facts, small=False)]
    repairs = {
        "leak": [_LEAK, _THRESHOLD], "threshold": [_THRESHOLD], "width": [_WIDTH], "zero": [_ZERO],
        "initialisation": [_VARIANCE, _THRESHOLD], "norm": [_GAMMA, _THRESHOLD], "bias": [_BIAS, _THRESHOLD],
    }  # fmt: skip
    if cause in ("input", "zero"):
        return repairs.get(cause, [])
    ours = [layer for layer in facts["layers"] if layer["family"] == "spikeback"]
    calibration = [_calibration(facts["residual"], max(layer["threshold"] for layer in ours))] if ours else []
    if not ours and facts["residual"] and kind in ("vanishing", "exploding", "chaotic"):
        calibration = [_SMALL_BRANCHES]
    branches = [_branches(propose_taps(facts["blocks"]))] if kind in ("vanishing", "chaotic") else []
    found = [*repairs.get(cause, []), *calibration, *([] if facts["branches"] else branches)]
    return [*found, *_rates(facts)]


def _whole(apply: Apply) -> Apply:
    """The same, but wholly or not at all."""

    def wholly(net: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
        require_finite(net, x, y)
        with all_or_nothing(net):
            return apply(net, x, y)

    return wholly


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


@dataclass(frozen=True)
class Branches:
    """A `ShortcutNet` around a network, and around its mean over time if it hands out no time steps."""

    taps: tuple[str, ...]
    averaged: bool

    def code(self, _net: nn.Module) -> str:
        inner = "sb.TimeAveraged(net)" if self.averaged else "net"
        command = "" if self.averaged else "; command: --branches.taps block"
        return f"model = sb.ShortcutNet({inner}, taps={self._names}, example=x)  # with sb.Evolutionary(0.25){command}"

    def apply(self, net: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
        return ShortcutNet(TimeAveraged(net) if self.averaged else net, self._names, example=x)

    @property
    def _names(self) -> list[str]:
        return [f"net.{tap}" if self.averaged else tap for tap in self.taps]


def _branches(taps: list[str]) -> Remedy:
    def plan(net: nn.Module, x: Tensor, batch: int, names: Collection[str]) -> Branches | None:
        for found in (Branches(tuple(taps), False), Branches(tuple(taps), True)):
            try:
                found.apply(net, x, torch.empty(0))
            except (UsageError, RuntimeError):  # what this network hands out fits no branch
                continue
            return found
        return None

    why = (
        "a branch from each of these blocks hands it a gradient of its own during training, and is removed afterwards "
        "(Take A Shortcut Back)"
    )
    return Remedy("branches", why, "", _by_trial, plan)


def _rates(facts: dict[str, Any], small: bool = True) -> list[Remedy]:
    """A learning rate, where one step would change the weights by far too much or, if `small`, too little."""
    update, fits = typical_update(facts)
    if fits == "right" or (fits == "small" and not small):
        return []
    factor = USUAL_UPDATE / update
    tuned = f"--train.lr {facts['lr'] * factor:.2g}"
    better = tuned if fits == "large" or factor < 1e3 else "--train.optimizer adam --train.lr 0.003"
    why = f"with {facts['lr']:g} one step of plain SGD changes the weights by {update:.1e} of their size (median)"
    return [Remedy("learning rate", why, better, _set_rate)]


def _set_rate(net: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
    raise UsageError("learning rate: it is set where the optimiser is made, a network has none; nothing was changed")


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
    for neuron in (m for m in net.modules() if isinstance(m, Neuron) and residual):
        neuron.surrogate = covering(neuron.threshold)
    calibrate(net, x, y, fidelity=FAITHFUL if residual else None)
    return net


def covering(threshold: float) -> Rectangle:
    """A rectangle that reaches a quarter beyond 0 and 1, the membranes that an identity shortcut alone would make.

    Where residual branches are small, membranes lie close to these: a surrogate that falls off there makes noise of it.
    """
    return Rectangle(2 * max(threshold, 1 - threshold) + 0.5)


def _small_branches(net: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
    calibrate(net, x, y, gain=None, fidelity=FAITHFUL)
    return net


def _by_trial(net: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
    raise UsageError("this remedy is not fitted to a network: take it from the verdict of sb.diagnose")


_WIDTH = Remedy("surrogate width", "a wider surrogate reaches more membranes", "", _by_trial, widen)
_LEAK = Remedy(
    "leak", "a membrane that remembers adds up currents that are too small one by one", "", _by_trial, raise_leaks
)
_THRESHOLD = Remedy(
    "threshold",
    "half a standard deviation of the current is the usual one: a third of the neurons fires",
    "",
    _by_trial,
    set_thresholds,
)
_SMALL_BRANCHES = Remedy(
    "calibrate",
    "residual branches that start small keep what the network is shown",
    f"sb.calibrate(net, x, gain=None, fidelity={FAITHFUL})",
    _small_branches,
)
APPLIED = "diagnosis.verdict.remedies[0].apply(net, x, y)"
_VARIANCE = Remedy(
    "initialisation",
    "weights that give every layer's current a spread of 1, layer by layer (LSUV); a batch norm before every neuron "
    "would keep it there",
    f"{APPLIED}  # or nn.init.kaiming_normal_(conv.weight, mode='fan_in')",
    unit_currents,
)
_GAMMA = Remedy(
    "norm weights",
    "weights (gamma) of the norms that give every layer's current a spread of 1, layer by layer",
    f"{APPLIED}  # or nn.init.ones_(norm.weight)",
    unit_currents,
)
_BIAS = Remedy(
    "bias",
    "biases without which the mean alone does not decide who fires, and currents with a spread of 1",
    f"{APPLIED}  # or nn.init.zeros_(layer.bias)",
    unit_currents,
)
_ZERO = Remedy(
    "zero weights",
    "nothing goes through weights that are all 0: they are drawn anew, and every current gets a spread of 1",
    f"{APPLIED}  # or nn.init.kaiming_normal_(layer.weight)",
    redraw,
)
_STATISTICS = Remedy(
    "statistics",
    "running statistics of the images that the network is trained on; weights stay as they are",
    f"torch.optim.swa_utils.update_bn(train_loader, net)  # or, of x alone, {APPLIED}",
    refresh,
)
