"""The theory's parts, each against back-propagation or many random draws: neurons, convolutions, norms, pooling."""

import math
import statistics
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikeback as sb
from spikeback.doctor.adapters.neurons import Neuron
from spikeback.doctor.theory.backward import Record, Way, inside, through_norm
from spikeback.doctor.theory.gain import observe
from spikeback.doctor.theory.jacobian import back_in_time, jacobians, time_map
from spikeback.nn.norms.td import TdBatchNorm2d
from spikeback.nn.pool import Pool
from spikeback.ops.lif.reference import Fire

from .gains import SURROGATES, known

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
