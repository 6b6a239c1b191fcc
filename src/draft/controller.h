/* The controller: how long a draft should be, and whose.
 *
 * It learns how long passes of 1, 2, ... rows take here, and for each source and degree of sureness
 * how often a guess was right when those before it were. Of a draft with chances p1, p2, ... of
 * being right the first L tokens bring 1 + p1 + p1 p2 + ... tokens in a pass of 1 + L rows; the
 * best L has the most tokens a second.
 *
 * Invariants:
 *  - What it decides depends on clocks, and so changes how fast tokens come, never which.
 *  - All guesses teach it, those of drafts that were not checked too: what came is known a step
 * later.
 *  - A source that costs more than it brings sleeps, each time for twice as long.
 */
#ifndef PAL_DRAFT_CONTROLLER_H
#define PAL_DRAFT_CONTROLLER_H

#include "draft/source.h"

#define PAL__DRAFT_SOURCES 8 /* of one drafter */

typedef struct {
	double pass_s[PAL__DRAFT_MOST + 2]; /* of so many rows; 0: not known */
	struct {
		float right, of; /* guesses of a degree, the latest counting most */
	} degrees[PAL__DRAFT_SOURCES][PAL__DRAFT_BUCKETS];
	struct {
		double gain_s; /* a step, on average */
		int steps;     /* since it woke up */
		int sleeps;    /* for so many steps more */
		int nap;       /* steps of its next sleep */
	} sources[PAL__DRAFT_SOURCES];
} pal__controller;

void pal__controller_init(pal__controller *c);

/* A pass of `rows` rows took so long. What passes of other numbers of rows take is thought to
 * change with it, by half as much. */
void pal__controller_passed(pal__controller *c, int rows, double seconds);

/* What a pass of `rows` rows is thought to take; 0: nothing is known yet. */
double pal__controller_pass(const pal__controller *c, int rows);

/* A guess of this degree was right or not, after others that were right. */
void pal__controller_guessed(pal__controller *c, size_t source, uint8_t degree, bool right);

/* How many of a draft's n tokens to check, 0 to n, and *rate: the tokens a second that brings. */
int pal__controller_length(const pal__controller *c, size_t source, const uint8_t *sure, int n,
			   double *rate);

/* Tokens a second without a draft; a draft must bring more than that. */
double pal__controller_plain(const pal__controller *c);

/* Whether the source is awake in the step that begins. */
bool pal__controller_awake(pal__controller *c, size_t source);

/* The step cost the source so long, and, if its draft was checked, in `rows` rows of which `kept`
 * stayed, saved passes; rows 0: it was not. */
void pal__controller_stepped(pal__controller *c, size_t source, double seconds, int rows, int kept);

#endif
