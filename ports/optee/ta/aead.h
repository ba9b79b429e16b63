/* The core's AEAD hooks inside OP-TEE: ChaCha20-Poly1305 by the library of crypto.h, AES-256-GCM by the TEE's own API.
 */
#ifndef TTA_AEAD_H
#define TTA_AEAD_H
#include <tee_internal_api.h>

#include "crypto.h"
#include "tinytee.h"

typedef struct tta_aead {
  uint32_t suite; /* TT_SUITE_*; 0: no key */
  uint8_t chacha_key[TTO_KEY_BYTES];
  TEE_OperationHandle open, seal;
} tta_aead;

/* Contracts as of tt_port's hooks. 'ciphertext' and 'tag' may lie in shared memory: they are read once, and written
 * only when they are final. */
int tta_aead_set_key(tta_aead *aead, uint32_t suite, const uint8_t *key);
int tta_aead_open(tta_aead *aead, const uint8_t *nonce, const void *associated, size_t associated_bytes,
                  const uint8_t *ciphertext, size_t bytes, const uint8_t *tag, uint8_t *plain);
int tta_aead_seal(tta_aead *aead, const uint8_t *nonce, const void *associated, size_t associated_bytes,
                  const uint8_t *plain, size_t bytes, uint8_t *ciphertext, uint8_t *tag);
void tta_aead_forget(tta_aead *aead);

#endif
