/* The server: a service, its endpoints, and HTTP before them, from start to end.
 *
 * Invariants:
 *  - What is stopped takes nothing new, ends what it has or, after a time, cancels it, and has
 *    committed all that was made.
 */
#ifndef PAL_SERVE_SERVER_H
#define PAL_SERVE_SERVER_H

#include "serve/api.h"
#include "serve/http.h"

typedef struct pal__server pal__server;

typedef struct {
	pal__service_options service;
	pal__http_options http; /* its routes are the server's own */
	pal__api_options api;   /* its service is the server's own */
	bool grpc;     /* serve gRPC, too, for whom HTTP lets in: same host, keys and TLS */
	int grpc_port; /* 0: any */
} pal__server_options;

/* Errors: those of pal__service_open, pal__http_start and pal__grpc_start; PAL_EUNSUPPORTED (gRPC,
 * which this build has not). The model outlives the server. */
pal_status pal__server_start(pal_model *model, const pal__server_options *options,
			     pal__server **out, pal_error *err);
pal__http *pal__server_http(const pal__server *s);
int pal__server_grpc_port(const pal__server *s); /* 0: none */

/* Waits at most wait_s for what runs; frees all. NULL is fine. */
void pal__server_stop(pal__server *s, double wait_s);

#endif
