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
    assert backend.Layout(case.x).tile["INDEX"] == tl.int64
    for a, b in zip(first, run(), strict=True):
        assert_same(a, b.cpu())


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
