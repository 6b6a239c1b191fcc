/* pal run: a prompt, and what the model goes on with. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/process.h"
#include "cli/command.h"
#include "cli/engine.h"
#include "cli/input.h"
#include "cli/output.h"

static pal__engine engine = PAL__ENGINE_DEFAULTS;
static pal_sampling sampling = {.top_p = 1, .repeat_penalty = 1, .repeat_last = 64};
static int64_t n_predict = 256;
static const char *prompt_text, *prompt_file, *template_name, *system_text, *think = "default";
static pal__texts stops;
static bool ignore_end, ids_mode, chat, json;

static const pal__option options[] = {
	PAL__TEXT(NULL, 'p', &prompt_text, "TEXT", "the prompt"),
	PAL__TEXT(NULL, 'f', &prompt_file, "FILE",
		  "read the prompt from FILE (default: standard input)"),
	PAL__FLAG("ids", 0, &ids_mode, "token ids in, token ids out, one a line"),
	PAL__INT(NULL, 'n', &n_predict, 0, PAL_MAX_CONTEXT,
		 "tokens to generate (default 256; 0: until the context is full)"),
	PAL__OPTIONS_SAMPLING(sampling, "0", "off", "off", "off"),
	PAL__TEXTS("stop", 0, &stops, "TEXT", "stop before TEXT; can be given several times"),
	PAL__FLAG("ignore-eos", 0, &ignore_end, "go on after an end-of-sequence token"),
	PAL__FLAG("chat", 0, &chat, "the prompt is a user's message: put it into the template"),
	PAL__OPTION_TEMPLATE(template_name),
	PAL__OPTION_SYSTEM(system_text),
	PAL__OPTION_THINK(think),
	PAL__OPTION_CTX(engine,
			"room for N tokens, prompt included (default: what this run needs,\n"
			"within what the model was trained for)"),
	PAL__OPTIONS_KV(engine),
	PAL__OPTION_KV_TYPE(engine),
	PAL__OPTION_DRAFT(engine),
	PAL__OPTION_THREADS(engine),
	PAL__OPTION_BATCH(engine),
	PAL__OPTION_ISA(engine),
	PAL__OPTION_CACHE_DIR(engine),
	PAL__FLAG("json", 0, &json, "print one JSON object with the text and how it came about"),
	PAL__OPTION_QUIET(engine),
	PAL__NO_MORE_OPTIONS,
};

/* What a run takes and gives, for the reports at its end. */
struct run {
	const char *path;
	pal_model *model;
	pal_model_info info;
	int32_t *prompt; /* [n_prompt] */
	size_t n_prompt;
	int64_t n_ctx;
	char *text; /* [n_text] generated; kept for --json only */
	size_t n_text, text_cap;
	uint64_t kv_bytes, scratch_bytes;
	double load_s, prompt_s;
	pal_drafter *drafter;
	pal_generate_result result;
	pal__bar bar;
	pal_error error; /* of the callback */
};

/* --- the prompt ----------------------------------------------------------- */

static pal_status check_options(pal_error *err)
{
	if (prompt_text && prompt_file)
		return pal__fail(err, PAL_EINVAL, "-p and -f exclude each other");
	if (ids_mode && (prompt_text || chat))
		return pal__fail(err, PAL_EINVAL, "--ids excludes -p and --chat");
	if (!chat && (template_name || system_text || strcmp(think, "default")))
		return pal__fail(err, PAL_EINVAL, "--template, --system and --think need --chat");
	if (system_text) {
		pal_status s = pal__check_utf8(system_text, strlen(system_text), "--system", err);
		if (s)
			return s;
	}
	return pal__engine_check(&engine, err);
}

static pal_status read_prompt(char **text, size_t *n, pal_error *err)
{
	pal_status s = PAL_OK;
	if (prompt_text) {
		*n = strlen(prompt_text);
		*text = pal__strndup(prompt_text, *n);
		if (!*text)
			return pal__fail_memory(err, "the prompt", *n);
	} else {
		if (!prompt_file && isatty(STDIN_FILENO) && !engine.quiet)
			fputs("pal: reading the prompt from the terminal; Ctrl-D ends it\n",
			      stderr);
		s = pal__read_all(prompt_file, text, n, err);
		if (s)
			return s;
	}
	s = pal__check_utf8(*text, *n, "the prompt", err);
	if (s)
		pal__free(*text);
	return s;
}

static pal_status tokenize_chat(struct run *r, const char *text, pal_error *err)
{
	pal_message messages[2] = {{"system", system_text}, {"user", text}};
	return pal_chat_tokens(r->model, template_name, messages + !system_text,
			       system_text ? 2 : 1, true, pal__thinking(think), &r->prompt,
			       &r->n_prompt, err);
}

static pal_status get_prompt(struct run *r, pal_error *err)
{
	char *text;
	size_t n;
	if (ids_mode)
		return pal__read_ids(prompt_file, r->info.n_vocab, &r->prompt, &r->n_prompt, err);
	pal_status s = read_prompt(&text, &n, err);
	if (s)
		return s;
	if (chat && strlen(text) < n)
		s = pal__fail(err, PAL_EINVAL, "the prompt has a zero byte at offset %zu",
			      strlen(text));
	else if (chat)
		s = tokenize_chat(r, text, err);
	else
		s = pal_tokenize(r->model, text, n, PAL_TOKENIZE_SPECIAL | PAL_TOKENIZE_ADD,
				 &r->prompt, &r->n_prompt, err);
	pal__free(text);
	return s;
}

/* Without --ctx: the prompt and what is to be generated, within the trained context. */
static pal_status choose_context(struct run *r, pal_error *err)
{
	int64_t n = (int64_t)r->n_prompt, most = r->info.n_ctx_train;
	if (!n)
		return pal__fail(err, PAL_EINVAL, "the prompt is empty");
	if (pal__engine_bounded(&engine)) { /* a bounded session goes on for ever */
		r->n_ctx = engine.ctx;
		return PAL_OK;
	}
	most = most > PAL_MAX_CONTEXT ? PAL_MAX_CONTEXT : most;
	if (engine.ctx)
		r->n_ctx = engine.ctx;
	else
		r->n_ctx = n_predict && n + n_predict < most ? n + n_predict : most;
	if (n > r->n_ctx)
		return pal__fail(err, PAL_ELIMIT,
				 "the prompt has %lld tokens, the context room for %lld%s",
				 (long long)n, (long long)r->n_ctx,
				 engine.ctx ? "" : " (trained length; --ctx N goes beyond)");
	if (r->n_ctx > r->info.n_ctx_train && !engine.quiet)
		fprintf(stderr,
			"pal: the model was trained for %lld positions: beyond them it "
			"may write nonsense\n",
			(long long)r->info.n_ctx_train);
	return PAL_OK;
}

/* --- generation ----------------------------------------------------------- */

static bool on_prompt(void *user, size_t done, size_t total)
{
	pal__bar_update(user, done, total);
	return true;
}

static bool keep_text(struct run *r, const char *text, size_t n)
{
	if (!pal__grow((void **)&r->text, &r->text_cap, r->n_text + n, 1)) {
		pal__fail_memory(&r->error, "generated text", r->n_text + n);
		return false;
	}
	memcpy(r->text + r->n_text, text, n);
	r->n_text += n;
	return true;
}

static bool on_token(void *user, int32_t id, const char *text, size_t n)
{
	struct run *r = user;
	pal_status s = PAL_OK;
	if (json)
		return !n || keep_text(r, text, n);
	if (ids_mode)
		s = id < 0 ? PAL_OK : pal__out_id(id, &r->error);
	else
		s = pal__out_write(text, n, &r->error);
	return !s && (!n || !pal__out_flush(&r->error));
}

static pal_status generate(struct run *r, pal_session *s, pal_error *err)
{
	double start = pal__now();
	pal__bar_start(&r->bar, "reading the prompt", "tok", engine.quiet);
	pal_status status =
		pal_session_append(s, r->prompt, r->n_prompt, NULL, on_prompt, &r->bar, err);
	pal__bar_end(&r->bar);
	if (status)
		return status;
	r->prompt_s = pal__now() - start;
	const pal_generate_options o = {.sampling = sampling,
					.max_tokens = n_predict,
					.stops = stops.items,
					.n_stops = stops.n,
					.ignore_end = ignore_end,
					.drafter = r->drafter,
					.on_token = on_token,
					.user = r};
	status = pal_generate(s, &o, &r->result, err);
	if (!status && r->error.code) {
		*err = r->error;
		return r->error.code;
	}
	return status;
}

/* --- reports -------------------------------------------------------------- */

static const char *stop_name(pal_stop stop)
{
	static const char *const names[] = {[PAL_STOP_LIMIT] = "limit",
					    [PAL_STOP_END] = "end",
					    [PAL_STOP_STRING] = "string",
					    [PAL_STOP_CANCELLED] = "cancelled"};
	return names[stop];
}

static double rate(double n, double seconds)
{
	return seconds > 0 ? n / seconds : 0;
}

static json_t *json_parameters(const struct run *r)
{
	json_t *list = json_array();
	for (size_t i = 0; i < stops.n; i++)
		json_array_append_new(list,
				      pal__json_string(stops.items[i], strlen(stops.items[i])));
	return json_pack("{s:I, s:I, s:s, s:s, s:s, s:i, s:I, s:o, s:o, s:b, s:b}", "n",
			 (json_int_t)n_predict, "ctx", (json_int_t)r->n_ctx, "kv", engine.kv,
			 "kv_type", engine.kv_type, "draft", engine.draft, "threads",
			 r->info.n_threads, "batch",
			 (json_int_t)(engine.batch ? engine.batch : PAL_MAX_BATCH), "sampling",
			 pal__sampling_json(&sampling), "stop", list, "ignore_eos", ignore_end,
			 "chat", chat);
}

static pal_status report_json(const struct run *r, const pal_session *s, pal_error *err)
{
	const int32_t *log = pal_session_log(s) + r->n_prompt;
	size_t n = (size_t)pal_session_length(s) - r->n_prompt;
	double seconds = r->result.seconds;
	json_t *timings = json_pack("{s:f, s:i, s:f, s:f, s:i, s:f, s:f}", "load_s", r->load_s,
				    "prompt_tokens", (int)r->n_prompt, "prompt_s", r->prompt_s,
				    "prompt_tok_s", rate((double)r->n_prompt, r->prompt_s),
				    "generated_tokens", (int)n, "generate_s", seconds,
				    "generate_tok_s", rate((double)n, seconds));
	json_t *memory = json_pack(
		"{s:I, s:I, s:I, s:I}", "peak_rss_bytes", (json_int_t)pal__process_memory("VmHWM"),
		"weight_bytes", (json_int_t)r->info.weight_bytes, "kv_bytes",
		(json_int_t)r->kv_bytes, "scratch_bytes", (json_int_t)r->scratch_bytes);
	pal__memory_json(s, memory);
	json_t *drafts = json_object();
	pal__draft_json(r->drafter, &r->result, drafts);
	return pal__out_json(json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:s, s:o, s:o, s:o}",
				       "machine", pal__json_machine(), "build", pal__json_build(),
				       "model", pal__json_model(r->path, &r->info), "parameters",
				       json_parameters(r), "prompt_ids",
				       pal__json_ids(r->prompt, r->n_prompt), "ids",
				       pal__json_ids(log, n), "text",
				       pal__json_string(r->text ? r->text : "", r->n_text), "stop",
				       stop_name(r->result.stop), "timings", timings, "memory",
				       memory, "drafts", drafts),
			     err);
}

static void report_figures(const struct run *r, const pal_session *s)
{
	char peak[32], kv[32], memory[PAL__MEMORY_TEXT], drafts[PAL__DRAFT_TEXT];
	fprintf(stderr,
		"pal: prompt %zu tokens, %.2f s, %.1f tok/s; generated %lld, %.2f s, %.1f tok/s; "
		"peak memory %s, K/V %s%s%s\n",
		r->n_prompt, r->prompt_s, rate((double)r->n_prompt, r->prompt_s),
		(long long)r->result.n_tokens, r->result.seconds,
		rate((double)r->result.n_tokens, r->result.seconds),
		pal__human_bytes(pal__process_memory("VmHWM"), peak),
		pal__human_bytes(r->kv_bytes, kv), pal__memory_text(&engine, s, memory),
		pal__draft_text(r->drafter, &r->result, drafts));
}

static pal_status with_session(struct run *r, pal_session *s, pal_error *err)
{
	pal_status status = generate(r, s, err);
	if (status)
		return status;
	if (json)
		status = report_json(r, s, err);
	else if (!ids_mode)
		status = pal__out_write("\n", 1, err);
	if (!status)
		status = pal__out_flush(err);
	if (!status && !engine.quiet)
		report_figures(r, s);
	return status;
}

static pal_status with_model(struct run *r, pal_error *err)
{
	pal_session *session;
	pal_model_get_info(r->model, &r->info);
	pal_status s = get_prompt(r, err);
	if (!s)
		s = choose_context(r, err);
	if (s)
		return s;
	const pal_session_options o = pal__engine_session(&engine, r->n_ctx);
	s = pal_session_need(r->model, &o, &r->kv_bytes, &r->scratch_bytes, err);
	if (!s)
		s = pal_session_open(r->model, &o, &session, err);
	if (s)
		return s;
	s = pal__engine_drafter(&engine, r->model, &r->drafter, err);
	if (!s)
		s = with_session(r, session, err);
	pal_drafter_close(r->drafter);
	pal_session_close(session);
	return s;
}

static pal_status run(const char *path, pal_error *err)
{
	struct run r = {.path = path};
	pal_status s = check_options(err);
	if (!s)
		s = pal__engine_model(&engine, path, &r.model, &r.load_s, err);
	if (s)
		return s;
	s = with_model(&r, err);
	pal__free(r.prompt);
	pal__free(r.text);
	pal__engine_close(&engine, r.model);
	return s;
}

const pal__command pal__command_run = {
	.name = "run",
	.summary = "continue a prompt",
	.about = "Writes what the model goes on with after the prompt, which comes from -p, -f or\n"
		 "standard input and must be UTF-8. Tokens per second and memory are written to\n"
		 "standard error at the end.\n",
	.options = options,
	.run = run,
};
