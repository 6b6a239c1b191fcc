#include "memory/kv.h"

#include <assert.h>
#include <string.h>

#include "base/checked.h"
#include "kernels/half.h"
#include "memory/pack.h"

bool pal__kv_of_type(pal_kv_type type, pal__kv_shape *shape)
{
	static const pal__kv_kind kinds[] = {[PAL_KV_I16] = PAL__KV_INT16,
					     [PAL_KV_F16] = PAL__KV_HALF,
					     [PAL_KV_F32] = PAL__KV_FLOAT,
					     [PAL_KV_INT8] = PAL__KV_INT8,
					     [PAL_KV_AFFINE4] = PAL__KV_INT16};
	if ((size_t)type >= sizeof kinds / sizeof kinds[0])
		return false;
	shape->kind = kinds[type];
	shape->packed = type == PAL_KV_AFFINE4;
	return true;
}

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
	if (pal__kv_is_int(s->kind)) {
		size_t planes = s->kind == PAL__KV_INT16 ? 2 : 1;
		kv->k_bytes = planes * pal__attn_plane(PAL__ATTN_BLOCK, s->head_dim);
		kv->v_bytes = planes * pal__attn_plane(stride, PAL__ATTN_BLOCK);
	}
	kv->head_bytes = kv->k_bytes + kv->v_bytes;
	if (pal__kv_is_int(s->kind))
		kv->head_bytes += 2 * PAL__ATTN_BLOCK * sizeof(float);
	kv->row_bytes = pal__pack_bytes(PAL__PACK_AFFINE4, s->head_dim);
	if (s->packed)
		kv->head_bytes = 2 * PAL__ATTN_BLOCK * kv->row_bytes;
}

size_t pal__kv_space(size_t head_dim)
{
	pal__kv kv = {.shape = {.head_dim = head_dim, .kind = PAL__KV_INT16}};
	block_bytes(&kv);
	return kv.head_bytes;
}

static bool layout(pal__kv *kv, const pal__kv_shape *s)
{
	size_t layer;
	assert(s->head_dim <= PAL__KV_MAX_DIM);
	assert(!s->packed || s->kind == PAL__KV_INT16);
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

static const pal__kv_ring *ring_of(const pal__kv *kv, size_t layer)
{
	return pal__kv_slides(&kv->shape, layer) ? &kv->sliding : &kv->main;
}

static uint8_t *head_block(const pal__kv *kv, size_t layer, size_t head, int64_t block)
{
	const pal__kv_ring *ring = ring_of(kv, layer);
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
	if (pal__kv_is_int(kv->shape.kind)) {
		b.k_scale = (float *)(void *)(p + kv->k_bytes + kv->v_bytes);
		b.v_scale = b.k_scale + PAL__ATTN_BLOCK;
	}
	return b;
}

/* Rounds x [n] to int16 and splits them in bytes, or to int8; returns the scale. */
static float split(const pal__kv *kv, const pal__kernels *kernels, const float *x, uint8_t *high,
		   uint8_t *low)
{
	int16_t rounded[PAL__KV_MAX_DIM];
	size_t n = kv->shape.head_dim;
	if (kv->shape.kind == PAL__KV_INT8)
		return kernels->to_int8(x, n, (int8_t *)high) / 256;
	float scale = kernels->to_int16(x, n, rounded);
	for (size_t i = 0; i < n; i++) {
		high[i] = (uint8_t)((uint16_t)rounded[i] >> 8);
		low[i] = (uint8_t)rounded[i];
	}
	return scale;
}

/* Into the planes byte by byte: four positions share a word of V, and other threads may be
 * storing the others. */
static void store_k_int(const pal__kv *kv, const pal__kernels *kernels, const parts *b,
			size_t place, const float *k)
{
	size_t hd = kv->shape.head_dim, whole = hd & ~(size_t)3;
	uint8_t high[PAL__KV_MAX_DIM], low[PAL__KV_MAX_DIM];
	uint8_t *to = (uint8_t *)b->k + pal__attn_at(hd, place, 0), *to_low = to + kv->k_bytes / 2;
	b->k_scale[place] = split(kv, kernels, k, high, low);
	for (size_t d = 0; d < whole; d += 4)
		memcpy(to + d * 16, high + d, 4);
	memcpy(to + whole * 16, high + whole, hd - whole);
	if (kv->shape.kind == PAL__KV_INT8)
		return;
	for (size_t d = 0; d < whole; d += 4)
		memcpy(to_low + d * 16, low + d, 4);
	memcpy(to_low + whole * 16, low + whole, hd - whole);
}

static void store_v_int(const pal__kv *kv, const pal__kernels *kernels, const parts *b,
			size_t place, const float *v)
{
	size_t hd = kv->shape.head_dim;
	uint8_t high[PAL__KV_MAX_DIM], low[PAL__KV_MAX_DIM];
	uint8_t *to = b->v, *to_low = to + kv->v_bytes / 2;
	b->v_scale[place] = split(kv, kernels, v, high, low);
	for (size_t d = 0; d < hd; d++)
		to[pal__attn_at(PAL__ATTN_BLOCK, d, place)] = high[d];
	for (size_t d = 0; d < hd && kv->shape.kind == PAL__KV_INT16; d++)
		to_low[pal__attn_at(PAL__ATTN_BLOCK, d, place)] = low[d];
}

static void store_k(const pal__kv *kv, const pal__kernels *kernels, const parts *b, size_t place,
		    const float *k)
{
	uint16_t halves[PAL__KV_MAX_DIM];
	size_t hd = kv->shape.head_dim;
	if (pal__kv_is_int(kv->shape.kind)) {
		store_k_int(kv, kernels, b, place, k);
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
	if (pal__kv_is_int(kv->shape.kind))
		store_v_int(kv, kernels, b, place, v);
	else if (kv->shape.kind == PAL__KV_FLOAT)
		memcpy((float *)b->v + at, v, hd * sizeof *v);
	else
		kernels->to_half(v, hd, (uint16_t *)b->v + at);
}

/* Rows of a packed block: all of K, then of V. */
static uint8_t *packed_row(const pal__kv *kv, uint8_t *block, bool v, size_t place)
{
	return block + ((v ? PAL__ATTN_BLOCK : 0) + place) * kv->row_bytes;
}

/* k or v NULL: that half stays. */
static void store(const pal__kv *kv, const pal__kernels *kernels, uint8_t *block, size_t place,
		  const float *k, const float *v)
{
	size_t hd = kv->shape.head_dim;
	if (kv->shape.packed) {
		if (k)
			pal__pack(PAL__PACK_AFFINE4, k, hd, packed_row(kv, block, false, place));
		if (v)
			pal__pack(PAL__PACK_AFFINE4, v, hd, packed_row(kv, block, true, place));
		return;
	}
	parts b = parts_of(kv, block);
	if (k)
		store_k(kv, kernels, &b, place, k);
	if (v)
		store_v(kv, kernels, &b, place, v);
}

void pal__kv_store(pal__kv *kv, const pal__kernels *kernels, size_t layer, size_t head, int64_t pos,
		   const float *k, const float *v)
{
	size_t place = (size_t)(pos % PAL__ATTN_BLOCK);
	store(kv, kernels, head_block(kv, layer, head, pos / PAL__ATTN_BLOCK), place, k, v);
	if (pos < kv->shape.sink && pal__kv_bounded(&kv->shape, layer))
		pal__kv_store_far(kv, kernels, layer, head, (size_t)pos, k, v);
}

void pal__kv_store_far(pal__kv *kv, const pal__kernels *kernels, size_t layer, size_t head,
		       size_t row, const float *k, const float *v)
{
	assert(pal__kv_bounded(&kv->shape, layer));
	uint8_t *block = head_at(kv, &kv->far, layer, head, row / PAL__ATTN_BLOCK);
	store(kv, kernels, block, row % PAL__ATTN_BLOCK, k, v);
}

/* Number `at` of the planes that take `bytes`. */
static float number_int(const pal__kv *kv, const void *planes, size_t bytes, size_t at)
{
	const uint8_t *high = planes;
	int low = kv->shape.kind == PAL__KV_INT16 ? high[bytes / 2 + at] : 0;
	return (float)(int16_t)(high[at] << 8 | low);
}

void pal__kv_load(const pal__kv *kv, size_t layer, size_t head, int64_t pos, float *k, float *v)
{
	size_t hd = kv->shape.head_dim, place = (size_t)(pos % PAL__ATTN_BLOCK),
	       v_at = place * ((hd + 15) & ~(size_t)15);
	uint8_t *block = head_block(kv, layer, head, pos / PAL__ATTN_BLOCK);
	if (kv->shape.packed) {
		pal__unpack(PAL__PACK_AFFINE4, packed_row(kv, block, false, place), hd, k);
		pal__unpack(PAL__PACK_AFFINE4, packed_row(kv, block, true, place), hd, v);
		return;
	}
	parts b = parts_of(kv, block);
	for (size_t d = 0; d < hd; d++) {
		if (pal__kv_is_int(kv->shape.kind)) {
			k[d] = b.k_scale[place] *
			       number_int(kv, b.k, kv->k_bytes, pal__attn_at(hd, place, d));
			v[d] = b.v_scale[place] *
			       number_int(kv, b.v, kv->v_bytes,
					  pal__attn_at(PAL__ATTN_BLOCK, d, place));
		} else if (kv->shape.kind == PAL__KV_FLOAT) {
			k[d] = ((float *)b.k)[d * PAL__ATTN_BLOCK + place];
			v[d] = ((float *)b.v)[v_at + d];
		} else {
			k[d] = pal__half_float(((uint16_t *)b.k)[d * PAL__ATTN_BLOCK + place]);
			v[d] = pal__half_float(((uint16_t *)b.v)[v_at + d]);
		}
	}
}

uint8_t *pal__kv_blocks(const pal__kv *kv, int64_t from, int64_t end, size_t *bytes)
{
	int64_t first = from / PAL__ATTN_BLOCK, n = (end - 1) / PAL__ATTN_BLOCK - first + 1;
	size_t block = kv->main.n_layers * kv->shape.n_kv_heads * kv->head_bytes;
	assert(from < end && !kv->shape.window && first + n <= (int64_t)kv->main.n_blocks);
	*bytes = (size_t)n * block;
	return kv->main.data + (size_t)first * block;
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

bool pal__kv_has(const pal__kv *kv, int64_t pos, int64_t end)
{
	for (size_t layer = 0; layer < kv->shape.n_layers; layer++) {
		const pal__kv_ring *ring = ring_of(kv, layer);
		int64_t block = (end + PAL__ATTN_BLOCK - 1) / PAL__ATTN_BLOCK;
		if (pal__kv_sees(kv, layer, pos).first <
		    (block - (int64_t)ring->n_blocks) * PAL__ATTN_BLOCK)
			return false;
	}
	return true;
}

/* Four packed rows from `place`, before any is read again: stores are on their way for a while. */
static void unpack_4(const pal__kv *kv, uint8_t *block, bool v, size_t place,
		     float x[4][PAL__KV_MAX_DIM])
{
	for (size_t i = 0; i < 4; i++)
		pal__unpack(PAL__PACK_AFFINE4, packed_row(kv, block, v, place + i),
			    kv->shape.head_dim, x[i]);
}

/* V of 4 places, which share words of the planes: as store_v_int, but word by word, as this is
 * done whenever a block is read. */
static void expand_v(const pal__kv *kv, const pal__kernels *kernels, float x[4][PAL__KV_MAX_DIM],
		     const parts *b, size_t place)
{
	int16_t r[4][PAL__KV_MAX_DIM];
	size_t hd = kv->shape.head_dim, stride = (hd + 15) & ~(size_t)15;
	for (size_t i = 0; i < 4; i++) {
		b->v_scale[place + i] = kernels->to_int16(x[i], hd, r[i]);
		memset(r[i] + hd, 0, (stride - hd) * sizeof **r);
	}
	for (size_t d = 0; d < stride; d += 16) {
		uint32_t high[16], low[16];
		for (size_t i = 0; i < 16; i++) {
			uint32_t r01 = (uint16_t)r[0][d + i] | (uint32_t)r[1][d + i] << 16;
			uint32_t r23 = (uint16_t)r[2][d + i] | (uint32_t)r[3][d + i] << 16;
			low[i] = (r01 & 0xff) | (r01 >> 8 & 0xff00) | (r23 & 0xff) << 16 |
				 (r23 << 8 & 0xff000000);
			high[i] = (r01 >> 8 & 0xff) | (r01 >> 16 & 0xff00) | (r23 << 8 & 0xff0000) |
				  (r23 & 0xff000000);
		}
		uint8_t *to = (uint8_t *)b->v + pal__attn_at(PAL__ATTN_BLOCK, d, place);
		memcpy(to, high, sizeof high);
		memcpy(to + kv->v_bytes / 2, low, sizeof low);
	}
}

/* Packed rows to a block in `space`. */
static void expand(const pal__kv *kv, const pal__kernels *kernels, uint8_t *block, uint8_t *space)
{
	float x[4][PAL__KV_MAX_DIM];
	parts b = parts_of(kv, space);
	for (size_t place = 0; place < PAL__ATTN_BLOCK; place += 4) {
		unpack_4(kv, block, false, place, x);
		for (size_t i = 0; i < 4; i++)
			store_k_int(kv, kernels, &b, place + i, x[i]);
		unpack_4(kv, block, true, place, x);
		expand_v(kv, kernels, x, &b, place);
	}
}

static pal__attn_kv as_block(const pal__kv *kv, const pal__kernels *kernels, uint8_t *head,
			     uint8_t *space)
{
	if (kv->shape.packed)
		expand(kv, kernels, head, space);
	parts b = parts_of(kv, kv->shape.packed ? space : head);
	return (pal__attn_kv){.k = b.k,
			      .v = b.v,
			      .k_scale = b.k_scale,
			      .v_scale = b.v_scale,
			      .kind = kv->shape.kind,
			      .head_dim = kv->shape.head_dim};
}

pal__attn_kv pal__kv_block(const pal__kv *kv, const pal__kernels *kernels, size_t layer,
			   size_t head, int64_t block, uint8_t *space)
{
	return as_block(kv, kernels, head_block(kv, layer, head, block), space);
}

pal__attn_kv pal__kv_far_block(const pal__kv *kv, const pal__kernels *kernels, size_t layer,
			       size_t head, size_t block, uint8_t *space)
{
	return as_block(kv, kernels, head_at(kv, &kv->far, layer, head, block), space);
}

const void *pal__kv_next(const pal__kv *kv, size_t layer, size_t head, int64_t block)
{
	return kv->shape.packed ? NULL : head_block(kv, layer, head, block);
}
