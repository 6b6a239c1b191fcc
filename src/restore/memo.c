#include "restore/memo.h"

#include <assert.h>
#include <string.h>
#include <xxhash.h>

#include "base/checked.h"

static bool tokens_need(int64_t most, int n, size_t *bytes)
{
	size_t ids;
	if (!pal__mul_size((size_t)most, (size_t)n * sizeof(int32_t), &ids))
		return false;
	*bytes = pal__arena_need(ids);
	return true;
}

bool pal__memo_need(const pal__site *s, int n, size_t *bytes)
{
	size_t all, one;
	int64_t most = pal__runs_length(s);
	return tokens_need(most, n, &all) && tokens_need(most, 1, &one) &&
	       pal__add_size(all, one, bytes);
}

void pal__memo_init(pal__memo *x, const pal__site *s, int n, const pal__runs *r, pal__arena *arena,
		    const char *dir)
{
	size_t all = 0, one = 0;
	assert(n >= 0 && n <= PAL_MAX_SLOTS);
	*x = (pal__memo){.disk = PAL__NO_DISK, .dir = dir, .n = n, .most = pal__runs_length(s)};
	tokens_need(x->most, n, &all);
	tokens_need(x->most, 1, &one);
	x->ids = pal__arena_take(arena, all);
	x->name = pal__arena_take(arena, one);
	assert(x->ids && x->name);
	/* A span is shorter than a block, and so lies in two at most. */
	pal__kv_blocks(&r->kv[0], 0, PAL__ATTN_BLOCK, &x->record_bytes);
	x->record_bytes *= 2;
}

void pal__memo_forget(pal__memo *x)
{
	memset(x->records, 0, sizeof x->records);
	pal__disk_close(&x->disk);
}

void pal__memo_close(pal__memo *x)
{
	pal__memo_forget(x);
}

static uint8_t *blocks(const pal__runs *r, int run, const pal__span *span, int64_t at,
		       size_t *bytes)
{
	return pal__kv_blocks(&r->kv[run], at, at + span->end - span->from, bytes);
}

static uint64_t sum(const uint8_t *p, size_t bytes, int record)
{
	return XXH3_64bits_withSeed(p, bytes, (XXH64_hash_t)record);
}

static int find(const pal__memo *x, int64_t length, int64_t at)
{
	for (int i = 0; i < x->n; i++)
		if (x->records[i].length == length && x->records[i].at == at &&
		    !memcmp(x->ids + (int64_t)i * x->most, x->name,
			    (size_t)length * sizeof *x->name))
			return i;
	return -1;
}

/* Controls break what is put, and so what they have put is in no place. */
static pal__span place(const pal__site *s, const pal__span *span)
{
	return s->control ? (pal__span){0} : *span;
}

static bool in_place(const pal__memo_record *record, const pal__site *s, const pal__span *span)
{
	const pal__span *p = &record->placed;
	return !s->control && p->row == span->row && p->from == span->from && p->end == span->end;
}

pal__memo_found pal__memo_find(pal__memo *x, pal__runs *r, const pal__site *s,
			       const pal__span *span, int64_t *at)
{
	int64_t length = pal__runs_tokens(s, span, x->name, at);
	int i = find(x, length, *at);
	if (i < 0)
		return PAL__MEMO_NONE;
	pal__memo_record *record = &x->records[i];
	bool here = in_place(record, s, span);
	size_t bytes;
	uint8_t *to = blocks(r, 0, span, *at, &bytes);
	if (!here && (pal__disk_read(&x->disk, to, bytes, (uint64_t)i * x->record_bytes, NULL) ||
		      sum(to, bytes, i) != record->sum)) {
		*record = (pal__memo_record){0};
		return PAL__MEMO_NONE;
	}
	record->used = ++x->clock;
	record->placed = place(s, span);
	x->hits++;
	return here ? PAL__MEMO_HERE : PAL__MEMO_RUN;
}

void pal__memo_keep(pal__memo *x, const pal__runs *r, int run, const pal__site *s,
		    const pal__span *span, int64_t at)
{
	int i = 0;
	for (int j = 1; j < x->n; j++)
		if (x->records[j].used < x->records[i].used)
			i = j;
	if (!x->n || (x->disk.fd < 0 && pal__disk_open(&x->disk, x->dir, "chunks read", NULL)))
		return;
	size_t bytes;
	const uint8_t *from = blocks(r, run, span, at, &bytes);
	/* A disk that is full gets back what this took of it. */
	if (pal__disk_write(&x->disk, from, bytes, (uint64_t)i * x->record_bytes, NULL)) {
		pal__memo_forget(x);
		return;
	}
	int64_t length = pal__runs_tokens(s, span, x->ids + (int64_t)i * x->most, &at);
	x->records[i] =
		(pal__memo_record){length, at, ++x->clock, sum(from, bytes, i), place(s, span)};
}

void pal__memo_displace(pal__memo *x, uint64_t since)
{
	for (int i = 0; i < x->n; i++)
		if (x->records[i].used <= since)
			x->records[i].placed = (pal__span){0};
}
