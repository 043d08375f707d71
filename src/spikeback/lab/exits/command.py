"""What if the branches stay at inference: accuracy of every exit, and early exit against the plain network.

RUN is a trial's folder, a run's folder with any number of trials, or a checkpoint file; all of one recipe. Trials of
one method are averaged. A sample leaves at the first exit whose softmax confidence exceeds a threshold. docs/exits.md
"""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser
from rich.console import Console

from spikeback.cli.options import add_import
from spikeback.data import DataModule
from spikeback.errors import UsageError
from spikeback.export.weights import Trained, checkpoints, read_trained
from spikeback.files import as_path
from spikeback.lab.exits.early import (
    THRESHOLDS,
    Exit,
    Outcome,
    cheapest,
    early_exit,
    exits_of,
    judge,
    shares_alone,
    shares_early,
)
from spikeback.lab.exits.plots import accuracy_by_macs
from spikeback.lab.exits.table import early_table, exit_rows, exits_table
from spikeback.report.plots.style import save
from spikeback.train import Method
from spikeback.train.environment import environment
from spikeback.train.results import differing, write_results

SCHEMA = 1


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=str, nargs="+", metavar="RUN", help="trials: folders or checkpoint files")
    parser.add_argument("--checkpoint", choices=["best", "last"], default="best", help="which checkpoint of a trial")
    add_import(parser)
    parser.add_argument("--data.root", type=str, help="where the data lies now, if not where it lay in training")
    parser.add_argument(
        "--tolerance", type=float, default=1.0, help="points of held-out accuracy that the chosen threshold may lose"
    )
    parser.add_argument("--out", type=str, help="folder for exits.json, exits.png and .svg (default: RUN/exits)")


def run(config: Any, console: Console, command: str) -> None:
    if not 0 <= config.tolerance < 100:
        raise UsageError(f"--tolerance must lie in [0, 100), in points of accuracy, not {config.tolerance}")
    first = as_path(config.run[0])
    out = as_path(config.out or (first.parent if first.is_file() else first) / "exits")
    started = datetime.now(UTC).isoformat(timespec="seconds")
    trained = _read(config.run, f"{config.checkpoint}.ckpt")
    data, exits, trials = None, [], []
    with console.status("") as status:
        for i, one in enumerate(trained, start=1):
            status.update(f"{one.method}, seed {one.seed}: {i} of {len(trained)}")
            data = one.data(config.data.root, data and data.images)
            exits = exits_of(one.model, torch.zeros(data.shape).unsqueeze(len(data.shape) - 3))
            with one.inference():
                trials.append(_trial(one, data, exits, config.tolerance / 100))
    assert data
    recipe, alone, early = trained[0].recipe, shares_alone(exits), shares_early(exits)
    facts = {
        "schema": SCHEMA,
        "title": recipe.title,
        "command": command,
        "started": started,
        "config": recipe.as_dict(),
        "dataset": data.describe(),
        "environment": environment(trained[0].precision),
        "checkpoint": config.checkpoint,
        "tolerance": config.tolerance,
        "chosen_on": recipe.train.best_on,
        "thresholds": list(THRESHOLDS),
        "exits": [asdict(e) | {"alone": a, "early": s} for e, a, s in zip(exits, alone, early, strict=True)],
        "methods": exit_rows(trials),
        "trials": trials,
    }
    _show(facts, console)
    write_results(facts, out / "exits.json")
    save(accuracy_by_macs(facts), out, "exits")
    console.print(f"written  {out / 'exits.json'}, exits.png and .svg", soft_wrap=True)


def _read(runs: Sequence[str], name: str) -> list[Trained]:
    """All trials. Raises UsageError if one comes twice, or they are not of one recipe."""
    first, *others = found = [read_trained(path) for run in runs for path in checkpoints(as_path(run), name)]
    for other in others:
        if differ := differing(first.recipe.as_dict(), other.recipe.as_dict()):
            raise UsageError(
                f"RUN: {other.path} is of another recipe than {first.path}, it differs in {', '.join(differ)}; name "
                "trials of one recipe"
            )
    seen: dict[tuple[str, int], Path] = {}
    for one in found:
        if (key := (one.method, one.seed)) in seen:
            raise UsageError(f"RUN: {one.path} and {seen[key]} are both {one.method} with seed {one.seed}; name one")
        seen[key] = one.path
    return found


def _trial(trained: Trained, data: DataModule, exits: list[Exit], tolerance: float) -> dict[str, Any]:
    """An entry of `trials`: its threshold is chosen on the held-out samples, everything else is of the test samples."""
    names, shares, weight = [e.name for e in exits], shares_early(exits), trained.weights[-1]
    held_out = judge(trained.model, data.val_dataloader(), names, ())
    test = judge(trained.model, data.test_dataloader(), names, (weight, 1.0))
    before, curve = early_exit(held_out, shares), early_exit(test, shares)
    i = cheapest(before, held_out.accuracy[-1] - tolerance)
    return {
        "method": trained.method,
        "seed": trained.seed,
        "epoch": len(trained.weights),
        "weight_start": Method.from_text(trained.method).schedule(0.0),
        "weight": weight,
        "held_out": {"accuracy": held_out.accuracy, "curve": before},
        "test": {"accuracy": test.accuracy, "sums": _sums(test, weight), "curve": curve},
        "chosen": {
            "threshold": THRESHOLDS[i],
            "held_out_accuracy": before["accuracy"][i],
            "accuracy": curve["accuracy"][i],
            "macs": curve["macs"][i],
            "early": 1 - curve["leaving"][i][-1],
        },
    }


def _sums(test: Outcome, weight: float) -> dict[str, float]:
    return {"trained": test.sums[weight], "one": test.sums[1.0]}


def _show(facts: dict[str, Any], console: Console) -> None:
    data = facts["dataset"]
    console.print(f"{data['name']}, {data['test']:,} test samples, {len(facts['trials'])} trials", soft_wrap=True)
    console.print(exits_table(facts))
    console.print(early_table(facts))
    for row in facts["methods"]:
        start, end = row["weight_start"], row["weight"]
        words = f"λ fell from {start:g} to {end:.2g}, and with it the gradient of its branches" if end < start else ""
        words = words if start else "λ was 0, so its branches were never trained"
        if words:
            console.print(f"{row['method']}: {words}", markup=False, soft_wrap=True)
    if facts["chosen_on"] == "test":
        console.print("Nothing was held out (--train.best_on test): the threshold was chosen on the test samples.")
