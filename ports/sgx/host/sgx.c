/* Enclaves by the processor, through Linux's driver (5.11 and newer; Documentation/arch/x86/sgx.rst). */
#define _GNU_SOURCE
#include <asm/sgx.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "enclave.h"

enum { ENCLU_EEXIT = 4 };

typedef struct secinfo {
  uint64_t flags;
  uint8_t reserved[56];
} __attribute__((aligned(64))) secinfo;

static int create(ttx_enclave *enclave, char *why) {
  struct sgx_enclave_create call = {.src = (uint64_t)(uintptr_t)enclave->secs};
  enclave->device = open("/dev/sgx_enclave", O_RDWR | O_CLOEXEC);
  if (enclave->device < 0 && errno == EACCES)
    return ttx_fail(why, "this user may not open /dev/sgx_enclave: add it to the group sgx");
  if (enclave->device < 0)
    return ttx_fail(why, "there is no SGX here: /dev/sgx_enclave: %s. See docs/sgx.md; 'sgx-emulated' needs none",
                    strerror(errno));
  if (ioctl(enclave->device, SGX_IOC_ENCLAVE_CREATE, &call) == 0) return 0;
  return ttx_fail(why, "SGX refuses an enclave of %llu bytes, attributes %#llx and XFRM %#llx: %s",
                  (unsigned long long)enclave->secs->size, (unsigned long long)enclave->secs->attributes,
                  (unsigned long long)enclave->secs->xfrm, strerror(errno));
}

static int map(const ttx_enclave *enclave, const tte_run *run) {
  const int protection = run->secinfo_flags & TTX_TCS ? PROT_READ | PROT_WRITE : ttx_protection(run);
  void *at = (void *)(uintptr_t)(enclave->secs->base + run->offset);
  return mmap(at, run->bytes, protection, MAP_SHARED | MAP_FIXED, enclave->device, 0) == at ? 0 : -1;
}

static int add(ttx_enclave *enclave, const tte_run *run, const uint8_t *contents, char *why) {
  const secinfo info = {.flags = run->secinfo_flags};
  for (uint64_t done = 0; done < run->bytes;) {
    struct sgx_enclave_add_pages call = {.src = (uint64_t)(uintptr_t)(contents + done),
                                         .offset = run->offset + done,
                                         .length = run->bytes - done,
                                         .secinfo = (uint64_t)(uintptr_t)&info,
                                         .flags = SGX_PAGE_MEASURE};
    if (ioctl(enclave->device, SGX_IOC_ENCLAVE_ADD_PAGES, &call) != 0 && errno != EINTR && errno != EAGAIN)
      return ttx_fail(why, "SGX refuses pages at %#llx: %s", (unsigned long long)(run->offset + done), strerror(errno));
    done += call.count;
  }
  if (map(enclave, run) == 0) return 0;
  return ttx_fail(why, "SGX's pages cannot be mapped: %s%s", strerror(errno),
                  errno == EPERM ? "; see that /dev is not mounted noexec" : "");
}

static ttx_vdso *find_vdso(void) {
  void *library = dlopen("linux-vdso.so.1", RTLD_LAZY | RTLD_LOCAL | RTLD_NOLOAD);
  void *symbol = library ? dlsym(library, "__vdso_sgx_enter_enclave") : NULL;
  ttx_vdso *found = NULL;
  memcpy(&found, &symbol, sizeof found);
  return found;
}

static int init(ttx_enclave *enclave, const ttx_sigstruct *sigstruct, char *why) {
  struct sgx_enclave_init call = {.sigstruct = (uint64_t)(uintptr_t)sigstruct};
  int result;
  do result = ioctl(enclave->device, SGX_IOC_ENCLAVE_INIT, &call);
  while (result < 0 && errno == EINTR);
  if (result < 0 && errno == EPERM)
    return ttx_fail(why,
                    "SGX does not launch the enclave: it is damaged (build it again), or this processor launches those "
                    "of its vendor alone");
  if (result != 0) return ttx_fail(why, "SGX cannot initialize the enclave: %s", strerror(errno));
  ttx_vdso *found = find_vdso();
  if (!found) return ttx_fail(why, "this kernel's vDSO has no __vdso_sgx_enter_enclave");
  memcpy(&enclave->own, &found, sizeof found);
  return 0;
}

/* An exception leaves in 'function' what was done last: an EENTER, or an ERESUME. */
static int enter(ttx_enclave *enclave, void *argument) {
  struct sgx_enclave_run run = {.tcs = enclave->tcs};
  ttx_vdso *vdso;
  memcpy(&vdso, &enclave->own, sizeof vdso);
  const int failed = ttx_enter(vdso, argument, &run);
  return !failed && run.function == ENCLU_EEXIT ? 0 : TTX_EXCEPTION | run.exception_vector;
}

static void remove_enclave(ttx_enclave *enclave) {
  if (enclave->device >= 0) (void)close(enclave->device);
}

const ttx_processor ttx_sgx = {create, add, init, enter, remove_enclave};
