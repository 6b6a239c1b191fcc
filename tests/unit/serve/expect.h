/* What calls to the endpoints are expected to reply: JSON compared as JSON, streams event by event
 * as [[name, data], ...], with what differs from run to run taken out: random ids are "#", times
 * 0, and the fingerprint and the `palimpsest` object are left out. */
#ifndef PAL_TEST_SERVE_EXPECT_H
#define PAL_TEST_SERVE_EXPECT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fake.h"
#include "serve/json.h"

static json_t *plain(json_t *j);

/* "chatcmpl-", 32 hex digits: "chatcmpl-#". */
static json_t *plain_string(json_t *j)
{
	const char *s = json_string_value(j);
	size_t n = strlen(s), at = n >= 32 ? n - 32 : 0;
	if (n < 32 || strspn(s + at, "0123456789abcdef") != 32 || !strncmp(s, "sess-", 5))
		return json_incref(j);
	return json_sprintf("%.*s#", (int)at, s);
}

static json_t *plain_object(json_t *j)
{
	json_t *out = json_object(), *value;
	const char *key;
	json_object_foreach(j, key, value)
	{
		if (!strcmp(key, "palimpsest") || !strcmp(key, "system_fingerprint"))
			continue;
		bool time = !strcmp(key, "created") || !strcmp(key, "created_at");
		json_object_set_new(out, key, time ? json_integer(0) : plain(value));
	}
	return out;
}

static json_t *plain(json_t *j)
{
	json_t *out, *value;
	size_t i;
	if (json_is_string(j))
		return plain_string(j);
	if (json_is_object(j))
		return plain_object(j);
	if (!json_is_array(j))
		return json_incref(j);
	out = json_array();
	json_array_foreach(j, i, value) json_array_append_new(out, plain(value));
	return out;
}

/* One event's text, [n], as [name, data]; "[DONE]" is a string. */
static json_t *read_event(const char *s, size_t n)
{
	const char *data = memmem(s, n, "data: ", 6);
	json_t *name, *j, *out;
	assert_non_null(data);
	assert_true(data == s || (!strncmp(s, "event: ", 7) && data[-1] == '\n'));
	name = data == s ? json_string("") : json_stringn(s + 7, (size_t)(data - s) - 8);
	data += 6;
	if (!strncmp(data, "[DONE]", 6))
		return json_pack("[o, s]", name, "[DONE]");
	j = json_loadb(data, n - (size_t)(data - s), JSON_REJECT_DUPLICATES, NULL);
	assert_non_null(j);
	out = json_pack("[o, o]", name, plain(j));
	json_decref(j);
	return out;
}

static json_t *read_reply(const fake_reply *r)
{
	if (!r->streamed) {
		json_t *j = json_loadb(r->body, r->n, JSON_REJECT_DUPLICATES, NULL);
		assert_non_null(j);
		assert_string_equal(r->type, "application/json");
		json_t *out = plain(j);
		json_decref(j);
		return out;
	}
	json_t *out = json_array();
	assert_string_equal(r->type, "text/event-stream");
	for (const char *s = r->body, *end; *s; s = end + 2) {
		end = strstr(s, "\n\n");
		assert_non_null(end);
		json_array_append_new(out, read_event(s, (size_t)(end - s)));
	}
	return out;
}

static const fake_reply *call(const char *method, const char *target, const char *body)
{
	const fake_reply *r = fake_call(method, target, body, body ? strlen(body) : 0);
	assert_non_null(r);
	return r;
}

__attribute__((unused)) static void expect(const char *method, const char *target, const char *body,
					   int status, const char *want)
{
	const fake_reply *r = call(method, target, body);
	json_t *got = read_reply(r), *wanted = json_loads(want, 0, NULL);
	char *text = json_dumps(got, JSON_COMPACT);
	if (!wanted)
		fail_msg("the test's JSON is bad: %s", want);
	if (r->status != status || !json_equal(got, wanted))
		fail_msg("%s %s\ngot %d %.900s\nwanted %.900s", target, body ? body : "", r->status,
			 text, want);
	json_decref(got);
	json_decref(wanted);
	free(text);
}

/* The error is of that status and code, and about that parameter; its message has `says`. */
__attribute__((unused)) static void refused(const char *method, const char *target,
					    const char *body, int status, const char *code,
					    const char *param, const char *says)
{
	const fake_reply *r = call(method, target, body);
	json_t *j = read_reply(r), *e = json_object_get(j, "error");
	const char *message = pal__json_get(e, "message"), *got = pal__json_get(e, "param");
	if (r->status != status || !message || !strstr(message, says) ||
	    strcmp(pal__json_get(e, "code"), code) != 0 || strcmp(got ? got : "", param) != 0)
		fail_msg("%s %s: %d %s", target, body ? body : "", r->status, r->body);
	json_decref(j);
}

/* Every allocation fails in turn: the reply is then an error, or an error ends it, or all is
 * there. */
__attribute__((unused)) static void survives(const char *method, const char *target,
					     const char *body)
{
	json_t *good = read_reply(call(method, target, body));
	int64_t live = pal__mem_live();
	bool failed = true;
	for (int64_t n = 0; failed; n++) {
		pal__mem_fail_after(n);
		const fake_reply *r = fake_call(method, target, body, body ? strlen(body) : 0);
		failed = pal__mem_failed();
		pal__mem_fail_after(-1);
		assert_int_equal(pal__mem_live(), live);
		if (!r || r->streamed || r->status != 200) {
			assert_true(!r || r->status == 200 || r->status == 503 || r->status == 404);
			continue;
		}
		json_t *got = read_reply(r);
		if (strncmp(target, "/v1/sessions", 12) != 0 && !json_equal(got, good))
			fail_msg("allocation %d failed: %s", (int)n, r->body);
		json_decref(got);
	}
	json_decref(good);
}

static int setup(void **state)
{
	(void)state;
	fake_start("qwen3", false);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fake_stop();
	if (!pal__mem_live())
		return 0;
	fprintf(stderr, "%d allocations are left\n", (int)pal__mem_live());
	return -1;
}

/* jansson's memory: it fails when the library's does. Not counted, since texts that jansson makes
 * are freed with free(); LeakSanitizer sees it. */
static void *json_memory(size_t n)
{
	void *p = pal__alloc(1);
	pal__free(p);
	return p ? malloc(n) : NULL;
}

#define ENDPOINT_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
#define ENDPOINT_MAIN(tests) \
	(json_set_alloc_funcs(json_memory, free), cmocka_run_group_tests(tests, NULL, NULL))

#endif
