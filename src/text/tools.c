#include "text/tools.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "text/schema.h"

/* How a family lays out calls. */
typedef struct {
	const char *name;
	const char *open, *close; /* around a call */
	const char *arguments;    /* the key of its arguments */
	const char *role;         /* of the message that brings results */
	bool first;               /* a call is all that the reply is */
} family;

static const family families[] = {
	{"chatml", "<tool_call>\n", "\n</tool_call>", "arguments", "user", false},
	{"qwen3", "<tool_call>\n", "\n</tool_call>", "arguments", "user", false},
	{"llama3", "", "", "parameters", "ipython", true},
};

static const family *find_family(const char *name, pal_error *err)
{
	for (size_t i = 0; i < sizeof families / sizeof *families; i++)
		if (name && !strcmp(families[i].name, name))
			return &families[i];
	pal__fail(err, PAL_EUNSUPPORTED, "the template %.64s has no tools", name ? name : "(none)");
	return NULL;
}

/* Text under construction. After a failure `ok` is false and stays so. */
typedef struct {
	char *s; /* [n], and a NUL */
	size_t n, cap;
	bool ok;
} string;

static void put_n(string *o, const char *s, size_t n)
{
	o->ok = o->ok && pal__grow((void **)&o->s, &o->cap, o->n + n + 1, 1);
	if (!o->ok)
		return;
	if (n)
		memcpy(o->s + o->n, s, n);
	o->n += n;
	o->s[o->n] = 0;
}

static void put(string *o, const char *s)
{
	put_n(o, s, strlen(s));
}

/* As the templates' `tojson` writes it. */
static void put_json(string *o, const json_t *j, size_t flags)
{
	char *text = json_dumps(j, flags | JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));
	if (text)
		put(o, text);
	else
		o->ok = false;
	pal__json_free(text);
}

static pal_status finish(string *o, char **text, pal_error *err)
{
	if (!o->ok) {
		pal__free(o->s);
		return pal__fail_memory(err, "the text of tools", o->n);
	}
	*text = o->s;
	return PAL_OK;
}

/* --- what the model is told ------------------------------------------------- */

static const char *name_of(const json_t *tool)
{
	return json_string_value(json_object_get(json_object_get(tool, "function"), "name"));
}

static pal_status check_tools(const json_t *tools, pal_error *err)
{
	if (!json_array_size(tools))
		return pal__fail(err, PAL_EINVAL, "tools must be a list of one or more");
	for (size_t i = 0; i < json_array_size(tools); i++) {
		const char *name = name_of(json_array_get(tools, i));
		if (!name || !*name || strlen(name) > PAL__TOOL_NAME)
			return pal__fail(err, PAL_EINVAL,
					 "tool %zu has no function with a name of 1 to %d bytes",
					 i + 1, PAL__TOOL_NAME);
	}
	return PAL_OK;
}

static void put_qwen(string *o, const char *system, const json_t *tools)
{
	if (system && *system) {
		put(o, system);
		put(o, "\n\n");
	}
	put(o, "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
	       "You are provided with function signatures within <tools></tools> XML tags:\n"
	       "<tools>");
	for (size_t i = 0; i < json_array_size(tools); i++) {
		put(o, "\n");
		put_json(o, json_array_get(tools, i), 0);
	}
	put(o, "\n</tools>\n\nFor each function call, return a json object with function name and "
	       "arguments within <tool_call></tool_call> XML tags:\n<tool_call>\n"
	       "{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call>");
}

static void put_llama3(string *o, const char *system, const json_t *tools)
{
	put(o, "Environment: ipython\nCutting Knowledge Date: December 2023\n"
	       "Today Date: 26 Jul 2024\n\n"
	       "You have access to the following functions. To call a function, please respond "
	       "with JSON for a function call."
	       "Respond in the format {\"name\": function name, \"parameters\": dictionary of "
	       "argument name and its value}.Do not use variables.\n\n");
	for (size_t i = 0; i < json_array_size(tools); i++) {
		put_json(o, json_array_get(tools, i), JSON_INDENT(4));
		put(o, "\n\n");
	}
	put(o, system ? system + strspn(system, " \t\r\n") : "");
}

pal_status pal__tools_system(const char *name, const char *system, const json_t *tools, char **text,
			     pal_error *err)
{
	const family *f = find_family(name, err);
	string o = {.ok = true};
	pal_status s = f ? check_tools(tools, err) : PAL_EUNSUPPORTED;
	if (s)
		return s;
	(f->first ? put_llama3 : put_qwen)(&o, system, tools);
	return finish(&o, text, err);
}

pal_status pal__tools_calls(const char *name, const char *content, const json_t *calls, char **text,
			    pal_error *err)
{
	const family *f = find_family(name, err);
	string o = {.ok = true};
	size_t n = json_array_size(calls);
	if (!f)
		return PAL_EUNSUPPORTED;
	if (f->first && n > 1)
		return pal__fail(err, PAL_EUNSUPPORTED,
				 "the template %s has one call in a message, not %zu", f->name, n);
	put(&o, f->first && n ? "" : content ? content : "");
	for (size_t i = 0; i < n; i++) {
		const json_t *call = json_object_get(json_array_get(calls, i), "function");
		const char *called = json_string_value(json_object_get(call, "name"));
		const char *arguments = json_string_value(json_object_get(call, "arguments"));
		if (!called || !arguments) {
			pal__free(o.s);
			return pal__fail(err, PAL_EINVAL, "call %zu has no %s", i + 1,
					 called ? "arguments" : "name");
		}
		put(&o, o.n ? "\n" : "");
		put(&o, f->open);
		put(&o, "{\"name\": \"");
		put(&o, called);
		put(&o, "\", \"");
		put(&o, f->arguments);
		put(&o, "\": ");
		put(&o, *arguments ? arguments : "{}");
		put(&o, "}");
		put(&o, f->close);
	}
	return finish(&o, text, err);
}

pal_status pal__tools_results(const char *name, const char *const *results, size_t n,
			      const char **role, char **text, pal_error *err)
{
	const family *f = find_family(name, err);
	string o = {.ok = true};
	if (!f)
		return PAL_EUNSUPPORTED;
	if (f->first && n > 1)
		return pal__fail(err, PAL_EUNSUPPORTED,
				 "the template %s has one result in a message, not %zu", f->name,
				 n);
	put(&o, "");
	for (size_t i = 0; i < n && !f->first; i++) {
		put(&o, i ? "\n<tool_response>\n" : "<tool_response>\n");
		put(&o, results[i]);
		put(&o, "\n</tool_response>");
	}
	if (f->first && n) { /* its template writes a text as JSON */
		json_t *text_json = json_string(results[0]);
		put_json(&o, text_json, 0);
		json_decref(text_json);
	}
	pal_status s = finish(&o, text, err);
	if (!s)
		*role = f->role;
	return s;
}

/* --- what the model says ---------------------------------------------------- */

typedef struct {
	char *name, *arguments;
} call;

struct pal__calls {
	const family *family;
	string text;     /* came, and is not decided on */
	size_t searched; /* bytes of it in which no call ends */
	string content;  /* new */
	call *calls;     /* [n] */
	size_t n, cap;
	bool plain; /* there is no call any more */
};

pal_status pal__calls_new(const char *name, pal__calls **out, pal_error *err)
{
	const family *f = find_family(name, err);
	if (!f)
		return PAL_EUNSUPPORTED;
	pal__calls *c = pal__calloc(1, sizeof *c);
	if (!c)
		return pal__fail_memory(err, "the calls of a reply", sizeof *c);
	c->family = f;
	c->text.ok = c->content.ok = true;
	*out = c;
	return PAL_OK;
}

void pal__calls_free(pal__calls *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < c->n; i++) {
		pal__free(c->calls[i].name);
		pal__free(c->calls[i].arguments);
	}
	pal__free(c->calls);
	pal__free(c->text.s);
	pal__free(c->content.s);
	pal__free(c);
}

/* A call of JSON text s[n], if it is one. truncated: the text ends too soon to be JSON. false: out
 * of memory. */
static bool read_call(pal__calls *c, const char *s, size_t n, bool *is_call, bool *truncated)
{
	json_error_t e = {0};
	json_t *j = json_loadb(s, n, JSON_REJECT_DUPLICATES, &e);
	const char *name = json_string_value(json_object_get(j, "name"));
	const json_t *arguments = json_object_get(j, c->family->arguments);
	bool ok = j || json_error_code(&e) != json_error_out_of_memory;
	*truncated = !j && json_error_code(&e) == json_error_premature_end_of_input;
	*is_call = name && *name && json_is_object(arguments);
	if (*is_call) {
		call new = {pal__strndup(name, strlen(name)), NULL};
		char *text = json_dumps(arguments, 0);
		new.arguments = text ? pal__strndup(text, strlen(text)) : NULL;
		pal__json_free(text);
		ok = new.name &&new.arguments &&pal__grow((void **)&c->calls, &c->cap, c->n + 1,
							  sizeof *c->calls);
		if (ok) {
			c->calls[c->n++] = new;
		} else {
			pal__free(new.name);
			pal__free(new.arguments);
		}
	}
	json_decref(j);
	return ok;
}

static bool is_space(char c)
{
	return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

/* The first n bytes of what is held go away, as content or not. */
static void drop(pal__calls *c, size_t n, bool content)
{
	if (content)
		put_n(&c->content, c->text.s, n);
	memmove(c->text.s, c->text.s + n, c->text.n - n);
	c->text.n -= n;
	c->searched = 0;
}

/* How much of what is held is content whatever comes: not the start of a tag at its end, nor white
 * space before that. */
static size_t certain(const pal__calls *c, const char *tag)
{
	size_t n = c->text.n, keep = strlen(tag) - 1;
	if (keep > n)
		keep = n;
	while (keep && memcmp(c->text.s + n - keep, tag, keep))
		keep--;
	n -= keep;
	while (n && is_space(c->text.s[n - 1]))
		n--;
	return n;
}

/* Takes what is decided off what is held; true: there may be more. */
static bool take_tagged(pal__calls *c, bool end, bool *ok)
{
	static const char open[] = "<tool_call>", close[] = "</tool_call>";
	const char *s = c->text.s, *at = memmem(s, c->text.n, open, strlen(open)), *behind;
	size_t before = at ? (size_t)(at - s) : 0;
	bool is_call = false, truncated;
	while (before && is_space(s[before - 1]))
		before--;
	if (!at || before) {
		drop(c, at ? before : end ? c->text.n : certain(c, open), true);
		return at;
	}
	at += strlen(open);
	size_t from = (size_t)(at - s) > c->searched ? (size_t)(at - s) : c->searched;
	behind = memmem(s + from, c->text.n - from, close, strlen(close));
	if (!behind && !end) {
		c->searched = c->text.n < strlen(close) ? 0 : c->text.n - strlen(close);
		return false;
	}
	size_t n = (size_t)((behind ? behind : s + c->text.n) - at);
	*ok = read_call(c, at, n, &is_call, &truncated);
	if (!*ok)
		return false;
	if (!is_call && truncated && behind && !end) { /* the tag is text of an argument */
		c->searched = (size_t)(behind - s) + strlen(close);
		return true;
	}
	drop(c, behind ? (size_t)(behind - s) + strlen(close) : c->text.n, !is_call);
	return true;
}

/* A reply that is a call starts with a brace, and shows only at its end that it is one. */
static void take_first(pal__calls *c, bool end, bool *ok)
{
	size_t i = 0;
	bool is_call = false, truncated;
	while (i < c->text.n && is_space(c->text.s[i]))
		i++;
	if (i == c->text.n && !end)
		return;
	c->plain |= i == c->text.n || c->text.s[i] != '{';
	if (!c->plain && end)
		*ok = read_call(c, c->text.s, c->text.n, &is_call, &truncated);
	if (*ok && (c->plain || end))
		drop(c, c->text.n, !is_call);
}

pal_status pal__calls_feed(pal__calls *c, const char *text, size_t n, const char **content,
			   size_t *n_content, size_t *n_calls, pal_error *err)
{
	bool ok = true;
	c->content.n = 0;
	put_n(&c->text, text, n);
	if (c->text.ok && c->family->first)
		take_first(c, !n, &ok);
	else if (c->text.ok)
		while (c->text.n && take_tagged(c, !n, &ok))
			;
	if (!n && c->n && ok) { /* white space behind a call */
		size_t i = 0;
		while (i < c->content.n && is_space(c->content.s[i]))
			i++;
		c->content.n = i == c->content.n ? 0 : c->content.n;
	}
	if (!ok || !c->text.ok || !c->content.ok)
		return pal__fail_memory(err, "the calls of a reply", c->text.n);
	*content = c->content.n ? c->content.s : "";
	*n_content = c->content.n;
	*n_calls = c->n;
	return PAL_OK;
}

const char *pal__calls_name(const pal__calls *c, size_t i)
{
	return c->calls[i].name;
}

const char *pal__calls_arguments(const pal__calls *c, size_t i)
{
	return c->calls[i].arguments;
}

/* --- what the model may say ------------------------------------------------- */

/* Any bytes until the trigger, which `to` follows; the text may end before. */
static int32_t until(pal__form *f, const char *trigger, int32_t to, int32_t end)
{
	int32_t at[32]; /* after so many bytes of the trigger */
	size_t n = strlen(trigger);
	for (size_t k = 0; k < n; k++)
		at[k] = pal__form_hole(f);
	at[n] = to;
	for (size_t k = 0; k < n; k++) {
		int32_t out = end;
		size_t next[256];
		for (size_t b = 0; b < 256; b++) {
			/* the longest start of the trigger that the text now ends with */
			size_t m = k + 1;
			while (m && ((uint8_t)trigger[m - 1] != b ||
				     memcmp(trigger, trigger + k + 1 - m, m - 1)))
				m--;
			next[b] = m;
		}
		for (size_t b = 0, from = 0; b < 256; b++)
			if (b == 255 || next[b + 1] != next[b]) {
				int32_t some =
					pal__form_bytes(f, (uint8_t)from, (uint8_t)b, at[next[b]]);
				out = pal__form_split(f, some, out);
				from = b + 1;
			}
		pal__form_fill(f, at[k], pal__form_mark(f, PAL__FORM_ANY, out), -1);
	}
	return at[0];
}

/* Any bytes that do not start with a brace. */
static int32_t unless_brace(pal__form *f, int32_t end)
{
	int32_t again = pal__form_hole(f), out;
	out = pal__form_split(f, pal__form_bytes(f, 0, 255, again), end);
	pal__form_fill(f, again, pal__form_mark(f, PAL__FORM_ANY, out), -1);
	out = pal__form_split(f, pal__form_bytes(f, 0, '{' - 1, again), end);
	out = pal__form_split(f, pal__form_bytes(f, '{' + 1, 255, again), out);
	return pal__form_mark(f, PAL__FORM_ANY, out);
}

typedef struct {
	const family *family;
	const json_t *tools;
	json_t *nothing; /* the schema of a tool without parameters */
	const char *only;
	pal__schemas *schemas;
	pal__form form;
} calling;

static const json_t *parameters(const calling *c, const json_t *tool)
{
	const json_t *p = json_object_get(json_object_get(tool, "function"), "parameters");
	return p && !json_is_null(p) ? p : c->nothing;
}

static bool chosen(const calling *c, const json_t *tool)
{
	return !c->only || !strcmp(c->only, name_of(tool));
}

static pal_status check_calling(calling *c, pal_error *err)
{
	bool any = false;
	char what[PAL__TOOL_NAME + 64];
	pal_status s = check_tools(c->tools, err);
	for (size_t i = 0; i < json_array_size(c->tools) && !s; i++) {
		const json_t *tool = json_array_get(c->tools, i);
		snprintf(what, sizeof what, "the parameters of %s", name_of(tool));
		any |= chosen(c, tool);
		for (size_t k = 0; k < i; k++)
			if (!strcmp(name_of(json_array_get(c->tools, k)), name_of(tool)))
				return pal__fail(err, PAL_EINVAL, "two tools are called %s",
						 name_of(tool));
		if (chosen(c, tool))
			s = pal__schema_check(parameters(c, tool), what, err);
	}
	if (!s && !any)
		return pal__fail(err, PAL_EINVAL, "there is no tool called %.64s", c->only);
	return s;
}

/* Any of the calls, then `to`. */
static int32_t any_call(calling *c, int32_t to)
{
	pal__form *f = &c->form;
	int32_t out = -1,
		close = pal__form_literal(f, c->family->close, strlen(c->family->close), to);
	close = pal__form_bytes(f, '}', '}', close);
	for (size_t i = 0; i < json_array_size(c->tools); i++) {
		const json_t *tool = json_array_get(c->tools, i);
		if (!chosen(c, tool))
			continue;
		int32_t at = pal__schemas_value(c->schemas, parameters(c, tool), true, close);
		at = pal__form_literal(f, "\": ", 3, at);
		at = pal__form_literal(f, c->family->arguments, strlen(c->family->arguments), at);
		at = pal__form_literal(f, "\", \"", 4, at);
		at = pal__form_text(f, name_of(tool), strlen(name_of(tool)), at);
		out = pal__form_split(f, at, out);
	}
	return pal__form_literal(f, "{\"name\": \"", 10, out);
}

static int32_t whole_text(calling *c, pal__tools_choice choice, bool parallel, int32_t end)
{
	static const char trigger[] = "<tool_call>";
	pal__form *f = &c->form;
	if (c->family->first) {
		int32_t at = any_call(c, end);
		return choice == PAL__TOOLS_REQUIRED ? at
						     : pal__form_split(f, at, unless_brace(f, end));
	}
	int32_t behind = parallel ? pal__form_hole(f) : end;
	int32_t at = pal__form_bytes(f, '\n', '\n', any_call(c, behind));
	int32_t first = pal__form_literal(f, trigger, strlen(trigger), at);
	if (parallel)
		pal__form_fill(f, behind, pal__form_bytes(f, '\n', '\n', first), end);
	return choice == PAL__TOOLS_REQUIRED ? first : until(f, trigger, at, end);
}

static pal_status make_form(calling *c, pal__tools_choice choice, bool parallel, pal_error *err)
{
	pal_status s = check_calling(c, err);
	if (!s)
		s = pal__schemas_new(&c->form, &c->schemas, err);
	if (s)
		return s;
	int32_t text = pal__form_rule_new(&c->form, 0, 0, PAL__FORM_MANY);
	int32_t start = whole_text(c, choice, parallel, pal__form_end(&c->form, text));
	if (!c->form.status)
		c->form.rules[text].start = start;
	return pal__schemas_finish(c->schemas, "a call of the tools", err);
}

pal_status pal__tools_constraint(const pal__tokenizer *t, const char *name, const json_t *tools,
				 pal__tools_choice choice, const char *only, bool parallel,
				 pal_constraint **out, pal_error *err)
{
	calling c = {.family = find_family(name, err), .tools = tools, .only = only};
	if (!c.family)
		return PAL_EUNSUPPORTED;
	c.nothing = json_pack("{s:s,s:{}}", "type", "object", "properties");
	pal_status s = c.nothing ? make_form(&c, choice, parallel, err)
				 : pal__fail_memory(err, "a schema", sizeof(json_t));
	pal__schemas_free(c.schemas);
	json_decref(c.nothing);
	if (!s)
		return pal__constraint_new(t, &c.form, out, err);
	pal__form_free(&c.form);
	return s;
}
