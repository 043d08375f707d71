"""What a diagnosis says of the neurons is what counting by hand says: rates, silence, derivatives, membranes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import spikeback as sb
from spikeback.ops.surrogate import Surrogate

from .cases import (
    Chain,
    K,
    MemoryNeuron,
    account,
    block_names,
    found_blocks,
    is_memory_neuron,
    lifs,
    replay,
    smooth_images,
    some_labels,
)

MakeNet = Callable[..., Any]
TAU, THRESHOLD = 0.25, 0.75
FEW = 2e-3  # of the neurons may lie on the other side of a bound by rounding: membranes are float32
S = sb.surrogate


def diagnosed(net: Any, x: Tensor, y: Tensor) -> tuple[dict[str, dict], dict[str, Tensor], dict[str, Tensor]]:
    """The layers of a diagnosis by name, and their currents and spikes as hooks of our own see them."""
    found = sb.diagnose(net, x, y, passes=()).as_dict()
    truth = account(net, x, y, [b["name"] for b in found["blocks"]])
    return {layer["name"]: layer for layer in found["layers"]}, truth.currents, truth.spikes


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize(
    "surrogate",
    [S.Triangle(1.3), S.Rectangle(0.8), S.Tanh(3.0), S.Tanh(1.5, False), S.Sigmoid(4.0), S.ATan(2.0)],
    ids=str,
)
def test_layers_against_a_replay_of_eq_1_and_2(make_net: MakeNet, surrogate: Surrogate, detach: bool) -> None:
    net = make_net(neuron=sb.LIF(TAU, THRESHOLD, surrogate, detach_reset=detach)).double()
    x, y = smooth_images(8, dtype=torch.float64), some_labels(8)
    layers, currents, spikes = diagnosed(net, x, y)
    assert list(layers) == [name for name, m in net.named_modules() if isinstance(m, sb.LIF)]
    peak = surrogate(torch.tensor(THRESHOLD, dtype=torch.float64), THRESHOLD).item()
    bounded = not isinstance(surrogate, S.Sigmoid | S.ATan) and surrogate != S.Tanh(1.5, False)
    for name, layer in layers.items():
        u, s = replay(currents[name], TAU, THRESHOLD), spikes[name]
        assert torch.equal(s, (u > THRESHOLD).double())
        g = surrogate(u, THRESHOLD)
        assert layer["threshold"] == THRESHOLD
        assert layer["rate"] == pytest.approx(s.mean().item(), abs=1e-6)
        assert layer["rate_by_step"] == pytest.approx(s.flatten(1).mean(1).tolist(), abs=1e-6)
        assert layer["silent"] == pytest.approx((s.amax((0, 1)) == 0).double().mean().item(), abs=1e-6)
        assert layer["saturated"] == pytest.approx((s.amin((0, 1)) == 1).double().mean().item(), abs=1e-6)
        assert layer["derivative"] == pytest.approx(g.mean().item(), rel=FEW)
        assert layer["second_moment"] == pytest.approx(g.square().mean().item(), rel=FEW)
        active = (g > (0 if bounded else 0.01 * peak)).double().mean().item()
        assert layer["active"] == pytest.approx(active, abs=FEW)
        assert layer["current_mean"] == pytest.approx(currents[name].mean().item(), abs=1e-4)
        assert layer["current_std"] == pytest.approx(currents[name].std().item(), rel=1e-3)


def test_layers_know_their_block(make_net: MakeNet) -> None:
    net = make_net()
    found = sb.diagnose(net, smooth_images(8), some_labels(8), passes=()).as_dict()
    blocks = {layer["name"]: layer["block"] for layer in found["layers"]}
    for name in block_names(net):
        assert blocks[f"{name}.lif1"] == blocks[f"{name}.lif2"] == name
    assert blocks["stem.0"] in (None, "stem")


def test_a_blocks_figures_lie_among_its_layers(make_net: MakeNet) -> None:
    found = sb.diagnose(make_net(), smooth_images(8), some_labels(8), passes=()).as_dict()
    for block in found["blocks"]:
        inside = [layer for layer in found["layers"] if layer["block"] == block["name"]]
        for key in ("rate", "silent", "saturated", "active", "derivative", "second_moment"):
            values = [layer[key] for layer in inside]
            assert min(values) - 1e-6 <= block[key] <= max(values) + 1e-6, key
        assert len(block["rate_by_step"]) == found["time_steps"]


def test_silent_and_saturated_by_construction() -> None:
    """Of 10 neurons 3 never fire, 2 fire at every step of every sample, 5 fire in one half of the samples."""
    net = Chain(10, 10, 10, steps=3)
    with torch.no_grad():
        for layer in (net.first, net.second):
            layer.get_submodule("0").weight.copy_(torch.eye(10))  # pyright: ignore
    x = torch.zeros(8, 10)
    x[:, 3:5] = 1.0
    x[:4, 5:] = 1.0
    found = sb.diagnose(net, x, some_labels(8, 2), blocks=["first", "second"], passes=()).as_dict()
    for entry in (*found["blocks"], *found["layers"]):
        assert entry["silent"] == pytest.approx(0.3)
        assert entry["saturated"] == pytest.approx(0.2)
        assert entry["rate"] == pytest.approx(0.2 + 0.5 * 0.5)
        assert entry["rate_by_step"] == pytest.approx([0.45] * 3)


def test_half_the_silent_neurons_would_fire_without_leak() -> None:
    """One sample, four steps of current .3, .2, .05 and .6 at tau = 0, V_th = 1/2: sums 1.2, .8, .2, 2.4."""
    net = Chain(4, 4, 4, steps=4, neuron=sb.LIF(0.0, 0.5, S.Triangle(1.0)))
    with torch.no_grad():
        for layer in (net.first, net.second):
            layer.get_submodule("0").weight.copy_(torch.eye(4))  # pyright: ignore
    x = torch.tensor([[0.3, 0.2, 0.05, 0.6]])
    found = sb.diagnose(net, x, torch.tensor([0]), blocks=["first", "second"], passes=()).as_dict()
    first, second = found["layers"]
    assert (first["silent"], first["fires_without_leak"]) == pytest.approx((0.75, 0.75))
    assert (second["silent"], second["fires_without_leak"]) == pytest.approx((0.75, 0.25))


def test_membrane_histogram(make_net: MakeNet) -> None:
    """Edges in units of the threshold; what lies outside -2 ... 4 may be left out or counted in the last bins."""
    net = make_net(neuron=sb.LIF(TAU, THRESHOLD)).double()
    layers, currents, _ = diagnosed(net, smooth_images(8, dtype=torch.float64), some_labels(8))
    for name, layer in layers.items():
        edges, density = np.array(layer["membrane"]["edges"]), np.array(layer["membrane"]["density"])
        assert (edges[0], edges[-1], len(edges)) == (-2.0, 4.0, len(density) + 1)
        assert np.allclose(np.diff(edges), edges[1] - edges[0])
        u = (replay(currents[name], TAU, THRESHOLD) / THRESHOLD).flatten().numpy()
        left_out, clipped = np.histogram(u, edges)[0], np.histogram(u.clip(-2, 4), edges)[0]
        share = density / density.sum()
        assert any(np.abs(share - counts / counts.sum()).max() < FEW for counts in (left_out, clipped)), name


def test_gain_enters_the_derivative(make_net: MakeNet) -> None:
    net, x, y = make_net().double(), smooth_images(8, dtype=torch.float64), some_labels(8)
    before, *_ = diagnosed(net, x, y)
    for lif in lifs(net):
        lif.gain.fill_(2.0)
    after, *_ = diagnosed(net, x, y)
    for name in before:
        assert after[name]["derivative"] == pytest.approx(2 * before[name]["derivative"], rel=1e-5)
        assert after[name]["second_moment"] == pytest.approx(4 * before[name]["second_moment"], rel=1e-5)
        assert after[name]["active"] == pytest.approx(before[name]["active"], abs=1e-6)


def test_packed_or_plain_the_rates_are_the_same(make_net: MakeNet) -> None:
    net, x, y = make_net(), smooth_images(8), some_labels(8)
    figures = found_blocks(sb.diagnose(net, x, y, passes=()))
    with sb.nn.plain():
        plain = found_blocks(sb.diagnose(net, x, y, passes=()))
    for name in figures:
        assert figures[name]["rate"] == pytest.approx(plain[name]["rate"], abs=FEW)


class Foreign(nn.Module):
    """Frames (T, B, F) -> (T, B, K) through neurons of no known framework."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Linear(6, 8, bias=False), MemoryNeuron())
        self.deep = nn.Sequential(nn.Linear(8, 8, bias=False), MemoryNeuron())
        self.fc = nn.Linear(8, K)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.deep(self.enter(x)))


def test_neuron_known_by_a_predicate_only() -> None:
    """Gradients and spikes are measured from a forgotten state; what needs the neuron's equations is null."""
    net, x, y = Foreign().double(), 2 * torch.rand(3, 8, 6, dtype=torch.float64), some_labels(8)
    with torch.no_grad():
        net(x)  # leaves a membrane behind
    found = sb.diagnose(net, x, y, is_spiking=is_memory_neuron, blocks=["enter", "deep"]).as_dict()
    truth = account(net, x, y, ["enter", "deep"])
    for block in found["blocks"]:
        assert block["gradient"] == pytest.approx(truth.gradients[block["name"]].norm().item(), rel=1e-5)
    assert [layer["name"] for layer in found["layers"]] == ["enter.1", "deep.1"]
    for layer in found["layers"]:
        spikes = truth.spikes[layer["name"]]
        assert layer["rate"] == pytest.approx(spikes.mean().item(), abs=1e-6)
        assert layer["rate_by_step"] == pytest.approx(spikes.flatten(1).mean(1).tolist(), abs=1e-6)
        assert layer["derivative"] is None
        assert layer["active"] is None
