/* Drives the trusted application from the normal world: streams a bundle's chunks to it and parks its spills. The TEE
 * is behind GlobalPlatform's client API: OP-TEE's own, or that of ports/sgx/host.
 *
 * The caller keeps the bundle readable while a session is open. Inputs are asked for and outputs handed over sealed
 * with the I/O key, through callbacks: whoever has the key need not be on this device.
 */
#ifndef TTF_FEEDER_H
#define TTF_FEEDER_H
#include <stddef.h>
#include <stdint.h>
#include <tee_client_api.h>

#include "tinytee.h"
#include "tinytee_ta.h"
#include "tinytee_wire.h"

typedef struct ttf_spill {
  uint8_t *sealed;
  size_t bytes;
  int is_here; /* taken in this run */
} ttf_spill;

typedef struct ttf_session {
  TEEC_Session session;
  TEEC_SharedMemory window, small; /* of items and of what is given for them; of a reply and the keys */
  int is_open, is_sealed;
  uint32_t flags; /* TTA_DEVELOPMENT */
  const uint8_t *bundle;
  size_t bundle_bytes, preamble_bytes;
  size_t *places; /* chunk k: bundle[places[k]] .. bundle[places[k + 1]] */
  uint32_t chunk_count;
  ttf_spill *spills;
  size_t spill_count;
  tta_want *script; /* what a run wants, in order: the same in every run, and known after the first */
  size_t script_count, script_room, at;
  tta_reply reply;
  ttf_stats stats;
  uint64_t client_nanoseconds; /* spent in this run's callbacks */
  int failed;                  /* 0, or what failed; sticks */
  char error[200];
} ttf_session;

/* What a run asks of its caller; both return 0, or anything else to give up. sealed has room for want->bytes. The
 * caller counts nonces: of inputs as it gives them, of outputs as it takes them (see tinytee_program.h). */
typedef struct ttf_client {
  void *context;
  int (*give_input)(void *context, const tta_want *want, uint8_t *sealed);
  int (*take_output)(void *context, const tta_want *given, const uint8_t *sealed);
} ttf_client;

/* Say in a line what a TEEC result means, or that there is no TEE, and what to do. Each TEE's host has its own. */
const char *ttf_explain(TEEC_Result result);
const char *ttf_absence(void);

/* In this order, each returning 0, or the class of failure, with session->error saying what failed; ttf_close the
 * session in either case. ttf_connect opens a session of the trusted application. ttf_identify asks for the device's
 * public key and a challenge. ttf_load takes a bundle, whose public part is its first session->preamble_bytes. ttf_open
 * opens it, pinned weights included; keys: a tta_opening made for that challenge or, in development, tta_keys. */
int ttf_connect(ttf_session *session, TEEC_Context *context);
int ttf_identify(ttf_session *session, tta_identity *identity);
int ttf_load(ttf_session *session, const uint8_t *bundle, size_t bundle_bytes);
int ttf_open(ttf_session *session, const void *keys, size_t key_bytes);

/* Runs one sample. Likewise. From the second run on, a call into the trusted application carries as much as fits. */
int ttf_run(ttf_session *session, const ttf_client *client);

void ttf_close(ttf_session *session);

#endif
