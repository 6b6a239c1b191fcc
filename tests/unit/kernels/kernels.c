/* Every instruction set against the reference: equality of bits over random shapes, tails
 * and hostile values. Plain C that speaks TAP, since it also runs under qemu where no test
 * library is. The seed is the first argument (default 1), rounds the second. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "kernels/half.h"
#include "kernels/kernels.h"

#ifdef EMULATED
extern const pal__kernels emulated_amx;
#endif

static uint64_t state;

static uint64_t rnd(void)
{
	uint64_t z = state += 0x9e3779b97f4a7c15u;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

static size_t below(size_t n)
{
	return (size_t)(rnd() % n);
}

/* Mostly ordinary numbers; with `hostile`, now and then NaN, inf, denormals, zeros, extremes. */
static float number(bool hostile)
{
	static const uint32_t odd[] = {0x7fc00000, 0x7f800000, 0xff800000, 0x00000001, 0x80000001,
				       0x007fffff, 0,          0x80000000, 0x7f7fffff, 0xff7fffff,
				       0x0d800000, 0x0d7fffff, 0x3f800000, 0xbf800000};
	if (hostile && below(40) == 0)
		return pal__bits_float(odd[below(sizeof odd / sizeof odd[0])]);
	return ((float)(int32_t)rnd()) * 0x1p-31f * (below(8) ? 1.0f : 8.0f);
}

static bool same_float(float a, float b)
{
	return (a != a && b != b) || pal__float_bits(a) == pal__float_bits(b);
}

static bool same(const float *a, const float *b, size_t n, const char *what)
{
	for (size_t i = 0; i < n; i++)
		if (!same_float(a[i], b[i])) {
			printf("# %s differs at %zu of %zu: %a (reference) and %a\n", what, i, n,
			       (double)a[i], (double)b[i]);
			return false;
		}
	return true;
}

static void *need(size_t size)
{
	void *p = pal__alloc_aligned(size + 64);
	if (!p)
		exit(2);
	memset(p, 0, size + 64);
	return p;
}

static void give(void *p, size_t size)
{
	pal__free_aligned(p, size + 64);
}

static float *floats(size_t n, bool hostile)
{
	float *p = need(n * sizeof *p);
	for (size_t i = 0; i < n; i++)
		p[i] = number(hostile);
	return p;
}

static const pal__type all_types[] = {
	PAL__F32,  PAL__F16,  PAL__BF16, PAL__Q4_0, PAL__Q4_1, PAL__Q5_0,   PAL__Q5_1,   PAL__Q8_0,
	PAL__Q2_K, PAL__Q3_K, PAL__Q4_K, PAL__Q5_K, PAL__Q6_K, PAL__IQ4_NL, PAL__IQ4_XS,
};

/* --- matmul -------------------------------------------------------------------- */

/* Random bytes for the quants; scales are halves, made tame unless hostile. */
static void random_rows(uint8_t *p, size_t bytes, pal__type type, bool hostile)
{
	const pal__type_info *info = pal__type_find((uint32_t)type);
	const pal__field *fields;
	int n = pal__type_fields(type, &fields);
	for (size_t i = 0; i < bytes; i++)
		p[i] = (uint8_t)rnd();
	for (size_t b = 0; b < bytes && !(hostile && below(3) == 0); b += (size_t)info->block_bytes)
		for (int f = 0; f < n; f++) {
			uint8_t *at = p + b + fields[f].offset;
			float v = number(hostile);
			uint16_t h = pal__float_half(v);
			if (type == PAL__F32)
				memcpy(at, &v, 4);
			else if (type == PAL__BF16)
				memcpy(at, (uint8_t *)&v + 2, 2);
			else if (fields[f].unit == 2 && !(type == PAL__IQ4_XS && f == 3))
				memcpy(at, &h, 2);
		}
}

static void make_acts(const pal__kernels *k, const float *x, size_t n, size_t cols, pal__type type,
		      void *panels, pal__acts *out)
{
	*out = (pal__acts){.n = n, .k = cols, .x = x, .q = panels};
	uint8_t *panel = panels;
	for (size_t c = 0; c < n && !pal__type_is_float(type);) {
		int width = pal__panel_width(n - c, k->panel);
		size_t half = below(cols / 32 + 1) * 32;
		k->quantize(x + c * cols, cols, half, cols, width, panel);
		k->quantize(x + c * cols, cols, 0, half, width, panel);
		c += (size_t)width;
		panel += pal__panels_bytes((size_t)width, cols);
	}
}

static bool pack(pal__matrix *m, const uint8_t *rows, size_t row_bytes)
{
	bool good = true;
	uint8_t *row = need(row_bytes);
	uint32_t *map = need(m->n_rows * sizeof *map);
	for (size_t i = 0; i < m->n_rows; i++)
		map[i] = (uint32_t)(m->n_rows - 1 - i);
	m->data = need(pal__matrix_bytes(m));
	for (size_t t = 0; t < m->n_tiles; t++)
		pal__matrix_pack_tile(m, t, rows, map);
	size_t block = row_bytes / m->n_blocks;
	for (size_t r = 0; r < m->n_rows && good; r++) {
		for (size_t b = 0; b < m->n_blocks; b++)
			pal__matrix_block(m, r, b, row + b * block);
		good = memcmp(row, rows + map[r] * row_bytes, row_bytes) == 0;
	}
	if (!good)
		printf("# a packed row does not come back\n");
	give(row, row_bytes);
	give(map, m->n_rows * sizeof *map);
	return good;
}

static bool test_matmul(const pal__kernels *k, pal__type type, bool hostile)
{
	const pal__type_info *info = pal__type_find((uint32_t)type);
	size_t block = (size_t)info->block;
	size_t cols = block == 1 ? 1 + below(130) : block * (1 + below(block == 256 ? 3 : 9));
	size_t n_rows = 1 + below(70), n = 1 + below(30);
	size_t row_bytes = cols / block * (size_t)info->block_bytes, ldy = n_rows + below(5);
	uint8_t *rows = need(n_rows * row_bytes);
	random_rows(rows, n_rows * row_bytes, type, hostile);
	float *x = floats(n * cols, hostile);
	for (size_t c = 0; c < n; c++) /* rows of zeros, and ties of both signs */
		if (below(6) == 0)
			for (size_t i = 0; i < cols; i++)
				x[c * cols + i] = below(2) ? (float)(int)below(3) - 1 : 0;
	pal__matrix m;
	bool good = pal__matrix_shape(&m, type, n_rows, cols) && pack(&m, rows, row_bytes);

	size_t out = n * ldy * sizeof(float), panels = pal__panels_bytes(n, cols);
	float *a = need(out), *b = need(out);
	void *qa = need(panels), *qb = need(panels);
	pal__acts xa, xb;
	make_acts(&pal__kernels_scalar, x, n, cols, type, qa, &xa);
	make_acts(k, x, n, cols, type, qb, &xb);
	size_t half = below(m.n_tiles + 1);
	pal__kernels_scalar.matmul(&m, 0, m.n_tiles, &xa, a, ldy);
	k->matmul(&m, 0, half, &xb, b, ldy);
	k->matmul(&m, half, m.n_tiles, &xb, b, ldy);
	good = good && same(a, b, n * ldy, info->name);
	if (!good)
		printf("# %s: %zu rows, %zu columns, %zu tokens\n", info->name, n_rows, cols, n);
	give(m.data, pal__matrix_bytes(&m));
	give(rows, n_rows * row_bytes);
	give(x, n * cols * sizeof *x);
	give(a, out), give(b, out), give(qa, panels), give(qb, panels);
	return good;
}

/* A column's bits must not depend on how many columns go with it. */
static bool test_columns(const pal__kernels *k, pal__type type)
{
	size_t cols = 512, n_rows = 37, n = 29;
	const pal__type_info *info = pal__type_find((uint32_t)type);
	size_t row_bytes = cols / (size_t)info->block * (size_t)info->block_bytes;
	uint8_t *rows = need(n_rows * row_bytes);
	random_rows(rows, n_rows * row_bytes, type, false);
	float *x = floats(n * cols, false);
	pal__matrix m;
	bool good = pal__matrix_shape(&m, type, n_rows, cols) && pack(&m, rows, row_bytes);
	size_t out = n * n_rows * sizeof(float), panels = pal__panels_bytes(n, cols);
	float *a = need(out), *b = need(out);
	void *q = need(panels);
	pal__acts acts;
	make_acts(k, x, n, cols, type, q, &acts);
	k->matmul(&m, 0, m.n_tiles, &acts, a, n_rows);
	for (size_t c = 0; c < n; c++) {
		make_acts(k, x + c * cols, 1, cols, type, q, &acts);
		k->matmul(&m, 0, m.n_tiles, &acts, b + c * n_rows, n_rows);
	}
	good = good && same(a, b, n * n_rows, "one column and many");
	give(m.data, pal__matrix_bytes(&m));
	give(rows, n_rows * row_bytes);
	give(x, n * cols * sizeof *x);
	give(a, out), give(b, out), give(q, panels);
	return good;
}

/* --- vectors --------------------------------------------------------------------- */

static bool test_vectors(const pal__kernels *k, bool hostile)
{
	const pal__kernels *r = &pal__kernels_scalar;
	size_t n = 2 * (1 + below(150)), bytes = n * sizeof(float);
	float *x = floats(n, hostile), *w = floats(n, hostile), *a = need(bytes), *b = need(bytes);
	float by = number(hostile);
	bool good = true;
	uint16_t *ha = need(bytes), *hb = need(bytes);
	for (size_t i = 0; i < n; i++)
		x[i] *= below(4) ? 1.0f : 40.0f;
#define BOTH(what, call_r, call_k)                \
	memcpy(a, x, bytes), memcpy(b, x, bytes); \
	call_r, call_k;                           \
	good = same(a, b, n, what) && good
	BOTH("rms_norm", r->rms_norm(x, w, n, 1e-6f, a), k->rms_norm(x, w, n, 1e-6f, b));
	BOTH("rope", r->rope(a, w, w + n / 2, n), k->rope(b, w, w + n / 2, n));
	BOTH("swiglu", r->swiglu(a, w, n), k->swiglu(b, w, n));
	BOTH("geglu", r->geglu(a, w, n), k->geglu(b, w, n));
	BOTH("add", r->add(a, w, n), k->add(b, w, n));
	BOTH("scale", r->scale(a, by, n), k->scale(b, by, n));
	BOTH("attn_end", r->attn_end(x, by, n, a), k->attn_end(x, by, n, b));
#undef BOTH
	r->to_half(x, n, ha);
	k->to_half(x, n, hb);
	for (size_t i = 0; i < n; i++) {
		a[i] = pal__half_float(ha[i]);
		b[i] = pal__half_float(hb[i]);
	}
	good = same(a, b, n, "to_half") && good;
	int16_t *ia = (int16_t *)ha, *ib = (int16_t *)hb;
	float da = r->to_int16(x, n, ia), db = k->to_int16(x, n, ib);
	for (size_t i = 0; i < n; i++) {
		a[i] = ia[i];
		b[i] = ib[i];
		good = good && (!hostile ? fabsf(a[i] * da - x[i]) <= da * 0.51f : true);
	}
	good = same(a, b, n, "to_int16") && same(&da, &db, 1, "to_int16's scale") && good;
	int8_t *ba = (int8_t *)ha, *bb = (int8_t *)hb;
	da = r->to_int8(x, n, ba), db = k->to_int8(x, n, bb);
	for (size_t i = 0; i < n; i++) {
		a[i] = ba[i];
		b[i] = bb[i];
		good = good && (!hostile ? fabsf(a[i] * da - x[i]) <= da * 0.5001f : true);
	}
	good = same(a, b, n, "to_int8") && same(&da, &db, 1, "to_int8's scale") && good;
	give(x, bytes), give(w, bytes), give(a, bytes), give(b, bytes), give(ha, bytes),
		give(hb, bytes);
	return good;
}

/* Also runs, and scores, that have no number at all; and the guard behind `best`. */
static bool test_peaks(const pal__kernels *k, bool hostile)
{
	size_t n = below(1200), runs = (n + PAL__RUN - 1) / PAL__RUN, room = (runs + 15) / 16 * 16;
	float *x = floats(n + 1, hostile), by = number(hostile), sums[2], most[2];
	float *a = need((room + 1) * sizeof *a), *b = need((room + 1) * sizeof *b);
	for (size_t i = 0, from = below(n + 1); hostile && i < 40 && from + i < n; i++)
		x[from + i] = below(2) ? NAN : -INFINITY;
	for (size_t i = 0; i < n && hostile && below(9) == 0; i++)
		x[i] = NAN;
	a[room] = b[room] = 77;
	sums[0] = pal__kernels_scalar.peaks(x, n, by, a, &most[0]);
	sums[1] = k->peaks(x, n, by, b, &most[1]);
	bool good = same(a, b, room + 1, "peaks") && same(&sums[0], &sums[1], 1, "peaks' sum") &&
		    same(&most[0], &most[1], 1, "peaks' largest") && a[room] == 77;
	give(x, (n + 1) * sizeof *x);
	give(a, (room + 1) * sizeof *a), give(b, (room + 1) * sizeof *b);
	return good;
}

/* Against double arithmetic. */
static bool test_peaks_meaning(void)
{
	size_t n = 1 + below(1024), runs = (n + PAL__RUN - 1) / PAL__RUN;
	float *x = floats(n, false), best[48], most;
	double sum = 0, largest = -INFINITY;
	float got = pal__kernels_scalar.peaks(x, n, 3, best, &most);
	bool good = true;
	for (size_t r = 0; r < runs; r++) {
		double want = -INFINITY;
		for (size_t i = r * PAL__RUN; i < n && i < (r + 1) * PAL__RUN; i++)
			want = fmax(want, x[i]);
		good = good && fabs(3 * want - best[r]) <= 1e-6 * fabs(3 * want);
		largest = fmax(largest, best[r]);
	}
	for (size_t r = 0; r < runs; r++)
		sum += exp(best[r] - largest);
	give(x, n * sizeof *x);
	return good && most == (float)largest && fabs(got - sum) <= 1e-5 * sum;
}

/* --- attention --------------------------------------------------------------------- */

static void fill_kv(void *p, size_t n, pal__kv_kind kind, bool hostile)
{
	for (size_t i = 0; i < n; i++) {
		float v = number(hostile && below(20) == 0);
		if (pal__kv_is_int(kind))
			((int16_t *)p)[i] = (int16_t)rnd(); /* as bytes of planes */
		else if (kind == PAL__KV_HALF)
			((uint16_t *)p)[i] = pal__float_half(v);
		else
			((float *)p)[i] = v;
	}
}

static size_t random_head_dim(void)
{
	static const size_t dims[] = {20, 32, 64, 80, 96, 128, 256, 300, 520};
	return below(3) ? dims[below(sizeof dims / sizeof dims[0])] : 1 + below(100);
}

typedef struct {
	pal__attn_query q[PAL__ATTN_MAX_QUERIES];
	float *acc;
	uint8_t *rows;
} asking;

static void ask(asking *a, const pal__kernels *k, const float *q, int n, size_t hd)
{
	size_t stride = (hd + 15) / 16 * 16, row = pal__attn_row(hd);
	a->acc = need((size_t)n * stride * sizeof *a->acc);
	a->rows = need((size_t)n * row);
	for (size_t i = 0; i < (size_t)n; i++) {
		k->attn_begin(q + i * hd, hd, a->rows + i * row);
		a->q[i] = (pal__attn_query){.q = q + i * hd,
					    .row = a->rows + i * row,
					    .acc = a->acc + i * stride,
					    .max = -INFINITY};
	}
}

static void asked(asking *a, int n, size_t hd)
{
	size_t stride = (hd + 15) / 16 * 16;
	give(a->acc, (size_t)n * stride * sizeof *a->acc);
	give(a->rows, (size_t)n * pal__attn_row(hd));
}

/* Ordinary numbers, all zeros or tiny ones: rows of integers have a step of their own. */
static void random_queries(float *q, size_t n, size_t hd, bool hostile)
{
	for (size_t i = 0; i < n; i++) {
		bool odd = hostile && below(3) == 0;
		float size = below(8) ? 1.0f : below(2) ? 0x1p-101f : 0;
		for (size_t d = 0; d < hd; d++)
			q[i * hd + d] = number(odd) * size;
	}
}

static bool test_attn(const pal__kernels *k, pal__kv_kind kind, bool hostile)
{
	size_t hd = random_head_dim(), stride = (hd + 15) / 16 * 16;
	size_t k_n = (hd + 3) / 4 * 4 * PAL__ATTN_BLOCK, v_n = stride * PAL__ATTN_BLOCK;
	int n = 1 + (int)below(below(2) ? 16 : PAL__ATTN_MAX_QUERIES);
	void *kk = need(k_n * 4), *vv = need(v_n * 4);
	float *q = floats((size_t)n * hd, false);
	asking a, b;
	bool causal = below(2), whole = below(2), good = true;
	float scales[128];
	random_queries(q, (size_t)n, hd, hostile);
	ask(&a, &pal__kernels_scalar, q, n, hd);
	ask(&b, k, q, n, hd);
	for (int block = 0; block < 3; block++) {
		pal__attn_kv kv = {.k = kk,
				   .v = vv,
				   .k_scale = scales,
				   .v_scale = scales + 64,
				   .next = below(2) ? kk : NULL,
				   .kind = kind,
				   .head_dim = hd,
				   .scale = 0.125f * (float)(1 + below(8))};
		float hard = below(2) ? 0x1p-15f : 0x1p-11f;
		for (int i = 0; i < 128; i++)
			scales[i] = fabsf(number(hostile && below(4) == 0)) * hard;
		fill_kv(kk, k_n, kind, hostile);
		fill_kv(vv, v_n, kind, hostile);
		for (int i = 0; i < n; i++) {
			int lo = causal ? 0 : (int)below(PAL__ATTN_BLOCK);
			int hi = lo + 1 + (int)below((size_t)(PAL__ATTN_BLOCK - lo));
			bool all = whole && below(3);
			a.q[i].lo = b.q[i].lo = all ? 0 : lo;
			a.q[i].hi = b.q[i].hi = all ? PAL__ATTN_BLOCK : hi;
		}
		pal__kernels_scalar.attn(&kv, a.q, n);
		k->attn(&kv, b.q, n);
		good = same(a.acc, b.acc, (size_t)n * stride, "attention") && good;
		for (int i = 0; i < n; i++)
			good = good && same(&a.q[i].sum, &b.q[i].sum, 1, "attention's sum") &&
			       same(&a.q[i].max, &b.q[i].max, 1, "attention's maximum");
	}
	if (!good)
		printf("# kind %d, head dimension %zu, %d queries\n", (int)kind, hd, n);
	give(kk, k_n * 4), give(vv, v_n * 4);
	give(q, (size_t)n * hd * sizeof *q);
	asked(&a, n, hd), asked(&b, n, hd);
	return good;
}

/* Over integers, scales of positions that nobody sees may be anything; of those seen, a NaN shows.
 * So it does in a query, and only in that. */
static bool test_attn_nan(const pal__kernels *k, pal__kv_kind kind, bool in_v)
{
	enum { HD = 64, N = 5, PLACE = 40 };
	size_t elements = HD * PAL__ATTN_BLOCK;
	void *kk = need(elements * 2), *vv = need(elements * 2);
	float *q = floats(N * HD, false), scales[128];
	pal__attn_kv kv = {kk, vv, scales, scales + 64, NULL, kind, HD, 0.125f};
	asking a;
	bool good = true;
	fill_kv(kk, elements, kind, false);
	fill_kv(vv, elements, kind, false);
	for (int i = 0; i < 128; i++)
		scales[i] = 0x1p-15f;
	scales[PLACE + 64 * in_v] = NAN;
	q[2 * HD + 7] = INFINITY;
	ask(&a, k, q, N, HD);
	for (int i = 0; i < N; i++) {
		a.q[i].lo = 0;
		a.q[i].hi = i == 3 ? PAL__ATTN_BLOCK : PLACE;
	}
	k->attn(&kv, a.q, N);
	for (int i = 0; i < N * HD; i++)
		good = good && isnan(a.acc[i]) == (i / HD == 2 || i / HD == 3);
	give(kk, elements * 2), give(vv, elements * 2), give(q, N * HD * sizeof *q);
	asked(&a, N, HD);
	return good;
}

/* Over int8, the bits are those of int16 whose low bytes are zero. */
static bool test_attn_int8(const pal__kernels *k)
{
	size_t hd = random_head_dim(), stride = (hd + 15) / 16 * 16;
	size_t k_plane = pal__attn_plane(PAL__ATTN_BLOCK, hd);
	size_t v_plane = pal__attn_plane(hd, PAL__ATTN_BLOCK);
	int n = 1 + (int)below(PAL__ATTN_MAX_QUERIES);
	uint8_t *kk = need(2 * k_plane), *vv = need(2 * v_plane);
	float *q = floats((size_t)n * hd, false), scales[128];
	asking a, b;
	fill_kv(kk, k_plane / 2, PAL__KV_INT8, false);
	fill_kv(vv, v_plane / 2, PAL__KV_INT8, false);
	memset(kk + k_plane, 0, k_plane);
	memset(vv + v_plane, 0, v_plane);
	for (int i = 0; i < 128; i++)
		scales[i] = fabsf(number(false)) * 0x1p-15f;
	pal__attn_kv kv = {kk, vv, scales, scales + 64, NULL, PAL__KV_INT16, hd, 0.25f};
	ask(&a, k, q, n, hd);
	ask(&b, k, q, n, hd);
	for (int i = 0; i < n; i++) {
		a.q[i].lo = b.q[i].lo = (int)below(PAL__ATTN_BLOCK);
		a.q[i].hi = b.q[i].hi = PAL__ATTN_BLOCK;
	}
	k->attn(&kv, a.q, n);
	kv.kind = PAL__KV_INT8;
	k->attn(&kv, b.q, n);
	bool good = same(a.acc, b.acc, (size_t)n * stride, "int8 as int16");
	give(kk, 2 * k_plane), give(vv, 2 * v_plane), give(q, (size_t)n * hd * sizeof *q);
	asked(&a, n, hd), asked(&b, n, hd);
	return good;
}

/* --- against values known otherwise -------------------------------------------------- */

static bool test_halves(void)
{
	for (uint32_t h = 0; h < 65536; h++) {
		float f = pal__half_float((uint16_t)h);
		if (f == f && pal__float_half(f) != h) {
			printf("# half %04x is %a and comes back as %04x\n", h, (double)f,
			       pal__float_half(f));
			return false;
		}
	}
	return pal__float_half(65519.0f) == 0x7bff && pal__float_half(65520.0f) == 0x7c00 &&
	       pal__float_half(0x1p-25f) == 0 && pal__float_half(0x1.8p-25f) == 1 &&
	       pal__half_float(0x3c01) == 1.0009765625f && pal__half_float(0x0001) == 0x1p-24f;
}

/* exp against a double-precision evaluation, over the whole range. */
static bool test_exp(double (*reference)(double))
{
	float gate[2], up[2] = {1, 1};
	for (int i = 0; i < 200000; i++) {
		float x = -20.0f + (float)i * 2e-4f;
		gate[0] = gate[1] = x;
		pal__kernels_scalar.swiglu(gate, up, 2);
		double want = (double)x / (1 + reference(-(double)x));
		if (fabs(gate[0] - want) > 4e-7 * fabs(want) + 1e-30) {
			printf("# silu(%a) = %a, not %a\n", (double)x, (double)gate[0], want);
			return false;
		}
	}
	return true;
}

/* The error of a matmul on int8 activations against double arithmetic stays near the
 * rounding's: a wrong code, scale or order of rows would be of the size of the result. */
static bool test_meaning(pal__type type)
{
	size_t cols = 1024, n_rows = 48;
	const pal__type_info *info = pal__type_find((uint32_t)type);
	size_t row_bytes = cols / (size_t)info->block * (size_t)info->block_bytes;
	uint8_t *rows = need(n_rows * row_bytes);
	random_rows(rows, n_rows * row_bytes, type, false);
	float *x = floats(cols, false), *w = need(cols * sizeof *w), *y = need(n_rows * sizeof *y);
	pal__matrix m;
	bool good = pal__matrix_shape(&m, type, n_rows, cols) && pack(&m, rows, row_bytes);
	void *q = need(pal__panels_bytes(1, cols));
	pal__acts acts;
	make_acts(&pal__kernels_scalar, x, 1, cols, type, q, &acts);
	pal__kernels_scalar.matmul(&m, 0, m.n_tiles, &acts, y, n_rows);
	double err = 0, size = 0;
	for (size_t r = 0; r < n_rows; r++) {
		double dot = 0, sq = 0;
		pal__matrix_row(&m, r, w);
		for (size_t i = 0; i < cols; i++) {
			dot += (double)w[i] * x[i];
			sq += (double)w[i] * w[i];
		}
		err += (y[r] - dot) * (y[r] - dot);
		size += sq;
	}
	double limit = pal__type_is_float(type) ? 1e-5 : 0.03;
	if (!(sqrt(err / size) < limit)) {
		printf("# %s: error %g\n", info->name, sqrt(err / size));
		good = false;
	}
	give(m.data, pal__matrix_bytes(&m));
	give(rows, n_rows * row_bytes);
	give(x, cols * sizeof *x), give(w, cols * sizeof *w), give(y, n_rows * sizeof *y);
	give(q, pal__panels_bytes(1, cols));
	return good;
}

/* Attention over integers against double arithmetic: the error is that of rounding the query and
 * the weights to 15 bits. Numbers in the planes are found as kernels.h says. */
static bool test_attn_meaning(size_t hd)
{
	size_t stride = (hd + 15) / 16 * 16, k_plane = pal__attn_plane(64, hd);
	size_t v_plane = pal__attn_plane(hd, 64), groups = (hd + 3) / 4;
	uint8_t *k = need(2 * k_plane), *v = need(2 * v_plane);
	float *q = floats(hd, false), scales[128];
	double s[64], most = -INFINITY, sum = 0, error = 0, size = 0;
	float by = 2 / sqrtf((float)hd);
	asking a;
	fill_kv(k, k_plane, PAL__KV_INT16, false);
	fill_kv(v, v_plane, PAL__KV_INT16, false);
	for (int i = 0; i < 128; i++)
		scales[i] = (2 + number(false)) * 0x1p-16f;
	pal__attn_kv kv = {k, v, scales, scales + 64, NULL, PAL__KV_INT16, hd, by};
	for (size_t j = 0; j < 64; j++) {
		s[j] = 0;
		for (size_t d = 0; d < hd; d++) {
			const uint8_t *at =
				k + ((j / 16 * groups + d / 4) * 16 + j % 16) * 4 + d % 4;
			s[j] += (double)q[d] * ((int8_t)*at * 256 + at[k_plane]);
		}
		s[j] *= (double)scales[j] * by;
		most = s[j] > most ? s[j] : most;
	}
	for (size_t j = 0; j < 64; j++)
		sum += s[j] = exp(s[j] - most);
	ask(&a, &pal__kernels_scalar, q, 1, hd);
	a.q[0].lo = 0, a.q[0].hi = 64;
	pal__kernels_scalar.attn(&kv, a.q, 1);
	pal__kernels_scalar.attn_end(a.acc, a.q[0].sum, stride, a.acc);
	for (size_t d = 0; d < hd; d++) {
		double want = 0;
		for (size_t j = 0; j < 64; j++) {
			const uint8_t *at = v + (d / 16 * 16 + j / 4) * 64 + d % 16 * 4 + j % 4;
			want += s[j] / sum * ((int8_t)*at * 256 + at[v_plane]) *
				(double)scales[64 + j];
		}
		error += (a.acc[d] - want) * (a.acc[d] - want);
		size += want * want;
	}
	bool good = sqrt(error / size) < 1e-3;
	if (!good)
		printf("# attention, head dimension %zu: error %g\n", hd, sqrt(error / size));
	give(k, 2 * k_plane), give(v, 2 * v_plane), give(q, hd * sizeof *q);
	asked(&a, 1, hd);
	return good;
}

static int n_tests, n_failed;

static void report(bool good, const char *isa, const char *what, const char *more)
{
	printf("%s %d - %s %s %s\n", good ? "ok" : "not ok", ++n_tests, isa, what, more);
	n_failed += !good;
}

static void test_isa(const pal__kernels *k, int rounds)
{
	for (size_t t = 0; t < sizeof all_types / sizeof all_types[0]; t++) {
		bool good = test_columns(k, all_types[t]);
		for (int i = 0; i < rounds && good; i++)
			good = test_matmul(k, all_types[t], i % 2);
		report(good, k->name, "matmul", pal__type_find((uint32_t)all_types[t])->name);
	}
	bool vectors = true, attention = true, peaks = true;
	for (int i = 0; i < 4 * rounds && vectors; i++)
		vectors = test_vectors(k, i % 2);
	for (int i = 0; i < 8 * rounds && attention; i++)
		attention = test_attn(k, (pal__kv_kind)(i % 4), i / 4 % 2);
	for (int i = 0; i < rounds && attention; i++)
		attention = test_attn_int8(k);
	for (int i = 0; i < 8 * rounds && peaks; i++)
		peaks = test_peaks(k, i % 2);
	report(vectors, k->name, "vectors", "");
	report(peaks, k->name, "peaks", "");
	report(attention, k->name, "attention", "");
	for (pal__kv_kind kind = PAL__KV_INT16; kind <= PAL__KV_INT8; kind++)
		report(test_attn_nan(k, kind, false) && test_attn_nan(k, kind, true), k->name,
		       "attention", "NaN");
}

int main(int argc, char **argv)
{
	static const char *const names[] = {"scalar", "avx2", "avx512", "amx", "neon"};
	uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
	int rounds = argc > 2 ? atoi(argv[2]) : 24;
	bool meaning = true;
	state = seed;
	printf("# seed %" PRIu64 "\n", seed);
	report(test_halves(), "scalar", "halves", "");
	report(test_exp(exp), "scalar", "exp", "");
	for (size_t t = 0; t < sizeof all_types / sizeof all_types[0]; t++)
		report(test_meaning(all_types[t]), "scalar", "meaning of",
		       pal__type_find((uint32_t)all_types[t])->name);
	for (size_t hd = 2; hd <= 1024; hd = hd * 3 / 2 + 1)
		meaning = test_attn_meaning(hd) && meaning;
	report(meaning, "scalar", "meaning of", "attention");
	for (int i = 0; i < rounds && meaning; i++)
		meaning = test_peaks_meaning();
	report(meaning, "scalar", "meaning of", "peaks");
	const pal__kernels *k;
	pal_error err;
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		if (pal__kernels_choose(names[i], &k, &err) == PAL_OK)
			test_isa(k, rounds);
		else
			printf("# not run: %s\n", err.text);
	}
#ifdef EMULATED /* by amx.c, over AVX-512 */
	pal__kernels emulated = emulated_amx;
	emulated.name = "emulated amx";
	if (pal__kernels_choose("avx512", &k, &err) == PAL_OK)
		test_isa(&emulated, rounds);
	else
		printf("# not run: emulated amx: %s\n", err.text);
#endif
	printf("1..%d\n", n_tests);
	return n_failed != 0;
}
