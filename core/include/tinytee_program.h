/* tinytee: the program that the compiler writes and the trusted core runs. Every number and every record layout of
 * the program exists here and nowhere else: the core includes this header, the compiler parses it (with cffi), so
 * it keeps to plain enums and structs. All fields are little-endian and naturally aligned; sizes are multiples of 4.
 *
 * A program lies in the arena right after the engine's state. Its head stays there; its instructions and the records
 * that they name come in parts, one of which is there at a time:
 *
 *     tt_program | tt_spill[] | the part | kept[] | tags
 *     a part: tt_part | tt_tensor[] | tt_op[] | tt_load[] | tt_instr[] | tt_port_tensor[] | operands[] | tables[]
 *
 * Chunk 0 is the head and part 0, which holds the setup. Where memory is plenty it holds all else as well; otherwise
 * there is a part for each few operators, a chunk of the bundle that a run is fed between those of weights and that
 * takes the place of the part before. What outlives a part stands between it and the data, where data_offset ends:
 * kept[kept_count] of 16 bits and the tags of what is spilled, tag_count places of 'workers' tags.
 *
 * Fields marked 'runtime' are written by the core; the compiler leaves them zero.
 */
#ifndef TINYTEE_PROGRAM_H
#define TINYTEE_PROGRAM_H
#include <stdint.h>

enum {
  TT_PROGRAM_MAGIC = 0x50545454, /* "TTTP" */
  TT_PROGRAM_VERSION = 12,
  TT_BUNDLE_VERSION = 14,
  TT_ENGINE_BYTES = 256, /* the engine's state, at the start of the arena; the program follows */
  TT_TAG_BYTES = 16,     /* tag of every sealed chunk, whatever the suite */
  TT_NONCE_BYTES = 32,   /* room for a nonce; a suite with shorter ones uses the first bytes */
  TT_KEY_BYTES = 32,
  TT_ALIGN = 64, /* of every tensor and weight offset in the arena */
  TT_MAX_KERNEL_Y = 256,
  TT_MAX_WORKERS = 64,
  TT_SLICE_BYTES = 64 * 1024, /* coded weights are decoded so many bytes of float32 at a time */
  TT_STRASSEN_PIXELS = 112,   /* see TT_FLAG_STRASSEN */
  TT_WINOGRAD_TILES = 14,     /* see TT_FLAG_WINOGRAD */
  TT_WINOGRAD_KERNEL_Y = 16,  /* the most kernel rows of such a convolution */
  TT_MAX_CODING_GROUP = 256,
  TT_ALPHABET_BYTES = 64,
  TT_STREAM_WINDOW = 64, /* 16-bit words of an entropy-coded stream that a step of its decoder looks at */
  TT_STREAM_RATE_BITS = 12,
  TT_PERMUTE_DIMS = 6
};

/* AEAD suites. */
enum { TT_SUITE_AES256GCM = 1, TT_SUITE_CHACHA20POLY1305 = 2, TT_SUITE_AEGIS256X4 = 3 };

enum {
  TT_OP_CONV = 1,
  TT_OP_DEPTHWISE,
  TT_OP_MAX_POOL,
  TT_OP_AVERAGE_POOL,
  TT_OP_REDUCE,
  TT_OP_UNARY,
  TT_OP_BINARY,
  TT_OP_CONCAT,
  TT_OP_GATHER,
  TT_OP_RESIZE,
  TT_OP_DEPTH_TO_SPACE,
  TT_OP_SPACE_TO_DEPTH,
  TT_OP_PERMUTE,
  TT_OP_LRN,
  TT_OP_SOFTMAX,
  TT_OP_LAYER_NORM,
  TT_OP_ARG_MAX,
  TT_OP_CONSTANT,
  TT_OP_CONVERT, /* quantizes or dequantizes */
  TT_OP_LOOKUP,
  TT_OP_END
};

/* Activations: ir.ActivationKind, in capitals; alpha and beta as there. */
enum {
  TT_ACT_IDENTITY,
  TT_ACT_RELU,
  TT_ACT_CLIP,
  TT_ACT_LEAKY_RELU,
  TT_ACT_SIGMOID,
  TT_ACT_HARD_SIGMOID,
  TT_ACT_HARD_SWISH,
  TT_ACT_SWISH,
  TT_ACT_TANH,
  TT_ACT_ELU,
  TT_ACT_SELU,
  TT_ACT_SOFTPLUS,
  TT_ACT_SOFTSIGN,
  TT_ACT_GELU,
  TT_ACT_GELU_TANH,
  TT_ACT_ERF,
  TT_ACT_MISH,
  TT_ACT_EXP,
  TT_ACT_LOG,
  TT_ACT_SQRT,
  TT_ACT_ABS,
  TT_ACT_NEG,
  TT_ACT_RECIPROCAL,
  TT_ACT_POW,
  TT_ACT_TRUNC,
  TT_ACT_CELU,
  TT_ACT_THRESHOLDED_RELU,
  TT_ACT_FLOOR,
  TT_ACT_CEIL,
  TT_ACT_ROUND,
  TT_ACT_SIGN,
  TT_ACT_NOT_ZERO,
  TT_ACT_END
};

/* tt_op.variant, by kind. */
enum {
  TT_BINARY_ADD,
  TT_BINARY_SUB,
  TT_BINARY_MUL,
  TT_BINARY_DIV,
  TT_BINARY_MIN,
  TT_BINARY_MAX,
  TT_BINARY_PRELU,
  TT_BINARY_POW,
  TT_BINARY_LESS, /* 1 or 0, as the next two */
  TT_BINARY_LESS_OR_EQUAL,
  TT_BINARY_EQUAL,
  TT_BINARY_KEEP, /* a where b is not 0, else 0 */
  TT_BINARY_DROP, /* a where b is 0, else 0 */
  TT_BINARY_END
};
enum { TT_REDUCE_MEAN, TT_REDUCE_MAX, TT_REDUCE_MIN, TT_REDUCE_SUM, TT_REDUCE_END };
/* Along y, an operand's y-planes may each be several of the result's, one after another: (h, w, c) to (h w, 1, c). */
enum { TT_CONCAT_Y, TT_CONCAT_X, TT_CONCAT_C, TT_CONCAT_END };
enum { TT_DCR, TT_CRD };
enum { TT_CODING_NONE, TT_CODING_F16, TT_CODING_I8, TT_CODING_I4, TT_CODING_I8_RANS, TT_CODING_I4_RANS, TT_CODING_END };
/* tt_op.flags. */
enum {
  TT_FLAG_RESIDUAL = 1,          /* conv: operand 1 is added before the activation */
  TT_FLAG_COUNT_INCLUDE_PAD = 2, /* average pool */
  TT_FLAG_TOGETHER = 2,          /* conv by Winograd's method: all y-planes together; weights are transformed then */
  TT_FLAG_CONSTANT = 4,          /* binary: one operand is a constant at 'weights' */
  TT_FLAG_CONSTANT_FIRST = 8,    /* binary: it is the first operand */
  TT_FLAG_PAIRS = 8,             /* conv by Winograd's method: y-planes in pairs, by F(2, 3) along y */
  TT_FLAG_FED_CONSTANTS = 4,     /* conv on uint8: constants come with the panels */
  TT_FLAG_LOG = 16,              /* softmax */
  TT_FLAG_SELECT_LAST = 32,      /* arg max */
  TT_FLAG_STRASSEN = 32,         /* conv: by Strassen's method */
  TT_FLAG_WINOGRAD = 64,         /* conv: by Winograd's F(4, 3) along x */
  TT_FLAG_TWO_FIT = 128, /* conv on uint8: how many products of a channel fit 16 bits, else one. Of k and k + 2 */
  TT_FLAG_FOUR_FIT = 16  /* of a four two do if their weights' magnitudes add up to at most 255; with those of
                            the next four, four do if all four magnitudes do */
};

/* A feature map in the arena, y, x, c: whole (capacity = height) or a ring of y-planes: y-plane y lies in slot y %
 * capacity. Elements are float32 (elem_bytes 4) or uint8 (1), for scale * (q - zero_point), whose scale operators and
 * tt_port_tensor alone know. A slot holds pad_left + width + pad_right pixels, padding zero_point (float32: 0).
 *
 * A map may lie among the channels of another: its pixels are then as far from one another as the other's, its slots as
 * long and as many, and 'offset' is that of its first channel. Convolutions without a residual write such maps, and
 * concatenations along channels read them, who find in place what lies where it would be copied to. */
typedef struct tt_tensor {
  uint32_t offset;    /* of slot 0 in the arena, bytes */
  uint32_t row_bytes; /* of one slot: (pad_left + width + pad_right) * (channels, or the other's) * elem_bytes */
  uint32_t width, channels;
  uint16_t height, capacity; /* y-planes; slots */
  uint16_t pad_left, pad_right;
  uint8_t elem_bytes, zero_point;
  uint16_t home; /* that it has beyond this part: 0: none, to spill_count: 1 + its place in tt_spill[], for it leaves
                    the arena; above that: spill_count + 1 + its place in kept[], for it stays */
  uint32_t produced; /* runtime: y-planes written so far in this run */
} tt_tensor;

/* An operator. Unused fields are zero. Convolution weights are panels of 'panel' output channels, zero-filled at the
 * end of a group: [group][ceil(out_channels / groups / panel)][kernel_y][kernel_x][in_channels / groups][panel]; bias
 * [group][that][panel]. Depthwise: [kernel_y][kernel_x][channels], bias [channels]. Layer norm: scale at 'weights',
 * bias at 'bias'. Binary and constant: the constant's extents are kernel_y (its height), kernel_x (its width), and
 * groups (its channels: 1 or the output's, 0 meaning the output's).
 *
 * A convolution's weights, which may be a map, lie in the arena whole (TT_INSTR_RUN) or are fed block by block to
 * 'weights' (TT_INSTR_STREAM): a block is panels_per_block panels (counted over all groups) of the kernel's k_per_block
 * rows, of kernel_y * kernel_x * in_channels / groups rows in all; if k_per_block is less than all, panels_per_block is
 * 1 and the blocks of a panel add up in the output. Blocks go through k first; block b is chunk first_chunk + b. If its
 * stream_rows is not 0 and it is float32 without codes, panels are whole, and sealed in pieces of so many rows, which
 * whoever uses them opens to a place of its own, one of each worker's at 'weights'. By Winograd's method, which then
 * transforms weights as they are used, a piece is a kernel row or, in pairs, a panel. */
/* A convolution with TT_FLAG_WINOGRAD (3 columns, stride and dilation 1, no groups) has weights that are transformed
 * ahead of time: 6 columns instead of 3 and, with TT_FLAG_PAIRS, 4 rows instead of 3; with TT_FLAG_TOGETHER they are as
 * they are, and transformed as they are used. It is fed whole panels, and has a workspace: with tiles = ceil(out width
 * / 4) and R output y-planes that are computed together, I = R + kernel_y - 1 transformed y-planes [6][I][tiles]
 * [in_channels], and for each worker products of P = R y-planes [6][P][tiles][panel], and with TT_FLAG_TOGETHER columns
 * of a kernel row's weights [4][in_channels][panel]. R is all with TT_FLAG_TOGETHER, and otherwise as many as
 * TT_WINOGRAD_TILES tiles make, but at least one and at most all. If it is less than all, each worker has transformed
 * y-planes of its own, before its products. With TT_FLAG_PAIRS (3 rows, at most 2 of padding on either side) pairs of
 * y-planes are counted so, the last perhaps half beyond the map: R is twice as many, I and P are 2 R, columns [6]. */
/* A convolution with TT_FLAG_STRASSEN (1 x 1, no padding, no groups, out channels a multiple of the panel) takes its
 * panels in two halves of columns, and its in_channels in two halves of rows. With B11, B12 (rows of the first half)
 * and B21, B22 of a panel's weights, the panel is [B11][B22 - B12 + B11][B21][B22], each [in_channels / 2][panel / 2],
 * and its bias [panel / 2] of the first half, then [panel / 2] the second half's less the first's. It is fed whole
 * panels, and has a workspace: with P pairs of output y-planes, as many as TT_STRASSEN_PIXELS pixels of one of each
 * hold, but at least one and at most out height / 2, sums of inputs [4][P][width][in_channels / 2], and for each worker
 * products [3][P][width][panel / 2]. */
/* Operators on uint8 are the same records; a convolution, depthwise convolution and reduction may then yield float32.
 * Sums are int32 and exact; what follows is float32, rounded after every step, in the order written. With
 * requantized(v) = clip(round_half_even(v) + zero point of the output, alpha, beta), activation identity, and z the
 * zero point of operand 0:
 *
 * - conv: sum of (a - z) * w + bias, times the channel's multiplier: requantized, or float32 with an activation of at
 *   most clip. Weights int8, panels of rows of [panel][4]: k is counted in fours, where each stretch that is contiguous
 *   in the input (a kernel row if groups = 1 and dilation_x or kernel_x = 1, else a kernel column's channels) begins a
 *   new four, filled with zeros. At 'bias', for each panel, int32 [panel] bias less z times the weights' sum, int32
 *   [panel] the same plus 128 times that sum, float32 [panel] multipliers; with TT_FLAG_FED_CONSTANTS that does not lie
 *   there, but before each panel's rows, or part of them. If k is fed in parts, its workspace holds
 *   int32 [y-planes of a step][width][panel].
 * - depthwise: likewise; weights int8 [ceil(kernel_y / 4)][kernel_x][channels][4], of 4 kernel rows, with zeros; at
 *   'bias' int32 [channels] bias less z times the weights' sum, float32 [channels] multipliers.
 * - max pool: as it is.
 * - average pool: sum, in float32 in the order y, x, of float32(a - z) * p0; / float32(elements counted) / p1 + zero
 *   point of the output; then rounded and cut as requantized, but without adding a zero point.
 * - reduce: mean, to float32 only: float32(sum of (a - z)) * p0.
 * - binary: add: fma(a, p0, fma(b, p1, p2)), where fma rounds once (float64 must hold both sums exactly, else results
 *   depend on the processor); mul: float32((a - z) * (b - its zero point)) * p0 + zero point of the output; both then
 *   rounded and cut as an average is. sub: (float32(a - z) * p0 - float32(b - its) * p1) / p2: requantized. A constant
 *   is uint8 with the zero point 'table'; with CONSTANT_FIRST it is a.
 * - convert to uint8: v / p0, requantized; from uint8: p0 * float32(a - z), then the activation.
 * - lookup: table of 256 bytes at 'weights'.
 * - lrn: of the values: convert to float32, lrn, convert to uint8. At 'table' the scales of operand and output; its
 * workspace holds, for each worker, float32 [2][channels].
 * - unary identity, concat, gather (p0 is the filling element), depth to space, space to depth, permute: as they are.
 */
/* A convolution on float32 may have coded weights ('variant' is TT_CODING_*, 'table' a group's rows, an even number).
 * The rows of a panel, or of a block's part of one, then lie in groups, one after the other: but for F16, float32
 * [panel] scales; then codes: F16 and I8 [rows][panel], I4 [ceil(rows / 2)][panel] with an even row in the low four
 * bits and 8 added. A weight is its code times the scale. Blocks begin with a group. Its workspace holds, for each
 * worker, the weights of as many whole groups as TT_SLICE_BYTES hold, or of all rows. */
/* I8_RANS and I4_RANS are entropy-coded. Groups' scales come first, then streams of stream_rows rows, the last of a
 * panel of what is left: one stream for several whole groups, or several for one group. Blocks and slices begin with
 * both. A stream is
 *
 *     uint32_t states[8], place | uint16_t words[word_count] | I8_RANS: uint8_t low[ceil(rows / 2)][panel]
 *
 * with word_count = (rows * panel / 8 * stream_rate >> TT_STREAM_RATE_BITS) + stream_base, at least TT_STREAM_WINDOW,
 * rounded up to an even number. Its symbols, 0 .. 15, are an I4 code + 8, or an I8 code's high four bits, + 8 (the low
 * ones follow as I4's do). They go row by row, eight columns to a step, lane i of which is decoded with state i:
 * kernels/rans.h. In step s the window begins at word s * stream_rate >> TT_STREAM_RATE_BITS, at most word_count -
 * TT_STREAM_WINDOW; 'place' is the first word that is read; at the end every state is 2^16 and the last word is read.
 * After the biases follows the alphabet: [4][16] bytes, the low and the high ones of each symbol's start, out of 4096,
 * then of its frequency. */
typedef struct tt_op {
  uint8_t kind, activation, variant, flags;
  uint16_t output;        /* tensor */
  uint16_t operand_count; /* in operands[], from first_operand */
  uint32_t first_operand;
  uint16_t kernel_y, kernel_x, stride_y, stride_x, dilation_y, dilation_x;
  uint16_t pad_top, pad_left, pad_bottom, pad_right;
  uint16_t groups, panel; /* panel: 8, 16 or 32; 64 with TT_FLAG_STRASSEN */
  uint32_t weights, bias; /* arena offsets */
  uint32_t first_chunk, panels_per_block, k_per_block;
  uint32_t workspace; /* arena offset */
  uint32_t table;     /* index of the first element in tables[] (32-bit elements) */
  float alpha, beta;  /* of the activation */
  float p0, p1, p2;   /* lrn: alpha, beta, bias (size in kernel_x); layer norm: p0 = epsilon; gather: p0 = fill */
  uint16_t stream_rows, stream_rate, stream_base;
  uint16_t failed; /* runtime: tt_status of weights that are malformed, or not authentic */
  uint32_t done;   /* runtime: y-planes computed (reduce: y-planes consumed) */
} tt_op;

/* Tables (tables[] holds int32 or float32):
 *   gather:  rows[height], cols[width], chans[channels] of the output; -1 = fill
 *   resize:  kernel_y, kernel_x taps: row_index[height][kernel_y], row_weights[..], col_index[width][kernel_x],
 * col_weights[..] permute: dims[6], strides[6], unused leading dims 1 */

/* The plaintext of a chunk of the bundle goes to this place. Chunk 0 is the program. */
typedef struct tt_load {
  uint32_t chunk, offset, bytes;
} tt_load;

/* A feature map that leaves the arena sealed, in blocks of 'rows' y-planes, first to last, and comes back as often as
 * it is read, perhaps to other places (tensors). Its tags share their places with those of maps that come back for the
 * last time before it leaves. */
typedef struct tt_spill {
  uint32_t first; /* number of its first block: the blocks of all maps are numbered one after the other */
  uint16_t tag;   /* place of its first block's tags, one for each worker's piece; the others follow */
  uint16_t rows, height;
  uint16_t sealed, sealed_before; /* runtime: blocks that have left in this run, each only once; before this part */
  uint8_t lost, lost_before;      /* runtime: whether another map's tags have taken the places of its tags */
} tt_spill;

/* A tensor that crosses the boundary, as input or output number 'port', in dense blocks of rows_per_chunk y-planes. */
typedef struct tt_port_tensor {
  uint16_t tensor, port;
  uint32_t rows_per_chunk;
  float scale; /* of a tensor of uint8, for whoever quantizes it before or dequantizes it after; else 0 */
} tt_port_tensor;

enum {
  TT_INSTR_RUN = 1, /* index: operator; arg: until this many y-planes are done */
  TT_INSTR_STREAM,  /* likewise, for a convolution whose weights are fed block by block */
  TT_INSTR_LOAD,    /* arg: index in tt_load[] */
  TT_INSTR_INPUT,   /* index: in tt_port_tensor[]; arg: until this many y-planes are produced */
  TT_INSTR_OUTPUT,  /* likewise; arg: begin of the row block; it ends rows_per_chunk later or at the last y-plane */
  TT_INSTR_SPILL,   /* index: tensor; arg: which of its row blocks */
  TT_INSTR_FETCH,   /* likewise */
  TT_INSTR_REPEAT   /* index: how many instructions follow; arg: how often they are gone through */
};

/* An instruction is 32 bits: code in bits 0 .. 3, index in bits 4 .. 15, arg in bits 16 .. 31. A plan for little memory
 * takes many small steps, most of which differ from the one before in how far they go alone: those are a loop. Behind
 * its instructions it says for each, in 16 bits and filled up to 32, what every time after the first adds to its arg,
 * at least 1. Loops hold no loops, and no loads. */
typedef struct tt_instr {
  uint32_t bits;
} tt_instr;

enum { TT_INSTR_INDEX_SHIFT = 4, TT_INSTR_ARG_SHIFT = 16, TT_INSTR_MAX_INDEX = 0xFFF, TT_INSTR_MAX_ARG = 0xFFFF };

typedef struct tt_program {
  uint32_t magic, version;
  uint32_t arena_bytes; /* high-water mark: nothing of this program lies beyond */
  uint32_t data_offset; /* engine's state and program end here; tensors and weights lie above */
  uint32_t spill_count, tag_count;
  uint32_t kept_count;  /* feature maps that stay in the arena from part to part: y-planes of each that are there */
  uint32_t chunk_count; /* of the bundle, chunk 0 included */
  uint32_t setup_count; /* the first instrs of part 0, all LOAD: done once after open (pinned weights) */
  uint32_t workers;     /* most threads that may share a run, 1 .. TT_MAX_WORKERS */
  uint32_t piece_bytes; /* of the pieces that chunks are sealed in (not chunk 0, and see tt_op) for them to share */
} tt_program;

/* The counts of a part, and the one that follows: a later chunk of so many bytes (0: the run is over). If any follows
 * part 0, that one is the setup alone. Operators do not outlive their part. */
typedef struct tt_part {
  uint32_t next_chunk, next_bytes;
  uint32_t instr_count; /* 32-bit words */
  uint32_t table_count; /* 4 bytes each */
  uint16_t tensor_count, op_count, load_count, port_count;
  uint32_t operand_count; /* uint16_t each, an even number */
} tt_part;

/* The bundle, a file: a preamble that anyone may read and that the wrapped key authenticates, then the sealed chunks.
 *
 *     tt_bundle_header | manifest (JSON) | uint32_t sealed_bytes[chunk_count] | wrapped key and its tag | chunks
 *
 * The bundle's own random key is sealed with the owner's model key under wrap_nonce, everything before it as associated
 * data. Chunk k is one piece or several, one after the other, as tt_program and tt_op say (chunk 0 is one). Piece i of
 * it: nonce {TT_DOMAIN_CHUNK, i, k, 0, ...}, no associated data, ciphertext then tag. */
typedef struct tt_bundle_header {
  uint8_t magic[8]; /* "tinytee" and a zero */
  uint32_t version, suite;
  uint32_t header_bytes; /* sizeof(tt_bundle_header) */
  uint32_t manifest_bytes;
  uint32_t chunk_count;  /* chunk 0 included */
  uint32_t arena_bytes;  /* secure memory that a session needs */
  uint8_t bundle_id[16]; /* random */
  uint8_t wrap_nonce[32];
} tt_bundle_header;

/* Nonces are four little-endian words {domain, run, index, 0} (then zeros), under the key named. */
enum {
  TT_DOMAIN_CHUNK = 1,  /* bundle key; in place of the run the piece; index k */
  TT_DOMAIN_INPUT = 2,  /* + 256 * piece: I/O key; index counts the run's inputs */
  TT_DOMAIN_OUTPUT = 3, /* I/O key; index counts the run's outputs */
  TT_DOMAIN_SPILL = 4   /* + 256 * piece: spill key (random, never leaves the engine); index: the block's number */
};

#endif
