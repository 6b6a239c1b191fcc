/* Selection by words: the chunks of the log that share rare tokens with a span of it.
 *
 * A token weighs the logarithm of how many chunks there are for each one that has it, so that what
 * is everywhere weighs nothing. A chunk's score is the weight of the distinct tokens that it shares
 * with the span, as a part of all that the span's tokens weigh. Weak as soon as names share tokens,
 * and so an option (docs/adr/0009).
 *
 * Invariants:
 *  - Whole numbers until one last division: the same scores on every machine.
 *  - Nothing is kept: the log's file is read twice, in pieces, into a table of the span's tokens.
 */
#ifndef PAL_RESTORE_LEXICAL_H
#define PAL_RESTORE_LEXICAL_H

#include "restore/index.h"

#define PAL__MAX_SPAN 256 /* tokens of a span, the last ones of a longer one */

/* The best chunks of positions [from, end), best first, for the span [at - n_span, at) of the log.
 * Those with nothing in common with it are left out. Returns how many in *n. Errors: PAL_EIO. */
pal_status pal__lexical_score(const pal__disk *log, int64_t from, int64_t end, int64_t at,
			      size_t n_span, pal__found found[PAL__MAX_FOUND], size_t *n,
			      pal_error *err);

#endif
