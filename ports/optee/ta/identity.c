/* See the header. */
#include "identity.h"

#include <string.h>

#include "hpke.h"

enum { KEY_BITS = 256 };

static const char name[] = "tinytee identity";
static const uint32_t flags = TEE_DATA_FLAG_ACCESS_READ | TEE_DATA_FLAG_SHARE_READ;

static TEE_Result open_stored(TEE_ObjectHandle *pair) {
  return TEE_OpenPersistentObject(TEE_STORAGE_PRIVATE, name, sizeof name - 1, flags, pair);
}

/* Of two sessions that make one at the same time, the second finds the first's. */
static TEE_Result make(TEE_ObjectHandle *pair) {
  TEE_ObjectHandle fresh = TEE_HANDLE_NULL;
  TEE_Result result = TEE_AllocateTransientObject(TEE_TYPE_X25519_KEYPAIR, KEY_BITS, &fresh);
  if (result != TEE_SUCCESS) return result;
  result = TEE_GenerateKey(fresh, KEY_BITS, NULL, 0);
  if (result == TEE_SUCCESS) result = TEE_RestrictObjectUsage1(fresh, TEE_USAGE_DERIVE);
  if (result == TEE_SUCCESS)
    result = TEE_CreatePersistentObject(TEE_STORAGE_PRIVATE, name, sizeof name - 1, flags, fresh, NULL, 0, pair);
  TEE_FreeTransientObject(fresh);
  return result == TEE_ERROR_ACCESS_CONFLICT ? open_stored(pair) : result;
}

TEE_Result tta_identity_open(TEE_ObjectHandle *pair, uint8_t public_key[TTO_KEY_BYTES]) {
  size_t bytes = TTO_KEY_BYTES;
  TEE_Result result = open_stored(pair);
  if (result == TEE_ERROR_ITEM_NOT_FOUND) result = make(pair);
  if (result != TEE_SUCCESS) return result;
  result = TEE_GetObjectBufferAttribute(*pair, TEE_ATTR_X25519_PUBLIC_VALUE, public_key, &bytes);
  if (result == TEE_SUCCESS && bytes != TTO_KEY_BYTES) result = TEE_ERROR_CORRUPT_OBJECT;
  if (result != TEE_SUCCESS) TEE_CloseObject(*pair);
  return result;
}

/* Every encoding of a point of small order, but for the bit that X25519 ignores (RFC 7748, section 6.1): with these the
 * shared secret is zeroes. The trusted operating system refuses them, and TEE_DeriveKey then panics. */
static const uint8_t small_order[][TTO_KEY_BYTES] = {
    {0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
     0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00},
    {0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
     0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00},
    {0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a,
     0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00},
    {0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b,
     0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57},
    {0xec, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
     0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
    {0xed, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
     0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
    {0xee, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
     0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
};

static int is_small_order(const uint8_t point[TTO_KEY_BYTES]) {
  uint8_t masked[TTO_KEY_BYTES];
  int found = 0;
  memcpy(masked, point, sizeof masked);
  masked[TTO_KEY_BYTES - 1] &= 0x7f;
  for (size_t i = 0; i < sizeof small_order / sizeof small_order[0]; i++)
    found |= tto_equal(masked, small_order[i], sizeof masked);
  return found;
}

/* X25519 of the private key, inside the trusted operating system. */
static TEE_Result agree(TEE_ObjectHandle pair, const uint8_t enc[TTO_KEY_BYTES], uint8_t dh[TTO_KEY_BYTES]) {
  TEE_OperationHandle operation = TEE_HANDLE_NULL;
  TEE_ObjectHandle secret = TEE_HANDLE_NULL;
  TEE_Attribute peer;
  size_t bytes = TTO_KEY_BYTES;
  TEE_InitRefAttribute(&peer, TEE_ATTR_X25519_PUBLIC_VALUE, enc, TTO_KEY_BYTES);
  TEE_Result result = TEE_AllocateOperation(&operation, TEE_ALG_X25519, TEE_MODE_DERIVE, KEY_BITS);
  if (result == TEE_SUCCESS) result = TEE_SetOperationKey(operation, pair);
  if (result == TEE_SUCCESS) result = TEE_AllocateTransientObject(TEE_TYPE_GENERIC_SECRET, KEY_BITS, &secret);
  if (result == TEE_SUCCESS) {
    TEE_DeriveKey(operation, &peer, 1, secret);
    result = TEE_GetObjectBufferAttribute(secret, TEE_ATTR_SECRET_VALUE, dh, &bytes);
  }
  if (result == TEE_SUCCESS && bytes != TTO_KEY_BYTES) result = TEE_ERROR_CORRUPT_OBJECT;
  if (secret != TEE_HANDLE_NULL) TEE_FreeTransientObject(secret);
  if (operation != TEE_HANDLE_NULL) TEE_FreeOperation(operation);
  return result;
}

int tta_identity_unseal(TEE_ObjectHandle pair, const uint8_t public_key[TTO_KEY_BYTES], const void *info,
                        size_t info_bytes, const uint8_t enc[TTO_KEY_BYTES], const uint8_t *sealed, size_t bytes,
                        uint8_t *plain) {
  uint8_t dh[TTO_KEY_BYTES];
  const tto_hpke message = {dh, enc, public_key, info, info_bytes};
  memset(plain, 0, bytes);
  if (is_small_order(enc) || agree(pair, enc, dh) != TEE_SUCCESS) return -1;
  const int failed = tto_hpke_open(&message, sealed, bytes, plain);
  tto_wipe(dh, sizeof dh);
  return failed;
}
