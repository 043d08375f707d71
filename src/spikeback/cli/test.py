"""Test a trained network: accuracy of the main branch alone, by class.

RUN is a trial's folder (runs/demo/evolutionary-seed0), a run's folder with one trial, or a checkpoint file.
"""

from typing import Any

import torch
from jsonargparse import ArgumentParser
from rich.console import Console
from rich.table import Table
from rich.text import Text

from spikeback.cli.options import add_trained
from spikeback.export.weights import load_trained
from spikeback.report.terminal import TerminalTable


def add_arguments(parser: ArgumentParser) -> None:
    add_trained(parser)
    parser.add_argument("--data.root", type=str, help="where the data lies now, if not where it lay in training")


def run(config: Any, console: Console, command: str) -> None:
    trained = load_trained(config.run, config.checkpoint)
    data = trained.data(config.data.root)
    hits = torch.zeros(len(data.classes))
    counts = torch.zeros(len(data.classes))
    for x, y in data.test_dataloader():
        right = trained.logits(x).argmax(1) == y
        hits += torch.bincount(y[right], minlength=len(hits))
        counts += torch.bincount(y, minlength=len(hits))
    console.print(
        f"{trained.path}: {data.describe()['name']}, {int(counts.sum()):,} test images, {trained.precision}",
        soft_wrap=True, markup=False,
    )  # fmt: skip
    table = Table()
    table.add_column("class")
    table.add_column("accuracy %", justify="right", no_wrap=True)
    for name, hit, count in zip(data.classes, hits, counts, strict=True):
        table.add_row(Text(name), f"{100 * hit / count:.1f}")
    table.add_section()
    table.add_row("all", f"{100 * hits.sum() / counts.sum():.1f}")
    console.print(TerminalTable(table))
