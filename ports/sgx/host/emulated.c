/* SGX emulated, for machines without it: the enclave's very bytes run in this process, and ENCLU, which such a
 * processor does not know or refuses, is carried out by a handler of signals. Measurement and launch are checked as
 * EINIT checks them, so that what an image says of itself is held against the manual, but for what only the processor
 * itself could find wrong. Nothing is kept from this process: for trying and testing alone.
 *
 * The device's secret, from which EGETKEY's keys follow, lies in a file (TINYTEE_SGX_DEVICE).
 */
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/bn.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "enclave.h"
#include "sgx_keys.h"

enum { TCS_BYTES = 72 };
enum { EREPORT = 0, EGETKEY = 1, EEXIT = 4, ENCLU_BYTES = 3, CHUNK_BYTES = 256, BLOCK_BYTES = 64 };
enum { INVALID_KEYNAME = 256, INVALID_CPUSVN = 32, INVALID_ISVSVN = 64 };
enum { VECTOR_UD = 6, VECTOR_GP = 13, VECTOR_PF = 14 };
enum { SIGNAL_STACK_BYTES = 65536, RSA_BYTES = 384, SECRET_BYTES = 32, PATH_BYTES = 4096 };

typedef struct tcs {
  uint64_t state, flags, ossa;
  uint32_t cssa, nssa;
  uint64_t oentry, aep, ofsbase, ogsbase;
  uint32_t fs_limit, gs_limit;
} tcs;

typedef struct emulation {
  EVP_MD_CTX *measurement;
  tcs thread;
  uint64_t thread_at; /* address of the page that holds it */
  uint8_t secret[SECRET_BYTES];
} emulation;

/* ---- ECREATE, EADD, EEXTEND */

static int measure(emulation *e, const char name[8], uint64_t offset, const void *rest, size_t rest_bytes) {
  uint8_t block[BLOCK_BYTES] = {0};
  memcpy(block, name, 8);
  memcpy(block + 8, &offset, sizeof offset);
  if (rest_bytes) memcpy(block + 16, rest, rest_bytes);
  return EVP_DigestUpdate(e->measurement, block, sizeof block) == 1 ? 0 : -1;
}

/* Made aside and then named, so that of two that make one at the same time both take the first. */
static void make_secret(const char *path) {
  char aside[PATH_BYTES + 16];
  uint8_t secret[SECRET_BYTES];
  (void)snprintf(aside, sizeof aside, "%s.%ld", path, (long)getpid());
  const int file = open(aside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (file < 0) return;
  if (getrandom(secret, sizeof secret, 0) == sizeof secret && write(file, secret, sizeof secret) == sizeof secret)
    (void)!link(aside, path);
  (void)close(file);
  (void)unlink(aside);
}

static int read_secret(uint8_t secret[SECRET_BYTES], char *why) {
  char path[PATH_BYTES];
  const char *given = getenv("TINYTEE_SGX_DEVICE"), *home = getenv("HOME");
  if (given && *given)
    (void)snprintf(path, sizeof path, "%s", given);
  else
    (void)snprintf(path, sizeof path, "%s/.tinytee-sgx-device", home ? home : "");
  if (access(path, F_OK)) make_secret(path);
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  const int good = file >= 0 && read(file, secret, SECRET_BYTES) == SECRET_BYTES;
  if (file >= 0) (void)close(file);
  return good ? 0
              : ttx_fail(why, "the emulated processor's secret, %s: %s; TINYTEE_SGX_DEVICE names another file", path,
                         file < 0 ? strerror(errno) : "too short");
}

/* x87 and SSE always; AVX; the three of AVX-512 together, with AVX. */
static int is_legal(uint64_t xfrm) {
  const uint64_t avx512 = xfrm & 0xe0;
  return (xfrm & 3) == 3 && (xfrm & ~0xe7ull) == 0 && (avx512 == 0 || (avx512 == 0xe0 && (xfrm & 4)));
}

static int create(ttx_enclave *enclave, char *why) {
  emulation *e = enclave->own = calloc(1, sizeof *e);
  uint8_t block[BLOCK_BYTES] = "ECREATE";
  if (!e || !(e->measurement = EVP_MD_CTX_new()) || EVP_DigestInit_ex(e->measurement, EVP_sha256(), NULL) != 1)
    return ttx_fail(why, "no memory");
  if (enclave->secs->attributes & ~(uint64_t)(TTX_DEBUG | TTX_MODE64BIT) || !is_legal(enclave->secs->xfrm) ||
      enclave->secs->base % enclave->secs->size != 0)
    return ttx_fail(why, "SGX refuses an enclave of %llu bytes, attributes %#llx and XFRM %#llx",
                    (unsigned long long)enclave->secs->size, (unsigned long long)enclave->secs->attributes,
                    (unsigned long long)enclave->secs->xfrm);
  memcpy(block + 8, &enclave->secs->ssa_frame_pages, 4);
  memcpy(block + 12, &enclave->secs->size, 8);
  if (EVP_DigestUpdate(e->measurement, block, sizeof block) != 1) return ttx_fail(why, "no memory");
  return read_secret(e->secret, why);
}

static int add_page(ttx_enclave *enclave, uint64_t offset, uint64_t flags, const uint8_t *page) {
  emulation *e = enclave->own;
  int failed = measure(e, "EADD\0\0\0", offset, &flags, sizeof flags);
  for (size_t at = 0; at < TTE_PAGE_BYTES; at += CHUNK_BYTES) {
    failed |= measure(e, "EEXTEND", offset + at, NULL, 0);
    failed |= EVP_DigestUpdate(e->measurement, page + at, CHUNK_BYTES) != 1;
  }
  return failed;
}

/* A TCS says nothing of permissions, lies in whole pages, and is zeroes where it is reserved; what can be written can
 * be read. */
static int check_run(const tte_run *run, const uint8_t *contents) {
  const uint64_t flags = run->secinfo_flags, permissions = flags & (TTX_READ | TTX_WRITE | TTX_EXECUTE);
  tcs thread;
  if (flags == (TTX_REGULAR | permissions)) return permissions & TTX_WRITE && !(permissions & TTX_READ) ? -1 : 0;
  if (flags != TTX_TCS || run->bytes != TTE_PAGE_BYTES) return -1;
  memcpy(&thread, contents, sizeof thread);
  for (size_t i = TCS_BYTES; i < TTE_PAGE_BYTES; i++)
    if (contents[i]) return -1;
  return thread.state || thread.flags || thread.cssa || !thread.nssa || thread.aep || thread.ossa % TTE_PAGE_BYTES ||
                 thread.ofsbase % TTE_PAGE_BYTES || thread.ogsbase % TTE_PAGE_BYTES
             ? -1
             : 0;
}

static int add(ttx_enclave *enclave, const tte_run *run, const uint8_t *contents, char *why) {
  emulation *e = enclave->own;
  uint8_t *at = (uint8_t *)(uintptr_t)(enclave->secs->base + run->offset);
  const uint64_t flags = run->secinfo_flags;
  if (check_run(run, contents)) return ttx_fail(why, "SGX refuses pages at %#llx", (unsigned long long)run->offset);
  if (mmap(at, run->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != at)
    return ttx_fail(why, "no memory for %llu bytes", (unsigned long long)run->bytes);
  memcpy(at, contents, run->bytes);
  if (flags & TTX_TCS) {
    memcpy(&e->thread, contents, sizeof e->thread);
    e->thread_at = (uint64_t)(uintptr_t)at;
  }
  if (mprotect(at, run->bytes, ttx_protection(run)))
    return ttx_fail(why, "pages cannot be protected: %s", strerror(errno));
  for (uint64_t done = 0; done < run->bytes; done += TTE_PAGE_BYTES)
    if (add_page(enclave, run->offset + done, flags, contents + done)) return ttx_fail(why, "no memory");
  return 0;
}

/* ---- EINIT */

static BIGNUM *number(const uint8_t *little_endian) { return BN_lebin2bn(little_endian, RSA_BYTES, NULL); }

/* RSASSA-PKCS1-v1_5 of SHA-256, exponent 3, and the two quotients that spare the processor divisions. */
static int check_signature(const ttx_sigstruct *sigstruct) {
  static const uint8_t algorithm[] = {0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01,
                                      0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20};
  uint8_t signed_bytes[256], padded[RSA_BYTES], hash[32];
  memcpy(signed_bytes, sigstruct, 128);
  memcpy(signed_bytes + 128, &sigstruct->misc_select, 128);
  memset(padded, 0xff, sizeof padded);
  padded[0] = 0;
  padded[1] = 1;
  padded[RSA_BYTES - sizeof hash - sizeof algorithm - 1] = 0;
  memcpy(padded + RSA_BYTES - sizeof hash - sizeof algorithm, algorithm, sizeof algorithm);
  BN_CTX *context = BN_CTX_new();
  BIGNUM *m = number(sigstruct->modulus), *s = number(sigstruct->signature), *q1 = number(sigstruct->q1),
         *q2 = number(sigstruct->q2), *quotient = BN_new(), *square = BN_new(), *cube = BN_new(), *rest = BN_new(),
         *expected = NULL;
  int good = context && m && s && q1 && q2 && quotient && square && cube && rest &&
             EVP_Digest(signed_bytes, sizeof signed_bytes, hash, NULL, EVP_sha256(), NULL) == 1;
  if (good) {
    memcpy(padded + RSA_BYTES - sizeof hash, hash, sizeof hash);
    expected = BN_bin2bn(padded, sizeof padded, NULL);
    good = expected && BN_sqr(square, s, context) && BN_div(quotient, rest, square, m, context) &&
           BN_cmp(quotient, q1) == 0 && BN_mul(cube, rest, s, context) && BN_div(quotient, rest, cube, m, context) &&
           BN_cmp(quotient, q2) == 0 && BN_cmp(rest, expected) == 0;
  }
  BIGNUM *all[] = {m, s, q1, q2, quotient, square, cube, rest, expected};
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) BN_free(all[i]);
  BN_CTX_free(context);
  return good ? 0 : -1;
}

static int check_launch(ttx_enclave *enclave, const ttx_sigstruct *sigstruct, char *why) {
  static const uint8_t header[16] = {6, 0, 0, 0, 0xe1, 0, 0, 0, 0, 0, 1},
                       header2[16] = {1, 1, 0, 0, 0x60, 0, 0, 0, 0x60, 0, 0, 0, 1};
  ttx_secs *secs = enclave->secs;
  if (memcmp(sigstruct->header, header, sizeof header) != 0 ||
      memcmp(sigstruct->header2, header2, sizeof header2) != 0 || sigstruct->exponent != 3 ||
      check_signature(sigstruct))
    return ttx_fail(why, "the enclave's signature is none: build it again");
  if (memcmp(sigstruct->enclave_hash, secs->enclave_hash, sizeof secs->enclave_hash) != 0)
    return ttx_fail(why, "the enclave is not what was signed: build it again");
  const uint64_t mask = sigstruct->attribute_mask[0], xfrm_mask = sigstruct->attribute_mask[1];
  if (((sigstruct->attributes[0] ^ secs->attributes) & mask) != 0 ||
      ((sigstruct->attributes[1] ^ secs->xfrm) & xfrm_mask) != 0)
    return ttx_fail(why, "the enclave's attributes are not those that were signed: build it again");
  return 0;
}

static int init(ttx_enclave *enclave, const ttx_sigstruct *sigstruct, char *why) {
  emulation *e = enclave->own;
  ttx_secs *secs = enclave->secs;
  if (EVP_DigestFinal_ex(e->measurement, secs->enclave_hash, NULL) != 1 ||
      EVP_Digest(sigstruct->modulus, RSA_BYTES, secs->signer_hash, NULL, EVP_sha256(), NULL) != 1)
    return ttx_fail(why, "no memory");
  if (check_launch(enclave, sigstruct, why)) return -1;
  if (e->thread_at != enclave->tcs)
    return ttx_fail(why, "the enclave has no TCS where it is to be entered: build it again");
  secs->attributes |= TTX_INIT;
  secs->product = sigstruct->product;
  secs->svn = sigstruct->svn;
  return 0;
}

/* ---- EREPORT, EGETKEY: records of the manual */

typedef struct target_info {
  uint8_t measurement[32];
  uint64_t attributes[2];
  uint8_t rest[512 - 48];
} target_info;

typedef struct report {
  uint8_t cpu_svn[16];
  uint32_t misc_select;
  uint8_t reserved0[28];
  uint64_t attributes[2];
  uint8_t enclave_hash[32], reserved1[32], signer_hash[32], reserved2[32], config_id[64];
  uint16_t product, svn, config_svn;
  uint8_t reserved3[58];
  uint8_t data[TTE_REPORTDATA_BYTES], key_id[32], mac[16];
} report;

_Static_assert(sizeof(target_info) == 512 && sizeof(report) == TTE_REPORT_BYTES, "as the manual has them");

static const uint8_t cpu_svn[16] = {1};

/* What a key of an enclave follows from. */
typedef struct derivation {
  uint16_t name, policy, isv_svn, product;
  uint8_t cpu_svn[16], enclave_hash[32], signer_hash[32], key_id[32];
  uint64_t attributes[2];
} derivation;

static void derive(const emulation *e, const derivation *from, uint8_t key[SGX_KEY_BYTES]) {
  uint8_t whole[32];
  (void)HMAC(EVP_sha256(), e->secret, sizeof e->secret, (const void *)from, sizeof *from, whole, NULL);
  memcpy(key, whole, SGX_KEY_BYTES);
}

static void make_report(const ttx_enclave *enclave, const target_info *target, const uint8_t *data, report *made) {
  const ttx_secs *secs = enclave->secs;
  derivation from = {.name = SGX_REPORT_KEY, .attributes = {target->attributes[0], target->attributes[1]}};
  uint8_t key[SGX_KEY_BYTES];
  size_t mac_bytes = 0;
  memset(made, 0, sizeof *made);
  memcpy(made->cpu_svn, cpu_svn, sizeof cpu_svn);
  made->attributes[0] = secs->attributes;
  made->attributes[1] = secs->xfrm;
  memcpy(made->enclave_hash, secs->enclave_hash, 32);
  memcpy(made->signer_hash, secs->signer_hash, 32);
  made->product = secs->product;
  made->svn = secs->svn;
  memcpy(made->data, data, sizeof made->data);
  memcpy(from.enclave_hash, target->measurement, 32);
  derive(enclave->own, &from, key);
  EVP_MAC *cmac = EVP_MAC_fetch(NULL, "CMAC", NULL);
  EVP_MAC_CTX *context = EVP_MAC_CTX_new(cmac);
  char cipher[] = "AES-128-CBC";
  const OSSL_PARAM parameters[] = {OSSL_PARAM_construct_utf8_string("cipher", cipher, 0), OSSL_PARAM_construct_end()};
  if (!context || EVP_MAC_init(context, key, sizeof key, parameters) != 1 ||
      EVP_MAC_update(context, (const uint8_t *)made, offsetof(report, key_id)) != 1 ||
      EVP_MAC_final(context, made->mac, &mac_bytes, sizeof made->mac) != 1)
    memset(made, 0, sizeof *made);
  EVP_MAC_CTX_free(context);
  EVP_MAC_free(cmac);
}

static uint64_t get_key(const ttx_enclave *enclave, const sgx_key_request *request, uint8_t key[SGX_KEY_BYTES]) {
  const ttx_secs *secs = enclave->secs;
  if (request->name != SGX_SEAL_KEY) return INVALID_KEYNAME;
  if (memcmp(request->cpu_svn, cpu_svn, sizeof cpu_svn) > 0) return INVALID_CPUSVN;
  if (request->isv_svn > secs->svn) return INVALID_ISVSVN;
  derivation from = {
      .name = request->name, .policy = request->policy, .isv_svn = request->isv_svn, .product = secs->product};
  memcpy(from.cpu_svn, request->cpu_svn, sizeof from.cpu_svn);
  if (request->policy & SGX_POLICY_MRENCLAVE) memcpy(from.enclave_hash, secs->enclave_hash, 32);
  if (request->policy & SGX_POLICY_MRSIGNER) memcpy(from.signer_hash, secs->signer_hash, 32);
  memcpy(from.key_id, request->key_id, sizeof from.key_id);
  /* INIT and DEBUG count whatever the mask says. */
  from.attributes[0] = secs->attributes & (request->attribute_mask[0] | TTX_INIT | TTX_DEBUG);
  from.attributes[1] = secs->xfrm & request->attribute_mask[1];
  derive(enclave->own, &from, key);
  return 0;
}

/* ---- EENTER, EEXIT, and signals
 *
 * While the enclave runs, FS is the enclave's: the C library's variables of this thread are not to be had before the
 * handler has set it back. */

static pthread_mutex_t entering = PTHREAD_MUTEX_INITIALIZER;
static ttx_enclave *inside; /* what is being entered */
static uint64_t outside_fs;

/* Read and written by enter.S: stack, frame and return address outside; entry, FS and TCS inside. */
struct {
  uint64_t stack, frame, back, entry, fs, tcs;
} ttx_place;

static uint8_t signal_stack[SIGNAL_STACK_BYTES];

#define EARLY __attribute__((no_stack_protector))

EARLY static inline void set_fs(uint64_t base) {
  long result;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"((long)SYS_arch_prctl), "D"((long)ARCH_SET_FS), "S"(base)
                   : "rcx", "r11", "memory");
}

static int is_inside(uint64_t address, uint64_t bytes, uint64_t alignment) {
  const ttx_secs *secs = inside->secs;
  return address % alignment == 0 && address >= secs->base && address - secs->base <= secs->size - bytes;
}

static int leave(greg_t *registers, int result) {
  registers[REG_RAX] = result;
  registers[REG_RIP] = (greg_t)ttx_place.back;
  registers[REG_RSP] = (greg_t)ttx_place.stack;
  registers[REG_RBP] = (greg_t)ttx_place.frame;
  return 1;
}

static void *pointer(greg_t address) { return (void *)(uintptr_t)address; }

/* Whether the enclave has left anything in registers: the processor would not mind, but the host reads them. Vectors
 * beyond the low halves show as components of XSAVE's that are in use. */
static int is_clean(const greg_t *registers, const struct _libc_fpstate *state) {
  static const int general[] = {REG_RCX, REG_RDX, REG_RSI, REG_RDI, REG_R8,  REG_R9,
                                REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
  const uint64_t x87_and_sse = 3;
  uint64_t used = 0;
  uint32_t vectors = 0;
  for (size_t i = 0; i < sizeof general / sizeof general[0]; i++)
    if (registers[general[i]]) return 0;
  for (int i = 0; i < 16; i++)
    for (int word = 0; word < 4; word++) vectors |= state->_xmm[i].element[word];
  memcpy(&used, (const uint8_t *)state + 512, sizeof used); /* XSTATE_BV: the kernel saves by XSAVE */
  return vectors == 0 && (used & ~x87_and_sse) == 0;
}

/* Returns whether the enclave was left. */
static int carry_out(greg_t *registers, const struct _libc_fpstate *state) {
  const uint64_t rbx = (uint64_t)registers[REG_RBX], rcx = (uint64_t)registers[REG_RCX],
                 rdx = (uint64_t)registers[REG_RDX];
  switch (registers[REG_RAX]) {
    case EEXIT:
      if (rbx != ttx_place.back || (uint64_t)registers[REG_RSP] != ttx_place.stack) break;
      return leave(registers, is_clean(registers, state) ? 0 : TTX_LEFT_SOMETHING);
    case EREPORT:
      if (!is_inside(rbx, 512, 512) || !is_inside(rcx, 64, 128) || !is_inside(rdx, 512, 512)) break;
      make_report(inside, pointer(registers[REG_RBX]), pointer(registers[REG_RCX]), pointer(registers[REG_RDX]));
      registers[REG_RIP] += ENCLU_BYTES;
      return 0;
    case EGETKEY:
      if (!is_inside(rbx, 512, 512) || !is_inside(rcx, 16, 16)) break;
      registers[REG_RAX] = (greg_t)get_key(inside, pointer(registers[REG_RBX]), pointer(registers[REG_RCX]));
      registers[REG_RIP] += ENCLU_BYTES;
      return 0;
    default:
      break;
  }
  return leave(registers, TTX_EXCEPTION | VECTOR_GP);
}

EARLY static void handle(int signal_number, siginfo_t *information, void *context) {
  static const uint8_t enclu[ENCLU_BYTES] = {0x0f, 0x01, 0xd7};
  greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
  /* A processor that has SGX, and runs no enclave here, answers ENCLU by a general protection fault. */
  const int refused = signal_number == SIGILL || (signal_number == SIGSEGV && information->si_code == SI_KERNEL);
  set_fs(outside_fs);
  if (!inside || !is_inside((uint64_t)registers[REG_RIP], ENCLU_BYTES, 1)) {
    (void)signal(signal_number, SIG_DFL); /* it was this program's own; it comes again */
    return;
  }
  int left;
  if (refused && memcmp(pointer(registers[REG_RIP]), enclu, sizeof enclu) == 0)
    left = carry_out(registers, ((ucontext_t *)context)->uc_mcontext.fpregs);
  else
    left = leave(registers, TTX_EXCEPTION | (signal_number == SIGILL ? VECTOR_UD : VECTOR_PF));
  if (!left) set_fs(ttx_place.fs);
}

static const int signals[] = {SIGILL, SIGSEGV, SIGBUS, SIGFPE};
enum { SIGNALS = sizeof signals / sizeof signals[0] };

static int enter_now(ttx_enclave *enclave, void *argument) {
  const emulation *e = enclave->own;
  struct sigaction action = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_ONSTACK}, before[SIGNALS];
  stack_t stack = {.ss_sp = signal_stack, .ss_size = SIGNAL_STACK_BYTES}, stack_before;
  (void)sigaltstack(&stack, &stack_before);
  for (int i = 0; i < SIGNALS; i++) (void)sigaction(signals[i], &action, &before[i]);
  (void)syscall(SYS_arch_prctl, ARCH_GET_FS, &outside_fs);
  inside = enclave;
  ttx_place.entry = enclave->secs->base + e->thread.oentry;
  ttx_place.fs = enclave->secs->base + e->thread.ofsbase;
  ttx_place.tcs = enclave->tcs;
  const int result = ttx_enter(ttx_emulated_vdso, argument, NULL);
  inside = NULL;
  for (int i = 0; i < SIGNALS; i++) (void)sigaction(signals[i], &before[i], NULL);
  (void)sigaltstack(&stack_before, NULL);
  return result;
}

static int enter(ttx_enclave *enclave, void *argument) {
  (void)pthread_mutex_lock(&entering);
  const int result = enter_now(enclave, argument);
  (void)pthread_mutex_unlock(&entering);
  return result;
}

static void remove_enclave(ttx_enclave *enclave) {
  emulation *e = enclave->own;
  if (!e) return;
  EVP_MD_CTX_free(e->measurement);
  OPENSSL_cleanse(e, sizeof *e);
  free(e);
}

const ttx_processor ttx_emulated = {create, add, init, enter, remove_enclave};
