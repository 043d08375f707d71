"""Normalisation: threshold-dependent batch norm, and how one prototype becomes a layer for any channel count."""

import copy
import math

import torch
from torch import Tensor, nn


class TdBatchNorm2d(nn.BatchNorm2d):
    """Threshold-dependent batch norm: y = alpha * V_th * (x - mean) / sqrt(variance + eps) * weight + bias.

    Zheng et al., AAAI 2021 (STBP-tdBN). On merged pictures (T*B, C, H, W) its statistics run over (T, B, H, W).

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


def norm_for(prototype: nn.Module | None, channels: int) -> nn.Module:
    """A deep copy of `prototype` for `channels` channels; None is batch norm.

    Networks call norms on merged pictures (T*B, C, H, W), so `nn.BatchNorm2d` takes its statistics over (T, B, H, W),
    as in the authors' code. Any module with `num_features` (batch and instance norms) or `num_channels` (group norm)
    is a prototype, whatever its own channel count: `norm=nn.BatchNorm2d(1, momentum=0.05)`. Its per-channel
    parameters and buffers are made anew with `channels` entries, all equal to the first. A module without a channel
    count is taken to fit any.
    """
    if prototype is None:
        return nn.BatchNorm2d(channels)
    norm = copy.deepcopy(prototype)
    count = next((name for name in ("num_features", "num_channels") if hasattr(norm, name)), None)
    if count is None:
        return norm
    old = getattr(norm, count)
    setattr(norm, count, channels)
    for name, p in list(norm.named_parameters(recurse=False)):
        if p.shape == (old,):
            setattr(norm, name, nn.Parameter(p.detach()[:1].repeat(channels), requires_grad=p.requires_grad))
    for name, b in list(norm.named_buffers(recurse=False)):
        if b.shape == torch.Size([old]):
            setattr(norm, name, b[:1].repeat(channels))
    return norm
