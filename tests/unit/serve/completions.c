#include "expect.h"

#define TARGET "/v1/completions"
#define HEAD "{\"id\":\"cmpl-#\",\"object\":\"text_completion\",\"created\":0,\"model\":\"small\","
#define CHOICE(i, text, finish) \
	"{\"index\":" i ",\"text\":\"" text "\",\"logprobs\":null,\"finish_reason\":" finish "}"
#define USAGE(prompt, completion, total, cached)                                                \
	"\"usage\":{\"prompt_tokens\":" prompt ",\"completion_tokens\":" completion             \
	",\"total_tokens\":" total ",\"prompt_tokens_details\":{\"cached_tokens\":" cached "}," \
	"\"completion_tokens_details\":{\"reasoning_tokens\":0}}"

static void replies(void **state)
{
	(void)state;
	fake.script = "xy";
	expect("POST", TARGET, "{\"prompt\":\"ab\"}", 200,
	       HEAD
	       "\"choices\":[" CHOICE("0", "xy", "\"stop\"") "]," USAGE("2", "3", "5", "1") "}");
	assert_string_equal(fake.prompt, "ab");
	assert_int_equal(fake.max_tokens, 16);
	expect("POST", TARGET, "{\"prompt\":[[65],[66,67]],\"n\":2,\"echo\":true,\"max_tokens\":1}",
	       200,
	       HEAD
	       "\"choices\":[" CHOICE("0", "Ax", "\"length\"") "," CHOICE("1", "Ax", "\"length\"") "," CHOICE(
		       "2", "BCx", "\"length\"") "," CHOICE("3", "BCx",
							    "\"length\"") "]," USAGE("3", "4", "7",
										     "1") "}");
	expect("POST", TARGET, "{\"prompt\":[\"a\",\"b\"],\"stop\":[\"y\"]}", 200,
	       HEAD "\"choices\":[" CHOICE("0", "x", "\"stop\"") "," CHOICE(
		       "1", "x", "\"stop\"") "]," USAGE("2", "4", "6", "0") "}");
	/* nothing is generated */
	expect("POST", TARGET, "{\"prompt\":[66,67],\"echo\":true,\"max_tokens\":0}", 200,
	       HEAD
	       "\"choices\":[" CHOICE("0", "BC", "\"length\"") "]," USAGE("2", "0", "2", "1") "}");
	fake.script = "yz";
	expect("POST", TARGET, "{\"prompt\":\"a\",\"logprobs\":2,\"max_tokens\":2}", 200,
	       HEAD "\"choices\":[{\"index\":0,\"text\":\"yz\",\"logprobs\":{\"tokens\":[\"y\","
		    "\"z\"],\"token_logprobs\":[-0.5,-0.5],\"top_logprobs\":[{\"y\":-0.5,\"x\":"
		    "-1.5},{\"z\":-0.5,\"x\":-1.5}],\"text_offset\":[0,1]},\"finish_reason\":"
		    "\"length\"}]," USAGE("1", "2", "3", "0") "}");
}

static void streams(void **state)
{
	(void)state;
	fake.script = "x";
	expect("POST", TARGET, "{\"prompt\":[65],\"stream\":true,\"echo\":true,\"n\":2}", 200,
	       "[[\"\"," HEAD
	       "\"choices\":[" CHOICE("0", "A", "null") "]}],[\"\"," HEAD "\"choices\":[" CHOICE(
		       "0", "x",
		       "null") "]}],[\"\"," HEAD
			       "\"choices\":[" CHOICE(
				       "0", "",
				       "\"stop\"") "]}],[\"\"," HEAD
						   "\"choices\":[" CHOICE(
							   "1", "A",
							   "null") "]}],[\"\"," HEAD
								   "\"choices\":[" CHOICE(
									   "1", "x",
									   "null") "]}],[\"\"," HEAD
										   "\"choices\":"
										   "[" CHOICE(
											   "1", "",
											   "\"stop"
											   "\"") "]"
												 "}"
												 "]"
												 ","
												 "["
												 "\"\",\"[DONE]\"]]");
	fake.fails = PAL_EIO;
	fake.fails_at = 1;
	const fake_reply *r = call("POST", TARGET, "{\"prompt\":[65],\"stream\":true}");
	assert_non_null(strstr(r->body, "data: {\"error\":"));
}

static void refusals(void **state)
{
	static const struct {
		const char *body, *code, *param, *says;
	} all[] = {
		{"{}", "invalid_value", "prompt", "a string"},
		{"{\"prompt\":\"\"}", "invalid_value", "prompt", "empty"},
		{"{\"prompt\":[]}", "invalid_value", "prompt", "empty"},
		{"{\"prompt\":[1,\"a\"]}", "invalid_value", "prompt", "token ids"},
		{"{\"prompt\":[\"a\",1]}", "invalid_value", "prompt", "item 1"},
		{"{\"prompt\":[-1]}", "invalid_value", "prompt", "item 0"},
		{"{\"prompt\":[100000]}", "invalid_value", "prompt", "item 0"},
		{"{\"prompt\":{}}", "invalid_value", "prompt", "a string"},
		{"{\"prompt\":\"a\",\"suffix\":\"b\"}", "unsupported_parameter", "suffix",
		 "absent"},
		{"{\"prompt\":\"a\",\"best_of\":3}", "invalid_value", "best_of", "equal to n"},
		{"{\"prompt\":\"a\",\"echo\":true,\"logprobs\":1}", "invalid_value", "logprobs",
		 "echo"},
		{"{\"prompt\":\"a\",\"logprobs\":21}", "invalid_value", "logprobs", "0 to 20"},
	};
	(void)state;
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		refused("POST", TARGET, all[i].body, 400, all[i].code, all[i].param, all[i].says);
	assert_int_equal(fake.runs, 0);
}

static void memory(void **state)
{
	(void)state;
	fake.script = "ab";
	survives("POST", TARGET, "{\"prompt\":[\"a\",\"b\"],\"n\":2,\"echo\":true}");
	survives("POST", TARGET, "{\"prompt\":[65],\"logprobs\":1,\"stop\":\"b\"}");
	survives("POST", TARGET, "{\"prompt\":[65],\"logprobs\":1,\"stream\":true}");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		ENDPOINT_TEST(replies),
		ENDPOINT_TEST(streams),
		ENDPOINT_TEST(refusals),
		ENDPOINT_TEST(memory),
	};
	return ENDPOINT_MAIN(tests);
}
