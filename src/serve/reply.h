/* A request with its reply: shared by libmicrohttpd's thread, which reads and writes, and the
 * handler's, which makes the reply.
 *
 *   received -> [suspended] -> begun (a stream: pieces come) -> ended -> completed
 *                   `----------------- whole ----------------^
 *
 * Invariants:
 *  - What the request holds is copied: a handler may look at it when its connection is no more.
 *  - A connection is suspended when there is nothing to send, by the thread that sends; and resumed
 *    by whoever makes something. Both happen under the lock, and only while it exists.
 *  - A stream is ahead of its client by PAL__REPLY_BUFFER bytes at most.
 */
#ifndef PAL_SERVE_REPLY_H
#define PAL_SERVE_REPLY_H

#include <microhttpd.h>
#include <pthread.h>

#include "serve/uri.h"

#define PAL__REPLY_BUFFER 32768

/* "name\0value\0name\0value\0" */
typedef struct {
	char *text;
	size_t n, cap;
} pal__pairs;

struct pal__reply {
	/* The request: written before the handler starts. */
	pal__http_request request;
	const pal__route *route; /* or NULL: none is known */
	void *server;
	void (*on_free)(pal__reply *r); /* of the server */
	char id[24];
	char *method, *target, *path; /* target: as it came; path: the same without arguments */
	pal__uri uri;
	pal__pairs headers;
	char *body;
	size_t n_body, body_cap;
	double start, patience_s;
	enum { PAL__RECEIVING, PAL__REFUSED, PAL__RUNNING } phase; /* of libmicrohttpd's thread */
	bool close;                                                /* the connection, after it */

	atomic_bool gone;
	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t changed;
	int refs;
	struct MHD_Connection *connection; /* NULL: completed, or refused */
	bool suspended, begun, stream, ended, cut;
	int status;
	pal__pairs own;    /* headers */
	char *buffer;      /* [cap]; of a stream a ring: n bytes from `at` on */
	const char *fixed; /* text of a reply for which there was no memory, or NULL */
	size_t at, n, cap;
	uint64_t sent; /* bytes of the body */
};

/* target: as it came. NULL: memory is out. With one reference. */
pal__reply *pal__reply_new(const char *target);
void pal__reply_unref(pal__reply *r);

bool pal__pairs_add(pal__pairs *p, const char *name, const char *value);
const char *pal__pairs_get(const pal__pairs *p, const char *name); /* of any case, or NULL */

/* For libmicrohttpd's thread: the reply, or a wait for it. */
enum MHD_Result pal__reply_answer(pal__reply *r);
void pal__reply_completed(pal__reply *r); /* nothing more is sent */

void pal__reply_end(pal__reply *r);   /* the handler has returned */
void pal__reply_leave(pal__reply *r); /* the client has gone */

/* An error that libmicrohttpd does not send was written: for the log. */
void pal__reply_refused(pal__reply *r, int status);

/* A whole reply with an error, headers and all, into to[cap]; r: may be NULL. */
size_t pal__error_raw(const pal__reply *r, int status, const char *message, char *to, size_t cap);

#endif
