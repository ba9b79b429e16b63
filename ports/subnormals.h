/* Subnormal floats as zeros, of arguments and of results, on the thread that asks for it. Some processors, Intel's
 * among them, take a hundred cycles more where one occurs, so that the time of a run would tell of values (Andrysco et
 * al., On Subnormal Floating Point and Abnormal Timing, S&P 2015). Less than 2^-126 is less than any tolerance of a
 * network. */
#ifndef TTP_SUBNORMALS_H
#define TTP_SUBNORMALS_H
#include <stdint.h>

#if defined(__x86_64__)
/* MXCSR: FTZ, bit 15, and DAZ, bit 6; flags, bits 0 to 5, which Intel asks to have set for times that do not depend on
 * data. Returns what was there before, for ttp_float_mode. */
static inline uint64_t ttp_flush_subnormals(void) {
  const unsigned before = __builtin_ia32_stmxcsr();
  __builtin_ia32_ldmxcsr(before | 0x807F);
  return before;
}
static inline void ttp_float_mode(uint64_t mode) { __builtin_ia32_ldmxcsr((unsigned)mode); }
#elif defined(__aarch64__)
/* FPCR: FZ, bit 24. Conversions of float16, which FZ16 would change, stay as they are. */
static inline void ttp_float_mode(uint64_t mode) { __asm__ volatile("msr fpcr, %0" : : "r"(mode) : "memory"); }
static inline uint64_t ttp_flush_subnormals(void) {
  uint64_t before;
  __asm__ volatile("mrs %0, fpcr" : "=r"(before));
  ttp_float_mode(before | UINT64_C(1) << 24);
  return before;
}
#else
#error how this processor takes subnormal floats for zeros
#endif
#endif
