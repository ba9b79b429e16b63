/* Convolutions by Winograd's F(4, 3) along x and, in pairs of y-planes, F(2, 3) along y. */
#include "../core.h"

enum { CACHED_BYTES = 384 * 1024 };

/* A call of a convolution by Winograd's method: y-planes y0 .. y1 of the panels of a block, size.rows y-planes computed
 * together. An item takes panels_each of the panels, tiles_each of the tiles and rows_each of the y-planes, the panels'
 * parts side by side, then the tiles'. Where all y-planes are computed together, their input has been transformed
 * before, for all workers and blocks; else an item transforms all that it needs itself, in its worker's part of the
 * workspace: items wait for nothing. */
typedef struct winograd_call {
  const struct tt_engine *e;
  const tt_op *op;
  const tti_block *block;
  tti_winograd_size size;
  uint32_t y0, y1, panels_each, panel_parts, tiles_each, tile_parts, rows_each;
  tti_ahead *expected;
} winograd_call;

/* Of output y-planes y0 .. y1, those at which kernel row ky meets the map. */
static tti_rows rows_met(const tt_op *op, uint32_t height, uint32_t y0, uint32_t y1, uint32_t ky) {
  while (y0 < y1 && y0 + ky < op->pad_top) y0++;
  while (y0 < y1 && y1 - 1 + ky >= op->pad_top + height) y1--;
  const tti_rows met = {y0, y1};
  return met;
}

/* Kernel rows ky .. ky + count that meet the map at the same output y-planes: one, where weights are transformed as
 * they are used. Their transformed input begins at y-plane 'input', one farther for each kernel row, and yields so many
 * y-planes of products. From one span to the next, the first or last of these move up; but where y-planes are computed
 * in pairs, spans are the four rows of transformed weights, and share no y-planes. */
typedef struct winograd_span {
  uint32_t input, product, rows, ky, count;
} winograd_span;

/* What an item works on: tiles first_tile .. first_tile + tiles of output y-planes y0 .. y1, which are computed
 * together; transformed y-planes of the input, for each of the six columns size.inputs of them one after another, from
 * what the output's y-plane 'first' reads on; products with one panel, for each column size.products y-planes; weights
 * of a kernel row in columns 1 to 5 and 0. */
typedef struct winograd_part {
  const winograd_call *call;
  uint32_t first_tile, tiles, worker, first, y0, y1, span_count;
  winograd_span spans[TT_WINOGRAD_KERNEL_Y];
  float *transformed, *products, *weights;
} winograd_part;

/* Puts the part at output y-planes y0 .. y1. */
static void winograd_place(winograd_part *part, uint32_t y0, uint32_t y1) {
  const tt_op *op = part->call->op;
  const uint32_t height = tti_operand(&part->call->e->program, op, 0)->height, pairs = part->call->size.rows / 2;
  part->y0 = y0;
  part->y1 = y1;
  part->span_count = 0;
  for (uint32_t r = 0; r < 4 && tti_in_pairs(op); r++) {
    const uint32_t at = r * pairs + (y0 - part->first) / 2;
    const winograd_span next = {at, at, (y1 - y0 + 1) / 2, r, 1};
    part->spans[part->span_count++] = next;
  }
  for (uint32_t ky = 0; ky < op->kernel_y && !tti_in_pairs(op); ky++) {
    const tti_rows met = rows_met(op, height, y0, y1, ky);
    const winograd_span next = {met.lo + ky - part->first, met.lo - part->first, met.hi - met.lo, ky, 1};
    winograd_span *before = part->span_count ? &part->spans[part->span_count - 1] : NULL;
    if (!next.rows) continue;
    if (before && before->product == next.product && before->rows == next.rows && !(op->flags & TT_FLAG_TOGETHER))
      before->count++;
    else
      part->spans[part->span_count++] = next;
  }
}

static winograd_part winograd_part_of(const winograd_call *call, uint32_t tile_part, uint32_t worker) {
  const tt_op *op = call->op;
  const tti_winograd_size *size = &call->size;
  const uint32_t tile = tile_part * call->tiles_each;
  const size_t channels = tti_operand(&call->e->program, op, 0)->channels,
               transformed = (size_t)6 * size->inputs * size->tiles * channels;
  const size_t products = (size_t)6 * size->products * size->tiles * op->panel;
  const size_t shared = size->together ? transformed : 0, weights = size->kept_columns * channels * op->panel;
  float *workspace = (float *)(void *)(call->e->arena + op->workspace);
  float *own = workspace + shared + worker * (transformed - shared + products + weights);
  const winograd_part part = {.call = call,
                              .first_tile = tile,
                              .tiles = tti_min(call->tiles_each, size->tiles - tile),
                              .worker = worker,
                              .first = call->y0,
                              .transformed = size->together ? workspace : own,
                              .products = own + transformed - shared,
                              .weights = own + transformed - shared + products};
  return part;
}

/* Transforms pixels of rows a and b of the map, by these factors, or, by none, of row a, to a y-plane. Rows beyond
 * 'there' are zeros, or their products not used. */
static void winograd_transform(const winograd_part *part, tti_rows there, int32_t a, int32_t b, const float *factors,
                               uint32_t plane) {
  const struct tt_engine *e = part->call->e;
  const tt_op *op = part->call->op;
  const tt_tensor *in = tti_operand(&e->program, op, 0);
  const int32_t rows[2] = {a, b};
  const float *from[2] = {NULL, NULL};
  const size_t each = (size_t)part->tiles * in->channels;
  float scale[2] = {1.0f, 0.0f};
  for (int i = 0; i < (factors ? 2 : 1); i++) {
    const int is_there = rows[i] >= (int32_t)there.lo && rows[i] < (int32_t)there.hi;
    from[i] = tti_row(e, in, is_there ? (uint32_t)rows[i] : there.lo) +
              ((ptrdiff_t)part->first_tile * 4 - op->pad_left) * (ptrdiff_t)in->channels;
    if (factors) scale[i] = is_there ? factors[i] : 0.0f;
  }
  e->port->kernels->winograd_in(from[0], from[1], scale, part->tiles, in->channels, part->call->size.inputs * each,
                                part->transformed + plane * each);
}

/* The four y-planes that output y-planes y and y + 1 of y0 .. y1 take. */
static void winograd_transform_pair(const winograd_part *part, uint32_t y, uint32_t y1) {
  static const float factors[4][2] = {{1.0f, -1.0f}, {0.5f, 0.5f}, {0.5f, -0.5f}, {1.0f, -1.0f}};
  static const uint8_t rows[4][2] = {{0, 2}, {2, 1}, {2, 1}, {3, 1}};
  const winograd_call *call = part->call;
  const int32_t top = (int32_t)y - (int32_t)call->op->pad_top;
  const tti_rows there = tti_rows_needed(&call->e->program, call->op, 0, y, tti_min(y + 2, y1));
  for (uint32_t r = 0; r < 4; r++)
    winograd_transform(part, there, top + rows[r][0], top + rows[r][1], factors[r],
                       r * (call->size.rows / 2) + (y - part->first) / 2);
}

/* Column j of a row of transformed weights, of which the first to the fourth or, of sums of three rows, all are kept in
 * the part where they are transformed as they are used. */
static const float *winograd_column(const winograd_part *part, const float *fed, uint32_t row, uint32_t j, size_t tap) {
  const int in_pairs = tti_in_pairs(part->call->op);
  if (!part->call->size.kept_columns) return fed + (row * 6 + j) * tap;
  if (j % 5 || (in_pairs && row % 3)) return part->weights + (j + 5) % 6 * tap;
  return fed + ((in_pairs ? row / 3 * 2 : row) * 3 + (j ? 2 : 0)) * tap;
}

/* Products with panel p. At each y-plane, kernel rows are summed from the first to the last, whatever others are
 * computed with it; those that lie outside the map begin at zero. */
static void winograd_products(const winograd_part *part, uint32_t p) {
  const winograd_call *call = part->call;
  const struct tt_engine *e = call->e;
  const tt_op *op = call->op;
  const tti_winograd_size *size = &call->size;
  const int in_pairs = tti_in_pairs(op);
  const uint32_t depth = tti_operand(&e->program, op, 0)->channels;
  const size_t panel = op->panel, tap = depth * panel, plane = part->tiles * depth, each = part->tiles * panel;
  const float *fed = (const float *)(const void *)(e->arena + op->weights) +
                     (p - call->block->panel_begin) * (size_t)tti_conv_taps(op) * tap;
  const winograd_span *spans = part->spans;
  const int zeros = !in_pairs && (!part->span_count || spans->rows < part->y1 - part->y0);
  tti_run runs[TT_WINOGRAD_KERNEL_Y];
  tti_conv_row row = {.runs = runs,
                      .pixel_stride = (ptrdiff_t)depth,
                      .panel = panel,
                      .columns = panel,
                      .begin_stride = (ptrdiff_t)panel,
                      .out_stride = (ptrdiff_t)panel,
                      .finish = tti_unfinished()};
  for (uint32_t j = 0; j < 6 && zeros; j++)
    tti_set(part->products + (j * size->products + part->y0 - part->first) * each, 0,
            (part->y1 - part->y0) * each * sizeof(float));
  for (const winograd_span *s = spans; s < spans + part->span_count; s++) {
    const uint32_t first_row = in_pairs ? s->ky / 3 * 2 : s->ky; /* of those that are transformed */
    const float sign = !in_pairs || s->ky % 3 == 0 ? 0.0f : s->ky == 1 ? 1.0f : -1.0f;
    if (size->kept_columns)
      e->port->kernels->winograd_weights(fed + (size_t)first_row * 3 * tap, tap, sign, part->weights);
    for (uint32_t j = 0; j < 6; j++) {
      for (uint32_t i = 0; i < s->count; i++) {
        const tti_run run = {part->transformed + (j * size->inputs + s->input + i) * plane, i * 6 * depth, depth};
        runs[i] = run;
      }
      row.weights = winograd_column(part, fed, s->ky, j, tap);
      row.run_count = s->count;
      row.width = s->rows * part->tiles;
      row.out = part->products + (j * size->products + s->product) * each;
      row.begin = !in_pairs && (zeros || s > spans) ? row.out : NULL;
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
                          .plane = call->size.products * each,
                          .panel = panel,
                          .width = tti_min(part->tiles * 4, out->width - pixel),
                          .columns = tti_min(op->panel, out->channels - (uint32_t)channel),
                          .bias = (const float *)(const void *)(e->arena + op->bias) + channel,
                          .out_stride = out->channels,
                          .finish = tti_finish_of(op)};
  const uint32_t pairs = call->size.rows / 2;
  for (uint32_t y = part->y0; y < part->y1; y++) {
    const uint32_t i = y - part->first;
    row.products = part->products + i * each;
    if (tti_in_pairs(op)) {
      row.products = part->products + (i % 2 * 3 * pairs + i / 2) * each;
      row.shared = part->products + (pairs + i / 2) * each;
      row.apart = (ptrdiff_t)(pairs * each);
      row.sign = i % 2 ? -1.0f : 1.0f;
    }
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
  const int moves = *ready > needed.lo && !tti_in_pairs(op);
  for (uint32_t j = 0; j < 6 && moves; j++) {
    float *column = part->transformed + j * call->size.inputs * plane;
    tti_move(column, column + (y0 - part->first) * plane, (op->kernel_y - 1) * plane * sizeof(float));
  }
  part->first = y0;
  winograd_place(part, y0, y1);
  for (uint32_t y = y0; y < y1 && tti_in_pairs(op); y += 2) winograd_transform_pair(part, y, y1);
  for (uint32_t y = moves ? *ready : needed.lo; y < needed.hi && !tti_in_pairs(op); y++)
    winograd_transform(part, needed, (int32_t)y, 0, NULL, y + op->pad_top - y0);
  *ready = needed.hi;
}

/* Over several y-planes, as many panels at a time as a cache holds, each time transforming the input anew; the
 * products are convolutions of one column, summed over the kernel's rows. */
static void winograd_item(void *argument, uint32_t item, uint32_t worker) {
  const winograd_call *call = argument;
  const tt_op *op = call->op;
  const tti_block *b = call->block;
  const uint32_t begin = b->panel_begin + item % call->panel_parts * call->panels_each;
  const uint32_t end = tti_min(begin + call->panels_each, b->panel_end), most = call->size.rows;
  const uint32_t y0 = call->y0 + item / call->panel_parts / call->tile_parts * call->rows_each;
  const uint32_t y1 = tti_min(y0 + call->rows_each, call->y1);
  const size_t panel_bytes = b->k_end * op->panel * sizeof(float);
  const uint32_t at_once = y1 - y0 <= 2 * most ? end - begin : (uint32_t)(most * CACHED_BYTES / panel_bytes) + 1;
  winograd_part part = winograd_part_of(call, item / call->panel_parts % call->tile_parts, worker);
  for (uint32_t p = begin; p < end; p += at_once) {
    for (uint32_t y = y0, ready = 0; y < y1; y += most) {
      if (call->size.together)
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
  const tti_rows needed = tti_rows_needed(&call->e->program, call->op, 0, call->y0, call->y1);
  const uint32_t y = tti_in_pairs(call->op) ? call->y0 + 2 * item : needed.lo + item;
  if (tti_in_pairs(call->op))
    winograd_transform_pair(&part, y, call->y1);
  else
    winograd_transform(&part, needed, (int32_t)y, 0, NULL, y + call->op->pad_top - call->y0);
}

/* Winograd's F(4, 3) along x and, in pairs, F(2, 3) along y. Threads share the panels where these can be shared out
 * evenly, and otherwise the tiles; where those are few or y-planes are computed together, panels in small parts or, if
 * there are not many, y-planes. */
void tti_winograd(struct tt_engine *e, const tt_op *op, uint32_t y0, uint32_t y1, const tti_block *b) {
  const tti_winograd_size size = tti_winograd_size_of(op, &e->program.tensors[op->output]);
  const uint32_t tiles = size.tiles, panels = b->panel_end - b->panel_begin, each = tti_in_pairs(op) ? 2 : 1;
  const uint32_t depth = 6 * op->kernel_y * tti_operand(&e->program, op, 0)->channels;
  const uint32_t items = tti_items(e, (uint64_t)(y1 - y0) * panels * tiles * depth * op->panel);
  const uint32_t workers = tti_min(items, tti_workers(e));
  const int even = panels % workers == 0;
  const int narrow = size.together || tiles < (even ? 4 : 4 * workers);
  const int by_rows = narrow && !even && panels < 4 * workers;
  const uint32_t panel_parts = by_rows ? 1 : narrow ? tti_min(panels, items) : even ? workers : 1;
  const uint32_t tile_parts = narrow || even ? 1 : workers;
  const uint32_t row_parts = by_rows ? tti_min(workers, tti_divide_up(y1 - y0, each)) : 1;
  winograd_call call = {.e = e,
                        .op = op,
                        .block = b,
                        .size = size,
                        .y0 = y0,
                        .y1 = y1,
                        .panels_each = tti_divide_up(panels, panel_parts),
                        .tiles_each = tti_divide_up(tiles, tile_parts),
                        .rows_each = tti_divide_up(tti_divide_up(y1 - y0, each), row_parts) * each,
                        .expected = &e->expected};
  call.panel_parts = tti_divide_up(panels, call.panels_each);
  call.tile_parts = tti_divide_up(tiles, call.tiles_each);
  if (size.together && b->panel_begin == 0) {
    const tti_rows needed = tti_rows_needed(&e->program, op, 0, y0, y1);
    const uint32_t inputs = each == 2 ? tti_divide_up(y1 - y0, 2) : needed.hi - needed.lo;
    tti_parallel(e, winograd_input_item, &call, inputs);
  }
  tti_parallel(e, winograd_item, &call, call.panel_parts * call.tile_parts * tti_divide_up(y1 - y0, call.rows_each));
}
