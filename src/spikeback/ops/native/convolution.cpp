// Convolutions 3x3 with padding 1 of channels-last float32 images, by Winograd's minimal filtering (Lavin and Gray 2016,
// arXiv:1509.09308): with stride 1 F(4x4, 3x3), 36 multiplications for 16 outputs instead of 144; with stride 2 the odd
// pixels of an axis, which two taps meet, by F(4, 2), and the even ones, which one tap meets, as they are: 81.
//
// An output is cut into tiles of 4x4, each of which needs 6x6 or 9x9 pixels. Tiles, filters and gradients are transformed
// into 6x6 or 9x9 points; for each point the products over all channels are a product of matrices; what it gives is
// transformed back. A transformed block of tiles lies as [16 channels at a time][point][tile][16], so that every matrix
// product runs through memory 16 numbers at a time, and stays in the cache until it was used. No sum depends on the number
// of threads.
#if defined(__FMA__)
#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <type_traits>
#ifdef _OPENMP
#include <omp.h>
#else
static int omp_get_thread_num() { return 0; }
#endif

using i64 = std::int64_t;

namespace winograd {

#if defined(__AVX512F__)
constexpr int LANES = 16;
typedef __m512 vec;
inline vec load(const float *from) { return _mm512_loadu_ps(from); }
inline void store(float *to, vec v) { _mm512_storeu_ps(to, v); }
inline vec everywhere(float v) { return _mm512_set1_ps(v); }
inline vec multiply_add(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
#else
constexpr int LANES = 8;
typedef __m256 vec;
inline vec load(const float *from) { return _mm256_loadu_ps(from); }
inline void store(float *to, vec v) { _mm256_storeu_ps(to, v); }
inline vec everywhere(float v) { return _mm256_set1_ps(v); }
inline vec multiply_add(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }
#endif

constexpr int PANEL = 16, VECS = PANEL / LANES;  // channels that lie together, and the vectors they fill
constexpr int OUT = 4, TAPS = 6;  // outputs of a tile, and points of a filter, along an axis
constexpr int ROWS = 6;  // tiles of one matrix product: with 16 channels they fill the registers of AVX2
constexpr i64 BLOCK = 2 << 20, LEAST = 9216;  // bytes of a block of transformed tiles, or so many points of each channel
                                              // if they are more: filters are transformed once for each block
constexpr i64 GROUP = 4, TOGETHER = 60;  // panels of outputs, and tiles, whose products are in the cache together
static_assert(TOGETHER % ROWS == 0 && LEAST >= ROWS * 81);  // rows beyond the last tile lie in the scratch, and are dropped

// The transforms along one axis, FROM so many numbers TO so many. Of pixels: tiles begin STEP apart, and read MARGIN before.
// `Gradient` and `Input` are those of the convolution that gives the gradient of the input, from that of the output.
struct Stride1 {  // the points 0, 1, -1, 2, -2 and infinity
  static constexpr int SIDE = 6;
  struct Pixels {
    static constexpr int FROM = 6, TO = SIDE, STEP = OUT, MARGIN = 1;
    static void axis(const vec *x, vec *y) {
      const vec a = x[4] - 4.f * x[2], b = x[3] - 4.f * x[1], c = x[4] - x[2], d = 2.f * (x[3] - x[1]);
      y[0] = 4.f * x[0] - 5.f * x[2] + x[4], y[1] = a + b, y[2] = a - b, y[3] = c + d, y[4] = c - d;
      y[5] = 4.f * x[1] - 5.f * x[3] + x[5];
    }
  };
  struct Filter {
    static constexpr int FROM = 3, TO = TAPS;
    static void axis(const vec *w, vec *y) {
      const vec a = (w[0] + w[2]) * (1.f / 6), b = w[1] * (1.f / 6);
      const vec c = w[0] * (1.f / 24) + w[2] * (1.f / 6), d = w[1] * (1.f / 12);
      y[0] = w[0] * 0.25f, y[1] = -a - b, y[2] = b - a, y[3] = c + d, y[4] = c - d, y[5] = w[2];
    }
  };
  struct Output {
    static constexpr int FROM = SIDE, TO = OUT;
    static void axis(const vec *m, vec *y) {
      const vec a = m[1] + m[2], b = m[1] - m[2], c = m[3] + m[4], d = m[3] - m[4];
      y[0] = m[0] + a + c, y[1] = b + 2.f * d, y[2] = a + 4.f * c, y[3] = b + 8.f * d + m[5];
    }
  };
  using Gradient = Pixels;
  using Input = Output;
  struct OutputGradient {  // the transpose of Output
    static constexpr int FROM = OUT, TO = SIDE, STEP = OUT, MARGIN = 0;
    static void axis(const vec *g, vec *y) {
      const vec a = g[0] + g[2], b = g[1] + g[3], c = g[0] + 4.f * g[2], d = 2.f * g[1] + 8.f * g[3];
      y[0] = g[0], y[1] = a + b, y[2] = a - b, y[3] = c + d, y[4] = c - d, y[5] = g[3];
    }
  };
  struct FilterGradient {  // the transpose of Filter
    static constexpr int FROM = TAPS, TO = 3;
    static void axis(const vec *s, vec *y) {
      const vec a = (s[1] + s[2]) * (1.f / 6), b = (s[2] - s[1]) * (1.f / 6), c = s[3] + s[4], d = s[3] - s[4];
      y[0] = s[0] * 0.25f - a + c * (1.f / 24), y[1] = b + d * (1.f / 12), y[2] = c * (1.f / 6) - a + s[5];
    }
  };
};
struct Stride2 {  // the odd pixels: 0, 1, -1, 2 and infinity; then the even ones, which share the middle tap
  static constexpr int SIDE = 9;
  static void odd(vec a, vec b, vec c, vec d, vec e, vec *y) {
    const vec f = b + b;
    y[0] = 2.f * (a - c) + d - b, y[1] = f + c - d, y[2] = f - 3.f * c + d, y[3] = d - b, y[4] = f - c - 2.f * d + e;
  }
  struct Pixels {
    static constexpr int FROM = 9, TO = SIDE, STEP = 2 * OUT, MARGIN = 1;
    static void axis(const vec *x, vec *y) {
      odd(x[0], x[2], x[4], x[6], x[8], y);
      for (int i = 0; i < OUT; i++) y[5 + i] = x[2 * i + 1];
    }
  };
  struct Filter {
    static constexpr int FROM = 3, TO = TAPS;
    static void axis(const vec *w, vec *y) {
      y[0] = w[0] * 0.5f, y[1] = (w[0] + w[2]) * 0.5f, y[2] = (w[2] - w[0]) * (1.f / 6);
      y[3] = (w[0] + 2.f * w[2]) * (1.f / 6), y[4] = w[2], y[5] = w[1];
    }
  };
  struct Output {
    static constexpr int FROM = SIDE, TO = OUT;
    static void axis(const vec *m, vec *y) {
      const vec a = m[1] + m[2], b = m[1] - m[2];
      y[0] = m[0] + a + m[3] + m[5], y[1] = b + 2.f * m[3] + m[6], y[2] = a + 4.f * m[3] + m[7];
      y[3] = b + 8.f * m[3] + m[4] + m[8];
    }
  };
  struct Gradient {
    static constexpr int FROM = OUT + 1, TO = SIDE, STEP = OUT, MARGIN = 0;
    static void axis(const vec *g, vec *y) {
      odd(g[0], g[1], g[2], g[3], g[4], y);
      for (int i = 0; i < OUT; i++) y[5 + i] = g[i];
    }
  };
  struct Input {
    static constexpr int FROM = SIDE, TO = 2 * OUT;
    static void axis(const vec *m, vec *y) {
      const vec a = m[1] + m[2], b = m[1] - m[2];
      y[1] = m[0] + a + m[3], y[3] = b + 2.f * m[3], y[5] = a + 4.f * m[3], y[7] = b + 8.f * m[3] + m[4];
      for (int i = 0; i < OUT; i++) y[2 * i] = m[5 + i];
    }
  };
  struct OutputGradient {  // the transpose of Output
    static constexpr int FROM = OUT, TO = SIDE, STEP = OUT, MARGIN = 0;
    static void axis(const vec *g, vec *y) {
      const vec a = g[0] + g[2], b = g[1] + g[3];
      y[0] = g[0], y[1] = a + b, y[2] = a - b, y[3] = g[0] + 2.f * g[1] + 4.f * g[2] + 8.f * g[3], y[4] = g[3];
      for (int i = 0; i < OUT; i++) y[5 + i] = g[i];
    }
  };
  struct FilterGradient {  // the transpose of Filter
    static constexpr int FROM = TAPS, TO = 3;
    static void axis(const vec *s, vec *y) {
      const vec a = s[1] * 0.5f, b = s[2] * (1.f / 6), c = s[3] * (1.f / 6);
      y[0] = s[0] * 0.5f + a - b + c, y[1] = s[5], y[2] = a + b + 2.f * c + s[4];
    }
  };
};

// The filter's point that belongs to a point of a tile.
template <class S>
inline int of_filter(int point) {
  return std::min(point / S::SIDE, TAPS - 1) * TAPS + std::min(point % S::SIDE, TAPS - 1);
}

template <class F>
inline void both_axes(const vec (&x)[F::FROM][F::FROM], vec (&y)[F::TO][F::TO]) {
  vec half[F::TO][F::FROM];
  for (int i = 0; i < F::FROM; i++) {
    vec row[F::TO];
    F::axis(x[i], row);
    for (int j = 0; j < F::TO; j++) half[j][i] = row[j];
  }
  for (int j = 0; j < F::TO; j++) {
    vec column[F::TO];
    F::axis(half[j], column);
    for (int i = 0; i < F::TO; i++) y[i][j] = column[i];
  }
}

template <class T>
struct Map {  // images, channels-last
  T *pixels;
  i64 height, width, channels;
};

template <class S>
struct Tiles {
  static constexpr int SIDE = S::SIDE, POINTS = SIDE * SIDE;
  i64 down, across, count;
  i64 block, apart;  // of a transformed block: its tiles, and the numbers from one point to the next

  // Of outputs (images, height, width); a block is of transformed tiles of so many channels.
  Tiles(i64 images, i64 height, i64 width, i64 channels, i64 least_blocks)
      : down((height + OUT - 1) / OUT), across((width + OUT - 1) / OUT), count(images * down * across) {
    const i64 most = std::max(LEAST, BLOCK / (channels * 4)) / POINTS;
    const i64 blocks = std::max(least_blocks, (count + most - 1) / most);
    block = ((count + blocks - 1) / blocks + ROWS - 1) / ROWS * ROWS;
    apart = (block + 1) * PANEL;  // no multiple of 4 KiB, else all points would fall into the same lines of the cache
  }
  i64 scratch(i64 channels) const { return channels * POINTS * (block + 1); }
  i64 row(i64 tile) const { return tile / across % down; }
  i64 column(i64 tile) const { return tile % across; }
  i64 image(i64 tile) const { return tile / (down * across); }

  // Transforms the pixels of one tile, those outside of the image 0, all channels.
  template <class F>
  void read(const Map<const float> &x, i64 tile, float *to) const {
    const i64 top = row(tile) * F::STEP - F::MARGIN, left = column(tile) * F::STEP - F::MARGIN;
    const float *from = x.pixels + image(tile) * x.height * x.width * x.channels;
    for (i64 c = 0; c < x.channels; c += LANES) {
      vec pixels[F::FROM][F::FROM], points[SIDE][SIDE];
      for (int i = 0; i < F::FROM; i++)
        for (int j = 0; j < F::FROM; j++) {
          const i64 y = top + i, z = left + j;
          const bool inside = y >= 0 && y < x.height && z >= 0 && z < x.width;
          pixels[i][j] = inside ? load(from + (y * x.width + z) * x.channels + c) : vec{};
        }
      both_axes<F>(pixels, points);
      float *panel = to + c / PANEL * POINTS * apart + c % PANEL;
      for (int i = 0; i < POINTS; i++) {
        store(panel + i * apart, points[i / SIDE][i % SIDE]);
        __builtin_prefetch(panel + i * apart + 2 * PANEL, 1);  // of the tile after next: too many streams for a guess
      }
    }
  }
  // Transforms the products of one tile and 16 channels, from c0 on, back; pixels outside of the image are dropped.
  template <class F>
  void write(const float *products, i64 step, i64 tile, i64 c0, const Map<float> &out) const {
    const i64 top = row(tile) * F::TO, left = column(tile) * F::TO;
    const i64 rows = std::min<i64>(F::TO, out.height - top), columns = std::min<i64>(F::TO, out.width - left);
    float *to = out.pixels + ((image(tile) * out.height + top) * out.width + left) * out.channels + c0;
    for (int v = 0; v < PANEL; v += LANES) {
      vec points[SIDE][SIDE], pixels[F::TO][F::TO];
      for (int i = 0; i < POINTS; i++) points[i / SIDE][i % SIDE] = load(products + i * step + v);
      both_axes<F>(points, pixels);
      for (i64 i = 0; i < rows; i++)
        for (i64 j = 0; j < columns; j++) {
          store(to + (i * out.width + j) * out.channels + v, pixels[i][j]);
          __builtin_prefetch(to + (i * out.width + j + F::TO) * out.channels + v, 1);  // of the next tile
        }
    }
  }
};

// The weights, (out, 3, 3, in) in memory; turned by 180 degrees and with `in` and `out` exchanged they give the
// gradient of the input.
struct Weights {
  const float *w;
  i64 in, out;
  bool turned;

  // Transforms the filters from 16 channels to 16.
  template <class F>
  void read(i64 k0, i64 c0, float *to, i64 apart) const {
    float taps[9][PANEL][PANEL];  // [tap][input][output]
    for (int tap = 0; tap < 9; tap++)
      for (int a = 0; a < PANEL; a++) {
        const float *row = turned ? w + ((c0 + a) * 9 + 8 - tap) * out + k0 : w + ((k0 + a) * 9 + tap) * in + c0;
        if (!turned) __builtin_prefetch(row + PANEL);  // of the next 16 input channels
        for (int b = 0; b < PANEL; b++) (turned ? taps[tap][a][b] : taps[tap][b][a]) = row[b];
      }
    for (int c = 0; c < PANEL; c++)
      for (int v = 0; v < PANEL; v += LANES) {
        vec filter[3][3], points[TAPS][TAPS];
        for (int tap = 0; tap < 9; tap++) filter[tap / 3][tap % 3] = load(&taps[tap][c][v]);
        both_axes<F>(filter, points);
        for (int i = 0; i < TAPS * TAPS; i++) store(to + i * apart + c * PANEL + v, points[i / TAPS][i % TAPS]);
      }
  }
};

// out[i][k] = sum of a[i * row + d * step] * b[d][k] over d, R rows of 16; d comes in chunks, between which a jumps.
template <int R>
inline void product(const float *a, i64 row, i64 step, i64 jump, const float *b, i64 chunks, i64 chunk, bool add,
                    float *out) {
  vec sum[R][VECS];
  for (int i = 0; i < R; i++)
    for (int v = 0; v < VECS; v++) sum[i][v] = add ? load(out + i * PANEL + v * LANES) : vec{};
  for (i64 n = 0; n < chunks; n++, a += jump) {
    for (int i = 0; i < R; i++) _mm_prefetch(a + (R + i) * row, _MM_HINT_T0);  // of the next call: no stream goes there
    const float *from = a;
    for (i64 d = 0; d < chunk; d++, from += step, b += PANEL) {
      vec beside[VECS];
      for (int v = 0; v < VECS; v++) beside[v] = load(b + v * LANES);
      for (int i = 0; i < R; i++) {
        const vec one = everywhere(from[i * row]);
        for (int v = 0; v < VECS; v++) sum[i][v] = multiply_add(one, beside[v], sum[i][v]);
      }
    }
  }
  for (int i = 0; i < R; i++)
    for (int v = 0; v < VECS; v++) store(out + i * PANEL + v * LANES, sum[i][v]);
}

struct Free {
  void operator()(float *p) const { std::free(p); }
};
// Memory for so many numbers, null if there is none. Kept for this thread's next call: allocated anew every time, it would
// be paged in anew, or leave holes between the maps that no map fits into.
float *scratch(i64 numbers) {
  thread_local std::unique_ptr<float[], Free> kept;
  thread_local i64 size = 0;
  if (numbers > size) {
    kept.reset();
    kept.reset(static_cast<float *>(std::aligned_alloc(64, (numbers / 16 + 1) * 64)));
    size = kept ? numbers : 0;
  }
  return kept.get();
}

// The geometry of a convolution: x (images, height, width, channels), w (channels_out, 3, 3, channels). Channels are
// multiples of 16.
struct Geometry {
  i64 images, height, width, channels, channels_out, stride;

  template <class T>
  Map<T> input(T *pixels) const { return {pixels, height, width, channels}; }
  template <class T>
  Map<T> output(T *pixels) const {
    return {pixels, (height + stride - 1) / stride, (width + stride - 1) / stride, channels_out};
  }
};

// The output of a convolution from its input or, `turned`, the gradient of the input from that of the output. False: there
// was not enough memory.
template <class S, bool turned>
bool convolve(const Geometry &of, const float *pixels, const float *w, float *result, i64 threads) {
  using From = std::conditional_t<turned, typename S::Gradient, typename S::Pixels>;
  using To = std::conditional_t<turned, typename S::Input, typename S::Output>;
  const Map<const float> x = turned ? of.output(pixels) : of.input(pixels);
  const Map<float> out = turned ? of.input(result) : of.output(result);
  const Weights weights{w, x.channels, out.channels, turned};
  const auto outputs = of.output(w);  // for its size alone
  const Tiles<S> tiles(of.images, outputs.height, outputs.width, x.channels, threads);
  constexpr int POINTS = S::SIDE * S::SIDE, FILTER = TAPS * TAPS;
  const i64 panels = out.channels / PANEL, inputs = x.channels / PANEL, group = std::min(GROUP, panels);
  const i64 apart = (x.channels + 1) * PANEL;  // points of a filter: no multiple of 4 KiB, as those of tiles
  const i64 filter_size = group * FILTER * apart, product_size = group * POINTS * TOGETHER * PANEL;
  const i64 size = tiles.scratch(x.channels) + filter_size + product_size;
  float *all = scratch(threads * size);
  if (!all) return false;
#pragma omp parallel for num_threads(threads) schedule(dynamic)
  for (i64 first = 0; first < tiles.count; first += tiles.block) {
    float *points = all + omp_get_thread_num() * size;
    float *filters = points + tiles.scratch(x.channels), *products = filters + filter_size;
    const i64 here = std::min(tiles.block, tiles.count - first);
    for (i64 t = 0; t < here; t++) tiles.template read<From>(x, first + t, points + t * PANEL);
    for (i64 k0 = 0; k0 < panels; k0 += group) {
      const i64 ks = std::min(group, panels - k0);
      for (i64 k = 0; k < ks; k++)
        for (i64 c = 0; c < inputs; c++)
          weights.read<typename S::Filter>((k0 + k) * PANEL, c * PANEL, filters + k * FILTER * apart + c * PANEL * PANEL,
                                           apart);
      for (i64 t0 = 0; t0 < here; t0 += TOGETHER) {
        const i64 ts = std::min(TOGETHER, here - t0);
        for (int i = 0; i < POINTS; i++)
          for (i64 k = 0; k < ks; k++)
            for (i64 t = 0; t < ts; t += ROWS)
              product<ROWS>(points + i * tiles.apart + (t0 + t) * PANEL, PANEL, 1, POINTS * tiles.apart,
                            filters + (k * FILTER + of_filter<S>(i)) * apart, inputs, PANEL, false,
                            products + ((k * POINTS + i) * TOGETHER + t) * PANEL);
        for (i64 t = 0; t < ts; t++)
          for (i64 k = 0; k < ks; k++)
            tiles.template write<To>(products + (k * POINTS * TOGETHER + t) * PANEL, TOGETHER * PANEL, first + t0 + t,
                                     (k0 + k) * PANEL, out);
      }
    }
  }
  return true;
}

// The gradient of the weights, (out, 3, 3, in), from x and the output's gradient. False: there was not enough memory.
template <class S>
bool convolve_weights(const Geometry &of, const float *pixels, const float *gradient, float *out, i64 threads) {
  const Map<const float> x = of.input(pixels), grad = of.output(gradient);
  constexpr i64 SQUARE = PANEL * PANEL;
  constexpr int SIDE = S::SIDE, POINTS = SIDE * SIDE, FILTER = TAPS * TAPS;
  const Tiles<S> tiles(of.images, grad.height, grad.width, x.channels, 1);
  const i64 inputs = x.channels / PANEL, pairs = inputs * (grad.channels / PANEL);
  const bool once = tiles.block >= tiles.count;  // then no sum has to wait for the next block
  const i64 points_size = tiles.scratch(x.channels), slopes_size = tiles.scratch(grad.channels);
  float *points = scratch(points_size + slopes_size + (once ? threads : pairs) * FILTER * SQUARE);
  if (!points) return false;
  float *slopes = points + points_size, *sums = slopes + slopes_size;
#pragma omp parallel num_threads(threads)
  for (i64 first = 0; first < tiles.count; first += tiles.block) {
    const i64 here = std::min(tiles.block, tiles.count - first);
#pragma omp for schedule(static)
    for (i64 t = 0; t < here; t++) {
      tiles.template read<typename S::Pixels>(x, first + t, points + t * PANEL);
      tiles.template read<typename S::OutputGradient>(grad, first + t, slopes + t * PANEL);
    }
#pragma omp for schedule(static)
    for (i64 pair = 0; pair < pairs; pair++) {
      const i64 k = pair / inputs, c = pair % inputs;
      float *sum = sums + (once ? omp_get_thread_num() : pair) * FILTER * SQUARE;
      for (int i = 0; i < POINTS; i++) {
        const float *a = slopes + (k * POINTS + i) * tiles.apart, *b = points + (c * POINTS + i) * tiles.apart;
        const bool add = first > 0 || i / SIDE >= TAPS || i % SIDE >= TAPS;  // an earlier point had this one of the filter
        float *to = sum + of_filter<S>(i) * SQUARE;
        product<6>(a, 1, PANEL, 0, b, 1, here, add, to);
        product<6>(a + 6, 1, PANEL, 0, b, 1, here, add, to + 6 * PANEL);
        product<4>(a + 12, 1, PANEL, 0, b, 1, here, add, to + 12 * PANEL);
      }
      if (first + here < tiles.count) continue;
      for (int r = 0; r < PANEL; r++)
        for (int v = 0; v < PANEL; v += LANES) {
          vec sums_of[TAPS][TAPS], taps[3][3];
          for (int i = 0; i < FILTER; i++) sums_of[i / TAPS][i % TAPS] = load(sum + i * SQUARE + r * PANEL + v);
          both_axes<typename S::FilterGradient>(sums_of, taps);
          for (int tap = 0; tap < 9; tap++)
            store(out + ((k * PANEL + r) * 9 + tap) * x.channels + c * PANEL + v, taps[tap / 3][tap % 3]);
        }
    }
  }
  return true;
}

}  // namespace winograd

extern "C" {

// Each of the three from the two others; false: there was not enough memory.
bool spikeback_convolve(const winograd::Geometry *of, const float *x, const float *w, float *out, i64 threads) {
  using namespace winograd;
  return (of->stride == 2 ? convolve<Stride2, false> : convolve<Stride1, false>)(*of, x, w, out, threads);
}
bool spikeback_convolve_input(const winograd::Geometry *of, const float *grad, const float *w, float *out, i64 threads) {
  using namespace winograd;
  return (of->stride == 2 ? convolve<Stride2, true> : convolve<Stride1, true>)(*of, grad, w, out, threads);
}
bool spikeback_convolve_weights(const winograd::Geometry *of, const float *x, const float *grad, float *out, i64 threads) {
  using namespace winograd;
  return (of->stride == 2 ? convolve_weights<Stride2> : convolve_weights<Stride1>)(*of, x, grad, out, threads);
}
}
#endif
