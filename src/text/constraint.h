/* Constraints: texts of a form, byte by byte, and which tokens keep to it.
 *
 * Invariants:
 *  - The mask is exact: a token is allowed exactly when some whole text of the form begins with
 *    the text so far and that token's bytes.
 *  - Some token is always allowed, or the text is whole.
 *  - What is allowed is a function of the form and the tokens taken, whatever was asked in between;
 *    all memory is allocated when it opens, within a limit, masks that were worked out before
 *    among it.
 */
#ifndef PAL_TEXT_CONSTRAINT_H
#define PAL_TEXT_CONSTRAINT_H

#include "text/tokenizer.h"

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
