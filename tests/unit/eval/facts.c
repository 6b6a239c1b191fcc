/* Text full of facts: samples one after the other in whatever pieces, and all memory is given back.
 * Arguments: models. */
#include "eval/facts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"

static const char tasks_text[] =
	"{\"grammar\": {\"d\": [\"0\", \"1\", \"2\", \"3\", \"4\"], \"code\": [\"{d}{d}{d}\"],"
	" \"name\": [\"a{d}{d}\", \"b{d} c{d}\"]}, \"share\": 0.5, \"kinds\": {\"key\": {"
	"\"vars\": {\"name\": \"name\", \"code\": \"code\"}, \"key\": [\"name\"],"
	"\"facts\": [[\"{name} is {code}.\"]], \"questions\": [\"{name}?\"], \"lead\": \" \","
	"\"chat_lead\": \"\", \"answer\": \"{code}.\"}, \"two\": {\"hard\": true, \"vars\": {"
	"\"name\": \"name\", \"x\": \"code\", \"y\": \"code\"}, \"key\": [\"name\"], \"facts\":"
	"[[\"{name} x {x}\"], [\"{name} y {y}\"]], \"questions\": [\"both of {name}?\"],"
	"\"lead\": \"\", \"chat_lead\": \"\", \"answer\": \"{x} {y}\"}},"
	"\"plain\": {\"before\": \"Q: \", \"between\": \"\\nA:\", \"after\": \"\\n\"},"
	"\"chat\": {\"before\": \"U \", \"between\": \" M \", \"after\": \"\"}}";

static pal_model *model;
static char filler[3000];

static pal_status tasks(pal__tasks **t)
{
	return pal__tasks_parse("tasks", tasks_text, strlen(tasks_text), filler, sizeof filler, t,
				NULL);
}

static void stream_of_facts(void **state)
{
	(void)state;
	static int32_t whole[10000], pieces[10000];
	pal__tasks *t;
	assert_int_equal(tasks(&t), PAL_OK);
	pal__facts a = {.tasks = t, .model = model, .seed = 5};
	pal__facts b = {.tasks = t, .model = model, .seed = 5};
	assert_int_equal(pal__facts_next(&a, whole, 10000, NULL), PAL_OK);
	for (size_t at = 0, n = 1; at < 10000; at += n, n = n * 3 % 997) {
		n = n < 10000 - at ? n : 10000 - at;
		assert_int_equal(pal__facts_next(&b, pieces + at, n, NULL), PAL_OK);
	}
	assert_memory_equal(whole, pieces, sizeof whole);
	for (size_t i = 0; i < 10000; i++)
		assert_in_range(whole[i], 0, 263);
	pal__facts_end(&a);
	pal__facts_end(&b);
	pal__tasks_close(t);
}

static pal_status everything(void)
{
	int32_t ids[10];
	pal__tasks *t = NULL;
	pal_status s = tasks(&t);
	pal__facts f = {.tasks = t, .model = model};
	if (s == PAL_OK)
		s = pal__facts_next(&f, ids, 10, NULL);
	pal__facts_end(&f);
	pal__tasks_close(t);
	return s;
}

/* Every seventh allocation: there are many. */
static void no_memory(void **state)
{
	(void)state;
	int64_t live = pal__mem_live();
	pal_status s = PAL_ENOMEM;
	for (int64_t i = 0; s == PAL_ENOMEM; i += 7) {
		pal__mem_fail_after(i);
		s = everything();
		bool failed = pal__mem_failed();
		pal__mem_fail_after(-1);
		assert_int_equal(s, failed ? PAL_ENOMEM : PAL_OK);
		assert_int_equal(pal__mem_live(), live);
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(stream_of_facts),
		cmocka_unit_test(no_memory),
	};
	pal_error err;
	if (argc < 2 || pal_model_open(argv[1], NULL, &model, &err))
		return 1;
	for (size_t i = 0; i < sizeof filler; i++)
		filler[i] = i % 60 == 59 ? '\n' : i % 7 == 6 ? ' ' : (char)('d' + i * i % 20);
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	pal_model_close(model);
	return failed;
}
