/* What happened, for every reply: the `palimpsest` object (contract C5), and usage. */
#ifndef PAL_SERVE_REPORT_H
#define PAL_SERVE_REPORT_H

#include <jansson.h>

#include "session/service.h"

/* {"recompute":n, ...} of counts[PAL_N_SOURCES]. */
json_t *pal__report_sources(const uint64_t *counts);
const char *pal__source_word(int source);

json_t *pal__report_json(const pal__report *r);

/* Tokens of a reply, whose runs are added up. */
typedef struct {
	int64_t prompt, cached, completion, reasoning;
	pal__report last;
} pal__usage;

/* As /v1/chat/completions, /v1/responses and /v1/messages name them. */
json_t *pal__usage_completion(const pal__usage *u);
json_t *pal__usage_response(const pal__usage *u);
json_t *pal__usage_message(const pal__usage *u);

#endif
