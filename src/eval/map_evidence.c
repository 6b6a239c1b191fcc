#include "eval/map_evidence.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "eval/evidence.h"
#include "eval/seal.h"
#include "eval/workload.h"

#define MAX_COUNT ((int64_t)1 << 44) /* so that sums of a file's counts fit */

struct workload {
	const char *name;
	int64_t *most; /* [n_turns] tokens of each turn, at most */
	int n_turns;
};

/* The object, read. Texts are the object's. */
struct map {
	const char *file;
	json_t *root;
	const char *drafters[PAL__MAP_LIST], *isas[PAL__MAP_LIST], *modes[PAL__MAP_LIST];
	struct workload workloads[PAL__MAP_LIST];
	int n_drafters, n_isas, n_modes, n_workloads;
	int64_t n_pairs;
	bool replay;
	json_t *figures;
	pal_error *err;
};

/* One drafter's samples of one run, summed up. */
struct cell {
	int64_t tokens, forwards, drafted, accepted, differing; /* differing: turns */
	double plain[PAL__MAP_PAIRS], own[PAL__MAP_PAIRS], ratio[PAL__MAP_PAIRS]; /* tokens/s */
	bool differs;
};

/* Plain decoding of one run. */
struct plain {
	int64_t *n; /* [pairs][n_turns] tokens */
	int64_t tokens[PAL__MAP_PAIRS], ns[PAL__MAP_PAIRS];
	const char *output[PAL__MAP_PAIRS];
};

/* Where in the object: for messages, and what its figures are about. */
struct place {
	const char *isa, *mode, *drafter;
	const struct workload *w;
};

__attribute__((format(printf, 3, 4))) static pal_status
bad(const struct map *m, const struct place *at, const char *format, ...)
{
	char text[300];
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	if (!at)
		return pal__fail(m->err, PAL_EFORMAT, "%s: %s", m->file, text);
	return pal__fail(m->err, PAL_EFORMAT, "%s: %s, %s, %s, %s: %s", m->file, at->isa,
			 at->w->name, at->mode, at->drafter, text);
}

static const char *text_of(const json_t *object, const char *name)
{
	return json_string_value(json_object_get(object, name));
}

static bool is_hash(const char *text)
{
	return text && strlen(text) == 16 && strspn(text, "0123456789abcdef") == 16;
}

static bool is_name(const char *text)
{
	return text && *text && strlen(text) < 256;
}

/* --- parameters -------------------------------------------------------------------- */

static pal_status read_names(const struct map *m, const json_t *p, const char *what,
			     const char **out, int *n)
{
	json_t *list = json_object_get(p, what), *v;
	size_t i;
	if (json_array_size(list) < 1 || json_array_size(list) > PAL__MAP_LIST)
		return bad(m, NULL, "parameters: %s: 1 to %d are wanted", what, PAL__MAP_LIST);
	json_array_foreach(list, i, v)
	{
		const char *name = json_string_value(v);
		bool again = !is_name(name);
		for (int j = 0; j < *n; j++)
			again = again || !strcmp(out[j], name);
		if (again)
			return bad(m, NULL, "parameters: %s: every one needs a name of its own",
				   what);
		out[(*n)++] = name;
	}
	return PAL_OK;
}

/* Tokens of the replies, those of no turn more than `most` (0: all). */
static pal_status read_workload(struct map *m, const json_t *j, int64_t most)
{
	struct workload *w = &m->workloads[m->n_workloads];
	const char *replies = text_of(j, "replies"), *name = text_of(j, "name");
	bool again = !is_name(name) || !is_hash(text_of(j, "hash"));
	for (int i = 0; i < m->n_workloads; i++)
		again = again || !strcmp(m->workloads[i].name, name);
	if (again || !replies)
		return bad(m, NULL,
			   "parameters: workloads: every one needs a name of its own, a hash and "
			   "replies");
	w->name = name;
	w->most = pal__calloc(PAL__WORKLOAD_TURNS, sizeof *w->most);
	m->n_workloads++; /* now it is freed */
	if (!w->most)
		return pal__fail_memory(m->err, "the turns of a workload", 0);
	w->n_turns = pal__evidence_numbers(&replies, w->most, PAL__WORKLOAD_TURNS);
	for (int i = 0; i < w->n_turns; i++) {
		if (w->most[i] > MAX_COUNT)
			return bad(m, NULL, "workload %s: a reply of %" PRId64 " tokens", name,
				   w->most[i]);
		w->most[i] = most && w->most[i] > most ? most : w->most[i];
	}
	if (w->n_turns < 1 || *replies)
		return bad(m, NULL, "workload %s: replies is no list of 1 to %d numbers", name,
			   PAL__WORKLOAD_TURNS);
	return PAL_OK;
}

static pal_status check_modes(const struct map *m)
{
	for (int i = 0; i < m->n_modes; i++) {
		bool replay = !strcmp(m->modes[i], "replay");
		if (replay != m->replay || (!replay && strcmp(m->modes[i], "greedy") != 0 &&
					    strcmp(m->modes[i], "sampled") != 0))
			return bad(m, NULL, "parameters: modes: '%s' is out of place", m->modes[i]);
	}
	return PAL_OK;
}

static pal_status read_head(struct map *m)
{
	json_t *p = json_object_get(m->root, "parameters"), *j, *v;
	const char *format = text_of(m->root, "format"), *seed = text_of(p, "seed");
	size_t i;
	if (!format || strcmp(format, PAL__MAP_FORMAT) != 0)
		return bad(m, NULL, "format is not %s: no evidence of pal map", PAL__MAP_FORMAT);
	if (!json_is_object(json_object_get(m->root, "machine")) ||
	    !json_is_object(json_object_get(m->root, "build")) ||
	    !is_hash(text_of(json_object_get(m->root, "model"), "hash")))
		return bad(m, NULL, "machine, build, or the hash of the model is missing");
	if (!seed || !*seed || strlen(seed) > 20 || strspn(seed, "0123456789") != strlen(seed))
		return bad(m, NULL, "parameters: seed must be a text of digits");
	m->replay = json_is_true(json_object_get(p, "replay"));
	j = json_object_get(p, "pairs");
	m->n_pairs = json_integer_value(j);
	if (!json_is_integer(j) || m->n_pairs < 1 || m->n_pairs > PAL__MAP_PAIRS)
		return bad(m, NULL, "parameters: pairs must be a whole number from 1 to %d",
			   PAL__MAP_PAIRS);
	j = json_object_get(p, "most");
	if (!json_is_integer(j) || json_integer_value(j) < 0)
		return bad(m, NULL, "parameters: most must be a whole number, 0 or more");
	int64_t most = json_integer_value(j);
	pal_status s = read_names(m, p, "drafters", m->drafters, &m->n_drafters);
	if (!s)
		s = read_names(m, p, "isas", m->isas, &m->n_isas);
	if (!s)
		s = read_names(m, p, "modes", m->modes, &m->n_modes);
	if (!s)
		s = check_modes(m);
	j = json_object_get(p, "workloads");
	if (!s && (json_array_size(j) < 1 || json_array_size(j) > PAL__MAP_LIST))
		s = bad(m, NULL, "parameters: workloads: 1 to %d are wanted", PAL__MAP_LIST);
	json_array_foreach(j, i, v) s = s ? s : read_workload(m, v, most);
	return s;
}

/* --- samples ----------------------------------------------------------------------- */

/* The next turn of a text of turns. False: it is not `n` numbers that can be summed up. */
static bool next_turn(const char **text, int64_t *out, int n)
{
	if (!*text || pal__evidence_numbers(text, out, n) != n)
		return false;
	for (int i = 0; i < n; i++)
		if (out[i] > MAX_COUNT)
			return false;
	*text += **text == ';';
	return true;
}

/* Tokens of a turn: as many as the reply has when that is what is replayed, or at most. */
static bool fits(const struct map *m, const struct place *at, int turn, int64_t n)
{
	return n <= at->w->most[turn] && (!m->replay || n == at->w->most[turn]);
}

static pal_status read_plain(const struct map *m, const struct place *at, const json_t *run,
			     struct plain *out)
{
	json_t *pairs = json_object_get(run, "plain");
	if (json_array_size(pairs) != (size_t)m->n_pairs)
		return bad(m, at, "as many pairs as the parameters say are wanted");
	for (int64_t p = 0; p < m->n_pairs; p++) {
		const json_t *pair = json_array_get(pairs, (size_t)p);
		const char *turns = text_of(pair, "turns");
		out->output[p] = text_of(pair, "output");
		if (!is_hash(out->output[p]))
			return bad(m, at, "output must be 16 hexadecimal digits");
		for (int t = 0; t < at->w->n_turns; t++) {
			int64_t x[PAL__MAP_N_PLAIN];
			if (!next_turn(&turns, x, PAL__MAP_N_PLAIN) ||
			    !fits(m, at, t, x[PAL__MAP_PLAIN_N]) || x[PAL__MAP_PLAIN_NS] < 1)
				return bad(m, at, "pair %" PRId64 ": turn %d is not possible",
					   p + 1, t + 1);
			out->n[p * at->w->n_turns + t] = x[PAL__MAP_PLAIN_N];
			out->tokens[p] += x[PAL__MAP_PLAIN_N];
			out->ns[p] += x[PAL__MAP_PLAIN_NS];
		}
		if (*turns)
			return bad(m, at, "pair %" PRId64 ": more turns than the workload has",
				   p + 1);
	}
	return PAL_OK;
}

/* Whether the numbers of a turn can be: a forward gives a token and those accepted with it. */
static bool possible(const struct map *m, const struct place *at, int turn, const int64_t *x,
		     int64_t plain_n)
{
	int64_t n = x[PAL__MAP_N], forwards = x[PAL__MAP_FORWARDS];
	bool none = !strcmp(at->drafter, "none");
	return fits(m, at, turn, n) && x[PAL__MAP_NS] > 0 && x[PAL__MAP_SAME] <= n &&
	       x[PAL__MAP_SAME] <= plain_n && x[PAL__MAP_ACCEPTED] <= x[PAL__MAP_DRAFTED] &&
	       forwards <= n && forwards + x[PAL__MAP_ACCEPTED] >= n &&
	       (!none || (forwards == n && !x[PAL__MAP_DRAFTED]));
}

static pal_status read_pair(const struct map *m, const struct place *at, const json_t *pair,
			    const struct plain *plain, int64_t p, struct cell *c)
{
	const char *turns = text_of(pair, "turns"), *output = text_of(pair, "output");
	int64_t tokens = 0, ns = 0, differing = 0;
	if (!is_hash(output))
		return bad(m, at, "output must be 16 hexadecimal digits");
	for (int t = 0; t < at->w->n_turns; t++) {
		int64_t x[PAL__MAP_N_DRAFTED], n = plain->n[p * at->w->n_turns + t];
		if (!next_turn(&turns, x, PAL__MAP_N_DRAFTED) || !possible(m, at, t, x, n))
			return bad(m, at, "pair %" PRId64 ": turn %d is not possible", p + 1,
				   t + 1);
		differing += x[PAL__MAP_SAME] != n || x[PAL__MAP_N] != n;
		tokens += x[PAL__MAP_N];
		ns += x[PAL__MAP_NS];
		c->forwards += x[PAL__MAP_FORWARDS];
		c->drafted += x[PAL__MAP_DRAFTED];
		c->accepted += x[PAL__MAP_ACCEPTED];
	}
	if (*turns)
		return bad(m, at, "pair %" PRId64 ": more turns than the workload has", p + 1);
	if ((differing == 0) != !strcmp(output, plain->output[p]))
		return bad(m, at,
			   "pair %" PRId64 ": the hash of the output says one thing, and the turns "
			   "another",
			   p + 1);
	c->tokens += tokens;
	c->differing += differing;
	c->plain[p] = (double)plain->tokens[p] / (double)plain->ns[p] * 1e9;
	c->own[p] = (double)tokens / (double)ns * 1e9;
	c->ratio[p] = plain->tokens[p] ? c->own[p] / c->plain[p] : 1;
	return PAL_OK;
}

/* Whether a source's counts can be: of what, so many at most. */
static bool source_counts(const json_t *source, const char *what, const char *of)
{
	json_t *part = json_object_get(source, what), *all = json_object_get(source, of);
	return json_is_integer(part) && json_is_integer(all) && json_integer_value(part) >= 0 &&
	       json_integer_value(part) <= json_integer_value(all);
}

/* What a source did, as its drafter counted: nothing follows from it, but it must be possible. */
static pal_status check_sources(const struct map *m, const struct place *at, const json_t *own)
{
	json_t *sources = json_object_get(own, "sources"), *one;
	size_t i;
	json_array_foreach(sources, i, one)
	{
		json_t *seconds = json_object_get(one, "seconds");
		if (!is_name(text_of(one, "name")) || !json_is_number(seconds) ||
		    json_number_value(seconds) < 0 || !source_counts(one, "accepted", "drafted") ||
		    !source_counts(one, "right", "guessed"))
			return bad(m, at, "source %zu is not possible", i + 1);
	}
	return PAL_OK;
}

/* --- figures ------------------------------------------------------------------------ */

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

/* Sorts x[n]; its median. */
static double median(double *x, int64_t n)
{
	qsort(x, (size_t)n, sizeof *x, ascending);
	return n % 2 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}

static const char *verdict(const struct cell *c, int64_t n_pairs)
{
	if (c->differs)
		return "differs";
	if (!c->tokens)
		return "empty";
	if (c->ratio[0] >= PAL__MAP_PAYS)
		return "pays";
	return c->ratio[n_pairs - 1] * PAL__MAP_PAYS <= 1 ? "costs" : "even";
}

/* The pairs repeat one text, so that the interval is that of as many drafts as one pair has. */
static pal_status add_figure(const struct map *m, const struct place *at, struct cell *c)
{
	double low, high, plain = median(c->plain, m->n_pairs), own = median(c->own, m->n_pairs);
	double ratio = median(c->ratio, m->n_pairs);
	pal__wilson(c->accepted / m->n_pairs, c->drafted / m->n_pairs, &low, &high);
	json_t *one = json_pack(
		"{s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, "
		"s:f, s:I, s:s}",
		"isa", at->isa, "workload", at->w->name, "mode", at->mode, "drafter", at->drafter,
		"tokens", (json_int_t)c->tokens, "forwards", (json_int_t)c->forwards, "drafted",
		(json_int_t)c->drafted, "accepted", (json_int_t)c->accepted, "acceptance",
		c->drafted ? (double)c->accepted / (double)c->drafted : 0, "low", low, "high", high,
		"tokens_per_forward", c->forwards ? (double)c->tokens / (double)c->forwards : 0,
		"plain_tok_s", plain, "tok_s", own, "speedup", ratio, "speedup_low", c->ratio[0],
		"speedup_high", c->ratio[m->n_pairs - 1], "differing", (json_int_t)c->differing,
		"verdict", verdict(c, m->n_pairs));
	return json_array_append_new(m->figures, one) == 0
		       ? PAL_OK
		       : pal__fail_memory(m->err, "the figures", 0);
}

static pal_status read_drafter(const struct map *m, const struct place *at, const json_t *own,
			       const struct plain *plain, bool differs)
{
	struct cell c = {.differs = differs};
	const json_t *pairs = json_object_get(own, "pairs");
	const char *name = text_of(own, "drafter");
	if (!name || strcmp(name, at->drafter) != 0)
		return bad(m, at, "it is not where the parameters say");
	if (json_array_size(pairs) != (size_t)m->n_pairs)
		return bad(m, at, "as many pairs as the parameters say are wanted");
	pal_status s = check_sources(m, at, own);
	for (int64_t p = 0; p < m->n_pairs && !s; p++)
		s = read_pair(m, at, json_array_get(pairs, (size_t)p), plain, p, &c);
	c.differs |= c.differing > 0;
	return s ? s : add_figure(m, at, &c);
}

/* The output that plain decoding gave first for a workload and mode: on any instruction set and
 * in any pair it must be the same. */
static const char *first_output(const struct map *m, size_t run)
{
	size_t each = (size_t)(m->n_workloads * m->n_modes);
	const json_t *first = json_array_get(json_object_get(m->root, "runs"), run % each);
	const char *output = text_of(json_array_get(json_object_get(first, "plain"), 0), "output");
	return output ? output : "";
}

static pal_status read_run(const struct map *m, size_t index, const json_t *run)
{
	size_t modes = (size_t)m->n_modes, workloads = (size_t)m->n_workloads;
	struct place at = {.isa = m->isas[index / modes / workloads],
			   .mode = m->modes[index % modes],
			   .drafter = "plain",
			   .w = &m->workloads[index / modes % workloads]};
	const char *isa = text_of(run, "isa"), *mode = text_of(run, "mode");
	const char *workload = text_of(run, "workload");
	json_t *drafted = json_object_get(run, "drafted");
	struct plain plain = {0};
	bool differs = false;
	if (!isa || !mode || !workload || strcmp(isa, at.isa) != 0 || strcmp(mode, at.mode) != 0 ||
	    strcmp(workload, at.w->name) != 0 || json_array_size(drafted) != (size_t)m->n_drafters)
		return bad(m, &at, "it is not where the parameters say");
	plain.n = pal__calloc((size_t)(m->n_pairs * at.w->n_turns), sizeof *plain.n);
	if (!plain.n)
		return pal__fail_memory(m->err, "the figures", 0);
	pal_status s = read_plain(m, &at, run, &plain);
	for (int64_t p = 0; p < m->n_pairs && !s; p++)
		differs |= strcmp(plain.output[p], first_output(m, index)) != 0;
	for (int d = 0; d < m->n_drafters && !s; d++) {
		at.drafter = m->drafters[d];
		s = read_drafter(m, &at, json_array_get(drafted, (size_t)d), &plain, differs);
	}
	pal__free(plain.n);
	return s;
}

/* Reads all of it, and computes figures. */
static pal_status read_all(struct map *m)
{
	json_t *runs = json_object_get(m->root, "runs"), *run;
	size_t i;
	pal_status s = json_is_object(m->root) ? read_head(m) : bad(m, NULL, "not a JSON object");
	size_t wanted = (size_t)(m->n_isas * m->n_workloads * m->n_modes);
	if (!s && json_array_size(runs) != wanted)
		s = bad(m, NULL, "runs: %zu are wanted, one of each workload and mode", wanted);
	m->figures = json_array();
	if (!s && !m->figures)
		s = pal__fail_memory(m->err, "the figures", 0);
	json_array_foreach(runs, i, run) s = s ? s : read_run(m, i, run);
	for (int w = 0; w < m->n_workloads; w++)
		pal__free(m->workloads[w].most);
	return s;
}

pal_status pal__map_finish(json_t *evidence, pal_error *err)
{
	struct map m = {.file = "the evidence", .root = evidence, .err = err};
	pal_status s = read_all(&m);
	if (s)
		json_decref(m.figures);
	else if (json_object_set_new(evidence, "figures", m.figures) != 0)
		s = pal__fail_memory(err, "the figures", 0);
	return s ? s : pal__seal(evidence, err);
}

pal_status pal__map_check(const char *name, json_t *evidence, pal_error *err)
{
	struct map m = {.file = name, .root = evidence, .err = err};
	json_t *have = json_object_get(evidence, "figures"), *one;
	size_t i;
	pal_status s = read_all(&m);
	if (!s && json_array_size(have) != json_array_size(m.figures))
		s = bad(&m, NULL, "figures: %zu are wanted", json_array_size(m.figures));
	json_array_foreach(m.figures, i, one)
	{
		if (s || json_equal(one, json_array_get(have, i)))
			continue;
		s = bad(&m, NULL, "figures: %s, %s, %s, %s is not what the samples give",
			text_of(one, "isa"), text_of(one, "workload"), text_of(one, "mode"),
			text_of(one, "drafter"));
	}
	json_decref(m.figures);
	return s ? s : pal__seal_check(name, evidence, err);
}

int pal__map_differing(const json_t *evidence)
{
	json_t *one;
	size_t i;
	int n = 0;
	json_array_foreach(json_object_get(evidence, "figures"), i, one) n +=
		!strcmp(text_of(one, "verdict"), "differs");
	return n;
}
