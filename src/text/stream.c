#include "text/stream.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "text/utf8.h"

void pal__stream_init(pal__stream *s, const pal__tokenizer *t, int fd, const char *name,
		      unsigned flags)
{
	*s = (pal__stream){.t = t, .flags = flags, .fd = fd, .name = name};
}

void pal__stream_free(pal__stream *s)
{
	pal__free(s->ids);
	s->ids = NULL;
	s->n_ids = s->taken = 0;
}

/* Fills s->text as far as the stream goes. */
static pal_status fill(pal__stream *s, pal_error *err)
{
	while (!s->end && s->n_text < sizeof s->text) {
		ssize_t r = read(s->fd, s->text + s->n_text, sizeof s->text - s->n_text);
		if (r < 0 && errno != EINTR)
			return pal__fail(err, PAL_EIO, "%s: %s", s->name, strerror(errno));
		s->end = r == 0;
		s->n_text += r > 0 ? (size_t)r : 0;
	}
	return PAL_OK;
}

/* Bytes of the piece that s->text starts with. */
static size_t cut(const pal__stream *s)
{
	size_t n = s->n_text;
	if (s->end)
		return n;
	for (size_t i = n; i > n / 2; i--)
		if (s->text[i - 1] == '\n')
			return i;
	for (size_t i = n - 1; i > n / 2; i--)
		if (s->text[i] == ' ')
			return i;
	for (size_t i = n - 1; i > n - 4; i--) /* before a character that may go on */
		if (((unsigned char)s->text[i] & 0xc0) != 0x80)
			return i;
	return n;
}

static pal_status next_piece(pal__stream *s, pal_error *err)
{
	pal__stream_free(s);
	pal_status st = fill(s, err);
	if (st != PAL_OK || !s->n_text)
		return st;
	size_t n = cut(s), valid = pal__utf8_valid(s->text, n);
	if (valid < n)
		return pal__fail(err, PAL_EINVAL, "%s is not UTF-8: byte 0x%02x at offset %llu",
				 s->name, (unsigned char)s->text[valid],
				 (unsigned long long)(s->offset + valid));
	st = pal__tokenize(s->t, s->text, n, s->flags, &s->ids, &s->n_ids, err);
	if (st != PAL_OK)
		return st;
	s->n_text -= n;
	s->offset += n;
	memmove(s->text, s->text + n, s->n_text);
	return PAL_OK;
}

pal_status pal__stream_next(pal__stream *s, int32_t *ids, size_t n, size_t *got, pal_error *err)
{
	while (s->taken == s->n_ids && (!s->end || s->n_text)) {
		pal_status st = next_piece(s, err);
		if (st != PAL_OK)
			return st;
	}
	size_t left = s->n_ids - s->taken;
	*got = left < n ? left : n;
	if (*got)
		memcpy(ids, s->ids + s->taken, *got * sizeof *ids);
	s->taken += *got;
	return PAL_OK;
}
