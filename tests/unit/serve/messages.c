#include "expect.h"

#define TARGET "/v1/messages"
#define HI "\"max_tokens\":50,\"messages\":[{\"role\":\"user\",\"content\":\"hey\"}]"
#define TOOLS "\"tools\":[{\"name\":\"f\",\"input_schema\":{\"type\":\"object\"}}]"
#define USAGE(in, cached, out)                                         \
	"{\"input_tokens\":" in ",\"cache_read_input_tokens\":" cached \
	",\"cache_creation_input_tokens\":0,\"output_tokens\":" out "}"
#define MESSAGE(content, reason, stop, usage)                                                \
	"{\"id\":\"msg_#\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"small\"," \
	"\"content\":[" content "],\"stop_reason\":" reason ",\"stop_sequence\":" stop       \
	",\"usage\":" usage "}"
#define START(usage)                                                           \
	"[\"message_start\",{\"type\":\"message_start\",\"message\":" MESSAGE( \
		"", "null", "null", usage) "}],[\"ping\",{\"type\":\"ping\"}],"
#define BLOCK(i, block)                                                                         \
	"[\"content_block_start\",{\"type\":\"content_block_start\",\"index\":" i ",\"content_" \
	"block\":" block "}],"
#define DELTA(i, delta)                                                           \
	"[\"content_block_delta\",{\"type\":\"content_block_delta\",\"index\":" i \
	",\"delta\":" delta "}],"
#define STOP(i) "[\"content_block_stop\",{\"type\":\"content_block_stop\",\"index\":" i "}],"
#define END(reason, stop, usage)                                                            \
	"[\"message_delta\",{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":" reason \
	",\"stop_sequence\":" stop "},\"usage\":" usage "}],"                               \
	"[\"message_stop\",{\"type\":\"message_stop\"}]"

static void prompts(void **state)
{
	(void)state;
	call("POST", TARGET,
	     "{\"max_tokens\":5,\"system\":[{\"type\":\"text\",\"text\":\"S\",\"cache_control\":"
	     "{\"type\":\"ephemeral\"}}],\"messages\":[{\"role\":\"user\",\"content\":\"q\"},"
	     "{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\",\"thinking\":\"hm\","
	     "\"signature\":\"\"},{\"type\":\"text\",\"text\":\"I call.\"},{\"type\":\"tool_use\","
	     "\"id\":\"1\",\"name\":\"f\",\"input\":{\"a\":1}}]},{\"role\":\"user\",\"content\":["
	     "{\"type\":\"tool_result\",\"tool_use_id\":\"1\",\"content\":[{\"type\":\"text\","
	     "\"text\":\"one\"}]},{\"type\":\"text\",\"text\":\"and?\"}]}]," TOOLS "}");
	/* the last question is a new one: thoughts before it are the template's to drop */
	assert_non_null(strstr(fake.prompt, "<|im_start|>system\nS\n\n# Tools\n"));
	assert_non_null(strstr(fake.prompt, "{\"type\": \"function\", \"function\": {\"name\": "
					    "\"f\", \"parameters\": {\"type\": \"object\"}}}"));
	assert_non_null(strstr(
		fake.prompt,
		"<|im_end|>\n<|im_start|>user\nq<|im_end|>\n"
		"<|im_start|>assistant\nI call.\n<tool_call>\n{\"name\": \"f\", \"arguments\": "
		"{\"a\":1}}\n</tool_call><|im_end|>\n<|im_start|>user\n<tool_response>\none\n"
		"</"
		"tool_response><|im_end|>\n<|im_start|>user\nand?<|im_end|>\n<|im_start|>assistant"
		"\n<think>\n\n</think>\n\n"));
	assert_true(fake.constrained && fake.max_tokens == 5);
	call("POST", TARGET, "{" HI ",\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":1024}}");
	assert_null(strstr(fake.prompt, "<think>"));
	expect("POST", "/v1/messages/count_tokens",
	       "{\"messages\":[{\"role\":\"user\",\"content\":\"hey\"}],\"thinking\":{\"type\":"
	       "\"enabled\"}}",
	       200, "{\"input_tokens\":22}");
}

static void replies(void **state)
{
	(void)state;
	fake.script = "Hi STOP or HALT";
	expect("POST", TARGET, "{" HI ",\"stop_sequences\":[\"HALT\",\"STOP\"]}", 200,
	       MESSAGE("{\"type\":\"text\",\"text\":\"Hi \"}", "\"stop_sequence\"", "\"STOP\"",
		       USAGE("18", "17", "7")));
	fake.script = "Hi";
	expect("POST", TARGET, "{" HI ",\"thinking\":{\"type\":\"enabled\"},\"temperature\":0}",
	       200,
	       MESSAGE("{\"type\":\"text\",\"text\":\"Hi\"}", "\"end_turn\"", "null",
		       USAGE("11", "11", "3")));
	fake.script = "<think>\nhm\n</think>\n\nSo<tool_call>{\"name\":\"f\",\"arguments\":"
		      "{\"a\":1}}</tool_call>";
	expect("POST", TARGET,
	       "{" HI "," TOOLS ",\"thinking\":{\"type\":\"enabled\"},\"max_tokens\":2000}", 400,
	       "{\"type\":\"error\",\"error\":{\"type\":\"invalid_request_error\",\"message\":"
	       "\"the body is not JSON: line 1: duplicate object key near "
	       "'\\\"max_tokens\\\"'\"}}");
	expect("POST", TARGET,
	       "{\"max_tokens\":99,\"messages\":[{\"role\":\"user\",\"content\":"
	       "\"hey\"}]," TOOLS ",\"thinking\":{\"type\":\"enabled\"}}",
	       200,
	       MESSAGE("{\"type\":\"thinking\",\"thinking\":\"hm\",\"signature\":\"\"},{\"type\":"
		       "\"text\",\"text\":\"So\"},{\"type\":\"tool_use\",\"id\":\"toolu_#\","
		       "\"name\":"
		       "\"f\",\"input\":{\"a\":1}}",
		       "\"tool_use\"", "null", USAGE("243", "242", "73")));
	fake.script = "abc";
	expect("POST", TARGET,
	       "{\"max_tokens\":1,\"messages\":[{\"role\":\"user\",\"content\":"
	       "\"hey\"}],\"thinking\":{\"type\":\"enabled\"}}",
	       200,
	       MESSAGE("{\"type\":\"text\",\"text\":\"a\"}", "\"max_tokens\"", "null",
		       USAGE("11", "11", "1")));
}

static void streams(void **state)
{
	(void)state;
	fake.script = "<think>\nh\n</think>\n\nS<tool_call>{\"name\":\"f\",\"arguments\":{}}"
		      "</tool_call>";
	expect("POST", TARGET,
	       "{\"max_tokens\":99,\"messages\":[{\"role\":\"user\",\"content\":\"hey\"}]," TOOLS
	       ",\"thinking\":{\"type\":\"enabled\"},\"stream\":true}",
	       200,
	       "[" START(USAGE("243", "242", "0")) BLOCK(
		       "0", "{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"}")
		       DELTA("0", "{\"type\":\"thinking_delta\",\"thinking\":\"h\"}") STOP("0")
			       BLOCK("1", "{\"type\":\"text\",\"text\":\"\"}") DELTA(
				       "1", "{\"type\":\"text_delta\",\"text\":\"S\"}") STOP("1")
				       BLOCK("2", "{\"type\":\"tool_use\",\"id\":\"toolu_#\","
						  "\"name\":\"f\",\"input\":{}}")
					       DELTA("2", "{\"type\":\"input_json_delta\","
							  "\"partial_json\":\"{}\"}") STOP("2")
						       END("\"tool_use\"", "null",
							   USAGE("243", "242", "66")) "]");
	fake.script = "";
	expect("POST", TARGET, "{" HI ",\"stream\":true,\"thinking\":{\"type\":\"enabled\"}}", 200,
	       "[" START(USAGE("11", "11", "0")) BLOCK("0", "{\"type\":\"text\",\"text\":\"\"}")
		       STOP("0") END("\"end_turn\"", "null", USAGE("11", "11", "1")) "]");
	fake.script = "ab";
	fake.fails = PAL_EIO;
	fake.fails_at = 0;
	expect("POST", TARGET, "{" HI ",\"stream\":true,\"thinking\":{\"type\":\"enabled\"}}", 200,
	       "[" START(USAGE("11", "11",
			       "0")) "[\"error\",{\"type\":\"error\",\"error\":{\"type\":"
				     "\"api_error\",\"message\":\"it failed on purpose\"}}]]");
}

static void refusals(void **state)
{
	static const struct {
		const char *body, *says;
	} all[] = {
		{"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}", "max_tokens"},
		{"{\"max_tokens\":1}", "messages"},
		{"{\"max_tokens\":1,\"messages\":[{\"role\":\"user\",\"content\":[]}]}", "blocks"},
		{"{\"max_tokens\":1,\"messages\":[{\"role\":\"fool\",\"content\":\"\"}]}", "role"},
		{"{\"max_tokens\":1,\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":"
		 "\"image\"}]}]}",
		 "image"},
		{"{\"max_tokens\":1,\"messages\":[{\"role\":\"assistant\",\"content\":[{\"type\":"
		 "\"tool_use\"}]}]}",
		 "tool_use must have"},
		{"{\"max_tokens\":1,\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":"
		 "\"tool_result\"}]}]}",
		 "tool_use_id"},
		{"{" HI ",\"tools\":[{\"name\":\"f\"}]}", "input_schema"},
		{"{" HI ",\"tools\":[{\"type\":\"web_search_20250305\",\"name\":\"f\"}]}",
		 "web_search"},
		{"{" HI ",\"tool_choice\":{\"type\":\"any\"}}", "no tools"},
		{"{" HI "," TOOLS ",\"tool_choice\":{\"type\":\"tool\",\"name\":\"g\"}}",
		 "tool_choice.name"},
		{"{" HI ",\"tool_choice\":{\"type\":\"some\"}}", "tool_choice.type"},
		{"{" HI ",\"stop_sequences\":[1]}", "stop_sequences"},
		{"{" HI ",\"thinking\":{\"type\":\"x\"}}", "thinking.type"},
		{"{" HI ",\"system\":3}", "system"},
	};
	(void)state;
	for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
		const fake_reply *r = call("POST", TARGET, all[i].body);
		json_t *j = read_reply(r), *e = json_object_get(j, "error");
		if (r->status != 400 || strcmp(pal__json_get(j, "type"), "error") != 0 ||
		    strcmp(pal__json_get(e, "type"), "invalid_request_error") != 0 ||
		    !strstr(pal__json_get(e, "message"), all[i].says))
			fail_msg("%s: %d %s", all[i].body, r->status, r->body);
		json_decref(j);
	}
	assert_int_equal(fake.runs, 0);
	assert_int_equal(call("POST", TARGET, "{" HI ",\"model\":\"other\"}")->status, 404);
	fake.fails = PAL_EOVERLOAD;
	assert_int_equal(call("POST", TARGET, "{" HI "}")->status, 429);
}

static void memory(void **state)
{
	(void)state;
	fake.script = "<think>\nh\n</think>\n\nS<tool_call>{\"name\":\"f\",\"arguments\":{}}"
		      "</tool_call>";
	survives("POST", TARGET,
		 "{\"max_tokens\":99,\"system\":\"S\",\"messages\":[{\"role\":\"user\",\"content\":"
		 "\"q\"},{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\",\"thinking\":"
		 "\"hm\"},{\"type\":\"text\",\"text\":\"I\"},{\"type\":\"tool_use\",\"id\":\"1\","
		 "\"name\":\"f\",\"input\":{}}]},{\"role\":\"user\",\"content\":[{\"type\":"
		 "\"tool_result\",\"tool_use_id\":\"1\",\"content\":\"one\"},{\"type\":\"text\","
		 "\"text\":\"and?\"}]}]," TOOLS ",\"thinking\":{\"type\":\"enabled\"}}");
	survives("POST", TARGET,
		 "{" HI "," TOOLS ",\"thinking\":{\"type\":\"enabled\"},"
		 "\"stream\":true,\"stop_sequences\":[\"x\"]}");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		ENDPOINT_TEST(prompts),  ENDPOINT_TEST(replies), ENDPOINT_TEST(streams),
		ENDPOINT_TEST(refusals), ENDPOINT_TEST(memory),
	};
	return ENDPOINT_MAIN(tests);
}
