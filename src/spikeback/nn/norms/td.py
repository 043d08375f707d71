"""Threshold-dependent batch norm."""

import math

from torch import Tensor, nn

from spikeback.nn.norms.batch import BatchNorm2d, is_shared, normalise_together


class TdBatchNorm2d(BatchNorm2d):
    """Threshold-dependent batch norm: y = alpha * V_th * (x - mean) / sqrt(variance + eps) * weight + bias.

    Zheng et al., AAAI 2021 (STBP-tdBN). On merged images (T*B, C, H, W) its statistics run over (T, B, H, W).

    Args:
        num_features: C.
        threshold: V_th of the neurons that follow.
        alpha: 1, or 1 / sqrt(2) where two normalised currents are added (our residual blocks see to that).
        eps, momentum: as `nn.BatchNorm2d`.
    """

    def __init__(
        self,
        num_features: int,
        threshold: float = 0.5,
        alpha: float = 1.0,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
    ) -> None:
        super().__init__(num_features, eps, momentum)
        self.threshold, self.alpha = threshold, alpha

    @property
    def scale(self) -> float:
        """alpha * V_th."""
        return self.alpha * self.threshold

    def forward(self, input: Tensor) -> Tensor:
        if is_shared(self):
            return normalise_together(self, input)
        momentum = self.momentum
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            momentum = 1 / float(self.num_batches_tracked) if momentum is None else momentum
        return nn.functional.batch_norm(
            input, self.running_mean, self.running_var, self.weight * self.scale, self.bias, self.training,
            momentum or 0.0, self.eps,
        )  # fmt: skip


def halve_variance(norm: nn.Module) -> None:
    """Make room for a second normalised current: alpha / sqrt(2) in a threshold-dependent norm; others stay."""
    if isinstance(norm, TdBatchNorm2d):
        norm.alpha /= math.sqrt(2)
