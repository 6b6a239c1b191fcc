/* Drafts of a model: the likeliest token, and what then is the likeliest, as a row after a row.
 *
 * Invariants:
 *  - The tokens are those of greedy decoding with this model.
 *  - It ends where all drafted tokens together are unlikely to be right, by the model's own word:
 *    each costs a pass.
 *  - Nothing is allocated.
 */
#ifndef PAL_DRAFT_GREEDY_H
#define PAL_DRAFT_GREEDY_H

#include "draft/source.h"

typedef struct {
	pal_model *model;
	pal__scratch *scratch;
	const pal__tap *tap; /* of each pass, or NULL */
	float *logits;       /* [n_vocab] to work with */
} pal__greedy;

/* Computes rows[n], n >= 1, of one K/V, and drafts up to `most` tokens after the last of them; out
 * and sure as in propose(). The K/V then has these tokens, too, but for the last of `most`.
 * Changes rows. */
int pal__greedy_draft(const pal__greedy *g, pal__row *rows, int n, int32_t *out, uint8_t *sure,
		      int most);

/* Which degree of sureness a probability is. */
uint8_t pal__draft_degree(float p);

#endif
