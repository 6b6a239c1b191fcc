/* Corpus files: what is found in them beside its definition, and refused when anything is wrong. */
#include "draft/corpus.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>
#include <xxhash.h>

#include "base/mem.h"
#include "draft/indexing.h"
#include "tokens.h"

#define ALPHABET 500
#define MAX_BYTES 65536

static char path[] = "/tmp/pal-corpus-XXXXXX";
static pal__tokenizer *vocabulary;

static void write_corpus(const int32_t *tokens, const size_t *lengths, size_t n)
{
	pal__corpus_text t = {0};
	for (size_t i = 0; i < n; tokens += lengths[i++]) {
		assert_int_equal(pal__corpus_add(&t, tokens, lengths[i], NULL), PAL_OK);
		assert_int_equal(pal__corpus_end(&t, NULL), PAL_OK);
	}
	assert_int_equal(pal__corpus_write(&t, vocabulary, path, NULL, NULL, NULL), PAL_OK);
	pal__corpus_text_free(&t);
}

static void open_good(pal__corpus *c)
{
	pal_error err;
	if (pal__corpus_open(path, vocabulary, c, &err))
		fail_msg("%s", err.text);
}

static size_t read_file(uint8_t *bytes)
{
	FILE *f = fopen(path, "rb");
	assert_non_null(f);
	size_t n = fread(bytes, 1, MAX_BYTES, f);
	fclose(f);
	return n;
}

static void write_file(const uint8_t *bytes, size_t n)
{
	FILE *f = fopen(path, "wb");
	assert_true(f && fwrite(bytes, 1, n, f) == n && fclose(f) == 0);
}

/* Makes the sums fit. */
static void seal(uint8_t *bytes, size_t n)
{
	pal__corpus_header h;
	memcpy(&h, bytes, sizeof h);
	h.sum = XXH3_64bits(bytes + sizeof h, n - sizeof h);
	h.header_sum = XXH3_64bits(&h, offsetof(pal__corpus_header, header_sum));
	memcpy(bytes, &h, sizeof h);
}

static uint32_t naive_match(const pal__corpus *c, uint32_t at, const int32_t *context, size_t n)
{
	uint32_t m = 0;
	while (m < n && m < PAL__CORPUS_DEEP && m <= at && c->tokens[at - m] >= 0 &&
	       c->tokens[at - m] == context[n - 1 - m])
		m++;
	return m;
}

static void check_find(const pal__corpus *c, const int32_t *context, size_t n, size_t most)
{
	pal__corpus_place places[20];
	size_t counts[PAL__CORPUS_DEEP + 1] = {0}, want = 0;
	for (uint32_t at = 0; at < c->n; at++)
		counts[naive_match(c, at, context, n)]++;
	for (size_t m = 1; m <= PAL__CORPUS_DEEP; m++)
		want += counts[m];
	size_t got = pal__corpus_find(c, context, n, places, most);
	assert_int_equal(got, want < most ? want : most);
	uint32_t match = PAL__CORPUS_DEEP;
	for (size_t i = 0; i < got; i++) {
		assert_int_equal(places[i].match, naive_match(c, places[i].next - 1, context, n));
		for (size_t k = 0; k < i; k++)
			assert_int_not_equal(places[k].next, places[i].next);
		while (!counts[match]) /* the longest that is left */
			match--;
		assert_int_equal(places[i].match, match);
		counts[match]--;
	}
}

static void finds_the_longest(void **state)
{
	(void)state;
	enum { N = 1500 };
	static int32_t text[N];
	for (uint64_t seed = 0; seed < 16; seed++) {
		uint64_t random = seed;
		uint32_t alphabet = 1 + below(&random, seed % 2 ? 3 : ALPHABET);
		size_t lengths[30], n = 0, documents = 0;
		random_text(&random, text, 0, N, alphabet);
		while (n < N && documents < 30) {
			size_t length = 1 + below(&random, seed % 3 ? 300 : 9);
			lengths[documents] = length < N - n ? length : N - n;
			n += lengths[documents++];
		}
		write_corpus(text, lengths, documents);
		pal__corpus c;
		open_good(&c);
		assert_int_equal(c.n, n + documents);
		for (int i = 0; i < 60; i++) {
			int32_t context[100];
			size_t from = below(&random, N - 100), length = 1 + below(&random, 100);
			memcpy(context, text + from, sizeof context);
			if (i % 3 == 0)
				random_text(&random, context, 0, 100, alphabet);
			if (i % 3 == 1)
				context[below(&random, 100)] = (int32_t)below(&random, ALPHABET);
			check_find(&c, context, length, 1 + below(&random, 20));
		}
		assert_int_equal(pal__corpus_find(&c, text, 0, NULL, 0), 0);
		pal__corpus_close(&c);
	}
}

static void tokens_are_checked(void **state)
{
	(void)state;
	static uint8_t bytes[MAX_BYTES];
	const int32_t text[] = {1, 2, 3, 1, 2, 4};
	pal__corpus_place places[8];
	pal__corpus c;
	write_corpus(text, (const size_t[]){6}, 1);
	open_good(&c);
	assert_int_equal(pal__corpus_find(&c, text, 2, places, 8), 2);
	assert_int_equal(pal__corpus_token(&c, 2) + pal__corpus_token(&c, 5), 3 + 4);
	assert_int_equal(pal__corpus_token(&c, 6), PAL__CORPUS_BREAK);
	assert_int_equal(pal__corpus_token(&c, 7), PAL__CORPUS_BREAK);
	assert_int_equal(pal__corpus_token(&c, UINT32_MAX), PAL__CORPUS_BREAK);
	pal__corpus_close(&c);
	/* Tokens that are none, positions that are none, in any order. */
	for (uint64_t seed = 0; seed < 300; seed++) {
		uint64_t random = seed;
		size_t n = read_file(bytes);
		for (int i = 0; i < 8; i++) {
			uint32_t wild =
				seed % 2 ? below(&random, 9) : below(&random, 1u << 31) * 2u;
			memcpy(bytes + sizeof(pal__corpus_header) + 4 * below(&random, 18), &wild,
			       4);
		}
		seal(bytes, n);
		write_file(bytes, n);
		open_good(&c);
		for (uint32_t i = 0; i < 6; i++) {
			size_t got = pal__corpus_find(&c, text, i + 1, places, 8);
			for (size_t k = 0; k < got; k++) {
				int32_t token = pal__corpus_token(&c, places[k].next);
				assert_true(token >= -1 && token < ALPHABET);
				assert_true(places[k].match >= 1 && places[k].match <= i + 1);
			}
		}
		pal__corpus_close(&c);
	}
}

static void refused(pal_status want, const char *text)
{
	pal__corpus c = {0};
	pal_error err = {0};
	int64_t live = pal__mem_live();
	assert_int_equal(pal__corpus_open(path, vocabulary, &c, &err), want);
	if (!strstr(err.text, text) || strchr(err.text, '\n'))
		fail_msg("%s", err.text);
	assert_null(c.file.data);
	assert_int_equal(pal__mem_live(), live);
}

static void damage_is_refused(void **state)
{
	(void)state;
	static uint8_t bytes[MAX_BYTES];
	const int32_t text[] = {1, 2, 3, 1, 2, 4, 7, 8};
	write_corpus(text, (const size_t[]){3, 5}, 2);
	size_t n = read_file(bytes);
	for (size_t i = 0; i < n; i++) {
		bytes[i] ^= 0x10;
		write_file(bytes, n);
		refused(PAL_EFORMAT, i < 8 ? "is no corpus" : i < 12 ? "version" : "damaged");
		bytes[i] ^= 0x10;
	}
	for (size_t i = 0; i < n; i++) {
		write_file(bytes, i);
		refused(PAL_EFORMAT, "cut short");
	}
	bytes[n] = 0;
	write_file(bytes, n + 1);
	refused(PAL_EFORMAT, "bytes instead of");
	/* Sums that fit do not help: what the header says follows from the number of tokens. */
	for (size_t i = 12; i < 128 - 8; i++) {
		bool record = i >= offsetof(pal__corpus_header, documents) &&
			      i < offsetof(pal__corpus_header, n_vocab);
		bool sum = i >= offsetof(pal__corpus_header, sum) &&
			   i < offsetof(pal__corpus_header, zero);
		bool vocab = i >= offsetof(pal__corpus_header, n_vocab) &&
			     i < offsetof(pal__corpus_header, sum);
		if (record || sum)
			continue;
		bytes[i] ^= 0x10;
		seal(bytes, n);
		write_file(bytes, n);
		refused(vocab ? PAL_EINVAL : PAL_EFORMAT, vocab ? "another vocabulary" : "");
		bytes[i] ^= 0x10;
	}
	unlink(path);
	refused(PAL_EIO, "No such file");
}

static void of_another_vocabulary(void **state)
{
	(void)state;
	const int32_t text[] = {1, 2, 3};
	pal__tokenizer *own = vocabulary;
	write_corpus(text, (const size_t[]){3}, 1);
	vocabulary = make_vocabulary(ALPHABET, "b");
	refused(PAL_EINVAL, "is of another vocabulary, 500 tokens");
	pal__tokenizer_free(vocabulary);
	vocabulary = make_vocabulary(ALPHABET + 1, "a");
	refused(PAL_EINVAL, "than the model, 501 with");
	pal__tokenizer_free(vocabulary);
	vocabulary = make_vocabulary(ALPHABET, "a"); /* made again, it is the same */
	pal__corpus c;
	open_good(&c);
	pal__corpus_close(&c);
	pal__tokenizer_free(vocabulary);
	vocabulary = own;
}

static void changed_while_mapped(void **state)
{
	(void)state;
	enum { N = 20000 };
	static int32_t text[N];
	pal__corpus_place places[16];
	pal__corpus c;
	uint64_t random = 3;
	random_text(&random, text, 0, N, 50);
	write_corpus(text, (const size_t[]){N}, 1);
	open_good(&c);
	/* Written anew: whoever has the old one keeps it. */
	const int32_t other[] = {1, 2};
	write_corpus(other, (const size_t[]){2}, 1);
	for (int i = 100; i < N; i += 997)
		check_find(&c, text, (size_t)i, 16);
	assert_true(pal__corpus_intact(&c));
	pal__corpus_close(&c);
	/* Cut short: zeros, and it is known. */
	write_corpus(text, (const size_t[]){N}, 1);
	open_good(&c);
	assert_true(pal__corpus_intact(&c));
	assert_int_equal(truncate(path, 5000), 0);
	for (int i = 100; i < N; i += 997) {
		size_t got = pal__corpus_find(&c, text, (size_t)i, places, 16);
		for (size_t k = 0; k < got; k++)
			assert_true(pal__corpus_token(&c, places[k].next) < ALPHABET);
	}
	assert_false(pal__corpus_intact(&c));
	pal__corpus_close(&c);
	refused(PAL_EFORMAT, "cut short");
}

static int set_up(void **state)
{
	(void)state;
	vocabulary = make_vocabulary(ALPHABET, "a");
	return vocabulary && close(mkstemp(path)) == 0 ? 0 : -1;
}

static int tear_down(void **state)
{
	(void)state;
	pal__tokenizer_free(vocabulary);
	unlink(path);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(finds_the_longest),    cmocka_unit_test(tokens_are_checked),
		cmocka_unit_test(damage_is_refused),    cmocka_unit_test(of_another_vocabulary),
		cmocka_unit_test(changed_while_mapped),
	};
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
