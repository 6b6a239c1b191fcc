#include "base/newfile.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"

static char folder[] = "/tmp/pal-newfile-XXXXXX", path[64], part[64];

static bool exists(const char *name)
{
	struct stat st;
	return lstat(name, &st) == 0;
}

static void contains(const char *name, const char *text)
{
	char bytes[64];
	FILE *f = fopen(name, "rb");
	assert_non_null(f);
	size_t n = fread(bytes, 1, sizeof bytes, f);
	fclose(f);
	assert_int_equal(n, strlen(text));
	assert_memory_equal(bytes, text, n);
}

static void write_new(const char *text, const char *head)
{
	pal__newfile f;
	assert_int_equal(pal__newfile_open(&f, path, strlen(text), NULL), PAL_OK);
	assert_int_equal(pal__newfile_write(&f, text, 2, NULL), PAL_OK);
	assert_int_equal(pal__newfile_write(&f, text + 2, strlen(text) - 2, NULL), PAL_OK);
	assert_true(exists(part));
	assert_int_equal(pal__newfile_finish(&f, head, strlen(head), NULL), PAL_OK);
	assert_false(exists(part));
	pal__newfile_close(&f);
}

static void appears_when_whole(void **state)
{
	(void)state;
	int64_t live = pal__mem_live();
	pal__newfile f = PAL__NO_NEWFILE;
	pal__newfile_close(&f);
	write_new("????efgh", "abcd");
	contains(path, "abcdefgh");
	/* An old one stays until then, and for who has it open. */
	int fd = open(path, O_RDONLY);
	assert_int_equal(pal__newfile_open(&f, path, 0, NULL), PAL_OK);
	assert_int_equal(pal__newfile_write(&f, "new", 3, NULL), PAL_OK);
	contains(path, "abcdefgh");
	pal__newfile_close(&f);
	assert_true(!exists(part) && exists(path));
	write_new("other", "");
	char old[9] = "";
	assert_true(read(fd, old, 8) == 8 && !strcmp(old, "abcdefgh"));
	close(fd);
	contains(path, "other");
	/* What a killed process left does not matter. */
	FILE *left = fopen(part, "wb");
	assert_true(left && fputs("something long", left) >= 0 && fclose(left) == 0);
	write_new("short", "");
	contains(path, "short");
	assert_int_equal(pal__mem_live(), live);
}

static void refused(const char *name, uint64_t bytes, const char *why)
{
	pal__newfile f;
	pal_error err;
	char text[256];
	int64_t live = pal__mem_live();
	assert_int_equal(pal__newfile_open(&f, name, bytes, &err), PAL_EIO);
	snprintf(text, sizeof text, "%s cannot be written: %s", name, why);
	assert_string_equal(err.text, text);
	assert_int_equal(pal__mem_live(), live);
	pal__newfile_close(&f);
}

static void what_cannot_be_written(void **state)
{
	(void)state;
	refused("/no/such/file", 1, "No such file or directory");
	refused(folder, 1, "Is a directory");
	refused("/dev/null", 1, "it is no regular file");
	/* Two at once. */
	pal__newfile f;
	assert_int_equal(pal__newfile_open(&f, path, 0, NULL), PAL_OK);
	refused(path, 0, "another process is writing it");
	assert_true(exists(part));
	pal__newfile_close(&f);
	/* A link in its place is not followed. */
	assert_int_equal(symlink(path, part), 0);
	refused(path, 0, "Too many levels of symbolic links");
	unlink(part);
	pal__mem_fail_after(0);
	assert_int_equal(pal__newfile_open(&f, path, 0, NULL), PAL_ENOMEM);
	pal__mem_fail_after(-1);
	pal__newfile_close(&f);
}

static void no_room(void **state)
{
	(void)state;
	struct rlimit old, limit;
	pal__newfile f;
	pal_error err;
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	limit = (struct rlimit){1000, old.rlim_max};
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	refused(path, 1001, "File too large");
	assert_false(exists(part));
	/* More than was asked for. */
	char bytes[1001] = "";
	assert_int_equal(pal__newfile_open(&f, path, 10, &err), PAL_OK);
	assert_int_equal(pal__newfile_write(&f, bytes, sizeof bytes, &err), PAL_EIO);
	pal__newfile_close(&f);
	assert_false(exists(part));
	setrlimit(RLIMIT_FSIZE, &old);
}

static int set_up(void **state)
{
	(void)state;
	if (!mkdtemp(folder))
		return -1;
	snprintf(path, sizeof path, "%s/file", folder);
	snprintf(part, sizeof part, "%s/file.part", folder);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	unlink(path);
	return rmdir(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(appears_when_whole),
		cmocka_unit_test(what_cannot_be_written),
		cmocka_unit_test(no_room),
	};
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
