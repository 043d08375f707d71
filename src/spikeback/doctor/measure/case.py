"""What is examined: a network on a batch, its loss, its spiking layers and its blocks."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from spikeback.doctor.adapters.neurons import spiking_layers
from spikeback.doctor.measure.blocks import find_blocks
from spikeback.doctor.measure.finite import require_finite
from spikeback.errors import UsageError
from spikeback.foreign import BATCH_FIRST, Layout, Layouts, logits_of, measure_layouts, reset_state, warn_of_memory
from spikeback.foreign.undisturbed import undisturbed
from spikeback.inputs import check_labels, explained
from spikeback.losses import CrossEntropy, Loss
from spikeback.models.network import Network
from spikeback.nn import BasicBlock, ConvNorm, Neuron
from spikeback.nn.blocks import Stack
from spikeback.shortcut import ShortcutNet
from spikeback.shortcut.net import check_weight

OURS = (Neuron, BasicBlock, ConvNorm, Stack)  # what they take and put out is (T, B, ...)
ALIKE = 1e-6  # of the largest number of x: samples that differ by less are the same

Criterion = Callable[..., Tensor]  # a `Loss`, or any (all that the network returned, labels) -> mean loss


class Heads(NamedTuple):
    """What a loss takes: logits (T, B, K) or (B, K), and those of the side branches."""

    main: Tensor
    side: dict[str, Tensor]


@dataclass(frozen=True)
class Case:
    """A network on a batch.

    Args:
        net: any module; a `ShortcutNet` is run with `weight`.
        x, y: a batch, (B, ...) or (T, B, ...), and its labels (B,).
        blocks: dotted names, in network order.
        layers: spiking layers by dotted name.
        layouts: where the samples are in x, and in what blocks and layers put out.
        criterion: mean loss of some of the samples: a loss, or a function of all that the network returned.
    """

    net: nn.Module
    x: Tensor
    y: Tensor
    blocks: list[str]
    layers: dict[str, nn.Module]
    layouts: Layouts
    weight: float = 0.0
    criterion: Criterion = CrossEntropy()  # noqa: RUF009 - frozen

    @property
    def batch(self) -> int:
        return len(self.y)

    def layout(self, name: str) -> Layout:
        """The layout of what a block or a spiking layer puts out."""
        return self.layouts.outputs.get(name, Layout())

    def beside(self, x: Tensor) -> Tensor:
        """The batch with another one behind it, 2 B samples."""
        entry = self.layouts.entry
        return entry.as_it_was(torch.cat([entry.time_first(z, self.batch) for z in (self.x, x)], 1))

    def logits(self, x: Tensor | None = None) -> Tensor:
        """One forward pass from a fresh neuron state -> (T, B, K) or (B, K)."""
        return forward(self.net, self.x if x is None else x, self.weight)

    def output(self) -> Any:
        """What the criterion judges, of one forward pass from a fresh neuron state."""
        if not isinstance(self.criterion, Loss):
            return returned(self.net, self.x, self.weight)
        if not isinstance(self.net, ShortcutNet):
            return Heads(self.logits(), {})
        with explained(self.net, self.x):
            return Heads(*self.net.heads(self.x, self.weight))

    def logits_in(self, output: Any) -> Tensor:
        """The logits in an `output`."""
        if not isinstance(self.criterion, Loss):
            return logits_of(output)
        main, side = output
        return self.criterion.judged(main, side, self.weight)

    def judge(self, output: Any, y: Tensor) -> Tensor:
        """Mean loss of the samples in an `output`."""
        if not isinstance(self.criterion, Loss):
            return self.criterion(output, y)
        main = output.main if output.main.ndim == 3 else output.main[None]  # of a network that has averaged over time
        return self.criterion(main, output.side, self.weight, y)

    def loss(self) -> Tensor:
        """Mean loss of the batch. Raises UsageError if labels or logits do not fit, or it is not finite."""
        output = self.output()
        self.check(self.logits_in(output))
        loss = self.judge(output, self.y)
        if not (loss.ndim == 0 and torch.isfinite(loss)):
            what = f"is {loss.item()}" if loss.ndim == 0 else f"has shape {tuple(loss.shape)}, not a single number"
            raise UsageError(
                f"loss {what}: look for inputs or weights that are not finite (x is between {self.x.min():.3g} and "
                f"{self.x.max():.3g}), or give another loss=..."
            )
        return loss

    def check(self, logits: Tensor) -> None:
        """Raises UsageError unless the logits are (T, B, K) or (B, K) and the labels lie in 0 .. K - 1."""
        check_batch(logits, self.batch)
        classes = logits.shape[-1]
        if isinstance(self.criterion, Loss) and not (int(self.y.min()) >= 0 and int(self.y.max()) < classes):
            raise UsageError(
                f"y: labels must lie in 0 .. {classes - 1}, got {int(self.y.min())} .. {int(self.y.max())}"
            )


def forward(net: nn.Module, x: Tensor, weight: float = 0.0) -> Tensor:
    """Logits, (T, B, K) or (B, K), from a fresh neuron state; `weight` is for a `ShortcutNet`."""
    return logits_of(returned(net, x, weight))


def returned(net: nn.Module, x: Tensor, weight: float = 0.0) -> Any:
    """What a network returns, exactly as it does, from a fresh neuron state; `weight` is for a `ShortcutNet`."""
    reset_state(net)
    with explained(net, x):
        return net(x, weight) if isinstance(net, ShortcutNet) else net(x)


def examine(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    weight: float = 0.0,
    blocks: list[str] | None = None,
    is_spiking: Callable[[nn.Module], bool] | None = None,
    loss: Criterion | None = None,
) -> Case:
    """A case whose layers and blocks are found. Raises UsageError for what does not fit together or is not finite."""
    loss = CrossEntropy() if loss is None else loss
    if isinstance(loss, Loss):
        check_labels(y)
        y = y.long()  # other whole numbers are none to `cross_entropy`
    if y.ndim < 1 or len(y) < 1 or x.ndim < 1 or (len(y) not in x.shape[:2] and x.shape[0] % len(y)):
        raise UsageError(
            f"x of shape {tuple(x.shape)} and y of shape {tuple(y.shape)} do not fit: x is (B, ...) or (T, B, ...), "
            "y is (B,)"
        )
    check_weight(weight)
    if weight and not isinstance(net, ShortcutNet):
        raise UsageError(f"weight={weight} is for the branches of a ShortcutNet; {type(net).__name__} has none")
    require_finite(net, x, y)
    layers = spiking_layers(net, is_spiking)
    names = find_blocks(net, layers, blocks)
    layouts = layouts_of(net, x, len(y), [*names, *layers], weight)
    return Case(net, x, y, names, layers, layouts, weight, loss)


def check_batch(logits: Tensor, batch: int) -> None:
    """Raises UsageError unless logits are (T, B, K) or (B, K) of so many samples."""
    if logits.ndim in (2, 3) and logits.shape[-2] == batch:
        return
    hint = "wrap a net that takes one time step at a time in spikeback.Unrolled(net, time_steps)"
    if logits.ndim == 3 and logits.shape[0] == batch:
        hint = f"{BATCH_FIRST}; or x is batch first, (B, T, ...), where frames (T, B, ...) are meant"
    raise UsageError(
        f"the network returned shape {tuple(logits.shape)} for {batch} labels; logits must be (T, B, K) or (B, K): "
        f"{hint}"
    )


def layouts_of(net: nn.Module, x: Tensor, batch: int, names: list[str], weight: float = 0.0) -> Layouts:
    """Where a batch has its samples, and the layout of what the named modules put out; the net is left as it was.

    Our own networks and blocks have time first. Others are tried (`foreign.measure_layouts`).
    """
    inner = net.net if isinstance(net, ShortcutNet) else net
    if isinstance(inner, Network) and all(isinstance(net.get_submodule(name), OURS) for name in names):
        return Layouts(None, batch, 0, Layout("T B" if x.ndim == 5 else "B"), {})

    def run(x: Tensor) -> Tensor:
        logits = forward(net, x, weight)
        check_batch(logits, batch)
        return logits

    with undisturbed(net):
        found = measure_layouts(net, run, x, names, batch)
        warn_of_memory(net, run, x)
    return replace(found, doubles=_doubles(net, x, found, weight))


def _doubles(net: nn.Module, x: Tensor, layouts: Layouts, weight: float) -> bool:
    """Whether a network takes twice as many samples: some are built for one size of batch."""
    z = layouts.entry.time_first(x, layouts.batch)
    with undisturbed(net), torch.no_grad():
        try:
            shape = forward(net, layouts.entry.as_it_was(torch.cat([z, z], 1)), weight).shape
        except (RuntimeError, UsageError):
            return False
    return shape[-2] == 2 * layouts.batch and (layouts.steps is None or shape[0] == layouts.steps)


def about(case: Case) -> dict[str, Any]:
    """What a batch can tell: whether all samples are `alike`, x is `constant`, and how many `classes` there are."""
    x, y = case.layouts.entry.time_first(case.x.detach().float(), case.batch), case.y
    apart = (x - x[:, :1]).abs().amax().item()
    classes = None if y.is_floating_point() else len(y.unique())
    return {"alike": apart <= ALIKE * x.abs().amax().item(), "constant": bool(x.min() == x.max()), "classes": classes}


def with_input_gradient(case: Case) -> Case:
    """The same case, so that even what lies before the first weight, or frozen weights, gets a gradient."""
    return replace(case, x=case.x.detach().requires_grad_()) if case.x.is_floating_point() else case
