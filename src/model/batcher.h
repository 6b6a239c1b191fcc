/* The batcher: forward passes of several sessions, joined.
 *
 * Each session is run by a thread of its own, as if it were alone. A pass that it asks for waits
 * until every other member that is not waiting for one, too, has had its chance (or patience is
 * over), and then one of the threads runs a pass over the rows of all: weights are read once.
 * Rows do not see one another, and so what comes out is the same (contract C2).
 *
 * Who goes first, where not all fit: passes of a few rows (decoding, verification), by rows served
 * so far, least first; beside them one pass of many (a piece of a prompt), or as many as fit when
 * nobody decodes. So a long prompt delays others by one piece at a time.
 *
 * Invariants:
 *  - Rows of one pass stay together and in order.
 *  - Whoever asks for passes is a member. One that kept the others waiting once (for a disk, for a
 *    slow client) is not waited for again until it is back.
 *  - The scratch is the batcher's: sessions on it have none of their own.
 */
#ifndef PAL_MODEL_BATCHER_H
#define PAL_MODEL_BATCHER_H

#include "model/forward.h"

#define PAL__BATCHER_FEW 33 /* rows that count as few */

typedef struct pal__batcher pal__batcher;

/* Errors: PAL_ENOMEM, PAL_ELIMIT. The model outlives the batcher. */
pal_status pal__batcher_new(pal_model *m, pal__batcher **out, pal_error *err);
void pal__batcher_free(pal__batcher *e); /* NULL is fine; there are no members */
size_t pal__batcher_bytes(const pal__batcher *e);

/* A scratch on the batcher, for passes of up to n_rows rows, at most PAL_MAX_BATCH. */
pal__scratch pal__batcher_scratch(pal__batcher *e, int n_rows);

/* Between them passes may be asked for with this scratch, and others wait for them. */
void pal__batcher_join(pal__scratch *s);
void pal__batcher_leave(pal__scratch *s);

/* pal__forward for such a scratch. */
void pal__batcher_forward(pal__scratch *s, const pal__row *rows, int n, const pal__tap *tap);

typedef struct {
	uint64_t forwards, joined, rows; /* joined: of more than one session */
	double seconds;
} pal__batcher_counts;
void pal__batcher_get_counts(pal__batcher *e, pal__batcher_counts *out);

#endif
