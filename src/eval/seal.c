#include "eval/seal.h"

#include <inttypes.h>
#include <stdio.h>

pal_status pal__json_read(const char *name, const char *text, size_t n, json_t **out,
			  pal_error *err)
{
	json_error_t e;
	if (!n)
		return pal__fail(err, PAL_EFORMAT, "%s: it is empty", name);
	json_t *j = json_loadb(text, n, JSON_REJECT_DUPLICATES, &e);
	/* What is wrong with the text, jansson says; that memory ran out, it may not. */
	if (!j && (e.line < 0 || json_error_code(&e) == json_error_out_of_memory))
		return pal__fail_memory(err, name, n);
	if (!j)
		return pal__fail(err, PAL_EFORMAT, "%s: line %d: %s", name, e.line, e.text);
	*out = j;
	return PAL_OK;
}

static int add_bytes(const char *bytes, size_t n, void *hash)
{
	uint64_t *h = hash;
	for (size_t i = 0; i < n; i++)
		*h = (*h ^ (uint8_t)bytes[i]) * 0x100000001b3u;
	return 0;
}

static json_t *sum_of(const json_t *root)
{
	uint64_t hash = 0xcbf29ce484222325u;
	char hex[17];
	json_t *rest = json_copy((json_t *)root);
	json_object_del(rest, "sum");
	int failed = json_dump_callback(rest, add_bytes, &hash,
					JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17));
	json_decref(rest);
	snprintf(hex, sizeof hex, "%016" PRIx64, hash);
	return failed ? NULL : json_string(hex);
}

pal_status pal__seal(json_t *evidence, pal_error *err)
{
	return json_object_set_new(evidence, "sum", sum_of(evidence)) == 0
		       ? PAL_OK
		       : pal__fail_memory(err, "the sum", 0);
}

pal_status pal__seal_check(const char *name, const json_t *evidence, pal_error *err)
{
	json_t *sum = sum_of(evidence);
	if (!sum)
		return pal__fail_memory(err, "the sum", 0);
	bool same = json_equal(sum, json_object_get(evidence, "sum"));
	json_decref(sum);
	return same ? PAL_OK
		    : pal__fail(err, PAL_EFORMAT,
				"%s: sum is not that of the file: it was changed after it was "
				"written",
				name);
}
