"""The verdict on a diagnosis: what kind of illness, where, why, and what to do about it."""

import math
from dataclasses import dataclass
from itertools import takewhile
from textwrap import indent
from typing import Any, Literal, cast

from spikeback.doctor.remedies import Remedy, remedies_for
from spikeback.doctor.spikes import stuck

Kind = Literal["healthy", "vanishing", "exploding", "dead", "saturated", "chaotic"]
VANISHING, EXPLODING = 0.05, 20.0  # a block's gradient over that of the last block
REACHED = 0.01  # of the last block's gradient: blocks with more count as reached
FAITHFUL = 0.5  # of the way from unrelated to equal inputs: below, the forward pass is chaotic
OUT_OF_REACH = 0.05  # share of membranes inside the surrogate's support: below, its height is not what is wrong
LARGE, SMALL = 5.0, 0.1  # spread of the current in thresholds; spread of the current, or tau
HEALTHY: Kind = "healthy"
ORDER: tuple[Kind, ...] = ("dead", "saturated", "exploding", "vanishing", "chaotic")


@dataclass(frozen=True)
class Verdict:
    """What a diagnosis says.

    `kind`: of the network. `cause`: the dominant one, in a sentence. `blocks`: the kind of every block.
    `effective_depth`: how many blocks, counted from the output, get more than 1 % of the last block's gradient.
    `remedies`: what to do, in the order of expected gain.
    """

    kind: Kind
    cause: str
    blocks: dict[str, Kind]
    effective_depth: int
    remedies: tuple[Remedy, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; the text is that of `str`."""
        remedies = [{"title": r.title, "why": r.why, "code": r.code} for r in self.remedies]
        return {
            "kind": self.kind, "cause": self.cause, "effective_depth": self.effective_depth, "remedies": remedies,
            "text": str(self),
        }  # fmt: skip

    def __str__(self) -> str:
        depth = f"{self.effective_depth} of {len(self.blocks)} blocks get more than 1 % of the last block's gradient."
        lines = [f"{self.kind}: {self.cause} {depth}"]
        for number, remedy in enumerate(self.remedies, start=1):
            lines += [f"{number}. {remedy.title}: {remedy.why}", indent(remedy.code, " " * 5)]
        return "\n".join(lines)


def judge(facts: dict[str, Any]) -> Verdict:
    """The verdict on the facts of a diagnosis.

    Kinds are tried in this order, since each explains away those after it: dead and saturated layers stop spikes and
    gradients both; then the size of the gradient (exploding, vanishing); then its content (chaotic).
    """
    rows, layers = facts["blocks"], facts["layers"]
    last = rows[-1]["gradient"]
    blocks: dict[str, Kind] = {
        row["name"]: _kind(row, last, [layer for layer in layers if layer["block"] == row["name"]]) for row in rows
    }
    kinds = [*blocks.values(), *map(_stuck, layers)]
    kind = cast(Kind, next((kind for kind in ORDER if kind in kinds), HEALTHY))
    cause, culprit = _cause(kind, facts)
    return Verdict(kind, cause, blocks, _depth(rows), remedies_for(kind, culprit, facts))


def _kind(row: dict[str, Any], last: float, layers: list[dict[str, Any]]) -> Kind:
    """Of one block: what its layers do, then the size of its gradient, then whether its spikes are faithful."""
    ills = {_stuck(layer) for layer in layers}
    for kind in ("dead", "saturated"):
        if kind in ills:
            return kind
    if last == 0:  # nothing comes from the readout: as little as can be
        return "vanishing"
    ratio = row["gradient"] / last
    if not ratio <= EXPLODING or not math.isfinite(row["gradient"]):
        return "exploding"
    if ratio < VANISHING:
        return "vanishing"
    return "chaotic" if _chaotic(row) else HEALTHY


def _stuck(layer: dict[str, Any]) -> Kind | None:
    return stuck(layer["silent"], layer["saturated"])


def _chaotic(row: dict[str, Any]) -> bool:
    """Whether 1 % of noise makes two equal inputs nearly as different as unrelated ones."""
    faithful, unrelated = row["fidelity"], row["unrelated"] or 0.0
    return faithful is not None and faithful - unrelated < FAITHFUL * (1 - unrelated)


def _depth(rows: list[dict[str, Any]]) -> int:
    """How many blocks, counted from the output, get more than 1 % of the last block's gradient."""
    last = rows[-1]["gradient"]
    return len([*takewhile(lambda row: row["gradient"] > REACHED * last, reversed(rows))])


def _cause(kind: Kind, facts: dict[str, Any]) -> tuple[str, str]:
    """The dominant cause as a sentence, and in a word: what the remedies turn."""
    rows = facts["blocks"]
    if kind in ("dead", "saturated"):
        layer = next(layer for layer in facts["layers"] if _stuck(layer) == kind)
        return _cause_of_dead(layer) if kind == "dead" else _cause_of_saturated(layer)
    if kind in ("vanishing", "exploding"):
        return _cause_of_size(kind, facts)
    if kind == "chaotic":
        sick = next(row for row in rows if _chaotic(row))
        depth = rows.index(sick) + 1
        return (
            f"depth: 1 % of noise on the input leaves a spike correlation of {sick['fidelity']:.2f} after block "
            f"{depth} ({sick['name']}) of {len(rows)}, unrelated inputs have {sick['unrelated'] or 0:.2f}; a gradient "
            "through such a map is noise, whatever its size.",
            "depth",
        )
    return "gradients reach every block, and the forward pass keeps what it is shown.", "none"


def _cause_of_dead(layer: dict[str, Any]) -> tuple[str, str]:
    name, spread, threshold = layer["name"], layer["current_std"], layer["threshold"]
    silent = f"layer {name} does not fire"
    if threshold is None:
        return f"{silent}; of its neurons only spikes are known.", "threshold"
    leaks = layer["leak"] is not None and layer["leak"] < SMALL
    if leaks and layer["fires_without_leak"] > 0.5:
        return (
            f"leak: {silent}; tau is {layer['leak']:g}, the membrane forgets before it reaches the threshold of "
            f"{threshold:g}, which the current summed over time would pass.",
            "leak",
        )
    if spread < SMALL:
        return (
            f"initialisation: {silent}; the weights before it are so small that its current has a spread of "
            f"{spread:.2g} only, with a threshold of {threshold:g}.",
            "initialisation",
        )
    return (
        f"threshold: {silent}; its current has a spread of {spread:.2g}, the threshold is {threshold:g}.",
        "threshold",
    )


def _cause_of_saturated(layer: dict[str, Any]) -> tuple[str, str]:
    mean, spread, threshold = layer["current_mean"], layer["current_std"], layer["threshold"] or 1.0
    where = f"in layer {layer['name']} neurons fire always or never"
    if spread > LARGE * threshold:
        return (
            f"initialisation: {where}; its current has a spread of {spread:.2g}, {spread / threshold:.0f} times the "
            "threshold.",
            "initialisation",
        )
    return (
        f"threshold: {where}; its current of {mean:.2g} ± {spread:.2g} is far above the threshold of {threshold:g}.",
        "threshold",
    )


def _cause_of_size(kind: Kind, facts: dict[str, Any]) -> tuple[str, str]:
    rows, layers = facts["blocks"], [layer for layer in facts["layers"] if layer["active"] is not None]
    if rows[-1]["gradient"] == 0:
        return "readout: not even the last block gets a gradient; look at what comes behind it.", "readout"
    gains = [row["gain"] for row in rows[1:] if row["gain"]]
    mean = math.exp(sum(map(math.log, gains)) / len(gains)) if gains else 0.0
    ratios = [row["gradient"] / rows[-1]["gradient"] if rows[-1]["gradient"] > 0 else math.inf for row in rows]
    worst = max(ratios) if kind == "exploding" else ratios[0]
    passed = (
        f"a block passes on {mean:.2g} times the gradient it gets, "
        f"{'the first' if worst == ratios[0] else 'one'} is left with {worst:.1e} of the last block's"
    )
    wild = [layer["current_std"] / layer["threshold"] for layer in layers]
    if sum(spread > LARGE for spread in wild) * 2 > len(layers):
        what = "the weights are so large that currents spread over"
        return f"initialisation: {what} {sorted(wild)[len(wild) // 2]:.0f} thresholds; {passed}.", "initialisation"
    active = sum(layer["active"] for layer in layers) / max(len(layers), 1)
    if kind == "vanishing" and layers and active < OUT_OF_REACH:
        share = f"only {100 * active:.1f} % of the membranes lie where the surrogate is not 0"
        return f"surrogate width: {share}; {passed}.", "width"
    moment = sum(layer["second_moment"] for layer in layers) / max(len(layers), 1)
    why = f"the mean square of the surrogate's derivative is {moment:.2g}, " if layers else ""
    low = "low" if kind == "vanishing" else "high"
    return f"surrogate height: {why}too {low} for this network: {passed}.", "height"
