"""The tables of README and docs are those that `scripts/tables_in_docs.py` makes of the committed results."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "tables_in_docs.py"
spec = importlib.util.spec_from_file_location("tables_in_docs", SCRIPT)
assert spec is not None
assert spec.loader is not None
docs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(docs)


@pytest.mark.parametrize("page", docs.PAGES, ids=lambda page: page.name)
def test_tables_are_those_of_the_files(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert docs.renewed(text) == text, "python scripts/tables_in_docs.py"


def test_every_table_stands_on_one_page_and_is_found() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in docs.PAGES)
    assert sorted(name for _, name in docs.MARKED.findall(text)) == sorted(docs.TABLES)
    assert text.count("<!-- table: ") == text.count("<!-- end of table -->") == len(docs.TABLES)


def test_a_changed_digit_is_put_right() -> None:
    page = "before\n<!-- table: events -->\n| method | last % |\n| vanilla | 9.6 |\n<!-- end of table -->\nafter\n"
    rows = "|---|---:|\n| vanilla | 9.5 |\n| shortcut | 20.8 |\n| evolutionary | 55.0 |\n"
    assert docs.renewed(page) == page.replace("| vanilla | 9.6 |\n", rows)
    with pytest.raises(KeyError, match="evnets"):
        docs.renewed(page.replace("events", "evnets"))
