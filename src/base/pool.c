#include "base/pool.h"

#include <assert.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"

/* Some 3 to 30 microseconds, as long as the CPU's pause takes: longer than the serial work
 * between two loops of a forward pass, far shorter than a scheduler's time slice. */
#define SPINS 600

struct worker {
	pthread_t thread;
	pal__pool *pool;
	int index;
};

/* A loop is published by raising `generation` (under the lock, so that sleepers see it).
 * Threads claim items from `next`, which carries the loop's number in its upper half: a
 * late worker cannot claim an item of a loop it has not seen. */
struct pal__pool {
	pthread_mutex_t turn; /* held by the caller for a whole loop */
	pthread_mutex_t lock;
	pthread_cond_t wake, done;
	_Atomic uint32_t generation;
	_Atomic uint64_t next; /* generation << 32 | item */
	_Atomic uint32_t left; /* items not finished */
	_Atomic int sleepers;
	_Atomic bool quit;
	bool caller_sleeps; /* under the lock */
	pal__pool_fn fn;
	void *arg;
	uint32_t n_items;
	int n_threads, n_started;
	struct worker workers[];
};

static inline void relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

/* Does items of loop `gen` until none is left to claim. */
static void work(pal__pool *p, uint32_t gen, pal__pool_fn fn, void *arg, uint32_t n, int worker)
{
	uint64_t at = atomic_load(&p->next);
	for (;;) {
		if ((uint32_t)(at >> 32) != gen || (uint32_t)at >= n)
			return;
		if (!atomic_compare_exchange_weak(&p->next, &at, at + 1))
			continue;
		fn(arg, (uint32_t)at, worker);
		if (atomic_fetch_sub(&p->left, 1) == 1) {
			pthread_mutex_lock(&p->lock);
			if (p->caller_sleeps)
				pthread_cond_signal(&p->done);
			pthread_mutex_unlock(&p->lock);
		}
		at = atomic_load(&p->next);
	}
}

static uint32_t await(pal__pool *p, uint32_t seen)
{
	for (int i = 0; i < SPINS; i++) {
		if (atomic_load_explicit(&p->generation, memory_order_acquire) != seen ||
		    atomic_load_explicit(&p->quit, memory_order_relaxed))
			break;
		relax();
	}
	if (atomic_load(&p->generation) == seen && !atomic_load(&p->quit)) {
		pthread_mutex_lock(&p->lock);
		atomic_fetch_add(&p->sleepers, 1);
		while (atomic_load(&p->generation) == seen && !atomic_load(&p->quit))
			pthread_cond_wait(&p->wake, &p->lock);
		atomic_fetch_sub(&p->sleepers, 1);
		pthread_mutex_unlock(&p->lock);
	}
	return atomic_load(&p->generation);
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	pal__pool *p = w->pool;
	uint32_t seen = 0;
	for (;;) {
		seen = await(p, seen);
		if (atomic_load(&p->quit))
			return NULL;
		/* fn, arg and n_items belong to `seen` only if the loop is still open: then
		 * the claim below fails before they are used. Reading them is safe because
		 * they change only after every item of the previous loop is done. */
		pthread_mutex_lock(&p->lock);
		seen = atomic_load(&p->generation);
		pal__pool_fn fn = p->fn;
		void *fn_arg = p->arg;
		uint32_t n = p->n_items;
		pthread_mutex_unlock(&p->lock);
		work(p, seen, fn, fn_arg, n, w->index);
	}
}

static void run_items(pal__pool *p, uint32_t n, pal__pool_fn fn, void *arg)
{
	pthread_mutex_lock(&p->lock);
	uint32_t gen = atomic_load(&p->generation) + 1;
	p->fn = fn;
	p->arg = arg;
	p->n_items = n;
	atomic_store(&p->left, n);
	atomic_store(&p->next, (uint64_t)gen << 32);
	atomic_store_explicit(&p->generation, gen, memory_order_release);
	if (atomic_load(&p->sleepers))
		pthread_cond_broadcast(&p->wake);
	pthread_mutex_unlock(&p->lock);

	work(p, gen, fn, arg, n, 0);
	for (int i = 0; i < SPINS && atomic_load(&p->left); i++)
		relax();
	if (!atomic_load(&p->left))
		return;
	pthread_mutex_lock(&p->lock);
	p->caller_sleeps = true;
	while (atomic_load(&p->left))
		pthread_cond_wait(&p->done, &p->lock);
	p->caller_sleeps = false;
	pthread_mutex_unlock(&p->lock);
}

void pal__pool_run(pal__pool *p, size_t n_items, pal__pool_fn fn, void *arg)
{
	assert(n_items <= UINT32_MAX);
	if (!n_items)
		return;
	pthread_mutex_lock(&p->turn);
	if (p->n_threads == 1 || n_items == 1) {
		for (size_t i = 0; i < n_items; i++)
			fn(arg, i, 0);
	} else {
		run_items(p, (uint32_t)n_items, fn, arg);
	}
	pthread_mutex_unlock(&p->turn);
}

pal_status pal__pool_new(int n_threads, pal__pool **out, pal_error *err)
{
	if (n_threads < 1 || n_threads > PAL_MAX_THREADS)
		return pal__fail(err, PAL_EINVAL, "%d threads: 1 to %d are possible", n_threads,
				 PAL_MAX_THREADS);
	size_t size = sizeof(pal__pool) + (size_t)n_threads * sizeof(struct worker);
	pal__pool *p = pal__calloc(1, size);
	if (!p)
		return pal__fail_memory(err, "the thread pool", size);
	p->n_threads = n_threads;
	pthread_mutex_init(&p->turn, NULL);
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->wake, NULL);
	pthread_cond_init(&p->done, NULL);
	for (int i = 1; i < n_threads; i++) {
		struct worker *w = &p->workers[i];
		*w = (struct worker){.pool = p, .index = i};
		int e = pthread_create(&w->thread, NULL, worker_main, w);
		if (e) {
			pal__pool_free(p);
			return pal__fail(err, PAL_EIO, "cannot start thread %d of %d: %s", i,
					 n_threads, strerror(e));
		}
		p->n_started++;
	}
	*out = p;
	return PAL_OK;
}

void pal__pool_free(pal__pool *p)
{
	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	atomic_store(&p->quit, true);
	pthread_cond_broadcast(&p->wake);
	pthread_mutex_unlock(&p->lock);
	for (int i = 1; i <= p->n_started; i++)
		pthread_join(p->workers[i].thread, NULL);
	pthread_cond_destroy(&p->done);
	pthread_cond_destroy(&p->wake);
	pthread_mutex_destroy(&p->lock);
	pthread_mutex_destroy(&p->turn);
	pal__free(p);
}

int pal__pool_threads(const pal__pool *p)
{
	return p->n_threads;
}

int pal__cpu_count(void)
{
	cpu_set_t set;
	if (sched_getaffinity(0, sizeof set, &set) != 0)
		return 1;
	int n = CPU_COUNT(&set);
	return n < 1 ? 1 : n > PAL_MAX_THREADS ? PAL_MAX_THREADS : n;
}
