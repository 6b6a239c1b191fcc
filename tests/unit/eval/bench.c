/* The benchmark: that it measures what its plan says, and its failures; how fast anything is
 * cannot be tested. Arguments: model files of tests/tools/mkmodel.py. */
#include "eval/bench.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/mem.h"
#include "model/model.h"

static char **paths;
static int n_paths;

static const pal__bench_plan small = {
	.n_prefill = 20, .n_decode = 3, .verify = {3, {1, 5, 32}}, .depths = {2, {8, 100}}};

static pal_model *open_model(const char *path)
{
	pal_model *m;
	pal_error err;
	if (pal_model_open(path, &(pal_model_options){.n_threads = 2}, &m, &err))
		fail_msg("%s", err.text);
	return m;
}

struct seen {
	uint64_t done, total;
	bool backwards;
};

static void on_progress(void *user, uint64_t done, uint64_t total)
{
	struct seen *seen = user;
	seen->backwards |= done < seen->done || (seen->total && total != seen->total);
	seen->done = done;
	seen->total = total;
}

static pal_status measure(pal_model *m, int64_t n_ctx, pal__bench *out, struct seen *seen,
			  pal_error *err)
{
	pal_session *s;
	pal_status status = pal_session_open(m, &(pal_session_options){.n_ctx = n_ctx}, &s, err);
	if (status)
		return status;
	status = pal__bench_run(s, (int32_t)m->h.n_vocab, &small, seen ? on_progress : NULL, seen,
				out, err);
	pal_session_close(s);
	return status;
}

/* Of 16-bit K/V with a scale, after `depth` tokens: 3 tokens see depth + 1, + 2 and + 3. */
static double seen_bytes(const pal_model *m, int64_t depth)
{
	const pal__hparams *h = &m->h;
	size_t stride = (h->head_dim + 15) & ~(size_t)15;
	size_t of_all = h->n_kv_heads * (2 * h->head_dim + 2 * stride + 8);
	int64_t sum = 0;
	for (size_t layer = 0; layer < h->n_layers; layer++)
		for (int64_t sees = depth + 1; sees <= depth + 3; sees++)
			sum += pal__layer_slides(h, layer) && sees > h->window ? h->window : sees;
	return (double)of_all * (double)sum / 3;
}

static void figures(void **state)
{
	(void)state;
	assert_int_equal(pal__bench_context(&small), 100 + 3 + PAL__BENCH_SPARE);
	for (int i = 0; i < n_paths; i++) {
		pal_model *m = open_model(paths[i]);
		pal__bench r;
		struct seen seen = {0};
		assert_int_equal(measure(m, pal__bench_context(&small), &r, &seen, NULL), PAL_OK);
		assert_true(r.first.prefill_s > 0 && r.first.decode_s > 0);
		for (size_t v = 0; v < 3; v++)
			assert_true(r.verify_ms[v] > 0);
		assert_true(r.verify_ms[3] == 0);
		assert_true(r.depths[0].prefill_s > 0 && r.depths[0].decode_s > 0);
		assert_true(r.depths[1].prefill_s > r.depths[0].prefill_s);
		assert_true(r.depths[1].decode_s > 0 && r.depths[2].decode_s == 0);
		assert_true(r.first.kv_bytes == seen_bytes(m, 20));
		assert_true(r.depths[0].kv_bytes == seen_bytes(m, 8));
		assert_true(r.depths[1].kv_bytes == seen_bytes(m, 100));
		assert_false(seen.backwards);
		assert_true(seen.done == seen.total && seen.total > 0);
		pal_model_close(m);
	}
}

/* A session that is too short: the error of the append, and no figures. */
static void no_room(void **state)
{
	(void)state;
	pal_model *m = open_model(paths[0]);
	pal__bench r = {.first.prefill_s = -1};
	pal_error err;
	for (int64_t n = 19; n < 103; n += 21) {
		int64_t live = pal__mem_live();
		assert_int_equal(measure(m, n, &r, NULL, &err), PAL_ELIMIT);
		assert_true(r.first.prefill_s == -1);
		assert_int_equal(pal__mem_live(), live);
	}
	pal_model_close(m);
}

static void out_of_memory(void **state)
{
	(void)state;
	pal_model *m = open_model(paths[0]);
	pal__bench r;
	pal_error err;
	int64_t live = pal__mem_live();
	pal_status s = PAL_ENOMEM;
	int n = 0;
	for (; s != PAL_OK; n++) {
		pal__mem_fail_after(n);
		s = measure(m, pal__bench_context(&small), &r, NULL, &err);
		pal__mem_fail_after(-1);
		assert_true(s == PAL_OK || s == PAL_ENOMEM);
		assert_int_equal(pal__mem_live(), live);
	}
	assert_true(n > 2);
	double rate;
	pal__mem_fail_after(0);
	assert_int_equal(pal__bench_bandwidth(m->pool, &rate, &err), PAL_ENOMEM);
	pal__mem_fail_after(-1);
	assert_int_equal(pal__mem_live(), live);
	pal_model_close(m);
}

static void bandwidth(void **state)
{
	(void)state;
	pal__pool *pool;
	double rate = 0;
	int64_t live = pal__mem_live();
	assert_int_equal(pal__pool_new(2, NULL, &pool, NULL), PAL_OK);
	assert_int_equal(pal__bench_bandwidth(pool, &rate, NULL), PAL_OK);
	pal__pool_free(pool);
	/* A sanitizer under an emulator is slower than any memory; no CPU reads 10 TB/s. */
	assert_true(rate > 1e6 && rate < 1e13);
	assert_int_equal(pal__mem_live(), live);
}

static void token_bytes(void **state)
{
	(void)state;
	bool tied = false, untied = false;
	for (int i = 0; i < n_paths; i++) {
		pal_model *m = open_model(paths[i]);
		uint64_t n = pal__bench_token_bytes(m);
		if (m->tied)
			assert_int_equal(n, m->weight_bytes);
		else
			assert_true(n > m->weight_bytes / 2 && n < m->weight_bytes);
		tied |= m->tied;
		untied |= !m->tied;
		pal_model_close(m);
	}
	assert_true(tied && untied);
}

int main(int argc, char **argv)
{
	paths = argv + 1;
	n_paths = argc - 1;
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(figures),       cmocka_unit_test(no_room),
		cmocka_unit_test(out_of_memory), cmocka_unit_test(bandwidth),
		cmocka_unit_test(token_bytes),
	};
	return cmocka_run_group_tests_name("eval/bench", tests, NULL, NULL);
}
