"""Calibration: set an untrained network so that its gradient keeps its size and its forward pass stays faithful."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from spikeback.doctor.measure.case import Case, examine, forward, with_input_gradient
from spikeback.doctor.measure.feeds import survey
from spikeback.doctor.measure.finite import watching
from spikeback.doctor.measure.gradients import propagate
from spikeback.doctor.measure.onednn import avoided
from spikeback.doctor.measure.passes import fidelity as measure_fidelity
from spikeback.doctor.measure.residual import neurons_in, residual_norms, residual_shares
from spikeback.doctor.measure.spikes import stuck
from spikeback.doctor.remedies.knob import Knob
from spikeback.errors import UsageError
from spikeback.foreign.randomness import same_draws
from spikeback.foreign.undisturbed import undisturbed
from spikeback.nn import Neuron
from spikeback.targets import Fidelity, Gain

NOISE = 0.01  # of x's deviation: what fidelity is measured with
CLOSE = 0.02  # in the logarithm of a block's gain: near enough
SMALLEST = 2.0**-6  # scale of the residual norms that is tried
BISECTIONS = 7
MISSED = 0.1  # in the logarithm of a block's gain: so far off that it is said
ENOUGH = 0.95  # of the fidelity asked for: norms that were set once are not set again for another batch's noise


@dataclass
class Calibration:
    """What a calibration set, and what it measured afterwards.

    `gains`: by block, the gain that its neurons were given (with `width`, the surrogate's parameter). Empty if they
    were left alone.
    `measured`: by block, the block's gain afterwards, ||dL/d(input)|| / ||dL/d(output)||.
    `norm_scale`: the factor on the weight of every residual branch's last norm. None if the norms were left alone.
    `shares`: by residual block, the fraction of the variance of the current into its last neuron that the residual
    branch supplies.
    `fidelity`: correlation of the last block's spikes for x and x + 1 % noise.
    `note`: in one line, what was asked for and not reached. Empty if all was reached.
    """

    gains: dict[str, float]
    measured: dict[str, float | None]
    norm_scale: float | None
    shares: dict[str, float]
    fidelity: float | None
    note: str = ""

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
        last = f"{scale}fidelity of the last block {cell(self.fidelity, 0)}"
        return "\n".join([*lines, last, *([self.note] if self.note else [])])


class NotReached(UsageError):
    """A fidelity that no scale of the residual norms reaches: the network was left exactly as it was."""

    def __init__(self, found: str, cure: str, fidelity: float) -> None:
        super().__init__(f"calibrate: {found}; {cure}")
        self.found, self.fidelity = found, fidelity


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
    """Set the gain of every block, the fidelity of the forward pass, or both, before the first training step.

    The gain is set by the heights of the surrogates. They act on gradients only: unless `fidelity` is given, the
    forward pass stays the same, bit for bit. The fidelity is set by the last norm of every residual branch. All is
    measured in training mode on one batch. Calibration costs nothing later, in training or inference.

    Args:
        net: a network with `spikeback.LIF` neurons; those of a block share one gain. With `gain=None` any framework's.
        x: a batch as in training: images (B, ...) or frames (T, B, ...), time first.
        y: labels (B,). None draws them at random.
        gain: the gain that every block is to have, ||dL/d(input)|| / ||dL/d(output)||. None leaves surrogates alone.
        fidelity: the correlation in (0, 1) that the last block's spikes for x and x + 1 % noise are to have. The last
            norm of every residual branch is scaled down until they have it, by one factor for all. Norms that reach at
            least 95 % of it already are left alone, as the noise is drawn anew each time. `Calibration.fidelity` is
            what was reached, and `note` says so where it is less. None leaves norms alone.
        width: change the surrogates' widths instead of the heights of their derivatives.
        norms: the residual branches' last norms by dotted name. None finds those of our blocks, and of blocks that name
            them as torchvision does.
        blocks: dotted names of the blocks. None takes those of `feature_info`, else infers them.
        batches: the largest number of forward and backward passes.

    Returns:
        What was set and what was measured afterwards.

    Raises:
        NotReached (a UsageError): no scale of the norms reaches the fidelity. Gains that were not reached within
            `batches` are no error: `Calibration.note` names them.
        UsageError: there is a gain but no `spikeback.LIF`, a surrogate without width, no residual norm, a number out of
            range, or one that is not finite in x, the network or a layer's current. In all of these cases nothing was
            changed.
    """
    _check(gain, fidelity, batches)
    scaled = [*residual_norms(net).values()] if norms is None else _named_norms(net, norms)
    if gain is not None and not any(isinstance(module, Neuron) for module in net.modules()):
        way = "; gain=None, fidelity=0.7 sets the residual norms of any framework's network" if scaled else ""
        raise UsageError(
            f"calibrate: no spikeback.LIF in {type(net).__name__}, and other neurons have no gain to set{way}"
        )
    with undisturbed(net), avoided(net):
        net.train()
        case = examine(net, x, _labels(net, x) if y is None else y, blocks=blocks)
        with watching(case.layers), torch.no_grad():
            case.check(case.logits())
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
                _missed({block: measured[block] for block in knobs}, gain or 1.0, batches),
            )  # fmt: skip
            done.note = "; ".join(filter(None, (done.note, _less(done, fidelity))))
        except BaseException:
            _scale(weights, kept, 1.0)
            raise
    for block, value in done.gains.items():
        knobs[block].turn(value)
    return done


def _level(case: Case, knobs: dict[str, Knob], target: float, batches: int) -> dict[str, float | None]:
    """Turn the knobs until every block has the gain; returns the gains last measured. A block without any is left."""
    case = with_input_gradient(case)

    def measure() -> dict[str, float | None]:
        with same_draws(case.net):
            return propagate(case.net, case.blocks, case.loss, x=case.x).gains

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


def _missed(gains: dict[str, float | None], target: float, batches: int) -> str:
    """Which blocks did not get the gain, in one line; empty if all did."""
    off = {b: g for b, g in gains.items() if not g or not math.isfinite(g) or abs(math.log(g / target)) > MISSED}
    if not off:
        return ""
    each = ", ".join(
        f"{block} ({'no gradient' if gain is None else format(gain, '.3g')})" for block, gain in off.items()
    )
    return f"gain {target:g} was not reached within {batches} passes by {len(off)} of {len(gains)} blocks: {each}"


def _less(done: Calibration, target: float | None) -> str:
    """That the fidelity is below the one asked for, in one line; empty if it is not."""
    reached = done.fidelity or 0.0
    if target is None or reached >= target:
        return ""
    alone = f"; norms that reach {ENOUGH:.0%} of it are left alone" if done.norm_scale == 1 else ""
    return f"fidelity {target:g} was asked for, {reached:.3g} is reached{alone}"


def _tame(case: Case, weights: list[Tensor], kept: list[Tensor], target: float) -> float:
    """The largest scale of the residual norms, 1 or less, with which the last block is faithful; it is left set.

    Raises NotReached if it is with none that was tried.
    """
    tried: dict[float, float] = {}

    def faithful(scale: float, enough: float = 1.0) -> bool:
        _scale(weights, kept, scale)
        tried[scale] = measure_fidelity(case, NOISE)[case.blocks[-1]]["fidelity"] or 0.0
        return tried[scale] >= enough * target

    if faithful(1.0, ENOUGH):
        return 1.0
    dead, found = silenced(case), None
    low, high = math.log(SMALLEST), 0.0  # where it is faithful, or nothing is, and where it is not
    for _ in range(BISECTIONS):
        scale = math.exp((low + high) / 2)
        enough = faithful(scale)
        if silenced(case) - dead:  # layers whose spikes are always the same are faithful to nothing
            low = math.log(scale)
            del tried[scale]
        elif enough:
            low, found = math.log(scale), scale
        else:
            high = math.log(scale)
    if found is None:
        raise _not_reached(tried, target)
    _scale(weights, kept, found)
    return found


def _not_reached(tried: dict[float, float], target: float) -> NotReached:
    """What was reached instead, and what can be asked for."""
    scale, best = max(tried.items(), key=lambda pair: pair[1])
    found = (
        f"fidelity {target:g} is reached at no scale of the residual norms from 1 to {min(tried):.2g}: {best:.2f} at "
        f"most, at {scale:.2g}, and {tried[1.0]:.2f} as they are; nothing was changed"
    )
    less = math.floor(90 * best) / 100  # with room for another draw of the noise
    asked = f"ask for less, fidelity={less:g}, or " if less > 0 else ""
    return NotReached(found, f"{asked}set gains only, gain=1.0 without fidelity", tried[1.0])


def silenced(case: Case) -> set[str]:
    """The layers that do not fire."""
    layers = survey(case.net, case.x, case.batch, case.layers, case.layouts)[0]
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
    for kind, value in ((Gain, gain), (Fidelity, fidelity)):
        if value is not None:
            kind(value)
    if gain is None and fidelity is None:
        raise UsageError("calibrate has nothing to set: give gain=1.0, fidelity=0.7, or both")
    if batches < 1:
        raise UsageError(f"batches must be at least 1, got {batches}")
