#include "serve/server.h"

#include <math.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "serve/grpc.h"
#include "serve/health.h"
#include "serve/page.h"

struct pal__server {
	pal__service *service;
	pal__http *http;
	pal__health health;
	pal__api *api;
	pal__route *routes;
	pal__grpc *grpc;
};

static size_t count(const pal__route *table)
{
	size_t n = 0;
	while (table[n].method)
		n++;
	return n;
}

/* All tables in one. */
static pal_status join(pal__server *s, const pal__route *const *tables, size_t n_tables,
		       pal_error *err)
{
	size_t n = 1, at = 0;
	for (size_t i = 0; i < n_tables; i++)
		n += count(tables[i]);
	s->routes = pal__calloc(n, sizeof *s->routes);
	if (!s->routes)
		return pal__fail_memory(err, "routes", n * sizeof *s->routes);
	for (size_t i = 0; i < n_tables; i++) {
		size_t more = count(tables[i]);
		memcpy(s->routes + at, tables[i], more * sizeof *s->routes);
		at += more;
	}
	return PAL_OK;
}

static bool has_key(const void *http, const char *key, uint64_t *owner)
{
	return pal__http_key(http, key, owner);
}

static pal_status start_grpc(pal__server *s, const pal__server_options *o, pal_error *err)
{
	pal__grpc_options grpc = {.host = o->http.host,
				  .port = o->grpc_port,
				  .key = o->http.key_file ? has_key : NULL,
				  .keys = s->http,
				  .anyone = o->http.anyone,
				  .tls_cert = o->http.tls_cert,
				  .tls_key = o->http.tls_key,
				  .log = o->http.log,
				  .user = o->http.user};
	return o->grpc ? pal__grpc_start(s->service, &grpc, &s->grpc, err) : PAL_OK;
}

static pal_status start(pal__server *s, pal_model *model, const pal__server_options *options,
			pal_error *err)
{
	const pal__route health[] = {
		{"GET", "/health", pal__health_get, &s->health, true, 0},
		{"GET", "/metrics", pal__metrics_get, &s->health, false, 0},
		{0},
	};
	pal__http_options http = options->http;
	pal__api_options api = options->api;
	pal_status status = pal__service_open(model, &options->service, &s->service, err);
	s->health.service = api.service = s->service;
	if (!status)
		status = pal__api_new(&api, &s->api, err);
	if (!status)
		status = join(
			s,
			(const pal__route *[]){health, pal__api_routes(s->api), pal__page_routes},
			3, err);
	http.routes = s->routes;
	if (!status)
		status = pal__http_start(&http, &s->http, err);
	atomic_store(&s->health.http, s->http);
	return status ? status : start_grpc(s, options, err);
}

pal_status pal__server_start(pal_model *model, const pal__server_options *options,
			     pal__server **out, pal_error *err)
{
	pal__server *s = pal__calloc(1, sizeof *s);
	if (!s)
		return pal__fail_memory(err, "the server", sizeof *s);
	pal_status status = start(s, model, options, err);
	if (status)
		pal__server_stop(s, 0);
	else
		*out = s;
	return status;
}

pal__http *pal__server_http(const pal__server *s)
{
	return s->http;
}

int pal__server_grpc_port(const pal__server *s)
{
	return s->grpc ? pal__grpc_port(s->grpc) : 0;
}

void pal__server_stop(pal__server *s, double wait_s)
{
	if (!s)
		return;
	double until = pal__now() + wait_s;
	atomic_store(&s->health.stopping, true);
	if (s->http)
		pal__http_stop_listening(s->http);
	pal__grpc_stop(s->grpc, wait_s);
	if (s->service)
		pal__service_drain(s->service, fmax(until - pal__now(), 0));
	pal__http_close(s->http);
	pal__service_close(s->service);
	pal__api_free(s->api);
	pal__free(s->routes);
	pal__free(s);
}
