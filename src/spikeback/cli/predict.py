"""Predict the classes of a folder of pictures: a CSV of file, class and one probability a class.

RUN is a trial's folder (runs/demo/evolutionary-seed0), a run's folder with one trial, or a checkpoint file.
"""

import csv
import io
from typing import Any

import torch
from jsonargparse import ArgumentParser
from rich.console import Console

from spikeback.cli.trained import add_trained, load_trained
from spikeback.data import read_pictures
from spikeback.files import write_atomic


def add_arguments(parser: ArgumentParser) -> None:
    add_trained(parser)
    parser.add_argument("--pictures", type=str, required=True, help="folder of pictures, searched to any depth")
    parser.add_argument("--out", type=str, default="predictions.csv", help="the CSV to write")


def run(config: Any, console: Console, command: str) -> None:
    trained = load_trained(config.run, config.checkpoint)
    paths, x = read_pictures(config.pictures, trained.shape, trained.mean, trained.std)
    probabilities = torch.cat([trained.logits(part).softmax(1) for part in x.split(256)])
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["file", "class", *trained.classes])
    for path, row in zip(paths, probabilities.tolist(), strict=True):
        writer.writerow([path, trained.classes[row.index(max(row))], *(f"{p:.6f}" for p in row)])
    write_atomic(config.out, text.getvalue())
    console.print(f"{len(paths)} pictures -> {config.out}", soft_wrap=True)
