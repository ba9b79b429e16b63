/* What the compiler, the application and BearSSL take from the C library.
 *
 * Copies from and to the host's memory go word by word, since of shorter or unaligned accesses the processor may give
 * the host what is left in its buffers, or take what the host has put there (INTEL-SA-00615 and INTEL-SA-00657): reads
 * are of whole aligned words, and a piece of a word is written between instructions that empty the buffers. */
#include <stddef.h>
#include <stdint.h>

#include "enclave.h"

enum { WORD_BYTES = 8, LINE_BYTES = 64 };

typedef uint64_t unaligned_word __attribute__((aligned(1), may_alias));
typedef volatile uint64_t outside_word __attribute__((may_alias));

void *memcpy(void *restrict to, const void *restrict from, size_t bytes);
void *memmove(void *to, const void *from, size_t bytes);
void *memset(void *to, int byte, size_t bytes);
int memcmp(const void *a, const void *b, size_t bytes);
void *__memmove_chk(void *to, const void *from, size_t bytes, size_t room);
void *__memset_chk(void *to, int byte, size_t bytes, size_t room);

/* ports/optee/ta/memory.c, under these names. */
void *tte_copy(void *restrict to, const void *restrict from, size_t bytes);
void *tte_move(void *to, const void *from, size_t bytes);

/* Of the word at 'at', bytes first .. first + count. */
static void read_piece(uint8_t *to, const outside_word *at, size_t first, size_t count) {
  for (uint64_t word = *at >> 8 * first; count; count--, word >>= 8) *to++ = (uint8_t)word;
}

/* A line of the cache: words are asked for before the first of them is there. */
static void read_line(uint8_t *to, const outside_word *at) {
  unaligned_word *out = (void *)to;
  const uint64_t a = at[0], b = at[1], c = at[2], d = at[3], e = at[4], f = at[5], g = at[6], h = at[7];
  out[0] = a, out[1] = b, out[2] = c, out[3] = d, out[4] = e, out[5] = f, out[6] = g, out[7] = h;
}

static void read_outside(uint8_t *to, const uint8_t *from, size_t bytes) {
  const size_t before = (uintptr_t)from % WORD_BYTES;
  const outside_word *word = (const void *)(from - before);
  if (before) {
    const size_t piece = bytes < WORD_BYTES - before ? bytes : WORD_BYTES - before;
    read_piece(to, word++, before, piece);
    to += piece;
    bytes -= piece;
  }
  for (; bytes >= LINE_BYTES; bytes -= LINE_BYTES, to += LINE_BYTES, word += LINE_BYTES / WORD_BYTES)
    read_line(to, word);
  for (; bytes >= WORD_BYTES; bytes -= WORD_BYTES, to += WORD_BYTES) *(unaligned_word *)(void *)to = *word++;
  if (bytes) read_piece(to, word, 0, bytes);
}

static void write_piece(uint8_t *to, const uint8_t *from, size_t count) {
  uint16_t segment;
  __asm__ volatile("mov %%ds, %0" : "=m"(segment));
  for (size_t i = 0; i < count; i++)
    __asm__ volatile("verw %2\n\tmovb %1, %0\n\tmfence\n\tlfence" : "=m"(to[i]) : "q"(from[i]), "m"(segment) : "cc");
}

static void write_outside(uint8_t *to, const uint8_t *from, size_t bytes) {
  const size_t before = (0 - (uintptr_t)to) % WORD_BYTES, piece = bytes < before ? bytes : before;
  write_piece(to, from, piece);
  to += piece, from += piece, bytes -= piece;
  for (; bytes >= WORD_BYTES; bytes -= WORD_BYTES, to += WORD_BYTES, from += WORD_BYTES)
    *(outside_word *)(void *)to = *(const unaligned_word *)(const void *)from;
  write_piece(to, from, bytes);
}

static int is_outside(const void *memory, size_t bytes) { return tte_is_outside((uint64_t)(uintptr_t)memory, bytes); }

/* Nothing is copied from outside to outside. */
void *memmove(void *to, const void *from, size_t bytes) {
  if (is_outside(from, bytes))
    read_outside(to, from, bytes);
  else if (is_outside(to, bytes))
    write_outside(to, from, bytes);
  else
    return tte_move(to, from, bytes);
  return to;
}

void *memcpy(void *restrict to, const void *restrict from, size_t bytes) {
  if (is_outside(from, bytes))
    read_outside(to, from, bytes);
  else if (is_outside(to, bytes))
    write_outside(to, from, bytes);
  else
    return tte_copy(to, from, bytes);
  return to;
}

void *memset(void *to, int byte, size_t bytes) {
  void *at = to;
  __asm__ volatile("rep stosb" : "+D"(at), "+c"(bytes) : "a"(byte) : "memory");
  return to;
}

int memcmp(const void *a, const void *b, size_t bytes) {
  const uint8_t *left = a, *right = b;
  for (; bytes; bytes--, left++, right++)
    if (*left != *right) return *left < *right ? -1 : 1;
  return 0;
}

static void check(size_t bytes, size_t room) {
  if (bytes > room) __builtin_trap();
}

void *__memmove_chk(void *to, const void *from, size_t bytes, size_t room) {
  check(bytes, room);
  return memmove(to, from, bytes);
}

void *__memset_chk(void *to, int byte, size_t bytes, size_t room) {
  check(bytes, room);
  return memset(to, byte, bytes);
}
