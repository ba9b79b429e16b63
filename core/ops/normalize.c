/* Operators over the channels of a pixel: softmax, layer normalization, local response normalization, arg max. */
#include "../core.h"

static float largest(const float *v, uint32_t count) {
  float m = v[0];
  for (uint32_t i = 1; i < count; i++) m = v[i] > m || v[i] != v[i] ? v[i] : m;
  return m;
}

static void softmax(const tti_kernels *kernels, const tt_op *op, const float *in, float *out, uint32_t channels) {
  const float top = largest(in, channels);
  float sum = 0.0f;
  kernels->binary(TT_BINARY_SUB, in, 1, &top, 0, out, channels);
  if (op->flags & TT_FLAG_LOG) {
    for (uint32_t c = 0; c < channels; c++) {
      float term = out[c];
      kernels->activation(TT_ACT_EXP, 0.0f, 0.0f, &term, 1);
      sum += term;
    }
    kernels->activation(TT_ACT_LOG, 0.0f, 0.0f, &sum, 1);
    kernels->binary(TT_BINARY_SUB, out, 1, &sum, 0, out, channels);
  } else {
    kernels->activation(TT_ACT_EXP, 0.0f, 0.0f, out, channels);
    for (uint32_t c = 0; c < channels; c++) sum += out[c];
    kernels->binary(TT_BINARY_DIV, out, 1, &sum, 0, out, channels);
  }
}

static void layer_norm(const struct tt_engine *e, const tt_op *op, const float *in, float *out, uint32_t channels) {
  const float *scale = (const float *)(const void *)(e->arena + op->weights),
              *bias = (const float *)(const void *)(e->arena + op->bias);
  float mean = 0.0f, variance = 0.0f;
  for (uint32_t c = 0; c < channels; c++) mean += in[c];
  mean /= (float)channels;
  for (uint32_t c = 0; c < channels; c++) variance += (in[c] - mean) * (in[c] - mean);
  const float deviation = __builtin_sqrtf(variance / (float)channels + op->p0);
  for (uint32_t c = 0; c < channels; c++) out[c] = (in[c] - mean) / deviation * scale[c] + bias[c];
}

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
        softmax(kernels, op, from, to, in->channels);
      else if (op->kind == TT_OP_LAYER_NORM)
        layer_norm(e, op, from, to, in->channels);
      else if (op->kind == TT_OP_LRN)
        kernels->lrn(from, to, in->channels, op->kernel_x, op->p0, op->p1, op->p2);
      else
        to[0] = arg_max(op, from, in->channels);
    }
  }
}
