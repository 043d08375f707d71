"""ShortcutNet: side branches on any network during training, none at inference."""

import copy
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from spikeback.errors import UsageError
from spikeback.models.network import Network
from spikeback.nn.block import firing_rates
from spikeback.nn.neuron import LIF
from spikeback.shortcut.adapt import first, loose_tensors, reset_state


class Branch(nn.Linear):
    """b_l: global average pooling and a fully connected layer, (T, B, C, ...) -> (T, B, K)."""

    def forward(self, input: Tensor, per_step: bool = True) -> Tensor:
        """Without `per_step` the mean over time, (1, B, K), from firing rates: pooling and layer are linear."""
        return super().forward(firing_rates(input, per_step))


class ShortcutNet(nn.Module):
    """A network with a branch from every tapped block to the output, o = b_n(x) + weight * sum_l b_l(x) (Eq. 6, 10).

    Args:
        net: any module that returns logits (T, B, K). It is not copied or changed; hooks live only inside a forward.
        taps: "stage" or "block" (those of the net's `feature_info`, the last one being the main branch's own), or
            dotted module names.
        num_classes: K; None takes the net's `num_classes`, else that of the dry run.
        example: an input for a dry run that finds the channels of blocks unknown to `feature_info`. It runs on a copy
            of the net: buffers, neuron state and random state stay as they are.
        read: what a branch reads: the tapped block's output "spikes", or the membrane "current" into its last `LIF`.

    Branches draw their initial weights from a forked generator, so the trunk starts as it would without them.

    Raises:
        UsageError: a tap that does not exist, channels or classes that cannot be known, logits of the wrong shape.
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
            raise UsageError(f"no read {read!r}; choose from spikes, current")
        info = _feature_info(net)
        self.net, self.read = net, read
        self.taps = _choose(net, info, taps)
        for tap in self.taps:
            self._site(tap)  # what cannot be read fails here, not in the first forward
        channels = {name: entry["num_chs"] for name, entry in info.items()}
        known = getattr(net, "num_classes", None)
        self.num_classes = known if num_classes is None else num_classes
        if self.num_classes is not None and (self.num_classes < 1 or known not in (None, self.num_classes)):
            raise UsageError(f"num_classes is {num_classes}, but {type(net).__name__} has {known or 'at least 1'}")
        if self.num_classes is None or not all(tap in channels for tap in self.taps):
            widths, seen = self._dry_run(example, [tap for tap in self.taps if tap not in channels])
            channels, self.num_classes = channels | widths, seen
        like = next((p for p in net.parameters() if p.is_floating_point()), torch.empty(()))
        with torch.random.fork_rng(devices=[]):
            branches = {_key(tap): Branch(channels[tap], self.num_classes) for tap in self.taps}
        self.branches = nn.ModuleDict(branches).to(like.device, like.dtype)

    def forward(self, x: Tensor, weight: float | Tensor = 0.0, per_step: bool = True) -> Tensor:
        """Logits (T, B, K) = main + weight * sum(side); the number 0 (not a tensor of it) evaluates no branch.

        `per_step=False` returns their mean over time, (1, B, K), and evaluates each branch once, on firing rates.
        """
        if not isinstance(weight, Tensor) and weight == 0:
            reset_state(self.net)
            main, _ = self._main(x, per_step)
            return _touch(main if per_step else main.mean(0, keepdim=True), self.branches)
        main, side = self._tapped(x, per_step)
        return main + weight * sum(side.values())

    def logits(self, x: Tensor, per_step: bool = True) -> tuple[Tensor, dict[str, Tensor]]:
        """Main logits (T, B, K), or (1, B, K) as in `forward`, and those of each branch, by tap."""
        return self._tapped(x, per_step)

    def strip(self, keep: Collection[str] = ()) -> nn.Module:
        """The plain network, the very object that was wrapped; with `keep`, a ShortcutNet with those branches only."""
        keep = [keep] if isinstance(keep, str) else list(keep)
        unknown = [tap for tap in keep if tap not in self.taps]
        if unknown:
            raise UsageError(f"no branch at {unknown[0]!r}; choose from {', '.join(self.taps)}")
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
        reset_state(self.net)
        with self._record(self.net, self.taps) as seen:
            main, steps = self._main(x, per_step)
        side = {}
        for tap in self.taps:
            z = _time_first(tap, seen[tap], steps, main.shape[1])
            side[tap] = self.branches[_key(tap)](z, per_step)
        return main if per_step else main.mean(0, keepdim=True), side

    def _main(self, x: Tensor, per_step: bool) -> tuple[Tensor, int]:
        """Logits of the network (T, B, K), or (1, B, K) from those of ours that can pool rates over time, and T."""
        if not per_step and isinstance(self.net, Network):
            return self._check(self.net(x, per_step=False), x), self.net.time_steps if x.ndim == 4 else x.shape[0]
        main = self._check(first(self.net(x)), x)
        return main, main.shape[0]

    @contextmanager
    def _record(self, net: nn.Module, taps: Collection[str]) -> Iterator[dict[str, list[Tensor]]]:
        """Collect what each tap puts out (or, reading currents, takes in), pooled, once per call.

        Pooled then and there, so that autograd spreads a branch's gradient over the pictures only when it has come back
        to the tapped block: one map of that size at a time, not all of them before the main path begins.
        """
        seen: dict[str, list[Tensor]] = {tap: [] for tap in taps}
        handles = []
        try:
            for tap, calls in seen.items():
                site = self._site(tap, net)
                if self.read == "spikes":
                    handles.append(site.register_forward_hook(partial(_keep_output, calls)))
                else:
                    handles.append(site.register_forward_pre_hook(partial(_keep_input, calls)))
            yield seen
        finally:
            for handle in handles:
                handle.remove()

    def _site(self, tap: str, net: nn.Module | None = None) -> nn.Module:
        """The module to hook: the tap itself or, reading currents, its last LIF."""
        module = (self.net if net is None else net).get_submodule(tap)
        if self.read == "spikes":
            return module
        neurons = [m for m in module.modules() if isinstance(m, LIF)]
        if not neurons:
            raise UsageError(f"read='current' needs a spikeback.LIF inside the tapped module {tap!r}, which has none")
        return neurons[-1]

    def _dry_run(self, example: Tensor | None, unknown: list[str]) -> tuple[dict[str, int], int]:
        """Channels of the unknown taps and the number of classes, from one forward on a copy of the net."""
        if example is None:
            what = f"no channels of {', '.join(unknown)} in feature_info" if unknown else "no num_classes"
            option = "example=<one input batch>" if unknown else "num_classes=... or example=<one input batch>"
            raise UsageError(f"{type(self.net).__name__} has {what}: pass {option}")
        state = {id(t): t.detach().clone() for m in self.net.modules() for t in loose_tensors(m)}
        twin = copy.deepcopy(self.net, state)  # hidden state may hang in an autograd graph, which deepcopy refuses
        with torch.no_grad(), torch.random.fork_rng(), self._record(twin, unknown) as seen:
            reset_state(twin)
            main = self._check(first(twin(example)), example)
        return {tap: _time_first(tap, calls, *main.shape[:2]).shape[2] for tap, calls in seen.items()}, main.shape[-1]

    def _check(self, main: Tensor, x: Tensor) -> Tensor:
        """Main logits if they are (T, B, K)."""
        batch = x.shape[1:2] if x.ndim == 5 else x.shape[:2]  # (T, B, F) or pictures: B is one of the first two
        if main.ndim == 3 and main.shape[1] in batch:
            if self.num_classes not in (None, main.shape[2]):
                raise UsageError(f"num_classes is {self.num_classes}, but the logits have {main.shape[2]} classes")
            return main
        raise UsageError(
            f"{type(self.net).__name__} returned logits of shape {tuple(main.shape)} for an input {tuple(x.shape)}, "
            "ShortcutNet needs (T, B, K): wrap a net that takes one time step at a time in "
            "spikeback.Unrolled(net, time_steps), one "
            "that has averaged over time, (B, K), in spikeback.TimeAveraged(net)"
        )


def _keep_output(calls: list[Tensor], _module: nn.Module, _input: Any, output: Any) -> None:
    calls.append(_pooled(first(output)))


def _keep_input(calls: list[Tensor], _module: nn.Module, args: Any) -> None:
    calls.append(_pooled(first(args)))


def _pooled(z: Tensor) -> Tensor:
    """Means over height and width: (T, B, C, H, W) -> (T, B, C), (N, C, H, W) -> (N, C); others as they are."""
    if z.ndim == 4:
        return firing_rates(z.unsqueeze(0)).squeeze(0)
    return firing_rates(z) if z.ndim == 5 else z


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
            raise UsageError(f"no module {name!r}; choose from {_names(net)}")
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


def _time_first(tap: str, calls: list[Tensor], steps: int, batch: int) -> Tensor:
    """What a tap put out, pooled, in one forward of T steps and B samples, as (T, B, C, ...)."""
    if len(calls) == 1:
        (z,) = calls
        if z.ndim == 3 and z.shape[1] == batch and (steps == 1 or z.shape[0] in (steps, 1)):
            return z
        if z.shape[0] == batch and steps == 1:
            return z.unsqueeze(0)
        if z.shape[0] == steps * batch:
            return z.unflatten(0, (steps, batch))
    elif calls and all(z.shape[0] == batch for z in calls) and (len(calls) == steps or steps == 1):
        return torch.stack(calls)
    shapes = f"{len(calls)} calls, pooled shape {tuple(calls[0].shape)}" if calls else "no call"
    raise UsageError(
        f"tap {tap!r}: {shapes}, but the logits have T = {steps}, B = {batch}; a tap is called once with "
        "(T, B, C, ...) or (T*B, C, ...), or T times with (B, C, ...)"
    )


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
