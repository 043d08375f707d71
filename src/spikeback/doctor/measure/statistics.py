"""Do running statistics fit? What a network makes of a batch with them, and with the statistics of the batch."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from spikeback.doctor.measure.blocks import home
from spikeback.doctor.measure.case import Case, forward, layouts_of
from spikeback.doctor.measure.draws import Draws
from spikeback.errors import UsageError
from spikeback.foreign.randomness import same_draws
from spikeback.foreign.undisturbed import undisturbed
from spikeback.losses import Loss

SIGNIFICANT = 3.0  # standard deviations: fewer samples lost may be chance
LOST = 0.1  # share of the batch that must be lost
WORSE = 2.0  # evaluation loss over training loss, for a loss that knows no right and wrong

Moments = dict[str, tuple[Tensor, Tensor]]


def running_norms(net: nn.Module) -> dict[str, Any]:
    """Norms that keep running statistics, by name."""
    found = {name: module for name, module in net.named_modules() if isinstance(module, _BatchNorm)}
    return {name: norm for name, norm in found.items() if norm.running_mean is not None}


@torch.no_grad()
def evaluation(case: Case) -> dict[str, Any]:
    """What the batch's own statistics make of the batch, and running ones; all else as in evaluation.

    `random`: the network draws at random even so. `sick`: with running statistics it gets far fewer samples right, too
    many for chance; or, of a function given as `loss`, its value is twice as high. An untrained network, which
    knows nothing either way, is not. `stale`: if it is sick, norms whose running statistics are far from the batch's,
    the farthest first.
    """
    norms = running_norms(case.net)
    with undisturbed(case.net), same_draws(case.net), Draws() as draws:
        case.net.eval()
        with_running = case.output()
    if not norms:
        return {"random": draws.any, "sick": False, "stale": []}
    own, with_own = _own_statistics(case.net, case.output)
    losses = [case.judge(output, case.y).item() for output in (with_own, with_running)]
    found: dict[str, Any] = {"random": draws.any, "own_loss": losses[0], "running_loss": losses[1]}
    if isinstance(case.criterion, Loss):
        right = [_predicted(case.logits_in(output)) == case.y for output in (with_own, with_running)]
        found |= {"own_accuracy": _mean(right[0]), "running_accuracy": _mean(right[1])}
        lost, won = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
        sick = lost - won > max(SIGNIFICANT * math.sqrt(lost + won), LOST * case.batch)
    else:
        updated = any(norm.num_batches_tracked is None or norm.num_batches_tracked > 0 for norm in norms.values())
        sick = updated and not losses[1] <= WORSE * abs(losses[0])
    far = {name: _distance(norms[name], *moments) for name, moments in own.items()}
    stale = sorted(far, key=lambda name: -far[name])
    return found | {"sick": sick, "stale": [n for n in stale if far[n] > 1 or n == stale[0]] if sick else []}


def stale_blocks(found: dict[str, Any], blocks: list[str]) -> list[str]:
    """The blocks that hold stale norms."""
    stale = {home(name, blocks) for name in found["stale"]}
    return [block for block in blocks if block in stale]


@torch.no_grad()
def refresh(net: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
    """Set running statistics to those of x; parameters are left alone."""
    norms = running_norms(net)
    if not norms:
        raise UsageError("statistics: no norm of this network keeps running statistics; nothing was changed")
    for name, (mean, variance) in _own_statistics(net, lambda: forward(net, x))[0].items():
        norms[name].running_mean.copy_(mean)
        norms[name].running_var.copy_(variance)
        if norms[name].num_batches_tracked is not None:
            norms[name].num_batches_tracked.clamp_(min=1)
    case = Case(net, x, y, [], {}, layouts_of(net, x, len(y), []))
    if not y.is_floating_point() and (found := evaluation(case))["sick"]:
        raise UsageError(
            f"statistics: with refreshed statistics the network still gets only {found['running_accuracy']:.0%} of the "
            f"batch right, not {found['own_accuracy']:.0%}; nothing was changed"
        )
    return net


def _own_statistics(net: nn.Module, run: Callable[[], Any]) -> tuple[Moments, Any]:
    """Mean and variance of what enters each norm, averaged over its calls, and what a `run` returns with them."""
    norms = running_norms(net)
    with undisturbed(net), same_draws(net):
        net.eval()
        for norm in norms.values():
            norm.reset_running_stats()
            norm.momentum = None  # the average over all calls
            norm.train()
        output = run()
        called = {name: norm for name, norm in norms.items() if norm.num_batches_tracked > 0}
        return {name: (n.running_mean.clone(), n.running_var.clone()) for name, n in called.items()}, output


def _distance(norm: Any, mean: Tensor, variance: Tensor) -> float:
    """How far running statistics are from (mean, variance): 1 is half a standard deviation, or a factor of 2."""
    shift = (norm.running_mean - mean).abs() / (variance + norm.eps).sqrt()
    ratio = ((norm.running_var + norm.eps) / (variance + norm.eps)).log2().abs()
    return max(2 * shift.mean().item(), ratio.mean().item())


def _predicted(logits: Tensor) -> Tensor:
    return (logits.float().mean(0) if logits.ndim == 3 else logits).argmax(-1)


def _mean(right: Tensor) -> float:
    return right.float().mean().item()
