/* /v1/chat/completions */
#include <string.h>

#include "base/mem.h"
#include "serve/answer.h"
#include "serve/params.h"
#include "serve/prompt.h"
#include "serve/sse.h"

struct chat {
	const pal__api *api;
	pal__reply *reply;
	pal__fault f;
	json_t *body, *format; /* format: a schema of our own, or NULL */
	pal__ask ask;
	pal_constraint *constraint;
	const char *model;
	char id[48];
	json_int_t created;
	pal_sampling sampling;
	const char *stops[PAL__MAX_STOPS];
	size_t n_stops;
	int64_t max_tokens;
	int n, n_logprobs, index; /* index: of the choice that is made now */
	bool stream, include_usage, logprobs;
	int32_t *ids;
	size_t n_ids;
	json_t *choices;
	pal__usage usage;
};

static pal_thinking thinking(const pal__params *p)
{
	static const char *const efforts[] = {"none", "minimal", "low", "medium",
					      "high", "xhigh",   NULL};
	const json_t *kwargs = pal__param_object(p, "chat_template_kwargs");
	const pal__params q = {kwargs, "chat_template_kwargs.", p->f};
	if (json_object_get(kwargs, "enable_thinking"))
		return pal__param_bool(&q, "enable_thinking", true) ? PAL_THINKING_ON
								    : PAL_THINKING_OFF;
	return pal__param_word(p, "reasoning_effort", efforts, 2) < 2 ? PAL_THINKING_OFF
								      : PAL_THINKING_DEFAULT;
}

static pal_status read_request(struct chat *c)
{
	const pal__params p = {c->body, "", &c->f};
	const json_t *stream_options = pal__param_object(&p, "stream_options");
	const pal__params q = {stream_options, "stream_options.", &c->f};
	pal__api_model(c->api, pal__param_string(&p, "model"), &c->model, &c->f);
	c->ask.messages = pal__param_array(&p, "messages");
	pal__ask_tools(&c->ask, &p);
	pal__ask_format(&c->ask, &p, "response_format", &c->format);
	c->ask.thinking = thinking(&p);
	int64_t most = pal__param_int(&p, "max_tokens", 1, PAL__MAX_COUNT, PAL__DEFAULT_TOKENS);
	c->max_tokens = pal__param_int(&p, "max_completion_tokens", 1, PAL__MAX_COUNT, most);
	c->sampling = pal__param_sampling(&p, 1);
	c->n_stops = pal__param_strings(&p, "stop", PAL__MAX_STOPS, c->stops);
	c->n = (int)pal__param_int(&p, "n", 1, PAL__MAX_CHOICES, 1);
	c->logprobs = pal__param_bool(&p, "logprobs", false);
	c->n_logprobs = (int)pal__param_int(&p, "top_logprobs", 0, PAL_MAX_LOGPROBS, 0);
	if (c->n_logprobs && !c->logprobs)
		pal__refuse(&c->f, "top_logprobs", "needs logprobs to be true");
	c->stream = pal__param_bool(&p, "stream", false);
	c->include_usage = pal__param_bool(&q, "include_usage", false);
	pal__ask_ids(c->api, &c->ask, true, &c->ids, &c->n_ids, &c->f);
	return pal__ask_constraint(c->api, &c->ask, &c->constraint, &c->f);
}

/* --- parts of replies ------------------------------------------------------------- */

static json_t *call_json(const pal__answer *a, size_t i)
{
	const char *name = pal__calls_name(a->calls, i),
		   *arguments = pal__calls_arguments(a->calls, i);
	char id[48];
	pal__fresh_id("call_", id, sizeof id);
	return json_pack("{s:s, s:s, s:{s:o, s:o}}", "id", id, "type", "function", "function",
			 "name", pal__json_text(name, strlen(name)), "arguments",
			 pal__json_text(arguments, strlen(arguments)));
}

static json_t *logprobs_json(pal__answer *a)
{
	json_t *list = pal__answer_logprobs(a);
	return json_is_null(list) ? list : json_pack("{s:o, s:n}", "content", list, "refusal");
}

static json_t *choice_json(struct chat *c, pal__answer *a)
{
	json_t *calls = a->n_calls ? json_array() : NULL;
	for (size_t i = 0; i < a->n_calls; i++)
		calls = pal__json_append(calls, call_json(a, i));
	json_t *text =
		a->n_calls && !a->said.n ? json_null() : pal__json_text(a->said.s, a->said.n);
	json_t *m = json_pack("{s:s, s:o, s:n}", "role", "assistant", "content", text, "refusal");
	if (a->thoughts.n)
		m = pal__json_with(m, "reasoning_content",
				   pal__json_text(a->thoughts.s, a->thoughts.n));
	if (a->n_calls)
		m = pal__json_with(m, "tool_calls", calls);
	json_t *choice =
		json_pack("{s:i, s:o, s:o, s:s}", "index", c->index, "message", m, "logprobs",
			  logprobs_json(a), "finish_reason", pal__answer_finish(a));
	return c->n > 1 ? pal__json_with(choice, "palimpsest", pal__report_json(&a->report))
			: choice;
}

static json_t *envelope(const struct chat *c, const char *object, json_t *choices)
{
	return json_pack("{s:s, s:s, s:I, s:s, s:s, s:o}", "id", c->id, "object", object, "created",
			 c->created, "model", c->model, "system_fingerprint",
			 "palimpsest-" PAL_VERSION, "choices", choices);
}

/* One chunk; finish: NULL, or why the choice ends. Takes delta. */
static bool chunk(struct chat *c, pal__answer *a, json_t *delta, const char *finish)
{
	json_t *choice = json_pack("{s:i, s:o, s:o, s:s?}", "index", c->index, "delta", delta,
				   "logprobs", logprobs_json(a), "finish_reason", finish);
	json_t *o = envelope(c, "chat.completion.chunk", pal__json_append(json_array(), choice));
	if (c->include_usage)
		o = pal__json_with(o, "usage", json_null());
	return pal__sse_send(c->reply, NULL, o, &c->f);
}

static bool on_start(pal__answer *a)
{
	struct chat *c = a->user;
	if (!pal__reply_begun(c->reply) && !pal__sse_begin(c->reply))
		return false;
	return chunk(c, a, json_pack("{s:s, s:s}", "role", "assistant", "content", ""), NULL);
}

static bool on_part(pal__answer *a, pal__part part, const char *text, size_t n)
{
	return chunk(a->user, a,
		     json_pack("{s:o}", part == PAL__THOUGHT ? "reasoning_content" : "content",
			       pal__json_text(text, n)),
		     NULL);
}

/* As others stream calls: first its name, then its arguments. */
static bool on_call(pal__answer *a, size_t i)
{
	json_t *call = pal__json_with(call_json(a, i), "index", json_integer((json_int_t)i));
	json_t *function = json_object_get(call, "function");
	json_t *arguments = json_incref(json_object_get(function, "arguments"));
	if (function && json_object_set_new(function, "arguments", json_string("")))
		pal__fault_memory(a->f);
	json_t *rest =
		json_pack("{s:i, s:{s:o}}", "index", (int)i, "function", "arguments", arguments);
	bool ok = chunk(a->user, a, json_pack("{s:[o]}", "tool_calls", call), NULL);
	json_t *delta = json_pack("{s:[o]}", "tool_calls", rest);
	if (ok)
		return chunk(a->user, a, delta, NULL);
	json_decref(delta);
	return false;
}

/* --- the request ------------------------------------------------------------------ */

static void run_choice(struct chat *c, uint64_t owner)
{
	pal__answer a = {.api = c->api,
			 .job = {.owner = owner, .ids = c->ids, .n_ids = c->n_ids},
			 .generate = {.sampling = c->sampling,
				      .max_tokens = c->max_tokens,
				      .stops = c->stops,
				      .n_stops = c->n_stops,
				      .constraint = c->constraint,
				      .n_logprobs = c->n_logprobs},
			 .generates = true,
			 .calls_tools = pal__ask_calls(&c->ask),
			 .thinks = c->api->family && !strcmp(c->api->family, "qwen3"),
			 .wants_logprobs = c->logprobs,
			 .user = c};
	a.generate.sampling.seed += (uint64_t)c->index;
	if (c->stream) {
		a.on_start = on_start;
		a.on_part = on_part;
		a.on_call = on_call;
	}
	if (!pal__answer_run(&a, c->reply, &c->f)) {
		pal__answer_count(&a, &c->usage, c->index == 0);
		if (c->stream)
			chunk(c, &a, json_object(), pal__answer_finish(&a));
		else
			c->choices = pal__json_append(c->choices, choice_json(c, &a));
	}
	pal__answer_free(&a);
}

/* Behind the last choice. */
static void end_stream(struct chat *c)
{
	pal__fault none = {0};
	if (!c->f.err.code && c->include_usage)
		pal__sse_send(c->reply, NULL,
			      pal__json_with(envelope(c, "chat.completion.chunk", json_array()),
					     "usage", pal__usage_completion(&c->usage)),
			      &c->f);
	if (c->f.err.code)
		pal__sse_send(c->reply, NULL, pal__fault_json(&c->f, PAL__OPENAI), &none);
	else
		pal__sse_done(c->reply);
}

void pal__chat(const pal__http_request *r, pal__reply *reply)
{
	struct chat c = {.api = r->user, .reply = reply};
	pal__fresh_id("chatcmpl-", c.id, sizeof c.id);
	c.created = (json_int_t)pal__wall_clock();
	c.body = pal__params_body(r, &c.f);
	c.choices = json_array();
	if (c.body)
		read_request(&c);
	for (c.index = 0; c.index < c.n && !c.f.err.code; c.index++)
		run_choice(&c, r->owner);
	if (pal__reply_begun(reply)) {
		end_stream(&c);
	} else if (c.f.err.code) {
		pal__reply_fault(reply, &c.f, PAL__OPENAI);
	} else {
		json_t *o = envelope(&c, "chat.completion", json_incref(c.choices));
		pal__reply_send(reply, 200,
				pal__json_with(o, "usage", pal__usage_completion(&c.usage)),
				PAL__OPENAI);
	}
	pal_constraint_close(c.constraint);
	pal_free(c.ids);
	json_decref(c.choices);
	json_decref(c.format);
	json_decref(c.body);
}
