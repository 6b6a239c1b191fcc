/* Finds out which heads find chunks: bounded sessions read long logs whose answers are known, and
 * the selection index says of every query head which chunks it looks for.
 *
 * Nothing stands for something else: sessions, events, index and scores are those of restoration,
 * and the right chunk has as many rivals as a long text gives it. In short logs heads look good
 * that match single words, which a long one has everywhere.
 *
 * Invariants:
 *  - The choice depends on model, logs and questions alone, not on threads.
 *  - Memory: of each question a few chunks for each head; nothing grows with the text.
 */
#ifndef PAL_EVAL_CALIBRATE_H
#define PAL_EVAL_CALIBRATE_H

#include "eval/tasks.h"
#include "restore/sidecar.h"

#define PAL__CALIBRATION_LOG                                                                      \
	16384                       /* tokens of a log at most; one question for each 128 of them \
				     */
#define PAL__CALIBRATION_LEAST 1024 /* and at least */

typedef struct pal__calibration pal__calibration;

/* Called now and then while a log is read and asked about. */
typedef void (*pal__calibration_progress)(void *user, uint64_t done, uint64_t total);

/* Errors: PAL_EINVAL (no weights), PAL_ENOMEM. */
pal_status pal__calibration_new(pal_model *model, pal__calibration **out, pal_error *err);
void pal__calibration_free(pal__calibration *c); /* NULL is fine */
void pal__calibration_watch(pal__calibration *c, pal__calibration_progress progress, void *user);

/* Asks about a log of `length` tokens with facts of every kind in turn. A fact's sentences are
 * looked for in the first round; but of a fact that has to be joined the first one only, and the
 * others in a later round, with the first in sight. Errors: PAL_EINVAL (the length), and those of
 * samples and sessions. */
pal_status pal__calibration_tasks(pal__calibration *c, const pal__tasks *tasks, size_t length,
				  bool chat, uint64_t seed, pal_error *err);

/* Asks about a log of plain text: starts of passages are repeated, and what followed them is looked
 * for in the first round. */
pal_status pal__calibration_text(pal__calibration *c, const int32_t *ids, size_t n, uint64_t seed,
				 pal_error *err);

typedef struct {
	pal__qhead head;
	float hit1, hit2, score; /* the right chunk is first; first or second; mean 1 / rank */
} pal__head_score;

typedef struct {
	size_t n_probes;          /* chunks that were looked for */
	pal__heads heads;         /* chosen, in the order they were added */
	float hit1, hit2, score;  /* of all chosen together */
	pal__head_score *singles; /* [n_singles], best first, freed with pal__free */
	size_t n_singles;
} pal__calibrated;

/* Chooses for the first round, or for later ones: the best head, then the one that adds most, and
 * so on. n_probes is 0, and nothing else set, when nothing was looked for then. */
pal_status pal__calibration_choose(pal__calibration *c, bool later, pal__calibrated *out,
				   pal_error *err);

#endif
