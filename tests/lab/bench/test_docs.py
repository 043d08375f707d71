"""docs/bench.md says what is there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from spikeback.lab.bench.command import RACES

PAGE = (Path(__file__).parents[3] / "docs/bench.md").read_text()


def row(bench: str) -> str:
    """The line of the table of commands."""
    (line,) = (line for line in PAGE.splitlines() if line.startswith(f"| `spikeback bench {bench}`"))
    return line


def test_sizes_are_the_defaults(bench: str) -> None:
    written = row(bench).replace("as `step`", row("step"))
    for name, default in RACES[bench][1].items():
        values = " ".join(map(str, default)) if isinstance(default, list) else default
        assert f"--{name} {values}" in written


def test_every_field_of_the_file_is_described(bench: str, made_up: Callable[..., dict[str, Any]]) -> None:
    results = made_up(bench)
    fields = {*results, *(key for arm in results["arms"] for key in arm)}
    fields |= {key for comparison in results["comparisons"] for key in comparison}
    schema = PAGE.partition("schema 1")[2]
    assert [field for field in sorted(fields) if field not in schema] == []
