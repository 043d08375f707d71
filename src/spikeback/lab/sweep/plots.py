"""The figures of a study: accuracy of its cells beside each other; gradient against depth, where depth was varied."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from spikeback.report.plots.curves import gradient_line, looks
from spikeback.report.plots.style import REFERENCE, STYLE, beside, decades, legend, save
from spikeback.report.plots.training import first_layer_histogram, training_figures
from spikeback.report.tables import Results, by_method, check

FEW = 4  # cells that get figures of their own


def save_sweep_plots(sweep: Mapping[str, Any], found: Mapping[str, Results], folder: str | Path) -> list[Path]:
    """Write the figures of a study as PNG and SVG.

    Args:
        sweep: sweep.json (docs/sweep.md).
        found: results by name of the cell, of those with a finished trial.
        folder: where to.

    Raises:
        UsageError: a folder that cannot be written to.
    """
    paths = save(accuracy_by_cell(sweep), folder, "accuracy") if sweep["rows"] else []
    if len({depth(results) for results in found.values()}) > 1 and len(found) <= FEW:
        paths += save(gradient_ratio_by_depth([*found.values()]), folder, "gradient-by-depth")
    for name, results in found.items() if len(found) <= FEW else ():
        if first_layer_histogram in training_figures(results).values():
            paths += save(first_layer_histogram(results), folder, f"{name}-first-layer")
    return paths


@rc_context(STYLE)
def accuracy_by_cell(sweep: Mapping[str, Any], width: float = 8.0) -> Figure:
    """Test accuracy of the main branch after the last epoch, a row a cell, a marker a method: mean, range of seeds."""
    rows: Sequence[Mapping[str, Any]] = [row for row in sweep["rows"] if row["last_mean"] is not None]
    cells = list(dict.fromkeys(row["cell"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    styles = looks({"trials": [{"method": method, "seed": 0} for method in methods]})
    rows_of_legend = -(-(len(methods) + 1) // 3)  # chance has an entry as well
    tall = 0.7 + 0.3 * rows_of_legend + max(0.25, 0.1 * len(methods)) * len(cells)
    figure = Figure(figsize=(width, tall), layout="constrained")
    ax: Any = figure.subplots()
    for i, method in enumerate(methods):
        mine, look = [row for row in rows if row["method"] == method], styles[method]
        y = [cells.index(row["cell"]) + 0.3 * (i / max(len(methods) - 1, 1) - 0.5) for row in mine]
        mean, low, high = ([100 * row[f"last_{key}"] for row in mine] for key in ("mean", "min", "max"))
        ax.hlines(y, low, high, color=look.colour, linewidth=1.5)
        ax.plot(mean, y, color=look.colour, marker=look.marker, linestyle="none", label=method)
    if sweep["dataset"]:
        ax.axvline(100 / len(sweep["dataset"]["classes"]), **REFERENCE, label="chance")
    ax.set_yticks(range(len(cells)), [cell.replace("-", ", ") for cell in cells])
    ax.set(xlabel="test accuracy, %", ylim=(len(cells) - 0.4, -0.6))
    ax.grid(visible=False, axis="y")
    legend(figure, ax)
    return figure


@rc_context(STYLE)
def gradient_ratio_by_depth(studies: Sequence[Results], width: float = 9.6) -> Figure:
    """Gradient of the first block over that of the last, over the epochs: a panel a depth, a line a method, geometric
    mean over seeds, their range shaded. `width` in inches; below 6 the panels stand one upon the other.

    Raises:
        UsageError: another schema, or no finished trial.
    """
    for results in studies:
        check(results)
    studies = sorted(studies, key=depth)
    figure, axes = beside(len(studies), width)
    floor, ceiling = 0.1, 1.0
    for ax, results in zip(axes, studies, strict=True):
        ax.axhline(1, **REFERENCE)
        for method, trials in by_method(results).items():
            probed = [trial for trial in trials if (trial.get("gradients") or {}).get("norm")]
            if probed:
                x, ratios = _ratios(probed)
                low, high = gradient_line(ax, method, looks(results)[method], ratios, x)
                floor, ceiling = min(floor, low), max(ceiling, high)
        layers = depth(results)
        ax.set_title(f"{layers} layers" if layers else results["title"])
        ax.set(xlabel="epoch", ylabel="|dL/d(block)|, first / last")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        ax.label_outer()
    decades(axes[0], floor, ceiling)
    legend(figure, axes[0])
    return figure


def depth(results: Results) -> int:
    """Layers, by the name of the model: spiking_resnet34 -> 34; 0 if it has no number."""
    found = re.search(r"\d+", str(results["config"].get("model", {}).get("name", "")))
    return int(found[0]) if found else 0


def _ratios(trials: list[dict[str, Any]]) -> tuple[Any, Any]:
    """Epochs (probes,) and ratios (seeds, probes) of one method; undefined is masked."""
    probes = min(len(trial["gradients"]["norm"]) for trial in trials)
    rows = [[(row[0], row[-1]) for row in trial["gradients"]["norm"][:probes]] for trial in trials]
    first, last = np.moveaxis(np.ma.masked_invalid(np.array(rows, dtype=float)), -1, 0)
    some = trials[0]
    x = np.array(some["gradients"]["step"][:probes]) * some["epochs"] / max(some["steps"], 1)
    return x, first / last  # masked arrays mask a division by zero
