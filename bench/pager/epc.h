/* An emulated enclave page cache: a region of virtual memory of which only so many 4 KiB pages are ever resident, in
 * plain. All others lie sealed (AES-256-GCM) in a backing store, as SGX's EWB leaves them in main memory, and are
 * opened and verified when they are touched, as ELDU does. It runs in any Linux process, through userfaultfd(2).
 *
 *     epc_open -> touch epc_region(...)[0 .. region_bytes) -> epc_counters -> epc_close
 *
 * Only one thread may touch a region: pages are written out while that thread is in its fault's handler, and only then
 * is nobody writing to them. A fault of another thread is counted ('foreign'), and the results are then void. System
 * calls must not be given memory of a region: they fail with EFAULT where a page is not resident.
 *
 * With epc_steer, large allocations of one thread are taken from the region: for programs that know nothing of all
 * this, which are started with LD_PRELOAD=libepc.so. Parsed by Python (with cffi): plain structs and prototypes only.
 */
#ifndef EPC_H
#define EPC_H
#include <stddef.h>
#include <stdint.h>

typedef struct epc epc;

typedef struct epc_counters {
  uint64_t faults;    /* pages asked for; each is one of the next two */
  uint64_t fresh;     /* zero pages: touched for the first time */
  uint64_t loads;     /* opened and verified */
  uint64_t evictions; /* sealed; a page is always written out, as EWB does, whether it was changed or not */
  uint64_t foreign;   /* faults of a thread other than the first one's */
  uint64_t resident_pages, capacity_pages;
  uint64_t allocated_bytes, most_allocated_bytes; /* epc_steer's, now and at most */
  uint64_t failed_allocations;                    /* that the region had no room for; they went to the heap */
  double crypto_seconds;                          /* sealing and opening */
  double serving_seconds;                         /* all of a fault's handling, but entry and return */
} epc_counters;

/* Reserves a region. Both sizes are rounded up to pages; resident_bytes is at least 16 pages. Returns NULL, and says
 * why in error[error_bytes]. */
epc *epc_open(size_t region_bytes, size_t resident_bytes, char *error, size_t error_bytes);

uint8_t *epc_region(const epc *pager); /* aligned to 4096, zero */
size_t epc_region_bytes(const epc *pager);

/* Changes how much may be resident; writes pages out if that is less. Only while nobody touches the region. */
void epc_resize(epc *pager, size_t resident_bytes);

/* Forgets whole pages, which are zero again. Only while nobody touches them. */
void epc_discard(epc *pager, size_t offset, size_t bytes);

void epc_read_counters(epc *pager, epc_counters *counters);

/* A sealed page's 4096 bytes in the backing store, for tests that change it. */
uint8_t *epc_backing(const epc *pager, size_t offset);

void epc_close(epc *pager); /* NULL is permitted */

/* From now on malloc and its kin serve the calling thread's allocations of at least so many bytes from the region, page
 * by page, until epc_steer(NULL, 0). One region a process. What was allocated stays there until it is freed. */
void epc_steer(epc *pager, size_t threshold_bytes);

/* What a fault costs: touches every page of a region, each byte of which must fault, one after the other. Returns
 * seconds. */
double epc_touch(epc *pager, size_t bytes);

#endif
