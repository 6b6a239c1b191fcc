/* Sessions: their options, limits and failures. That their logits are right whatever was done
 * to them is tests/property/sessions.c. Arguments: model files of tests/tools/mkmodel.py. */
#include "session/session.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"

static char **paths;
static int n_paths;
static pal_model *model;
static int32_t n_vocab;

static int open_model(void **state)
{
	(void)state;
	int s = pal_model_open(paths[0], &(pal_model_options){.n_threads = 2}, &model, NULL);
	n_vocab = s ? 0 : (int32_t)model->h.n_vocab;
	return s;
}

static int close_model(void **state)
{
	(void)state;
	pal_model_close(model);
	return 0;
}

static pal_session *open_session(const pal_session_options *o)
{
	pal_session *s;
	pal_error err;
	if (pal_session_open(model, o, &s, &err))
		fail_msg("%s", err.text);
	return s;
}

static void memory(void **state)
{
	static const int batches[] = {0, 1, 7, 512};
	uint64_t kv[5], scratch, more_kv, more_scratch;
	(void)state;
	for (int type = PAL_KV_I16; type <= PAL_KV_AFFINE4; type++)
		for (int i = 0; i < 4; i++) {
			const pal_session_options o = {
				.n_ctx = 100, .kv_type = (pal_kv_type)type, .n_batch = batches[i]};
			assert_int_equal(pal_session_need(model, &o, &kv[type], &scratch, NULL),
					 PAL_OK);
			int64_t live = pal__mem_live();
			pal_session *s = open_session(&o);
			/* The session itself and one arena, of the size that was told. */
			assert_int_equal(pal__mem_live(), live + 2);
			assert_int_equal(s->arena.size, kv[type] + scratch);
			assert_int_equal(s->arena.used, s->arena.size);
			pal_session_close(s);
			assert_int_equal(pal__mem_live(), live);
		}
	assert_true(kv[PAL_KV_F16] < kv[PAL_KV_I16] && kv[PAL_KV_I16] < kv[PAL_KV_F32]);
	assert_int_equal(kv[PAL_KV_F32], 2 * kv[PAL_KV_F16]);
	assert_true(kv[PAL_KV_AFFINE4] < kv[PAL_KV_INT8] && kv[PAL_KV_INT8] < kv[PAL_KV_F16]);
	/* No options: the trained context and the largest batch. */
	const pal_session_options all = {.n_ctx = model->h.n_ctx_train, .n_batch = PAL_MAX_BATCH};
	assert_int_equal(pal_session_need(model, NULL, &kv[0], &scratch, NULL), PAL_OK);
	assert_int_equal(pal_session_need(model, &all, &more_kv, &more_scratch, NULL), PAL_OK);
	assert_true(kv[0] == more_kv && scratch == more_scratch);
	pal_session_close(NULL);
}

static void options(void **state)
{
	static const struct {
		pal_session_options o;
		const char *words;
	} bad[] = {{{.n_ctx = -1}, "a context of -1 tokens: 1 to 16777216 are possible"},
		   {{.n_ctx = PAL_MAX_CONTEXT + 1}, "a context of 16777217 tokens"},
		   {{.n_ctx = INT64_MAX}, "a context of 9223372036854775807 tokens"},
		   {{.n_batch = -1}, "a batch of -1 tokens: 1 to 512 are possible"},
		   {{.n_batch = PAL_MAX_BATCH + 1}, "a batch of 513 tokens"},
		   {{.selection = (pal_selection)3}, "selection 3 is not known"},
		   {{.kv_type = (pal_kv_type)99}, "K/V type 99 is not known"}};
	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		uint64_t kv = 1, scratch = 2;
		pal_session *s = NULL;
		pal_error err;
		assert_int_equal(pal_session_open(model, &bad[i].o, &s, &err), PAL_EINVAL);
		if (!strstr(err.text, bad[i].words))
			fail_msg("'%s' instead of '%s'", err.text, bad[i].words);
		assert_int_equal(pal_session_need(model, &bad[i].o, &kv, &scratch, NULL),
				 PAL_EINVAL);
		assert_true(!s && kv == 1 && scratch == 2);
	}
}

static bool count(void *user, size_t done, size_t total)
{
	size_t *counts = user; /* calls, done, total, calls to allow */
	counts[0]++;
	counts[1] = done;
	counts[2] = total;
	return counts[0] < counts[3];
}

static void life(void **state)
{
	const int32_t ids[10] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
	size_t counts[4] = {0, 0, 0, 99};
	pal_error err;
	(void)state;
	pal_session *s = open_session(&(pal_session_options){.n_ctx = 10, .n_batch = 4});
	assert_ptr_equal(pal__session_model(s), model);
	assert_int_equal(pal_session_length(s), 0);
	assert_null(pal_session_logits(s));
	assert_int_equal(pal_session_append(s, ids, 0, NULL, NULL, NULL, &err), PAL_OK);
	assert_null(pal_session_logits(s));
	assert_int_equal(pal_session_append(s, ids, 9, NULL, count, counts, &err), PAL_OK);
	assert_true(counts[0] == 3 && counts[1] == 9 && counts[2] == 9);
	assert_memory_equal(pal_session_log(s), ids, 9 * sizeof *ids);
	assert_int_equal(pal_session_append(s, ids, 2, NULL, NULL, NULL, &err), PAL_ELIMIT);
	assert_string_equal(err.text, "2 tokens after 9: the context has room for 10");
	assert_int_equal(pal_session_append(s, &n_vocab, 1, NULL, NULL, NULL, &err), PAL_EINVAL);
	assert_non_null(strstr(err.text, "at position 9: the vocabulary has ids 0 to"));
	assert_int_equal(pal_session_length(s), 9);
	assert_int_equal(pal_session_append(s, ids + 9, 1, NULL, NULL, NULL, &err), PAL_OK);
	assert_int_equal(pal_session_append(s, ids, 1, NULL, NULL, NULL, &err), PAL_ELIMIT);
	assert_int_equal(pal_session_truncate(s, 11, &err), PAL_EINVAL);
	assert_string_equal(err.text, "cannot keep 11 tokens: the session has 10");
	assert_int_equal(pal_session_truncate(s, -1, &err), PAL_EINVAL);
	assert_int_equal(pal_session_truncate(s, 10, &err), PAL_OK);
	assert_non_null(pal_session_logits(s)); /* nothing was forgotten */
	assert_int_equal(pal_session_truncate(s, 9, &err), PAL_OK);
	assert_null(pal_session_logits(s));
	assert_int_equal(pal_session_truncate(s, 0, &err), PAL_OK);
	assert_int_equal(pal_session_length(s), 0);
	pal_session_close(s);
}

/* A cancelled append leaves everything as it was, the logits of the last token too. */
static void cancelled(void **state)
{
	const int32_t ids[8] = {1, 2, 3, 4, 5, 6, 7, 8};
	float *before = pal__alloc((size_t)n_vocab * sizeof *before);
	pal_error err;
	(void)state;
	pal_session *s = open_session(&(pal_session_options){.n_ctx = 10, .n_batch = 3});
	assert_int_equal(pal_session_append(s, ids, 2, NULL, NULL, NULL, &err), PAL_OK);
	memcpy(before, pal_session_logits(s), (size_t)n_vocab * sizeof *before);
	for (size_t batches = 1; batches <= 3; batches++) {
		size_t counts[4] = {0, 0, 0, batches};
		assert_int_equal(pal_session_append(s, ids, 8, NULL, count, counts, &err),
				 PAL_ECANCELLED);
		assert_true(strstr(err.text, "cancelled after") && strstr(err.text, "of 8 tokens"));
		assert_int_equal(counts[1], batches < 3 ? 3 * batches : 8);
		assert_int_equal(pal_session_length(s), 2);
		assert_memory_equal(pal_session_logits(s), before,
				    (size_t)n_vocab * sizeof *before);
	}
	pal_session_close(s);
	pal__free(before);
}

/* --- every allocation fails in turn ------------------------------------------------ */

typedef struct {
	pal_model *m;
	pal_session *s;
	pal_error err;
} run;

static pal_status run_once(const char *path, run *r)
{
	const int32_t ids[] = {5, 6, 7};
	pal_generate_options o = {.sampling = pal_sampling_default(), .max_tokens = 3};
	o.sampling.temperature = 1;
	o.sampling.top_k = 10;
	o.sampling.repeat_penalty = 1.1f;
	o.ignore_end = true;
	pal_status s = pal_model_open(path, &(pal_model_options){.n_threads = 1}, &r->m, &r->err);
	if (!s)
		s = pal_session_open(r->m, &(pal_session_options){.n_ctx = 16}, &r->s, &r->err);
	if (!s)
		s = pal_session_append(r->s, ids, 3, NULL, NULL, NULL, &r->err);
	return s ? s : pal_generate(r->s, &o, NULL, &r->err);
}

/* The session that a failure has left behind can be used. */
static void go_on(run *r, int64_t length)
{
	const int32_t id = 8;
	assert_int_equal(pal_session_length(r->s), length);
	assert_int_equal(pal_session_append(r->s, &id, 1, NULL, NULL, NULL, NULL), PAL_OK);
	assert_int_equal(pal_session_length(r->s), length + 1);
	assert_non_null(pal_session_logits(r->s));
}

static void allocation_failures(void **state)
{
	(void)state;
	for (int i = 0; i < n_paths; i++) {
		pal_status s = PAL_ENOMEM;
		int with_session = 0;
		for (int n = 0; s; n++) {
			run r = {.err = {.text = ""}};
			int64_t live = pal__mem_live();
			pal__mem_fail_after(n);
			s = run_once(paths[i], &r);
			bool failed = pal__mem_failed();
			pal__mem_fail_after(-1);
			if (s != (failed ? PAL_ENOMEM : PAL_OK))
				fail_msg("allocation %d: %s (%s)", n, pal_status_name(s),
					 r.err.text);
			assert_true(!s || !strncmp(r.err.text, "out of memory", 13));
			if (r.s)
				go_on(&r, s ? 3 : 6);
			with_session += s && r.s;
			pal_session_close(r.s);
			pal_model_close(r.m);
			assert_int_equal(pal__mem_live(), live);
		}
		assert_true(with_session > 0); /* sampler and text of pal_generate */
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(memory),
		cmocka_unit_test(options),
		cmocka_unit_test(life),
		cmocka_unit_test(cancelled),
		cmocka_unit_test(allocation_failures),
	};
	paths = argv + 1;
	n_paths = argc - 1;
	return n_paths ? cmocka_run_group_tests(tests, open_model, close_model) : 2;
}
