#include "text/schema.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/mem.h"
#include "text/numbers.h"
#include "text/pattern.h"
#include "text/schema_merge.h"

#define KEY_BYTES 1024 /* of a key beside which additional ones may come */

/* What a rule is: the value of a plain schema; or strings. */
typedef enum { OBJECT, ARRAY, STRING, TEXTS, OTHER_KEYS } rule_kind;

typedef struct {
	rule_kind kind;
	int32_t rule;
	const json_t *root; /* of references; NULL where there can be none */
	json_t *about;      /* owned; TEXTS, OTHER_KEYS: a list of strings */
	char *text;         /* of `about`, freed with pal__json_free */
	uint64_t hash;
} made_rule;

struct pal__schemas {
	pal__form *f;
	pal__merger m;
	made_rule *rules; /* [n], of which the first `done` are made */
	size_t n, cap, done;
};

pal_status pal__schemas_new(pal__form *f, pal__schemas **out, pal_error *err)
{
	pal__schemas *s = pal__calloc(1, sizeof *s);
	if (!s)
		return pal__fail_memory(err, "a schema", sizeof *s);
	s->f = f;
	*out = s;
	return PAL_OK;
}

void pal__schemas_free(pal__schemas *s)
{
	if (!s)
		return;
	for (size_t i = 0; i < s->n; i++) {
		json_decref(s->rules[i].about);
		pal__json_free(s->rules[i].text);
	}
	pal__free(s->rules);
	pal__free(s);
}

static bool failed(const pal__schemas *s)
{
	return s->m.status || s->f->status;
}

/* --- rules ---------------------------------------------------------------- */

static int32_t add_rule(pal__schemas *s, made_rule r)
{
	static const char open[] = {
		[OBJECT] = '{', [ARRAY] = '[', [STRING] = '"', [TEXTS] = '"', [OTHER_KEYS] = '"'};
	r.rule = pal__form_rule_new(s->f, (uint8_t)open[r.kind], 0, PAL__FORM_MANY);
	if (r.rule < 0)
		return -1;
	if (!pal__grow((void **)&s->rules, &s->cap, s->n + 1, sizeof r)) {
		s->f->status = PAL_ENOMEM;
		return -1;
	}
	s->rules[s->n++] = r;
	return r.rule;
}

/* The rule for what `about`, which it takes, says: one for equal ones. */
static int32_t rule_of(pal__schemas *s, rule_kind kind, const json_t *root, json_t *about)
{
	made_rule r = {.kind = kind, .root = root, .about = about};
	r.text = about ? json_dumps(about, JSON_COMPACT) : NULL;
	if (!r.text)
		pal__merger_no_memory(&s->m);
	if (!failed(s)) {
		r.hash = XXH3_64bits_withSeed(r.text, strlen(r.text), kind);
		for (size_t i = 0; i < s->n && !r.rule; i++) {
			const made_rule *o = &s->rules[i];
			if (o->hash == r.hash && o->kind == kind && o->root == root &&
			    !strcmp(o->text, r.text))
				r.rule = o->rule;
		}
		if (!r.rule && (r.rule = add_rule(s, r)) >= 0)
			return r.rule;
	}
	json_decref(about);
	pal__json_free(r.text);
	return failed(s) ? -1 : r.rule;
}

/* The keywords of a plain schema that a rule of this kind is about. */
static json_t *about(pal__schemas *s, const json_t *plain, rule_kind kind)
{
	static const char *const names[][5] = {
		[OBJECT] = {"properties", "required", "additionalProperties"},
		[ARRAY] = {"items", "prefixItems", "minItems", "maxItems"},
		[STRING] = {"minLength", "maxLength", "pattern", "format"},
	};
	json_t *out = json_object();
	for (size_t i = 0; names[kind][i]; i++) {
		json_t *v = json_object_get(plain, names[kind][i]);
		if (v && json_object_set(out, names[kind][i], v))
			pal__merger_no_memory(&s->m);
	}
	return out;
}

/* --- values --------------------------------------------------------------- */

static int32_t value(pal__schemas *s, const json_t *root, const json_t *schema, int32_t to);

static int32_t text_call(pal__schemas *s, const char *text, int32_t to)
{
	return pal__form_call(s->f, rule_of(s, TEXTS, NULL, json_pack("[s]", text)), to);
}

/* An enumerated array or object is the one value of a schema. */
static int32_t enumerated_whole(pal__schemas *s, const json_t *v, int32_t to)
{
	json_t *parts = json_is_array(v) ? json_array() : json_object(), *names = json_array(),
	       *part;
	json_t *schema = NULL;
	const char *key;
	size_t i;
	json_array_foreach((json_t *)v, i, part)
		json_array_append_new(parts, json_pack("{s:O}", "const", part));
	json_object_foreach((json_t *)v, key, part)
	{
		json_object_set_new(parts, key, json_pack("{s:O}", "const", part));
		json_array_append_new(names, json_string(key));
	}
	bool whole = parts && names &&
		     (json_is_array(v) ? json_array_size(parts) == json_array_size(v)
				       : json_object_size(parts) == json_object_size(v) &&
						 json_array_size(names) == json_object_size(v));
	if (whole && json_is_array(v))
		schema = json_pack("{s:s,s:O,s:i,s:i}", "type", "array", "prefixItems", parts,
				   "minItems", (int)json_array_size(v), "maxItems",
				   (int)json_array_size(v));
	else if (whole)
		schema = json_pack("{s:s,s:O,s:O,s:b}", "type", "object", "properties", parts,
				   "required", names, "additionalProperties", 0);
	if (!schema)
		pal__merger_no_memory(&s->m);
	else /* its root is never asked for: it has no references */
		to = value(s, NULL, schema, to);
	json_decref(parts);
	json_decref(names);
	json_decref(schema);
	return schema ? to : -1;
}

static int32_t enumerated(pal__schemas *s, const json_t *plain, unsigned types, int32_t to)
{
	json_t *v, *texts = json_array();
	int32_t out = -1;
	size_t i;
	if (json_object_size(plain) > 1 + (json_object_get(plain, "type") != NULL)) {
		pal__merger_fail(&s->m, PAL_EUNSUPPORTED,
				 "an enumeration with more than its type beside it", plain);
		json_decref(texts);
		return -1;
	}
	if (json_object_get(plain, "type"))
		types &= pal__schema_types(plain);
	json_array_foreach(json_object_get(plain, "enum"), i, v)
	{
		if (!(pal__value_type(v) & types) || failed(s))
			continue;
		if (json_is_string(v)) {
			if (json_array_append(texts, v))
				pal__merger_no_memory(&s->m);
		} else if (json_is_array(v) || json_is_object(v)) {
			out = pal__form_split(s->f, enumerated_whole(s, v, to), out);
		} else {
			char *text = json_dumps(v, JSON_ENCODE_ANY);
			if (!text)
				pal__merger_no_memory(&s->m);
			else
				out = pal__form_split(
					s->f, pal__form_literal(s->f, text, strlen(text), to), out);
			pal__json_free(text);
		}
	}
	if (!texts)
		pal__merger_no_memory(&s->m);
	if (!json_array_size(texts)) {
		json_decref(texts);
		return out;
	}
	return pal__form_split(s->f, pal__form_call(s->f, rule_of(s, TEXTS, NULL, texts), to), out);
}

/* A limit as an integer: rounded away from what it excludes, and *cut then. */
static int64_t limit(const json_t *v, bool low, bool *cut)
{
	if (json_is_integer(v)) {
		json_int_t n = json_integer_value(v);
		return n < -PAL__NUMBER_MOST  ? -PAL__NUMBER_MOST - 1
		       : n > PAL__NUMBER_MOST ? PAL__NUMBER_MOST + 1
					      : n;
	}
	double x = json_real_value(v);
	if (x < -1e18 || x > 1e18)
		return x < 0 ? -PAL__NUMBER_MOST - 1 : PAL__NUMBER_MOST + 1;
	int64_t n = (int64_t)x;
	*cut |= (double)n != x;
	return low ? n + ((double)n < x) : n - ((double)n > x);
}

static pal__limits limits_of(const json_t *plain, bool *cut)
{
	pal__limits l = {-PAL__NUMBER_MOST - 1, PAL__NUMBER_MOST + 1, false, false};
	const json_t *v;
	if ((v = json_object_get(plain, "minimum")))
		l.lo = limit(v, true, cut);
	if ((v = json_object_get(plain, "maximum")))
		l.hi = limit(v, false, cut);
	if ((v = json_object_get(plain, "exclusiveMinimum"))) {
		bool part = false;
		int64_t n = limit(v, true, &part);
		if (n >= l.lo) {
			l.over_lo = !part && (n > l.lo || n == l.lo);
			l.lo = n;
		}
		*cut |= part;
	}
	if ((v = json_object_get(plain, "exclusiveMaximum"))) {
		bool part = false;
		int64_t n = limit(v, false, &part);
		if (n <= l.hi) {
			l.under_hi = !part;
			l.hi = n;
		}
		*cut |= part;
	}
	return l;
}

static int32_t number(pal__schemas *s, const json_t *plain, unsigned types, int32_t to)
{
	bool cut = false;
	pal__limits l = limits_of(plain, &cut);
	if (!(types & PAL__TYPE_NUMBER))
		return pal__form_integer(s->f, l, to);
	if (cut)
		pal__merger_fail(&s->m, PAL_EUNSUPPORTED, "limits of numbers that are not whole",
				 plain);
	return pal__form_number(s->f, l, to);
}

static int32_t plain_value(pal__schemas *s, const json_t *root, const json_t *plain, unsigned types,
			   int32_t to)
{
	static const struct {
		unsigned type;
		rule_kind kind;
	} called[] = {
		{PAL__TYPE_STRING, STRING}, {PAL__TYPE_ARRAY, ARRAY}, {PAL__TYPE_OBJECT, OBJECT}};
	int32_t out = -1;
	if (json_object_get(plain, "enum"))
		return enumerated(s, plain, types, to);
	types &= pal__schema_types(plain);
	if (types & PAL__TYPE_NULL)
		out = pal__form_literal(s->f, "null", 4, to);
	if (types & PAL__TYPE_BOOLEAN) {
		out = pal__form_split(s->f, pal__form_literal(s->f, "true", 4, to), out);
		out = pal__form_split(s->f, pal__form_literal(s->f, "false", 5, to), out);
	}
	if (types & PAL__TYPE_INTEGER)
		out = pal__form_split(s->f, number(s, plain, types, to), out);
	for (size_t i = 0; i < sizeof called / sizeof *called; i++)
		if (types & called[i].type) {
			rule_kind kind = called[i].kind;
			int32_t rule = rule_of(s, kind, kind == STRING ? NULL : root,
					       about(s, plain, kind));
			out = pal__form_split(s->f, pal__form_call(s->f, rule, to), out);
		}
	return out;
}

static int32_t value_of(pal__schemas *s, const json_t *root, const json_t *schema, unsigned types,
			int32_t to)
{
	json_t *all = failed(s) || to < 0 ? NULL : pal__schema_plain(&s->m, root, schema), *plain;
	int32_t out = -1;
	size_t i;
	json_array_foreach(all, i, plain)
	{
		if (!failed(s))
			out = pal__form_split(s->f, plain_value(s, root, plain, types, to), out);
	}
	json_decref(all);
	return failed(s) ? -1 : out;
}

static int32_t value(pal__schemas *s, const json_t *root, const json_t *schema, int32_t to)
{
	return value_of(s, root, schema, PAL__TYPE_ANY, to);
}

int32_t pal__schemas_value(pal__schemas *s, const json_t *root, bool object, int32_t to)
{
	return value_of(s, root, root, object ? PAL__TYPE_OBJECT : PAL__TYPE_ANY, to);
}

/* --- objects and arrays ----------------------------------------------------- */

/* byte, and a space or none */
static int32_t spaced(pal__schemas *s, char byte, int32_t to)
{
	to = pal__form_split(s->f, pal__form_bytes(s->f, ' ', ' ', to), to);
	return pal__form_bytes(s->f, (uint8_t)byte, (uint8_t)byte, to);
}

static bool has(const json_t *list, const char *name)
{
	for (size_t i = 0; i < json_array_size(list); i++)
		if (!strcmp(json_string_value(json_array_get(list, i)), name))
			return true;
	return false;
}

/* The properties to come, in their order: those with a schema, then those that are only required.
 * A new reference. */
static json_t *all_properties(pal__schemas *s, const json_t *about)
{
	json_t *named = json_object_get(about, "properties"), *name;
	json_t *all = named ? json_copy(named) : json_object();
	json_t *more = json_object_get(about, "additionalProperties");
	size_t i;
	json_array_foreach(json_object_get(about, "required"), i, name)
	{
		const char *key = json_string_value(name);
		if (!json_object_get(all, key) &&
		    json_object_set_new(all, key, more ? json_incref(more) : json_true()))
			pal__merger_no_memory(&s->m);
	}
	if (!all)
		pal__merger_no_memory(&s->m);
	return all;
}

static json_t *keys_of(pal__schemas *s, json_t *object)
{
	json_t *out = json_array(), *v;
	const char *key;
	json_object_foreach(object, key, v) if (json_array_append_new(out, json_string(key)))
		pal__merger_no_memory(&s->m);
	return out;
}

static int32_t object(pal__schemas *s, const made_rule *r)
{
	json_t *required = json_object_get(r->about, "required");
	json_t *more = json_object_get(r->about, "additionalProperties");
	json_t *all = all_properties(s, r->about), *keys = keys_of(s, all);
	bool open = more || !json_object_get(r->about, "properties");
	/* what comes next, after a property and as the first one */
	int32_t next = pal__form_bytes(s->f, '}', '}', pal__form_end(s->f, r->rule)), first = next;
	if (open && !failed(s)) {
		int32_t again = pal__form_hole(s->f);
		int32_t at = value(s, r->root, more ? more : json_true(), again);
		int32_t rule = rule_of(s, OTHER_KEYS, NULL, json_deep_copy(keys));
		at = pal__form_call(s->f, rule, spaced(s, ':', at));
		pal__form_fill(s->f, again, next, spaced(s, ',', at));
		first = pal__form_split(s->f, at, next);
		next = again;
	}
	for (size_t i = json_array_size(keys); i-- && !failed(s);) {
		const char *key = json_string_value(json_array_get(keys, i));
		int32_t at = value(s, r->root, json_object_get(all, key), next);
		bool optional = !has(required, key);
		at = text_call(s, key, spaced(s, ':', at));
		first = pal__form_split(s->f, at, optional ? first : -1);
		next = pal__form_split(s->f, spaced(s, ',', at), optional ? next : -1);
	}
	json_decref(all);
	json_decref(keys);
	return first;
}

static uint32_t count(const json_t *about, const char *name, uint32_t none)
{
	const json_t *v = json_object_get(about, name);
	double n = json_number_value(v);
	return !v ? none : n < PAL__FORM_MANY - 1 ? (uint32_t)n : PAL__FORM_MANY - 1;
}

static int32_t array(pal__schemas *s, const made_rule *r)
{
	json_t *prefix = json_object_get(r->about, "prefixItems");
	json_t *items = json_object_get(r->about, "items");
	uint32_t n = (uint32_t)json_array_size(prefix), min = count(r->about, "minItems", 0);
	uint32_t max = count(r->about, "maxItems", PAL__FORM_MANY);
	int32_t close = pal__form_bytes(s->f, ']', ']', pal__form_end(s->f, r->rule)), first, next;
	if (min > max || failed(s))
		return -1;
	first = next = min <= n ? close : -1; /* behind the prefix */
	if (max > n && (items || !prefix || min > n)) {
		int32_t again = pal__form_hole(s->f);
		int32_t item = value(s, r->root, items ? items : json_true(), again);
		int32_t end = pal__form_mark(s->f, PAL__FORM_CHECK, close);
		s->f->rules[r->rule].min = min > n ? min - n : 0;
		s->f->rules[r->rule].max = max < PAL__FORM_MANY ? max - n : max;
		next = pal__form_mark(s->f, PAL__FORM_COUNT, spaced(s, ',', item));
		pal__form_fill(s->f, again, end, next);
		first = pal__form_split(s->f, pal__form_mark(s->f, PAL__FORM_COUNT, item), first);
		next = pal__form_split(s->f, next, min <= n ? close : -1);
	}
	for (uint32_t i = n; i-- && !failed(s);) {
		int32_t end = i >= min ? close : -1;
		int32_t item = i < max ? value(s, r->root, json_array_get(prefix, i), next) : -1;
		first = pal__form_split(s->f, item, end);
		next = pal__form_split(s->f, spaced(s, ',', item), end);
	}
	return first;
}

/* --- strings -------------------------------------------------------------- */

static int32_t hex_digit(pal__form *f, bool from_1, int32_t to)
{
	int32_t letters = pal__form_split(f, pal__form_bytes(f, 'a', 'f', to),
					  pal__form_bytes(f, 'A', 'F', to));
	return pal__form_split(f, pal__form_bytes(f, from_1 ? '1' : '0', '9', to), letters);
}

static int32_t either_case(pal__form *f, char lo, char hi, int32_t to)
{
	return pal__form_split(f, pal__form_bytes(f, (uint8_t)lo, (uint8_t)hi, to),
			       pal__form_bytes(f, (uint8_t)(lo - 32), (uint8_t)(hi - 32), to));
}

/* Behind \u: no NUL, and surrogates in pairs. */
static int32_t unicode_escape(pal__form *f, int32_t to)
{
	int32_t one = hex_digit(f, false, to), two = hex_digit(f, false, one);
	int32_t three = hex_digit(f, false, two), out, low, high;
	out = hex_digit(f, true, to);
	out = pal__form_split(f, pal__form_bytes(f, '0', '0', out), hex_digit(f, true, one));
	out = pal__form_split(f, pal__form_bytes(f, '0', '0', out), hex_digit(f, true, two));
	out = pal__form_bytes(f, '0', '0', out);
	out = pal__form_split(f, out, pal__form_bytes(f, '1', '9', three));
	out = pal__form_split(f, out, either_case(f, 'a', 'c', three));
	out = pal__form_split(f, out, either_case(f, 'e', 'f', three));
	low = either_case(f, 'd', 'd', either_case(f, 'c', 'f', two));
	low = pal__form_literal(f, "\\u", 2, low);
	low = hex_digit(f, false, hex_digit(f, false, low));
	high = pal__form_split(f, pal__form_bytes(f, '8', '9', low), either_case(f, 'a', 'b', low));
	high = pal__form_split(f, high, pal__form_bytes(f, '0', '7', two));
	return pal__form_split(f, out, either_case(f, 'd', 'd', high));
}

/* Any string, with any escapes. */
static int32_t any_string(pal__form *f, int32_t close)
{
	static const char letters[] = "/bfnrt";
	int32_t again = pal__form_hole(f), at = unicode_escape(f, again);
	at = pal__form_bytes(f, 'u', 'u', at);
	for (const char *l = letters; *l; l++)
		at = pal__form_split(f, pal__form_bytes(f, (uint8_t)*l, (uint8_t)*l, again), at);
	at = pal__form_bytes(f, '\\', '\\', at);
	at = pal__form_split(f, at, pal__form_chars(f, 0x20, 0x10ffff, again));
	pal__form_fill(f, again, pal__form_mark(f, PAL__FORM_COUNT, at),
		       pal__form_mark(f, PAL__FORM_CHECK, close));
	return again;
}

#define HOURS "([01]\\d|2[0-3])"
#define DATE                                                                              \
	"\\d{4}-((0[13578]|1[02])-(0[1-9]|[12]\\d|3[01])|(0[469]|11)-(0[1-9]|[12]\\d|30)" \
	"|02-(0[1-9]|1\\d|2[0-8]))"
#define TIME HOURS ":[0-5]\\d:[0-5]\\d(\\.\\d{1,6})?(Z|[+-]" HOURS ":[0-5]\\d)"
#define NAME "[A-Za-z0-9]([A-Za-z0-9-]{0,30}[A-Za-z0-9])?"
#define BYTE "(25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)"

static const char *format_pattern(const char *format)
{
	static const struct {
		const char *name, *pattern;
	} known[] = {
		{"date", "^" DATE "$"},
		{"time", "^" TIME "$"},
		{"date-time", "^" DATE "T" TIME "$"},
		{"uuid", "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"},
		{"email", "^[A-Za-z0-9_+-]{1,32}(\\.[A-Za-z0-9_+-]{1,30})?@(" NAME
			  "\\.){1,3}[A-Za-z]{2,8}$"},
		{"ipv4", "^(" BYTE "\\.){3}" BYTE "$"},
	};
	for (size_t i = 0; format && i < sizeof known / sizeof *known; i++)
		if (!strcmp(known[i].name, format))
			return known[i].pattern;
	return NULL;
}

static int32_t string(pal__schemas *s, const made_rule *r)
{
	const char *pattern = json_string_value(json_object_get(r->about, "pattern"));
	const char *format = format_pattern(json_string_value(json_object_get(r->about, "format")));
	uint32_t min = count(r->about, "minLength", 0);
	uint32_t max = count(r->about, "maxLength", PAL__FORM_MANY);
	int32_t close = pal__form_bytes(s->f, '"', '"', pal__form_end(s->f, r->rule)), start = -1;
	if (min > max || failed(s))
		return -1;
	if (pattern && format)
		pal__merger_fail(&s->m, PAL_EUNSUPPORTED, "a pattern beside a format", r->about);
	if (!pattern)
		pattern = format;
	if (!pattern) {
		s->f->rules[r->rule].min = min;
		s->f->rules[r->rule].max = max;
		return any_string(s->f, close);
	}
	if (!failed(s))
		s->m.status = pal__form_pattern(s->f, pattern, strlen(pattern), min, max, close,
						&start, &s->m.error);
	return start;
}

static int32_t texts(pal__schemas *s, const made_rule *r)
{
	int32_t close = pal__form_bytes(s->f, '"', '"', pal__form_end(s->f, r->rule)), out = -1;
	for (size_t i = 0; i < json_array_size(r->about); i++) {
		const json_t *text = json_array_get(r->about, i);
		out = pal__form_split(s->f,
				      pal__form_text(s->f, json_string_value(text),
						     json_string_length(text), close),
				      out);
	}
	return out;
}

/* --- other keys than those of a list --------------------------------------- */

typedef struct {
	pal__form *f;
	const char **keys;            /* sorted */
	int32_t close, rest, special; /* special: what is no plain ASCII, then the rest */
} others;

static bool is_plain(uint8_t c)
{
	return c >= 0x20 && c < 0x80 && c != '"' && c != '\\';
}

static uint32_t next_char(const char *s, size_t *n)
{
	uint8_t c = (uint8_t)*s;
	*n = c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
	uint32_t code = *n == 1 ? c : c & (0x7fu >> *n);
	for (size_t i = 1; i < *n; i++)
		code = code << 6 | ((uint8_t)s[i] & 0x3f);
	return code;
}

/* Behind `at` bytes, which are those of the keys from..to, and of no others. */
static int32_t other_keys(const others *o, size_t from, size_t to, size_t at)
{
	pal__form *f = o->f;
	int32_t out = -1;
	uint32_t free_from = 1;
	bool plain = true;
	if (f->status)
		return -1;
	for (size_t i = from; i < to; i++)
		plain &= !o->keys[i][at] || is_plain((uint8_t)o->keys[i][at]);
	if (plain) {
		out = o->special;
		free_from = 0x20;
	}
	if (o->keys[from][at])
		out = pal__form_split(f, o->close, out);
	else
		from++; /* one of the keys ends here */
	while (from < to) {
		size_t n, same = from;
		uint32_t c = next_char(o->keys[from] + at, &n);
		while (same < to && !strncmp(o->keys[same] + at, o->keys[from] + at, n))
			same++;
		if (free_from < c)
			out = pal__form_split(f, pal__form_chars(f, free_from, c - 1, o->rest),
					      out);
		out = pal__form_split(
			f, pal__form_chars(f, c, c, other_keys(o, from, same, at + n)), out);
		free_from = c + 1;
		from = same;
	}
	/* with special, '"' and '\\' are in twice, which does no harm */
	return pal__form_split(f, pal__form_chars(f, free_from, plain ? 0x7f : 0x10ffff, o->rest),
			       out);
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int32_t other_keys_rule(pal__schemas *s, const made_rule *r)
{
	pal__form *f = s->f;
	size_t n = json_array_size(r->about);
	others o = {.f = f, .keys = pal__alloc((n + 1) * sizeof *o.keys)};
	if (!o.keys) {
		f->status = PAL_ENOMEM;
		return -1;
	}
	for (size_t i = 0; i < n; i++) {
		o.keys[i] = json_string_value(json_array_get(r->about, i));
		if (strlen(o.keys[i]) > KEY_BYTES)
			f->status = PAL_ELIMIT;
	}
	qsort(o.keys, n, sizeof *o.keys, by_text);
	o.close = pal__form_bytes(f, '"', '"', pal__form_end(f, r->rule));
	o.rest = pal__form_hole(f);
	pal__form_fill(f, o.rest, pal__form_chars(f, 1, 0x10ffff, o.rest), o.close);
	int32_t out = o.rest;
	if (n) {
		o.special = pal__form_chars(f, 0x80, 0x10ffff, o.rest);
		o.special = pal__form_split(f, pal__form_chars(f, 1, 0x1f, o.rest), o.special);
		out = other_keys(&o, 0, n, 0);
	}
	pal__free(o.keys);
	return out;
}

/* --- all of it ------------------------------------------------------------ */

static void make_rule(pal__schemas *s, const made_rule r)
{
	static int32_t (*const make[])(pal__schemas *,
				       const made_rule *) = {[OBJECT] = object,
							     [ARRAY] = array,
							     [STRING] = string,
							     [TEXTS] = texts,
							     [OTHER_KEYS] = other_keys_rule};
	int32_t start = make[r.kind](s, &r);
	if (!failed(s))
		s->f->rules[r.rule].start = start;
}

pal_status pal__schemas_finish(pal__schemas *s, const char *what, pal_error *err)
{
	while (s->done < s->n && !failed(s))
		make_rule(s, s->rules[s->done++]);
	if (s->m.status && err)
		*err = s->m.error;
	return s->m.status ? s->m.status : pal__form_finish(s->f, what, err);
}

static pal_status read_schema(const char *schema, size_t n, json_t **out, pal_error *err)
{
	static const char any[] = "{\"type\":\"object\"}";
	json_error_t e;
	if (n > PAL__SCHEMA_BYTES)
		return pal__fail(err, PAL_ELIMIT, "the schema is longer than %zu bytes",
				 PAL__SCHEMA_BYTES);
	*out = json_loadb(n ? schema : any, n ? n : strlen(any),
			  JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &e);
	if (*out)
		return PAL_OK;
	if (e.line < 0 || json_error_code(&e) == json_error_out_of_memory)
		return pal__fail_memory(err, "a schema", n);
	return pal__fail(err, PAL_EINVAL, "the schema is no JSON: line %d: %s", e.line, e.text);
}

pal_status pal__schema_form(const char *schema, size_t n, pal__form *out, pal_error *err)
{
	pal__schemas *s = NULL;
	pal__form f = {0};
	json_t *root;
	pal_status status = read_schema(schema, n, &root, err);
	if (status)
		return status;
	status = pal__schema_check(root, "the schema", err);
	if (!status)
		status = pal__schemas_new(&f, &s, err);
	if (!status) {
		int32_t text = pal__form_rule_new(&f, 0, 0, PAL__FORM_MANY);
		int32_t start = pal__schemas_value(s, root, false, pal__form_end(&f, text));
		if (!f.status)
			f.rules[text].start = start;
		status = pal__schemas_finish(s, "the schema", err);
	}
	pal__schemas_free(s);
	json_decref(root);
	if (status)
		pal__form_free(&f);
	else
		*out = f;
	return status;
}
