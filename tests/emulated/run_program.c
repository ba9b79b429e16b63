/* Runs a program of plaintext chunks with the kernels of an instruction set: the core as an emulator of another
 * processor can run it, without a cipher.
 *
 *     run_program ISA FILE
 *
 * FILE: uint32_t counts {program bytes, weight chunks, inputs, outputs}, then the bytes of every weight chunk, input
 * and output, then program, chunks and inputs themselves. Runs it twice, and writes the second run's outputs to
 * standard output, and to standard error how many nanoseconds it took. */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "plain_port.h"

typedef struct piece {
  uint8_t *data;
  uint32_t bytes;
} piece;

static uint8_t scratch[64 << 20];

static void stop(const char *why) {
  fprintf(stderr, "run_program: %s\n", why);
  exit(1);
}

static const tti_kernels *kernels_of(const char *isa) {
#if defined(__aarch64__)
  if (!strcmp(isa, "neon")) return tti_kernels_neon();
  if (!strcmp(isa, "neondot")) return tti_kernels_neondot();
#else
  if (!strcmp(isa, "avx512")) return tti_kernels_avx512();
  if (!strcmp(isa, "avx512vnni")) return tti_kernels_avx512vnni();
#endif
  if (!strcmp(isa, "portable")) return tti_kernels_portable();
  stop("no such instruction set");
  return NULL;
}

static void read_all(void *to, size_t bytes, FILE *file) {
  if (fread(to, 1, bytes, file) != bytes) stop("the file is too short");
}

static piece *read_pieces(uint32_t count, FILE *file) {
  piece *pieces = calloc(count + 1, sizeof *pieces);
  for (uint32_t i = 0; i < count; i++) read_all(&pieces[i].bytes, sizeof pieces[i].bytes, file);
  return pieces;
}

static void fill_pieces(piece *pieces, uint32_t count, int full, FILE *file) {
  for (uint32_t i = 0; i < count; i++) {
    pieces[i].data = calloc(pieces[i].bytes + 1, 1);
    if (full) read_all(pieces[i].data, pieces[i].bytes, file);
  }
}

/* Where the rows that are wanted lie in an input or output. */
static uint8_t *rows_of(const piece *tensor, const tt_want *want) {
  const size_t bytes = want->bytes - TT_TAG_BYTES, begin = bytes / want->rows * want->row;
  if (begin + bytes > tensor->bytes) stop("rows beyond a tensor");
  return tensor->data + begin;
}

static void drive(tt_engine *engine, const piece *chunks, const piece *inputs, piece *outputs) {
  static piece spills[4096];
  for (;;) {
    tt_want want;
    if (tt_poll(engine, &want) != TT_OK) stop("the engine failed");
    if (want.event == TT_READY) return;
    if (want.bytes > sizeof scratch || want.index >= 4096) stop("more than this program has room for");
    const size_t plain = want.bytes - TT_TAG_BYTES;
    tt_status status = TT_OK;
    piece *spill = &spills[want.index];
    switch (want.event) {
      case TT_WANT_CHUNK:
        if (chunks[want.index].bytes != plain) stop("a chunk of another size");
        memcpy(scratch, chunks[want.index].data, plain);
        status = tt_feed(engine, scratch, want.bytes);
        break;
      case TT_WANT_INPUT:
        memcpy(scratch, rows_of(&inputs[want.index], &want), plain);
        status = tt_feed(engine, scratch, want.bytes);
        break;
      case TT_WANT_FETCH:
        status = tt_feed(engine, spill->data, want.bytes);
        break;
      case TT_GIVE_SPILL:
        free(spill->data);
        spill->data = malloc(want.bytes);
        status = tt_take(engine, spill->data, want.bytes);
        break;
      default:
        status = tt_take(engine, scratch, want.bytes);
        memcpy(rows_of(&outputs[want.index], &want), scratch, plain);
    }
    if (status != TT_OK) stop("the engine failed");
  }
}

static long long nanoseconds(void) {
  struct timespec now;
  if (clock_gettime(CLOCK_MONOTONIC, &now)) stop("there is no clock");
  return now.tv_sec * 1000000000LL + now.tv_nsec;
}

int main(int argc, char **argv) {
  FILE *file = argc == 3 ? fopen(argv[2], "rb") : NULL;
  uint32_t counts[4];
  if (!file) stop("usage: run_program ISA FILE");
  read_all(counts, sizeof counts, file);
  piece *chunks = read_pieces(counts[1], file), *inputs = read_pieces(counts[2], file),
        *outputs = read_pieces(counts[3], file);
  piece program = {NULL, counts[0]};
  fill_pieces(&program, 1, 1, file);
  fill_pieces(chunks, counts[1], 1, file);
  fill_pieces(inputs, counts[2], 1, file);
  fill_pieces(outputs, counts[3], 0, file);
  piece *numbered = calloc(counts[1] + 1, sizeof *numbered); /* chunk 0 is the program */
  numbered[0] = program;
  memcpy(numbered + 1, chunks, counts[1] * sizeof *chunks);
  tt_program head;
  memcpy(&head, program.data, sizeof head);
  uint8_t *arena = aligned_alloc(TT_ALIGN, (head.arena_bytes + TT_ALIGN - 1) / TT_ALIGN * TT_ALIGN);
  const tt_port port = plain_port(kernels_of(argv[1]));
  const uint8_t key[TT_KEY_BYTES] = {0};
  uint8_t preamble[PLAIN_PREAMBLE_BYTES];
  plain_preamble(preamble, program.bytes, head.arena_bytes);
  tt_engine *engine;
  if (tt_open(arena, head.arena_bytes, &port, preamble, sizeof preamble, key, key, &engine) != TT_OK)
    stop("the engine does not open");
  drive(engine, numbered, inputs, outputs);
  long long begun = 0;
  for (int run = 0; run < 2; run++) {
    begun = nanoseconds();
    if (tt_start(engine) != TT_OK) stop("the engine does not start");
    drive(engine, numbered, inputs, outputs);
  }
  fprintf(stderr, "%lld\n", nanoseconds() - begun);
  for (uint32_t i = 0; i < counts[3]; i++) fwrite(outputs[i].data, 1, outputs[i].bytes, stdout);
  return 0;
}
