/* GlobalPlatform's API for the trusted application: memory from the enclave's heap, randomness from the processor,
 * AES-256-GCM by gcm.h. */
#include <immintrin.h>
#include <string.h>

#include "crypto.h"
#include "enclave.h"
#include "gcm.h"

enum { ALIGN = 64, KEY_BYTES = TTO_KEY_BYTES, OPERATIONS = 16, TRIES = 32 };

extern const char __ehdr_start[] __attribute__((visibility("hidden")));

/* ---- memory: a stack */

typedef struct block {
  size_t before; /* where the heap was filled to */
  uint8_t padding[ALIGN - sizeof(size_t)];
} block;

static size_t filled;

void *TEE_Malloc(size_t bytes, uint32_t hint) {
  (void)hint;
  const size_t room = tte_here.heap_bytes - filled;
  if (room < sizeof(block) || bytes > room - sizeof(block)) return NULL;
  uint8_t *heap = (uint8_t *)(uintptr_t)__ehdr_start + tte_here.heap_offset;
  block *made = (block *)(void *)(heap + filled);
  const size_t whole = (bytes + ALIGN - 1) / ALIGN * ALIGN;
  made->before = filled;
  filled += sizeof *made + (whole > room - sizeof *made ? room - sizeof *made : whole);
  memset(made + 1, 0, bytes);
  return made + 1;
}

void TEE_Free(void *memory) {
  if (!memory) return;
  block *freed = (block *)memory - 1;
  const size_t before = freed->before;
  tto_wipe(freed, filled - before);
  filled = before;
}

/* ---- randomness, and the end */

__attribute__((target("rdrnd"))) void TEE_GenerateRandom(void *random, size_t bytes) {
  uint8_t *to = random;
  while (bytes) {
    unsigned long long word = 0;
    int tries = TRIES;
    while (!_rdrand64_step(&word))
      if (--tries == 0) TEE_Panic(TEE_ERROR_GENERIC);
    const size_t part = bytes < sizeof word ? bytes : sizeof word;
    memcpy(to, &word, part);
    to += part;
    bytes -= part;
  }
}

void TEE_Panic(TEE_Result code) {
  (void)code;
  for (;;) __builtin_trap();
}

/* ---- keys and operations */

struct tte_object {
  uint8_t key[KEY_BYTES];
};

struct tte_operation {
  tte_gcm gcm;
  uint8_t nonce[TTO_NONCE_BYTES];
  int is_used;
  uint32_t mode;
};

static struct tte_object object;
static struct tte_operation operations[OPERATIONS];

TEE_Result TEE_AllocateTransientObject(uint32_t type, uint32_t most_bits, TEE_ObjectHandle *made) {
  if (type != TEE_TYPE_AES || most_bits != 8 * KEY_BYTES) return TEE_ERROR_NOT_SUPPORTED;
  *made = &object;
  return TEE_SUCCESS;
}

void TEE_InitRefAttribute(TEE_Attribute *attribute, uint32_t id, const void *buffer, size_t bytes) {
  *attribute = (TEE_Attribute){id, buffer, bytes};
}

TEE_Result TEE_PopulateTransientObject(TEE_ObjectHandle key, const TEE_Attribute *attributes, uint32_t count) {
  if (count != 1 || attributes->attributeID != TEE_ATTR_SECRET_VALUE || attributes->length != sizeof key->key)
    return TEE_ERROR_BAD_PARAMETERS;
  memcpy(key->key, attributes->buffer, sizeof key->key);
  return TEE_SUCCESS;
}

void TEE_FreeTransientObject(TEE_ObjectHandle key) { tto_wipe(key, sizeof *key); }

void TEE_CloseObject(TEE_ObjectHandle key) { (void)key; }

TEE_Result TEE_AllocateOperation(TEE_OperationHandle *made, uint32_t algorithm, uint32_t mode, uint32_t most_bits) {
  if (algorithm != TEE_ALG_AES_GCM || most_bits != 8 * KEY_BYTES) return TEE_ERROR_NOT_SUPPORTED;
  for (int i = 0; i < OPERATIONS; i++) {
    if (operations[i].is_used) continue;
    operations[i].is_used = 1;
    operations[i].mode = mode;
    *made = &operations[i];
    return TEE_SUCCESS;
  }
  return TEE_ERROR_OUT_OF_MEMORY;
}

void TEE_FreeOperation(TEE_OperationHandle operation) { tto_wipe(operation, sizeof *operation); }

TEE_Result TEE_SetOperationKey(TEE_OperationHandle operation, TEE_ObjectHandle key) {
  tte_gcm_set_key(&operation->gcm, key->key);
  return TEE_SUCCESS;
}

TEE_Result TEE_AEInit(TEE_OperationHandle operation, const void *nonce, size_t nonce_bytes, uint32_t tag_bits,
                      size_t associated_bytes, size_t payload_bytes) {
  (void)payload_bytes;
  if (nonce_bytes != TTO_NONCE_BYTES || tag_bits != 8 * TTO_TAG_BYTES) return TEE_ERROR_NOT_SUPPORTED;
  memcpy(operation->nonce, nonce, sizeof operation->nonce);
  if (!associated_bytes) tte_gcm_begin(&operation->gcm, operation->nonce, NULL, 0);
  return TEE_SUCCESS;
}

/* All of it at once. */
void TEE_AEUpdateAAD(TEE_OperationHandle operation, const void *associated, size_t bytes) {
  tte_gcm_begin(&operation->gcm, operation->nonce, associated, bytes);
}

TEE_Result TEE_AEUpdate(TEE_OperationHandle operation, const void *from, size_t bytes, void *to, size_t *to_bytes) {
  if (*to_bytes < bytes) return TEE_ERROR_SHORT_BUFFER;
  tte_gcm_run(&operation->gcm, operation->mode == TEE_MODE_ENCRYPT, from, bytes, to);
  *to_bytes = bytes;
  return TEE_SUCCESS;
}

TEE_Result TEE_AEEncryptFinal(TEE_OperationHandle operation, const void *from, size_t bytes, void *to, size_t *to_bytes,
                              void *tag, size_t *tag_bytes) {
  const TEE_Result result = TEE_AEUpdate(operation, from, bytes, to, to_bytes);
  if (result != TEE_SUCCESS) return result;
  tte_gcm_end(&operation->gcm, operation->mode == TEE_MODE_ENCRYPT, tag);
  *tag_bytes = TTO_TAG_BYTES;
  return TEE_SUCCESS;
}

TEE_Result TEE_AEDecryptFinal(TEE_OperationHandle operation, const void *from, size_t bytes, void *to, size_t *to_bytes,
                              void *tag, size_t tag_bytes) {
  uint8_t computed[TTO_TAG_BYTES];
  if (tag_bytes != sizeof computed) return TEE_ERROR_BAD_PARAMETERS;
  const TEE_Result result = TEE_AEUpdate(operation, from, bytes, to, to_bytes);
  if (result != TEE_SUCCESS) return result;
  tte_gcm_end(&operation->gcm, operation->mode == TEE_MODE_ENCRYPT, computed);
  return tto_equal(computed, tag, sizeof computed) ? TEE_SUCCESS : TEE_ERROR_MAC_INVALID;
}

/* ---- what Debian's build of BearSSL asks of the C library */

void __stack_chk_fail(void) __attribute__((noreturn));
void __stack_chk_fail(void) { TEE_Panic(TEE_ERROR_GENERIC); }
