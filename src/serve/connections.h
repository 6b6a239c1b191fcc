/* Open connections: how many, by when their next request must be here, and who has hung up.
 *
 * libmicrohttpd's thread reads and writes; a thread of this module watches clocks, and the
 * sockets whose requests are being answered, of which nobody reads:
 *
 *   open -> receiving --claim--> answering --done--> idle -> receiving ...
 *              | too late           | the client hangs up     | too late, or it hangs up
 *           408, closed          its reply is gone           closed
 *
 * Invariants:
 *  - A socket's number is used here under the lock and before pal__connection_close alone, which
 *    libmicrohttpd calls before it closes the socket: never that of another connection.
 *  - A client that closes its sending side has hung up: it cannot be told from one that has gone.
 *  - A connection that is refused while its request's body is still on its way is read to the end,
 *    for some seconds: closed at once, the system would take back the reply.
 */
#ifndef PAL_SERVE_CONNECTIONS_H
#define PAL_SERVE_CONNECTIONS_H

#include <stdbool.h>
#include <sys/socket.h>

#include "serve/reply.h"

#define PAL__LINGER_S 5

typedef struct pal__connections pal__connections;

typedef struct pal__connection {
	pal__connections *all;
	int fd;
	bool tls;
	int refused;      /* HTTP status that all requests get, or 0 */
	uint64_t address; /* hash */
	bool unread;      /* set before it is closed: a body is on its way */

	/* Under the lock. */
	uint64_t number;
	double deadline; /* of what is awaited; 0: nothing */
	bool idle, late, answering;
	bool hung;         /* up */
	pal__reply *reply; /* to its request, borrowed, or NULL */
	struct pal__connection *previous, *next;
} pal__connection;

/* max_each: of one address, 0: as many. Errors: PAL_EIO, PAL_ENOMEM. */
pal_status pal__connections_new(int max, int max_each, double request_s, double idle_s,
				pal__connections **out, pal_error *err);
void pal__connections_free(pal__connections *all); /* closed, all of them; NULL is fine */
int pal__connections_count(pal__connections *all);
void pal__connections_leave(pal__connections *all); /* every reply is gone */

/* NULL: memory is out. */
pal__connection *pal__connection_open(pal__connections *all, int fd, bool tls,
				      const struct sockaddr *address);
void pal__connection_close(pal__connection *k); /* NULL is fine */

void pal__connection_receive(pal__connection *k, pal__reply *reply);
bool pal__connection_claim(pal__connection *k);  /* false: it is too late */
void pal__connection_answer(pal__connection *k); /* its reply is told when it is gone */
void pal__connection_done(pal__connection *k);

/* Writes an error as far as that is possible where libmicrohttpd would write nothing: before a
 * request is complete, and without TLS. The connection must be closed then. */
void pal__connection_refuse(pal__connection *k, int status, const char *message);

#endif
