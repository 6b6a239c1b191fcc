/* Matrix products by AMX (TDPBSSD: int8 tiles of 16 by 64 bytes), included by avx512.c, whose
 * operations and decoding of weights it uses. The dots are exact, so the bits are the same.
 *
 * A tile register C = A B: A are up to 16 columns of a panel (their quants lie 32 bytes apart),
 * B the signed codes of 16 rows by 32 columns: exactly a weight tile's order of bytes, so that
 * Q8_0 is read in place, while other types are unpacked once for some panels. While any tile
 * instruction is in flight this CPU family does 512-bit float operations on one port of two;
 * hence phases: first the dots of some blocks into a scratch that stays in L1, then their scaling.
 */
#define AMX_PAIR 2   /* weight tiles that share loads of A */
#define AMX_DOTS 8   /* dots of 16 rows by a panel in a phase: of 8 blocks, or 4 of two halves */
#define AMX_PANELS 4 /* panels for which weights are unpacked once */
#define AMX_WIDE 16  /* columns of a full panel */
#define AMX_LEAST 3  /* below so many columns VNNI is faster */
#define AMX_NEXT 7   /* cache lines of half a block of a full panel */

typedef struct {
	uint8_t palette, start_row, zero[14];
	uint16_t colsb[16];
	uint8_t rows[16];
} amx_config;

/* Compilers do not know that tile loads read memory: what was written before must be there. */
INLINE void amx_written(void)
{
	__asm__ volatile("" ::: "memory");
}

/* Tiles 0 to 5 are C, 6 is A of `k` columns and 7 is B. */
static void amx_configure(int columns, int k)
{
	amx_config c = {.palette = 1};
	for (int i = 0; i < 8; i++) {
		c.rows[i] = (uint8_t)(i < 7 ? columns : k / 4);
		c.colsb[i] = (uint16_t)(i == 6 ? k : 64);
	}
	amx_written();
	_tile_loadconfig(&c);
}

/* What a phase works on. Types with a scale for each 16 columns have two dots a block. */
typedef struct {
	int8_t codes[AMX_PAIR][AMX_DOTS][512];
	int32_t dots[AMX_PAIR][AMX_DOTS][AMX_WIDE * 16];
	float scale[AMX_PAIR][AMX_DOTS + 1][16], min[AMX_PAIR][AMX_DOTS + 1][16];
	float acc[AMX_PAIR][AMX_PANELS][AMX_WIDE][16];
} amx_scratch;

/* Codes (unless they are read in place), scales and mins of blocks [b0, b0 + n) of tile i. */
INLINE void amx_unpack(pal__type type, const planes *t, size_t b0, int n, vi table, amx_scratch *s,
		       int i)
{
	const int parts = type_sub_16(type) ? 2 : 1;
	const int zero = zero_shift(type);
	const bool whole = type_is_packed(type) && parts == 1; /* then n is 8 */
	for (int b = 0; b < n; b++) {
		for (int g = 0; g < 8 && type != PAL__Q8_0; g++) {
			vi v = codes(type, false, t, b0 + (size_t)b, b % 4, g, table);
			if (zero >= 0)
				v = _mm512_sub_epi8(v, _mm512_set1_epi8((char)(1 << zero)));
			_mm512_store_si512(s->codes[i][b] + 64 * g, v);
		}
		if (whole && b == 0)
			scales_of_8(type, t, b0, s->scale[i][0], s->min[i][0]);
		for (int h = 0; h < parts && !whole; h++) {
			vf scale, min = vf_set(0);
			scales(type, t, b0 + (size_t)b, h, &scale, &min);
			vf_store(s->scale[i][b * parts + h], scale);
			if (type_has_min(type))
				vf_store(s->min[i][b * parts + h], min);
		}
	}
}

/* Where the j-th k codes of a tile's 16 rows are: of Q8_0 in the tile, of the others as unpacked.
 */
INLINE size_t amx_codes_at(pal__type type, size_t k, int j)
{
	return type == PAL__Q8_0 ? (size_t)(j / 2) * pair_bytes(type) + (size_t)(j % 2) * 512
				 : (size_t)j * k * 16;
}

/* Dots j of a pair of tiles into C and D. Tile registers are named by constants, hence a macro;
 * results are stored three blocks later, when they are there. */
#define AMX_DOTS_OF(C, D, J)                                         \
	do {                                                         \
		if ((J) >= 3)                                        \
			_tile_stored(C, s->dots[0][(J)-3], 64);      \
		_tile_loadd(6, amx_quants(panel, stride, k, J), 32); \
		_tile_loadd(7, w0 + amx_codes_at(type, k, J), 64);   \
		_tile_zero(C);                                       \
		_tile_dpbssd(C, 6, 7);                               \
		if ((J) >= 3)                                        \
			_tile_stored(D, s->dots[1][(J)-3], 64);      \
		_tile_loadd(7, w1 + amx_codes_at(type, k, J), 64);   \
		_tile_zero(D);                                       \
		_tile_dpbssd(D, 6, 7);                               \
	} while (0)
/* Their last ones, of the j that are FIRST modulo 3. */
#define AMX_KEEP(C, D, FIRST)                          \
	do {                                           \
		int j = n - 1 - (n - 1 - (FIRST)) % 3; \
		_tile_stored(C, s->dots[0][j], 64);    \
		_tile_stored(D, s->dots[1][j], 64);    \
	} while (0)

/* The j-th k quants (32, or 16: half a block) of a panel's columns, which lie 32 bytes apart. */
INLINE const uint8_t *amx_quants(const uint8_t *panel, size_t stride, size_t k, int j)
{
	return k == 32 ? panel + (size_t)j * stride
		       : panel + (size_t)(j / 2) * stride + (size_t)(j % 2) * 16;
}

/* Fetches `lines` cache lines into L1 (near), or only to L2; a constant number, as loops cost
 * here. */
INLINE void amx_fetch(const uint8_t *p, int lines, bool near)
{
	for (int i = 0; i < lines; i++) {
		if (near)
			__builtin_prefetch(p + 64 * i);
		else
			__builtin_prefetch(p + 64 * i, 0, 2);
	}
}

/* Where a phase of the next pair of tiles is, which is fetched during this one. */
typedef struct {
	const uint8_t *p[AMX_PAIR];
	size_t block; /* bytes of a tile that a block of 32 columns takes, on average */
} amx_later;

/* What belongs to dots j to j + 2. */
INLINE void amx_fetch_blocks(const amx_later *t, int j, int n, size_t k, int lines)
{
	for (int d = j; d < j + 3 && d < n; d++)
		for (int i = 0; i < AMX_PAIR && (k == 32 || d % 2 == 0); i++)
			amx_fetch(t->p[i] + (k == 32 ? (size_t)d : (size_t)d / 2) * t->block, lines,
				  false);
}

/* n dots of k columns of a pair of tiles by one panel, while `lines` cache lines a block of
 * either tile are fetched from `later`. */
INLINE void amx_dots(pal__type type, const int8_t *w0, const int8_t *w1, const uint8_t *panel,
		     size_t stride, size_t k, int n, const amx_later *later, int lines,
		     amx_scratch *s)
{
	for (int j = 0; j < n; j += 3) {
		amx_fetch_blocks(later, j, n, k, lines);
		AMX_DOTS_OF(0, 1, j);
		if (j + 1 < n)
			AMX_DOTS_OF(2, 3, j + 1);
		if (j + 2 < n)
			AMX_DOTS_OF(4, 5, j + 2);
	}
	AMX_KEEP(0, 1, 0);
	if (n > 1)
		AMX_KEEP(2, 3, 1);
	if (n > 2)
		AMX_KEEP(4, 5, 2);
}

/* What scales the dots of one tile in a phase; the first phase of a tile starts its sums. */
typedef struct {
	const int32_t *dots;      /* [dot][AMX_WIDE][16] */
	const float *scale, *min; /* [dot][16] */
	float (*acc)[16];         /* [AMX_WIDE] */
	const uint8_t *panel;
	int width, n; /* blocks */
	bool first;
	const uint8_t *next;  /* AMX_NEXT lines of quants for each block, to be fetched */
	const uint8_t *later; /* `lines` lines of codes for each, `block` bytes apart */
	size_t block;
} amx_scaling;

/* Columns [c0, c0 + m) of a panel, as mul_32 and mul_16 have it. */
INLINE void amx_scale(pal__type type, amx_scaling t, int c0, int m, int lines)
{
	const int32_t *dots = t.dots + 16 * c0;
	vf sum[AMX_WIDE];
	for (int c = 0; c < m; c++)
		sum[c] = t.first ? vf_set(0) : vf_load(t.acc[c0 + c]);
	for (int b = 0; b < t.n; b++) {
		pal__act_block a = pal__act_at((uint8_t *)(uintptr_t)t.panel, t.width, c0);
		const int32_t *dots1 = dots + 16 * AMX_WIDE;
		vf scale = vf_load(t.scale), scale1 = vf_load(t.scale + 16);
		vf min = vf_load(t.min), min1 = vf_load(t.min + 16);
		if (m == AMX_WIDE)
			amx_fetch(t.next + (size_t)b * AMX_NEXT * 64, AMX_NEXT, true);
		amx_fetch(t.later + (size_t)b * t.block, c0 == 0 ? lines : 0, false);
		for (int c = 0; c < m; c++) {
			vf dot = vf_of_int(vi_load(dots + 16 * c)), d = vf_set(a.d[c]);
			if (type_sub_16(type)) {
				vf dot1 = vf_of_int(vi_load(dots1 + 16 * c));
				vf both = vf_fma(dot1, scale1, vf_mul(dot, scale));
				sum[c] = vf_fma(both, d, sum[c]);
			} else {
				sum[c] = vf_fma(dot, vf_mul(scale, d), sum[c]);
			}
			if (type_has_min(type) && type_sub_16(type)) {
				sum[c] = vf_fma(min, vf_set(a.dsum[3 * c]), sum[c]);
				sum[c] = vf_fma(min1, vf_set(a.dsum[3 * c + 1]), sum[c]);
			} else if (type_has_min(type)) {
				sum[c] = vf_fma(min, vf_set(a.dsum[3 * c + 2]), sum[c]);
			}
		}
		const int parts = type_sub_16(type) ? 2 : 1;
		dots += parts * 16 * AMX_WIDE;
		t.scale += parts * 16;
		t.min += parts * 16;
		t.panel += (size_t)t.width * PAL__ACT_BYTES;
	}
	for (int c = 0; c < m; c++)
		vf_store(t.acc[c0 + c], sum[c]);
}

INLINE void amx_scale_panel(pal__type type, amx_scaling t, int lines)
{
	for (int c = 0; c < t.width;) {
		int left = t.width - c, m = left >= 16 ? 16 : left >= 8 ? 8 : left >= 4 ? 4 : 1;
		if (m == 16)
			amx_scale(type, t, c, 16, lines);
		else if (m == 8)
			amx_scale(type, t, c, 8, lines);
		else if (m == 4)
			amx_scale(type, t, c, 4, lines);
		else
			amx_scale(type, t, c, 1, lines);
		c += m;
	}
}

/* Columns that go together: panels of one width, and their place in y. */
typedef struct {
	const uint8_t *panels;
	size_t panel_bytes, ldy;
	int n, width;
	float *y;
} amx_columns;

/* Blocks [b0, b0 + n) of a pair of tiles by some panels, into s->acc. later: codes of the pair
 * of a later phase. */
INLINE void amx_phase(pal__type type, const planes t[AMX_PAIR], int tiles, size_t b0, int n,
		      vi table, const amx_columns *x, const amx_later *later, amx_scratch *s)
{
	const size_t stride = (size_t)x->width * PAL__ACT_BYTES;
	const size_t k = type_sub_16(type) ? 16 : 32;
	const int dots = type_sub_16(type) ? 2 * n : n;
	const int early = block_lines(type) / 2, late = block_lines(type) - early;
	const int8_t *w[AMX_PAIR];
	for (int i = 0; i < AMX_PAIR; i++) {
		amx_unpack(type, &t[i], b0, n, table, s, i);
		w[i] = type == PAL__Q8_0 ? (const int8_t *)units_at(type, &t[i], 0, 512, b0)
					 : s->codes[i][0];
	}
	amx_written();
	for (int p = 0; p < x->n; p++) {
		const uint8_t *panel = x->panels + (size_t)p * x->panel_bytes + b0 * stride;
		/* the next panel's blocks, or this one's next, by halves while either tile is
		 * scaled */
		const uint8_t *next = p + 1 < x->n ? panel + x->panel_bytes
						   : x->panels + (b0 + (size_t)n) * stride;
		if (dots == AMX_DOTS && p == 0)
			amx_dots(type, w[0], w[1], panel, stride, k, AMX_DOTS, later, early, s);
		else if (dots == AMX_DOTS)
			amx_dots(type, w[0], w[1], panel, stride, k, AMX_DOTS, later, 0, s);
		else
			amx_dots(type, w[0], w[1], panel, stride, k, dots, later, 0, s);
		for (int i = 0; i < tiles; i++) {
			amx_scaling sums = {.dots = s->dots[i][0],
					    .scale = s->scale[i][0],
					    .min = s->min[i][0],
					    .acc = s->acc[i][p],
					    .panel = panel,
					    .width = x->width,
					    .n = n,
					    .first = b0 == 0,
					    .next = next + (size_t)(i * n) * AMX_NEXT * 64,
					    .later = later->p[i] + (size_t)early * 64,
					    .block = later->block};
			if (p == 0)
				amx_scale_panel(type, sums, late);
			else
				amx_scale_panel(type, sums, 0);
		}
	}
}

INLINE void amx_store(const pal__matrix *w, size_t tile, int i, const amx_columns *x,
		      const amx_scratch *s)
{
	size_t row = tile * PAL__TILE_ROWS, rows = w->n_rows - row;
	for (int p = 0; p < x->n; p++)
		for (int c = 0; c < x->width; c++) {
			float *y = x->y + (size_t)(p * x->width + c) * x->ldy + row;
			if (rows >= PAL__TILE_ROWS)
				vf_store(y, vf_load(s->acc[i][p][c]));
			else
				store_tail(y, vf_load(s->acc[i][p][c]), rows);
		}
}

/* Tiles [tile0, tile1) by up to AMX_PANELS panels. A last tile without a partner is its own. */
INLINE void amx_tiles(pal__type type, const pal__matrix *w, size_t tile0, size_t tile1,
		      const amx_columns *x, amx_scratch *s)
{
	const size_t blocks = w->n_cols / 32, step = type_sub_16(type) ? AMX_DOTS / 2 : AMX_DOTS;
	vi table = vi_table(pal__iq4_values);
	for (size_t tile = tile0; tile < tile1; tile += AMX_PAIR) {
		const int tiles = tile1 - tile < AMX_PAIR ? 1 : AMX_PAIR;
		planes t[AMX_PAIR];
		for (int i = 0; i < AMX_PAIR; i++)
			t[i] = planes_of(w, tile + (size_t)(i % tiles));
		for (size_t b = 0; b < blocks; b += step) {
			int n = (int)(blocks - b < step ? blocks - b : step);
			amx_later later = {.block = w->tile_bytes / blocks};
			for (int i = 0; i < AMX_PAIR; i++)
				later.p[i] = t[i].p[0] + AMX_PAIR * w->tile_bytes + b * later.block;
			amx_phase(type, t, tiles, b, n, table, x, &later, s);
		}
		for (int i = 0; i < tiles; i++)
			amx_store(w, tile + (size_t)i, i, x, s);
	}
}

INLINE void amx_panels(pal__type type, const pal__matrix *w, size_t tile0, size_t tile1,
		       const pal__acts *x, float *y, size_t ldy)
{
	amx_scratch s __attribute__((aligned(64)));
	for (size_t c = 0; c < x->n;) {
		amx_columns part = {.panels = (const uint8_t *)x->q + pal__panels_bytes(c, x->k),
				    .ldy = ldy,
				    .y = y + c * ldy};
		part.width = pal__panel_width(x->n - c, AMX_WIDE);
		part.panel_bytes = pal__panels_bytes((size_t)part.width, x->k);
		part.n = (int)((x->n - c) / (size_t)part.width);
		part.n = part.n < AMX_PANELS ? part.n : AMX_PANELS;
		amx_configure(part.width, type_sub_16(type) ? 16 : 32);
		amx_tiles(type, w, tile0, tile1, &part, &s);
		c += (size_t)(part.n * part.width);
	}
	_tile_release();
}

#define AMX_MATMUL(T)                                                                \
	static void amx_matmul_##T(const pal__matrix *w, size_t tile0, size_t tile1, \
				   const pal__acts *x, float *y, size_t ldy)         \
	{                                                                            \
		amx_panels(PAL__##T, w, tile0, tile1, x, y, ldy);                    \
	}
#define AMX_NONE(T)
EACH_TYPE(AMX_MATMUL, AMX_NONE)

static void amx_matmul(const pal__matrix *w, size_t tile0, size_t tile1, const pal__acts *x,
		       float *y, size_t ldy)
{
#define AMX_CASE(T)                                         \
	case PAL__##T:                                      \
		amx_matmul_##T(w, tile0, tile1, x, y, ldy); \
		break;
	if (x->n < AMX_LEAST) {
		matmul(w, tile0, tile1, x, y, ldy);
		return;
	}
	switch (w->type) {
		EACH_TYPE(AMX_CASE, AMX_NONE)
	default:
		matmul(w, tile0, tile1, x, y, ldy);
	}
#undef AMX_CASE
}

#include "kernels/amx_attn.h"

const pal__kernels pal__kernels_amx = {
	TABLE, .name = "amx", .panel = AMX_WIDE, .matmul = amx_matmul, .attn = amx_attn,
};
