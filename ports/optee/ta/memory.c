/* memcpy and memmove for the whole application. OP-TEE's own go byte by byte where the two addresses are not aligned
 * alike, as sealed chunks and padded rows are not. */
#include <stddef.h>
#include <stdint.h>

typedef uint64_t unaligned_vector __attribute__((vector_size(16), aligned(1), may_alias));

enum { VECTOR_BYTES = sizeof(unaligned_vector), BLOCK_BYTES = 4 * VECTOR_BYTES };

void *memcpy(void *restrict to, const void *restrict from, size_t bytes);
void *memmove(void *to, const void *from, size_t bytes);

/* A block is loaded whole before it is stored: right for overlaps whose destination is below the source. */
static inline void copy_block(uint8_t *to, const uint8_t *from) {
  const unaligned_vector *in = (const void *)from;
  unaligned_vector *out = (void *)to;
  const unaligned_vector a = in[0], b = in[1], c = in[2], d = in[3];
  out[0] = a, out[1] = b, out[2] = c, out[3] = d;
}

static inline void *copy_up(void *to, const void *from, size_t bytes) {
  uint8_t *out = to;
  const uint8_t *in = from;
  for (; bytes >= BLOCK_BYTES; bytes -= BLOCK_BYTES, in += BLOCK_BYTES, out += BLOCK_BYTES) copy_block(out, in);
  for (; bytes >= VECTOR_BYTES; bytes -= VECTOR_BYTES, in += VECTOR_BYTES, out += VECTOR_BYTES)
    *(unaligned_vector *)(void *)out = *(const unaligned_vector *)(const void *)in;
  for (; bytes; bytes--) *out++ = *in++;
  return to;
}

void *memcpy(void *restrict to, const void *restrict from, size_t bytes) { return copy_up(to, from, bytes); }

void *memmove(void *to, const void *from, size_t bytes) {
  uint8_t *out = (uint8_t *)to + bytes;
  const uint8_t *in = (const uint8_t *)from + bytes;
  if ((uintptr_t)to - (uintptr_t)from >= bytes) return copy_up(to, from, bytes);
  for (; bytes >= BLOCK_BYTES; bytes -= BLOCK_BYTES) copy_block(out -= BLOCK_BYTES, in -= BLOCK_BYTES);
  for (; bytes; bytes--) *--out = *--in;
  return to;
}
