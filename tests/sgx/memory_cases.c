/* The enclave's copies, with a page of this process' for the host's memory: every alignment and length, beside the C
 * library's. Prints what differs. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "enclave.h"

enum { BYTES = 4096, LONGEST = 144, EDGE = 16 };

void *enclave_copy(void *to, const void *from, size_t bytes);
void *enclave_move(void *to, const void *from, size_t bytes);

static _Alignas(64) uint8_t host[BYTES];

int tte_is_outside(uint64_t address, uint64_t bytes) {
  const uint64_t base = (uint64_t)(uintptr_t)host;
  return address >= base && bytes <= BYTES && address - base <= BYTES - bytes;
}

static void fill(uint8_t *memory, size_t bytes) {
  for (size_t i = 0; i < bytes; i++) memory[i] = (uint8_t)rand();
}

static int check(const char *what, size_t to, size_t from, size_t bytes, const uint8_t *found,
                 const uint8_t *expected) {
  if (memcmp(found, expected, BYTES) == 0) return 0;
  printf("%s to +%zu from +%zu, %zu bytes\n", what, to, from, bytes);
  return 1;
}

typedef void *copy(void *to, const void *from, size_t bytes);

static int try_all(const char *name, copy *function) {
  static _Alignas(64) uint8_t inside[BYTES], expected[BYTES];
  int wrong = 0;
  for (size_t to = EDGE; to < 2 * EDGE; to++)
    for (size_t from = EDGE; from < 2 * EDGE; from++)
      for (size_t bytes = 0; bytes < LONGEST; bytes++) {
        fill(host, BYTES), fill(inside, BYTES);
        memcpy(expected, inside, BYTES), memcpy(expected + to, host + from, bytes);
        function(inside + to, host + from, bytes);
        wrong += check(name, to, from, bytes, inside, expected);
        memcpy(expected, host, BYTES), memcpy(expected + to, inside + from, bytes);
        function(host + to, inside + from, bytes);
        wrong += check(name, to, from, bytes, host, expected);
        memcpy(expected, inside, BYTES), memmove(expected + to, inside + from, bytes);
        enclave_move(inside + to, inside + from, bytes);
        wrong += check("within", to, from, bytes, inside, expected);
      }
  return wrong;
}

int main(void) { return try_all("copy", enclave_copy) + try_all("move", enclave_move) ? 1 : 0; }
