/* Calibration of small random models: scores that can be said beforehand, and the same choice for
 * any number of threads. Arguments: models. */
#include "restore/calibrate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"

#define LENGTH 400
#define EVICTED (LENGTH - PAL__PROBE_WINDOW)

static char **paths;
static int n_paths;

static pal_model *load(const char *path, int threads)
{
	pal_model *m;
	pal_error err;
	const pal_model_options o = {.n_threads = threads};
	if (pal_model_open(path, &o, &m, &err))
		fail_msg("%s", err.text);
	return m;
}

static pal__calibration *start(pal_model *m, int32_t ids[LENGTH])
{
	pal__calibration *c;
	uint64_t random = 7;
	for (int i = 0; i < LENGTH; i++) {
		random = random * 6364136223846793005u + 1442695040888963407u;
		ids[i] = (int32_t)((random >> 33) % m->h.n_vocab);
	}
	assert_int_equal(pal__calibration_new(m, &c, NULL), PAL_OK);
	assert_int_equal(pal__calibration_log(c, ids, LENGTH, NULL), PAL_OK);
	return c;
}

/* Where every chunk is right, all heads are; and more heads add nothing. */
static void all_right(void **state)
{
	(void)state;
	for (int i = 0; i < n_paths; i++) {
		int32_t ids[LENGTH];
		pal_model *m = load(paths[i], 2);
		pal__calibration *c = start(m, ids);
		pal__calibrated got;
		const pal__probe p = {
			.question = ids + 9, .n_question = 3, .from = 4, .to = EVICTED};
		assert_int_equal(pal__calibration_ask(c, &p, NULL), PAL_OK);
		assert_int_equal(pal__calibration_choose(c, false, &got, NULL), PAL_OK);
		assert_int_equal(got.n_probes, 1);
		assert_int_equal(got.heads.n, 1);
		assert_true(got.hit1 == 1 && got.hit2 == 1 && got.score == 1);
		for (size_t k = 0; k < got.n_singles; k++)
			assert_true(got.singles[k].score == 1);
		pal__free(got.singles);
		assert_int_equal(pal__calibration_choose(c, true, &got, NULL), PAL_OK);
		assert_int_equal(got.n_probes, 0);
		pal__calibration_free(c);
		pal_model_close(m);
	}
}

/* One of the chunks is first: of probes that look for each of them, exactly one is answered. */
static void one_is_first(void **state)
{
	(void)state;
	int32_t ids[LENGTH];
	pal_model *m = load(paths[0], 2);
	pal__calibration *c = start(m, ids);
	pal__calibrated got;
	int n = 0;
	for (size_t at = 0; at + PAL_CHUNK < EVICTED; at += PAL_CHUNK, n++) {
		const pal__probe p = {.question = ids + 300,
				      .n_question = PAL__PROBE_QUESTION,
				      .from = at + 12,
				      .to = at + 20,
				      .seen_from = 40,
				      .seen_to = 40 + PAL__PROBE_SEEN,
				      .later = true};
		assert_int_equal(pal__calibration_ask(c, &p, NULL), PAL_OK);
	}
	assert_int_equal(pal__calibration_choose(c, true, &got, NULL), PAL_OK);
	assert_int_equal(got.n_probes, n);
	size_t full = 0;
	for (size_t k = 0; k < got.n_singles; k++) {
		/* The last, short chunk is nobody's answer. */
		assert_true(got.singles[k].hit1 <= 1.001f / (float)n);
		full += got.singles[k].hit1 > 0.999f / (float)n;
	}
	assert_true(full * 2 > got.n_singles);
	pal__free(got.singles);
	pal__calibration_free(c);
	pal_model_close(m);
}

static void threads(void **state)
{
	(void)state;
	pal__calibrated got[2];
	for (int i = 0; i < 2; i++) {
		int32_t ids[LENGTH];
		uint64_t seed = 3;
		pal_model *m = load(paths[0], 1 + 2 * i);
		pal__calibration *c = start(m, ids);
		assert_int_equal(pal__calibration_quote(c, 20, &seed, NULL), PAL_OK);
		assert_int_equal(pal__calibration_choose(c, false, &got[i], NULL), PAL_OK);
		assert_int_equal(got[i].n_probes, 20);
		pal__calibration_free(c);
		pal_model_close(m);
	}
	assert_int_equal(got[0].n_singles, got[1].n_singles);
	assert_memory_equal(got[0].singles, got[1].singles,
			    got[0].n_singles * sizeof *got[0].singles);
	assert_memory_equal(&got[0].heads, &got[1].heads, sizeof got[0].heads);
	pal__free(got[0].singles);
	pal__free(got[1].singles);
}

static void failures(void **state)
{
	(void)state;
	int32_t ids[LENGTH];
	pal_model *m = load(paths[0], 1), *bare;
	pal__calibration *c = start(m, ids);
	const pal__probe wrong[] = {
		{.question = ids, .n_question = 0, .from = 4, .to = 9},
		{.question = ids, .n_question = PAL__PROBE_QUESTION + 1, .from = 4, .to = 9},
		{.question = ids, .n_question = 1, .from = 3, .to = 9},
		{.question = ids, .n_question = 1, .from = 9, .to = 9},
		{.question = ids, .n_question = 1, .from = 9, .to = EVICTED + 1},
		{.question = ids, .n_question = 1, .from = 9, .to = 10, .seen_from = 2},
		{.question = ids, .n_question = 1, .from = 9, .to = 10, .seen_to = 97},
	};
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
		assert_int_equal(pal__calibration_ask(c, &wrong[i], NULL), PAL_EINVAL);
	assert_int_equal(pal__calibration_log(c, ids, 100, NULL), PAL_EINVAL);
	assert_int_equal(pal__calibration_log(c, ids, PAL__PROBE_LOG + 1, NULL), PAL_EINVAL);
	pal__calibration_free(c);
	const pal_model_options without = {.no_weights = true};
	assert_int_equal(pal_model_open(paths[0], &without, &bare, NULL), PAL_OK);
	assert_int_equal(pal__calibration_new(bare, &c, NULL), PAL_EINVAL);
	pal_model_close(bare);
	pal_model_close(m);
}

static pal_status everything(pal_model *m, pal__calibration **c)
{
	int32_t ids[LENGTH] = {0};
	uint64_t seed = 1;
	pal__calibrated got;
	pal_status s = pal__calibration_new(m, c, NULL);
	if (s == PAL_OK)
		s = pal__calibration_log(*c, ids, LENGTH, NULL);
	if (s == PAL_OK)
		s = pal__calibration_quote(*c, 2, &seed, NULL);
	if (s == PAL_OK)
		s = pal__calibration_choose(*c, false, &got, NULL);
	if (s == PAL_OK)
		pal__free(got.singles);
	return s;
}

static void no_memory(void **state)
{
	(void)state;
	pal_model *m = load(paths[0], 1);
	int64_t live = pal__mem_live();
	pal_status s = PAL_ENOMEM;
	for (int64_t i = 0; s == PAL_ENOMEM; i++) {
		pal__calibration *c = NULL;
		pal__mem_fail_after(i);
		s = everything(m, &c);
		bool failed = pal__mem_failed();
		pal__mem_fail_after(-1);
		assert_int_equal(s, failed ? PAL_ENOMEM : PAL_OK);
		pal__calibration_free(c);
		assert_int_equal(pal__mem_live(), live);
	}
	pal_model_close(m);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_right), cmocka_unit_test(one_is_first),
		cmocka_unit_test(threads),   cmocka_unit_test(failures),
		cmocka_unit_test(no_memory),
	};
	if (argc < 2)
		return 1;
	paths = argv + 1;
	n_paths = argc - 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
