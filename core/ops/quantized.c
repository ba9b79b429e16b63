/* Operators on uint8; see tt_op in tinytee_program.h. */
#include "../core.h"

enum { MOST_PIXELS = 64 };

static tti_rounding rounding_of(const tt_op *op, const tt_tensor *out) {
  tti_rounding r = {op->alpha - out->zero_point, op->beta - out->zero_point, out->zero_point, out->elem_bytes != 1, 0};
  r.is_whole = !r.is_float && op->alpha == 0.0f && op->beta == 255.0f;
  if (r.is_float) {
    r.low = tti_finish_of(op).low;
    r.high = tti_finish_of(op).high;
  }
  return r;
}

/* Collects the runs of output y-plane y for input channels from c0 on and the weight rows of a block. */
static size_t collect_runs(const struct tt_engine *e, const tt_op *op, const tt_tensor *in, uint32_t y, uint32_t c0,
                           const tti_block *b, tti_i8_run *runs) {
  const tti_stretch s = tti_i8_stretch(op, in);
  if (tti_is_pointwise(op)) {
    const tti_i8_run whole = {tti_pixels(e, in, y * op->stride_y) + c0 + 4 * b->k_begin, 0,
                              tti_min(s.length - 4 * b->k_begin, 4 * (b->k_end - b->k_begin))};
    runs[0] = whole;
    return 1;
  }
  uint32_t from, to;
  tti_ky_range(op, in->height, y, &from, &to);
  size_t count = 0;
  for (uint32_t k = b->k_begin; k < b->k_end;) {
    const uint32_t stretch = k / s.rows, at = k % s.rows, end = tti_min(k - at + s.rows, b->k_end);
    const uint32_t ky = stretch / s.per_row, kx = stretch % s.per_row;
    const int inside = ky >= from && ky < to;
    const uint8_t *row = inside ? tti_pixels(e, in, y * op->stride_y + ky * op->dilation_y - op->pad_top) : NULL;
    const ptrdiff_t offset = (ptrdiff_t)in->channels * (kx * op->dilation_x - (ptrdiff_t)op->pad_left) + c0 + 4 * at;
    runs[count].input = inside ? row + offset : NULL;
    runs[count].weight_row = k - b->k_begin;
    runs[count++].count = tti_min(s.length - 4 * at, 4 * (end - k));
    k = end;
  }
  return count;
}

void tti_i8_conv_items(void *argument, uint32_t item, uint32_t end, uint32_t worker) {
  const tti_conv_call *call = argument;
  const struct tt_engine *e = call->e;
  const tt_op *op = call->op;
  const tti_block *b = call->block;
  const tt_tensor *in = tti_operand(&e->program, op, 0), *out = &e->program.tensors[op->output];
  const uint32_t depth = in->channels / op->groups, channels = out->channels / op->groups;
  const uint32_t group_panels = (channels + op->panel - 1) / op->panel, k_total = tti_conv_depth(&e->program, op);
  const int in_line = tti_is_in_line(&e->program, op);
  int32_t *kept = (int32_t *)(void *)(e->arena + op->workspace);
  tti_i8_run runs[TTI_I8_RUNS];
  tti_i8_conv_row row = {.runs = runs,
                         .pixel_stride = (ptrdiff_t)op->stride_x * in->channels,
                         .panel = op->panel,
                         .zero = in->zero_point,
                         .products = op->flags & TT_FLAG_FOUR_FIT  ? 4
                                     : op->flags & TT_FLAG_TWO_FIT ? 2
                                                                   : 1,
                         .out_stride = tti_pixel_step(out),
                         .rounding = rounding_of(op, out)};
  (void)worker;
  while (item < end) {
    uint32_t y0, y1;
    const tti_block part = tti_conv_part(call, &item, end, &y0, &y1);
    for (uint32_t panel = part.panel_begin; panel < part.panel_end; panel++) {
      const uint32_t group = panel / group_panels, first = panel % group_panels * op->panel;
      const size_t row_bytes = (size_t)op->panel * 4;
      row.columns = tti_min(op->panel, channels - first);
      const uint8_t *fed =
          e->arena + op->weights + (panel - b->panel_begin) * tti_panel_bytes(op, b->k_end - b->k_begin);
      const uint8_t *constants = tti_fed_rows(op) ? fed : e->arena + op->bias + panel * 3 * row_bytes;
      row.weights = (const int8_t *)(fed + tti_fed_rows(op) * row_bytes);
      row.constants = (const int32_t *)(const void *)constants;
      for (uint32_t y = y0, rows; y < y1; y += rows) {
        rows = in_line ? tti_rows_in_line(&e->program, op, y, y1 - y) : 1;
        row.width = (size_t)rows * out->width;
        int32_t *sums = kept + (size_t)(y - op->done) * out->width * op->panel;
        row.run_count = collect_runs(e, op, in, y, group * depth, b, runs);
        row.out = tti_pixels(e, out, y) + (size_t)(group * channels + first) * out->elem_bytes;
        row.begin = b->k_begin ? sums : NULL;
        row.end = b->k_end < k_total ? sums : NULL;
        e->port->kernels->i8->conv_row(&row);
      }
    }
    if (b->k_end == k_total) tti_complete_block(e, op, y0, y1, 0, out->width, &part);
  }
}

static void depthwise(const struct tt_engine *e, const tt_op *op, uint32_t y) {
  const tt_tensor *in = tti_operand(&e->program, op, 0), *out = &e->program.tensors[op->output];
  const uint8_t *rows[TT_MAX_KERNEL_Y];
  uint32_t from, to;
  tti_ky_range(op, in->height, y, &from, &to);
  for (uint32_t ky = 0; ky < op->kernel_y; ky++) {
    const int inside = ky >= from && ky < to;
    const uint32_t iy = inside ? y * op->stride_y + ky * op->dilation_y - op->pad_top : 0;
    rows[ky] = inside ? tti_pixels(e, in, iy) - (size_t)op->pad_left * in->channels : NULL;
  }
  const tti_i8_depthwise_row row = {.rows = rows,
                                    .kernel_y = op->kernel_y,
                                    .kernel_x = op->kernel_x,
                                    .stride_x = op->stride_x,
                                    .dilation_x = op->dilation_x,
                                    .width = out->width,
                                    .channels = out->channels,
                                    .zero = in->zero_point,
                                    .weights = (const int8_t *)(e->arena + op->weights),
                                    .constants = (const int32_t *)(const void *)(e->arena + op->bias),
                                    .out = tti_pixels(e, out, y),
                                    .rounding = rounding_of(op, out)};
  e->port->kernels->i8->depthwise_row(&row);
}

static void max_pixel(const struct tt_engine *e, const uint8_t *const *rows, uint32_t row_count, size_t step,
                      uint32_t columns, uint32_t channels, uint8_t *to) {
  const uint8_t *pixels[MOST_PIXELS];
  size_t count = 0;
  for (uint32_t i = 0; i < row_count; i++)
    for (uint32_t j = 0; j < columns; j++) {
      pixels[count++] = rows[i] + j * step;
      if (count < MOST_PIXELS) continue;
      e->port->kernels->i8->max(pixels, count, channels, to);
      pixels[0] = to;
      count = 1;
    }
  e->port->kernels->i8->max(pixels, count, channels, to);
}

static void pool(const struct tt_engine *e, const tt_op *op, uint32_t y) {
  const tt_tensor *in = tti_operand(&e->program, op, 0), *out = &e->program.tensors[op->output];
  const uint8_t *planes[TT_MAX_KERNEL_Y], *rows[TT_MAX_KERNEL_Y];
  const int count_pad = (op->flags & TT_FLAG_COUNT_INCLUDE_PAD) != 0;
  const size_t step = (size_t)op->dilation_x * in->channels;
  const uint64_t right = (uint64_t)op->pad_left + in->width;
  uint32_t from, to;
  tti_ky_range(op, in->height, y, &from, &to);
  const uint32_t divisor_y = tti_pool_divisor(op, in->height, y, to - from);
  for (uint32_t ky = from; ky < to; ky++)
    planes[ky - from] = tti_pixels(e, in, y * op->stride_y + ky * op->dilation_y - op->pad_top);
  uint8_t *pixel = tti_pixels(e, out, y);
  for (uint32_t x = 0; x < out->width; x++, pixel += out->channels) {
    const uint64_t left = (uint64_t)x * op->stride_x;
    const uint32_t end = tti_taps_before(right, left, op->dilation_x, op->kernel_x);
    const uint32_t first = tti_min(tti_taps_before(op->pad_left, left, op->dilation_x, op->kernel_x), end);
    const size_t at = first < end ? left + (size_t)first * op->dilation_x - op->pad_left : 0;
    for (uint32_t i = 0; i < to - from; i++) rows[i] = planes[i] + at * in->channels;
    if (op->kind == TT_OP_MAX_POOL) {
      max_pixel(e, rows, to - from, step, end - first, in->channels, pixel);
      continue;
    }
    const uint32_t fit = tti_taps_before(right + op->pad_right, left, op->dilation_x, op->kernel_x);
    const tti_i8_average window = {.rows = rows,
                                   .row_count = to - from,
                                   .columns = end - first,
                                   .step = step,
                                   .channels = in->channels,
                                   .zero = in->zero_point,
                                   .in_scale = op->p0,
                                   .divisor = (float)(divisor_y * (count_pad ? fit : end - first)),
                                   .out_scale = op->p1,
                                   .offset = out->zero_point,
                                   .out = pixel,
                                   .rounding = {op->alpha, op->beta, 0, 0, 0}};
    e->port->kernels->i8->average(&window);
  }
}

/* The sums lie where the means will: int32 in the place of float32. */
void tti_i8_reduce(const struct tt_engine *e, const tt_op *op, uint32_t y0, uint32_t y1) {
  const tti_i8_kernels *kernels = e->port->kernels->i8;
  const tt_tensor *in = tti_operand(&e->program, op, 0), *out = &e->program.tensors[op->output];
  const tti_rounding rounding = {-__builtin_inff(), __builtin_inff(), 0, 1, 0};
  float *means = tti_row(e, out, 0);
  int32_t *sums = (int32_t *)(void *)means;
  if (y0 == 0) tti_set(sums, 0, in->channels * sizeof *sums);
  for (uint32_t y = y0; y < y1; y++) kernels->sum(tti_pixels(e, in, y), in->width, in->channels, sums);
  if (y1 < in->height) return;
  kernels->round(sums, (int32_t)(in->height * in->width * in->zero_point), op->p0, in->channels, means, &rounding);
}

static void binary(const struct tt_engine *e, const tt_op *op, uint32_t y) {
  const tt_tensor *out = &e->program.tensors[op->output];
  const tti_side a = tti_side_of(e, op, 0, y), b = tti_side_of(e, op, 1, y);
  tti_i8_binary_row row = {.a = a.row,
                           .b = b.row,
                           .a_step = a.step,
                           .b_step = b.step,
                           .count = (size_t)out->width * out->channels,
                           .pixels = 1,
                           .a_zero = a.zero,
                           .b_zero = b.zero,
                           .a_scale = op->p0,
                           .b_scale = op->p1,
                           .last = op->variant == TT_BINARY_MUL ? out->zero_point : op->p2,
                           .out = tti_pixels(e, out, y),
                           .rounding = op->variant == TT_BINARY_SUB ? rounding_of(op, out)
                                                                    : (tti_rounding){op->alpha, op->beta, 0, 0, 0}};
  if (!tti_is_whole(a) || !tti_is_whole(b)) {
    row.count = out->channels;
    row.pixels = out->width;
    row.a_pixel = a.pixel_step;
    row.b_pixel = b.pixel_step;
  }
  e->port->kernels->i8->binary(op->variant, &row);
}

/* A pixel at a time: its values, what they are normalized to, and that in bytes. */
static void normalize(const struct tt_engine *e, const tt_op *op, uint32_t y, uint32_t worker) {
  const tti_kernels *kernels = e->port->kernels;
  const tt_tensor *in = tti_operand(&e->program, op, 0), *out = &e->program.tensors[op->output];
  const float *scales = (const float *)(const void *)(e->program.tables + op->table);
  const tti_rounding rounding = rounding_of(op, out);
  const uint32_t channels = in->channels;
  float *values = (float *)(void *)(e->arena + op->workspace) + (size_t)worker * 2 * channels,
        *after = values + channels;
  const uint8_t *from = tti_pixels(e, in, y);
  uint8_t *to = tti_pixels(e, out, y);
  for (uint32_t x = 0; x < in->width; x++, from += channels, to += channels) {
    kernels->i8->dequantize(from, in->zero_point, scales[0], channels, values);
    kernels->lrn(values, after, channels, op->kernel_x, op->p0, op->p1, op->p2);
    kernels->i8->quantize(after, scales[1], channels, to, &rounding);
  }
}

void tti_i8_row(const struct tt_engine *e, const tt_op *op, uint32_t y, uint32_t worker) {
  const tti_i8_kernels *kernels = e->port->kernels->i8;
  const tt_tensor *in = tti_operand(&e->program, op, 0), *out = &e->program.tensors[op->output];
  const size_t count = (size_t)out->width * out->channels;
  const tti_rounding rounding = rounding_of(op, out);
  if (op->kind == TT_OP_DEPTHWISE)
    depthwise(e, op, y);
  else if (op->kind == TT_OP_BINARY)
    binary(e, op, y);
  else if (op->kind == TT_OP_LRN)
    normalize(e, op, y, worker);
  else if (op->kind == TT_OP_LOOKUP)
    kernels->lookup(e->arena + op->weights, tti_pixels(e, in, y), count, tti_pixels(e, out, y));
  else if (op->kind != TT_OP_CONVERT)
    pool(e, op, y);
  else if (in->elem_bytes == 1)
    kernels->dequantize(tti_pixels(e, in, y), in->zero_point, op->p0, count, tti_row(e, out, y));
  else
    kernels->quantize(tti_row(e, in, y), op->p0, count, tti_pixels(e, out, y), &rounding);
}
