#include "serve/page.h"

#include <string.h>

static const char *const headers[][2] = {
	{"Cache-Control", "no-cache"},
	{"Content-Security-Policy", "default-src 'self'; base-uri 'none'; form-action 'self'; "
				    "frame-ancestors 'none'"},
	{"Referrer-Policy", "no-referrer"},
	{"X-Content-Type-Options", "nosniff"},
};

const pal__page_file *pal__page_find(const char *path)
{
	for (const pal__page_file *f = pal__page_files; f->path; f++)
		if (!strcmp(f->path, path))
			return f;
	return NULL;
}

void pal__page_get(const pal__http_request *request, pal__reply *reply)
{
	const pal__page_file *f = pal__page_find(request->path);
	const char *have = pal__http_header(request, "If-None-Match");
	if (!f) {
		pal__reply_json(reply, 404,
				json_pack("{s:{s:s, s:s, s:s, s:n}}", "error", "message",
					  "the page has no such file", "type",
					  "invalid_request_error", "code", "not_found", "param"));
		return;
	}
	for (size_t i = 0; i < sizeof headers / sizeof *headers; i++)
		pal__reply_header(reply, headers[i][0], headers[i][1]);
	pal__reply_header(reply, "ETag", f->tag);
	if (have && strstr(have, f->tag))
		pal__reply_bytes(reply, 304, f->content_type, "", 0);
	else
		pal__reply_bytes(reply, 200, f->content_type, f->data, f->size);
}

const pal__route pal__page_routes[] = {
	{"GET", "/", pal__page_get, NULL, true, 0},
	{"GET", "/page/{file}", pal__page_get, NULL, true, 0},
	{NULL, NULL, NULL, NULL, false, 0},
};
