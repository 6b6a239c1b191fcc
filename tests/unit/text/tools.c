#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "small_vocab.h"
#include "text/chat.h"
#include "text/schema.h"
#include "text/tools.h"

static const char tools_text[] = "[{\"type\":\"function\",\"function\":{\"name\":\"add\","
				 "\"description\":\"Adds.\",\"parameters\":"
				 "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"}"
				 "},\"required\":[\"a\"]}}},"
				 "{\"type\":\"function\",\"function\":{\"name\":\"now\"}}]";

static small_vocab vocab;
static pal__tokenizer *tokens;
static json_t *tools;
static int32_t open_token, close_token;

static int set_up(void **state)
{
	(void)state;
	json_set_alloc_funcs(pal__alloc, pal__free);
	small_byte_level(&vocab, "gpt-2");
	open_token = small_add(&vocab, "<tool_call>", PAL__TOKEN_CONTROL, 0);
	close_token = small_add(&vocab, "</tool_call>", PAL__TOKEN_USER, 0);
	small_add(&vocab, "ll>x", PAL__TOKEN_NORMAL, 0);
	tools = json_loads(tools_text, 0, NULL);
	return pal__tokenizer_new(&vocab.spec, &tokens, NULL);
}

static int tear_down(void **state)
{
	(void)state;
	json_decref(tools);
	pal__tokenizer_free(tokens);
	return 0;
}

/* The text that a model is given is compared with what the templates write, by hand. */
static void told(void **state)
{
	char *text;
	pal_error err;
	(void)state;
	assert_int_equal(pal__tools_system("qwen3", "Be brief.", tools, &text, NULL), 0);
	assert_string_equal(
		text,
		"Be brief.\n\n# Tools\n\nYou may call one or more functions to assist with the "
		"user "
		"query.\n\nYou are provided with function signatures within <tools></tools> XML "
		"tags:\n<tools>\n{\"type\": \"function\", \"function\": {\"name\": \"add\", "
		"\"description\": \"Adds.\", \"parameters\": {\"type\": \"object\", "
		"\"properties\": "
		"{\"a\": {\"type\": \"integer\"}}, \"required\": [\"a\"]}}}\n{\"type\": "
		"\"function\", "
		"\"function\": {\"name\": \"now\"}}\n</tools>\n\nFor each function call, return a "
		"json "
		"object with function name and arguments within <tool_call></tool_call> XML "
		"tags:\n<tool_call>\n{\"name\": <function-name>, \"arguments\": "
		"<args-json-object>}\n</tool_call>");
	pal__free(text);
	assert_int_equal(pal__tools_system("chatml", NULL, tools, &text, NULL), 0);
	assert_ptr_equal(strstr(text, "# Tools\n"), text);
	pal__free(text);
	assert_int_equal(pal__tools_system("llama3", " Be brief.", tools, &text, NULL), 0);
	assert_ptr_equal(strstr(text, "Environment: ipython\n"), text);
	assert_non_null(strstr(text, "Do not use variables.\n\n{\n    \"type\": \"function\",\n"));
	assert_non_null(strstr(text, "\"name\": \"now\"\n    }\n}\n\nBe brief."));
	pal__free(text);
	assert_int_equal(pal__tools_system("gemma", NULL, tools, &text, &err), PAL_EUNSUPPORTED);
	assert_non_null(strstr(err.text, "gemma has no tools"));
	json_t *nothing = json_array(),
	       *nameless = json_loads("[{\"type\":\"function\"}]", 0, NULL);
	assert_int_equal(pal__tools_system("qwen3", NULL, nothing, &text, &err), PAL_EINVAL);
	assert_int_equal(pal__tools_system("qwen3", NULL, nameless, &text, &err), PAL_EINVAL);
	json_decref(nothing);
	json_decref(nameless);
}

static void answered(void **state)
{
	const char *const results[] = {"3 \"x\"", "4"}, *role;
	char *text, *chat;
	size_t n;
	pal_error err;
	json_t *calls =
		json_loads("[{\"function\":{\"name\":\"add\",\"arguments\":\"{\\\"a\\\": 1}\"}},"
			   "{\"function\":{\"name\":\"now\",\"arguments\":\"\"}}]",
			   0, NULL);
	(void)state;
	assert_int_equal(pal__tools_calls("qwen3", "Well.", calls, &text, NULL), 0);
	assert_string_equal(text, "Well.\n<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": "
				  "1}}\n</tool_call>\n<tool_call>\n{\"name\": \"now\", "
				  "\"arguments\": {}}\n</tool_call>");
	pal__free(text);
	assert_int_equal(pal__tools_results("qwen3", results, 2, &role, &text, NULL), 0);
	assert_string_equal(role, "user");
	assert_string_equal(text, "<tool_response>\n3 \"x\"\n</tool_response>\n<tool_response>\n4\n"
				  "</tool_response>");
	pal__free(text);
	assert_int_equal(pal__tools_calls("llama3", NULL, calls, &text, &err), PAL_EUNSUPPORTED);
	json_array_remove(calls, 1);
	assert_int_equal(pal__tools_calls("llama3", NULL, calls, &text, NULL), 0);
	assert_string_equal(text, "{\"name\": \"add\", \"parameters\": {\"a\": 1}}");
	pal__free(text);
	assert_int_equal(pal__tools_results("llama3", results, 2, &role, &text, &err),
			 PAL_EUNSUPPORTED);
	assert_int_equal(pal__tools_results("llama3", results, 1, &role, &text, NULL), 0);
	assert_int_equal(pal__chat_format("llama3", "", &(pal_message){role, text}, 1, false,
					  PAL_THINKING_DEFAULT, &chat, &n, NULL),
			 0);
	assert_string_equal(chat, "<|start_header_id|>ipython<|end_header_id|>\n\n"
				  "\"3 \\\"x\\\"\"<|eot_id|>");
	pal__free(chat);
	pal__free(text);
	json_object_del(json_object_get(json_array_get(calls, 0), "function"), "name");
	assert_int_equal(pal__tools_calls("qwen3", NULL, calls, &text, &err), PAL_EINVAL);
	json_decref(calls);
}

/* Feeds text in pieces of every size: content and calls are the same. calls: "name arguments;" */
static void split(const char *family, const char *text, const char *content, const char *calls)
{
	for (size_t step = 1; step <= strlen(text) + 1; step++) {
		pal__calls *c;
		char said[512] = "", called[512] = "";
		const char *more;
		size_t n_more, n_calls = 0;
		assert_int_equal(pal__calls_new(family, &c, NULL), 0);
		for (size_t at = 0;; at += step) {
			size_t left = at < strlen(text) ? strlen(text) - at : 0;
			size_t n = left < step ? left : step;
			assert_int_equal(
				pal__calls_feed(c, text + at, n, &more, &n_more, &n_calls, NULL),
				0);
			strncat(said, more, n_more);
			if (!n)
				break;
		}
		for (size_t i = 0; i < n_calls; i++)
			snprintf(called + strlen(called), sizeof called - strlen(called), "%s %s;",
				 pal__calls_name(c, i), pal__calls_arguments(c, i));
		assert_string_equal(said, content);
		assert_string_equal(called, calls);
		pal__calls_free(c);
	}
}

#define CALL(name, arguments) \
	"<tool_call>\n{\"name\": \"" name "\", \"arguments\": " arguments "}\n</tool_call>"

static void splits(void **state)
{
	(void)state;
	split("qwen3", "Just text < and <tool.\n", "Just text < and <tool.\n", "");
	split("qwen3", CALL("add", "{\"a\": 1}"), "", "add {\"a\": 1};");
	split("chatml", "Well.\n" CALL("a", "{}") "\n" CALL("b", "{\"x\":[]}") "\n", "Well.",
	      "a {};b {\"x\": []};");
	split("qwen3", "x " CALL("a", "{\"t\":\"</tool_call>\"}"), "x",
	      "a {\"t\": \"</tool_call>\"};");
	split("qwen3", "x <tool_call>no</tool_call> y", "x <tool_call>no</tool_call> y", "");
	split("qwen3", "<tool_call>{\"name\":\"a\"}</tool_call>" CALL("b", "{}"),
	      "<tool_call>{\"name\":\"a\"}</tool_call>", "b {};");
	split("qwen3", "<tool_call>\n{\"name\": \"a\", \"arguments\": {}}", "", "a {};");
	split("qwen3", "ok <tool_call>\n{\"name\"", "ok <tool_call>\n{\"name\"", "");
	split("llama3", "{\"name\": \"add\", \"parameters\": {\"a\": 2}}", "", "add {\"a\": 2};");
	split("llama3", "{\"answer\": 1}", "{\"answer\": 1}", "");
	split("llama3", " Hello {\"name\"", " Hello {\"name\"", "");
	split("llama3", "", "", "");
}

static bool allowed(const uint64_t *mask, int32_t id)
{
	return !mask || mask[id / 64] >> (id % 64) & 1;
}

static pal_constraint *constrain(const char *family, pal__tools_choice choice, const char *only,
				 bool parallel)
{
	pal_constraint *c = NULL;
	pal_error err = {0};
	if (pal__tools_constraint(tokens, family, tools, choice, only, parallel, &c, &err))
		fail_msg("%s", err.text);
	return c;
}

/* Takes the text byte by byte, \1 and \2 for the tokens of the tags; false: one may not come. */
static bool takes(pal_constraint *c, const char *text)
{
	pal__constraint_begin(c);
	for (; *text; text++) {
		int32_t id = *text == 1   ? open_token
			     : *text == 2 ? close_token
					  : small_id(&vocab, vocab.byte_text[(uint8_t)*text]);
		bool may = allowed(pal__constraint_mask(c), id);
		assert_int_equal(pal__constraint_take(c, id), may);
		if (!may)
			return false;
	}
	return true;
}

static bool whole(pal_constraint *c)
{
	return allowed(pal__constraint_mask(c), vocab.spec.eos);
}

static void constrained(void **state)
{
	const char *call = "\n{\"name\": \"add\", \"arguments\": {\"a\":12}}\n</tool_call>";
	char text[512];
	(void)state;
	pal_constraint *c = constrain("qwen3", PAL__TOOLS_REQUIRED, NULL, true);
	assert_false(whole(c));
	assert_false(takes(c, "x"));
	snprintf(text, sizeof text, "<tool_call>%s", call);
	assert_true(takes(c, text));
	assert_true(whole(c));
	assert_false(pal__constraint_done(c));
	snprintf(text, sizeof text, "\1%s\n\1\n{\"name\": \"now\", \"arguments\": {}}\n\2", call);
	assert_true(takes(c, text));
	assert_true(whole(c));
	assert_false(takes(c, "<tool_call>\n{\"name\": \"sub"));
	assert_false(takes(c, "\1\n{\"name\": \"now\", \"arguments\": {\"a"));
	assert_false(takes(c, "\1\n{\"name\": \"add\", \"arguments\": {}"));
	pal_constraint_close(c);

	c = constrain("chatml", PAL__TOOLS_REQUIRED, "now", false);
	assert_false(takes(c, "\1\n{\"name\": \"a"));
	assert_true(takes(c, "\1\n{\"name\": \"now\", \"arguments\": {}}\n\2"));
	assert_true(pal__constraint_done(c));
	pal_constraint_close(c);
}

static void free_until_called(void **state)
{
	(void)state;
	pal_constraint *c = constrain("qwen3", PAL__TOOLS_AUTO, NULL, false);
	const int32_t over = small_id(&vocab, "ll>x");
	assert_null(pal__constraint_mask(c));
	assert_true(takes(c, "Hello <tool <tool_ca"));
	assert_false(allowed(pal__constraint_mask(c), over)); /* it would go on without a call */
	assert_true(allowed(pal__constraint_mask(c), small_id(&vocab, "<s>")));
	assert_true(whole(c));
	assert_true(takes(c, "Hello <tool_cb"));
	assert_null(pal__constraint_mask(c));
	assert_true(pal__constraint_take(c, over));
	assert_false(takes(c, "Hi <tool_call>x"));
	assert_false(takes(c, "Hi <<tool_call>\nx"));
	assert_false(takes(c, "Hi \1x"));
	assert_true(takes(c, "Hi \1\n{\"name\": \"add\", \"arguments\": {\"a\": 0}}\n\2"));
	assert_true(pal__constraint_done(c));
	assert_true(pal__constraint_take(c, vocab.spec.eos));
	pal_constraint_close(c);

	c = constrain("llama3", PAL__TOOLS_AUTO, NULL, false);
	assert_true(whole(c));
	assert_true(takes(c, "Hi {\"name\""));
	assert_null(pal__constraint_mask(c));
	assert_false(takes(c, "{\"x"));
	assert_true(takes(c, "{\"name\": \"now\", \"parameters\": {}}"));
	assert_true(pal__constraint_done(c));
	pal_constraint_close(c);
	c = constrain("llama3", PAL__TOOLS_REQUIRED, NULL, true);
	assert_false(takes(c, "H"));
	pal_constraint_close(c);
}

static void refusals(void **state)
{
	pal_constraint *c = NULL;
	pal_error err = {0};
	json_t *bad =
		json_loads("[{\"function\":{\"name\":\"f\",\"parameters\":{\"not\":1}}}]", 0, NULL);
	json_t *twice = json_loads(
		"[{\"function\":{\"name\":\"f\"}},{\"function\":{\"name\":\"f\"}}]", 0, NULL);
	(void)state;
	assert_int_equal(pal__tools_constraint(tokens, "gemma", tools, PAL__TOOLS_AUTO, NULL, true,
					       &c, &err),
			 PAL_EUNSUPPORTED);
	assert_int_equal(pal__tools_constraint(tokens, "qwen3", tools, PAL__TOOLS_AUTO, "sub", true,
					       &c, &err),
			 PAL_EINVAL);
	assert_non_null(strstr(err.text, "no tool called sub"));
	assert_int_equal(
		pal__tools_constraint(tokens, "qwen3", bad, PAL__TOOLS_AUTO, NULL, true, &c, &err),
		PAL_EUNSUPPORTED);
	assert_non_null(strstr(err.text, "the parameters of f: keyword \"not\""));
	assert_int_equal(pal__tools_constraint(tokens, "qwen3", twice, PAL__TOOLS_AUTO, NULL, true,
					       &c, &err),
			 PAL_EINVAL);
	assert_null(c);
	json_decref(bad);
	json_decref(twice);
}

/* Everything once; the status of the first failure. */
static pal_status everything(pal_error *err)
{
	static const char reply[] = "Well. " CALL("add", "{\"a\": 1}");
	char *text = NULL;
	const char *content;
	size_t n, n_calls;
	pal_constraint *c = NULL;
	pal__calls *calls = NULL;
	pal_status s = pal__tools_system("llama3", "x", tools, &text, err);
	pal__free(text);
	if (!s)
		s = pal__calls_new("qwen3", &calls, err);
	if (!s)
		s = pal__calls_feed(calls, reply, strlen(reply), &content, &n, &n_calls, err);
	if (!s)
		s = pal__tools_constraint(tokens, "qwen3", tools, PAL__TOOLS_AUTO, NULL, true, &c,
					  err);
	pal__calls_free(calls);
	pal_constraint_close(c);
	return s;
}

static void out_of_memory(void **state)
{
	pal_error err;
	(void)state;
	assert_int_equal(everything(&err), PAL_OK); /* the trie stays */
	int64_t live = pal__mem_live();
	for (int64_t n = 0;; n++) {
		pal__mem_fail_after(n);
		pal_status s = everything(&err);
		bool hit = pal__mem_failed();
		pal__mem_fail_after(-1);
		assert_int_equal(pal__mem_live(), live);
		if (!hit)
			break;
		/* what jansson could not read for want of memory, it may take for a wrong text */
		assert_true(s == PAL_ENOMEM || s == PAL_OK);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(told),
					   cmocka_unit_test(answered),
					   cmocka_unit_test(splits),
					   cmocka_unit_test(constrained),
					   cmocka_unit_test(free_until_called),
					   cmocka_unit_test(refusals),
					   cmocka_unit_test(out_of_memory)};
	return cmocka_run_group_tests_name("text/tools", tests, set_up, tear_down);
}
