/* tinytee-feeder: runs a bundle in OP-TEE without Python, or serves it (see agent.h).
 *
 *     tinytee-feeder model.tt --key-file model.key --input image.f32 --output answer.f32 [--runs 10]
 *     tinytee-feeder --agent            over standard input and output
 *     tinytee-feeder --agent /dev/vport0p1
 *
 * Inputs and outputs are files of float32, y, x, c, in the bundle's order; --input and --output may be repeated.
 */
#define _DEFAULT_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <nettle/chacha-poly1305.h>
#include <nettle/gcm.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "agent.h"
#include "feeder.h"
#include "tinytee_program.h"

enum { MAX_TENSORS = 16, EXIT_USAGE = 2 };

typedef struct file {
  uint8_t *data;
  size_t bytes, room;
} file;

typedef struct client {
  tta_keys keys;
  uint32_t suite;
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

/* ---- the client's part: sealing inputs, opening outputs */

static void seal(const client *c, const uint8_t *nonce, const uint8_t *plain, size_t bytes, uint8_t *sealed) {
  if (c->suite == TT_SUITE_CHACHA20POLY1305) {
    struct chacha_poly1305_ctx aead;
    chacha_poly1305_set_key(&aead, c->keys.io_key);
    chacha_poly1305_set_nonce(&aead, nonce);
    chacha_poly1305_encrypt(&aead, bytes, sealed, plain);
    chacha_poly1305_digest(&aead, TT_TAG_BYTES, sealed + bytes);
  } else {
    struct gcm_aes256_ctx aead;
    gcm_aes256_set_key(&aead, c->keys.io_key);
    gcm_aes256_set_iv(&aead, 12, nonce);
    gcm_aes256_encrypt(&aead, bytes, sealed, plain);
    gcm_aes256_digest(&aead, TT_TAG_BYTES, sealed + bytes);
  }
}

static int open_sealed(const client *c, const uint8_t *nonce, const uint8_t *sealed, size_t bytes, uint8_t *plain) {
  uint8_t tag[TT_TAG_BYTES], differ = 0;
  if (c->suite == TT_SUITE_CHACHA20POLY1305) {
    struct chacha_poly1305_ctx aead;
    chacha_poly1305_set_key(&aead, c->keys.io_key);
    chacha_poly1305_set_nonce(&aead, nonce);
    chacha_poly1305_decrypt(&aead, bytes, plain, sealed);
    chacha_poly1305_digest(&aead, TT_TAG_BYTES, tag);
  } else {
    struct gcm_aes256_ctx aead;
    gcm_aes256_set_key(&aead, c->keys.io_key);
    gcm_aes256_set_iv(&aead, 12, nonce);
    gcm_aes256_decrypt(&aead, bytes, plain, sealed);
    gcm_aes256_digest(&aead, TT_TAG_BYTES, tag);
  }
  for (int i = 0; i < TT_TAG_BYTES; i++) differ |= (uint8_t)(tag[i] ^ sealed[bytes + (size_t)i]);
  return differ ? -1 : 0;
}

static int give_input(void *context, const tta_reply *want, uint8_t *sealed) {
  const client *c = context;
  if (want->index >= c->input_count || want->bytes < TT_TAG_BYTES || !want->rows) return -1;
  const size_t bytes = want->bytes - TT_TAG_BYTES, first = bytes / want->rows * want->row;
  if (first > c->inputs[want->index].bytes || bytes > c->inputs[want->index].bytes - first) return -1;
  seal(c, want->nonce, c->inputs[want->index].data + first, bytes, sealed);
  return 0;
}

static int take_output(void *context, const tta_reply *given, const uint8_t *sealed) {
  client *c = context;
  if (given->index >= MAX_TENSORS || given->bytes < TT_TAG_BYTES || !given->rows) return -1;
  file *f = &c->outputs[given->index];
  const size_t bytes = given->bytes - TT_TAG_BYTES, first = bytes / given->rows * given->row;
  if (first + bytes > f->room) {
    uint8_t *larger = realloc(f->data, 2 * (first + bytes));
    if (!larger) return -1;
    f->data = larger;
    f->room = 2 * (first + bytes);
  }
  if (first + bytes > f->bytes) f->bytes = first + bytes;
  return open_sealed(c, given->nonce, sealed, bytes, f->data + first);
}

/* ---- the command line */

static int usage(void) {
  fprintf(stderr, "usage: tinytee-feeder MODEL.tt --key-file KEY --input FILE... --output FILE... [--runs N]\n"
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

static int run(client *c, const file *bundle, unsigned long runs, char *const *output_paths) {
  TEEC_Context context;
  ttf_session session;
  const ttf_client hooks = {c, give_input, take_output};
  if (TEEC_InitializeContext(NULL, &context) != TEEC_SUCCESS) {
    fprintf(stderr, "tinytee-feeder: there is no OP-TEE: /dev/tee0 is missing, or this user may not open it\n");
    return EXIT_FAILURE;
  }
  fprintf(stderr, "tinytee-feeder: DEVELOPMENT MODE: the normal world knows the keys; nothing is protected from it\n");
  int failed = ttf_open(&session, &context, bundle->data, bundle->bytes, &c->keys);
  c->suite = (uint32_t)session.stats.suite;
  for (unsigned long i = 0; i < runs && !failed; i++) failed = ttf_run(&session, &hooks);
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
  if (count < 2 || words[1][0] == '-') return usage();
  for (int i = 2; i < count; i += 2) {
    if (i + 1 == count) return usage();
    if (strcmp(words[i], "--key-file") == 0) {
      key_path = words[i + 1];
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
  if (read_file(words[1], &bundle) || read_key(key_path, c.keys.model_key)) return EXIT_FAILURE;
  if (getrandom(c.keys.io_key, sizeof c.keys.io_key, 0) != (ssize_t)sizeof c.keys.io_key) return EXIT_FAILURE;
  return run(&c, &bundle, runs, output_paths);
}
