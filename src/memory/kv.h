/* The attention memory of one session: K and V of the positions it holds.
 *
 * The forward pass never decides what a query sees: it asks here, block by block, and a
 * policy answers with positions. The policy today is `full`: every position up to the
 * query's own (of the last `window` ones, for layers that slide).
 *
 * Invariants:
 *  - Position p lies in block p / 64 at place p % 64, for each layer and kv head, in the
 *    layout of kernels/kernels.h. So what a query sees of a block is a range of places
 *    that depends on the query's position alone, and never on how calls were grouped.
 *  - Blocks are visited in ascending order, which is the order of the softmax's sums.
 *  - int16 elements have a scale for each position of each head: as many bytes as halves
 *    and some, a tenth of their error, and no overflow (docs/adr).
 *  - What a position needs in all layers lies together: pages are touched as a session grows.
 *  - All bytes come from the session's arena and are fixed when it opens (contract C1).
 *  - Positions beyond `length` may hold anything; nobody sees them.
 */
#ifndef PAL_MEMORY_KV_H
#define PAL_MEMORY_KV_H

#include "base/mem.h"
#include "kernels/kernels.h"

#define PAL__KV_MAX_DIM 1024 /* of a head */

typedef struct {
	size_t n_layers, n_kv_heads, head_dim;
	int64_t n_ctx; /* positions to make room for, at least 1 */
	pal__kv_kind kind;
} pal__kv_shape;

typedef struct {
	pal__kv_shape shape;
	size_t n_blocks;                     /* of a layer */
	size_t k_bytes, v_bytes, head_bytes; /* of a head's block; in all, with scales */
	uint8_t *data;                       /* [n_blocks][n_layers][n_kv_heads][head_bytes] */
} pal__kv;

/* Bytes of the arena that pal__kv_init takes; false: they do not fit a size_t. */
bool pal__kv_need(const pal__kv_shape *shape, size_t *bytes);

/* The arena must have room for pal__kv_need() bytes. */
void pal__kv_init(pal__kv *kv, const pal__kv_shape *shape, pal__arena *arena);

/* Stores one head's k and v [head_dim] of position pos, rounded as the kind asks. */
void pal__kv_store(pal__kv *kv, const pal__kernels *kernels, size_t layer, size_t head, int64_t pos,
		   const float *k, const float *v);

/* What a query at `pos` sees: blocks [*first, *end), and of each a range of places. window:
 * how many positions back, its own included; 0: all. */
void pal__kv_blocks(const pal__kv *kv, int64_t pos, int64_t window, int64_t *first, int64_t *end);
void pal__kv_range(const pal__kv *kv, int64_t pos, int64_t window, int64_t block, int *lo, int *hi);

/* One head's block, for the attention kernel (scale is the caller's). */
pal__attn_kv pal__kv_block(const pal__kv *kv, size_t layer, size_t head, int64_t block);

#endif
