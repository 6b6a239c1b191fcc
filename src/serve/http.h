/* HTTP: connections to requests, and replies back, over libmicrohttpd.
 *
 * A handler runs on a thread of its own and may block; it writes its reply whole, or piece by
 * piece. Limits, keys, TLS, metrics of requests and the log of them are this file's, so that
 * handlers see only requests that were let in.
 *
 * Invariants:
 *  - Nothing that a client sends, or does not send, holds a thread or memory beyond the limits.
 *  - Every error is JSON with a type, a message and, where it says so, a Retry-After; in the shape
 *    of Anthropic's API below /v1/messages, and else of OpenAI's. What is no HTTP at all, or has
 *    headers twice as long as max_header, is answered by libmicrohttpd, with a plain page.
 *  - Contents of requests and replies are in no log.
 *  - A client that closes its side of the connection has gone, even if it would still read.
 *  - Without keys, only programs of this machine are let in: the Host must be local, and a page
 *    of a browser must be the server's own, or of cors_origin.
 */
#ifndef PAL_SERVE_HTTP_H
#define PAL_SERVE_HTTP_H

#include <jansson.h>
#include <stdatomic.h>

#include "session/service.h"

#define PAL__MAX_PARAMS 4

typedef struct pal__reply pal__reply;

/* Valid as long as the handler runs. */
typedef struct {
	const char *method, *path;
	const char *param[PAL__MAX_PARAMS]; /* of the route's {…}, decoded, in their order */
	const char *body;                   /* [n_body], NUL behind it */
	size_t n_body;
	uint64_t owner;     /* of the key that was given; 0: keys are not asked for */
	const char *id;     /* of this request: for the log and for X-Request-Id */
	void *user;         /* of the route */
	const void *source; /* for pal__http_header and pal__http_query alone */
} pal__http_request;

/* A header's or a query argument's value, or NULL. */
const char *pal__http_header(const pal__http_request *r, const char *name);
const char *pal__http_query(const pal__http_request *r, const char *name);

typedef void (*pal__http_handler)(const pal__http_request *request, pal__reply *reply);

/* path: "/v1/sessions/{id}/fork". open: needs no key. A table ends with a method of NULL. */
typedef struct {
	const char *method, *path;
	pal__http_handler handler;
	void *user;
	bool open;
	size_t max_body; /* 0: the server's */
} pal__route;

/* --- replies ---------------------------------------------------------------- */

/* A header of the reply; before anything is sent. */
void pal__reply_header(pal__reply *r, const char *name, const char *value);

/* All of it at once. Takes body's reference. */
void pal__reply_json(pal__reply *r, int status, json_t *body);
void pal__reply_bytes(pal__reply *r, int status, const char *content_type, const void *bytes,
		      size_t n);

/* Piece by piece: the handler's return is its end. false: the client has gone. A writer that is
 * far ahead of its client waits. */
bool pal__reply_begin(pal__reply *r, int status, const char *content_type);
bool pal__reply_write(pal__reply *r, const void *bytes, size_t n);

/* An error, as the API of the request's path writes it, if nothing was begun. type, code and param
 * may be NULL: the type is then that of the status. */
__attribute__((format(printf, 6, 7))) void pal__reply_error(pal__reply *r, int status,
							    const char *type, const char *code,
							    const char *param, const char *format,
							    ...);

bool pal__reply_begun(const pal__reply *r);

/* True as soon as the client has gone, or the server must stop: pal__job's `cancel`. */
atomic_bool *pal__reply_gone(pal__reply *r);

/* --- the server --------------------------------------------------------------- */

typedef struct pal__http pal__http;

/* Zeros are the defaults. Strings are copied. */
typedef struct {
	const char *host;     /* NULL: 127.0.0.1. Others than loopback need keys or `anyone` */
	int port;             /* 0: any */
	const char *key_file; /* a key a line; read again by pal__http_reload */
	bool anyone;          /* without keys, off loopback */
	const char *tls_cert, *tls_key; /* files, PEM */
	const char *cors_origin;        /* NULL: none is allowed */
	size_t max_body;                /* bytes; 0: 32 MiB */
	size_t max_header;              /* bytes; 0: 32 KiB */
	int max_connections;            /* 0: 1024 */
	int max_connections_each;       /* from one address; 0: as many */
	double request_timeout_s;       /* for a whole request to arrive; 0: 30 */
	double idle_timeout_s;          /* of a connection; 0: 120 */
	double rate;                    /* requests a second of one key or address; 0: any */
	const pal__route *routes;       /* live as long */
	/* A request has been answered: for the log. From any thread, several at once; entry:
	 * {"time","id","method","route","status","ms","bytes","owner"}. */
	void (*log)(void *user, const json_t *entry);
	void *user;
} pal__http_options;

/* Errors: PAL_EINVAL (options), PAL_EIO (files, the address is taken). */
pal_status pal__http_start(const pal__http_options *options, pal__http **out, pal_error *err);
int pal__http_port(const pal__http *h);
pal_status pal__http_reload(pal__http *h, pal_error *err); /* keys; on failure the old ones stay */
void pal__http_stop_listening(pal__http *h);               /* what runs goes on */
void pal__http_close(pal__http *h); /* marks all replies as gone and waits; NULL is fine */

/* Whether key is one of the keys, in constant time; *owner: whose. True without keys: owner 0. */
bool pal__http_key(const pal__http *h, const char *key, uint64_t *owner);

/* Requests by route and status, and seconds that they took, in Prometheus's text format: appended
 * to *text (pal__grow'n). */
pal_status pal__http_metrics(pal__http *h, char **text, size_t *n, size_t *cap, pal_error *err);

#endif
