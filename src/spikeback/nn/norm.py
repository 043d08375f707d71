"""Normalisation: one prototype instance becomes one layer per channel count."""

import copy

import torch
from torch import nn

from spikeback.errors import UsageError


def norm_for(prototype: nn.Module | None, channels: int) -> nn.Module:
    """A deep copy of `prototype` for `channels` channels; None is batch norm.

    Networks call norms on merged pictures (T*B, C, H, W), so `nn.BatchNorm2d` takes its statistics over (T, B, H, W),
    as in the authors' code. Any module with `num_features` (batch and instance norms) or `num_channels` (group norm)
    is a prototype, whatever its own channel count: `norm=nn.BatchNorm2d(1, momentum=0.05)`. Its per-channel
    parameters and buffers are made anew with `channels` entries, all equal to the first.

    Raises:
        UsageError: the prototype does not say its channel count.
    """
    if prototype is None:
        return nn.BatchNorm2d(channels)
    norm = copy.deepcopy(prototype)
    counts = [name for name in ("num_features", "num_channels") if hasattr(norm, name)]
    if not counts:
        raise UsageError(f"norm: {type(norm).__name__} has no num_features or num_channels, e.g. nn.BatchNorm2d(1)")
    old = getattr(norm, counts[0])
    setattr(norm, counts[0], channels)
    for name, p in list(norm.named_parameters(recurse=False)):
        if p.shape == (old,):
            setattr(norm, name, nn.Parameter(p.detach()[:1].repeat(channels), requires_grad=p.requires_grad))
    for name, b in list(norm.named_buffers(recurse=False)):
        if b.shape == torch.Size([old]):
            setattr(norm, name, b[:1].repeat(channels))
    return norm
