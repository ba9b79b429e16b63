/* What the OP-TEE port takes from libraries of cryptography, all of it constant-time: BearSSL (crypto_bearssl.c); or
 * nettle and OpenSSL (crypto_nettle.c) and for the hashes the TEE's own API (ta/hash.c). */
#ifndef TTO_CRYPTO_H
#define TTO_CRYPTO_H
#include <stddef.h>
#include <stdint.h>

enum { TTO_KEY_BYTES = 32, TTO_HASH_BYTES = 32, TTO_TAG_BYTES = 16, TTO_NONCE_BYTES = 12 };

/* A piece of a message. */
typedef struct tto_part {
  const void *data;
  size_t bytes;
} tto_part;

/* SHA-256, and HMAC-SHA256, of the parts one after another. Keys have at most 32 bytes. They return 0, or -1 for want
 * of memory: then the result is not to be used. */
int tto_sha256(const tto_part *parts, size_t count, uint8_t hash[TTO_HASH_BYTES]);
int tto_hmac(const void *key, size_t key_bytes, const tto_part *parts, size_t count, uint8_t mac[TTO_HASH_BYTES]);

/* ChaCha20-Poly1305 (RFC 8439). 'ciphertext' may lie in memory that others change meanwhile: it is read once, and
 * written only when it is final. 'tag' may not. 'plain' may equal 'ciphertext'. Opening returns 0, or -1 if it does not
 * authenticate; plain then holds nothing to be used. */
int tto_chacha_open(const uint8_t key[TTO_KEY_BYTES], const uint8_t nonce[TTO_NONCE_BYTES], const void *associated,
                    size_t associated_bytes, const uint8_t *ciphertext, size_t bytes, const uint8_t *tag,
                    uint8_t *plain);
/* 'plain' must be writable: BearSSL's build changes it meanwhile. It is as before afterwards. */
void tto_chacha_seal(const uint8_t key[TTO_KEY_BYTES], const uint8_t nonce[TTO_NONCE_BYTES], const void *associated,
                     size_t associated_bytes, const uint8_t *plain, size_t bytes, uint8_t *ciphertext, uint8_t *tag);

/* A memset to 0 that the compiler keeps. */
void tto_wipe(void *memory, size_t bytes);

/* Whether two secrets are equal, in time that does not depend on them. */
int tto_equal(const uint8_t *a, const uint8_t *b, size_t bytes);

#endif
