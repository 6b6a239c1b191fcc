/* A drafter: sources, and a controller that chooses between them at each step.
 *
 * Invariants:
 *  - The sources see the log as it grows; where it was cut, or is another one, they are told.
 *  - Ids that are not in the vocabulary end a draft.
 *  - All memory is allocated when it opens.
 */
#ifndef PAL_DRAFT_DRAFTER_H
#define PAL_DRAFT_DRAFTER_H

#include "draft/controller.h"

#define PAL__DRAFT_TAIL 16 /* tokens by which a log is known again */

struct pal_drafter {
	pal_model *model;
	pal__draft_source *sources[PAL__DRAFT_SOURCES];
	size_t n_sources;
	pal_draft_stats stats[PAL__DRAFT_SOURCES];
	pal__controller controller;
	int most;
	bool always; /* the longest draft at every step, whatever the controller says: for tests */
	float *logits; /* [most + 1][n_vocab] of a pass */

	int64_t seen; /* tokens of the log that the sources were shown, and the last of them */
	int32_t tail[PAL__DRAFT_TAIL];

	/* The step under way: what each source proposed after log[at]. */
	int64_t at;
	struct {
		int32_t ids[PAL__DRAFT_MOST];
		uint8_t sure[PAL__DRAFT_MOST];
		int n;
		bool asked;
		double seconds;
	} guesses[PAL__DRAFT_SOURCES];
	size_t chosen; /* n_sources: none */

	char *cache; /* file of the pass times, or NULL */
};

/* As pal_drafter_open, for a log whose ids are those of another model's vocabulary: what a corpus
 * must be of. */
pal_status pal__drafter_open(pal_model *model, const pal_model *vocabulary,
			     const pal_drafter_options *options, pal_drafter **out, pal_error *err);

/* A drafter of these sources, which it closes, on failure too. */
pal_status pal__drafter_of(pal_model *model, pal__draft_source *const *sources, size_t n_sources,
			   int most, pal_drafter **out, pal_error *err);

/* Text was appended, or a log was changed: what was guessed last is neither right nor wrong. */
void pal__drafter_begin(pal_drafter *d);

/* A draft for after view->log[n - 1], of at most `most` tokens: the best of those of all sources,
 * cut to what pays. out: [most]. Returns how many; 0: not now. */
int pal__drafter_propose(pal_drafter *d, const pal__draft_view *view, int32_t *out, int most);

/* The pass over a pending token and the draft, `rows` in all, kept so many and took so long. */
void pal__drafter_checked(pal_drafter *d, int rows, int kept, double seconds);

#endif
