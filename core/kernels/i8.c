/* Kernels on uint8; see kernels.h. Compiled once for each instruction set, with TTI_ISA naming it, without fused
 * multiply-adds but where one is asked for: v_fused.
 *
 * Convolution: register tiles as in f32.c, but for every four k: a tile loads one row of the weight panel, [n][4], and
 * broadcasts four input bytes per pixel; each lane adds a dot product of four. x86 multiplies uint8 by int8. Arm
 * multiplies int8 by int8: inputs less 128, which the bias for them makes up for.
 *
 * Depthwise convolution on x86 interleaves four kernel rows, so that a lane's four bytes are one channel's column of
 * the window: the same dot products. Interleaving within 128 bits leaves channels out of order; weights and constants
 * are brought into that order once for several pixels, and packing the results to bytes undoes it. Windows of 3 x 3 and
 * 5 x 5 slide on AVX2 and NEON instead, over inputs widened to 16 bits.
 */
#include "kernels.h"

#include "isa.h"
#include "tinytee_program.h"

#if TTI_CODE == TTI_CODE_avx512
#define TTI_LANES 16
#define TTI_TILE (TTI_DOT ? 14 : 10)
#elif TTI_CODE == TTI_CODE_avx2
#define TTI_LANES 8
#define TTI_TILE 4
#elif TTI_CODE == TTI_CODE_neon
#define TTI_LANES 4
#define TTI_TILE 8
#else
#define TTI_LANES 4
#define TTI_TILE 4
#endif

#include "vector.h"

#define TTI_FOR(i, count) _Pragma("GCC unroll 16") for (int i = 0; i < (count); i++)

enum { CHUNK = 64 };

TTI_INLINE size_t least(size_t a, size_t b) { return a < b ? a : b; }

/* Up to four bytes as one word, the first in its lowest bits. */
TTI_INLINE uint32_t load_word(const uint8_t *in, size_t count) {
  if (count < 4) return in[0] | (uint32_t)(count > 1 ? in[1] : 0) << 8 | (uint32_t)(count > 2 ? in[2] : 0) << 16;
  uint32_t word;
  __builtin_memcpy(&word, in, sizeof word);
  return word;
}

#if TTI_CODE == TTI_CODE_avx512
#define TTI_X(name) _mm512_##name
#define TTI_REGISTER __m512i
#define TTI_SI512(name) _mm512_##name##_si512
#define TTI_PS(v) ((__m512)(v))
#elif TTI_CODE == TTI_CODE_avx2
#define TTI_X(name) _mm256_##name
#define TTI_REGISTER __m256i
#define TTI_SI512(name) _mm256_##name##_si256
#define TTI_PS(v) ((__m256)(v))
#endif

/* ---- from sums to elements */

/* Adding 1.5 * 2^23 to a small float rounds it to an integer, ties to even, which its lowest bits then hold. */
#define TTI_MAGIC 12582912.0f

/* v > low selects low for a NaN. */
#ifdef TTI_REGISTER
TTI_INLINE vf v_bound(vf v, float low, float high) {
  return (vf)TTI_X(min_ps)(TTI_X(max_ps)(v, v_set(low)), v_set(high)); /* the second operand where one is a NaN */
}
#else
TTI_INLINE vf v_bound(vf v, float low, float high) {
  const vf above = v_select(v > low, v, v_set(low));
  return v_select(above < high, above, v_set(high));
}
#endif

/* By vectors: of a choice between two floats compilers make branches. */
TTI_INLINE float bound(float v, float low, float high) { return v_bound(v_set(v), low, high)[0]; }

TTI_INLINE uint8_t rounded(float v, float low, float high, uint8_t zero) {
  const float sum = bound(v, low, high) + TTI_MAGIC;
  uint32_t bits;
  __builtin_memcpy(&bits, &sum, sizeof bits);
  return (uint8_t)(bits + zero);
}

/* The bytes of the first 'count' lanes. */
TTI_INLINE void store_bytes(uint8_t *out, vi v, size_t count) {
#if TTI_CODE == TTI_CODE_avx512
  _mm512_mask_cvtepi32_storeu_epi8(out, v_mask(count), (__m512i)v);
#else
  uint8_t bytes[TTI_LANES];
#if TTI_CODE == TTI_CODE_neon
  const uint16x4_t narrow = vmovn_u32((uint32x4_t)v);
  const uint32x2_t word = vreinterpret_u32_u8(vmovn_u16(vcombine_u16(narrow, narrow)));
  vst1_lane_u32((uint32_t *)(void *)bytes, word, 0);
#elif TTI_CODE == TTI_CODE_avx2
  const __m256i words =
      _mm256_shuffle_epi8((__m256i)v, _mm256_set1_epi64x(0x0C080400)); /* the low bytes, at the low end of each half */
  const __m128i both = _mm_unpacklo_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  _mm_storel_epi64((__m128i *)(void *)bytes, both);
#else
  for (int i = 0; i < TTI_LANES; i++) bytes[i] = (uint8_t)v[i];
#endif
  if (count >= TTI_LANES)
    __builtin_memcpy(out, bytes, TTI_LANES);
  else
    for (size_t i = 0; i < count; i++) out[i] = bytes[i];
#endif
}

/* The first 'count' bytes, widened; lanes beyond hold 0. */
TTI_INLINE vi load_bytes(const uint8_t *in, size_t count) {
#if TTI_CODE == TTI_CODE_avx512
  return (vi)_mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(v_mask(count), in));
#else
  uint8_t bytes[TTI_LANES] = {0};
  if (count >= TTI_LANES)
    __builtin_memcpy(bytes, in, TTI_LANES);
  else
    for (size_t i = 0; i < count; i++) bytes[i] = in[i];
#if TTI_CODE == TTI_CODE_avx2
  return (vi)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)bytes));
#elif TTI_CODE == TTI_CODE_neon
  uint32_t word;
  __builtin_memcpy(&word, bytes, sizeof word);
  return (vi)vmovl_u16(vget_low_u16(vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(word)))));
#else
  const vi v = {bytes[0], bytes[1], bytes[2], bytes[3]};
  return v;
#endif
#endif
}

/* a * b + c, rounded once. Where the processor has no such operation, float64 holds the sum exactly: the compiler takes
 * no others (tinytee_program.h, at tt_op). */
#if TTI_CODE == TTI_CODE_avx512
TTI_INLINE vf v_fused(vf a, vf b, vf c) { return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
#elif TTI_CODE == TTI_CODE_avx2
TTI_INLINE vf v_fused(vf a, vf b, vf c) { return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
#elif TTI_CODE == TTI_CODE_neon
TTI_INLINE vf v_fused(vf a, vf b, vf c) { return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
#else
TTI_INLINE vf v_fused(vf a, vf b, vf c) {
  vf sum = {0};
  for (int i = 0; i < TTI_LANES; i++) sum[i] = (float)((double)a[i] * (double)b[i] + (double)c[i]);
  return sum;
}
#endif

/* v_bound for what is rounded: a zero's sign is of no account then. */
TTI_INLINE vf v_bound_to_round(vf v, float low, float high) {
#if TTI_CODE == TTI_CODE_neon
  return (vf)vminnmq_f32(vmaxnmq_f32((float32x4_t)v, vdupq_n_f32(low)), vdupq_n_f32(high));
#else
  return v_bound(v, low, high);
#endif
}

TTI_INLINE void store_rounded(uint8_t *out, vf v, const tti_rounding *r, size_t count) {
  store_bytes(out, (vi)(v_bound_to_round(v, r->low, r->high) + TTI_MAGIC) + r->zero, count);
}

/* Sums of so many lanes, scaled: to element 'at' of out. */
TTI_INLINE void store_elements(void *out, size_t at, vi sums, vf multiplier, const tti_rounding *r, size_t count) {
  const vf scaled = __builtin_convertvector(sums, vf) * multiplier;
  if (r->is_float)
    v_store_part((float *)out + at, v_bound(scaled, r->low, r->high), count);
  else
    store_rounded((uint8_t *)out + at, scaled, r, count);
}

#ifdef TTI_REGISTER
/* Two vectors within the bounds as 16-bit words, in the order of packs_epi32. */
TTI_INLINE TTI_REGISTER rounded_words(const vf v[2], const tti_rounding *r) {
  const TTI_REGISTER words = TTI_X(packs_epi32)(TTI_X(cvtps_epi32)(TTI_PS(v[0])), TTI_X(cvtps_epi32)(TTI_PS(v[1])));
  return TTI_X(add_epi16)(words, TTI_X(set1_epi16)(r->zero));
}
#endif

TTI_INLINE vi load_sums(const int32_t *in) {
  vi v;
  __builtin_memcpy(&v, in, sizeof v);
  return v;
}

#ifdef TTI_REGISTER
/* Four vectors within the bounds as bytes, in their order. */
TTI_INLINE vi rounded_bytes(const vf v[4], const tti_rounding *r) {
  const vi packed = (vi)TTI_X(packus_epi16)(rounded_words(v, r), rounded_words(v + 2, r)); /* by 128 bits */
#if TTI_CODE == TTI_CODE_avx512
  return TTI_SHUFFLE(vi, packed, packed, 0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
#else
  return TTI_SHUFFLE(vi, packed, packed, 0, 4, 1, 5, 2, 6, 3, 7);
#endif
}

/* Two vectors of them at once, of each of two pixels. */
TTI_INLINE void store_two_pixels(uint8_t *const out[2], const vi *const sums[2], const vf multiplier[2],
                                 const tti_rounding *r) {
  vf v[4];
  TTI_FOR (i, 4) v[i] = v_bound(__builtin_convertvector(sums[i / 2][i % 2], vf) * multiplier[i % 2], r->low, r->high);
  const TTI_REGISTER bytes = (TTI_REGISTER)rounded_bytes(v, r);
#if TTI_CODE == TTI_CODE_avx512
  const __m256i half[2] = {_mm512_castsi512_si256(bytes), _mm512_extracti64x4_epi64(bytes, 1)};
#else
  const __m128i half[2] = {_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1)};
#endif
  TTI_FOR (p, 2) __builtin_memcpy(out[p], &half[p], sizeof half[p]);
}
#endif

#if TTI_CODE == TTI_CODE_neon
/* Eight of them at once. */
TTI_INLINE void store_eight(void *out, size_t at, const vi sums[2], const vf multiplier[2], const tti_rounding *r) {
  vf v[2];
  TTI_FOR (i, 2) v[i] = __builtin_convertvector(sums[i], vf) * multiplier[i];
  if (r->is_whole) { /* what is beyond its ends saturates */
    int32x4_t n[2];
    TTI_FOR (i, 2) n[i] = vcvtnq_s32_f32((float32x4_t)v[i]);
    const int16x8_t near = vqmovn_high_s32(vqmovn_s32(n[0]), n[1]);
    vst1_u8((uint8_t *)out + at, vqmovun_s16(vqaddq_s16(near, vdupq_n_s16(r->zero))));
    return;
  }
  if (r->is_float) {
    TTI_FOR (i, 2) v_store((float *)out + at + i * TTI_LANES, v_bound(v[i], r->low, r->high));
    return;
  }
  TTI_FOR (i, 2) v[i] = v_bound_to_round(v[i], r->low, r->high) + TTI_MAGIC;
  const uint16x8_t low = vuzp1q_u16((uint16x8_t)v[0], (uint16x8_t)v[1]);
  vst1_u8((uint8_t *)out + at, vmovn_u16(vaddq_u16(low, vdupq_n_u16(r->zero))));
}
#endif

/* ---- dot products of four bytes */

#ifdef TTI_REGISTER
typedef TTI_REGISTER vx;
#if TTI_DOT
typedef vx v_inputs;
typedef vx v_weights;
TTI_INLINE v_inputs as_inputs(vx bytes) { return bytes; }
TTI_INLINE v_weights as_weights(vx bytes) { return bytes; }
TTI_INLINE vi dot(vi sum, v_inputs a, v_weights w) { return (vi)_mm512_dpbusd_epi32((__m512i)sum, a, w); }
#else
/* Bytes 0 and 2, and bytes 1 and 3, widened to 16 bits. */
typedef struct v_pairs {
  vx even, odd;
} v_pairs;
typedef v_pairs v_inputs;
typedef v_pairs v_weights;
TTI_INLINE v_inputs as_inputs(vx bytes) {
  const v_pairs p = {TTI_SI512(and)(bytes, TTI_X(set1_epi16)(0xFF)), TTI_X(srli_epi16)(bytes, 8)};
  return p;
}
TTI_INLINE v_weights as_weights(vx bytes) {
  const v_pairs p = {TTI_X(srai_epi16)(TTI_X(slli_epi16)(bytes, 8), 8), TTI_X(srai_epi16)(bytes, 8)};
  return p;
}
TTI_INLINE vi dot(vi sum, v_inputs a, v_weights w) {
  return sum + (vi)TTI_X(madd_epi16)(a.even, w.even) + (vi)TTI_X(madd_epi16)(a.odd, w.odd);
}
#endif
TTI_INLINE vx load_x(const void *p) {
  vx v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
TTI_INLINE v_inputs spread(uint32_t word) { return as_inputs(TTI_X(set1_epi32)((int32_t)word)); }
#elif TTI_CODE == TTI_CODE_neon && TTI_DOT
typedef int8x16_t v_inputs;
TTI_INLINE v_inputs spread(uint32_t word) { return vreinterpretq_s8_u32(vdupq_n_u32(word ^ 0x80808080)); }
#endif

/* ---- convolution */

#if TTI_CODE == TTI_CODE_neon && !TTI_DOT
#include "i8_neon.h"
#else
/* One y-plane, as the portable kernel and as any other for panels narrower than its vectors. */
static void conv_row_plain(const tti_i8_conv_row *c) {
  const float *multiplier = (const float *)(const void *)(c->constants + 2 * c->panel);
  for (size_t x = 0; x < c->width; x++) {
    uint32_t sums[32]; /* which wrap where int32 may not */
    for (size_t n = 0; n < c->panel; n++) sums[n] = (uint32_t)(c->begin ? c->begin[x * c->panel + n] : c->constants[n]);
    for (size_t r = 0; r < c->run_count; r++) {
      const tti_i8_run *run = &c->runs[r];
      const int8_t *w = c->weights + (size_t)run->weight_row * c->panel * 4;
      for (size_t i = 0; i < run->count; i += 4, w += c->panel * 4) {
        const size_t left = run->count - i;
        const uint32_t word =
            run->input ? load_word(run->input + (ptrdiff_t)x * c->pixel_stride + i, left) : c->zero * 0x01010101u;
        const int32_t a[4] = {word & 0xFF, word >> 8 & 0xFF, word >> 16 & 0xFF, (int32_t)(word >> 24)};
        for (size_t n = 0; n < c->panel; n++)
          sums[n] += (uint32_t)(a[0] * w[4 * n] + a[1] * w[4 * n + 1] + a[2] * w[4 * n + 2] + a[3] * w[4 * n + 3]);
      }
    }
    for (size_t n = 0; n < c->columns; n++) {
      const size_t at = x * c->out_stride + n;
      const float v = (float)(int32_t)sums[n] * multiplier[n];
      if (c->end) continue;
      if (c->rounding.is_float)
        ((float *)c->out)[at] = bound(v, c->rounding.low, c->rounding.high);
      else
        ((uint8_t *)c->out)[at] = rounded(v, c->rounding.low, c->rounding.high, c->rounding.zero);
    }
    for (size_t n = 0; c->end && n < c->panel; n++) c->end[x * c->panel + n] = (int32_t)sums[n];
  }
}

#if TTI_CODE == TTI_CODE_portable
static void conv_row(const tti_i8_conv_row *c) { conv_row_plain(c); }
#else

#if TTI_CODE != TTI_CODE_neon
enum { SIGNED_INPUTS = 0 };

/* acc += the products of one run, over pixels a constant stride apart. */
TTI_INLINE void add_run(const int pixels, const int vectors, const tti_i8_conv_row *c, const tti_i8_run *run,
                        const uint8_t *in, const ptrdiff_t stride, size_t column, vi acc[TTI_TILE][2]) {
  const size_t row = c->panel * 4;
  const int8_t *w = c->weights + (run->weight_row * c->panel + column) * 4;
  for (size_t i = run->count / 4; i; i--, in += 4, w += row) {
    v_weights b[2];
    TTI_FOR (v, vectors) b[v] = as_weights(load_x(w + v * TTI_LANES * 4));
    TTI_FOR (m, pixels) {
      const v_inputs a = spread(load_word(in + m * stride, 4));
      TTI_FOR (v, vectors) acc[m][v] = dot(acc[m][v], a, b[v]);
    }
  }
  const size_t rest = run->count % 4;
  if (!rest) return;
  TTI_FOR (m, pixels) {
    const v_inputs a = spread(load_word(in + m * stride, rest));
    TTI_FOR (v, vectors) acc[m][v] = dot(acc[m][v], a, as_weights(load_x(w + v * TTI_LANES * 4)));
  }
}

/* b += the products of a run of zero points. */
TTI_INLINE void add_zeros(const int vectors, const tti_i8_conv_row *c, const tti_i8_run *run, size_t column, vi b[2]) {
  const int8_t *w = c->weights + (run->weight_row * c->panel + column) * 4;
  const v_inputs a = spread(c->zero * 0x01010101u);
  for (size_t i = 0; i < run->count; i += 4, w += c->panel * 4)
    TTI_FOR (v, vectors) b[v] = dot(b[v], a, as_weights(load_x(w + v * TTI_LANES * 4)));
}

#else
enum { SIGNED_INPUTS = 1 };

TTI_INLINE void add_run(const int pixels, const int vectors, const tti_i8_conv_row *c, const tti_i8_run *run,
                        const uint8_t *in, const ptrdiff_t stride, size_t column, vi acc[TTI_TILE][2]) {
  const size_t row = c->panel * 4;
  const int8_t *w = c->weights + (run->weight_row * c->panel + column) * 4;
  size_t left = run->count;
  for (; left >= 16; left -= 16, in += 16) {
    int8x16_t a[TTI_TILE];
    TTI_FOR (m, pixels) a[m] = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(in + m * stride), vdupq_n_u8(0x80)));
#define TTI_QUARTER(lane)                                                                                              \
  TTI_FOR (v, vectors) {                                                                                               \
    const int8x16_t b = vld1q_s8(w + v * TTI_LANES * 4);                                                               \
    TTI_FOR (m, pixels) acc[m][v] = (vi)vdotq_laneq_s32((int32x4_t)acc[m][v], b, a[m], lane);                          \
  }                                                                                                                    \
  w += row;
    TTI_QUARTER(0)
    TTI_QUARTER(1)
    TTI_QUARTER(2)
    TTI_QUARTER(3)
  }
  for (size_t i = 0; i < left; i += 4, w += row)
    TTI_FOR (m, pixels) {
      const v_inputs a = spread(load_word(in + m * stride + i, left - i));
      TTI_FOR (v, vectors) acc[m][v] = (vi)vdotq_s32((int32x4_t)acc[m][v], vld1q_s8(w + v * TTI_LANES * 4), a);
    }
}

TTI_INLINE void add_zeros(const int vectors, const tti_i8_conv_row *c, const tti_i8_run *run, size_t column, vi b[2]) {
  const int8_t *w = c->weights + (run->weight_row * c->panel + column) * 4;
  const v_inputs a = spread(c->zero * 0x01010101u);
  for (size_t i = 0; i < run->count; i += 4, w += c->panel * 4)
    TTI_FOR (v, vectors) b[v] = (vi)vdotq_s32((int32x4_t)b[v], vld1q_s8(w + v * TTI_LANES * 4), a);
}

#endif

/* The sums of pixels x .. x + pixels of so many vectors of channels, before the products of inputs in the map. */
TTI_INLINE void tile_begin(const int pixels, const int vectors, const tti_i8_conv_row *c, size_t x, size_t column,
                           vi acc[TTI_TILE][2]) {
  vi b[2];
  const int32_t *constants = c->constants + (SIGNED_INPUTS ? c->panel : 0) + column;
  TTI_FOR (v, vectors) b[v] = c->begin ? (vi){0} : load_sums(constants + v * TTI_LANES);
  for (size_t r = 0; r < c->run_count; r++)
    if (!c->runs[r].input) add_zeros(vectors, c, &c->runs[r], column, b);
  TTI_FOR (m, pixels)
    TTI_FOR (v, vectors)
      acc[m][v] = c->begin ? b[v] + load_sums(c->begin + (x + (size_t)m) * c->panel + column + v * TTI_LANES) : b[v];
}

/* Where they go when all are added up, or for now. The last vector is partial if 'partial' says so. */
TTI_INLINE void tile_end(const int pixels, const int vectors, const int partial, const tti_i8_conv_row *c, size_t x,
                         size_t column, vi acc[TTI_TILE][2]) {
  if (c->end) {
    TTI_FOR (m, pixels)
      TTI_FOR (v, vectors)
        __builtin_memcpy(c->end + (x + (size_t)m) * c->panel + column + v * TTI_LANES, &acc[m][v], sizeof(vi));
    return;
  }
  const tti_rounding rounding = c->rounding; /* which no store can change */
  const size_t stride = c->out_stride;
  const float *multiplier = (const float *)(const void *)(c->constants + 2 * c->panel) + column;
  const size_t left = c->columns - column - (size_t)(vectors - 1) * TTI_LANES; /* of the last vector */
#if TTI_CODE == TTI_CODE_neon
  if (vectors == 2 && !partial) {
    const vf both[2] = {v_load(multiplier), v_load(multiplier + TTI_LANES)};
    TTI_FOR (m, pixels) store_eight(c->out, (x + (size_t)m) * stride + column, acc[m], both, &rounding);
    return;
  }
#endif
#ifdef TTI_REGISTER
  if (vectors == 2 && !partial && !rounding.is_float) {
    const vf both[2] = {v_load(multiplier), v_load(multiplier + TTI_LANES)};
    uint8_t *out = (uint8_t *)c->out + x * stride + column;
    TTI_FOR (pair, (pixels + 1) / 2) {
      const int m[2] = {2 * pair, 2 * pair + 1 < pixels ? 2 * pair + 1 : 2 * pair}; /* an odd one is stored twice */
      uint8_t *to[2] = {out + (size_t)m[0] * stride, out + (size_t)m[1] * stride};
      const vi *const both_sums[2] = {acc[m[0]], acc[m[1]]};
      store_two_pixels(to, both_sums, both, &rounding);
    }
    return;
  }
#endif
  TTI_FOR (m, pixels) {
    TTI_FOR (v, vectors)
      store_elements(c->out, (x + (size_t)m) * stride + column + v * TTI_LANES, acc[m][v],
                     v_load(multiplier + v * TTI_LANES), &rounding,
                     partial && v == vectors - 1 ? left : (size_t)TTI_LANES);
  }
}

/* One register tile. What is constant at every call lets each call site be unrolled into registers. */
TTI_INLINE void tile(const int pixels, const int vectors, const int partial, const tti_i8_conv_row *c, size_t x,
                     size_t column) {
  vi acc[TTI_TILE][2];
  tile_begin(pixels, vectors, c, x, column, acc);
  for (size_t r = 0; r < c->run_count; r++) {
    const tti_i8_run *run = &c->runs[r];
    const uint8_t *in = run->input + (ptrdiff_t)x * c->pixel_stride;
    if (!run->input) continue;
    add_run(pixels, vectors, c, run, in, c->pixel_stride, column, acc);
  }
  tile_end(pixels, vectors, partial, c, x, column, acc);
}

#if TTI_CODE == TTI_CODE_avx2
/* Inputs of a pixel, widened for several register tiles: of every four bytes the first and third in 'even', the others
 * in 'odd'. A word of either is broadcast from memory, which takes no vector operation. */
enum { WIDENED = 256, LEAST_WIDENED = 128 };
typedef struct __attribute__((aligned(32))) widened {
  uint32_t even[WIDENED / 4], odd[WIDENED / 4];
} widened;

TTI_INLINE void widen(const uint8_t *in, size_t count, widened *out) {
  size_t i = 0;
  for (; i + sizeof(vx) <= count; i += sizeof(vx)) {
    const v_inputs both = as_inputs(load_x(in + i));
    __builtin_memcpy(out->even + i / 4, &both.even, sizeof both.even);
    __builtin_memcpy(out->odd + i / 4, &both.odd, sizeof both.odd);
  }
  if (i + sizeof(vx) / 2 <= count) {
    const __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)(in + i));
    _mm_store_si128((__m128i *)(void *)(out->even + i / 4), _mm_and_si128(bytes, _mm_set1_epi16(0xFF)));
    _mm_store_si128((__m128i *)(void *)(out->odd + i / 4), _mm_srli_epi16(bytes, 8));
    i += sizeof(vx) / 2;
  }
  for (; i < count; i += 4) {
    const uint32_t word = load_word(in + i, count - i);
    out->even[i / 4] = word & 0x00FF00FF;
    out->odd[i / 4] = word >> 8 & 0x00FF00FF;
  }
}

/* Adds so many fours of k to a register tile. */
TTI_INLINE void add_widened(const int pixels, const widened a[TTI_TILE], size_t fours, const int8_t *w, size_t row,
                            vi sums[TTI_TILE][2]) {
  vi acc[TTI_TILE][2];
  TTI_FOR (m, pixels)
    TTI_FOR (v, 2) acc[m][v] = sums[m][v];
  for (size_t k = 0; k < fours; k++, w += row) {
    v_weights b[2];
    TTI_FOR (v, 2) b[v] = as_weights(load_x(w + v * TTI_LANES * 4));
    TTI_FOR (m, pixels) {
      const v_inputs both = {_mm256_set1_epi32((int32_t)a[m].even[k]), _mm256_set1_epi32((int32_t)a[m].odd[k])};
      TTI_FOR (v, 2) acc[m][v] = dot(acc[m][v], both, b[v]);
    }
  }
  TTI_FOR (m, pixels)
    TTI_FOR (v, 2) sums[m][v] = acc[m][v];
}

/* Two register tiles side by side, which share the widened inputs. */
TTI_INLINE void tiles(const int pixels, const tti_i8_conv_row *c, size_t x, size_t column) {
  const size_t row = c->panel * 4, next = 2 * TTI_LANES;
  vi sums[2][TTI_TILE][2];
  widened a[TTI_TILE];
  TTI_FOR (i, 2) tile_begin(pixels, 2, c, x, column + (size_t)i * next, sums[i]);
  for (size_t r = 0; r < c->run_count; r++) {
    const tti_i8_run *run = &c->runs[r];
    if (!run->input) continue;
    const uint8_t *in = run->input + (ptrdiff_t)x * c->pixel_stride;
    const int8_t *w = c->weights + (run->weight_row * c->panel + column) * 4;
    for (size_t left = run->count, now; left; left -= now, in += now, w += now / 4 * row) {
      now = least(left, WIDENED);
      TTI_FOR (m, pixels) widen(in + m * c->pixel_stride, now, &a[m]);
      TTI_FOR (i, 2) add_widened(pixels, a, (now + 3) / 4, w + (size_t)i * next * 4, row, sums[i]);
    }
  }
  TTI_FOR (i, 2) tile_end(pixels, 2, 0, c, x, column + (size_t)i * next, sums[i]);
}

static __attribute__((noinline)) void strip_of_tiles(const tti_i8_conv_row *c, size_t column) {
  size_t count = (c->width + TTI_TILE - 1) / TTI_TILE;
  for (size_t x = 0, pixels; count; count--, x += pixels) {
    pixels = (c->width - x + count - 1) / count;
    if (pixels == 4)
      tiles(4, c, x, column);
    else if (pixels == 3)
      tiles(3, c, x, column);
    else if (pixels == 2)
      tiles(2, c, x, column);
    else
      tiles(1, c, x, column);
  }
}
#endif

#define TTI_TILE_CASE(M)                                                                                               \
  case M:                                                                                                              \
    if (M <= TTI_TILE) tile(M, vectors, partial, c, x, column);                                                        \
    break;

/* All pixels of the y-plane for one or two vectors of channels, in tiles of nearly equal size. */
TTI_INLINE void strip(const int vectors, const int partial, const tti_i8_conv_row *c, size_t column) {
  size_t tiles = (c->width + TTI_TILE - 1) / TTI_TILE;
  for (size_t x = 0; tiles; tiles--) {
    const size_t pixels = (c->width - x + tiles - 1) / tiles;
    switch (pixels) {
      TTI_TILE_CASE(1)
      TTI_TILE_CASE(2)
      TTI_TILE_CASE(3)
      TTI_TILE_CASE(4)
      TTI_TILE_CASE(5)
      TTI_TILE_CASE(6)
      TTI_TILE_CASE(7)
      TTI_TILE_CASE(8)
      TTI_TILE_CASE(9)
      TTI_TILE_CASE(10)
      TTI_TILE_CASE(11)
      TTI_TILE_CASE(12)
      TTI_TILE_CASE(13)
      TTI_TILE_CASE(14)
      default:
        break;
    }
    x += pixels;
  }
}

static void conv_row(const tti_i8_conv_row *c) {
  if (c->panel % TTI_LANES) {
    conv_row_plain(c);
    return;
  }
  /* Sums that are kept are those of the whole panel. */
  const size_t columns = c->end ? c->panel : c->columns;
  size_t column = 0;
#if TTI_CODE == TTI_CODE_avx2
  size_t depth = 0;
  for (size_t r = 0; r < c->run_count; r++) depth += c->runs[r].count;
  for (; depth >= LEAST_WIDENED && column + 4 * TTI_LANES <= columns; column += 4 * TTI_LANES)
    strip_of_tiles(c, column);
#endif
  for (; column + 2 * TTI_LANES <= columns; column += 2 * TTI_LANES) strip(2, 0, c, column);
  const size_t left = columns - column;
  if (left > TTI_LANES)
    strip(2, 1, c, column);
  else if (left == TTI_LANES)
    strip(1, 0, c, column);
  else if (left)
    strip(1, 1, c, column);
}
#endif
#endif

/* ---- depthwise convolution */

#if TTI_CODE == TTI_CODE_avx2 || TTI_CODE == TTI_CODE_neon
/* K rows, 3 or 5, at one pixel, or a window's weights of a column, of SLIDE channels, widened to 16 bits. */
enum { MOST_ROWS = 5 };
#if TTI_CODE == TTI_CODE_avx2
enum { SLIDE = 16 };
typedef vx slide_column[3][2]; /* pairs of rows: 0 and 2, 1 and 3, 4; the lower four of each eight channels, and the
                                  higher ones */

/* Two vectors to the lower halves of each eight lanes and to the higher ones, or back. */
TTI_INLINE void regroup(vx v[2]) {
  const vx low = _mm256_permute2x128_si256(v[0], v[1], 0x20);
  v[1] = _mm256_permute2x128_si256(v[0], v[1], 0x31);
  v[0] = low;
}

/* The row that a pair lacks is any other: its weights are 0. */
TTI_INLINE void slide_load(const int k, const uint8_t *const at[MOST_ROWS], slide_column out) {
  vx row[MOST_ROWS];
  TTI_FOR (i, k) row[i] = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(const void *)at[i]));
  TTI_FOR (p, (k + 1) / 2) {
    const vx first = row[p < 2 ? p : 4], second = row[p + 2 < k ? p + 2 : p];
    out[p][0] = _mm256_unpacklo_epi16(first, second);
    out[p][1] = _mm256_unpackhi_epi16(first, second);
  }
}

/* 'part' bytes farther on are the weights of row 4. */
TTI_INLINE void slide_weights(const int k, const int8_t *w, size_t part, slide_column out) {
  TTI_FOR (q, k / 2) {
    vx words[2] = {load_x(w + (size_t)q * part), load_x(w + (size_t)q * part + 4 * TTI_LANES)};
    regroup(words);
    TTI_FOR (i, 2) {
      const v_weights both = as_weights(words[i]);
      out[2 * q][i] = both.even;
      if (!q) out[1][i] = both.odd;
    }
  }
}

TTI_INLINE void slide_constants(const int32_t *in, vi out[2]) {
  vx v[2] = {load_x(in), load_x(in + TTI_LANES)};
  regroup(v);
  TTI_FOR (i, 2) out[i] = (vi)v[i];
}

TTI_INLINE void slide_add(const int k, vi sums[2], const slide_column in, const slide_column w) {
  TTI_FOR (p, (k + 1) / 2)
    TTI_FOR (i, 2) sums[i] += (vi)_mm256_madd_epi16(in[p][i], w[p][i]);
}

TTI_INLINE void slide_store(void *out, size_t at, const vi sums[2], const vf multiplier[2], const tti_rounding *r) {
  vf v[2];
  TTI_FOR (i, 2) v[i] = v_bound(__builtin_convertvector(sums[i], vf) * multiplier[i], r->low, r->high);
  if (r->is_float) {
    vx both[2] = {(vx)v[0], (vx)v[1]};
    regroup(both);
    TTI_FOR (i, 2) v_store((float *)out + at + i * TTI_LANES, (vf)both[i]);
    return;
  }
  const __m256i words = rounded_words(v, r), bytes = _mm256_permute4x64_epi64(_mm256_packus_epi16(words, words), 0x08);
  _mm_storeu_si128((__m128i *)(void *)((uint8_t *)out + at), _mm256_castsi256_si128(bytes));
}
#else
enum { SLIDE = 8 };
typedef int16x8_t slide_column[MOST_ROWS];

TTI_INLINE int16x8_t load_wide(const uint8_t *row) { return vreinterpretq_s16_u16(vmovl_u8(vld1_u8(row))); }

TTI_INLINE void add_wide(vi sum[2], int16x8_t a, int16x8_t w) {
  sum[0] = (vi)vmlal_s16((int32x4_t)sum[0], vget_low_s16(a), vget_low_s16(w));
  sum[1] = (vi)vmlal_high_s16((int32x4_t)sum[1], a, w);
}

TTI_INLINE void slide_load(const int k, const uint8_t *const at[MOST_ROWS], slide_column out) {
  TTI_FOR (i, k) out[i] = load_wide(at[i]);
}

TTI_INLINE void slide_weights(const int k, const int8_t *w, size_t part, slide_column out) {
  const int8x8x4_t rows = vld4_s8(w);
  TTI_FOR (i, k < 4 ? k : 4) out[i] = vmovl_s8(rows.val[i]);
  if (k > 4) out[4] = vmovl_s8(vld4_s8(w + part).val[0]);
}

TTI_INLINE void slide_constants(const int32_t *in, vi out[2]) {
  TTI_FOR (i, 2) out[i] = load_sums(in + i * TTI_LANES);
}

TTI_INLINE void slide_add(const int k, vi sums[2], const slide_column in, const slide_column w) {
  TTI_FOR (i, k) add_wide(sums, in[i], w[i]);
}

TTI_INLINE void slide_store(void *out, size_t at, const vi sums[2], const vf multiplier[2], const tti_rounding *r) {
  store_eight(out, at, sums, multiplier, r);
}
#endif

/* The next 'stride' columns, or the first of them, added to the sums under way as f32.c does it. */
TTI_INLINE void slide_step(const int k, const int stride, const int phase, const int open, int first_only,
                           const uint8_t *at[MOST_ROWS], const size_t steps[MOST_ROWS], const slide_column w[MOST_ROWS],
                           const vi bias[2], vi acc[MOST_ROWS][2]) {
  TTI_FOR (i, 2) acc[phase][i] = bias[i];
  TTI_FOR (r, stride) {
    if (r && first_only) break;
    slide_column in;
    slide_load(k, at, in);
    TTI_FOR (i, k) at[i] += steps[i];
    TTI_FOR (m, open)
      if (stride * m + r < k) slide_add(k, acc[(phase - m + open) % open], in, w[stride * m + r]);
  }
}

#define TTI_SLIDE_OUT(P)                                                                                               \
  if (P < open) {                                                                                                      \
    const int phase = (open - 1 + P) % open;                                                                           \
    slide_step(k, stride, phase, open, left == 1, at, steps, w, bias, acc);                                            \
    slide_store(d->out, to, acc[(phase + 1) % open], multiplier, &rounding);                                           \
    to += channels;                                                                                                    \
    if (--left == 0) return;                                                                                           \
  }

/* A y-plane of SLIDE channels of a k x k window without dilation: sums stay in registers as it slides. A row outside
 * the map is read from one pixel of zero points again and again. */
TTI_INLINE void slide_window(const int k, const int stride, const tti_i8_depthwise_row *d, size_t column) {
  const int open = (k + stride - 1) / stride;
  const size_t channels = d->channels, part = (size_t)k * channels * 4;
  const tti_rounding rounding = d->rounding;
  uint8_t outside[SLIDE];
  __builtin_memset(outside, d->zero, sizeof outside);
  slide_column w[MOST_ROWS];
  vi bias[2], multipliers[2];
  TTI_FOR (t, k) slide_weights(k, d->weights + ((size_t)t * channels + column) * 4, part, w[t]);
  slide_constants(d->constants + column, bias);
  slide_constants(d->constants + channels + column, multipliers);
  const vf multiplier[2] = {(vf)multipliers[0], (vf)multipliers[1]};
  const uint8_t *at[MOST_ROWS];
  size_t steps[MOST_ROWS], to = column, left = d->width;
  TTI_FOR (i, k) {
    at[i] = d->rows[i] ? d->rows[i] + column : outside;
    steps[i] = d->rows[i] ? channels : 0;
  }
  vi acc[MOST_ROWS][2];
  TTI_FOR (m, open)
    TTI_FOR (i, 2) acc[m][i] = bias[i];
  TTI_FOR (p, open - 1) slide_step(k, stride, p, open, 0, at, steps, w, bias, acc);
  for (;;) {
    TTI_SLIDE_OUT(0)
    TTI_SLIDE_OUT(1)
    TTI_SLIDE_OUT(2)
    TTI_SLIDE_OUT(3)
    TTI_SLIDE_OUT(4)
  }
}
#undef TTI_SLIDE_OUT

TTI_INLINE int slides(const tti_i8_depthwise_row *d) {
  const int square = d->kernel_y == d->kernel_x && (d->kernel_x == 3 || d->kernel_x == 5);
  return square && d->dilation_x == 1 && d->stride_x <= 2 && d->channels >= SLIDE;
}

static void slide(const tti_i8_depthwise_row *d, size_t column) {
  if (d->kernel_x == 3 && d->stride_x == 1)
    slide_window(3, 1, d, column);
  else if (d->kernel_x == 3)
    slide_window(3, 2, d, column);
  else if (d->stride_x == 1)
    slide_window(5, 1, d, column);
  else
    slide_window(5, 2, d, column);
}
#endif

#ifdef TTI_REGISTER
enum { WIDE = 4 * TTI_LANES }; /* channels at a time */

TTI_INLINE vx load_channels(const uint8_t *in, size_t count) {
#if TTI_CODE == TTI_CODE_avx512
  return _mm512_maskz_loadu_epi8(count >= 64 ? ~0ull : (1ull << count) - 1, in);
#else
  if (count >= WIDE) return load_x(in);
  if (count == WIDE / 2) return _mm256_zextsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)in));
  uint8_t part[WIDE] = {0};
  for (size_t i = 0; i < count; i++) part[i] = in[i];
  return load_x(part);
#endif
}

TTI_INLINE void store_channels(uint8_t *out, vx bytes, size_t count) {
#if TTI_CODE == TTI_CODE_avx512
  _mm512_mask_storeu_epi8(out, count >= 64 ? ~0ull : (1ull << count) - 1, bytes);
#else
  uint8_t part[WIDE];
  if (count >= WIDE) {
    _mm256_storeu_si256((__m256i *)(void *)out, bytes);
    return;
  }
  if (count == WIDE / 2) {
    _mm_storeu_si128((__m128i *)(void *)out, _mm256_castsi256_si128(bytes));
    return;
  }
  __builtin_memcpy(part, &bytes, sizeof part);
  for (size_t i = 0; i < count; i++) out[i] = part[i];
#endif
}

/* Four rows' bytes by channel: in each 128 bits, channels 4 j .. 4 j + 3 of its sixteen go to word j. */
TTI_INLINE void interleave(const vx r[4], vx out[4]) {
  const vx low01 = TTI_X(unpacklo_epi8)(r[0], r[1]), high01 = TTI_X(unpackhi_epi8)(r[0], r[1]);
  const vx low23 = TTI_X(unpacklo_epi8)(r[2], r[3]), high23 = TTI_X(unpackhi_epi8)(r[2], r[3]);
  out[0] = TTI_X(unpacklo_epi16)(low01, low23);
  out[1] = TTI_X(unpackhi_epi16)(low01, low23);
  out[2] = TTI_X(unpacklo_epi16)(high01, high23);
  out[3] = TTI_X(unpackhi_epi16)(high01, high23);
}

/* Words of WIDE channels (count of them exist), brought into the order of interleave. */
TTI_INLINE void load_ordered(const void *words, size_t count, vx out[4]) {
  const float *in = words; /* any four bytes */
  vx w[4];
  TTI_FOR (i, 4) {
    const size_t at = (size_t)i * TTI_LANES;
    w[i] = count >= at + TTI_LANES ? load_x(in + at) : count > at ? (vx)v_load_part(in + at, count - at) : (vx){0};
  }
#if TTI_CODE == TTI_CODE_avx512
  const __m512i a = _mm512_shuffle_i32x4(w[0], w[1], 0x88), b = _mm512_shuffle_i32x4(w[0], w[1], 0xDD);
  const __m512i c = _mm512_shuffle_i32x4(w[2], w[3], 0x88), d = _mm512_shuffle_i32x4(w[2], w[3], 0xDD);
  out[0] = _mm512_shuffle_i32x4(a, c, 0x88);
  out[1] = _mm512_shuffle_i32x4(b, d, 0x88);
  out[2] = _mm512_shuffle_i32x4(a, c, 0xDD);
  out[3] = _mm512_shuffle_i32x4(b, d, 0xDD);
#else
  out[0] = _mm256_permute2x128_si256(w[0], w[2], 0x20);
  out[1] = _mm256_permute2x128_si256(w[0], w[2], 0x31);
  out[2] = _mm256_permute2x128_si256(w[1], w[3], 0x20);
  out[3] = _mm256_permute2x128_si256(w[1], w[3], 0x31);
#endif
}

/* Sums in that order, to elements of 'count' channels at out. */
TTI_INLINE void store_ordered(const tti_i8_depthwise_row *d, size_t at, const vi acc[4], const vx multiplier[4],
                              size_t count) {
  const tti_rounding *r = &d->rounding;
  vf v[4];
  TTI_FOR (j, 4) v[j] = v_bound(__builtin_convertvector(acc[j], vf) * (vf)multiplier[j], r->low, r->high);
  if (r->is_float) {
    float *out = (float *)d->out + at;
    float values[4][TTI_LANES];
    TTI_FOR (j, 4) v_store(values[j], v[j]);
    for (size_t i = 0; i < count; i++) out[i] = values[i % 16 / 4][i / 16 * 4 + i % 4];
    return;
  }
  store_channels((uint8_t *)d->out + at, TTI_X(packus_epi16)(rounded_words(v, r), rounded_words(v + 2, r)), count);
}

/* Four rows at one pixel. row[i] may be NULL. */
TTI_INLINE void load_column(const tti_i8_depthwise_row *d, const uint8_t *const row[4], size_t offset, size_t count,
                            v_inputs out[4]) {
  vx r[4], words[4];
  TTI_FOR (i, 4) r[i] = row[i] ? load_channels(row[i] + offset, count) : TTI_X(set1_epi8)((char)d->zero);
  interleave(r, words);
  TTI_FOR (j, 4) out[j] = as_inputs(words[j]);
}

/* Weights of a column of the window, in that order. */
TTI_INLINE void load_weights(const void *words, size_t count, v_weights out[4]) {
  vx ordered[4];
  load_ordered(words, count, ordered);
  TTI_FOR (j, 4) out[j] = as_weights(ordered[j]);
}

TTI_INLINE void depthwise_pixels(const int pixels, const tti_i8_depthwise_row *d, size_t x, size_t column,
                                 size_t count) {
  const size_t channels = d->channels, step = d->stride_x * channels, dilation = d->dilation_x * channels;
  vx ordered[4];
  vi acc[4][4];
  load_ordered(d->constants + column, count, ordered);
  TTI_FOR (m, pixels)
    TTI_FOR (j, 4) acc[m][j] = (vi)ordered[j];
  const int8_t *w = d->weights + column * 4;
  for (size_t ky = 0; ky < d->kernel_y; ky += 4) {
    const uint8_t *row[4]; /* beyond the kernel any row will do: its weights are 0 */
    for (size_t i = 0; i < 4; i++) row[i] = d->rows[least(ky + i, d->kernel_y - 1)];
    for (size_t kx = 0; kx < d->kernel_x; kx++, w += channels * 4) {
      v_weights weights[4];
      load_weights(w, count, weights);
      TTI_FOR (m, pixels) {
        v_inputs in[4];
        load_column(d, row, (x + (size_t)m) * step + kx * dilation + column, count, in);
        TTI_FOR (j, 4) acc[m][j] = dot(acc[m][j], in[j], weights[j]);
      }
    }
  }
  load_ordered(d->constants + channels + column, count, ordered);
  TTI_FOR (m, pixels) store_ordered(d, (x + (size_t)m) * channels + column, acc[m], ordered, count);
}

/* 3 x 3 without dilation: all weights in registers, and columns of the window handed on from pixel to pixel. They go
 * around in 'in', so that after three pixels each is where it was. */
TTI_INLINE void depthwise_3x3(const int stride, const tti_i8_depthwise_row *d, size_t column, size_t count) {
  const size_t channels = d->channels;
  vx bias[4], multiplier[4];
  v_weights w[3][4];
  v_inputs in[3][4];
  TTI_FOR (kx, 3) load_weights(d->weights + ((size_t)kx * channels + column) * 4, count, w[kx]);
  load_ordered(d->constants + column, count, bias);
  load_ordered(d->constants + channels + column, count, multiplier);
  const uint8_t *const row[4] = {d->rows[0], d->rows[1], d->rows[2], d->rows[2]};
  load_column(d, row, column, count, in[0]);
  if (stride == 1) load_column(d, row, channels + column, count, in[1]);
  for (size_t x = 0; x < d->width; x += 3)
    TTI_FOR (p, 3) {
      if (x + (size_t)p >= d->width) break;
      const size_t at = (x + (size_t)p) * (size_t)stride * channels + column;
      const int first = p * stride;
      if (stride == 2) load_column(d, row, at + channels, count, in[(first + 1) % 3]);
      load_column(d, row, at + 2 * channels, count, in[(first + 2) % 3]);
      vi acc[4];
      TTI_FOR (j, 4) {
        acc[j] = (vi)bias[j];
        TTI_FOR (kx, 3) acc[j] = dot(acc[j], in[(first + kx) % 3][j], w[kx][j]);
      }
      store_ordered(d, (x + (size_t)p) * channels + column, acc, multiplier, count);
    }
}

/* 'pixels' pixels of a window of 5 x 5 without dilation, its ordered weights at w [2][5][4]: a column of four rows is
 * loaded once for all the pixels that read it. */
TTI_INLINE void depthwise_5x5(const int pixels, const int stride, const tti_i8_depthwise_row *d, size_t x,
                              size_t column, size_t count, const v_weights *w, const vx bias[4],
                              const vx multiplier[4]) {
  const size_t channels = d->channels, first = x * (size_t)stride * channels + column;
  vi acc[4][4];
  TTI_FOR (m, pixels)
    TTI_FOR (j, 4) acc[m][j] = (vi)bias[j];
  for (size_t part = 0; part < 2; part++, w += 5 * 4) {
    const uint8_t *row[4]; /* beyond the kernel any row will do: its weights are 0 */
    for (size_t i = 0; i < 4; i++) row[i] = d->rows[least(4 * part + i, 4)];
    TTI_FOR (c, (pixels - 1) * stride + 5) {
      v_inputs in[4];
      load_column(d, row, first + (size_t)c * channels, count, in);
      TTI_FOR (m, pixels) {
        const int kx = c - m * stride;
        if (kx < 0 || kx >= 5) continue;
        TTI_FOR (j, 4) acc[m][j] = dot(acc[m][j], in[j], w[kx * 4 + j]);
      }
    }
  }
  TTI_FOR (m, pixels) store_ordered(d, (x + (size_t)m) * channels + column, acc[m], multiplier, count);
}

TTI_INLINE void depthwise_5x5_row(const int stride, const tti_i8_depthwise_row *d, size_t column, size_t count) {
  const int pixels = TTI_CODE == TTI_CODE_avx512 ? 4 : 2;
  v_weights w[2 * 5 * 4];
  vx bias[4], multiplier[4];
  for (size_t i = 0; i < 2 * 5; i++) load_weights(d->weights + (i * d->channels + column) * 4, count, w + 4 * i);
  load_ordered(d->constants + column, count, bias);
  load_ordered(d->constants + d->channels + column, count, multiplier);
  size_t x = 0;
  for (; x + (size_t)pixels <= d->width; x += (size_t)pixels)
    depthwise_5x5(pixels, stride, d, x, column, count, w, bias, multiplier);
  for (; x < d->width; x++) depthwise_5x5(1, stride, d, x, column, count, w, bias, multiplier);
}

/* Words of so few channels, again and again, in the order of interleave. */
TTI_INLINE void load_repeated(const void *words, const size_t channels, vx out[4]) {
  uint32_t repeated[WIDE];
  for (size_t i = 0; i < WIDE; i += channels) __builtin_memcpy(repeated + i, words, channels * sizeof *repeated);
  load_ordered(repeated, WIDE, out);
}

/* WIDE / channels pixels, 'stride' apart. */
TTI_INLINE vx load_apart(const uint8_t *in, const size_t channels, const size_t stride) {
  if (stride == 1) return load_x(in);
#if TTI_CODE == TTI_CODE_avx512
  const __m512i a = load_x(in), b = _mm512_maskz_loadu_epi8((1ull << (WIDE - channels)) - 1, in + WIDE);
  return channels == 16 ? _mm512_shuffle_i64x2(a, b, 0x88) : _mm512_shuffle_i64x2(a, b, 0x44);
#else
  const __m256i a = load_x(in), b = load_x(in + WIDE - channels); /* of eight: pixels 0, 2, and 4, 6 behind others */
  return _mm256_permute4x64_epi64(_mm256_blend_epi32(a, b, 0xCC), 0xD8);
#endif
}

/* 3 x 3 without dilation on few channels: as many pixels as fit side by side, as if they were one with more channels.
 * The last ones may be computed twice. */
TTI_INLINE void depthwise_3x3_narrow(const size_t channels, const size_t stride, const tti_i8_depthwise_row *d) {
  const size_t pixels = WIDE / channels;
  vx ordered[4], bias[4], multiplier[4];
  v_weights w[3][4];
  TTI_FOR (kx, 3) {
    load_repeated(d->weights + (size_t)kx * channels * 4, channels, ordered);
    TTI_FOR (j, 4) w[kx][j] = as_weights(ordered[j]);
  }
  load_repeated(d->constants, channels, bias);
  load_repeated(d->constants + channels, channels, multiplier);
  for (size_t x = 0; x < d->width; x += pixels) {
    const size_t first = least(x, d->width - pixels);
    vi acc[4];
    TTI_FOR (j, 4) acc[j] = (vi)bias[j];
    TTI_FOR (kx, 3) {
      vx rows[4], in[4];
      TTI_FOR (i, 3)
        rows[i] = d->rows[i] ? load_apart(d->rows[i] + (first * stride + (size_t)kx) * channels, channels, stride)
                             : TTI_X(set1_epi8)((char)d->zero);
      rows[3] = rows[2]; /* its weights are 0 */
      interleave(rows, in);
      TTI_FOR (j, 4) acc[j] = dot(acc[j], as_inputs(in[j]), w[kx][j]);
    }
    store_ordered(d, first * channels, acc, multiplier, WIDE);
  }
}

/* Whether the row is such a one; it is computed then. */
TTI_INLINE int depthwise_narrow(const size_t channels, const tti_i8_depthwise_row *d) {
  if (d->channels != channels || d->kernel_y != 3 || d->kernel_x != 3 || d->dilation_x != 1) return 0;
  if (d->stride_x > 2 || d->width < WIDE / channels) return 0;
  if (d->stride_x == 1)
    depthwise_3x3_narrow(channels, 1, d);
  else
    depthwise_3x3_narrow(channels, 2, d);
  return 1;
}

TTI_INLINE void depthwise_columns(const tti_i8_depthwise_row *d, size_t column, size_t count) {
  const int square = d->kernel_y == d->kernel_x && d->dilation_x == 1 && d->stride_x <= 2;
  if (square && d->kernel_x == 3) {
    if (d->stride_x == 1)
      depthwise_3x3(1, d, column, count);
    else
      depthwise_3x3(2, d, column, count);
    return;
  }
  if (square && d->kernel_x == 5) {
    if (d->stride_x == 1)
      depthwise_5x5_row(1, d, column, count);
    else
      depthwise_5x5_row(2, d, column, count);
    return;
  }
  size_t x = 0;
  for (; x + 4 <= d->width; x += 4) depthwise_pixels(4, d, x, column, count);
  for (; x < d->width; x++) depthwise_pixels(1, d, x, column, count);
}

static void depthwise_row(const tti_i8_depthwise_row *d) {
#if TTI_CODE == TTI_CODE_avx2
  if (slides(d)) {
    for (size_t column = 0; column < d->channels; column += SLIDE) slide(d, least(column, d->channels - SLIDE));
    return;
  }
  if (depthwise_narrow(8, d)) return;
#else
  if (depthwise_narrow(16, d) || depthwise_narrow(32, d)) return;
#endif
  if (d->channels < WIDE) {
    depthwise_columns(d, 0, d->channels);
    return;
  }
  for (size_t column = 0; column < d->channels; column += WIDE)
    depthwise_columns(d, least(column, d->channels - WIDE), WIDE); /* the last ones may be computed twice */
}

#else
/* Eight channels at a time, a few pixels of them; the last ones may be fewer. */
enum { WIDE = 8, TTI_PIXELS = 4 };

TTI_INLINE void depthwise_pixels(const int pixels, const tti_i8_depthwise_row *d, size_t x, size_t column,
                                 size_t count) {
  const size_t channels = d->channels, step = d->stride_x * channels, dilation = d->dilation_x * channels;
  int32_t sums[TTI_PIXELS][WIDE];
  for (int m = 0; m < pixels; m++)
    for (size_t n = 0; n < count; n++) sums[m][n] = d->constants[column + n];
  const int8_t *w = d->weights + column * 4;
  for (size_t ky = 0; ky < d->kernel_y; ky += 4) {
    const size_t rows = least(4, d->kernel_y - ky);
    for (size_t kx = 0; kx < d->kernel_x; kx++, w += channels * 4)
      for (size_t i = 0; i < rows; i++)
        for (int m = 0; m < pixels; m++) {
          const uint8_t *row = d->rows[ky + i];
          const uint8_t *in = row ? row + (x + (size_t)m) * step + kx * dilation + column : NULL;
          for (size_t n = 0; n < count; n++)
            sums[m][n] = (int32_t)((uint32_t)sums[m][n] + (uint32_t)((in ? in[n] : d->zero) * w[4 * n + i]));
        }
  }
  const float *multiplier = (const float *)(const void *)(d->constants + channels) + column;
  const tti_rounding *r = &d->rounding;
  for (int m = 0; m < pixels; m++)
    for (size_t n = 0; n < count; n++) {
      const size_t at = (x + (size_t)m) * channels + column + n;
      const float v = (float)sums[m][n] * multiplier[n];
      if (r->is_float)
        ((float *)d->out)[at] = bound(v, r->low, r->high);
      else
        ((uint8_t *)d->out)[at] = rounded(v, r->low, r->high, r->zero);
    }
}

#if TTI_CODE == TTI_CODE_neon
/* Pixels x .. x + pixels of eight channels. Products of uint8 and int8 fit 16 bits, which they widen from. */
TTI_INLINE void depthwise_eight(const int pixels, const tti_i8_depthwise_row *d, size_t x, size_t column) {
  const size_t channels = d->channels, step = d->stride_x * channels, dilation = d->dilation_x * channels;
  const int16x8_t outside = vdupq_n_s16(d->zero);
  vi sums[TTI_PIXELS][2];
  TTI_FOR (m, pixels)
    TTI_FOR (i, 2) sums[m][i] = load_sums(d->constants + column + i * TTI_LANES);
  const int8_t *w = d->weights + column * 4;
  for (size_t ky = 0; ky < d->kernel_y; ky += 4) {
    for (size_t kx = 0; kx < d->kernel_x; kx++, w += channels * 4) {
      const int8x8x4_t weights = vld4_s8(w);
      TTI_FOR (i, 4) {
        if (ky + (size_t)i >= d->kernel_y) break;
        const size_t offset = x * step + kx * dilation + column;
        const uint8_t *row = d->rows[ky + (size_t)i];
        TTI_FOR (m, pixels)
          add_wide(sums[m], row ? load_wide(row + offset + (size_t)m * step) : outside, vmovl_s8(weights.val[i]));
      }
    }
  }
  const float *multiplier = (const float *)(const void *)(d->constants + channels) + column;
  const vf both[2] = {v_load(multiplier), v_load(multiplier + TTI_LANES)};
  TTI_FOR (m, pixels) store_eight(d->out, (x + (size_t)m) * channels + column, sums[m], both, &d->rounding);
}

/* Eight channels of a y-plane. */
static void depthwise_columns(const tti_i8_depthwise_row *d, size_t column) {
  if (slides(d)) {
    slide(d, column);
    return;
  }
  size_t x = 0;
  for (; x + TTI_PIXELS <= d->width; x += TTI_PIXELS) depthwise_eight(TTI_PIXELS, d, x, column);
  for (; x < d->width; x++) depthwise_eight(1, d, x, column);
}
#endif

static void depthwise_row(const tti_i8_depthwise_row *d) {
  for (size_t column = 0; column < d->channels; column += WIDE) {
    const size_t count = least(WIDE, d->channels - column);
#if TTI_CODE == TTI_CODE_neon
    if (count == WIDE) {
      depthwise_columns(d, column);
      continue;
    }
#endif
    for (size_t x = 0; x < d->width; x++) depthwise_pixels(1, d, x, column, count);
  }
}
#endif

/* ---- pooling and reductions */

#ifdef TTI_REGISTER
/* 'span' channels at a time; the last ones may be found twice. */
TTI_INLINE void max_spans(const uint8_t *const *pixels, size_t count, size_t channels, const size_t span,
                          uint8_t *out) {
  for (size_t c = 0; c < channels; c += span) {
    const size_t at = least(c, channels - span);
    vx most = {0};
    for (size_t n = 0; n < count; n++) most = TTI_X(max_epu8)(most, load_channels(pixels[n] + at, span));
    store_channels(out + at, most, span);
  }
}

static void max_pixels(const uint8_t *const *pixels, size_t count, size_t channels, uint8_t *out) {
  if (channels >= WIDE)
    max_spans(pixels, count, channels, WIDE, out);
  else if (TTI_CODE == TTI_CODE_avx2 && channels >= WIDE / 2)
    max_spans(pixels, count, channels, WIDE / 2, out);
  else
    max_spans(pixels, count, channels, channels, out);
}
#else
static void max_pixels(const uint8_t *const *pixels, size_t count, size_t channels, uint8_t *out) {
  for (size_t at = 0; at < channels;) {
    uint8_t most[CHUNK] = {0};
    const size_t span = channels - at >= CHUNK ? CHUNK : channels - at >= 16 ? 16 : channels - at;
    for (size_t n = 0; n < count; n++) {
      const uint8_t *in = pixels[n] + at;
#if TTI_CODE == TTI_CODE_neon
      for (size_t i = 0; i + 16 <= span; i += 16) vst1q_u8(most + i, vmaxq_u8(vld1q_u8(most + i), vld1q_u8(in + i)));
      if (span >= 16) continue;
#endif
      for (size_t i = 0; i < span; i++) most[i] = in[i] > most[i] ? in[i] : most[i];
    }
    for (size_t i = 0; i < span; i++) out[at + i] = most[i];
    at += span;
  }
}
#endif

/* 'lanes' channels of the last of so many vectors. */
TTI_INLINE void sum_vectors(const int vectors, const size_t lanes, const uint8_t *pixels, size_t count, size_t channels,
                            int32_t *sums) {
  vi sum[4] = {{0}};
  for (size_t n = 0; n < count; n++, pixels += channels)
    TTI_FOR (v, vectors) sum[v] += load_bytes(pixels + v * TTI_LANES, lanes);
  TTI_FOR (v, vectors)
    for (size_t i = 0; i < lanes; i++) sums[(size_t)v * TTI_LANES + i] += sum[v][i];
}

static void sum_pixels(const uint8_t *pixels, size_t count, size_t channels, int32_t *sums) {
  size_t c = 0;
  for (; c + 4 * TTI_LANES <= channels; c += 4 * TTI_LANES)
    sum_vectors(4, TTI_LANES, pixels + c, count, channels, sums + c);
  for (; c + TTI_LANES <= channels; c += TTI_LANES) sum_vectors(1, TTI_LANES, pixels + c, count, channels, sums + c);
  if (c < channels) sum_vectors(1, channels - c, pixels + c, count, channels, sums + c);
}

static void round_sums(const int32_t *sums, int32_t shift, float scale, size_t count, void *out,
                       const tti_rounding *r) {
  size_t i = 0;
  for (; i + TTI_LANES <= count; i += TTI_LANES)
    store_elements(out, i, load_sums(sums + i) - shift, v_set(scale), r, TTI_LANES);
  for (; i < count; i++) {
    const vi one = {sums[i] - shift};
    store_elements(out, i, one, v_set(scale), r, 1);
  }
}

TTI_INLINE void average_lanes(const int vectors, const tti_i8_average *p, size_t c, const size_t left) {
  const vf zero = v_set(p->zero), in_scale = v_set(p->in_scale), offset = v_set(p->offset);
  vf sum[4] = {{0}};
  for (size_t i = 0; i < p->row_count; i++)
    for (size_t j = 0; j < p->columns; j++) {
      const uint8_t *in = p->rows[i] + j * p->step + c;
      TTI_FOR (v, vectors)
        sum[v] += (__builtin_convertvector(load_bytes(in + v * TTI_LANES, left), vf) - zero) * in_scale;
    }
  TTI_FOR (v, vectors)
    store_rounded(p->out + c + v * TTI_LANES, sum[v] / v_set(p->divisor) / v_set(p->out_scale) + offset, &p->rounding,
                  left);
}

static void average(const tti_i8_average *p) {
  size_t c = 0;
  for (; c + 4 * TTI_LANES <= p->channels; c += 4 * TTI_LANES) average_lanes(4, p, c, TTI_LANES);
  for (; c + TTI_LANES <= p->channels; c += TTI_LANES) average_lanes(1, p, c, TTI_LANES);
  if (c < p->channels) average_lanes(1, p, c, p->channels - c);
}

/* ---- elementwise */

/* So many vectors of elements; of one, 'left' elements. */
TTI_INLINE void store_vectors(const int vectors, uint8_t *out, const vf v[4], const tti_rounding *r, size_t left) {
#ifdef TTI_REGISTER
  if (vectors == 4) {
    vf bounded[4];
    TTI_FOR (j, 4) bounded[j] = v_bound(v[j], r->low, r->high);
    const vi bytes = rounded_bytes(bounded, r);
    __builtin_memcpy(out, &bytes, sizeof bytes);
    return;
  }
#endif
  TTI_FOR (j, vectors) store_rounded(out + j * TTI_LANES, v[j], r, left);
}

/* So many vectors of elements from i on, of so many pixels; of one, 'left' elements before the pixel's end. */
TTI_INLINE void binary_lanes(const unsigned kind, const int vectors, const size_t a_step, const size_t b_step,
                             const int b_stays, const tti_i8_binary_row *r, size_t i, size_t pixels,
                             const size_t left) {
  const tti_rounding rounding = r->rounding;
  const vf a_scale = v_set(r->a_scale), b_scale = v_set(r->b_scale), last = v_set(r->last);
  const vf a_zero = v_set(r->a_zero), b_zero = v_set(r->b_zero);
  vf b[4] = {{0}}, v[4];
  for (size_t p = 0; p < pixels; p++) {
    const uint8_t *a_at = r->a + p * r->a_pixel, *b_at = r->b + p * r->b_pixel;
    TTI_FOR (j, vectors) {
      const size_t at = i + (size_t)j * TTI_LANES;
      const vf a = __builtin_convertvector(a_step ? load_bytes(a_at + at, left) : (vi){0} + a_at[0], vf);
      if (!b_stays || !p) b[j] = __builtin_convertvector(b_step ? load_bytes(b_at + at, left) : (vi){0} + b_at[0], vf);
      v[j] = kind == TT_BINARY_ADD   ? v_fused(a, a_scale, v_fused(b[j], b_scale, last))
             : kind == TT_BINARY_SUB ? ((a - a_zero) * a_scale - (b[j] - b_zero) * b_scale) / last
                                     : (a - a_zero) * (b[j] - b_zero) * a_scale + last;
    }
    store_vectors(vectors, r->out + p * r->count + i, v, &rounding, left);
  }
}

TTI_INLINE void binary_span(const unsigned kind, const size_t a_step, const size_t b_step, const int b_stays,
                            const size_t pixels, const tti_i8_binary_row *row) {
  const tti_i8_binary_row r = *row; /* which no store can change */
  size_t i = 0;
  for (; i + 4 * TTI_LANES <= r.count; i += 4 * TTI_LANES)
    binary_lanes(kind, 4, a_step, b_step, b_stays, &r, i, pixels, TTI_LANES);
  for (; i + TTI_LANES <= r.count; i += TTI_LANES)
    binary_lanes(kind, 1, a_step, b_step, b_stays, &r, i, pixels, TTI_LANES);
  if (i < r.count) binary_lanes(kind, 1, a_step, b_step, b_stays, &r, i, pixels, r.count - i);
}

TTI_INLINE void binary_steps(const unsigned kind, const tti_i8_binary_row *r) {
  if (r->pixels == 1 && r->a_step && r->b_step)
    binary_span(kind, 1, 1, 0, 1, r);
  else if (r->a_step && r->b_step && !r->b_pixel)
    binary_span(kind, 1, 1, 1, r->pixels, r);
  else
    binary_span(kind, r->a_step, r->b_step, 0, r->pixels, r);
}

static void binary(unsigned kind, const tti_i8_binary_row *r) {
  if (kind == TT_BINARY_ADD)
    binary_steps(TT_BINARY_ADD, r);
  else if (kind == TT_BINARY_SUB)
    binary_steps(TT_BINARY_SUB, r);
  else
    binary_steps(TT_BINARY_MUL, r);
}

static void quantize(const float *in, float scale, size_t count, uint8_t *out, const tti_rounding *r) {
  const tti_rounding rounding = *r;
  size_t i = 0;
  for (; i + 4 * TTI_LANES <= count; i += 4 * TTI_LANES) {
    vf v[4];
    TTI_FOR (j, 4) v[j] = v_load(in + i + j * TTI_LANES) / v_set(scale);
    store_vectors(4, out + i, v, &rounding, TTI_LANES);
  }
  for (; i < count; i += TTI_LANES)
    store_rounded(out + i, v_load_part(in + i, count - i) / v_set(scale), &rounding, count - i);
}

static void dequantize(const uint8_t *in, uint8_t zero, float scale, size_t count, float *out) {
  for (size_t i = 0; i < count; i += TTI_LANES) {
    const vi centred = load_bytes(in + i, count - i) - zero;
    v_store_part(out + i, __builtin_convertvector(centred, vf) * scale, count - i);
  }
}

enum { MOST_ACCUMULATORS = 4 };

TTI_INLINE void accumulate_vectors(const int vectors, int keep, float scale, const float *a, size_t pixels, float *out,
                                   size_t count, size_t i) {
  const size_t left = vectors > 1 ? TTI_LANES : count - i;
  vf acc[MOST_ACCUMULATORS];
  TTI_FOR (v, vectors)
    acc[v] = keep ? v_load_part(out + i + v * TTI_LANES, left) : v_load_part(a + i + v * TTI_LANES, left) * scale;
  for (size_t x = !keep; x < pixels; x++) {
    const float *from = a + x * count + i;
    TTI_FOR (v, vectors) acc[v] = acc[v] + v_load_part(from + v * TTI_LANES, left) * scale;
  }
  TTI_FOR (v, vectors) v_store_part(out + i + v * TTI_LANES, acc[v], left);
}

/* The sums of several vectors of channels stay in registers. */
static void accumulate(int keep, float scale, const float *a, size_t pixels, float *out, size_t count) {
  size_t i = 0;
  for (; i + MOST_ACCUMULATORS * TTI_LANES <= count; i += MOST_ACCUMULATORS * TTI_LANES)
    accumulate_vectors(MOST_ACCUMULATORS, keep, scale, a, pixels, out, count, i);
  for (; i + 2 * TTI_LANES <= count; i += 2 * TTI_LANES) accumulate_vectors(2, keep, scale, a, pixels, out, count, i);
  for (; i < count; i += TTI_LANES) accumulate_vectors(1, keep, scale, a, pixels, out, count, i);
}

/* ---- lookup */

#if TTI_CODE == TTI_CODE_avx512 && TTI_DOT
/* One permutation finds a byte among 128, and the index's highest bit says which permutation's. */
static void lookup(const uint8_t *table, const uint8_t *in, size_t count, uint8_t *out) {
  vx bytes[4];
  __builtin_memcpy(bytes, table, sizeof bytes);
  for (size_t i = 0; i < count; i += 64) {
    const __mmask64 some = count - i >= 64 ? ~(__mmask64)0 : ((__mmask64)1 << (count - i)) - 1;
    const vx x = _mm512_maskz_loadu_epi8(some, in + i);
    const vx low = _mm512_permutex2var_epi8(bytes[0], x, bytes[1]);
    const vx high = _mm512_permutex2var_epi8(bytes[2], x, bytes[3]);
    _mm512_mask_storeu_epi8(out + i, some, _mm512_mask_mov_epi8(low, _mm512_movepi8_mask(x), high));
  }
}
#elif TTI_CODE == TTI_CODE_avx512
/* The table as 128 words in four registers: one permutation finds a word among 64, and the index's highest and lowest
 * bits say which permutation's, and which byte of it. */
static void lookup(const uint8_t *table, const uint8_t *in, size_t count, uint8_t *out) {
  vx words[4];
  __builtin_memcpy(words, table, sizeof words);
  for (size_t i = 0; i < count; i += 32) {
    const __mmask32 some = (__mmask32)(count - i >= 32 ? ~0u : (1u << (count - i)) - 1);
    const vx x = _mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi8(some, in + i)), word = _mm512_srli_epi16(x, 1);
    const vx low = _mm512_permutex2var_epi16(words[0], word, words[1]);
    const vx high = _mm512_permutex2var_epi16(words[2], word, words[3]);
    const vx found = _mm512_mask_mov_epi16(low, _mm512_test_epi16_mask(x, _mm512_set1_epi16(0x80)), high);
    const vx odd = _mm512_slli_epi16(_mm512_and_si512(x, _mm512_set1_epi16(1)), 3);
    _mm512_mask_cvtepi16_storeu_epi8(out + i, some, _mm512_srlv_epi16(found, odd));
  }
}
#else
#if TTI_CODE == TTI_CODE_neon
enum { LOOKUP = 16 };
TTI_INLINE void lookup_span(const uint8_t *table, const uint8_t *in, uint8_t *out) {
  const uint8x16_t x = vld1q_u8(in), quarter = vdupq_n_u8(64);
  const uint8x16_t x1 = vsubq_u8(x, quarter), x2 = vsubq_u8(x1, quarter), x3 = vsubq_u8(x2, quarter);
  uint8x16_t y = vqtbl4q_u8(vld1q_u8_x4(table), x); /* 0 where the index is beyond 63 */
  y = vqtbx4q_u8(y, vld1q_u8_x4(table + 64), x1);
  y = vqtbx4q_u8(y, vld1q_u8_x4(table + 128), x2);
  vst1q_u8(out, vqtbx4q_u8(y, vld1q_u8_x4(table + 192), x3));
}
#elif defined(TTI_REGISTER)
enum { LOOKUP = 32 };
/* An index's lower half finds a byte in each sixteen of the table, and the bits of its higher half choose among these,
 * in pairs: a choice goes by a byte's highest bit. */
TTI_INLINE void lookup_span(const uint8_t *table, const uint8_t *in, uint8_t *out) {
  const vx x = load_x(in), low = TTI_SI512(and)(x, TTI_X(set1_epi8)(0x0F));
  vx y[16];
  TTI_FOR (j, 16) {
    __m128i part;
    __builtin_memcpy(&part, table + 16 * j, sizeof part);
    y[j] = TTI_X(shuffle_epi8)(_mm256_broadcastsi128_si256(part), low);
  }
  TTI_FOR (j, 8) y[j] = _mm256_blendv_epi8(y[2 * j], y[2 * j + 1], TTI_X(slli_epi16)(x, 3));
  TTI_FOR (j, 4) y[j] = _mm256_blendv_epi8(y[2 * j], y[2 * j + 1], TTI_X(slli_epi16)(x, 2));
  TTI_FOR (j, 2) y[j] = _mm256_blendv_epi8(y[2 * j], y[2 * j + 1], TTI_X(slli_epi16)(x, 1));
  y[0] = _mm256_blendv_epi8(y[0], y[1], x);
  __builtin_memcpy(out, y, sizeof *y);
}
#else
enum { LOOKUP = 16 };
/* By vectors: of a choice between two bytes compilers make branches. */
TTI_INLINE void lookup_span(const uint8_t *table, const uint8_t *in, uint8_t *out) {
  typedef uint8_t v16b __attribute__((vector_size(LOOKUP)));
  v16b x, y = {0};
  __builtin_memcpy(&x, in, sizeof x);
  for (unsigned t = 0; t < 256; t++) y |= (v16b)(x == (uint8_t)t) & table[t];
  __builtin_memcpy(out, &y, sizeof y);
}
#endif

static void lookup(const uint8_t *table, const uint8_t *in, size_t count, uint8_t *out) {
  for (; count >= LOOKUP; count -= LOOKUP, in += LOOKUP, out += LOOKUP) lookup_span(table, in, out);
  if (!count) return;
  uint8_t part[LOOKUP] = {0};
  for (size_t i = 0; i < count; i++) part[i] = in[i];
  lookup_span(table, part, part);
  for (size_t i = 0; i < count; i++) out[i] = part[i];
}
#endif

extern const tti_i8_kernels TTI_JOIN(tti_i8_, TTI_ISA);
const tti_i8_kernels TTI_JOIN(tti_i8_, TTI_ISA) = {conv_row, depthwise_row, max_pixels, sum_pixels, round_sums, average,
                                                   binary,   quantize,      dequantize, lookup,     accumulate};
