/* Server-sent events: the pieces of a streamed reply. */
#ifndef PAL_SERVE_SSE_H
#define PAL_SERVE_SSE_H

#include "serve/fault.h"

/* Both: false when the client has gone, or memory is out (then f says so). */
bool pal__sse_begin(pal__reply *reply);

/* One event, named or not (NULL). Takes data's reference; NULL: memory was out. */
bool pal__sse_send(pal__reply *reply, const char *event, json_t *data, pal__fault *f);

/* OpenAI's last line. */
void pal__sse_done(pal__reply *reply);

#endif
