"""The primitives of the fused neuron on a GPU: Triton kernels (kernels.py) behind tensors.

What they compute is said in cpu.py. Triton's interpreter runs the same lines on a CPU.
"""

import ctypes
import math
from functools import lru_cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from spikeback.ops.lif import kernels
from spikeback.ops.lif.kernels import ROUNDING
from spikeback.ops.lif.layout import Affine, Statistics, is_channels_last

TILE = 1024  # 8 numbers a thread: 16 bytes a load in half precision
SEGMENT = 8  # time steps whose membrane a program of the backward pass keeps in registers: 64 of a thread's 255
PARTS = 1024  # programs that share the sums by channel: enough for every GPU, few enough to be added up at once
WIDE = 2**31 - 2**20  # numbers a time step, from which on offsets need 64 bits; the last tile may reach beyond
NOTHING = (None, None, None, None)


def shape(kind: int, parameter: float, threshold: float) -> tuple[float, float]:
    """(height, slope or half width) of a surrogate, as `derivative` reads them."""
    p = ctypes.c_float(parameter).value  # the reference divides float32 by float32
    return (
        lambda: (p, 1 / threshold),
        lambda: (1 / p, p / 2),
        lambda: (2 * parameter / math.tanh(parameter / 2), 2 * parameter),
        lambda: (4 * p, 2.0),
        lambda: (p, p),
        lambda: (parameter / 2, math.pi / 2 * parameter),
    )[kind]()


class Layout:
    """How a time step lies in memory, and the tiles it is cut into; `strides` are those of a dense step (B, C, ...)."""

    def __init__(self, shape: tuple[int, ...], strides: tuple[int, ...], by_channel: bool) -> None:
        self.last = is_channels_last(torch.empty_strided(shape, strides, device="meta"))
        step = torch.empty(shape[1:], device="meta")
        self.shape, self.size = step.shape, step.numel()
        self.strides = (step.contiguous(memory_format=torch.channels_last) if self.last else step).stride()
        self.channels = shape[2] if by_channel else 1
        self.inner = 1 if self.last or not by_channel else math.prod(shape[3:])
        self.positions = self.size // max(self.channels, 1)
        wide = triton.next_power_of_2(max(self.channels, 1))
        if self.inner == 1:  # neighbours in memory are channels: 64 of them fill whole cache lines
            channels = min(wide, 64)
            positions = TILE // channels
        else:
            positions = min(TILE, triton.next_power_of_2(max(self.positions, 1)))
            channels = min(wide, TILE // positions)
        self.tiles, self.columns = triton.cdiv(self.positions, positions), triton.cdiv(self.channels, channels)
        self.parts = min(self.tiles, max(PARTS // max(self.columns, 1), 64))  # that take the tiles in turns
        index = tl.int64 if self.size > WIDE else tl.int32
        self.tile: dict[str, Any] = {"POSITIONS": positions, "CHANNELS": channels, "INDEX": index}

    def like(self, x: Tensor) -> Tensor:
        """x (T, B, C, ...) if each of its steps lies as these, else a copy that does."""
        same = zip(x.shape[1:], x.stride()[1:], self.strides, strict=True)
        return x if all(a == b or n == 1 for n, a, b in same) else self.empty(x, len(x)).copy_(x)

    def state(self, x: Tensor | None) -> Tensor | None:
        """A membrane (B, C, ...), or its gradient, as one step."""
        return None if x is None else self.like(x[None])

    def empty(self, like: Tensor, steps: int, dtype: torch.dtype | None = None) -> Tensor:
        """(T, B, C, ...) of such steps."""
        shape, strides = (steps, *self.shape), (self.size, *self.strides)
        return torch.empty_strided(shape, strides, dtype=dtype or like.dtype, device=like.device)

    def launch(self, kernel: Any, *arguments: Any, parts: bool = False, **constants: Any) -> None:
        """Run a kernel for every tile or, of those with `parts`, for the parts that share them."""
        sizes = self.positions, self.channels, self.inner
        programs = (self.parts if parts else self.tiles) * self.columns
        shared = (self.tiles, self.parts) if parts else ()
        launch(kernel, programs, *arguments, *shared, *sizes, **self.tile, **constants)

    def sum_up(self, kernel: Any, rows: int, *arguments: Any, **constants: Any) -> None:
        """Run a kernel that adds up parts by channel, for `rows` rows of them."""
        wide = min(triton.next_power_of_2(max(self.channels, 1)), 8)
        programs = rows * triton.cdiv(self.channels, wide)
        launch(kernel, programs, *arguments, CHANNELS=wide, PARTS=128, **constants)


@lru_cache(maxsize=1024)
def _layout(shape: tuple[int, ...], strides: tuple[int, ...], by_channel: bool, *_: int) -> Layout:
    return Layout(shape, strides, by_channel)


def layout_of(x: Tensor, by_channel: bool = True) -> Layout:
    """The layout of x (T, B, C, ...), made once."""
    return _layout(x.shape, x.stride(), by_channel, WIDE)


def launch(kernel: Any, programs: int, *arguments: Any, **constants: Any) -> None:
    with torch.cuda.device_of(arguments[0]):
        kernel[(programs,)](*arguments, **constants, **ROUNDING)


def cut(x: Tensor | None, begin: int) -> Tensor | None:
    """From a time step on; a static image is the same at each of them."""
    return x[begin:] if begin and x is not None and len(x) > 1 else x


def stride(x: Tensor | None) -> int:
    return 0 if x is None or len(x) == 1 else x.stride(0)


def forward(
    x: Tensor, affine: Affine | None, residual: Tensor | None, affine2: Affine | None, state: Tensor | None,
    time_steps: int, tau: float, threshold: float, keep_membrane: bool = True,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    layout = layout_of(x, affine is not None)
    spikes = layout.empty(x, time_steps)
    states = _walk(layout, x, affine, residual, affine2, state, spikes, time_steps, tau, threshold, keep_membrane)
    return spikes, x.new_empty(0, dtype=torch.float32) if states[-1] is None else states[-1][0]


def _walk(
    layout: Layout, x: Tensor, affine: Affine | None, residual: Tensor | None, affine2: Affine | None,
    state: Tensor | None, spikes: Tensor | None, time_steps: int, tau: float, threshold: float, keep_membrane: bool,
) -> list[Tensor | None]:  # fmt: skip
    """Through time in segments: the membranes (1, B, C, ...) they begin with, and the last one, if it is kept."""
    x, residual = layout.like(x), None if residual is None else layout.like(residual)
    states = [layout.state(state)]
    for begin in range(0, time_steps, SEGMENT):
        end = min(begin + SEGMENT, time_steps)
        kept = keep_membrane or end < time_steps
        states.append(layout.empty(x, 1, torch.float32) if kept else None)
        layout.launch(
            kernels.forward_kernel, cut(x, begin), cut(residual, begin), *(affine or NOTHING), *(affine2 or NOTHING),
            states[-2], cut(spikes, begin), states[-1], stride(x), stride(residual), layout.size, tau, threshold,
            STEPS=end - begin,
        )  # fmt: skip
    return states


def backward(
    grad: Tensor, grad_membrane: Tensor | None, x: Tensor, affine: Affine | None, residual: Tensor | None,
    affine2: Affine | None, state: Tensor | None, gain: Tensor, time_steps: int, tau: float, threshold: float,
    kind: int, parameter: float, detach_reset: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """As in cpu.py. The membrane is recomputed, never stored over time: in registers for up to SEGMENT steps; a longer
    run is walked through once for its state every SEGMENT steps (4 bytes a neuron each), then segment by segment from
    the end, the gradient of a segment's first state being that of the membrane which the segment before it ends with.
    """
    layout = layout_of(x, affine is not None)
    static = len(x) < time_steps
    grad, x, residual = layout.like(grad), layout.like(x), None if residual is None else layout.like(residual)
    first = (time_steps - 1) // SEGMENT * SEGMENT  # of the last segment's time steps
    states = _walk(layout, x, affine, residual, affine2, state, None, first, tau, threshold, True)

    g = layout.empty(x, 1, torch.float32).zero_() if static else layout.empty(x, time_steps)
    sums = x.new_empty(3, layout.channels, dtype=torch.float64) if affine else x.new_zeros(3, 1, dtype=torch.float64)
    parts = x.new_empty(3, layout.parts, layout.channels, dtype=torch.float32) if affine else None
    after = layout.state(grad_membrane)
    exact = math.frexp(threshold)[0] == 0.5  # a power of two
    for begin, u in zip(range(first, -1, -SEGMENT), reversed(states), strict=True):
        end, last = min(begin + SEGMENT, time_steps), begin + SEGMENT >= time_steps
        before = layout.empty(x, 1, torch.float32) if begin > 0 or state is not None else None
        layout.launch(
            kernels.backward_kernel, cut(grad, begin), after, cut(x, begin), cut(residual, begin), *(affine or NOTHING),
            *(affine2 or NOTHING), u, gain, cut(g, begin), before, parts, stride(grad), stride(x), stride(residual),
            layout.size, tau, threshold, *shape(kind, parameter, threshold), parts=True,
            STEPS=end - begin, KIND=kind, EXACT=exact, DETACH=detach_reset, STATIC=static,
        )  # fmt: skip
        if parts is not None:
            layout.sum_up(kernels.sums_kernel, 3, parts, sums, layout.parts, layout.channels, MORE=not last)
        after = before
    grad_state = x.new_empty(0) if after is None or state is None else after[0]
    return g.to(x.dtype), grad_state, sums


def moments(x: Tensor) -> Tensor:
    result = x.new_full((2, x.shape[2]), math.nan, dtype=torch.float64)
    if x.numel():
        _moments(x, result, None, NOTHING[:3], 0.0, 0.0)
    return result


def normaliser(x: Tensor, statistics: Statistics, momentum: float, eps: float) -> Tensor:
    result = x.new_empty(2, x.shape[2], dtype=torch.float32)
    _moments(x, None, result, statistics, momentum, eps)
    return result


def _moments(
    x: Tensor, moments: Tensor | None, normaliser: Tensor | None, statistics: Statistics, momentum: float, eps: float
) -> None:
    layout = layout_of(x)
    x = layout.like(x)
    parts = x.new_empty(2 * layout.parts + 1, layout.channels, dtype=torch.float32)
    layout.launch(kernels.moments_kernel, x, parts, stride(x), len(x), parts=True)
    count = len(x) * layout.positions
    layout.sum_up(
        kernels.normaliser_kernel, 1, parts, moments, normaliser, *statistics, momentum, count, layout.parts,
        layout.channels, EPS=eps,
    )  # fmt: skip


def gradients(
    sums: Tensor, pooled: Tensor | None, count: int, affine: Affine, affine2: Affine | None, batch_statistics: bool
) -> tuple[Tensor, Tensor, Tensor]:
    channels = sums.shape[1]
    numbers = sums.new_empty(3, 4, channels, dtype=torch.float32)
    parameters, coefficients, coefficients2 = numbers
    weight, _, mean, inverse = affine
    weight2, _, mean2, inverse2 = affine2 or NOTHING
    launch(
        kernels.gradients_kernel, triton.cdiv(channels, 64), sums, pooled, weight, mean, inverse, weight2, mean2,
        inverse2, parameters, coefficients, coefficients2 if affine2 else None, count, channels,
        THROUGH=batch_statistics, CHANNELS=64,
    )  # fmt: skip
    return parameters, coefficients, coefficients2


def combine(g: Tensor, x: Tensor, coefficients: Tensor, out: Tensor | None = None) -> Tensor:
    layout = layout_of(x)
    g, x = layout.like(g), layout.like(x)
    out = layout.empty(x, len(x)) if out is None else out
    layout.launch(kernels.combine_kernel, g, x, coefficients, out, stride(g), stride(x), out.stride(0), len(x))
    return out
