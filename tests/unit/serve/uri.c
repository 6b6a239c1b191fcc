#include "serve/uri.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"

static void taken_apart(void **state)
{
	pal__uri u = {0};
	(void)state;
	assert_int_equal(pal__uri_parse("/v1/a%2Fb%C3%A9/?x=1+%2B2&flag&=&y=%3d", &u, NULL),
			 PAL_OK);
	assert_int_equal(u.n_segments, 3);
	assert_string_equal(u.segments[0], "v1");
	assert_string_equal(u.segments[1], "a/b\xc3\xa9");
	assert_string_equal(u.segments[2], "");
	assert_int_equal(u.n_args, 4);
	assert_string_equal(u.names[0], "x");
	assert_string_equal(u.values[0], "1 +2");
	assert_string_equal(u.names[1], "flag");
	assert_string_equal(u.values[1], "");
	assert_string_equal(u.values[3], "=");
	pal__uri_free(&u);
}

static void other_forms(void **state)
{
	static const char *const targets[] = {"http://host:80/a/b?c=d", "https://h/a/b?c=d",
					      "/a/b?c=d"};
	(void)state;
	for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) {
		pal__uri u = {0};
		assert_int_equal(pal__uri_parse(targets[i], &u, NULL), PAL_OK);
		assert_int_equal(u.n_segments, 2);
		assert_string_equal(u.segments[1], "b");
		assert_string_equal(u.values[0], "d");
		pal__uri_free(&u);
	}
	pal__uri u = {0};
	assert_int_equal(pal__uri_parse("http://host", &u, NULL), PAL_OK);
	assert_int_equal(u.n_segments, 1);
	pal__uri_free(&u);
}

static void refused(void **state)
{
	static const char *const targets[] = {"",      "*",     "a/b",  "/%",     "/%1",
					      "/%g1",  "/a%00", "/%ff", "/\xff",  "/?a=%",
					      "/?%=a", "/%C3",  "?a=b", "/?a=%c3"};
	(void)state;
	for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) {
		pal__uri u = {0};
		pal_error err = {0};
		assert_int_equal(pal__uri_parse(targets[i], &u, &err), PAL_EINVAL);
		assert_int_equal(err.code, PAL_EINVAL);
		assert_null(u.text);
	}
}

static void limits(void **state)
{
	char path[256] = "", args[512] = "/?";
	pal__uri u = {0};
	(void)state;
	for (int i = 0; i < PAL__MAX_SEGMENTS; i++)
		strncat(path, "/x", sizeof path - strlen(path) - 1);
	assert_int_equal(pal__uri_parse(path, &u, NULL), PAL_OK);
	pal__uri_free(&u);
	strncat(path, "/x", sizeof path - strlen(path) - 1);
	assert_int_equal(pal__uri_parse(path, &u, NULL), PAL_ELIMIT);
	for (int i = 0; i < PAL__MAX_ARGS; i++)
		strncat(args, "a=b&", sizeof args - strlen(args) - 1);
	assert_int_equal(pal__uri_parse(args, &u, NULL), PAL_OK);
	pal__uri_free(&u);
	strncat(args, "a=b", sizeof args - strlen(args) - 1);
	assert_int_equal(pal__uri_parse(args, &u, NULL), PAL_ELIMIT);
}

static bool matches(const char *target, const char *pattern, const char *first, const char *second)
{
	const char *param[PAL__MAX_PARAMS] = {0};
	pal__uri u = {0};
	assert_int_equal(pal__uri_parse(target, &u, NULL), PAL_OK);
	bool is = pal__uri_match(&u, pattern, param);
	if (is && first)
		assert_string_equal(param[0], first);
	if (is && second)
		assert_string_equal(param[1], second);
	pal__uri_free(&u);
	return is;
}

static void matching(void **state)
{
	(void)state;
	assert_true(matches("/", "/", NULL, NULL));
	assert_true(matches("/a/b", "/a/b", NULL, NULL));
	assert_true(matches("/a/x%2fy/c/z", "/a/{id}/c/{other}", "x/y", "z"));
	assert_false(matches("/a", "/", NULL, NULL));
	assert_false(matches("/", "/a", NULL, NULL));
	assert_false(matches("/a/b/", "/a/b", NULL, NULL));
	assert_false(matches("/a", "/a/b", NULL, NULL));
	assert_false(matches("/a/b", "/a", NULL, NULL));
	assert_false(matches("/a/", "/a/{id}", NULL, NULL));
	assert_false(matches("/A", "/a", NULL, NULL));
	assert_false(matches("/ab", "/a", NULL, NULL));
}

static void no_memory(void **state)
{
	pal__uri u = {0};
	pal_error err = {0};
	(void)state;
	pal__mem_fail_after(0);
	assert_int_equal(pal__uri_parse("/a", &u, &err), PAL_ENOMEM);
	pal__mem_fail_after(-1);
	assert_int_equal(pal__mem_live(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(taken_apart), cmocka_unit_test(other_forms),
		cmocka_unit_test(refused),     cmocka_unit_test(limits),
		cmocka_unit_test(matching),    cmocka_unit_test(no_memory),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
