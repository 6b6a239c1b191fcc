#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "text/maps.h"

static void texts(void **state)
{
	(void)state;
	const char *bytes = "abababc";
	const size_t at[] = {0, 1, 2, 4, 6, 6, 7}; /* a b ab ab (empty) c */
	pal__text_map m;
	assert_true(pal__text_map_init(&m, bytes, at, 6));
	assert_int_equal(pal__text_map_find(&m, "a", 1), -1);
	for (int32_t id = 0; id < 5; id++)
		pal__text_map_add(&m, id);
	assert_int_equal(pal__text_map_find(&m, "a", 1), 0);
	assert_int_equal(pal__text_map_find(&m, "b", 1), 1);
	assert_int_equal(pal__text_map_find(&m, "ab", 2), 2); /* the first of equals */
	assert_int_equal(pal__text_map_find(&m, "c", 1), -1); /* not added */
	assert_int_equal(pal__text_map_find(&m, "abc", 3), -1);
	assert_int_equal(m.longest, 2);
	pal__text_map_free(&m);
	pal__text_map_free(&m);
}

static void many_texts(void **state)
{
	(void)state;
	enum { N = 20000 };
	static char bytes[N * 3];
	static size_t at[N + 1];
	pal__text_map m;
	for (size_t i = 0; i < N; i++) {
		memcpy(bytes + 3 * i, (char[]){(char)i, (char)(i >> 8), 'x'}, 3);
		at[i + 1] = 3 * (i + 1);
	}
	assert_true(pal__text_map_init(&m, bytes, at, N));
	for (int32_t i = 0; i < N; i++)
		pal__text_map_add(&m, i);
	for (int32_t i = 0; i < N; i++)
		assert_int_equal(pal__text_map_find(&m, bytes + 3 * i, 3), i);
	assert_int_equal(pal__text_map_find(&m, "\xff\xffx", 3), -1);
	pal__text_map_free(&m);
}

static void pairs(void **state)
{
	(void)state;
	pal__pair_map m;
	assert_true(pal__pair_map_init(&m, 1000));
	assert_null(pal__pair_map_find(&m, 0, 0));
	for (int32_t i = 0; i < 1000; i++)
		pal__pair_map_add(&m, &(struct pal__pair_slot){i % 10, i / 10, (uint32_t)i, i + 7});
	pal__pair_map_add(&m, &(struct pal__pair_slot){3, 4, 9999, 9999}); /* the first stays */
	for (int32_t i = 0; i < 1000; i++) {
		const struct pal__pair_slot *slot = pal__pair_map_find(&m, i % 10, i / 10);
		assert_non_null(slot);
		assert_int_equal(slot->rank, i);
		assert_int_equal(slot->id, i + 7);
	}
	assert_null(pal__pair_map_find(&m, 10, 0));
	assert_null(pal__pair_map_find(&m, 99, 9));
	pal__pair_map_free(&m);
}

static void sizes(void **state)
{
	(void)state;
	int64_t live = pal__mem_live();
	const size_t at[] = {0};
	pal__text_map t;
	pal__pair_map p;
	assert_false(pal__text_map_init(&t, "", at, SIZE_MAX));
	assert_false(pal__text_map_init(&t, "", at, SIZE_MAX / 4));
	assert_false(pal__pair_map_init(&p, SIZE_MAX / 2));
	pal__mem_fail_after(0);
	assert_false(pal__text_map_init(&t, "", at, 1));
	assert_false(pal__pair_map_init(&p, 1));
	pal__mem_fail_after(-1);
	assert_true(pal__pair_map_init(&p, 0));
	assert_null(pal__pair_map_find(&p, 1, 1));
	pal__pair_map_free(&p);
	assert_int_equal(pal__mem_live(), live);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(texts), cmocka_unit_test(many_texts),
					   cmocka_unit_test(pairs), cmocka_unit_test(sizes)};
	return cmocka_run_group_tests_name("text/maps", tests, NULL, NULL);
}
