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

/* One operand of a binary operator at an output y-plane. */
typedef struct side {
  const float *row;
  size_t pixel_step, step; /* elements from pixel to pixel and from channel to channel */
} side;

static side tensor_side(const struct tt_engine *e, const tt_tensor *t, uint32_t y) {
  return (side){tti_row(e, t, t->height == 1 ? 0 : y), t->width == 1 ? 0 : t->channels, t->channels == 1 ? 0 : 1};
}

static side constant_side(const struct tt_engine *e, const tt_op *op, uint32_t channels, uint32_t y) {
  const uint32_t depth = op->groups ? op->groups : channels;
  const float *values = (const float *)(const void *)(e->arena + op->weights);
  return (side){values + (size_t)(op->kernel_y == 1 ? 0 : y) * op->kernel_x * depth, op->kernel_x == 1 ? 0 : depth,
                depth == 1 ? 0 : 1};
}

void tti_binary(const struct tt_engine *e, const tt_op *op, uint32_t y0, uint32_t y1) {
  const tti_kernels *kernels = e->port->kernels;
  const tt_tensor *out = &e->program.tensors[op->output];
  const uint32_t channels = out->channels;
  for (uint32_t y = y0; y < y1; y++) {
    const side first = tensor_side(e, tti_operand(&e->program, op, 0), y);
    const side second = op->flags & TT_FLAG_CONSTANT ? constant_side(e, op, channels, y)
                                                     : tensor_side(e, tti_operand(&e->program, op, 1), y);
    side a = op->flags & TT_FLAG_CONSTANT_FIRST ? second : first,
         b = op->flags & TT_FLAG_CONSTANT_FIRST ? first : second;
    if (channels == 1) a.step = a.pixel_step, b.step = b.pixel_step; /* pixels as channels elsewhere */
    float *row = tti_row(e, out, y);
    const int whole_a = (a.step && a.pixel_step) || (!a.step && !a.pixel_step);
    const int whole_b = (b.step && b.pixel_step) || (!b.step && !b.pixel_step);
    if (whole_a && whole_b) {
      kernels->binary(op->variant, a.row, a.step, b.row, b.step, row, (size_t)out->width * channels);
    } else if (a.step && a.pixel_step && b.step) {
      kernels->binary_pixels(op->variant, a.row, b.row, 0, row, out->width, channels);
    } else if (b.step && b.pixel_step && a.step) {
      kernels->binary_pixels(op->variant, b.row, a.row, 1, row, out->width, channels);
    } else {
      for (uint32_t x = 0; x < out->width; x++)
        kernels->binary(op->variant, a.row + x * a.pixel_step, a.step, b.row + x * b.pixel_step, b.step,
                        row + (size_t)x * channels, channels);
    }
  }
}
