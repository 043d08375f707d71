"""Print the paper's Tables 1-4, every figure as printed, and beside them what was measured here.

Runs are searched for in all folders given, which may come from several machines: trials of one recipe, dataset and
method are pooled. Without any result it says how to get some, and what that costs. docs/tables.md says more.
"""

import json
from collections.abc import Iterable
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from rich.console import Console

from spikeback.cli.options import packaged_recipe, read_recipe, recipes
from spikeback.errors import UsageError
from spikeback.files import as_path, write_atomic
from spikeback.lab.paper.blocks import blocks, terms
from spikeback.lab.paper.cost import gpu_hours, training_macs
from spikeback.lab.paper.formats import markdown, page, terminal
from spikeback.lab.paper.measured import pool, protocol
from spikeback.lab.paper.tables import measured, own_recipes, table_facts
from spikeback.train.results import read_results

DEFAULT = "runs"


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "runs", nargs="*", type=str, default=[], help=f"folders of runs, or of many (default: {DEFAULT}, if it exists)"
    )
    parser.add_argument("--table", type=int, choices=[1, 2, 3, 4], help="only this table (default: all)")
    parser.add_argument(
        "--format", choices=["terminal", "markdown", "html", "json"], default="terminal", help="of the output"
    )
    parser.add_argument("--out", type=str, help="a file to write instead of the terminal")


def run(config: Any, console: Console, command: str) -> None:
    tables = [config.table] if config.table else [1, 2, 3, 4]
    found = {path: read_results(path) for path in result_files(config.runs)}
    known = {name: protocol(packaged_recipe(name).as_dict()) for name in own_recipes([1, 2, 3, 4])}
    facts = table_facts(pool(found), known)
    facts["tables"] = [table for table in facts["tables"] if table["table"] in tables]
    if not measured(facts):
        facts["to_run"] = [_to_run(name) for name in own_recipes(tables)]
    if config.format == "terminal" and not config.out:
        console.print(terminal(blocks(facts), terms(facts), console.width))
        return
    text = _text(facts, config.format, console.width)
    if config.out:
        console.print(f"written  {write_atomic(config.out, text)}", soft_wrap=True)
    else:
        print(text, end="")


def result_files(folders: Iterable[str]) -> list[Path]:
    """Every results.json in the folders and below them, each once; without a folder those in `runs`, if it exists.

    Raises:
        UsageError: no such folder, or none in it.
    """
    files: dict[Path, Path] = {}
    for folder in map(as_path, folders):
        if not folder.is_dir():
            raise UsageError(f"no folder {folder}: name the folder of a run, or one with runs in it, e.g. runs/demo")
        below = sorted(folder.rglob("results.json"))
        if not below:
            raise UsageError(
                f"no results.json in {folder} or below: `spikeback compare` writes one into a run's folder"
            )
        for path in below:
            files.setdefault(path.resolve(), path)
    return list(files.values()) if folders else sorted(Path(DEFAULT).rglob("results.json"))


def _to_run(name: str) -> dict[str, Any]:
    """How to train what the rows of a recipe need: the command, its trials, and GPU hours of each (cost.py)."""
    options = read_recipe(recipes()[name])
    return {
        "recipe": name,
        "command": f"spikeback compare --config {name} --data.root DIR",
        "trials": len(options["methods"]) * len(options["seeds"]),
        "gpu_hours": _hours(name),
    }


@cache
def _hours(name: str) -> float:
    return gpu_hours(training_macs(packaged_recipe(name)))


def _text(facts: dict[str, Any], kind: str, width: int) -> str:
    if kind == "json":
        return json.dumps(facts, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    if kind == "terminal":
        plain = Console(file=StringIO(), width=width, color_system=None)
        with plain.capture() as captured:
            plain.print(terminal(blocks(facts), terms(facts), width))
        return captured.get()
    return (markdown if kind == "markdown" else page)(blocks(facts), terms(facts), facts["references"])
