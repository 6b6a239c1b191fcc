#include "eval/workload.h"

#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "base/file.h"
#include "base/mem.h"
#include "text/utf8.h"

static const char *const marks[] = {"=== given\n", "=== reply\n"};

static bool begins(const char *text, size_t n, const char *with)
{
	return n >= strlen(with) && !memcmp(text, with, strlen(with));
}

/* The next line from `at` on that is a mark, or n. */
static size_t next_mark(const char *text, size_t at, size_t n)
{
	while (at < n && !begins(text + at, n - at, marks[0]) &&
	       !begins(text + at, n - at, marks[1])) {
		const char *end = memchr(text + at, '\n', n - at);
		at = end ? (size_t)(end - text) + 1 : n;
	}
	return at;
}

/* Parts of text[n] in turn. turns: NULL to count them only. */
static pal_status split(const char *name, const char *text, size_t n, pal__turn *turns,
			size_t *n_turns, pal_error *err)
{
	size_t part = 0, at = 0;
	for (; at < n; part++) {
		const char *mark = marks[part % 2];
		if (!begins(text + at, n - at, mark))
			return pal__fail(err, PAL_EFORMAT,
					 "%s: part %zu does not begin with the line '%.9s'", name,
					 part + 1, mark);
		size_t from = at + strlen(mark);
		at = next_mark(text, from, n);
		if (at == from)
			return pal__fail(err, PAL_EFORMAT, "%s: part %zu is empty", name, part + 1);
		if (part / 2 == PAL__WORKLOAD_TURNS)
			return pal__fail(err, PAL_ELIMIT, "%s: more than %d turns", name,
					 PAL__WORKLOAD_TURNS);
		if (turns && part % 2) {
			turns[part / 2].reply = text + from;
			turns[part / 2].n_reply = at - from;
		} else if (turns) {
			turns[part / 2].given = text + from;
			turns[part / 2].n_given = at - from;
		}
	}
	*n_turns = part / 2;
	return part && part % 2 == 0
		       ? PAL_OK
		       : pal__fail(err, PAL_EFORMAT, "%s: it does not end with a reply", name);
}

pal_status pal__workload_parse(const char *name, const char *text, size_t n, pal__workload *out,
			       pal_error *err)
{
	pal__workload w = {.hash = XXH3_64bits(text, n)};
	snprintf(w.name, sizeof w.name, "%s", name);
	if (n > PAL__WORKLOAD_BYTES)
		return pal__fail(err, PAL_ELIMIT, "%s: %zu bytes: at most %zu are possible", name,
				 n, PAL__WORKLOAD_BYTES);
	if (pal__utf8_valid(text, n) != n)
		return pal__fail(err, PAL_EFORMAT, "%s: it is not UTF-8", name);
	pal_status s = split(name, text, n, NULL, &w.n_turns, err);
	if (s)
		return s;
	w.text = pal__strndup(text, n);
	w.turns = pal__calloc(w.n_turns, sizeof *w.turns);
	if (!w.text || !w.turns)
		s = pal__fail_memory(err, name, n);
	if (!s)
		s = split(name, w.text, n, w.turns, &w.n_turns, err);
	if (s)
		pal__workload_free(&w);
	else
		*out = w;
	return s;
}

pal_status pal__workload_open(const char *path, pal__workload *out, pal_error *err)
{
	const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
	const char *end = strrchr(base, '.');
	char name[sizeof out->name];
	pal__file f;
	snprintf(name, sizeof name, "%.*s", (int)(end && end > base ? end - base : 60), base);
	pal_status s = pal__file_map(path, &f, err);
	if (s)
		return s;
	pal_error why;
	s = pal__workload_parse(name, (const char *)f.data, f.size, out, &why);
	if (s)
		pal__fail(err, s, "%s: %s", path, why.text);
	pal__file_unmap(&f);
	return s;
}

void pal__workload_free(pal__workload *w)
{
	pal__free(w->text);
	pal__free(w->turns);
	*w = (pal__workload){0};
}

/* --- token ids --------------------------------------------------------------------- */

static pal_status add_part(pal__script *s, size_t *cap, size_t part, const pal_model *vocabulary,
			   const char *text, size_t n, pal_error *err)
{
	int32_t *ids;
	size_t n_ids, from = part ? s->ends[part - 1] : 0;
	unsigned flags = PAL_TOKENIZE_SPECIAL | (part ? 0 : PAL_TOKENIZE_ADD);
	pal_status status = pal_tokenize(vocabulary, text, n, flags, &ids, &n_ids, err);
	if (status)
		return status;
	void *items = s->ids;
	if (pal__grow(&items, cap, from + n_ids, sizeof *ids)) {
		s->ids = items;
		memcpy(s->ids + from, ids, n_ids * sizeof *ids);
		s->ends[part] = from + n_ids;
	} else {
		status = pal__fail_memory(err, "token ids", (from + n_ids) * sizeof *ids);
	}
	pal_free(ids);
	return status;
}

pal_status pal__script_new(const pal__workload *w, const pal_model *vocabulary, size_t n_turns,
			   int32_t n_vocab, pal__script *out, pal_error *err)
{
	size_t cap = 0;
	pal__script s = {.n_turns = n_turns && n_turns < w->n_turns ? n_turns : w->n_turns};
	pal_status status = PAL_OK;
	s.ends = pal__calloc(2 * s.n_turns, sizeof *s.ends);
	if (!s.ends)
		status = pal__fail_memory(err, "the ends of parts", 2 * s.n_turns * sizeof *s.ends);
	for (size_t i = 0; i < 2 * s.n_turns && !status; i++) {
		const pal__turn *t = &w->turns[i / 2];
		status = add_part(&s, &cap, i, vocabulary, i % 2 ? t->reply : t->given,
				  i % 2 ? t->n_reply : t->n_given, err);
	}
	for (size_t i = 0; !status && i < s.ends[2 * s.n_turns - 1]; i++)
		if (s.ids[i] >= n_vocab)
			status = pal__fail(err, PAL_EINVAL,
					   "%s has token %d, and the model only %d: a vocabulary "
					   "that is no larger is needed",
					   w->name, s.ids[i], n_vocab);
	if (status)
		pal__script_free(&s);
	else
		*out = s;
	return status;
}

void pal__script_free(pal__script *s)
{
	pal__free(s->ids);
	pal__free(s->ends);
	*s = (pal__script){0};
}
