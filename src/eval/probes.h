/* Recall tasks as what a side-car is fitted with: questions to calibrate heads, and text that is
 * full of facts. */
#ifndef PAL_EVAL_PROBES_H
#define PAL_EVAL_PROBES_H

#include "eval/tasks.h"
#include "restore/calibrate.h"

/* Asks about `samples` logs of `length` tokens, each with facts of every kind in turn, in the form
 * of a chat in every second one. A fact's sentence is looked for in the first round; the second
 * one of a fact that has to be joined is looked for with the first one in sight, in a later
 * round. progress: after every sample, or NULL. Errors: those of the functions it calls. */
pal_status pal__probes_ask(const pal__tasks *tasks, const pal_model *model, pal__calibration *c,
			   int samples, size_t length, uint64_t seed,
			   void (*progress)(void *user, uint64_t done, uint64_t total), void *user,
			   pal_error *err);

/* An endless stream of logs with facts in them. Zeroed but for tasks, model and seed it is at its
 * start; tasks and model must outlive it. */
typedef struct {
	const pal__tasks *tasks;
	const pal_model *model;
	uint64_t seed;
	pal__sample *sample;
	const int32_t *ids; /* [n] that are left of a piece */
	size_t n;
} pal__facts;

/* Sets ids[n] to the next tokens. Errors: those of pal__sample_new and pal__sample_next. */
pal_status pal__facts_next(pal__facts *f, int32_t *ids, size_t n, pal_error *err);
void pal__facts_end(pal__facts *f); /* frees what it holds */

#endif
