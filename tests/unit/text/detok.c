#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "small_vocab.h"
#include "text/utf8.h"

static small_vocab v;

static pal__tokenizer *made(void)
{
	pal__tokenizer *t = NULL;
	pal_error err = {0};
	if (pal__tokenizer_new(&v.spec, &t, &err))
		fail_msg("%s", err.text);
	return t;
}

/* Feeds tokens named by their text; what each gave is in out, with bars between. */
static void expect(const pal__tokenizer *t, bool keep, const char *const *tokens, size_t n,
		   const char *want)
{
	char out[256];
	size_t at = 0;
	pal__detok d;
	pal__detok_init(&d, t, keep);
	for (size_t i = 0; i < n; i++) {
		assert_true(pal__detok_feed(&d, small_id(&v, tokens[i]), out, sizeof out, &at));
		out[at++] = '|';
	}
	at += pal__detok_finish(&d, out + at);
	assert_int_equal(pal__detok_finish(&d, out + at), 0); /* only once */
	assert_int_equal(at, strlen(want));
	assert_memory_equal(out, want, at);
}
#define EXPECT(t, keep, want, ...)                          \
	expect(t, keep, (const char *const[]){__VA_ARGS__}, \
	       sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *), want)

static void characters(void **state)
{
	(void)state;
	small_sentencepiece(&v, false);
	pal__tokenizer *t = made();
	EXPECT(t, false, "hello| world|", "hello", M "world");
	EXPECT(t, false, "||\u20ac|", "<0xE2>", "<0x82>", "<0xAC>");
	EXPECT(t, false, "|||\U0001f600|", "<0xF0>", "<0x9F>", "<0x98>", "<0x80>");
	EXPECT(t, false, "||\xe2\x82", "<0xE2>", "<0x82>");        /* given at the end */
	EXPECT(t, false, "||\xe2\x82h|", "<0xE2>", "<0x82>", "h"); /* broken */
	EXPECT(t, false, "||\xe2\x82||\u20ac|", "<0xE2>", "<0x82>", "<0xE2>", "<0x82>", "<0xAC>");
	EXPECT(t, false, "\x80|\xff|h|", "<0x80>", "<0xFF>", "h");
	EXPECT(t, false, "|\xed\xa0|h|", "<0xED>", "<0xA0>", "h"); /* a surrogate */
	EXPECT(t, false, "|\xc3|\u00e9|", "<0xC3>", "<0xC3>", "<0xA9>");
	pal__tokenizer_free(t);
}

static void specials(void **state)
{
	(void)state;
	small_sentencepiece(&v, false);
	pal__tokenizer *t = made();
	EXPECT(t, false, "|h||<tag>|", "<s>", "h", "</s>", "<tag>");
	EXPECT(t, true, "<s>|h|</s>|<tag>|", "<s>", "h", "</s>", "<tag>");
	EXPECT(t, false, "|||\u20ac|", "<0xE2>", "<s>", "<0x82>",
	       "<0xAC>"); /* left out: no break */
	EXPECT(t, true, "|\xe2<s>|", "<0xE2>", "<s>");
	pal__tokenizer_free(t);
}

static void dummy_prefix(void **state)
{
	(void)state;
	small_sentencepiece(&v, true);
	pal__tokenizer *t = made();
	EXPECT(t, false, "hello| world|", M "hello", M "world");
	EXPECT(t, false, "|hello|", "<s>", M "hello");
	EXPECT(t, true, "<s>| hello|", "<s>", M "hello");
	EXPECT(t, false, "| world|", M, M "world");
	EXPECT(t, false, " |h|", "  ", "h");
	EXPECT(t, false, "h| world|", "h", M "world");
	pal__detok d; /* going on within a text */
	char out[16];
	size_t n = 0;
	pal__detok_init(&d, t, false);
	d.at_start = false;
	assert_true(pal__detok_feed(&d, small_id(&v, M "hello"), out, sizeof out, &n));
	assert_int_equal(n, 6);
	assert_memory_equal(out, " hello", 6);
	pal__tokenizer_free(t);
}

static void room(void **state)
{
	(void)state;
	small_sentencepiece(&v, false);
	pal__tokenizer *t = made();
	char out[8] = "xxxxxxx";
	size_t n = 2;
	pal__detok d;
	pal__detok_init(&d, t, false);
	assert_true(pal__detok_feed(&d, small_id(&v, "<0xE2>"), out, 3, &n));
	pal__detok before = d;
	assert_false(pal__detok_feed(&d, small_id(&v, "hello"), out, 7, &n)); /* 1 held and 5 */
	assert_int_equal(n, 2);
	assert_int_equal(d.n_held, before.n_held);
	assert_int_equal(d.at_start, before.at_start);
	assert_memory_equal(out, "xxxxxxx", 8);
	assert_true(pal__detok_feed(&d, small_id(&v, "hello"), out, 8, &n));
	assert_int_equal(n, 8);
	assert_memory_equal(out, "xx\xe2hello", 8);
	pal__tokenizer_free(t);
}

/* Every split of a text of characters of all lengths into two tokens: both parts are whole. */
static void every_split(void **state)
{
	static const char text[] = "a\u00e9\u20ac\U0001f600z\u0301\U0010ffff";
	const size_t n = sizeof text - 1;
	(void)state;
	for (size_t cut = 1; cut < n; cut++) {
		char left[32], right[32], out[64];
		size_t at = 0;
		pal__detok d;
		small_start(&v, "llama", "");
		memcpy(left, text, cut);
		memcpy(right, text + cut, n - cut);
		left[cut] = right[n - cut] = 0;
		int32_t l = small_add(&v, left, PAL__TOKEN_NORMAL, 0);
		int32_t r = small_add(&v, right, PAL__TOKEN_NORMAL, 0);
		pal__tokenizer *t = made();
		pal__detok_init(&d, t, false);
		assert_true(pal__detok_feed(&d, l, out, sizeof out, &at));
		assert_int_equal(pal__utf8_valid(out, at), at);
		assert_true(at <= cut && at + 3 >= cut);
		assert_true(pal__detok_feed(&d, r, out, sizeof out, &at));
		assert_int_equal(pal__detok_finish(&d, out + at), 0);
		assert_int_equal(at, n);
		assert_memory_equal(out, text, n);
		pal__tokenizer_free(t);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(characters), cmocka_unit_test(specials),
					   cmocka_unit_test(dummy_prefix), cmocka_unit_test(room),
					   cmocka_unit_test(every_split)};
	return cmocka_run_group_tests_name("text/detok", tests, NULL, NULL);
}
