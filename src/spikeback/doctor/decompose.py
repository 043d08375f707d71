"""Which way the gradient came: what the main branch and each side branch supply to every block (Eq. 9)."""

from contextlib import ExitStack

import torch
from torch import Tensor

from spikeback.doctor.adapters.neurons import spiking_layers
from spikeback.doctor.measure.blocks import find_blocks
from spikeback.doctor.measure.finite import require_finite
from spikeback.errors import UsageError
from spikeback.foreign import first
from spikeback.foreign.undisturbed import listening, undisturbed
from spikeback.losses import CrossEntropy, Loss
from spikeback.losses.base import check_loss
from spikeback.shortcut import ShortcutNet
from spikeback.shortcut.net import check_weight

Shares = dict[str, dict[str, dict[str, float]]]  # block -> source -> norm and share


def decompose(
    model: ShortcutNet,
    x: Tensor,
    y: Tensor,
    weight: float,
    loss: Loss = CrossEntropy(),  # noqa: B008 - frozen
    blocks: list[str] | None = None,
) -> Shares:
    """Split dL/d(output) of every block into what "main" and each tap supply, in training mode.

    Shortcut back-propagation, Eq. 9: dL/dW = sum_l dL/db_l db_l/dW. What the loss asks of the logits
    of one branch is sent back alone, and these parts add up to the whole gradient.

    Args:
        model: the network with its branches.
        x: a batch, (B, ...) or (T, B, ...).
        y: its labels (B,).
        weight: lambda; with 0 there is "main" only.
        loss: that of the training.
        blocks: names inside `model.net`; None is those of `feature_info`, else what can be inferred.

    Returns:
        block -> source -> `norm`, ||part||, and `share`, <part, whole> / ||whole||^2, which add up to 1.

    Raises:
        UsageError: not a ShortcutNet, blocks that are not there, or something else than a loss.
    """
    if not isinstance(model, ShortcutNet):
        raise UsageError(f"decompose needs a ShortcutNet, which has branches, not a {type(model).__name__}")
    check_weight(weight)
    check_loss(loss)
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
        main, side = model.heads(x, weight)
        asked = _asked(loss, main, side, weight, y)
        flat = [z for calls in outputs.values() for z in calls]
        parts = {}
        for source, logits in {"main": main, **side}.items():
            grads = torch.autograd.grad(logits, flat, asked[source], retain_graph=True, allow_unused=True)
            parts[source] = iter([torch.zeros_like(z) if g is None else g for z, g in zip(flat, grads, strict=True)])
        return {
            name: _shares(
                {source: torch.cat([next(grads).flatten() for _ in calls]) for source, grads in parts.items()}
            )
            for name, calls in outputs.items()
        }


def _asked(loss: Loss, main: Tensor, side: dict[str, Tensor], weight: float, y: Tensor) -> dict[str, Tensor]:
    """dL/d(logits) of each source."""
    main, side = main.detach().requires_grad_(), {tap: z.detach().requires_grad_() for tap, z in side.items()}
    heads = {"main": main, **side}
    found = torch.autograd.grad(loss(main, side, weight, y), [*heads.values()], allow_unused=True)
    return {name: torch.zeros_like(z) if g is None else g for (name, z), g in zip(heads.items(), found, strict=True)}


def _shares(parts: dict[str, Tensor]) -> dict[str, dict[str, float]]:
    parts = {source: part.double() for source, part in parts.items()}
    whole = torch.stack([*parts.values()]).sum(0)
    square = (whole @ whole).item()
    return {
        source: {"norm": part.norm().item(), "share": (part @ whole).item() / square if square > 0 else 0.0}
        for source, part in parts.items()
    }
