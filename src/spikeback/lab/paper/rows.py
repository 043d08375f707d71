"""Tables 1-4 of the paper as data: every row as printed, a second reading where the paper contradicts itself.

The paper is "Take A Shortcut Back" (Guo, Chen; NeurIPS 2024, arXiv 2401.04486); in tables.yaml and references.bib.
"""

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

METHODS = {  # the paper's names of its own methods, and ours
    "Vanilla Training": "vanilla",
    "Shortcut Back-propagation": "shortcut",
    "Evolutionary Training": "evolutionary",
}


@dataclass(frozen=True)
class Row:
    """A line of a table.

    Args:
        table: 1 to 4.
        dataset: "CIFAR-10", "CIFAR-100", "ImageNet" or "CIFAR10-DVS".
        method: its name in the paper.
        citation: key in `references()`; None for the paper's own methods.
        kind: the column "Type" ("SNN training" in Table 1, which has none).
        network: as printed, e.g. "ResNet18".
        time_steps: T.
        accuracy: top-1 in percent, as printed (two decimals).
        std: standard deviation over 3 trials in percentage points, where printed.
        reading: None for a row as printed; else which other reading of the row before this is, and why.
    """

    table: int
    dataset: str
    method: str
    citation: str | None
    kind: str
    network: str
    time_steps: int
    accuracy: float
    std: float | None = None
    reading: str | None = None


@dataclass(frozen=True)
class Reference:
    """A cited work: its number in the paper's list; authors, title, venue and year."""

    number: int
    text: str


@cache
def rows() -> tuple[Row, ...]:
    """Every row of Tables 1-4, in the paper's order."""
    return tuple(
        _row(table, dataset, line)
        for table, content in _read("tables.yaml").items()
        for dataset, lines in content.items()
        if dataset != "caption"
        for line in lines
    )


@cache
def captions() -> dict[int, str]:
    """The captions by table, as printed."""
    return {table: content["caption"] for table, content in _read("tables.yaml").items()}


@cache
def references() -> dict[str, Reference]:
    """The works that the tables cite, by key, in the order of the paper's list."""
    entries = re.findall(r"^@\w+\{(\w+),\n(.*?)^\}", _text("references.bib"), re.MULTILINE | re.DOTALL)
    return {key: _reference(dict(re.findall(r"(\w+) = \{(.*)\}", fields))) for key, fields in entries}


def _reference(fields: dict[str, str]) -> Reference:
    authors = fields["author"].replace(" and ", ", ")
    venue = next((f". {fields[name]}" for name in ("booktitle", "journal", "howpublished") if name in fields), "")
    return Reference(int(fields["paper"]), f"{authors}: {fields['title']}{venue} ({fields['year']})")


def _row(table: int, dataset: str, line: Any) -> Row:
    if isinstance(line, dict):
        return Row(table, dataset, *line["row"], *[None] * (7 - len(line["row"])), reading=line["reading"])
    return Row(table, dataset, *line)


def _read(name: str) -> dict[Any, Any]:
    return yaml.safe_load(_text(name))


def _text(name: str) -> str:
    return (files("spikeback.lab.paper") / name).read_text(encoding="utf-8")
