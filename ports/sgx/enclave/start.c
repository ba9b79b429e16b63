/* The enclave's one call: from the host's memory to the trusted application's entry points and back. Pointers from
 * outside are checked to lie outside, and what they lead to is read once or copied, as ta.c does with shared memory, by
 * memory.c. The processor lets one thread in at a time. */
#include <elf.h>
#include <string.h>

#include "enclave.h"

enum { WORD_BYTES = 8 };
static const uint64_t USER_SPACE_BYTES = 1ull << 47;

__attribute__((section(".tinytee"))) volatile tte_layout tte_here;

extern const char __ehdr_start[] __attribute__((visibility("hidden")));

extern const Elf64_Dyn _DYNAMIC[] __attribute__((visibility("hidden")));

static int is_started;
static void *session;

void tte_enter(tte_call *outside);

/* Addresses in constants are offsets until here: R_X86_64_RELATIVE is the only relocation that the image has. */
static void relocate(void) {
  const uint64_t base = (uint64_t)(uintptr_t)__ehdr_start;
  uint64_t at = 0, bytes = 0;
  for (const Elf64_Dyn *entry = _DYNAMIC; entry->d_tag != DT_NULL; entry++) {
    if (entry->d_tag == DT_RELA) at = entry->d_un.d_val;
    if (entry->d_tag == DT_RELASZ) bytes = entry->d_un.d_val;
  }
  const Elf64_Rela *first = (const void *)(uintptr_t)(base + at);
  for (const Elf64_Rela *r = first; r < first + bytes / sizeof *r; r++)
    *(uint64_t *)(uintptr_t)(base + r->r_offset) = base + (uint64_t)r->r_addend;
}

/* What the stack's guard is compared with; functions that are on the stack now have none. */
__attribute__((no_stack_protector)) static void choose_guard(void) {
  uint64_t guard;
  TEE_GenerateRandom(&guard, sizeof guard);
  __asm__ volatile("movq %0, %%fs:0x28" : : "r"(guard) : "memory");
}

int tte_is_outside(uint64_t address, uint64_t bytes) {
  const uint64_t base = (uint64_t)(uintptr_t)__ehdr_start, end = address + bytes;
  if (end < address || end > USER_SPACE_BYTES) return 0;
  return end <= base || address >= base + tte_here.enclave_bytes;
}

static int is_memref(uint32_t type) {
  return type >= TEE_PARAM_TYPE_MEMREF_INPUT && type <= TEE_PARAM_TYPE_MEMREF_INOUT;
}

static TEE_Result take_slots(const tte_call *call, TEE_Param slots[4]) {
  memset(slots, 0, 4 * sizeof *slots);
  for (int i = 0; i < 4; i++) {
    const tte_slot *given = &call->slots[i];
    if (!is_memref(TEE_PARAM_TYPE_GET(call->types, i))) {
      slots[i].value.a = (uint32_t)given->a;
      slots[i].value.b = (uint32_t)given->b;
    } else if (tte_is_outside(given->a, given->b)) {
      slots[i].memref.buffer = (void *)(uintptr_t)given->a;
      slots[i].memref.size = given->b;
    } else {
      return TEE_ERROR_BAD_PARAMETERS;
    }
  }
  TTA_BARRIER();
  return TEE_SUCCESS;
}

/* Whole words: what is shorter could take something from the processor's buffers along (INTEL-SA-00615). */
static void give_word(void *outside, uint64_t word) { *(volatile uint64_t *)outside = word; }

static void give_slots(tte_call *outside, uint32_t types, const TEE_Param slots[4]) {
  for (int i = 0; i < 4; i++) {
    const uint32_t type = TEE_PARAM_TYPE_GET(types, i);
    tte_slot *to = &outside->slots[i];
    if (type == TEE_PARAM_TYPE_VALUE_OUTPUT || type == TEE_PARAM_TYPE_VALUE_INOUT) {
      give_word(&to->a, slots[i].value.a);
      give_word(&to->b, slots[i].value.b);
    } else if (type == TEE_PARAM_TYPE_MEMREF_OUTPUT || type == TEE_PARAM_TYPE_MEMREF_INOUT) {
      give_word(&to->b, slots[i].memref.size);
    }
  }
}

static TEE_Result report(const tte_call *call, TEE_Param slots[4]) {
  uint8_t targetinfo[TTE_TARGETINFO_BYTES], made[TTE_REPORT_BYTES];
  if (call->types != TEE_PARAM_TYPES(TEE_PARAM_TYPE_MEMREF_INPUT, TEE_PARAM_TYPE_MEMREF_OUTPUT, TEE_PARAM_TYPE_NONE,
                                     TEE_PARAM_TYPE_NONE) ||
      !slots[0].memref.buffer || slots[0].memref.size != sizeof targetinfo || !slots[1].memref.buffer ||
      slots[1].memref.size < sizeof made)
    return TEE_ERROR_BAD_PARAMETERS;
  memcpy(targetinfo, slots[0].memref.buffer, sizeof targetinfo);
  const TEE_Result result = tte_report_identity(targetinfo, made);
  if (result != TEE_SUCCESS) return result;
  memcpy(slots[1].memref.buffer, made, sizeof made);
  slots[1].memref.size = sizeof made;
  return TEE_SUCCESS;
}

static TEE_Result serve(const tte_call *call, TEE_Param slots[4]) {
  switch (call->operation) {
    case TTE_OPEN_SESSION:
      return session ? TEE_ERROR_BAD_STATE : TA_OpenSessionEntryPoint(call->types, slots, &session);
    case TTE_CLOSE_SESSION:
      if (session) TA_CloseSessionEntryPoint(session);
      session = NULL;
      return TEE_SUCCESS;
    case TTE_INVOKE:
      if (!session) return TEE_ERROR_BAD_STATE;
      if (call->command == TTE_REPORT) return report(call, slots);
      return TA_InvokeCommandEntryPoint(session, call->command, call->types, slots);
    default:
      return TEE_ERROR_NOT_SUPPORTED;
  }
}

__attribute__((noinline)) static void enter(tte_call *outside) {
  const uint64_t address = (uint64_t)(uintptr_t)outside;
  tte_call call;
  TEE_Param slots[4];
  if (address % WORD_BYTES || !tte_is_outside(address, sizeof call)) return;
  TTA_BARRIER();
  memcpy(&call, outside, sizeof call);
  TEE_Result result = take_slots(&call, slots);
  if (result == TEE_SUCCESS) result = serve(&call, slots);
  give_slots(outside, call.types, slots);
  give_word(&outside->types, call.types | (uint64_t)result << 32);
}

__attribute__((no_stack_protector)) void tte_enter(tte_call *outside) {
  if (!is_started) {
    relocate();
    choose_guard();
    is_started = 1;
  }
  enter(outside);
}
