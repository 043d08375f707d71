"""What is examined: a network on a batch, its loss, its spiking layers and its blocks."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikeback.doctor.blocks import find_blocks
from spikeback.doctor.neurons import spiking_layers
from spikeback.doctor.spikes import time_first
from spikeback.errors import UsageError
from spikeback.shortcut import ShortcutNet
from spikeback.shortcut.adapt import first, reset_state

Criterion = Callable[[Tensor, Tensor], Tensor]  # (logits, labels) of some samples -> their mean loss


def mean_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of logits (B, K) or of the time-mean of (T, B, K), in float32 at least."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(logits.mean(0) if logits.ndim == 3 else logits, y)


@dataclass(frozen=True)
class Case:
    """A network on a batch.

    Args:
        net: any module; a `ShortcutNet` is run with `weight`.
        x, y: a batch, (B, ...) or (T, B, ...), and its labels (B,).
        blocks: dotted names, in network order.
        layers: spiking layers by dotted name.
        criterion: mean loss of some of the samples.
    """

    net: nn.Module
    x: Tensor
    y: Tensor
    blocks: list[str]
    layers: dict[str, nn.Module]
    weight: float = 0.0
    criterion: Criterion = mean_cross_entropy

    @property
    def batch(self) -> int:
        return len(self.y)

    @property
    def axis(self) -> int:
        """Which axis of x counts the samples."""
        return batch_axis(self.x, self.batch)

    def logits(self, x: Tensor | None = None) -> Tensor:
        """One forward pass from a fresh neuron state -> (T, B, K) or (B, K)."""
        return forward(self.net, self.x if x is None else x, self.weight)

    def loss(self) -> Tensor:
        """Mean loss of the batch. Raises UsageError if labels or logits do not fit, or it is not finite."""
        logits = self.logits()
        self.check(logits)
        loss = self.criterion(logits, self.y)
        if not (loss.ndim == 0 and torch.isfinite(loss)):
            what = f"is {loss.item()}" if loss.ndim == 0 else f"has shape {tuple(loss.shape)}, not a single number"
            raise UsageError(
                f"loss {what}: look for inputs or weights that are not finite (x is between {self.x.min():.3g} and "
                f"{self.x.max():.3g}), or give another loss=..."
            )
        return loss

    def check(self, logits: Tensor) -> None:
        """Raises UsageError unless the logits are (T, B, K) or (B, K) and the labels lie in 0 .. K - 1."""
        batch = logits.shape[-2] if logits.ndim in (2, 3) else None
        if batch != self.batch:
            raise UsageError(
                f"the network returned shape {tuple(logits.shape)} for y of shape {tuple(self.y.shape)}; logits must "
                "be (T, B, K) or (B, K): wrap a net that takes one time step at a time in "
                "spikeback.Unrolled(net, time_steps)"
            )
        classes = logits.shape[-1]
        if self.criterion is mean_cross_entropy and not (int(self.y.min()) >= 0 and int(self.y.max()) < classes):
            raise UsageError(
                f"y: labels must lie in 0 .. {classes - 1}, got {int(self.y.min())} .. {int(self.y.max())}"
            )


def forward(net: nn.Module, x: Tensor, weight: float = 0.0) -> Tensor:
    """Logits, (T, B, K) or (B, K), from a fresh neuron state; `weight` is for a `ShortcutNet`."""
    reset_state(net)
    output = net(x, weight) if isinstance(net, ShortcutNet) else net(x)
    steps = type(output) is list and len(output) > 1 and all(isinstance(z, Tensor) and z.ndim == 2 for z in output)
    return torch.stack(output) if steps else first(output)  # SpikingJelly's non-spiking nodes put out a list over time


def examine(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    weight: float = 0.0,
    blocks: list[str] | None = None,
    is_spiking: Callable[[nn.Module], bool] | None = None,
    loss: Criterion | None = None,
) -> Case:
    """A case whose layers and blocks are found. Raises UsageError for what does not fit together."""
    if y.ndim < 1 or len(y) < 1 or len(y) not in x.shape[:2]:
        raise UsageError(
            f"x of shape {tuple(x.shape)} and y of shape {tuple(y.shape)} do not fit: x is (B, ...) or (T, B, ...), "
            "y is (B,)"
        )
    if loss is None and (y.ndim != 1 or y.is_floating_point()):
        raise UsageError(f"y must be whole numbers (B,), the classes, got {y.dtype} {tuple(y.shape)}; or give loss=...")
    if not math.isfinite(weight):
        raise UsageError(f"weight must be a finite number, got {weight}")
    if weight and not isinstance(net, ShortcutNet):
        raise UsageError(f"weight={weight} is for the branches of a ShortcutNet; {type(net).__name__} has none")
    layers = spiking_layers(net, is_spiking)
    return Case(net, x, y, find_blocks(net, layers, blocks), layers, weight, loss or mean_cross_entropy)


def with_input_gradient(case: Case) -> Case:
    """The same case, so that even what lies before the first weight, or frozen weights, gets a gradient."""
    return replace(case, x=case.x.detach().requires_grad_()) if case.x.is_floating_point() else case


def batch_axis(x: Tensor, batch: int) -> int:
    """Which axis of an input counts the samples: 0 of pictures and features, 1 of frames (`time_first`)."""
    return int(time_first(x.shape, batch))
