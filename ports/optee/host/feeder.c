/* See the header. Whatever this side does wrong, the trusted application refuses; nothing here is trusted. */
#define _POSIX_C_SOURCE 200809L
#include "feeder.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tinytee_program.h"

static const TEEC_UUID application = TTA_UUID;

__attribute__((format(printf, 3, 4))) static int fail(ttf_session *s, int kind, const char *format, ...) {
  if (s->failed) return s->failed;
  va_list arguments;
  va_start(arguments, format);
  (void)vsnprintf(s->error, sizeof s->error, format, arguments);
  va_end(arguments);
  return s->failed = kind;
}

static int core_failed(ttf_session *s) {
  switch (s->reply.status) {
    case TT_ERROR_AUTHENTICATION:
      if (!s->is_sealed || s->stats.runs)
        return fail(s, TT_ERROR_AUTHENTICATION, "the key is not this bundle's key, or the bundle was changed");
      return fail(s, TT_ERROR_AUTHENTICATION,
                  "the sealed key is not for this device or not this bundle's key, or it or the bundle was changed");
    case TT_ERROR_ARENA:
      return fail(
          s, TT_ERROR_ARENA,
          "the bundle needs %llu bytes of secure memory, which the trusted application's heap of %llu bytes does"
          " not hold: compile it for less, or build the application with a larger heap",
          (unsigned long long)s->stats.arena_bytes, (unsigned long long)s->stats.heap_bytes);
    case TT_ERROR_PROGRAM:
      return fail(s, TT_ERROR_PROGRAM, "the core refuses the bundle's program");
    case TT_ERROR_BUNDLE:
      return fail(s, TT_ERROR_BUNDLE, "the bundle's preamble or its weights are malformed");
    case TT_ERROR_PORT:
      return fail(s, TT_ERROR_PORT,
                  "the trusted application has not the bundle's suite: compile it with --suite"
                  " chacha20-poly1305 or aes-256-gcm");
    default:
      return fail(s, (int)s->reply.status, "the core refused a call (status %u)", (unsigned)s->reply.status);
  }
}

static uint64_t nanoseconds(void) {
  struct timespec now = {0};
  (void)clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* ---- calls */

enum { REPLY_OFFSET = 0, KEYS_OFFSET = 4096, SMALL_BYTES = 8192 };

/* Of the window: items, of which even the largest fits, and from PAGE_BYTES after them on what is given. */
enum { PAGE_BYTES = 4096, ITEMS_BYTES = TTA_WINDOW_BYTES + (int)sizeof(tta_want) };
/* Whether chunks are used where they lie in the bundle: for a TEE that sees all of this process' memory. */
#if !defined(TTF_IN_PLACE)
#define TTF_IN_PLACE 0
#endif
enum { GIVEN_OFFSET = TTA_WINDOW_BYTES + PAGE_BYTES, SHARED_BYTES = GIVEN_OFFSET + TTA_WINDOW_BYTES };

static void part(TEEC_Parameter *slot, TEEC_SharedMemory *memory, size_t offset, size_t bytes) {
  slot->memref.parent = memory;
  slot->memref.offset = offset;
  slot->memref.size = bytes;
}

static int call(ttf_session *s, uint32_t command, TEEC_Operation *operation, uint32_t type0, uint32_t type1,
                uint32_t type3) {
  uint32_t origin = 0;
  operation->paramTypes = TEEC_PARAM_TYPES(type0, type1, TEEC_MEMREF_PARTIAL_OUTPUT, type3);
  part(&operation->params[2], &s->small, REPLY_OFFSET, sizeof(tta_reply));
  s->stats.calls++;
  const TEEC_Result result = TEEC_InvokeCommand(&s->session, command, operation, &origin);
  if (result != TEEC_SUCCESS)
    return fail(s, TTF_FAILED_CALL, "%s (0x%08x from %u)", ttf_explain(result), (unsigned)result, (unsigned)origin);
  memcpy(&s->reply, (uint8_t *)s->small.buffer + REPLY_OFFSET, sizeof s->reply);
  if (s->reply.status != TT_OK) return core_failed(s);
  s->stats.peak_bytes = s->reply.peak_bytes;
  return 0;
}

/* ---- the bundle */

/* Finds every chunk. The trusted application checks for itself all that matters. */
int ttf_load(ttf_session *s, const uint8_t *bundle, size_t bundle_bytes) {
  static const uint8_t magic[8] = "tinytee";
  tt_bundle_header header;
  if (bundle_bytes < sizeof header) return fail(s, TT_ERROR_BUNDLE, "not a tinytee bundle: too short");
  memcpy(&header, bundle, sizeof header);
  if (memcmp(header.magic, magic, sizeof magic) != 0) return fail(s, TT_ERROR_BUNDLE, "not a tinytee bundle");
  if (header.version != TT_BUNDLE_VERSION || header.header_bytes != sizeof header)
    return fail(s, TT_ERROR_BUNDLE, "bundle of version %u, this feeder reads %d", (unsigned)header.version,
                (int)TT_BUNDLE_VERSION);
  const uint64_t table = sizeof header + (uint64_t)header.manifest_bytes;
  const uint64_t end = table + 4 * (uint64_t)header.chunk_count + TT_KEY_BYTES + TT_TAG_BYTES;
  if (end > bundle_bytes) return fail(s, TT_ERROR_BUNDLE, "the bundle is truncated");
  if (end > TTA_WINDOW_BYTES) return fail(s, TT_ERROR_BUNDLE, "the bundle's public part is too large");
  free(s->places);
  s->places = calloc((size_t)header.chunk_count + 1, sizeof *s->places);
  if (!s->places) return fail(s, TTF_FAILED_CALLER, "no memory");
  size_t place = (size_t)end;
  for (uint32_t k = 0; k < header.chunk_count; k++) {
    uint32_t sealed_bytes;
    memcpy(&sealed_bytes, bundle + table + 4 * (size_t)k, sizeof sealed_bytes);
    s->places[k] = place;
    if (sealed_bytes > bundle_bytes - place)
      return fail(s, TT_ERROR_BUNDLE, "the bundle is truncated in chunk %u", (unsigned)k);
    place += sealed_bytes;
  }
  s->places[header.chunk_count] = place;
  s->chunk_count = header.chunk_count;
  s->bundle = bundle;
  s->bundle_bytes = bundle_bytes;
  s->stats.suite = header.suite;
  s->stats.arena_bytes = header.arena_bytes;
  s->preamble_bytes = (size_t)end;
  return 0;
}

/* ---- what the core wants
 *
 * A run's wants are the same in every run. The first run learns them, call by call; from then on a call carries all
 * that fits the window and can be had before it: chunks and inputs, fetches of spills that are here already, and room
 * for what is given. */

static int is_known(const ttf_session *s) { return s->stats.runs > 0; }

static int is_in_place(const tta_want *want) { return TTF_IN_PLACE && want->event == TT_WANT_CHUNK; }

static size_t item_bytes(const tta_want *want) {
  return sizeof *want + (is_in_place(want) ? sizeof(uint64_t) : want->bytes);
}

static int is_given(const tta_want *want) { return want->event == TT_GIVE_SPILL || want->event == TT_GIVE_OUTPUT; }

static int append(ttf_session *s, const tta_want *want) {
  if (s->script_count == s->script_room) {
    const size_t room = 2 * s->script_room + 64;
    tta_want *larger = realloc(s->script, room * sizeof *larger);
    if (!larger) return fail(s, TTF_FAILED_CALLER, "no memory");
    s->script = larger;
    s->script_room = room;
  }
  s->script[s->script_count++] = *want;
  return 0;
}

/* Puts into the script what is wanted and, after a chunk, those that lie behind it in the bundle and fit the window. Of
 * these the core uses as many as it wants in this order. */
static int foresee(ttf_session *s) {
  tta_want want = s->reply.want;
  if (append(s, &want)) return s->failed;
  if (want.event != TT_WANT_CHUNK) return 0;
  size_t bytes = item_bytes(&want);
  while (++want.index < s->chunk_count) {
    want.bytes = (uint32_t)(s->places[want.index + 1] - s->places[want.index]);
    bytes += item_bytes(&want);
    if (bytes > ITEMS_BYTES) break;
    if (append(s, &want)) return s->failed;
  }
  return 0;
}

static ttf_spill *find_spill(ttf_session *s, uint32_t index) {
  if (index >= s->spill_count) {
    const size_t count = (size_t)index + 1;
    ttf_spill *larger = realloc(s->spills, count * sizeof *larger);
    if (!larger) return NULL;
    memset(larger + s->spill_count, 0, (count - s->spill_count) * sizeof *larger);
    s->spills = larger;
    s->spill_count = count;
  }
  return &s->spills[index];
}

static int is_here(const ttf_session *s, const tta_want *want) {
  return want->index < s->spill_count && s->spills[want->index].is_here && s->spills[want->index].bytes == want->bytes;
}

/* How much of the script goes into one call. */
typedef struct batch {
  size_t count, in_bytes, out_bytes;
} batch;

static batch next_batch(const ttf_session *s) {
  batch b = {0, 0, 0};
  for (; s->at + b.count < s->script_count; b.count++) {
    const tta_want *want = &s->script[s->at + b.count];
    if (want->bytes > TTA_WINDOW_BYTES && !is_in_place(want)) break;
    if (is_given(want)) {
      if (want->bytes > TTA_WINDOW_BYTES - b.out_bytes) break;
      b.out_bytes += want->bytes;
    } else {
      if (item_bytes(want) > ITEMS_BYTES - b.in_bytes) break;
      if (want->event == TT_WANT_FETCH && !is_here(s, want)) break;
      b.in_bytes += item_bytes(want);
    }
  }
  return b;
}

static int nothing_fits(ttf_session *s, const tta_want *want) {
  if (want->event == TT_WANT_CHUNK)
    return fail(s, TT_ERROR_BUNDLE, "chunk %u of %u bytes is larger than a window", (unsigned)want->index,
                (unsigned)want->bytes);
  if (want->bytes <= TTA_WINDOW_BYTES)
    return fail(s, TT_ERROR_PROGRAM, "the program fetches spill %u before it was made", (unsigned)want->index);
  return fail(s, TT_ERROR_PROGRAM,
              "rows of %u bytes are larger than a window of %d: compile the network for less"
              " secure memory",
              (unsigned)want->bytes, (int)TTA_WINDOW_BYTES);
}

static int give_input(ttf_session *s, const tta_want *want, const ttf_client *client, uint8_t *sealed) {
  const uint64_t begun = nanoseconds();
  const int failed = !client || client->give_input(client->context, want, sealed);
  s->client_nanoseconds += nanoseconds() - begun;
  if (failed) return fail(s, TTF_FAILED_CALLER, "input %u was not given", (unsigned)want->index);
  s->stats.inputs++;
  s->stats.input_bytes += want->bytes;
  return 0;
}

static int give_chunk(ttf_session *s, const tta_want *want, uint8_t *item) {
  if (want->index >= s->chunk_count || s->places[want->index + 1] - s->places[want->index] != want->bytes)
    return fail(s, TT_ERROR_PROGRAM, "the program asks for chunk %u", (unsigned)want->index);
  const uint64_t place = s->places[want->index];
  if (!is_in_place(want)) {
    memcpy(item + sizeof *want, s->bundle + place, want->bytes);
    return 0;
  }
  tta_want head = *want;
  head.event |= TTA_IN_PLACE;
  memcpy(item, &head, sizeof head);
  memcpy(item + sizeof head, &place, sizeof place);
  return 0;
}

static int write_item(ttf_session *s, const tta_want *want, const ttf_client *client, uint8_t *item) {
  uint8_t *sealed = item + sizeof *want;
  memcpy(item, want, sizeof *want);
  switch (want->event) {
    case TT_WANT_CHUNK:
      return give_chunk(s, want, item);
    case TT_WANT_INPUT:
      return give_input(s, want, client, sealed);
    case TT_WANT_FETCH:
      memcpy(sealed, s->spills[want->index].sealed, want->bytes);
      s->stats.fetches++;
      s->stats.fetch_bytes += want->bytes;
      return 0;
    default:
      return fail(s, TTF_FAILED_CALL, "the trusted application answers nonsense");
  }
}

static int keep_spill(ttf_session *s, const tta_want *given, const uint8_t *sealed) {
  ttf_spill *spill = find_spill(s, given->index);
  if (spill && spill->bytes != given->bytes) {
    free(spill->sealed);
    s->stats.spill_memory_bytes -= spill->bytes;
    *spill = (ttf_spill){malloc(given->bytes), given->bytes, 0};
    s->stats.spill_memory_bytes += given->bytes;
  }
  if (!spill || !spill->sealed)
    return fail(s, TTF_FAILED_CALLER, "no memory for a spill of %u bytes", (unsigned)given->bytes);
  memcpy(spill->sealed, sealed, given->bytes);
  spill->is_here = 1;
  s->stats.spills++;
  s->stats.spill_bytes += given->bytes;
  return 0;
}

static int take_output(ttf_session *s, const tta_want *given, const ttf_client *client, const uint8_t *sealed) {
  s->stats.outputs++;
  s->stats.output_bytes += given->bytes;
  const uint64_t begun = nanoseconds();
  const int failed = !client || client->take_output(client->context, given, sealed);
  s->client_nanoseconds += nanoseconds() - begun;
  return failed ? fail(s, TTF_FAILED_CALLER, "output %u was not taken", (unsigned)given->index) : 0;
}

static int write_items(ttf_session *s, const ttf_client *client, size_t count) {
  uint8_t *item = s->window.buffer;
  for (size_t i = s->at; i < s->at + count; i++) {
    const tta_want *want = &s->script[i];
    if (is_given(want)) continue;
    if (write_item(s, want, client, item)) return s->failed;
    item += item_bytes(want);
  }
  return 0;
}

/* Counts the chunks that were used, and takes what was given. */
static int take_given(ttf_session *s, const ttf_client *client, size_t served) {
  const uint8_t *sealed = (const uint8_t *)s->window.buffer + GIVEN_OFFSET;
  for (size_t i = s->at; i < s->at + served; i++) {
    const tta_want *want = &s->script[i];
    s->stats.chunks += want->event == TT_WANT_CHUNK;
    s->stats.chunk_bytes += want->event == TT_WANT_CHUNK ? want->bytes : 0;
    if (!is_given(want)) continue;
    if (want->event == TT_GIVE_SPILL ? keep_spill(s, want, sealed) : take_output(s, want, client, sealed))
      return s->failed;
    sealed += want->bytes;
  }
  return 0;
}

static int exchange(ttf_session *s, const ttf_client *client, uint32_t command) {
  TEEC_Operation operation = {0};
  const int begins = command == TTA_START;
  if (!is_known(s) && !begins && foresee(s)) return s->failed;
  const batch b = next_batch(s);
  if (!b.count && !begins) return nothing_fits(s, &s->script[s->at]);
  if (write_items(s, client, b.count)) return s->failed;
  part(&operation.params[0], &s->window, 0, b.in_bytes);
  part(&operation.params[1], &s->window, GIVEN_OFFSET, b.out_bytes);
  operation.params[3].tmpref = (TEEC_TempMemoryReference){(void *)(uintptr_t)s->bundle, s->bundle_bytes};
  if (call(s, command, &operation, TEEC_MEMREF_PARTIAL_INPUT, TEEC_MEMREF_PARTIAL_OUTPUT,
           TTF_IN_PLACE ? TEEC_MEMREF_TEMP_INPUT : TEEC_NONE))
    return s->failed;
  const size_t served = (size_t)s->reply.fed + s->reply.given;
  if (served > b.count || (served < b.count && is_known(s)) || (!served && !begins))
    return fail(s, TTF_FAILED_CALL, "the trusted application answers nonsense");
  if (take_given(s, client, served)) return s->failed;
  s->at += served;
  if (!is_known(s)) s->script_count = s->at;
  return 0;
}

/* command: TTA_START to begin a run. */
static int pump(ttf_session *s, const ttf_client *client, uint32_t command) {
  s->at = 0;
  if (!is_known(s)) s->script_count = 0;
  for (size_t i = 0; i < s->spill_count; i++) s->spills[i].is_here = 0;
  while (command == TTA_START || s->reply.want.event != TT_READY) {
    if (exchange(s, client, command)) return s->failed;
    command = TTA_EXCHANGE;
  }
  return 0;
}

/* ---- sessions */

static int connect_application(ttf_session *s, TEEC_Context *context) {
  uint32_t origin = 0;
  TEEC_Result result = TEEC_OpenSession(context, &s->session, &application, TEEC_LOGIN_PUBLIC, NULL, NULL, &origin);
  s->is_open = result == TEEC_SUCCESS;
  if (s->is_open) {
    s->window.size = SHARED_BYTES;
    s->window.flags = TEEC_MEM_INPUT | TEEC_MEM_OUTPUT;
    s->small.size = SMALL_BYTES;
    s->small.flags = TEEC_MEM_INPUT | TEEC_MEM_OUTPUT;
    result = TEEC_AllocateSharedMemory(context, &s->window);
    if (result == TEEC_SUCCESS) result = TEEC_AllocateSharedMemory(context, &s->small);
  }
  if (result == TEEC_SUCCESS) return 0;
  return fail(s, TTF_FAILED_DEVICE, "%s (0x%08x from %u)", ttf_explain(result), (unsigned)result, (unsigned)origin);
}

/* Without tee-supplicant the driver would wait for it, and say nothing. It alone may hold that device: who can open it
 * has found nobody there. */
static int check_supplicant(ttf_session *s) {
  const int device = open("/dev/teepriv0", O_RDWR | O_CLOEXEC);
  if (device < 0) return 0;
  (void)close(device);
  return fail(s, TTF_FAILED_DEVICE, "tee-supplicant does not run: start it (tee-supplicant -d /dev/teepriv0)");
}

/* The reply says that there is no engine yet, which is no failure. */
static int ask(ttf_session *s, uint32_t command, TEEC_Operation *operation, uint32_t type0) {
  uint32_t origin = 0;
  operation->paramTypes = TEEC_PARAM_TYPES(type0, TEEC_NONE, TEEC_MEMREF_PARTIAL_OUTPUT, TEEC_NONE);
  part(&operation->params[2], &s->small, REPLY_OFFSET, sizeof(tta_reply));
  const TEEC_Result result = TEEC_InvokeCommand(&s->session, command, operation, &origin);
  if (result == TEEC_SUCCESS) return 0;
  return fail(s, TTF_FAILED_CALL, "%s (0x%08x from %u)", ttf_explain(result), (unsigned)result, (unsigned)origin);
}

int ttf_connect(ttf_session *s, TEEC_Context *context) {
  TEEC_Operation operation = {0};
  memset(s, 0, sizeof *s);
  if (check_supplicant(s) || connect_application(s, context) || ask(s, TTA_INFO, &operation, TEEC_VALUE_OUTPUT))
    return s->failed;
  s->stats.heap_bytes = operation.params[0].value.a;
  s->flags = operation.params[0].value.b;
  return 0;
}

int ttf_identify(ttf_session *s, tta_identity *identity) {
  TEEC_Operation operation = {0};
  part(&operation.params[0], &s->small, KEYS_OFFSET, sizeof *identity);
  if (ask(s, TTA_IDENTITY, &operation, TEEC_MEMREF_PARTIAL_OUTPUT)) return s->failed;
  memcpy(identity, (uint8_t *)s->small.buffer + KEYS_OFFSET, sizeof *identity);
  return 0;
}

static int open_engine(ttf_session *s, const void *keys, size_t key_bytes) {
  TEEC_Operation operation = {0};
  uint8_t *shared_keys = (uint8_t *)s->small.buffer + KEYS_OFFSET;
  memcpy(s->window.buffer, s->bundle, s->preamble_bytes);
  memcpy(shared_keys, keys, key_bytes);
  part(&operation.params[0], &s->window, 0, s->preamble_bytes);
  part(&operation.params[1], &s->small, KEYS_OFFSET, key_bytes);
  const int failed = call(s, TTA_OPEN, &operation, TEEC_MEMREF_PARTIAL_INPUT, TEEC_MEMREF_PARTIAL_INPUT, TEEC_NONE);
  memset(shared_keys, 0, key_bytes);
  return failed;
}

int ttf_open(ttf_session *s, const void *keys, size_t key_bytes) {
  const uint64_t begun = nanoseconds();
  if (s->failed) return s->failed;
  if (key_bytes != sizeof(tta_opening) && key_bytes != sizeof(tta_keys))
    return fail(s, TTF_FAILED_CALLER, "%zu bytes of keys are none", key_bytes);
  s->is_sealed = key_bytes == sizeof(tta_opening);
  if (!s->is_sealed && !(s->flags & TTA_DEVELOPMENT))
    return fail(s, TTF_FAILED_DEVICE,
                "this trusted application takes sealed keys only: seal the model key to this device with 'tinytee"
                " provision', and give it as --sealed-key");
  if (open_engine(s, keys, key_bytes) || pump(s, NULL, TTA_EXCHANGE)) return s->failed;
  s->stats.open_nanoseconds = nanoseconds() - begun;
  return 0;
}

int ttf_run(ttf_session *s, const ttf_client *client) {
  const uint64_t begun = nanoseconds();
  s->client_nanoseconds = 0;
  if (s->failed || pump(s, client, TTA_START)) return s->failed;
  s->stats.last_run_nanoseconds = nanoseconds() - begun - s->client_nanoseconds;
  s->stats.run_nanoseconds += s->stats.last_run_nanoseconds;
  s->stats.runs++;
  return 0;
}

void ttf_close(ttf_session *s) {
  if (s->is_open) TEEC_CloseSession(&s->session);
  if (s->window.buffer) TEEC_ReleaseSharedMemory(&s->window);
  if (s->small.buffer) TEEC_ReleaseSharedMemory(&s->small);
  for (size_t i = 0; i < s->spill_count; i++) free(s->spills[i].sealed);
  free(s->spills);
  free(s->places);
  free(s->script);
  memset(s, 0, sizeof *s);
}
