#include "session/service.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/clock.h"
#include "base/process.h"
#include "model/model.h"
#include "session/live.h"
#include "text/utf8.h"

#define PIECE 128 /* tokens of a prompt that others wait for at most */
#define MAX_SESSIONS 10000
#define MAX_QUEUE 1024
#define MAX_WAIT_S 60
#define IDLE_S 300
#define PARKED_FILES 8              /* that a parked session has open, at most */
#define REQUEST ((size_t)384 << 10) /* of a thread, a connection and what is said, at once */
#define SLACK ((uint64_t)64 << 20)  /* for connections, their threads, the store's pages */

double pal__wall(void)
{
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* --- opening ------------------------------------------------------------------------ */

static void defaults(pal__service_options *o)
{
	o->session.n_batch = o->session.n_batch ? o->session.n_batch : PIECE;
	o->max_sessions = o->max_sessions ? o->max_sessions : MAX_SESSIONS;
	o->max_queue = o->max_queue ? o->max_queue : MAX_QUEUE;
	o->max_wait_s = o->max_wait_s > 0 ? o->max_wait_s : MAX_WAIT_S;
	o->idle_s = o->idle_s > 0 ? o->idle_s : IDLE_S;
}

/* Half of the files that may be open are for parked sessions. */
static size_t descriptors(void)
{
	struct rlimit r = {0};
	if (!getrlimit(RLIMIT_NOFILE, &r) && r.rlim_cur < r.rlim_max) {
		r.rlim_cur = r.rlim_max;
		setrlimit(RLIMIT_NOFILE, &r);
	}
	return getrlimit(RLIMIT_NOFILE, &r) ? 512 : (size_t)r.rlim_cur / 2;
}

static uint64_t allocated(void)
{
	struct mallinfo2 m = mallinfo2();
	return m.uordblks + m.hblkhd + pal__mem_mapped();
}

/* A drafter has no one arena: what one takes is measured. */
static pal_status add_drafter(pal__service *v, pal_error *err)
{
	pal_drafter *d = NULL;
	if (!v->o.draft)
		return PAL_OK;
	uint64_t had = allocated();
	pal_status s = pal_drafter_open(v->model, &v->drafting, &d, err);
	uint64_t has = allocated();
	v->session_bytes += has > had ? has - had : 0;
	pal_drafter_close(d);
	return s;
}

/* A store that is gone at the end. */
static pal_status open_dir(pal__service *v, pal_error *err)
{
	const char *tmp = getenv("TMPDIR");
	char path[4096];
	if (v->o.data_dir)
		return PAL_OK;
	if (snprintf(path, sizeof path, "%s/palimpsest-XXXXXX", tmp && *tmp ? tmp : "/var/tmp") >=
		    (int)sizeof path ||
	    !mkdtemp(path))
		return pal__fail(err, PAL_EIO, "cannot make a folder like %.200s: %s", path,
				 strerror(errno));
	v->own_dir = pal__strndup(path, strlen(path));
	v->o.data_dir = v->own_dir;
	return v->own_dir ? PAL_OK : pal__fail_memory(err, "a path", sizeof path);
}

static void remove_dir(const char *dir)
{
	static const char *const files[] = {"sessions.db", "sessions.db-wal", "sessions.db-shm",
					    "lock"};
	char path[4200];
	for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
		snprintf(path, sizeof path, "%s/%s", dir, files[i]);
		unlink(path);
	}
	rmdir(dir);
}

/* Those that were idle for ttl_s. */
static void expire(pal__service *v)
{
	double now = pal__wall();
	for (;;) {
		char id[PAL__ID_BYTES];
		uint64_t owner = 0;
		bool found = false;
		pthread_mutex_lock(&v->lock);
		for (size_t i = 0; i < v->n && !found; i++) {
			const pal__live *l = v->all[i];
			found = !l->busy && now - l->r.used > v->o.ttl_s;
			if (found) {
				memcpy(id, l->r.id, sizeof id);
				owner = l->r.owner;
			}
		}
		v->counts.expired += found;
		pthread_mutex_unlock(&v->lock);
		if (!found || pal__service_delete(v, id, owner, NULL, NULL))
			break;
	}
	pal__store_expire(v->store, v->o.ttl_s, NULL);
}

/* Looks after idle sessions once a second, or more often where they are idle for less. */
static void *keep(void *arg)
{
	pal__service *v = arg;
	pthread_mutex_lock(&v->lock);
	while (!v->closing) {
		double then = pal__now() + (v->o.idle_s < 0.04 ? 0.01
					    : v->o.idle_s < 4  ? v->o.idle_s / 4
							       : 1);
		struct timespec t = {.tv_sec = (time_t)then,
				     .tv_nsec = (long)((then - (double)(time_t)then) * 1e9)};
		pthread_cond_timedwait(&v->closed, &v->lock, &t);
		if (v->closing)
			break;
		pthread_mutex_unlock(&v->lock);
		pal__service_tidy(v);
		if (v->o.ttl_s > 0)
			expire(v);
		pthread_mutex_lock(&v->lock);
	}
	pthread_mutex_unlock(&v->lock);
	return NULL;
}

static pal_status fill_in(pal__service *v, pal_error *err)
{
	pal_status s = pal__batcher_new(v->model, &v->batcher, err);
	if (!s)
		s = pal__session_need_on(v->batcher, v->model, &v->o.session, &v->session_bytes,
					 err);
	v->session_bytes += sizeof(pal_session) + REQUEST;
	if (!s)
		s = add_drafter(v, err);
	if (!s)
		s = open_dir(v, err);
	if (!s)
		s = pal__service_begin_store(v, err);
	v->most_parked = descriptors() / PARKED_FILES;
	v->base_bytes = pal__process_memory("VmRSS") + pal__batcher_bytes(v->batcher) + SLACK;
	if (!s && v->o.memory_limit && v->base_bytes + v->session_bytes > v->o.memory_limit)
		s = pal__fail(err, PAL_ELIMIT,
			      "a memory limit of %llu bytes: the model takes %llu and each session "
			      "%zu",
			      (unsigned long long)v->o.memory_limit,
			      (unsigned long long)v->base_bytes, v->session_bytes);
	if (!s && pthread_create(&v->keeper, NULL, keep, v))
		s = pal__fail(err, PAL_EIO, "cannot start a thread");
	v->has_keeper = !s;
	return s;
}

pal_status pal__service_open(pal_model *model, const pal__service_options *options,
			     pal__service **out, pal_error *err)
{
	pal__service *v = pal__calloc(1, sizeof *v);
	if (!v)
		return pal__fail_memory(err, "the service", sizeof *v);
	v->model = model;
	v->o = *options;
	defaults(&v->o);
	v->drafting =
		(pal_drafter_options){.source = options->draft, .cache_dir = options->cache_dir};
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_mutex_init(&v->lock, NULL);
	pthread_cond_init(&v->changed, &attr);
	pthread_cond_init(&v->closed, &attr);
	pthread_condattr_destroy(&attr);
	pal_status s = fill_in(v, err);
	if (s) {
		pal__service_close(v);
		return s;
	}
	*out = v;
	return PAL_OK;
}

static bool wait_for_end(pal__service *v, double until)
{
	struct timespec t = {.tv_sec = (time_t)until,
			     .tv_nsec = (long)((until - (double)(time_t)until) * 1e9)};
	while (v->n_running && pal__now() < until)
		pthread_cond_timedwait(&v->changed, &v->lock, &t);
	return !v->n_running;
}

void pal__service_drain(pal__service *v, double wait_s)
{
	pthread_mutex_lock(&v->lock);
	v->draining = true;
	pthread_cond_broadcast(&v->changed);
	if (!wait_for_end(v, pal__now() + wait_s))
		atomic_store(&v->stop, true);
	while (v->n_running)
		pthread_cond_wait(&v->changed, &v->lock);
	pthread_mutex_unlock(&v->lock);
}

static void free_live(pal__live *l)
{
	pal_drafter_close(l->drafter);
	pal_session_close(l->s);
	pal__free(l);
}

void pal__service_close(pal__service *v)
{
	if (!v)
		return;
	pal__service_drain(v, 0);
	if (v->has_keeper) {
		pthread_mutex_lock(&v->lock);
		v->closing = true;
		pthread_cond_signal(&v->closed);
		pthread_mutex_unlock(&v->lock);
		pthread_join(v->keeper, NULL);
	}
	for (size_t i = 0; i < v->n; i++)
		free_live(v->all[i]);
	pal__free(v->all);
	pal__batcher_free(v->batcher);
	pal__store_close(v->store);
	if (v->own_dir)
		remove_dir(v->own_dir);
	pal__free(v->own_dir);
	pthread_cond_destroy(&v->closed);
	pthread_cond_destroy(&v->changed);
	pthread_mutex_destroy(&v->lock);
	pal__free(v);
}

pal_model *pal__service_model(const pal__service *v)
{
	return v->model;
}

/* --- the table ------------------------------------------------------------------------ */

pal__live *pal__service_find(pal__service *v, const char *id, uint64_t owner)
{
	for (size_t i = 0; i < v->n; i++)
		if (v->all[i]->r.owner == owner && !strcmp(v->all[i]->r.id, id))
			return v->all[i];
	return NULL;
}

static pal_status new_id(char *id, pal_error *err)
{
	uint8_t random[16];
	if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
		return pal__fail(err, PAL_EIO, "no random bytes: %s", strerror(errno));
	memcpy(id, "sess-", 5);
	for (size_t i = 0; i < sizeof random; i++)
		snprintf(id + 5 + 2 * i, 3, "%02x", random[i]);
	return PAL_OK;
}

static pal_status check_create(const pal__service *v, const pal__create *c, pal_error *err)
{
	size_t n = c->label ? strlen(c->label) : 0;
	pal_model_info info;
	pal_model_get_info(v->model, &info);
	if (n > PAL__MAX_LABEL || (n && pal__utf8_valid(c->label, n) != n))
		return pal__fail(err, PAL_EINVAL, "a label of %zu bytes: up to %d of UTF-8", n,
				 PAL__MAX_LABEL);
	if (c->n_eos < -1 || c->n_eos > PAL__MAX_EOS)
		return pal__fail(err, PAL_EINVAL, "%d end-of-sequence tokens: up to %d", c->n_eos,
				 PAL__MAX_EOS);
	for (int i = 0; i < c->n_eos; i++)
		if (c->eos[i] < 0 || c->eos[i] >= info.n_vocab)
			return pal__fail(err, PAL_EINVAL,
					 "end-of-sequence token %d: the vocabulary has ids 0 to %d",
					 c->eos[i], info.n_vocab - 1);
	return PAL_OK;
}

pal_status pal__service_add(pal__service *v, const pal__create *c, pal__live **out, pal_error *err)
{
	pal_status s = check_create(v, c, err);
	if (s)
		return s;
	if (v->draining)
		return pal__fail(err, PAL_EOVERLOAD, "the server is going down");
	if ((int64_t)v->n >= v->o.max_sessions)
		return pal__fail(err, PAL_EOVERLOAD, "there are %zu sessions, as many as may be",
				 v->n);
	pal__live *l = pal__calloc(1, sizeof *l);
	if (!l || !pal__grow((void **)&v->all, &v->cap, v->n + 1, sizeof *v->all)) {
		pal__free(l);
		return pal__fail_memory(err, "a session", sizeof *l);
	}
	l->r.owner = c->owner;
	l->r.stateless = c->stateless;
	l->r.n_eos = c->n_eos;
	memcpy(l->r.eos, c->eos, sizeof c->eos);
	snprintf(l->r.label, sizeof l->r.label, "%s", c->label ? c->label : "");
	l->r.created = l->r.used = pal__wall();
	l->used = pal__now();
	s = new_id(l->r.id, err);
	if (s) {
		pal__free(l);
		return s;
	}
	v->all[v->n++] = l;
	*out = l;
	return PAL_OK;
}

void pal__service_remove(pal__service *v, pal__live *l)
{
	size_t at = 0;
	while (v->all[at] != l)
		at++;
	v->all[at] = v->all[--v->n];
	v->held -= l->s && !l->parked ? v->session_bytes : 0;
	free_live(l);
	pthread_cond_broadcast(&v->changed);
}

static pal_status not_found(const char *id, pal_error *err)
{
	return pal__fail(err, PAL_ENOTFOUND, "there is no session '%.64s'", id);
}

pal_status pal__service_take(pal__service *v, const char *id, uint64_t owner, pal__live **out,
			     pal_error *err)
{
	pthread_mutex_lock(&v->lock);
	pal__live *l;
	/* One that is being written out is nobody's in a moment. */
	while ((l = pal__service_find(v, id, owner)) && l->moving)
		pthread_cond_wait(&v->changed, &v->lock);
	pal_status s = !l        ? not_found(id, err)
		       : l->busy ? pal__fail(err, PAL_EBUSY, "session %s is in use", id)
				 : PAL_OK;
	if (!s) {
		l->busy = true;
		*out = l;
	}
	pthread_mutex_unlock(&v->lock);
	return s;
}

void pal__service_give(pal__service *v, pal__live *l)
{
	pthread_mutex_lock(&v->lock);
	pal__service_show(l);
	l->busy = false;
	l->used = pal__now();
	pthread_cond_broadcast(&v->changed);
	pthread_mutex_unlock(&v->lock);
}

/* --- what is told of them -------------------------------------------------------------- */

void pal__service_show(pal__live *l)
{
	if (!l->s)
		return;
	uint64_t before = l->shown.events;
	pal_session_get_stats(l->s, &l->shown);
	const pal_session *s = l->s;
	pal__memory_view *m = &l->view;
	m->length = s->length;
	m->sink = s->bounded ? s->kv.shape.sink : 0;
	m->window_from = s->bounded && s->length > m->sink + s->kv.shape.window
				 ? s->length - s->kv.shape.window
				 : 0;
	m->n_chunks = s->restores ? s->restore.n_chunks : 0;
	memcpy(m->chunks, s->restore.chunks, sizeof m->chunks);
	memcpy(m->sources, s->restore.sources, sizeof m->sources);
	if (before == l->shown.events)
		return;
	m->n_events = 0;
	for (uint64_t i = s->n_events; i-- > 0 && m->n_events < PAL__SHOWN_EVENTS;)
		if (pal_session_event(s, i, &m->events[m->n_events++], NULL))
			break;
}

static void tell(const pal__service *v, const pal__live *l, pal__session_info *out)
{
	*out = (pal__session_info){.stateless = l->r.stateless,
				   .loaded = l->s && !l->parked,
				   .busy = l->busy,
				   .interrupted = l->r.generating && !l->busy,
				   .remaining = l->r.generating ? l->r.remaining : 0,
				   .committed = l->committed,
				   .turns = l->r.turns,
				   .created = l->r.created,
				   .used = l->r.used,
				   .stats = l->shown};
	memcpy(out->id, l->r.id, sizeof out->id);
	memcpy(out->label, l->r.label, sizeof out->label);
	pal__kv_shape shape;
	pal_session_options o;
	if (!out->stats.length)
		out->stats.length = l->committed;
	if (pal__session_plan(v->model, &v->o.session, &o, &shape, NULL))
		return;
	/* One that only the store has takes as much as all do as soon as it is asked for. */
	size_t bytes;
	if (!out->stats.kv_bytes && out->stats.length && pal__kv_need(&shape, &bytes))
		out->stats.kv_bytes = bytes;
	if (shape.window) {
		out->sink = shape.sink;
		out->window = shape.window;
		out->budget_positions = shape.sink + shape.window + (int64_t)shape.slots;
	}
}

pal_status pal__service_info(pal__service *v, const char *id, uint64_t owner,
			     pal__session_info *out, pal_error *err)
{
	pthread_mutex_lock(&v->lock);
	const pal__live *l = pal__service_find(v, id, owner);
	if (l)
		tell(v, l, out);
	pthread_mutex_unlock(&v->lock);
	return l ? PAL_OK : not_found(id, err);
}

pal_status pal__service_memory(pal__service *v, const char *id, uint64_t owner,
			       pal__memory_view *out, pal_error *err)
{
	pthread_mutex_lock(&v->lock);
	const pal__live *l = pal__service_find(v, id, owner);
	if (l)
		*out = l->view;
	pthread_mutex_unlock(&v->lock);
	return l ? PAL_OK : not_found(id, err);
}

static int by_use(const void *a, const void *b)
{
	const pal__live *x = *(pal__live *const *)a, *y = *(pal__live *const *)b;
	if (x->r.used != y->r.used)
		return x->r.used < y->r.used ? 1 : -1;
	return strcmp(x->r.id, y->r.id);
}

pal_status pal__service_list(pal__service *v, uint64_t owner, size_t from, pal__session_info *out,
			     size_t most, size_t *n, size_t *total, pal_error *err)
{
	pthread_mutex_lock(&v->lock);
	size_t count = 0, told = 0;
	pal__live **mine = pal__alloc((v->n + 1) * sizeof *mine);
	for (size_t i = 0; mine && i < v->n; i++)
		if (v->all[i]->r.owner == owner)
			mine[count++] = v->all[i];
	if (mine)
		qsort(mine, count, sizeof *mine, by_use);
	for (size_t i = from; mine && i < count && told < most; i++)
		tell(v, mine[i], &out[told++]);
	pthread_mutex_unlock(&v->lock);
	if (!mine)
		return pal__fail_memory(err, "a list of sessions", count * sizeof *mine);
	pal__free(mine);
	*n = told;
	*total = count;
	return PAL_OK;
}

static uint64_t files_bytes(const pal__service *v)
{
	uint64_t bytes = 0;
	for (size_t i = 0; i < v->n; i++)
		bytes += v->all[i]->s ? v->all[i]->shown.disk_bytes : 0;
	return bytes;
}

pal_status pal__service_disk(pal__service *v, pal_error *err)
{
	if (!v->o.disk_limit)
		return PAL_OK;
	pthread_mutex_lock(&v->lock);
	uint64_t bytes = files_bytes(v);
	pthread_mutex_unlock(&v->lock);
	bytes += pal__store_bytes(v->store);
	if (bytes <= v->o.disk_limit)
		return PAL_OK;
	return pal__fail(err, PAL_EOVERLOAD,
			 "sessions take %llu bytes on disk, and disk_limit is %llu: delete some",
			 (unsigned long long)bytes, (unsigned long long)v->o.disk_limit);
}

void pal__service_get_counts(pal__service *v, pal__service_counts *out)
{
	pal__batcher_counts b;
	pal__batcher_get_counts(v->batcher, &b);
	pthread_mutex_lock(&v->lock);
	*out = v->counts;
	out->sessions = v->n;
	for (size_t i = 0; i < v->n; i++)
		out->loaded += v->all[i]->s && !v->all[i]->parked;
	out->running = (uint64_t)v->n_running;
	out->waiting = (uint64_t)v->n_waiting;
	out->memory_bytes = v->base_bytes + v->held;
	out->memory_limit = v->o.memory_limit;
	out->disk_bytes = files_bytes(v);
	pthread_mutex_unlock(&v->lock);
	out->disk_bytes += pal__store_bytes(v->store);
	out->forwards = b.forwards;
	out->rows = b.rows;
	out->forward_s = b.seconds;
	out->rss_bytes = pal__process_memory("VmRSS");
	out->peak_rss_bytes = pal__process_memory("VmHWM");
}
