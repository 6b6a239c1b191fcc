#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "text/special.h"

static bool fill(pal__specials *p)
{
	static const struct {
		const char *s;
		bool always;
	} tokens[] = {{"<b>", true}, {"<bb", false}, {"<b", false},       {"<bbbbb>", false},
		      {"x", true},   {"<b>", false}, {"\xff\xfe", false}, {"yyy", true}};
	for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++)
		if (!pal__specials_add(p, tokens[i].s, strlen(tokens[i].s), (int32_t)i,
				       tokens[i].always))
			return false;
	pal__specials_sort(p);
	return true;
}

static void expect(const pal__specials *p, const char *text, bool all, size_t from, int32_t id,
		   size_t at)
{
	pal__searched in = {text, strlen(text), all, NULL, 0};
	const pal__special *found = pal__specials_find(p, &in, &from);
	assert_int_equal(found ? found->id : -1, id);
	if (found)
		assert_int_equal(from, at);
}

static void finds(void **state)
{
	pal__specials p = {0};
	(void)state;
	assert_true(fill(&p));
	expect(&p, "a<b>c", true, 0, 0, 1);
	expect(&p, "a<bbbb>c", true, 0, 1, 1); /* the longest that is whole */
	expect(&p, "a<bbbbb>c", true, 0, 3, 1);
	expect(&p, "a<bc", true, 0, 2, 1);
	expect(&p, "a<bc", false, 0, -1, 0);
	expect(&p, "a<bbx", false, 0, 4, 4);
	expect(&p, "a<b>x", false, 2, 4, 4);
	expect(&p, "<b", true, 0, 2, 0);
	expect(&p, "<", true, 0, -1, 0);
	expect(&p, "", true, 0, -1, 0);
	expect(&p, "\xff\xfe", true, 0, 6, 0);
	expect(&p, "\xff", true, 0, -1, 0);
	expect(&p, "yyyyy", false, 0, 7, 0);
	expect(&p, "yyyyy", false, 3, -1, 0);
	pal__specials_free(&p);
}

/* In plain stretches, and across their borders, control tokens are text. */
static void plain(void **state)
{
	static const struct {
		const char *text;
		pal__stretch plain[2];
		int32_t found[3]; /* ids, and -1 */
	} cases[] = {
		{"<b<b", {{9, 9}, {9, 9}}, {2, 2, -1}},
		{"<b<b", {{0, 2}, {9, 9}}, {2, -1, -1}},
		{"<b<b", {{2, 4}, {9, 9}}, {2, -1, -1}},
		{"<b<b", {{0, 4}, {9, 9}}, {-1, -1, -1}},
		{"<bb", {{2, 3}, {9, 9}}, {2, -1, -1}}, /* the longest that is outside */
		{"<bb", {{1, 3}, {9, 9}}, {-1, -1, -1}},
		{"<bb", {{0, 1}, {2, 3}}, {-1, -1, -1}},
		{"a<bb", {{0, 1}, {9, 9}}, {1, -1, -1}},
		{"<b><b", {{0, 5}, {9, 9}}, {0, -1, -1}}, /* user-defined: everywhere */
		{"<bx<b", {{0, 2}, {3, 5}}, {4, -1, -1}},
		{"</think><b", {{0, 10}, {99, 99}}, {8, -1, -1}},
	};
	pal__specials p = {0};
	(void)state;
	assert_true(pal__specials_add(&p, "</think>", 8, 8, false));
	assert_true(pal__specials_add(&p, "</thin>", 7, 9, false));
	assert_true(fill(&p));
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		pal__searched in = {cases[i].text, strlen(cases[i].text), true, cases[i].plain, 2};
		size_t at = 0;
		for (int k = 0; k < 3; k++) {
			const pal__special *found = pal__specials_find(&p, &in, &at);
			if ((found ? found->id : -1) != cases[i].found[k])
				fail_msg("case %zu, %d: %d", i, k, found ? found->id : -1);
			if (!found)
				break;
			at += found->n;
		}
	}
	/* Nor is what may be inside found where control tokens are not asked for. */
	pal__searched in = {"</think></thin>", 15, false, cases[3].plain, 2};
	size_t at = 0;
	assert_null(pal__specials_find(&p, &in, &at));
	pal__specials_free(&p);
}

static void none(void **state)
{
	pal__specials p = {0};
	(void)state;
	pal__specials_sort(&p);
	expect(&p, "anything <b>", true, 0, -1, 0);
	pal__specials_free(&p);
}

static void out_of_memory(void **state)
{
	int64_t live = pal__mem_live();
	(void)state;
	for (int64_t n = 0;; n++) {
		pal__specials p = {0};
		pal__mem_fail_after(n);
		bool good = fill(&p), failed = pal__mem_failed();
		pal__mem_fail_after(-1);
		assert_int_equal(good, !failed);
		pal__specials_free(&p);
		assert_int_equal(pal__mem_live(), live);
		if (good)
			break;
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(finds), cmocka_unit_test(plain),
					   cmocka_unit_test(none), cmocka_unit_test(out_of_memory)};
	return cmocka_run_group_tests_name("text/special", tests, NULL, NULL);
}
