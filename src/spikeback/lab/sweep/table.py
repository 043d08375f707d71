"""What a study found: its cells beside each other, for the console, for Markdown and as sweep.json (docs/sweep.md)."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from spikeback.report.tables import MISSING, plus_minus, scientific, summarise
from spikeback.report.terminal import TerminalTable

CAPTION = (
    "Test accuracy of the main branch alone, mean ± sample std over seeds. Gradient: |dL/d(first block)| / "
    "|dL/d(last block)|, at the start (after calibration) and, geometric mean, while training."
)
HEADERS = ("method", "seeds", "best %", "last %", "gradient, start", "gradient, training")

Cell = Mapping[str, Any]  # an entry of `cells` in sweep.json


def sweep_rows(cells: Sequence[tuple[Cell, Mapping[str, Any] | None]]) -> list[dict[str, Any]]:
    """One row a cell and method, from each cell and its results; a cell without a finished trial has none."""
    return [
        {"cell": cell["name"], "point": cell["point"], **row}
        for cell, results in cells
        if results and results["trials"]
        for row in summarise(results)
    ]


def _cells(row: dict[str, Any]) -> list[str]:
    gradients = [scientific(row[key]) for key in ("gradient_ratio_start", "gradient_ratio")]
    accuracies = [plus_minus(row[f"{which}_mean"], row[f"{which}_std"]) for which in ("best", "last")]
    return [*row["point"].values(), row["method"], str(row["seeds"]), *accuracies, *gradients]


def sweep_table(axes: Sequence[str], rows: list[dict[str, Any]]) -> TerminalTable:
    """The rows for a console: without what sweep.md has room for."""
    table = Table(box=box.SIMPLE_HEAD, caption=CAPTION, caption_justify="left", show_edge=False, pad_edge=False)
    table.collapse_padding = True
    shown = [i for i, header in enumerate((*axes, *HEADERS)) if header not in ("seeds", "best %")]
    for i in shown:
        header = (*(axis.rpartition(".")[2] for axis in axes), *HEADERS)[i]
        words = i <= len(axes)
        table.add_column(Text(header.replace(", ", "\n")), justify="left" if words else "right", no_wrap=not words)
    for row in rows:
        cells = _cells(row)
        table.add_row(*(Text(cells[i].replace(" ± ", "±")) for i in shown))
    return TerminalTable(table)


def sweep_markdown(sweep: Mapping[str, Any]) -> str:
    """A page: what was varied, the table, what failed."""
    study, dataset = sweep["study"], sweep["dataset"]
    headers = [*study["axes"], *HEADERS]
    rule = ["---:" if header in HEADERS[1:] else "---" for header in headers]
    rows = [[text.replace("|", "\\|") for text in _cells(row)] for row in sweep["rows"]]
    data = f"{dataset['name']}, {dataset['train']:,} training images: {dataset['provenance']}." if dataset else ""
    failed = [f"- {cell['name']}: {cell['error']}" for cell in sweep["cells"] if cell["error"]]
    lines = [
        f"# {study['title']}", "", f"`{sweep['command']}`", "", data or MISSING, "",
        *(f"| {' | '.join(line)} |" for line in (headers, rule, *rows)), "", CAPTION, "",
        *(["Failed:", *failed, ""] if failed else []),
    ]  # fmt: skip
    return "\n".join(lines)
