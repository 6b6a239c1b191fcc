/* The automaton beside what its header says, told of all substrings of short texts. */
#include "draft/automaton.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tokens.h"

#define N 48 /* fewer than the states that are told of a token */

static bool ends_at(const int32_t *text, int at, const int32_t *s, int len)
{
	return at >= len && !memcmp(text + at - len, s, (size_t)len * sizeof *s);
}

static int occurrences(const int32_t *text, int n, const int32_t *s, int len)
{
	int count = 0;
	for (int i = len; i <= n; i++)
		count += ends_at(text, i, s, len);
	return count;
}

/* The continuation by the rule, over all places in order. */
static bool naive_next(const int32_t *text, int n, const int32_t *s, int len, int32_t *token,
		       uint32_t *hits, uint32_t *of)
{
	*token = -1;
	*hits = *of = 0;
	for (int i = len; i < n; i++) {
		if (!ends_at(text, i, s, len) || text[i] < 0)
			continue;
		if (text[i] != *token) {
			*hits /= 2;
			*of /= 2;
			if (*hits <= PAL__AUTOMATON_ONE) {
				*token = text[i];
				*hits = PAL__AUTOMATON_ONE;
			}
		} else {
			*hits += PAL__AUTOMATON_ONE;
		}
		*of += PAL__AUTOMATON_ONE;
	}
	return *token >= 0;
}

static pal__automaton_match look_up(const pal__automaton *a, const int32_t *s, int len)
{
	pal__automaton_match m = {0};
	for (int i = 0; i < len; i++)
		m = pal__automaton_step(a, m, s[i]);
	return m;
}

static void check_string(const pal__automaton *a, const int32_t *text, int n, const int32_t *s,
			 int len)
{
	int32_t token, want;
	uint32_t hits, of, want_hits, want_of;
	pal__automaton_match m = look_up(a, s, len);
	assert_int_equal(m.len, len);
	bool has = naive_next(text, n, s, len, &want, &want_hits, &want_of);
	assert_int_equal(pal__automaton_next(a, m, &token, &hits, &of), has);
	if (has) {
		assert_int_equal(token, want);
		assert_int_equal(hits, want_hits);
		assert_int_equal(of, want_of);
	}
	int shorter = len - 1, count = occurrences(text, n, s, len);
	while (shorter && occurrences(text, n, s + len - shorter, shorter) == count)
		shorter--;
	assert_int_equal(pal__automaton_shorter(a, m).len, shorter);
}

static void check_whole(const pal__automaton *a, const int32_t *text, int n)
{
	for (int from = 0; from < n; from++)
		for (int to = from + 1; to <= n; to++) {
			bool broken = false;
			for (int i = from; i < to; i++)
				broken = broken || text[i] < 0;
			if (!broken)
				check_string(a, text, n, text + from, to - from);
		}
	/* A string that may not occur: the longest suffix that does. */
	for (int32_t token = 0; token < 3; token++) {
		int32_t other[N + 1];
		memcpy(other, text, (size_t)n * sizeof *text);
		other[n] = token;
		int len = n + 1;
		while (len && !occurrences(text, n, other + n + 1 - len, len))
			len--;
		pal__automaton_match m = pal__automaton_step(a, pal__automaton_end(a), token);
		assert_int_equal(m.len, len);
		assert_int_equal(m.state, look_up(a, other + n + 1 - len, len).state);
	}
}

static void equals_its_definition(void **state)
{
	(void)state;
	pal__automaton a;
	int32_t text[N];
	assert_int_equal(pal__automaton_init(&a, N, NULL), PAL_OK);
	for (uint64_t seed = 0; seed < 150; seed++) {
		uint64_t random = seed;
		random_text(&random, text, 0, N, 1 + below(&random, 5));
		if (seed % 3 == 0)
			text[below(&random, N)] = -1;
		pal__automaton_clear(&a);
		for (int n = 1; n <= N; n++) {
			pal__automaton_add(&a, text[n - 1]);
			if (n < 12 || n == N)
				check_whole(&a, text, n);
		}
		assert_int_equal(pal__automaton_end(&a).len, N);
	}
	pal__automaton_free(&a);
}

/* Texts that fill the states and edges as far as they can be filled: the assertions hold. */
static void full(void **state)
{
	(void)state;
	enum { MANY = 20000 };
	pal__automaton a;
	for (int kind = 0; kind < 6; kind++) {
		uint64_t random = 1;
		uint32_t expected = 0;
		int32_t before = -1;
		assert_int_equal(pal__automaton_init(&a, MANY, NULL), PAL_OK);
		for (int i = 0; i < MANY; i++) {
			const int32_t tokens[] = {0,
						  i,
						  i > 0,
						  i < MANY / 2 ? i % 2 : 2,
						  (int32_t)below(&random, 2),
						  i % 2 ? 7 : (int32_t)below(&random, 5)};
			pal__automaton_add(&a, tokens[kind]);
			if (kind == 5 && before == 3) {
				bool halve = expected > UINT16_MAX - PAL__AUTOMATON_ONE;
				expected = (halve ? expected / 2 : expected) + PAL__AUTOMATON_ONE;
			}
			before = tokens[kind];
		}
		if (kind == 5) { /* 2,000 times each, always 7: no count leaves its field */
			int32_t token;
			uint32_t hits, of;
			pal__automaton_match m = look_up(&a, (const int32_t[]){3}, 1);
			assert_true(pal__automaton_next(&a, m, &token, &hits, &of));
			assert_int_equal(token, 7);
			assert_int_equal(hits, of);
			assert_int_equal(of, expected);
		}
		pal__automaton_free(&a);
	}
}

static void limits(void **state)
{
	(void)state;
	pal__automaton a;
	pal_error err;
	int64_t live = pal__mem_live();
	assert_int_equal(pal__automaton_init(&a, PAL__AUTOMATON_MAX + 1, &err), PAL_ELIMIT);
	pal__automaton_free(&a);
	pal__mem_fail_after(0);
	assert_int_equal(pal__automaton_init(&a, 10, &err), PAL_ENOMEM);
	pal__mem_fail_after(-1);
	pal__automaton_free(&a);
	assert_int_equal(pal__automaton_init(&a, 0, &err), PAL_OK); /* room for one */
	pal__automaton_add(&a, 5);
	assert_int_equal(pal__automaton_step(&a, pal__automaton_end(&a), 5).len, 1);
	assert_int_equal(pal__automaton_step(&a, pal__automaton_end(&a), -1).len, 0);
	pal__automaton_free(&a);
	assert_int_equal(pal__mem_live(), live);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(equals_its_definition),
		cmocka_unit_test(full),
		cmocka_unit_test(limits),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
