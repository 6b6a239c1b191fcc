#include "eval/recall.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/process.h"
#include "eval/evidence.h"

#define TURNS_ASKED 50 /* questions of one growing session: each fact twice */
#define TEXT_AHEAD 64  /* tokens of text that are foreseen after an event */
#define PIECE 4096     /* tokens of the log that are appended at a time */
#define FACT_EVERY 128 /* tokens of the log for each fact */

/* --- the arms ------------------------------------------------------------------------ */

static const struct {
	const char *name;
	pal_source source;
	pal_spill_type type;
} sources[] = {
	{"recompute", PAL_SOURCE_RECOMPUTE, 0},
	{"spill-f16", PAL_SOURCE_SPILL, PAL_SPILL_F16},
	{"spill-int8", PAL_SOURCE_SPILL, PAL_SPILL_INT8},
	{"spill-affine4", PAL_SOURCE_SPILL, PAL_SPILL_AFFINE4},
	{"hidden", PAL_SOURCE_HIDDEN, 0},
	{"project", PAL_SOURCE_PROJECT, 0},
	{"spill", PAL_SOURCE_SPILL, PAL_SPILL_F16}, /* another name for the first */
};
static const char *const selections[] = {"default", "oracle", "random", "lexical", "both"};
#define N_SELECTIONS (int)(sizeof selections / sizeof *selections)
static const char *const positions[] = {"compact", "original"};
static const char *const policies[] = {"full", "window", "restored"};

static const char *source_name(const pal__recall_arm *a)
{
	for (size_t i = 0; a->policy == PAL_KV_RESTORED && i < sizeof sources / sizeof *sources;
	     i++)
		if (sources[i].source == a->source && sources[i].type == a->spill_type)
			return sources[i].name;
	return "none";
}

static pal_status add_arm(pal__recall_plan *plan, const pal__recall_arm *arm, const char *name,
			  pal_error *err)
{
	for (int i = 0; i < plan->n_arms; i++)
		if (!strcmp(plan->arms[i].name, name))
			return pal__fail(err, PAL_EINVAL, "arm %s is given twice", name);
	if (plan->n_arms == PAL__RECALL_ARMS)
		return pal__fail(err, PAL_ELIMIT, "at most %d arms and controls are possible",
				 PAL__RECALL_ARMS);
	plan->arms[plan->n_arms] = *arm;
	snprintf(plan->arms[plan->n_arms].name, sizeof arm->name, "%s", name);
	plan->n_arms++;
	return PAL_OK;
}

/* One word of an arm: its source, its selection or its positions. */
static bool read_word(const char *word, bool first, pal__recall_arm *arm)
{
	for (size_t i = 0; first && i < sizeof sources / sizeof *sources; i++)
		if (!strcmp(word, sources[i].name)) {
			arm->source = sources[i].source;
			arm->spill_type = sources[i].type;
			return true;
		}
	for (int i = 0; !first && i < N_SELECTIONS; i++)
		if (!strcmp(word, selections[i])) {
			arm->selection = (pal__selection)i;
			return true;
		}
	for (int i = 0; !first && i < 2; i++)
		if (!strcmp(word, positions[i])) {
			arm->positions = (pal_positions)i;
			return true;
		}
	return false;
}

static pal_status read_arm(const char *text, pal__recall_plan *plan, pal_error *err)
{
	pal__recall_arm arm = {.policy = PAL_KV_RESTORED, .of = -1};
	char words[64], *rest, *word, name[64];
	snprintf(words, sizeof words, "%s", text);
	word = strtok_r(words, ":", &rest);
	if (word && (!strcmp(word, "oracle") || !strcmp(word, "window")) && !*rest)
		return PAL_OK; /* there in any case */
	for (bool first = true; word || first; first = false, word = strtok_r(NULL, ":", &rest))
		if (!word || !read_word(word, first, &arm))
			return pal__fail(
				err, PAL_EINVAL,
				"no arm '%s': oracle, window, or recompute, spill-f16, spill-int8, "
				"spill-affine4, hidden or project, with :oracle, :random, "
				":lexical, "
				":both or :original",
				text);
	snprintf(name, sizeof name, "%s%s%s%s%s", source_name(&arm), arm.selection ? ":" : "",
		 arm.selection ? selections[arm.selection] : "", arm.positions ? ":" : "",
		 arm.positions ? positions[arm.positions] : "");
	return add_arm(plan, &arm, name, err);
}

static const struct {
	const char *name;
	pal__control control;
} controls[] = {
	{"zero", PAL__CONTROL_ZERO},     {"shuffle", PAL__CONTROL_SHUFFLE},
	{"other", PAL__CONTROL_FOREIGN}, {"random", PAL__CONTROL_NONE},
	{"empty", PAL__CONTROL_NO_LOG},  {"random-projection", PAL__CONTROL_RANDOM},
};

/* Whether there is anything of the source that this control breaks. */
static bool concerns(const char *control, pal_source source)
{
	if (!strcmp(control, "random-projection"))
		return source == PAL_SOURCE_PROJECT;
	return strcmp(control, "empty") != 0 || source == PAL_SOURCE_PROJECT ||
	       source == PAL_SOURCE_RECOMPUTE;
}

static pal_status add_controls(pal__recall_plan *plan, pal_error *err)
{
	pal_status s = PAL_OK;
	for (int i = 0, n = plan->n_arms; i < n && !s; i++) {
		pal__recall_arm arm = plan->arms[i];
		char name[64];
		if (arm.policy != PAL_KV_RESTORED || arm.selection)
			continue;
		for (size_t j = 0; j < sizeof controls / sizeof *controls && !s; j++) {
			if (!concerns(controls[j].name, arm.source))
				continue;
			arm.control = controls[j].name;
			arm.of = i;
			arm.selection = strcmp(arm.control, "random") ? PAL__SELECT_DEFAULT
								      : PAL__SELECT_RANDOM;
			snprintf(name, sizeof name, "%.40s!%s", arm.name, arm.control);
			s = add_arm(plan, &arm, name, err);
		}
	}
	return s;
}

pal_status pal__recall_arms(const char *text, bool with_controls, pal__recall_plan *plan,
			    pal_error *err)
{
	char all[1024], *rest;
	plan->n_arms = 0;
	if (strlen(text) >= sizeof all)
		return pal__fail(err, PAL_ELIMIT, "the list of arms has more than %zu bytes",
				 sizeof all);
	snprintf(all, sizeof all, "%s", text);
	pal_status s =
		add_arm(plan, &(pal__recall_arm){.policy = PAL_KV_FULL, .of = -1}, "oracle", err);
	if (!s)
		s = add_arm(plan, &(pal__recall_arm){.policy = PAL_KV_WINDOW, .of = -1}, "window",
			    err);
	for (char *one = strtok_r(all, ",", &rest); one && !s; one = strtok_r(NULL, ",", &rest))
		s = read_arm(one, plan, err);
	return s || !with_controls ? s : add_controls(plan, err);
}

/* --- one sample ------------------------------------------------------------------------- */

/* Text that grows. */
struct text {
	char *bytes;
	size_t n, cap;
	bool failed;
};

static void add(struct text *t, char separator, uint64_t number)
{
	char one[24];
	int n = separator ? snprintf(one, sizeof one, "%c%" PRIu64, separator, number)
			  : snprintf(one, sizeof one, "%" PRIu64, number);
	if (!pal__grow((void **)&t->bytes, &t->cap, t->n + (size_t)n + 1, 1)) {
		t->failed = true;
		return;
	}
	memcpy(t->bytes + t->n, one, (size_t)n + 1);
	t->n += (size_t)n;
}

static void add_ids(struct text *t, char first, const int32_t *ids, size_t n)
{
	for (size_t i = 0; i < n; i++)
		add(t, i ? ' ' : first, (uint64_t)ids[i]);
}

static json_t *text_json(const struct text *t)
{
	return t->failed || !t->bytes ? NULL : json_string(t->bytes);
}

struct run {
	pal_model *model;
	pal_model_info info;
	const pal__tasks *tasks;
	const pal__recall_plan *plan;
	pal_session_options o; /* the plan's, worked out */
	int32_t *piece;        /* [PIECE] of a log */
	json_t *logs, *texts;
	uint64_t done, total;
	int64_t asked; /* questions at this length */
	pal_error *err;
	/* Of the sample under way. */
	pal__sample *sample;
	int64_t length;
	uint64_t seed;
	bool turns;
	int n_facts;
	json_t *log, *runs; /* borrowed from logs */
};

static void advance(struct run *r, uint64_t steps)
{
	r->done += steps;
	if (r->plan->progress)
		r->plan->progress(r->plan->user, r->done < r->total ? r->done : r->total, r->total);
}

/* How sessions of this arm select by themselves. */
static pal_selection own_selection(const pal__recall_arm *a)
{
	return a->selection == PAL__SELECT_LEXICAL ? PAL_SELECT_LEXICAL
	       : a->selection == PAL__SELECT_BOTH  ? PAL_SELECT_BOTH
						   : PAL_SELECT_ATTENTION;
}

static pal_session_options arm_options(const struct run *r, const pal__recall_arm *a)
{
	pal_session_options o = r->o;
	o.kv_policy = a->policy;
	o.source = a->source;
	o.spill_type = a->spill_type;
	o.positions = a->positions;
	o.selection = own_selection(a);
	if (a->policy == PAL_KV_FULL) {
		o.window = o.sink = 0;
		o.slots = 0;
	}
	/* Room for what comes after the log, where room has to be made. */
	bool keeps_all = a->policy == PAL_KV_FULL || o.exact_full_layers;
	o.n_ctx = keeps_all ? r->length + (r->turns ? 1 << 16 : 2 * PIECE) : 0;
	return o;
}

/* Tokens before the end of a log where a fact would still be in sight, or read again. */
static int64_t in_sight(const struct run *r)
{
	return r->o.window + r->o.reread + 64;
}

/* The next tokens of the log, PIECE of them until it ends. */
static pal_status next_piece(struct run *r, pal__sample *sample, const int32_t **rest,
			     size_t *n_rest, size_t *n)
{
	for (*n = 0; *n < PIECE;) {
		if (!*n_rest) {
			pal_status s = pal__sample_next(sample, rest, n_rest, r->err);
			if (s || !*n_rest)
				return s;
		}
		size_t m = *n_rest < PIECE - *n ? *n_rest : PIECE - *n;
		memcpy(r->piece + *n, *rest, m * sizeof **rest);
		*n += m;
		*rest += m;
		*n_rest -= m;
	}
	return PAL_OK;
}

/* Gives the whole log to the session, and *hash what it was. */
static pal_status feed(struct run *r, pal_session *s, pal__sample *sample, uint64_t *hash)
{
	const int32_t *rest = NULL;
	size_t n_rest = 0, n = 1;
	pal_status status = PAL_OK;
	pal__sample_rewind(sample);
	*hash = 1;
	while (!status && n) {
		status = next_piece(r, sample, &rest, &n_rest, &n);
		if (status || !n)
			break;
		*hash = XXH3_64bits_withSeed(r->piece, n * sizeof *r->piece, *hash);
		status = pal_session_append(s, r->piece, n, NULL, NULL, NULL, r->err);
		advance(r, n);
	}
	return status;
}

/* --- a question --------------------------------------------------------------------------- */

struct answer {
	int32_t ids[PAL__EVIDENCE_LIST];
	size_t n;
	uint64_t live[PAL__N_LIVE];
};

static bool on_token(void *user, int32_t id, const char *text, size_t n)
{
	struct answer *a = user;
	(void)text;
	(void)n;
	if (id >= 0 && a->n < PAL__EVIDENCE_LIST)
		a->ids[a->n++] = id;
	return true;
}

static int32_t argmax(const float *x, int32_t n)
{
	int32_t best = 0;
	for (int32_t i = 1; i < n; i++)
		if (x[i] > x[best])
			best = i;
	return best;
}

/* Whether chunk c, margins included, holds the position. */
static bool holds(int32_t c, int64_t position)
{
	int64_t from = (int64_t)c * PAL_CHUNK;
	return position >= from - PAL_CHUNK_MARGIN &&
	       position < from + PAL_CHUNK + PAL_CHUNK_MARGIN;
}

static int by_chunk(const void *a, const void *b)
{
	int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
	return (x > y) - (x < y);
}

static void add_chunk(pal_event *e, int32_t chunk, int most)
{
	for (int32_t i = 0; i < e->n_chunks; i++)
		if (e->chunks[i] == chunk)
			return;
	if (e->n_chunks < most)
		e->chunks[e->n_chunks++] = chunk;
}

/* The chunks that hold the fact, or any others that are out of sight. */
static void choose(const struct run *r, const pal__recall_arm *a, const pal__question *q,
		   uint64_t rng, pal_event *e)
{
	int slots = r->o.slots;
	int64_t sink = r->o.sink;
	int32_t first = (int32_t)((sink + PAL_CHUNK - 1) / PAL_CHUNK);
	int32_t last = (int32_t)((r->length - in_sight(r)) / PAL_CHUNK);
	if (a->selection == PAL__SELECT_ORACLE)
		for (int i = 0; i < q->n_needles; i++)
			for (int64_t c = q->begin[i] / PAL_CHUNK; c <= (q->end[i] - 1) / PAL_CHUNK;
			     c++)
				add_chunk(e, (int32_t)c, slots);
	for (int i = 0; a->selection == PAL__SELECT_RANDOM && last > first && i < 64 * slots; i++)
		add_chunk(e, first + (int32_t)(pal__draw(&rng) % (uint64_t)(last - first)), slots);
	qsort(e->chunks, (size_t)e->n_chunks, sizeof *e->chunks, by_chunk);
	memset(e->sources, a->source, sizeof e->sources);
}

/* Restores the chunks that the arm says, and answers with the likeliest token each time. */
static pal_status answer_with(struct run *r, pal_session *s, const pal__recall_arm *a,
			      const pal__question *q, struct answer *out)
{
	pal_event e = {.position = pal_session_length(s), .reread = r->o.reread};
	choose(r, a, q, r->seed + (uint64_t)q->begin[0], &e);
	pal_status status = pal_session_apply(s, &e, r->err);
	while (!status && out->n < q->n_expect) {
		int32_t id = argmax(pal_session_logits(s), r->info.n_vocab);
		out->ids[out->n++] = id;
		status = pal_session_append(s, &id, 1, NULL, NULL, NULL, r->err);
	}
	return status;
}

static uint64_t filled(const pal_session_stats *s)
{
	uint64_t sum = 0;
	for (int i = 0; i < PAL_N_SOURCES; i++)
		sum += s->filled[i];
	return sum;
}

/* Whether events from number `from` on restored every position of the fact. */
static pal_status found(struct run *r, const pal_session *s, const pal__question *q, uint64_t from,
			uint64_t *out)
{
	bool all = true;
	for (int i = 0; i < q->n_needles && all; i++)
		for (int64_t p = q->begin[i]; p < q->end[i] && all; p++) {
			bool here = false;
			for (uint64_t j = from; j < pal_session_n_events(s) && !here; j++) {
				pal_event e = {0};
				pal_status status = pal_session_event(s, j, &e, r->err);
				if (status)
					return status;
				for (int32_t c = 0; c < e.n_chunks; c++)
					here |= holds(e.chunks[c], p);
			}
			all = here;
		}
	*out = all;
	return PAL_OK;
}

static pal_status ask(struct run *r, pal_session *s, const pal__recall_arm *a,
		      const pal__question *q, struct answer *out)
{
	pal_session_stats before = {0}, after = {0};
	double start = pal__now();
	uint64_t events = pal_session_n_events(s);
	const pal_generate_options options = {.sampling = pal_sampling_default(),
					      .max_tokens = (int64_t)q->n_expect,
					      .ignore_end = true,
					      .on_token = on_token,
					      .user = out};
	*out = (struct answer){0};
	pal_session_get_stats(s, &before);
	pal_status status = pal_session_append(s, q->prompt, q->n_prompt, NULL, NULL, NULL, r->err);
	bool given = a->selection && own_selection(a) == PAL_SELECT_ATTENTION;
	if (!status && given && before.evicted)
		status = answer_with(r, s, a, q, out);
	else if (!status)
		status = pal_generate(s, &options, NULL, r->err);
	if (!status)
		status = found(r, s, q, events, &out->live[PAL__LIVE_FOUND]);
	if (status)
		return status;
	pal_session_get_stats(s, &after);
	out->live[PAL__LIVE_EVICTED] = (uint64_t)after.evicted;
	out->live[PAL__LIVE_CHUNKS] = filled(&after) - filled(&before);
	out->live[PAL__LIVE_FAR_READS] = after.far_reads - before.far_reads;
	out->live[PAL__LIVE_FALLBACKS] = after.fallbacks - before.fallbacks;
	out->live[PAL__LIVE_US] = (uint64_t)((pal__now() - start) * 1e6);
	advance(r, 16);
	return out->n == q->n_expect ? PAL_OK
				     : pal__fail(r->err, PAL_ELIMIT,
						 "arm %s: no room for an answer of %zu tokens",
						 a->name, q->n_expect);
}

/* What lies between two questions of a growing session. */
static pal_status go_on(struct run *r, pal_session *s)
{
	size_t n, gap = (size_t)(2 * in_sight(r) / TURNS_ASKED + 32);
	const int32_t *ids = pal__sample_newline(r->sample, &n);
	pal_status status = pal_session_append(s, ids, n, NULL, NULL, NULL, r->err);
	while (!status && gap) {
		status = pal__sample_filler(r->sample, gap, &ids, &n, r->err);
		if (!status)
			status = pal_session_append(s, ids, n, NULL, NULL, NULL, r->err);
		gap -= n < gap ? n : gap;
	}
	if (!status) {
		ids = pal__sample_newline(r->sample, &n);
		status = pal_session_append(s, ids, n, NULL, NULL, NULL, r->err);
	}
	return status;
}

static int n_questions(const struct run *r)
{
	return r->turns ? 2 * r->n_facts : r->n_facts;
}

static pal_status ask_all(struct run *r, pal_session *s, const pal__recall_arm *a, pal__mark *mark,
			  struct text *ids, struct text *live)
{
	struct answer *out = pal__alloc(sizeof *out);
	pal_status status = out ? PAL_OK : pal__fail_memory(r->err, "an answer", sizeof *out);
	for (int i = 0; i < n_questions(r) && !status; i++) {
		status = ask(r, s, a, pal__sample_question(r->sample, i % r->n_facts), out);
		if (!status)
			status = r->turns ? go_on(r, s) : PAL_OK;
		if (status)
			break;
		if (!r->turns)
			pal__session_rewind(s, mark);
		add_ids(ids, i ? ';' : 0, out->ids, out->n);
		for (int j = 0; j < PAL__N_LIVE; j++)
			add(live, j ? ' ' : i ? ';' : 0, out->live[j]);
	}
	pal__free(out);
	if (!status && (ids->failed || live->failed))
		status = pal__fail_memory(r->err, "the answers", ids->n + live->n);
	return status;
}

/* --- the arms that share a session ------------------------------------------------------------ */

struct group {
	pal_session *s, *other;
	pal__mark mark;
	pal__sample *other_sample;
	uint64_t hash, rss, peak;
	double seconds; /* of reading the log */
	pal_session_stats stats;
};

static bool same_session(const pal__recall_arm *a, const pal__recall_arm *b)
{
	return a->policy == b->policy && a->source == b->source && a->spill_type == b->spill_type &&
	       a->positions == b->positions && own_selection(a) == own_selection(b);
}

/* Whether the arm is asked about the sample under way. */
static bool takes_part(const struct run *r, const pal__recall_arm *a)
{
	if (r->turns && (a->control || a->selection))
		return false;
	/* The kinds together are enough to see that a broken arm forgets. */
	if (a->control && r->asked >= PAL__EVIDENCE_MIN)
		return false;
	return a->policy != PAL_KV_FULL || r->length <= r->plan->oracle_max;
}

static pal__sample_spec spec_of(const struct run *r, uint64_t seed, int n_facts)
{
	pal__sample_spec spec = {.seed = seed,
				 .length = r->length,
				 .first = r->o.sink + 8,
				 .last = r->length - in_sight(r),
				 .n_facts = n_facts,
				 .n_kinds = r->plan->n_kinds,
				 .chat = r->plan->chat};
	memcpy(spec.kinds, r->plan->kinds, sizeof r->plan->kinds);
	return spec;
}

/* Another session of the same kind, about another sample; longer, so that it has kept every chunk
 * that a question may ask for. */
static pal_status open_other(struct run *r, const pal__recall_arm *a, struct group *g)
{
	const pal_session_options o = arm_options(r, a);
	const pal__sample_spec spec = spec_of(r, r->seed ^ 0x5eed0fa11u, r->n_facts);
	uint64_t hash;
	pal_status s = pal__sample_new(r->tasks, r->model, &spec, &g->other_sample, r->err);
	if (!s)
		s = pal_session_open(r->model, &o, &g->other, r->err);
	if (!s)
		s = feed(r, g->other, g->other_sample, &hash);
	for (size_t more = 0, n; more < PIECE && !s; more += n) {
		const int32_t *ids;
		s = pal__sample_filler(g->other_sample, PIECE, &ids, &n, r->err);
		if (!s)
			s = pal_session_append(g->other, ids, n, NULL, NULL, NULL, r->err);
	}
	return s;
}

static pal_status run_arm(struct run *r, const pal__recall_arm *a, struct group *g)
{
	struct text ids = {0}, live = {0};
	char hash[17];
	pal_status s = PAL_OK;
	pal__control control = PAL__CONTROL_NONE;
	for (size_t i = 0; a->control && i < sizeof controls / sizeof *controls; i++)
		if (!strcmp(a->control, controls[i].name))
			control = controls[i].control;
	if (control == PAL__CONTROL_FOREIGN)
		s = open_other(r, a, g);
	if (!s && a->policy == PAL_KV_RESTORED)
		pal__session_control(g->s, control, g->other);
	if (!s)
		s = ask_all(r, g->s, a, &g->mark, &ids, &live);
	if (!g->peak)
		g->peak = pal__process_memory("VmHWM");
	snprintf(hash, sizeof hash, "%016" PRIx64, g->hash);
	json_t *run =
		s ? NULL
		  : json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:f, s:o, s:o}", "arm", a->name,
			      "log", hash, "kv_bytes", (json_int_t)g->stats.kv_bytes,
			      "scratch_bytes", (json_int_t)g->stats.scratch_bytes, "disk_bytes",
			      (json_int_t)g->stats.disk_bytes, "rss_bytes", (json_int_t)g->rss,
			      "peak_bytes", (json_int_t)g->peak, "read_s", g->seconds, "answers",
			      text_json(&ids), "live", text_json(&live));
	pal__free(ids.bytes);
	pal__free(live.bytes);
	if (!s && json_array_append_new(r->runs, run) != 0)
		s = pal__fail_memory(r->err, "the evidence", 0);
	return s;
}

static pal_status run_group(struct run *r, int first)
{
	const pal__recall_arm *a = &r->plan->arms[first];
	const pal_session_options o = arm_options(r, a);
	struct group g = {.rss = pal__process_memory("VmRSS")};
	pal__process_reset_peak();
	double start = pal__now();
	pal_status s = pal_session_open(r->model, &o, &g.s, r->err);
	if (!s)
		s = feed(r, g.s, r->sample, &g.hash);
	g.seconds = pal__now() - start;
	if (!s)
		pal_session_get_stats(g.s, &g.stats);
	if (!s && !r->turns)
		s = pal__session_mark(g.s, &g.mark, r->err);
	for (int i = first; i < r->plan->n_arms && !s; i++)
		if (same_session(a, &r->plan->arms[i]) && takes_part(r, &r->plan->arms[i]))
			s = run_arm(r, &r->plan->arms[i], &g);
	if (!s) {
		char hash[17];
		snprintf(hash, sizeof hash, "%016" PRIx64, g.hash);
		json_object_set_new(r->log, "hash", json_string(hash));
	}
	pal__mark_free(&g.mark);
	pal_session_close(g.s);
	pal_session_close(g.other);
	pal__sample_free(g.other_sample);
	return s;
}

static json_t *question_json(const struct run *r, const pal__question *q)
{
	struct text expect = {0};
	json_t *needles = json_array(), *phrases = json_array();
	add_ids(&expect, 0, q->expect, q->n_expect);
	for (int i = 0; i < q->n_needles; i++) {
		json_array_append_new(needles, json_pack("[I, I]", (json_int_t)q->begin[i],
							 (json_int_t)q->end[i]));
		json_array_append_new(phrases, json_integer(q->phrases[i]));
	}
	json_t *j = json_pack("{s:s, s:o, s:i, s:o, s:o}", "kind",
			      pal__tasks_kind(r->tasks, q->kind), "fact", phrases, "ask", q->ask,
			      "needles", needles, "expect", text_json(&expect));
	pal__free(expect.bytes);
	return j;
}

/* One log, and every arm's answers to its questions. */
static pal_status run_log(struct run *r)
{
	const pal__sample_spec spec = spec_of(r, r->seed, r->n_facts);
	json_t *questions = json_array();
	r->runs = json_array();
	r->log = json_pack("{s:I, s:b, s:o, s:o}", "length", (json_int_t)r->length, "turns",
			   r->turns, "questions", questions, "runs", r->runs);
	if (json_array_append_new(r->logs, r->log) != 0)
		return pal__fail_memory(r->err, "the evidence", 0);
	pal_status s = pal__sample_new(r->tasks, r->model, &spec, &r->sample, r->err);
	for (int i = 0; !s && i < n_questions(r); i++) {
		const pal__question *q = pal__sample_question(r->sample, i % r->n_facts);
		if (q->n_expect > PAL__EVIDENCE_LIST)
			s = pal__fail(r->err, PAL_ELIMIT, "an answer of more than %d tokens",
				      PAL__EVIDENCE_LIST);
		else if (json_array_append_new(questions, question_json(r, q)) != 0)
			s = pal__fail_memory(r->err, "the evidence", 0);
	}
	for (int i = 0; i < r->plan->n_arms && !s; i++) {
		bool first = takes_part(r, &r->plan->arms[i]);
		for (int j = 0; j < i; j++)
			first &= !same_session(&r->plan->arms[i], &r->plan->arms[j]);
		if (first)
			s = run_group(r, i);
	}
	pal__sample_free(r->sample);
	r->sample = NULL;
	return s;
}

/* --- agreement on text --------------------------------------------------------------------- */

/* KL(p || q) of two rows of logits, in nats. */
static double divergence(const float *p, const float *q, int32_t n)
{
	double max_p = p[0], max_q = q[0], sum_p = 0, sum_q = 0, kl = 0;
	for (int32_t i = 1; i < n; i++) {
		max_p = p[i] > max_p ? p[i] : max_p;
		max_q = q[i] > max_q ? q[i] : max_q;
	}
	for (int32_t i = 0; i < n; i++) {
		sum_p += exp(p[i] - max_p);
		sum_q += exp(q[i] - max_q);
	}
	double norm = (max_q + log(sum_q)) - (max_p + log(sum_p));
	for (int32_t i = 0; i < n; i++)
		kl += exp(p[i] - max_p) / sum_p * ((double)p[i] - (double)q[i] + norm);
	return kl > 0 ? kl : 0;
}

/* The logits of the TEXT_AHEAD tokens after the log, with what the arm restores in sight. */
static pal_status foresee(struct run *r, const pal__recall_arm *a, float *logits, uint64_t *hash)
{
	const pal_session_options o = arm_options(r, a);
	const int32_t *ids;
	pal_session *s;
	pal_status status = pal_session_open(r->model, &o, &s, r->err);
	if (status)
		return status;
	status = feed(r, s, r->sample, hash);
	if (!status)
		status = pal_session_restore(s, r->err);
	for (size_t at = 0, n; at < TEXT_AHEAD && !status; at += n) {
		status = pal__sample_filler(r->sample, TEXT_AHEAD - at, &ids, &n, r->err);
		if (!status)
			status =
				pal_session_append(s, ids, n, logits + at * (size_t)r->info.n_vocab,
						   NULL, NULL, r->err);
	}
	pal_session_close(s);
	return status;
}

static pal_status run_text(struct run *r, float *oracle, float *own)
{
	const pal__sample_spec spec = spec_of(r, r->seed, 0);
	json_t *runs = json_array();
	uint64_t hash;
	json_t *sample = json_pack("{s:I, s:i, s:o}", "length", (json_int_t)r->length, "n",
				   TEXT_AHEAD, "runs", runs);
	if (json_array_append_new(r->texts, sample) != 0)
		return pal__fail_memory(r->err, "the evidence", 0);
	pal_status s = pal__sample_new(r->tasks, r->model, &spec, &r->sample, r->err);
	for (int i = 0; i < r->plan->n_arms && !s; i++) {
		const pal__recall_arm *a = &r->plan->arms[i];
		int agree = 0;
		double kl = 0;
		if (a->control || a->selection)
			continue;
		s = foresee(r, a, i ? own : oracle, &hash);
		for (size_t t = 0; t < TEXT_AHEAD && !s && i; t++) {
			const float *p = oracle + t * (size_t)r->info.n_vocab;
			const float *q = own + t * (size_t)r->info.n_vocab;
			agree += argmax(p, r->info.n_vocab) == argmax(q, r->info.n_vocab);
			kl += divergence(p, q, r->info.n_vocab);
		}
		if (!s && i &&
		    json_array_append_new(runs, json_pack("{s:s, s:i, s:f}", "arm", a->name,
							  "agree", agree, "kl", kl / TEXT_AHEAD)) !=
			    0)
			s = pal__fail_memory(r->err, "the evidence", 0);
	}
	pal__sample_free(r->sample);
	r->sample = NULL;
	return s;
}

static pal_status run_texts(struct run *r)
{
	size_t bytes = TEXT_AHEAD * (size_t)r->info.n_vocab * sizeof(float);
	float *oracle = pal__alloc(bytes), *own = pal__alloc(bytes);
	pal_status s = oracle && own ? PAL_OK : pal__fail_memory(r->err, "logits", 2 * bytes);
	for (int64_t i = 0; i < r->plan->texts && !s; i++) {
		r->seed = r->plan->seed ^ ((uint64_t)i + 1) * 0xd1b54a32d192ed03u;
		s = run_text(r, oracle, own);
	}
	pal__free(oracle);
	pal__free(own);
	return s;
}

/* --- all of it ------------------------------------------------------------------------------- */

static json_t *arms_json(const pal__recall_plan *plan)
{
	json_t *all = json_array();
	for (int i = 0; i < plan->n_arms; i++) {
		const pal__recall_arm *a = &plan->arms[i];
		json_t *one =
			json_pack("{s:s, s:s, s:s, s:s, s:s}", "name", a->name, "policy",
				  policies[a->policy], "source", source_name(a), "selection",
				  selections[a->selection], "positions", positions[a->positions]);
		if (a->control) {
			json_object_set_new(one, "control", json_string(a->control));
			json_object_set_new(one, "of", json_string(plan->arms[a->of].name));
		}
		json_array_append_new(all, one);
	}
	return all;
}

/* Facts of one log at this length. */
static int64_t facts_of(const pal__recall_plan *plan, int64_t length)
{
	int64_t all = plan->questions * plan->n_kinds, n = length / FACT_EVERY;
	n = plan->facts && plan->facts < n ? plan->facts : n;
	n = n < 1 ? 1 : n;
	return n < all ? n : all;
}

static json_t *parameters(const struct run *r)
{
	const pal__recall_plan *p = r->plan;
	const pal_session_options *o = &r->o;
	json_t *lengths = json_array(), *kinds = json_array();
	char seed[24], tasks[17], filler[17];
	uint64_t a, b;
	int64_t slots = o->slots, span = PAL_CHUNK + 2 * PAL_CHUNK_MARGIN;
	for (int i = 0; i < p->n_lengths; i++)
		json_array_append_new(lengths, json_integer(p->lengths[i]));
	for (int i = 0; i < p->n_kinds; i++)
		json_array_append_new(kinds, json_string(pal__tasks_kind(r->tasks, p->kinds[i])));
	pal__tasks_hashes(r->tasks, &a, &b);
	snprintf(seed, sizeof seed, "%" PRIu64, p->seed);
	snprintf(tasks, sizeof tasks, "%016" PRIx64, a);
	snprintf(filler, sizeof filler, "%016" PRIx64, b);
	static const int bits[] = {[PAL_KV_I16] = 16,
				   [PAL_KV_F16] = 16,
				   [PAL_KV_F32] = 32,
				   [PAL_KV_INT8] = 8,
				   [PAL_KV_AFFINE4] = 5};
	int64_t values = 2 * (int64_t)r->info.n_layers * r->info.n_kv_heads * r->info.head_dim;
	return json_pack(
		"{s:s, s:s, s:s, s:o, s:o, s:I, s:I, s:I, s:I, s:s, s:I, s:I, s:I, s:I, s:i, s:i, "
		"s:i, "
		"s:i, s:I, s:I, s:b, s:b, s:b, s:I, s:I, s:i}",
		"seed", seed, "tasks_hash", tasks, "filler_hash", filler, "lengths", lengths,
		"kinds", kinds, "questions", (json_int_t)p->questions, "facts",
		(json_int_t)p->facts, "turns", (json_int_t)p->turns, "texts", (json_int_t)p->texts,
		"form", p->chat ? "chat" : "plain", "oracle_max", (json_int_t)p->oracle_max,
		"n_ctx_train", (json_int_t)r->info.n_ctx_train, "sink", (json_int_t)o->sink,
		"window", (json_int_t)o->window, "slots", (int)slots, "reread", o->reread, "rounds",
		o->rounds, "round_chunks", o->round_chunks, "kv_budget",
		(json_int_t)p->options.kv_budget, "disk_budget", (json_int_t)o->disk_budget,
		"exact_full_layers", o->exact_full_layers, "restore_prefill", o->restore_prefill,
		"restore_generated", !o->no_restore_generated, "chunk_bytes",
		(json_int_t)(span * values * bits[o->kv_type] / 8), "restored_max",
		(json_int_t)(slots * span), "left", o->left);
}

/* Steps for progress: tokens read, and 16 for each question, arm by arm. */
static uint64_t steps(const struct run *r)
{
	const pal__recall_plan *p = r->plan;
	uint64_t sum = 0;
	for (int l = 0; l < p->n_lengths; l++) {
		uint64_t asked = (uint64_t)(p->questions * p->n_kinds), sessions = 0, arms = 0;
		uint64_t logs = asked / (uint64_t)facts_of(p, p->lengths[l]) + 1;
		for (int i = 0; i < p->n_arms; i++) {
			bool first = true;
			if (p->arms[i].policy == PAL_KV_FULL && p->lengths[l] > p->oracle_max)
				continue;
			for (int j = 0; j < i; j++)
				first &= !same_session(&p->arms[i], &p->arms[j]);
			bool other = p->arms[i].control && !strcmp(p->arms[i].control, "other");
			sessions += (uint64_t)first + (uint64_t)other;
			arms++;
		}
		sum += logs * sessions * (uint64_t)p->lengths[l] + asked * arms * 16;
	}
	return sum;
}

static pal_status run_length(struct run *r, int l)
{
	const pal__recall_plan *plan = r->plan;
	int64_t all = plan->questions * plan->n_kinds, facts;
	pal_status s = PAL_OK;
	r->length = plan->lengths[l];
	r->turns = false;
	facts = facts_of(plan, r->length);
	/* Whole rounds of the kinds, so that each gets its number. */
	facts = facts > plan->n_kinds ? facts - facts % plan->n_kinds : plan->n_kinds;
	r->asked = 0;
	for (int64_t i = 0; r->asked < all && !s; r->asked += r->n_facts, i++) {
		r->n_facts = (int)(facts < all - r->asked ? facts : all - r->asked);
		r->seed = plan->seed + (uint64_t)(l + 1) * 0x9e3779b97f4a7c15u +
			  (uint64_t)(i + 1) * 0xbf58476d1ce4e5b9u;
		s = run_log(r);
	}
	r->turns = true;
	r->n_facts = TURNS_ASKED / 2;
	for (int64_t asked = 0, i = 0; !l && asked < plan->turns && !s; asked += TURNS_ASKED, i++) {
		r->seed = plan->seed + (uint64_t)(i + 1) * 0x94d049bb133111ebu;
		s = run_log(r);
	}
	r->turns = false;
	if (!s && plan->texts && r->length <= plan->oracle_max)
		s = run_texts(r);
	return s;
}

/* The options of bounded sessions, without zeros, and with the budget spent. */
static pal_status settle(struct run *r)
{
	pal__kv_shape shape = {0};
	pal_session_options o = r->plan->options;
	o.kv_policy = PAL_KV_RESTORED;
	o.source = PAL_SOURCE_RECOMPUTE;
	o.exact_full_layers = false;
	o.n_ctx = 0;
	pal_status s = pal__session_plan(r->model, &o, &r->o, &shape, r->err);
	r->o.exact_full_layers = r->plan->options.exact_full_layers;
	r->o.kv_budget = 0; /* sink, window and slots say what it comes to */
	return s;
}

pal_status pal__recall_run(pal_model *model, const pal__tasks *tasks, const pal__recall_plan *plan,
			   json_t *evidence, pal_error *err)
{
	struct run r = {.model = model,
			.tasks = tasks,
			.plan = plan,
			.logs = json_array(),
			.texts = json_array(),
			.err = err};
	pal_model_get_info(model, &r.info);
	r.total = steps(&r);
	pal_status s = settle(&r);
	if (s) {
		json_decref(r.logs);
		json_decref(r.texts);
		return s;
	}
	if (json_object_set_new(evidence, "parameters", parameters(&r)) != 0 ||
	    json_object_set_new(evidence, "arms", arms_json(plan)) != 0 ||
	    json_object_set_new(evidence, "logs", r.logs) != 0 ||
	    json_object_set_new(evidence, "text", r.texts) != 0)
		return pal__fail_memory(err, "the evidence", 0);
	r.piece = pal__alloc(PIECE * sizeof *r.piece);
	if (!r.piece)
		s = pal__fail_memory(err, "a piece of the log", PIECE * sizeof *r.piece);
	for (int l = 0; l < plan->n_lengths && !s; l++)
		s = run_length(&r, l);
	pal__free(r.piece);
	return s;
}

/* --- a figure ----------------------------------------------------------------------------------
 */

/* Adds the answers of the only arm to a log's questions. */
static void add_log(const json_t *log, pal__recalled *out)
{
	const json_t *run = json_array_get(json_object_get(log, "runs"), 0), *question;
	const char *at = json_string_value(json_object_get(run, "answers"));
	size_t i;
	json_array_foreach(json_object_get(log, "questions"), i, question)
	{
		const char *expect = json_string_value(json_object_get(question, "expect"));
		size_t n = strcspn(at, ";");
		out->asked++;
		out->right += strlen(expect) == n && !memcmp(at, expect, n);
		at += at[n] ? n + 1 : n;
	}
}

pal_status pal__recall_quick(pal_model *model, const pal__tasks *tasks,
			     const pal_session_options *options, int64_t questions,
			     pal__recalled *out, pal_error *err)
{
	pal_model_info info;
	pal_model_get_info(model, &info);
	pal__recall_plan plan = {.n_arms = 1, .n_lengths = 1, .seed = 1, .options = *options};
	plan.arms[0] = (pal__recall_arm){
		.name = "arm", .policy = PAL_KV_RESTORED, .source = options->source, .of = -1};
	plan.lengths[0] =
		info.n_ctx_train < PAL__QUICK_LENGTH ? info.n_ctx_train : PAL__QUICK_LENGTH;
	plan.options.window = plan.lengths[0] / 8;
	for (int i = 0; i < pal__tasks_n_kinds(tasks); i++)
		if (!pal__tasks_hard(tasks, i))
			plan.kinds[plan.n_kinds++] = i;
	if (!plan.n_kinds)
		return pal__fail(err, PAL_EINVAL, "the tasks have no kinds that are not hard");
	plan.questions = (questions + plan.n_kinds - 1) / plan.n_kinds;
	json_t *evidence = json_object();
	pal_status s = evidence ? pal__recall_run(model, tasks, &plan, evidence, err)
				: pal__fail_memory(err, "the answers", 0);
	pal__recalled sum = {0};
	size_t i;
	json_t *log;
	json_array_foreach(json_object_get(evidence, "logs"), i, log)
	{
		if (!s)
			add_log(log, &sum);
	}
	json_decref(evidence);
	if (!s)
		*out = sum;
	return s;
}
