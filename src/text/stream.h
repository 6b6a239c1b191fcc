/* Token ids of a text of any length, read and tokenized piece by piece: memory does not grow with
 * the text. Pieces end behind a newline or before a blank, where tokens hardly ever go on.
 */
#ifndef PAL_TEXT_STREAM_H
#define PAL_TEXT_STREAM_H

#include "text/tokenizer.h"

#define PAL__STREAM_PIECE 65536 /* bytes */

typedef struct {
	const pal__tokenizer *t;
	unsigned flags;
	const char *name; /* for messages */
	int fd;
	bool end;
	char text[PAL__STREAM_PIECE];
	size_t n_text;
	uint64_t offset; /* of text in the stream, bytes */
	int32_t *ids;    /* [n_ids], of which the first `taken` are given out */
	size_t n_ids, taken;
} pal__stream;

/* fd stays the caller's; name must outlive the stream. flags: of pal__tokenize. */
void pal__stream_init(pal__stream *s, const pal__tokenizer *t, int fd, const char *name,
		      unsigned flags);
void pal__stream_free(pal__stream *s);

/* Sets ids[n] to the next ids; *got: how many, 0 only at the end. Errors: PAL_EIO, PAL_EINVAL (no
 * UTF-8), those of pal__tokenize. */
pal_status pal__stream_next(pal__stream *s, int32_t *ids, size_t n, size_t *got, pal_error *err);

#endif
