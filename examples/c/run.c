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

static int run(tth_session *session, char *input_paths, char *output_elems, const char *output_path) {
  tth_input inputs[MAX_PORTS];
  tth_output outputs[MAX_PORTS];
  size_t input_count = 0, output_count = 0;
  for (char *path = strtok(input_paths, ","); path != NULL && input_count < MAX_PORTS; path = strtok(NULL, ",")) {
    size_t bytes = 0;
    inputs[input_count].values = (const float *)(void *)read_file(path, &bytes);
    inputs[input_count].elems = bytes / sizeof(float);
    if (inputs[input_count++].values == NULL) return complain(path, "cannot be read");
  }
  for (char *text = strtok(output_elems, ","); text != NULL && output_count < MAX_PORTS; text = strtok(NULL, ",")) {
    outputs[output_count].elems = strtoul(text, NULL, 10);
    outputs[output_count].values = calloc(outputs[output_count].elems, sizeof(float));
    if (outputs[output_count++].values == NULL) return complain(text, "no memory for so many elements");
  }
  if (tth_session_run(session, inputs, input_count, outputs, output_count) != TT_OK)
    return complain("run", tth_session_error(session));

  FILE *file = fopen(output_path, "wb");
  if (file == NULL) return complain(output_path, "cannot be written");
  int failed = 0;
  for (size_t i = 0; i < output_count; i++)
    failed |= fwrite(outputs[i].values, sizeof(float), outputs[i].elems, file) != outputs[i].elems;
  failed |= fclose(file) != 0;
  for (size_t i = 0; i < output_count; i++) free(outputs[i].values);
  for (size_t i = 0; i < input_count; i++) free((void *)(uintptr_t)inputs[i].values);
  return failed ? complain(output_path, "cannot be written") : 0;
}

int main(int argc, char **argv) {
  if (argc != 6) return complain("usage", "BUNDLE KEY_FILE INPUT.f32[,...] ELEMS[,...] OUTPUT.f32");
  uint8_t key[KEY_BYTES];
  size_t bundle_bytes = 0;
  if (read_key(argv[2], key) != 0) return complain(argv[2], "no key: 32 bytes or 64 hexadecimal digits");
  uint8_t *bundle = read_file(argv[1], &bundle_bytes);
  if (bundle == NULL) return complain(argv[1], "cannot be read");

  char error[256];
  tth_session *session = NULL;
  if (tth_session_open(bundle, bundle_bytes, key, NULL, &session, error, sizeof error) != TT_OK)
    return complain(argv[1], error);
  int failed = run(session, argv[3], argv[4], argv[5]);
  if (!failed) {
    tth_stats stats;
    tth_session_stats(session, &stats);
    (void)printf("secure memory: %zu of %zu bytes; run: %.3f ms on %s\n", stats.peak_bytes, stats.arena_bytes,
                 1e3 * stats.last_run_seconds, stats.isa);
  }
  tth_session_close(session);
  free(bundle);
  return failed;
}
