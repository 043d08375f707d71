"""What the doctor knows of the neurons of other frameworks, against what those neurons do."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from spikeback.doctor.adapters.neurons import Neuron, neuron_of, spiking_layers

from .peers import CASES, OTHER, PLAIN, fires, run

pytestmark = pytest.mark.peers

T, B, N = 5, 3, 50


def made(name: str) -> tuple[Any, Neuron]:
    layer = CASES[name]()
    neuron = neuron_of(layer)
    assert neuron is not None
    assert list(spiking_layers(nn.Sequential(layer))) == ["0"]
    return layer, neuron


@pytest.mark.parametrize("name", CASES)
def test_membrane_gives_the_spikes(name: str) -> None:
    layer, neuron = made(name)
    x = 1.5 * torch.randn(T, B, N) + 0.3
    spikes = run(layer, x).detach()
    u = neuron.membrane(x, spikes)
    assert u.dtype == torch.float32
    assert not u.requires_grad
    assert torch.equal(fires(neuron, layer, u), spikes)
    assert (spikes > 0).float().mean(0).var() > 0.01  # some fire often, some seldom: resets were at work


@pytest.mark.parametrize("name", CASES)
def test_derivative_is_that_of_the_backward_pass(name: str) -> None:
    layer, neuron = made(name)
    x = torch.randn(1, B, N, requires_grad=True)  # one step from rest: u is linear in x
    spikes = run(layer, x)
    (grad,) = torch.autograd.grad(spikes.sum(), x)
    u = neuron.membrane(x, spikes)
    kappa = (neuron.membrane(x + 1, spikes) - u).mean()
    assert torch.allclose(kappa * neuron.derivative(u), grad, rtol=1e-4, atol=1e-6)


class Fire(torch.autograd.Function):
    """Given spikes forwards, a given derivative backwards."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, spikes: Tensor, derivative: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.save_for_backward(u)
        ctx.derivative = derivative
        return spikes.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0] * ctx.derivative(ctx.saved_tensors[0]), None, None


@pytest.mark.parametrize("name", PLAIN)
def test_what_is_known_reproduces_the_gradient_through_time(name: str) -> None:
    layer, neuron = made(name)
    assert neuron.leak is not None
    x, weight = (1.5 * torch.randn(T, B, N)).requires_grad_(), torch.randn(T, B, N)
    spikes = run(layer, x)
    (expected,) = torch.autograd.grad((weight * spikes).sum(), x)
    post: Tensor | float = 0.0
    ours, membranes = [], []
    for x_t, s_t in zip(x, spikes.detach(), strict=True):
        u = neuron.leak * post + neuron.scale * x_t
        s = Fire.apply(u, s_t, neuron.derivative)
        r = s.detach() if neuron.detach_reset else s
        post = {"hard": u * (1 - r), "soft": u - neuron.threshold * r, "none": u}[neuron.reset]
        ours.append(s)
        membranes.append(u)
    (grad,) = torch.autograd.grad((weight * torch.stack(ours)).sum(), x)
    assert torch.allclose(torch.stack(membranes), neuron.membrane(x, spikes), rtol=1e-4, atol=1e-5)
    assert torch.allclose(grad, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", OTHER)
def test_another_recursion_says_so(name: str) -> None:
    assert made(name)[1].leak is None
