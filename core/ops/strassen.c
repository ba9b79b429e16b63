/* Convolutions of 1 x 1 by Strassen's method, in the form of Winograd (1973): seven products of halves instead of
 * eight.
 *
 * Pixels, input channels and output channels are taken in two halves each. C11 to C22 being the quarters of the output,
 * A11 to A22 those of the input (pixels first), B11 to B22 those of the weights (input channels first),
 *
 *     T1 = B12 - B11    T2 = B22 - T1     T3 = T2 - B11     T4 = B21 - T2
 *     S1 = A21 + A22    S2 = S1 - A11     S3 = A11 - A21    S4 = A12 - S2
 *     X  = A11 B11      C11 = X + A12 B21
 *     X' = X + S2 T2    Z   = X' + S1 T1  C12 = Z + S4 B22
 *     Y  = S3 T3        C22 = Z + Y       C21 = X' + Y + A22 T4
 *
 * Of the T only T2 is stored, instead of B12: T1 = B22 - T2, and T3 and T4 are differences, too, which the kernel takes
 * as it loads weights. So there is nothing to compute of the weights, and they take no more place than they did. */
#include "../core.h"

/* A y-plane of its own is divided in two from so many pixels on: register tiles are as wide as half of that. */
enum { LEAST_DIVIDED = 14 };

enum { A11, A12, A21, A22, S1, S2, S3, S4 };
enum { B11, T2, B21, B22, NEXT_B11 }; /* as a panel has them, and the next panel */
enum { X, Y, Z, C11, C12, C21, C22 }; /* products kept, then quarters of the output */
enum { NONE = 255 };

/* out = begin + add + bias + left * (weights - less); then the weights to bring near meanwhile. */
typedef struct pass {
  uint8_t left, weights, less, bias, begin, add, out, ahead;
} pass;

static const pass of_pairs[] = {
    {A11, B11, NONE, 0, NONE, NONE, X, B21},   {A12, B21, NONE, NONE, X, NONE, C11, T2},
    {S2, T2, NONE, NONE, X, NONE, X, B22},     {S1, B22, T2, 1, X, NONE, Z, NONE},
    {S4, B22, NONE, NONE, Z, NONE, C12, NONE}, {S3, T2, B11, NONE, NONE, NONE, Y, NONE},
    {NONE, B11, NONE, NONE, Z, Y, C22, NONE},  {A22, B21, T2, NONE, X, Y, C21, NEXT_B11},
};

/* What has no second half to go with: the four products of its own. */
static const pass of_one[] = {
    {A11, B11, NONE, 0, NONE, NONE, X, NONE},
    {A12, B21, NONE, NONE, X, NONE, C11, NONE},
    {A11, B22, T2, 1, X, NONE, Z, NONE},
    {A12, B22, NONE, NONE, Z, NONE, C12, NONE},
};

/* Pairs of stretches of 'width' pixels: y-planes y + 2 i and y + 2 i + 1 or, if they lie 'within' a y-plane, two of y
 * side by side, from pixel x on. An item takes panels_each of the block's panels and pairs_each of the pairs. */
typedef struct strassen_call {
  struct tt_engine *e;
  const tt_op *op;
  const tti_block *block;
  const pass *passes;
  uint32_t pass_count, y, x, pairs, width, panels_each, panel_parts, pairs_each, items;
  int within, resident;
  size_t most; /* pixels of a half that there is place for */
  float *sums, *products;
  const struct strassen_call *beside; /* whose items follow, or NULL */
} strassen_call;

static float *pixels_of(const strassen_call *call, const tt_tensor *t, uint32_t pair, uint32_t second,
                        uint32_t stride_y, uint32_t stride_x) {
  const uint32_t y = call->within ? call->y : call->y + 2 * pair + second;
  const uint32_t x = call->within ? call->x + second * call->width : call->x;
  return tti_row(call->e, t, y * stride_y) + (size_t)x * stride_x * tti_pixel_step(t);
}

static void sum_items(void *argument, uint32_t item, uint32_t end, uint32_t worker) {
  const strassen_call *call = argument;
  const tt_op *op = call->op;
  const tt_tensor *in = tti_operand(&call->e->program, op, 0);
  const size_t half = in->channels / 2;
  (void)worker;
  for (; item < end; item++)
    call->e->port->kernels->strassen_in(pixels_of(call, in, item, 0, op->stride_y, op->stride_x),
                                        pixels_of(call, in, item, 1, op->stride_y, op->stride_x),
                                        (ptrdiff_t)op->stride_x * in->channels, call->width, half, call->most * half,
                                        call->sums + (size_t)item * call->width * half);
}

static void run_pass(const strassen_call *call, const pass *s, uint32_t panel, uint32_t pair, uint32_t worker,
                     float *products) {
  const struct tt_engine *e = call->e;
  const tt_op *op = call->op;
  const tt_tensor *in = tti_operand(&e->program, op, 0), *out = &e->program.tensors[op->output];
  const size_t depth = in->channels / 2, half = op->panel / 2, matrix = depth * half;
  const float *weights = (const float *)(const void *)(e->arena + op->weights);
  const float *bias = (const float *)(const void *)(e->arena + op->bias) + (size_t)panel * op->panel;
  float *const kept = products + pair * call->width * half;
  const size_t each = call->most * half;
  tti_run run = {.count = (uint32_t)depth};
  tti_conv_row row = {.runs = &run,
                      .run_count = s->left != NONE,
                      .width = call->width,
                      .panel = half,
                      .columns = half,
                      .weights = weights + (4 * (size_t)(panel - call->block->panel_begin) + s->weights) * matrix,
                      .begin_stride = (ptrdiff_t)half,
                      .residual_stride = (ptrdiff_t)half,
                      .out_stride = (ptrdiff_t)half,
                      .finish = tti_unfinished()};
  if (s->left < S1) {
    run.input = pixels_of(call, in, pair, s->left / 2, op->stride_y, op->stride_x) + s->left % 2 * depth;
    row.pixel_stride = (ptrdiff_t)op->stride_x * in->channels;
  } else if (s->left != NONE) {
    run.input = call->sums + ((s->left - S1) * call->most + (size_t)pair * call->width) * depth;
    row.pixel_stride = (ptrdiff_t)depth;
  }
  const size_t share = matrix * sizeof(float) / call->pairs;
  const float *ahead = row.weights + (s->ahead - s->weights) * (ptrdiff_t)matrix;
  tti_ahead next = {(uintptr_t)ahead + pair * share, call->resident && s->ahead != NONE ? share : 0};
  tti_bring_near(call->e->expected, worker, &next, share, s->left == NONE ? 0 : depth, &row);
  if (s->less != NONE) row.less = (s->less - s->weights) * (ptrdiff_t)matrix;
  if (s->bias != NONE) row.bias = bias + s->bias * half;
  if (s->begin != NONE) row.begin = kept + s->begin * each;
  if (s->add != NONE) row.residual = kept + s->add * each;
  if (s->out < C11) {
    row.out = kept + s->out * each;
  } else {
    const uint32_t quarter = s->out - C11;
    const size_t at = (size_t)panel * op->panel + quarter % 2 * half;
    if (op->flags & TT_FLAG_RESIDUAL) {
      if (s->add != NONE) { /* two addends: one at a time */
        tti_conv_row sum = row;
        sum.run_count = 0;
        sum.out = kept + s->begin * each;
        e->port->kernels->conv_row(&sum);
      }
      row.residual = pixels_of(call, tti_operand(&e->program, op, 1), pair, quarter / 2, 1, 1) + at;
      row.residual_stride = out->channels;
    }
    row.out = pixels_of(call, out, pair, quarter / 2, 1, 1) + at;
    row.out_stride = tti_pixel_step(out);
    row.finish = tti_finish_of(op);
  }
  e->port->kernels->conv_row(&row);
}

static void product_item(const strassen_call *call, uint32_t item, uint32_t worker) {
  if (item >= call->items) {
    item -= call->items;
    call = call->beside;
  }
  const tti_block *b = call->block;
  const uint32_t begin = b->panel_begin + item % call->panel_parts * call->panels_each;
  const tti_block part = {begin, tti_min(begin + call->panels_each, b->panel_end), b->k_begin, b->k_end, NULL};
  const uint32_t first = item / call->panel_parts * call->pairs_each;
  const uint32_t last = tti_min(first + call->pairs_each, call->pairs);
  float *products = call->products + worker * 3 * call->most * (call->op->panel / 2);
  for (uint32_t panel = part.panel_begin; panel < part.panel_end; panel++)
    for (uint32_t i = 0; i < call->pass_count; i++)
      for (uint32_t pair = first; pair < last; pair++) run_pass(call, &call->passes[i], panel, pair, worker, products);
  const uint32_t y0 = call->y + (call->within ? 0 : 2 * first), y1 = call->y + (call->within ? 1 : 2 * last);
  const uint32_t stretches = call->within && call->passes == of_pairs ? 2 : 1;
  tti_complete_block(call->e, call->op, y0, y1, call->x, call->x + stretches * call->width, &part);
}

static void product_items(void *call, uint32_t item, uint32_t end, uint32_t worker) {
  for (; item < end; item++) product_item(call, item, worker);
}

static void divide(strassen_call *call) {
  const uint32_t panels = call->block->panel_end - call->block->panel_begin;
  const uint64_t work = (uint64_t)panels * call->op->panel * call->block->k_end * call->pairs * 2 * call->width;
  const uint32_t items = tti_items(call->e, work);
  call->panels_each = tti_divide_up(panels, tti_min(items, panels));
  call->panel_parts = tti_divide_up(panels, call->panels_each);
  call->pairs_each = tti_divide_up(call->pairs, tti_min(tti_divide_up(items, call->panel_parts), call->pairs));
  call->items = call->panel_parts * tti_divide_up(call->pairs, call->pairs_each);
}

/* beside: what else is computed at the same time, without sums; may be NULL. */
static void run_call(strassen_call *call, int summed, strassen_call *beside) {
  divide(call);
  if (beside) divide(beside);
  call->beside = beside;
  if (call->passes == of_pairs && !summed) tti_parallel(call->e, sum_items, call, call->pairs);
  tti_parallel(call->e, product_items, call, call->items + (beside ? beside->items : 0));
}

/* As many pairs of y-planes at a time as there is place for the sums of; a last one of its own is divided, or done in
 * four products. Where one call takes all pairs, its sums serve the blocks of panels that follow, too. */
void tti_strassen(struct tt_engine *e, const tt_op *op, uint32_t y0, uint32_t y1, const tti_block *b, int resident) {
  const tt_tensor *in = tti_operand(&e->program, op, 0), *out = &e->program.tensors[op->output];
  const uint32_t most = tti_strassen_pairs(out), pairs = (y1 - y0) / 2;
  const uint32_t divided = (y1 - y0) % 2 && out->width >= LEAST_DIVIDED ? out->width / 2 : 0;
  const int summed = b->panel_begin > 0 && tti_divide_up(pairs, most) + (divided > 0) == 1;
  strassen_call call = {.e = e,
                        .op = op,
                        .block = b,
                        .passes = of_pairs,
                        .pass_count = sizeof of_pairs / sizeof *of_pairs,
                        .y = y0,
                        .width = out->width,
                        .resident = resident,
                        .most = (size_t)most * out->width,
                        .sums = (float *)(void *)(e->arena + op->workspace)};
  call.products = call.sums + 4 * call.most * (in->channels / 2);
  const uint32_t rest = (y1 - y0) % 2 ? out->width - 2 * divided : 0; /* pixels that have none to go with */
  strassen_call alone = call;
  alone.y = y1 - 1;
  alone.x = 2 * divided;
  alone.within = 1;
  alone.pairs = 1;
  alone.width = rest;
  alone.passes = of_one;
  alone.pass_count = sizeof of_one / sizeof *of_one;
  strassen_call *beside = rest ? &alone : NULL;
  for (; call.y + 1 < y1; call.y += 2 * call.pairs, beside = NULL) {
    call.pairs = tti_min(most, (y1 - call.y) / 2);
    run_call(&call, summed, beside);
  }
  if (divided) {
    call.within = 1;
    call.pairs = 1;
    call.width = divided;
    run_call(&call, summed, beside);
  } else if (beside) {
    run_call(&alone, 1, NULL);
  }
}
