#include "serve/prompt.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "model/model.h"
#include "serve/json.h"

/* --- tools ------------------------------------------------------------------- */

pal_status pal__check_tool(const json_t *tool, const char *where, pal__fault *f)
{
	const char *type = pal__json_get(tool, "type");
	const json_t *function = json_object_get(tool, "function");
	const json_t *parameters = json_object_get(function, "parameters");
	const json_t *says = json_object_get(function, "description");
	const char *name = pal__json_get(function, "name");
	size_t n = name ? strlen(name) : 0;
	if (!type || strcmp(type, "function"))
		return pal__refuse(f, where, "type must be \"function\": no other tools are known");
	if (n < 1 || n > PAL__MAX_TOOL_NAME ||
	    strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != n)
		return pal__refuse(f, where,
				   "the function's name must be 1 to %d letters, digits, _ and -",
				   PAL__MAX_TOOL_NAME);
	if (says && !json_is_null(says) && !json_is_string(says))
		return pal__refuse(f, where, "the function's description must be a string");
	if (parameters && !json_is_null(parameters) && !json_is_object(parameters))
		return pal__refuse(f, where, "the function's parameters must be a JSON schema");
	return PAL_OK;
}

static const char *tool_name(const json_t *tool)
{
	return pal__json_get(json_object_get(tool, "function"), "name");
}

pal_status pal__ask_only(pal__ask *ask, const char *name, const char *where, pal__fault *f)
{
	for (size_t i = 0; name && i < json_array_size(ask->tools); i++) {
		const char *tool = tool_name(json_array_get(ask->tools, i));
		if (tool && !strcmp(tool, name)) {
			ask->only = tool;
			ask->choice = PAL__CALL_REQUIRED;
			return PAL_OK;
		}
	}
	return pal__refuse(f, where, "must name one of the tools");
}

static pal_status choose(pal__ask *ask, const pal__params *p)
{
	static const char *const words[] = {"none", "auto", "required", NULL};
	const json_t *choice = json_object_get(p->o, "tool_choice");
	if (!json_is_object(choice)) {
		ask->choice = (pal__call_choice)pal__param_word(
			p, "tool_choice", words, ask->tools ? PAL__CALL_AUTO : PAL__CALL_NEVER);
		if (ask->choice == PAL__CALL_REQUIRED && !ask->tools)
			return pal__refuse(p->f, "tool_choice", "there are no tools to call");
		return p->f->err.code;
	}
	const char *type = pal__json_get(choice, "type");
	if (!type || strcmp(type, "function"))
		return pal__refuse(p->f, "tool_choice", "type must be \"function\"");
	/* Chat puts the name into "function", responses beside the type. */
	const json_t *function = json_object_get(choice, "function");
	return pal__ask_only(ask, pal__json_get(function ? function : choice, "name"),
			     "tool_choice", p->f);
}

pal_status pal__ask_tools(pal__ask *ask, const pal__params *p)
{
	const json_t *tools = pal__param_array(p, "tools");
	size_t n = json_array_size(tools);
	char where[32];
	if (n > PAL__MAX_TOOLS)
		return pal__refuse(p->f, "tools", "must be at most %d", PAL__MAX_TOOLS);
	for (size_t i = 0; i < n; i++) {
		snprintf(where, sizeof where, "tools[%zu]", i);
		if (pal__check_tool(json_array_get(tools, i), where, p->f))
			return p->f->err.code;
	}
	ask->tools = n ? tools : NULL;
	ask->parallel = pal__param_bool(p, "parallel_tool_calls", true);
	return choose(ask, p);
}

bool pal__ask_calls(const pal__ask *ask)
{
	return ask->tools && ask->choice != PAL__CALL_NEVER;
}

/* --- texts ------------------------------------------------------------------- */

static bool is_one_of(const char *s, const char *const *words)
{
	while (s && *words && strcmp(*words, s))
		words++;
	return s && *words;
}

static const char *part_text(const json_t *part)
{
	const char *text = pal__json_get(part, "text");
	return text ? text : pal__json_get(part, "refusal");
}

pal_status pal__parts_text(const json_t *content, const char *const *types, const char *where,
			   char **text, pal__fault *f)
{
	pal__text all = {0};
	bool ok = true;
	*text = NULL;
	if (!content || json_is_null(content))
		return PAL_OK;
	if (!json_is_string(content) && !json_is_array(content))
		return pal__refuse(f, where, "must be a string or an array of parts");
	size_t n = json_is_array(content) ? json_array_size(content) : 1;
	for (size_t i = 0; ok && i < n; i++) {
		const json_t *part = json_is_array(content) ? json_array_get(content, i) : content;
		const char *type = pal__json_get(part, "type");
		const char *s = json_is_string(part) ? json_string_value(part) : part_text(part);
		if (!json_is_string(part) && !is_one_of(type, types)) {
			pal__refuse(f, where,
				    "part %zu is of type %.40s: only text (%s) can be read here", i,
				    type ? type : "(none)", types[0]);
			f->code = "unsupported_content";
		} else if (!s) {
			pal__refuse(f, where, "part %zu has no text", i);
		}
		ok = !f->err.code && pal__text_put(&all, s, strlen(s));
	}
	if (!ok || f->err.code) {
		pal__free(all.s);
		return pal__fault_memory(f);
	}
	*text = all.s;
	return PAL_OK;
}

/* The messages that a template knows, as they are made. */
struct talk {
	const pal__api *api;
	const pal__ask *ask;
	pal_message *m; /* [n]; contents owned */
	size_t n, cap;
	pal__fault *f;
};

static void talk_free(struct talk *t)
{
	for (size_t i = 0; i < t->n; i++)
		pal__free((char *)t->m[i].content);
	pal__free(t->m);
}

/* Takes text, which may be NULL: "". */
static pal_status say(struct talk *t, const char *role, char *text)
{
	char *own = text ? text : pal__strndup("", 0);
	if (own && pal__grow((void **)&t->m, &t->cap, t->n + 1, sizeof *t->m)) {
		t->m[t->n++] = (pal_message){role, own};
		return PAL_OK;
	}
	pal__free(own);
	return pal__fault_memory(t->f);
}

static const char *family_of(const struct talk *t)
{
	if (!t->api->family)
		pal__fail(&t->f->err, PAL_EUNSUPPORTED,
			  "tools: the model's chat template is of no known family");
	return t->api->family;
}

/* The system's message, which tools are described in. Takes text. */
static pal_status say_system(struct talk *t, char *text, bool with_tools)
{
	char *whole = NULL;
	if (!with_tools || !pal__ask_calls(t->ask))
		return say(t, "system", text);
	const char *family = family_of(t);
	if (family)
		pal__tools_system(family, text, t->ask->tools, &whole, &t->f->err);
	pal__free(text);
	return t->f->err.code ? t->f->err.code : say(t, "system", whole);
}

/* Puts thoughts before what was said, as the model wrote them. Takes both. */
static char *with_thoughts(struct talk *t, const char *thoughts, char *text)
{
	pal__text all = {0};
	const char *said = text ? text : "";
	bool ok = pal__text_put(&all, "<think>\n", 8) &&
		  pal__text_put(&all, thoughts, strlen(thoughts)) &&
		  pal__text_put(&all, "\n</think>\n\n", 11) &&
		  pal__text_put(&all, said, strlen(said));
	pal__free(text);
	if (!ok) {
		pal__free(all.s);
		pal__fault_memory(t->f);
		return NULL;
	}
	return all.s;
}

static pal_status check_calls(const struct talk *t, const json_t *calls, const char *where)
{
	if (!json_is_array(calls))
		return pal__refuse(t->f, where, "tool_calls must be an array");
	for (size_t i = 0; i < json_array_size(calls); i++) {
		const json_t *call = json_array_get(calls, i);
		const json_t *function = json_object_get(call, "function");
		if (!pal__json_get(call, "id") || !pal__json_get(function, "name") ||
		    !pal__json_get(function, "arguments"))
			return pal__refuse(t->f, where,
					   "tool_calls[%zu] must have an id and a function with a "
					   "name and arguments, all strings",
					   i);
	}
	return PAL_OK;
}

/* Takes text. */
static pal_status say_answer(struct talk *t, const json_t *message, const char *where, char *text)
{
	const json_t *calls = json_object_get(message, "tool_calls");
	const char *thoughts = pal__json_get(message, "reasoning_content");
	const char *family = t->api->family;
	char *whole = text;
	if (calls && !json_is_null(calls) && json_array_size(calls) + !json_is_array(calls)) {
		if (!check_calls(t, calls, where) && (family = family_of(t))) {
			whole = NULL;
			pal__tools_calls(family, text, calls, &whole, &t->f->err);
			pal__free(text);
		}
	}
	if (!t->f->err.code && thoughts && *thoughts && family && !strcmp(family, "qwen3"))
		whole = with_thoughts(t, thoughts, whole);
	if (!t->f->err.code)
		return say(t, "assistant", whole);
	pal__free(whole);
	return t->f->err.code;
}

/* The message of messages[from, to) that answers the call, or NULL. */
static const json_t *result_of(const struct talk *t, size_t from, size_t to, const char *id)
{
	for (size_t i = from; i < to; i++) {
		const json_t *m = json_array_get(t->ask->messages, i);
		const char *of = pal__json_get(m, "tool_call_id");
		if (of && !strcmp(of, id))
			return m;
	}
	return NULL;
}

static const char *const text_types[] = {"text", "input_text", "output_text", "refusal", NULL};

/* Results in the order of their calls. results: [n], contents owned. */
static size_t order_results(struct talk *t, const json_t *calls, size_t from, size_t to,
			    char **results)
{
	size_t n = 0;
	for (size_t i = 0; i < json_array_size(calls) && n < to - from && !t->f->err.code; i++) {
		const char *id = pal__json_get(json_array_get(calls, i), "id");
		const json_t *m = id ? result_of(t, from, to, id) : NULL;
		if (!m || pal__parts_text(json_object_get(m, "content"), text_types,
					  "content of a tool's message", &results[n], t->f))
			continue;
		if (!results[n] && !(results[n] = pal__strndup("", 0)))
			pal__fault_memory(t->f);
		n += results[n] != NULL;
	}
	return n;
}

/* messages[from, to) are the tools'. */
static pal_status say_results(struct talk *t, size_t from, size_t to)
{
	const json_t *before = from ? json_array_get(t->ask->messages, from - 1) : NULL;
	const char *family = family_of(t), *role = "user";
	char **results = pal__calloc(to - from, sizeof *results), *text = NULL;
	char where[48];
	snprintf(where, sizeof where, "messages[%zu]", from);
	size_t n =
		results ? order_results(t, json_object_get(before, "tool_calls"), from, to, results)
			: 0;
	if (!results)
		pal__fault_memory(t->f);
	else if (!t->f->err.code && n != to - from)
		pal__refuse(t->f, where,
			    "each tool's message must have the tool_call_id of one call of the "
			    "assistant's message before it");
	else if (!t->f->err.code)
		pal__tools_results(family, (const char *const *)results, n, &role, &text,
				   &t->f->err);
	for (size_t i = 0; i < n; i++)
		pal__free(results[i]);
	pal__free(results);
	return t->f->err.code ? t->f->err.code : say(t, role, text);
}

static bool is_role(const json_t *m, const char *role)
{
	const char *r = pal__json_get(m, "role");
	return r && !strcmp(r, role);
}

static pal_status say_message(struct talk *t, size_t i)
{
	const json_t *m = json_array_get(t->ask->messages, i);
	char where[48], *text = NULL;
	snprintf(where, sizeof where, "messages[%zu].content", i);
	if (pal__parts_text(json_object_get(m, "content"), text_types, where, &text, t->f))
		return t->f->err.code;
	*strrchr(where, '.') = 0;
	if (is_role(m, "system") || is_role(m, "developer"))
		return say_system(t, text, i == 0);
	if (is_role(m, "assistant"))
		return say_answer(t, m, where, text);
	if (is_role(m, "user") && text)
		return say(t, "user", text);
	pal__free(text);
	if (is_role(m, "user"))
		return pal__refuse(t->f, where, "content is missing");
	return pal__refuse(t->f, where,
			   "role must be one of system, developer, user, assistant, tool");
}

static pal_status say_all(struct talk *t)
{
	size_t n = json_array_size(t->ask->messages);
	const json_t *first = json_array_get(t->ask->messages, 0);
	if (pal__ask_calls(t->ask) && !is_role(first, "system") && !is_role(first, "developer"))
		say_system(t, NULL, true);
	for (size_t i = 0, to; i < n && !t->f->err.code; i = to) {
		for (to = i; to < n && is_role(json_array_get(t->ask->messages, to), "tool");)
			to++;
		if (to > i) {
			say_results(t, i, to);
		} else {
			say_message(t, i);
			to++;
		}
	}
	return t->f->err.code;
}

/* An answer of a form from its first byte on leaves no room for thoughts. */
static pal_thinking thinking_of(const pal__api *api, const pal__ask *ask)
{
	bool form = ask->schema || (pal__ask_calls(ask) && ask->choice == PAL__CALL_REQUIRED);
	return form && api->family ? PAL_THINKING_OFF : ask->thinking;
}

pal_status pal__ask_ids(const pal__api *api, const pal__ask *ask, bool open_reply, int32_t **ids,
			size_t *n, pal__fault *f)
{
	struct talk t = {.api = api, .ask = ask, .f = f};
	if (!f->err.code && !json_array_size(ask->messages))
		pal__refuse(f, "messages", "must be an array of one message or more");
	if (!f->err.code && !say_all(&t))
		pal_chat_tokens(api->model, api->options.template_name, t.m, t.n, open_reply,
				thinking_of(api, ask), ids, n, &f->err);
	talk_free(&t);
	return f->err.code;
}

/* --- constraints ------------------------------------------------------------- */

static pal_status from_schema(const pal__api *api, const json_t *schema, pal_constraint **out,
			      pal__fault *f)
{
	pal__text text = {0};
	if (!pal__json_dump(schema, &text))
		pal__fault_memory(f);
	else
		pal_constraint_json(api->model, text.s, text.n, out, &f->err);
	pal__free(text.s);
	return f->err.code;
}

pal_status pal__ask_constraint(const pal__api *api, const pal__ask *ask, pal_constraint **out,
			       pal__fault *f)
{
	*out = NULL;
	if (f->err.code)
		return f->err.code;
	if (pal__ask_calls(ask) && ask->schema)
		return pal__refuse(f, "response_format",
				   "cannot go with tools unless tool_choice is \"none\"");
	if (ask->schema)
		return from_schema(api, ask->schema, out, f);
	if (!pal__ask_calls(ask))
		return PAL_OK;
	return pal__tools_constraint(pal__model_tokenizer(api->model), api->family, ask->tools,
				     ask->choice == PAL__CALL_REQUIRED ? PAL__TOOLS_REQUIRED
								       : PAL__TOOLS_AUTO,
				     ask->only, ask->parallel, out, &f->err);
}

pal_status pal__ask_format(pal__ask *ask, const pal__params *p, const char *name, json_t **owned)
{
	static const char *const types[] = {"text", "json_object", "json_schema", NULL};
	const json_t *format = pal__param_object(p, name);
	char where[64], within[sizeof where + 1];
	snprintf(where, sizeof where, "%s%s", p->prefix, name);
	snprintf(within, sizeof within, "%s.", where);
	const pal__params q = {format, within, p->f};
	if (!format)
		return p->f->err.code;
	if (!json_object_get(format, "type"))
		return pal__refuse(p->f, where, "type is missing");
	int type = pal__param_word(&q, "type", types, 0);
	if (type == 0)
		return p->f->err.code;
	if (type == 1) {
		ask->schema = *owned = json_pack("{s:s}", "type", "object");
		return *owned ? PAL_OK : pal__fault_memory(p->f);
	}
	/* Chat puts the schema into "json_schema", responses beside the type. */
	const json_t *inside = pal__param_object(&q, "json_schema");
	ask->schema = json_object_get(inside ? inside : format, "schema");
	if (!json_is_object(ask->schema))
		return pal__refuse(p->f, where, "schema must be a JSON schema, an object");
	return p->f->err.code;
}
