"""From the first convolution to the last gradient everything lies channels-last: nothing is converted on the way."""

from collections.abc import Callable
from contextlib import nullcontext
from math import prod
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

import spikeback as sb
from spikeback.ops import native

pytestmark = pytest.mark.skipif(not native.available(), reason="no compiled kernels")

COPIES = ("aten::copy_", "aten::clone", "aten::contiguous", "aten::_to_copy")
T, B, SIZE, WIDTH = 3, 5, 16, 8  # T * B = 15 is no number of channels: the first axis tells activations from weights
FRAMES = (T, B, SIZE, SIZE, 3)  # the input, seen channels-last


def copies(net: Callable[[Tensor], Tensor], numbers: int, precision: Any = nullcontext) -> set[tuple[int, ...]]:
    """Shapes of the activations of at least so many numbers that a training step copies, inside any operator."""
    x = torch.randn(T, B, 3, SIZE, SIZE)
    for context in (nullcontext(), profile(activities=[ProfilerActivity.CPU], record_shapes=True)):
        with context as profiler:
            with precision():
                logits = net(x)
            logits.float().square().sum().backward()
    assert profiler is not None
    events = profiler.events() or []
    assert sum(event.name == "aten::convolution_backward" for event in events) > 15
    shapes = {tuple(event.input_shapes[0]) for event in events if event.name in COPIES and event.input_shapes}
    return {shape for shape in shapes if (shape[:1] == (T * B,) or shape[:2] == (T, B)) and prod(shape) >= numbers}


def smallest_activation(net: Any) -> int:
    return T * B * min(f["num_chs"] * (SIZE // f["reduction"]) ** 2 for f in net.feature_info)


def bfloat16() -> torch.autocast:
    return torch.autocast("cpu", dtype=torch.bfloat16)


@pytest.mark.parametrize("name", ["spiking_resnet18", "spiking_resnet20_he"])
@pytest.mark.parametrize("per_step", [True, False])
def test_a_training_step_copies_no_activation(name: str, per_step: bool) -> None:
    net: Any = sb.create_model(name, width=WIDTH)
    assert copies(lambda x: net(x, per_step=per_step), smallest_activation(net)) == {FRAMES}


@pytest.mark.parametrize("per_step", [True, False])
def test_branches_copy_no_activation(per_step: bool) -> None:
    net: Any = sb.create_model("spiking_resnet18", width=WIDTH)
    model = sb.ShortcutNet(net, "block")
    assert copies(lambda x: model(x, 0.5, per_step=per_step), smallest_activation(net)) == {FRAMES}


def test_in_bfloat16_only_the_input_is_converted() -> None:
    net: Any = sb.create_model("spiking_resnet18", width=WIDTH)
    found = copies(net, smallest_activation(net), bfloat16)
    assert found <= {FRAMES, (T * B, 3, SIZE, SIZE)}


class Contiguous(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.contiguous()


def test_a_conversion_would_be_seen() -> None:
    net: Any = sb.create_model("spiking_resnet18", width=WIDTH)
    net.layer4.append(Contiguous())
    assert len(copies(net, smallest_activation(net))) > 1


def test_spikes_of_every_block_are_channels_last() -> None:
    net: Any = sb.create_model("spiking_resnet18", width=WIDTH)
    seen: list[Tensor] = []
    for info in net.feature_info:
        net.get_submodule(info["module"]).register_forward_hook(lambda _, __, output: seen.append(output))
    for x in (torch.randn(B, 3, SIZE, SIZE), torch.randn(T, B, 3, SIZE, SIZE)):
        for training in (True, False):
            net.train(training)(x)
    assert len(seen) == 4 * 12
    assert all(spikes[0].is_contiguous(memory_format=torch.channels_last) for spikes in seen)
