/* The trusted application: the core behind OP-TEE's entry points. See tinytee_ta.h for the commands. */
#include <string.h>
#include <string_ext.h>
#include <tee_internal_api.h>
#include <trace.h>

#include "aead.h"
#include "identity.h"
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
  uint8_t challenge[TTO_KEY_BYTES];
  int is_challenged;                       /* a challenge is out, and not spent */
  uint8_t preamble_sha256[TTO_HASH_BYTES]; /* what the client has sealed its key for */
  int is_bound;
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
  if (slot == TT_KEY_MODEL && s->is_bound) { /* associated data, wrapped key and tag: the preamble as the core has it */
    const tto_part parts[] = {{associated, associated_bytes}, {ciphertext, bytes}, {tag, TT_TAG_BYTES}};
    uint8_t hash[TTO_HASH_BYTES];
    if (tto_sha256(parts, sizeof parts / sizeof parts[0], hash) || !tto_equal(hash, s->preamble_sha256, sizeof hash))
      return -1;
  }
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
  s->is_bound = 0;
}

/* s->status is the core's while there is an engine. */
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

/* Unseals both keys. Which of them did not authenticate is not told. */
static TEE_Result unseal_keys(session *s, const tta_opening *opening, tta_keys *keys) {
  uint8_t public_key[TTO_KEY_BYTES];
  TEE_ObjectHandle pair;
  tta_binding binding = {.magic = TTA_BINDING_MAGIC, .version = TTA_KEY_VERSION};
  const TEE_Result result = tta_identity_open(&pair, public_key);
  if (result != TEE_SUCCESS) return result;
  memcpy(binding.challenge, s->challenge, sizeof binding.challenge);
  memcpy(binding.preamble_sha256, opening->preamble_sha256, sizeof binding.preamble_sha256);
  memcpy(s->preamble_sha256, opening->preamble_sha256, sizeof s->preamble_sha256);
  s->is_bound = 1;
  const tta_sealed_key *model = &opening->model;
  int failed = model->magic != TTA_SEALED_KEY_MAGIC || model->version != TTA_KEY_VERSION;
  failed |= tta_identity_unseal(pair, public_key, model, offsetof(tta_sealed_key, enc), model->enc, model->sealed,
                                sizeof keys->model_key, keys->model_key);
  failed |= tta_identity_unseal(pair, public_key, &binding, sizeof binding, opening->io_enc, opening->io_sealed,
                                sizeof keys->io_key, keys->io_key);
  TEE_CloseObject(pair);
  s->status = failed ? TT_ERROR_AUTHENTICATION : TT_OK;
  return TEE_SUCCESS;
}

/* The keys of the call, which have been copied out of shared memory; s->status says whether they are any good. */
static TEE_Result take_keys(session *s, const tta_opening *opening, size_t bytes, tta_keys *keys) {
  if (bytes == sizeof *opening) {
    s->is_challenged = 0;
    return unseal_keys(s, opening, keys);
  }
  EMSG("tinytee: DEVELOPMENT MODE, the normal world knows the keys; this protects nothing from it");
  memcpy(keys, opening, sizeof *keys);
  s->status = TT_OK;
  return TEE_SUCCESS;
}

static TEE_Result command_open(session *s, TEE_Param slots[4]) {
  const TEE_Param *preamble = &slots[0];
  const size_t opening_bytes = slots[1].memref.size;
  tt_bundle_header header;
  tta_opening opening;
  tta_keys keys;
  if (!has(preamble, sizeof header) || preamble->memref.size > TTA_WINDOW_BYTES || !slots[1].memref.buffer ||
      (opening_bytes != sizeof opening && opening_bytes != sizeof keys))
    return TEE_ERROR_BAD_PARAMETERS;
  if (opening_bytes == sizeof keys && !TINYTEE_DEVELOPMENT) return TEE_ERROR_ACCESS_DENIED;
  if (opening_bytes == sizeof opening && !s->is_challenged) return TEE_ERROR_BAD_STATE;
  shut(s);
  memcpy(&header, preamble->memref.buffer, sizeof header);
  memcpy(&opening, slots[1].memref.buffer, opening_bytes);
  const TEE_Result result = take_keys(s, &opening, opening_bytes, &keys);
  if (result == TEE_SUCCESS && s->status == TT_OK) {
    void *arena = make_arena(s, header.arena_bytes);
    s->status = arena ? tt_open(arena, header.arena_bytes, &s->port, preamble->memref.buffer, preamble->memref.size,
                                keys.model_key, keys.io_key, &s->engine)
                      : TT_ERROR_ARENA;
  }
  memzero_explicit(&keys, sizeof keys);
  memzero_explicit(&opening, sizeof opening);
  return result == TEE_SUCCESS ? reply(s, &slots[2], 0) : result;
}

static TEE_Result command_identity(session *s, TEE_Param slots[4]) {
  tta_identity identity;
  TEE_ObjectHandle pair;
  if (!has(&slots[0], sizeof identity)) return TEE_ERROR_BAD_PARAMETERS;
  const TEE_Result result = tta_identity_open(&pair, identity.public_key);
  if (result != TEE_SUCCESS) return result;
  TEE_CloseObject(pair);
  TEE_GenerateRandom(s->challenge, sizeof s->challenge);
  s->is_challenged = 1;
  memcpy(identity.challenge, s->challenge, sizeof identity.challenge);
  memcpy(slots[0].memref.buffer, &identity, sizeof identity);
  slots[0].memref.size = sizeof identity;
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
  slots[0].value.b = TINYTEE_DEVELOPMENT ? TTA_DEVELOPMENT : 0;
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
    [TTA_IDENTITY] = {TYPES(MEMREF_OUTPUT, NONE), command_identity},
};

TEE_Result TA_CreateEntryPoint(void) { return TEE_SUCCESS; }
void TA_DestroyEntryPoint(void) {}

TEE_Result TA_OpenSessionEntryPoint(uint32_t types, TEE_Param slots[4], void **context) {
  (void)slots;
  if (types != TEE_PARAM_TYPES(TEE_PARAM_TYPE_NONE, TEE_PARAM_TYPE_NONE, TEE_PARAM_TYPE_NONE, TEE_PARAM_TYPE_NONE))
    return TEE_ERROR_BAD_PARAMETERS;
  session *s = TEE_Malloc(sizeof *s, TEE_MALLOC_FILL_ZERO);
  if (!s) return TEE_ERROR_OUT_OF_MEMORY;
  s->port.context = s;
  s->port.set_key = hook_set_key;
  s->port.open = hook_open;
  s->port.seal = hook_seal;
  s->port.random = hook_random;
  s->port.forget = hook_forget;
  s->port.kernels = tti_kernels_neon();
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

/* ---- what Debian's builds of the libraries ask of the C library: checks of their callers' arguments */

#if TINYTEE_BEARSSL
void *__memcpy_chk(void *to, const void *from, size_t bytes, size_t room);
void *__memcpy_chk(void *to, const void *from, size_t bytes, size_t room) {
  if (bytes > room) TEE_Panic(TEE_ERROR_BAD_STATE);
  return memcpy(to, from, bytes);
}
#else
__attribute__((noreturn)) void __assert_fail(const char *text, const char *file, unsigned line, const char *function);
void __assert_fail(const char *text, const char *file, unsigned line, const char *function) {
  (void)function;
  EMSG("%s:%u: %s", file, line, text);
  TEE_Panic(TEE_ERROR_BAD_STATE);
  __builtin_unreachable();
}
#endif
