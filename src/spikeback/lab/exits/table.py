"""Branches kept at inference (exits.json, docs/exits.md): means over seeds, and tables for the console."""

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from spikeback.report.plots.curves import RESERVED
from spikeback.report.tables import by_method, percent, plus_minus
from spikeback.report.terminal import TerminalTable

SUMS = {"trained": "sum, λ as trained", "one": "sum, λ = 1"}


def exit_rows(trials: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a method (`methods` of exits.json), averaged over its trials."""
    methods = by_method({"trials": trials})
    return [_row(name, methods[name]) for name in dict.fromkeys((*RESERVED, *methods)) if name in methods]


def _row(method: str, trials: list[dict[str, Any]]) -> dict[str, Any]:
    tests, chosen = ([trial[key] for trial in trials] for key in ("test", "chosen"))
    return {
        "method": method,
        "seeds": len(trials),
        "weight_start": trials[0]["weight_start"],
        "weight": statistics.fmean(trial["weight"] for trial in trials),
        "accuracy": [_spread(values) for values in zip(*(test["accuracy"] for test in tests), strict=True)],
        "sums": {name: _spread([test["sums"][name] for test in tests]) for name in SUMS},
        "curve": {
            key: np.mean([test["curve"][key] for test in tests], axis=0).tolist()
            for key in ("accuracy", "macs", "leaving")
        },
        "chosen": {key: _spread([one[key] for one in chosen]) for key in ("threshold", "accuracy", "macs", "early")}
        | {
            "change": _spread([one["accuracy"] - test["accuracy"][-1] for one, test in zip(chosen, tests, strict=True)])
        },
    }


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    """Mean and sample standard deviation, None for one value."""
    return {"mean": statistics.fmean(values), "std": statistics.stdev(values) if len(values) > 1 else None}


def exits_table(facts: dict[str, Any]) -> TerminalTable:
    """Accuracy of every exit alone and of their weighted sums, a column a method."""
    rows = facts["methods"]
    table = _table("test accuracy of every exit alone, %", ["exit", "MACs %"], [row["method"] for row in rows])
    for i, exit in enumerate(facts["exits"]):
        table.add_row(Text(exit["name"]), percent(exit["alone"]), *(_cell(row["accuracy"][i]) for row in rows))
    table.add_section()
    for name, title in SUMS.items():
        table.add_row(title, percent(facts["exits"][-1]["early"]), *(_cell(row["sums"][name]) for row in rows))
    return TerminalTable(table)


def early_table(facts: dict[str, Any]) -> TerminalTable:
    """The threshold chosen on held-out images, on the test images: what it saves, and what it costs."""
    headers = ["main branch %", "early exit %", "change", "MACs %", "leave early %", "threshold"]
    table = _table(
        f"early exit that loses at most {facts['tolerance']:g} points where it is chosen", ["method"], headers
    )
    for row in facts["methods"]:
        chosen = row["chosen"]
        change = f"{100 * chosen['change']['mean']:+.1f}".replace("-", "−")
        cells = [_cell(row["accuracy"][-1]), _cell(chosen["accuracy"]), change]
        cells += [_cell(chosen["macs"]), _cell(chosen["early"]), f"{chosen['threshold']['mean']:.3g}"]
        table.add_row(Text(row["method"]), *cells)
    return TerminalTable(table)


def _table(title: str, left: Sequence[str], right: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for header in (*left, *right):
        first = header == left[0]
        table.add_column(Text(header), justify="left" if first else "right", no_wrap=not first)
    return table


def _cell(value: dict[str, float | None]) -> str:
    return plus_minus(value["mean"], value["std"]).replace(" ± ", "±")
