"""Adapters for networks whose logits are not (T, B, K), and the reset of hidden neuron state."""

import inspect
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from spikeback.errors import UsageError

RESETS = ("reset", "reset_mem", "reset_hidden", "reset_states")  # SpikingJelly; snnTorch, old and new; sinabs


def first(output: object) -> Tensor:
    """The tensor of an output: itself, or the first item of a tuple or list (snnTorch returns spikes and membrane)."""
    while isinstance(output, tuple | list) and output:
        output = output[0]
    if not isinstance(output, Tensor):
        raise UsageError(f"expected a tensor (or a tuple that begins with one), got {type(output).__name__}")
    return output


def reset_state(net: nn.Module) -> None:
    """Forget hidden neuron state: call every module's `reset()`, `reset_mem()`, `reset_hidden()` or `reset_states()`.

    Only methods that need no argument count, and none of a module that also has `reset_parameters` (there `reset` may
    mean the weights). Our own neurons keep no state.
    """
    for module in net.modules():
        if hasattr(module, "reset_parameters"):
            continue
        for name in RESETS:
            method = getattr(module, name, None)
            if callable(method) and not required(method):
                method()


def loose_tensors(module: nn.Module) -> Iterator[Tensor]:
    """Tensors a module holds outside parameters and buffers: hidden state, one level of dict or list deep."""
    for value in vars(module).values():
        items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
        yield from (t for t in items if isinstance(t, Tensor) and not t.is_leaf)


def required(method: object) -> list[str]:
    """Names of the arguments that a call must give."""
    parameters = inspect.signature(method).parameters.values()  # pyright: ignore[reportArgumentType]
    return [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


class Unrolled(nn.Module):
    """A net that takes one time step at a time, run for T steps -> logits (T, B, K).

    Hidden state is forgotten at the start, by the methods that `reset_state` knows; neurons with other ways need one.
    Pictures (B, C, H, W) or features (B, F) are shown for `time_steps`; frames (T, B, C, H, W) or spikes (T, B, F)
    bring their own T.
    """

    def __init__(self, net: nn.Module, time_steps: int) -> None:
        super().__init__()
        if time_steps < 1:
            raise UsageError(f"Unrolled: time_steps must be at least 1, got {time_steps}")
        self.net, self.time_steps = net, time_steps

    def forward(self, x: Tensor) -> Tensor:
        reset_state(self.net)
        frames = x if x.ndim in (3, 5) else x.expand(self.time_steps, *x.shape)
        return torch.stack([first(self.net(x_t)) for x_t in frames])


class TimeAveraged(nn.Module):
    """A net that returns (B, K), already averaged over time: its logits become (1, B, K)."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return first(self.net(x)).unsqueeze(0)
