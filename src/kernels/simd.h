/* The vector kernels, written once over 16 virtual lanes.
 *
 * An instruction set's file (avx2.c, avx512.c, neon.c) defines the types and operations
 * below and then includes this file, which defines all kernels of kernels.h as static
 * functions and, last, the table. Every operation is exact or rounded as IEEE 754 says,
 * so the bits are those of ref.c, whose order of operations is kept line by line.
 *
 *   vf, vi           16 float, 16 int32 (also seen as 64 bytes)
 *   vf_load/store(p) vf_set(x) vf_add vf_sub vf_mul vf_div vf_fma(a,b,c) = a * b + c
 *   vf_max(a, b)     a > b ? a : b
 *   vf_times_2(p, n, t)  p * 2^n, p NaN or near 1, n whole, t with n in its low bits
 *   vf_lt(a,b,x,y)   lanes of x where a < b, else of y (also where a or b is NaN)
 *   vf_half(p)       16 halves to float; vf_to_half(p, v) rounds to 16 halves
 *   vi_to_int16(p, v) 16 lanes within int16 to those
 *   vf_of_bits(vi) vf_of_int(vi)  the same bits; the converted integers
 *   vi_load(p) vi_set(x) vi_and vi_or vi_xor vi_add vi_srl(v,n) vi_sll(v,n) of 32 bits
 *   vi_of_bits(vf) vi_half_bits(p): 16 uint16 widened; vi_round(vf): nearest even
 *   vf_sum(v) vf_most(v)  the sum and the maximum of all lanes, by the tree of ref.c's fold()
 *   vf_largest(a, b) the largest of |lanes|, compared as bits
 *   vf_fold(v, p)    four vectors' sums over their lanes, as ref.c's fold() has it
 *   vi_pack(p, v)    16 lanes within int8 to int8
 *   vi_lookup(table, v): 64 bytes v, each below 16, through table[16] (vi_table(p))
 *   vw, vw_codes(v)  64 bytes below 128 as an operand of vi_dots; vw_signed(v): of int8, each of
 *                    which seems 2^VW_BIAS_SHIFT more than it is (0: no more)
 *   nsum_of(q[16], sum)  what vi_start wants to know of quants and their sum (here, where GROUPS is
 * 1) vi_start(a, b, zero) where a dot starts with codes that mean 2^zero less (zero < 0: what they
 *                    are); a, b: nsum_of the quants' halves, 0 for one that is not in it
 *   vi_dots(sum, n, w, count, bits, zero, p, stride)  sum[c], vi_start() at first, has in each row
 *                    the products of `count` vw, whose codes take `bits` bits, with the quants at
 *                    p + c stride, 4 a vw, added to it
 *   GROUPS           vw that vi_dots takes at once: 1, or 8, and then all that a dot has
 *   COLUMNS_AT_ONCE  columns whose sums stay in registers
 *   PANEL            columns of the widest panel
 *   BLOCKS_AT_ONCE   4: so many blocks of packed types in a row, with constant shifts; or 1
 *   UNROLLED         before loops over those and over groups: a pragma, or nothing
 *   EACH_COLUMN      before loops over columns: the same
 *   vi_max(a, b)     the larger, without sign; vi_sum(v): of all lanes
 *   COLUMNS_OF_16    columns that go together of unpacked types with two scales
 *   MAX_COLUMNS, ATTN_TILES(n), ATTN_DIMS(n)  what fits the registers
 * And for dots with rows of integers (pal__attn_row):
 *   row_store(p, pad, at, v[4])  integers [at, at + 64) of a row of `pad`, the way vs_dot wants
 *   vu, vu_load(p, q)            4 high bytes of 16 lanes at p, their low bytes at q (q NULL: all
 *                                zero, and with low false no matter to the following)
 *   vs, vs_start(sum, low)       H and L of 16 lanes by a row, whose integers' sum is `sum` if
 *                                ROW_SUMS; vs_value(s): H + (L >> 8)
 *   vs_dot(s, u, low, p, pad, g) more by u times the row's integers 4 g to 4 g + 3
 *   ATTN_SUMS                    how many vs fit the registers
 */
#include <math.h>
#include <string.h>

#include "kernels/block.h"
#include "kernels/exp.h"
#include "kernels/kernels.h"

#define INLINE static inline __attribute__((always_inline))

/* Dots that add up in 32 bits start with the quants' sum; those that add up in 16 (GROUPS 8) have
 * their own. */
#if GROUPS == 1
INLINE int32_t nsum_of(const int8_t q[16], int32_t sum)
{
	(void)q;
	return -sum;
}
INLINE vi vi_start(int32_t nsum_a, int32_t nsum_b, int zero)
{
	return zero < 0 ? vi_set(0) : vi_sll(vi_set(nsum_a + nsum_b), zero);
}
#endif

/* --- lanes: reductions, exp, tails ----------------------------------------- */

/* exp where x <= PAL__EXP_MAX, or NaN. */
INLINE vf vf_exp_low(vf x)
{
	vf t = vf_fma(x, vf_set(PAL__LOG2E), vf_set(PAL__ROUND));
	vf n = vf_sub(t, vf_set(PAL__ROUND));
	vf r = vf_fma(n, vf_set(-PAL__LN2_HI), x);
	r = vf_fma(n, vf_set(-PAL__LN2_LO), r);
	vf p = vf_fma(r, vf_set(PAL__EXP_P6), vf_set(PAL__EXP_P5));
	p = vf_fma(p, r, vf_set(PAL__EXP_P4));
	p = vf_fma(p, r, vf_set(PAL__EXP_P3));
	p = vf_fma(p, r, vf_set(PAL__EXP_P2));
	p = vf_fma(p, r, vf_set(1));
	p = vf_fma(p, r, vf_set(1));
	return vf_lt(x, vf_set(PAL__EXP_MIN), vf_set(0), vf_times_2(p, n, vi_of_bits(t)));
}

INLINE vf vf_exp(vf x)
{
	return vf_exp_low(vf_lt(vf_set(PAL__EXP_MAX), x, vf_set(PAL__EXP_MAX), x));
}

/* The first n floats of p, zeros after them. */
INLINE vf load_tail(const float *p, size_t n)
{
	float x[16] = {0};
	if (n >= 16 || !n)
		return n ? vf_load(p) : vf_set(0);
	memcpy(x, p, n * sizeof *x);
	return vf_load(x);
}

INLINE void store_tail(float *p, vf v, size_t n)
{
	float x[16];
	vf_store(x, v);
	memcpy(p, x, n * sizeof *x);
}

/* --- activations ------------------------------------------------------------ */

INLINE vf round_by(vf x, vf id)
{
	return vf_sub(vf_fma(x, id, vf_set(0x1.8p23f)), vf_set(0x1.8p23f));
}

INLINE vf products(vf a0, vf b0, vf a1, vf b1)
{
	return vf_fma(a1, b1, vf_mul(a0, b0));
}

/* What is known of some blocks of 32 values after each step. The steps are loops of their own,
 * as within a block each waits for the one before. */
#define BLOCKS 16

typedef struct {
	float size[BLOCKS], inverse[BLOCKS], sums[BLOCKS][4];
	int best[BLOCKS];
} rounding;

INLINE float scale_of(const rounding *t, int b, int try)
{
	return t->size[b] * (1 / (float)(127 - try));
}

/* The largest magnitude is found on the bits, where NaN and inf are larger than all. Where
 * nothing can be rounded, inverse is 0. */
INLINE void find_sizes(const float *x, int n, rounding *t)
{
	for (int b = 0; b < n; b++)
		t->size[b] = vf_largest(vf_load(x + 32 * b), vf_load(x + 32 * b + 16));
}

/* Errors are no NaN where it matters and not negative: their bits are ordered as they are.
 * Which is the least cannot be predicted, so there is no branch. */
INLINE void find_scales(const float *x, int n, rounding *t)
{
	vf size = vf_load(t->size), none = vf_set(0);
	vf inverse = vf_lt(size, vf_set(INFINITY), vf_div(vf_set(1), size), none);
	vf_store(t->inverse, vf_lt(size, vf_set(0x1p-100f), none, inverse));
	for (int b = 0; b < n; b++) {
		vf x0 = vf_load(x + 32 * b), x1 = vf_load(x + 32 * b + 16);
		vf squares[PAL__ACT_TRIES];
		for (int i = 0; i < PAL__ACT_TRIES; i++) {
			vf id = vf_set(t->inverse[b] * (float)(127 - i));
			vf minus_d = vf_set(-scale_of(t, b, i));
			vf e0 = vf_fma(round_by(x0, id), minus_d, x0);
			vf e1 = vf_fma(round_by(x1, id), minus_d, x1);
			squares[i] = products(e0, e0, e1, e1);
		}
		vf_fold(squares, t->sums[b]);
	}
	for (int b = 0; b < n; b++) {
		uint64_t best = UINT64_MAX;
		for (uint64_t i = 0; i < PAL__ACT_TRIES; i++) {
			uint64_t key = (uint64_t)pal__float_bits(t->sums[b][i]) << 32 | i;
			best = key < best ? key : best;
		}
		t->best[b] = (int)(best & 0xff);
	}
}

/* Sums of quants are exact, so that fold's order is as good as any. */
INLINE void round_blocks(const float *x, int n, rounding *t, int8_t q[][32])
{
	for (int b = 0; b < n; b++) {
		vf id = vf_set(t->inverse[b] * (float)(127 - t->best[b]));
		vf x0 = vf_load(x + 32 * b), x1 = vf_load(x + 32 * b + 16);
		vf r0 = vf_lt(vf_set(0), id, round_by(x0, id), vf_set(0));
		vf r1 = vf_lt(vf_set(0), id, round_by(x1, id), vf_set(0));
		const vf four[4] = {products(x0, r0, x1, r1), products(r0, r0, r1, r1), r0, r1};
		vf_fold(four, t->sums[b]);
		vi_pack(q[b], vi_round(r0));
		vi_pack(q[b] + 16, vi_round(r1));
	}
}

INLINE void store_block(const rounding *t, int b, const int8_t q[32], const pal__act_block *a)
{
	const float *sums = t->sums[b];
	float fitted = sums[0] / sums[1];
	bool finite = t->size[b] - t->size[b] == 0, use = t->inverse[b] > 0;
	float d = fitted - fitted == 0 ? fitted : scale_of(t, b, t->best[b]);
	*a->d = use ? d : finite ? 0 : NAN;
	for (int h = 0; h < 2; h++) {
		a->nsum[h] = nsum_of(q + 16 * h, (int32_t)sums[2 + h]);
		a->dsum[h] = *a->d * sums[2 + h];
	}
	a->dsum[2] = *a->d * (sums[2] + sums[3]);
	memcpy(a->q, q, 32);
}

/* Each step for all columns before the next, so that nothing waits for what it needs. */
static void quantize(const float *x, size_t k, size_t from, size_t to, int width, void *panel)
{
	const size_t stride = (size_t)width * PAL__ACT_BYTES;
	uint8_t *block = (uint8_t *)panel + from / 32 * stride;
	rounding t[PAL__MAX_PANEL] = {{{0}, {0}, {{0}}, {0}}};
	int8_t q[BLOCKS][32];
	x += from;
	for (; from < to; from += 32 * BLOCKS, x += 32 * BLOCKS) {
		int n = (to - from) / 32 < BLOCKS ? (int)((to - from) / 32) : BLOCKS;
		for (int c = 0; c < width; c++)
			find_sizes(x + (size_t)c * k, n, &t[c]);
		for (int c = 0; c < width; c++)
			find_scales(x + (size_t)c * k, n, &t[c]);
		for (int c = 0; c < width; c++) {
			round_blocks(x + (size_t)c * k, n, &t[c], q);
			for (int b = 0; b < n; b++) {
				pal__act_block a =
					pal__act_at(block + (size_t)b * stride, width, c);
				store_block(&t[c], b, q[b], &a);
			}
		}
		block += BLOCKS * stride;
	}
}

/* --- weights: what 16 rows hold in 32 columns -------------------------------- */

/* A tile's planes, in the order of kernels/matrix.c's fields; or, of one that is unpacked (`ready`
 * in what follows, a constant), its codes in p[0], [block][8][64], and its scales. */
typedef struct {
	const uint8_t *p[PAL__MAX_FIELDS];
	const float *scale, *min; /* [block][parts of a block][16] */
} planes;

INLINE planes planes_of(const pal__matrix *w, size_t tile)
{
	planes t = {{0}, NULL, NULL};
	for (int f = 0; f < PAL__MAX_FIELDS; f++)
		t.p[f] = w->data + tile * w->tile_bytes + w->plane[f];
	return t;
}

/* Bytes of a pair of blocks of 16 rows: 32 times the file's block. */
INLINE size_t pair_bytes(pal__type type)
{
	switch (type) {
	case PAL__Q8_0:
		return 32 * 34;
	case PAL__Q4_0:
	case PAL__IQ4_NL:
		return 32 * 18;
	case PAL__Q4_1:
		return 32 * 20;
	case PAL__Q5_0:
		return 32 * 22;
	case PAL__Q5_1:
		return 32 * 24;
	case PAL__Q2_K:
		return 32 * 84;
	case PAL__Q3_K:
		return 32 * 110;
	case PAL__Q4_K:
		return 32 * 144;
	case PAL__Q5_K:
		return 32 * 176;
	case PAL__Q6_K:
		return 32 * 210;
	case PAL__IQ4_XS:
		return 32 * 136;
	default:
		__builtin_unreachable();
	}
}

/* Where plane f, `size` bytes a block, has a block. */
INLINE const uint8_t *units_at(pal__type type, const planes *t, int f, size_t size, size_t block)
{
	return t->p[f] + block / 2 * pair_bytes(type) + block % 2 * size;
}

/* Unit u of the `count` that plane f has of a block. */
INLINE vi words(pal__type type, const planes *t, int f, size_t block, size_t count, size_t u)
{
	return vi_load(units_at(type, t, f, count * 64, block) + u * 64);
}

INLINE vf halves(pal__type type, const planes *t, int f, size_t block)
{
	return vf_half(units_at(type, t, f, 32, block));
}

/* The low nibbles for shift 0, the high ones for 4. */
INLINE vi nibble(vi v, int shift)
{
	return vi_and(vi_srl(v, shift), vi_set(0x0f0f0f0f));
}

/* Bits 4g .. 4g + 3 of a word of 32 fifth bits, as bit 4 of four bytes. */
INLINE vi fifth_bits(vi high, int g)
{
	vi n = vi_and(vi_srl(high, 4 * g), vi_set(15));
	vi spread = vi_or(vi_or(n, vi_sll(n, 7)), vi_or(vi_sll(n, 14), vi_sll(n, 21)));
	return vi_sll(vi_and(spread, vi_set(0x01010101)), 4);
}

/* The codes of weights 4g .. 4g + 3 of block b of 32 columns, in bytes. j: b % 4, as a constant
 * where that makes a difference. */
INLINE vi bytes(pal__type type, const planes *t, size_t b, int j, int g, vi table)
{
	size_t super = b / 8, s = b % 8; /* of the types with 256 columns a block */
	size_t n = (size_t)g, low = n & 3;
	int high = g & 4;
	vi v;
	switch (type) {
	case PAL__Q8_0:
		return words(type, t, 0, b, 8, n);
	case PAL__IQ4_NL:
		return vi_lookup(table, nibble(words(type, t, 0, b, 4, low), high));
	case PAL__IQ4_XS:
		return vi_lookup(table, nibble(words(type, t, 0, super, 32, s * 4 + low), high));
	case PAL__Q4_0:
	case PAL__Q4_1:
		return nibble(words(type, t, 0, b, 4, low), high);
	case PAL__Q5_0:
	case PAL__Q5_1:
		v = fifth_bits(words(type, t, 1, b, 1, 0), g);
		return vi_or(v, nibble(words(type, t, 0, b, 4, low), high));
	case PAL__Q4_K:
		return nibble(words(type, t, 0, super, 32, s / 2 * 8 + n), j % 2 * 4);
	case PAL__Q5_K:
		v = vi_and(vi_srl(words(type, t, 1, super, 8, n), (int)s), vi_set(0x01010101));
		return vi_or(vi_sll(v, 4),
			     nibble(words(type, t, 0, super, 32, s / 2 * 8 + n), j % 2 * 4));
	case PAL__Q6_K:
		v = vi_srl(words(type, t, 1, super, 16, s / 4 * 8 + n), j * 2);
		v = vi_sll(vi_and(v, vi_set(0x03030303)), 4);
		return vi_or(v, nibble(words(type, t, 0, super, 32, s / 4 * 16 + s % 2 * 8 + n),
				       j / 2 * 4));
	case PAL__Q2_K:
	case PAL__Q3_K:
		v = vi_srl(words(type, t, 0, super, 16, s / 4 * 8 + n), j * 2);
		v = vi_and(v, vi_set(0x03030303));
		if (type == PAL__Q2_K)
			return v;
		return vi_or(v, vi_sll(vi_and(vi_srl(words(type, t, 1, super, 8, n), (int)s),
					      vi_set(0x01010101)),
				       2));
	default:
		__builtin_unreachable();
	}
}

/* The same as an operand of vi_dots. */
INLINE vw codes(pal__type type, bool ready, const planes *t, size_t b, int j, int g, vi table)
{
	vi v = ready ? vi_load(t->p[0] + (b * 8 + (size_t)g) * 64) : bytes(type, t, b, j, g, table);
	return type == PAL__Q8_0 || type == PAL__IQ4_NL || type == PAL__IQ4_XS ? vw_signed(v)
									       : vw_codes(v);
}

/* Types with 256 columns a block, whose scales are packed. */
INLINE bool type_is_packed(pal__type t)
{
	return t == PAL__Q2_K || t == PAL__Q3_K || t == PAL__Q4_K || t == PAL__Q5_K ||
	       t == PAL__Q6_K || t == PAL__IQ4_XS;
}

/* Cache lines that a block of 32 columns takes of a tile, rounded up. */
INLINE int block_lines(pal__type type)
{
	return (int)((pair_bytes(type) / (type_is_packed(type) ? 16 : 2) + 63) / 64);
}

/* log2 of the code that means zero, for types whose codes are unsigned; -1: none. */
INLINE int zero_shift(pal__type type)
{
	switch (type) {
	case PAL__Q4_0:
		return 3;
	case PAL__Q5_0:
		return 4;
	case PAL__Q6_K:
		return 5;
	case PAL__Q3_K:
		return 2;
	case PAL__Q8_0:
	case PAL__IQ4_NL:
	case PAL__IQ4_XS:
		return VW_BIAS_SHIFT ? VW_BIAS_SHIFT : -1;
	default:
		return -1;
	}
}

/* Bits of the largest code (8 where the dots are biased): how long sums stay within 16 bits. */
INLINE int code_bits(pal__type type)
{
	switch (type) {
	case PAL__Q8_0:
	case PAL__IQ4_NL:
	case PAL__IQ4_XS:
		return 8;
	case PAL__Q6_K:
		return 6;
	case PAL__Q5_0:
	case PAL__Q5_1:
	case PAL__Q5_K:
		return 5;
	default:
		return 4;
	}
}

INLINE vi byte_of(vi v, int i)
{
	return vi_and(vi_srl(v, 8 * i), vi_set(255));
}

/* Scales and mins of Q4_K's and Q5_K's 8 sub-blocks; f: the field of the packed scales. Of six
 * bits the last four sub-blocks have two in the bytes of the first four. */
INLINE void scales_6(pal__type type, const planes *t, int f, size_t super, float *scale, float *min)
{
	const vi six = vi_set(0x3f3f3f3f), four = vi_set(0x0f0f0f0f), two = vi_set(0x30303030);
	vi a = words(type, t, f, super, 3, 0), b = words(type, t, f, super, 3, 1),
	   c = words(type, t, f, super, 3, 2);
	vf d = halves(type, t, f + 1, super), dmin = vf_neg(halves(type, t, f + 2, super));
	vi s[2] = {vi_and(a, six), vi_or(vi_and(c, four), vi_and(vi_srl(a, 2), two))};
	vi m[2] = {vi_and(b, six), vi_or(vi_and(vi_srl(c, 4), four), vi_and(vi_srl(b, 2), two))};
	for (int i = 0; i < 8; i++) {
		vf_store(scale + 16 * i, vf_mul(d, vf_of_int(byte_of(s[i / 4], i % 4))));
		vf_store(min + 16 * i, vf_mul(dmin, vf_of_int(byte_of(m[i / 4], i % 4))));
	}
}

/* Scales of Q6_K's 16 sub-blocks: int8, to which 128 is added and taken away again. */
INLINE void scales_8(pal__type type, const planes *t, size_t super, float *scale)
{
	const vf d = halves(type, t, 3, super);
	for (size_t u = 0; u < 4; u++) {
		vi v = vi_xor(words(type, t, 2, super, 4, u), vi_set((int32_t)0x80808080));
		for (int i = 0; i < 4; i++, scale += 16)
			vf_store(scale, vf_mul(d, vf_of_int(vi_add(byte_of(v, i), vi_set(-128)))));
	}
}

/* Scale (and min) of part h of block b: h is 0, or 0 and 1 where sub-blocks are 16 wide. */
INLINE void scales(pal__type type, const planes *t, size_t b, int h, vf *scale, vf *min)
{
	size_t super = b / 8;
	int s = (int)(b % 8), s16 = 2 * s + h;
	vi low, high;
	switch (type) {
	case PAL__Q8_0:
	case PAL__Q4_0:
	case PAL__IQ4_NL:
		*scale = halves(type, t, 1, b);
		return;
	case PAL__Q5_0:
		*scale = halves(type, t, 2, b);
		return;
	case PAL__Q4_1:
		*scale = halves(type, t, 1, b);
		*min = halves(type, t, 2, b);
		return;
	case PAL__Q5_1:
		*scale = halves(type, t, 2, b);
		*min = halves(type, t, 3, b);
		return;
	case PAL__Q2_K:
		low = byte_of(words(type, t, 1, super, 4, (size_t)s16 / 4), s16 % 4);
		*scale = vf_mul(halves(type, t, 2, super), vf_of_int(vi_and(low, vi_set(15))));
		*min = vf_neg(vf_mul(halves(type, t, 3, super), vf_of_int(vi_srl(low, 4))));
		return;
	case PAL__Q3_K:
		low = byte_of(words(type, t, 2, super, 3, (size_t)(s16 % 8) / 4), s16 % 4);
		low = vi_and(vi_srl(low, s16 / 8 * 4), vi_set(15));
		high = byte_of(words(type, t, 2, super, 3, 2), s16 % 4);
		high = vi_and(vi_srl(high, s16 / 4 * 2), vi_set(3));
		low = vi_add(vi_or(low, vi_sll(high, 4)), vi_set(-32));
		*scale = vf_mul(halves(type, t, 3, super), vf_of_int(low));
		return;
	case PAL__IQ4_XS:
		low = byte_of(words(type, t, 1, super, 1, 0), s / 2);
		low = vi_and(vi_srl(low, s % 2 * 4), vi_set(15));
		high = vi_and(vi_srl(vi_half_bits(units_at(type, t, 3, 32, super)), 2 * s),
			      vi_set(3));
		low = vi_add(vi_or(low, vi_sll(high, 4)), vi_set(-32));
		*scale = vf_mul(halves(type, t, 2, super), vf_of_int(low));
		return;
	default:
		__builtin_unreachable();
	}
}

INLINE bool type_has_min(pal__type t)
{
	return t == PAL__Q4_1 || t == PAL__Q5_1 || t == PAL__Q2_K || t == PAL__Q4_K ||
	       t == PAL__Q5_K;
}

/* Types with a scale for each 16 columns. */
INLINE bool type_sub_16(pal__type t)
{
	return t == PAL__Q2_K || t == PAL__Q3_K || t == PAL__Q6_K;
}

/* --- matmul ------------------------------------------------------------------- */

/* The codes of a block where a dot takes them all, for as many dots as there are. */
INLINE void codes_of(pal__type type, bool ready, const planes *t, size_t b, int j, vi table, vw w[])
{
	for (int g = 0; g < 8 && GROUPS == 8; g++)
		w[g] = codes(type, ready, t, b, j, g, table);
}

/* The halves of block b that `parts` names (1, 2, or 3: both) by n columns: the exact dots, as
 * float. w: codes_of() it. */
INLINE void dots_of(pal__type type, bool ready, const planes *t, size_t b, int j, int parts,
		    const pal__act_block *a, int n, vi table, const vw *w, vf out[])
{
	vi sum[PAL__MAX_PANEL];
	const int zero = zero_shift(type), bits = code_bits(type);
	const int first = parts & 1 ? 0 : 4, end = parts & 2 ? 8 : 4;
	EACH_COLUMN
	for (int c = 0; c < n; c++)
		sum[c] = vi_start(parts & 1 ? a->nsum[2 * c] : 0,
				  parts & 2 ? a->nsum[2 * c + 1] : 0, zero);
	if (GROUPS == 8)
		vi_dots(sum, n, w + first, end - first, bits, zero, a->q + 4 * first, 32);
	UNROLLED
	for (int g = first; g < end && GROUPS == 1; g++) {
		vw one = codes(type, ready, t, b, j, g, table);
		vi_dots(sum, n, &one, 1, bits, zero, a->q + 4 * g, 32);
	}
	EACH_COLUMN
	for (int c = 0; c < n; c++)
		out[c] = vf_of_int(sum[c]);
}

/* Scales of the 8 blocks of 32 columns from b0 on: [block][parts][16]. Types with 256 columns a
 * block pack them, so that they are unpacked together. */
INLINE void scales_of_8(pal__type type, const planes *t, size_t b0, float *scale, float *min)
{
	const int parts = type_sub_16(type) ? 2 : 1;
	if (type == PAL__Q4_K || type == PAL__Q5_K) {
		scales_6(type, t, type == PAL__Q4_K ? 1 : 2, b0 / 8, scale, min);
		return;
	}
	if (type == PAL__Q6_K) {
		scales_8(type, t, b0 / 8, scale);
		return;
	}
	for (int i = 0; i < 8 * parts; i++) {
		vf d, m = vf_set(0);
		scales(type, t, b0 + (size_t)(i / parts), i % parts, &d, &m);
		vf_store(scale + 16 * i, d);
		if (type_has_min(type))
			vf_store(min + 16 * i, m);
	}
}

/* Scale and min of part h of block b: as unpacked with the tile, or for the 8 blocks at hand, or
 * from the file's bytes. */
INLINE void block_scales(pal__type type, bool ready, const planes *t, size_t b, int h, vf *scale,
			 vf *min)
{
	const size_t parts = type_sub_16(type) ? 2 : 1;
	size_t at = ((ready ? b : b % 8) * parts + (size_t)h) * 16;
	if (!ready && !type_is_packed(type)) {
		scales(type, t, b, h, scale, min);
		return;
	}
	*scale = vf_load(t->scale + at);
	if (type_has_min(type))
		*min = vf_load(t->min + at);
}

/* Block b, of a type with one scale for its 32 columns, into acc. */
INLINE void mul_32(pal__type type, bool ready, const planes *t, size_t b, int j,
		   const pal__act_block *a, int n, vi table, const vw *w, vf acc[])
{
	vf i[PAL__MAX_PANEL], scale, min = vf_set(0);
	dots_of(type, ready, t, b, j, 3, a, n, table, w, i);
	block_scales(type, ready, t, b, 0, &scale, &min);
	EACH_COLUMN
	for (int c = 0; c < n; c++) {
		acc[c] = vf_fma(i[c], vf_mul(scale, vf_set(a->d[c])), acc[c]);
		if (type_has_min(type))
			acc[c] = vf_fma(min, vf_set(a->dsum[3 * c + 2]), acc[c]);
	}
}

/* The same of a type with a scale for each half. */
INLINE void mul_16(pal__type type, bool ready, const planes *t, size_t b, int j,
		   const pal__act_block *a, int n, vi table, const vw *w, vf acc[])
{
	vf i[PAL__MAX_PANEL], both[PAL__MAX_PANEL], scale, min[2] = {vf_set(0), vf_set(0)};
	dots_of(type, ready, t, b, j, 1, a, n, table, w, i);
	block_scales(type, ready, t, b, 0, &scale, &min[0]);
	EACH_COLUMN
	for (int c = 0; c < n; c++)
		both[c] = vf_mul(i[c], scale);
	dots_of(type, ready, t, b, j, 2, a, n, table, w, i);
	block_scales(type, ready, t, b, 1, &scale, &min[1]);
	EACH_COLUMN
	for (int c = 0; c < n; c++) {
		acc[c] = vf_fma(vf_fma(i[c], scale, both[c]), vf_set(a->d[c]), acc[c]);
		for (int h = 0; h < 2 && type_has_min(type); h++)
			acc[c] = vf_fma(min[h], vf_set(a->dsum[3 * c + h]), acc[c]);
	}
}

/* Columns of a panel, and where their outputs go. */
typedef struct {
	const uint8_t *panel;
	int width, at; /* of the panel; the first of the columns */
	float *y;      /* of the first column and the tile's first row */
	size_t ldy, rows;
} column_span;

/* So many columns as there are registers for (of which n is a multiple, or less), but for codes of
 * eight bits, which are made wider for all of them. */
INLINE void mul_block(pal__type type, bool ready, const planes *t, size_t b, int j,
		      const column_span *x, int n, vi table, vf acc[])
{
	const int most = code_bits(type) == 8 ? n : COLUMNS_AT_ONCE, m = n < most ? n : most;
	vw w[8];
	codes_of(type, ready, t, b, j, table, w);
	for (int c = 0; c < n; c += m) {
		pal__act_block a = pal__act_at((uint8_t *)(uintptr_t)x->panel, x->width, x->at + c);
		if (type_sub_16(type))
			mul_16(type, ready, t, b, j, &a, m, table, w, acc + c);
		else
			mul_32(type, ready, t, b, j, &a, m, table, w, acc + c);
	}
}

/* One tile by n columns. Memory that will be read next, a tile's bytes from `later`, is fetched to
 * L2 evenly while it works (NULL: nothing is): the CPU's own fetching ends at pages and follows
 * only what is read in order, and what is fetched to L1 so early is gone when it is needed. */
INLINE void mul_tile(pal__type type, bool ready, const pal__matrix *w, planes t, column_span x,
		     int n, const uint8_t *later)
{
	_Alignas(64) float scale[16 * 16], min[16 * 16];
	const bool packed = !ready && type_is_packed(type);
	const int step = packed ? BLOCKS_AT_ONCE : 1;
	const size_t blocks = w->n_cols / 32, stride = (size_t)x.width * PAL__ACT_BYTES;
	const size_t ahead = later ? w->tile_bytes / blocks : 0;
	vi table = vi_table(pal__iq4_values);
	vf acc[PAL__MAX_PANEL];
	EACH_COLUMN
	for (int c = 0; c < n; c++)
		acc[c] = vf_set(0);
	if (packed)
		t.scale = scale, t.min = min;
	for (size_t b = 0; b < blocks; b += (size_t)step) {
		if (packed && b % 8 == 0)
			scales_of_8(type, &t, b, scale, min);
		UNROLLED
		for (int j = 0; j < step; j++, x.panel += stride) {
			const size_t at = (b + (size_t)j) * ahead;
			for (int i = 0; ahead && i < block_lines(type); i++)
				__builtin_prefetch(later + at + (size_t)i * 64, 0, 2);
			mul_block(type, ready, &t, b + (size_t)j, step > 1 ? j : (int)(b % 4), &x,
				  n, table, acc);
		}
	}
	EACH_COLUMN
	for (int c = 0; c < n; c++) {
		if (x.rows == PAL__TILE_ROWS)
			vf_store(x.y + (size_t)c * x.ldy, acc[c]);
		else
			store_tail(x.y + (size_t)c * x.ldy, acc[c], x.rows);
	}
}

/* One tile as it is by a panel. */
INLINE void mul_panel(pal__type type, const pal__matrix *w, const planes *t, column_span x,
		      const uint8_t *later)
{
	for (int n; x.at < x.width; x.at += n, x.y += (size_t)n * x.ldy, later = NULL) {
		int left = x.width - x.at;
		if (MAX_COLUMNS >= 12 && left >= 12)
			mul_tile(type, false, w, *t, x, n = 12, later);
		else if (MAX_COLUMNS >= 8 && left >= 8)
			mul_tile(type, false, w, *t, x, n = 8, later);
		else if (left >= 4)
			mul_tile(type, false, w, *t, x, n = 4, later);
		else if (left >= 2)
			mul_tile(type, false, w, *t, x, n = 2, later);
		else
			mul_tile(type, false, w, *t, x, n = 1, later);
	}
}

/* Tiles that are used together: they stay in L2 while all panels go past, and are unpacked only
 * once. What they may take, and how many they are at most. */
#define GROUP_BYTES ((size_t)192 << 10)
#define GROUP_TILES 12
#define GROUP_LEAST 24 /* columns for which it is worth it */

typedef struct {
	_Alignas(64) uint8_t space[GROUP_BYTES];
	planes t[GROUP_TILES], ready[GROUP_TILES];
} tile_group;

/* Bytes of an unpacked tile's codes; of its scales, and again of its mins. */
INLINE size_t codes_bytes(const pal__matrix *w)
{
	return w->n_cols * PAL__TILE_ROWS;
}
INLINE size_t scales_bytes(pal__type type, const pal__matrix *w)
{
	return w->n_cols / (type_sub_16(type) ? 16 : 32) * PAL__TILE_ROWS * sizeof(float);
}

/* How many tiles make a group for so many columns; 0: they are used as they are, one by one. */
INLINE size_t group_tiles(pal__type type, const pal__matrix *w, size_t n_columns)
{
	size_t each = codes_bytes(w) + scales_bytes(type, w) * (type_has_min(type) ? 2 : 1);
	size_t most = GROUP_BYTES / each;
	return n_columns < GROUP_LEAST ? 0 : most < GROUP_TILES ? most : GROUP_TILES;
}

/* Codes and scales of a tile into `space`. */
INLINE planes unpack_tile(pal__type type, const pal__matrix *w, const planes *t, uint8_t *space)
{
	vi table = vi_table(pal__iq4_values);
	const size_t parts = type_sub_16(type) ? 2 : 1;
	float *scale = (float *)(void *)(space + codes_bytes(w));
	float *min = scale + scales_bytes(type, w) / sizeof *scale;
	planes out = {.p = {space}, .scale = scale, .min = min};
	for (size_t b = 0; b < w->n_cols / 32; b++) {
		for (int g = 0; g < 8; g++)
			vf_store((float *)(void *)(space + b * 512 + (size_t)g * 64),
				 vf_of_bits(bytes(type, t, b, (int)(b % 4), g, table)));
		size_t at = b * parts * 16;
		if (type_is_packed(type) && b % 8 == 0)
			scales_of_8(type, t, b, scale + at, min + at);
		vf d, m;
		if (!type_is_packed(type)) {
			scales(type, t, b, 0, &d, &m);
			vf_store(scale + at, d);
			if (type_has_min(type))
				vf_store(min + at, m);
		}
	}
	return out;
}

/* Tiles [tile, end) by a panel; `ready`: those that g has unpacked. */
INLINE void mul_group(pal__type type, bool ready, const pal__matrix *w, size_t tile, size_t end,
		      const tile_group *g, column_span x, bool fetch)
{
	float *y = x.y;
	for (size_t i = 0; tile + i < end; i++) {
		const size_t row = (tile + i) * PAL__TILE_ROWS, left = w->n_rows - row;
		const uint8_t *later = fetch ? w->data + (end + i) * w->tile_bytes : NULL;
		x.at = 0;
		x.y = y + row;
		x.rows = left < PAL__TILE_ROWS ? left : PAL__TILE_ROWS;
		if (!ready)
			mul_panel(type, w, &g->t[i], x, later);
		const int step = type_sub_16(type) ? COLUMNS_OF_16 : MAX_COLUMNS;
		for (; ready && x.at < PANEL; x.at += step, later = NULL) {
			mul_tile(type, true, w, g->ready[i], x, step, later);
			x.y += (size_t)step * x.ldy;
		}
	}
}

/* Tiles [tile, end) by every panel, for a type known at compile time. */
INLINE void mul_panels(pal__type type, const pal__matrix *w, size_t tile, size_t end, bool unpack,
		       const pal__acts *x, float *y, size_t ldy, tile_group *g)
{
	column_span of = {.panel = x->q, .ldy = ldy};
	for (size_t i = 0; tile + i < end; i++) {
		g->t[i] = planes_of(w, tile + i);
		if (unpack)
			g->ready[i] =
				unpack_tile(type, w, &g->t[i],
					    g->space + i * (GROUP_BYTES / (end - tile) / 64 * 64));
	}
	for (size_t c = 0; c < x->n; c += (size_t)of.width) {
		of.width = pal__panel_width(x->n - c, PANEL);
		of.y = y + c * ldy;
		/* One tile: with the widest panel, evenly. A group: last, since it takes long. */
		const bool fetch = end - tile == 1 ? c == 0 : c + (size_t)of.width == x->n;
		if (unpack && of.width == PANEL)
			mul_group(type, true, w, tile, end, g, of, fetch);
		else
			mul_group(type, false, w, tile, end, g, of, fetch);
		of.panel += pal__panels_bytes((size_t)of.width, x->k);
	}
}

/* One tile by fewer columns than a panel has: they may be few, and then little is done for it. */
INLINE void mul_alone(pal__type type, const pal__matrix *w, size_t tile, const pal__acts *x,
		      float *y, size_t ldy)
{
	const size_t row = tile * PAL__TILE_ROWS, left = w->n_rows - row;
	/* One or two columns take bytes as fast as they come: the CPU's own fetching, which goes on
	 * from there, brings them faster than ours does, where blocks are small. */
	const size_t ahead = x->n <= 2 && !type_is_packed(type) ? 1 << 10 : 16 << 10;
	const planes t = planes_of(w, tile);
	column_span of = {.panel = x->q, .width = (int)x->n, .y = y + row, .ldy = ldy};
	of.rows = left < PAL__TILE_ROWS ? left : PAL__TILE_ROWS;
	mul_panel(type, w, &t, of, w->data + tile * w->tile_bytes + ahead);
}

/* Q8_0 has nothing to be unpacked. */
INLINE void mul_tiles(pal__type type, const pal__matrix *w, size_t tile, size_t end,
		      const pal__acts *x, float *y, size_t ldy)
{
	tile_group g;
	const size_t most = group_tiles(type, w, x->n), step = most ? most : 1;
	for (; x->n < PANEL && tile < end; tile++)
		mul_alone(type, w, tile, x, y, ldy);
	for (; tile < end; tile += step)
		mul_panels(type, w, tile, end - tile < step ? end : tile + step,
			   most && type != PAL__Q8_0, x, y, ldy, &g);
}

/* The float types: `tiles` tiles by n columns, one chain over k for each output. */
INLINE vf float_weights(pal__type type, const uint8_t *plane, size_t k)
{
	if (type == PAL__F32)
		return vf_load((const float *)(const void *)(plane + k * 64));
	if (type == PAL__F16)
		return vf_half(plane + k * 32);
	return vf_of_bits(vi_sll(vi_half_bits(plane + k * 32), 16));
}

INLINE void mul_floats(pal__type type, const pal__matrix *w, size_t tile, int tiles, const float *x,
		       int n, float *y, size_t ldy)
{
	const uint8_t *p = w->data + tile * w->tile_bytes;
	vf acc[16];
	for (int i = 0; i < n * tiles; i++)
		acc[i] = vf_set(0);
	for (size_t k = 0; k < w->n_cols; k++) {
		for (int t = 0; t < tiles; t++) {
			vf v = float_weights(type, p + (size_t)t * w->tile_bytes, k);
			for (int c = 0; c < n; c++)
				acc[t * n + c] = vf_fma(v, vf_set(x[(size_t)c * w->n_cols + k]),
							acc[t * n + c]);
		}
	}
	for (int t = 0; t < tiles; t++) {
		size_t row = (tile + (size_t)t) * PAL__TILE_ROWS, rows = w->n_rows - row;
		for (int c = 0; c < n; c++)
			store_tail(y + (size_t)c * ldy + row, acc[t * n + c],
				   rows < PAL__TILE_ROWS ? rows : PAL__TILE_ROWS);
	}
}

INLINE void matmul_floats(pal__type type, const pal__matrix *w, size_t tile0, size_t tile1,
			  const pal__acts *x, float *y, size_t ldy)
{
	size_t c = 0;
	for (; c + 4 <= x->n; c += 4)
		for (size_t t = tile0; t < tile1; t++)
			mul_floats(type, w, t, 1, x->x + c * x->k, 4, y + c * ldy, ldy);
	for (; c < x->n; c++) {
		size_t t = tile0;
		for (; t + 4 <= tile1; t += 4)
			mul_floats(type, w, t, 4, x->x + c * x->k, 1, y + c * ldy, ldy);
		for (; t < tile1; t++)
			mul_floats(type, w, t, 1, x->x + c * x->k, 1, y + c * ldy, ldy);
	}
}

#define QUANT_MATMUL(T)                                                          \
	static void matmul_##T(const pal__matrix *w, size_t tile0, size_t tile1, \
			       const pal__acts *x, float *y, size_t ldy)         \
	{                                                                        \
		mul_tiles(PAL__##T, w, tile0, tile1, x, y, ldy);                 \
	}
#define FLOAT_MATMUL(T)                                                          \
	static void matmul_##T(const pal__matrix *w, size_t tile0, size_t tile1, \
			       const pal__acts *x, float *y, size_t ldy)         \
	{                                                                        \
		matmul_floats(PAL__##T, w, tile0, tile1, x, y, ldy);             \
	}
/* clang-format off */
#define EACH_TYPE(QUANT, FLOAT)                                                                    \
	FLOAT(F32) FLOAT(F16) FLOAT(BF16) QUANT(Q4_0) QUANT(Q4_1) QUANT(Q5_0) QUANT(Q5_1)          \
	QUANT(Q8_0) QUANT(Q2_K) QUANT(Q3_K) QUANT(Q4_K) QUANT(Q5_K) QUANT(Q6_K) QUANT(IQ4_NL)      \
	QUANT(IQ4_XS)
/* clang-format on */

EACH_TYPE(QUANT_MATMUL, FLOAT_MATMUL)

static void matmul(const pal__matrix *w, size_t tile0, size_t tile1, const pal__acts *x, float *y,
		   size_t ldy)
{
#define CASE(T)                                         \
	case PAL__##T:                                  \
		matmul_##T(w, tile0, tile1, x, y, ldy); \
		break;
	switch (w->type) {
		EACH_TYPE(CASE, CASE)
	}
#undef CASE
}

/* --- vectors ------------------------------------------------------------------- */

static void rms_norm(const float *x, const float *w, size_t n, float eps, float *out)
{
	size_t i = 0, whole = n & ~(size_t)15;
	vf acc = vf_set(0);
	for (; i < whole; i += 16) {
		vf v = vf_load(x + i);
		acc = vf_fma(v, v, acc);
	}
	if (i < n) {
		vf v = load_tail(x + i, n - i);
		acc = vf_fma(v, v, acc);
	}
	float r = 1 / __builtin_sqrtf(vf_sum(acc) / (float)n + eps);
	for (i = 0; i < whole; i += 16)
		vf_store(out + i, vf_mul(vf_mul(vf_load(x + i), vf_set(r)), vf_load(w + i)));
	for (; i < n; i++)
		out[i] = x[i] * r * w[i];
}

INLINE void rotate(float *x, float *y, const float *cos, const float *sin, size_t n, bool tail)
{
	vf a = tail ? load_tail(x, n) : vf_load(x), b = tail ? load_tail(y, n) : vf_load(y);
	vf c = tail ? load_tail(cos, n) : vf_load(cos), s = tail ? load_tail(sin, n) : vf_load(sin);
	vf p = vf_fma(a, c, vf_neg(vf_mul(b, s))), q = vf_fma(a, s, vf_mul(b, c));
	if (tail) {
		store_tail(x, p, n);
		store_tail(y, q, n);
	} else {
		vf_store(x, p);
		vf_store(y, q);
	}
}

static void rope(float *x, const float *cos, const float *sin, size_t n_rot)
{
	size_t half = n_rot / 2, i = 0;
	for (; i + 16 <= half; i += 16)
		rotate(x + i, x + half + i, cos + i, sin + i, 16, false);
	if (i < half)
		rotate(x + i, x + half + i, cos + i, sin + i, half - i, true);
}

INLINE vf silu(vf x)
{
	return vf_div(x, vf_add(vf_set(1), vf_exp(vf_neg(x))));
}

INLINE vf gelu(vf x)
{
	vf u = vf_mul(x, vf_fma(vf_set(PAL__GELU_B), vf_mul(x, x), vf_set(PAL__GELU_A)));
	return vf_div(x, vf_add(vf_set(1), vf_exp(u)));
}

#define GATED(NAME, F)                                                                           \
	static void NAME(float *gate, const float *up, size_t n)                                 \
	{                                                                                        \
		size_t i = 0;                                                                    \
		for (; i + 16 <= n; i += 16)                                                     \
			vf_store(gate + i, vf_mul(F(vf_load(gate + i)), vf_load(up + i)));       \
		if (i < n)                                                                       \
			store_tail(                                                              \
				gate + i,                                                        \
				vf_mul(F(load_tail(gate + i, n - i)), load_tail(up + i, n - i)), \
				n - i);                                                          \
	}
GATED(swiglu, silu)
GATED(geglu, gelu)
#undef GATED

static void add(float *x, const float *y, size_t n)
{
	size_t i = 0;
	for (; i + 16 <= n; i += 16)
		vf_store(x + i, vf_add(vf_load(x + i), vf_load(y + i)));
	for (; i < n; i++)
		x[i] += y[i];
}

static void scale(float *x, float by, size_t n)
{
	size_t i = 0;
	for (; i + 16 <= n; i += 16)
		vf_store(x + i, vf_mul(vf_load(x + i), vf_set(by)));
	for (; i < n; i++)
		x[i] *= by;
}

static void to_half(const float *x, size_t n, uint16_t *out)
{
	size_t i = 0;
	for (; i + 16 <= n; i += 16)
		vf_to_half(out + i, vf_load(x + i));
	if (i < n) {
		uint16_t h[16];
		vf_to_half(h, load_tail(x + i, n - i));
		memcpy(out + i, h, (n - i) * sizeof *h);
	}
}

/* To int16 or, top being 127, to int8. */
INLINE float to_int(const float *x, size_t n, float most, int16_t *out16, int8_t *out8)
{
	const size_t whole = n & ~(size_t)15;
	const vi mask = vi_set(0x7fffffff); /* as bits NaN and inf are larger than all */
	const vf top = vf_set(most), bottom = vf_set(-most);
	vf tail = load_tail(x + whole, n - whole);
	vi m = vi_and(vi_of_bits(tail), mask);
	for (size_t i = 0; i < whole; i += 16)
		m = vi_max(m, vi_and(vi_of_bits(vf_load(x + i)), mask));
	float largest = vf_largest(vf_of_bits(m), vf_of_bits(m));
	bool finite = largest - largest == 0, use = finite && largest >= 0x1p-100f;
	vf id = vf_set(use ? 1 / (largest / most) : 0);
	for (size_t i = 0; i < n; i += 16) {
		vf v = use ? vf_mul(i < whole ? vf_load(x + i) : tail, id) : vf_set(0);
		vi r = vi_round(vf_lt(top, v, top, vf_lt(v, bottom, bottom, v)));
		int16_t part16[16];
		int8_t part8[16];
		if (out8)
			vi_pack(i < whole ? out8 + i : part8, r);
		else
			vi_to_int16(i < whole ? out16 + i : part16, r);
		if (i >= whole && out8)
			memcpy(out8 + i, part8, n - i);
		else if (i >= whole)
			memcpy(out16 + i, part16, (n - i) * sizeof *part16);
	}
	return !finite ? NAN : use ? largest / most : 0;
}

static float to_int16(const float *x, size_t n, int16_t *out)
{
	return to_int(x, n, 32767, out, NULL);
}

static float to_int8(const float *x, size_t n, int8_t *out)
{
	return to_int(x, n, 127, NULL, out);
}

/* --- attention -------------------------------------------------------------------- */

INLINE vf kv_load(const void *p, pal__kv_kind kind, size_t i)
{
	return kind == PAL__KV_HALF ? vf_half((const uint8_t *)p + i * 2)
				    : vf_load((const float *)p + i);
}

/* Few queries (decoding) wait for memory: while K is read V is fetched, and while V is read
 * the next block's K, element for element, as they are of one size. Many share what they read. */
#define FETCHED 2

INLINE void fetch(const void *p, pal__kv_kind kind, size_t at, size_t n)
{
	size_t size = kind == PAL__KV_FLOAT ? 4 : 2;
	for (size_t i = 0; i < n * size; i += 64)
		__builtin_prefetch((const uint8_t *)p + at * size + i, 0, 2);
}

/* Dots of n queries with `tiles` tiles of K from tile t0, stored unscaled. */
INLINE void dots(const pal__attn_kv *kv, pal__kv_kind kind, const pal__attn_query *q, int n, int t0,
		 int tiles, float s[][PAL__ATTN_BLOCK])
{
	vf acc[16];
	size_t hd = kv->head_dim;
	for (int i = 0; i < n * tiles; i++)
		acc[i] = vf_set(0);
	for (size_t d = 0; d < hd; d++) {
		if (n <= FETCHED)
			fetch(kv->v, kind, d * PAL__ATTN_BLOCK, PAL__ATTN_BLOCK);
		for (int t = 0; t < tiles; t++) {
			vf k = kv_load(kv->k, kind, d * PAL__ATTN_BLOCK + (size_t)(t0 + t) * 16);
			for (int i = 0; i < n; i++)
				acc[i * tiles + t] =
					vf_fma(vf_set(q[i].q[d]), k, acc[i * tiles + t]);
		}
	}
	for (int i = 0; i < n; i++)
		for (int t = 0; t < tiles; t++)
			vf_store(s[i] + (t0 + t) * 16, acc[i * tiles + t]);
}

/* v where the query sees the 16 positions from `at`, `other` elsewhere. */
INLINE vf visible(const pal__attn_query *q, int at, vf v, vf other)
{
	static const float iota[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
	vf pos = vf_load(iota);
	vf low = vf_set((float)(q->lo - at) - 0.5f), high = vf_set((float)(q->hi - at) - 0.5f);
	return vf_lt(low, pos, vf_lt(pos, high, v, other), other);
}

/* Scores to weights: masks (whole: sees all), running maximum, exp and sum. Returns what acc
 * shrinks by. */
INLINE float weights(pal__attn_query *q, bool whole, vf v[4])
{
	for (int i = 0; i < 4 && !whole; i++)
		v[i] = visible(q, 16 * i, v[i], vf_set(-INFINITY));
	float max = vf_most(vf_max(vf_max(v[0], v[1]), vf_max(v[2], v[3])));
	max = max > q->max ? max : q->max;
	for (int i = 0; i < 4; i++) {
		v[i] = vf_exp_low(vf_sub(v[i], vf_set(max)));
		v[i] = whole ? v[i] : visible(q, 16 * i, v[i], vf_set(0));
	}
	float shrink = pal__exp(q->max - max);
	float sum = vf_sum(vf_add(vf_add(vf_add(v[0], v[1]), v[2]), v[3]));
	q->sum = __builtin_fmaf(q->sum, shrink, sum);
	q->max = max;
	return shrink;
}

INLINE bool sees_all(const pal__attn_query *q)
{
	return q->lo == 0 && q->hi == PAL__ATTN_BLOCK;
}

/* acc of n queries += weights by V over positions [lo, hi), for `dims` vectors from d0. */
INLINE void sum_v(const pal__attn_kv *kv, pal__kv_kind kind, pal__attn_query *q, int n, size_t d0,
		  int dims, int lo, int hi, float s[][PAL__ATTN_BLOCK])
{
	vf acc[16];
	size_t stride = (kv->head_dim + 15) & ~(size_t)15;
	for (int i = 0; i < n; i++)
		for (int d = 0; d < dims; d++)
			acc[i * dims + d] = vf_load(q[i].acc + d0 + 16 * (size_t)d);
	for (int j = lo; j < hi; j++) {
		if (n <= FETCHED && kv->next)
			fetch(kv->next, kind, (size_t)j * stride + d0, (size_t)dims * 16);
		for (int d = 0; d < dims; d++) {
			vf v = kv_load(kv->v, kind, (size_t)j * stride + d0 + 16 * (size_t)d);
			for (int i = 0; i < n; i++)
				acc[i * dims + d] = vf_fma(vf_set(s[i][j]), v, acc[i * dims + d]);
		}
	}
	for (int i = 0; i < n; i++)
		for (int d = 0; d < dims; d++)
			vf_store(q[i].acc + d0 + 16 * (size_t)d, acc[i * dims + d]);
}

INLINE void sum_dims(const pal__attn_kv *kv, pal__kv_kind kind, pal__attn_query *q, int n, int lo,
		     int hi, float s[][PAL__ATTN_BLOCK])
{
	size_t stride = (kv->head_dim + 15) & ~(size_t)15, d = 0;
	const size_t step = 16 * ATTN_DIMS(n);
	if (lo >= hi)
		return;
	for (; d + step <= stride; d += step)
		sum_v(kv, kind, q, n, d, ATTN_DIMS(n), lo, hi, s);
	for (; d < stride; d += 16)
		sum_v(kv, kind, q, n, d, 1, lo, hi, s);
}

/* A position that a query does not see must not touch its sum (its V may be NaN), so the
 * positions all of them see are done together, and the edges one query at a time: each
 * query's own order stays ascending. */
INLINE void attn_n(const pal__attn_kv *kv, pal__kv_kind kind, pal__attn_query *q, int n)
{
	float s[4][PAL__ATTN_BLOCK] = {{0}};
	size_t stride = (kv->head_dim + 15) & ~(size_t)15;
	int lo = 0, hi = PAL__ATTN_BLOCK, first = PAL__ATTN_BLOCK, last = 0;
	for (int i = 0; i < n; i++) {
		lo = q[i].lo > lo ? q[i].lo : lo;
		hi = q[i].hi < hi ? q[i].hi : hi;
		first = q[i].lo < first ? q[i].lo : first;
		last = q[i].hi > last ? q[i].hi : last;
	}
	const int tiles = ATTN_TILES(n);
	int t = first / 16, t_end = (last + 15) / 16;
	for (; t + tiles <= t_end; t += tiles)
		dots(kv, kind, q, n, t, tiles, s);
	for (; t < t_end; t++)
		dots(kv, kind, q, n, t, 1, s);
	for (int i = 0; i < n; i++) {
		vf v[4];
		for (int j = 0; j < 4; j++)
			v[j] = vf_mul(vf_load(s[i] + 16 * j), vf_set(kv->scale));
		float shrink = weights(&q[i], false, v);
		for (int j = 0; j < 4; j++)
			vf_store(s[i] + 16 * j, v[j]);
		for (size_t d = 0; d < stride; d += 16)
			vf_store(q[i].acc + d, vf_mul(vf_load(q[i].acc + d), vf_set(shrink)));
	}
	if (hi <= lo) { /* nothing in common */
		for (int i = 0; i < n; i++)
			sum_dims(kv, kind, &q[i], 1, q[i].lo, q[i].hi, &s[i]);
		return;
	}
	for (int i = 0; i < n; i++)
		sum_dims(kv, kind, &q[i], 1, q[i].lo, lo, &s[i]);
	sum_dims(kv, kind, q, n, lo, hi, s);
	for (int i = 0; i < n; i++)
		sum_dims(kv, kind, &q[i], 1, hi, q[i].hi, &s[i]);
}

INLINE void attn_kind(const pal__attn_kv *kv, pal__kv_kind kind, pal__attn_query *q, int n)
{
	for (; n >= 4; n -= 4, q += 4)
		attn_n(kv, kind, q, 4);
	for (; n >= 2; n -= 2, q += 2)
		attn_n(kv, kind, q, 2);
	if (n)
		attn_n(kv, kind, q, 1);
}

/* --- attention over integers: dots of rows of integers with planes of bytes ---------- */

/* What a row begins with; its integers follow. */
typedef struct {
	_Alignas(PAL__ALIGN) float step;
	int32_t sum[4]; /* of the integers of each segment of 256, if ROW_SUMS */
} row_head;

typedef struct {
	row_head head;
	uint8_t ints[2 * PAL__ATTN_BLOCK];
} weight_row;

/* The step of numbers of which m has the largest magnitudes, as bits; *by is what rounds them,
 * 0 if they are not finite or too small. */
INLINE float row_step(vi m, float *by)
{
	float largest = vf_largest(vf_of_bits(m), vf_of_bits(m));
	bool finite = largest - largest == 0, use = finite && largest >= 0x1p-100f;
	*by = use ? 32512 / largest : 0;
	return !finite ? NAN : use ? largest / 127 : 0;
}

/* Rounds 64 numbers to integers [at, at + 64) of a row of `pad`. Returns their sum. (Where the
 * step is NaN these may be anything.) */
INLINE int32_t round_64(uint8_t *ints, size_t pad, size_t at, const vf v[4], float by)
{
	vi r[4], sum;
	for (int i = 0; i < 4; i++)
		r[i] = vi_round(vf_mul(v[i], vf_set(by)));
	row_store(ints, pad, at, r);
	sum = vi_add(vi_add(r[0], r[1]), vi_add(r[2], r[3]));
	return ROW_SUMS ? vi_sum(sum) : 0;
}

/* The 16 numbers of x [n] from `at`, zeros after its end. */
INLINE vf numbers(const float *x, size_t n, size_t at)
{
	return at + 16 <= n ? vf_load(x + at) : at < n ? load_tail(x + at, n - at) : vf_set(0);
}

static void attn_begin(const float *q, size_t head_dim, void *out)
{
	row_head *row = out;
	const vi mask = vi_set(0x7fffffff);
	const size_t pad = (head_dim + 63) & ~(size_t)63;
	float by;
	vi most = vi_set(0);
	for (size_t i = 0; i < head_dim; i += 16)
		most = vi_max(most, vi_and(vi_of_bits(numbers(q, head_dim, i)), mask));
	*row = (row_head){.step = row_step(most, &by)};
	for (size_t at = 0; at < head_dim; at += 64) {
		vf v[4];
		for (size_t i = 0; i < 4; i++)
			v[i] = numbers(q, head_dim, at + 16 * i);
		row->sum[at / 256] += round_64((uint8_t *)(row + 1), pad, at, v, by);
	}
}

/* `low` in what follows is a constant: whether there are low planes. */
typedef struct {
	const uint8_t *high, *low; /* of the first tile of 16 lanes */
	size_t tile_bytes;
	const uint8_t *next, *next_low; /* what to fetch at the same place, or NULL */
} kv_planes;

/* The dots of n rows, row_bytes apart, with `tiles` tiles over `count` groups of 4 numbers. */
INLINE void dot_rows(const kv_planes *p, bool low, int tiles, const row_head *rows,
		     size_t row_bytes, size_t pad, int n, size_t first, size_t count, vs s[])
{
	const uint8_t *row = (const uint8_t *)rows, *ints = (const uint8_t *)(rows + 1);
	for (int i = 0; i < n; i++, row += row_bytes)
		for (int t = 0; t < tiles; t++)
			s[i * tiles + t] = vs_start(
				((const row_head *)(const void *)row)->sum[first / 64], low);
	for (size_t g = first; g < first + count; g++)
		for (int t = 0; t < tiles; t++) {
			size_t at = (size_t)t * p->tile_bytes + g * 64;
			vu u = vu_load(p->high + at, low ? p->low + at : NULL);
			if (p->next)
				__builtin_prefetch(p->next + at, 0, 2);
			if (p->next && low)
				__builtin_prefetch(p->next_low + at, 0, 2);
			for (int i = 0; i < n; i++)
				s[i * tiles + t] = vs_dot(s[i * tiles + t], u, low,
							  ints + (size_t)i * row_bytes, pad, g);
		}
}

/* The dots of n queries with K. */
INLINE void dots_int(const pal__attn_kv *kv, bool low, const pal__attn_query *q, int n, int tiles,
		     bool fetches, float s[][PAL__ATTN_BLOCK])
{
	size_t hd = kv->head_dim, groups = (hd + 3) / 4, pad = (hd + 63) & ~(size_t)63;
	for (int t = 0; t < 4; t += tiles) {
		size_t at = (size_t)t * groups * 64;
		const uint8_t *k = (const uint8_t *)kv->k + at, *v = (const uint8_t *)kv->v + at;
		kv_planes p = {k, k + groups * 256, groups * 64, NULL, NULL};
		if (fetches)
			p.next = v, p.next_low = v + pal__attn_plane(hd, PAL__ATTN_BLOCK);
		size_t g = 0;
		do {
			vs sums[ATTN_SUMS];
			dot_rows(&p, low, tiles, q[0].row, pal__attn_row(hd), pad, n, g,
				 groups - g < 64 ? groups - g : 64, sums);
			for (int i = 0; i < n * tiles; i++) {
				float *to = s[i / tiles] + (t + i % tiles) * 16;
				vf value = vs_value(sums[i]);
				vf_store(to, g ? vf_add(vf_load(to), value) : value);
			}
		} while ((g += 64) < groups);
	}
}

/* Dots to weights, rounded to a row; returns what acc shrinks by. */
INLINE float weigh(const pal__attn_kv *kv, pal__attn_query *q, bool whole, vf v[4], weight_row *w)
{
	vi most = vi_set(0);
	float by, step = ((const row_head *)q->row)->step * kv->scale;
	for (int i = 0; i < 4; i++)
		v[i] = vf_mul(vf_mul(v[i], vf_set(step)), vf_load(kv->k_scale + 16 * i));
	float shrink = weights(q, whole, v);
	for (int i = 0; i < 4; i++) {
		v[i] = vf_mul(v[i], vf_load(kv->v_scale + 16 * i));
		v[i] = whole ? v[i] : visible(q, 16 * i, v[i], vf_set(0));
		most = vi_max(most, vi_of_bits(v[i])); /* not negative */
	}
	w->head.step = row_step(most, &by);
	w->head.sum[0] = round_64(w->ints, PAL__ATTN_BLOCK, 0, v, by);
	return shrink;
}

/* acc of n queries = acc * shrink + weights by V, for `tiles` vectors of dimensions from d. */
INLINE void sum_int(const pal__attn_kv *kv, bool low, pal__attn_query *q, int n, size_t d,
		    int tiles, bool fetches, const weight_row *w, const float *shrink)
{
	vs sums[ATTN_SUMS];
	const uint8_t *v = (const uint8_t *)kv->v + d * PAL__ATTN_BLOCK, *next = kv->next;
	kv_planes p = {v, v + pal__attn_plane(kv->head_dim, PAL__ATTN_BLOCK), 16 * PAL__ATTN_BLOCK,
		       NULL, NULL};
	if (fetches && next) {
		p.next = next + d * PAL__ATTN_BLOCK;
		p.next_low = p.next + pal__attn_plane(PAL__ATTN_BLOCK, kv->head_dim);
	}
	dot_rows(&p, low, tiles, &w[0].head, sizeof *w, PAL__ATTN_BLOCK, n, 0, PAL__ATTN_BLOCK / 4,
		 sums);
	for (int i = 0; i < n; i++) {
		float step = w[i].head.step;
		for (int t = 0; t < tiles; t++) {
			float *acc = q[i].acc + d + 16 * (size_t)t;
			vf_store(acc, vf_fma(vs_value(sums[i * tiles + t]), vf_set(step),
					     vf_mul(vf_load(acc), vf_set(shrink[i]))));
		}
	}
}

INLINE void attn_int_n(const pal__attn_kv *kv, bool low, pal__attn_query *q, int n, bool fetches)
{
	float s[ATTN_SUMS][PAL__ATTN_BLOCK], shrink[ATTN_SUMS];
	weight_row w[ATTN_SUMS];
	size_t stride = (kv->head_dim + 15) & ~(size_t)15, d = 0;
	const int tiles = ATTN_SUMS / n;
	dots_int(kv, low, q, n, tiles, fetches, s);
	for (int i = 0; i < n; i++) {
		vf v[4];
		for (int t = 0; t < 4; t++)
			v[t] = vf_load(s[i] + 16 * t);
		shrink[i] = sees_all(&q[i]) ? weigh(kv, &q[i], true, v, &w[i])
					    : weigh(kv, &q[i], false, v, &w[i]);
	}
	for (; d + 16 * (size_t)tiles <= stride; d += 16 * (size_t)tiles)
		sum_int(kv, low, q, n, d, tiles, fetches, w, shrink);
	for (; d < stride; d += 16)
		sum_int(kv, low, q, n, d, 1, fetches, w, shrink);
}

/* The first queries fetch for all. */
INLINE void attn_int(const pal__attn_kv *kv, bool low, pal__attn_query *q, int n)
{
	const pal__attn_query *first = q;
	for (; ATTN_SUMS >= 4 && n >= 4; n -= 4, q += 4)
		attn_int_n(kv, low, q, 4, q == first);
	for (; ATTN_SUMS >= 2 && n >= 2; n -= 2, q += 2)
		attn_int_n(kv, low, q, 2, q == first);
	for (; n; n--, q++)
		attn_int_n(kv, low, q, 1, q == first);
}

static void attn(const pal__attn_kv *kv, pal__attn_query *q, int n)
{
	switch (kv->kind) {
	case PAL__KV_FLOAT:
		attn_kind(kv, PAL__KV_FLOAT, q, n);
		break;
	case PAL__KV_HALF:
		attn_kind(kv, PAL__KV_HALF, q, n);
		break;
	case PAL__KV_INT16:
		attn_int(kv, true, q, n);
		break;
	case PAL__KV_INT8:
		attn_int(kv, false, q, n);
	}
}

/* --- peaks -------------------------------------------------------------------------- */

/* The largest of a run, whole or its first n scores. */
INLINE float largest_of(const float *x, size_t n, float by)
{
	vf none = vf_set(-INFINITY), a, b;
	float part[PAL__RUN];
	if (n < PAL__RUN) {
		for (size_t i = 0; i < PAL__RUN; i++)
			part[i] = NAN;
		memcpy(part, x, n * sizeof *x);
		x = part;
	}
	a = vf_mul(vf_load(x), vf_set(by));
	b = vf_mul(vf_load(x + 16), vf_set(by));
	a = vf_lt(none, a, a, none);
	return vf_most(vf_lt(a, b, b, a)) + 0.0f;
}

static float peaks(const float *x, size_t n, float by, float *best, float *most)
{
	size_t runs = ((n + PAL__RUN - 1) / PAL__RUN + 15) & ~(size_t)15, r = 0;
	vf sum = vf_set(0), top = vf_set(-INFINITY);
	for (; r < n / PAL__RUN; r++)
		best[r] = largest_of(x + r * PAL__RUN, PAL__RUN, by);
	for (; r < runs; r++) {
		size_t from = r * PAL__RUN < n ? r * PAL__RUN : n;
		best[r] = largest_of(x + from, n - from, by);
	}
	for (r = 0; r < runs; r += 16)
		top = vf_max(top, vf_load(best + r));
	*most = vf_most(top);
	if (!(*most > -INFINITY))
		return 0;
	for (r = 0; r < runs; r += 16)
		sum = vf_add(sum, vf_exp_low(vf_sub(vf_load(best + r), vf_set(*most))));
	return vf_sum(sum);
}

static void attn_end(const float *acc, float sum, size_t n, float *out)
{
	float r = 1 / sum;
	size_t i = 0;
	for (; i + 16 <= n; i += 16)
		vf_store(out + i, vf_mul(vf_load(acc + i), vf_set(r)));
	for (; i < n; i++)
		out[i] = acc[i] * r;
}

/* What instruction sets that build on this one have in common with it. */
#define TABLE                                                                                 \
	.quantize = quantize, .rms_norm = rms_norm, .rope = rope, .swiglu = swiglu,           \
	.geglu = geglu, .add = add, .scale = scale, .peaks = peaks, .attn_begin = attn_begin, \
	.attn_end = attn_end, .to_half = to_half, .to_int16 = to_int16, .to_int8 = to_int8

const pal__kernels KERNELS = {
	TABLE, .name = KERNELS_NAME, .panel = PANEL, .matmul = matmul, .attn = attn,
};
