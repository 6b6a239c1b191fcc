#include "base/pool.h"

#include <assert.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"

/* How long to spin before sleeping: longer than the serial work between two loops of a
 * forward pass, and about what it takes to sleep and be woken; far shorter than a
 * scheduler's time slice, so that little is lost where another process has the core that
 * is waited for. */
#define SPIN_S 25e-6
#define SPINS_A_LOOK 32 /* between two looks at the clock */

struct worker {
	pthread_t thread;
	pal__pool *pool;
	int index;
};

#define ALONE _Alignas(PAL__ALIGN) /* in a cache line with nothing that others write */

/* A loop is published by storing `next` and then `generation`. Threads claim items by
 * counting `next` down; it carries the loop's number in its upper half, so that a late
 * worker cannot claim an item of a loop that it has not seen. Whoever has claimed an item
 * may read fn, arg and n_items: they stay until every item is done. */
struct pal__pool {
	ALONE _Atomic uint32_t generation;
	_Atomic bool quit; /* with a new generation */
	pal__pool_fn fn;
	void *arg;
	uint32_t n_items;
	ALONE _Atomic uint64_t next; /* generation << 32 | items not claimed */
	ALONE _Atomic uint32_t left; /* items not finished */
	_Atomic bool caller_sleeps;
	ALONE _Atomic uint32_t sleepers;
	pthread_mutex_t turn; /* held by the caller for a whole loop */
	int n_threads, n_started;
	size_t bytes; /* of the pool */
	struct worker workers[];
};

static inline void relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("isb"); /* some 30 cycles, where yield takes one */
#endif
}

/* Until *at is `value`, or is not; false: time is up. */
static bool spin(_Atomic uint32_t *at, uint32_t value, bool is)
{
	double end = 0;
	for (;;) {
		for (int i = 0; i < SPINS_A_LOOK; i++) {
			if ((atomic_load(at) == value) == is)
				return true;
			relax();
		}
		double now = pal__now();
		if (end == 0)
			end = now + SPIN_S;
		if (now >= end)
			return false;
	}
}

/* Sleeps until woken, if *at is still `value`; may return for no reason. */
static void sleep_on(_Atomic uint32_t *at, uint32_t value)
{
	syscall(SYS_futex, at, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void wake(_Atomic uint32_t *at, uint32_t most)
{
	syscall(SYS_futex, at, FUTEX_WAKE_PRIVATE, most < INT_MAX ? (int)most : INT_MAX, NULL, NULL,
		0);
}

/* Does items of loop `gen` until none is left to claim. */
static void work(pal__pool *p, uint32_t gen, int worker)
{
	uint64_t at = atomic_load(&p->next);
	while ((uint32_t)(at >> 32) == gen && (uint32_t)at != 0) {
		if (!atomic_compare_exchange_weak(&p->next, &at, at - 1))
			continue;
		p->fn(p->arg, p->n_items - (uint32_t)at, worker);
		/* The caller may be gone, with the loop, as soon as `left` is 0. */
		if (atomic_fetch_sub(&p->left, 1) == 1 && atomic_load(&p->caller_sleeps))
			wake(&p->left, 1);
		at = atomic_load(&p->next);
	}
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	pal__pool *p = w->pool;
	uint32_t seen = 0;
	for (;;) {
		/* The caller raises the generation before it looks for sleepers, and we say
		 * that we sleep before the system looks at the generation: one sees the other. */
		if (!spin(&p->generation, seen, false)) {
			atomic_fetch_add(&p->sleepers, 1);
			while (atomic_load(&p->generation) == seen)
				sleep_on(&p->generation, seen);
			atomic_fetch_sub(&p->sleepers, 1);
		}
		if (atomic_load(&p->quit))
			return NULL;
		seen = atomic_load(&p->generation);
		work(p, seen, w->index);
	}
}

static void publish(pal__pool *p, uint32_t most)
{
	atomic_fetch_add(&p->generation, 1);
	if (atomic_load(&p->sleepers))
		wake(&p->generation, most);
}

static void run_items(pal__pool *p, uint32_t n, pal__pool_fn fn, void *arg)
{
	uint32_t gen = atomic_load(&p->generation) + 1;
	p->fn = fn;
	p->arg = arg;
	p->n_items = n;
	atomic_store(&p->left, n);
	atomic_store(&p->next, (uint64_t)gen << 32 | n);
	publish(p, n - 1);
	work(p, gen, 0);
	if (spin(&p->left, 0, true))
		return;
	atomic_store(&p->caller_sleeps, true);
	for (uint32_t left; (left = atomic_load(&p->left)) != 0;)
		sleep_on(&p->left, left);
	atomic_store(&p->caller_sleeps, false);
}

void pal__pool_run(pal__pool *p, size_t n_items, pal__pool_fn fn, void *arg)
{
	assert(n_items <= UINT32_MAX);
	if (!n_items)
		return;
	pthread_mutex_lock(&p->turn);
	if (!p->n_started || n_items == 1) {
		for (size_t i = 0; i < n_items; i++)
			fn(arg, i, 0);
	} else {
		run_items(p, (uint32_t)n_items, fn, arg);
	}
	pthread_mutex_unlock(&p->turn);
}

pal_status pal__pool_new(int n_threads, const cpu_set_t *cpus, pal__pool **out, pal_error *err)
{
	if (n_threads < 1 || n_threads > PAL_MAX_THREADS)
		return pal__fail(err, PAL_EINVAL, "%d threads: 1 to %d are possible", n_threads,
				 PAL_MAX_THREADS);
	size_t size = sizeof(pal__pool) + (size_t)n_threads * sizeof(struct worker);
	pal__pool *p = pal__alloc_aligned(size);
	if (!p)
		return pal__fail_memory(err, "the thread pool", size);
	p->bytes = size;
	p->n_threads = n_threads;
	pthread_mutex_init(&p->turn, NULL);
	for (int i = 1; i < n_threads && (!cpus || i < CPU_COUNT(cpus)); i++) {
		struct worker *w = &p->workers[i];
		*w = (struct worker){.pool = p, .index = i};
		int e = pthread_create(&w->thread, NULL, worker_main, w);
		if (e) {
			pal__pool_free(p);
			return pal__fail(err, PAL_EIO, "cannot start thread %d of %d: %s", i,
					 n_threads, strerror(e));
		}
		p->n_started++;
		if (cpus) /* if the system forbids it, the thread is only slower */
			pthread_setaffinity_np(w->thread, sizeof *cpus, cpus);
	}
	*out = p;
	return PAL_OK;
}

void pal__pool_free(pal__pool *p)
{
	if (!p)
		return;
	atomic_store(&p->quit, true);
	publish(p, INT_MAX);
	for (int i = 1; i <= p->n_started; i++)
		pthread_join(p->workers[i].thread, NULL);
	pthread_mutex_destroy(&p->turn);
	pal__free_aligned(p, p->bytes);
}

int pal__pool_threads(const pal__pool *p)
{
	return p->n_threads;
}
