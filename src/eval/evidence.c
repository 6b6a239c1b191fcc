#include "eval/evidence.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "eval/seal.h"

#define MAX_WHOLE ((int64_t)1 << 53)
#define MAX_LIVE ((int64_t)1 << 40) /* so that sums of a file's counts fit */
#define TURNS "turns"               /* the kind of questions over one growing session */

struct cell {
	int64_t n, hits, chunks, far_reads, fallbacks, found, us;
	int64_t evicted_min, dead; /* dead: right without a chunk, or a read of one */
};

struct arm {
	const char *name, *policy, *source, *selection, *control, *of; /* control, of: or NULL */
};

/* The object, read: what the tables below are about. Texts are the object's. */
struct evidence {
	const char *file;
	json_t *root;
	struct arm arms[PAL__EVIDENCE_ARMS];
	const char *kinds[PAL__EVIDENCE_KINDS];
	int64_t lengths[PAL__EVIDENCE_LENGTHS];
	int n_arms, n_kinds, n_lengths; /* the last kind is TURNS */
	int64_t n_vocab, questions, turns, oracle_max, sink, window, n_ctx_train, chunk_bytes,
		restored_max;
	bool exact_full_layers;
	struct cell *cells; /* [n_arms][n_kinds][n_lengths] */
	pal_error *err;
};

static struct cell *cell(const struct evidence *e, int arm, int kind, int length)
{
	return &e->cells[(arm * e->n_kinds + kind) * e->n_lengths + length];
}

__attribute__((format(printf, 2, 3))) static pal_status bad(const struct evidence *e,
							    const char *format, ...)
{
	char text[400];
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	return pal__fail(e->err, PAL_EFORMAT, "%s: %s", e->file, text);
}

void pal__wilson(int64_t hits, int64_t n, double *low, double *high)
{
	const double z = 1.959963984540054;
	*low = 0;
	*high = 1;
	if (n <= 0)
		return;
	double p = (double)hits / (double)n, of = 1 + z * z / (double)n;
	double middle = (p + z * z / (2 * (double)n)) / of;
	double half = z * sqrt(p * (1 - p) / (double)n + z * z / (4 * (double)n * (double)n)) / of;
	*low = hits ? middle - half : 0;
	*high = hits < n ? middle + half : 1;
}

int pal__evidence_numbers(const char **text, int64_t *out, int most)
{
	int n = 0;
	const char *at = *text;
	while (*at && *at != ';') {
		int64_t v = 0;
		if (n == most || *at < '0' || *at > '9')
			return -1;
		for (; *at >= '0' && *at <= '9'; at++) {
			v = v * 10 + (*at - '0');
			if (v > MAX_WHOLE)
				return -1;
		}
		if (*at == ' ' && at[1] >= '0' && at[1] <= '9')
			at++;
		else if (*at && *at != ';')
			return -1;
		out[n++] = v;
	}
	*text = at;
	return n;
}

/* --- reading ---------------------------------------------------------------------- */

static pal_status whole(const struct evidence *e, const json_t *object, const char *where,
			const char *name, int64_t least, int64_t most, int64_t *out)
{
	json_t *j = json_object_get(object, name);
	*out = 0;
	if (!json_is_integer(j) || json_integer_value(j) < least || json_integer_value(j) > most)
		return bad(e, "%s: %s must be a whole number from %" PRId64 " to %" PRId64, where,
			   name, least, most);
	*out = json_integer_value(j);
	return PAL_OK;
}

static const char *text_of(const json_t *object, const char *name)
{
	return json_string_value(json_object_get(object, name));
}

static bool is_hash(const char *text)
{
	return text && strlen(text) == 16 && strspn(text, "0123456789abcdef") == 16 &&
	       strcmp(text, "0000000000000000") != 0;
}

static int find_kind(const struct evidence *e, const char *name)
{
	for (int i = 0; i < e->n_kinds; i++)
		if (name && !strcmp(e->kinds[i], name))
			return i;
	return -1;
}

static int find_arm(const struct evidence *e, const char *name)
{
	for (int i = 0; i < e->n_arms; i++)
		if (name && !strcmp(e->arms[i].name, name))
			return i;
	return -1;
}

static int find_length(const struct evidence *e, int64_t length)
{
	for (int i = 0; i < e->n_lengths; i++)
		if (e->lengths[i] == length)
			return i;
	return -1;
}

static bool is_policy(const struct arm *a, const char *policy)
{
	return !strcmp(a->policy, policy);
}

static bool one_of(const char *text, const char *const *all)
{
	for (; *all; all++)
		if (text && !strcmp(text, *all))
			return true;
	return false;
}

static pal_status read_arm(struct evidence *e, const json_t *j)
{
	static const char *const policies[] = {"full", "window", "restored", NULL};
	static const char *const sources[] = {
		"none",          "recompute", "spill-f16", "spill-int8",
		"spill-affine4", "hidden",    "project",   NULL};
	static const char *const selections[] = {"default", "oracle", "random",
						 "lexical", "both",   NULL};
	static const char *const positions[] = {"compact", "original", NULL};
	static const char *const controls[] = {"zero",   "shuffle", "other", "random-projection",
					       "random", "empty",   NULL};
	struct arm a = {.name = text_of(j, "name"),
			.policy = text_of(j, "policy"),
			.source = text_of(j, "source"),
			.selection = text_of(j, "selection"),
			.control = text_of(j, "control"),
			.of = text_of(j, "of")};
	if (!a.name || strlen(a.name) > 63 || find_arm(e, a.name) >= 0)
		return bad(e, "arms: every arm needs a name of its own");
	if (!one_of(a.policy, policies) || !one_of(a.source, sources) ||
	    !one_of(a.selection, selections) || !one_of(text_of(j, "positions"), positions))
		return bad(e, "arm %s: policy, source, selection or positions is not one there is",
			   a.name);
	if (is_policy(&a, "restored") != (strcmp(a.source, "none") != 0))
		return bad(e, "arm %s: %s with source %s", a.name, a.policy, a.source);
	int of = find_arm(e, a.of);
	if ((a.control || a.of) &&
	    (!one_of(a.control, controls) || of < 0 || e->arms[of].control ||
	     !is_policy(&e->arms[of], "restored") || strcmp(e->arms[of].source, a.source) != 0))
		return bad(e, "arm %s: a control must be one of another arm, given before it",
			   a.name);
	e->arms[e->n_arms++] = a;
	return PAL_OK;
}

static pal_status read_lists(struct evidence *e, const json_t *p)
{
	json_t *kinds = json_object_get(p, "kinds"), *lengths = json_object_get(p, "lengths"), *v;
	json_t *arms = json_object_get(e->root, "arms");
	size_t i, n = json_array_size(arms);
	pal_status s = PAL_OK;
	if (json_array_size(kinds) < 1 || json_array_size(kinds) >= PAL__EVIDENCE_KINDS)
		return bad(e, "parameters: kinds: 1 to %d are wanted", PAL__EVIDENCE_KINDS - 1);
	json_array_foreach(kinds, i, v)
	{
		const char *name = json_string_value(v);
		if (!name || !*name || strlen(name) > 63 || !strcmp(name, TURNS) ||
		    find_kind(e, name) >= 0)
			return bad(e, "parameters: kinds: every kind needs a name of its own");
		e->kinds[e->n_kinds++] = name;
	}
	e->kinds[e->n_kinds++] = TURNS;
	if (json_array_size(lengths) < 1 || json_array_size(lengths) > PAL__EVIDENCE_LENGTHS)
		return bad(e, "parameters: lengths: 1 to %d are wanted", PAL__EVIDENCE_LENGTHS);
	json_array_foreach(lengths, i, v)
	{
		int64_t length = json_integer_value(v);
		if (length < 1 || length > PAL_MAX_LOG || (i && length <= e->lengths[i - 1]))
			return bad(e, "parameters: lengths must be ascending");
		e->lengths[e->n_lengths++] = length;
	}
	if (n < 1 || n > PAL__EVIDENCE_ARMS)
		return bad(e, "arms: 1 to %d are wanted", PAL__EVIDENCE_ARMS);
	for (i = 0; i < n && !s; i++)
		s = read_arm(e, json_array_get(arms, i));
	if (s)
		return s;
	if (find_arm(e, "oracle") < 0 || !is_policy(&e->arms[find_arm(e, "oracle")], "full"))
		return bad(e, "arms: the arm oracle, with full K/V, is missing");
	if (find_arm(e, "window") < 0 || !is_policy(&e->arms[find_arm(e, "window")], "window"))
		return bad(e, "arms: the arm window, without restoration, is missing");
	return PAL_OK;
}

static pal_status read_head(struct evidence *e)
{
	json_t *p = json_object_get(e->root, "parameters"),
	       *model = json_object_get(e->root, "model");
	const char *format = text_of(e->root, "format"), *seed = text_of(p, "seed");
	if (!format || strcmp(format, PAL__EVIDENCE_FORMAT) != 0)
		return bad(e, "format is not %s: no evidence of pal recall", PAL__EVIDENCE_FORMAT);
	if (!json_is_object(json_object_get(e->root, "machine")) ||
	    !json_is_object(json_object_get(e->root, "build")))
		return bad(e, "machine or build is missing");
	if (!is_hash(text_of(model, "hash")))
		return bad(e, "model: hash must be 16 hexadecimal digits, not all 0");
	if (!is_hash(text_of(p, "tasks_hash")) || !is_hash(text_of(p, "filler_hash")))
		return bad(e,
			   "parameters: tasks_hash and filler_hash must be 16 hexadecimal digits");
	if (!seed || !*seed || strlen(seed) > 20 || strspn(seed, "0123456789") != strlen(seed))
		return bad(e, "parameters: seed must be a text of digits");
	if (!json_is_boolean(json_object_get(p, "exact_full_layers")))
		return bad(e, "parameters: exact_full_layers must be true or false");
	e->exact_full_layers = json_is_true(json_object_get(p, "exact_full_layers"));
	const struct {
		const json_t *object;
		const char *where, *name;
		int64_t least, most, *out;
	} numbers[] = {
		{model, "model", "n_vocab", 1, INT32_MAX, &e->n_vocab},
		{p, "parameters", "n_ctx_train", 0, MAX_WHOLE, &e->n_ctx_train},
		{p, "parameters", "questions", 1, 1 << 20, &e->questions},
		{p, "parameters", "turns", 0, 1 << 20, &e->turns},
		{p, "parameters", "oracle_max", 0, MAX_WHOLE, &e->oracle_max},
		{p, "parameters", "sink", 0, MAX_WHOLE, &e->sink},
		{p, "parameters", "window", 1, MAX_WHOLE, &e->window},
		{p, "parameters", "chunk_bytes", 1, 1 << 30, &e->chunk_bytes},
		{p, "parameters", "restored_max", 0, MAX_WHOLE, &e->restored_max},
	};
	for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
		pal_status s = whole(e, numbers[i].object, numbers[i].where, numbers[i].name,
				     numbers[i].least, numbers[i].most, numbers[i].out);
		if (s)
			return s;
	}
	return read_lists(e, p);
}

/* --- samples ---------------------------------------------------------------------- */

struct log {
	json_t *j;
	char where[64];
	const char *hash;
	int64_t length, evict_from, evict_to; /* needles lie in [evict_from, evict_to) */
	int length_index;
	bool turns;
};

static pal_status read_needles(const struct evidence *e, const struct log *l, const json_t *q)
{
	json_t *needles = json_object_get(q, "needles");
	size_t n = json_array_size(needles);
	if (n < 1 || n > 16)
		return bad(e, "%s: a question without places of its fact", l->where);
	for (size_t i = 0; i < n; i++) {
		json_t *one = json_array_get(needles, i);
		json_t *from = json_array_get(one, 0), *to = json_array_get(one, 1);
		int64_t begin = json_integer_value(from), end = json_integer_value(to);
		if (!json_is_integer(from) || !json_is_integer(to) || begin >= end ||
		    begin < l->evict_from || end > l->evict_to)
			return bad(e,
				   "%s: a fact at %" PRId64 " to %" PRId64
				   " is not out of sight of a window of %" PRId64,
				   l->where, begin, end, e->window);
	}
	return PAL_OK;
}

static int read_ids(const struct evidence *e, const char **text, int64_t *ids)
{
	int n = pal__evidence_numbers(text, ids, PAL__EVIDENCE_LIST);
	for (int i = 0; i < n; i++)
		if (ids[i] >= e->n_vocab)
			return -1;
	return n;
}

/* The questions of a log: possible, and none of them twice (but once in turns). */
static pal_status read_questions(const struct evidence *e, const struct log *l)
{
	json_t *questions = json_object_get(l->j, "questions"), *q, *seen = json_object();
	size_t i;
	pal_status s = PAL_OK;
	if (!seen)
		return pal__fail_memory(e->err, "the questions of a log", 0);
	json_array_foreach(questions, i, q)
	{
		int64_t ids[PAL__EVIDENCE_LIST];
		const char *expect = text_of(q, "expect"), *at = expect;
		int kind = find_kind(e, text_of(q, "kind"));
		char place[24]; /* of its first sentence; no two facts are at one place */
		json_t *first = json_array_get(json_object_get(q, "needles"), 0);
		snprintf(place, sizeof place, "%" PRId64,
			 (int64_t)json_integer_value(json_array_get(first, 0)));
		json_int_t times = json_integer_value(json_object_get(seen, place)) + 1;
		if (kind < 0 || !strcmp(e->kinds[kind], TURNS))
			s = bad(e, "%s: question %zu is of no kind of the parameters", l->where, i);
		else if (!expect || read_ids(e, &at, ids) < 1 || *at)
			s = bad(e, "%s: question %zu expects no list of token ids", l->where, i);
		else if (times > (l->turns ? 2 : 1))
			s = bad(e, "%s: question %zu is there already: a duplicate", l->where, i);
		else
			s = read_needles(e, l, q);
		if (!s && json_object_set_new(seen, place, json_integer(times)) != 0)
			s = pal__fail_memory(e->err, "the questions of a log", 0);
		if (s)
			break;
	}
	json_decref(seen);
	return s;
}

/* Whether what an arm says of one question can be. */
static pal_status check_live(const struct evidence *e, const struct log *l, const struct arm *a,
			     size_t i, const int64_t *live)
{
	bool restores = is_policy(a, "restored"), full = is_policy(a, "full");
	for (int j = 0; j < PAL__N_LIVE; j++)
		if (live[j] > MAX_LIVE)
			return bad(e, "%s, arm %s: question %zu: impossible counts", l->where,
				   a->name, i);
	if (live[PAL__LIVE_EVICTED] > l->length + (l->turns ? 1 << 20 : 4096) ||
	    live[PAL__LIVE_FOUND] > 1 || live[PAL__LIVE_CHUNKS] > 1 << 20)
		return bad(e, "%s, arm %s: question %zu: impossible counts", l->where, a->name, i);
	if (full && live[PAL__LIVE_EVICTED])
		return bad(e, "%s, arm %s: question %zu: full K/V that evicts", l->where, a->name,
			   i);
	if (!restores && (live[PAL__LIVE_CHUNKS] || live[PAL__LIVE_FAR_READS] ||
			  live[PAL__LIVE_FOUND] || live[PAL__LIVE_FALLBACKS]))
		return bad(e, "%s, arm %s: question %zu: restores although it must not", l->where,
			   a->name, i);
	if (live[PAL__LIVE_CHUNKS] && !live[PAL__LIVE_EVICTED])
		return bad(e, "%s, arm %s: question %zu: restores what was never evicted", l->where,
			   a->name, i);
	if ((live[PAL__LIVE_FOUND] || live[PAL__LIVE_FAR_READS]) && !live[PAL__LIVE_CHUNKS] &&
	    !l->turns)
		return bad(e, "%s, arm %s: question %zu: reads or found without a chunk restored",
			   l->where, a->name, i);
	return PAL_OK;
}

static void count(struct cell *c, const int64_t *live, bool hit, bool turns)
{
	c->evicted_min = c->n && c->evicted_min < live[PAL__LIVE_EVICTED] ? c->evicted_min
									  : live[PAL__LIVE_EVICTED];
	c->n++;
	c->hits += hit;
	c->chunks += live[PAL__LIVE_CHUNKS];
	c->far_reads += live[PAL__LIVE_FAR_READS];
	c->fallbacks += live[PAL__LIVE_FALLBACKS];
	c->found += live[PAL__LIVE_FOUND];
	c->us += live[PAL__LIVE_US];
	/* In turns, what was restored for the last question may do for the next. */
	c->dead += hit && (!live[PAL__LIVE_FAR_READS] || (!turns && !live[PAL__LIVE_CHUNKS]));
}

static pal_status read_answers(const struct evidence *e, const struct log *l, const json_t *run,
			       int arm)
{
	const struct arm *a = &e->arms[arm];
	const char *answers = text_of(run, "answers"), *lives = text_of(run, "live");
	json_t *questions = json_object_get(l->j, "questions"), *q;
	size_t i;
	json_array_foreach(questions, i, q)
	{
		int64_t ids[PAL__EVIDENCE_LIST], expect[PAL__EVIDENCE_LIST], live[PAL__N_LIVE];
		const char *wanted = text_of(q, "expect");
		int n = read_ids(e, &answers, ids), n_expect = read_ids(e, &wanted, expect);
		if (n < 0 || n != n_expect ||
		    pal__evidence_numbers(&lives, live, PAL__N_LIVE) != PAL__N_LIVE)
			return bad(e,
				   "%s, arm %s: question %zu: answers and live need %d ids and %d "
				   "counts for each question",
				   l->where, a->name, i, n_expect, PAL__N_LIVE);
		pal_status s = check_live(e, l, a, i, live);
		if (s)
			return s;
		answers += *answers == ';';
		lives += *lives == ';';
		const char *kind = l->turns ? TURNS : text_of(q, "kind");
		count(cell(e, arm, find_kind(e, kind), l->length_index), live,
		      !memcmp(ids, expect, (size_t)n * sizeof *ids), l->turns);
	}
	if (*answers || *lives)
		return bad(e, "%s, arm %s: more answers than questions", l->where, a->name);
	return PAL_OK;
}

/* Whether an arm may be there for a log. Where it may it must, but for controls: enough is enough
 * (check_counts). */
static bool may_run(const struct evidence *e, const struct log *l, int arm)
{
	const struct arm *a = &e->arms[arm];
	if (l->turns && (a->control || strcmp(a->selection, "default") != 0))
		return false;
	return !is_policy(a, "full") || l->length <= e->oracle_max;
}

static pal_status read_runs(const struct evidence *e, const struct log *l)
{
	json_t *runs = json_object_get(l->j, "runs"), *run;
	bool seen[PAL__EVIDENCE_ARMS] = {false};
	size_t i;
	json_array_foreach(runs, i, run)
	{
		int arm = find_arm(e, text_of(run, "arm"));
		const char *hash = text_of(run, "log");
		int64_t kv, peak, rss;
		if (arm < 0 || seen[arm] || !may_run(e, l, arm))
			return bad(e,
				   "%s: a run of no arm, of one that ran already, or out of place",
				   l->where);
		seen[arm] = true;
		if (!is_hash(hash) || strcmp(hash, l->hash) != 0)
			return bad(e, "%s, arm %s: it read another log than the others", l->where,
				   e->arms[arm].name);
		if (!text_of(run, "answers") || !text_of(run, "live"))
			return bad(e, "%s, arm %s: answers or live is missing", l->where,
				   e->arms[arm].name);
		pal_status s = whole(e, run, l->where, "kv_bytes", 1, MAX_WHOLE, &kv);
		if (!s)
			s = whole(e, run, l->where, "rss_bytes", 0, MAX_WHOLE, &rss);
		if (!s)
			s = whole(e, run, l->where, "peak_bytes", 0, MAX_WHOLE, &peak);
		if (!s)
			s = read_answers(e, l, run, arm);
		if (s)
			return s;
	}
	for (int arm = 0; arm < e->n_arms; arm++)
		if (!seen[arm] && !e->arms[arm].control && may_run(e, l, arm))
			return bad(e, "%s: arm %s is missing", l->where, e->arms[arm].name);
	return PAL_OK;
}

static pal_status read_log(const struct evidence *e, json_t *j, size_t index, json_t *hashes)
{
	struct log l = {.j = j, .hash = text_of(j, "hash")};
	snprintf(l.where, sizeof l.where, "log %zu", index);
	if (!is_hash(l.hash))
		return bad(e, "%s: hash must be 16 hexadecimal digits", l.where);
	if (json_object_get(hashes, l.hash))
		return bad(e, "%s: the same log twice", l.where);
	if (json_object_set_new(hashes, l.hash, json_true()) != 0)
		return pal__fail_memory(e->err, "the logs", 0);
	l.turns = json_is_true(json_object_get(j, TURNS));
	pal_status s = whole(e, j, l.where, "length", 1, PAL_MAX_LOG, &l.length);
	if (s)
		return s;
	l.length_index = find_length(e, l.length);
	if (l.length_index < 0)
		return bad(e, "%s: length %" PRId64 " is not one of the parameters", l.where,
			   l.length);
	l.evict_from = e->sink;
	l.evict_to = l.length - e->window;
	if (json_array_size(json_object_get(j, "questions")) < 1)
		return bad(e, "%s: no questions", l.where);
	s = read_questions(e, &l);
	return s ? s : read_runs(e, &l);
}

/* Samples of text: counts that can be. */
static pal_status check_text(const struct evidence *e)
{
	json_t *sample, *run;
	size_t i, j;
	json_array_foreach(json_object_get(e->root, "text"), i, sample)
	{
		int64_t n, agree;
		pal_status s = whole(e, sample, "text", "n", 1, 1 << 20, &n);
		if (s)
			return s;
		if (find_length(e, json_integer_value(json_object_get(sample, "length"))) < 0)
			return bad(e, "text: sample %zu is of no length of the parameters", i);
		json_array_foreach(json_object_get(sample, "runs"), j, run)
		{
			json_t *kl = json_object_get(run, "kl");
			s = whole(e, run, "text", "agree", 0, n, &agree);
			if (s)
				return s;
			if (find_arm(e, text_of(run, "arm")) < 0 || !json_is_number(kl) ||
			    json_number_value(kl) < 0)
				return bad(e, "text: sample %zu: a run of no arm, or a negative kl",
					   i);
		}
	}
	return PAL_OK;
}

/* The figures of all kinds but turns together. */
static struct cell pooled(const struct evidence *e, int arm, int length)
{
	struct cell sum = {0};
	for (int k = 0; k + 1 < e->n_kinds; k++) {
		sum.n += cell(e, arm, k, length)->n;
		sum.hits += cell(e, arm, k, length)->hits;
	}
	return sum;
}

/* As many questions of each kind as the parameters say, at each length; of controls as many as
 * a verdict needs, if there are so many. */
static pal_status check_counts(const struct evidence *e)
{
	int window = find_arm(e, "window");
	for (int k = 0; k < e->n_kinds; k++)
		for (int l = 0; l < e->n_lengths; l++) {
			bool turns = k == e->n_kinds - 1;
			int64_t n = cell(e, window, k, l)->n;
			int64_t least = turns ? (l ? 0 : e->turns) : e->questions;
			if (n < least)
				return bad(e,
					   "%s at %" PRId64 ": %" PRId64
					   " questions, where the parameters "
					   "say %" PRId64,
					   e->kinds[k], e->lengths[l], n, least);
		}
	for (int a = 0; a < e->n_arms; a++)
		for (int l = 0; l < e->n_lengths && e->arms[a].control; l++) {
			int64_t n = pooled(e, a, l).n, all = pooled(e, window, l).n;
			int64_t least = all < PAL__EVIDENCE_MIN ? all : PAL__EVIDENCE_MIN;
			if (n < least)
				return bad(e,
					   "arm %s at %" PRId64 ": %" PRId64
					   " questions of %" PRId64,
					   e->arms[a].name, e->lengths[l], n, least);
		}
	return PAL_OK;
}

static pal_status read_logs(struct evidence *e)
{
	json_t *logs = json_object_get(e->root, "logs"), *j, *hashes = json_object();
	size_t i;
	pal_status s = PAL_OK;
	e->cells = pal__calloc((size_t)(e->n_arms * e->n_kinds * e->n_lengths), sizeof *e->cells);
	if (!hashes || !e->cells)
		s = pal__fail_memory(e->err, "the figures", 0);
	json_array_foreach(logs, i, j)
	{
		s = s ? s : read_log(e, j, i, hashes);
		if (s)
			break;
	}
	json_decref(hashes);
	return s ? s : check_counts(e);
}

/* --- figures ------------------------------------------------------------------------ */

static json_t *figures(const struct evidence *e)
{
	json_t *all = json_array();
	for (int a = 0; a < e->n_arms; a++)
		for (int k = 0; k < e->n_kinds; k++)
			for (int l = 0; l < e->n_lengths; l++) {
				const struct cell *c = cell(e, a, k, l);
				double low, high;
				if (!c->n)
					continue;
				pal__wilson(c->hits, c->n, &low, &high);
				json_t *one = json_pack(
					"{s:s, s:s, s:I, s:I, s:I, s:f, s:f, s:f, s:I, s:I, s:I, "
					"s:I, "
					"s:I, s:I, s:I}",
					"arm", e->arms[a].name, "kind", e->kinds[k], "length",
					(json_int_t)e->lengths[l], "n", (json_int_t)c->n, "hits",
					(json_int_t)c->hits, "recall",
					(double)c->hits / (double)c->n, "low", low, "high", high,
					"evicted_min", (json_int_t)c->evicted_min, "chunks",
					(json_int_t)c->chunks, "bytes",
					(json_int_t)(c->chunks * e->chunk_bytes), "far_reads",
					(json_int_t)c->far_reads, "fallbacks",
					(json_int_t)c->fallbacks, "found", (json_int_t)c->found,
					"us", (json_int_t)(c->us / c->n));
				if (json_array_append_new(all, one) != 0) {
					json_decref(all);
					return NULL;
				}
			}
	return all;
}

/* How an arm foresees text, of the samples of one length, is added to `all`: n tokens, those on
 * which it agrees with the oracle, and the mean divergence. False: no memory. */
static bool add_agreement(const struct evidence *e, int arm, int length, json_t *all)
{
	size_t i, j;
	json_t *sample, *run;
	int64_t n = 0, agree = 0, samples = 0;
	double kl = 0;
	json_array_foreach(json_object_get(e->root, "text"), i, sample)
	{
		if (json_integer_value(json_object_get(sample, "length")) != e->lengths[length])
			continue;
		json_array_foreach(json_object_get(sample, "runs"), j, run)
		{
			if (find_arm(e, text_of(run, "arm")) != arm)
				continue;
			n += json_integer_value(json_object_get(sample, "n"));
			agree += json_integer_value(json_object_get(run, "agree"));
			kl += json_number_value(json_object_get(run, "kl"));
			samples++;
		}
	}
	json_t *one =
		!n ? NULL
		   : json_pack("{s:s, s:s, s:I, s:I, s:I, s:f}", "arm", e->arms[arm].name, "kind",
			       "text", "length", (json_int_t)e->lengths[length], "n", (json_int_t)n,
			       "agree", (json_int_t)agree, "kl", kl / (double)samples);
	return !n || json_array_append_new(all, one) == 0;
}

static json_t *agreement(const struct evidence *e)
{
	json_t *all = json_array();
	bool done = all != NULL;
	for (int a = 0; a < e->n_arms; a++)
		for (int l = 0; l < e->n_lengths && done; l++)
			done = add_agreement(e, a, l, all);
	if (done)
		return all;
	json_decref(all);
	return NULL;
}

/* --- verdicts ------------------------------------------------------------------------- */

/* One claim: an arm, a kind and a length. */
struct claim {
	int arm, kind, length;
	double wanted; /* recall */
	const char *verdict;
	char why[200];
};

__attribute__((format(printf, 3, 4))) static void rule(struct claim *c, const char *verdict,
						       const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(c->why, sizeof c->why, format, args);
	va_end(args);
	c->verdict = verdict;
}

static double recall(const struct cell *c)
{
	return c->n ? (double)c->hits / (double)c->n : 0;
}

/* The recall that an arm claims: at the trained length that of its source, of two facts joined
 * (hop, steps) 0.95 of the oracle's; beyond that length 0.95; in turns 0.02 less than alone. */
static double claimed(const struct evidence *e, const struct claim *c)
{
	const char *source = e->arms[c->arm].source, *kind = e->kinds[c->kind];
	if (!strcmp(kind, TURNS)) {
		struct cell single = pooled(e, c->arm, c->length);
		return recall(&single) - 0.02;
	}
	const struct cell *oracle = cell(e, find_arm(e, "oracle"), c->kind, c->length);
	if (!strcmp(kind, "hop") || !strcmp(kind, "steps"))
		return 0.95 * (oracle->n ? recall(oracle) : 1);
	if (e->lengths[c->length] > e->n_ctx_train || !strcmp(source, "project"))
		return 0.95;
	return !strcmp(source, "spill-affine4") ? 0.97 : 0.98;
}

/* Whether a control is missing, or recalls too: this kind, or all kinds together. */
static bool control_fails(const struct evidence *e, struct claim *c, const char *control)
{
	double share = (double)e->restored_max / (double)e->lengths[c->length], recalled = 0;
	double most = strcmp(control, "random") ? 0.05 : 0.05 + (share < 1 ? share : 1);
	struct cell all = {0};
	for (int a = 0; a < e->n_arms; a++) {
		const struct arm *arm = &e->arms[a];
		if (!arm->control || strcmp(arm->control, control) != 0 ||
		    strcmp(arm->of, e->arms[c->arm].name) != 0)
			continue;
		all = pooled(e, a, c->length);
		double kind = recall(cell(e, a, c->kind, c->length));
		recalled = kind > recall(&all) ? kind : recall(&all);
	}
	if (all.n < PAL__EVIDENCE_MIN)
		rule(c, "failed",
		     "the control %s was asked %" PRId64 " questions: at least %d are needed",
		     control, all.n, PAL__EVIDENCE_MIN);
	else if (recalled > most)
		rule(c, "failed", "the control %s recalls %.3f, more than %.3f", control, recalled,
		     most);
	return c->verdict != NULL;
}

static bool controls_fail(const struct evidence *e, struct claim *c)
{
	static const char *const always[] = {"zero", "shuffle", "other", "random"};
	const char *source = e->arms[c->arm].source;
	bool project = !strcmp(source, "project"), recompute = !strcmp(source, "recompute");
	for (size_t i = 0; i < sizeof always / sizeof *always; i++)
		if (control_fails(e, c, always[i]))
			return true;
	return (project && control_fails(e, c, "random-projection")) ||
	       ((project || recompute) && control_fails(e, c, "empty"));
}

/* The rule (contract C4). That nothing was hidden comes first: then recall says nothing. */
static void judge(const struct evidence *e, struct claim *c)
{
	static const char *const nothing = "not falsifiable on this model";
	const struct arm *a = &e->arms[c->arm];
	const struct cell *own = cell(e, c->arm, c->kind, c->length);
	const struct cell *window = cell(e, find_arm(e, "window"), c->kind, c->length);
	bool turns = c->kind == e->n_kinds - 1;
	c->wanted = claimed(e, c);
	if (is_policy(a, "full"))
		rule(c, nothing, "full K/V forgets nothing");
	else if (e->exact_full_layers)
		rule(c, nothing, "layers with full attention were left intact");
	else if (!own->evicted_min)
		rule(c, nothing, "nothing was evicted when some questions were asked");
	else if (!window->n || recall(window) > 0.02)
		rule(c, nothing, "without restoration %.3f is recalled, more than 0.02",
		     recall(window));
	else if (own->n < PAL__EVIDENCE_MIN)
		rule(c, "failed", "%" PRId64 " questions: at least %d are needed", own->n,
		     PAL__EVIDENCE_MIN);
	else if (own->dead)
		rule(c, "failed",
		     "%" PRId64 " answers are right without a restored chunk that was read",
		     own->dead);
	else if (!turns && controls_fail(e, c))
		return;
	else if (recall(own) < c->wanted)
		rule(c, "failed", "%.3f is recalled, less than %.3f", recall(own), c->wanted);
	else
		rule(c, "validated", "%.3f is recalled (%.3f wanted), without restoration %.3f",
		     recall(own), c->wanted, recall(window));
}

static json_t *verdicts(const struct evidence *e)
{
	json_t *all = json_array();
	for (int a = 0; a < e->n_arms; a++) {
		bool judged = !is_policy(&e->arms[a], "window") && !e->arms[a].control &&
			      !strcmp(e->arms[a].selection, "default");
		for (int k = 0; k < e->n_kinds && judged; k++)
			for (int l = 0; l < e->n_lengths; l++) {
				struct claim c = {.arm = a, .kind = k, .length = l};
				if (!cell(e, a, k, l)->n)
					continue;
				judge(e, &c);
				json_t *one = json_pack("{s:s, s:s, s:I, s:s, s:s}", "arm",
							e->arms[a].name, "kind", e->kinds[k],
							"length", (json_int_t)e->lengths[l],
							"verdict", c.verdict, "why", c.why);
				if (json_array_append_new(all, one) != 0) {
					json_decref(all);
					return NULL;
				}
			}
	}
	return all;
}

/* --- the two ways ------------------------------------------------------------------------ */

static pal_status read_all(struct evidence *e)
{
	pal_status s = json_is_object(e->root) ? read_head(e) : bad(e, "not a JSON object");
	if (!s)
		s = read_logs(e);
	return s ? s : check_text(e);
}

pal_status pal__evidence_finish(json_t *evidence, pal_error *err)
{
	struct evidence e = {.file = "the evidence", .root = evidence, .err = err};
	pal_status s = read_all(&e);
	bool done = !s && json_object_set_new(evidence, "figures", figures(&e)) == 0 &&
		    json_object_set_new(evidence, "agreement", agreement(&e)) == 0 &&
		    json_object_set_new(evidence, "verdicts", verdicts(&e)) == 0;
	pal__free(e.cells);
	if (!s && !done)
		s = pal__fail_memory(err, "the figures", 0);
	return s ? s : pal__seal(evidence, err);
}

/* The first of list `have` that is not as in `want`, named by arm, kind and length. */
static pal_status compare(const struct evidence *e, const char *what, json_t *want)
{
	json_t *have = json_object_get(e->root, what), *one;
	size_t i;
	if (!want)
		return pal__fail_memory(e->err, "the figures", 0);
	pal_status s = PAL_OK;
	json_array_foreach(want, i, one)
	{
		if (s || json_equal(one, json_array_get(have, i)))
			continue;
		s = bad(e, "%s: %s, %s at %lld is not what the samples give", what,
			text_of(one, "arm"), text_of(one, "kind"),
			(long long)json_integer_value(json_object_get(one, "length")));
	}
	if (!s && json_array_size(have) != json_array_size(want))
		s = bad(e, "%s: more of them than the samples give", what);
	json_decref(want);
	return s;
}

pal_status pal__evidence_check(const char *name, json_t *evidence, pal_error *err)
{
	struct evidence e = {.file = name, .root = evidence, .err = err};
	pal_status s = read_all(&e);
	if (!s)
		s = compare(&e, "figures", figures(&e));
	if (!s)
		s = compare(&e, "agreement", agreement(&e));
	if (!s)
		s = compare(&e, "verdicts", verdicts(&e));
	pal__free(e.cells);
	return s ? s : pal__seal_check(name, evidence, err);
}
