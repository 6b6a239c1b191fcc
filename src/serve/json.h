/* JSON of replies: built so that a failed allocation anywhere gives NULL for the whole, which
 * whoever sends it sees; nothing is left out without a word.
 */
#ifndef PAL_SERVE_JSON_H
#define PAL_SERVE_JSON_H

#include <jansson.h>
#include <stddef.h>

#include "base/status.h"

/* Text that grows: NUL-terminated once anything was put into it. s is freed with pal__free. */
typedef struct {
	char *s; /* [n] */
	size_t n, cap;
} pal__text;

bool pal__text_put(pal__text *t, const char *s, size_t n);

/* object with value under key: takes both references, and is NULL when one of them is, or memory
 * is out. */
json_t *pal__json_with(json_t *object, const char *key, json_t *value);
json_t *pal__json_append(json_t *array, json_t *value);

/* s[n] as a string; bytes that are no UTF-8 become U+FFFD. */
json_t *pal__json_text(const char *s, size_t n);

/* Appends value as compact JSON text. */
bool pal__json_dump(const json_t *value, pal__text *out);

/* "prefix" and 32 random hex digits, at most size bytes. */
void pal__fresh_id(const char *prefix, char *out, size_t size);

/* An object's string, or NULL when there is none. */
const char *pal__json_get(const json_t *object, const char *key);

#endif
