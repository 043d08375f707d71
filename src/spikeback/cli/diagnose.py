"""Examine a network: where its gradient dies, why, and what helps.

RUN is a trial's folder (runs/demo/evolutionary-seed0), a run's folder with one trial, or a checkpoint file; without it
the network of a recipe is examined as its training would begin. With --out a page, a figure and diagnosis.json are
written there.
"""

import json
import math
from typing import Any

import torch
from jsonargparse import ArgumentParser
from rich.console import Console
from torch import Tensor, nn

from spikeback.cli.options import add_recipe, recipe_of, recipe_options
from spikeback.cli.words import as_typed
from spikeback.data import DataModule
from spikeback.doctor import PASSES, diagnose
from spikeback.doctor.measure.case import examine
from spikeback.doctor.measure.gradients import cost
from spikeback.errors import UsageError
from spikeback.export.weights import load_trained
from spikeback.files import as_path, write_atomic
from spikeback.losses import Loss
from spikeback.report.doctor import save_diagnosis, write_diagnosis
from spikeback.train import Recipe
from spikeback.train.start import add_branches, build_network, prepare
from spikeback.train.trials import SEEDS
from spikeback.values import from_text


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "run", type=str, nargs="?", metavar="RUN", help="what was trained; empty: the untrained network of the recipe"
    )
    parser.add_argument("--checkpoint", choices=["best", "last"], default="best", help="which checkpoint of the trial")
    add_recipe(parser)
    parser.add_argument("--seed", type=int, default=0, help="of the untrained network's weights")
    parser.add_argument(
        "--weight", type=float, default=0.0, help="lambda: examine an untrained network with its branches"
    )
    parser.add_argument("--samples", type=int, default=128, help="training images it is examined on")
    parser.add_argument("--passes", nargs="*", choices=list(PASSES), default=list(PASSES), help="what else is measured")
    parser.add_argument("--time", action="store_true", help="also time the recorded pass against a plain one")
    parser.add_argument("--out", type=str, help="folder for report.html, diagnosis.png, .svg and diagnosis.json")


def run(config: Any, console: Console, command: str) -> None:
    if config.samples < 8:
        raise UsageError(f"--samples must be at least 8, not {config.samples}")
    if not 0 <= config.seed < SEEDS:
        raise UsageError(f"--seed must lie in 0 .. {SEEDS - 1}, not {config.seed}")
    if not math.isfinite(config.weight):
        raise UsageError(f"--weight must be a finite number, not {config.weight}")
    with console.status("examining ..."):
        net, (x, y), recipe, note = _trained(config) if config.run else _untrained(config)
        if recipe.train.threads:
            torch.set_num_threads(recipe.train.threads)
        loss = from_text(recipe.train.loss, Loss)
        found = diagnose(net, x, y, weight=config.weight, loss=loss, lr=recipe.train.lr, passes=config.passes)
        ratio = cost(examine(net, x, y, config.weight, loss=loss)) if config.time else None
    if note:
        console.print(as_typed(note, recipe_options()), markup=False, highlight=False, soft_wrap=True)
    console.print(found.table)
    console.print("\n".join([str(found.verdict), *found.facts["notes"]]), markup=False, highlight=False, soft_wrap=True)
    if ratio is not None:
        console.print(f"The recorded pass takes {ratio:.2f} times as long as a plain forward and backward pass.")
    if config.out:
        facts, out = {**found.as_dict(), "command": command}, as_path(config.out)
        facts |= {"cost": ratio} if config.time else {}
        write_atomic(out / "diagnosis.json", json.dumps(facts, indent=1, allow_nan=False).encode())
        save_diagnosis(facts, out)
        console.print(f"report   {write_diagnosis(facts, out / 'report.html')}", soft_wrap=True)


def _trained(config: Any) -> tuple[nn.Module, tuple[Tensor, Tensor], Recipe, str]:
    if config.config:
        raise UsageError("--config: a trained network brings its recipe along; leave --config or RUN out")
    if config.weight:
        raise UsageError("--weight: a checkpoint is examined without its branches; leave --weight or RUN out")
    trained = load_trained(config.run, config.checkpoint)
    return trained.net, trained.data(config.data.root).probe(config.samples), trained.recipe, ""


def _untrained(config: Any) -> tuple[nn.Module, tuple[Tensor, Tensor], Recipe, str]:
    recipe = recipe_of(config)
    data = DataModule(recipe.data, config.seed)
    data.setup()
    torch.manual_seed(config.seed)
    net = build_network(recipe.model, len(data.classes), data.channels, data.time_steps)
    set_up = prepare(net, *data.probe(recipe.train.probe), recipe.train)  # as its training would begin
    note = set_up.note if set_up else ""
    return add_branches(net, recipe.branches) if config.weight else net, data.probe(config.samples), recipe, note
