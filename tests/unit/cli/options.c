#include "cli/options.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct {
	bool flag;
	int64_t n;
	int32_t k;
	uint64_t seed;
	float x;
	const char *text, *choice;
	pal__texts texts;
} v;

static const pal__option table[] = {
	PAL__FLAG("flag", 'f', &v.flag, "a flag"),
	PAL__INT("number", 'n', &v.n, 1, 100, "a number\nin two lines"),
	PAL__INT32("small", 0, &v.k, -5, INT32_MAX, "an int"),
	PAL__SEED("seed", 0, &v.seed, "a seed"),
	PAL__FLOAT("real", 0, &v.x, 0, 1, "a float"),
	PAL__TEXT(NULL, 'p', &v.text, "TEXT", "a text"),
	PAL__CHOICE("choice", 0, &v.choice, "one|three|two", "a choice"),
	PAL__TEXTS("more", 0, &v.texts, "TEXT", "texts"),
	PAL__NO_MORE_OPTIONS,
};

/* Parses words separated by spaces. */
static pal_status parse(const char *line, const char **operand, pal_error *err)
{
	static char copy[1024];
	char *argv[200] = {(char *)(uintptr_t) "test"}, *rest = copy;
	int argc = 1;
	memset(&v, 0, sizeof v);
	snprintf(copy, sizeof copy, "%s", line);
	for (char *word; (word = strsep(&rest, " "));)
		if (*word)
			argv[argc++] = word;
	return pal__options_parse(argc, argv, table, operand, "the thing", err);
}

static void values(void **state)
{
	const char *operand = NULL;
	pal_error err;
	(void)state;
	assert_int_equal(parse("-f --number 7 model --small=-5 --seed 18446744073709551615 "
			       "--real .25 -p text --choice two --more a --more b",
			       &operand, &err),
			 PAL_OK);
	assert_string_equal(operand, "model");
	assert_true(v.flag);
	assert_int_equal(v.n, 7);
	assert_int_equal(v.k, -5);
	assert_true(v.seed == UINT64_MAX);
	assert_true(v.x == 0.25f);
	assert_string_equal(v.text, "text");
	assert_string_equal(v.choice, "two");
	assert_int_equal(v.texts.n, 2);
	assert_string_equal(v.texts.items[1], "b");
	/* Nothing is left over from the call before; -- ends the options. */
	assert_int_equal(parse("-n 100 -- --flag", &operand, &err), PAL_OK);
	assert_string_equal(operand, "--flag");
	assert_false(v.flag);
	assert_int_equal(v.n, 100);
}

static void refusals(void **state)
{
	static const char *const bad[][2] = {
		{"m --number 0", "--number 0: must be a whole number from 1 to 100"},
		{"m -n 101", "--number 101: must be a whole number from 1 to 100"},
		{"m -n 12x", "--number 12x: must be"},
		{"m -n 99999999999999999999", "--number 99999999999999999999: must be"},
		{"m --small 2147483648", "--small 2147483648: must be"},
		{"m --small 1.5", "--small 1.5: must be"},
		{"m --seed -1", "--seed -1: must be a whole number from 0 to 18446744073709551615"},
		{"m --seed 18446744073709551616", "--seed 18446744073709551616: must be"},
		{"m --real nan", "--real nan: must be a number from 0 to 1"},
		{"m --real 1.01", "--real 1.01: must be"},
		{"m --real x", "--real x: must be"},
		{"m --choice on", "--choice on: must be one of one|three|two"},
		{"m --choice e", "--choice e: must be"},
		{"m --choice thre", "--choice thre: must be"},
		{"m --choice=", "--choice : must be"},
		{"m --bogus", "unknown or ambiguous option --bogus"},
		{"m -z", "unknown or ambiguous option -z"},
		{"m -fz", "unknown or ambiguous option -z"},
		{"m -p", "option -p needs a value"},
		{"m --number", "option --number needs a value"},
		{"m --flag=1", "option --flag=1 takes no value"},
		{"-f", "the thing is missing"},
		{"m n", "unexpected argument 'n'"},
	};
	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		const char *operand = NULL;
		pal_error err;
		assert_int_equal(parse(bad[i][0], &operand, &err), PAL_EINVAL);
		if (!strstr(err.text, bad[i][1]))
			fail_msg("%s: '%s' instead of '%s'", bad[i][0], err.text, bad[i][1]);
		assert_null(operand);
	}
}

static void too_many_texts(void **state)
{
	char line[1024] = "m";
	const char *operand = NULL;
	pal_error err;
	(void)state;
	for (int i = 0; i < PAL__MAX_TEXTS; i++)
		strcat(line, " --more=x");
	assert_int_equal(parse(line, &operand, &err), PAL_OK);
	assert_int_equal(v.texts.n, PAL__MAX_TEXTS);
	strcat(line, " --more=x");
	assert_int_equal(parse(line, &operand, &err), PAL_ELIMIT);
	assert_non_null(strstr(err.text, "at most 64 times"));
}

static void help(void **state)
{
	char *text = NULL;
	size_t n;
	FILE *f = open_memstream(&text, &n);
	(void)state;
	assert_non_null(f);
	pal__options_print(f, table);
	fclose(f);
	assert_non_null(strstr(text, "  -f, --flag                  a flag\n"));
	assert_non_null(strstr(text, "  -n, --number N              a number\n"
				     "                              in two lines\n"));
	assert_non_null(strstr(text, "  -p   TEXT                   a text\n"));
	assert_non_null(strstr(text, "      --choice one|three|two  a choice\n"));
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(values),
		cmocka_unit_test(refusals),
		cmocka_unit_test(too_many_texts),
		cmocka_unit_test(help),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
