#include "cli/input.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"

static pal_status parse(const char *text, int32_t **ids, size_t *n, pal_error *err)
{
	return pal__parse_ids(text, strlen(text), 1000, ids, n, err);
}

static void ids(void **state)
{
	const int32_t expected[] = {0, 12, 999, 7};
	int32_t *list;
	size_t n;
	(void)state;
	assert_int_equal(parse(" 0\n12\t\r\n999 007", &list, &n, NULL), PAL_OK);
	assert_int_equal(n, 4);
	assert_memory_equal(list, expected, sizeof expected);
	pal__free(list);
	assert_int_equal(parse("\n ", &list, &n, NULL), PAL_OK);
	assert_int_equal(n, 0);
	pal__free(list);
}

static void bad_ids(void **state)
{
	static const char *const bad[][2] = {
		{"1 2 1000", "token id 3, 1000, is outside the vocabulary (0 to 999)"},
		{"-1", "token id 1, -1, is outside the vocabulary"},
		{"5 -0", "token id 2, -0, is outside"},
		{"99999999999999999999999", "token id 1, 99999999999999999999999, is outside"},
		{"4294967297", "token id 1, 4294967297, is outside"},
		{"1 x", "token id 2, 'x', is not a number"},
		{"1.5", "token id 1, '1.5', is not a number"},
		{"-", "token id 1, '-', is not a number"},
		{"+1", "token id 1, '+1', is not a number"},
	};
	int64_t live = pal__mem_live();
	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		int32_t *list = NULL;
		size_t n;
		pal_error err;
		assert_int_equal(parse(bad[i][0], &list, &n, &err), PAL_EINVAL);
		if (!strstr(err.text, bad[i][1]))
			fail_msg("'%s' instead of '%s'", err.text, bad[i][1]);
		assert_null(list);
	}
	assert_int_equal(pal__mem_live(), live);
}

static void files(void **state)
{
	char path[] = "/tmp/pal-input-XXXXXX", *text = NULL;
	size_t n = 0;
	pal_error err;
	int fd = mkstemp(path);
	(void)state;
	assert_true(fd >= 0);
	for (int i = 0; i < 30000; i++)
		assert_int_equal(write(fd, "0123456789", 10), 10);
	close(fd);
	assert_int_equal(pal__read_all(path, &text, &n, &err), PAL_OK);
	assert_int_equal(n, 300000);
	assert_int_equal(text[n], 0);
	assert_memory_equal(text + n - 4, "6789", 4);
	pal__free(text);
	unlink(path);
	assert_int_equal(pal__read_all(path, &text, &n, &err), PAL_EIO);
	assert_non_null(strstr(err.text, path));
	assert_int_equal(pal__read_all("/tmp", &text, &n, &err), PAL_EIO);
}

static void utf8(void **state)
{
	pal_error err;
	(void)state;
	assert_int_equal(pal__check_utf8("gr\xc3\xbc\xc3\x9f", 6, "it", &err), PAL_OK);
	assert_int_equal(pal__check_utf8("a\xc3", 2, "it", &err), PAL_EINVAL);
	assert_string_equal(err.text, "it is not UTF-8: byte 0xc3 at offset 1");
}

static void allocation_failures(void **state)
{
	char text[400] = "";
	int64_t live = pal__mem_live();
	pal_status s = PAL_ENOMEM;
	(void)state;
	for (int i = 0; i < 100; i++)
		strcat(text, "1 ");
	for (int i = 0; s; i++) {
		int32_t *list = NULL;
		size_t n;
		pal__mem_fail_after(i);
		s = parse(text, &list, &n, NULL);
		pal__mem_fail_after(-1);
		assert_true(s == PAL_OK || s == PAL_ENOMEM);
		pal__free(list);
		assert_int_equal(pal__mem_live(), live);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ids),
		cmocka_unit_test(bad_ids),
		cmocka_unit_test(files),
		cmocka_unit_test(utf8),
		cmocka_unit_test(allocation_failures),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
