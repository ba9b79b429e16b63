/* Runs a bundle from C alone:
 *
 *     tinytee_run BUNDLE KEY_FILE INPUT.f32[,INPUT.f32...] ELEMS[,ELEMS...] OUTPUT.f32
 *
 * KEY_FILE holds 32 bytes, or 64 hexadecimal digits as 'tinytee keygen' writes them. Each INPUT.f32 holds one input's
 * float32 values in the order y, x, c; ELEMS are the outputs' elements (see 'tinytee inspect'). All outputs go to
 * OUTPUT.f32, one after the other. Exits with 1 and one line of text if anything is wrong. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tinytee.h"
#include "tinytee_host.h"

enum { MAX_PORTS = 16, KEY_BYTES = 32 };

static int complain(const char *what, const char *why) {
  (void)fprintf(stderr, "tinytee_run: %s: %s\n", what, why);
  return 1;
}

/* The file's bytes, to be freed; NULL if it cannot be read. */
static uint8_t *read_file(const char *path, size_t *bytes) {
  FILE *file = fopen(path, "rb");
  uint8_t *content = NULL;
  *bytes = 0;
  if (file == NULL) return NULL;
  long size = fseek(file, 0, SEEK_END) == 0 ? ftell(file) : -1;
  if (size >= 0 && fseek(file, 0, SEEK_SET) == 0) content = malloc((size_t)size + 1);
  if (content != NULL) *bytes = fread(content, 1, (size_t)size, file);
  if (content != NULL && *bytes != (size_t)size) {
    free(content);
    content = NULL;
  }
  (void)fclose(file);
  return content;
}

static int read_key(const char *path, uint8_t *key) {
  size_t bytes = 0;
  uint8_t *text = read_file(path, &bytes);
  int ok = 0;
  if (text != NULL && bytes == KEY_BYTES) {
    memcpy(key, text, KEY_BYTES);
    ok = 1;
  } else if (text != NULL && bytes >= 2 * KEY_BYTES && bytes <= 2 * KEY_BYTES + 2) {
    ok = 1;
    for (size_t i = 0; i < KEY_BYTES; i++) {
      char digits[3] = {(char)text[2 * i], (char)text[2 * i + 1], 0}, *end = NULL;
      key[i] = (uint8_t)strtoul(digits, &end, 16);
      if (*end != 0) ok = 0;
    }
  }
  free(text);
  return ok ? 0 : -1;
}

typedef struct ports {
  tth_input inputs[MAX_PORTS];
  tth_output outputs[MAX_PORTS];
  size_t input_count, output_count;
} ports;

/* Reads the inputs and makes room for the outputs. */
static int make_ports(ports *p, char *input_paths, char *output_elems) {
  for (char *path = strtok(input_paths, ","); path != NULL && p->input_count < MAX_PORTS; path = strtok(NULL, ",")) {
    size_t bytes = 0;
    tth_input *input = &p->inputs[p->input_count++];
    input->values = (const float *)(void *)read_file(path, &bytes);
    input->elems = bytes / sizeof(float);
    if (input->values == NULL) return complain(path, "cannot be read");
  }
  for (char *text = strtok(output_elems, ","); text != NULL && p->output_count < MAX_PORTS; text = strtok(NULL, ",")) {
    tth_output *output = &p->outputs[p->output_count++];
    output->elems = strtoul(text, NULL, 10);
    output->values = calloc(output->elems, sizeof(float));
    if (output->values == NULL) return complain(text, "no memory for so many elements");
  }
  return 0;
}

static void free_ports(ports *p) {
  for (size_t i = 0; i < p->input_count; i++) free((void *)(uintptr_t)p->inputs[i].values);
  for (size_t i = 0; i < p->output_count; i++) free(p->outputs[i].values);
}

static int write_outputs(const ports *p, const char *path) {
  FILE *file = fopen(path, "wb");
  int failed = file == NULL;
  for (size_t i = 0; i < p->output_count && !failed; i++)
    failed = fwrite(p->outputs[i].values, sizeof(float), p->outputs[i].elems, file) != p->outputs[i].elems;
  if (file != NULL && fclose(file) != 0) failed = 1;
  return failed ? complain(path, "cannot be written") : 0;
}

static int run(tth_session *session, const ports *p, const char *output_path) {
  if (tth_session_run(session, p->inputs, p->input_count, p->outputs, p->output_count) != TT_OK)
    return complain("run", tth_session_error(session));
  tth_stats stats;
  tth_session_stats(session, &stats);
  (void)printf("secure memory: %zu of %zu bytes; run: %.3f ms on %s\n", stats.peak_bytes, stats.arena_bytes,
               1e3 * stats.last_run_seconds, stats.isa);
  return write_outputs(p, output_path);
}

/* Opens a session, runs it once, closes it. */
static int open_and_run(const uint8_t *bundle, size_t bundle_bytes, const uint8_t *key, char **argv) {
  char error[256];
  tth_session *session = NULL;
  if (tth_session_open(bundle, bundle_bytes, key, NULL, &session, error, sizeof error) != TT_OK)
    return complain(argv[1], error);
  ports p = {0};
  int failed = make_ports(&p, argv[3], argv[4]);
  if (!failed) failed = run(session, &p, argv[5]);
  free_ports(&p);
  tth_session_close(session);
  return failed;
}

int main(int argc, char **argv) {
  if (argc != 6) return complain("usage", "BUNDLE KEY_FILE INPUT.f32[,...] ELEMS[,...] OUTPUT.f32");
  uint8_t key[KEY_BYTES];
  size_t bundle_bytes = 0;
  if (read_key(argv[2], key) != 0) return complain(argv[2], "no key: 32 bytes or 64 hexadecimal digits");
  uint8_t *bundle = read_file(argv[1], &bundle_bytes);
  if (bundle == NULL) return complain(argv[1], "cannot be read");
  int failed = open_and_run(bundle, bundle_bytes, key, argv);
  free(bundle);
  return failed;
}
