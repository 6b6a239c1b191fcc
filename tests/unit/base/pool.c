#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/pool.h"

#define MAX_ITEMS 3000

typedef struct {
	uint64_t out[MAX_ITEMS]; /* plain memory: a missing barrier is a race that TSan sees */
	uint32_t done[MAX_ITEMS];
	uint64_t factor;
	int n_threads;
	atomic_int bad_worker;
} loop;

static void item(void *arg, size_t i, int worker)
{
	loop *l = arg;
	if (worker < 0 || worker >= l->n_threads)
		atomic_fetch_add(&l->bad_worker, 1);
	l->out[i] = l->factor * (i + 1);
	l->done[i]++;
}

static uint32_t next_random(uint32_t *seed)
{
	*seed = *seed * 1664525u + 1013904223u;
	return *seed >> 8;
}

static void random_loops(void **state)
{
	(void)state;
	static loop l;
	uint32_t seed = 12345;
	for (int n_threads = 1; n_threads <= 8; n_threads++) {
		pal__pool *p;
		assert_int_equal(pal__pool_new(n_threads, NULL, &p, NULL), PAL_OK);
		assert_int_equal(pal__pool_threads(p), n_threads);
		for (int round = 0; round < 300; round++) {
			size_t n = next_random(&seed) % (round % 10 ? 20 : MAX_ITEMS);
			memset(l.done, 0, sizeof l.done);
			l.factor = next_random(&seed);
			l.n_threads = n_threads;
			pal__pool_run(p, n, item, &l);
			for (size_t i = 0; i < MAX_ITEMS; i++)
				if (l.done[i] != (i < n) ||
				    (i < n && l.out[i] != l.factor * (i + 1)))
					fail_msg("%d threads, round %d, item %zu of %zu: done %u "
						 "times",
						 n_threads, round, i, n, l.done[i]);
			if (round % 50 == 49)
				usleep(2000); /* long enough for all workers to sleep */
		}
		assert_int_equal(atomic_load(&l.bad_worker), 0);
		pal__pool_free(p);
	}
}

/* Each loop reads what the one before has written, without any lock of its own. */
static void add_neighbours(void *arg, size_t i, int worker)
{
	uint64_t *v = arg;
	(void)worker;
	v[256 + i] = v[i] + v[(i + 1) % 256];
}

static void copy_back(void *arg, size_t i, int worker)
{
	uint64_t *v = arg;
	(void)worker;
	v[i] = v[256 + i] % 1000003;
}

static void loops_see_the_last(void **state)
{
	(void)state;
	static uint64_t v[512], want[512];
	for (int n_threads = 1; n_threads <= 5; n_threads += 2) {
		pal__pool *p;
		assert_int_equal(pal__pool_new(n_threads, NULL, &p, NULL), PAL_OK);
		for (size_t i = 0; i < 256; i++)
			v[i] = i * i;
		for (int round = 0; round < 200; round++) {
			pal__pool_run(p, 256, add_neighbours, v);
			pal__pool_run(p, 256, copy_back, v);
		}
		pal__pool_free(p);
		if (n_threads == 1)
			memcpy(want, v, sizeof v);
		assert_memory_equal(v, want, sizeof v);
	}
}

typedef struct {
	pal__pool *pool;
	size_t n;
	uint64_t sum[MAX_ITEMS];
} caller;

static void count_item(void *arg, size_t i, int worker)
{
	caller *c = arg;
	(void)worker;
	c->sum[i]++;
}

static void *call_often(void *arg)
{
	caller *c = arg;
	for (int i = 0; i < 200; i++)
		pal__pool_run(c->pool, c->n, count_item, c);
	return NULL;
}

static void callers_take_turns(void **state)
{
	(void)state;
	static caller callers[3];
	pthread_t threads[3];
	pal__pool *p;
	assert_int_equal(pal__pool_new(3, NULL, &p, NULL), PAL_OK);
	for (size_t i = 0; i < 3; i++) {
		callers[i].pool = p;
		callers[i].n = 1 + 13 * i; /* one item too: the loop that needs no worker */
		assert_int_equal(pthread_create(&threads[i], NULL, call_often, &callers[i]), 0);
	}
	for (size_t i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	for (size_t i = 0; i < 3; i++)
		for (size_t k = 0; k < MAX_ITEMS; k++)
			assert_int_equal(callers[i].sum[k], k < callers[i].n ? 200 : 0);
	pal__pool_free(p);
}

/* Claimed in ascending order: with one thread, done in that order. */
static void in_order(void *arg, size_t i, int worker)
{
	size_t *next = arg;
	(void)worker;
	assert_int_equal(i, *next);
	++*next;
}

static void one_thread_in_order(void **state)
{
	(void)state;
	size_t next = 0;
	pal__pool *p;
	assert_int_equal(pal__pool_new(1, NULL, &p, NULL), PAL_OK);
	pal__pool_run(p, 1000, in_order, &next);
	assert_int_equal(next, 1000);
	pal__pool_run(p, 0, in_order, &next);
	assert_int_equal(next, 1000);
	pal__pool_free(p);
}

/* As many threads as there are CPUs in the set, which they keep to; to those who split work,
 * all. */
static void kept_to_cpus(void **state)
{
	(void)state;
	static loop l;
	cpu_set_t cpus, one;
	assert_int_equal(sched_getaffinity(0, sizeof cpus, &cpus), 0);
	CPU_ZERO(&one);
	for (size_t i = 0; i < CPU_SETSIZE && !CPU_COUNT(&one); i++)
		if (CPU_ISSET(i, &cpus))
			CPU_SET(i, &one);
	for (int round = 0; round < 2; round++) {
		pal__pool *p;
		int n = round ? CPU_COUNT(&cpus) : 1;
		n = n < 8 ? n : 8;
		assert_int_equal(pal__pool_new(8, round ? &cpus : &one, &p, NULL), PAL_OK);
		assert_int_equal(pal__pool_threads(p), 8);
		memset(l.done, 0, sizeof l.done);
		l.n_threads = n;
		for (int i = 0; i < 100; i++)
			pal__pool_run(p, 1000, item, &l);
		for (size_t i = 0; i < 1000; i++)
			assert_int_equal(l.done[i], 100);
		assert_int_equal(atomic_load(&l.bad_worker), 0);
		pal__pool_free(p);
	}
}

static int64_t cpu_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void slow_item(void *arg, size_t i, int worker)
{
	(void)arg, (void)worker;
	if (i == 0)
		usleep(100000);
}

/* Neither idle workers nor a caller that waits for the last item burn a core. */
static void waiting_is_cheap(void **state)
{
	(void)state;
	pal__pool *p;
	assert_int_equal(pal__pool_new(8, NULL, &p, NULL), PAL_OK);
	int64_t start = cpu_ns();
	for (int i = 0; i < 3; i++)
		pal__pool_run(p, 16, slow_item, NULL);
	usleep(100000);
	assert_true(cpu_ns() - start < 150 * 1000000); /* of 400 ms in 8 threads */
	pal__pool_free(p);
}

static void short_lived(void **state)
{
	(void)state;
	static loop l;
	int64_t live = pal__mem_live();
	l.n_threads = 4;
	for (int round = 0; round < 100; round++) {
		pal__pool *p;
		assert_int_equal(pal__pool_new(4, NULL, &p, NULL), PAL_OK);
		if (round % 2)
			pal__pool_run(p, 5, item, &l);
		pal__pool_free(p);
	}
	pal__pool_free(NULL);
	assert_int_equal(pal__mem_live(), live);
}

static void refused(void **state)
{
	(void)state;
	pal__pool *p = NULL;
	pal_error err;
	assert_int_equal(pal__pool_new(0, NULL, &p, &err), PAL_EINVAL);
	assert_string_equal(err.text, "0 threads: 1 to 256 are possible");
	assert_int_equal(pal__pool_new(PAL_MAX_THREADS + 1, NULL, &p, &err), PAL_EINVAL);
	pal__mem_fail_after(0);
	assert_int_equal(pal__pool_new(2, NULL, &p, &err), PAL_ENOMEM);
	pal__mem_fail_after(-1);
	assert_null(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_loops),       cmocka_unit_test(loops_see_the_last),
		cmocka_unit_test(callers_take_turns), cmocka_unit_test(one_thread_in_order),
		cmocka_unit_test(kept_to_cpus),       cmocka_unit_test(waiting_is_cheap),
		cmocka_unit_test(short_lived),        cmocka_unit_test(refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
