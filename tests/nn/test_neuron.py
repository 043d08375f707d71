"""The LIF layer: the operator with its settings, and nothing remembered."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

import spikeback as sb


def test_layer_is_the_operator_with_its_settings() -> None:
    x, state = torch.randn(4, 2, 3), torch.rand(2, 3)
    layer = sb.LIF(tau=0.5, threshold=1.0, surrogate=sb.surrogate.ATan(2.0), detach_reset=True)
    spikes, after = layer(x, state, return_state=True)
    expected, membrane = sb.lif(x, 0.5, 1.0, sb.surrogate.ATan(2.0), state=state, detach_reset=True)
    assert torch.equal(spikes, expected)
    assert torch.equal(after, membrane)
    assert torch.equal(layer(x, state), expected)


def test_defaults_are_those_of_the_authors_code() -> None:
    layer = sb.LIF()
    assert (layer.tau, layer.threshold, layer.detach_reset) == (0.25, 0.5, False)
    assert layer.surrogate == sb.surrogate.Tanh(k=3.0, normalised=True)


def test_settings_reach_the_gradient() -> None:
    x = torch.randn(3, 50)
    for detach_reset in (False, True):
        by_layer, by_hand = x.clone().requires_grad_(), x.clone().requires_grad_()
        sb.LIF(surrogate=sb.surrogate.Triangle(1.5), detach_reset=detach_reset)(by_layer).sum().backward()
        sb.lif(by_hand, 0.25, 0.5, sb.surrogate.Triangle(1.5), detach_reset=detach_reset)[0].sum().backward()
        assert by_layer.grad is not None
        assert by_hand.grad is not None
        assert torch.equal(by_layer.grad, by_hand.grad)


def test_nothing_is_remembered_between_calls() -> None:
    layer, x = sb.LIF(), torch.randn(4, 2, 3)
    first = layer(x)
    layer(torch.randn(4, 7, 3))  # another batch size needs no reset either
    assert torch.equal(layer(x), first)


def test_gain_is_a_buffer_saved_with_the_layer() -> None:
    layer, other = sb.LIF(), sb.LIF()
    assert set(layer.state_dict()) == {"gain"}
    assert layer.state_dict()["gain"] == 1.0
    assert not list(layer.parameters())
    layer.gain.fill_(2.5)
    other.load_state_dict(layer.state_dict())
    assert other.gain == 2.5


def test_gain_of_the_layer_multiplies_the_derivative() -> None:
    plain, gained = sb.LIF(), sb.LIF()
    gained.gain.fill_(2.0)
    x = torch.randn(1, 100)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    plain(a).sum().backward()
    gained(b).sum().backward()
    assert a.grad is not None
    assert b.grad is not None
    assert a.grad.count_nonzero() > 0
    assert torch.equal(2 * a.grad, b.grad)


def test_copy_is_independent() -> None:
    layer = sb.LIF(tau=0.5)
    twin = copy.deepcopy(layer)
    twin.gain.fill_(3.0)
    assert (twin.tau, layer.gain.item()) == (0.5, 1.0)


def test_settings_can_be_read_in_the_printout() -> None:
    text = str(sb.LIF(tau=0.125, threshold=0.75, surrogate=sb.surrogate.Triangle(1.3)))
    assert all(part in text for part in ("0.125", "0.75", "Triangle", "1.3"))


@pytest.mark.parametrize("reset", ["hard", "soft"])
@pytest.mark.parametrize("detach_reset", [False, True])
def test_a_threshold_that_is_learnt_gets_its_gradient(reset: Any, detach_reset: bool) -> None:
    class Learnt(sb.nn.Neuron):
        def charge(self, v: Tensor, x: Tensor) -> Tensor:
            return 0.5 * v + x

    neuron: Any = Learnt(surrogate=sb.surrogate.Sigmoid(2.0), detach_reset=detach_reset)
    neuron.reset, neuron.threshold = reset, torch.nn.Parameter(torch.tensor(0.6))
    x = torch.randn(4, 3, 5)
    weights = torch.randn(4, 3, 5)
    (weights * neuron(x)).sum().backward()

    threshold, v, loss = torch.tensor(0.6, requires_grad=True), torch.zeros(3, 5), torch.zeros(())
    for x_t, weight in zip(x, weights, strict=True):
        u = 0.5 * v + x_t
        smooth = torch.sigmoid(2.0 * (u - threshold))  # whose derivative the surrogate is
        s = smooth + ((u > threshold).float() - smooth).detach()
        loss = loss + (weight * s).sum()
        r = s.detach() if detach_reset else s
        v = u * (1 - r) if reset == "hard" else u - threshold * r
    loss.backward()
    torch.testing.assert_close(neuron.threshold.grad, threshold.grad)
