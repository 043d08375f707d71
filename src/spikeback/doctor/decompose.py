"""Which way the gradient came: what the main branch and each side branch supply to every block (Eq. 9)."""

from contextlib import ExitStack
from typing import Literal

import torch
from torch import Tensor

from spikeback.doctor.adapters.neurons import spiking_layers
from spikeback.doctor.measure.blocks import find_blocks
from spikeback.doctor.measure.finite import require_finite
from spikeback.errors import UsageError
from spikeback.foreign import first
from spikeback.foreign.undisturbed import listening, undisturbed
from spikeback.losses.cross_entropy import mean_cross_entropy
from spikeback.shortcut import ShortcutNet
from spikeback.shortcut.net import check_weight
from spikeback.values import near

Shares = dict[str, dict[str, dict[str, float]]]  # block -> source -> norm and share


def decompose(
    model: ShortcutNet,
    x: Tensor,
    y: Tensor,
    weight: float,
    combine: Literal["logits", "losses"] = "logits",
    blocks: list[str] | None = None,
) -> Shares:
    """Split dL/d(output) of every block into what "main" and each tap supply, in training mode.

    Shortcut back-propagation, Eq. 9: dL/dW = sum_l dL/db_l db_l/dW. The loss is that of training (`branch_loss`); what
    it asks of the logits of one branch is sent back alone, and these parts add up to the whole gradient.

    Args:
        model: the network with its branches.
        x: a batch, (B, ...) or (T, B, ...).
        y: its labels (B,).
        weight: lambda; with 0 there is "main" only.
        combine: one loss of the summed logits (Eq. 10), or a sum of losses.
        blocks: names inside `model.net`; None is those of `feature_info`, else what can be inferred.

    Returns:
        block -> source -> `norm`, ||part||, and `share`, <part, whole> / ||whole||^2, which add up to 1.

    Raises:
        UsageError: not a ShortcutNet, or blocks that are not there.
    """
    if not isinstance(model, ShortcutNet):
        raise UsageError(f"decompose needs a ShortcutNet, which has branches, not a {type(model).__name__}")
    check_weight(weight)
    names = find_blocks(model.net, spiking_layers(model.net)) if blocks is None else blocks
    modules = dict(model.net.named_modules())
    if isinstance(names, str) or not all(name in modules for name in names):
        raise UsageError(f"blocks: {names!r} must be a list of module names, e.g. {[*modules][-1:]}")
    require_finite(model, x, y)
    outputs: dict[str, list[Tensor]] = {name: [] for name in names}
    with undisturbed(model), torch.enable_grad(), ExitStack() as hooks:
        model.train()
        for name, calls in outputs.items():
            heard = lambda _, out, calls=calls: calls.append(first(out))
            hooks.enter_context(listening(model.net.get_submodule(name), heard))
        main, side = model.logits(x)
        heads = {"main": main, **({tap: weight * z for tap, z in side.items()} if weight else {})}
        asked = _asked(main, side, y, weight, combine)
        flat = [z for calls in outputs.values() for z in calls]
        parts = {}
        for source, logits in heads.items():
            grads = torch.autograd.grad(logits, flat, asked[source], retain_graph=True, allow_unused=True)
            parts[source] = iter([torch.zeros_like(z) if g is None else g for z, g in zip(flat, grads, strict=True)])
        return {
            name: _shares(
                {source: torch.cat([next(grads).flatten() for _ in calls]) for source, grads in parts.items()}
            )
            for name, calls in outputs.items()
        }


def _asked(main: Tensor, side: dict[str, Tensor], y: Tensor, weight: float, combine: str) -> dict[str, Tensor]:
    """dL/d(logits) of each source, its weight left out."""
    if combine == "logits":
        total = (main + weight * sum(side.values())).detach().requires_grad_()
        (asked,) = torch.autograd.grad(mean_cross_entropy(total, y), total)
        return dict.fromkeys(("main", *side), asked)
    if combine != "losses":
        raise UsageError(f"no combine {combine!r}{near(combine, ('logits', 'losses'))}; choose from logits, losses")
    heads = {name: z.detach().requires_grad_() for name, z in {"main": main, **side}.items()}
    return {name: torch.autograd.grad(mean_cross_entropy(z, y), z)[0] for name, z in heads.items()}


def _shares(parts: dict[str, Tensor]) -> dict[str, dict[str, float]]:
    parts = {source: part.double() for source, part in parts.items()}
    whole = torch.stack([*parts.values()]).sum(0)
    square = (whole @ whole).item()
    return {
        source: {"norm": part.norm().item(), "share": (part @ whole).item() / square if square > 0 else 0.0}
        for source, part in parts.items()
    }
