#include "eval/map.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "base/mem.h"
#include "draft/drafter.h"
#include "eval/map_evidence.h"
#include "session/session.h"

#define ARMS (PAL__MAP_LIST + 1) /* plain decoding is the first */

/* One way to decode. */
struct arm {
	const char *name; /* of the drafter; NULL: plain */
	pal_session *session;
	pal_drafter *drafter;      /* or NULL */
	int64_t log_from;          /* where the reply of this turn begins */
	pal_generate_result reply; /* of this turn */
	XXH3_state_t *hash;        /* of what was generated in this pair */
	json_t *pairs;             /* of the run */
	json_t *sources;           /* of the pairs so far */
	char *turns;               /* [cap] of this pair */
	size_t n_turns, cap;       /* bytes */
};

struct run {
	const pal__map_plan *plan;
	pal_model *model;
	const pal_model *vocabulary; /* whose ids are used */
	pal__script script;
	const char *mode;
	pal_sampling sampling;
	struct arm arms[ARMS];
	size_t n_arms;
	uint64_t done, total;
	pal_error *err;
};

static const char *const modes[] = {"greedy", "sampled"};

static size_t n_modes(const pal__map_plan *p)
{
	return p->replay || p->temperature <= 0 ? 1 : 2;
}

static const char *mode_name(const pal__map_plan *p, size_t i)
{
	return p->replay ? "replay" : modes[i];
}

/* Tokens of the reply of a turn, and all of them that are generated. */
static size_t reply_most(const pal__map_plan *p, size_t n)
{
	return p->most && (size_t)p->most < n ? (size_t)p->most : n;
}

/* --- parameters -------------------------------------------------------------------- */

/* A list of texts, and lets go of it where it fails. */
static json_t *names_json(const char *const *names, size_t n)
{
	json_t *all = json_array();
	for (size_t i = 0; i < n; i++)
		if (json_array_append_new(all, json_string(names[i])) != 0) {
			json_decref(all);
			return NULL;
		}
	return all;
}

static pal_status workload_json(const pal__workload *w, const pal__script *s, json_t *all,
				pal_error *err)
{
	size_t cap = 24 * s->n_turns, at = 0, given = 0;
	char hash[17], *replies = pal__alloc(cap);
	const int32_t *ids;
	if (!replies)
		return pal__fail_memory(err, "the replies' lengths", cap);
	for (size_t t = 0; t < s->n_turns; t++) {
		given += pal__script_part(s, 2 * t, &ids);
		at += (size_t)snprintf(replies + at, cap - at, "%s%zu", t ? " " : "",
				       pal__script_part(s, 2 * t + 1, &ids));
	}
	snprintf(hash, sizeof hash, "%016" PRIx64, w->hash);
	json_t *one = json_pack("{s:s, s:s, s:I, s:s}", "name", w->name, "hash", hash, "given",
				(json_int_t)given, "replies", replies);
	pal__free(replies);
	return json_array_append_new(all, one) == 0 ? PAL_OK
						    : pal__fail_memory(err, "the evidence", 0);
}

pal_status pal__map_parameters(const pal__map_plan *plan, const pal_model *model,
			       const pal_model *vocabulary, json_t **out, pal_error *err)
{
	const char *used[2] = {mode_name(plan, 0), modes[1]};
	json_t *workloads = json_array();
	pal_model_info info, words;
	char seed[24], hash[17];
	pal_status s = PAL_OK;
	pal_model_get_info(model, &info);
	pal_model_get_info(vocabulary, &words);
	for (size_t i = 0; i < plan->n_workloads && !s; i++) {
		pal__script script = {0};
		s = pal__script_new(&plan->workloads[i], vocabulary, (size_t)plan->turns,
				    info.n_vocab, &script, err);
		if (!s)
			s = workload_json(&plan->workloads[i], &script, workloads, err);
		pal__script_free(&script);
	}
	if (s) {
		json_decref(workloads);
		return s;
	}
	snprintf(seed, sizeof seed, "%" PRIu64, plan->seed);
	snprintf(hash, sizeof hash, "%016" PRIx64, words.hash);
	*out = json_pack("{s:b, s:b, s:I, s:I, s:I, s:f, s:s, s:s, s:o, s:o, s:o}", "replay",
			 plan->replay, "ignore_eos", plan->ignore_end, "pairs",
			 (json_int_t)plan->pairs, "most", (json_int_t)plan->most, "turns",
			 (json_int_t)plan->turns, "temp",
			 plan->replay ? 0 : (double)plan->temperature, "seed", seed, "vocabulary",
			 hash, "drafters", names_json(plan->drafters, plan->n_drafters), "modes",
			 names_json(used, n_modes(plan)), "workloads", workloads);
	return *out ? PAL_OK : pal__fail_memory(err, "the evidence", 0);
}

/* --- one pair ---------------------------------------------------------------------- */

static void advance(struct run *r, size_t tokens)
{
	r->done += tokens;
	if (r->plan->progress)
		r->plan->progress(r->plan->user, r->done, r->total);
}

/* Room for the whole transcript, and for drafts that reach beyond it. */
static int64_t context(const struct run *r)
{
	return (int64_t)r->script.ends[2 * r->script.n_turns - 1] + PAL__DRAFT_MOST;
}

static pal_status open_arm(struct run *r, struct arm *a)
{
	pal_session_options o = r->plan->session;
	const pal_drafter_options d = {.source = a->name, .cache_dir = r->plan->cache_dir};
	if (o.kv_policy == PAL_KV_FULL)
		o.n_ctx = context(r);
	pal_status s = pal_session_open(r->model, &o, &a->session, r->err);
	if (!s && a->name && strcmp(a->name, "none") != 0)
		s = pal__drafter_open(r->model, r->vocabulary, &d, &a->drafter, r->err);
	a->hash = XXH3_createState();
	if (!s && !a->hash)
		s = pal__fail_memory(r->err, "the hash of what is generated", 0);
	if (!s)
		XXH3_64bits_reset(a->hash);
	return s;
}

static void close_arm(struct arm *a)
{
	XXH3_freeState(a->hash);
	pal_drafter_close(a->drafter);
	pal_session_close(a->session);
	a->hash = NULL;
	a->drafter = NULL;
	a->session = NULL;
}

/* The reply of one turn: what is timed. In a replay what the limit leaves out of the reply joins
 * the log behind it. */
static pal_status reply(struct run *r, struct arm *a, size_t turn)
{
	const int32_t *ids;
	size_t n = pal__script_part(&r->script, 2 * turn + 1, &ids);
	size_t most = reply_most(r->plan, n);
	pal_generate_options o = {.sampling = r->sampling,
				  .max_tokens = (int64_t)most,
				  .ignore_end = r->plan->replay || r->plan->ignore_end,
				  .drafter = a->drafter};
	pal_status s;
	a->log_from = pal_session_length(a->session);
	if (r->plan->replay)
		s = pal__generate_along(a->session, &o, ids, most, &a->reply, r->err);
	else
		s = pal_generate(a->session, &o, &a->reply, r->err);
	if (!s) {
		int64_t n_tokens =
			a->reply.n_tokens; /* so that the turns' borders are hashed, too */
		XXH3_64bits_update(a->hash, &n_tokens, sizeof n_tokens);
		XXH3_64bits_update(a->hash, pal_session_log(a->session) + a->log_from,
				   (size_t)n_tokens * sizeof *ids);
	}
	if (!s && r->plan->replay && most < n)
		s = pal_session_append(a->session, ids + most, n - most, NULL, NULL, NULL, r->err);
	return s;
}

/* Adds a turn's numbers to the arm's text. */
static pal_status note(struct run *r, struct arm *a, const int64_t *x, int n)
{
	void *text = a->turns;
	if (!pal__grow(&text, &a->cap, a->n_turns + 32 * (size_t)n, 1))
		return pal__fail_memory(r->err, "the samples", a->cap);
	a->turns = text;
	for (int i = 0; i < n; i++)
		a->n_turns +=
			(size_t)snprintf(a->turns + a->n_turns, a->cap - a->n_turns, "%s%" PRId64,
					 i            ? " "
					 : a->n_turns ? ";"
						      : "",
					 x[i]);
	return PAL_OK;
}

static int64_t nanoseconds(const struct arm *a)
{
	int64_t ns = (int64_t)(a->reply.seconds * 1e9);
	return ns > 0 ? ns : 1;
}

/* How many tokens from the first on are those of plain decoding. */
static int64_t same(const struct arm *plain, const struct arm *a)
{
	const int32_t *x = pal_session_log(plain->session) + plain->log_from;
	const int32_t *y = pal_session_log(a->session) + a->log_from;
	int64_t n = plain->reply.n_tokens < a->reply.n_tokens ? plain->reply.n_tokens
							      : a->reply.n_tokens;
	int64_t i = 0;
	while (i < n && x[i] == y[i])
		i++;
	return i;
}

static pal_status run_turn(struct run *r, int64_t pair, size_t turn)
{
	const int32_t *ids;
	size_t n = pal__script_part(&r->script, 2 * turn, &ids);
	pal_status s = PAL_OK;
	for (size_t i = 0; i < r->n_arms && !s; i++) {
		struct arm *a = &r->arms[((size_t)pair + turn + i) % r->n_arms];
		s = pal_session_append(a->session, ids, n, NULL, NULL, NULL, r->err);
		if (!s)
			s = reply(r, a, turn);
		advance(r,
			r->script.ends[2 * turn + 1] - (turn ? r->script.ends[2 * turn - 1] : 0));
	}
	for (size_t i = 0; i < r->n_arms && !s; i++) {
		struct arm *a = &r->arms[i];
		const int64_t plain[PAL__MAP_N_PLAIN] = {a->reply.n_tokens, nanoseconds(a)};
		const int64_t drafted[PAL__MAP_N_DRAFTED] = {
			a->reply.n_tokens, same(&r->arms[0], a), a->reply.forwards,
			a->reply.drafted,  a->reply.accepted,    nanoseconds(a)};
		s = i ? note(r, a, drafted, PAL__MAP_N_DRAFTED)
		      : note(r, a, plain, PAL__MAP_N_PLAIN);
	}
	return s;
}

static json_int_t count(const json_t *source, const char *name)
{
	return json_integer_value(json_object_get(source, name));
}

/* What the drafter's sources did joins those of the pairs before. */
static pal_status add_sources(struct run *r, struct arm *a)
{
	pal_draft_stats t;
	for (size_t i = 0; a->drafter && pal_drafter_stats(a->drafter, i, &t); i++) {
		json_t *old = json_array_get(a->sources, i);
		json_t *one =
			json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:f}", "name", t.source,
				  "proposals", count(old, "proposals") + (json_int_t)t.proposals,
				  "drafted", count(old, "drafted") + (json_int_t)t.drafted,
				  "accepted", count(old, "accepted") + (json_int_t)t.accepted,
				  "guessed", count(old, "guessed") + (json_int_t)t.guessed, "right",
				  count(old, "right") + (json_int_t)t.right, "seconds",
				  json_real_value(json_object_get(old, "seconds")) + t.seconds);
		if ((old ? json_array_set_new(a->sources, i, one)
			 : json_array_append_new(a->sources, one)) != 0)
			return pal__fail_memory(r->err, "the samples", 0);
	}
	return PAL_OK;
}

static pal_status end_pair(struct run *r, struct arm *a)
{
	char hash[17];
	snprintf(hash, sizeof hash, "%016" PRIx64, (uint64_t)XXH3_64bits_digest(a->hash));
	json_t *one = json_pack("{s:s, s:s#}", "output", hash, "turns", a->turns, a->n_turns);
	a->n_turns = 0;
	if (json_array_append_new(a->pairs, one) != 0)
		return pal__fail_memory(r->err, "the samples", 0);
	return add_sources(r, a);
}

static pal_status run_pair(struct run *r, int64_t pair)
{
	pal_status s = PAL_OK;
	for (size_t i = 0; i < r->n_arms && !s; i++)
		s = open_arm(r, &r->arms[i]);
	for (size_t turn = 0; turn < r->script.n_turns && !s; turn++)
		s = run_turn(r, pair, turn);
	for (size_t i = 0; i < r->n_arms && !s; i++)
		s = end_pair(r, &r->arms[i]);
	for (size_t i = 0; i < r->n_arms; i++)
		close_arm(&r->arms[i]);
	return s;
}

/* --- all of it ---------------------------------------------------------------------- */

/* Plain decoding and drafters of one workload and mode, joined to `runs`. */
static pal_status add_run(struct run *r, const char *isa, const char *workload, json_t *runs)
{
	json_t *drafted = json_array();
	bool done = true;
	for (size_t i = 1; i < r->n_arms; i++) {
		const struct arm *a = &r->arms[i];
		done &= json_array_append_new(drafted, json_pack("{s:s, s:O, s:O}", "drafter",
								 a->name, "pairs", a->pairs,
								 "sources", a->sources)) == 0;
	}
	json_t *one = json_pack("{s:s, s:s, s:s, s:O, s:o}", "isa", isa, "workload", workload,
				"mode", r->mode, "plain", r->arms[0].pairs, "drafted", drafted);
	done &= json_array_append_new(runs, one) == 0;
	return done ? PAL_OK : pal__fail_memory(r->err, "the samples", 0);
}

static pal_status run_mode(struct run *r, size_t workload, json_t *runs)
{
	pal_model_info info;
	pal_status s = PAL_OK;
	pal_model_get_info(r->model, &info);
	for (size_t i = 0; i < r->n_arms; i++) {
		r->arms[i] = (struct arm){.name = i ? r->plan->drafters[i - 1] : NULL,
					  .pairs = json_array(),
					  .sources = json_array()};
		if (!r->arms[i].pairs || !r->arms[i].sources)
			s = pal__fail_memory(r->err, "the samples", 0);
	}
	for (int64_t pair = 0; pair < r->plan->pairs && !s; pair++)
		s = run_pair(r, pair);
	if (!s)
		s = add_run(r, info.isa, r->plan->workloads[workload].name, runs);
	for (size_t i = 0; i < r->n_arms; i++) {
		json_decref(r->arms[i].pairs);
		json_decref(r->arms[i].sources);
		pal__free(r->arms[i].turns);
	}
	return s;
}

/* The script of one workload is that of every instruction set, so making it again is cheap. */
static pal_status open_script(struct run *r, const pal_model *vocabulary, size_t workload)
{
	pal_model_info info;
	pal_model_get_info(r->model, &info);
	return pal__script_new(&r->plan->workloads[workload], vocabulary, (size_t)r->plan->turns,
			       info.n_vocab, &r->script, r->err);
}

pal_status pal__map_run(const pal__map_plan *plan, pal_model *model, const pal_model *vocabulary,
			json_t *runs, pal_error *err)
{
	struct run r = {.plan = plan,
			.model = model,
			.vocabulary = vocabulary,
			.n_arms = plan->n_drafters + 1,
			.err = err};
	size_t each = r.n_arms * (size_t)plan->pairs * n_modes(plan);
	pal_status s = PAL_OK;
	for (size_t w = 0; w < plan->n_workloads && !s; w++) {
		s = open_script(&r, vocabulary, w);
		if (!s)
			r.total += each * r.script.ends[2 * r.script.n_turns - 1];
		pal__script_free(&r.script);
	}
	for (size_t w = 0; w < plan->n_workloads && !s; w++) {
		s = open_script(&r, vocabulary, w);
		for (size_t i = 0; i < n_modes(plan) && !s; i++) {
			r.mode = mode_name(plan, i);
			r.sampling = pal_sampling_default();
			r.sampling.seed = plan->seed;
			r.sampling.temperature = i ? plan->temperature : 0;
			s = run_mode(&r, w, runs);
		}
		pal__script_free(&r.script);
	}
	return s;
}
