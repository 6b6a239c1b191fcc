/* Events: chunks into sight, the last positions read again, and a line in the event log. */
#include <assert.h>
#include <string.h>

#include "base/clock.h"
#include "session/session.h"

#define CLEAR 0.05f /* a score that makes a chunk worth a look */
#define RIVAL 0.5f  /* and as a part of the best one's */
#define SURE 0.4f   /* as generation goes on, where a wrong one costs two forwards */

uint64_t pal_session_n_events(const pal_session *s)
{
	return s->n_events;
}

pal_status pal_session_event(const pal_session *s, uint64_t i, pal_event *out, pal_error *err)
{
	if (i >= s->n_events)
		return pal__fail(err, PAL_EINVAL, "event %llu: the session has had %llu",
				 (unsigned long long)i, (unsigned long long)s->n_events);
	return pal__disk_read(&s->event_file, out, sizeof *out, i * sizeof *out, err);
}

static pal_status record(pal_session *s, const pal__recalling *r, pal_error *err)
{
	pal_event e;
	memset(&e, 0, sizeof e);
	e.position = r->at;
	e.reread = r->reread;
	e.n_chunks = r->n;
	memcpy(e.chunks, s->restore.chunks, (size_t)r->n * sizeof *e.chunks);
	memcpy(e.sources, s->restore.sources, (size_t)r->n);
	pal_status status =
		pal__disk_write(&s->event_file, &e, sizeof e, s->n_events * sizeof e, err);
	s->n_events += !status;
	return status;
}

/* Positions [at - reread, at) once more. Those that the log does not have yet are in rows to come,
 * and so their tokens are read from the log file, which has them. */
static pal_status read_again(pal_session *s, const pal__recalling *r, pal_error *err)
{
	pal__tap tap = {.at = pal__restore_tap, .user = &s->restore};
	size_t n_vocab = s->model->h.n_vocab;
	pal__index_restart(&s->restore.index, r->at - r->reread);
	for (int64_t pos = r->at - r->reread; pos < r->at;) {
		size_t n = (size_t)(r->at - pos);
		n = n < (size_t)s->n_batch ? n : (size_t)s->n_batch;
		n = pal__kv_piece(&s->kv, pos, n);
		for (size_t i = 0; i < n; i++) {
			int64_t at = pos + (int64_t)i;
			float *to = at + 1 == r->at ? s->next_logits : NULL;
			if (r->logits && at >= r->first)
				to = r->logits + (size_t)(at - r->first) * n_vocab;
			s->rows[i] = (pal__row){s->log[at], at, &s->kv, to};
			s->far_reads += s->kv.far_rows - (size_t)s->kv.shape.sink;
		}
		pal__forward(s->model, &s->scratch, s->rows, (int)n, &tap);
		pos += (int64_t)n;
	}
	return pal__restore_tapped(&s->restore, err);
}

pal_status pal__session_event(pal_session *s, const pal__recalling *r, pal_error *err)
{
	int64_t end = pal__restore_end(&s->restore, r->at - r->reread);
	double start = pal__now();
	pal_status status = pal__restore_keep(&s->restore, end, err);
	if (!status)
		status = pal__restore_fill(&s->restore, r->chunks, r->sources, r->n, end,
					   r->sources != NULL, err);
	if (!status && !r->replay)
		status = record(s, r, err);
	if (status)
		return status;
	double filled = pal__now();
	s->fill_s += filled - start;
	status = read_again(s, r, err);
	s->reread_s += pal__now() - filled;
	if (r->n)
		s->bare = INT64_MAX;
	else if (s->bare > r->at - r->reread)
		s->bare = r->at - r->reread;
	return status ? status : pal__model_intact(s->model, err);
}

/* An event at the end of the log, whose last logits it makes anew. On failure the session is as
 * log and events say, though not in its K/V. */
static pal_status event_now(pal_session *s, pal__recalling *r, pal_error *err)
{
	uint64_t n_events = s->n_events;
	r->at = s->length;
	pal_status status = pal__session_event(s, r, err);
	if (status) {
		s->n_events = n_events;
		s->stale = true;
		return status;
	}
	pal__session_new_logits(s);
	return PAL_OK;
}

/* What an earlier question brought back is put away before this one is read. Where nothing was in
 * sight of it nothing would change: no event, and it is read again only if what it looks for is no
 * longer known. */
static pal_status put_away(pal_session *s, pal__recalling *r, int64_t end, pal_error *err)
{
	pal__index *x = &s->restore.index;
	int64_t from = s->length - r->reread;
	int scored = r->reread < PAL__SCORED_ROWS ? r->reread : PAL__SCORED_ROWS;
	if (s->bare > from)
		return event_now(s, r, err);
	if (x->q_end == s->length && x->q_from <= s->length - scored) {
		x->q_from = x->q_from > from ? x->q_from : from;
		return pal__restore_keep(&s->restore, end, err);
	}
	r->replay = true;
	pal_status status = event_now(s, r, err);
	r->replay = false;
	return status;
}

/* --- selection --------------------------------------------------------------------- */

static bool in_sight(const int32_t *set, int n, int32_t chunk)
{
	for (int i = 0; i < n; i++)
		if (set[i] == chunk)
			return true;
	return false;
}

static void add_sorted(int32_t *set, int *n, int32_t chunk)
{
	int at = (*n)++;
	for (; at > 0 && set[at - 1] > chunk; at--)
		set[at] = set[at - 1];
	set[at] = chunk;
}

static pal_status score(pal_session *s, int64_t end, int rows, bool later,
			pal__found found[PAL__MAX_FOUND], size_t *n, pal_error *err)
{
	double start = pal__now();
	pal_status status = pal__index_score(&s->restore.index, end, rows, later, found, n, err);
	s->select_s += pal__now() - start;
	return status;
}

/* The best chunk found that is worth it and not in the set; -1: none. */
static int32_t best_new(const pal__found *found, size_t n_found, float least, const int32_t *set,
			int n)
{
	for (size_t i = 0; i < n_found; i++) {
		if (found[i].score < least || found[i].score < RIVAL * found[0].score)
			return -1;
		if (!in_sight(set, n, found[i].chunk))
			return found[i].chunk;
	}
	return -1;
}

/* Adds to the set up to `most` of the chunks found. */
static void add_found(const pal_session *s, const pal__found *found, size_t n_found, int most,
		      int32_t *set, int *n)
{
	for (int32_t c; most > 0 && *n < s->restore.slots; most--) {
		c = best_new(found, n_found, CLEAR, set, *n);
		if (c < 0)
			break;
		add_sorted(set, n, c);
	}
}

/* Adds what attention looks for below `end`. */
static pal_status choose(pal_session *s, int64_t end, int rows, bool later, int most, int32_t *set,
			 int *n, pal_error *err)
{
	pal__found found[PAL__MAX_FOUND];
	size_t count;
	if (s->o.selection == PAL_SELECT_LEXICAL)
		return PAL_OK;
	pal_status status = score(s, end, rows, later, found, &count, err);
	if (!status)
		add_found(s, found, count, most, set, n);
	return status;
}

/* Adds what shares words with the `reread` positions before `at`, where this is asked for: once for
 * each question, since what is brought back changes nothing about them. Beside attention, one. */
static pal_status choose_words(pal_session *s, int64_t at, int reread, int64_t end, int most,
			       int32_t *set, int *n, pal_error *err)
{
	pal__found found[PAL__MAX_FOUND];
	size_t count;
	if (s->o.selection == PAL_SELECT_ATTENTION)
		return PAL_OK;
	double start = pal__now();
	pal_status status = pal__lexical_score(&s->log_file, s->kv.shape.sink, end, at,
					       (size_t)reread, found, &count, err);
	s->select_s += pal__now() - start;
	if (!status)
		add_found(s, found, count, s->o.selection == PAL_SELECT_BOTH ? 1 : most, set, n);
	return status;
}

pal_status pal_session_restore(pal_session *s, pal_error *err)
{
	int reread = s->length < s->o.reread ? (int)s->length : s->o.reread;
	pal_status status = pal__session_refresh(s, err);
	if (status || !s->restores || !s->length)
		return status;
	int64_t end = pal__restore_end(&s->restore, s->length - reread);
	if (!end)
		return PAL_OK;
	int32_t set[PAL_MAX_SLOTS];
	int n = 0;
	pal__recalling r = {.reread = reread, .chunks = set};
	status = put_away(s, &r, end, err);
	for (int round = 0; !status && round < s->o.rounds; round++) {
		if (!round)
			status = choose_words(s, s->length, reread, end, s->o.round_chunks, set, &n,
					      err);
		if (!status)
			status = choose(s, end, PAL__SCORED_ROWS, round > 0, s->o.round_chunks, set,
					&n, err);
		if (status || n == r.n)
			break;
		r.n = n;
		s->n_rounds++;
		status = event_now(s, &r, err);
	}
	return status;
}

static float score_of(const pal__found *found, size_t n, int32_t chunk)
{
	for (size_t i = 0; i < n; i++)
		if (found[i].chunk == chunk)
			return found[i].score;
	return 0;
}

/* Takes out of a full set the chunk that the last position looks for least. */
static void make_room(int32_t *set, int *n, const pal__found *found, size_t n_found)
{
	int worst = 0;
	for (int i = 1; i < *n; i++)
		if (score_of(found, n_found, set[i]) < score_of(found, n_found, set[worst]))
			worst = i;
	memmove(set + worst, set + worst + 1, (size_t)(--*n - worst) * sizeof *set);
}

/* What the last position looks for, if it is not in sight: set[n] with it. *n is 0: nothing. */
static pal_status look(pal_session *s, int32_t *set, int *n, pal_error *err)
{
	pal__restore *r = &s->restore;
	pal__found found[PAL__MAX_FOUND];
	size_t n_found;
	*n = 0;
	if (!s->restores || s->o.no_restore_generated || s->stale || s->settled ||
	    r->index.q_end == r->index.q_from || s->o.selection == PAL_SELECT_LEXICAL)
		return PAL_OK;
	int64_t end = pal__restore_end(r, s->length - 1);
	pal_status status = score(s, end, 1, true, found, &n_found, err);
	int32_t chunk = status ? -1 : best_new(found, n_found, SURE, r->chunks, r->n_chunks);
	s->settled = !status && chunk < 0;
	if (chunk < 0)
		return status;
	*n = r->n_chunks;
	memcpy(set, r->chunks, sizeof r->chunks);
	if (*n == r->slots)
		make_room(set, n, found, n_found);
	add_sorted(set, n, chunk);
	return PAL_OK;
}

pal_status pal__session_looks(pal_session *s, bool *out, pal_error *err)
{
	int32_t set[PAL_MAX_SLOTS];
	int n;
	pal_status status = look(s, set, &n, err);
	*out = n > 0;
	return status;
}

pal_status pal__session_reselect(pal_session *s, pal_error *err)
{
	for (int round = 0; round < 2; round++) {
		int32_t set[PAL_MAX_SLOTS];
		int n;
		pal_status status = look(s, set, &n, err);
		if (status || !n)
			return status;
		pal__recalling again = {.reread = 1, .chunks = set, .n = n};
		s->n_rounds++;
		status = event_now(s, &again, err);
		if (status)
			return status;
	}
	s->settled = true;
	return PAL_OK;
}

pal_status pal__session_restore_prefill(pal_session *s, int64_t at, float *logits, int64_t first,
					pal_error *err)
{
	int reread = PAL__ATTN_BLOCK;
	int64_t end = pal__restore_end(&s->restore, at - reread);
	int32_t set[PAL_MAX_SLOTS];
	pal__recalling r = {
		.at = at, .reread = reread, .chunks = set, .logits = logits, .first = first};
	if (!end)
		return PAL_OK;
	pal_status status = pal__restore_keep(&s->restore, end, err);
	if (!status)
		status = choose_words(s, at, reread, end, s->restore.slots, set, &r.n, err);
	if (!status)
		status = choose(s, end, PAL__ATTN_BLOCK, false, s->restore.slots, set, &r.n, err);
	if (status || (!r.n && !s->restore.n_chunks))
		return status;
	return pal__session_event(s, &r, err);
}

pal_status pal__session_check_event(const pal_session *s, const pal_event *e, int64_t length,
				    pal_error *err)
{
	if (e->position != length || e->reread < 1 || e->reread > s->kv.shape.reread ||
	    e->reread > e->position)
		return pal__fail(
			err, PAL_EINVAL,
			"an event at %lld that reads %d again: the log has %lld tokens, and up "
			"to %lld are read again",
			(long long)e->position, e->reread, (long long)length,
			(long long)s->kv.shape.reread);
	if (e->n_chunks < 0 || e->n_chunks > s->restore.slots)
		return pal__fail(err, PAL_EINVAL, "an event of %d chunks: there are %d slots",
				 e->n_chunks, s->restore.slots);
	int64_t end = pal__restore_end(&s->restore, length - e->reread);
	for (int i = 0; i < e->n_chunks; i++)
		if (e->chunks[i] < 0 || (int64_t)e->chunks[i] * PAL_CHUNK >= end ||
		    (i && e->chunks[i] <= e->chunks[i - 1]))
			return pal__fail(
				err, PAL_EINVAL,
				"chunk %d of an event: ascending ones below position %lld are "
				"possible",
				e->chunks[i], (long long)end);
	return PAL_OK;
}

pal_status pal_session_apply(pal_session *s, const pal_event *e, pal_error *err)
{
	if (!s->restores)
		return pal__fail(err, PAL_EINVAL, "this session restores nothing");
	pal_status status = pal__session_check_event(s, e, s->length, err);
	if (!status)
		status = pal__session_refresh(s, err);
	if (status)
		return status;
	pal__recalling r = {
		.reread = e->reread, .chunks = e->chunks, .sources = e->sources, .n = e->n_chunks};
	return event_now(s, &r, err);
}

/* --- what happened ---------------------------------------------------------------------- */

void pal_session_get_stats(const pal_session *s, pal_session_stats *out)
{
	const pal__restore *r = &s->restore;
	pal_session_stats t = {.length = s->length,
			       .resident = s->length,
			       .events = s->n_events,
			       .rounds = s->n_rounds,
			       .kept_reads = r->memo.hits,
			       .fallbacks = r->fallbacks,
			       .dropped = r->dropped,
			       .far_reads = s->far_reads,
			       .kv_bytes = s->kv.bytes,
			       .scratch_bytes = s->scratch_bytes,
			       .disk_bytes = s->log_file.bytes + s->event_file.bytes +
					     r->index.disk.bytes + r->spill.disk.bytes +
					     r->hidden.disk.bytes + r->memo.disk.bytes,
			       .select_s = s->select_s,
			       .fill_s = s->fill_s,
			       .reread_s = s->reread_s};
	if (s->bounded) {
		int64_t kept = s->kv.shape.sink + s->kv.shape.window;
		t.restored = (int64_t)s->kv.far_rows - s->kv.shape.sink;
		t.evicted = s->length > kept ? s->length - kept : 0;
		t.resident = s->length - t.evicted + t.restored;
	}
	memcpy(t.filled, r->filled, sizeof t.filled);
	memcpy(t.note, r->note, sizeof t.note);
	*out = t;
}

void pal__session_control(pal_session *s, pal__control control, pal_session *other)
{
	s->restore.site.control = control;
	s->restore.other = control == PAL__CONTROL_FOREIGN ? &other->restore : NULL;
}
