/* malloc and its kin, for processes that preload this library: see epc_steer. The books lie outside the region, so that
 * keeping them costs no faults. A freed block's pages are forgotten at once: the next allocation there begins with zero
 * pages, without anything to open. That is kinder than SGX, where a freed page is evicted as any other. */
#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "steer.h"

enum { PAGE = 4096, MAX_BLOCKS = 1 << 16 };

void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *old, size_t bytes);
void *__libc_memalign(size_t alignment, size_t bytes);
void __libc_free(void *memory);

/* Blocks in use, by place; what lies between them is free. */
typedef struct block {
  size_t begin, end;
} block;

static struct {
  pthread_mutex_t lock;
  epc *pager;
  uint8_t *region;
  size_t region_bytes;
  block blocks[MAX_BLOCKS];
  size_t count;
  uint64_t allocated, most_allocated, failed;
} books = {.lock = PTHREAD_MUTEX_INITIALIZER};

static __thread size_t threshold __attribute__((tls_model("initial-exec"))); /* 0: not this thread's */

void epc_steer(epc *pager, size_t threshold_bytes) {
  (void)pthread_mutex_lock(&books.lock);
  if (pager != NULL && books.pager != pager) {
    books.pager = pager;
    books.region_bytes = epc_region_bytes(pager);
    books.count = 0;
    books.region = epc_region(pager);
  }
  (void)pthread_mutex_unlock(&books.lock);
  threshold = pager != NULL ? threshold_bytes : 0;
}

void epc_steer_count(epc_counters *counters) {
  counters->allocated_bytes = books.allocated;
  counters->most_allocated_bytes = books.most_allocated;
  counters->failed_allocations = books.failed;
}

static int is_steered(const void *memory) {
  return books.region != NULL && (const uint8_t *)memory >= books.region &&
         (const uint8_t *)memory < books.region + books.region_bytes;
}

/* First fit. NULL if there is no room. */
static void *take(size_t bytes) {
  if (bytes > books.region_bytes) return NULL;
  size_t wanted = (bytes + PAGE - 1) / PAGE * PAGE, at = 0, index = 0;
  void *found = NULL;
  (void)pthread_mutex_lock(&books.lock);
  for (; index < books.count && books.blocks[index].begin - at < wanted; index++) at = books.blocks[index].end;
  if (books.count < MAX_BLOCKS && books.region_bytes - at >= wanted) {
    memmove(&books.blocks[index + 1], &books.blocks[index], (books.count - index) * sizeof(block));
    books.blocks[index] = (block){at, at + wanted};
    books.count++;
    books.allocated += wanted;
    if (books.allocated > books.most_allocated) books.most_allocated = books.allocated;
    found = books.region + at;
  } else {
    books.failed++;
  }
  (void)pthread_mutex_unlock(&books.lock);
  return found;
}

/* The block that begins there, by bisection. The lock is held. */
static size_t find(const void *memory) {
  size_t place = (size_t)((const uint8_t *)memory - books.region), low = 0, high = books.count;
  while (high - low > 1) {
    size_t middle = (low + high) / 2;
    if (books.blocks[middle].begin <= place)
      low = middle;
    else
      high = middle;
  }
  if (low >= books.count || books.blocks[low].begin != place) abort(); /* freed twice, or never allocated */
  return low;
}

static size_t steered_bytes(const void *memory) {
  (void)pthread_mutex_lock(&books.lock);
  size_t index = find(memory), bytes = books.blocks[index].end - books.blocks[index].begin;
  (void)pthread_mutex_unlock(&books.lock);
  return bytes;
}

static void give_back(void *memory) {
  (void)pthread_mutex_lock(&books.lock);
  size_t index = find(memory);
  block freed = books.blocks[index];
  epc_discard(books.pager, freed.begin, freed.end - freed.begin);
  books.count--;
  memmove(&books.blocks[index], &books.blocks[index + 1], (books.count - index) * sizeof(block));
  books.allocated -= freed.end - freed.begin;
  (void)pthread_mutex_unlock(&books.lock);
}

static void *try_steer(size_t alignment, size_t bytes) {
  return threshold != 0 && bytes >= threshold && alignment <= PAGE ? take(bytes) : NULL;
}

void *malloc(size_t bytes) {
  void *memory = try_steer(1, bytes);
  return memory != NULL ? memory : __libc_malloc(bytes);
}

void *calloc(size_t count, size_t bytes) {
  size_t total;
  void *memory = __builtin_mul_overflow(count, bytes, &total) ? NULL : try_steer(1, total);
  return memory != NULL ? memory : __libc_calloc(count, bytes); /* a region's fresh pages are zero */
}

void free(void *memory) {
  if (is_steered(memory))
    give_back(memory);
  else
    __libc_free(memory);
}

void *realloc(void *old, size_t bytes) {
  int was_steered = is_steered(old);
  if (!was_steered && (threshold == 0 || bytes < threshold)) return __libc_realloc(old, bytes);
  if (old != NULL && bytes == 0) {
    free(old);
    return NULL;
  }
  void *memory = malloc(bytes);
  if (memory == NULL || old == NULL) return memory;
  size_t kept = was_steered ? steered_bytes(old) : malloc_usable_size(old);
  memcpy(memory, old, kept < bytes ? kept : bytes);
  free(old);
  return memory;
}

void *memalign(size_t alignment, size_t bytes) {
  void *memory = try_steer(alignment, bytes);
  return memory != NULL ? memory : __libc_memalign(alignment, bytes);
}

void *aligned_alloc(size_t alignment, size_t bytes) { return memalign(alignment, bytes); }

int posix_memalign(void **memory, size_t alignment, size_t bytes) {
  if (alignment < sizeof(void *) || (alignment & (alignment - 1)) != 0) return EINVAL;
  void *found = memalign(alignment, bytes);
  if (found == NULL) return ENOMEM;
  *memory = found;
  return 0;
}
