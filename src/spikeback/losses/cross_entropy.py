"""Losses: pure functions of logits (T, B, K) and labels (B,)."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from spikeback.shortcut import ShortcutNet
from spikeback.shortcut.net import check_weight


def mean_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of logits (B, K) or of the time-mean of (T, B, K), in float32 at least."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(logits.mean(0) if logits.ndim == 3 else logits, y)


def branch_loss(
    model: ShortcutNet, x: Tensor, y: Tensor, weight: float, combine: Literal["logits", "losses"] = "logits"
) -> tuple[Tensor, Tensor]:
    """Training loss and the logits that it judges, their mean over time, (1, B, K).

    "logits" is Eq. 10: one cross-entropy of main + weight * sum(side). "losses" is deep supervision, the paper's
    introduction: cross-entropy of main + weight * the sum of each branch's own; it judges the main logits.
    """
    check_weight(weight)
    if combine == "logits" or weight == 0:
        logits = model(x, weight, per_step=False)
        return mean_cross_entropy(logits, y), logits
    main, side = model.logits(x, per_step=False)
    return mean_cross_entropy(main, y) + weight * sum(mean_cross_entropy(z, y) for z in side.values()), main
