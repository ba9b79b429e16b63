/* Operators over the channels of a pixel: softmax, layer normalization, local response normalization, arg max. */
#include "../core.h"

static float arg_max(const tt_op *op, const float *in, uint32_t channels) {
  const int last = (op->flags & TT_FLAG_SELECT_LAST) != 0;
  float best = in[0];
  uint32_t at = 0;
  for (uint32_t c = 1; c < channels; c++) {
    const int better = in[c] > best || (last && in[c] == best);
    best = better ? in[c] : best;
    at = better ? c : at;
  }
  return (float)at;
}

void tti_normalize(const struct tt_engine *e, const tt_op *op, uint32_t y0, uint32_t y1) {
  const tti_kernels *kernels = e->port->kernels;
  const tt_tensor *in = tti_operand(&e->program, op, 0), *out = &e->program.tensors[op->output];
  for (uint32_t y = y0; y < y1; y++) {
    const float *from = tti_row(e, in, y);
    float *to = tti_row(e, out, y);
    for (uint32_t x = 0; x < in->width; x++, from += in->channels, to += out->channels) {
      if (op->kind == TT_OP_SOFTMAX)
        kernels->softmax(from, to, in->channels, op->flags & TT_FLAG_LOG);
      else if (op->kind == TT_OP_LAYER_NORM)
        kernels->layer_norm(from, (const float *)(const void *)(e->arena + op->weights),
                            (const float *)(const void *)(e->arena + op->bias), op->p0, to, in->channels);
      else if (op->kind == TT_OP_LRN)
        kernels->lrn(from, to, in->channels, op->kernel_x, op->p0, op->p1, op->p2);
      else
        to[0] = arg_max(op, from, in->channels);
    }
  }
}
