"""How every figure looks: ink, colours, markers, axes, and the files it becomes."""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from spikeback.files import as_path, write_atomic
from spikeback.report.tables import power_of_ten

INK = "#22262b"  # text, axes and grid; no method has this colour, so a page can exchange it
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "font.family": "sans-serif",
    "text.color": INK,
    "text.parse_math": False,
    "text.usetex": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": INK,
    "grid.alpha": 0.13,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.handlelength": 2.5,
    "legend.columnspacing": 1.5,
    "lines.linewidth": 2.0,
    "lines.markersize": 6.0,
    "svg.fonttype": "none",
}
COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚", "X": "✖", "*": "★"}
LINES = ("--", "-.", "-", ":")
REFERENCE: dict[str, Any] = {"color": INK, "linewidth": 1, "linestyle": (0, (4, 3)), "alpha": 0.7}


def png(figure: Figure) -> bytes:
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=150, facecolor="white", metadata={"Software": None})
    return data.getvalue()


def svg(figure: Figure, salt: str, **options: Any) -> str:
    """The figure as SVG, text as text, always the same; `salt` sets its ids apart from other figures'."""
    text = io.StringIO()
    with rc_context(STYLE), rc_context({"svg.hashsalt": salt}):
        no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(text, format="svg", metadata=no_metadata, **options)
    crisp = '<g shape-rendering="crispEdges" id="QuadMesh'  # no seams between the cells of a map
    return text.getvalue().replace('<g id="QuadMesh', crisp)


def save(figure: Figure, folder: str | Path, name: str, formats: Sequence[str] = ("png", "svg")) -> list[Path]:
    """Write the figure as `name`.png and `name`.svg on white, each atomically.

    Raises:
        UsageError: a folder that cannot be written to.
    """
    data = {"png": lambda: png(figure), "svg": lambda: svg(figure, name, facecolor="white")}
    return [write_atomic(as_path(folder) / f"{name}.{kind}", data[kind]()) for kind in formats]


def beside(panels: int, width: float) -> tuple[Figure, list[Axes]]:
    """Panels that share their axes, in a row if `width` (inches) has room for it, else in a column."""
    rows, columns = (1, panels) if width >= 6 else (panels, 1)
    figure = Figure(figsize=(width, 0.7 + rows * (2.9 if columns > 1 else 2.5)), layout="constrained")
    return figure, list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)


def decades(ax: Axes, floor: float, ceiling: float) -> None:
    """A log axis over whole powers of ten, at most eight of them labelled."""
    low, high = math.floor(math.log10(floor)), math.ceil(math.log10(ceiling))
    ticks = [p for p in range(low, high + 1) if p % math.ceil((high - low) / 8) == 0]
    ax.set_ylim(10.0**low, 10.0**high * 1.3)  # before the scale, whose margins could overflow
    ax.set_yscale("log")
    ax.set_yticks([10.0**p for p in ticks], [power_of_ten(p) if p else "1" for p in ticks])
    ax.minorticks_off()


def handful(axis: Any, low: float, high: float) -> None:
    """A log axis from `low` to `high` with a handful of round numbers."""
    spread = math.log10(high / low)
    choice = (1, 1.5, 2, 3, 5, 7) if spread < 1.1 else (1, 2, 5) if spread < 2.5 else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    powers = [p for p in powers if p % math.ceil(spread / 8) == 0 or len(choice) > 1]
    ticks = [m * 10.0**p for p in powers for m in choice if low <= m * 10.0**p <= high]
    plain = spread < 5
    names = [f"{t:.6g}" if plain else power_of_ten(round(math.log10(t))) for t in ticks]
    axis.axes.set(**{f"{axis.axis_name}lim": (low, high)})
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_ticks(ticks, names)
    axis.set_ticks([], minor=True)


def legend(figure: Figure, ax: Axes) -> None:
    handles, labels = ax.get_legend_handles_labels()
    if labels:
        column = 0.65 + 0.075 * max(map(len, labels))  # inches: the handle and the longest name
        figure.legend(handles, labels, loc="outside upper left", ncols=max(1, int(figure.get_figwidth() / column)))


def key(ax: Axes, title: str) -> None:
    """The panel's title and, in rows under it as wide as the panel, what its lines are."""
    _, labels = ax.get_legend_handles_labels()
    place: Any = ax.get_subplotspec()
    room = 72 * ax.figure.get_figwidth() / place.get_gridspec().ncols - 45  # points # pyright: ignore
    needed = [30 + 4.7 * len(label) for label in labels]
    columns = len(labels) if sum(needed) <= room else max(1, int(room / max(needed)))
    rows = math.ceil(len(labels) / max(columns, 1))
    ax.set_title(title, pad=6 + 13.5 * rows)
    if labels:
        tight: Any = {"borderpad": 0.2, "handlelength": 1.9, "handletextpad": 0.5, "labelspacing": 0.3}
        ax.legend(
            loc="lower left", bbox_to_anchor=(-0.02, 0.98), ncols=columns, fontsize=8.5, columnspacing=1.1, **tight
        )


def bar(ax: Axes, drawn: Any, ticks: Sequence[float], labels: Sequence[str]) -> None:
    """What the colours of a map mean, beside it."""
    colours = ax.figure.colorbar(drawn, ax=ax, ticks=list(ticks), pad=0.02, aspect=12)
    colours.ax.set_yticklabels(list(labels), fontsize=8.5)
    colours.outline.set_visible(False)  # pyright: ignore
    colours.ax.grid(visible=False)


def over_blocks(ax: Axes, blocks: int) -> None:
    """Blocks as the horizontal axis, counted from 1."""
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.set_xlim(0.5, blocks + 0.5)
    ax.set_xlabel("block, first → last")


def faded(*colours: str) -> LinearSegmentedColormap:
    """A colour map for light and dark pages: transparent to the colour, or colour, transparent, colour."""
    *first, last = [to_rgba(colour) for colour in colours]
    clear = [(*colour[:3], 0.0) for colour in (*first, last)]
    ends = [(0.0, first[0]), (0.5, clear[0]), (0.5, clear[1])] if first else [(0.0, clear[0])]
    return LinearSegmentedColormap.from_list("faded", [*ends, (1.0, last)])


def per_cent(ax: Axes) -> None:
    """Shares on the vertical axis, written in per cent."""
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g} %".replace("-", "−")))


def extremes(ax: Axes, values: Any, colour: str) -> None:
    """A log axis has no room for 0 and infinity: they are written on its floor and its ceiling."""
    for found, text, y, va in ((values == 0, "0", 0.01, "bottom"), (np.isposinf(values), "∞", 0.99, "top")):
        for i in np.flatnonzero(found).tolist():
            place: Any = {"transform": ax.get_xaxis_transform(), "ha": "center", "va": va}
            ax.text(i + 1, y, text, color=colour, weight="bold", size=8.5, **place)
