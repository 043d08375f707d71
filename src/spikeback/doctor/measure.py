"""Measurements of one network on one batch. Parameters, their gradients, buffers and mode stay as they were."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from spikeback.nn import LIF
from spikeback.shortcut.adapt import first


def block_gradients(net: nn.Module, blocks: list[str], loss: Callable[[], Tensor]) -> dict[str, float]:
    """Norm of dL/d(block output) for each named block of `net`, in training mode.

    Args:
        net: the network whose modules are named.
        blocks: dotted module names, in network order.
        loss: computes the scalar loss by calling `net` once.
    """
    outputs: list[Tensor] = []
    with undisturbed(net), torch.enable_grad(), ExitStack() as hooks:
        net.train()
        for name in blocks:
            hooks.enter_context(recorded(net.get_submodule(name), outputs))
        grads = torch.autograd.grad(loss(), outputs, allow_unused=True)
    norms = [0.0 if g is None else g.float().norm().item() for g in grads]
    return dict(zip(blocks, norms, strict=True))


def block_names(net: Any) -> list[str]:
    """The residual blocks (layers of a VGG) by dotted name, in network order, from `feature_info`."""
    return [entry["module"] for entry in net.feature_info if entry["kind"] == "block"]


def firing_rate(net: nn.Module, x: Tensor) -> float:
    """Spikes per neuron and time step, averaged over the `LIF` layers of `net` in evaluation mode."""
    spikes: list[Tensor] = []
    with undisturbed(net), torch.no_grad(), ExitStack() as hooks:
        net.eval()
        for module in net.modules():
            if isinstance(module, LIF):
                hooks.enter_context(recorded(module, spikes))
        net(x)
    rates = [s.float().mean().item() for s in spikes]
    return sum(rates) / len(rates) if rates else 0.0


@contextmanager
def recorded(module: nn.Module, outputs: list[Tensor]) -> Iterator[None]:
    """Append what `module` puts out to `outputs`, at every call, while the context lasts."""

    def keep(_module: nn.Module, _input: Any, output: Any) -> None:
        outputs.append(first(output))

    handle = module.register_forward_hook(keep)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def undisturbed(net: nn.Module) -> Iterator[None]:
    """Put every module's buffers and mode back afterwards."""
    buffers = {name: b.clone() for name, b in net.named_buffers()}
    modes = [(m, m.training) for m in net.modules()]
    try:
        yield
    finally:
        with torch.no_grad():
            for name, b in net.named_buffers():
                b.copy_(buffers[name])
        for module, training in modes:
            module.training = training
