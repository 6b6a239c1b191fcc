#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "text/pretokenize.h"

/* The pieces of text, with bars between them. */
static pal_status pieces(const char *name, const char *text, char *out, pal_error *err)
{
	pal__pre p;
	pal__pre_scan scan = {0};
	size_t total = 0;
	pal_status s = pal__pre_init(&p, (pal__str){name, strlen(name)}, "file", err);
	if (s)
		return s;
	s = pal__pre_scan_init(&scan, &p, err);
	if (!s)
		pal__pre_scan_text(&scan, text, strlen(text));
	while (!s) {
		const char *piece;
		size_t n;
		s = pal__pre_scan_next(&scan, &piece, &n, err);
		if (s || !n)
			break;
		memcpy(out, piece, n);
		out[n] = '|';
		out += n + 1;
		total += n;
	}
	if (!s) {
		assert_int_equal(total, strlen(text));
		out[total ? -1 : 0] = 0;
	}
	pal__pre_scan_free(&scan);
	pal__pre_free(&p);
	return s;
}

static void expect(const char *name, const char *text, const char *want)
{
	char out[512];
	pal_error err;
	assert_int_equal(pieces(name, text, out, &err), PAL_OK);
	assert_string_equal(out, want);
}

/* Expected values: what the pre_tokenizers of Hugging Face answer. */
static void cuts(void **state)
{
	(void)state;
	expect("qwen2", "Hello world's 12 aa'LL", "Hello| world|'s| |1|2| aa|'LL");
	expect("llama-bpe", "Hello world's 1234 aa'LL", "Hello| world|'s| |123|4| aa|'LL");
	expect("gpt-2", "Hello world's 1234 aa'LL", "Hello| world|'s| 1234| aa|'|LL");
	expect("default", "x 12", "x| 12");
	expect("smollm", "ab12 3  c", "ab|1|2| |3| | c");
	expect("smollm", "12", "1|2");
	expect("smollm", "no digits", "no| digits");
	expect("qwen2", "a  b\n\n c \n", "a| | b|\n\n| c| \n");
	expect("gpt-2", "a  b\n\n c \n", "a| | b|\n\n| c| \n");
	expect("qwen2", "(x)!!\n\ny", "(x|)!!\n\n|y");
	expect("gpt-2", "(x)!!\n\ny", "(|x|)!!|\n|\n|y");
	expect("qwen2", "", "");
	expect("qwen2", "   ", "   ");
	expect("qwen2", "\u4e2d\u6587\uff11\u0661", "\u4e2d\u6587|\uff11|\u0661");
	/* U+180E is no white space; U+3000 and U+0085 are */
	expect("qwen2", "a\u180eb", "a|\u180eb");
	expect("qwen2", "a\u3000\u3000b", "a|\u3000|\u3000b");
	expect("gpt-2", "a\xc2\x85\xc2\x85", "a|\xc2\x85\xc2\x85");
	/* letters and numbers younger than PCRE2's tables */
	expect("gpt-2", "a\U00031350\U00016d70", "a\U00031350|\U00016d70");
	expect("qwen2", "it'\u017f", "it|'\u017f");
}

static void names(void **state)
{
	pal__pre p;
	pal_error err;
	(void)state;
	assert_int_equal(pal__pre_init(&p, (pal__str){"qwen", 4}, "f.gguf", &err),
			 PAL_EUNSUPPORTED);
	assert_non_null(strstr(err.text, "f.gguf: pre-tokenizer \"qwen\""));
	assert_non_null(strstr(err.text, "smollm"));
	assert_int_equal(pal__pre_init(&p, (pal__str){"qwen2", 5}, "f", &err), PAL_OK);
	assert_true(p.nfc);
	assert_false(p.whole_first);
	pal__pre_free(&p);
	assert_int_equal(pal__pre_init(&p, (pal__str){"llama-bpe", 9}, "f", &err), PAL_OK);
	assert_false(p.nfc);
	assert_true(p.whole_first);
	pal__pre_free(&p);
}

/* Many megabytes of white space, where the rules backtrack most. */
static void long_runs(void **state)
{
	enum { N = 12 << 20 };
	char *text = pal__alloc(N);
	pal_error err;
	(void)state;
	memset(text, ' ', N);
	text[N - 1] = 'x';
	for (int line = 0; line < 2; line++) {
		const size_t want[] = {1, N - 2 - (size_t)line, 2, 0};
		pal__pre p;
		pal__pre_scan scan;
		const char *s;
		size_t n;
		assert_int_equal(pal__pre_init(&p, (pal__str){"qwen2", 5}, "f", &err), PAL_OK);
		assert_int_equal(pal__pre_scan_init(&scan, &p, &err), PAL_OK);
		pal__pre_scan_text(&scan, text, N);
		for (int i = 1 - line; i < 4; i++) {
			assert_int_equal(pal__pre_scan_next(&scan, &s, &n, &err), PAL_OK);
			assert_int_equal(n, want[i]);
		}
		pal__pre_scan_free(&scan);
		pal__pre_free(&p);
		text[0] = '\n'; /* a rule that wants line ends matches a little, then nothing */
	}
	pal__free(text);
}

static void out_of_memory(void **state)
{
	int64_t live = pal__mem_live();
	char out[64];
	(void)state;
	for (int64_t n = 0;; n++) {
		pal_error err = {0};
		pal__mem_fail_after(n);
		pal_status s = pieces("smollm", "a 1 bc", out, &err);
		pal__mem_fail_after(-1);
		assert_int_equal(pal__mem_live(), live);
		if (!s)
			break; /* what only JIT could not have is done without */
		assert_int_equal(s, PAL_ENOMEM);
		assert_int_equal(err.code, PAL_ENOMEM);
	}
	assert_string_equal(out, "a| |1| bc");
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(cuts), cmocka_unit_test(names),
					   cmocka_unit_test(long_runs),
					   cmocka_unit_test(out_of_memory)};
	return cmocka_run_group_tests_name("text/pretokenize", tests, NULL, NULL);
}
