/* Tools and constraints for tests of the endpoints: one plain form of calls,
 * <tool_call>{"name":...,"arguments":{...}}</tool_call>, and constraints that allow everything. */
#ifndef PAL_TEST_SERVE_FAKE_FORM_H
#define PAL_TEST_SERVE_FAKE_FORM_H

#include <string.h>

#include "base/mem.h"
#include "serve/json.h"
#include "text/tools.h"

struct pal_constraint {
	int unused;
};

pal_status pal_constraint_json(const pal_model *model, const char *schema, size_t n,
			       pal_constraint **out, pal_error *err)
{
	(void)model;
	if (n > 2 && memmem(schema, n, "\"bad\"", 5))
		return pal__fail(err, PAL_EUNSUPPORTED, "the schema has a bad keyword");
	*out = pal__calloc(1, sizeof **out);
	return *out ? PAL_OK : pal__fail_memory(err, "a constraint", 1);
}

void pal_constraint_close(pal_constraint *c)
{
	pal__free(c);
}

pal_status pal__tools_constraint(const pal_model *model, const char *family, const json_t *tools,
				 pal__tools_choice choice, const char *only, bool parallel,
				 pal_constraint **out, pal_error *err)
{
	(void)family;
	(void)tools;
	(void)choice;
	(void)only;
	(void)parallel;
	return pal_constraint_json(model, "{}", 2, out, err);
}

static pal_status fake_text(pal__text *t, bool ok, char **text, pal_error *err)
{
	if (!ok) {
		pal__free(t->s);
		return pal__fail_memory(err, "text", t->n);
	}
	*text = t->s;
	return PAL_OK;
}

static bool fake_puts(pal__text *t, const char *s)
{
	return pal__text_put(t, s, strlen(s));
}

pal_status pal__tools_system(const char *family, const char *system, const json_t *tools,
			     char **text, pal_error *err)
{
	pal__text t = {0};
	(void)family;
	bool ok = (!system || (fake_puts(&t, system) && fake_puts(&t, " "))) &&
		  fake_puts(&t, "tools:") && pal__json_dump(tools, &t);
	return fake_text(&t, ok, text, err);
}

pal_status pal__tools_calls(const char *family, const char *content, const json_t *calls,
			    char **text, pal_error *err)
{
	pal__text t = {0};
	bool ok = !content || fake_puts(&t, content);
	(void)family;
	for (size_t i = 0; ok && i < json_array_size(calls); i++) {
		const json_t *f = json_object_get(json_array_get(calls, i), "function");
		ok = fake_puts(&t, "<tool_call>{\"name\":\"") &&
		     fake_puts(&t, pal__json_get(f, "name")) &&
		     fake_puts(&t, "\",\"arguments\":") &&
		     fake_puts(&t, pal__json_get(f, "arguments")) && fake_puts(&t, "}</tool_call>");
	}
	return fake_text(&t, ok, text, err);
}

pal_status pal__tools_results(const char *family, const char *const *results, size_t n,
			      const char **role, char **text, pal_error *err)
{
	pal__text t = {0};
	bool ok = true;
	(void)family;
	for (size_t i = 0; ok && i < n; i++)
		ok = fake_puts(&t, "<tool_response>") && fake_puts(&t, results[i]) &&
		     fake_puts(&t, "</tool_response>");
	*role = "user";
	return fake_text(&t, ok, text, err);
}

#define FAKE_CALLS 8

struct pal__calls {
	pal__text held, content;
	struct {
		char *name, *arguments;
	} calls[FAKE_CALLS];
	size_t n;
};

pal_status pal__calls_new(const char *family, pal__calls **out, pal_error *err)
{
	(void)family;
	*out = pal__calloc(1, sizeof **out);
	return *out ? PAL_OK : pal__fail_memory(err, "calls", 1);
}

void pal__calls_free(pal__calls *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < c->n; i++) {
		pal__free(c->calls[i].name);
		pal__free(c->calls[i].arguments);
	}
	pal__free(c->held.s);
	pal__free(c->content.s);
	pal__free(c);
}

/* A whole call's text, between its marks. */
static bool fake_take(pal__calls *c, const char *text, size_t n)
{
	json_t *j = json_loadb(text, n, 0, NULL);
	const char *name = pal__json_get(j, "name");
	pal__text arguments = {0};
	bool ok = name && c->n < FAKE_CALLS &&
		  pal__json_dump(json_object_get(j, "arguments"), &arguments);
	char *copy = ok ? pal__strndup(name, strlen(name)) : NULL;
	if (copy) {
		c->calls[c->n].name = copy;
		c->calls[c->n++].arguments = arguments.s;
	} else {
		pal__free(arguments.s);
	}
	json_decref(j);
	return copy;
}

pal_status pal__calls_feed(pal__calls *c, const char *text, size_t n, const char **content,
			   size_t *n_content, size_t *n_calls, pal_error *err)
{
	static const char from[] = "<tool_call>", to[] = "</tool_call>";
	bool ok = pal__text_put(&c->held, text, n);
	c->content.n = 0;
	while (ok) {
		char *at = memmem(c->held.s, c->held.n, from, sizeof from - 1), *end = NULL;
		size_t keep = 0, said = at ? (size_t)(at - c->held.s) : c->held.n;
		for (size_t k = 1; !at && n && k < sizeof from && k <= c->held.n; k++)
			if (!memcmp(c->held.s + c->held.n - k, from, k))
				keep = k;
		ok = pal__text_put(&c->content, c->held.s, said - keep);
		if (at)
			end = memmem(at, c->held.n - said, to, sizeof to - 1);
		if (end)
			ok = fake_take(c, at + sizeof from - 1,
				       (size_t)(end - at) - sizeof from + 1);
		size_t gone = end ? (size_t)(end - c->held.s) + sizeof to - 1 : said - keep;
		memmove(c->held.s, c->held.s + gone, c->held.n - gone);
		c->held.n -= gone;
		if (!end)
			break;
	}
	*content = c->content.s;
	*n_content = c->content.n;
	*n_calls = c->n;
	return ok ? PAL_OK : pal__fail_memory(err, "calls", n);
}

const char *pal__calls_name(const pal__calls *c, size_t i)
{
	return c->calls[i].name;
}

const char *pal__calls_arguments(const pal__calls *c, size_t i)
{
	return c->calls[i].arguments;
}

#endif
