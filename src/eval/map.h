/* The value map: how many times faster a drafter makes which work on this machine.
 *
 * A cell is an instruction set, a workload and a drafter. Each of its pairs takes plain decoding
 * and every drafter along the same transcript in sessions of their own, turn by turn in changing
 * order: what a machine does from minute to minute meets all of them.
 *
 * Invariants:
 *  - Only the replies are timed; what is given is read before the clock starts.
 *  - Sessions only grow, as in use, and drafters are new in each pair: nobody drafts from what
 *    an earlier pair, or another drafter, has seen.
 *  - Freely, a model goes on from its own replies; along a transcript (replay) from those
 *    of the transcript, and then every forward pass is real and the tokens are not its own.
 *  - Output is compared token by token with that of plain decoding of the same pair.
 */
#ifndef PAL_EVAL_MAP_H
#define PAL_EVAL_MAP_H

#include <jansson.h>

#include "eval/workload.h"

typedef struct {
	const pal__workload *workloads; /* [n_workloads] */
	size_t n_workloads;
	const char *const *drafters; /* [n_drafters] as pal_drafter_options.source */
	size_t n_drafters;
	int64_t pairs;     /* 1 to PAL__MAP_PAIRS */
	int64_t most;      /* tokens of a reply; 0: as many as the transcript's */
	int64_t turns;     /* of a transcript; 0: all */
	bool replay;       /* along the transcript; otherwise freely */
	bool ignore_end;   /* freely: go on after an end-of-sequence token */
	float temperature; /* freely: of the sampled half; 0: greedy only */
	uint64_t seed;
	pal_session_options session; /* n_ctx is set as a transcript needs */
	const char *cache_dir;       /* or NULL */
	pal_progress progress;       /* tokens read and generated, of all at most; may be NULL */
	void *user;
} pal__map_plan;

/* "parameters" of the evidence, but for "isas". vocabulary: whose token ids are used. Errors: those
 * of pal__script_new. */
pal_status pal__map_parameters(const pal__map_plan *plan, const pal_model *model,
			       const pal_model *vocabulary, json_t **out, pal_error *err);

/* Measures a model, opened for one instruction set, and adds to `runs`. Errors: those of sessions,
 * drafters and pal__script_new. */
pal_status pal__map_run(const pal__map_plan *plan, pal_model *model, const pal_model *vocabulary,
			json_t *runs, pal_error *err);

#endif
