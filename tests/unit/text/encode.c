#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "small_vocab.h"

static small_vocab v;

static pal__tokenizer *made(void)
{
	pal__tokenizer *t = NULL;
	pal_error err = {0};
	if (pal__tokenizer_new(&v.spec, &t, &err))
		fail_msg("%s", err.text);
	return t;
}

/* That text becomes these tokens, named by their text with bars between. */
static void expect(const pal__tokenizer *t, const char *text, unsigned flags, const char *want)
{
	char got[512] = "";
	int32_t *ids = NULL;
	size_t n = 0, at = 0;
	pal_error err = {0};
	assert_int_equal(pal__tokenize(t, text, strlen(text), flags, &ids, &n, &err), PAL_OK);
	for (size_t i = 0; i < n; i++) {
		pal__str s = v.tokens[ids[i]];
		at += (size_t)snprintf(got + at, sizeof got - at, "%s%.*s", i ? "|" : "", (int)s.n,
				       s.s);
	}
	pal__free(ids);
	assert_string_equal(got, want);
}

static void byte_level(void **state)
{
	(void)state;
	small_byte_level(&v, "gpt-2");
	pal__tokenizer *t = made();
	const unsigned special = PAL_TOKENIZE_SPECIAL;
	expect(t, "", 0, "");
	expect(t, "", PAL_TOKENIZE_ADD, "<s>|<|im_end|>");
	expect(t, "hello world", 0, "hello|" G "world");
	expect(t, "hell lo", 0, "hell|" G "|l|o");
	expect(t, "lll", 0, "ll|l");
	expect(t, "aaaaaaa", 0, "aaaa|aa|a");
	expect(t, "\u00e9\u00e8", 0, "\xc3\x83\xc2\xa9|\xc3\x83|\xc2\xa8");
	expect(t, "h<|im_end|>h", special, "h|<|im_end|>|h");
	expect(t, "h<|im_en", special, "h|<|im|_|e|n"); /* the longest that is whole */
	expect(t, "<|im", 0, "<|||i|m");
	expect(t, "<think>x", 0, "<think>|x"); /* user-defined: always */
	expect(t, "<unk>", special, "<unk>");
	expect(t, "[PAD]", special, "[|P|A|D|]"); /* unused: never */
	expect(t, "hell<think>o", 0, "hell|<think>|o");
	expect(t, "<s>", special | PAL_TOKENIZE_ADD, "<s>|<s>|<|im_end|>");
	expect(t, "he\xffllo", 0, "he|\xc3\xbf|ll|o");
	pal__tokenizer_free(t);
}

static void first_of_equals(void **state)
{
	(void)state;
	small_byte_level(&v, "gpt-2");
	int32_t second = small_add(&v, "hello", PAL__TOKEN_NORMAL, 0);
	int32_t think = small_add(&v, "<think>", PAL__TOKEN_CONTROL, 0);
	pal__tokenizer *t = made();
	int32_t *ids;
	size_t n;
	assert_int_equal(pal__tokenize(t, "hello<think>", 12, PAL_TOKENIZE_SPECIAL, &ids, &n, NULL),
			 PAL_OK);
	assert_int_equal(n, 2);
	assert_int_not_equal(ids[0], second);
	assert_int_not_equal(ids[1], think);
	pal__free(ids);
	pal__tokenizer_free(t);
}

static void families(void **state)
{
	(void)state;
	small_byte_level(&v, "qwen2");
	pal__tokenizer *t = made();
	expect(t, "e\u0301", 0, "\xc3\x83\xc2\xa9"); /* normalized */
	expect(t, "12", 0, "1|2");
	pal__tokenizer_free(t);

	small_byte_level(&v, "llama-bpe");
	small_add(&v, "xyz", PAL__TOKEN_NORMAL, 0); /* no merge makes it, but the whole piece is */
	t = made();
	expect(t, "e\u0301", 0, "e|\xc3\x8c|\xc4\xa3");
	expect(t, "12", 0, "12");
	expect(t, "xyz", 0, "xyz");
	expect(t, "xyzx", 0, "x|y|z|x");
	pal__tokenizer_free(t);

	small_byte_level(&v, "smollm");
	t = made();
	expect(t, "hello12", 0, "hello|1|2");
	pal__tokenizer_free(t);
}

static void sentencepiece(void **state)
{
	(void)state;
	small_sentencepiece(&v, false);
	pal__tokenizer *t = made();
	const unsigned special = PAL_TOKENIZE_SPECIAL;
	expect(t, "", PAL_TOKENIZE_ADD, "<s>");
	expect(t, "hello world", 0, "hello|" M "world");
	expect(t, "hello  world", 0, "hello|  |w|orld"); /* runs of spaces come first */
	expect(t, "   a", 0, "   |a");
	expect(t, "      a", 0, "   |   |a");
	expect(t, "hello\n\n\nhello", 0, "hello|\n\n|\n|hello");
	expect(t, "<tag>hello", 0, "<tag>|hello");
	expect(t, "<s>", special, "<s>");
	expect(t, "<s>", 0, "<|<0x73>|<0x3E>");
	expect(t, "\u00e9\u00e8", 0, "\u00e9|<0xC3>|<0xA8>");
	expect(t, "<0x0A>", 0, "<|<0x30>|<0x78>|<0x30>|<0x41>|<0x3E>");
	expect(t, "h\xffh", 0, "h|<0xFF>|h");
	expect(t, "\xe2\x96", 0, "<0xE2>|<0x96>");
	expect(t, M "hello", 0, M "hello"); /* U+2581 is a space */
	expect(t, "h" M M "h", 0, "h|  |h");
	expect(t, "aaaaaaa", 0, "aaaa|aa|a");
	pal__tokenizer_free(t);

	small_sentencepiece(&v, true);
	t = made();
	expect(t, "", 0, "");
	expect(t, "hello", PAL_TOKENIZE_ADD, "<s>|" M "hello");
	expect(t, "hello<s>hello", special, M "hello|<s>|" M "hello");
	expect(t, "<s><s>", special, "<s>|<s>");
	expect(t, " hello", 0, "  |hello");
	pal__tokenizer_free(t);
}

static void missing_bytes(void **state)
{
	int32_t *ids;
	size_t n;
	pal_error err;
	(void)state;
	small_sentencepiece(&v, false);
	v.tokens[small_id(&v, "<0xC3>")] = str("[gone]");
	v.types[v.spec.n_tokens] = 0;
	for (size_t i = 0; i < v.spec.n_tokens; i++)
		if (v.tokens[i].n == 6 && !memcmp(v.tokens[i].s, "[gone]", 6))
			v.types[i] = PAL__TOKEN_UNUSED;
	pal__tokenizer *t = made();
	expect(t, "h\u00e8\u00eah\u00e8", 0, "h|<unk>|h|<unk>"); /* one for a row of them */
	expect(t, "h\xc3\xff", 0, "h|<unk>|<0xFF>");
	pal__tokenizer_free(t);
	v.spec.unk = -1;
	t = made();
	assert_int_equal(pal__tokenize(t, "h\u00e8", 3, 0, &ids, &n, &err), PAL_EUNSUPPORTED);
	assert_non_null(strstr(err.text, "0xC3"));
	pal__tokenizer_free(t);

	small_byte_level(&v, "gpt-2");
	v.types['z'] = PAL__TOKEN_UNUSED;
	t = made();
	assert_int_equal(pal__tokenize(t, "hz", 2, 0, &ids, &n, &err), PAL_EUNSUPPORTED);
	assert_non_null(strstr(err.text, "0x7A"));
	pal__tokenizer_free(t);
	v.spec.unk = small_id(&v, "<unk>");
	t = made();
	expect(t, "hzh", 0, "h|<unk>|h");
	pal__tokenizer_free(t);
}

static void limits(void **state)
{
	int32_t *ids = (int32_t *)&v;
	size_t n = 7;
	pal_error err;
	(void)state;
	small_byte_level(&v, "gpt-2");
	pal__tokenizer *t = made();
	assert_int_equal(pal__tokenize(t, "", PAL__MAX_TEXT + 1, 0, &ids, &n, &err), PAL_ELIMIT);
	assert_int_equal(n, 7);
	pal__tokenizer_free(t);
}

/* A word of 256 KiB, and other texts that would hurt a quadratic tokenizer. */
static void long_texts(void **state)
{
	enum { N = 1 << 18 };
	static const char *const parts[] = {"a", "h", " ", "\n", "<", "\xff", "he", "\u00e8", "1"};
	char *text = pal__alloc(N);
	(void)state;
	for (int model = 0; model < 4; model++) {
		if (model < 2)
			small_byte_level(&v, model ? "qwen2" : "smollm");
		else
			small_sentencepiece(&v, model == 3);
		pal__tokenizer *t = made();
		for (size_t p = 0; p < sizeof parts / sizeof *parts; p++) {
			int32_t *ids;
			size_t n, total = 0, size = strlen(parts[p]);
			for (size_t i = 0; i + size <= N; i += size)
				memcpy(text + i, parts[p], size);
			assert_int_equal(pal__tokenize(t, text, N, 0, &ids, &n, NULL), PAL_OK);
			for (size_t i = 0; i < n; i++)
				total += pal__token_bytes(t, ids[i]).n;
			assert_int_equal(total, N + (model == 3 && *parts[p] != '\n'));
			pal__free(ids);
		}
		pal__tokenizer_free(t);
	}
	pal__free(text);
}

/* Random bytes, made of parts that mean something, come back. */
static void round_trips(void **state)
{
	static const char *const parts[] = {"hello", " ",      "  ",       "world",
					    "\n",    "aa",     "<s>",      "<think>",
					    "<tag>", "\u00e9", "\xe2\x96", "\xf0\x9f\x98\x80",
					    "\xff",  "12",     "it's",     "<|im_end|>"};
	uint32_t seed = 2024;
	(void)state;
	for (int round = 0; round < 4000; round++) {
		static pal__tokenizer *made_once[5];
		static const char *const pres[] = {"gpt-2", "llama-bpe", "smollm", "qwen2"};
		int model = round % 5;
		char text[256], back[256];
		size_t n = 0, n_back = 0, n_ids;
		int32_t *ids;
		uint32_t first = seed;
		if (!made_once[model]) {
			if (model < 4)
				small_byte_level(&v, pres[model]);
			else
				small_sentencepiece(&v, false);
			made_once[model] = made();
		}
		for (uint32_t k = 0; k < 1 + first % 16; k++) {
			seed = seed * 1664525 + 1013904223;
			uint32_t r = seed >> 16;
			const char *part = parts[r % 16];
			if (r & 0x100) {
				text[n++] = (char)(r >> 9);
				continue;
			}
			memcpy(text + n, part, strlen(part));
			n += strlen(part);
		}
		seed = seed * 1664525 + 1013904223;
		assert_int_equal(pal__tokenize(made_once[model], text, n, PAL_TOKENIZE_SPECIAL,
					       &ids, &n_ids, NULL),
				 PAL_OK);
		for (size_t i = 0; i < n_ids; i++) {
			pal__str s = pal__token_bytes(made_once[model], ids[i]);
			memcpy(back + n_back, s.s, s.n);
			n_back += s.n;
		}
		pal__free(ids);
		if (n_back != n || memcmp(back, text, n))
			fail_msg("seed %u, model %d", first, model);
		if (round >= 3995)
			pal__tokenizer_free(made_once[model]);
	}
}

/* Words of a long text become what they become in a short one. */
static void words_again(void **state)
{
	static const char *const pres[] = {"gpt-2", "llama-bpe", "smollm", "qwen2"};
	static const char letters[] = "hello wrd12a<.'\n";
	(void)state;
	for (int model = 0; model < 4; model++) {
		small_byte_level(&v, pres[model]);
		pal__tokenizer *t = made();
		const size_t most = 40000;
		char *text = malloc(most + 100);
		int32_t *want = malloc((most + 100) * sizeof *want), *ids;
		uint32_t seed = 11;
		size_t n = 0, n_want = 0, n_ids;
		assert_true(text && want);
		while (n < most) { /* a part, and a special token behind it */
			size_t from = n;
			seed = seed * 1664525 + 1013904223;
			for (uint32_t k = 1 + (seed >> 16) % 80; k > 0; k--) {
				seed = seed * 1664525 + 1013904223;
				text[n++] = letters[(seed >> 16) % 16 % (1 + (seed >> 24) % 16)];
			}
			n += (size_t)sprintf(text + n, "<|im_end|>");
			assert_int_equal(pal__tokenize(t, text + from, n - from,
						       PAL_TOKENIZE_SPECIAL, &ids, &n_ids, NULL),
					 PAL_OK);
			memcpy(want + n_want, ids, n_ids * sizeof *ids);
			n_want += n_ids;
			pal__free(ids);
		}
		assert_int_equal(
			pal__tokenize(t, text, n, PAL_TOKENIZE_SPECIAL, &ids, &n_ids, NULL),
			PAL_OK);
		assert_int_equal(n_ids, n_want);
		assert_memory_equal(ids, want, n_want * sizeof *ids);
		pal__free(ids);
		free(text);
		free(want);
		pal__tokenizer_free(t);
	}
}

static void out_of_memory(void **state)
{
	const char *text =
		"hello world 12 <think> e\u0301\u0323 \xff aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
	(void)state;
	for (int model = 0; model < 3; model++) {
		if (model < 2)
			small_byte_level(&v, model ? "qwen2" : "smollm");
		else
			small_sentencepiece(&v, true);
		pal__tokenizer *t = made();
		int64_t live = pal__mem_live();
		for (int64_t n = 0;; n++) {
			int32_t *ids = NULL;
			size_t n_ids = 0;
			pal_error err = {0};
			pal__mem_fail_after(n);
			pal_status s = pal__tokenize(t, text, strlen(text), 0, &ids, &n_ids, &err);
			pal__mem_fail_after(-1);
			if (!s) {
				assert_true(n > 2 && n_ids > 10);
				pal__free(ids);
				assert_int_equal(pal__mem_live(), live);
				break;
			}
			assert_int_equal(s, PAL_ENOMEM);
			assert_int_equal(err.code, PAL_ENOMEM);
			assert_null(ids);
			assert_int_equal(pal__mem_live(), live);
		}
		pal__tokenizer_free(t);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(byte_level),    cmocka_unit_test(first_of_equals),
		cmocka_unit_test(families),      cmocka_unit_test(sentencepiece),
		cmocka_unit_test(missing_bytes), cmocka_unit_test(limits),
		cmocka_unit_test(long_texts),    cmocka_unit_test(round_trips),
		cmocka_unit_test(words_again),   cmocka_unit_test(out_of_memory),
	};
	return cmocka_run_group_tests_name("text/encode", tests, NULL, NULL);
}
