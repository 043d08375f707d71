"""Batch norm takes one mean and one variance a channel over (T, B, H, W)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def channels_last(x: Tensor) -> Tensor:
    """(..., C, H, W) -> (N, C)"""
    return x.movedim(-3, -1).flatten(0, -2)


def calls_of_norms(net: nn.Module, x: Tensor) -> dict[str, list[tuple[Tensor, Tensor]]]:
    calls: dict[str, list[tuple[Tensor, Tensor]]] = {}
    norms = {name: m for name, m in net.named_modules() if hasattr(m, "running_mean")}
    for name, norm in norms.items():
        calls[name] = []
        norm.register_forward_hook(lambda _, inputs, output, name=name: calls[name].append((inputs[0], output)))
    net(x)
    return calls


def test_statistics_are_taken_over_time_and_batch_together(make_net: Callable[..., Any]) -> None:
    frames = torch.randn(3, 4, 3, 16, 16) * torch.tensor([0.1, 1.0, 5.0]).view(3, 1, 1, 1, 1)  # steps differ widely
    net = make_net().double()
    calls = calls_of_norms(net, frames.double())
    assert len(calls) == 20  # one for each of 17 convolutions in the blocks and stem, and of 3 shortcuts
    for name, seen in calls.items():
        (x, y), count = seen[0], len(seen)
        assert count == 1, name
        x, y = channels_last(x), channels_last(y)
        eps = net.get_submodule(name).eps
        expected = (x - x.mean(0)) / (x.var(0, correction=0) + eps).sqrt()
        torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-9)


def test_running_statistics_are_shared_by_all_time_steps(make_net: Callable[..., Any]) -> None:
    net = make_net()
    for name, buffer in net.named_buffers():
        if name.endswith("running_mean"):
            assert buffer.dim() == 1, name
