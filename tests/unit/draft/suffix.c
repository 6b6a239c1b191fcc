/* The source of suffixes, in the session and in a corpus: what it proposes in texts where that can
 * be told, and whatever is done to logs and files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "draft/indexing.h"
#include "draft/source.h"
#include "model/model.h"
#include "tokens.h"

#define MOST PAL__DRAFT_MOST
#define ALPHABET 600

static char path[] = "/tmp/pal-suffix-XXXXXX";
static pal_model model; /* of which the tokenizer alone is looked at */
static int32_t out[MOST];
static uint8_t sure[MOST];

static pal__draft_source *make(size_t window, const char *corpus)
{
	pal__draft_source *s = NULL;
	pal_error err;
	if (pal__draft_suffix(&model, window, corpus, &s, &err))
		fail_msg("%s", err.text);
	return s;
}

static int ask(pal__draft_source *s, const int32_t *log, int64_t n, int most)
{
	const pal__draft_view v = {.log = log, .n = n};
	int got = s->propose(s, &v, out, sure, most);
	assert_true(got >= 0 && got <= most);
	for (int i = 0; i < got; i++)
		assert_true(sure[i] < PAL__DRAFT_BUCKETS && out[i] >= 0 && out[i] < ALPHABET);
	return got;
}

/* The log goes on so: at least half of what can be proposed is, or all behind a long match. */
static void goes_on(pal__draft_source *s, const int32_t *log, int64_t n, int least)
{
	int got = ask(s, log, n, MOST);
	assert_true(got >= least);
	assert_memory_equal(out, log + n, (size_t)got * sizeof *out);
}

static void write_corpus(const int32_t *tokens, size_t n, size_t times)
{
	pal__corpus_text t = {0};
	for (size_t i = 0; i < times; i++) {
		assert_int_equal(pal__corpus_add(&t, tokens, n, NULL), PAL_OK);
		assert_int_equal(pal__corpus_end(&t, NULL), PAL_OK);
	}
	assert_int_equal(pal__corpus_write(&t, model.tokenizer, path, NULL, NULL, NULL), PAL_OK);
	pal__corpus_text_free(&t);
}

static void the_session_repeats(void **state)
{
	(void)state;
	int32_t log[400];
	for (int i = 0; i < 400; i++)
		log[i] = i % 100;
	pal__draft_source *s = make(1000, NULL);
	assert_int_equal(ask(s, log, 1, MOST), 0);
	for (int n = 1; n < 101; n++) {
		s->observe(s, log, n - 1, n);
		assert_true(n == 100 || ask(s, log, n + 1, MOST) == 0);
	}
	uint8_t first = 0;
	for (int n = 101; n < 360; n++) {
		goes_on(s, log, n, n < 120 ? MOST / 2 : MOST);
		if (n == 101)
			first = sure[0];
		s->observe(s, log, n - 1, n);
	}
	assert_true(sure[0] > first + 8); /* it has stood there twice, with a long context */
	assert_int_equal(ask(s, log, 360, 3), 3);
	s->close(s);
}

/* When it is full, what is newer than half a window is still known; after a cut, what was before
 * it, but nothing of what never stood there. */
static void the_window_moves(void **state)
{
	(void)state;
	int32_t log[1000];
	for (int i = 0; i < 1000; i++)
		log[i] = i % 30;
	pal__draft_source *s = make(100, NULL);
	for (int n = 1; n < 900; n++) {
		s->observe(s, log, n - 1, n);
		if (n > 60)
			goes_on(s, log, n + 1, 1);
	}
	s->close(s);
	s = make(1000, NULL);
	for (int i = 0; i < 100; i++)
		log[i] = i;
	s->observe(s, log, 0, 100);
	for (int i = 0; i < 50; i++)
		log[50 + i] = i < 25 ? 200 + i : i;
	s->observe(s, log, 50, 75);
	/* Behind 49 it may go on as it did in the part that is gone. */
	assert_true(ask(s, log, 76, MOST) >= 15);
	assert_memory_equal(out, log + 76, 15 * sizeof *out);
	log[75] = 49; /* behind which 200 comes now */
	assert_true(ask(s, log, 76, MOST) > 0);
	assert_int_equal(out[0], 200);
	assert_int_equal(ask(s, (const int32_t[]){99}, 1, MOST), 0); /* and not behind 99 */
	s->close(s);
}

static void the_most_frequent_wins(void **state)
{
	(void)state;
	/* After 1 2 came 3 five times and then 4 once; after 9 2 came 5. */
	const int32_t log[] = {1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2,
			       3, 1, 2, 4, 9, 2, 5, 8, 1, 2, 7, 9, 2};
	pal__draft_source *s = make(100, NULL);
	s->observe(s, log, 0, 23);
	assert_true(ask(s, log, 24, MOST) > 0);
	assert_int_equal(out[0], 3);
	s->observe(s, log, 23, 26);
	assert_true(ask(s, log, 27, MOST) > 0);
	assert_int_equal(out[0], 5);
	s->close(s);
}

static void the_corpus_continues(void **state)
{
	(void)state;
	int32_t text[300], log[80];
	for (int i = 0; i < 300; i++)
		text[i] = 100 + i;
	write_corpus(text, 300, 1);
	pal__draft_source *s = make(100, path);
	assert_int_equal(ask(s, (const int32_t[]){5}, 1, MOST), 0);
	memcpy(log, text + 50, sizeof log);
	for (int n = 1; n < 40; n++) {
		goes_on(s, log, n, n < 20 ? 4 : MOST / 2);
		s->observe(s, log, n - 1, n);
	}
	/* The document ends, and so does the proposal; no match reaches over its border. */
	assert_int_equal(ask(s, text + 200, 90, MOST), 10);
	assert_int_equal(ask(s, text + 200, 100, MOST), 0);
	/* In the session another token followed, later and with a longer context. */
	for (int i = 0; i < 40; i++)
		log[i] = log[i + 40] = i < 20 ? text[i] : i;
	s->observe(s, log, 0, 59);
	assert_true(ask(s, log, 60, MOST) > 0);
	assert_int_equal(out[0], 20);
	s->close(s);
}

/* However often the corpus says otherwise, what followed in the session behind a context that is as
 * long comes first; behind a shorter one the corpus does. */
static void the_session_comes_first(void **state)
{
	(void)state;
	const int32_t text[] = {7, 1, 2, 3, 7}, log[] = {9, 1, 2, 5, 8, 1, 2, 8, 7, 1, 2};
	write_corpus(text, 5, 40);
	pal__draft_source *s = make(100, path);
	s->observe(s, log, 0, 6);
	assert_true(ask(s, log, 7, MOST) > 0);
	assert_int_equal(out[0], 5);
	s->observe(s, log, 6, 10);
	assert_true(ask(s, log, 11, MOST) > 0);
	assert_int_equal(out[0], 3);
	s->close(s);
}

/* One that is cut short proposes nothing any more; the session goes on. */
static void the_corpus_is_cut(void **state)
{
	(void)state;
	int32_t text[500], log[30];
	for (int i = 0; i < 500; i++)
		text[i] = i;
	write_corpus(text, 500, 20);
	for (int i = 0; i < 30; i++)
		log[i] = i % 10;
	pal__draft_source *s = make(100, path);
	assert_true(ask(s, log, 5, MOST) >= MOST / 2);
	assert_int_equal(truncate(path, 4096), 0);
	for (int n = 1; n < 9; n++) {
		s->observe(s, log, n - 1, n);
		assert_int_equal(ask(s, log, n + 1, MOST), 0);
	}
	s->observe(s, log, 8, 20);
	assert_true(ask(s, log, 21, MOST) > 0);
	assert_int_equal(out[0], 1);
	s->close(s);
}

/* Any logs, grown and cut anywhere, longer than the window: what is proposed is made of tokens
 * that were shown or are in the corpus. */
static void any_logs(void **state)
{
	(void)state;
	enum { N = 2000 };
	static int32_t log[N];
	for (uint64_t seed = 0; seed < 60; seed++) {
		uint64_t random = seed;
		random_text(&random, log, 0, N, 40);
		if (seed % 4 == 0)
			write_corpus(log, 300, 1);
		size_t window = 1 + below(&random, 300);
		pal__draft_source *s = make(window, seed % 2 ? path : NULL);
		int64_t n = 1, known = 0;
		for (int step = 0; step < 300 && n < N; step++) {
			s->observe(s, log, known, n - 1);
			int got = ask(s, log, n, 1 + (int)below(&random, MOST));
			for (int i = 0; i < got; i++)
				assert_true(out[i] < 40);
			known = n - 1;
			if (below(&random, 9) == 0) {
				n = 1 + below(&random, (uint32_t)n);
				known = n - 1;
				random_text(&random, log, (size_t)n - 1, N, 40);
			}
			n += 1 + below(&random, seed % 3 ? 9 : 400);
		}
		/* However it was treated, it learns on. */
		for (int i = 0; i < N; i++)
			log[i] = 40 + i % 5;
		s->observe(s, log, 0, N - 100);
		int got = ask(s, log, N - 99, MOST);
		assert_true(got > 0 || window < 20);
		for (int i = 0; i < got; i++)
			assert_int_equal(out[i], log[N - 99 + i]);
		s->close(s);
	}
}

static void refused(void **state)
{
	(void)state;
	const int32_t text[] = {1, 2, 3};
	pal__draft_source *s = NULL;
	pal_error err = {0};
	int64_t live = pal__mem_live();
	write_corpus(text, 3, 1);
	pal__tokenizer *own = model.tokenizer, *other = make_vocabulary(ALPHABET, "other");
	model.tokenizer = other;
	assert_int_equal(pal__draft_suffix(&model, 10, path, &s, &err), PAL_EINVAL);
	assert_non_null(strstr(err.text, "another vocabulary"));
	model.tokenizer = own;
	pal__tokenizer_free(other);
	assert_int_equal(pal__draft_suffix(&model, SIZE_MAX / 2, NULL, &s, &err), PAL_ELIMIT);
	assert_int_equal(truncate(path, 150), 0);
	assert_int_equal(pal__draft_suffix(&model, 10, path, &s, &err), PAL_EFORMAT);
	assert_int_equal(pal__mem_live(), live);
	write_corpus(text, 3, 1);
	pal_status st = PAL_ENOMEM;
	for (int n = 0; st; n++) {
		live = pal__mem_live();
		pal__mem_fail_after(n);
		st = pal__draft_suffix(&model, 10, path, &s, &err);
		bool failed = pal__mem_failed();
		pal__mem_fail_after(-1);
		assert_int_equal(st, failed ? PAL_ENOMEM : PAL_OK);
		if (!st)
			s->close(s);
		assert_int_equal(pal__mem_live(), live);
	}
}

static int set_up(void **state)
{
	(void)state;
	model.tokenizer = make_vocabulary(ALPHABET, "a");
	return model.tokenizer && close(mkstemp(path)) == 0 ? 0 : -1;
}

static int tear_down(void **state)
{
	(void)state;
	pal__tokenizer_free(model.tokenizer);
	return unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_window_moves),
		cmocka_unit_test(the_session_repeats),
		cmocka_unit_test(the_most_frequent_wins),
		cmocka_unit_test(the_corpus_continues),
		cmocka_unit_test(the_session_comes_first),
		cmocka_unit_test(the_corpus_is_cut),
		cmocka_unit_test(any_logs),
		cmocka_unit_test(refused),
	};
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
