/* How the thread that asks for it computes with floats while a network runs: rounded to nearest and without traps,
 * whatever its caller has set, and with subnormal numbers as zeros, of arguments and of results. Some processors,
 * Intel's among them, take a hundred cycles more where one occurs, so that the time of a run would tell of values
 * (Andrysco et al., On Subnormal Floating Point and Abnormal Timing, S&P 2015). Less than 2^-126 is less than any
 * tolerance of a network. */
#ifndef TTP_FLOAT_MODE_H
#define TTP_FLOAT_MODE_H
#include <stdint.h>

#if defined(__x86_64__)
/* MXCSR: FTZ, bit 15; no exception traps, bits 7 to 12; DAZ, bit 6; flags, bits 0 to 5, which Intel asks to have set
 * for times that do not depend on data. */
enum { TTP_FLOAT_MODE = 0x9FFF };
static inline uint64_t ttp_float_mode(void) { return __builtin_ia32_stmxcsr(); }
static inline void ttp_set_float_mode(uint64_t mode) { __builtin_ia32_ldmxcsr((unsigned)mode); }
#elif defined(__aarch64__)
/* FPCR: FZ, bit 24. Conversions of float16, which FZ16 would change, stay as they are. */
enum { TTP_FLOAT_MODE = 1 << 24 };
static inline uint64_t ttp_float_mode(void) {
  uint64_t mode;
  __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
  return mode;
}
static inline void ttp_set_float_mode(uint64_t mode) { __asm__ volatile("msr fpcr, %0" : : "r"(mode) : "memory"); }
#else
#error how this processor takes subnormal floats for zeros
#endif
#endif
