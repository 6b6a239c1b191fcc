#include "serve/http.h"

#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "serve/connections.h"
#include "serve/guard.h"
#include "serve/keys.h"
#include "serve/traffic.h"

#define MAX_BODIES 8            /* times max_body: bytes of all bodies that are here at a time */
#define GOODBYE_S 2             /* for replies that are whole to leave when the server closes */
#define RESERVE 64              /* connections beyond max_connections that are told so */
#define POOL ((size_t)32 << 10) /* bytes of a connection for a reply's headers */

struct pal__http {
	pal__http_options options; /* strings are owned */
	struct MHD_Daemon *daemon;
	int listener; /* or -1 */
	int port;
	bool loopback;
	char *cert, *key;
	size_t max_bodies; /* bytes */
	pal__keys *keys;   /* NULL: none are asked for */
	pal__rate *rate;   /* NULL: any; of libmicrohttpd's thread */
	pal__connections *connections;
	pal__traffic *traffic;
	uint64_t salt; /* of ids of requests */
	atomic_ullong n_requests, body_bytes;
	atomic_bool started, draining;
	char complaint[256]; /* of libmicrohttpd, while it starts */

	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t changed;
	bool closing;
	int running, replies; /* handlers; replies that are not freed */
};

/* --- whether a request is let in -------------------------------------------------- */

static bool is_get(const char *method)
{
	return !strcmp(method, "GET") || !strcmp(method, "HEAD");
}

/* Whether this method is the route's. */
static bool of_method(const pal__route *route, const char *method)
{
	return !strcmp(route->method, method) || (is_get(route->method) && is_get(method));
}

/* allowed: methods of the path, "GET, HEAD, OPTIONS"; "": there is no such path. */
static const pal__route *find_route(const pal__http *h, pal__reply *r, char allowed[128])
{
	const pal__route *found = NULL;
	size_t n = 0;
	allowed[0] = 0;
	for (const pal__route *route = h->options.routes; route && route->method; route++) {
		const char *param[PAL__MAX_PARAMS] = {0};
		if (!pal__uri_match(&r->uri, route->path, param))
			continue;
		int more = snprintf(allowed + n, 128 - n, "%s%s, ", route->method,
				    is_get(route->method) ? ", HEAD" : "");
		n += more > 0 && (size_t)more < 100 - n ? (size_t)more : 0;
		if (!found && of_method(route, r->method)) {
			found = route;
			memcpy(r->request.param, param, sizeof param);
		}
	}
	if (n)
		snprintf(allowed + n, 128 - n, "OPTIONS");
	return found;
}

/* Headers for pages of the origin that is allowed. */
static void cors(const pal__http *h, pal__reply *r)
{
	const char *allowed = h->options.cors_origin;
	const char *origin = pal__pairs_get(&r->headers, "Origin");
	if (!allowed)
		return;
	if (strcmp(allowed, "*") != 0)
		pal__reply_header(r, "Vary", "Origin");
	if (!origin || (strcmp(allowed, "*") != 0 && strcmp(allowed, origin) != 0))
		return;
	pal__reply_header(r, "Access-Control-Allow-Origin", allowed);
	pal__reply_header(r, "Access-Control-Expose-Headers", "X-Request-Id, Retry-After");
}

static bool preflight(pal__reply *r, const char *allowed)
{
	const char *wanted = pal__pairs_get(&r->headers, "Access-Control-Request-Headers");
	pal__reply_header(r, "Allow", allowed);
	if (pal__pairs_get(&r->own, "Access-Control-Allow-Origin")) {
		pal__reply_header(r, "Access-Control-Allow-Methods", allowed);
		pal__reply_header(r, "Access-Control-Max-Age", "600");
		if (wanted)
			pal__reply_header(r, "Access-Control-Allow-Headers", wanted);
	}
	pal__reply_bytes(r, 204, NULL, NULL, 0);
	return false;
}

/* Which place a request may come from. */
static bool check_place(const pal__http *h, pal__reply *r)
{
	const char *host = pal__pairs_get(&r->headers, "Host");
	const char *origin = pal__pairs_get(&r->headers, "Origin");
	const char *allowed = h->options.cors_origin;
	if (h->keys)
		return true;
	if (h->loopback && !pal__host_local(host, h->options.host)) {
		pal__reply_error(r, 403, NULL, "host_not_allowed", NULL,
				 "this server answers to localhost, and not to the Host that the "
				 "request names");
		return false;
	}
	if (!origin || pal__origin_same(origin, host) ||
	    (allowed && (!strcmp(allowed, "*") || !strcmp(allowed, origin))))
		return true;
	pal__reply_error(r, 403, NULL, "origin_not_allowed", NULL,
			 "pages of other origins are not let in (--cors-origin names one that is)");
	return false;
}

static bool check_route(const pal__http *h, pal__reply *r)
{
	char allowed[128];
	pal_error err;
	pal_status s = pal__uri_parse(r->target, &r->uri, &err);
	if (s) {
		pal__reply_error(r, s == PAL_ENOMEM ? 503 : 400, NULL, "invalid_url", NULL, "%s",
				 err.text);
		return false;
	}
	r->route = find_route(h, r, allowed);
	if (!*allowed)
		pal__reply_error(r, 404, NULL, "not_found", NULL, "there is nothing at this URL");
	else if (!strcmp(r->method, "OPTIONS") && !r->route)
		return preflight(r, allowed);
	else if (!r->route) {
		pal__reply_header(r, "Allow", allowed);
		pal__reply_error(r, 405, NULL, "method_not_allowed", NULL,
				 "this URL is for the methods %s", allowed);
	}
	return r->route;
}

static bool check_key(const pal__http *h, pal__reply *r)
{
	const char *bearer = pal__pairs_get(&r->headers, "Authorization");
	const char *key = pal__pairs_get(&r->headers, "X-Api-Key");
	if (r->route->open || !h->keys)
		return true;
	if (!key && bearer && !strncasecmp(bearer, "Bearer ", 7))
		key = bearer + 7;
	if (key && pal__keys_has(h->keys, key, &r->request.owner))
		return true;
	pal__reply_header(r, "WWW-Authenticate", "Bearer");
	pal__reply_error(r, 401, NULL, "invalid_api_key", NULL,
			 key ? "this API key is not known"
			     : "an API key is needed: 'Authorization: Bearer KEY' or "
			       "'x-api-key: KEY'");
	return false;
}

static void retry_after(pal__reply *r, double seconds)
{
	char text[32];
	snprintf(text, sizeof text, "%d", seconds < 3600 ? 1 + (int)seconds : 3600);
	pal__reply_header(r, "Retry-After", text);
}

static bool check_rate(pal__http *h, const pal__connection *k, pal__reply *r)
{
	double wait_s;
	uint64_t owner = r->request.owner;
	if (!h->rate || r->route->open ||
	    pal__rate_take(h->rate, owner ? owner : k->address, pal__now(), &wait_s))
		return true;
	retry_after(r, wait_s);
	pal__reply_error(r, 429, NULL, "rate_limit_exceeded", NULL,
			 "more than %g requests a second", h->options.rate);
	return false;
}

static bool too_large(pal__reply *r, size_t max)
{
	pal__reply_error(r, 413, NULL, "request_too_large", NULL,
			 "the body is larger than %zu bytes", max);
	return false;
}

static size_t max_body(const pal__http *h, const pal__reply *r)
{
	return r->route->max_body ? r->route->max_body : h->options.max_body;
}

static bool check_headers(const pal__http *h, pal__reply *r, size_t n)
{
	if (n <= h->options.max_header)
		return true;
	pal__reply_error(r, 431, NULL, "headers_too_large", NULL,
			 "the headers are larger than %zu bytes", h->options.max_header);
	return false;
}

static bool check_body(const pal__http *h, pal__reply *r)
{
	const char *length = pal__pairs_get(&r->headers, "Content-Length");
	/* Its form was checked by libmicrohttpd. */
	return !length || strtoull(length, NULL, 10) <= max_body(h, r) ||
	       too_large(r, max_body(h, r));
}

static bool check_connection(const pal__connection *k, pal__reply *r)
{
	if (!k->refused)
		return true;
	retry_after(r, 0);
	pal__reply_error(r, k->refused, NULL, "too_many_connections", NULL,
			 k->refused == 429 ? "too many connections from this address"
					   : "too many connections");
	return false;
}

/* --- requests, on libmicrohttpd's thread -------------------------------------------- */

static void on_free(pal__reply *r)
{
	pal__http *h = r->server;
	double seconds = pal__now() - r->start;
	if (!r->status)
		r->status = 499; /* the client went before there was a reply */
	pal__traffic_count(h->traffic, r, seconds);
	json_t *entry = h->options.log ? pal__traffic_entry(r, seconds) : NULL;
	if (entry)
		h->options.log(h->options.user, entry);
	json_decref(entry);
	atomic_fetch_sub(&h->body_bytes, r->n_body);
	pthread_mutex_lock(&h->lock);
	h->replies--;
	pthread_cond_broadcast(&h->changed);
	pthread_mutex_unlock(&h->lock);
}

static pal__connection *connection_of(struct MHD_Connection *connection)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	return info ? info->socket_context : NULL;
}

/* The request line is there: what is returned is the request's. */
static void *on_line(void *user, const char *target, struct MHD_Connection *connection)
{
	pal__http *h = user;
	pal__connection *k = connection_of(connection);
	pal__reply *r = k ? pal__reply_new(target) : NULL;
	if (!r)
		return NULL;
	uint64_t number = atomic_fetch_add(&h->n_requests, 1);
	snprintf(r->id, sizeof r->id, "req_%016llx",
		 (unsigned long long)(h->salt + number * 0x9e3779b97f4a7c15));
	r->server = h;
	r->on_free = on_free;
	r->patience_s = h->options.idle_timeout_s;
	r->connection = connection;
	r->close = atomic_load(&h->draining);
	pthread_mutex_lock(&h->lock);
	h->replies++;
	pthread_mutex_unlock(&h->lock);
	pal__connection_receive(k, r);
	return r;
}

struct copying {
	pal__pairs *to;
	bool failed;
};

static enum MHD_Result copy_header(void *user, enum MHD_ValueKind kind, const char *name,
				   const char *value)
{
	struct copying *c = user;
	(void)kind;
	c->failed = !pal__pairs_add(c->to, name, value ? value : "");
	return c->failed ? MHD_NO : MHD_YES;
}

/* What is refused by its headers is answered without its body. */
static enum MHD_Result refuse(pal__connection *k, pal__reply *r)
{
	const char *length = pal__pairs_get(&r->headers, "Content-Length");
	bool body = (length && strcmp(length, "0") != 0) ||
		    pal__pairs_get(&r->headers, "Transfer-Encoding");
	if (!pal__connection_claim(k))
		return MHD_NO;
	k->unread = body;
	r->close |= k->refused;
	r->phase = PAL__REFUSED;
	r->ended = true;
	/* What is answered before it is whole costs the connection. */
	return body ? pal__reply_answer(r) : MHD_YES;
}

/* The headers are there. */
static enum MHD_Result on_headers(pal__http *h, pal__connection *k, pal__reply *r,
				  const char *method)
{
	const union MHD_ConnectionInfo *size =
		MHD_get_connection_info(r->connection, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
	r->method = pal__strndup(method, strlen(method));
	struct copying headers = {.to = &r->headers};
	MHD_get_connection_values(r->connection, MHD_HEADER_KIND, copy_header, &headers);
	if (!r->method || headers.failed)
		return MHD_NO;
	r->request.method = r->method;
	if (!check_connection(k, r) || !check_place(h, r))
		return refuse(k, r);
	cors(h, r);
	if (!check_headers(h, r, size ? size->header_size : 0) || !check_route(h, r) ||
	    !check_key(h, r) || !check_rate(h, k, r) || !check_body(h, r))
		return refuse(k, r);
	return MHD_YES;
}

static enum MHD_Result on_body(pal__http *h, pal__connection *k, pal__reply *r, const char *data,
			       size_t n)
{
	size_t most = max_body(h, r);
	if (n > most - r->n_body) {
		pal__connection_refuse(k, 413, "the body is too large");
		return MHD_NO;
	}
	atomic_fetch_add(&h->body_bytes, n);
	r->n_body += n;
	if (atomic_load(&h->body_bytes) > h->max_bodies ||
	    !pal__grow((void **)&r->body, &r->body_cap, r->n_body + 1, 1)) {
		pal__connection_refuse(k, 503, "no memory for the body");
		return MHD_NO;
	}
	memcpy(r->body + r->n_body - n, data, n);
	r->body[r->n_body] = 0;
	r->request.body = r->body;
	r->request.n_body = r->n_body;
	return MHD_YES;
}

static void *handle(void *arg)
{
	pal__reply *r = arg;
	pal__http *h = r->server;
	r->route->handler(&r->request, r);
	pal__reply_end(r);
	pal__reply_unref(r);
	pthread_mutex_lock(&h->lock);
	h->running--;
	pthread_cond_broadcast(&h->changed);
	pthread_mutex_unlock(&h->lock);
	return NULL;
}

static bool start_handler(pal__http *h, pal__reply *r)
{
	pthread_t thread;
	pthread_mutex_lock(&h->lock);
	bool ok = !h->closing;
	if (ok) {
		r->refs++; /* nobody else has it yet */
		ok = !pthread_create(&thread, NULL, handle, r);
		if (ok)
			pthread_detach(thread);
		else
			r->refs--;
		h->running += ok;
	}
	pthread_mutex_unlock(&h->lock);
	return ok;
}

/* All of the request is there. */
static enum MHD_Result on_whole(pal__http *h, pal__connection *k, pal__reply *r)
{
	if (!pal__connection_claim(k))
		return MHD_NO;
	r->phase = PAL__RUNNING;
	r->request.user = r->route->user;
	pal__connection_answer(k);
	if (start_handler(h, r))
		return pal__reply_answer(r);
	retry_after(r, 0);
	pal__reply_error(r, 503, NULL, "overloaded", NULL, "the server is stopping, or full");
	r->phase = PAL__REFUSED;
	r->ended = true;
	return pal__reply_answer(r);
}

/* libmicrohttpd calls it when the headers are there, with each piece of the body, and, until there
 * is a reply, with nothing. */
static enum MHD_Result on_request(void *user, struct MHD_Connection *connection, const char *url,
				  const char *method, const char *version, const char *data,
				  size_t *n, void **state)
{
	pal__http *h = user;
	pal__connection *k = connection_of(connection);
	pal__reply *r = *state;
	(void)url;
	(void)version;
	if (!k || !r)
		return MHD_NO;
	if (!r->method)
		return on_headers(h, k, r, method);
	if (*n) {
		size_t n_data = *n;
		*n = 0;
		return on_body(h, k, r, data, n_data);
	}
	return r->phase == PAL__RECEIVING ? on_whole(h, k, r) : pal__reply_answer(r);
}

static void on_completed(void *user, struct MHD_Connection *connection, void **state,
			 enum MHD_RequestTerminationCode code)
{
	pal__reply *r = *state;
	pal__connection *k = connection_of(connection);
	(void)user;
	(void)code;
	if (!r)
		return;
	*state = NULL;
	if (k)
		pal__connection_done(k);
	pal__reply_completed(r);
	pal__reply_unref(r);
}

static void on_connection(void *user, struct MHD_Connection *connection, void **context,
			  enum MHD_ConnectionNotificationCode code)
{
	pal__http *h = user;
	if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
		pal__connection_close(*context);
		*context = NULL;
		return;
	}
	const union MHD_ConnectionInfo *fd =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	const union MHD_ConnectionInfo *address =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
	if (fd && address)
		*context = pal__connection_open(h->connections, fd->connect_fd, h->cert,
						address->client_addr);
	if (fd && !*context) /* no memory: nobody would watch its clock */
		shutdown(fd->connect_fd, SHUT_RDWR);
}

/* --- starting ------------------------------------------------------------------------ */

static void on_complaint(void *user, const char *format, va_list args)
{
	pal__http *h = user;
	if (!atomic_load(&h->started)) /* later ones are of clients, whose contents are in no log */
		vsnprintf(h->complaint, sizeof h->complaint, format, args);
}

static pal_status copy_text(const char **text, pal_error *err)
{
	if (*text)
		*text = pal__strndup(*text, strlen(*text));
	else
		return PAL_OK;
	return *text ? PAL_OK : pal__fail_memory(err, "options of the server", 0);
}

static pal_status copy_options(const pal__http_options *from, pal__http_options *o, pal_error *err)
{
	const char **const texts[] = {&o->host, &o->key_file, &o->tls_cert, &o->tls_key,
				      &o->cors_origin};
	pal_status s = PAL_OK;
	*o = *from;
	if (!o->host)
		o->host = "127.0.0.1";
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		if (!s)
			s = copy_text(texts[i], err);
		else
			*texts[i] = NULL;
	}
	o->max_body = o->max_body ? o->max_body : (size_t)32 << 20;
	o->max_header = o->max_header ? o->max_header : (size_t)32 << 10;
	o->max_connections = o->max_connections ? o->max_connections : 1024;
	o->request_timeout_s = o->request_timeout_s > 0 ? o->request_timeout_s : 30;
	o->idle_timeout_s = o->idle_timeout_s > 0 ? o->idle_timeout_s : 120;
	return s;
}

/* A file as a text. */
static pal_status read_text(const char *path, char **out, pal_error *err)
{
	pal__file f = {0};
	pal_status s = pal__file_map(path, &f, err);
	if (s)
		return s;
	*out = pal__strndup((const char *)f.data, f.size);
	pal__file_unmap(&f);
	return *out ? PAL_OK : pal__fail_memory(err, path, f.size);
}

static pal_status bind_to(pal__http *h, const struct addrinfo *a, pal_error *err)
{
	int one = 1, zero = 0, fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && a->ai_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero);
	if (fd >= 0)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (fd < 0 || bind(fd, a->ai_addr, a->ai_addrlen) || listen(fd, 1024)) {
		pal__fail(err, PAL_EIO, "%s:%d: %s", h->options.host, h->options.port,
			  strerror(errno));
		if (fd >= 0)
			close(fd);
		return PAL_EIO;
	}
	struct sockaddr_in6 bound;
	socklen_t n = sizeof bound;
	getsockname(fd, (struct sockaddr *)&bound, &n);
	h->port = ntohs(bound.sin6_port); /* where it is of the older kind, too */
	h->listener = fd;
	return PAL_OK;
}

static pal_status listen_at(pal__http *h, pal_error *err)
{
	const struct addrinfo hints = {.ai_family = AF_UNSPEC,
				       .ai_socktype = SOCK_STREAM,
				       .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
	struct addrinfo *found;
	char port[16];
	snprintf(port, sizeof port, "%d", h->options.port);
	int error = getaddrinfo(h->options.host, port, &hints, &found);
	if (error)
		return pal__fail(err, PAL_EINVAL, "host %s: %s", h->options.host,
				 gai_strerror(error));
	h->loopback = pal__address_loopback(found->ai_addr);
	pal_status s;
	if (!h->loopback && !h->keys && !h->options.anyone)
		s = pal__fail(err, PAL_EINVAL,
			      "host %s can be reached from other machines: that needs API keys "
			      "(--api-key-file), or --anyone to let everybody in",
			      h->options.host);
	else
		s = bind_to(h, found, err);
	freeaddrinfo(found);
	return s;
}

static pal_status check_options(const pal__http_options *o, pal_error *err)
{
	if (!o->tls_cert != !o->tls_key)
		return pal__fail(err, PAL_EINVAL,
				 "TLS needs a certificate and its key: only one of them is given");
	if (o->port < 0 || o->port > 65535)
		return pal__fail(err, PAL_EINVAL, "port %d: 0 to 65535 are possible", o->port);
	if (o->max_connections < 0 || o->max_connections_each < 0 || !(o->rate >= 0) ||
	    !(o->idle_timeout_s < 1e6) || !(o->request_timeout_s < 1e6))
		return pal__fail(err, PAL_EINVAL, "a limit of the server is negative, or no limit");
	return PAL_OK;
}

static pal_status open_parts(pal__http *h, pal_error *err)
{
	const pal__http_options *o = &h->options;
	pal_status s = PAL_OK;
	for (const pal__route *r = o->routes; r && r->method; r++)
		h->max_bodies = r->max_body > h->max_bodies ? r->max_body : h->max_bodies;
	h->max_bodies += MAX_BODIES * o->max_body;
	if (o->key_file)
		s = pal__keys_open(o->key_file, &h->keys, err);
	if (!s && o->tls_cert)
		s = read_text(o->tls_cert, &h->cert, err);
	if (!s && o->tls_key)
		s = read_text(o->tls_key, &h->key, err);
	if (!s && o->rate > 0)
		s = pal__rate_new(o->rate, &h->rate, err);
	if (!s)
		s = pal__traffic_new(&h->traffic, err);
	if (!s)
		s = pal__connections_new(o->max_connections, o->max_connections_each,
					 o->request_timeout_s, o->idle_timeout_s, &h->connections,
					 err);
	return s ? s : listen_at(h, err);
}

static pal_status start_daemon(pal__http *h, pal_error *err)
{
	const pal__http_options *o = &h->options;
	unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME |
			 MHD_USE_ERROR_LOG | (h->cert ? MHD_USE_TLS : 0);
	const struct MHD_OptionItem tls[] = {{MHD_OPTION_HTTPS_MEM_CERT, 0, h->cert},
					     {MHD_OPTION_HTTPS_MEM_KEY, 0, h->key},
					     {MHD_OPTION_END, 0, NULL}};
	const struct MHD_OptionItem none[] = {{MHD_OPTION_END, 0, NULL}};
	struct MHD_Daemon *daemon = MHD_start_daemon(
		flags, 0, NULL, NULL, on_request, h, MHD_OPTION_EXTERNAL_LOGGER, on_complaint, h,
		MHD_OPTION_LISTEN_SOCKET, h->listener, MHD_OPTION_CONNECTION_LIMIT,
		(unsigned)o->max_connections + RESERVE, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
		2 * o->max_header + POOL, MHD_OPTION_CONNECTION_TIMEOUT,
		(unsigned)(o->idle_timeout_s + 0.999), MHD_OPTION_STRICT_FOR_CLIENT, 1,
		MHD_OPTION_URI_LOG_CALLBACK, on_line, h, MHD_OPTION_NOTIFY_COMPLETED, on_completed,
		h, MHD_OPTION_NOTIFY_CONNECTION, on_connection, h, MHD_OPTION_ARRAY,
		h->cert ? tls : none, MHD_OPTION_END);
	if (!daemon) {
		h->complaint[strcspn(h->complaint, "\n")] = 0;
		return pal__fail(err, h->cert ? PAL_EFORMAT : PAL_EIO,
				 "the server cannot start: %s%s", h->complaint,
				 h->cert ? " (are certificate and key PEM files that belong "
					   "together?)"
					 : "");
	}
	h->daemon = daemon;
	atomic_store(&h->started, true);
	return PAL_OK;
}

static void release(pal__http *h)
{
	pal__http_options *o = &h->options;
	const char *const texts[] = {o->host, o->key_file, o->tls_cert, o->tls_key, o->cors_origin};
	if (h->listener >= 0)
		close(h->listener);
	pal__connections_free(h->connections);
	pal__traffic_free(h->traffic);
	pal__rate_free(h->rate);
	pal__keys_close(h->keys);
	pal__free(h->cert);
	pal__free(h->key);
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
		pal__free((void *)(uintptr_t)texts[i]);
	pthread_mutex_destroy(&h->lock);
	pthread_cond_destroy(&h->changed);
	pal__free(h);
}

pal_status pal__http_start(const pal__http_options *options, pal__http **out, pal_error *err)
{
	pal_status s = check_options(options, err);
	if (s)
		return s;
	pal__http *h = pal__calloc(1, sizeof *h);
	if (!h)
		return pal__fail_memory(err, "the server", sizeof *h);
	pthread_condattr_t monotonic;
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&h->changed, &monotonic);
	pthread_condattr_destroy(&monotonic);
	pthread_mutex_init(&h->lock, NULL);
	h->listener = -1;
	if (getrandom(&h->salt, sizeof h->salt, 0) < 0)
		h->salt = 0; /* only distinct ids are promised */
	s = copy_options(options, &h->options, err);
	if (!s)
		s = open_parts(h, err);
	if (!s)
		s = start_daemon(h, err);
	if (s)
		release(h);
	else
		*out = h;
	return s;
}

/* --- a running server ------------------------------------------------------------------ */

int pal__http_port(const pal__http *h)
{
	return h->port;
}

pal_status pal__http_reload(pal__http *h, pal_error *err)
{
	return h->keys ? pal__keys_reload(h->keys, err) : PAL_OK;
}

bool pal__http_key(const pal__http *h, const char *key, uint64_t *owner)
{
	*owner = 0;
	return !h->keys || (key && pal__keys_has(h->keys, key, owner));
}

pal_status pal__http_metrics(pal__http *h, char **text, size_t *n, size_t *cap, pal_error *err)
{
	return pal__traffic_metrics(h->traffic, pal__connections_count(h->connections), text, n,
				    cap, err);
}

void pal__http_stop_listening(pal__http *h)
{
	if (atomic_exchange(&h->draining, true))
		return;
	MHD_quiesce_daemon(h->daemon);
	/* Its thread may still use the number, which is closed at the end. */
	shutdown(h->listener, SHUT_RDWR);
}

/* Until no handler runs, and at most GOODBYE_S until all replies have been sent. */
static void wait_for_replies(pal__http *h)
{
	pthread_mutex_lock(&h->lock);
	h->closing = true;
	pthread_mutex_unlock(&h->lock);
	pal__connections_leave(h->connections);
	pthread_mutex_lock(&h->lock);
	while (h->running)
		pthread_cond_wait(&h->changed, &h->lock);
	double until = pal__now() + GOODBYE_S;
	const struct timespec t = {.tv_sec = (time_t)until,
				   .tv_nsec = (long)((until - (double)(time_t)until) * 1e9)};
	while (h->replies && !pthread_cond_timedwait(&h->changed, &h->lock, &t))
		;
	pthread_mutex_unlock(&h->lock);
}

void pal__http_close(pal__http *h)
{
	if (!h)
		return;
	pal__http_stop_listening(h);
	wait_for_replies(h);
	MHD_stop_daemon(h->daemon);
	release(h);
}
