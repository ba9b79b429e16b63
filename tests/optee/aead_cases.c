/* Seals and opens with the port's ChaCha20-Poly1305 as a trusted application is built with it.
 *
 *     aead_cases <FILE >ANSWERS
 *
 * FILE: cases of uint32_t {associated bytes, plain bytes}, key[32], nonce[12], associated data, plaintext. ANSWERS: for
 * each the sealed bytes and the tag. Opening them must give the plaintext, elsewhere and in place, and every changed
 * bit must be refused: else the exit status is 1. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "crypto.h"

typedef struct message {
  uint32_t associated_bytes, bytes;
  uint8_t key[TTO_KEY_BYTES], nonce[TTO_NONCE_BYTES];
  uint8_t *associated, *plain, *sealed, *opened;
} message;

static void stop(const char *why) {
  fprintf(stderr, "aead_cases: %s\n", why);
  exit(1);
}

static void read_all(void *to, size_t bytes) {
  if (bytes && fread(to, 1, bytes, stdin) != bytes) stop("the file is too short");
}

static int opens(const message *m, const uint8_t *ciphertext, const uint8_t *tag) {
  return !tto_chacha_open(m->key, m->nonce, m->associated, m->associated_bytes, ciphertext, m->bytes, tag, m->opened);
}

/* A bit of the associated data, of the ciphertext or of the tag. */
static void check_change(const message *m, uint8_t *byte) {
  *byte ^= 0x10;
  if (opens(m, m->sealed, m->sealed + m->bytes)) stop("a changed message was opened");
  *byte ^= 0x10;
}

static void check(const message *m) {
  uint8_t *tag = m->sealed + m->bytes;
  tto_chacha_seal(m->key, m->nonce, m->associated, m->associated_bytes, m->plain, m->bytes, m->sealed, tag);
  if (!opens(m, m->sealed, tag) || memcmp(m->opened, m->plain, m->bytes) != 0) stop("not opened");
  memcpy(m->opened, m->sealed, m->bytes);
  if (!opens(m, m->opened, tag) || memcmp(m->opened, m->plain, m->bytes) != 0) stop("not opened in place");
  check_change(m, tag);
  check_change(m, tag + TTO_TAG_BYTES - 1);
  if (m->bytes) check_change(m, m->sealed + m->bytes / 2);
  if (m->bytes) check_change(m, m->sealed + m->bytes - 1);
  if (m->associated_bytes) check_change(m, m->associated + m->associated_bytes - 1);
}

int main(void) {
  message m;
  while (fread(&m.associated_bytes, 1, sizeof m.associated_bytes, stdin) == sizeof m.associated_bytes) {
    read_all(&m.bytes, sizeof m.bytes);
    read_all(m.key, sizeof m.key);
    read_all(m.nonce, sizeof m.nonce);
    m.associated = malloc((size_t)m.associated_bytes + 1);
    m.plain = malloc((size_t)m.bytes + 1);
    m.opened = malloc((size_t)m.bytes + 1);
    m.sealed = malloc((size_t)m.bytes + TTO_TAG_BYTES);
    if (!m.associated || !m.plain || !m.opened || !m.sealed) stop("no memory");
    read_all(m.associated, m.associated_bytes);
    read_all(m.plain, m.bytes);
    check(&m);
    if (fwrite(m.sealed, 1, (size_t)m.bytes + TTO_TAG_BYTES, stdout) != (size_t)m.bytes + TTO_TAG_BYTES)
      stop("cannot write");
    free(m.associated), free(m.plain), free(m.opened), free(m.sealed);
  }
  return 0;
}
