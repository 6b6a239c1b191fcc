/* Kernels: the arithmetic of a forward pass, once as meaning (ref.c) and once for
 * each instruction set, all with equal bits (contract C2).
 *
 * How equality is had: SIMD lanes are outputs, never parts of a sum.
 *  - A weight matrix is stored as tiles of 16 rows (kernels/matrix.h); lane r of a
 *    vector belongs to row r of its tile. Each output is one chain of operations over
 *    the columns in ascending order. Integer dots of 32 int8 products are exact,
 *    so their inner order is free.
 *  - Attention works on blocks of PAL__ATTN_BLOCK positions in ascending order; scores
 *    have positions as lanes, the weighted sum of V has dimensions as lanes. Over integer K/V
 *    both are exact dots of integers, so that their inner order is free.
 *  - A true reduction over a vector (norms, the softmax's sum) is defined over 16
 *    virtual lanes: lane j adds elements j, j + 16, ... in order; then lanes are folded
 *    as a binary tree, j with j + 8, then + 4, + 2, + 1.
 *  - Every multiply-add named "fma" is fused, no other is; exp is ours; max(a, b) is
 *    a > b ? a : b. Denormals are kept. The payload of a NaN is not part of the bits.
 *
 * No kernel allocates, fails or looks at its arguments' contents to choose a path that
 * would change a bit. Pointers to vectors of floats need no alignment.
 */
#ifndef PAL_KERNELS_KERNELS_H
#define PAL_KERNELS_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"
#include "base/status.h"
#include "kernels/matrix.h"

#define PAL__ATTN_BLOCK 64 /* positions that one softmax step combines */
#define PAL__ATTN_MAX_QUERIES 64
#define PAL__RUN 32 /* scores of which peaks() finds the largest */

/* One block of K and V of one kv head.
 *
 * PAL__KV_FLOAT, PAL__KV_HALF: elements are float or IEEE half,
 * k: [head_dim][PAL__ATTN_BLOCK]: positions are lanes, and reading is in one direction
 * v: [PAL__ATTN_BLOCK][v_stride], v_stride = head_dim rounded up to 16, padding zero
 *
 * PAL__KV_INT16: elements are int16 times the scale of their position, and stored as two
 * planes of bytes, all the high ones (signed), then all the low ones (unsigned), of
 * pal__attn_plane() bytes each. In a plane lie tiles of 16 lanes, in a tile 4 numbers to be
 * multiplied for each lane, then the next 4, as instructions for dots of bytes want them:
 * k: [4][head_dim / 4, rounded up][16 positions][4 dimensions]
 * v: [v_stride / 16][PAL__ATTN_BLOCK / 4][16 dimensions][4 positions]
 * What lies in padding, or at positions that no query sees, does not matter.
 *
 * PAL__KV_INT8: the same of int16 whose low bytes are all zero: that plane is not there. So an
 * element is 256 times an int8 times the scale, and the bits are those of such int16. */
typedef enum { PAL__KV_FLOAT, PAL__KV_HALF, PAL__KV_INT16, PAL__KV_INT8 } pal__kv_kind;

/* Kinds that have scales, and that queries are rounded for. */
static inline bool pal__kv_is_int(pal__kv_kind kind)
{
	return kind == PAL__KV_INT16 || kind == PAL__KV_INT8;
}

typedef struct {
	const void *k, *v;
	const float *k_scale, *v_scale; /* [PAL__ATTN_BLOCK], of integers, not negative */
	const void *next; /* K that will be read after this block's V, to fetch ahead; or NULL */
	pal__kv_kind kind;
	size_t head_dim;
	float scale; /* of the scores */
} pal__attn_kv;

/* A plane of `lanes` dots of n numbers: its bytes, and where number i of a lane is. */
static inline size_t pal__attn_plane(size_t lanes, size_t n)
{
	return (lanes + 15) / 16 * 16 * ((n + 3) / 4 * 4);
}
static inline size_t pal__attn_at(size_t n, size_t lane, size_t i)
{
	return ((lane / 16 * ((n + 3) / 4) + i / 4) * 16 + lane % 16) * 4 + i % 4;
}

/* Over integers, what K and V are multiplied with is rounded to integers: a query once
 * (attn_begin), its weights in each block. A row of n numbers x[i] becomes
 * a[i] = round_half_even(x[i] * (32512 / m)), m the largest |x[i]|, and a step m / 127:
 * |a[i]| <= 32512 = 127 * 256, so that a[i] = 256 * int8 + int8. As for activations all is 0 for
 * m below 2^-100, and the step NaN (a 0) where not all are finite. Its dot with a lane is
 * (H + (L >> 8)) * step, H = sum of a[i] * high, L = sum of a[i] * low, exact in int32 for 256
 * numbers, (L >> 8) rounded down. More than 256: segments of 256, as floats added in order.
 * How a row is stored is each instruction set's own affair; these are its bytes. */
static inline size_t pal__attn_row(size_t n)
{
	return PAL__ALIGN + (n + 63) / 64 * 128;
}

/* One query's running softmax. A fresh one has max = -inf, sum = 0, acc zero. */
typedef struct {
	const float *q;  /* [head_dim], of PAL__KV_FLOAT and PAL__KV_HALF */
	const void *row; /* q by attn_begin, of integers */
	float *acc;      /* [v_stride] */
	float max, sum;
	int lo, hi; /* visible positions of the block at hand: 0 <= lo < hi <= PAL__ATTN_BLOCK */
} pal__attn_query;

typedef struct {
	const char *name;

	/* Rounds columns [from, to) of x [width][k], whole blocks of 32, to their part of an
	 * activation panel (kernels/matrix.h). */
	void (*quantize)(const float *x, size_t k, size_t from, size_t to, int width, void *panel);
	int panel; /* columns of its widest panel */

	/* y[c][r] for the rows of tiles [tile0, tile1) and every column of x.
	 * y: [x->n][ldy] float; rows beyond w->n_rows are not written. */
	void (*matmul)(const pal__matrix *w, size_t tile0, size_t tile1, const pal__acts *x,
		       float *y, size_t ldy);

	/* out[i] = (x[i] * (1 / sqrt(sum(x^2) / n + eps))) * w[i]; out may be x. */
	void (*rms_norm)(const float *x, const float *w, size_t n, float eps, float *out);

	/* Rotates pairs (x[i], x[i + n_rot / 2]), i < n_rot / 2, by the angles whose
	 * cosines and sines are given: [n_rot / 2] each. */
	void (*rope)(float *x, const float *cos, const float *sin, size_t n_rot);

	void (*swiglu)(float *gate, const float *up, size_t n); /* gate = silu(gate) * up */
	void (*geglu)(float *gate, const float *up, size_t n);  /* gelu, tanh form */
	void (*add)(float *x, const float *y, size_t n);        /* x += y */
	void (*scale)(float *x, float by, size_t n);            /* x *= by */

	/* Rounds a query. row: pal__attn_row(head_dim) bytes at a multiple of 64 */
	void (*attn_begin)(const float *q, size_t head_dim, void *row);

	/* One block for n queries, 1 to PAL__ATTN_MAX_QUERIES, each on its own. Their rows lie
	 * one after the other. */
	void (*attn)(const pal__attn_kv *kv, pal__attn_query *queries, int n);

	/* out[i] = acc[i] / sum, n floats: the end of a query. */
	void (*attn_end)(const float *acc, float sum, size_t n, float *out);

	/* The largest of each run of PAL__RUN scores x[n] times `by`: best[r], -inf where there is
	 * no number; runs are made up to a multiple of 16 by such. *most: the largest of them all.
	 * Returns the sum of exp(best[r] - *most), a reduction; 0 where *most is -inf. */
	float (*peaks)(const float *x, size_t n, float by, float *best, float *most);

	void (*to_half)(const float *x, size_t n, uint16_t *out); /* nearest, ties to even */

	/* out[i] = round_half_even(x[i] / d) within +-32767, d = the largest |x[i]| / 32767;
	 * returns d. As for activations: d = 0 below 2^-100, NaN where not all are finite. */
	float (*to_int16)(const float *x, size_t n, int16_t *out);
	float (*to_int8)(const float *x, size_t n, int8_t *out); /* with 127 */
} pal__kernels;

extern const pal__kernels pal__kernels_scalar;
#if defined(__x86_64__)
extern const pal__kernels pal__kernels_avx2, pal__kernels_avx512, pal__kernels_amx;
#elif defined(__aarch64__)
extern const pal__kernels pal__kernels_neon;
#endif

/* The kernels called `name` (scalar, avx2, avx512, amx, neon), or for NULL the best that this
 * CPU runs. Errors: PAL_EINVAL (unknown), PAL_EUNSUPPORTED (not on this CPU). */
pal_status pal__kernels_choose(const char *name, const pal__kernels **out, pal_error *err);

/* Float value of row `row` of w: out: [w->n_cols]. The same on every CPU. */
void pal__matrix_row(const pal__matrix *w, size_t row, float *out);

#endif
