/* Draft sources: guesses at the tokens that come next, one file each behind one interface.
 *
 * A source may be wrong in any way, hostile even: what it proposes is checked by the verifier
 * (session/verify.c), and so it changes how fast tokens come and never which (contract C3).
 *
 * Invariants:
 *  - The log that a source is shown ends with the pending token: chosen, not yet computed.
 *  - What a source has learnt is a function of the tokens it was shown and of its files; nothing
 *    has to be saved but files, which it only reads. A log that was cut shorter and grows another
 * way is shown from where it was cut, another log from 0; what it learnt of the part that is gone
 * may stay.
 *  - All memory is allocated when a source opens, and does not depend on the log's length.
 *  - Ids out are the vocabulary's, or the verifier's side throws them away.
 */
#ifndef PAL_DRAFT_SOURCE_H
#define PAL_DRAFT_SOURCE_H

#include "model/forward.h"

#define PAL__DRAFT_MOST 32    /* tokens that a source may propose at once */
#define PAL__DRAFT_BUCKETS 16 /* degrees of sureness */

/* What a source may look at. The verifier's side is read only, but for layers' K/V at positions
 * from n - 1 on and the scratch, which a source that runs the verifier's first layers may overwrite
 * (the verifier computes them again). */
typedef struct {
	const int32_t *log; /* [n], the pending token last; n >= 1 */
	int64_t n;
	pal_model *verifier;
	pal__kv *kv; /* holds positions 0..n-2 as far as they are visible */
	pal__scratch *scratch;
	pal__row *rows;      /* [room] to work with */
	int room;            /* positions from n - 1 on that K/V has room for, at least 1: all of
			      * them may be written, and so rings have lost what these overwrite */
	const float *hidden; /* [n_embd] the verifier's last residual stream, before the output
			      * norm, at position n - 2; NULL: none. For block drafters. It is where
			      * the forward pass left it, in the scratch, and so is gone when a
			      * source has worked there. */
} pal__draft_view;

typedef struct pal__draft_source {
	const char *name;
	/* Writes up to `most` guesses at the tokens after the pending one; sure[i], below
	 * PAL__DRAFT_BUCKETS, says how sure it is of out[i]: 0 least. What a degree is worth is
	 * learnt as it goes (draft/controller.h). Returns how many; 0: no idea. */
	int (*propose)(struct pal__draft_source *s, const pal__draft_view *v, int32_t *out,
		       uint8_t *sure, int most);
	/* Tokens [from, n) of the log are new, or others than before. The pending one is not among
	 * them. */
	void (*observe)(struct pal__draft_source *s, const int32_t *log, int64_t from, int64_t n);
	void (*close)(struct pal__draft_source *s); /* frees s, too */
} pal__draft_source;

/* Each returns PAL_OK and *out, which its close() frees, or an error as it says. The verifier is
 * closed last. */

/* Prompt lookup in the log: the latest place where the longest run of last tokens stood before.
 * window: tokens of the log that are remembered. Errors: PAL_ENOMEM. */
pal_status pal__draft_ngram(size_t window, pal__draft_source **out, pal_error *err);

/* The session's and a corpus file's continuations, by how often they occurred. vocabulary: whose
 * ids the log has. window: tokens of the session that are remembered. corpus: file of `pal corpus`,
 * or NULL. Errors: PAL_EIO,
 * PAL_EFORMAT, PAL_EINVAL (a corpus of another vocabulary), PAL_ENOMEM. */
pal_status pal__draft_suffix(const pal_model *vocabulary, size_t window, const char *corpus,
			     pal__draft_source **out, pal_error *err);

/* A small model of the same vocabulary, with sinks and a window of K/V of its own, that works on
 * the verifier's threads. window: positions; those beyond what it was trained for are not used.
 * Errors: those of pal_model_open, PAL_EINVAL (another vocabulary, no window). */
pal_status pal__draft_model(const pal_model *verifier, const char *path, size_t window,
			    pal__draft_source **out, pal_error *err);

/* The verifier's first n_layers layers and its output head. Errors: PAL_EINVAL (n_layers is not
 * between 1 and one less than it has), PAL_ENOMEM. */
pal_status pal__draft_exit(const pal_model *verifier, int n_layers, pal__draft_source **out,
			   pal_error *err);

#endif
