"""Residual branches: where they end, and what share of the current they supply."""

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from spikeback.doctor.adapters.neurons import spiking_layers
from spikeback.doctor.measure.case import Case
from spikeback.foreign import first
from spikeback.foreign.undisturbed import entering, listening
from spikeback.nn import BasicBlock, Neuron

NORMS = ("bn3", "bn2", "norm3", "norm2")  # what other libraries call a residual branch's last norm
ASIDE = ("downsample", "shortcut")  # and what they call the other way around it: without one it is no residual block


def residual_norms(net: nn.Module) -> dict[str, Any]:
    """The last norm of every residual branch, by the block's name: our blocks', and those named as torchvision's."""
    found = {}
    for name, module in net.named_modules():
        block: Any = module
        last = block.conv2[1] if isinstance(block, BasicBlock) else None
        if last is None and any(hasattr(block, name) for name in ASIDE):
            last = next((norm for name in NORMS if (norm := getattr(block, name, None)) is not None), None)
        if last is not None and (scaled := scaled_norm(last)) is not None:
            found[name] = scaled
    return found


def scaled_norm(norm: nn.Module) -> Any:
    """The module whose `weight` scales what a norm puts out: the norm itself, or the one batch norm within it."""
    if isinstance(getattr(norm, "weight", None), Tensor):
        return norm
    inner = [m for m in norm.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.weight is not None]
    return inner[0] if len(inner) == 1 else None


def residual_shares(case: Case, branches: dict[str, Any]) -> dict[str, float]:
    """By block, var(branch) / (var(branch) + var(rest)) of the current into the block's last neuron."""
    branch: dict[str, Tensor] = {}
    shares: dict[str, float] = {}

    def compare(block: str, current: Tensor) -> None:
        if (out := branch.pop(block, None)) is not None and out.numel() == current.numel():
            inside, rest = out.var().item(), (current.reshape(out.shape) - out).var().item()
            shares[block] = inside / (inside + rest) if inside + rest > 0 else 0.0

    with torch.no_grad(), ExitStack() as hooks:
        for block, norm in branches.items():
            hooks.enter_context(listening(norm, lambda _, out, block=block: branch.update({block: out.float()})))
            if neurons := [*spiking_layers(case.net.get_submodule(block)).values()]:
                heard = lambda x, block=block: compare(block, first(x).float())
                hooks.enter_context(entering(neurons[-1], heard))
        case.logits()
    return shares


def neurons_in(net: nn.Module, block: str) -> list[Neuron]:
    """The spiking layers of ours of a block."""
    return [module for module in net.get_submodule(block).modules() if isinstance(module, Neuron)]
