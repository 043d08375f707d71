"""Adapters for networks whose logits are not (T, B, K)."""

import inspect
import re
from typing import Any

from torch import Tensor, nn

from spikeback.errors import UsageError
from spikeback.foreign import logits_of, reset_state
from spikeback.foreign.outputs import over_time
from spikeback.inputs import warn_of_batch_first

STATE = re.compile(r"(^|_)(states?|hidden|mem|membrane|syn|spk|hx|h|c|v)(_|\d*$)")  # what an argument for it is called
AXES: dict[type[nn.Module], int] = {nn.Conv1d: 2, nn.Conv2d: 3, nn.Conv3d: 4}  # of one sample that a layer takes


class Unrolled(nn.Module):
    """Run a net that computes one time step a call for T time steps -> logits (T, B, K).

    Hidden state of neurons is reset at the start (`spikeback.register_stateful` registers neurons of your own). State
    that the net returns beside its logits is handed to the next step, if its forward has an argument for it:
    `forward(x, state=None) -> (logits, state)`, as in norse's `SequentialState` and cells.

    Args:
        net: takes (B, ...) and returns (B, K), or a tuple that begins with it. If it returns spikes and membrane
            potentials, both (B, K), the membrane potentials are the logits.
        time_steps: T, how many times an input without time is shown. Frames bring their own T.
        frames: whether inputs are frames (T, B, ...). None asks the net's convolutions, which take samples (B, C, L),
            (B, C, H, W) or (B, C, D, H, W). For a net without convolutions, (T, B, F) and (T, B, C, H, W) are frames.
        hand_on: whether the rest of what the net returns is its state. None decides by the names of forward's
            arguments.

    Raises:
        UsageError: `time_steps` is no whole number of at least 1. In a forward pass: the net does not tell whether
            inputs are frames, or whether the rest of what it returns is its state.
    """

    def __init__(
        self, net: nn.Module, time_steps: int, *, frames: bool | None = None, hand_on: bool | None = None
    ) -> None:
        super().__init__()
        if isinstance(time_steps, bool) or not isinstance(time_steps, int) or time_steps < 1:
            raise UsageError(f"Unrolled: time_steps must be a whole number of at least 1, got {time_steps!r}")
        self.net, self.time_steps, self.frames, self.hand_on = net, time_steps, frames, hand_on

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...), or frames (T, B, ...), time first -> logits (T, B, K).

        A warning says if frames seem to be batch first, (B, T, ...), because their second axis is `time_steps`. It is
        not given if `frames` says what inputs are.
        """
        timed = self.has_time(x)
        if timed and x.ndim > 1 and self.frames is None:
            warn_of_batch_first(x, self.time_steps)
        reset_state(self.net)
        names, needed = _state_arguments(self.net)
        outputs, state = [], (None,) * needed
        for x_t in x if timed else x.expand(self.time_steps, *x.shape):
            output = self.net(x_t, *state)
            outputs.append(output)
            state = self._state(names, output) or state
        return logits_of(over_time(outputs))

    def has_time(self, x: Tensor) -> bool:
        """Whether the first axis of an input counts time steps."""
        if self.frames is not None:
            return self.frames
        sample = {axes for kind, axes in AXES.items() for module in self.net.modules() if isinstance(module, kind)}
        if len(sample) > 1:
            raise UsageError(
                f"Unrolled: {type(self.net).__name__} has convolutions over different numbers of axes, so an input of "
                f"shape {tuple(x.shape)} may be frames or not: say Unrolled(..., frames=True) or frames=False"
            )
        axes = x.ndim - sample.pop() if sample else 0
        return axes == 2 if axes in (1, 2) else x.ndim in (3, 5)

    def _state(self, names: list[str], output: Any) -> tuple[Any, ...] | None:
        """What the next step gets besides its input."""
        if self.hand_on is False or not names or not isinstance(output, tuple | list) or len(output) < 2:
            return None
        if not self.hand_on and not all(STATE.search(name) for name in names):
            raise UsageError(
                f"Unrolled: {type(self.net).__name__} returns more than its logits, and its forward has arguments "
                f"{', '.join(names)}: say Unrolled(..., hand_on=True) if these are its state, else hand_on=False"
            )
        if len(output) == len(names):  # a recurrent neuron of snnTorch takes its spikes as well
            return tuple(output)
        return tuple(output[1:]) if len(output) <= len(names) + 1 else None


def _state_arguments(net: nn.Module) -> tuple[list[str], int]:
    """Arguments of a net's forward besides its input that may be its state, and how many of them must be given.

    These are the arguments without a default, and those whose default is None.
    """
    if getattr(net, "init_hidden", False):  # a neuron of snnTorch that keeps its state itself
        return [], 0
    parameters = [*inspect.signature(net.forward).parameters.values()][1:]
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    found = [p for p in parameters if p.kind in positional and (p.default is None or p.default is p.empty)]
    return [p.name for p in found], len([p for p in found if p.default is p.empty])


class TimeAveraged(nn.Module):
    """Wrap a net that returns logits (B, K), already averaged over time: they become (1, B, K)."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Whatever the net takes -> logits (1, B, K)."""
        return logits_of(over_time([self.net(x)]))
