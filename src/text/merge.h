/* Byte-pair merging: a row of symbols, of which the best pair is merged until no pair
 * can be.
 *
 * The best pair is the one of lowest rank, the leftmost among equals. A heap holds the
 * candidates and the symbols are a linked list, so n symbols take O(n log n). Whether a
 * candidate that lost a neighbour still counts is decided as Hugging Face tokenizers
 * does: it counts when the pair that is now at its place makes the same token.
 */
#ifndef PAL_TEXT_MERGE_H
#define PAL_TEXT_MERGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
	uint32_t at, n;     /* its bytes in the text; n 0: merged into its left neighbour */
	int32_t prev, next; /* indices, -1 at the ends */
	int32_t id;         /* token; -1: no token, which never merges */
	int32_t to;         /* what it makes with the next symbol, -1: nothing */
} pal__symbol;

/* Whether l and r, neighbours in text, merge, into which token and with what rank. */
typedef bool (*pal__merge_find)(const void *rules, const char *text, const pal__symbol *l,
				const pal__symbol *r, uint32_t *rank, int32_t *id);

struct pal__candidate {
	uint64_t order; /* rank << 32 | index of the left symbol */
	int32_t id;
};

/* Working memory, reused from one row to the next; zeroed is empty. */
typedef struct {
	pal__symbol *symbols; /* [n] */
	size_t n, cap;
	struct pal__candidate *heap; /* [n_heap] */
	size_t n_heap, cap_heap;
} pal__merger;

void pal__merger_free(pal__merger *m);

/* Appends a symbol to the row (which m->n = 0 empties). false: out of memory. */
bool pal__merger_push(pal__merger *m, uint32_t at, uint32_t n, int32_t id);

/* Merges the row. What is left are the symbols from 0 on along next. false: out of memory. */
bool pal__merge(pal__merger *m, const char *text, pal__merge_find find, const void *rules);

#endif
