/* The trusted application's commands: what the normal world may ask of the core inside OP-TEE.
 *
 * One session holds one engine (see tinytee.h). Memory comes from the application's own heap, whose size is set when it
 * is built, and is wiped with the session. Every command checks its parameter types first, then every length against
 * memref.size; a call that does not pass returns a TEE error and leaves the engine as it was. All else that can happen
 * is in the reply, and the call succeeds: a wrong key, say, is reply.status = TT_ERROR_AUTHENTICATION, and sticks.
 *
 *     command       slot 0                   slot 1                   slot 2               slot 3
 *     TTA_OPEN      memref in: preamble      memref in: tta_opening   memref out: reply    none
 *                                            or tta_keys
 *     TTA_START     memref in: items         memref out: sealed bytes memref out: reply    none, or memref in
 *     TTA_EXCHANGE  memref in: items         memref out: sealed bytes memref out: reply    none, or memref in
 *     TTA_INFO      value out: heap, flags   none                     memref out: reply    none
 *     TTA_IDENTITY  memref out: tta_identity none                     memref out: reply    none
 *
 * TTA_OPEN   makes an arena of the preamble's arena_bytes and opens the bundle in it. An engine that was open is
 * closed. The keys come sealed to this device (tta_opening) and spend the challenge of the last TTA_IDENTITY; or in the
 * clear (tta_keys), which only an application that was built for development takes: it is TEE_ERROR_ACCESS_DENIED.
 * TTA_EXCHANGE   serves what the core wants, one after the other. What it wants fed is the next item of slot 0: the
 * tta_want that it answers, which must be the core's own, then so many sealed bytes; or, if TTA_IN_PLACE is added to
 * its event, a uint64_t: where in slot 3 these lie, as chunks do in a bundle that is shared. What it gives is written
 * to slot 1, after what was given before. The call ends before the first that is not there, or has no room; reply.fed
 * and reply.given count what was served, and slot 1's memref.size says how much was written. Either memref may be NULL,
 * of 0 bytes. To serve nothing is an error. TTA_START   begins a run, and goes on as TTA_EXCHANGE, but may serve
 * nothing. TTA_INFO   heap: bytes; flags: TTA_DEVELOPMENT if keys are taken in the clear. TTA_IDENTITY   gives the
 * device's public key, and a fresh challenge for one TTA_OPEN. The key pair is made when it is first asked for; its
 * private key stays in the trusted operating system.
 *
 * TEE_ERROR_BAD_PARAMETERS: parameter types, a NULL memref, a length. TEE_ERROR_BAD_STATE: no engine, or nothing or
 * something else is wanted, or no challenge was asked for. TEE_ERROR_SHORT_BUFFER: the memref to write is too small.
 * TEE_ERROR_NOT_SUPPORTED: no such command. TTA_IDENTITY and TTA_OPEN, which has then closed the engine: also what
 * secure storage answers.
 *
 * Shared memory may change while it is read: sealed bytes are copied into the arena before they are opened, and are
 * sealed in secure memory before they are copied out.
 */
#ifndef TINYTEE_TA_H
#define TINYTEE_TA_H
#include <stdint.h>

#define TTA_UUID {0x73899df4, 0x862f, 0x46f4, {0xb8, 0x02, 0x39, 0xf4, 0x7a, 0x9c, 0x3b, 0x58}}

enum { TTA_OPEN = 0, TTA_START, TTA_EXCHANGE, TTA_INFO, TTA_IDENTITY };

enum { TTA_DEVELOPMENT = 1 };

enum { TTA_IN_PLACE = 0x100 };

/* A window of shared memory larger than this may not be mappable by OP-TEE. */
enum { TTA_WINDOW_BYTES = 1 << 20 };

/* In the clear: for development. */
typedef struct tta_keys {
  uint8_t model_key[32], io_key[32];
} tta_keys;

typedef struct tta_identity {
  uint8_t public_key[32]; /* X25519 */
  uint8_t challenge[32];
} tta_identity;

/* What is sealed to a device is sealed by HPKE (RFC 9180), base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256,
 * ChaCha20-Poly1305, without associated data: 'enc' is the encapsulated key, 'sealed' a key of 32 bytes and its tag.
 * What it is bound to is HPKE's info. */
enum {
  TTA_SEALED_KEY_MAGIC = 0x4B455454 /* "TTEK" */,
  TTA_BINDING_MAGIC = 0x53455454 /* "TTES" */,
  TTA_KEY_VERSION = 1
};

/* A model key for one device: the sealed-key file. HPKE's info is the record up to and with 'device'. */
typedef struct tta_sealed_key {
  uint32_t magic, version; /* TTA_SEALED_KEY_MAGIC, TTA_KEY_VERSION */
  uint8_t device[32];      /* its public key */
  uint8_t enc[32], sealed[48];
} tta_sealed_key;

/* HPKE's info of an I/O key: this session, and this bundle's preamble byte for byte. */
typedef struct tta_binding {
  uint32_t magic, version; /* TTA_BINDING_MAGIC, TTA_KEY_VERSION */
  uint8_t challenge[32], preamble_sha256[32];
} tta_binding;

typedef struct tta_opening {
  tta_sealed_key model;
  uint8_t preamble_sha256[32];
  uint8_t io_enc[32], io_sealed[48];
} tta_opening;

/* What tt_poll says. Nonces are not told: those who have the I/O key count them (see tinytee_program.h). */
typedef struct tta_want {
  uint32_t event; /* tt_event, and as tt_want from here on */
  uint32_t index, row, rows;
  uint32_t bytes;
  float scale;
  uint32_t zero_point;
} tta_want;

/* After the command. */
typedef struct tta_reply {
  uint32_t status; /* tt_status */
  tta_want want;
  uint32_t peak_bytes; /* tt_peak_bytes; of a failed engine, 0 */
  uint32_t fed, given; /* by this call */
} tta_reply;

#endif
