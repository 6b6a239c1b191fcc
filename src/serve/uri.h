/* Request targets: "/v1/sessions/a%20b?limit=3" taken apart, and matched with templates.
 *
 * Invariants:
 *  - A path is cut at its slashes before anything in it is decoded: an encoded slash is part of a
 *    parameter and never a separator.
 *  - What is decoded is UTF-8 without a zero byte; other targets are refused.
 */
#ifndef PAL_SERVE_URI_H
#define PAL_SERVE_URI_H

#include <stdbool.h>

#include "serve/http.h"

#define PAL__MAX_SEGMENTS 16
#define PAL__MAX_ARGS 32

typedef struct {
	char *text; /* owned; the rest points into it */
	char *segments[PAL__MAX_SEGMENTS];
	int n_segments;
	char *names[PAL__MAX_ARGS], *values[PAL__MAX_ARGS]; /* a value may be "" */
	int n_args;
} pal__uri;

/* target: of the request line, also of the form "http://host/path". Errors: PAL_EINVAL,
 * PAL_ELIMIT (segments, arguments), PAL_ENOMEM. */
pal_status pal__uri_parse(const char *target, pal__uri *out, pal_error *err);
void pal__uri_free(pal__uri *u); /* fine on a zeroed struct */

/* Whether the path is of this template; param: its {…}, in their order. */
bool pal__uri_match(const pal__uri *u, const char *pattern, const char *param[PAL__MAX_PARAMS]);

#endif
