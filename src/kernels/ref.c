/* The reference: what every kernel means, in scalar C. Shapes are asserted here.
 * Block layouts follow the ggml project's GGUF types. */
#include <assert.h>
#include <math.h>

#include "kernels/block.h"
#include "kernels/exp.h"
#include "kernels/half.h"
#include "kernels/kernels.h"

#define fma __builtin_fmaf

static float max2(float a, float b)
{
	return a > b ? a : b;
}

/* Rounds to the nearest integer, ties to even: |x| < 2^22. */
static float round_even(float x)
{
	return x + 0x1.8p23f - 0x1.8p23f;
}

/* --- activations --------------------------------------------------------- */

static float fold(const float lanes[16])
{
	float v[16];
	memcpy(v, lanes, sizeof v);
	for (int half = 8; half; half /= 2)
		for (int i = 0; i < half; i++)
			v[i] += v[i + half];
	return v[0];
}

/* x * y folded over 32 values: lane i has elements i and i + 16. */
static float fold_products(const float x[32], const float y[32])
{
	float lanes[16];
	for (int i = 0; i < 16; i++)
		lanes[i] = fma(x[i + 16], y[i + 16], x[i] * y[i]);
	return fold(lanes);
}

/* Rounds x * id to integers r; returns the squared error of r * d. */
static float try_scale(const float x[32], float d, float id, float r[32])
{
	float error[32];
	for (int i = 0; i < 32; i++) {
		r[i] = fma(x[i], id, 0x1.8p23f) - 0x1.8p23f;
		error[i] = fma(r[i], -d, x[i]);
	}
	return fold_products(error, error);
}

/* The quants of 32 values, as floats; returns d. */
static float quantize_block(const float x[32], float r[32])
{
	float size = 0, next[32], best = 0;
	bool finite = true;
	memset(r, 0, 32 * sizeof *r);
	for (int i = 0; i < 32; i++) {
		finite = finite && x[i] - x[i] == 0;
		size = max2(fabsf(x[i]), size);
	}
	if (!finite || size < 0x1p-100f)
		return finite ? 0 : NAN;
	float inverse = 1 / size, d = 0;
	for (int i = 0; i < PAL__ACT_TRIES; i++) {
		float code = (float)(127 - i), by = size * (1 / code);
		float error = try_scale(x, by, inverse * code, next);
		if (i && !(error < best))
			continue;
		best = error;
		d = by;
		memcpy(r, next, sizeof next);
	}
	float fitted = fold_products(x, r) / fold_products(r, r);
	return fitted - fitted == 0 ? fitted : d;
}

static void quantize_column(const float *x, size_t from, size_t to, int width, int c, void *panel)
{
	const size_t stride = (size_t)width * PAL__ACT_BYTES;
	for (size_t b = from / 32; b < to / 32; b++) {
		pal__act_block a = pal__act_at((uint8_t *)panel + b * stride, width, c);
		float r[32];
		int32_t sum[2] = {0, 0};
		*a.d = quantize_block(x + 32 * b, r);
		for (int i = 0; i < 32; i++) {
			a.q[i] = (int8_t)r[i];
			sum[i / 16] += a.q[i];
		}
		for (int h = 0; h < 2; h++) {
			a.nsum[h] = -sum[h];
			a.dsum[h] = *a.d * (float)sum[h];
		}
		a.dsum[2] = *a.d * (float)(sum[0] + sum[1]);
	}
}

static void quantize(const float *x, size_t k, size_t from, size_t to, int width, void *panel)
{
	assert(from % 32 == 0 && to % 32 == 0 && to <= k && width >= 1 && width <= PAL__MAX_PANEL);
	for (int c = 0; c < width; c++)
		quantize_column(x + (size_t)c * k, from, to, width, c, panel);
}

/* --- matmul -------------------------------------------------------------- */

static int32_t dot_half(const int8_t *w, const int8_t *a)
{
	int32_t sum = 0;
	for (int i = 0; i < 16; i++)
		sum += w[i] * a[i];
	return sum;
}

/* One row by one column of a panel: acc and the blocks of 32 in ascending order. */
static float dot_block(const pal__block *w, const pal__act_block *a, float acc, int b)
{
	int32_t i0 = dot_half(w->q + 32 * b, a->q);
	int32_t i1 = dot_half(w->q + 32 * b + 16, a->q + 16);
	if (w->sub == 32) {
		acc = fma((float)(i0 + i1), w->scale[b] * *a->d, acc);
		return w->has_min ? fma(w->min[b], a->dsum[2], acc) : acc;
	}
	float t = fma((float)i1, w->scale[2 * b + 1], (float)i0 * w->scale[2 * b]);
	acc = fma(t, *a->d, acc);
	if (!w->has_min)
		return acc;
	acc = fma(w->min[2 * b], a->dsum[0], acc);
	return fma(w->min[2 * b + 1], a->dsum[1], acc);
}

static void row_by_panel(const pal__matrix *w, size_t row, const uint8_t *panel, int width,
			 float *acc)
{
	const pal__type_info *info = pal__type_find((uint32_t)w->type);
	uint8_t bytes[PAL__MAX_BLOCK_BYTES];
	pal__block block;
	for (int c = 0; c < width; c++)
		acc[c] = 0;
	for (size_t i = 0; i < w->n_blocks; i++) {
		pal__matrix_block(w, row, i, bytes);
		pal__block_decode(w->type, bytes, &block);
		for (int b = 0; b < info->block / 32; b++) {
			for (int c = 0; c < width; c++) {
				pal__act_block a =
					pal__act_at((uint8_t *)(uintptr_t)panel, width, c);
				acc[c] = dot_block(&block, &a, acc[c], b);
			}
			panel += (size_t)width * PAL__ACT_BYTES;
		}
	}
}

static float float_weight(const pal__matrix *w, size_t row, size_t k)
{
	uint8_t bytes[4];
	uint16_t h;
	float f;
	pal__matrix_block(w, row, k, bytes);
	memcpy(&f, bytes, sizeof f);
	memcpy(&h, bytes, sizeof h);
	return w->type == PAL__F32   ? f
	       : w->type == PAL__F16 ? pal__half_float(h)
				     : pal__bf16_float(h);
}

static void row_by_floats(const pal__matrix *w, size_t row, const pal__acts *x, float *y,
			  size_t ldy)
{
	for (size_t c = 0; c < x->n; c++)
		y[c * ldy] = 0;
	for (size_t k = 0; k < w->n_cols; k++) {
		float v = float_weight(w, row, k);
		for (size_t c = 0; c < x->n; c++)
			y[c * ldy] = fma(v, x->x[c * x->k + k], y[c * ldy]);
	}
}

static void matmul(const pal__matrix *w, size_t tile0, size_t tile1, const pal__acts *x, float *y,
		   size_t ldy)
{
	assert(tile1 <= w->n_tiles && x->k == w->n_cols && ldy >= w->n_rows);
	size_t end = tile1 * PAL__TILE_ROWS < w->n_rows ? tile1 * PAL__TILE_ROWS : w->n_rows;
	for (size_t row = tile0 * PAL__TILE_ROWS; row < end; row++) {
		if (pal__type_is_float(w->type)) {
			row_by_floats(w, row, x, y + row, ldy);
			continue;
		}
		const uint8_t *panel = x->q;
		for (size_t c = 0; c < x->n;) {
			int width = pal__panel_width(x->n - c, PAL__MAX_PANEL);
			float acc[PAL__MAX_PANEL];
			row_by_panel(w, row, panel, width, acc);
			for (int i = 0; i < width; i++)
				y[(c + (size_t)i) * ldy + row] = acc[i];
			c += (size_t)width;
			panel += pal__panels_bytes((size_t)width, x->k);
		}
	}
}

void pal__matrix_row(const pal__matrix *w, size_t row, float *out)
{
	uint8_t bytes[PAL__MAX_BLOCK_BYTES];
	pal__block block;
	size_t n = (size_t)pal__type_find((uint32_t)w->type)->block;
	for (size_t i = 0; i < w->n_blocks; i++) {
		if (pal__type_is_float(w->type)) {
			out[i] = float_weight(w, row, i);
			continue;
		}
		pal__matrix_block(w, row, i, bytes);
		pal__block_decode(w->type, bytes, &block);
		for (size_t j = 0; j < n; j++) {
			size_t s = j / (size_t)block.sub;
			float v = (float)block.q[j] * block.scale[s];
			out[i * n + j] = block.has_min ? v + block.min[s] : v;
		}
	}
}

/* --- vectors ------------------------------------------------------------- */

static void rms_norm(const float *x, const float *w, size_t n, float eps, float *out)
{
	float lanes[16] = {0};
	for (size_t i = 0; i < n; i++)
		lanes[i % 16] = fma(x[i], x[i], lanes[i % 16]);
	float r = 1 / sqrtf(fold(lanes) / (float)n + eps);
	for (size_t i = 0; i < n; i++)
		out[i] = x[i] * r * w[i];
}

static void rope(float *x, const float *cos, const float *sin, size_t n_rot)
{
	assert(n_rot % 2 == 0);
	for (size_t i = 0; i < n_rot / 2; i++) {
		float a = x[i], b = x[i + n_rot / 2];
		x[i] = fma(a, cos[i], -(b * sin[i]));
		x[i + n_rot / 2] = fma(a, sin[i], b * cos[i]);
	}
}

static void swiglu(float *gate, const float *up, size_t n)
{
	for (size_t i = 0; i < n; i++)
		gate[i] = gate[i] / (1 + pal__exp(-gate[i])) * up[i];
}

/* gelu(x) = x / 2 (1 + tanh(u)) = x / (1 + exp(-2 u)), u = sqrt(2 / pi) (x + 0.044715 x^3) */
static void geglu(float *gate, const float *up, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		float x = gate[i];
		float u = x * fma(PAL__GELU_B, x * x, PAL__GELU_A);
		gate[i] = x / (1 + pal__exp(u)) * up[i];
	}
}

static void add(float *x, const float *y, size_t n)
{
	for (size_t i = 0; i < n; i++)
		x[i] += y[i];
}

static void scale(float *x, float by, size_t n)
{
	for (size_t i = 0; i < n; i++)
		x[i] *= by;
}

static float largest_of(const float *x, size_t n, float by)
{
	float most = -INFINITY;
	for (size_t i = 0; i < n && i < PAL__RUN; i++)
		most = x[i] * by > most ? x[i] * by : most;
	return most + 0.0f; /* which zero it is does not depend on an order */
}

static float peaks(const float *x, size_t n, float by, float *best, float *most)
{
	size_t runs = ((n + PAL__RUN - 1) / PAL__RUN + 15) / 16 * 16;
	float lanes[16] = {0};
	*most = -INFINITY;
	for (size_t r = 0; r < runs; r++) {
		size_t from = r * PAL__RUN < n ? r * PAL__RUN : n;
		best[r] = largest_of(x + from, n - from, by);
		*most = max2(best[r], *most);
	}
	if (!(*most > -INFINITY))
		return 0;
	for (size_t r = 0; r < runs; r++)
		lanes[r % 16] += pal__exp(best[r] - *most);
	return fold(lanes);
}

static void to_half(const float *x, size_t n, uint16_t *out)
{
	for (size_t i = 0; i < n; i++)
		out[i] = pal__float_half(x[i]);
}

/* What is rounded with: returns d, *by = 1 / d or 0. */
static float step_of(const float *x, size_t n, float top, float *by)
{
	float largest = 0;
	bool finite = true;
	for (size_t i = 0; i < n; i++) {
		float size = x[i] < 0 ? -x[i] : x[i];
		finite = finite && x[i] - x[i] == 0;
		largest = size > largest ? size : largest;
	}
	bool use = finite && largest >= 0x1p-100f;
	float d = !finite ? NAN : use ? largest / top : 0;
	*by = use ? 1 / d : 0;
	return d;
}

static float round_within(float x, float by, float top)
{
	float r = by > 0 ? round_even(x * by) : 0;
	return r > top ? top : r < -top ? -top : r;
}

static float to_int16(const float *x, size_t n, int16_t *out)
{
	float by, d = step_of(x, n, 32767, &by);
	for (size_t i = 0; i < n; i++)
		out[i] = (int16_t)round_within(x[i], by, 32767);
	return d;
}

static float to_int8(const float *x, size_t n, int8_t *out)
{
	float by, d = step_of(x, n, 127, &by);
	for (size_t i = 0; i < n; i++)
		out[i] = (int8_t)round_within(x[i], by, 127);
	return d;
}

/* --- attention ----------------------------------------------------------- */

typedef struct {
	float step;
	int16_t a[];
} row;

static float element(const void *p, pal__kv_kind kind, size_t i)
{
	return kind == PAL__KV_HALF ? pal__half_float(((const uint16_t *)p)[i])
				    : ((const float *)p)[i];
}

static float round_row(const float *x, size_t n, int16_t *a)
{
	float largest = 0;
	bool finite = true;
	for (size_t i = 0; i < n; i++) {
		finite = finite && x[i] - x[i] == 0;
		largest = max2(x[i] < 0 ? -x[i] : x[i], largest);
	}
	bool use = finite && largest >= 0x1p-100f;
	float by = use ? 32512 / largest : 0;
	for (size_t i = 0; i < n; i++)
		a[i] = use ? (int16_t)round_even(x[i] * by) : 0;
	return !finite ? NAN : use ? largest / 127 : 0;
}

static void attn_begin(const float *q, size_t head_dim, void *out)
{
	row *r = out;
	r->step = round_row(q, head_dim, r->a);
}

/* The dot of a row of n integers with a lane of two planes; plane 0: of one. */
static float dot_lane(const int16_t *a, size_t n, const uint8_t *planes, size_t plane, size_t lane)
{
	float sum = 0;
	for (size_t from = 0; from < n; from += 256) {
		int32_t h = 0, l = 0;
		for (size_t i = from; i < n && i < from + 256; i++) {
			size_t at = pal__attn_at(n, lane, i);
			h += a[i] * (int8_t)planes[at];
			l += plane ? a[i] * planes[plane + at] : 0;
		}
		float value = (float)(h + (l >> 8));
		sum = from ? sum + value : value;
	}
	return sum;
}

/* Where the low plane is, after the high one; 0: nowhere. */
static size_t low_plane(const pal__attn_kv *kv, size_t lanes, size_t n)
{
	return kv->kind == PAL__KV_INT16 ? pal__attn_plane(lanes, n) : 0;
}

static float score(const pal__attn_kv *kv, const pal__attn_query *q, size_t j)
{
	size_t hd = kv->head_dim;
	if (pal__kv_is_int(kv->kind)) {
		const row *r = q->row;
		size_t plane = low_plane(kv, PAL__ATTN_BLOCK, hd);
		return dot_lane(r->a, hd, kv->k, plane, j) * (r->step * kv->scale) * kv->k_scale[j];
	}
	float dot = 0;
	for (size_t d = 0; d < hd; d++)
		dot = fma(q->q[d], element(kv->k, kv->kind, d * PAL__ATTN_BLOCK + j), dot);
	return dot * kv->scale;
}

static void sum_v(const pal__attn_kv *kv, const pal__attn_query *q, const float p[PAL__ATTN_BLOCK],
		  float shrink)
{
	size_t stride = (kv->head_dim + 15) / 16 * 16;
	for (size_t d = 0; d < stride; d++) {
		float acc = q->acc[d] * shrink;
		for (int j = q->lo; j < q->hi; j++)
			acc = fma(p[j], element(kv->v, kv->kind, (size_t)j * stride + d), acc);
		q->acc[d] = acc;
	}
}

static void sum_v_int(const pal__attn_kv *kv, const pal__attn_query *q,
		      const float p[PAL__ATTN_BLOCK], float shrink)
{
	float w[PAL__ATTN_BLOCK] = {0};
	int16_t a[PAL__ATTN_BLOCK];
	for (int j = q->lo; j < q->hi; j++)
		w[j] = p[j] * kv->v_scale[j];
	float step = round_row(w, PAL__ATTN_BLOCK, a);
	size_t stride = (kv->head_dim + 15) / 16 * 16;
	size_t plane = low_plane(kv, stride, PAL__ATTN_BLOCK);
	for (size_t d = 0; d < stride; d++)
		q->acc[d] = fma(dot_lane(a, PAL__ATTN_BLOCK, kv->v, plane, d), step,
				q->acc[d] * shrink);
}

static float block_max(const float s[PAL__ATTN_BLOCK])
{
	float v[16];
	for (int i = 0; i < 16; i++)
		v[i] = max2(max2(s[i], s[i + 16]), max2(s[i + 32], s[i + 48]));
	for (int half = 8; half; half /= 2)
		for (int i = 0; i < half; i++)
			v[i] = max2(v[i], v[i + half]);
	return v[0];
}

static void attn_one(const pal__attn_kv *kv, pal__attn_query *q)
{
	float s[PAL__ATTN_BLOCK], lanes[16];
	assert(q->lo >= 0 && q->lo < q->hi && q->hi <= PAL__ATTN_BLOCK);
	for (int j = 0; j < PAL__ATTN_BLOCK; j++)
		s[j] = j >= q->lo && j < q->hi ? score(kv, q, (size_t)j) : -INFINITY;
	float max = max2(block_max(s), q->max), shrink = pal__exp(q->max - max);
	for (int j = 0; j < PAL__ATTN_BLOCK; j++)
		s[j] = j >= q->lo && j < q->hi ? pal__exp(s[j] - max) : 0;
	for (int i = 0; i < 16; i++)
		lanes[i] = ((s[i] + s[i + 16]) + s[i + 32]) + s[i + 48];
	q->sum = fma(q->sum, shrink, fold(lanes));
	q->max = max;
	(pal__kv_is_int(kv->kind) ? sum_v_int : sum_v)(kv, q, s, shrink);
}

static void attn(const pal__attn_kv *kv, pal__attn_query *q, int n)
{
	assert(n >= 1 && n <= PAL__ATTN_MAX_QUERIES);
	size_t bytes = pal__attn_row(kv->head_dim);
	for (int i = 1; i < n && pal__kv_is_int(kv->kind); i++)
		assert((const char *)q[i].row == (const char *)q[0].row + (size_t)i * bytes);
	for (int i = 0; i < n; i++)
		attn_one(kv, &q[i]);
}

static void attn_end(const float *acc, float sum, size_t n, float *out)
{
	float r = 1 / sum;
	for (size_t i = 0; i < n; i++)
		out[i] = acc[i] * r;
}

const pal__kernels pal__kernels_scalar = {
	.name = "scalar",
	.quantize = quantize,
	.panel = PAL__MAX_PANEL,
	.matmul = matmul,
	.rms_norm = rms_norm,
	.rope = rope,
	.swiglu = swiglu,
	.geglu = geglu,
	.add = add,
	.scale = scale,
	.attn_begin = attn_begin,
	.attn = attn,
	.attn_end = attn_end,
	.peaks = peaks,
	.to_half = to_half,
	.to_int16 = to_int16,
	.to_int8 = to_int8,
};
