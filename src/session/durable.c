/* What makes the service's sessions durable: their place in the store. */
#include "session/live.h"

#include <string.h>

#include "base/clock.h"

pal_status pal__service_commit(pal__service *v, pal__live *l, pal_error *err)
{
	(void)err;
	pthread_mutex_lock(&v->lock);
	l->committed = l->s->length;
	l->n_committed_events = l->s->n_events;
	v->counts.commits++;
	pthread_mutex_unlock(&v->lock);
	return PAL_OK;
}

pal_status pal__service_load(pal__service *v, pal__live *l, const pal__job *job,
			     pal__report *report, pal_error *err)
{
	(void)job;
	double start = pal__now();
	if (l->s)
		return PAL_OK;
	pal_status s = pal__session_open_on(v->batcher, v->model, &v->o.session, &l->s, err);
	if (!s) {
		pthread_mutex_lock(&v->lock);
		v->held += v->session_bytes;
		pthread_mutex_unlock(&v->lock);
	}
	report->load_s = pal__now() - start;
	return s;
}

pal_status pal__service_create(pal__service *v, const pal__create *create, char *id, pal_error *err)
{
	pal__live *l;
	pthread_mutex_lock(&v->lock);
	pal_status s = pal__service_add(v, create, &l, err);
	if (!s)
		memcpy(id, l->r.id, sizeof l->r.id);
	pthread_mutex_unlock(&v->lock);
	return s;
}

pal_status pal__service_delete(pal__service *v, const char *id, uint64_t owner, int64_t *length,
			       pal_error *err)
{
	pal__live *l;
	pal_status s = pal__service_take(v, id, owner, &l, err);
	if (s)
		return s;
	pthread_mutex_lock(&v->lock);
	if (length)
		*length = l->committed;
	pal__service_remove(v, l);
	pthread_mutex_unlock(&v->lock);
	return PAL_OK;
}

pal_status pal__service_log(pal__service *v, const char *id, uint64_t owner, int32_t **ids,
			    size_t *n, pal_error *err)
{
	pal__live *l;
	pal_status s = pal__service_take(v, id, owner, &l, err);
	if (s)
		return s;
	size_t length = l->s ? (size_t)l->s->length : 0;
	int32_t *copy = pal__alloc((length + 1) * sizeof *copy);
	if (copy && length)
		memcpy(copy, l->s->log, length * sizeof *copy);
	pal__service_give(v, l);
	if (!copy)
		return pal__fail_memory(err, "a log", length * sizeof *copy);
	*ids = copy;
	*n = length;
	return PAL_OK;
}

static pal_status none_yet(pal_error *err)
{
	return pal__fail(err, PAL_EUNSUPPORTED, "this needs the store");
}

pal_status pal__service_fork(pal__service *v, const char *id, uint64_t owner, const char *label,
			     char *new_id, pal_error *err)
{
	(void)v, (void)id, (void)owner, (void)label, (void)new_id;
	return none_yet(err);
}

pal_status pal__service_export(pal__service *v, const char *id, uint64_t owner, void **bytes,
			       size_t *n, pal_error *err)
{
	(void)v, (void)id, (void)owner, (void)bytes, (void)n;
	return none_yet(err);
}

pal_status pal__service_import(pal__service *v, const void *bytes, size_t n, uint64_t owner,
			       char *id, pal_error *err)
{
	(void)v, (void)id, (void)owner, (void)bytes, (void)n;
	return none_yet(err);
}

pal_status pal__service_put(pal__service *v, const char *name, uint64_t owner, const void *data,
			    size_t n, pal_error *err)
{
	(void)v, (void)name, (void)owner, (void)data, (void)n;
	return none_yet(err);
}

pal_status pal__service_get(pal__service *v, const char *name, uint64_t owner, void **data,
			    size_t *n, pal_error *err)
{
	(void)v, (void)name, (void)owner, (void)data, (void)n;
	return none_yet(err);
}

pal_status pal__service_forget(pal__service *v, const char *name, uint64_t owner, pal_error *err)
{
	(void)v, (void)name, (void)owner;
	return none_yet(err);
}
