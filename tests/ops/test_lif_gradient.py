"""Gradients of the LIF neuron, Eq. 3, against derivations by hand."""

from itertools import product

import pytest
import torch
from torch import Tensor

import spikeback as sb

HALF = sb.surrogate.Rectangle(2.0)  # g' = 1/2 wherever |u - V_th| < 1: sums of few binary digits, so exact


def dyadic(*shape: int) -> Tensor:
    """Random multiples of 1/64: exact in bf16, and their sums and products by powers of two exact in float32."""
    return torch.randint(-64, 128, shape) / 64


def test_gradient_flows_through_the_state_of_two_halves() -> None:
    x, r = dyadic(4, 9), dyadic(4, 9)
    whole, halves = x.clone().requires_grad_(), x.clone().requires_grad_()
    (sb.lif(whole, 0.5, 0.5, HALF)[0] * r).sum().backward()
    first, middle = sb.lif(halves[:2], 0.5, 0.5, HALF)
    second, _ = sb.lif(halves[2:], 0.5, 0.5, HALF, state=middle)
    (torch.cat([first, second]) * r).sum().backward()
    assert whole.grad is not None
    assert halves.grad is not None
    assert torch.equal(whole.grad, halves.grad)


@pytest.mark.parametrize("gain", [1.0, 2.0])
@pytest.mark.parametrize("detach_reset", [False, True])
@pytest.mark.parametrize("x_1", [0.75, 0.25])
def test_gradient_of_two_steps_is_the_one_derived_by_hand(x_1: float, detach_reset: bool, gain: float) -> None:
    """u_1 = tau v_0 + x_1, v_1 = u_1 (1 - s_1), u_2 = tau v_1 + x_2, v_2 = u_2 (1 - s_2); L = 3 s_1 + 5 s_2 + 7 v_2.

    dv/du = (1 - s) - u g' by Eq. 3, and 1 - s where the reset is detached; g' = gain / 2 at both steps.
    """
    tau, v_0, x_2, g = 0.5, torch.zeros(1, requires_grad=True), 0.25, gain / 2
    x = torch.tensor([[x_1], [x_2]], requires_grad=True)
    spikes, v_2 = sb.lif(x, tau, 0.5, HALF, state=v_0, gain=gain, detach_reset=detach_reset)
    (3 * spikes[0] + 5 * spikes[1] + 7 * v_2).sum().backward()

    u_1, s_1 = x_1, float(x_1 > 0.5)
    u_2 = tau * u_1 * (1 - s_1) + x_2
    assert u_2 <= 0.5  # the second step is silent
    dv_1, dv_2 = (1 - s_1, 1.0) if detach_reset else ((1 - s_1) - u_1 * g, 1 - u_2 * g)
    d_u2 = 5 * g + 7 * dv_2
    d_u1 = 3 * g + d_u2 * tau * dv_1
    assert x.grad is not None
    assert v_0.grad is not None
    assert x.grad.flatten().tolist() == [d_u1, d_u2]
    assert v_0.grad.tolist() == [d_u1 * tau]


def test_two_step_gradients_are_these_numbers() -> None:
    """The case above once more in figures: tau 1/2, g' 1/2, x = (3/4, 1/4), L = s_1 + s_2."""
    for detach_reset, expected in ((False, [0.5 - 0.09375, 0.5]), (True, [0.5, 0.5])):
        x = torch.tensor([[0.75], [0.25]], requires_grad=True)
        sb.lif(x, 0.5, 0.5, HALF, detach_reset=detach_reset)[0].sum().backward()
        assert x.grad is not None
        assert x.grad.flatten().tolist() == expected


@pytest.mark.parametrize("detach_reset", [False, True])
def test_gradient_over_many_steps_is_the_recursion_of_eq_3(detach_reset: bool) -> None:
    surrogate, tau, threshold, gain = sb.surrogate.ATan(), 0.25, 0.5, 1.25
    x, r = dyadic(6, 50).double().requires_grad_(), torch.randn(6, 50, dtype=torch.float64)
    (sb.lif(x, tau, threshold, surrogate, gain=gain, detach_reset=detach_reset)[0] * r).sum().backward()
    u, s, v = [], [], torch.zeros(50, dtype=torch.float64)
    for x_t in x.detach():
        u.append(tau * v + x_t)
        s.append((u[-1] > threshold).double())
        v = u[-1] * (1 - s[-1])
    assert x.grad is not None
    d_v = torch.zeros_like(v)
    for t in reversed(range(6)):
        g = gain * surrogate(u[t], threshold)
        d_u = r[t] * g + d_v * ((1 - s[t]) - (0 if detach_reset else u[t] * g))
        torch.testing.assert_close(x.grad[t], d_u, rtol=1e-12, atol=1e-14)
        d_v = tau * d_u


@pytest.mark.parametrize("surrogate", [sb.surrogate.Triangle(), sb.surrogate.Tanh(), sb.surrogate.Sigmoid()], ids=str)
def test_gradient_of_one_step_is_gain_times_surrogate(surrogate: sb.surrogate.Triangle) -> None:
    u = torch.linspace(-1, 2, 61)
    for gain in (1.0, 0.5, 4.0):
        x = u[None].clone().requires_grad_()
        sb.lif(x, 0.25, 0.5, surrogate, gain=gain, backend="reference")[0].sum().backward()
        assert x.grad is not None
        assert torch.equal(x.grad[0], gain * surrogate(u, 0.5))


def test_gain_leaves_the_forward_as_it_is() -> None:
    x = torch.randn(4, 20)
    for plain, gained in zip(sb.lif(x, 0.25, 0.5, HALF), sb.lif(x, 0.25, 0.5, HALF, gain=3.0), strict=True):
        assert torch.equal(plain, gained)


@pytest.mark.parametrize(("detach_reset", "gain"), list(product([False, True], [1.0, 0.5])))
def test_default_backend_equals_reference(detach_reset: bool, gain: float) -> None:
    x, r = dyadic(5, 4, 30), dyadic(5, 4, 30)
    results = []
    for backend in (None, "reference"):
        leaf = x.clone().requires_grad_()
        spikes, state = sb.lif(leaf, 0.25, 0.5, HALF, gain=gain, detach_reset=detach_reset, backend=backend)
        (spikes * r).sum().backward()
        results.append((spikes, state, leaf.grad))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
