#include "restore/fit.h"

#include <math.h>
#include <string.h>

#include "base/checked.h"
#include "base/mem.h"
#include "model/forward.h"
#include "restore/ridge.h"

#define WINDOWS 2      /* of a batch */
#define HELD_EVERY 10  /* batches, of which the last is held out */
#define SINKS_EVERY 16 /* batches, before other tokens are the sinks */
#define SKIPPED (PAL__FIT_SINKS + PAL__FIT_LEFT)
#define ROWS (WINDOWS * (PAL__FIT_WINDOW - SKIPPED)) /* of a batch that count */

static const double lambdas[] = {1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2};
#define N_LAMBDAS (sizeof lambdas / sizeof *lambdas)

/* Of one m: xx, then yx and yy of each layer that is projected. */
typedef struct {
	double *xx;
	double *yx, *yy; /* [n_layers - from][n_y][n_x], [n_layers - from][n_y] */
} sums;

/* A model that reads the batches. */
typedef struct {
	pal_model *model;
	pal__kv kv[WINDOWS];
	pal__scratch scratch;
	pal__arena arena;
} reader;

typedef struct {
	pal_model *model;
	reader verifier, proposer; /* proposer: zeros where there is none */
	const pal_model *states;   /* whose states are projected */
	const pal__fit_options *o;
	pal__fit *f;
	size_t n_layers, n_x, n_y, n_kv;
	size_t n_index, *index; /* [n_index]: which of f->m a layer of `states` is, or n_m */
	sums *set[2];           /* [n_m], fitted and held out */
	double *x, *y;          /* [n_m][ROWS][n_x], [n_layers][ROWS][n_y] */
	float *ones, *row;
	pal__arena space; /* of all but what the readers have */
	int32_t sinks[PAL__FIT_SINKS];
	uint64_t batches;
	int held; /* set of the batch at hand */
	bool end;
} fitter;

/* --- memory ------------------------------------------------------------------- */

static size_t sums_need(const fitter *t, size_t from)
{
	size_t layers = t->n_layers - from, yx = layers * t->n_y * t->n_x, yy = layers * t->n_y;
	return pal__arena_need(t->n_x * t->n_x * sizeof(double)) +
	       pal__arena_need(yx * sizeof(double)) + pal__arena_need(yy * sizeof(double));
}

/* Every m, or every second, third ... so that the sums fit; or the one that is asked for. Of a
 * proposer the last layer's input and output, or the output alone. */
static pal_status choose_candidates(fitter *t, pal_error *err)
{
	pal__fit *f = t->f;
	size_t layer = t->o->layer, need = 0, all = t->states->h.n_layers;
	size_t last = f->separate ? all : all - 1;
	if (layer > last || last < 1)
		return pal__fail(err, PAL_EINVAL,
				 "layer %zu: a projection of %s, which has %zu layers, starts at "
				 "layer 1 to %zu",
				 layer, t->states->path, all, last);
	f->m = pal__calloc(all, sizeof *f->m);
	if (!f->m)
		return pal__fail_memory(err, "the layers", all * sizeof *f->m);
	for (size_t step = 1; step <= last && step <= (f->separate ? 2 : last); step++) {
		size_t first = !f->separate ? step : last > 1 ? last - 2 + step : last;
		f->n_m = need = 0;
		for (size_t m = layer ? layer : first; m <= last; m += step) {
			f->m[f->n_m] = m;
			need += 2 * sums_need(t, pal__fit_from(f, f->n_m++));
			if (layer)
				break;
		}
		if (need <= PAL__FIT_MEMORY)
			return PAL_OK;
	}
	return pal__fail(err, PAL_ELIMIT,
			 "the sums of the regression take %zu bytes for this model; at most %zu "
			 "are allowed: choose a higher layer",
			 need, PAL__FIT_MEMORY);
}

static pal_status take_space(fitter *t, pal_error *err)
{
	const pal__fit *f = t->f;
	size_t x = f->n_m * ROWS * t->n_x * sizeof(double);
	size_t y = t->n_layers * ROWS * t->n_y * sizeof(double), need = 0;
	for (size_t i = 0; i < f->n_m; i++)
		need += 2 * sums_need(t, pal__fit_from(f, i));
	need += pal__arena_need(x) + pal__arena_need(y) +
		2 * pal__arena_need(t->n_x * sizeof(float)) +
		pal__arena_need(t->n_index * sizeof(size_t)) +
		2 * pal__arena_need(f->n_m * sizeof(sums));
	pal_status s = pal__arena_init(&t->space, need, "the regression", err);
	if (s != PAL_OK)
		return s;
	t->x = pal__arena_take(&t->space, x);
	t->y = pal__arena_take(&t->space, y);
	t->ones = pal__arena_take(&t->space, t->n_x * sizeof(float));
	t->row = pal__arena_take(&t->space, t->n_x * sizeof(float));
	t->index = pal__arena_take(&t->space, t->n_index * sizeof(size_t));
	for (size_t i = 0; i < t->n_x; i++)
		t->ones[i] = 1;
	for (size_t l = 0; l < t->n_index; l++)
		t->index[l] = f->n_m;
	for (size_t i = 0; i < f->n_m; i++)
		t->index[f->m[i]] = i;
	for (int held = 0; held < 2; held++) {
		t->set[held] = pal__arena_take(&t->space, f->n_m * sizeof(sums));
		for (size_t i = 0; i < f->n_m; i++) {
			size_t yy = (t->n_layers - pal__fit_from(f, i)) * t->n_y * sizeof(double);
			sums *u = &t->set[held][i];
			u->xx = pal__arena_take(&t->space, t->n_x * t->n_x * sizeof(double));
			u->yx = pal__arena_take(&t->space, yy * t->n_x);
			u->yy = pal__arena_take(&t->space, yy);
		}
	}
	return PAL_OK;
}

static pal_status reader_init(reader *r, pal_model *model, pal_error *err)
{
	const pal__hparams *h = &model->h;
	const pal__kv_shape shape = {.n_layers = h->n_layers,
				     .n_kv_heads = h->n_kv_heads,
				     .head_dim = h->head_dim,
				     .n_ctx = PAL__FIT_WINDOW,
				     .kind = PAL__KV_INT16,
				     .slide = h->window,
				     .slide_every = h->window_every,
				     .piece = PAL__FIT_WINDOW / PAL__ATTN_BLOCK};
	size_t kv, scratch;
	if (model->no_weights)
		return pal__fail(err, PAL_EINVAL, "%s was opened without its weights", model->path);
	if (!pal__kv_need(&shape, &kv) ||
	    !pal__scratch_need(model, WINDOWS * PAL__FIT_WINDOW, &scratch))
		return pal__fail(err, PAL_ELIMIT, "the model is too large for this machine");
	pal_status s = pal__arena_init(&r->arena, WINDOWS * kv + scratch, "the windows", err);
	if (s != PAL_OK)
		return s;
	r->model = model;
	pal__scratch_init(&r->scratch, model, WINDOWS * PAL__FIT_WINDOW, &r->arena);
	for (int i = 0; i < WINDOWS; i++)
		pal__kv_init(&r->kv[i], &shape, &r->arena);
	return PAL_OK;
}

/* --- a batch -------------------------------------------------------------------- */

/* Row i of those that count: where it is in the batch. */
static size_t row_of(size_t i)
{
	size_t each = PAL__FIT_WINDOW - SKIPPED;
	return i / each * PAL__FIT_WINDOW + SKIPPED + i % each;
}

static void take_y(fitter *t, size_t layer, const pal__scratch *s)
{
	double *y = t->y + layer * ROWS * t->n_y;
	for (size_t i = 0; i < ROWS; i++, y += t->n_y) {
		const float *k = s->k + row_of(i) * t->n_kv, *v = s->v + row_of(i) * t->n_kv;
		for (size_t d = 0; d < t->n_kv; d++) {
			y[d] = (double)k[d];
			y[t->n_kv + d] = (double)v[d];
		}
	}
}

/* The states at a layer's input, where they are wanted. */
static void take_x(void *user, size_t layer, const pal__scratch *s, int n)
{
	fitter *t = user;
	size_t e = t->n_x - 1;
	(void)n;
	if (t->index[layer] == t->f->n_m)
		return;
	double *x = t->x + t->index[layer] * ROWS * t->n_x;
	for (size_t i = 0; i < ROWS; i++, x += t->n_x) {
		t->model->kernels->rms_norm(s->x + row_of(i) * e, t->ones, e, t->states->h.rms_eps,
					    t->row);
		for (size_t d = 0; d < e; d++)
			x[d] = (double)t->row[d];
		x[e] = 1;
	}
}

static void at_layer(void *user, size_t layer, const pal__scratch *s, int n)
{
	fitter *t = user;
	if (layer >= pal__fit_from(t->f, 0))
		take_y(t, layer, s);
	if (!t->f->separate)
		take_x(user, layer, s, n);
}

/* Adds the batch to yx and yy of one m and layer, or, with layer n_layers, to xx of one m. */
static void add_item(void *arg, size_t item, int worker)
{
	fitter *t = arg;
	size_t i = item / (t->n_layers + 1), layer = item % (t->n_layers + 1);
	size_t from = pal__fit_from(t->f, i);
	sums *u = &t->set[t->held][i];
	const double *x = t->x + i * ROWS * t->n_x;
	(void)worker;
	if (layer == t->n_layers)
		pal__ridge_add_xx(u->xx, x, ROWS, t->n_x);
	else if (layer >= from)
		pal__ridge_add_yx(u->yx + (layer - from) * t->n_y * t->n_x,
				  u->yy + (layer - from) * t->n_y, x, t->y + layer * ROWS * t->n_y,
				  ROWS, t->n_x, t->n_y);
}

/* The next n tokens; false in *whole: the text has not so many. */
static pal_status read_tokens(fitter *t, int32_t *ids, size_t n, bool *whole, pal_error *err)
{
	size_t have = 0;
	*whole = false;
	while (have < n && !t->end) {
		size_t got = 0;
		pal_status s = t->o->next(t->o->user, ids + have, n - have, &got, err);
		if (s != PAL_OK)
			return s;
		t->end = got == 0;
		have += got;
		t->f->tokens += got;
	}
	*whole = have == n;
	return PAL_OK;
}

enum { EACH = PAL__FIT_WINDOW - PAL__FIT_SINKS };

/* Gives the windows of ids behind the sinks to a model. */
static void read_windows(const fitter *t, reader *r, const int32_t *ids, const pal__tap *tap)
{
	pal__row rows[WINDOWS * PAL__FIT_WINDOW];
	for (size_t i = 0; i < WINDOWS * PAL__FIT_WINDOW; i++) {
		size_t w = i / PAL__FIT_WINDOW, at = i % PAL__FIT_WINDOW;
		rows[i] = (pal__row){.token = at < PAL__FIT_SINKS
						      ? t->sinks[at]
						      : ids[w * EACH + at - PAL__FIT_SINKS],
				     .pos = (int64_t)at,
				     .kv = &r->kv[w]};
	}
	pal__forward(r->model, &r->scratch, rows, WINDOWS * PAL__FIT_WINDOW, tap);
}

/* Reads and runs a batch; *more: false at the end of the text. */
static pal_status run_batch(fitter *t, bool *more, pal_error *err)
{
	int32_t ids[WINDOWS * EACH];
	pal_status s = PAL_OK;
	*more = true;
	if (t->batches % SINKS_EVERY == 0)
		s = read_tokens(t, t->sinks, PAL__FIT_SINKS, more, err);
	if (s == PAL_OK && *more)
		s = read_tokens(t, ids, WINDOWS * EACH, more, err);
	if (s != PAL_OK || !*more)
		return s;
	read_windows(t, &t->verifier, ids, &(pal__tap){.at = at_layer, .user = t});
	if (t->f->separate)
		read_windows(
			t, &t->proposer, ids,
			&(pal__tap){.at = take_x, .user = t, .n_layers = t->f->m[t->f->n_m - 1]});
	t->held = t->batches++ % HELD_EVERY == HELD_EVERY - 1;
	pal__pool_run(t->model->pool, t->f->n_m * (t->n_layers + 1), add_item, t);
	*(t->held ? &t->f->held : &t->f->rows) += ROWS;
	if (t->o->progress && !t->o->progress(t->o->user, t->f->tokens))
		return pal__fail(err, PAL_ECANCELLED, "cancelled");
	return PAL_OK;
}

static pal_status run_text(fitter *t, pal_error *err)
{
	bool more = true;
	pal_status s = PAL_OK;
	size_t want = 2 * t->n_x + HELD_EVERY * ROWS;
	while (s == PAL_OK && more && t->f->tokens < t->o->tokens)
		s = run_batch(t, &more, err);
	if (s == PAL_OK)
		s = pal__model_intact(t->model, err);
	if (s == PAL_OK)
		s = pal__model_intact(t->states, err);
	if (s == PAL_OK && (!t->f->held || t->f->rows < 2 * t->n_x))
		s = pal__fail(err, PAL_EINVAL,
			      "too little text: %llu tokens were read; about %zu are the least",
			      (unsigned long long)t->f->tokens,
			      want * PAL__FIT_WINDOW / (PAL__FIT_WINDOW - SKIPPED));
	return s;
}

/* --- solving -------------------------------------------------------------------- */

/* One m and one lambda over the layers from m on. */
typedef struct {
	fitter *t;
	size_t i; /* which m */
	double lambda;
	const double *factor;
	double *w, *scratch; /* [threads][n_y][n_x] */
	bool keep;           /* the result is the projection */
} solving;

static void keep_layer(const solving *a, size_t layer, const double *w)
{
	const fitter *t = a->t;
	size_t e = t->n_x - 1;
	float *weights = t->f->weights + layer * t->n_y * e;
	for (size_t i = 0; i < t->n_y; i++) {
		for (size_t d = 0; d < e; d++)
			weights[i * e + d] = (float)w[i * t->n_x + d];
		t->f->bias[layer * t->n_y + i] = (float)w[i * t->n_x + e];
	}
}

/* layer: counted from the first that is projected. */
static void solve_item(void *arg, size_t layer, int worker)
{
	const solving *a = arg;
	fitter *t = a->t;
	size_t yx = t->n_y * t->n_x, from = pal__fit_from(t->f, a->i), half = t->n_kv * t->n_x;
	double *w = a->w + (size_t)worker * yx, *scratch = a->scratch + (size_t)worker * yx;
	const sums *fit = &t->set[0][a->i], *held = &t->set[1][a->i];
	const double *hyx = held->yx + layer * yx, *hyy = held->yy + layer * t->n_y;
	pal__fit_error *best = &t->f->errors[a->i * t->n_layers + from + layer];
	if (a->keep && best->lambda != a->lambda)
		return;
	pal__ridge_solve(a->factor, t->n_x, fit->yx + layer * yx, t->n_y, w);
	if (a->keep) {
		keep_layer(a, layer, w);
		return;
	}
	float k = (float)pal__ridge_error(held->xx, hyx, hyy, t->n_x, t->n_kv, w, scratch);
	float v = (float)pal__ridge_error(held->xx, hyx + half, hyy + t->n_kv, t->n_x, t->n_kv,
					  w + half, scratch);
	if (best->lambda == 0 || k + v < best->k + best->v)
		*best = (pal__fit_error){k, v, a->lambda};
}

/* All lambdas for one m: their errors, or, with keep, each layer's best as the result. */
static void solve_m(fitter *t, size_t i, double *space, bool keep)
{
	size_t threads = (size_t)pal__pool_threads(t->model->pool), yx = t->n_y * t->n_x;
	double *factor = space + 2 * threads * yx;
	for (size_t k = 0; k < N_LAMBDAS; k++) {
		solving a = {.t = t,
			     .i = i,
			     .lambda = lambdas[k],
			     .factor = factor,
			     .w = space,
			     .scratch = space + threads * yx,
			     .keep = keep};
		if (pal__ridge_factor(t->set[0][i].xx, t->n_x, lambdas[k], factor))
			pal__pool_run(t->model->pool, t->n_layers - pal__fit_from(t->f, i),
				      solve_item, &a);
	}
}

/* The largest error of K that selection would meet with m. */
static float select_error(const fitter *t, size_t i)
{
	const pal__heads *lists[] = {&t->o->first, &t->o->later};
	float worst = 0;
	for (int k = 0; k < 2; k++)
		for (size_t j = 0; j < lists[k]->n; j++) {
			float e = t->f->errors[i * t->n_layers + lists[k]->heads[j].layer].k;
			worst = e > worst ? e : worst;
		}
	return worst;
}

/* The smallest m that is good enough, or else the one with the least error. */
static void choose_m(fitter *t)
{
	pal__fit *f = t->f;
	for (size_t i = 0; i < f->n_m && !f->good; i++) {
		f->good = (double)select_error(t, i) <= t->o->threshold;
		if (f->good || select_error(t, i) < select_error(t, f->chosen))
			f->chosen = i;
	}
}

/* Makes the projection of the chosen m, after those of all others where they are asked for. */
static pal_status project(fitter *t, double *space, pal_error *err)
{
	pal__fit *f = t->f;
	size_t chosen = f->chosen, most = t->n_layers - pal__fit_from(f, 0);
	f->weights = pal__calloc(most * t->n_y * (t->n_x - 1), sizeof *f->weights);
	f->bias = pal__calloc(most * t->n_y, sizeof *f->bias);
	if (!f->weights || !f->bias)
		return pal__fail_memory(err, "the projection",
					most * t->n_y * t->n_x * sizeof(float));
	pal_status s = PAL_OK;
	for (size_t i = t->o->each ? 0 : f->n_m - 1; i < f->n_m && s == PAL_OK; i++) {
		f->chosen = i + 1 == f->n_m ? chosen : i + (i >= chosen);
		solve_m(t, f->chosen, space, true);
		if (t->o->each)
			s = t->o->each(t->o->user, f, err);
	}
	return s;
}

static pal_status solve(fitter *t, pal_error *err)
{
	pal__fit *f = t->f;
	size_t threads = (size_t)pal__pool_threads(t->model->pool);
	size_t count = 2 * threads * t->n_y * t->n_x + t->n_x * t->n_x;
	double *space = pal__calloc(count, sizeof *space);
	f->errors = pal__calloc(f->n_m * t->n_layers, sizeof *f->errors);
	pal_status s = space && f->errors
			       ? PAL_OK
			       : pal__fail_memory(err, "the regression", count * sizeof *space);
	for (size_t i = 0; i < f->n_m && s == PAL_OK; i++) {
		solve_m(t, i, space, false);
		for (size_t l = pal__fit_from(f, i); l < t->n_layers && s == PAL_OK; l++) {
			const pal__fit_error *e = &f->errors[i * t->n_layers + l];
			if (e->lambda == 0 || !isfinite(e->k) || !isfinite(e->v))
				s = pal__fail(err, PAL_EINVAL,
					      "the model's states cannot be projected: they are "
					      "not finite");
		}
	}
	if (s == PAL_OK) {
		choose_m(t);
		s = project(t, space, err);
	}
	pal__free(space);
	return s;
}

static pal_status prepare(fitter *t, pal_error *err)
{
	pal_model *proposer = t->o->proposer;
	int32_t first;
	if (proposer && !pal__tokenizer_same(t->model->tokenizer, proposer->tokenizer, &first))
		return pal__fail(err, PAL_EINVAL,
				 "%s cannot be the proposer: its token %d is not that of %s",
				 proposer->path, first, t->model->path);
	pal_status s = reader_init(&t->verifier, t->model, err);
	if (s == PAL_OK && proposer)
		s = reader_init(&t->proposer, proposer, err);
	if (s == PAL_OK)
		s = pal__ridge_begin(err);
	if (s == PAL_OK)
		s = choose_candidates(t, err);
	return s == PAL_OK ? take_space(t, err) : s;
}

pal_status pal__fit_run(pal_model *model, const pal__fit_options *options, pal__fit *out,
			pal_error *err)
{
	const pal__hparams *h = &model->h;
	pal__fit f = {.n_layers = h->n_layers, .separate = options->proposer != NULL};
	fitter t = {.model = model, .o = options, .f = &f, .n_layers = h->n_layers};
	t.states = options->proposer ? options->proposer : model;
	t.n_index = t.states->h.n_layers + 1;
	t.n_x = t.states->h.n_embd + 1;
	t.n_kv = h->n_kv_heads * h->head_dim;
	t.n_y = 2 * t.n_kv;
	pal_status s = prepare(&t, err);
	if (s == PAL_OK)
		s = run_text(&t, err);
	if (s == PAL_OK)
		s = solve(&t, err);
	pal__arena_free(&t.verifier.arena);
	pal__arena_free(&t.proposer.arena);
	pal__arena_free(&t.space);
	if (s == PAL_OK)
		*out = f;
	else
		pal__fit_free(&f);
	return s;
}

void pal__fit_free(pal__fit *f)
{
	pal__free(f->m);
	pal__free(f->errors);
	pal__free(f->weights);
	pal__free(f->bias);
	*f = (pal__fit){0};
}

pal_status pal__fit_write(const pal__fit *f, const pal_model *model,
			  const pal__fit_options *options, const char *path, pal_error *err)
{
	const pal_model *states = options->proposer ? options->proposer : model;
	size_t from = pal__fit_from(f, f->chosen), n = f->n_layers - from;
	size_t y = 2 * model->h.n_kv_heads * model->h.head_dim;
	const float **weights = pal__calloc(2 * n, sizeof *weights);
	float *record = pal__calloc(3 * n, sizeof *record);
	if (!weights || !record) {
		pal__free(weights);
		pal__free(record);
		return pal__fail_memory(err, "the side-car", 2 * n * sizeof *weights);
	}
	for (size_t i = 0; i < n; i++) {
		const pal__fit_error *e = &f->errors[f->chosen * f->n_layers + from + i];
		weights[i] = f->weights + i * y * states->h.n_embd;
		weights[n + i] = f->bias + i * y;
		record[i] = (float)e->lambda;
		record[n + i] = e->k;
		record[2 * n + i] = e->v;
	}
	const pal__sidecar_content c = {.proposer = options->proposer,
					.m = f->m[f->chosen],
					.weights = weights,
					.bias = weights + n,
					.lambda = record,
					.error_k = record + n,
					.error_v = record + 2 * n,
					.first = &options->first,
					.later = &options->later,
					.tokens = f->tokens};
	pal_status s = pal__sidecar_write(path, model, &c, err);
	pal__free(weights);
	pal__free(record);
	return s;
}
