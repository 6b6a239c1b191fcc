#include "cli/output.h"

#include "base/process.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void bytes_for_people(void **state)
{
	static const struct {
		uint64_t n;
		const char *text;
	} cases[] = {
		{0, "0 B"},
		{999, "999 B"},
		{1000, "1.0 kB"},
		{9949, "9.9 kB"},
		{9960, "10 kB"},
		{999499, "999 kB"},
		{999500, "1.0 MB"},
		{1500000, "1.5 MB"},
		{123456789, "123 MB"},
		{4700000000u, "4.7 GB"},
		{UINT64_MAX, "18446744 TB"},
	};
	char buffer[32];
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		assert_string_equal(pal__human_bytes(cases[i].n, buffer), cases[i].text);
}

static void any_bytes_make_a_json_string(void **state)
{
	static const char bad[] = "a\xff\xc3"
				  "b\xe2\x82\xac\xe2\x82";
	json_t *j = pal__json_string(bad, sizeof bad - 1);
	(void)state;
	assert_non_null(j);
	/* A cut-off character is as many signs as it has bytes. */
	assert_string_equal(json_string_value(j), "a\xef\xbf\xbd\xef\xbf\xbd"
						  "b\xe2\x82\xac"
						  "\xef\xbf\xbd\xef\xbf\xbd");
	json_decref(j);
	j = pal__json_string("", 0);
	assert_string_equal(json_string_value(j), "");
	json_decref(j);
}

static void reports(void **state)
{
	const pal_model_info info = {.arch = "qwen3", .name = "n", .isa = "avx2", .hash = 0xab};
	const int32_t ids[] = {3, 1};
	json_t *machine = pal__json_machine(), *build = pal__json_build();
	json_t *model = pal__json_model("m.gguf", &info), *list = pal__json_ids(ids, 2);
	(void)state;
	assert_true(json_integer_value(json_object_get(machine, "cores")) >= 1);
	assert_true(json_integer_value(json_object_get(machine, "memory_bytes")) > 1000000);
	assert_string_equal(json_string_value(json_object_get(build, "version")), PAL_VERSION);
	assert_string_equal(json_string_value(json_object_get(model, "hash")), "00000000000000ab");
	assert_string_equal(json_string_value(json_object_get(model, "file")), "m.gguf");
	assert_int_equal(json_array_size(list), 2);
	assert_int_equal(json_integer_value(json_array_get(list, 0)), 3);
	json_decref(machine);
	json_decref(build);
	json_decref(model);
	json_decref(list);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bytes_for_people),
		cmocka_unit_test(any_bytes_make_a_json_string),
		cmocka_unit_test(reports),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
