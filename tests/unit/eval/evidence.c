/* Evidence: what samples prove, and that a file which says otherwise is refused. */
#include "eval/evidence.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "eval/seal.h"

#define FACTS 250 /* of each of two logs */
#define LENGTH 16384

/* Arms: name, policy, source, selection, control, of; and whether its answers are right. */
static const struct arm {
	const char *name, *policy, *source, *selection, *control, *of;
	bool right;
} arms[] = {
	{"oracle", "full", "none", "default", NULL, NULL, true},
	{"window", "window", "none", "default", NULL, NULL, false},
	{"spill-f16", "restored", "spill-f16", "default", NULL, NULL, true},
	{"spill-f16!zero", "restored", "spill-f16", "default", "zero", "spill-f16", false},
	{"spill-f16!shuffle", "restored", "spill-f16", "default", "shuffle", "spill-f16", false},
	{"spill-f16!other", "restored", "spill-f16", "default", "other", "spill-f16", false},
	{"spill-f16!random", "restored", "spill-f16", "random", "random", "spill-f16", false},
};
#define N_ARMS (sizeof arms / sizeof *arms)

static json_t *arms_json(void)
{
	json_t *all = json_array();
	for (size_t i = 0; i < N_ARMS; i++) {
		json_t *one = json_pack("{s:s, s:s, s:s, s:s, s:s}", "name", arms[i].name, "policy",
					arms[i].policy, "source", arms[i].source, "selection",
					arms[i].selection, "positions", "compact");
		if (arms[i].control) {
			json_object_set_new(one, "control", json_string(arms[i].control));
			json_object_set_new(one, "of", json_string(arms[i].of));
		}
		json_array_append_new(all, one);
	}
	return all;
}

static json_t *run_json(const struct arm *a, const char *hash)
{
	static char answers[FACTS * 8], live[FACTS * 40];
	size_t n = 0, m = 0;
	bool restores = !strcmp(a->policy, "restored");
	for (int i = 0; i < FACTS; i++) {
		const char *between = i ? ";" : "";
		n += (size_t)snprintf(answers + n, sizeof answers - n, "%s%d 7", between,
				      a->right ? 5 : 6);
		m += (size_t)snprintf(live + m, sizeof live - m, "%s%d %d %d 0 %d 1000", between,
				      strcmp(a->policy, "full") ? 16000 : 0, 2 * restores,
				      900 * restores, restores && a->right);
	}
	return json_pack("{s:s, s:s, s:i, s:i, s:i, s:s, s:s}", "arm", a->name, "log", hash,
			 "kv_bytes", 4096, "rss_bytes", 1000, "peak_bytes", 2000, "answers",
			 answers, "live", live);
}

static json_t *log_json(int index)
{
	char hash[17];
	json_t *questions = json_array(), *runs = json_array();
	snprintf(hash, sizeof hash, "%016x", 0xabc + index);
	for (int i = 0; i < FACTS; i++)
		json_array_append_new(questions,
				      json_pack("{s:s, s:[i], s:i, s:[[i, i]], s:s}", "kind", "key",
						"fact", 0, "ask", 1, "needles", 100 + 20 * i,
						112 + 20 * i, "expect", "5 7"));
	for (size_t i = 0; i < N_ARMS; i++)
		json_array_append_new(runs, run_json(&arms[i], hash));
	return json_pack("{s:i, s:b, s:s, s:o, s:o}", "length", LENGTH, "turns", 0, "hash", hash,
			 "questions", questions, "runs", runs);
}

/* Evidence of 500 questions that validates spill-f16, without what finish adds. */
static json_t *samples(void)
{
	json_t *p =
		json_pack("{s:s, s:s, s:s, s:[i], s:[s], s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, "
			  "s:b}",
			  "seed", "1", "tasks_hash", "00000000000000aa", "filler_hash",
			  "00000000000000bb", "lengths", LENGTH, "kinds", "key", "questions", 500,
			  "turns", 0, "oracle_max", LENGTH, "sink", 4, "window", 256, "n_ctx_train",
			  LENGTH, "chunk_bytes", 1024, "restored_max", 192, "exact_full_layers", 0);
	json_t *text = json_pack("[{s:i, s:i, s:[{s:s, s:i, s:f}]}]", "length", LENGTH, "n", 64,
				 "runs", "arm", "window", "agree", 40, "kl", 0.5);
	return json_pack("{s:s, s:{}, s:{}, s:{s:s, s:i}, s:o, s:o, s:[o, o], s:o}", "format",
			 PAL__EVIDENCE_FORMAT, "machine", "build", "model", "hash",
			 "0123456789abcdef", "n_vocab", 512, "parameters", p, "arms", arms_json(),
			 "logs", log_json(0), log_json(1), "text", text);
}

static json_t *good(void)
{
	json_t *e = samples();
	pal_error err;
	if (pal__evidence_finish(e, &err))
		fail_msg("%s", err.text);
	return e;
}

/* The member at "a/2/b". */
static json_t *at(json_t *j, const char *path)
{
	char part[64];
	while (*path) {
		size_t n = strcspn(path, "/");
		snprintf(part, sizeof part, "%.*s", (int)n, path);
		j = json_is_array(j) ? json_array_get(j, strtoul(part, NULL, 10))
				     : json_object_get(j, part);
		path += n + (path[n] == '/');
	}
	assert_non_null(j);
	return j;
}

static const char *verdict_of(json_t *e, const char *arm, const char **why)
{
	size_t i;
	json_t *v;
	json_array_foreach(json_object_get(e, "verdicts"), i,
			   v) if (!strcmp(json_string_value(at(v, "arm")), arm))
	{
		*why = json_string_value(at(v, "why"));
		return json_string_value(at(v, "verdict"));
	}
	return "";
}

static void wilson(void **state)
{
	(void)state;
	double low, high;
	pal__wilson(0, 0, &low, &high);
	assert_true(low == 0 && high == 1);
	/* By the formula in another language: 490 of 500. */
	pal__wilson(490, 500, &low, &high);
	assert_true(low > 0.96357 && low < 0.96360 && high > 0.98910 && high < 0.98912);
	pal__wilson(0, 500, &low, &high);
	assert_true(low == 0 && high > 0.0076 && high < 0.0077);
	pal__wilson(500, 500, &low, &high);
	assert_true(high == 1 && low > 0.9923 && low < 0.9924);
}

static void numbers(void **state)
{
	(void)state;
	int64_t v[3];
	const char *text = "1 22 9007199254740992;4";
	assert_int_equal(pal__evidence_numbers(&text, v, 3), 3);
	assert_string_equal(text, ";4");
	assert_true(v[0] == 1 && v[1] == 22 && v[2] == (int64_t)1 << 53);
	static const char *const wrong[] = {
		" 1", "1 ", "1  2", "-1", "1,2", "x", "1x", "1 2 3 4", "9007199254740993"};
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		text = wrong[i];
		assert_int_equal(pal__evidence_numbers(&text, v, 3), -1);
	}
	text = "";
	assert_int_equal(pal__evidence_numbers(&text, v, 3), 0);
}

static void validated(void **state)
{
	(void)state;
	json_t *e = good(), *again = NULL;
	const char *why;
	pal_error err = {0};
	assert_string_equal(verdict_of(e, "spill-f16", &why), "validated");
	assert_string_equal(verdict_of(e, "oracle", &why), "not falsifiable on this model");
	assert_string_equal(verdict_of(e, "window", &why), "");
	json_t *f = at(e, "figures/2");
	assert_int_equal(json_integer_value(at(f, "n")), 500);
	assert_int_equal(json_integer_value(at(f, "hits")), 500);
	assert_int_equal(json_integer_value(at(f, "chunks")), 1000);
	assert_int_equal(json_integer_value(at(f, "bytes")), 1000 * 1024);
	assert_int_equal(json_integer_value(at(e, "agreement/0/agree")), 40);
	/* Through a file and back. */
	char *text = json_dumps(e, JSON_COMPACT | JSON_REAL_PRECISION(17));
	if (pal__json_read("x", text, strlen(text), &again, &err) ||
	    pal__evidence_check("x", again, &err))
		fail_msg("%s", err.text);
	json_decref(again);
	free(text);
	json_decref(e);
}

/* Replaces every answer of an arm by "A B" ones. */
static void answer(json_t *e, int arm, const char *as, int first_n)
{
	for (int log = 0; log < 2; log++) {
		char path[64], text[FACTS * 8];
		size_t n = 0;
		snprintf(path, sizeof path, "logs/%d/runs/%d", log, arm);
		for (int i = 0; i < FACTS; i++)
			n += (size_t)snprintf(text + n, sizeof text - n, "%s%s", i ? ";" : "",
					      i < first_n       ? as
					      : arms[arm].right ? "5 7"
								: "6 7");
		json_object_set_new(at(e, path), "answers", json_string(text));
	}
}

static void live(json_t *e, int arm, const char *as)
{
	for (int log = 0; log < 2; log++) {
		char path[64], text[FACTS * 40];
		size_t n = 0;
		snprintf(path, sizeof path, "logs/%d/runs/%d", log, arm);
		for (int i = 0; i < FACTS; i++)
			n += (size_t)snprintf(text + n, sizeof text - n, "%s%s", i ? ";" : "", as);
		json_object_set_new(at(e, path), "live", json_string(text));
	}
}

static void expect_verdict(json_t *e, const char *verdict, const char *reason)
{
	const char *why = "";
	pal_error err;
	if (pal__evidence_finish(e, &err))
		fail_msg("%s", err.text);
	assert_string_equal(verdict_of(e, "spill-f16", &why), verdict);
	if (!strstr(why, reason))
		fail_msg("'%s' is not in '%s'", reason, why);
	json_decref(e);
}

static void other_verdicts(void **state)
{
	static const char *const nothing = "not falsifiable on this model";
	(void)state;
	json_t *e = samples();
	answer(e, 1, "5 7", 6); /* 12 of 500 */
	expect_verdict(e, nothing, "without restoration 0.024");
	e = samples();
	answer(e, 1, "5 7", 5);
	expect_verdict(e, "validated", "");
	e = samples();
	json_object_set(at(e, "parameters"), "exact_full_layers", json_true());
	expect_verdict(e, nothing, "left intact");
	e = samples();
	live(e, 2, "0 0 0 0 0 10");
	expect_verdict(e, nothing, "nothing was evicted");
	e = samples();
	live(e, 2, "16000 1 0 0 0 10");
	expect_verdict(e, "failed", "500 answers are right without a restored chunk");
	e = samples(); /* wrong ones may lack one: they count as wrong */
	live(e, 2, "16000 1 0 0 0 10");
	answer(e, 2, "6 7", FACTS);
	expect_verdict(e, "failed", "0.000 is recalled, less than 0.980");
	e = samples();
	answer(e, 2, "6 7", 6);
	expect_verdict(e, "failed", "0.976 is recalled, less than 0.980");
	e = samples();
	answer(e, 4, "5 7", 13);
	expect_verdict(e, "failed", "the control shuffle recalls 0.052");
	e = samples();
	answer(e, 6, "5 7", 15); /* the restored share of the log is allowed to random chunks */
	expect_verdict(e, "validated", "");
	e = samples();
	json_object_set_new(at(e, "parameters"), "questions", json_integer(250));
	json_array_remove(at(e, "logs"), 1);
	expect_verdict(e, "failed", "250 questions: at least 500");
	e = samples();
	json_array_remove(at(e, "arms"), 3);
	json_array_remove(at(e, "logs/0/runs"), 3);
	json_array_remove(at(e, "logs/1/runs"), 3);
	expect_verdict(e, "failed", "the control zero was asked 0 questions");
}

struct change {
	const char *path, *key, *value; /* value: JSON; NULL: the key is removed */
	const char *message;
};

/* One change each to a file that is right. */
static const struct change changes[] = {
	{"figures/2", "hits", "499", "figures: spill-f16, key at 16384"},
	{"figures/2", "low", "0.999", "figures: spill-f16"},
	{"figures/1", "evicted_min", "17000", "figures: window"},
	{"figures/2", "far_reads", "1", "figures: spill-f16"},
	{"verdicts/0", "verdict", "\"validated\"", "verdicts: oracle"},
	{"verdicts/1", "why", "\"because\"", "verdicts: spill-f16"},
	{"agreement/0", "kl", "0.25", "agreement: window, text at 16384"},
	{"text/0/runs/0", "agree", "65", "text: agree must be"},
	{"", "figures", "[]", "figures: oracle"},
	{"", "sum", "\"0123456789abcdef\"", "sum is not that of the file"},
	{"", "date", "\"2000-01-01\"", "sum is not that of the file"},
	{"", "format", "\"palimpsest-bench-1\"", "format is not"},
	{"", "machine", NULL, "machine or build"},
	{"model", "hash", "\"0000000000000000\"", "model: hash must be"},
	{"model", "hash", "\"abc\"", "model: hash must be"},
	{"model", "n_vocab", "7", "expects no list of token ids"},
	{"parameters", "tasks_hash", NULL, "tasks_hash"},
	{"parameters", "seed", "1", "seed must be a text"},
	{"parameters", "window", "0", "window must be a whole number"},
	{"parameters", "window", "16300", "is not out of sight of a window of 16300"},
	{"parameters", "questions", "501",
	 "key at 16384: 500 questions, where the parameters say 501"},
	{"parameters", "lengths", "[16384, 16384]", "lengths must be ascending"},
	{"parameters", "kinds", "[\"key\", \"key\"]", "every kind needs a name of its own"},
	{"arms/1", "policy", "\"full\"", "the arm window, without restoration, is missing"},
	{"arms/1", "name", "\"windows\"", "the arm window, without restoration, is missing"},
	{"arms/3", "of", "\"window\"", "a control must be one of another arm"},
	{"arms/2", "source", "\"none\"", "restored with source none"},
	{"logs/1", "hash", "\"0000000000000abc\"", "log 1: the same log twice"},
	{"logs/0", "length", "100", "length 100 is not one of the parameters"},
	{"logs/0/questions/1", "needles", "[[100, 112]]",
	 "question 1 is there already: a duplicate"},
	{"logs/0/questions/1", "needles", "[[2, 12]]", "is not out of sight"},
	{"logs/0/questions/1", "kind", "\"list\"", "of no kind"},
	{"logs/0/questions/1", "expect", "\"5 512\"", "expects no list of token ids"},
	{"logs/0/questions/1", "expect", "\"5 8\"", "figures: oracle"},
	{"logs/0/runs/2", "log", "\"0000000000000abd\"", "it read another log than the others"},
	{"logs/0/runs/2", "arm", "\"window\"", "one that ran already"},
	{"logs/0/runs/2", "answers", "\"5 7\"", "answers and live need 2 ids"},
	{"logs/0/runs/2", "live", NULL, "answers or live is missing"},
	{"logs/0/runs/2", "kv_bytes", "0", "kv_bytes must be"},
};

static json_t *changed(const struct change *c)
{
	json_t *e = good();
	if (c->value)
		json_object_set_new(at(e, c->path), c->key,
				    json_loads(c->value, JSON_DECODE_ANY, NULL));
	else
		json_object_del(at(e, c->path), c->key);
	return e;
}

static void refuse(json_t *e, const char *message)
{
	pal_error err = {0};
	pal_status s = pal__evidence_check("x.json", e, &err);
	if (s != PAL_EFORMAT || strncmp(err.text, "x.json: ", 8) != 0 || !strstr(err.text, message))
		fail_msg("'%s' wanted, '%s' given", message, err.text);
	json_decref(e);
}

static void refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof changes / sizeof *changes; i++)
		refuse(changed(&changes[i]), changes[i].message);
	json_t *e = good();
	live(e, 1, "16000 2 0 0 0 10");
	refuse(e, "restores although it must not");
	e = good();
	live(e, 0, "5 0 0 0 0 10");
	refuse(e, "full K/V that evicts");
	e = good();
	live(e, 2, "0 2 900 0 1 10");
	refuse(e, "restores what was never evicted");
	e = good();
	live(e, 2, "16000 0 900 0 0 10");
	refuse(e, "without a chunk restored");
	e = good();
	live(e, 2, "99999999 2 900 0 1 10");
	refuse(e, "impossible counts");
	e = good();
	json_array_remove(at(e, "logs/1/runs"), 4);
	refuse(e, "arm spill-f16!shuffle at 16384: 250 questions of 500");
	e = good();
	json_array_remove(at(e, "logs/1/runs"), 2);
	refuse(e, "log 1: arm spill-f16 is missing");
	refuse(json_array(), "not a JSON object");
}

/* Of the check; that memory runs out while jansson reads, it may take for a wrong file. */
static void out_of_memory(void **state)
{
	(void)state;
	json_set_alloc_funcs(pal__alloc, pal__free);
	json_t *e = good();
	int64_t live_before = pal__mem_live();
	pal_status s = PAL_ENOMEM;
	int64_t n = 0;
	for (; s != PAL_OK; n += n < 100 ? 1 : 97) {
		pal_error err;
		pal__mem_fail_after(n);
		s = pal__evidence_check("x", e, &err);
		pal__mem_fail_after(-1);
		if (s != PAL_OK && s != PAL_ENOMEM)
			fail_msg("allocation %d: %s", (int)n, err.text);
		assert_int_equal(pal__mem_live(), live_before);
	}
	assert_true(n > 1000);
	json_decref(e);
	json_set_alloc_funcs(malloc, free);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(wilson),    cmocka_unit_test(numbers),
		cmocka_unit_test(validated), cmocka_unit_test(other_verdicts),
		cmocka_unit_test(refused),   cmocka_unit_test(out_of_memory),
	};
	return cmocka_run_group_tests_name("eval/evidence", tests, NULL, NULL);
}
