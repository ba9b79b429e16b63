/* An enclave in the hands of a host that does with it what it likes, as its standard input says.
 *
 *     prober IMAGE <REQUESTS >ANSWERS
 *
 * The first answer is a 'place'. Then every request has one: PEEK gives so many bytes at the address, POKE reads them
 * from standard input and gives none, ENTER enters the enclave with the address and gives a uint64_t, what it was left
 * for. Addresses are taken as they are; the enclave's own pages may be peeked at because it is emulated. */
#define _DEFAULT_SOURCE
#include <stdio.h>
#include <sys/mman.h>

#include "enclave.h"

enum { PEEK = 0, POKE, ENTER };
enum { OUTSIDE_BYTES = 65536 };

typedef struct place {
  uint64_t base, size, outside; /* OUTSIDE_BYTES that are not the enclave's */
} place;

typedef struct request {
  uint64_t kind, address, bytes;
} request;

static void *pointer(uint64_t address) { return (void *)(uintptr_t)address; }

static int serve(ttx_enclave *enclave, const request *r) {
  if (r->kind == PEEK) return fwrite(pointer(r->address), 1, r->bytes, stdout) == r->bytes;
  if (r->kind == POKE) return fread(pointer(r->address), 1, r->bytes, stdin) == r->bytes;
  const uint64_t left_for = (uint64_t)enclave->processor->enter(enclave, pointer(r->address));
  return fwrite(&left_for, sizeof left_for, 1, stdout) == 1;
}

int main(int count, char **arguments) {
  char why[TTX_WHY_BYTES] = "usage: prober IMAGE";
  ttx_enclave *enclave = count == 2 ? ttx_load(arguments[1], &ttx_emulated, why) : NULL;
  void *outside = mmap(NULL, OUTSIDE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (!enclave || outside == MAP_FAILED) {
    fprintf(stderr, "prober: %s\n", why);
    return 1;
  }
  const place here = {enclave->secs->base, enclave->secs->size, (uint64_t)(uintptr_t)outside};
  request r;
  int good = fwrite(&here, sizeof here, 1, stdout) == 1 && fflush(stdout) == 0;
  while (good && fread(&r, sizeof r, 1, stdin) == 1) good = serve(enclave, &r) && fflush(stdout) == 0;
  ttx_unload(enclave);
  return !good;
}
