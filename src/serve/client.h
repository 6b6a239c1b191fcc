/* A client of a server of ours: asks for JSON, with a key.
 *
 * Invariants:
 *  - A reply takes at most PAL__MAX_ANSWER bytes and PAL__ANSWER_S seconds.
 *  - The key is sent to the server that the URL names, and to no other: redirections are not
 *    followed, proxies not used.
 *  - Every error names the URL and what to do about it.
 */
#ifndef PAL_SERVE_CLIENT_H
#define PAL_SERVE_CLIENT_H

#include <jansson.h>

#include "base/status.h"

#define PAL__MAX_ANSWER ((size_t)16 << 20)
#define PAL__ANSWER_S 15
#define PAL__MAX_KEY 512 /* bytes */

typedef struct pal__client pal__client;

/* url: "http://127.0.0.1:8080", https as well. key_file: its first line that is neither empty nor a
 * comment is the key; authorities: a file, PEM, instead of the system's. Both may be NULL.
 * Errors: PAL_EINVAL (the URL, no key in the file), PAL_EIO, PAL_ENOMEM. */
pal_status pal__client_open(const char *url, const char *key_file, const char *authorities,
			    pal__client **out, pal_error *err);
void pal__client_close(pal__client *c); /* NULL is fine */

/* The object at a path, "/v1/status"; the caller lets go of it. Errors: PAL_EIO (no server, no
 * answer in time), PAL_EINVAL (the key is missing or refused), PAL_ENOTFOUND, PAL_EFORMAT (no JSON
 * object), PAL_ELIMIT, PAL_EOVERLOAD, PAL_ENOMEM. */
pal_status pal__client_get(pal__client *c, const char *path, json_t **out, pal_error *err);

/* Replaces what a terminal would act on, the control characters of a UTF-8 text, by '?'. */
void pal__plain(char *text);

#endif
