/* tinytee-feeder: runs a bundle in OP-TEE without Python, or serves it (see agent.h).
 *
 *     tinytee-feeder model.tt --sealed-key device.key --input image.f32 --output answer.f32 [--runs 10]
 *     tinytee-feeder --identity         prints the device's public key, for 'tinytee provision --device-key'
 *     tinytee-feeder --agent            over standard input and output
 *     tinytee-feeder --agent /dev/vport0p1
 *
 * Inputs and outputs are files of float32, y, x, c, in the bundle's order; --input and --output may be repeated. This
 * program is the client itself, in the normal world: the model is kept from the normal world, the inputs and outputs
 * are not. --key-file, in place of --sealed-key, is for development: the model is not, either.
 */
#define _DEFAULT_SOURCE
#include <bearssl.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "agent.h"
#include "feeder.h"
#include "hpke.h"
#include "tinytee_program.h"

enum { MAX_TENSORS = 16, EXIT_USAGE = 2 };

typedef struct file {
  uint8_t *data;
  size_t bytes, room;
} file;

typedef struct client {
  tta_keys keys; /* model_key: in development only */
  tta_sealed_key sealed_key;
  int is_sealed;
  uint32_t suite;
  uint32_t runs, given, taken; /* begun since the session was opened; blocks of inputs and of outputs of this run */
  file inputs[MAX_TENSORS], outputs[MAX_TENSORS];
  size_t input_count, output_count;
} client;

static int read_file(const char *path, file *into) {
  FILE *stream = fopen(path, "rb");
  int failed = !stream || fseek(stream, 0, SEEK_END) != 0;
  const long bytes = failed ? -1 : ftell(stream);
  failed = bytes < 0 || fseek(stream, 0, SEEK_SET) != 0;
  if (!failed) {
    into->data = malloc((size_t)bytes + 1);
    into->bytes = (size_t)bytes;
    failed = !into->data || fread(into->data, 1, into->bytes, stream) != into->bytes;
  }
  if (failed) fprintf(stderr, "tinytee-feeder: %s: %s\n", path, errno ? strerror(errno) : "cannot be read");
  if (stream) (void)fclose(stream);
  return failed ? -1 : 0;
}

/* 64 hexadecimal digits, or 32 bytes. */
static int read_key(const char *path, uint8_t key[32]) {
  file f = {0};
  if (read_file(path, &f)) return -1;
  int good = f.bytes == 32;
  if (good) memcpy(key, f.data, 32);
  if (!good && f.bytes >= 64) {
    good = 1;
    for (int i = 0; i < 32 && good; i++) {
      const char pair[3] = {(char)f.data[2 * i], (char)f.data[2 * i + 1], 0};
      char *end = NULL;
      key[i] = (uint8_t)strtoul(pair, &end, 16);
      good = end == pair + 2;
    }
  }
  free(f.data);
  if (!good) fprintf(stderr, "tinytee-feeder: %s is not a key file: 64 hexadecimal digits, or 32 bytes\n", path);
  return good ? 0 : -1;
}

static int read_sealed_key(const char *path, tta_sealed_key *key) {
  file f = {0};
  if (read_file(path, &f)) return -1;
  const int good = f.bytes == sizeof *key;
  if (good) memcpy(key, f.data, sizeof *key);
  free(f.data);
  if (good && key->magic == TTA_SEALED_KEY_MAGIC && key->version == TTA_KEY_VERSION) return 0;
  fprintf(stderr, "tinytee-feeder: %s is not a sealed key: 'tinytee provision' makes one\n", path);
  return -1;
}

/* Seals the I/O key to the device, for this session and this bundle. */
static int make_opening(client *c, const ttf_session *session, const tta_identity *identity, tta_opening *opening) {
  const br_ec_impl *curve = br_ec_get_default();
  uint8_t ephemeral[32], dh[32];
  tta_binding binding = {.magic = TTA_BINDING_MAGIC, .version = TTA_KEY_VERSION};
  const tto_part preamble = {session->bundle, session->preamble_bytes};
  const tto_hpke message = {dh, opening->io_enc, identity->public_key, &binding, sizeof binding};
  memcpy(dh, identity->public_key, sizeof dh);
  if (getrandom(ephemeral, sizeof ephemeral, 0) != (ssize_t)sizeof ephemeral ||
      curve->mulgen(opening->io_enc, ephemeral, sizeof ephemeral, BR_EC_curve25519) != sizeof opening->io_enc ||
      !curve->mul(dh, sizeof dh, ephemeral, sizeof ephemeral, BR_EC_curve25519) ||
      tto_sha256(&preamble, 1, binding.preamble_sha256))
    return -1;
  opening->model = c->sealed_key;
  memcpy(binding.challenge, identity->challenge, sizeof binding.challenge);
  memcpy(opening->preamble_sha256, binding.preamble_sha256, sizeof opening->preamble_sha256);
  const int failed = tto_hpke_seal(&message, c->keys.io_key, sizeof c->keys.io_key, opening->io_sealed);
  tto_wipe(ephemeral, sizeof ephemeral);
  tto_wipe(dh, sizeof dh);
  return failed;
}

/* ---- the client's part: sealing inputs, opening outputs */

static void run_gcm(const client *c, const uint8_t *nonce, int encrypt, uint8_t *data, size_t bytes, uint8_t *tag) {
  br_aes_ct64_ctr_keys aes;
  br_gcm_context gcm;
  br_aes_ct64_ctr_init(&aes, c->keys.io_key, sizeof c->keys.io_key);
  br_gcm_init(&gcm, &aes.vtable, br_ghash_ctmul64);
  br_gcm_reset(&gcm, nonce, TTO_NONCE_BYTES);
  br_gcm_flip(&gcm);
  br_gcm_run(&gcm, encrypt, data, bytes);
  br_gcm_get_tag(&gcm, tag);
}

/* plain is as before afterwards. */
static void seal(const client *c, const uint8_t *nonce, const uint8_t *plain, size_t bytes, uint8_t *sealed) {
  if (c->suite == TT_SUITE_CHACHA20POLY1305) {
    tto_chacha_seal(c->keys.io_key, nonce, NULL, 0, plain, bytes, sealed, sealed + bytes);
    return;
  }
  memcpy(sealed, plain, bytes);
  run_gcm(c, nonce, 1, sealed, bytes, sealed + bytes);
}

static int open_sealed(const client *c, const uint8_t *nonce, const uint8_t *sealed, size_t bytes, uint8_t *plain) {
  uint8_t tag[TT_TAG_BYTES];
  if (c->suite == TT_SUITE_CHACHA20POLY1305)
    return tto_chacha_open(c->keys.io_key, nonce, NULL, 0, sealed, bytes, sealed + bytes, plain);
  memcpy(plain, sealed, bytes);
  run_gcm(c, nonce, 0, plain, bytes, tag);
  return tto_equal(tag, sealed + bytes, sizeof tag) ? 0 : -1;
}

static void make_nonce(uint8_t nonce[TTO_NONCE_BYTES], uint32_t domain, uint32_t run, uint32_t index) {
  const uint32_t words[] = {domain, run, index};
  memcpy(nonce, words, sizeof words);
}

/* See tt_want. */
static uint8_t *quantized(const tta_want *want, const float *values, size_t count) {
  const float zero = (float)want->zero_point;
  uint8_t *codes = malloc(count);
  for (size_t i = 0; codes && i < count; i++) {
    const float code = rintf(values[i] / want->scale) + zero;
    codes[i] = code >= 255.0f ? 255 : code > 0.0f ? (uint8_t)code : 0;
  }
  return codes;
}

static float *dequantized(const tta_want *given, const uint8_t *codes, size_t count) {
  float *values = malloc(count * sizeof *values);
  for (size_t i = 0; values && i < count; i++) values[i] = (float)(codes[i] - (int)given->zero_point) * given->scale;
  return values;
}

static int give_input(void *context, const tta_want *want, uint8_t *sealed) {
  client *c = context;
  uint8_t nonce[TTO_NONCE_BYTES], *codes = NULL;
  const size_t elem_bytes = want->scale > 0.0f ? sizeof(float) : 1; /* in the file, for a byte that is wanted */
  if (want->index >= c->input_count || want->bytes < TT_TAG_BYTES || !want->rows) return -1;
  const size_t bytes = want->bytes - TT_TAG_BYTES, first = bytes / want->rows * want->row * elem_bytes;
  const file *f = &c->inputs[want->index];
  if (first > f->bytes || bytes > (f->bytes - first) / elem_bytes) return -1;
  const uint8_t *plain = f->data + first;
  if (want->scale > 0.0f) plain = codes = quantized(want, (const float *)(const void *)plain, bytes);
  if (!plain) return -1;
  make_nonce(nonce, TT_DOMAIN_INPUT, c->runs, c->given++);
  seal(c, nonce, plain, bytes, sealed);
  free(codes);
  return 0;
}

/* Room for so many bytes of a file, and whatever else makes it longer. */
static int make_room(file *f, size_t bytes) {
  if (bytes > f->room) {
    uint8_t *larger = realloc(f->data, 2 * bytes);
    if (!larger) return -1;
    f->data = larger;
    f->room = 2 * bytes;
  }
  if (bytes > f->bytes) f->bytes = bytes;
  return 0;
}

static int take_output(void *context, const tta_want *given, const uint8_t *sealed) {
  client *c = context;
  uint8_t nonce[TTO_NONCE_BYTES];
  if (given->index >= MAX_TENSORS || given->bytes < TT_TAG_BYTES || !given->rows) return -1;
  file *f = &c->outputs[given->index];
  const size_t elem_bytes = given->scale > 0.0f ? sizeof(float) : 1;
  const size_t bytes = given->bytes - TT_TAG_BYTES, first = bytes / given->rows * given->row * elem_bytes;
  if (make_room(f, first + bytes * elem_bytes)) return -1;
  make_nonce(nonce, TT_DOMAIN_OUTPUT, c->runs, c->taken++);
  if (open_sealed(c, nonce, sealed, bytes, f->data + first)) return -1;
  if (given->scale > 0.0f) {
    float *values = dequantized(given, f->data + first, bytes);
    if (!values) return -1;
    memcpy(f->data + first, values, bytes * sizeof *values);
    free(values);
  }
  return 0;
}

/* ---- the command line */

static int usage(void) {
  fprintf(stderr, "usage: tinytee-feeder MODEL.tt --sealed-key KEY --input FILE... --output FILE... [--runs N]\n"
                  "       tinytee-feeder --identity\n"
                  "       tinytee-feeder --agent [DEVICE]\n");
  return EXIT_USAGE;
}

static int write_outputs(const client *c, char *const *paths) {
  for (size_t i = 0; i < c->output_count; i++) {
    FILE *stream = fopen(paths[i], "wb");
    const int failed = !stream || fwrite(c->outputs[i].data, 1, c->outputs[i].bytes, stream) != c->outputs[i].bytes;
    if ((stream && fclose(stream) != 0) || failed) {
      fprintf(stderr, "tinytee-feeder: %s cannot be written\n", paths[i]);
      return EXIT_FAILURE;
    }
  }
  return EXIT_SUCCESS;
}

static int connect_device(TEEC_Context *context, ttf_session *session) {
  memset(session, 0, sizeof *session);
  if (TEEC_InitializeContext(NULL, context) != TEEC_SUCCESS) {
    fprintf(stderr, "tinytee-feeder: %s\n", ttf_absence());
    return -1;
  }
  if (!ttf_connect(session, context)) return 0;
  fprintf(stderr, "tinytee-feeder: %s\n", session->error);
  ttf_close(session);
  TEEC_FinalizeContext(context);
  return -1;
}

static int print_identity(void) {
  TEEC_Context context;
  ttf_session session;
  tta_identity identity;
  if (connect_device(&context, &session)) return EXIT_FAILURE;
  const int failed = ttf_identify(&session, &identity);
  if (failed) fprintf(stderr, "tinytee-feeder: %s\n", session.error);
  for (size_t i = 0; i < sizeof identity.public_key && !failed; i++) printf("%02x", identity.public_key[i]);
  if (!failed) printf("\n");
  ttf_close(&session);
  TEEC_FinalizeContext(&context);
  return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int open_bundle(client *c, const file *bundle, ttf_session *session) {
  tta_identity identity;
  tta_opening opening;
  if (ttf_load(session, bundle->data, bundle->bytes)) return -1;
  c->suite = (uint32_t)session->stats.suite;
  if (!c->is_sealed) {
    fprintf(stderr,
            "tinytee-feeder: DEVELOPMENT MODE: the normal world knows the keys; nothing is protected from it\n");
    return ttf_open(session, &c->keys, sizeof c->keys);
  }
  fprintf(stderr, "tinytee-feeder: inputs and outputs are known to the normal world, of which this program is part\n");
  if (ttf_identify(session, &identity)) return -1;
  if (memcmp(identity.public_key, c->sealed_key.device, sizeof identity.public_key) != 0) {
    (void)snprintf(session->error, sizeof session->error,
                   "the sealed key is for another device: run 'tinytee provision' with this one's key");
    return -1;
  }
  if (make_opening(c, session, &identity, &opening)) {
    (void)snprintf(session->error, sizeof session->error, "no key could be made for this session");
    return -1;
  }
  return ttf_open(session, &opening, sizeof opening);
}

static int run(client *c, const file *bundle, unsigned long runs, char *const *output_paths) {
  TEEC_Context context;
  ttf_session session;
  const ttf_client hooks = {c, give_input, take_output};
  if (connect_device(&context, &session)) return EXIT_FAILURE;
  int failed = open_bundle(c, bundle, &session);
  for (unsigned long i = 0; i < runs && !failed; i++) {
    c->runs++;
    c->given = c->taken = 0;
    failed = ttf_run(&session, &hooks);
  }
  if (failed)
    fprintf(stderr, "tinytee-feeder: %s\n", session.error);
  else
    printf("%.3f ms, %llu bytes of secure memory, %llu calls\n", 1e-6 * (double)session.stats.last_run_nanoseconds,
           (unsigned long long)session.stats.peak_bytes, (unsigned long long)session.stats.calls);
  ttf_close(&session);
  TEEC_FinalizeContext(&context);
  return failed ? EXIT_FAILURE : write_outputs(c, output_paths);
}

/* A virtio serial port reads as ended until its other end is there. */
static void await_peer(int stream) {
  struct pollfd one = {stream, POLLIN, 0};
  while (poll(&one, 1, -1) >= 0 && !(one.revents & POLLIN)) (void)usleep(10000);
}

static int serve(const char *device) {
  const int stream = device ? open(device, O_RDWR | O_CLOEXEC) : STDIN_FILENO;
  if (stream < 0) {
    fprintf(stderr, "tinytee-feeder: %s: %s\n", device, strerror(errno));
    return EXIT_FAILURE;
  }
  if (device) await_peer(stream);
  return ttf_serve(stream, device ? stream : STDOUT_FILENO);
}

int main(int count, char **words) {
  static client c;
  file bundle = {0};
  const char *key_path = NULL;
  char *output_paths[MAX_TENSORS];
  unsigned long runs = 1;
  if (count >= 2 && strcmp(words[1], "--agent") == 0) return serve(words[2]);
  if (count == 2 && strcmp(words[1], "--identity") == 0) return print_identity();
  if (count < 2 || words[1][0] == '-') return usage();
  for (int i = 2; i < count; i += 2) {
    if (i + 1 == count) return usage();
    if (strcmp(words[i], "--key-file") == 0 || strcmp(words[i], "--sealed-key") == 0) {
      if (key_path) return usage();
      key_path = words[i + 1];
      c.is_sealed = words[i][2] == 's';
    } else if (strcmp(words[i], "--input") == 0 && c.input_count < MAX_TENSORS) {
      if (read_file(words[i + 1], &c.inputs[c.input_count++])) return EXIT_FAILURE;
    } else if (strcmp(words[i], "--output") == 0 && c.output_count < MAX_TENSORS) {
      output_paths[c.output_count++] = words[i + 1];
    } else if (strcmp(words[i], "--runs") == 0) {
      runs = strtoul(words[i + 1], NULL, 10);
    } else {
      return usage();
    }
  }
  if (!key_path) return usage();
  if (read_file(words[1], &bundle)) return EXIT_FAILURE;
  if (c.is_sealed ? read_sealed_key(key_path, &c.sealed_key) : read_key(key_path, c.keys.model_key))
    return EXIT_FAILURE;
  if (getrandom(c.keys.io_key, sizeof c.keys.io_key, 0) != (ssize_t)sizeof c.keys.io_key) return EXIT_FAILURE;
  return run(&c, &bundle, runs, output_paths);
}
