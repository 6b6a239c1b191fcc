/* gRPC: calls to runtime.h, and what they send back, over the gRPC core's completion queue.
 *
 * One thread takes all events; each call that has been let in, and whose message is there, runs on
 * a thread of its own, which may block.
 *
 * Invariants:
 *  - Nothing that a client sends, or does not send, holds a thread or memory beyond the limits
 *    below.
 *  - A client that cancels, goes away, or whose deadline passes, sets its call's `cancel`.
 *  - Contents of messages are in no log.
 */
#ifndef PAL_SERVE_GRPC_H
#define PAL_SERVE_GRPC_H

#include <jansson.h>

#include "session/service.h"

#define PAL__RPC_CALLS 256            /* that run at once; more: RESOURCE_EXHAUSTED */
#define PAL__RPC_OPEN 1024            /* calls, with those whose message has not come yet */
#define PAL__RPC_METADATA 16384       /* bytes of a call's headers */
#define PAL__RPC_BUFFERS (256u << 20) /* bytes of memory for connections; without: they end */
#define PAL__RPC_ARRIVE_S 30          /* for a message to come */
#define PAL__RPC_SEND_S 120           /* for a client to take a message; then its call ends */
#define PAL__RPC_IDLE_S 600           /* of a connection without a call; then it ends */
#define PAL__RPC_ALIVE_S 60           /* a client that is silent is asked whether it is there */
#define PAL__RPC_STOP_S 5             /* that calls have, once they are cancelled, to say so */

typedef struct pal__grpc pal__grpc;

/* Zeros are the defaults. Strings are copied. */
typedef struct {
	const char *host; /* NULL: 127.0.0.1. Others than loopback need keys or `anyone` */
	int port;         /* 0: any */
	/* Whether key is one that may call, and whose (pal__http_key's shape); "": none was given.
	 * From any thread. NULL: keys are not asked for, and the owner is 0. */
	bool (*key)(const void *keys, const char *key, uint64_t *owner);
	const void *keys;
	bool anyone;                    /* without keys, off loopback */
	const char *tls_cert, *tls_key; /* files, PEM; both or none */
	/* A call has ended: for the log. From any thread, several at once; entry:
	 * {"time","rpc","code","ms","owner"}. */
	void (*log)(void *user, const json_t *entry);
	void *user;
} pal__grpc_options;

/* The service outlives it. Errors: PAL_EINVAL (options), PAL_EIO (files, the address is taken),
 * PAL_ENOMEM. */
pal_status pal__grpc_start(pal__service *service, const pal__grpc_options *options, pal__grpc **out,
			   pal_error *err);
int pal__grpc_port(const pal__grpc *g);

/* No new calls; waits at most wait_s for those that run, then cancels them. NULL is fine. */
void pal__grpc_stop(pal__grpc *g, double wait_s);

#endif
