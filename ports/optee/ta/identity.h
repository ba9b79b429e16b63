/* The device's identity: an X25519 key pair that the trusted operating system makes when it is first asked for, and
 * keeps in its secure storage. The private key is never in the application's memory, nor anywhere in the normal
 * world's. */
#ifndef TTA_IDENTITY_H
#define TTA_IDENTITY_H
#include <tee_internal_api.h>

#include "crypto.h"

/* Opens the key pair, having made it if there is none, and gives its public key. TEE_CloseObject it. */
TEE_Result tta_identity_open(TEE_ObjectHandle *pair, uint8_t public_key[TTO_KEY_BYTES]);

/* Opens a message that was sealed by HPKE (see hpke.h) to the public key. Returns -1, and zeroes, if it was not, or was
 * changed. */
int tta_identity_unseal(TEE_ObjectHandle pair, const uint8_t public_key[TTO_KEY_BYTES], const void *info,
                        size_t info_bytes, const uint8_t enc[TTO_KEY_BYTES], const uint8_t *sealed, size_t bytes,
                        uint8_t *plain);

#endif
