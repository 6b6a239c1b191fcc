/* What makes the service's sessions durable: their place in the store.
 *
 * Invariants:
 *  - A session in memory is ahead of the store, or equal; where a commit failed it is doubtful, and
 *    is made anew from the store before it is used again.
 *  - Changes are committed one by one, as they are made; a commit of tokens and events follows.
 */
#include <string.h>

#include "base/clock.h"
#include "session/live.h"

/* --- commits ------------------------------------------------------------------------ */

static pal_event *new_events(const pal_session *s, uint64_t from, pal_status *status,
			     pal_error *err)
{
	uint64_t n = s->n_events - from;
	pal_event *e = pal__alloc((n + 1) * sizeof *e);
	if (!e)
		*status = pal__fail_memory(err, "events", n * sizeof *e);
	for (uint64_t i = 0; !*status && i < n; i++)
		*status = pal_session_event(s, from + i, &e[i], err);
	return e;
}

static pal_status commit(pal__service *v, pal__live *l, const pal__change *change, pal_error *err)
{
	pal__record r = l->r;
	r.length = l->s->length;
	r.n_events = l->s->n_events;
	pal_status s = PAL_OK;
	uint64_t keep_events = l->keep_events < r.n_events ? l->keep_events : r.n_events;
	int64_t keep = l->keep < r.length ? l->keep : r.length;
	pal_event *events = new_events(l->s, keep_events, &s, err);
	pal__commit c = {.record = &r,
			 .keep = change ? r.length : keep,
			 .ids = change ? NULL : l->s->log + keep,
			 .keep_events = keep_events,
			 .events = events,
			 .change = change};
	if (!s)
		s = pal__store_commit(v->store, &c, err);
	pal__free(events);
	pthread_mutex_lock(&v->lock);
	if (!s) {
		l->r.length = l->committed = l->keep = r.length;
		l->r.n_events = l->keep_events = r.n_events;
		v->counts.commits++;
	} else {
		l->doubtful = true;
	}
	pthread_mutex_unlock(&v->lock);
	return s;
}

pal_status pal__service_commit(pal__service *v, pal__live *l, pal_error *err)
{
	return commit(v, l, NULL, err);
}

pal_status pal__service_change(pal__service *v, pal__live *l, int64_t position, int64_t n_old,
			       const int32_t *ids, int64_t n_new, pal_error *err)
{
	pal_session *s = l->s;
	pal_status status = pal__session_change(s, position, n_old, ids, n_new, err);
	if (status)
		return status;
	pal__changed c = {0};
	pal__change stored = {0};
	status = pal__session_changed(s, s->n_changes - 1, &c, &stored.ids, err);
	stored.at = c.at;
	stored.position = c.position;
	stored.n_events = c.n_events;
	stored.n_old = (int32_t)c.n_old;
	stored.n_new = (int32_t)c.n_new;
	if (!status)
		status = commit(v, l, &stored, err);
	l->doubtful = l->doubtful || status;
	pal__free(stored.ids);
	return status;
}

pal_status pal__service_truncate(pal__live *l, int64_t n, pal_error *err)
{
	pal_status s = pal_session_truncate(l->s, n, err);
	if (s)
		return s;
	l->keep = l->keep < n ? l->keep : n;
	l->keep_events = l->keep_events < l->s->n_events ? l->keep_events : l->s->n_events;
	return PAL_OK;
}

/* --- loading ------------------------------------------------------------------------- */

static pal_status resume(pal_session *s, const pal__stored *t, pal_error *err)
{
	size_t n = t->n_changes;
	pal__changed *changes = pal__calloc(n + 1, sizeof *changes);
	const int32_t **ids = pal__calloc(n + 1, sizeof *ids);
	pal_status status = changes && ids ? PAL_OK : pal__fail_memory(err, "changes", n);
	for (size_t i = 0; !status && i < n; i++) {
		const pal__change *c = &t->changes[i];
		changes[i] = (pal__changed){.at = c->at,
					    .position = c->position,
					    .n_events = c->n_events,
					    .n_old = c->n_old,
					    .n_new = c->n_new};
		ids[i] = c->ids;
	}
	if (!status) {
		pal__batcher_join(&s->scratch);
		status = pal__session_resume(s, t->ids, t->record.length, t->events,
					     t->record.n_events, changes, ids, n, err);
		pal__batcher_leave(&s->scratch);
	}
	pal__free(changes);
	pal__free((void *)ids);
	return status;
}

/* What the store has; others look at it. */
static void set_record(pal__service *v, pal__live *l, const pal__record *r)
{
	pthread_mutex_lock(&v->lock);
	l->r = *r;
	l->committed = l->keep = r->length;
	l->keep_events = r->n_events;
	pthread_mutex_unlock(&v->lock);
}

/* From the store, all of it once more. */
static pal_status replay(pal__service *v, pal__live *l, pal_session *s, pal_error *err)
{
	pal__stored t = {0};
	pal_status status = pal__store_load(v->store, l->r.id, &t, err);
	if (!status)
		status = resume(s, &t, err);
	if (!status) {
		set_record(v, l, &t.record);
		pthread_mutex_lock(&v->lock);
		v->counts.replayed++;
		pthread_mutex_unlock(&v->lock);
	}
	pal__stored_free(&t);
	return status;
}

/* Others look whether there is one. */
static void set_session(pal__service *v, pal__live *l, pal_session *s)
{
	pthread_mutex_lock(&v->lock);
	l->s = s;
	pthread_mutex_unlock(&v->lock);
}

static pal_status load(pal__service *v, pal__live *l, pal_error *err)
{
	pal_session *s = l->s;
	if (l->parked)
		return pal__session_unpark(s, err);
	pal_status status = pal__session_open_on(v->batcher, v->model, &v->o.session, &s, err);
	if (!status && l->committed)
		status = replay(v, l, s, err);
	if (status) {
		pal_session_close(s);
		return status;
	}
	set_session(v, l, s);
	return PAL_OK;
}

/* Another request may look at it while it changes. */
static void unload(pal__service *v, pal__live *l)
{
	pal_session *s = l->s;
	pthread_mutex_lock(&v->lock);
	l->s = NULL;
	v->held -= s && !l->parked ? v->session_bytes : 0;
	l->parked = l->doubtful = false;
	pthread_cond_broadcast(&v->changed);
	pthread_mutex_unlock(&v->lock);
	pal_drafter_close(l->drafter);
	l->drafter = NULL;
	pal_session_close(s);
}

pal_status pal__service_load(pal__service *v, pal__live *l, const pal__job *job,
			     pal__report *report, pal_error *err)
{
	if (l->doubtful)
		unload(v, l);
	if (l->s && !l->parked)
		return PAL_OK;
	pal_status s = pal__service_room(v, job, report, err);
	if (s)
		return s;
	double start = pal__now();
	s = load(v, l, err);
	if (s) {
		pal__service_no_room(v);
		return s;
	}
	pthread_mutex_lock(&v->lock);
	v->counts.unparked += l->parked;
	l->parked = false;
	pthread_mutex_unlock(&v->lock);
	report->load_s = pal__now() - start;
	return PAL_OK;
}

/* --- at the start -------------------------------------------------------------------------- */

typedef struct {
	pal__service *v;
	pal_status status;
	pal_error *err;
} listing;

static void list_one(void *user, const pal__record *r)
{
	listing *n = user;
	pal__service *v = n->v;
	pal__live *l = pal__calloc(1, sizeof *l);
	if (!l || !pal__grow((void **)&v->all, &v->cap, v->n + 1, sizeof *v->all)) {
		pal__free(l);
		n->status = pal__fail_memory(n->err, "a session", sizeof *l);
		return;
	}
	l->r = *r;
	l->committed = l->keep = r->length;
	l->keep_events = r->n_events;
	l->used = pal__now();
	v->all[v->n++] = l;
}

static void count_one(void *user, const char *id, const char *why)
{
	pal__service *v = user;
	(void)id, (void)why;
	v->counts.quarantined++;
}

pal_status pal__service_begin_store(pal__service *v, pal_error *err)
{
	pal_model_info info;
	listing n = {v, PAL_OK, err};
	pal_model_get_info(v->model, &info);
	pal_status s = pal__store_open(v->o.data_dir, info.hash, v->o.sync, &v->store, err);
	if (!s)
		s = pal__store_each(v->store, list_one, &n, err);
	if (!s)
		s = n.status;
	return s ? s : pal__store_quarantined(v->store, count_one, v, err);
}

/* --- what is asked of sessions by name ------------------------------------------------------ */

/* Where there are as many sessions as may be, the histories that were resent longest ago go: their
 * clients can send them again. */
static void make_place(pal__service *v)
{
	pthread_mutex_lock(&v->lock);
	while ((int64_t)v->n >= v->o.max_sessions) {
		pal__live *oldest = NULL;
		for (size_t i = 0; i < v->n; i++) {
			pal__live *l = v->all[i];
			if (l->r.stateless && !l->busy && (!oldest || l->used < oldest->used))
				oldest = l;
		}
		if (!oldest)
			break;
		oldest->busy = oldest->moving = true;
		pthread_mutex_unlock(&v->lock);
		pal_status s = pal__store_delete(v->store, oldest->r.id, NULL);
		pthread_mutex_lock(&v->lock);
		oldest->busy = oldest->moving = false;
		if (s)
			break;
		pal__service_remove(v, oldest);
		v->counts.expired++;
	}
	pthread_mutex_unlock(&v->lock);
}

pal_status pal__service_new(pal__service *v, const pal__create *create, bool busy, pal__live **out,
			    pal_error *err)
{
	pal__live *l;
	make_place(v);
	pthread_mutex_lock(&v->lock);
	pal_status s = pal__service_add(v, create, &l, err);
	if (!s)
		l->busy = true;
	pthread_mutex_unlock(&v->lock);
	if (s)
		return s;
	s = pal__store_create(v->store, &l->r, err);
	pthread_mutex_lock(&v->lock);
	if (s)
		pal__service_remove(v, l);
	else
		l->busy = busy;
	pthread_mutex_unlock(&v->lock);
	if (!s)
		*out = l;
	return s;
}

pal_status pal__service_create(pal__service *v, const pal__create *create, char *id, pal_error *err)
{
	pal__live *l;
	pal_status s = pal__service_new(v, create, true, &l, err);
	if (s)
		return s;
	memcpy(id, l->r.id, sizeof l->r.id);
	pal__service_give(v, l);
	return PAL_OK;
}

pal_status pal__service_delete(pal__service *v, const char *id, uint64_t owner, int64_t *length,
			       pal_error *err)
{
	pal__live *l;
	pal_status s = pal__service_take(v, id, owner, &l, err);
	if (s)
		return s;
	int64_t had = l->committed;
	s = pal__store_delete(v->store, id, err);
	if (s) {
		pal__service_give(v, l);
		return s;
	}
	pthread_mutex_lock(&v->lock);
	pal__service_remove(v, l);
	pthread_mutex_unlock(&v->lock);
	if (length)
		*length = had;
	return PAL_OK;
}

/* A busy session under a new id, with no log yet. */
static pal_status new_like(pal__service *v, const pal__record *r, const char *label,
			   pal__live **out, pal_error *err)
{
	pal__create c = {.label = label ? label : r->label,
			 .owner = r->owner,
			 .n_eos = r->n_eos,
			 .stateless = r->stateless};
	memcpy(c.eos, r->eos, sizeof c.eos);
	make_place(v);
	pthread_mutex_lock(&v->lock);
	pal_status s = pal__service_add(v, &c, out, err);
	if (!s)
		(*out)->busy = true;
	pthread_mutex_unlock(&v->lock);
	return s;
}

/* Its memory, too, where there is room at once; else the store is enough. */
static void copy_memory(pal__service *v, pal__live *from, pal__live *to)
{
	pal__report report = {0};
	pal__job none = {0};
	if (!from->s || from->parked || from->doubtful ||
	    pal__service_room(v, &none, &report, NULL))
		return;
	pal_session *s;
	if (pal__session_copy(from->s, &s, NULL))
		pal__service_no_room(v);
	else
		set_session(v, to, s);
}

pal_status pal__service_fork_live(pal__service *v, pal__live *l, const char *label, pal__live **out,
				  pal_error *err)
{
	pal__live *to;
	pal_status s = new_like(v, &l->r, label, &to, err);
	if (s)
		return s;
	pal__record r = to->r;
	r.turns = l->r.turns;
	r.length = l->committed;
	r.n_events = l->r.n_events;
	set_record(v, to, &r);
	s = pal__store_fork(v->store, l->r.id, &to->r, err);
	if (s) {
		pthread_mutex_lock(&v->lock);
		pal__service_remove(v, to);
		pthread_mutex_unlock(&v->lock);
		return s;
	}
	copy_memory(v, l, to);
	*out = to;
	return PAL_OK;
}

pal_status pal__service_fork(pal__service *v, const char *id, uint64_t owner, const char *label,
			     char *new_id, pal_error *err)
{
	pal__live *l, *to;
	pal_status s = pal__service_take(v, id, owner, &l, err);
	if (s)
		return s;
	s = pal__service_fork_live(v, l, label, &to, err);
	pal__service_give(v, l);
	if (s)
		return s;
	memcpy(new_id, to->r.id, sizeof to->r.id);
	pal__service_give(v, to);
	return PAL_OK;
}

static pal_status stored_of(pal__service *v, const char *id, uint64_t owner, pal__stored *out,
			    pal_error *err)
{
	pal__live *l;
	pal_status s = pal__service_take(v, id, owner, &l, err);
	if (s)
		return s;
	s = pal__store_load(v->store, id, out, err);
	pal__service_give(v, l);
	return s;
}

pal_status pal__service_log(pal__service *v, const char *id, uint64_t owner, int32_t **ids,
			    size_t *n, pal_error *err)
{
	pal__stored t = {0};
	pal_status s = stored_of(v, id, owner, &t, err);
	if (!s) {
		*ids = t.ids;
		*n = (size_t)t.record.length;
		t.ids = NULL;
	}
	pal__stored_free(&t);
	return s;
}

pal_status pal__service_export(pal__service *v, const char *id, uint64_t owner, void **bytes,
			       size_t *n, pal_error *err)
{
	pal__stored t = {0};
	pal_model_info info;
	pal_model_get_info(v->model, &info);
	pal_status s = stored_of(v, id, owner, &t, err);
	if (!s)
		s = pal__transfer_write(&t, info.hash, bytes, n, err);
	pal__stored_free(&t);
	return s;
}

pal_status pal__service_import(pal__service *v, const void *bytes, size_t n, uint64_t owner,
			       char *id, pal_error *err)
{
	pal__stored t = {0};
	pal__live *l = NULL;
	pal_model_info info;
	pal_model_get_info(v->model, &info);
	pal_status s = pal__transfer_read(bytes, n, info.hash, info.n_vocab, &t, err);
	t.record.owner = owner;
	t.record.used = pal__wall();
	t.record.generating = false;
	if (!s)
		s = new_like(v, &t.record, NULL, &l, err);
	if (!s) {
		memcpy(t.record.id, l->r.id, sizeof t.record.id);
		s = pal__store_insert(v->store, &t, err);
	}
	if (!s) {
		set_record(v, l, &t.record);
		memcpy(id, l->r.id, sizeof l->r.id);
		pal__service_give(v, l);
	} else if (l) {
		pthread_mutex_lock(&v->lock);
		pal__service_remove(v, l);
		pthread_mutex_unlock(&v->lock);
	}
	pal__stored_free(&t);
	return s;
}

pal_status pal__service_put(pal__service *v, const char *name, uint64_t owner, const void *data,
			    size_t n, pal_error *err)
{
	return pal__store_put(v->store, name, owner, data, n, err);
}

pal_status pal__service_get(pal__service *v, const char *name, uint64_t owner, void **data,
			    size_t *n, pal_error *err)
{
	return pal__store_get(v->store, name, owner, data, n, err);
}

pal_status pal__service_forget(pal__service *v, const char *name, uint64_t owner, pal_error *err)
{
	return pal__store_forget(v->store, name, owner, err);
}
