/* Threads that share the core's work. */
#ifndef TTHI_POOL_H
#define TTHI_POOL_H
#include <stdint.h>

typedef struct tthi_pool tthi_pool;
typedef void (*tthi_work)(void *argument, uint32_t begin, uint32_t end, uint32_t worker);

/* A pool of that many workers, of which the caller of tthi_pool_share is one. NULL if the system gives no threads. */
tthi_pool *tthi_pool_open(uint32_t workers);

/* Calls work(argument, begin, end, worker) for stretches of items that together are those below 'items', on at most
 * 'workers' threads, the caller's being worker 0, and returns when all is done. One caller at a time. */
void tthi_pool_share(tthi_pool *pool, uint32_t workers, tthi_work work, void *argument, uint32_t items);

/* Wakes threads that sleep: there is work soon. It takes them longer to wake than a call takes. */
void tthi_pool_wake(tthi_pool *pool);

/* Which worker the calling thread is; 0 outside of a pool. */
uint32_t tthi_pool_worker(void);

void tthi_pool_close(tthi_pool *pool);

#endif
