/* pal bench: how fast a model runs here. */
#include "eval/bench.h"

#include <stdio.h>

#include "cli/command.h"
#include "cli/engine.h"
#include "cli/output.h"

static pal__engine engine = PAL__ENGINE_DEFAULTS;
static int64_t n_prefill = 512, n_decode = 64;
static bool json;

static const pal__option options[] = {
	PAL__INT(NULL, 'p', &n_prefill, 1, PAL_MAX_CONTEXT / 2,
		 "tokens of the prompt (default 512)"),
	PAL__INT(NULL, 'n', &n_decode, 1, PAL_MAX_CONTEXT / 4, "tokens to decode (default 64)"),
	PAL__OPTION_THREADS(engine),
	PAL__OPTION_BATCH(engine),
	PAL__OPTION_ISA(engine),
	PAL__OPTION_KV_TYPE(engine),
	PAL__FLAG("json", 0, &json, "print one JSON object"),
	PAL__OPTION_QUIET(engine),
	PAL__NO_MORE_OPTIONS,
};

struct figures {
	const char *path;
	pal_model_info info;
	pal__bench bench;
	double load_s;
	uint64_t kv_bytes, scratch_bytes;
};

static pal_status print_json(const struct figures *f, pal_error *err)
{
	json_t *verify = json_object();
	for (int i = 0; i < PAL__BENCH_VERIFY; i++) {
		char key[8];
		snprintf(key, sizeof key, "%d", 1 << i);
		json_object_set_new(verify, key, json_real(f->bench.verify_ms[i]));
	}
	return pal__out_json(
		json_pack("{s:s, s:i, s:I, s:f, s:I, s:f, s:o, s:f, s:I, s:I, s:I, s:s, s:I, s:o, "
			  "s:o, s:o}",
			  "engine", "palimpsest", "threads", f->info.n_threads, "prefill_tokens",
			  (json_int_t)f->bench.n_prefill, "prefill_tok_s",
			  (double)f->bench.n_prefill / f->bench.prefill_s, "decode_tokens",
			  (json_int_t)f->bench.n_decode, "decode_tok_s",
			  (double)f->bench.n_decode / f->bench.decode_s, "verify_ms", verify,
			  "load_s", f->load_s, "rss_bytes",
			  (json_int_t)pal__process_memory("VmHWM"), "kv_bytes",
			  (json_int_t)f->kv_bytes, "scratch_bytes", (json_int_t)f->scratch_bytes,
			  "kv_type", engine.kv_type, "batch",
			  (json_int_t)(engine.batch ? engine.batch : PAL_MAX_BATCH), "machine",
			  pal__json_machine(), "build", pal__json_build(), "model",
			  pal__json_model(f->path, &f->info)),
		err);
}

static pal_status print_table(const struct figures *f, pal_error *err)
{
	char text[1024], peak[32], kv[32], weights[32];
	const pal__bench *b = &f->bench;
	int n = snprintf(
		text, sizeof text,
		"model     %s, %s, %s\n"
		"threads   %d (%s)\n"
		"load      %.2f s\n"
		"prefill   %8.2f tok/s  (%lld tokens)\n"
		"decode    %8.2f tok/s  (%lld tokens)\n",
		f->info.name, f->info.arch, pal__human_bytes(f->info.weight_bytes, weights),
		f->info.n_threads, f->info.isa, f->load_s, (double)b->n_prefill / b->prefill_s,
		(long long)b->n_prefill, (double)b->n_decode / b->decode_s, (long long)b->n_decode);
	n = n < (int)sizeof text ? n : (int)sizeof text - 1; /* a very long name */
	pal_status s = pal__out_write(text, (size_t)n, err);
	for (int i = 0; i < PAL__BENCH_VERIFY && !s; i++) {
		n = snprintf(text, sizeof text, "verify%-3d %8.3f ms     (%.2f of verify1)\n",
			     1 << i, b->verify_ms[i], b->verify_ms[i] / b->verify_ms[0]);
		s = pal__out_write(text, (size_t)n, err);
	}
	if (s)
		return s;
	n = snprintf(text, sizeof text, "memory    peak %s; K/V %s\n",
		     pal__human_bytes(pal__process_memory("VmHWM"), peak),
		     pal__human_bytes(f->kv_bytes, kv));
	return pal__out_write(text, (size_t)n, err);
}

static void on_progress(void *user, uint64_t done, uint64_t total)
{
	pal__bar_update(user, done, total);
}

static pal_status with_model(pal_model *model, struct figures *f, pal_error *err)
{
	pal_session *session;
	pal__bar bar;
	pal_model_get_info(model, &f->info);
	const pal_session_options o =
		pal__engine_session(&engine, pal__bench_context(n_prefill, n_decode));
	pal_status s = pal_session_need(model, &o, &f->kv_bytes, &f->scratch_bytes, err);
	if (!s)
		s = pal_session_open(model, &o, &session, err);
	if (s)
		return s;
	pal__bar_start(&bar, "measuring", "tok", engine.quiet);
	s = pal__bench_run(session, f->info.n_vocab, n_prefill, n_decode, on_progress, &bar,
			   &f->bench, err);
	pal__bar_end(&bar);
	if (!s)
		s = json ? print_json(f, err) : print_table(f, err);
	pal_session_close(session);
	return s;
}

static pal_status run(const char *path, pal_error *err)
{
	pal_model *model;
	struct figures f = {.path = path};
	pal_status s = pal__engine_model(&engine, path, &model, &f.load_s, err);
	if (s)
		return s;
	s = with_model(model, &f, err);
	pal_model_close(model);
	return s;
}

const pal__command pal__command_bench = {
	.name = "bench",
	.summary = "measure prefill, decode and verify(L)",
	.about = "Measures how fast the model reads a prompt, decodes, and computes L tokens at\n"
		 "once with the logits of each (verify, the best of 7).\n",
	.options = options,
	.run = run,
};
