/* Evidence of a value map: what samples prove, and that a file which says otherwise is refused. */
#include "eval/map_evidence.h"

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

#define OUT "00000000000000aa" /* what plain decoding gives */

/* Three pairs of one workload of two turns, with 10 and 6 tokens: 16 in 1.6 us, so 10 million a
 * second plainly; drafted in 0.8, 0.5 and 0.4 us. */
static json_t *run_json(const char *mode)
{
	json_t *plain = json_pack("[{s:s, s:s}, {s:s, s:s}, {s:s, s:s}]", "output", OUT, "turns",
				  "10 1000;6 600", "output", OUT, "turns", "10 900;6 700", "output",
				  OUT, "turns", "10 1000;6 600");
	json_t *none = json_pack("[{s:s, s:s}, {s:s, s:s}, {s:s, s:s}]", "output", OUT, "turns",
				 "10 10 10 0 0 1000;6 6 6 0 0 600", "output", OUT, "turns",
				 "10 10 10 0 0 1016;6 6 6 0 0 600", "output", OUT, "turns",
				 "10 10 10 0 0 968;6 6 6 0 0 600");
	json_t *own = json_pack("[{s:s, s:s}, {s:s, s:s}, {s:s, s:s}]", "output", OUT, "turns",
				"10 10 4 12 6 500;6 6 3 8 3 300", "output", OUT, "turns",
				"10 10 4 12 6 300;6 6 3 8 3 200", "output", OUT, "turns",
				"10 10 4 12 6 200;6 6 3 8 3 200");
	return json_pack("{s:s, s:s, s:s, s:o, s:[{s:s, s:o, s:[]}, {s:s, s:o, s:[{s:s, s:i, s:i, "
			 "s:i, s:i, s:i, s:f}]}]}",
			 "isa", "avx2", "workload", "chat", "mode", mode, "plain", plain, "drafted",
			 "drafter", "none", "pairs", none, "sources", "drafter", "ngram", "pairs",
			 own, "sources", "name", "ngram", "proposals", 21, "drafted", 60,
			 "accepted", 27, "guessed", 90, "right", 40, "seconds", 0.25);
}

static json_t *samples(void)
{
	json_t *p = json_pack("{s:b, s:i, s:i, s:i, s:s, s:[s, s], s:[s], s:[s, s], s:[{s:s, s:s, "
			      "s:i, s:s}]}",
			      "replay", 0, "pairs", 3, "most", 10, "turns", 0, "seed", "1",
			      "drafters", "none", "ngram", "isas", "avx2", "modes", "greedy",
			      "sampled", "workloads", "name", "chat", "hash", "00000000000000bb",
			      "given", 50, "replies", "12 6");
	return json_pack("{s:s, s:{}, s:{}, s:{s:s}, s:o, s:[o, o]}", "format", PAL__MAP_FORMAT,
			 "machine", "build", "model", "hash", "0123456789abcdef", "parameters", p,
			 "runs", run_json("greedy"), run_json("sampled"));
}

static json_t *good(void)
{
	json_t *e = samples();
	pal_error err;
	if (pal__map_finish(e, &err))
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

static void near(json_t *e, const char *path, double value)
{
	double x = json_number_value(at(e, path));
	if (!(x > value - 1e-4 && x < value + 1e-4))
		fail_msg("%s is %f, not %f", path, x, value);
}

static void figures(void **state)
{
	(void)state;
	json_t *e = good(), *again;
	pal_error err;
	assert_int_equal(json_array_size(at(e, "figures")), 4);
	near(e, "figures/1/tokens", 48);
	near(e, "figures/1/forwards", 21);
	near(e, "figures/1/drafted", 60);
	near(e, "figures/1/accepted", 27);
	near(e, "figures/1/acceptance", 0.45);
	/* Wilson's interval of 9 of 20, by the formula in another language: one pair's drafts. */
	near(e, "figures/1/low", 0.2582);
	near(e, "figures/1/high", 0.6579);
	near(e, "figures/1/tokens_per_forward", 48.0 / 21);
	near(e, "figures/1/plain_tok_s", 1e7);
	near(e, "figures/1/tok_s", 3.2e7);
	near(e, "figures/1/speedup", 3.2);
	near(e, "figures/1/speedup_low", 2);
	near(e, "figures/1/speedup_high", 4);
	near(e, "figures/1/differing", 0);
	assert_string_equal(json_string_value(at(e, "figures/1/verdict")), "pays");
	near(e, "figures/0/speedup", 1);
	near(e, "figures/0/speedup_low", 1600.0 / 1616);
	near(e, "figures/0/speedup_high", 1600.0 / 1568);
	assert_string_equal(json_string_value(at(e, "figures/0/verdict")), "even");
	assert_string_equal(json_string_value(at(e, "figures/3/mode")), "sampled");
	assert_int_equal(pal__map_differing(e), 0);
	/* Through a file and back. */
	char *text = json_dumps(e, JSON_COMPACT | JSON_REAL_PRECISION(17));
	if (pal__json_read("x", text, strlen(text), &again, &err) ||
	    pal__map_check("x", again, &err))
		fail_msg("%s", err.text);
	json_decref(again);
	free(text);
	json_decref(e);
}

static void set(json_t *e, const char *path, const char *key, const char *value)
{
	if (value)
		json_object_set_new(at(e, path), key, json_loads(value, JSON_DECODE_ANY, NULL));
	else
		json_object_del(at(e, path), key);
}

/* The verdict of the first drafter's cell, in this mode, after what was changed. */
static void expect_verdict(json_t *e, const char *figure, const char *verdict, int differing)
{
	pal_error err;
	if (pal__map_finish(e, &err))
		fail_msg("%s", err.text);
	assert_string_equal(json_string_value(at(e, figure)), verdict);
	assert_int_equal(pal__map_differing(e), differing);
	json_decref(e);
}

static void verdicts(void **state)
{
	(void)state;
	json_t *e = samples();
	set(e, "runs/0/drafted/0/pairs/0", "turns", "\"10 10 10 0 0 1040;6 6 6 0 0 600\"");
	set(e, "runs/0/drafted/0/pairs/1", "turns", "\"10 10 10 0 0 1040;6 6 6 0 0 600\"");
	set(e, "runs/0/drafted/0/pairs/2", "turns", "\"10 10 10 0 0 1040;6 6 6 0 0 600\"");
	expect_verdict(e, "figures/0/verdict", "costs", 0);
	/* The fourth token of a turn is another one. */
	e = samples();
	set(e, "runs/0/drafted/1/pairs/2", "turns", "\"10 3 4 12 6 200;6 6 3 8 3 200\"");
	set(e, "runs/0/drafted/1/pairs/2", "output", "\"00000000000000ab\"");
	expect_verdict(e, "figures/1/verdict", "differs", 1);
	/* A turn ends too early. */
	e = samples();
	set(e, "runs/1/drafted/1/pairs/0", "turns", "\"9 9 4 12 6 200;6 6 3 8 3 200\"");
	set(e, "runs/1/drafted/1/pairs/0", "output", "\"00000000000000ab\"");
	expect_verdict(e, "figures/3/verdict", "differs", 1);
	/* Plain decoding does not give in one pair what it gave in another. */
	e = samples();
	set(e, "runs/0/plain/1", "output", "\"00000000000000ab\"");
	set(e, "runs/0/drafted/0/pairs/1", "output", "\"00000000000000ab\"");
	set(e, "runs/0/drafted/1/pairs/1", "output", "\"00000000000000ab\"");
	expect_verdict(e, "figures/0/verdict", "differs", 2);
	/* Nothing was generated. */
	e = samples();
	for (int p = 0; p < 3; p++) {
		char path[64];
		snprintf(path, sizeof path, "runs/0/plain/%d", p);
		set(e, path, "turns", "\"0 5;0 5\"");
		for (int d = 0; d < 2; d++) {
			snprintf(path, sizeof path, "runs/0/drafted/%d/pairs/%d", d, p);
			set(e, path, "turns", "\"0 0 0 0 0 5;0 0 0 0 0 5\"");
		}
	}
	expect_verdict(e, "figures/1/verdict", "empty", 0);
}

/* A replay gives the transcript's tokens, all of them. */
static void replay(void **state)
{
	(void)state;
	pal_error err;
	json_t *e = samples();
	json_object_set_new(at(e, "parameters"), "replay", json_true());
	set(e, "parameters", "modes", "[\"replay\"]");
	set(e, "runs/0", "mode", "\"replay\"");
	json_array_remove(at(e, "runs"), 1);
	assert_int_equal(pal__map_finish(e, &err), PAL_OK);
	set(e, "runs/0/plain/0", "turns", "\"10 1000;5 600\"");
	assert_int_equal(pal__map_finish(e, &err), PAL_EFORMAT);
	assert_non_null(strstr(err.text, "pair 1: turn 2 is not possible"));
	json_decref(e);
}

struct change {
	const char *path, *key, *value; /* value: JSON; NULL: the key is removed */
	const char *message;
};

/* One change each to a file that is right. */
static const struct change changes[] = {
	{"figures/1", "acceptance", "0.46", "figures: avx2, chat, greedy, ngram"},
	{"figures/1", "speedup", "3.3", "figures: avx2, chat, greedy, ngram"},
	{"figures/0", "verdict", "\"pays\"", "figures: avx2, chat, greedy, none"},
	{"figures/2", "low", "0.5", "figures: avx2, chat, sampled, none"},
	{"", "figures", "[]", "figures: 4 are wanted"},
	{"", "sum", "\"0123456789abcdef\"", "sum is not that of the file"},
	{"", "date", "\"2000-01-01\"", "sum is not that of the file"},
	{"", "format", "\"palimpsest-recall-1\"", "format is not"},
	{"", "build", NULL, "machine, build"},
	{"model", "hash", "\"abc\"", "the hash of the model"},
	{"parameters", "seed", "1", "seed must be a text"},
	{"parameters", "pairs", "2", "as many pairs as"},
	{"parameters", "pairs", "65", "pairs must be"},
	{"parameters", "most", "9", "avx2, chat, greedy, plain: pair 1: turn 1 is not possible"},
	{"parameters", "replay", "true", "modes: 'greedy' is out of place"},
	{"parameters", "modes", "[\"greedy\", \"greedy\"]", "modes: every one needs"},
	{"parameters", "modes", "[\"greedy\"]", "runs: 1 are wanted"},
	{"parameters", "drafters", "[\"ngram\", \"none\"]", "it is not where the parameters say"},
	{"parameters", "isas", "[]", "isas: 1 to"},
	{"parameters", "workloads", "[]", "workloads: 1 to"},
	{"parameters/workloads/0", "hash", "\"x\"", "workloads: every one needs"},
	{"parameters/workloads/0", "replies", "\"12 x\"", "replies is no list"},
	{"parameters/workloads/0", "replies", "\"12\"", "more turns than the workload has"},
	{"parameters/workloads/0", "replies", "\"12 6 1\"", "turn 3 is not possible"},
	{"runs/1", "mode", "\"greedy\"", "it is not where the parameters say"},
	{"runs/0/plain/0", "output", "\"xx\"", "output must be 16"},
	{"runs/0/plain/0", "output", "\"00000000000000ab\"", "one thing, and the turns another"},
	{"runs/0/plain/2", "turns", "\"10 1000;6 0\"", "pair 3: turn 2 is not possible"},
	{"runs/0/drafted/0/pairs/0", "turns", "\"10 10 9 0 0 1000;6 6 6 0 0 600\"",
	 "avx2, chat, greedy, none: pair 1: turn 1 is not possible"},
	{"runs/0/drafted/1/pairs/0", "turns", "\"10 10 3 12 6 500;6 6 3 8 3 300\"",
	 "pair 1: turn 1 is not possible"},
	{"runs/0/drafted/1/pairs/0", "turns", "\"10 10 4 5 6 500;6 6 3 8 3 300\"",
	 "pair 1: turn 1 is not possible"},
	{"runs/0/drafted/1/pairs/0", "turns", "\"10 11 4 12 6 500;6 6 3 8 3 300\"",
	 "pair 1: turn 1 is not possible"},
	{"runs/0/drafted/1/pairs/0", "turns", "\"10 10 4 12 6 500;6 6 3 8 3\"",
	 "pair 1: turn 2 is not possible"},
	{"runs/0/drafted/1/pairs/0", "turns", "\"10 9 4 12 6 500;6 6 3 8 3 300\"",
	 "one thing, and the turns another"},
	{"runs/0/drafted/1/pairs/0", "turns", "\"10 10 4 12 6 400;6 6 3 8 3 300\"",
	 "figures: avx2, chat, greedy, ngram"},
	{"runs/0/drafted/1/sources/0", "accepted", "61", "source 1 is not possible"},
	{"runs/0/drafted/1/sources/0", "right", "91", "source 1 is not possible"},
	{"runs/0/drafted/1/sources/0", "name", NULL, "source 1 is not possible"},
};

static void refuse(json_t *e, const char *message)
{
	pal_error err = {0};
	pal_status s = pal__map_check("x.json", e, &err);
	if (s != PAL_EFORMAT || strncmp(err.text, "x.json: ", 8) != 0 || !strstr(err.text, message))
		fail_msg("'%s' wanted, '%s' given", message, err.text);
	json_decref(e);
}

static void refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
		json_t *e = good();
		set(e, changes[i].path, changes[i].key, changes[i].value);
		refuse(e, changes[i].message);
	}
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
	for (; s != PAL_OK; n++) {
		pal_error err;
		pal__mem_fail_after(n);
		s = pal__map_check("x", e, &err);
		pal__mem_fail_after(-1);
		if (s != PAL_OK && s != PAL_ENOMEM)
			fail_msg("allocation %d: %s", (int)n, err.text);
		assert_int_equal(pal__mem_live(), live_before);
	}
	assert_true(n > 20);
	json_decref(e);
	json_set_alloc_funcs(malloc, free);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(figures),       cmocka_unit_test(verdicts),
		cmocka_unit_test(replay),        cmocka_unit_test(refused),
		cmocka_unit_test(out_of_memory),
	};
	return cmocka_run_group_tests_name("eval/map_evidence", tests, NULL, NULL);
}
