#include "cli/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct {
	bool flag;
	int64_t n;
	const char *text, *config;
} v;

static const pal__option table[] = {
	PAL__FLAG("flag", 'f', &v.flag, "a flag"),
	PAL__INT("number", 'n', &v.n, 1, 100, "a number"),
	PAL__TEXT("text", 0, &v.text, "TEXT", "a text"),
	PAL__CONFIG("config", 0, &v.config, "a file of these"),
	PAL__NO_MORE_OPTIONS,
};

static char path[] = "/tmp/pal-config-XXXXXX";

static void write_bytes(const char *text, size_t n)
{
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	assert_int_equal(fwrite(text, 1, n, f), n);
	fclose(f);
	memset(&v, 0, sizeof v);
}

static void write_text(const char *text)
{
	write_bytes(text, strlen(text));
}

static void values(void **state)
{
	(void)state;
	write_text("# all\n\n flag = true \nnumber=7\r\n\ttext =  a = b # c\n");
	assert_int_equal(pal__config_read(path, table, NULL), PAL_OK);
	assert_true(v.flag);
	assert_int_equal(v.n, 7);
	assert_string_equal(v.text, "a = b # c");
	write_text("text =\nflag=false");
	assert_int_equal(pal__config_read(path, table, NULL), PAL_OK);
	assert_string_equal(v.text, "");
	assert_false(v.flag);
}

static void command_line_wins(void **state)
{
	(void)state;
	for (int first = 0; first < 2; first++) {
		char *argv[] = {(char *)(uintptr_t) "test", NULL, NULL, NULL, NULL};
		argv[first ? 1 : 3] = (char *)(uintptr_t) "--config";
		argv[first ? 2 : 4] = path;
		argv[first ? 3 : 1] = (char *)(uintptr_t) "--number";
		argv[first ? 4 : 2] = (char *)(uintptr_t) "9";
		write_text("number = 7\ntext = x\n");
		assert_int_equal(pal__options_parse(5, argv, table, NULL, NULL, NULL), PAL_OK);
		assert_int_equal(v.n, 9);
		assert_string_equal(v.text, "x");
	}
}

static void mistakes(void **state)
{
	static const struct {
		const char *text, *complaint;
	} bad[] = {
		{"number = 7\nnone = 1\n", ":2: unknown option none"},
		{"\n\nnumber = x", ":3: --number x: must be a whole number"},
		{"number", ":1: must be NAME = VALUE"},
		{"flag = yes", ":1: --flag yes: must be true or false"},
		{"config = other", ":1: unknown option config"},
		{"--number = 7", ":1: unknown option --number"},
	};
	pal_error err = {0};
	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		write_text(bad[i].text);
		assert_int_equal(pal__config_read(path, table, &err), PAL_EINVAL);
		assert_non_null(strstr(err.text, bad[i].complaint));
		assert_ptr_equal(strstr(err.text, path), err.text);
	}
	write_bytes("number = 7\0", 11);
	assert_int_equal(pal__config_read(path, table, &err), PAL_EINVAL);
	assert_int_equal(pal__config_read("/none", table, &err), PAL_EIO);
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
		cmocka_unit_test(values),
		cmocka_unit_test(command_line_wins),
		cmocka_unit_test(mistakes),
	};
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
