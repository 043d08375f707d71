"""Figures over several networks: theory against measurement, the phase diagram, vanishing against depth."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from spikeback.report.doctor_table import Facts
from spikeback.report.plots.style import COLOURS, MARKERS, REFERENCE, STYLE, handful, legend
from spikeback.report.tables import finite


@rc_context(STYLE)
def gain_scatter(networks: Sequence[tuple[str, Facts]], width: float = 6.0) -> Figure:
    """Gain of every block, predicted against measured, log-log: a marker a network, hollow for its ReLU twin.

    The band is a factor of 2 about equality; the title counts the blocks inside (`within`). `width` in inches.
    """
    figure = Figure(figsize=(width, width + 0.27 * math.ceil(len(networks) / 2)), layout="constrained")
    ax: Any = figure.subplots()
    drawn, inside, count = [1.0], 0, 0
    for i, (label, facts) in enumerate(networks):
        colour, marker = COLOURS[i % len(COLOURS)], list(MARKERS)[i % len(MARKERS)]
        for theory, measured, face in (("predicted", "gain", colour), ("relu_predicted", "relu", "none")):
            pairs = _pairs(facts, theory, measured)
            if pairs:
                name = label if face == colour else None
                ax.plot(*zip(*pairs, strict=True), marker, color=colour, markerfacecolor=face, label=name, alpha=0.8)
                drawn += [value for pair in pairs for value in pair]
        close, all_blocks = within(facts)
        inside, count = inside + close, count + all_blocks
    twins = " (hollow: ReLU twins)" if any(_pairs(facts, "relu_predicted", "relu") for _, facts in networks) else ""
    low, high = 0.7 * min(drawn), 1.4 * max(drawn)
    ends = np.array([low, high])
    ax.plot(ends, ends, zorder=0, **REFERENCE)
    ax.fill_between(ends, ends / 2, ends * 2, color=COLOURS[2], alpha=0.12, linewidth=0, zorder=0)
    for axis in (ax.xaxis, ax.yaxis):
        handful(axis, low, high)
    ax.set(xlabel="gain, predicted", ylabel="gain, measured", aspect="equal")
    ax.set_title(f"{inside} of {count} blocks within a factor of 2{twins}" if count else "no block was predicted")
    legend(figure, ax)
    return figure


def within(facts: Facts, factor: float = 2.0) -> tuple[int, int]:
    """How many blocks' predicted gain is within that factor of the measured one, and of how many."""
    pairs = _pairs(facts, "predicted", "gain")
    return sum(1 / factor <= theory / measured <= factor for theory, measured in pairs), len(pairs)


def _pairs(facts: Facts, theory: str, measured: str) -> list[tuple[float, float]]:
    pairs = [(row.get(theory), row.get(measured)) for row in facts["blocks"]]
    return [pair for pair in pairs if all(value and 0 < value < math.inf for value in pair)]


@rc_context(STYLE)
def phase_diagram(
    curves: Sequence[Mapping[str, Any]], points: Sequence[Mapping[str, Any]], width: float = 7.0
) -> Figure:
    """Gain of a block over the surrogate's height: theory as lines, one a threshold, measurements as points.

    Args:
        curves: each `threshold`, `height` and `gain` (lists), and, an option, `critical`: the height at which the gain
            is 1, else read off the curve.
        points: each `threshold`, `height`, `gain` and, an option, `low` and `high`: the range over blocks.
        width: in inches.
    """
    figure = Figure(figsize=(width, 0.62 * width + 0.4), layout="constrained")
    ax: Any = figure.subplots()
    ax.axhline(1, **REFERENCE)
    values, keys = [1.0], []
    for i, threshold in enumerate(sorted({entry["threshold"] for entry in (*curves, *points)})):
        colour, marker = COLOURS[i % len(COLOURS)], list(MARKERS)[i % len(MARKERS)]
        theory = [curve for curve in curves if curve["threshold"] == threshold]
        measured = [point for point in points if point["threshold"] == threshold]
        for curve in theory:
            ax.plot(curve["height"], curve["gain"], color=colour)
            _critical(ax, critical_height(curve), colour)
            values += curve["gain"]
        for point in measured:
            _measurement(ax, point, marker, colour)
            values += [point[name] for name in ("gain", "low", "high") if point.get(name)]
        look: Any = {"linestyle": "-" if theory else "", "marker": marker if measured else ""}
        keys.append(Line2D([], [], color=colour, label=f"threshold {threshold:g}", **look))
    values = finite(value for value in values if value and value > 0)
    handful(ax.yaxis, 0.8 * min(values), 1.15 * max(values))
    ax.set(xlabel="height of the surrogate’s derivative", ylabel="gain of a block")
    figure.legend(handles=keys, loc="outside upper left", ncols=max(1, int(width / 1.7)))
    return figure


def _measurement(ax: Axes, point: Mapping[str, Any], marker: str, colour: str) -> None:
    height, gain = point["height"], point["gain"]
    low, high = min(point.get("low") or gain, gain), max(point.get("high") or gain, gain)
    ax.errorbar(height, gain, [[gain - low], [high - gain]], fmt=marker, color=colour, capsize=3, elinewidth=1.2)


def critical_height(curve: Mapping[str, Any]) -> float | None:
    """Where a curve of gain over height first reaches 1, between points in both logarithms; None if it does not."""
    if curve.get("critical") is not None:
        return curve["critical"]
    heights = curve["height"]
    logs = [math.log(gain) if gain > 0 else -math.inf for gain in curve["gain"]]
    for i in range(len(logs) - 1):
        a, b = logs[i : i + 2]
        if a != b and min(a, b) <= 0 <= max(a, b) and math.isfinite(a - b):
            return heights[i] * (heights[i + 1] / heights[i]) ** (a / (a - b))
    return None


def _critical(ax: Axes, height: float | None, colour: str) -> None:
    """Mark the height on the line of gain 1, and write it beside the foot of the plumb line."""
    if height is not None:
        ax.plot([height, height], [0, 1], color=colour, linewidth=1.2, linestyle=":")
        ax.plot([height], [1], "o", color=colour, markerfacecolor="white", markersize=7, zorder=4)
        place: Any = {"xycoords": ax.get_xaxis_transform(), "textcoords": "offset points", "size": 9, "color": colour}
        ax.annotate(f"{height:.2f}", (height, 0), (4, 4), weight="bold", **place)
