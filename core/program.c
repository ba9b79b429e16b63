/* The validator. Hostile input is checked here once; kernels and operators assume what is proved here.
 *
 * Sizes are computed in 64 bits from 32-bit fields; products of three such fields are capped before a fourth joins. */
#include "core.h"

/* y-planes that op computes from the map's y-planes: the window of output rows y0 .. y1, clipped to the map. */
static tti_rows window(const tt_op *op, uint32_t height, uint32_t y0, uint32_t y1) {
  const int64_t first = (int64_t)y0 * op->stride_y - op->pad_top;
  const int64_t last = (int64_t)(y1 - 1) * op->stride_y - op->pad_top + (int64_t)(op->kernel_y - 1) * op->dilation_y;
  tti_rows r = {first > 0 ? (uint32_t)first : 0, last < height ? (uint32_t)(last + 1 > 0 ? last + 1 : 0) : height};
  if (r.lo > r.hi) r.lo = r.hi;
  return r;
}

static tti_rows table_rows(const int32_t *table, uint32_t taps, uint32_t y0, uint32_t y1) {
  tti_rows r = {UINT32_MAX, 0};
  for (uint32_t i = y0 * taps; i < y1 * taps; i++) {
    if (table[i] < 0) continue;
    if ((uint32_t)table[i] < r.lo) r.lo = (uint32_t)table[i];
    if ((uint32_t)table[i] >= r.hi) r.hi = (uint32_t)table[i] + 1;
  }
  if (r.lo > r.hi) r.lo = r.hi = 0;
  return r;
}

static tti_rows concat_rows(const tti_program *p, const tt_op *op, uint32_t which, uint32_t y0, uint32_t y1) {
  const uint32_t height = tti_operand(p, op, which)->height, each = tti_planes_each(p, op, which);
  uint32_t at = 0;
  for (uint32_t i = 0; i < which; i++) at += tti_operand(p, op, i)->height * tti_planes_each(p, op, i);
  const uint32_t lo = y0 > at ? (y0 - at) / each : 0, hi = y1 > at ? tti_divide_up(y1 - at, each) : 0;
  return (tti_rows){tti_min(lo, height), tti_min(hi, height)};
}

uint32_t tti_op_height(const tti_program *p, const tt_op *op) {
  return op->kind == TT_OP_REDUCE ? tti_operand(p, op, 0)->height : p->tensors[op->output].height;
}

tti_rows tti_rows_needed(const tti_program *p, const tt_op *op, uint32_t which, uint32_t y0, uint32_t y1) {
  const uint32_t height = tti_operand(p, op, which)->height;
  const tti_rows same = {y0, y1}, all = {0, height};
  switch (op->kind) {
    case TT_OP_CONV:
      return which == 0 ? window(op, height, y0, y1) : same;
    case TT_OP_DEPTHWISE:
    case TT_OP_MAX_POOL:
    case TT_OP_AVERAGE_POOL:
      return window(op, height, y0, y1);
    case TT_OP_BINARY:
      return height == 1 ? all : same;
    case TT_OP_CONCAT:
      return op->variant == TT_CONCAT_Y ? concat_rows(p, op, which, y0, y1) : same;
    case TT_OP_GATHER:
      return table_rows(p->tables + op->table, 1, y0, y1);
    case TT_OP_RESIZE:
      return table_rows(p->tables + op->table, op->kernel_y, y0, y1);
    case TT_OP_DEPTH_TO_SPACE:
      return (tti_rows){y0 / op->kernel_y, (y1 - 1) / op->kernel_y + 1};
    case TT_OP_SPACE_TO_DEPTH:
      return (tti_rows){y0 * op->kernel_y, y1 * op->kernel_y};
    case TT_OP_PERMUTE:
      return all;
    default:
      return same;
  }
}

/* The counter that a tensor has beyond the part, if it has one. */
static uint16_t *kept_of(const tti_program *p, const tt_tensor *t) {
  return t->home > p->head->spill_count ? &p->kept[t->home - p->head->spill_count - 1] : NULL;
}

void tti_part_rewind(const tti_program *p) {
  for (uint32_t i = 0; i < p->part->tensor_count; i++) {
    const uint16_t *kept = kept_of(p, &p->tensors[i]);
    p->tensors[i].produced = kept ? *kept : 0;
  }
  for (uint32_t i = 0; i < p->part->op_count; i++) p->ops[i].done = p->ops[i].failed = 0;
  for (uint32_t i = 0; i < p->head->spill_count; i++) {
    p->spills[i].sealed = p->spills[i].sealed_before;
    p->spills[i].lost = p->spills[i].lost_before;
  }
}

void tti_part_leave(const tti_program *p) {
  for (uint32_t i = 0; i < p->part->tensor_count; i++) {
    uint16_t *kept = kept_of(p, &p->tensors[i]);
    if (kept) *kept = (uint16_t)p->tensors[i].produced;
  }
  for (uint32_t i = 0; i < p->head->spill_count; i++) {
    p->spills[i].sealed_before = p->spills[i].sealed;
    p->spills[i].lost_before = p->spills[i].lost;
  }
}

static void forget_run(const tti_program *p) {
  for (uint32_t i = 0; i < p->head->kept_count; i++) p->kept[i] = 0;
  for (uint32_t i = 0; i < p->head->spill_count; i++) p->spills[i].sealed_before = p->spills[i].lost_before = 0;
}

void tti_rewind(const tti_program *p) {
  forget_run(p);
  tti_part_rewind(p);
}

/* ---- records */

/* Whether a piece of the arena lies where data may lie. */
static int in_data(const tti_program *p, uint64_t offset, uint64_t bytes) {
  return offset % sizeof(float) == 0 && offset >= p->head->data_offset && bytes <= p->head->arena_bytes &&
         offset <= p->head->arena_bytes - bytes;
}

static int check_tensor(const tti_program *p, const tt_tensor *t) {
  if (!t->height || !t->width || !t->channels || !t->capacity || t->capacity > t->height) return 0;
  if (t->elem_bytes != 1 && (t->elem_bytes != sizeof(float) || t->zero_point)) return 0;
  if (t->home > p->head->spill_count + p->head->kept_count) return 0;
  if (t->home && t->home <= p->head->spill_count && p->spills[t->home - 1].height != t->height) return 0;
  if (t->width > INT32_MAX / 4 || t->channels > INT32_MAX / 4) return 0;
  const uint32_t step = tti_pixel_step(t);
  if (step < t->channels || t->row_bytes != step * ((uint64_t)t->pad_left + t->width + t->pad_right) * t->elem_bytes)
    return 0;
  const uint64_t others = (uint64_t)(step - t->channels) * t->elem_bytes; /* of the last pixel */
  return in_data(p, t->offset, (uint64_t)t->row_bytes * t->capacity - others);
}

static int same_map(const tt_tensor *a, const tt_tensor *b) { return a->height == b->height && a->width == b->width; }
static int same_extent(const tt_tensor *a, const tt_tensor *b) { return same_map(a, b) && a->channels == b->channels; }

/* A window operator reads, in x, no farther than the padding that its input carries. */
static int check_window(const tt_op *op, const tt_tensor *in, const tt_tensor *out, int padded) {
  if (!op->kernel_y || !op->kernel_x || !op->stride_y || !op->stride_x || !op->dilation_y || !op->dilation_x) return 0;
  if (op->kernel_y > TT_MAX_KERNEL_Y || op->pad_top > (uint32_t)op->kernel_y * op->dilation_y) return 0;
  if (!padded) return 1;
  const int64_t last =
      (int64_t)(out->width - 1) * op->stride_x - op->pad_left + (int64_t)(op->kernel_x - 1) * op->dilation_x;
  return op->pad_left <= in->pad_left && last < (int64_t)in->width + in->pad_right;
}

uint32_t tti_conv_depth(const tti_program *p, const tt_op *op) {
  if (tti_is_i8(p, op)) {
    const tti_stretch s = tti_i8_stretch(op, tti_operand(p, op, 0));
    return op->kernel_y * s.per_row * s.rows;
  }
  return tti_conv_taps(op) * (tti_operand(p, op, 0)->channels / op->groups);
}

uint32_t tti_conv_panels(const tti_program *p, const tt_op *op) {
  return op->groups * ((p->tensors[op->output].channels / op->groups + op->panel - 1) / op->panel);
}

uint32_t tti_block_count(const tti_program *p, const tt_op *op) {
  const uint32_t depth = tti_conv_depth(p, op), panels = tti_conv_panels(p, op);
  return ((depth - 1) / op->k_per_block + 1) * ((panels - 1) / op->panels_per_block + 1);
}

tti_block tti_block_at(const tti_program *p, const tt_op *op, uint32_t b) {
  const uint32_t depth = tti_conv_depth(p, op), splits = (depth - 1) / op->k_per_block + 1;
  const uint32_t panel = b / splits * op->panels_per_block, k = b % splits * op->k_per_block;
  return (tti_block){panel, panel + tti_min(op->panels_per_block, tti_conv_panels(p, op) - panel), k,
                     k + tti_min(op->k_per_block, depth - k), NULL};
}

/* The transform reads whole tiles of input pixels, and has its workspace. */
static int check_winograd(const tti_program *p, const tt_op *op, const tt_tensor *in, const tt_tensor *out) {
  if (op->kernel_x != 3 || op->stride_x != 1 || op->dilation_x != 1 || op->dilation_y != 1 || op->groups != 1) return 0;
  if (op->kernel_y > TT_WINOGRAD_KERNEL_Y || op->stride_y != 1) return 0;
  if (tti_in_pairs(op) && (op->kernel_y != 3 || op->pad_top > 2 || out->height > in->height + op->pad_top)) return 0;
  const tti_winograd_size size = tti_winograd_size_of(op, out);
  const uint64_t tiles = size.tiles, workers = p->head->workers;
  if (4 * tiles + 2 > (uint64_t)op->pad_left + in->width + in->pad_right) return 0;
  const uint64_t inputs = (uint64_t)(size.together ? 1 : workers) * size.inputs * in->channels;
  const uint64_t elems = 6 * tiles * (inputs + workers * size.products * op->panel) +
                         workers * size.kept_columns * in->channels * op->panel;
  return elems <= UINT32_MAX && in_data(p, op->workspace, elems * sizeof(float));
}

/* Halves are whole, every y-plane and pixel read is there, and there is place for sums and products. */
static int check_strassen(const tti_program *p, const tt_op *op, const tt_tensor *in, const tt_tensor *out) {
  if (op->kernel_y != 1 || op->kernel_x != 1 || op->pad_top || op->pad_left || op->groups != 1 || op->variant) return 0;
  if (op->panel < 16 || in->channels % 2 || out->channels % op->panel || op->flags & TT_FLAG_WINOGRAD) return 0;
  if ((uint64_t)(out->height - 1) * op->stride_y >= in->height) return 0;
  const uint64_t pixels = (uint64_t)tti_strassen_pairs(out) * out->width;
  if (pixels > INT32_MAX / 4) return 0;
  const uint64_t elems = pixels * (2 * (uint64_t)in->channels + 3 * (uint64_t)p->head->workers * op->panel / 2);
  return elems <= UINT32_MAX && in_data(p, op->workspace, elems * sizeof(float));
}

/* Constants are three rows a panel. */
static int check_i8_conv(const tti_program *p, const tt_op *op, const tt_tensor *in) {
  if (op->variant || op->flags & ~(TT_FLAG_TWO_FIT | TT_FLAG_FOUR_FIT | TT_FLAG_FED_CONSTANTS) ||
      (uint32_t)op->kernel_y * tti_i8_stretch(op, in).per_row > TTI_I8_RUNS)
    return 0;
  return op->flags & TT_FLAG_FED_CONSTANTS ||
         in_data(p, op->bias, (uint64_t)tti_conv_panels(p, op) * op->panel * 3 * sizeof(float));
}

/* Weights that are decoded, and the place for it. */
static int check_coding(const tti_program *p, const tt_op *op) {
  if (op->variant >= TT_CODING_END || op->flags & TT_FLAG_WINOGRAD) return 0;
  if (!op->table || op->table % 2 || op->table > TT_MAX_CODING_GROUP) return 0;
  if (tti_in_streams(op)) {
    const uint32_t rows = op->stream_rows;
    if (!rows || (rows % op->table && op->table % rows) || rows * op->panel > TT_SLICE_BYTES / sizeof(float)) return 0;
    if (!in_data(p, op->bias, (uint64_t)tti_conv_panels(p, op) * op->panel * sizeof(float) + TT_ALPHABET_BYTES))
      return 0;
  }
  const uint64_t slice = (uint64_t)tti_slice_rows(op, tti_conv_depth(p, op)) * op->panel * sizeof(float);
  return in_data(p, op->workspace, p->head->workers * slice);
}

static int check_conv(const tti_program *p, const tt_op *op, const tt_tensor *in, const tt_tensor *out) {
  const int strassen = op->flags & TT_FLAG_STRASSEN && in->elem_bytes != 1;
  if (op->panel != 8 && op->panel != 16 && op->panel != 32 && (op->panel != 64 || !strassen)) return 0;
  if (!op->groups || in->channels % op->groups || out->channels % op->groups) return 0;
  if (!check_window(op, in, out, 1)) return 0;
  const uint64_t depth = (op->kernel_y + 1u) * (op->kernel_x + 3u) * (uint64_t)(in->channels / op->groups);
  if (depth > INT32_MAX || (uint64_t)tti_conv_panels(p, op) * op->panel * sizeof(float) * depth > UINT32_MAX) return 0;
  if (in->elem_bytes == 1) return check_i8_conv(p, op, in);
  if (op->flags & TT_FLAG_FED_CONSTANTS) return 0;
  if (op->variant && !check_coding(p, op)) return 0;
  if (op->flags & TT_FLAG_WINOGRAD && !check_winograd(p, op, in, out)) return 0;
  if (strassen && !check_strassen(p, op, in, out)) return 0;
  if (op->flags & TT_FLAG_RESIDUAL && (op->operand_count != 2 || !same_extent(tti_operand(p, op, 1), out))) return 0;
  return in_data(p, op->bias, (uint64_t)tti_conv_panels(p, op) * op->panel * sizeof(float));
}

static int check_depthwise(const tti_program *p, const tt_op *op, const tt_tensor *in, const tt_tensor *out) {
  const int bytes = in->elem_bytes == 1; /* weights of four rows together, and two constants */
  const uint64_t row = (uint64_t)in->channels * sizeof(float), rows = bytes ? (op->kernel_y + 3u) / 4 : op->kernel_y;
  return in->channels == out->channels && check_window(op, in, out, 1) &&
         in_data(p, op->weights, row * rows * op->kernel_x) && in_data(p, op->bias, bytes ? 2 * row : row);
}

static int broadcasts(uint32_t extent, uint32_t to) { return extent == to || extent == 1; }

static int check_binary(const tti_program *p, const tt_op *op, const tt_tensor *out) {
  const int constant = (op->flags & TT_FLAG_CONSTANT) != 0;
  if (op->variant >= TT_BINARY_END || op->operand_count != (constant ? 1 : 2)) return 0;
  for (uint32_t i = 0; i < op->operand_count; i++) {
    const tt_tensor *t = tti_operand(p, op, i);
    if (!broadcasts(t->height, out->height) || !broadcasts(t->width, out->width) ||
        !broadcasts(t->channels, out->channels))
      return 0;
  }
  if (!constant) return 1;
  const uint32_t depth = op->groups ? op->groups : out->channels;
  if (!broadcasts(op->kernel_y, out->height) || !broadcasts(op->kernel_x, out->width) ||
      !broadcasts(depth, out->channels))
    return 0;
  return in_data(p, op->weights, (uint64_t)op->kernel_y * op->kernel_x * depth * out->elem_bytes);
}

static int check_concat(const tti_program *p, const tt_op *op, const tt_tensor *out) {
  const uint64_t plane = (uint64_t)out->width * out->channels;
  uint64_t total = 0;
  if (op->variant >= TT_CONCAT_END) return 0;
  for (uint32_t i = 0; i < op->operand_count; i++) {
    const tt_tensor *t = tti_operand(p, op, i);
    const uint64_t elems = (uint64_t)t->width * t->channels;
    const int fits = op->variant == TT_CONCAT_Y   ? elems % plane == 0
                     : op->variant == TT_CONCAT_X ? t->channels == out->channels
                                                  : t->width == out->width;
    if (!fits || (op->variant != TT_CONCAT_Y && t->height != out->height)) return 0;
    total += op->variant == TT_CONCAT_Y ? t->height * (elems / plane) : elems;
  }
  return total == (op->variant == TT_CONCAT_Y ? out->height : plane);
}

/* count table entries, each below limit and at least least. */
static int check_indices(const tti_program *p, uint64_t at, uint64_t count, uint32_t limit, int32_t least) {
  if (at > p->part->table_count || count > p->part->table_count - at) return 0;
  for (uint64_t i = 0; i < count; i++)
    if (p->tables[at + i] < least || p->tables[at + i] >= (int64_t)limit) return 0;
  return 1;
}

static int check_gather(const tti_program *p, const tt_op *op, const tt_tensor *in, const tt_tensor *out) {
  const uint64_t at = op->table;
  return check_indices(p, at, out->height, in->height, -1) &&
         check_indices(p, at + out->height, out->width, in->width, -1) &&
         check_indices(p, at + out->height + out->width, out->channels, in->channels, -1);
}

static int check_resize(const tti_program *p, const tt_op *op, const tt_tensor *in, const tt_tensor *out) {
  const uint64_t ys = (uint64_t)out->height * op->kernel_y, xs = (uint64_t)out->width * op->kernel_x, at = op->table;
  if (!op->kernel_y || !op->kernel_x || in->channels != out->channels) return 0;
  return check_indices(p, at, ys, in->height, 0) && check_indices(p, at + 2 * ys, xs, in->width, 0) &&
         at + 2 * ys + 2 * xs <= p->part->table_count;
}

static int check_permute(const tti_program *p, const tt_op *op, const tt_tensor *in, const tt_tensor *out) {
  if (in->capacity != in->height || out->capacity != out->height) return 0;
  if (!check_indices(p, op->table, TT_PERMUTE_DIMS, INT32_MAX, 1)) return 0;
  if (!check_indices(p, (uint64_t)op->table + TT_PERMUTE_DIMS, TT_PERMUTE_DIMS, INT32_MAX, 0)) return 0;
  const int32_t *dims = p->tables + op->table, *strides = dims + TT_PERMUTE_DIMS;
  uint64_t count = 1, last = 0;
  for (int i = 0; i < TT_PERMUTE_DIMS; i++) {
    count *= (uint64_t)dims[i];
    last += (uint64_t)(dims[i] - 1) * (uint64_t)strides[i];
    if (count > UINT32_MAX || last > UINT32_MAX) return 0;
  }
  return count == (uint64_t)out->height * out->width * out->channels &&
         last < (uint64_t)in->height * in->width * in->channels;
}

static int check_blocks(const tt_tensor *map, const tt_tensor *depth, uint64_t block) {
  return block && (uint64_t)map->height == depth->height * block && (uint64_t)map->width == depth->width * block &&
         (uint64_t)depth->channels == map->channels * block * block;
}

/* Which operators may read and write uint8, and the numbers that they then go by. */
static int check_types(const tti_program *p, const tt_op *op, const tt_tensor *out) {
  const int bytes = out->elem_bytes == 1;
  uint32_t reads = 0; /* operands that are uint8 */
  for (uint32_t i = 0; i < op->operand_count; i++) reads += tti_operand(p, op, i)->elem_bytes == 1;
  if (!reads && !bytes) return op->kind < TT_OP_CONVERT;
  if (op->kind == TT_OP_CONVERT) return op->operand_count == 1 && reads + (uint32_t)bytes == 1;
  if (reads != op->operand_count || (bytes && op->activation)) return 0;
  switch (op->kind) {
    case TT_OP_CONV:
    case TT_OP_DEPTHWISE:
      return op->operand_count == 1 && op->activation <= TT_ACT_CLIP;
    case TT_OP_REDUCE:
      return !bytes && op->variant == TT_REDUCE_MEAN && !op->activation;
    case TT_OP_BINARY:
      return bytes && op->variant <= TT_BINARY_MUL;
    case TT_OP_GATHER:
      return bytes && op->p0 >= 0.0f && op->p0 <= 255.0f;
    default:
      return bytes &&
             (op->kind == TT_OP_MAX_POOL || op->kind == TT_OP_AVERAGE_POOL || op->kind == TT_OP_UNARY ||
              op->kind == TT_OP_LOOKUP || op->kind == TT_OP_LRN || op->kind == TT_OP_CONCAT ||
              op->kind == TT_OP_DEPTH_TO_SPACE || op->kind == TT_OP_SPACE_TO_DEPTH || op->kind == TT_OP_PERMUTE);
  }
}

static int check_kind(const tti_program *p, const tt_op *op, const tt_tensor *in, const tt_tensor *out) {
  const uint64_t pixel = (uint64_t)out->channels * sizeof(float);
  const int computes = op->operand_count && tti_is_i8(p, op);
  if (computes && out->elem_bytes == 1 && !(op->alpha >= 0.0f && op->alpha <= op->beta && op->beta <= 255.0f)) return 0;
  /* Sums over a window or a map fit int32. */
  if (computes && (uint64_t)op->kernel_y * op->kernel_x > INT32_MAX / UINT8_MAX) return 0;
  switch (op->kind) {
    case TT_OP_CONV:
      return check_conv(p, op, in, out);
    case TT_OP_DEPTHWISE:
      return check_depthwise(p, op, in, out);
    case TT_OP_MAX_POOL:
    case TT_OP_AVERAGE_POOL:
      return in->channels == out->channels && check_window(op, in, out, 0);
    case TT_OP_REDUCE:
      if (computes && (uint64_t)in->height * in->width > INT32_MAX / UINT8_MAX) return 0;
      return op->variant < TT_REDUCE_END && out->height == 1 && out->width == 1 && in->channels == out->channels;
    case TT_OP_BINARY:
      return check_binary(p, op, out);
    case TT_OP_CONCAT:
      return check_concat(p, op, out);
    case TT_OP_GATHER:
      return check_gather(p, op, in, out);
    case TT_OP_RESIZE:
      return check_resize(p, op, in, out);
    case TT_OP_DEPTH_TO_SPACE:
      return check_blocks(out, in, op->kernel_y);
    case TT_OP_SPACE_TO_DEPTH:
      return check_blocks(in, out, op->kernel_y);
    case TT_OP_PERMUTE:
      return check_permute(p, op, in, out);
    case TT_OP_LRN: /* on uint8: two scales, and a pixel's values before and after for each worker */
      if (computes && (op->table >= p->part->table_count || p->part->table_count - op->table < 2 ||
                       !in_data(p, op->workspace, 2 * pixel * p->head->workers)))
        return 0;
      return op->kernel_x && same_extent(in, out);
    case TT_OP_LAYER_NORM:
      return same_extent(in, out) && in_data(p, op->weights, pixel) && in_data(p, op->bias, pixel);
    case TT_OP_ARG_MAX:
      return same_map(in, out) && out->channels == 1;
    case TT_OP_CONSTANT:
      return in_data(p, op->weights, (uint64_t)out->height * out->width * pixel);
    case TT_OP_LOOKUP:
      return same_extent(in, out) && in_data(p, op->weights, UINT8_MAX + 1);
    default: /* unary, softmax, convert */
      return same_extent(in, out);
  }
}

static int check_op(const tti_program *p, const tt_op *op) {
  if (!op->kind || op->kind >= TT_OP_END || op->activation >= TT_ACT_END || op->output >= p->part->tensor_count)
    return 0;
  if (op->first_operand > p->part->operand_count || op->operand_count > p->part->operand_count - op->first_operand)
    return 0;
  const int joins = op->kind == TT_OP_CONCAT && op->variant == TT_CONCAT_C;
  for (uint32_t i = 0; i < op->operand_count; i++) {
    const uint32_t tensor = p->operands[op->first_operand + i];
    if (tensor >= p->part->tensor_count || (!joins && !tti_is_dense(&p->tensors[tensor]))) return 0;
  }
  if (op->operand_count == 0 && op->kind != TT_OP_CONSTANT) return 0;
  const tt_tensor *out = &p->tensors[op->output];
  if (!tti_is_dense(out) && (op->kind != TT_OP_CONV || op->flags & TT_FLAG_RESIDUAL)) return 0;
  return check_types(p, op, out) && check_kind(p, op, op->operand_count ? tti_operand(p, op, 0) : NULL, out);
}

/* ---- instructions */

static tti_instr unpack(const tti_program *p, uint32_t at) {
  const uint32_t bits = p->instrs[at].bits;
  return (tti_instr){bits & ((1u << TT_INSTR_INDEX_SHIFT) - 1), bits >> TT_INSTR_INDEX_SHIFT & TT_INSTR_MAX_INDEX,
                     bits >> TT_INSTR_ARG_SHIFT};
}

/* How many instructions the loop at word 'loop' has, and what each time adds to the arg of the one numbered so. */
static uint32_t loop_length(const tti_program *p, uint32_t loop) { return unpack(p, loop - 1).index; }
static uint32_t loop_adds(const tti_program *p, uint32_t loop, uint32_t which) {
  return p->instrs[loop + loop_length(p, loop) + which / 2].bits >> which % 2 * 16 & UINT16_MAX;
}

tti_instr tti_instr_at(const tti_program *p, tti_cursor cursor) {
  tti_instr instr = unpack(p, cursor.at);
  if (cursor.round) instr.arg += cursor.round * loop_adds(p, cursor.loop, cursor.at - cursor.loop);
  return instr;
}

tti_cursor tti_cursor_at(const tti_program *p, uint32_t at) {
  const int loops = at < p->part->instr_count && unpack(p, at).code == TT_INSTR_REPEAT;
  return (tti_cursor){at + (uint32_t)loops, loops ? at + 1 : 0, 0};
}

tti_cursor tti_cursor_after(const tti_program *p, tti_cursor cursor) {
  cursor.at++;
  if (!cursor.loop) return tti_cursor_at(p, cursor.at);
  const uint32_t length = loop_length(p, cursor.loop);
  if (cursor.at < cursor.loop + length) return cursor;
  if (++cursor.round == unpack(p, cursor.loop - 1).arg) return tti_cursor_at(p, cursor.at + (length + 1) / 2);
  cursor.at = cursor.loop;
  return cursor;
}

/* Loops are whole, and every time goes farther than the one before. */
static int check_loops(const tti_program *p) {
  const uint32_t count = p->part->instr_count;
  for (uint32_t at = 0; at < count; at++) {
    const tti_instr instr = unpack(p, at);
    if (instr.code != TT_INSTR_REPEAT) continue;
    const uint32_t words = instr.index + (instr.index + 1u) / 2;
    if (!instr.index || !instr.arg || words > count - at - 1) return 0;
    for (uint32_t i = 0; i < instr.index; i++) {
      const uint32_t code = unpack(p, at + 1 + i).code;
      if (code == TT_INSTR_REPEAT || code == TT_INSTR_LOAD || !loop_adds(p, at + 1, i)) return 0;
    }
    at += words;
  }
  return 1;
}

/* Whether y-planes lo .. hi are in the tensor's slots now. */
static int present(const tt_tensor *t, tti_rows r) {
  return r.lo >= r.hi || (r.hi <= t->produced && r.lo + t->capacity >= t->produced);
}

/* Whether y-planes lo .. hi lie side by side in the slots. */
static int contiguous(const tt_tensor *t, uint32_t lo, uint32_t hi) {
  return lo < hi && hi <= t->height && lo % t->capacity + (hi - lo) <= t->capacity;
}

/* A streamed convolution's blocks fit their place and are chunks of the bundle; integer sums of parts have their place.
 */
static int check_stream(const tti_program *p, const tt_op *op, uint32_t rows) {
  if (op->kind != TT_OP_CONV || !op->panels_per_block || !op->k_per_block) return 0;
  const uint32_t depth = tti_conv_depth(p, op);
  if (op->k_per_block < depth) {
    const uint8_t whole = tti_is_i8(p, op) ? 0 : TT_FLAG_WINOGRAD | TT_FLAG_STRASSEN;
    if (op->panels_per_block != 1 || op->flags & whole) return 0;
    if (op->variant && op->k_per_block % tti_coding_rows(op)) return 0;
    const uint64_t kept = (uint64_t)rows * p->tensors[op->output].width * op->panel * sizeof(int32_t);
    if (tti_is_i8(p, op) && !in_data(p, op->workspace, kept)) return 0;
  }
  const uint64_t blocks = tti_block_count(p, op);
  if (!op->first_chunk || op->first_chunk + blocks > p->head->chunk_count) return 0;
  const uint32_t piece = tti_piece_rows(op), each = tti_in_pairs(op) ? depth : depth / op->kernel_y;
  if (!piece) return in_data(p, op->weights, tti_block_bytes(op, tti_block_at(p, op, 0)));
  if (op->flags & TT_FLAG_WINOGRAD && (!(op->flags & TT_FLAG_TOGETHER) || piece != each)) return 0;
  if (depth % piece || op->k_per_block < depth || tti_is_i8(p, op) || op->flags & TT_FLAG_STRASSEN) return 0;
  return in_data(p, op->weights, p->head->workers * tti_panel_bytes(op, piece));
}

static int step_run(const tti_program *p, tti_instr instr) {
  if (instr.index >= p->part->op_count) return 0;
  tt_op *op = &p->ops[instr.index];
  tt_tensor *out = &p->tensors[op->output];
  const uint32_t height = tti_op_height(p, op), end = instr.arg;
  if (end <= op->done || end > height) return 0;
  if (op->kind == TT_OP_PERMUTE && end != height) return 0;
  if (instr.code == TT_INSTR_STREAM && !check_stream(p, op, end - op->done)) return 0;
  if (instr.code == TT_INSTR_RUN && op->kind == TT_OP_CONV) {
    const tti_block whole = {0, tti_conv_panels(p, op), 0, tti_conv_depth(p, op), NULL};
    if (!in_data(p, op->weights, tti_block_bytes(op, whole))) return 0;
  }
  for (uint32_t i = 0; i < op->operand_count; i++)
    if (!present(tti_operand(p, op, i), tti_rows_needed(p, op, i, op->done, end))) return 0;
  if (op->kind == TT_OP_REDUCE) {
    op->done = end;
    out->produced = end == height;
    return 1;
  }
  if (end - op->done > out->capacity) return 0;
  out->produced = op->done = end;
  return 1;
}

static uint32_t spill_blocks(const tt_spill *s) { return tti_divide_up(s->height, s->rows); }

/* A map's first block leaves: what has left before and had its tags in the same places cannot come back. */
static void take_tags(const tti_program *p, const tt_spill *s) {
  for (uint32_t i = 0; i < p->head->spill_count; i++) {
    tt_spill *other = &p->spills[i];
    const int apart = s->tag + spill_blocks(s) <= other->tag || other->tag + spill_blocks(other) <= s->tag;
    if (other != s && other->sealed && !apart) other->lost = 1;
  }
}

static int step_spill(const tti_program *p, tti_instr instr, int fetch) {
  if (instr.index >= p->part->tensor_count) return 0;
  tt_tensor *t = &p->tensors[instr.index];
  if (!t->home || t->home > p->head->spill_count) return 0;
  tt_spill *s = &p->spills[t->home - 1];
  if (instr.arg >= spill_blocks(s)) return 0;
  const tti_rows r = tti_spill_rows(s, instr.arg);
  if (!contiguous(t, r.lo, r.hi) || s->lost || !tti_is_dense(t)) return 0;
  if (!fetch) {
    if (instr.arg != s->sealed || !present(t, r)) return 0;
    if (!s->sealed++) take_tags(p, s);
    return 1;
  }
  if (instr.arg >= s->sealed || r.lo != t->produced) return 0;
  t->produced = r.hi;
  return 1;
}

static int step_input(const tti_program *p, tti_instr instr) {
  if (instr.index >= p->part->port_count) return 0;
  tt_tensor *t = &p->tensors[p->ports[instr.index].tensor];
  if (!contiguous(t, t->produced, instr.arg) || !tti_is_dense(t)) return 0;
  t->produced = instr.arg;
  return 1;
}

static int step_output(const tti_program *p, tti_instr instr) {
  if (instr.index >= p->part->port_count) return 0;
  const tt_port_tensor *port = &p->ports[instr.index];
  const tt_tensor *t = &p->tensors[port->tensor];
  if (instr.arg >= t->height || t->pad_left || t->pad_right || !tti_is_dense(t)) return 0;
  const tti_rows r = {instr.arg, tti_min(port->rows_per_chunk, t->height - instr.arg) + instr.arg};
  return contiguous(t, r.lo, r.hi) && present(t, r);
}

tt_status tti_step(const tti_program *p, tti_instr instr) {
  const uint32_t code = instr.code;
  int good = 0;
  if (code == TT_INSTR_RUN || code == TT_INSTR_STREAM) good = step_run(p, instr);
  if (code == TT_INSTR_LOAD) good = instr.arg < p->part->load_count;
  if (code == TT_INSTR_INPUT) good = step_input(p, instr);
  if (code == TT_INSTR_OUTPUT) good = step_output(p, instr);
  if (code == TT_INSTR_SPILL || code == TT_INSTR_FETCH) good = step_spill(p, instr, code == TT_INSTR_FETCH);
  return good ? TT_OK : TT_ERROR_PROGRAM;
}

/* ---- the whole program */

/* Takes 'count' records of 'size' bytes from what is left, or fails. */
static const void *section(const uint8_t **at, size_t *left, uint32_t count, size_t size) {
  const uint64_t bytes = (uint64_t)count * size;
  if (!*at || bytes > *left) {
    *at = NULL;
    return NULL;
  }
  const void *here = *at;
  *at += bytes;
  *left -= (size_t)bytes;
  return here;
}

/* Blocks are numbered one after the other, so that no two have one nonce. */
static int check_spills(const tti_program *p) {
  uint64_t blocks = 0;
  for (uint32_t i = 0; i < p->head->spill_count; i++) {
    const tt_spill *s = &p->spills[i];
    if (!s->rows || !s->height || s->first != blocks) return 0;
    blocks += spill_blocks(s);
    if ((uint64_t)s->tag + spill_blocks(s) > p->head->tag_count) return 0;
  }
  return blocks <= UINT32_MAX;
}

static int check_records(const tti_program *p) {
  const tt_part *h = p->part;
  for (uint32_t i = 0; i < h->tensor_count; i++)
    if (!check_tensor(p, &p->tensors[i])) return 0;
  for (uint32_t i = 0; i < h->op_count; i++)
    if (!check_op(p, &p->ops[i])) return 0;
  for (uint32_t i = 0; i < h->load_count; i++) {
    const tt_load *load = &p->loads[i];
    if (!load->chunk || load->chunk >= p->head->chunk_count || !load->bytes || !in_data(p, load->offset, load->bytes))
      return 0;
  }
  for (uint32_t i = 0; i < h->port_count; i++)
    if (p->ports[i].tensor >= h->tensor_count || !p->ports[i].rows_per_chunk) return 0;
  return check_loops(p);
}

tt_status tti_part_next(const tti_program *p, const uint8_t *arena, uint32_t after_chunk, tt_load *next) {
  uint8_t *place = tti_part_place(p);
  *next = (tt_load){p->part->next_chunk, (uint32_t)(place - arena), p->part->next_bytes};
  if (!next->bytes) return TT_OK;
  const int good = next->chunk > after_chunk && next->chunk < p->head->chunk_count &&
                   next->bytes <= (size_t)((uint8_t *)p->kept - place);
  return good ? TT_OK : TT_ERROR_PROGRAM;
}

tt_status tti_part_open(tti_program *p, size_t bytes) {
  const uint8_t *at = tti_part_place(p);
  size_t left = bytes;
  const tt_part *h = section(&at, &left, 1, sizeof(tt_part));
  if (!h || h->operand_count % 2) return TT_ERROR_PROGRAM;
  p->part = h;
  p->tensors = (tt_tensor *)(uintptr_t)section(&at, &left, h->tensor_count, sizeof(tt_tensor));
  p->ops = (tt_op *)(uintptr_t)section(&at, &left, h->op_count, sizeof(tt_op));
  p->loads = section(&at, &left, h->load_count, sizeof(tt_load));
  p->instrs = section(&at, &left, h->instr_count, sizeof(tt_instr));
  p->ports = section(&at, &left, h->port_count, sizeof(tt_port_tensor));
  p->operands = section(&at, &left, h->operand_count, sizeof(uint16_t));
  p->tables = section(&at, &left, h->table_count, sizeof(int32_t));
  if (!at || left || !check_records(p)) return TT_ERROR_PROGRAM;
  tti_part_rewind(p);
  for (tti_cursor c = tti_cursor_at(p, 0); c.at < h->instr_count; c = tti_cursor_after(p, c))
    if (tti_step(p, tti_instr_at(p, c)) != TT_OK) return TT_ERROR_PROGRAM;
  tti_part_rewind(p);
  return TT_OK;
}

/* The setup is loads alone; if other parts follow part 0, it is all that this one holds. */
static int check_setup(const tti_program *p) {
  const uint32_t count = p->head->setup_count;
  if (count > p->part->instr_count || (p->part->next_bytes && count < p->part->instr_count)) return 0;
  for (uint32_t at = 0; at < count; at++)
    if (unpack(p, at).code != TT_INSTR_LOAD) return 0;
  return 1;
}

tt_status tti_program_open(tti_program *p, uint8_t *arena, size_t offset, size_t bytes, size_t arena_bytes) {
  const uint8_t *at = arena + offset;
  size_t left = bytes;
  const tt_program *h = section(&at, &left, 1, sizeof(tt_program));
  if (!h || h->magic != TT_PROGRAM_MAGIC || h->version != TT_PROGRAM_VERSION) return TT_ERROR_PROGRAM;
  if (h->arena_bytes > arena_bytes || h->data_offset < offset + bytes || h->data_offset > h->arena_bytes)
    return TT_ERROR_PROGRAM;
  if (!h->workers || h->workers > TT_MAX_WORKERS || !h->piece_bytes || h->piece_bytes % sizeof(float))
    return TT_ERROR_PROGRAM;
  const uint64_t tag_bytes = (uint64_t)h->tag_count * h->workers * TT_TAG_BYTES;
  const uint64_t behind = tag_bytes + ((uint64_t)h->kept_count + 1) / 2 * 4;
  if (h->data_offset % 4 || behind > h->data_offset - (offset + bytes)) return TT_ERROR_PROGRAM;
  p->head = h;
  p->tags = arena + h->data_offset - tag_bytes;
  p->kept = (uint16_t *)(void *)(arena + h->data_offset - behind);
  p->spills = (tt_spill *)(uintptr_t)section(&at, &left, h->spill_count, sizeof(tt_spill));
  if (!at || !check_spills(p)) return TT_ERROR_PROGRAM;
  forget_run(p);
  const tt_status status = tti_part_open(p, left);
  return status == TT_OK && !check_setup(p) ? TT_ERROR_PROGRAM : status;
}
