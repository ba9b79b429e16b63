/* What the core asks of this port; see tinytee.h. The port's state, keys included, lies in an arena of its own. */
#define _GNU_SOURCE
#include "port.h"

#include <errno.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <time.h>

#if defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#include "aead.h"
#include "kernels/kernels.h"
#include "pool.h"
#include "tinytee_program.h"
#include "wipe.h"

struct tth_port {
  tt_port hooks;
  tth_options options;
  tth_arena home;
  const char *isa;
  tthi_pool *pool;
  uint32_t threads;
  struct {
    _Alignas(64) tthi_aead slots[TT_KEY_SLOTS];
    tthi_aead client;
    double aead_seconds;
  } workers[]; /* each thread has the keys in contexts of its own */
};

double tthi_seconds(void) {
  struct timespec now = {0};
  (void)clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static int hook_set_key(void *context, tt_key_slot slot, uint32_t suite, const uint8_t *key) {
  tth_port *port = context;
  if ((unsigned)slot >= TT_KEY_SLOTS) return -1;
  for (uint32_t w = 0; w < port->threads; w++)
    if (tthi_aead_set_key(&port->workers[w].slots[slot], suite, key, &port->options) != 0) return -1;
  return 0;
}

static int hook_open(void *context, tt_key_slot slot, const uint8_t *nonce, const void *associated,
                     size_t associated_bytes, const uint8_t *ciphertext, size_t bytes, const uint8_t *tag,
                     uint8_t *plain) {
  tth_port *port = context;
  if ((unsigned)slot >= TT_KEY_SLOTS) return -1;
  const uint32_t w = tthi_pool_worker();
  double begun = tthi_seconds();
  int failed =
      tthi_aead_open(&port->workers[w].slots[slot], nonce, associated, associated_bytes, ciphertext, bytes, tag, plain);
  port->workers[w].aead_seconds += tthi_seconds() - begun;
  return failed;
}

static int hook_seal(void *context, tt_key_slot slot, const uint8_t *nonce, const void *associated,
                     size_t associated_bytes, const uint8_t *plain, size_t bytes, uint8_t *ciphertext, uint8_t *tag) {
  tth_port *port = context;
  if ((unsigned)slot >= TT_KEY_SLOTS) return -1;
  const uint32_t w = tthi_pool_worker();
  double begun = tthi_seconds();
  int failed =
      tthi_aead_seal(&port->workers[w].slots[slot], nonce, associated, associated_bytes, plain, bytes, ciphertext, tag);
  port->workers[w].aead_seconds += tthi_seconds() - begun;
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
  for (uint32_t w = 0; w < port->threads; w++)
    for (int slot = 0; slot < TT_KEY_SLOTS; slot++) tthi_aead_forget(&port->workers[w].slots[slot]);
}

static void hook_parallel(void *context, uint32_t workers,
                          void (*work)(void *argument, uint32_t begin, uint32_t end, uint32_t worker), void *argument,
                          uint32_t items) {
  tth_port *port = context;
  tthi_pool_share(port->pool, workers < port->threads ? workers : port->threads, work, argument, items);
}

/* The kernels of the instruction set of that name, or the best ones; NULL if this processor or build lacks them. */
static const tti_kernels *choose_kernels(const char *wanted, const char **isa) {
  const struct {
    const char *name;
    int available;
    const tti_kernels *(*kernels)(void);
  } choices[] = {
#if defined(__x86_64__) && TINYTEE_AVX512
      {"avx512vnni",
       __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("fma"),
       tti_kernels_avx512vnni},
      {"avx512",
       __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("fma"),
       tti_kernels_avx512},
#endif
#if defined(__x86_64__)
      {"avx2", __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"), tti_kernels_avx2},
#elif defined(__aarch64__)
      {"neondot", (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0, tti_kernels_neondot},
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
  uint32_t threads = options->threads == 0 ? 1 : options->threads;
  if (threads > TT_MAX_WORKERS) threads = TT_MAX_WORKERS;
  const size_t bytes = sizeof(tth_port) + threads * sizeof(((tth_port *)0)->workers[0]);
  if (kernels == NULL || tth_arena_open(&home, bytes) != 0) return NULL;
  if (options->flags & TTH_NOT_DUMPABLE) (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  tth_port *port = (tth_port *)(void *)home.memory;
  port->home = home;
  port->options = *options;
  port->options.isa = NULL;
  port->isa = isa;
  port->threads = threads;
  port->hooks = (tt_port){port, hook_set_key, hook_open, hook_seal, hook_random, hook_forget, NULL, kernels};
  if (threads == 1) return port;
  port->hooks.parallel = hook_parallel;
  port->pool = tthi_pool_open(threads);
  if (port->pool != NULL) return port;
  tth_port_close(port);
  return NULL;
}

const tt_port *tth_port_hooks(const tth_port *port) { return &port->hooks; }
const char *tth_port_isa(const tth_port *port) { return port->isa; }
void tthi_port_wake(const tth_port *port) {
  if (port->pool != NULL) tthi_pool_wake(port->pool);
}
double tthi_port_aead_seconds(const tth_port *port) {
  double sum = 0.0;
  for (uint32_t w = 0; w < port->threads; w++) sum += port->workers[w].aead_seconds;
  return sum / port->threads;
}

void tthi_port_forget(tth_port *port) {
  hook_forget(port);
  for (uint32_t w = 0; w < port->threads; w++) tthi_aead_forget(&port->workers[w].client);
}

void tth_port_close(tth_port *port) {
  if (port == NULL) return;
  tthi_pool_close(port->pool);
  tthi_port_forget(port);
  tth_arena home = port->home;
  tth_arena_close(&home);
}

int tthi_port_client_key(tth_port *port, uint32_t suite, const uint8_t *key) {
  for (uint32_t w = 0; w < port->threads; w++)
    if (tthi_aead_set_key(&port->workers[w].client, suite, key, &port->options) != 0) return -1;
  return 0;
}

int tthi_port_client_seal(tth_port *port, const uint8_t *nonce, const void *plain, size_t bytes, uint8_t *sealed) {
  tthi_aead *client = &port->workers[tthi_pool_worker()].client;
  return tthi_aead_seal(client, nonce, NULL, 0, plain, bytes, sealed, sealed + bytes);
}

int tthi_port_client_open(tth_port *port, const uint8_t *nonce, const uint8_t *sealed, size_t bytes, void *plain) {
  tthi_aead *client = &port->workers[tthi_pool_worker()].client;
  return tthi_aead_open(client, nonce, NULL, 0, sealed, bytes, sealed + bytes, plain);
}
