"""The primitives of every backend against the reference and its autograd; Triton's run in its interpreter here."""

import importlib
import math
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikeback as sb
from spikeback.ops import native
from spikeback.ops.surrogate import Surrogate

from .cases import (
    DEVICE,
    EXACT,
    FORMATS,
    SMOOTH,
    TAU,
    THRESHOLD,
    TRIANGLE,
    Case,
    assert_same,
    channels_last,
    dyadic,
    to_device,
    ulps,
)  # fmt: skip

BACKENDS = ["cpu"] * (native.available() and DEVICE == "cpu") + ["triton"] * (find_spec("triton") is not None)
SHAPES = [(1, 2, 5, 3, 3), (3, 2, 17, 5, 3), (7, 1, 5, 7, 7), (3, 5, 17), (4, 2, 5, 6), (3, 0, 5, 2, 2)]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Any:
    """The module with a backend's primitives."""
    return importlib.import_module(f"spikeback.ops.lif.{request.param}")


def is_triton(backend: Any) -> bool:
    return backend.__name__.endswith("triton")


def stored(x: Tensor, dtype: torch.dtype, backend: Any) -> Tensor:
    """A float32 result as written to memory: rounded, but Triton's interpreter cuts bf16 off."""
    if dtype == torch.bfloat16 and DEVICE == "cpu" and is_triton(backend):
        x = (x.contiguous().view(torch.int32) & -(1 << 16)).view(torch.float32)
    return x.to(dtype)


def stores() -> list[Any]:
    """(backend, layout, dtype): no float16 for the CPU's kernels, two layouts of halves for the slow interpreter."""
    floats = {"cpu": [torch.float32, torch.bfloat16], "triton": [torch.float32, torch.bfloat16, torch.float16]}
    few = ["contiguous", "channels last"]
    return [
        pytest.param(name, form, dtype, id=f"{name}-{form}-{dtype}")
        for name in BACKENDS
        for dtype in floats[name]
        for form in (FORMATS if (name, DEVICE) != ("triton", "cpu") or dtype == torch.float32 else few)
    ]


@pytest.mark.parametrize(("backend", "form", "dtype"), stores(), indirect=["backend"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_layout_and_dtype_equals_the_reference(
    shape: tuple[int, ...], form: str, dtype: torch.dtype, backend: Any
) -> None:
    case = Case(shape, dtype=dtype)
    spikes, u, g, grad_state = case.expected(TRIANGLE[2])
    spikes_out, u_out = case.forward(backend, FORMATS[form])
    assert_same(spikes_out, spikes.to(dtype))
    assert_same(u_out, u)
    g_out, grad_state_out, _ = case.backward(backend, 0, 1.0, FORMATS[form])
    assert_same(g_out, stored(g, dtype, backend))
    assert_same(grad_state_out, grad_state)
    assert spikes.numel() == 0 or 0 < spikes.mean() < 1


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize(("kind", "parameter", "surrogate"), EXACT, ids=repr)
def test_gradient_bits_on_random_floats(
    kind: int, parameter: float, surrogate: Surrogate, detach: bool, backend: Any
) -> None:
    case = Case((6, 2, 5, 7, 5), make=torch.randn, detach=detach)
    _, _, g, grad_state = case.expected(surrogate)
    g_out, grad_state_out, _ = case.backward(backend, kind, parameter)
    assert_same(g_out, g)
    assert_same(grad_state_out, grad_state)
    assert (g != 0).any()


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize(("kind", "parameter", "surrogate"), SMOOTH, ids=repr)
def test_smooth_gradient_against_float64(
    kind: int, parameter: float, surrogate: Surrogate, detach: bool, backend: Any
) -> None:
    case = Case((5, 2, 5, 4, 3), detach=detach)
    _, _, g, grad_state = case.expected(surrogate, torch.float64)
    g_out, grad_state_out, _ = case.backward(backend, kind, parameter)
    eager = case.expected(surrogate)
    for result, exact, float32 in ((g_out, g, eager[2]), (grad_state_out, grad_state, eager[3])):
        unit = 2**-24 * exact.abs().max()
        assert (result.cpu() - exact).abs().max() <= max(8 * unit, (float32 - exact).abs().max())


@pytest.mark.parametrize(("kind", "parameter", "surrogate"), SMOOTH, ids=repr)
def test_surrogate_within_4_ulp_of_float64(kind: int, parameter: float, surrogate: Surrogate, backend: Any) -> None:
    u = torch.arange(-64 * 64, 64 * 64)[None, None] / 64
    ones, gain = torch.ones_like(u).to(DEVICE), torch.tensor(1.0, device=DEVICE)
    operands = ones, None, u.to(DEVICE), None, None, None, None, gain
    g, _, _ = backend.backward(*operands, 1, TAU, THRESHOLD, kind, parameter, True)
    v = u.double() - THRESHOLD
    exact = {  # as 1 / cosh^2 they keep their digits far from the threshold
        3: parameter / torch.cosh(v).square(),
        4: parameter / 4 / torch.cosh(parameter / 2 * v).square(),
    }.get(kind, surrogate(u.double(), THRESHOLD))
    normal = exact >= 2**-120  # below, a kernel may give 0
    assert ulps(g.cpu()[normal], exact[normal]) <= 4
    assert g.cpu()[~normal].abs().sum() <= 2**-110
    assert normal.sum() > 60


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the interpreter's numpy
@pytest.mark.parametrize(("kind", "parameter", "surrogate"), [*EXACT, *SMOOTH], ids=repr)
def test_derivative_at_infinity_and_nan_is_that_of_the_reference(
    kind: int, parameter: float, surrogate: Surrogate, backend: Any
) -> None:
    u = torch.tensor([[[math.nan, math.inf, -math.inf, 3e38, -3e38, 0.5]]])
    ones, gain = torch.ones_like(u).to(DEVICE), torch.tensor(1.0, device=DEVICE)
    operands = ones, None, u.to(DEVICE), None, None, None, None, gain
    g, _, _ = backend.backward(*operands, 1, 1.0, THRESHOLD, kind, parameter, True)
    torch.testing.assert_close(g.cpu(), surrogate(u, THRESHOLD), rtol=1e-6, atol=0, equal_nan=True)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["contiguous", "channels last"])
@pytest.mark.parametrize(
    "shape",
    [(3, 2, 17, 5, 3), (2, 2, 70, 9, 5), (2, 2, 3, 33, 17), (9, 3, 5, 2, 2), (2, 3, 170, 7, 11), (2, 1, 513, 3, 3)],
    ids=str,
)
def test_sums_against_float64(shape: tuple[int, ...], form: str, backend: Any) -> None:
    """Also over several tiles of channels, of positions, and several segments of time; over pieces of whole rows, many
    and not a multiple of those that wait together, and of parts of rows.
    """
    case = Case(shape, make=torch.randn)
    _, _, g, _ = case.expected(TRIANGLE[2])
    g_out, _, sums = case.backward(backend, 0, 1.0, FORMATS[form])
    assert_same(g_out, g)
    g = g.double()
    mean, mean_residual = (a[0].double()[:, None, None] for a in (case.affine, case.residual_affine) if a is not None)
    assert case.residual is not None
    terms = torch.stack([g, g * (case.x - mean), g * (case.residual - mean_residual)])
    assert sums.dtype == torch.float64
    error = (sums.cpu() - terms.sum((1, 2, 4, 5))).abs()
    assert (error <= 2**-21 * terms.abs().sum((1, 2, 4, 5))).all()
    assert_same(sums, case.backward(backend, 0, 1.0, FORMATS[form])[2].cpu())


@pytest.mark.parametrize(("affine", "residual"), [(False, False), (True, False), (False, True)])
def test_every_operand_is_optional(affine: bool, residual: bool, backend: Any) -> None:
    case = Case((4, 2, 5, 3, 3), affine=affine, residual=residual)
    spikes, u, g, _ = case.expected(TRIANGLE[2])
    assert_same(case.forward(backend)[0], spikes)
    assert_same(case.forward(backend)[1], u)
    g_out, _, sums = case.backward(backend, 0, 1.0)
    assert_same(g_out, g)
    assert not sums[2].any()
    assert sums[:2].any(1).tolist() == [affine, affine]


def test_plain_residual_beside_a_normalised_input(backend: Any) -> None:
    case = Case((4, 2, 5, 3, 3))
    case.residual_affine = None
    spikes, u, g, grad_state = case.expected(TRIANGLE[2])
    for result, expected in zip(case.forward(backend), (spikes, u), strict=True):
        assert_same(result, expected)
    g_out, grad_state_out, sums = case.backward(backend, 0, 1.0)
    assert_same(g_out, g)
    assert_same(grad_state_out, grad_state)
    assert not sums[2].any()


def test_without_state_and_membrane_gradient_both_are_zero(backend: Any) -> None:
    case = Case((3, 2, 5, 3, 3))
    case.state, case.grad_membrane = torch.zeros_like(case.state), torch.zeros_like(case.grad_membrane)
    forward, (g, _, sums) = case.forward(backend), case.backward(backend, 0, 1.0)
    case.state = case.grad_membrane = None  # pyright: ignore
    g_without, _, sums_without = case.backward(backend, 0, 1.0)
    for a, b in zip((*forward, g, sums), (*case.forward(backend), g_without, sums_without), strict=True):
        assert_same(a, b.cpu())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("steps", [1, 3, 11])
def test_static_image_equals_its_repetition(steps: int, dtype: torch.dtype, backend: Any) -> None:
    case = Case((1, 2, 5, 4, 4), steps=steps, residual=False, dtype=dtype)
    spikes, u, g, grad_state = case.expected(sb.surrogate.Rectangle(2.0))
    spikes_out, u_out = case.forward(backend, channels_last)
    assert_same(spikes_out, spikes.to(dtype))
    assert_same(u_out, u)
    g_out, grad_state_out, sums = case.backward(backend, 1, 2.0, channels_last)
    assert_same(grad_state_out, grad_state)
    assert g_out.shape == case.x.shape
    unit = 2**-7 if dtype == torch.bfloat16 else 2**-23  # another order of the sum, and bf16 as in `stored`
    torch.testing.assert_close(g_out.float().cpu(), g, rtol=unit, atol=2**-20)
    assert case.affine is not None
    terms = torch.stack([g, g * (case.x - case.affine[0][:, None, None])]).double()
    torch.testing.assert_close(sums[:2].cpu(), terms.sum((1, 2, 4, 5)), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("steps", [8, 9, 19])
def test_long_runs_have_no_seam(steps: int, backend: Any) -> None:
    """Triton cuts them into segments of time."""
    case = Case((steps, 1, 5, 3, 3), make=torch.randn)
    _, _, g, grad_state = case.expected(TRIANGLE[2])
    g_out, grad_state_out, _ = case.backward(backend, 0, 1.0, channels_last)
    assert_same(g_out, g)
    assert_same(grad_state_out, grad_state)


def test_expanded_gradient_and_overlapping_steps(backend: Any) -> None:
    """spikes.sum().backward() sends one number expanded to all of them; overlapping windows share memory over time."""
    case = Case((3, 2, 5, 2, 2), residual=False)
    case.grad = torch.ones(()).expand(3, 2, 5, 2, 2)
    case.x = torch.as_strided(dyadic(100), (3, 2, 5, 2, 2), (7, 20, 4, 2, 1))
    same = lambda x: x
    assert_same(case.forward(backend, same)[0], case.expected(TRIANGLE[2])[0])
    assert_same(case.backward(backend, 0, 1.0, same)[0], case.expected(TRIANGLE[2])[2])


def test_results_keep_the_memory_format(backend: Any) -> None:
    case = Case((3, 2, 5, 4, 3))
    for form in (channels_last, torch.Tensor.contiguous):
        x = form(case.x)
        combined = backend.combine(x, x, torch.ones(4, 5))
        for y in (case.forward(backend, form)[0], case.backward(backend, 0, 1.0, form)[0], combined):
            assert y.stride() == x.stride()


def test_not_a_number_is_not_hidden(backend: Any) -> None:
    case = Case((2, 1, 5, 2, 2), detach=True)
    case.x[0, 0, 0, 0, 0] = math.nan
    g = case.backward(backend, 0, 1.0)[0].cpu()
    assert torch.equal(g.isnan(), case.expected(TRIANGLE[2])[2].isnan())
    assert g.isnan().any()


@pytest.mark.parametrize(("backend", "form", "dtype"), stores(), indirect=["backend"])
@pytest.mark.parametrize("shape", [(2, 2, 70, 9, 5), (2, 2, 3, 33, 17), (3, 4, 5)], ids=str)
def test_moments_against_float64(shape: tuple[int, ...], form: str, dtype: torch.dtype, backend: Any) -> None:
    """A mean of 100 standard deviations costs a sum of squares seven of its digits."""
    means = 100 * torch.randn(shape[2:3])[(...,) + (None,) * (len(shape) - 3)]
    x = FORMATS[form]((torch.randn(shape) + means).to(dtype))
    result = backend.moments(x.to(DEVICE)).cpu()
    dims = [d for d in range(x.ndim) if d != 2]
    variance, mean = torch.var_mean(x.double(), dims, correction=0)
    assert result.dtype == torch.float64
    torch.testing.assert_close(result[0], mean, rtol=1e-6, atol=0)
    torch.testing.assert_close(result[1], variance, rtol=1e-5, atol=0)


def test_moments_of_nothing_are_not_a_number(backend: Any) -> None:
    assert backend.moments(torch.empty(3, 0, 5, 2, 2, device=DEVICE)).isnan().all()


@pytest.mark.parametrize("batch_statistics", [True, False])
@pytest.mark.parametrize("pooled", [True, False])
@pytest.mark.parametrize("two", [True, False])
def test_gradients_against_autograd_in_float64(two: bool, pooled: bool, batch_statistics: bool, backend: Any) -> None:
    """Of a loss with gradient g by x's norm, plus a residual's; with `pooled`, beside another process's share of it."""
    channels, here, everywhere = 70, 60, 120 if pooled else 60
    draw = lambda *shape: [torch.randn(*shape, channels).double().requires_grad_() for _ in range(2)]
    xs, weights, biases, (g, _) = draw(everywhere), draw(), draw(), draw(everywhere)
    fixed = [(torch.randn(channels).double(), torch.rand(channels).double() + 0.5) for _ in range(2)]
    batch = [(x.mean(0), (x.var(0, correction=0) + 1e-5).rsqrt()) for x in xs]
    constants = batch if batch_statistics else fixed
    terms = [
        g * ((x - mean) * inverse * weight + bias)
        for x, weight, bias, (mean, inverse) in zip(xs, weights, biases, constants, strict=True)
    ]
    exact = torch.autograd.grad(sum(t[:here].sum() for t in terms), weights + biases, retain_graph=True)  # pyright: ignore
    by_x = torch.autograd.grad(sum(t.sum() for t in terms), xs)  # pyright: ignore
    affines = [
        tuple(y.detach().float() for y in (weight, bias, *moments))
        for weight, bias, moments in zip(weights, biases, constants, strict=True)
    ]

    def sums_of(end: int) -> Tensor:
        centred = [x[:end] - mean.double() for x, (_, _, mean, _) in zip(xs, affines, strict=True)]
        return torch.stack([g[:end].sum(0), *((g[:end] * y).sum(0) for y in centred)]).detach()

    count = torch.full((1, channels), everywhere).double()
    both = torch.cat((sums_of(everywhere), count)) if pooled else None
    operands = to_device((sums_of(here), both, affines[0], affines[1] if two else None))
    parameters, *coefficients = (
        y.cpu() for y in backend.gradients(*operands[:2], here, *operands[2:], batch_statistics)
    )
    expected = [exact[0], exact[2], exact[1], exact[3]]
    for result, right in list(zip(parameters, expected, strict=True))[: 4 if two else 2]:
        torch.testing.assert_close(result.double(), right, rtol=1e-5, atol=1e-4)
    for (mean, a, b, c), x, right in list(zip(coefficients, xs, by_x, strict=True))[: 2 if two else 1]:
        torch.testing.assert_close(a * g + b * (x - mean) + c, right, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("momentum", [0.1, 0.75])
def test_normaliser_is_that_of_batch_norm(momentum: float, dtype: torch.dtype, backend: Any) -> None:
    x = (3 * torch.randn(3, 2, 70, 5, 4) + 2).to(dtype)
    norm = nn.BatchNorm2d(70, momentum=momentum)
    for _ in range(2):
        norm(x.float().flatten(0, 1))
    mean, var, tracked = torch.zeros(70), torch.ones(70), torch.tensor(0)
    statistics = to_device((mean, var, tracked))
    for form in (channels_last, torch.Tensor.contiguous):
        result = backend.normaliser(form(x).to(DEVICE), statistics, momentum, norm.eps)
    variance, average = torch.var_mean(x.double(), (0, 1, 3, 4), correction=0)
    torch.testing.assert_close(result.cpu(), torch.stack((average, (variance + norm.eps).rsqrt())).float())
    torch.testing.assert_close(statistics[0].cpu(), norm.running_mean)
    torch.testing.assert_close(statistics[1].cpu(), norm.running_var)
    assert statistics[2] == norm.num_batches_tracked
    torch.testing.assert_close(backend.normaliser(x.to(DEVICE), (None, None, None), momentum, norm.eps), result)


@pytest.mark.parametrize(("backend", "form", "dtype"), stores(), indirect=["backend"])
@pytest.mark.parametrize("shape", SHAPES[1::2], ids=str)
def test_combine_equals_the_formula(shape: tuple[int, ...], form: str, dtype: torch.dtype, backend: Any) -> None:
    g, x, coefficients = dyadic(*shape).to(dtype), dyadic(*shape).to(dtype), torch.randn(4, shape[2])
    mean, a, b, c = coefficients.view(4, shape[2], *[1] * (len(shape) - 3)).unbind()
    result = backend.combine(g.to(DEVICE), FORMATS[form](x).to(DEVICE), coefficients.to(DEVICE))
    terms = (a * g.float()).double(), (b * (x.float() - mean)).double(), c.double()
    exact = terms[0] + terms[1] + terms[2]
    unit = {torch.bfloat16: 2**-7, torch.float16: 2**-10, torch.float32: 2**-22}[dtype]
    assert result.dtype == dtype
    size = terms[0].abs() + terms[1].abs() + terms[2].abs()
    assert ((result.cpu() - exact).abs() <= unit * size).all()
