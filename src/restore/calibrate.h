/* Finds out which heads find chunks: reads logs whose answers are known, and asks of every query
 * head whose attention by content alone (q and K after bias and norm, before rotation) puts the
 * right chunk on top.
 *
 * A probe is a question about a log. It is read as a bounded session reads it: sinks, what is
 * restored already, the end of the log, the question; nothing else is in sight. Its last
 * PAL__SCORED_ROWS tokens are scored as restore/index.h scores.
 *
 * Not for several threads at once.
 */
#ifndef PAL_RESTORE_CALIBRATE_H
#define PAL_RESTORE_CALIBRATE_H

#include "restore/sidecar.h"

#define PAL__PROBE_LOG 1024    /* tokens of a log at most */
#define PAL__PROBE_WINDOW 128  /* of which the last ones are not evicted */
#define PAL__PROBE_QUESTION 64 /* tokens of a question at most */
#define PAL__PROBE_SEEN 96     /* tokens that are restored already at most */

typedef struct {
	const int32_t *question;
	size_t n_question;         /* 1 to PAL__PROBE_QUESTION */
	size_t from, to;           /* where the log answers: [from, to), evicted */
	size_t seen_from, seen_to; /* of the log, restored already; equal: nothing */
	bool later;                /* not for the first round but for those after it */
} pal__probe;

typedef struct pal__calibration pal__calibration;

/* Errors: PAL_EINVAL (no weights), PAL_ELIMIT, PAL_ENOMEM. */
pal_status pal__calibration_new(pal_model *model, pal__calibration **out, pal_error *err);
void pal__calibration_free(pal__calibration *c); /* NULL is fine */

/* Reads a log: the next probes are about it. n: more than PAL__PROBE_WINDOW and a chunk, up to
 * PAL__PROBE_LOG. Errors: PAL_EINVAL. */
pal_status pal__calibration_log(pal__calibration *c, const int32_t *ids, size_t n, pal_error *err);

/* Errors: PAL_EINVAL (the probe does not fit the log), PAL_ENOMEM. */
pal_status pal__calibration_ask(pal__calibration *c, const pal__probe *probe, pal_error *err);

/* Probes made of the log alone, n of them: the start of a passage is repeated, and what followed
 * it is looked for. seed: drawn from, and moved on. */
pal_status pal__calibration_quote(pal__calibration *c, size_t n, uint64_t *seed, pal_error *err);

typedef struct {
	pal__qhead head;
	float hit1, hit2, score; /* the right chunk is first; first or second; mean 1 / rank */
} pal__head_score;

typedef struct {
	size_t n_probes;
	pal__heads heads;         /* chosen, in the order they were added */
	float hit1, hit2, score;  /* of all chosen together */
	pal__head_score *singles; /* [n_singles], best first, freed with pal__free */
	size_t n_singles;
} pal__calibrated;

/* Chooses for the first round, or for later ones: the best head, then the one that adds most, and
 * so on. n_probes is 0, and nothing else set, when there were no such probes. */
pal_status pal__calibration_choose(pal__calibration *c, bool later, pal__calibrated *out,
				   pal_error *err);

#endif
