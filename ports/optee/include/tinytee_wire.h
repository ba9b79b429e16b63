/* What goes over the wire between the feeder as a server (tinytee-feeder --agent) and its client.
 *
 * One request at a time; all numbers little-endian. Python reads these records from this header.
 *
 *     request: ttf_message, then 'bytes' bytes         answer: likewise
 *     TTF_DEVICE  session; opens it                    TTF_DONE with a ttf_device
 *     TTF_PUT     session; a bundle                    TTF_DONE
 *     TTF_OPEN    session; tta_opening or tta_keys     TTF_DONE with ttf_stats
 *     TTF_RUN     session                              TTF_INPUT_WANTED with a tta_want: send TTF_INPUT with it sealed
 *                                                      TTF_OUTPUT with a tta_want and the sealed rows
 *                                                      at last TTF_DONE with ttf_stats
 *     TTF_CLOSE   session                              TTF_DONE; the bundle is forgotten, too
 *     TTF_INVOKE  session; ttf_invocation, slot data   TTF_DONE with a ttf_result and what was written, for tests
 *     TTF_OFF     switches the machine off, or ends the agent
 *
 * Inputs are wanted in the core's order, and outputs come in it; how the two interleave is the feeder's choice. What a
 * tta_want says has passed through the normal world. A client that is not part of it counts nonces itself (see
 * tinytee_program.h), takes every tensor's rows from the first to the last, and misses none.
 *
 * Any of them may be answered with TTF_ERROR: 'value' is the class of failure, the bytes are a line of
 * text. Sessions are numbered 0 .. TTF_SESSIONS - 1 by the caller.
 */
#ifndef TINYTEE_WIRE_H
#define TINYTEE_WIRE_H
#include <stdint.h>

#include "tinytee_ta.h"

/* Classes of failure: a tt_status where the core failed, else one of these. */
enum {
  TTF_FAILED_DEVICE = 100, /* no OP-TEE, no trusted application, no memory for it */
  TTF_FAILED_CALL,         /* the trusted application refuses a call, or has panicked */
  TTF_FAILED_CALLER        /* a callback failed */
};

enum {
  TTF_PUT = 1,
  TTF_OPEN,
  TTF_RUN,
  TTF_INPUT,
  TTF_CLOSE,
  TTF_INVOKE,
  TTF_OFF,
  TTF_DEVICE,
  TTF_DONE = 100,
  TTF_INPUT_WANTED,
  TTF_OUTPUT,
  TTF_ERROR
};

enum { TTF_SESSIONS = 8 };

/* The trusted application in a device. The challenge is for the next TTF_OPEN of this session. */
typedef struct ttf_device {
  tta_identity identity;
  uint32_t heap_bytes, flags; /* flags: TTA_DEVELOPMENT */
} ttf_device;

typedef struct ttf_message {
  uint32_t kind, session, value, bytes;
} ttf_message;

/* A call as a hostile normal world might make it. types: TEEC_PARAM_TYPES of NONE, VALUE_* and MEMREF_TEMP_*; slot i
 * is {a, b} for a value; for a memref, a is its size, and b whether it points to memory (0: NULL). Inputs' bytes
 * follow, a bytes each. */
typedef struct ttf_invocation {
  uint32_t command, types;
  uint32_t slots[4][2];
} ttf_invocation;

/* What memrefs to write hold follows, slots[i][0] bytes each, none where that is more than the call offered. */
typedef struct ttf_result {
  uint32_t result, origin;
  uint32_t slots[4][2]; /* values, and sizes */
} ttf_result;

typedef struct ttf_stats {
  uint64_t runs, calls; /* calls: into the trusted application since the session was opened */
  uint64_t chunks, chunk_bytes, inputs, input_bytes, outputs, output_bytes;
  uint64_t spills, spill_bytes, fetches, fetch_bytes, spill_memory_bytes;
  uint64_t open_nanoseconds, run_nanoseconds, last_run_nanoseconds; /* of runs, without the callbacks */
  uint64_t peak_bytes, arena_bytes, suite, heap_bytes;
} ttf_stats;

#endif
