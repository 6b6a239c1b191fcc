/* pal chat: a conversation at the terminal. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/process.h"
#include "cli/command.h"
#include "cli/conversation.h"
#include "cli/engine.h"
#include "cli/input.h"
#include "cli/output.h"
#include "cli/terminal.h"

#define DEFAULT_CONTEXT 8192 /* tokens, or what the model was trained for if that is less */

static pal__engine engine = PAL__ENGINE_DEFAULTS;
static pal_sampling sampling = {.temperature = 0.7f,
				.top_k = 40,
				.top_p = 0.95f,
				.min_p = 0.05f,
				.repeat_penalty = 1,
				.repeat_last = 64};
static int64_t n_predict;
static const char *template_name, *system_text, *think = "default";
static pal__texts stops;

static const pal__option options[] = {
	PAL__OPTION_SYSTEM(system_text),
	PAL__OPTION_TEMPLATE(template_name),
	PAL__OPTION_THINK(think),
	PAL__INT(NULL, 'n', &n_predict, 0, PAL_MAX_CONTEXT,
		 "tokens of one answer at most (default 0: until its end)"),
	PAL__OPTIONS_SAMPLING(sampling, "0.7", "40", "0.95", "0.05"),
	PAL__TEXTS("stop", 0, &stops, "TEXT", "stop before TEXT; can be given several times"),
	PAL__OPTION_CTX(engine, "room for N tokens (default: what the model was trained for, at\n"
				"most 8192; with --kv window or restored, no limit)"),
	PAL__OPTIONS_KV(engine),
	PAL__OPTION_KV_TYPE(engine),
	PAL__OPTION_DRAFT(engine),
	PAL__OPTION_THREADS(engine),
	PAL__OPTION_BATCH(engine),
	PAL__OPTION_ISA(engine),
	PAL__OPTION_CACHE_DIR(engine),
	PAL__OPTION_QUIET(engine),
	PAL__NO_MORE_OPTIONS,
};

struct chat {
	pal_drafter *drafter; /* or NULL */
	pal__terminal *terminal;
	pal__conversation conversation;
	pal_model_info info;
	uint64_t kv_bytes, scratch_bytes;
	pal__turn last; /* the last answered turn */
	pal__bar bar;
	pal_error out_error; /* of standard output */
	bool quit;
};

/* --- commands ------------------------------------------------------------- */

struct command {
	const char *name, *arg, *help;
	pal_status (*run)(struct chat *c, const char *arg, pal_error *err);
};

static pal_status show_help(struct chat *c, const char *arg, pal_error *err);

static pal_status do_reset(struct chat *c, const char *arg, pal_error *err)
{
	(void)arg;
	pal_status s = pal__conversation_reset(&c->conversation, err);
	if (!s)
		fputs("(a new conversation)\n", stderr);
	return s;
}

static pal_status do_system(struct chat *c, const char *arg, pal_error *err)
{
	pal_status s = pal__conversation_system(&c->conversation, arg, err);
	if (!s)
		fprintf(stderr, "(system message %s)\n", *arg ? "set" : "removed");
	return s;
}

static pal_status show_stats(struct chat *c, const char *arg, pal_error *err)
{
	const pal__turn *t = &c->last;
	size_t read = t->n_prompt - t->n_reused;
	char kv[32], scratch[32], peak[32], memory[PAL__MEMORY_TEXT], drafts[PAL__DRAFT_TEXT];
	(void)arg, (void)err;
	fprintf(stderr, "context   %lld of %lld tokens\n",
		(long long)pal_session_length(c->conversation.session),
		(long long)c->conversation.n_ctx);
	if (t->result.n_tokens)
		fprintf(stderr,
			"last turn %zu tokens read (%.1f tok/s), %zu kept; %lld generated "
			"(%.1f tok/s%s)\n",
			read, t->prompt_s > 0 ? (double)read / t->prompt_s : 0, t->n_reused,
			(long long)t->result.n_tokens,
			t->result.seconds > 0 ? (double)t->result.n_tokens / t->result.seconds : 0,
			pal__draft_text(c->drafter, &t->result, drafts));
	fprintf(stderr, "memory    peak %s; K/V %s, scratch %s%s\n",
		pal__human_bytes(pal__process_memory("VmHWM"), peak),
		pal__human_bytes(c->kv_bytes, kv), pal__human_bytes(c->scratch_bytes, scratch),
		pal__memory_text(&engine, c->conversation.session, memory));
	return PAL_OK;
}

/* The conversation as a JSON array of {role, content}. */
static pal_status do_save(struct chat *c, const char *arg, pal_error *err)
{
	const pal__conversation *v = &c->conversation;
	if (!*arg)
		return pal__fail(err, PAL_EINVAL, "/save needs the name of a file");
	json_t *list = json_array();
	for (size_t i = 0; i < v->n; i++)
		json_array_append_new(
			list, json_pack("{s:s, s:o}", "role", v->messages[i].role, "content",
					pal__json_string(v->messages[i].content,
							 strlen(v->messages[i].content))));
	bool complete = list && json_array_size(list) == v->n;
	int failed = complete ? json_dump_file(list, arg, JSON_INDENT(1)) : 0;
	json_decref(list);
	if (!complete)
		return pal__fail(err, PAL_ENOMEM, "out of memory: the conversation");
	if (failed)
		return pal__fail(err, PAL_EIO, "%s: cannot be written", arg);
	fprintf(stderr, "(%zu messages written to %s)\n", v->n, arg);
	return PAL_OK;
}

static pal_status do_think(struct chat *c, const char *arg, pal_error *err)
{
	if (strcmp(arg, "on") && strcmp(arg, "off"))
		return pal__fail(err, PAL_EINVAL, "/think takes on or off");
	c->conversation.thinking = pal__thinking(arg);
	fprintf(stderr, "(thinking %s)\n", arg);
	return PAL_OK;
}

static pal_status do_temp(struct chat *c, const char *arg, pal_error *err)
{
	char *end;
	double v = strtod(arg, &end);
	(void)c;
	if (end == arg || *end || !(v >= 0 && v <= 1000))
		return pal__fail(err, PAL_EINVAL, "/temp takes a number from 0 to 1000");
	sampling.temperature = (float)v;
	fprintf(stderr, "(temperature %g)\n", v);
	return PAL_OK;
}

static pal_status do_quit(struct chat *c, const char *arg, pal_error *err)
{
	(void)arg, (void)err;
	c->quit = true;
	return PAL_OK;
}

static const struct command commands[] = {
	{"/help", "", "show this list", show_help},
	{"/reset", "", "start a new conversation", do_reset},
	{"/system", "TEXT", "set the system message; without TEXT: remove it", do_system},
	{"/stats", "", "show tokens, speed and memory", show_stats},
	{"/save", "FILE", "write the conversation to FILE as JSON", do_save},
	{"/think", "on|off", "let the model think before it answers, if it can", do_think},
	{"/temp", "X", "set the temperature", do_temp},
	{"/quit", "", "leave", do_quit},
	{NULL, NULL, NULL, NULL},
};

static pal_status show_help(struct chat *c, const char *arg, pal_error *err)
{
	(void)c, (void)arg, (void)err;
	for (const struct command *k = commands; k->name; k++)
		fprintf(stderr, "  %-8s %-8s %s\n", k->name, k->arg, k->help);
	fputs("  A backslash at the end of a line goes on in the next one; a space before a\n"
	      "  slash sends the line as it is. Ctrl-C stops an answer, Ctrl-D leaves.\n",
	      stderr);
	return PAL_OK;
}

static pal_status do_command(struct chat *c, const char *line, pal_error *err)
{
	size_t n = strcspn(line, " \t");
	const char *arg = line + n + strspn(line + n, " \t");
	for (const struct command *k = commands; k->name; k++) {
		if (strlen(k->name) != n || strncmp(k->name, line, n))
			continue;
		if (*arg && !*k->arg)
			return pal__fail(err, PAL_EINVAL, "%s takes nothing after it", k->name);
		return k->run(c, arg, err);
	}
	return pal__fail(err, PAL_EINVAL, "unknown command %.*s (/help lists them)",
			 (int)(n < 40 ? n : 40), line);
}

/* --- turns ---------------------------------------------------------------- */

static bool on_progress(void *user, size_t done, size_t total)
{
	struct chat *c = user;
	pal__bar_update(&c->bar, done, total);
	return !pal__interrupted(false);
}

static bool on_text(void *user, const char *text, size_t n)
{
	struct chat *c = user;
	pal__bar_end(&c->bar);
	if (n && (pal__out_write(text, n, &c->out_error) || pal__out_flush(&c->out_error)))
		return false;
	return !pal__interrupted(false);
}

static void explain_stop(const struct chat *c, const pal__turn *t)
{
	if (t->result.stop == PAL_STOP_CANCELLED)
		fputs("(stopped)\n", stderr);
	else if (t->result.stop == PAL_STOP_LIMIT &&
		 pal_session_length(c->conversation.session) >= c->conversation.n_ctx)
		fprintf(stderr,
			"(the context of %lld tokens is full: /reset starts a new conversation; "
			"--ctx N makes room for more)\n",
			(long long)c->conversation.n_ctx);
	else if (t->result.stop == PAL_STOP_LIMIT)
		fputs("(cut off at the limit that -n sets)\n", stderr);
}

static pal_status ask(struct chat *c, const char *text, pal_error *err)
{
	const pal_generate_options o = {.sampling = sampling,
					.max_tokens = n_predict,
					.stops = stops.items,
					.n_stops = stops.n,
					.drafter = c->drafter};
	const pal__turn_calls calls = {on_progress, on_text, c};
	pal__turn turn;
	pal__interrupted(true);
	pal__bar_start(&c->bar, "reading", "tok", engine.quiet);
	pal_status s = pal__conversation_ask(&c->conversation, text, &o, &calls, &turn, err);
	pal__bar_end(&c->bar);
	if (c->out_error.code) {
		*err = c->out_error;
		return err->code;
	}
	if (s == PAL_ECANCELLED) {
		fputs("(stopped)\n", stderr);
		return PAL_OK;
	}
	if (s == PAL_ELIMIT) {
		char why[sizeof err->text];
		memcpy(why, err->text, sizeof why);
		return pal__fail(err, s,
				 "%.300s: /reset starts a new conversation; --ctx N makes "
				 "room for more",
				 why);
	}
	if (s)
		return s;
	c->last = turn;
	s = pal__out_write("\n", 1, err);
	if (!s)
		s = pal__out_flush(err);
	if (!s)
		explain_stop(c, &turn);
	return s;
}

static pal_status do_line(struct chat *c, const char *text, size_t n, pal_error *err)
{
	if (strlen(text) < n)
		return pal__fail(err, PAL_EINVAL, "the input has a zero byte");
	pal_status s = pal__check_utf8(text, n, "the input", err);
	if (s || !text[strspn(text, " \t\r\n")])
		return s;
	return *text == '/' ? do_command(c, text, err)
			    : ask(c, text + !strncmp(text, " /", 2), err);
}

/* At a terminal a failed turn is told and the conversation goes on; from a pipe nobody
 * could react, so it ends. */
static pal_status loop(struct chat *c, pal_error *err)
{
	bool interactive = pal__terminal_interactive(c->terminal);
	while (!c->quit) {
		pal__line_kind kind;
		const char *text;
		size_t n;
		pal_status s = pal__terminal_read(c->terminal, &kind, &text, &n, err);
		if (s)
			return s;
		if (kind == PAL__LINE_END)
			break;
		if (kind == PAL__LINE_CTRL_C)
			fputs("\n(/quit or Ctrl-D leaves)\n", stderr);
		else if (kind == PAL__LINE_EMPTIED)
			fputs("\n", stderr);
		else
			s = do_line(c, text, n, err);
		if (s && (!interactive || c->out_error.code))
			return s;
		if (s)
			fprintf(stderr, "pal: %s\n", err->text);
	}
	if (interactive && !c->quit)
		fputs("\n", stderr);
	return PAL_OK;
}

/* --- setting up ----------------------------------------------------------- */

static pal_status check_template(struct chat *c, pal_error *err)
{
	const pal_message hello = {"user", "hello"};
	char *text;
	size_t n;
	pal_status s = pal_chat_format(c->conversation.model, template_name, &hello, 1, true,
				       c->conversation.thinking, &text, &n, err);
	if (!s)
		pal_free(text);
	return s;
}

static pal_status with_session(struct chat *c, pal_error *err)
{
	pal_status s = pal__conversation_system(&c->conversation, system_text, err);
	if (!s)
		s = pal__terminal_open(&c->terminal, err);
	if (s)
		return s;
	if (pal__terminal_interactive(c->terminal) && !engine.quiet)
		fprintf(stderr, "%s, context of %lld tokens. /help lists the commands.\n",
			c->info.name, (long long)c->conversation.n_ctx);
	s = loop(c, err);
	pal__terminal_close(c->terminal);
	return s;
}

static pal_status with_model(struct chat *c, pal_error *err)
{
	pal_model *model = c->conversation.model;
	pal_model_get_info(model, &c->info);
	int64_t trained = c->info.n_ctx_train;
	c->conversation.n_ctx = engine.ctx                     ? engine.ctx
				: pal__engine_bounded(&engine) ? PAL_MAX_LOG
				: trained < DEFAULT_CONTEXT    ? trained
							       : DEFAULT_CONTEXT;
	const pal_session_options o = pal__engine_session(&engine, c->conversation.n_ctx);
	pal_status s = check_template(c, err);
	if (!s)
		s = pal_session_need(model, &o, &c->kv_bytes, &c->scratch_bytes, err);
	if (!s)
		s = pal_session_open(model, &o, &c->conversation.session, err);
	if (s)
		return s;
	s = pal__engine_drafter(&engine, model, &c->drafter, err);
	if (!s)
		s = with_session(c, err);
	pal_drafter_close(c->drafter);
	pal__conversation_free(&c->conversation);
	pal_session_close(c->conversation.session);
	return s;
}

static pal_status run(const char *path, pal_error *err)
{
	struct chat c = {
		.conversation = {.template_name = template_name, .thinking = pal__thinking(think)}};
	pal_status s = pal__engine_check(&engine, err);
	if (!s && system_text)
		s = pal__check_utf8(system_text, strlen(system_text), "--system", err);
	if (!s)
		s = pal__engine_model(&engine, path, &c.conversation.model, NULL, err);
	if (s)
		return s;
	s = with_model(&c, err);
	pal__engine_close(&engine, c.conversation.model);
	return s;
}

const pal__command pal__command_chat = {
	.name = "chat",
	.summary = "talk with a model",
	.about =
		"Reads messages line by line and streams the answers. At a terminal there is line\n"
		"editing and a history, Ctrl-C stops an answer, Ctrl-D leaves, and /help lists\n"
		"commands. From a pipe every line is a message, and a failure ends the program.\n",
	.options = options,
	.run = run,
};
