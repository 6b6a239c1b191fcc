#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <time.h>

#include "base/mem.h"
#include "text/normalize.h"

static void expect(const char *s, const char *want)
{
	pal__nfc b = {0};
	assert_true(pal__nfc_set(&b, s, strlen(s)));
	assert_int_equal(b.n, strlen(want));
	assert_memory_equal(b.s, want, b.n);
	pal__nfc_free(&b);
}

/* Expected values: the Unicode standard's examples, and what Hugging Face's NFC answers. */
static void forms(void **state)
{
	(void)state;
	expect("abc", "abc");
	expect("e\u0301", "\u00e9");
	expect("xe\u0301y", "x\u00e9y");
	expect("caf\u00e9 e", "caf\u00e9 e");
	expect("\u212b", "\u00c5"); /* the angstrom sign */
	expect("s\u0323\u0307", "\u1e69");
	expect("s\u0307\u0323", "\u1e69"); /* marks are ordered first */
	expect("\u1e9b\u0323", "\u1e9b\u0323");
	expect("\u1112\u1161\u11ab", "\ud55c"); /* Hangul */
	expect("\uac00\u11a8", "\uac01");
	expect("\u0958", "\u0915\u093c"); /* excluded from composition */
	expect("\uf900", "\u8c48");
	expect("<\u0338", "\u226e");
	expect("a\u0301\u0301\u0323", "\u1ea1\u0301\u0301");
	expect("\u0301a", "\u0301a");
	expect("\u4e2d\u6587 e\u0301", "\u4e2d\u6587 \u00e9");
	/* U+0899, of class 220, is younger than the tokenizers' tables: it stays and blocks */
	expect("a\u0899\u0301", "a\u0899\u0301");
	expect("a\u0301\u0899\u0323", "\u00e1\u0899\u0323");
	expect("\U00011938", "\U00011938");
	expect("\U00011935\U00011930", "\U00011935\U00011930");
}

static void trivial(void **state)
{
	(void)state;
	assert_true(pal__nfc_trivial("caf\u00e9", 5));
	assert_true(pal__nfc_trivial("\u02ff", 2));
	assert_false(pal__nfc_trivial("e\u0301", 3));
	assert_true(pal__nfc_trivial("", 0));
}

/* A million marks in the worst order: quadratic work would take hours. */
static void many_marks(void **state)
{
	enum { N = 500000 };
	char *s = pal__alloc(1 + 4 * N);
	pal__nfc b = {0};
	(void)state;
	s[0] = 'a';
	for (size_t i = 0; i < N; i++)
		memcpy(s + 1 + 4 * i, "\u0301\u0323", 4);
	assert_true(pal__nfc_set(&b, s, 1 + 4 * N));
	assert_int_equal(b.n, 3 + 2 * (2 * N - 1)); /* a and the first U+0323 made one */
	assert_memory_equal(b.s, "\u1ea1\u0323\u0323", 7);
	assert_memory_equal(b.s + b.n - 4, "\u0301\u0301", 4);
	pal__nfc_free(&b);
	pal__free(s);
}

static void out_of_memory(void **state)
{
	int64_t live = pal__mem_live();
	const char *s = "some text e\u0301\u0323 and \u1112\u1161\u11ab e\u0301\u0323\u0301\u0323";
	(void)state;
	for (int64_t n = 0;; n++) {
		pal__nfc b = {0};
		pal__mem_fail_after(n);
		bool good = pal__nfc_set(&b, s, strlen(s)), failed = pal__mem_failed();
		pal__mem_fail_after(-1);
		assert_int_equal(good, !failed);
		pal__nfc_free(&b);
		assert_int_equal(pal__mem_live(), live);
		if (good)
			break;
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(forms), cmocka_unit_test(trivial),
					   cmocka_unit_test(many_marks),
					   cmocka_unit_test(out_of_memory)};
	return cmocka_run_group_tests_name("text/normalize", tests, NULL, NULL);
}
