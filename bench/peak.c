/* What one core of this machine can do at most: multiply-accumulates in registers, reading memory, copying in the
 * cache. Compiled for the machine at hand; best of several rounds. Parsed by Python (with cffi): prototypes only. */
#include "peak.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#if defined(__AVX512F__)
enum { LANES = 16 };
#elif defined(__AVX__)
enum { LANES = 8 };
#else
enum { LANES = 4 };
#endif
enum { ROUNDS = 15 };

#if defined(__aarch64__)
#define KEEP_IN_REGISTER "+w"
#else
#define KEEP_IN_REGISTER "+v"
#endif

/* Independent chains of multiply-accumulates, each in a register of its own: enough to hide their latency. */
#define FOR_EACH_CHAIN(DO) DO(a) DO(b) DO(c) DO(d) DO(e) DO(f) DO(g) DO(h) DO(i) DO(j) DO(k) DO(l)
enum { CHAINS = 12, LINE_BYTES = 64 };

typedef float vector __attribute__((vector_size(LANES * 4)));
typedef int32_t words __attribute__((vector_size(LANES * 4)));

static double now_seconds(void) {
  struct timespec now = {0};
  (void)clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static double least(double a, double b) { return a < b ? a : b; }

static double arithmetic_seconds(long count) {
  const vector zero = {0}, scale = zero + 0.999f, shift = zero + 0.001f;
#define DECLARE(chain) vector chain = shift;
#define STEP(chain)                                                                                                    \
  chain = chain * scale + shift;                                                                                       \
  __asm__ volatile("" : KEEP_IN_REGISTER(chain));
  FOR_EACH_CHAIN(DECLARE)
  const double begun = now_seconds();
  for (long step = 0; step < count; step++) {
    FOR_EACH_CHAIN(STEP)
  }
  return now_seconds() - begun;
}

double peak_flops(void) {
  const long count = 4000000;
  double best = 1e9;
  for (int round = 0; round < ROUNDS; round++) best = least(best, arithmetic_seconds(count));
  return 2.0 * CHAINS * LANES * (double)count / best;
}

/* The instructions that add most products of bytes to 32-bit sums without saturating, and how many to each. */
#if defined(__AVX512VNNI__)
enum { PRODUCTS = 4 };
#define DOT(chain) chain = (words)_mm512_dpbusd_epi32((__m512i)chain, (__m512i)ones, (__m512i)ones);
#elif defined(__AVX512BW__)
enum { PRODUCTS = 2 };
#define DOT(chain) chain += (words)_mm512_madd_epi16((__m512i)chain, (__m512i)ones);
#elif defined(__AVX2__)
enum { PRODUCTS = 2 };
#define DOT(chain) chain += (words)_mm256_madd_epi16((__m256i)chain, (__m256i)ones);
#elif defined(__aarch64__) && defined(__ARM_FEATURE_DOTPROD)
enum { PRODUCTS = 4 };
#define DOT(chain) chain = (words)vdotq_s32((int32x4_t)chain, (int8x16_t)ones, (int8x16_t)ones);
#elif defined(__aarch64__)
enum { PRODUCTS = 1 };
#define DOT(chain)                                                                                                     \
  chain = (words)vmlal_s16((int32x4_t)chain, vget_low_s16((int16x8_t)ones), vget_low_s16((int16x8_t)ones));
#else
enum { PRODUCTS = 1 };
#define DOT(chain) chain = chain * ones + ones;
#endif

double peak_dots(void) {
  const long count = 4000000;
  const words ones = (words){0} + 0x01010101;
  double best = 1e9;
  for (int round = 0; round < ROUNDS; round++) {
#define DECLARE_DOTS(chain) words chain = ones;
#define STEP_DOTS(chain) DOT(chain) __asm__ volatile("" : KEEP_IN_REGISTER(chain));
    FOR_EACH_CHAIN(DECLARE_DOTS)
    double begun = now_seconds();
    for (long step = 0; step < count; step++) {
      FOR_EACH_CHAIN(STEP_DOTS)
    }
    best = least(best, now_seconds() - begun);
  }
  return 2.0 * PRODUCTS * CHAINS * LANES * (double)count / best;
}

double peak_read(size_t bytes, long passes) {
  enum { AT_ONCE = 8 };
  const size_t count = bytes / sizeof(words);
  words *memory = aligned_alloc(LINE_BYTES, count * sizeof(words));
  if (memory == NULL) return 0;
  memset(memory, 1, count * sizeof(words));
  double best = 1e9;
  for (int round = 0; round < ROUNDS; round++) {
    words sums[AT_ONCE] = {{0}};
    double begun = now_seconds();
    for (long pass = 0; pass < passes; pass++) {
      for (size_t i = 0; i + AT_ONCE <= count; i += AT_ONCE) {
#pragma GCC unroll 8
        for (size_t k = 0; k < AT_ONCE; k++) sums[k] ^= memory[i + k];
      }
      __asm__ volatile("" : : : "memory");
    }
#pragma GCC unroll 8
    for (size_t k = 0; k < AT_ONCE; k++) __asm__ volatile("" : KEEP_IN_REGISTER(sums[k]));
    best = least(best, now_seconds() - begun);
  }
  free(memory);
  return (double)count * sizeof(words) * (double)passes / best;
}

double peak_copy(size_t bytes, long passes) {
  uint8_t *memory = aligned_alloc(LINE_BYTES, 2 * bytes);
  if (memory == NULL) return 0;
  memset(memory, 1, 2 * bytes);
  double best = 1e9;
  for (int round = 0; round < ROUNDS; round++) {
    double begun = now_seconds();
    for (long pass = 0; pass < passes; pass++) {
      memcpy(memory + bytes, memory, bytes);
      __asm__ volatile("" : : : "memory");
    }
    best = least(best, now_seconds() - begun);
  }
  free(memory);
  return 2.0 * (double)bytes * (double)passes / best;
}
