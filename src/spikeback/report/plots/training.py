"""What the doctor saw while networks were trained (results, schema 1): first layer, branches, blocks by epoch."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from spikeback.errors import UsageError
from spikeback.report.plots.curves import Look, looks
from spikeback.report.plots.style import COLOURS, STYLE, bar, beside, faded, legend
from spikeback.report.tables import Results, by_method, check, power_of_ten

Trials = dict[str, list[dict[str, Any]]]  # by method
NEUTRAL = "#9aa0a6"  # the main path, which is no branch
MOST = 48  # columns of a map, so that a page stays small


def training_figures(results: Results) -> dict[str, Callable[[Results, float], Figure]]:
    """The figures below that these results have the numbers for, by name of their file."""
    return {draw.__name__.replace("_", "-"): draw for draw, of in NUMBERS.items() if _measured(results, of)}


@rc_context(STYLE)
def first_layer_histogram(results: Results, width: float = 9.6) -> Figure:
    """How the sizes of the first layer's gradient, |dL/dw| of every weight, are distributed.

    A panel for each of at most four moments; mean over seeds, their range shaded. Weights whose gradient is exactly 0
    are counted in words.

    `width` in inches; below 6 the panels stand one upon the other.

    Raises:
        UsageError: another schema, no finished trial, or this was not measured.
    """
    methods = _trials(results, _first_layer)
    some = next(iter(methods.values()))[0]
    chosen = _moments(len(_first_layer(some)["counts"]))
    figure, axes = beside(len(chosen), width)
    used = []
    for ax, row in zip(axes, chosen, strict=True):
        for place, (method, trials) in enumerate(methods.items()):
            used += _histogram(ax, method, looks(results)[method], trials, row, place)
        epoch = _epochs(some)[row]
        ax.set_title("before training" if row == 0 else f"after epoch {epoch:.3g}")
    low, high = min(used, default=-1.0), max(used, default=0.0)
    step = math.ceil((high - low) / 4)
    powers = [p for p in range(math.ceil(low), math.floor(high) + 1) if p % step == 0]
    axes[0].set_xticks(powers, [power_of_ten(p) if p else "1" for p in powers])
    axes[0].set(xlim=(low - 0.25, high + 0.25), ylim=(0, None))
    for ax in axes:
        ax.set_ylabel("share of weights, %")
        ax.label_outer()
    figure.supxlabel(f"|dL/dw|, w in {_first_layer(some)['name']}", size=10)
    legend(figure, axes[0])
    return figure


def _histogram(ax: Axes, method: str, look: Look, trials: list[Any], row: int, place: int) -> list[float]:
    """Draw a method's distribution at one moment; return the ends of what is on the axis."""
    found = [_first_layer(trial) for trial in trials]
    edges = np.array(found[0]["edges"], dtype=float)
    counts = np.array([one["counts"][row] for one in found], dtype=float)  # (seeds, bins)
    zeros = np.array([one["zeros"][row] for one in found], dtype=float)
    total = np.maximum(counts.sum(1) + zeros, 1)
    shares = 100 * counts / total[:, None]
    low, mean, high = shares.min(0), shares.mean(0), shares.max(0)
    ax.fill_between(edges, [*low, low[-1]], [*high, high[-1]], step="post", color=look.colour, alpha=0.2, linewidth=0)
    filled = np.flatnonzero(mean > 0)
    inside = slice(filled[0], filled[-1] + 1) if len(filled) else slice(0)
    drawn = [*edges[inside], *edges[inside.stop : inside.stop + 1]]
    ax.stairs(mean[inside], drawn, color=look.colour, linestyle=look.line, linewidth=1.8, label=method)
    if dead := round(100 * float((zeros / total).mean()), 1):
        where: Any = {"transform": ax.transAxes, "ha": "left", "va": "top", "size": 8.5}
        ax.text(0.03, 0.97 - 0.075 * place, f"{dead:g} % are 0", color=look.colour, **where)
    return [drawn[0], drawn[-1]] if len(filled) else []


@rc_context(STYLE)
def branch_shares(results: Results, width: float = 9.6) -> Figure:
    """What the main path and every branch supply to the first block's gradient (Eq. 9), stacked, over the epochs.

    A panel for every method with branches, mean over seeds. A share below 0 works against the whole.

    `width` in inches; below 6 the panels stand one upon the other.

    Raises:
        UsageError: another schema, no finished trial, or this was not measured.
    """
    methods = _trials(results, _shares)
    figure, axes = beside(len(methods), width)
    for ax, (method, trials) in zip(axes, methods.items(), strict=True):
        sources = _shares(trials[0])["sources"]
        shares = np.array([_shares(trial)["first_block"] for trial in trials], dtype=float)  # (seeds, probes, sources)
        parts = 100 * np.nan_to_num(shares).mean(0).T
        for sign in (np.maximum(parts, 0), np.minimum(parts, 0)):
            if sign.any() or sign is parts:
                areas = ax.stackplot(_share_epochs(trials[0]), sign, colors=_colours(len(sources)), linewidth=0)
                for area, source in zip(areas, sources, strict=True):
                    area.set_label(source)
        ax.set(title=method, xlabel="epoch", ylabel="share of the gradient, %")
        ax.margins(x=0)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        ax.label_outer()
    _some_names(figure, axes[0])
    return figure


def _colours(sources: int) -> list[str]:
    """Grey for the main path; the branches run through a scale, first to last."""
    return [NEUTRAL, *(to_hex(colormaps["viridis"](x)) for x in np.linspace(0.2, 0.95, sources - 1))]


def _some_names(figure: Figure, ax: Axes, most: int = 8) -> None:
    """A legend of at most so many areas, the first and last of them, and each once."""
    named = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    names = list(named)
    kept = [names[i] for i in sorted({round(x) for x in np.linspace(0, len(names) - 1, min(most, len(names)))})]
    columns = max(1, int(figure.get_figwidth() / (0.5 + 0.085 * max(map(len, kept)))))
    figure.legend([named[name] for name in kept], kept, loc="outside upper left", ncols=columns, handlelength=1.2)


@rc_context(STYLE)
def doctor_over_time(results: Results, width: float = 9.6) -> Figure:
    """Maps of block over epoch: gradient over the last block's, firing rate, share of membranes the surrogate sees.

    A column a method, mean over seeds (geometric for the gradient). `width` in inches; below 6 all in one column.

    Raises:
        UsageError: another schema, no finished trial, or this was not measured.
    """
    methods = _trials(results, _doctor)
    maps = {name: values for name in MAPS if (values := {m: _map(trials, name) for m, trials in methods.items()})}
    maps = {name: values for name, values in maps.items() if any(np.ma.count(one) for one in values.values())}
    wide = width >= 6
    rows, columns = (len(maps), len(methods)) if wide else (len(maps) * len(methods), 1)
    figure = Figure(figsize=(width, 0.4 + rows * (2.0 if wide else 1.6)), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for i, (name, values) in enumerate(maps.items()):
        places = axes[i] if wide else axes[i * len(methods) : (i + 1) * len(methods), 0]
        _row_of_maps(list(places), name, methods, values)
    return figure


def _row_of_maps(places: list[Axes], name: str, methods: Trials, values: dict[str, Any]) -> None:
    """One number of all methods, in the same colours."""
    label, colours = MAPS[name]
    log = len(colours) > 1
    largest = max(float(np.ma.max(np.ma.abs(one))) if np.ma.count(one) else 0.0 for one in values.values())
    top = max(1, math.ceil(largest)) if log else min(1.0, max(0.1, math.ceil(10 * largest) / 10))
    low, mesh = -top if log else 0, None
    for ax, (method, image) in zip(places, values.items(), strict=True):
        x = np.array(_epochs(methods[method][0], "doctor"))
        kept = sorted({round(k) for k in np.linspace(0, len(x) - 1, min(MOST, len(x)))})
        x, image = x[kept], image[kept]
        middle = (x[1:] + x[:-1]) / 2
        edges = [x[0], *middle, x[-1]] if len(x) > 1 else [x[0], x[0] + 1]
        blocks = np.arange(image.shape[1] + 1) + 0.5
        mesh = ax.pcolormesh(edges, blocks, image.T, cmap=faded(*colours), vmin=low, vmax=top, rasterized=True)
        ax.grid(visible=False)
        ax.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5, min_n_ticks=1))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
        ax.set_title(f"{method}: {label}")
        ax.set(xlabel="epoch", ylabel="block")
        ax.label_outer()
    ticks = [-top, 0, top] if log else [0, top]
    names = [power_of_ten(t) if t else "1" for t in ticks] if log else [f"{100 * t:.0f} %" for t in ticks]
    bar(places[-1], mesh, ticks, names)


def _map(trials: list[dict[str, Any]], name: str) -> Any:
    """(steps, blocks), mean over seeds; the gradient as log10 of its ratio to the last block's, 0 as the least seen."""
    stacked = np.array([_doctor(trial).get(name) or np.nan for trial in trials], dtype=float)
    values = np.ma.masked_invalid(stacked)  # (seeds, steps, blocks)
    if name != "gradient" or values.ndim < 3:
        return values.mean(0) if values.ndim == 3 else np.ma.masked_all((1, 1))
    ratios = values / values[..., -1:]
    logs = np.ma.log10(np.ma.masked_less_equal(ratios, 0))
    least = logs.min() if logs.count() else 0.0
    return np.ma.where(ratios == 0, least, logs).mean(0)


def _epochs(trial: dict[str, Any], of: str = "gradients") -> list[float]:
    """When it was looked at, in epochs."""
    return [step * trial["epochs"] / max(trial["steps"], 1) for step in trial[of]["step"]]


def _share_epochs(trial: dict[str, Any]) -> list[float]:
    """Those of the probes at which lambda was not 0."""
    steps = _shares(trial).get("step", trial["gradients"]["step"])
    return [step * trial["epochs"] / max(trial["steps"], 1) for step in steps]


def _moments(rows: int) -> list[int]:
    """Before training, after the first epoch, half-way and at the end."""
    return sorted({0, min(1, rows - 1), rows // 2, rows - 1})


def _first_layer(trial: dict[str, Any]) -> Any:
    return (trial.get("gradients") or {}).get("first_layer")


def _shares(trial: dict[str, Any]) -> Any:
    found = (trial.get("gradients") or {}).get("shares")
    return found if found and len(found["sources"]) > 1 else None


def _doctor(trial: dict[str, Any]) -> Any:
    return trial.get("doctor")


def _trials(results: Results, of: Callable[[dict[str, Any]], Any]) -> Trials:
    """The trials in which it was measured."""
    check(results)
    found = {method: [t for t in trials if of(t)] for method, trials in by_method(results).items()}
    found = {method: trials for method, trials in found.items() if trials}
    if not found:
        raise UsageError(
            f"results: {of.__name__.strip('_').replace('_', ' ')} gradients were not recorded in any trial"
        )
    return found


def _measured(results: Results, of: Callable[[dict[str, Any]], Any]) -> bool:
    return any(of(trial) for trial in results.get("trials") or ())


MAPS: dict[str, tuple[str, Sequence[str]]] = {
    "gradient": ("gradient, last = 1", (COLOURS[0], COLOURS[1])),
    "rate": ("firing rate", (COLOURS[1],)),
    "active": ("active", (COLOURS[2],)),
}
NUMBERS: dict[Callable[[Results, float], Figure], Callable[[dict[str, Any]], Any]] = {
    first_layer_histogram: _first_layer,
    branch_shares: _shares,
    doctor_over_time: _doctor,
}
