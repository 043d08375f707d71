"""Theory of the gradient's gain: exact for neurons, true on average for convolutions, near what networks do."""

import math
import statistics
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import spikeback as sb
from spikeback.doctor.backward import Record, Way, inside, through_norm
from spikeback.doctor.jacobian import back_in_time, jacobians, time_map
from spikeback.doctor.mean_field import critical_height, fixed_rate, mean_field, population, relu_mean_field
from spikeback.doctor.measure import block_names
from spikeback.doctor.neurons import Neuron, neuron_of, spiking_layers
from spikeback.doctor.theory import RELU, observe, predict, relu_twin
from spikeback.errors import UsageError
from spikeback.nn.block import ConvNorm, Pool, Stack, over_time
from spikeback.nn.norm import TdBatchNorm2d
from spikeback.ops.lif.reference import Fire

SURROGATES = {"triangle": sb.surrogate.Triangle(1.0), "rectangle": sb.surrogate.Rectangle(1.0)}
SURROGATES["tanh"] = sb.surrogate.Tanh(3.0)


def known(lif: sb.LIF) -> Neuron:
    neuron = neuron_of(lif)
    assert neuron is not None
    return neuron


def spiking_net(name: str = "spiking_resnet18", seed: int = 0, **options: Any) -> Any:
    torch.manual_seed(seed)
    defaults: dict[str, Any] = {"time_steps": 2, "width": 16, "neuron": sb.LIF(surrogate=SURROGATES["triangle"])}
    return sb.create_model(name, **(defaults | options))


def batch(size: int = 16, channels: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(10, (32,), generator=generator)
    return torch.randn(32, channels, size, size, generator=generator), labels


def measured(net: nn.Module, x: Tensor, y: Tensor, blocks: list[str]) -> dict[str, float]:
    """||dL/d input|| / ||dL/d output|| of each block."""
    ends: dict[str, tuple[Tensor, Tensor]] = {}

    def keep(name: str) -> Any:
        return lambda _module, args, output: ends.__setitem__(name, (args[0], output))

    hooks = [net.get_submodule(name).register_forward_hook(keep(name)) for name in blocks]
    loss = F.cross_entropy(net.train()(x).mean(0), y)
    for hook in hooks:
        hook.remove()
    power = lambda z: torch.autograd.grad(loss, z, retain_graph=True)[0].norm().item()
    return {name: power(a) / power(o) for name, (a, o) in ends.items() if a.requires_grad}


def ratios(net: nn.Module, x: Tensor, y: Tensor, blocks: list[str], twin: bool = False) -> list[float]:
    """Prediction over measurement."""
    neurons = {name: RELU for name, m in net.named_modules() if isinstance(m, nn.ReLU)} if twin else None
    theory = predict(net, observe(net, x, neurons), blocks)
    gains = measured(net, x, y, blocks)
    assert len(gains) >= len(blocks) - 1
    return [(theory[name] or math.nan) / gain for name, gain in gains.items()]


# Neurons: exact


@pytest.mark.parametrize("detach_reset", [False, True])
@pytest.mark.parametrize("surrogate", SURROGATES.values(), ids=SURROGATES)
def test_the_jacobian_is_that_of_back_propagation(surrogate: sb.surrogate.Surrogate, detach_reset: bool) -> None:
    torch.manual_seed(0)
    lif = sb.LIF(0.5, 0.5, surrogate, detach_reset)
    lif.gain.fill_(1.3)
    current = torch.randn(4, 50, dtype=torch.float64, requires_grad=True)
    spikes = sb.lif(
        current, 0.5, 0.5, surrogate, gain=1.3, detach_reset=detach_reset, backend="reference"
    )[0]  # fmt: skip
    rows = [torch.autograd.grad(s.sum(), current, retain_graph=True)[0] for s in spikes]  # (T: i, N) each
    neuron = replace(known(lif), membrane=lambda c, s: membranes(c, s, 0.5))
    u = neuron.membrane(current.detach(), spikes.detach())
    J = jacobians(u, spikes.detach(), neuron)
    torch.testing.assert_close(J, torch.stack(rows).permute(2, 0, 1), rtol=1e-6, atol=1e-7)


def membranes(current: Tensor, spikes: Tensor, leak: float) -> Tensor:
    """In the precision of the current."""
    u, out = torch.zeros_like(current[0]), []
    for c, s in zip(current, spikes, strict=True):
        u = leak * u + c
        out.append(u)
        u = u * (1 - s)
    return torch.stack(out)


@pytest.mark.parametrize("detach_reset", [False, True])
@pytest.mark.parametrize("reset", ["soft", "none"])
def test_the_jacobian_knows_other_resets_leaks_and_scales(reset: Any, detach_reset: bool) -> None:
    torch.manual_seed(0)
    surrogate, threshold, leak, scale = sb.surrogate.Triangle(1.0), 0.8, 0.6, 0.4
    current = torch.randn(4, 50, dtype=torch.float64, requires_grad=True)
    u, membrane, spikes = torch.zeros(50, dtype=torch.float64), [], []
    for c in current:
        u = leak * u + scale * 3 * c
        s = Fire.apply(u, threshold, surrogate, 1.0)
        membrane.append(u.detach())
        spikes.append(s)
        u = u - threshold * (s.detach() if detach_reset else s) if reset == "soft" else u
    rows = [torch.autograd.grad(s.sum(), current, retain_graph=True)[0] for s in spikes]
    derivative = lambda u: surrogate(u, threshold)
    neuron = Neuron(threshold, leak, 3 * scale, reset, detach_reset, lambda c, s: c, derivative)
    J = jacobians(torch.stack(membrane), torch.stack(spikes).detach(), neuron)
    torch.testing.assert_close(J, torch.stack(rows).permute(2, 0, 1), rtol=1e-9, atol=1e-12)


def test_the_time_map_carries_a_covariance_as_the_jacobians_do() -> None:
    torch.manual_seed(0)
    lif = sb.LIF(surrogate=SURROGATES["rectangle"])
    current = torch.randn(3, 500)
    spikes = lif(current)
    u = known(lif).membrane(current, spikes)
    A = torch.randn(3, 3)
    K = A @ A.T
    J = jacobians(u, spikes, known(lif))
    expected = (J.mT @ K @ J).mean(0)
    M = time_map(u, spikes, known(lif))
    torch.testing.assert_close(torch.einsum("ijts,ts->ij", M, K), expected)
    by_channel = back_in_time(K[None], u[..., None], spikes[..., None], known(lif))
    torch.testing.assert_close(by_channel[0], expected)


def test_the_time_map_of_many_neurons_is_that_of_a_sample() -> None:
    torch.manual_seed(0)
    lif = sb.LIF(surrogate=SURROGATES["tanh"])
    current = torch.randn(2, 100_000)
    spikes = lif(current)
    pair = known(lif).membrane(current, spikes), spikes
    all_of_them = time_map(*pair, known(lif), most=100_000)
    torch.testing.assert_close(time_map(*pair, known(lif)), all_of_them, rtol=0.05, atol=0.02)


# Convolutions, norms, pooling


@pytest.mark.parametrize(("size", "stride", "kernel"), [(9, 1, 3), (9, 2, 3), (2, 1, 3), (8, 2, 1), (3, 2, 7)])
def test_a_random_convolution_passes_on_the_predicted_power(size: int, stride: int, kernel: int) -> None:
    """Of a gradient that is correlated in space as it can be."""
    torch.manual_seed(0)
    powers = []
    conv = nn.Conv2d(24, 32, kernel, stride, padding=kernel // 2, bias=False)
    net = nn.Sequential(conv)
    for _ in range(200):
        nn.init.normal_(conv.weight)
        x = torch.zeros(4, 24, size, size, requires_grad=True)
        y = net(x)
        delta = torch.randn(4, 32, 1, 1).expand_as(y)
        (g,) = torch.autograd.grad(y, x, delta)
        K = delta.square().sum((0, 2, 3))[:, None, None]
        record = Record(sizes={"0": (size, size)})
        powers.append(g.square().sum().item() / Way(net, record).back(net, K).sum().item())
    error = statistics.stdev(powers) / math.sqrt(len(powers))
    assert statistics.mean(powers) == pytest.approx(1, abs=max(4 * error, 0.01))


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_powers_of_channels_follow_their_weights(groups: int) -> None:
    """Exactly, for one pixel."""
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 16, 1, groups=groups, bias=False)
    conv.weight.data = conv.weight.data.double()
    net = nn.Sequential(conv)
    for channel in range(16):
        x = torch.zeros(1, 8, 1, 1, dtype=torch.float64, requires_grad=True)
        delta = torch.eye(16, dtype=torch.float64)[channel]
        (g,) = torch.autograd.grad(conv(x), x, delta[None, :, None, None])
        K = Way(net, Record(sizes={"0": (1, 1)})).back(net, delta[:, None, None].float())
        torch.testing.assert_close(K.flatten().double(), g.flatten().square(), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("options", [{"padding": 1}, {"padding": "same", "dilation": 2}, {"padding": 3, "stride": 2}])
def test_taps_count_for_the_outputs_whose_input_they_see(options: Any) -> None:
    conv = nn.Conv2d(1, 1, 3, bias=False, **options)
    seen = torch.zeros(3, 3)
    for i in range(3):
        for j in range(3):
            nn.init.zeros_(conv.weight)
            conv.weight.data[0, 0, i, j] = 1
            seen[i, j] = conv(torch.ones(1, 1, 5, 4)).mean()
    torch.testing.assert_close(inside(conv, (5, 4)), seen)
    assert inside(nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"), (5, 5)).min() == 1


def test_a_norm_multiplies_by_gamma_over_sigma() -> None:
    torch.manual_seed(0)
    norm = TdBatchNorm2d(5, threshold=0.7, alpha=0.5)
    nn.init.uniform_(norm.weight, 0.5, 2)
    net = nn.Sequential(norm)
    x = torch.randn(2000, 5, 2, 2) * torch.arange(1.0, 6)[:, None, None]
    record = observe(net, x, {})
    torch.testing.assert_close(record.deviations["0"][0], x.transpose(0, 1).flatten(1).std(1), rtol=1e-3, atol=0)
    z = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(net(z), z, delta := torch.randn_like(x))
    by_channel = g.square().sum((0, 2, 3)) / delta.square().sum((0, 2, 3))
    power = through_norm(norm, record.deviations["0"], torch.ones(5, 1, 1))
    torch.testing.assert_close(power.flatten(), by_channel, rtol=0.01, atol=0)


def test_a_norm_that_is_called_at_every_step_has_a_deviation_for_each() -> None:
    norm = nn.BatchNorm2d(2)
    sigma = torch.tensor([[1.0, 2.0], [4.0, 8.0]])
    K = through_norm(norm, sigma, torch.ones(2, 2, 2))
    torch.testing.assert_close(K[1], torch.tensor([[1 / 4, 1 / 16], [1 / 16, 1 / 64]]))


@pytest.mark.parametrize("size", [8, 7])
def test_average_pooling_passes_back_the_predicted_power_whatever_the_correlations(size: int) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(Pool(2, ceil_mode=True))
    x = torch.zeros(1, 400, 3, size, size, requires_grad=True)
    record = observe(net, x, {})
    K = Way(net, record).back(net, torch.ones(3, 1, 1))
    for delta in (torch.ones(1, 400, 3, 4, 4), torch.randn(1, 400, 3, 4, 4)):
        (g,) = torch.autograd.grad(net(x), x, delta)
        assert g.square().sum() / delta.square().sum() == pytest.approx(K.mean().item(), rel=0.05)
    assert size == 7 or K.mean().item() == pytest.approx(1 / 4)


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


# Mean field


def test_mean_field_is_the_measured_ratio_of_a_resnet34() -> None:
    """Triangle of height 1, threshold 0.5, default initialisation: last block to first 6e-4; critical at about 1.3."""
    gain = mean_field(SURROGATES["triangle"], 0.5)
    assert fixed_rate(0.5) == pytest.approx(0.5)
    assert gain == pytest.approx(0.608, abs=1e-3)
    assert gain**15 == pytest.approx(6e-4, rel=0.1)
    assert critical_height(SURROGATES["triangle"], 0.5) == pytest.approx(1.33, abs=0.005)


def test_the_second_moment_of_a_triangle_by_hand() -> None:
    """gain^2 = c h^2 (1 + c h^2 / (V_inner V_x)): c by Simpson's rule, on half the triangle."""
    u = [k / 2000 for k in range(1001)]
    weights = [1, *[4 if k % 2 else 2 for k in range(1, 1000)], 1]
    density = lambda z: math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    c = sum(w * 4 * z * z * (density(z) + density(1 - z)) for w, z in zip(weights, u, strict=True)) / 6000
    quiet = math.erfc(0.5 / math.sqrt(2)) / 2
    for height in (1.0, 1.3):
        expected = math.sqrt(c * height**2 * (1 + c * height**2 / (quiet * (1 - quiet) * 0.25)))
        assert mean_field(SURROGATES["triangle"], 0.5, height=height) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("time_steps", [1, 3])
@pytest.mark.parametrize("surrogate", SURROGATES.values(), ids=SURROGATES)
def test_the_gain_is_one_at_the_critical_height(surrogate: sb.surrogate.Surrogate, time_steps: int) -> None:
    options: dict[str, Any] = {"time_steps": time_steps, "neurons": 20_000}
    height = critical_height(surrogate, 1.0, **options)
    assert mean_field(surrogate, 1.0, height=height, **options) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("threshold", [0.5, 1.0])
@pytest.mark.parametrize("surrogate", SURROGATES.values(), ids=SURROGATES)
@pytest.mark.parametrize("time_steps", [1, 4])
def test_mean_field_is_what_deep_identity_blocks_do(
    surrogate: sb.surrogate.Surrogate, threshold: float, time_steps: int
) -> None:
    net = spiking_net(
        "spiking_resnet34", time_steps=time_steps, neuron=sb.LIF(threshold=threshold, surrogate=surrogate)
    )
    blocks = ["layer3.1", "layer3.2", "layer3.3", "layer3.4"]
    gain = statistics.mean(measured(net, *batch(), blocks).values())
    theory = mean_field(surrogate, threshold, time_steps=time_steps, neurons=20_000)
    assert theory == pytest.approx(gain, rel=0.15)


def test_one_step_simulated_is_one_step_integrated() -> None:
    lif = sb.LIF(surrogate=SURROGATES["triangle"])
    group = population(lif, 1)
    assert group.outer[1].mean() == pytest.approx(0.5, abs=0.01)
    chi = [known(lif).derivative(u).square().mean().item() for u, _ in (group.inner, group.outer)]
    assert math.sqrt(chi[1] * (1 + chi[0] / group.spread)) == pytest.approx(0.608, abs=0.01)


def test_the_gains_of_relu_fall_to_one_and_those_of_its_twin_with_them() -> None:
    theory = relu_mean_field(30)
    x_variance = 0.5 - 0.5 / math.pi
    assert theory[0] == pytest.approx(math.sqrt(0.625 * (1 + 0.5 / x_variance**2)), rel=0.01)
    assert theory == sorted(theory, reverse=True)
    assert 1 < theory[-1] < 1.03
    net = spiking_net(time_steps=1)
    twin = relu_twin(net, list(spiking_layers(net)))
    assert twin is not None
    gains = measured(twin, *batch(), ["layer1.0", "layer1.1"])
    assert list(gains.values()) == pytest.approx(theory[:2], rel=0.15)


def test_mistakes_are_named() -> None:
    with pytest.raises(UsageError, match="time_steps"):
        mean_field(SURROGATES["triangle"], 0.5, time_steps=0)
    with pytest.raises(UsageError, match="no height"):
        critical_height(sb.surrogate.Triangle(1e-9), 0.5)
