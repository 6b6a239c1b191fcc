/* A corpus: texts as tokens, and where in them which context ends, in a mapped file that is only
 * read (docs/formats/corpus.md; draft/indexing.h writes it).
 *
 * The index lists all positions in the order of what stands there and before, read backwards: the
 * places whose contexts agree most with a given one lie next to where that one would be.
 *
 * Invariants:
 *  - The file was whole and of this vocabulary when it was opened: its sums say so.
 *  - Nothing that is in it makes a read outside the mapping: every position is compared with the
 *    number of tokens when it is used, and read once. A file that is changed or cut short while it
 *    is mapped gives wrong places; from pal__corpus_intact's first false on it gives none.
 *  - A match does not reach over the border of a document.
 */
#ifndef PAL_DRAFT_CORPUS_H
#define PAL_DRAFT_CORPUS_H

#include "base/file.h"
#include "text/tokenizer.h"

#define PAL__CORPUS_DEEP 64                 /* tokens of a context that are looked at */
#define PAL__CORPUS_STRIDE 64               /* every so many entries of the index have a key */
#define PAL__CORPUS_KEY 4                   /* tokens of a key */
#define PAL__CORPUS_BREAK (-1)              /* ends a document */
#define PAL__CORPUS_MAX ((uint64_t)1 << 31) /* tokens */

/* The start of the file. Behind it: int32 tokens[n]; uint32 index[n]; uint32
 * keys[(n + STRIDE - 1) / STRIDE][KEY]. */
typedef struct {
	char magic[8];
	uint32_t version, header_bytes;
	uint64_t file_bytes;
	uint64_t n;         /* tokens, document ends among them */
	uint64_t documents; /* for the record */
	uint64_t n_vocab, vocab_hash;
	uint64_t sum; /* XXH3-64 of what is behind the header */
	uint64_t zero[7];
	uint64_t header_sum; /* XXH3-64 of the header before it */
} pal__corpus_header;

typedef struct {
	pal__file file; /* zeros: no corpus, in which nothing is found */
	const int32_t *tokens;
	const uint32_t *index;
	const uint32_t (*keys)[PAL__CORPUS_KEY];
	uint32_t n;
	int32_t n_vocab;
} pal__corpus;

/* A place with a context that agrees with the one that was asked for. */
typedef struct {
	uint32_t next;  /* the token behind it */
	uint32_t match; /* tokens that agree, 1 to PAL__CORPUS_DEEP */
} pal__corpus_place;

void pal__corpus_new_header(pal__corpus_header *h, const pal__tokenizer *t, uint64_t n,
			    uint64_t documents, uint64_t sum);

/* Errors: PAL_EIO, PAL_EFORMAT (damaged, or no corpus), PAL_EINVAL (of another vocabulary),
 * PAL_ELIMIT. */
pal_status pal__corpus_open(const char *path, const pal__tokenizer *t, pal__corpus *out,
			    pal_error *err);
void pal__corpus_close(pal__corpus *c); /* fine on a zeroed struct */
bool pal__corpus_intact(const pal__corpus *c);

/* Places whose contexts agree longest with the end of context[n], longest first. Returns how many,
 * at most `most`. */
size_t pal__corpus_find(const pal__corpus *c, const int32_t *context, size_t n,
			pal__corpus_place *out, size_t most);

/* The token at a position, or PAL__CORPUS_BREAK: a document's end, or none of the vocabulary. */
int32_t pal__corpus_token(const pal__corpus *c, uint32_t position);

/* What contexts are sorted by: the token `back` tokens before a position, plus 1; 0 before a
 * text's first token. (What lies behind the border of a document is looked at by nobody.) */
static inline uint32_t pal__corpus_key(const int32_t *tokens, uint32_t position, uint32_t back)
{
	/* Read once: the file may change while it is used. */
	return position < back
		       ? 0
		       : (uint32_t)__atomic_load_n(&tokens[position - back], __ATOMIC_RELAXED) + 1;
}

#endif
