/* As much of GlobalPlatform's TEE Client API (1.0) as the feeder uses, for enclaves: names and numbers are that
 * document's. One context knows one enclave image (TINYTEE_ENCLAVE), and a session is an enclave of its own. */
#ifndef TEE_CLIENT_API_H
#define TEE_CLIENT_API_H
#include <stddef.h>
#include <stdint.h>

typedef uint32_t TEEC_Result;

#define TEEC_SUCCESS 0x00000000u
#define TEEC_ERROR_GENERIC 0xFFFF0000u
#define TEEC_ERROR_ACCESS_DENIED 0xFFFF0001u
#define TEEC_ERROR_BAD_PARAMETERS 0xFFFF0006u
#define TEEC_ERROR_BAD_STATE 0xFFFF0007u
#define TEEC_ERROR_ITEM_NOT_FOUND 0xFFFF0008u
#define TEEC_ERROR_NOT_SUPPORTED 0xFFFF000Au
#define TEEC_ERROR_OUT_OF_MEMORY 0xFFFF000Cu
#define TEEC_ERROR_BUSY 0xFFFF000Du
#define TEEC_ERROR_COMMUNICATION 0xFFFF000Eu
#define TEEC_ERROR_SECURITY 0xFFFF000Fu
#define TEEC_ERROR_SHORT_BUFFER 0xFFFF0010u
#define TEEC_ERROR_TARGET_DEAD 0xFFFF3024u

#define TEEC_NONE 0x0u
#define TEEC_VALUE_INPUT 0x1u
#define TEEC_VALUE_OUTPUT 0x2u
#define TEEC_VALUE_INOUT 0x3u
#define TEEC_MEMREF_TEMP_INPUT 0x5u
#define TEEC_MEMREF_TEMP_OUTPUT 0x6u
#define TEEC_MEMREF_TEMP_INOUT 0x7u
#define TEEC_MEMREF_PARTIAL_INPUT 0xDu
#define TEEC_MEMREF_PARTIAL_OUTPUT 0xEu
#define TEEC_MEMREF_PARTIAL_INOUT 0xFu
#define TEEC_PARAM_TYPES(a, b, c, d) ((a) | (b) << 4 | (c) << 8 | (d) << 12)
#define TEEC_PARAM_TYPE_GET(types, i) ((types) >> 4 * (i) & 0xFu)

#define TEEC_MEM_INPUT 0x1u
#define TEEC_MEM_OUTPUT 0x2u
#define TEEC_LOGIN_PUBLIC 0x0u
#define TEEC_ORIGIN_API 0x1u
#define TEEC_ORIGIN_COMMS 0x2u
#define TEEC_ORIGIN_TEE 0x3u
#define TEEC_ORIGIN_TRUSTED_APP 0x4u

typedef struct TEEC_UUID {
  uint32_t timeLow;
  uint16_t timeMid, timeHiAndVersion;
  uint8_t clockSeqAndNode[8];
} TEEC_UUID;

typedef struct TEEC_Context {
  const char *image;
  const void *processor;
} TEEC_Context;

typedef struct TEEC_Session {
  struct ttx_enclave *enclave;
  int is_dead;
} TEEC_Session;

typedef struct TEEC_SharedMemory {
  void *buffer;
  size_t size;
  uint32_t flags;
} TEEC_SharedMemory;

typedef struct TEEC_TempMemoryReference {
  void *buffer;
  size_t size;
} TEEC_TempMemoryReference;

typedef struct TEEC_RegisteredMemoryReference {
  TEEC_SharedMemory *parent;
  size_t size, offset;
} TEEC_RegisteredMemoryReference;

typedef struct TEEC_Value {
  uint32_t a, b;
} TEEC_Value;

typedef union TEEC_Parameter {
  TEEC_TempMemoryReference tmpref;
  TEEC_RegisteredMemoryReference memref;
  TEEC_Value value;
} TEEC_Parameter;

typedef struct TEEC_Operation {
  uint32_t started, paramTypes;
  TEEC_Parameter params[4];
} TEEC_Operation;

/* name: NULL, or the processor: "emulated" (see emulated.c). */
TEEC_Result TEEC_InitializeContext(const char *name, TEEC_Context *context);
void TEEC_FinalizeContext(TEEC_Context *context);
TEEC_Result TEEC_OpenSession(TEEC_Context *context, TEEC_Session *session, const TEEC_UUID *application, uint32_t login,
                             const void *login_data, TEEC_Operation *operation, uint32_t *origin);
void TEEC_CloseSession(TEEC_Session *session);
TEEC_Result TEEC_InvokeCommand(TEEC_Session *session, uint32_t command, TEEC_Operation *operation, uint32_t *origin);
TEEC_Result TEEC_AllocateSharedMemory(TEEC_Context *context, TEEC_SharedMemory *memory);
void TEEC_ReleaseSharedMemory(TEEC_SharedMemory *memory);

#endif
