#include "serve/keys.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"

#define ONE "0123456789abcdef"
#define TWO "another key of this test" /* has blanks: is none */
#define THREE "fedcba9876543210-_!~"

static char path[] = "/tmp/pal-keys-XXXXXX";

static void write_keys(const char *text)
{
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void known_and_not(void **state)
{
	pal__keys *k = NULL;
	uint64_t one = 0, three = 0, other = 7;
	(void)state;
	write_keys("# keys\n\n  " ONE "\t\r\n" THREE);
	assert_int_equal(pal__keys_open(path, &k, NULL), PAL_OK);
	assert_true(pal__keys_has(k, ONE, &one));
	assert_true(pal__keys_has(k, THREE, &three));
	assert_true(one && three && one != three);
	assert_false(pal__keys_has(k, "", &other));
	assert_false(pal__keys_has(k, ONE "0", &other));
	assert_false(pal__keys_has(k, "0123456789abcde", &other));
	assert_false(pal__keys_has(k, "0123456789abcdeg", &other));
	assert_false(pal__keys_has(k, "# keys", &other));
	assert_true(other == 7);
	pal__keys_close(k);
}

static void files(void **state)
{
	static const struct {
		const char *text, *complaint;
	} bad[] = {
		{"", "no key"},
		{"# " ONE "\n\n", "no key"},
		{ONE "\nshort\n", "line 2"},
		{TWO "\n", "line 1"},
		{ONE "\n\n\xc3\xa9" ONE, "line 3"},
		{ONE "\x01\n", "line 1"},
	};
	pal__keys *k = NULL;
	uint64_t owner;
	(void)state;
	write_keys(ONE);
	assert_int_equal(pal__keys_open(path, &k, NULL), PAL_OK);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		pal_error err = {0};
		pal__keys *none = NULL;
		write_keys(bad[i].text);
		assert_int_equal(pal__keys_reload(k, &err), PAL_EFORMAT);
		assert_non_null(strstr(err.text, bad[i].complaint));
		assert_int_equal(pal__keys_open(path, &none, &err), PAL_EFORMAT);
		assert_null(none);
		assert_true(pal__keys_has(k, ONE, &owner));
	}
	write_keys(THREE);
	assert_int_equal(pal__keys_reload(k, NULL), PAL_OK);
	assert_false(pal__keys_has(k, ONE, &owner));
	assert_true(pal__keys_has(k, THREE, &owner));
	unlink(path);
	assert_int_equal(pal__keys_reload(k, NULL), PAL_EIO);
	assert_true(pal__keys_has(k, THREE, &owner));
	pal__keys_close(k);
}

static void no_memory(void **state)
{
	pal_status s = PAL_ENOMEM;
	(void)state;
	write_keys(ONE "\n" THREE "\n");
	for (int64_t n = 0; s; n++) {
		pal__keys *k = NULL;
		pal__mem_fail_after(n);
		s = pal__keys_open(path, &k, NULL);
		if (!s)
			s = pal__keys_reload(k, NULL);
		pal__mem_fail_after(-1);
		assert_true(s == PAL_OK || s == PAL_ENOMEM);
		pal__keys_close(k);
		assert_int_equal(pal__mem_live(), 0);
	}
}

static int set_up(void **state)
{
	(void)state;
	int fd = mkstemp(path);
	return fd < 0 || close(fd);
}

static int tear_down(void **state)
{
	(void)state;
	unlink(path);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(known_and_not),
		cmocka_unit_test(files),
		cmocka_unit_test(no_memory),
	};
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
