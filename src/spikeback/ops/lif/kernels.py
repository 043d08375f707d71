"""The Triton kernels of the fused normalise + residual add + LIF; triton.py calls them.

Per time step every tensor is one dense row of numbers, seen as (outer, channels, inner): a channels-last image is
(B*H*W, C, 1), a contiguous one (B, C, H*W). A tile is POSITIONS (outer, inner) x CHANNELS; a program runs a tile
through time. Those that sum by channel take every PARTS-th tile of their channels, so each leaves one partial sum a
channel, in an order that no GPU changes; no atomics are needed. Spikes and gradients equal the reference's to the bit:
products and sums are rounded one by one (`ROUNDING`), in the order of its autograd.
"""

import triton
import triton.language as tl

ROUNDING = {"enable_fp_fusion": False}  # a launch option: no fused multiply-add but those that are written out
SIZES = ("steps", "tiles", "parts", "count")  # whether 16 divides them makes no better machine code


@triton.jit
def columns_of(channels, CHANNELS: tl.constexpr):
    """This program's channels, (1, CHANNELS), and how many programs share its positions."""
    columns = tl.cdiv(channels, CHANNELS)
    return (tl.program_id(0) % columns) * CHANNELS + tl.arange(0, CHANNELS)[None, :], columns


@triton.jit
def place(tile, c, positions, channels, inner, POSITIONS: tl.constexpr, INDEX: tl.constexpr):
    """A tile's offsets into a row, and which of them exist; both (POSITIONS, CHANNELS)."""
    k = tl.cast(tile, INDEX) * POSITIONS + tl.arange(0, POSITIONS)[:, None]  # pyright: ignore
    return (k // inner * channels + c) * inner + k % inner, (k < positions) & (c < channels)


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
def scalars(weight, bias, mean, inverse, c, channels):
    """(mean, scale, shift) of the channels c; zeros where there is no tensor."""
    real = c < channels
    return load(mean, c, real), load(weight, c, real) * load(inverse, c, real), load(bias, c, real)


@triton.jit
def normalise(x, weight, by):
    """`by` the scalars; x itself where there is no `weight`."""
    if weight is None:
        return x
    else:
        return (x - by[0]) * by[1] + by[2]


@triton.jit
def current(x, residual, weight, weight2, by, by2, t, x_stride, residual_stride, at, inside):
    total = normalise(load(row(x, t, x_stride), at, inside), weight, by)
    if residual is not None:
        total += normalise(load(row(residual, t, residual_stride), at, inside), weight2, by2)
    return total


@triton.jit
def exp(x):
    """e^x for x <= 0 to 2 ulp, 0 below -87.7. Triton's own is ex2.approx(x log2 e): wrong by |x| ulp."""
    x = tl.maximum(x, -88.03, propagate_nan=tl.PropagateNan.ALL)
    m = tl.fma(x, 1.44269504088896341, 12582912.0)  # the sum's last bits are x log2 e, rounded
    n = m - 12582912.0
    r = tl.fma(n, 2.12194440e-4, tl.fma(n, -0.693359375, x))  # x - n ln 2, ln 2 in two parts, the first times n exact
    scale = ((m.to(tl.int32, bitcast=True) << 23) + 0x3F800000).to(tl.float32, bitcast=True)  # 2^n
    return tl.exp2(r * 1.44269504088896341) * scale


@triton.jit
def derivative(u, threshold, height, slope, KIND: tl.constexpr, EXACT: tl.constexpr):
    """The surrogates of ops/surrogate.py; height and slope from `shape`. EXACT: so is u / threshold as a product."""
    v = u - threshold
    if KIND == 0:  # Triangle; a NaN stays one
        share = u * slope if EXACT else tl.div_rn(u, threshold)
        off = tl.abs(share - 1)
        return tl.where(off > 1, 0.0, height * (1 - off))
    elif KIND == 1:  # Rectangle
        return tl.where(tl.abs(v) < slope, height, 0.0)
    elif KIND == 5:  # ATan
        return height * tl.div_rn(1.0, 1 + (slope * v) * (slope * v))  # as PyTorch's float / tensor
    else:  # 1 - tanh^2(z) = 4 e / (1 + e)^2, e = exp(-2 |z|); of Sigmoid, s (1 - s) is a quarter of that
        e = exp(-tl.abs(slope * v))
        bell = (height * e) / ((1 + e) * (1 + e))
        return tl.where(tl.abs(v) <= 0.5, bell, 0.0) if KIND == 2 else bell


@triton.jit(do_not_specialize=SIZES)
def forward_kernel(
    x, residual, weight, bias, mean, inverse, weight2, bias2, mean2, inverse2, state, spikes, membrane,
    x_stride, residual_stride, row_size, tau, threshold, positions, channels, inner,
    STEPS: tl.constexpr, POSITIONS: tl.constexpr, CHANNELS: tl.constexpr, INDEX: tl.constexpr,
):  # fmt: skip
    c, columns = columns_of(channels, CHANNELS)
    at, inside = place(tl.program_id(0) // columns, c, positions, channels, inner, POSITIONS, INDEX)
    by, by2 = scalars(weight, bias, mean, inverse, c, channels), scalars(weight2, bias2, mean2, inverse2, c, channels)
    u = load(state, at, inside)
    for t in tl.static_range(STEPS):  # pyright: ignore
        u = tau * u + current(x, residual, weight, weight2, by, by2, t, x_stride, residual_stride, at, inside)
        s = (u > threshold).to(tl.float32)
        if spikes is not None:
            tl.store(row(spikes, t, row_size) + at, s.to(spikes.dtype.element_ty), mask=inside)
        u = u * (1 - s)
    if membrane is not None:
        tl.store(membrane + at, u, mask=inside)


@triton.jit(do_not_specialize=SIZES)
def backward_kernel(
    grad, grad_membrane, x, residual, weight, bias, mean, inverse, weight2, bias2, mean2, inverse2, state, gain,
    g, grad_state, sums, grad_stride, x_stride, residual_stride, row_size, tau, threshold, height, slope,
    tiles, parts, positions, channels, inner,
    STEPS: tl.constexpr, KIND: tl.constexpr, EXACT: tl.constexpr, DETACH: tl.constexpr, STATIC: tl.constexpr,
    POSITIONS: tl.constexpr, CHANNELS: tl.constexpr, INDEX: tl.constexpr,
):  # fmt: skip
    c, columns = columns_of(channels, CHANNELS)
    by, by2 = scalars(weight, bias, mean, inverse, c, channels), scalars(weight2, bias2, mean2, inverse2, c, channels)
    gain = tl.load(gain).to(tl.float32)
    total = tl.zeros((POSITIONS, CHANNELS), tl.float32)
    by_x, by_residual = total, total
    for tile in range(tl.program_id(0) // columns, tiles, parts):
        at, inside = place(tile, c, positions, channels, inner, POSITIONS, INDEX)
        u = load(state, at, inside)
        history = ()  # u before reset, of all steps: registers, since the loop is unrolled
        for t in tl.static_range(STEPS):  # pyright: ignore
            u = tau * u + current(x, residual, weight, weight2, by, by2, t, x_stride, residual_stride, at, inside)
            history += (u,)
            u = u * (1 - (u > threshold).to(tl.float32))

        carry = load(grad_membrane, at, inside)  # dL/d(u after reset)
        over_time = tl.zeros((POSITIONS, CHANNELS), tl.float32)
        for t in tl.static_range(STEPS - 1, -1, -1):  # pyright: ignore
            u = history[t]
            s = (u > threshold).to(tl.float32)
            ds = load(row(grad, t, grad_stride), at, inside)
            if not DETACH:
                ds = ds - carry * u
            g_t = carry * (1 - s) + ds * (gain * derivative(u, threshold, height, slope, KIND, EXACT))
            carry = tau * g_t
            over_time += g_t
            if weight is not None:
                by_x += g_t * (load(row(x, t, x_stride), at, inside) - by[0])
            if weight2 is not None:
                by_residual += g_t * (load(row(residual, t, residual_stride), at, inside) - by2[0])
            if not STATIC:
                tl.store(row(g, t, row_size) + at, g_t.to(g.dtype.element_ty), mask=inside)
        total += over_time
        if STATIC:
            tl.store(g + at, load(g, at, inside) + over_time, mask=inside)
        if grad_state is not None:
            tl.store(grad_state + at, carry, mask=inside)
    if sums is not None:
        part = tl.program_id(0) // columns
        store_part(sums, part, total, c, channels)
        store_part(sums, parts + part, by_x, c, channels)
        store_part(sums, 2 * parts + part, by_residual, c, channels)


@triton.jit
def store_part(pointer, place, terms, c, channels):
    """The sum over positions into a row of (places, channels)."""
    tl.store(row(pointer, place, channels) + c, tl.sum(terms, 0, keep_dims=True), mask=c < channels)


@triton.jit
def sum_parts(pointer, which, parts, c, channels, PARTS: tl.constexpr):
    """The sum over `parts` of (which, parts, channels), in float64: (1, CHANNELS)."""
    total = tl.zeros((PARTS, c.shape[1]), tl.float64)
    for begin in range(0, parts, PARTS):
        k = begin + tl.arange(0, PARTS)[:, None]
        inside = (k < parts) & (c < channels)
        total += tl.load(pointer + (which * parts + k) * channels + c, mask=inside, other=0).to(tl.float64)
    return tl.sum(total, 0, keep_dims=True)


@triton.jit(do_not_specialize=SIZES)
def sums_kernel(parts_of, sums, parts, channels, CHANNELS: tl.constexpr, PARTS: tl.constexpr, MORE: tl.constexpr):
    """The three sums of the backward pass, (3, channels); MORE: on top of what is there."""
    c, columns = columns_of(channels, CHANNELS)
    which = tl.program_id(0) // columns
    total = sum_parts(parts_of, which, parts, c, channels, PARTS)
    to = sums + which * channels + c
    if MORE:
        total += tl.load(to, mask=c < channels, other=0)
    tl.store(to, total, mask=c < channels)


@triton.jit(do_not_specialize=SIZES)
def moments_kernel(
    x, sums, x_stride, steps, tiles, parts, positions, channels, inner,
    POSITIONS: tl.constexpr, CHANNELS: tl.constexpr, INDEX: tl.constexpr,
):  # fmt: skip
    """Sums of x - pivot and of its square; the pivot is the first tile's mean: one far from 0 costs no digits."""
    c, columns = columns_of(channels, CHANNELS)
    at, inside = place(0, c, positions, channels, inner, POSITIONS, INDEX)
    few = tl.maximum(tl.sum(inside.to(tl.float32), 0, keep_dims=True), 1)
    pivot = tl.div_rn(tl.sum(load(x, at, inside), 0, keep_dims=True), few)
    total = tl.zeros((POSITIONS, CHANNELS), tl.float32)
    squared = total
    for tile in range(tl.program_id(0) // columns, tiles, parts):
        at, inside = place(tile, c, positions, channels, inner, POSITIONS, INDEX)
        for t in range(steps):
            off = tl.where(inside, load(row(x, t, x_stride), at, inside) - pivot, 0.0)
            total += off
            squared += off * off
    part = tl.program_id(0) // columns
    store_part(sums, part, total, c, channels)
    store_part(sums, parts + part, squared, c, channels)
    tl.store(row(sums, 2 * parts, channels) + c, pivot, mask=c < channels)  # the same from every program


@triton.jit(do_not_specialize=SIZES)
def normaliser_kernel(
    parts_of, moments, normaliser, running_mean, running_var, tracked, momentum, count, parts, channels,
    EPS: tl.constexpr, CHANNELS: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """Mean and variance, or mean and 1 / sqrt(variance + EPS), of what `moments_kernel` left; running statistics."""
    c, _ = columns_of(channels, CHANNELS)
    real, count = c < channels, tl.cast(count, tl.float64)
    beyond = sum_parts(parts_of, 0, parts, c, channels, PARTS) / count
    variance = sum_parts(parts_of, 1, parts, c, channels, PARTS) / count - beyond * beyond
    variance = tl.where(variance < 0, 0.0, variance)
    mean = load(parts_of + 2 * parts * channels, c, real).to(tl.float64) + beyond
    if moments is not None:
        tl.store(moments + c, mean, mask=real)
        tl.store(moments + channels + c, variance, mask=real)
    if normaliser is not None:
        tl.store(normaliser + c, mean.to(tl.float32), mask=real)
        tl.store(normaliser + channels + c, (1 / tl.sqrt(variance + EPS)).to(tl.float32), mask=real)
    if running_mean is not None:
        move(running_mean + c, mean, momentum, real)
        move(running_var + c, variance * (count / (count - 1)), momentum, real)
        if tl.program_id(0) == 0:
            tl.store(tracked, tl.load(tracked) + 1)


@triton.jit
def move(pointer, value, momentum, real):
    """Towards the value by the momentum, as `Tensor.lerp_`."""
    old = tl.load(pointer, mask=real).to(tl.float32)
    way = value.to(tl.float32) - old
    new = tl.where(momentum < 0.5, old + momentum * way, value.to(tl.float32) - way * (1 - momentum))
    tl.store(pointer, new.to(pointer.dtype.element_ty), mask=real)


@triton.jit(do_not_specialize=SIZES)
def gradients_kernel(
    sums, pooled, weight, mean, inverse, weight2, mean2, inverse2, parameters, coefficients, coefficients2,
    count, channels, THROUGH: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """What `cpu.gradients` makes of the sums; of those of all processes (`pooled`, with their counts) for x."""
    c, _ = columns_of(channels, CHANNELS)
    real, count = c < channels, tl.cast(count, tl.float64)
    by, by2 = load(inverse, c, real).to(tl.float64), load(inverse2, c, real).to(tl.float64)
    total, with_x, with_residual = rows_of(sums, c, channels)
    tl.store(parameters + c, (with_x * by).to(tl.float32), mask=real)
    tl.store(parameters + channels + c, total.to(tl.float32), mask=real)
    tl.store(parameters + 2 * channels + c, (with_residual * by2).to(tl.float32), mask=real)
    tl.store(parameters + 3 * channels + c, total.to(tl.float32), mask=real)
    if pooled is not None:
        total, with_x, with_residual = rows_of(pooled, c, channels)
        count = tl.load(pooled + 3 * channels + c, mask=real, other=1)
    store_coefficients(coefficients, weight, mean, by, total, with_x, count, c, channels, THROUGH)
    if coefficients2 is not None:
        store_coefficients(coefficients2, weight2, mean2, by2, total, with_residual, count, c, channels, THROUGH)


@triton.jit
def rows_of(sums, c, channels):
    real = c < channels
    return (
        tl.load(sums + c, mask=real, other=0),
        tl.load(sums + channels + c, mask=real, other=0),
        tl.load(sums + 2 * channels + c, mask=real, other=0),
    )


@triton.jit
def store_coefficients(to, weight, mean, inverse, total, with_x, count, c, channels, THROUGH: tl.constexpr):
    real = c < channels
    scale = (load(weight, c, real) * inverse.to(tl.float32)).to(tl.float64)
    tl.store(to + c, load(mean, c, real), mask=real)
    tl.store(to + channels + c, scale.to(tl.float32), mask=real)
    through = scale if THROUGH else scale * 0
    tl.store(to + 2 * channels + c, (-through * (inverse * inverse) * with_x / count).to(tl.float32), mask=real)
    tl.store(to + 3 * channels + c, (-through * total / count).to(tl.float32), mask=real)


@triton.jit(do_not_specialize=SIZES)
def combine_kernel(
    g, x, coefficients, out, g_stride, x_stride, row_size, steps, positions, channels, inner,
    POSITIONS: tl.constexpr, CHANNELS: tl.constexpr, INDEX: tl.constexpr,
):  # fmt: skip
    c, columns = columns_of(channels, CHANNELS)
    at, inside = place(tl.program_id(0) // columns, c, positions, channels, inner, POSITIONS, INDEX)
    real = c < channels
    mean, a = load(coefficients, c, real), load(coefficients + channels, c, real)
    b, shift = load(coefficients + 2 * channels, c, real), load(coefficients + 3 * channels, c, real)
    for t in range(steps):
        g_t, x_t = load(row(g, t, g_stride), at, inside), load(row(x, t, x_stride), at, inside)
        value = a * g_t + b * (x_t - mean) + shift
        tl.store(row(out, t, row_size) + at, value.to(out.dtype.element_ty), mask=inside)
