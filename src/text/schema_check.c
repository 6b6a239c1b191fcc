/* Which keywords are known, and whether what they say can be meant. */
#include <stdio.h>
#include <string.h>

#include "text/schema.h"

typedef enum {
	NOTE,    /* says nothing about values */
	SCHEMA,  /* a schema */
	MEMBERS, /* an object of schemas */
	LIST,    /* schemas, one at least */
	TYPE,    /* a type or several */
	NAMES,   /* strings */
	COUNT,   /* an integer from 0 on */
	NUMBER,
	STRING,
	VALUES, /* one at least */
	VALUE,
	REF,
	NO, /* false */
} form_of;

static const struct {
	const char *name;
	form_of is;
} keywords[] = {
	{"type", TYPE},
	{"properties", MEMBERS},
	{"required", NAMES},
	{"additionalProperties", SCHEMA},
	{"items", SCHEMA},
	{"prefixItems", LIST},
	{"minItems", COUNT},
	{"maxItems", COUNT},
	{"minLength", COUNT},
	{"maxLength", COUNT},
	{"pattern", STRING},
	{"format", STRING},
	{"minimum", NUMBER},
	{"maximum", NUMBER},
	{"exclusiveMinimum", NUMBER},
	{"exclusiveMaximum", NUMBER},
	{"enum", VALUES},
	{"const", VALUE},
	{"anyOf", LIST},
	{"oneOf", LIST},
	{"allOf", LIST},
	{"$ref", REF},
	{"uniqueItems", NO},
	{"$schema", NOTE},
	{"$id", NOTE},
	{"$comment", NOTE},
	{"$defs", NOTE}, /* what is referred to is looked at */
	{"definitions", NOTE},
	{"title", NOTE},
	{"description", NOTE},
	{"default", NOTE},
	{"examples", NOTE},
	{"deprecated", NOTE},
	{"readOnly", NOTE},
	{"writeOnly", NOTE},
};

typedef struct {
	const json_t *root;
	json_t *seen; /* references: an object of them */
	const char *what;
	char place[256]; /* a JSON pointer, cut short */
	size_t n;
	int depth;
	pal_error *err;
} checker;

static pal_status check(checker *c, const json_t *schema);

static pal_status below(checker *c, const char *name, const json_t *schema)
{
	size_t n = c->n;
	int more = snprintf(c->place + n, sizeof c->place - n, "/%s", name);
	c->n = n + (size_t)more < sizeof c->place ? n + (size_t)more : sizeof c->place - 1;
	pal_status s = check(c, schema);
	c->n = n;
	c->place[n] = 0;
	return s;
}

static pal_status wrong(checker *c, const char *name, const char *wanted)
{
	return pal__fail(c->err, PAL_EINVAL, "%s: \"%s\" at #%s must be %s", c->what, name,
			 c->place, wanted);
}

static pal_status check_list(checker *c, const char *name, const json_t *list)
{
	pal_status s = PAL_OK;
	char at[64];
	if (!json_array_size(list))
		return wrong(c, name, "a list of schemas");
	for (size_t i = 0; i < json_array_size(list) && !s; i++) {
		snprintf(at, sizeof at, "%.32s/%zu", name, i);
		s = below(c, at, json_array_get(list, i));
	}
	return s;
}

static pal_status check_members(checker *c, const char *name, const json_t *members)
{
	pal_status s = PAL_OK;
	const char *key;
	json_t *v;
	if (!json_is_object(members))
		return wrong(c, name, "an object of schemas");
	json_object_foreach((json_t *)members, key, v)
	{
		char at[160];
		snprintf(at, sizeof at, "%.32s/%.100s", name, key);
		if (!s)
			s = below(c, at, v);
	}
	return s;
}

static pal_status check_ref(checker *c, const char *name, const json_t *ref)
{
	const char *text = json_string_value(ref);
	const json_t *to = text ? pal__schema_resolve(c->root, text) : NULL;
	if (!to)
		return pal__fail(c->err, PAL_EINVAL,
				 "%s: \"%s\" at #%s refers to nothing in the schema", c->what, name,
				 c->place);
	if (json_object_get(c->seen, text))
		return PAL_OK;
	if (json_object_set_new(c->seen, text, json_true()))
		return pal__fail_memory(c->err, "a schema", strlen(text));
	size_t n = c->n;
	c->n = 0;
	pal_status s = below(c, *text == '#' && text[1] ? text + 2 : "", to);
	c->n = n;
	return s;
}

static bool all_strings(const json_t *list)
{
	for (size_t i = 0; i < json_array_size(list); i++)
		if (!json_is_string(json_array_get(list, i)))
			return false;
	return json_is_array(list);
}

static pal_status check_type(checker *c, const char *name, const json_t *v)
{
	static const char *const types[] = {"null",   "boolean", "integer", "number",
					    "string", "array",   "object"};
	size_t n = json_is_string(v) ? 1 : json_array_size(v);
	for (size_t i = 0; i < n; i++) {
		const char *type = json_string_value(json_is_string(v) ? v : json_array_get(v, i));
		bool known = false;
		for (size_t k = 0; type && k < sizeof types / sizeof *types; k++)
			known |= !strcmp(type, types[k]);
		if (!known)
			n = 0;
	}
	return n ? PAL_OK : wrong(c, name, "a type or a list of types");
}

static pal_status check_keyword(checker *c, const char *name, form_of is, const json_t *v)
{
	switch (is) {
	case SCHEMA:
		return below(c, name, v);
	case MEMBERS:
		return check_members(c, name, v);
	case LIST:
		return check_list(c, name, v);
	case REF:
		return check_ref(c, name, v);
	case TYPE:
		return check_type(c, name, v);
	case NAMES:
		return all_strings(v) ? PAL_OK : wrong(c, name, "a list of strings");
	case COUNT:
		return json_is_number(v) && json_number_value(v) >= 0 &&
				       json_number_value(v) < 1e18 &&
				       json_number_value(v) == (double)(int64_t)json_number_value(v)
			       ? PAL_OK
			       : wrong(c, name, "a whole number from 0 on");
	case NUMBER:
		return json_is_number(v) ? PAL_OK : wrong(c, name, "a number");
	case STRING:
		return json_is_string(v) ? PAL_OK : wrong(c, name, "a string");
	case VALUES:
		return json_array_size(v) ? PAL_OK : wrong(c, name, "a list of values");
	case NO:
		if (!json_is_false(v))
			return pal__fail(c->err, PAL_EUNSUPPORTED,
					 "%s: \"%s\" at #%s is not supported", c->what, name,
					 c->place);
		return PAL_OK;
	default:
		return PAL_OK;
	}
}

static pal_status check(checker *c, const json_t *schema)
{
	const char *key;
	json_t *v;
	pal_status s = PAL_OK;
	if (json_is_boolean(schema))
		return PAL_OK;
	if (!json_is_object(schema))
		return pal__fail(c->err, PAL_EINVAL, "%s: at #%s there must be a schema", c->what,
				 c->place);
	if (c->depth == PAL__SCHEMA_DEPTH)
		return pal__fail(c->err, PAL_ELIMIT, "%s: more than %d schemas in each other",
				 c->what, PAL__SCHEMA_DEPTH);
	c->depth++;
	json_object_foreach((json_t *)schema, key, v)
	{
		size_t i = 0, n = sizeof keywords / sizeof *keywords;
		while (i < n && strcmp(keywords[i].name, key))
			i++;
		if (i < n && !s)
			s = check_keyword(c, key, keywords[i].is, v);
		else if (!s)
			s = pal__fail(c->err, PAL_EUNSUPPORTED,
				      "%s: keyword \"%.100s\" at #%s is not supported", c->what,
				      key, c->place);
	}
	c->depth--;
	return s;
}

pal_status pal__schema_check(const json_t *root, const char *what, pal_error *err)
{
	checker c = {.root = root, .seen = json_object(), .what = what, .err = err};
	if (!c.seen)
		return pal__fail_memory(err, what, sizeof(json_t));
	pal_status s = check(&c, root);
	json_decref(c.seen);
	return s;
}

void pal__json_free(char *text)
{
	json_free_t of_jansson;
	json_get_alloc_funcs(NULL, &of_jansson);
	of_jansson(text);
}

/* --- references ----------------------------------------------------------- */

/* The next part of a pointer, up to '/', without its escapes. false: too long. */
static bool part(const char **at, char *out, size_t size)
{
	size_t n = 0;
	const char *s = *at;
	for (; *s && *s != '/'; s++) {
		char c = *s;
		unsigned code;
		int used = 0;
		if (c == '~' && (s[1] == '0' || s[1] == '1'))
			c = *++s == '0' ? '~' : '/';
		else if (c == '%' && sscanf(s + 1, "%2x%n", &code, &used) == 1 && used == 2) {
			c = (char)code;
			s += 2;
		}
		if (n + 1 == size)
			return false;
		out[n++] = c;
	}
	out[n] = 0;
	*at = s;
	return true;
}

const json_t *pal__schema_resolve(const json_t *root, const char *ref)
{
	char name[256], *end;
	if (*ref++ != '#')
		return NULL;
	while (root && *ref) {
		if (*ref++ != '/' || !part(&ref, name, sizeof name))
			return NULL;
		if (json_is_array(root)) {
			unsigned long i = strtoul(name, &end, 10);
			root = *name >= '0' && *name <= '9' && !*end ? json_array_get(root, i)
								     : NULL;
		} else {
			root = json_object_get(root, name);
		}
	}
	return root;
}
