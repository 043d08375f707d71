"""ShortcutNet: side branches on any network during training, none at inference."""

import copy
import math
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from spikeback.errors import UsageError
from spikeback.foreign import (
    BATCH_FIRST,
    WORDS,
    Layout,
    first,
    logits_of,
    measure_layouts,
    reset_state,
    warn_of_memory,
)
from spikeback.foreign.undisturbed import undisturbed
from spikeback.inputs import explained
from spikeback.models.network import Network
from spikeback.nn.neurons.neuron import Neuron
from spikeback.nn.pool import firing_rates
from spikeback.values import instead, is_number, near


class Branch(nn.Linear):
    """One branch, b_l of Eq. 6: global average pooling, then a linear layer. (T, B, C, ...) -> logits (T, B, K)."""

    def forward(self, input: Tensor, per_step: bool = True) -> Tensor:
        """Spikes or currents (T, B, C, ...) -> logits (T, B, K).

        Without `per_step` the result is the mean over time, (1, B, K). It is computed from firing rates, which is the
        same, since pooling and layer are linear.
        """
        return super().forward(firing_rates(input, per_step))


class ShortcutNet(nn.Module):
    """Add a branch from every tapped block of a network to its output, during training only.

    The output is o = b_n(x) + weight * sum_l b_l(x) (Eq. 6 and 10 of the paper). b_n is the network's own output, the
    main branch. b_l is the branch of block l: global average pooling and a linear layer. `strip` gives the plain
    network back.

    The network is neither copied nor changed: branches read through hooks that exist only inside a forward pass.
    Branches draw their initial weights from a forked random generator. So the network starts as it would without them.

    Args:
        net: any module that returns logits (T, B, K). If it returns spikes and membrane potentials, both (T, B, K), the
            membrane potentials are the logits (`foreign.logits_of`).
        taps: where branches read. "stage" or "block" are those of the net's `feature_info`, without the last one, which
            is the main branch's own. A list has dotted module names.
        num_classes: K. None takes the net's `num_classes`, else that of the dry run.
        example: a batch of inputs for a dry run, which finds where taps have their time, samples and channels. Without
            an example this is done with the first batch, if `feature_info` tells the channels. The dry run leaves the
            net as it was: buffers, modes, neuron state and random state.
        read: what a branch reads. "spikes" are the output of the tapped block. "current" is the input current of the
            block's last neuron, which must be one of ours.

    Raises:
        UsageError: a tap does not exist, channels or classes cannot be known, or logits have the wrong shape.
    """

    def __init__(
        self,
        net: nn.Module,
        taps: Literal["stage", "block"] | Collection[str] = "stage",
        num_classes: int | None = None,
        *,
        example: Tensor | None = None,
        read: Literal["spikes", "current"] = "spikes",
    ) -> None:
        super().__init__()
        if read not in ("spikes", "current"):
            raise UsageError(f"no read {read!r}{instead(read, ('spikes', 'current'))}")
        info = _feature_info(net)
        self.net, self.read = net, read
        self.taps = _choose(net, info, taps)
        self.sites = {tap: self._site(tap) for tap in self.taps}  # what cannot be read fails here, not in a forward
        known = getattr(net, "num_classes", None)
        self.num_classes = known if num_classes is None else num_classes
        if self.num_classes is not None and (self.num_classes < 1 or known not in (None, self.num_classes)):
            raise UsageError(f"num_classes is {num_classes}, but {type(net).__name__} has {known or 'at least 1'}")
        self.channels = {tap: info[tap]["num_chs"] for tap in self.taps if tap in info}
        self.layouts = {tap: Layout() for tap in self.channels} if isinstance(net, Network) else {}
        self.tried: Layout | None = None  # where the input has its samples, if layouts were found with one sample only
        unknown = [tap for tap in self.taps if tap not in self.channels]
        if self.num_classes is None or unknown or (example is not None and len(self.layouts) < len(self.taps)):
            if example is None:
                raise UsageError(f"{type(net).__name__} has {_missing(unknown)}")
            self._measure(example)
        assert self.num_classes is not None
        like = next((p for p in net.parameters() if p.is_floating_point()), torch.empty(()))
        with torch.random.fork_rng(devices=[]):
            branches = {_key(tap): Branch(self.channels[tap], self.num_classes) for tap in self.taps}
        self.branches = nn.ModuleDict(branches).to(like.device, like.dtype)

    def forward(self, x: Tensor, weight: float | Tensor = 0.0, per_step: bool = True) -> Tensor:
        """Compute logits (T, B, K) = main + weight * sum(side).

        Args:
            x: what the net takes: images (B, C, H, W) or frames (T, B, C, H, W) for networks of `create_model`.
            weight: lambda, a number of at least 0. With the number 0 no branch is evaluated. The value of a tensor is
                not read, as that would wait for the device; so a tensor of 0 evaluates all branches.
            per_step: False returns the mean over time, (1, B, K), and evaluates each branch once, on firing rates.

        Raises:
            UsageError: `weight` is negative or not finite, or the logits have the wrong shape.
        """
        main, side = self.heads(x, weight, per_step)
        return main + weight * sum(side.values()) if side else main

    def heads(self, x: Tensor, weight: float | Tensor = 0.0, per_step: bool = True) -> tuple[Tensor, dict[str, Tensor]]:
        """What a loss takes: main logits, and those of the branches by tap; of weight 0, no branch (see `forward`)."""
        check_weight(weight)
        if isinstance(weight, Tensor) or weight != 0:
            return self._tapped(x, per_step)
        reset_state(self.net)
        main, _ = self._main(x, per_step)
        return _touch(main if per_step else main.mean(0, keepdim=True), self.branches), {}

    def logits(self, x: Tensor, per_step: bool = True) -> tuple[Tensor, dict[str, Tensor]]:
        """The logits of the main branch and, by tap, of each branch, not yet added up.

        All of them are (T, B, K), or (1, B, K) without `per_step`, as in `forward`.
        """
        return self._tapped(x, per_step)

    def strip(self, keep: Collection[str] = ()) -> nn.Module:
        """Return the plain network: the very object that was wrapped, with the state of its neurons reset.

        Args:
            keep: taps whose branches stay. With any, the result is a `ShortcutNet` with these branches only, which
                shares the network and the branches with this one.

        Raises:
            UsageError: `keep` names a tap that has no branch.
        """
        keep = [keep] if isinstance(keep, str) else list(keep)
        unknown = [tap for tap in keep if tap not in self.taps]
        if unknown:
            raise UsageError(f"no branch at {unknown[0]!r}{instead(unknown[0], self.taps)}")
        reset_state(self.net)
        if not keep:
            return self.net
        shared = {id(module): module for module in (self.net, *self.branches.values())}
        kept = copy.deepcopy(self, shared)  # a ShortcutNet of its own around the same net and branches
        kept.taps = tuple(tap for tap in self.taps if tap in keep)
        kept.branches = nn.ModuleDict({_key(tap): self.branches[_key(tap)] for tap in kept.taps})
        return kept

    def _tapped(self, x: Tensor, per_step: bool) -> tuple[Tensor, dict[str, Tensor]]:
        # A compiled graph does not see hooks that come and go: with branches, the net runs eagerly.
        return cast(Any, torch.compiler.disable)(self._evaluate)(x, per_step)

    def _evaluate(self, x: Tensor, per_step: bool) -> tuple[Tensor, dict[str, Tensor]]:
        if len(self.layouts) < len(self.taps) or (self.tried and self._samples(x) > 1):
            self._measure(x)
        reset_state(self.net)
        with self._record() as seen:
            main, steps = self._main(x, per_step)
        side = {}
        for tap in self.taps:
            z = self._time_first(tap, seen[tap], steps, main.shape[1])
            side[tap] = self.branches[_key(tap)](z, per_step)
        return main if per_step else main.mean(0, keepdim=True), side

    def _main(self, x: Tensor, per_step: bool) -> tuple[Tensor, int]:
        """Logits of the network (T, B, K), or (1, B, K) from those of ours that can pool rates over time, and T."""
        if not per_step and isinstance(self.net, Network):
            return self._check(self.net(x, per_step=False), x), self.net.time_steps if x.ndim == 4 else x.shape[0]
        with nullcontext() if torch.compiler.is_compiling() else explained(self.net, x):
            output = self.net(x)
        main = self._check(logits_of(output), x)
        return main, main.shape[0]

    @contextmanager
    def _record(self) -> Iterator[dict[str, list[Tensor]]]:
        """Collect what each tap puts out (or, reading currents, takes in), pooled, once per call.

        Pooled then and there, so that autograd spreads a branch's gradient over the images only when it has come back
        to the tapped block: one map of that size at a time, not all of them before the main path begins.
        """
        seen: dict[str, list[Tensor]] = {tap: [] for tap in self.taps}
        handles = []
        try:
            for tap, calls in seen.items():
                site, pooled = self.net.get_submodule(self.sites[tap]), self.layouts[tap].pooled
                if self.read == "spikes":
                    handles.append(site.register_forward_hook(partial(_keep_output, calls, pooled)))
                else:
                    handles.append(site.register_forward_pre_hook(partial(_keep_input, calls, pooled)))
            yield seen
        finally:
            for handle in handles:
                handle.remove()

    def _site(self, tap: str) -> str:
        """The module to hook: the tap itself or, reading currents, its last neuron of ours."""
        if self.read == "spikes":
            return tap
        inner = self.net.get_submodule(tap).named_modules(prefix=tap)
        neurons = [name for name, module in inner if isinstance(module, Neuron)]
        if not neurons:
            raise UsageError(f"read='current' needs a spikeback.LIF inside the tapped module {tap!r}, which has none")
        return neurons[-1]

    def _measure(self, example: Tensor) -> None:
        """Find layouts and channels of the taps, and the number of classes, in a dry run that leaves no trace."""
        lazy = any(map(is_lazy, self.net.parameters()))  # their first batch gives these their shape for good
        net = copy.deepcopy(self.net) if lazy else self.net

        def run(x: Tensor) -> Tensor:
            reset_state(net)
            with explained(net, x):
                return self._check(logits_of(net(x)), x)

        with undisturbed(net):
            found = measure_layouts(net, run, example, self.sites.values())
            warn_of_memory(net, run, example)
        self.num_classes, self.tried = found.classes, found.entry if found.batch == 1 else None
        for tap, site in self.sites.items():
            if site not in found.outputs:
                raise UsageError(f"tap {tap!r}: no call in one forward of {type(self.net).__name__}")
            layout, shape = found.outputs[site], found.sizes[site]
            self.layouts[tap] = layout
            channels = self.channels.setdefault(tap, layout.width(shape))
            if channels != layout.width(shape):
                raise UsageError(f"tap {tap!r}: feature_info says {channels} channels, but it puts out {shape}")

    def _samples(self, x: Tensor) -> int:
        """How many samples an input has, as far as one of a single sample could tell."""
        return x.shape[1] if self.tried == Layout("T B") else x.shape[0]

    def _check(self, main: Tensor, x: Tensor) -> Tensor:
        """Main logits if they are (T, B, K)."""
        rows = x.shape[0]
        if main.ndim == 3 and (main.shape[1] in x.shape[:2] or rows == main.shape[0] * main.shape[1]):
            if self.num_classes not in (None, main.shape[2]):
                raise UsageError(f"num_classes is {self.num_classes}, but the logits have {main.shape[2]} classes")
            return main
        said = f"{type(self.net).__name__} returned logits of shape {tuple(main.shape)} for an input {tuple(x.shape)}"
        if main.ndim == 3 and main.shape[0] == rows:
            raise UsageError(f"{said}: {BATCH_FIRST}")
        raise UsageError(
            f"{said}, ShortcutNet needs (T, B, K): wrap a net that takes one time step at a time in "
            "spikeback.Unrolled(net, time_steps), one "
            "that has averaged over time, (B, K), in spikeback.TimeAveraged(net)"
        )

    def _time_first(self, tap: str, calls: list[Tensor], steps: int, batch: int) -> Tensor:
        """What a tap put out, pooled, in one forward of T steps and B samples, as (T, B, C)."""
        layout = self.layouts[tap]
        known = None if steps == 1 else steps  # a net that has averaged over time does not tell
        if calls and layout.fits([(*z.shape, 1) for z in calls], known, batch):
            return layout.joined(calls, batch)
        shapes = f"{len(calls)} calls, pooled shape {tuple(calls[0].shape)}" if calls else "no call"
        raise UsageError(
            f"tap {tap!r}: {shapes}, but the logits have T = {steps}, B = {batch}; at first it put out "
            f"{WORDS[layout.axes]}"
        )


def check_weight(weight: float | Tensor) -> None:
    """Raises UsageError unless lambda is a number from 0 on, as the schedules give; a tensor is not looked into."""
    known = is_number(weight) or isinstance(weight, torch.SymFloat | torch.SymInt)  # the latter while it is compiled
    if not (isinstance(weight, Tensor) or (known and 0 <= weight < math.inf)):
        raise UsageError(f"weight (lambda) must be a number of at least 0, got {weight!r}: 1 is Eq. 6, 0 no branch")


def _keep_output(
    calls: list[Tensor], pooled: Callable[[Tensor], Tensor], _module: nn.Module, _input: Any, output: Any
) -> None:
    calls.append(pooled(first(output)))


def _keep_input(calls: list[Tensor], pooled: Callable[[Tensor], Tensor], _module: nn.Module, args: Any) -> None:
    calls.append(pooled(first(args)))


def _missing(unknown: list[str]) -> str:
    """What is not known of a network without an example, and what to pass."""
    if unknown:
        return f"no channels of {', '.join(unknown)} in feature_info: pass example=<one input batch>"
    return "no num_classes: pass num_classes=... or example=<one input batch>"


def _feature_info(net: nn.Module) -> dict[str, dict[str, Any]]:
    """`feature_info` by module name; timm's has no kind: its features are stages."""
    entries = getattr(net, "feature_info", None) or []
    return {entry["module"]: {"kind": "stage", **entry} for entry in entries}


def _choose(net: nn.Module, info: dict[str, dict[str, Any]], taps: str | Collection[str]) -> tuple[str, ...]:
    """Resolve `taps` to module names."""
    if isinstance(taps, str) and taps in ("stage", "block"):
        names = [name for name, entry in info.items() if entry["kind"] == taps][
            :-1
        ]  # the last is the main branch's own
        if not names:
            raise UsageError(
                f"{type(net).__name__} has no feature_info of two or more of kind {taps!r}: give taps as module names, "
                f"e.g. {_names(net)}"
            )
        return tuple(names)
    names = [taps] if isinstance(taps, str) else list(taps)
    if not names:
        raise UsageError(f"taps are empty; choose from {_names(net)}, or use the plain net")
    modules = dict(net.named_modules())
    for name in names:
        if not name or name not in modules:
            hint = near(name, ["stage", "block"]) or near(name, [*filter(None, modules)])
            raise UsageError(
                f"no module {name!r}{hint}; choose from {_names(net)}, or 'stage' or 'block' for all of them"
            )
    if len(set(names)) < len(names):
        raise UsageError(f"taps name a module twice: {', '.join(names)}")
    return tuple(names)


def _names(net: nn.Module, most: int = 24) -> str:
    """Names worth tapping: those of `feature_info`, else the modules two levels down."""
    names = list(_feature_info(net)) or [name for name, _ in net.named_modules() if name and name.count(".") < 2]
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def _key(tap: str) -> str:
    """A module name as a key of nn.ModuleDict, where dots are not allowed."""
    return tap.replace(".", "/")


class _Touch(torch.autograd.Function):
    """Identity whose backward gives zeros to parameters that took no part."""

    @staticmethod
    def forward(ctx: Any, main: Tensor, *parameters: Tensor) -> Tensor:
        ctx.save_for_backward(*parameters)
        return main.view_as(main)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        return (grads[0], *(torch.zeros_like(p) for p in ctx.saved_tensors))


def _touch(main: Tensor, branches: nn.Module) -> Tensor:
    """Let DistributedDataParallel see a (zero) gradient for branches that weight 0 left out."""
    if not (torch.is_grad_enabled() and torch.distributed.is_available() and torch.distributed.is_initialized()):
        return main
    return _Touch.apply(main, *(p for p in branches.parameters() if p.requires_grad))
