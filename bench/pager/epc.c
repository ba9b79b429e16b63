/* See the header.
 *
 * A fault is served by the thread that took it, in a signal handler (UFFD_FEATURE_SIGBUS), as SGX leaves the enclave
 * and enters the driver on the same core: no other thread is woken. What the handler calls is reentrant, since a fault
 * is synchronous: it can only interrupt code that reads or writes the region, never the pager's own.
 *
 * Which page goes: a queue in the order of arrival, with second chances for pages that came back too soon. SGX's driver
 * reads the accessed bits of its pages; userfaultfd shows none, and taking pages away to see whether they are touched
 * would cost faults that SGX does not have. So the refault distance stands in for them: if fewer pages were evicted
 * between a page's own eviction and its return than the cache holds, a cache with accessed bits would have kept it.
 * It is passed over once when its turn comes again; 3, then 7 times if that was not enough; not at all once it comes
 * back late. On a scan longer than the cache no page earns that, and the queue is exactly LRU. Pages go in batches of
 * 16, as in Linux's driver, so that unmapping is shared.
 *
 * A sealed page's nonce is a counter that never repeats (SGX's version), its place is the associated data. Tags and
 * versions stay here, in what stands for SGX's version arrays. */
#define _GNU_SOURCE
#include "epc.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "steer.h"

enum { PAGE = 4096, BATCH = 16, KEY_BYTES = 32, NONCE_BYTES = 12, TAG_BYTES = 16 };
enum { NONE = UINT32_MAX, MAX_PAGERS = 8, MOST_CHANCES = 7 };

typedef enum place { ABSENT = 0, RESIDENT, SEALED } place;

typedef struct page {
  uint64_t version, evicted_at; /* counters of evictions */
  uint32_t next, previous;      /* in the queue, while resident */
  uint8_t place, chances, credit;
  uint8_t tag[TAG_BYTES];
} page;

struct epc {
  uint8_t *region, *backing;
  size_t region_bytes;
  page *pages;
  uint32_t page_count, oldest, newest;
  int fault_file;
  pthread_mutex_t lock;
  EVP_CIPHER_CTX *sealer, *opener;
  pid_t first_thread;
  epc_counters counters;
  uint8_t staging[PAGE] __attribute__((aligned(PAGE)));
};

static double now_seconds(void) {
  struct timespec now = {0};
  (void)clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* There is no way to go on: the thread that waits for the page cannot be told. */
__attribute__((noreturn)) static void die(const char *what) {
  (void)fprintf(stderr, "epc: %s: %s\n", what, strerror(errno));
  abort();
}

static uint8_t *page_memory(const epc *pager, uint32_t number) { return pager->region + (size_t)number * PAGE; }
static uint8_t *page_backing(const epc *pager, uint32_t number) { return pager->backing + (size_t)number * PAGE; }

static void write_nonce(uint8_t *nonce, uint64_t version) {
  memset(nonce, 0, NONCE_BYTES);
  memcpy(nonce, &version, sizeof version);
}

static void seal_page(epc *pager, uint32_t number) {
  page *one = &pager->pages[number];
  EVP_CIPHER_CTX *cipher = pager->sealer;
  uint8_t nonce[NONCE_BYTES];
  int count = 0;
  double begun = now_seconds();
  one->version = ++pager->counters.evictions;
  write_nonce(nonce, one->version);
  if (EVP_EncryptInit_ex(cipher, NULL, NULL, NULL, nonce) != 1 ||
      EVP_EncryptUpdate(cipher, NULL, &count, (const uint8_t *)&number, sizeof number) != 1 ||
      EVP_EncryptUpdate(cipher, page_backing(pager, number), &count, page_memory(pager, number), PAGE) != 1 ||
      EVP_EncryptFinal_ex(cipher, NULL, &count) != 1 ||
      EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_AEAD_GET_TAG, TAG_BYTES, one->tag) != 1)
    die("a page could not be sealed");
  one->place = SEALED;
  one->evicted_at = pager->counters.evictions;
  pager->counters.crypto_seconds += now_seconds() - begun;
}

static void open_page(epc *pager, uint32_t number) {
  page *one = &pager->pages[number];
  EVP_CIPHER_CTX *cipher = pager->opener;
  uint8_t nonce[NONCE_BYTES];
  int count = 0;
  double begun = now_seconds();
  write_nonce(nonce, one->version);
  if (EVP_DecryptInit_ex(cipher, NULL, NULL, NULL, nonce) != 1 ||
      EVP_DecryptUpdate(cipher, NULL, &count, (const uint8_t *)&number, sizeof number) != 1 ||
      EVP_DecryptUpdate(cipher, pager->staging, &count, page_backing(pager, number), PAGE) != 1 ||
      EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_AEAD_SET_TAG, TAG_BYTES, one->tag) != 1 ||
      EVP_DecryptFinal_ex(cipher, NULL, &count) != 1) {
    errno = EBADMSG;
    die("a page does not authenticate");
  }
  pager->counters.crypto_seconds += now_seconds() - begun;
}

static void enqueue(epc *pager, uint32_t number) {
  page *one = &pager->pages[number];
  one->place = RESIDENT;
  one->next = NONE;
  one->previous = pager->newest;
  if (pager->newest == NONE)
    pager->oldest = number;
  else
    pager->pages[pager->newest].next = number;
  pager->newest = number;
  pager->counters.resident_pages++;
}

static void dequeue(epc *pager, uint32_t number) {
  page *one = &pager->pages[number];
  if (one->previous == NONE)
    pager->oldest = one->next;
  else
    pager->pages[one->previous].next = one->next;
  if (one->next == NONE)
    pager->newest = one->previous;
  else
    pager->pages[one->next].previous = one->previous;
  pager->counters.resident_pages--;
}

static uint32_t choose_victim(epc *pager) {
  uint32_t number = pager->oldest;
  while (pager->pages[number].chances != 0) {
    pager->pages[number].chances--;
    dequeue(pager, number);
    enqueue(pager, number);
    number = pager->oldest;
  }
  return number;
}

/* Takes pages first .. first + count away from the process. */
static void unmap_pages(epc *pager, uint32_t first, uint32_t count) {
  if (madvise(page_memory(pager, first), (size_t)count * PAGE, MADV_DONTNEED) != 0) die("madvise");
}

static void evict(epc *pager, uint64_t count) {
  while (count != 0) {
    uint32_t batch[BATCH], chosen = 0;
    while (chosen < BATCH && count != 0) {
      uint32_t number = choose_victim(pager);
      dequeue(pager, number);
      seal_page(pager, number);
      batch[chosen++] = number;
      count--;
    }
    for (uint32_t first = 0, end; first < chosen; first = end) {
      end = first + 1;
      while (end < chosen && batch[end] == batch[end - 1] + 1) end++;
      unmap_pages(pager, batch[first], end - first);
    }
  }
}

static void load(epc *pager, uint32_t number) {
  page *one = &pager->pages[number];
  pager->counters.faults++;
  if (one->place == SEALED) {
    pager->counters.loads++;
    open_page(pager, number);
    int soon = pager->counters.evictions - one->evicted_at < pager->counters.capacity_pages;
    one->credit = soon ? (uint8_t)((2 * one->credit + 1) & MOST_CHANCES) : 0;
  } else {
    pager->counters.fresh++;
    memset(pager->staging, 0, PAGE);
    one->credit = 0;
  }
  one->chances = one->credit;
  struct uffdio_copy copy = {
      .dst = (uintptr_t)page_memory(pager, number), .src = (uintptr_t)pager->staging, .len = PAGE};
  if (ioctl(pager->fault_file, UFFDIO_COPY, &copy) != 0) die("UFFDIO_COPY");
  enqueue(pager, number);
}

static void serve_fault(epc *pager, uint32_t number) {
  double begun = now_seconds();
  pid_t thread = gettid();
  (void)pthread_mutex_lock(&pager->lock);
  if (pager->first_thread == 0) pager->first_thread = thread;
  if (pager->first_thread != thread) pager->counters.foreign++;
  if (pager->pages[number].place != RESIDENT) { /* else another thread was faster */
    if (pager->counters.resident_pages == pager->counters.capacity_pages) evict(pager, BATCH);
    load(pager, number);
  }
  pager->counters.serving_seconds += now_seconds() - begun;
  (void)pthread_mutex_unlock(&pager->lock);
}

static struct {
  pthread_mutex_t lock;
  epc *pagers[MAX_PAGERS];
  struct sigaction before;
  int installed;
} all = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* Serves the faults of our regions; any other is passed on to whoever was here before. */
static void on_fault(int signal_number, siginfo_t *info, void *context) {
  int reason = errno;
  for (int i = 0; i < MAX_PAGERS; i++) {
    epc *pager = all.pagers[i];
    if (pager == NULL) continue;
    size_t offset = (size_t)(uintptr_t)info->si_addr - (size_t)(uintptr_t)pager->region;
    if (offset >= pager->region_bytes) continue;
    serve_fault(pager, (uint32_t)(offset / PAGE));
    errno = reason;
    return;
  }
  if (all.before.sa_flags & SA_SIGINFO) {
    all.before.sa_sigaction(signal_number, info, context);
  } else {
    (void)sigaction(SIGBUS, &all.before, NULL); /* the instruction faults again */
  }
}

static int serve(epc *pager) {
  int found = -1;
  (void)pthread_mutex_lock(&all.lock);
  for (int i = 0; i < MAX_PAGERS && found < 0; i++) {
    if (all.pagers[i] != NULL) continue;
    all.pagers[i] = pager;
    found = 0;
  }
  if (found == 0 && !all.installed) {
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_RESTART};
    found = sigaction(SIGBUS, &action, &all.before);
    all.installed = found == 0;
  }
  (void)pthread_mutex_unlock(&all.lock);
  return found;
}

static void serve_no_more(const epc *pager) {
  (void)pthread_mutex_lock(&all.lock);
  for (int i = 0; i < MAX_PAGERS; i++)
    if (all.pagers[i] == pager) all.pagers[i] = NULL;
  (void)pthread_mutex_unlock(&all.lock);
}

static epc *fail(epc *pager, char *error, size_t error_bytes, const char *what) {
  int reason = errno;
  (void)snprintf(error, error_bytes, "%s: %s", what, strerror(reason));
  epc_close(pager);
  return NULL;
}

/* For faults in user mode only, which needs no privilege: a system call that is given such memory fails. */
static int open_fault_file(void) {
  struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_SIGBUS};
  long opened = syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
  if (opened < 0) return -1;
  if (ioctl((int)opened, UFFDIO_API, &api) == 0) return (int)opened;
  (void)close((int)opened);
  return -1;
}

static void *reserve(size_t bytes) {
  void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return memory == MAP_FAILED ? NULL : memory;
}

static EVP_CIPHER_CTX *make_cipher(const uint8_t *key, int sealing) {
  EVP_CIPHER_CTX *cipher = EVP_CIPHER_CTX_new();
  if (cipher != NULL && EVP_CipherInit_ex(cipher, EVP_aes_256_gcm(), NULL, key, NULL, sealing) == 1) return cipher;
  EVP_CIPHER_CTX_free(cipher);
  return NULL;
}

static uint64_t capacity_pages(size_t resident_bytes) {
  uint64_t pages = (resident_bytes + PAGE - 1) / PAGE;
  return pages < BATCH ? BATCH : pages;
}

epc *epc_open(size_t region_bytes, size_t resident_bytes, char *error, size_t error_bytes) {
  epc *pager = aligned_alloc(PAGE, (sizeof *pager + PAGE - 1) / PAGE * PAGE);
  if (pager == NULL) return fail(NULL, error, error_bytes, "no memory");
  memset(pager, 0, sizeof *pager);
  pager->fault_file = -1;
  pager->region_bytes = (region_bytes + PAGE - 1) / PAGE * PAGE;
  pager->page_count = (uint32_t)(pager->region_bytes / PAGE);
  pager->oldest = pager->newest = NONE;
  pager->counters.capacity_pages = capacity_pages(resident_bytes);
  (void)pthread_mutex_init(&pager->lock, NULL);
  uint8_t key[KEY_BYTES];
  if (getrandom(key, sizeof key, 0) != (ssize_t)sizeof key) return fail(pager, error, error_bytes, "getrandom");
  pager->sealer = make_cipher(key, 1);
  pager->opener = make_cipher(key, 0);
  if (pager->sealer == NULL || pager->opener == NULL) return fail(pager, error, error_bytes, "AES-256-GCM");
  pager->region = reserve(pager->region_bytes);
  pager->backing = reserve(pager->region_bytes);
  pager->pages = reserve(pager->page_count * sizeof *pager->pages);
  if (pager->region == NULL || pager->backing == NULL || pager->pages == NULL)
    return fail(pager, error, error_bytes, "no address space");
  (void)madvise(pager->region, pager->region_bytes, MADV_NOHUGEPAGE);
  (void)madvise(pager->region, pager->region_bytes, MADV_DONTFORK);
  pager->fault_file = open_fault_file();
  if (pager->fault_file < 0)
    return fail(pager, error, error_bytes, "userfaultfd(2), which a container or the kernel's build may forbid");
  struct uffdio_register registered = {
      .range = {.start = (uintptr_t)pager->region, .len = pager->region_bytes},
      .mode = UFFDIO_REGISTER_MODE_MISSING,
  };
  if (ioctl(pager->fault_file, UFFDIO_REGISTER, &registered) != 0)
    return fail(pager, error, error_bytes, "UFFDIO_REGISTER");
  if (serve(pager) != 0) return fail(pager, error, error_bytes, "no signal handler");
  return pager;
}

uint8_t *epc_region(const epc *pager) { return pager->region; }
size_t epc_region_bytes(const epc *pager) { return pager->region_bytes; }
uint8_t *epc_backing(const epc *pager, size_t offset) { return pager->backing + offset / PAGE * PAGE; }

void epc_resize(epc *pager, size_t resident_bytes) {
  (void)pthread_mutex_lock(&pager->lock);
  pager->counters.capacity_pages = capacity_pages(resident_bytes);
  if (pager->counters.resident_pages > pager->counters.capacity_pages)
    evict(pager, pager->counters.resident_pages - pager->counters.capacity_pages);
  (void)pthread_mutex_unlock(&pager->lock);
}

void epc_discard(epc *pager, size_t offset, size_t bytes) {
  uint32_t first = (uint32_t)(offset / PAGE), count = (uint32_t)(bytes / PAGE);
  (void)pthread_mutex_lock(&pager->lock);
  for (uint32_t number = first; number < first + count; number++) {
    if (pager->pages[number].place == RESIDENT) dequeue(pager, number);
    pager->pages[number].place = ABSENT;
  }
  unmap_pages(pager, first, count);
  (void)madvise(page_backing(pager, first), (size_t)count * PAGE, MADV_DONTNEED);
  (void)pthread_mutex_unlock(&pager->lock);
}

void epc_read_counters(epc *pager, epc_counters *counters) {
  (void)pthread_mutex_lock(&pager->lock);
  *counters = pager->counters;
  (void)pthread_mutex_unlock(&pager->lock);
  epc_steer_count(counters);
}

double epc_touch(epc *pager, size_t bytes) {
  volatile uint8_t *memory = pager->region;
  double begun = now_seconds();
  for (size_t offset = 0; offset < bytes; offset += PAGE) memory[offset]++;
  return now_seconds() - begun;
}

void epc_close(epc *pager) {
  if (pager == NULL) return;
  serve_no_more(pager);
  if (pager->fault_file >= 0) (void)close(pager->fault_file);
  if (pager->region != NULL) (void)munmap(pager->region, pager->region_bytes);
  if (pager->backing != NULL) (void)munmap(pager->backing, pager->region_bytes);
  if (pager->pages != NULL) (void)munmap(pager->pages, pager->page_count * sizeof *pager->pages);
  EVP_CIPHER_CTX_free(pager->sealer);
  EVP_CIPHER_CTX_free(pager->opener);
  (void)pthread_mutex_destroy(&pager->lock);
  free(pager);
}
