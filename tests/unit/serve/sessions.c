#include "expect.h"

#define S "/v1/sessions"
#define ID "sess-00000000000000000000000000000001"
#define ID2 "sess-00000000000000000000000000000002"
#define INFO(id, label, length)                                                                \
	"{\"object\":\"session\",\"id\":\"" id "\",\"label\":\"" label                         \
	"\",\"created\":0,\"used\":2.0,\"length\":" length ",\"committed\":" length            \
	",\"resident\":0,\"evicted\":0,\"restored\":0,\"restored_chunks\":{\"recompute\":0,"   \
	"\"spill\":0,\"hidden\":0,\"project\":0},\"fallbacks\":0,\"events\":0,\"kv_bytes\":0," \
	"\"scratch_bytes\":0,\"disk_bytes\":0,\"sink\":0,\"window\":0,\"budget_positions\":0," \
	"\"busy\":false,\"loaded\":false,\"stateless\":false,\"interrupted\":false,"           \
	"\"remaining\":0,\"turns\":0}"
#define USAGE(prompt, completion, total, cached)                                                \
	"\"usage\":{\"prompt_tokens\":" prompt ",\"completion_tokens\":" completion             \
	",\"total_tokens\":" total ",\"prompt_tokens_details\":{\"cached_tokens\":" cached "}," \
	"\"completion_tokens_details\":{\"reasoning_tokens\":0}}"

static void a_session(void **state)
{
	(void)state;
	expect("POST", S, "{\"label\":\"one\",\"eos_token_ids\":[1,2]}", 200, INFO(ID, "one", "0"));
	expect("POST", S "/" ID "/append", "{\"text\":\"abc\"}", 200,
	       "{\"object\":\"session.append\",\"id\":\"" ID
	       "\",\"appended\":3,\"length\":3," USAGE("3", "0", "3", "1") "}");
	expect("POST", S "/" ID "/append", "{\"ids\":[65]}", 200,
	       "{\"object\":\"session.append\",\"id\":\"" ID
	       "\",\"appended\":1,\"length\":4," USAGE("1", "0", "1", "0") "}");
	expect("GET", S "/" ID, NULL, 200, INFO(ID, "one", "4"));
	expect("GET", S "/" ID "/log", NULL, 200, "{\"ids\":[97,98,99,65]}");
	expect("POST", S "/" ID "/fork", "{\"label\":\"two\"}", 200, INFO(ID2, "two", "4"));
	expect("POST", S "/" ID "/fork", NULL, 200,
	       INFO("sess-00000000000000000000000000000003", "", "4"));
	expect("GET", S "?from=1&limit=1", NULL, 200,
	       "{\"object\":\"list\",\"data\":[" INFO(ID2, "two", "4") "],\"total\":3}");
	expect("GET", S "/" ID "/memory", NULL, 200,
	       "{\"length\":4,\"sink\":4,\"window_from\":8,\"chunks\":[{\"chunk\":2,\"from\":64,"
	       "\"to\":96,\"source\":\"spill\"}],\"events\":[{\"position\":9,\"reread\":3,"
	       "\"chunks\":[2],\"sources\":[\"spill\"]}]}");
	expect("DELETE", S "/" ID, NULL, 200,
	       "{\"id\":\"" ID "\",\"object\":\"session.deleted\",\"deleted\":true,\"length\":4}");
	refused("GET", S "/" ID, NULL, 404, "not_found", "", ID);
}

static void files(void **state)
{
	char copy[64];
	(void)state;
	call("POST", S, "{}");
	call("POST", S "/" ID "/append", "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"}]}");
	assert_string_equal(fake.prompt, "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n");
	call("POST", S "/" ID "/append",
	     "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"}],\"open_reply\":false}");
	assert_string_equal(fake.prompt, "<|im_start|>user\nq<|im_end|>\n");
	call("POST", S, "{}");
	call("POST", S "/" ID2 "/append", "{\"ids\":[1,2]}");
	const fake_reply *r = call("GET", S "/" ID2 "/export", NULL);
	assert_int_equal(r->status, 200);
	assert_string_equal(r->type, "application/octet-stream");
	assert_int_equal(r->n, 8);
	memcpy(copy, r->body, 8);
	assert_int_equal(fake_call("POST", S "/import", copy, 8)->status, 200);
	expect("GET", S "/sess-00000000000000000000000000000003/log", NULL, 200, "{\"ids\":[1,2]}");
	refused("POST", S "/import", "abc", 400, "invalid_value", "", "no session's file");
}

static void generation(void **state)
{
	(void)state;
	call("POST", S, "{}");
	fake.script = "a\xc3\xa9";
	expect("POST", S "/" ID "/generate", "{\"max_tokens\":9,\"logprobs\":0}", 200,
	       "{\"object\":\"session.generation\",\"id\":\"" ID "\",\"text\":\"a\xc3\xa9\","
	       "\"ids\":[97,195,169,270],\"finish_reason\":\"stop\",\"logprobs\":[{\"token\":\"a\","
	       "\"logprob\":-0.5,\"bytes\":[97],\"top_logprobs\":[]},{\"token\":\"\xef\xbf\xbd\","
	       "\"logprob\":-0.5,\"bytes\":[195],\"top_logprobs\":[]},{\"token\":\"\xef\xbf\xbd\","
	       "\"logprob\":-0.5,\"bytes\":[169],\"top_logprobs\":[]},{\"token\":\"<|im_end|>\","
	       "\"logprob\":-0.5,\"bytes\":[60,124,105,109,95,101,110,100,124,62],\"top_logprobs\":"
	       "[]}]," USAGE("0", "4", "4", "0") "}");
	assert_true(fake.own_eos && fake.sampling.temperature == 0 && !fake.resumed);
	expect("POST", S "/" ID "/generate",
	       "{\"max_tokens\":2,\"stream\":true,\"resume\":true,\"temperature\":0.5}", 200,
	       "[[\"\",{\"object\":\"session.chunk\",\"id\":\"" ID "\",\"text\":\"a\",\"ids\":[97],"
	       "\"finish_reason\":null}],[\"\",{\"object\":\"session.chunk\",\"id\":\"" ID
	       "\",\"text\":\"\",\"ids\":[195],\"finish_reason\":null}],[\"\",{\"object\":"
	       "\"session.chunk\",\"id\":\"" ID "\",\"text\":\"\",\"ids\":[],\"finish_reason\":"
	       "\"length\"," USAGE("0", "2", "2", "0") "}],[\"\",\"[DONE]\"]]");
	assert_true(fake.resumed && fake.sampling.temperature == 0.5f);
	fake.fails = PAL_EIO;
	fake.fails_at = 1;
	const fake_reply *r = call("POST", S "/" ID "/generate", "{\"stream\":true}");
	assert_non_null(strstr(r->body, "\"text\":\"a\""));
	assert_non_null(strstr(r->body, "data: {\"error\":"));
	assert_null(strstr(r->body, "DONE"));
}

static void refusals(void **state)
{
	static const struct {
		const char *to, *body, *param, *says;
	} all[] = {
		{S, "{\"label\":1}", "label", "a string"},
		{S, "{\"eos_token_ids\":[999999]}", "eos_token_ids", "token ids"},
		{S, "{\"eos_token_ids\":[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]}", "eos_token_ids",
		 "16"},
		{S "/" ID "/append", "{}", "", "one of text"},
		{S "/" ID "/append", "{\"text\":\"a\",\"ids\":[1]}", "", "one of text"},
		{S "/" ID "/append", "{\"text\":\"\"}", "", "no tokens"},
		{S "/" ID "/append", "{\"ids\":[1.5]}", "ids", "whole numbers"},
		{S "/" ID "/append", "{\"messages\":[]}", "messages", "one message"},
		{S "/" ID "/generate", "{\"max_tokens\":-1}", "max_tokens", "from 1"},
		{S "/" ID "/generate", "{\"resume\":3}", "resume", "true or false"},
		{S "/" ID "/fork", "{\"label\":[]}", "label", "a string"},
	};
	char label[300], body[400];
	(void)state;
	call("POST", S, NULL);
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		refused("POST", all[i].to, all[i].body, 400, "invalid_value", all[i].param,
			all[i].says);
	memset(label, 'x', 128);
	label[128] = 0;
	snprintf(body, sizeof body, "{\"label\":\"%s\"}", label);
	refused("POST", S, body, 400, "invalid_value", "label", "127 bytes");
	refused("GET", S "?limit=0", NULL, 400, "invalid_value", "limit", "from 1 to 100");
	refused("GET", S "?from=x", NULL, 400, "invalid_value", "from", "whole number");
	static const char *const missing[] = {"/append", "/generate", "/fork"};
	for (size_t i = 0; i < 3; i++) {
		snprintf(body, sizeof body, S "/none%s", missing[i]);
		refused("POST", body, i ? "{}" : "{\"ids\":[1]}", 404, "not_found", "", "none");
	}
	refused("DELETE", S "/none", NULL, 404, "not_found", "", "none");
	refused("GET", S "/none/export", NULL, 404, "not_found", "", "none");
	refused("GET", S "/none/memory", NULL, 404, "not_found", "", "none");
}

static void memory(void **state)
{
	(void)state;
	call("POST", S, "{}");
	call("POST", S "/" ID "/append", "{\"ids\":[1,2]}");
	survives("GET", S, NULL);
	survives("GET", S "/" ID, NULL);
	survives("GET", S "/" ID "/log", NULL);
	survives("GET", S "/" ID "/memory", NULL);
	survives("POST", S "/" ID "/generate", "{\"logprobs\":1,\"stop\":\"x\"}");
	survives("POST", S "/" ID "/append", "{\"text\":\"ab\"}");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		ENDPOINT_TEST(a_session), ENDPOINT_TEST(files),  ENDPOINT_TEST(generation),
		ENDPOINT_TEST(refusals),  ENDPOINT_TEST(memory),
	};
	return ENDPOINT_MAIN(tests);
}
