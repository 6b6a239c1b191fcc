/* Histories that are sent again: which session they go on, and what makes its log theirs.
 *
 * The cost is that of what is new: of each change that of its tokens and a seam
 * (src/session/change.c), and of the end what has to be read. What cannot be changed (not far
 * enough back, or nothing is evicted) is cut off, and read again from there.
 */
#include <string.h>

#include "session/history.h"
#include "session/live.h"

#define WORTH 32       /* tokens that have to be equal for a log to be gone on from */
#define OWN_END 256    /* tokens that a log may lose at its end, if not half of what is equal */
#define COPIED 512     /* equal tokens for which a log that would lose more is copied */
#define LOOKED_AT 4096 /* sessions in memory, those made last */
#define FROM_STORE 16  /* sessions that are looked at in the store */

typedef struct {
	pal__live *l;
	int64_t equal, lost; /* lost: tokens that would be cut off */
} candidate;

static void consider(pal__live *l, const int32_t *log, int64_t length, const pal__job *job,
		     candidate *best)
{
	pal__history h;
	pal__history_match(log, length, job->ids, (int64_t)job->n_ids, &h);
	if (h.equal < WORTH || h.equal <= best->equal)
		return;
	*best = (candidate){l, h.equal, length - h.log_end};
}

static bool may_go_on(const pal__live *l, const pal__job *job)
{
	return !l->busy && l->r.owner == job->owner && l->r.stateless;
}

/* With the lock: of those whose logs are in memory or behind a mapping. */
static void look_in_memory(pal__service *v, const pal__job *job, candidate *best)
{
	for (size_t i = v->n; i-- > 0 && v->n - i <= LOOKED_AT;) {
		pal__live *l = v->all[i];
		if (may_go_on(l, job) && l->s && !l->doubtful)
			consider(l, l->s->log, l->s->length, job, best);
	}
}

/* Of those that the store alone has, as after a start: those used last. */
static void look_in_store(pal__service *v, const pal__job *job, candidate *best)
{
	pal__live *some[FROM_STORE];
	size_t n = 0;
	for (size_t i = 0; i < v->n; i++) {
		pal__live *l = v->all[i];
		if (!may_go_on(l, job) || l->s || l->committed < WORTH)
			continue;
		size_t at = n < FROM_STORE ? n++ : FROM_STORE;
		for (; at > 0 && l->r.used > some[at - 1]->r.used; at--)
			if (at < FROM_STORE)
				some[at] = some[at - 1];
		if (at < FROM_STORE)
			some[at] = l;
	}
	for (size_t i = 0; i < n; i++)
		some[i]->busy = some[i]->moving = true;
	pthread_mutex_unlock(&v->lock);
	for (size_t i = 0; i < n; i++) {
		pal__stored t = {0};
		if (!pal__store_load(v->store, some[i]->r.id, &t, NULL))
			consider(some[i], t.ids, t.record.length, job, best);
		pal__stored_free(&t);
	}
	pthread_mutex_lock(&v->lock);
	for (size_t i = 0; i < n; i++)
		some[i]->busy = some[i]->moving = false;
	pthread_cond_broadcast(&v->changed);
}

pal_status pal__service_find_history(pal__service *v, const pal__job *job, pal__live **out,
				     pal_error *err)
{
	candidate best = {0};
	pthread_mutex_lock(&v->lock);
	look_in_memory(v, job, &best);
	pal__live *first = best.l;
	if (first)
		first->busy = first->moving = true;
	if (2 * best.equal < (int64_t)job->n_ids)
		look_in_store(v, job, &best);
	if (first)
		first->busy = first->moving = false;
	if (best.l)
		best.l->busy = true;
	pthread_cond_broadcast(&v->changed);
	pthread_mutex_unlock(&v->lock);
	bool own = best.l && (best.lost <= OWN_END || best.lost <= best.equal / 2);
	if (best.l && !own && best.equal < COPIED) {
		pal__service_give(v, best.l);
		best.l = NULL;
	}
	if (!best.l) {
		pal__create c = {.owner = job->owner, .n_eos = -1, .stateless = true};
		return pal__service_new(v, &c, true, out, err);
	}
	if (own) {
		*out = best.l;
		return PAL_OK;
	}
	pal_status s = pal__service_fork_live(v, best.l, NULL, out, err);
	pal__service_give(v, best.l);
	return s;
}

/* The log's first n tokens stay. */
static pal_status cut(pal__service *v, pal__live *l, int64_t n, pal_error *err)
{
	int64_t lost = l->s->length - n;
	if (!lost)
		return PAL_OK;
	if (!pal__session_cuts(l->s, n)) {
		if (pal__session_can_change(l->s, n, lost, 0))
			return pal__service_change(v, l, n, lost, NULL, 0, err);
		/* So little is left that all of it is read again. */
		if (l->s->restores)
			n = 0;
	}
	return pal__service_truncate(l, n, err);
}

pal_status pal__service_follow(pal__service *v, pal__live *l, const pal__job *job, size_t *from,
			       pal__report *report, pal_error *err)
{
	pal_session *s = l->s;
	pal__history h;
	int64_t moved = 0, n_ids = (int64_t)job->n_ids, read = 0;
	pal__history_match(s->log, s->length, job->ids, n_ids, &h);
	int64_t end = h.log_end, ids_end = h.ids_end;
	pal_status status = PAL_OK;
	for (int i = 0; !status && i < h.n_edits; i++) {
		const pal__edit *e = &h.edits[i];
		int64_t at = e->at + moved;
		if (!pal__session_can_change(s, at, e->n_old, e->n_new)) {
			end = e->at;
			ids_end = e->new_at;
			break;
		}
		status = pal__service_change(v, l, at, e->n_old, job->ids + e->new_at, e->n_new,
					     err);
		moved += e->n_new - e->n_old;
		read += e->n_new;
		report->edits++;
	}
	end += moved;
	/* There have to be logits: the last token is read again where nothing is new. */
	if (ids_end == n_ids && (end < s->length || !s->has_logits)) {
		end -= end > 0;
		ids_end -= ids_end > 0;
	}
	if (!status)
		status = cut(v, l, end, err);
	if (!status && s->length < end)
		ids_end = s->length;
	report->reused = ids_end - read;
	report->reread = read;
	*from = (size_t)ids_end;
	return status;
}
