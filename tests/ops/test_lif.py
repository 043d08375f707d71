"""The LIF neuron, Eq. 1-2, against traces worked out by hand."""

import pytest
import torch
from torch import Tensor

import spikeback as sb
from spikeback.errors import UsageError

HALF = sb.surrogate.Rectangle(2.0)  # g' = 1/2 wherever |u - V_th| < 1: sums of few binary digits, so exact


def dyadic(*shape: int) -> Tensor:
    """Random multiples of 1/64: exact in bf16, and their sums and products by powers of two exact in float32."""
    return torch.randint(-64, 128, shape) / 64


def trace(x: Tensor, u: Tensor, tau: float, threshold: float) -> tuple[Tensor, Tensor]:
    """Spikes and membrane after every step, one step a call, the state handed on."""
    spikes, states = [], []
    for x_t in x:
        s, u = sb.lif(x_t[None], tau, threshold, HALF, state=u)
        spikes.append(s[0])
        states.append(u)
    return torch.stack(spikes), torch.stack(states)


def test_trace_from_ten_decays_as_by_hand() -> None:
    x = 0.1 * torch.tensor([1, 1, 1, 1, 1, 0, 0], dtype=torch.float64)[:, None]
    spikes, u = trace(x, torch.tensor([10.0], dtype=torch.float64), tau=0.9, threshold=1.0)
    assert u.flatten().tolist() == pytest.approx([0, 0.1, 0.19, 0.271, 0.3439, 0.30951, 0.278559], rel=1e-12)
    assert spikes.flatten().tolist() == [1, 0, 0, 0, 0, 0, 0]


def test_reset_touches_only_the_neurons_that_fired() -> None:
    spikes, u = sb.lif(torch.tensor([[2.5, 0.3]]), 1.0, 1.0, HALF)
    assert spikes.tolist() == [[1, 0]]
    assert torch.equal(u, torch.tensor([0, 0.3]))


def test_potential_at_the_threshold_does_not_fire() -> None:
    above = torch.nextafter(torch.tensor(0.5), torch.tensor(1.0)).item()
    spikes, u = sb.lif(torch.tensor([[0.5, above]]), 0.25, 0.5, HALF)
    assert spikes.tolist() == [[0, 1]]
    assert u.tolist() == [0.5, 0]


def test_tau_one_integrates_without_leak() -> None:
    spikes, u = trace(torch.full((7, 1), 0.25), torch.zeros(1), tau=1.0, threshold=0.5)
    assert spikes.flatten().tolist() == [0, 0, 1, 0, 0, 1, 0]
    assert u.flatten().tolist() == [0.25, 0.5, 0, 0.25, 0.5, 0, 0.25]


def test_reset_is_to_zero_and_not_by_subtraction() -> None:
    spikes, u = trace(torch.tensor([[1.0], [0.25]]), torch.zeros(1), tau=0.5, threshold=0.5)
    assert spikes.flatten().tolist() == [1, 0]
    assert u.flatten().tolist() == [0, 0.25]


def test_inhibition_is_kept_and_leaks() -> None:
    _, u = trace(torch.tensor([[-1.0], [0.0], [0.0]]), torch.zeros(1), tau=0.5, threshold=0.5)
    assert u.flatten().tolist() == [-1, -0.5, -0.25]


def test_starts_from_zero_and_keeps_nothing_between_calls() -> None:
    x = torch.randn(4, 2, 3)
    first, again, from_zero = (sb.lif(x, 0.25, 0.5, HALF, state=s) for s in (None, None, torch.zeros(2, 3)))
    for a, b, c in zip(first, again, from_zero, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


def test_many_neurons_equal_one_loop_over_floats() -> None:
    x = dyadic(8, 40)
    spikes, state = sb.lif(x, 0.25, 0.5, HALF)
    for n in range(40):
        u = 0.0
        for t in range(8):
            u = 0.25 * u + x[t, n].item()
            assert spikes[t, n].item() == (u > 0.5)
            u *= u <= 0.5
        assert state[n].item() == u


def test_a_run_in_two_halves_is_the_long_run() -> None:
    x = torch.randn(6, 3, 2, 4, 4)
    spikes, state = sb.lif(x, 0.3, 0.5, HALF)
    first, middle = sb.lif(x[:2], 0.3, 0.5, HALF)
    second, end = sb.lif(x[2:], 0.3, 0.5, HALF, state=middle)
    assert torch.equal(torch.cat([first, second]), spikes)
    assert torch.equal(end, state)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_the_membrane_in_float32(dtype: torch.dtype) -> None:
    x = dyadic(8, 3, 20)
    expected, membrane = sb.lif(x, 0.25, 0.5, HALF)
    half = x.to(dtype).requires_grad_()
    spikes, state = sb.lif(half, 0.25, 0.5, HALF)
    assert (spikes.dtype, state.dtype) == (dtype, torch.float32)
    assert torch.equal(spikes.float(), expected)
    assert torch.equal(state, membrane)
    spikes.sum().backward()
    assert half.grad is not None
    assert half.grad.dtype == dtype
    assert half.grad.isfinite().all()


def test_double_precision_stays_double() -> None:
    spikes, state = sb.lif(torch.randn(2, 5, dtype=torch.float64), 0.25, 0.5, HALF)
    assert (spikes.dtype, state.dtype) == (torch.float64, torch.float64)


@pytest.mark.parametrize("shape", [(3, 2), (1, 2, 4), (3, 2, 4, 5, 5)])
def test_shapes(shape: tuple[int, ...]) -> None:
    spikes, state = sb.lif(torch.randn(shape), 0.25, 0.5, HALF)
    assert spikes.shape == shape
    assert state.shape == shape[1:]
    assert set(spikes.unique().tolist()) <= {0.0, 1.0}


def test_memory_layout_does_not_matter() -> None:
    x = torch.randn(2, 3, 4, 5, 4)
    r = torch.randn_like(x)
    results = []
    for layout in (x, x.transpose(0, 2).contiguous().transpose(0, 2), x.mT.contiguous().mT):
        leaf = layout.detach().requires_grad_()
        spikes, state = sb.lif(leaf, 0.25, 0.5, HALF)
        (spikes * r).sum().backward()
        results.append((spikes, state, leaf.grad))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_input_and_state_are_left_as_they_were() -> None:
    x, state = torch.randn(3, 4), torch.randn(4)
    x_before, state_before = x.clone(), state.clone()
    sb.lif(x, 0.25, 0.5, HALF, state=state)
    assert torch.equal(x, x_before)
    assert torch.equal(state, state_before)


def test_unknown_backend_lists_the_choices() -> None:
    with pytest.raises(UsageError, match=r"'abacus'.*reference"):
        sb.lif(torch.zeros(1, 1), 0.25, 0.5, HALF, backend="abacus")


def test_no_time_step_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"time step|T"):
        sb.lif(torch.zeros(0, 2, 3), 0.25, 0.5, HALF)


@pytest.mark.parametrize("batch", [1, 3])
def test_state_of_another_batch_is_an_error(batch: int) -> None:
    with pytest.raises(UsageError, match="state"):
        sb.lif(torch.zeros(4, 2, 3), 0.25, 0.5, HALF, state=torch.zeros(batch, 3))


def test_usage_error_is_a_value_error() -> None:
    assert issubclass(UsageError, ValueError)
