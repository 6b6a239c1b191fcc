/* The recall ladder: the same questions to the same log, asked of every arm.
 *
 * An arm is a way to remember: full K/V (oracle), the window alone, or chunks restored by a source.
 * A control is an arm with one thing broken on purpose; it must forget.
 *
 * Invariants:
 *  - Every arm reads the same tokens; the hash of what it was given is in the evidence.
 *  - A session is put back after each question, but in `turns`, where it grows.
 *  - Liveness is what the session's counters say before and after each question.
 *  - Arms that differ only in selection or in what is broken share one session: what they are
 *    asked about is the same log behind the same K/V.
 */
#ifndef PAL_EVAL_RECALL_H
#define PAL_EVAL_RECALL_H

#include <jansson.h>

#include "eval/tasks.h"
#include "session/session.h"

#define PAL__RECALL_ARMS 64
#define PAL__RECALL_LENGTHS 32

typedef enum {
	PAL__SELECT_DEFAULT,
	PAL__SELECT_ORACLE,
	PAL__SELECT_RANDOM,
	PAL__SELECT_LEXICAL,
	PAL__SELECT_BOTH
} pal__selection;

typedef struct {
	char name[64];
	pal_kv_policy policy;
	pal_source source;
	pal_spill_type spill_type;
	pal_positions positions;
	pal__selection selection;
	const char *control; /* NULL: none; else its name in the evidence */
	int of;              /* of a control: the arm that it breaks */
} pal__recall_arm;

typedef struct {
	pal__recall_arm arms[PAL__RECALL_ARMS];
	int n_arms;
	int64_t lengths[PAL__RECALL_LENGTHS]; /* ascending */
	int n_lengths;
	int kinds[PAL__TASK_KINDS]; /* of the tasks */
	int n_kinds;
	int64_t questions;  /* of each kind at each length */
	int64_t facts;      /* of one log at most; 0: one for every 128 tokens */
	int64_t turns;      /* questions over growing sessions of the first length, 50 a session */
	int64_t texts;      /* samples of text at each length, for agreement with the oracle */
	int64_t oracle_max; /* longest log for full K/V */
	bool chat;
	uint64_t seed;
	pal_session_options options; /* of every session, but for what the arm says */
	pal_progress progress;       /* tokens read and questions asked, of all */
	void *user;
} pal__recall_plan;

/* Reads "oracle,window,SOURCE[:SELECTION][:POSITIONS],...": SOURCE recompute, spill-f16 (or spill),
 * spill-int8, spill-affine4, hidden or project; SELECTION default, oracle, random, lexical
 * or both; POSITIONS compact or original. oracle and window come first in any case. controls: add
 * those of every arm with the default selection. Errors: PAL_EINVAL, PAL_ELIMIT. */
pal_status pal__recall_arms(const char *text, bool controls, pal__recall_plan *plan,
			    pal_error *err);

/* Runs the plan and adds "parameters", "arms", "logs" and "text" to evidence, which has machine,
 * build and model. Errors: those of sessions and samples, PAL_ECANCELLED never. */
pal_status pal__recall_run(pal_model *model, const pal__tasks *tasks, const pal__recall_plan *plan,
			   json_t *evidence, pal_error *err);

/* A figure to compare side-cars by, and no evidence: `questions` or a few more about logs of the
 * trained length, PAL__QUICK_LENGTH at most, of all kinds that are not hard, as sessions with these
 * options and an eighth of the log as the window answer them. Errors: those of pal__recall_run. */
#define PAL__QUICK_LENGTH 4096
typedef struct {
	int64_t asked, right;
} pal__recalled;
pal_status pal__recall_quick(pal_model *model, const pal__tasks *tasks,
			     const pal_session_options *options, int64_t questions,
			     pal__recalled *out, pal_error *err);

#endif
