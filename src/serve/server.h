/* The server: a service, its endpoints, and HTTP before them, from start to end.
 *
 * Invariants:
 *  - What is stopped takes nothing new, ends what it has or, after a time, cancels it, and has
 *    committed all that was made.
 */
#ifndef PAL_SERVE_SERVER_H
#define PAL_SERVE_SERVER_H

#include "serve/http.h"

typedef struct pal__server pal__server;

typedef struct {
	pal__service_options service;
	pal__http_options http; /* its routes are the server's own */
} pal__server_options;

/* Errors: those of pal__service_open and pal__http_start. The model outlives the server. */
pal_status pal__server_start(pal_model *model, const pal__server_options *options,
			     pal__server **out, pal_error *err);
pal__http *pal__server_http(const pal__server *s);

/* Waits at most wait_s for what runs; frees all. NULL is fine. */
void pal__server_stop(pal__server *s, double wait_s);

#endif
