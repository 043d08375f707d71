"""`spikeback.diagnose`: everything that is measured of one network on one batch, and what it says."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import Tensor, nn

from spikeback.doctor.measure import passes as extra
from spikeback.doctor.measure.blocks import home
from spikeback.doctor.measure.case import Case, Criterion, about, examine, with_input_gradient
from spikeback.doctor.measure.feeds import Feed, fed_by, traced
from spikeback.doctor.measure.gradients import Pass, propagate
from spikeback.doctor.measure.onednn import avoided, note
from spikeback.doctor.measure.readout import notes, several, unfamiliar, without_readouts
from spikeback.doctor.measure.residual import residual_norms, residual_shares
from spikeback.doctor.measure.spikes import Layer
from spikeback.doctor.measure.statistics import evaluation, stale_blocks
from spikeback.doctor.remedies.catalogue import fitted
from spikeback.doctor.theory.gain import RELU, Stateless, observe, plain_layers, predict, relu_twin
from spikeback.doctor.verdict import Verdict, judge
from spikeback.errors import UsageError
from spikeback.foreign.randomness import same_draws
from spikeback.foreign.undisturbed import undisturbed
from spikeback.nn.why import named, noting, sentence
from spikeback.shortcut import ShortcutNet
from spikeback.values import instead, json_ready

SCHEMA = 1
CHUNKS = 8  # of a batch, for the coherence
PASSES = ("fidelity", "coherence", "descent", "theory")
MEASURED = (
    "coherence",
    "descent",
    "fidelity",
    "unrelated",
    "participation",
    "predicted",
    "relu",
    "relu_predicted",
    "relu_fidelity",
    "share",
)


@dataclass(frozen=True)
class Diagnosis:
    """What `spikeback.diagnose` found. `print` shows it as a table with the verdict.

    `facts`: all measurements as a dictionary of plain values; `blocks`, `layers` and `weights` are its rows of numbers.
    `verdict`: what is wrong, why, and the remedies that were tried. docs/doctor.md says what each measurement means.
    """

    facts: dict[str, Any]
    verdict: Verdict

    @property
    def blocks(self) -> list[dict[str, Any]]:
        """One row a block, from the input to the output: gradient, gain, firing rate, fidelity and more."""
        return self.facts["blocks"]

    @property
    def layers(self) -> list[dict[str, Any]]:
        """One row a spiking layer, in the order of the forward pass: firing rate, membrane potential, what feeds it."""
        return self.facts["layers"]

    @property
    def weights(self) -> list[dict[str, Any]]:
        """One row a weight tensor: its norm, that of its gradient, and the relative size of an update."""
        return self.facts["weights"]

    @property
    def table(self) -> Any:
        """A `rich` table with bars, one row a block. `print(diagnosis)` shows it."""
        from spikeback.report.doctor import DoctorTable

        return DoctorTable(self._shown)

    def plot(self) -> Any:
        """A matplotlib figure: gradient, gain, activity and fidelity by block."""
        from spikeback.report.doctor import diagnosis_figure

        return diagnosis_figure(self._shown)

    def as_dict(self) -> dict[str, Any]:
        """Facts and verdict as plain values, ready for JSON. A number that is not finite is None."""
        return json_ready(self._shown)

    @property
    def _shown(self) -> dict[str, Any]:
        return {**self.facts, "verdict": self.verdict.as_dict()}

    def __str__(self) -> str:
        from spikeback.report.doctor import doctor_text

        return doctor_text(self._shown)


def diagnose(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    weight: float = 0.0,
    blocks: list[str] | None = None,
    is_spiking: Callable[[nn.Module], bool] | None = None,
    loss: Criterion | None = None,
    lr: float = 0.1,
    passes: Sequence[str] = PASSES,
    chunks: int | None = None,
    noise: float = 0.01,
) -> Diagnosis:
    """Find out where a network's gradient dies, why, and what helps.

    The measurement is one forward and one backward pass in training mode, and the further passes that `passes` names.
    The network is left exactly as it was: parameters, their gradients, buffers, modes, hooks, neuron and random state.

    Args:
        net: any module with spiking layers: ours, SpikingJelly's, snnTorch's, norse's, sinabs's, or those that
            `is_spiking` names. It returns logits (T, B, K) or (B, K).
        x: a batch: images (B, C, H, W) or frames (T, B, ...).
        y: its labels (B,).
        weight: lambda, the weight of the branches, if `net` is a `ShortcutNet`.
        blocks: dotted module names in network order. None takes those of `feature_info`, else infers them.
        is_spiking: says of a module of another kind whether it is a spiking layer. Its membrane potential stays
            unknown.
        loss: (output, labels) -> mean loss. `output` is all that the network returns, exactly as it does: logits, or a
            tuple of spikes and membrane potentials. For the coherence it gets parts of the batch. None is the
            cross-entropy of the logits' mean over time. If the network returns several tensors, the first holds spikes
            only, and another of the same shape real numbers, then the latter is taken for the logits. It is the
            membrane potential, and a note says so.
        lr: learning rate, for the ratio of update to weight.
        passes: which further passes to run: "fidelity" (and participation ratio), "coherence", "descent", "theory"
            (predicted gains, and those of the ReLU twin).
        chunks: K, the number of parts of the batch for the coherence, at least 8. None is 8; a batch with fewer samples
            then has no coherence.
        noise: size of the noise that fidelity is measured with, in standard deviations of x.

    Raises:
        UsageError: there is no spiking layer, blocks cannot be inferred, labels are out of range, the loss is not
            finite, or an argument is none of its choices.
    """
    unknown = [name for name in passes if name not in PASSES]
    if unknown or isinstance(passes, str):
        raise UsageError(
            f"passes: must be a list, not {passes!r}, e.g. ['fidelity']"
            if isinstance(passes, str)
            else f"passes: no pass {unknown[0]!r}{instead(unknown[0], PASSES)}"
        )
    for name, value in {"lr": lr, "noise": noise}.items():
        if not 0 <= value < math.inf:
            raise UsageError(f"{name} must be a number of at least 0, got {value}")
    with avoided(net):
        return _diagnosis(examine(net, x, y, weight, blocks, is_spiking, loss), lr, passes, chunks, noise)


def _diagnosis(case: Case, lr: float, passes: Sequence[str], chunks: int | None, noise: float) -> Diagnosis:
    """The measurements of a case, and the verdict on them."""
    net = case.net
    if chunks is None and case.batch < CHUNKS:  # too few samples to tell signal from noise
        passes = [name for name in passes if name != "coherence"]
    with undisturbed(net):
        net.train()
        leaf = with_input_gradient(case)
        with traced(net, case.layers) as feeds, same_draws(net):  # the draws of the descent test
            found = propagate(net, case.blocks, leaf.loss, case.layers, case.batch, leaf.x, case.layout)
        unreached = [name for name, norm in found.norms.items() if norm == 0]
        case = replace(case, blocks=without_readouts(case.blocks, found.readouts, unreached))
        unknown = unfamiliar(case)
        with noting() as places:
            judged = several(case)
        more = _further(case, found, passes, CHUNKS if chunks is None else chunks, noise, twin=not unknown)
    order = [*feeds, *(layer.name for layer in found.layers)]  # of the first calls
    facts = {
        "schema": SCHEMA,
        "net": type(net).__name__,
        "batch_size": case.batch,
        "time_steps": max((len(layer.rate_by_step) for layer in found.layers), default=1),
        "loss": found.loss,
        "lr": lr,
        "residual": bool(residual_norms(net)),
        "branches": isinstance(net, ShortcutNet),
        "blocks": [_block(name, case, found, more) for name in case.blocks],
        "layers": [_layer(layer, case, feeds) for layer in sorted(found.layers, key=lambda one: order.index(one.name))],
        "weights": _weights(case, found, lr),
        **about(case),
        "frozen": [sum(not p.requires_grad for p in net.parameters()), len([*net.parameters()])],
        "evaluation": (evaluated := evaluation(case)),
        "stale_blocks": stale_blocks(evaluated, case.blocks),
        "notes": [*notes(unknown, found.readouts), *filter(None, (note(net), judged, sentence(named(net, places))))],
    }
    verdict = judge(facts)
    remedies = fitted(verdict.remedies, net, case.x, case.y, [layer.name for layer in found.layers])
    verdict = replace(verdict, remedies=remedies)
    for row, kind in zip(facts["blocks"], verdict.blocks.values(), strict=True):
        row["kind"] = kind
    return Diagnosis(facts, verdict)


def _further(
    case: Case, found: Pass, passes: Sequence[str], chunks: int, noise: float, twin: bool
) -> dict[str, dict[str, Any]]:
    """What the optional passes measure, by block; `twin`: every neuron is known, so that a ReLU can stand for each."""
    more: dict[str, dict[str, Any]] = {name: dict.fromkeys(MEASURED) for name in case.blocks}
    figures: list[extra.Figures] = []
    if "fidelity" in passes:
        figures.append(extra.fidelity(case, noise))
        shares = residual_shares(case, residual_norms(case.net))
        figures.append({name: {"share": shares.get(name)} for name in case.blocks})
    if "coherence" in passes:
        figures.append(extra.coherence(case, chunks))
    if "descent" in passes:
        figures.append(extra.descent(case, found.gradients))
    if "theory" in passes:
        figures.append(_theory(case, noise if "fidelity" in passes else None, twin))
    for by_block in figures:
        for name, values in by_block.items():
            more[name] |= values
    return more


def _theory(case: Case, noise: float | None, twin: bool) -> extra.Figures:
    """Predicted gains, and gains and fidelity of the network's ReLU twin, measured and predicted."""
    predicted = predict(case.net, observe(case.net, case.x, layouts=case.layouts), case.blocks)
    found: extra.Figures = {name: {"predicted": predicted[name]} for name in case.blocks}
    if not twin or not plain_layers(case):
        return found
    try:
        net = relu_twin(case.net, case.layers)
    except (AttributeError, RuntimeError, TypeError):  # not every network can be copied
        return found
    relu = replace(case, net=net)
    leaf = with_input_gradient(relu)
    try:
        gains = propagate(net, relu.blocks, leaf.loss, x=leaf.x).gains
    except (UsageError, Stateless):  # ReLU has no upper bound, nor all that a network may ask its neurons for
        return found
    predicted = predict(net, observe(net, relu.x, dict.fromkeys(case.layers, RELU), case.layouts), relu.blocks)
    faithful = extra.fidelity(relu, noise) if noise is not None else {}
    for name, values in found.items():
        values |= {"relu": gains[name], "relu_predicted": predicted[name]}
        values |= {"relu_fidelity": faithful[name]["fidelity"]} if faithful else {}
    return found


def _block(name: str, case: Case, found: Pass, more: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A block's row: gradients, what its spiking layers do (the last one's rates, means over all), further measures."""
    layers = [layer for layer in found.layers if home(layer.name, case.blocks) == name]
    last = layers[-1] if layers else None
    mean = lambda key: _mean([getattr(layer, key) for layer in layers])
    return {
        "name": name,
        "kind": None,
        "gradient": found.flows[name].norm,
        "gradient_by_step": found.flows[name].by_step,
        "gain": found.gains[name],
        **{key: getattr(last, key, None) for key in ("rate", "rate_by_step", "silent", "saturated")},
        **{key: mean(key) for key in ("active", "derivative", "second_moment")},
        **more[name],
    }


def _layer(layer: Layer, case: Case, feeds: dict[str, Feed]) -> dict[str, Any]:
    fed = fed_by(case.net, feeds.get(layer.name, Feed()))
    return {**asdict(layer), "block": home(layer.name, case.blocks), **fed}


def _weights(case: Case, found: Pass, lr: float) -> list[dict[str, Any]]:
    rows = []
    for name, p in case.net.named_parameters():
        if p.ndim > 1 and name in found.gradients:
            norm, gradient = p.detach().norm().item(), found.gradients[name].norm().item()
            relative = gradient / norm if norm > 0 else None
            rows.append({
                "name": name, "block": home(name, case.blocks), "norm": norm, "gradient": gradient,
                "relative": relative, "update": None if relative is None else lr * relative,
            })  # fmt: skip
    return rows


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
