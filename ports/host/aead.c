/* See the header.
 *
 * A key is expanded once; a call sets only the nonce. An EVP_CIPHER_CTX of libcrypto's GCM or ChaCha20 serves both
 * directions. Where the ciphertext lies in memory that others can write, GCM and ChaCha20-Poly1305 could authenticate
 * one version and decrypt another, since they pass over the text twice: it is copied in pieces to where the
 * plaintext goes, and opened there. AEGIS needs no copy: it absorbs the very plaintext that it writes. */
#include "aead.h"

#include <limits.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <string.h>

#include "tinytee_program.h"
#include "wipe.h"

enum { PIECE_BYTES = 32 * 1024, STEP_BYTES = 1024, AHEAD_BYTES = 4 * STEP_BYTES, LINE_BYTES = 64 };

int tthi_aead_set_key(tthi_aead *aead, uint32_t suite, const uint8_t *key, const tth_options *options) {
  tthi_aead_forget(aead);
  aead->read_once = (options->flags & TTH_BUNDLE_SHARED) != 0;
  if (suite == TT_SUITE_AEGIS256X4) {
    if (options->aegis.encrypt_detached == NULL) return -1;
    aead->aegis = options->aegis;
    memcpy(aead->aegis_key, key, sizeof aead->aegis_key);
    aead->suite = suite;
    return 0;
  }
  if (suite == TT_SUITE_AES256GCM) aead->gcm = tthi_gcm_find();
  if (aead->gcm != NULL) {
    aead->gcm->expand(key, &aead->gcm_key);
    aead->suite = suite;
    return 0;
  }
  const EVP_CIPHER *cipher = NULL;
  if (suite == TT_SUITE_AES256GCM) cipher = EVP_aes_256_gcm();
  if (suite == TT_SUITE_CHACHA20POLY1305) cipher = EVP_chacha20_poly1305();
  if (cipher == NULL) return -1;
  EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
  if (context == NULL) return -1;
  if (EVP_CipherInit_ex(context, cipher, NULL, key, NULL, 1) != 1) {
    EVP_CIPHER_CTX_free(context);
    return -1;
  }
  aead->cipher = context;
  aead->suite = suite;
  return 0;
}

/* One pass over text, associated data first. 'plain' and 'ciphertext' name input and output by the direction. */
static int cipher_pass(EVP_CIPHER_CTX *context, const void *associated, size_t associated_bytes, const uint8_t *from,
                       size_t bytes, uint8_t *to, int copy_first) {
  int done = 0;
  if (associated_bytes > INT_MAX || bytes > INT_MAX) return -1;
  if (associated_bytes != 0 && EVP_CipherUpdate(context, NULL, &done, associated, (int)associated_bytes) != 1)
    return -1;
  size_t step = copy_first ? PIECE_BYTES : bytes;
  for (size_t at = 0; at < bytes; at += step) {
    size_t piece = bytes - at < step ? bytes - at : step;
    const uint8_t *source = from + at;
    if (copy_first) {
      memmove(to + at, source, piece);
      source = to + at;
    }
    if (EVP_CipherUpdate(context, to + at, &done, source, (int)piece) != 1 || done != (int)piece) return -1;
  }
  return 0;
}

static int cipher_open(tthi_aead *aead, const uint8_t *nonce, const void *associated, size_t associated_bytes,
                       const uint8_t *ciphertext, size_t bytes, const uint8_t *tag, uint8_t *plain) {
  EVP_CIPHER_CTX *context = aead->cipher;
  uint8_t expected[TT_TAG_BYTES], rest[32];
  int done = 0;
  memcpy(expected, tag, sizeof expected);
  if (EVP_CipherInit_ex(context, NULL, NULL, NULL, nonce, 0) != 1) return -1;
  if (EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, TT_TAG_BYTES, expected) != 1) return -1;
  int copy_first = aead->read_once && plain != ciphertext;
  if (cipher_pass(context, associated, associated_bytes, ciphertext, bytes, plain, copy_first) != 0) return -1;
  return EVP_CipherFinal_ex(context, rest, &done) == 1 ? 0 : -1;
}

/* PREFETCHW, which processors that lack it pass over. */
#if defined(__x86_64__)
#define PREFETCHES_FOR_WRITING __attribute__((target("prfchw")))
#else
#define PREFETCHES_FOR_WRITING
#endif

/* AEGIS is faster than memory that is read by one stream: a step's ciphertext is asked for some steps before it is
 * opened, which takes .82 to .86 of the time that a single call for all of it does (chunks of 221 and 256 KiB, AVX2),
 * and so is the place of its plaintext, to be written. A processor drops what is asked for faster than it can fetch,
 * hence the short steps. */
PREFETCHES_FOR_WRITING
static int aegis_open(const tthi_aead *aead, const uint8_t *nonce, const void *associated, size_t associated_bytes,
                      const uint8_t *ciphertext, size_t bytes, const uint8_t *tag, uint8_t *plain) {
  _Alignas(64) uint8_t state[TTH_AEGIS_STATE_BYTES];
  int failed = 0;
  aead->aegis.state_init(state, associated, associated_bytes, nonce, aead->aegis_key);
  for (size_t at = 0; at < bytes; at += STEP_BYTES) {
    const size_t left = bytes - at, ahead = at + AHEAD_BYTES;
    for (size_t line = ahead; line < ahead + STEP_BYTES && line < bytes; line += LINE_BYTES) {
      __builtin_prefetch(ciphertext + line);
      __builtin_prefetch(plain + line, 1);
    }
    failed |=
        aead->aegis.state_decrypt_update(state, plain + at, ciphertext + at, left < STEP_BYTES ? left : STEP_BYTES);
  }
  failed |= aead->aegis.state_decrypt_final(state, tag, TT_TAG_BYTES);
  tthi_wipe(state, sizeof state);
  return failed;
}

/* The tag that is compared with cannot be the one that is computed if nothing computes it. */
static int gcm_open(const tthi_aead *aead, const uint8_t *nonce, const void *associated, size_t associated_bytes,
                    const uint8_t *ciphertext, size_t bytes, const uint8_t *tag, uint8_t *plain) {
  uint8_t expected[TT_TAG_BYTES], computed[TT_TAG_BYTES];
  memcpy(expected, tag, sizeof expected);
  for (size_t i = 0; i < sizeof computed; i++) computed[i] = (uint8_t)~expected[i];
  aead->gcm->open(&aead->gcm_key, nonce, associated, associated_bytes, ciphertext, bytes, plain,
                  aead->read_once && plain != ciphertext, computed);
  return CRYPTO_memcmp(computed, expected, sizeof computed);
}

int tthi_aead_open(tthi_aead *aead, const uint8_t *nonce, const void *associated, size_t associated_bytes,
                   const uint8_t *ciphertext, size_t bytes, const uint8_t *tag, uint8_t *plain) {
  int failed = -1;
  if (aead->suite == TT_SUITE_AEGIS256X4)
    failed = aegis_open(aead, nonce, associated, associated_bytes, ciphertext, bytes, tag, plain);
  else if (aead->gcm != NULL)
    failed = gcm_open(aead, nonce, associated, associated_bytes, ciphertext, bytes, tag, plain);
  else if (aead->cipher != NULL)
    failed = cipher_open(aead, nonce, associated, associated_bytes, ciphertext, bytes, tag, plain);
  if (failed) tthi_wipe(plain, bytes);
  return failed ? -1 : 0;
}

int tthi_aead_seal(tthi_aead *aead, const uint8_t *nonce, const void *associated, size_t associated_bytes,
                   const uint8_t *plain, size_t bytes, uint8_t *ciphertext, uint8_t *tag) {
  if (aead->suite == TT_SUITE_AEGIS256X4)
    return aead->aegis.encrypt_detached(ciphertext, tag, TT_TAG_BYTES, plain, bytes, associated, associated_bytes,
                                        nonce, aead->aegis_key);
  if (aead->gcm != NULL) {
    aead->gcm->seal(&aead->gcm_key, nonce, associated, associated_bytes, plain, bytes, ciphertext, tag);
    return 0;
  }
  EVP_CIPHER_CTX *context = aead->cipher;
  if (context == NULL || EVP_CipherInit_ex(context, NULL, NULL, NULL, nonce, 1) != 1) return -1;
  if (cipher_pass(context, associated, associated_bytes, plain, bytes, ciphertext, 0) != 0) return -1;
  uint8_t rest[32];
  int done = 0;
  if (EVP_CipherFinal_ex(context, rest, &done) != 1) return -1;
  return EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, TT_TAG_BYTES, tag) == 1 ? 0 : -1;
}

void tthi_aead_forget(tthi_aead *aead) {
  EVP_CIPHER_CTX_free(aead->cipher);
  tthi_wipe(aead, sizeof *aead);
}
