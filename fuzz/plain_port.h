/* A port without secrets, for tests: its AEAD is the identity, whatever the key, nonce and tag. */
#ifndef PLAIN_PORT_H
#define PLAIN_PORT_H
#include <string.h>

#include "kernels/kernels.h"
#include "tinytee.h"
#include "tinytee_program.h"

enum { PLAIN_PREAMBLE_BYTES = sizeof(tt_bundle_header) + 4 + TT_KEY_BYTES + TT_TAG_BYTES };

static int plain_set_key(void *context, tt_key_slot slot, uint32_t suite, const uint8_t *key) {
  (void)context, (void)slot, (void)suite, (void)key;
  return 0;
}
static int plain_open(void *context, tt_key_slot slot, const uint8_t *nonce, const void *associated,
                      size_t associated_bytes, const uint8_t *ciphertext, size_t bytes, const uint8_t *tag,
                      uint8_t *plain) {
  (void)context, (void)slot, (void)nonce, (void)associated, (void)associated_bytes, (void)tag;
  memmove(plain, ciphertext, bytes);
  return 0;
}
static int plain_seal(void *context, tt_key_slot slot, const uint8_t *nonce, const void *associated,
                      size_t associated_bytes, const uint8_t *plain, size_t bytes, uint8_t *ciphertext, uint8_t *tag) {
  (void)context, (void)slot, (void)nonce, (void)associated, (void)associated_bytes;
  memcpy(ciphertext, plain, bytes);
  memset(tag, 0, TT_TAG_BYTES);
  return 0;
}
static int plain_random(void *context, uint8_t *bytes, size_t count) {
  (void)context;
  memset(bytes, 1, count);
  return 0;
}
static void plain_forget(void *context) { (void)context; }

/* preamble[PLAIN_PREAMBLE_BYTES]: one with an empty manifest, for a program of so many bytes. */
static void plain_preamble(uint8_t *preamble, size_t program_bytes, uint32_t arena_bytes) {
  tt_bundle_header header = {.magic = "tinytee",
                             .version = TT_BUNDLE_VERSION,
                             .suite = TT_SUITE_AES256GCM,
                             .header_bytes = sizeof header,
                             .chunk_count = 1,
                             .arena_bytes = arena_bytes};
  const uint32_t sealed = (uint32_t)(program_bytes + TT_TAG_BYTES);
  memset(preamble, 0, PLAIN_PREAMBLE_BYTES);
  memcpy(preamble, &header, sizeof header);
  memcpy(preamble + sizeof header, &sealed, sizeof sealed);
}

static inline tt_port plain_port(const tti_kernels *kernels) {
  const tt_port port = {NULL, plain_set_key, plain_open, plain_seal, plain_random, plain_forget, NULL, kernels};
  return port;
}

#endif
