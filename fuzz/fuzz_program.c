/* Fuzzes the validator and the engine behind it: authenticated, but malformed programs.
 *
 *     fuzz_program PROGRAM ITERATIONS SEED [CHUNKS]
 *
 * PROGRAM is chunk 0's plaintext of a real network. Each iteration changes some of its words, opens it with a port
 * whose AEAD is the identity, and, where the validator lets it pass, drives two runs with arbitrary data. CHUNKS holds
 * the other chunks, after uint32_t count and sizes[count]: with it, weights are those of the network wherever a chunk
 * of that size is wanted, and every other iteration changes some of their words in place of the program's. Meant to be
 * built with the address and undefined-behaviour sanitizers: the arena is allocated to its exact size, so that a read
 * or write beyond it is found. Prints how many programs were refused and how many ran. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plain_port.h"

enum { MOST_STEPS = 20000, ARENA_SLACK = 4096, CHUNK_BYTES = 1 << 20 };

static uint64_t state;

/* The chunks of weights, if they are given; where 'spoiled', some are fed changed. */
static struct {
  uint32_t *sizes, count;
  uint8_t *bytes;
  int spoiled;
} weights;

static uint32_t next_random(void) { /* xorshift64* (Vigna 2016) */
  state ^= state >> 12;
  state ^= state << 25;
  state ^= state >> 27;
  return (uint32_t)((state * 2685821657736338717ULL) >> 32);
}

static void mutate(uint8_t *words, size_t bytes);

/* Puts the chunk that is wanted into scratch, if it is there. */
static void find_weights(uint8_t *scratch, const tt_want *want) {
  const uint8_t *at = weights.bytes;
  if (want->event != TT_WANT_CHUNK || !want->index || want->index > weights.count) return;
  for (uint32_t i = 1; i < want->index; i++) at += weights.sizes[i - 1];
  const size_t bytes = weights.sizes[want->index - 1];
  if (bytes + TT_TAG_BYTES != want->bytes) return;
  memcpy(scratch, at, bytes);
  if (weights.spoiled && bytes > 1 && next_random() % 2) mutate(scratch, bytes);
}

/* Feeds and takes until the engine fails, is ready, or has had its steps. Returns whether it is ready. */
static int drive(tt_engine *engine, uint8_t *scratch, size_t scratch_bytes) {
  for (int step = 0; step < MOST_STEPS; step++) {
    tt_want want;
    if (tt_poll(engine, &want) != TT_OK) return 0;
    if (want.event == TT_READY) return 1;
    if (want.bytes > scratch_bytes) return 0;
    find_weights(scratch, &want);
    const int gives = want.event == TT_GIVE_OUTPUT || want.event == TT_GIVE_SPILL;
    if ((gives ? tt_take(engine, scratch, want.bytes) : tt_feed(engine, scratch, want.bytes)) != TT_OK) return 0;
  }
  return 0;
}

static void mutate(uint8_t *words, size_t bytes) {
  static const uint32_t interesting[] = {0,      1,      2,       7,          64,         255,       256,
                                         0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF};
  for (uint32_t changes = 1 + next_random() % 4; changes; changes--) {
    const size_t word = next_random() % (bytes / 2);
    uint16_t value;
    memcpy(&value, words + 2 * word, 2);
    const uint32_t how = next_random() % 4;
    if (how == 0) value = (uint16_t)interesting[next_random() % (sizeof interesting / sizeof *interesting)];
    if (how == 1) value = (uint16_t)(value + next_random() % 5 - 2);
    if (how == 2) value ^= (uint16_t)(1u << next_random() % 16);
    if (how == 3) value = (uint16_t)next_random();
    memcpy(words + 2 * word, &value, 2);
  }
}

static int read_weights(const char *name) {
  FILE *file = fopen(name, "rb");
  if (!file || fread(&weights.count, sizeof weights.count, 1, file) != 1) return 0;
  size_t total = 0;
  weights.sizes = malloc(weights.count * sizeof *weights.sizes + 1);
  if (fread(weights.sizes, sizeof *weights.sizes, weights.count, file) != weights.count) return 0;
  for (uint32_t i = 0; i < weights.count; i++) total += weights.sizes[i];
  weights.bytes = malloc(total + 1);
  const int good = fread(weights.bytes, 1, total, file) == total;
  fclose(file);
  return good;
}

int main(int argc, char **argv) {
  if (argc < 4 || argc > 5 || (argc == 5 && !read_weights(argv[4]))) return 2;
  FILE *file = fopen(argv[1], "rb");
  if (!file) return 2;
  uint8_t *original = malloc(1 << 20);
  const size_t bytes = fread(original, 1, 1 << 20, file);
  fclose(file);
  if (bytes < sizeof(tt_program)) return 2;
  tt_program head;
  memcpy(&head, original, sizeof head);
  const size_t arena_bytes = ((size_t)head.arena_bytes + ARENA_SLACK) / TT_ALIGN * TT_ALIGN,
               scratch_bytes = arena_bytes + CHUNK_BYTES; /* blocks may be larger than the arena */
  uint8_t *arena = aligned_alloc(TT_ALIGN, arena_bytes), *scratch = malloc(scratch_bytes),
          *program = malloc(bytes + TT_TAG_BYTES);
  const tt_port port = plain_port(tti_kernels_portable());
  uint8_t preamble[PLAIN_PREAMBLE_BYTES];
  plain_preamble(preamble, bytes, (uint32_t)arena_bytes);
  const uint8_t key[TT_KEY_BYTES] = {0};
  unsigned long refused = 0, ran = 0;
  state = strtoull(argv[3], NULL, 10) * 2 + 1;
  for (size_t i = 0; i < scratch_bytes; i++) scratch[i] = (uint8_t)next_random();
  for (unsigned long left = strtoul(argv[2], NULL, 10); left; left--) {
    memcpy(program, original, bytes);
    weights.spoiled = weights.count && left > 1 && left % 2;
    if (left > 1 && !weights.spoiled) mutate(program, bytes); /* the last one is the original, which must run */
    tt_engine *engine;
    if (tt_open(arena, arena_bytes, &port, preamble, sizeof preamble, key, key, &engine) != TT_OK) return 1;
    int good = tt_feed(engine, program, bytes + TT_TAG_BYTES) == TT_OK && drive(engine, scratch, scratch_bytes);
    for (int run = 0; good && run < 2; run++) good = tt_start(engine) == TT_OK && drive(engine, scratch, scratch_bytes);
    good ? ran++ : refused++;
    if (left == 1 && !good) return 1;
    tt_close(engine);
  }
  printf("%lu refused, %lu ran\n", refused, ran);
  free(original), free(arena), free(scratch), free(program), free(weights.sizes), free(weights.bytes);
  return 0;
}
