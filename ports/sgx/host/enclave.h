/* An enclave in this process: by the processor (/dev/sgx_enclave), or emulated. */
#ifndef TTX_ENCLAVE_H
#define TTX_ENCLAVE_H
#include <stddef.h>
#include <stdint.h>

#include "tinytee_enclave.h"

/* SECS and SIGSTRUCT, as the Intel SDM, volume 3D, has them. */
typedef struct ttx_secs {
  uint64_t size, base;
  uint32_t ssa_frame_pages, misc_select;
  uint8_t reserved0[24];
  uint64_t attributes, xfrm;
  uint8_t enclave_hash[32], reserved1[32], signer_hash[32], reserved2[32], config_id[64];
  uint16_t product, svn, config_svn;
  uint8_t reserved3[4096 - 262];
} ttx_secs;

typedef struct ttx_sigstruct {
  uint8_t header[16];
  uint32_t vendor, date;
  uint8_t header2[16];
  uint32_t software;
  uint8_t reserved0[84];
  uint8_t modulus[384]; /* little-endian, as all that follows */
  uint32_t exponent;
  uint8_t signature[384];
  uint32_t misc_select, misc_mask;
  uint8_t reserved1[20];
  uint64_t attributes[2], attribute_mask[2];
  uint8_t enclave_hash[32], reserved2[32];
  uint16_t product, svn;
  uint8_t reserved3[12];
  uint8_t q1[384], q2[384];
} ttx_sigstruct;

enum { TTX_READ = 1, TTX_WRITE = 2, TTX_EXECUTE = 4, TTX_TCS = 0x100, TTX_REGULAR = 0x200 }; /* of a run's flags */
enum { TTX_INIT = 1, TTX_DEBUG = 2, TTX_MODE64BIT = 4 };                                     /* of attributes */

enum { TTX_EXCEPTION = 0x100, TTX_LEFT_SOMETHING = 0x200 };

typedef struct ttx_enclave ttx_enclave;

/* Where an enclave lives. Functions return 0, or -1 with a line in why[TTX_WHY_BYTES]. */
enum { TTX_WHY_BYTES = 200 };
typedef struct ttx_processor {
  /* Makes an enclave at secs->base .. + secs->size, which is reserved. */
  int (*create)(ttx_enclave *enclave, char *why);
  /* Adds pages with their contents, measured. contents: of all of run->bytes, aligned to a page. */
  int (*add)(ttx_enclave *enclave, const tte_run *run, const uint8_t *contents, char *why);
  int (*init)(ttx_enclave *enclave, const ttx_sigstruct *sigstruct, char *why);
  /* Enters, with a pointer for the enclave, and returns when it has left: 0; TTX_EXCEPTION and the vector that it died
   * of; or, emulated, TTX_LEFT_SOMETHING, if registers were not empty. */
  int (*enter)(ttx_enclave *enclave, void *argument);
  void (*remove)(ttx_enclave *enclave);
} ttx_processor;

struct ttx_enclave {
  const ttx_processor *processor;
  ttx_secs *secs; /* a page of its own */
  uint64_t tcs;   /* address */
  int device;     /* /dev/sgx_enclave */
  void *own;      /* the processor's */
};

extern const ttx_processor ttx_sgx, ttx_emulated;

/* Of enter.S. vdso: the kernel's __vdso_sgx_enter_enclave, or what stands for it; run: a struct sgx_enclave_run.
 * Returns what that returns. */
typedef int ttx_vdso(unsigned long, unsigned long, unsigned long, unsigned int, unsigned long, unsigned long,
                     void *run);
int ttx_enter(ttx_vdso *vdso, void *argument, void *run);
ttx_vdso ttx_emulated_vdso;

/* Loads an image. Returns NULL with a line in 'why' if it cannot. */
ttx_enclave *ttx_load(const char *path, const ttx_processor *processor, char *why);
void ttx_unload(ttx_enclave *enclave);

/* PROT_*, by a run's permissions. */
int ttx_protection(const tte_run *run);

__attribute__((format(printf, 2, 3))) int ttx_fail(char *why, const char *format, ...);

#endif
