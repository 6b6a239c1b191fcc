/* Any bytes as a request to the endpoints, over a service and a model that are made up.
 *
 * The first byte chooses what is generated and what fails; the rest of the first line is
 * "METHOD TARGET", all behind it the body. Whatever it is, there is one reply: JSON, an error of
 * its API's shape, or a stream of events with an end.
 */
#include <stdint.h>

#include "../unit/serve/fake.h"
#include "check.h"
#include "serve/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_error(const json_t *j)
{
	const json_t *e = json_object_get(j, "error");
	const char *message = pal__json_get(e, "message");
	CHECK(message && *message && pal__json_get(e, "type"));
}

/* An event's data; true: it may be the last one. */
static bool check_event(const char *s, size_t n)
{
	static const char *const last[] = {"message_stop", "response.completed",
					   "response.incomplete", "error"};
	const char *data = memmem(s, n, "data: ", 6);
	CHECK(data && (data == s || !strncmp(s, "event: ", 7)));
	data += 6;
	n -= (size_t)(data - s);
	if (n == 6 && !memcmp(data, "[DONE]", 6))
		return true;
	json_t *j = json_loadb(data, n, JSON_REJECT_DUPLICATES, NULL);
	CHECK(json_is_object(j));
	const char *type = pal__json_get(j, "type");
	bool end = json_object_get(j, "error") != NULL;
	for (size_t i = 0; type && i < sizeof last / sizeof *last; i++)
		end |= !strcmp(type, last[i]);
	json_decref(j);
	return end;
}

static void check_stream(const fake_reply *r)
{
	bool end = false;
	CHECK(r->status == 200 && !strcmp(r->type, "text/event-stream"));
	for (const char *s = r->body, *to; *s; s = to + 2) {
		CHECK(!end);
		to = strstr(s, "\n\n");
		CHECK(to);
		end = check_event(s, (size_t)(to - s));
	}
	CHECK(end || fake.gone_at >= 0);
}

static void check_reply(const fake_reply *r)
{
	CHECK(r->status >= 200 && r->status < 600);
	if (r->streamed) {
		check_stream(r);
		return;
	}
	if (!strcmp(r->type, "application/octet-stream"))
		return;
	json_t *j = json_loadb(r->body, r->n, JSON_REJECT_DUPLICATES, NULL);
	CHECK(json_is_object(j) && !strcmp(r->type, "application/json"));
	if (r->status != 200)
		check_error(j);
	json_decref(j);
}

static void choose(uint8_t how)
{
	static const char thinks_and_calls[] =
		"<think>\nhm\n</think>\n\n<tool_call>{\"name\":\"f\","
		"\"arguments\":{}}</tool_call>";
	static const char *const scripts[] = {"Hello, \xc3\xa9!", thinks_and_calls, "",
					      "<tool_call>{</tool_call> \xff <tool_ca"};
	static const pal_status fails[] = {PAL_OK, PAL_EOVERLOAD, PAL_EIO, PAL_ENOTFOUND};
	how = (uint8_t)(how - '0');
	fake.script = scripts[how & 3];
	fake.fails = fails[how >> 2 & 3];
	fake.fails_at = how & 16 ? 1 : -1;
	fake.gone_at = how & 32 ? 2 : -1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data, *line = memchr(data, '\n', size);
	const char *blank = line ? memchr(text, ' ', (size_t)(line - text)) : NULL;
	if (!blank || blank - text < 2 || blank - text > 8 || line - blank > 1024)
		return 0;
	char method[16], target[1100];
	snprintf(method, sizeof method, "%.*s", (int)(blank - text - 1), text + 1);
	snprintf(target, sizeof target, "%.*s", (int)(line - blank - 1), blank + 1);
	int64_t live = pal__mem_live();
	fake_start("qwen3", false);
	CHECK(fake_call("POST", "/v1/sessions", "{}", 2)->status == 200);
	choose(data[0]);
	size_t n = size - (size_t)(line + 1 - text);
	char *body = pal__strndup(line + 1, n);
	const fake_reply *r = fake_call(method, target, body, n);
	if (r)
		check_reply(r);
	pal__free(body);
	fake_stop();
	CHECK(pal__mem_live() == live);
	return 0;
}
