#include "memory/kv.h"

#include <assert.h>
#include <string.h>

#include "base/checked.h"
#include "kernels/half.h"

static size_t blocks(size_t rows)
{
	return (rows + PAL__ATTN_BLOCK - 1) / PAL__ATTN_BLOCK;
}

/* Blocks of a ring whose queries look back `sight` positions, their own included. */
static size_t ring_blocks(const pal__kv_shape *s, int64_t sight)
{
	size_t all = blocks((size_t)s->n_ctx),
	       ring = s->piece + blocks((size_t)(sight + s->reread - 1));
	return sight && ring < all ? ring : all;
}

static void block_bytes(pal__kv *kv)
{
	const pal__kv_shape *s = &kv->shape;
	size_t element = s->kind == PAL__KV_FLOAT ? 4 : 2,
	       stride = (s->head_dim + 15) & ~(size_t)15;
	kv->k_bytes = pal__arena_need(s->head_dim * PAL__ATTN_BLOCK * element);
	kv->v_bytes = stride * PAL__ATTN_BLOCK * element;
	if (s->kind == PAL__KV_INT16) {
		kv->k_bytes = 2 * pal__attn_plane(PAL__ATTN_BLOCK, s->head_dim);
		kv->v_bytes = 2 * pal__attn_plane(stride, PAL__ATTN_BLOCK);
	}
	kv->head_bytes = kv->k_bytes + kv->v_bytes;
	if (s->kind == PAL__KV_INT16)
		kv->head_bytes += 2 * PAL__ATTN_BLOCK * sizeof(float);
}

static bool layout(pal__kv *kv, const pal__kv_shape *s)
{
	size_t layer;
	assert(s->head_dim <= PAL__KV_MAX_DIM);
	*kv = (pal__kv){.shape = *s};
	block_bytes(kv);
	kv->main.n_layers = s->slide ? s->n_layers / s->slide_every : s->n_layers;
	kv->far.n_layers = kv->main.n_layers;
	kv->sliding.n_layers = s->n_layers - kv->main.n_layers;
	kv->main.n_blocks = ring_blocks(s, s->window ? s->sink + s->window : 0);
	kv->sliding.n_blocks = kv->sliding.n_layers ? ring_blocks(s, s->slide) : 0;
	kv->far.n_blocks = s->window ? blocks((size_t)s->sink + s->slots) : 0;
	pal__kv_ring *rings[] = {&kv->main, &kv->sliding, &kv->far};
	for (int i = 0; i < 3; i++) {
		size_t bytes;
		if (!pal__mul_size(rings[i]->n_blocks, s->n_kv_heads * kv->head_bytes, &layer) ||
		    !pal__mul_size(layer, rings[i]->n_layers, &bytes) ||
		    !pal__add_size(kv->bytes, bytes, &kv->bytes) || kv->bytes > SIZE_MAX / 4)
			return false;
	}
	return true;
}

bool pal__kv_need(const pal__kv_shape *shape, size_t *bytes)
{
	pal__kv kv;
	if (!layout(&kv, shape))
		return false;
	*bytes = kv.bytes;
	return true;
}

static size_t ring_bytes(const pal__kv *kv, const pal__kv_ring *ring)
{
	return ring->n_blocks * ring->n_layers * kv->shape.n_kv_heads * kv->head_bytes;
}

void pal__kv_init(pal__kv *kv, const pal__kv_shape *shape, pal__arena *arena)
{
	bool fits = layout(kv, shape);
	assert(fits);
	(void)fits;
	kv->data = pal__arena_take(arena, kv->bytes);
	assert(kv->data);
	kv->main.data = kv->data;
	kv->sliding.data = kv->main.data + ring_bytes(kv, &kv->main);
	kv->far.data = kv->sliding.data + ring_bytes(kv, &kv->sliding);
	kv->far_rows = (size_t)shape->sink;
}

size_t pal__kv_piece(const pal__kv *kv, int64_t pos, size_t n)
{
	const pal__kv_shape *s = &kv->shape;
	size_t most = s->piece * PAL__ATTN_BLOCK - (size_t)(pos % PAL__ATTN_BLOCK);
	return (s->window || s->slide) && n > most ? most : n;
}

static uint8_t *head_at(const pal__kv *kv, const pal__kv_ring *ring, size_t layer, size_t head,
			size_t block)
{
	const pal__kv_shape *s = &kv->shape;
	assert(layer < s->n_layers && head < s->n_kv_heads && block < ring->n_blocks);
	size_t above = s->slide ? layer / s->slide_every : layer;
	layer = ring == &kv->sliding ? layer - above : above;
	return ring->data +
	       ((block * ring->n_layers + layer) * s->n_kv_heads + head) * kv->head_bytes;
}

static uint8_t *head_block(const pal__kv *kv, size_t layer, size_t head, int64_t block)
{
	const pal__kv_ring *ring = pal__kv_slides(&kv->shape, layer) ? &kv->sliding : &kv->main;
	return head_at(kv, ring, layer, head, (size_t)block % ring->n_blocks);
}

/* One head's block as what its bytes are. */
typedef struct {
	void *k, *v;
	float *k_scale, *v_scale;
} parts;

static parts parts_of(const pal__kv *kv, uint8_t *p)
{
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
static void store_k16(const pal__kv *kv, const pal__kernels *kernels, const parts *b, size_t place,
		      const float *k)
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
}

static void store_v16(const pal__kv *kv, const pal__kernels *kernels, const parts *b, size_t place,
		      const float *v)
{
	size_t hd = kv->shape.head_dim;
	uint8_t high[PAL__KV_MAX_DIM], low[PAL__KV_MAX_DIM];
	uint8_t *to = b->v, *to_low = to + kv->v_bytes / 2;
	b->v_scale[place] = split(kernels, v, hd, high, low);
	for (size_t d = 0; d < hd; d++) {
		size_t at = pal__attn_at(PAL__ATTN_BLOCK, d, place);
		to[at] = high[d];
		to_low[at] = low[d];
	}
}

static void store_k(const pal__kv *kv, const pal__kernels *kernels, const parts *b, size_t place,
		    const float *k)
{
	uint16_t halves[PAL__KV_MAX_DIM];
	size_t hd = kv->shape.head_dim;
	if (kv->shape.kind == PAL__KV_INT16) {
		store_k16(kv, kernels, b, place, k);
	} else if (kv->shape.kind == PAL__KV_FLOAT) {
		for (size_t d = 0; d < hd; d++)
			((float *)b->k)[d * PAL__ATTN_BLOCK + place] = k[d];
	} else {
		kernels->to_half(k, hd, halves);
		for (size_t d = 0; d < hd; d++)
			((uint16_t *)b->k)[d * PAL__ATTN_BLOCK + place] = halves[d];
	}
}

static void store_v(const pal__kv *kv, const pal__kernels *kernels, const parts *b, size_t place,
		    const float *v)
{
	size_t hd = kv->shape.head_dim, at = place * ((hd + 15) & ~(size_t)15);
	if (kv->shape.kind == PAL__KV_INT16)
		store_v16(kv, kernels, b, place, v);
	else if (kv->shape.kind == PAL__KV_FLOAT)
		memcpy((float *)b->v + at, v, hd * sizeof *v);
	else
		kernels->to_half(v, hd, (uint16_t *)b->v + at);
}

void pal__kv_store(pal__kv *kv, const pal__kernels *kernels, size_t layer, size_t head, int64_t pos,
		   const float *k, const float *v)
{
	size_t place = (size_t)(pos % PAL__ATTN_BLOCK);
	parts b = parts_of(kv, head_block(kv, layer, head, pos / PAL__ATTN_BLOCK));
	store_k(kv, kernels, &b, place, k);
	store_v(kv, kernels, &b, place, v);
	if (pos < kv->shape.sink && pal__kv_bounded(&kv->shape, layer))
		pal__kv_store_far(kv, kernels, layer, head, (size_t)pos, k, v);
}

void pal__kv_store_far(pal__kv *kv, const pal__kernels *kernels, size_t layer, size_t head,
		       size_t row, const float *k, const float *v)
{
	assert(pal__kv_bounded(&kv->shape, layer));
	size_t place = row % PAL__ATTN_BLOCK;
	parts b = parts_of(kv, head_at(kv, &kv->far, layer, head, row / PAL__ATTN_BLOCK));
	if (k)
		store_k(kv, kernels, &b, place, k);
	if (v)
		store_v(kv, kernels, &b, place, v);
}

static float number16(const void *plane, size_t bytes, size_t at)
{
	const uint8_t *high = plane;
	return (float)(int16_t)(high[at] << 8 | high[bytes / 2 + at]);
}

void pal__kv_load(const pal__kv *kv, size_t layer, size_t head, int64_t pos, float *k, float *v)
{
	size_t hd = kv->shape.head_dim, place = (size_t)(pos % PAL__ATTN_BLOCK),
	       v_at = place * ((hd + 15) & ~(size_t)15);
	parts b = parts_of(kv, head_block(kv, layer, head, pos / PAL__ATTN_BLOCK));
	for (size_t d = 0; d < hd; d++) {
		if (kv->shape.kind == PAL__KV_INT16) {
			k[d] = b.k_scale[place] *
			       number16(b.k, kv->k_bytes, pal__attn_at(hd, place, d));
			v[d] = b.v_scale[place] *
			       number16(b.v, kv->v_bytes, pal__attn_at(PAL__ATTN_BLOCK, d, place));
		} else if (kv->shape.kind == PAL__KV_FLOAT) {
			k[d] = ((float *)b.k)[d * PAL__ATTN_BLOCK + place];
			v[d] = ((float *)b.v)[v_at + d];
		} else {
			k[d] = pal__half_float(((uint16_t *)b.k)[d * PAL__ATTN_BLOCK + place]);
			v[d] = pal__half_float(((uint16_t *)b.v)[v_at + d]);
		}
	}
}

pal__kv_sight pal__kv_sees(const pal__kv *kv, size_t layer, int64_t pos)
{
	const pal__kv_shape *s = &kv->shape;
	if (pal__kv_slides(s, layer))
		return (pal__kv_sight){.first = pos >= s->slide ? pos - s->slide + 1 : 0};
	if (!s->window || pos < s->sink + s->window)
		return (pal__kv_sight){0};
	return (pal__kv_sight){.first = pos - s->window + 1, .far = true};
}

static pal__attn_kv as_block(const pal__kv *kv, uint8_t *head)
{
	parts b = parts_of(kv, head);
	return (pal__attn_kv){.k = b.k,
			      .v = b.v,
			      .k_scale = b.k_scale,
			      .v_scale = b.v_scale,
			      .kind = kv->shape.kind,
			      .head_dim = kv->shape.head_dim};
}

pal__attn_kv pal__kv_block(const pal__kv *kv, size_t layer, size_t head, int64_t block)
{
	return as_block(kv, head_block(kv, layer, head, block));
}

pal__attn_kv pal__kv_far_block(const pal__kv *kv, size_t layer, size_t head, size_t block)
{
	return as_block(kv, head_at(kv, &kv->far, layer, head, block));
}
