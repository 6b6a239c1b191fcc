/* What changes sessions in the store: each function is one transaction. */
#include <inttypes.h>
#include <string.h>

#include "base/checked.h"
#include "base/mem.h"
#include "session/store_sql.h"

/* Whose pieces are written. */
typedef struct {
	pal__store *t;
	int64_t n;
	const char *id;
	pal_error *err;
} target;

static pal_status put_piece(const target *g, pal__kind kind, int64_t at, const void *data, size_t n)
{
	int64_t sum = (int64_t)pal__store_sum(g->id, kind, at, data, n);
	return pal__sql_run(g->t,
			    pal__sql_bind(g->t, PAL__SQL_PUT_PIECE, "iiibi", g->n, (int64_t)kind,
					  at, data, n, sum),
			    g->err);
}

static pal_status cut_pieces(const target *g, pal__kind kind, int64_t at)
{
	return pal__sql_run(
		g->t, pal__sql_bind(g->t, PAL__SQL_CUT_PIECES, "iii", g->n, (int64_t)kind, at),
		g->err);
}

/* The tokens [*at, keep) of the last row before `keep`, if it is not full; else *at = keep. */
static pal_status read_tail(const target *g, int64_t keep, int32_t tail[PAL__PIECE_TOKENS],
			    int64_t *at)
{
	int rc = 0;
	const char *why = NULL;
	sqlite3_stmt *q =
		pal__sql_bind(g->t, PAL__SQL_LAST_PIECE, "iii", g->n, (int64_t)PAL__TOKENS, keep);
	pal_status status = pal__sql_step(g->t, q, &rc, g->err);
	*at = keep;
	if (status || (rc != SQLITE_ROW && !keep))
		return status;
	int64_t first = rc == SQLITE_ROW ? sqlite3_column_int64(q, 0) : 0;
	const void *data = rc == SQLITE_ROW ? sqlite3_column_blob(q, 1) : NULL;
	size_t n = data ? (size_t)sqlite3_column_bytes(q, 1) : 0;
	if (!n || n % 4 || n / 4 > PAL__PIECE_TOKENS || (uint64_t)(keep - first) > n / 4)
		why = "tokens are missing";
	else if (pal__store_sum(g->id, PAL__TOKENS, first, data, n) !=
		 (uint64_t)sqlite3_column_int64(q, 2))
		why = "the last tokens do not fit their checksum";
	else if (keep - first < PAL__PIECE_TOKENS)
		memcpy(tail, data, 4 * (size_t)(keep - (*at = first)));
	sqlite3_reset(q);
	return why ? pal__store_damaged(g->t, g->n, g->id, why, g->err) : PAL_OK;
}

/* Tokens [0, keep) stay, and ids[n_ids] follow them. Rows are filled up, so that a commit writes
 * one or two however long the log is. */
static pal_status put_tokens(const target *g, int64_t keep, const int32_t *ids, size_t n_ids)
{
	int32_t row[PAL__PIECE_TOKENS];
	int64_t at = 0;
	pal_status status = read_tail(g, keep, row, &at);
	if (!status)
		status = cut_pieces(g, PAL__TOKENS, at);
	size_t have = (size_t)(keep - at);
	while (!status && have + n_ids) {
		size_t room = PAL__PIECE_TOKENS - have, more = n_ids < room ? n_ids : room;
		if (more)
			memcpy(row + have, ids, 4 * more);
		ids += more;
		n_ids -= more;
		status = put_piece(g, PAL__TOKENS, at, row, 4 * (have + more));
		at += (int64_t)(have + more);
		have = 0;
	}
	return status;
}

static pal_status put_events(const target *g, uint64_t keep, const pal_event *events, uint64_t n)
{
	uint8_t bytes[PAL__EVENT_BYTES];
	pal_status status = cut_pieces(g, PAL__EVENTS, (int64_t)keep);
	for (uint64_t i = 0; !status && i < n; i++) {
		size_t size = pal__event_encode(&events[i], bytes);
		if (!size)
			return pal__fail(g->err, PAL_EINVAL, "event %" PRIu64 " is none", keep + i);
		status = put_piece(g, PAL__EVENTS, (int64_t)(keep + i), bytes, size);
	}
	return status;
}

static pal_status put_change(const target *g, uint64_t at, const pal__change *c)
{
	size_t n = pal__change_bytes(c);
	if (!n)
		return pal__fail(g->err, PAL_EINVAL, "change %" PRIu64 " is none", at);
	uint8_t *bytes = pal__alloc(n);
	if (!bytes)
		return pal__fail_memory(g->err, "a change", n);
	pal__change_encode(c, bytes);
	pal_status status = put_piece(g, PAL__CHANGES, (int64_t)at, bytes, n);
	pal__free(bytes);
	return status;
}

/* --- whole sessions ---------------------------------------------------------------- */

static pal_status encode(const pal__record *r, uint64_t n_changes, uint8_t out[PAL__RECORD_BYTES],
			 pal_error *err)
{
	size_t n = strnlen(r->id, sizeof r->id);
	if (n && n < sizeof r->id && pal__record_encode(r, n_changes, out))
		return PAL_OK;
	return pal__fail(err, PAL_EINVAL, "the record of session %.*s is none", (int)n, r->id);
}

/* All of it, within a transaction. */
static pal_status insert(pal__store *t, const pal__stored *s, pal_error *err)
{
	const pal__record *r = &s->record;
	uint8_t bytes[PAL__RECORD_BYTES];
	pal_status status = encode(r, s->n_changes, bytes, err);
	if (status)
		return status;
	int64_t sum =
		(int64_t)pal__store_sum(r->id, PAL__RECORD, (int64_t)r->owner, bytes, sizeof bytes);
	status = pal__sql_run(t,
			      pal__sql_bind(t, PAL__SQL_CREATE, "tidbi", r->id, (int64_t)r->owner,
					    r->used, bytes, sizeof bytes, sum),
			      err);
	target g = {t, sqlite3_last_insert_rowid(t->db), r->id, err};
	if (!status)
		status = put_tokens(&g, 0, s->ids, (size_t)r->length);
	if (!status)
		status = put_events(&g, 0, s->events, r->n_events);
	for (size_t i = 0; !status && i < s->n_changes; i++)
		status = put_change(&g, i, &s->changes[i]);
	return status;
}

static pal_status insert_locked(pal__store *t, const pal__stored *s, pal_error *err)
{
	pal_status status = pal__sql_begin(t, err);
	return status ? status : pal__sql_end(t, insert(t, s, err), err);
}

pal_status pal__store_insert(pal__store *t, const pal__stored *stored, pal_error *err)
{
	pthread_mutex_lock(&t->mutex);
	pal_status status = insert_locked(t, stored, err);
	pthread_mutex_unlock(&t->mutex);
	return status;
}

pal_status pal__store_create(pal__store *t, const pal__record *record, pal_error *err)
{
	pal__stored s = {.record = *record};
	if (record->length || record->n_events)
		return pal__fail(err, PAL_EINVAL, "a session that is new has no log");
	return pal__store_insert(t, &s, err);
}

pal_status pal__store_fork(pal__store *t, const char *id, const pal__record *record, pal_error *err)
{
	pal__stored s = {0};
	pthread_mutex_lock(&t->mutex);
	pal_status status = pal__store_load_locked(t, id, &s, err);
	if (!status) {
		const pal__record from = s.record;
		s.record = *record;
		s.record.length = from.length;
		s.record.n_events = from.n_events;
		status = insert_locked(t, &s, err);
	}
	pthread_mutex_unlock(&t->mutex);
	pal__stored_free(&s);
	return status;
}

pal_status pal__store_delete(pal__store *t, const char *id, pal_error *err)
{
	pthread_mutex_lock(&t->mutex);
	pal_status status = pal__sql_run(t, pal__sql_bind(t, PAL__SQL_DELETE, "t", id), err);
	if (!status && !sqlite3_changes(t->db))
		status = pal__fail(err, PAL_ENOTFOUND, "there is no session %s", id);
	pthread_mutex_unlock(&t->mutex);
	return status;
}

/* --- commits -------------------------------------------------------------------------- */

/* The tokens from `keep` on of what a commit makes. */
typedef struct {
	int64_t keep;
	const int32_t *ids;
	size_t n_ids;
	int32_t *own; /* ids, where they are no caller's */
} tokens;

/* Tokens [from, c->keep) of the log after the change, and c->ids behind them: what stands before
 * the change stays. */
static pal_status join(const pal__commit *c, const pal__stored *before, tokens *k, pal_error *err)
{
	const pal__change *h = c->change;
	int64_t after = h->position + h->n_new;
	k->keep = c->keep < h->position ? c->keep : h->position;
	size_t moved = (size_t)(c->keep - k->keep), bytes;
	if (!pal__add_size(moved, k->n_ids, &k->n_ids) || !pal__mul_size(k->n_ids, 4, &bytes) ||
	    !(k->own = pal__alloc(bytes)))
		return pal__fail_memory(err, "a change", k->n_ids);
	for (int64_t i = k->keep; i < c->keep; i++)
		k->own[i - k->keep] = i < after ? h->ids[h->n_old + i - h->position]
						: before->ids[i - h->n_new + h->n_old];
	if (k->n_ids > moved)
		memcpy(k->own + moved, c->ids, 4 * (k->n_ids - moved));
	k->ids = k->own;
	return PAL_OK;
}

/* A change is rare: the whole log is read. */
static pal_status apply_change(pal__store *t, const pal__commit *c, tokens *k, pal_error *err)
{
	const pal__change *h = c->change;
	pal__stored before = {0};
	pal_status status = pal__store_load_locked(t, c->record->id, &before, err);
	if (status)
		return status;
	int64_t left = before.record.length - h->position;
	if (!pal__change_bytes(h) || left < h->n_old ||
	    (h->n_old && memcmp(before.ids + h->position, h->ids, 4 * (size_t)h->n_old)))
		status = pal__fail(err, PAL_EINVAL,
				   "session %s: a change at %" PRId64 " of what is not there",
				   c->record->id, h->position);
	else
		status = join(c, &before, k, err);
	pal__stored_free(&before);
	return status;
}

static pal_status check_commit(const pal__commit *c, const pal__found_session *found,
			       pal_error *err)
{
	int64_t length = found->record.length;
	if (c->change)
		length += (int64_t)c->change->n_new - c->change->n_old;
	if (c->keep < 0 || c->keep > length || c->record->length < c->keep ||
	    c->record->length > PAL_MAX_LOG)
		return pal__fail(err, PAL_EINVAL,
				 "session %s: %" PRId64 " tokens after the first %" PRId64
				 " of %" PRId64,
				 c->record->id, c->record->length - c->keep, c->keep, length);
	if (c->keep_events > found->record.n_events || c->record->n_events < c->keep_events)
		return pal__fail(
			err, PAL_EINVAL,
			"session %s: %" PRIu64 " events, with the first %" PRIu64 " of %" PRIu64,
			c->record->id, c->record->n_events, c->keep_events, found->record.n_events);
	return PAL_OK;
}

/* Within a transaction. */
static pal_status write(pal__store *t, const pal__commit *c, const pal__found_session *found,
			const tokens *k, pal_error *err)
{
	const pal__record *r = c->record;
	uint8_t bytes[PAL__RECORD_BYTES];
	target g = {t, found->n, found->record.id, err};
	bool anew = !c->keep && !c->change; /* changes are of what is there no more */
	uint64_t changes = anew ? 0 : found->n_changes + (c->change != NULL);
	pal_status status = encode(r, changes, bytes, err);
	if (!status && anew && found->n_changes)
		status = cut_pieces(&g, PAL__CHANGES, 0);
	if (!status)
		status = put_tokens(&g, k->keep, k->ids, k->n_ids);
	if (!status)
		status = put_events(&g, c->keep_events, c->events, r->n_events - c->keep_events);
	if (!status && c->change)
		status = put_change(&g, found->n_changes, c->change);
	if (status)
		return status;
	int64_t sum = (int64_t)pal__store_sum(found->record.id, PAL__RECORD,
					      (int64_t)found->record.owner, bytes, sizeof bytes);
	return pal__sql_run(
		t,
		pal__sql_bind(t, PAL__SQL_SET, "dbii", r->used, bytes, sizeof bytes, sum, found->n),
		err);
}

static pal_status commit_locked(pal__store *t, const pal__commit *c, pal_error *err)
{
	pal__found_session found = {0};
	tokens k = {c->keep, c->ids, (size_t)(c->record->length - c->keep), NULL};
	pal_status status = pal__store_find(t, c->record->id, &found, err);
	if (!status)
		status = check_commit(c, &found, err);
	if (!status && c->change)
		status = apply_change(t, c, &k, err);
	if (!status)
		status = pal__sql_begin(t, err);
	if (!status)
		status = pal__sql_end(t, write(t, c, &found, &k, err), err);
	pal__free(k.own);
	return status;
}

pal_status pal__store_commit(pal__store *t, const pal__commit *commit, pal_error *err)
{
	pthread_mutex_lock(&t->mutex);
	pal_status status = commit_locked(t, commit, err);
	pthread_mutex_unlock(&t->mutex);
	return status;
}
