/* Runs a program of plaintext chunks with the kernels of an instruction set: the core as an emulator of another
 * processor can run it, without a cipher.
 *
 *     run_program ISA FILE [SEED [branch|address]]
 *
 * FILE: uint32_t counts {program bytes, weight chunks, inputs, outputs}, then the bytes of every weight chunk, input
 * and output, then program, chunks and inputs themselves. Runs it twice, and writes the second run's outputs to
 * standard output, and to standard error how many bytes of stack the core used and how many nanoseconds a run took.
 *
 * Other secrets take the place of weights and inputs where SEED is above 0: zeros (1), ones in every bit (2), any
 * bytes. Secrets are undefined to Valgrind's memcheck, which so complains of every branch and every address that
 * depends on them; and tests/machine_code/tracer.c compares what happens between tracing_begins and tracing_ends.
 * 'branch' and 'address' do what must not be done, with the first byte of an output. */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "plain_port.h"
#if __has_include(<valgrind/memcheck.h>)
#include <valgrind/memcheck.h>
#else
#define RUNNING_ON_VALGRIND 0
#define VALGRIND_MAKE_MEM_UNDEFINED(from, bytes) ((void)(from), (void)(bytes))
#define VALGRIND_MAKE_MEM_DEFINED(from, bytes) ((void)(from), (void)(bytes))
#define VALGRIND_GET_VBITS(from, to, bytes) ((void)(from), (void)(to), (void)(bytes))
#endif

typedef struct piece {
  uint8_t *data;
  uint32_t bytes;
} piece;

static uint8_t scratch[64 << 20];

/* Not alike, or the compiler makes them one. */
__attribute__((noinline)) static void tracing_begins(void) { __asm__ volatile("nop" ::: "memory"); }
__attribute__((noinline)) static void tracing_ends(void) { __asm__ volatile("nop\n\tnop" ::: "memory"); }

static void stop(const char *why) {
  fprintf(stderr, "run_program: %s\n", why);
  exit(1);
}

static const tti_kernels *kernels_of(const char *isa) {
#if defined(__aarch64__)
  if (!strcmp(isa, "neon")) return tti_kernels_neon();
  if (!strcmp(isa, "neondot")) return tti_kernels_neondot();
#else
#if TTI_AVX2
  if (!strcmp(isa, "avx2")) return tti_kernels_avx2();
#endif
#if TTI_AVX512
  if (!strcmp(isa, "avx512")) return tti_kernels_avx512();
  if (!strcmp(isa, "avx512vnni")) return tti_kernels_avx512vnni();
#endif
#endif
  if (!strcmp(isa, "portable")) return tti_kernels_portable();
  stop("no such instruction set");
  return NULL;
}

static void read_all(void *to, size_t bytes, FILE *file) {
  if (fread(to, 1, bytes, file) != bytes) stop("the file is too short");
}

static void read_pieces(piece *pieces, uint32_t count, FILE *file) {
  for (uint32_t i = 0; i < count; i++) read_all(&pieces[i].bytes, sizeof pieces[i].bytes, file);
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

/* Marks the chunks that hold parts of the program, which are public to these tests: each says which the next one is. */
static void find_parts(uint8_t *is_part, const piece *chunks, size_t part_at) {
  tt_part part;
  for (uint32_t chunk = 0;; chunk = part.next_chunk, part_at = 0) {
    is_part[chunk] = 1;
    memcpy(&part, chunks[chunk].data + part_at, sizeof part);
    if (!part.next_bytes) return;
  }
}

/* A run of a program; chunk 0 is the program's. */
typedef struct job {
  piece *chunks, *inputs, *outputs;
  uint8_t *is_part;
  uint8_t *arena;
  uint32_t arena_bytes;
  tt_port port;
  const char *leak;
  uintptr_t stack; /* its end when the core was first called */
  long long nanoseconds;
} job;

static void drive(tt_engine *engine, const job *j) {
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
        if (j->chunks[want.index].bytes != plain) stop("a chunk of another size");
        memcpy(scratch, j->chunks[want.index].data, plain);
        if (!j->is_part[want.index]) VALGRIND_MAKE_MEM_UNDEFINED(scratch, plain);
        status = tt_feed(engine, scratch, want.bytes);
        break;
      case TT_WANT_INPUT:
        memcpy(scratch, rows_of(&j->inputs[want.index], &want), plain);
        VALGRIND_MAKE_MEM_UNDEFINED(scratch, plain);
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
        memcpy(rows_of(&j->outputs[want.index], &want), scratch, plain);
    }
    if (status != TT_OK) stop("the engine failed");
  }
}

/* Says on standard error how many bytes of an output memcheck takes for secret, and makes them public. */
static void declassify(const piece *output) {
  uint32_t secret = 0;
  uint8_t bits;
  for (uint32_t i = 0; RUNNING_ON_VALGRIND && i < output->bytes; i++) {
    VALGRIND_GET_VBITS(output->data + i, &bits, 1);
    secret += bits != 0;
  }
  if (RUNNING_ON_VALGRIND) fprintf(stderr, "%u of %u bytes are secret\n", secret, output->bytes);
  VALGRIND_MAKE_MEM_DEFINED(output->data, output->bytes);
}

static void leak(const char *how, uint8_t secret) {
  static volatile uint8_t table[256];
  if (!strcmp(how, "address"))
    table[0] = table[secret];
  else if (secret & 1)
    table[0] = 1;
}

static void replace(const piece *secret, unsigned seed) {
  uint64_t state = seed;
  for (uint32_t i = 0; i < secret->bytes; i++) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    secret->data[i] = seed == 1 ? 0 : seed == 2 ? 0xFF : (uint8_t)(state >> 56);
  }
}

static long long nanoseconds(void) {
  struct timespec now;
  if (clock_gettime(CLOCK_MONOTONIC, &now)) stop("there is no clock");
  return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void *run(void *argument) {
  job *j = argument;
  const uint8_t key[TT_KEY_BYTES] = {0};
  uint8_t preamble[PLAIN_PREAMBLE_BYTES];
  tt_engine *engine;
  long long begun = 0;
  plain_preamble(preamble, j->chunks[0].bytes, j->arena_bytes);
  j->stack = (uintptr_t)__builtin_frame_address(0);
  tracing_begins();
  if (tt_open(j->arena, j->arena_bytes, &j->port, preamble, sizeof preamble, key, key, &engine) != TT_OK)
    stop("the engine does not open");
  drive(engine, j);
  for (int i = 0; i < 2; i++) {
    begun = nanoseconds();
    if (tt_start(engine) != TT_OK) stop("the engine does not start");
    drive(engine, j);
  }
  if (j->leak) leak(j->leak, j->outputs[0].data[0]);
  tracing_ends();
  j->nanoseconds = nanoseconds() - begun;
  return NULL;
}

/* Runs a job on a stack of its own. Returns how many bytes of it were used, from where the core was first called. */
static size_t run_on_stack(job *j) {
  enum { STACK_BYTES = 1 << 20, UNTOUCHED = 0xA5 };
  static _Alignas(4096) uint8_t stack[STACK_BYTES];
  pthread_attr_t attributes;
  pthread_t thread;
  memset(stack, UNTOUCHED, sizeof stack);
  if (pthread_attr_init(&attributes) || pthread_attr_setstack(&attributes, stack, sizeof stack) ||
      pthread_create(&thread, &attributes, run, j) || pthread_join(thread, NULL))
    stop("there is no thread");
  VALGRIND_MAKE_MEM_DEFINED(stack, sizeof stack);
  size_t deepest = 0;
  while (stack[deepest] == UNTOUCHED) deepest++;
  return j->stack - (uintptr_t)(stack + deepest);
}

int main(int argc, char **argv) {
  FILE *file = argc > 2 ? fopen(argv[2], "rb") : NULL;
  uint32_t counts[4];
  if (!file) stop("usage: run_program ISA FILE [SEED [branch|address]]");
  read_all(counts, sizeof counts, file);
  piece *chunks = calloc(counts[1] + 1, sizeof *chunks);
  read_pieces(chunks + 1, counts[1], file);
  piece *inputs = calloc(counts[2] + 1, sizeof *inputs), *outputs = calloc(counts[3] + 1, sizeof *outputs);
  read_pieces(inputs, counts[2], file);
  read_pieces(outputs, counts[3], file);
  chunks[0].bytes = counts[0];
  fill_pieces(chunks, counts[1] + 1, 1, file);
  fill_pieces(inputs, counts[2], 1, file);
  fill_pieces(outputs, counts[3], 0, file);
  tt_program head;
  memcpy(&head, chunks[0].data, sizeof head);
  job j = {.chunks = chunks,
           .inputs = inputs,
           .outputs = outputs,
           .is_part = calloc(counts[1] + 1, 1),
           .arena = aligned_alloc(TT_ALIGN, (head.arena_bytes + TT_ALIGN - 1) / TT_ALIGN * TT_ALIGN),
           .arena_bytes = head.arena_bytes,
           .port = plain_port(kernels_of(argv[1])),
           .leak = argc > 4 ? argv[4] : NULL};
  find_parts(j.is_part, chunks, sizeof head + head.spill_count * sizeof(tt_spill));
  const unsigned seed = argc > 3 ? (unsigned)atoi(argv[3]) : 0;
  for (uint32_t i = 1; seed && i <= counts[1]; i++)
    if (!j.is_part[i]) replace(&chunks[i], seed < 3 ? seed : seed + i);
  for (uint32_t i = 0; seed && i < counts[2]; i++) replace(&inputs[i], seed);
  const size_t stack_bytes = run_on_stack(&j);
  for (uint32_t i = 0; i < counts[3]; i++) declassify(&outputs[i]);
  fprintf(stderr, "%zu bytes of stack\n%lld\n", stack_bytes, j.nanoseconds);
  for (uint32_t i = 0; i < counts[3]; i++) fwrite(outputs[i].data, 1, outputs[i].bytes, stdout);
  return 0;
}
