/* The trusted application: the core behind OP-TEE's entry points. See tinytee_ta.h for the commands. */
#include <string.h>
#include <string_ext.h>
#include <tee_internal_api.h>
#include <trace.h>

#include "aead.h"
#include "kernels/kernels.h"
#include "tinytee.h"
#include "tinytee_program.h"
#include "tinytee_ta.h"

typedef struct session {
  tt_port port;
  tta_aead slots[TT_KEY_SLOTS];
  tt_engine *engine;
  tt_status status; /* of opening, while there is no engine */
  void *memory;     /* what the heap gave; the arena lies in it */
} session;

/* ---- the core's hooks */

static int hook_set_key(void *context, tt_key_slot slot, uint32_t suite, const uint8_t *key) {
  session *s = context;
  return (unsigned)slot < TT_KEY_SLOTS ? tta_aead_set_key(&s->slots[slot], suite, key) : -1;
}

static int hook_open(void *context, tt_key_slot slot, const uint8_t *nonce, const void *associated,
                     size_t associated_bytes, const uint8_t *ciphertext, size_t bytes, const uint8_t *tag,
                     uint8_t *plain) {
  session *s = context;
  if ((unsigned)slot >= TT_KEY_SLOTS) return -1;
  return tta_aead_open(&s->slots[slot], nonce, associated, associated_bytes, ciphertext, bytes, tag, plain);
}

static int hook_seal(void *context, tt_key_slot slot, const uint8_t *nonce, const void *associated,
                     size_t associated_bytes, const uint8_t *plain, size_t bytes, uint8_t *ciphertext, uint8_t *tag) {
  session *s = context;
  if ((unsigned)slot >= TT_KEY_SLOTS) return -1;
  return tta_aead_seal(&s->slots[slot], nonce, associated, associated_bytes, plain, bytes, ciphertext, tag);
}

static int hook_random(void *context, uint8_t *bytes, size_t count) {
  (void)context;
  TEE_GenerateRandom(bytes, count);
  return 0;
}

static void hook_forget(void *context) {
  session *s = context;
  for (int slot = 0; slot < TT_KEY_SLOTS; slot++) tta_aead_forget(&s->slots[slot]);
}

/* ---- commands */

static void shut(session *s) {
  tt_close(s->engine);
  hook_forget(s);
  TEE_Free(s->memory);
  s->engine = NULL;
  s->memory = NULL;
  s->status = TT_ERROR_STATE;
}

static TEE_Result reply(session *s, TEE_Param *slot, uint32_t chunks) {
  tta_reply r;
  tt_want want;
  memset(&r, 0, sizeof r);
  memset(&want, 0, sizeof want);
  want.event = TT_FAILED;
  r.status = s->engine ? tt_poll(s->engine, &want) : s->status;
  r.event = want.event;
  r.index = want.index;
  r.row = want.row;
  r.rows = want.rows;
  r.bytes = (uint32_t)want.bytes;
  r.peak_bytes = r.status == TT_OK ? (uint32_t)tt_peak_bytes(s->engine) : 0;
  r.chunks = chunks;
  memcpy(r.nonce, want.nonce, sizeof r.nonce);
  memcpy(slot->memref.buffer, &r, sizeof r);
  slot->memref.size = sizeof r;
  return TEE_SUCCESS;
}

static int has(const TEE_Param *slot, size_t bytes) { return slot->memref.buffer && slot->memref.size >= bytes; }

/* The arena: as much as the preamble says, which the core authenticates. */
static void *make_arena(session *s, uint32_t bytes) {
  s->memory = TEE_Malloc((size_t)bytes + TT_ALIGN - 1, TEE_MALLOC_FILL_ZERO);
  if (!s->memory) return NULL;
  return (void *)(((uintptr_t)s->memory + TT_ALIGN - 1) & ~(uintptr_t)(TT_ALIGN - 1));
}

static TEE_Result command_open(session *s, TEE_Param slots[4]) {
  const TEE_Param *preamble = &slots[0];
  tt_bundle_header header;
  tta_keys keys;
  if (!has(preamble, sizeof header) || preamble->memref.size > TTA_WINDOW_BYTES || !has(&slots[1], sizeof keys) ||
      slots[1].memref.size != sizeof keys)
    return TEE_ERROR_BAD_PARAMETERS;
  shut(s);
  EMSG("tinytee: DEVELOPMENT MODE, the normal world knows the keys; this protects nothing from it");
  memcpy(&header, preamble->memref.buffer, sizeof header);
  memcpy(&keys, slots[1].memref.buffer, sizeof keys);
  void *arena = make_arena(s, header.arena_bytes);
  s->status = arena ? tt_open(arena, header.arena_bytes, &s->port, preamble->memref.buffer, preamble->memref.size,
                              keys.model_key, keys.io_key, &s->engine)
                    : TT_ERROR_ARENA;
  memzero_explicit(&keys, sizeof keys);
  return reply(s, &slots[2], 0);
}

/* What the engine wants, if it is what the normal world thinks it is. */
static TEE_Result agree(const session *s, const TEE_Param *slot, tt_want *want) {
  if (!s->engine || tt_poll(s->engine, want) != TT_OK) return TEE_ERROR_BAD_STATE;
  return want->event == slot->value.a && want->index == slot->value.b ? TEE_SUCCESS : TEE_ERROR_BAD_STATE;
}

static TEE_Result command_feed(session *s, TEE_Param slots[4]) {
  tt_want want;
  const TEE_Result agreed = agree(s, &slots[1], &want);
  if (agreed != TEE_SUCCESS) return agreed;
  if (want.event != TT_WANT_CHUNK && want.event != TT_WANT_INPUT && want.event != TT_WANT_FETCH)
    return TEE_ERROR_BAD_STATE;
  if (!has(&slots[0], want.bytes)) return TEE_ERROR_BAD_PARAMETERS;
  const uint8_t *sealed = slots[0].memref.buffer;
  size_t left = slots[0].memref.size;
  if (want.event != TT_WANT_CHUNK && left != want.bytes) return TEE_ERROR_BAD_PARAMETERS;
  uint32_t next, chunks = 0;
  tt_status status;
  do {
    next = want.index + 1;
    chunks += want.event == TT_WANT_CHUNK;
    status = tt_feed(s->engine, sealed, want.bytes);
    sealed += want.bytes;
    left -= want.bytes;
    if (status == TT_OK) status = tt_poll(s->engine, &want);
  } while (status == TT_OK && want.event == TT_WANT_CHUNK && want.index == next && want.bytes <= left);
  return reply(s, &slots[2], chunks);
}

static TEE_Result command_take(session *s, TEE_Param slots[4]) {
  tt_want want;
  const TEE_Result agreed = agree(s, &slots[1], &want);
  if (agreed != TEE_SUCCESS) return agreed;
  if (want.event != TT_GIVE_SPILL && want.event != TT_GIVE_OUTPUT) return TEE_ERROR_BAD_STATE;
  if (!has(&slots[0], want.bytes)) {
    slots[0].memref.size = want.bytes;
    return TEE_ERROR_SHORT_BUFFER;
  }
  slots[0].memref.size = want.bytes;
  (void)!tt_take(s->engine, slots[0].memref.buffer, want.bytes); /* the reply carries its status, which sticks */
  return reply(s, &slots[2], 0);
}

static TEE_Result command_start(session *s, TEE_Param slots[4]) {
  tt_want want;
  if (!s->engine || tt_poll(s->engine, &want) != TT_OK || want.event != TT_READY) return TEE_ERROR_BAD_STATE;
  (void)!tt_start(s->engine);
  return reply(s, &slots[2], 0);
}

static TEE_Result command_info(session *s, TEE_Param slots[4]) {
  slots[0].value.a = TINYTEE_HEAP_BYTES;
  slots[0].value.b = TTA_DEVELOPMENT;
  return reply(s, &slots[2], 0);
}

/* ---- OP-TEE's entry points */

#define TYPES(a, b)                                                                                                    \
  TEE_PARAM_TYPES(TEE_PARAM_TYPE_##a, TEE_PARAM_TYPE_##b, TEE_PARAM_TYPE_MEMREF_OUTPUT, TEE_PARAM_TYPE_NONE)

static const struct command {
  uint32_t types;
  TEE_Result (*run)(session *s, TEE_Param slots[4]);
} commands[] = {
    [TTA_OPEN] = {TYPES(MEMREF_INPUT, MEMREF_INPUT), command_open},
    [TTA_START] = {TYPES(NONE, NONE), command_start},
    [TTA_FEED] = {TYPES(MEMREF_INPUT, VALUE_INPUT), command_feed},
    [TTA_TAKE] = {TYPES(MEMREF_OUTPUT, VALUE_INPUT), command_take},
    [TTA_INFO] = {TYPES(VALUE_OUTPUT, NONE), command_info},
};

TEE_Result TA_CreateEntryPoint(void) { return TEE_SUCCESS; }
void TA_DestroyEntryPoint(void) {}

TEE_Result TA_OpenSessionEntryPoint(uint32_t types, TEE_Param slots[4], void **context) {
  (void)slots;
  if (types != TEE_PARAM_TYPES(TEE_PARAM_TYPE_NONE, TEE_PARAM_TYPE_NONE, TEE_PARAM_TYPE_NONE, TEE_PARAM_TYPE_NONE))
    return TEE_ERROR_BAD_PARAMETERS;
  session *s = TEE_Malloc(sizeof *s, TEE_MALLOC_FILL_ZERO);
  if (!s) return TEE_ERROR_OUT_OF_MEMORY;
  s->port = (tt_port){s, hook_set_key, hook_open, hook_seal, hook_random, hook_forget, tti_kernels_neon()};
  s->status = TT_ERROR_STATE;
  *context = s;
  return TEE_SUCCESS;
}

void TA_CloseSessionEntryPoint(void *context) {
  session *s = context;
  shut(s);
  TEE_Free(s);
}

TEE_Result TA_InvokeCommandEntryPoint(void *context, uint32_t id, uint32_t types, TEE_Param slots[4]) {
  if (id >= sizeof commands / sizeof commands[0]) return TEE_ERROR_NOT_SUPPORTED;
  if (types != commands[id].types) return TEE_ERROR_BAD_PARAMETERS;
  if (!has(&slots[2], sizeof(tta_reply))) return TEE_ERROR_BAD_PARAMETERS;
  return commands[id].run(context, slots);
}
