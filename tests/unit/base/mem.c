#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"

static bool aligned(const void *p)
{
	return (uintptr_t)p % PAL__ALIGN == 0;
}

static void counts(void **state)
{
	(void)state;
	int64_t live = pal__mem_live();
	void *a = pal__alloc(0), *b = pal__calloc(3, 7), *c = pal__realloc(NULL, 10);
	char *d = pal__strndup("ab\0c", 4);
	assert_non_null(a);
	assert_memory_equal(b, (char[21]){0}, 21);
	assert_memory_equal(d, "ab\0c", 5);
	assert_int_equal(pal__mem_live(), live + 4);
	memcpy(c, "0123456789", 10);
	c = pal__realloc(c, 1 << 20);
	assert_memory_equal(c, "0123456789", 10);
	assert_int_equal(pal__mem_live(), live + 4);
	pal__free(a);
	pal__free(b);
	pal__free(c);
	pal__free(d);
	pal__free(NULL);
	assert_int_equal(pal__mem_live(), live);
}

static void overflow(void **state)
{
	(void)state;
	int64_t live = pal__mem_live();
	assert_null(pal__calloc(SIZE_MAX, 2));
	assert_null(pal__calloc((size_t)1 << 32, (size_t)1 << 32));
	assert_null(pal__strndup("", SIZE_MAX));
	assert_null(pal__alloc_aligned(SIZE_MAX));
	assert_null(pal__alloc_aligned(SIZE_MAX / 2)); /* the system refuses */
	assert_int_equal(pal__mem_live(), live);
}

static void aligned_sizes(void **state)
{
	(void)state;
	/* On both sides of the size from which memory is mapped. */
	static const size_t sizes[] = {0,       1,      64, 65, (2 << 20) - 64, (2 << 20) - 63,
				       2 << 20, 9 << 20};
	int64_t live = pal__mem_live();
	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		uint8_t *p = pal__alloc_aligned(sizes[i]);
		assert_non_null(p);
		assert_true(aligned(p));
		for (size_t k = 0; k < sizes[i]; k++)
			if (p[k])
				fail_msg("byte %zu of %zu is not zero", k, sizes[i]);
		memset(p, 1, sizes[i]);
		assert_int_equal(pal__mem_live(), live + 1);
		pal__free_aligned(p, sizes[i]);
		assert_int_equal(pal__mem_live(), live);
	}
	pal__free_aligned(NULL, 100);
}

static void grow(void **state)
{
	(void)state;
	uint32_t *items = NULL;
	size_t cap = 0;
	for (uint32_t n = 0; n < 1000; n++) {
		assert_true(pal__grow((void **)&items, &cap, n + 1, sizeof *items));
		assert_true(cap > n);
		items[n] = n;
	}
	assert_true(cap < 2048 && items[0] == 0 && items[999] == 999);
	uint32_t *was = items;
	size_t was_cap = cap;
	assert_false(pal__grow((void **)&items, &cap, SIZE_MAX, sizeof *items));
	assert_false(pal__grow((void **)&items, &cap, SIZE_MAX / 4, sizeof *items));
	pal__mem_fail_after(0);
	assert_false(pal__grow((void **)&items, &cap, 5000, sizeof *items));
	assert_true(pal__grow((void **)&items, &cap, 1000, sizeof *items));
	pal__mem_fail_after(-1);
	assert_ptr_equal(items, was);
	assert_int_equal(cap, was_cap);
	assert_int_equal(items[999], 999);
	pal__free(items);
}

static void injection(void **state)
{
	(void)state;
	pal__arena a;
	pal_error err;
	pal__mem_fail_after(2);
	assert_false(pal__mem_failed());
	void *first = pal__alloc(1), *second = pal__calloc(1, 1);
	assert_non_null(first);
	assert_non_null(second);
	assert_false(pal__mem_failed());
	assert_null(pal__alloc(1));
	assert_true(pal__mem_failed());
	assert_null(pal__calloc(1, 1));
	assert_null(pal__strndup("x", 1));
	assert_null(pal__realloc(first, 100));
	assert_null(pal__alloc_aligned(1));
	assert_int_equal(pal__arena_init(&a, 100, "the arena", &err), PAL_ENOMEM);
	assert_string_equal(err.text, "out of memory: the arena needs 100 bytes");
	pal__arena_free(&a);
	pal__mem_fail_after(-1);
	assert_false(pal__mem_failed());
	pal__free(first);
	pal__free(second);
}

static void arena(void **state)
{
	(void)state;
	pal__arena a;
	pal_error err;
	int64_t live = pal__mem_live();
	size_t size = pal__arena_need(100) + pal__arena_need(64) + pal__arena_need(1);
	assert_int_equal(size, 128 + 64 + 64);
	assert_int_equal(pal__arena_init(&a, size, "an arena", &err), PAL_OK);
	uint8_t *x = pal__arena_take(&a, 100), *y = pal__arena_take(&a, 64);
	assert_true(aligned(x) && aligned(y));
	assert_ptr_equal(y, x + 128);
	assert_null(pal__arena_take(&a, 65));
	assert_null(pal__arena_take(&a, SIZE_MAX));
	assert_null(pal__arena_take(&a, SIZE_MAX - 70));
	assert_ptr_equal(pal__arena_take(&a, 1), y + 64);
	assert_int_equal(a.used, size);
	assert_null(pal__arena_take(&a, 1));
	memset(a.base, 7, size);
	pal__arena_free(&a);
	assert_null(a.base);
	pal__arena_free(&a);
	assert_int_equal(pal__mem_live(), live);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(counts),        cmocka_unit_test(overflow),
		cmocka_unit_test(aligned_sizes), cmocka_unit_test(grow),
		cmocka_unit_test(injection),     cmocka_unit_test(arena),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
