#include "serve/params.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/mem.h"

json_t *pal__params_body(const pal__http_request *r, pal__fault *f)
{
	json_error_t e;
	json_t *body = json_loadb(r->body ? r->body : "", r->n_body, JSON_REJECT_DUPLICATES, &e);
	if (!body && json_error_code(&e) == json_error_out_of_memory) {
		pal__fault_memory(f);
	} else if (!body) {
		pal__refuse(f, "", "the body is not JSON: line %d: %s", e.line, e.text);
		f->code = "invalid_json";
	} else if (!json_is_object(body)) {
		pal__refuse(f, "", "the body must be a JSON object");
		json_decref(body);
		body = NULL;
	}
	return body;
}

/* The field, or NULL: absent, null, or something went wrong before. */
static const json_t *field(const pal__params *p, const char *name)
{
	const json_t *j = p->f->err.code ? NULL : json_object_get(p->o, name);
	return json_is_null(j) ? NULL : j;
}

__attribute__((format(printf, 3, 4))) static void must(const pal__params *p, const char *name,
						       const char *format, ...)
{
	char full[64], text[256];
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	snprintf(full, sizeof full, "%s%s", p->prefix, name);
	pal__refuse(p->f, full, "must be %s", text);
}

int64_t pal__param_int(const pal__params *p, const char *name, int64_t min, int64_t max,
		       int64_t otherwise)
{
	const json_t *j = field(p, name);
	if (!j)
		return otherwise;
	json_int_t v = json_integer_value(j);
	if (json_is_integer(j) && v >= min && v <= max)
		return v;
	must(p, name, "a whole number from %" PRId64 " to %" PRId64, min, max);
	return otherwise;
}

double pal__param_number(const pal__params *p, const char *name, double min, double max,
			 double otherwise)
{
	const json_t *j = field(p, name);
	if (!j)
		return otherwise;
	double v = json_number_value(j);
	if (json_is_number(j) && v >= min && v <= max)
		return v;
	must(p, name, "a number from %g to %g", min, max);
	return otherwise;
}

bool pal__param_bool(const pal__params *p, const char *name, bool otherwise)
{
	const json_t *j = field(p, name);
	if (!j || json_is_boolean(j))
		return j ? json_is_true(j) : otherwise;
	must(p, name, "true or false");
	return otherwise;
}

const char *pal__param_string(const pal__params *p, const char *name)
{
	const json_t *j = field(p, name);
	if (j && !json_is_string(j))
		must(p, name, "a string");
	return json_string_value(j);
}

const json_t *pal__param_object(const pal__params *p, const char *name)
{
	const json_t *j = field(p, name);
	if (!j || json_is_object(j))
		return j;
	must(p, name, "an object");
	return NULL;
}

const json_t *pal__param_array(const pal__params *p, const char *name)
{
	const json_t *j = field(p, name);
	if (!j || json_is_array(j))
		return j;
	must(p, name, "an array");
	return NULL;
}

int pal__param_word(const pal__params *p, const char *name, const char *const *words, int otherwise)
{
	const char *s = pal__param_string(p, name);
	char all[200] = "";
	size_t n = 0;
	if (!s)
		return otherwise;
	for (int i = 0; words[i]; i++) {
		if (!strcmp(words[i], s))
			return i;
		n += (size_t)snprintf(all + n, sizeof all - n, "%s\"%s\"", i ? ", " : "", words[i]);
		n = n < sizeof all ? n : sizeof all - 1;
	}
	must(p, name, "one of %s", all);
	return otherwise;
}

size_t pal__param_strings(const pal__params *p, const char *name, size_t most, const char **out)
{
	const json_t *j = field(p, name);
	size_t n = json_is_array(j) ? json_array_size(j) : j != NULL;
	bool ok = n <= most && (!j || json_is_array(j) || json_is_string(j));
	for (size_t i = 0; ok && i < n; i++) {
		out[i] = json_string_value(json_is_array(j) ? json_array_get(j, i) : j);
		ok = out[i] && *out[i];
	}
	if (ok)
		return n;
	must(p, name, "a string or an array of at most %zu strings, none of them empty", most);
	return 0;
}

static void refuse_unless_zero(const pal__params *p, const char *name)
{
	if (pal__param_number(p, name, -1e9, 1e9, 0) == 0)
		return;
	pal__refuse(p->f, name, "is not supported: must be 0 or absent");
	p->f->code = "unsupported_parameter";
}

static uint64_t random_seed(void)
{
	uint64_t seed = 0;
	return getrandom(&seed, sizeof seed, 0) == (ssize_t)sizeof seed ? seed : 0;
}

pal_sampling pal__param_sampling(const pal__params *p, double otherwise)
{
	pal_sampling s = pal_sampling_default();
	const json_t *bias = pal__param_object(p, "logit_bias"), *seed = field(p, "seed");
	s.temperature = (float)pal__param_number(p, "temperature", 0, 2, otherwise);
	s.top_p = (float)pal__param_number(p, "top_p", 0, 1, 1);
	s.min_p = (float)pal__param_number(p, "min_p", 0, 1, 0);
	/* Some say off with -1. */
	int64_t top_k = pal__param_int(p, "top_k", -1, INT32_MAX, 0);
	s.top_k = top_k > 0 ? (int32_t)top_k : 0;
	double penalty = pal__param_number(p, "repetition_penalty", 0.1, 100, 1);
	s.repeat_penalty = (float)pal__param_number(p, "repeat_penalty", 0.1, 100, penalty);
	refuse_unless_zero(p, "frequency_penalty");
	refuse_unless_zero(p, "presence_penalty");
	if (bias && json_object_size(bias)) {
		pal__refuse(p->f, "logit_bias", "is not supported: must be empty or absent");
		p->f->code = "unsupported_parameter";
	}
	s.seed =
		seed ? (uint64_t)pal__param_int(p, "seed", INT64_MIN, INT64_MAX, 0) : random_seed();
	return s;
}

pal_status pal__param_ids(const pal__params *p, const char *name, const json_t *array,
			  int32_t n_vocab, int32_t **ids, size_t *n)
{
	size_t count = json_array_size(array);
	if (p->f->err.code)
		return p->f->err.code;
	int32_t *out = pal__calloc(count ? count : 1, sizeof *out);
	if (!out)
		return pal__fault_memory(p->f);
	for (size_t i = 0; i < count; i++) {
		const json_t *j = json_array_get(array, i);
		json_int_t v = json_integer_value(j);
		if (!json_is_integer(j) || v < 0 || v >= n_vocab) {
			must(p, name, "token ids, whole numbers from 0 to %d: item %zu is not one",
			     n_vocab - 1, i);
			pal__free(out);
			return p->f->err.code;
		}
		out[i] = (int32_t)v;
	}
	*ids = out;
	*n = count;
	return PAL_OK;
}

int64_t pal__query_int(const pal__http_request *r, const char *name, int64_t min, int64_t max,
		       int64_t otherwise, pal__fault *f)
{
	const char *s = pal__http_query(r, name);
	char *end;
	if (!s || f->err.code)
		return otherwise;
	errno = 0;
	long long v = strtoll(s, &end, 10);
	if (*s && !*end && !errno && v >= min && v <= max)
		return v;
	pal__refuse(f, name, "must be a whole number from %" PRId64 " to %" PRId64, min, max);
	return otherwise;
}
