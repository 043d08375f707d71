"""The compiled kernels, if they were built (build.py): `available()`, and one function for each operation."""

import ctypes
import warnings
from typing import Any

import torch
from torch import Tensor

from spikeback.ops.native.build import digest, library

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
        + [(name, ctypes.c_int) for name in ("kind", "detach_reset", "repeated", "half", "threads")]
    )


def _load() -> ctypes.CDLL | None:
    """The library for this processor; it shares OpenMP's threads with PyTorch, which has loaded libgomp before."""
    capability = torch.backends.cpu.get_cpu_capability().lower()
    path = next((path for path in map(library, (capability, "default")) if path.is_file()), None)
    if path is None:
        return None
    try:
        kernels = ctypes.CDLL(str(path))
        kernels.spikeback_source.restype = ctypes.c_char_p
        if (source := kernels.spikeback_source().decode()) == digest():
            return kernels
        reason = f"{path.name} was built from other sources ({source}, not {digest()})"
    except (OSError, AttributeError) as error:  # built elsewhere, for another C library or OpenMP; or before this check
        reason = str(error)
    remedy = "build them again: python -m spikeback.ops.native.build"
    warnings.warn(
        f"spikeback: PyTorch's operations instead of the compiled kernels: {reason}; {remedy}", RuntimeWarning, 2
    )
    return None


KERNELS = _load()
CONVOLVES = hasattr(KERNELS, "spikeback_convolve")  # x86 with fused multiply-add


def available() -> bool:
    """Whether the kernels were built when the package was installed."""
    return KERNELS is not None


def run(name: str, numbers: int, half: bool, **values: Any) -> None:
    """Call a kernel; tensors are passed as their addresses, `numbers` is the amount of work."""
    addresses = {k: v.data_ptr() if isinstance(v, Tensor) else v for k, v in values.items()}
    threads = torch.get_num_threads() if numbers > SMALL else 1
    getattr(KERNELS, f"spikeback_{name}")(ctypes.byref(Call(half=half, threads=threads, **addresses)))


def call(name: str, *arguments: Any) -> Any:
    """Call another function of the library: tensors go as addresses, whole numbers as int64, others as double."""
    return getattr(KERNELS, f"spikeback_{name}")(*map(_as_c, arguments))


def _as_c(value: Any) -> Any:
    if isinstance(value, Tensor):
        return ctypes.c_void_p(value.data_ptr())
    kind = {int: ctypes.c_int64, bool: ctypes.c_int64, float: ctypes.c_double}.get(type(value))
    return value if kind is None else kind(value)


class Geometry(ctypes.Structure):
    """Of a convolution, as in convolution.cpp; sizes are its input's."""

    _fields_ = [(name, ctypes.c_int64) for name in ["images", "height", "width", "channels", "channels_out", "stride"]]


def run_convolution(name: str, x: Tensor, other: Tensor, out: Tensor, geometry: tuple[int, ...]) -> None:
    """Call a kernel of convolution.cpp with a `Geometry`.

    Raises:
        MemoryError: for the transformed tiles.
    """
    getattr(KERNELS, f"spikeback_{name}").restype = ctypes.c_bool
    threads = torch.get_num_threads() if x.numel() > SMALL else 1
    if not call(name, ctypes.byref(Geometry(*geometry)), x, other, out, threads):
        raise MemoryError(f"spikeback: no memory left for a convolution of {tuple(x.shape)}")
