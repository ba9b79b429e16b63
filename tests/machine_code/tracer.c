/* A plugin of QEMU: what a program executes and where it reads and writes, as one digest for each of its functions.
 *
 *     qemu-aarch64 -plugin tracer.so,out=FILE PROGRAM ...
 *
 * Counts, of the thread that calls these, from tracing_begins to tracing_ends. FILE gets a line for each function that
 * ran: its name, how many instructions, and a digest of all their addresses and of all addresses that they read and
 * wrote, in order. Runs with other secrets that are not told apart by these have taken the same branches and touched
 * the same places.
 *
 * QEMU's plugins: https://www.qemu.org/docs/master/devel/tcg-plugins.html. No package brings their header, so what is
 * used of it is declared here. */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_info_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum { NO_REGISTERS = 0, READS_AND_WRITES = 3 };

size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
const char *qemu_plugin_insn_symbol(const struct qemu_plugin_insn *);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, void (*)(unsigned, void *), int, void *);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *, void (*)(unsigned, uint32_t, uint64_t, void *), int,
                                      int, void *);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, void *), void *);

__attribute__((visibility("default"))) const int qemu_plugin_version = TRACER_API;

typedef struct function {
  struct function *next;
  char *name;
  uint64_t instructions, digest;
} function;

typedef struct place {
  function *in;
  uint64_t address;
} place;

static function *functions;
static long traced = -1; /* the thread */
static const char *out;

static function *function_of(const char *name) {
  for (function *f = functions; f; f = f->next)
    if (!strcmp(f->name, name)) return f;
  function *made = calloc(1, sizeof *made);
  made->name = strdup(name);
  made->next = functions;
  functions = made;
  return made;
}

static void digest(function *f, uint64_t word) {
  f->digest = (f->digest ^ word) * UINT64_C(0x9E3779B97F4A7C15);
  f->digest ^= f->digest >> 29;
}

static void executed(unsigned cpu, void *data) {
  const place *at = data;
  if (traced != (long)cpu) return;
  at->in->instructions++;
  digest(at->in, at->address);
}

static void touched(unsigned cpu, uint32_t how, uint64_t address, void *data) {
  const place *at = data;
  if (traced == (long)cpu) digest(at->in, address ^ (uint64_t)how << 56);
}

static void begins(unsigned cpu, void *data) {
  (void)data;
  traced = cpu;
}

static void ends(unsigned cpu, void *data) {
  (void)cpu, (void)data;
  traced = -1;
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *block) {
  (void)id;
  for (size_t i = 0; i < qemu_plugin_tb_n_insns(block); i++) {
    struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(block, i);
    const char *name = qemu_plugin_insn_symbol(insn);
    place *at = malloc(sizeof *at); /* as long as the block, which is as long as the run */
    *at = (place){function_of(name ? name : "?"), qemu_plugin_insn_vaddr(insn)};
    void (*call)(unsigned, void *) = executed;
    if (!strcmp(at->in->name, "tracing_begins")) call = begins;
    if (!strcmp(at->in->name, "tracing_ends")) call = ends;
    qemu_plugin_register_vcpu_insn_exec_cb(insn, call, NO_REGISTERS, at);
    qemu_plugin_register_vcpu_mem_cb(insn, touched, NO_REGISTERS, READS_AND_WRITES, at);
  }
}

static void report(qemu_plugin_id_t id, void *data) {
  (void)id, (void)data;
  FILE *file = fopen(out, "w");
  for (const function *f = functions; file && f; f = f->next)
    if (f->instructions) fprintf(file, "%s %" PRIu64 " %016" PRIx64 "\n", f->name, f->instructions, f->digest);
  if (!file || fclose(file)) abort();
}

__attribute__((visibility("default"))) int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info_t *info,
                                                               int count, char **options) {
  (void)info;
  if (count != 1 || strncmp(options[0], "out=", 4)) return 1;
  out = strdup(options[0] + 4);
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  qemu_plugin_register_atexit_cb(id, report, NULL);
  return 0;
}
