/* Sessions: a token log and the K/V computed from it.
 *
 * Invariants:
 *  - K/V holds exactly the positions of the log; `logits` are those of its last position
 *    while has_logits.
 *  - All memory is one arena, allocated when the session opens (contract C1).
 *  - The log grows only by tokens that were computed: an append that fails leaves the
 *    session as it was, its last logits too.
 */
#ifndef PAL_SESSION_SESSION_H
#define PAL_SESSION_SESSION_H

#include "model/forward.h"

struct pal_session {
	pal_model *model;
	int n_batch;
	int64_t n_ctx, length;
	pal__arena arena;
	pal__kv kv;
	pal__scratch scratch;
	pal__row *rows;     /* [n_batch] */
	int32_t *log;       /* [n_ctx] */
	float *logits;      /* [n_vocab] */
	float *next_logits; /* [n_vocab] those of an append under way; then the two change places */
	bool has_logits;
};

pal_model *pal__session_model(const pal_session *s);

#endif
