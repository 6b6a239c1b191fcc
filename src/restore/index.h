/* The selection index: which chunks of the evicted positions a query's attention looks for.
 *
 * For each kv head that a calibrated query head reads, the file has K of every evicted position,
 * before rotation, as Q4_0 in tiles of 16 positions. So scoring is the ordinary matrix product
 * (kernels/matrix.h) with the query heads' vectors as activations: 4 bits a value, equal bits on
 * every instruction set, memory that does not depend on the log.
 *
 * The score of a chunk for a query position and a head set: its best position's scaled dot, by a
 * softmax over all chunks, summed over the set's heads and the query positions, each of which has
 * a say in its 8 best chunks only (docs/adr/0009). Chunks' means and bounds are far
 * too weak; the best dot is not.
 *
 * Invariants:
 *  - Slabs of PAL__SLAB positions are scored apart and joined in ascending order, so that
 *    scores do not depend on threads.
 *  - Positions from `end` on are not seen. The last tile may be written again.
 */
#ifndef PAL_RESTORE_INDEX_H
#define PAL_RESTORE_INDEX_H

#include "base/disk.h"
#include "model/forward.h"

#define PAL__SLAB 1024
#define PAL__MAX_PROBES 256   /* query vectors that are scored at once */
#define PAL__MAX_HEADS_SET 16 /* query heads of a set */
#define PAL__MAX_FOUND 64     /* chunks that a scoring returns */
#define PAL__INDEX_HEADS 2048 /* query heads of one index, for calibration */
#define PAL__LOOK_CHUNKS 8    /* that one query vector can bring up */
#define PAL__KEPT_ROWS 64     /* query positions whose vectors are kept */
#define PAL__RING_ROWS (2 * PAL__KEPT_ROWS)
#define PAL__SCORED_ROWS 16 /* of them that a question is scored from */

typedef struct {
	uint32_t layer, head; /* a query head */
} pal__qhead;

/* What a query vector finds in a slab: each chunk's best score, as peaks() has it. */
typedef struct {
	float best[PAL__SLAB / PAL_CHUNK], most, sum;
} pal__peaks;

typedef struct {
	pal_model *m;
	pal__disk disk;
	const char *dir; /* of the file, as pal__disk_open takes it */
	size_t n_heads, n_pairs;
	size_t at_once; /* heads that are scored at once; all but for calibration */
	pal__qhead heads[PAL__INDEX_HEADS];
	bool first[PAL__INDEX_HEADS], later[PAL__INDEX_HEADS]; /* whether it is of the set */
	pal__qhead pairs[PAL__INDEX_HEADS];                    /* layer and kv head */
	size_t pair_of[PAL__INDEX_HEADS];
	pal__matrix tile; /* the shape of a slab of one pair */
	int64_t end;      /* positions in the file */

	/* Query vectors of positions [q_from, q_end), as far as they are among the last KEPT_ROWS;
	 * however they were split into forward passes: [n_heads][RING_ROWS][n_cols], position p at
	 * p % RING_ROWS. A pass may be taken back, but for KEPT_ROWS of it: q_end is lowered. */
	float *queries;
	int64_t q_from, q_end;
	int max_rows; /* that one scoring may look from */

	/* Scratch. */
	size_t worker_bytes;
	uint8_t *workers, *panels;
	pal__peaks *wave; /* [n_wave]: [slabs][probes] */
	size_t n_wave;
} pal__index;

/* Head sets of n_first and n_later heads; all of layer n_layers / 2 (the next that is bounded)
 * when n_first is 0. max_rows: positions that a scoring looks from, 1 to KEPT_ROWS; fewer where
 * there are many heads. */
void pal__index_shape(pal__index *x, pal_model *m, const pal__kv_shape *kv, const pal__qhead *first,
		      size_t n_first, const pal__qhead *later, size_t n_later, int max_rows);

/* Every query head of bounded layers, of models with very many those of every second layer, or
 * third, and so on: for pal__index_look, and not for pal__index_score. */
void pal__index_shape_all(pal__index *x, pal_model *m, const pal__kv_shape *kv);
bool pal__index_need(const pal__index *x, size_t *bytes);
pal_status pal__index_init(pal__index *x, pal__arena *arena, const char *dir, pal_error *err);
void pal__index_close(pal__index *x);

/* Adds positions up to `end`, which kv still has. */
pal_status pal__index_keep(pal__index *x, const pal__kv *kv, int64_t end, pal_error *err);

/* Positions [pos, pos + n), below `end`, anew: rows [at, at + n) of another K/V. */
pal_status pal__index_put(pal__index *x, const pal__kv *kv, int64_t at, int64_t pos, int64_t n,
			  pal_error *err);

/* What the positions [0, end) of the file say, for a log in which n_old tokens at `position` are
 * n_new: those behind are moved, and the new ones' are to be put. On failure all is as it was. */
pal_status pal__index_move(pal__index *x, int64_t position, int64_t n_old, int64_t n_new,
			   int64_t end, pal_error *err);

/* For a tap: keeps the query vectors of the last rows of a forward pass over n positions from pos
 * on. Behind a gap those before are forgotten. */
void pal__index_tap(pal__index *x, size_t layer, const pal__scratch *s, int64_t pos, int n);

/* Positions from `end` on are taken back. Of the others those that are left are the same however
 * they were computed: what was behind q_end for a while has overwritten the oldest. */
static inline void pal__index_cut(pal__index *x, int64_t end)
{
	int64_t first = x->q_end - PAL__KEPT_ROWS;
	x->q_end = x->q_end < end ? x->q_end : end;
	x->q_from = x->q_from > first ? x->q_from : first;
	x->q_from = x->q_from < x->q_end ? x->q_from : x->q_end;
}

/* What comes next starts at pos; no position before it is looked from. */
static inline void pal__index_restart(pal__index *x, int64_t pos)
{
	x->q_from = x->q_end = pos;
}

typedef struct {
	int32_t chunk;
	float score;
} pal__found;

/* Into a list of *n, best first; of equal ones the first of the log. A full one loses its last. */
void pal__found_add(pal__found found[PAL__MAX_FOUND], size_t *n, pal__found f);

/* The best chunks of positions below `end` for the last `rows` query positions (as many as
 * there are), best first; later: by the better of both head sets. Returns how many in *n. */
pal_status pal__index_score(pal__index *x, int64_t end, int rows, bool later,
			    pal__found found[PAL__MAX_FOUND], size_t *n, pal_error *err);

/* What one query vector looks for: its best chunks, best first, and their shares. */
typedef struct {
	size_t head; /* of x->heads */
	size_t n;
	pal__found found[PAL__LOOK_CHUNKS];
} pal__look;

/* What every head looks for from the last PAL__SCORED_ROWS query positions: at() is called for each
 * head and position, heads in ascending order. */
pal_status pal__index_look(pal__index *x, int64_t end,
			   void (*at)(void *user, const pal__look *look), void *user,
			   pal_error *err);

#endif
