#include "text/schema_merge.h"

#include <string.h>

#include "text/schema.h"

#define PLAIN_DEPTH 128 /* combinations and references in each other */

static const struct {
	const char *name;
	unsigned bits;
} types[] = {
	{"null", PAL__TYPE_NULL},
	{"boolean", PAL__TYPE_BOOLEAN},
	{"number", PAL__TYPE_NUMBER | PAL__TYPE_INTEGER},
	{"integer", PAL__TYPE_INTEGER},
	{"string", PAL__TYPE_STRING},
	{"array", PAL__TYPE_ARRAY},
	{"object", PAL__TYPE_OBJECT},
};
#define N_TYPES (sizeof types / sizeof *types)

/* What two schemas say with a keyword becomes one. */
typedef enum { TYPES, ENUM, PROPERTIES, REQUIRED, BOTH, PREFIX, LARGER, SMALLER, SAME } how;

static const struct {
	const char *name;
	how how;
	unsigned about;
} keywords[] = {
	{"type", TYPES, 0},
	{"enum", ENUM, 0},
	{"properties", PROPERTIES, PAL__TYPE_OBJECT},
	{"required", REQUIRED, PAL__TYPE_OBJECT},
	{"additionalProperties", BOTH, PAL__TYPE_OBJECT},
	{"prefixItems", PREFIX, PAL__TYPE_ARRAY},
	{"items", BOTH, PAL__TYPE_ARRAY},
	{"minItems", LARGER, PAL__TYPE_ARRAY},
	{"maxItems", SMALLER, PAL__TYPE_ARRAY},
	{"minLength", LARGER, PAL__TYPE_STRING},
	{"maxLength", SMALLER, PAL__TYPE_STRING},
	{"pattern", SAME, PAL__TYPE_STRING},
	{"format", SAME, PAL__TYPE_STRING},
	{"minimum", LARGER, PAL__TYPE_NUMBER | PAL__TYPE_INTEGER},
	{"maximum", SMALLER, PAL__TYPE_NUMBER | PAL__TYPE_INTEGER},
	{"exclusiveMinimum", LARGER, PAL__TYPE_NUMBER | PAL__TYPE_INTEGER},
	{"exclusiveMaximum", SMALLER, PAL__TYPE_NUMBER | PAL__TYPE_INTEGER},
};
#define N_KEYWORDS (sizeof keywords / sizeof *keywords)

void pal__merger_no_memory(pal__merger *m)
{
	if (!m->status)
		m->status = pal__fail_memory(&m->error, "a schema", sizeof(json_t));
}

void pal__merger_fail(pal__merger *m, pal_status status, const char *what, const json_t *where)
{
	char *text = m->status ? NULL : json_dumps(where, JSON_COMPACT | JSON_ENCODE_ANY);
	if (text)
		m->status = pal__fail(&m->error, status, "the schema: %s in %.200s", what, text);
	else
		pal__merger_no_memory(m);
	pal__json_free(text);
}

/* j, or NULL and the failure noted */
static json_t *made(pal__merger *m, json_t *j)
{
	if (!j)
		pal__merger_no_memory(m);
	return j;
}

static void set_new(pal__merger *m, json_t *object, const char *key, json_t *v)
{
	if (json_object_set_new(object, key, v))
		pal__merger_no_memory(m);
}

static void append_new(pal__merger *m, json_t *array, json_t *v)
{
	if (json_array_append_new(array, v))
		pal__merger_no_memory(m);
}

/* --- types ---------------------------------------------------------------- */

static unsigned type_bits(const json_t *type)
{
	unsigned bits = 0;
	for (size_t i = 0; i < N_TYPES; i++) {
		if (json_is_string(type) && !strcmp(json_string_value(type), types[i].name))
			bits |= types[i].bits;
		for (size_t k = 0; k < json_array_size(type); k++)
			if (!strcmp(json_string_value(json_array_get(type, k)), types[i].name))
				bits |= types[i].bits;
	}
	return bits;
}

unsigned pal__schema_types(const json_t *plain)
{
	unsigned bits = 0;
	const json_t *type = json_object_get(plain, "type");
	if (type)
		return type_bits(type);
	for (size_t i = 0; i < N_KEYWORDS; i++)
		if (json_object_get(plain, keywords[i].name))
			bits |= keywords[i].about;
	return bits ? bits : PAL__TYPE_ANY;
}

unsigned pal__value_type(const json_t *v)
{
	switch (json_typeof(v)) {
	case JSON_NULL:
		return PAL__TYPE_NULL;
	case JSON_TRUE:
	case JSON_FALSE:
		return PAL__TYPE_BOOLEAN;
	case JSON_INTEGER:
		return PAL__TYPE_INTEGER;
	case JSON_REAL: {
		double x = json_real_value(v);
		bool whole = x > -1e18 && x < 1e18 && x == (double)(int64_t)x;
		return whole ? PAL__TYPE_INTEGER : PAL__TYPE_NUMBER;
	}
	case JSON_STRING:
		return PAL__TYPE_STRING;
	case JSON_ARRAY:
		return PAL__TYPE_ARRAY;
	default:
		return PAL__TYPE_OBJECT;
	}
}

/* --- both of two schemas --------------------------------------------------- */

/* A schema that says both: a new reference. */
static json_t *both(pal__merger *m, json_t *a, json_t *b)
{
	if (json_is_true(b) || json_is_false(a) || json_equal(a, b))
		return json_incref(a);
	if (json_is_true(a) || json_is_false(b))
		return json_incref(b);
	return made(m, json_pack("{s:[O,O]}", "allOf", a, b));
}

/* Those of a, in their order, that are in b, too. */
static json_t *common(pal__merger *m, json_t *a, json_t *b)
{
	json_t *out = made(m, json_array());
	for (size_t i = 0; i < json_array_size(a); i++)
		for (size_t k = 0; k < json_array_size(b); k++)
			if (json_equal(json_array_get(a, i), json_array_get(b, k))) {
				append_new(m, out, json_incref(json_array_get(a, i)));
				break;
			}
	return out;
}

static json_t *united(pal__merger *m, json_t *a, json_t *b)
{
	json_t *out = made(m, json_copy(a));
	for (size_t k = 0; k < json_array_size(b); k++) {
		bool known = false;
		for (size_t i = 0; i < json_array_size(a); i++)
			known |= json_equal(json_array_get(a, i), json_array_get(b, k));
		if (!known)
			append_new(m, out, json_incref(json_array_get(b, k)));
	}
	return out;
}

static json_t *common_types(pal__merger *m, const json_t *a, const json_t *b)
{
	unsigned bits = type_bits(a) & type_bits(b);
	json_t *out = made(m, json_array());
	for (size_t i = 0; i < N_TYPES; i++)
		if ((bits & types[i].bits) == types[i].bits) {
			append_new(m, out, json_string(types[i].name));
			bits &= ~types[i].bits;
		}
	return out;
}

/* The properties of a and b: one that only one of them names is an additional one of the other. */
static json_t *merge_properties(pal__merger *m, const json_t *a, const json_t *b)
{
	json_t *pa = json_object_get(a, "properties"), *pb = json_object_get(b, "properties");
	json_t *xa = json_object_get(a, "additionalProperties");
	json_t *xb = json_object_get(b, "additionalProperties");
	json_t *out = made(m, json_object()), *v;
	const char *key;
	json_object_foreach(pa, key, v)
	{
		json_t *other = json_object_get(pb, key) ? json_object_get(pb, key) : xb;
		set_new(m, out, key, other ? both(m, v, other) : json_incref(v));
	}
	json_object_foreach(pb, key, v) if (!json_object_get(pa, key))
		set_new(m, out, key, xa ? both(m, v, xa) : json_incref(v));
	return out;
}

static json_t *merge_prefix(pal__merger *m, const json_t *a, const json_t *b)
{
	json_t *pa = json_object_get(a, "prefixItems"), *pb = json_object_get(b, "prefixItems");
	json_t *ia = json_object_get(a, "items"), *ib = json_object_get(b, "items");
	json_t *out = made(m, json_array());
	for (size_t i = 0; i < json_array_size(pa) || i < json_array_size(pb); i++) {
		json_t *x = json_array_get(pa, i), *y = json_array_get(pb, i);
		x = x ? x : ia;
		y = y ? y : ib;
		append_new(m, out, x && y ? both(m, x, y) : json_incref(x ? x : y));
	}
	return out;
}

static json_t *merge_keyword(pal__merger *m, size_t i, const json_t *a, const json_t *b)
{
	json_t *x = json_object_get(a, keywords[i].name), *y = json_object_get(b, keywords[i].name);
	if (keywords[i].how == PROPERTIES)
		return merge_properties(m, a, b);
	if (keywords[i].how == PREFIX)
		return merge_prefix(m, a, b);
	if (!x || !y)
		return json_incref(x ? x : y);
	switch (keywords[i].how) {
	case TYPES:
		return common_types(m, x, y);
	case ENUM:
		return common(m, x, y);
	case REQUIRED:
		return united(m, x, y);
	case BOTH:
		return both(m, x, y);
	case LARGER:
		return json_incref(json_number_value(x) > json_number_value(y) ? x : y);
	case SMALLER:
		return json_incref(json_number_value(x) < json_number_value(y) ? x : y);
	default:
		if (!json_equal(x, y))
			pal__merger_fail(m, PAL_EUNSUPPORTED, "a value of two patterns or formats",
					 b);
		return json_incref(x);
	}
}

static bool spend(pal__merger *m)
{
	if (!m->status && ++m->work > PAL__SCHEMA_WORK)
		m->status = pal__fail(&m->error, PAL_ELIMIT,
				      "the schema: more than %d combinations and references",
				      PAL__SCHEMA_WORK);
	return !m->status;
}

/* What satisfies both plain schemas: a new reference; or NULL, without an error when nothing
 * does. */
static json_t *merge(pal__merger *m, const json_t *a, const json_t *b)
{
	json_t *out = spend(m) ? made(m, json_object()) : NULL;
	for (size_t i = 0; i < N_KEYWORDS && !m->status; i++) {
		const char *name = keywords[i].name;
		if (json_object_get(a, name) || json_object_get(b, name))
			set_new(m, out, name, merge_keyword(m, i, a, b));
	}
	json_t *type = json_object_get(out, "type"), *values = json_object_get(out, "enum");
	if (m->status || (json_is_array(type) && !json_array_size(type)) ||
	    (values && !json_array_size(values))) {
		json_decref(out);
		return NULL;
	}
	return out;
}

/* Replaces list a by what satisfies one of a and one of b, and drops b. */
static json_t *product(pal__merger *m, json_t *a, json_t *b)
{
	json_t *out = made(m, json_array());
	for (size_t i = 0; i < json_array_size(a); i++)
		for (size_t k = 0; k < json_array_size(b) && !m->status; k++) {
			json_t *j = merge(m, json_array_get(a, i), json_array_get(b, k));
			if (j)
				append_new(m, out, j);
		}
	if (!m->status && json_array_size(out) > PAL__SCHEMA_CHOICES)
		m->status = pal__fail(&m->error, PAL_ELIMIT,
				      "the schema: more than %d alternatives of one value",
				      PAL__SCHEMA_CHOICES);
	json_decref(a);
	json_decref(b);
	return out;
}

/* --- plain schemas -------------------------------------------------------- */

/* A schema under way, and those that it is a part of. */
typedef struct level {
	const json_t *root, *schema;
	const struct level *outer;
	int depth;
} level;

static json_t *plain(pal__merger *m, level at);

static json_t *own(pal__merger *m, const json_t *schema);

static bool apart(pal__merger *m, const json_t *a, const json_t *b);

/* The same of two values' property, as far as its schemas say it themselves. */
static bool apart_by(pal__merger *m, const json_t *a, const json_t *b, const char *key)
{
	const json_t *x = json_object_get(json_object_get(a, "properties"), key);
	const json_t *y = json_object_get(json_object_get(b, "properties"), key);
	if (!json_is_object(x) || !json_is_object(y))
		return false;
	json_t *ox = own(m, x), *oy = own(m, y);
	bool found = json_object_size(ox) && json_object_size(oy) && spend(m) && apart(m, ox, oy);
	json_decref(ox);
	json_decref(oy);
	return found;
}

static unsigned types_of(const json_t *plain)
{
	json_t *values = json_object_get(plain, "enum"), *v;
	unsigned bits = values ? 0 : pal__schema_types(plain);
	size_t i;
	json_array_foreach(values, i, v) bits |= pal__value_type(v);
	return bits;
}

/* Whether no value satisfies both, as far as types and enumerations tell: those of the values, or
 * of a property that both require. */
static bool apart(pal__merger *m, const json_t *a, const json_t *b)
{
	json_t *values = json_object_get(a, "enum"), *others = json_object_get(b, "enum"), *key;
	unsigned types_both = types_of(a) & types_of(b);
	bool found = !types_both;
	size_t i;
	if (values && others) {
		json_t *same = common(m, values, others);
		found = !json_array_size(same);
		json_decref(same);
		return found;
	}
	if (values || others || types_both != PAL__TYPE_OBJECT)
		return found;
	json_t *required =
		common(m, json_object_get(a, "required"), json_object_get(b, "required"));
	json_array_foreach(required, i, key) found |= apart_by(m, a, b, json_string_value(key));
	json_decref(required);
	return found;
}

/* All of them that a list of schemas allows. exclusive: no value may satisfy two of the list. */
static json_t *any_of(pal__merger *m, level at, const json_t *list, bool exclusive)
{
	json_t *out = made(m, json_array());
	const json_t *schema = at.schema;
	for (size_t i = 0; i < json_array_size(list) && !m->status; i++) {
		at.schema = json_array_get(list, i);
		json_t *more = plain(m, at);
		for (size_t a = 0; exclusive && a < json_array_size(out); a++)
			for (size_t b = 0; b < json_array_size(more) && spend(m); b++)
				if (!apart(m, json_array_get(out, a), json_array_get(more, b)))
					pal__merger_fail(m, PAL_EUNSUPPORTED,
							 "keyword \"oneOf\" of alternatives that "
							 "nothing tells apart",
							 schema);
		if (more && json_array_extend(out, more))
			pal__merger_no_memory(m);
		json_decref(more);
	}
	return out;
}

/* What the schema says itself. */
static json_t *own(pal__merger *m, const json_t *schema)
{
	json_t *out = made(m, json_object());
	for (size_t i = 0; i < N_KEYWORDS; i++) {
		json_t *v = json_object_get(schema, keywords[i].name);
		if (v)
			set_new(m, out, keywords[i].name, json_incref(v));
	}
	json_t *value = json_object_get(schema, "const");
	json_t *values = value ? made(m, json_pack("[O]", value)) : NULL;
	if (values && json_object_get(out, "enum")) {
		json_t *all = values;
		values = common(m, all, json_object_get(out, "enum"));
		json_decref(all);
	}
	if (values)
		set_new(m, out, "enum", values);
	return out;
}

static json_t *plain_object(pal__merger *m, level at)
{
	const json_t *schema = at.schema, *part;
	json_t *self = own(m, schema), *out = made(m, json_array());
	json_t *values = json_object_get(self, "enum");
	size_t i;
	if (!values || json_array_size(values))
		append_new(m, out, json_incref(self));
	json_decref(self);
	json_array_foreach(json_object_get(schema, "allOf"), i, part)
	{
		at.schema = part;
		out = product(m, out, plain(m, at));
	}
	part = json_object_get(schema, "$ref");
	if (part) {
		at.schema = pal__schema_resolve(at.root, json_string_value(part));
		out = product(m, out, plain(m, at));
	}
	at.schema = schema;
	if ((part = json_object_get(schema, "anyOf")))
		out = product(m, out, any_of(m, at, part, false));
	if ((part = json_object_get(schema, "oneOf")))
		out = product(m, out, any_of(m, at, part, true));
	return out;
}

/* What a schema within itself adds to it, with nothing between, is nothing: the least that
 * satisfies the equation. */
static json_t *plain(pal__merger *m, level at)
{
	const level *l = at.outer;
	while (l && l->schema != at.schema)
		l = l->outer;
	if (!m->status && at.depth == PLAIN_DEPTH)
		pal__merger_fail(m, PAL_ELIMIT, "combinations are too deep", at.schema);
	if (m->status || !spend(m))
		return NULL;
	if (l || json_is_false(at.schema))
		return made(m, json_array());
	if (json_is_true(at.schema))
		return made(m, json_pack("[{}]"));
	level in = at;
	in.outer = &at;
	in.depth++;
	return plain_object(m, in);
}

json_t *pal__schema_plain(pal__merger *m, const json_t *root, const json_t *schema)
{
	json_t *out = plain(m, (level){.root = root, .schema = schema});
	if (m->status) {
		json_decref(out);
		return NULL;
	}
	return out;
}
