/* JSON schemas as forms: the texts of one JSON value, in one layout.
 *
 * Every text of the form satisfies the schema, and there is always a way to end it. What a schema
 * leaves open is settled so:
 *  - Layout: no white space but at most one space behind ':' and ','.
 *  - Objects: the named properties in the schema's order, optional ones may be missing; then
 *    additional ones, none of a named property's key (that one of them comes twice is not
 *    prevented). Additional ones come where additionalProperties allows them, or where neither it
 *    nor `properties` is there. A required key without a schema may be any value.
 *  - Arrays: items behind prefixItems come where `items` says what they are, or minItems asks.
 *  - Keys, enumerated strings and those of a pattern or format are written in the shortest way;
 *    other strings with any escapes, but \u0000 and lone surrogates. Lengths count characters.
 *  - Numbers: at most 18 digits before and 17 behind the point, 2 of an exponent; with limits no
 *    exponent, and at most 15 digits in all. Integers have no fraction. Enumerated ones are written
 *    as the schema has them.
 *  - A schema without a type is of the types that its keywords are about; without those, of any.
 *  - Values are nested PAL__FORM_DEPTH deep at most, strings included.
 *
 * Keywords: type, enum, const, properties, required, additionalProperties, items, prefixItems,
 * minItems, maxItems, minLength, maxLength, pattern (text/pattern.h), format (date, time,
 * date-time, uuid, email, ipv4; others say nothing), minimum, maximum, exclusiveMinimum,
 * exclusiveMaximum (of numbers that may have a fraction: whole limits only), anyOf, oneOf (where
 * type, const or enum of the branches, or of a property that all require, tell them apart), allOf,
 * $ref (into the schema itself; what refers to itself without anything between is nothing). Those
 * that only describe are passed over; any other is an error. What an enumeration has beside it may
 * be its type only.
 */
#ifndef PAL_TEXT_SCHEMA_H
#define PAL_TEXT_SCHEMA_H

#include <jansson.h>

#include "text/form.h"

#define PAL__SCHEMA_BYTES ((size_t)1 << 20)
#define PAL__SCHEMA_DEPTH 64     /* schemas in schemas */
#define PAL__SCHEMA_WORK 20000   /* schemas that are merged or resolved in all */
#define PAL__SCHEMA_CHOICES 1024 /* alternatives of one value */

/* The form of schema[n]; empty: any object. *out is freed with pal__form_free. Errors: PAL_EINVAL
 * (no JSON, no schema, nothing satisfies it), PAL_EUNSUPPORTED, PAL_ELIMIT, PAL_ENOMEM. */
pal_status pal__schema_form(const char *schema, size_t n, pal__form *out, pal_error *err);

/* For forms of which schemas are a part; f outlives it. */
typedef struct pal__schemas pal__schemas;
pal_status pal__schemas_new(pal__form *f, pal__schemas **out, pal_error *err);
void pal__schemas_free(pal__schemas *s);

/* Whether root is a schema that is known here; what: its name in messages. Errors: PAL_EINVAL,
 * PAL_EUNSUPPORTED, PAL_ELIMIT, PAL_ENOMEM. */
pal_status pal__schema_check(const json_t *root, const char *what, pal_error *err);

/* What $ref names in root, or NULL. */
const json_t *pal__schema_resolve(const json_t *root, const char *ref);

/* Frees text that jansson made. */
void pal__json_free(char *text);

/* A value of root, which was checked and outlives s, then on at `to`. After an error, which
 * pal__schemas_finish tells: -1. object: no other value than an object. */
int32_t pal__schemas_value(pal__schemas *s, const json_t *root, bool object, int32_t to);

/* Makes what the values need, and finishes the form. Errors: as pal__schema_form. */
pal_status pal__schemas_finish(pal__schemas *s, const char *what, pal_error *err);

#endif
