/* Requests: a session is found and made resident, then read and generated, committed as it goes. */
#include <string.h>

#include "base/clock.h"
#include "session/live.h"

typedef struct {
	pal__service *v;
	pal__live *l;
	const pal__job *job;
	pal__report *report;
	pal_session_stats before;
	int64_t uncommitted; /* generated tokens */
	bool ended;          /* by one of the session's own end tokens */
	pal_status status;   /* of a commit amid tokens */
	pal_error *err;
} request;

static bool cancelled(const request *q)
{
	return (q->job->cancel && atomic_load(q->job->cancel)) || atomic_load(&q->v->stop);
}

static pal_status commit(request *q, pal_error *err)
{
	double start = pal__now();
	pal_status s = pal__service_commit(q->v, q->l, err);
	q->report->commit_s += pal__now() - start;
	q->uncommitted = 0;
	return s;
}

/* What is told of a session that others may ask for now. */
static void show(const request *q)
{
	pthread_mutex_lock(&q->v->lock);
	pal__service_show(q->l);
	pthread_mutex_unlock(&q->v->lock);
}

/* --- appending ---------------------------------------------------------------------- */

static pal_status check(const request *q, pal_error *err)
{
	const pal__job *j = q->job;
	int64_t most = q->v->o.max_tokens, length = j->session ? q->l->committed : 0;
	pal_model_info info;
	pal_model_get_info(q->v->model, &info);
	for (size_t i = 0; i < j->n_ids; i++)
		if (j->ids[i] < 0 || j->ids[i] >= info.n_vocab)
			return pal__fail(err, PAL_EINVAL,
					 "token %d at place %zu: the vocabulary has ids 0 to %d",
					 j->ids[i], i, info.n_vocab - 1);
	if (j->generate && !length && !j->n_ids)
		return pal__fail(err, PAL_EINVAL, "nothing to go on from: append a token first");
	if (most && (uint64_t)j->n_ids > (uint64_t)(most > length ? most - length : 0))
		return pal__fail(err, PAL_ELIMIT,
				 "%zu tokens after %lld: a session has room for %lld (max_tokens)",
				 j->n_ids, (long long)length, (long long)most);
	return PAL_OK;
}

/* What failed leaves the log as it was; of a resent history what was read is a part, and stays. */
static void take_back(request *q, int64_t before)
{
	pal__live *l = q->l;
	int64_t n = l->s->length - before;
	if (!q->job->session || !n)
		return;
	bool far = !pal__session_cuts(l->s, before) && pal__session_can_change(l->s, before, n, 0);
	pal_error err = {0};
	/* A change is of what is committed. */
	pal_status s = far ? pal__service_commit(q->v, l, &err) : PAL_OK;
	if (!s)
		s = far ? pal__service_change(q->v, l, before, n, NULL, 0, &err)
			: pal__service_truncate(l, before, &err);
	l->doubtful = l->doubtful || s;
}

/* In pieces, so that cancelling takes no longer than one of them. */
static pal_status append(request *q, const int32_t *ids, size_t n, pal_error *err)
{
	pal_session *s = q->l->s;
	int64_t before = s->length;
	double start = pal__now();
	pal_status status = PAL_OK;
	for (size_t at = 0, some; !status && at < n; at += some) {
		some = n - at < (size_t)s->n_batch ? n - at : (size_t)s->n_batch;
		status = cancelled(q)
				 ? pal__fail(err, PAL_ECANCELLED, "cancelled")
				 : pal_session_append(s, ids + at, some, NULL, NULL, NULL, err);
		if (!status)
			show(q);
	}
	q->report->reread += s->length - before;
	if (status)
		take_back(q, before);
	q->report->prefill_s += pal__now() - start;
	return status;
}

/* --- generating ---------------------------------------------------------------------- */

static bool ends(const request *q, int32_t id)
{
	const pal__record *r = &q->l->r;
	if (q->job->generate->ignore_end)
		return false;
	for (int i = 0; q->job->own_eos && i < r->n_eos; i++)
		if (r->eos[i] == id)
			return true;
	return q->job->own_eos && r->n_eos < 0 && pal_token_is_end(q->v->model, id);
}

static bool on_token(void *user, int32_t id, const char *text, size_t n_text)
{
	request *q = user;
	const pal_generate_options *o = q->job->generate;
	bool go_on = !o->on_token || o->on_token(o->user, id, text, n_text);
	if (id < 0)
		return go_on;
	q->ended = ends(q, id);
	pthread_mutex_lock(&q->v->lock);
	if (q->l->r.remaining > 0)
		q->l->r.remaining--;
	pthread_mutex_unlock(&q->v->lock);
	if (++q->uncommitted == PAL__COMMIT_EVERY)
		q->status = commit(q, q->err);
	show(q);
	return go_on && !q->ended && !q->status && !cancelled(q);
}

static void on_logprobs(void *user, pal_logprob chosen, const pal_logprob *top, int n_top)
{
	const pal_generate_options *o = ((request *)user)->job->generate;
	o->on_logprobs(o->user, chosen, top, n_top);
}

/* A session keeps its drafter while it is loaded: it has seen the log. */
static pal_status ready_drafter(request *q, pal_error *err)
{
	if (!q->v->o.draft || q->job->no_draft || q->l->drafter)
		return PAL_OK;
	return pal_drafter_open(q->v->model, &q->v->drafting, &q->l->drafter, err);
}

/* Where the log may end: max_tokens of the service, if that is nearer. */
static int64_t most_tokens(const request *q, int64_t wanted)
{
	int64_t most = q->v->o.max_tokens, left = most - q->l->s->length;
	if (!most || (wanted && wanted <= left))
		return wanted;
	return left > 0 ? left : 1;
}

/* What a start after a crash goes on from, and what others are told. */
static void set_generating(request *q, const pal_generate_options *o, bool is)
{
	pal__record *r = &q->l->r;
	pthread_mutex_lock(&q->v->lock);
	r->generating = is;
	if (is) {
		r->sampling = o->sampling;
		r->remaining = o->max_tokens;
	}
	pthread_mutex_unlock(&q->v->lock);
}

static pal_status generate(request *q, pal_error *err)
{
	const pal__record *r = &q->l->r;
	pal_generate_options o = *q->job->generate;
	pal_status s = ready_drafter(q, err);
	if (s)
		return s;
	if (o.resume && r->generating) {
		o.sampling = r->sampling;
		o.max_tokens = r->remaining;
	} else {
		o.max_tokens = most_tokens(q, o.max_tokens);
	}
	set_generating(q, &o, true);
	o.drafter = q->job->no_draft ? NULL : q->l->drafter;
	o.ignore_end = o.ignore_end || q->job->own_eos;
	o.on_token = on_token;
	o.on_logprobs = q->job->generate->on_logprobs ? on_logprobs : NULL;
	o.user = q;
	q->err = err;
	double start = pal__now();
	s = pal_generate(q->l->s, &o, &q->report->made, err);
	q->report->generate_s = pal__now() - start;
	if (q->ended && q->report->made.stop == PAL_STOP_CANCELLED)
		q->report->made.stop = PAL_STOP_END;
	set_generating(q, &o, false);
	return s ? s : q->status;
}

/* --- all of it ------------------------------------------------------------------------ */

static void report(const request *q)
{
	pal__report *r = q->report;
	pal_session_stats now;
	pal_session_get_stats(q->l->s, &now);
	r->length = now.length;
	r->resident = now.resident;
	r->evicted = now.evicted;
	r->restored = now.restored;
	r->committed = q->l->committed;
	for (int i = 0; i < PAL_N_SOURCES; i++)
		r->filled[i] = now.filled[i] - q->before.filled[i];
	r->kept_reads = now.kept_reads - q->before.kept_reads;
	r->fallbacks = now.fallbacks - q->before.fallbacks;
	r->events = now.events - q->before.events;
	r->kv_bytes = now.kv_bytes;
	r->scratch_bytes = now.scratch_bytes;
	r->disk_bytes = now.disk_bytes;
	r->restore_s = now.select_s + now.fill_s + now.reread_s - q->before.select_s -
		       q->before.fill_s - q->before.reread_s;
	if (r->fallbacks)
		memcpy(r->note, now.note, sizeof r->note);
}

/* The log is what the request says, and committed. */
static pal_status prepare(request *q, pal_error *err)
{
	size_t from = 0;
	double start = pal__now();
	pal_status s = PAL_OK;
	if (!q->job->session)
		s = pal__service_follow(q->v, q->l, q->job, &from, q->report, err);
	q->report->prefill_s = pal__now() - start;
	if (!s && from < q->job->n_ids)
		s = append(q, q->job->ids + from, q->job->n_ids - from, err);
	if (s == PAL_ECANCELLED || s == PAL_OK) {
		pal_error later = {0};
		pal_status last = q->job->n_ids ? commit(q, &later) : PAL_OK;
		if (last && !s)
			s = pal__fail(err, later.code, "%s", later.text);
	}
	return s;
}

static pal_status work(request *q, pal_error *err)
{
	pal_status s = prepare(q, err), last;
	pal_error later = {0};
	if (s)
		return s;
	report(q);
	if (q->job->on_start)
		q->job->on_start(q->job->user, q->report);
	if (!q->job->generate)
		return PAL_OK;
	s = generate(q, err);
	/* What was generated before it failed is the session's, too. */
	last = commit(q, &later);
	if (!s && last)
		s = pal__fail(err, later.code, "%s", later.text);
	return s;
}

/* The session is the caller's. */
static pal_status run(request *q, pal_error *err)
{
	pal_status s = check(q, err);
	if (!s)
		s = pal__service_disk(q->v, err);
	if (!s)
		s = pal__service_load(q->v, q->l, q->job, q->report, err);
	if (s)
		return s;
	pthread_mutex_lock(&q->v->lock);
	q->l->r.turns++;
	q->l->r.used = pal__wall();
	pthread_mutex_unlock(&q->v->lock);
	pal_session_get_stats(q->l->s, &q->before);
	pal__batcher_join(&q->l->s->scratch);
	s = work(q, err);
	pal__batcher_leave(&q->l->s->scratch);
	report(q);
	return s;
}

static void count(request *q, pal_status s)
{
	pal__service *v = q->v;
	const pal__report *r = q->report;
	pthread_mutex_lock(&v->lock);
	v->counts.requests++;
	v->counts.refused += s == PAL_EOVERLOAD;
	v->counts.cancelled += s == PAL_ECANCELLED || r->made.stop == PAL_STOP_CANCELLED;
	v->counts.failed += s == PAL_EIO || s == PAL_EFORMAT || s == PAL_ENOMEM;
	v->counts.prompt_tokens += (uint64_t)r->prompt_tokens;
	v->counts.reused_tokens += (uint64_t)r->reused;
	v->counts.generated_tokens += (uint64_t)r->made.n_tokens;
	v->counts.drafted += (uint64_t)r->made.drafted;
	v->counts.accepted += (uint64_t)r->made.accepted;
	v->counts.events += r->events;
	v->counts.fallbacks += r->fallbacks;
	for (int i = 0; i < PAL_N_SOURCES; i++)
		v->counts.filled[i] += r->filled[i];
	v->counts.commit_s += r->commit_s;
	pthread_mutex_unlock(&v->lock);
}

static pal_status find(request *q, pal_error *err)
{
	const pal__job *j = q->job;
	if (j->session)
		return pal__service_take(q->v, j->session, j->owner, &q->l, err);
	return pal__service_find_history(q->v, j, &q->l, err);
}

static pal_status begin(pal__service *v, pal_error *err)
{
	pthread_mutex_lock(&v->lock);
	bool no = v->draining;
	v->n_running += !no;
	pthread_mutex_unlock(&v->lock);
	return no ? pal__fail(err, PAL_EOVERLOAD, "the server is going down") : PAL_OK;
}

pal_status pal__service_run(pal__service *v, const pal__job *job, pal__report *out, pal_error *err)
{
	request q = {.v = v, .job = job, .report = out};
	*out = (pal__report){.prompt_tokens = (int64_t)job->n_ids};
	pal_status s = begin(v, err);
	if (s)
		return s;
	s = find(&q, err);
	if (!s) {
		memcpy(out->session, q.l->r.id, sizeof out->session);
		s = run(&q, err);
		pal__service_give(v, q.l);
	}
	count(&q, s);
	pthread_mutex_lock(&v->lock);
	v->n_running--;
	pthread_cond_broadcast(&v->changed);
	pthread_mutex_unlock(&v->lock);
	return s;
}
