/* What random programs are made of: numbers, models, options of bounded sessions, side-cars. */
#ifndef PAL_TEST_PROGRAMS_H
#define PAL_TEST_PROGRAMS_H

#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "session/session.h"

static inline uint64_t random_next(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

static inline int64_t random_below(uint64_t *state, int64_t n)
{
	return (int64_t)(random_next(state) % (uint64_t)n);
}

static inline const char *random_isa(uint64_t *state)
{
	static const char *const isas[] = {NULL, "scalar", "avx2", "avx512", "amx", "neon"};
	return isas[random_below(state, 6)];
}

/* With the best instruction set where the machine has not the one that is asked for. */
static inline pal_model *load(const char *path, pal_model_options o)
{
	pal_model *m = NULL;
	pal_error err;
	if (pal_model_open(path, &o, &m, &err) == PAL_EUNSUPPORTED) {
		o.isa = NULL;
		pal_model_open(path, &o, &m, &err);
	}
	if (!m) {
		printf("# %s\n", err.text);
		exit(1);
	}
	return m;
}

/* Of a session that restores. */
static inline pal_session_options random_options(uint64_t *state)
{
	static const int64_t windows[] = {1, 20, 60, 61, 100, 256};
	return (pal_session_options){
		.kv_type = (pal_kv_type)random_below(state, 5),
		.n_batch = 1 + (int)random_below(state, 200),
		.kv_policy = PAL_KV_RESTORED,
		.sink = 1 + random_below(state, 70),
		.window = windows[random_below(state, 6)],
		.slots = 1 + (int)random_below(state, 5),
		.reread = 32 + (int)random_below(state, 40),
		.positions = (pal_positions)random_below(state, 2),
		.source = (pal_source)random_below(state, PAL_N_SOURCES),
		.selection = (pal_selection)random_below(state, 3),
		.left = 1 + (int)random_below(state, 80),
		.restore_prefill = random_below(state, 3) == 0,
		.spill_type = (pal_spill_type)random_below(state, 3),
		.disk_budget =
			random_below(state, 4) ? 0 : 1 + (uint64_t)random_below(state, 100000)};
}

/* Appends what `from` has up to `end` to `to`, in pieces of its own. */
static inline bool append_pieces(uint64_t *state, const pal_session *from, pal_session *to,
				 int64_t end, pal_error *err)
{
	while (pal_session_length(to) < end) {
		int64_t at = pal_session_length(to), n = 1 + random_below(state, 200);
		n = n < end - at ? n : end - at;
		if (pal_session_append(to, pal_session_log(from) + at, (size_t)n, NULL, NULL, NULL,
				       err))
			return false;
	}
	return true;
}

/* Gives `to`, which is fresh, the log and the events of `from`. */
static inline bool replay(uint64_t *state, const pal_session *from, pal_session *to, pal_error *err)
{
	for (uint64_t i = 0; i < pal_session_n_events(from); i++) {
		pal_event e;
		if (pal_session_event(from, i, &e, err) ||
		    !append_pieces(state, from, to, e.position, err) ||
		    pal_session_apply(to, &e, err))
			return false;
	}
	return append_pieces(state, from, to, pal_session_length(from), err);
}

/* A side-car of random numbers for the model, and for the proposer unless it is NULL. */
static inline bool random_side(uint64_t *state, const char *path, const pal_model *model,
			       const pal_model *proposer, pal_error *err)
{
	enum { LAYERS = 8 };
	const pal__hparams *h = &model->h;
	size_t layers = proposer ? proposer->h.n_layers : h->n_layers - 1;
	size_t m = 1 + (size_t)random_below(state, (int64_t)layers);
	size_t y = 2 * h->n_kv_heads * h->head_dim, e = (proposer ? proposer : model)->h.n_embd;
	float *w = pal__alloc(y * e * sizeof *w);
	const float *weights[LAYERS], *bias[LAYERS], record[LAYERS] = {0};
	if (!w)
		exit(1);
	for (size_t i = 0; i < y * e; i++)
		w[i] = (float)random_below(state, 256) * 0x1p-10f - 0.125f;
	for (size_t i = 0; i < LAYERS; i++)
		weights[i] = bias[i] = w;
	pal__heads heads = {.n = 2};
	for (uint32_t i = 0; i < 2; i++) {
		size_t layer = (size_t)random_below(state, (int64_t)h->n_layers);
		if (h->window) /* one that does not slide */
			layer = h->n_layers / h->window_every * h->window_every - 1;
		heads.heads[i] = (pal__qhead){(uint32_t)layer, i};
	}
	const pal__sidecar_content c = {.proposer = proposer,
					.m = m,
					.weights = weights,
					.bias = bias,
					.lambda = record,
					.error_k = record,
					.error_v = record,
					.first = &heads,
					.later = &heads};
	pal_status s = pal__sidecar_write(path, model, &c, err);
	pal__free(w);
	return !s;
}

#endif
