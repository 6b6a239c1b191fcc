/* What is written is what is read, whole or not at all. */
#include "model/gguf_write.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"

static char dir[32], path[64], part[80];

static int make_dir(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/pal-write-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof path, "%s/a.gguf", dir);
	snprintf(part, sizeof part, "%s.part", path);
	return 0;
}

static int remove_dir(void **state)
{
	(void)state;
	unlink(path);
	return rmdir(dir); /* fails when a temporary file is left */
}

static const float numbers[6] = {1, -2, 3.5f, 0, 1e30f, -1e-30f};
static const uint16_t halves[5] = {1, 2, 3, 4, 5};

static void collect(pal__gguf_writer *w)
{
	static const uint32_t list[] = {7, 8, 9};
	const uint64_t big = UINT64_MAX;
	pal__gguf_put_string(w, "general.architecture", "a test");
	pal__gguf_put(w, "big", PAL__GGUF_U64, &big);
	pal__gguf_put(w, "byte", PAL__GGUF_U8, "\7");
	pal__gguf_put(w, "short", PAL__GGUF_I16, &(int16_t){-2});
	pal__gguf_put_array(w, "list", PAL__GGUF_U32, list, 3);
	pal__gguf_put_array(w, "none", PAL__GGUF_F32, NULL, 0);
	pal__gguf_put_tensor(w, "h", PAL__F16, 5, 1, halves);
	pal__gguf_put_tensor(w, "f", PAL__F32, 2, 3, numbers);
}

static pal_status write_to(const char *to, pal_error *err)
{
	pal__gguf_writer w = {0};
	collect(&w);
	pal_status s = pal__gguf_write(&w, to, "sum", err);
	pal__gguf_writer_free(&w);
	return s;
}

static void check(void)
{
	pal__gguf g;
	pal_error err;
	int64_t i = 0;
	int32_t *list;
	size_t n;
	if (pal__gguf_open(path, &g, &err))
		fail_msg("%s", err.text);
	assert_int_equal(g.n_kv, 7);
	assert_int_equal(g.n_tensors, 2);
	assert_int_equal(pal__gguf_check_sum(&g, "sum", &err), PAL_OK);
	assert_int_equal(pal__gguf_int(&g, "short", true, -9, 9, &i, &err), PAL_OK);
	assert_int_equal(i, -2);
	assert_int_equal(pal__gguf_int(&g, "byte", true, -9, 9, &i, &err), PAL_OK);
	assert_int_equal(i, 7);
	assert_int_equal(pal__gguf_ints(&g, "list", true, &list, &n, &err), PAL_OK);
	assert_int_equal(n, 3);
	assert_int_equal(list[2], 9);
	pal__free(list);
	const pal__gguf_tensor *t = pal__gguf_tensor_find(&g, "f");
	assert_int_equal(t->ne[0], 2);
	assert_int_equal(t->ne[1], 3);
	assert_memory_equal(t->data, numbers, sizeof numbers);
	assert_memory_equal(pal__gguf_tensor_find(&g, "h")->data, halves, sizeof halves);
	pal__gguf_close(&g);
}

static void round_trip(void **state)
{
	(void)state;
	assert_int_equal(write_to(path, NULL), PAL_OK);
	check();
	assert_int_equal(write_to(path, NULL), PAL_OK); /* over the old one */
	check();
}

/* A byte that differs anywhere is noticed. */
static void damaged(void **state)
{
	(void)state;
	uint8_t bytes[4096];
	assert_int_equal(write_to(path, NULL), PAL_OK);
	int fd = open(path, O_RDWR);
	ssize_t n = read(fd, bytes, sizeof bytes);
	assert_in_range(n, 200, sizeof bytes - 1);
	for (ssize_t i = 0; i < n; i++) {
		pal__gguf g;
		pal_error err;
		const uint8_t wrong = bytes[i] ^ 0x10;
		assert_int_equal(pwrite(fd, &wrong, 1, i), 1);
		pal_status s = pal__gguf_open(path, &g, &err);
		if (s == PAL_OK) {
			s = pal__gguf_check_sum(&g, "sum", &err);
			pal__gguf_close(&g);
		}
		if (s == PAL_OK)
			fail_msg("byte %zd of %zd is not missed", i, n);
		assert_int_equal(pwrite(fd, bytes + i, 1, i), 1);
	}
	close(fd);
	check();
}

static void refused(const char *to, const char *why)
{
	pal_error err = {0};
	assert_int_equal(write_to(to, &err), PAL_EIO);
	assert_non_null(strstr(err.text, to));
	if (!strstr(err.text, why))
		fail_msg("\"%s\" instead of \"%s\"", err.text, why);
}

/* What cannot be written leaves what was there. */
static void not_written(void **state)
{
	(void)state;
	char missing[64];
	assert_int_equal(write_to(path, NULL), PAL_OK);
	snprintf(missing, sizeof missing, "%s/no/a.gguf", dir);
	refused(missing, strerror(ENOENT));
	refused(dir, strerror(EISDIR));
	refused("/dev/null", "no regular file");
	struct rlimit was, small;
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
	small = was;
	small.rlim_cur = 100;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	pal_error err = {0};
	pal_status s = write_to(path, &err);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
	assert_int_equal(s, PAL_EIO);
	assert_non_null(strstr(err.text, strerror(EFBIG)));
	assert_int_equal(access(part, F_OK), -1);
	check();
}

static void no_memory(void **state)
{
	(void)state;
	int64_t live = pal__mem_live();
	pal_status s = PAL_ENOMEM;
	assert_int_equal(write_to(path, NULL), PAL_OK);
	for (int64_t i = 0; s == PAL_ENOMEM; i++) {
		pal__mem_fail_after(i);
		s = write_to(path, NULL);
		bool failed = pal__mem_failed();
		pal__mem_fail_after(-1);
		assert_int_equal(s, failed ? PAL_ENOMEM : PAL_OK);
		assert_int_equal(pal__mem_live(), live);
		check();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trip),
		cmocka_unit_test(damaged),
		cmocka_unit_test(not_written),
		cmocka_unit_test(no_memory),
	};
	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
