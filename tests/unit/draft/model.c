/* A small model that drafts: that it follows the log whatever happens to it. Arguments: models,
 * the last of them trained. */
#include "along.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "draft/greedy.h"

static char **paths;
static int n_paths;

typedef struct {
	int32_t out[PAL__DRAFT_MOST];
	uint8_t sure[PAL__DRAFT_MOST];
	int n;
} draft;

static pal__draft_source *open_source(const pal_model *m, const char *path, size_t window)
{
	pal__draft_source *s;
	pal_error err;
	if (pal__draft_model(m, path, window, &s, &err))
		fail_msg("%s", err.text);
	return s;
}

static draft ask(pal__draft_source *s, const int32_t *log, int64_t n, int most)
{
	draft d = {{0}, {0}, 0};
	d.n = s->propose(s, &(pal__draft_view){.log = log, .n = n}, d.out, d.sure, most);
	assert_true(d.n >= 0 && d.n <= most);
	return d;
}

static void assert_same(const draft *a, const draft *b)
{
	assert_int_equal(a->n, b->n);
	assert_memory_equal(a->out, b->out, sizeof a->out);
	assert_memory_equal(a->sure, b->sure, sizeof a->sure);
}

/* Of what greedy decoding says next. */
static float probability(const along *a)
{
	const float *x = pal_session_logits(a->s);
	double max = (double)x[along_next(a)], sum = 0;
	for (size_t i = 0; i < a->m->h.n_vocab; i++)
		sum += pal__exp_neg((double)x[i] - max);
	return (float)(1 / sum);
}

/* Drafts for a session of its own model: each is what greedy decoding gives. Returns how many. */
static int decode(along *a, pal__draft_source *s, int64_t length)
{
	int drafted = 0;
	while (along_length(a) < length) {
		int64_t n = along_length(a);
		int32_t token = along_next(a);
		a->log[n] = token;
		draft d = ask(s, a->log, n + 1, 1 + (int)along_random(PAL__DRAFT_MOST));
		along_append(a, &token, 1);
		for (int k = 0; k < d.n; k++) {
			token = along_next(a);
			assert_int_equal(d.out[k], token);
			float p = probability(a);
			assert_true(d.sure[k] >= pal__draft_degree(0.93f * p) &&
				    d.sure[k] <= pal__draft_degree(1.07f * p));
			/* Not all that is right is always taken. */
			if (along_random(8) == 0)
				break;
			along_append(a, &token, 1);
		}
		drafted += d.n;
		s->observe(s, a->log, n, along_length(a));
	}
	return drafted;
}

/* Words that a trained model goes on from, or any. */
static void start(along *a, const char *text, size_t n_random)
{
	int32_t *ids, token;
	size_t n;
	assert_int_equal(pal_tokenize(a->m, text, strlen(text), 0, &ids, &n, NULL), PAL_OK);
	along_append(a, ids, n);
	pal_free(ids);
	for (; n_random; n_random--) {
		token = (int32_t)along_random(a->m->h.n_vocab - 8);
		along_append(a, &token, 1);
	}
}

/* Nothing evicted: the verifier as its own drafter is always right. Beyond, it is for a session
 * that evicts the same; and it goes on being so where the end of the log changes. */
static void its_own_drafter(void **state)
{
	(void)state;
	for (int i = 0; i < n_paths; i++) {
		along a;
		pal_error err;
		bool trained = i == n_paths - 1;
		pal_model *m = along_model(paths[i]);
		pal__draft_source *s = open_source(m, paths[i], 200);
		along_open(&a, m, &(pal_session_options){.n_ctx = 400});
		start(&a, "The file is", 20);
		int drafted = decode(&a, s, 150);
		assert_true(!trained || drafted > 50);
		pal_session_close(a.s);
		s->close(s);

		s = open_source(m, paths[i], 80);
		along_open(&a, m, &(pal_session_options){.kv_policy = PAL_KV_WINDOW, .window = 80});
		start(&a, "The file is", 0);
		drafted = decode(&a, s, 250);
		for (int cut = 0; cut < 12; cut++) {
			int64_t keep = along_length(&a) - (int64_t)along_random(40);
			assert_int_equal(pal_session_truncate(a.s, keep, &err), PAL_OK);
			int32_t token = (int32_t)along_random(m->h.n_vocab - 8);
			along_append(&a, &token, 1);
			s->observe(s, a.log, keep, keep + 1);
			drafted += decode(&a, s, keep + 1 + (int64_t)along_random(50));
		}
		assert_true(!trained || drafted > 50);
		pal_session_close(a.s);
		s->close(s);
		pal_model_close(m);
	}
}

/* Whatever was cut and grew again, what it drafts is what one does that sees the log for the first
 * time, where nothing was evicted. */
static void any_program(void **state)
{
	(void)state;
	for (int i = 0; i < n_paths; i++) {
		int32_t log[200] = {0};
		int64_t n = 0;
		pal_model *m = along_model(paths[i]);
		pal__draft_source *s = open_source(m, paths[i], 190);
		draft d = {.n = 0};
		for (int step = 0; step < 40; step++) {
			int64_t from = n - (int64_t)along_random(step % 8 == 7 ? 190 : 4);
			from = from < 0 ? 0 : from;
			int64_t end = from + (int64_t)along_random(step % 8 == 3 ? 120 : 6);
			n = end < 190 ? end : 190;
			/* Some of what it drafted, or of what was there before. */
			for (int64_t k = from; k < n; k++) {
				if (along_random(4) == 0)
					log[k] = (int32_t)along_random(m->h.n_vocab - 8);
				else if (k - from < d.n)
					log[k] = d.out[k - from];
				else if (step < 8)
					log[k] = (int32_t)k;
			}
			s->observe(s, log, from, n);
			log[n] = (int32_t)along_random(m->h.n_vocab - 8);
			if (step % 3 == 0)
				continue;
			d = ask(s, log, n + 1, 3);
			pal__draft_source *fresh = open_source(m, paths[i], 190);
			draft want = ask(fresh, log, n + 1, 3);
			fresh->close(fresh);
			assert_same(&d, &want);
		}
		s->close(s);
		pal_model_close(m);
	}
}

/* Of a long log it reads sinks and a window: as if that were all. So it does when it has fallen
 * behind, and when the log was cut farther back than its ring. */
static void long_logs(void **state)
{
	static const char words[] =
		"The command reads the file and writes its lines to the terminal. If the file is "
		"not there, it is made, and the name of the file is printed at the end. ";
	(void)state;
	static int32_t log[6000], spliced[70];
	pal_model *m = along_model(paths[n_paths - 1]);
	pal__draft_source *s = open_source(m, paths[n_paths - 1], 64);
	int drafted = 0;
	int32_t *ids;
	size_t n_ids;
	assert_int_equal(pal_tokenize(m, words, sizeof words - 1, 0, &ids, &n_ids, NULL), PAL_OK);
	for (size_t i = 0; i < 6000; i++)
		log[i] = along_random(9) ? ids[(i + i / 400) % n_ids]
					 : (int32_t)along_random(m->h.n_vocab - 8);
	const struct {
		int64_t n;
		bool follows; /* the one before, so that some is evicted */
	} steps[] = {{6000, 0}, {6000, 0}, {900, 0},  {2000, 0}, {500, 0}, {68, 0},  {69, 1},
		     {3, 0},    {5000, 0}, {5060, 1}, {50, 0},   {110, 1}, {170, 1}, {230, 1},
		     {290, 1},  {350, 1},  {410, 1},  {200, 0},  {260, 1}, {256, 1}};
	for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
		int64_t n = steps[i].n;
		if (i && n < steps[i - 1].n) {
			/* Another token, after which it has something to say. */
			log[n - 1] = log[n - 1] == ids[3] ? ids[4] : ids[3];
			s->observe(s, log, n - 1, n - 1);
		}
		draft d = ask(s, log, n, 4), want;
		drafted += d.n;
		if (n <= 68) {
			memcpy(spliced, log, (size_t)n * sizeof *log);
		} else {
			memcpy(spliced, log, 4 * sizeof *log);
			memcpy(spliced + 4, log + n - 64, 64 * sizeof *log);
		}
		pal__draft_source *fresh = open_source(m, paths[n_paths - 1], 64);
		want = ask(fresh, spliced, n < 68 ? n : 68, 4);
		fresh->close(fresh);
		if (!steps[i].follows)
			assert_same(&d, &want);
	}
	assert_true(drafted > 20);
	pal_free(ids);
	s->close(s);
	pal_model_close(m);
}

/* A copy of a model whose token "x3z" is "y3z". */
static void other_token(const char *path, char *copy)
{
	static char bytes[1 << 20];
	FILE *f = fopen(path, "rb");
	assert_non_null(f);
	size_t n = fread(bytes, 1, sizeof bytes, f);
	fclose(f);
	char *token = memmem(bytes, n, "x3z", 3);
	assert_non_null(token);
	*token = 'y';
	int fd = mkstemp(copy);
	assert_true(fd >= 0 && write(fd, bytes, n) == (ssize_t)n);
	close(fd);
}

static void refusals(void **state)
{
	(void)state;
	char copy[] = "/tmp/draft-XXXXXX";
	pal__draft_source *s = NULL;
	pal_error err;
	pal_model *m = along_model(paths[0]);
	int64_t live = pal__mem_live();
	assert_int_equal(pal__draft_model(m, paths[n_paths - 1], 64, &s, &err), PAL_EINVAL);
	assert_non_null(strstr(err.text, "has 4096 tokens"));
	other_token(paths[0], copy);
	assert_int_equal(pal__draft_model(m, copy, 64, &s, &err), PAL_EINVAL);
	assert_non_null(strstr(err.text, "has another token 259 than"));
	unlink(copy);
	assert_int_equal(pal__draft_model(m, copy, 64, &s, &err), PAL_EIO);
	assert_int_equal(pal__draft_model(m, paths[0], 0, &s, &err), PAL_EINVAL);
	assert_non_null(strstr(err.text, "a window of 0 positions"));
	assert_int_equal(pal__draft_model(m, paths[0], SIZE_MAX, &s, &err), PAL_EINVAL);
	assert_null(s);
	assert_int_equal(pal__mem_live(), live);
	/* As large as its trained context, not as is asked. */
	assert_int_equal(pal__draft_model(m, paths[0], PAL_MAX_CONTEXT, &s, &err), PAL_OK);
	s->close(s);
	assert_int_equal(pal__mem_live(), live);
	pal_model_close(m);
}

static void allocation_failures(void **state)
{
	(void)state;
	pal_status status = PAL_ENOMEM;
	pal_model *m = along_model(paths[0]);
	int64_t live = pal__mem_live();
	for (int i = 0; status; i++) {
		pal__draft_source *s = NULL;
		pal_error err;
		pal__mem_fail_after(i);
		status = pal__draft_model(m, paths[0], 64, &s, &err);
		pal__mem_fail_after(-1);
		assert_true(status == PAL_OK || (status == PAL_ENOMEM && !s));
		if (s) {
			/* Nothing more is allocated. */
			int64_t open = pal__mem_live();
			pal__mem_fail_after(0);
			ask(s, (int32_t[]){1, 2, 3}, 3, 4);
			pal__mem_fail_after(-1);
			assert_int_equal(pal__mem_live(), open);
			assert_string_equal(s->name, "model");
			s->close(s);
		}
		assert_int_equal(pal__mem_live(), live);
	}
	pal_model_close(m);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(its_own_drafter),     cmocka_unit_test(any_program),
		cmocka_unit_test(long_logs),           cmocka_unit_test(refusals),
		cmocka_unit_test(allocation_failures),
	};
	paths = argv + 1;
	n_paths = argc - 1;
	return n_paths ? cmocka_run_group_tests(tests, NULL, NULL) : 2;
}
