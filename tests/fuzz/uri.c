/* Any bytes as the target of a request: taken apart, or refused with one sentence. */
#include "serve/uri.h"

#include <stdint.h>
#include <string.h>

#include "base/mem.h"
#include "check.h"
#include "text/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_text(const char *text)
{
	CHECK(pal__utf8_valid(text, strlen(text)) == strlen(text));
}

static void check_uri(const pal__uri *u)
{
	static const char *const patterns[] = {"/", "/v1/sessions/{id}", "/{a}/{b}/{c}/{d}",
					       "/{a}/b/{c}"};
	CHECK(u->n_segments > 0 && u->n_segments <= PAL__MAX_SEGMENTS);
	CHECK(u->n_args >= 0 && u->n_args <= PAL__MAX_ARGS);
	for (int i = 0; i < u->n_segments; i++)
		check_text(u->segments[i]);
	for (int i = 0; i < u->n_args; i++) {
		check_text(u->names[i]);
		check_text(u->values[i]);
	}
	for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
		const char *param[PAL__MAX_PARAMS] = {0};
		if (pal__uri_match(u, patterns[i], param) && strchr(patterns[i], '{'))
			CHECK(param[0] && param[0][0]);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	pal__uri u = {0};
	pal_error err = {0};
	int64_t live = pal__mem_live();
	char *target = pal__strndup((const char *)data, size);
	if (!target)
		return 0;
	pal_status s = pal__uri_parse(target, &u, &err);
	if (!s)
		check_uri(&u);
	else
		CHECK((s == PAL_EINVAL || s == PAL_ELIMIT) && err.code == s && err.text[0]);
	pal__uri_free(&u);
	pal__free(target);
	CHECK(pal__mem_live() == live);
	return 0;
}
