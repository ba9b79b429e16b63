/* See the header. The bundle is hostile: its preamble is copied once, checked, and only the copy is used; chunks are
 * given to the core at places that lie within the file, and the core authenticates each. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../float_mode.h"
#include "kernels/kernels.h"
#include "port.h"
#include "tinytee_host.h"
#include "tinytee_program.h"
#include "wipe.h"

enum { EXPECTED_BYTES = 64 * 1024, WRAPPED_BYTES = TT_KEY_BYTES + TT_TAG_BYTES, ERROR_TEXT_BYTES = 200 };

typedef struct spill {
  uint8_t *sealed;
  size_t bytes, capacity;
} spill;

struct tth_session {
  tth_port *port;
  tth_arena arena;
  tt_engine *engine;
  tt_status status;
  pid_t owner;
  const uint8_t *bundle;
  uint8_t *preamble;
  size_t preamble_bytes;
  size_t *places; /* chunk k: bundle[places[k]] .. bundle[places[k + 1]] */
  uint32_t chunk_count;
  uint32_t expected_after, expected_last; /* in this run, chunks that the core was told to expect */
  spill *spills;
  size_t spill_count;
  uint8_t *scratch; /* one sealed block of rows */
  size_t scratch_bytes;
  size_t *given; /* elements of each output of this run */
  tth_stats stats;
  char error[ERROR_TEXT_BYTES];
};

/* The first failure sticks: it wipes everything secret. */
__attribute__((format(printf, 3, 4))) static tt_status fail(tth_session *session, tt_status status, const char *format,
                                                            ...) {
  if (session->status != TT_OK) return session->status;
  va_list arguments;
  va_start(arguments, format);
  (void)vsnprintf(session->error, sizeof session->error, format, arguments);
  va_end(arguments);
  session->status = status;
  if (session->engine != NULL) session->stats.peak_bytes = tt_peak_bytes(session->engine);
  if (session->arena.memory != NULL) tthi_wipe(session->arena.memory, session->arena.bytes);
  session->engine = NULL;
  if (session->port != NULL) {
    session->stats.aead_seconds = tthi_port_aead_seconds(session->port);
    tthi_port_forget(session->port);
  }
  return status;
}

static tt_status core_failed(tth_session *session, tt_status status) {
  switch (status) {
    case TT_ERROR_AUTHENTICATION:
      return fail(session, status, "the key is not this bundle's key, or the bundle was changed");
    case TT_ERROR_PROGRAM:
      return fail(session, status, "the core refuses the bundle's program");
    case TT_ERROR_BUNDLE:
      return fail(session, status, "the bundle's preamble or its weights are malformed");
    case TT_ERROR_ARENA:
      return fail(session, status, "the core refuses the arena");
    case TT_ERROR_PORT:
      return fail(session, status, "the bundle's suite is not available here");
    default:
      return fail(session, status, "the core refused a call (status %d)", (int)status);
  }
}

static tt_status no_memory(tth_session *session, size_t bytes) {
  return fail(session, TT_ERROR_ARENA, "no memory for %zu bytes", bytes);
}

/* Checks the preamble and finds every chunk. */
static tt_status read_preamble(tth_session *session, const uint8_t *bundle, size_t bundle_bytes) {
  static const uint8_t magic[8] = {'t', 'i', 'n', 'y', 't', 'e', 'e', 0};
  tt_bundle_header header;
  if (bundle_bytes < sizeof header) return fail(session, TT_ERROR_BUNDLE, "not a tinytee bundle: too short");
  memcpy(&header, bundle, sizeof header);
  if (memcmp(header.magic, magic, sizeof magic) != 0) return fail(session, TT_ERROR_BUNDLE, "not a tinytee bundle");
  if (header.version != TT_BUNDLE_VERSION || header.header_bytes != sizeof header)
    return fail(session, TT_ERROR_BUNDLE, "bundle of version %u, this library reads %d", (unsigned)header.version,
                (int)TT_BUNDLE_VERSION);
  if (header.manifest_bytes > TTH_MAX_MANIFEST_BYTES || header.chunk_count == 0 ||
      header.chunk_count > TTH_MAX_CHUNKS || header.arena_bytes < TT_ENGINE_BYTES)
    return fail(session, TT_ERROR_BUNDLE, "the bundle's header is out of bounds");
  size_t table_offset = sizeof header + header.manifest_bytes;
  session->preamble_bytes = table_offset + (size_t)header.chunk_count * 4 + WRAPPED_BYTES;
  if (session->preamble_bytes > bundle_bytes) return fail(session, TT_ERROR_BUNDLE, "the bundle is truncated");
  session->preamble = malloc(session->preamble_bytes);
  session->places = malloc(((size_t)header.chunk_count + 1) * sizeof *session->places);
  if (session->preamble == NULL || session->places == NULL) return no_memory(session, session->preamble_bytes);
  memcpy(session->preamble, &header, sizeof header);
  memcpy(session->preamble + sizeof header, bundle + sizeof header, session->preamble_bytes - sizeof header);
  size_t place = session->preamble_bytes;
  for (uint32_t k = 0; k < header.chunk_count; k++) {
    uint32_t sealed_bytes;
    memcpy(&sealed_bytes, session->preamble + table_offset + (size_t)k * 4, sizeof sealed_bytes);
    session->places[k] = place;
    if (sealed_bytes < TT_TAG_BYTES || sealed_bytes > bundle_bytes - place)
      return fail(session, TT_ERROR_BUNDLE, "the bundle is truncated in chunk %u", (unsigned)k);
    place += sealed_bytes;
  }
  session->places[header.chunk_count] = place;
  if (place != bundle_bytes) return fail(session, TT_ERROR_BUNDLE, "bytes follow the bundle's last chunk");
  session->chunk_count = header.chunk_count;
  session->bundle = bundle;
  session->stats.suite = header.suite;
  session->stats.arena_bytes = header.arena_bytes;
  return TT_OK;
}

static tt_status need_scratch(tth_session *session, size_t bytes) {
  if (bytes <= session->scratch_bytes) return TT_OK;
  uint8_t *larger = realloc(session->scratch, bytes);
  if (larger == NULL) return no_memory(session, bytes);
  session->scratch = larger;
  session->scratch_bytes = bytes;
  return TT_OK;
}

/* The spill's place in untrusted memory, with room for that many bytes. */
static tt_status need_spill(tth_session *session, uint32_t index, size_t bytes, spill **found) {
  if (index >= session->spill_count) {
    size_t count = (size_t)index + 1 > 2 * session->spill_count ? (size_t)index + 1 : 2 * session->spill_count;
    spill *larger = realloc(session->spills, count * sizeof *larger);
    if (larger == NULL) return no_memory(session, count * sizeof *larger);
    memset(larger + session->spill_count, 0, (count - session->spill_count) * sizeof *larger);
    session->spills = larger;
    session->spill_count = count;
  }
  spill *one = &session->spills[index];
  if (bytes > one->capacity) {
    free(one->sealed);
    session->stats.spill_memory_bytes -= one->capacity;
    *one = (spill){malloc(bytes), 0, 0};
    if (one->sealed == NULL) return no_memory(session, bytes);
    one->capacity = bytes;
    session->stats.spill_memory_bytes += bytes;
  }
  one->bytes = bytes;
  *found = one;
  return TT_OK;
}

/* Tells the core what to bring near after a chunk: the next ones up to a large one, for biases that come between two
 * blocks of weights are not worth it alone. That holds until the last of them comes. */
static void expect_after(tth_session *session, uint32_t index) {
  const size_t *places = session->places;
  if (index >= session->expected_after && index < session->expected_last) return;
  uint32_t last = index;
  while (last + 1 < session->chunk_count && places[last + 1] - places[index + 1] < EXPECTED_BYTES) last++;
  session->expected_after = index;
  session->expected_last = last;
  tt_expect(session->engine, session->bundle + places[index + 1], places[last + 1] - places[index + 1]);
}

static tt_status feed_chunk(tth_session *session, const tt_want *want) {
  if (want->index >= session->chunk_count)
    return fail(session, TT_ERROR_PROGRAM, "the program asks for chunk %u of %u", (unsigned)want->index,
                (unsigned)session->chunk_count);
  const uint8_t *sealed = session->bundle + session->places[want->index];
  size_t bytes = session->places[want->index + 1] - session->places[want->index];
  if (bytes != want->bytes)
    return fail(session, TT_ERROR_PROGRAM, "chunk %u has %zu bytes, the program asks for %zu", (unsigned)want->index,
                bytes, want->bytes);
  session->stats.chunks++;
  session->stats.chunk_bytes += bytes;
  expect_after(session, want->index);
  tt_status status = tt_feed(session->engine, sealed, bytes);
  return status == TT_OK ? TT_OK : core_failed(session, status);
}

static size_t elem_bytes(const tt_want *want) { return want->scale > 0.0f ? sizeof(uint8_t) : sizeof(float); }

/* Pieces that wanted rows are sealed in. */
static uint32_t piece_count(const tt_want *want) {
  return want->piece_rows != 0 && want->rows != 0 ? (want->rows - 1) / want->piece_rows + 1 : 1;
}

/* The first element and the number of elements of the rows wanted; fails unless they lie within elems. */
static tt_status find_rows(tth_session *session, const tt_want *want, const char *what, size_t elems, size_t *first,
                           size_t *count) {
  size_t tag_bytes = (size_t)piece_count(want) * TT_TAG_BYTES;
  size_t bytes = want->bytes < tag_bytes ? 0 : want->bytes - tag_bytes;
  size_t row_bytes = want->rows == 0 ? 0 : bytes / want->rows;
  if (row_bytes == 0 || row_bytes % elem_bytes(want) != 0 || row_bytes * want->rows != bytes)
    return fail(session, TT_ERROR_PROGRAM, "rows of no size of %s %u", what, (unsigned)want->index);
  size_t row_elems = row_bytes / elem_bytes(want), rows_there = elems / row_elems;
  if (want->row > rows_there || want->rows > rows_there - want->row || rows_there * row_elems != elems)
    return fail(session, TT_ERROR_STATE, "%s %u has %zu elements, which the program's rows of %zu do not match", what,
                (unsigned)want->index, elems, row_elems);
  *first = want->row * row_elems;
  *count = want->rows * row_elems;
  return TT_OK;
}

static void gather_pixels(const tti_kernels *kernels, const tth_input *input, const float *from, size_t pixels,
                          float *restrict to) {
  const size_t channels = input->channels;
  const ptrdiff_t right = input->pixel_stride, deep = input->channel_stride;
  if (right == 1) { /* plane by plane */
    kernels->interleave_floats(from, channels, deep, pixels, to);
    return;
  }
  for (size_t x = 0; x < pixels; x++)
    for (size_t c = 0; c < channels; c++) to[x * channels + c] = from[(ptrdiff_t)x * right + (ptrdiff_t)c * deep];
}

/* Rows of an input that are to be fed, in pieces that are sealed alone; an item is a piece. Each is gathered, or
 * quantized, into its place in the scratch, and sealed there. */
typedef struct feeding {
  tth_session *session;
  const tth_input *input;
  const tt_want *want;
  size_t row_elems, places_bytes; /* behind the pieces' places lies a row of floats for each thread */
  int failed;
} feeding;

/* Rows of an input, densely: where they lie, or gathered into 'to'. */
static const float *dense_rows(const feeding *f, size_t row, size_t rows, float *to) {
  const tth_input *input = f->input;
  if (input->channels == 0) return input->values + row * f->row_elems;
  const tti_kernels *kernels = tth_port_hooks(f->session->port)->kernels;
  for (size_t y = 0; y < rows; y++)
    gather_pixels(kernels, input, input->values + (ptrdiff_t)(row + y) * input->row_stride,
                  f->row_elems / input->channels, to + y * f->row_elems);
  return to;
}

/* Quantizes rows of an input, as the core wants them. 'place', as large as a row of floats, holds one meanwhile. */
static const uint8_t *quantize_rows(const feeding *f, size_t row, size_t rows, uint8_t *place, uint8_t *to) {
  const tth_input *input = f->input;
  const tti_kernels *kernels = tth_port_hooks(f->session->port)->kernels;
  const float scale = f->want->scale, zero = (float)f->want->zero_point;
  const tti_rounding rounding = {0.0f - zero, 255.0f - zero, (uint8_t)f->want->zero_point, 0, 1};
  const size_t row_elems = f->row_elems;
  if (input->channels == 0) {
    kernels->i8->quantize(input->values + row * row_elems, scale, rows * row_elems, to, &rounding);
    return to;
  }
  const size_t channels = input->channels, pixels = row_elems / channels;
  float *gathered = (float *)(void *)place;
  for (size_t y = 0; y < rows; y++) {
    const float *from = input->values + (ptrdiff_t)(row + y) * input->row_stride;
    uint8_t *to_row = to + y * row_elems;
    if (input->pixel_stride == 1) {
      for (size_t c = 0; c < channels; c++)
        kernels->i8->quantize(from + (ptrdiff_t)c * input->channel_stride, scale, pixels, place + c * pixels,
                              &rounding);
      kernels->interleave_bytes(place, channels, (ptrdiff_t)pixels, pixels, to_row);
    } else {
      gather_pixels(kernels, input, from, pixels, gathered);
      kernels->i8->quantize(gathered, scale, row_elems, to_row, &rounding);
    }
  }
  tthi_wipe(place, row_elems * sizeof(float));
  return to;
}

static void seal_pieces(void *argument, uint32_t item, uint32_t end, uint32_t worker) {
  feeding *f = argument;
  const tt_want *want = f->want;
  const size_t row_bytes = f->row_elems * elem_bytes(want);
  uint8_t *row_place = f->session->scratch + f->places_bytes + worker * f->row_elems * sizeof(float);
  for (; item < end; item++) {
    const size_t first = (size_t)item * want->piece_rows, left = want->rows - first;
    const size_t rows = left < want->piece_rows ? left : want->piece_rows, bytes = rows * row_bytes;
    uint8_t *place = f->session->scratch + first * row_bytes + (size_t)item * TT_TAG_BYTES, nonce[TT_NONCE_BYTES];
    memcpy(nonce, want->nonce, sizeof nonce);
    nonce[1] = (uint8_t)item;
    const void *plain = want->scale > 0.0f ? (const void *)quantize_rows(f, want->row + first, rows, row_place, place)
                                           : dense_rows(f, want->row + first, rows, (float *)(void *)place);
    if (tthi_port_client_seal(f->session->port, nonce, plain, bytes, place) == 0) continue;
    tthi_wipe(place, bytes);
    __atomic_store_n(&f->failed, 1, __ATOMIC_RELAXED);
  }
}

static tt_status feed_input(tth_session *session, const tt_want *want, const tth_input *inputs, size_t input_count) {
  if (want->index >= input_count)
    return fail(session, TT_ERROR_STATE, "the program asks for input %u of %zu", (unsigned)want->index, input_count);
  size_t first = 0, count = 0;
  tt_status status = find_rows(session, want, "input", inputs[want->index].elems, &first, &count);
  if (status != TT_OK) return status;
  feeding f = {session, &inputs[want->index], want, count / want->rows, (want->bytes + 63) / 64 * 64, 0};
  if (f.input->channels != 0 && f.row_elems % f.input->channels != 0)
    return fail(session, TT_ERROR_STATE, "input %u has %zu channels, which the program's rows of %zu do not match",
                (unsigned)want->index, f.input->channels, f.row_elems);
  const uint32_t pieces = piece_count(want);
  status = need_scratch(session, f.places_bytes + pieces * f.row_elems * sizeof(float));
  if (status != TT_OK) return status;
  if (pieces > 1) {
    const tt_port *hooks = tth_port_hooks(session->port);
    hooks->parallel(hooks->context, pieces, seal_pieces, &f, pieces);
  } else {
    seal_pieces(&f, 0, 1, 0);
  }
  if (f.failed) return fail(session, TT_ERROR_PORT, "an input could not be sealed");
  session->stats.inputs++;
  session->stats.input_bytes += want->bytes;
  status = tt_feed(session->engine, session->scratch, want->bytes);
  return status == TT_OK ? TT_OK : core_failed(session, status);
}

static tt_status take_output(tth_session *session, const tt_want *want, const tth_output *outputs,
                             size_t output_count) {
  if (want->index >= output_count)
    return fail(session, TT_ERROR_STATE, "the program gives output %u of %zu", (unsigned)want->index, output_count);
  size_t first = 0, count = 0;
  tt_status status = find_rows(session, want, "output", outputs[want->index].elems, &first, &count);
  if (status == TT_OK) status = need_scratch(session, want->bytes);
  if (status != TT_OK) return status;
  status = tt_take(session->engine, session->scratch, want->bytes);
  if (status != TT_OK) return core_failed(session, status);
  float *values = outputs[want->index].values + first;
  const int is_quantized = want->scale > 0.0f;
  void *plain = is_quantized ? (void *)session->scratch : values;
  const size_t bytes = count * elem_bytes(want);
  if (tthi_port_client_open(session->port, want->nonce, session->scratch, bytes, plain) != 0)
    return fail(session, TT_ERROR_AUTHENTICATION, "an output did not authenticate");
  if (is_quantized) {
    tth_port_hooks(session->port)
        ->kernels->i8->dequantize(session->scratch, (uint8_t)want->zero_point, want->scale, count, values);
    tthi_wipe(session->scratch, bytes);
  }
  session->given[want->index] += count;
  session->stats.outputs++;
  session->stats.output_bytes += want->bytes;
  return TT_OK;
}

static tt_status take_spill(tth_session *session, const tt_want *want) {
  spill *place = NULL;
  tt_status status = need_spill(session, want->index, want->bytes, &place);
  if (status != TT_OK) return status;
  session->stats.spills++;
  session->stats.spill_bytes += want->bytes;
  status = tt_take(session->engine, place->sealed, want->bytes);
  return status == TT_OK ? TT_OK : core_failed(session, status);
}

static tt_status feed_spill(tth_session *session, const tt_want *want) {
  if (want->index >= session->spill_count || session->spills[want->index].bytes != want->bytes)
    return fail(session, TT_ERROR_PROGRAM, "the program fetches spill %u before it was made", (unsigned)want->index);
  session->stats.fetches++;
  session->stats.fetch_bytes += want->bytes;
  tt_status status = tt_feed(session->engine, session->spills[want->index].sealed, want->bytes);
  return status == TT_OK ? TT_OK : core_failed(session, status);
}

/* Does what the core wants until it is ready. */
static tt_status pump(tth_session *session, const tth_input *inputs, size_t input_count, const tth_output *outputs,
                      size_t output_count) {
  tt_status status = TT_OK;
  while (status == TT_OK) {
    tt_want want;
    status = tt_poll(session->engine, &want);
    if (status != TT_OK) return core_failed(session, status);
    switch (want.event) {
      case TT_READY:
        return TT_OK;
      case TT_WANT_CHUNK:
        status = feed_chunk(session, &want);
        break;
      case TT_WANT_INPUT:
        status = feed_input(session, &want, inputs, input_count);
        break;
      case TT_WANT_FETCH:
        status = feed_spill(session, &want);
        break;
      case TT_GIVE_SPILL:
        status = take_spill(session, &want);
        break;
      case TT_GIVE_OUTPUT:
        status = take_output(session, &want, outputs, output_count);
        break;
      default:
        return fail(session, TT_ERROR_STATE, "the core gave no status for its failure");
    }
  }
  return status;
}

/* Authenticates the preamble before an arena is made to its measure; the core does so again, for itself. */
static tt_status authenticate_preamble(tth_session *session, const uint8_t *model_key) {
  const tt_port *hooks = tth_port_hooks(session->port);
  tt_bundle_header header;
  memcpy(&header, session->preamble, sizeof header);
  size_t associated_bytes = session->preamble_bytes - WRAPPED_BYTES;
  const uint8_t *wrapped = session->preamble + associated_bytes;
  uint8_t bundle_key[TT_KEY_BYTES];
  if (hooks->set_key(hooks->context, TT_KEY_MODEL, header.suite, model_key) != 0)
    return fail(session, TT_ERROR_PORT, "the bundle's suite (%u) is not available here", (unsigned)header.suite);
  int failed = hooks->open(hooks->context, TT_KEY_MODEL, header.wrap_nonce, session->preamble, associated_bytes,
                           wrapped, TT_KEY_BYTES, wrapped + TT_KEY_BYTES, bundle_key);
  tthi_wipe(bundle_key, sizeof bundle_key);
  return failed ? core_failed(session, TT_ERROR_AUTHENTICATION) : TT_OK;
}

static tt_status open_core(tth_session *session, const uint8_t *model_key) {
  const tt_port *hooks = tth_port_hooks(session->port);
  uint8_t io_key[TT_KEY_BYTES];
  tt_status status = TT_OK;
  if (hooks->random(hooks->context, io_key, sizeof io_key) != 0 ||
      tthi_port_client_key(session->port, session->stats.suite, io_key) != 0)
    status =
        fail(session, TT_ERROR_PORT, "the bundle's suite (%u) is not available here", (unsigned)session->stats.suite);
  if (status == TT_OK) {
    status = tt_open(session->arena.memory, session->stats.arena_bytes, hooks, session->preamble,
                     session->preamble_bytes, model_key, io_key, &session->engine);
    if (status != TT_OK) {
      session->engine = NULL;
      status = core_failed(session, status);
    }
  }
  tthi_wipe(io_key, sizeof io_key);
  return status == TT_OK ? pump(session, NULL, 0, NULL, 0) : status;
}

static tt_status open_session(tth_session *session, const uint8_t *bundle, size_t bundle_bytes,
                              const uint8_t *model_key, const tth_options *options) {
  session->owner = getpid();
  tt_status status = read_preamble(session, bundle, bundle_bytes);
  if (status != TT_OK) return status;
  session->port = tth_port_open(options);
  if (session->port == NULL)
    return fail(session, TT_ERROR_PORT, "instruction set '%s' is not available here, or no %u threads",
                options != NULL && options->isa != NULL ? options->isa : "portable",
                options != NULL && options->threads != 0 ? (unsigned)options->threads : 1U);
  session->stats.isa = tth_port_isa(session->port);
  status = authenticate_preamble(session, model_key);
  if (status != TT_OK) return status;
  if (tth_arena_open(&session->arena, session->stats.arena_bytes) != 0)
    return fail(session, TT_ERROR_ARENA, "the system does not give %zu bytes of memory", session->stats.arena_bytes);
  session->stats.arena_kind = session->arena.kind;
  return open_core(session, model_key);
}

tt_status tth_session_open(const uint8_t *bundle, size_t bundle_bytes, const uint8_t *model_key,
                           const tth_options *options, tth_session **opened, char *error, size_t error_bytes) {
  *opened = NULL;
  if (error_bytes != 0) error[0] = 0;
  double begun = tthi_seconds();
  tth_session *session = calloc(1, sizeof *session);
  if (session == NULL) return TT_ERROR_ARENA;
  tt_status status = open_session(session, bundle, bundle_bytes, model_key, options);
  if (status != TT_OK) {
    if (error_bytes != 0) (void)snprintf(error, error_bytes, "%s", session->error);
    tth_session_close(session);
    return status;
  }
  session->stats.open_seconds = tthi_seconds() - begun;
  *opened = session;
  return TT_OK;
}

static tt_status run(tth_session *session, const tth_input *inputs, size_t input_count, const tth_output *outputs,
                     size_t output_count) {
  if (session->status != TT_OK) return session->status;
  double begun = tthi_seconds();
  tthi_port_wake(session->port);
  free(session->given);
  session->given = calloc(output_count + 1, sizeof *session->given);
  if (session->given == NULL) return no_memory(session, output_count * sizeof *session->given);
  session->expected_after = session->expected_last = 0;
  tt_status status = tt_start(session->engine);
  if (status != TT_OK) return core_failed(session, status);
  status = pump(session, inputs, input_count, outputs, output_count);
  if (status != TT_OK) return status;
  for (size_t i = 0; i < output_count; i++)
    if (session->given[i] != outputs[i].elems)
      return fail(session, TT_ERROR_STATE, "the program gave %zu of output %zu's %zu elements", session->given[i], i,
                  outputs[i].elems);
  session->stats.runs++;
  session->stats.last_run_seconds = tthi_seconds() - begun;
  session->stats.run_seconds += session->stats.last_run_seconds;
  return TT_OK;
}

tt_status tth_session_run(tth_session *session, const tth_input *inputs, size_t input_count, const tth_output *outputs,
                          size_t output_count) {
  const uint64_t mode = ttp_float_mode();
  ttp_set_float_mode(TTP_FLOAT_MODE);
  const tt_status status = run(session, inputs, input_count, outputs, output_count);
  ttp_set_float_mode(mode);
  return status;
}

const char *tth_session_error(const tth_session *session) { return session->error; }

const uint8_t *tth_session_preamble(const tth_session *session, size_t *bytes) {
  *bytes = session->preamble_bytes;
  return session->preamble;
}

const tth_arena *tth_session_arena(const tth_session *session) { return &session->arena; }

void tth_session_stats(const tth_session *session, tth_stats *stats) {
  *stats = session->stats;
  if (session->status != TT_OK) return;
  stats->peak_bytes = tt_peak_bytes(session->engine);
  stats->aead_seconds = tthi_port_aead_seconds(session->port);
  size_t touched = session->arena.bytes;
  while (touched != 0 && session->arena.memory[touched - 1] == 0) touched--;
  stats->touched_bytes = touched;
}

void tth_session_close(tth_session *session) {
  if (session == NULL) return;
  if (session->owner == getpid()) { /* a child has no arena of its own */
    if (session->engine != NULL) tt_close(session->engine);
    tth_arena_close(&session->arena);
    tth_port_close(session->port);
  }
  for (size_t i = 0; i < session->spill_count; i++) free(session->spills[i].sealed);
  free(session->spills);
  free(session->scratch);
  free(session->given);
  free(session->places);
  free(session->preamble);
  free(session);
}
