"""What every loss is: a frozen value with one signature over the logits of the main branch and of the side branches."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from spikeback.errors import UsageError


@dataclass(frozen=True)
class Loss:
    """Base of the losses. A subclass is known by its name, in Python and to `--train.loss`.

    Its parameters are dataclass fields that have a default. Training, the doctor and the decomposition of a gradient by
    branch all call the same value.
    """

    per_step: ClassVar[bool] = False  # whether it needs the logits of every time step; their mean over time is cheaper
    summed: ClassVar[bool] = True  # whether main + weight * sum(side) is what it judges; False is main alone

    def __call__(self, main: Tensor, side: Mapping[str, Tensor], weight: float, y: Tensor) -> Tensor:
        """The mean loss of a batch.

        Args:
            main: logits of the main branch, (T, B, K), or their mean over time, (1, B, K).
            side: logits of every side branch by tap, of the same shape; empty where no branch takes part.
            weight: lambda.
            y: labels (B,).
        """
        raise NotImplementedError

    def judged(self, main: Tensor, side: Mapping[str, Tensor], weight: float) -> Tensor:
        """The logits whose accuracy tells how well this loss is learned."""
        return summed_logits(main, side, weight) if self.summed else main


def summed_logits(main: Tensor, side: Mapping[str, Tensor], weight: float) -> Tensor:
    """main + weight * sum(side), the logits of Eq. 6 and Eq. 10; main alone where no branch takes part."""
    return main + weight * sum(side.values()) if side else main


def check_loss(loss: Any) -> None:
    """Raises UsageError unless `loss` is a loss value."""
    if not isinstance(loss, Loss):
        raise UsageError(f"loss must be a loss, e.g. spikeback.losses.CrossEntropy(), not {loss!r}")
