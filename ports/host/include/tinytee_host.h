/* tinytee on a host: runs a bundle inside a process. It supplies the core with an arena, AEADs and randomness, and
 * drives it: feeds the bundle's chunks, parks the spills, seals the inputs and opens the outputs as a client would.
 *
 *     tth_session_open -> tth_session_run, any number of times -> tth_session_close
 *
 * What this protects against, and what not, is in docs/threat-model.md. A session is used by one thread at a time;
 * any number of sessions may live side by side, each with its own threads. A child made by fork() must not use its
 * parent's sessions; it may close them. Parsed by Python (with cffi): plain enums, structs and prototypes only.
 */
#ifndef TINYTEE_HOST_H
#define TINYTEE_HOST_H
#include "tinytee.h"

/* Bounds on a bundle's public part, for whoever reads one. */
enum { TTH_MAX_MANIFEST_BYTES = 16777216, TTH_MAX_CHUNKS = 1048576 };

/* What kind of memory the operating system gave for an arena. */
typedef enum tth_arena_kind {
  TTH_ARENA_NONE = 0,
  TTH_ARENA_SECRET,  /* memfd_secret(2): unmapped from the kernel, never swapped, never dumped, not inherited by fork */
  TTH_ARENA_LOCKED,  /* private memory, locked: never swapped, left out of core dumps, not inherited by fork */
  TTH_ARENA_UNLOCKED /* likewise, but RLIMIT_MEMLOCK is too low: it may be swapped */
} tth_arena_kind;

/* Secure memory of this port. The byte after the last (rounded up to 64) begins an inaccessible page, and so does the
 * page before the mapping: an access past the end faults. */
typedef struct tth_arena {
  uint8_t *memory; /* aligned to 64, zero */
  size_t bytes;    /* as asked for, rounded up to 64 */
  tth_arena_kind kind;
  void *mapping; /* guard pages included */
  size_t mapping_bytes;
} tth_arena;

/* Gets an arena of that many bytes (1 to 4 GiB). Returns 0, or -1 with errno set and *arena zeroed. */
TT_MUST_USE int tth_arena_open(tth_arena *arena, size_t bytes);

/* Wipes the arena and gives it back. Does nothing to a zeroed one. */
void tth_arena_close(tth_arena *arena);

enum {
  TTH_AEGIS_STATE_BYTES = 1024,
  TTH_BUNDLE_SHARED = 1, /* others may write the bundle's memory while it is read (a mapped file): read it once */
  TTH_NOT_DUMPABLE = 2   /* make this process not dumpable, nor traceable by its own user (prctl(2)) */
};

/* AEGIS-256X4 by libaegis, whose functions are those named here, after aegis256x4_. The state, an aegis256x4_state, has
 * TTH_AEGIS_STATE_BYTES at most. */
typedef struct tth_aegis {
  int (*encrypt_detached)(uint8_t *c, uint8_t *mac, size_t maclen, const uint8_t *m, size_t mlen, const uint8_t *ad,
                          size_t adlen, const uint8_t *npub, const uint8_t *k);
  void (*state_init)(void *state, const uint8_t *ad, size_t adlen, const uint8_t *npub, const uint8_t *k);
  int (*state_decrypt_update)(void *state, uint8_t *m, const uint8_t *c, size_t mlen);
  int (*state_decrypt_final)(void *state, const uint8_t *mac, size_t maclen);
} tth_aegis;

/* Zero everything for the defaults. */
typedef struct tth_options {
  const char *isa;  /* "portable", "avx2", "avx512", "neon"; NULL: the best that this processor has */
  tth_aegis aegis;  /* all or none */
  uint32_t flags;   /* TTH_BUNDLE_SHARED, TTH_NOT_DUMPABLE */
  uint32_t threads; /* that may share a run, at most as many as the bundle was compiled for; 0 and 1: the caller's */
} tth_options;

/* The port alone, for those who drive the core by themselves. */
typedef struct tth_port tth_port;

/* Makes a port. Returns NULL if the instruction set is unknown, or this processor or build lacks it, or there is no
 * memory or no more threads. options may be NULL. */
tth_port *tth_port_open(const tth_options *options);
const tt_port *tth_port_hooks(const tth_port *port);
const char *tth_port_isa(const tth_port *port);
void tth_port_close(tth_port *port); /* wipes the keys; NULL is permitted */

typedef struct tth_session tth_session;

typedef struct tth_input {
  const float *values; /* [height][width][channels] */
  size_t elems;        /* height * width * channels */
  size_t channels;     /* 0: dense; else the elements lie wherever the strides say, counted in elements */
  ptrdiff_t row_stride, pixel_stride, channel_stride;
} tth_input;

typedef struct tth_output {
  float *values; /* [height][width][channels], dense */
  size_t elems;  /* height * width * channels */
} tth_output;

typedef struct tth_stats {
  size_t peak_bytes;         /* tt_peak_bytes */
  size_t arena_bytes;        /* handed to the core */
  size_t touched_bytes;      /* end of the arena's last byte that is not zero now: a lower bound, by inspection */
  size_t spill_memory_bytes; /* untrusted memory that holds spills */
  tth_arena_kind arena_kind;
  uint32_t suite; /* TT_SUITE_* */
  uint64_t runs;
  uint64_t chunks, chunk_bytes; /* fed since the session was opened, sealed, likewise below */
  uint64_t inputs, input_bytes;
  uint64_t outputs, output_bytes;
  uint64_t spills, spill_bytes;
  uint64_t fetches, fetch_bytes;
  double open_seconds; /* tth_session_open, pinned weights included */
  double run_seconds;  /* all runs */
  double aead_seconds; /* of both, in the core's AEAD hooks; the mean of the threads that shared it */
  double last_run_seconds;
  const char *isa; /* static text */
} tth_stats;

/* Opens a session on a bundle.
 *
 * bundle[bundle_bytes]: the whole file; it is read until the session is closed, and may be hostile. model_key: 32
 * bytes, not kept. options may be NULL. error[error_bytes] receives a line of text on failure, "" on success; it may be
 * NULL if error_bytes is 0. On failure *session is NULL.
 *
 * TT_ERROR_BUNDLE: not a bundle, or truncated. TT_ERROR_AUTHENTICATION: the key is not its key, or it was changed.
 * TT_ERROR_ARENA: the operating system does not give so much memory. TT_ERROR_PORT: the instruction set or the suite
 * is not available. TT_ERROR_PROGRAM: authentic, but not for this core. */
TT_MUST_USE tt_status tth_session_open(const uint8_t *bundle, size_t bundle_bytes, const uint8_t *model_key,
                                       const tth_options *options, tth_session **session, char *error,
                                       size_t error_bytes);

/* Runs one sample: reads every input, writes every output whole, in float32 also where the network's are bytes, which
 * are converted on this side of the boundary (see tt_want). inputs[input_count], outputs[output_count]: in the
 * bundle's order; they may not overlap. After any failure the session is dead: the arena and the keys are wiped, and
 * every later run returns the same status. The outputs then hold nothing of use. */
TT_MUST_USE tt_status tth_session_run(tth_session *session, const tth_input *inputs, size_t input_count,
                                      const tth_output *outputs, size_t output_count);

/* What the last failure was, in a line; "" if there was none. Valid until the session is closed. */
const char *tth_session_error(const tth_session *session);

/* The bundle's bytes before chunk 0, as authenticated. Valid until the session is closed. */
const uint8_t *tth_session_preamble(const tth_session *session, size_t *bytes);

void tth_session_stats(const tth_session *session, tth_stats *stats);

/* The session's arena, for tests that look whether it is wiped. */
const tth_arena *tth_session_arena(const tth_session *session);

/* Wipes everything and frees it. NULL is permitted. */
void tth_session_close(tth_session *session);

#endif
