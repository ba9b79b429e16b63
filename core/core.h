/* Inside the trusted core: the engine's state, the program as seen in the arena, and the rows of tensors. */
#ifndef TTI_CORE_H
#define TTI_CORE_H
#include "kernels/kernels.h"
#include "tinytee.h"
#include "tinytee_program.h"

#define tti_copy __builtin_memcpy
#define tti_move __builtin_memmove
#define tti_set __builtin_memset
#define tti_equal(a, b, n) (__builtin_memcmp(a, b, n) == 0)

enum { TTI_ITEM_WORK = 64 * 1024, TTI_ITEMS_EACH = 32 };

static inline uint32_t tti_min(uint32_t a, uint32_t b) { return a < b ? a : b; }
static inline uint32_t tti_divide_up(uint32_t total, uint32_t each) { return (total + each - 1) / each; }

/* The records of the part that is there, in place. tensors[], ops[], spills[] and kept[] hold a run's counters, too. */
typedef struct tti_program {
  const tt_program *head;
  const tt_part *part;
  tt_tensor *tensors;
  tt_op *ops;
  const tt_load *loads;
  tt_spill *spills;
  const tt_instr *instrs;
  const tt_port_tensor *ports;
  const uint16_t *operands;
  const int32_t *tables;
  uint16_t *kept;
  uint8_t *tags;
} tti_program;

/* A part of a convolution's weights: panels panel_begin .. panel_end (over all groups), of each the kernel's rows
 * k_begin .. k_end. The part that begins at 0 starts from bias and residual (so that the output may lie over the
 * residual), others add to what the output holds; the one that reaches the last row applies the activation. What is
 * sealed still is opened piece by piece, by whoever computes with it. */
typedef struct tti_block {
  uint32_t panel_begin, panel_end, k_begin, k_end;
  const uint8_t *sealed; /* NULL: it is in the arena */
} tti_block;

enum { TTI_I8_RUNS = 256 }; /* most stretches of a convolution on uint8 */

typedef enum tti_state { TTI_PROGRAM_WANTED, TTI_SETTING_UP, TTI_IDLE, TTI_RUNNING, TTI_DEAD } tti_state;

/* What is read next, and may lie far away; an address that only the host vouches for. */
typedef struct tti_ahead {
  uintptr_t at;
  size_t bytes;
} tti_ahead;

/* A place among the instructions: the word, the first word of the loop that it lies in (0: none), and its turn. */
typedef struct tti_cursor {
  uint32_t at, loop, round;
} tti_cursor;

struct tt_engine {
  uint8_t *arena;
  size_t arena_bytes;
  const tt_port *port;
  tti_program program;
  tt_status status;
  tti_state state;
  size_t high_water;       /* end of the highest byte of the arena in use so far */
  uint32_t declared_bytes; /* arena_bytes of the bundle's header */
  uint32_t program_bytes;  /* plaintext of chunk 0 */
  tti_cursor next;         /* instruction */
  uint32_t block;          /* that a stream is at */
  tt_load first, coming;   /* the part that a run begins with, and the one that is wanted; 0 bytes: none */
  uint32_t run, inputs_fed, outputs_taken;
  tti_ahead expected[2]; /* by workers 0 and 1, who open a chunk from its two ends */
};

/* An instruction, unpacked. */
typedef struct tti_instr {
  uint16_t code, index;
  uint32_t arg;
} tti_instr;

/* The instruction at a cursor, its arg as it is this time. */
tti_instr tti_instr_at(const tti_program *p, tti_cursor cursor);

/* The cursor of the first instruction from word 'at' on, and of the one after a cursor's. */
tti_cursor tti_cursor_at(const tti_program *p, uint32_t at);
tti_cursor tti_cursor_after(const tti_program *p, tti_cursor cursor);

/* Y-planes lo .. hi (hi exclusive) that an operator reads of an operand. */
typedef struct tti_rows {
  uint32_t lo, hi;
} tti_rows;

/* How many y-planes an operator goes through: those of its output, or of its input for a reduction. */
uint32_t tti_op_height(const tti_program *p, const tt_op *op);

/* What op reads of operand 'which' to compute its y-planes y0 .. y1, y0 < y1. Needs a validated op. */
tti_rows tti_rows_needed(const tti_program *p, const tt_op *op, uint32_t which, uint32_t y0, uint32_t y1);

/* Checks the head of a program of 'bytes' bytes, and opens part 0. */
TT_MUST_USE tt_status tti_program_open(tti_program *p, uint8_t *arena, size_t offset, size_t bytes, size_t arena_bytes);

/* Finds the sections of a part of so many bytes, which lies in its place, and checks every record on its own: after it,
 * no tensor, weight or table lies outside its place. Then goes through the instructions once, as a run would, and
 * checks that each finds its rows present and its memory within bounds. */
TT_MUST_USE tt_status tti_part_open(tti_program *p, size_t bytes);

/* Where parts lie. */
static inline uint8_t *tti_part_place(const tti_program *p) { return (uint8_t *)(p->spills + p->head->spill_count); }

/* The part that follows the one that is there, if it can follow: a load of 0 bytes if the run is over. */
TT_MUST_USE tt_status tti_part_next(const tti_program *p, const uint8_t *arena, uint32_t after_chunk, tt_load *next);

/* Keeps the counters of what outlives the part. */
void tti_part_leave(const tti_program *p);

/* Y-planes of a spilled map's block. */
static inline tti_rows tti_spill_rows(const tt_spill *spill, uint32_t block) {
  return (tti_rows){block * spill->rows, tti_min((block + 1) * spill->rows, spill->height)};
}

/* Checks one instruction against the counters and advances them: the validator's rule, and the engine's bookkeeping. */
TT_MUST_USE tt_status tti_step(const tti_program *p, tti_instr instr);

/* A convolution's panels over all groups, its kernel's rows, how many blocks it is fed in, and which is block b. */
uint32_t tti_conv_panels(const tti_program *p, const tt_op *op);
uint32_t tti_conv_depth(const tti_program *p, const tt_op *op);
/* By Winograd's method, pairs of output y-planes at a time. */
static inline int tti_in_pairs(const tt_op *op) { return op->flags & TT_FLAG_PAIRS; }
/* Rows times columns of its weights on float32, as they are fed. */
static inline uint32_t tti_conv_taps(const tt_op *op) {
  const int ahead = (op->flags & (TT_FLAG_WINOGRAD | TT_FLAG_TOGETHER)) == TT_FLAG_WINOGRAD;
  return ahead ? (tti_in_pairs(op) ? 4 : op->kernel_y) * 6 : op->kernel_y * op->kernel_x;
}
uint32_t tti_block_count(const tti_program *p, const tt_op *op);
/* Pairs of output y-planes that Strassen's method works on at a time. */
static inline uint32_t tti_strassen_pairs(const tt_tensor *out) {
  const uint32_t pairs = tti_min(TT_STRASSEN_PIXELS / out->width, out->height / 2);
  return pairs ? pairs : 1;
}
/* A convolution by Winograd's method: tiles of an output y-plane; output y-planes that are computed together; y-planes
 * of transformed input, and of products; columns of transformed weights that are kept; whether all y-planes are
 * computed together, from input that is transformed once for all workers and blocks of panels. */
typedef struct tti_winograd_size {
  uint32_t tiles, rows, inputs, products, kept_columns;
  int together;
} tti_winograd_size;
static inline tti_winograd_size tti_winograd_size_of(const tt_op *op, const tt_tensor *out) {
  const int all = op->flags & TT_FLAG_TOGETHER, in_pairs = tti_in_pairs(op);
  const uint32_t tiles = (out->width - 1) / 4 + 1, each = in_pairs ? 2 : 1, most = tti_divide_up(out->height, each);
  const uint32_t some = tti_min(tiles < TT_WINOGRAD_TILES ? TT_WINOGRAD_TILES / tiles : 1, most);
  const uint32_t rows = each * (all ? most : some), inputs = in_pairs ? 2 * rows : rows + op->kernel_y - 1;
  return (tti_winograd_size){tiles, rows, inputs, each * rows, all ? in_pairs ? 6 : 4 : 0, rows >= out->height};
}
tti_block tti_block_at(const tti_program *p, const tt_op *op, uint32_t b);
/* Rows of the pieces that a panel is sealed in to be opened as it is used; 0: blocks are opened first. */
static inline uint32_t tti_piece_rows(const tt_op *op) { return op->variant ? 0 : op->stream_rows; }
static inline int tti_in_streams(const tt_op *op) { return op->variant >= TT_CODING_I8_RANS; }

/* Rows that coded weights are divided by: whole groups, and whole streams. */
static inline uint32_t tti_coding_rows(const tt_op *op) {
  return tti_in_streams(op) && op->stream_rows > op->table ? op->stream_rows : op->table;
}

/* Words and bytes of a stream of so many rows. */
static inline uint32_t tti_stream_words(const tt_op *op, uint32_t rows) {
  const uint32_t words = (rows * op->panel / 8 * op->stream_rate >> TT_STREAM_RATE_BITS) + op->stream_base;
  return ((words > TT_STREAM_WINDOW ? words : TT_STREAM_WINDOW) + 1) / 2 * 2;
}
static inline uint32_t tti_stream_bytes(const tt_op *op, uint32_t rows) {
  const uint32_t low = op->variant == TT_CODING_I8_RANS ? (rows + 1) / 2 * op->panel : 0;
  return 9 * (uint32_t)sizeof(uint32_t) + 2 * tti_stream_words(op, rows) + low;
}

/* Constants of a convolution on uint8 that come before a panel's rows, as long as so many of them. */
static inline uint32_t tti_fed_rows(const tt_op *op) { return op->flags & TT_FLAG_FED_CONSTANTS ? 3 : 0; }

/* Bytes of a panel's first rows, which make whole groups and streams if the weights are coded (or are all). */
static inline uint64_t tti_panel_bytes(const tt_op *op, uint32_t rows) {
  const uint64_t panel = op->panel, codes = ((uint64_t)rows + tti_fed_rows(op)) * panel;
  if (op->variant == TT_CODING_NONE) return codes * sizeof(float);
  if (op->variant == TT_CODING_F16) return codes * 2;
  const uint64_t scales = ((uint64_t)rows + op->table - 1) / op->table * panel * sizeof(float);
  if (tti_in_streams(op)) {
    const uint32_t whole = rows / op->stream_rows, rest = rows % op->stream_rows;
    return scales + (uint64_t)whole * tti_stream_bytes(op, op->stream_rows) + (rest ? tti_stream_bytes(op, rest) : 0);
  }
  return scales + (op->variant == TT_CODING_I8 ? codes : (rows + 1) / 2 * panel);
}
static inline uint64_t tti_block_bytes(const tt_op *op, tti_block b) {
  return (b.panel_end - b.panel_begin) * tti_panel_bytes(op, b.k_end - b.k_begin);
}

/* How many rows of coded weights are decoded at a time. */
static inline uint32_t tti_slice_rows(const tt_op *op, uint32_t depth) {
  const uint32_t unit = tti_coding_rows(op);
  return tti_min(TT_SLICE_BYTES / (uint32_t)sizeof(float) / op->panel / unit * unit, depth);
}

/* Sets the counters back, as before a run; and those of the part, as at its beginning. */
void tti_rewind(const tti_program *p);
void tti_part_rewind(const tti_program *p);

static inline const tt_tensor *tti_operand(const tti_program *p, const tt_op *op, uint32_t which) {
  return &p->tensors[p->operands[op->first_operand + which]];
}

/* Of a Concat along y: y-planes of the result that lie side by side in one of the operand's. */
static inline uint32_t tti_planes_each(const tti_program *p, const tt_op *op, uint32_t which) {
  const tt_tensor *in = tti_operand(p, op, which), *out = &p->tensors[op->output];
  return (uint32_t)((uint64_t)in->width * in->channels / ((uint64_t)out->width * out->channels));
}

/* Elements from one pixel to the next: more than its channels in a map that lies among the channels of another. */
static inline uint32_t tti_pixel_step(const tt_tensor *t) {
  return t->row_bytes / ((t->pad_left + t->width + t->pad_right) * t->elem_bytes);
}
static inline int tti_is_dense(const tt_tensor *t) { return tti_pixel_step(t) == t->channels; }

/* The slot of y-plane y, padding included, and its first pixel. */
static inline uint8_t *tti_slot(const struct tt_engine *e, const tt_tensor *t, uint32_t y) {
  return e->arena + t->offset + (size_t)(y % t->capacity) * t->row_bytes;
}
static inline uint8_t *tti_pixels(const struct tt_engine *e, const tt_tensor *t, uint32_t y) {
  return tti_slot(e, t, y) + (size_t)t->pad_left * tti_pixel_step(t) * t->elem_bytes;
}
static inline float *tti_row(const struct tt_engine *e, const tt_tensor *t, uint32_t y) {
  return (float *)(void *)tti_pixels(e, t, y);
}

/* Whether a convolution reads one pixel of its input for each, and all of the map. */
static inline int tti_is_pointwise(const tt_op *op) {
  return op->kernel_y * op->kernel_x == 1 && !(op->pad_top | op->pad_bottom | op->pad_left | op->pad_right);
}

/* Whether y-planes of a convolution can be computed several at a time as if they were one: those of its output and its
 * operands that follow one another do so in memory, too. */
static inline int tti_is_in_line(const tti_program *p, const tt_op *op) {
  const tt_tensor *out = &p->tensors[op->output];
  int apart = out->pad_left | out->pad_right;
  for (uint32_t i = 0; i < op->operand_count; i++) {
    const tt_tensor *in = tti_operand(p, op, i);
    apart |= in->pad_left | in->pad_right | (in->width != out->width);
  }
  return tti_is_pointwise(op) && op->stride_y * op->stride_x == 1 && !apart;
}

/* How many from y on then are so, of 'most': up to where a ring begins anew. */
static inline uint32_t tti_rows_in_line(const tti_program *p, const tt_op *op, uint32_t y, uint32_t most) {
  const uint32_t ring = p->tensors[op->output].capacity;
  most = tti_min(most, ring - y % ring);
  for (uint32_t i = 0; i < op->operand_count; i++)
    most = tti_min(most, tti_operand(p, op, i)->capacity - y % tti_operand(p, op, i)->capacity);
  return most;
}

/* Whether an operator works on uint8 or to uint8, by arithmetic rather than by moving elements. */
static inline int tti_is_i8(const tti_program *p, const tt_op *op) {
  if (op->kind == TT_OP_CONVERT || op->kind == TT_OP_LOOKUP) return 1;
  const int computes = op->kind == TT_OP_CONV || op->kind == TT_OP_DEPTHWISE || op->kind == TT_OP_MAX_POOL ||
                       op->kind == TT_OP_AVERAGE_POOL || op->kind == TT_OP_REDUCE || op->kind == TT_OP_BINARY ||
                       op->kind == TT_OP_LRN;
  return computes && tti_operand(p, op, 0)->elem_bytes == 1;
}

/* How k lies in the input: stretches of so many elements, per_row to a kernel row, each of 'rows' of four weights. */
typedef struct tti_stretch {
  uint32_t length, rows, per_row;
} tti_stretch;

static inline tti_stretch tti_i8_stretch(const tt_op *op, const tt_tensor *in) {
  const int merged = op->groups == 1 && (op->dilation_x == 1 || op->kernel_x == 1);
  const uint32_t depth = in->channels / op->groups, length = merged ? op->kernel_x * depth : depth;
  return (tti_stretch){length, (length + 3) / 4, merged ? 1 : op->kernel_x};
}

/* Work that threads share: see tt_port.parallel. */
typedef void (*tti_work)(void *argument, uint32_t begin, uint32_t end, uint32_t worker);

static inline uint32_t tti_workers(const struct tt_engine *e) {
  return e->port->parallel ? e->program.head->workers : 1;
}

static inline void tti_parallel(const struct tt_engine *e, tti_work work, void *argument, uint32_t items) {
  const uint32_t workers = tti_workers(e);
  if (items > 1 && workers > 1)
    e->port->parallel(e->port->context, workers, work, argument, items);
  else
    work(argument, 0, items, 0);
}

/* Into how many items to divide work of so many multiply-accumulates (or as much else): few enough that handing one out
 * costs little beside it, enough for threads of unequal speed. 1 if there is but one thread. */
static inline uint32_t tti_items(const struct tt_engine *e, uint64_t work) {
  const uint32_t workers = tti_workers(e);
  const uint64_t items = work / TTI_ITEM_WORK, most = TTI_ITEMS_EACH * (uint64_t)workers;
  return workers == 1 || items < 2 ? 1 : (uint32_t)(items < most ? items : most);
}

/* Operators by family, each over y-planes y0 .. y1. */
void tti_conv(struct tt_engine *e, const tt_op *op, uint32_t y0, uint32_t y1, const tti_block *block);
int tti_by_rows(const struct tt_engine *e, const tt_op *op, uint32_t rows, uint64_t weights);
void tti_depthwise(const struct tt_engine *e, const tt_op *op, uint32_t y0, uint32_t y1);
void tti_pool(const struct tt_engine *e, const tt_op *op, uint32_t y0, uint32_t y1);
void tti_reduce(const struct tt_engine *e, const tt_op *op, uint32_t y0, uint32_t y1);
void tti_binary(const struct tt_engine *e, const tt_op *op, uint32_t y0, uint32_t y1);
void tti_move_rows(const struct tt_engine *e, const tt_op *op, uint32_t y0, uint32_t y1);
void tti_i8_reduce(const struct tt_engine *e, const tt_op *op, uint32_t y0, uint32_t y1);
void tti_normalize(const struct tt_engine *e, const tt_op *op, uint32_t y0, uint32_t y1);
/* Y-plane y of any other on uint8, by the worker numbered so. */
void tti_i8_row(const struct tt_engine *e, const tt_op *op, uint32_t y, uint32_t worker);

/* Operand 'which' of a binary operator at an output y-plane: elements from pixel to pixel, from channel to channel. */
typedef struct tti_side {
  const uint8_t *row;
  size_t pixel_step, step;
  float zero;
} tti_side;
tti_side tti_side_of(const struct tt_engine *e, const tt_op *op, uint32_t which, uint32_t y);
static inline int tti_is_whole(tti_side s) { return (s.step != 0) == (s.pixel_step != 0); }

/* A call of a convolution: y-planes y0 .. y1 of the panels of a block, divided into items of panels_each of the panels
 * and rows_each of the y-planes, by y-planes or else by panels first. */
typedef struct tti_conv_call {
  const struct tt_engine *e;
  const tt_op *op;
  const tti_block *block;
  uint32_t y0, y1, panels_each, panel_parts, rows_each, row_parts;
  int by_rows,
      resident; /* the block is all panels, which have been in the arena for long: out of the caches, perhaps */
  tti_ahead *expected;
} tti_conv_call;
/* Of items *item .. end, the first ones that are panels times y-planes: these panels, and y-planes *y0 .. *y1. *item
 * goes on behind them. What goes first is in one piece as far as it can be, so that weights serve many y-planes. */
static inline tti_block tti_conv_part(const tti_conv_call *call, uint32_t *item, uint32_t end, uint32_t *y0,
                                      uint32_t *y1) {
  const tti_block *b = call->block;
  const uint32_t inner = call->by_rows ? call->panel_parts : call->row_parts;
  const uint32_t from = *item % inner, whole = from ? 0 : (end - *item) / inner;
  const uint32_t first[2] = {*item / inner, from};
  const uint32_t count[2] = {whole ? whole : 1, whole ? inner : tti_min(inner - from, end - *item)};
  const uint32_t panel = b->panel_begin + first[call->by_rows] * call->panels_each;
  const uint32_t panel_end = panel + count[call->by_rows] * call->panels_each;
  const tti_block part = {panel, tti_min(panel_end, b->panel_end), b->k_begin, b->k_end, b->sealed};
  *y0 = call->y0 + first[!call->by_rows] * call->rows_each;
  *y1 = tti_min(*y0 + count[!call->by_rows] * call->rows_each, call->y1);
  *item += count[0] * count[1];
  return part;
}
/* The tti_work of a convolution on uint8. */
void tti_i8_conv_items(void *call, uint32_t item, uint32_t end, uint32_t worker);
/* A convolution by Winograd's method, and by Strassen's. */
void tti_winograd(struct tt_engine *e, const tt_op *op, uint32_t y0, uint32_t y1, const tti_block *block);
void tti_strassen(struct tt_engine *e, const tt_op *op, uint32_t y0, uint32_t y1, const tti_block *block, int resident);

/* Where piece 'number' of a block's weights lies, a panel's part of it or, of one that is sealed, what is opened to the
 * worker's place. *next: the piece behind it, if that is before 'end'. */
const float *tti_piece(const struct tt_engine *e, const tt_op *op, const tti_block *b, uint32_t number, uint32_t end,
                       uint32_t worker, tti_ahead *next);

/* Has a row of so many rows of weights bring near 'each' bytes of what is next or, where that is nothing, of what is
 * expected as much as its arithmetic leaves time for. */
void tti_bring_near(tti_ahead *expected, uint32_t worker, tti_ahead *next, size_t each, size_t rows, tti_conv_row *row);

void tti_fill_padding(const struct tt_engine *e, const tt_tensor *t, uint32_t y0, uint32_t y1);
/* What is left to do of a complete block's channels at pixels x0 .. x1: an activation that the kernel does not apply as
 * it stores, and the padding of a y-plane that begins here. */
void tti_complete_block(const struct tt_engine *e, const tt_op *op, uint32_t y0, uint32_t y1, uint32_t x0, uint32_t x1,
                        const tti_block *b);

/* What a convolution's kernels do of its activation as they store: all of it, if that is a clamp or hard swish. */
tti_finish tti_finish_of(const tt_op *op);
/* Of sums that go on. */
static inline tti_finish tti_unfinished(void) { return (tti_finish){-__builtin_inff(), __builtin_inff(), 0}; }

/* How many of a window's taps lie before an edge, at which it begins 'at': both in padded coordinates. */
static inline uint32_t tti_taps_before(uint64_t edge, uint64_t at, uint32_t dilation, uint32_t taps) {
  const uint64_t before = at < edge ? (edge - at + dilation - 1) / dilation : 0;
  return before < taps ? (uint32_t)before : taps;
}

/* Kernel rows ky that meet the map at output y-plane y: from .. to. */
void tti_ky_range(const tt_op *op, uint32_t height, uint32_t y, uint32_t *from, uint32_t *to);

/* What a window's columns are multiplied by to count an average's elements, if so many of its rows are inside. */
uint32_t tti_pool_divisor(const tt_op *op, uint32_t height, uint32_t y, uint32_t inside);

#endif
