/* Convolution on uint8 with NEON but without dot products; a part of i8.c.
 *
 * Register tiles of up to four pixels by 8 or 16 channels, up to two of them side by side. Products of int8 (inputs
 * less 128) are added up in 16 bits before they are added, two neighbours at a time, to sums of 32 bits: as many as the
 * compiler has proved to fit. Eight k of a pixel, two rows of weights, are four pairs; ld4r spreads each over a
 * register, and ld2 takes a row of eight channels apart into the pairs' weights, [8][2]:
 *
 *     lane 2 n + i of a product = sum over pairs p of input[2 p + i] * weight[n][2 p + i],  i = 0, 1
 *
 * and so lane n of a sum grows by what belongs to channel n. Inputs are made signed once for tiles side by side, SPAN k
 * at a time.
 */
enum { MOST_PIXELS = 4, MOST_EIGHTS = 2, TILE_COLUMNS = 8 * MOST_EIGHTS, MOST_TILES = 2, SPAN = 256 };

/* Sums of a pixel, four channels in each; and of a tile. */
typedef int32x4_t v_sums[2 * MOST_EIGHTS];
typedef v_sums v_tile[MOST_PIXELS];

/* sums += the products of pairs 0 .. count of inputs and of weights of eight channels. */
TTI_INLINE void add_pairs(const int count, const int limit, const int8x16_t *a, const int8x16_t *w, int32x4_t *sums) {
  TTI_FOR (p, count / limit) {
    const int at = p * limit;
    int16x8_t low = vmull_s8(vget_low_s8(w[at]), vget_low_s8(a[at])), high = vmull_high_s8(w[at], a[at]);
    TTI_FOR (i, limit - 1) {
      low = vmlal_s8(low, vget_low_s8(w[at + i + 1]), vget_low_s8(a[at + i + 1]));
      high = vmlal_high_s8(high, w[at + i + 1], a[at + i + 1]);
    }
    sums[0] = vpadalq_s16(sums[0], low);
    sums[1] = vpadalq_s16(sums[1], high);
  }
}

/* The two pairs of a row of eight channels' weights, [8][4]. */
TTI_INLINE void load_row(const int8_t *row, int8x16_t w[2]) {
  const int16x8x2_t pairs = vld2q_s16((const int16_t *)(const void *)row);
  TTI_FOR (p, 2) w[p] = vreinterpretq_s8_s16(pairs.val[p]);
}

/* Two rows of weights of 16 channels meet four pixels' inputs: 'times' times what add_span does. In assembly since all
 * 32 registers are in use: sums in v0 .. v15, weights in v16 .. v23, inputs in v24 .. v27, products in v28 .. v31. */
#define TTI_MEET(first, b0, b1, a)                                                                                     \
  first " v28.8h, v" b0 ".8b, v" a ".8b\n" first "2 v29.8h, v" b0 ".16b, v" a ".16b\n" first " v30.8h, v" b1           \
        ".8b, v" a ".8b\n" first "2 v31.8h, v" b1 ".16b, v" a ".16b\n"
#define TTI_PIXEL(in, s0, s1, s2, s3)                                                                                  \
  "ld4r {v24.8h-v27.8h}, [%[" in "]], #8\n" TTI_MEET("smull", "16", "20", "24") TTI_MEET("smlal", "17", "21", "25")    \
      TTI_MEET("smlal", "18", "22", "26")                                                                              \
          TTI_MEET("smlal", "19", "23", "27") "sadalp v" s0 ".4s, v28.8h\nsadalp v" s1 ".4s, v29.8h\nsadalp v" s2      \
                                              ".4s, v30.8h\nsadalp v" s3 ".4s, v31.8h\n"
TTI_INLINE void add_span_full(const int8_t *inputs, const int8_t *w, size_t row, size_t times, v_tile sums) {
  const int8_t *in0 = inputs, *in1 = inputs + SPAN, *in2 = inputs + 2 * SPAN, *in3 = inputs + 3 * SPAN;
  int32x4_t *from = sums[0], *to = sums[0];
  __asm__ volatile("ld1 {v0.4s-v3.4s}, [%[from]], #64\nld1 {v4.4s-v7.4s}, [%[from]], #64\n"
                   "ld1 {v8.4s-v11.4s}, [%[from]], #64\nld1 {v12.4s-v15.4s}, [%[from]]\n"
                   "1:\n"
                   "ld2 {v16.8h, v17.8h}, [%[w]], #32\nld2 {v20.8h, v21.8h}, [%[w]], %[step]\n"
                   "ld2 {v18.8h, v19.8h}, [%[w]], #32\nld2 {v22.8h, v23.8h}, [%[w]], %[step]\n"
                   "subs %[times], %[times], #1\n" TTI_PIXEL("in0", "0", "1", "2", "3")
                       TTI_PIXEL("in1", "4", "5", "6", "7") TTI_PIXEL("in2", "8", "9", "10", "11")
                           TTI_PIXEL("in3", "12", "13", "14",
                                     "15") "b.ne 1b\n"
                                           "st1 {v0.4s-v3.4s}, [%[to]], #64\nst1 {v4.4s-v7.4s}, [%[to]], #64\n"
                                           "st1 {v8.4s-v11.4s}, [%[to]], #64\nst1 {v12.4s-v15.4s}, [%[to]]\n"
                   : [in0] "+&r"(in0), [in1] "+&r"(in1), [in2] "+&r"(in2), [in3] "+&r"(in3), [w] "+&r"(w),
                     [from] "+&r"(from), [to] "+&r"(to), [times] "+&r"(times)
                   : [step] "r"(row - 32)
                   : "cc", "memory", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12",
                     "v13", "v14", "v15", "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26",
                     "v27", "v28", "v29", "v30", "v31");
}
#undef TTI_MEET
#undef TTI_PIXEL

/* 'rows' rows of weights of so many eights of channels meet the inputs [MOST_PIXELS][SPAN]. */
TTI_INLINE void add_span(const int pixels, const int eights, const int limit, const int8_t *inputs, const int8_t *w,
                         size_t row, size_t rows, v_tile sums) {
  const int16_t *in[MOST_PIXELS];
  TTI_FOR (m, pixels) in[m] = (const int16_t *)(const void *)(inputs + m * SPAN);
  size_t pairs = rows / 2;
  if (pixels == MOST_PIXELS && eights == MOST_EIGHTS && limit == 4 && pairs) {
    add_span_full(inputs, w, row, pairs, sums);
    if (rows % 2 == 0) return;
    w += 2 * pairs * row;
    TTI_FOR (m, pixels) in[m] += 4 * pairs;
    pairs = 0;
  }
  v_tile acc;
  TTI_FOR (m, pixels)
    TTI_FOR (i, 2 * eights) acc[m][i] = sums[m][i];
  for (; pairs; pairs--) {
    int8x16_t b[MOST_EIGHTS][4];
    TTI_FOR (i, 2) {
      TTI_FOR (e, eights) load_row(w + e * 32, b[e] + 2 * i);
      w += row;
    }
    TTI_FOR (m, pixels) {
      const int16x8x4_t spread = vld4q_dup_s16(in[m]);
      in[m] += 4;
      int8x16_t a[4];
      TTI_FOR (p, 4) a[p] = vreinterpretq_s8_s16(spread.val[p]);
      TTI_FOR (e, eights) add_pairs(4, limit, a, b[e], acc[m] + 2 * e);
    }
  }
  if (rows % 2) {
    int8x16_t b[MOST_EIGHTS][2];
    TTI_FOR (e, eights) load_row(w + e * 32, b[e]);
    TTI_FOR (m, pixels) {
      const int16x8x2_t spread = vld2q_dup_s16(in[m]);
      const int8x16_t a[2] = {vreinterpretq_s8_s16(spread.val[0]), vreinterpretq_s8_s16(spread.val[1])};
      TTI_FOR (e, eights) add_pairs(2, limit < 2 ? limit : 2, a, b[e], acc[m] + 2 * e);
    }
  }
  TTI_FOR (m, pixels)
    TTI_FOR (i, 2 * eights) sums[m][i] = acc[m][i];
}

/* 'count' inputs less 128, to whole rows of weights: the last ones meet zeros. */
TTI_INLINE void make_signed(const uint8_t *in, size_t count, int8_t *out) {
  const uint8x16_t sign = vdupq_n_u8(0x80);
  for (; count >= 64; count -= 64, in += 64, out += 64) {
    uint8x16x4_t bytes = vld1q_u8_x4(in);
    TTI_FOR (i, 4) bytes.val[i] = veorq_u8(bytes.val[i], sign);
    vst1q_u8_x4((uint8_t *)out, bytes);
  }
  for (; count >= 8; count -= 8, in += 8, out += 8)
    vst1_s8(out, vreinterpret_s8_u8(veor_u8(vld1_u8(in), vdup_n_u8(0x80))));
  for (size_t i = 0; i < count; i += 4) {
    const uint32_t word = load_word(in + i, count - i) ^ 0x80808080u;
    __builtin_memcpy(out + i, &word, sizeof word);
  }
}

/* What runs add to the sums of channels column .. end. */
TTI_INLINE void add_runs(const int pixels, const int limit, const tti_i8_conv_row *c, size_t x, size_t column,
                         size_t end, v_tile sums[MOST_TILES]) {
  const size_t row = c->panel * 4;
  int8_t inputs[MOST_PIXELS * SPAN] __attribute__((aligned(16)));
  for (size_t r = 0; r < c->run_count; r++) {
    const tti_i8_run *run = &c->runs[r];
    if (!run->input) continue;
    const int8_t *w = c->weights + run->weight_row * row;
    for (size_t at = 0; at < run->count; at += SPAN, w += SPAN / 4 * row) {
      const size_t count = least(SPAN, run->count - at), rows = (count + 3) / 4;
      TTI_FOR (m, pixels)
        make_signed(run->input + (ptrdiff_t)(x + (size_t)m) * c->pixel_stride + at, count, inputs + m * SPAN);
      v_tile *to = sums;
      for (size_t here = column; here < end; here += TILE_COLUMNS, to++)
        if (end - here > 8)
          add_span(pixels, 2, limit, inputs, w + here * 4, row, rows, *to);
        else
          add_span(pixels, 1, limit, inputs, w + here * 4, row, rows, *to);
    }
  }
}

/* sums += the products of a run of zero points. */
TTI_INLINE void add_zeros(const int eights, const tti_i8_conv_row *c, const tti_i8_run *run, size_t column,
                          v_sums sums) {
  const int8_t *w = c->weights + (run->weight_row * c->panel + column) * 4;
  const int8x16_t zero = vdupq_n_s8((int8_t)(c->zero ^ 0x80)), a[2] = {zero, zero};
  for (size_t i = 0; i < run->count; i += 4, w += c->panel * 4)
    TTI_FOR (e, eights) {
      int8x16_t b[2];
      load_row(w + e * 32, b);
      add_pairs(2, 1, a, b, sums + 2 * e);
    }
}

/* A tile's sums before its products. */
TTI_INLINE void begin_tile(const int pixels, const int eights, const tti_i8_conv_row *c, size_t x, size_t column,
                           v_tile sums) {
  v_sums first;
  TTI_FOR (i, 2 * eights)
    first[i] = c->begin ? vdupq_n_s32(0) : vld1q_s32(c->constants + c->panel + column + i * TTI_LANES);
  for (size_t r = 0; r < c->run_count; r++)
    if (!c->runs[r].input) add_zeros(eights, c, &c->runs[r], column, first);
  TTI_FOR (m, pixels)
    TTI_FOR (i, 2 * eights) {
      sums[m][i] = first[i];
      if (c->begin)
        sums[m][i] = vaddq_s32(first[i], vld1q_s32(c->begin + (x + (size_t)m) * c->panel + column + i * TTI_LANES));
    }
}

TTI_INLINE void end_tile(const int pixels, const int eights, const tti_i8_conv_row *c, size_t x, size_t column,
                         const v_tile sums) {
  if (c->end) {
    TTI_FOR (m, pixels)
      TTI_FOR (i, 2 * eights) vst1q_s32(c->end + (x + (size_t)m) * c->panel + column + i * TTI_LANES, sums[m][i]);
    return;
  }
  const float *from = (const float *)(const void *)(c->constants + 2 * c->panel) + column;
  vf multiplier[2 * MOST_EIGHTS];
  TTI_FOR (i, 2 * eights) multiplier[i] = v_load(from + i * TTI_LANES);
  const tti_rounding rounding = c->rounding;                          /* in registers, whatever is stored */
  const size_t left = c->columns - column - (size_t)(eights - 1) * 8; /* of the last eight */
  TTI_FOR (m, pixels) {
    const size_t at = (x + (size_t)m) * c->out_stride + column;
    TTI_FOR (e, eights) {
      const vi both[2] = {(vi)sums[m][2 * e], (vi)sums[m][2 * e + 1]};
      if (e < eights - 1 || left >= 8)
        store_eight(c->out, at + e * 8, both, multiplier + 2 * e, &rounding);
      else
        TTI_FOR (i, 2)
          if (left > (size_t)i * TTI_LANES)
            store_elements(c->out, at + e * 8 + i * TTI_LANES, both[i], multiplier[2 * e + i], &rounding,
                           least(left - i * TTI_LANES, TTI_LANES));
    }
  }
}

/* Pixels x .. x + pixels of all channels. 'pixels' and 'limit' are constants at every call, as in i8.c. */
TTI_INLINE void tiles(const int pixels, const int limit, const tti_i8_conv_row *c, size_t x) {
  /* Sums that are kept are those of the whole panel. */
  const size_t columns = c->end ? c->panel : c->columns;
  v_tile sums[MOST_TILES];
  for (size_t column = 0, end; column < columns; column = end) {
    end = least(columns, column + MOST_TILES * TILE_COLUMNS);
    v_tile *tile = sums;
    for (size_t here = column; here < end; here += TILE_COLUMNS, tile++)
      if (end - here > 8)
        begin_tile(pixels, 2, c, x, here, *tile);
      else
        begin_tile(pixels, 1, c, x, here, *tile);
    add_runs(pixels, limit, c, x, column, end, sums);
    tile = sums;
    for (size_t here = column; here < end; here += TILE_COLUMNS, tile++)
      if (end - here > 8)
        end_tile(pixels, 2, c, x, here, *tile);
      else
        end_tile(pixels, 1, c, x, here, *tile);
  }
}

TTI_INLINE void pixels_of_row(const int limit, const tti_i8_conv_row *c) {
  size_t x = 0;
  for (; x + MOST_PIXELS <= c->width; x += MOST_PIXELS) tiles(MOST_PIXELS, limit, c, x);
  if (c->width - x == 3) tiles(3, limit, c, x);
  if (c->width - x == 2) tiles(2, limit, c, x);
  if (c->width - x == 1) tiles(1, limit, c, x);
}

/* Apart, so that each has registers and a frame of its own. */
static __attribute__((noinline)) void conv_row_1(const tti_i8_conv_row *c) { pixels_of_row(1, c); }
static __attribute__((noinline)) void conv_row_2(const tti_i8_conv_row *c) { pixels_of_row(2, c); }
static __attribute__((noinline)) void conv_row_4(const tti_i8_conv_row *c) { pixels_of_row(4, c); }

static void conv_row(const tti_i8_conv_row *c) {
  if (c->products == 4)
    conv_row_4(c);
  else if (c->products == 2)
    conv_row_2(c);
  else
    conv_row_1(c);
}
