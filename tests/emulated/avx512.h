/* What the kernels use of AVX-512, in terms of AVX2 and plain C: included before them, it lets processors without
 * AVX-512 run what is compiled for it. Vectors of 64 bytes are the compiler's, which divides them. Lanes of 128 bits
 * and two halves of 256 are the same in both sets, so that most operations are AVX2's on each half. Semantics after
 * Intel's Intrinsics Guide. */
#ifndef AVX512_H
#define AVX512_H
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define EMULATED static __attribute__((noinline, unused)) /* inlined, they take minutes to compile */

typedef union emulated_vector {
  __m512i whole;
  __m512 floats;
  __m256i half[2];
  __m128i quarter[4];
  uint8_t bytes[64];
  uint16_t words[32];
  uint32_t quads[16];
} emulated_vector;

#define EMULATED_ON_TWO(NAME)                                                                                          \
  EMULATED __m512i emulated_##NAME(__m512i a, __m512i b) {                                                             \
    const emulated_vector x = {a}, y = {b};                                                                            \
    emulated_vector out;                                                                                               \
    for (int i = 0; i < 2; i++) out.half[i] = _mm256_##NAME(x.half[i], y.half[i]);                                     \
    return out.whole;                                                                                                  \
  }
#define EMULATED_BY_COUNT(NAME)                                                                                        \
  EMULATED __m512i emulated_##NAME(__m512i a, unsigned count) {                                                        \
    const emulated_vector x = {a};                                                                                     \
    emulated_vector out;                                                                                               \
    for (int i = 0; i < 2; i++) out.half[i] = _mm256_##NAME(x.half[i], (int)count);                                    \
    return out.whole;                                                                                                  \
  }
#define EMULATED_ON_FLOATS(NAME)                                                                                       \
  EMULATED __m512 emulated_##NAME(__m512 a, __m512 b) {                                                                \
    const emulated_vector x = {(__m512i)a}, y = {(__m512i)b};                                                          \
    emulated_vector out;                                                                                               \
    for (int i = 0; i < 2; i++) out.half[i] = (__m256i)_mm256_##NAME((__m256)x.half[i], (__m256)y.half[i]);            \
    return out.floats;                                                                                                 \
  }
EMULATED_ON_TWO(add_epi16)
EMULATED_ON_TWO(adds_epu8)
EMULATED_ON_TWO(madd_epi16)
EMULATED_ON_TWO(max_epu8)
EMULATED_ON_TWO(packs_epi32)
EMULATED_ON_TWO(packus_epi16)
EMULATED_ON_TWO(shuffle_epi8)
EMULATED_ON_TWO(unpackhi_epi16)
EMULATED_ON_TWO(unpackhi_epi8)
EMULATED_ON_TWO(unpacklo_epi16)
EMULATED_ON_TWO(unpacklo_epi8)
EMULATED_BY_COUNT(slli_epi16)
EMULATED_BY_COUNT(srai_epi16)
EMULATED_BY_COUNT(srli_epi16)
EMULATED_ON_FLOATS(max_ps)
EMULATED_ON_FLOATS(min_ps)

EMULATED __m512i emulated_set1_epi8(char a) {
  emulated_vector out;
  memset(out.bytes, a, sizeof out.bytes);
  return out.whole;
}
EMULATED __m512i emulated_set1_epi16(short a) {
  const emulated_vector out = {.half = {_mm256_set1_epi16(a), _mm256_set1_epi16(a)}};
  return out.whole;
}
EMULATED __m512i emulated_set1_epi32(int a) {
  const emulated_vector out = {.half = {_mm256_set1_epi32(a), _mm256_set1_epi32(a)}};
  return out.whole;
}
EMULATED __m512i emulated_cvtps_epi32(__m512 a) {
  const emulated_vector x = {(__m512i)a};
  const emulated_vector out = {.half = {_mm256_cvtps_epi32((__m256)x.half[0]), _mm256_cvtps_epi32((__m256)x.half[1])}};
  return out.whole;
}
EMULATED __m512 emulated_fmadd_ps(__m512 a, __m512 b, __m512 c) {
  const emulated_vector x = {(__m512i)a}, y = {(__m512i)b}, z = {(__m512i)c};
  emulated_vector out;
  for (int i = 0; i < 2; i++)
    out.half[i] = (__m256i)_mm256_fmadd_ps((__m256)x.half[i], (__m256)y.half[i], (__m256)z.half[i]);
  return out.floats;
}

/* Each four bytes' products, unsigned by signed, are added to a sum, which does not saturate. */
EMULATED __m512i emulated_dpbusd_epi32(__m512i sum, __m512i a, __m512i b) {
  const emulated_vector x = {a}, y = {b};
  emulated_vector out = {sum};
  for (int i = 0; i < 64; i++) out.quads[i / 4] += (uint32_t)(x.bytes[i] * (int8_t)y.bytes[i]);
  return out.whole;
}

/* Quarters of a by the two lower numbers, of b by the two higher ones. */
EMULATED __m512i emulated_shuffle_quarters(__m512i a, __m512i b, unsigned by) {
  const emulated_vector x = {a}, y = {b};
  const emulated_vector out = {
      .quarter = {x.quarter[by & 3], x.quarter[by >> 2 & 3], y.quarter[by >> 4 & 3], y.quarter[by >> 6 & 3]}};
  return out.whole;
}
EMULATED __m512i emulated_permutex2var_epi16(__m512i a, __m512i at, __m512i b) {
  const emulated_vector x = {a}, y = {b}, by = {at};
  emulated_vector out;
  for (int i = 0; i < 32; i++) out.words[i] = (by.words[i] & 32 ? y : x).words[by.words[i] & 31];
  return out.whole;
}
EMULATED __m512i emulated_permutex2var_epi8(__m512i a, __m512i at, __m512i b) {
  const emulated_vector x = {a}, y = {b}, by = {at};
  emulated_vector out;
  for (int i = 0; i < 64; i++) out.bytes[i] = (by.bytes[i] & 64 ? y : x).bytes[by.bytes[i] & 63];
  return out.whole;
}
EMULATED __m512i emulated_srlv_epi16(__m512i a, __m512i by) {
  const emulated_vector x = {a}, y = {by};
  emulated_vector out;
  for (int i = 0; i < 32; i++) out.words[i] = y.words[i] > 15 ? 0 : (uint16_t)(x.words[i] >> y.words[i]);
  return out.whole;
}
EMULATED __mmask32 emulated_test_epi16_mask(__m512i a, __m512i b) {
  const emulated_vector x = {a}, y = {b};
  __mmask32 found = 0;
  for (int i = 0; i < 32; i++) found |= (__mmask32)((x.words[i] & y.words[i]) != 0) << i;
  return found;
}
EMULATED __mmask64 emulated_movepi8_mask(__m512i a) {
  const emulated_vector x = {a};
  __mmask64 found = 0;
  for (int i = 0; i < 64; i++) found |= (__mmask64)(x.bytes[i] >> 7) << i;
  return found;
}
EMULATED __m512i emulated_mask_mov_epi8(__m512i otherwise, __mmask64 mask, __m512i a) {
  const emulated_vector x = {a};
  emulated_vector out = {otherwise};
  for (int i = 0; i < 64; i++)
    if (mask >> i & 1) out.bytes[i] = x.bytes[i];
  return out.whole;
}
EMULATED __m512i emulated_mask_mov_epi16(__m512i otherwise, __mmask32 mask, __m512i a) {
  const emulated_vector x = {a};
  emulated_vector out = {otherwise};
  for (int i = 0; i < 32; i++)
    if (mask >> i & 1) out.words[i] = x.words[i];
  return out.whole;
}

/* Masked accesses touch nothing but what the mask names. */
EMULATED void emulated_load(void *to, const void *from, uint64_t mask, int elements, size_t size) {
  memset(to, 0, (size_t)elements * size);
  for (int i = 0; i < elements; i++)
    if (mask >> i & 1) memcpy((char *)to + (size_t)i * size, (const char *)from + (size_t)i * size, size);
}
EMULATED void emulated_store(void *to, const void *from, uint64_t mask, int elements, size_t size) {
  for (int i = 0; i < elements; i++)
    if (mask >> i & 1) memcpy((char *)to + (size_t)i * size, (const char *)from + (size_t)i * size, size);
}
EMULATED __m512i emulated_maskz_loadu_epi8(uint64_t mask, const void *from) {
  emulated_vector out;
  emulated_load(&out, from, mask, 64, 1);
  return out.whole;
}
EMULATED __m128i emulated_128_maskz_loadu_epi8(__mmask16 mask, const void *from) {
  __m128i out;
  emulated_load(&out, from, mask, 16, 1);
  return out;
}
EMULATED __m256i emulated_256_maskz_loadu_epi8(__mmask32 mask, const void *from) {
  __m256i out;
  emulated_load(&out, from, mask, 32, 1);
  return out;
}
EMULATED __m512 emulated_maskz_loadu_ps(__mmask16 mask, const void *from) {
  emulated_vector out;
  emulated_load(&out, from, mask, 16, 4);
  return out.floats;
}
EMULATED void emulated_mask_storeu_epi8(void *to, uint64_t mask, __m512i a) { emulated_store(to, &a, mask, 64, 1); }
EMULATED void emulated_mask_storeu_ps(void *to, __mmask16 mask, __m512 a) { emulated_store(to, &a, mask, 16, 4); }
EMULATED void emulated_mask_cvtepi32_storeu_epi8(void *to, __mmask16 mask, __m512i a) {
  const emulated_vector x = {a};
  uint8_t low[16];
  for (int i = 0; i < 16; i++) low[i] = (uint8_t)x.quads[i];
  emulated_store(to, low, mask, 16, 1);
}
EMULATED void emulated_mask_cvtepi16_storeu_epi8(void *to, __mmask32 mask, __m512i a) {
  const emulated_vector x = {a};
  uint8_t low[32];
  for (int i = 0; i < 32; i++) low[i] = (uint8_t)x.words[i];
  emulated_store(to, low, mask, 32, 1);
}
EMULATED __m512i emulated_cvtepu8_epi32(__m128i a) {
  const emulated_vector x = {.quarter = {a}};
  emulated_vector out;
  for (int i = 0; i < 16; i++) out.quads[i] = x.bytes[i];
  return out.whole;
}
EMULATED __m512i emulated_cvtepu8_epi16(__m256i a) {
  const emulated_vector x = {.half = {a}};
  emulated_vector out;
  for (int i = 0; i < 32; i++) out.words[i] = x.bytes[i];
  return out.whole;
}
EMULATED __m512i emulated_loadu_si512(const void *from) {
  __m512i out;
  memcpy(&out, from, sizeof out);
  return out;
}
EMULATED __m128i emulated_castsi512_si128(__m512i a) {
  const emulated_vector x = {a};
  return x.quarter[0];
}
EMULATED __m256i emulated_castsi512_si256(__m512i a) {
  const emulated_vector x = {a};
  return x.half[0];
}
EMULATED __m256i emulated_extracti64x4_epi64(__m512i a, int which) {
  const emulated_vector x = {a};
  return x.half[which];
}
EMULATED __m512i emulated_castsi128_si512(__m128i a) {
  const emulated_vector out = {.quarter = {a}};
  return out.whole;
}

#define _mm512_add_epi16 emulated_add_epi16
#define _mm512_adds_epu8 emulated_adds_epu8
#define _mm512_and_si512(a, b) ((__m512i)((a) & (b)))
#define _mm512_castsi128_si512 emulated_castsi128_si512
#define _mm512_castsi512_si128 emulated_castsi512_si128
#define _mm512_castsi512_si256 emulated_castsi512_si256
#define _mm512_cvtepu8_epi16 emulated_cvtepu8_epi16
#define _mm512_cvtepu8_epi32 emulated_cvtepu8_epi32
#define _mm512_cvtps_epi32 emulated_cvtps_epi32
#define _mm512_dpbusd_epi32 emulated_dpbusd_epi32
#undef _mm512_extracti64x4_epi64
#define _mm512_extracti64x4_epi64 emulated_extracti64x4_epi64
#define _mm512_fmadd_ps emulated_fmadd_ps
#define _mm512_loadu_si512 emulated_loadu_si512
#define _mm512_madd_epi16 emulated_madd_epi16
#define _mm512_mask_cvtepi16_storeu_epi8 emulated_mask_cvtepi16_storeu_epi8
#define _mm512_mask_cvtepi32_storeu_epi8 emulated_mask_cvtepi32_storeu_epi8
#define _mm512_mask_mov_epi16 emulated_mask_mov_epi16
#define _mm512_mask_mov_epi8 emulated_mask_mov_epi8
#define _mm512_mask_storeu_epi8 emulated_mask_storeu_epi8
#define _mm512_mask_storeu_ps emulated_mask_storeu_ps
#define _mm512_maskz_loadu_epi8 emulated_maskz_loadu_epi8
#define _mm512_maskz_loadu_ps emulated_maskz_loadu_ps
#define _mm512_max_epu8 emulated_max_epu8
#undef _mm512_max_ps
#define _mm512_max_ps emulated_max_ps
#undef _mm512_min_ps
#define _mm512_min_ps emulated_min_ps
#define _mm512_movepi8_mask emulated_movepi8_mask
#define _mm512_packs_epi32 emulated_packs_epi32
#define _mm512_packus_epi16 emulated_packus_epi16
#define _mm512_permutex2var_epi16 emulated_permutex2var_epi16
#define _mm512_permutex2var_epi8 emulated_permutex2var_epi8
#define _mm512_set1_epi16 emulated_set1_epi16
#define _mm512_set1_epi32 emulated_set1_epi32
#define _mm512_set1_epi8 emulated_set1_epi8
#define _mm512_shuffle_epi8 emulated_shuffle_epi8
#undef _mm512_shuffle_i32x4
#define _mm512_shuffle_i32x4 emulated_shuffle_quarters
#undef _mm512_shuffle_i64x2
#define _mm512_shuffle_i64x2 emulated_shuffle_quarters
#undef _mm512_slli_epi16
#define _mm512_slli_epi16 emulated_slli_epi16
#undef _mm512_srai_epi16
#define _mm512_srai_epi16 emulated_srai_epi16
#undef _mm512_srli_epi16
#define _mm512_srli_epi16 emulated_srli_epi16
#define _mm512_srlv_epi16 emulated_srlv_epi16
#define _mm512_test_epi16_mask emulated_test_epi16_mask
#define _mm512_unpackhi_epi16 emulated_unpackhi_epi16
#define _mm512_unpackhi_epi8 emulated_unpackhi_epi8
#define _mm512_unpacklo_epi16 emulated_unpacklo_epi16
#define _mm512_unpacklo_epi8 emulated_unpacklo_epi8
#define _mm512_xor_si512(a, b) ((__m512i)((a) ^ (b)))
#define _mm_maskz_loadu_epi8 emulated_128_maskz_loadu_epi8
#define _mm256_maskz_loadu_epi8 emulated_256_maskz_loadu_epi8

#endif
