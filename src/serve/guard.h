/* Who is let in: rates, and where a request may come from.
 *
 * Invariants:
 *  - Memory is fixed. With more callers than there is room for, those unseen for longest are
 *    forgotten, and begin anew.
 */
#ifndef PAL_SERVE_GUARD_H
#define PAL_SERVE_GUARD_H

#include <stdbool.h>
#include <sys/socket.h>

#include "base/status.h"

#define PAL__MAX_CALLERS 4096 /* whose rates are known at a time */

typedef struct pal__rate pal__rate;

/* per_s: requests a second of one caller, on average; as many may come at once, one at least. */
pal_status pal__rate_new(double per_s, pal__rate **out, pal_error *err);
void pal__rate_free(pal__rate *r); /* NULL is fine */

/* Whether a request of this caller may go on at time now (base/clock.h), or after how many
 * seconds. One thread at a time. */
bool pal__rate_take(pal__rate *r, uint64_t caller, double now, double *wait_s);

/* Who an address is: the same for all of an IPv6 network of 64 bits, which is what one has. */
uint64_t pal__address_hash(const struct sockaddr *address);
bool pal__address_loopback(const struct sockaddr *address);

/* Whether a Host header ("localhost:80") names this machine, or is `own`: what a page of elsewhere
 * whose name leads here (DNS rebinding) does not say. NULL: no header, which no browser omits. */
bool pal__host_local(const char *host, const char *own);

/* Whether an Origin header ("http://localhost:80") is that of a page from this very Host. */
bool pal__origin_same(const char *origin, const char *host);

#endif
