/* /v1/messages, as Anthropic has them: translated to chat's messages and tools, and back. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "serve/answer.h"
#include "serve/params.h"
#include "serve/prompt.h"
#include "serve/sse.h"

struct talk {
	const pal__api *api;
	pal__reply *reply;
	pal__fault f;
	json_t *body, *messages, *tools; /* messages, tools: as chat has them */
	pal__ask ask;
	pal_constraint *constraint;
	const char *model;
	char id[48];
	pal_sampling sampling;
	const char *stops[PAL__MAX_STOPS];
	size_t n_stops;
	int64_t max_tokens;
	bool stream;
	int32_t *ids;
	size_t n_ids;
	int block; /* the content block that is open, or -1 */
	int n_blocks;
	pal__part part; /* of the open block */
	bool shows_thoughts;
};

/* --- what a client sends, as chat has it ---------------------------------------------- */

static const char *const text_blocks[] = {"text", NULL};

static bool is_type(const json_t *o, const char *type)
{
	const char *t = pal__json_get(o, "type");
	return t && !strcmp(t, type);
}

/* Appends to c->messages; takes message. */
static void add(struct talk *c, json_t *message)
{
	c->messages = pal__json_append(c->messages, message);
	if (!c->messages)
		pal__fault_memory(&c->f);
}

static void add_text(struct talk *c, const char *role, const json_t *content, const char *where)
{
	char *text;
	if (c->f.err.code || pal__parts_text(content, text_blocks, where, &text, &c->f))
		return;
	if (text)
		add(c, json_pack("{s:s, s:s}", "role", role, "content", text));
	pal__free(text);
}

/* A tool_use block as a call. */
static json_t *call_of(struct talk *c, const json_t *block, const char *where)
{
	const char *id = pal__json_get(block, "id"), *name = pal__json_get(block, "name");
	const json_t *input = json_object_get(block, "input");
	pal__text arguments = {0};
	json_t *call = NULL;
	if (!id || !name || !json_is_object(input))
		pal__refuse(&c->f, where, "tool_use must have id, name and input, an object");
	else if (pal__json_dump(input, &arguments))
		call = json_pack("{s:s, s:s, s:{s:s, s:s}}", "id", id, "type", "function",
				 "function", "name", name, "arguments", arguments.s);
	pal__free(arguments.s);
	if (!call)
		pal__fault_memory(&c->f);
	return call;
}

/* Blocks of an assistant's message: text, thoughts, calls. */
static void add_answer(struct talk *c, const json_t *blocks, const char *where)
{
	json_t *texts = json_array(), *calls = json_array();
	const char *thoughts = NULL;
	char *text = NULL;
	for (size_t i = 0; i < json_array_size(blocks) && !c->f.err.code; i++) {
		json_t *b = json_array_get(blocks, i);
		if (is_type(b, "tool_use"))
			calls = pal__json_append(calls, call_of(c, b, where));
		else if (is_type(b, "thinking"))
			thoughts = pal__json_get(b, "thinking");
		else if (!is_type(b, "redacted_thinking"))
			texts = pal__json_append(texts, json_incref(b));
	}
	if (!texts || !calls)
		pal__fault_memory(&c->f);
	if (!c->f.err.code && !pal__parts_text(texts, text_blocks, where, &text, &c->f)) {
		json_t *m = json_pack("{s:s, s:s?}", "role", "assistant", "content", text);
		if (thoughts && *thoughts)
			m = pal__json_with(m, "reasoning_content", json_string(thoughts));
		if (json_array_size(calls))
			m = pal__json_with(m, "tool_calls", json_incref(calls));
		add(c, m);
	}
	pal__free(text);
	json_decref(texts);
	json_decref(calls);
}

static void add_result(struct talk *c, const json_t *block, const char *where)
{
	const char *id = pal__json_get(block, "tool_use_id");
	char *text = NULL;
	if (!id) {
		pal__refuse(&c->f, where, "tool_result must have a tool_use_id");
		return;
	}
	if (pal__parts_text(json_object_get(block, "content"), text_blocks, where, &text, &c->f))
		return;
	add(c, json_pack("{s:s, s:s, s:s}", "role", "tool", "tool_call_id", id, "content",
			 text ? text : ""));
	pal__free(text);
}

/* Blocks of a user's message: results first, then text. */
static void add_question(struct talk *c, const json_t *blocks, const char *where)
{
	json_t *texts = json_array();
	for (size_t i = 0; i < json_array_size(blocks) && !c->f.err.code; i++) {
		json_t *b = json_array_get(blocks, i);
		if (is_type(b, "tool_result"))
			add_result(c, b, where);
		else
			texts = pal__json_append(texts, json_incref(b));
	}
	if (!texts)
		pal__fault_memory(&c->f);
	if (json_array_size(texts))
		add_text(c, "user", texts, where);
	json_decref(texts);
}

static void add_message(struct talk *c, const json_t *m, size_t i)
{
	const json_t *content = json_object_get(m, "content");
	const char *role = pal__json_get(m, "role");
	char where[48];
	snprintf(where, sizeof where, "messages[%zu].content", i);
	if (!json_is_string(content) && !json_array_size(content))
		pal__refuse(&c->f, where, "must be a string or an array of blocks, not empty");
	else if (role && !strcmp(role, "user") && json_is_array(content))
		add_question(c, content, where);
	else if (role && !strcmp(role, "assistant") && json_is_array(content))
		add_answer(c, content, where);
	else if (role &&
		 (!strcmp(role, "user") || !strcmp(role, "assistant") || !strcmp(role, "system")))
		add_text(c, role, content, where);
	else
		pal__refuse(&c->f, where, "the message's role must be user or assistant");
}

static void read_messages(struct talk *c, const pal__params *p)
{
	const json_t *messages = pal__param_array(p, "messages");
	c->messages = json_array();
	add_text(c, "system", json_object_get(p->o, "system"), "system");
	if (!json_array_size(messages))
		pal__refuse(&c->f, "messages", "must be an array of one message or more");
	for (size_t i = 0; i < json_array_size(messages) && !c->f.err.code; i++)
		add_message(c, json_array_get(messages, i), i);
	c->ask.messages = c->messages;
}

/* {"name", "description", "input_schema"} */
static json_t *tool_of(const json_t *tool)
{
	const json_t *schema = json_object_get(tool, "input_schema");
	const char *says = pal__json_get(tool, "description");
	json_t *function = json_pack("{s:s?, s:O}", "name", pal__json_get(tool, "name"),
				     "parameters", schema ? schema : json_null());
	if (says)
		function = pal__json_with(function, "description", json_string(says));
	return json_pack("{s:s, s:o}", "type", "function", "function", function);
}

static void read_tools(struct talk *c, const pal__params *p)
{
	const json_t *tools = pal__param_array(p, "tools");
	char where[48];
	if (json_array_size(tools) > PAL__MAX_TOOLS)
		pal__refuse(&c->f, "tools", "must be at most %d", PAL__MAX_TOOLS);
	if (c->f.err.code || !json_array_size(tools))
		return;
	c->tools = json_array();
	for (size_t i = 0; i < json_array_size(tools) && !c->f.err.code; i++) {
		const json_t *tool = json_array_get(tools, i);
		const char *type = pal__json_get(tool, "type");
		snprintf(where, sizeof where, "tools[%zu]", i);
		if (type && strcmp(type, "custom")) {
			pal__refuse(&c->f, where, "type %.40s is not supported (custom)", type);
			return;
		}
		json_t *one = tool_of(tool);
		if (one && !json_is_object(json_object_get(tool, "input_schema")))
			pal__refuse(&c->f, where, "input_schema must be a JSON schema");
		if (one)
			pal__check_tool(one, where, &c->f);
		c->tools = pal__json_append(c->tools, one);
		if (!c->tools)
			pal__fault_memory(&c->f);
	}
	c->ask.tools = c->tools;
}

static void read_choice(struct talk *c, const pal__params *p)
{
	static const char *const types[] = {"none", "auto", "any", "tool", NULL};
	const json_t *choice = pal__param_object(p, "tool_choice");
	const pal__params q = {choice, "tool_choice.", &c->f};
	int type = pal__param_word(&q, "type", types, c->tools ? 1 : 0);
	c->ask.parallel = !pal__param_bool(&q, "disable_parallel_tool_use", false);
	c->ask.choice = (pal__call_choice)(type < 2 ? type : 2);
	if (type == 2 && !c->tools)
		pal__refuse(&c->f, "tool_choice", "there are no tools to call");
	if (type == 3)
		pal__ask_only(&c->ask, pal__json_get(choice, "name"), "tool_choice.name", &c->f);
}

/* Models without thoughts are asked for none; they are off unless a client wants them. */
static void read_thinking(struct talk *c, const pal__params *p)
{
	static const char *const types[] = {"disabled", "enabled", "adaptive", NULL};
	const pal__params q = {pal__param_object(p, "thinking"), "thinking.", &c->f};
	c->shows_thoughts = pal__param_word(&q, "type", types, 0) > 0;
	if (c->api->family && !strcmp(c->api->family, "qwen3"))
		c->ask.thinking = c->shows_thoughts ? PAL_THINKING_ON : PAL_THINKING_OFF;
}

/* What counts for the prompt. */
static void read_prompt(struct talk *c, const pal__params *p)
{
	pal__api_model(c->api, pal__param_string(p, "model"), &c->model, &c->f);
	read_messages(c, p);
	read_tools(c, p);
	read_choice(c, p);
	read_thinking(c, p);
	pal__ask_ids(c->api, &c->ask, true, &c->ids, &c->n_ids, &c->f);
}

static void read_request(struct talk *c)
{
	const pal__params p = {c->body, "", &c->f};
	c->max_tokens = pal__param_int(&p, "max_tokens", 1, PAL__MAX_COUNT, 0);
	if (!c->max_tokens)
		pal__refuse(&c->f, "max_tokens", "is missing: must be a whole number from 1");
	c->sampling = pal__param_sampling(&p, 1);
	c->n_stops = pal__param_strings(&p, "stop_sequences", PAL__MAX_STOPS, c->stops);
	c->stream = pal__param_bool(&p, "stream", false);
	read_prompt(c, &p);
	pal__ask_constraint(c->api, &c->ask, &c->constraint, &c->f);
}

static void talk_free(struct talk *c)
{
	pal_constraint_close(c->constraint);
	pal_free(c->ids);
	json_decref(c->tools);
	json_decref(c->messages);
	json_decref(c->body);
}

/* --- what comes back ---------------------------------------------------------------- */

static const char *stop_reason(const pal__answer *a)
{
	if (a->n_calls)
		return "tool_use";
	if (a->stopped)
		return "stop_sequence";
	return !strcmp(pal__answer_finish(a), "length") ? "max_tokens" : "end_turn";
}

static json_t *message_json(const struct talk *c, json_t *content, const char *reason,
			    const char *stopped, const pal__usage *usage)
{
	return json_pack("{s:s, s:s, s:s, s:s, s:o, s:s?, s:s?, s:o}", "id", c->id, "type",
			 "message", "role", "assistant", "model", c->model, "content", content,
			 "stop_reason", reason, "stop_sequence", stopped, "usage",
			 pal__usage_message(usage));
}

static json_t *use_json(const pal__answer *a, size_t i, json_t *input)
{
	const char *name = pal__calls_name(a->calls, i);
	char id[48];
	pal__fresh_id("toolu_", id, sizeof id);
	return json_pack("{s:s, s:s, s:o, s:o}", "type", "tool_use", "id", id, "name",
			 pal__json_text(name, strlen(name)), "input", input);
}

static json_t *text_block(pal__part part, const char *s, size_t n)
{
	json_t *text = pal__json_text(s, n);
	if (part == PAL__THOUGHT)
		return json_pack("{s:s, s:o, s:s}", "type", "thinking", "thinking", text,
				 "signature", "");
	return json_pack("{s:s, s:o}", "type", "text", "text", text);
}

static json_t *content_json(const struct talk *c, const pal__answer *a)
{
	json_t *content = json_array();
	if (a->thoughts.n && c->shows_thoughts)
		content = pal__json_append(content,
					   text_block(PAL__THOUGHT, a->thoughts.s, a->thoughts.n));
	if (a->said.n || !a->n_calls)
		content = pal__json_append(content, text_block(PAL__SAID, a->said.s, a->said.n));
	for (size_t i = 0; i < a->n_calls; i++) {
		const char *arguments = pal__calls_arguments(a->calls, i);
		json_t *input = json_loads(arguments, 0, NULL);
		content = pal__json_append(content, use_json(a, i, input));
	}
	return content;
}

static bool event(struct talk *c, const char *type, json_t *data)
{
	return pal__sse_send(c->reply, type, pal__json_with(data, "type", json_string(type)),
			     &c->f);
}

static bool on_start(pal__answer *a)
{
	struct talk *c = a->user;
	pal__usage usage = {
		.prompt = a->report.prompt_tokens, .cached = a->report.reused, .last = a->report};
	return pal__sse_begin(c->reply) &&
	       event(c, "message_start",
		     json_pack("{s:o}", "message",
			       message_json(c, json_array(), NULL, NULL, &usage))) &&
	       event(c, "ping", json_object());
}

static bool close_block(struct talk *c)
{
	int block = c->block;
	c->block = -1;
	return block < 0 || event(c, "content_block_stop", json_pack("{s:i}", "index", block));
}

/* Takes content. */
static bool open_block(struct talk *c, json_t *content)
{
	if (!close_block(c)) {
		json_decref(content);
		return false;
	}
	c->block = c->n_blocks++;
	return event(c, "content_block_start",
		     json_pack("{s:i, s:o}", "index", c->block, "content_block", content));
}

static bool delta(struct talk *c, const char *type, const char *field, json_t *text)
{
	return event(c, "content_block_delta",
		     json_pack("{s:i, s:{s:s, s:o}}", "index", c->block, "delta", "type", type,
			       field, text));
}

static bool on_part(pal__answer *a, pal__part part, const char *text, size_t n)
{
	struct talk *c = a->user;
	if (part == PAL__THOUGHT && !c->shows_thoughts)
		return true;
	if ((c->block < 0 || c->part != part) && !open_block(c, text_block(part, "", 0)))
		return false;
	c->part = part;
	return part == PAL__THOUGHT
		       ? delta(c, "thinking_delta", "thinking", pal__json_text(text, n))
		       : delta(c, "text_delta", "text", pal__json_text(text, n));
}

static bool on_call(pal__answer *a, size_t i)
{
	struct talk *c = a->user;
	const char *arguments = pal__calls_arguments(a->calls, i);
	return open_block(c, use_json(a, i, json_object())) &&
	       delta(c, "input_json_delta", "partial_json",
		     pal__json_text(arguments, strlen(arguments))) &&
	       close_block(c);
}

static void end_stream(struct talk *c, const pal__answer *a, const pal__usage *usage)
{
	pal__fault none = {0};
	if (!c->f.err.code && !c->n_blocks)
		open_block(c, text_block(PAL__SAID, "", 0));
	if (!c->f.err.code && close_block(c) &&
	    event(c, "message_delta",
		  json_pack("{s:{s:s, s:s?}, s:o}", "delta", "stop_reason", stop_reason(a),
			    "stop_sequence", a->stopped, "usage", pal__usage_message(usage))))
		event(c, "message_stop", json_object());
	if (c->f.err.code)
		pal__sse_send(c->reply, "error", pal__fault_json(&c->f, PAL__ANTHROPIC), &none);
}

void pal__messages(const pal__http_request *r, pal__reply *reply)
{
	struct talk c = {.api = r->user, .reply = reply, .block = -1};
	pal__usage usage = {0};
	pal__fresh_id("msg_", c.id, sizeof c.id);
	c.body = pal__params_body(r, &c.f);
	if (c.body)
		read_request(&c);
	pal__answer a = {.api = c.api,
			 .job = {.owner = r->owner, .ids = c.ids, .n_ids = c.n_ids},
			 .generate = {.sampling = c.sampling,
				      .max_tokens = c.max_tokens,
				      .stops = c.stops,
				      .n_stops = c.n_stops,
				      .constraint = c.constraint},
			 .generates = true,
			 .calls_tools = pal__ask_calls(&c.ask),
			 .thinks = c.api->family && !strcmp(c.api->family, "qwen3"),
			 .user = &c};
	if (c.stream) {
		a.on_start = on_start;
		a.on_part = on_part;
		a.on_call = on_call;
	}
	if (!c.f.err.code && !pal__answer_run(&a, reply, &c.f))
		pal__answer_count(&a, &usage, true);
	if (pal__reply_begun(reply))
		end_stream(&c, &a, &usage);
	else if (c.f.err.code)
		pal__reply_fault(reply, &c.f, PAL__ANTHROPIC);
	else
		pal__reply_send(
			reply, 200,
			message_json(&c, content_json(&c, &a), stop_reason(&a), a.stopped, &usage),
			PAL__ANTHROPIC);
	pal__answer_free(&a);
	talk_free(&c);
}

void pal__messages_count(const pal__http_request *r, pal__reply *reply)
{
	struct talk c = {.api = r->user, .reply = reply};
	c.body = pal__params_body(r, &c.f);
	const pal__params p = {c.body, "", &c.f};
	if (c.body)
		read_prompt(&c, &p);
	if (c.f.err.code)
		pal__reply_fault(reply, &c.f, PAL__ANTHROPIC);
	else
		pal__reply_send(reply, 200, json_pack("{s:I}", "input_tokens", (json_int_t)c.n_ids),
				PAL__ANTHROPIC);
	talk_free(&c);
}
