"""Find out where a network has its time, samples and channels.

T and B are known: T from the logits, B from the logits or the labels. What is not known is which axes of a tensor are
which. It is never read off a shape alone: the samples of the batch are moved by one place, and the axis on which an
output moves with them is that of the samples. What this cannot tell (a batch of one sample, a layer that is silent)
follows from the layers that made the output: a Conv2d puts out three axes besides those of time and samples, a layer of
sinabs has its samples first.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn

from spikeback.errors import UsageError
from spikeback.foreign.layout import BATCH_FIRST, WORDS, Axes, Layout, Layouts
from spikeback.foreign.mean_draws import MeanDraws
from spikeback.foreign.randomness import same_draws
from spikeback.foreign.state import first
from spikeback.nn import Neuron

# Axes besides those of time and samples, which of them counts channels, and the attribute that says how many.
LAYERS: list[tuple[tuple[type[nn.Module], ...], int | None, Literal["first", "last"], str]] = [
    ((nn.Conv1d, nn.ConvTranspose1d), 2, "first", "out_channels"),
    ((nn.Conv2d, nn.ConvTranspose2d), 3, "first", "out_channels"),
    ((nn.Conv3d, nn.ConvTranspose3d), 4, "first", "out_channels"),
    ((nn.BatchNorm2d, nn.InstanceNorm2d), 3, "first", "num_features"),
    ((nn.BatchNorm3d, nn.InstanceNorm3d), 4, "first", "num_features"),
    ((nn.BatchNorm1d, nn.InstanceNorm1d), None, "first", "num_features"),
    ((nn.GroupNorm,), None, "first", "num_channels"),
    ((nn.Linear,), None, "last", "out_features"),
    ((nn.LayerNorm,), None, "last", "normalized_shape"),
]


@dataclass
class Heard:
    """What one module put out in a forward pass, call by call, and what the layers before tell of its axes."""

    calls: list[Tensor] = field(default_factory=list)
    features: int | None = None  # axes besides time and samples
    leading: int | None = None  # axes of time and samples, of an output with so many axes in all:
    ndim: int = 0
    counts: tuple[Literal["first", "last"], int] | None = None  # where the last layer had its channels, and how many


def measure_layouts(
    net: nn.Module,
    run: Callable[[Tensor], Tensor],
    x: Tensor,
    names: Iterable[str],
    batch: int | None = None,
) -> Layouts:
    """Find the layout of a network's input and of what its modules put out, in a few forward passes.

    Nothing is put back: call it on a copy, or where the network's modes, buffers and state are kept.

    Args:
        net: the network; norms are run with the statistics of the batch, dropout is off.
        run: x -> logits (T, B, K) or (B, K), from a fresh neuron state.
        x: a batch of inputs.
        names: modules whose outputs are looked at.
        batch: B; None is that of the logits.

    Raises:
        UsageError: logits whose first axis moves with the samples, or an output that fits no layout.
    """
    names, batch_first = list(names), _batch_first(net)
    net.eval()
    if batch is None:
        batch = _listen(net, run, x, [])[0].shape[-2]
    if batch > 1:
        _lively(net)
        x = _various(x)
    logits, heard = _listen(net, run, x, names)
    steps = None if logits.ndim < 3 or logits.shape[0] == 1 else logits.shape[0]
    entries = _entries(x, logits, batch)
    moved = [_listen(net, run, e.as_it_was(e.time_first(x, batch).roll(1, 1)), names) for e in entries]
    best = _best([_moves(logits, other, logits.ndim - 2) for other, _ in moved], _change(logits, moved[0][0]))
    entry = min(best, key=lambda i: _unusual(entries[i], x))
    rolled_logits, rolled = moved[entry]
    _refuse_batch_first(net, logits, rolled_logits, x, run)
    outputs, sizes = {}, {}
    for name in names:
        if heard[name].calls:
            outputs[name] = _choose(name, heard[name], rolled[name], steps, batch, batch_first)
            sizes[name] = tuple(outputs[name].joined(heard[name].calls, batch).shape)
    return Layouts(steps, batch, logits.shape[-1], entries[entry], outputs, sizes)


def _listen(
    net: nn.Module, run: Callable[[Tensor], Tensor], x: Tensor, names: list[str]
) -> tuple[Tensor, dict[str, Heard]]:
    """Logits, and what was heard of the named modules."""
    heard = {name: Heard() for name in names}
    latest = Heard()

    def known(module: nn.Module, output: object) -> None:
        for kinds, features, where, attribute in LAYERS:
            if isinstance(module, kinds):
                count = getattr(module, attribute)
                latest.features, latest.leading = features, None
                latest.counts = (where, count[-1] if isinstance(count, tuple) else count)
        if (leading := _leading(module)) is not None:
            latest.leading, latest.ndim = leading, first(output).ndim

    def keep(of: Heard, output: object) -> None:
        of.calls.append(first(output).detach().clone())
        of.features, of.counts = latest.features, latest.counts
        of.leading = latest.leading if latest.ndim == of.calls[-1].ndim else None  # a container may add an axis

    with torch.no_grad(), same_draws(net), ExitStack() as hooks:
        for module in net.modules():
            if isinstance(module, tuple(kind for kinds, *_ in LAYERS for kind in kinds)) or _leading(module):
                hooks.callback(module.register_forward_hook(lambda m, _args, out: known(m, out)).remove)
        for name, of in heard.items():
            hook = lambda _module, _args, output, of=of: keep(of, output)
            hooks.callback(net.get_submodule(name).register_forward_hook(hook).remove)
        hooks.enter_context(MeanDraws())
        return run(x).detach(), heard


def _entries(x: Tensor, logits: Tensor, batch: int) -> list[Layout]:
    """Layouts that an input may have: its first axis counts samples, or its second, or the first counts time, too."""
    fits: dict[Axes, bool] = {"B": x.shape[0] == batch, "T B": x.ndim > 2 and x.shape[1] == batch}
    found = [Layout(axes) for axes, fit in fits.items() if fit]
    if not found and x.shape[0] % batch == 0:
        found = [Layout("BT"), Layout("TB")]
    if not found:
        hint = (
            BATCH_FIRST if logits.ndim == 3 and x.shape[0] == logits.shape[0] else "give x as (B, ...) or (T, B, ...)"
        )
        raise UsageError(
            f"logits of shape {tuple(logits.shape)} for an input of shape {tuple(x.shape)}: {batch} samples stand on "
            f"neither of its first two axes; {hint}"
        )
    return found


def _unusual(entry: Layout, x: Tensor) -> bool:
    """Images have four axes and features two, of which the first counts samples; frames have one axis more."""
    return (entry.axes == "T B") != (x.ndim in (3, 5))


def _various(x: Tensor) -> Tensor:
    """The input, or noise of its shape where all samples are the same: nothing could be seen to move."""
    alike = all(torch.equal(x, x.roll(1, axis)) for axis in range(min(2, x.ndim)))
    return torch.randn_like(x) if alike and x.is_floating_point() else x


def _choose(name: str, heard: Heard, rolled: Heard, steps: int | None, batch: int, batch_first: bool) -> Layout:
    """The layout with which the output moves as the samples do; of several the one that the layers before tell of."""
    shapes = [tuple(z.shape) for z in heard.calls]
    layouts = [Layout(axes) for axes in WORDS if Layout(axes).fits(shapes, steps, batch)]
    if not layouts:
        raise UsageError(
            f"{name!r} puts out {_said(shapes)}, which cannot be {steps or 'T'} time steps of {batch} samples: known "
            f"are {', '.join(WORDS.values())}, the last at every step or once for all"
        )
    _refuse_shared(name, heard, rolled, batch)
    if batch > 1 and len(rolled.calls) == len(heard.calls):
        a, b = ([layout.joined(calls, batch) for layout in layouts] for calls in (heard.calls, rolled.calls))
        change = max(_change(p, q) for p, q in zip(heard.calls, rolled.calls, strict=True))
        layouts = [layouts[i] for i in _best([_moves(p, q, 1) for p, q in zip(a, b, strict=True)], change)]
    ndim = len(shapes[0])
    expected = heard.leading or (ndim - heard.features if heard.features else None)
    odd = lambda one: (expected in (1, 2) and one.leading != expected, (one.axes in ("B T", "BT")) != batch_first)
    layout = min(layouts, key=odd)
    return replace(layout, channels=_channels(heard, shapes[0], layout.leading))


def _refuse_shared(name: str, heard: Heard, rolled: Heard, batch: int) -> None:
    """Raises UsageError for a module called several times, of which each call has all time steps, not one."""
    if batch < 2 or len(heard.calls) < 2 or len(rolled.calls) != len(heard.calls):
        return
    pairs = [*zip(heard.calls, rolled.calls, strict=True)]
    if not all(z.ndim > 2 and z.shape[1] == batch for z in heard.calls):
        return
    as_steps, as_whole = (sum(_moves(p, q, axis) for p, q in pairs) for axis in (0, 1))
    if as_whole < 0.5 * as_steps:
        raise UsageError(
            f"{name!r} is called {len(pairs)} times in one forward, each time with all time steps: several places "
            "share it; give each place a module of its own"
        )


def _channels(heard: Heard, shape: Sequence[int], leading: int) -> Literal["first", "last"]:
    """Whether channels are the first or the last axis behind time and samples: where the last layer's number stands."""
    if heard.counts is None or len(shape) <= leading + 1:
        return "first"
    where, count = heard.counts
    sizes = {"first": shape[leading], "last": shape[-1]}
    other = "last" if where == "first" else "first"
    return other if sizes[where] != count and sizes[other] == count else where


def _best(scores: list[float], change: float) -> list[int]:
    """The places of the scores that are about as good as the best; all, if the best is not much below `change`."""
    least = min(scores)
    if not least < 0.5 * change:
        return [*range(len(scores))]
    return [i for i, score in enumerate(scores) if score <= least + 0.25 * (change - least)]


def _moves(z: Tensor, rolled: Tensor, axis: int) -> float:
    """How far `rolled` is from `z` with its entries on an axis moved by one place; 0: it moved as they did."""
    return _change(z.roll(1, axis), rolled) if z.shape == rolled.shape else math.inf


def _change(a: Tensor, b: Tensor) -> float:
    """Mean distance, what is not finite left out."""
    if a.shape != b.shape:
        return math.inf
    return (a.double() - b.double()).abs().nan_to_num(0.0, 0.0, 0.0).mean().item() if a.numel() else 0.0


def _refuse_batch_first(
    net: nn.Module, logits: Tensor, rolled: Tensor, x: Tensor, run: Callable[[Tensor], Tensor]
) -> None:
    """Raises UsageError if the first axis of logits (T, B, K) moves with the first axis of x: they are (B, T, K)."""
    if logits.ndim != 3 or logits.shape[0] < 2 or x.shape[0] % logits.shape[0]:
        return
    with torch.no_grad(), same_draws(net):
        shifted = run(x.roll(x.shape[0] // logits.shape[0], 0)).detach()
    time_first, samples_first = _moves(logits, rolled, 1), _moves(logits, shifted, 0)
    if samples_first < 0.25 * _change(logits, shifted) and samples_first < 0.5 * time_first:
        raise UsageError(
            f"{type(net).__name__} returned logits {tuple(logits.shape)} whose first axis counts samples: {BATCH_FIRST}"
        )


def _lively(net: nn.Module) -> None:
    """Evaluation mode, but norms with the statistics of the batch, so that an untrained network is not silent."""
    net.eval()
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train()


def _families(module: nn.Module) -> set[str]:
    return {cls.__module__.partition(".")[0] for cls in type(module).__mro__}


def _batch_first(net: nn.Module) -> bool:
    """Whether a network has layers of sinabs, which take (B, T, ...) or (B*T, ...)."""
    return any("sinabs" in _families(module) for module in net.modules())


def _leading(module: nn.Module) -> int | None:
    """How many axes a neuron's output has for time and samples; None of a module that is no neuron that is known."""
    if isinstance(module, Neuron):
        return 2
    families = _families(module)
    if "sinabs" in families and hasattr(module, "reset_states"):
        return 1 if hasattr(module, "squeeze_init") else 2
    if "spikingjelly" in families and hasattr(module, "step_mode") and hasattr(module, "reset"):
        return 2 if getattr(module, "step_mode", "s") == "m" else 1
    return None


def _said(shapes: Sequence[Sequence[int]]) -> str:
    return f"{tuple(shapes[0])}" + (f" in each of {len(shapes)} calls" if len(shapes) > 1 else "")
