/* What the kernel says of this process. */
#include "base/process.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#define BLOCK ((size_t)64 << 20)

static void memory(void **state)
{
	uint64_t peak = pal__process_memory("VmHWM"), now = pal__process_memory("VmRSS");
	(void)state;
	assert_true(now > 100000);
	assert_true(peak >= now / 2);
	assert_int_equal(pal__process_memory("VmNothing"), 0);
	assert_int_equal(pal__process_memory("Vm"), 0);
}

/* A peak that is over is forgotten; where the system cannot, it says so and nothing changes. */
static void reset(void **state)
{
	(void)state;
	/* Straight from the system, and back to it: a sanitizer's malloc keeps what is freed. */
	char *block = mmap(NULL, BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(block != MAP_FAILED);
	memset(block, 1, BLOCK);
	munmap(block, BLOCK);
	uint64_t before = pal__process_memory("VmHWM");
	assert_true(before > BLOCK);
	bool done = pal__process_reset_peak();
	uint64_t after = pal__process_memory("VmHWM");
	if (done)
		assert_true(after < before - BLOCK / 2);
	else
		assert_true(after >= before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(memory),
		cmocka_unit_test(reset),
	};
	return cmocka_run_group_tests_name("base/process", tests, NULL, NULL);
}
