"""The verdict on a diagnosis: what kind of illness, where, why, and what to do about it."""

import math
from dataclasses import dataclass
from itertools import takewhile
from textwrap import indent
from typing import Any, Literal, cast

from spikeback.doctor.causes import cause_of, chaotic
from spikeback.doctor.measure.spikes import stuck
from spikeback.doctor.remedies.catalogue import Remedy, remedies_for

Kind = Literal["healthy", "vanishing", "exploding", "dead", "saturated", "chaotic", "statistics"]
VANISHING, EXPLODING = 0.05, 20.0  # a block's gradient over that of the last block
REACHED = 0.01  # of the last block's gradient: blocks with more count as reached
HEALTHY: Kind = "healthy"
ORDER: tuple[Kind, ...] = ("statistics", "dead", "saturated", "exploding", "vanishing", "chaotic")


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

    Kinds are tried in this order, since each explains away those after it: stale running statistics are seen by what
    they cost; dead and saturated layers stop spikes and gradients both; then the size of the gradient (exploding,
    vanishing); then its content (chaotic).
    """
    rows, stale, alike = facts["blocks"], facts.get("stale_blocks") or [], facts.get("alike", False)
    layers = [layer | {"stuck": _stuck(layer, alike)} for layer in facts["layers"]]
    last = rows[-1]["gradient"]
    blocks: dict[str, Kind] = {
        row["name"]: _kind(row, last, {layer["stuck"] for layer in layers if layer["block"] == row["name"]}, alike)
        for row in rows
    }
    kinds = [*blocks.values(), *(layer["stuck"] for layer in layers)]
    blocks |= {name: "statistics" for name, found in blocks.items() if name in stale and found in (HEALTHY, "chaotic")}
    ill = ["statistics"] if (facts.get("evaluation") or {}).get("sick") else []
    kind = cast(Kind, next((kind for kind in ORDER if kind in [*ill, *kinds]), HEALTHY))
    cause, culprit = cause_of(kind, facts | {"layers": layers})
    return Verdict(kind, cause, blocks, _depth(rows), remedies_for(kind, culprit, facts))


def _kind(row: dict[str, Any], last: float, ills: set[Kind | None], alike: bool) -> Kind:
    """Of one block: what its layers do, then the size of its gradient, then whether its spikes are faithful."""
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
    return "chaotic" if chaotic(row) and not alike else HEALTHY


def _stuck(layer: dict[str, Any], alike: bool) -> Kind | None:
    """Whether a layer is dead or saturated. Of samples that are `alike` only a layer without a spike says so: nothing
    changes from one to the next anyway."""
    if alike:
        return "dead" if layer["silent"] == 1 else None
    return stuck(layer["silent"], layer["saturated"])


def _depth(rows: list[dict[str, Any]]) -> int:
    """How many blocks, counted from the output, get more than 1 % of the last block's gradient."""
    last = rows[-1]["gradient"]
    return len([*takewhile(lambda row: row["gradient"] > REACHED * last, reversed(rows))])
