/* Reductions over the map, and operators on two operands. */
#include "../core.h"

void tti_reduce(const struct tt_engine *e, const tt_op *op, uint32_t y0, uint32_t y1) {
  const tti_kernels *kernels = e->port->kernels;
  const tt_tensor *in = tti_operand(&e->program, op, 0), *out = &e->program.tensors[op->output];
  const uint32_t channels = in->channels;
  const int sum = op->variant == TT_REDUCE_MEAN || op->variant == TT_REDUCE_SUM;
  const unsigned extreme = op->variant == TT_REDUCE_MAX ? TT_BINARY_MAX : TT_BINARY_MIN;
  float *total = tti_row(e, out, 0);
  for (uint32_t y = y0; y < y1; y++) {
    const float *row = tti_row(e, in, y);
    if (sum) {
      kernels->i8->accumulate(y != 0, 1.0f, row, in->width, total, channels);
      continue;
    }
    if (y == 0) tti_copy(total, row, channels * sizeof *row);
    for (uint32_t x = y == 0; x < in->width; x++)
      kernels->binary(extreme, total, 1, row + (size_t)x * channels, 1, total, channels);
  }
  if (y1 == in->height && op->variant == TT_REDUCE_MEAN)
    kernels->i8->accumulate(0, 1.0f / ((float)in->height * (float)in->width), total, 1, total, channels);
}

tti_side tti_side_of(const struct tt_engine *e, const tt_op *op, uint32_t which, uint32_t y) {
  const tt_tensor *out = &e->program.tensors[op->output];
  const uint32_t constant = !(op->flags & TT_FLAG_CONSTANT) ? 2 : op->flags & TT_FLAG_CONSTANT_FIRST ? 0 : 1;
  if (which != constant) { /* beside a constant there is but one */
    const tt_tensor *t = tti_operand(&e->program, op, constant < 2 ? 0 : which);
    const uint8_t *row = tti_pixels(e, t, t->height == 1 ? 0 : y);
    return (tti_side){row, t->width == 1 ? 0 : t->channels, t->channels != 1, t->zero_point};
  }
  const uint32_t channels = op->groups ? op->groups : out->channels;
  const size_t row = (size_t)(op->kernel_y == 1 ? 0 : y) * op->kernel_x * channels;
  return (tti_side){e->arena + op->weights + row * out->elem_bytes, op->kernel_x == 1 ? 0 : channels, channels != 1,
                    (float)op->table};
}

void tti_binary(const struct tt_engine *e, const tt_op *op, uint32_t y0, uint32_t y1) {
  const tti_kernels *kernels = e->port->kernels;
  const tt_tensor *out = &e->program.tensors[op->output];
  const uint32_t channels = out->channels;
  for (uint32_t y = y0; y < y1; y++) {
    tti_side a = tti_side_of(e, op, 0, y), b = tti_side_of(e, op, 1, y);
    if (channels == 1) a.step = a.pixel_step, b.step = b.pixel_step; /* pixels as channels elsewhere */
    const float *left = (const float *)(const void *)a.row, *right = (const float *)(const void *)b.row;
    float *row = tti_row(e, out, y);
    if (tti_is_whole(a) && tti_is_whole(b)) {
      kernels->binary(op->variant, left, a.step, right, b.step, row, (size_t)out->width * channels);
    } else if (a.step && a.pixel_step && b.step) {
      kernels->binary_pixels(op->variant, left, right, 0, row, out->width, channels);
    } else if (b.step && b.pixel_step && a.step) {
      kernels->binary_pixels(op->variant, right, left, 1, row, out->width, channels);
    } else {
      for (uint32_t x = 0; x < out->width; x++)
        kernels->binary(op->variant, left + x * a.pixel_step, a.step, right + x * b.pixel_step, b.step,
                        row + (size_t)x * channels, channels);
    }
  }
}
