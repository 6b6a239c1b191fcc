/* Changes of what stood in the log long before its end: a clock in a system prompt, a tool's
 * result that a client rewrote, a turn that is taken back.
 *
 * A change replaces tokens at a position; its cost is that of the new tokens and of a seam, however
 * long the log. What is computed anew are the index's keys of the new tokens and of SEAM positions
 * behind them, each chunk read apart as the source `recompute` does, and the last `reread`
 * positions. All else stays what was read before the change, moved to where it stands now: index,
 * window, sinks. So the bits are not those of a session that read the new log from its start: they
 * are a function of log, events and changes, in their order (contract C2), which a replay repeats.
 *
 * Invariants:
 *  - Rows that are moved are those that every session of this log and these events has, however
 *    its calls were grouped; what a ring happens to have beside them is not used.
 *  - On failure log, index and K/V are as before, or the session is stale.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/checked.h"
#include "session/session.h"

#define SEAM 32 /* positions behind a change whose keys are made anew */

typedef struct {
	pal_session *s;
	int64_t position, n_old, n_new, length, end; /* length: new; end: of the index, new */
	bool cut;                                    /* the log's end is taken away */
	int64_t total;      /* of the log file before; a replay's has what came later, too */
	const int32_t *ids; /* [n_new] */
	pal__kv old;        /* as it was, mapped; where rows do not move in place */
	pal_status status;
	pal_error *err;
} changing;

static int64_t moved(const changing *c)
{
	return c->n_new - c->n_old;
}

/* --- the log ---------------------------------------------------------------------- */

static pal_status write_ids(pal__disk *to, int64_t at, const int32_t *ids, int64_t n,
			    pal_error *err)
{
	return pal__disk_write(to, ids, (size_t)n * sizeof *ids, (uint64_t)at * sizeof *ids, err);
}

/* The log with n_old of its `length` tokens at `position` replaced, in a file of its own that then
 * takes the place of the old one. */
static pal_status rewrite_log(pal_session *s, int64_t length, int64_t position, int64_t n_old,
			      const int32_t *ids, int64_t n_new, pal_error *err)
{
	pal__disk file = PAL__NO_DISK;
	pal_status status = pal__disk_open(&file, s->o.disk_dir, "the token log", err);
	if (!status)
		status = write_ids(&file, 0, s->log, position, err);
	if (!status)
		status = write_ids(&file, position, ids, n_new, err);
	if (!status)
		status = write_ids(&file, position + n_new, s->log + position + n_old,
				   length - position - n_old, err);
	if (!status && mmap(s->log, (size_t)s->n_ctx * sizeof *s->log, PROT_READ,
			    MAP_SHARED | MAP_NORESERVE | MAP_FIXED, file.fd, 0) == MAP_FAILED)
		status = pal__fail(err, PAL_EIO, "the token log: cannot map it");
	if (status) {
		pal__disk_close(&file);
		return status;
	}
	pal__disk_close(&s->log_file);
	s->log_file = file;
	return PAL_OK;
}

/* --- the list of changes ------------------------------------------------------------- */

static pal_status list_change(pal_session *s, const pal__changed *c, const int32_t *ids,
			      pal_error *err)
{
	pal_status status = PAL_OK;
	if (s->change_file.fd < 0)
		status = pal__disk_open(&s->change_file, s->o.disk_dir, "the list of changes", err);
	if (!status && s->change_ids.fd < 0)
		status = pal__disk_open(&s->change_ids, s->o.disk_dir, "the changed tokens", err);
	pal__changed entry = *c;
	size_t bytes = (size_t)(c->n_old + c->n_new) * sizeof *ids;
	entry.ids_at = s->changed_ids;
	if (!status)
		status = pal__disk_write(&s->change_ids, ids, bytes, s->changed_ids, err);
	if (!status)
		status = pal__disk_write(&s->change_file, &entry, sizeof entry,
					 s->n_changes * sizeof entry, err);
	if (status)
		return status;
	s->changed_ids += bytes;
	s->n_changes++;
	return PAL_OK;
}

pal_status pal__session_changed(const pal_session *s, uint64_t i, pal__changed *out, int32_t **ids,
				pal_error *err)
{
	pal__changed c = {0};
	pal_status status = pal__disk_read(&s->change_file, &c, sizeof c, i * sizeof c, err);
	if (status)
		return status;
	size_t bytes = (size_t)(c.n_old + c.n_new) * sizeof **ids;
	int32_t *all = pal__alloc(bytes + 1);
	if (!all)
		return pal__fail_memory(err, "changed tokens", bytes);
	status = pal__disk_read(&s->change_ids, all, bytes, c.ids_at, err);
	if (status) {
		pal__free(all);
		return status;
	}
	*out = c;
	*ids = all;
	return PAL_OK;
}

pal_status pal__session_log_of(pal_session *s, uint64_t version, int64_t *length, pal_error *err)
{
	pal_status status = PAL_OK;
	while (!status && s->log_version != version) {
		bool undo = s->log_version > version;
		pal__changed c = {0};
		int32_t *ids = NULL;
		status = pal__session_changed(s, undo ? s->log_version - 1 : s->log_version, &c,
					      &ids, err);
		if (status)
			break;
		int64_t there = undo ? c.n_new : c.n_old;
		if (c.n_old < 0 || c.n_new < 0 || c.position < 0 || c.position > *length - there) {
			pal__free(ids);
			return pal__fail(err, PAL_EFORMAT, "a change at %lld of %lld tokens",
					 (long long)c.position, (long long)*length);
		}
		int64_t now = undo ? *length + c.n_old - c.n_new : *length + c.n_new - c.n_old;
		if (undo)
			status = rewrite_log(s, *length, c.position, c.n_new, ids, c.n_old, err);
		else
			status = rewrite_log(s, *length, c.position, c.n_old, ids + c.n_old,
					     c.n_new, err);
		pal__free(ids);
		if (!status) {
			*length = now;
			s->log_version = undo ? s->log_version - 1 : s->log_version + 1;
		}
	}
	return status;
}

/* --- rows that are read apart --------------------------------------------------------- */

typedef pal_status (*rows_fn)(changing *c, const pal__kv *kv, int64_t at, int64_t pos, int64_t n);

/* Positions [from, end) of the log as it is now, span by span, each with what is left of it. */
static void read_apart(changing *c, int64_t from, int64_t end, rows_fn each)
{
	pal__restore *r = &c->s->restore;
	int64_t sink = c->s->kv.shape.sink;
	from = from < sink ? sink : from;
	while (!c->status && from < end) {
		pal__span spans[PAL__RUNS];
		int64_t at[PAL__RUNS];
		int n = 0;
		for (; n < r->runs.n && from < end; n++, from = spans[n - 1].end) {
			int64_t to = from + PAL__SPAN_ROWS;
			spans[n] = (pal__span){.from = from, .end = to < end ? to : end};
		}
		pal__runs_read(&r->runs, &r->site, spans, n, at, NULL);
		for (int i = 0; i < n && !c->status; i++)
			c->status = each(c, &r->runs.kv[i], at[i], spans[i].from,
					 spans[i].end - spans[i].from);
	}
}

static pal_status to_index(changing *c, const pal__kv *kv, int64_t at, int64_t pos, int64_t n)
{
	return pal__index_put(&c->s->restore.index, kv, at, pos, n, c->err);
}

/* --- rings ------------------------------------------------------------------------------ */

typedef struct {
	const changing *c;
	const pal__kv *from;
	int64_t at, pos, n;  /* rows [at, at + n) of `from` become positions [pos, pos + n) */
	bool slides;         /* layers of which kind */
	float *there, *here; /* [n][n_rot] angles at both places */
} transplant;

static void angles_at(const pal_model *m, bool slides, int64_t pos, float *angles)
{
	size_t n_rot = m->h.n_rot;
	pal__rope_at(slides ? &m->h.rope_sliding : &m->h.rope, n_rot, pos, angles,
		     angles + n_rot / 2);
}

static void transplant_angles(void *arg, size_t i, int worker)
{
	const transplant *t = arg;
	const pal_model *m = t->c->s->model;
	angles_at(m, t->slides, t->at + (int64_t)i, t->there + i * m->h.n_rot);
	angles_at(m, t->slides, t->pos + (int64_t)i, t->here + i * m->h.n_rot);
	(void)worker;
}

/* One head of one layer. `from` may be the K/V itself: no row is written before it was read. */
static void transplant_head(void *arg, size_t item, int worker)
{
	const transplant *t = arg;
	pal_session *s = t->c->s;
	const pal__hparams *h = &s->model->h;
	size_t layer = item / h->n_kv_heads, head = item % h->n_kv_heads;
	float k[PAL__KV_MAX_DIM], v[PAL__KV_MAX_DIM];
	(void)worker;
	if (pal__kv_slides(&s->kv.shape, layer) != t->slides)
		return;
	for (int64_t j = 0; j < t->n; j++) {
		int64_t i = t->pos > t->at ? t->n - 1 - j : j;
		const float *here = t->here + i * (int64_t)h->n_rot;
		pal__take(s->model, t->from, t->there + i * (int64_t)h->n_rot, layer, head,
			  t->at + i, k, v);
		s->model->kernels->rope(k, here, here + h->n_rot / 2, h->n_rot);
		pal__kv_store(&s->kv, s->model->kernels, layer, head, t->pos + i, k, v);
	}
}

static void put_rows(const changing *c, const pal__kv *from, int64_t at, int64_t pos, int64_t n,
		     bool slides)
{
	pal_session *s = c->s;
	const pal__hparams *h = &s->model->h;
	for (int64_t done = 0, some; done < n; done += some) {
		some = n - done < PAL__SPAN_ROWS ? n - done : PAL__SPAN_ROWS;
		int64_t i = pos > at ? n - done - some : done;
		transplant t = {.c = c,
				.from = from,
				.at = at + i,
				.pos = pos + i,
				.n = some,
				.slides = slides,
				.there = s->restore.runs.angles,
				.here = s->restore.site.rope};
		pal__pool_run(s->model->pool, (size_t)some, transplant_angles, &t);
		pal__pool_run(s->model->pool, h->n_layers * h->n_kv_heads, transplant_head, &t);
	}
}

static pal_status to_main(changing *c, const pal__kv *kv, int64_t at, int64_t pos, int64_t n)
{
	put_rows(c, kv, at, pos, n, false);
	return PAL_OK;
}

static pal_status to_sliding(changing *c, const pal__kv *kv, int64_t at, int64_t pos, int64_t n)
{
	put_rows(c, kv, at, pos, n, true);
	return PAL_OK;
}

/* The first position that a ring is sure to have for a log of `length` tokens. */
static int64_t first_row(const pal_session *s, bool slides, int64_t length)
{
	const pal__kv_shape *k = &s->kv.shape;
	int64_t first = length - k->reread - (slides ? k->slide : k->sink + k->window) + 1;
	return first < 0 ? 0 : first;
}

/* Whether a row's place is free when it comes there: what a ring must have and the way that it goes
 * fit the ring, which has room for `piece` blocks beside what is seen. */
static bool moves_in_place(const changing *c)
{
	int64_t most = (int64_t)c->s->kv.shape.piece * PAL__ATTN_BLOCK;
	return moved(c) <= most && moved(c) >= -most;
}

/* What a ring must have of the new log. Of a log that was cut the rows stay where they are, but for
 * those that the old end had pushed out; else all are of what is behind the change. */
static void fill_ring(changing *c, bool slides)
{
	int64_t first = first_row(c->s, slides, c->length), from = first - moved(c);
	int64_t had = first_row(c->s, slides, c->length - moved(c));
	if (slides && !c->s->kv.shape.slide)
		return;
	if (c->cut)
		read_apart(c, first, had < c->length ? had : c->length,
			   slides ? to_sliding : to_main);
	else if (moved(c))
		put_rows(c, moves_in_place(c) ? &c->s->kv : &c->old, from, first, c->length - first,
			 slides);
}

/* --- all of it ------------------------------------------------------------------------------ */

static pal_status map_old(changing *c, pal__disk *file, pal_error *err)
{
	pal_session *s = c->s;
	pal_status status = pal__disk_open(file, s->o.disk_dir, "the K/V before a change", err);
	if (!status)
		status = pal__disk_write(file, s->kv.data, s->kv.bytes, 0, err);
	if (status)
		return status;
	uint8_t *p = mmap(NULL, s->kv.bytes, PROT_READ, MAP_PRIVATE, file->fd, 0);
	if (p == MAP_FAILED)
		return pal__fail(err, PAL_EIO, "the K/V before a change: cannot map them");
	c->old = s->kv;
	c->old.data = p;
	c->old.main.data = p + (s->kv.main.data - s->kv.data);
	c->old.far.data = p + (s->kv.far.data - s->kv.data);
	if (s->kv.shape.slide)
		c->old.sliding.data = p + (s->kv.sliding.data - s->kv.data);
	return PAL_OK;
}

/* Index and what sources keep; from here on a failure leaves the session stale. */
static pal_status move_kept(changing *c, pal_error *err)
{
	pal__restore *r = &c->s->restore;
	int64_t last = c->position + c->n_new + SEAM;
	pal_status status = PAL_OK;
	if (!c->cut && moved(c))
		status = pal__index_move(&r->index, c->position, c->n_old, c->n_new,
					 c->end - moved(c), err);
	if (status)
		return status;
	r->kept = r->index.end = c->end;
	r->spill.end = r->spill.end < c->end || !c->cut ? r->spill.end : c->end;
	if (c->cut)
		return PAL_OK;
	/* What a source has of moved positions is not moved: they are recomputed. */
	int64_t doubt = moved(c) ? c->end : last;
	pal__spill_doubt(&r->spill, c->position, doubt);
	pal__hidden_doubt(&r->hidden, c->position, doubt);
	r->spill.end = c->end;
	read_apart(c, c->position, last, to_index);
	return c->status;
}

static pal_status move_all(changing *c, pal_error *err)
{
	pal_session *s = c->s;
	pal_status status = rewrite_log(s, c->total, c->position, c->n_old, c->ids, c->n_new, err);
	if (status)
		return status;
	s->log_version++;
	s->stale = true;
	s->length = c->length;
	s->written = c->length;
	status = move_kept(c, err);
	if (status)
		return status;
	fill_ring(c, false);
	fill_ring(c, true);
	if (c->status)
		return c->status;
	/* Nothing restored is in sight; the last positions are read again like that. */
	int reread = s->length < s->o.reread ? (int)s->length : s->o.reread;
	pal__recalling again = {.at = s->length, .reread = reread, .replay = true};
	s->bare = INT64_MAX; /* what is moved has seen another log */
	status = pal__session_event(s, &again, err);
	s->stale = status != PAL_OK;
	return status;
}

bool pal__session_can_change(const pal_session *s, int64_t position, int64_t n_old, int64_t n_new)
{
	const pal__kv_shape *k = &s->kv.shape;
	int64_t length = s->length, after = length - n_old + n_new;
	int64_t least = k->sink + k->window + k->reread + SEAM;
	if (!s->restores || n_old + n_new < 1 || position < k->sink || n_old < 0 || n_new < 0 ||
	    after <= least || length <= least || position + n_old > length || after > s->n_ctx)
		return false;
	if (position + n_old == length && !n_new)
		return true;
	int64_t first = first_row(s, false, length), slides = first_row(s, true, length);
	int64_t end = first < slides || !k->slide ? first : slides;
	return position + n_old + 2 * SEAM <= end;
}

static pal_status play(pal_session *s, const pal__changed *change, const int32_t *ids,
		       int64_t total, pal_error *err)
{
	pal__disk file = PAL__NO_DISK;
	changing c = {.s = s,
		      .position = change->position,
		      .n_old = change->n_old,
		      .n_new = change->n_new,
		      .length = s->length - change->n_old + change->n_new,
		      .cut = change->position + change->n_old == s->length && !change->n_new,
		      .total = total,
		      .ids = ids + change->n_old,
		      .err = err};
	c.end = c.cut ? pal__restore_end(&s->restore, c.length - s->o.reread)
		      : pal__restore_end(&s->restore, s->length - s->o.reread) + moved(&c);
	pal_status status = pal__restore_keep(&s->restore, c.cut ? c.end : c.end - moved(&c), err);
	if (!status && !c.cut && !moves_in_place(&c))
		status = map_old(&c, &file, err);
	if (!status)
		status = move_all(&c, err);
	if (c.old.data)
		munmap(c.old.data, s->kv.bytes);
	pal__disk_close(&file);
	return status;
}

pal_status pal__session_play_change(pal_session *s, uint64_t i, int64_t total, pal_error *err)
{
	pal__changed c = {0};
	int32_t *ids = NULL;
	pal_status status = pal__session_changed(s, i, &c, &ids, err);
	if (!status)
		status = play(s, &c, ids, total, err);
	pal__free(ids);
	return status;
}

/* The log and the list as they were, of what is in memory; K/V that have changed are stale. */
static void take_back(pal_session *s, const pal__changed *c, const int32_t *ids)
{
	s->n_changes--;
	if (s->log_version > s->n_changes) {
		if (rewrite_log(s, s->length, c->position, c->n_new, ids, c->n_old, NULL))
			s->broken = true;
		s->log_version--;
	}
	s->length = c->at;
}

pal_status pal__session_change(pal_session *s, int64_t position, int64_t n_old, const int32_t *ids,
			       int64_t n_new, pal_error *err)
{
	pal__changed c = {.at = s->length,
			  .position = position,
			  .n_events = s->n_events,
			  .n_old = n_old,
			  .n_new = n_new};
	pal_status status = pal__session_refresh(s, err);
	if (status)
		return status;
	if (!pal__session_can_change(s, position, n_old, n_new))
		return pal__fail(err, PAL_EINVAL,
				 "%lld tokens at %lld of a log of %lld cannot become %lld",
				 (long long)n_old, (long long)position, (long long)s->length,
				 (long long)n_new);
	int32_t *both = pal__alloc((size_t)(n_old + n_new + 1) * sizeof *both);
	if (!both)
		return pal__fail_memory(err, "a change", (size_t)(n_old + n_new) * sizeof *both);
	memcpy(both, s->log + position, (size_t)n_old * sizeof *both);
	if (n_new)
		memcpy(both + n_old, ids, (size_t)n_new * sizeof *both);
	status = list_change(s, &c, both, err);
	if (!status) {
		status = play(s, &c, both, c.at, err);
		if (status)
			take_back(s, &c, both);
		else
			pal__session_new_logits(s);
	}
	pal__free(both);
	return status;
}

pal_status pal__session_resume(pal_session *s, const int32_t *log, int64_t n,
			       const pal_event *events, uint64_t n_events,
			       const pal__changed *changes, const int32_t *const *ids,
			       uint64_t n_changes, pal_error *err)
{
	pal_status status = pal__session_write_log(s, log, (size_t)n, err);
	if (!status && n_events)
		status = pal__disk_write(&s->event_file, events, n_events * sizeof *events, 0, err);
	for (uint64_t i = 0; !status && i < n_changes; i++)
		status = list_change(s, &changes[i], ids[i], err);
	if (status)
		return status;
	s->length = n;
	s->n_events = n_events;
	s->log_version = s->n_changes;
	s->stale = true;
	status = pal__session_refresh(s, err);
	if (!status && n)
		pal__session_new_logits(s);
	return status;
}
