// Leaky integrate-and-fire neurons fused with batch normalisation and residual addition, on raw pointers.
//
// One time step of every tensor is a dense block of outer * channels * inner numbers. The membrane is float32 whatever
// the storage and is never written to memory: the backward pass recomputes it, one piece of the neurons at a time, so
// that all T steps of a piece stay in the cache. Compiled with -ffp-contract=off: no fused multiply-add may make the
// spikes differ from those of the reference.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>
#ifdef _OPENMP
#include <omp.h>
#else
static int omp_get_thread_num() { return 0; }
#endif

using i64 = std::int64_t;

// Everything an operation may be given; native/__init__.py fills it by name. Pointers that are not needed are null.
// `x`, `residual`, `grad`, `out` are float32 or, if `half`, bfloat16; step t of each lies t * its `_step` numbers on.
// `repeated`: x is one step, the same at every time step, and so is its gradient.
struct Call {
  const void *x, *residual, *grad;
  void *out;
  const float *affine, *affine2;  // (3, channels): mean, scale, shift
  const float *state, *grad_membrane, *coefficients;
  float *membrane, *grad_state;
  double *sums;
  std::uint8_t *bits;
  i64 x_step, residual_step, grad_step, steps, outer, channels, inner;
  double parameter;
  float tau, threshold, gain;
  int kind, detach_reset, repeated, half, threads;
};

namespace {

struct bfloat16 {
  std::uint16_t bits;
};
inline float load(float v) { return v; }
inline float load(bfloat16 v) {
  std::uint32_t bits = std::uint32_t(v.bits) << 16;
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}
inline void store(float &to, float v) { to = v; }
inline void store(bfloat16 &to, float v) {  // to nearest, ties to even; NaN stays NaN
  std::uint32_t bits;
  std::memcpy(&bits, &v, 4);
  to.bits = std::uint16_t(v != v ? 0x7fc0 : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// The neurons of one time step, cut into pieces of at most `longest` numbers that lie together in memory. In a
// channels-last block (inner = 1) a piece is some whole rows of channels, or part of one; else it is part of a plane.
struct Pieces {
  i64 channels, inner, row, rows, together, parts, count;

  Pieces(i64 outer, i64 channels, i64 inner, i64 longest) : channels(channels), inner(inner) {
    row = inner == 1 ? channels : inner;
    rows = inner == 1 ? outer : outer * channels;
    together = inner == 1 && row < longest ? longest / row : 1;
    parts = row ? (row + longest - 1) / longest : 0;
    width = together > 1 ? together * row : std::min(row, longest);
    count = (rows + together - 1) / together * parts;
  }
  i64 width;  // of the longest piece
  bool whole_rows() const { return inner == 1 && parts == 1; }  // of channels: all pieces begin with the first

  i64 start(i64 p) const { return p / parts * together * row + offset(p); }
  i64 offset(i64 p) const { return p % parts * width; }
  i64 length(i64 p) const {
    if (together > 1) return std::min(together, rows - p * together) * row;
    return std::min(width, row - offset(p));
  }
  i64 channel(i64 p, i64 j) const { return inner == 1 ? (offset(p) + j) % channels : p / parts % channels; }
};

// One number by channel, spread out to stand beside the numbers of a piece.
struct Spread {
  const Pieces &pieces;
  const float *by_channel;
  std::vector<float> values;

  Spread(const Pieces &pieces, const float *by_channel)
      : pieces(pieces), by_channel(by_channel), values(by_channel ? pieces.width : 0) {
    if (by_channel && pieces.together > 1)
      for (i64 j = 0; j < pieces.width; j++) values[j] = by_channel[j % pieces.channels];
  }
  const float *at(i64 p) {
    if (!by_channel) return nullptr;
    if (pieces.together > 1) return values.data();
    if (pieces.inner == 1) return by_channel + pieces.offset(p);
    std::fill(values.begin(), values.end(), by_channel[pieces.channel(p, 0)]);
    return values.data();
  }
};

// Sums by channel of numbers that come piece by piece. A piece adds to `now`, in float32; after a few dozen numbers
// that goes into float64.
struct Sums {
  const Pieces &pieces;
  std::vector<double> sums;  // spread like a piece of whole rows, else by channel
  std::vector<float> rows;
  float *now;
  i64 waiting = 0;  // numbers that each of `now` is the sum of

  explicit Sums(const Pieces &pieces)
      : pieces(pieces), sums(std::max(pieces.width, pieces.channels)), rows(pieces.width), now(rows.data()) {}

  void added(i64 p, i64 numbers) {
    waiting += numbers;
    if (!pieces.whole_rows() || waiting >= 32) settle(p);
  }
  void settle(i64 p) {
    const i64 length = pieces.whole_rows() ? pieces.width : pieces.length(p);
    if (pieces.inner == 1) {
      double *sum = sums.data() + pieces.offset(p);
#pragma omp simd
      for (i64 j = 0; j < length; j++) sum[j] += now[j];
    } else {
      double sum = 0;
#pragma omp simd reduction(+ : sum)
      for (i64 j = 0; j < length; j++) sum += now[j];
      sums[pieces.channel(p, 0)] += sum;
    }
    std::fill(rows.begin(), rows.end(), 0.f), waiting = 0;
  }
  void add_to(double *total) const {
    i64 used = pieces.inner == 1 ? i64(sums.size()) : pieces.channels;
    for (i64 j = 0; j < used; j++) total[j % pieces.channels] += sums[j];
    for (i64 j = 0; j < pieces.width && waiting; j++) total[j % pieces.channels] += now[j];
  }
};

// A surrogate's derivative times gain: `kind` counts the classes of ops/surrogate.py, which has the equations.
enum Kind { TRIANGLE, RECTANGLE, TANH, TANH_WIDE, SIGMOID, ATAN };

struct Surrogate {
  int kind;
  float parameter, threshold, gain, scale, slope;  // the constants of the formula, rounded where PyTorch rounds them

  Surrogate(int kind, double p, double threshold, float gain)
      : kind(kind), parameter(p), threshold(threshold), gain(gain), slope(1.5707963267948966 * p) {
    const double scales[] = {p, 1.0 / parameter, p / (2 * std::tanh(p / 2)), p, p, p / 2};
    scale = scales[kind];
  }

  // e^-z for z >= 0: 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2] (the coefficients of Cephes' expf), 2 ulp; 0
  // beyond 87, where the next power of two would be subnormal.
  static float exp_minus(float z) {
    const float within = z > 87.f ? 0.f : 1.f;  // a factor: a branch would not become vector code
    z = std::min(z, 87.f);
    const float shifted = z * -1.44269504f + 12582912.f;  // its last bits are the whole number nearest
    const float n = shifted - 12582912.f;
    const float r = -z - n * 0.693359375f + n * 2.12194440e-4f;
    const float r2 = r * r;  // in pairs: one after the other they would wait for each other
    float e = (1.9875691500e-4f * r + 1.3981999507e-3f) * r2 + (8.3334519073e-3f * r + 4.1665795894e-2f);
    e = (e * r2 + (1.6666665459e-1f * r + 0.5f)) * r2 + r + 1.f;
    std::uint32_t exponent;
    std::memcpy(&exponent, &shifted, 4);
    exponent = (exponent << 23) + (127u << 23);
    float power;
    std::memcpy(&power, &exponent, 4);
    return within * (e * power);
  }
  static constexpr bool has_exponential(int kind) { return kind == TANH || kind == TANH_WIDE || kind == SIGMOID; }
  // e = e^-|z| of a sigmoid's argument z, which `at` goes on from.
  template <int K>
  float exponential(float u) const {
    const float v = std::fabs(u - threshold);
    // Outside the support computed too, of the edge, which is finite: a branch would not become vector code.
    if (K == TANH) return exp_minus(2.f * (parameter * std::min(0.5f, v)));
    return exp_minus((K == TANH_WIDE ? 2.f : parameter) * v);
  }
  template <int K>
  float at(float u, float e) const {  // the other kinds leave e alone
    const float v = u - threshold, slope_of_sigmoid = e / ((1.f + e) * (1.f + e));  // s (1 - s), without cancellation
    float d = 0.f;
    if (K == TRIANGLE) d = scale * std::max(1.f - std::fabs(u / threshold - 1.f), 0.f);
    if (K == RECTANGLE) d = std::fabs(v) < parameter / 2 ? scale : 0.f;
    if (K == TANH) d = (std::fabs(v) <= 0.5f ? 1.f : 0.f) * (scale * (4.f * slope_of_sigmoid));  // 1 - tanh^2(z / 2)
    if (K == TANH_WIDE) d = scale * (4.f * slope_of_sigmoid);
    if (K == SIGMOID) d = scale * slope_of_sigmoid;
    if (K == ATAN) d = scale * (1.f / (1.f + (slope * v) * (slope * v)));  // PyTorch's float / tensor
    return gain * d;
  }
};

// current = (x - mean) * scale + shift, + residual: plain, or normalised likewise. One object for each thread.
template <class T>
struct Current {
  const T *x, *residual;
  i64 x_step, residual_step;
  Spread norm[3], norm2[3];
  const float *m, *a, *b, *m2, *a2, *b2;

  Current(const Pieces &pieces, const Call &c)
      : x(static_cast<const T *>(c.x)), residual(static_cast<const T *>(c.residual)), x_step(c.x_step),
        residual_step(c.residual_step),
        norm{row(pieces, c.affine, 0), row(pieces, c.affine, 1), row(pieces, c.affine, 2)},
        norm2{row(pieces, c.affine2, 0), row(pieces, c.affine2, 1), row(pieces, c.affine2, 2)} {}
  static Spread row(const Pieces &pieces, const float *affine, int i) {
    return Spread(pieces, affine ? affine + i * pieces.channels : nullptr);
  }

  void go_to(i64 p) {
    m = norm[0].at(p), a = norm[1].at(p), b = norm[2].at(p);
    m2 = norm2[0].at(p), a2 = norm2[1].at(p), b2 = norm2[2].at(p);
  }
  // Calls use(j, tau * before[j] + current of step t) for each j.
  template <class F>
  void integrate(i64 t, i64 start, i64 length, float tau, const float *before, const F &use) const {
    const T *now = x + t * x_step + start, *more = residual ? residual + t * residual_step + start : nullptr;
    const float *m = this->m, *a = this->a, *b = this->b, *m2 = this->m2, *a2 = this->a2, *b2 = this->b2;
    auto each = [&](auto current) {
#pragma omp simd
      for (i64 j = 0; j < length; j++) use(j, tau * before[j] + current(j));
    };
    auto plain = [=](i64 j) { return load(now[j]); };
    auto normed = [=](i64 j) { return (load(now[j]) - m[j]) * a[j] + b[j]; };
    if (!more && !m) return each(plain);
    if (!more) return each(normed);
    if (!m) return each([=](i64 j) { return plain(j) + load(more[j]); });
    if (!m2) return each([=](i64 j) { return normed(j) + load(more[j]); });
    each([=](i64 j) { return normed(j) + ((load(more[j]) - m2[j]) * a2[j] + b2[j]); });
  }
};

constexpr i64 LONGEST = 512;  // numbers of a piece: what belongs to it stays in the first cache

// The first `length` numbers of a piece of `from`; 0 where it is null.
void begin(const float *from, i64 start, i64 length, float *to) {
  from ? void(std::copy_n(from + start, length, to)) : void(std::fill_n(to, length, 0.f));
}

template <class T>
void forward(const Call &c) {
  const Pieces pieces(c.outer, c.channels, c.inner, LONGEST);
  const i64 size = c.outer * c.channels * c.inner;
  const float tau = c.tau, threshold = c.threshold;
#pragma omp parallel num_threads(c.threads)
  {
    Current<T> current(pieces, c);
    std::vector<float> potential(pieces.width);
    float *u = potential.data();
#pragma omp for schedule(static)
    for (i64 p = 0; p < pieces.count; p++) {
      const i64 start = pieces.start(p), length = pieces.length(p);
      current.go_to(p);
      begin(c.state, start, length, u);
      for (i64 t = 0; t < c.steps; t++) {
        T *fired = static_cast<T *>(c.out) + t * size + start;
        current.integrate(t, start, length, tau, u, [=](i64 j, float v) {
          const float s = v > threshold ? 1.f : 0.f;
          store(fired[j], s);
          u[j] = v * (1.f - s);
        });
      }
      if (c.membrane) std::copy_n(u, length, c.membrane + start);
    }
  }
}

// One step back in time. `carry` is dL/d(membrane after reset), of step t and then of t - 1.
template <int K, class T>
void back(const Surrogate &surrogate, float tau, float reset, i64 length, const float *u, const T *grad, float *carry,
          float *g, float *total, T *out) {
  const Surrogate s = surrogate;  // a copy: nothing that is written to memory can change it
  // A loop of its own: in one, operations that wait for others fill the processor's queue, which takes twice as long.
  if constexpr (Surrogate::has_exponential(K)) {
#pragma omp simd
    for (i64 j = 0; j < length; j++) g[j] = s.exponential<K>(u[j]);
  }
#pragma omp simd
  for (i64 j = 0; j < length; j++) {
    const float fired = u[j] > s.threshold ? 1.f : 0.f;
    const float through_reset = reset > 0.f ? carry[j] * u[j] : 0.f;  // selected: 0 times an infinity is no number
    const float now = carry[j] * (1.f - fired) + (load(grad[j]) - through_reset) * s.at<K>(u[j], g[j]);
    g[j] = now, carry[j] = tau * now, total[j] += now;
    store(out[j], now);
  }
}

// Adds g * (x - mean) to `to`, the x of one step.
template <class T>
void add_product(const float *g, const T *x, const float *mean, i64 length, float *to) {
#pragma omp simd
  for (i64 j = 0; j < length; j++) to[j] += g[j] * (load(x[j]) - mean[j]);
}

// Writes dL/d(current) to `out` (of a static image one step, summed over time), dL/d(state) to `grad_state`, and
// adds sum g, sum g * (x - mean), sum g * (residual - mean2) by channel to `sums`, (3, channels).
template <class T>
void backward(const Call &c) {
  const Pieces pieces(c.outer, c.channels, c.inner, LONGEST);
  const Surrogate surrogate(c.kind, c.parameter, c.threshold, c.gain);
  const i64 size = c.outer * c.channels * c.inner, width = pieces.width;
  const bool repeated = c.repeated;
  T *out = static_cast<T *>(c.out);
  const float tau = c.tau, threshold = c.threshold;
  const float reset = c.detach_reset ? 0.f : 1.f;
  decltype(&back<TRIANGLE, T>) kinds[] = {back<TRIANGLE>, back<RECTANGLE>, back<TANH>,
                                          back<TANH_WIDE>, back<SIGMOID>, back<ATAN>};
  const auto step = kinds[c.kind];
  std::vector<double> partial(3 * c.channels * c.threads);
#pragma omp parallel num_threads(c.threads)
  {
    Current<T> current(pieces, c);
    Sums sum_g(pieces), sum_gx(pieces), sum_gr(pieces);
    std::vector<float> potentials(c.steps * width), rows(3 * width);
    float *carry = rows.data(), *now = carry + width, *total = now + width;
    auto add_products = [&](i64 t, i64 start, i64 length, const float *g) {
      const T *x = current.x + t * current.x_step + start, *more = current.residual;
      if (current.m) add_product(g, x, current.m, length, sum_gx.now);
      if (current.m2) add_product(g, more + t * current.residual_step + start, current.m2, length, sum_gr.now);
    };
#pragma omp for schedule(static)
    for (i64 p = 0; p < pieces.count; p++) {
      const i64 start = pieces.start(p), length = pieces.length(p);
      current.go_to(p);
      begin(c.state, start, length, carry);
      for (i64 t = 0; t < c.steps; t++) {
        float *u = potentials.data() + t * width;
        current.integrate(t, start, length, tau, carry, [=](i64 j, float v) {
          u[j] = v;
          carry[j] = v * (1.f - (v > threshold ? 1.f : 0.f));
        });
      }
      begin(c.grad_membrane, start, length, carry);  // from here on dL/d(membrane after reset)
      std::fill_n(total, width, 0.f);
      for (i64 t = c.steps - 1; t >= 0; t--) {
        const float *u = potentials.data() + t * width;
        const T *from = static_cast<const T *>(c.grad) + t * c.grad_step + start;
        T *to = out + (repeated ? 0 : t * size) + start;  // of a static image overwritten below
        step(surrogate, tau, reset, length, u, from, carry, now, total, to);
        if (!repeated) add_products(t, start, length, now);
      }
      if (repeated) {
        add_products(0, start, length, total);
#pragma omp simd
        for (i64 j = 0; j < length; j++) store(out[start + j], total[j]);
      }
      if (c.grad_state) std::copy_n(carry, length, c.grad_state + start);
      if (c.affine) {
#pragma omp simd
        for (i64 j = 0; j < length; j++) sum_g.now[j] += total[j];
        sum_g.added(p, c.steps), sum_gx.added(p, c.steps);
      }
      if (c.affine2) sum_gr.added(p, c.steps);
    }
    double *mine = partial.data() + 3 * c.channels * omp_get_thread_num();
    if (c.affine) sum_g.add_to(mine), sum_gx.add_to(mine + c.channels);
    if (c.affine2) sum_gr.add_to(mine + 2 * c.channels);
  }
  for (std::size_t i = 0; i < partial.size(); i++) c.sums[i % (3 * c.channels)] += partial[i];
}

// Writes mean and biased variance by channel, (2, channels), to `sums`.
template <class T>
void moments(const Call &c) {
  const Pieces pieces(c.outer, c.channels, c.inner, LONGEST);
  std::vector<double> partial(2 * c.channels * c.threads);
  std::vector<float> pivot(c.channels);  // near the mean: the sums of squares lose nothing to it
  for (i64 k = 0; k < c.channels; k++) pivot[k] = load(static_cast<const T *>(c.x)[k * c.inner]);
#pragma omp parallel num_threads(c.threads)
  {
    Spread pivots(pieces, pivot.data());
    Sums sum(pieces), sum_of_squares(pieces);
#pragma omp for schedule(static)
    for (i64 p = 0; p < pieces.count; p++) {
      const i64 start = pieces.start(p), length = pieces.length(p);
      const float *m = pivots.at(p);
      float *first = sum.now, *second = sum_of_squares.now;
      for (i64 t = 0; t < c.steps; t++) {
        const T *now = static_cast<const T *>(c.x) + t * c.x_step + start;
#pragma omp simd
        for (i64 j = 0; j < length; j++) {
          const float d = load(now[j]) - m[j];
          first[j] += d, second[j] += d * d;
        }
      }
      sum.added(p, c.steps), sum_of_squares.added(p, c.steps);
    }
    double *mine = partial.data() + 2 * c.channels * omp_get_thread_num();
    sum.add_to(mine), sum_of_squares.add_to(mine + c.channels);
  }
  const double count = double(c.steps) * c.outer * c.inner;
  for (i64 k = 0; k < c.channels; k++) {
    double first = 0, second = 0;
    for (i64 i = k; i < i64(partial.size()); i += 2 * c.channels) first += partial[i], second += partial[i + c.channels];
    const double beyond = first / count, variance = second / count - beyond * beyond;
    c.sums[k] = pivot[k] + beyond;
    c.sums[c.channels + k] = variance < 0 ? 0 : variance;
  }
}

// out = a * grad + b * (x - mean) + d with coefficients (4, channels) = mean, a, b, d; `out` may be `grad`.
template <class T>
void combine(const Call &c) {
  const Pieces pieces(c.outer, c.channels, c.inner, LONGEST);
  const i64 size = c.outer * c.channels * c.inner;
#pragma omp parallel num_threads(c.threads)
  {
    Spread mean(pieces, c.coefficients), first(pieces, c.coefficients + c.channels);
    Spread second(pieces, c.coefficients + 2 * c.channels), third(pieces, c.coefficients + 3 * c.channels);
#pragma omp for schedule(static)
    for (i64 p = 0; p < pieces.count; p++) {
      const i64 start = pieces.start(p), length = pieces.length(p);
      const float *m = mean.at(p), *a = first.at(p), *b = second.at(p), *d = third.at(p);
      for (i64 t = 0; t < c.steps; t++) {
        const T *from = static_cast<const T *>(c.grad) + t * c.grad_step + start;
        const T *beside = static_cast<const T *>(c.x) + t * c.x_step + start;
        T *to = static_cast<T *>(c.out) + t * size + start;
#pragma omp simd
        for (i64 j = 0; j < length; j++)
          store(to[j], a[j] * load(from[j]) + (b[j] * (load(beside[j]) - m[j]) + d[j]));
      }
    }
  }
}

// Eight numbers become one byte, the first its lowest bit: set where the number is not 0. `outer` counts the bytes.
template <class T>
void pack(const Call &c) {
  const T *x = static_cast<const T *>(c.x);
#pragma omp parallel for num_threads(c.threads) schedule(static)
  for (i64 i = 0; i < c.outer; i++) {
    unsigned byte = 0;
    for (int k = 0; k < 8; k++) byte |= unsigned(load(x[8 * i + k]) != 0.f) << k;
    c.bits[i] = std::uint8_t(byte);
  }
}
template <class T>
void unpack(const Call &c) {
  T *x = static_cast<T *>(c.out);
#pragma omp parallel for num_threads(c.threads) schedule(static)
  for (i64 i = 0; i < c.outer; i++)
    for (int k = 0; k < 8; k++) store(x[8 * i + k], float(c.bits[i] >> k & 1));
}

// A norm's coefficients for `combine`, (4, channels), from sum g and sum g * (x - mean) over a batch, of as many numbers as
// `counts` has by channel or, if it is null, `count`. Nothing flows through fixed statistics.
void coefficients_of(const float *weight, const float *mean, const float *inverse, const double *sum, const double *with_it,
                     i64 channels, const double *counts, double count, bool through, float *to) {
  for (i64 k = 0; k < channels; k++) {
    const double scale = weight[k] * inverse[k], by = inverse[k], passed = through ? scale : 0;
    const double number = counts ? counts[k] : count;
    to[k] = mean[k];
    to[channels + k] = float(scale);
    to[2 * channels + k] = float(-passed * (by * by) * with_it[k] / number);
    to[3 * channels + k] = float(-passed * sum[k] / number);
  }
}

}  // namespace

#define EXPORT(NAME) \
  void spikeback_##NAME(const Call *c) { c->half ? NAME<bfloat16>(*c) : NAME<float>(*c); }

extern "C" {
const char *spikeback_source() { return SPIKEBACK_SOURCE; }  // the digest of the sources, given by build.py
EXPORT(forward)
EXPORT(backward)
EXPORT(moments)
EXPORT(combine)
EXPORT(pack)
EXPORT(unpack)

// From mean and variance, (2, channels), of `count` numbers each: mean and 1 / sqrt(variance + eps), (2, channels). The
// running statistics, if there are any, go by `momentum` towards mean and unbiased variance, as `Tensor.lerp_` does.
void spikeback_normaliser(const double *moments, i64 channels, i64 count, double momentum, double eps, float *running_mean,
                          float *running_var, float *out) {
  const float way = float(momentum);
  const auto move = [way](float &old, float now) {
    old = way < 0.5f ? old + way * (now - old) : now - (now - old) * (1.f - way);
  };
  for (i64 k = 0; k < channels; k++) {
    const double mean = moments[k], variance = moments[channels + k];
    out[k] = float(mean);
    out[channels + k] = float(1 / std::sqrt(variance + eps));
    if (running_mean) move(running_mean[k], float(mean));
    if (running_var) move(running_var[k], float(variance * (double(count) / double(count - 1))));
  }
}

// From the sums of `backward`, (3, channels), to `out`, (3, 4, channels): gradients by weight, bias, weight2 and bias2,
// coefficients for x, coefficients for the residual. `pooled` are the sums and counts of all processes, (4, channels).
void spikeback_gradients(const double *sums, const double *pooled, const float *weight, const float *mean,
                         const float *inverse, const float *weight2, const float *mean2, const float *inverse2,
                         i64 channels, i64 count, i64 through, float *out) {
  const double *total = pooled ? pooled : sums, *counts = pooled ? pooled + 3 * channels : nullptr;
  for (i64 k = 0; k < channels; k++) {
    out[k] = float(sums[channels + k] * inverse[k]);
    out[channels + k] = float(sums[k]);
    out[2 * channels + k] = inverse2 ? float(sums[2 * channels + k] * inverse2[k]) : 0.f;
    out[3 * channels + k] = float(sums[k]);
  }
  coefficients_of(weight, mean, inverse, total, total + channels, channels, counts, count, through, out + 4 * channels);
  if (inverse2)
    coefficients_of(weight2, mean2, inverse2, total, total + 2 * channels, channels, counts, count, through,
                    out + 8 * channels);
}
}
