/* Prompt lookup beside its definition: random logs that repeat themselves, grow and are cut. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/mem.h"
#include "draft/source.h"
#include "tokens.h"

#define MOST PAL__DRAFT_MOST
#define STEPS 8
#define LONGEST 64

static int match(const int32_t *log, int64_t a, int64_t b)
{
	int n = 0;
	while (n < LONGEST && a - n >= 0 && log[a - n] == log[b - n])
		n++;
	return n;
}

/* What the module's first comment says. Returns the match's length, 0: none. */
static int naive(const int32_t *log, int64_t n, int64_t *place)
{
	static const int lengths[] = {16, 8, 4, 2, 1};
	for (int i = 0; i < 5; i++) {
		int best = 0, seen = 0;
		for (int64_t p = n - 2; p >= 0 && seen < STEPS && best < LONGEST; p--) {
			int m = match(log, p, n - 1);
			seen += m >= lengths[i];
			if (m >= lengths[i] && m > best) {
				best = m;
				*place = p;
			}
		}
		if (best)
			return best;
	}
	return 0;
}

static pal__draft_source *make(size_t window)
{
	pal__draft_source *s = NULL;
	pal_error err;
	if (pal__draft_ngram(window, &s, &err))
		fail_msg("%s", err.text);
	return s;
}

static int ask(pal__draft_source *s, const int32_t *log, int64_t n, int32_t out[MOST],
	       uint8_t sure[MOST])
{
	const pal__draft_view v = {.log = log, .n = n};
	int got = s->propose(s, &v, out, sure, MOST);
	for (int i = 0; i < got; i++) {
		assert_true(sure[i] < PAL__DRAFT_BUCKETS);
		assert_true(!i || sure[i] >= sure[i - 1]);
	}
	return got;
}

static void check(pal__draft_source *s, const int32_t *log, int64_t n)
{
	int32_t out[MOST];
	uint8_t sure[MOST];
	int64_t place = 0;
	int m = naive(log, n, &place);
	assert_int_equal(ask(s, log, n, out, sure), m ? MOST : 0);
	for (int i = 0; i < MOST && m; i++) /* the periodic continuation */
		assert_int_equal(out[i], log[place + 1 + i % (n - 1 - place)]);
}

static void equals_its_definition(void **state)
{
	(void)state;
	enum { N = 400 };
	int32_t log[N];
	for (uint64_t seed = 0; seed < 120; seed++) {
		uint64_t random = seed;
		uint32_t alphabet = 1 + below(&random, seed % 2 ? 4 : 300);
		pal__draft_source *s = make(1 << 15);
		random_text(&random, log, 0, N, alphabet);
		for (int64_t n = 1, known = 0; n < N;) {
			s->observe(s, log, known, n - 1);
			check(s, log, n);
			known = n - 1;
			if (below(&random, 20) == 0) { /* cut, and another way from there */
				n = 1 + below(&random, (uint32_t)n);
				known = n - 1;
				random_text(&random, log, (size_t)n - 1, N, alphabet);
			}
			n += 1 + below(&random, 9);
		}
		s->close(s);
	}
}

/* Logs far longer than the window, cut as deep as they are: whatever is proposed stood in the
 * window behind the last token. */
static void small_windows(void **state)
{
	(void)state;
	enum { N = 3000 };
	static int32_t log[N];
	int32_t out[MOST];
	uint8_t sure[MOST];
	for (uint64_t seed = 0; seed < 60; seed++) {
		uint64_t random = seed + 1000;
		int64_t window = seed % 3 ? 64 : 16;
		pal__draft_source *s = make(seed % 3 ? 50 : 1);
		random_text(&random, log, 0, N, 3 + below(&random, 60));
		for (int64_t n = 1, known = 0; n < N;) {
			s->observe(s, log, known, n - 1);
			int got = ask(s, log, n, out, sure);
			bool found = !got;
			for (int64_t p = n - 2; p >= 0 && p >= n - 1 - window && !found; p--) {
				found = log[p] == log[n - 1];
				for (int i = 0; i < MOST && found; i++)
					found = out[i] == log[p + 1 + i % (n - 1 - p)];
			}
			assert_true(found);
			known = n - 1;
			if (below(&random, 50) == 0) {
				n = 1 + below(&random, (uint32_t)n);
				known = n - 1;
				random_text(&random, log, (size_t)n - 1, N, 50);
			}
			n += 1 + below(&random, 99);
		}
		for (int64_t i = 0; i < N; i++)
			log[i] = (int32_t)(i % 7);
		s->observe(s, log, 0, 2000);
		assert_int_equal(ask(s, log, 2001, out, sure), MOST);
		for (int i = 0; i < MOST; i++)
			assert_int_equal(out[i], log[2001 + i]);
		s->close(s);
	}
}

/* A cut deeper than the window: the same as if what is gone had never been. */
static void deep_cuts(void **state)
{
	(void)state;
	enum { N = 600 };
	int32_t log[N], out[2][MOST];
	uint8_t sure[2][MOST];
	for (uint64_t seed = 0; seed < 40; seed++) {
		uint64_t random = seed;
		random_text(&random, log, 0, N, 20);
		pal__draft_source *s = make(64), *fresh = make(64);
		int64_t cut = 300 + below(&random, 220);
		for (int64_t n = 0; n < N; n += 50)
			s->observe(s, log, n, n + 50);
		random_text(&random, log, (size_t)cut, N, 20);
		s->observe(s, log, cut, cut + 10);
		fresh->observe(fresh, log, 0, cut + 10);
		for (int64_t n = cut + 11; n < N; n++) {
			int got = ask(s, log, n, out[0], sure[0]);
			assert_int_equal(ask(fresh, log, n, out[1], sure[1]), got);
			assert_memory_equal(out[0], out[1], (size_t)got * sizeof **out);
			s->observe(s, log, n - 1, n);
			fresh->observe(fresh, log, n - 1, n);
		}
		s->close(s);
		fresh->close(fresh);
	}
}

static void sureness(void **state)
{
	(void)state;
	int32_t log[200], out[MOST];
	uint8_t sure[MOST];
	pal__draft_source *s = make(1024);
	for (int i = 0; i < 200; i++)
		log[i] = i < 100 ? i : i - 100;
	assert_int_equal(ask(s, log, 1, out, sure), 0);
	s->observe(s, log, 0, 100);
	assert_int_equal(ask(s, log, 101, out, sure), MOST);
	assert_int_equal(sure[0], 0); /* one token agrees */
	assert_int_equal(sure[7], 7); /* eight will, if those before are right */
	s->observe(s, log, 100, 180);
	assert_int_equal(ask(s, log, 181, out, sure), MOST);
	assert_int_equal(sure[0], PAL__DRAFT_BUCKETS - 1);
	/* Of another log, that it was never told of, it knows nothing; and not more than asked. */
	assert_int_equal(ask(s, log, 50, out, sure), 0);
	const pal__draft_view v = {.log = log, .n = 181};
	assert_int_equal(s->propose(s, &v, out, sure, 1), 1);
	s->close(s);
}

static void out_of_memory(void **state)
{
	(void)state;
	pal_status st = PAL_ENOMEM;
	for (int n = 0; st; n++) {
		pal__draft_source *s = NULL;
		pal_error err = {0};
		int64_t live = pal__mem_live();
		pal__mem_fail_after(n);
		st = pal__draft_ngram(100, &s, &err);
		bool failed = pal__mem_failed();
		pal__mem_fail_after(-1);
		assert_int_equal(st, failed ? PAL_ENOMEM : PAL_OK);
		assert_true(!st || (strstr(err.text, "out of memory") && n < 2));
		if (!st)
			s->close(s);
		assert_int_equal(pal__mem_live(), live);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(equals_its_definition),
		cmocka_unit_test(small_windows),
		cmocka_unit_test(deep_cuts),
		cmocka_unit_test(sureness),
		cmocka_unit_test(out_of_memory),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
