/* By nettle. Its AEAD wants pieces of multiples of 64 bytes but for the last. Its SHA-256 asks the operating system for
 * the processor's features, which a trusted application has not got: that one is the TEE's (ta/hash.c). */
#include <nettle/chacha-poly1305.h>
#include <string.h>

#include "crypto.h"

enum { PIECE_BYTES = 4096 };

static void begin(struct chacha_poly1305_ctx *aead, const uint8_t *key, const uint8_t *nonce, const void *associated,
                  size_t associated_bytes) {
  chacha_poly1305_set_key(aead, key);
  chacha_poly1305_set_nonce(aead, nonce);
  chacha_poly1305_update(aead, associated_bytes, associated);
}

int tto_chacha_open(const uint8_t key[TTO_KEY_BYTES], const uint8_t nonce[TTO_NONCE_BYTES], const void *associated,
                    size_t associated_bytes, const uint8_t *ciphertext, size_t bytes, const uint8_t *tag,
                    uint8_t *plain) {
  struct chacha_poly1305_ctx aead;
  uint8_t computed[TTO_TAG_BYTES];
  begin(&aead, key, nonce, associated, associated_bytes);
  for (size_t at = 0; at < bytes; at += PIECE_BYTES) {
    const size_t piece = bytes - at < PIECE_BYTES ? bytes - at : PIECE_BYTES;
    memmove(plain + at, ciphertext + at, piece);
    chacha_poly1305_decrypt(&aead, piece, plain + at, plain + at);
  }
  chacha_poly1305_digest(&aead, sizeof computed, computed);
  tto_wipe(&aead, sizeof aead);
  return tto_equal(computed, tag, sizeof computed) ? 0 : -1;
}

void tto_chacha_seal(const uint8_t key[TTO_KEY_BYTES], const uint8_t nonce[TTO_NONCE_BYTES], const void *associated,
                     size_t associated_bytes, const uint8_t *plain, size_t bytes, uint8_t *ciphertext, uint8_t *tag) {
  struct chacha_poly1305_ctx aead;
  uint8_t piece[PIECE_BYTES];
  begin(&aead, key, nonce, associated, associated_bytes);
  for (size_t at = 0; at < bytes; at += sizeof piece) {
    const size_t count = bytes - at < sizeof piece ? bytes - at : sizeof piece;
    chacha_poly1305_encrypt(&aead, count, piece, plain + at);
    memcpy(ciphertext + at, piece, count);
  }
  chacha_poly1305_digest(&aead, TTO_TAG_BYTES, piece);
  memcpy(tag, piece, TTO_TAG_BYTES);
  tto_wipe(&aead, sizeof aead);
}
