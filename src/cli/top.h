/* What pal top draws of what a server says about itself. */
#ifndef PAL_CLI_TOP_H
#define PAL_CLI_TOP_H

#include <jansson.h>
#include <stdio.h>

#include "base/status.h"

/* What was seen at a time. */
typedef struct {
	json_t *status, *sessions; /* of /v1/status; of /v1/sessions */
	double at;                 /* seconds */
} pal__top_view;

/* PAL_EFORMAT, with url in it, if these are no such answers. */
pal_status pal__top_check(const pal__top_view *v, const char *url, pal_error *err);

/* Lines of at most `columns` columns. before: what was seen some time earlier, for what happens in
 * a second, or NULL: then that is left out. end: goes to the end of each line. */
void pal__top_draw(FILE *to, const pal__top_view *now, const pal__top_view *before, const char *url,
		   int columns, const char *end);

#endif
