/* Convolutions over y-planes. */
#include "../core.h"

enum { RUNS = 256, LEAST_PIXELS = 4, NARROW = 8, NEAR_ROWS = 256 };

tti_finish tti_finish_of(const tt_op *op) {
  tti_finish finish = tti_unfinished();
  if (op->activation == TT_ACT_RELU) finish.low = 0.0f;
  if (op->activation == TT_ACT_CLIP) {
    finish.low = op->alpha;
    finish.high = op->beta;
  }
  finish.hard_swish = op->activation == TT_ACT_HARD_SWISH;
  return finish;
}

void tti_complete_block(const struct tt_engine *e, const tt_op *op, uint32_t y0, uint32_t y1, uint32_t x0, uint32_t x1,
                        const tti_block *b) {
  const tt_tensor *out = &e->program.tensors[op->output];
  const uint32_t channels = out->channels / op->groups, group_panels = (channels + op->panel - 1) / op->panel;
  /* Channel at which a panel begins; after the last one, all channels. */
  const uint32_t first = b->panel_begin / group_panels * channels + b->panel_begin % group_panels * op->panel;
  const uint32_t end = b->panel_end / group_panels * channels + b->panel_end % group_panels * op->panel;
  const uint32_t step = tti_pixel_step(out);
  const int whole = end - first == step;
  const size_t count = whole ? (size_t)(x1 - x0) * step : end - first;
  if (!x0 && !b->panel_begin) tti_fill_padding(e, out, y0, y1);
  if (op->activation <= TT_ACT_CLIP || op->activation == TT_ACT_HARD_SWISH) return;
  for (uint32_t y = y0; y < y1; y++)
    for (uint32_t x = x0; x < (whole ? x0 + 1 : x1); x++)
      e->port->kernels->activation(op->activation, op->alpha, op->beta, tti_row(e, out, y) + (size_t)x * step + first,
                                   count);
}

void tti_ky_range(const tt_op *op, uint32_t height, uint32_t y, uint32_t *from, uint32_t *to) {
  const uint64_t top = (uint64_t)y * op->stride_y;
  *to = tti_taps_before((uint64_t)op->pad_top + height, top, op->dilation_y, op->kernel_y);
  *from = tti_min(tti_taps_before(op->pad_top, top, op->dilation_y, op->kernel_y), *to);
}

/* Collects the runs of one output y-plane for input channels c0 .. c0 + depth and the weight rows k_begin .. k_end,
 * going on from *k (a row of the whole kernel); stops when RUNS are full. *k ends at k_end when all are collected.
 *
 * Where the channels of all kernel columns lie side by side (no groups, no dilation), a kernel row is one run. */
static size_t collect_runs(const struct tt_engine *e, const tt_op *op, const tt_tensor *in, uint32_t y, uint32_t c0,
                           uint32_t depth, uint32_t k_begin, uint32_t k_end, uint32_t *k, tti_run *runs) {
  if (tti_is_pointwise(op)) {
    const tti_run whole = {tti_row(e, in, y * op->stride_y) + c0 + *k, *k - k_begin, k_end - *k};
    runs[0] = whole;
    *k = k_end;
    return 1;
  }
  const int merged = op->groups == 1 && (op->dilation_x == 1 || op->kernel_x == 1);
  const uint32_t length = merged ? op->kernel_x * depth : depth;
  uint32_t from, to;
  tti_ky_range(op, in->height, y, &from, &to);
  size_t count = 0;
  const uint32_t row_length = op->kernel_x * depth;
  while (*k < k_end && count < RUNS) {
    const uint32_t ky = *k / row_length, at = *k % length;
    const uint32_t end = tti_min(*k - at + length, k_end);
    if (ky >= to) {
      *k = k_end;
    } else {
      if (ky >= from) {
        const uint32_t kx = merged ? 0 : *k % row_length / length;
        const uint32_t iy = y * op->stride_y + ky * op->dilation_y - op->pad_top;
        const float *row = tti_row(e, in, iy) - (size_t)op->pad_left * in->channels;
        runs[count].input = row + (size_t)kx * op->dilation_x * in->channels + c0 + at;
        runs[count].weight_row = *k - k_begin;
        runs[count++].count = end - *k;
      }
      *k = end;
    }
  }
  return count;
}

/* Whether a stream was malformed shows, by an error. Nothing else that is computed from what is secret does, so this
 * branch stands alone, where tests/machine_code can tell it from others. */
__attribute__((noinline)) static void tell_of_malformed(tt_op *op, int malformed) {
  if (malformed) __atomic_store_n(&op->failed, TT_ERROR_BUNDLE, __ATOMIC_RELAXED);
}

/* Decodes streams: rows begin .. end, as decode_rows. */
static void decode_streams(const struct tt_engine *e, const tt_op *op, const uint8_t *codes, uint32_t begin,
                           uint32_t end, float *out) {
  tti_stream s = {.alphabet = e->arena + op->bias + tti_conv_panels(&e->program, op) * op->panel * sizeof(float),
                  .rate = op->stream_rate,
                  .group = op->table,
                  .panel = op->panel,
                  .out = out};
  const uint8_t *at = NULL, *scales = NULL;
  for (uint32_t row = begin, unit = tti_coding_rows(op); row < end; row += op->stream_rows) {
    const uint32_t rows = tti_min(op->stream_rows, end - row),
                   groups = tti_divide_up(tti_min(unit, end - row), op->table);
    if (row % unit == 0) {
      scales = codes + tti_panel_bytes(op, row);
      at = scales + groups * op->panel * sizeof(float);
    }
    s.scales = (const float *)(const void *)scales;
    s.states = (const uint32_t *)(const void *)at;
    s.place = s.states[8];
    s.words = (const uint16_t *)(const void *)(s.states + 9);
    s.word_count = tti_stream_words(op, rows);
    s.low = op->variant == TT_CODING_I8_RANS ? (const uint8_t *)(s.words + s.word_count) : NULL;
    s.rows = rows;
    tell_of_malformed(&e->program.ops[op - e->program.ops], e->port->kernels->decode_stream(&s));
    at += tti_stream_bytes(op, rows);
    s.out += (size_t)rows * op->panel;
  }
}

/* Decodes rows begin .. end of a panel's codes, which begin and (or at the last) end a group. */
static void decode_rows(const struct tt_engine *e, const tt_op *op, const uint8_t *codes, uint32_t begin, uint32_t end,
                        float *out) {
  if (tti_in_streams(op)) {
    decode_streams(e, op, codes, begin, end, out);
    return;
  }
  for (uint32_t row = begin; row < end; row += op->table) {
    const uint32_t rows = tti_min(op->table, end - row);
    const uint8_t *group = codes + tti_panel_bytes(op, row);
    const float *scales = (const float *)(const void *)group;
    if (op->variant != TT_CODING_F16) group += op->panel * sizeof(float);
    e->port->kernels->decode(op->variant, group, scales, rows, op->panel, out);
    out += (size_t)rows * op->panel;
  }
}

/* Multiply-accumulates for a byte. */
enum { AHEAD_WORK = 16 };

void tti_bring_near(tti_ahead *expected, uint32_t worker, tti_ahead *next, size_t each, size_t rows,
                    tti_conv_row *row) {
  if (!next->bytes) {
    next = expected + worker % 2;
    each = worker > 1 ? 0 : rows * row->panel * row->width / AHEAD_WORK;
  }
  row->ahead = (const void *)next->at;
  row->ahead_bytes = each < next->bytes ? each : next->bytes;
  if (!row->ahead_bytes) return; /* others may read it at the same time */
  next->at += row->ahead_bytes;
  next->bytes -= row->ahead_bytes;
}

/* Whether too few pixels use a weight, each time that it is loaded, for it to come from farther away than the nearest
 * cache: y-planes that go in together should be many. */
static int is_narrow(const struct tt_engine *e, const tt_op *op) {
  return !tti_is_in_line(&e->program, op) && e->program.tensors[op->output].width <= NARROW;
}

/* Of so many rows of a panel, those that all y-planes meet before any meets the next ones. */
static uint32_t rows_at_once(const struct tt_engine *e, const tt_op *op, uint32_t rows) {
  if (op->variant) return tti_slice_rows(op, tti_conv_depth(&e->program, op));
  return is_narrow(e, op) ? tti_divide_up(rows, tti_divide_up(rows, NEAR_ROWS)) : rows;
}

static void conv_items(void *argument, uint32_t item, uint32_t end, uint32_t worker) {
  const tti_conv_call *call = argument;
  const struct tt_engine *e = call->e;
  const tt_op *op = call->op;
  const tti_block *b = call->block;
  const tt_tensor *in = tti_operand(&e->program, op, 0), *out = &e->program.tensors[op->output];
  const tt_tensor *residual = op->flags & TT_FLAG_RESIDUAL ? tti_operand(&e->program, op, 1) : NULL;
  const uint32_t depth = in->channels / op->groups, channels = out->channels / op->groups;
  const uint32_t group_panels = tti_divide_up(channels, op->panel), k_total = tti_conv_depth(&e->program, op);
  const float *bias = (const float *)(const void *)(e->arena + op->bias);
  const int in_line = tti_is_in_line(&e->program, op);
  const uint32_t piece = b->sealed ? tti_piece_rows(op) : b->k_end - b->k_begin, slice = rows_at_once(e, op, piece);
  const uint32_t pieces = (b->k_end - b->k_begin) / piece; /* of a panel, one after another */
  const int goes_on = b->sealed || (call->resident && !op->variant);
  float *decoded = (float *)(void *)(e->arena + op->workspace) + (size_t)worker * slice * op->panel;
  tti_run runs[RUNS];
  tti_conv_row row = {.runs = runs,
                      .pixel_stride = (ptrdiff_t)op->stride_x * in->channels,
                      .panel = op->panel,
                      .out_stride = tti_pixel_step(out),
                      .begin_stride = tti_pixel_step(out),
                      .residual_stride = out->channels};
  while (item < end) {
    uint32_t y0, y1;
    const tti_block part = tti_conv_part(call, &item, end, &y0, &y1);
    uint32_t number = (part.panel_begin - b->panel_begin) * pieces, last = (part.panel_end - b->panel_begin) * pieces;
    for (uint32_t panel = part.panel_begin; panel < part.panel_end; panel++) {
      const uint32_t group = panel / group_panels, first = panel % group_panels * op->panel;
      const uint32_t channel = group * channels + first;
      const float *weights = NULL;
      tti_ahead next = {0, 0};
      row.columns = tti_min(op->panel, channels - first);
      for (uint32_t k0 = b->k_begin, k1; k0 < b->k_end; k0 = k1) {
        const uint32_t at = (k0 - b->k_begin) % piece;
        if (!at) weights = tti_piece(e, op, b, number++, goes_on ? last : 0, worker, &next);
        const size_t each = tti_divide_up((uint32_t)next.bytes, (y1 - y0) * tti_divide_up(piece - at, slice));
        k1 = tti_min(slice, piece - at) + k0;
        row.weights = weights + (size_t)at * op->panel;
        if (op->variant) {
          decode_rows(e, op, (const uint8_t *)weights, at, at + k1 - k0, decoded);
          row.weights = decoded;
        }
        for (uint32_t y = y0, rows; y < y1; y += rows) {
          uint32_t k = k0;
          rows = in_line ? tti_rows_in_line(&e->program, op, y, y1 - y) : 1;
          row.width = (size_t)rows * out->width;
          row.out = tti_row(e, out, y) + channel;
          row.bias = k == 0 ? bias + (size_t)panel * op->panel : NULL;
          row.begin = k == 0 ? NULL : row.out;
          tti_bring_near(call->expected, worker, &next, rows * each, k1 - k0, &row);
          do {
            row.run_count = collect_runs(e, op, in, y, group * depth, depth, k0, k1, &k, runs);
            row.residual = row.begin || !residual ? NULL : tti_row(e, residual, y) + channel;
            row.finish = k == k_total ? tti_finish_of(op) : tti_unfinished();
            e->port->kernels->conv_row(&row);
            row.bias = NULL;
            row.begin = row.out;
          } while (k < k1);
        }
      }
    }
    if (b->k_end == k_total) tti_complete_block(e, op, y0, y1, 0, out->width, &part);
  }
}

/* Whether threads share y-planes, so that each mostly reads input that it has written and writes what it will read, or
 * else panels that it has opened: whichever are more, for they come slowly from another's cache. */
int tti_by_rows(const struct tt_engine *e, const tt_op *op, uint32_t rows, uint64_t weights) {
  const tt_tensor *in = tti_operand(&e->program, op, 0), *out = &e->program.tensors[op->output];
  return rows * ((uint64_t)op->stride_y * in->width * in->channels + (uint64_t)out->width * out->channels) > weights;
}

void tti_conv(struct tt_engine *e, const tt_op *op, uint32_t y0, uint32_t y1, const tti_block *block) {
  const tt_tensor *out = &e->program.tensors[op->output];
  const tti_block whole = {0, tti_conv_panels(&e->program, op), 0, tti_conv_depth(&e->program, op), NULL};
  const tti_block *b = block ? block : &whole;
  const int bytes = tti_is_i8(&e->program, op);
  if (op->flags & TT_FLAG_WINOGRAD) {
    tti_winograd(e, op, y0, y1, b);
    return;
  }
  if (op->flags & TT_FLAG_STRASSEN && !bytes) {
    tti_strassen(e, op, y0, y1, b, !block);
    return;
  }
  const uint32_t panels = b->panel_end - b->panel_begin, rows = y1 - y0, workers = tti_workers(e);
  const int own = b->sealed || !(block || bytes), many = panels >= 4 * workers;
  /* Fewer pixels leave as much to do: loading the weights. */
  const uint64_t pixels = (uint64_t)rows * out->width, weights = (uint64_t)panels * op->panel * (b->k_end - b->k_begin);
  const uint32_t items = tti_items(e, weights * (pixels < LEAST_PIXELS ? LEAST_PIXELS : pixels));
  tti_conv_call call = {.e = e, .op = op, .block = b, .y0 = y0, .y1 = y1, .resident = !block, .expected = e->expected};
  /* Weights that no other thread has just opened count half; many panels are to meet all of a thread's y-planes. */
  call.by_rows = tti_by_rows(e, op, block ? rows : out->height, own ? weights / 2 : weights);
  uint32_t parts = call.by_rows ? own && many ? workers : items : tti_divide_up(items, panels);
  if (b->sealed) parts = call.by_rows || (panels % workers && !many) ? workers : 1;
  call.rows_each = tti_divide_up(rows, tti_min(parts, is_narrow(e, op) ? tti_min(rows, workers) : rows));
  call.row_parts = tti_divide_up(rows, call.rows_each);
  call.panels_each = tti_divide_up(panels, call.by_rows ? tti_divide_up(items, call.row_parts) : items);
  call.panel_parts = tti_divide_up(panels, call.panels_each);
  tti_parallel(e, bytes ? tti_i8_conv_items : conv_items, &call, call.panel_parts * call.row_parts);
}

/* Rows of the map under the window of output y-plane y. */
static uint32_t window_rows(const struct tt_engine *e, const tt_op *op, const tt_tensor *in, uint32_t y,
                            const float **rows, uint32_t *from) {
  uint32_t to;
  tti_ky_range(op, in->height, y, from, &to);
  for (uint32_t ky = *from; ky < to; ky++)
    rows[ky - *from] = tti_row(e, in, y * op->stride_y + ky * op->dilation_y - op->pad_top);
  return to - *from;
}

void tti_depthwise(const struct tt_engine *e, const tt_op *op, uint32_t y0, uint32_t y1) {
  const tt_tensor *in = tti_operand(&e->program, op, 0), *out = &e->program.tensors[op->output];
  const float *weights = (const float *)(const void *)(e->arena + op->weights);
  const float *rows[TT_MAX_KERNEL_Y];
  const tti_finish finish = tti_finish_of(op);
  tti_depthwise_row row = {.rows = rows,
                           .kernel_x = op->kernel_x,
                           .stride_x = op->stride_x,
                           .dilation_x = op->dilation_x,
                           .width = out->width,
                           .channels = out->channels,
                           .bias = (const float *)(const void *)(e->arena + op->bias),
                           .low = finish.low,
                           .high = finish.high};
  for (uint32_t y = y0; y < y1; y++) {
    uint32_t from;
    row.ky_count = window_rows(e, op, in, y, rows, &from);
    for (size_t i = 0; i < row.ky_count; i++) rows[i] -= (size_t)op->pad_left * in->channels;
    row.weights = weights + (size_t)from * op->kernel_x * in->channels;
    row.out = tti_row(e, out, y);
    e->port->kernels->depthwise_row(&row);
    if (op->activation > TT_ACT_CLIP)
      e->port->kernels->activation(op->activation, op->alpha, op->beta, row.out, (size_t)out->width * out->channels);
  }
}

uint32_t tti_pool_divisor(const tt_op *op, uint32_t height, uint32_t y, uint32_t inside) {
  const uint64_t padded = (uint64_t)op->pad_top + height + op->pad_bottom, top = (uint64_t)y * op->stride_y;
  const uint32_t fit = tti_taps_before(padded, top, op->dilation_y, op->kernel_y);
  const uint32_t divisor = op->flags & TT_FLAG_COUNT_INCLUDE_PAD ? fit : inside;
  return divisor ? divisor : 1;
}

void tti_pool(const struct tt_engine *e, const tt_op *op, uint32_t y0, uint32_t y1) {
  const tt_tensor *in = tti_operand(&e->program, op, 0), *out = &e->program.tensors[op->output];
  const float *rows[TT_MAX_KERNEL_Y];
  tti_pool_row row = {.rows = rows,
                      .kernel_x = op->kernel_x,
                      .stride_x = op->stride_x,
                      .dilation_x = op->dilation_x,
                      .pad_left = op->pad_left,
                      .pad_right = op->pad_right,
                      .in_width = in->width,
                      .width = out->width,
                      .channels = out->channels,
                      .count_pad = (op->flags & TT_FLAG_COUNT_INCLUDE_PAD) != 0};
  for (uint32_t y = y0; y < y1; y++) {
    uint32_t from;
    row.ky_count = window_rows(e, op, in, y, rows, &from);
    row.out = tti_row(e, out, y);
    if (op->kind == TT_OP_AVERAGE_POOL) row.divisor_y = tti_pool_divisor(op, in->height, y, (uint32_t)row.ky_count);
    e->port->kernels->pool_row(&row);
  }
}
