/* /health, for whoever watches that the server is there, and /metrics, for Prometheus. */
#ifndef PAL_SERVE_HEALTH_H
#define PAL_SERVE_HEALTH_H

#include "serve/http.h"

typedef struct {
	pal__service *service;
	_Atomic(pal__http *) http; /* once it has started */
	atomic_bool stopping;      /* no new requests are taken: not healthy */
} pal__health;

/* request->user: a pal__health. */
void pal__health_get(const pal__http_request *request, pal__reply *reply);
void pal__metrics_get(const pal__http_request *request, pal__reply *reply);

#endif
