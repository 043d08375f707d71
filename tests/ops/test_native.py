"""The compiled kernels: building and loading them, and that they touch no memory but their own."""

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from spikeback.ops import native
from spikeback.ops.lif import cpu
from spikeback.ops.native import build

from .cases import channels_last, dyadic

needs_kernels = pytest.mark.skipif(not native.available(), reason="no compiled kernels")
needs_compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="no compiler")
LEVELS = build.LEVELS.get(build.platform.machine(), {"default": None})


FILES = {"build.py", *build.SOURCES}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of build.py and the sources alone, as the build hook runs them."""
    for name in FILES:
        shutil.copy(build.HERE / name, tmp_path / name)
    return tmp_path


def run_build(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-I", str(folder / "build.py")]
    return subprocess.run(words, env=os.environ | environment, capture_output=True, text=True)


def compiler(folder: Path, body: str) -> str:
    path = folder / "compiler"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.mark.slow
@needs_compiler
def test_every_variant_is_built_beside_its_source(source: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    done = run_build(source, CXX=compiler(tmp_path_factory.mktemp("bin"), 'exec c++ "$@" -O0'))  # ten times as fast
    assert done.returncode == 0, done.stderr
    made = {f"kernels-{level}.so" for level in LEVELS}
    assert {path.name for path in source.iterdir()} == made | FILES
    assert done.stdout.split() == [str(source / f"kernels-{level}.so") for level in LEVELS]


@needs_kernels
@pytest.mark.skipif(shutil.which("objdump") is None or "avx2" not in LEVELS, reason="needs objdump and x86")
def test_no_fused_multiply_add_is_in_the_machine_code_of_neurons() -> None:
    for level in ("avx2", "avx512"):
        code = subprocess.run(["objdump", "-d", build.library(level)], capture_output=True, text=True, check=True)
        functions = code.stdout.split("\n\n")
        neurons = [f for f in functions if not re.search("<.*(winograd|convolve).*>:", f)]
        assert sum("vmulps" in f for f in neurons) > 5
        assert not any("vfm" in f or "vfnm" in f for f in neurons)
        assert any("vfm" in f for f in functions)


@pytest.mark.parametrize(
    ("cxx", "words"),
    [("/bin/false", ""), ("/no/such/compiler", "install a C++ compiler"), ("", "install a C++ compiler")],
)
def test_without_a_compiler_it_says_so_and_leaves_nothing(source: Path, cxx: str, words: str) -> None:
    done = run_build(source, CXX=cxx, PATH="/nowhere")
    assert done.returncode != 0
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert {path.name for path in source.iterdir()} == FILES


def test_a_compiler_that_fails_halfway_leaves_no_part(source: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """It writes rubbish, then complains: the words are handed on, and what was there before stays."""
    body = 'while [ "$1" != -o ]; do shift; done; echo rubbish > "$2"; echo "no disk" >&2; exit 1'
    (source / "kernels-default.so").write_text("before")
    done = run_build(source, CXX=compiler(tmp_path_factory.mktemp("bin"), body))
    assert done.returncode != 0
    assert "no disk" in done.stderr
    assert not list(source.glob("*.part"))
    assert (source / "kernels-default.so").read_text() == "before"


@pytest.mark.skipif(len(LEVELS) < 2, reason="one variant only")
def test_a_compiler_that_cannot_do_one_variant_leaves_none(
    source: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """An old one does not know x86-64-v4."""
    first = next(iter(LEVELS.values()))
    body = f'case "$*" in *{first}*) exit 1;; esac; while [ "$1" != -o ]; do shift; done; touch "$2"'
    assert run_build(source, CXX=compiler(tmp_path_factory.mktemp("bin"), body)).returncode != 0
    assert {path.name for path in source.iterdir()} == FILES


def test_the_compiler_may_be_named_with_options(source: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """CXX="ccache g++" and the like."""
    body = 'test "$1" = -DOPTION || exit 1; while [ "$1" != -o ]; do shift; done; touch "$2"'
    done = run_build(source, CXX=compiler(tmp_path_factory.mktemp("bin"), body) + " -DOPTION")
    assert done.returncode == 0, done.stderr
    assert len(list(source.glob("*.so"))) == len(LEVELS)


@needs_kernels
def test_a_library_that_does_not_load_is_as_good_as_none(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for level in LEVELS:
        (source / f"kernels-{level}.so").write_text("rubbish")
    monkeypatch.setattr(native, "library", lambda level: source / f"kernels-{level}.so")
    with pytest.warns(RuntimeWarning, match="kernels"):
        assert native._load() is None


@needs_kernels
@needs_compiler
def test_kernels_of_another_source_are_not_used(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an edit or a pull: said once, with the command that helps."""
    main, *others = build.SOURCES
    (source / main).write_text('extern "C" const char *spikeback_source() { return SPIKEBACK_SOURCE; }\n')
    for name in others:
        (source / name).write_text("// another source\n")
    done = run_build(source)
    assert done.returncode == 0, done.stderr
    monkeypatch.setattr(native, "library", lambda level: source / f"kernels-{level}.so")
    with pytest.warns(RuntimeWarning, match=r"other sources.*python -m spikeback\.ops\.native\.build"):
        assert native._load() is None


@pytest.mark.parametrize("name", build.SOURCES)
def test_digest_is_that_of_every_source(source: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "HERE", source)
    before = build.digest()
    with (source / name).open("a") as file:
        file.write("// another source\n")
    assert build.digest() != before


GUARD, PATTERN = 64, 0x7FC01234  # numbers on either side, and their bits: a NaN that no kernel computes


class Guarded:
    """Lends the kernels outputs in the middle of larger buffers, whose rims must stay as they are."""

    def __init__(self) -> None:
        self.buffers: list[tuple[Tensor, int]] = []

    def empty(self, shape: Any, like: Tensor, last: bool, dtype: torch.dtype | None = None) -> Tensor:
        dtype = dtype or like.dtype
        size, width = torch.Size(shape).numel(), torch.empty((), dtype=dtype).itemsize
        buffer = torch.full(((size * width + 3) // 4 + 2 * GUARD,), PATTERN, dtype=torch.int32)
        self.buffers.append((buffer, size * width))
        flat = buffer.view(torch.uint8)[4 * GUARD : 4 * GUARD + size * width].view(dtype)
        if not last:
            return flat.view(shape)
        t, b, c, h, w = shape
        return flat.view(t, b, h, w, c).permute(0, 1, 4, 2, 3)

    def check(self) -> None:
        assert self.buffers
        for buffer, size in self.buffers:
            rim = torch.full_like(buffer, PATTERN).view(torch.uint8)
            before, after = slice(0, 4 * GUARD), slice(4 * GUARD + size, None)
            numbers = buffer.view(torch.uint8)
            assert torch.equal(numbers[before], rim[before])
            assert torch.equal(numbers[after], rim[after])


SHAPES = [(1, 1, 1, 1, 1), (3, 2, 17, 5, 3), (7, 1, 5, 7, 7), (2, 3, 70, 9, 5), (2, 1, 3, 47, 45),
          (2, 1, 2049, 1, 2), (2, 1, 4100, 2, 1), (1, 3, 2048, 3, 1), (5, 3, 1, 33, 31), (3, 0, 5, 2, 2),
          (2, 2, 5, 0, 3), (3, 5, 17), (2, 2, 512, 3, 2), (3, 3, 170, 5, 7)]  # fmt: skip


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_kernels_write_nothing_outside_their_outputs(
    shape: tuple[int, ...], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inputs lie between NaNs as well: one that is read from there would show in the results."""
    guarded = Guarded()
    monkeypatch.setattr(cpu, "empty", guarded.empty)
    monkeypatch.setattr(cpu, "membrane_like", lambda x: guarded.empty((1, *x.shape[1:]), x, cpu.is_channels_last(x),
                                                                      dtype=torch.float32)[0])  # fmt: skip

    def lent(x: Tensor, form: Any) -> Tensor:
        x = form(x)
        return guarded.empty(x.shape, x, cpu.is_channels_last(x)).copy_(x)

    for form in (torch.Tensor.contiguous, channels_last):
        x, residual, grad = (lent(dyadic(*shape).to(dtype), form) for _ in range(3))
        state, grad_membrane = (lent(dyadic(1, *shape[1:]), form)[0] for _ in range(2))
        norm: Any = tuple(lent(dyadic(shape[2]), lambda y: y) for _ in range(8))
        affine, affine2 = norm[:4], norm[4:]
        gain, steps = torch.tensor(1.0), shape[0]
        for norms in ((affine, residual, affine2), (affine, residual, None), (affine, None, None), (None, None, None)):
            results = list(cpu.forward(x, *norms, state, steps, 0.5, 0.5))
            results += cpu.backward(grad, grad_membrane, x, *norms, state, gain, steps, 0.5, 0.5, 2, 3.0, False)
            assert all(y.isfinite().all() for y in results)
        if steps > 1:
            one = lent(dyadic(1, *shape[1:]).to(dtype), form)
            results = list(cpu.forward(one, affine, None, None, None, steps, 0.5, 0.5))
            results += cpu.backward(grad, None, one, affine, None, None, None, gain, steps, 0.5, 0.5, 0, 1.0, True)
            assert all(y.isfinite().all() for y in results)
        coefficients = lent(dyadic(4, shape[2]), lambda y: y)
        assert cpu.combine(grad, x, coefficients).isfinite().all()
        assert cpu.combine(grad, x, coefficients, out=grad).isfinite().all()
        assert x.numel() == 0 or cpu.moments(x).isfinite().all()
        guarded.check()
