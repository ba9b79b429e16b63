/* float32 kernels; see kernels.h. Compiled once for each instruction set, with TTI_ISA naming it.
 *
 * Convolution: a register tile of up to TTI_TILE pixels by 2 vectors of output channels. For every k the tile loads one
 * row of the weight panel and broadcasts one input element per pixel (Goto and van de Geijn's outer-product form), so
 * that every weight is read once for a whole tile and no im2col is needed: neighbouring pixels of a y-plane are a
 * constant stride apart.
 */
#include "kernels.h"

#include "isa.h"
#include "tinytee_program.h"

/* Lanes of a vector and pixels of a register tile: pixels * 2 accumulators, 2 weights and an input fit the registers
 * (NEON: as many inputs as pixels). */
#if TTI_CODE == TTI_CODE_avx512
#define TTI_LANES 16
#define TTI_TILE 14
#elif TTI_CODE == TTI_CODE_avx2
#define TTI_LANES 8
#define TTI_TILE 6
#elif TTI_CODE == TTI_CODE_neon
#define TTI_LANES 4
#define TTI_TILE 8
#else
#define TTI_LANES 4
#define TTI_TILE 6
#endif

#include "vector.h"

#include "rans.h"

/* ---- convolution */

enum { MOST_COLUMNS = TTI_CODE == TTI_CODE_avx2 ? 4 : 2 }; /* vectors of channels of a register tile */

/* A loop over constants that is to be unrolled into registers. */
#define TTI_FOR(i, count) _Pragma("GCC unroll 16") for (int i = 0; i < (count); i++)

/* One register tile: pixels x .. x + pixels of so many vectors of channels, the last of them partial if 'partial' says
 * so. These are constants at every call, so that each call site is unrolled into registers. */
TTI_INLINE vf tile_load(const float *in, const int partial, size_t count) {
  return partial ? v_load_part(in, count) : v_load(in);
}

TTI_INLINE void tile_store(float *out, vf v, const int partial, size_t count) {
  if (partial)
    v_store_part(out, v, count);
  else
    v_store(out, v);
}

TTI_INLINE vf v_hard_swish(vf x) { return x * v_clamp(x * (1.0f / 6.0f) + 0.5f, 0.0f, 1.0f); }

TTI_INLINE vf clamped(tti_finish finish, vf v) {
  return v_at_most(v_at_least(v, v_set(finish.low)), v_set(finish.high));
}

TTI_INLINE vf finished(tti_finish finish, vf v) {
  const vf result = clamped(finish, v);
  return finish.hard_swish ? v_hard_swish(result) : result;
}

TTI_INLINE vf tile_weight(const int differ, const float *w, ptrdiff_t less) {
  const vf weight = v_load(w);
  return differ ? weight - v_load(w + less) : weight;
}

/* Bytes that are brought near between two rows of a panel, and after how many rows the next ones are. */
typedef struct tile_ahead {
  const char *at;
  size_t every;
} tile_ahead;

enum { LINE_BYTES = 64 };

/* How many of 'count' rows come before the next line; asks for one. NEON's main loop has no registers to spare for it.
 */
TTI_INLINE size_t bring_near(tile_ahead *ahead, size_t count) {
#if TTI_CODE == TTI_CODE_neon
  (void)ahead;
  return count;
#else
  __builtin_prefetch(ahead->at, 0, 2);
  ahead->at += LINE_BYTES;
  return count < ahead->every ? count : ahead->every;
#endif
}

/* Adds one run to a register tile. Pixels are addressed from one in three of them, for which a processor has the
 * registers and the addressing modes; the compiler, which would rather have one register a pixel, is kept from seeing
 * how they are related. */
TTI_INLINE void tile_run(const int pixels, const int vectors, const int differ, const float *in, ptrdiff_t stride,
                         const float *w, ptrdiff_t less, size_t panel, size_t count, tile_ahead *ahead,
                         vf acc[TTI_TILE][MOST_COLUMNS]) {
  const float *at[(TTI_TILE + 2) / 3];
  TTI_FOR (g, (pixels + 2) / 3) at[g] = in + 3 * g * stride;
#if TTI_CODE == TTI_CODE_neon
  for (; count >= 4; count -= 4) { /* multiplies by a lane: one load of a pixel serves four rows */
    float32x4_t a[TTI_TILE];
    TTI_FOR (m, pixels) a[m] = vld1q_f32(at[m / 3] + m % 3 * stride);
#define TTI_LANE(L)                                                                                                    \
  {                                                                                                                    \
    vf b[2];                                                                                                           \
    TTI_FOR (v, vectors) b[v] = tile_weight(differ, w + v * TTI_LANES, less);                                          \
    w += panel;                                                                                                        \
    TTI_FOR (m, pixels)                                                                                                \
      TTI_FOR (v, vectors) acc[m][v] = (vf)vfmaq_laneq_f32((float32x4_t)acc[m][v], (float32x4_t)b[v], a[m], L);        \
  }
    TTI_LANE(0)
    TTI_LANE(1)
    TTI_LANE(2)
    TTI_LANE(3)
#undef TTI_LANE
    TTI_FOR (g, (pixels + 2) / 3) at[g] += 4;
    TTI_FOR (g, (pixels + 2) / 3) __asm__("" : "+r"(at[g]));
  }
#endif
  while (count) {
    size_t rows = bring_near(ahead, count);
    count -= rows;
    for (; rows; rows--, w += panel) {
      vf b[MOST_COLUMNS];
      TTI_FOR (v, vectors) b[v] = tile_weight(differ, w + v * TTI_LANES, less);
      TTI_FOR (m, pixels) {
        const vf a = v_set(at[m / 3][m % 3 * stride]);
        TTI_FOR (v, vectors) acc[m][v] += a * b[v];
      }
      TTI_FOR (g, (pixels + 2) / 3) at[g]++;
      TTI_FOR (g, (pixels + 2) / 3) __asm__("" : "+r"(at[g]));
    }
  }
}

TTI_INLINE void tile(const int pixels, const int vectors, const int partial, const int differ, const size_t panel,
                     const tti_conv_row *c, size_t x, size_t column, tile_ahead *ahead) {
  vf acc[TTI_TILE][MOST_COLUMNS];
  float *const out = c->out + (ptrdiff_t)x * c->out_stride + column;
  const size_t left = c->columns - column - (size_t)(vectors - 1) * TTI_LANES; /* of the last vector */
  TTI_FOR (v, vectors) {
    const vf b = c->bias ? v_load(c->bias + column + v * TTI_LANES) : v_set(0.0f);
    TTI_FOR (m, pixels) acc[m][v] = b;
  }
  if (c->begin) {
    const float *begin = c->begin + (ptrdiff_t)x * c->begin_stride + column;
    TTI_FOR (m, pixels)
      TTI_FOR (v, vectors)
        acc[m][v] += tile_load(begin + m * c->begin_stride + v * TTI_LANES, partial && v == vectors - 1, left);
  }
  for (size_t r = 0; r < c->run_count; r++)
    tile_run(pixels, vectors, differ, c->runs[r].input + (ptrdiff_t)x * c->pixel_stride, c->pixel_stride,
             c->weights + (size_t)c->runs[r].weight_row * panel + column, c->less, panel, c->runs[r].count, ahead, acc);
  if (c->residual) {
    const float *residual = c->residual + (ptrdiff_t)x * c->residual_stride + column;
    TTI_FOR (m, pixels)
      TTI_FOR (v, vectors)
        acc[m][v] += tile_load(residual + m * c->residual_stride + v * TTI_LANES, partial && v == vectors - 1, left);
  }
  const tti_finish finish = c->finish;
  TTI_FOR (m, pixels)
    TTI_FOR (v, vectors) acc[m][v] = clamped(finish, acc[m][v]);
  if (finish.hard_swish)
    TTI_FOR (m, pixels)
      TTI_FOR (v, vectors) acc[m][v] = v_hard_swish(acc[m][v]);
  TTI_FOR (m, pixels)
    TTI_FOR (v, vectors)
      tile_store(out + m * c->out_stride + v * TTI_LANES, acc[m][v], partial && v == vectors - 1, left);
}

#define TTI_TILE_CASE(M)                                                                                               \
  case M:                                                                                                              \
    tile(M, vectors, partial, differ, panel, c, x, column, &ahead);                                                    \
    break;

/* Pixels x .. end of the y-plane for one or two vectors of channels, in tiles of nearly equal size. Pixels that are a
 * multiple of 4 KiB apart share a set of a first-level cache of 8 ways: then fewer at a time stay there until all of a
 * line is used.
 */
TTI_INLINE void strip(const int vectors, const int partial, const int differ, const size_t panel, const tti_conv_row *c,
                      size_t column, size_t x, size_t end) {
  const size_t most = TTI_TILE > 7 && (size_t)c->pixel_stride % 1024 == 0 ? 7 : TTI_TILE;
  size_t tiles = (end - x + most - 1) / most, rows = 0;
  for (size_t r = 0; r < c->run_count; r++) rows += c->runs[r].count;
  tile_ahead ahead = {(const char *)c->weights, rows};
  if (c->ahead_bytes && !column) {
    const size_t every = rows * tiles / ((c->ahead_bytes + LINE_BYTES - 1) / LINE_BYTES);
    ahead = (tile_ahead){c->ahead, every ? every : 1};
  }
  for (; tiles; tiles--) {
    const size_t pixels = (end - x + tiles - 1) / tiles;
    switch (pixels) {
      TTI_TILE_CASE(1)
      TTI_TILE_CASE(2)
      TTI_TILE_CASE(3)
      TTI_TILE_CASE(4)
      TTI_TILE_CASE(5)
      TTI_TILE_CASE(6)
#if TTI_TILE > 6
      TTI_TILE_CASE(7)
      TTI_TILE_CASE(8)
#endif
#if TTI_TILE > 8
      TTI_TILE_CASE(9)
      TTI_TILE_CASE(10)
      TTI_TILE_CASE(11)
      TTI_TILE_CASE(12)
      TTI_TILE_CASE(13)
      TTI_TILE_CASE(14)
#endif
      default:
        break;
    }
    x += pixels;
  }
}

/* Panels narrower than a vector (8 channels on AVX-512): one pixel at a time, the columns left to the compiler. */
static void conv_row_narrow(const tti_conv_row *c) {
  for (size_t x = 0; x < c->width; x++) {
    float acc[8];
    float *out = c->out + (ptrdiff_t)x * c->out_stride;
    for (size_t n = 0; n < 8; n++) acc[n] = c->bias ? c->bias[n] : 0.0f;
    for (size_t n = 0; c->begin && n < c->columns; n++)
      acc[n] += c->begin[(ptrdiff_t)x * c->begin_stride + (ptrdiff_t)n];
    for (size_t r = 0; r < c->run_count; r++) {
      const float *in = c->runs[r].input + (ptrdiff_t)x * c->pixel_stride;
      const float *w = c->weights + (size_t)c->runs[r].weight_row * 8;
      for (size_t i = 0; i < c->runs[r].count; i++, w += 8)
        for (size_t n = 0; n < 8; n++) acc[n] += in[i] * (c->less ? w[n] - w[(ptrdiff_t)n + c->less] : w[n]);
    }
    for (size_t n = 0; c->residual && n < c->columns; n++)
      acc[n] += c->residual[(ptrdiff_t)x * c->residual_stride + (ptrdiff_t)n];
    v_store_part(out, finished(c->finish, v_load_part(acc, c->columns)), c->columns);
  }
}

/* A y-plane of one pixel, for which each weight serves once: a run in two or four parts, which memory delivers faster
 * side by side than one after the other, and whose sums, kept apart, hide an addition's latency. All columns are summed
 * up in the same order: large sums that are equal stay so, and a Softmax shows it. */
TTI_INLINE void pixel_columns(const int vectors, const int partial, const int differ, const tti_conv_row *c,
                              size_t column) {
  const int parts = MOST_COLUMNS > 2 ? 2 : 4;
  const size_t panel = c->panel, left = c->columns - column - (size_t)(vectors - 1) * TTI_LANES;
  vf sum[4][MOST_COLUMNS] = {{{0}}};
  for (size_t r = 0; r < c->run_count; r++) {
    const float *in = c->runs[r].input, *w = c->weights + (size_t)c->runs[r].weight_row * panel + column;
    const size_t each = c->runs[r].count / (size_t)parts, rest = c->runs[r].count % (size_t)parts;
    for (size_t i = 0; i < each; i++, in++, w += panel) {
      TTI_FOR (p, parts) {
        const vf a = v_set(in[(size_t)p * each]);
        const float *to = w + (size_t)p * each * panel;
        TTI_FOR (v, vectors) sum[p][v] += a * tile_weight(differ, to + v * TTI_LANES, c->less);
      }
    }
    in += each * (size_t)(parts - 1);
    w += each * (size_t)(parts - 1) * panel;
    for (size_t i = 0; i < rest; i++, w += panel)
      TTI_FOR (v, vectors) sum[0][v] += v_set(in[i]) * tile_weight(differ, w + v * TTI_LANES, c->less);
  }
  TTI_FOR (v, vectors) {
    const int some = partial && v == vectors - 1;
    const size_t at = column + (size_t)v * TTI_LANES;
    vf all = (sum[0][v] + sum[1][v]) + (sum[2][v] + sum[3][v]);
    if (c->bias) all += v_load(c->bias + at);
    if (c->begin) all += tile_load(c->begin + at, some, left);
    if (c->residual) all += tile_load(c->residual + at, some, left);
    tile_store(c->out + at, finished(c->finish, all), some, left);
  }
}

TTI_INLINE void pixel(const int differ, const tti_conv_row *c) {
  size_t column = 0;
  for (; MOST_COLUMNS > 2 && column + 4 * TTI_LANES <= c->columns; column += 4 * TTI_LANES)
    pixel_columns(MOST_COLUMNS, 0, differ, c, column);
  for (; column + 2 * TTI_LANES <= c->columns; column += 2 * TTI_LANES) pixel_columns(2, 0, differ, c, column);
  for (; column + TTI_LANES <= c->columns; column += TTI_LANES) pixel_columns(1, 0, differ, c, column);
  if (column < c->columns) pixel_columns(1, 1, differ, c, column);
}

/* Each by itself, so that its tiles get the registers that they need. */
static __attribute__((noinline)) void conv_row_less(const tti_conv_row *c) {
  size_t column = 0;
  for (; column + 2 * TTI_LANES <= c->columns; column += 2 * TTI_LANES)
    strip(2, 0, 1, c->panel, c, column, 0, c->width);
  if (column < c->columns) strip(1, 0, 1, c->panel, c, column, 0, c->width);
}

static __attribute__((noinline)) void conv_pixel(const tti_conv_row *c) {
  if (c->less)
    pixel(1, c);
  else
    pixel(0, c);
}

static __attribute__((noinline)) void strip_of_8(const tti_conv_row *c, size_t column) {
  strip(2, 0, 0, 8, c, column, 0, c->width);
}

static __attribute__((noinline)) void strip_of_16(const tti_conv_row *c, size_t column) {
  strip(2, 0, 0, 16, c, column, 0, c->width);
}

#if TTI_CODE == TTI_CODE_avx2
/* A tile of four pixels or fewer has few sums to hide an addition's latency, unless it is wider. So many pixels at the
 * end of a y-plane are for a wide tile, if that lets the others have five or six each; or four beside a tile of three.
 */
static size_t wide_pixels(size_t width) {
  for (size_t wide = 3; wide > 1 && wide <= width && width % TTI_TILE; wide--) {
    const size_t rest = width - wide, tiles = (rest + TTI_TILE - 1) / TTI_TILE;
    if (rest >= tiles * (wide == 3 ? 4 : 5)) return wide;
  }
  return 0;
}

/* Four vectors of channels: pixels before 'wide' two at a time. */
static __attribute__((noinline)) void strip_wide(const tti_conv_row *c, size_t column, size_t wide) {
  if (wide) {
    strip(2, 0, 0, c->panel, c, column, 0, wide);
    strip(2, 0, 0, c->panel, c, column + 2 * TTI_LANES, 0, wide);
  }
  tile_ahead ahead = {(const char *)c->weights, SIZE_MAX};
  if (c->width - wide == 2)
    tile(2, 4, 0, 0, c->panel, c, wide, column, &ahead);
  else
    tile(3, 4, 0, 0, c->panel, c, wide, column, &ahead);
}
#endif

static void conv_row(const tti_conv_row *c) {
  if (c->panel % TTI_LANES) {
    conv_row_narrow(c);
    return;
  }
  const size_t panel = c->panel;
  size_t column = 0;
  if (c->width == 1 && TTI_CODE != TTI_CODE_neon) { /* which multiplies by lanes, four rows at a time */
    conv_pixel(c);
    return;
  }
  if (c->less) {
    conv_row_less(c);
    return;
  }
#if TTI_CODE == TTI_CODE_avx2
  for (const size_t wide = wide_pixels(c->width); wide && column + 4 * TTI_LANES <= c->columns; column += 4 * TTI_LANES)
    strip_wide(c, column, c->width - wide);
#endif
  for (; column + 2 * TTI_LANES <= c->columns; column += 2 * TTI_LANES) {
    if (TTI_CODE == TTI_CODE_neon && panel == 8) /* rows of weights then lie at constant offsets */
      strip_of_8(c, column);
    else if (TTI_CODE == TTI_CODE_neon && panel == 16)
      strip_of_16(c, column);
    else
      strip(2, 0, 0, panel, c, column, 0, c->width);
  }
  const size_t left = c->columns - column;
  if (left > TTI_LANES)
    strip(2, 1, 0, panel, c, column, 0, c->width);
  else if (left == TTI_LANES)
    strip(1, 0, 0, panel, c, column, 0, c->width);
  else if (left)
    strip(1, 1, 0, panel, c, column, 0, c->width);
}

/* ---- Strassen's method */

TTI_INLINE void strassen_in_vector(const int partial, const float *top, const float *bottom, size_t half, size_t lanes,
                                   size_t plane, float *out) {
  const vf a = tile_load(top, partial, lanes), b = tile_load(bottom, partial, lanes);
  const vf both = b + tile_load(bottom + half, partial, lanes), less = both - a;
  tile_store(out, both, partial, lanes);
  tile_store(out + plane, less, partial, lanes);
  tile_store(out + 2 * plane, a - b, partial, lanes);
  tile_store(out + 3 * plane, tile_load(top + half, partial, lanes) - less, partial, lanes);
}

static void strassen_in(const float *top, const float *bottom, ptrdiff_t pixel_stride, size_t width, size_t half,
                        size_t plane, float *out) {
  for (; width; width--, top += pixel_stride, bottom += pixel_stride, out += half) {
    size_t c = 0;
    for (; c + TTI_LANES <= half; c += TTI_LANES) strassen_in_vector(0, top + c, bottom + c, half, 0, plane, out + c);
    if (c < half) strassen_in_vector(1, top + c, bottom + c, half, half - c, plane, out + c);
  }
}

/* ---- Winograd's F(4, 3) along x, with the points 0, 1, -1, 2, -2 and infinity, and F(2, 3) along y */

/* Six pixels of one vector of channels, 'lanes' of them if it is partial, of in or, if there are two, of scale[0] * in
 * + scale[1] * other. What is so is a constant at every call. */
TTI_INLINE void winograd_in_vector(const int partial, const int two, const float *in, const float *other,
                                   const float *scale, size_t channels, size_t plane, size_t lanes, float *out) {
  vf d[6], m[6];
  TTI_FOR (j, 6) d[j] = tile_load(in + (size_t)j * channels, partial, lanes);
  if (two) {
    TTI_FOR (j, 6) d[j] = scale[0] * d[j] + scale[1] * tile_load(other + (size_t)j * channels, partial, lanes);
  }
  const vf even = (4.0f * d[2] - d[4]) * (1.0f / 6.0f), odd = (4.0f * d[1] - d[3]) * (1.0f / 6.0f);
  const vf even2 = (d[4] - d[2]) * (1.0f / 24.0f), odd2 = (d[3] - d[1]) * (1.0f / 12.0f);
  m[0] = d[0] - 1.25f * d[2] + 0.25f * d[4];
  m[1] = even + odd;
  m[2] = even - odd;
  m[3] = even2 + odd2;
  m[4] = even2 - odd2;
  m[5] = 4.0f * d[1] - 5.0f * d[3] + d[5];
  TTI_FOR (j, 6) tile_store(out + (size_t)j * plane, m[j], partial, lanes);
}

TTI_INLINE void winograd_in_row(const int two, const float *in, const float *other, const float *scale, size_t tiles,
                                size_t channels, size_t plane, float *out) {
  const size_t step = 4 * channels, other_step = two ? step : 0;
  for (size_t t = 0; t < tiles; t++, in += step, other += other_step, out += channels) {
    size_t c = 0;
    for (; c + TTI_LANES <= channels; c += TTI_LANES)
      winograd_in_vector(0, two, in + c, two ? other + c : NULL, scale, channels, plane, 0, out + c);
    if (c < channels)
      winograd_in_vector(1, two, in + c, two ? other + c : NULL, scale, channels, plane, channels - c, out + c);
  }
}

static void winograd_in(const float *const *rows, size_t tiles, size_t channels, size_t plane, size_t apart,
                        float *out) {
  static const float scales[4][2] = {{1.0f, -1.0f}, {0.5f, 0.5f}, {0.5f, -0.5f}, {1.0f, -1.0f}};
  static const uint8_t read[4][2] = {{0, 2}, {2, 1}, {2, 1}, {3, 1}};
  if (!apart) {
    winograd_in_row(0, rows[0], NULL, NULL, tiles, channels, plane, out);
    return;
  }
  for (size_t r = 0; r < 4; r++) {
    const float *from[2] = {NULL, NULL};
    float scale[2];
    for (size_t i = 0; i < 2; i++) {
      const float *row = rows[read[r][i]];
      for (size_t k = 0; k < 4 && !row; k++) from[i] = rows[k] ? rows[k] : from[i];
      scale[i] = row ? scales[r][i] : 0.0f;
      if (row) from[i] = row;
    }
    winograd_in_row(1, from[0], from[1], scale, tiles, channels, plane, out + r * apart);
  }
}

/* One vector of each of the four columns that are not taps themselves or, of three rows, of all six. */
TTI_INLINE void winograd_weights_vector(const int partial, const int three, const float *taps, size_t tap, float sign,
                                        size_t lanes, float *out) {
  vf w[3];
  TTI_FOR (k, 3) {
    w[k] = tile_load(taps + (size_t)k * tap, partial, lanes);
    if (three) w[k] += tile_load(taps + (size_t)(6 + k) * tap, partial, lanes);
    if (three) w[k] += sign * tile_load(taps + (size_t)(3 + k) * tap, partial, lanes);
  }
  const vf even = w[0] + w[2], even2 = w[0] + 4.0f * w[2], odd2 = 2.0f * w[1];
  tile_store(out, even + w[1], partial, lanes);
  tile_store(out + tap, even - w[1], partial, lanes);
  tile_store(out + 2 * tap, even2 + odd2, partial, lanes);
  tile_store(out + 3 * tap, even2 - odd2, partial, lanes);
  if (three) tile_store(out + 4 * tap, w[2], partial, lanes);
  if (three) tile_store(out + 5 * tap, w[0], partial, lanes);
}

TTI_INLINE void winograd_weights_row(const int three, const float *taps, size_t tap, float sign, float *out) {
  size_t i = 0;
  for (; i + TTI_LANES <= tap; i += TTI_LANES) winograd_weights_vector(0, three, taps + i, tap, sign, 0, out + i);
  if (i < tap) winograd_weights_vector(1, three, taps + i, tap, sign, tap - i, out + i);
}

static void winograd_weights(const float *taps, size_t tap, float sign, float *out) {
  if (sign != 0.0f)
    winograd_weights_row(1, taps, tap, sign, out);
  else
    winograd_weights_row(0, taps, tap, sign, out);
}

/* Up to four pixels of one vector of channels, likewise. */
TTI_INLINE void winograd_out_vector(const int partial, const tti_winograd_row *w, size_t t, size_t pixels, size_t c,
                                    size_t lanes) {
  const size_t at = t * w->panel + c;
  vf p[6], y[4];
  const float *products = w->products + at, *own = products + (w->is_lower ? 3 * w->apart : 0);
  TTI_FOR (j, 6) p[j] = tile_load(own + (size_t)j * w->plane, partial, lanes);
  if (w->apart) {
    const float sign = w->is_lower ? -1.0f : 1.0f;
    TTI_FOR (j, 6) {
      const float *second = products + (size_t)j * w->plane + w->apart;
      p[j] += tile_load(second, partial, lanes) + sign * tile_load(second + w->apart, partial, lanes);
    }
  }
  const vf sum = p[1] + p[2], difference = p[1] - p[2], sum2 = p[3] + p[4], difference2 = p[3] - p[4];
  const vf bias = tile_load(w->bias + c, partial, lanes);
  y[0] = p[0] + sum + sum2 + bias;
  y[1] = difference + 2.0f * difference2 + bias;
  y[2] = sum + 4.0f * sum2 + bias;
  y[3] = difference + 8.0f * difference2 + p[5] + bias;
  const ptrdiff_t first = (ptrdiff_t)(4 * t) * w->out_stride + (ptrdiff_t)c;
  const float *residual = w->residual;
  float *out = w->out;
  TTI_FOR (i, 4) {
    if ((size_t)i == pixels) break;
    const ptrdiff_t pixel = first + i * w->out_stride;
    if (residual) y[i] += tile_load(residual + pixel, partial, lanes);
    tile_store(out + pixel, finished(w->finish, y[i]), partial, lanes);
  }
}

static void winograd_out(const tti_winograd_row *row) {
  const tti_winograd_row w = *row;
  for (size_t t = 0; t < w.tiles; t++) {
    const size_t pixels = w.width - 4 * t < 4 ? w.width - 4 * t : 4;
    size_t c = 0;
    for (; c + TTI_LANES <= w.columns; c += TTI_LANES) winograd_out_vector(0, &w, t, pixels, c, 0);
    if (c < w.columns) winograd_out_vector(1, &w, t, pixels, c, w.columns - c);
  }
}

/* ---- depthwise convolution */

/* Pixels x .. x + pixels of one vector of channels (lanes of them, if partial). What is a constant at a call is
 * unrolled; several pixels share each load of a weight and hide each other's latency. */
TTI_INLINE void depthwise_pixels(const int pixels, const size_t ky_count, const size_t kernel_x, const int partial,
                                 const tti_depthwise_row *d, size_t x, size_t column) {
  const size_t channels = d->channels, lanes = channels - column;
  const size_t step = d->stride_x * channels, dilation = d->dilation_x * channels;
  const float *w = d->weights + column;
  float *out = d->out + x * channels + column;
  vf acc[4];
  const vf bias = partial ? v_load_part(d->bias + column, lanes) : v_load(d->bias + column);
  TTI_FOR (m, pixels) acc[m] = bias;
  for (size_t i = 0; i < ky_count; i++) {
    const float *in = d->rows[i] + x * step + column;
    for (size_t j = 0; j < kernel_x; j++, in += dilation, w += channels) {
      const vf weight = partial ? v_load_part(w, lanes) : v_load(w);
      TTI_FOR (m, pixels)
        acc[m] += (partial ? v_load_part(in + (size_t)m * step, lanes) : v_load(in + (size_t)m * step)) * weight;
    }
  }
  const vf low = v_set(d->low), high = v_set(d->high);
  TTI_FOR (m, pixels) {
    const vf v = v_at_most(v_at_least(acc[m], low), high);
    if (partial)
      v_store_part(out + (size_t)m * channels, v, lanes);
    else
      v_store(out + (size_t)m * channels, v);
  }
}

/* Outputs of a slide: more use the weights in registers longer, fewer keep closer to the order of addresses. */
#if TTI_CODE == TTI_CODE_neon
#define TTI_SLIDE 28
#else
#define TTI_SLIDE 14
#endif

enum { MOST_Y = 5, MOST_X = 5, MOST_OPEN = 5, MOST_VECTORS = 2 };

/* Adds the next 'stride' columns of the map, or the first of them, to the sums under way: acc[phase], which begins
 * here, and, going around, those before it. */
TTI_INLINE void slide_step(const int vectors, const int ky_count, const int kernel_x, const int stride,
                           const int partial, const int phase, const int open, const size_t channels, size_t lanes,
                           int first_only, const float *at[MOST_Y], vf w[MOST_VECTORS][MOST_Y][MOST_X],
                           const vf bias[MOST_VECTORS], vf acc[MOST_VECTORS][MOST_OPEN]) {
  TTI_FOR (v, vectors) acc[v][phase] = bias[v];
  TTI_FOR (r, stride) {
    if (r && first_only) break;
    TTI_FOR (i, ky_count) {
      TTI_FOR (v, vectors) {
        const float *from = at[i] + (size_t)r * channels + v * TTI_LANES;
        const vf in = partial ? v_load_part(from, lanes) : v_load(from);
        TTI_FOR (m, open)
          if (stride * m + r < kernel_x) acc[v][(phase - m + open) % open] += in * w[v][i][stride * m + r];
      }
    }
  }
  TTI_FOR (i, ky_count) at[i] += (size_t)stride * channels;
}

/* A step that completes an output, of as many as there are sums under way. (A loop would keep these in memory.) */
#define TTI_SLIDE_OUT(P)                                                                                               \
  if (P < open) {                                                                                                      \
    const int phase = (open - 1 + P) % open, oldest = (phase + 1) % open;                                              \
    slide_step(vectors, ky_count, kernel_x, stride, partial, phase, open, channels, lanes, width == 1, at, w, bias,    \
               acc);                                                                                                   \
    TTI_FOR (v, vectors)                                                                                               \
      tile_store(to + v * TTI_LANES, v_at_most(v_at_least(acc[v][oldest], low), high), partial, lanes);                \
    to += channels;                                                                                                    \
    if (--width == 0) return;                                                                                          \
  }

/* Outputs x0 .. x0 + width of so many vectors of channels, from left to right: every input is loaded once, and adds to
 * all the outputs that it belongs to, whose sums wait in registers as the window slides on. The weights stay there,
 * too. */
TTI_INLINE void depthwise_slide(const int vectors, const int ky_count, const int kernel_x, const int stride,
                                const int partial, const tti_depthwise_row *d, size_t x0, size_t width, size_t column) {
  const int open = (kernel_x + stride - 1) / stride; /* sums under way */
  const size_t channels = d->channels, lanes = channels - column;
  vf w[MOST_VECTORS][MOST_Y][MOST_X], acc[MOST_VECTORS][MOST_OPEN], bias[MOST_VECTORS];
  TTI_FOR (v, vectors) {
    const size_t c = column + (size_t)v * TTI_LANES;
    bias[v] = partial ? v_load_part(d->bias + c, lanes) : v_load(d->bias + c);
    TTI_FOR (i, ky_count) {
      TTI_FOR (t, kernel_x) {
        const float *from = d->weights + (size_t)(i * kernel_x + t) * channels + c;
        w[v][i][t] = partial ? v_load_part(from, lanes) : v_load(from);
      }
    }
    TTI_FOR (m, open) acc[v][m] = bias[v];
  }
  const vf low = v_set(d->low), high = v_set(d->high);
  const float *at[MOST_Y];
  TTI_FOR (i, ky_count) at[i] = d->rows[i] + x0 * (size_t)stride * channels + column;
  float *to = d->out + x0 * channels + column;
  TTI_FOR (p, open - 1)
    slide_step(vectors, ky_count, kernel_x, stride, partial, p, open, channels, lanes, 0, at, w, bias, acc);
  for (;;) {
    TTI_SLIDE_OUT(0)
    TTI_SLIDE_OUT(1)
    TTI_SLIDE_OUT(2)
    TTI_SLIDE_OUT(3)
    TTI_SLIDE_OUT(4)
  }
}
#undef TTI_SLIDE_OUT

TTI_INLINE void depthwise_slides(const int vectors, const int ky_count, const int kernel_x, const int stride,
                                 const tti_depthwise_row *d) {
  size_t parts = (d->width + TTI_SLIDE - 1) / TTI_SLIDE;
  for (size_t x = 0, width; parts; x += width, parts--) {
    size_t column = 0;
    width = (d->width - x + parts - 1) / parts;
    for (; column + (size_t)vectors * TTI_LANES <= d->channels; column += (size_t)vectors * TTI_LANES)
      depthwise_slide(vectors, ky_count, kernel_x, stride, 0, d, x, width, column);
    for (; column + TTI_LANES <= d->channels; column += TTI_LANES)
      depthwise_slide(1, ky_count, kernel_x, stride, 0, d, x, width, column);
    if (column < d->channels) depthwise_slide(1, ky_count, kernel_x, stride, 1, d, x, width, column);
  }
}

enum { ACROSS = 7 };

/* ACROSS pixels of one vector of channels, their sums and a row of the kernel in registers: an input is loaded once
 * for each row of the kernel. */
TTI_INLINE void depthwise_across(const int kernel_x, const int stride, const int partial, const tti_depthwise_row *d,
                                 size_t x, size_t column) {
  const size_t channels = d->channels, lanes = channels - column;
  const float *w = d->weights + column;
  float *out = d->out + x * channels + column;
  vf acc[ACROSS];
  const vf bias = tile_load(d->bias + column, partial, lanes);
  TTI_FOR (m, ACROSS) acc[m] = bias;
  for (size_t i = 0; i < d->ky_count; i++, w += (size_t)kernel_x * channels) {
    const float *in = d->rows[i] + x * (size_t)stride * channels + column;
    vf weight[MOST_X];
    TTI_FOR (t, kernel_x) weight[t] = tile_load(w + (size_t)t * channels, partial, lanes);
    TTI_FOR (c, (ACROSS - 1) * stride + kernel_x) {
      const vf value = tile_load(in + (size_t)c * channels, partial, lanes);
      TTI_FOR (m, ACROSS)
        if (c >= m * stride && c < m * stride + kernel_x) acc[m] += value * weight[c - m * stride];
    }
  }
  const vf low = v_set(d->low), high = v_set(d->high);
  TTI_FOR (m, ACROSS) tile_store(out + (size_t)m * channels, v_at_most(v_at_least(acc[m], low), high), partial, lanes);
}

/* across: the stride along x where pixels are taken ACROSS at a time, else 0. */
TTI_INLINE void depthwise_strip(const size_t ky_count, const size_t kernel_x, const int across, const int partial,
                                const tti_depthwise_row *d, size_t column) {
  size_t x = 0;
  for (; across && x + ACROSS <= d->width; x += ACROSS) depthwise_across((int)kernel_x, across, partial, d, x, column);
  for (; x + 4 <= d->width; x += 4) depthwise_pixels(4, ky_count, kernel_x, partial, d, x, column);
  for (; x < d->width; x++) depthwise_pixels(1, ky_count, kernel_x, partial, d, x, column);
}

TTI_INLINE void depthwise_columns(const size_t ky_count, const size_t kernel_x, const int across,
                                  const tti_depthwise_row *d) {
  size_t column = 0;
  for (; column + TTI_LANES <= d->channels; column += TTI_LANES)
    depthwise_strip(ky_count, kernel_x, across, 0, d, column);
  if (column < d->channels) depthwise_strip(ky_count, kernel_x, across, 1, d, column);
}

/* 3 x 3, or 2 x 3 at an edge of the map; whether that is what it is. */
TTI_INLINE int depthwise_of_3(const int vectors, const tti_depthwise_row *d) {
  switch (d->ky_count * 10 + d->stride_x) {
    case 31:
      depthwise_slides(vectors, 3, 3, 1, d);
      return 1;
    case 32:
      depthwise_slides(vectors, 3, 3, 2, d);
      return 1;
    case 21:
      depthwise_slides(vectors, 2, 3, 1, d);
      return 1;
    case 22:
      depthwise_slides(vectors, 2, 3, 2, d);
      return 1;
    default:
      return 0;
  }
}

/* 5 x 5, or 4 x 5 or 3 x 5 at an edge. */
TTI_INLINE int depthwise_of_5(const tti_depthwise_row *d) {
#if TTI_CODE == TTI_CODE_avx512 || TTI_CODE == TTI_CODE_neon /* registers for all weights */
  switch (d->ky_count * 10 + d->stride_x) {
    case 51:
      depthwise_slides(1, 5, 5, 1, d);
      return 1;
    case 41:
      depthwise_slides(1, 4, 5, 1, d);
      return 1;
    case 31:
      depthwise_slides(1, 3, 5, 1, d);
      return 1;
    case 52:
      depthwise_slides(1, 5, 5, 2, d);
      return 1;
    case 42:
      depthwise_slides(1, 4, 5, 2, d);
      return 1;
    case 32:
      depthwise_slides(1, 3, 5, 2, d);
      return 1;
    default:
      return 0;
  }
#elif TTI_CODE == TTI_CODE_avx2
  if (d->stride_x == 1)
    depthwise_columns(d->ky_count, 5, 1, d);
  else if (d->stride_x == 2)
    depthwise_columns(d->ky_count, 5, 2, d);
  return d->stride_x <= 2;
#else
  (void)d;
  return 0;
#endif
}

static void depthwise_row(const tti_depthwise_row *d) {
  /* On AVX2 the weights of two vectors do not stay in registers, yet a vector is half of a line; and where pixels lie a
   * multiple of 512 bytes apart, few sets of the first-level cache have to hold what comes between the halves. */
  const int one = TTI_CODE == TTI_CODE_avx2 && d->channels % 128;
  if (d->dilation_x == 1 && d->kernel_x == 3 && (one ? depthwise_of_3(1, d) : depthwise_of_3(2, d))) return;
  if (d->dilation_x == 1 && d->kernel_x == 5 && depthwise_of_5(d)) return;
  if (d->ky_count == 1 && d->kernel_x == 1)
    depthwise_columns(1, 1, 0, d);
  else
    depthwise_columns(d->ky_count, d->kernel_x, 0, d);
}

/* ---- pooling */

/* The larger of two, a NaN being larger than all. v_at_least gives its first operand if either is a NaN. */
TTI_INLINE vf pool_step(int average, vf acc, vf value) {
  return average ? acc + value : v_select(acc == acc, v_at_least(value, acc), acc);
}

/* One vector of channels of one pixel: 'taps' columns of the window are inside the map. */
TTI_INLINE void pool_vector(const int average, const int partial, const tti_pool_row *p, size_t ky_count, size_t taps,
                            size_t first, float divisor, size_t n, float *out) {
  const size_t channels = p->channels, lanes = channels - n;
  vf acc = v_set(average ? 0.0f : -__builtin_inff());
  for (size_t i = 0; i < ky_count; i++) {
    const float *from = p->rows[i] + first * channels + n;
    for (size_t j = 0; j < taps; j++, from += p->dilation_x * channels)
      acc = pool_step(average, acc, partial ? v_load_part(from, lanes) : v_load(from));
  }
  if (average) acc /= divisor;
  if (partial)
    v_store_part(out + n, acc, lanes);
  else
    v_store(out + n, acc);
}

TTI_INLINE void pool_vectors(const int average, const tti_pool_row *p, size_t ky_count, size_t taps, size_t x,
                             size_t first, float divisor) {
  float *const out = p->out + x * p->channels;
  size_t n = 0;
  for (; n + TTI_LANES <= p->channels; n += TTI_LANES)
    pool_vector(average, 0, p, ky_count, taps, first, divisor, n, out);
  if (n < p->channels) pool_vector(average, 1, p, ky_count, taps, first, divisor, n, out);
}

/* One pixel: taps columns of the window are inside the map, the first of them at the map's pixel 'first'. */
TTI_INLINE void pool_pixel(const int average, const tti_pool_row *p, size_t x, size_t first, size_t taps,
                           float divisor) {
  if (p->ky_count == 3 && taps == 3)
    pool_vectors(average, p, 3, 3, x, first, divisor);
  else if (p->ky_count == 2 && taps == 2)
    pool_vectors(average, p, 2, 2, x, first, divisor);
  else
    pool_vectors(average, p, p->ky_count, taps, x, first, divisor);
}

/* Window columns x * dilation < extent, at most kernel. */
TTI_INLINE size_t columns_below(size_t extent, size_t kernel, size_t dilation) {
  const size_t fit = (extent + dilation - 1) / dilation;
  return fit < kernel ? fit : kernel;
}

static void pool_row(const tti_pool_row *p) {
  const size_t end = p->pad_left + p->in_width; /* in padded coordinates */
  for (size_t x = 0; x < p->width; x++) {
    const size_t left = x * p->stride_x;
    const size_t skip = left < p->pad_left ? (p->pad_left - left + p->dilation_x - 1) / p->dilation_x : 0;
    const size_t inside = left < end ? columns_below(end - left, p->kernel_x, p->dilation_x) : 0;
    const size_t taps = inside > skip ? inside - skip : 0;
    const size_t first = taps ? left + skip * p->dilation_x - p->pad_left : 0;
    if (p->divisor_y) {
      const size_t padded = end + p->pad_right;
      const size_t columns =
          p->count_pad && left < padded ? columns_below(padded - left, p->kernel_x, p->dilation_x) : taps;
      pool_pixel(1, p, x, first, taps, (float)(p->divisor_y * columns));
    } else {
      pool_pixel(0, p, x, first, taps, 1.0f);
    }
  }
}

/* ---- elementwise */

TTI_INLINE vf activate(unsigned kind, vf a, vf b, vf x) {
  const vf zero = v_set(0.0f), one = v_set(1.0f);
  switch (kind) {
    case TT_ACT_RELU:
      return v_at_least(x, zero);
    case TT_ACT_CLIP:
      return v_at_most(v_at_least(x, a), b);
    case TT_ACT_LEAKY_RELU:
      return v_select(x < 0.0f, x * a, x);
    case TT_ACT_SIGMOID:
      return v_sigmoid(x);
    case TT_ACT_HARD_SIGMOID:
      return v_clamp(x * a + b, 0.0f, 1.0f);
    case TT_ACT_HARD_SWISH:
      return v_hard_swish(x);
    case TT_ACT_SWISH:
      return x * v_sigmoid(x * a);
    case TT_ACT_TANH:
      return v_tanh(x);
    case TT_ACT_ELU:
      return v_select(x < 0.0f, a * v_expm1(x), x);
    case TT_ACT_SELU:
      return b * v_select(x < 0.0f, a * v_expm1(x), x);
    case TT_ACT_CELU:
      return v_select(x < 0.0f, a * v_expm1(x / a), x);
    case TT_ACT_SOFTPLUS:
      return v_softplus(x);
    case TT_ACT_SOFTSIGN:
      return x / (one + v_abs(x));
    case TT_ACT_GELU:
      return 0.5f * x * (one + v_erf(x * 0.70710678118654752f));
    case TT_ACT_GELU_TANH:
      return 0.5f * x * (one + v_tanh(0.79788456080286536f * (x + 0.044715f * x * x * x)));
    case TT_ACT_ERF:
      return v_erf(x);
    case TT_ACT_MISH:
      return v_mish(x);
    case TT_ACT_EXP:
      return v_exp(x);
    case TT_ACT_LOG:
      return v_log(x);
    case TT_ACT_SQRT:
      return v_sqrt(x);
    case TT_ACT_ABS:
      return v_abs(x);
    case TT_ACT_NEG:
      return -x;
    case TT_ACT_RECIPROCAL:
      return one / x;
    case TT_ACT_POW:
      return v_pow(x, a);
    case TT_ACT_TRUNC:
      return v_trunc(x);
    case TT_ACT_THRESHOLDED_RELU:
      return v_select(x <= a, zero, x);
    case TT_ACT_FLOOR:
      return v_floor(x);
    case TT_ACT_CEIL:
      return v_ceil(x);
    case TT_ACT_ROUND:
      return v_round(x);
    case TT_ACT_SIGN:
      return v_select(x > 0.0f, one, v_select(x < 0.0f, -one, x));
    case TT_ACT_NOT_ZERO:
      return v_select(x == 0.0f, zero, one);
    default:
      return x;
  }
}

TTI_INLINE void activation_span(const unsigned kind, float alpha, float beta, float *data, size_t count) {
  const vf a = v_set(alpha), b = v_set(beta);
  for (; count >= TTI_LANES; count -= TTI_LANES, data += TTI_LANES) v_store(data, activate(kind, a, b, v_load(data)));
  if (count) v_store_part(data, activate(kind, a, b, v_load_part(data, count)), count);
}

#define TTI_ACTIVATION_CASE(K)                                                                                         \
  case K:                                                                                                              \
    activation_span(K, alpha, beta, data, count);                                                                      \
    break;

static void activation(unsigned kind, float alpha, float beta, float *data, size_t count) {
  switch (kind) { /* the kinds that networks apply to whole maps get a loop of their own */
    TTI_ACTIVATION_CASE(TT_ACT_RELU)
    TTI_ACTIVATION_CASE(TT_ACT_CLIP)
    TTI_ACTIVATION_CASE(TT_ACT_LEAKY_RELU)
    TTI_ACTIVATION_CASE(TT_ACT_SIGMOID)
    TTI_ACTIVATION_CASE(TT_ACT_HARD_SIGMOID)
    TTI_ACTIVATION_CASE(TT_ACT_HARD_SWISH)
    TTI_ACTIVATION_CASE(TT_ACT_SWISH)
    TTI_ACTIVATION_CASE(TT_ACT_EXP)
    default:
      activation_span(kind, alpha, beta, data, count);
  }
}

TTI_INLINE vf where(vi mask, vf x) { return (vf)(mask & (vi)x); }

TTI_INLINE vf combine(unsigned kind, vf a, vf b) {
  switch (kind) {
    case TT_BINARY_ADD:
      return a + b;
    case TT_BINARY_SUB:
      return a - b;
    case TT_BINARY_MUL:
      return a * b;
    case TT_BINARY_DIV:
      return a / b;
    case TT_BINARY_MIN:
      return v_select((a <= b) | (a != a), a, b);
    case TT_BINARY_MAX:
      return v_select((a >= b) | (a != a), a, b);
    case TT_BINARY_PRELU:
      return v_select(a < 0.0f, a * b, a);
    case TT_BINARY_LESS:
      return where(a < b, v_set(1.0f));
    case TT_BINARY_LESS_OR_EQUAL:
      return where(a <= b, v_set(1.0f));
    case TT_BINARY_EQUAL:
      return where(a == b, v_set(1.0f));
    case TT_BINARY_KEEP:
      return where(b != 0.0f, a);
    case TT_BINARY_DROP:
      return where(b == 0.0f, a);
    default:
      return v_pow(a, b);
  }
}

TTI_INLINE void binary_span(const unsigned kind, const float *a, size_t a_step, const float *b, size_t b_step,
                            float *out, size_t count) {
  for (size_t i = 0; i < count; i += TTI_LANES) {
    const size_t left = count - i;
    const vf va = a_step ? v_load_part(a + i, left) : v_set(*a);
    const vf vb = b_step ? v_load_part(b + i, left) : v_set(*b);
    v_store_part(out + i, combine(kind, va, vb), left);
  }
}

TTI_INLINE void pixels_span(const unsigned kind, const float *a, const float *b, const int b_first, float *out,
                            size_t pixels, size_t channels) {
  for (size_t c = 0; c < channels; c += TTI_LANES) {
    const size_t left = channels - c;
    const vf vb = v_load_part(b + c, left);
    for (size_t at = c; at < pixels * channels; at += channels) {
      const vf va = v_load_part(a + at, left);
      v_store_part(out + at, b_first ? combine(kind, vb, va) : combine(kind, va, vb), left);
    }
  }
}

/* Sums and products do not depend on which comes first. */
static void binary_pixels(unsigned kind, const float *a, const float *b, int b_first, float *out, size_t pixels,
                          size_t channels) {
  if (kind == TT_BINARY_MUL)
    pixels_span(TT_BINARY_MUL, a, b, 0, out, pixels, channels);
  else if (kind == TT_BINARY_ADD)
    pixels_span(TT_BINARY_ADD, a, b, 0, out, pixels, channels);
  else
    pixels_span(kind, a, b, b_first, out, pixels, channels);
}

#define TTI_BINARY_CASE(K)                                                                                             \
  case K:                                                                                                              \
    binary_span(K, a, a_step, b, b_step, out, count);                                                                  \
    break;

static void binary(unsigned kind, const float *a, size_t a_step, const float *b, size_t b_step, float *out,
                   size_t count) {
  switch (kind) {
    TTI_BINARY_CASE(TT_BINARY_ADD)
    TTI_BINARY_CASE(TT_BINARY_MUL)
    default:
      binary_span(kind, a, a_step, b, b_step, out, count);
  }
}

/* ---- over the channels of a pixel */

/* Sums are taken in as many places on every instruction set: what integers are made of from a softmax is the same. */
enum { SUM_PLACES = 16, SUM_VECTORS = SUM_PLACES / TTI_LANES };

/* Adds the first 'count' elements of v, which is the one at 'at' of many. */
TTI_INLINE void add_to_sums(vf sums[SUM_VECTORS], size_t at, vf v, size_t count) {
  if (count < TTI_LANES) {
    float part[TTI_LANES] = {0};
    v_store_part(part, v, count);
    v = v_load(part);
  }
  sums[at / TTI_LANES % SUM_VECTORS] += v;
}

TTI_INLINE float total_of(const vf sums[SUM_VECTORS]) {
  float total = 0.0f;
  for (int i = 0; i < SUM_PLACES; i++) total += sums[i / TTI_LANES][i % TTI_LANES];
  return total;
}

/* Of values less their largest; a NaN is the largest of all. */
static void softmax(const float *in, float *out, size_t channels, int logarithms) {
  vf largest = v_set(in[0]), sums[SUM_VECTORS] = {{0}};
  size_t at = 0;
  for (; at + TTI_LANES <= channels; at += TTI_LANES) largest = combine(TT_BINARY_MAX, largest, v_load(in + at));
  for (; at < channels; at++) largest = combine(TT_BINARY_MAX, largest, v_set(in[at]));
  vf top = v_set(largest[0]);
  for (int i = 1; i < TTI_LANES; i++) top = combine(TT_BINARY_MAX, top, v_set(largest[i]));
  for (size_t c = 0; c < channels; c += TTI_LANES) {
    const size_t left = channels - c;
    const vf less = v_load_part(in + c, left) - top, term = v_exp(less);
    v_store_part(out + c, logarithms ? less : term, left);
    add_to_sums(sums, c, term, left);
  }
  const vf sum = v_set(total_of(sums)), logarithm = v_log(sum);
  for (size_t c = 0; c < channels; c += TTI_LANES) {
    const size_t left = channels - c;
    const vf v = v_load_part(out + c, left);
    v_store_part(out + c, logarithms ? v - logarithm : v / sum, left);
  }
}

static void layer_norm(const float *in, const float *scale, const float *bias, float epsilon, float *out,
                       size_t channels) {
  vf sums[SUM_VECTORS] = {{0}}, squares[SUM_VECTORS] = {{0}};
  for (size_t c = 0; c < channels; c += TTI_LANES) add_to_sums(sums, c, v_load_part(in + c, channels - c), TTI_LANES);
  const float mean = total_of(sums) / (float)channels;
  for (size_t c = 0; c < channels; c += TTI_LANES) {
    const size_t left = channels - c;
    const vf apart = v_load_part(in + c, left) - mean;
    add_to_sums(squares, c, apart * apart, left);
  }
  const float deviation = __builtin_sqrtf(total_of(squares) / (float)channels + epsilon);
  for (size_t c = 0; c < channels; c += TTI_LANES) {
    const size_t left = channels - c;
    const vf v = (v_load_part(in + c, left) - mean) / deviation;
    v_store_part(out + c, v * v_load_part(scale + c, left) + v_load_part(bias + c, left), left);
  }
}

/* A vector is stored when the next one has been summed, which reads of it. */
static void lrn(const float *in, float *out, size_t channels, size_t size, float alpha, float beta, float bias) {
  const size_t before = (size - 1) / 2, after = size - 1 - before, last = (channels - 1) / TTI_LANES * TTI_LANES;
  vf ready = v_set(0.0f);
  for (size_t n = 0; n < channels; n += TTI_LANES) {
    float sums[TTI_LANES] = {0};
    const size_t lanes = channels - n < TTI_LANES ? channels - n : TTI_LANES;
    if (n >= before && n + TTI_LANES + after <= channels) {
      vf sum = v_set(0.0f);
      for (size_t i = 0; i < size; i++) {
        const vf v = v_load(in + n + i - before);
        sum += v * v;
      }
      v_store(sums, sum);
    } else {
      for (size_t lane = 0; lane < lanes; lane++) {
        const size_t c = n + lane, low = c < before ? 0 : c - before;
        const size_t high = c + after < channels ? c + after : channels - 1;
        for (size_t i = low; i <= high; i++) sums[lane] += in[i] * in[i];
      }
    }
    const vf base = v_load(sums) * (alpha / (float)size) + bias;
    const vf root = v_sqrt(base);
    const vf scale = beta == 0.75f  ? 1.0f / (root * v_sqrt(root))
                     : beta == 0.5f ? 1.0f / root
                                    : v_pow(base, v_set(-beta));
    const vf next = v_load_part(in + n, lanes) * scale;
    if (n) v_store(out + n - TTI_LANES, ready);
    ready = next;
  }
  v_store_part(out + last, ready, channels - last);
}

/* 'parts' is a constant at most calls, so that the compiler interleaves whole vectors. */
#define TTI_INTERLEAVE(NAME, TYPE)                                                                                     \
  TTI_INLINE void NAME##_parts(const TYPE *restrict in, const size_t parts, ptrdiff_t stride, size_t each,             \
                               TYPE *restrict out) {                                                                   \
    for (size_t i = 0; i < each; i++)                                                                                  \
      for (size_t p = 0; p < parts; p++) out[i * parts + p] = in[(ptrdiff_t)p * stride + (ptrdiff_t)i];                \
  }                                                                                                                    \
  static void NAME(const TYPE *in, size_t parts, ptrdiff_t stride, size_t each, TYPE *out) {                           \
    if (parts == 2)                                                                                                    \
      NAME##_parts(in, 2, stride, each, out);                                                                          \
    else if (parts == 3)                                                                                               \
      NAME##_parts(in, 3, stride, each, out);                                                                          \
    else if (parts == 4)                                                                                               \
      NAME##_parts(in, 4, stride, each, out);                                                                          \
    else if (parts == 8)                                                                                               \
      NAME##_parts(in, 8, stride, each, out);                                                                          \
    else                                                                                                               \
      NAME##_parts(in, parts, stride, each, out);                                                                      \
  }
TTI_INTERLEAVE(interleave_floats, float)
TTI_INTERLEAVE(interleave_bytes, uint8_t)
#undef TTI_INTERLEAVE

/* ---- coded weights */

typedef uint16_t vh __attribute__((vector_size(2 * TTI_LANES)));

/* binary16 to binary32: exponent and fraction in their new places, and the difference of the biases added; without an
 * exponent, a multiple of 2^-24. */
TTI_INLINE vf from_halves(vh halves) {
  const vi wide = __builtin_convertvector(halves, vi), low = wide & 0x7FFF;
  const vf small = __builtin_convertvector(low, vf) * 0x1p-24f;
  const vf magnitude = v_select(low < 0x400, small, v_bits((low << 13) + (112 << 23)));
  return v_bits((vi)magnitude | (wide & 0x8000) << 16);
}

static void decode_halves(const uint8_t *codes, float *out, size_t count) {
  vh halves = {0};
  size_t i = 0;
  for (; i + TTI_LANES <= count; i += TTI_LANES) {
    __builtin_memcpy(&halves, codes + 2 * i, sizeof halves);
    v_store(out + i, from_halves(halves));
  }
  if (i == count) return;
  __builtin_memcpy(&halves, codes + 2 * i, 2 * (count - i));
  v_store_part(out + i, from_halves(halves), count - i);
}

/* The panel is a constant at every call, so that the compiler makes vectors of its columns. */
TTI_INLINE void decode_panel(const size_t panel, unsigned coding, const uint8_t *restrict codes,
                             const float *restrict scales, size_t rows, float *restrict out) {
  for (size_t r = 0; coding == TT_CODING_I8 && r < rows; r++)
    for (size_t n = 0; n < panel; n++) out[r * panel + n] = (float)(int8_t)codes[r * panel + n] * scales[n];
  for (size_t r = 0; coding == TT_CODING_I4 && r < rows; r++) {
    const uint8_t *from = codes + r / 2 * panel;
    if (r % 2 == 0)
      for (size_t n = 0; n < panel; n++) out[r * panel + n] = (float)((from[n] & 15) - 8) * scales[n];
    else
      for (size_t n = 0; n < panel; n++) out[r * panel + n] = (float)((from[n] >> 4) - 8) * scales[n];
  }
}

static void decode(unsigned coding, const uint8_t *codes, const float *scales, size_t rows, size_t panel, float *out) {
  if (coding == TT_CODING_F16)
    decode_halves(codes, out, rows * panel);
  else if (panel == 32)
    decode_panel(32, coding, codes, scales, rows, out);
  else if (panel == 16)
    decode_panel(16, coding, codes, scales, rows, out);
  else
    decode_panel(8, coding, codes, scales, rows, out);
}

/* Those of an instruction set: these, and its own on uint8 (see i8.c). */
#define TTI_TABLE(isa)                                                                                                 \
  extern const tti_i8_kernels TTI_JOIN(tti_i8_, isa);                                                                  \
  const tti_kernels *TTI_JOIN(tti_kernels_, isa)(void) {                                                               \
    static const tti_kernels table = {TTI_STRING(isa),                                                                 \
                                      conv_row,                                                                        \
                                      strassen_in,                                                                     \
                                      winograd_in,                                                                     \
                                      winograd_weights,                                                                \
                                      winograd_out,                                                                    \
                                      depthwise_row,                                                                   \
                                      pool_row,                                                                        \
                                      activation,                                                                      \
                                      binary,                                                                          \
                                      binary_pixels,                                                                   \
                                      softmax,                                                                         \
                                      layer_norm,                                                                      \
                                      lrn,                                                                             \
                                      interleave_floats,                                                               \
                                      interleave_bytes,                                                                \
                                      decode,                                                                          \
                                      decode_stream,                                                                   \
                                      &TTI_JOIN(tti_i8_, isa)};                                                        \
    return &table;                                                                                                     \
  }

TTI_TABLE(TTI_ISA)
#ifdef TTI_ISA_AND_DOT /* has dot products of four bytes besides, which float32 has no use for */
TTI_TABLE(TTI_ISA_AND_DOT)
#endif
