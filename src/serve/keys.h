/* API keys: a file with one key a line; blanks at its ends and lines that begin with '#' do not
 * count.
 *
 * Invariants:
 *  - A key that is given is compared with all keys, whole, whatever the first difference: how long
 *    that takes says nothing about them.
 *  - A file that cannot be read, or holds what is no key, leaves the keys as they were.
 */
#ifndef PAL_SERVE_KEYS_H
#define PAL_SERVE_KEYS_H

#include <stdbool.h>

#include "base/status.h"

#define PAL__KEY_LEAST 16 /* characters, of ASCII, without blanks */
#define PAL__KEY_MOST 255
#define PAL__MAX_KEYS 4096

typedef struct pal__keys pal__keys;

/* Errors: PAL_EIO, PAL_EFORMAT (the line is named; no key at all), PAL_ELIMIT, PAL_ENOMEM. */
pal_status pal__keys_open(const char *path, pal__keys **out, pal_error *err);
pal_status pal__keys_reload(pal__keys *k, pal_error *err);
void pal__keys_close(pal__keys *k); /* NULL is fine */

/* *owner: never 0, the same for the same key. */
bool pal__keys_has(pal__keys *k, const char *key, uint64_t *owner);

#endif
