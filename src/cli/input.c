#include "cli/input.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "text/utf8.h"

static pal_status read_fd(int fd, const char *name, char **text, size_t *n, pal_error *err)
{
	char *buffer = NULL;
	size_t used = 0, cap = 0;
	for (;;) {
		if (!pal__grow((void **)&buffer, &cap, used + 65536, 1)) {
			pal__free(buffer);
			return pal__fail_memory(err, name, used + 65536);
		}
		ssize_t got = read(fd, buffer + used, cap - used - 1);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0 || used + (size_t)got > PAL__MAX_INPUT) {
			pal__free(buffer);
			if (got < 0)
				return pal__fail(err, PAL_EIO, "%s: %s", name, strerror(errno));
			return pal__fail(err, PAL_ELIMIT, "%s: longer than %zu bytes", name,
					 PAL__MAX_INPUT);
		}
		if (got == 0)
			break;
		used += (size_t)got;
	}
	buffer[used] = 0;
	*text = buffer;
	*n = used;
	return PAL_OK;
}

pal_status pal__read_all(const char *path, char **text, size_t *n, pal_error *err)
{
	if (!path)
		return read_fd(STDIN_FILENO, "standard input", text, n, err);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return pal__fail(err, PAL_EIO, "%s: %s", path, strerror(errno));
	pal_status s = read_fd(fd, path, text, n, err);
	close(fd);
	return s;
}

pal_status pal__check_utf8(const char *text, size_t n, const char *what, pal_error *err)
{
	size_t valid = pal__utf8_valid(text, n);
	if (valid == n)
		return PAL_OK;
	return pal__fail(err, PAL_EINVAL, "%s is not UTF-8: byte 0x%02x at offset %zu", what,
			 (unsigned char)text[valid], valid);
}

static bool is_space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

/* One word of ids; position counts from 1. */
static pal_status parse_id(const char *word, size_t n, int32_t n_vocab, size_t position,
			   int32_t *id, pal_error *err)
{
	int64_t v = 0;
	size_t i = word[0] == '-';
	bool number = i < n;
	for (; i < n && number; i++) {
		number = word[i] >= '0' && word[i] <= '9';
		v = v < INT32_MAX ? v * 10 + (word[i] - '0') : v;
	}
	int shown = n < 40 ? (int)n : 40;
	if (!number)
		return pal__fail(err, PAL_EINVAL, "token id %zu, '%.*s', is not a number", position,
				 shown, word);
	if (word[0] == '-' || v >= n_vocab)
		return pal__fail(err, PAL_EINVAL,
				 "token id %zu, %.*s, is outside the vocabulary (0 to %d)",
				 position, shown, word, n_vocab - 1);
	*id = (int32_t)v;
	return PAL_OK;
}

pal_status pal__parse_ids(const char *text, size_t n, int32_t n_vocab, int32_t **ids, size_t *n_ids,
			  pal_error *err)
{
	int32_t *list = NULL;
	size_t count = 0, cap = 0;
	pal_status s = PAL_OK;
	if (!pal__grow((void **)&list, &cap, 1, sizeof *list))
		return pal__fail_memory(err, "token ids", sizeof *list);
	for (size_t i = 0; i < n && !s;) {
		size_t start = i;
		while (i < n && !is_space(text[i]))
			i++;
		if (i > start) {
			if (!pal__grow((void **)&list, &cap, count + 1, sizeof *list))
				s = pal__fail_memory(err, "token ids", 2 * cap * sizeof *list);
			else
				s = parse_id(text + start, i - start, n_vocab, count + 1,
					     &list[count], err);
			count++;
		}
		i++;
	}
	if (s) {
		pal__free(list);
		return s;
	}
	*ids = list;
	*n_ids = count;
	return PAL_OK;
}

pal_status pal__read_ids(const char *path, int32_t n_vocab, int32_t **ids, size_t *n_ids,
			 pal_error *err)
{
	char *text;
	size_t n;
	pal_status s = pal__read_all(path, &text, &n, err);
	if (s)
		return s;
	s = pal__parse_ids(text, n, n_vocab, ids, n_ids, err);
	pal__free(text);
	return s;
}
