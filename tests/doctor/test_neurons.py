"""Which modules spike, and the membrane and the derivative of each, checked against what it really did."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikeback as sb
from spikeback.doctor.adapters.neurons import neuron_of, spiking_layers
from spikeback.ops.lif import plain

T, B, N = 6, 5, 40
SURROGATES = [sb.surrogate.Triangle(1.3), sb.surrogate.Rectangle(), sb.surrogate.Tanh(), sb.surrogate.ATan()]


def current() -> Tensor:
    return 1.5 * torch.randn(T, B, N)


def known(module: nn.Module) -> Any:
    neuron = neuron_of(module)
    assert neuron is not None
    return neuron


@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize("tau", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("backend", ["plain", "fastest"])
def test_our_membrane_gives_the_spikes(surrogate: Any, tau: float, backend: str) -> None:
    lif, x = sb.LIF(tau, 0.7, surrogate), current()
    if backend == "plain":
        with plain():
            spikes = lif(x)
    else:
        spikes = lif(x)
    u = known(lif).membrane(x, spikes)
    assert torch.equal(u > lif.threshold, spikes.bool())
    assert 0 < spikes.mean() < 1


def test_our_membrane_is_float32_and_outside_of_the_graph() -> None:
    lif, x = sb.LIF(), current().bfloat16().requires_grad_()
    spikes = lif(x)
    u = known(lif).membrane(x, spikes)
    assert u.dtype == torch.float32
    assert not u.requires_grad
    assert torch.equal(u > lif.threshold, spikes.bool())


@pytest.mark.parametrize("surrogate", SURROGATES)
def test_our_derivative_is_that_of_the_backward_pass(surrogate: Any) -> None:
    lif, x = sb.LIF(0.25, 0.7, surrogate), current()[:1].requires_grad_()
    lif.gain.fill_(1.7)
    (grad,) = torch.autograd.grad(lif(x).sum(), x)  # one step from rest: u = x
    assert torch.allclose(known(lif).derivative(x), grad, rtol=1e-5, atol=1e-6)


def test_our_gain_is_read_when_it_is_used() -> None:
    lif, u = sb.LIF(), current()
    derivative = known(lif).derivative
    before = derivative(u)
    lif.gain.fill_(2.0)
    assert torch.equal(derivative(u), 2 * before)


def test_what_is_known_of_ours() -> None:
    neuron = known(sb.LIF(0.3, 0.8, detach_reset=True))
    assert (neuron.threshold, neuron.leak, neuron.scale) == (0.8, 0.3, 1.0)
    assert (neuron.reset, neuron.detach_reset) == ("hard", True)


def test_spiking_layers_of_ours(make_net: Callable[..., Any]) -> None:
    names = list(spiking_layers(make_net()))
    assert names[:3] == ["stem.0", "layer1.0.lif1", "layer1.0.lif2"]
    assert len(names) == 17


def test_a_predicate_adds_layers_of_which_nothing_is_known() -> None:
    class Mine(nn.Sequential):
        pass

    net = nn.Sequential(sb.LIF(), Mine(sb.LIF(), nn.ReLU()), nn.ReLU())
    assert list(spiking_layers(net)) == ["0", "1.0"]
    layers = spiking_layers(net, lambda m: isinstance(m, Mine))
    assert list(layers) == ["0", "1"]  # the one inside is part of it
    assert neuron_of(layers["1"]) is None


def test_a_layer_registered_twice_counts_once() -> None:
    lif = sb.LIF()
    assert list(spiking_layers(nn.Sequential(lif, nn.Sequential(lif), sb.LIF()))) == ["0", "2"]
    assert list(spiking_layers(lif)) == [""]


def foreign(module: str, *names: str) -> Any:
    """A neuron of a framework that need not be installed: a class of the name last given, derived from the others."""
    kind: type = nn.Module
    for name in names:
        kind = type(name, (kind,), {"__module__": module})
    return kind()


def jelly(*names: str) -> Any:
    node = foreign("spikingjelly.activation_based.neuron", "BaseNode", *names)
    node.v_threshold, node.v_reset, node.tau, node.decay_input, node.detach_reset = 0.7, 0.0, 4.0, True, True
    node.surrogate_function = torch.nn.functional.hardtanh  # derivative 1 within 1 of the threshold
    return node


def test_a_framework_is_recognised_by_its_names() -> None:
    neuron = known(jelly("LIFNode"))
    assert (neuron.threshold, neuron.leak, neuron.scale) == (0.7, 0.75, 0.25)
    assert (neuron.reset, neuron.detach_reset) == ("hard", True)
    assert neuron.derivative(torch.tensor([-0.4, 0.0, 1.6, 1.8])).tolist() == [0, 1, 1, 0]
    x, s = torch.tensor([4.0, 4.0, 4.0]), torch.tensor([0.0, 1.0, 0.0])
    assert neuron.membrane(x, s).tolist() == [1.0, 1.75, 1.0]  # the spikes that are given count


def test_a_users_subclass_is_its_neuron_and_another_kind_is_not() -> None:
    mine = jelly("LIFNode")
    mine.__class__ = type("Mine", (type(mine),), {})
    assert list(spiking_layers(nn.Sequential(mine, jelly("LIFNode", "KLIFNode")))) == ["0", "1"]
    assert known(mine).leak == 0.75
    assert neuron_of(jelly("LIFNode", "KLIFNode")) is None


def test_a_neuron_of_another_version_or_with_many_thresholds_is_spiking_but_not_known() -> None:
    old, many = foreign("snntorch", "SpikingNeuron", "Leaky"), jelly("LIFNode")
    many.v_threshold = torch.tensor([0.5, 0.6])
    assert list(spiking_layers(nn.Sequential(old, many))) == ["0", "1"]
    assert neuron_of(old) is None
    assert neuron_of(many) is None


def test_what_puts_out_a_membrane_does_not_spike() -> None:
    leaky = foreign("sinabs.layers.exp_leak", "StatefulLayer", "LIF", "ExpLeak")
    leaky.does_spike = False
    net = nn.Sequential(foreign("norse.torch", "SNNCell", "LICell"), leaky, foreign("spikingjelly", "Linear"))
    assert spiking_layers(net) == {}


def test_a_function_without_derivative_has_derivative_zero() -> None:
    node = jelly("IFNode")
    node.surrogate_function = lambda u: (u >= 0).float()
    assert known(node).derivative(torch.ones(3)).tolist() == [0, 0, 0]
