"""What of a trial goes into results.json (docs/results.md)."""

import math
import statistics
from typing import Any

import torch
from torch import nn

from spikeback.data import DataModule
from spikeback.doctor import block_gradients, block_names, firing_rate
from spikeback.doctor.verdict import EXPLODING, VANISHING
from spikeback.losses import Loss
from spikeback.train.recipe import Method, Recipe
from spikeback.train.start import add_branches, build_network
from spikeback.train.task import Task
from spikeback.values import from_text


def trial_record(task: Task, data: DataModule, method: Method, seed: int) -> dict[str, Any]:
    """An entry of `trials`, from a task whose training has ended."""
    history, norms, config = task.history, task.gradients["norm"], task.train_config
    best = max(range(len(history["epoch"])), key=lambda i: history["held_out_accuracy"][i])
    x, _ = data.judged(4 * config.probe)
    return {
        "method": method.name,
        "schedule": repr(method.schedule),
        "seed": seed,
        "last_accuracy": history["test_accuracy"][-1],
        "best_accuracy": history["test_accuracy"][best],
        "best_epoch": int(history["epoch"][best]),
        "best_on": config.best_on,
        "last_sum_accuracy": history["test_sum_accuracy"][-1] if task.criterion.summed else None,
        "gradient_ratio_start": ratio(norms[0]),
        "gradient_ratio": geometric_mean([ratio(row) for row in norms[1:]]),
        "firing_rate": firing_rate(task.model.net, x.to(task.device)),
        "seconds_per_step": statistics.median(task.step_seconds),
        "parameters_inference": count(task.model.net),
        "parameters_training": count(task.model),
        "epochs": len(history["epoch"]),
        "steps": task.total_steps,
        "history": history,
        "gradients": task.gradients,
        "calibration": task.calibration,
    }


def regime_record(recipe: Recipe, data: DataModule, seed: int) -> dict[str, Any]:
    """The `regime` object: how the gradient travels through the untrained vanilla network."""
    torch.manual_seed(seed)
    net = build_network(recipe.model, len(data.classes), data.channels, data.time_steps)
    model, (x, y) = add_branches(net, recipe.branches), data.probe(recipe.train.probe)
    loss = from_text(recipe.train.loss, Loss)
    norms = block_gradients(net, block_names(net), lambda: loss(*model.heads(x, 0.0, loss.per_step), 0.0, y))
    value = ratio(list(norms.values()))
    kind = "balanced"
    if value is not None and not VANISHING <= value <= EXPLODING:
        kind = "vanishing" if value < VANISHING else "exploding"
    return {"surrogate": recipe.model.surrogate, "threshold": recipe.model.threshold, "ratio": value, "kind": kind}


def ratio(norms: list[float]) -> float | None:
    """First block's gradient over the last block's; None where that is not a finite number."""
    return norms[0] / norms[-1] if norms[-1] > 0 and math.isfinite(norms[0] / norms[-1]) else None


def geometric_mean(values: list[float | None]) -> float | None:
    """Of the values that exist; 0 if one is 0."""
    known = torch.tensor([v for v in values if v is not None], dtype=torch.float64)
    return known.log().mean().exp().item() if len(known) else None


def count(module: nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in module.parameters())
