/* Convolutions by Winograd's F(4, 3) along x. */
#include "../core.h"

enum { CACHED_BYTES = 384 * 1024 };

/* A call of a convolution by Winograd's method: y-planes y0 .. y1 of the panels of a block, 'most' y-planes computed
 * together. An item takes panels_each of the panels, tiles_each of the tiles and rows_each of the y-planes, the panels'
 * parts side by side, then the tiles'. Where all y-planes are computed together, their input has been transformed
 * before, for all workers and blocks; else an item transforms all that it needs itself, in its worker's part of the
 * workspace: items wait for nothing. */
typedef struct winograd_call {
  const struct tt_engine *e;
  const tt_op *op;
  const tti_block *block;
  uint32_t y0, y1, panels_each, panel_parts, tiles_each, tile_parts, rows_each, tiles, most;
  int together;
  tti_ahead *expected;
} winograd_call;

/* Of output y-planes y0 .. y1, those at which kernel row ky meets the map. */
static tti_rows rows_met(const tt_op *op, uint32_t height, uint32_t y0, uint32_t y1, uint32_t ky) {
  while (y0 < y1 && y0 * op->stride_y + ky < op->pad_top) y0++;
  while (y0 < y1 && (y1 - 1) * op->stride_y + ky >= op->pad_top + height) y1--;
  const tti_rows met = {y0, y1};
  return met;
}

/* Kernel rows ky .. ky + count that meet the map at the same output y-planes, met; one, where weights are transformed
 * as they are used. From one span to the next, first or last of the y-planes move up. */
typedef struct winograd_span {
  tti_rows met;
  uint32_t ky, count;
} winograd_span;

/* What an item works on: tiles first_tile .. first_tile + tiles of output y-planes y0 .. y1, which are computed
 * together; transformed y-planes of the input, for each of the six columns 'slots' of them one after another, from what
 * the output's y-plane 'first' reads on; products with one panel, for each column those of 'most' y-planes; weights of
 * a kernel row in columns 1 to 4. */
typedef struct winograd_part {
  const winograd_call *call;
  uint32_t first_tile, tiles, worker, slots, first, y0, y1, span_count;
  winograd_span spans[TT_WINOGRAD_KERNEL_Y];
  float *transformed, *products, *weights;
} winograd_part;

/* Puts the part at output y-planes y0 .. y1. */
static void winograd_place(winograd_part *part, uint32_t y0, uint32_t y1) {
  const tt_op *op = part->call->op;
  const uint32_t height = tti_operand(&part->call->e->program, op, 0)->height;
  part->y0 = y0;
  part->y1 = y1;
  part->span_count = 0;
  for (uint32_t ky = 0; ky < op->kernel_y; ky++) {
    const winograd_span next = {rows_met(op, height, y0, y1, ky), ky, 1};
    winograd_span *before = part->span_count ? &part->spans[part->span_count - 1] : NULL;
    if (next.met.lo == next.met.hi) continue;
    if (before && before->met.lo == next.met.lo && before->met.hi == next.met.hi && tti_conv_columns(op) == 6)
      before->count++;
    else
      part->spans[part->span_count++] = next;
  }
}

static winograd_part winograd_part_of(const winograd_call *call, uint32_t tile_part, uint32_t worker) {
  const tt_op *op = call->op;
  const uint32_t slots = call->most + op->kernel_y - 1, tile = tile_part * call->tiles_each;
  const size_t channels = tti_operand(&call->e->program, op, 0)->channels,
               transformed = 6 * slots * call->tiles * channels;
  const size_t products = (size_t)6 * call->most * call->tiles * op->panel, shared = call->together ? transformed : 0;
  const size_t weights = tti_conv_columns(op) == 6 ? 0 : 4 * channels * op->panel;
  float *workspace = (float *)(void *)(call->e->arena + op->workspace);
  float *own = workspace + shared + worker * (transformed - shared + products + weights);
  const winograd_part part = {.call = call,
                              .first_tile = tile,
                              .tiles = tti_min(call->tiles_each, call->tiles - tile),
                              .worker = worker,
                              .slots = slots,
                              .first = call->y0,
                              .transformed = call->together ? workspace : own,
                              .products = own + transformed - shared,
                              .weights = own + transformed - shared + products};
  return part;
}

/* Where a transformed y-plane of the input lies: side by side with its neighbours or, for one y-plane at a time, in a
 * ring. */
static float *winograd_slot(const winograd_part *part, uint32_t y) {
  const tt_op *op = part->call->op;
  const uint32_t slot = part->call->most > 1 ? y + op->pad_top - part->first : y % part->slots;
  return part->transformed + (size_t)slot * part->tiles * tti_operand(&part->call->e->program, op, 0)->channels;
}

static void winograd_transform(const winograd_part *part, uint32_t y) {
  const struct tt_engine *e = part->call->e;
  const tt_op *op = part->call->op;
  const tt_tensor *in = tti_operand(&e->program, op, 0);
  const ptrdiff_t depth = in->channels;
  const float *input = tti_row(e, in, y) + ((ptrdiff_t)part->first_tile * 4 - op->pad_left) * depth;
  e->port->kernels->winograd_in(input, part->tiles, in->channels, (size_t)part->slots * part->tiles * in->channels,
                                winograd_slot(part, y));
}

/* Products with panel p. At each y-plane, kernel rows are summed from the first to the last, whatever others are
 * computed with it; those that lie outside the map begin at zero. */
static void winograd_products(const winograd_part *part, uint32_t p) {
  const winograd_call *call = part->call;
  const struct tt_engine *e = call->e;
  const tt_op *op = call->op;
  const uint32_t depth = tti_operand(&e->program, op, 0)->channels, columns = tti_conv_columns(op);
  const size_t panel = op->panel, tap = depth * panel, plane = part->tiles * depth, each = part->tiles * panel;
  const float *fed = (const float *)(const void *)(e->arena + op->weights) +
                     (p - call->block->panel_begin) * op->kernel_y * columns * tap;
  const winograd_span *spans = part->spans;
  const int zeros = !part->span_count || spans->met.hi - spans->met.lo < part->y1 - part->y0;
  tti_run runs[TT_WINOGRAD_KERNEL_Y];
  tti_conv_row row = {.runs = runs,
                      .pixel_stride = (ptrdiff_t)depth,
                      .panel = panel,
                      .columns = panel,
                      .begin_stride = (ptrdiff_t)panel,
                      .out_stride = (ptrdiff_t)panel,
                      .finish = tti_unfinished()};
  for (uint32_t j = 0; j < 6 && zeros; j++)
    tti_set(part->products + (j * call->most + part->y0 - part->first) * each, 0,
            (part->y1 - part->y0) * each * sizeof(float));
  for (const winograd_span *s = spans; s < spans + part->span_count; s++) {
    const float *weights = fed + s->ky * columns * tap;
    if (columns == 3) e->port->kernels->winograd_weights(weights, tap, part->weights);
    for (uint32_t j = 0; j < 6; j++) {
      for (uint32_t i = 0; i < s->count; i++) {
        const float *met = winograd_slot(part, s->met.lo * op->stride_y + s->ky + i - op->pad_top);
        const tti_run run = {met + j * part->slots * plane, i * columns * depth, depth};
        runs[i] = run;
      }
      if (columns == 6 || j == 0)
        row.weights = weights + j * tap;
      else
        row.weights = j == 5 ? weights + 2 * tap : part->weights + (j - 1) * tap;
      row.run_count = s->count;
      row.width = (s->met.hi - s->met.lo) * part->tiles;
      row.out = part->products + (j * call->most + s->met.lo - part->first) * each;
      row.begin = zeros || s > spans ? row.out : NULL;
      tti_bring_near(call->expected, part->worker, s->count * depth, &row);
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
  const size_t at = (size_t)pixel * out->channels + channel;
  tti_winograd_row row = {.tiles = part->tiles,
                          .plane = call->most * each,
                          .panel = panel,
                          .width = tti_min(part->tiles * 4, out->width - pixel),
                          .columns = tti_min(op->panel, out->channels - (uint32_t)channel),
                          .bias = (const float *)(const void *)(e->arena + op->bias) + channel,
                          .out_stride = out->channels,
                          .finish = tti_finish_of(op)};
  for (uint32_t y = part->y0; y < part->y1; y++) {
    row.products = part->products + (y - part->first) * each;
    row.out = tti_row(e, out, y) + at;
    row.residual = residual ? tti_row(e, residual, y) + at : NULL;
    e->port->kernels->winograd_out(&row);
  }
}

/* What is not applied as output is stored. */
static void winograd_activate(const winograd_part *part, uint32_t y0, uint32_t y1, uint32_t begin, uint32_t end) {
  const winograd_call *call = part->call;
  const uint32_t x0 = 4 * part->first_tile, width = call->e->program.tensors[call->op->output].width;
  const tti_block panels = {begin, end, call->block->k_begin, call->block->k_end};
  tti_activate_block(call->e, call->op, y0, y1, x0, tti_min(x0 + 4 * part->tiles, width), &panels);
}

/* Goes on to output y-planes y0 .. y1. Input below *ready is transformed, as far as it is needed: keeps what is. */
static void winograd_go_on(winograd_part *part, uint32_t y0, uint32_t y1, uint32_t *ready) {
  const winograd_call *call = part->call;
  const tti_program *p = &call->e->program;
  const tt_op *op = call->op;
  const size_t plane = (size_t)part->tiles * tti_operand(p, op, 0)->channels;
  const tti_rows needed = tti_rows_needed(p, op, 0, y0, y1);
  for (uint32_t j = 0; j < 6 && call->most > 1 && *ready > needed.lo; j++) {
    float *column = part->transformed + j * part->slots * plane;
    tti_move(column, column + (y0 - part->first) * plane, (op->kernel_y - 1) * plane * sizeof(float));
  }
  part->first = y0;
  winograd_place(part, y0, y1);
  for (uint32_t y = *ready > needed.lo ? *ready : needed.lo; y < needed.hi; y++) winograd_transform(part, y);
  *ready = needed.hi;
}

/* Over several y-planes, as many panels at a time as a cache holds, each time transforming the input anew; the
 * products are convolutions of one column, summed over the kernel's rows. */
static void winograd_item(void *argument, uint32_t item, uint32_t worker) {
  const winograd_call *call = argument;
  const tt_op *op = call->op;
  const tti_block *b = call->block;
  const uint32_t begin = b->panel_begin + item % call->panel_parts * call->panels_each;
  const uint32_t end = tti_min(begin + call->panels_each, b->panel_end), most = call->most;
  const uint32_t y0 = call->y0 + item / call->panel_parts / call->tile_parts * call->rows_each;
  const uint32_t y1 = tti_min(y0 + call->rows_each, call->y1);
  const size_t panel_bytes = b->k_end * op->panel * sizeof(float);
  const uint32_t at_once = y1 - y0 <= 2 * most ? end - begin : (uint32_t)(most * CACHED_BYTES / panel_bytes) + 1;
  winograd_part part = winograd_part_of(call, item / call->panel_parts % call->tile_parts, worker);
  for (uint32_t p = begin; p < end; p += at_once) {
    for (uint32_t y = y0, ready = 0; y < y1; y += most) {
      if (call->together)
        winograd_place(&part, y, y1);
      else
        winograd_go_on(&part, y, tti_min(y + most, y1), &ready);
      for (uint32_t i = p; i < tti_min(p + at_once, end); i++) {
        winograd_products(&part, i);
        winograd_store(&part, i);
      }
    }
  }
  winograd_activate(&part, y0, y1, begin, end);
}

static void winograd_input_item(void *argument, uint32_t item, uint32_t worker) {
  const winograd_call *call = argument;
  const winograd_part part = winograd_part_of(call, 0, worker);
  winograd_transform(&part, tti_rows_needed(&call->e->program, call->op, 0, call->y0, call->y1).lo + item);
}

/* Winograd's F(4, 3) along x. Threads share the panels where these can be shared out evenly, and otherwise the tiles;
 * where those are few or y-planes are computed together, panels in small parts or, if there are not many, y-planes. */
void tti_winograd(struct tt_engine *e, const tt_op *op, uint32_t y0, uint32_t y1, const tti_block *b) {
  const tt_tensor *out = &e->program.tensors[op->output];
  const uint32_t tiles = tti_winograd_tiles(out), panels = b->panel_end - b->panel_begin;
  const int together = tti_winograd_together(op, out);
  const uint32_t depth = 6 * op->kernel_y * tti_operand(&e->program, op, 0)->channels;
  const uint32_t items = tti_items(e, (uint64_t)(y1 - y0) * panels * tiles * depth * op->panel);
  const uint32_t workers = tti_min(items, tti_workers(e));
  const int even = panels % workers == 0;
  const int narrow = together || tiles < (even ? 4 : 4 * workers), by_rows = narrow && !even && panels < 4 * workers;
  const uint32_t panel_parts = by_rows ? 1 : narrow ? tti_min(panels, items) : even ? workers : 1;
  const uint32_t tile_parts = narrow || even ? 1 : workers, row_parts = by_rows ? tti_min(workers, y1 - y0) : 1;
  winograd_call call = {.e = e,
                        .op = op,
                        .block = b,
                        .y0 = y0,
                        .y1 = y1,
                        .panels_each = tti_divide_up(panels, panel_parts),
                        .tiles_each = tti_divide_up(tiles, tile_parts),
                        .rows_each = tti_divide_up(y1 - y0, row_parts),
                        .tiles = tiles,
                        .most = tti_winograd_rows(op, out),
                        .together = together,
                        .expected = &e->expected};
  call.panel_parts = tti_divide_up(panels, call.panels_each);
  call.tile_parts = tti_divide_up(tiles, call.tiles_each);
  if (together && b->panel_begin == 0) {
    const tti_rows needed = tti_rows_needed(&e->program, op, 0, y0, y1);
    tti_parallel(e, winograd_input_item, &call, needed.hi - needed.lo);
  }
  tti_parallel(e, winograd_item, &call, call.panel_parts * call.tile_parts * tti_divide_up(y1 - y0, call.rows_each));
}
