#include "serve/guard.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"

static void rates(void **state)
{
	pal__rate *r = NULL;
	double wait_s = 0;
	(void)state;
	assert_int_equal(pal__rate_new(4, &r, NULL), PAL_OK);
	for (int i = 0; i < 4; i++)
		assert_true(pal__rate_take(r, 1, 100, &wait_s));
	assert_false(pal__rate_take(r, 1, 100, &wait_s));
	assert_true(wait_s == 0.25);
	assert_true(pal__rate_take(r, 2, 100, &wait_s)); /* another caller */
	assert_false(pal__rate_take(r, 1, 100.125, &wait_s));
	assert_true(wait_s == 0.125);
	assert_true(pal__rate_take(r, 1, 100.25, &wait_s));
	assert_false(pal__rate_take(r, 1, 100.25, &wait_s));
	for (int i = 0; i < 4; i++) /* no more than these, however long it was */
		assert_true(pal__rate_take(r, 1, 9999, &wait_s));
	assert_false(pal__rate_take(r, 1, 9999, &wait_s));
	pal__rate_free(r);
}

static void slow_rates(void **state)
{
	pal__rate *r = NULL;
	double wait_s = 0;
	(void)state;
	assert_int_equal(pal__rate_new(0.5, &r, NULL), PAL_OK);
	assert_true(pal__rate_take(r, 1, 10, &wait_s));
	assert_false(pal__rate_take(r, 1, 10, &wait_s));
	assert_true(wait_s == 2);
	assert_true(pal__rate_take(r, 1, 12, &wait_s));
	pal__rate_free(r);
}

static void more_callers_than_places(void **state)
{
	pal__rate *r = NULL;
	double wait_s = 0;
	(void)state;
	assert_int_equal(pal__rate_new(1, &r, NULL), PAL_OK);
	for (uint64_t i = 0; i < 10 * PAL__MAX_CALLERS; i++)
		assert_true(pal__rate_take(r, i, 1 + (double)i, &wait_s));
	assert_false(
		pal__rate_take(r, 10 * PAL__MAX_CALLERS - 1, 10.0 * PAL__MAX_CALLERS, &wait_s));
	pal__rate_free(r);
	pal__mem_fail_after(0);
	assert_int_equal(pal__rate_new(1, &r, NULL), PAL_ENOMEM);
	pal__mem_fail_after(-1);
}

static struct sockaddr_storage address(const char *text)
{
	struct sockaddr_storage s = {0};
	struct sockaddr_in *four = (struct sockaddr_in *)&s;
	struct sockaddr_in6 *six = (struct sockaddr_in6 *)&s;
	if (inet_pton(AF_INET, text, &four->sin_addr) == 1) {
		s.ss_family = AF_INET;
	} else {
		assert_int_equal(inet_pton(AF_INET6, text, &six->sin6_addr), 1);
		s.ss_family = AF_INET6;
	}
	return s;
}

static bool same(const char *a, const char *b)
{
	struct sockaddr_storage x = address(a), y = address(b);
	return pal__address_hash((struct sockaddr *)&x) == pal__address_hash((struct sockaddr *)&y);
}

static void addresses(void **state)
{
	static const struct {
		const char *text;
		bool loopback;
	} all[] = {{"127.0.0.1", true},        {"127.9.9.9", true},    {"::1", true},
		   {"::ffff:127.0.0.1", true}, {"0.0.0.0", false},     {"::", false},
		   {"10.0.0.1", false},        {"2001:db8::1", false}, {"::ffff:10.0.0.1", false}};
	(void)state;
	for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
		struct sockaddr_storage s = address(all[i].text);
		assert_true(pal__address_loopback((struct sockaddr *)&s) == all[i].loopback);
	}
	assert_true(same("10.0.0.1", "::ffff:10.0.0.1"));
	assert_false(same("10.0.0.1", "10.0.0.2"));
	assert_true(same("2001:db8::1", "2001:db8::ffff"));
	assert_false(same("2001:db8::1", "2001:db8:0:1::1"));
}

static void hosts(void **state)
{
	(void)state;
	assert_true(pal__host_local(NULL, NULL));
	assert_true(pal__host_local("localhost:8080", NULL));
	assert_true(pal__host_local("LocalHost", NULL));
	assert_true(pal__host_local("127.0.0.1", NULL));
	assert_true(pal__host_local("[::1]:1", NULL));
	assert_true(pal__host_local("own.example:1", "own.example"));
	assert_false(pal__host_local("own.example", NULL));
	assert_false(pal__host_local("", NULL));
	assert_false(pal__host_local("localhost.evil", NULL));
	assert_false(pal__host_local("localhos", NULL));
	assert_false(pal__host_local("[::2]", NULL));
	assert_true(pal__origin_same("http://localhost:80", "localhost:80"));
	assert_false(pal__origin_same("http://localhost:81", "localhost:80"));
	assert_false(pal__origin_same("null", "localhost"));
	assert_false(pal__origin_same("http://a", NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rates),     cmocka_unit_test(slow_rates),
		cmocka_unit_test(addresses), cmocka_unit_test(more_callers_than_places),
		cmocka_unit_test(hosts),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
