"""Predict the classes of images: a table of file, class and one probability a class, predictions.csv.

RUN is a trial's folder (runs/demo/evolutionary-seed0), a run's folder with one trial, or a checkpoint file. Broken
images are named and left out; the exit code is then 1.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text
from torch import Tensor

from spikeback.cli.options import add_trained
from spikeback.data.decode import IMAGES, decoded
from spikeback.data.images import normalise
from spikeback.data.tree import left_out
from spikeback.data.unlabelled import check_shape, find_images
from spikeback.errors import UsageError
from spikeback.export.weights import Trained, load_trained
from spikeback.files import as_path, write_atomic
from spikeback.report.terminal import TerminalTable

TABLE = "predictions.csv"
BATCH = 256  # images at a time
CHUNK = 4 * BATCH  # images in memory
SHOWN = 20  # classes that are counted in a line of their own


def add_arguments(parser: ArgumentParser) -> None:
    add_trained(parser)
    parser.add_argument("--images", type=str, required=True, help="an image, or a folder, searched to any depth")
    parser.add_argument("--out", type=str, default=".", help=f"folder for {TABLE}, or the name of a .csv file")


def run(config: Any, console: Console, command: str) -> None:
    table = _table_path(as_path(config.out))
    trained = load_trained(config.run, config.checkpoint)
    check_shape(trained.shape, config.images)
    paths, others = find_images(config.images)
    found: dict[Path, list[float]] = {}
    broken: list[UsageError] = []
    for path, outcome in _outcomes(trained, paths):
        if isinstance(outcome, UsageError):
            broken.append(outcome)
        else:
            found[path] = outcome
    if not found:
        raise UsageError(str(broken[0]) if len(broken) == 1 else f"{len(broken):,} images, all broken: {broken[0]}")
    write_atomic(table, _text(found, trained.classes))
    for line in left_out(others, IMAGES):
        console.print(f"note: {line}", soft_wrap=True, markup=False)
    for error in broken:
        console.print(f"broken: {error}", soft_wrap=True, markup=False)
    console.print(TerminalTable(_counts(found, trained.classes)))
    console.print(f"{len(found):,} images -> {table}", soft_wrap=True, markup=False)
    if broken:
        raise SystemExit(1)


def _table_path(out: Path) -> Path:
    if out.suffix.lower() == ".csv" and not out.is_dir():
        return out
    if out.is_file():
        raise UsageError(f"--out {out} is a file; give a folder for {TABLE}, or the name of a .csv file")
    return out / TABLE


def _outcomes(trained: Trained, paths: Sequence[Path]) -> Iterator[tuple[Path, list[float] | UsageError]]:
    """Each image and the probabilities of its classes, or what is wrong with it."""
    chunks = [paths[i : i + CHUNK] for i in range(0, len(paths), CHUNK)]
    console = Console(stderr=True)
    quiet = len(chunks) < 3 or not console.is_terminal
    for chunk in track(chunks, "Predicting", console=console, transient=True, disable=quiet):
        images = list(decoded(chunk, trained.view))
        good = [image for image in images if isinstance(image, Tensor)]
        batches = torch.stack(good).split(BATCH) if good else ()
        logits = [trained.logits(normalise(batch, trained.mean, trained.std)) for batch in batches]
        rows = iter([row for part in logits for row in part.softmax(1).tolist()])
        for path, image in zip(chunk, images, strict=True):
            yield path, next(rows) if isinstance(image, Tensor) else image


def _best(row: list[float], classes: list[str]) -> str:
    return classes[row.index(max(row))]


def _text(found: dict[Path, list[float]], classes: list[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["file", "class", *classes])
    for path, row in found.items():
        writer.writerow([path, _best(row, classes), *(f"{p:.6f}" for p in row)])
    return text.getvalue()


def _counts(found: dict[Path, list[float]], classes: list[str]) -> Table:
    """How many images fell to each class: all classes, or of many the most frequent."""
    counts = Counter(_best(row, classes) for row in found.values())
    shown = classes if len(classes) <= SHOWN else [name for name, _ in counts.most_common(SHOWN)]
    table = Table()
    table.add_column("class")
    table.add_column("images", justify="right", no_wrap=True)
    for name in shown:
        table.add_row(Text(name), f"{counts[name]:,}")
    if rest := len(found) - sum(counts[name] for name in shown):
        table.add_row("others", f"{rest:,}")
    table.add_section()
    table.add_row("all", f"{len(found):,}")
    return table
