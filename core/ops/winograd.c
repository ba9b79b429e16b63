/* Convolutions by Winograd's F(4, 3) along x and, in pairs of y-planes, F(2, 3) along y. */
#include "../core.h"

enum { CACHED_BYTES = 384 * 1024 };

/* A call of a convolution by Winograd's method: some y-planes of the panels of a block, size.rows of them computed
 * together. It is divided by panels and y-planes or, by_rows, y-planes and tiles. Where all y-planes are computed
 * together, their input has been transformed before, for all workers and blocks; else an item transforms what it needs
 * in its worker's workspace. */
typedef struct winograd_call {
  const struct tt_engine *e;
  const tt_op *op;
  const tti_block *block;
  tti_winograd_size size;
  tti_conv_call division;
  tti_ahead *expected;
} winograd_call;

/* What an item works on: tiles first_tile .. first_tile + tiles of output y-planes y0 .. y1, which are computed
 * together; transformed y-planes of the input, for each of the six columns size.inputs of them one after another, from
 * what the output's y-plane 'first' reads on; products with one panel, for each column size.products y-planes; columns
 * 1 to 5 and 0 of a row of weights, or 1 to 4 of one whose others are taps. In pairs, four rows of transformed weights
 * meet an input each, and have products each, for all pairs side by side. A sealed panel is one piece or, along x
 * alone, one for each kernel row; a block's panels below 'last' are opened one after another. */
typedef struct winograd_part {
  const winograd_call *call;
  uint32_t first_tile, tiles, worker, first, y0, y1, last;
  float *transformed, *products, *weights;
} winograd_part;

/* What a row of weights meets: y-planes of transformed input from 'input' on, and where their products lie. */
typedef struct winograd_span {
  uint32_t input, product, rows;
} winograd_span;

static winograd_span winograd_span_of(const winograd_part *part, uint32_t row) {
  const winograd_call *call = part->call;
  const tt_op *op = call->op;
  const uint32_t end = op->pad_top + tti_operand(&call->e->program, op, 0)->height;
  uint32_t lo = part->y0, hi = part->y1;
  const uint32_t pair = row * (call->size.rows / 2) + (lo - part->first) / 2;
  const winograd_span of_pairs = {pair, pair, tti_divide_up(hi - lo, 2)};
  while (lo < hi && lo + row < op->pad_top) lo++;
  while (lo < hi && hi - 1 + row >= end) hi--;
  const winograd_span met = {lo + row - part->first, lo - part->first, hi - lo};
  return tti_in_pairs(op) ? of_pairs : met;
}

static winograd_part winograd_part_of(const winograd_call *call, const tti_block *tiles, uint32_t worker) {
  const tt_op *op = call->op;
  const tti_winograd_size *size = &call->size;
  const size_t channels = tti_operand(&call->e->program, op, 0)->channels,
               transformed = (size_t)6 * size->inputs * size->tiles * channels;
  const size_t products = (size_t)6 * size->products * size->tiles * op->panel;
  const size_t shared = size->together ? transformed : 0, weights = size->kept_columns * channels * op->panel;
  float *workspace = (float *)(void *)(call->e->arena + op->workspace);
  float *own = workspace + shared + worker * (transformed - shared + products + weights);
  const winograd_part part = {.call = call,
                              .first_tile = tiles->panel_begin,
                              .tiles = tiles->panel_end - tiles->panel_begin,
                              .worker = worker,
                              .first = call->division.y0,
                              .transformed = size->together ? workspace : own,
                              .products = own + transformed - shared,
                              .weights = own + transformed - shared + products};
  return part;
}

/* Transforms y-plane y of the map's 'there' or, in pairs, those that output y-planes y and y + 1 take, to a y-plane. */
static void winograd_transform(const winograd_part *part, tti_rows there, uint32_t y, uint32_t to) {
  const winograd_call *call = part->call;
  const tt_op *op = call->op;
  const tt_tensor *in = tti_operand(&call->e->program, op, 0);
  const ptrdiff_t depth = in->channels, pixel = ((ptrdiff_t)part->first_tile * 4 - op->pad_left) * depth;
  const size_t each = (size_t)part->tiles * in->channels;
  const float *rows[4] = {NULL, NULL, NULL, NULL};
  for (uint32_t i = 0; i < (tti_in_pairs(op) ? 4 : 1); i++) {
    const uint32_t at = tti_in_pairs(op) ? y + i - op->pad_top : y; /* above the map: a large number */
    if (at >= there.lo && at < there.hi) rows[i] = tti_row(call->e, in, at) + pixel;
  }
  call->e->port->kernels->winograd_in(rows, part->tiles, in->channels, call->size.inputs * each,
                                      tti_in_pairs(op) ? call->size.rows / 2 * each : 0, part->transformed + to * each);
}

/* Transforms what output y-planes y0 .. y1 read from y-plane 'from' on and, in pairs, all of it. */
static void winograd_read(const winograd_part *part, uint32_t y0, uint32_t y1, uint32_t from) {
  const winograd_call *call = part->call;
  const tti_rows needed = tti_rows_needed(&call->e->program, call->op, 0, y0, y1);
  if (tti_in_pairs(call->op))
    for (uint32_t y = y0; y < y1; y += 2) winograd_transform(part, needed, y, (y - part->first) / 2);
  else
    for (uint32_t y = from > needed.lo ? from : needed.lo; y < needed.hi; y++)
      winograd_transform(part, needed, y, y + call->op->pad_top - part->first);
}

/* Products with panel p. At each y-plane, kernel rows are summed from the first to the last, whatever others are
 * computed with it; those that lie outside the map begin at zero. In pairs, each row has products of its own. */
static void winograd_products(const winograd_part *part, uint32_t p) {
  const winograd_call *call = part->call;
  const struct tt_engine *e = call->e;
  const tt_op *op = call->op;
  const tti_block *b = call->block;
  const tti_winograd_size *size = &call->size;
  const uint32_t depth = tti_operand(&e->program, op, 0)->channels, rows = part->y1 - part->y0;
  const uint32_t kept = size->kept_columns, in_pairs = tti_in_pairs(op) != 0;
  const uint32_t pieces = b->sealed && !in_pairs ? op->kernel_y : 1, number = (p - b->panel_begin) * pieces;
  const size_t panel = op->panel, tap = depth * panel, plane = part->tiles * depth, each = part->tiles * panel;
  const float *fed = NULL;
  tti_ahead next = {0, 0};
  const tti_rows needed = tti_rows_needed(&e->program, op, 0, part->y0, part->y1);
  const int zeros = !in_pairs && needed.hi - needed.lo < rows + op->kernel_y - 1;
  tti_run run = {.count = depth};
  tti_conv_row row = {.runs = &run,
                      .run_count = 1,
                      .pixel_stride = (ptrdiff_t)depth,
                      .panel = panel,
                      .columns = panel,
                      .begin_stride = (ptrdiff_t)panel,
                      .out_stride = (ptrdiff_t)panel,
                      .finish = tti_unfinished()};
  for (uint32_t j = 0; j < 6 && zeros; j++)
    tti_set(part->products + (j * size->products + part->y0 - part->first) * each, 0, rows * each * sizeof(float));
  for (uint32_t r = 0; r < (in_pairs ? 4 : op->kernel_y); r++) {
    const winograd_span s = winograd_span_of(part, r);
    const float sign = in_pairs && r % 3 ? 3.0f - 2.0f * (float)r : 0.0f; /* of the second of three rows, added up */
    if (r < pieces) fed = tti_piece(e, op, b, number + r, part->last * pieces, part->worker, &next);
    const float *taps = fed + (in_pairs ? r / 3 * 2 : pieces > 1 ? 0 : r) * 3 * tap;
    if (kept && s.rows) e->port->kernels->winograd_weights(taps, tap, sign, part->weights);
    for (uint32_t j = 0; j < 6 && s.rows; j++) {
      run.input = part->transformed + (j * size->inputs + s.input) * plane;
      row.weights = j % 5 || sign != 0.0f ? part->weights + (j + 5) % 6 * tap : taps + j / 5 * 2 * tap;
      if (!kept) row.weights = fed + (r * 6 + j) * tap;
      row.width = s.rows * part->tiles;
      row.out = part->products + (j * size->products + s.product) * each;
      row.begin = zeros || (r && !in_pairs) ? row.out : NULL;
      tti_bring_near(call->expected, part->worker, &next, depth * panel * 2, depth, &row);
      e->port->kernels->conv_row(&row);
    }
  }
}

/* Output of panel p from its products. */
static void winograd_store(const winograd_part *part, uint32_t p) {
  const winograd_call *call = part->call;
  const struct tt_engine *e = call->e;
  const tt_op *op = call->op;
  const tt_tensor *out = &e->program.tensors[op->output];
  const tt_tensor *residual = op->flags & TT_FLAG_RESIDUAL ? tti_operand(&e->program, op, 1) : NULL;
  const size_t panel = op->panel, each = part->tiles * panel, channel = p * panel;
  const uint32_t pixel = 4 * part->first_tile;
  const size_t step = tti_pixel_step(out), at = pixel * step + channel;
  tti_winograd_row row = {.tiles = part->tiles,
                          .plane = call->size.products * each,
                          .apart = tti_in_pairs(op) ? call->size.rows / 2 * each : 0,
                          .panel = panel,
                          .width = tti_min(part->tiles * 4, out->width - pixel),
                          .columns = tti_min(op->panel, out->channels - (uint32_t)channel),
                          .bias = (const float *)(const void *)(e->arena + op->bias) + channel,
                          .out_stride = (ptrdiff_t)step,
                          .finish = tti_finish_of(op)};
  for (uint32_t y = part->y0; y < part->y1; y++) {
    const uint32_t i = y - part->first;
    row.products = part->products + (row.apart ? i / 2 : i) * each;
    row.is_lower = row.apart && i % 2;
    row.out = tti_row(e, out, y) + at;
    row.residual = residual ? tti_row(e, residual, y) + at : NULL;
    e->port->kernels->winograd_out(&row);
  }
}

/* What is not applied as output is stored. */
static void winograd_activate(const winograd_part *part, uint32_t y0, uint32_t y1, uint32_t begin, uint32_t end) {
  const winograd_call *call = part->call;
  const uint32_t x0 = 4 * part->first_tile, width = call->e->program.tensors[call->op->output].width;
  const tti_block panels = {begin, end, call->block->k_begin, call->block->k_end, NULL};
  tti_complete_block(call->e, call->op, y0, y1, x0, tti_min(x0 + 4 * part->tiles, width), &panels);
}

/* Transforms what the part's output y-planes read. Keeps what is transformed: input below *ready that is needed. */
static void winograd_go_on(winograd_part *part, uint32_t *ready) {
  const winograd_call *call = part->call;
  const tti_program *p = &call->e->program;
  const tt_op *op = call->op;
  const size_t plane = (size_t)part->tiles * tti_operand(p, op, 0)->channels;
  const tti_rows needed = tti_rows_needed(p, op, 0, part->y0, part->y1);
  for (uint32_t j = 0; j < 6 && *ready > needed.lo && !tti_in_pairs(op); j++) {
    float *column = part->transformed + j * call->size.inputs * plane;
    tti_move(column, column + (part->y0 - part->first) * plane, (op->kernel_y - 1) * plane * sizeof(float));
  }
  part->first = part->y0;
  winograd_read(part, part->y0, part->y1, *ready);
  *ready = needed.hi;
}

/* Over several y-planes, as many panels at a time as a cache holds, each time transforming the input anew; the
 * products are convolutions of one column, summed over the kernel's rows. */
static void winograd_compute(winograd_part *part, uint32_t y0, uint32_t y1, const tti_block *panels) {
  const winograd_call *call = part->call;
  const uint32_t end = panels->panel_end, most = call->size.rows;
  part->last = call->block->sealed ? end - call->block->panel_begin : 0;
  const size_t panel_bytes = call->block->k_end * call->op->panel * sizeof(float);
  const uint32_t at_once = y1 - y0 <= 2 * most ? end : (uint32_t)(most * CACHED_BYTES / panel_bytes) + 1;
  for (uint32_t p = panels->panel_begin; p < end; p += at_once) {
    for (uint32_t y = y0, ready = 0; y < y1; y += most) {
      part->y0 = y;
      part->y1 = tti_min(y + most, y1);
      if (!call->size.together) winograd_go_on(part, &ready);
      for (uint32_t i = p; i < tti_min(p + at_once, end); i++) {
        winograd_products(part, i);
        winograd_store(part, i);
      }
    }
  }
  winograd_activate(part, y0, y1, panels->panel_begin, end);
}

static void winograd_items(void *argument, uint32_t item, uint32_t end, uint32_t worker) {
  const winograd_call *call = argument;
  const int by_rows = call->division.by_rows;
  while (item < end) {
    uint32_t y0, y1;
    const tti_block range = tti_conv_part(&call->division, &item, end, &y0, &y1),
                    all = {0, call->size.tiles, 0, 0, NULL};
    winograd_part part = winograd_part_of(call, by_rows ? &range : &all, worker);
    winograd_compute(&part, y0, y1, by_rows ? call->block : &range);
  }
}

static void winograd_input_items(void *argument, uint32_t item, uint32_t end, uint32_t worker) {
  const winograd_call *call = argument;
  const tti_block all = {0, call->size.tiles, 0, 0, NULL};
  const winograd_part part = winograd_part_of(call, &all, worker);
  const uint32_t y0 = call->division.y0 + 2 * item, y1 = tti_min(call->division.y0 + 2 * end, call->division.y1);
  const uint32_t from = item ? tti_rows_needed(&call->e->program, call->op, 0, call->division.y0, y0).hi : 0;
  winograd_read(&part, y0, y1, from);
}

/* Winograd's F(4, 3) along x and, in pairs, F(2, 3) along y. Where y-planes are not all computed together, threads
 * share them, for pairs need nothing of one another, and the last ones' tiles; but panels, if these are larger than the
 * maps and divide evenly. Otherwise they share panels or, if these are few, y-planes. */
void tti_winograd(struct tt_engine *e, const tt_op *op, uint32_t y0, uint32_t y1, const tti_block *b) {
  const tti_winograd_size size = tti_winograd_size_of(op, &e->program.tensors[op->output]);
  const uint32_t tiles = size.tiles, panels = b->panel_end - b->panel_begin, each = tti_in_pairs(op) ? 2 : 1;
  const uint32_t depth = 6 * op->kernel_y * tti_operand(&e->program, op, 0)->channels;
  const uint64_t weights = (uint64_t)panels * depth * op->panel;
  const uint32_t items = tti_items(e, (y1 - y0) * tiles * weights), units = tti_divide_up(y1 - y0, each);
  const uint32_t workers = tti_min(items, tti_workers(e));
  const int even = panels % workers == 0, apart = !size.together;
  const int by_rows = apart && (!even || tti_by_rows(e, op, e->program.tensors[op->output].height, weights));
  const int few = !apart && !even && panels < 4 * workers;
  const int whole = by_rows ? units % workers == 0 || tiles < 4 * workers : few;
  const uint32_t across = by_rows ? tiles : panels, small = apart && (by_rows || tiles >= 4) ? workers : items;
  const uint32_t parts = whole ? 1 : tti_min(across, small);
  const uint32_t row_parts = apart ? tti_divide_up(items, parts) : few ? workers : 1;
  const tti_block range = {by_rows ? 0 : b->panel_begin, by_rows ? tiles : b->panel_end, 0, 0, NULL};
  winograd_call call = {.e = e,
                        .op = op,
                        .block = b,
                        .size = size,
                        .division = {.block = &range,
                                     .y0 = y0,
                                     .y1 = y1,
                                     .panels_each = tti_divide_up(across, parts),
                                     .rows_each = tti_divide_up(units, tti_min(row_parts, units)) * each,
                                     .by_rows = by_rows},
                        .expected = e->expected};
  call.division.row_parts = tti_divide_up(y1 - y0, call.division.rows_each);
  call.division.panel_parts = tti_divide_up(across, call.division.panels_each);
  if (size.together && b->panel_begin == 0) tti_parallel(e, winograd_input_items, &call, tti_divide_up(y1 - y0, 2));
  tti_parallel(e, winograd_items, &call, call.division.panel_parts * call.division.row_parts);
}
