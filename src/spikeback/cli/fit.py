"""Train one network by one method with one seed.

The trial's folder gets best.ckpt, last.ckpt and the plain network, net.safetensors; --out gets results and a report.
"""

from typing import Any

from jsonargparse import ArgumentParser
from rich.console import Console

from spikeback.cli.live import train
from spikeback.cli.options import add_recipe, recipe_of, run_folder
from spikeback.train import Method


def add_arguments(parser: ArgumentParser) -> None:
    add_recipe(parser)
    parser.add_argument(
        "--method",
        default="evolutionary",
        help="vanilla, shortcut, evolutionary, or a schedule written out: 'Evolutionary(start=0.5)'",
    )
    parser.add_argument("--seed", type=int, default=0, help="of initial weights, order and augmentation")
    parser.add_argument("--out", type=str, help="folder for everything that is written (default: runs/<title>)")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out")


def run(config: Any, console: Console, command: str) -> None:
    method = Method.from_text(config.method, "--method")
    train(recipe_of(config), [method], [config.seed], run_folder(config), config.resume, "fit", command, console)
