"""Facts of report/paper_tables.py as blocks - a table with a title and notes - and blocks for terminal, Markdown, HTML."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from spikeback.report.paper_tables import Facts
from spikeback.report.tables import MISSING

PAPER = ("method", "type", "network", "T", "paper %")
OURS = ("best %", "last %", "seeds", "protocol")
SMALL = ("method", "network", "T", "best %", "last %", "seeds", "recipe")
PRINTED = (
    "paper %: top-1 test accuracy as printed, ± its standard deviation over 3 trials; [n] is the paper's reference; "
    "or: another reading where the paper contradicts itself."
)
OURS_ARE = (
    "best %, last %: ours, test accuracy of the main branch at the chosen epoch and after the last, mean ± sample standard "
    "deviation over seeds."
)
PROTOCOL = (
    "same: the protocol of the row's recipe in this package, whose header says where each setting comes from. other: a "
    "different one, as the note says (the recipe's value in brackets); the two numbers cannot be compared."
)
SHOWN = 5  # combinations without a table that are named


@dataclass
class Block:
    """A table of text. `kinds` says of every row what it is: "cited", "own", "reading", "ours" or "command"."""

    title: str
    headers: Sequence[str]
    lead: str = ""
    rows: list[Sequence[str]] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, kind: str, cells: Sequence[str]) -> None:
        self.rows.append(cells)
        self.kinds.append(kind)

    def note(self, text: str) -> int:
        """The number of a note, the same for the same text."""
        if text not in self.notes:
            self.notes.append(text)
        return self.notes.index(text) + 1


def blocks(facts: Facts) -> list[Block]:
    """The tables, what is below each, and how to get what is missing."""
    found = []
    for table in facts["tables"]:
        for dataset, rows in groupby(table["rows"], key=lambda row: row["dataset"]):
            found.append(_paper(table, dataset, list(rows), facts["references"]))
        for what in ("unlisted", "small"):
            for _, lines in groupby(table[what], key=lambda line: line["data"]["hash"]):
                found.append(_below(table["table"], what, list(lines)))
    return found + ([_to_run(facts["to_run"])] if facts["to_run"] else [])


def terms(facts: Facts) -> str:
    """What the columns mean, and which results found no place."""
    ours = any(row["ours"] for table in facts["tables"] for row in table["rows"])
    below = any(table["unlisted"] or table["small"] for table in facts["tables"])
    return " ".join([PRINTED, *([OURS_ARE] if ours or below else []), *([PROTOCOL] if ours else []), *_elsewhere(facts)])


def _elsewhere(facts: Facts) -> list[str]:
    names = sorted({f"{e['model']} at T = {e['time_steps']}, {e['method']}" for e in facts["elsewhere"]})
    more = [f"{len(names) - SHOWN} more"] if len(names) > SHOWN else []
    return [f"Found, but of no table's networks, T or methods: {'; '.join(names[:SHOWN] + more)}."] if names else []


def _paper(table: Mapping[str, Any], dataset: str, rows: list[dict[str, Any]], works: Mapping[str, Any]) -> Block:
    ours = any(row["ours"] for row in rows)
    block = Block(f"Table {table['table']}. {table['caption']} {dataset}", (*PAPER, *OURS) if ours else PAPER)
    for row in rows:
        kind = "reading" if row["reading"] else "cited" if row["citation"] else "own"
        cited = f" [{works[row['citation']]['number']}]" if row["citation"] else ""
        accuracy = f"{row['accuracy']:.2f}" + (f" ± {row['std']:.2f}" if row["std"] is not None else "")
        note = f" ({block.note(row['reading'])})" if row["reading"] else ""
        cells = [f"{'or: ' if note else ''}{row['method']}{cited}", row["kind"], row["network"], str(row["time_steps"])]
        cells += [accuracy + note]
        lines = [[*_scores(found), _protocol(block, found)] for found in row["ours"]]
        block.add(kind, [*cells, *(lines[0] if lines else [""] * len(OURS) if ours else [])])
        for more in lines[1:]:
            block.add("ours", [*[""] * len(PAPER), *more])
    return block


def _below(number: int, what: str, lines: list[dict[str, Any]]) -> Block:
    """Trainings on one set of samples; what all of them have different from their recipes stands in the lead."""
    data = lines[0]["data"]
    common = [text for text in lines[0]["differs"] if all(text in found["differs"] for found in lines)]
    title = {
        "unlisted": f"Below Table {number}: {data['name']}, of which the paper has no row",
        "small": f"Below Table {number}, in small, not comparable: {data['name']}",
    }[what]
    lead = f"{data['provenance']}." + (f" In all: {', '.join(common)}." if common else "")
    block = Block(title, SMALL, lead)
    for found in lines:
        apart = [text for text in found["differs"] if text not in common]
        note = block.note(": ".join([found["title"], *([", ".join(apart)] if apart else [])]))
        names = (found["method"], found["network"], str(found["time_steps"]))
        block.add("ours", [*names, *_scores(found), f"({note})"])
    return block


def _to_run(entries: list[dict[str, Any]]) -> Block:
    block = Block(
        "How to get ours",
        ("command", "trials", "GPU hours a trial"),
        "No training beside a row of these tables was found. Each command trains what the rows of one recipe need:",
    )
    for entry in entries:
        block.add("command", [entry["command"], str(entry["trials"]), _hours(entry["gpu_hours"])])
    return block


def _protocol(block: Block, found: Mapping[str, Any]) -> str:
    differs = ", ".join(found["differs"]) or "the row's recipe"
    return f"{'same' if found['same_protocol'] else 'other'} ({block.note(f'{found["title"]}: {differs}')})"


def _scores(found: Mapping[str, Any]) -> list[str]:
    return [*(_two(found[f"{w}_mean"], found[f"{w}_std"]) for w in ("best", "last")), str(len(found["seeds"]))]


def _two(mean: float | None, std: float | None) -> str:
    """Fractions in percent, two decimals as in the paper."""
    return MISSING if mean is None else f"{100 * mean:.2f}" + ("" if std is None else f" ± {100 * std:.2f}")


def _hours(hours: float) -> str:
    return f"{hours:.1f}" if hours < 10 else f"{hours:,.0f}"
