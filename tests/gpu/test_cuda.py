"""The CUDA path of `sb.lif` against the reference on the CPU: forward to the bit, gradients."""

import pytest
import torch
from torch import Tensor

import spikeback as sb
from spikeback.ops.surrogate import Surrogate

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

EXACT = [sb.surrogate.Triangle(1.0), sb.surrogate.Rectangle(1.2)]
SMOOTH = [
    sb.surrogate.Tanh(3.0),
    sb.surrogate.Tanh(3.0, normalised=False),
    sb.surrogate.Sigmoid(4.0),
    sb.surrogate.ATan(2.0),
]
SHAPES = [(1, 2, 5, 3, 3), (3, 2, 17, 5, 3), (7, 3, 64, 16, 16), (12, 2, 70, 9, 5), (4, 5, 17), (3, 0, 5, 2, 2)]


def run(x: Tensor, surrogate: Surrogate, device: str, backend: str, detach: bool = False) -> tuple[Tensor, ...]:
    """Spikes, membrane, and the gradients of x and of the state, all on the CPU."""
    generator = torch.Generator().manual_seed(1)
    draw = lambda shape: torch.randn(shape, generator=generator)
    state, grad, grad_membrane = draw(x.shape[1:]), draw(x.shape).to(x.dtype), draw(x.shape[1:])
    x, state = (y.to(device).detach().requires_grad_() for y in (x, state))
    spikes, u = sb.lif(x, 0.5, 0.5, surrogate, state=state, gain=0.75, detach_reset=detach, backend=backend)
    grads = torch.autograd.grad((spikes, u), (x, state), (grad.to(device), grad_membrane.to(device)))
    return tuple(y.detach().cpu() for y in (spikes, u, *grads))


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("surrogate", EXACT, ids=repr)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bits_equal_the_reference(shape: tuple[int, ...], surrogate: Surrogate, detach: bool) -> None:
    x = torch.randn(shape)
    for form in (x, x.movedim(2, -1).contiguous().movedim(-1, 2)):
        results = run(form, surrogate, "cuda", "triton", detach)
        for result, expected in zip(results, run(x, surrogate, "cpu", "reference", detach), strict=True):
            assert torch.equal(result, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_half_precision_equals_the_reference(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = torch.randn(shape).to(dtype)
    results = run(x, EXACT[0], "cuda", "triton")
    for result, expected in zip(results, run(x, EXACT[0], "cpu", "reference"), strict=True):
        assert result.dtype == expected.dtype
        assert torch.equal(result, expected)


@pytest.mark.parametrize("surrogate", SMOOTH, ids=repr)
def test_smooth_gradients(surrogate: Surrogate) -> None:
    x = torch.randn(4, 2, 17, 9, 7)
    spikes, u, *grads = run(x, surrogate, "cuda", "triton")
    exact_spikes, exact_u, *exact = run(x, surrogate, "cpu", "reference")
    assert torch.equal(spikes, exact_spikes)
    assert torch.equal(u, exact_u)
    for result, expected in zip(grads, exact, strict=True):
        assert (result - expected).abs().max() <= 2**-20 * expected.abs().max()


def test_two_runs_give_the_same_bits() -> None:
    x = torch.randn(4, 8, 64, 32, 32)
    first, second = (run(x, EXACT[0], "cuda", "triton") for _ in range(2))
    assert all(map(torch.equal, first, second))


def test_chosen_by_itself_for_cuda_tensors() -> None:
    """Without a backend named, a CUDA tensor gets the same bits as with `triton`."""
    x = torch.randn(4, 2, 17, 9, 7, device="cuda")
    for a, b in zip(*(sb.lif(x, 0.5, 0.5, EXACT[0], backend=name) for name in (None, "triton")), strict=True):
        assert torch.equal(a, b)


def test_offsets_beyond_two_to_the_31() -> None:
    """Two time steps, together more numbers than 31 bits count; the second one's spikes are where they belong."""
    if torch.cuda.mem_get_info()[0] < 20 * 2**30:
        pytest.skip("needs 20 GB of GPU memory")
    x = torch.zeros(2, 2**30 + 2**20, dtype=torch.bfloat16, device="cuda")
    x[1, -1] = 1
    spikes, _ = sb.lif(x, 0.5, 0.5, EXACT[0], backend="triton")
    assert spikes[1, -1] == 1
    assert spikes.sum(dtype=torch.float32) == 1
