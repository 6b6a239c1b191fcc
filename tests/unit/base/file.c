#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"

#define PAGES 8
#define FILL 0x5a

static size_t page;

/* A new file of n bytes, all FILL; path: its template. */
static void make(char *path, size_t n)
{
	int fd = mkstemp(path);
	uint8_t *bytes = malloc(n ? n : 1);
	assert_true(fd >= 0 && bytes);
	memset(bytes, FILL, n);
	assert_int_equal(write(fd, bytes, n), n);
	free(bytes);
	close(fd);
}

static size_t count_fill(const pal__file *f)
{
	size_t n = 0;
	for (size_t i = 0; i < f->size; i++)
		n += f->data[i] == FILL;
	return n;
}

static void maps(void **state)
{
	(void)state;
	char path[] = "/tmp/pal-file-XXXXXX";
	pal__file f;
	pal_error err;
	make(path, PAGES * page + 100);
	assert_int_equal(pal__file_map(path, &f, &err), PAL_OK);
	assert_int_equal(f.size, PAGES * page + 100);
	assert_int_equal(count_fill(&f), f.size);
	assert_false(pal__file_shrunk(&f));
	pal__file_forget(&f, 0, f.size);
	pal__file_forget(&f, 10, 20);
	assert_int_equal(count_fill(&f), f.size); /* read again from the disk */
	pal__file_unmap(&f);
	assert_null(f.data);
	pal__file_unmap(&f);
	pal__file_unmap(&(pal__file){0});
	unlink(path);
}

static void empty(void **state)
{
	(void)state;
	char path[] = "/tmp/pal-file-XXXXXX";
	pal__file f;
	make(path, 0);
	assert_int_equal(pal__file_map(path, &f, NULL), PAL_OK);
	assert_null(f.data);
	assert_int_equal(f.size, 0);
	assert_false(pal__file_shrunk(&f));
	pal__file_forget(&f, 0, 0);
	pal__file_unmap(&f);
	unlink(path);
}

static void refused(void **state)
{
	(void)state;
	pal__file f;
	pal_error err;
	char path[] = "/tmp/pal-file-XXXXXX";
	assert_int_equal(pal__file_map("/nowhere/file", &f, &err), PAL_EIO);
	assert_string_equal(err.text, "/nowhere/file: No such file or directory");
	assert_int_equal(pal__file_map("/tmp", &f, &err), PAL_EIO);
	assert_string_equal(err.text, "/tmp: not a regular file");
	make(path, 0);
	unlink(path);
	assert_int_equal(mkfifo(path, 0600), 0); /* nobody writes: must not wait */
	assert_int_equal(pal__file_map(path, &f, &err), PAL_EIO);
	unlink(path);
}

static void shrinks(void **state)
{
	(void)state;
	char path[] = "/tmp/pal-file-XXXXXX";
	pal__file f;
	make(path, PAGES * page + 100);
	assert_int_equal(pal__file_map(path, &f, NULL), PAL_OK);
	assert_int_equal(truncate(path, (off_t)(3 * page + 10)), 0);
	assert_int_equal(f.data[0], FILL);
	assert_int_equal(f.data[f.size - 1], 0);
	/* For good: the zeros that were read do not become right when the file grows again. */
	assert_int_equal(truncate(path, (off_t)f.size), 0);
	assert_true(pal__file_shrunk(&f));
	assert_int_equal(truncate(path, (off_t)(3 * page + 10)), 0);
	assert_int_equal(count_fill(&f), 3 * page + 10);
	assert_int_equal(truncate(path, 0), 0);
	pal__file_forget(&f, 0, f.size);
	assert_int_equal(count_fill(&f), 0);
	assert_true(pal__file_shrunk(&f));
	pal__file_unmap(&f);
	/* The slot is taken anew: not shrunk. */
	assert_int_equal(truncate(path, (off_t)page), 0);
	assert_int_equal(pal__file_map(path, &f, NULL), PAL_OK);
	assert_int_equal(f.data[0], 0);
	assert_false(pal__file_shrunk(&f));
	pal__file_unmap(&f);
	unlink(path);
}

/* Zeros within the last page come without a signal. */
static void shrinks_by_a_byte(void **state)
{
	(void)state;
	char path[] = "/tmp/pal-file-XXXXXX";
	pal__file f;
	make(path, 100);
	assert_int_equal(pal__file_map(path, &f, NULL), PAL_OK);
	assert_int_equal(truncate(path, 99), 0);
	assert_int_equal(f.data[99], 0);
	assert_true(pal__file_shrunk(&f));
	assert_int_equal(truncate(path, 100), 0);
	assert_true(pal__file_shrunk(&f));
	pal__file_unmap(&f);
	unlink(path);
}

static void only_the_shrunk(void **state)
{
	(void)state;
	char a_path[] = "/tmp/pal-file-XXXXXX", b_path[] = "/tmp/pal-file-XXXXXX";
	pal__file a, b;
	make(a_path, PAGES * page);
	make(b_path, PAGES * page);
	assert_int_equal(pal__file_map(a_path, &a, NULL), PAL_OK);
	assert_int_equal(pal__file_map(b_path, &b, NULL), PAL_OK);
	assert_int_equal(truncate(b_path, 0), 0);
	assert_int_equal(count_fill(&b), 0);
	assert_int_equal(count_fill(&a), a.size);
	assert_false(pal__file_shrunk(&a));
	assert_true(pal__file_shrunk(&b));
	pal__file_unmap(&a);
	pal__file_unmap(&b);
	unlink(a_path);
	unlink(b_path);
}

static void limit(void **state)
{
	(void)state;
	char path[] = "/tmp/pal-file-XXXXXX";
	pal__file f[PAL__FILE_MAPS + 1];
	pal_error err;
	make(path, 10);
	for (int i = 0; i < PAL__FILE_MAPS; i++)
		assert_int_equal(pal__file_map(path, &f[i], &err), PAL_OK);
	assert_int_equal(pal__file_map(path, &f[PAL__FILE_MAPS], &err), PAL_ELIMIT);
	assert_non_null(strstr(err.text, "more than 64 files"));
	pal__file_unmap(&f[7]);
	assert_int_equal(pal__file_map(path, &f[7], &err), PAL_OK);
	for (int i = 0; i < PAL__FILE_MAPS; i++)
		pal__file_unmap(&f[i]);
	unlink(path);
}

static void *read_all(void *arg)
{
	return (void *)count_fill(arg);
}

static void shrinks_under_threads(void **state)
{
	(void)state;
	for (int round = 0; round < 20; round++) {
		char path[] = "/tmp/pal-file-XXXXXX";
		pthread_t threads[4];
		pal__file f;
		make(path, PAGES * page);
		assert_int_equal(pal__file_map(path, &f, NULL), PAL_OK);
		for (int i = 0; i < 4; i++)
			assert_int_equal(pthread_create(&threads[i], NULL, read_all, &f), 0);
		assert_int_equal(truncate(path, (off_t)page), 0);
		for (int i = 0; i < 4; i++) {
			void *n;
			pthread_join(threads[i], &n);
			assert_true((size_t)n >= page);
		}
		assert_int_equal(count_fill(&f), page);
		assert_true(pal__file_shrunk(&f));
		pal__file_unmap(&f);
		unlink(path);
	}
}

static volatile sig_atomic_t foreign;

static void on_foreign(int sig)
{
	(void)sig;
	foreign++;
	_exit(42);
}

/* In a child: a bus error in a mapping that is not ours. Returns the child's status. */
static int foreign_fault(bool own_handler)
{
	char ours[] = "/tmp/pal-file-XXXXXX", theirs[] = "/tmp/pal-file-XXXXXX";
	make(ours, page);
	make(theirs, page);
	fflush(NULL);
	pid_t child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		pal__file f;
		signal(SIGBUS, own_handler ? on_foreign : SIG_DFL);
		int fd = open(theirs, O_RDWR);
		volatile uint8_t *p = mmap(NULL, page, PROT_READ, MAP_SHARED, fd, 0);
		if (pal__file_map(ours, &f, NULL) != PAL_OK || ftruncate(fd, 0) != 0)
			_exit(1);
		_exit(p[0] ? 2 : 3); /* the read must not come back */
	}
	int status = 0;
	assert_int_equal(waitpid(child, &status, 0), child);
	unlink(ours);
	unlink(theirs);
	return status;
}

static void others_faults(void **state)
{
	(void)state;
	int status = foreign_fault(false);
	/* Killed; a sanitizer's handler is never ours to skip, SIG_DFL was set above. */
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
	status = foreign_fault(true);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 42);
}

int main(void)
{
	page = (size_t)sysconf(_SC_PAGESIZE);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(maps),
		cmocka_unit_test(empty),
		cmocka_unit_test(refused),
		cmocka_unit_test(shrinks),
		cmocka_unit_test(shrinks_by_a_byte),
		cmocka_unit_test(only_the_shrunk),
		cmocka_unit_test(limit),
		cmocka_unit_test(shrinks_under_threads),
		cmocka_unit_test(others_faults),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
