/* pal inspect: what is in a model file, and the memory it needs. */
#include "model/inspect.h"

#include <stdio.h>
#include <string.h>

#include "cli/command.h"
#include "cli/engine.h"
#include "cli/output.h"

static pal__engine engine = PAL__ENGINE_DEFAULTS;
static bool json;

static const pal__option options[] = {
	PAL__OPTION_CTX(engine, "the memory of a session of N tokens (default: the length the\n"
				"model was trained for)"),
	PAL__OPTION_KV_TYPE(engine),
	PAL__OPTION_BATCH(engine),
	PAL__FLAG("json", 0, &json, "print one JSON object"),
	PAL__NO_MORE_OPTIONS,
};

/* What the model and a session need, in bytes, or why that cannot be said. */
struct memory {
	pal_error err; /* code 0: known */
	pal_model_info info;
	int64_t n_ctx;
	uint64_t kv_token, kv, scratch;
};

static pal_status ask(pal_model *model, struct memory *m)
{
	uint64_t one, two, scratch;
	pal_model_get_info(model, &m->info);
	m->n_ctx = engine.ctx ? engine.ctx : m->info.n_ctx_train;
	/* Sizes are rounded up to pages and tiles: the cost of a token is seen over many. */
	const int64_t many = 1 << 16;
	pal_session_options o = pal__engine_session(&engine, many);
	pal_status s = pal_session_need(model, &o, &one, &scratch, &m->err);
	o.n_ctx = 2 * many;
	if (!s)
		s = pal_session_need(model, &o, &two, &scratch, &m->err);
	o.n_ctx = m->n_ctx;
	if (!s)
		s = pal_session_need(model, &o, &m->kv, &m->scratch, &m->err);
	if (!s)
		m->kv_token = (two - one) / (uint64_t)many;
	return s;
}

static void find_memory(const char *path, struct memory *m)
{
	pal_model *model;
	*m = (struct memory){0};
	const pal_model_options measure = {
		.n_threads = (int)engine.threads, .isa = engine.isa, .no_weights = true};
	if (pal_model_open(path, &measure, &model, &m->err))
		return;
	ask(model, m);
	m->info.arch = m->info.name = m->info.isa = NULL; /* they go with the model */
	pal_model_close(model);
}

static pal_status print_text(const pal__gguf *g, const struct memory *m, pal_error *err)
{
	char a[32], b[32], c[32], d[32];
	pal_status s = pal__inspect_text(g, stdout, err);
	if (s)
		return s;
	if (m->err.code)
		printf("\nmemory: not known: %s\n", m->err.text);
	else
		printf("\nmemory\n"
		       "  weights           %s\n"
		       "  K/V of a token    %s (%s)\n"
		       "  K/V of %-10lld %s\n"
		       "  scratch           %s\n",
		       pal__human_bytes(m->info.weight_bytes, a), pal__human_bytes(m->kv_token, b),
		       engine.kv_type, (long long)m->n_ctx, pal__human_bytes(m->kv, c),
		       pal__human_bytes(m->scratch, d));
	return pal__out_flush(err);
}

static json_t *memory_json(const struct memory *m)
{
	if (m->err.code)
		return json_pack("{s:o}", "error",
				 pal__json_string(m->err.text, strlen(m->err.text)));
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:s}", "weight_bytes",
			 (json_int_t)m->info.weight_bytes, "kv_bytes_per_token",
			 (json_int_t)m->kv_token, "n_ctx", (json_int_t)m->n_ctx, "kv_bytes",
			 (json_int_t)m->kv, "scratch_bytes", (json_int_t)m->scratch, "kv_type",
			 engine.kv_type);
}

static pal_status print_json(const pal__gguf *g, const struct memory *m, pal_error *err)
{
	json_t *report;
	pal_status s = pal__inspect_json(g, &report, err);
	if (s)
		return s;
	if (json_object_set_new(report, "memory", memory_json(m)) != 0) {
		json_decref(report);
		return pal__fail(err, PAL_ENOMEM, "out of memory: the JSON report");
	}
	return pal__out_json(report, err);
}

static pal_status run(const char *path, pal_error *err)
{
	pal__gguf g;
	struct memory memory;
	pal_status s = pal__gguf_open(path, &g, err);
	if (s)
		return s;
	find_memory(path, &memory);
	s = json ? print_json(&g, &memory, err) : print_text(&g, &memory, err);
	pal__gguf_close(&g);
	return s;
}

const pal__command pal__command_inspect = {
	.name = "inspect",
	.summary = "show what is in a model file, and the memory it needs",
	.about = "Prints the metadata, the table of tensors, and the memory that the model and a\n"
		 "session will need.\n",
	.options = options,
	.run = run,
};
