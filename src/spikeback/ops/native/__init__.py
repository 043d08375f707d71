"""The compiled kernels, if they were built (build.py): `available()`, and one function for each operation."""

import ctypes
import warnings
from typing import Any

import torch
from torch import Tensor

from spikeback.ops.native.build import library

POINTERS = "x residual grad out affine affine2 state grad_membrane coefficients membrane grad_state sums bits"
LENGTHS = "x_step residual_step grad_step steps outer channels inner"
SMALL = 1 << 15  # numbers; below, a second thread costs more than it brings


class Call(ctypes.Structure):
    """The arguments of every kernel, as in kernels.cpp."""

    _fields_ = (
        [(name, ctypes.c_void_p) for name in POINTERS.split()]
        + [(name, ctypes.c_int64) for name in LENGTHS.split()]
        + [("parameter", ctypes.c_double)]
        + [(name, ctypes.c_float) for name in ("tau", "threshold", "gain")]
        + [(name, ctypes.c_int) for name in ("kind", "detach_reset", "still", "half", "threads")]
    )


def _load() -> ctypes.CDLL | None:
    """The library for this processor; it shares OpenMP's threads with PyTorch, which has loaded libgomp before."""
    for level in (torch.backends.cpu.get_cpu_capability().lower(), "default"):
        if library(level).is_file():
            try:
                return ctypes.CDLL(str(library(level)))
            except OSError as error:  # built elsewhere, for another C library or OpenMP
                warnings.warn(f"spikeback: the compiled kernels do not load, PyTorch's operations instead: {error}",
                              RuntimeWarning, stacklevel=2)  # fmt: skip
    return None


KERNELS = _load()


def available() -> bool:
    """Whether the kernels were built when the package was installed."""
    return KERNELS is not None


def run(name: str, numbers: int, half: bool, **values: Any) -> None:
    """Call a kernel; tensors are passed as their addresses, `numbers` is the amount of work."""
    addresses = {k: v.data_ptr() if isinstance(v, Tensor) else v for k, v in values.items()}
    threads = torch.get_num_threads() if numbers > SMALL else 1
    getattr(KERNELS, f"spikeback_{name}")(ctypes.byref(Call(half=half, threads=threads, **addresses)))
