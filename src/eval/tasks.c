#include "eval/tasks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/checked.h"
#include "base/file.h"
#include "base/mem.h"

#define MAX_VARS 8
#define MAX_TEXT 2048   /* bytes of a fact, a question or an answer */
#define MAX_DEPTH 8     /* of alternatives within alternatives */
#define MAX_PIECE 2048  /* bytes of filler that are tokenised at a time */
#define MIN_FILLER 1024 /* bytes of a file of filler */
#define REDRAWS 50      /* until a key shares a word with another, or is a new one */

struct pal__tasks {
	char *name;      /* of the file, for messages */
	json_t *root;    /* checked: see check_tasks */
	json_t *kinds;   /* borrowed */
	json_t *form[2]; /* plain, chat; borrowed */
	char *filler;
	size_t n_filler;
	uint64_t tasks_hash, filler_hash;
	double share;
};

struct sentence {
	int32_t *ids; /* with the line break before and behind it */
	size_t n;
	int64_t at;
};

struct pal__sample {
	const pal__tasks *tasks;
	const pal_model *model;
	pal__sample_spec spec;
	pal__question *questions; /* [n_facts] */
	struct sentence *lines;   /* [n_lines] in the order of the log */
	size_t n_lines;
	char **keys; /* [n_keys] texts of the keys so far */
	size_t n_keys, cap_keys;
	int32_t *newline; /* ids of a line break, and of the log's beginning */
	size_t n_newline;
	int32_t bos;
	bool has_bos;
	size_t start, at; /* bytes of the filler: where the log begins, where it is */
	int64_t position; /* tokens given out */
	size_t next_line;
	int32_t *piece; /* the last one given out */
};

uint64_t pal__draw(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15u);
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static size_t draw_below(uint64_t *state, size_t n)
{
	return (size_t)((unsigned __int128)pal__draw(state) * n >> 64);
}

/* --- the file of tasks ------------------------------------------------------ */

static pal_status bad(const pal__tasks *t, pal_error *err, const char *where, const char *what)
{
	return pal__fail(err, PAL_EFORMAT, "%s: %s: %s", t->name, where, what);
}

/* Whether j is a list of at least one text, none of them long. */
static bool is_texts(const json_t *j)
{
	size_t n = json_array_size(j);
	for (size_t i = 0; i < n; i++) {
		const json_t *one = json_array_get(j, i);
		if (!json_is_string(one) || json_string_length(one) >= MAX_TEXT)
			return false;
	}
	return n > 0;
}

static pal_status check_kind(const pal__tasks *t, const char *name, json_t *kind, pal_error *err)
{
	json_t *vars = json_object_get(kind, "vars"), *key = json_object_get(kind, "key"), *v;
	json_t *facts = json_object_get(kind, "facts"),
	       *grammar = json_object_get(t->root, "grammar");
	const char *variable;
	size_t n = json_object_size(vars), i;
	if (n < 1 || n > MAX_VARS)
		return bad(t, err, name, "vars: 1 to 8 variables are wanted");
	json_object_foreach(
		vars, variable,
		v) if (!json_object_get(grammar,
					json_string_value(v)
						? json_string_value(v)
						: "")) return bad(t, err, name,
								  "vars: every value must be the "
								  "name of a list of grammar");
	if (!is_texts(key))
		return bad(t, err, name, "key: a list of variables is wanted");
	json_array_foreach(key, i, v) if (!json_object_get(vars, json_string_value(v))) return bad(
		t, err, name, "key: no such variable");
	n = json_array_size(facts);
	if (n < 1 || n > PAL__TASK_SENTENCES)
		return bad(t, err, name, "facts: 1 to 4 lists of phrasings are wanted");
	json_array_foreach(facts, i, v) if (!is_texts(v)) return bad(
		t, err, name, "facts: a list of texts is wanted");
	if (!is_texts(json_object_get(kind, "questions")))
		return bad(t, err, name, "questions: a list of texts is wanted");
	for (const char *const *text = (const char *const[]){"lead", "chat_lead", "answer", NULL};
	     *text; text++)
		if (!json_is_string(json_object_get(kind, *text)))
			return bad(t, err, name, "lead, chat_lead and answer must be texts");
	return PAL_OK;
}

static pal_status check_tasks(pal__tasks *t, pal_error *err)
{
	json_t *grammar = json_object_get(t->root, "grammar"), *v;
	const char *name;
	t->kinds = json_object_get(t->root, "kinds");
	t->form[0] = json_object_get(t->root, "plain");
	t->form[1] = json_object_get(t->root, "chat");
	t->share = json_number_value(json_object_get(t->root, "share"));
	json_object_foreach(grammar, name, v) if (!is_texts(v)) return bad(
		t, err, name, "a list of texts is wanted");
	size_t n = json_object_size(t->kinds);
	if (n < 1 || n > PAL__TASK_KINDS)
		return bad(t, err, "kinds", "1 to 32 kinds of tasks are wanted");
	for (int i = 0; i < 2; i++)
		for (const char *const *text = (const char *const[]){"before", "between", NULL};
		     *text; text++)
			if (!json_is_string(json_object_get(t->form[i], *text)))
				return bad(t, err, i ? "chat" : "plain",
					   "before and between must be texts");
	json_object_foreach(t->kinds, name, v)
	{
		pal_status s = check_kind(t, name, v, err);
		if (s)
			return s;
	}
	return PAL_OK;
}

pal_status pal__tasks_parse(const char *name, const char *tasks, size_t n_tasks, const char *filler,
			    size_t n_filler, pal__tasks **out, pal_error *err)
{
	json_error_t e;
	if (n_filler < MIN_FILLER)
		return pal__fail(err, PAL_EFORMAT,
				 "the filler has %zu bytes: a text of %d or more is wanted",
				 n_filler, MIN_FILLER);
	pal__tasks *t = pal__calloc(1, sizeof *t);
	if (!t)
		return pal__fail_memory(err, "the tasks", sizeof *t);
	pal_status s = PAL_OK;
	t->name = pal__strndup(name, strlen(name));
	t->filler = pal__strndup(filler, n_filler);
	if (!t->name || !t->filler)
		s = pal__fail_memory(err, "the tasks", n_filler);
	t->root = s ? NULL : json_loadb(tasks, n_tasks, 0, &e);
	if (!s && !t->root)
		s = pal__fail(err, PAL_EFORMAT, "%s: line %d: %s", name, e.line, e.text);
	if (!s)
		s = check_tasks(t, err);
	t->n_filler = n_filler;
	t->tasks_hash = XXH3_64bits(tasks, n_tasks);
	t->filler_hash = XXH3_64bits(filler, n_filler);
	if (s) {
		pal__tasks_close(t);
		return s;
	}
	*out = t;
	return PAL_OK;
}

pal_status pal__tasks_open(const char *tasks, const char *filler, pal__tasks **out, pal_error *err)
{
	pal__file a, b;
	pal_status s = pal__file_map(tasks, &a, err);
	if (s)
		return s;
	s = pal__file_map(filler, &b, err);
	if (!s) {
		s = pal__tasks_parse(tasks, (const char *)a.data, a.size, (const char *)b.data,
				     b.size, out, err);
		pal__file_unmap(&b);
	}
	pal__file_unmap(&a);
	return s;
}

void pal__tasks_close(pal__tasks *t)
{
	if (!t)
		return;
	json_decref(t->root);
	pal__free(t->filler);
	pal__free(t->name);
	pal__free(t);
}

void pal__tasks_hashes(const pal__tasks *t, uint64_t *tasks, uint64_t *filler)
{
	*tasks = t->tasks_hash;
	*filler = t->filler_hash;
}

int pal__tasks_n_kinds(const pal__tasks *t)
{
	return (int)json_object_size(t->kinds);
}

/* Kind number i; kinds keep the order of the file. */
static json_t *kind_at(const pal__tasks *t, int kind, const char **name)
{
	const char *key;
	json_t *v;
	json_object_foreach(t->kinds, key, v) if (kind-- == 0)
	{
		if (name)
			*name = key;
		return v;
	}
	return NULL;
}

const char *pal__tasks_kind(const pal__tasks *t, int kind)
{
	const char *name = NULL;
	kind_at(t, kind, &name);
	return name;
}

int pal__tasks_find_kind(const pal__tasks *t, const char *name)
{
	for (int i = 0; i < pal__tasks_n_kinds(t); i++)
		if (!strcmp(pal__tasks_kind(t, i), name))
			return i;
	return -1;
}

bool pal__tasks_hard(const pal__tasks *t, int kind)
{
	return json_is_true(json_object_get(kind_at(t, kind, NULL), "hard"));
}

/* --- substitution ------------------------------------------------------------- */

struct vars {
	const char *names[MAX_VARS];
	char texts[MAX_VARS][MAX_TEXT];
	int n;
};

static const char *value_of(const struct vars *v, const char *name, size_t n)
{
	for (int i = 0; i < v->n; i++)
		if (strlen(v->names[i]) == n && !memcmp(v->names[i], name, n))
			return v->texts[i];
	return NULL;
}

/* Appends text to out[MAX_TEXT], whose length is *n: {x} as a variable, or as an alternative of
 * the grammar. False: unknown, too deep or too long. */
static bool expand(const pal__tasks *t, const struct vars *v, const char *text, uint64_t *rng,
		   int depth, char *out, size_t *n)
{
	for (const char *at = text; *at;) {
		const char *end = *at == '{' ? strchr(at, '}') : NULL;
		if (!end) {
			if (*n + 1 >= MAX_TEXT)
				return false;
			out[(*n)++] = *at++;
			continue;
		}
		char name[64];
		size_t length = (size_t)(end - at - 1);
		if (length >= sizeof name || depth == MAX_DEPTH)
			return false;
		memcpy(name, at + 1, length);
		name[length] = 0;
		const char *value = value_of(v, name, length);
		json_t *list = json_object_get(json_object_get(t->root, "grammar"), name);
		if (!value && list)
			value = json_string_value(
				json_array_get(list, draw_below(rng, json_array_size(list))));
		/* A variable's text is done; braces in it are braces. */
		static const struct vars none;
		if (!value || !expand(t, &none, value, rng, depth + 1, out, n))
			return false;
		at = end + 1;
	}
	out[*n] = 0;
	return true;
}

/* Whether two texts share a word. */
static bool share_word(const char *a, const char *b)
{
	while (*a) {
		size_t n = strcspn(a, " ");
		for (const char *at = b; *at; at += strcspn(at, " "), at += strspn(at, " "))
			if (n && strcspn(at, " ") == n && !memcmp(at, a, n))
				return true;
		a += n;
		a += strspn(a, " ");
	}
	return false;
}

/* Whether no key of the draw is one that the sample has; *shares: whether a word is. */
static bool is_new(const pal__sample *s, const json_t *key, const struct vars *v, bool *shares)
{
	*shares = false;
	for (size_t k = 0; k < json_array_size(key); k++) {
		const char *name = json_string_value(json_array_get(key, k));
		const char *text = value_of(v, name, strlen(name));
		for (size_t i = 0; i < s->n_keys; i++) {
			if (!strcmp(s->keys[i], text))
				return false;
			*shares |= share_word(s->keys[i], text);
		}
		for (size_t j = 0; j < k; j++) {
			const char *other = json_string_value(json_array_get(key, j));
			if (!strcmp(value_of(v, other, strlen(other)), text))
				return false;
		}
	}
	return true;
}

static pal_status remember(pal__sample *s, const json_t *key, const struct vars *v, pal_error *err)
{
	for (size_t k = 0; k < json_array_size(key); k++) {
		const char *name = json_string_value(json_array_get(key, k));
		const char *text = value_of(v, name, strlen(name));
		if (!pal__grow((void **)&s->keys, &s->cap_keys, s->n_keys + 1, sizeof *s->keys))
			return pal__fail_memory(err, "the keys of the facts", SIZE_MAX);
		s->keys[s->n_keys] = pal__strndup(text, strlen(text));
		if (!s->keys[s->n_keys])
			return pal__fail_memory(err, "the keys of the facts", strlen(text));
		s->n_keys++;
	}
	return PAL_OK;
}

/* Draws the variables of a kind until its keys are new, and for a share of the facts until they
 * are like an earlier one. */
static pal_status draw_vars(pal__sample *s, const json_t *kind, uint64_t *rng, struct vars *v,
			    pal_error *err)
{
	const pal__tasks *t = s->tasks;
	json_t *list, *vars = json_object_get(kind, "vars"), *key = json_object_get(kind, "key");
	const char *name;
	bool alike = (double)(pal__draw(rng) >> 11) * 0x1p-53 < t->share, shares, fresh = false;
	for (int i = 0; i < 20 * REDRAWS && !fresh; i++) {
		static const struct vars none;
		v->n = 0;
		json_object_foreach(vars, name, list)
		{
			char text[MAX_TEXT];
			size_t n = 0;
			v->names[v->n] = name;
			snprintf(text, sizeof text, "{%s}", json_string_value(list));
			if (!expand(t, &none, text, rng, 0, v->texts[v->n], &n))
				return bad(t, err, name, "unknown {word}, or too long a text");
			v->n++;
		}
		fresh = is_new(s, key, v, &shares);
		if (fresh && alike && !shares && s->n_keys && i < REDRAWS)
			fresh = false;
	}
	return fresh ? remember(s, key, v, err)
		     : pal__fail(err, PAL_ELIMIT,
				 "%s: no new names for fact %zu of one log; ask for fewer facts",
				 t->name, s->n_keys);
}

/* --- a sample ------------------------------------------------------------------- */

static pal_status tokens(const pal__sample *s, const char *text, size_t n, unsigned flags,
			 int32_t **ids, size_t *n_ids, pal_error *err)
{
	return pal_tokenize(s->model, text, n, flags, ids, n_ids, err);
}

/* Sentence i of the fact: drawn, and as a line with a break before it. */
static pal_status make_line(pal__sample *s, const json_t *phrasings, const struct vars *v,
			    uint64_t *rng, int *phrase, struct sentence *line, pal_error *err)
{
	char text[MAX_TEXT + 1];
	size_t n = 0, n_ids;
	int32_t *ids;
	*phrase = (int)draw_below(rng, json_array_size(phrasings));
	if (!expand(s->tasks, v, json_string_value(json_array_get(phrasings, (size_t)*phrase)), rng,
		    0, text, &n))
		return bad(s->tasks, err, "facts", "unknown {word}, or too long a text");
	text[n++] = '\n';
	pal_status status = tokens(s, text, n, 0, &ids, &n_ids, err);
	if (status)
		return status;
	line->n = s->n_newline + n_ids;
	line->ids = pal__alloc(line->n * sizeof *ids);
	if (line->ids) {
		memcpy(line->ids, s->newline, s->n_newline * sizeof *ids);
		memcpy(line->ids + s->n_newline, ids, n_ids * sizeof *ids);
	}
	pal_free(ids);
	return line->ids ? PAL_OK : pal__fail_memory(err, "a fact", line->n * sizeof *ids);
}

static pal_status make_question(pal__sample *s, const json_t *kind, const struct vars *v,
				uint64_t *rng, pal__question *q, pal_error *err)
{
	const pal__tasks *t = s->tasks;
	json_t *asks = json_object_get(kind, "questions"), *form = t->form[s->spec.chat];
	char text[4 * MAX_TEXT], part[MAX_TEXT] = "", answer[MAX_TEXT] = "";
	size_t n = 0, n_answer = 0;
	q->ask = (int)draw_below(rng, json_array_size(asks));
	if (!expand(t, v, json_string_value(json_array_get(asks, (size_t)q->ask)), rng, 0, part,
		    &n) ||
	    !expand(t, v, json_string_value(json_object_get(kind, "answer")), rng, 0, answer,
		    &n_answer) ||
	    !n_answer)
		return bad(t, err, "questions or answer", "unknown {word}, or too long a text");
	int length = snprintf(
		text, sizeof text, "%s%s%s%s", json_string_value(json_object_get(form, "before")),
		part, json_string_value(json_object_get(form, "between")),
		json_string_value(json_object_get(kind, s->spec.chat ? "chat_lead" : "lead")));
	if (length < 1 || length >= (int)sizeof text)
		return bad(t, err, "questions", "too long a text");
	pal_status status = tokens(s, text, (size_t)length, s->spec.chat ? PAL_TOKENIZE_SPECIAL : 0,
				   &q->prompt, &q->n_prompt, err);
	return status ? status : tokens(s, answer, n_answer, 0, &q->expect, &q->n_expect, err);
}

static pal_status make_fact(pal__sample *s, int i, uint64_t *rng, pal_error *err)
{
	struct vars *v = pal__calloc(1, sizeof *v);
	if (!v)
		return pal__fail_memory(err, "a fact", sizeof *v);
	pal__question *q = &s->questions[i];
	q->kind = s->spec.kinds[i % s->spec.n_kinds];
	const json_t *kind = kind_at(s->tasks, q->kind, NULL),
		     *facts = json_object_get(kind, "facts");
	pal_status status = draw_vars(s, kind, rng, v, err);
	for (q->n_needles = 0; q->n_needles < (int)json_array_size(facts) && !status;
	     q->n_needles++) {
		struct sentence *line = &s->lines[s->n_lines];
		status = make_line(s, json_array_get(facts, (size_t)q->n_needles), v, rng,
				   &q->phrases[q->n_needles], line, err);
		/* Until the lines have their places: which sentence of which fact it is. */
		line->at = (int64_t)i * PAL__TASK_SENTENCES + q->n_needles;
		s->n_lines += !status;
	}
	if (!status)
		status = make_question(s, kind, v, rng, q, err);
	pal__free(v);
	return status;
}

static int by_number(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
	return (x > y) - (x < y);
}

/* Puts the lines in any order, evenly over [first, last). */
static pal_status place(pal__sample *s, uint64_t *rng, pal_error *err)
{
	int64_t total = 0, room = s->spec.last - s->spec.first;
	for (size_t i = 0; i < s->n_lines; i++)
		total += (int64_t)s->lines[i].n;
	if (total > room)
		return pal__fail(err, PAL_EINVAL,
				 "a log of %lld tokens has no room for %d facts out of sight: they "
				 "take %lld tokens of the %lld there",
				 (long long)s->spec.length, s->spec.n_facts, (long long)total,
				 (long long)(room > 0 ? room : 0));
	int64_t *gaps = pal__alloc((s->n_lines + 1) * sizeof *gaps), at = s->spec.first;
	if (!gaps)
		return pal__fail_memory(err, "the places of facts", s->n_lines * sizeof *gaps);
	for (size_t i = 0; i < s->n_lines; i++)
		gaps[i] = (int64_t)draw_below(rng, (size_t)(room - total) + 1);
	qsort(gaps, s->n_lines, sizeof *gaps, by_number);
	for (size_t i = s->n_lines; i > 1; i--) {
		size_t j = draw_below(rng, i);
		struct sentence other = s->lines[j];
		s->lines[j] = s->lines[i - 1];
		s->lines[i - 1] = other;
	}
	for (size_t i = 0; i < s->n_lines; i++) {
		struct sentence *line = &s->lines[i];
		pal__question *q = &s->questions[line->at / PAL__TASK_SENTENCES];
		int which = (int)(line->at % PAL__TASK_SENTENCES);
		line->at = at + gaps[i];
		q->begin[which] = line->at + (int64_t)s->n_newline;
		q->end[which] = line->at + (int64_t)line->n;
		at += (int64_t)line->n;
	}
	pal__free(gaps);
	return PAL_OK;
}

/* The ids of a line break, and of what the model wants at the beginning. */
static pal_status borders(pal__sample *s, pal_error *err)
{
	int32_t *with = NULL;
	size_t n;
	pal_status status = tokens(s, "\n", 1, 0, &s->newline, &s->n_newline, err);
	if (!status)
		status = tokens(s, "\n", 1, PAL_TOKENIZE_ADD, &with, &n, err);
	if (!status && n && s->n_newline && with[0] != s->newline[0]) {
		s->bos = with[0];
		s->has_bos = true;
	}
	pal_free(with);
	return status;
}

static pal_status fill(pal__sample *s, pal_error *err)
{
	size_t n = (size_t)s->spec.n_facts;
	uint64_t rng = s->spec.seed;
	s->questions = pal__calloc(n + 1, sizeof *s->questions);
	s->lines = pal__calloc((n + 1) * PAL__TASK_SENTENCES, sizeof *s->lines);
	if (!s->questions || !s->lines)
		return pal__fail_memory(err, "the questions", n * sizeof *s->questions);
	s->start = draw_below(&rng, s->tasks->n_filler);
	pal_status status = borders(s, err);
	for (int i = 0; i < s->spec.n_facts && !status; i++)
		status = make_fact(s, i, &rng, err);
	if (!status)
		status = place(s, &rng, err);
	pal__sample_rewind(s);
	return status;
}

void pal__spec_kinds(const pal__tasks *t, pal__sample_spec *spec)
{
	int n = pal__tasks_n_kinds(t);
	spec->n_kinds = n < PAL__TASK_KINDS ? n : PAL__TASK_KINDS;
	for (int i = 0; i < spec->n_kinds; i++)
		spec->kinds[i] = i;
}

pal_status pal__sample_new(const pal__tasks *t, const pal_model *model,
			   const pal__sample_spec *spec, pal__sample **out, pal_error *err)
{
	if (spec->n_facts < 0 || spec->n_facts > PAL__SAMPLE_FACTS || spec->n_kinds < 1 ||
	    spec->first < 1 || spec->last > spec->length)
		return pal__fail(
			err, PAL_EINVAL,
			"a sample of %d facts in [%lld, %lld) of %lld tokens is not possible",
			spec->n_facts, (long long)spec->first, (long long)spec->last,
			(long long)spec->length);
	pal__sample *s = pal__calloc(1, sizeof *s);
	if (!s)
		return pal__fail_memory(err, "a sample", sizeof *s);
	s->tasks = t;
	s->model = model;
	s->spec = *spec;
	pal_status status = fill(s, err);
	if (status) {
		pal__sample_free(s);
		return status;
	}
	*out = s;
	return PAL_OK;
}

void pal__sample_free(pal__sample *s)
{
	if (!s)
		return;
	for (int i = 0; s->questions && i < s->spec.n_facts; i++) {
		pal_free(s->questions[i].prompt);
		pal_free(s->questions[i].expect);
	}
	for (size_t i = 0; i < s->n_lines; i++)
		pal__free(s->lines[i].ids);
	for (size_t i = 0; i < s->n_keys; i++)
		pal__free(s->keys[i]);
	pal__free(s->questions);
	pal__free(s->lines);
	pal__free(s->keys);
	pal_free(s->newline);
	pal_free(s->piece);
	pal__free(s);
}

const pal__question *pal__sample_question(const pal__sample *s, int i)
{
	return &s->questions[i];
}

const int32_t *pal__sample_newline(const pal__sample *s, size_t *n)
{
	*n = s->n_newline;
	return s->newline;
}

void pal__sample_rewind(pal__sample *s)
{
	s->at = s->start;
	s->position = 0;
	s->next_line = 0;
}

/* The end of the next piece of filler from `at`: a line that the next one does not continue, or
 * as much as one piece may have, up to a space. */
static size_t piece_end(const pal__tasks *t, size_t at)
{
	size_t most = t->n_filler - at < MAX_PIECE ? t->n_filler - at : MAX_PIECE, space = 0;
	for (size_t i = 1; i <= most; i++) {
		const char *c = t->filler + at + i;
		if (c[-1] == '\n' && i < most && *c != '\n' && *c != ' ' && *c != '\t')
			return at + i;
		if (i < most && *c == ' ')
			space = i;
	}
	return at + (most == MAX_PIECE && space ? space : most);
}

pal_status pal__sample_filler(pal__sample *s, size_t most, const int32_t **ids, size_t *n,
			      pal_error *err)
{
	size_t end = piece_end(s->tasks, s->at);
	pal_free(s->piece);
	s->piece = NULL;
	pal_status status = tokens(s, s->tasks->filler + s->at, end - s->at, 0, &s->piece, n, err);
	if (status)
		return status;
	s->at = end == s->tasks->n_filler ? 0 : end;
	*n = *n < most ? *n : most;
	*ids = s->piece;
	return PAL_OK;
}

pal_status pal__sample_next(pal__sample *s, const int32_t **ids, size_t *n, pal_error *err)
{
	const struct sentence *line = s->next_line < s->n_lines ? &s->lines[s->next_line] : NULL;
	int64_t tail = s->spec.length - (int64_t)s->n_newline, end = line ? line->at : tail;
	pal_status status = PAL_OK;
	if (!s->position && s->has_bos) {
		*ids = &s->bos;
		*n = 1;
	} else if (line && line->at == s->position) {
		*ids = line->ids;
		*n = line->n;
		s->next_line++;
	} else if (s->position < end) {
		status = pal__sample_filler(s, (size_t)(end - s->position), ids, n, err);
	} else {
		*ids = s->newline;
		*n = s->position < s->spec.length ? s->n_newline : 0;
	}
	if (!status)
		s->position += (int64_t)*n;
	return status;
}
