/* A stream of token ids: the bytes of its text come out again, in whatever pieces they are asked
 * for; what is not UTF-8 is named. */
#include "text/stream.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "small_vocab.h"

static int file_of(const char *bytes, size_t n)
{
	char path[] = "/tmp/pal-stream-XXXXXX";
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	unlink(path);
	assert_int_equal(write(fd, bytes, n), n);
	lseek(fd, 0, SEEK_SET);
	return fd;
}

static pal__tokenizer *made(void)
{
	static small_vocab v;
	pal__tokenizer *t = NULL;
	small_byte_level(&v, "qwen2");
	assert_int_equal(pal__tokenizer_new(&v.spec, &t, NULL), PAL_OK);
	return t;
}

/* The stream's text again, asked for `piece` ids at a time; *n: its bytes. */
static char *read_again(pal__stream *s, const pal__tokenizer *t, size_t piece, size_t room,
			size_t *n)
{
	char *text = malloc(room + 64);
	int32_t ids[1000];
	size_t got = 1;
	assert_non_null(text);
	*n = 0;
	while (got) {
		pal_error err = {0};
		if (pal__stream_next(s, ids, piece, &got, &err))
			fail_msg("%s", err.text);
		assert_true(got <= piece);
		for (size_t i = 0; i < got; i++) {
			pal__str b = pal__token_bytes(t, ids[i]);
			assert_true(*n + b.n <= room);
			memcpy(text + *n, b.s, b.n);
			*n += b.n;
		}
	}
	return text;
}

static void same(const char *text, size_t n, size_t piece)
{
	pal__tokenizer *t = made();
	pal__stream *s = malloc(sizeof *s);
	int fd = file_of(text, n);
	size_t got;
	assert_non_null(s);
	pal__stream_init(s, t, fd, "a text", 0);
	char *again = read_again(s, t, piece, n, &got);
	assert_int_equal(got, n);
	assert_memory_equal(again, text, n);
	free(again);
	pal__stream_free(s);
	free(s);
	close(fd);
	pal__tokenizer_free(t);
}

/* Text with lines, with blanks only, and with neither, so that pieces are cut in each way. */
static void whole(void **state)
{
	(void)state;
	enum { BYTES = 3 * PAL__STREAM_PIECE + 77 };
	static const char *const kinds[] = {"hello world\n", "hello \xc3\xa9 world ", "\xc3\xa9",
					    "\xf0\x9f\x99\x82", "\xe2\x96\x81"};
	static char text[BYTES];
	same("", 0, 10);
	same("h", 1, 10);
	for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
		size_t n = 0, one = strlen(kinds[k]);
		for (; n + one < BYTES; n += one)
			memcpy(text + n, kinds[k], one);
		same(text, n, k % 2 ? 1 : 1000);
	}
}

static void not_utf8(void **state)
{
	(void)state;
	enum { AT = PAL__STREAM_PIECE + 1234 };
	static char text[AT + 100];
	pal__tokenizer *t = made();
	pal__stream *s = malloc(sizeof *s);
	int32_t ids[100];
	size_t got = 1;
	pal_error err = {0};
	pal_status status = PAL_OK;
	assert_non_null(s);
	memset(text, 'h', sizeof text);
	text[AT] = (char)0xff;
	int fd = file_of(text, sizeof text);
	pal__stream_init(s, t, fd, "a text", 0);
	while (status == PAL_OK && got)
		status = pal__stream_next(s, ids, 100, &got, &err);
	assert_int_equal(status, PAL_EINVAL);
	char want[64];
	snprintf(want, sizeof want, "a text is not UTF-8: byte 0xff at offset %d", AT);
	assert_string_equal(err.text, want);
	pal__stream_free(s);
	close(fd);
	pal__stream_init(s, t, fd, "a text", 0); /* a closed file */
	assert_int_equal(pal__stream_next(s, ids, 100, &got, &err), PAL_EIO);
	free(s);
	pal__tokenizer_free(t);
}

static void no_memory(void **state)
{
	(void)state;
	pal__tokenizer *t = made();
	pal__stream *s = malloc(sizeof *s);
	int64_t live = pal__mem_live();
	pal_status status = PAL_ENOMEM;
	assert_non_null(s);
	for (int64_t i = 0; status == PAL_ENOMEM; i++) {
		int32_t ids[100];
		size_t got = 0;
		int fd = file_of("hello world", 11);
		pal__stream_init(s, t, fd, "a text", 0);
		pal__mem_fail_after(i);
		status = pal__stream_next(s, ids, 100, &got, NULL);
		bool failed = pal__mem_failed();
		pal__mem_fail_after(-1);
		assert_int_equal(status, failed ? PAL_ENOMEM : PAL_OK);
		assert_int_equal(got > 0, !failed);
		pal__stream_free(s);
		close(fd);
		assert_int_equal(pal__mem_live(), live);
	}
	free(s);
	pal__tokenizer_free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(whole),
		cmocka_unit_test(not_utf8),
		cmocka_unit_test(no_memory),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
