#include "cli/engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "cli/output.h"

static const char sources[] = "recompute|spill|hidden|project";

pal_status pal__bytes_of(const char *option, const char *text, uint64_t *out, pal_error *err)
{
	static const char units[] = "KMG";
	*out = 0;
	if (!text)
		return PAL_OK;
	char *end;
	double x = strtod(text, &end);
	const char *unit = *end ? strchr(units, *end) : NULL;
	for (const char *u = units; unit && u <= unit; u++)
		x *= 1024;
	if (end == text || (*end && (!unit || end[1])) || !(x >= 1 && x <= 1e15))
		return pal__fail(err, PAL_EINVAL,
				 "--%s %s: 1 to 1e15 bytes are possible, such as 4M", option, text);
	*out = (uint64_t)x;
	return PAL_OK;
}

pal_status pal__engine_check(const pal__engine *e, pal_error *err)
{
	uint64_t bytes;
	pal_status s = pal__bytes_of("kv-budget", e->kv_budget, &bytes, err);
	return s ? s : pal__bytes_of("disk-budget", e->disk_budget, &bytes, err);
}

static void on_progress(void *user, uint64_t done, uint64_t total)
{
	pal__bar_update(user, done, total);
}

static pal_status open_model(const pal__engine *e, const char *path, pal_model **out,
			     double *seconds, pal_error *err)
{
	pal__bar bar;
	pal__bar_start(&bar, "loading", "B", e->quiet);
	const pal_model_options options = {.n_threads = (int)e->threads,
					   .isa = e->isa,
					   .cache_dir = e->cache_dir,
					   .progress = on_progress,
					   .user = &bar};
	pal_status s = pal_model_open(path, &options, out, err);
	pal__bar_end(&bar);
	if (seconds)
		*seconds = pal__now() - bar.start;
	if (s)
		return s;
	pal_model_info info;
	pal_model_get_info(*out, &info);
	if (info.cache_note && !e->quiet)
		fprintf(stderr, "pal: %s\n", info.cache_note);
	return PAL_OK;
}

pal_status pal__engine_model(pal__engine *e, const char *path, pal_model **out, double *seconds,
			     pal_error *err)
{
	pal_model *model = NULL;
	pal_status s = open_model(e, path, &model, seconds, err);
	if (!s && e->proposer)
		s = open_model(e, e->proposer, &e->proposer_model, NULL, err);
	if (s)
		pal_model_close(model);
	else
		*out = model;
	return s;
}

void pal__engine_close(pal__engine *e, pal_model *model)
{
	pal_model_close(e->proposer_model);
	pal_model_close(model);
	e->proposer_model = NULL;
}

/* name: one of the choices of --kv-type. */
static pal_kv_type kv_type(const char *name)
{
	static const char *const names[] = {[PAL_KV_F16] = "f16",
					    [PAL_KV_F32] = "f32",
					    [PAL_KV_INT8] = "int8",
					    [PAL_KV_AFFINE4] = "affine4"};
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
		if (names[i] && !strcmp(name, names[i]))
			return (pal_kv_type)i;
	return PAL_KV_I16;
}

/* Which of "a|b|c" a text is. */
static int choice(const char *text, const char *all)
{
	int at = 0;
	for (size_t n = strlen(text); strncmp(all, text, n) || (all[n] && all[n] != '|'); at++)
		all = strchr(all, '|') + 1;
	return at;
}

pal_session_options pal__engine_session(const pal__engine *e, int64_t n_ctx)
{
	pal_session_options o = {
		.n_ctx = n_ctx,
		.kv_type = kv_type(e->kv_type),
		.n_batch = (int)e->batch,
		.kv_policy = (pal_kv_policy)choice(e->kv, "full|window|restored"),
		.sink = e->sink,
		.window = e->window,
		.slots = (int)e->slots,
		.positions = (pal_positions)choice(e->positions, "compact|original"),
		.exact_full_layers = e->exact_full_layers,
		.source = (pal_source)choice(e->source, sources),
		.selection = (pal_selection)choice(e->selection, "attention|lexical|both"),
		.left = (int)e->left,
		.rounds = (int)e->rounds,
		.round_chunks = (int)e->round_chunks,
		.restore_prefill = e->restore_prefill,
		.side_car = e->side_car,
		.proposer = e->proposer_model,
		.disk_dir = e->disk_dir,
		.spill_type = (pal_spill_type)choice(e->spill_type, "f16|int8|affine4")};
	pal__bytes_of("kv-budget", e->kv_budget, &o.kv_budget, NULL);
	pal__bytes_of("disk-budget", e->disk_budget, &o.disk_budget, NULL);
	return o;
}

pal_status pal__engine_drafter(const pal__engine *e, pal_model *model, pal_drafter **out,
			       pal_error *err)
{
	const pal_drafter_options o = {
		.source = e->draft, .max_draft = (int)e->max_draft, .cache_dir = e->cache_dir};
	*out = NULL;
	return strcmp(e->draft, "none") ? pal_drafter_open(model, &o, out, err) : PAL_OK;
}

void pal__draft_json(const pal_drafter *d, const pal_generate_result *r, json_t *to)
{
	json_t *by_source = json_array();
	pal_draft_stats t;
	for (size_t i = 0; d && pal_drafter_stats(d, i, &t); i++)
		json_array_append_new(by_source,
				      json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:f}", "source",
						t.source, "proposals", (json_int_t)t.proposals,
						"drafted", (json_int_t)t.drafted, "accepted",
						(json_int_t)t.accepted, "guessed",
						(json_int_t)t.guessed, "right", (json_int_t)t.right,
						"propose_s", t.seconds));
	json_t *all = json_pack("{s:I, s:I, s:I, s:o}", "forwards", (json_int_t)r->forwards,
				"drafted", (json_int_t)r->drafted, "accepted",
				(json_int_t)r->accepted, "sources", by_source);
	json_object_update(to, all);
	json_decref(all);
}

const char *pal__draft_text(const pal_drafter *d, const pal_generate_result *r,
			    char text[PAL__DRAFT_TEXT])
{
	pal_draft_stats t;
	text[0] = 0;
	if (!r->drafted)
		return text;
	int n = snprintf(text, PAL__DRAFT_TEXT, "; drafted %lld, kept %lld (",
			 (long long)r->drafted, (long long)r->accepted);
	for (size_t i = 0; pal_drafter_stats(d, i, &t) && n < PAL__DRAFT_TEXT; i++)
		n += snprintf(text + n, PAL__DRAFT_TEXT - (size_t)n, "%s%s %llu of %llu",
			      i ? ", " : "", t.source, (unsigned long long)t.accepted,
			      (unsigned long long)t.drafted);
	if (n < PAL__DRAFT_TEXT)
		snprintf(text + n, PAL__DRAFT_TEXT - (size_t)n, ")");
	return text;
}

bool pal__engine_bounded(const pal__engine *e)
{
	return strcmp(e->kv, "full") != 0 && !e->exact_full_layers;
}

void pal__memory_json(const pal_session *s, json_t *to)
{
	pal_session_stats t;
	pal_session_get_stats(s, &t);
	json_t *filled = json_object();
	const char *name = sources;
	for (int i = 0; i < PAL_N_SOURCES; i++) {
		size_t n = strcspn(name, "|");
		json_object_setn_new(filled, name, n, json_integer((json_int_t)t.filled[i]));
		name += n + 1;
	}
	json_t *all = json_pack(
		"{s:I, s:I, s:I, s:I, s:I, s:o, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:s}",
		"resident", (json_int_t)t.resident, "evicted", (json_int_t)t.evicted, "restored",
		(json_int_t)t.restored, "events", (json_int_t)t.events, "rounds",
		(json_int_t)t.rounds, "filled", filled, "kept_reads", (json_int_t)t.kept_reads,
		"fallbacks", (json_int_t)t.fallbacks, "dropped", (json_int_t)t.dropped, "far_reads",
		(json_int_t)t.far_reads, "disk_bytes", (json_int_t)t.disk_bytes, "select_s",
		t.select_s, "fill_s", t.fill_s, "reread_s", t.reread_s, "note", t.note);
	json_object_update(to, all);
	json_decref(all);
}

const char *pal__memory_text(const pal__engine *e, const pal_session *s,
			     char text[PAL__MEMORY_TEXT])
{
	pal_session_stats t;
	uint64_t chunks = 0;
	pal_session_get_stats(s, &t);
	text[0] = 0;
	if (!pal__engine_bounded(e))
		return text;
	for (int i = 0; i < PAL_N_SOURCES; i++)
		chunks += t.filled[i];
	int n = snprintf(text, PAL__MEMORY_TEXT, "; evicted %lld, restored %llu chunks",
			 (long long)t.evicted, (unsigned long long)chunks);
	if (t.fallbacks)
		snprintf(text + n, PAL__MEMORY_TEXT - (size_t)n, ", %llu of them not by %s (%s)",
			 (unsigned long long)t.fallbacks, e->source, t.note);
	return text;
}

pal_thinking pal__thinking(const char *choice)
{
	if (!strcmp(choice, "on"))
		return PAL_THINKING_ON;
	return strcmp(choice, "off") ? PAL_THINKING_DEFAULT : PAL_THINKING_OFF;
}

json_t *pal__sampling_json(const pal_sampling *p)
{
	/* The seed as text: JSON numbers beyond 2^53 lose digits in many readers. */
	char seed[24];
	snprintf(seed, sizeof seed, "%llu", (unsigned long long)p->seed);
	return json_pack("{s:f, s:i, s:f, s:f, s:f, s:i, s:s}", "temp", (double)p->temperature,
			 "top_k", p->top_k, "top_p", (double)p->top_p, "min_p", (double)p->min_p,
			 "repeat_penalty", (double)p->repeat_penalty, "repeat_last", p->repeat_last,
			 "seed", seed);
}
