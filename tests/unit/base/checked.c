#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/checked.h"

static void add(void **state)
{
	(void)state;
	size_t out = 7;
	assert_true(pal__add_size(2, 3, &out));
	assert_int_equal(out, 5);
	assert_true(pal__add_size(SIZE_MAX, 0, &out));
	assert_true(out == SIZE_MAX);
	out = 7;
	assert_false(pal__add_size(SIZE_MAX, 1, &out));
	assert_false(pal__add_size(SIZE_MAX, SIZE_MAX, &out));
	assert_int_equal(out, 7);
}

static void mul(void **state)
{
	(void)state;
	size_t out = 7;
	assert_true(pal__mul_size(1u << 20, 1u << 20, &out));
	assert_int_equal(out, (size_t)1 << 40);
	assert_true(pal__mul_size(SIZE_MAX, 0, &out));
	assert_int_equal(out, 0);
	out = 7;
	assert_false(pal__mul_size((size_t)1 << 32, (size_t)1 << 32, &out));
	assert_false(pal__mul_size(SIZE_MAX, 2, &out));
	assert_int_equal(out, 7);
}

static void round_up(void **state)
{
	(void)state;
	size_t out = 7;
	assert_true(pal__round_up(0, 64, &out));
	assert_int_equal(out, 0);
	assert_true(pal__round_up(1, 64, &out));
	assert_int_equal(out, 64);
	assert_true(pal__round_up(64, 64, &out));
	assert_int_equal(out, 64);
	assert_true(pal__round_up(SIZE_MAX - 63, 64, &out));
	assert_true(out == SIZE_MAX - 63);
	out = 7;
	assert_false(pal__round_up(SIZE_MAX - 62, 64, &out));
	assert_false(pal__round_up(SIZE_MAX, 64, &out));
	assert_int_equal(out, 7);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(add),
		cmocka_unit_test(mul),
		cmocka_unit_test(round_up),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
