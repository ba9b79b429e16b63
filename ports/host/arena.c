/* See the header. */
#define _GNU_SOURCE
#include "tinytee_host.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "wipe.h"

#ifndef SYS_memfd_secret
#define SYS_memfd_secret 447
#endif
#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif

enum { ARENA_ALIGN = 64 };

/* Puts secret memory in place of the reserved pages at 'place'. It is there or not: a kernel may know the call and
 * refuse it (secretmem.enable), or refuse so much (RLIMIT_MEMLOCK). A refused MAP_FIXED can leave a hole where another
 * thread may map something, so it is first tried elsewhere. Returns 1 if there is such a hole now, else 0 or -1. */
static int map_secret(uint8_t *place, size_t bytes) {
  long opened = syscall(SYS_memfd_secret, 0);
  if (opened < 0) return -1;
  int file = (int)opened, result = -1;
  void *trial = MAP_FAILED;
  if (ftruncate(file, (off_t)bytes) == 0) trial = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (trial != MAP_FAILED) {
    (void)munmap(trial, bytes);
    void *mapped = mmap(place, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0);
    result = mapped == MAP_FAILED ? 1 : 0;
  }
  (void)close(file);
  return result;
}

static int map_private(uint8_t *place, size_t bytes) {
  void *mapped = mmap(place, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  return mapped == MAP_FAILED ? -1 : 0;
}

int tth_arena_open(tth_arena *arena, size_t bytes) {
  memset(arena, 0, sizeof *arena);
  long page_size = sysconf(_SC_PAGESIZE);
  if (page_size <= 0 || bytes == 0 || bytes > UINT32_MAX) {
    errno = EINVAL;
    return -1;
  }
  size_t page = (size_t)page_size;
  size_t used = (bytes + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
  size_t pages = (used + page - 1) / page * page;
  size_t reserved = pages + 2 * page;
  uint8_t *mapping = mmap(NULL, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if ((void *)mapping == MAP_FAILED) return -1;
  uint8_t *inside = mapping + page;
  int secret = map_secret(inside, pages);
  if (secret == 0) {
    arena->kind = TTH_ARENA_SECRET;
  } else if (secret > 0) {
    (void)munmap(mapping, page);
    (void)munmap(inside + pages, page);
    errno = ENOMEM;
    return -1;
  } else if (map_private(inside, pages) == 0) {
    arena->kind = mlock(inside, pages) == 0 ? TTH_ARENA_LOCKED : TTH_ARENA_UNLOCKED;
    (void)madvise(inside, pages, MADV_WIPEONFORK);
  } else {
    int reason = errno;
    (void)munmap(mapping, reserved);
    errno = reason;
    return -1;
  }
  (void)madvise(inside, pages, MADV_DONTDUMP);
  (void)madvise(inside, pages, MADV_DONTFORK);
  arena->memory = inside + (pages - used);
  arena->bytes = used;
  arena->mapping = mapping;
  arena->mapping_bytes = reserved;
  return 0;
}

void tth_arena_close(tth_arena *arena) {
  if (arena->mapping == NULL) return;
  tthi_wipe(arena->memory, arena->bytes);
  (void)munmap(arena->mapping, arena->mapping_bytes);
  memset(arena, 0, sizeof *arena);
}
