/* Operators that move elements without computing on them, and interpolation. */
#include "../core.h"

/* One element of 1 or 4 bytes. */
static void copy_element(uint8_t *to, const uint8_t *from, size_t size) {
  if (size == 1)
    *to = *from;
  else
    tti_copy(to, from, sizeof(float));
}

static void concat_row(const struct tt_engine *e, const tt_op *op, const tt_tensor *out, uint32_t y, uint8_t *row) {
  const size_t pixel = (size_t)out->channels * out->elem_bytes;
  size_t at = 0;
  for (uint32_t i = 0; i < op->operand_count; i++) {
    const tt_tensor *in = tti_operand(&e->program, op, i);
    const size_t depth = (size_t)in->channels * in->elem_bytes, bytes = in->width * depth;
    if (op->variant == TT_CONCAT_Y) {
      const size_t each = tti_planes_each(&e->program, op, i), plane = bytes / each, k = (y - at) / each;
      if (y >= at && k < in->height) tti_move(row, tti_pixels(e, in, (uint32_t)k) + (y - at) % each * plane, plane);
      at += in->height * each;
    } else if (op->variant == TT_CONCAT_X) {
      tti_move(row + at, tti_pixels(e, in, y), bytes);
      at += bytes;
    } else {
      const uint8_t *from = tti_pixels(e, in, y); /* or there already */
      const size_t step = (size_t)tti_pixel_step(in) * in->elem_bytes;
      for (uint32_t x = 0; x < out->width && from != row + at; x++)
        tti_move(row + x * pixel + at, from + x * step, depth);
      at += depth;
    }
  }
}

static int consecutive(const int32_t *indices, uint32_t count) {
  if (indices[0] < 0) return 0;
  for (uint32_t i = 1; i < count; i++)
    if (indices[i] != indices[0] + (int32_t)i) return 0;
  return 1;
}

/* Into how many parts channels are divided that are interleaved: 0, n, 2 n, ..., 1, n + 1, ...; 0 if they are not. */
static size_t interleaved_parts(const int32_t *chans, size_t count) {
  const size_t each = count > 1 && chans[1] > 1 ? (size_t)chans[1] : 0;
  if (!each || count % each) return 0;
  const size_t parts = count / each;
  for (size_t c = 0; c < count; c++)
    if (chans[c] < 0 || (size_t)chans[c] != c % parts * each + c / parts) return 0;
  return parts;
}

static void gather_row(const struct tt_engine *e, const tt_op *op, const tt_tensor *out, uint32_t y, uint8_t *row) {
  const tt_tensor *in = tti_operand(&e->program, op, 0);
  const int32_t *rows = e->program.tables + op->table, *cols = rows + out->height, *chans = cols + out->width;
  const size_t size = out->elem_bytes, depth = in->channels * size, pixel = out->channels * size;
  const uint8_t *from = rows[y] < 0 ? NULL : tti_pixels(e, in, (uint32_t)rows[y]);
  const uint8_t byte = (uint8_t)op->p0;
  const uint8_t *fill = size == 1 ? &byte : (const uint8_t *)&op->p0;
  const int whole_pixels = consecutive(chans, out->channels);
  if (from && whole_pixels && in->channels == out->channels && consecutive(cols, out->width)) {
    tti_move(row, from + (size_t)cols[0] * depth, out->width * pixel);
    return;
  }
  const size_t parts = whole_pixels ? 0 : interleaved_parts(chans, out->channels);
  const size_t each = parts ? out->channels / parts : 0;
  for (uint32_t x = 0; x < out->width; x++, row += pixel) {
    const uint8_t *there = from && cols[x] >= 0 ? from + (size_t)cols[x] * depth : NULL;
    if (there && whole_pixels)
      tti_move(row, there + (size_t)chans[0] * size, pixel);
    else if (there && parts && size == 1)
      e->port->kernels->interleave_bytes(there, parts, (ptrdiff_t)each, each, row);
    else if (there && parts)
      e->port->kernels->interleave_floats((const float *)(const void *)there, parts, (ptrdiff_t)each, each,
                                          (float *)(void *)row);
    else
      for (uint32_t c = 0; c < out->channels; c++)
        copy_element(row + c * size, there && chans[c] >= 0 ? there + (size_t)chans[c] * size : fill, size);
  }
}

static void resize_row(const struct tt_engine *e, const tt_op *op, const tt_tensor *out, uint32_t y, float *row) {
  const tt_tensor *in = tti_operand(&e->program, op, 0);
  const size_t taps_y = op->kernel_y, taps_x = op->kernel_x, channels = in->channels;
  const int32_t *row_index = e->program.tables + op->table;
  const float *row_weights = (const float *)(const void *)(row_index + out->height * taps_y);
  const int32_t *col_index = (const int32_t *)(const void *)(row_weights + out->height * taps_y);
  const float *col_weights = (const float *)(const void *)(col_index + out->width * taps_x);
  for (size_t i = 0; i < taps_y; i++) {
    const float *from = tti_row(e, in, (uint32_t)row_index[y * taps_y + i]);
    for (size_t x = 0; x < out->width; x++)
      for (size_t j = 0; j < taps_x; j++)
        e->port->kernels->i8->accumulate(i + j != 0, row_weights[y * taps_y + i] * col_weights[x * taps_x + j],
                                         from + (size_t)col_index[x * taps_x + j] * channels, 1, row + x * channels,
                                         channels);
  }
}

static void depth_to_space_row(const struct tt_engine *e, const tt_op *op, const tt_tensor *out, uint32_t y,
                               uint8_t *row) {
  const tt_tensor *in = tti_operand(&e->program, op, 0);
  const size_t size = out->elem_bytes, block = op->kernel_y, channels = out->channels, i = y % block;
  const uint8_t *from = tti_pixels(e, in, (uint32_t)(y / block));
  for (size_t x = 0; x < out->width; x++, row += channels * size) {
    const uint8_t *pixel = from + x / block * in->channels * size;
    const size_t phase = i * block + x % block;
    if (op->variant == TT_DCR)
      tti_move(row, pixel + phase * channels * size, channels * size);
    else
      for (size_t c = 0; c < channels; c++)
        copy_element(row + c * size, pixel + (c * block * block + phase) * size, size);
  }
}

static void space_to_depth_row(const struct tt_engine *e, const tt_op *op, const tt_tensor *out, uint32_t y,
                               uint8_t *row) {
  const tt_tensor *in = tti_operand(&e->program, op, 0);
  const size_t block = op->kernel_y, size = out->elem_bytes, bytes = block * in->channels * size;
  for (size_t i = 0; i < block; i++) {
    const uint8_t *from = tti_pixels(e, in, (uint32_t)(y * block + i));
    for (size_t x = 0; x < out->width; x++)
      tti_move(row + x * out->channels * size + i * bytes, from + x * bytes, bytes);
  }
}

/* The whole map at once: six nested counters over the output's elements in order. */
static void permute(const struct tt_engine *e, const tt_op *op, const tt_tensor *out) {
  const tt_tensor *in = tti_operand(&e->program, op, 0);
  const uint8_t *from = tti_pixels(e, in, 0);
  const int32_t *dims = e->program.tables + op->table, *strides = dims + TT_PERMUTE_DIMS;
  uint32_t counter[TT_PERMUTE_DIMS] = {0};
  const size_t row_elems = (size_t)out->width * out->channels, in_elems = (size_t)in->width * in->channels;
  const size_t size = out->elem_bytes;
  const size_t padding =
      (size_t)(in->pad_left + in->pad_right) * in->channels; /* between one y-plane's end and the next */
  size_t offset = 0;
  for (uint32_t y = 0; y < out->height; y++) {
    uint8_t *row = tti_pixels(e, out, y);
    for (size_t i = 0; i < row_elems; i++) {
      copy_element(row + i * size, from + (padding ? offset + offset / in_elems * padding : offset) * size, size);
      for (int d = TT_PERMUTE_DIMS - 1; d >= 0; d--) {
        offset += (size_t)strides[d];
        if (++counter[d] < (uint32_t)dims[d]) break;
        offset -= (size_t)strides[d] * (size_t)dims[d];
        counter[d] = 0;
      }
    }
  }
}

void tti_move_rows(const struct tt_engine *e, const tt_op *op, uint32_t y0, uint32_t y1) {
  const tt_tensor *out = &e->program.tensors[op->output];
  const size_t row_bytes = (size_t)out->width * out->channels * out->elem_bytes;
  if (op->kind == TT_OP_PERMUTE) {
    permute(e, op, out);
    return;
  }
  for (uint32_t y = y0; y < y1; y++) {
    uint8_t *row = tti_pixels(e, out, y);
    if (op->kind == TT_OP_CONCAT) {
      concat_row(e, op, out, y, row);
    } else if (op->kind == TT_OP_GATHER) {
      gather_row(e, op, out, y, row);
    } else if (op->kind == TT_OP_RESIZE) {
      resize_row(e, op, out, y, tti_row(e, out, y));
    } else if (op->kind == TT_OP_DEPTH_TO_SPACE) {
      depth_to_space_row(e, op, out, y, row);
    } else if (op->kind == TT_OP_SPACE_TO_DEPTH) {
      space_to_depth_row(e, op, out, y, row);
    } else if (op->kind == TT_OP_CONSTANT) {
      tti_move(row, e->arena + op->weights + y * row_bytes, row_bytes);
    } else {
      const uint8_t *from = tti_pixels(e, tti_operand(&e->program, op, 0), y);
      if (from != row) tti_move(row, from, row_bytes);
    }
  }
}
