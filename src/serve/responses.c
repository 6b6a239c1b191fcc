/* /v1/responses: items translated to chat's messages, and back. What a later request may go on
 * from is kept in the service under the response's id:
 * {"response", "input": [items of the request], "items": [the whole history, output included]} */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "serve/answer.h"
#include "serve/params.h"
#include "serve/prompt.h"
#include "serve/sse.h"

#define PAGE 100 /* input items of one reply at most */

struct response {
	const pal__api *api;
	pal__reply *reply;
	pal__fault f;
	uint64_t owner;
	json_t *body;
	json_t *input, *items;    /* of this request; of all, as they are stored */
	json_t *messages, *tools; /* as chat has them */
	json_t *format, *output;
	pal__ask ask;
	pal_constraint *constraint;
	const char *model, *previous;
	char id[48];
	json_int_t created, sequence;
	pal_sampling sampling;
	int64_t max_tokens;
	int n_logprobs;
	bool stream, store, logprobs;
	int32_t *ids;
	size_t n_ids;
	pal__usage usage;
	/* The output item that grows now. */
	enum { NOTHING, THOUGHTS, MESSAGE } open;
	char item[48];
	size_t from;  /* bytes of the answer's text before it */
	json_t *told; /* its log probabilities so far */
};

static bool is_type(const json_t *o, const char *type)
{
	const char *t = pal__json_get(o, "type");
	return t && !strcmp(t, type);
}

/* --- items to messages ------------------------------------------------------------- */

static void add(struct response *c, json_t *message)
{
	c->messages = pal__json_append(c->messages, message);
	if (!c->messages)
		pal__fault_memory(&c->f);
}

/* The assistant's message that a call or text of the same answer belongs to, or a new one. */
static json_t *answer_message(struct response *c)
{
	size_t n = json_array_size(c->messages);
	json_t *last = n ? json_array_get(c->messages, n - 1) : NULL;
	const char *role = pal__json_get(last, "role");
	if (role && !strcmp(role, "assistant") && json_object_get(last, "open"))
		return last;
	add(c, json_pack("{s:s, s:n, s:b}", "role", "assistant", "content", "open", 1));
	return c->messages ? json_array_get(c->messages, n) : NULL;
}

static void add_text(struct response *c, const json_t *item, const char *where)
{
	static const char *const types[] = {"input_text", "output_text", "text", "refusal", NULL};
	const char *role = pal__json_get(item, "role");
	char *text;
	if (pal__parts_text(json_object_get(item, "content"), types, where, &text, &c->f))
		return;
	json_t *content = pal__json_text(text ? text : "", text ? strlen(text) : 0);
	pal__free(text);
	if (!role || strcmp(role, "assistant")) {
		add(c, json_pack("{s:s?, s:o}", "role", role, "content", content));
		return;
	}
	json_t *m = answer_message(c);
	if (!json_is_null(json_object_get(m, "content"))) {
		add(c, json_pack("{s:s, s:o, s:b}", "role", "assistant", "content", content, "open",
				 1));
		return;
	}
	if (json_object_set_new(m, "content", content))
		pal__fault_memory(&c->f);
}

static void add_call(struct response *c, const json_t *item, const char *where)
{
	const char *id = pal__json_get(item, "call_id"), *name = pal__json_get(item, "name");
	const char *arguments = pal__json_get(item, "arguments");
	if (!id || !name || !arguments) {
		pal__refuse(&c->f, where,
			    "function_call must have call_id, name and arguments, all strings");
		return;
	}
	json_t *m = answer_message(c), *calls = json_object_get(m, "tool_calls");
	if (m && !calls) {
		calls = json_array();
		if (json_object_set_new(m, "tool_calls", calls))
			calls = NULL;
	}
	if (!calls || json_array_append_new(calls, json_pack("{s:s, s:s, s:{s:s, s:s}}", "id", id,
							     "type", "function", "function", "name",
							     name, "arguments", arguments)))
		pal__fault_memory(&c->f);
}

static void add_result(struct response *c, const json_t *item, const char *where)
{
	static const char *const types[] = {"input_text", "text", "output_text", NULL};
	const char *id = pal__json_get(item, "call_id");
	char *text = NULL;
	if (!id)
		pal__refuse(&c->f, where, "function_call_output must have a call_id");
	if (c->f.err.code ||
	    pal__parts_text(json_object_get(item, "output"), types, where, &text, &c->f))
		return;
	add(c, json_pack("{s:s, s:s, s:s}", "role", "tool", "tool_call_id", id, "content",
			 text ? text : ""));
	pal__free(text);
}

static void add_thoughts(struct response *c, const json_t *item, const char *where)
{
	static const char *const types[] = {"reasoning_text", "text", NULL};
	char *text;
	if (pal__parts_text(json_object_get(item, "content"), types, where, &text, &c->f) || !text)
		return;
	add(c, json_pack("{s:s, s:n, s:s, s:b}", "role", "assistant", "content",
			 "reasoning_content", text, "open", 1));
	pal__free(text);
}

static void add_item(struct response *c, const json_t *item, size_t i)
{
	char where[48];
	snprintf(where, sizeof where, "input[%zu]", i);
	if (is_type(item, "function_call"))
		add_call(c, item, where);
	else if (is_type(item, "function_call_output"))
		add_result(c, item, where);
	else if (is_type(item, "reasoning"))
		add_thoughts(c, item, where);
	else if (is_type(item, "message") ||
		 (!json_object_get(item, "type") && json_object_get(item, "role")))
		add_text(c, item, where);
	else
		pal__refuse(&c->f, where,
			    "type must be message, function_call, function_call_output or "
			    "reasoning");
}

/* The stored value of a response; NULL: there is none, and f says so. */
static json_t *load(const pal__api *api, const char *id, uint64_t owner, pal__fault *f)
{
	void *data = NULL;
	size_t n = 0;
	json_error_t e;
	json_t *j = NULL;
	if (f->err.code)
		return NULL;
	if (strncmp(id, "resp_", 5) || strlen(id) > 63)
		pal__fail(&f->err, PAL_ENOTFOUND, "no response has the id \"%.63s\"", id);
	else if (!pal__service_get(api->options.service, id, owner, &data, &n, &f->err) &&
		 !(j = json_loadb(data, n, 0, &e)))
		pal__fail(&f->err, PAL_EFORMAT, "the response %s is damaged in the store", id);
	pal_free(data);
	return j;
}

/* What went before this request, into c->items. */
static void read_history(struct response *c)
{
	c->items = json_array();
	if (c->previous && !c->f.err.code) {
		json_t *before = load(c->api, c->previous, c->owner, &c->f);
		if (c->f.err.code == PAL_ENOTFOUND) {
			c->f.err.code = PAL_EINVAL; /* as this API has it */
			c->f.code = "previous_response_not_found";
			snprintf(c->f.param, sizeof c->f.param, "previous_response_id");
		} else if (before &&
			   json_array_extend(c->items, json_object_get(before, "items"))) {
			pal__fault_memory(&c->f);
		}
		json_decref(before);
	}
}

static void read_input(struct response *c, const pal__params *p)
{
	json_t *input = json_object_get(c->body, "input");
	const char *instructions = pal__param_string(p, "instructions");
	size_t n_before = json_array_size(c->items); /* they were right when they came */
	if (json_is_string(input))
		c->input = json_pack("[{s:s, s:s, s:[{s:s, s:O}]}]", "type", "message", "role",
				     "user", "content", "type", "input_text", "text", input);
	else if (json_is_array(input))
		c->input = json_incref(input);
	else
		pal__refuse(&c->f, "input", "must be a string or an array of items");
	c->messages = json_array();
	if (!c->input || !c->items || !c->messages || json_array_extend(c->items, c->input))
		pal__fault_memory(&c->f);
	if (instructions)
		add(c, json_pack("{s:s, s:s}", "role", "system", "content", instructions));
	for (size_t i = 0; i < json_array_size(c->items) && !c->f.err.code; i++)
		add_item(c, json_array_get(c->items, i), i - n_before);
	if (!json_array_size(c->messages))
		pal__refuse(&c->f, "input", "must not be empty");
	c->ask.messages = c->messages;
}

/* --- the other fields --------------------------------------------------------------- */

/* Tools here have their function's fields beside their type. */
static json_t *tools_json(const json_t *tools)
{
	json_t *all = json_array();
	for (size_t i = 0; i < json_array_size(tools); i++) {
		const json_t *tool = json_array_get(tools, i);
		json_t *one = json_pack("{s:O*, s:{s:O*, s:O*, s:O*}}", "type",
					json_object_get(tool, "type"), "function", "name",
					json_object_get(tool, "name"), "description",
					json_object_get(tool, "description"), "parameters",
					json_object_get(tool, "parameters"));
		all = pal__json_append(all, one);
	}
	return all;
}

static void read_tools(struct response *c, const pal__params *p)
{
	const json_t *tools = pal__param_array(p, "tools");
	json_t *choice = json_object_get(c->body, "tool_choice");
	json_t *parallel = json_object_get(c->body, "parallel_tool_calls");
	c->tools = json_pack("{s:o, s:O?, s:O?}", "tools", tools_json(tools), "tool_choice", choice,
			     "parallel_tool_calls", parallel);
	if (!c->tools)
		pal__fault_memory(&c->f);
	const pal__params q = {c->tools, "", &c->f};
	pal__ask_tools(&c->ask, &q);
}

static void refuse_background(const pal__params *p)
{
	static const char *const names[] = {"conversation", "prompt"};
	if (pal__param_bool(p, "background", false))
		pal__refuse(p->f, "background", "is not supported: must be false");
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		const json_t *j = json_object_get(p->o, names[i]);
		if (j && !json_is_null(j))
			pal__refuse(p->f, names[i], "is not supported: must be absent");
	}
}

static void read_include(struct response *c, const pal__params *p)
{
	const json_t *include = pal__param_array(p, "include");
	for (size_t i = 0; i < json_array_size(include); i++) {
		const char *s = json_string_value(json_array_get(include, i));
		c->logprobs |= s && !strcmp(s, "message.output_text.logprobs");
	}
	c->n_logprobs = (int)pal__param_int(p, "top_logprobs", 0, PAL_MAX_LOGPROBS, 0);
	c->logprobs |= c->n_logprobs > 0;
}

static void read_request(struct response *c)
{
	static const char *const efforts[] = {"none", "minimal", "low", "medium",
					      "high", "xhigh",   NULL};
	const pal__params p = {c->body, "", &c->f};
	const pal__params text = {pal__param_object(&p, "text"), "text.", &c->f};
	const pal__params reasoning = {pal__param_object(&p, "reasoning"), "reasoning.", &c->f};
	pal__api_model(c->api, pal__param_string(&p, "model"), &c->model, &c->f);
	refuse_background(&p);
	c->previous = pal__param_string(&p, "previous_response_id");
	c->max_tokens =
		pal__param_int(&p, "max_output_tokens", 1, PAL__MAX_COUNT, PAL__DEFAULT_TOKENS);
	c->sampling = pal__param_sampling(&p, 1);
	c->stream = pal__param_bool(&p, "stream", false);
	c->store = pal__param_bool(&p, "store", true);
	if (pal__param_word(&reasoning, "effort", efforts, 2) < 2)
		c->ask.thinking = PAL_THINKING_OFF;
	read_include(c, &p);
	read_tools(c, &p);
	pal__ask_format(&c->ask, &text, "format", &c->format);
	read_history(c);
	if (!c->f.err.code)
		read_input(c, &p);
	pal__ask_ids(c->api, &c->ask, true, &c->ids, &c->n_ids, &c->f);
	pal__ask_constraint(c->api, &c->ask, &c->constraint, &c->f);
}

/* --- the response -------------------------------------------------------------------- */

/* A field of the request, as it was given, or what it is otherwise. Takes otherwise. */
static json_t *given(const struct response *c, const char *name, json_t *otherwise)
{
	json_t *j = json_object_get(c->body, name);
	if (!j || json_is_null(j))
		return otherwise;
	json_decref(otherwise);
	return json_incref(j);
}

/* status: "in_progress", "completed" or "incomplete". */
static json_t *response_json(const struct response *c, const char *status)
{
	bool ended = strcmp(status, "in_progress") != 0;
	json_t *why = strcmp(status, "incomplete")
			      ? json_null()
			      : json_pack("{s:s}", "reason", "max_output_tokens");
	json_t *text = json_pack("{s:{s:s}}", "format", "type", "text");
	json_t *o = json_pack("{s:s, s:s, s:I, s:s, s:b, s:n, s:o, s:s, s:O, s:s?, s:b, s:s}", "id",
			      c->id, "object", "response", "created_at", c->created, "status",
			      status, "background", 0, "error", "incomplete_details", why, "model",
			      c->model, "output", c->output, "previous_response_id", c->previous,
			      "store", c->store, "truncation", "disabled");
	o = pal__json_with(o, "instructions", given(c, "instructions", json_null()));
	o = pal__json_with(o, "max_output_tokens", given(c, "max_output_tokens", json_null()));
	o = pal__json_with(o, "metadata", given(c, "metadata", json_object()));
	o = pal__json_with(o, "parallel_tool_calls", json_boolean(c->ask.parallel));
	o = pal__json_with(o, "reasoning",
			   given(c, "reasoning", json_pack("{s:n, s:n}", "effort", "summary")));
	o = pal__json_with(o, "temperature", json_real((double)c->sampling.temperature));
	o = pal__json_with(o, "top_p", json_real((double)c->sampling.top_p));
	o = pal__json_with(o, "top_logprobs", json_integer(c->n_logprobs));
	o = pal__json_with(o, "text", given(c, "text", text));
	o = pal__json_with(o, "tools", given(c, "tools", json_array()));
	o = pal__json_with(o, "tool_choice", given(c, "tool_choice", json_string("auto")));
	o = pal__json_with(o, "user", given(c, "user", json_null()));
	return pal__json_with(o, "usage", ended ? pal__usage_response(&c->usage) : json_null());
}

/* An event; without a stream nothing is sent. Takes data. */
static bool event(struct response *c, const char *type, json_t *data)
{
	if (!c->stream) {
		json_decref(data);
		return true;
	}
	data = pal__json_with(data, "type", json_string(type));
	return pal__sse_send(c->reply, type,
			     pal__json_with(data, "sequence_number", json_integer(c->sequence++)),
			     &c->f);
}

static int output_index(const struct response *c)
{
	return (int)json_array_size(c->output);
}

/* An event about a part of the open item. value: of field. Takes value. */
static bool part_event(struct response *c, const char *type, const char *field, json_t *value)
{
	return event(c, type,
		     json_pack("{s:s, s:i, s:i, s:o}", "item_id", c->item, "output_index",
			       output_index(c), "content_index", 0, field, value));
}

/* An output item has begun, or has ended: then it joins the output. Takes item. */
static bool item_event(struct response *c, bool ends, json_t *item)
{
	json_t *data = json_pack("{s:i, s:O}", "output_index", output_index(c), "item", item);
	bool ok = event(c, ends ? "response.output_item.done" : "response.output_item.added", data);
	if (ends && json_array_append(c->output, item)) {
		pal__fault_memory(&c->f);
		ok = false;
	}
	json_decref(item);
	return ok;
}

static json_t *part_json(const struct response *c, const char *s, size_t n)
{
	if (c->open == THOUGHTS)
		return json_pack("{s:s, s:o}", "type", "reasoning_text", "text",
				 pal__json_text(s, n));
	json_t *told = c->told ? json_incref(c->told) : json_array();
	return json_pack("{s:s, s:o, s:[], s:o}", "type", "output_text", "text",
			 pal__json_text(s, n), "annotations", "logprobs", told);
}

/* Takes content, an array. */
static json_t *item_json(const struct response *c, const char *status, json_t *content)
{
	if (c->open == THOUGHTS)
		return json_pack("{s:s, s:s, s:s, s:[], s:o}", "type", "reasoning", "id", c->item,
				 "status", status, "summary", "content", content);
	return json_pack("{s:s, s:s, s:s, s:s, s:o}", "type", "message", "id", c->item, "status",
			 status, "role", "assistant", "content", content);
}

static bool close_item(struct response *c, const pal__answer *a, const char *status)
{
	bool thoughts = c->open == THOUGHTS;
	const char *s = thoughts ? a->thoughts.s : a->said.s ? a->said.s + c->from : "";
	size_t n = thoughts ? a->thoughts.n : a->said.n - c->from;
	if (c->open == NOTHING)
		return true;
	json_t *done = json_pack("{s:s, s:i, s:i, s:o}", "item_id", c->item, "output_index",
				 output_index(c), "content_index", 0, "text", pal__json_text(s, n));
	if (!thoughts)
		done = pal__json_with(done, "logprobs",
				      c->told ? json_incref(c->told) : json_array());
	bool ok = event(c, thoughts ? "response.reasoning_text.done" : "response.output_text.done",
			done) &&
		  part_event(c, "response.content_part.done", "part", part_json(c, s, n)) &&
		  item_event(
			  c, true,
			  item_json(c, status, pal__json_append(json_array(), part_json(c, s, n))));
	c->open = NOTHING;
	json_decref(c->told);
	c->told = NULL;
	return ok;
}

static bool open_item(struct response *c, pal__part part, size_t from)
{
	c->open = part == PAL__THOUGHT ? THOUGHTS : MESSAGE;
	c->from = from;
	pal__fresh_id(part == PAL__THOUGHT ? "rs_" : "msg_", c->item, sizeof c->item);
	return item_event(c, false, item_json(c, "in_progress", json_array())) &&
	       part_event(c, "response.content_part.added", "part", part_json(c, "", 0));
}

static bool on_start(pal__answer *a)
{
	struct response *c = a->user;
	if (c->stream && !pal__sse_begin(c->reply))
		return false;
	return event(c, "response.created",
		     json_pack("{s:o}", "response", response_json(c, "in_progress"))) &&
	       event(c, "response.in_progress",
		     json_pack("{s:o}", "response", response_json(c, "in_progress")));
}

/* The log probabilities of the open message grow by what is new; those come back, too. */
static json_t *new_logprobs(struct response *c, pal__answer *a)
{
	json_t *list = pal__answer_logprobs(a);
	if (json_is_null(list))
		return json_array();
	if (!c->told)
		c->told = json_array();
	if (!c->told || json_array_extend(c->told, list)) {
		json_decref(list);
		return NULL;
	}
	return list;
}

static bool on_part(pal__answer *a, pal__part part, const char *text, size_t n)
{
	struct response *c = a->user;
	bool thoughts = part == PAL__THOUGHT;
	if (c->open != (thoughts ? THOUGHTS : MESSAGE) &&
	    (!close_item(c, a, "completed") || !open_item(c, part, a->said.n - (thoughts ? 0 : n))))
		return false;
	if (thoughts)
		return part_event(c, "response.reasoning_text.delta", "delta",
				  pal__json_text(text, n));
	json_t *delta = json_pack("{s:s, s:i, s:i, s:o, s:o}", "item_id", c->item, "output_index",
				  output_index(c), "content_index", 0, "delta",
				  pal__json_text(text, n), "logprobs", new_logprobs(c, a));
	return event(c, "response.output_text.delta", delta);
}

static json_t *call_json(const struct response *c, const char *call, const char *name,
			 const char *arguments, const char *status)
{
	return json_pack("{s:s, s:s, s:s, s:o, s:o, s:s}", "type", "function_call", "id", c->item,
			 "call_id", call, "name", pal__json_text(name, strlen(name)), "arguments",
			 pal__json_text(arguments, strlen(arguments)), "status", status);
}

static bool on_call(pal__answer *a, size_t i)
{
	struct response *c = a->user;
	const char *name = pal__calls_name(a->calls, i);
	const char *arguments = pal__calls_arguments(a->calls, i);
	size_t n = strlen(arguments);
	char call[48];
	if (!close_item(c, a, "completed"))
		return false;
	pal__fresh_id("fc_", c->item, sizeof c->item);
	pal__fresh_id("call_", call, sizeof call);
	return item_event(c, false, call_json(c, call, name, "", "in_progress")) &&
	       event(c, "response.function_call_arguments.delta",
		     json_pack("{s:s, s:i, s:o}", "item_id", c->item, "output_index",
			       output_index(c), "delta", pal__json_text(arguments, n))) &&
	       event(c, "response.function_call_arguments.done",
		     json_pack("{s:s, s:i, s:o, s:o}", "item_id", c->item, "output_index",
			       output_index(c), "name", pal__json_text(name, strlen(name)),
			       "arguments", pal__json_text(arguments, n))) &&
	       item_event(c, true, call_json(c, call, name, arguments, "completed"));
}

/* --- the request ----------------------------------------------------------------------- */

static void save(struct response *c, json_t *response)
{
	pal__text text = {0};
	json_t *all = NULL;
	if (!json_array_extend(c->items, c->output))
		all = json_pack("{s:O, s:O, s:O}", "response", response, "input", c->input, "items",
				c->items);
	if (!all || !pal__json_dump(all, &text))
		pal__fault_memory(&c->f);
	else
		pal__service_put(c->api->options.service, c->id, c->owner, text.s, text.n,
				 &c->f.err);
	pal__free(text.s);
	json_decref(all);
}

static void answer(struct response *c)
{
	pal__answer a = {.api = c->api,
			 .job = {.owner = c->owner, .ids = c->ids, .n_ids = c->n_ids},
			 .generate = {.sampling = c->sampling,
				      .max_tokens = c->max_tokens,
				      .constraint = c->constraint,
				      .n_logprobs = c->n_logprobs},
			 .generates = true,
			 .calls_tools = pal__ask_calls(&c->ask),
			 .thinks = c->api->family && !strcmp(c->api->family, "qwen3"),
			 .wants_logprobs = c->logprobs,
			 .on_start = on_start,
			 .on_part = on_part,
			 .on_call = on_call,
			 .user = c};
	json_t *response = NULL;
	if (!pal__answer_run(&a, c->reply, &c->f)) {
		bool cut = !strcmp(pal__answer_finish(&a), "length");
		const char *status = cut ? "incomplete" : "completed";
		pal__answer_count(&a, &c->usage, true);
		if (c->open == NOTHING && !a.n_calls)
			open_item(c, PAL__SAID, a.said.n);
		if (!c->f.err.code)
			close_item(c, &a, status);
		response = response_json(c, status);
		if (c->store && response && !c->f.err.code)
			save(c, response);
		if (c->stream && !c->f.err.code)
			event(c, cut ? "response.incomplete" : "response.completed",
			      json_pack("{s:O}", "response", response));
	}
	if (!c->stream && !c->f.err.code)
		pal__reply_send(c->reply, 200, json_incref(response), PAL__OPENAI);
	json_decref(response);
	pal__answer_free(&a);
}

/* {"type":"error", "code", "message", "param", "sequence_number"} */
static void error_event(struct response *c)
{
	pal__fault none = {0};
	json_t *whole = pal__fault_json(&c->f, PAL__OPENAI);
	json_t *e = json_incref(json_object_get(whole, "error"));
	json_decref(whole);
	e = pal__json_with(e, "type", json_string("error"));
	e = pal__json_with(e, "sequence_number", json_integer(c->sequence++));
	pal__sse_send(c->reply, "error", e, &none);
}

void pal__responses_create(const pal__http_request *r, pal__reply *reply)
{
	struct response c = {.api = r->user, .reply = reply, .owner = r->owner};
	pal__fresh_id("resp_", c.id, sizeof c.id);
	c.created = (json_int_t)pal__wall_clock();
	c.body = pal__params_body(r, &c.f);
	c.output = json_array();
	if (!c.output)
		pal__fault_memory(&c.f);
	if (!c.f.err.code)
		read_request(&c);
	if (!c.f.err.code)
		answer(&c);
	if (c.f.err.code && pal__reply_begun(reply))
		error_event(&c);
	else if (c.f.err.code)
		pal__reply_fault(reply, &c.f, PAL__OPENAI);
	pal_constraint_close(c.constraint);
	pal_free(c.ids);
	json_t *owned[] = {c.told,  c.output, c.format,   c.tools,
			   c.items, c.input,  c.messages, c.body};
	for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
		json_decref(owned[i]);
}

/* --- what was stored ------------------------------------------------------------------- */

void pal__responses_get(const pal__http_request *r, pal__reply *reply)
{
	pal__fault f = {0};
	json_t *all = load(r->user, r->param[0], r->owner, &f);
	if (f.err.code)
		pal__reply_fault(reply, &f, PAL__OPENAI);
	else
		pal__reply_send(reply, 200, json_incref(json_object_get(all, "response")),
				PAL__OPENAI);
	json_decref(all);
}

void pal__responses_delete(const pal__http_request *r, pal__reply *reply)
{
	const pal__api *api = r->user;
	pal__fault f = {0};
	const char *id = r->param[0];
	json_decref(load(api, id, r->owner, &f));
	if (!f.err.code)
		pal__service_forget(api->options.service, id, r->owner, &f.err);
	if (f.err.code)
		pal__reply_fault(reply, &f, PAL__OPENAI);
	else
		pal__reply_send(
			reply, 200,
			json_pack("{s:s, s:s, s:b}", "id", id, "object", "response", "deleted", 1),
			PAL__OPENAI);
}

/* The index behind the item with that id; 0 when there is none of it. */
static size_t behind(const json_t *items, const char *after)
{
	for (size_t i = 0; after && i < json_array_size(items); i++) {
		const char *id = pal__json_get(json_array_get(items, i), "id");
		if (id && !strcmp(id, after))
			return i + 1;
	}
	return 0;
}

/* The request's items, latest first unless order=asc. Those that came without an id are given one
 * by their place. */
static json_t *input_page(const json_t *input, bool ascending, size_t most, const char *after)
{
	json_t *all = json_array(), *page = json_array();
	size_t n = json_array_size(input);
	for (size_t i = 0; i < n; i++) {
		size_t at = ascending ? i : n - 1 - i;
		json_t *item = json_copy(json_array_get(input, at));
		char id[48];
		snprintf(id, sizeof id, "item_%zu", at);
		if (item && !json_object_get(item, "id"))
			item = pal__json_with(item, "id", json_string(id));
		if (item && !json_object_get(item, "type"))
			item = pal__json_with(item, "type", json_string("message"));
		all = pal__json_append(all, item);
	}
	size_t from = behind(all, after), to = from + most < n ? from + most : n;
	for (size_t i = from; all && i < to; i++)
		page = pal__json_append(page, json_incref(json_array_get(all, i)));
	const char *first = pal__json_get(json_array_get(page, 0), "id");
	const char *last =
		page && to > from ? pal__json_get(json_array_get(page, to - from - 1), "id") : NULL;
	json_t *o = all ? json_pack("{s:s, s:O, s:s?, s:s?, s:b}", "object", "list", "data", page,
				    "first_id", first, "last_id", last, "has_more", to < n)
			: NULL;
	json_decref(page);
	json_decref(all);
	return o;
}

void pal__responses_input(const pal__http_request *r, pal__reply *reply)
{
	pal__fault f = {0};
	const char *order = pal__http_query(r, "order");
	size_t most = (size_t)pal__query_int(r, "limit", 1, PAGE, 20, &f);
	json_t *all = load(r->user, r->param[0], r->owner, &f);
	if (f.err.code)
		pal__reply_fault(reply, &f, PAL__OPENAI);
	else
		pal__reply_send(reply, 200,
				input_page(json_object_get(all, "input"),
					   order && !strcmp(order, "asc"), most,
					   pal__http_query(r, "after")),
				PAL__OPENAI);
	json_decref(all);
}
