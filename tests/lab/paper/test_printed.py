"""`spikeback tables` without results: every figure of the paper's tables as printed, and how to get one's own."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spikeback.lab.paper import rows as paper

from .reading import FORMATS, figures, in_order, text_of
from .transcription import PRINTED

Tables = Callable[..., Any]


@pytest.fixture(autouse=True)
def nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Works in an empty folder, where no run is to be found."""
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")


@pytest.mark.parametrize(("format", "columns"), [("terminal", 80), *((format, 200) for format in FORMATS)])
@pytest.mark.slow
def test_every_figure_as_printed_and_in_the_papers_order(format: str, columns: int, tables: Tables) -> None:
    outcome = tables("--format", format, columns=columns)
    assert outcome.code == 0, outcome
    assert not outcome.err
    assert in_order([(row.accuracy, row.std) for row in PRINTED], figures(outcome.out, format)) == []


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("table", [1, 2, 3, 4])
def test_one_table_alone(table: int, format: str, tables: Tables) -> None:
    shown = figures(tables("--table", table, "--format", format, columns=200).out, format)
    own = [(row.accuracy, row.std) for row in PRINTED if row.table == table]
    others = {(row.accuracy, row.std) for row in PRINTED if row.table != table} - set(own)
    assert in_order(own, shown) == []
    # Table 2's other reading of CIFAR-100 has the figures of Table 1, with a deviation or without.
    swapped = {(accuracy, std) for accuracy in ("74.02", "74.78") for std in (None, "0.08", "0.09")}
    assert others & set(shown) <= swapped


@pytest.mark.parametrize("format", FORMATS)
def test_names_and_time_steps_are_shown(format: str, tables: Tables) -> None:
    text = " ".join(text_of(tables("--format", format, columns=200).out, format).split())
    for row in PRINTED:
        for word in (row.method, row.dataset, row.network, str(row.time_steps)):
            assert re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text), (word, row)


def test_a_row_of_markdown_has_its_figure_beside_its_network_and_time_steps(tables: Tables) -> None:
    lines = [line for line in tables("--format", "markdown").out.splitlines() if line.startswith("|")]
    for row in PRINTED:
        figure = re.escape(row.accuracy) + (rf"\s*%?\s*±\s*{re.escape(row.std)}" if row.std else r"(?!\s*%?\s*±)")
        pattern = rf"\b{re.escape(row.network)}\b.*\b{row.time_steps}\b.*(?<![\d.]){figure}"
        assert any(re.search(pattern, line) for line in lines), row


@pytest.mark.parametrize("format", FORMATS)
def test_without_results_it_says_how_to_get_them_and_what_they_cost(format: str, tables: Tables) -> None:
    page = tables("--format", format).out
    text = " ".join(text_of(page, format).split())
    assert "spikeback compare --config cifar100/resnet18-t2" in text
    assert re.search(r"\d (\S+ )?hours", text) or (format == "json" and re.search(r'hours": [\d.]+', page))


@pytest.mark.parametrize("format", FORMATS)
def test_both_readings_are_shown_with_their_reason(format: str, tables: Tables) -> None:
    page = tables("--format", format, columns=200).out
    # Of a reading's sentence only the words are compared: a format may wrap it and mark words up.
    words = re.findall(r"\w+", text_of(page, format))
    for row in paper.rows():
        if row.reading is not None:
            sentence = re.findall(r"\w+", row.reading)
            assert any(words[i : i + len(sentence)] == sentence for i in range(len(words))), row.reading


@pytest.mark.parametrize("format", FORMATS)
def test_out_writes_what_is_printed_otherwise(format: str, tables: Tables, tmp_path: Path) -> None:
    printed = tables("--format", format).out
    outcome = tables("--format", format, "--out", tmp_path / "new" / "page")
    assert outcome.code == 0, outcome
    page = (tmp_path / "new" / "page").read_text(encoding="utf-8")
    assert figures(page, format) == figures(printed, format)


def test_pages_for_files_hold_no_console_codes(tables: Tables) -> None:
    for format in ("markdown", "html", "json"):
        assert "\x1b" not in tables("--format", format).out


def test_html_is_one_page_that_loads_nothing(tables: Tables) -> None:
    page = tables("--format", "html").out
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert not re.search(r"<(script|link|img|iframe)[^>]*(src|href)=[\"']?(https?:)?//", page)


def test_prints_the_same_whenever_it_is_called(tables: Tables) -> None:
    assert tables("--format", "json").out == tables("--format", "json").out
