"""`sb.lif` on the CPU's compiled kernels: the reference's numbers, whatever shape and layout they come in."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import spikeback as sb
from spikeback.errors import UsageError
from spikeback.ops import native
from spikeback.ops.surrogate import Surrogate

from .cases import channels_last, dyadic

pytestmark = pytest.mark.skipif(not native.available(), reason="no compiled kernels")

S = sb.surrogate
EXACT = [
    S.Triangle(1.0),
    S.Triangle(0.7),
    S.Rectangle(1.0),
    S.Rectangle(1.1),
    S.Rectangle(0.3),
    S.ATan(2.0),
    S.ATan(1.3),
]
SMOOTH = [S.Tanh(3.0), S.Tanh(1.7), S.Tanh(3.0, normalised=False), S.Sigmoid(4.0), S.Sigmoid(0.5)]
LAYOUTS: dict[str, Callable[[], Tensor]] = {
    "one neuron": lambda: dyadic(7),
    "vector": lambda: dyadic(3, 17),
    "T = 1": lambda: dyadic(1, 2, 5, 3, 3),
    "C = 5": lambda: dyadic(7, 2, 5, 5, 3),
    "C = 17, channels-last": lambda: channels_last(dyadic(3, 2, 17, 5, 3)),
    "C = 1, channels-last": lambda: channels_last(dyadic(3, 2, 1, 5, 3)),
    "one pixel": lambda: channels_last(dyadic(3, 2, 17, 1, 1)),
    "longer than a piece": lambda: channels_last(dyadic(2, 1, 5, 31, 29)),
    "six axes": lambda: dyadic(3, 2, 5, 2, 3, 2),
    "time last in memory": lambda: dyadic(2, 5, 4, 3, 7).movedim(-1, 0),
    "transposed": lambda: dyadic(3, 17, 5).mT,
    "every second": lambda: dyadic(6, 4, 10)[::2, ::2, 1::2],
    "expanded over time": lambda: dyadic(1, 2, 5, 3, 3).expand(3, 2, 5, 3, 3),
    "expanded over channels": lambda: dyadic(3, 2, 1, 3, 3).expand(3, 2, 5, 3, 3),
    "no sample": lambda: dyadic(3, 0, 5, 2, 2),
    "no pixel": lambda: channels_last(dyadic(3, 2, 5, 0, 2)),
}


def run(
    backend: str | None,
    x: Tensor,
    surrogate: Surrogate,
    *,
    tau: float = 0.5,
    detach_reset: bool = False,
    gain: float | Tensor = 0.75,
    dtype: torch.dtype | None = None,
) -> list[Tensor]:
    """Spikes, membrane and the gradients of x and state, for gradients that the seed fixes; `dtype` for all of them."""
    generator = torch.Generator().manual_seed(1)
    draw = lambda *shape: torch.randint(-64, 64, shape, generator=generator) / 64
    state, grad, grad_state = draw(*x.shape[1:]), draw(*x.shape).to(x.dtype), draw(*x.shape[1:])
    x, state, grad, grad_state = (y.to(dtype or y.dtype) for y in (x.detach(), state, grad, grad_state))
    x, state = x.requires_grad_(), state.requires_grad_()
    spikes, u = sb.lif(x, tau, 0.5, surrogate, state=state, gain=gain, detach_reset=detach_reset, backend=backend)
    grads = torch.autograd.grad((spikes, u), (x, state), (grad, grad_state))
    return [spikes.detach(), u.detach(), *grads]


def assert_equal(results: list[Tensor], expected: list[Tensor]) -> None:
    for result, exact in zip(results, expected, strict=True):
        assert result.dtype == exact.dtype
        assert torch.equal(result, exact)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_shape_and_layout_equals_the_reference(layout: str, dtype: torch.dtype) -> None:
    x = LAYOUTS[layout]().to(dtype)
    for detach_reset in (False, True):
        results = run("cpu", x, S.Triangle(1.0), detach_reset=detach_reset)
        assert_equal(results, run("reference", x, S.Triangle(1.0), detach_reset=detach_reset))


@pytest.mark.parametrize("make", [dyadic, torch.randn])
@pytest.mark.parametrize("detach_reset", [False, True])
@pytest.mark.parametrize("gain", [1.0, 0.75, torch.tensor(1.25)])
@pytest.mark.parametrize("surrogate", EXACT, ids=repr)
def test_spikes_and_gradients_are_equal_to_the_bit(
    surrogate: Surrogate, gain: Any, detach_reset: bool, make: Callable[..., Tensor]
) -> None:
    """On random floats too: the kernels round after every operation, in the reference's order."""
    x = make(6, 3, 50)
    results = run("cpu", x, surrogate, gain=gain, detach_reset=detach_reset)
    assert_equal(results, run("reference", x, surrogate, gain=gain, detach_reset=detach_reset))
    assert 0.1 < results[0].mean() < 0.9
    assert results[2].count_nonzero() > 100


@pytest.mark.parametrize("tau", [0.0, 0.3, 1.0])
def test_any_leak(tau: float) -> None:
    x = torch.randn(5, 100)
    assert_equal(run("cpu", x, S.Triangle(), tau=tau), run("reference", x, S.Triangle(), tau=tau))


@pytest.mark.parametrize("threshold", [0.3, 0.1, 1.7])
def test_a_potential_at_a_threshold_that_is_no_float32_does_not_fire(threshold: float) -> None:
    at = torch.tensor(threshold)
    x = torch.stack([at, torch.nextafter(at, torch.tensor(9.0)), torch.nextafter(at, torch.tensor(-9.0))])[None]
    for backend in ("cpu", "reference"):
        spikes, _ = sb.lif(x, 0.5, threshold, S.Triangle(), backend=backend)
        assert spikes.tolist() == [[0, 1, 0]]


@pytest.mark.parametrize("surrogate", SMOOTH, ids=repr)
def test_smooth_gradients_are_as_good_as_the_references(surrogate: Surrogate) -> None:
    """Against float64; the surrogates alone are within 4 ulp (test_lif_backends.py)."""
    x = dyadic(6, 3, 50)
    results, float64 = run("cpu", x, surrogate), run("reference", x, surrogate, dtype=torch.float64)
    eager = run("reference", x, surrogate)
    for result, exact, other in list(zip(results, float64, eager, strict=True))[2:]:
        assert (result - exact).abs().max() <= max((other - exact).abs().max(), 8 * 2**-24 * exact.abs().max())
    assert_equal(results[:2], eager[:2])


def test_first_flips_on_random_floats_are_within_4_ulp_of_the_threshold() -> None:
    x, tau, threshold = torch.randn(8, 200_000) * 0.6, 0.3, 0.5
    spikes, _ = sb.lif(x, tau, threshold, S.Triangle(), backend="cpu")
    u, flipped = torch.zeros(200_000, dtype=torch.float64), torch.zeros(200_000, dtype=torch.bool)
    for x_t, s_t in zip(x.double(), spikes, strict=True):
        u = tau * u + x_t
        s = u > threshold
        first = (s != s_t.bool()) & ~flipped
        assert ((u[first] - threshold).abs() <= 4 * 2**-24).all()
        flipped |= first
        u = u * ~s
    assert flipped.sum() <= 20


@pytest.mark.parametrize("form", ["contiguous", "channels-last"])
def test_spikes_and_gradient_keep_the_layout(form: str) -> None:
    x = dyadic(3, 2, 5, 4, 3) if form == "contiguous" else channels_last(dyadic(3, 2, 5, 4, 3))
    spikes, _, grad, _ = run("cpu", x, S.Triangle())
    assert spikes.stride() == grad.stride() == x.stride()


@pytest.mark.parametrize("detach_reset", [False, True])
@pytest.mark.parametrize("surrogate", [*EXACT, *SMOOTH], ids=repr)
def test_nan_and_infinity_are_those_of_the_reference(surrogate: Surrogate, detach_reset: bool) -> None:
    x = dyadic(4, 8)
    x[0, :3] = torch.tensor([torch.nan, torch.inf, -torch.inf])
    x[3, 3:6] = torch.tensor([torch.nan, torch.inf, -torch.inf])
    results = run("cpu", x, surrogate, detach_reset=detach_reset)
    expected = run("reference", x, surrogate, detach_reset=detach_reset)
    assert results[1].isnan().any()
    for result, exact in zip(results, expected, strict=True):
        torch.testing.assert_close(result, exact, rtol=1e-5, atol=1e-6, equal_nan=True)


class Mine(S.Triangle):
    """A derivative that the kernels do not know, though they know its base."""

    def __call__(self, u: Tensor, threshold: float) -> Tensor:
        return 0.5 * u.abs()


UNKNOWN: dict[str, tuple[Tensor, dict[str, Any]]] = {
    "surrogate": (dyadic(3, 2, 5), {"surrogate": Mine()}),
    "float64": (dyadic(3, 2, 5).double(), {}),
    "float16": (dyadic(3, 2, 5).half(), {}),
    "gain by channel": (dyadic(3, 2, 5), {"gain": torch.tensor([1.0, 0.5, 2.0, 1.5, 0.25])}),
}


@pytest.mark.parametrize("what", UNKNOWN)
def test_what_the_kernels_do_not_know_runs_on_the_reference(what: str) -> None:
    x, options = UNKNOWN[what]
    options = {"surrogate": S.Triangle(), **options}
    assert_equal(run(None, x, **options), run("reference", x, **options))
    if what != "float64":
        assert not torch.equal(run(None, x, **options)[2], run("cpu", x.float(), S.Triangle())[2])
    with pytest.raises(UsageError, match=r"'cpu' cannot"):
        run("cpu", x, **options)


def test_plain_runs_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    run_kernel = native.run
    monkeypatch.setattr(
        native, "run", lambda name, *args, **values: (calls.append(name), run_kernel(name, *args, **values))
    )
    with sb.nn.plain():
        sb.lif(dyadic(3, 5), 0.5, 0.5, S.Triangle())
    assert calls == []
    sb.lif(dyadic(3, 5), 0.5, 0.5, S.Triangle())
    assert calls == ["forward"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_two_threads_give_what_one_gives(dtype: torch.dtype) -> None:
    x = torch.randn(3, 4, 17, 33, 31).to(dtype)
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        try:
            results.append(run("cpu", channels_last(x), S.Tanh()) + run("cpu", x, S.Tanh()))
        finally:
            torch.set_num_threads(1)
    for other in results[1:]:
        assert_equal(results[0], other)


def test_inference_mode_and_no_grad() -> None:
    x = channels_last(dyadic(3, 2, 5, 4, 4))
    expected = sb.lif(x, 0.5, 0.5, S.Triangle(), backend="reference")
    for mode in (torch.inference_mode, torch.no_grad):
        with mode():
            results = sb.lif(x, 0.5, 0.5, S.Triangle(), backend="cpu")
        assert not results[0].requires_grad
        assert_equal(list(results), list(expected))


def test_gradient_of_a_gradient_is_refused_not_wrong() -> None:
    x = dyadic(3, 5).requires_grad_()
    (g,) = torch.autograd.grad(sb.lif(x, 0.5, 0.5, S.ATan(), backend="cpu")[0].sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="norm_lif_backward"):
        g.sum().backward()


def test_only_one_of_the_results_or_inputs_needs_a_gradient() -> None:
    x, state = channels_last(dyadic(3, 2, 5, 4, 4)), dyadic(2, 5, 4, 4)
    for wanted in (["x"], ["state"], ["x", "state"]):
        for output in (0, 1):
            grads = []
            for backend in ("cpu", "reference"):
                leaves = {"x": x.clone(), "state": state.clone()}
                for name in wanted:
                    leaves[name].requires_grad_()
                results = sb.lif(leaves["x"], 0.5, 0.5, S.Triangle(), state=leaves["state"], backend=backend)
                grads.append(list(torch.autograd.grad(results[output].sum(), [leaves[n] for n in wanted])))
            assert_equal(*grads)
