/* What the sources of restored K/V share: where rows go, and what they are made of.
 *
 * Invariants:
 *  - A source gives K before rotation (after bias and norm) and V of a span's positions, for every
 *    layer that is bounded; pal__put rotates and stores them. What it gives is a function of
 *    the log and of the events before (contract C2).
 *  - Nothing is allocated while filling; how much memory it takes does not depend on the log.
 */
#ifndef PAL_RESTORE_SOURCE_H
#define PAL_RESTORE_SOURCE_H

#include "model/forward.h"

#define PAL__SPAN_ROWS (PAL_CHUNK + 2 * PAL_CHUNK_MARGIN)

/* Ways to break restoration, to prove that it is what recalls (contract C4). */
typedef enum {
	PAL__CONTROL_NONE,
	PAL__CONTROL_ZERO,    /* K and V are zero */
	PAL__CONTROL_SHUFFLE, /* V of a chunk's positions are moved by half a chunk against K */
	PAL__CONTROL_FOREIGN, /* the chunks of another session */
	PAL__CONTROL_RANDOM,  /* a random projection */
	PAL__CONTROL_NO_LOG,  /* the log behind the sources holds one token only */
} pal__control;

typedef struct {
	pal_model *m;
	pal__kv *kv;
	pal__scratch *scratch;
	pal__row *rows; /* [n_batch] */
	int n_batch, left;
	bool all_heads; /* the index keeps every head, for calibration */
	const int32_t *log;
	pal__control control;
	float *rope; /* [PAL__SPAN_ROWS][n_rot]: of the span at hand */
} pal__site;

/* Positions [from, end), at most PAL__SPAN_ROWS, to far rows from `row` on. */
typedef struct {
	int64_t from, end;
	size_t row;
} pal__span;

/* Prepares the rotations of a span, before its rows are put. */
void pal__put_begin(pal__site *s, const pal__span *span);

/* k and v [head_dim] of the span's i-th position; k is changed. May run on several threads, for
 * different layers, heads or positions. */
void pal__put(const pal__site *s, const pal__span *span, size_t i, size_t layer, size_t head,
	      float *k, const float *v);

/* K before rotation, and V, of a position that kv's ring still has. angles: cos and sin of the
 * position, [n_rot], by pal__rope_at. */
void pal__take(const pal_model *m, const pal__kv *kv, const float *angles, size_t layer,
	       size_t head, int64_t pos, float *k, float *v);

/* The angles of n positions from pos on, of layers that do not slide: [n][n_rot]. */
void pal__angles(const pal_model *m, int64_t pos, size_t n, float *angles);

/* A little K/V of its own, in which chunks are read apart from the session: sinks, tokens to
 * their left, chunk, at positions 0, 1, 2, ... */
#define PAL__RUNS 4
typedef struct {
	pal__kv kv[PAL__RUNS];
	int n;          /* of them that fit a batch */
	int64_t length; /* most positions of a run */
	float *angles;  /* [PAL__SPAN_ROWS][n_rot]: of the rows at hand in their run */
} pal__runs;

/* Tokens of a run at most. */
int64_t pal__runs_length(const pal__site *s);

bool pal__runs_need(const pal__site *s, size_t *bytes);
void pal__runs_init(pal__runs *r, const pal__site *s, pal__arena *arena);

/* The tokens that a span's run reads, to ids[pal__runs_length()]; returns how many. The span's
 * first position lies at *at of it. What a run gives depends on these alone. */
int64_t pal__runs_tokens(const pal__site *s, const pal__span *span, int32_t *ids, int64_t *at);

/* Reads the spans, at most r->n, each in a run of its own. Span i's first position lies at
 * at[i] of run i. tap: of pal__forward, or NULL; it is called with several spans' rows together,
 * or with pieces of one. */
void pal__runs_read(pal__runs *r, const pal__site *s, const pal__span *spans, int n, int64_t *at,
		    const pal__tap *tap);

/* Puts what the runs hold of layers [0, n_layers). */
void pal__runs_put(pal__runs *r, pal__site *s, const pal__span *spans, int n, const int64_t *at,
		   size_t n_layers);

#endif
