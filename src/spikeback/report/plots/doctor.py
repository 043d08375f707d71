"""A diagnosis as a figure: a panel for everything that was measured, blocks from left to right."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from spikeback.report.doctor_table import Facts, relative
from spikeback.report.plots.style import (
    COLOURS,
    INK,
    REFERENCE,
    STYLE,
    decades,
    extremes,
    faded,
    handful,
    key,
    over_blocks,
    per_cent,
    save,
)
from spikeback.report.tables import power_of_ten

ORANGE, BLUE, GREEN, PURPLE, AMBER, SKY = COLOURS
KINDS = {  # colour and marker of a block's kind
    "healthy": (GREEN, "o"), "vanishing": (ORANGE, "v"), "exploding": (AMBER, "^"), "dead": (INK, "X"),
    "saturated": (PURPLE, "s"), "chaotic": (BLUE, "D"), "statistics": (SKY, "P"),
}  # fmt: skip
ROW = 2.35  # inches


@rc_context(STYLE)
def diagnosis_figure(facts: Facts, width: float = 9.6) -> Figure:
    """Gradient, gain, activity, membranes, fidelity, coherence, descent test and directions by block.

    What was not measured has no panel and no line. `width` in inches; below 6 the panels stand one upon the other.
    """
    chosen = [draw for draw, keys in PANELS.items() if draw is gradient or _known(facts, keys)]
    columns = 2 if width >= 6 else 1
    rows = math.ceil(len(chosen) / columns)
    figure = Figure(figsize=(width, 0.2 + ROW * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for i, (ax, draw) in enumerate(zip(axes, chosen, strict=False)):
        draw(ax, facts)
        over_blocks(ax, len(facts["blocks"]))
        if i + columns < len(chosen):
            ax.set_xlabel("")
    for ax in axes[len(chosen) :]:
        ax.remove()
    return figure


def save_diagnosis(facts: Facts, folder: str | Path, name: str = "diagnosis") -> list[Path]:
    """Write the figure as PNG and SVG, each atomically.

    Raises:
        UsageError: a folder that cannot be written to.
    """
    return save(diagnosis_figure(facts), folder, name)


def gradient(ax: Axes, facts: Facts) -> None:
    """Norm of dL/d(block output) over that of the last block, on a log axis; a marker tells a block's kind."""
    rows = facts["blocks"]
    ratios = _numbers(relative(rows))
    ax.axhline(1, **REFERENCE)
    ax.plot(*_points(np.where(ratios > 0, ratios, np.nan)), color=INK, alpha=0.45, linewidth=1.5)
    kinds = [row.get("kind") for row in rows]
    for kind, (colour, marker) in KINDS.items():
        mine = np.array([other == kind for other in kinds])
        if mine.any():
            y = np.where(mine & (ratios > 0), ratios, np.nan)
            ax.plot(*_points(y), marker, color=colour, markersize=_size(len(rows)), label=kind, clip_on=False, zorder=3)
    _log(ax, [ratios])
    extremes(ax, ratios, INK)
    key(ax, "Gradient at the block's output")
    ax.set_ylabel("last block = 1")


def gain(ax: Axes, facts: Facts) -> None:
    """What every block makes of the gradient: measured, as predicted, and in the ReLU twin."""
    ax.axhline(1, **REFERENCE)
    drawn = [
        _line(ax, facts, "gain", "measured", BLUE, "o", "-"),
        _line(ax, facts, "predicted", "theory", ORANGE, "D", "--"),
        _line(ax, facts, "relu", "ReLU", GREEN, "^", "-."),
        _line(ax, facts, "relu_predicted", "ReLU, theory", GREEN, "", ":"),
    ]
    _log(ax, drawn)
    for values, colour in zip(drawn, (BLUE, ORANGE, GREEN, GREEN), strict=True):
        extremes(ax, values, colour)
    key(ax, "Gain: gradient at the input / at the output")


def activity(ax: Axes, facts: Facts) -> None:
    """Shares of membranes in the surrogate's support, of spikes, of neurons that never or always fire."""
    _line(ax, facts, "active", "active", BLUE, "o", "-")
    _line(ax, facts, "rate", "firing", ORANGE, "^", "--")
    _line(ax, facts, "silent", "silent", INK, "X", ":")
    _line(ax, facts, "saturated", "always firing", PURPLE, "s", "-.")
    ax.set_ylim(-0.03, 1.03)
    per_cent(ax)
    key(ax, "Activity (active: surrogate not 0)")


def membrane(ax: Axes, facts: Facts) -> None:
    """Where the membranes are when they may fire, in thresholds: the mean of a block's layers."""
    densities, edges = [], np.zeros(1)
    for row in facts["blocks"]:
        found = [layer["membrane"] for layer in facts["layers"] if layer["block"] == row["name"] and layer["membrane"]]
        densities.append(np.mean([one["density"] for one in found], 0) if found else None)
        edges = np.array(found[0]["edges"]) if found else edges
    image = np.array([np.full(len(edges) - 1, np.nan) if one is None else one for one in densities])  # (blocks, bins)
    if image.shape[1] % 2 == 0:
        image, edges = image[:, ::2] + image[:, 1::2], edges[::2]
    x = np.arange(len(image) + 1) + 0.5
    top = max(np.nanmax(image[:, 1:-1], initial=0.0), 1e-9)
    ax.pcolormesh(x, edges[1:-1], image.T[1:-1], cmap=faded(BLUE), vmin=0, vmax=top)
    for ends in (slice(0, 2), slice(-2, None)):  # the outermost bins hold all that lies beyond
        beyond = image.T[:1] if ends.start == 0 else image.T[-1:]
        ax.pcolormesh(x, edges[ends], beyond, cmap=faded(INK), vmin=0, vmax=1)
    ax.axhline(1, **REFERENCE)
    ax.grid(visible=False)
    ax.set(title="Membranes before firing (grey: share beyond)", ylabel="u / threshold", ylim=(edges[0], edges[-1]))


def moments(ax: Axes, facts: Facts) -> None:
    """Which time steps the gradient at a block's output comes from: shares of its square."""
    steps = np.array([row["gradient_by_step"] for row in facts["blocks"]], dtype=float) ** 2  # (blocks, T)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = steps / steps.sum(1, keepdims=True)
    blocks, t = np.arange(len(steps) + 1) + 0.5, np.arange(steps.shape[1] + 1) + 0.5
    ax.pcolormesh(blocks, t, np.ma.masked_invalid(shares.T), cmap=faded(BLUE), vmin=0, vmax=1)
    ax.grid(visible=False)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
    ax.set(title="Time steps the gradient comes from", ylabel="time step")


def fidelity(ax: Axes, facts: Facts) -> None:
    """Whether the spikes keep apart what differs and together what does not."""
    drawn = [
        _line(ax, facts, "fidelity", "under noise", BLUE, "o", "-"),
        _line(ax, facts, "unrelated", "unrelated", INK, "X", ":"),
        _line(ax, facts, "relu_fidelity", "under noise, ReLU", GREEN, "^", "-."),
    ]
    ax.set_ylim(min(-0.03, _finite(np.concatenate(drawn)).min(initial=0.0) - 0.03), 1.03)
    key(ax, "Fidelity: how alike the spikes are")
    ax.set_ylabel("correlation")


def coherence(ax: Axes, facts: Facts) -> None:
    """The signal share of the gradient; pure noise is around 0."""
    ax.axhline(0, **REFERENCE)
    values = _line(ax, facts, "coherence", "", BLUE, "o", "-")
    low, high = _finite(values).min(initial=0.0), _finite(values).max(initial=0.01)
    ax.set_ylim(1.2 * low - 0.05 * high, 1.12 * high)
    per_cent(ax)
    ax.set(title="Coherence: the gradient's signal share")


def descent(ax: Axes, facts: Facts) -> None:
    """Measured over predicted change of the loss after a small step of the block's weights."""
    ax.axhline(1, **REFERENCE)
    values = _line(ax, facts, "descent", "", BLUE, "o", "-")
    largest = np.abs(_finite(values)).max(initial=1.0)
    if largest > 20:  # then what matters is sign and size
        top = math.ceil(math.log10(largest))
        powers = [p for p in range(1, top + 1) if p % math.ceil(top / 2) == 0]
        ax.set_ylim(*(1.6 * end for end in (_finite(values).min(initial=-1.0), _finite(values).max(initial=1.0))))
        ax.set_yscale("symlog", linthresh=1, linscale=0.7)
        ax.set_yticks([*(-(10.0**p) for p in powers[::-1]), 0, *(10.0**p for p in powers)])
        ax.set_yticklabels([*("−" + power_of_ten(p) for p in powers[::-1]), "0", *(power_of_ten(p) for p in powers)])
        ax.minorticks_off()
    ax.set(title="Descent: loss change, measured / predicted")


def directions(ax: Axes, facts: Facts) -> None:
    """How many directions the samples' firing rates span, of at most one less than there are samples."""
    values = _line(ax, facts, "participation", "", BLUE, "o", "-")
    ax.set_ylim(0, 1.12 * _finite(values).max(initial=1.0))
    ax.set(title="Directions that the samples' activations span")


PANELS: dict[Callable[[Axes, Facts], None], tuple[str, ...]] = {  # each with the numbers it is drawn for
    gradient: (),
    gain: ("gain", "predicted", "relu"),
    activity: ("active", "rate", "silent"),
    membrane: ("membrane",),
    fidelity: ("fidelity",),
    directions: ("participation",),
    coherence: ("coherence",),
    descent: ("descent",),
    moments: ("gradient_by_step",),
}


def _known(facts: Facts, keys: Sequence[str]) -> bool:
    """Whether any of the numbers was measured in any block; of the time steps, whether there are several."""
    if keys == ("gradient_by_step",):
        return all(len(row.get("gradient_by_step") or ()) == facts["time_steps"] > 1 for row in facts["blocks"])
    rows = [layer for layer in facts["layers"] if layer["block"]] if keys == ("membrane",) else facts["blocks"]
    return any(row.get(name) is not None for row in rows for name in keys)


def _numbers(values: Sequence[float | None]) -> Any:
    return np.array(values, dtype=float)  # None becomes NaN, which is not drawn


def _finite(values: Any) -> Any:
    return values[np.isfinite(values)]


def _points(values: Any) -> tuple[Any, Any]:
    return np.arange(1, len(values) + 1), np.where(np.isfinite(values), values, np.nan)


def _size(blocks: int) -> float:
    return 6.0 if blocks <= 20 else 4.0


def _line(ax: Axes, facts: Facts, name: str, label: str, colour: str, marker: str, line: str) -> Any:
    """Draw one number of every block if it was measured anywhere; return it as an array, (blocks,)."""
    values = _numbers([row.get(name) for row in facts["blocks"]])
    if not np.isnan(values).all():
        ax.plot(
            *_points(values), color=colour, marker=marker, linestyle=line, label=label or None, linewidth=1.6,
            markersize=_size(len(values)) - 1, markevery=math.ceil(len(values) / 20),
        )  # fmt: skip
    return values


def _log(ax: Axes, drawn: Sequence[Any]) -> None:
    """A log axis around 1 and everything on it that is finite and above 0."""
    values = _finite(np.concatenate(drawn))
    values = values[values > 0]
    low, high = float(min(values, default=1.0)), float(max(values, default=1.0))
    if math.log10(high) - math.log10(low) > 1.5:
        return decades(ax, min(low, 0.5), max(high, 1.0))
    handful(ax.yaxis, min(0.8 * low, 0.4), max(1.25 * high, 1.5))
