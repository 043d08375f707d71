"""The fused normalise + residual add + LIF on a GPU, in Triton; Triton's interpreter runs the same lines on a CPU.

Per time step every tensor is one dense row of numbers, seen as (outer, channels, inner): a channels-last picture is
(B*H*W, C, 1), a contiguous one (B, C, H*W). A program owns a tile of POSITIONS (outer, inner) x CHANNELS and runs
through time, so a channel's sum over a tile is one column, the partial sums have a fixed order, and no atomics are
needed. Spikes and gradients equal the reference's to the bit: products and sums are rounded one by one (`ROUNDING`),
in the order of its autograd.
"""

import ctypes
import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 1024  # 8 numbers a thread: 16 bytes a load in half precision
SEGMENT = 8  # time steps whose membrane a program of the backward pass keeps in registers: 64 of a thread's 255
WIDE = 2**31 - 2**20  # numbers a time step, from which on offsets need 64 bits; the last tile may reach beyond
ROUNDING = {"enable_fp_fusion": False}  # a launch option: no fused multiply-add


@triton.jit
def place(positions, channels, inner, POSITIONS: tl.constexpr, CHANNELS: tl.constexpr, INDEX: tl.constexpr):
    """This program's tile: offsets into a row, channels, and which of them exist; (POSITIONS, CHANNELS) all three."""
    columns = tl.cdiv(channels, CHANNELS)
    k = (tl.program_id(0) // columns).to(INDEX) * POSITIONS + tl.arange(0, POSITIONS)[:, None]
    c = (tl.program_id(0) % columns) * CHANNELS + tl.arange(0, CHANNELS)[None, :]
    return (k // inner * channels + c) * inner + k % inner, c, (k < positions) & (c < channels)


@triton.jit
def row(pointer, t, stride):
    """Where time step t begins; 64 bits, since T rows together may pass 2^31 numbers."""
    return pointer + tl.cast(t, tl.int64) * stride


@triton.jit
def load(pointer, at, inside):
    """In float32; 0 outside, and 0 where there is no tensor."""
    if pointer is None:
        return tl.zeros(at.shape, tl.float32)
    else:
        return tl.load(pointer + at, mask=inside, other=0).to(tl.float32)


@triton.jit
def scalars(affine, c, channels):
    """(mean, scale, shift) of the tile's channels; zeros where there is no tensor."""
    if affine is None:
        zeros = tl.zeros(c.shape, tl.float32)
        return zeros, zeros, zeros
    else:
        real = c < channels
        return load(affine, c, real), load(affine + channels, c, real), load(affine + 2 * channels, c, real)


@triton.jit
def store_part(pointer, which, part, c, channels, CHANNELS: tl.constexpr):
    """A tile's share (1, CHANNELS) of a sum per channel into (which, tile, channel)."""
    columns = tl.cdiv(channels, CHANNELS)
    tile = which * (tl.num_programs(0) // columns) + tl.program_id(0) // columns
    tl.store(row(pointer, tile, channels) + c, part, mask=c < channels)


@triton.jit
def normalise(x, affine, by):
    """`by` the scalars of `affine`; x itself where there is none."""
    if affine is None:
        return x
    else:
        return (x - by[0]) * by[1] + by[2]


@triton.jit
def current(x, residual, affine, residual_affine, by, residual_by, t, x_stride, residual_stride, at, inside):
    total = normalise(load(row(x, t, x_stride), at, inside), affine, by)
    if residual is not None:
        total += normalise(load(row(residual, t, residual_stride), at, inside), residual_affine, residual_by)
    return total


@triton.jit
def exp(x):
    """e^x for x <= 0 to 1 ulp (Cephes' expf, 0 below -87). Triton's own is ex2.approx(x log2 e): wrong by |x| ulp."""
    n = tl.floor(x * 1.44269504088896341 + 0.5)
    r = (x - n * 0.693359375) - n * -2.12194440e-4  # ln 2 in two parts, the first times n exact
    p = ((1.9875691500e-4 * r + 1.3981999507e-3) * r + 8.3334519073e-3) * r + 4.1665795894e-2
    p = ((p * r + 1.6666665459e-1) * r + 5.0000001201e-1) * (r * r) + r + 1
    n = tl.maximum(n, -126).to(tl.int32)
    return tl.where(x < -87, 0.0, p * ((n + 127) << 23).to(tl.float32, bitcast=True))


@triton.jit
def derivative(u, threshold, height, slope, KIND: tl.constexpr):
    """The surrogates of ops/surrogate.py; height and slope from `shape`."""
    v = u - threshold
    if KIND == 0:  # Triangle; a NaN stays one
        off = tl.abs(tl.div_rn(u, threshold) - 1)
        return tl.where(off > 1, 0.0, height * (1 - off))
    elif KIND == 1:  # Rectangle
        return tl.where(tl.abs(v) < slope, height, 0.0)
    elif KIND == 5:  # ATan
        return height * tl.div_rn(1.0, 1 + (slope * v) * (slope * v))  # as PyTorch's float / tensor
    else:  # 1 - tanh^2(z) = 4 e / (1 + e)^2, e = exp(-2 |z|); of Sigmoid, s (1 - s) is a quarter of that
        e = exp(-tl.abs(slope * v))
        bell = tl.div_rn(height * e, (1 + e) * (1 + e))
        return tl.where(tl.abs(v) <= 0.5, bell, 0.0) if KIND == 2 else bell


def shape(kind: int, parameter: float) -> tuple[float, float]:
    """(height, slope or half width) of a surrogate, as `derivative` reads them."""
    p = ctypes.c_float(parameter).value  # the reference divides float32 by float32
    return (
        lambda: (p, 0.0),
        lambda: (1 / p, p / 2),
        lambda: (2 * parameter / math.tanh(parameter / 2), 2 * parameter),
        lambda: (4 * p, 2.0),
        lambda: (p, p),
        lambda: (parameter / 2, math.pi / 2 * parameter),
    )[kind]()


@triton.jit
def forward_kernel(
    x, residual, affine, residual_affine, state, spikes, membrane, x_stride, residual_stride, row_size, steps,
    tau, threshold, positions, channels, inner, POSITIONS: tl.constexpr, CHANNELS: tl.constexpr, INDEX: tl.constexpr,
):  # fmt: skip
    at, c, inside = place(positions, channels, inner, POSITIONS, CHANNELS, INDEX)
    by, residual_by = scalars(affine, c, channels), scalars(residual_affine, c, channels)
    u = load(state, at, inside)
    for t in range(steps):
        u = tau * u + current(
            x, residual, affine, residual_affine, by, residual_by, t, x_stride, residual_stride, at, inside
        )
        s = (u > threshold).to(tl.float32)
        if spikes is not None:
            tl.store(row(spikes, t, row_size) + at, s.to(spikes.dtype.element_ty), mask=inside)
        u = u * (1 - s)
    tl.store(membrane + at, u, mask=inside)


@triton.jit
def backward_kernel(
    grad, grad_membrane, x, residual, affine, residual_affine, state, gain, g, grad_state, sums,
    grad_stride, x_stride, residual_stride, row_size, tau, threshold, height, slope, positions, channels, inner,
    STEPS: tl.constexpr, KIND: tl.constexpr, DETACH: tl.constexpr, STATIC: tl.constexpr,
    POSITIONS: tl.constexpr, CHANNELS: tl.constexpr, INDEX: tl.constexpr,
):  # fmt: skip
    at, c, inside = place(positions, channels, inner, POSITIONS, CHANNELS, INDEX)
    by, residual_by = scalars(affine, c, channels), scalars(residual_affine, c, channels)
    gain = tl.load(gain)
    u = load(state, at, inside)
    history = ()  # u before reset, of all steps: registers, since the loop is unrolled
    for t in tl.static_range(STEPS):  # pyright: ignore
        u = tau * u + current(
            x, residual, affine, residual_affine, by, residual_by, t, x_stride, residual_stride, at, inside
        )
        history += (u,)
        u = u * (1 - (u > threshold).to(tl.float32))

    carry = load(grad_membrane, at, inside)  # dL/d(u after reset)
    zeros = tl.zeros(at.shape, tl.float32)
    total, by_x, by_residual = zeros, zeros, zeros
    for t in tl.static_range(STEPS - 1, -1, -1):  # pyright: ignore
        u = history[t]
        s = (u > threshold).to(tl.float32)
        ds = load(row(grad, t, grad_stride), at, inside)
        if not DETACH:
            ds = ds - carry * u
        g_t = carry * (1 - s) + ds * (gain * derivative(u, threshold, height, slope, KIND))
        carry = tau * g_t
        total += g_t
        if affine is not None:
            by_x += g_t * (load(row(x, t, x_stride), at, inside) - by[0])
        if residual_affine is not None:
            by_residual += g_t * (load(row(residual, t, residual_stride), at, inside) - residual_by[0])
        if not STATIC:
            tl.store(row(g, t, row_size) + at, g_t.to(g.dtype.element_ty), mask=inside)
    if STATIC:
        tl.store(g + at, load(g, at, inside) + total, mask=inside)
    tl.store(grad_state + at, carry, mask=inside)
    if sums is not None:
        store_part(sums, 0, tl.sum(total, 0, keep_dims=True), c, channels, CHANNELS)
        store_part(sums, 1, tl.sum(by_x, 0, keep_dims=True), c, channels, CHANNELS)
        store_part(sums, 2, tl.sum(by_residual, 0, keep_dims=True), c, channels, CHANNELS)


@triton.jit
def moments_kernel(
    x, means, squares, x_stride, steps, positions, channels, inner,
    POSITIONS: tl.constexpr, CHANNELS: tl.constexpr, INDEX: tl.constexpr,
):  # fmt: skip
    """Of each tile: its mean and the sum of squares around it, so that a mean far from 0 costs no digits."""
    at, c, inside = place(positions, channels, inner, POSITIONS, CHANNELS, INDEX)
    count = tl.sum(inside.to(tl.float32), 0, keep_dims=True)
    near = tl.div_rn(tl.sum(load(x, at, inside), 0, keep_dims=True), tl.maximum(count, 1))  # the first step's mean
    total, squared = tl.zeros(at.shape, tl.float32), tl.zeros(at.shape, tl.float32)
    for t in range(steps):
        off = tl.where(inside, load(row(x, t, x_stride), at, inside) - near, 0.0)
        total += off
        squared += off * off
    beyond = tl.sum(total, 0, keep_dims=True)
    mean = tl.div_rn(beyond, tl.maximum(count * steps, 1))
    store_part(means, 0, near + mean, c, channels, CHANNELS)
    store_part(squares, 0, tl.sum(squared - total * mean, 0, keep_dims=True), c, channels, CHANNELS)


@triton.jit
def combine_kernel(
    g, x, coefficients, out, g_stride, x_stride, row_size, steps, positions, channels, inner,
    POSITIONS: tl.constexpr, CHANNELS: tl.constexpr, INDEX: tl.constexpr,
):  # fmt: skip
    at, c, inside = place(positions, channels, inner, POSITIONS, CHANNELS, INDEX)
    mean, a, b = scalars(coefficients, c, channels)  # pyright: ignore
    shift = load(coefficients + 3 * channels, c, c < channels)
    for t in range(steps):
        g_t, x_t = load(row(g, t, g_stride), at, inside), load(row(x, t, x_stride), at, inside)
        value = a * g_t + b * (x_t - mean) + shift
        tl.store(row(out, t, row_size) + at, value.to(out.dtype.element_ty), mask=inside)


class Layout:
    """How a time step of x lies in memory, and the tiles it is cut into."""

    def __init__(self, x: Tensor, by_channel: bool = True) -> None:
        self.last = x.ndim > 2 and x[0].movedim(1, -1).is_contiguous()
        self.shape = x[0].movedim(1, -1).shape if self.last else x.shape[1:]
        self.size = self.shape.numel()
        self.channels = x.shape[2] if by_channel else 1
        self.inner = 1 if self.last or not by_channel else x.shape[3:].numel()
        self.positions = self.size // max(self.channels, 1)
        wide = triton.next_power_of_2(max(self.channels, 1))
        if self.inner == 1:  # neighbours in memory are channels: 64 of them fill whole cache lines
            channels = min(wide, 64)
            positions = TILE // channels
        else:
            positions = min(TILE, triton.next_power_of_2(max(self.positions, 1)))
            channels = min(wide, TILE // positions)
        self.tiles = triton.cdiv(self.positions, positions)
        self.programs = self.tiles * triton.cdiv(self.channels, channels)
        index = tl.int64 if self.size > WIDE else tl.int32
        self.tile: dict[str, Any] = {"POSITIONS": positions, "CHANNELS": channels, "INDEX": index}

    def rows(self, x: Tensor) -> Tensor:
        """(T, B, C, ...) -> (T, size) in this order, every row dense; a view wherever x's format allows it."""
        rows = (x.movedim(2, -1) if self.last else x[..., None]).flatten(1)
        return rows if rows.stride(1) == 1 else rows.contiguous()  # an expanded x flattens to stride 0

    def optional(self, x: Tensor | None) -> Tensor | None:
        return None if x is None else self.rows(x)

    def back(self, rows: Tensor) -> Tensor:
        """(T, size) -> (T, B, C, ...) in the format of the x that the layout was made from."""
        x = rows.view(len(rows), *self.shape)
        return x.movedim(-1, 2) if self.last else x

    def launch(self, kernel: Any, *arguments: Any, **constants: Any) -> None:
        sizes = self.positions, self.channels, self.inner
        with torch.cuda.device_of(arguments[0]):
            kernel[(self.programs,)](*arguments, *sizes, **self.tile, **constants, **ROUNDING)


def cut(rows: Tensor | None, begin: int, end: int) -> Tensor | None:
    """Time steps begin..end; a static picture is the same at each of them."""
    return rows if rows is None or len(rows) == 1 else rows[begin:end]


def stride(rows: Tensor | None) -> int:
    return 0 if rows is None or len(rows) == 1 else rows.stride(0)


def forward(
    x: Tensor, affine: Tensor | None, residual: Tensor | None, residual_affine: Tensor | None, state: Tensor | None,
    time_steps: int, tau: float, threshold: float, keep_membrane: bool = True,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Spikes (T, B, C, ...) in x's format, and the membrane after the last reset (B, C, ...); empty if not kept."""
    layout = Layout(x, affine is not None or residual_affine is not None)
    spikes = x.new_empty(time_steps, layout.size)
    membrane = x.new_empty(1, layout.size, dtype=torch.float32)
    x_rows, r_rows, u = (
        layout.rows(x),
        layout.optional(residual),
        layout.optional(None if state is None else state[None]),
    )
    layout.launch(
        forward_kernel, x_rows, r_rows, affine, residual_affine, u, spikes, membrane,
        stride(x_rows), stride(r_rows), layout.size, time_steps, tau, threshold,
    )  # fmt: skip
    return layout.back(spikes), layout.back(membrane)[0] if keep_membrane else membrane.new_empty(0)


def backward(
    grad: Tensor, grad_membrane: Tensor | None, x: Tensor, affine: Tensor | None, residual: Tensor | None,
    residual_affine: Tensor | None, state: Tensor | None, gain: Tensor, time_steps: int, tau: float, threshold: float,
    kind: int, parameter: float, detach_reset: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """dL/d(current) like x, dL/d(state), and the sums over all but C of g, g * (x - mean), g * (residual - mean2).

    The membrane is recomputed, never stored over time: in registers for up to SEGMENT steps; a longer run is walked
    through once for its state every SEGMENT steps (4 bytes a neuron each), then segment by segment from the end, the
    gradient of a segment's first state being that of the membrane which the segment before it ends with.
    """
    by_channel = affine is not None or residual_affine is not None
    layout = Layout(x, by_channel)
    grads, x_rows, r_rows = layout.rows(grad), layout.rows(x), layout.optional(residual)
    segments = [(t, min(t + SEGMENT, time_steps)) for t in range(0, time_steps, SEGMENT)]
    empty = lambda *shape: x.new_empty(*shape, dtype=torch.float32)

    states = [layout.optional(None if state is None else state[None])]
    for begin, end in segments[:-1]:
        states.append(empty(1, layout.size))
        layout.launch(
            forward_kernel, cut(x_rows, begin, end), cut(r_rows, begin, end), affine, residual_affine, states[-2],
            None, states[-1], stride(x_rows), stride(r_rows), layout.size, end - begin, tau, threshold,
        )  # fmt: skip

    static = len(x) < time_steps
    g = x.new_zeros(1, layout.size, dtype=torch.float32) if static else x.new_empty(time_steps, layout.size)
    sums = x.new_zeros(3, x.shape[2] if x.ndim > 2 else 1, dtype=torch.float64)
    after, grad_state = layout.optional(None if grad_membrane is None else grad_membrane[None]), empty(1, layout.size)
    for (begin, end), u in zip(reversed(segments), reversed(states), strict=True):
        parts = empty(3, layout.tiles, layout.channels) if by_channel else None
        layout.launch(
            backward_kernel, grads[begin:end], after, cut(x_rows, begin, end), cut(r_rows, begin, end), affine,
            residual_affine, u, gain, cut(g, begin, end), grad_state, parts,
            grads.stride(0), stride(x_rows), stride(r_rows), layout.size, tau, threshold, *shape(kind, parameter),
            STEPS=end - begin, KIND=kind, DETACH=detach_reset, STATIC=static,
        )  # fmt: skip
        if parts is not None:
            sums += parts.sum(1, dtype=torch.float64)
        after = grad_state
    return layout.back(g.to(x.dtype)), layout.back(grad_state)[0], sums


def moments(x: Tensor) -> Tensor:
    """Mean and biased variance of every channel over T, B and space: (2, C) float64."""
    layout = Layout(x)
    rows, (tiles, size) = layout.rows(x), (layout.tiles, layout.tile["POSITIONS"])
    means, squares = x.new_empty(2, tiles, layout.channels, dtype=torch.float32)
    layout.launch(moments_kernel, rows, means, squares, stride(rows), len(x))
    counts = (layout.positions - size * torch.arange(tiles, device=x.device)).clamp_max(size)[:, None].double()
    mean = (counts * means).sum(0) / layout.positions
    between, within = (counts * (means - mean).square()).sum(0), squares.sum(0, dtype=torch.float64) / len(x)
    return torch.stack([mean, (between + within) / layout.positions])


def combine(g: Tensor, x: Tensor, coefficients: Tensor, out: Tensor | None = None) -> Tensor:
    """a * g + b * (x - mean) + c in x's dtype, coefficients (4, C): mean, a, b, c; into `out`, which may be g."""
    layout = Layout(x)
    g_rows, x_rows = layout.rows(g), layout.rows(x)
    to = x.new_empty(len(x), layout.size) if out is None else layout.rows(out)
    strides = stride(g_rows), stride(x_rows), to.stride(0)
    layout.launch(combine_kernel, g_rows, x_rows, coefficients, to, *strides, len(x))
    return layout.back(to)
