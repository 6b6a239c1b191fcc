#include "session/encode.h"

#include <math.h>
#include <string.h>

#include "text/utf8.h"

/* Files are little-endian, as the machines are that this runs on. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "numbers are written as they are");

typedef struct {
	double created, used;
	int64_t turns, length, remaining;
	uint64_t n_events, n_changes, seed;
	float temperature, top_p, min_p, repeat_penalty;
	int32_t top_k, repeat_last;
	int32_t n_eos, eos[PAL__MAX_EOS];
	uint8_t stateless, generating, zero[2];
	char label[PAL__MAX_LABEL + 1];
} disk_record;

_Static_assert(sizeof(disk_record) == PAL__RECORD_BYTES, "no padding, and all of it");

static bool is_sane(const disk_record *d)
{
	size_t label = strnlen(d->label, sizeof d->label);
	return isfinite(d->created) && isfinite(d->used) && d->turns >= 0 && d->length >= 0 &&
	       d->length <= PAL_MAX_LOG && d->remaining >= 0 && d->n_events <= PAL_MAX_LOG &&
	       d->n_changes <= PAL__MAX_CHANGES && isfinite(d->temperature) && isfinite(d->top_p) &&
	       isfinite(d->min_p) && isfinite(d->repeat_penalty) && d->n_eos >= -1 &&
	       d->n_eos <= PAL__MAX_EOS && d->stateless <= 1 && d->generating <= 1 &&
	       label <= PAL__MAX_LABEL && pal__utf8_valid(d->label, label) == label;
}

bool pal__record_encode(const pal__record *r, uint64_t n_changes, uint8_t out[PAL__RECORD_BYTES])
{
	const pal_sampling *s = &r->sampling;
	disk_record d = {.created = r->created,
			 .used = r->used,
			 .turns = r->turns,
			 .length = r->length,
			 .remaining = r->remaining,
			 .n_events = r->n_events,
			 .n_changes = n_changes,
			 .seed = s->seed,
			 .temperature = s->temperature,
			 .top_p = s->top_p,
			 .min_p = s->min_p,
			 .repeat_penalty = s->repeat_penalty,
			 .top_k = s->top_k,
			 .repeat_last = s->repeat_last,
			 .n_eos = r->n_eos,
			 .stateless = r->stateless,
			 .generating = r->generating};
	memcpy(d.label, r->label, sizeof d.label);
	if (!is_sane(&d))
		return false;
	for (int i = 0; i < r->n_eos; i++)
		d.eos[i] = r->eos[i];
	memcpy(out, &d, sizeof d);
	return true;
}

bool pal__record_decode(const uint8_t in[PAL__RECORD_BYTES], pal__record *out, uint64_t *n_changes)
{
	disk_record d;
	memcpy(&d, in, sizeof d);
	if (!is_sane(&d))
		return false;
	*out = (pal__record){.created = d.created,
			     .used = d.used,
			     .turns = d.turns,
			     .length = d.length,
			     .remaining = d.remaining,
			     .n_events = d.n_events,
			     .n_eos = d.n_eos,
			     .stateless = d.stateless,
			     .generating = d.generating,
			     .sampling = {.temperature = d.temperature,
					  .top_k = d.top_k,
					  .top_p = d.top_p,
					  .min_p = d.min_p,
					  .repeat_penalty = d.repeat_penalty,
					  .repeat_last = d.repeat_last,
					  .seed = d.seed}};
	for (int i = 0; i < d.n_eos; i++)
		out->eos[i] = d.eos[i];
	memcpy(out->label, d.label, strlen(d.label));
	*n_changes = d.n_changes;
	return true;
}

static bool event_is_sane(const pal_event *e)
{
	if (e->position < 0 || e->position > PAL_MAX_LOG || e->reread < 0 || e->n_chunks < 0 ||
	    e->n_chunks > PAL_MAX_SLOTS)
		return false;
	for (int i = 0; i < e->n_chunks; i++)
		if (e->chunks[i] < 0 || (i && e->chunks[i] <= e->chunks[i - 1]) ||
		    e->sources[i] >= PAL_N_SOURCES)
			return false;
	return true;
}

size_t pal__event_encode(const pal_event *e, uint8_t out[PAL__EVENT_BYTES])
{
	if (!event_is_sane(e))
		return 0;
	size_t n = (size_t)e->n_chunks;
	memcpy(out, &e->position, 8);
	memcpy(out + 8, &e->reread, 4);
	memcpy(out + 12, &e->n_chunks, 4);
	memcpy(out + 16, e->chunks, 4 * n);
	memcpy(out + 16 + 4 * n, e->sources, n);
	return 16 + 5 * n;
}

size_t pal__event_decode(const uint8_t *in, size_t n, pal_event *out)
{
	pal_event e = {0};
	if (n < 16)
		return 0;
	memcpy(&e.position, in, 8);
	memcpy(&e.reread, in + 8, 4);
	memcpy(&e.n_chunks, in + 12, 4);
	if (e.n_chunks < 0 || e.n_chunks > PAL_MAX_SLOTS || n - 16 < 5 * (size_t)e.n_chunks)
		return 0;
	size_t k = (size_t)e.n_chunks;
	memcpy(e.chunks, in + 16, 4 * k);
	memcpy(e.sources, in + 16 + 4 * k, k);
	if (!event_is_sane(&e))
		return 0;
	*out = e;
	return 16 + 5 * k;
}

static size_t change_ids(const pal__change *c)
{
	return (size_t)c->n_old + (size_t)c->n_new;
}

size_t pal__change_bytes(const pal__change *c)
{
	if (c->at < 0 || c->at > PAL_MAX_LOG || c->position < 0 || c->position > c->at ||
	    c->n_old < 0 || c->n_old > c->at - c->position || c->n_new < 0 ||
	    c->n_new > PAL_MAX_LOG || c->n_events > PAL_MAX_LOG)
		return 0;
	return PAL__CHANGE_HEAD + 4 * change_ids(c);
}

void pal__change_encode(const pal__change *c, uint8_t *out)
{
	memcpy(out, &c->at, 8);
	memcpy(out + 8, &c->position, 8);
	memcpy(out + 16, &c->n_events, 8);
	memcpy(out + 24, &c->n_old, 4);
	memcpy(out + 28, &c->n_new, 4);
	if (change_ids(c))
		memcpy(out + PAL__CHANGE_HEAD, c->ids, 4 * change_ids(c));
}

size_t pal__change_decode(const uint8_t *in, size_t n, pal__change *out)
{
	pal__change c = {0};
	if (n < PAL__CHANGE_HEAD)
		return 0;
	memcpy(&c.at, in, 8);
	memcpy(&c.position, in + 8, 8);
	memcpy(&c.n_events, in + 16, 8);
	memcpy(&c.n_old, in + 24, 4);
	memcpy(&c.n_new, in + 28, 4);
	size_t bytes = pal__change_bytes(&c);
	if (!bytes || n < bytes)
		return 0;
	*out = c;
	return bytes;
}
