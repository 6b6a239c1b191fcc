#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <stdbool.h>

#include "text/utf8.h"

static void characters(void **state)
{
	static const struct {
		const char *s;
		int len;
	} cases[] = {
		{"a", 1},
		{"\x7f", 1},
		{"\xc2\x80", 2},
		{"\xdf\xbf", 2},
		{"\xe0\xa0\x80", 3},
		{"\xed\x9f\xbf", 3},
		{"\xee\x80\x80", 3},
		{"\xef\xbf\xbf", 3},
		{"\xf0\x90\x80\x80", 4},
		{"\xf4\x8f\xbf\xbf", 4},
		{"\x80", 0},
		{"\xbf", 0},
		{"\xc0\x80", 0},
		{"\xc1\xbf", 0},
		{"\xe0\x9f\xbf", 0},
		{"\xed\xa0\x80", 0},
		{"\xed\xbf\xbf", 0},
		{"\xf0\x8f\xbf\xbf", 0},
		{"\xf4\x90\x80\x80", 0},
		{"\xf5", 0},
		{"\xff", 0},
		{"\xc2", -1},
		{"\xe2", -1},
		{"\xe2\x82", -1},
		{"\xf0\x9f", -1},
		{"\xf0\x9f\x98", -1},
		{"\xc2z", 0},
		{"\xe2z", 0},
		{"\xe2\x82z", 0},
		{"\xf0\x9f\x98z", 0},
		{"\xe0\x80", 0},
		{"\xf4\x90", 0},
		{"\xed\xa0", 0},
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		assert_int_equal(pal__utf8_char(cases[i].s, strlen(cases[i].s)), cases[i].len);
}

/* Every code point, written by the rule, is one character; every part of it is a part. */
static void every_code_point(void **state)
{
	(void)state;
	for (uint32_t c = 0; c < 0x110000; c++) {
		char s[4];
		int n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
		static const int marks[] = {0, 0, 0xc0, 0xe0, 0xf0};
		for (int i = 0; i < n; i++) {
			int shift = 6 * (n - 1 - i);
			s[i] = (char)(n == 1   ? (int)c
				      : i == 0 ? marks[n] | (int)(c >> shift)
					       : 0x80 | (int)(c >> shift & 63));
		}
		bool surrogate = c >= 0xd800 && c < 0xe000;
		if (pal__utf8_char(s, (size_t)n) != (surrogate ? 0 : n))
			fail_msg("U+%04X", c);
		for (int part = 1; part < n && !surrogate; part++)
			if (pal__utf8_char(s, (size_t)part) != -1)
				fail_msg("%d bytes of U+%04X", part, c);
	}
}

static void runs(void **state)
{
	(void)state;
	const char *s = "0123456789abcdef\xc3\xa9\xff\xff\xe2\x82z";
	assert_int_equal(pal__utf8_valid(s, strlen(s)), 18);
	assert_int_equal(pal__utf8_invalid(s + 18, strlen(s) - 18), 4);
	assert_int_equal(pal__utf8_valid(s + 22, 1), 1);
	assert_int_equal(pal__utf8_valid(s, 0), 0);
	assert_int_equal(pal__utf8_invalid(s, 0), 0);
	assert_int_equal(pal__utf8_invalid(s, 3), 0);
	assert_int_equal(pal__utf8_valid(s, 17), 16); /* cut within a character */
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(characters),
					   cmocka_unit_test(every_code_point),
					   cmocka_unit_test(runs)};
	return cmocka_run_group_tests_name("text/utf8", tests, NULL, NULL);
}
