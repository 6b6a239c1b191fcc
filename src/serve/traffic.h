/* What requests there were: counts by route and status, and an entry of the log for each. */
#ifndef PAL_SERVE_TRAFFIC_H
#define PAL_SERVE_TRAFFIC_H

#include "serve/reply.h"

#define PAL__MAX_TRAFFIC 1024 /* pairs of route and status that are counted */

typedef struct pal__traffic pal__traffic;

pal_status pal__traffic_new(pal__traffic **out, pal_error *err);
void pal__traffic_free(pal__traffic *t); /* NULL is fine */

/* seconds: that it took. */
void pal__traffic_count(pal__traffic *t, const pal__reply *r, double seconds);

/* As pal__http_metrics. */
pal_status pal__traffic_metrics(pal__traffic *t, int connections, char **text, size_t *n,
				size_t *cap, pal_error *err);

/* A new reference; NULL: memory is out. */
json_t *pal__traffic_entry(const pal__reply *r, double seconds);

/* Appends to *text, growing it: for whoever writes metrics. */
__attribute__((format(printf, 5, 6))) pal_status
pal__append(char **text, size_t *n, size_t *cap, pal_error *err, const char *format, ...);

#define PAL__LOG_TIME 40 /* bytes of a time in the log, with its NUL */

/* Now: 2024-05-06T07:08:09.123Z. */
void pal__log_time(char text[PAL__LOG_TIME]);

#endif
