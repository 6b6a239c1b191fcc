#include "base/disk.h"

#include <dirent.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/pal-disk-XXXXXX";

static int make_folder(void **state)
{
	(void)state;
	return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
	(void)state;
	return rmdir(folder); /* which fails where a file is left */
}

static int count_entries(const char *path)
{
	DIR *d = opendir(path);
	int n = 0;
	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static pal__disk open_disk(const char *what)
{
	pal__disk d;
	pal_error err;
	if (pal__disk_open(&d, folder, what, &err))
		fail_msg("%s", err.text);
	return d;
}

static void there_and_back(void **state)
{
	uint8_t out[1000], in[1000];
	int open_files = count_entries("/proc/self/fd");
	(void)state;
	pal__disk d = open_disk("a file");
	assert_int_equal(count_entries(folder), 2); /* . and .. */
	for (size_t i = 0; i < sizeof out; i++)
		out[i] = (uint8_t)(i * 7);
	assert_int_equal(d.bytes, 0);
	assert_int_equal(pal__disk_write(&d, out, 1000, 500, NULL), PAL_OK);
	assert_int_equal(d.bytes, 1500);
	assert_int_equal(pal__disk_write(&d, out + 10, 20, 0, NULL), PAL_OK);
	assert_int_equal(d.bytes, 1500);
	assert_int_equal(pal__disk_read(&d, in, 1000, 500, NULL), PAL_OK);
	assert_memory_equal(in, out, 1000);
	assert_int_equal(pal__disk_read(&d, in, 500, 0, NULL), PAL_OK);
	assert_memory_equal(in, out + 10, 20);
	for (size_t i = 20; i < 500; i++)
		assert_int_equal(in[i], 0);
	pal__disk_close(&d);
	assert_int_equal(d.fd, -1);
	pal__disk_close(&d); /* which is fine */
	assert_int_equal(count_entries("/proc/self/fd"), open_files);
}

static void refused(void **state)
{
	char byte = 1;
	pal__disk d = PAL__NO_DISK;
	pal_error err;
	(void)state;
	assert_int_equal(pal__disk_open(&d, "/nowhere/at/all", "a file", &err), PAL_EIO);
	assert_string_equal(err.text, "a file: cannot make a file in /nowhere/at/all: No such file "
				      "or directory");
	assert_int_equal(d.fd, -1);
	d = open_disk("this one");
	assert_int_equal(pal__disk_write(&d, &byte, 1, 8, &err), PAL_OK);
	assert_int_equal(pal__disk_read(&d, &byte, 1, 9, &err), PAL_EIO);
	assert_string_equal(err.text, "this one: reading 1 bytes at 9: the file ends before");
	pal__disk_close(&d);
}

/* A disk that is full is a message, and what was there stays. */
static void full(void **state)
{
	static uint8_t page[4096], back[4096];
	struct rlimit old, small;
	pal__disk d = open_disk("this one");
	pal_error err;
	(void)state;
	memset(page, 3, sizeof page);
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	small = (struct rlimit){6000, old.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	assert_int_equal(pal__disk_write(&d, page, 4096, 0, &err), PAL_OK);
	pal_status s = pal__disk_write(&d, page, 4096, 4096, &err);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_int_equal(s, PAL_EIO);
	assert_string_equal(err.text, "this one: writing 4096 bytes at 4096: File too large");
	assert_int_equal(d.bytes, 4096);
	assert_int_equal(pal__disk_read(&d, back, 4096, 0, NULL), PAL_OK);
	assert_memory_equal(back, page, 4096);
	pal__disk_close(&d);
}

static void forgets(void **state)
{
	static uint8_t out[3 * 4096], in[3 * 4096];
	pal__disk d = open_disk("a file");
	(void)state;
	memset(out, 0x5a, sizeof out);
	assert_int_equal(pal__disk_write(&d, out, sizeof out, 0, NULL), PAL_OK);
	pal__disk_forget(&d, 4096, 4096);
	assert_int_equal(pal__disk_read(&d, in, sizeof in, 0, NULL), PAL_OK);
	assert_memory_equal(in, out, 4096);
	assert_memory_equal(in + 8192, out, 4096);
	for (size_t i = 4096; i < 8192; i++)
		assert_true(in[i] == 0 || in[i] == 0x5a);
	pal__disk_close(&d);
}

static void injected(void **state)
{
	int value = 5, back;
	pal_error err;
	pal__disk d = open_disk("a file");
	(void)state;
	pal__disk_fail_after(2);
	assert_int_equal(pal__disk_write(&d, &value, 4, 0, &err), PAL_OK);
	assert_int_equal(pal__disk_read(&d, &back, 4, 0, &err), PAL_OK);
	assert_false(pal__disk_failed());
	for (int i = 0; i < 2; i++) {
		assert_int_equal(pal__disk_write(&d, &value, 4, 0, &err), PAL_EIO);
		assert_string_equal(err.text, "a file: writing 4 bytes at 0: Input/output error");
		assert_int_equal(pal__disk_read(&d, &back, 4, 0, &err), PAL_EIO);
		assert_string_equal(err.text, "a file: reading 4 bytes at 0: Input/output error");
		assert_true(pal__disk_failed());
	}
	pal__disk_fail_after(-1);
	assert_false(pal__disk_failed());
	assert_int_equal(pal__disk_read(&d, &back, 4, 0, &err), PAL_OK);
	assert_int_equal(back, 5);
	pal__disk_close(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(there_and_back), cmocka_unit_test(refused),
		cmocka_unit_test(full),           cmocka_unit_test(forgets),
		cmocka_unit_test(injected),
	};
	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
