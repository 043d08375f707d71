// Convolutions 3x3 with stride 1 and padding 1 of channels-last float32 pictures, by Winograd's minimal filtering
// F(4x4, 3x3): 36 multiplications for 16 outputs instead of 144 (Lavin and Gray 2016, arXiv:1509.09308).
//
// An output is cut into tiles of 4x4, each of which needs 6x6 pixels. Tiles, filters and gradients are transformed into
// 36 points; for each point the products over all channels are a product of matrices; what it gives is transformed back.
// A transformed block of tiles lies as [16 channels at a time][point][tile][16], so that every matrix product runs
// through memory 16 numbers at a time, and stays in the cache until it was used. No sum depends on the number of threads.
#if defined(__FMA__)
#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
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
constexpr int SIDE = 6, POINTS = SIDE * SIDE;
constexpr int ROWS = 6;  // tiles of one matrix product: with 16 channels they fill the registers of AVX2
constexpr i64 BLOCK = 2 << 20, TILES = 256;  // bytes of a block of transformed tiles, or so many tiles if they are more:
                                             // filters are transformed once for each block
constexpr i64 GROUP = 4, TOGETHER = 60;  // panels of outputs, and tiles, whose products are in the cache together
static_assert(TOGETHER % ROWS == 0 && TILES >= ROWS);  // rows beyond the last tile lie in the scratch, and are dropped

// The transforms along one axis, with the points 0, 1, -1, 2, -2 and infinity.
struct Pixels {
  static constexpr int FROM = SIDE, TO = SIDE, MARGIN = 1;
  static void axis(const vec *x, vec *y) {
    const vec a = x[4] - 4.f * x[2], b = x[3] - 4.f * x[1], c = x[4] - x[2], d = 2.f * (x[3] - x[1]);
    y[0] = 4.f * x[0] - 5.f * x[2] + x[4], y[1] = a + b, y[2] = a - b, y[3] = c + d, y[4] = c - d;
    y[5] = 4.f * x[1] - 5.f * x[3] + x[5];
  }
};
struct Filter {
  static constexpr int FROM = 3, TO = SIDE;
  static void axis(const vec *w, vec *y) {
    const vec a = (w[0] + w[2]) * (1.f / 6), b = w[1] * (1.f / 6);
    const vec c = w[0] * (1.f / 24) + w[2] * (1.f / 6), d = w[1] * (1.f / 12);
    y[0] = w[0] * 0.25f, y[1] = -a - b, y[2] = b - a, y[3] = c + d, y[4] = c - d, y[5] = w[2];
  }
};
struct Output {
  static constexpr int FROM = SIDE, TO = 4;
  static void axis(const vec *m, vec *y) {
    const vec a = m[1] + m[2], b = m[1] - m[2], c = m[3] + m[4], d = m[3] - m[4];
    y[0] = m[0] + a + c, y[1] = b + 2.f * d, y[2] = a + 4.f * c, y[3] = b + 8.f * d + m[5];
  }
};
struct OutputGradient {  // the transpose of Output
  static constexpr int FROM = 4, TO = SIDE, MARGIN = 0;
  static void axis(const vec *g, vec *y) {
    const vec a = g[0] + g[2], b = g[1] + g[3], c = g[0] + 4.f * g[2], d = 2.f * g[1] + 8.f * g[3];
    y[0] = g[0], y[1] = a + b, y[2] = a - b, y[3] = c + d, y[4] = c - d, y[5] = g[3];
  }
};
struct FilterGradient {  // the transpose of Filter
  static constexpr int FROM = SIDE, TO = 3;
  static void axis(const vec *s, vec *y) {
    const vec a = (s[1] + s[2]) * (1.f / 6), b = (s[2] - s[1]) * (1.f / 6), c = s[3] + s[4], d = s[3] - s[4];
    y[0] = s[0] * 0.25f - a + c * (1.f / 24), y[1] = b + d * (1.f / 12), y[2] = c * (1.f / 6) - a + s[5];
  }
};

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

struct Tiles {
  i64 height, width, down, across, count;
  i64 block, stride;  // of a transformed block: its tiles, and the numbers from one point to the next

  Tiles(i64 pictures, i64 height, i64 width, i64 channels, i64 least_blocks)
      : height(height), width(width), down((height + 3) / 4), across((width + 3) / 4), count(pictures * down * across) {
    const i64 most = std::max(TILES, BLOCK / (POINTS * channels * 4));
    const i64 blocks = std::max(least_blocks, (count + most - 1) / most);
    block = ((count + blocks - 1) / blocks + ROWS - 1) / ROWS * ROWS;
    stride = (block + 1) * PANEL;  // no multiple of 4 KiB, else all points would fall into the same lines of the cache
  }
  i64 scratch(i64 channels) const { return channels * POINTS * (block + 1); }
  i64 top(i64 tile) const { return tile / across % down * 4; }
  i64 left(i64 tile) const { return tile % across * 4; }
  i64 first_pixel(i64 tile) const { return tile / (down * across) * height * width; }

  // Transforms the pixels of one tile, those outside of the picture 0, all channels.
  template <class F>
  void read(const float *x, i64 channels, i64 tile, float *to) const {
    const i64 top = this->top(tile) - F::MARGIN, left = this->left(tile) - F::MARGIN;
    for (i64 c = 0; c < channels; c += LANES) {
      const float *from = x + first_pixel(tile) * channels + c;
      vec pixels[F::FROM][F::FROM], points[SIDE][SIDE];
      for (int i = 0; i < F::FROM; i++)
        for (int j = 0; j < F::FROM; j++) {
          const i64 row = top + i, column = left + j;
          const bool inside = row >= 0 && row < height && column >= 0 && column < width;
          pixels[i][j] = inside ? load(from + (row * width + column) * channels) : vec{};
        }
      both_axes<F>(pixels, points);
      float *panel = to + c / PANEL * POINTS * stride + c % PANEL;
      for (int i = 0; i < POINTS; i++) {
        store(panel + i * stride, points[i / SIDE][i % SIDE]);
        __builtin_prefetch(panel + i * stride + 2 * PANEL, 1);  // of the tile after next: too many streams for a guess
      }
    }
  }
  // Transforms the products of one tile and 16 channels back; pixels outside of the picture are dropped.
  void write(const float *products, i64 step, i64 tile, i64 channels, float *out) const {
    const i64 rows = std::min<i64>(4, height - top(tile)), columns = std::min<i64>(4, width - left(tile));
    out += (first_pixel(tile) + top(tile) * width + left(tile)) * channels;
    for (int v = 0; v < PANEL; v += LANES) {
      vec points[SIDE][SIDE], pixels[4][4];
      for (int i = 0; i < POINTS; i++) points[i / SIDE][i % SIDE] = load(products + i * step + v);
      both_axes<Output>(points, pixels);
      for (i64 i = 0; i < rows; i++)
        for (i64 j = 0; j < columns; j++) {
          store(out + (i * width + j) * channels + v, pixels[i][j]);
          __builtin_prefetch(out + (i * width + j + 4) * channels + v, 1);  // of the next tile
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
  void read(i64 k0, i64 c0, float *to, i64 stride) const {
    float taps[9][PANEL][PANEL];  // [tap][input][output]
    for (int tap = 0; tap < 9; tap++)
      for (int a = 0; a < PANEL; a++) {
        const float *row = turned ? w + ((c0 + a) * 9 + 8 - tap) * out + k0 : w + ((k0 + a) * 9 + tap) * in + c0;
        if (!turned) __builtin_prefetch(row + PANEL);  // of the next 16 input channels
        for (int b = 0; b < PANEL; b++) (turned ? taps[tap][a][b] : taps[tap][b][a]) = row[b];
      }
    for (int c = 0; c < PANEL; c++)
      for (int v = 0; v < PANEL; v += LANES) {
        vec filter[3][3], points[SIDE][SIDE];
        for (int tap = 0; tap < 9; tap++) filter[tap / 3][tap % 3] = load(&taps[tap][c][v]);
        both_axes<Filter>(filter, points);
        for (int i = 0; i < POINTS; i++) store(to + i * stride + c * PANEL + v, points[i / SIDE][i % SIDE]);
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

}  // namespace winograd

extern "C" {

// out (N, H, W, out) from x (N, H, W, in); w is (out, 3, 3, in), or if `turned` (in, 3, 3, out). Channels are multiples
// of 16. False: there was not enough memory.
bool spikeback_convolve(const float *x, const float *w, float *out, i64 pictures, i64 height, i64 width, i64 channels,
                        i64 channels_out, int turned, int threads) {
  using namespace winograd;
  const Tiles tiles(pictures, height, width, channels, threads);
  const Weights weights{w, channels, channels_out, bool(turned)};
  const i64 panels = channels_out / PANEL, inputs = channels / PANEL, group = std::min(GROUP, panels);
  const i64 filter_stride = (channels + 1) * PANEL;  // no multiple of 4 KiB, as that of tiles
  const i64 filter_size = group * POINTS * filter_stride, product_size = group * POINTS * TOGETHER * PANEL;
  const i64 size = tiles.scratch(channels) + filter_size + product_size;
  float *all = scratch(threads * size);
  if (!all) return false;
#pragma omp parallel for num_threads(threads) schedule(dynamic)
  for (i64 first = 0; first < tiles.count; first += tiles.block) {
    float *points = all + omp_get_thread_num() * size;
    float *filters = points + tiles.scratch(channels), *products = filters + filter_size;
    const i64 here = std::min(tiles.block, tiles.count - first);
    for (i64 t = 0; t < here; t++) tiles.read<Pixels>(x, channels, first + t, points + t * PANEL);
    for (i64 k0 = 0; k0 < panels; k0 += group) {
      const i64 ks = std::min(group, panels - k0);
      for (i64 k = 0; k < ks; k++)
        for (i64 c = 0; c < inputs; c++)
          weights.read((k0 + k) * PANEL, c * PANEL, filters + k * POINTS * filter_stride + c * PANEL * PANEL, filter_stride);
      for (i64 t0 = 0; t0 < here; t0 += TOGETHER) {
        const i64 ts = std::min(TOGETHER, here - t0);
        for (int i = 0; i < POINTS; i++)
          for (i64 k = 0; k < ks; k++)
            for (i64 t = 0; t < ts; t += ROWS)
              product<ROWS>(points + i * tiles.stride + (t0 + t) * PANEL, PANEL, 1, POINTS * tiles.stride,
                            filters + (k * POINTS + i) * filter_stride, inputs, PANEL, false,
                            products + ((k * POINTS + i) * TOGETHER + t) * PANEL);
        for (i64 t = 0; t < ts; t++)
          for (i64 k = 0; k < ks; k++)
            tiles.write(products + (k * POINTS * TOGETHER + t) * PANEL, TOGETHER * PANEL, first + t0 + t, channels_out,
                        out + (k0 + k) * PANEL);
      }
    }
  }
  return true;
}

// out (channels_out, 3, 3, channels): the gradient of the weights, from x (N, H, W, channels) and the output's gradient.
// The unnamed argument makes both functions one kind of call.
bool spikeback_convolve_weights(const float *x, const float *grad, float *out, i64 pictures, i64 height, i64 width,
                                i64 channels, i64 channels_out, int, int threads) {
  using namespace winograd;
  constexpr i64 SQUARE = PANEL * PANEL;
  const Tiles tiles(pictures, height, width, channels, 1);
  const i64 inputs = channels / PANEL, pairs = inputs * (channels_out / PANEL);
  const bool once = tiles.block >= tiles.count;  // then no sum has to wait for the next block
  const i64 points_size = tiles.scratch(channels), slopes_size = tiles.scratch(channels_out);
  float *points = scratch(points_size + slopes_size + (once ? threads : pairs) * POINTS * SQUARE);
  if (!points) return false;
  float *slopes = points + points_size, *sums = slopes + slopes_size;
#pragma omp parallel num_threads(threads)
  for (i64 first = 0; first < tiles.count; first += tiles.block) {
    const i64 here = std::min(tiles.block, tiles.count - first);
#pragma omp for schedule(static)
    for (i64 t = 0; t < here; t++) {
      tiles.read<Pixels>(x, channels, first + t, points + t * PANEL);
      tiles.read<OutputGradient>(grad, channels_out, first + t, slopes + t * PANEL);
    }
#pragma omp for schedule(static)
    for (i64 pair = 0; pair < pairs; pair++) {
      const i64 k = pair / inputs, c = pair % inputs;
      float *sum = sums + (once ? omp_get_thread_num() : pair) * POINTS * SQUARE;
      for (int i = 0; i < POINTS; i++) {
        const float *a = slopes + (k * POINTS + i) * tiles.stride, *b = points + (c * POINTS + i) * tiles.stride;
        float *to = sum + i * SQUARE;
        product<6>(a, 1, PANEL, 0, b, 1, here, first > 0, to);
        product<6>(a + 6, 1, PANEL, 0, b, 1, here, first > 0, to + 6 * PANEL);
        product<4>(a + 12, 1, PANEL, 0, b, 1, here, first > 0, to + 12 * PANEL);
      }
      if (first + here < tiles.count) continue;
      for (int r = 0; r < PANEL; r++)
        for (int v = 0; v < PANEL; v += LANES) {
          vec sums_of[SIDE][SIDE], taps[3][3];
          for (int i = 0; i < POINTS; i++) sums_of[i / SIDE][i % SIDE] = load(sum + i * SQUARE + r * PANEL + v);
          both_axes<FilterGradient>(sums_of, taps);
          for (int tap = 0; tap < 9; tap++)
            store(out + ((k * PANEL + r) * 9 + tap) * channels + c * PANEL + v, taps[tap / 3][tap % 3]);
        }
    }
  }
  return true;
}
}
#endif
