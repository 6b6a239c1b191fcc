#include "serve/guard.h"

#include <netinet/in.h>
#include <string.h>
#include <strings.h>
#include <xxhash.h>

#include "base/mem.h"

#define WAYS 8 /* places where a caller can be */

typedef struct {
	uint64_t caller;
	double tokens, at; /* what was left at that time */
} bucket;

struct pal__rate {
	double per_s, most;
	bucket buckets[PAL__MAX_CALLERS];
};

pal_status pal__rate_new(double per_s, pal__rate **out, pal_error *err)
{
	pal__rate *r = pal__calloc(1, sizeof *r);
	if (!r)
		return pal__fail_memory(err, "rates", sizeof *r);
	r->per_s = per_s;
	r->most = per_s > 1 ? per_s : 1;
	*out = r;
	return PAL_OK;
}

void pal__rate_free(pal__rate *r)
{
	pal__free(r);
}

static bucket *find(pal__rate *r, uint64_t caller, double now)
{
	bucket *oldest = NULL;
	for (uint64_t i = 0; i < WAYS; i++) {
		bucket *b = &r->buckets[(XXH64(&caller, sizeof caller, 0) + i) % PAL__MAX_CALLERS];
		if (b->at > 0 && b->caller == caller)
			return b;
		if (!oldest || b->at < oldest->at)
			oldest = b;
	}
	*oldest = (bucket){.caller = caller, .tokens = r->most, .at = now};
	return oldest;
}

bool pal__rate_take(pal__rate *r, uint64_t caller, double now, double *wait_s)
{
	bucket *b = find(r, caller, now);
	double tokens = b->tokens + (now - b->at) * r->per_s;
	b->tokens = tokens < r->most ? tokens : r->most;
	b->at = now;
	if (b->tokens < 1) {
		*wait_s = (1 - b->tokens) / r->per_s;
		return false;
	}
	b->tokens -= 1;
	return true;
}

uint64_t pal__address_hash(const struct sockaddr *address)
{
	if (address->sa_family == AF_INET)
		return XXH3_64bits(&((const struct sockaddr_in *)address)->sin_addr, 4);
	const struct in6_addr *six = &((const struct sockaddr_in6 *)address)->sin6_addr;
	if (IN6_IS_ADDR_V4MAPPED(six))
		return XXH3_64bits(six->s6_addr + 12, 4);
	return XXH3_64bits(six, 8);
}

bool pal__address_loopback(const struct sockaddr *address)
{
	if (address->sa_family == AF_INET)
		return ((const uint8_t *)&((const struct sockaddr_in *)address)->sin_addr)[0] ==
		       127;
	const struct in6_addr *six = &((const struct sockaddr_in6 *)address)->sin6_addr;
	if (IN6_IS_ADDR_V4MAPPED(six))
		return six->s6_addr[12] == 127;
	return IN6_IS_ADDR_LOOPBACK(six);
}

/* The name in "name:port", without brackets. */
static const char *host_name(const char *host, size_t *n)
{
	if (*host == '[') {
		*n = strcspn(host + 1, "]");
		return host + 1;
	}
	*n = strcspn(host, ":");
	return host;
}

bool pal__host_local(const char *host, const char *own)
{
	const char *const names[] = {"localhost", "127.0.0.1", "::1", own};
	size_t n;
	if (!host)
		return true;
	const char *name = host_name(host, &n);
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (names[i] && strlen(names[i]) == n && !strncasecmp(name, names[i], n))
			return true;
	return false;
}

bool pal__origin_same(const char *origin, const char *host)
{
	const char *at = strstr(origin, "://");
	return at && host && !strcasecmp(at + 3, host);
}
