"""Results (schema 1, docs/results.md) as figures: mean over seeds, the seeds' range shaded.

Every method keeps its colour (Okabe and Ito's palette, safe for the colour-blind), marker and line style in all
figures. Text avoids TeX, so a method's name is drawn as it is spelt.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from spikeback.report.plots.style import COLOURS, LINES, MARKERS, REFERENCE, STYLE, beside, decades, legend
from spikeback.report.tables import Results, by_method, check, finite

RESERVED = ("vanilla", "shortcut", "evolutionary")  # the same look in every report, whoever finishes first
MOMENTS = ("before training", "half-way", "at the end")


class Look(NamedTuple):
    """How a method is drawn; `glyph` is its marker as a character."""

    colour: str
    marker: str
    line: str
    glyph: str


def looks(results: Results) -> dict[str, Look]:
    """One look a method; 24 methods can be told apart."""
    names = dict.fromkeys((*RESERVED, *by_method(results)))
    markers = list(MARKERS.items())
    return {
        name: Look(COLOURS[i % len(COLOURS)], markers[i % len(markers)][0], LINES[i % 4], markers[i % len(markers)][1])
        for i, name in enumerate(names)
    }


@rc_context(STYLE)
def accuracy_curves(results: Results, width: float = 8.0) -> Figure:
    """Test accuracy by epoch: the main branch alone and, beside it, the sum that was trained; dashed: chance.

    `width` in inches; below 6 the panels stand one upon the other.
    """
    check(results)
    panels = {"test_accuracy": "main branch alone"}
    sums = [(t["history"].get("test_sum_accuracy") or [], t["history"]["test_accuracy"]) for t in results["trials"]]
    if any(finite(total) and total != alone for total, alone in sums):
        panels["test_sum_accuracy"] = "main + λ · branches, as trained"
    figure, axes = beside(len(panels), width)
    chance = 100 / len(results["dataset"]["classes"])
    for ax, (key, title) in zip(axes, panels.items(), strict=True):
        _curves(ax, results, key, scale=100)
        ax.axhline(chance, **REFERENCE, label="chance")
        ax.set(title=title, xlabel="epoch", ylabel="test accuracy, %")
        ax.label_outer()
    _from_zero(axes[0])
    legend(figure, axes[0])
    return figure


@rc_context(STYLE)
def loss_curves(results: Results, width: float = 5.0) -> Figure:
    """Training loss by epoch, of what each method trains; `width` in inches."""
    return _single(results, "train_loss", "training loss", width)


@rc_context(STYLE)
def weight_curve(results: Results, width: float = 5.0) -> Figure:
    """λ, the weight of the branches, at the last step of every epoch; `width` in inches."""
    return _single(results, "weight", "λ, weight of the branches", width)


@rc_context(STYLE)
def gradient_by_block(results: Results, width: float = 8.0) -> Figure:
    """Norm of dL/d(block output) by block, last block = 1, on a log axis: before training, half-way, at the end.

    Geometric mean over seeds; a gradient of exactly zero is a 0 on the floor. `width` in inches; below 6 the
    panels stand one upon the other.
    """
    check(results)
    probed = {m: [t for t in ts if (t.get("gradients") or {}).get("norm")] for m, ts in by_method(results).items()}
    rows = max((len(t["gradients"]["norm"]) for ts in probed.values() for t in ts), default=1)
    moments = [m for m, needed in zip(MOMENTS, (1, 3, 2), strict=True) if rows >= needed]
    figure, axes = beside(len(moments), width)
    floor, ceiling = 0.1, 1.0
    for ax, moment in zip(axes, moments, strict=True):
        ax.axhline(1, **REFERENCE)
        for method, look in looks(results).items():
            if trials := probed.get(method):
                low, high = gradient_line(ax, method, look, np.ma.stack([_relative(t, moment) for t in trials]))
                floor, ceiling = min(floor, low), max(ceiling, high)
        ax.set(title=moment, xlabel="block, first → last", ylabel="|dL/d(block)|, last = 1")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        ax.label_outer()
    decades(axes[0], floor, ceiling)
    legend(figure, axes[0])
    return figure


def _single(results: Results, key: str, label: str, width: float) -> Figure:
    check(results)
    figure, (ax,) = beside(1, width)
    _curves(ax, results, key)
    ax.set(xlabel="epoch", ylabel=label)
    _from_zero(ax)
    legend(figure, ax)
    return figure


def _curves(ax: Axes, results: Results, key: str, scale: float = 1.0) -> None:
    """Mean and range over seeds of one list of the history, a line a method."""
    methods = by_method(results)
    for method, look in looks(results).items():
        lists = [t["history"].get(key) or [] for t in methods.get(method, ())]
        if epochs := max(map(len, lists), default=0):
            rows = np.array([[*values, *[None] * (epochs - len(values))] for values in lists], dtype=float)
            rows = scale * np.ma.masked_invalid(rows)  # (seeds, epochs); None has become NaN
            line(ax, method, look, rows.mean(0), rows.min(0), rows.max(0))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def line(ax: Axes, method: str, look: Look, mean: Any, low: Any, high: Any, x: Any = None) -> None:
    """A method's mean over seeds and their range, over `x` or, without, over 1, 2, ..."""
    x = np.arange(1, len(mean) + 1) if x is None else x
    ax.fill_between(x, low, high, color=look.colour, alpha=0.2, linewidth=0)
    every = math.ceil(len(x) / 16)
    ax.plot(x, mean, color=look.colour, marker=look.marker, linestyle=look.line, markevery=every, label=method)


def _relative(trial: dict[str, Any], moment: str) -> Any:
    """Gradient norms of one trial at one moment over that of the last block, (blocks,); undefined is masked."""
    steps, norms = trial["gradients"]["step"], trial["gradients"]["norm"]
    middle = min(range(len(norms)), key=lambda i: abs(steps[i] - steps[-1] / 2))
    row = norms[{"before training": 0, "half-way": middle, "at the end": -1}[moment]]
    norm = np.ma.masked_invalid(np.array(row, dtype=float))
    return norm / norm[-1:]  # masked arrays mask a division by zero


def gradient_line(ax: Axes, method: str, look: Look, ratios: Any, x: Any = None) -> tuple[float, float]:
    """Draw (seeds, points) of ratios; return the smallest and largest that a log axis can show."""
    logs = np.ma.log10(np.ma.masked_less_equal(ratios, 0))
    x = np.arange(1, ratios.shape[1] + 1) if x is None else x
    line(ax, method, look, *(10 ** log.filled(np.nan) for log in (logs.mean(0), logs.min(0), logs.max(0))), x=x)
    for dead in np.flatnonzero((ratios == 0).filled(False).any(0)).tolist():
        place = {"transform": ax.get_xaxis_transform(), "ha": "center", "va": "bottom"}
        ax.text(x[dead], 0.01, "0", color=look.colour, weight="bold", **place)
    return (10 ** logs.min(), 10 ** logs.max()) if logs.count() else (1.0, 1.0)


def _from_zero(ax: Axes) -> None:
    ax.set_ylim(0, 1.04 * ax.get_ylim()[1])  # headroom for the topmost marker
