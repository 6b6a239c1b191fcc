#include "expect.h"

#define R "/v1/responses"
#define TOOLS "\"tools\":[{\"type\":\"function\",\"name\":\"f\",\"parameters\":{}}]"
#define USAGE(in, cached, out, thoughts, total)                                               \
	"{\"input_tokens\":" in ",\"output_tokens\":" out ",\"total_tokens\":" total          \
	",\"input_tokens_details\":{\"cached_tokens\":" cached "},\"output_tokens_details\":" \
	"{\"reasoning_tokens\":" thoughts "}}"
#define RESPONSE(status, why, output, previous, rest, usage)                                  \
	"{\"id\":\"resp_#\",\"object\":\"response\",\"created_at\":0,\"status\":\"" status    \
	"\",\"background\":false,\"error\":null,\"incomplete_details\":" why                  \
	",\"model\":\"small\",\"output\":[" output "],\"previous_response_id\":" previous     \
	",\"store\":true,\"truncation\":\"disabled\",\"instructions\":null,"                  \
	"\"max_output_tokens\":null,\"metadata\":{},\"parallel_tool_calls\":true,"            \
	"\"reasoning\":{\"effort\":null,\"summary\":null},\"temperature\":1.0,\"top_p\":1.0," \
	"\"top_logprobs\":0,\"text\":{\"format\":{\"type\":\"text\"}},\"tool_choice\":"       \
	"\"auto\",\"user\":null,\"tools\":" rest ",\"usage\":" usage "}"
#define PART(text) \
	"{\"type\":\"output_text\",\"text\":\"" text "\",\"annotations\":[],\"logprobs\":[]}"
#define MESSAGE(status, parts)                                        \
	"{\"type\":\"message\",\"id\":\"msg_#\",\"status\":\"" status \
	"\",\"role\":\"assistant\",\"content\":[" parts "]}"
#define THOUGHT_PART(text) "{\"type\":\"reasoning_text\",\"text\":\"" text "\"}"
#define THOUGHTS(status, parts)                                        \
	"{\"type\":\"reasoning\",\"id\":\"rs_#\",\"status\":\"" status \
	"\",\"summary\":[],\"content\":[" parts "]}"
#define CALL(status, arguments)                                                              \
	"{\"type\":\"function_call\",\"id\":\"fc_#\",\"call_id\":\"call_#\",\"name\":\"f\"," \
	"\"arguments\":\"" arguments "\",\"status\":\"" status "\"}"
#define EVENT(n, type, rest) \
	"[\"" type "\",{\"type\":\"" type "\",\"sequence_number\":" n "," rest "}]"
#define AT(id, i) "\"item_id\":\"" id "_#\",\"output_index\":" i ",\"content_index\":0,"

static void replies(void **state)
{
	(void)state;
	fake.script = "Hi";
	expect("POST", R, "{\"input\":\"hey\"}", 200,
	       RESPONSE("completed", "null", MESSAGE("completed", PART("Hi")), "null", "[]",
			USAGE("22", "11", "3", "0", "25")));
	assert_string_equal(fake.prompt,
			    "<|im_start|>user\nhey<|im_end|>\n<|im_start|>assistant\n");
	fake.script = "<think>\nh\n</think>\n\nS<tool_call>{\"name\":\"f\",\"arguments\":{}}"
		      "</tool_call>";
	json_t *j = read_reply(call("POST", R,
				    "{\"input\":[{\"role\":\"user\",\"content\":[{\"type\":"
				    "\"input_text\",\"text\":\"hey\"}]}]," TOOLS "}"));
	json_t *want = json_loads("[" THOUGHTS("completed", THOUGHT_PART("h")) "," MESSAGE(
					  "completed", PART("S")) "," CALL("completed", "{}") "]",
				  0, NULL);
	assert_true(json_equal(json_object_get(j, "output"), want));
	json_decref(want);
	json_decref(j);
	fake.script = "abc";
	j = read_reply(call("POST", R, "{\"input\":\"hey\",\"max_output_tokens\":2}"));
	assert_string_equal(pal__json_get(j, "status"), "incomplete");
	assert_string_equal(pal__json_get(json_object_get(j, "incomplete_details"), "reason"),
			    "max_output_tokens");
	json_decref(j);
}

static void streams(void **state)
{
	(void)state;
	fake.script = "a";
	expect("POST", R, "{\"input\":\"hey\",\"stream\":true}", 200,
	       "[" EVENT(
		       "0", "response.created",
		       "\"response\":" RESPONSE(
			       "in_progress", "null", "", "null", "[]",
			       "null")) "," EVENT("1", "response.in_progress",
						  "\"response\":" RESPONSE(
							  "in_progress", "null", "", "null", "[]",
							  "null")) "," EVENT("2",
									     "response.output_item."
									     "added",
									     "\"output_index\":0,"
									     "\"item\":" MESSAGE(
										     "in_progress",
										     "")) "," EVENT("3",
												    "response.content_part.added",
												    AT("msg",
												       "0") "\"part\":" PART("")) "," EVENT("4", "response.output_text.delta", AT("msg", "0") "\"delta\":\"a\",\"logprobs\":[]") "," EVENT("5", "response.output_text.done", AT("msg", "0") "\"text\":\"a\",\"logprobs\":[]") "," EVENT("6", "response.content_part.done", AT("msg", "0") "\"part\":" PART("a")) "," EVENT("7",
																																																			   "response.output_item.done",
																																																			   "\"output_index\":0,\"item\":" MESSAGE("completed",
																																																								  PART("a"))) "," EVENT("8",
																																																											"response.completed",
																																																											"\"response\":" RESPONSE(
																																																												"completed",
																																																												"null", MESSAGE("completed", PART("a")), "null",
																																																												"[]",
																																																												USAGE("22",
																																																												      "11",
																																																												      "2", "0",
																																																												      "24"))) "]");
}

/* The events between the start and the end of a stream with thoughts and a call. */
static void calls(void **state)
{
	(void)state;
	fake.script = "<think>\nh\n</think>\n\n<tool_call>{\"name\":\"f\",\"arguments\":{}}"
		      "</tool_call>";
	json_t *got = read_reply(call("POST", R, "{\"input\":\"hey\",\"stream\":true," TOOLS "}"));
	json_t *want = json_loads(
		"[" EVENT("2", "response.output_item.added", "\"output_index\":0,\"item\":" THOUGHTS("in_progress", "")) "," EVENT(
			"3", "response.content_part.added",
			AT("rs", "0") "\"part\":" THOUGHT_PART(
				"")) "," EVENT("4",
					       "response.reasoning_"
					       "text.delta",
					       AT("rs", "0") "\"delt"
							     "a\":"
							     "\"h\"") "," EVENT("5",
										"response."
										"reasoning_"
										"text.done",
										AT(
											"rs",
											"0") "\"tex"
											     "t\":"
											     "\"h"
											     "\"") "," EVENT("6",
													     "response.content_part.done",
													     AT("rs", "0") "\"part\":" THOUGHT_PART(
														     "h")) "," EVENT("7",
																     "response.output_item.done",
																     "\"output_index\":0,\"item\":" THOUGHTS(
																	     "completed",
																	     THOUGHT_PART("h"))) "," EVENT("8",
																					   "response.output_item.added",
																					   "\"output_index\":1,\"item\":" CALL("in_progress", "")) "," EVENT("9", "response.function_call_arguments.delta", "\"item_id\":\"fc_#\",\"output_index\":1,\"delta\":\"{}\"") "," EVENT("10",
																																												  "response.function_call_arguments.done",
																																												  "\"item_id\":\"fc_#\",\"output_index\":1,\"name\":\"f\",\"arguments\":"
																																												  "\"{}\"") "," EVENT("11",
																																														      "response.output_item.done",
																																														      "\"output_index\":1,\"item\":" CALL(
																																															      "completed",
																																															      "{}")) "]",
		0, NULL);
	assert_non_null(want);
	assert_int_equal(json_array_size(got), 13);
	for (size_t i = 0; i < json_array_size(want); i++)
		if (!json_equal(json_array_get(want, i), json_array_get(got, i + 2)))
			fail_msg("event %d: %s", (int)i + 2,
				 json_dumps(json_array_get(got, i + 2), JSON_COMPACT));
	json_decref(want);
	json_decref(got);
}

/* The id of the last response, and a body that goes on from it. */
static void go_on(char *id, char *body, size_t size, const char *rest)
{
	json_t *j = json_loadb(fake_last.r.body, fake_last.r.n, 0, NULL);
	const char *got = pal__json_get(j, "id");
	assert_non_null(got);
	snprintf(id, 64, "%s", got);
	snprintf(body, size, "{\"previous_response_id\":\"%s\",%s}", id, rest);
	json_decref(j);
}

static void stored(void **state)
{
	char id[64], second[64], body[512], target[256];
	(void)state;
	fake.script = "I call.<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>";
	call("POST", R, "{\"input\":\"q\",\"instructions\":\"Be.\"," TOOLS "}");
	json_t *j = json_loadb(fake_last.r.body, fake_last.r.n, 0, NULL);
	const char *call_id =
		pal__json_get(json_array_get(json_object_get(j, "output"), 1), "call_id");
	assert_non_null(call_id);
	char rest[256];
	snprintf(rest, sizeof rest,
		 "\"input\":[{\"type\":\"function_call_output\",\"call_id\":\"%s\",\"output\":"
		 "\"one\"}]," TOOLS,
		 call_id);
	json_decref(j);
	go_on(id, body, sizeof body, rest);
	fake.script = "Done.";
	assert_int_equal(call("POST", R, body)->status, 200);
	/* instructions are not handed on; the history is */
	assert_null(strstr(fake.prompt, "Be."));
	assert_non_null(strstr(
		fake.prompt, "<|im_end|>\n<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n"
			     "I call.\n<tool_call>\n{\"name\": \"f\", \"arguments\": "
			     "{}}\n</tool_call><|im_end|>\n"
			     "<|im_start|>user\n<tool_response>\none\n</tool_response><|im_end|>\n"
			     "<|im_start|>assistant\n"));
	go_on(second, body, sizeof body, "\"input\":\"more\"");
	assert_int_equal(call("POST", R, body)->status, 200);
	assert_non_null(strstr(fake.prompt, "Done.<|im_end|>\n<|im_start|>user\nmore"));

	snprintf(target, sizeof target, R "/%s", id);
	j = read_reply(call("GET", target, NULL));
	assert_string_equal(pal__json_get(j, "status"), "completed");
	json_decref(j);
	snprintf(target, sizeof target, R "/%s/input_items", id);
	expect("GET", target, NULL, 200,
	       "{\"object\":\"list\",\"data\":[{\"type\":\"message\",\"role\":\"user\",\"content\":"
	       "[{\"type\":\"input_text\",\"text\":\"q\"}],\"id\":\"item_0\"}],\"first_id\":"
	       "\"item_0\",\"last_id\":\"item_0\",\"has_more\":false}");
	snprintf(target, sizeof target, R "/%s", id);
	j = read_reply(call("DELETE", target, NULL));
	assert_true(json_is_true(json_object_get(j, "deleted")));
	json_decref(j);
	refused("GET", target, NULL, 404, "not_found", "", "resp_");
	refused("GET", R "/other", NULL, 404, "not_found", "", "other");
	snprintf(body, sizeof body, "{\"previous_response_id\":\"%s\",\"input\":\"x\"}", id);
	refused("POST", R, body, 400, "previous_response_not_found", "previous_response_id", "");
	/* what is not to be stored is not there */
	call("POST", R, "{\"input\":\"q\",\"store\":false}");
	go_on(id, body, sizeof body, "\"input\":\"x\"");
	refused("POST", R, body, 400, "previous_response_not_found", "previous_response_id", "");
}

static void pages(void **state)
{
	char id[64], body[512], target[256];
	(void)state;
	call("POST", R,
	     "{\"input\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"user\",\"content\":"
	     "\"b\"},"
	     "{\"role\":\"user\",\"content\":\"c\"}]}");
	go_on(id, body, sizeof body, "\"input\":\"x\"");
	snprintf(target, sizeof target, R "/%s/input_items?order=asc&limit=1&after=item_0", id);
	expect("GET", target, NULL, 200,
	       "{\"object\":\"list\",\"data\":[{\"type\":\"message\",\"role\":\"user\",\"content\":"
	       "\"b\",\"id\":\"item_1\"}],\"first_id\":\"item_1\",\"last_id\":\"item_1\","
	       "\"has_more\":true}");
	snprintf(target, sizeof target, R "/%s/input_items?limit=2", id);
	expect("GET", target, NULL, 200,
	       "{\"object\":\"list\",\"data\":[{\"type\":\"message\",\"role\":\"user\",\"content\":"
	       "\"c\",\"id\":\"item_2\"},{\"type\":\"message\",\"role\":\"user\",\"content\":\"b\","
	       "\"id\":\"item_1\"}],\"first_id\":\"item_2\",\"last_id\":\"item_1\","
	       "\"has_more\":true}");
}

static void refusals(void **state)
{
	static const struct {
		const char *body, *code, *param, *says;
	} all[] = {
		{"{}", "invalid_value", "input", "a string"},
		{"{\"input\":[]}", "invalid_value", "input", "empty"},
		{"{\"input\":[{\"type\":\"item_reference\"}]}", "invalid_value", "input[0]",
		 "function_call_output"},
		{"{\"input\":[{\"role\":\"user\",\"content\":[{\"type\":\"input_image\"}]}]}",
		 "unsupported_content", "input[0]", "input_image"},
		{"{\"input\":[{\"type\":\"function_call\"}]}", "invalid_value", "input[0]",
		 "call_id"},
		{"{\"input\":[{\"type\":\"function_call_output\"}]}", "invalid_value", "input[0]",
		 "call_id"},
		{"{\"input\":\"a\",\"background\":true}", "invalid_value", "background", "false"},
		{"{\"input\":\"a\",\"conversation\":\"c\"}", "invalid_value", "conversation",
		 "absent"},
		{"{\"input\":\"a\",\"max_output_tokens\":0}", "invalid_value", "max_output_tokens",
		 "from 1"},
		{"{\"input\":\"a\",\"tools\":[{\"type\":\"web_search\"}]}", "invalid_value",
		 "tools[0]", "function"},
		{"{\"input\":\"a\",\"text\":{\"format\":{\"type\":\"json_schema\"}}}",
		 "invalid_value", "text.format", "schema"},
		{"{\"input\":\"a\",\"reasoning\":{\"effort\":1}}", "invalid_value",
		 "reasoning.effort", "a string"},
	};
	(void)state;
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		refused("POST", R, all[i].body, 400, all[i].code, all[i].param, all[i].says);
	fake.fails = PAL_EIO;
	fake.fails_at = 1;
	const fake_reply *r = call("POST", R, "{\"input\":\"a\",\"stream\":true}");
	assert_non_null(strstr(r->body, "event: error\ndata: {\"message\":\"it failed"));
	assert_null(strstr(r->body, "response.completed"));
}

static void memory(void **state)
{
	(void)state;
	fake.script = "<think>\nh\n</think>\n\nS<tool_call>{\"name\":\"f\",\"arguments\":{}}"
		      "</tool_call>";
	survives("POST", R,
		 "{\"store\":false,\"input\":[{\"role\":\"user\",\"content\":\"q\"},{\"type\":"
		 "\"reasoning\",\"content\":[{\"type\":\"reasoning_text\",\"text\":\"t\"}]},"
		 "{\"role\":\"assistant\",\"content\":\"a\"},{\"type\":\"function_call\",\"call_"
		 "id\":"
		 "\"1\",\"name\":\"f\",\"arguments\":\"{}\"},{\"type\":\"function_call_output\","
		 "\"call_id\":\"1\",\"output\":\"one\"}]," TOOLS "}");
	survives("POST", R,
		 "{\"store\":false,\"stream\":true,\"input\":\"q\",\"top_logprobs\":1," TOOLS "}");
	char id[64], body[128], target[128];
	fake.script = "a";
	call("POST", R, "{\"input\":\"a\"}");
	go_on(id, body, sizeof body, "\"store\":false,\"input\":\"b\"");
	survives("POST", R, body);
	snprintf(target, sizeof target, R "/%s/input_items", id);
	survives("GET", target, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		ENDPOINT_TEST(replies), ENDPOINT_TEST(streams), ENDPOINT_TEST(calls),
		ENDPOINT_TEST(stored),  ENDPOINT_TEST(pages),   ENDPOINT_TEST(refusals),
		ENDPOINT_TEST(memory),
	};
	return ENDPOINT_MAIN(tests);
}
