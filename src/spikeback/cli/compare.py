"""Train by several methods with several seeds on one recipe; table, plots and a report.

Every arm has the same initial weights, batches, augmentation, learning rate and budget. Ctrl-C keeps what is finished;
the same command with --resume goes on from there.
"""

from typing import Any

from jsonargparse import ArgumentParser
from rich.console import Console

from spikeback.cli.live import train
from spikeback.cli.options import add_recipe, add_run, recipe_of, run_folder
from spikeback.cli.plan import plan_table
from spikeback.train import Method
from spikeback.train.cell import Cell
from spikeback.train.trials import trials_of


def add_arguments(parser: ArgumentParser) -> None:
    add_recipe(parser)
    parser.add_argument(
        "--methods",
        nargs="+",
        default=["vanilla", "shortcut", "evolutionary"],
        help="vanilla, shortcut, evolutionary, or a schedule written out: 'Evolutionary(start=0.5)'",
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1], help="one trial for each method and seed")
    parser.add_argument("--plan", action="store_true", help="say how long it will take, and train nothing")
    add_run(parser, "runs/<recipe>")


def run(config: Any, console: Console, command: str) -> None:
    recipe, folder = recipe_of(config), run_folder(config)
    methods = [Method.from_text(text) for text in config.methods]
    if config.plan:
        trials = [(method.name, seed) for method, seed in trials_of(methods, config.seeds)]
        console.print(plan_table([Cell(folder, {"recipe": recipe.title}, {}, recipe, trials)], jobs=1))
        return
    train(recipe, methods, config.seeds, folder, config.resume, "compare", command, console)
