"""One operation for norm, residual addition and neuron, wherever it gives what the modules would.

`fire(lif, current(conv, x))` is `lif(conv(x))`. A block reads like its equation; how it is computed is decided here.
"""

from functools import reduce
from operator import add
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from spikeback.nn.conv import ConvNorm, normalise, over_time
from spikeback.nn.neurons.lif import LIF
from spikeback.nn.norms.batch import BatchNorm2d, is_shared, track
from spikeback.nn.norms.td import TdBatchNorm2d
from spikeback.nn.why import note
from spikeback.ops.lif import check_neuron, code, no_kernel
from spikeback.ops.lif.operator import Constants, moments, norm_lif, normaliser
from spikeback.ops.packing import note_spikes
from spikeback.ops.private import is_watched
from spikeback.ops.processes import pooled_moments

BATCH_NORMS = (nn.BatchNorm2d, BatchNorm2d, TdBatchNorm2d)


class Current:
    """The current into a neuron: a sum of layer(x), not computed yet. `a + b` is a sum of two.

    With `time_steps`, x is one time step that is shown so often.
    """

    def __init__(self, terms: list[tuple[nn.Module, Tensor]], time_steps: int | None = None) -> None:
        self.terms, self.time_steps = terms, time_steps

    def __add__(self, other: "Current") -> "Current":
        return Current(self.terms + other.terms, self.time_steps)

    def tensor(self) -> Tensor:
        """The sum, (T, B, C, H, W), as the modules compute it."""
        return composed([Term(layer(x), None) for layer, x in self.terms], self.time_steps)


def current(layer: nn.Module, x: Tensor, time_steps: int | None = None) -> Current:
    """layer(x) for a neuron: see `Current`."""
    return Current([(layer, x)], time_steps)


def fire(neuron: nn.Module, x: Current) -> Tensor:
    """neuron(x), spikes (T, B, C, H, W): in one operation after the convolutions, or by the modules (`why_not`)."""
    terms = [_before_norm(layer, z) for layer, z in x.terms]
    steps = x.time_steps or terms[0].y.shape[0]
    reason = why_not(neuron, terms)
    note(neuron, reason or next((term.reason for term in terms if term.reason), None))
    return fused(neuron, terms, steps) if reason is None else neuron(composed(terms, steps))


class Term(NamedTuple):
    """What a layer puts out before its last norm, (T, B, C, H, W), and that norm; None: there is none to be done.

    `reason` says why a norm that could have waited for the neuron did not.
    """

    y: Tensor
    norm: nn.Module | None
    reason: str | None = None


def composed(terms: list[Term], time_steps: int | None) -> Tensor:
    """The sum of norm(y), shown `time_steps` times if it has one: the definition of what `fused` computes."""
    shown = lambda y: y if time_steps is None else y.expand(time_steps, *y.shape[1:])
    in_time = lambda norm, y: shown(y) if getattr(norm, "takes_time", False) else y
    return shown(reduce(add, [y if norm is None else normalise(norm, in_time(norm, y)) for y, norm, _ in terms]))


def _before_norm(layer: nn.Module, x: Tensor) -> Term:
    """A layer's output before its last norm, unless someone listens to the layer."""
    if is_watched(layer):
        return Term(layer(x), None, f"a hook listens to {type(layer).__name__}" if _has_norm(layer) else None)
    if type(layer) is ConvNorm:
        conv, norm = layer
        return Term(over_time(conv, x), None if type(norm) is nn.Identity else norm)
    if type(layer) is nn.Sequential and len(layer) > 1:
        *before, last = layer
        for module in before:
            x = module(x)
        return _before_norm(last, x)
    return Term(layer(x), None, f"{type(layer).__name__} is no plain ConvNorm" if _has_norm(layer) else None)


def _has_norm(layer: nn.Module) -> bool:
    return any(isinstance(module, ConvNorm) for module in layer.modules())


def why_not(neuron: nn.Module, terms: list[Term]) -> str | None:
    """Why `fused` cannot be what neuron(sum of norm(y)) is, in a few words; None: it can."""
    kind = lambda module: type(module).__name__
    norms: list[Any] = [term.norm for term in terms if term.norm is not None]
    if type(neuron) is not LIF:
        return f"{kind(neuron)} has no kernel"
    if unknown := next((norm for norm in norms if type(norm) not in BATCH_NORMS), None):
        return f"{kind(unknown)} has no kernel"
    if watched := next((module for module in (neuron, *norms) if is_watched(module)), None):
        return f"a hook listens to {kind(watched)}"
    if len(terms) > 2:
        return f"{len(terms)} currents are added, the kernels know two"
    x = terms[0].y
    if any((term.y.dtype, term.y.shape) != (x.dtype, x.shape) for term in terms):
        return "the currents that are added differ in data type or shape"
    if x.numel() == 0:
        return "the batch is empty"
    if len({(by_batch(norm), is_shared(norm)) for norm in norms}) > 1:
        return "one norm takes the batch's statistics, the other the running ones"
    return no_kernel(x, neuron.surrogate, neuron.gain)


def fused(neuron: Any, terms: list[Term], time_steps: int) -> Tensor:
    """Spikes (T, B, C, H, W) of neuron(sum of norm(y)), in one operation; only where `why_not` knows no reason.

    Args:
        neuron: a `LIF`.
        terms: one or two. A single y may be one time step.
        time_steps: T.
    """
    (x, norm, *_), *more = sorted(terms, key=lambda term: term[1] is None)  # the first is the one with a norm
    residual, norm2, *_ = more[0] if more else (None, None)
    tau, threshold = check_neuron(neuron.tau, neuron.threshold, neuron.surrogate, neuron.gain)
    constants = Constants(tau, threshold, *code(neuron.surrogate) or (0, 0.0), neuron.detach_reset)
    norms = [n for n in (norm, norm2) if n is not None]
    over = "processes" if any(map(is_shared, norms)) else "batch" if any(map(by_batch, norms)) else "running"
    spikes, _ = norm_lif(
        x, neuron.gain, constants, time_steps, *_affine(norm, x), residual, *_affine(norm2, residual),
        over=over, keep_membrane=False,
    )  # fmt: skip
    return note_spikes(spikes)


def by_batch(norm: Any) -> bool:
    """Whether a batch norm takes the statistics of its batch, not the running ones."""
    return norm.training or norm.running_mean is None


def _affine(norm: Any, y: Tensor | None) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Weight and bias of a batch norm, (C,), and the statistics: mean and 1 / sqrt(variance + eps), (2, C); float32."""
    if norm is None or y is None:
        return None, None, None
    statistics = _statistics(norm, y.detach())
    weight = torch.ones_like(statistics[0]) if norm.weight is None else norm.weight
    bias = torch.zeros_like(statistics[0]) if norm.bias is None else norm.bias
    weight = weight * norm.scale if isinstance(norm, BatchNorm2d) and norm.scale != 1 else weight
    return weight.float(), bias.float(), statistics


def _statistics(norm: Any, y: Tensor) -> Tensor:
    """Mean and 1 / sqrt(variance + eps), (2, C), of the batch or running; the latter go on if the norm trains."""
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
            running = (mean, variance, norm.num_batches_tracked) if tracks else (None, None, None)
            return normaliser(y, *running, norm.momentum, norm.eps)
        mean, variance = moments(y)
        if is_shared(norm):
            mean, variance, count = pooled_moments(mean, variance, count)
        track(norm, mean, variance, count)
    return torch.stack((mean.double(), (variance.double() + norm.eps).rsqrt())).float()


def _are_usual(norm: Any, y: Tensor) -> bool:
    """Whether running statistics are as `nn.BatchNorm2d` makes them for y, which is how the kernels read and write."""
    return norm.num_batches_tracked is not None and all(
        s.dtype == torch.float32 and s.shape == y.shape[2:3] and s.is_contiguous() and s.device == y.device
        for s in (norm.running_mean, norm.running_var)
    )
