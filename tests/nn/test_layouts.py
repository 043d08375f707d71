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
from spikeback.nn.pool import firing_rates
from spikeback.ops import native

pytestmark = pytest.mark.skipif(not native.available(), reason="no compiled kernels")

T, B, SIZE, WIDTH = 3, 5, 16, 8  # T * B = 15 is no number of channels: the first axis tells activations from weights
FRAMES = (T, B, SIZE, SIZE, 3)  # the input, seen channels-last


def copies(net: Callable[[Tensor], Tensor], numbers: int, precision: Any = nullcontext) -> list[tuple[int, ...]]:
    """Shapes of the activations of at least so many numbers that a training step copies, inside any operator.

    Sorted, one for each copy: `clone`, `contiguous` and `to` copy by `copy_`.
    """
    x = torch.randn(T, B, 3, SIZE, SIZE)
    for context in (nullcontext(), profile(activities=[ProfilerActivity.CPU], record_shapes=True)):
        with context as profiler:
            with precision():
                logits = net(x)
            logits.float().square().sum().backward()
    assert profiler is not None
    events = profiler.events() or []
    assert sum(event.name == "aten::convolution_backward" for event in events) > 15
    shapes = [tuple(event.input_shapes[0]) for event in events if event.name == "aten::copy_" and event.input_shapes]
    activations = (shape for shape in shapes if shape[:1] == (T * B,) or shape[:2] == (T, B))
    return sorted(shape for shape in activations if prod(shape) >= numbers)


def smallest_activation(net: Any) -> int:
    return T * B * min(f["num_chs"] * (SIZE // f["reduction"]) ** 2 for f in net.feature_info)


def bfloat16() -> torch.autocast:
    return torch.autocast("cpu", dtype=torch.bfloat16)


def spread(net: Any) -> tuple[int, ...]:
    """The shape of the readout's gradient, one number for each map, which is written out over the map."""
    last = net.feature_info[-1]
    side = SIZE // last["reduction"]
    return (T, B, last["num_chs"], side, side)


@pytest.mark.parametrize("name", ["spiking_resnet18", "spiking_resnet20_he"])
@pytest.mark.parametrize("per_step", [True, False])
@pytest.mark.slow
def test_a_training_step_copies_no_activation(name: str, per_step: bool) -> None:
    net: Any = sb.create_model(name, width=WIDTH)
    assert copies(lambda x: net(x, per_step=per_step), smallest_activation(net)) == sorted([FRAMES, spread(net)])


@pytest.mark.parametrize("per_step", [True, False])
@pytest.mark.slow
def test_branches_copy_no_activation(per_step: bool) -> None:
    net: Any = sb.create_model("spiking_resnet18", width=WIDTH)
    model = sb.ShortcutNet(net, "block")
    assert copies(lambda x: model(x, 0.5, per_step=per_step), smallest_activation(net)) == sorted([FRAMES, spread(net)])


@pytest.mark.slow
def test_in_bfloat16_only_the_input_is_converted() -> None:
    net: Any = sb.create_model("spiking_resnet18", width=WIDTH)
    expected = sorted([FRAMES, (T * B, 3, SIZE, SIZE), spread(net)])
    for model in (net, sb.ShortcutNet(net, "block")):
        assert copies(model, smallest_activation(net), bfloat16) == expected


def test_firing_rates_are_means() -> None:
    for shape in ((2, 3, 5), (2, 3, 5, 7), (2, 3, 5, 4, 4), (2, 3, 5, 40, 30)):
        x = (torch.rand(shape) < 0.3).float()
        exact = x.double().flatten(3).mean(3) if len(shape) > 3 else x.double()
        forms = [x, x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)] if len(shape) == 5 else [x]
        for form in forms:
            for dtype, rtol in ((torch.float32, 1e-6), (torch.bfloat16, 2**-8), (torch.float64, 1e-12)):
                for per_step, expected in ((True, exact), (False, exact.mean(0, keepdim=True))):
                    rates = firing_rates(form.to(dtype), per_step)
                    assert rates.dtype == dtype
                    torch.testing.assert_close(rates.double(), expected, rtol=2 * rtol, atol=0)


class Contiguous(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.contiguous()


@pytest.mark.slow
def test_a_conversion_would_be_seen() -> None:
    net: Any = sb.create_model("spiking_resnet18", width=WIDTH)
    without = copies(net, smallest_activation(net))
    net.layer4.append(Contiguous())
    assert len(copies(net, smallest_activation(net))) > len(without)


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
