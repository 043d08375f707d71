"""Facts of lab/paper/tables.py as blocks: tables of text with a title, a lead and notes, for every format alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from spikeback.lab.paper.cost import A100_ASSUMED
from spikeback.lab.paper.tables import Facts
from spikeback.report.tables import MISSING, scientific

PAPER = ("method", "type", "network", "T", "paper %")
OURS = ("best %", "last %", "seeds", "protocol")
BELOW = ("method", "network", "T", "best %", "last %", "seeds", "dataset", "recipe")
UNLISTED = "the paper has no such row"
SMALL = "in small, not comparable"
ELSEWHERE = "Of no table, by network, T or method"
PRINTED = (
    "paper %: top-1 test accuracy as printed, ± its standard deviation over 3 trials; [n] is the paper's reference; "
    "or: another reading, where the paper contradicts itself."
)
OURS_ARE = (
    "best %, last %: ours, test accuracy of the main branch at the chosen epoch and after the last, mean ± sample "
    "standard deviation over seeds. In brackets: the value of the row's recipe, or where there is none, the default."
)
PROTOCOL = (
    "same: the protocol of the row's recipe in this package, whose header says where each setting comes from. other: a "
    "different one, as the note says; the two numbers cannot be compared."
)


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
        found += _studies(f"Below Table {table['table']}, {UNLISTED}", table["unlisted"])
        found += _studies(f"Below Table {table['table']}, {SMALL}", table["small"])
    found += _studies(ELSEWHERE, facts["elsewhere"])
    return found + ([_to_run(facts["to_run"])] if facts["to_run"] else [])


def terms(facts: Facts) -> str:
    """What the columns mean, and which results found no place."""
    ours = any(row["ours"] for table in facts["tables"] for row in table["rows"])
    below = facts["elsewhere"] or any(table["unlisted"] or table["small"] for table in facts["tables"])
    return " ".join([PRINTED, *([OURS_ARE] if ours or below else []), *([PROTOCOL] if ours else [])])


def study(title: str) -> str:
    """The study that a run is a cell of, by its title "study: cell"; empty for a run of its own."""
    return title.rpartition(": ")[0]


def _paper(table: Mapping[str, Any], dataset: str, rows: list[dict[str, Any]], works: Mapping[str, Any]) -> Block:
    ours = any(row["ours"] for row in rows)
    block = Block(f"Table {table['table']} ({dataset}). {table['caption']}", (*PAPER, *OURS) if ours else PAPER)
    for row in rows:
        kind = "reading" if row["reading"] else "cited" if row["citation"] else "own"
        cited = f" [{works[row['citation']]['number']}]" if row["citation"] else ""
        accuracy = f"{row['accuracy']:.2f}" + (f" ± {row['std']:.2f}" if row["std"] is not None else "")
        other = f"or ({block.note(row['reading'])}): " if row["reading"] else ""
        cells = [f"{other}{row['method']}{cited}", row["kind"], row["network"], str(row["time_steps"]), accuracy]
        lines = [[*_scores(line), _protocol(block, line, row["ours"])] for line in row["ours"]]
        block.add(kind, [*cells, *(lines[0] if lines else [""] * len(OURS) if ours else [])])
        for more in lines[1:]:
            block.add("ours", [*[""] * len(PAPER), *more])
    return block


def _studies(where: str, lines: list[dict[str, Any]]) -> list[Block]:
    """A block for each study and set of samples."""
    same = groupby(lines, key=lambda line: (line["data"]["hash"], study(line["title"])))
    return [_below(where, list(group)) for _, group in same]


def _below(where: str, lines: list[dict[str, Any]]) -> Block:
    """Trainings of one study on one set of samples; how all of them differ from their recipes stands in the lead."""
    data = lines[0]["data"]
    common = [text for text in lines[0]["differs"] if all(text in line["differs"] for line in lines)]
    name = study(lines[0]["title"])
    title = f"{where}: {data['name']}" + (f". {name}" if name else "")
    told = [text for text in common if not text.startswith("dataset ")]
    source = data["provenance"][:1].upper() + data["provenance"][1:]
    block = Block(title, BELOW, f"{source}." + (f" In all: {', '.join(told)}." if told else ""))
    for line in lines:
        apart = ", ".join(text for text in line["differs"] if text not in common)
        recipe = line["title"].removeprefix(f"{name}: ") + (f" ({block.note(apart)})" if apart else "")
        block.add(
            "ours", [line["method"], line["network"], str(line["time_steps"]), *_scores(line), data["name"], recipe]
        )
    return block


def _to_run(entries: list[dict[str, Any]]) -> Block:
    trials = sorted({str(entry["trials"]) for entry in entries})
    lead = (
        "Nothing beside a row of these tables was found. Each command trains what the rows of a recipe need, "
        f"{' or '.join(trials)} trials. Hours of all of them on one GPU, at "
        f"{scientific(A100_ASSUMED)} multiply-accumulates a second, which is assumed, not measured."
    )
    block = Block("How to get ours", ("command", "on a GPU"), lead)
    for entry in entries:
        block.add("command", [entry["command"], f"{entry['trials'] * entry['gpu_hours']:,.0f} hours"])
    return block


def _protocol(block: Block, line: dict[str, Any], beside: list[dict[str, Any]]) -> str:
    """ "same" or "other", and the note that says of which recipe and how it differs from the row's."""
    text = f"{line['title']}: {', '.join(line['differs']) or line['recipe']}"
    if sum([line["title"], line["differs"]] == [other["title"], other["differs"]] for other in beside) > 1:
        text += f"; {line['files'][0]}"  # nothing else tells them apart: other samples under one name
    return f"{'same' if line['same_protocol'] else 'other'} ({block.note(text)})"


def _scores(line: Mapping[str, Any]) -> list[str]:
    return [*(_two(line[f"{w}_mean"], line[f"{w}_std"]) for w in ("best", "last")), str(len(line["seeds"]))]


def _two(mean: float | None, std: float | None) -> str:
    """Fractions in percent, two decimals as in the paper."""
    return MISSING if mean is None else f"{100 * mean:.2f}" + ("" if std is None else f" ± {100 * std:.2f}")
