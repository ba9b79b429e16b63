/* AES-256-GCM by intel-ipsec-mb, which has it for processors that encrypt several blocks at a time (VAES, VPCLMULQDQ):
 * there it opens chunks more than twice as fast as libcrypto 3.0. Whether it is used is settled when the port is built.
 */
#ifndef TTHI_GCM_H
#define TTHI_GCM_H
#include <stddef.h>
#include <stdint.h>

enum { TTHI_GCM_KEY_BYTES = 2560 };

/* An expanded key. */
typedef struct tthi_gcm_key {
  _Alignas(64) uint8_t bytes[TTHI_GCM_KEY_BYTES];
} tthi_gcm_key;

/* key: 32 bytes; nonce: 12; tag: 16, computed. The texts may be the same memory, but not overlap otherwise. With
 * copy_first the ciphertext is read once, in pieces that are copied to where the plaintext goes. */
typedef struct tthi_gcm {
  void (*expand)(const uint8_t *key, tthi_gcm_key *expanded);
  void (*open)(const tthi_gcm_key *key, const uint8_t *nonce, const void *associated, size_t associated_bytes,
               const uint8_t *ciphertext, size_t bytes, uint8_t *plain, int copy_first, uint8_t *tag);
  void (*seal)(const tthi_gcm_key *key, const uint8_t *nonce, const void *associated, size_t associated_bytes,
               const uint8_t *plain, size_t bytes, uint8_t *ciphertext, uint8_t *tag);
} tthi_gcm;

/* NULL if this build or this processor does not have it. */
#if TINYTEE_IPSEC_MB
const tthi_gcm *tthi_gcm_find(void);
#else
static inline const tthi_gcm *tthi_gcm_find(void) { return NULL; }
#endif

#endif
