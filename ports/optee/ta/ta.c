/* The trusted application: the core behind OP-TEE's entry points. See tinytee_ta.h for the commands. */
#include <string.h>
#include <string_ext.h>
#include <tee_internal_api.h>
#include <trace.h>

#include "../../float_mode.h"
#include "aead.h"
#include "identity.h"
#include "kernels/kernels.h"
#include "tinytee.h"
#include "tinytee_program.h"
#include "tinytee_ta.h"

/* Where a wrong guess of the processor's could be seen from outside. */
#if !defined(TTA_BARRIER)
#define TTA_BARRIER() ((void)0)
#endif

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

static tta_want told(const tt_want *want) {
  const tta_want w = {want->event,           want->index, want->row,       want->rows,
                      (uint32_t)want->bytes, want->scale, want->zero_point};
  return w;
}

/* s->status is the core's while there is an engine. */
static TEE_Result reply(session *s, TEE_Param *slot, uint32_t fed, uint32_t given) {
  tta_reply r;
  tt_want want;
  memset(&want, 0, sizeof want);
  want.event = TT_FAILED;
  r.status = s->engine ? tt_poll(s->engine, &want) : s->status;
  r.want = told(&want);
  r.peak_bytes = r.status == TT_OK ? (uint32_t)tt_peak_bytes(s->engine) : 0;
  r.fed = fed;
  r.given = given;
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
  return result == TEE_SUCCESS ? reply(s, &slots[2], 0, 0) : result;
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
  return reply(s, &slots[2], 0, 0);
}

/* The memrefs of a call, as far as they are not used yet. */
typedef struct exchange {
  const uint8_t *in, *shared; /* items; what lies elsewhere */
  uint8_t *out;
  size_t in_left, out_left, shared_bytes;
  uint32_t fed, given;
} exchange;

/* Where in slot 3 an item's bytes lie. */
static TEE_Result find_in_place(const exchange *x, const uint8_t *at, size_t bytes, const uint8_t **sealed) {
  uint64_t place;
  memcpy(&place, at, sizeof place);
  if (place > x->shared_bytes || bytes > x->shared_bytes - place) return TEE_ERROR_BAD_PARAMETERS;
  TTA_BARRIER();
  *sealed = x->shared + place;
  return TEE_SUCCESS;
}

/* The item's head is read once; what it is of is as long as the core says. */
static TEE_Result feed_item(session *s, const tt_want *want, exchange *x) {
  const tta_want wanted = told(want);
  tta_want item;
  if (x->in_left < sizeof item) return TEE_ERROR_BAD_PARAMETERS;
  memcpy(&item, x->in, sizeof item);
  const int is_in_place = (item.event & TTA_IN_PLACE) != 0;
  item.event &= ~(uint32_t)TTA_IN_PLACE;
  if (memcmp(&item, &wanted, sizeof item) != 0) return TEE_ERROR_BAD_STATE;
  const size_t rest = is_in_place ? sizeof(uint64_t) : want->bytes;
  if (rest > x->in_left - sizeof item) return TEE_ERROR_BAD_PARAMETERS;
  const uint8_t *sealed = x->in + sizeof item;
  if (is_in_place && find_in_place(x, sealed, want->bytes, &sealed) != TEE_SUCCESS) return TEE_ERROR_BAD_PARAMETERS;
  (void)!tt_feed(s->engine, sealed, want->bytes); /* the reply carries its status, which sticks */
  x->in += sizeof item + rest;
  x->in_left -= sizeof item + rest;
  x->fed++;
  return TEE_SUCCESS;
}

static TEE_Result give_item(session *s, const tt_want *want, exchange *x) {
  if (want->bytes > x->out_left) return TEE_ERROR_SHORT_BUFFER;
  (void)!tt_take(s->engine, x->out, want->bytes); /* likewise */
  x->out += want->bytes;
  x->out_left -= want->bytes;
  x->given++;
  return TEE_SUCCESS;
}

static TEE_Result serve(session *s, const tt_want *want, exchange *x) {
  switch (want->event) {
    case TT_WANT_CHUNK:
    case TT_WANT_INPUT:
    case TT_WANT_FETCH:
      return feed_item(s, want, x);
    case TT_GIVE_SPILL:
    case TT_GIVE_OUTPUT:
      return give_item(s, want, x);
    default:
      return TEE_ERROR_BAD_STATE;
  }
}

static int is_whole(const TEE_Param *slot) { return slot->memref.buffer || slot->memref.size == 0; }

static int has_items(const TEE_Param slots[4]) {
  return is_whole(&slots[0]) && is_whole(&slots[1]) && is_whole(&slots[3]);
}

/* Serves the engine for as long as the memrefs allow. Every turn takes it an instruction further. */
static TEE_Result exchange_items(session *s, TEE_Param slots[4], int must_serve) {
  exchange x = {.in = slots[0].memref.buffer,
                .shared = slots[3].memref.buffer,
                .out = slots[1].memref.buffer,
                .in_left = slots[0].memref.size,
                .out_left = slots[1].memref.size,
                .shared_bytes = slots[3].memref.size};
  tt_want want;
  TEE_Result result = TEE_SUCCESS;
  while (result == TEE_SUCCESS && tt_poll(s->engine, &want) == TT_OK) result = serve(s, &want, &x);
  if (must_serve && x.fed + x.given == 0) {
    if (result == TEE_ERROR_SHORT_BUFFER) slots[1].memref.size = want.bytes;
    return result;
  }
  slots[1].memref.size -= x.out_left;
  return reply(s, &slots[2], x.fed, x.given);
}

static TEE_Result command_exchange(session *s, TEE_Param slots[4]) {
  tt_want want;
  if (!has_items(slots)) return TEE_ERROR_BAD_PARAMETERS;
  if (!s->engine || tt_poll(s->engine, &want) != TT_OK) return TEE_ERROR_BAD_STATE;
  return exchange_items(s, slots, 1);
}

static TEE_Result command_start(session *s, TEE_Param slots[4]) {
  tt_want want;
  if (!has_items(slots)) return TEE_ERROR_BAD_PARAMETERS;
  if (!s->engine || tt_poll(s->engine, &want) != TT_OK || want.event != TT_READY) return TEE_ERROR_BAD_STATE;
  (void)!tt_start(s->engine);
  return exchange_items(s, slots, 0);
}

static TEE_Result command_info(session *s, TEE_Param slots[4]) {
  slots[0].value.a = TINYTEE_HEAP_BYTES;
  slots[0].value.b = TINYTEE_DEVELOPMENT ? TTA_DEVELOPMENT : 0;
  return reply(s, &slots[2], 0, 0);
}

/* ---- OP-TEE's entry points */

#define TYPES(a, b, d)                                                                                                 \
  TEE_PARAM_TYPES(TEE_PARAM_TYPE_##a, TEE_PARAM_TYPE_##b, TEE_PARAM_TYPE_MEMREF_OUTPUT, TEE_PARAM_TYPE_##d)

static const struct command {
  uint32_t types, others; /* one or the other */
  TEE_Result (*run)(session *s, TEE_Param slots[4]);
} commands[] = {
    [TTA_OPEN] = {TYPES(MEMREF_INPUT, MEMREF_INPUT, NONE), 0, command_open},
    [TTA_START] = {TYPES(MEMREF_INPUT, MEMREF_OUTPUT, NONE), TYPES(MEMREF_INPUT, MEMREF_OUTPUT, MEMREF_INPUT),
                   command_start},
    [TTA_EXCHANGE] = {TYPES(MEMREF_INPUT, MEMREF_OUTPUT, NONE), TYPES(MEMREF_INPUT, MEMREF_OUTPUT, MEMREF_INPUT),
                      command_exchange},
    [TTA_INFO] = {TYPES(VALUE_OUTPUT, NONE, NONE), 0, command_info},
    [TTA_IDENTITY] = {TYPES(MEMREF_OUTPUT, NONE, NONE), 0, command_identity},
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
  s->port.kernels = TINYTEE_KERNELS();
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
  TTA_BARRIER();
  if (types != commands[id].types) {
    if (types != commands[id].others || !types) return TEE_ERROR_BAD_PARAMETERS;
  } else {
    slots[3].memref.buffer = NULL;
    slots[3].memref.size = 0;
  }
  if (!has(&slots[2], sizeof(tta_reply))) return TEE_ERROR_BAD_PARAMETERS;
  const uint64_t mode = ttp_float_mode();
  ttp_set_float_mode(TTP_FLOAT_MODE);
  const TEE_Result result = commands[id].run(context, slots);
  ttp_set_float_mode(mode);
  return result;
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
