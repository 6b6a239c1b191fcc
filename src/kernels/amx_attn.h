/* Attention over int16 K/V by AMX (dots of 64 bytes of 16 rows by 16 lanes), included by amx.h.
 * The dots are exact, so the bits are those of simd.h's.
 *
 * A tile register C = A B: A are the high or low bytes of up to 16 rows of integers, B those of
 * a tile of a plane, which is stored the way B is loaded. Four C make H and L. While any tile
 * instruction is in flight, this CPU family does 512-bit float operations on one port of two;
 * hence phases: all dots into a scratch that stays in L1, then what is done with them.
 */
#define AMX_ATTN_LEAST 3   /* queries; below, VNNI is faster */
#define AMX_ATTN_DIM 256   /* the largest head, as a segment of a row */
#define AMX_ATTN_LANES 128 /* lanes of a phase */

/* Sums of products of the bytes of 16 rows and 16 lanes. */
typedef struct {
	int32_t hh[16][16], hl[16][16], lh[16][16], ll[16][16];
} amx_sums;

/* Tiles 0 to 3 are C, 4 and 5 A, 6 and 7 B, of `rows` rows and 4 * groups numbers. */
static void amx_attn_configure(int rows, size_t groups)
{
	amx_config c = {.palette = 1};
	for (int i = 0; i < 8; i++)
		c.rows[i] = (uint8_t)(i < 6 ? (size_t)rows : groups),
		c.colsb[i] = (uint16_t)(i == 4 || i == 5 ? 4 * groups : 64);
	amx_written();
	_tile_loadconfig(&c);
}

/* One tile of 16 lanes, of `steps` times `groups` groups of numbers. */
INLINE void amx_dots(const uint8_t *high, const uint8_t *low, const uint8_t *ints, size_t row_bytes,
		     size_t pad, size_t steps, size_t groups, amx_sums *s)
{
	_tile_zero(0);
	_tile_zero(1);
	_tile_zero(2);
	_tile_zero(3);
	for (size_t i = 0; i < steps; i++) {
		_tile_loadd(4, ints + i * groups * 4, row_bytes);
		_tile_loadd(6, high + i * groups * 64, 64);
		_tile_dpbssd(0, 4, 6);
		_tile_loadd(5, ints + pad + i * groups * 4, row_bytes);
		_tile_dpbssd(1, 5, 6);
		_tile_loadd(7, low + i * groups * 64, 64);
		_tile_dpbsud(2, 4, 7);
		_tile_dpbsud(3, 5, 7);
	}
	_tile_stored(0, s->hh, 64);
	_tile_stored(1, s->hl, 64);
	_tile_stored(2, s->lh, 64);
	_tile_stored(3, s->ll, 64);
}

INLINE vf amx_value(const amx_sums *s, int row)
{
	return vs_value((vs){vi_load(s->hh[row]), vi_load(s->hl[row]), vi_load(s->lh[row]),
			     vi_load(s->ll[row])});
}

/* acc = acc * shrink + weights by V. */
static void amx_sum_v(const pal__attn_kv *kv, pal__attn_query *q, int n, const weight_row *w,
		      const float *shrink, amx_sums *s)
{
	const size_t stride = (kv->head_dim + 15) & ~(size_t)15;
	const uint8_t *v = kv->v, *low = v + pal__attn_plane(stride, PAL__ATTN_BLOCK);
	for (size_t d = 0, end; d < stride; d = end) {
		end = d + AMX_ATTN_LANES < stride ? d + AMX_ATTN_LANES : stride;
		for (size_t i = d; i < end; i += 16)
			amx_dots(v + i * PAL__ATTN_BLOCK, low + i * PAL__ATTN_BLOCK, w[0].ints,
				 sizeof *w, PAL__ATTN_BLOCK, 1, PAL__ATTN_BLOCK / 4,
				 &s[(i - d) / 16]);
		for (int i = 0; i < n; i++) {
			const vf step = vf_set(w[i].head.step), by = vf_set(shrink[i]);
			for (size_t at = d; at < end; at += 16) {
				vf acc = vf_mul(vf_load(q[i].acc + at), by);
				acc = vf_fma(amx_value(&s[(at - d) / 16], i), step, acc);
				vf_store(q[i].acc + at, acc);
			}
		}
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

static void amx_attn(const pal__attn_kv *kv, pal__attn_query *q, int n)
{
	const size_t hd = kv->head_dim, pad = (hd + 63) & ~(size_t)63;
	const size_t groups = amx_groups(hd), steps = (hd + 3) / 4 / groups;
	if (kv->kind != PAL__KV_INT16 || n < AMX_ATTN_LEAST || hd > AMX_ATTN_DIM || groups < 8) {
		attn(kv, q, n);
		return;
	}
	amx_sums s[AMX_ATTN_LANES / 16] __attribute__((aligned(PAL__ALIGN)));
	weight_row w[PAL__ATTN_MAX_QUERIES];
	float shrink[PAL__ATTN_MAX_QUERIES];
	const uint8_t *ints = (const uint8_t *)q[0].row + sizeof(row_head), *k = kv->k;
	amx_attn_configure(n, groups);
	for (size_t t = 0; t < 4; t++)
		amx_dots(k + t * groups * steps * 64, k + (4 + t) * groups * steps * 64, ints,
			 pal__attn_row(hd), pad, steps, groups, &s[t]);
	for (int i = 0; i < n; i++) {
		vf v[4];
		for (int t = 0; t < 4; t++)
			v[t] = amx_value(&s[t], i);
		shrink[i] = sees_all(&q[i]) ? weigh(kv, &q[i], true, v, &w[i])
					    : weigh(kv, &q[i], false, v, &w[i]);
	}
	amx_written();
	if (groups != PAL__ATTN_BLOCK / 4)
		amx_attn_configure(n, PAL__ATTN_BLOCK / 4);
	amx_sum_v(kv, q, n, w, shrink, s);
	_tile_release();
}
