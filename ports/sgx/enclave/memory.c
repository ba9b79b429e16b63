/* What the compiler and BearSSL take from the C library, besides what ports/optee/ta has. */
#include <stddef.h>
#include <stdint.h>

void *memset(void *to, int byte, size_t bytes);
int memcmp(const void *a, const void *b, size_t bytes);
void *__memmove_chk(void *to, const void *from, size_t bytes, size_t room);
void *__memset_chk(void *to, int byte, size_t bytes, size_t room);
void *memmove(void *to, const void *from, size_t bytes);

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
