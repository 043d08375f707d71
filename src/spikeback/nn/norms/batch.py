"""Normalisation: threshold-dependent batch norm, and how one prototype becomes a layer for any channel count."""

import copy
import math

import torch
from torch import Tensor, nn

from spikeback.ops.processes import pooled_moments, several


class BatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` whose batch, in training, is that of all processes that torch.distributed joined, on any device.

    Mean, variance, their gradients and the running statistics are those of the whole batch in one process, whatever
    the share of each (but no process may have none). Without other processes it is `nn.BatchNorm2d` to the bit.
    """

    @property
    def scale(self) -> float:
        """Multiplies `weight`."""
        return 1.0

    def forward(self, input: Tensor) -> Tensor:
        return normalise_together(self, input) if is_shared(self) else super().forward(input)


class TdBatchNorm2d(BatchNorm2d):
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


def is_shared(norm: nn.Module) -> bool:
    """Whether a norm takes the statistics of all processes' batches: those of this module do, while they train."""
    return isinstance(norm, BatchNorm2d) and norm.training and several()


def normalise_together(norm: BatchNorm2d, x: Tensor) -> Tensor:
    """Batch norm of (N, C, H, W), N a share of the batch; in x's dtype, computed in float32 at least."""
    norm._check_input_dim(x)
    if x.numel() == 0:
        raise ValueError(f"batch norm over several processes: every one needs samples, got input size {x.shape}")
    z = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    variance, mean = torch.var_mean(z, (0, 2, 3), correction=0)
    mean, variance, count = pooled_moments(mean, variance, z.numel() // z.shape[1])
    track(norm, mean, variance, count)
    scale = (variance + norm.eps).rsqrt().to(z.dtype) * norm.scale
    scale = scale if norm.weight is None else scale * norm.weight
    y = (z - mean.to(z.dtype)[:, None, None]) * scale[:, None, None]
    return (y if norm.bias is None else y + norm.bias[:, None, None]).to(x.dtype)


@torch.no_grad()
def track(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, count: int | Tensor) -> None:
    """Move the running statistics, as `nn.BatchNorm2d` does: the variance (of `count` values) is unbiased there."""
    if not norm.training or not norm.track_running_stats or norm.running_mean is None or norm.running_var is None:
        return
    tracked: Tensor | None = norm.num_batches_tracked
    if tracked is not None:
        tracked.add_(1)
    momentum = norm.momentum
    if momentum is None:
        momentum = 0.0 if tracked is None else 1 / float(tracked)
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), momentum)
    norm.running_var.lerp_((variance * (count / (count - 1))).to(norm.running_var.dtype), momentum)


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
    count is taken to fit any. `nn.BatchNorm2d` becomes our `BatchNorm2d`.
    """
    if prototype is None:
        return BatchNorm2d(channels)
    norm = copy.deepcopy(prototype)
    if type(norm) is nn.BatchNorm2d:
        norm.__class__ = BatchNorm2d  # the same layer, and the same state
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
