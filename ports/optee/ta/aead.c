/* See the header. */
#include "aead.h"

#include <string.h>
#include <string_ext.h>

#include "tinytee_program.h"

/* On the stack; what stays in a processor's first cache. */
#if !defined(TTA_PIECE_BYTES)
#define TTA_PIECE_BYTES 4096
#endif
enum { NONCE_BYTES = 12, PIECE_BYTES = TTA_PIECE_BYTES };

static int set_gcm_key(TEE_OperationHandle *operation, uint32_t mode, const uint8_t *key) {
  TEE_ObjectHandle object = TEE_HANDLE_NULL;
  TEE_Attribute attribute;
  if (TEE_AllocateOperation(operation, TEE_ALG_AES_GCM, mode, 8 * TT_KEY_BYTES) != TEE_SUCCESS) return -1;
  TEE_Result result = TEE_AllocateTransientObject(TEE_TYPE_AES, 8 * TT_KEY_BYTES, &object);
  if (result != TEE_SUCCESS) return -1;
  TEE_InitRefAttribute(&attribute, TEE_ATTR_SECRET_VALUE, key, TT_KEY_BYTES);
  result = TEE_PopulateTransientObject(object, &attribute, 1);
  if (result == TEE_SUCCESS) result = TEE_SetOperationKey(*operation, object);
  TEE_FreeTransientObject(object);
  return result == TEE_SUCCESS ? 0 : -1;
}

int tta_aead_set_key(tta_aead *aead, uint32_t suite, const uint8_t *key) {
  tta_aead_forget(aead);
  if (suite == TT_SUITE_CHACHA20POLY1305) {
    memcpy(aead->chacha_key, key, sizeof aead->chacha_key);
  } else if (suite != TT_SUITE_AES256GCM || set_gcm_key(&aead->open, TEE_MODE_DECRYPT, key) != 0 ||
             set_gcm_key(&aead->seal, TEE_MODE_ENCRYPT, key) != 0) {
    tta_aead_forget(aead);
    return -1;
  }
  aead->suite = suite;
  return 0;
}

void tta_aead_forget(tta_aead *aead) {
  if (aead->open != TEE_HANDLE_NULL) TEE_FreeOperation(aead->open);
  if (aead->seal != TEE_HANDLE_NULL) TEE_FreeOperation(aead->seal);
  memzero_explicit(aead, sizeof *aead);
}

/* Not in place: what the TEE's API gives may lag behind what it was given. */
static int open_gcm(tta_aead *aead, const uint8_t *nonce, const void *associated, size_t associated_bytes,
                    const uint8_t *ciphertext, size_t bytes, uint8_t *tag, uint8_t *plain) {
  uint8_t piece[PIECE_BYTES];
  size_t at = 0, made = 0, written;
  if (TEE_AEInit(aead->open, nonce, NONCE_BYTES, 8 * TT_TAG_BYTES, associated_bytes, bytes) != TEE_SUCCESS) return -1;
  if (associated_bytes != 0) TEE_AEUpdateAAD(aead->open, associated, associated_bytes);
  for (; bytes - at > sizeof piece; at += sizeof piece, made += written) {
    memcpy(piece, ciphertext + at, sizeof piece);
    written = bytes - made;
    if (TEE_AEUpdate(aead->open, piece, sizeof piece, plain + made, &written) != TEE_SUCCESS) return -1;
  }
  memcpy(piece, ciphertext + at, bytes - at);
  written = bytes - made;
  const TEE_Result result =
      TEE_AEDecryptFinal(aead->open, piece, bytes - at, plain + made, &written, tag, TT_TAG_BYTES);
  return result == TEE_SUCCESS && made + written == bytes ? 0 : -1;
}

int tta_aead_open(tta_aead *aead, const uint8_t *nonce, const void *associated, size_t associated_bytes,
                  const uint8_t *ciphertext, size_t bytes, const uint8_t *tag, uint8_t *plain) {
  uint8_t given[TT_TAG_BYTES];
  int failed = -1;
  memcpy(given, tag, sizeof given);
  if (aead->suite == TT_SUITE_CHACHA20POLY1305)
    failed = tto_chacha_open(aead->chacha_key, nonce, associated, associated_bytes, ciphertext, bytes, given, plain);
  else if (aead->suite == TT_SUITE_AES256GCM)
    failed = open_gcm(aead, nonce, associated, associated_bytes, ciphertext, bytes, given, plain);
  if (failed) memzero_explicit(plain, bytes);
  return failed;
}

static int seal_gcm(tta_aead *aead, const uint8_t *nonce, const void *associated, size_t associated_bytes,
                    const uint8_t *plain, size_t bytes, uint8_t *ciphertext, uint8_t *tag) {
  uint8_t piece[PIECE_BYTES + 64], sealed_tag[TT_TAG_BYTES];
  size_t at = 0, made = 0, written, tag_bytes = sizeof sealed_tag;
  if (TEE_AEInit(aead->seal, nonce, NONCE_BYTES, 8 * TT_TAG_BYTES, associated_bytes, bytes) != TEE_SUCCESS) return -1;
  if (associated_bytes != 0) TEE_AEUpdateAAD(aead->seal, associated, associated_bytes);
  for (; bytes - at > PIECE_BYTES; at += PIECE_BYTES, made += written) {
    written = sizeof piece;
    if (TEE_AEUpdate(aead->seal, plain + at, PIECE_BYTES, piece, &written) != TEE_SUCCESS || written > bytes - made)
      return -1;
    memcpy(ciphertext + made, piece, written);
  }
  written = sizeof piece;
  if (TEE_AEEncryptFinal(aead->seal, plain + at, bytes - at, piece, &written, sealed_tag, &tag_bytes) != TEE_SUCCESS ||
      made + written != bytes || tag_bytes != sizeof sealed_tag)
    return -1;
  memcpy(ciphertext + made, piece, written);
  memcpy(tag, sealed_tag, sizeof sealed_tag);
  return 0;
}

int tta_aead_seal(tta_aead *aead, const uint8_t *nonce, const void *associated, size_t associated_bytes,
                  const uint8_t *plain, size_t bytes, uint8_t *ciphertext, uint8_t *tag) {
  if (aead->suite == TT_SUITE_CHACHA20POLY1305) {
    tto_chacha_seal(aead->chacha_key, nonce, associated, associated_bytes, plain, bytes, ciphertext, tag);
    return 0;
  }
  if (aead->suite != TT_SUITE_AES256GCM) return -1;
  return seal_gcm(aead, nonce, associated, associated_bytes, plain, bytes, ciphertext, tag);
}
