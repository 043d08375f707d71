"""Results of a bench as a figure: bars of medians, or lines over T and batch; every repetition is a dot."""

from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from spikeback.lab.bench.numbers import whole
from spikeback.lab.bench.show import figures
from spikeback.report.plots.style import COLOURS, INK, LINES, MARKERS, STYLE
from spikeback.report.plots.style import png as to_png

OURS, THEIRS, YARDSTICK = COLOURS[1], COLOURS[0], "#9aa0a6"
YARDSTICKS = ("floor", "direct", "ann", "copy")


def png(results: dict[str, Any]) -> bytes:
    """The figure as PNG."""
    with rc_context(STYLE):
        return to_png(lines(results) if results["axis"] else bars(results))


def bars(results: dict[str, Any]) -> Figure:
    """One horizontal bar an arm: median, 95 % interval, and a dot a repetition; a panel for each `at`.

    Of `branches` there is a second column of panels, with the memory.
    """
    arms = [arm for arm in results["arms"] if whole(arm)]
    panels = [[arm for arm in arms if arm["at"] == at] for at in dict.fromkeys(arm["at"] for arm in arms)] or [[]]
    columns = {"seconds": (1e3, "milliseconds")}
    columns |= {"peak_bytes": (1e-6, "peak MB")} if results["bench"] == "branches" else {}
    size = (4 + 4 * len(columns), 0.5 + 0.6 * len(panels) + 0.32 * len(arms))
    figure, heights = Figure(figsize=size, layout="constrained"), [1 + len(panel) for panel in panels]
    axes = figure.subplots(len(panels), len(columns), squeeze=False, height_ratios=heights)
    for row, panel in zip(axes, panels, strict=True):
        for ax, (key, (scale, _)) in zip(row, columns.items(), strict=True):
            for y, arm in enumerate(panel[::-1]):
                _bar(ax, y, arm, key, scale)
            ax.set_yticks(range(len(panel)), [arm["name"] for arm in panel[::-1]] if ax is row[0] else [])
            ax.grid(axis="y", visible=False)
            ax.margins(x=0.1, y=0.02)
            ax.set_xlim(left=0)
    figure.axes[0].set_title(results["title"])
    for ax, (_, unit) in zip(axes[-1], columns.values(), strict=True):
        ax.set_xlabel(f"{unit}: median of {results['options']['repetitions']}, 95 % interval, every repetition")
    return figure


def _bar(ax: Axes, y: int, arm: dict[str, Any], key: str, scale: float) -> None:
    median, (low, high) = scale * arm[f"{key}_median"], scale * np.array(arm[f"{key}_interval"])
    dots = scale * np.array(arm[key])
    ax.barh(y, median, color=_colour(arm), height=0.66, zorder=2)
    ax.errorbar(median, y, xerr=[[median - low], [high - median]], color=INK, capsize=3, linewidth=1.2, zorder=3)
    ax.plot(dots, [y] * len(dots), ".", color=INK, alpha=0.35, markersize=4, zorder=3)
    ax.annotate(figures(median), (max(high, *dots), y), (5, 0), textcoords="offset points", va="center", size=9)


def lines(results: dict[str, Any]) -> Figure:
    """Time and peak memory over the axis, both logarithmic, a line for each kind of arm."""
    figure = Figure(figsize=(9, 4.4), layout="constrained")
    panels = figure.subplots(1, 2)
    scales = {"seconds": (1e3, "milliseconds a step"), "peak_bytes": (1e-6, "peak memory of a step, MB")}
    names = list(dict.fromkeys(arm["line"] for arm in results["arms"] if whole(arm)))
    for ax, (key, (scale, label)) in zip(panels, scales.items(), strict=True):
        for i, name in enumerate(names):
            points = sorted((a for a in results["arms"] if whole(a) and a["line"] == name), key=lambda a: a["at"])
            _line(ax, i, name, points, key, scale)
        at = sorted({arm["at"] for arm in results["arms"]})
        ax.set(xscale="log", yscale="log", xlabel=results["axis"], ylabel=label)
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))
        ax.set_xticks(at, [str(value) for value in at])
        ax.minorticks_off()
    figure.suptitle(results["title"], x=0.01, ha="left", size=10.5)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=2)
    return figure


def _line(ax: Axes, i: int, name: str, points: list[dict[str, Any]], key: str, scale: float) -> None:
    x = [arm["at"] for arm in points]
    y = scale * np.array([arm[f"{key}_median"] for arm in points])
    low, high = (scale * np.array([arm[f"{key}_interval"][end] for arm in points]) for end in (0, 1))
    exponent = f" (exponent {np.polyfit(np.log(x), np.log(y), 1)[0]:.2f})" if len(x) > 1 and (y > 0).all() else ""
    colour, marker = COLOURS[i % len(COLOURS)], list(MARKERS)[i % len(MARKERS)]
    look: Any = {"color": colour, "marker": marker, "linestyle": LINES[i % 4]}
    ax.plot(x, y, label=name + (exponent if key == "seconds" else ""), **look)
    ax.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)


def _colour(arm: dict[str, Any]) -> str:
    """Ours, another framework's, or a yardstick."""
    return THEIRS if arm["python"] else YARDSTICK if arm["name"].startswith(YARDSTICKS) else OURS
