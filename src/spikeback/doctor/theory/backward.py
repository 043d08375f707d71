"""The gradient's way back through the modules of a network, as mean field theory has it (assumptions: `theory`).

K is the covariance over time of the gradient in each channel, K[c, t, s] = sum over neurons of dL/dz_t dL/dz_s,
(C, T, T).
"""

from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from spikeback.doctor.adapters.neurons import Neuron
from spikeback.doctor.theory.jacobian import back_in_time
from spikeback.nn import BasicBlock, TdBatchNorm2d

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
AVERAGE_POOLS = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
MAX_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
CHAINS = (nn.Sequential, nn.ModuleList)
NAMES = ("conv1", "bn1", "sn1", "conv2", "bn2", "sn2")  # SpikingJelly's residual block, after torchvision's
CONNECTORS = ("cnf", "connect_f")  # a block with these adds after its last neuron (SEW): another structure


@dataclass(frozen=True)
class Seen:
    """A spiking layer's sampled neurons: current, spikes, membranes before firing, (T, N, C) each; how they work."""

    current: Tensor
    spikes: Tensor
    u: Tensor
    neuron: Neuron


@dataclass(frozen=True)
class Record:
    """What theory needs of one forward pass in training mode, by module name.

    deviations: sigma = sqrt(variance + eps) of every channel of a batch norm, one row for each call: (1, C) or (T, C).
    sizes: the shape (H, W) of the images that enter a convolution or a pooling.
    """

    layers: dict[str, Seen] = field(default_factory=dict)
    deviations: dict[str, Tensor] = field(default_factory=dict)
    sizes: dict[str, tuple[int, ...]] = field(default_factory=dict)


class UnknownModule(Exception):
    """A module that theory has no word on, or that was not seen in the forward pass."""


class Way:
    """The way back through the modules of one network, of which a forward pass was recorded."""

    def __init__(self, net: nn.Module, record: Record) -> None:
        self.names = {module: name for name, module in net.named_modules()}
        self.record = record

    def top(self, block: nn.Module) -> Tensor:
        """K of a gradient that is alike in all channels and time steps of a block's output."""
        seen = [self.record.layers[name] for m in block.modules() if (name := self.names[m]) in self.record.layers]
        if not seen:
            raise UnknownModule
        steps, _, channels = seen[-1].u.shape
        return seen[-1].u.new_ones(channels, steps, steps)

    def back(self, module: nn.Module, K: Tensor) -> Tensor:
        """K of a module's output -> K of its input."""
        name = self.names[module]
        if name in self.record.layers:
            seen = self.record.layers[name]
            return back_in_time(K, seen.u, seen.spikes, seen.neuron)
        if isinstance(module, CHAINS):
            for layer in reversed(module):
                K = self.back(layer, K)
            return K
        if name in self.record.deviations:
            return through_norm(module, self.record.deviations[name], K)
        if isinstance(module, nn.Linear):
            return torch.einsum("oi,ots->its", module.weight.detach().float() ** 2, K)
        if name in self.record.sizes and isinstance(module, CONVOLUTIONS):
            return through_convolution(module, self.record.sizes[name], K)
        if name in self.record.sizes:
            return K * pooled_power(module, self.record.sizes[name])
        if isinstance(module, (nn.Identity, *MAX_POOLS)):
            return K
        return self._residual(module, K)

    def _residual(self, block: Any, K: Tensor) -> Tensor:
        """o = g(branch(x) + shortcut(x)): K_x is the sum of what both pass back of what g does."""
        if getattr(type(block), "forward", None) is BasicBlock.forward:  # another forward is another structure
            branch, shortcut, outer = [block.conv1, block.lif1, block.conv2], block.shortcut, block.lif2
        elif all(hasattr(block, name) for name in NAMES) and not any(hasattr(block, name) for name in CONNECTORS):
            *branch, outer = (getattr(block, name) for name in NAMES)
            shortcut = getattr(block, "downsample", None) or nn.Identity()
            if len([m for m in block.modules() if self.names[m] in self.record.layers]) != 2 or hasattr(block, "conv3"):
                raise UnknownModule
        else:
            raise UnknownModule
        K = self.back(outer, K)
        aside = K if type(shortcut) is nn.Identity else self.back(shortcut, K)
        for module in reversed(branch):
            K = self.back(module, K)
        return K + aside


def through_norm(norm: Any, sigma: Tensor, K: Tensor) -> Tensor:
    """K of a batch norm's output -> of its input, its statistics taken as given; tdBN's scale is part of gamma.

    Args:
        norm: dy/dx = gamma / sigma.
        sigma: of all time steps, (1, C), or of each, (T, C).
        K: (C, T, T).
    """
    gamma = torch.ones_like(sigma[0]) if norm.weight is None else norm.weight.detach().float()
    slope = (gamma * (norm.scale if isinstance(norm, TdBatchNorm2d) else 1.0) / sigma).T  # (C, T) or (C, 1)
    if slope.shape[1] not in (1, K.shape[1]):
        raise UnknownModule
    return slope[:, :, None] * slope[:, None, :] * K


def through_convolution(conv: Any, size: tuple[int, ...], K: Tensor) -> Tensor:
    """K of a convolution's output, (C', T, T) -> of its input, (C, T, T); `size`: of the image that enters."""
    power = conv.weight.detach().float() ** 2 * inside(conv, size).to(K.device)  # (C', C / groups, kH, kW)
    power = power.flatten(2).sum(2).unflatten(0, (conv.groups, -1))
    return torch.einsum("goi,gots->gits", power, K.unflatten(0, (conv.groups, -1))).flatten(0, 1)


def inside(conv: Any, size: tuple[int, ...]) -> Tensor:
    """The share of outputs for which each tap of a kernel lies inside the image, not in the padding, (kH, kW)."""
    if conv.padding_mode != "zeros":
        return torch.ones(conv.kernel_size)
    share = torch.ones(())
    for axis, (length, kernel) in enumerate(zip(size, conv.kernel_size, strict=True)):
        dilation, stride, padding = conv.dilation[axis], conv.stride[axis], conv.padding
        reach = dilation * (kernel - 1)
        before = {"same": reach // 2, "valid": 0}[padding] if isinstance(padding, str) else padding[axis]
        after = reach - before if padding == "same" else before
        starts = torch.arange(0, length + before + after - reach, stride) - before
        place = starts + dilation * torch.arange(kernel)[:, None]  # (k, outputs)
        share = share[..., None] * ((place >= 0) & (place < length)).float().mean(1)
    return share


def pooled_power(pool: nn.Module, size: tuple[int, ...]) -> float:
    """The share of the power that average pooling passes back.

    Exact for separate windows, 1 / n each; for overlapping ones if the gradient is alike at all places.
    """
    plain = next(kind for kind in AVERAGE_POOLS if isinstance(pool, kind))
    with torch.enable_grad():
        x = torch.zeros(1, 1, *size, requires_grad=True)
        y = plain.forward(pool, x)  # pyright: ignore[reportArgumentType] - without a subclass's ways with time
        (g,) = torch.autograd.grad(y, x, torch.ones_like(y))
    return g.square().sum().item() / prod(y.shape)
