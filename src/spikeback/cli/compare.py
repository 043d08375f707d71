"""Train by several methods with several seeds on one recipe; table, plots and a report.

Every arm has the same initial weights, batches, augmentation, learning rate and budget. Ctrl-C keeps what is finished;
the same command with --resume goes on from there.
"""

from typing import Any

from jsonargparse import ArgumentParser
from rich.console import Console

from spikeback.cli.live import train
from spikeback.cli.options import add_recipe, add_run, recipe_of, run_folder
from spikeback.train import Method


def add_arguments(parser: ArgumentParser) -> None:
    add_recipe(parser)
    parser.add_argument(
        "--methods",
        nargs="+",
        default=["vanilla", "shortcut", "evolutionary"],
        help="vanilla, shortcut, evolutionary, or a schedule written out: 'Evolutionary(start=0.5)'",
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1], help="one trial for each method and seed")
    add_run(parser, "runs/<recipe>")


def run(config: Any, console: Console, command: str) -> None:
    methods = [Method.from_text(text) for text in config.methods]
    train(recipe_of(config), methods, config.seeds, run_folder(config), config.resume, "compare", command, console)
