/* The push machine; see tinytee.h. */
#include "core.h"

_Static_assert(sizeof(struct tt_engine) <= TT_ENGINE_BYTES, "the engine's state fits its place");
_Static_assert(sizeof(tt_bundle_header) == 80, "the header has no holes");
_Static_assert(sizeof(tt_instr) == 4 && sizeof(tt_tensor) == 32 && sizeof(tt_op) == 96 && sizeof(tt_spill) == 16 &&
                   sizeof(tt_part) == 28 && sizeof(tt_port_tensor) == 12,
               "records have no holes");

/* A memset that the compiler keeps. */
static void wipe(void *memory, size_t bytes) {
  tti_set(memory, 0, bytes);
  __asm__ volatile("" : : "r"(memory) : "memory");
}

static tt_status fail(tt_engine *e, tt_status status) {
  if (e->state == TTI_DEAD) return e->status;
  uint8_t *arena = e->arena;
  const size_t arena_bytes = e->arena_bytes;
  e->port->forget(e->port->context);
  wipe(arena, arena_bytes);
  e->arena = arena;
  e->arena_bytes = arena_bytes;
  e->status = status;
  e->state = TTI_DEAD;
  return status;
}

static void make_nonce(uint8_t nonce[TT_NONCE_BYTES], uint32_t domain, uint32_t run, uint32_t index) {
  const uint32_t words[3] = {domain, run, index};
  tti_set(nonce, 0, TT_NONCE_BYTES);
  for (int i = 0; i < 12; i++) nonce[i] = (uint8_t)(words[i / 4] >> 8 * (i % 4));
}

/* ---- open */

/* Unwraps the bundle's key with the preamble, which lies in the arena, and sets all keys. */
static tt_status set_keys(tt_engine *e, const uint8_t *preamble, size_t bytes, const uint8_t *model_key,
                          const uint8_t *io_key) {
  const tt_port *port = e->port;
  const tt_bundle_header *header = (const tt_bundle_header *)(const void *)preamble;
  const size_t associated = bytes - TT_KEY_BYTES - TT_TAG_BYTES;
  uint8_t key[TT_KEY_BYTES];
  tt_status status = TT_OK;
  if (port->set_key(port->context, TT_KEY_MODEL, header->suite, model_key) ||
      port->set_key(port->context, TT_KEY_IO, header->suite, io_key))
    return TT_ERROR_PORT;
  if (port->open(port->context, TT_KEY_MODEL, header->wrap_nonce, preamble, associated, preamble + associated,
                 TT_KEY_BYTES, preamble + associated + TT_KEY_BYTES, key))
    status = TT_ERROR_AUTHENTICATION;
  else if (port->set_key(port->context, TT_KEY_BUNDLE, header->suite, key) ||
           port->random(port->context, key, sizeof key) ||
           port->set_key(port->context, TT_KEY_SPILL, header->suite, key))
    status = TT_ERROR_PORT;
  wipe(key, sizeof key);
  return status;
}

/* Checks the public part, copied into the arena, and reads from it what the engine needs. */
static tt_status read_preamble(tt_engine *e, const uint8_t *preamble, size_t bytes) {
  const tt_bundle_header *h = (const tt_bundle_header *)(const void *)preamble;
  if (!tti_equal(h->magic, "tinytee", 8) || h->version != TT_BUNDLE_VERSION || h->header_bytes != sizeof *h)
    return TT_ERROR_BUNDLE;
  const uint64_t expected =
      sizeof *h + (uint64_t)h->manifest_bytes + (uint64_t)h->chunk_count * 4 + TT_KEY_BYTES + TT_TAG_BYTES;
  if (h->chunk_count == 0 || expected != bytes) return TT_ERROR_BUNDLE;
  if (h->arena_bytes > e->arena_bytes) return TT_ERROR_ARENA;
  uint32_t sealed;
  tti_copy(&sealed, preamble + sizeof *h + h->manifest_bytes, sizeof sealed);
  if (sealed <= TT_TAG_BYTES || sealed - TT_TAG_BYTES > e->arena_bytes - TT_ENGINE_BYTES) return TT_ERROR_BUNDLE;
  e->program_bytes = sealed - TT_TAG_BYTES;
  e->declared_bytes = h->arena_bytes;
  return TT_OK;
}

tt_status tt_open(void *arena, size_t arena_bytes, const tt_port *port, const uint8_t *preamble, size_t preamble_bytes,
                  const uint8_t *model_key, const uint8_t *io_key, tt_engine **engine) {
  *engine = NULL;
  if (!arena || (uintptr_t)arena % TT_ALIGN || arena_bytes < TT_ENGINE_BYTES || arena_bytes > UINT32_MAX)
    return TT_ERROR_ARENA;
  wipe(arena, arena_bytes);
  if (preamble_bytes < sizeof(tt_bundle_header) + TT_KEY_BYTES + TT_TAG_BYTES) return TT_ERROR_BUNDLE;
  if (preamble_bytes > arena_bytes - TT_ENGINE_BYTES) return TT_ERROR_ARENA;
  tt_engine *e = arena;
  e->arena = arena;
  e->arena_bytes = arena_bytes;
  e->port = port;
  uint8_t *copy = e->arena + TT_ENGINE_BYTES;
  tti_copy(copy, preamble, preamble_bytes);
  e->high_water = TT_ENGINE_BYTES + preamble_bytes;
  tt_status status = read_preamble(e, copy, preamble_bytes);
  if (status == TT_OK) status = set_keys(e, copy, preamble_bytes, model_key, io_key);
  if (status != TT_OK) return fail(e, status);
  wipe(copy, preamble_bytes);
  *engine = e;
  return TT_OK;
}

void tt_close(tt_engine *e) {
  if (!e) return;
  (void)fail(e, TT_ERROR_STATE);
  wipe(e->arena, e->arena_bytes);
}

void tt_expect(tt_engine *e, const void *sealed, size_t bytes) {
  if (e->state == TTI_DEAD) return;
  const size_t second = e->program.head && tti_workers(e) > 1 ? bytes / 8 * 3 : 0;
  e->expected[0] = (tti_ahead){(uintptr_t)sealed, bytes - second};
  e->expected[1] = (tti_ahead){(uintptr_t)sealed + bytes - second, second};
}

size_t tt_peak_bytes(const tt_engine *e) { return e->high_water; }

/* ---- what is wanted */

static tti_instr next_instr(const tt_engine *e) { return tti_instr_at(&e->program, e->next); }

static const tt_spill *spill_of(const tti_program *p, tti_instr instr) {
  return &p->spills[p->tensors[instr.index].home - 1];
}

static uint32_t output_rows(const tti_program *p, tti_instr instr) {
  const tt_port_tensor *port = &p->ports[instr.index];
  return tti_min(port->rows_per_chunk, p->tensors[port->tensor].height - instr.arg);
}

static size_t dense_bytes(const tt_tensor *t, uint32_t rows) {
  return (size_t)rows * t->width * t->channels * t->elem_bytes;
}

/* Where a wanted chunk's plaintext goes; *piece: bytes of the pieces that it is sealed in. */
static tt_load wanted_load(const tt_engine *e, uint32_t *piece) {
  const tti_program *p = &e->program;
  *piece = p->head->piece_bytes;
  if (e->coming.bytes) return e->coming;
  const tti_instr instr = next_instr(e);
  if (instr.code == TT_INSTR_LOAD) return p->loads[instr.arg];
  const tt_op *op = &p->ops[instr.index];
  const uint32_t bytes = (uint32_t)tti_block_bytes(op, tti_block_at(p, op, e->block));
  if (tti_piece_rows(op)) *piece = (uint32_t)tti_panel_bytes(op, tti_piece_rows(op));
  return (tt_load){op->first_chunk + e->block, op->weights, bytes};
}

static void want_load(const tt_engine *e, tt_want *want) {
  uint32_t piece;
  const tt_load load = wanted_load(e, &piece);
  want->event = TT_WANT_CHUNK;
  want->index = load.chunk;
  want->bytes = load.bytes + (size_t)tti_divide_up(load.bytes, piece) * TT_TAG_BYTES;
}

/* What y-planes that cross the boundary are. */
static void describe(const tti_program *p, tti_instr instr, tt_want *want) {
  const tt_port_tensor *port = &p->ports[instr.index];
  const tt_tensor *t = &p->tensors[port->tensor];
  want->index = port->port;
  want->bytes = dense_bytes(t, want->rows) + TT_TAG_BYTES;
  want->scale = port->scale;
  want->zero_point = t->zero_point;
}

static void want_instr(const tt_engine *e, tt_want *want) {
  const tti_program *p = &e->program;
  const tti_instr instr = next_instr(e);
  if (instr.code == TT_INSTR_LOAD || instr.code == TT_INSTR_STREAM) {
    want_load(e, want);
  } else if (instr.code == TT_INSTR_INPUT) {
    want->event = TT_WANT_INPUT;
    want->row = p->tensors[p->ports[instr.index].tensor].produced;
    want->rows = instr.arg - want->row;
    describe(p, instr, want);
    want->piece_rows = tti_divide_up(want->rows, tti_min(tti_items(e, 4 * (uint64_t)want->bytes), tti_workers(e)));
    want->bytes += (tti_divide_up(want->rows, want->piece_rows) - 1) * TT_TAG_BYTES;
    make_nonce(want->nonce, TT_DOMAIN_INPUT, e->run, e->inputs_fed);
  } else if (instr.code == TT_INSTR_OUTPUT) {
    want->event = TT_GIVE_OUTPUT;
    want->row = instr.arg;
    want->rows = output_rows(p, instr);
    describe(p, instr, want);
    make_nonce(want->nonce, TT_DOMAIN_OUTPUT, e->run, e->outputs_taken);
  } else {
    const tt_spill *spill = spill_of(p, instr);
    const tti_rows rows = tti_spill_rows(spill, instr.arg);
    want->event = instr.code == TT_INSTR_SPILL ? TT_GIVE_SPILL : TT_WANT_FETCH;
    want->index = spill->first + instr.arg;
    want->row = rows.lo;
    want->rows = rows.hi - rows.lo;
    want->bytes = (size_t)want->rows * p->tensors[instr.index].row_bytes;
  }
}

tt_status tt_poll(const tt_engine *e, tt_want *want) {
  tti_set(want, 0, sizeof *want);
  if (e->state == TTI_DEAD) {
    want->event = TT_FAILED;
    return e->status;
  }
  if (e->state == TTI_PROGRAM_WANTED) {
    want->event = TT_WANT_CHUNK;
    want->bytes = e->program_bytes + (size_t)TT_TAG_BYTES;
  } else if (e->coming.bytes) {
    want_load(e, want);
  } else if (e->state != TTI_IDLE) {
    want_instr(e, want);
  }
  return TT_OK;
}

/* ---- running */

/* Padding holds the zero point; that of a map within another is the other's. */
void tti_fill_padding(const tt_engine *e, const tt_tensor *t, uint32_t y0, uint32_t y1) {
  const size_t pixel = (size_t)t->channels * t->elem_bytes;
  for (uint32_t y = y0; y < y1 && (t->pad_left || t->pad_right) && tti_is_dense(t); y++) {
    uint8_t *slot = tti_slot(e, t, y);
    tti_set(slot, t->zero_point, t->pad_left * pixel);
    tti_set(slot + t->row_bytes - t->pad_right * pixel, t->zero_point, t->pad_right * pixel);
  }
}

static void activate_rows(const tt_engine *e, const tt_op *op, uint32_t y0, uint32_t y1) {
  const tt_tensor *out = &e->program.tensors[op->output];
  for (uint32_t y = y0; y < y1; y++)
    e->port->kernels->activation(op->activation, op->alpha, op->beta, tti_row(e, out, y),
                                 (size_t)out->width * out->channels);
}

/* A call of an operator whose y-planes do not depend on one another: an item is 'rows' of y0 .. y1. */
typedef struct rows_call {
  const tt_engine *e;
  const tt_op *op;
  uint32_t y0, y1, rows;
} rows_call;

/* Whether an operator leaves its activation to activate_rows; others apply it as they store. */
static int leaves_activation(const tt_engine *e, const tt_op *op) {
  return op->activation && op->kind != TT_OP_DEPTHWISE && !tti_is_i8(&e->program, op);
}

static void compute_rows(const tt_engine *e, const tt_op *op, uint32_t y0, uint32_t y1) {
  const uint32_t kind = op->kind;
  if (kind == TT_OP_DEPTHWISE)
    tti_depthwise(e, op, y0, y1);
  else if (kind == TT_OP_MAX_POOL || kind == TT_OP_AVERAGE_POOL)
    tti_pool(e, op, y0, y1);
  else if (kind == TT_OP_BINARY)
    tti_binary(e, op, y0, y1);
  else if (kind == TT_OP_SOFTMAX || kind == TT_OP_LAYER_NORM || kind == TT_OP_LRN || kind == TT_OP_ARG_MAX)
    tti_normalize(e, op, y0, y1);
  else
    tti_move_rows(e, op, y0, y1);
}

static void run_rows(void *argument, uint32_t begin, uint32_t end, uint32_t worker) {
  const rows_call *call = argument;
  const tt_engine *e = call->e;
  const tt_op *op = call->op;
  const uint32_t y0 = call->y0 + begin * call->rows, y1 = tti_min(call->y0 + end * call->rows, call->y1);
  const int bytes = tti_is_i8(&e->program, op);
  for (uint32_t y = y0; bytes && y < y1; y++) tti_i8_row(e, op, y, worker);
  if (!bytes) compute_rows(e, op, y0, y1);
  if (leaves_activation(e, op)) activate_rows(e, op, y0, y1);
  tti_fill_padding(e, &e->program.tensors[op->output], y0, y1);
}

/* Computes y-planes op->done .. end of an operator; block is NULL where all its weights are in the arena. */
static void run_op(tt_engine *e, const tt_op *op, uint32_t end, const tti_block *block) {
  const uint32_t y0 = op->done;
  const tt_tensor *out = &e->program.tensors[op->output];
  if (op->kind == TT_OP_CONV) {
    tti_conv(e, op, y0, end, block);
  } else if (op->kind == TT_OP_REDUCE) {
    (tti_is_i8(&e->program, op) ? tti_i8_reduce : tti_reduce)(e, op, y0, end);
    if (end < tti_op_height(&e->program, op)) return;
    if (op->activation) activate_rows(e, op, 0, 1);
    tti_fill_padding(e, out, 0, 1);
  } else {
    const uint64_t taps = op->kernel_y && op->kernel_x ? (uint64_t)op->kernel_y * op->kernel_x : 1;
    const uint64_t work = 4 * taps * (end - y0) * out->width * out->channels;
    const uint32_t parts = op->kind == TT_OP_PERMUTE ? 1 : tti_min(tti_items(e, work), end - y0);
    const uint32_t rows = (end - y0 + parts - 1) / parts;
    rows_call call = {e, op, y0, end, rows};
    tti_parallel(e, run_rows, &call, (end - y0 + rows - 1) / rows);
  }
}

/* Goes on until the host is needed or the phase ends. */
static tt_status advance(tt_engine *e) {
  const tti_program *p = &e->program;
  const uint32_t end = e->state == TTI_SETTING_UP ? p->head->setup_count : p->part->instr_count;
  while (e->next.at < end) {
    const tti_instr instr = next_instr(e);
    if (instr.code != TT_INSTR_RUN) return TT_OK; /* the host is needed */
    run_op(e, &p->ops[instr.index], instr.arg, NULL);
    const tt_status failed = (tt_status)p->ops[instr.index].failed, status = failed ? failed : tti_step(p, instr);
    if (status != TT_OK) return fail(e, status);
    e->next = tti_cursor_after(p, e->next);
  }
  if (e->state == TTI_RUNNING && p->part->next_bytes) { /* beyond the end where a loop begins there */
    tti_part_leave(p);
    const tt_status status = tti_part_next(p, e->arena, e->coming.chunk, &e->coming);
    return status == TT_OK ? TT_OK : fail(e, status);
  }
  e->state = TTI_IDLE;
  return TT_OK;
}

/* Counts the instruction that the host just served, and goes on. */
static tt_status served(tt_engine *e) {
  const tt_status status = tti_step(&e->program, next_instr(e));
  if (status != TT_OK) return fail(e, status);
  e->next = tti_cursor_after(&e->program, e->next);
  return advance(e);
}

tt_status tt_start(tt_engine *e) {
  if (e->state == TTI_DEAD) return e->status;
  if (e->state != TTI_IDLE || e->run == UINT32_MAX) return fail(e, TT_ERROR_STATE);
  e->run++;
  e->inputs_fed = e->outputs_taken = 0;
  e->state = TTI_RUNNING;
  tti_rewind(&e->program);
  e->coming = e->first;
  if (e->coming.bytes) return TT_OK;
  e->next = tti_cursor_at(&e->program, e->program.head->setup_count);
  return advance(e);
}

/* ---- feeding and taking */

static tt_status open_program(tt_engine *e) {
  tt_status status = tti_program_open(&e->program, e->arena, TT_ENGINE_BYTES, e->program_bytes, e->declared_bytes);
  if (status == TT_OK) status = tti_part_next(&e->program, e->arena, 0, &e->first);
  if (status != TT_OK) return fail(e, status);
  if (e->high_water < e->program.head->arena_bytes) e->high_water = e->program.head->arena_bytes;
  e->next = tti_cursor_at(&e->program, 0);
  e->state = TTI_SETTING_UP;
  return advance(e);
}

/* Opens a piece of a chunk, whose tag follows it. */
static int open_piece(const tt_engine *e, uint32_t chunk, uint32_t number, const uint8_t *from, size_t bytes,
                      uint8_t *to) {
  uint8_t nonce[TT_NONCE_BYTES];
  make_nonce(nonce, TT_DOMAIN_CHUNK, number, chunk);
  return e->port->open(e->port->context, TT_KEY_BUNDLE, nonce, NULL, 0, from, bytes, from + bytes, to);
}

/* A chunk, a row block that leaves or comes back, whose tags stay here, or an input from y-plane 'index' on; an item is
 * a piece. */
typedef struct crossing {
  const tt_engine *e;
  const uint8_t *from;
  uint8_t *to, *tags;
  uint32_t bytes, piece, index;
  int leaves, bad;
  const tt_tensor *input;
} crossing;

/* Opens a piece of an input densely, at the end of its slots, and moves each y-plane to its place, first to last. */
static int open_rows(const crossing *c, uint32_t number, const uint8_t *from, size_t bytes) {
  const tt_engine *e = c->e;
  const size_t row = dense_bytes(c->input, 1);
  const uint32_t y0 = c->index + (uint32_t)(number * c->piece / row), y1 = y0 + (uint32_t)(bytes / row);
  uint8_t nonce[TT_NONCE_BYTES], *dense = tti_slot(e, c->input, y0) + (y1 - y0) * (size_t)c->input->row_bytes - bytes;
  make_nonce(nonce, TT_DOMAIN_INPUT | number << 8, e->run, e->inputs_fed);
  if (e->port->open(e->port->context, TT_KEY_IO, nonce, NULL, 0, from, bytes, from + bytes, dense)) return 1;
  for (uint32_t y = y0; y < y1 && tti_pixels(e, c->input, y) != dense; y++, dense += row)
    tti_move(tti_pixels(e, c->input, y), dense, row);
  tti_fill_padding(e, c->input, y0, y1);
  return 0;
}

static void cross_pieces(void *argument, uint32_t item, uint32_t end, uint32_t worker) {
  crossing *c = argument;
  const tt_port *port = c->e->port;
  uint8_t nonce[TT_NONCE_BYTES];
  (void)worker;
  for (; item < end; item++) {
    const uint32_t begin = item * c->piece, bytes = tti_min(c->piece, c->bytes - begin), at = item * TT_TAG_BYTES;
    const uint8_t *from = c->from + begin;
    uint8_t *to = c->to + begin, *tag = c->tags ? c->tags + at : NULL;
    int bad;
    if (c->tags) make_nonce(nonce, TT_DOMAIN_SPILL | item << 8, c->e->run, c->index);
    if (!c->tags)
      bad = c->input ? open_rows(c, item, from + at, bytes) : open_piece(c->e, c->index, item, from + at, bytes, to);
    else if (c->leaves)
      bad = port->seal(port->context, TT_KEY_SPILL, nonce, NULL, 0, from, bytes, to, tag);
    else
      bad = port->open(port->context, TT_KEY_SPILL, nonce, NULL, 0, from, bytes, tag, to);
    if (bad) __atomic_store_n(&c->bad, 1, __ATOMIC_RELAXED);
  }
}

/* Whether a piece failed. */
static int cross(crossing *c) {
  tti_parallel(c->e, cross_pieces, c, tti_divide_up(c->bytes, c->piece));
  return c->bad;
}

/* Opens the wanted chunk of weights or instructions into its place. */
static int open_load(const tt_engine *e, const uint8_t *sealed) {
  uint32_t piece;
  const tt_load load = wanted_load(e, &piece);
  crossing c = {e, sealed, e->arena + load.offset, NULL, load.bytes, piece, load.chunk, 0, 0, NULL};
  return cross(&c);
}

/* Seals or opens the wanted row block, each thread a piece. */
static int cross_spill(const tt_engine *e, const tt_want *want, const uint8_t *from, uint8_t *to, int leaves) {
  const tti_program *p = &e->program;
  const tti_instr instr = next_instr(e);
  const uint32_t bytes = (uint32_t)want->bytes, workers = p->head->workers;
  uint8_t *tags = p->tags + (size_t)(spill_of(p, instr)->tag + instr.arg) * workers * TT_TAG_BYTES;
  crossing c = {e, from, to, tags, bytes, tti_divide_up(bytes, workers * 64) * 64, want->index, leaves, 0, NULL};
  return cross(&c);
}

const float *tti_piece(const tt_engine *e, const tt_op *op, const tti_block *b, uint32_t number, uint32_t end,
                       uint32_t worker, tti_ahead *next) {
  const size_t bytes = tti_panel_bytes(op, b->sealed ? tti_piece_rows(op) : b->k_end - b->k_begin);
  const size_t step = bytes + (b->sealed ? TT_TAG_BYTES : 0);
  const uint8_t *from = (b->sealed ? b->sealed : e->arena + op->weights) + number * step;
  uint8_t *place = e->arena + op->weights + worker * bytes;
  *next = (tti_ahead){(uintptr_t)from + step, number + 1 < end ? bytes : 0};
  if (b->sealed && open_piece(e, op->first_chunk + e->block, number, from, bytes, place))
    __atomic_store_n(&e->program.ops[op - e->program.ops].failed, TT_ERROR_AUTHENTICATION, __ATOMIC_RELAXED);
  return (const float *)(const void *)(b->sealed ? place : from);
}

static tt_status feed_part(tt_engine *e, const uint8_t *sealed) {
  if (open_load(e, sealed)) return fail(e, TT_ERROR_AUTHENTICATION);
  const tt_status status = tti_part_open(&e->program, e->coming.bytes);
  if (status != TT_OK) return fail(e, status);
  e->coming.bytes = 0;
  e->next = tti_cursor_at(&e->program, 0);
  return advance(e);
}

static tt_status feed_instr(tt_engine *e, const tt_want *want, const uint8_t *sealed) {
  const tti_program *p = &e->program;
  const tti_instr instr = next_instr(e);
  const int is_stream = instr.code == TT_INSTR_STREAM, as_used = is_stream && tti_piece_rows(&p->ops[instr.index]);
  int bad;
  if (want->event == TT_WANT_CHUNK) {
    bad = !as_used && open_load(e, sealed);
  } else if (want->event == TT_WANT_INPUT) {
    const tt_tensor *t = &p->tensors[p->ports[instr.index].tensor];
    const uint32_t row = (uint32_t)dense_bytes(t, 1), rows = want->rows;
    crossing c = {e, sealed, tti_slot(e, t, want->row), NULL, rows * row, want->piece_rows * row, want->row, 0, 0, t};
    bad = cross(&c);
    e->inputs_fed++;
  } else {
    bad = cross_spill(e, want, sealed, tti_slot(e, &p->tensors[instr.index], want->row), 0);
  }
  if (bad) return fail(e, TT_ERROR_AUTHENTICATION);
  if (is_stream) {
    const tt_op *op = &p->ops[instr.index];
    tti_block block = tti_block_at(p, op, e->block);
    if (as_used) block.sealed = sealed;
    run_op(e, op, instr.arg, &block);
    if (op->failed) return fail(e, (tt_status)op->failed);
    if (++e->block < tti_block_count(p, op)) return TT_OK;
    e->block = 0;
  }
  return served(e);
}

tt_status tt_feed(tt_engine *e, const uint8_t *sealed, size_t bytes) {
  tt_want want;
  const tt_status status = tt_poll(e, &want);
  if (status != TT_OK) return status;
  if (want.event != TT_WANT_CHUNK && want.event != TT_WANT_INPUT && want.event != TT_WANT_FETCH)
    return fail(e, TT_ERROR_STATE);
  if (bytes != want.bytes) return fail(e, TT_ERROR_AUTHENTICATION);
  if (e->coming.bytes) return feed_part(e, sealed);
  if (e->state != TTI_PROGRAM_WANTED) return feed_instr(e, &want, sealed);
  if (open_piece(e, 0, 0, sealed, e->program_bytes, e->arena + TT_ENGINE_BYTES))
    return fail(e, TT_ERROR_AUTHENTICATION);
  return open_program(e);
}

tt_status tt_take(tt_engine *e, uint8_t *sealed, size_t bytes) {
  tt_want want;
  const tt_status status = tt_poll(e, &want);
  if (status != TT_OK) return status;
  if ((want.event != TT_GIVE_SPILL && want.event != TT_GIVE_OUTPUT) || bytes != want.bytes)
    return fail(e, TT_ERROR_STATE);
  const tti_program *p = &e->program;
  const tt_port *port = e->port;
  const tti_instr instr = next_instr(e);
  int bad;
  if (want.event == TT_GIVE_SPILL) {
    bad = cross_spill(e, &want, tti_slot(e, &p->tensors[instr.index], want.row), sealed, 1);
  } else {
    const tt_tensor *t = &p->tensors[p->ports[instr.index].tensor];
    const size_t plain = bytes - TT_TAG_BYTES;
    bad = port->seal(port->context, TT_KEY_IO, want.nonce, NULL, 0, tti_slot(e, t, want.row), plain, sealed,
                     sealed + plain);
    e->outputs_taken++;
  }
  return bad ? fail(e, TT_ERROR_PORT) : served(e);
}
