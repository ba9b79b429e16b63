/* SHA-256 and HMAC-SHA256 by the TEE's own API; see crypto.h. */
#include <string.h>
#include <tee_internal_api.h>

#include "crypto.h"

int tto_sha256(const tto_part *parts, size_t count, uint8_t hash[TTO_HASH_BYTES]) {
  TEE_OperationHandle operation = TEE_HANDLE_NULL;
  size_t bytes = TTO_HASH_BYTES;
  if (TEE_AllocateOperation(&operation, TEE_ALG_SHA256, TEE_MODE_DIGEST, 0) != TEE_SUCCESS) return -1;
  for (size_t i = 0; i < count; i++) TEE_DigestUpdate(operation, parts[i].data, parts[i].bytes);
  const TEE_Result result = TEE_DigestDoFinal(operation, NULL, 0, hash, &bytes);
  TEE_FreeOperation(operation);
  return result == TEE_SUCCESS ? 0 : -1;
}

static TEE_Result set_key(TEE_OperationHandle operation, const uint8_t key[TTO_KEY_BYTES]) {
  TEE_ObjectHandle object = TEE_HANDLE_NULL;
  TEE_Attribute attribute;
  TEE_Result result = TEE_AllocateTransientObject(TEE_TYPE_HMAC_SHA256, 8 * TTO_KEY_BYTES, &object);
  if (result != TEE_SUCCESS) return result;
  TEE_InitRefAttribute(&attribute, TEE_ATTR_SECRET_VALUE, key, TTO_KEY_BYTES);
  result = TEE_PopulateTransientObject(object, &attribute, 1);
  if (result == TEE_SUCCESS) result = TEE_SetOperationKey(operation, object);
  TEE_FreeTransientObject(object);
  return result;
}

/* HMAC fills a key up with zeroes: none is as good as 32 of them, and the API wants some. */
int tto_hmac(const void *key, size_t key_bytes, const tto_part *parts, size_t count, uint8_t mac[TTO_HASH_BYTES]) {
  TEE_OperationHandle operation = TEE_HANDLE_NULL;
  uint8_t filled[TTO_KEY_BYTES] = {0};
  size_t bytes = TTO_HASH_BYTES;
  if (key_bytes) memcpy(filled, key, key_bytes);
  TEE_Result result = TEE_AllocateOperation(&operation, TEE_ALG_HMAC_SHA256, TEE_MODE_MAC, 8 * TTO_KEY_BYTES);
  if (result == TEE_SUCCESS) result = set_key(operation, filled);
  tto_wipe(filled, sizeof filled);
  if (result == TEE_SUCCESS) {
    TEE_MACInit(operation, NULL, 0);
    for (size_t i = 0; i < count; i++) TEE_MACUpdate(operation, parts[i].data, parts[i].bytes);
    result = TEE_MACComputeFinal(operation, NULL, 0, mac, &bytes);
  }
  if (operation != TEE_HANDLE_NULL) TEE_FreeOperation(operation);
  return result == TEE_SUCCESS ? 0 : -1;
}
