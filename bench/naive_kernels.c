/* The kernels that a tiny library would have: plain loops, one output element at a time. What weighs little is as in
 * core/kernels. A bench build of the trusted application takes this file in place of core/kernels/f32.c. */
#define tti_kernels_neon vector_kernels
#include "kernels/f32.c"
#undef tti_kernels_neon

static void naive_conv_row(const tti_conv_row *c) {
  for (size_t x = 0; x < c->width; x++) {
    for (size_t n = 0; n < c->columns; n++) {
      float *out = c->out + (ptrdiff_t)x * c->out_stride + (ptrdiff_t)n;
      float sum = c->bias ? c->bias[n] : *out;
      for (size_t r = 0; r < c->run_count; r++) {
        const float *in = c->runs[r].input + (ptrdiff_t)x * c->pixel_stride;
        const float *w = c->weights + (size_t)c->runs[r].weight_row * c->panel + n;
        for (size_t i = 0; i < c->runs[r].count; i++) sum += in[i] * w[i * c->panel];
      }
      if (c->residual) sum += c->residual[(ptrdiff_t)x * c->residual_stride + (ptrdiff_t)n];
      sum = sum < c->finish.low ? c->finish.low : sum;
      *out = sum > c->finish.high ? c->finish.high : sum;
      if (c->finish.hard_swish) vector_kernels()->activation(TT_ACT_HARD_SWISH, 0.0f, 0.0f, out, 1);
    }
  }
}

static void naive_depthwise_row(const tti_depthwise_row *d) {
  for (size_t x = 0; x < d->width; x++) {
    for (size_t n = 0; n < d->channels; n++) {
      float sum = d->bias[n];
      for (size_t i = 0; i < d->ky_count; i++)
        for (size_t j = 0; j < d->kernel_x; j++)
          sum += d->rows[i][(x * d->stride_x + j * d->dilation_x) * d->channels + n] *
                 d->weights[(i * d->kernel_x + j) * d->channels + n];
      sum = sum < d->low ? d->low : sum;
      d->out[x * d->channels + n] = sum > d->high ? d->high : sum;
    }
  }
}

const tti_kernels *tti_kernels_neon(void);
const tti_kernels *tti_kernels_neon(void) {
  static tti_kernels table;
  table = *vector_kernels();
  table.name = "naive";
  table.conv_row = naive_conv_row;
  table.depthwise_row = naive_depthwise_row;
  return &table;
}
