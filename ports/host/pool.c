/* See the header.
 *
 * Calls are short (some microseconds) and come close after one another, so a thread without work spins for a while
 * before it sleeps, and items are claimed several at a time, the fewer the fewer are left (Polychronopoulos and Kuck
 * 1987), so that a thread that is held up delays no other and claims are few: three quarters of a thread's share at
 * first, then half. The caller claims from the first item on and the workers from the last one back: what is near a
 * processor since the call before, neighbouring rows, panels or pieces of a chunk, it mostly gets again.
 *
 * 'ticket' holds everything that a claim depends on: the call's number, the items left, and the next one of them.
 * Whoever has claimed an item knows that its call is not over, so that 'work' and 'argument' are still that call's. */
#define _GNU_SOURCE
#include "pool.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../float_mode.h"

enum { SPINS = 20000, ITEM_BITS = 20, FIRST_QUARTERS = 3, NEXT_QUARTERS = 2 };

#define ITEM_MASK ((UINT64_C(1) << ITEM_BITS) - 1)

typedef struct worker {
  tthi_pool *pool;
  uint32_t number;
  pthread_t thread;
} worker;

/* What different threads write while others wait lies in cache lines of its own. */
struct tthi_pool {
  _Alignas(64) _Atomic uint64_t ticket; /* call << 40 | end of the items left << 20 | the first of them */
  _Atomic(tthi_work) work;
  _Atomic(void *) argument;
  _Atomic uint32_t wanted;
  _Alignas(64) _Atomic uint32_t finished;
  _Alignas(64) _Atomic uint32_t calls; /* calls begun: what the threads wait for */
  _Atomic uint32_t sleepers, stop;
  _Alignas(64) cpu_set_t allowed; /* processors of the thread that opened the pool */
  int caller;                     /* processor that the workers keep off */
  uint32_t thread_count;
  worker workers[];
};

static _Thread_local uint32_t my_number;

uint32_t tthi_pool_worker(void) { return my_number; }

static void pause_a_moment(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

/* Of so many items left, those to claim next: so many quarters of a thread's share. */
static uint64_t part_of(const tthi_pool *pool, uint64_t left, uint32_t quarters) {
  const uint64_t all = 4 * (uint64_t)(pool->thread_count + 1);
  return (quarters * left + all - 1) / all;
}

/* Works on the present call's items until none is left to claim. */
static void help(tthi_pool *pool, uint32_t number, uint32_t quarters) {
  uint64_t ticket = atomic_load_explicit(&pool->ticket, memory_order_acquire);
  uint64_t first, end;
  while ((first = ticket & ITEM_MASK) < (end = ticket >> ITEM_BITS & ITEM_MASK)) {
    const tthi_work work = atomic_load_explicit(&pool->work, memory_order_relaxed);
    void *argument = atomic_load_explicit(&pool->argument, memory_order_relaxed);
    const uint64_t count = part_of(pool, end - first, quarters);
    const uint64_t claimed = number == 0 ? ticket + count : ticket - (count << ITEM_BITS);
    if (!atomic_compare_exchange_weak(&pool->ticket, &ticket, claimed)) continue;
    quarters = NEXT_QUARTERS;
    const uint32_t begin = (uint32_t)(number == 0 ? first : end - count);
    work(argument, begin, begin + (uint32_t)count, number);
    atomic_fetch_add(&pool->finished, (uint32_t)count);
    ticket = atomic_load_explicit(&pool->ticket, memory_order_acquire);
  }
}

static void *serve(void *argument) {
  worker *me = argument;
  tthi_pool *pool = me->pool;
  uint32_t seen = 0;
  my_number = me->number;
  ttp_set_float_mode(TTP_FLOAT_MODE);
  while (!atomic_load(&pool->stop)) {
    for (int spin = 0; spin < SPINS && atomic_load_explicit(&pool->calls, memory_order_acquire) == seen; spin++)
      pause_a_moment();
    if (atomic_load(&pool->calls) == seen) {
      atomic_fetch_add(&pool->sleepers, 1);
      if (atomic_load(&pool->calls) == seen)
        (void)syscall(SYS_futex, &pool->calls, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
      atomic_fetch_sub(&pool->sleepers, 1);
    }
    seen = atomic_load(&pool->calls);
    if (me->number < atomic_load(&pool->wanted)) help(pool, me->number, FIRST_QUARTERS);
  }
  return NULL;
}

/* A thread that wakes is often put on the processor of whoever wakes it, and waits there while others idle; and the
 * caller may be moved to a processor where a worker spins: keeps the workers off the caller's. */
static void make_way(tthi_pool *pool) {
  const int here = sched_getcpu();
  cpu_set_t others = pool->allowed;
  if (here < 0 || here == pool->caller) return;
  pool->caller = here;
  CPU_CLR((size_t)here, &others);
  if (CPU_COUNT(&others) == 0) return;
  for (uint32_t i = 0; i < pool->thread_count; i++)
    (void)pthread_setaffinity_np(pool->workers[i].thread, sizeof others, &others);
}

static void announce(tthi_pool *pool) {
  atomic_fetch_add(&pool->calls, 1);
  if (atomic_load(&pool->sleepers) != 0)
    (void)syscall(SYS_futex, &pool->calls, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

void tthi_pool_wake(tthi_pool *pool) {
  make_way(pool);
  announce(pool);
}

tthi_pool *tthi_pool_open(uint32_t workers) {
  const size_t bytes = sizeof(tthi_pool) + workers * sizeof(worker);
  tthi_pool *pool = aligned_alloc(64, (bytes + 63) / 64 * 64);
  if (pool == NULL) return NULL;
  atomic_init(&pool->ticket, 0);
  atomic_init(&pool->finished, 0);
  atomic_init(&pool->calls, 0);
  atomic_init(&pool->sleepers, 0);
  atomic_init(&pool->stop, 0);
  atomic_init(&pool->wanted, 0);
  atomic_init(&pool->work, NULL);
  atomic_init(&pool->argument, NULL);
  pool->thread_count = 0;
  pool->caller = -1;
  if (sched_getaffinity(0, sizeof pool->allowed, &pool->allowed) != 0) CPU_ZERO(&pool->allowed);
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before); /* signals stay the caller's */
  for (uint32_t number = 1; number < workers; number++) {
    worker *one = &pool->workers[pool->thread_count];
    one->pool = pool;
    one->number = number;
    if (pthread_create(&one->thread, NULL, serve, one) != 0) break;
    pool->thread_count++;
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (pool->thread_count + 1 == workers) return pool;
  tthi_pool_close(pool);
  return NULL;
}

void tthi_pool_share(tthi_pool *pool, uint32_t workers, tthi_work work, void *argument, uint32_t items) {
  for (; items > ITEM_MASK; items--) work(argument, items - 1, items, 0);
  const uint32_t mine = (uint32_t)part_of(pool, items, FIRST_QUARTERS);
  const uint64_t call = (atomic_load_explicit(&pool->ticket, memory_order_relaxed) >> 2 * ITEM_BITS) + 1;
  atomic_store_explicit(&pool->wanted, workers, memory_order_relaxed);
  atomic_store_explicit(&pool->work, work, memory_order_relaxed);
  atomic_store_explicit(&pool->argument, argument, memory_order_relaxed);
  atomic_store_explicit(&pool->finished, 0, memory_order_relaxed);
  atomic_store_explicit(&pool->ticket, call << 2 * ITEM_BITS | (uint64_t)items << ITEM_BITS | mine,
                        memory_order_release);
  tthi_pool_wake(pool);
  work(argument, 0, mine, 0);
  atomic_fetch_add(&pool->finished, mine);
  help(pool, 0, NEXT_QUARTERS);
  for (int spin = 0; atomic_load_explicit(&pool->finished, memory_order_acquire) != items; spin++) {
    pause_a_moment();
    if (spin > SPINS) (void)sched_yield();
  }
}

void tthi_pool_close(tthi_pool *pool) {
  if (pool == NULL) return;
  atomic_store(&pool->stop, 1);
  announce(pool);
  for (uint32_t i = 0; i < pool->thread_count; i++) (void)pthread_join(pool->workers[i].thread, NULL);
  free(pool);
}
