#include "restore/spill.h"

#include <assert.h>
#include <string.h>
#include <xxhash.h>

#include "base/checked.h"

#define HEADER 8 /* XXH3-64 of the rest, seeded with the record's number */

bool pal__spill_shape(pal__spill *x, const pal__site *s, pal__pack_kind kind, uint64_t budget)
{
	const pal__kv_shape *k = &s->kv->shape;
	size_t rows;
	*x = (pal__spill){.disk = PAL__NO_DISK, .kind = kind, .capacity = INT64_MAX};
	x->row_bytes = pal__pack_bytes(kind, k->head_dim);
	if (!pal__mul_size(s->kv->main.n_layers * k->n_kv_heads, PAL__SPILL_ROWS * 2, &rows) ||
	    !pal__mul_size(rows, x->row_bytes, &x->record_bytes))
		return false;
	x->record_bytes += HEADER;
	if (budget)
		x->capacity = (int64_t)(budget / x->record_bytes);
	return true;
}

static size_t angle_bytes(const pal__site *s)
{
	return pal__arena_need(PAL__SPILL_ROWS * s->m->h.n_rot * sizeof(float));
}

size_t pal__spill_need(const pal__spill *x, const pal__site *s)
{
	return pal__arena_need(x->record_bytes) + angle_bytes(s);
}

pal_status pal__spill_init(pal__spill *x, const pal__site *s, pal__arena *arena, const char *dir,
			   pal_error *err)
{
	x->record = pal__arena_take(arena, x->record_bytes);
	x->angles = pal__arena_take(arena, angle_bytes(s));
	assert(x->angles);
	return pal__disk_open(&x->disk, dir, "the spill file", err);
}

void pal__spill_close(pal__spill *x)
{
	pal__disk_close(&x->disk);
}

typedef struct {
	pal__spill *x;
	const pal__site *s;
	const pal__span *span; /* to fill */
	int64_t from, end;     /* positions of the record */
} copying;

static uint8_t *row_at(const pal__spill *x, size_t item, size_t place)
{
	return x->record + HEADER + (item * PAL__SPILL_ROWS + place) * 2 * x->row_bytes;
}

static void pack_item(void *arg, size_t item, int worker)
{
	const copying *c = arg;
	const pal__hparams *h = &c->s->m->h;
	size_t layer = pal__kv_main_layer(&c->s->kv->shape, item / h->n_kv_heads);
	float k[PAL__KV_MAX_DIM], v[PAL__KV_MAX_DIM];
	(void)worker;
	for (int64_t pos = c->from; pos < c->end; pos++) {
		size_t place = (size_t)(pos - c->from);
		uint8_t *to = row_at(c->x, item, place);
		pal__take(c->s->m, c->s->kv, c->x->angles + place * h->n_rot, layer,
			  item % h->n_kv_heads, pos, k, v);
		pal__pack(c->x->kind, k, h->head_dim, to);
		pal__pack(c->x->kind, v, h->head_dim, to + c->x->row_bytes);
	}
}

static uint64_t place_of(const pal__spill *x, int64_t record)
{
	return (uint64_t)(record % x->capacity) * x->record_bytes;
}

static uint64_t checksum(const pal__spill *x, int64_t record)
{
	return XXH3_64bits_withSeed(x->record + HEADER, x->record_bytes - HEADER,
				    (XXH64_hash_t)record);
}

/* Makes room for a record. Behind a truncation, the one that is written again is the first. A chunk
 * goes with its first record, and is counted when it goes the first time. */
static void make_room(pal__spill *x, int64_t record, uint64_t *dropped)
{
	bool again = x->end > record * PAL__SPILL_ROWS;
	if (x->first > record)
		x->first = record;
	for (; x->first <= record - x->capacity; x->first++)
		*dropped += !again && x->first % (PAL_CHUNK / PAL__SPILL_ROWS) == 0;
}

pal_status pal__spill_keep(pal__spill *x, const pal__site *s, int64_t end, uint64_t *dropped,
			   pal_error *err)
{
	size_t items = s->kv->main.n_layers * s->m->h.n_kv_heads;
	for (int64_t record = x->end / PAL__SPILL_ROWS; x->end < end; record++) {
		int64_t from = record * PAL__SPILL_ROWS, to = from + PAL__SPILL_ROWS;
		copying c = {x, s, NULL, from, to < end ? to : end};
		make_room(x, record, dropped);
		if (x->capacity > 0) {
			memset(x->record, 0, x->record_bytes);
			pal__angles(s->m, from, (size_t)(c.end - from), x->angles);
			pal__pool_run(s->m->pool, items, pack_item, &c);
			uint64_t sum = checksum(x, record);
			memcpy(x->record, &sum, HEADER);
			pal_status status = pal__disk_write(&x->disk, x->record, x->record_bytes,
							    place_of(x, record), err);
			if (status)
				return status;
		}
		x->end = c.end;
	}
	return PAL_OK;
}

static void unpack_item(void *arg, size_t item, int worker)
{
	const copying *c = arg;
	const pal__hparams *h = &c->s->m->h;
	size_t layer = pal__kv_main_layer(&c->s->kv->shape, item / h->n_kv_heads);
	float k[PAL__KV_MAX_DIM], v[PAL__KV_MAX_DIM];
	(void)worker;
	for (int64_t pos = c->from; pos < c->end; pos++) {
		const uint8_t *in = row_at(c->x, item, (size_t)(pos % PAL__SPILL_ROWS));
		pal__unpack(c->x->kind, in, h->head_dim, k);
		pal__unpack(c->x->kind, in + c->x->row_bytes, h->head_dim, v);
		pal__put(c->s, c->span, (size_t)(pos - c->span->from), layer, item % h->n_kv_heads,
			 k, v);
	}
}

void pal__spill_doubt(pal__spill *x, int64_t from, int64_t end)
{
	bool none = x->doubt_from == x->doubt_end;
	x->doubt_from = none || from < x->doubt_from ? from : x->doubt_from;
	x->doubt_end = none || end > x->doubt_end ? end : x->doubt_end;
}

pal_status pal__spill_fill(pal__spill *x, pal__site *s, const pal__span *span, pal_error *err)
{
	size_t items = s->kv->main.n_layers * s->m->h.n_kv_heads;
	if (span->end > x->end)
		return pal__fail(err, PAL_ELIMIT,
				 "the spill file ends at position %lld, before %lld",
				 (long long)x->end, (long long)span->end);
	if (span->from < x->doubt_end && span->end > x->doubt_from)
		return pal__fail(err, PAL_ELIMIT,
				 "positions %lld to %lld of the spill file are of a log that was "
				 "changed",
				 (long long)x->doubt_from, (long long)x->doubt_end - 1);
	pal__put_begin(s, span);
	for (int64_t pos = span->from; pos < span->end;) {
		int64_t record = pos / PAL__SPILL_ROWS, end = (record + 1) * PAL__SPILL_ROWS;
		uint64_t sum;
		if (record < x->first)
			return pal__fail(err, PAL_ELIMIT,
					 "the spill file has dropped positions %lld to %lld",
					 (long long)(record * PAL__SPILL_ROWS), (long long)end - 1);
		pal_status status = pal__disk_read(&x->disk, x->record, x->record_bytes,
						   place_of(x, record), err);
		if (status)
			return status;
		memcpy(&sum, x->record, HEADER);
		if (sum != checksum(x, record))
			return pal__fail(
				err, PAL_EFORMAT,
				"the spill file's record of positions %lld to %lld is damaged",
				(long long)(record * PAL__SPILL_ROWS), (long long)end - 1);
		copying c = {x, s, span, pos, end < span->end ? end : span->end};
		pal__pool_run(s->m->pool, items, unpack_item, &c);
		pos = c.end;
	}
	return PAL_OK;
}
