"""Every table that is printed, on terminals of 40 columns and more: no number is cut, none is lost."""

import io
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table
from rich.text import Text

from spikeback.cli import data, plan
from spikeback.lab.bench.show import arms_table, comparisons_table
from spikeback.lab.exits.table import early_table, exits_table
from spikeback.lab.sweep.table import sweep_table
from spikeback.lab.theory import command as theory
from spikeback.report.doctor import DoctorTable
from spikeback.report.tables import console_table
from spikeback.report.terminal import TerminalTable, folded
from spikeback.train import Recipe
from spikeback.train.cell import Cell

RESULTS = Path(__file__).parents[2] / "results"
NUMBER = re.compile(r"\d[\d.,]*\d|\d")


def read(name: str) -> Any:
    return json.loads((RESULTS / name).read_text("utf-8"))


def drawn(what: Any, width: int) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width).print(what)
    return stream.getvalue()


def planned(monkeypatch: pytest.MonkeyPatch) -> TerminalTable:
    cells = [
        Cell(Path(f"{i}"), {"layers": f"spiking_resnet{i}", "train.lr": f"0.{i}"}, {}, Recipe(), []) for i in (18, 34)
    ]
    monkeypatch.setattr(plan, "expect", lambda cells: [(12, 123456.7), (3, 1234.5)])
    return plan.plan_table(cells, 2)


def sweep(name: str) -> Any:
    found = read(name)
    return sweep_table(found["study"]["axes"], found["rows"])


TABLES: dict[str, Callable[[], Any]] = {
    "compare": lambda: console_table(read("demo/results.json")),
    "compare, long names": lambda: console_table(read("evidence/lambda/base/results.json")),
    "sweep": lambda: sweep("doctor/start/sweep.json"),
    "sweep, two axes": lambda: sweep("doctor/calibrate/sweep.json"),
    "exits": lambda: exits_table(read("evidence/exits/exits.json")),
    "early exits": lambda: early_table(read("evidence/exits/exits.json")),
    "theory": lambda: theory._table(read("doctor/theory.json")["networks"]),
    "data": lambda: data._table({"train": {"a": 50_000, "b": 1_281_167}, "validation": {"a": 5_000}}),
    "bench step": lambda: arms_table(read("bench/step.json"), 80),
    "bench inference": lambda: arms_table(read("bench/inference.json"), 80),
    "bench branches": lambda: arms_table(read("bench/branches.json"), 80),
    "comparisons": lambda: comparisons_table(read("bench/step.json")),
}


def check(table: TerminalTable, width: int) -> None:
    text, wide = drawn(table, width), drawn(table, 1000)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert set(NUMBER.findall(text)) <= set(NUMBER.findall(wide))  # no part of a number
    cells = Counter(
        number for column in table.table.columns for cell in column.cells for number in NUMBER.findall(str(cell))
    )
    assert not cells - Counter(NUMBER.findall(text))


@pytest.mark.parametrize("width", [40, 60, 80])
@pytest.mark.parametrize("name", TABLES)
def test_no_number_is_cut(name: str, width: int) -> None:
    check(TABLES[name](), width)


@pytest.mark.parametrize("width", [40, 60, 80])
def test_no_number_of_a_plan_is_cut(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    check(planned(monkeypatch), width)


@pytest.mark.parametrize("width", [40, 60, 80])
@pytest.mark.parametrize("name", ["doctor/resnet34/diagnosis.json", "evidence/doctor-authors/diagnosis.json"])
def test_a_diagnosis_loses_columns_but_cuts_no_number(name: str, width: int) -> None:
    facts = read(name)
    text, wide = drawn(DoctorTable(facts), width), drawn(DoctorTable(facts), 200)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert set(NUMBER.findall(text)) <= set(NUMBER.findall(wide))
    assert all(block["name"] in text for block in facts["blocks"])


@pytest.mark.slow
def test_the_tables_of_the_paper(command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def printed(columns: int) -> str:
        monkeypatch.setenv("COLUMNS", str(columns))
        return command("tables", RESULTS / "evidence/table1", RESULTS / "evidence/bf16").out

    wide = set(NUMBER.findall(printed(1000)))
    for columns in (40, 80):
        text = printed(columns)
        assert max(map(len, text.splitlines())) <= columns
        assert set(NUMBER.findall(text)) <= wide


def test_words_give_way_first_then_cells_stand_below_each_other() -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("method")
    table.add_column("best %", no_wrap=True)
    table.add_column("inference\nparameters", no_wrap=True)
    table.add_row(Text("Evolutionary(start=0.25)"), "78.1±0.4", "11,173,962")
    assert [line.split() for line in drawn(TerminalTable(table), 34).splitlines()] == [
        ["inference"],
        ["method", "best", "%", "parameters"],
        ["Evolutionary", "78.1±0.4", "11,173,962"],
        ["(start=0.25)"],
    ]
    assert [line.split() for line in drawn(TerminalTable(table), 26).splitlines()] == [
        ["method", "Evolutionary("],
        ["start=0.25)"],
        ["best", "%", "78.1±0.4"],
        ["inference", "11,173,962"],
        ["parameters"],
    ]


@given(st.text("ab1.,±-(=_ ×⁻2 ", max_size=40), st.integers(1, 20))
def test_folding_keeps_every_character_but_spaces_and_every_number(plain: str, width: int) -> None:
    lines = folded(Text(plain), width).plain.split("\n")
    assert "".join(lines).replace(" ", "") == plain.replace(" ", "")
    assert NUMBER.findall(" ".join(lines)) == NUMBER.findall(plain)
    numbers = max(map(len, re.findall(r"[\d.,±⁻×\- ]+", plain)), default=0)
    assert all(len(line) <= max(width, numbers) for line in lines)
