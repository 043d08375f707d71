"""The Triton backend against the reference and its autograd: on a GPU if there is one, else in Triton's interpreter."""

import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import spikeback as sb
from spikeback.ops.lif import reference
from spikeback.ops.surrogate import Surrogate

pytest.importorskip("triton")

import triton.language as tl

from spikeback.ops.lif import triton as backend

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TRIANGLE = (0, 1.0, sb.surrogate.Triangle(1.0))
EXACT = [TRIANGLE, (0, 1.3, sb.surrogate.Triangle(1.3)), (1, 2.0, sb.surrogate.Rectangle(2.0)),
         (1, 1.2, sb.surrogate.Rectangle(1.2))]  # fmt: skip
SMOOTH = [(2, 3.0, sb.surrogate.Tanh(3.0)), (2, 1.7, sb.surrogate.Tanh(1.7)), (3, 3.0, sb.surrogate.Tanh(3.0, False)),
          (4, 4.0, sb.surrogate.Sigmoid(4.0)), (5, 2.0, sb.surrogate.ATan(2.0))]  # fmt: skip
SHAPES = [(1, 2, 5, 3, 3), (3, 2, 17, 5, 3), (7, 1, 5, 7, 7), (3, 5, 17), (4, 2, 5, 6), (3, 0, 5, 2, 2)]
TAU, THRESHOLD = 0.5, 0.5


def dyadic(*shape: int, unit: int = 64) -> Tensor:
    """Random multiples of 1/64 in [-1, 2): exact in bf16, and so are their sums and halves in float32."""
    return torch.randint(-unit, 2 * unit, shape) / unit


def channels_last(x: Tensor) -> Tensor:
    return x.movedim(2, -1).contiguous().movedim(-1, 2)


FORMATS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": torch.Tensor.contiguous,
    "channels last": channels_last,
    "every second step of channels last": lambda x: channels_last(x.repeat_interleave(2, 0))[::2],
    "every second step": lambda x: x.repeat_interleave(2, 0)[::2],
    "not dense": lambda x: x.repeat_interleave(2, -1)[..., ::2],
}


class Case:
    """The arguments of one call, and what the reference makes of them on the CPU."""

    def __init__(
        self,
        shape: tuple[int, ...],
        make: Callable[..., Tensor] = dyadic,
        dtype: torch.dtype = torch.float32,
        steps: int | None = None,
        affine: bool = True,
        residual: bool = True,
        detach: bool = False,
    ) -> None:
        channels, self.steps, self.detach, self.dtype = shape[2], steps or shape[0], detach, dtype
        self.x = make(*shape).to(dtype)
        self.residual = make(*shape).to(dtype) if residual else None
        scales = torch.tensor([0.5, 1.0, 2.0])
        maps = [torch.stack([dyadic(channels, unit=8), scales[torch.randint(3, (channels,))], dyadic(channels, unit=8)])
                for _ in range(2)]  # fmt: skip
        self.affine, self.residual_affine = maps[0] if affine else None, maps[1] if affine and residual else None
        self.state, self.gain = make(*shape[1:]), torch.tensor(0.75)
        self.grad, self.grad_membrane = make(self.steps, *shape[1:]).to(dtype), make(*shape[1:])

    def forward(self, form: Callable[[Tensor], Tensor] = torch.Tensor.contiguous) -> tuple[Tensor, Tensor]:
        arguments = form(self.x), self.affine, self.residual, self.residual_affine, self.state
        return backend.forward(*map(to_device, arguments), self.steps, TAU, THRESHOLD)  # pyright: ignore

    def backward(self, kind: int, parameter: float, form: Callable[[Tensor], Tensor] = torch.Tensor.contiguous) -> Any:
        arguments = (form(self.grad), self.grad_membrane, form(self.x), self.affine, self.residual,
                     self.residual_affine, self.state, self.gain)  # fmt: skip
        return backend.backward(*map(to_device, arguments), self.steps, TAU, THRESHOLD, kind, parameter, self.detach)  # pyright: ignore

    def current(self, dtype: torch.dtype) -> Tensor:
        def normalise(x: Tensor, affine: Tensor | None) -> Tensor:
            if affine is None:
                return x
            mean, scale, shift = affine.to(dtype)[(...,) + (None,) * (x.ndim - 3)]
            return (x - mean) * scale + shift

        total = normalise(self.x.to(dtype), self.affine)
        if self.residual is not None:
            total = total + normalise(self.residual.to(dtype), self.residual_affine)
        return total

    def expected(self, surrogate: Surrogate, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
        """Spikes, membrane, dL/d(current), dL/d(state), in `dtype` throughout."""
        current, state = self.current(dtype).requires_grad_(), self.state.to(dtype).requires_grad_()
        steps = current.expand(self.steps, *current.shape[1:])
        spikes, u = reference.lif(steps, TAU, THRESHOLD, surrogate, state, self.gain.to(dtype), self.detach)
        grads = self.grad.to(dtype), self.grad_membrane.to(dtype)
        return spikes.detach(), u.detach(), *torch.autograd.grad((spikes, u), (current, state), grads)


def to_device(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.to(DEVICE)


def stored(x: Tensor, dtype: torch.dtype) -> Tensor:
    """A float32 result as written to memory: rounded, but Triton's interpreter cuts bf16 off."""
    if dtype == torch.bfloat16 and DEVICE == "cpu":
        x = (x.contiguous().view(torch.int32) & -(1 << 16)).view(torch.float32)
    return x.to(dtype)


def assert_same(result: Tensor, expected: Tensor) -> None:
    assert result.dtype == expected.dtype
    assert torch.equal(result.cpu(), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_layout_and_dtype_equals_the_reference(shape: tuple[int, ...], form: str, dtype: torch.dtype) -> None:
    case = Case(shape, dtype=dtype)
    spikes, u, g, grad_state = case.expected(TRIANGLE[2])
    spikes_out, u_out = case.forward(FORMATS[form])
    assert_same(spikes_out, spikes.to(dtype))
    assert_same(u_out, u)
    g_out, grad_state_out, _ = case.backward(0, 1.0, FORMATS[form])
    assert_same(g_out, stored(g, dtype))
    assert_same(grad_state_out, grad_state)
    assert spikes.numel() == 0 or 0 < spikes.mean() < 1


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize(("kind", "parameter", "surrogate"), EXACT, ids=repr)
def test_gradient_bits_on_random_floats(kind: int, parameter: float, surrogate: Surrogate, detach: bool) -> None:
    case = Case((6, 2, 5, 7, 5), make=torch.randn, detach=detach)
    _, _, g, grad_state = case.expected(surrogate)
    g_out, grad_state_out, _ = case.backward(kind, parameter)
    assert_same(g_out, g)
    assert_same(grad_state_out, grad_state)
    assert (g != 0).any()


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize(("kind", "parameter", "surrogate"), SMOOTH, ids=repr)
def test_smooth_gradient_against_float64(kind: int, parameter: float, surrogate: Surrogate, detach: bool) -> None:
    case = Case((5, 2, 5, 4, 3), detach=detach)
    _, _, g, grad_state = case.expected(surrogate, torch.float64)
    g_out, grad_state_out, _ = case.backward(kind, parameter)
    eager = case.expected(surrogate)
    for result, exact, float32 in ((g_out, g, eager[2]), (grad_state_out, grad_state, eager[3])):
        unit = 2**-24 * exact.abs().max()
        assert (result.cpu() - exact).abs().max() <= max(8 * unit, (float32 - exact).abs().max())


def ulps(result: Tensor, exact: Tensor) -> float:
    """Largest distance in units of the last place of float32."""
    exponent = torch.frexp(exact).exponent.clamp_min(-125)
    return ((result.double() - exact).abs() / torch.ldexp(torch.ones_like(exact), exponent - 24)).max().item()


@pytest.mark.parametrize(("kind", "parameter", "surrogate"), SMOOTH, ids=repr)
def test_surrogate_within_4_ulp_of_float64(kind: int, parameter: float, surrogate: Surrogate) -> None:
    u = torch.arange(-16 * 64, 16 * 64)[None, None] / 64
    ones, gain = torch.ones_like(u).to(DEVICE), torch.tensor(1.0, device=DEVICE)
    operands = ones, None, u.to(DEVICE), None, None, None, None, gain
    g, _, _ = backend.backward(*operands, 1, TAU, THRESHOLD, kind, parameter, True)
    v = u.double() - THRESHOLD
    exact = {  # as 1 / cosh^2 they keep their digits far from the threshold
        3: parameter / torch.cosh(v).square(),
        4: parameter / 4 / torch.cosh(parameter / 2 * v).square(),
    }.get(kind, surrogate(u.double(), THRESHOLD))
    assert ulps(g.cpu(), exact) <= 4
    assert (exact > 0).sum() > 60


@pytest.mark.parametrize("form", ["contiguous", "channels last"])
@pytest.mark.parametrize("shape", [(3, 2, 17, 5, 3), (2, 2, 70, 9, 5), (2, 2, 3, 33, 17), (9, 3, 5, 2, 2)], ids=str)
def test_sums_against_float64(shape: tuple[int, ...], form: str) -> None:
    """Also over several tiles of channels, of positions, and several segments of time."""
    case = Case(shape, make=torch.randn)
    _, _, g, _ = case.expected(TRIANGLE[2])
    g_out, _, sums = case.backward(0, 1.0, FORMATS[form])
    assert_same(g_out, g)
    g = g.double()
    mean, mean_residual = (a[0].double()[:, None, None] for a in (case.affine, case.residual_affine) if a is not None)
    assert case.residual is not None
    terms = torch.stack([g, g * (case.x - mean), g * (case.residual - mean_residual)])
    assert sums.dtype == torch.float64
    error = (sums.cpu() - terms.sum((1, 2, 4, 5))).abs()
    assert (error <= 2**-21 * terms.abs().sum((1, 2, 4, 5))).all()
    assert_same(sums, case.backward(0, 1.0, FORMATS[form])[2].cpu())


@pytest.mark.parametrize(("affine", "residual"), [(False, False), (True, False), (False, True)])
def test_every_operand_is_optional(affine: bool, residual: bool) -> None:
    case = Case((4, 2, 5, 3, 3), affine=affine, residual=residual)
    spikes, u, g, _ = case.expected(TRIANGLE[2])
    assert_same(case.forward()[0], spikes)
    assert_same(case.forward()[1], u)
    g_out, _, sums = case.backward(0, 1.0)
    assert_same(g_out, g)
    assert sums.shape == (3, 5)
    assert not sums[2].any()
    assert sums[1].any() == affine


def test_without_state_and_membrane_gradient_both_are_zero() -> None:
    case = Case((3, 2, 5, 3, 3))
    case.state, case.grad_membrane = torch.zeros_like(case.state), torch.zeros_like(case.grad_membrane)
    forward, backward = case.forward(), case.backward(0, 1.0)
    case.state = case.grad_membrane = None  # pyright: ignore
    for a, b in zip((*forward, *backward), (*case.forward(), *case.backward(0, 1.0)), strict=True):
        assert_same(a, b.cpu())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("steps", [1, 3, 11])
def test_static_picture_equals_its_repetition(steps: int, dtype: torch.dtype) -> None:
    case = Case((1, 2, 5, 4, 4), steps=steps, residual=False, dtype=dtype)
    spikes, u, g, grad_state = case.expected(sb.surrogate.Rectangle(2.0))
    spikes_out, u_out = case.forward(channels_last)
    assert_same(spikes_out, spikes.to(dtype))
    assert_same(u_out, u)
    g_out, grad_state_out, sums = case.backward(1, 2.0, channels_last)
    assert_same(grad_state_out, grad_state)
    unit = 2**-7 if dtype == torch.bfloat16 else 2**-23  # another order of the sum, and bf16 as in `stored`
    torch.testing.assert_close(g_out.float().cpu(), g, rtol=unit, atol=2**-20)
    assert case.affine is not None
    terms = torch.stack([g, g * (case.x - case.affine[0][:, None, None])]).double()
    torch.testing.assert_close(sums[:2].cpu(), terms.sum((1, 2, 4, 5)), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("steps", [8, 9, 19])
def test_long_runs_are_cut_into_segments_without_a_seam(steps: int) -> None:
    case = Case((steps, 1, 5, 3, 3), make=torch.randn)
    _, _, g, grad_state = case.expected(TRIANGLE[2])
    g_out, grad_state_out, _ = case.backward(0, 1.0, channels_last)
    assert_same(g_out, g)
    assert_same(grad_state_out, grad_state)


def test_expanded_gradient_and_overlapping_steps() -> None:
    """spikes.sum().backward() sends one number expanded to all of them; overlapping windows share memory over time."""
    case = Case((3, 2, 5, 2, 2), residual=False)
    case.grad = torch.ones(()).expand(3, 2, 5, 2, 2)
    case.x = torch.as_strided(dyadic(100), (3, 2, 5, 2, 2), (7, 20, 4, 2, 1))
    same = lambda x: x
    assert_same(case.forward(same)[0], case.expected(TRIANGLE[2])[0])
    assert_same(case.backward(0, 1.0, same)[0], case.expected(TRIANGLE[2])[2])


@pytest.mark.parametrize("form", ["contiguous", "channels last"])
def test_offsets_in_64_bits(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case((2, 2, 70, 3, 3))
    first = *case.forward(FORMATS[form]), *case.backward(0, 1.0, FORMATS[form])
    monkeypatch.setattr(backend, "WIDE", 0)
    assert backend.Layout(case.x).tile["INDEX"] == tl.int64
    for a, b in zip(first, (*case.forward(FORMATS[form]), *case.backward(0, 1.0, FORMATS[form])), strict=True):
        assert_same(a, b.cpu())


def test_results_keep_the_memory_format() -> None:
    case = Case((3, 2, 5, 4, 3))
    for form in (channels_last, torch.Tensor.contiguous):
        x = form(case.x)
        for y in (case.forward(form)[0], case.backward(0, 1.0, form)[0], backend.combine(x, x, torch.ones(4, 5))):
            assert y.stride() == x.stride()


def test_not_a_number_is_not_hidden() -> None:
    case = Case((2, 1, 5, 2, 2), detach=True)
    case.x[0, 0, 0, 0, 0] = math.nan
    g = case.backward(0, 1.0)[0].cpu()
    assert torch.equal(g.isnan(), case.expected(TRIANGLE[2])[2].isnan())
    assert g.isnan().any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("shape", [(2, 2, 70, 9, 5), (2, 2, 3, 33, 17), (3, 4, 5)], ids=str)
def test_moments_against_float64(shape: tuple[int, ...], form: str, dtype: torch.dtype) -> None:
    """A mean of 100 standard deviations costs a sum of squares seven of its digits."""
    means = 100 * torch.randn(shape[2:3])[(...,) + (None,) * (len(shape) - 3)]
    x = FORMATS[form]((torch.randn(shape) + means).to(dtype))
    result = backend.moments(x.to(DEVICE)).cpu()
    dims = [d for d in range(x.ndim) if d != 2]
    variance, mean = torch.var_mean(x.double(), dims, correction=0)
    assert result.dtype == torch.float64
    torch.testing.assert_close(result[0], mean, rtol=1e-6, atol=0)
    torch.testing.assert_close(result[1], variance, rtol=1e-5, atol=0)


def test_moments_of_nothing_are_not_a_number() -> None:
    assert backend.moments(torch.empty(3, 0, 5, 2, 2, device=DEVICE)).isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("shape", SHAPES[1::2], ids=str)
def test_combine_equals_the_formula(shape: tuple[int, ...], form: str, dtype: torch.dtype) -> None:
    g, x, coefficients = dyadic(*shape).to(dtype), dyadic(*shape).to(dtype), torch.randn(4, shape[2])
    mean, a, b, c = coefficients[(...,) + (None,) * (len(shape) - 3)]
    result = backend.combine(g.to(DEVICE), FORMATS[form](x).to(DEVICE), coefficients.to(DEVICE))
    assert_same(result, stored(a * g.float() + b * (x.float() - mean) + c, dtype))


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from spikeback.ops.lif import triton as backend

def compile(kernel, x, **constants):
    constants |= dict(POSITIONS=16, CHANNELS=64, INDEX=triton.language.int32)
    numbers = dict.fromkeys(("tau", "threshold", "height", "slope"), "fp32")
    in_x_dtype = dict.fromkeys(("x", "residual", "spikes", "grad", "g", "out"), x)
    integers = ("steps", "row_size", "positions", "channels", "inner")
    types = {
        name: "constexpr" if name in constants
        else "i32" if name in integers or name.endswith("stride")
        else (numbers | in_x_dtype).get(name, "*fp32")
        for name in kernel.arg_names
    }
    places = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    source = ASTSource(kernel, types, places)
    result = triton.compile(source, target=GPUTarget("cuda", 80, 32), options=backend.ROUNDING)
    assert len(result.asm["cubin"]) > 1000
    assert "mul" in result.asm["ptx"]
    assert "fma.rn" not in result.asm["ptx"], kernel

options = dict(STEPS=2, DETACH=False, STATIC=False)
absent = dict(affine=None, residual=None, residual_affine=None, state=None)
compile(backend.forward_kernel, "*bf16", inner=1)
compile(backend.forward_kernel, "*fp32", **absent)
for kind in (1, 2, 4, 5):
    compile(backend.backward_kernel, "*bf16", KIND=kind, **options)
absent |= dict(grad_membrane=None, sums=None)
compile(backend.backward_kernel, "*fp32", KIND=0, channels=1, inner=1, **options, **absent)
compile(backend.moments_kernel, "*fp16")
compile(backend.combine_kernel, "*bf16")
"""


def test_kernels_compile_for_a_gpu_without_a_fused_multiply_add(tmp_path: Path) -> None:
    """Down to machine code, which needs no GPU; the interpreter accepts code that the compiler refuses."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"TRITON_CACHE_DIR": str(tmp_path)}
    script = tmp_path / "compile.py"
    script.write_text(COMPILE)
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
