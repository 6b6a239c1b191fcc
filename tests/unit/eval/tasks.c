/* Samples: that facts stand where they are said to, that the same spec gives the same log, and
 * that files which are not tasks are refused. Arguments: model files of tests/tools/mkmodel.py. */
#include "eval/tasks.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"

static const char *path;
static pal_model *model;

#define GOOD                                                                                    \
	"{\"grammar\": {\"d\": [\"0\", \"1\", \"2\", \"3\", \"4\"], \"code\": [\"{d}{d}{d}\"]," \
	" \"name\": [\"a{d}{d}\", \"b{d} c{d}\"]}, \"share\": 0.5, \"kinds\": {\"key\": {"      \
	"\"vars\": {\"name\": \"name\", \"code\": \"code\"}, \"key\": [\"name\"],"              \
	"\"facts\": [[\"<{name}> is {code}.\", \"<{name}> has {code}.\"]],"                     \
	"\"questions\": [\"<{name}>?\"], \"lead\": \" \", \"chat_lead\": \"\","                 \
	"\"answer\": \"{code}.\"}, \"two\": {\"hard\": true, \"vars\": {\"name\": \"name\","    \
	"\"x\": \"code\", \"y\": \"code\"}, \"key\": [\"name\"], \"facts\": [[\"<{name}> x "    \
	"{x}\"],"                                                                               \
	"[\"<{name}> y {y}\"]], \"questions\": [\"both of <{name}>?\"], \"lead\": \"\","        \
	"\"chat_lead\": \"\", \"answer\": \"{x} {y}\"}},"                                       \
	"\"plain\": {\"before\": \"Q: \", \"between\": \"\\nA:\", \"after\": \"\\n\"},"         \
	"\"chat\": {\"before\": \"U \", \"between\": \" M \", \"after\": \"\"}}"

static char filler[4000];

static const pal__sample_spec usual = {.seed = 7,
				       .length = 2000,
				       .first = 12,
				       .last = 1700,
				       .n_facts = 8,
				       .n_kinds = 2,
				       .kinds = {0, 1}};

static pal__tasks *tasks(void)
{
	pal__tasks *t;
	pal_error err;
	if (pal__tasks_parse("good", GOOD, strlen(GOOD), filler, sizeof filler, &t, &err))
		fail_msg("%s", err.text);
	return t;
}

/* All tokens of the log; their number is checked. */
static int32_t *read_log(pal__sample *s, int64_t length)
{
	int32_t *all = malloc((size_t)length * sizeof *all);
	const int32_t *ids;
	size_t n = 1;
	int64_t at = 0;
	pal_error err;
	for (; n; at += (int64_t)n) {
		if (pal__sample_next(s, &ids, &n, &err))
			fail_msg("%s", err.text);
		assert_true(at + (int64_t)n <= length);
		memcpy(all + at, ids, n * sizeof *ids);
	}
	assert_int_equal(at, length);
	return all;
}

static char *text_of(const int32_t *ids, size_t n)
{
	char *text;
	size_t n_text;
	pal_error err;
	if (pal_detokenize(model, ids, n, PAL_TOKENIZE_SPECIAL, &text, &n_text, &err))
		fail_msg("%s", err.text);
	return text;
}

/* Between < and >. */
static void key_of(const char *text, char key[32])
{
	size_t from = strcspn(text, "<"), n = strcspn(text + from, ">");
	assert_true(text[from] && text[from + n]);
	snprintf(key, 32, "%.*s", (int)n - 1, text + from + 1);
}

static void places(void **state)
{
	(void)state;
	pal__tasks *t = tasks();
	for (uint64_t seed = 0; seed < 20; seed++) {
		pal__sample_spec spec = usual;
		pal__sample *s;
		pal_error err;
		char keys[8][32];
		spec.seed = seed;
		if (pal__sample_new(t, model, &spec, &s, &err))
			fail_msg("%s", err.text);
		int32_t *log = read_log(s, spec.length);
		for (int i = 0; i < spec.n_facts; i++) {
			const pal__question *q = pal__sample_question(s, i);
			char *ask = text_of(q->prompt, q->n_prompt);
			char *answer = text_of(q->expect, q->n_expect);
			assert_int_equal(q->kind, i % 2);
			assert_int_equal(q->n_needles, 1 + i % 2);
			key_of(ask, keys[i]);
			for (int j = 0; j < i; j++)
				assert_string_not_equal(keys[i], keys[j]);
			assert_true(!strncmp(ask, "Q: ", 3) && strstr(ask, "\nA:"));
			for (int j = 0; j < q->n_needles; j++) {
				char key[32], value[4] = "";
				char *fact = text_of(log + q->begin[j],
						     (size_t)(q->end[j] - q->begin[j]));
				assert_true(q->begin[j] >= spec.first && q->end[j] <= spec.last);
				key_of(fact, key);
				assert_string_equal(key, keys[i]);
				/* The j-th value of the answer, three digits each. */
				memcpy(value, answer + 4 * j, 3);
				assert_non_null(strstr(fact, value));
				assert_int_equal(fact[strlen(fact) - 1], '\n');
				pal_free(fact);
				fact = text_of(log + q->begin[j] - 1, 1);
				assert_string_equal(fact, "\n");
				pal_free(fact);
			}
			pal_free(ask);
			pal_free(answer);
		}
		free(log);
		pal__sample_free(s);
	}
	pal__tasks_close(t);
}

static void same_again(void **state)
{
	(void)state;
	pal__tasks *t = tasks();
	pal__sample *a, *b;
	pal_error err;
	pal__sample_spec other = usual;
	other.seed++;
	assert_int_equal(pal__sample_new(t, model, &usual, &a, &err), PAL_OK);
	assert_int_equal(pal__sample_new(t, model, &usual, &b, &err), PAL_OK);
	int32_t *x = read_log(a, usual.length), *y = read_log(b, usual.length);
	assert_memory_equal(x, y, (size_t)usual.length * sizeof *x);
	pal__sample_rewind(a);
	free(y);
	y = read_log(a, usual.length);
	assert_memory_equal(x, y, (size_t)usual.length * sizeof *x);
	pal__sample_free(b);
	free(y);
	assert_int_equal(pal__sample_new(t, model, &other, &b, &err), PAL_OK);
	y = read_log(b, usual.length);
	assert_memory_not_equal(x, y, (size_t)usual.length * sizeof *x);
	free(x);
	free(y);
	pal__sample_free(a);
	pal__sample_free(b);
	pal__tasks_close(t);
}

static void kinds(void **state)
{
	(void)state;
	pal__tasks *t = tasks();
	assert_int_equal(pal__tasks_n_kinds(t), 2);
	assert_string_equal(pal__tasks_kind(t, 1), "two");
	assert_int_equal(pal__tasks_find_kind(t, "two"), 1);
	assert_int_equal(pal__tasks_find_kind(t, "three"), -1);
	assert_true(pal__tasks_hard(t, 1) && !pal__tasks_hard(t, 0));
	pal__tasks_close(t);
}

static void no_room(void **state)
{
	(void)state;
	pal__tasks *t = tasks();
	pal__sample *s;
	pal_error err;
	pal__sample_spec spec = usual;
	spec.last = 60;
	assert_int_equal(pal__sample_new(t, model, &spec, &s, &err), PAL_EINVAL);
	assert_non_null(strstr(err.text, "no room for 8 facts"));
	spec.last = spec.length + 1;
	assert_int_equal(pal__sample_new(t, model, &spec, &s, &err), PAL_EINVAL);
	spec = usual;
	spec.length = 100000;
	spec.last = 90000;
	spec.n_facts = 500; /* there are 50 names */
	assert_int_equal(pal__sample_new(t, model, &spec, &s, &err), PAL_ELIMIT);
	pal__tasks_close(t);
}

/* GOOD with `from` replaced by `to`. */
static char *edited(const char *from, const char *to)
{
	static char text[sizeof GOOD + 256];
	const char *at = strstr(GOOD, from);
	assert_non_null(at);
	snprintf(text, sizeof text, "%.*s%s%s", (int)(at - GOOD), GOOD, to, at + strlen(from));
	return text;
}

static void bad_files(void **state)
{
	static const struct {
		const char *from, *to, *message;
	} edits[] = {
		{"{\"grammar\"", "[\"grammar\"", "bad: line 1"},
		{"\"kinds\": {", "\"kind\": {", "kinds: 1 to 32 kinds"},
		{"\"vars\": {\"name\": \"name\"", "\"vars\": {\"name\": \"names\"",
		 "key: vars: every"},
		{"\"key\": [\"name\"]", "\"key\": [\"nome\"]", "key: key: no such variable"},
		{"\"key\": [\"name\"]", "\"key\": []", "key: key: a list of variables"},
		{"\"facts\": [[", "\"facts\": [[], [", "key: facts: a list of texts"},
		{"\"questions\": [", "\"question\": [", "key: questions: a list"},
		{"\"answer\"", "\"answers\"", "lead, chat_lead and answer"},
		{"\"before\": \"Q: \"", "\"before\": 1", "plain: before and between"},
		{"\"d\": [\"0\", ", "\"d\": [0, ", "d: a list of texts"},
	};
	(void)state;
	pal__tasks *t;
	pal_error err;
	for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
		const char *text = edited(edits[i].from, edits[i].to);
		pal_status s = pal__tasks_parse("bad", text, strlen(text), filler, sizeof filler,
						&t, &err);
		if (s != PAL_EFORMAT || !strstr(err.text, edits[i].message))
			fail_msg("'%s' wanted, '%s' given", edits[i].message, err.text);
	}
	assert_int_equal(pal__tasks_parse("bad", GOOD, strlen(GOOD), filler, 100, &t, &err),
			 PAL_EFORMAT);
	assert_int_equal(pal__tasks_open("/nowhere", "/nowhere", &t, &err), PAL_EIO);
	/* What can only be seen when it is drawn: unknown words, and alternatives without end. */
	static const char *const words[] = {"<{name}> is {kode}.", "<{name}> is {loop}."};
	for (int i = 0; i < 2; i++) {
		pal__sample *s;
		char *text = edited("<{name}> is {code}.\", \"<{name}> has {code}.", words[i]);
		char *at = strstr(text, "\"d\": [");
		if (i)
			memcpy(at, "\"l\": [", 6);
		assert_int_equal(pal__tasks_parse("bad", text, strlen(text), filler, sizeof filler,
						  &t, &err),
				 PAL_OK);
		assert_int_equal(pal__sample_new(t, model, &usual, &s, &err), PAL_EFORMAT);
		pal__tasks_close(t);
	}
}

static void out_of_memory(void **state)
{
	(void)state;
	int64_t live = pal__mem_live();
	pal_status s = PAL_ENOMEM;
	int n = 0;
	for (; s != PAL_OK; n++) {
		pal__tasks *t = NULL;
		pal__sample *sample = NULL;
		const int32_t *ids;
		size_t m = 1;
		pal_error err;
		pal__mem_fail_after(n);
		s = pal__tasks_parse("good", GOOD, strlen(GOOD), filler, sizeof filler, &t, &err);
		if (!s)
			s = pal__sample_new(t, model, &usual, &sample, &err);
		while (!s && m)
			s = pal__sample_next(sample, &ids, &m, &err);
		pal__mem_fail_after(-1);
		assert_true(s == PAL_OK || s == PAL_ENOMEM);
		pal__sample_free(sample);
		pal__tasks_close(t);
		assert_int_equal(pal__mem_live(), live);
	}
	assert_true(n > 50);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(places),    cmocka_unit_test(same_again),
		cmocka_unit_test(kinds),     cmocka_unit_test(no_room),
		cmocka_unit_test(bad_files), cmocka_unit_test(out_of_memory),
	};
	pal_error err;
	path = argc > 1 ? argv[1] : "";
	for (size_t i = 0; i < sizeof filler; i++)
		filler[i] = i % 71 == 70 ? '\n' : i % 6 == 5 ? ' ' : (char)('p' + i % 7);
	if (pal_model_open(path, &(pal_model_options){.n_threads = 1}, &model, &err)) {
		fprintf(stderr, "%s\n", err.text);
		return 1;
	}
	int failed = cmocka_run_group_tests_name("eval/tasks", tests, NULL, NULL);
	pal_model_close(model);
	return failed;
}
