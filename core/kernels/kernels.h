/* Kernels: how operators are computed fast. kernels/f32.c and kernels/i8.c define them over vectors of a width that
 * each instruction set chooses; the build compiles them once for each. A port picks a table with tti_kernels_<isa>().
 *
 * Shared contracts: pointers but those to uint8 are aligned to 4 bytes; nothing is read or written outside the spans
 * named; outputs may not overlap inputs except where said; no branch and no address depends on a value of a tensor.
 */
#ifndef TTI_KERNELS_H
#define TTI_KERNELS_H
#include <stddef.h>
#include <stdint.h>

/* A stretch of a convolution's sum that is contiguous in the input: for output pixel x, input elements
 * input[x * pixel_stride + i], i < count, meet rows weight_row + i of the weight panel. */
typedef struct tti_run {
  const float *input;
  uint32_t weight_row, count;
} tti_run;

/* What a sum becomes as it is stored: clamped to low .. high and, with hard_swish, that (TT_ACT_HARD_SWISH) of it. */
typedef struct tti_finish {
  float low, high;
  int hard_swish;
} tti_finish;

/* One y-plane of a convolution for one panel of output channels:
 * out[x][n] = finish(bias[n] + begin[x][n] + sum over runs + residual[x][n]), n < columns <= panel, x < width.
 * bias, begin and residual are left out where they are NULL; begin and residual may equal out. Where 'less' is not 0,
 * the weight at w is w[0] - w[less], and columns = panel. Meanwhile about ahead_bytes at 'ahead', which may be any
 * address, may be brought near: what is read next, if it lies far. */
typedef struct tti_conv_row {
  const tti_run *runs;
  size_t run_count;
  ptrdiff_t pixel_stride;
  size_t width, panel, columns;
  const float *weights; /* [rows][panel] */
  ptrdiff_t less;
  const float *bias; /* [panel] */
  const float *begin, *residual;
  ptrdiff_t begin_stride, residual_stride;
  float *out;
  ptrdiff_t out_stride;
  tti_finish finish;
  const void *ahead;
  size_t ahead_bytes;
} tti_conv_row;

/* One y-plane of a depthwise convolution: kernel rows ky_count (those inside the map; rows[i] points to the first
 * pixel that output 0 reads), weights [ky_count][kernel_x][channels]. */
typedef struct tti_depthwise_row {
  const float *const *rows;
  size_t ky_count, kernel_x, stride_x, dilation_x, width, channels;
  const float *weights, *bias;
  float *out;
  float low, high;
} tti_depthwise_row;

/* One y-plane of a pooling: rows[ky_count] point to pixel 0 of the map. Window columns outside 0 .. in_width are left
 * out. An average is divided by divisor_y times the number of window columns inside the map (count_pad: inside the map
 * and its padding); divisor_y = 0 asks for the maximum. */
typedef struct tti_pool_row {
  const float *const *rows;
  size_t ky_count, kernel_x, stride_x, dilation_x, pad_left, pad_right, in_width, width, channels;
  size_t divisor_y;
  int count_pad;
  float *out;
} tti_pool_row;

/* One y-plane of a convolution in Winograd's F(4, 3) along x (Lavin and Gray 2016), after the products:
 * products[6][tiles][panel], the six 'plane' elements apart, become output pixels 4 t + i < width, to which bias and
 * residual (may be NULL, may equal out) are added, and which are finished. Of a pair of y-planes, by F(2, 3) along y,
 * products are four, 'apart' elements (else 0) from one to the next, of which the upper y-plane is the sum of the first
 * three, and the lower one (is_lower) the second less the third, and the fourth. */
typedef struct tti_winograd_row {
  const float *products, *bias, *residual;
  size_t tiles, plane, apart, panel, width, columns;
  int is_lower;
  float *out;
  ptrdiff_t out_stride; /* also of the residual */
  tti_finish finish;
} tti_winograd_row;

/* Rows of entropy-coded weights of a panel under one scale a column and group: see tt_op. The same bits whatever the
 * kernels, and nothing outside the spans, whatever the bytes hold. */
typedef struct tti_stream {
  const uint8_t *alphabet;          /* [4][16]: low and high bytes of the symbols' starts, then of their frequencies */
  const uint32_t *states;           /* [8] */
  uint32_t place, word_count, rate; /* word_count: at least TT_STREAM_WINDOW; rate * steps below 2^32 */
  const uint16_t *words;            /* [word_count] */
  const float *scales;              /* [ceil(rows / group)][panel] */
  const uint8_t *low;               /* [ceil(rows / 2)][panel], or NULL: symbols are the whole codes */
  size_t rows, group, panel;
  float *out; /* [rows][panel] */
} tti_stream;

/* How a sum becomes an element, see tt_op: clip(round_half_even(v), low, high) + zero as uint8, or clip(v, low, high)
 * as float32. */
typedef struct tti_rounding {
  float low, high;
  uint8_t zero;
  int is_float;
  int is_whole; /* uint8, and low and high are where uint8 ends */
} tti_rounding;

/* As tti_run, over uint8: elements input[x * pixel_stride + i] meet weights [weight_row + i / 4][n][i % 4]. No input
 * stands for the zero point throughout. */
typedef struct tti_i8_run {
  const uint8_t *input;
  uint32_t weight_row, count;
} tti_i8_run;

/* One y-plane of a convolution on uint8 for one panel of output channels. Sums begin at the bias (constants as tt_op
 * says) or, where 'begin' is given, there; they become elements of out, or are kept at 'end' where that is given. */
typedef struct tti_i8_conv_row {
  const tti_i8_run *runs;
  size_t run_count;
  ptrdiff_t pixel_stride;
  size_t width, panel, columns;
  uint8_t zero;             /* of the input */
  unsigned products;        /* of a channel that fit 16 bits, as tt_op.flags says: 1, 2 or 4 */
  const int8_t *weights;    /* [rows][panel][4] */
  const int32_t *constants; /* [3][panel] */
  const int32_t *begin;     /* [width][panel] */
  int32_t *end;             /* likewise; may equal begin */
  void *out;
  size_t out_stride; /* elements */
  tti_rounding rounding;
} tti_i8_conv_row;

/* One y-plane of a depthwise convolution on uint8: rows[kernel_y] point to the first pixel that output 0 reads; no row
 * stands for the zero point throughout. */
typedef struct tti_i8_depthwise_row {
  const uint8_t *const *rows;
  size_t kernel_y, kernel_x, stride_x, dilation_x, width, channels;
  uint8_t zero;
  const int8_t *weights;    /* [ceil(kernel_y / 4)][kernel_x][channels][4] */
  const int32_t *constants; /* [2][channels] */
  void *out;
  tti_rounding rounding;
} tti_i8_depthwise_row;

/* out[i] = a[i * a_step] op b[i * b_step], steps 0 or 1, as tt_op says; kind is TT_BINARY_ADD, _SUB or _MUL. Again for
 * each of the pixels, whose elements lie next to one another in out, and a_pixel and b_pixel apart in a and b. 'last'
 * is added (ADD, MUL: the output's zero point is part of it, rounding.zero is 0) or divides (SUB). An addition has no
 * use for the zero points, a product none for b_scale. */
typedef struct tti_i8_binary_row {
  const uint8_t *a, *b;
  size_t a_step, b_step, count, pixels, a_pixel, b_pixel;
  float a_zero, b_zero, a_scale, b_scale, last;
  uint8_t *out;
  tti_rounding rounding;
} tti_i8_binary_row;

/* Average pooling of one pixel, whose window is 'columns' pixels, 'step' elements apart, of each of row_count rows:
 * out = sum of float32(x - zero) * in_scale / divisor / out_scale + offset, rounded; rounding.zero is 0. */
typedef struct tti_i8_average {
  const uint8_t *const *rows;
  size_t row_count, columns, step, channels;
  float zero, in_scale, divisor, out_scale, offset;
  uint8_t *out;
  tti_rounding rounding;
} tti_i8_average;

/* On uint8, and on float32 what results between uint8 hang on. They are the same on every instruction set, to the bit.
 */
typedef struct tti_i8_kernels {
  void (*conv_row)(const tti_i8_conv_row *);
  void (*depthwise_row)(const tti_i8_depthwise_row *);
  /* out[c] = max of, or sums[c] += sum of, pixels[n][c], n < count. */
  void (*max)(const uint8_t *const *pixels, size_t count, size_t channels, uint8_t *out);
  void (*sum)(const uint8_t *pixels, size_t count, size_t channels, int32_t *sums);
  /* out[i] = float32(sums[i] - shift) * scale, rounded as said. */
  void (*round)(const int32_t *sums, int32_t shift, float scale, size_t count, void *out, const tti_rounding *);
  void (*average)(const tti_i8_average *);
  void (*binary)(unsigned kind, const tti_i8_binary_row *);
  void (*quantize)(const float *in, float scale, size_t count, uint8_t *out, const tti_rounding *);
  void (*dequantize)(const uint8_t *in, uint8_t zero, float scale, size_t count, float *out);
  /* out[i] = table[in[i]], without an address that depends on in. */
  void (*lookup)(const uint8_t *table, const uint8_t *in, size_t count, uint8_t *out);
  /* Adds so many pixels of count channels, one after another, to out, or to nothing unless keep: each is multiplied by
   * the scale, rounded, added, and rounded again. */
  void (*accumulate)(int keep, float scale, const float *a, size_t pixels, float *out, size_t count);
} tti_i8_kernels;

typedef struct tti_kernels {
  const char *name;
  void (*conv_row)(const tti_conv_row *);
  /* Sums of Strassen's method, in Winograd's form (1973): with a[0] and a[1] the halves of the channels of a pixel of
   * top, b[0] and b[1] those of bottom, out[j * plane + x * half + c], j < 4, are b[0] + b[1], that less a[0],
   * a[0] - b[0], and a[1] + a[0] - b[0] - b[1]. */
  void (*strassen_in)(const float *top, const float *bottom, ptrdiff_t pixel_stride, size_t width, size_t half,
                      size_t plane, float *out);
  /* out[j * plane + t * channels + c], j < 6, from pixels 4 t .. 4 t + 5 of rows[0], t < tiles. With 'apart', of a pair
   * of y-planes: from rows[0] - rows[2], (rows[2] + rows[1]) / 2, (rows[2] - rows[1]) / 2 and rows[3] - rows[1], to
   * four places so far apart; rows that are NULL are zeros, but not all are. */
  void (*winograd_in)(const float *const *rows, size_t tiles, size_t channels, size_t plane, size_t apart, float *out);
  /* out[j * tap + i] = taps[i] + p * p * taps[2 * tap + i] + p * taps[tap + i], i < tap, j < 4: columns 1 .. 4 of a row
   * of transformed weights, of which p = 1, -1, 2, -2 are the points. Columns 5 and 0 are the last tap and the first.
   * With a sign that is not 0, taps are sums of those of three rows, the second's times sign, and the two columns
   * follow. */
  void (*winograd_weights)(const float *taps, size_t tap, float sign, float *out);
  void (*winograd_out)(const tti_winograd_row *);
  void (*depthwise_row)(const tti_depthwise_row *);
  void (*pool_row)(const tti_pool_row *);
  /* data[i] = f(data[i]); kind is TT_ACT_*. */
  void (*activation)(unsigned kind, float alpha, float beta, float *data, size_t count);
  /* out[i] = a[i * a_step] op b[i * b_step], steps 0 or 1; kind is TT_BINARY_*. out may equal a or b. */
  void (*binary)(unsigned kind, const float *a, size_t a_step, const float *b, size_t b_step, float *out, size_t count);
  /* out[p * channels + c] = a[p * channels + c] op b[c], p < pixels; with b_first, b[c] op a. out may equal a. */
  void (*binary_pixels)(unsigned kind, const float *a, const float *b, int b_first, float *out, size_t pixels,
                        size_t channels);
  /* Of one pixel: softmax, or its logarithms; layer normalization. out may equal in. */
  void (*softmax)(const float *in, float *out, size_t channels, int logarithms);
  void (*layer_norm)(const float *in, const float *scale, const float *bias, float epsilon, float *out,
                     size_t channels);
  /* Local response normalization of one pixel, ONNX LRN. out may equal in if size is at most 9. */
  void (*lrn)(const float *in, float *out, size_t channels, size_t size, float alpha, float beta, float bias);
  /* out[i * parts + p] = in[p * stride + i], i < each: the shuffle of channels between groups; pixels of planes. */
  void (*interleave_floats)(const float *in, size_t parts, ptrdiff_t stride, size_t each, float *out);
  void (*interleave_bytes)(const uint8_t *in, size_t parts, ptrdiff_t stride, size_t each, uint8_t *out);
  /* Rows of coded weights of a panel (8, 16 or 32 wide) under one scale a column: out[r * panel + n]. coding is
   * TT_CODING_*; for F16 scales is ignored, and no code is infinite or a NaN. The same bits whatever the kernels. */
  void (*decode)(unsigned coding, const uint8_t *codes, const float *scales, size_t rows, size_t panel, float *out);
  /* Nonzero if the stream does not end as it must; out then holds anything. */
  int (*decode_stream)(const tti_stream *s);
  const tti_i8_kernels *i8;
} tti_kernels;

const tti_kernels *tti_kernels_portable(void);
const tti_kernels *tti_kernels_avx2(void);       /* x86-64: AVX2 and FMA */
const tti_kernels *tti_kernels_avx512(void);     /* x86-64: AVX-512 F, VL, BW, DQ and FMA */
const tti_kernels *tti_kernels_avx512vnni(void); /* likewise, and VNNI and VBMI */
const tti_kernels *tti_kernels_neon(void);       /* AArch64 */
const tti_kernels *tti_kernels_neondot(void);    /* AArch64 with dot products */

#endif
