/* What went wrong with a request, and how each API says so. */
#ifndef PAL_SERVE_FAULT_H
#define PAL_SERVE_FAULT_H

#include <jansson.h>

#include "serve/http.h"

/* Of whom a client expects errors: {"error":{"message","type","code","param"}}, or
 * {"type":"error","error":{"type","message"}}. */
typedef enum { PAL__OPENAI, PAL__ANTHROPIC } pal__dialect;

typedef struct {
	pal_error err;        /* code PAL_OK: nothing went wrong so far */
	char param[64];       /* the parameter at fault, "messages[2].content", or "" */
	const char *code;     /* a word for programs; NULL: of err.code */
	double retry_after_s; /* 0: unknown */
} pal__fault;

/* "PARAM: TEXT" with PAL_EINVAL, unless something went wrong before. */
__attribute__((format(printf, 3, 4))) pal_status pal__refuse(pal__fault *f, const char *param,
							     const char *format, ...);

/* For allocations of jansson and others that do not say so themselves. */
pal_status pal__fault_memory(pal__fault *f);

int pal__fault_http(const pal__fault *f); /* 400 to 503 */
json_t *pal__fault_json(const pal__fault *f, pal__dialect dialect);
void pal__reply_fault(pal__reply *reply, const pal__fault *f, pal__dialect dialect);

/* The reply that body is; NULL: memory was out. Takes the reference. */
void pal__reply_send(pal__reply *reply, int status, json_t *body, pal__dialect dialect);

#endif
