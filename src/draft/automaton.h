/* The suffix automaton of a text of tokens, grown at its end, that counts what followed what.
 *
 * A state stands for all strings that end at the same places of the text; those strings are
 * suffixes of one another. An edge leads to the state of the string with one more token, a
 * state's link to that of its longest suffix that also ends elsewhere. (Blumer et al. 1985.)
 *
 * Invariants:
 *  - Every string that occurs in the text, and no other, leads from the start to a state.
 *  - A state knows one continuation, the one that followed its strings most often, where the
 *    newer ones count for more: `hits` of the last `of` times. Each time that it follows again
 *    adds one to both. Another one halves both before, and takes its place where no more than
 *    one hit is left. So the last one wins, unless the one before had won three times or more.
 *  - But only the COUNTED states for the longest suffixes of the text are told of a new token: in
 *    a text where more than that many suffixes occur in ways of their own (long runs), what the
 *    states of short strings know lags.
 *  - All memory is allocated when it is made. Time is amortised O(1) a token, besides counting.
 *
 * A token of -1 divides texts: it is no continuation, and nothing matches it.
 */
#ifndef PAL_DRAFT_AUTOMATON_H
#define PAL_DRAFT_AUTOMATON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"

#define PAL__AUTOMATON_MAX ((size_t)1 << 28) /* tokens */
#define PAL__AUTOMATON_ONE 64                /* one hit */

typedef struct {
	int32_t len;       /* of the longest string */
	uint32_t link;     /* a state */
	uint32_t first;    /* of its edges */
	uint32_t best;     /* the edge of the continuation, or none */
	uint16_t hits, of; /* in 1/PAL__AUTOMATON_ONE */
} pal__automaton_state;

typedef struct {
	uint32_t from, to; /* states */
	int32_t token;
	uint32_t sibling; /* the next edge from the same state */
	uint32_t next;    /* the next edge with the same hash */
} pal__automaton_edge;

typedef struct {
	pal__arena arena;
	size_t capacity, n; /* tokens */
	pal__automaton_state *states;
	pal__automaton_edge *edges; /* 0 is none */
	uint32_t *heads;            /* edges by their hash */
	size_t n_states, n_edges;
	unsigned hash_shift;
	uint32_t last; /* the state of the whole text */
} pal__automaton;

/* A string of `len` tokens, that leads to `state`. */
typedef struct {
	uint32_t state;
	int32_t len;
} pal__automaton_match;

/* capacity: tokens; about 120 bytes each. Errors: PAL_ENOMEM, PAL_ELIMIT. */
pal_status pal__automaton_init(pal__automaton *a, size_t capacity, pal_error *err);
void pal__automaton_free(pal__automaton *a); /* fine on a zeroed struct */
void pal__automaton_clear(pal__automaton *a);

/* Adds a token. There is room: n < capacity. */
void pal__automaton_add(pal__automaton *a, int32_t token);

/* The whole text. */
pal__automaton_match pal__automaton_end(const pal__automaton *a);

/* The longest suffix of m's string and the token that occurs in the text; len 0: none. */
pal__automaton_match pal__automaton_step(const pal__automaton *a, pal__automaton_match m,
					 int32_t token);

/* The longest suffix of m's string that also ends elsewhere. */
pal__automaton_match pal__automaton_shorter(const pal__automaton *a, pal__automaton_match m);

/* The continuation of m's string; false: there is none. */
bool pal__automaton_next(const pal__automaton *a, pal__automaton_match m, int32_t *token,
			 uint32_t *hits, uint32_t *of);

#endif
