/* pal bench: how fast a model runs here. */
#include "eval/bench.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/process.h"
#include "cli/command.h"
#include "cli/engine.h"
#include "cli/output.h"
#include "model/model.h"

static pal__engine engine = PAL__ENGINE_DEFAULTS;
static pal__bench_plan plan = {.n_prefill = 512, .n_decode = 64};
static const char *depths, *verify = "1,2,3,4,6,8,12,16,24,32";
static bool json;

static const pal__option options[] = {
	PAL__INT(NULL, 'p', &plan.n_prefill, 1, PAL_MAX_CONTEXT / 2,
		 "tokens of the prompt (default 512)"),
	PAL__INT(NULL, 'n', &plan.n_decode, 1, PAL_MAX_CONTEXT / 4,
		 "tokens to decode (default 64)"),
	PAL__TEXT("depths", 0, &depths, "N,N...",
		  "also measure after prompts of so many tokens, ascending"),
	PAL__TEXT("verify", 0, &verify, "N,N...",
		  "lengths to verify, ascending (default 1,2,3,4,6,8,12,16,24,32)"),
	PAL__OPTION_THREADS(engine),
	PAL__OPTION_BATCH(engine),
	PAL__OPTION_ISA(engine),
	PAL__OPTION_CACHE_DIR(engine),
	PAL__OPTIONS_KV(engine),
	PAL__OPTION_KV_TYPE(engine),
	PAL__FLAG("json", 0, &json, "print one JSON object"),
	PAL__OPTION_QUIET(engine),
	PAL__NO_MORE_OPTIONS,
};

struct figures {
	const char *path;
	pal_model_info info;
	pal__bench bench;
	double load_s, read_bytes_s; /* read_bytes_s: of the machine's memory */
	uint64_t kv_bytes, scratch_bytes, token_bytes, peak_bytes;
};

static double rate(int64_t n, double seconds)
{
	return (double)n / seconds;
}

/* The share of the machine's reading speed at which decoding reads the weights, and, if so
 * wanted, the K/V. */
static double share(const struct figures *f, const pal__bench_depth *d, bool kv)
{
	double bytes = (double)f->token_bytes + (kv ? d->kv_bytes : 0);
	return rate(plan.n_decode, d->decode_s) * bytes / f->read_bytes_s;
}

/* Reads a list of ascending numbers from 1 to max. */
static pal_status parse_list(const char *name, const char *text, int64_t max, pal__bench_list *out,
			     pal_error *err)
{
	out->n = 0;
	for (const char *at = text; at;) {
		char *end;
		long long n = *at >= '0' && *at <= '9' ? strtoll(at, &end, 10) : 0;
		int64_t last = out->n ? out->items[out->n - 1] : 0;
		if (n <= last || n > max || (*end && *end != ','))
			return pal__fail(err, PAL_EINVAL,
					 "%s %s: ascending numbers from 1 to %lld with commas "
					 "between them are wanted",
					 name, text, (long long)max);
		if (out->n == PAL__BENCH_LIST)
			return pal__fail(err, PAL_ELIMIT, "%s: at most %d are possible", name,
					 PAL__BENCH_LIST);
		out->items[out->n++] = n;
		at = *end ? end + 1 : NULL;
	}
	return PAL_OK;
}

static json_t *depths_json(const struct figures *f)
{
	json_t *all = json_array();
	for (size_t i = 0; i < plan.depths.n; i++) {
		const pal__bench_depth *d = &f->bench.depths[i];
		int64_t depth = plan.depths.items[i];
		json_t *one = json_pack(
			"{s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:i}", "depth", (json_int_t)depth,
			"prefill_tok_s", rate(depth, d->prefill_s), "decode_tok_s",
			rate(plan.n_decode, d->decode_s), "restore_s", d->restore_s,
			"token_kv_bytes", d->kv_bytes, "read_share", share(f, d, false),
			"read_share_kv", share(f, d, true), "fill_s", d->fill_s, "slots", d->slots);
		if (json_array_append_new(all, one) != 0) {
			json_decref(all);
			return NULL;
		}
	}
	return all;
}

static pal_status print_json(const struct figures *f, pal_error *err)
{
	json_t *times = json_object();
	for (size_t i = 0; i < plan.verify.n; i++) {
		char key[8];
		snprintf(key, sizeof key, "%d", (int)plan.verify.items[i]);
		json_object_set_new(times, key, json_real(f->bench.verify_ms[i]));
	}
	return pal__out_json(
		json_pack("{s:s, s:i, s:I, s:f, s:I, s:f, s:o, s:f, s:I, s:I, s:I, s:s, s:s, s:I, "
			  "s:o, "
			  "s:I, s:f, s:f, s:f, s:f, s:o, s:o, s:o}",
			  "engine", "palimpsest", "threads", f->info.n_threads, "prefill_tokens",
			  (json_int_t)plan.n_prefill, "prefill_tok_s",
			  rate(plan.n_prefill, f->bench.first.prefill_s), "decode_tokens",
			  (json_int_t)plan.n_decode, "decode_tok_s",
			  rate(plan.n_decode, f->bench.first.decode_s), "verify_ms", times,
			  "load_s", f->load_s, "rss_bytes", (json_int_t)f->peak_bytes, "kv_bytes",
			  (json_int_t)f->kv_bytes, "scratch_bytes", (json_int_t)f->scratch_bytes,
			  "kv", engine.kv, "kv_type", engine.kv_type, "batch",
			  (json_int_t)(engine.batch ? engine.batch : PAL_MAX_BATCH), "depths",
			  depths_json(f), "token_bytes", (json_int_t)f->token_bytes,
			  "token_kv_bytes", f->bench.first.kv_bytes, "read_bytes_s",
			  f->read_bytes_s, "read_share", share(f, &f->bench.first, false),
			  "read_share_kv", share(f, &f->bench.first, true), "machine",
			  pal__json_machine(), "build", pal__json_build(), "model",
			  pal__json_model(f->path, &f->info)),
		err);
}

/* A line of the table. */
__attribute__((format(printf, 2, 3))) static pal_status line(pal_error *err, const char *format,
							     ...)
{
	char text[1024];
	va_list args;
	va_start(args, format);
	int n = vsnprintf(text, sizeof text, format, args);
	va_end(args);
	n = n < (int)sizeof text ? n : (int)sizeof text - 1; /* a very long name */
	return pal__out_write(text, (size_t)n, err);
}

/* How fast memory can be read, and how much of that decoding does at each depth. */
static pal_status print_reading(const struct figures *f, pal_error *err)
{
	char read[32], weights[32], kv[32];
	pal_status s = line(err, "reading   %s/s here; decode reads %s of weights a token:\n",
			    pal__human_bytes((uint64_t)f->read_bytes_s, read),
			    pal__human_bytes(f->token_bytes, weights));
	for (size_t i = 0; i <= plan.depths.n && !s; i++) {
		const pal__bench_depth *d = i ? &f->bench.depths[i - 1] : &f->bench.first;
		s = line(err, "at %-6lld that is %.0f %%; with %s of K/V, %.0f %%\n",
			 (long long)(i ? plan.depths.items[i - 1] : plan.n_prefill),
			 100 * share(f, d, false), pal__human_bytes((uint64_t)d->kv_bytes, kv),
			 100 * share(f, d, true));
	}
	return s;
}

static pal_status print_table(const struct figures *f, pal_error *err)
{
	char peak[32], kv[32], weights[32];
	const pal__bench *b = &f->bench;
	pal_status s =
		line(err,
		     "model     %s, %s, %s\n"
		     "threads   %d (%s)\n"
		     "load      %.2f s\n"
		     "prefill   %8.2f tok/s  (%lld tokens)\n"
		     "decode    %8.2f tok/s  (%lld tokens)\n",
		     f->info.name, f->info.arch, pal__human_bytes(f->info.weight_bytes, weights),
		     f->info.n_threads, f->info.isa, f->load_s,
		     rate(plan.n_prefill, b->first.prefill_s), (long long)plan.n_prefill,
		     rate(plan.n_decode, b->first.decode_s), (long long)plan.n_decode);
	for (size_t i = 0; i < plan.verify.n && !s; i++)
		s = line(err, "verify%-3d %8.3f ms     (%.2f of verify%d)\n",
			 (int)plan.verify.items[i], b->verify_ms[i],
			 b->verify_ms[i] / b->verify_ms[0], (int)plan.verify.items[0]);
	for (size_t i = 0; i < plan.depths.n && !s; i++)
		s = line(err, "at %-6lld prefill %8.2f tok/s, decode %8.2f tok/s\n",
			 (long long)plan.depths.items[i],
			 rate(plan.depths.items[i], b->depths[i].prefill_s),
			 rate(plan.n_decode, b->depths[i].decode_s));
	for (size_t i = 0; i < plan.depths.n && !s; i++)
		if (b->depths[i].slots)
			s = line(err, "at %-6lld filling %d slots takes %.1f ms\n",
				 (long long)plan.depths.items[i], b->depths[i].slots,
				 1e3 * b->depths[i].fill_s);
	if (!s)
		s = line(err, "memory    peak %s; K/V %s\n", pal__human_bytes(f->peak_bytes, peak),
			 pal__human_bytes(f->kv_bytes, kv));
	return s ? s : print_reading(f, err);
}

static void on_progress(void *user, uint64_t done, uint64_t total)
{
	pal__bar_update(user, done, total);
}

static pal_status with_session(pal_model *model, struct figures *f, pal_error *err)
{
	pal_session *session;
	pal__bar bar;
	const pal_session_options o = pal__engine_session(
		&engine, pal__engine_bounded(&engine) ? 0 : pal__bench_context(&plan));
	pal_status s = pal_session_need(model, &o, &f->kv_bytes, &f->scratch_bytes, err);
	if (!s)
		s = pal_session_open(model, &o, &session, err);
	if (s)
		return s;
	pal__bar_start(&bar, "measuring", "tok", engine.quiet);
	s = pal__bench_run(session, f->info.n_vocab, &plan, on_progress, &bar, &f->bench, err);
	pal__bar_end(&bar);
	pal_session_close(session);
	return s;
}

static pal_status run(const char *path, pal_error *err)
{
	pal_model *model;
	struct figures f = {.path = path};
	pal_status s = parse_list("--depths", depths, PAL_MAX_CONTEXT / 2, &plan.depths, err);
	if (!s)
		s = parse_list("--verify", verify, PAL__BENCH_VERIFY, &plan.verify, err);
	if (!s)
		s = pal__engine_check(&engine, err);
	if (!s)
		s = pal__engine_model(&engine, path, &model, &f.load_s, err);
	if (s)
		return s;
	pal_model_get_info(model, &f.info);
	f.token_bytes = pal__bench_token_bytes(model);
	s = with_session(model, &f, err);
	/* The peak is the model's and the session's: the next step needs memory of its own. */
	f.peak_bytes = pal__process_memory("VmHWM");
	if (!s)
		s = pal__bench_bandwidth(model->pool, &f.read_bytes_s, err);
	if (!s)
		s = json ? print_json(&f, err) : print_table(&f, err);
	pal__engine_close(&engine, model);
	return s;
}

const pal__command pal__command_bench = {
	.name = "bench",
	.summary = "measure prefill, decode and verify(L)",
	.about = "Measures how fast the model reads a prompt, decodes, and computes L tokens at\n"
		 "once with the logits of each (verify, the best of 7), and how fast the threads\n"
		 "read memory here, the limit of decoding.\n",
	.options = options,
	.run = run,
};
