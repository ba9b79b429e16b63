/* Vectors of TTI_LANES floats in GCC's vector extensions, and elementary functions over them without branches.
 *
 * Accuracy: exp, log, tanh, sigmoid, softplus to about 2e-7 of the result, erf to 2e-7.
 * NaN and infinities pass through as IEEE 754 says. Range reductions after Cody and Waite; exp and log polynomials are
 * Taylor expansions on the reduced range, erf is Abramowitz and Stegun 7.1.26 beyond 0.5 and its series below.
 */
#ifndef TTI_VECTOR_H
#define TTI_VECTOR_H
#include <stddef.h>
#include <stdint.h>
#if TTI_CODE == TTI_CODE_avx512 || TTI_CODE == TTI_CODE_avx2
#include <immintrin.h>
#elif TTI_CODE == TTI_CODE_neon
#include <arm_neon.h>
#endif

typedef float vf __attribute__((vector_size(4 * TTI_LANES)));
typedef int32_t vi __attribute__((vector_size(4 * TTI_LANES)));

/* Elements of two vectors of a type by constant places; GCC has had this one, which others have, since version 12. */
#if __has_builtin(__builtin_shufflevector)
#define TTI_SHUFFLE(TYPE, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define TTI_SHUFFLE(TYPE, a, b, ...) __builtin_shuffle(a, b, (TYPE){__VA_ARGS__})
#endif

#define TTI_INLINE static inline __attribute__((always_inline))

TTI_INLINE vf v_load(const float *p) {
  vf v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
TTI_INLINE void v_store(float *p, vf v) { __builtin_memcpy(p, &v, sizeof v); }
/* x - 0 is x for every x, which the compiler knows: a plain broadcast. */
TTI_INLINE vf v_set(float x) { return x - (vf){0}; }
TTI_INLINE vf v_bits(vi i) { return (vf)i; }
TTI_INLINE vf v_select(vi mask, vf yes, vf no) { return (vf)((mask & (vi)yes) | (~mask & (vi)no)); }
TTI_INLINE vf v_abs(vf x) { return (vf)((vi)x & 0x7FFFFFFF); }
TTI_INLINE vf v_copysign(vf magnitude, vf sign) {
  return (vf)(((vi)magnitude & 0x7FFFFFFF) | ((vi)sign & (int32_t)0x80000000));
}
/* A NaN in x stays; the bound never wins over it. (x86's maximum returns its second operand if either is NaN.) */
#if TTI_CODE == TTI_CODE_avx512
TTI_INLINE vf v_at_least(vf x, vf low) { return (vf)_mm512_max_ps((__m512)low, (__m512)x); }
TTI_INLINE vf v_at_most(vf x, vf high) { return (vf)_mm512_min_ps((__m512)high, (__m512)x); }
#elif TTI_CODE == TTI_CODE_avx2
TTI_INLINE vf v_at_least(vf x, vf low) { return (vf)_mm256_max_ps((__m256)low, (__m256)x); }
TTI_INLINE vf v_at_most(vf x, vf high) { return (vf)_mm256_min_ps((__m256)high, (__m256)x); }
#elif TTI_CODE == TTI_CODE_neon
TTI_INLINE vf v_at_least(vf x, vf low) { return (vf)vmaxq_f32((float32x4_t)low, (float32x4_t)x); }
TTI_INLINE vf v_at_most(vf x, vf high) { return (vf)vminq_f32((float32x4_t)high, (float32x4_t)x); }
#else
TTI_INLINE vf v_at_least(vf x, vf low) { return v_select(x < low, low, x); }
TTI_INLINE vf v_at_most(vf x, vf high) { return v_select(x > high, high, x); }
#endif

/* Loads or stores the first 'count' elements of a vector, all of them if there are more; what is not loaded is 0. */
#if TTI_CODE == TTI_CODE_avx512
TTI_INLINE __mmask16 v_mask(size_t count) { return (__mmask16)(count >= TTI_LANES ? 0xFFFF : (1u << count) - 1); }
TTI_INLINE vf v_load_part(const float *in, size_t count) { return (vf)_mm512_maskz_loadu_ps(v_mask(count), in); }
TTI_INLINE void v_store_part(float *out, vf v, size_t count) { _mm512_mask_storeu_ps(out, v_mask(count), (__m512)v); }
#else
TTI_INLINE vf v_load_part(const float *in, size_t count) {
  if (count >= TTI_LANES) return v_load(in);
  float part[TTI_LANES] = {0};
  for (size_t i = 0; i < count; i++) part[i] = in[i];
  return v_load(part);
}
TTI_INLINE void v_store_part(float *out, vf v, size_t count) {
  if (count >= TTI_LANES) {
    v_store(out, v);
    return;
  }
  float part[TTI_LANES];
  v_store(part, v);
  for (size_t i = 0; i < count; i++) out[i] = part[i];
}
#endif

TTI_INLINE vf v_clamp(vf x, float low, float high) { return v_at_most(v_at_least(x, v_set(low)), v_set(high)); }

TTI_INLINE vf v_sqrt(vf x) {
  for (int i = 0; i < TTI_LANES; i++) x[i] = __builtin_sqrtf(x[i]);
  return x;
}

/* Round to nearest, ties to even; exact for every float. */
TTI_INLINE vf v_round(vf x) {
  const vf magic = v_set(8388608.0f); /* 2^23 */
  vf a = v_abs(x);
  vf r = (a + magic) - magic;
  return v_copysign(v_select(a < magic, r, a), x) + v_select(x == x, v_set(0.0f), x);
}
TTI_INLINE vf v_floor(vf x) {
  vf r = v_round(x);
  return v_copysign(r - v_select(r > x, v_set(1.0f), v_set(0.0f)), x);
}
TTI_INLINE vf v_ceil(vf x) {
  vf r = v_round(x);
  return v_copysign(r + v_select(r < x, v_set(1.0f), v_set(0.0f)), x);
}
TTI_INLINE vf v_trunc(vf x) { return v_copysign(v_floor(v_abs(x)), x); }

/* exp(x) 2^-n, where n is x / log 2 rounded to an integer, for |x| <= 104. */
TTI_INLINE vf v_exp_parts(vf x, vi *n) {
  const vf magic = v_set(12582912.0f); /* 1.5 * 2^23: the last bits of a sum are its integer */
  const vf t = x * 1.44269504088896341f + magic;
  const vf whole = t - magic;
  const vf r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
  vf p = v_set(1.9841270e-4f);
  p = p * r + 1.3888889e-3f;
  p = p * r + 8.3333333e-3f;
  p = p * r + 4.1666667e-2f;
  p = p * r + 1.6666667e-1f;
  p = p * r + 5.0e-1f;
  *n = (vi)t - (vi)magic;
  return p * (r * r) + r + 1.0f;
}

/* 2^n for n in -126 .. 127; infinite for 128. */
TTI_INLINE vf v_exp2i(vi n) { return v_bits((n + 127) << 23); }

TTI_INLINE vf v_exp(vf x) {
  vi n;
  const vf p = v_exp_parts(v_clamp(x, -104.0f, 89.0f), &n);
  const vi half = n >> 1; /* in two steps, so that the least results are denormal */
  return p * v_exp2i(half) * v_exp2i(n - half);
}

/* exp(x) for x up to 88, infinite or nearly beyond, not below exp(-87): for terms beside 1. */
TTI_INLINE vf v_exp_term(vf x) {
  vi n;
  const vf p = v_exp_parts(v_clamp(x, -87.0f, 89.0f), &n);
  return p * v_exp2i(n);
}

TTI_INLINE vf v_log(vf x) {
  vi tiny = x < 1.17549435e-38f;
  vf s = v_select(tiny, x * 8388608.0f, x);
  vi bits = (vi)s;
  vf e = __builtin_convertvector(((bits >> 23) & 0xFF) - 127, vf) - v_select(tiny, v_set(23.0f), v_set(0.0f));
  vf m = v_bits((bits & 0x007FFFFF) | 0x3F800000);
  vi high = m > 1.41421356f;
  m = v_select(high, m * 0.5f, m);
  e = e + v_select(high, v_set(1.0f), v_set(0.0f));
  /* log m = 2 atanh((m - 1) / (m + 1)), |quotient| <= 0.172 */
  vf z = (m - 1.0f) / (m + 1.0f);
  vf z2 = z * z;
  vf p = v_set(0.222222222f);
  p = p * z2 + 0.285714286f;
  p = p * z2 + 0.4f;
  p = p * z2 + 0.666666667f;
  vf y = e * 0.693359375f + (z * 2.0f + (z * z2 * p + e * -2.12194440e-4f));
  const vf infinity = v_bits((vi){0} + 0x7F800000);
  y = v_select(x == infinity, infinity, y);
  y = v_select(x == 0.0f, -infinity, y);
  y = v_select(x < 0.0f, infinity - infinity, y);
  return v_select(x == x, y, x);
}

TTI_INLINE vf v_sigmoid(vf x) { return 1.0f / (1.0f + v_exp_term(-x)); }

TTI_INLINE vf v_tanh(vf x) {
  vf a = v_abs(x);
  vf big = 1.0f - 2.0f / (v_exp_term(a * 2.0f) + 1.0f);
  vf x2 = x * x;
  vf p = v_set(-8.8632356e-3f);
  p = p * x2 + 2.1869488e-2f;
  p = p * x2 - 5.3968254e-2f;
  p = p * x2 + 1.3333333e-1f;
  p = p * x2 - 3.3333333e-1f;
  return v_select(a < 0.4f, x + x * x2 * p, v_copysign(big, x));
}

TTI_INLINE vf v_erf(vf x) {
  vf a = v_abs(x);
  vf t = 1.0f / (1.0f + 0.3275911f * a);
  vf p = v_set(1.061405429f);
  p = p * t - 1.453152027f;
  p = p * t + 1.421413741f;
  p = p * t - 0.284496736f;
  p = p * t + 0.254829592f;
  vf big = 1.0f - p * t * v_exp_term(-a * a);
  vf x2 = x * x;
  vf q = v_set(-8.5483270e-4f);
  q = q * x2 + 5.2239776e-3f;
  q = q * x2 - 2.6866171e-2f;
  q = q * x2 + 1.1283792e-1f;
  q = q * x2 - 3.7612639e-1f;
  q = q * x2 + 1.1283792f;
  return v_select(a < 0.5f, x * q, v_copysign(big, x));
}

/* log(1 + exp(x)): with e the smaller of exp(x) and exp(-x), log(1 + e) = 2 atanh(e / (2 + e)). */
TTI_INLINE vf v_softplus(vf x) {
  const vf e = v_exp_term(-v_abs(x)), z = e / (2.0f + e), z2 = z * z;
  vf p = v_set(0.133333333f);
  p = p * z2 + 0.153846154f;
  p = p * z2 + 0.181818182f;
  p = p * z2 + 0.222222222f;
  p = p * z2 + 0.285714286f;
  p = p * z2 + 0.4f;
  p = p * z2 + 0.666666667f;
  return v_at_least(x, v_set(0.0f)) + (z * 2.0f + z * z2 * p);
}

/* x tanh(log(1 + exp(x))), where the tangent is w / (w + 2) with w = exp(x) (exp(x) + 2). */
TTI_INLINE vf v_mish(vf x) {
  const vf e = v_exp_term(v_at_most(x, v_set(20.0f))), w = e * (e + 2.0f);
  return x * (w / (w + 2.0f));
}

/* exp(x) - 1 */
TTI_INLINE vf v_expm1(vf x) {
  vf p = v_set(1.3888889e-3f);
  p = p * x + 8.3333333e-3f;
  p = p * x + 4.1666667e-2f;
  p = p * x + 1.6666667e-1f;
  p = p * x + 0.5f;
  return v_select(v_abs(x) < 0.25f, x + x * x * p, v_exp_term(x) - 1.0f);
}

/* base ** power, signs and zeros as C's powf for the finite cases that networks have. */
TTI_INLINE vf v_pow(vf base, vf power) {
  vf y = v_exp(power * v_log(v_abs(base)));
  vi integer = v_round(power) == power;
  vf half = power * 0.5f;
  vi odd = integer & (v_round(half) != half);
  y = v_select(odd & (base < 0.0f), -y, y);
  const vf nan = v_bits((vi){0} + 0x7FC00000);
  y = v_select((base < 0.0f) & ~integer, nan, y);
  y = v_select(power == 2.0f, base * base, y);
  y = v_select(power == 1.0f, base, y);
  return v_select((power == 0.0f) | (base == 1.0f), v_set(1.0f), y);
}
#endif
