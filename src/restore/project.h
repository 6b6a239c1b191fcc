/* The source `project`: keeps nothing but the log. The model's first m layers read a chunk again,
 * as `recompute` does, and the side-car's projection gives K and V of the layers from m on. Or a
 * proposer reads it, another model with the same vocabulary and with K/V and scratch of its own
 * here, and the projection gives K and V of all layers.
 * All memory is taken when it is made.
 */
#ifndef PAL_RESTORE_PROJECT_H
#define PAL_RESTORE_PROJECT_H

#include "restore/sidecar.h"
#include "restore/source.h"

typedef struct {
	const pal__sidecar *side;
	pal__runs runs;       /* the proposer's */
	pal__scratch scratch; /* the proposer's */
	float *x;             /* [PAL__RUNS][PAL__SPAN_ROWS][n_embd]: the states */
	float *kv;            /* [PAL__SPAN_ROWS][2 n_kv] of one span and layer */
} pal__projector;

/* s: the site that will be filled. */
bool pal__projector_need(const pal__sidecar *side, const pal__site *s, size_t *bytes);
void pal__projector_init(pal__projector *p, const pal__sidecar *side, const pal__site *s,
			 pal__arena *arena);

/* Fills the spans. With PAL__CONTROL_RANDOM the projection is one that nothing was fitted for. */
void pal__project_spans(pal__projector *p, pal__runs *r, pal__site *s, const pal__span *spans,
			size_t n);

#endif
