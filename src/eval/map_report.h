/* The value map as one page of HTML that needs nothing from elsewhere. */
#ifndef PAL_EVAL_MAP_REPORT_H
#define PAL_EVAL_MAP_REPORT_H

#include <jansson.h>
#include <stdio.h>

#include "base/status.h"

/* Writes the page. evidence: checked. Errors: PAL_EIO; name: of the file, in the message. */
pal_status pal__map_report(FILE *to, const char *name, const json_t *evidence, pal_error *err);

#endif
