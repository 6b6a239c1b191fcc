/* Evidence of a value map: a JSON object that carries every sample, and the figures that follow.
 *
 * Invariants:
 *  - Figures are a function of the samples and parameters in the object. `pal map` writes what
 *    pal__map_finish computes, and `pal check` computes it again.
 *  - What an object may say is checked before anything is computed from it: a file from anywhere
 *    is either consistent or refused with one sentence.
 *
 * docs/formats/map.md describes the object and the rule of the verdicts.
 */
#ifndef PAL_EVAL_MAP_EVIDENCE_H
#define PAL_EVAL_MAP_EVIDENCE_H

#include <jansson.h>

#include "base/status.h"

#define PAL__MAP_FORMAT "palimpsest-map-1"
#define PAL__MAP_LIST 32  /* drafters, workloads, instruction sets or modes */
#define PAL__MAP_PAIRS 64 /* times that a cell is measured */
#define PAL__MAP_PAYS                                                              \
	1.02 /* speed against plain decoding in the worst pair of a cell that pays \
	      */

/* Numbers of one turn in a sample. */
enum { PAL__MAP_PLAIN_N, PAL__MAP_PLAIN_NS, PAL__MAP_N_PLAIN };
enum {
	PAL__MAP_N,        /* tokens */
	PAL__MAP_SAME,     /* of them from the first on that are those of plain decoding */
	PAL__MAP_FORWARDS, /* of the model */
	PAL__MAP_DRAFTED,  /* tokens that were checked */
	PAL__MAP_ACCEPTED, /* of them, those that became output */
	PAL__MAP_NS,
	PAL__MAP_N_DRAFTED
};

/* Adds "figures" and "sum" to an object that has the rest. Errors: those of pal__map_check. */
pal_status pal__map_finish(json_t *evidence, pal_error *err);

/* Whether the object holds together: its samples are possible, and figures and sum are those that
 * follow from them. name: in messages. Errors: PAL_EFORMAT, PAL_ENOMEM. */
pal_status pal__map_check(const char *name, json_t *evidence, pal_error *err);

/* Cells of checked evidence whose output was not that of plain decoding. */
int pal__map_differing(const json_t *evidence);

#endif
