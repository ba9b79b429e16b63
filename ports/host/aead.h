/* One key under one AEAD suite. */
#ifndef TTHI_AEAD_H
#define TTHI_AEAD_H
#include "gcm.h"
#include "tinytee_host.h"

typedef struct tthi_aead {
  uint32_t suite; /* TT_SUITE_*, 0: no key */
  void *cipher;   /* EVP_CIPHER_CTX, which holds the expanded key, or NULL */
  uint8_t aegis_key[32];
  tth_aegis aegis;
  const tthi_gcm *gcm; /* AES-256-GCM's functions; NULL: libcrypto's */
  tthi_gcm_key gcm_key;
  int read_once; /* opening reads the ciphertext once */
} tthi_aead;

/* Takes a key (32 bytes). Returns -1 if the suite is unknown or not available. */
TT_MUST_USE int tthi_aead_set_key(tthi_aead *aead, uint32_t suite, const uint8_t *key, const tth_options *options);

/* nonce: 32 bytes, of which the suite uses the first 12 (AES-256-GCM, ChaCha20-Poly1305) or all (AEGIS-256X4). The
 * texts may be the same memory, but not overlap otherwise. Return 0 on success; a failed open zeroes plain. */
TT_MUST_USE int tthi_aead_open(tthi_aead *aead, const uint8_t *nonce, const void *associated, size_t associated_bytes,
                               const uint8_t *ciphertext, size_t bytes, const uint8_t *tag, uint8_t *plain);
TT_MUST_USE int tthi_aead_seal(tthi_aead *aead, const uint8_t *nonce, const void *associated, size_t associated_bytes,
                               const uint8_t *plain, size_t bytes, uint8_t *ciphertext, uint8_t *tag);

/* Wipes the key. */
void tthi_aead_forget(tthi_aead *aead);

#endif
