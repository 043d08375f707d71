"""Compiles the kernels beside itself, once for each family of processors; run at install time (hatch_build.py).

`python -m spikeback.ops.native.build` does it by hand. Only the standard library is used: nothing else is there yet.
"""

import hashlib
import os
import platform
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

HERE = Path(__file__).parent
SOURCES = ("kernels.cpp", "convolution.cpp")
# No fused multiply-add but where it is written out: spikes are those of the reference. Infinities and NaNs stay.
FLAGS = ["-std=c++17", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fopenmp"]
LEVELS = {"x86_64": {"avx512": "x86-64-v4", "avx2": "x86-64-v3", "default": "x86-64"}}
LEVELS["AMD64"] = LEVELS["x86_64"]


def library(level: str) -> Path:
    """Where the kernels for one family of processors lie."""
    return HERE / f"kernels-{level}.so"


def digest() -> str:
    """Of the sources, kept in what is compiled from them: kernels of other sources are not used."""
    return hashlib.sha256(b"".join((HERE / name).read_bytes() for name in SOURCES)).hexdigest()[:16]


def build(compiler: str | None = None) -> list[Path]:
    """Compile every variant, all at the same time, and return their paths; all appear, whole, or none does.

    Raises:
        OSError, subprocess.CalledProcessError: no compiler, or one that cannot do this; its words are in `stderr`.
    """
    words = shlex.split(compiler or os.environ.get("CXX") or "c++")
    levels = LEVELS.get(platform.machine(), {"default": None})
    paths = [library(level) for level in levels]
    parts = [path.with_suffix(".part") for path in paths]
    try:
        with ThreadPoolExecutor() as pool:
            list(pool.map(partial(_compile, words), levels.values(), parts))
        return [part.replace(path) for part, path in zip(parts, paths, strict=True)]
    finally:
        for part in parts:
            part.unlink(missing_ok=True)


def _compile(compiler: list[str], march: str | None, to: Path) -> None:
    tuned = [f"-march={march}"] if march else []
    flags = [*FLAGS, *tuned, f'-DSPIKEBACK_SOURCE="{digest()}"', "-shared", "-fPIC"]
    command = [*compiler, *flags, *(str(HERE / name) for name in SOURCES), "-o", str(to)]
    subprocess.run(command, check=True, capture_output=True, encoding="utf-8", errors="replace")


if __name__ == "__main__":
    try:
        print(*build(), sep="\n")
    except subprocess.CalledProcessError as error:
        sys.exit(error.stderr)
    except OSError as error:
        sys.exit(f"error: {error}; install a C++ compiler (c++, g++ or clang++), or name one in CXX")
