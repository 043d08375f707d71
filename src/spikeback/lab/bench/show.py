"""Results of a bench as tables in the terminal."""

from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from spikeback.lab.bench.numbers import whole
from spikeback.report.terminal import TerminalTable

EIGHTHS = " ▏▎▍▌▋▊▉"
Cell = Callable[[dict[str, Any]], str]
MORE: dict[str, dict[str, Cell]] = {  # further columns, by bench
    "inference": {"images/s": lambda arm: figures(arm["options"]["batch"] / arm["seconds_median"])},
    "branches": {
        "parameters": lambda arm: f"{arm['facts']['parameters_training']:,}",
        "M MACs": lambda arm: f"{arm['facts']['macs_training'] / 1e6:,.2f}",
    },
}


def show(results: dict[str, Any], console: Console) -> None:
    """Arms, comparisons, notes."""
    console.print(arms_table(results, console.width))
    for arm in results["arms"]:
        if not whole(arm):
            console.print(f"{arm['name']}: {reason(arm)}", soft_wrap=True, markup=False)
    if results["comparisons"]:
        console.print(comparisons_table(results))
    for note in results["notes"]:
        console.print(f"note: {note}", soft_wrap=True, markup=False)
    console.print(f"checked: {results['checked']}", soft_wrap=True, markup=False)


def arms_table(results: dict[str, Any], width: int) -> TerminalTable:
    """One row an arm: a bar, the median and its interval in milliseconds, peak memory, images a second."""
    repetitions, threads = (results["options"][key] for key in ("repetitions", "threads"))
    more = MORE.get(results["bench"], {})
    table = Table(title=f"{results['title']}; {repetitions} repetitions, {threads} threads")
    for column in ("arm", "", "median ms", "95 % interval", "peak MB", *more):
        table.add_column(column, justify="left" if column in ("arm", "") else "right", no_wrap=column != "arm")
    room = width - max(len(arm["name"]) for arm in results["arms"]) - 48 - 12 * len(more)
    longest = max((arm["seconds_median"] for arm in results["arms"] if whole(arm)), default=1.0)
    for arm in results["arms"]:
        if whole(arm):
            low, high = (figures(1e3 * value) for value in arm["seconds_interval"])
            median = arm["seconds_median"]
            drawn = bar(median / longest, min(max(room, 4), 24))
            peak = f"{arm['peak_bytes_median'] / 1e6:,.0f}"
            table.add_row(
                arm["name"], drawn, figures(1e3 * median), f"{low} - {high}", peak, *(f(arm) for f in more.values())
            )
        else:
            table.add_row(arm["name"], "", "", "-")
    return TerminalTable(table)


def comparisons_table(results: dict[str, Any]) -> TerminalTable:
    """One row a comparison: median and interval of what was taken within each repetition, and what is expected."""
    table = Table()
    for column in ("comparison", "median", "95 % interval", "expected", ""):
        words = column in ("comparison", "")
        table.add_column(column, justify="left" if words else "right", no_wrap=not words)
    marks = {True: Text("✓", "green"), False: Text("✗", "red"), None: ""}
    for entry in results["comparisons"]:
        low, high = (f"{value:.3g}" for value in entry["interval"])
        bounds = {"≤": entry["most"], "≥": entry["least"]}
        expected = " ".join(f"{sign} {bound:g}" for sign, bound in bounds.items() if bound is not None)
        median = f"{entry['median']:.3g}"
        table.add_row(entry["title"], median, f"{low} - {high}", expected, marks[entry["met"]])
    return TerminalTable(table)


def bar(share: float, width: int) -> str:
    """A bar of that share of `width` characters, to an eighth of one."""
    whole_ones, rest = divmod(round(8 * width * share), 8)
    return "█" * whole_ones + EIGHTHS[rest].strip()


def figures(value: float) -> str:
    """Three figures, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def reason(arm: dict[str, Any]) -> str:
    """Why an arm has no figures."""
    return f"absent: {arm['absent']}" if "absent" in arm else f"failed: {arm.get('error', 'no repetition')}"
