"""Train one network by one method with one seed.

The trial's folder gets best.ckpt, last.ckpt and the plain network, net.safetensors; --out gets results and a report.
"""

from typing import Any

from jsonargparse import ArgumentParser
from rich.console import Console

from spikeback.cli.live import train
from spikeback.cli.options import add_recipe, add_run, recipe_of, run_folder
from spikeback.errors import UsageError
from spikeback.train import Method
from spikeback.train.trials import SEEDS


def add_arguments(parser: ArgumentParser) -> None:
    add_recipe(parser)
    parser.add_argument(
        "--method",
        default="evolutionary",
        help="vanilla, shortcut, evolutionary, or a schedule written out: 'Evolutionary(start=0.5)'",
    )
    parser.add_argument("--seed", type=int, default=0, help="of initial weights, order and augmentation")
    add_run(parser, "runs/<recipe>-<method>-seed<seed>")


def run(config: Any, console: Console, command: str) -> None:
    if not 0 <= config.seed < SEEDS:
        raise UsageError(f"--seed must lie in 0 .. {SEEDS - 1}, not {config.seed}")
    method = Method.from_text(config.method, "method")
    out = run_folder(config, f"-{method.slug}-seed{config.seed}")
    train(recipe_of(config), [method], [config.seed], out, config.resume, "fit", command, console)
