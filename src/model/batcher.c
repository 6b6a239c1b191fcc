#include "model/batcher.h"

#include <pthread.h>
#include <string.h>

#include "base/checked.h"
#include "base/clock.h"

#define LEAST_PATIENCE 0.0005 /* seconds; else as long as the last pass took */
#define MOST_PATIENCE 0.05
#define STAGED_BYTES ((size_t)8 << 20) /* of logits that are made at once, about */

/* A pass that a thread waits for. */
typedef struct work work;
struct work {
	pal__scratch *s;
	const pal__row *rows;
	int n;
	const pal__tap *tap;
	double since;
	bool taken, done;
	pthread_cond_t woken;
	work *next;
};

struct pal__batcher {
	pal_model *m;
	pal__arena arena;
	pal__scratch scratch;
	pal__row *rows; /* [PAL_MAX_BATCH] */
	pthread_mutex_t lock;
	work *waiting; /* in the order they came */
	int n_waiting, n_awaited;
	pal__scratch *members;
	bool running;
	pthread_cond_t idle; /* not running */
	double patience;
	uint64_t floor; /* rows that the last one served had had before */
	pal__batcher_counts counts;
};

/* The works of one pass; all but the first are empty where it is not a whole one. */
typedef struct {
	pal__batcher *e;
	work *works[PAL_MAX_BATCH];
	int n, rows;
	bool partial; /* of some layers only: alone */
} joined;

pal_status pal__batcher_new(pal_model *m, pal__batcher **out, pal_error *err)
{
	size_t need, row = m->h.n_vocab * sizeof(float), staged = STAGED_BYTES / row;
	staged = staged < 16 ? 16 : staged > PAL_MAX_BATCH ? PAL_MAX_BATCH : staged;
	size_t rows = pal__arena_need(PAL_MAX_BATCH * sizeof(pal__row)), bytes = rows;
	if (!pal__scratch_need(m, PAL_MAX_BATCH, &need) || !pal__add_size(bytes, need, &bytes) ||
	    !pal__mul_size(staged, row, &need) ||
	    !pal__add_size(bytes, pal__arena_need(need), &bytes))
		return pal__fail(err, PAL_ELIMIT, "the model is too large for this machine");
	pal__batcher *e = pal__calloc(1, sizeof *e);
	if (!e)
		return pal__fail_memory(err, "the batcher", sizeof *e);
	pal_status status = pal__arena_init(&e->arena, bytes, "the batcher", err);
	if (status) {
		pal__free(e);
		return status;
	}
	e->m = m;
	e->patience = LEAST_PATIENCE;
	pthread_mutex_init(&e->lock, NULL);
	pthread_cond_init(&e->idle, NULL);
	pal__scratch_init(&e->scratch, m, PAL_MAX_BATCH, &e->arena);
	e->rows = pal__arena_take(&e->arena, PAL_MAX_BATCH * sizeof *e->rows);
	e->scratch.staged = pal__arena_take(&e->arena, staged * row);
	e->scratch.n_staged = (int)staged;
	*out = e;
	return PAL_OK;
}

void pal__batcher_free(pal__batcher *e)
{
	if (!e)
		return;
	pthread_cond_destroy(&e->idle);
	pthread_mutex_destroy(&e->lock);
	pal__arena_free(&e->arena);
	pal__free(e);
}

size_t pal__batcher_bytes(const pal__batcher *e)
{
	return e->arena.size;
}

pal__scratch pal__batcher_scratch(pal__batcher *e, int n_rows)
{
	return (pal__scratch){.n_rows = n_rows, .batcher = e};
}

void pal__batcher_get_counts(pal__batcher *e, pal__batcher_counts *out)
{
	pthread_mutex_lock(&e->lock);
	*out = e->counts;
	pthread_mutex_unlock(&e->lock);
}

/* --- who goes --------------------------------------------------------------------- */

static bool is_few(const work *w)
{
	return w->n <= PAL__BATCHER_FEW;
}

/* The one of a kind that has been served least and is not taken. */
static work *least_served(const pal__batcher *e, bool few)
{
	work *best = NULL;
	for (work *w = e->waiting; w; w = w->next)
		if (!w->taken && is_few(w) == few && (!best || w->s->served < best->s->served))
			best = w;
	return best;
}

static bool is_partial(const work *w)
{
	return w->tap && w->tap->n_layers;
}

static bool take(joined *j, work *w)
{
	bool alone = is_partial(w);
	if (j->n && (alone || j->partial || j->rows + w->n > PAL_MAX_BATCH))
		return false;
	w->taken = true;
	j->partial = alone;
	j->works[j->n++] = w;
	j->rows += w->n;
	return true;
}

static void choose(joined *j)
{
	pal__batcher *e = j->e;
	work *piece = least_served(e, false), *w;
	w = least_served(e, true);
	if (w && is_partial(w))
		piece = NULL;
	/* It has its place before those that decode fill all of them. */
	if (piece)
		take(j, piece);
	int pieces = j->n;
	for (; w && take(j, w); w = least_served(e, true))
		;
	while (j->n == pieces && (w = least_served(e, false)) && take(j, w))
		pieces++;
	e->floor = j->works[0]->s->served;
}

/* --- one pass ------------------------------------------------------------------------ */

/* Each looks at its own rows. */
static void tap_all(void *user, size_t layer, const pal__scratch *s, int n)
{
	const joined *j = user;
	const pal__hparams *h = &j->e->m->h;
	size_t row = 0;
	(void)n;
	for (int i = 0; i < j->n; row += (size_t)j->works[i++]->n) {
		const pal__tap *tap = j->works[i]->tap;
		if (!tap || !tap->at)
			continue;
		pal__scratch own = *s;
		own.x += row * h->n_embd;
		own.y += row * h->n_embd;
		own.q += row * h->n_heads * h->head_dim;
		own.k += row * h->n_kv_heads * h->head_dim;
		own.v += row * h->n_kv_heads * h->head_dim;
		tap->at(tap->user, layer, &own, j->works[i]->n);
	}
}

static void run(joined *j)
{
	pal__batcher *e = j->e;
	int n = 0;
	for (int i = 0; i < j->n; n += j->works[i++]->n)
		memcpy(e->rows + n, j->works[i]->rows, (size_t)j->works[i]->n * sizeof *e->rows);
	pal__tap tap = {.at = tap_all, .user = j};
	if (j->partial)
		tap.n_layers = j->works[0]->tap->n_layers;
	pal__forward(e->m, &e->scratch, e->rows, n, &tap);
}

static void unlink_taken(pal__batcher *e)
{
	for (work **at = &e->waiting; *at;) {
		if ((*at)->taken)
			*at = (*at)->next;
		else
			at = &(*at)->next;
	}
}

/* Whether it is time: everybody is here, or the first of them has waited long enough. */
static bool ready(const pal__batcher *e)
{
	return e->waiting && !e->running &&
	       (e->n_waiting >= e->n_awaited || pal__now() - e->waiting->since >= e->patience);
}

/* Those that are not here are not waited for again. */
static void lose_patience(pal__batcher *e)
{
	for (pal__scratch *s = e->members; s && e->n_waiting < e->n_awaited; s = s->next) {
		e->n_awaited -= s->awaited && !s->waiting;
		s->awaited = s->awaited && s->waiting;
	}
}

/* It looks whether it is time, or how long it still has to wait. */
static void wake_first(pal__batcher *e)
{
	if (e->waiting)
		pthread_cond_signal(&e->waiting->woken);
}

static void free_scratch(pal__batcher *e)
{
	e->running = false;
	pthread_cond_signal(&e->idle);
	wake_first(e);
}

/* Runs a pass for those whose turn it is, with the lock given up. */
static void lead(pal__batcher *e)
{
	joined j = {.e = e};
	lose_patience(e);
	choose(&j);
	unlink_taken(e);
	e->n_waiting -= j.n;
	e->running = true;
	pthread_mutex_unlock(&e->lock);
	double start = pal__now();
	run(&j);
	double seconds = pal__now() - start;
	pthread_mutex_lock(&e->lock);
	e->patience = seconds < LEAST_PATIENCE  ? LEAST_PATIENCE
		      : seconds > MOST_PATIENCE ? MOST_PATIENCE
						: seconds;
	e->counts.forwards++;
	e->counts.joined += j.n > 1;
	e->counts.rows += (uint64_t)j.rows;
	e->counts.seconds += seconds;
	for (int i = 0; i < j.n; i++) {
		j.works[i]->s->served += (uint64_t)j.works[i]->n;
		j.works[i]->s->waiting = false;
		j.works[i]->done = true;
		pthread_cond_signal(&j.works[i]->woken);
	}
	free_scratch(e);
}

static void wait_until(pal__batcher *e, work *w, double then)
{
	double left = then - pal__now();
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	left = left < 0.0001 ? 0.0001 : left;
	int64_t ns = t.tv_nsec + (int64_t)(left * 1e9);
	t.tv_sec += ns / 1000000000;
	t.tv_nsec = ns % 1000000000;
	pthread_cond_timedwait(&w->woken, &e->lock, &t);
}

static void add(pal__batcher *e, work *w)
{
	work **at = &e->waiting;
	while (*at)
		at = &(*at)->next;
	*at = w;
	e->n_waiting++;
	w->s->waiting = true;
	e->n_awaited += !w->s->awaited;
	w->s->awaited = true;
	/* Who was away has no claim to what others had meanwhile. */
	if (w->s->served < e->floor)
		w->s->served = e->floor;
}

void pal__batcher_forward(pal__scratch *s, const pal__row *rows, int n, const pal__tap *tap)
{
	pal__batcher *e = s->batcher;
	work w = {.s = s, .rows = rows, .n = n, .tap = tap, .since = pal__now()};
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&w.woken, &attr);
	pthread_mutex_lock(&e->lock);
	add(e, &w);
	while (!w.done) {
		if (ready(e))
			lead(e);
		else if (w.taken || e->running)
			pthread_cond_wait(&w.woken, &e->lock);
		else
			wait_until(e, &w, w.since + e->patience);
	}
	pthread_mutex_unlock(&e->lock);
	pthread_cond_destroy(&w.woken);
	pthread_condattr_destroy(&attr);
}

void pal__batcher_join(pal__scratch *s)
{
	pal__batcher *e = s->batcher;
	pthread_mutex_lock(&e->lock);
	s->next = e->members;
	e->members = s;
	s->awaited = true;
	e->n_awaited++;
	pthread_mutex_unlock(&e->lock);
}

void pal__batcher_leave(pal__scratch *s)
{
	pal__batcher *e = s->batcher;
	pthread_mutex_lock(&e->lock);
	pal__scratch **at = &e->members;
	while (*at != s)
		at = &(*at)->next;
	*at = s->next;
	e->n_awaited -= s->awaited;
	s->awaited = false;
	wake_first(e);
	pthread_mutex_unlock(&e->lock);
}

/* --- alone --------------------------------------------------------------------------- */

pal__scratch *pal__scratch_enter(pal__scratch *s)
{
	pal__batcher *e = s->batcher;
	if (!e)
		return s;
	pthread_mutex_lock(&e->lock);
	while (e->running)
		pthread_cond_wait(&e->idle, &e->lock);
	e->running = true;
	pthread_mutex_unlock(&e->lock);
	return &e->scratch;
}

void pal__scratch_leave(pal__scratch *s)
{
	pal__batcher *e = s->batcher;
	if (!e)
		return;
	pthread_mutex_lock(&e->lock);
	free_scratch(e);
	pthread_mutex_unlock(&e->lock);
}
