#include "serve/page.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* What a handler says, kept instead of sent. */
struct pal__reply {
	int status;
	const char *type, *body;
	size_t n;
	char headers[1024];
	json_t *json;
};

static const char *has; /* If-None-Match of the request */

const char *pal__http_header(const pal__http_request *r, const char *name)
{
	(void)r;
	return strcmp(name, "If-None-Match") ? NULL : has;
}

void pal__reply_header(pal__reply *r, const char *name, const char *value)
{
	size_t n = strlen(r->headers);
	snprintf(r->headers + n, sizeof r->headers - n, "%s: %s\n", name, value);
}

void pal__reply_json(pal__reply *r, int status, json_t *body)
{
	r->status = status;
	r->json = body;
}

void pal__reply_bytes(pal__reply *r, int status, const char *content_type, const void *bytes,
		      size_t n)
{
	r->status = status;
	r->type = content_type;
	r->body = bytes;
	r->n = n;
}

static pal__reply ask(const char *path, const char *tag)
{
	pal__reply r = {0};
	const pal__http_request q = {.method = "GET", .path = path};
	has = tag;
	pal__page_get(&q, &r);
	return r;
}

static void files(void **state)
{
	const pal__page_file *page = pal__page_find("/");
	(void)state;
	assert_non_null(page);
	assert_null(pal__page_find(""));
	assert_null(pal__page_find("/page/"));
	assert_null(pal__page_find("/page/../page.c"));
	for (const pal__page_file *f = pal__page_files; f->path; f++) {
		assert_ptr_equal(pal__page_find(f->path), f);
		assert_true(f->size > 0);
		assert_int_equal(f->tag[0], '"');
		assert_int_equal(f->tag[strlen(f->tag) - 1], '"');
		for (const pal__page_file *g = pal__page_files; g != f; g++)
			assert_string_not_equal(f->tag, g->tag);
	}
}

/* Whatever a file of the page names as its own is there. */
static void names(void **state)
{
	(void)state;
	for (const pal__page_file *f = pal__page_files; f->path; f++) {
		if (!strstr(f->content_type, "html") && !strstr(f->content_type, "javascript"))
			continue;
		char *text = calloc(1, f->size + 1);
		assert_non_null(text);
		memcpy(text, f->data, f->size);
		static const char *const before[] = {"\"/page/", "from \"./"};
		for (size_t i = 0; i < 2; i++) {
			for (char *at = text; (at = strstr(at, before[i]));) {
				char path[128];
				at += strlen(before[i]);
				snprintf(path, sizeof path, "/page/%.*s", (int)strcspn(at, "\""),
					 at);
				if (!pal__page_find(path))
					fail_msg("%s names %s", f->path, path);
			}
		}
		assert_null(strstr(text, "innerHTML ="));
		free(text);
	}
}

static void handler(void **state)
{
	const pal__page_file *page = pal__page_find("/");
	pal__reply r = ask("/", NULL);
	(void)state;
	assert_int_equal(r.status, 200);
	assert_int_equal(r.n, page->size);
	assert_memory_equal(r.body, page->data, page->size);
	assert_non_null(strstr(r.type, "text/html"));
	assert_non_null(strstr(r.headers, "Content-Security-Policy: default-src 'self';"));
	assert_non_null(strstr(r.headers, page->tag));

	r = ask("/", page->tag);
	assert_int_equal(r.status, 304);
	assert_int_equal(r.n, 0);
	assert_non_null(strstr(r.headers, page->tag));
	assert_int_equal(ask("/", "\"another\"").status, 200);

	r = ask("/page/nothing", NULL);
	assert_int_equal(r.status, 404);
	assert_non_null(json_object_get(json_object_get(r.json, "error"), "message"));
	json_decref(r.json);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(files),
		cmocka_unit_test(names),
		cmocka_unit_test(handler),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
