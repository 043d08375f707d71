"""The cross-entropy of one sum of logits (Eq. 10), and deep supervision: the sum of every branch's own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from spikeback.errors import UsageError
from spikeback.losses.base import Loss, summed_logits
from spikeback.values import is_number


def mean_cross_entropy(logits: Tensor, y: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of logits (B, K) or of the time-mean of (T, B, K), in float32 at least."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(logits.mean(0) if logits.ndim == 3 else logits, y, label_smoothing=label_smoothing)


def _check(loss: "CrossEntropy | DeepSupervision") -> None:
    if not is_number(loss.label_smoothing) or not 0 <= loss.label_smoothing < 1:
        raise UsageError(f"{type(loss).__name__}: label_smoothing must lie in [0, 1), got {loss.label_smoothing!r}")


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """L = CE(main + lambda * sum(side), y), each the mean over time: Eq. 10.

    Args:
        label_smoothing: the part of every label that is spread over all classes, as in PyTorch.
    """

    label_smoothing: float = 0.0
    __post_init__ = _check

    def __call__(self, main: Tensor, side: Mapping[str, Tensor], weight: float, y: Tensor) -> Tensor:
        return mean_cross_entropy(summed_logits(main, side, weight), y, self.label_smoothing)


@dataclass(frozen=True)
class DeepSupervision(Loss):
    """L = CE(main, y) + lambda * sum of CE(side, y): every branch learns the labels by itself, as the paper's
    introduction describes it.

    Args:
        label_smoothing: the part of every label that is spread over all classes, as in PyTorch.
    """

    label_smoothing: float = 0.0
    summed: ClassVar[bool] = False
    __post_init__ = _check

    def __call__(self, main: Tensor, side: Mapping[str, Tensor], weight: float, y: Tensor) -> Tensor:
        loss = mean_cross_entropy(main, y, self.label_smoothing)
        if not side:
            return loss
        return loss + weight * sum(mean_cross_entropy(z, y, self.label_smoothing) for z in side.values())
