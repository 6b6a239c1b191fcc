/* The report: evidence of recall as one page of HTML that needs nothing from elsewhere. */
#ifndef PAL_EVAL_REPORT_H
#define PAL_EVAL_REPORT_H

#include <jansson.h>
#include <stdio.h>

#include "base/status.h"

/* Writes the page. evidence: checked. Errors: PAL_EIO; name: of the file, in the message. */
pal_status pal__report_write(FILE *to, const char *name, const json_t *evidence, pal_error *err);

/* Text in HTML. */
void pal__html_put(FILE *to, const char *text);

#endif
