/* A long text is read in steps, and while one is worked on, the next is brought near: a processor's own prefetching
 * fetches less of a stream at a time than its memory could deliver. */
#ifndef TTHI_STEPS_H
#define TTHI_STEPS_H
#include <stddef.h>
#include <stdint.h>

enum { TTHI_STEP_BYTES = 4096, TTHI_LINE_BYTES = 64 };

/* The length of the step that begins at 'at'; asks for the one that follows it. */
static inline size_t tthi_next_step(const uint8_t *text, size_t at, size_t bytes) {
  if (bytes - at <= TTHI_STEP_BYTES) return bytes - at;
  const size_t next = at + TTHI_STEP_BYTES, rest = bytes - next;
  const size_t wanted = rest < TTHI_STEP_BYTES ? rest : TTHI_STEP_BYTES;
  for (size_t line = 0; line < wanted; line += TTHI_LINE_BYTES) __builtin_prefetch(text + next + line);
  return TTHI_STEP_BYTES;
}

#endif
