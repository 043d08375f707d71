"""The paper's rows as data: every figure of its four tables, and both readings where it contradicts itself."""

import dataclasses
import re
from importlib import resources
from itertools import groupby

import pytest

from spikeback.lab.paper import rows as paper

from .transcription import (
    BEST_RESNET_19_IN_TEXT,
    EVOLUTIONARY,
    OTHER_CIFAR_10,
    OTHER_CIFAR_100,
    PRINTED,
    REFERENCES,
    SHORTCUT,
    VANILLA,
    Printed,
)

OWN = (VANILLA, SHORTCUT, EVOLUTIONARY)
TABLES = [(table, dataset) for (table, dataset), _ in groupby(PRINTED, key=lambda row: (row.table, row.dataset))]


def as_printed(row: paper.Row) -> tuple:
    """A row in the transcription's terms, without its citation."""
    std = None if row.std is None else f"{row.std:.2f}"
    return (row.table, row.dataset, row.method, row.kind, row.network, row.time_steps, f"{row.accuracy:.2f}", std)


def without_reference(row: Printed) -> tuple:
    return (row.table, row.dataset, row.method, row.kind, row.network, row.time_steps, row.accuracy, row.std)


def printed_rows() -> list[paper.Row]:
    return [row for row in paper.rows() if row.reading is None]


def other_readings() -> list[paper.Row]:
    return [row for row in paper.rows() if row.reading is not None]


def identity(row: paper.Row) -> tuple:
    return (row.table, row.dataset, row.method, row.network, row.time_steps, f"{row.accuracy:.2f}")


@pytest.mark.parametrize(("table", "dataset"), TABLES)
def test_rows_of_a_table_are_those_printed_in_its_order(table: int, dataset: str) -> None:
    rows = [as_printed(row) for row in printed_rows() if (row.table, row.dataset) == (table, dataset)]
    expected = [without_reference(row) for row in PRINTED if (row.table, row.dataset) == (table, dataset)]
    assert sorted(map(repr, rows)) == sorted(map(repr, expected))
    assert rows == expected


def test_tables_follow_each_other_as_in_the_paper() -> None:
    assert [as_printed(row) for row in printed_rows()] == [without_reference(row) for row in PRINTED]
    tables = [row.table for row in paper.rows()]
    assert tables == sorted(tables)


def test_figures_have_the_digits_printed() -> None:
    for row in paper.rows():
        assert row.accuracy == round(row.accuracy, 2)
        assert row.std is None or row.std == round(row.std, 2)


def test_rows_cannot_be_changed() -> None:
    rows = paper.rows()
    assert isinstance(rows, tuple)
    with pytest.raises(dataclasses.FrozenInstanceError):
        rows[0].accuracy = 99.0  # pyright: ignore


def test_other_reading_of_cifar_100_is_that_of_table_1() -> None:
    rows = [row for row in other_readings() if row.dataset == "CIFAR-100" and row.table == 2]
    assert sorted(map(identity, rows)) == sorted(OTHER_CIFAR_100)
    table_1 = {identity(row)[1:] for row in printed_rows() if row.table == 1}
    assert {identity(row)[1:] for row in rows} <= table_1
    for row in rows:
        assert "Table 1" in (row.reading or "")


def test_other_reading_of_cifar_10_moves_the_labels() -> None:
    rows = [row for row in other_readings() if row.dataset == "CIFAR-10" and row.method in OWN]
    assert sorted(map(identity, rows)) == sorted(OTHER_CIFAR_10)


def test_other_readings_keep_the_spread_printed_beside_their_figure() -> None:
    printed = {(row.dataset, row.accuracy): row.std for row in PRINTED if row.table == 2}
    for row in other_readings():
        assert row.table == 2
        if row.method in OWN and row.std is not None:
            assert f"{row.std:.2f}" == printed[row.dataset, f"{row.accuracy:.2f}"]


def test_best_of_resnet_19_in_the_text_is_a_reading() -> None:
    dataset, network, time_steps, accuracy = BEST_RESNET_19_IN_TEXT
    rows = [row for row in other_readings() if row.method not in OWN]
    found = [(row.dataset, row.network, row.time_steps, f"{row.accuracy:.2f}") for row in rows]
    assert found == [(dataset, network, time_steps, accuracy)]
    assert "95.53" in (rows[0].reading or "")  # the figure that the text disagrees with


def test_readings_are_sentences() -> None:
    for row in other_readings():
        assert re.fullmatch(r"[A-Z].{20,}\.", row.reading or "", re.DOTALL), row


def test_own_rows_have_no_citation_and_all_others_have_one() -> None:
    for row in paper.rows():
        assert (row.citation is None) == (row.method in OWN), row


def test_one_citation_for_one_reference() -> None:
    cited = {row.reference: rows.citation for row, rows in zip(PRINTED, printed_rows(), strict=True) if row.reference}
    pairs = {(row.reference, rows.citation) for row, rows in zip(PRINTED, printed_rows(), strict=True)}
    assert len(pairs - {(None, None)}) == len(cited) == len(set(cited.values())) == len(REFERENCES)


def test_citations_are_keys_of_the_bibliography_with_the_right_author() -> None:
    entries = bibliography()
    for printed, row in zip(PRINTED, printed_rows(), strict=True):
        if printed.reference is None:
            continue
        assert row.citation in entries, row
        author = re.search(r"author\s*=\s*[{\"](.*?)(?: and |[}\"],?$)", entries[row.citation], re.MULTILINE)
        assert author, entries[row.citation]
        assert re.search(rf"\b{REFERENCES[printed.reference]}\b", author[1]), row
    for row in other_readings():
        assert row.citation is None or row.citation in entries


def bibliography() -> dict[str, str]:
    """The text of every BibTeX entry that the package holds, by key."""
    found = [path for path in _files(resources.files("spikeback")) if path.name.endswith(".bib")]
    assert found, "no .bib file in the package"
    text = "\n".join(path.read_text(encoding="utf-8") for path in found)
    entries = re.split(r"^@\w+\{\s*", text, flags=re.MULTILINE)[1:]
    keys = [entry.partition(",")[0].strip() for entry in entries]
    assert len(keys) == len(set(keys)), "a key occurs twice"
    return dict(zip(keys, entries, strict=True))


def _files(folder):
    for entry in folder.iterdir():
        yield from _files(entry) if entry.is_dir() else [entry]
