/* kakeya.v1.RuntimeService (runtime.proto): its calls on the service, whatever carries them.
 *
 * Invariants:
 *  - A request is bytes that anybody may have sent: what is no such message, or has values that
 *    are not allowed, ends with a status and changes nothing.
 *  - A token is sent after it joined the history. When a generation ends early, the history is
 *    what had been sent by then.
 *  - After each request that went into a session, two things are looked at: that no more positions
 *    are resident than the budget has (inv1), and that the history is as long as what was in it,
 *    appended and generated (inv2). What does not hold is counted for GetSessionInfo, and that
 *    request ends with FAILED_PRECONDITION.
 */
#ifndef PAL_SERVE_RUNTIME_H
#define PAL_SERVE_RUNTIME_H

#include <grpc/status.h>
#include <stdatomic.h>

#include "session/service.h"

#define PAL__RPC_MESSAGE (4 << 20) /* bytes of a request */
#define PAL__RPC_UNPACK (32 << 20) /* bytes of memory that a request may take when it is read */
#define PAL__RPC_BROKEN 64         /* sessions whose violations are remembered, the last ones */

typedef struct pal__runtime pal__runtime;

/* The service outlives it. Errors: PAL_ENOMEM. */
pal_status pal__runtime_open(pal__service *service, pal__runtime **out, pal_error *err);
void pal__runtime_close(pal__runtime *r); /* NULL is fine */

/* Whether there is such a call; path: "/kakeya.v1.RuntimeService/Generate". */
bool pal__runtime_has(const char *path);

/* A call. */
typedef struct {
	const char *path;
	const uint8_t *request; /* [n_request] */
	size_t n_request;
	uint64_t owner;
	atomic_bool *cancel; /* true: nobody waits for it any more */
	/* Sends one message of the reply, bytes[n], and waits until it is on its way. false: the
	 * client has gone. */
	bool (*send)(void *user, const uint8_t *bytes, size_t n);
	void *user;
} pal__rpc;

/* How it ended. */
typedef struct {
	grpc_status_code code;
	char message[640];
	char *report; /* the `palimpsest` object, ASCII, freed with pal__free; NULL: there is none
		       */
} pal__rpc_end;

/* Blocks until the call is done. Calls may come from any thread. */
void pal__runtime_run(pal__runtime *r, const pal__rpc *rpc, pal__rpc_end *end);

#endif
