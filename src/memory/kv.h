/* The attention memory of one session: K and V of the positions it holds.
 *
 * The forward pass never decides what a query sees: it asks here. What a query at position p
 * sees in a layer (docs/adr/0009):
 *
 *   keeps all   positions 0..p
 *   slides      positions p-slide+1..p
 *   bounded     0..p while p < sink + window: nothing is evicted yet, and all is as in layers that
 *               keep all, to the bit; then p-window+1..p, and before them the far rows
 *
 * Far rows are the sinks and behind them what was restored. They have places of their own, and
 * K is rotated for them by whoever stores them. Seen at compact positions, row i stands
 * `far_rows - i` positions before the window, and the query is rotated to pal__kv_far_pos().
 *
 * Invariants:
 *  - Position p lies in block p / 64 at place p % 64, for each layer and kv head, in the
 *    layout of kernels/kernels.h; block b in place b % n_blocks of its layer's ring. So what a
 *    query sees of a block is a range of places that depends on the query's position alone, and
 *    never on how calls were grouped.
 *  - Far rows are visited first, then blocks in ascending order, which is the order of the
 *    softmax's sums.
 *  - A ring holds what any of the last `reread` positions sees, and the next ones in `piece`
 *    blocks: rows of one forward pass touch at most as many.
 *  - int16 and int8 elements have a scale for each position of each head: as many bytes as
 *    halves and some, a tenth of their error, and no overflow (docs/adr); or half of that.
 *  - Packed K/V are affine4 rows (memory/pack.h), which no kernel reads: a block is expanded to
 *    one of `kind`, int16, in space that the reader brings.
 *  - What a position needs in all layers lies together: pages are touched as a session grows.
 *  - All bytes come from the session's arena and are fixed when it opens (contract C1).
 *  - Positions beyond what was stored may hold anything; nobody sees them.
 */
#ifndef PAL_MEMORY_KV_H
#define PAL_MEMORY_KV_H

#include "base/mem.h"
#include "kernels/kernels.h"

#define PAL__KV_MAX_DIM 1024 /* of a head */

typedef struct {
	size_t n_layers, n_kv_heads, head_dim;
	int64_t n_ctx;     /* positions to make room for in layers that keep all, at least 1 */
	pal__kv_kind kind; /* of the blocks that attention reads */
	bool packed;       /* what is kept are affine4 rows; kind: PAL__KV_INT16 */
	/* Layer l slides when slide > 0 and l % slide_every != slide_every - 1. The others are
	 * bounded when window > 0, and keep all when it is 0. */
	int64_t slide;
	size_t slide_every;
	int64_t sink, window;
	int64_t reread; /* positions before the last that may be computed again */
	size_t piece;   /* blocks that one forward pass may touch, at least 1 */
	size_t slots;   /* far rows behind the sinks */
	bool original;  /* far rows are seen at their own positions */
} pal__kv_shape;

/* Layers of one kind: [n_blocks][n_layers][n_kv_heads][head_bytes]. */
typedef struct {
	size_t n_blocks, n_layers;
	uint8_t *data;
} pal__kv_ring;

typedef struct {
	pal__kv_shape shape;
	size_t k_bytes, v_bytes;         /* of a head's block as the kernel reads it */
	size_t head_bytes;               /* of one as it is kept, scales included */
	size_t row_bytes;                /* of a packed row */
	pal__kv_ring main, sliding, far; /* far: of the layers of main */
	uint8_t *data;                   /* [bytes] all of it */
	size_t bytes;
	size_t far_rows; /* in sight, the sinks included */
} pal__kv;

/* Sets kind and packed; false: there is no such type. */
bool pal__kv_of_type(pal_kv_type type, pal__kv_shape *shape);

/* Bytes of the arena that pal__kv_init takes; false: they do not fit a size_t. */
bool pal__kv_need(const pal__kv_shape *shape, size_t *bytes);

/* The arena must have room for pal__kv_need() bytes. */
void pal__kv_init(pal__kv *kv, const pal__kv_shape *shape, pal__arena *arena);

static inline bool pal__kv_slides(const pal__kv_shape *s, size_t layer)
{
	return s->slide && layer % s->slide_every != s->slide_every - 1;
}
static inline bool pal__kv_bounded(const pal__kv_shape *s, size_t layer)
{
	return s->window && !pal__kv_slides(s, layer);
}

/* The i-th of the layers that do not slide, those of `main`. */
static inline size_t pal__kv_main_layer(const pal__kv_shape *s, size_t i)
{
	return s->slide ? (i + 1) * s->slide_every - 1 : i;
}

/* How many of the next n positions from pos on one forward pass may take. */
size_t pal__kv_piece(const pal__kv *kv, int64_t pos, size_t n);

/* Stores one head's k and v [head_dim] of position pos, rounded as the kind asks. */
void pal__kv_store(pal__kv *kv, const pal__kernels *kernels, size_t layer, size_t head, int64_t pos,
		   const float *k, const float *v);

/* The same for far row `row` of a bounded layer. k or v NULL: that half stays. */
void pal__kv_store_far(pal__kv *kv, const pal__kernels *kernels, size_t layer, size_t head,
		       size_t row, const float *k, const float *v);

/* What was stored for a position that the layer's ring still has: k, v [head_dim]. */
void pal__kv_load(const pal__kv *kv, size_t layer, size_t head, int64_t pos, float *k, float *v);

/* The blocks of positions [from, end) in the layers of `main`, which lie one behind the other where
 * those keep all. */
uint8_t *pal__kv_blocks(const pal__kv *kv, int64_t from, int64_t end, size_t *bytes);

/* What a query at pos sees: positions [first, pos], and with far the far rows. */
typedef struct {
	int64_t first;
	bool far;
} pal__kv_sight;
pal__kv_sight pal__kv_sees(const pal__kv *kv, size_t layer, int64_t pos);

/* Whether the rings still have all that, in all layers, after positions [0, end) were stored. */
bool pal__kv_has(const pal__kv *kv, int64_t pos, int64_t end);

/* Where queries stand for the far rows, at compact positions. */
static inline int64_t pal__kv_far_pos(const pal__kv *kv)
{
	return kv->shape.window ? (int64_t)kv->far_rows + kv->shape.window - 1 : 0;
}

/* Bytes of space to expand a block to. */
size_t pal__kv_space(size_t head_dim);

/* One head's block of positions, or of far rows, for the attention kernel (scale and next are the
 * caller's). space: pal__kv_space() bytes at a multiple of PAL__ALIGN, written where K/V are
 * packed, and read until the next block is asked for. */
pal__attn_kv pal__kv_block(const pal__kv *kv, const pal__kernels *kernels, size_t layer,
			   size_t head, int64_t block, uint8_t *space);
pal__attn_kv pal__kv_far_block(const pal__kv *kv, const pal__kernels *kernels, size_t layer,
			       size_t head, size_t block, uint8_t *space);

/* Where the kernel will read K of a block that it has next, or NULL. */
const void *pal__kv_next(const pal__kv *kv, size_t layer, size_t head, int64_t block);

#endif
