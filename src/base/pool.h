/* The thread pool: fixed workers that share loops.
 *
 * Invariants:
 *  - A pool of n threads has at most n - 1 workers; the caller of pal__pool_run is the other.
 *  - pal__pool_run returns when every item has been done; items are claimed one by
 *    one in ascending order, so a slow or preempted thread delays at most its own item.
 *  - Nobody burns a core for long: workers spin some microseconds for the next loop
 *    and then sleep; the caller waits the same way for the last items.
 *  - Loops that follow one another closely cost no system call.
 *  - Results must not depend on which thread does an item: an item writes only what
 *    no other item reads or writes. Only scratch may be indexed by worker.
 *  - One loop at a time; callers on several threads take turns.
 */
#ifndef PAL_BASE_POOL_H
#define PAL_BASE_POOL_H

#include <sched.h>
#include <stddef.h>

#include "base/status.h"

typedef struct pal__pool pal__pool;

/* item: 0 to n_items - 1; worker: 0 to the pool's threads - 1. */
typedef void (*pal__pool_fn)(void *arg, size_t item, int worker);

/* n_threads: 1 to PAL_MAX_THREADS. cpus: where workers run, NULL: anywhere. No more threads
 * are started than it has CPUs, since more would only take turns, and wait for each other's
 * turns; all else is as if they were. Callers' threads are not ours to move.
 * Errors: PAL_ENOMEM, PAL_EIO (no thread could be made). */
pal_status pal__pool_new(int n_threads, const cpu_set_t *cpus, pal__pool **out, pal_error *err);
void pal__pool_free(pal__pool *p);         /* NULL is fine */
int pal__pool_threads(const pal__pool *p); /* n_threads */

/* n_items: at most 2^32 - 1. fn must not call pal__pool_run on the same pool. */
void pal__pool_run(pal__pool *p, size_t n_items, pal__pool_fn fn, void *arg);

#endif
