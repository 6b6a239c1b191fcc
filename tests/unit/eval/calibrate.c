/* Calibration of small random models: what is asked, scores that can be said beforehand, the same
 * choice for any number of threads, and all memory given back. Arguments: models. */
#include "eval/calibrate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "model/model.h"

#define LENGTH 1300

static const char tasks_text[] =
	"{\"grammar\": {\"d\": [\"0\", \"1\", \"2\", \"3\", \"4\"], \"code\": [\"{d}{d}{d}\"],"
	" \"name\": [\"a{d}{d}\", \"b{d} c{d}\"]}, \"share\": 0.5, \"kinds\": {\"key\": {"
	"\"vars\": {\"name\": \"name\", \"code\": \"code\"}, \"key\": [\"name\"],"
	"\"facts\": [[\"{name} is {code}.\"]], \"questions\": [\"{name}?\"], \"lead\": \" \","
	"\"chat_lead\": \"\", \"answer\": \"{code}.\"}, \"two\": {\"hard\": true, \"vars\": {"
	"\"name\": \"name\", \"x\": \"code\", \"y\": \"code\"}, \"key\": [\"name\"], \"facts\":"
	"[[\"{name} x {x}\"], [\"{name} y {y}\"]], \"questions\": [\"both of {name}?\"],"
	"\"lead\": \"\", \"chat_lead\": \"\", \"answer\": \"{x} {y}\"}},"
	"\"plain\": {\"before\": \"Q: \", \"between\": \"\\nA:\", \"after\": \"\\n\"},"
	"\"chat\": {\"before\": \"U \", \"between\": \" M \", \"after\": \"\"}}";

static char **paths;
static int n_paths;
static char filler[3000];

static pal_model *load(const char *path, int threads)
{
	pal_model *m;
	pal_error err;
	const pal_model_options o = {.n_threads = threads};
	if (pal_model_open(path, &o, &m, &err))
		fail_msg("%s", err.text);
	return m;
}

static void fill(const pal_model *m, int32_t ids[LENGTH])
{
	uint64_t random = 7;
	for (int i = 0; i < LENGTH; i++)
		ids[i] = (int32_t)(pal__draw(&random) % m->h.n_vocab);
}

static pal__tasks *parse(void)
{
	pal__tasks *t;
	assert_int_equal(pal__tasks_parse("tasks", tasks_text, strlen(tasks_text), filler,
					  sizeof filler, &t, NULL),
			 PAL_OK);
	return t;
}

static void check(const pal__calibrated *got, size_t n_probes)
{
	assert_int_equal(got->n_probes, n_probes);
	assert_in_range(got->heads.n, 1, PAL__MAX_HEADS_SET);
	assert_true(got->n_singles >= 1);
	assert_memory_equal(&got->heads.heads[0], &got->singles[0].head, sizeof(pal__qhead));
	assert_true(got->score >= got->singles[0].score);
	for (size_t i = 0; i < got->n_singles; i++) {
		const pal__head_score *s = &got->singles[i];
		assert_true(s->hit1 >= 0 && s->hit1 <= s->hit2 && s->hit2 <= 1);
		assert_true(s->score >= s->hit1 && s->score <= 1);
		assert_true(!i || s->score <= got->singles[i - 1].score);
	}
}

static void watch(void *user, uint64_t done, uint64_t total)
{
	uint64_t *last = user;
	assert_in_range(done, *last, total);
	*last = done;
}

/* One question for each 128 tokens; every bounded layer's heads are candidates. */
static void text(void **state)
{
	(void)state;
	for (int i = 0; i < n_paths; i++) {
		int32_t ids[LENGTH];
		uint64_t last = 0;
		pal_model *m = load(paths[i], 2);
		pal__calibration *c;
		pal__calibrated got;
		fill(m, ids);
		assert_int_equal(pal__calibration_new(m, &c, NULL), PAL_OK);
		pal__calibration_watch(c, watch, &last);
		assert_int_equal(pal__calibration_text(c, ids, LENGTH, 1, NULL), PAL_OK);
		assert_true(last >= LENGTH);
		assert_int_equal(pal__calibration_choose(c, false, &got, NULL), PAL_OK);
		check(&got, LENGTH / 128);
		assert_int_equal(got.n_singles % m->h.n_heads, 0);
		assert_true(got.n_singles <= m->h.n_layers * m->h.n_heads);
		if (!m->h.window)
			assert_int_equal(got.n_singles, m->h.n_layers * m->h.n_heads);
		pal__free(got.singles);
		assert_int_equal(pal__calibration_choose(c, true, &got, NULL), PAL_OK);
		assert_int_equal(got.n_probes, 0);
		pal__calibration_free(c);
		pal_model_close(m);
	}
}

/* Of ten facts, five have one sentence and five have two, the second for a later round. */
static void facts(void **state)
{
	(void)state;
	pal_error err;
	pal_model *m = load(paths[0], 2);
	pal__tasks *t = parse();
	pal__calibration *c;
	pal__calibrated first, later;
	assert_int_equal(pal__calibration_new(m, &c, NULL), PAL_OK);
	for (int i = 0; i < 2; i++)
		if (pal__calibration_tasks(c, t, LENGTH, i == 1, 1, &err))
			fail_msg("%s", err.text);
	assert_int_equal(pal__calibration_choose(c, false, &first, NULL), PAL_OK);
	assert_int_equal(pal__calibration_choose(c, true, &later, NULL), PAL_OK);
	check(&first, 2 * 10);
	check(&later, 2 * 5);
	pal__free(first.singles);
	pal__free(later.singles);
	pal__calibration_free(c);
	pal__tasks_close(t);
	pal_model_close(m);
}

static void threads(void **state)
{
	(void)state;
	pal__calibrated got[2];
	for (int i = 0; i < 2; i++) {
		int32_t ids[LENGTH];
		pal_model *m = load(paths[0], 1 + 2 * i);
		pal__calibration *c;
		fill(m, ids);
		assert_int_equal(pal__calibration_new(m, &c, NULL), PAL_OK);
		assert_int_equal(pal__calibration_text(c, ids, LENGTH, 3, NULL), PAL_OK);
		assert_int_equal(pal__calibration_choose(c, false, &got[i], NULL), PAL_OK);
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
	pal__tasks *t = parse();
	pal__calibration *c;
	fill(m, ids);
	assert_int_equal(pal__calibration_new(m, &c, NULL), PAL_OK);
	size_t least = PAL__CALIBRATION_LEAST - 1, most = PAL__CALIBRATION_LOG + 1;
	assert_int_equal(pal__calibration_text(c, ids, least, 1, NULL), PAL_EINVAL);
	assert_int_equal(pal__calibration_tasks(c, t, least, false, 1, NULL), PAL_EINVAL);
	assert_int_equal(pal__calibration_tasks(c, t, most, false, 1, NULL), PAL_EINVAL);
	ids[700] = -1;
	assert_int_equal(pal__calibration_text(c, ids, LENGTH, 1, NULL), PAL_EINVAL);
	pal__calibration_free(c);
	const pal_model_options without = {.no_weights = true};
	assert_int_equal(pal_model_open(paths[0], &without, &bare, NULL), PAL_OK);
	assert_int_equal(pal__calibration_new(bare, &c, NULL), PAL_OK);
	assert_int_equal(pal__calibration_tasks(c, t, LENGTH, false, 1, NULL), PAL_EINVAL);
	pal__calibration_free(c);
	pal__tasks_close(t);
	pal_model_close(bare);
	pal_model_close(m);
}

static pal_status everything(pal_model *m, const pal__tasks *t)
{
	int32_t ids[LENGTH] = {0};
	pal__calibration *c = NULL;
	pal__calibrated got = {0};
	pal_status s = pal__calibration_new(m, &c, NULL);
	if (s == PAL_OK)
		s = pal__calibration_text(c, ids, LENGTH, 1, NULL);
	if (s == PAL_OK)
		s = pal__calibration_tasks(c, t, LENGTH, false, 1, NULL);
	if (s == PAL_OK)
		s = pal__calibration_choose(c, false, &got, NULL);
	pal__free(got.singles);
	pal__calibration_free(c);
	return s;
}

/* Every eleventh allocation: most are those of tokenising. */
static void no_memory(void **state)
{
	(void)state;
	pal_model *m = load(paths[0], 1);
	pal__tasks *t = parse();
	int64_t live = pal__mem_live();
	pal_status s = PAL_ENOMEM;
	for (int64_t i = 0; s == PAL_ENOMEM; i += 11) {
		pal__mem_fail_after(i);
		s = everything(m, t);
		bool failed = pal__mem_failed();
		pal__mem_fail_after(-1);
		assert_int_equal(s, failed ? PAL_ENOMEM : PAL_OK);
		assert_int_equal(pal__mem_live(), live);
	}
	pal__tasks_close(t);
	pal_model_close(m);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(text),     cmocka_unit_test(facts),     cmocka_unit_test(threads),
		cmocka_unit_test(failures), cmocka_unit_test(no_memory),
	};
	if (argc < 2)
		return 1;
	paths = argv + 1;
	n_paths = argc - 1;
	for (size_t i = 0; i < sizeof filler; i++)
		filler[i] = i % 60 == 59 ? '\n' : i % 7 == 6 ? ' ' : (char)('d' + i * i % 20);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
