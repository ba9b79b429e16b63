/* As much of GlobalPlatform's TEE Internal Core API (1.3.1) as the trusted application uses, so that the same source
 * runs in OP-TEE and in an enclave. Names and numbers are that document's. */
#ifndef TEE_INTERNAL_API_H
#define TEE_INTERNAL_API_H
#include <stddef.h>
#include <stdint.h>

typedef uint32_t TEE_Result;

#define TEE_SUCCESS 0u
#define TEE_ERROR_GENERIC 0xFFFF0000u
#define TEE_ERROR_ACCESS_DENIED 0xFFFF0001u
#define TEE_ERROR_BAD_PARAMETERS 0xFFFF0006u
#define TEE_ERROR_BAD_STATE 0xFFFF0007u
#define TEE_ERROR_NOT_SUPPORTED 0xFFFF000Au
#define TEE_ERROR_OUT_OF_MEMORY 0xFFFF000Cu
#define TEE_ERROR_SHORT_BUFFER 0xFFFF0010u
#define TEE_ERROR_MAC_INVALID 0xFFFF3071u

#define TEE_PARAM_TYPE_NONE 0u
#define TEE_PARAM_TYPE_VALUE_INPUT 1u
#define TEE_PARAM_TYPE_VALUE_OUTPUT 2u
#define TEE_PARAM_TYPE_VALUE_INOUT 3u
#define TEE_PARAM_TYPE_MEMREF_INPUT 5u
#define TEE_PARAM_TYPE_MEMREF_OUTPUT 6u
#define TEE_PARAM_TYPE_MEMREF_INOUT 7u
#define TEE_PARAM_TYPES(a, b, c, d) ((a) | (b) << 4 | (c) << 8 | (d) << 12)
#define TEE_PARAM_TYPE_GET(types, i) ((types) >> 4 * (i) & 15u)

typedef union TEE_Param {
  struct {
    void *buffer;
    size_t size;
  } memref;
  struct {
    uint32_t a, b;
  } value;
} TEE_Param;

/* Memory, from the heap, given back in the reverse order. */
#define TEE_MALLOC_FILL_ZERO 0u
void *TEE_Malloc(size_t bytes, uint32_t hint);
void TEE_Free(void *memory);

void TEE_GenerateRandom(void *random, size_t bytes);
void TEE_Panic(TEE_Result code) __attribute__((noreturn));

/* Keys are objects that live for a moment. */
typedef struct tte_object *TEE_ObjectHandle;
typedef struct tte_operation *TEE_OperationHandle;
#define TEE_HANDLE_NULL NULL

typedef struct TEE_Attribute {
  uint32_t attributeID;
  const void *buffer;
  size_t length;
} TEE_Attribute;

#define TEE_TYPE_AES 0xA0000010u
#define TEE_ATTR_SECRET_VALUE 0xC0000000u
TEE_Result TEE_AllocateTransientObject(uint32_t type, uint32_t most_bits, TEE_ObjectHandle *object);
void TEE_InitRefAttribute(TEE_Attribute *attribute, uint32_t id, const void *buffer, size_t bytes);
TEE_Result TEE_PopulateTransientObject(TEE_ObjectHandle object, const TEE_Attribute *attributes, uint32_t count);
void TEE_FreeTransientObject(TEE_ObjectHandle object);
void TEE_CloseObject(TEE_ObjectHandle object);

/* Authenticated encryption: AES-256-GCM alone. What an update is given it gives back at once. */
#define TEE_ALG_AES_GCM 0x40000810u
#define TEE_MODE_ENCRYPT 0u
#define TEE_MODE_DECRYPT 1u
TEE_Result TEE_AllocateOperation(TEE_OperationHandle *operation, uint32_t algorithm, uint32_t mode, uint32_t most_bits);
void TEE_FreeOperation(TEE_OperationHandle operation);
TEE_Result TEE_SetOperationKey(TEE_OperationHandle operation, TEE_ObjectHandle key);
TEE_Result TEE_AEInit(TEE_OperationHandle operation, const void *nonce, size_t nonce_bytes, uint32_t tag_bits,
                      size_t associated_bytes, size_t payload_bytes);
void TEE_AEUpdateAAD(TEE_OperationHandle operation, const void *associated, size_t bytes);
TEE_Result TEE_AEUpdate(TEE_OperationHandle operation, const void *from, size_t bytes, void *to, size_t *to_bytes);
TEE_Result TEE_AEEncryptFinal(TEE_OperationHandle operation, const void *from, size_t bytes, void *to, size_t *to_bytes,
                              void *tag, size_t *tag_bytes);
TEE_Result TEE_AEDecryptFinal(TEE_OperationHandle operation, const void *from, size_t bytes, void *to, size_t *to_bytes,
                              void *tag, size_t tag_bytes);

/* The application's entry points. */
TEE_Result TA_CreateEntryPoint(void);
void TA_DestroyEntryPoint(void);
TEE_Result TA_OpenSessionEntryPoint(uint32_t types, TEE_Param slots[4], void **context);
void TA_CloseSessionEntryPoint(void *context);
TEE_Result TA_InvokeCommandEntryPoint(void *context, uint32_t id, uint32_t types, TEE_Param slots[4]);

#endif
