/* Text full of the facts of recall tasks, for what a side-car is fitted on. */
#ifndef PAL_EVAL_FACTS_H
#define PAL_EVAL_FACTS_H

#include "eval/tasks.h"

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
