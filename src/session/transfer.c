/* One session as one file: docs/formats/session.md. */
#include <inttypes.h>
#include <string.h>
#include <xxhash.h>

#include "base/checked.h"
#include "base/mem.h"
#include "session/encode.h"

#define MAGIC "PALSESSN"
#define VERSION 1

typedef struct {
	char magic[8];
	uint32_t version, zero;
	uint64_t bytes, model_hash;
	uint8_t record[PAL__RECORD_BYTES];
} header;

#define SUM_BYTES sizeof(uint64_t)

_Static_assert(sizeof(header) == 32 + PAL__RECORD_BYTES, "no padding");

/* --- writing ------------------------------------------------------------------- */

/* The bytes of the file; false: some part of the session is none. */
static bool measure(const pal__stored *s, size_t *out)
{
	uint8_t event[PAL__EVENT_BYTES];
	size_t n = sizeof(header) + 4 * (size_t)s->record.length + SUM_BYTES;
	for (uint64_t i = 0; i < s->record.n_events; i++) {
		size_t more = pal__event_encode(&s->events[i], event);
		if (!more || !pal__add_size(n, more, &n))
			return false;
	}
	for (size_t i = 0; i < s->n_changes; i++) {
		size_t more = pal__change_bytes(&s->changes[i]);
		if (!more || !pal__add_size(n, more, &n))
			return false;
	}
	*out = n;
	return true;
}

static void write_parts(const pal__stored *s, const header *h, uint8_t *to)
{
	const uint8_t *from = to;
	uint8_t event[PAL__EVENT_BYTES];
	size_t n = 4 * (size_t)s->record.length;
	memcpy(to, h, sizeof *h);
	to += sizeof *h;
	if (n)
		memcpy(to, s->ids, n);
	to += n;
	for (uint64_t i = 0; i < s->record.n_events; i++, to += n) {
		n = pal__event_encode(&s->events[i], event);
		memcpy(to, event, n);
	}
	for (size_t i = 0; i < s->n_changes; i++, to += n) {
		n = pal__change_bytes(&s->changes[i]);
		pal__change_encode(&s->changes[i], to);
	}
	uint64_t sum = XXH3_64bits(from, (size_t)(to - from));
	memcpy(to, &sum, sizeof sum);
}

pal_status pal__transfer_write(const pal__stored *s, uint64_t model_hash, void **bytes, size_t *n,
			       pal_error *err)
{
	header h = {.magic = MAGIC, .version = VERSION, .model_hash = model_hash};
	size_t size = 0;
	if (!pal__record_encode(&s->record, s->n_changes, h.record) || !measure(s, &size))
		return pal__fail(err, PAL_EINVAL, "session %s cannot be written: it is none",
				 s->record.id);
	void *to = pal__alloc(size);
	if (!to)
		return pal__fail_memory(err, "a session's file", size);
	h.bytes = size;
	write_parts(s, &h, to);
	*bytes = to;
	*n = size;
	return PAL_OK;
}

/* --- reading --------------------------------------------------------------------- */

typedef struct {
	const uint8_t *at;
	size_t n; /* bytes that are left, without the sum */
	int32_t n_vocab;
	pal_error *err;
} reader;

static pal_status check_header(const uint8_t *bytes, size_t n, uint64_t model_hash, header *h,
			       pal_error *err)
{
	uint64_t sum;
	if (n < sizeof *h + SUM_BYTES || memcmp(bytes, MAGIC, sizeof h->magic))
		return pal__fail(err, PAL_EFORMAT, "the file is no session");
	memcpy(h, bytes, sizeof *h);
	memcpy(&sum, bytes + n - SUM_BYTES, sizeof sum);
	if (h->version != VERSION)
		return pal__fail(err, PAL_EUNSUPPORTED,
				 "the session's file has version %" PRIu32 " (supported: %d)",
				 h->version, VERSION);
	if (h->bytes != n)
		return pal__fail(err, PAL_EFORMAT,
				 "the session's file has %zu bytes instead of %" PRIu64, n,
				 h->bytes);
	if (sum != XXH3_64bits(bytes, n - SUM_BYTES))
		return pal__fail(err, PAL_EFORMAT,
				 "the session's file is damaged: its checksum does not fit");
	if (h->model_hash != model_hash)
		return pal__fail(err, PAL_EINVAL,
				 "the session is of another model: of %016" PRIx64
				 ", but this one is %016" PRIx64,
				 h->model_hash, model_hash);
	return PAL_OK;
}

/* n ids at r->at, which are of the vocabulary, into *out. */
static pal_status read_ids(reader *r, const char *what, size_t n, int32_t **out)
{
	if (n > r->n / 4)
		return pal__fail(r->err, PAL_EFORMAT, "the session's file ends in its %s", what);
	int32_t *ids = pal__calloc(n, sizeof *ids);
	if (!ids)
		return pal__fail_memory(r->err, what, n * sizeof *ids);
	*out = ids;
	if (n)
		memcpy(ids, r->at, 4 * n);
	r->at += 4 * n;
	r->n -= 4 * n;
	for (size_t i = 0; i < n; i++)
		if (ids[i] < 0 || ids[i] >= r->n_vocab)
			return pal__fail(r->err, PAL_EFORMAT,
					 "id %zu of the session's %s, %" PRId32
					 ", is not of the vocabulary",
					 i, what, ids[i]);
	return PAL_OK;
}

static pal_status read_events(reader *r, pal__stored *s)
{
	uint64_t n = s->record.n_events;
	if (n > r->n / 16)
		return pal__fail(r->err, PAL_EFORMAT, "the session's file ends in its events");
	s->events = pal__calloc(n, sizeof *s->events);
	if (!s->events)
		return pal__fail_memory(r->err, "events", n * sizeof *s->events);
	for (uint64_t i = 0; i < n; i++) {
		size_t took = pal__event_decode(r->at, r->n, &s->events[i]);
		if (!took)
			return pal__fail(r->err, PAL_EFORMAT,
					 "event %" PRIu64 " of the session's file is none", i);
		r->at += took;
		r->n -= took;
	}
	return PAL_OK;
}

static pal_status read_changes(reader *r, uint64_t n, pal__stored *s)
{
	if (n > r->n / PAL__CHANGE_HEAD)
		return pal__fail(r->err, PAL_EFORMAT, "the session's file ends in its changes");
	s->changes = pal__calloc(n, sizeof *s->changes);
	if (!s->changes)
		return pal__fail_memory(r->err, "changes", n * sizeof *s->changes);
	for (uint64_t i = 0; i < n; i++) {
		pal__change *c = &s->changes[s->n_changes++];
		size_t took = pal__change_decode(r->at, r->n, c);
		if (!took)
			return pal__fail(r->err, PAL_EFORMAT,
					 "change %" PRIu64 " of the session's file is none", i);
		r->at += PAL__CHANGE_HEAD;
		r->n -= PAL__CHANGE_HEAD;
		pal_status status = read_ids(r, "changes", (took - PAL__CHANGE_HEAD) / 4, &c->ids);
		if (status)
			return status;
	}
	return PAL_OK;
}

/* Whether events and changes are of the log as it was when they came: so they can be undone and
 * made again without a look behind its end. */
static bool is_history(const pal__stored *s)
{
	int64_t length = 0; /* at least, at this time */
	uint64_t event = 0;
	for (size_t i = 0; i <= s->n_changes; i++) {
		const pal__change *c = i < s->n_changes ? &s->changes[i] : NULL;
		int64_t at = c ? c->at : s->record.length;
		uint64_t n_events = c ? c->n_events : s->record.n_events;
		if (n_events < event || n_events > s->record.n_events)
			return false;
		for (; event < n_events; length = s->events[event++].position)
			if (s->events[event].position < length)
				return false;
		if (at < length)
			return false;
		if (c)
			length = at - c->n_old + c->n_new;
	}
	return true;
}

static pal_status read_parts(reader *r, const uint8_t *record, pal__stored *s)
{
	uint64_t n_changes = 0;
	if (!pal__record_decode(record, &s->record, &n_changes))
		return pal__fail(r->err, PAL_EFORMAT, "the record of the session's file is none");
	for (int i = 0; i < s->record.n_eos; i++)
		if (s->record.eos[i] < 0 || s->record.eos[i] >= r->n_vocab)
			return pal__fail(r->err, PAL_EFORMAT,
					 "the session's end id %" PRId32
					 " is not of the vocabulary",
					 s->record.eos[i]);
	pal_status status = read_ids(r, "tokens", (size_t)s->record.length, &s->ids);
	if (!status)
		status = read_events(r, s);
	if (!status)
		status = read_changes(r, n_changes, s);
	if (!status && r->n)
		return pal__fail(r->err, PAL_EFORMAT,
				 "the session's file has %zu bytes behind its end", r->n);
	if (!status && !is_history(s))
		return pal__fail(r->err, PAL_EFORMAT,
				 "events and changes in the session's file are not of its log");
	return status;
}

pal_status pal__transfer_read(const void *bytes, size_t n, uint64_t model_hash, int32_t n_vocab,
			      pal__stored *out, pal_error *err)
{
	header h;
	pal__stored s = {0};
	pal_status status = check_header(bytes, n, model_hash, &h, err);
	if (status)
		return status;
	reader r = {(const uint8_t *)bytes + sizeof h, n - sizeof h - SUM_BYTES, n_vocab, err};
	status = read_parts(&r, h.record, &s);
	if (status)
		pal__stored_free(&s);
	else
		*out = s;
	return status;
}
