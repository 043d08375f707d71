"""Theory of the gradient's gain: exact for neurons, true on average for convolutions, near what networks do."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikeback as sb
from spikeback.doctor.adapters.neurons import spiking_layers
from spikeback.doctor.measure.blocks import block_names
from spikeback.doctor.theory.gain import observe, predict, relu_twin
from spikeback.nn.blocks import Stack
from spikeback.nn.conv import ConvNorm, over_time
from spikeback.nn.norms.td import TdBatchNorm2d

from .cases import K, MemoryNeuron, is_memory_neuron, some_labels
from .gains import SURROGATES, batch, measured, ratios, spiking_net

# Networks


@pytest.mark.parametrize("threshold", [0.5, 1.0])
@pytest.mark.parametrize("surrogate", SURROGATES.values(), ids=SURROGATES)
def test_theory_is_near_what_an_untrained_network_does(surrogate: sb.surrogate.Surrogate, threshold: float) -> None:
    net = spiking_net(neuron=sb.LIF(threshold=threshold, surrogate=surrogate))
    assert all(0.85 < r < 1.18 for r in ratios(net, *batch(), block_names(net)))


@pytest.mark.parametrize(("name", "size"), [("spiking_vgg11", 32), ("spiking_resnet20", 28)])
def test_theory_knows_our_other_networks(name: str, size: int) -> None:
    net = spiking_net(name)
    assert all(0.85 < r < 1.18 for r in ratios(net, *batch(size), block_names(net)))


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"norm": TdBatchNorm2d(1)}, {"time_steps": 5}, {"stem": "imagenet"}])
def test_theory_knows_other_norms_times_and_stems(options: dict[str, Any]) -> None:
    net = spiking_net(**options)
    assert all(0.85 < r < 1.18 for r in ratios(net, *batch(32), ["layer1.1", "layer2.0", "layer2.1"]))


def test_stages_are_predicted_as_well_as_blocks() -> None:
    net = spiking_net()
    assert all(0.8 < r < 1.25 for r in ratios(net, *batch(), ["layer1", "layer2", "layer3", "layer4"]))


def test_the_derivatives_and_gammas_of_now_count() -> None:
    net = spiking_net()
    x, y = batch()
    blocks = block_names(net)
    record = observe(net, x)
    before = predict(net, record, blocks)
    for lif in (m for m in net.modules() if isinstance(m, sb.LIF)):
        lif.gain.fill_(1.33)
    after = predict(net, record, blocks)
    assert all((after[name] or 0) > 1.33 * (before[name] or 9) for name in blocks)
    gains = measured(net, x, y, blocks)
    assert all(after[name] == pytest.approx(gains[name], rel=0.15) for name in blocks)


class Foreign(nn.Module):
    """A block with the names of SpikingJelly's."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.sn1, self.sn2 = (sb.LIF(surrogate=SURROGATES["rectangle"]) for _ in range(2))
        self.downsample = None
        if stride > 1:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        aside = x if self.downsample is None else over_time(self.downsample, x)
        s = self.sn1(over_time(self.bn1, over_time(self.conv1, x)))
        return self.sn2(over_time(self.bn2, over_time(self.conv2, s)) + aside)


class ForeignNet(nn.Module):
    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.stem = Stack(ConvNorm(3, 16, 3, None), sb.LIF())
        self.blocks, self.fc = nn.Sequential(*blocks), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.blocks(self.stem(x[None], time_steps=2)).mean((3, 4)))


def test_theory_knows_blocks_with_the_names_of_spikingjelly() -> None:
    torch.manual_seed(0)
    net = ForeignNet(Foreign(16, 16), Foreign(16, 32, stride=2), Foreign(32, 32))
    assert all(0.85 < r < 1.18 for r in ratios(net, *batch(), ["blocks.0", "blocks.1", "blocks.2"]))


def test_what_theory_does_not_know_has_none_and_the_rest_a_number() -> None:
    torch.manual_seed(0)
    odd = Foreign(16, 32, stride=2)
    vars(odd)["cnf"] = "ADD"
    net = ForeignNet(Foreign(16, 16), odd, Foreign(32, 32))
    gains = predict(net, observe(net, batch()[0]), ["blocks.0", "blocks.1", "blocks.2"])
    assert gains["blocks.1"] is None
    assert gains["blocks.0"] == pytest.approx(1.6, rel=0.15)
    assert gains["blocks.2"] == pytest.approx(1.6, rel=0.15)
    unlike = spiking_net(norm=nn.GroupNorm(4, 16))
    assert set(predict(unlike, observe(unlike, batch()[0]), block_names(unlike)).values()) == {None}


def test_a_block_that_passes_nothing_on_has_gain_zero_and_the_others_theirs() -> None:
    net = spiking_net()
    record = observe(net, batch()[0])
    whole = predict(net, record, block_names(net))
    net.layer3[1].lif2.gain.fill_(0)
    gains = predict(net, record, block_names(net))
    assert gains["layer3.1"] == 0
    assert gains["layer3.0"] == pytest.approx(whole["layer3.0"], rel=0.05)
    assert gains["layer4.0"] == whole["layer4.0"]


def test_observing_leaves_the_network_as_it_was() -> None:
    net = spiking_net().eval()
    before = {name: z.clone() for name, z in net.state_dict().items()}
    observe(net, batch()[0])
    assert not net.training
    assert all(torch.equal(z, before[name]) for name, z in net.state_dict().items())
    assert not any(m._forward_hooks for m in net.modules())


def test_every_channel_and_column_is_sampled() -> None:
    net = spiking_net(width=8)
    record = observe(net, batch(32)[0])
    seen = record.layers["layer1.0.lif1"]
    assert seen.u.shape == seen.spikes.shape == seen.current.shape
    assert seen.u.shape[0] == 2
    assert seen.u.shape[2] == 8
    assert 10_000 < seen.u[0].numel() <= 21_000
    torch.testing.assert_close((seen.u > 0.5).float(), seen.spikes)


# The twin with ReLU


def test_the_relu_twin_is_the_network_with_relu_under_the_same_names() -> None:
    net = spiking_net()
    layers = list(spiking_layers(net))
    twin = relu_twin(net, layers)
    assert twin is not None
    assert [name for name, m in twin.named_modules() if isinstance(m, nn.ReLU)] == layers
    assert not any(isinstance(m, nn.ReLU) for m in net.modules())
    assert all(torch.equal(p, q) and p is not q for p, q in zip(net.parameters(), twin.parameters(), strict=True))
    assert all(0.85 < r < 1.18 for r in ratios(twin, *batch(), block_names(net), twin=True))


def test_the_twin_of_a_network_with_state_in_a_graph() -> None:
    net = spiking_net()
    vars(net.stem[0])["held"] = [torch.ones(1, requires_grad=True) * 2]
    assert relu_twin(net, list(spiking_layers(net))) is not None


class Handwritten(nn.Module):
    """Two layers of neurons whose forward pass does more with them than call them."""

    def __init__(self, reads: bool) -> None:
        super().__init__()
        self.reads = reads
        self.first = nn.Sequential(nn.Linear(6, 8), MemoryNeuron())
        self.second = nn.Sequential(nn.Linear(8, 8), MemoryNeuron())
        self.last = nn.Linear(8, K)

    def forward(self, x: Tensor) -> Tensor:
        for block in (self.first, self.second):
            block[1].reset()  # pyright: ignore[reportCallIssue]
            x = block(x)
            x = x + 0 * block[1].v if self.reads else x  # pyright: ignore[reportOperatorIssue]
        return self.last(x)


@pytest.mark.parametrize("reads", [False, True])
def test_the_twin_of_a_network_that_resets_its_neurons_or_reads_their_state(reads: bool) -> None:
    x, y = torch.rand(3, 16, 6), some_labels(16)
    found = sb.diagnose(Handwritten(reads), x, y, is_spiking=is_memory_neuron).as_dict()
    for block in found["blocks"]:
        assert block["gain"] > 0
        assert (block["relu"] is None) == reads  # ReLU has no membrane to read
