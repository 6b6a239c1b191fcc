#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/mem.h"
#include "small_vocab.h"
#include "text/constraint.h"
#include "text/readings.h"
#include "text/schema.h"
#include "text/trie.h"

static small_vocab vocab;
static pal__tokenizer *tokens;

/* Bytes, and tokens that cross borders of what a schema makes. */
static int set_up(void **state)
{
	static const char *const crossing[] = {"\":",  "\",\"", "\"}",   "}}", "\xc3\xa9\"",
					       "{\"a", "[[",    "],",    "1,", "true}",
					       "\\\"", "\\u00", "aaaa\""};
	(void)state;
	json_set_alloc_funcs(pal__alloc, pal__free);
	small_byte_level(&vocab, "gpt-2");
	for (size_t i = 0; i < sizeof crossing / sizeof *crossing; i++)
		small_add(&vocab, crossing[i], PAL__TOKEN_NORMAL, 0);
	return pal__tokenizer_new(&vocab.spec, &tokens, NULL);
}

static int tear_down(void **state)
{
	(void)state;
	pal__tokenizer_free(tokens);
	return 0;
}

static pal_constraint *open_schema(const char *schema)
{
	pal_constraint *c = NULL;
	pal_error err = {0};
	if (pal__constraint_json(tokens, schema, strlen(schema), &c, &err))
		fail_msg("%s: %s", schema, err.text);
	return c;
}

static bool allowed(const uint64_t *mask, int32_t id)
{
	return mask[id / 64] >> (id % 64) & 1;
}

static int32_t byte_token(uint8_t byte)
{
	return small_id(&vocab, vocab.byte_text[byte]);
}

/* Whether the text is one of the schema's, byte by byte, each allowed by the mask; *n: how many of
 * its bytes may come. */
static bool is_text(pal_constraint *c, const char *text, size_t *n)
{
	const int32_t end = vocab.spec.eos;
	pal__constraint_begin(c);
	for (*n = 0; text[*n]; ++*n) {
		int32_t id = byte_token((uint8_t)text[*n]);
		bool may = allowed(pal__constraint_mask(c), id);
		assert_int_equal(pal__constraint_take(c, id), may);
		if (!may)
			return false;
	}
	bool whole = allowed(pal__constraint_mask(c), end);
	assert_int_equal(pal__constraint_take(c, end), whole);
	assert_true(whole || !pal__constraint_done(c));
	return whole;
}

/* Texts one per line: those of the schema, and then those that are not. */
static void expect(const char *schema, const char *const *good, const char *const *bad)
{
	pal_constraint *c = open_schema(schema);
	size_t n;
	for (; *good; good++)
		if (!is_text(c, *good, &n))
			fail_msg("%s: %s is refused at byte %zu", schema, *good, n);
	for (; *bad; bad++)
		if (is_text(c, *bad, &n))
			fail_msg("%s: %s is allowed", schema, *bad);
	pal_constraint_close(c);
}

#define TEXTS(...)                \
	(const char *const[])     \
	{                         \
		__VA_ARGS__, NULL \
	}

static void values(void **state)
{
	(void)state;
	expect("true", TEXTS("1", "-0.5e+10", "\"a\"", "null", "[]", "{}", "[1, {\"a\": null}]"),
	       TEXTS("", "01", "1.", "nul", "[1,]", "{\"a\"}", "[ 1]", "{\"a\" :1}", "+1", " 1"));
	expect("", TEXTS("{}", "{\"a\":[true]}"), TEXTS("[]", "1"));
	expect("{\"type\":\"string\"}",
	       TEXTS("\"\"", "\"\xc3\xa9\xf0\x9f\x98\x80\"", "\"\\n\\/\\u00e9\\uD83d\\uDE00\""),
	       TEXTS("\"\xc3\"", "\"\xed\xa0\x80\"", "\"\\ud83d\"", "\"\\ude00\"", "\"\\u0000\"",
		     "\"\n\"", "\"\xc0\xaf\"", "\"\\x\"", "\"\\ud83d\\u0041\""));
	expect("{\"type\":\"string\",\"minLength\":2,\"maxLength\":3}",
	       TEXTS("\"ab\"", "\"\xc3\xa9\xc3\xa9\xc3\xa9\"", "\"\\ud83d\\ude00\\n\""),
	       TEXTS("\"a\"", "\"abcd\"", "\"\xf0\x9f\x98\x80\""));
	expect("{\"type\":[\"boolean\",\"null\"]}", TEXTS("true", "false", "null"),
	       TEXTS("1", "tru"));
	expect("{\"enum\":[\"a\\nb\",1,1.5,{\"k\":[]},[\"x\",2],null],\"type\":[\"string\","
	       "\"object\","
	       "\"array\",\"number\"]}",
	       TEXTS("\"a\\nb\"", "1", "1.5", "{\"k\": []}", "[\"x\",2]"),
	       TEXTS("null", "{}", "[\"x\"]", "\"a\"", "1.0"));
	expect("{\"const\":\"\xc3\xa9\\\"\"}", TEXTS("\"\xc3\xa9\\\"\""), TEXTS("\"\\u00e9\\\"\""));
}

static void numbers(void **state)
{
	(void)state;
	expect("{\"type\":\"integer\"}", TEXTS("0", "-7", "123456789012345678"),
	       TEXTS("-0", "1.0", "1e3", "1234567890123456789"));
	expect("{\"type\":\"integer\",\"minimum\":-12,\"exclusiveMaximum\":305}",
	       TEXTS("-12", "-9", "0", "99", "300", "304"), TEXTS("-13", "305", "1000", "-100"));
	expect("{\"type\":\"integer\",\"minimum\":7.5,\"maximum\":9.5}", TEXTS("8", "9"),
	       TEXTS("7", "10"));
	expect("{\"type\":\"number\",\"minimum\":0,\"maximum\":1}",
	       TEXTS("0", "0.25", "1", "1.00", "0.0"), TEXTS("-0.1", "1.1", "2", "1e0"));
	expect("{\"type\":\"number\",\"exclusiveMinimum\":-1,\"exclusiveMaximum\":2}",
	       TEXTS("-0.9", "0", "1.99"), TEXTS("-1", "-1.0", "2", "2.0"));
	expect("{\"type\":\"number\",\"exclusiveMinimum\":0}", TEXTS("0.01", "1", "12345.5"),
	       TEXTS("0", "0.0", "-1"));
	for (int lo = -25; lo <= 25; lo++) { /* all of them */
		char schema[96], text[8];
		size_t n;
		int hi = lo + (lo + 25) * 3;
		snprintf(schema, sizeof schema,
			 "{\"type\":\"integer\",\"minimum\":%d,\"maximum\":%d}", lo, hi);
		pal_constraint *c = open_schema(schema);
		for (int i = -200; i <= 200; i++) {
			snprintf(text, sizeof text, "%d", i);
			assert_int_equal(is_text(c, text, &n), lo <= i && i <= hi);
		}
		pal_constraint_close(c);
	}
}

static void objects(void **state)
{
	(void)state;
	expect("{\"properties\":{\"a\":{\"type\":\"null\"},\"b\":true,\"c\":{\"const\":1}},"
	       "\"required\":[\"b\"]}",
	       TEXTS("{\"b\":1}", "{\"a\": null, \"b\": [], \"c\": 1}", "{\"b\":{},\"c\":1}"),
	       TEXTS("{}", "{\"a\":null}", "{\"b\":1,\"a\":null}", "{\"b\":1,\"d\":1}",
		     "{\"b\":1,\"b\":1}", "{,\"b\":1}"));
	expect("{\"type\":\"object\",\"properties\":{\"ab\":{\"const\":1}},"
	       "\"additionalProperties\":{\"const\":2}}",
	       TEXTS("{}", "{\"ab\":1}", "{\"ab\":1,\"a\":2}", "{\"abc\":2,\"\":2,\"\xc3\xa9\":2}",
		     "{\"\\n\":2}", "{\"\\\"\":2}"),
	       TEXTS("{\"ab\":2}", "{\"abc\":1}", "{\"\\u0061b\":2}", "{\"a\":2,\"ab\":1}"));
	expect("{\"type\":\"object\",\"properties\":{\"\xc3\xa9\":true,\"\xc3\xa8\\\"\":true},"
	       "\"additionalProperties\":{\"const\":2}}",
	       TEXTS("{\"\xc3\xaa\":2}", "{\"\xc3\xa8\":2}", "{\"\xc3\xa8\\\"\":1}"),
	       TEXTS("{\"z\":2,\"\xc3\xa9\":2}", "{\"z\":2,\"\xc3\xa8\\\"\":2}"));
	expect("{\"type\":\"object\",\"required\":[\"x\"]}",
	       TEXTS("{\"x\":1}", "{\"x\":1,\"y\":2}"), TEXTS("{}", "{\"y\":1}"));
}

static void arrays(void **state)
{
	(void)state;
	expect("{\"type\":\"array\",\"items\":{\"type\":\"integer\"},\"minItems\":1,\"maxItems\":"
	       "3}",
	       TEXTS("[1]", "[1,2]", "[1, 2,3]"), TEXTS("[]", "[1,2,3,4]", "[1,]", "[null]"));
	expect("{\"prefixItems\":[{\"const\":1},{\"const\":2}],\"items\":{\"const\":3},"
	       "\"maxItems\":4}",
	       TEXTS("[]", "[1]", "[1,2]", "[1,2,3,3]"), TEXTS("[2]", "[1,3]", "[1,2,3,3,3]"));
	expect("{\"prefixItems\":[{\"const\":1},{\"const\":2}],\"minItems\":1}",
	       TEXTS("[1]", "[1,2]"), TEXTS("[]", "[1,2,3]"));
	expect("{\"prefixItems\":[{\"const\":1}],\"minItems\":3}", TEXTS("[1,2,3]", "[1,2,3,4]"),
	       TEXTS("[1]", "[1,2]"));
	expect("{\"type\":\"array\",\"maxItems\":0}", TEXTS("[]"), TEXTS("[1]"));
}

static void combinations(void **state)
{
	(void)state;
	expect("{\"anyOf\":[{\"type\":\"integer\"},{\"enum\":[\"a\",\"ab\"]},{\"type\":\"string\","
	       "\"pattern\":\"^x\"}]}",
	       TEXTS("12", "\"a\"", "\"ab\"", "\"xyz\""), TEXTS("\"b\"", "\"abc\"", "1.5"));
	expect("{\"oneOf\":[{\"properties\":{\"k\":{\"const\":1},\"v\":{\"type\":\"null\"}},"
	       "\"required\":"
	       "[\"k\"]},{\"properties\":{\"k\":{\"const\":2},\"w\":true},\"required\":[\"k\","
	       "\"w\"]}]}",
	       TEXTS("{\"k\":1}", "{\"k\":2,\"w\":0}"), TEXTS("{\"k\":2}", "{\"k\":1,\"w\":0}"));
	expect("{\"allOf\":[{\"properties\":{\"a\":{\"type\":\"number\"}},\"required\":[\"a\"]},"
	       "{\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":true}},{\"$ref\":\"#/$defs/"
	       "c\"}],"
	       "\"$defs\":{\"c\":{\"required\":[\"b\"]}}}",
	       TEXTS("{\"a\":1,\"b\":2}"), TEXTS("{\"a\":1.5,\"b\":2}", "{\"a\":1}"));
	expect("{\"$ref\":\"#/definitions/x~1y\",\"definitions\":{\"x/y\":{\"type\":\"object\","
	       "\"properties\":{\"next\":{\"anyOf\":[{\"$ref\":\"#/definitions/"
	       "x~1y\"},{\"type\":\"null\"}]}},"
	       "\"required\":[\"next\"]}}}",
	       TEXTS("{\"next\":null}", "{\"next\":{\"next\":{\"next\":null}}}"),
	       TEXTS("{}", "{\"next\":{}}"));
	expect("{\"anyOf\":[{\"$ref\":\"#\"},{\"const\":1}]}", TEXTS("1"), TEXTS("2"));
	/* readings that many calls have in common */
	expect("{\"anyOf\":[{\"properties\":{\"a\":{\"$ref\":\"#\"}},\"required\":[\"a\"]},{"
	       "\"properties\":{"
	       "\"a\":{\"$ref\":\"#\"},\"b\":{\"const\":1}},\"required\":[\"a\",\"b\"]},{\"const\":"
	       "{}}]}",
	       TEXTS("{}", "{\"a\":{\"a\":{\"a\":{\"a\":{},\"b\":1}},\"b\":1}}"),
	       TEXTS("{\"b\":1}", "{\"a\":{\"a\":{},\"b\":2}}"));
}

static void patterns(void **state)
{
	(void)state;
	expect("{\"pattern\":\"^(ab|c)+\\\\d{2,3}[^x-z]?$\",\"type\":\"string\"}",
	       TEXTS("\"ab12\"", "\"cab123\"", "\"c00\xc3\xa9\"", "\"c00\\n\""),
	       TEXTS("\"12\"", "\"ab1\"", "\"c00x\"", "\"c00\\u0061\""));
	expect("{\"pattern\":\"b\",\"maxLength\":3}", TEXTS("\"b\"", "\"abc\"", "\"\\\"b\""),
	       TEXTS("\"\"", "\"aaa\"", "\"abcd\""));
	expect("{\"pattern\":\"^(..)*$\",\"minLength\":3,\"maxLength\":5}", TEXTS("\"abcd\""),
	       TEXTS("\"abc\"", "\"ab\"", "\"abcde\"", "\"abcdef\""));
	expect("{\"pattern\":\"^a|b$\"}", TEXTS("\"axx\"", "\"xxb\""), TEXTS("\"xax\"", "\"bx\""));
	expect("{\"pattern\":\"^[\\\\w\\\\-.]*?\\\\s\\\\u00e9(?:x|)$\"}",
	       TEXTS("\"a-. \xc3\xa9\"", "\"\xc2\xa0\xc3\xa9x\""), TEXTS("\"a,\""));
	expect("{\"format\":\"date\",\"type\":\"string\"}", TEXTS("\"2024-12-31\""),
	       TEXTS("\"2024-13-01\"", "\"2024-02-30\"", "\"2024-1-1\""));
	expect("{\"format\":\"ipv4\"}", TEXTS("\"0.255.19.7\""),
	       TEXTS("\"256.1.1.1\"", "\"01.1.1.1\""));
	expect("{\"format\":\"email\"}", TEXTS("\"a.b@c-d.org\""), TEXTS("\"a@b\"", "\"@c.de\""));
	expect("{\"format\":\"date-time\"}", TEXTS("\"2024-01-01T00:00:59.5+01:00\""),
	       TEXTS("\"2024-01-01\""));
	expect("{\"format\":\"uuid\"}", TEXTS("\"01234567-89ab-cdef-0123-456789ABCDEF\""),
	       TEXTS("\"0123\""));
	expect("{\"format\":\"colour\"}", TEXTS("\"any\""), TEXTS("1"));
}

static void refused(const char *schema, pal_status status, const char *says)
{
	pal_constraint *c = NULL;
	pal_error err = {0};
	int64_t live = pal__mem_live();
	pal_status s = pal__constraint_json(tokens, schema, strlen(schema), &c, &err);
	if (s != status || !strstr(err.text, says))
		fail_msg("%s: %d, \"%s\" does not say \"%s\"", schema, s, err.text, says);
	assert_int_equal(err.code, status);
	assert_null(c);
	if (pal__mem_live() != live)
		fail_msg("%s: memory is lost", schema);
}

static void refusals(void **state)
{
	char deep[4096] = "", wide[4096], part[96];
	(void)state;
	refused("{", PAL_EINVAL, "no JSON");
	refused("1", PAL_EINVAL, "there must be a schema");
	refused("false", PAL_EINVAL, "nothing satisfies");
	refused("{\"properties\":{\"a\":{\"not\":{}}}}", PAL_EUNSUPPORTED,
		"keyword \"not\" at #/properties/a is not supported");
	refused("{\"type\":\"strin\"}", PAL_EINVAL, "\"type\" at #");
	refused("{\"multipleOf\":2}", PAL_EUNSUPPORTED, "multipleOf");
	refused("{\"minLength\":-1}", PAL_EINVAL, "minLength");
	refused("{\"$ref\":\"#/$defs/x\"}", PAL_EINVAL, "refers to nothing");
	refused("{\"$ref\":\"other.json\"}", PAL_EINVAL, "refers to nothing");
	refused("{\"$ref\":\"#\"}", PAL_EINVAL, "nothing satisfies");
	refused("{\"properties\":{\"a\":{\"$ref\":\"#\"}},\"required\":[\"a\"]}", PAL_EINVAL,
		"nothing satisfies");
	refused("{\"type\":\"string\",\"minLength\":3,\"maxLength\":2}", PAL_EINVAL, "nothing");
	refused("{\"allOf\":[{\"type\":\"string\"},{\"type\":\"null\"}]}", PAL_EINVAL, "nothing");
	refused("{\"oneOf\":[{\"type\":\"number\"},{\"type\":\"integer\"}]}", PAL_EUNSUPPORTED,
		"oneOf");
	refused("{\"pattern\":\"(?=a)\"}", PAL_EUNSUPPORTED, "(?=a)");
	refused("{\"pattern\":\"a\\\\b\"}", PAL_EUNSUPPORTED, "escape");
	refused("{\"pattern\":\"(a\"}", PAL_EINVAL, "does not end");
	refused("{\"pattern\":\"[a\"}", PAL_EINVAL, "ends too soon");
	refused("{\"pattern\":\"*\"}", PAL_EINVAL, "nothing to repeat");
	refused("{\"pattern\":\"(((){1000}){1000}){1000}\"}", PAL_ELIMIT, "too often");
	refused("{\"pattern\":\"(\\\\w{900}){900}\"}", PAL_ELIMIT, "too long");
	refused("{\"type\":\"number\",\"minimum\":0.5}", PAL_EUNSUPPORTED, "limits");
	refused("{\"enum\":[1],\"minimum\":0}", PAL_EUNSUPPORTED, "enumeration");
	for (int i = 0; i < 200; i++)
		strcat(deep, "{\"items\":");
	for (int i = 0; i < 200; i++)
		strcat(deep, i ? "}" : "1}");
	refused(deep, PAL_ELIMIT, "in each other");
	/* two to the power of 24 combinations */
	snprintf(wide, sizeof wide, "{\"allOf\":[true");
	for (int i = 0; i < 24; i++) {
		snprintf(part, sizeof part, ",{\"anyOf\":[{\"minLength\":%d},{\"maxLength\":%d}]}",
			 i, 99 + i);
		strcat(wide, part);
	}
	strcat(wide, "]}");
	refused(wide, PAL_ELIMIT, "more than");
}

/* --- masks ---------------------------------------------------------------- */

/* Each token is allowed when its bytes can be read, one by one. */
static void compare(pal__readings *r, const pal__place *at, const uint64_t *mask)
{
	for (int32_t id = 0; id < (int32_t)vocab.spec.n_tokens; id++) {
		pal__str s = pal__token_bytes(tokens, id);
		pal__place p = *at;
		bool fits = s.n > 0 && !pal__token_is_special(tokens, id);
		for (size_t i = 0; i < s.n && fits; i++)
			fits = pal__readings_move(r, &p, (uint8_t)s.s[i]) == 1;
		if (pal__token_is_end(tokens, id))
			fits = r->sets[at->at].flags & PAL__SET_WHOLE;
		if (fits != allowed(mask, id))
			fail_msg("token %d (%.*s) is%s allowed", id, (int)s.n, s.s,
				 fits ? " not" : "");
	}
}

static void masks(void **state)
{
	static const struct {
		const char *schema, *text;
	} cases[] = {
		{"true", "[{\"aa\": [1, [[\"\xc3\xa9\\u00e9\\\"\", true], -1.5e3]], \"b\": {}}]"},
		{"{\"properties\":{\"a\":{\"type\":\"string\",\"maxLength\":130},\"aaaa\":{"
		 "\"type\":"
		 "\"array\",\"items\":{\"type\":\"integer\"},\"maxItems\":3}},\"required\":["
		 "\"aaaa\"]}",
		 "{\"a\":\"aaaaaaaa\xc3\xa9\", \"aaaa\":[1, 12,0]}"},
	};
	(void)state;
	for (size_t i = 0; i < 2; i++) {
		pal__form form;
		pal__readings r;
		pal_constraint *c = open_schema(cases[i].schema);
		assert_int_equal(
			pal__schema_form(cases[i].schema, strlen(cases[i].schema), &form, NULL), 0);
		assert_int_equal(pal__readings_init(&r, &form, NULL), 0);
		pal__readings_forget(&r, NULL);
		pal__place at = pal__readings_start(&r);
		for (const char *t = cases[i].text; *t; t++) {
			compare(&r, &at, pal__constraint_mask(c));
			assert_true(pal__constraint_take(c, byte_token((uint8_t)*t)));
			assert_int_equal(pal__readings_move(&r, &at, (uint8_t)*t), 1);
		}
		compare(&r, &at, pal__constraint_mask(c));
		assert_true(pal__constraint_done(c));
		pal__readings_free(&r);
		pal_constraint_close(c);
	}
}

/* Long texts of ever new states: more than is remembered at once. */
static void forgetting(void **state)
{
	pal_constraint *c = open_schema("{\"type\":\"string\",\"minLength\":40000}");
	(void)state;
	assert_true(pal__constraint_take(c, byte_token('"')));
	for (int i = 0; i < 40000; i++) {
		if (i % 1000 == 0 || i > 39990)
			assert_false(allowed(pal__constraint_mask(c), byte_token('"')));
		assert_true(pal__constraint_take(c, byte_token('x')));
	}
	assert_true(allowed(pal__constraint_mask(c), byte_token('"')));
	assert_false(pal__constraint_done(c));
	assert_true(pal__constraint_take(c, byte_token('"')));
	assert_true(pal__constraint_done(c));
	pal_constraint_close(c);
}

/* As deep as may be, and out again. */
static void depth(void **state)
{
	pal_constraint *c = open_schema("true");
	int n = 0;
	(void)state;
	while (allowed(pal__constraint_mask(c), byte_token('['))) {
		assert_true(pal__constraint_take(c, byte_token('[')));
		n++;
	}
	assert_int_equal(n, PAL__FORM_DEPTH);
	assert_false(pal__constraint_take(c, byte_token('"')));
	assert_false(pal__constraint_take(c, small_id(&vocab, "[[")));
	assert_true(pal__constraint_take(c, byte_token('1')));
	while (n--)
		assert_true(pal__constraint_take(c, byte_token(']')));
	assert_true(pal__constraint_done(c));
	assert_false(pal__constraint_take(c, -1));
	assert_false(pal__constraint_take(c, (int32_t)vocab.spec.n_tokens));
	pal_constraint_close(c);
}

static void vocabularies(void **state)
{
	static small_vocab few;
	pal__tokenizer *t;
	pal_constraint *c = NULL;
	pal_error err = {0};
	(void)state;
	small_start(&few, "gpt2", "gpt-2");
	small_add(&few, "a", PAL__TOKEN_NORMAL, 0);
	assert_int_equal(pal__tokenizer_new(&few.spec, &t, NULL), 0);
	assert_int_equal(pal__constraint_json(t, "", 0, &c, &err), PAL_EUNSUPPORTED);
	assert_non_null(strstr(err.text, "no token for the byte"));
	pal__tokenizer_free(t);
}

static void out_of_memory(void **state)
{
	static const char schema[] =
		"{\"type\":\"object\",\"properties\":{\"a\":{\"anyOf\":[{\"type\":\"string\","
		"\"pattern\":"
		"\"a[b-d]+\"},{\"enum\":[1,[2],{\"x\":\"y\"}]}]},\"b\":{\"allOf\":[{\"type\":"
		"\"array\"},{"
		"\"items\":{\"$ref\":\"#\"}}]}},\"additionalProperties\":{\"type\":\"integer\"},"
		"\"required\":[\"q\"]}";
	(void)state;
	pal_constraint_close(open_schema("")); /* the trie stays */
	int64_t live = pal__mem_live();
	for (int64_t n = 0;; n++) {
		pal_constraint *c = NULL;
		pal_error err = {0};
		pal__mem_fail_after(n);
		pal_status s = pal__constraint_json(tokens, schema, strlen(schema), &c, &err);
		pal__mem_fail_after(-1);
		if (!s) {
			assert_true(n > 100);
			pal_constraint_close(c);
			break;
		}
		/* that memory runs out while jansson reads, it may take for a wrong text */
		if (s != PAL_ENOMEM && !strstr(err.text, "no JSON"))
			fail_msg("allocation %d: %s", (int)n, err.text);
		assert_int_equal(err.code, s);
		assert_null(c);
		assert_int_equal(pal__mem_live(), live);
	}
	assert_int_equal(pal__mem_live(), live);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(values),       cmocka_unit_test(numbers),
		cmocka_unit_test(objects),      cmocka_unit_test(arrays),
		cmocka_unit_test(combinations), cmocka_unit_test(patterns),
		cmocka_unit_test(refusals),     cmocka_unit_test(masks),
		cmocka_unit_test(forgetting),   cmocka_unit_test(depth),
		cmocka_unit_test(vocabularies), cmocka_unit_test(out_of_memory)};
	return cmocka_run_group_tests_name("text/constraint", tests, set_up, tear_down);
}
