#include "restore/hidden.h"

#include <assert.h>
#include <string.h>
#include <xxhash.h>

#include "base/checked.h"

#define BLOCK PAL__ATTN_BLOCK
#define HEADER 8 /* XXH3-64 of the rest, seeded with position and layer */

bool pal__hidden_shape(pal__hidden *x, const pal__site *s, uint64_t budget)
{
	size_t block;
	*x = (pal__hidden){.disk = PAL__NO_DISK, .capacity = INT64_MAX, .newest = -1};
	x->record_bytes = HEADER + s->m->h.n_embd * sizeof(float);
	if (!pal__mul_size(x->record_bytes, BLOCK * s->kv->main.n_layers, &block))
		return false;
	if (budget)
		x->capacity = (int64_t)(budget / block);
	return true;
}

size_t pal__hidden_need(const pal__hidden *x)
{
	return pal__arena_need(BLOCK * x->record_bytes);
}

pal_status pal__hidden_init(pal__hidden *x, pal__arena *arena, const char *dir, pal_error *err)
{
	x->records = pal__arena_take(arena, BLOCK * x->record_bytes);
	assert(x->records);
	return pal__disk_open(&x->disk, dir, "the file of hidden states", err);
}

void pal__hidden_close(pal__hidden *x)
{
	pal__disk_close(&x->disk);
}

static uint64_t place_of(const pal__hidden *x, const pal__site *s, size_t i, int64_t pos)
{
	uint64_t block = (uint64_t)(pos / BLOCK % x->capacity);
	return ((block * s->kv->main.n_layers + i) * BLOCK + (uint64_t)(pos % BLOCK)) *
	       x->record_bytes;
}

/* i: the layer's number among the bounded ones. */
static uint64_t checksum(const pal__hidden *x, const pal__site *s, size_t i, int64_t pos,
			 const uint8_t *record)
{
	uint64_t seed = (uint64_t)pos * s->kv->main.n_layers + i;
	return XXH3_64bits_withSeed(record + HEADER, x->record_bytes - HEADER, seed);
}

/* As positions from pos on are written; behind a truncation they may be in blocks that were
 * dropped. */
static void make_room(pal__hidden *x, int64_t pos, uint64_t *dropped)
{
	int64_t block = pos / BLOCK;
	if (x->first > block)
		x->first = block;
	for (; x->first <= block - x->capacity; x->first++)
		*dropped += block > x->newest ? BLOCK / PAL_CHUNK : 0;
	x->newest = block > x->newest ? block : x->newest;
}

void pal__hidden_write(pal__hidden *x, const pal__site *s, size_t layer,
		       const pal__scratch *scratch, int n, uint64_t *dropped)
{
	const pal__kv_shape *shape = &s->kv->shape;
	if (!pal__kv_bounded(shape, layer) || x->error.code)
		return;
	size_t e = s->m->h.n_embd, main = shape->slide ? layer / shape->slide_every : layer;
	for (int at = 0; at < n;) {
		int64_t pos = s->rows[at].pos;
		size_t some = BLOCK - (size_t)(pos % BLOCK);
		some = (size_t)(n - at) < some ? (size_t)(n - at) : some;
		make_room(x, pos, dropped);
		for (size_t i = 0; i < some; i++) {
			uint8_t *record = x->records + i * x->record_bytes;
			memcpy(record + HEADER, scratch->x + ((size_t)at + i) * e,
			       e * sizeof(float));
			uint64_t sum = checksum(x, s, main, pos + (int64_t)i, record);
			memcpy(record, &sum, HEADER);
		}
		if (x->capacity > 0 && pal__disk_write(&x->disk, x->records, some * x->record_bytes,
						       place_of(x, s, main, pos), &x->error))
			return;
		at += (int)some;
	}
}

void pal__hidden_doubt(pal__hidden *x, int64_t from, int64_t end)
{
	bool none = x->doubt_from == x->doubt_end;
	from = from < 0 ? 0 : from;
	x->doubt_from = none || from < x->doubt_from ? from : x->doubt_from;
	x->doubt_end = none || end > x->doubt_end ? end : x->doubt_end;
}

/* Inputs of the layer at [from, end), at most as many as a pass has rows, to the scratch. */
static pal_status read_inputs(pal__hidden *x, const pal__site *s, size_t i, int64_t from,
			      int64_t end, pal_error *err)
{
	float *to = s->scratch->x;
	for (int64_t pos = from; pos < end;) {
		size_t n = BLOCK - (size_t)(pos % BLOCK), bytes = x->record_bytes;
		n = end - pos < (int64_t)n ? (size_t)(end - pos) : n;
		pal_status status = pal__disk_read(&x->disk, x->records, n * bytes,
						   place_of(x, s, i, pos), err);
		if (status)
			return status;
		for (size_t j = 0; j < n; j++, pos++, to += s->m->h.n_embd) {
			const uint8_t *record = x->records + j * bytes;
			uint64_t sum;
			memcpy(&sum, record, HEADER);
			if (sum != checksum(x, s, i, pos, record))
				return pal__fail(err, PAL_EFORMAT,
						 "the hidden state of position %lld is damaged",
						 (long long)pos);
			memcpy(to, record + HEADER, bytes - HEADER);
		}
	}
	return PAL_OK;
}

typedef struct {
	const pal__site *s;
	const pal__span *span;
	size_t layer;
	int64_t from;
} filling;

static void fill_row(void *arg, size_t row, int worker)
{
	const filling *f = arg;
	const pal__hparams *h = &f->s->m->h;
	size_t at = (size_t)(f->from - f->span->from) + row;
	(void)worker;
	for (size_t head = 0; head < h->n_kv_heads; head++) {
		float *k = f->s->scratch->k + (row * h->n_kv_heads + head) * h->head_dim;
		float *v = f->s->scratch->v + (row * h->n_kv_heads + head) * h->head_dim;
		pal__finish_part(f->s->m, f->layer, PAL__K, head, k);
		pal__finish_part(f->s->m, f->layer, PAL__V, head, v);
		pal__put(f->s, f->span, at, f->layer, head, k, v);
	}
}

/* All layers of a span; s->scratch is nobody else's. */
static pal_status fill_layers(pal__hidden *x, pal__site *s, const pal__span *span, pal_error *err)
{
	for (size_t i = 0; i < s->kv->main.n_layers; i++) {
		size_t layer = pal__kv_main_layer(&s->kv->shape, i);
		for (int64_t pos = span->from; pos < span->end;) {
			int64_t end = pos + s->n_batch < span->end ? pos + s->n_batch : span->end;
			pal_status status = read_inputs(x, s, i, pos, end, err);
			if (status)
				return status;
			pal__keys_values(s->m, s->scratch, layer, (int)(end - pos));
			filling f = {s, span, layer, pos};
			pal__pool_run(s->m->pool, (size_t)(end - pos), fill_row, &f);
			pos = end;
		}
	}
	return PAL_OK;
}

pal_status pal__hidden_fill(pal__hidden *x, pal__site *s, const pal__span *span, pal_error *err)
{
	if (span->from / BLOCK < x->first)
		return pal__fail(err, PAL_ELIMIT,
				 "the hidden states of positions up to %lld have been dropped",
				 (long long)x->first * BLOCK - 1);
	if (span->from < x->doubt_end && span->end > x->doubt_from)
		return pal__fail(err, PAL_ELIMIT,
				 "the hidden states of positions %lld to %lld are of a question "
				 "that was taken back",
				 (long long)x->doubt_from, (long long)x->doubt_end - 1);
	pal__put_begin(s, span);
	pal__site by_hand = *s;
	by_hand.scratch = pal__scratch_enter(s->scratch);
	pal_status status = fill_layers(x, &by_hand, span, err);
	pal__scratch_leave(s->scratch);
	return status;
}
