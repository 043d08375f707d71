"""How one norm that is asked for becomes a layer for any number of channels."""

import copy
from collections.abc import Callable

import torch
from torch import nn

from spikeback.nn.norms.batch import BatchNorm2d

Norm = nn.Module | Callable[[int], nn.Module] | None  # a module to copy, or what makes one for a number of channels


def norm_for(prototype: Norm, channels: int) -> nn.Module:
    """A norm for `channels` channels: what a function of their number gives, or a deep copy of a module.

    None is batch norm. Networks call norms on merged images (T*B, C, H, W), so `nn.BatchNorm2d` takes its statistics
    over (T, B, H, W), as in the authors' code. A norm that says `takes_time = True` is called on (T, B, C, H, W).

    Any module with `num_features` (batch and instance norms) or `num_channels` (group norm) can be copied, whatever its
    own channel count: `norm=nn.BatchNorm2d(1, momentum=0.05)`. Its per-channel parameters and buffers are made anew
    with `channels` entries, all equal to the first. A module without a channel count is taken to fit any.
    `nn.BatchNorm2d` becomes our `BatchNorm2d`.
    """
    if prototype is None:
        return BatchNorm2d(channels)
    if not isinstance(prototype, nn.Module):
        return prototype(channels)
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
