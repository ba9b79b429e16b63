/* tinytee: the trusted core's public interface.
 *
 * The core is a push machine. The host asks what it wants (tt_poll), and gives it just that (tt_feed) or takes it
 * (tt_take), until the run is done. The core never calls the host, except through the port's hooks below.
 *
 *     tt_open    -> wants chunk 0 (the program, or its head), then the pinned chunks, then is ready
 *     tt_start   -> begins a run
 *     tt_poll    -> TT_WANT_CHUNK, TT_WANT_INPUT, TT_WANT_FETCH: feed it;  TT_GIVE_SPILL, TT_GIVE_OUTPUT: take it
 *     tt_close   -> wipes everything; permitted in every state
 *
 * Memory: all state, keys, program, weights and activations lie in the caller's arena, aligned to 64 bytes; the stack
 * used is below 16 KiB. Nothing is allocated. One engine is used by one thread at a time; a port may lend it more.
 *
 * Errors: the first one sticks. It wipes the arena and the port's keys; every later call returns the same status
 * until the arena is opened again.
 */
#ifndef TINYTEE_H
#define TINYTEE_H
#include <stddef.h>
#include <stdint.h>

typedef enum tt_status {
  TT_OK = 0,
  TT_ERROR_ARENA,          /* arena too small, misaligned, or beyond 4 GiB */
  TT_ERROR_BUNDLE,         /* preamble foreign, truncated, or of another version; weights malformed */
  TT_ERROR_AUTHENTICATION, /* wrong key, or sealed bytes changed, swapped, replayed, truncated */
  TT_ERROR_PROGRAM,        /* authenticated, but the validator refuses the program */
  TT_ERROR_STATE,          /* call not permitted now, or a length other than the one wanted */
  TT_ERROR_PORT            /* the port lacks the suite, or its randomness failed */
} tt_status;

typedef enum tt_event {
  TT_READY = 0,   /* tt_start may be called; a run, if there was one, is complete */
  TT_WANT_CHUNK,  /* feed sealed chunk 'index' of the bundle */
  TT_WANT_INPUT,  /* feed y-planes row .. row + rows of input 'index', sealed with the I/O key */
  TT_WANT_FETCH,  /* feed back spill 'index' as it was taken */
  TT_GIVE_SPILL,  /* take spill 'index': keep it until it is asked for */
  TT_GIVE_OUTPUT, /* take y-planes row .. row + rows of output 'index', sealed with the I/O key */
  TT_FAILED       /* see the status */
} tt_event;

typedef struct tt_want {
  tt_event event;
  uint32_t index, row, rows;
  uint32_t piece_rows; /* TT_WANT_INPUT: each so many y-planes are sealed alone, piece k with nonce[1] = k */
  size_t bytes;        /* exact length to feed or to take, tags included */
  /* Of TT_WANT_INPUT and TT_GIVE_OUTPUT. Elements are float32 if scale is 0, else uint8 q, standing for
   * scale * (q - zero_point): clip(round_half_even(v / scale) + zero_point, 0, 255) of a value v, of NaN 0. */
  float scale;
  uint32_t zero_point;
  uint8_t nonce[32]; /* under the I/O key; no associated data */
} tt_want;

/* Where a key is used; a port keeps at most one of each. */
typedef enum tt_key_slot { TT_KEY_MODEL = 0, TT_KEY_BUNDLE, TT_KEY_IO, TT_KEY_SPILL, TT_KEY_SLOTS } tt_key_slot;

struct tti_kernels; /* chosen by the port with tti_kernels_*(), see core/kernels/kernels.h */

/* What a port supplies. Hooks return 0 on success. No hook may keep a pointer into the arena. */
typedef struct tt_port {
  void *context;
  /* Makes 'key' (32 bytes) the key of a slot under the suite (TT_SUITE_*); fails if the port has no such suite. */
  int (*set_key)(void *context, tt_key_slot slot, uint32_t suite, const uint8_t *key);
  /* Opens ciphertext[bytes] with its tag into plain, which may equal ciphertext. On failure plain holds nothing of
   * the plaintext. The ciphertext is read once if the memory it lies in can change meanwhile. */
  int (*open)(void *context, tt_key_slot slot, const uint8_t *nonce, const void *associated, size_t associated_bytes,
              const uint8_t *ciphertext, size_t bytes, const uint8_t *tag, uint8_t *plain);
  int (*seal)(void *context, tt_key_slot slot, const uint8_t *nonce, const void *associated, size_t associated_bytes,
              const uint8_t *plain, size_t bytes, uint8_t *ciphertext, uint8_t *tag);
  int (*random)(void *context, uint8_t *bytes, size_t count);
  void (*forget)(void *context); /* wipes every key */
  /* Calls work(argument, begin, end, worker) for stretches of items begin .. end that together are the items below
   * 'items', on at most 'workers' threads at a time, each with a number of its own below 'workers', and returns when
   * all is done. These call 'open' and 'seal', too. NULL: the core does it all on the thread that called it. */
  void (*parallel)(void *context, uint32_t workers,
                   void (*work)(void *argument, uint32_t begin, uint32_t end, uint32_t worker), void *argument,
                   uint32_t items);
  const struct tti_kernels *kernels;
} tt_port;

typedef struct tt_engine tt_engine; /* lies at the start of the arena */

#if defined(__GNUC__)
#define TT_MUST_USE __attribute__((warn_unused_result))
#else
#define TT_MUST_USE
#endif

/* Opens a bundle's preamble in an arena. preamble: the bundle's bytes before chunk 0. model_key, io_key: 32 bytes
 * each; they are handed to the port and not kept. port must outlive the engine. On TT_OK *engine is the arena. On
 * failure the arena is wiped and *engine is NULL. */
TT_MUST_USE tt_status tt_open(void *arena, size_t arena_bytes, const tt_port *port, const uint8_t *preamble,
                              size_t preamble_bytes, const uint8_t *model_key, const uint8_t *io_key,
                              tt_engine **engine);

/* Begins a run. Only when tt_poll says TT_READY. */
TT_MUST_USE tt_status tt_start(tt_engine *engine);

/* Says what is wanted next. */
TT_MUST_USE tt_status tt_poll(const tt_engine *engine, tt_want *want);

/* Feeds what tt_poll wanted: exactly want.bytes, ciphertext then tag, and does all the work that it makes possible. */
TT_MUST_USE tt_status tt_feed(tt_engine *engine, const uint8_t *sealed, size_t bytes);

/* A hint: what will be fed next after what is wanted now, or thereabouts. While it computes, the engine asks the
 * processor to bring it near; nothing reads it, wherever it points. The call does no more than remember it. */
void tt_expect(tt_engine *engine, const void *sealed, size_t bytes);

/* Takes what tt_poll gives, want.bytes of it: ciphertext then tag (a spill: ciphertext; its tags stay in the arena). */
TT_MUST_USE tt_status tt_take(tt_engine *engine, uint8_t *sealed, size_t bytes);

/* End of the highest byte of the arena used since open. From chunk 0 on it covers all that the program can touch. */
size_t tt_peak_bytes(const tt_engine *engine);

/* Wipes arena and keys. */
void tt_close(tt_engine *engine);

#endif
