/* What a schema says, without references and combinations: a list of plain schemas (objects
 * without $ref, allOf, anyOf and oneOf at their top, `const` being an `enum` of one), of which a
 * value must satisfy one.
 */
#ifndef PAL_TEXT_SCHEMA_MERGE_H
#define PAL_TEXT_SCHEMA_MERGE_H

#include <jansson.h>

#include "base/status.h"

enum {
	PAL__TYPE_NULL = 1,
	PAL__TYPE_BOOLEAN = 2,
	PAL__TYPE_INTEGER = 4,
	PAL__TYPE_NUMBER = 8, /* those with a fraction; "number" is both */
	PAL__TYPE_STRING = 16,
	PAL__TYPE_ARRAY = 32,
	PAL__TYPE_OBJECT = 64,
	PAL__TYPE_ANY = 127,
};

/* The types that a plain schema allows, or that its keywords are about. */
unsigned pal__schema_types(const json_t *plain);
unsigned pal__value_type(const json_t *value);

typedef struct {
	size_t work; /* done so far, to PAL__SCHEMA_WORK */
	pal_status status;
	pal_error error; /* of status */
} pal__merger;

/* The plain schemas of one in root: a new reference, or NULL after an error. */
json_t *pal__schema_plain(pal__merger *m, const json_t *root, const json_t *schema);

/* Notes that something failed. */
void pal__merger_fail(pal__merger *m, pal_status status, const char *what, const json_t *where);
void pal__merger_no_memory(pal__merger *m);

#endif
