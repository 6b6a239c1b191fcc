#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "text/merge.h"

/* A rule: the bytes of a pair, in the order of rank; token id = 1000 + its number. */
struct rules {
	const char *const *made;
	size_t n;
};

static bool find(const void *user, const char *text, const pal__symbol *l, const pal__symbol *r,
		 uint32_t *rank, int32_t *id)
{
	const struct rules *rules = user;
	for (size_t i = 0; i < rules->n; i++)
		if (strlen(rules->made[i]) == l->n + r->n &&
		    !memcmp(rules->made[i], text + l->at, l->n + r->n)) {
			*rank = (uint32_t)i;
			*id = 1000 + (int32_t)i;
			return true;
		}
	return false;
}

/* Merges text, with `skip` being no token, and writes it with bars between symbols. */
static bool merged(pal__merger *m, const struct rules *rules, const char *text, char skip,
		   char *out)
{
	m->n = 0;
	for (size_t i = 0; text[i]; i++)
		if (!pal__merger_push(m, (uint32_t)i, 1, text[i] == skip ? -1 : text[i]))
			return false;
	if (!pal__merge(m, text, find, rules))
		return false;
	for (int32_t i = 0; i >= 0; i = m->symbols[i].next) {
		memcpy(out, text + m->symbols[i].at, m->symbols[i].n);
		out += m->symbols[i].n;
		*out++ = '|';
	}
	out[-1] = 0;
	return true;
}

static void by_rank(void **state)
{
	static const char *const made[] = {"ll", "he", "hell", "hello", "aa", "aaaa", "ab"};
	const struct rules rules = {made, sizeof made / sizeof *made};
	static const char *const cases[][2] = {
		{"hello", "hello"}, {"hellhe", "hell|he"}, {"x", "x"},
		{"aaa", "aa|a"},    {"aaaa", "aaaa"},      {"aaaaaaa", "aaaa|aa|a"},
		{"aab", "aa|b"},    {"ab", "ab"},          {"xaby", "x|ab|y"},
		{"lll", "ll|l"},    {"hlleo", "h|ll|e|o"}, {"he?lo", "he|?|l|o"},
		{"a?aa", "a|?|aa"},
	};
	pal__merger m = {0};
	char out[64];
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		assert_true(merged(&m, &rules, cases[i][0], '?', out));
		assert_string_equal(out, cases[i][1]);
	}
	/* a symbol without a token does not merge although its bytes would */
	assert_true(merged(&m, &rules, "hell", 'h', out));
	assert_string_equal(out, "h|e|ll");
	pal__merger_free(&m);
}

/* The plain definition: the best pair by rank, the leftmost of them, until there is none. */
static void slowly(const struct rules *rules, const char *text, char *out)
{
	pal__symbol s[64];
	size_t n = strlen(text);
	for (size_t i = 0; i < n; i++)
		s[i] = (pal__symbol){.at = (uint32_t)i, .n = 1};
	for (;;) {
		size_t best = n;
		uint32_t best_rank = UINT32_MAX, rank;
		int32_t id;
		for (size_t i = 0; i + 1 < n; i++)
			if (find(rules, text, &s[i], &s[i + 1], &rank, &id) && rank < best_rank) {
				best = i;
				best_rank = rank;
			}
		if (best == n)
			break;
		s[best].n += s[best + 1].n;
		memmove(&s[best + 1], &s[best + 2], (n - best - 2) * sizeof *s);
		n--;
	}
	for (size_t i = 0; i < n; i++) {
		memcpy(out, text + s[i].at, s[i].n);
		out += s[i].n;
		*out++ = '|';
	}
	out[-1] = 0;
}

static void equals_the_definition(void **state)
{
	static const char *const made[] = {"ab",  "bc",   "aa", "cab", "abc",
					   "aab", "caab", "bb", "cabb"};
	const struct rules rules = {made, sizeof made / sizeof *made};
	pal__merger m = {0};
	uint32_t seed = 12345;
	(void)state;
	for (int round = 0; round < 5000; round++) {
		char text[33] = {0}, fast[80], slow[80];
		uint32_t first = seed;
		for (size_t n = 0; n < 1 + first % 32; n++) {
			seed = seed * 1664525 + 1013904223;
			text[n] = (char)('a' + (seed >> 24) % 3);
		}
		seed = seed * 1664525 + 1013904223;
		assert_true(merged(&m, &rules, text, 0, fast));
		slowly(&rules, text, slow);
		if (strcmp(fast, slow))
			fail_msg("seed %u: %s: %s is not %s", first, text, fast, slow);
	}
	pal__merger_free(&m);
}

static void out_of_memory(void **state)
{
	static const char *const made[] = {"aa", "aaaa"};
	const struct rules rules = {made, 2};
	int64_t live = pal__mem_live();
	char text[101], out[256];
	(void)state;
	memset(text, 'a', 100);
	text[100] = 0;
	for (int64_t n = 0;; n++) {
		pal__merger m = {0};
		pal__mem_fail_after(n);
		bool good = merged(&m, &rules, text, 0, out);
		bool failed = pal__mem_failed();
		pal__mem_fail_after(-1);
		assert_int_equal(good, !failed);
		pal__merger_free(&m);
		assert_int_equal(pal__mem_live(), live);
		if (good)
			break;
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(by_rank),
					   cmocka_unit_test(equals_the_definition),
					   cmocka_unit_test(out_of_memory)};
	return cmocka_run_group_tests_name("text/merge", tests, NULL, NULL);
}
