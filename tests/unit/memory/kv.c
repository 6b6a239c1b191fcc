#include "memory/kv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/half.h"

static const pal_kv_type types[] = {PAL_KV_F32, PAL_KV_F16, PAL_KV_I16, PAL_KV_INT8,
				    PAL_KV_AFFINE4};
#define N_TYPES (sizeof types / sizeof types[0])

static pal__kv_shape shape_of(pal_kv_type type, pal__kv_shape shape)
{
	assert_true(pal__kv_of_type(type, &shape));
	return shape;
}

static void open_kv(pal__kv *kv, pal__arena *arena, const pal__kv_shape *shape)
{
	size_t bytes;
	assert_true(pal__kv_need(shape, &bytes));
	assert_int_equal(pal__arena_init(arena, bytes, "K/V", NULL), PAL_OK);
	pal__kv_init(kv, shape, arena);
	assert_int_equal(arena->used, bytes);
}

/* --- what a query sees ----------------------------------------------------------- */

/* What position pos may see in a layer, by the definition. */
static bool visible(const pal__kv_shape *s, size_t layer, int64_t pos, int64_t at)
{
	if (pal__kv_slides(s, layer))
		return at > pos - s->slide;
	return !s->window || pos < s->sink + s->window || at > pos - s->window;
}

/* What a query at a position sees is there as it was stored last, where the K/V say so: from `from`
 * on they must. */
static void still_there(const pal__kv *kv, const float *last, int64_t from, int64_t end)
{
	for (int64_t pos = 0; pos < end; pos += pos < from ? 5 : 1) {
		bool has = pal__kv_has(kv, pos, end);
		assert_true(has || pos < from);
		for (size_t layer = 0; has && layer < 3; layer++)
			for (int64_t at = pal__kv_sees(kv, layer, pos).first; at <= pos; at++) {
				float k[2], v[2];
				pal__kv_load(kv, layer, 0, at, k, v);
				assert_true(k[0] == last[at] && v[1] == last[at]);
			}
	}
}

/* Log of 700 positions in pieces of any size, some read again: whatever a query sees is in the
 * ring as it was stored last, and far rows are seen when something is evicted. */
static void sights(void **state)
{
	static const int64_t shapes[][5] = {
		/* slide, sink, window, reread, piece */
		{0, 4, 60, 0, 1},   {0, 4, 60, 32, 1},  {0, 1, 1, 0, 1},  {0, 0, 64, 64, 2},
		{0, 80, 100, 7, 1}, {65, 3, 61, 33, 1}, {20, 0, 0, 5, 3}, {1, 4, 200, 32, 4}};
	const pal__kernels *kernels;
	(void)state;
	assert_int_equal(pal__kernels_choose("scalar", &kernels, NULL), 0);
	for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
		const pal__kv_shape shape = {.n_layers = 3,
					     .n_kv_heads = 1,
					     .head_dim = 2,
					     .n_ctx = 700,
					     .kind = PAL__KV_FLOAT,
					     .slide = shapes[i][0],
					     .slide_every = 3,
					     .sink = shapes[i][1],
					     .window = shapes[i][2],
					     .reread = shapes[i][3],
					     .piece = (size_t)shapes[i][4]};
		pal__kv kv;
		pal__arena arena;
		float stamp = 0, last[700];
		open_kv(&kv, &arena, &shape);
		for (int64_t end = 0, step = 1; end < 700; step = step * 7 % 211) {
			size_t n = pal__kv_piece(&kv, end, (size_t)step);
			if (end + (int64_t)n > 700)
				n = (size_t)(700 - end);
			assert_true(n >= 1);
			int64_t from = end > shape.reread ? end - shape.reread : 0;
			for (int64_t at = from; at < end + (int64_t)n; at++) {
				last[at] = ++stamp;
				for (size_t layer = 0; layer < 3; layer++)
					pal__kv_store(&kv, kernels, layer, 0, at,
						      (float[]){stamp, 0}, (float[]){0, stamp});
			}
			for (int64_t pos = from; pos < end + (int64_t)n; pos++)
				for (size_t layer = 0; layer < 3; layer++) {
					pal__kv_sight sight = pal__kv_sees(&kv, layer, pos);
					assert_int_equal(sight.far,
							 pal__kv_bounded(&shape, layer) &&
								 pos >= shape.sink + shape.window);
					for (int64_t at = 0; at <= pos; at++)
						assert_int_equal(at >= sight.first,
								 visible(&shape, layer, pos, at));
				}
			end += (int64_t)n;
			still_there(&kv, last, from, end);
		}
		assert_false(pal__kv_has(&kv, 0, 700));
		pal__arena_free(&arena);
	}
}

static void needs(void **state)
{
	size_t one, two, bytes;
	(void)state;
	for (size_t t = 0; t < N_TYPES; t++) {
		/* Of a position: K and V, two scales for integers; two groups of 4 bits each. */
		static const size_t of_position[] = {[PAL_KV_F32] = 2 * 48 * 4,
						     [PAL_KV_F16] = 2 * 48 * 2,
						     [PAL_KV_I16] = 2 * 48 * 2 + 8,
						     [PAL_KV_INT8] = 2 * 48 + 8,
						     [PAL_KV_AFFINE4] = 2 * (4 + 16 + 4 + 8)};
		pal__kv_shape shape = shape_of(types[t], (pal__kv_shape){.n_layers = 3,
									 .n_kv_heads = 2,
									 .head_dim = 48,
									 .n_ctx = 64});
		assert_true(pal__kv_need(&shape, &one));
		assert_int_equal(one, 3 * 2 * 64 * of_position[types[t]]);
		shape.n_ctx = 65; /* another block */
		assert_true(pal__kv_need(&shape, &two));
		assert_int_equal(two, 2 * one);
		shape.n_ctx = 1;
		assert_true(pal__kv_need(&shape, &two));
		assert_int_equal(two, one);
	}
	const pal__kv_shape most = {.n_layers = SIZE_MAX / 1000,
				    .n_kv_heads = 1024,
				    .head_dim = 1024,
				    .n_ctx = PAL_MAX_CONTEXT,
				    .kind = PAL__KV_FLOAT};
	assert_false(pal__kv_need(&most, &bytes));
	pal__kv_shape none = {0};
	assert_false(pal__kv_of_type((pal_kv_type)5, &none));
	assert_false(pal__kv_of_type((pal_kv_type)-1, &none));
}

/* --- what is stored ---------------------------------------------------------------- */

static float value(size_t layer, size_t head, int64_t pos, size_t d, int which)
{
	uint32_t u = (uint32_t)(layer * 7 + head * 131 + (size_t)pos * 1031 + d * 65537) +
		     (uint32_t)which * 77777;
	u = u * 2654435761u;
	return ((float)(int32_t)u) * 0x1p-30f;
}

static float element(pal__kv_kind kind, const void *data, size_t at)
{
	return kind == PAL__KV_FLOAT ? ((const float *)data)[at]
				     : pal__half_float(((const uint16_t *)data)[at]);
}

/* The int16 of lane `lane`, number i of n, in the planes at `data`; low: its low byte's too. */
static float of_planes(const void *data, bool low, size_t lanes, size_t n, size_t lane, size_t i)
{
	const uint8_t *p = (const uint8_t *)data + pal__attn_at(n, lane, i);
	return (float)((int8_t)*p * 256 + (low ? p[pal__attn_plane(lanes, n)] : 0));
}

/* Dimension d of K (of V: which = 1) at `place`. */
static float stored(const pal__attn_kv *b, int which, size_t place, size_t d)
{
	size_t hd = b->head_dim, stride = (hd + 15) & ~(size_t)15;
	bool low = b->kind == PAL__KV_INT16;
	if (pal__kv_is_int(b->kind))
		return which ? of_planes(b->v, low, hd, PAL__ATTN_BLOCK, d, place) *
				       b->v_scale[place]
			     : of_planes(b->k, low, PAL__ATTN_BLOCK, hd, place, d) *
				       b->k_scale[place];
	return which ? element(b->kind, b->v, place * stride + d)
		     : element(b->kind, b->k, d * PAL__ATTN_BLOCK + place);
}

/* What storing x may change: nothing, to a half, or half a step of the largest / 32767 or / 127
 * (and some: the product with 1 / d is rounded too), or half of the range / 15. */
static void close_enough(const pal__kv *kv, float got, float x, float largest)
{
	float error = __builtin_fabsf(got - x), most = 0.51f * largest / 32767;
	if (kv->shape.packed)
		most = 0.505f * 2 * largest / 15 + largest * 0x1p-9f;
	else if (kv->shape.kind == PAL__KV_INT8)
		most = 0.501f * largest / 127;
	else if (kv->shape.kind == PAL__KV_HALF)
		most = __builtin_fabsf(pal__half_float(pal__float_half(x)) - x);
	else if (kv->shape.kind == PAL__KV_FLOAT)
		most = 0;
	if (!(error <= most))
		fail_msg("%a became %a", (double)x, (double)got);
}

static uint8_t space[1 << 16] __attribute__((aligned(PAL__ALIGN))); /* for packed blocks */

/* Sinks are far rows from the start; restored rows follow them, K and V each on their own. */
static void far_rows(void **state)
{
	const pal__kernels *kernels;
	(void)state;
	assert_int_equal(pal__kernels_choose(NULL, &kernels, NULL), 0);
	for (size_t t = 0; t < N_TYPES; t++) {
		const pal__kv_shape shape = shape_of(types[t], (pal__kv_shape){.n_layers = 2,
									       .n_kv_heads = 2,
									       .head_dim = 2,
									       .n_ctx = 1000,
									       .sink = 3,
									       .window = 60,
									       .piece = 1,
									       .slots = 96});
		pal__kv kv;
		pal__arena arena;
		open_kv(&kv, &arena, &shape);
		assert_int_equal(kv.far_rows, 3);
		assert_int_equal(kv.far.n_blocks, 2);
		for (int64_t pos = 0; pos < 5; pos++)
			pal__kv_store(&kv, kernels, 1, 1, pos, (float[]){(float)pos + 1, 0},
				      (float[]){0, (float)pos + 1});
		for (size_t row = 3; row < 99; row++) {
			pal__kv_store_far(&kv, kernels, 1, 1, row, (float[]){(float)row + 1, 0},
					  NULL);
			pal__kv_store_far(&kv, kernels, 1, 1, 101 - row, NULL,
					  (float[]){0, 102 - (float)row});
		}
		for (size_t row = 0; row < 99; row++) {
			pal__attn_kv b = pal__kv_far_block(&kv, kernels, 1, 1, row / 64, space);
			close_enough(&kv, stored(&b, 0, row % 64, 0), (float)row + 1,
				     (float)row + 1);
			close_enough(&kv, stored(&b, 1, row % 64, 1), (float)row + 1,
				     (float)row + 1);
		}
		kv.far_rows = 99;
		assert_int_equal(pal__kv_far_pos(&kv), 99 + 60 - 1);
		pal__arena_free(&arena);
	}
}

static void check_head(const pal__kv *kv, const pal__kernels *kernels, size_t layer, size_t head,
		       int64_t pos)
{
	size_t hd = kv->shape.head_dim, stride = (hd + 15) & ~(size_t)15;
	size_t place = (size_t)pos % PAL__ATTN_BLOCK;
	int64_t block = pos / PAL__ATTN_BLOCK;
	pal__attn_kv b = pal__kv_block(kv, kernels, layer, head, block, space);
	float k_max = 0, v_max = 0, k[128], v[128];
	assert_true(pal__kv_space(hd) <= sizeof space);
	assert_true(pal__kv_next(kv, layer, head, block) == (kv->shape.packed ? NULL : b.k));
	assert_true(b.kind == kv->shape.kind && b.head_dim == hd);
	for (size_t d = 0; d < hd; d++) {
		k_max = __builtin_fmaxf(k_max, __builtin_fabsf(value(layer, head, pos, d, 0)));
		v_max = __builtin_fmaxf(v_max, __builtin_fabsf(value(layer, head, pos, d, 1)));
	}
	for (size_t d = 0; d < hd; d++) {
		close_enough(kv, stored(&b, 0, place, d), value(layer, head, pos, d, 0), k_max);
		close_enough(kv, stored(&b, 1, place, d), value(layer, head, pos, d, 1), v_max);
	}
	pal__kv_load(kv, layer, head, pos, k, v);
	for (size_t d = 0; d < hd; d++) { /* packed ones without rounding again */
		float most = kv->shape.packed ? 0x1p-15f : 0;
		assert_true(__builtin_fabsf(k[d] - stored(&b, 0, place, d)) <= most * k_max);
		assert_true(__builtin_fabsf(v[d] - stored(&b, 1, place, d)) <= most * v_max);
	}
	for (size_t d = hd; d < stride; d++) /* padding is zero */
		assert_true(stored(&b, 1, place, d) == 0);
}

static void store_head(pal__kv *kv, const pal__kernels *kernels, size_t layer, size_t head,
		       int64_t pos)
{
	float k[128], v[128];
	for (size_t d = 0; d < kv->shape.head_dim; d++) {
		k[d] = value(layer, head, pos, d, 0);
		v[d] = value(layer, head, pos, d, 1);
	}
	pal__kv_store(kv, kernels, layer, head, pos, k, v);
}

/* Every position of every head, in a scattered order, on both sides of block edges; then each
 * is still what it was stored as. */
static void stores(void **state)
{
	static const size_t dims[] = {2, 16, 18, 40, 80, 128};
	static const char *const isas[] = {"scalar", NULL};
	(void)state;
	for (size_t t = 0; t < N_TYPES; t++)
		for (size_t i = 0; i < sizeof dims / sizeof dims[0]; i++)
			for (int isa = 0; isa < 2; isa++) {
				const pal__kv_shape shape =
					shape_of(types[t], (pal__kv_shape){.n_layers = 2,
									   .n_kv_heads = 3,
									   .head_dim = dims[i],
									   .n_ctx = 131});
				const pal__kernels *kernels;
				pal__kv kv;
				pal__arena arena;
				assert_int_equal(pal__kernels_choose(isas[isa], &kernels, NULL), 0);
				open_kv(&kv, &arena, &shape);
				memset(space, 0, sizeof space);
				for (size_t n = 0; n < 2 * 3 * 131; n++) {
					size_t at =
						n * 77 % (2 * 3 * 131); /* 77: no common factor */
					store_head(&kv, kernels, at % 2, at / 2 % 3,
						   (int64_t)(at / 6));
				}
				for (size_t at = 0; at < 2 * 3 * 131; at++)
					check_head(&kv, kernels, at % 2, at / 2 % 3,
						   (int64_t)(at / 6));
				pal__arena_free(&arena);
			}
}

/* What a later token at the same position stores replaces all of what was there. */
static void again(void **state)
{
	(void)state;
	for (size_t t = 0; t < N_TYPES; t++) {
		const pal__kv_shape shape = shape_of(types[t], (pal__kv_shape){.n_layers = 1,
									       .n_kv_heads = 1,
									       .head_dim = 24,
									       .n_ctx = 100});
		const pal__kernels *kernels;
		pal__kv kv, fresh;
		pal__arena arena, other;
		float large[24];
		for (int d = 0; d < 24; d++)
			large[d] = 1000.0f + (float)d;
		assert_int_equal(pal__kernels_choose(NULL, &kernels, NULL), 0);
		open_kv(&kv, &arena, &shape);
		open_kv(&fresh, &other, &shape);
		for (int64_t pos = 60; pos < 70; pos++) {
			pal__kv_store(&kv, kernels, 0, 0, pos, large, large);
			store_head(&kv, kernels, 0, 0, pos);
			store_head(&fresh, kernels, 0, 0, pos);
		}
		assert_memory_equal(arena.base, other.base, arena.size);
		pal__arena_free(&arena);
		pal__arena_free(&other);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sights), cmocka_unit_test(far_rows), cmocka_unit_test(needs),
		cmocka_unit_test(stores), cmocka_unit_test(again),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
