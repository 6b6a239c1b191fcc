/* A vocabulary as a trie of its tokens' bytes: which tokens go on from here, byte by byte.
 *
 * Nodes are in depth-first order, so that a walk is a run through an array with leaps over what is
 * not wanted; and so are the tokens. In it are all tokens but special ones, empty ones, and those
 * of more than PAL__TRIE_DEEP bytes. A trie is immutable; a tokenizer makes its own when it is
 * first asked for.
 */
#ifndef PAL_TEXT_TRIE_H
#define PAL_TEXT_TRIE_H

#include "text/tokenizer.h"

#define PAL__TRIE_DEEP 128

typedef struct {
	uint32_t skip;  /* the first node that is not below this one */
	uint32_t first; /* tokens that end here: ids[first] up to ids[first of the next node] */
	uint8_t byte, depth; /* depth: bytes up to here, at least 1 */
} pal__trie_node;

typedef struct pal__trie {
	pal__trie_node *nodes; /* [n + 1], the last one a border */
	uint32_t n;
	int32_t *ids; /* [n_ids], by bytes */
	size_t n_ids;
	bool bytes[256]; /* whether a token is this byte alone */
} pal__trie;

/* The trie of a tokenizer, owned by it. Any threads may ask. Errors: PAL_ENOMEM. */
pal_status pal__tokenizer_trie(const pal__tokenizer *t, const pal__trie **out, pal_error *err);

void pal__trie_free(pal__trie *t); /* NULL is fine */

#endif
