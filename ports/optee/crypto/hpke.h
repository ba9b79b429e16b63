/* HPKE (RFC 9180), base mode, one message: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305.
 *
 * The message's key follows from 'info', in which the caller puts all that the message is to be bound to; there is no
 * associated data. X25519 is the caller's: dh is X25519(ephemeral private, recipient public) to seal, X25519(recipient
 * private, ephemeral public) to open; enc is the ephemeral public key, recipient the recipient's. */
#ifndef TTO_HPKE_H
#define TTO_HPKE_H
#include "crypto.h"

typedef struct tto_hpke {
  const uint8_t *dh, *enc, *recipient; /* 32 bytes each */
  const void *info;
  size_t info_bytes;
} tto_hpke;

/* sealed: ciphertext[bytes], then the tag. Opening returns 0, or -1 and zeroes. A dh of zeroes (a public key of small
 * order, RFC 7748 section 6.1) is refused: -1. */
int tto_hpke_open(const tto_hpke *message, const uint8_t *sealed, size_t bytes, uint8_t *plain);
int tto_hpke_seal(const tto_hpke *message, uint8_t *plain, size_t bytes, uint8_t *sealed);

#endif
