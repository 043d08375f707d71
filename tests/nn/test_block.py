"""The residual block of Eq. 5: o = g(f(x) + x), the neuron after the addition."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikeback as sb


def last_neuron(block: nn.Module) -> nn.Module:
    return [m for m in block.modules() if isinstance(m, sb.LIF)][-1]


def record(module: nn.Module, seen: list[tuple[Tensor, Tensor]]) -> None:
    def hook(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        seen.append((inputs[0], output))

    module.register_forward_hook(hook)


def test_every_block_and_stage_puts_out_spikes(make_net: Callable[..., Any], images: Tensor) -> None:
    net = make_net()
    outputs: list[tuple[Tensor, Tensor]] = []
    for info in net.feature_info:
        record(net.get_submodule(info["module"]), outputs)
    net(images)
    assert len(outputs) == 12
    for _, spikes in outputs:
        assert set(spikes.unique().tolist()) <= {0.0, 1.0}


def test_with_a_silent_residual_path_the_neuron_sees_the_block_input(make_net: Callable[..., Any]) -> None:
    net = make_net()
    block = net.get_submodule("layer1.0")  # its shortcut is the identity
    for norm in (m for m in block.modules() if hasattr(m, "running_mean")):
        nn.init.zeros_(norm.weight)
        nn.init.zeros_(norm.bias)
    outside: list[tuple[Tensor, Tensor]] = []
    inside: list[tuple[Tensor, Tensor]] = []
    record(block, outside)
    record(last_neuron(block), inside)
    net(torch.randn(2, 3, 8, 8))
    (block_input, block_output), (current, spikes) = outside[0], inside[0]
    assert block_input.count_nonzero() > 0
    assert torch.equal(current.flatten(), block_input.flatten())
    assert torch.equal(spikes.flatten(), block_output.flatten())


@pytest.mark.parametrize("name", ["layer2.0", "layer3.0", "layer4.0"])
def test_a_block_that_changes_shape_projects_its_shortcut(make_net: Callable[..., Any], name: str) -> None:
    kernels = [m.kernel_size for m in make_net().get_submodule(name).modules() if isinstance(m, nn.Conv2d)]
    assert sorted(kernels) == [(1, 1), (3, 3), (3, 3)]


def test_a_block_has_two_neurons_and_none_on_its_shortcut(make_net: Callable[..., Any]) -> None:
    net = make_net()
    for info in (i for i in net.feature_info if i["kind"] == "block"):
        block = net.get_submodule(info["module"])
        assert sum(isinstance(m, sb.LIF) for m in block.modules()) == 2
