/* The SGX enclave around the trusted application: its image, and how the host enters it. Python reads these records
 * from this header (tinytee.bundle.enclave), which writes images; ports/sgx/host loads them.
 *
 *     [ ELF segments ][ thread ][ gap ][ stack ][ SSA frame ][ TCS ][ heap ]
 *
 * Every page is added with its contents measured; the gap and all beyond the heap are never added. The enclave's size
 * is the next power of two, as SGX wants it.
 */
#ifndef TINYTEE_ENCLAVE_H
#define TINYTEE_ENCLAVE_H
#include <stdint.h>

enum {
  TTE_PAGE_BYTES = 4096,
  TTE_STACK_BYTES = 65536, /* the core's 16 KiB, and what the application and its cryptography take */
  TTE_GAP_BYTES = 65536,   /* below the stack: more than any frame has */
  TTE_SSA_FRAMES = 1       /* of a page: while a call is interrupted, the processor refuses another */
};

/* Where things lie, as offsets from the enclave's start. The image's writer fills it in (the ELF's section .tinytee),
 * and so it is measured. */
typedef struct tte_layout {
  uint64_t enclave_bytes, stack_top, heap_offset, heap_bytes;
  uint32_t is_development; /* takes keys in the clear */
  uint32_t reserved;
} tte_layout;

/* A call, in untrusted memory, aligned to 8 bytes: the enclave's one argument. A slot is a value {a, b}, or a memref
 * {address, bytes} that lies outside the enclave; types are GlobalPlatform's TEE_PARAM_TYPES. The enclave reads it
 * once, and writes 'result' (a TEE_Result) and the slots that are outputs. */
enum { TTE_OPEN_SESSION = 0, TTE_CLOSE_SESSION, TTE_INVOKE };

/* A command besides those of tinytee_ta.h: slot 0 memref in: TARGETINFO, 512 bytes; slot 1 memref out: REPORT, 432
 * bytes, of which REPORTDATA is the device's public key, then TTE_REPORT_TEXT filled up with zeroes. */
enum { TTE_REPORT = 256, TTE_TARGETINFO_BYTES = 512, TTE_REPORT_BYTES = 432, TTE_REPORTDATA_BYTES = 64 };
#define TTE_REPORT_TEXT "tinytee device key"

typedef struct tte_slot {
  uint64_t a, b;
} tte_slot;

typedef struct tte_call {
  uint32_t operation, command, types, result;
  tte_slot slots[4];
} tte_call;

/* An image: this header, so many tte_run in the order in which they are added, then the runs' contents. */
enum {
  TTE_IMAGE_MAGIC = 0x49455454 /* "TTEI" */,
  TTE_IMAGE_VERSION = 1,
  TTE_SIGSTRUCT_BYTES = 1808,
  TTE_MAX_RUNS = 64
};

typedef struct tte_image {
  uint32_t magic, version;
  uint64_t enclave_bytes, tcs_offset;
  uint64_t attributes, xfrm; /* of SECS, with DEBUG if that is wanted */
  uint32_t run_count, reserved;
  uint8_t isa[16]; /* of the kernels, for people */
  uint8_t sigstruct[1808];
} tte_image;

/* Pages that are alike: contents[contents_bytes] at contents_offset of the file, zeroes after them. */
typedef struct tte_run {
  uint64_t offset, bytes;
  uint64_t secinfo_flags; /* permissions 1: read, 2: write, 4: execute; 0x100: TCS, 0x200: regular */
  uint64_t contents_offset, contents_bytes;
} tte_run;

#endif
