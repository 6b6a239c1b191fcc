#include "draft/sample.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"

static pal_sampling plain(float temperature)
{
	return (pal_sampling){
		.temperature = temperature, .top_p = 1, .repeat_penalty = 1, .repeat_last = 64};
}

static pal__sampler *make(int32_t n, pal_sampling p)
{
	pal__sampler *s = NULL;
	pal_error err;
	assert_int_equal(pal__sampler_new(n, &p, &s, &err), PAL_OK);
	return s;
}

static int32_t once(const float *x, int32_t n, pal_sampling p, const int32_t *log, int64_t n_log)
{
	pal__sampler *s = make(n, p);
	int32_t id = pal__sample(s, x, log, n_log);
	pal__sampler_free(s);
	return id;
}

static void greedy(void **state)
{
	(void)state;
	const float ties[] = {1, 3, 3, 2}, none[] = {NAN, NAN}, some[] = {NAN, -INFINITY, NAN};
	const float infinite[] = {0, INFINITY, INFINITY};
	assert_int_equal(once(ties, 4, plain(0), NULL, 0), 1);
	assert_int_equal(once(none, 2, plain(0), NULL, 0), 0);
	assert_int_equal(once(some, 3, plain(0), NULL, 0), 1);
	assert_int_equal(once(infinite, 3, plain(0), NULL, 0), 1);
}

static void penalty_counts_each_id_once(void **state)
{
	(void)state;
	const float x[] = {4, 3.5f, -1, 0};
	pal_sampling p = plain(0);
	p.repeat_penalty = 1.1f; /* 4 / 1.1 > 3.5, but 4 / 1.21 is not */
	const int32_t twice[] = {0, 0, 2}, both[] = {0, 1, 1, 1};
	assert_int_equal(once(x, 4, p, twice, 3), 0);
	p.repeat_penalty = 1.5f;
	assert_int_equal(once(x, 4, p, twice, 3), 1);
	p.repeat_last = 1; /* only id 2 is looked at */
	assert_int_equal(once(x, 4, p, twice, 3), 0);
	p.repeat_last = 0;
	assert_int_equal(once(x, 4, p, twice, 3), 0);
	p.repeat_last = 100;
	assert_int_equal(once(x, 4, p, both, 4), 0);
	const float negative[] = {-1, -1.2f};
	const int32_t first[] = {0, -5, 99};
	assert_int_equal(once(negative, 2, p, first, 3), 1);
	/* The marks are cleared: the same sampler does the same again. */
	pal__sampler *s = make(4, p);
	for (int i = 0; i < 3; i++)
		assert_int_equal(pal__sample(s, x, twice, 3), 1);
	pal__sampler_free(s);
}

/* The definition, by sorting everything, in long double. keep[id]: probability. */
struct ref {
	long double p;
	float x;
	int32_t id;
};

static int by_logit(const void *a, const void *b)
{
	const struct ref *l = a, *r = b;
	if (l->x != r->x)
		return l->x > r->x ? -1 : 1;
	return l->id < r->id ? -1 : l->id > r->id;
}

static void normalise(struct ref *r, int n, double temperature)
{
	long double sum = 0;
	for (int i = 0; i < n; i++) {
		r[i].p = expl(((long double)r[i].x - (long double)r[0].x) /
			      (long double)temperature);
		sum += r[i].p;
	}
	for (int i = 0; i < n; i++)
		r[i].p /= sum;
}

static int reference(const float *x, int n, const pal_sampling *p, double *keep)
{
	struct ref *r = calloc((size_t)n, sizeof *r);
	for (int i = 0; i < n; i++)
		r[i] = (struct ref){0, x[i], i};
	qsort(r, (size_t)n, sizeof *r, by_logit);
	int m = p->top_k && p->top_k < n ? p->top_k : n;
	normalise(r, m, 1);
	if (p->top_p < 1) {
		long double sum = 0;
		int taken = 0;
		while (taken < m && (taken == 0 || sum < (long double)p->top_p))
			sum += r[taken++].p;
		m = taken;
	}
	while (r[m - 1].p < (long double)p->min_p * r[0].p)
		m--;
	normalise(r, m, (double)p->temperature);
	memset(keep, 0, (size_t)n * sizeof *keep);
	for (int i = 0; i < m; i++)
		keep[r[i].id] = (double)r[i].p;
	free(r);
	return m;
}

/* Draws many tokens at different places of the log: only those that the definition
 * keeps, about as often as it says (chi-square far below any plausible accident). */
static void compare(const float *x, int n, pal_sampling p)
{
	enum { DRAWS = 8000 };
	double *keep = calloc((size_t)n, sizeof *keep), chi = 0;
	int *seen = calloc((size_t)n, sizeof *seen), m = reference(x, n, &p, keep);
	int32_t *log = calloc(DRAWS, sizeof *log);
	pal__sampler *s = make(n, p);
	for (int i = 0; i < DRAWS; i++)
		seen[pal__sample(s, x, log, i)]++;
	for (int i = 0; i < n; i++) {
		double expected = keep[i] * DRAWS, d = seen[i] - expected;
		if (keep[i] == 0)
			assert_int_equal(seen[i], 0);
		else
			chi += d * d / expected;
	}
	assert_true(chi < m + 8 * sqrt(2.0 * m) + 20);
	pal__sampler_free(s);
	free(log);
	free(seen);
	free(keep);
}

static void filters_follow_their_definition(void **state)
{
	(void)state;
	enum { N = 60 };
	float x[N];
	for (int i = 0; i < N; i++)
		x[i] = (float)(pal__random(7, (uint64_t)i) % 41) / 16; /* with many ties */
	compare(x, N, plain(1));
	compare(x, N, plain(0.3f));
	for (int k = 1; k <= N + 1; k += 7) {
		pal_sampling p = plain(0.9f);
		p.top_k = k;
		compare(x, N, p);
		p.top_p = 0.7f;
		compare(x, N, p);
		p.min_p = 0.5f;
		compare(x, N, p);
	}
	for (int i = 0; i <= 10; i++) {
		pal_sampling p = plain(1.5f);
		p.top_p = (float)i / 10;
		p.seed = (uint64_t)i;
		compare(x, N, p);
		p.top_p = 1;
		p.min_p = (float)i / 10;
		compare(x, N, p);
	}
}

/* On large vocabularies the shortcuts of top-k and top-p keep exactly what sorting keeps:
 * seen by making every kept token equally likely (a huge temperature) and drawing all. */
static void selection_is_exact(void **state)
{
	(void)state;
	enum { N = 800, DRAWS = 5000 };
	static float x[N];
	static double keep[N];
	static bool seen[N];
	for (int round = 0; round < 12; round++) {
		for (int i = 0; i < N; i++) {
			uint64_t r = pal__random((uint64_t)round, (uint64_t)i);
			x[i] = (float)(r % 4096) / (round % 2 ? 256 : 2048);
		}
		pal_sampling p = plain(1000);
		p.top_k = round % 3 ? 0 : 40;
		p.top_p = 0.02f * (float)(round / 2 + 1);
		int m = reference(x, N, &p, keep), found = 0;
		assert_true(m < N / 5);
		pal__sampler *s = make(N, p);
		memset(seen, 0, sizeof seen);
		int32_t *log = calloc(DRAWS, sizeof *log);
		for (int i = 0; i < DRAWS; i++) {
			int32_t id = pal__sample(s, x, log, i);
			assert_true(keep[id] > 0);
			found += !seen[id];
			seen[id] = true;
		}
		assert_int_equal(found, m);
		free(log);
		pal__sampler_free(s);
	}
}

/* The definition once more, now to the bit: everything sorted, doubles in the order that the
 * header names. Returns the token. */
static double plain_weights(const struct ref *r, int n, float max, double temperature, double *w)
{
	double sum = 0;
	for (int i = 0; i < n; i++) {
		w[i] = r[i].x == max ? 1
				     : pal__exp_neg(((double)r[i].x - (double)max) / temperature);
		sum += w[i];
	}
	return sum;
}

static int32_t plainly(const float *x, int32_t n_vocab, const pal_sampling *p, int64_t n_log)
{
	static struct ref r[5000];
	static double w[5000];
	int n = 0, kept = 0;
	float max = -INFINITY;
	for (int32_t i = 0; i < n_vocab; i++)
		if (x[i] == x[i]) {
			r[n++] = (struct ref){0, x[i], i};
			max = x[i] > max ? x[i] : max;
		}
	if (!n)
		return 0;
	bool top_k = p->top_k > 0 && p->top_k < n_vocab;
	if (top_k) {
		qsort(r, (size_t)n, sizeof *r, by_logit);
		n = p->top_k < n ? p->top_k : n;
	}
	double sum = plain_weights(r, n, max, 1, w), got = 0;
	if (p->top_p < 1) {
		qsort(r, (size_t)n, sizeof *r, by_logit);
		plain_weights(r, n, max, 1, w);
		do
			got += w[kept++];
		while (kept < n && got < (double)p->top_p * sum);
		n = kept;
	}
	plain_weights(r, n, max, 1, w);
	kept = 0;
	for (int i = 0; i < n; i++)
		if (w[i] >= (double)p->min_p)
			r[kept++] = r[i];
	sum = plain_weights(r, kept, max, (double)p->temperature, w);
	double target = (double)(pal__random(p->seed, (uint64_t)n_log) >> 11) * 0x1p-53 * sum;
	int32_t id = r[0].id;
	got = 0;
	for (int i = 0; i < kept && !(got > target); i++) {
		id = w[i] > 0 ? r[i].id : id;
		got += w[i];
	}
	return id;
}

/* Logits of many kinds: wide and flat, few different ones, not numbers, infinite, huge. */
static void some_logits(float *x, int32_t n, uint64_t seed)
{
	static const float widths[] = {0.01f, 1, 4, 30, 1e30f};
	float width = widths[seed % 5];
	uint64_t kinds = seed / 5 % 4;
	for (int32_t i = 0; i < n; i++) {
		uint64_t r = pal__random(seed, (uint64_t)i);
		float u = (float)(r >> 40) / (1 << 24) + (float)(r & 0xffff) / (1 << 16) - 1;
		x[i] = u * width;
		if (kinds == 1)
			x[i] = (float)((int)(r >> 20) % 5) * width; /* and -0 */
		if (kinds == 2 && r % 7 == 0)
			x[i] = NAN;
		if (kinds == 3 && r % 97 < 3)
			x[i] = r % 97 == 0 ? -INFINITY : r % 97 == 1 ? -0.0f : NAN;
		if (kinds == 3 && seed % 3 == 0 && r % 911 == 5)
			x[i] = INFINITY;
	}
}

static void same_as_sorting_all(void **state)
{
	(void)state;
	static float x[5000];
	static const float p_values[] = {0, 1e-6f, 0.1f, 0.5f, 0.95f, 0.999f, 0.99999994f, 1, 1, 1};
	static const int32_t k_values[] = {0, 0, 0, 1, 2, 40, 300, 5000};
	const int32_t log[64] = {0};
	for (uint64_t seed = 0; seed < 1500; seed++) {
		uint64_t r = pal__random(99, seed);
		int32_t n = 1 + (int32_t)(r % (seed % 3 ? 300 : 5000));
		pal_sampling p = plain(seed % 4 ? 0.7f : 1);
		p.seed = seed;
		p.top_k = k_values[r >> 16 & 7];
		p.top_p = p_values[(r >> 20) % 10];
		p.min_p = r >> 28 & 1 ? p_values[(r >> 30) % 7] : 0;
		some_logits(x, n, seed);
		pal__sampler *s = make(n, p);
		for (int64_t at = 0; at < 5; at++) {
			int32_t want = plainly(x, n, &p, at), id = pal__sample(s, x, log, at);
			if (id != want)
				fail_msg("seed %d, token %d: %d, not %d; top-k %d, top-p %g, "
					 "min-p %g",
					 (int)seed, (int)at, id, want, p.top_k, (double)p.top_p,
					 (double)p.min_p);
		}
		pal__sampler_free(s);
	}
}

static void odd_logits(void **state)
{
	(void)state;
	const int32_t log[64] = {0};
	const float nans[] = {NAN, 1, NAN, 1}, all[] = {NAN, NAN, NAN};
	const float infinite[] = {5, INFINITY, -INFINITY, INFINITY};
	const float never[] = {-INFINITY, -INFINITY, NAN};
	for (int mode = 0; mode < 4; mode++)
		for (int i = 0; i < 64; i++) {
			pal_sampling p = plain(0.8f);
			p.top_k = mode & 1 ? 2 : 0;
			p.top_p = mode & 2 ? 0.9f : 1;
			int32_t id = once(nans, 4, p, log, i);
			assert_true(id == 1 || id == 3);
			id = once(infinite, 4, p, log, i);
			assert_true(id == 1 || id == 3);
			assert_int_equal(once(all, 3, p, log, i), 0);
			id = once(never, 3, p, log, i);
			assert_true(id == 0 || id == 1);
		}
}

static void place_and_seed_decide(void **state)
{
	(void)state;
	float x[256] = {0};
	int32_t log[32] = {0}, first[32], same = 0;
	pal_sampling p = plain(1);
	p.seed = 42;
	pal__sampler *s = make(256, p);
	for (int i = 0; i < 32; i++)
		first[i] = pal__sample(s, x, log, i);
	for (int i = 31; i >= 0; i--)
		assert_int_equal(pal__sample(s, x, log, i), first[i]);
	pal__sampler_free(s);
	p.seed = 43;
	s = make(256, p);
	for (int i = 0; i < 32; i++)
		same += pal__sample(s, x, log, i) == first[i];
	assert_true(same < 5);
	pal__sampler_free(s);
	/* Fixed for all machines and versions: seeds in evidence files depend on it. SplitMix64
	 * with seed 0 starts e220a8397b1dcdaf; here the state is that number. */
	assert_true(pal__random(0, 0) == 0xa706dd2f4d197e6fu);
	assert_true(pal__random(0, 1) != pal__random(1, 0));
}

static void exp_is_accurate(void **state)
{
	(void)state;
	for (int i = 0; i < 100000; i++) {
		double x =
			-(double)(pal__random(3, (uint64_t)i) >> 11) * 0x1p-53 * (i % 2 ? 700 : 1);
		long double e = expl((long double)x), d = (long double)pal__exp_neg(x) - e;
		assert_true(fabsl(d) <= 1e-15L * e);
	}
	assert_true(pal__exp_neg(0) == 1);
	assert_true(pal__exp_neg(-709) == 0);
	assert_true(pal__exp_neg(-INFINITY) == 0);
	assert_true(pal__exp_neg(-708) > 0);
}

static void bad_parameters(void **state)
{
	(void)state;
	const struct {
		pal_sampling p;
		const char *text;
	} bad[] = {
		{{.temperature = -1, .top_p = 1, .repeat_penalty = 1}, "temperature -1"},
		{{.temperature = NAN, .top_p = 1, .repeat_penalty = 1}, "temperature nan"},
		{{.top_k = -1, .top_p = 1, .repeat_penalty = 1}, "top-k -1"},
		{{.top_p = 1.5f, .repeat_penalty = 1}, "top-p 1.5"},
		{{.top_p = 1, .min_p = -2, .repeat_penalty = 1}, "min-p -2"},
		{{.top_p = 1, .repeat_penalty = 0}, "repetition penalty 0"},
		{{.top_p = 1, .repeat_penalty = 1, .repeat_last = -3}, "over -3 tokens"},
	};
	pal__sampler *s = NULL;
	pal_error err;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		assert_int_equal(pal__sampler_new(8, &bad[i].p, &s, &err), PAL_EINVAL);
		assert_non_null(strstr(err.text, bad[i].text));
	}
	pal_sampling good = plain(1);
	assert_int_equal(pal__sampler_new(0, &good, &s, &err), PAL_EINVAL);
	assert_null(s);
}

static void allocation_failures(void **state)
{
	(void)state;
	pal_sampling p = plain(1);
	pal_status status = PAL_ENOMEM;
	int64_t before = pal__mem_live();
	for (int i = 0; status; i++) {
		pal__sampler *s = NULL;
		pal_error err;
		pal__mem_fail_after(i);
		status = pal__sampler_new(8, &p, &s, &err);
		pal__mem_fail_after(-1);
		assert_true(status == PAL_OK || status == PAL_ENOMEM);
		pal__sampler_free(s);
		assert_int_equal(pal__mem_live(), before);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(greedy),
		cmocka_unit_test(penalty_counts_each_id_once),
		cmocka_unit_test(filters_follow_their_definition),
		cmocka_unit_test(selection_is_exact),
		cmocka_unit_test(same_as_sorting_all),
		cmocka_unit_test(odd_logits),
		cmocka_unit_test(place_and_seed_decide),
		cmocka_unit_test(exp_is_accurate),
		cmocka_unit_test(bad_parameters),
		cmocka_unit_test(allocation_failures),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
