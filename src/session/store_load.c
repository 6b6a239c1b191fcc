/* What is in the store, read and checked. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "base/mem.h"
#include "session/store_sql.h"

uint64_t pal__store_sum(const char *name, pal__kind kind, int64_t at, const void *data, size_t n)
{
	uint64_t place = XXH3_64bits_withSeed(name, strlen(name), kind);
	return XXH3_64bits_withSeed(n ? data : "", n, XXH3_64bits_withSeed(&at, sizeof at, place));
}

pal_status pal__store_damaged(pal__store *t, int64_t n, const char *id, const char *why,
			      pal_error *err)
{
	pal__sql_end(t, PAL_EFORMAT, NULL);
	/* Where even that cannot be written it is found again next time. */
	pal__sql_run(t, pal__sql_bind(t, PAL__SQL_DAMAGE, "ti", why, n), NULL);
	return pal__fail(err, PAL_EFORMAT, "%s: session %s is damaged and set aside: %s", t->path,
			 id, why);
}

/* --- records --------------------------------------------------------------------- */

/* The session in a row of PAL__SQL_FIND or PAL__SQL_EACH. Returns why it is none, or NULL. id: its
 * text as far as there is room. */
static const char *read_record(sqlite3_stmt *q, pal__found_session *out, char id[PAL__ID_BYTES])
{
	const char *name = (const char *)sqlite3_column_text(q, 1);
	const void *data = sqlite3_column_blob(q, 3);
	size_t n = (size_t)sqlite3_column_bytes(q, 3);
	int64_t owner = sqlite3_column_int64(q, 2);
	out->n = sqlite3_column_int64(q, 0);
	snprintf(id, PAL__ID_BYTES, "%s", name ? name : "");
	if (!name || strcmp(name, id))
		return "its id is none";
	if (n != PAL__RECORD_BYTES ||
	    pal__store_sum(id, PAL__RECORD, owner, data, n) != (uint64_t)sqlite3_column_int64(q, 4))
		return "the checksum of its record does not fit";
	if (!pal__record_decode(data, &out->record, &out->n_changes))
		return "its record is none";
	memcpy(out->record.id, id, PAL__ID_BYTES);
	out->record.owner = (uint64_t)owner;
	return NULL;
}

pal_status pal__store_find(pal__store *t, const char *id, pal__found_session *out, pal_error *err)
{
	int rc = 0;
	char stored[PAL__ID_BYTES], aside[256] = "";
	const char *why = NULL;
	sqlite3_stmt *q = pal__sql_bind(t, PAL__SQL_FIND, "t", id);
	pal_status status = pal__sql_step(t, q, &rc, err);
	if (status)
		return status;
	if (rc != SQLITE_ROW)
		return pal__fail(err, PAL_ENOTFOUND, "there is no session %s", id);
	const char *damage = (const char *)sqlite3_column_text(q, 5);
	if (damage)
		snprintf(aside, sizeof aside, "%s", damage);
	else
		why = read_record(q, out, stored);
	sqlite3_reset(q);
	if (aside[0])
		return pal__fail(err, PAL_EFORMAT, "%s: session %s is damaged and set aside: %s",
				 t->path, id, aside);
	return why ? pal__store_damaged(t, out->n, id, why, err) : PAL_OK;
}

pal_status pal__store_each(pal__store *t, void (*at)(void *user, const pal__record *record),
			   void *user, pal_error *err)
{
	int rc = SQLITE_ROW;
	pthread_mutex_lock(&t->mutex);
	sqlite3_stmt *q = t->statements[PAL__SQL_EACH];
	pal_status status = pal__sql_step(t, q, &rc, err);
	for (; !status && rc == SQLITE_ROW; status = pal__sql_step(t, q, &rc, err)) {
		pal__found_session found = {0};
		char id[PAL__ID_BYTES];
		const char *why = read_record(q, &found, id);
		/* They were sorted before the first came, so that the table may change. */
		if (why)
			pal__store_damaged(t, found.n, id, why, NULL);
		else
			at(user, &found.record);
	}
	pthread_mutex_unlock(&t->mutex);
	return status;
}

pal_status pal__store_quarantined(pal__store *t,
				  void (*at)(void *user, const char *id, const char *why),
				  void *user, pal_error *err)
{
	int rc = SQLITE_ROW;
	pthread_mutex_lock(&t->mutex);
	sqlite3_stmt *q = t->statements[PAL__SQL_DAMAGED];
	pal_status status = pal__sql_step(t, q, &rc, err);
	for (; !status && rc == SQLITE_ROW; status = pal__sql_step(t, q, &rc, err)) {
		const char *id = (const char *)sqlite3_column_text(q, 0);
		const char *why = (const char *)sqlite3_column_text(q, 1);
		at(user, id ? id : "", why ? why : "");
	}
	pthread_mutex_unlock(&t->mutex);
	return status;
}

/* --- pieces ------------------------------------------------------------------------ */

typedef struct {
	int64_t at;
	const uint8_t *data; /* until the next step */
	size_t n;            /* bytes */
} piece;

/* The piece in a row of PAL__SQL_PIECES; false: its sum does not fit. */
static bool read_piece(sqlite3_stmt *q, const char *id, pal__kind kind, piece *out)
{
	*out = (piece){.at = sqlite3_column_int64(q, 0),
		       .data = sqlite3_column_blob(q, 1),
		       .n = (size_t)sqlite3_column_bytes(q, 1)};
	return pal__store_sum(id, kind, out->at, out->data, out->n) ==
	       (uint64_t)sqlite3_column_int64(q, 2);
}

/* What pieces are put into; have: tokens, events or changes of it so far. */
typedef struct {
	const char *id;
	pal__stored *s;
	int64_t have;
	pal_error *err;
} filling;

/* These return PAL_EFORMAT for what is no such piece. */
static pal_status take_tokens(filling *f, const piece *p)
{
	if (p->n % 4 || p->n / 4 > (size_t)(f->s->record.length - f->have))
		return PAL_EFORMAT;
	memcpy(f->s->ids + f->have, p->data, p->n);
	f->have += (int64_t)(p->n / 4);
	return PAL_OK;
}

static pal_status take_event(filling *f, const piece *p)
{
	if (f->have == (int64_t)f->s->record.n_events ||
	    !pal__event_decode(p->data, p->n, &f->s->events[f->have]))
		return PAL_EFORMAT;
	f->have++;
	return PAL_OK;
}

static pal_status take_change(filling *f, const piece *p)
{
	pal__change *c = &f->s->changes[f->have];
	if (f->have == (int64_t)f->s->n_changes || pal__change_decode(p->data, p->n, c) != p->n)
		return PAL_EFORMAT;
	size_t bytes = p->n - PAL__CHANGE_HEAD;
	c->ids = pal__alloc(bytes);
	if (!c->ids)
		return pal__fail_memory(f->err, "a change", bytes);
	memcpy(c->ids, p->data + PAL__CHANGE_HEAD, bytes);
	f->have++;
	return PAL_OK;
}

/* All pieces of a kind, of which there are `count`; why: where PAL_EFORMAT says that something is
 * wrong. */
static pal_status load_pieces(pal__store *t, int64_t n, pal__kind kind, int64_t count, filling *f,
			      char why[256])
{
	static pal_status (*const take[])(filling *, const piece *) = {take_tokens, take_event,
								       take_change};
	static const char *const names[] = {"tokens", "events", "changes"};
	int rc = 0;
	pal_error said = {0};
	sqlite3_stmt *q =
		pal__sql_bind(t, PAL__SQL_PIECES, "iii", n, (int64_t)kind, (int64_t)INT64_MIN);
	f->have = 0;
	pal_status status = pal__sql_step(t, q, &rc, &said);
	for (; !status && rc == SQLITE_ROW; status = pal__sql_step(t, q, &rc, &said)) {
		piece p;
		pal_status taken = PAL_EFORMAT;
		const char *bad = "are none";
		if (!read_piece(q, f->id, kind, &p))
			bad = "do not fit their checksum";
		else if (p.at != f->have)
			bad = "are missing";
		else if (!(taken = take[kind](f, &p)))
			continue;
		if (taken == PAL_EFORMAT)
			snprintf(why, 256, "%s from %" PRId64 " on %s", names[kind], f->have, bad);
		sqlite3_reset(q);
		return taken;
	}
	if (status == PAL_EFORMAT)
		snprintf(why, 256, "%.255s", said.text);
	else if (status)
		pal__fail(f->err, status, "%s", said.text);
	else if (f->have != count)
		snprintf(why, 256, "%" PRId64 " %s instead of %" PRId64, f->have, names[kind],
			 count);
	return !status && f->have != count ? PAL_EFORMAT : status;
}

/* --- sessions ------------------------------------------------------------------------ */

void pal__stored_free(pal__stored *s)
{
	for (size_t i = 0; i < s->n_changes && s->changes; i++)
		pal__free(s->changes[i].ids);
	pal__free(s->changes);
	pal__free(s->events);
	pal__free(s->ids);
	*s = (pal__stored){0};
}

static pal_status make_room(pal__stored *s, pal_error *err)
{
	size_t n_ids = (size_t)s->record.length, n_events = (size_t)s->record.n_events;
	s->ids = pal__calloc(n_ids, sizeof *s->ids);
	s->events = pal__calloc(n_events, sizeof *s->events);
	s->changes = pal__calloc(s->n_changes, sizeof *s->changes);
	if (s->ids && s->events && s->changes)
		return PAL_OK;
	return pal__fail_memory(err, "a stored session",
				n_ids * sizeof *s->ids + n_events * sizeof *s->events);
}

pal_status pal__store_load_locked(pal__store *t, const char *id, pal__stored *out, pal_error *err)
{
	pal__found_session found = {0};
	char why[256] = "";
	pal_status status = pal__store_find(t, id, &found, err);
	if (status)
		return status;
	pal__stored s = {.record = found.record, .n_changes = found.n_changes};
	filling f = {.id = id, .s = &s, .err = err};
	status = make_room(&s, err);
	const int64_t counts[] = {s.record.length, (int64_t)s.record.n_events,
				  (int64_t)s.n_changes};
	for (int kind = PAL__TOKENS; !status && kind <= PAL__CHANGES; kind++)
		status = load_pieces(t, found.n, kind, counts[kind], &f, why);
	if (!status) {
		*out = s;
		return PAL_OK;
	}
	pal__stored_free(&s);
	return status == PAL_EFORMAT ? pal__store_damaged(t, found.n, id, why, err) : status;
}

pal_status pal__store_load(pal__store *t, const char *id, pal__stored *out, pal_error *err)
{
	pthread_mutex_lock(&t->mutex);
	pal_status status = pal__store_load_locked(t, id, out, err);
	pthread_mutex_unlock(&t->mutex);
	return status;
}
