"""Set a network up so that its gradient neither dies nor explodes, and its forward pass stays faithful."""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from spikeback.doctor.case import Case, examine, forward, with_input_gradient
from spikeback.doctor.measure import propagate
from spikeback.doctor.passes import fidelity as measure_fidelity
from spikeback.doctor.residual import neurons_in, residual_norms, residual_shares
from spikeback.doctor.spikes import stuck
from spikeback.doctor.survey import survey
from spikeback.doctor.undisturbed import undisturbed
from spikeback.errors import UsageError
from spikeback.nn import LIF
from spikeback.ops.surrogate import ATan, Rectangle, Sigmoid, Tanh

NOISE = 0.01  # of x's deviation: what fidelity is measured with
CLOSE = 0.02  # in the logarithm of a block's gain: near enough
SMALLEST = 2.0**-6  # scale of the residual norms that is tried
BISECTIONS = 7
ENOUGH = 0.95  # of the fidelity asked for: norms that were set once are not set again for another batch's noise
WIDTHS: dict[type, str] = {Rectangle: "a", Tanh: "k", Sigmoid: "alpha", ATan: "alpha"}  # the parameter that sets it


@dataclass
class Calibration:
    """What was set, and what came of it.

    `gains`: by block, the gain of its neurons (with `width`, the surrogate's parameter); empty if left alone.
    `measured`: by block, ||dL/d(input)|| / ||dL/d(output)|| afterwards. `norm_scale`: what the weight of every residual
    branch's last norm was multiplied by; None if these were left alone. `shares`: by residual block, the branch's share
    in the variance of the current into its last neuron. `fidelity`: correlation of the last block's spikes for x and
    x + 1 % noise.
    """

    gains: dict[str, float]
    measured: dict[str, float | None]
    norm_scale: float | None
    shares: dict[str, float]
    fidelity: float | None

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        cell = lambda value, width: f"{'–' if value is None else format(value, '.3g'):>{width}}"
        lines = [f"{'block':16} {'set to':>8} {'gain':>8} {'residual share':>15}"]
        for name, gain in self.measured.items():
            values = cell(self.gains.get(name), 8), cell(gain, 8), cell(self.shares.get(name), 15)
            lines.append(f"{name:16} {' '.join(values)}")
        scale = "" if self.norm_scale is None else f"residual norms scaled by {self.norm_scale:.3g}; "
        return "\n".join([*lines, f"{scale}fidelity of the last block {cell(self.fidelity, 0)}"])


def calibrate(
    net: nn.Module,
    x: Tensor,
    y: Tensor | None = None,
    *,
    gain: float | None = 1.0,
    fidelity: float | None = None,
    width: bool = False,
    norms: list[str] | None = None,
    blocks: list[str] | None = None,
    batches: int = 8,
) -> Calibration:
    """Set surrogate heights so that every block passes the gradient on with the same gain and, as an option, the
    residual branches' norms so that the forward pass stays faithful.

    Heights act on gradients only: the forward pass stays as it is, bit for bit, unless `fidelity` is given. Measured in
    training mode; costs nothing later, in training or inference.

    Args:
        net: a network with `spikeback.LIF` neurons; those of a block share one gain. With `gain=None` any framework's.
        x: pictures (B, ...) or frames (T, B, ...), as in training.
        y: labels (B,); None draws them.
        gain: ||dL/d(input)|| / ||dL/d(output)|| that every block is to have; None leaves surrogates alone.
        fidelity: correlation in (0, 1) that the last block's spikes for x and x + 1 % noise are to keep: the last norm
            of every residual branch is scaled down until they do, by one factor for all. None leaves norms alone.
        width: change the surrogates' widths, not the heights of their derivatives.
        norms: the residual branches' last norms by dotted name; None knows those of our blocks, and of blocks that
            name them as torchvision does.
        blocks: dotted names; None is those of `feature_info`, else what can be inferred.
        batches: forward and backward passes at most.

    Raises:
        UsageError: a gain but no `spikeback.LIF`, a surrogate without width, no residual norm, a number out of range.
    """
    _check(gain, fidelity, batches)
    scaled = [*residual_norms(net).values()] if norms is None else _named_norms(net, norms)
    if gain is not None and not any(isinstance(module, LIF) for module in net.modules()):
        way = "; gain=None, fidelity=0.7 sets the residual norms of any framework's network" if scaled else ""
        raise UsageError(
            f"calibrate: no spikeback.LIF in {type(net).__name__}, and other neurons have no gain to set{way}"
        )
    with undisturbed(net):
        net.train()
        case = examine(net, x, _labels(net, x) if y is None else y, blocks=blocks)
        neurons = {block: neurons_in(net, block) for block in case.blocks}
        if gain is not None and not any(neurons.values()):
            raise UsageError("calibrate: no spikeback.LIF in any block, and other neurons have no gain to set")
        if fidelity is not None and not scaled:
            raise UsageError(
                "calibrate: no residual branch's norm is known, so fidelity cannot be set; name them, "
                "norms=['layer1.0.bn2', ...], or leave fidelity out"
            )
        knobs = {} if gain is None else {block: Knob(found, width) for block, found in neurons.items() if found}
        weights = [norm.weight for norm in scaled]
        kept = [w.detach().clone() for w in weights]
        try:
            scale = None if fidelity is None else _tame(case, weights, kept, fidelity)
            measured = _level(case, knobs, gain or 1.0, batches)
            done = Calibration(
                {block: knob.value for block, knob in knobs.items()}, measured, scale,
                residual_shares(case, residual_norms(net)), measure_fidelity(case, NOISE)[case.blocks[-1]]["fidelity"],
            )  # fmt: skip
        except BaseException:
            _scale(weights, kept, 1.0)
            raise
    for block, value in done.gains.items():
        knobs[block].turn(value)
    return done


class Knob:
    """What makes the gradient of a block's neurons larger: their gain, or their surrogate's width."""

    def __init__(self, neurons: list[LIF], width: bool) -> None:
        self.neurons, self.surrogate, self.parameter = neurons, neurons[-1].surrogate, None
        if width:
            self.parameter = WIDTHS.get(type(self.surrogate))
            if self.parameter is None:
                known = ", ".join(kind.__name__ for kind in WIDTHS)
                raise UsageError(
                    f"calibrate: {self.surrogate} has no width to set, only {known} have; leave width=False"
                )
        self.value = neurons[-1].gain.mean().item() if width is False else getattr(self.surrogate, str(self.parameter))
        if not self.value > 0:
            raise UsageError(f"calibrate: a neuron's gain must be a positive number, it is {self.value}")
        self.slope = -1.0 if self.parameter == "a" else 1.5  # d log(gain of the block) / d log(value), a first guess
        self.last: tuple[float, float] | None = None  # logarithms of value and of the block's gain

    def turn(self, value: float) -> None:
        """Set all neurons of the block."""
        self.value = value
        for neuron in self.neurons:
            if self.parameter:
                neuron.surrogate = replace(self.surrogate, **{self.parameter: value})
            else:
                neuron.gain.fill_(value)

    def towards(self, target: float, measured: float) -> None:
        """A secant step in logarithms, of a factor of 10 at most."""
        here = (math.log(self.value), math.log(measured))
        if self.last and abs(here[0] - self.last[0]) > 1e-3:
            slope = (here[1] - self.last[1]) / (here[0] - self.last[0])
            sign = math.copysign(1.0, self.slope)
            self.slope = sign * min(max(sign * slope, 0.5), 3.0)
        self.last = here
        step = (math.log(target) - here[1]) / self.slope
        bound = 3.0 if self.parameter else 9.0
        self.turn(math.exp(min(max(here[0] + min(max(step, -2.3), 2.3), -bound), bound)))


def _level(case: Case, knobs: dict[str, Knob], target: float, batches: int) -> dict[str, float | None]:
    """Turn the knobs until every block has the gain; returns the gains last measured. A block without any is left."""
    case = with_input_gradient(case)
    measure = lambda: propagate(case.net, case.blocks, case.loss, x=case.x).gains
    for knob in knobs.values():
        knob.turn(knob.value)  # so that all neurons of a block begin alike
    for _ in range(batches - 1):
        gains = measure()
        known = {block: g for block in knobs if (g := gains[block]) and math.isfinite(g)}
        off = {block: g for block, g in known.items() if abs(math.log(g / target)) > CLOSE}
        if not off:
            return gains
        for block, g in off.items():
            knobs[block].towards(target, g)
    return measure()


def _tame(case: Case, weights: list[Tensor], kept: list[Tensor], target: float) -> float:
    """The largest scale of the residual norms, 1 or less, with which the last block is faithful; it is left set."""

    def faithful(scale: float, enough: float = 1.0) -> bool:
        _scale(weights, kept, scale)
        return (measure_fidelity(case, NOISE)[case.blocks[-1]]["fidelity"] or 0.0) >= enough * target

    if faithful(1.0, ENOUGH):
        return 1.0
    dead = silenced(case)
    low, high = math.log(SMALLEST), 0.0  # where it is faithful, or nothing is, and where it is not
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if faithful(math.exp(middle)) or silenced(case) - dead else (low, middle)
    _scale(weights, kept, math.exp(low))
    if silenced(case) - dead:  # layers whose spikes are always the same are faithful to nothing
        _scale(weights, kept, 1.0)
        return 1.0
    return math.exp(low)


def silenced(case: Case) -> set[str]:
    """The layers that do not fire."""
    layers = survey(case.net, case.x, case.batch, case.layers)[0]
    return {name for name, layer in layers.items() if stuck(layer.silent, layer.saturated) == "dead"}


@torch.no_grad()
def _scale(weights: list[Tensor], kept: list[Tensor], scale: float) -> None:
    for weight, before in zip(weights, kept, strict=True):
        weight.copy_(scale * before)


def _named_norms(net: nn.Module, norms: list[str]) -> list[Any]:
    modules = dict(net.named_modules())
    names = [norms] if isinstance(norms, str) else norms
    for name in names:
        if not isinstance(getattr(modules.get(name), "weight", None), Tensor):
            raise UsageError(f"norms: no module {name!r} with a weight; name a norm, e.g. 'layer1.0.bn2'")
    return [modules[name] for name in names]


def _labels(net: nn.Module, x: Tensor) -> Tensor:
    """Random classes: which ones hardly matters to how far a gradient gets."""
    with torch.no_grad():
        logits = forward(net, x)
    return torch.randint(logits.shape[-1], (logits.shape[-2],), device=logits.device)


def _check(gain: float | None, fidelity: float | None, batches: int) -> None:
    if gain is not None and not 0 < gain < math.inf:
        raise UsageError(f"gain must be a positive number or None, got {gain}")
    if fidelity is not None and not 0 < fidelity < 1:
        raise UsageError(f"fidelity must lie in (0, 1) or be None, got {fidelity}")
    if gain is None and fidelity is None:
        raise UsageError("calibrate has nothing to set: give gain=1.0, fidelity=0.7, or both")
    if batches < 1:
        raise UsageError(f"batches must be at least 1, got {batches}")
