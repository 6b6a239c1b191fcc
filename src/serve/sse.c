#include "serve/sse.h"

#include <string.h>

#include "base/mem.h"
#include "serve/json.h"

bool pal__sse_begin(pal__reply *reply)
{
	pal__reply_header(reply, "Cache-Control", "no-cache");
	return pal__reply_begin(reply, 200, "text/event-stream");
}

bool pal__sse_send(pal__reply *reply, const char *event, json_t *data, pal__fault *f)
{
	pal__text t = {0};
	bool ok = data != NULL;
	if (event)
		ok = ok && pal__text_put(&t, "event: ", 7) &&
		     pal__text_put(&t, event, strlen(event)) && pal__text_put(&t, "\n", 1);
	ok = ok && pal__text_put(&t, "data: ", 6) && pal__json_dump(data, &t) &&
	     pal__text_put(&t, "\n\n", 2);
	json_decref(data);
	if (!ok)
		pal__fault_memory(f);
	ok = ok && pal__reply_write(reply, t.s, t.n);
	pal__free(t.s);
	return ok;
}

void pal__sse_done(pal__reply *reply)
{
	static const char last[] = "data: [DONE]\n\n";
	pal__reply_write(reply, last, sizeof last - 1);
}
