"""What helps a sick network: each remedy with its reason, the line that applies it, and the function that does."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from spikeback.doctor.calibrate import calibrate
from spikeback.doctor.causes import typical_update
from spikeback.doctor.feeds import survey
from spikeback.doctor.finite import require_finite
from spikeback.doctor.repair import redraw, require_firing, unit_currents
from spikeback.doctor.residual import residual_norms
from spikeback.doctor.spikes import stuck
from spikeback.doctor.statistics import refresh
from spikeback.doctor.undisturbed import all_or_nothing
from spikeback.errors import UsageError
from spikeback.nn import LIF
from spikeback.ops.surrogate import Rectangle
from spikeback.shortcut import ShortcutNet

Apply = Callable[[nn.Module, Tensor, Tensor], nn.Module]
USUAL = 0.5  # threshold over the spread of the current: that of the authors' code behind a batch norm
TAUS = (0.25, 0.5, 0.75, 0.9, 1.0)
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


def remedies_for(kind: str, cause: str, facts: dict[str, Any]) -> tuple[Remedy, ...]:
    """Remedies of a kind and its cause (one word of the verdict's), in the order of expected gain."""
    return tuple(replace(remedy, apply=_whole(remedy)) for remedy in _chosen(kind, cause, facts))


def _chosen(kind: str, cause: str, facts: dict[str, Any]) -> list[Remedy]:
    if kind in ("healthy", "statistics"):
        return [*([_STATISTICS] if kind == "statistics" else []), *_rates(facts, small=False)]
    repairs = {
        "leak": [_TAU, _THRESHOLD], "threshold": [_THRESHOLD], "initialisation": [_VARIANCE, _NORM],
        "norm": [_GAMMA, _THRESHOLD], "bias": [_BIAS, _THRESHOLD], "zero": [_ZERO],
    }  # fmt: skip
    if cause in ("input", "zero"):
        return repairs.get(cause, [])
    ours = [layer for layer in facts["layers"] if layer["family"] == "spikeback"]
    calibration = [_calibration(facts["residual"], max(layer["threshold"] for layer in ours))] if ours else []
    branches = [_branches(propose_taps(facts["blocks"]))] if kind in ("vanishing", "chaotic") else []
    found = [*repairs.get(cause, []), *calibration, *([] if facts["branches"] else branches)]
    return [*found, *([_WIDTH] if cause == "width" or not ours else []), *_rates(facts)]


def _whole(remedy: Remedy) -> Apply:
    """Apply a remedy wholly or not at all; of what is to make layers fire it is measured that they do."""

    def apply(net: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
        require_finite(net, x, y)
        with all_or_nothing(net):
            treated = remedy.apply(net, x, y)
            if remedy.title in ("tau", "threshold"):
                require_firing(survey(treated, x, len(y))[0], f"another {remedy.title}")
        return treated

    return apply


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
APPLIED = "diagnosis.verdict.remedies[0].apply(net, x, y)"
_VARIANCE = Remedy(
    "initialisation",
    "weights that give every layer's current a spread of 1, layer by layer (LSUV)",
    f"{APPLIED}  # or nn.init.kaiming_normal_(conv.weight, mode='fan_in')",
    unit_currents,
)
_NORM = Remedy(
    "norm",
    "a batch norm before every neuron keeps its current's spread at 1, whatever the weights",
    "nn.BatchNorm2d(channels)  # before every spiking layer; ours: sb.create_model(..., norm=None) has it",
    unit_currents,  # the same, for a network whose layers are given
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
    "running statistics of the pictures that the network is trained on; weights stay as they are",
    f"torch.optim.swa_utils.update_bn(train_loader, net)  # or, of x alone, {APPLIED}",
    refresh,
)
