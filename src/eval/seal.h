/* JSON of evidence: read from anywhere, and sealed with a sum of its own.
 *
 * The sum says that a file is as it was written, and keeps nobody from writing another one: what
 * evidence is worth follows from its samples (eval/evidence.h, eval/map_evidence.h).
 */
#ifndef PAL_EVAL_SEAL_H
#define PAL_EVAL_SEAL_H

#include <jansson.h>

#include "base/status.h"

/* Reads text[n]. name: in messages. *out: to be given back with json_decref. Errors: PAL_EFORMAT,
 * PAL_ENOMEM. */
pal_status pal__json_read(const char *name, const char *text, size_t n, json_t **out,
			  pal_error *err);

/* Sets "sum": FNV-1a, 64 bits, of everything else as compact JSON with sorted keys. Errors:
 * PAL_ENOMEM. */
pal_status pal__seal(json_t *evidence, pal_error *err);

/* Whether the sum is that of the object. Errors: PAL_EFORMAT, PAL_ENOMEM. */
pal_status pal__seal_check(const char *name, const json_t *evidence, pal_error *err);

#endif
