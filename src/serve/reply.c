#include "serve/reply.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "base/mem.h"

#define BLOCK 16384 /* bytes of a stream that are asked for at once */

/* --- life ----------------------------------------------------------------------- */

pal__reply *pal__reply_new(const char *target)
{
	pal__reply *r = pal__calloc(1, sizeof *r);
	if (!r)
		return NULL;
	r->target = pal__strndup(target, strlen(target));
	r->path = pal__strndup(target, strcspn(target, "?"));
	if (!r->target || !r->path) {
		pal__free(r->target);
		pal__free(r->path);
		pal__free(r);
		return NULL;
	}
	r->request.path = r->path;
	r->request.body = "";
	r->request.id = r->id;
	r->request.source = r;
	r->refs = 1;
	r->start = pal__now();
	pthread_condattr_t monotonic;
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&r->changed, &monotonic);
	pthread_condattr_destroy(&monotonic);
	pthread_mutex_init(&r->lock, NULL);
	return r;
}

void pal__reply_unref(pal__reply *r)
{
	pthread_mutex_lock(&r->lock);
	bool last = !--r->refs;
	pthread_mutex_unlock(&r->lock);
	if (!last)
		return;
	if (r->on_free)
		r->on_free(r);
	pthread_mutex_destroy(&r->lock);
	pthread_cond_destroy(&r->changed);
	pal__uri_free(&r->uri);
	pal__free(r->method);
	pal__free(r->target);
	pal__free(r->path);
	pal__free(r->headers.text);
	pal__free(r->body);
	pal__free(r->own.text);
	pal__free(r->buffer);
	pal__free(r);
}

bool pal__pairs_add(pal__pairs *p, const char *name, const char *value)
{
	size_t a = strlen(name) + 1, b = strlen(value) + 1;
	if (!pal__grow((void **)&p->text, &p->cap, p->n + a + b, 1))
		return false;
	memcpy(p->text + p->n, name, a);
	memcpy(p->text + p->n + a, value, b);
	p->n += a + b;
	return true;
}

const char *pal__pairs_get(const pal__pairs *p, const char *name)
{
	for (size_t i = 0; i < p->n;) {
		const char *found = p->text + i, *value = found + strlen(found) + 1;
		if (!strcasecmp(found, name))
			return value;
		i = (size_t)(value - p->text) + strlen(value) + 1;
	}
	return NULL;
}

/* --- for handlers ----------------------------------------------------------------- */

const char *pal__http_header(const pal__http_request *request, const char *name)
{
	const pal__reply *r = request->source;
	return pal__pairs_get(&r->headers, name);
}

const char *pal__http_query(const pal__http_request *request, const char *name)
{
	const pal__uri *u = &((const pal__reply *)request->source)->uri;
	for (int i = 0; i < u->n_args; i++)
		if (!strcmp(u->names[i], name))
			return u->values[i];
	return NULL;
}

atomic_bool *pal__reply_gone(pal__reply *r)
{
	return &r->gone;
}

bool pal__reply_begun(const pal__reply *r)
{
	return r->begun; /* written by the handler's own thread */
}

void pal__reply_header(pal__reply *r, const char *name, const char *value)
{
	/* Without memory for a header there is none for the rest, which says so. */
	if (!r->begun)
		pal__pairs_add(&r->own, name, value);
}

/* With the lock. */
static void resume(pal__reply *r)
{
	if (r->suspended && r->connection)
		MHD_resume_connection(r->connection);
	r->suspended = false;
}

static bool is_anthropic(const pal__reply *r)
{
	static const char path[] = "/v1/messages";
	size_t n = sizeof path - 1;
	return !strncmp(r->path, path, n) && (!r->path[n] || r->path[n] == '/');
}

static void no_memory(pal__reply *r)
{
	r->status = 503;
	r->begun = true;
	r->fixed = is_anthropic(r) ? "{\"type\":\"error\",\"error\":{\"type\":"
				     "\"overloaded_error\",\"message\":\"out of memory\"}}"
				   : "{\"error\":{\"message\":\"out of memory\",\"type\":"
				     "\"server_error\",\"code\":\"out_of_memory\","
				     "\"param\":null}}";
	r->n = strlen(r->fixed);
}

/* Takes buffer. NULL: memory was out. */
static void whole(pal__reply *r, int status, const char *content_type, char *buffer, size_t n)
{
	pthread_mutex_lock(&r->lock);
	if (r->begun) {
		pal__free(buffer);
	} else if (!buffer || (content_type && !pal__pairs_get(&r->own, "Content-Type") &&
			       !pal__pairs_add(&r->own, "Content-Type", content_type))) {
		pal__free(buffer);
		no_memory(r);
	} else {
		r->buffer = buffer;
		r->n = n;
		r->status = status;
		r->begun = true;
	}
	pthread_mutex_unlock(&r->lock);
}

void pal__reply_bytes(pal__reply *r, int status, const char *content_type, const void *bytes,
		      size_t n)
{
	char *copy = pal__alloc(n + 1);
	if (copy && n)
		memcpy(copy, bytes, n);
	whole(r, status, content_type, copy, n);
}

void pal__reply_json(pal__reply *r, int status, json_t *body)
{
	size_t n = json_dumpb(body, NULL, 0, JSON_COMPACT | JSON_ENCODE_ANY);
	char *text = n ? pal__alloc(n) : NULL;
	if (text)
		json_dumpb(body, text, n, JSON_COMPACT | JSON_ENCODE_ANY);
	json_decref(body);
	whole(r, status, "application/json", text, n);
}

bool pal__reply_begin(pal__reply *r, int status, const char *content_type)
{
	char *buffer = pal__alloc(PAL__REPLY_BUFFER);
	bool typed = !content_type || pal__pairs_add(&r->own, "Content-Type", content_type);
	pthread_mutex_lock(&r->lock);
	if (r->begun || !buffer || !typed) {
		pthread_mutex_unlock(&r->lock);
		pal__free(buffer);
		return false;
	}
	r->buffer = buffer;
	r->cap = PAL__REPLY_BUFFER;
	r->status = status;
	r->begun = r->stream = true;
	resume(r);
	pthread_mutex_unlock(&r->lock);
	return !atomic_load(&r->gone);
}

/* With the lock: until there is room, or nobody takes anything for too long. */
static void wait_for_room(pal__reply *r)
{
	double until = pal__now() + r->patience_s;
	const struct timespec t = {.tv_sec = (time_t)until,
				   .tv_nsec = (long)((until - (double)(time_t)until) * 1e9)};
	while (r->n == r->cap && !atomic_load(&r->gone))
		if (pthread_cond_timedwait(&r->changed, &r->lock, &t))
			atomic_store(&r->gone, true);
}

static size_t put(pal__reply *r, const char *bytes, size_t n)
{
	size_t to = (r->at + r->n) % r->cap, room = r->cap - r->n;
	n = n < room ? n : room;
	size_t first = n < r->cap - to ? n : r->cap - to;
	memcpy(r->buffer + to, bytes, first);
	memcpy(r->buffer, bytes + first, n - first);
	r->n += n;
	return n;
}

bool pal__reply_write(pal__reply *r, const void *bytes, size_t n)
{
	const char *from = bytes;
	pthread_mutex_lock(&r->lock);
	while (r->stream && n && !atomic_load(&r->gone)) {
		size_t done = put(r, from, n);
		from += done;
		n -= done;
		resume(r);
		if (n)
			wait_for_room(r);
	}
	pthread_mutex_unlock(&r->lock);
	return !atomic_load(&r->gone);
}

void pal__reply_end(pal__reply *r)
{
	if (!r->begun && atomic_load(&r->gone))
		pal__reply_error(r, 503, NULL, "cancelled", NULL, "the request was cancelled");
	if (!r->begun)
		pal__reply_error(r, 500, NULL, NULL, NULL, "there was no reply");
	pthread_mutex_lock(&r->lock);
	r->ended = true;
	r->cut = atomic_load(&r->gone);
	resume(r);
	pthread_mutex_unlock(&r->lock);
}

void pal__reply_leave(pal__reply *r)
{
	pthread_mutex_lock(&r->lock);
	atomic_store(&r->gone, true);
	pthread_cond_broadcast(&r->changed);
	pthread_mutex_unlock(&r->lock);
}

/* --- for libmicrohttpd's thread ---------------------------------------------------- */

static ssize_t next_piece(void *user, uint64_t position, char *to, size_t n)
{
	pal__reply *r = user;
	(void)position;
	pthread_mutex_lock(&r->lock);
	size_t first = r->cap - r->at;
	n = n < r->n ? n : r->n;
	first = n < first ? n : first;
	memcpy(to, r->buffer + r->at, first);
	memcpy(to + first, r->buffer, n - first);
	r->at = (r->at + n) % r->cap;
	r->n -= n;
	r->sent += n;
	ssize_t result = (ssize_t)n;
	if (n) {
		pthread_cond_broadcast(&r->changed);
	} else if (r->ended) {
		result = r->cut ? MHD_CONTENT_READER_END_WITH_ERROR
				: MHD_CONTENT_READER_END_OF_STREAM;
	} else {
		r->suspended = true;
		MHD_suspend_connection(r->connection);
	}
	pthread_mutex_unlock(&r->lock);
	return result;
}

static bool add_headers(const pal__reply *r, struct MHD_Response *response)
{
	static const char *const defaults[][2] = {{"X-Content-Type-Options", "nosniff"},
						  {"Cache-Control", "no-store"}};
	bool ok = MHD_add_response_header(response, "X-Request-Id", r->id) == MHD_YES;
	for (size_t i = 0; i < sizeof defaults / sizeof *defaults; i++)
		if (!pal__pairs_get(&r->own, defaults[i][0]))
			ok &= MHD_add_response_header(response, defaults[i][0], defaults[i][1]) ==
			      MHD_YES;
	for (size_t i = 0; i < r->own.n;) {
		const char *name = r->own.text + i, *value = name + strlen(name) + 1;
		ok &= MHD_add_response_header(response, name, value) == MHD_YES;
		i = (size_t)(value - r->own.text) + strlen(value) + 1;
	}
	if (r->fixed && !pal__pairs_get(&r->own, "Content-Type"))
		ok &= MHD_add_response_header(response, "Content-Type", "application/json") ==
		      MHD_YES;
	if (r->close)
		ok &= MHD_add_response_header(response, "Connection", "close") == MHD_YES;
	return ok;
}

static struct MHD_Response *response_of(pal__reply *r)
{
	if (r->stream)
		return MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK, next_piece, r,
							 NULL);
	const char *fixed = r->fixed ? r->fixed : "";
	struct MHD_Response *response =
		r->buffer ? MHD_create_response_from_buffer_with_free_callback(r->n, r->buffer,
									       pal__free)
			  : MHD_create_response_from_buffer(r->n, (void *)(uintptr_t)fixed,
							    MHD_RESPMEM_PERSISTENT);
	if (response)
		r->buffer = NULL;
	r->sent = r->n;
	return response;
}

enum MHD_Result pal__reply_answer(pal__reply *r)
{
	struct MHD_Response *response = NULL;
	pthread_mutex_lock(&r->lock);
	struct MHD_Connection *connection = r->connection;
	bool ready = r->ended || r->stream;
	if (!ready) {
		r->suspended = true;
		MHD_suspend_connection(connection);
	} else {
		response = response_of(r);
	}
	int status = r->status;
	pthread_mutex_unlock(&r->lock);
	if (!ready)
		return MHD_YES;
	enum MHD_Result result = MHD_NO;
	if (response && add_headers(r, response))
		result = MHD_queue_response(connection, (unsigned)status, response);
	if (response)
		MHD_destroy_response(response);
	return result;
}

void pal__reply_completed(pal__reply *r)
{
	pthread_mutex_lock(&r->lock);
	r->connection = NULL;
	atomic_store(&r->gone, true);
	pthread_cond_broadcast(&r->changed);
	pthread_mutex_unlock(&r->lock);
}

/* --- errors ---------------------------------------------------------------------- */

static const char *type_of(int status, bool anthropic)
{
	static const struct {
		int status;
		const char *openai, *anthropic;
	} types[] = {
		{401, "authentication_error", "authentication_error"},
		{403, "permission_error", "permission_error"},
		{404, "invalid_request_error", "not_found_error"},
		{413, "invalid_request_error", "request_too_large"},
		{429, "rate_limit_error", "rate_limit_error"},
		{503, "server_error", "overloaded_error"},
	};
	for (size_t i = 0; i < sizeof types / sizeof *types; i++)
		if (types[i].status == status)
			return anthropic ? types[i].anthropic : types[i].openai;
	if (status < 500)
		return "invalid_request_error";
	return anthropic ? "api_error" : "server_error";
}

static json_t *error_json(const pal__reply *r, int status, const char *type, const char *code,
			  const char *param, const char *message)
{
	bool anthropic = r && is_anthropic(r);
	type = type ? type : type_of(status, anthropic);
	if (anthropic)
		return json_pack("{s:s, s:{s:s, s:s}}", "type", "error", "error", "type", type,
				 "message", message);
	return json_pack("{s:{s:s, s:s, s:s?, s:s?}}", "error", "message", message, "type", type,
			 "code", code, "param", param);
}

void pal__reply_error(pal__reply *r, int status, const char *type, const char *code,
		      const char *param, const char *format, ...)
{
	char message[1024];
	va_list args;
	va_start(args, format);
	vsnprintf(message, sizeof message, format, args);
	va_end(args);
	json_t *body = error_json(r, status, type, code, param, message);
	if (body)
		pal__reply_json(r, status, body);
	else /* no memory, or text that is not UTF-8 */
		pal__reply_bytes(r, status, NULL, NULL, 0);
}

void pal__reply_refused(pal__reply *r, int status)
{
	pthread_mutex_lock(&r->lock);
	r->status = status;
	pthread_mutex_unlock(&r->lock);
}

size_t pal__error_raw(const pal__reply *r, int status, const char *message, char *to, size_t cap)
{
	json_t *body = error_json(r, status, NULL, NULL, NULL, message);
	char text[512];
	size_t n = body ? json_dumpb(body, text, sizeof text, JSON_COMPACT) : 0;
	json_decref(body);
	n = n < sizeof text ? n : 0;
	int length =
		snprintf(to, cap,
			 "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\n"
			 "Content-Length: %zu\r\nConnection: close\r\n%s%s%s\r\n%.*s",
			 status, MHD_get_reason_phrase_for((unsigned)status), n,
			 r ? "X-Request-Id: " : "", r ? r->id : "", r ? "\r\n" : "", (int)n, text);
	return length > 0 && (size_t)length < cap ? (size_t)length : 0;
}
