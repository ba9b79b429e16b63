/* GlobalPlatform's client API over an enclave: see include/tee_client_api.h. */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tee_client_api.h>

#include "enclave.h"
#include "teec.h"

enum { PARTIAL = 8 /* of a memref's type: a part of shared memory */ };

static char why[TTX_WHY_BYTES];

const char *ttx_last_failure(void) { return why; }

TEEC_Result TEEC_InitializeContext(const char *name, TEEC_Context *context) {
  const char *wanted = name ? name : getenv("TINYTEE_SGX");
  context->image = getenv("TINYTEE_ENCLAVE");
  context->processor = wanted && strcmp(wanted, "emulated") == 0 ? &ttx_emulated : &ttx_sgx;
  return context->image ? TEEC_SUCCESS : TEEC_ERROR_ITEM_NOT_FOUND;
}

void TEEC_FinalizeContext(TEEC_Context *context) { context->image = NULL; }

static TEEC_Result enter(TEEC_Session *session, tte_call *call, uint32_t *origin) {
  if (origin) *origin = TEEC_ORIGIN_TEE;
  if (session->is_dead) return TEEC_ERROR_TARGET_DEAD;
  call->result = TEEC_ERROR_GENERIC;
  const int exception = session->enclave->processor->enter(session->enclave, call);
  if (exception) {
    if (exception == TTX_LEFT_SOMETHING)
      (void)snprintf(why, sizeof why, "the enclave has left something in the processor's registers");
    else
      (void)snprintf(why, sizeof why,
                     "the enclave has died of exception %d; it does not outlive suspension or migration",
                     exception & ~TTX_EXCEPTION);
    session->is_dead = 1;
    return TEEC_ERROR_TARGET_DEAD;
  }
  if (origin) *origin = TEEC_ORIGIN_TRUSTED_APP;
  return call->result;
}

TEEC_Result TEEC_OpenSession(TEEC_Context *context, TEEC_Session *session, const TEEC_UUID *application, uint32_t login,
                             const void *login_data, TEEC_Operation *operation, uint32_t *origin) {
  tte_call call = {.operation = TTE_OPEN_SESSION};
  (void)application, (void)login, (void)login_data, (void)operation;
  if (origin) *origin = TEEC_ORIGIN_API;
  session->is_dead = 0;
  session->enclave = ttx_load(context->image, context->processor, why);
  if (!session->enclave) return TEEC_ERROR_ITEM_NOT_FOUND;
  const TEEC_Result result = enter(session, &call, origin);
  if (result == TEEC_SUCCESS) return result;
  ttx_unload(session->enclave);
  session->enclave = NULL;
  return result;
}

void TEEC_CloseSession(TEEC_Session *session) {
  tte_call call = {.operation = TTE_CLOSE_SESSION};
  (void)enter(session, &call, NULL);
  ttx_unload(session->enclave);
  session->enclave = NULL;
}

/* Memrefs are given as addresses; the enclave knows whole ones alone. */
static void give(const TEEC_Operation *operation, tte_call *call) {
  for (int i = 0; i < 4; i++) {
    const uint32_t type = TEEC_PARAM_TYPE_GET(operation->paramTypes, i);
    const TEEC_Parameter *parameter = &operation->params[i];
    tte_slot *slot = &call->slots[i];
    if (type > PARTIAL) {
      const TEEC_RegisteredMemoryReference *part = &parameter->memref;
      *slot = (tte_slot){(uint64_t)(uintptr_t)part->parent->buffer + part->offset, part->size};
    } else if (type >= TEEC_MEMREF_TEMP_INPUT) {
      *slot = (tte_slot){(uint64_t)(uintptr_t)parameter->tmpref.buffer, parameter->tmpref.size};
    } else {
      *slot = (tte_slot){parameter->value.a, parameter->value.b};
    }
    call->types |= (type > PARTIAL ? type - PARTIAL : type) << 4 * i;
  }
}

static void take(TEEC_Operation *operation, const tte_call *call) {
  for (int i = 0; i < 4; i++) {
    const uint32_t type = TEEC_PARAM_TYPE_GET(operation->paramTypes, i);
    TEEC_Parameter *parameter = &operation->params[i];
    const tte_slot *slot = &call->slots[i];
    if (type > PARTIAL)
      parameter->memref.size = slot->b;
    else if (type >= TEEC_MEMREF_TEMP_INPUT)
      parameter->tmpref.size = slot->b;
    else
      parameter->value = (TEEC_Value){(uint32_t)slot->a, (uint32_t)slot->b};
  }
}

TEEC_Result TEEC_InvokeCommand(TEEC_Session *session, uint32_t command, TEEC_Operation *operation, uint32_t *origin) {
  tte_call call = {.operation = TTE_INVOKE, .command = command};
  give(operation, &call);
  const TEEC_Result result = enter(session, &call, origin);
  take(operation, &call);
  return result;
}

TEEC_Result TEEC_AllocateSharedMemory(TEEC_Context *context, TEEC_SharedMemory *memory) {
  (void)context;
  memory->buffer = calloc(1, memory->size ? memory->size : 1);
  return memory->buffer ? TEEC_SUCCESS : TEEC_ERROR_OUT_OF_MEMORY;
}

void TEEC_ReleaseSharedMemory(TEEC_SharedMemory *memory) {
  free(memory->buffer);
  memory->buffer = NULL;
}
