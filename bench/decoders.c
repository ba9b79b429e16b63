/* Times the decoders of coded weights, of one instruction set; see decoders.h. */
#define _POSIX_C_SOURCE 200809L
#include "decoders.h"

#include <time.h>

#include "kernels/isa.h"
#include "kernels/kernels.h"

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double least(double a, double b) { return a < b ? a : b; }

double decode_codes(unsigned coding, const unsigned char *codes, const float *scales, unsigned long rows,
                    unsigned long panel, float *out, int repeats) {
  double best = 1e9;
  for (; repeats > 0; repeats--) {
    const double begun = now();
    TTI_JOIN(tti_kernels_, TTI_ISA)()->decode(coding, codes, scales, rows, panel, out);
    best = least(best, now() - begun);
  }
  return best;
}

double decode_streams(const unsigned char *alphabet, const unsigned char *head, unsigned word_count, unsigned rate,
                      const float *scales, const unsigned char *low, unsigned long rows, unsigned long group,
                      unsigned long panel, float *out, int repeats) {
  const uint32_t *states = (const uint32_t *)(const void *)head;
  const uint16_t *words = (const uint16_t *)(const void *)(states + 9);
  const tti_stream s = {alphabet, states, states[8], word_count, rate, words, scales, low, rows, group, panel, out};
  double best = 1e9;
  for (; repeats > 0; repeats--) {
    const double begun = now();
    if (TTI_JOIN(tti_kernels_, TTI_ISA)()->decode_stream(&s)) return -1;
    best = least(best, now() - begun);
  }
  return best;
}
