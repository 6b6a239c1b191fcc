/* Attention over integer K/V by AMX (dots of 64 bytes of 16 rows by 16 lanes), included by amx.h.
 * The bits are those of simd.h's: dots are exact, and the rest are the same operations, on 16
 * queries at once where those do one.
 *
 * A tile register C = A B: A are the high or low bytes of up to 16 rows of integers, B those of
 * a tile of a plane, which is stored the way B is loaded. Three C make 16 lanes' dots (two where
 * there are no low planes: `low`, a constant). While any
 * tile instruction is in flight, this CPU family does 512-bit float operations on one port of
 * two; hence phases: all dots into a scratch that stays in L1, then what is done with them.
 */
#define AMX_ATTN_LEAST 3 /* queries; below, VNNI is faster */
#define AMX_ATTN_FEW 8   /* so few wait for memory */
#define AMX_ATTN_DIM 256 /* the largest head: a segment of a row */
#define AMX_ATTN_TILES 4 /* of 16 lanes, of a phase */

typedef struct {
	int32_t hh[16][16], mixed[16][16], ll[16][16]; /* [row][lane], as vs has them */
} amx_sums;

/* Of up to 16 queries: what is wanted of their weights to multiply V with. */
typedef struct {
	float shrink[16], step[16];
	uint8_t ints[16][2 * PAL__ATTN_BLOCK];
} amx_weighted;

typedef struct {
	amx_sums sums[AMX_ATTN_TILES];
	float scores[16][PAL__ATTN_BLOCK];
	float part[16][16], most[16][16]; /* of each query, to be folded */
	float max[16], sum[16], by[16];
	amx_weighted weighted[PAL__ATTN_MAX_QUERIES / 16];
} amx_attn_scratch;

/* Tiles 0 to 5 are C, 6 is A and 7 B, of `rows` rows and 4 * groups numbers. */
static void amx_attn_configure(int rows, size_t groups)
{
	amx_config c = {.palette = 1};
	for (int i = 0; i < 8; i++) {
		c.rows[i] = (uint8_t)(i < 7 ? (size_t)rows : groups);
		c.colsb[i] = (uint16_t)(i == 6 ? 4 * groups : 64);
	}
	amx_written();
	_tile_loadconfig(&c);
}

/* Rows of integers with some tiles of two planes. */
typedef struct {
	const uint8_t *high, *low; /* of the first tile */
	const uint8_t *ints;       /* high bytes of the first row, `pad` before the low ones */
	size_t row_bytes, pad;
	size_t steps, groups;           /* groups of 4 numbers of a step */
	const uint8_t *next, *next_low; /* what is fetched meanwhile at the same place, or NULL */
} amx_product;

INLINE void amx_fetch_next(const amx_product *p, bool low, size_t at)
{
	for (size_t end = at + p->groups * 64; p->next && at < end; at += 64) {
		__builtin_prefetch(p->next + at);
		if (low)
			__builtin_prefetch(p->next_low + at);
	}
}

/* Tile registers are named by constants, so steps are macros. */
#define AMX_MULTIPLY(HH, MIXED, LL, T)                                         \
	do {                                                                   \
		_tile_zero(HH);                                                \
		_tile_zero(MIXED);                                             \
		if (low)                                                       \
			_tile_zero(LL);                                        \
		for (size_t k = 0; k < p->steps; k++) {                        \
			const uint8_t *a = p->ints + k * p->groups * 4;        \
			const size_t at = ((T)*p->steps + k) * p->groups * 64; \
			amx_fetch_next(p, low, at);                            \
			_tile_loadd(6, a, p->row_bytes);                       \
			_tile_loadd(7, p->high + at, 64);                      \
			_tile_dpbssd(HH, 6, 7);                                \
			if (low) {                                             \
				_tile_loadd(7, p->low + at, 64);               \
				_tile_dpbsud(MIXED, 6, 7);                     \
			}                                                      \
			_tile_loadd(6, a + p->pad, p->row_bytes);              \
			if (low) {                                             \
				_tile_dpbsud(LL, 6, 7);                        \
				_tile_loadd(7, p->high + at, 64);              \
			}                                                      \
			_tile_dpbssd(MIXED, 6, 7);                             \
		}                                                              \
	} while (0)
#define AMX_KEEP_SUMS(HH, MIXED, LL, T)                \
	do {                                           \
		_tile_stored(HH, s[T].hh, 64);         \
		_tile_stored(MIXED, s[T].mixed, 64);   \
		if (low)                               \
			_tile_stored(LL, s[T].ll, 64); \
	} while (0)

/* A tile's sums are stored a tile later, when they are there. */
INLINE void amx_multiply(const amx_product *p, bool low, size_t tiles, amx_sums *s)
{
	AMX_MULTIPLY(0, 1, 2, 0);
	for (size_t t = 0; t < tiles; t += 2) {
		if (t + 1 < tiles)
			AMX_MULTIPLY(3, 4, 5, t + 1);
		AMX_KEEP_SUMS(0, 1, 2, t);
		if (t + 2 < tiles)
			AMX_MULTIPLY(0, 1, 2, t + 2);
		if (t + 1 < tiles)
			AMX_KEEP_SUMS(3, 4, 5, t + 1);
	}
}

INLINE vf amx_value(const amx_sums *s, bool low, int row)
{
	return vs_value((vs){vi_load(s->hh[row]), vi_load(s->mixed[row]),
			     low ? vi_load(s->ll[row]) : vi_set(0)});
}

/* The 16 folds of x[i], in lane i: by pairs of vectors, half of each with its other half. The
 * order of x undoes that of the shuffles. */
#define AMX_FOLD(NAME, OP)                                                             \
	INLINE vf NAME(const float x[16][16])                                          \
	{                                                                              \
		vf v[16];                                                              \
		for (int i = 0; i < 16; i++)                                           \
			v[i] = vf_load(x[i % 4 * 4 + i / 4]);                          \
		for (int i = 0; i < 8; i++)                                            \
			v[i] = OP(_mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0x44),  \
				  _mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0xee)); \
		for (int i = 0; i < 4; i++)                                            \
			v[i] = OP(_mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0x88),  \
				  _mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0xdd)); \
		for (int i = 0; i < 2; i++)                                            \
			v[i] = OP(_mm512_shuffle_ps(v[2 * i], v[2 * i + 1], 0x44),     \
				  _mm512_shuffle_ps(v[2 * i], v[2 * i + 1], 0xee));    \
		return OP(_mm512_shuffle_ps(v[0], v[1], 0x88),                         \
			  _mm512_shuffle_ps(v[0], v[1], 0xdd));                        \
	}
INLINE vf magnitude_max(vf a, vf b) /* of positive numbers, NaN the largest */
{
	return vf_of_bits(vi_max(vi_of_bits(a), vi_of_bits(b)));
}
AMX_FOLD(amx_fold_sum, vf_add)
AMX_FOLD(amx_fold_max, vf_max)
AMX_FOLD(amx_fold_magnitude, magnitude_max)
#undef AMX_FOLD

/* Dots to scores, the new maxima, and what the sums shrink by. */
INLINE void amx_scores(const pal__attn_kv *kv, bool low, pal__attn_query *q, int n,
		       amx_attn_scratch *c, amx_weighted *w)
{
	for (int i = 0; i < n; i++) {
		const vf step = vf_set(((const row_head *)q[i].row)->step * kv->scale);
		const bool whole = sees_all(&q[i]);
		vf v[4];
		for (int t = 0; t < 4; t++) {
			v[t] = vf_mul(vf_mul(amx_value(&c->sums[t], low, i), step),
				      vf_load(kv->k_scale + 16 * t));
			if (!whole)
				v[t] = visible(&q[i], 16 * t, v[t], vf_set(-INFINITY));
			vf_store(c->scores[i] + 16 * t, v[t]);
		}
		vf_store(c->part[i], vf_max(vf_max(v[0], v[1]), vf_max(v[2], v[3])));
		c->max[i] = q[i].max;
		c->sum[i] = q[i].sum;
	}
	vf old = vf_load(c->max), max = vf_max(amx_fold_max(c->part), old);
	vf_store(c->max, max);
	vf_store(w->shrink, vf_exp_low(vf_sub(old, max)));
}

/* Scores to weights, and their sums; then the weights times V's scales, and their steps. */
INLINE void amx_weights(const pal__attn_kv *kv, pal__attn_query *q, int n, amx_attn_scratch *c,
			amx_weighted *to)
{
	for (int i = 0; i < n; i++) {
		const vf max = vf_set(c->max[i]);
		const bool whole = sees_all(&q[i]);
		vf v[4];
		vi m = vi_set(0);
		for (int t = 0; t < 4; t++) {
			v[t] = vf_exp_low(vf_sub(vf_load(c->scores[i] + 16 * t), max));
			v[t] = whole ? v[t] : visible(&q[i], 16 * t, v[t], vf_set(0));
			vf w = vf_mul(v[t], vf_load(kv->v_scale + 16 * t));
			w = whole ? w : visible(&q[i], 16 * t, w, vf_set(0));
			m = vi_max(m, vi_of_bits(w));
			vf_store(c->scores[i] + 16 * t, w);
		}
		vf_store(c->part[i], vf_add(vf_add(vf_add(v[0], v[1]), v[2]), v[3]));
		vf_store(c->most[i], vf_of_bits(m));
	}
	vf_store(c->sum, vf_fma(vf_load(c->sum), vf_load(to->shrink), amx_fold_sum(c->part)));
	/* row_step of all */
	const vf largest = amx_fold_magnitude(c->most), tiny = vf_set(0x1p-100f), zero = vf_set(0);
	vf by = vf_lt(largest, vf_set(INFINITY), vf_div(vf_set(32512), largest), zero);
	vf step = vf_add(vf_div(largest, vf_set(127)), vf_sub(largest, largest));
	vf_store(c->by, vf_lt(largest, tiny, zero, by));
	vf_store(to->step, vf_lt(largest, tiny, zero, step));
	for (int i = 0; i < n; i++) {
		vf v[4];
		for (int t = 0; t < 4; t++)
			v[t] = vf_load(c->scores[i] + 16 * t);
		round_64(to->ints[i], PAL__ATTN_BLOCK, 0, v, c->by[i]);
		q[i].max = c->max[i];
		q[i].sum = c->sum[i];
	}
}

/* acc = acc * shrink + weights by V, for `tiles` tiles of dimensions from d. */
INLINE void amx_sum_v(bool low, pal__attn_query *q, int n, size_t d, size_t tiles,
		      const amx_sums *s, const amx_weighted *w)
{
	for (int i = 0; i < n; i++) {
		const vf step = vf_set(w->step[i]), shrink = vf_set(w->shrink[i]);
		float *acc = q[i].acc + d;
		for (size_t t = 0; t < tiles; t++, acc += 16)
			vf_store(acc, vf_fma(amx_value(&s[t], low, i), step,
					     vf_mul(vf_load(acc), shrink)));
	}
}

/* Groups of 4 numbers to do at once: up to 16, of equal size over a head. */
static size_t amx_groups(size_t head_dim)
{
	size_t all = (head_dim + 3) / 4, steps = (all + 15) / 16;
	while (all % steps)
		steps++;
	return all / steps;
}

/* Up to 16 queries by K, to weights; if few, V is fetched meanwhile. */
INLINE void amx_attn_k(const pal__attn_kv *kv, bool low, size_t groups, pal__attn_query *q,
		       int width, bool few, amx_attn_scratch *c, amx_weighted *w)
{
	const size_t hd = kv->head_dim;
	const uint8_t *k = kv->k, *v = kv->v;
	const amx_product p = {.high = k,
			       .low = k + pal__attn_plane(PAL__ATTN_BLOCK, hd),
			       .ints = (const uint8_t *)q[0].row + sizeof(row_head),
			       .row_bytes = pal__attn_row(hd),
			       .pad = (hd + 63) & ~(size_t)63,
			       .steps = (hd + 3) / 4 / groups,
			       .groups = groups,
			       .next = few ? v : NULL,
			       .next_low = v + pal__attn_plane(hd, PAL__ATTN_BLOCK)};
	for (int j = width; j < 16; j++) {
		vf_store(c->part[j], vf_set(0));
		vf_store(c->most[j], vf_set(0));
	}
	amx_multiply(&p, low, 4, c->sums);
	amx_scores(kv, low, q, width, c, w);
	amx_weights(kv, q, width, c, w);
}

/* Their weights by V, while the next K is fetched. */
INLINE void amx_attn_v(const pal__attn_kv *kv, bool low, pal__attn_query *q, int width, bool few,
		       amx_sums *s, const amx_weighted *w)
{
	const size_t tiles = (kv->head_dim + 15) / 16;
	const uint8_t *v = kv->v, *next = kv->next;
	amx_product p = {.ints = w->ints[0],
			 .row_bytes = sizeof w->ints[0],
			 .pad = PAL__ATTN_BLOCK,
			 .steps = 1,
			 .groups = PAL__ATTN_BLOCK / 4};
	for (size_t t = 0; t < tiles; t += AMX_ATTN_TILES) {
		const size_t at = t * 16 * PAL__ATTN_BLOCK;
		size_t now = tiles - t < AMX_ATTN_TILES ? tiles - t : AMX_ATTN_TILES;
		p.high = v + at;
		p.low = p.high + pal__attn_plane(kv->head_dim, PAL__ATTN_BLOCK);
		if (few && next) {
			p.next = next + at;
			p.next_low = p.next + pal__attn_plane(PAL__ATTN_BLOCK, kv->head_dim);
		}
		amx_multiply(&p, low, now, s);
		amx_sum_v(low, q, width, 16 * t, now, s, w);
	}
}

/* K by all queries, then V, so that each stays in L1 for them. */
INLINE void amx_attn_all(const pal__attn_kv *kv, bool low, size_t groups, pal__attn_query *q, int n,
			 bool few)
{
	amx_attn_scratch c __attribute__((aligned(PAL__ALIGN)));
	const size_t parts = ((size_t)n + 15) / 16;
	for (int v = 0; v < 2; v++) {
		int configured = 0;
		for (size_t i = 0; i < parts; i++) {
			pal__attn_query *at = q + 16 * i;
			int width = i + 1 < parts ? 16 : n - 16 * (int)i;
			if (width != configured)
				amx_attn_configure(width, v ? PAL__ATTN_BLOCK / 4 : groups);
			configured = width;
			if (v)
				amx_attn_v(kv, low, at, width, few, c.sums, &c.weighted[i]);
			else
				amx_attn_k(kv, low, groups, at, width, few, &c, &c.weighted[i]);
		}
		amx_written();
	}
	_tile_release();
}

static void amx_attn(const pal__attn_kv *kv, pal__attn_query *q, int n)
{
	const size_t groups = amx_groups(kv->head_dim);
	const int rest = n % 16 < AMX_ATTN_LEAST ? n % 16 : 0, end = n - rest;
	if (!pal__kv_is_int(kv->kind) || kv->head_dim > AMX_ATTN_DIM || groups < 8 || !end) {
		attn(kv, q, n);
		return;
	}
	if (kv->kind == PAL__KV_INT16)
		amx_attn_all(kv, true, groups, q, end, n <= AMX_ATTN_FEW);
	else
		amx_attn_all(kv, false, groups, q, end, n <= AMX_ATTN_FEW);
	if (rest)
		attn(kv, q + end, rest);
}
