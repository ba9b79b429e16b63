/* What needs no library. */
#include "crypto.h"

#include <string.h>

void tto_wipe(void *memory, size_t bytes) {
  memset(memory, 0, bytes);
  __asm__ volatile("" : : "r"(memory) : "memory");
}

int tto_equal(const uint8_t *a, const uint8_t *b, size_t bytes) {
  uint8_t differ = 0;
  for (size_t i = 0; i < bytes; i++) differ |= (uint8_t)(a[i] ^ b[i]);
  return differ == 0;
}
