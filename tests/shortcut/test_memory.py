"""What branches add to a training step's peak memory: their pooled rates and logits, no map of a block's size."""

import gc
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.profiler import ProfilerActivity, profile

import spikeback as sb


def peak_bytes(model: sb.ShortcutNet, weight: float) -> int:
    """The most bytes alive at once that one forward and backward pass allocated."""
    x, y = torch.randn(8, 3, 16, 16), torch.arange(8)

    def step() -> None:
        cross_entropy(model(x, weight, per_step=False)[0], y).backward()

    step()
    model.zero_grad(set_to_none=True)  # here: the profiler may take what is freed for a block that it knew before
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        step()
    model.zero_grad(set_to_none=True)
    alive = most = 0
    profiler: Any = record.profiler
    for event in profiler.kineto_results.events():
        if event.name() == "[memory]":
            alive += event.nbytes()
            most = max(most, alive)
    return most


@pytest.mark.slow
def test_branches_take_no_memory_of_a_blocks_size() -> None:
    net = sb.create_model("spiking_resnet34", 10, time_steps=4, width=16)
    model = sb.ShortcutNet(net, "block")
    parameters = 4 * sum(p.numel() for p in model.branches.parameters())
    map_of_a_block = 4 * 4 * 8 * 16 * 16 * 16  # bytes x T B C H W
    added = peak_bytes(model, 0.25) - peak_bytes(model, 0.0)
    assert added < parameters + map_of_a_block / 2
