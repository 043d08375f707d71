"""Blocks of lab/paper/blocks.py in the terminal, as Markdown and as a page."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from spikeback.lab.paper.blocks import Block
from spikeback.report.pages.page import render_page
from spikeback.report.terminal import TerminalTable

LEFT = ("method", "type", "network", "protocol", "dataset", "recipe", "command")  # columns of words
BOLD = ("method", "paper %")  # of the paper's own rows
ROOMY = 116  # columns of a terminal that has room for "type" and "dataset" beside our numbers
TITLE = "The paper's tables, ours beside them"


def terminal(blocks: Sequence[Block], terms: str, width: int) -> Group:
    """The blocks for a terminal; below 116 columns without two of theirs."""
    parts: list[Any] = []
    for block in blocks:
        parts += [Text(block.title, style="bold"), *([Text(block.lead)] if block.lead else []), _table(block, width)]
        parts += [Text(f"({i}) {note}", style="dim") for i, note in enumerate(block.notes, 1)]
        parts += [Text()]
    return Group(*parts, Text(terms))


def _table(block: Block, width: int) -> TerminalTable:
    cramped = width < ROOMY and block.headers[-1] != "paper %"
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 0 if cramped else 1, 0, 0))
    table.collapse_padding = True
    shown = [i for i, header in enumerate(block.headers) if not (cramped and header in ("type", "dataset"))]
    for name in (block.headers[i] for i in shown):
        words = name in ("method", "type", "recipe", "command")
        table.add_column(name, justify="left" if name in LEFT else "right", no_wrap=not words)
    for cells, kind in zip(block.rows, block.kinds, strict=True):
        row = [Text(cells[i].replace(" ± ", "±")) for i in shown]  # two columns that 80 cannot spare
        for i, cell in zip(shown, row, strict=True):
            cell.stylize("bold" if kind == "own" and block.headers[i] in BOLD else "")
        table.add_row(*row, style="italic" if kind == "reading" else "")
    return TerminalTable(table)


def markdown(blocks: Sequence[Block], terms: str, references: Mapping[str, Any]) -> str:
    """The blocks as one Markdown text, the cited works at its end."""
    lines = [f"# {TITLE}", "", terms, ""]
    for block in blocks:
        rule = ["---" if header in LEFT else "---:" for header in block.headers]
        rows = [_marked(cells, kind) for cells, kind in zip(block.rows, block.kinds, strict=True)]
        lines += [f"## {block.title}", "", *([block.lead, ""] if block.lead else [])]
        lines += [f"| {' | '.join(cells)} |" for cells in (block.headers, rule, *rows)]
        lines += ["", *(f"({i}) {note}  " for i, note in enumerate(block.notes, 1)), *([""] if block.notes else [])]
    works = [f"- [{work['number']}] {work['text']}" for work in references.values()]
    return "\n".join([*lines, "## References", "", *works, ""])


def _marked(cells: Sequence[str], kind: str) -> list[str]:
    """The paper's own rows bold, other readings slanted; the command as code."""
    cells = [cell.replace("|", "\\|") for cell in cells]
    mark = {"own": "**", "reading": "*", "command": "`"}.get(kind, "")
    return [f"{mark}{cells[0]}{mark}", *cells[1:]]


def page(blocks: Sequence[Block], terms: str, references: Mapping[str, Any]) -> str:
    """The blocks as one self-contained page of HTML."""
    content = {"title": TITLE, "blocks": blocks, "terms": terms, "references": references.values(), "left": LEFT}
    return render_page("paper_tables.html.j2", content, "spikeback.lab.paper")
