"""Batch norm whose batch is that of all processes which train together."""

import torch
from torch import Tensor, nn

from spikeback.ops.processes import pooled_moments, several


class BatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` whose batch, in training, is that of all processes that torch.distributed joined, on any device.

    Mean, variance, their gradients and the running statistics are those of the whole batch in one process, whatever
    the number of samples of each rank (but no rank may have none). Without other ranks it is `nn.BatchNorm2d` to the
    bit.
    """

    @property
    def scale(self) -> float:
        """Multiplies `weight`."""
        return 1.0

    def forward(self, input: Tensor) -> Tensor:
        return normalise_together(self, input) if is_shared(self) else super().forward(input)


def is_shared(norm: nn.Module) -> bool:
    """Whether a norm takes the statistics of all processes' batches: those of this module do, while they train."""
    return isinstance(norm, BatchNorm2d) and norm.training and several()


def normalise_together(norm: BatchNorm2d, x: Tensor) -> Tensor:
    """Batch norm of (N, C, H, W), N samples of this rank; in x's dtype, computed in float32 at least."""
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
