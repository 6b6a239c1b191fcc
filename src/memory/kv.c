#include "memory/kv.h"

#include <assert.h>
#include <string.h>

#include "base/checked.h"

static bool layout(pal__kv *kv, const pal__kv_shape *s, size_t *bytes)
{
	size_t element = s->kind == PAL__KV_FLOAT ? 4 : 2,
	       stride = (s->head_dim + 15) & ~(size_t)15, layer, total;
	assert(s->head_dim <= PAL__KV_MAX_DIM);
	*kv = (pal__kv){.shape = *s};
	kv->n_blocks = ((size_t)s->n_ctx + PAL__ATTN_BLOCK - 1) / PAL__ATTN_BLOCK;
	kv->k_bytes = pal__arena_need(s->head_dim * PAL__ATTN_BLOCK * element);
	kv->v_bytes = stride * PAL__ATTN_BLOCK * element;
	if (s->kind == PAL__KV_INT16) {
		kv->k_bytes = 2 * pal__attn_plane(PAL__ATTN_BLOCK, s->head_dim);
		kv->v_bytes = 2 * pal__attn_plane(stride, PAL__ATTN_BLOCK);
	}
	kv->head_bytes = kv->k_bytes + kv->v_bytes;
	if (s->kind == PAL__KV_INT16)
		kv->head_bytes += 2 * PAL__ATTN_BLOCK * sizeof(float);
	if (!pal__mul_size(kv->n_blocks, s->n_kv_heads * kv->head_bytes, &layer) ||
	    !pal__mul_size(layer, s->n_layers, &total) || total > SIZE_MAX / 4)
		return false;
	*bytes = total;
	return true;
}

bool pal__kv_need(const pal__kv_shape *shape, size_t *bytes)
{
	pal__kv kv;
	return layout(&kv, shape, bytes);
}

void pal__kv_init(pal__kv *kv, const pal__kv_shape *shape, pal__arena *arena)
{
	size_t bytes = 0;
	bool fits = layout(kv, shape, &bytes);
	assert(fits);
	(void)fits;
	kv->data = pal__arena_take(arena, bytes);
	assert(kv->data);
}

static uint8_t *head_block(const pal__kv *kv, size_t layer, size_t head, int64_t block)
{
	assert(layer < kv->shape.n_layers && head < kv->shape.n_kv_heads);
	assert(block >= 0 && (size_t)block < kv->n_blocks);
	size_t at = ((size_t)block * kv->shape.n_layers + layer) * kv->shape.n_kv_heads + head;
	return kv->data + at * kv->head_bytes;
}

/* One head's block as what its bytes are. */
typedef struct {
	void *k, *v;
	float *k_scale, *v_scale;
} parts;

static parts parts_of(const pal__kv *kv, size_t layer, size_t head, int64_t block)
{
	uint8_t *p = head_block(kv, layer, head, block);
	parts b = {.k = p, .v = p + kv->k_bytes};
	if (kv->shape.kind == PAL__KV_INT16) {
		b.k_scale = (float *)(void *)(p + kv->k_bytes + kv->v_bytes);
		b.v_scale = b.k_scale + PAL__ATTN_BLOCK;
	}
	return b;
}

/* Rounds x [n] to int16 and splits them in bytes; returns the scale. */
static float split(const pal__kernels *kernels, const float *x, size_t n, uint8_t *high,
		   uint8_t *low)
{
	int16_t rounded[PAL__KV_MAX_DIM];
	float scale = kernels->to_int16(x, n, rounded);
	for (size_t i = 0; i < n; i++) {
		high[i] = (uint8_t)((uint16_t)rounded[i] >> 8);
		low[i] = (uint8_t)rounded[i];
	}
	return scale;
}

/* Into the planes byte by byte: four positions share a word of V, and other threads may be
 * storing the others. */
static void store_int16(const pal__kv *kv, const pal__kernels *kernels, const parts *b,
			size_t place, const float *k, const float *v)
{
	size_t hd = kv->shape.head_dim, whole = hd & ~(size_t)3;
	uint8_t high[PAL__KV_MAX_DIM], low[PAL__KV_MAX_DIM];
	uint8_t *to = (uint8_t *)b->k + pal__attn_at(hd, place, 0), *to_low = to + kv->k_bytes / 2;
	b->k_scale[place] = split(kernels, k, hd, high, low);
	for (size_t d = 0; d < whole; d += 4) {
		memcpy(to + d * 16, high + d, 4);
		memcpy(to_low + d * 16, low + d, 4);
	}
	memcpy(to + whole * 16, high + whole, hd - whole);
	memcpy(to_low + whole * 16, low + whole, hd - whole);
	to = b->v, to_low = to + kv->v_bytes / 2;
	b->v_scale[place] = split(kernels, v, hd, high, low);
	for (size_t d = 0; d < hd; d++) {
		size_t at = pal__attn_at(PAL__ATTN_BLOCK, d, place);
		to[at] = high[d];
		to_low[at] = low[d];
	}
}

void pal__kv_store(pal__kv *kv, const pal__kernels *kernels, size_t layer, size_t head, int64_t pos,
		   const float *k, const float *v)
{
	size_t hd = kv->shape.head_dim, stride = (hd + 15) & ~(size_t)15;
	size_t place = (size_t)(pos % PAL__ATTN_BLOCK);
	size_t v_at = place * stride;
	parts b = parts_of(kv, layer, head, pos / PAL__ATTN_BLOCK);
	if (kv->shape.kind == PAL__KV_INT16) {
		store_int16(kv, kernels, &b, place, k, v);
	} else if (kv->shape.kind == PAL__KV_FLOAT) {
		for (size_t d = 0; d < hd; d++)
			((float *)b.k)[d * PAL__ATTN_BLOCK + place] = k[d];
		memcpy((float *)b.v + v_at, v, hd * sizeof *v);
	} else {
		uint16_t halves[PAL__KV_MAX_DIM];
		kernels->to_half(k, hd, halves);
		for (size_t d = 0; d < hd; d++)
			((uint16_t *)b.k)[d * PAL__ATTN_BLOCK + place] = halves[d];
		kernels->to_half(v, hd, (uint16_t *)b.v + v_at);
	}
}

static int64_t oldest(int64_t pos, int64_t window)
{
	return window && pos >= window ? pos - window + 1 : 0;
}

void pal__kv_blocks(const pal__kv *kv, int64_t pos, int64_t window, int64_t *first, int64_t *end)
{
	assert(pos >= 0 && pos < kv->shape.n_ctx);
	(void)kv;
	*first = oldest(pos, window) / PAL__ATTN_BLOCK;
	*end = pos / PAL__ATTN_BLOCK + 1;
}

void pal__kv_range(const pal__kv *kv, int64_t pos, int64_t window, int64_t block, int *lo, int *hi)
{
	int64_t start = block * PAL__ATTN_BLOCK, first = oldest(pos, window), end = pos + 1;
	(void)kv;
	*lo = first > start ? (int)(first - start) : 0;
	*hi = end - start < PAL__ATTN_BLOCK ? (int)(end - start) : PAL__ATTN_BLOCK;
}

pal__attn_kv pal__kv_block(const pal__kv *kv, size_t layer, size_t head, int64_t block)
{
	parts b = parts_of(kv, layer, head, block);
	return (pal__attn_kv){.k = b.k,
			      .v = b.v,
			      .k_scale = b.k_scale,
			      .v_scale = b.v_scale,
			      .kind = kv->shape.kind,
			      .head_dim = kv->shape.head_dim};
}
