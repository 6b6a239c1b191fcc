/* Constraints: texts of a form, byte by byte, and which tokens keep to it.
 *
 * Invariants:
 *  - The mask is exact: a token is allowed exactly when some whole text of the form begins with
 *    the text so far and that token's bytes. But special tokens, and tokens of more than
 *    PAL__TRIE_DEEP bytes, stand for no text.
 *  - Some token is always allowed, or the text is whole: a vocabulary that cannot write every byte
 *    that the form may need is refused.
 *  - What is allowed is a function of the form and the tokens taken, whatever was asked in between;
 *    all memory is allocated when it opens, within a limit, masks that were worked out before
 *    among it.
 *
 * What a schema's texts are: text/schema.h.
 */
#ifndef PAL_TEXT_CONSTRAINT_H
#define PAL_TEXT_CONSTRAINT_H

#include "text/form.h"
#include "text/tokenizer.h"

#define PAL__CONSTRAINT_MASKS                                                  \
	((size_t)8 << 20) /* bytes of remembered masks; when they are full all \
			   * are forgotten */

/* Of a form, which becomes the constraint's, whether or not there is an error. The tokenizer must
 * outlive it. Errors: PAL_EUNSUPPORTED (the vocabulary), PAL_ENOMEM. */
pal_status pal__constraint_new(const pal__tokenizer *t, pal__form *form, pal_constraint **out,
			       pal_error *err);

/* As pal_constraint_json. */
pal_status pal__constraint_json(const pal__tokenizer *t, const char *schema, size_t n,
				pal_constraint **out, pal_error *err);

/* Back to the start. */
void pal__constraint_begin(pal_constraint *c);

/* Bits of the ids that may come next: id i is bit i % 64 of word i / 64, [(n_vocab + 63) / 64].
 * Tokens that end a sequence or a turn are among them when the text is whole. NULL: any token may
 * come (a tool call that the model need not make, and has not begun). Valid until the next call. */
const uint64_t *pal__constraint_mask(pal_constraint *c);

/* The token comes. false: it may not, and nothing has changed. */
bool pal__constraint_take(pal_constraint *c, int32_t id);

/* The text is whole, and nothing but the end can come. */
bool pal__constraint_done(const pal_constraint *c);

#endif
