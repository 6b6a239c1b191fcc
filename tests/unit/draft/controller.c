/* The controller beside its definition, with made-up times: when it drafts, how much, and when it
 * lets a source sleep. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "draft/controller.h"
#include "tokens.h"

#define MOST PAL__DRAFT_MOST

/* Passes of n rows that take first + more * (n - 1) seconds. */
static pal__controller timed(double first, double more)
{
	pal__controller c;
	pal__controller_init(&c);
	for (int rows = 1; rows <= MOST + 1; rows++)
		pal__controller_passed(&c, rows, first + more * (rows - 1));
	return c;
}

static void teach(pal__controller *c, size_t source, uint8_t degree, int right, int of)
{
	for (int i = 0; i < of; i++)
		pal__controller_guessed(c, source, degree, i % of < right);
}

static void unknown_times(void **state)
{
	(void)state;
	pal__controller c;
	double rate;
	uint8_t sure[4] = {0};
	pal__controller_init(&c);
	assert_true(pal__controller_pass(&c, 1) == 0);
	assert_true(pal__controller_plain(&c) == 0);
	assert_int_equal(pal__controller_length(&c, 0, sure, 4, &rate), 4);
	pal__controller_passed(&c, 1, 0);
	pal__controller_passed(&c, 1, -1);
	assert_true(pal__controller_pass(&c, 1) == 0);
	/* A little more for each row beyond the last one that is known, and between two of them. */
	pal__controller_passed(&c, 1, 1);
	assert_true(pal__controller_pass(&c, 5) > 1 && pal__controller_pass(&c, 5) < 1.5);
	pal__controller_passed(&c, 5, 3);
	assert_float_equal(pal__controller_pass(&c, 3), 2, 1e-9);
}

static void outliers(void **state)
{
	(void)state;
	pal__controller c = timed(1, 0);
	pal__controller_passed(&c, 1, 1e6);
	assert_true(pal__controller_pass(&c, 1) < 2);
	for (int i = 0; i < 1000; i++)
		pal__controller_passed(&c, 1, 3);
	assert_float_equal(pal__controller_pass(&c, 1), 3, 1e-3);
}

/* What makes passes of one row slower makes others slower, too: they follow half the way, and all
 * of it when they are made again. */
static void together(void **state)
{
	(void)state;
	pal__controller c = timed(1, 0.1);
	for (int i = 0; i < 1000; i++)
		pal__controller_passed(&c, 1, 2);
	assert_float_equal(pal__controller_pass(&c, 1), 2, 1e-3);
	double other = pal__controller_pass(&c, 9);
	assert_true(other > 1.3 * 1.8 && other < 1.6 * 1.8);
	for (int i = 0; i < 1000; i++)
		pal__controller_passed(&c, i % 2 ? 1 : 9, i % 2 ? 2 : 3.6);
	assert_float_equal(pal__controller_pass(&c, 9), 3.6, 1e-3);
	assert_float_equal(pal__controller_pass(&c, 1), 2, 1e-3);
	pal__controller_init(&c);
	pal__controller_passed(&c, 1, 1);
	pal__controller_passed(&c, 2, 1e6); /* the first of its kind, too, can be an outlier */
	assert_true(pal__controller_pass(&c, 2) < 5);
}

/* The length is that of most tokens a second by the chances that were taught. */
static void lengths(void **state)
{
	(void)state;
	uint64_t random = 5;
	for (int round = 0; round < 200; round++) {
		double more = (double)below(&random, 100) / 100, tokens = 1, chance = 1, best = 0;
		pal__controller c = timed(1, more);
		int of = 20 + (int)below(&random, 200), right = (int)below(&random, of + 1);
		int n = 1 + (int)below(&random, MOST), want = 0;
		uint8_t sure[MOST];
		for (int i = 0; i < MOST; i++)
			sure[i] = 3;
		teach(&c, 2, 3, right, of);
		double p = (double)(c.degrees[2][3].right / c.degrees[2][3].of), rate;
		assert_in_range((int)(p * 1000), 0, 1000);
		for (int i = 0; i < n; i++) {
			chance *= p;
			tokens += chance;
			double now = tokens / pal__controller_pass(&c, i + 2);
			if (now > best) {
				best = now;
				want = i + 1;
			}
		}
		assert_int_equal(pal__controller_length(&c, 2, sure, n, &rate), want);
		assert_float_equal(rate, best, 1e-9 * best);
	}
}

/* Nearly free rows and sure guesses: long drafts. Dear rows or wrong guesses: not worth it. */
static void worth(void **state)
{
	(void)state;
	uint8_t sure[MOST] = {0};
	double rate;
	pal__controller cheap = timed(1, 0.01), dear = timed(1, 1);
	teach(&cheap, 0, 0, 100, 100);
	teach(&dear, 0, 0, 100, 100);
	assert_int_equal(pal__controller_length(&cheap, 0, sure, MOST, &rate), MOST);
	assert_true(rate > pal__controller_plain(&cheap));
	pal__controller_length(&dear, 0, sure, MOST, &rate);
	assert_true(rate < pal__controller_plain(&dear));
	teach(&cheap, 0, 0, 0, 1000);
	pal__controller_length(&cheap, 0, sure, MOST, &rate);
	assert_true(rate < pal__controller_plain(&cheap));
	/* Degrees and sources are learnt apart. */
	for (int i = 0; i < MOST; i++)
		sure[i] = PAL__DRAFT_BUCKETS - 1;
	assert_true(pal__controller_length(&cheap, 0, sure, MOST, &rate) > 1);
	/* A degree that is none counts as the least sure one. */
	sure[0] = 255;
	pal__controller_length(&cheap, 0, sure, 1, &rate);
	assert_true(rate < pal__controller_plain(&cheap));
}

/* The steps from one waking to the next. */
static int sleep_of(pal__controller *c, size_t source)
{
	int steps = 0;
	while (!pal__controller_awake(c, source))
		steps++;
	return steps;
}

static void naps(void **state)
{
	(void)state;
	pal__controller c = timed(1, 0.1);
	int last = 0, longest = 0;
	for (int nap = 0; nap < 20; nap++) {
		int steps = 0, slept;
		while (steps < 1000 && c.sources[0].sleeps == 0) {
			pal__controller_stepped(&c, 0, 1e-3, 0,
						0); /* it costs, and brings nothing */
			steps++;
		}
		assert_true(steps < 1000);
		slept = sleep_of(&c, 0);
		assert_true(slept > last || slept == longest);
		last = slept;
		longest = slept > longest ? slept : longest;
	}
	assert_true(longest <= 1024);
	/* What pays again is trusted again, and other sources never slept. */
	for (int i = 0; i < 1000; i++) {
		pal__controller_stepped(&c, 0, 1e-3, 5, 5);
		assert_true(pal__controller_awake(&c, 0));
	}
	assert_true(pal__controller_awake(&c, 1));
	while (c.sources[0].sleeps == 0)
		pal__controller_stepped(&c, 0, 1e-3, 5, 1);
	assert_true(sleep_of(&c, 0) < longest);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(unknown_times), cmocka_unit_test(outliers),
		cmocka_unit_test(together),      cmocka_unit_test(lengths),
		cmocka_unit_test(worth),         cmocka_unit_test(naps),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
