#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/status.h"

static void fills(void **state)
{
	(void)state;
	pal_error err = {0};
	assert_int_equal(pal__fail(&err, PAL_EIO, "%s: %d", "file", 7), PAL_EIO);
	assert_int_equal(err.code, PAL_EIO);
	assert_string_equal(err.text, "file: 7");
	assert_int_equal(pal__fail(NULL, PAL_ELIMIT, "nobody asks"), PAL_ELIMIT);
	assert_int_equal(pal__fail_memory(&err, "the table", 12), PAL_ENOMEM);
	assert_string_equal(err.text, "out of memory: the table needs 12 bytes");
}

static void cut(void **state)
{
	(void)state;
	char big[2 * sizeof((pal_error *)0)->text];
	pal_error err;
	memset(big, 'x', sizeof big);
	big[sizeof big - 1] = 0;
	pal__fail(&err, PAL_EFORMAT, "%s", big);
	assert_int_equal(strlen(err.text), sizeof err.text - 1);
	/* what is quoted stays one line of UTF-8 */
	pal__fail(&err, PAL_EINVAL, "%s|%.4s", "a\nb\xc3\xa9\xff\xe0\x80\x80", "x\xf0\x9f\x98\x80");
	assert_string_equal(err.text, "a?b\xc3\xa9????|x???");
}

static void names(void **state)
{
	(void)state;
	for (int code = PAL_ECANCELLED; code <= PAL_OK; code++)
		assert_string_not_equal(pal_status_name((pal_status)code), "unknown status");
	assert_string_equal(pal_status_name(PAL_OK), "ok");
	assert_string_equal(pal_status_name(PAL_ENOMEM), "out of memory");
	assert_string_equal(pal_status_name((pal_status)-99), "unknown status");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fills),
		cmocka_unit_test(cut),
		cmocka_unit_test(names),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
