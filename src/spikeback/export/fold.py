"""Batch norm folded into the convolution before it: W' = W * s, b' = bias - mean * s, s = weight / sqrt(var + eps)."""

import copy

import torch
from torch import nn

from spikeback.nn.conv import ConvNorm
from spikeback.nn.norms.td import TdBatchNorm2d


def fold(net: nn.Module) -> nn.Module:
    """A copy of the network in evaluation mode, every batch norm with running statistics folded into its convolution.

    Equal up to rounding, so a neuron within rounding of its threshold may fire differently. Norms that take the batch's
    own statistics stay. The constants are computed in float64.
    """
    folded = copy.deepcopy(net).eval()
    for layer in folded.modules():
        if isinstance(layer, ConvNorm):
            conv, norm = layer
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None:
                _fold_into(conv, norm)
                layer[1] = nn.Identity()
    return folded


@torch.no_grad()
def _fold_into(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight
    if isinstance(norm, TdBatchNorm2d):
        scale = scale * norm.scale
    shift = -norm.running_mean * scale if norm.bias is None else norm.bias - norm.running_mean * scale
    if conv.bias is not None:
        shift = shift + conv.bias * scale
    kind = conv.weight.dtype
    conv.weight = nn.Parameter((conv.weight * scale[:, None, None, None]).to(kind), conv.weight.requires_grad)
    conv.bias = nn.Parameter(shift.to(kind), conv.weight.requires_grad)
