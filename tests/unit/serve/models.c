#include "expect.h"

#define MODEL(id)                                                                            \
	"{\"id\":\"" id "\",\"object\":\"model\",\"created\":0,\"owned_by\":\"palimpsest\"," \
	"\"context_length\":4096,\"display_name\":\"small\",\"type\":\"model\"}"

static void models(void **state)
{
	(void)state;
	expect("GET", "/v1/models", NULL, 200,
	       "{\"object\":\"list\",\"data\":[" MODEL("small") "],\"has_more\":false,\"first_id\":"
								"\"small\",\"last_id\":\"small\"}");
	expect("GET", "/v1/models/small", NULL, 200, MODEL("small"));
	expect("GET", "/v1/models/small-1", NULL, 200, MODEL("small-1"));
	expect("GET", "/v1/models/default", NULL, 200, MODEL("default"));
	refused("GET", "/v1/models/other", NULL, 404, "model_not_found", "model", "\"small\" is");
}

static void tokens(void **state)
{
	(void)state;
	expect("POST", "/v1/tokenize", "{\"content\":\"ab\"}", 200,
	       "{\"tokens\":[97,98],\"count\":2}");
	expect("POST", "/v1/tokenize", "{\"text\":\"<s>\",\"parse_special\":false}", 200,
	       "{\"tokens\":[60,115,62],\"count\":3}");
	expect("POST", "/v1/detokenize", "{\"tokens\":[97,98,195]}", 200,
	       "{\"content\":\"ab\xef\xbf\xbd\"}");
	refused("POST", "/v1/tokenize", "{}", 400, "invalid_value", "content", "missing");
	refused("POST", "/v1/detokenize", "{}", 400, "invalid_value", "tokens", "missing");
	refused("POST", "/v1/detokenize", "{\"tokens\":[\"a\"]}", 400, "invalid_value", "tokens",
		"item 0");
}

static void status(void **state)
{
	(void)state;
	json_t *j = read_reply(call("GET", "/v1/status", NULL));
	assert_string_equal(pal__json_get(j, "model"), "small");
	assert_string_equal(pal__json_get(j, "version"), PAL_VERSION);
	assert_true(json_is_real(json_object_get(j, "uptime_s")));
	assert_int_equal(json_integer_value(json_object_get(json_object_get(j, "filled"), "spill")),
			 3);
	static const char *const counts[] = {
		"sessions",         "loaded",         "running",   "waiting",       "requests",
		"refused",          "cancelled",      "failed",    "prompt_tokens", "reused_tokens",
		"generated_tokens", "drafted",        "accepted",  "forwards",      "rows",
		"events",           "fallbacks",      "commits",   "parked",        "unparked",
		"replayed",         "quarantined",    "expired",   "memory_bytes",  "memory_limit",
		"rss_bytes",        "peak_rss_bytes", "disk_bytes"};
	for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
		assert_true(json_is_integer(json_object_get(j, counts[i])));
	assert_true(json_is_real(json_object_get(j, "forward_s")));
	json_decref(j);
}

/* Every route is described, and nothing else is. */
static void openapi(void **state)
{
	(void)state;
	json_t *j = read_reply(call("GET", "/openapi.json", NULL));
	json_t *paths = json_object_get(j, "paths"), *path;
	const char *key, *method;
	json_t *operation;
	size_t n = 0;
	for (const pal__route *r = pal__api_routes(fake_api); r->method; r++) {
		char lower[8] = "";
		for (size_t i = 0; r->method[i]; i++)
			lower[i] = (char)(r->method[i] | 32);
		if (!json_object_get(json_object_get(paths, r->path), lower))
			fail_msg("%s %s is not described", r->method, r->path);
		n++;
	}
	json_object_foreach(paths, key, path) json_object_foreach(path, method, operation)
	{
		/* those of the server itself: in its own tables */
		if (!strcmp(key, "/health") || !strcmp(key, "/metrics"))
			continue;
		assert_non_null(json_object_get(operation, "responses"));
		n--;
	}
	assert_int_equal(n, 0);
	json_decref(j);
}

static void memory(void **state)
{
	(void)state;
	survives("GET", "/v1/models", NULL);
	survives("GET", "/v1/models/x", NULL);
	survives("POST", "/v1/tokenize", "{\"content\":\"ab\"}");
	survives("POST", "/v1/detokenize", "{\"tokens\":[97,98,195]}");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		ENDPOINT_TEST(models),  ENDPOINT_TEST(tokens), ENDPOINT_TEST(status),
		ENDPOINT_TEST(openapi), ENDPOINT_TEST(memory),
	};
	return ENDPOINT_MAIN(tests);
}
