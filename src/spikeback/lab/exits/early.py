"""Branches that stay at inference: what every exit costs, and what leaving early is worth."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from spikeback.models.macs import counting_macs
from spikeback.shortcut.net import ShortcutNet

MAIN = "main"
# The first lets everybody leave at the first exit, the last nobody before the main branch.
THRESHOLDS = (*(i / 100 for i in range(99)), 0.99, 0.992, 0.994, 0.996, 0.998, 0.999, 0.9995, 0.9999, 1.0)


@dataclass(frozen=True)
class Exit:
    """A branch, or the main one: MACs of the network up to and with its tap, and of the branch itself."""

    name: str
    trunk: int
    branch: int = 0


def exits_of(model: ShortcutNet, x: Tensor) -> list[Exit]:
    """The exits in the order they are reached, the main branch last; MACs of one call on x (`counting_macs`)."""
    done: dict[str, int] = {}  # MACs when each of these modules has ended, the last time it is called

    def note(name: str, macs: Callable[[], int], *_: Any) -> None:
        done[name] = macs()

    taps = dict(zip(model.taps, model.branches, strict=True))
    names = [*(f"net.{tap}" for tap in taps), "net", *(f"branches.{key}" for key in taps.values())]
    with counting_macs() as macs:
        hooks = [model.get_submodule(name).register_forward_hook(partial(note, name, macs)) for name in names]
        try:
            model.logits(x, per_step=False)
        finally:
            for hook in hooks:
                hook.remove()
    ended = [done["net"], *(done[f"branches.{key}"] for key in taps.values())]  # one after the other
    found = [
        Exit(tap, done[f"net.{tap}"], end - start) for tap, (start, end) in zip(taps, pairwise(ended), strict=True)
    ]
    return [*sorted(found, key=lambda e: e.trunk), Exit(MAIN, done["net"])]


def shares_alone(exits: Sequence[Exit]) -> list[float]:
    """MACs of each exit without the others, over those of the plain network."""
    return [(e.trunk + e.branch) / exits[-1].trunk for e in exits]


def shares_early(exits: Sequence[Exit]) -> list[float]:
    """MACs of a sample that leaves at each exit, over those of the plain network: it has tried all before."""
    branches = torch.tensor([e.branch for e in exits]).cumsum(0).tolist()
    return [(e.trunk + spent) / exits[-1].trunk for e, spent in zip(exits, branches, strict=True)]


@dataclass
class Outcome:
    """What the exits (E, the main branch last) say of N samples."""

    confidence: Tensor  # (E, N), largest softmax probability of the mean logits over time
    right: Tensor  # (E, N), bool
    sums: dict[float, float]  # accuracy of main + weight * sum(side), by weight

    @property
    def accuracy(self) -> list[float]:
        """Of every exit alone."""
        return self.right.double().mean(1).tolist()


def judge(
    model: ShortcutNet, batches: Iterable[tuple[Tensor, Tensor]], order: Sequence[str], weights: Iterable[float]
) -> Outcome:
    """Run the samples through all exits, `order` of their names, and through the sums with `weights`."""
    confidence, right, summed = [], [], {weight: [] for weight in weights}
    for x, y in batches:
        main, side = model.logits(x, per_step=False)
        logits = torch.stack([(side | {MAIN: main})[name].float()[0] for name in order])  # (E, B, K)
        confidence.append(logits.softmax(2).amax(2))
        right.append(logits.argmax(2) == y)
        for weight, hits in summed.items():
            hits.append((main + weight * sum(side.values())).float()[0].argmax(1) == y)
    sums = {weight: torch.cat(hits).double().mean().item() for weight, hits in summed.items()}
    return Outcome(torch.cat(confidence, 1), torch.cat(right, 1), sums)


def early_exit(outcome: Outcome, shares: Sequence[float], thresholds: Sequence[float] = THRESHOLDS) -> dict[str, Any]:
    """Each sample leaves at the first exit that is more confident than the threshold, at the last exit in any case.

    Returns:
        Lists, one entry a threshold: `accuracy`; `macs`, the mean of `shares` (E,) over samples; `leaving`, the
        fraction of samples that leave at each exit.
    """
    cost, samples = torch.tensor(shares, dtype=torch.float64), outcome.right.shape[1]
    result: dict[str, Any] = {"accuracy": [], "macs": [], "leaving": []}
    for threshold in thresholds:
        leaves = outcome.confidence > threshold
        leaves[-1] = True
        exit = leaves.int().argmax(0)  # (N,), the first of equals
        result["accuracy"].append(outcome.right.gather(0, exit[None]).double().mean().item())
        counts = exit.bincount(minlength=len(cost)).double()
        result["macs"].append((counts @ cost).item() / samples)
        result["leaving"].append((counts / samples).tolist())
    return result


def cheapest(curve: dict[str, Any], accuracy: float) -> int:
    """Which threshold of a curve costs least among those at which it is at least so accurate; of equals the most so.

    The last one, at which nobody leaves early, stands in if none is.
    """
    points = zip(curve["macs"], curve["accuracy"], strict=True)
    able = [(spent, -reached, i) for i, (spent, reached) in enumerate(points) if reached >= accuracy]
    return min(able)[2] if able else len(curve["macs"]) - 1
