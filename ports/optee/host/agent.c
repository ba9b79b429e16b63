/* See the header, and tinytee_wire.h for the requests. */
#define _POSIX_C_SOURCE 200809L
#include "agent.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "feeder.h"

typedef struct slot {
  uint8_t *bundle;
  size_t bundle_bytes;
  ttf_session session;
} slot;

typedef struct agent {
  int in, out;
  int is_connected;
  TEEC_Context context;
  slot slots[TTF_SESSIONS];
} agent;

/* ---- the stream */

static int read_all(const agent *a, void *data, size_t bytes) {
  uint8_t *to = data;
  while (bytes) {
    const ssize_t got = read(a->in, to, bytes);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return -1;
    to += got;
    bytes -= (size_t)got;
  }
  return 0;
}

static int write_all(const agent *a, const void *data, size_t bytes) {
  const uint8_t *from = data;
  while (bytes) {
    const ssize_t put = write(a->out, from, bytes);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return -1;
    from += put;
    bytes -= (size_t)put;
  }
  return 0;
}

static int answer(const agent *a, uint32_t kind, uint32_t value, const void *data, size_t bytes) {
  const ttf_message message = {kind, 0, value, (uint32_t)bytes};
  return write_all(a, &message, sizeof message) || write_all(a, data, bytes) ? -1 : 0;
}

static int refuse(const agent *a, int kind, const char *text) {
  return answer(a, TTF_ERROR, (uint32_t)kind, text, strlen(text));
}

static int skip(const agent *a, size_t bytes) {
  uint8_t rest[512];
  for (; bytes; bytes -= bytes < sizeof rest ? bytes : sizeof rest)
    if (read_all(a, rest, bytes < sizeof rest ? bytes : sizeof rest)) return -1;
  return 0;
}

/* ---- requests */

static int put(agent *a, slot *s, const ttf_message *message) {
  free(s->bundle);
  s->bundle = malloc(message->bytes ? message->bytes : 1);
  s->bundle_bytes = s->bundle ? message->bytes : 0;
  if (!s->bundle) return skip(a, message->bytes) ? -1 : refuse(a, TTF_FAILED_CALLER, "no memory for the bundle");
  if (read_all(a, s->bundle, message->bytes)) return -1;
  return answer(a, TTF_DONE, 0, NULL, 0);
}

static int finish(const agent *a, const ttf_session *session, int failed) {
  if (failed) return refuse(a, failed, session->error);
  return answer(a, TTF_DONE, 0, &session->stats, sizeof session->stats);
}

static int connect_tee(agent *a) {
  if (a->is_connected) return 0;
  if (TEEC_InitializeContext(NULL, &a->context) != TEEC_SUCCESS)
    return refuse(a, TTF_FAILED_DEVICE, ttf_absence()) ? -1 : 1;
  a->is_connected = 1;
  return 0;
}

static int open_device(agent *a, slot *s) {
  ttf_device device = {0};
  const int refused = connect_tee(a);
  if (refused) return refused < 0 ? -1 : 0;
  ttf_close(&s->session);
  if (ttf_connect(&s->session, &a->context) || ttf_identify(&s->session, &device.identity))
    return refuse(a, s->session.failed, s->session.error);
  device.heap_bytes = (uint32_t)s->session.stats.heap_bytes;
  device.flags = s->session.flags;
  return answer(a, TTF_DONE, 0, &device, sizeof device);
}

static int open_bundle(agent *a, slot *s, const ttf_message *message) {
  uint8_t keys[sizeof(tta_opening)];
  if (message->bytes > sizeof keys || read_all(a, keys, message->bytes)) return -1;
  if (!s->session.is_open) return refuse(a, TTF_FAILED_CALLER, "the session is not open");
  const int failed = ttf_load(&s->session, s->bundle, s->bundle_bytes) || ttf_open(&s->session, keys, message->bytes);
  memset(keys, 0, sizeof keys);
  return finish(a, &s->session, failed ? s->session.failed : 0);
}

static int give_input(void *context, const tta_want *want, uint8_t *sealed) {
  const agent *a = context;
  ttf_message message;
  if (answer(a, TTF_INPUT_WANTED, 0, want, sizeof *want) || read_all(a, &message, sizeof message)) return -1;
  if (message.kind != TTF_INPUT || message.bytes != want->bytes) return skip(a, message.bytes) ? -1 : 1;
  return read_all(a, sealed, want->bytes);
}

static int take_output(void *context, const tta_want *given, const uint8_t *sealed) {
  const agent *a = context;
  const ttf_message message = {TTF_OUTPUT, 0, 0, (uint32_t)sizeof *given + given->bytes};
  return write_all(a, &message, sizeof message) || write_all(a, given, sizeof *given) ||
                 write_all(a, sealed, given->bytes)
             ? -1
             : 0;
}

static int run(agent *a, slot *s) {
  const ttf_client client = {a, give_input, take_output};
  if (!s->session.is_open) return refuse(a, TTF_FAILED_CALLER, "the session is not open");
  return finish(a, &s->session, ttf_run(&s->session, &client));
}

static void forget(slot *s) {
  ttf_close(&s->session);
  free(s->bundle);
  s->bundle = NULL;
  s->bundle_bytes = 0;
}

static int is_memref(uint32_t type) { return type >= TEEC_MEMREF_TEMP_INPUT && type <= TEEC_MEMREF_TEMP_INOUT; }

/* What was written to slot i, if it is to be shown. */
static size_t written_bytes(const ttf_invocation *call, const ttf_result *made, void *const memory[4], int i) {
  const uint32_t type = TEEC_PARAM_TYPE_GET(call->types, i);
  if (!memory[i] || !is_memref(type) || type == TEEC_MEMREF_TEMP_INPUT) return 0;
  return made->slots[i][0] <= call->slots[i][0] ? made->slots[i][0] : 0;
}

static int answer_invocation(const agent *a, const ttf_invocation *call, const ttf_result *made,
                             void *const memory[4]) {
  ttf_message message = {TTF_DONE, 0, 0, (uint32_t)sizeof *made};
  for (int i = 0; i < 4; i++) message.bytes += (uint32_t)written_bytes(call, made, memory, i);
  if (write_all(a, &message, sizeof message) || write_all(a, made, sizeof *made)) return -1;
  for (int i = 0; i < 4; i++) {
    const size_t bytes = written_bytes(call, made, memory, i);
    if (bytes && write_all(a, memory[i], bytes)) return -1;
  }
  return 0;
}

static int invoke(agent *a, slot *s, const ttf_message *message) {
  ttf_invocation call;
  ttf_result made = {0};
  TEEC_Operation operation = {0};
  void *memory[4] = {NULL, NULL, NULL, NULL};
  size_t left = message->bytes;
  int broken = left < sizeof call || read_all(a, &call, sizeof call);
  left -= broken ? 0 : sizeof call;
  operation.paramTypes = broken ? 0 : call.types;
  for (int i = 0; i < 4 && !broken; i++) {
    const uint32_t type = TEEC_PARAM_TYPE_GET(call.types, i), size = call.slots[i][0];
    if (!is_memref(type)) {
      operation.params[i].value.a = size;
      operation.params[i].value.b = call.slots[i][1];
      continue;
    }
    operation.params[i].tmpref.size = size;
    if (!call.slots[i][1]) continue;
    operation.params[i].tmpref.buffer = memory[i] = calloc(1, size ? size : 1);
    if (!memory[i]) broken = 1;
    if (broken || type == TEEC_MEMREF_TEMP_OUTPUT) continue;
    broken = size > left || read_all(a, memory[i], size);
    left -= broken ? 0 : size;
  }
  if (!broken && !skip(a, left)) {
    made.result = TEEC_InvokeCommand(&s->session.session, call.command, &operation, &made.origin);
    for (int i = 0; i < 4; i++) {
      const int memref = is_memref(TEEC_PARAM_TYPE_GET(call.types, i));
      made.slots[i][0] = memref ? (uint32_t)operation.params[i].tmpref.size : operation.params[i].value.a;
      made.slots[i][1] = memref ? 0 : operation.params[i].value.b;
    }
  }
  broken = broken || answer_invocation(a, &call, &made, memory) ? -1 : 0;
  for (int i = 0; i < 4; i++) free(memory[i]);
  return broken;
}

static int serve_one(agent *a, const ttf_message *message) {
  slot *s = &a->slots[message->session];
  switch (message->kind) {
    case TTF_PUT:
      return put(a, s, message);
    case TTF_DEVICE:
      return open_device(a, s);
    case TTF_OPEN:
      return open_bundle(a, s, message);
    case TTF_RUN:
      return run(a, s);
    case TTF_CLOSE:
      forget(s);
      return answer(a, TTF_DONE, 0, NULL, 0);
    case TTF_INVOKE:
      if (s->session.is_open) return invoke(a, s, message);
      return skip(a, message->bytes) ? -1 : refuse(a, TTF_FAILED_CALLER, "the session is not open");
    default:
      return skip(a, message->bytes) ? -1 : refuse(a, TTF_FAILED_CALLER, "no such request");
  }
}

int ttf_serve(int in, int out) {
  agent a = {.in = in, .out = out};
  ttf_message message;
  int ended = 1;
  while (!read_all(&a, &message, sizeof message)) {
    if (message.kind == TTF_OFF) {
      ended = 0;
      break;
    }
    if (message.session >= TTF_SESSIONS || serve_one(&a, &message)) break;
  }
  for (int i = 0; i < TTF_SESSIONS; i++) forget(&a.slots[i]);
  if (a.is_connected) TEEC_FinalizeContext(&a.context);
  return ended;
}
