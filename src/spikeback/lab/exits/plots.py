"""Accuracy against computation: every exit alone, and leaving early by confidence."""

from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spikeback.report.plots.curves import Look, line, looks
from spikeback.report.plots.style import REFERENCE, STYLE, beside, legend
from spikeback.report.tables import by_method


@rc_context(STYLE)
def accuracy_by_macs(facts: dict[str, Any], width: float = 8.0) -> Figure:
    """Test accuracy over MACs, those of the plain network being 100 %: mean over seeds, their range shaded.

    A ring is the threshold that was chosen on held-out images, a bar at 100 % the plain network. `width` in inches;
    below 6 the panels stand one upon the other.
    """
    figure, (alone, early) = beside(2, width)
    styles = looks({"trials": [{"method": row["method"], "seed": 0} for row in facts["methods"]]})
    trials = by_method(facts)
    shares = [100 * exit["alone"] for exit in facts["exits"]]
    for row in facts["methods"]:
        look, tests = styles[row["method"]], [trial["test"] for trial in trials[row["method"]]]
        _draw(alone, row["method"], look, [test["accuracy"] for test in tests], shares)
        macs = 100 * np.array(row["curve"]["macs"])
        _draw(early, row["method"], look, [test["curve"]["accuracy"] for test in tests], macs)
        plain, chosen = row["accuracy"][-1], row["chosen"]
        early.plot(100, 100 * plain["mean"], marker="_", markersize=16, markeredgewidth=2.5, color=look.colour)
        x, y = (100 * chosen[key]["mean"] for key in ("macs", "accuracy"))
        early.plot(x, y, marker="o", markersize=13, fillstyle="none", markeredgewidth=1.8, color=look.colour)
    for ax, title in ((alone, "every exit alone"), (early, "leaving at the first confident exit")):
        ax.axhline(100 / len(facts["dataset"]["classes"]), **REFERENCE, label="chance")
        ax.set(title=title, xlabel="MACs of a sample, % of the plain network", ylabel="test accuracy, %")
        ax.label_outer()
    alone.set_xlim(0, 106 * facts["exits"][-1]["early"])
    alone.set_ylim(0, 1.04 * alone.get_ylim()[1])
    legend(figure, alone)
    return figure


def _draw(ax: Axes, method: str, look: Look, accuracies: list[list[float]], x: Any) -> None:
    values = 100 * np.array(accuracies)  # (seeds, points)
    line(ax, method, look, values.mean(0), values.min(0), values.max(0), x=x)
