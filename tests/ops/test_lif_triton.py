"""What only the Triton backend has: offsets in 64 bits, and compilation for a GPU that need not be there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

import triton.language as tl

from spikeback.ops.lif import triton as backend

from .cases import FORMATS, Case, assert_same


@pytest.mark.parametrize("form", ["contiguous", "channels last"])
def test_offsets_in_64_bits(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case((2, 2, 70, 3, 3))
    run = lambda: (*case.forward(backend, FORMATS[form]), *case.backward(backend, 0, 1.0, FORMATS[form]))
    first = run()
    monkeypatch.setattr(backend, "WIDE", 0)
    assert backend.layout_of(case.x).tile["INDEX"] == tl.int64
    for a, b in zip(first, run(), strict=True):
        assert_same(a, b.cpu())


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from spikeback.ops.lif import kernels

def compile(kernel, x, exact=True, vectors=False, **constants):
    constants = dict(POSITIONS=16, CHANNELS=64, INDEX=triton.language.int32, PARTS=128) | constants
    constants = {name: value for name, value in constants.items() if name in kernel.arg_names}
    numbers = dict.fromkeys(("tau", "threshold", "height", "slope", "momentum"), "fp32")
    in_x_dtype = dict.fromkeys(("x", "residual", "spikes", "grad", "g", "out"), x)
    integers = ("steps", "row_size", "tiles", "parts", "count", "positions", "channels", "inner")
    finish = kernel in (kernels.normaliser_kernel, kernels.gradients_kernel, kernels.sums_kernel)
    in_float64 = ("moments", "sums", "pooled") if finish else ()
    types = {
        name: "constexpr" if name in constants
        else "i32" if name in integers or name.endswith("stride")
        else "*fp64" if name in in_float64
        else "*i64" if name == "tracked"
        else (numbers | in_x_dtype).get(name, "*fp32")
        for name in kernel.arg_names
    }
    places = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    sixteens = [n for n, kind in types.items() if kind[0] == "*" or (kind == "i32" and n not in kernels.SIZES)]
    attrs = {(kernel.arg_names.index(name),): [["tt.divisibility", 16]] for name in sixteens}
    source = ASTSource(kernel, types, places, attrs)
    result = triton.compile(source, target=GPUTarget("cuda", 80, 32), options=kernels.ROUNDING)
    assert len(result.asm["cubin"]) > 1000
    assert "add" in result.asm["ptx"]
    assert not vectors or "ld.global.v4" in result.asm["ptx"], kernel
    assert not exact or "fma.rn" not in result.asm["ptx"], kernel

norm2 = dict.fromkeys(("weight2", "bias2", "mean2", "inverse2"))
norms = norm2 | dict.fromkeys(("weight", "bias", "mean", "inverse"))
options = dict(STEPS=2, DETACH=False, STATIC=False)
absent = norms | dict(residual=None, state=None)
compile(kernels.forward_kernel, "*bf16", STEPS=2, inner=1)
compile(kernels.forward_kernel, "*fp32", STEPS=2, membrane=None, **absent)
compile(kernels.forward_kernel, "*bf16", STEPS=2, membrane=None, channels=1, inner=1, vectors=True, **absent,
        POSITIONS=1024, CHANNELS=1)
for kind in (1, 2, 4, 5):
    compile(kernels.backward_kernel, "*bf16", KIND=kind, exact=kind in (1, 5), EXACT=False, **options)
absent |= dict(grad_membrane=None, grad_state=None, sums=None)
for exact in (False, True):
    compile(kernels.backward_kernel, "*fp32", KIND=0, EXACT=exact, channels=1, inner=1, **options, **absent)
compile(kernels.moments_kernel, "*fp16")
compile(kernels.sums_kernel, "*fp32", MORE=True)
statistics = dict.fromkeys(("running_mean", "running_var", "tracked"))
compile(kernels.normaliser_kernel, "*fp16", EPS=1e-5, normaliser=None, **statistics, exact=False)
compile(kernels.normaliser_kernel, "*fp32", EPS=1e-5, moments=None, exact=False)
compile(kernels.gradients_kernel, "*fp32", THROUGH=True, exact=False)
compile(kernels.gradients_kernel, "*fp32", THROUGH=False, pooled=None, coefficients2=None, **norm2, exact=False)
compile(kernels.combine_kernel, "*bf16")
"""


@pytest.mark.slow
def test_kernels_compile_for_a_gpu_without_a_fused_multiply_add(tmp_path: Path) -> None:
    """Down to machine code, which needs no GPU; the interpreter accepts code that the compiler refuses."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"TRITON_CACHE_DIR": str(tmp_path)}
    script = tmp_path / "compile.py"
    script.write_text(COMPILE)
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
