#include "model/inspect.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <utf8proc.h>

#include "base/mem.h"

#define NAME_COLUMNS 48
#define N_TYPES 64 /* above the number of every supported type */

typedef struct {
	uint64_t tensors, weights, bytes;
} sums;

/* per_type: [N_TYPES], by type number. The sums cannot overflow: tensors do not overlap,
 * so their bytes are at most the file's, and a byte holds at most 8 weights. */
static sums add_up(const pal__gguf *g, sums per_type[N_TYPES])
{
	sums all = {0};
	memset(per_type, 0, N_TYPES * sizeof *per_type);
	for (size_t i = 0; i < g->n_tensors; i++) {
		const pal__gguf_tensor *t = &g->tensors[i];
		uint64_t weights = t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3];
		sums *both[] = {&all, &per_type[t->type]};
		for (int k = 0; k < 2; k++) {
			both[k]->tensors++;
			both[k]->weights += weights;
			both[k]->bytes += t->n_bytes;
		}
	}
	return all;
}

/* --- text --------------------------------------------------------------- */

/* Whether a terminal shows c and does nothing else. */
static bool harmless(utf8proc_int32_t c)
{
	utf8proc_category_t k = utf8proc_category(c);
	return c == ' ' || (k != UTF8PROC_CATEGORY_CC && k != UTF8PROC_CATEGORY_CF &&
			    k != UTF8PROC_CATEGORY_ZL && k != UTF8PROC_CATEGORY_ZP &&
			    k != UTF8PROC_CATEGORY_CO && k != UTF8PROC_CATEGORY_CN);
}

/* One character of k bytes at s, escaped if need be, to out[at..]. Needs 16 bytes there. */
static size_t clean_one(const uint8_t *s, size_t k, bool as_is, char *out)
{
	if (as_is && *s != '"' && *s != '\\') {
		memcpy(out, s, k);
		return k;
	}
	static const char special[] = "\"\\\n\t\r", letter[] = "\"\\ntr";
	const char *found = *s ? strchr(special, *s) : NULL;
	if (found) {
		out[0] = '\\';
		out[1] = letter[found - special];
		return 2;
	}
	for (size_t i = 0; i < k; i++)
		snprintf(out + 4 * i, 5, "\\x%02x", s[i]);
	return 4 * k;
}

/* s, printable and cut to columns; out: [columns + 24]. */
static const char *clean(const char *s, size_t n, size_t columns, char *out)
{
	size_t at = 0, i = 0;
	const uint8_t *bytes = (const uint8_t *)s;
	while (i < n && at < columns) {
		utf8proc_int32_t c;
		utf8proc_ssize_t k = utf8proc_iterate(bytes + i, (utf8proc_ssize_t)(n - i), &c);
		size_t length = k > 0 ? (size_t)k : 1;
		at += clean_one(bytes + i, length, k > 0 && harmless(c), out + at);
		i += length;
	}
	snprintf(out + at, 4, "%s", i < n ? "..." : "");
	return out;
}

static void print_value(const pal__gguf_value *v, size_t columns, FILE *out)
{
	char text[256];
	switch (v->type) {
	case PAL__GGUF_STRING:
		fprintf(out, "\"%s\"", clean(v->s.s, v->s.n, columns, text));
		break;
	case PAL__GGUF_BOOL:
		fputs(v->u ? "true" : "false", out);
		break;
	case PAL__GGUF_F32:
		fprintf(out, "%.7g", v->f);
		break;
	case PAL__GGUF_F64:
		fprintf(out, "%.15g", v->f);
		break;
	case PAL__GGUF_I8:
	case PAL__GGUF_I16:
	case PAL__GGUF_I32:
	case PAL__GGUF_I64:
		fprintf(out, "%" PRId64, v->i);
		break;
	default:
		fprintf(out, "%" PRIu64, v->u);
	}
}

static void print_kv(const pal__gguf_kv *kv, int width, FILE *out)
{
	char text[256], type[64];
	bool array = kv->type == PAL__GGUF_ARRAY;
	pal__gguf_value v;
	size_t at = 0;
	if (array)
		snprintf(type, sizeof type, "%s[%" PRIu64 "]", pal__gguf_type_name(kv->item),
			 kv->count);
	else
		snprintf(type, sizeof type, "%s", pal__gguf_type_name(kv->type));
	fprintf(out, "  %-*s  %-14s  ", width, clean(kv->key.s, kv->key.n, NAME_COLUMNS, text),
		type);
	uint64_t shown = kv->count < PAL__INSPECT_ITEMS ? kv->count : PAL__INSPECT_ITEMS;
	for (uint64_t i = 0; i < shown && pal__gguf_next(kv, &at, &v); i++) {
		fputs(i ? ", " : "", out);
		print_value(&v, array ? 24 : 100, out);
	}
	fputs(shown < kv->count ? ", ...\n" : "\n", out);
}

static void print_metadata(const pal__gguf *g, FILE *out)
{
	char text[256];
	int width = 3;
	for (size_t i = 0; i < g->n_kv; i++) {
		size_t n = strlen(clean(g->kv[i].key.s, g->kv[i].key.n, NAME_COLUMNS, text));
		width = (int)n > width ? (int)n : width;
	}
	fputs("\nMetadata\n", out);
	for (size_t i = 0; i < g->n_kv; i++)
		print_kv(&g->kv[i], width, out);
}

static void print_tensors(const pal__gguf *g, FILE *out)
{
	char text[256];
	int width = 4;
	for (size_t i = 0; i < g->n_tensors; i++) {
		const char *name = g->tensors[i].name;
		size_t n = strlen(clean(name, strlen(name), NAME_COLUMNS, text));
		width = (int)n > width ? (int)n : width;
	}
	fprintf(out, "\nTensors\n  %-*s  %-7s %20s %14s %14s\n", width, "name", "type", "shape",
		"offset", "bytes");
	for (size_t i = 0; i < g->n_tensors; i++) {
		const pal__gguf_tensor *t = &g->tensors[i];
		char shape[96];
		size_t at = 0;
		for (int d = 0; d < t->n_dims; d++)
			at += (size_t)snprintf(shape + at, sizeof shape - at, "%s%" PRIu64,
					       d ? " x " : "", t->ne[d]);
		fprintf(out, "  %-*s  %-7s %20s %14" PRIu64 " %14" PRIu64 "\n", width,
			clean(t->name, strlen(t->name), NAME_COLUMNS, text),
			pal__type_find(t->type)->name, shape, t->offset, t->n_bytes);
	}
}

static void print_sums(const char *name, const sums *s, FILE *out)
{
	fprintf(out, "  %-7s %8" PRIu64 " %16" PRIu64 " %16" PRIu64 " %14.2f\n", name, s->tensors,
		s->weights, s->bytes,
		s->weights ? 8.0 * (double)s->bytes / (double)s->weights : 0.0);
}

static void print_totals(const pal__gguf *g, FILE *out)
{
	sums per_type[N_TYPES], all = add_up(g, per_type);
	fprintf(out, "\nTotals\n  %-7s %8s %16s %16s %14s\n", "type", "tensors", "weights", "bytes",
		"bits a weight");
	for (uint32_t i = 0; i < N_TYPES; i++)
		if (per_type[i].tensors)
			print_sums(pal__type_find(i)->name, &per_type[i], out);
	print_sums("all", &all, out);
}

pal_status pal__inspect_text(const pal__gguf *g, FILE *out, pal_error *err)
{
	char text[1048];
	fprintf(out,
		"%s: GGUF version %" PRIu32
		", %zu bytes, %zu keys, %zu tensors, aligned to %" PRIu64 " bytes\n",
		clean(g->path, strlen(g->path), 1024, text), g->version, g->file.size, g->n_kv,
		g->n_tensors, g->alignment);
	print_metadata(g, out);
	print_tensors(g, out);
	print_totals(g, out);
	pal_status s = pal__gguf_shrunk(g, err);
	if (s == PAL_OK && (fflush(out) || ferror(out)))
		s = pal__fail(err, PAL_EIO, "the report on %.200s could not be written", g->path);
	return s;
}

/* --- JSON --------------------------------------------------------------- */

/* s as JSON text; invalid bytes become U+FFFD. NULL: out of memory. */
static json_t *json_text(const char *s, size_t n)
{
	const uint8_t *bytes = (const uint8_t *)s;
	size_t shown = n < PAL__INSPECT_STRING ? n : PAL__INSPECT_STRING, at = 0;
	char *copy = pal__alloc(3 * shown + 48);
	if (!copy)
		return NULL;
	for (size_t i = 0; i < shown;) {
		utf8proc_int32_t c;
		utf8proc_ssize_t k = utf8proc_iterate(bytes + i, (utf8proc_ssize_t)(shown - i), &c);
		size_t length = k > 0 ? (size_t)k : 3;
		memcpy(copy + at, k > 0 ? s + i : "\xef\xbf\xbd", length);
		at += length;
		i += k > 0 ? length : 1;
	}
	if (shown < n)
		at += (size_t)snprintf(copy + at, 48, "... (%zu bytes)", n);
	json_t *j = json_stringn(copy, at);
	pal__free(copy);
	return j;
}

static json_t *json_count(uint64_t n)
{
	char text[24];
	if (n <= INT64_MAX)
		return json_integer((json_int_t)n);
	snprintf(text, sizeof text, "%" PRIu64, n);
	return json_string(text);
}

static json_t *json_value(const pal__gguf_value *v)
{
	switch (v->type) {
	case PAL__GGUF_STRING:
		return json_text(v->s.s, v->s.n);
	case PAL__GGUF_BOOL:
		return json_boolean(v->u != 0);
	case PAL__GGUF_F32:
	case PAL__GGUF_F64:
		if (isfinite(v->f))
			return json_real(v->f);
		return json_string(isnan(v->f) ? "nan" : v->f > 0 ? "inf" : "-inf");
	case PAL__GGUF_I8:
	case PAL__GGUF_I16:
	case PAL__GGUF_I32:
	case PAL__GGUF_I64:
		return json_integer(v->i);
	default:
		return json_count(v->u);
	}
}

/* Whether `value`, which may be NULL, could be put into o. */
static bool set(json_t *o, const char *key, json_t *value)
{
	return json_object_set_new(o, key, value) == 0;
}

static bool json_array_value(json_t *o, const pal__gguf_kv *kv)
{
	json_t *values = json_array();
	pal__gguf_value v;
	size_t at = 0;
	bool ok = set(o, "item", json_string(pal__gguf_type_name(kv->item))) &&
		  set(o, "count", json_count(kv->count));
	for (uint64_t i = 0; ok && i < PAL__INSPECT_ITEMS && pal__gguf_next(kv, &at, &v); i++)
		ok = json_array_append_new(values, json_value(&v)) == 0;
	bool stored = set(o, "values", values); /* takes values over, also on failure */
	return ok && stored;
}

static json_t *json_kv(const pal__gguf_kv *kv)
{
	json_t *o = json_object();
	pal__gguf_value v = {.type = kv->item};
	size_t at = 0;
	bool ok = set(o, "key", json_text(kv->key.s, kv->key.n)) &&
		  set(o, "type", json_string(pal__gguf_type_name(kv->type)));
	if (kv->type == PAL__GGUF_ARRAY) {
		ok = ok && json_array_value(o, kv);
	} else {
		pal__gguf_next(kv, &at, &v);
		ok = ok && set(o, "value", json_value(&v));
	}
	if (ok)
		return o;
	json_decref(o);
	return NULL;
}

static json_t *json_tensor(const pal__gguf_tensor *t)
{
	json_t *o = json_object(), *shape = json_array();
	bool ok = shape != NULL;
	for (int d = 0; ok && d < t->n_dims; d++)
		ok = json_array_append_new(shape, json_count(t->ne[d])) == 0;
	ok = set(o, "name", json_text(t->name, strlen(t->name))) && ok;
	ok = set(o, "type", json_string(pal__type_find(t->type)->name)) && ok;
	ok = set(o, "shape", shape) && ok;
	ok = set(o, "offset", json_count(t->offset)) && ok;
	ok = set(o, "bytes", json_count(t->n_bytes)) && ok;
	if (ok)
		return o;
	json_decref(o);
	return NULL;
}

static json_t *json_sums(const sums *s)
{
	json_t *o = json_object();
	if (set(o, "tensors", json_count(s->tensors)) &&
	    set(o, "weights", json_count(s->weights)) && set(o, "bytes", json_count(s->bytes)))
		return o;
	json_decref(o);
	return NULL;
}

static json_t *json_totals(const pal__gguf *g)
{
	sums per_type[N_TYPES], all = add_up(g, per_type);
	json_t *o = json_sums(&all), *types = json_object();
	bool ok = types != NULL;
	for (uint32_t i = 0; ok && i < N_TYPES; i++)
		if (per_type[i].tensors)
			ok = set(types, pal__type_find(i)->name, json_sums(&per_type[i]));
	bool stored = set(o, "types", types);
	if (ok && stored)
		return o;
	json_decref(o);
	return NULL;
}

static json_t *report(const pal__gguf *g)
{
	json_t *o = json_object(), *metadata = json_array(), *tensors = json_array();
	bool ok = true;
	for (size_t i = 0; ok && i < g->n_kv; i++)
		ok = json_array_append_new(metadata, json_kv(&g->kv[i])) == 0;
	for (size_t i = 0; ok && i < g->n_tensors; i++)
		ok = json_array_append_new(tensors, json_tensor(&g->tensors[i])) == 0;
	ok = set(o, "file", json_text(g->path, strlen(g->path))) && ok;
	ok = set(o, "version", json_count(g->version)) && ok;
	ok = set(o, "alignment", json_count(g->alignment)) && ok;
	ok = set(o, "file_bytes", json_count(g->file.size)) && ok;
	ok = set(o, "data_offset", json_count(g->data_offset)) && ok;
	ok = set(o, "metadata", metadata) && ok;
	ok = set(o, "tensors", tensors) && ok;
	ok = set(o, "totals", json_totals(g)) && ok;
	if (ok)
		return o;
	json_decref(o);
	return NULL;
}

pal_status pal__inspect_json(const pal__gguf *g, json_t **out, pal_error *err)
{
	json_t *o = report(g);
	pal_status s = pal__gguf_shrunk(g, err);
	if (s != PAL_OK) {
		json_decref(o);
		return s;
	}
	if (!o)
		return pal__fail(err, PAL_ENOMEM, "out of memory for the report on %.200s",
				 g->path);
	*out = o;
	return PAL_OK;
}
