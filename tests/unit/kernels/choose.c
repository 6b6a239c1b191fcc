#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/kernels.h"

static void known_names(void **state)
{
	static const char *const known[] = {"scalar", "avx2", "avx512", "amx", "neon"};
	const pal__kernels *best, *k;
	pal_error err;
	int n = 0;
	(void)state;
	assert_int_equal(pal__kernels_choose(NULL, &best, &err), PAL_OK);
	for (size_t i = 0; i < 4; i++) {
		k = NULL;
		pal_status s = pal__kernels_choose(known[i], &k, &err);
		if (s == PAL_OK) {
			assert_string_equal(k->name, known[i]);
			n++;
		} else {
			assert_int_equal(s, PAL_EUNSUPPORTED);
			assert_non_null(strstr(err.text, known[i]));
			assert_non_null(strstr(err.text, "this CPU does not have it"));
			assert_null(k);
		}
	}
	assert_true(n >= 1 && (n == 1 || strcmp(best->name, "scalar") != 0));
}

static void unknown_names(void **state)
{
	static const char *const unknown[] = {"", "sse", "AVX2", "scalar ", "avx51", "avx5122"};
	(void)state;
	for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++) {
		const pal__kernels *k = NULL;
		pal_error err;
		assert_int_equal(pal__kernels_choose(unknown[i], &k, &err), PAL_EINVAL);
		assert_non_null(strstr(err.text, "scalar, avx2, avx512, amx and neon are known"));
		assert_null(k);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(known_names),
		cmocka_unit_test(unknown_names),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
