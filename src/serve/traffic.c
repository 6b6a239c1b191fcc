#include "serve/traffic.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"

typedef struct {
	const pal__route *route; /* NULL: of no route */
	int status;
	uint64_t requests, bytes;
	double seconds;
} row;

struct pal__traffic {
	pthread_mutex_t lock;
	size_t n;
	row rows[PAL__MAX_TRAFFIC]; /* the last one takes whatever has no row of its own */
};

pal_status pal__traffic_new(pal__traffic **out, pal_error *err)
{
	pal__traffic *t = pal__calloc(1, sizeof *t);
	if (!t)
		return pal__fail_memory(err, "counts of requests", sizeof *t);
	pthread_mutex_init(&t->lock, NULL);
	*out = t;
	return PAL_OK;
}

void pal__traffic_free(pal__traffic *t)
{
	if (t)
		pthread_mutex_destroy(&t->lock);
	pal__free(t);
}

void pal__traffic_count(pal__traffic *t, const pal__reply *r, double seconds)
{
	pthread_mutex_lock(&t->lock);
	size_t i = 0;
	while (i < t->n && (t->rows[i].route != r->route || t->rows[i].status != r->status))
		i++;
	if (i == t->n && t->n < PAL__MAX_TRAFFIC)
		t->rows[t->n++] = (row){.route = r->route, .status = r->status};
	row *w = &t->rows[i < PAL__MAX_TRAFFIC ? i : PAL__MAX_TRAFFIC - 1];
	w->requests++;
	w->bytes += r->sent;
	w->seconds += seconds;
	pthread_mutex_unlock(&t->lock);
}

static const char *route_of(const pal__route *route)
{
	return route ? route->path : "";
}

static const char *method_of(const pal__route *route)
{
	return route ? route->method : "";
}

pal_status pal__append(char **text, size_t *n, size_t *cap, pal_error *err, const char *format, ...)
{
	char line[1024];
	va_list args;
	va_start(args, format);
	int length = vsnprintf(line, sizeof line, format, args);
	va_end(args);
	size_t add = length < 0                     ? 0
		     : (size_t)length < sizeof line ? (size_t)length
						    : sizeof line - 1;
	if (!pal__grow((void **)text, cap, *n + add, 1))
		return pal__fail_memory(err, "metrics", *n + add);
	memcpy(*text + *n, line, add);
	*n += add;
	return PAL_OK;
}

pal_status pal__traffic_metrics(pal__traffic *t, int connections, char **text, size_t *n,
				size_t *cap, pal_error *err)
{
	pal_status s = pal__append(text, n, cap, err,
				   "# HELP palimpsest_http_connections Open connections.\n"
				   "# TYPE palimpsest_http_connections gauge\n"
				   "palimpsest_http_connections %d\n"
				   "# HELP palimpsest_http_sent_bytes_total Bytes of replies.\n"
				   "# TYPE palimpsest_http_sent_bytes_total counter\n",
				   connections);
	pthread_mutex_lock(&t->lock);
	uint64_t bytes = 0;
	for (size_t i = 0; i < t->n; i++)
		bytes += t->rows[i].bytes;
	if (!s)
		s = pal__append(text, n, cap, err,
				"palimpsest_http_sent_bytes_total %llu\n"
				"# HELP palimpsest_http_request_seconds Time from a request's "
				"first line to the end of its reply.\n"
				"# TYPE palimpsest_http_request_seconds summary\n",
				(unsigned long long)bytes);
	for (size_t i = 0; i < t->n && !s; i++) {
		const row *w = &t->rows[i];
		char labels[256];
		snprintf(labels, sizeof labels, "{method=\"%s\",route=\"%s\",status=\"%d\"}",
			 method_of(w->route), route_of(w->route), w->status);
		s = pal__append(text, n, cap, err,
				"palimpsest_http_request_seconds_sum%s %.6f\n"
				"palimpsest_http_request_seconds_count%s %llu\n",
				labels, w->seconds, labels, (unsigned long long)w->requests);
	}
	pthread_mutex_unlock(&t->lock);
	return s;
}

void pal__log_time(char text[PAL__LOG_TIME])
{
	struct timespec now;
	struct tm utc;
	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &utc);
	size_t n = strftime(text, PAL__LOG_TIME, "%Y-%m-%dT%H:%M:%S", &utc);
	snprintf(text + n, PAL__LOG_TIME - n, ".%03ldZ", now.tv_nsec / 1000000);
}

json_t *pal__traffic_entry(const pal__reply *r, double seconds)
{
	char when[PAL__LOG_TIME], owner[20];
	pal__log_time(when);
	snprintf(owner, sizeof owner, "%016llx", (unsigned long long)r->request.owner);
	return json_pack("{s:s, s:s, s:s, s:s, s:i, s:f, s:I, s:s}", "time", when, "id", r->id,
			 "method", r->route ? r->method : "", "route", route_of(r->route), "status",
			 r->status, "ms", seconds * 1e3, "bytes", (json_int_t)r->sent, "owner",
			 owner);
}
