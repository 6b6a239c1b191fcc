#include "cli/top.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static json_t *parse(const char *text)
{
	json_error_t err;
	json_t *o = json_loads(text, 0, &err);
	if (!o)
		fail_msg("%s: %s", text, err.text);
	return o;
}

static const char first[] =
	"{\"model\":\"small\",\"version\":\"0.1.0\",\"uptime_s\":3725.5,\"sessions\":1200,"
	"\"loaded\":8,\"running\":3,\"waiting\":0,\"requests\":77,\"refused\":1,\"cancelled\":2,"
	"\"failed\":0,\"prompt_tokens\":5000,\"reused_tokens\":4000,\"generated_tokens\":12345,"
	"\"drafted\":100,\"accepted\":60,\"fallbacks\":4,\"filled\":{\"recompute\":12,\"spill\":0,"
	"\"hidden\":0,\"project\":3},\"memory_bytes\":500000000,\"memory_limit\":1000000000,"
	"\"rss_bytes\":640000000,\"peak_rss_bytes\":700000000,\"disk_bytes\":12000000}";
static const char second[] =
	"{\"model\":\"small\",\"version\":\"0.1.0\",\"uptime_s\":3727.5,\"prompt_tokens\":5100,"
	"\"reused_tokens\":4040,\"generated_tokens\":12445,\"drafted\":140,\"accepted\":70}";
static const char list[] =
	"{\"total\":1200,\"data\":[{\"id\":\"sess-0123456789abcdef0123456789abcdef\",\"label\":"
	"\"gr\xc3\xbc\xc3\x9f\\u001b[2J\",\"length\":34812,\"resident\":404,\"evicted\":34552,"
	"\"restored\":144,\"budget_positions\":808,\"busy\":true,\"loaded\":true},"
	"{\"id\":\"sess-b\",\"label\":\"\",\"length\":7,\"resident\":7,\"evicted\":0,\"restored\":"
	"0,"
	"\"budget_positions\":0,\"busy\":false,\"loaded\":false}]}";

/* What is drawn, freed with free(). */
static char *draw(const char *status, const char *before, int columns, const char *end)
{
	pal__top_view now = {parse(status), parse(list), 12};
	pal__top_view then = {before ? parse(before) : NULL, NULL, 10};
	char *text = NULL;
	size_t n = 0;
	FILE *f = open_memstream(&text, &n);
	assert_non_null(f);
	pal__top_draw(f, &now, before ? &then : NULL, "http://h:1", columns, end);
	assert_int_equal(fclose(f), 0);
	json_decref(now.status);
	json_decref(now.sessions);
	json_decref(then.status);
	return text;
}

static void totals(void **state)
{
	char *text = draw(first, NULL, 1000, "");
	static const char *const lines[] = {
		"small, pal 0.1.0, http://h:1, up 1 h 2 min\n",
		"memory    [##########----------] 500 MB of 1.0 GB; process 640 MB, at most 700 "
		"MB; "
		"disk 12 MB\n",
		"sessions  1,200, 8 in memory; 3 running, 0 waiting\n",
		"tokens    made 12,345, read 1,000, reused 4,000; drafts accepted 60 %\n",
		"restored  recompute 12, spill 0, hidden 0, project 3; fallbacks 4\n",
		"requests  77; 1 refused, 2 cancelled, 0 failed\n",
	};
	(void)state;
	for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
		if (!strstr(text, lines[i]))
			fail_msg("no '%s' in '%s'", lines[i], text);
	assert_null(strstr(text, "tokens/s"));
	free(text);
}

static void speeds(void **state)
{
	char *text = draw(second, first, 1000, "");
	(void)state;
	assert_non_null(strstr(text, "tokens/s  made 50.0, read 30.0; drafts accepted 25 %\n"));
	assert_non_null(strstr(text, "memory    0 B, no limit; process 0 B"));
	free(text);
	text = draw(first, second, 1000, ""); /* of a server that was started again */
	assert_non_null(strstr(text, "tokens/s  made 0.0, read 0.0; drafts accepted -\n"));
	free(text);
}

static void sessions(void **state)
{
	char *text = draw(first, NULL, 1000, "");
	(void)state;
	assert_non_null(strstr(text,
			       "\nsess-01234567  busy          34,812  "
			       "[##########----------]       404       808       34,552       "
			       "144  gr\xc3\xbc\xc3\x9f?[2J\n"));
	assert_non_null(strstr(text, "\nsess-b         on disk            7  "
				     "[--------------------]         7  no limit            0"
				     "         0  \n"));
	assert_non_null(strstr(text, "\nand 1,198 more\n"));
	free(text);
}

static void columns(void **state)
{
	(void)state;
	for (int width = 1; width < 130; width++) {
		char *text = draw(first, second, width, "|");
		int n = 0;
		for (const char *c = text; *c; c++) {
			n = *c == '\n' ? 0 : n + ((*c & 0xc0) != 0x80); /* characters */
			assert_true(n <= width + 1);
			if (*c == '\n')
				assert_int_equal(c[-1], '|');
		}
		free(text);
	}
}

static void answers_of_others(void **state)
{
	static const char *const bad[][2] = {
		{"{}", list},
		{first, "{}"},
		{first, "{\"data\":{}}"},
		{first, "{\"data\":[7]}"},
		{first, "{\"data\":[{\"id\":7}]}"},
		{"{\"model\":\"m\",\"version\":1,\"generated_tokens\":1}", list},
	};
	(void)state;
	for (size_t i = 0; i <= sizeof bad / sizeof *bad; i++) {
		bool good = i == sizeof bad / sizeof *bad;
		pal__top_view v = {parse(good ? first : bad[i][0]), parse(good ? list : bad[i][1]),
				   0};
		pal_error err = {0};
		assert_int_equal(pal__top_check(&v, "http://h:1", &err),
				 good ? PAL_OK : PAL_EFORMAT);
		assert_true(good || !strncmp(err.text, "http://h:1: what it says", 24));
		json_decref(v.status);
		json_decref(v.sessions);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(totals),
		cmocka_unit_test(speeds),
		cmocka_unit_test(sessions),
		cmocka_unit_test(columns),
		cmocka_unit_test(answers_of_others),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
