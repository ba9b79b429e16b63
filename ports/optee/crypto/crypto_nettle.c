/* ChaCha20 by nettle and Poly1305 by OpenSSL, each the one with the fewest instructions on a processor with NEON, put
 * together as RFC 8439, section 2.8, says. Both keep count of whole blocks only: pieces are multiples of 64 bytes but
 * for the last. The SHA-256 of either asks the operating system for the processor's features, which a trusted
 * application has not got: that one is the TEE's (ta/hash.c). */
#include <nettle/chacha.h>
#include <string.h>

#include "crypto.h"

/* OpenSSL's, in libcrypto.a since 1.1.0; no header of them is installed (there: include/crypto/poly1305.h). */
size_t Poly1305_ctx_size(void);
void Poly1305_Init(void *context, const unsigned char key[32]);
void Poly1305_Update(void *context, const unsigned char *in, size_t bytes);
void Poly1305_Final(void *context, unsigned char tag[16]);

/* What OpenSSL would find out about the processor: NEON, which every AArch64 has, and nothing else. */
extern unsigned int OPENSSL_armcap_P;
unsigned int OPENSSL_armcap_P = 1;

enum { PIECE_BYTES = 4096, POLY1305_BYTES = 512, BLOCK_BYTES = 16 };

typedef struct aead {
  struct chacha_ctx chacha;
  _Alignas(16) uint8_t poly1305[POLY1305_BYTES];
} aead;

static void pad(aead *a, size_t bytes) {
  static const uint8_t zeroes[BLOCK_BYTES];
  if (bytes % BLOCK_BYTES) Poly1305_Update(a->poly1305, zeroes, BLOCK_BYTES - bytes % BLOCK_BYTES);
}

static void begin(aead *a, const uint8_t *key, const uint8_t *nonce, const void *associated, size_t associated_bytes) {
  uint8_t one_time_key[32] = {0};
  if (Poly1305_ctx_size() > sizeof a->poly1305) __builtin_trap(); /* another OpenSSL than this was written for */
  chacha_set_key(&a->chacha, key);
  chacha_set_nonce96(&a->chacha, nonce);
  chacha_crypt32(&a->chacha, sizeof one_time_key, one_time_key, one_time_key); /* and block 1 is the next */
  Poly1305_Init(a->poly1305, one_time_key);
  tto_wipe(one_time_key, sizeof one_time_key);
  Poly1305_Update(a->poly1305, associated, associated_bytes);
  pad(a, associated_bytes);
}

static void end(aead *a, size_t associated_bytes, size_t bytes, uint8_t tag[TTO_TAG_BYTES]) {
  const uint64_t counts[2] = {associated_bytes, bytes};
  uint8_t lengths[BLOCK_BYTES];
  for (int i = 0; i < BLOCK_BYTES; i++) lengths[i] = (uint8_t)(counts[i / 8] >> 8 * (i % 8));
  pad(a, bytes);
  Poly1305_Update(a->poly1305, lengths, sizeof lengths);
  Poly1305_Final(a->poly1305, tag);
  tto_wipe(a, sizeof *a);
}

static size_t piece_at(size_t at, size_t bytes) { return bytes - at < PIECE_BYTES ? bytes - at : PIECE_BYTES; }

int tto_chacha_open(const uint8_t key[TTO_KEY_BYTES], const uint8_t nonce[TTO_NONCE_BYTES], const void *associated,
                    size_t associated_bytes, const uint8_t *ciphertext, size_t bytes, const uint8_t *tag,
                    uint8_t *plain) {
  aead a;
  uint8_t computed[TTO_TAG_BYTES];
  begin(&a, key, nonce, associated, associated_bytes);
  for (size_t at = 0; at < bytes; at += PIECE_BYTES) {
    const size_t count = piece_at(at, bytes);
    memmove(plain + at, ciphertext + at, count);
    Poly1305_Update(a.poly1305, plain + at, count);
    chacha_crypt32(&a.chacha, count, plain + at, plain + at);
  }
  end(&a, associated_bytes, bytes, computed);
  return tto_equal(computed, tag, sizeof computed) ? 0 : -1;
}

void tto_chacha_seal(const uint8_t key[TTO_KEY_BYTES], const uint8_t nonce[TTO_NONCE_BYTES], const void *associated,
                     size_t associated_bytes, const uint8_t *plain, size_t bytes, uint8_t *ciphertext, uint8_t *tag) {
  aead a;
  uint8_t piece[PIECE_BYTES], computed[TTO_TAG_BYTES];
  begin(&a, key, nonce, associated, associated_bytes);
  for (size_t at = 0; at < bytes; at += PIECE_BYTES) {
    const size_t count = piece_at(at, bytes);
    chacha_crypt32(&a.chacha, count, piece, plain + at);
    Poly1305_Update(a.poly1305, piece, count);
    memcpy(ciphertext + at, piece, count);
  }
  end(&a, associated_bytes, bytes, computed);
  memcpy(tag, computed, sizeof computed);
}
