"""The dominant cause of what a diagnosis found: a sentence, and the word that remedies are chosen by."""

import math
import statistics
from typing import Any, Literal

FAITHFUL = 0.5  # of the way from unrelated to equal inputs: below, the forward pass is chaotic
OUT_OF_REACH = 0.05  # share of membranes inside the surrogate's support: below, its height is not what is wrong
LARGE, SMALL = 5.0, 0.1  # spread of the current in thresholds; tau, or spread of the current
ALONE = 100.0  # a spread in thresholds that is to blame even if it is that of one layer
ROUNDING = 1e-5  # a spread of the current that is made of rounding
UPDATE = (1e-5, 1e-1)  # of a weight's size: a step that changes it by less, or more, is too small, or too large

Cause = tuple[str, str]


def cause_of(kind: str, facts: dict[str, Any]) -> Cause:
    """The cause; what the batch itself cannot tell, and what is wrong beside it, is said as well."""
    sentence, word = _cause(kind, facts)
    return " ".join([sentence, *_notes(kind, facts)]), word


def typical_update(facts: dict[str, Any]) -> tuple[float, Literal["small", "right", "large"]]:
    """The median over weights of update over size in one step of plain SGD, and how that is; 0 if there is none."""
    updates = [row["update"] for row in facts["weights"] if row["update"]]
    middle = statistics.median(updates) if updates else 0.0
    return middle, "right" if not updates or UPDATE[0] <= middle <= UPDATE[1] else "small" if middle < UPDATE[
        0
    ] else "large"


def chaotic(row: dict[str, Any]) -> bool:
    """Whether 1 % of noise makes two equal inputs nearly as different as unrelated ones."""
    faithful, unrelated = row["fidelity"], row["unrelated"] or 0.0
    return faithful is not None and faithful - unrelated < FAITHFUL * (1 - unrelated)


def _cause(kind: str, facts: dict[str, Any]) -> Cause:
    rows = facts["blocks"]
    if kind == "statistics":
        return _cause_of_statistics(facts["evaluation"])
    if kind in ("dead", "saturated"):
        layer = next(layer for layer in facts["layers"] if layer["stuck"] == kind)
        if facts.get("constant"):
            return f"input: every number of x is the same, so layer {layer['name']} is shown nothing.", "input"
        return _cause_of_dead(layer) if kind == "dead" else _cause_of_saturated(layer)
    if kind in ("vanishing", "exploding"):
        return _cause_of_size(kind, facts)
    if kind == "chaotic":
        sick = next(row for row in rows if chaotic(row))
        depth = rows.index(sick) + 1
        return (
            f"depth: 1 % of noise on the input leaves a spike correlation of {sick['fidelity']:.2f} after block "
            f"{depth} ({sick['name']}) of {len(rows)}, unrelated inputs have {sick['unrelated'] or 0:.2f}; a gradient "
            "through such a map is noise, whatever its size.",
            "depth",
        )
    return "gradients reach every block, and the forward pass keeps what it is shown.", "none"


def _notes(kind: str, facts: dict[str, Any]) -> list[str]:
    """What else a reader must know, a sentence each."""
    notes, frozen = list[str](), facts.get("frozen") or [0, 0]
    update, fits = typical_update(facts)
    if facts.get("alike"):
        samples = f"all {facts['batch_size']} samples are alike" if facts["batch_size"] > 1 else "it is a single sample"
        notes.append(
            f"The batch has no variety ({samples}): whether layers are saturated or the forward pass is chaotic cannot "
            "be told from it; give different ones."
        )
    if facts.get("classes") == 1 and facts["batch_size"] > 1:
        notes.append("All labels are one class: gradients are those of a batch that nobody trains on.")
    if (facts.get("evaluation") or {}).get("random"):
        notes.append(
            "The network draws at random in evaluation, too (a random encoder, or dropout that ignores self.training): "
            "its predictions differ from call to call."
        )
    if frozen[0]:
        every = "No parameter requires a gradient: nothing would be trained."
        notes.append(every if frozen[0] == frozen[1] else f"{frozen[0]} of {frozen[1]} parameters are frozen.")
    if kind == "healthy" and fits == "large":
        notes.append(
            f"But the learning rate of {facts['lr']:g} is too large: a step of plain SGD would change the weights by "
            f"{update:.1e} of their size (median)."
        )
    return notes


def _cause_of_statistics(found: dict[str, Any]) -> Cause:
    if "own_accuracy" in found:
        own, running = (f"{100 * found[f'{which}_accuracy']:.0f} % right" for which in ("own", "running"))
    else:
        own, running = (f"a loss of {found[f'{which}_loss']:.3g}" for which in ("own", "running"))
    return (
        f"statistics: with the statistics of the batch the network gets {own}, with the running ones, which evaluation "
        f"uses, {running}; those of {found['stale'][0]} are the farthest off.",
        "statistics",
    )


def _cause_of_dead(layer: dict[str, Any]) -> Cause:
    name, spread, threshold = layer["name"], layer["current_std"], layer["threshold"]
    silent = f"layer {name} does not fire"
    if layer.get("zero") and spread < ROUNDING:  # a norm makes something of the rounding of a bias
        return f"zero weights: {silent}; all weights of {layer['zero'][0]}, which feeds it, are 0.", "zero"
    if threshold is None:
        return f"{silent}; of its neurons only spikes are known.", "threshold"
    leaks = layer["leak"] is not None and layer["leak"] < SMALL
    if leaks and layer["fires_without_leak"] > 0.5:
        return (
            f"leak: {silent}; tau is {layer['leak']:g}, the membrane forgets before it reaches the threshold of "
            f"{threshold:g}, which the current summed over time would pass.",
            "leak",
        )
    if layer["current_mean"] < -max(spread, threshold):
        return _shifted(layer, f"{silent}; its current of {layer['current_mean']:.2g} ± {spread:.2g} is far below 0")
    if spread < threshold and _culprit(layer) != "threshold":
        return _scaled(
            layer,
            f"{silent}",
            f"so small that its current has a spread of {spread:.2g} only, with a threshold of {threshold:g}",
        )
    return (
        f"threshold: {silent}; its current has a spread of {spread:.2g}, the threshold is {threshold:g}.",
        "threshold",
    )


def _cause_of_saturated(layer: dict[str, Any]) -> Cause:
    mean, spread, threshold = layer["current_mean"], layer["current_std"], layer["threshold"]
    where = f"in layer {layer['name']} neurons fire always or never"
    if threshold is None:
        return f"{where}; of its neurons only spikes are known.", "threshold"
    if spread > LARGE * threshold:
        what = f"its current has a spread of {spread:.2g}, {spread / threshold:.0f} times the threshold"
        if _culprit(layer) != "threshold":
            return _scaled(layer, where, f"so large that {what}")
        return f"threshold: {where}; the threshold is only {threshold:g}: {what}.", "threshold"
    if abs(layer.get("lift") or 0.0) > 0.5 * abs(mean) and _culprit(layer) != "threshold":
        return _shifted(
            layer, f"{where}; its current of {mean:.2g} ± {spread:.2g} is far from the threshold of {threshold:g}"
        )
    return (
        f"threshold: {where}; its current of {mean:.2g} ± {spread:.2g} is far above the threshold of {threshold:g}.",
        "threshold",
    )


def _culprit(layer: dict[str, Any]) -> str:
    """What is to blame where current and threshold do not fit: whichever is farther from 1, by a factor."""
    size = max(layer["current_std"], abs(layer["current_mean"]))
    far = lambda value: abs(math.log(value)) if value > 0 else math.inf
    if far(layer["threshold"]) > far(size):
        return "threshold"
    return "norm" if layer.get("by_norm") else "initialisation"


def _scaled(layer: dict[str, Any], where: str, how: str) -> Cause:
    """A cause by the weights of what feeds a layer."""
    if layer.get("by_norm"):
        return f"norm: {where}; the weight (gamma) of {_names(layer)} before it is {how}.", "norm"
    of = f" of {_names(layer)}" if layer.get("fed_by") else ""
    return f"initialisation: {where}; the weights{of} before it are {how}.", "initialisation"


def _shifted(layer: dict[str, Any], what: str) -> Cause:
    """A cause by the mean of the current."""
    if layer.get("lift") and layer["lift"] * layer["current_mean"] > 0:
        return f"bias: {what}; the bias of {_names(layer)} puts it there.", "bias"
    return f"initialisation: {what}; the weights before it have a mean that is not 0.", "initialisation"


def _names(layer: dict[str, Any]) -> str:
    names = layer["fed_by"]
    return " and ".join(names) if len(names) < 3 else f"{names[0]} and {len(names) - 1} others"


def _cause_of_size(kind: str, facts: dict[str, Any]) -> Cause:
    rows, layers = facts["blocks"], [layer for layer in facts["layers"] if layer["active"] is not None]
    if rows[-1]["gradient"] == 0:
        zero = [row["name"] for row in facts["weights"] if row["norm"] == 0]
        if zero:
            return f"zero weights: not even the last block gets a gradient; {zero[-1]} is 0 throughout.", "zero"
        return "readout: not even the last block gets a gradient; look at what comes behind it.", "readout"
    gains = [row["gain"] for row in rows[1:] if row["gain"]]
    mean = math.exp(sum(map(math.log, gains)) / len(gains)) if gains else 0.0
    ratios = [row["gradient"] / rows[-1]["gradient"] if rows[-1]["gradient"] > 0 else math.inf for row in rows]
    worst = max(ratios) if kind == "exploding" else ratios[0]
    passed = (
        f"a block passes on {mean:.2g} times the gradient it gets, "
        f"{'the first' if worst == ratios[0] else 'one'} is left with {worst:.1e} of the last block's"
    )
    by_spread = sorted(layers, key=lambda layer: layer["current_std"] / layer["threshold"])
    wild = [layer for layer in by_spread if layer["current_std"] > LARGE * layer["threshold"]]
    alone = bool(wild) and wild[-1]["current_std"] > ALONE * wild[-1]["threshold"]
    if len(wild) * 2 > len(layers) or alone:
        layer = wild[-1] if alone else by_spread[len(layers) // 2]
        over = f"currents spread over {layer['current_std'] / layer['threshold']:.0f} thresholds"
        if _culprit(layer) == "threshold":
            return f"threshold: it is so low, {layer['threshold']:g}, that {over}; {passed}.", "threshold"
        what = f"weights (gamma) of norms, {_names(layer)} for one," if layer.get("by_norm") else "the weights"
        return f"{_culprit(layer)}: {what} are so large that {over}; {passed}.", _culprit(layer)
    active = sum(layer["active"] for layer in layers) / max(len(layers), 1)
    if kind == "vanishing" and layers and active < OUT_OF_REACH:
        share = f"only {100 * active:.1f} % of the membranes lie where the surrogate is not 0"
        return f"surrogate width: {share}; {passed}.", "width"
    moment = sum(layer["second_moment"] for layer in layers) / max(len(layers), 1)
    why = f"the mean square of the surrogate's derivative is {moment:.2g}, " if layers else ""
    low = "low" if kind == "vanishing" else "high"
    return f"surrogate height: {why}too {low} for this network: {passed}.", "height"
