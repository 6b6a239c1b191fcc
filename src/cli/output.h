/* What pal writes: standard output whose failures are errors, and on standard error
 * progress bars and the figures at the end.
 *
 * Invariants:
 *  - Standard output carries results only; everything else goes to standard error.
 *  - A progress bar is drawn only on a terminal, only after a second of work, and is
 *    removed before anything else is written.
 */
#ifndef PAL_CLI_OUTPUT_H
#define PAL_CLI_OUTPUT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/status.h"

/* Bytes to standard output, buffered. Errors: PAL_EIO. */
pal_status pal__out_write(const void *bytes, size_t n, pal_error *err);
pal_status pal__out_id(int32_t id, pal_error *err); /* on a line of its own */
pal_status pal__out_flush(pal_error *err);
bool pal__out_closed(void); /* whether it failed because the reader is gone */

/* Prints a JSON object with a newline, and lets go of it. NULL: PAL_ENOMEM. */
pal_status pal__out_json(json_t *object, pal_error *err);

/* Evidence, with every digit of its numbers, to standard output; and to a file, or a page about it.
 * page: NULL: the evidence itself. Errors: PAL_EIO, PAL_ENOMEM. */
typedef pal_status (*pal__page)(FILE *to, const char *name, const json_t *evidence, pal_error *err);
pal_status pal__out_evidence(const json_t *evidence, pal_error *err);
pal_status pal__write_evidence(const char *path, const json_t *evidence, pal__page page,
			       pal_error *err);

/* PAL_EINVAL if the file to write, `out`, is one that is read: that would be the end of both. */
pal_status pal__out_other(const char *out, const char *read, pal_error *err);

typedef struct {
	const char *what, *unit; /* "reading the prompt", "tok" or "B" */
	double start, drawn;     /* seconds */
	bool wanted, shown;
} pal__bar;

void pal__bar_start(pal__bar *b, const char *what, const char *unit, bool quiet);
void pal__bar_update(pal__bar *b, uint64_t done, uint64_t total);
void pal__bar_end(pal__bar *b);

/* "1.5 MB" and the like, powers of 1000. */
const char *pal__human_bytes(uint64_t n, char buffer[32]);

/* A JSON string of bytes; what is not UTF-8 becomes U+FFFD. NULL: no memory. */
json_t *pal__json_string(const char *text, size_t n);
json_t *pal__json_ids(const int32_t *ids, size_t n);

/* The parts that every JSON report carries: machine, build, model. */
json_t *pal__json_machine(void);
json_t *pal__json_build(void);
json_t *pal__json_model(const char *path, const pal_model_info *info);

/* All of these, with format, date, threads and kv_type: how evidence begins. NULL: no memory. */
json_t *pal__json_evidence(const char *format, const char *path, const pal_model_info *info,
			   const char *kv_type);

/* One of the figures of a value map, as a line of standard output. */
pal_status pal__map_line(const json_t *figure, pal_error *err);

#endif
