/* Making a corpus (draft/corpus.h): tokens are gathered, sorted and written.
 *
 * Invariants:
 *  - The file is a function of the tokens and the vocabulary. It appears when it is whole.
 *  - Positions are sorted by PAL__CORPUS_DEEP tokens, back to the border of the document, and by
 *    themselves where these are equal: time is O(n (log n + PAL__CORPUS_DEEP)), whatever the text.
 *  - Memory is at most 16 bytes a token.
 */
#ifndef PAL_DRAFT_INDEXING_H
#define PAL_DRAFT_INDEXING_H

#include "draft/corpus.h"

typedef struct {
	int32_t *tokens; /* [n] */
	size_t n, cap;
	uint64_t documents;
} pal__corpus_text;

/* ids: [n], of the document under way. Errors: PAL_ENOMEM, PAL_ELIMIT. */
pal_status pal__corpus_add(pal__corpus_text *t, const int32_t *ids, size_t n, pal_error *err);

/* Ends the document, if it has any tokens. Errors: as above. */
pal_status pal__corpus_end(pal__corpus_text *t, pal_error *err);

/* Positions sorted so far, of all. */
typedef void (*pal__corpus_progress)(void *user, uint64_t done, uint64_t total);

/* progress may be NULL. Errors: PAL_ENOMEM, PAL_EIO, PAL_EINVAL (no tokens). */
pal_status pal__corpus_write(const pal__corpus_text *t, const pal__tokenizer *tokenizer,
			     const char *path, pal__corpus_progress progress, void *user,
			     pal_error *err);

void pal__corpus_text_free(pal__corpus_text *t); /* fine on a zeroed struct */

#endif
