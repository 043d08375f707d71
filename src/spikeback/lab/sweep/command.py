"""Train a study: one recipe with options varied, every combination a run of `compare` in its own folder.

Several run at a time with --jobs. Ctrl-C keeps what is finished; the same command with --resume goes on from there.
"""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from spikeback.cli.interrupt import Interrupted
from spikeback.cli.options import add_recipe, add_run, recipe_of, run_folder
from spikeback.cli.plan import plan_table
from spikeback.errors import TrainingError, UsageError
from spikeback.files import write_atomic
from spikeback.lab.sweep.jobs import run_jobs
from spikeback.lab.sweep.plots import save_sweep_plots
from spikeback.lab.sweep.study import cells_of
from spikeback.lab.sweep.table import sweep_markdown, sweep_rows, sweep_table
from spikeback.lock import alone, is_used
from spikeback.report.tables import plus_minus
from spikeback.train.cell import Cell

SCHEMA = 1
KEPT = ("config.yaml", "results.json")


def add_arguments(parser: ArgumentParser) -> None:
    add_recipe(parser)
    parser.add_argument("--vary", type=dict, default={}, help="what to vary, and how: docs/sweep.md")
    parser.add_argument("--methods", nargs="+", default=["vanilla", "shortcut", "evolutionary"], help="as in compare")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1], help="one trial for each method and seed")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one thread each but for --train.threads")
    parser.add_argument(
        "--keep",
        choices=["all", "results"],
        default="all",
        help="results: of a finished run keep results.json and config.yaml only, no checkpoints, plots, report",
    )
    parser.add_argument("--plan", action="store_true", help="say how long it will take, and train nothing")
    add_run(parser, "runs/<study>")


def run(config: Any, console: Console, command: str) -> None:
    out = run_folder(config)
    if config.jobs < 1:
        raise UsageError(f"--jobs must be at least 1, not {config.jobs}")
    cells = cells_of(recipe_of(config), config.vary, config.methods, config.seeds, out)
    if config.plan:
        console.print(plan_table(cells, config.jobs))
        return
    with alone(out, command):  # each run in it locks its own folder
        _run(cells, config, console, command, out)


def _run(cells: list[Cell], config: Any, console: Console, command: str, out: Path) -> None:
    if not config.resume and is_used(out):
        raise UsageError(f"--out {out} is not empty: add --resume to go on with this study, or name another folder")
    again = command if config.resume else f"{command} --resume"
    errors = _train(cells, config, console, again)
    sweep = write_sweep(cells, errors, config, command, out)
    console.print(sweep_table(sweep["study"]["axes"], sweep["rows"]))
    found = {cell.name: results for cell in cells if (results := cell.results()) and results["trials"]}
    plots = save_sweep_plots(sweep, found, out)
    console.print(f"results  {out / 'sweep.json'}, sweep.md, {len(plots)} figures, {len(cells)} runs", soft_wrap=True)
    if errors:
        for name, error in errors.items():
            console.print(f"failed   {name}: {error}", markup=False, soft_wrap=True)
        raise TrainingError(f"{len(errors)} of {len(cells)} runs failed: {', '.join(errors)}; to try again: {again}")


def _train(cells: list[Cell], config: Any, console: Console, again: str) -> dict[str, str]:
    """Run what is missing, with a bar over all trials. Returns the errors by name of the cell."""
    by_name = {cell.name: cell for cell in cells}
    lacking = {cell.name: len(cell.missing()) for cell in cells}
    total = sum(len(cell.trials) for cell in cells)
    errors: dict[str, str] = {}
    done = lambda: total - sum(lacking.values())

    def tidy(cell: Cell) -> None:
        if config.keep == "results" and not lacking[cell.name]:
            prune(cell.folder)

    def ended(name: str, error: str | None) -> None:
        cell = by_name[name]
        lacking[name] = len(cell.missing())
        if error:
            errors[name] = error
        else:
            tidy(cell)
        rows = sweep_rows([(_card(cell), cell.results())])
        found = [f"{row['method']} {plus_minus(row['last_mean'], row['last_std'])} %" for row in rows]
        progress.console.print(f"{name}: {error or ', '.join(found)}", markup=False, highlight=False, soft_wrap=True)

    def watch(names: list[str]) -> None:
        for name in names:
            lacking[name] = len(by_name[name].missing())
        progress.update(bar, completed=done(), description=", ".join(names))

    jobs = {cell.name: _words(cell, config) for cell in cells if lacking[cell.name]}
    progress = _progress(console)
    bar = progress.add_task("starting", total=total, completed=done())
    for cell in cells:  # of an earlier call
        tidy(cell)
    try:
        with progress:
            run_jobs(jobs, config.jobs, ended, watch)
    except Interrupted as error:
        kept = f"{done()} of {total} trials are finished and kept, those under way to their last whole epoch"
        raise Interrupted(f"{error}: {kept}; to go on: {again}") from error
    return errors


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(None), MofNCompleteColumn(), TextColumn("trials"),
        TimeElapsedColumn(), TextColumn("left:"), TimeRemainingColumn(), console=console, expand=True, transient=True,
    )  # fmt: skip


def _words(cell: Cell, config: Any) -> list[str]:
    """Write the cell's recipe, and return what trains it."""
    path = cell.folder / "config.yaml"
    write_atomic(path, yaml.safe_dump(cell.recipe.as_dict(), sort_keys=False).encode())
    seeds = map(str, config.seeds)
    return [
        "compare", "--config", str(path), "--methods", *config.methods, "--seeds", *seeds,
        "--out", str(cell.folder), "--resume", *(f"--import={name}" for name in cell.recipe.imports),
    ]  # fmt: skip


def prune(folder: Path) -> None:
    """Remove what a finished run has besides its results: `spikeback report` draws plots and page anew."""
    for checkpoint in folder.glob("*-seed*/last.ckpt"):
        shutil.rmtree(checkpoint.parent)
    for path in folder.iterdir():
        if path.is_file() and path.name not in KEPT:
            path.unlink()


def write_sweep(cells: Iterable[Cell], errors: dict[str, str], config: Any, command: str, out: Path) -> dict[str, Any]:
    """sweep.json and sweep.md, from the results of all cells."""
    found = [(_card(cell, errors.get(cell.name)), cell.results()) for cell in cells]
    first = next((results for _, results in found if results), None)
    sweep = {
        "schema": SCHEMA,
        "command": command,
        "study": {
            "title": config.title,
            "axes": list(config.vary),
            "vary": config.vary,
            "methods": config.methods,
            "seeds": config.seeds,
            "config": recipe_of(config).as_dict(),
        },
        "dataset": first and first["dataset"],
        "seconds": sum(results["seconds"] for _, results in found if results),
        "cells": [card for card, _ in found],
        "rows": sweep_rows(found),
    }
    write_atomic(out / "sweep.json", json.dumps(sweep, indent=1, allow_nan=False).encode())
    write_atomic(out / "sweep.md", sweep_markdown(sweep))
    return sweep


def _card(cell: Cell, error: str | None = None) -> dict[str, Any]:
    path = f"{cell.name}/results.json" if cell.results() else None
    return {"name": cell.name, "point": cell.point, "options": cell.options, "results": path, "error": error}
