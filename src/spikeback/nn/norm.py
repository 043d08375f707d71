"""Normalisation: one prototype instance becomes one layer per channel count."""

import copy

import torch
from torch import nn


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
