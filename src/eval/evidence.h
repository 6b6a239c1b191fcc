/* Evidence of recall: a JSON object that carries every sample, and what follows from them.
 *
 * Invariants:
 *  - Figures and verdicts are a function of the samples and parameters in the object. `pal recall`
 *    writes what pal__evidence_finish computes, and `pal check` computes it again.
 *  - What an object may say is checked before anything is computed from it: a file from anywhere
 *    is either consistent or refused with one sentence.
 *
 * docs/formats/recall.md describes the object.
 */
#ifndef PAL_EVAL_EVIDENCE_H
#define PAL_EVAL_EVIDENCE_H

#include <jansson.h>

#include "base/status.h"

#define PAL__EVIDENCE_FORMAT "palimpsest-recall-1"
#define PAL__EVIDENCE_MIN 500 /* questions of a figure that carries a verdict, or of a control */
#define PAL__EVIDENCE_ARMS 64
#define PAL__EVIDENCE_LENGTHS 32
#define PAL__EVIDENCE_KINDS 33 /* those of the tasks, and "turns" */
#define PAL__EVIDENCE_LIST 512 /* tokens of an answer */

/* What a live string says of one question. */
enum {
	PAL__LIVE_EVICTED,   /* positions out of sight when it was asked */
	PAL__LIVE_CHUNKS,    /* restored for it */
	PAL__LIVE_FAR_READS, /* of restored positions, while it was answered */
	PAL__LIVE_FALLBACKS,
	PAL__LIVE_FOUND, /* 1: all of its fact was restored at some time */
	PAL__LIVE_US,    /* microseconds until the answer was complete */
	PAL__N_LIVE
};

/* Wilson's interval of hits out of n, 95 %. n = 0: 0 to 1. */
void pal__wilson(int64_t hits, int64_t n, double *low, double *high);

/* Reads "1 2 3": at most `most` numbers from 0 to 2^53, up to the end or a ';', where *text is
 * left. -1: not such a list. */
int pal__evidence_numbers(const char **text, int64_t *out, int most);

/* Adds "figures", "agreement", "verdicts" and "sum" to an object that has the rest. Errors: those
 * of pal__evidence_check, PAL_ENOMEM. */
pal_status pal__evidence_finish(json_t *evidence, pal_error *err);

/* Whether the object holds together: its samples are possible, and figures, verdicts and sum are
 * those that follow from them. name: in messages. Errors: PAL_EFORMAT, PAL_ENOMEM. */
pal_status pal__evidence_check(const char *name, json_t *evidence, pal_error *err);

#endif
