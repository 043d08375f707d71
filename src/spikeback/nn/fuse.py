"""One operation for normalisation, residual addition and neuron, wherever it gives what the modules would."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from spikeback.nn.neurons.lif import LIF
from spikeback.nn.norms.batch import BatchNorm2d, TdBatchNorm2d, is_shared, track
from spikeback.ops.lif import check_neuron, code, fastest
from spikeback.ops.lif.operator import moments, norm_lif, normaliser
from spikeback.ops.packing import note_spikes
from spikeback.ops.processes import pooled_moments

BATCH_NORMS = (nn.BatchNorm2d, BatchNorm2d, TdBatchNorm2d)


def fused(neuron: nn.Module, parts: list[tuple[Tensor, nn.Module | None]], time_steps: int) -> Tensor | None:
    """Spikes (T, B, C, H, W) of neuron(sum of norm(y)), in one operation; None where the modules have to do it.

    They have to for other neurons, surrogates and norms than ours, for a data type that the kernels do not know, for
    an empty batch, and while a hook listens to a module that would be skipped.

    Args:
        neuron: a `LIF`, or any other module.
        parts: one or two pairs of y, (T, B, C, H, W), and its norm, or None. A single y may be one time step.
        time_steps: T.
    """
    (x, norm), *more = sorted(parts, key=lambda part: part[1] is None)  # the first is the one with a norm
    residual, norm2 = more[0] if more else (None, None)
    norms: list[Any] = [n for n in (norm, norm2) if n is not None]
    if type(neuron) is not LIF or len(more) > 1 or x.numel() == 0 or any(map(is_watched, [neuron, *norms])):
        return None
    if any(type(n) not in BATCH_NORMS for n in norms) or len({(by_batch(n), is_shared(n)) for n in norms}) > 1:
        return None
    if residual is not None and (residual.dtype, residual.shape) != (x.dtype, x.shape):
        return None
    tau, threshold = check_neuron(neuron.tau, neuron.threshold, neuron.surrogate, neuron.gain)
    known = code(neuron.surrogate)
    if known is None or fastest(x, neuron.surrogate, neuron.gain) not in ("cpu", "triton"):
        return None
    spikes, _ = norm_lif(
        x, *_constants(norm, x), residual, *_constants(norm2, residual), None, neuron.gain, any(map(by_batch, norms)),
        any(map(is_shared, norms)), time_steps, tau, threshold, *known, neuron.detach_reset, False,
    )  # fmt: skip
    return note_spikes(spikes)


def is_watched(module: nn.Module) -> bool:
    """Whether a hook waits for the module to be called."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(map(len, hooks)) or bool(torch_module._has_any_global_hook())


def by_batch(norm: Any) -> bool:
    """Whether a batch norm takes the statistics of its batch, not the running ones."""
    return norm.training or norm.running_mean is None


def _constants(norm: Any, y: Tensor | None) -> tuple[Tensor | None, ...]:
    """Weight, bias, mean and 1 / sqrt(variance + eps) of a batch norm, (C,) float32."""
    if norm is None or y is None:
        return None, None, None, None
    mean, inverse = _normaliser(norm, y.detach())
    weight = torch.ones_like(mean) if norm.weight is None else norm.weight
    bias = torch.zeros_like(mean) if norm.bias is None else norm.bias
    weight = weight * norm.scale if isinstance(norm, BatchNorm2d) and norm.scale != 1 else weight
    return weight.float(), bias.float(), mean, inverse


def _normaliser(norm: Any, y: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and 1 / sqrt(variance + eps), (C,) float32, of the batch or running; the latter go on if the norm trains."""
    mean, variance = norm.running_mean, norm.running_var
    if by_batch(norm):
        count = y.numel() // y.shape[2]
        if count < 2 and not is_shared(norm):
            merged = y.flatten(0, 1).shape
            raise ValueError(
                f"Expected more than 1 value per channel when training, got input size {merged}"
            )  # PyTorch's
        tracks = norm.training and norm.track_running_stats and mean is not None and variance is not None
        known = not tracks or _are_usual(norm, y)
        if norm.momentum is not None and known and not is_shared(norm):  # what follows, in one go
            statistics = (mean, variance, norm.num_batches_tracked) if tracks else (None, None, None)
            mean, inverse = normaliser(y, *statistics, norm.momentum, norm.eps)
            return mean, inverse
        mean, variance = moments(y)
        if is_shared(norm):
            mean, variance, count = pooled_moments(mean, variance, count)
        track(norm, mean, variance, count)
    return mean.float(), (variance.double() + norm.eps).rsqrt().float()


def _are_usual(norm: Any, y: Tensor) -> bool:
    """Whether running statistics are as `nn.BatchNorm2d` makes them for y, which is how the kernels read and write."""
    return norm.num_batches_tracked is not None and all(
        s.dtype == torch.float32 and s.shape == y.shape[2:3] and s.is_contiguous() and s.device == y.device
        for s in (norm.running_mean, norm.running_var)
    )
