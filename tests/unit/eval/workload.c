/* Workloads: parts are the file's bytes, scripts their tokens, and other files are refused.
 * Arguments: model files of tests/tools/mkmodel.py. */
#include "eval/workload.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"

static pal_model *model;

#define GOOD                                                                                 \
	"=== given\nwhat is it?\n\n=== reply\n a pen\n===  reply\n=== replying\n=== given\n" \
	"and\n=== reply\nx"

static pal__workload parse(const char *text)
{
	pal__workload w = {0};
	pal_error err;
	if (pal__workload_parse("w", text, strlen(text), &w, &err))
		fail_msg("%s", err.text);
	return w;
}

static void is_part(const char *text, size_t n, const char *wanted)
{
	if (n != strlen(wanted) || memcmp(text, wanted, n) != 0)
		fail_msg("'%.*s' is not '%s'", (int)n, text, wanted);
}

static void parts(void **state)
{
	(void)state;
	pal__workload w = parse(GOOD);
	assert_int_equal(w.n_turns, 2);
	is_part(w.turns[0].given, w.turns[0].n_given, "what is it?\n\n");
	is_part(w.turns[0].reply, w.turns[0].n_reply, " a pen\n===  reply\n=== replying\n");
	is_part(w.turns[1].given, w.turns[1].n_given, "and\n");
	is_part(w.turns[1].reply, w.turns[1].n_reply, "x");
	pal__workload_free(&w);
}

static void refused(void **state)
{
	static const struct {
		const char *text, *message;
	} all[] = {
		{"", "does not end with a reply"},
		{"=== given\na\n", "does not end with a reply"},
		{"=== given\na\n=== reply\nb\n=== given\nc\n", "does not end with a reply"},
		{"hello\n=== given\na\n=== reply\nb\n", "part 1 does not begin"},
		{"=== reply\na\n", "part 1 does not begin"},
		{"=== given\na\n=== given\nb\n=== reply\nc\n", "part 2 does not begin"},
		{"=== given\n=== reply\nb\n", "part 1 is empty"},
		{"=== given\na\n=== reply\n", "part 2 is empty"},
		{"=== given\n\xff\n=== reply\nb\n", "not UTF-8"},
	};
	(void)state;
	for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
		pal__workload w = {0};
		pal_error err = {0};
		pal_status s = pal__workload_parse("w", all[i].text, strlen(all[i].text), &w, &err);
		if (s != PAL_EFORMAT || !strstr(err.text, all[i].message))
			fail_msg("'%s' wanted, '%s' given", all[i].message, err.text);
		assert_null(w.text);
	}
	pal__workload w;
	pal_error err;
	assert_int_equal(pal__workload_open("/nowhere/x.txt", &w, &err), PAL_EIO);
}

static void too_many_turns(void **state)
{
	(void)state;
	const size_t each = strlen("=== given\na\n=== reply\nb\n");
	char *text = malloc(each * (PAL__WORKLOAD_TURNS + 1) + 1);
	for (int i = 0; i <= PAL__WORKLOAD_TURNS; i++)
		memcpy(text + (size_t)i * each, "=== given\na\n=== reply\nb\n", each);
	pal__workload w = {0};
	pal_error err;
	assert_int_equal(pal__workload_parse("w", text, each * PAL__WORKLOAD_TURNS, &w, &err),
			 PAL_OK);
	assert_int_equal(w.n_turns, PAL__WORKLOAD_TURNS);
	pal__workload_free(&w);
	assert_int_equal(pal__workload_parse("w", text, each * (PAL__WORKLOAD_TURNS + 1), &w, &err),
			 PAL_ELIMIT);
	free(text);
}

/* A part's ids give its text again. */
static void scripts(void **state)
{
	(void)state;
	pal__workload w = parse(GOOD);
	pal__script s = {0};
	pal_error err;
	pal_model_info info;
	const int32_t *ids;
	char *text;
	size_t n, n_text;
	pal_model_get_info(model, &info);
	if (pal__script_new(&w, model, 0, info.n_vocab, &s, &err))
		fail_msg("%s", err.text);
	assert_int_equal(s.n_turns, 2);
	for (size_t i = 1; i < 4; i++) {
		const pal__turn *t = &w.turns[i / 2];
		n = pal__script_part(&s, i, &ids);
		assert_int_equal(
			pal_detokenize(model, ids, n, PAL_TOKENIZE_SPECIAL, &text, &n_text, &err),
			PAL_OK);
		is_part(i % 2 ? t->reply : t->given, i % 2 ? t->n_reply : t->n_given, text);
		pal_free(text);
	}
	pal__script_free(&s);
	assert_int_equal(pal__script_new(&w, model, 1, info.n_vocab, &s, &err), PAL_OK);
	assert_int_equal(s.n_turns, 1);
	pal__script_free(&s);
	assert_int_equal(pal__script_new(&w, model, 0, 3, &s, &err), PAL_EINVAL);
	assert_non_null(strstr(err.text, "w has token"));
	assert_null(s.ids);
	pal__workload_free(&w);
}

static void out_of_memory(void **state)
{
	(void)state;
	pal_status s = PAL_ENOMEM;
	int64_t live = pal__mem_live(), n = 0;
	for (; s != PAL_OK; n++) {
		pal__workload w = {0};
		pal__script script = {0};
		pal_error err;
		pal__mem_fail_after(n);
		s = pal__workload_parse("w", GOOD, strlen(GOOD), &w, &err);
		if (!s)
			s = pal__script_new(&w, model, 0, INT32_MAX, &script, &err);
		pal__mem_fail_after(-1);
		if (s != PAL_OK && s != PAL_ENOMEM)
			fail_msg("allocation %d: %s", (int)n, err.text);
		pal__script_free(&script);
		pal__workload_free(&w);
		assert_int_equal(pal__mem_live(), live);
	}
	assert_true(n > 5);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(parts),         cmocka_unit_test(refused),
		cmocka_unit_test(scripts),       cmocka_unit_test(too_many_turns),
		cmocka_unit_test(out_of_memory),
	};
	pal_error err;
	if (argc < 2 || pal_model_open(argv[1], NULL, &model, &err))
		return 1;
	int failed = cmocka_run_group_tests_name("eval/workload", tests, NULL, NULL);
	pal_model_close(model);
	return failed;
}
