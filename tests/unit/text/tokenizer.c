#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>

#include "base/mem.h"
#include "small_vocab.h"

static small_vocab v;

/* That the vocabulary is refused with this status and a message that has `text`. */
static void refused(pal_status status, const char *text)
{
	int64_t live = pal__mem_live();
	pal__tokenizer *t = NULL;
	pal_error err = {0};
	if (pal__tokenizer_new(&v.spec, &t, &err) != status)
		fail_msg("not refused as \"%s\": %s", text, err.text);
	assert_null(t);
	assert_int_equal(err.code, status);
	if (!strstr(err.text, text) || !strstr(err.text, "small.gguf"))
		fail_msg("\"%s\" does not say \"%s\"", err.text, text);
	assert_int_equal(pal__mem_live(), live);
}

static pal__tokenizer *made(void)
{
	pal__tokenizer *t = NULL;
	pal_error err = {0};
	if (pal__tokenizer_new(&v.spec, &t, &err))
		fail_msg("%s", err.text);
	return t;
}

static void expect_bytes(const pal__tokenizer *t, const char *token, const char *bytes, size_t n)
{
	pal__str s = pal__token_bytes(t, small_id(&v, token));
	assert_int_equal(s.n, n);
	assert_memory_equal(s.s, bytes, n);
}

static void byte_level_tokens(void **state)
{
	(void)state;
	small_byte_level(&v, "gpt-2");
	int32_t odd = small_add(&v, "\xe6\x97\xa5", PAL__TOKEN_NORMAL, 0); /* not in the alphabet */
	int32_t empty = small_add(&v, "", PAL__TOKEN_NORMAL, 0);
	int32_t broken = small_add(&v, "\xff", PAL__TOKEN_NORMAL, 0);
	pal__tokenizer *t = made();
	assert_int_equal(pal__tokenizer_n_tokens(t), v.spec.n_tokens);
	assert_int_equal(pal__tokenizer_bos(t), small_id(&v, "<s>"));
	for (int b = 0; b < 256; b++) {
		pal__str s = pal__token_bytes(t, b);
		assert_int_equal(s.n, 1);
		assert_int_equal((uint8_t)s.s[0], b);
	}
	expect_bytes(t, G "world", " world", 6);
	expect_bytes(t, "\xc3\x83\xc2\xa9", "\u00e9", 2);
	expect_bytes(t, "<|im_end|>", "<|im_end|>", 10);
	assert_int_equal(pal__token_bytes(t, odd).n, 3);
	assert_int_equal(pal__token_bytes(t, empty).n, 0);
	assert_int_equal(pal__token_bytes(t, broken).n, 1);
	assert_true(pal__token_is_special(t, small_id(&v, "<|im_end|>")));
	assert_true(pal__token_is_special(t, small_id(&v, "<unk>")));
	assert_false(pal__token_is_special(t, small_id(&v, "<think>")));
	assert_false(pal__token_is_special(t, small_id(&v, "hello")));
	assert_true(pal__token_is_end(t, small_id(&v, "<|im_end|>")));
	assert_false(pal__token_is_end(t, small_id(&v, "<s>")));
	pal__tokenizer_free(t);
	pal__tokenizer_free(NULL);
}

static void sentencepiece_tokens(void **state)
{
	(void)state;
	small_sentencepiece(&v, true);
	int32_t turn = small_add(&v, "<end_of_turn>", PAL__TOKEN_CONTROL, 0);
	int32_t not_turn = small_add(&v, "<eos>", PAL__TOKEN_USER, 0);
	int32_t mark = small_add(&v, M "<x>", PAL__TOKEN_CONTROL, 0);
	v.spec.eot = small_id(&v, "hello");
	pal__tokenizer *t = made();
	expect_bytes(t, "<0xFF>", "\xff", 1);
	expect_bytes(t, "<0x0A>", "\n", 1);
	expect_bytes(t, M "hello", " hello", 6);
	expect_bytes(t, M, " ", 1);
	expect_bytes(t, "   ", "   ", 3);
	assert_int_equal(pal__token_bytes(t, mark).n, 6); /* a control token is its own text */
	assert_true(pal__token_is_end(t, turn));
	assert_true(pal__token_is_end(t, small_id(&v, "</s>"))); /* spec->eos and by name */
	assert_true(pal__token_is_end(t, v.spec.eot));
	assert_false(pal__token_is_end(t, not_turn)); /* only control tokens by name */
	pal__tokenizer_free(t);
}

static void hostile_byte_level(void **state)
{
	static char big[PAL__MAX_TOKEN_BYTES + 2];
	(void)state;
	memset(big, 'x', sizeof big - 1);
	small_byte_level(&v, "nonsense");
	refused(PAL_EUNSUPPORTED, "nonsense");
	small_byte_level(&v, "gpt-2");
	v.spec.model = str("wordpiece");
	refused(PAL_EUNSUPPORTED, "\"wordpiece\" is not supported (supported: gpt2, llama)");

	static const struct {
		const char *merge, *text;
	} merges[] = {
		{"h", "merge 13 (\"h\") is not two tokens"},
		{"", "merge 13 (\"\") is not two tokens"},
		{"h ", "merge 13 (\"h \") is not two tokens"},
		{" h", "merge 13 (\" h\") is not two tokens"},
		{"zzz h", "merge 13 (\"zzz h\"): its left part (\"zzz\") is not in the vocabulary"},
		{"h zzz",
		 "merge 13 (\"h zzz\"): its right part (\"zzz\") is not in the vocabulary"},
		{"h e l", "merge 13 (\"h e l\"): its right part"},
		{"<think> h", "its left part (\"<think>\") is not in the vocabulary"},
		{"\xe6\x97\xa5 h", "its left part"},
		{big, "its left part"},
	};
	for (size_t i = 0; i < sizeof merges / sizeof *merges; i++) {
		small_byte_level(&v, "gpt-2");
		small_merge(&v, merges[i].merge);
		if (merges[i].merge == big)
			big[PAL__MAX_TOKEN_BYTES - 1] = ' ';
		refused(PAL_EFORMAT, merges[i].text);
		big[PAL__MAX_TOKEN_BYTES - 1] = 'x';
	}

	small_byte_level(&v, "gpt-2");
	small_add(&v, big, PAL__TOKEN_NORMAL, 0);
	refused(PAL_ELIMIT, "token 275 has 65537 bytes: at most 65536");
	small_byte_level(&v, "gpt-2");
	big[PAL__MAX_TOKEN_BYTES] = 0;
	small_add(&v, big, PAL__TOKEN_CONTROL, 0);
	refused(PAL_ELIMIT, "is special and has 65536 bytes: at most 1024");
	v.types[275] = PAL__TOKEN_NORMAL; /* as a word it is fine */
	pal__tokenizer_free(made());
	static const int32_t types[] = {0, -1, 7, INT32_MAX};
	for (size_t i = 0; i < 4; i++) {
		v.types[275] = types[i];
		refused(PAL_EFORMAT, "it must be 1 to 6");
	}
}

/* Vocabularies that were cut have merges into tokens they lost. */
static void merge_into_nothing(void **state)
{
	int32_t *ids;
	size_t n;
	(void)state;
	small_byte_level(&v, "gpt-2");
	small_merge(&v, "h h");
	pal__tokenizer *t = made();
	assert_int_equal(pal__tokenize(t, "hh", 2, 0, &ids, &n, NULL), PAL_OK);
	assert_int_equal(n, 2);
	pal__free(ids);
	pal__tokenizer_free(t);
}

static void hostile_ids(void **state)
{
	static const int32_t wrong[] = {-2, INT32_MIN, INT32_MAX, 275};
	(void)state;
	for (size_t i = 0; i < 4; i++)
		for (int which = 0; which < 4; which++) {
			small_byte_level(&v, "gpt-2");
			int32_t *ids[] = {&v.spec.bos, &v.spec.eos, &v.spec.eot, &v.spec.unk};
			*ids[which] = wrong[i];
			refused(PAL_EFORMAT, "there is no token");
		}
	small_byte_level(&v, "gpt-2");
	v.spec.n_tokens = PAL__MAX_VOCAB + 1;
	refused(PAL_ELIMIT, "4194305 tokens");
	small_byte_level(&v, "gpt-2");
	v.spec.n_merges = PAL__MAX_MERGES + 1;
	refused(PAL_ELIMIT, "16777217 merges");
}

static void hostile_sentencepiece(void **state)
{
	static char spaces[400];
	(void)state;
	small_sentencepiece(&v, true);
	v.spec.scores = NULL;
	refused(PAL_EFORMAT, "tokenizer.ggml.scores is missing");
	small_sentencepiece(&v, true);
	v.scores[300 - 20] = NAN;
	refused(PAL_EFORMAT, "the score of token 280 is not a number");
	static const char *const bytes[] = {"<0xGG>", "<0x0a>", "<0x0A", "x", "", "<0x123>"};
	for (size_t i = 0; i < sizeof bytes / sizeof *bytes; i++) {
		small_sentencepiece(&v, true);
		small_add(&v, bytes[i], PAL__TOKEN_BYTE, 0);
		refused(PAL_EFORMAT, "has the type of a byte but is not written like <0x0A>");
	}
	small_sentencepiece(&v, true);
	memset(spaces, ' ', sizeof spaces - 1);
	small_add(&v, spaces, PAL__TOKEN_USER, 0);
	refused(PAL_ELIMIT, "is special");
	small_sentencepiece(&v, true);
	for (size_t i = 0; i < 256; i++) /* infinite and equal scores are an order too */
		v.scores[i] = i % 2 ? INFINITY : -INFINITY;
	small_add(&v, "", PAL__TOKEN_USER, 0);
	pal__tokenizer_free(made());
}

static void empty_vocabulary(void **state)
{
	(void)state;
	static const char *const models[] = {"gpt2", "llama"};
	for (int i = 0; i < 2; i++) {
		int32_t *ids;
		size_t n;
		pal_error err;
		small_start(&v, models[i], "");
		pal__tokenizer *t = made();
		assert_int_equal(pal__tokenize(t, "x", 1, 0, &ids, &n, &err), PAL_EUNSUPPORTED);
		assert_non_null(strstr(err.text, "no token for byte 0x78"));
		pal__tokenizer_free(t);
	}
}

static void without_types(void **state)
{
	(void)state;
	small_byte_level(&v, "");
	v.spec.types = NULL;
	pal__tokenizer *t = made();
	assert_false(pal__token_is_special(t, small_id(&v, "<unk>")));
	pal__tokenizer_free(t);
}

static void same_ids(void **state)
{
	(void)state;
	int32_t first = -1, n;
	small_byte_level(&v, "");
	pal__tokenizer *a = made(), *b = made();
	n = (int32_t)v.spec.n_tokens;
	assert_true(pal__tokenizer_same(a, b, &first));
	pal__tokenizer_free(b);
	small_add(&v, "more", PAL__TOKEN_NORMAL, 0);
	b = made();
	assert_false(pal__tokenizer_same(a, b, &first));
	assert_int_equal(first, n);
	assert_false(pal__tokenizer_same(b, a, &first));
	assert_int_equal(first, n);
	pal__tokenizer_free(a);
	v.tokens[n] = str("most");
	a = made();
	assert_false(pal__tokenizer_same(a, b, &first));
	assert_int_equal(first, n);
	pal__tokenizer_free(a);
	v.tokens[n] = str("more");
	v.types[n] = PAL__TOKEN_CONTROL;
	a = made();
	assert_false(pal__tokenizer_same(a, b, &first));
	assert_int_equal(first, n);
	pal__tokenizer_free(a);
	pal__tokenizer_free(b);
}

static void out_of_memory(void **state)
{
	(void)state;
	for (int model = 0; model < 2; model++)
		for (int64_t n = 0;; n++) {
			int64_t live = pal__mem_live();
			pal__tokenizer *t = NULL;
			pal_error err = {0};
			if (model)
				small_sentencepiece(&v, true);
			else
				small_byte_level(&v, "smollm");
			pal__mem_fail_after(n);
			pal_status s = pal__tokenizer_new(&v.spec, &t, &err);
			pal__mem_fail_after(-1);
			if (!s) {
				pal__tokenizer_free(t);
				assert_int_equal(pal__mem_live(), live);
				break;
			}
			assert_int_equal(s, PAL_ENOMEM);
			assert_int_equal(err.code, PAL_ENOMEM);
			assert_null(t);
			assert_int_equal(pal__mem_live(), live);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(byte_level_tokens),  cmocka_unit_test(sentencepiece_tokens),
		cmocka_unit_test(hostile_byte_level), cmocka_unit_test(merge_into_nothing),
		cmocka_unit_test(hostile_ids),        cmocka_unit_test(hostile_sentencepiece),
		cmocka_unit_test(empty_vocabulary),   cmocka_unit_test(without_types),
		cmocka_unit_test(same_ids),           cmocka_unit_test(out_of_memory),
	};
	return cmocka_run_group_tests_name("text/tokenizer", tests, NULL, NULL);
}
