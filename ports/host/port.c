/* What the core asks of this port; see tinytee.h. The port's state, keys included, lies in an arena of its own. */
#define _GNU_SOURCE
#include "port.h"

#include <errno.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <time.h>

#include "aead.h"
#include "kernels/kernels.h"
#include "tinytee_program.h"
#include "wipe.h"

struct tth_port {
  tt_port hooks;
  tth_options options;
  tth_arena home;
  const char *isa;
  tthi_aead slots[TT_KEY_SLOTS];
  tthi_aead client;
  double aead_seconds;
};

double tthi_seconds(void) {
  struct timespec now = {0};
  (void)clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static int hook_set_key(void *context, tt_key_slot slot, uint32_t suite, const uint8_t *key) {
  tth_port *port = context;
  if ((unsigned)slot >= TT_KEY_SLOTS) return -1;
  return tthi_aead_set_key(&port->slots[slot], suite, key, &port->options);
}

static int hook_open(void *context, tt_key_slot slot, const uint8_t *nonce, const void *associated,
                     size_t associated_bytes, const uint8_t *ciphertext, size_t bytes, const uint8_t *tag,
                     uint8_t *plain) {
  tth_port *port = context;
  if ((unsigned)slot >= TT_KEY_SLOTS) return -1;
  double begun = tthi_seconds();
  int failed = tthi_aead_open(&port->slots[slot], nonce, associated, associated_bytes, ciphertext, bytes, tag, plain);
  port->aead_seconds += tthi_seconds() - begun;
  return failed;
}

static int hook_seal(void *context, tt_key_slot slot, const uint8_t *nonce, const void *associated,
                     size_t associated_bytes, const uint8_t *plain, size_t bytes, uint8_t *ciphertext, uint8_t *tag) {
  tth_port *port = context;
  if ((unsigned)slot >= TT_KEY_SLOTS) return -1;
  double begun = tthi_seconds();
  int failed = tthi_aead_seal(&port->slots[slot], nonce, associated, associated_bytes, plain, bytes, ciphertext, tag);
  port->aead_seconds += tthi_seconds() - begun;
  return failed;
}

static int hook_random(void *context, uint8_t *bytes, size_t count) {
  (void)context;
  while (count != 0) {
    ssize_t got = getrandom(bytes, count, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return -1;
    bytes += got;
    count -= (size_t)got;
  }
  return 0;
}

static void hook_forget(void *context) {
  tth_port *port = context;
  for (int slot = 0; slot < TT_KEY_SLOTS; slot++) tthi_aead_forget(&port->slots[slot]);
}

/* The kernels of the instruction set of that name, or the best ones; NULL if this processor or build lacks them. */
static const tti_kernels *choose_kernels(const char *wanted, const char **isa) {
  const struct {
    const char *name;
    int available;
    const tti_kernels *(*kernels)(void);
  } choices[] = {
#if defined(__x86_64__)
      {"avx512",
       __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("fma"),
       tti_kernels_avx512},
      {"avx2", __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"), tti_kernels_avx2},
#elif defined(__aarch64__)
      {"neon", 1, tti_kernels_neon},
#endif
      {"portable", 1, tti_kernels_portable},
  };
  for (size_t i = 0; i < sizeof choices / sizeof choices[0]; i++) {
    if (!choices[i].available || (wanted != NULL && strcmp(wanted, choices[i].name) != 0)) continue;
    *isa = choices[i].name;
    return choices[i].kernels();
  }
  return NULL;
}

tth_port *tth_port_open(const tth_options *options) {
  const tth_options defaults = {0};
  if (options == NULL) options = &defaults;
  const char *isa = NULL;
  const tti_kernels *kernels = choose_kernels(options->isa, &isa);
  tth_arena home;
  if (kernels == NULL || tth_arena_open(&home, sizeof(tth_port)) != 0) return NULL;
  if (options->flags & TTH_NOT_DUMPABLE) (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  tth_port *port = (tth_port *)(void *)home.memory;
  port->home = home;
  port->options = *options;
  port->options.isa = NULL;
  port->isa = isa;
  port->hooks = (tt_port){port, hook_set_key, hook_open, hook_seal, hook_random, hook_forget, kernels};
  return port;
}

const tt_port *tth_port_hooks(const tth_port *port) { return &port->hooks; }
const char *tth_port_isa(const tth_port *port) { return port->isa; }
double tthi_port_aead_seconds(const tth_port *port) { return port->aead_seconds; }

void tthi_port_forget(tth_port *port) {
  hook_forget(port);
  tthi_aead_forget(&port->client);
}

void tth_port_close(tth_port *port) {
  if (port == NULL) return;
  tthi_port_forget(port);
  tth_arena home = port->home;
  tth_arena_close(&home);
}

int tthi_port_client_key(tth_port *port, uint32_t suite, const uint8_t *key) {
  return tthi_aead_set_key(&port->client, suite, key, &port->options);
}

int tthi_port_client_seal(tth_port *port, const uint8_t *nonce, const void *plain, size_t bytes, uint8_t *sealed) {
  return tthi_aead_seal(&port->client, nonce, NULL, 0, plain, bytes, sealed, sealed + bytes);
}

int tthi_port_client_open(tth_port *port, const uint8_t *nonce, const uint8_t *sealed, size_t bytes, void *plain) {
  return tthi_aead_open(&port->client, nonce, NULL, 0, sealed, bytes, sealed + bytes, plain);
}
