/* What is in a GGUF file, for people and for programs: the report of `pal inspect`.
 *
 * Invariants:
 *  - Every key and every tensor is listed; only long values are cut, and then the
 *    report says how long they are.
 *  - Bytes of the file reach the text as printable UTF-8 on one line each: control
 *    characters and invalid bytes are escaped (text) or replaced by U+FFFD (JSON).
 *  - When the file has shrunk while it was read, the report is PAL_EIO.
 */
#ifndef PAL_MODEL_INSPECT_H
#define PAL_MODEL_INSPECT_H

#include <jansson.h>
#include <stdio.h>

#include "model/gguf.h"

#define PAL__INSPECT_ITEMS 8      /* elements of an array that are shown */
#define PAL__INSPECT_STRING 65536 /* bytes of a string in JSON */

/* Metadata, tensor table and totals to `out`. Errors: PAL_EIO (also when out fails). */
pal_status pal__inspect_text(const pal__gguf *g, FILE *out, pal_error *err);

/* The same as an object that the caller owns (json_decref):
 *   file, version, alignment, file_bytes, data_offset;
 *   metadata: [{key, type, value}], for an array [{key, type: "array", item, count,
 *     values: the first PAL__INSPECT_ITEMS}]; a string that was cut ends with "... (N bytes)".
 *     Integers beyond 63 bits, and floats that are not finite, are strings;
 *   tensors: [{name, type, shape, offset, bytes}], shape: elements of a row first;
 *   totals: {tensors, weights, bytes, types: {NAME: {tensors, weights, bytes}}}.
 * Errors: PAL_EIO, PAL_ENOMEM. */
pal_status pal__inspect_json(const pal__gguf *g, json_t **out, pal_error *err);

#endif
