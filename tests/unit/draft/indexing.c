/* The order of a corpus, also of texts that are made to be hard to sort, and what can go wrong
 * while it is written. */
#include "draft/indexing.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "tokens.h"

#define ALPHABET 500
#define N 30000

static char folder[] = "/tmp/pal-indexing-XXXXXX", path[64], part[64];
static pal__tokenizer *vocabulary;
static int32_t text[N];

static void add(pal__corpus_text *t, const int32_t *tokens, size_t n)
{
	assert_int_equal(pal__corpus_add(t, tokens, n, NULL), PAL_OK);
	assert_int_equal(pal__corpus_end(t, NULL), PAL_OK);
}

/* Whether a comes before b: by what stands there and before, then by position. */
static bool in_order(const pal__corpus *c, uint32_t a, uint32_t b)
{
	for (uint32_t i = 0; i < PAL__CORPUS_DEEP; i++) {
		int32_t x = i > a ? -1 : c->tokens[a - i], y = i > b ? -1 : c->tokens[b - i];
		if (x != y)
			return x < y;
		if (x < 0)
			break;
	}
	return a < b;
}

static void on_progress(void *user, uint64_t done, uint64_t total)
{
	uint64_t *last = user;
	assert_true(done > *last && done <= total);
	*last = done;
}

static void check(pal__corpus_text *t)
{
	uint64_t last = 0;
	pal__corpus c;
	assert_int_equal(pal__corpus_write(t, vocabulary, path, on_progress, &last, NULL), PAL_OK);
	assert_true(last + t->n / 128 + 256 > t->n);
	assert_int_equal(pal__corpus_open(path, vocabulary, &c, NULL), PAL_OK);
	assert_int_equal(c.n, t->n);
	assert_memory_equal(c.tokens, t->tokens, t->n * sizeof *t->tokens);
	for (uint32_t i = 1; i < c.n; i++) /* then it has every position once, too */
		if (c.index[i] >= c.n || !in_order(&c, c.index[i - 1], c.index[i]))
			fail_msg("entry %u", i);
	for (uint32_t i = 0; i < c.n; i += PAL__CORPUS_STRIDE)
		for (uint32_t k = 0, at = c.index[i]; k < PAL__CORPUS_KEY; k++) {
			uint32_t key = pal__corpus_key(c.tokens, at, k);
			assert_int_equal(c.keys[i / PAL__CORPUS_STRIDE][k], key);
			if (!key)
				break;
		}
	/* At most 24 bytes a token, but for the header. */
	assert_true(c.file.size <= 24 * (uint64_t)c.n + sizeof(pal__corpus_header));
	pal__corpus_close(&c);
	pal__corpus_text_free(t);
}

static void sorts(void **state)
{
	(void)state;
	for (uint64_t seed = 0; seed < 30; seed++) {
		uint64_t random = seed;
		pal__corpus_text t = {0};
		size_t n = 1 + below(&random, seed % 2 ? 100 : 5000);
		random_text(&random, text, 0, n, 1 + below(&random, seed % 3 ? 4 : ALPHABET));
		for (size_t from = 0; from < n;) {
			size_t length = 1 + below(&random, 1000);
			length = length < n - from ? length : n - from;
			add(&t, text + from, length);
			from += length;
		}
		add(&t, NULL, 0); /* no document */
		check(&t);
	}
}

static void hard_to_sort(void **state)
{
	(void)state;
	for (int kind = 0; kind < 6; kind++) {
		pal__corpus_text t = {0};
		uint64_t random = 1;
		for (int i = 0; i < N; i++) {
			const int32_t tokens[] = {0, i % 2, i % 100 == 99, i % ALPHABET,
						  i / 64 % 2};
			text[i] = kind < 5 ? tokens[kind] : (int32_t)below(&random, 2);
		}
		add(&t, text, N);
		if (kind == 5)
			add(&t, text, N); /* the same document again */
		if (kind == 3)
			for (int i = 0; i < N / 2; i++)
				add(&t, &text[i % 3], 1);
		check(&t);
	}
}

static bool exists(const char *name)
{
	struct stat st;
	return stat(name, &st) == 0;
}

static void what_goes_wrong(void **state)
{
	(void)state;
	pal__corpus_text t = {0};
	pal_error err = {0};
	unlink(path);
	assert_int_equal(pal__corpus_write(&t, vocabulary, path, NULL, NULL, &err), PAL_EINVAL);
	assert_int_equal(pal__corpus_add(&t, text, PAL__CORPUS_MAX + 1, &err), PAL_ELIMIT);
	add(&t, text, 100);
	assert_int_equal(pal__corpus_write(&t, vocabulary, "/no/such", NULL, NULL, &err), PAL_EIO);
	assert_string_equal(err.text, "/no/such cannot be written: No such file or directory");
	/* Another process writes it. */
	int fd = open(part, O_RDWR | O_CREAT, 0600);
	assert_true(fd >= 0 && flock(fd, LOCK_EX) == 0);
	assert_int_equal(pal__corpus_write(&t, vocabulary, path, NULL, NULL, &err), PAL_EIO);
	assert_non_null(strstr(err.text, "another process is writing it"));
	assert_true(exists(part) && !exists(path));
	close(fd);
	assert_int_equal(pal__corpus_write(&t, vocabulary, path, NULL, NULL, &err), PAL_OK);
	assert_true(!exists(part) && exists(path));
	pal__corpus_text_free(&t);
}

static pal_status gather_and_write(pal__corpus_text *t, pal_error *err)
{
	pal_status s = PAL_OK;
	for (int i = 0; i < 3 && !s; i++) {
		s = pal__corpus_add(t, text, 100, err);
		if (!s)
			s = pal__corpus_end(t, err);
	}
	return s ? s : pal__corpus_write(t, vocabulary, path, NULL, NULL, err);
}

static void out_of_memory(void **state)
{
	(void)state;
	pal_status s = PAL_ENOMEM;
	int n = 0;
	for (; s; n++) {
		pal__corpus_text t = {0};
		pal_error err = {0};
		int64_t live = pal__mem_live();
		unlink(path);
		pal__mem_fail_after(n);
		s = gather_and_write(&t, &err);
		bool failed = pal__mem_failed();
		pal__mem_fail_after(-1);
		pal__corpus_text_free(&t);
		assert_int_equal(s, failed ? PAL_ENOMEM : PAL_OK);
		assert_true(!s || strstr(err.text, "out of memory"));
		assert_int_equal(pal__mem_live(), live);
		assert_true(exists(path) == !s && !exists(part));
	}
	assert_true(n > 4);
}

static int set_up(void **state)
{
	(void)state;
	vocabulary = make_vocabulary(ALPHABET, "a");
	if (!vocabulary || !mkdtemp(folder))
		return -1;
	snprintf(path, sizeof path, "%s/corpus", folder);
	snprintf(part, sizeof part, "%s/corpus.part", folder);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	pal__tokenizer_free(vocabulary);
	unlink(path);
	return rmdir(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sorts),
		cmocka_unit_test(hard_to_sort),
		cmocka_unit_test(what_goes_wrong),
		cmocka_unit_test(out_of_memory),
	};
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
