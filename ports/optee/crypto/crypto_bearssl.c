/* By BearSSL. It has no Poly1305 in pieces: to open, the ciphertext is first copied to where the plaintext goes; to
 * seal, the plaintext is encrypted where it lies, copied out, and turned back. */
#include <bearssl.h>
#include <string.h>

#include "crypto.h"

/* Named outright: BearSSL's own choice asks the processor, which an enclave may not. */
#if defined(__x86_64__)
#define CHACHA20 br_chacha20_sse2_run
#else
#define CHACHA20 br_chacha20_ct_run
#endif

int tto_sha256(const tto_part *parts, size_t count, uint8_t hash[TTO_HASH_BYTES]) {
  br_sha256_context context;
  br_sha256_init(&context);
  for (size_t i = 0; i < count; i++) br_sha256_update(&context, parts[i].data, parts[i].bytes);
  br_sha256_out(&context, hash);
  return 0;
}

int tto_hmac(const void *key, size_t key_bytes, const tto_part *parts, size_t count, uint8_t mac[TTO_HASH_BYTES]) {
  br_hmac_key_context prepared;
  br_hmac_context context;
  br_hmac_key_init(&prepared, &br_sha256_vtable, key, key_bytes);
  br_hmac_init(&context, &prepared, 0);
  for (size_t i = 0; i < count; i++) br_hmac_update(&context, parts[i].data, parts[i].bytes);
  (void)br_hmac_out(&context, mac);
  tto_wipe(&prepared, sizeof prepared);
  tto_wipe(&context, sizeof context);
  return 0;
}

int tto_chacha_open(const uint8_t key[TTO_KEY_BYTES], const uint8_t nonce[TTO_NONCE_BYTES], const void *associated,
                    size_t associated_bytes, const uint8_t *ciphertext, size_t bytes, const uint8_t *tag,
                    uint8_t *plain) {
  uint8_t computed[TTO_TAG_BYTES];
  memmove(plain, ciphertext, bytes);
  br_poly1305_ctmulq_run(key, nonce, plain, bytes, associated, associated_bytes, computed, CHACHA20, 0);
  return tto_equal(computed, tag, sizeof computed) ? 0 : -1;
}

void tto_chacha_seal(const uint8_t key[TTO_KEY_BYTES], const uint8_t nonce[TTO_NONCE_BYTES], const void *associated,
                     size_t associated_bytes, const uint8_t *plain, size_t bytes, uint8_t *ciphertext, uint8_t *tag) {
  uint8_t computed[TTO_TAG_BYTES], *text = (uint8_t *)(uintptr_t)plain;
  br_poly1305_ctmulq_run(key, nonce, text, bytes, associated, associated_bytes, computed, CHACHA20, 1);
  memcpy(ciphertext, text, bytes);
  memcpy(tag, computed, sizeof computed);
  if (ciphertext != text) CHACHA20(key, nonce, 1, text, bytes);
}
