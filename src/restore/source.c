#include "restore/source.h"

#include <assert.h>
#include <string.h>

#include "base/checked.h"

void pal__put_begin(pal__site *s, const pal__span *span)
{
	assert(span->end - span->from <= PAL__SPAN_ROWS);
	pal__angles(s->m, s->kv->shape.original ? span->from : (int64_t)span->row,
		    (size_t)(span->end - span->from), s->rope);
}

void pal__put(const pal__site *s, const pal__span *span, size_t i, size_t layer, size_t head,
	      float *k, const float *v)
{
	const pal__hparams *h = &s->m->h;
	const pal__kernels *kernels = s->m->kernels;
	size_t n = (size_t)(span->end - span->from), v_row = span->row + i;
	const float *cos = s->rope + i * h->n_rot;
	float zero[PAL__KV_MAX_DIM];
	if (s->control == PAL__CONTROL_ZERO) {
		memset(k, 0, h->head_dim * sizeof *k);
		memset(zero, 0, h->head_dim * sizeof *zero);
		v = zero;
	}
	if (s->control == PAL__CONTROL_SHUFFLE)
		v_row = span->row + (i + n / 2) % n;
	kernels->rope(k, cos, cos + h->n_rot / 2, h->n_rot);
	pal__kv_store_far(s->kv, kernels, layer, head, span->row + i, k, NULL);
	pal__kv_store_far(s->kv, kernels, layer, head, v_row, NULL, v);
}

void pal__take(const pal_model *m, const pal__kv *kv, const float *angles, size_t layer,
	       size_t head, int64_t pos, float *k, float *v)
{
	size_t half = m->h.n_rot / 2;
	float back[PAL__KV_MAX_DIM];
	for (size_t i = 0; i < half; i++) {
		back[i] = angles[i];
		back[half + i] = -angles[half + i];
	}
	/* Angles may carry a scale (YaRN): both ways it counts twice, and so it is taken out. */
	pal__kv_load(kv, layer, head, pos, k, v);
	m->kernels->rope(k, back, back + half, m->h.n_rot);
	if (m->h.rope.scale != 1)
		m->kernels->scale(k, (float)(1 / (m->h.rope.scale * m->h.rope.scale)), m->h.n_rot);
}

/* --- runs ----------------------------------------------------------------------- */

int64_t pal__runs_length(const pal__site *s)
{
	return s->kv->shape.sink + s->left + PAL__SPAN_ROWS;
}

static int run_count(const pal__site *s)
{
	int64_t n = s->n_batch / pal__runs_length(s);
	return n < 1 ? 1 : n > PAL__RUNS ? PAL__RUNS : (int)n;
}

/* Of the site's model, which may be another one than the K/V are of: a proposer. */
static pal__kv_shape run_shape(const pal__site *s)
{
	const pal__hparams *h = &s->m->h;
	return (pal__kv_shape){
		.n_layers = h->n_layers,
		.n_kv_heads = h->n_kv_heads,
		.head_dim = h->head_dim,
		.n_ctx = pal__runs_length(s),
		.kind = s->kv->shape.kind,
		.packed = s->kv->shape.packed,
		.slide = h->window,
		.slide_every = h->window_every,
		.piece = ((size_t)s->n_batch + PAL__ATTN_BLOCK - 1) / PAL__ATTN_BLOCK + 1};
}

static size_t angle_bytes(const pal__site *s)
{
	return pal__arena_need(PAL__SPAN_ROWS * s->m->h.n_rot * sizeof(float));
}

bool pal__runs_need(const pal__site *s, size_t *bytes)
{
	pal__kv_shape shape = run_shape(s);
	size_t one;
	return pal__kv_need(&shape, &one) && pal__mul_size(one, (size_t)run_count(s), bytes) &&
	       pal__add_size(*bytes, angle_bytes(s), bytes);
}

void pal__runs_init(pal__runs *r, const pal__site *s, pal__arena *arena)
{
	pal__kv_shape shape = run_shape(s);
	r->n = run_count(s);
	r->length = shape.n_ctx;
	for (int i = 0; i < r->n; i++)
		pal__kv_init(&r->kv[i], &shape, arena);
	r->angles = pal__arena_take(arena, angle_bytes(s));
	assert(r->angles);
}

/* The token at place i of a span's run; its length is the last argument. */
static int32_t run_token(const pal__site *s, const pal__span *span, int64_t i)
{
	int64_t sink = s->kv->shape.sink, start = span->from - s->left;
	start = start < sink ? sink : start;
	if (s->control == PAL__CONTROL_NO_LOG)
		return s->log[0];
	return s->log[i < sink ? i : start + i - sink];
}

static int64_t run_tokens(const pal__site *s, const pal__span *span, int64_t *at)
{
	int64_t sink = s->kv->shape.sink, left = span->from - sink;
	left = left > s->left ? s->left : left;
	assert(left >= 0);
	*at = sink + left;
	return *at + span->end - span->from;
}

int64_t pal__runs_tokens(const pal__site *s, const pal__span *span, int32_t *ids, int64_t *at)
{
	int64_t n = run_tokens(s, span, at);
	for (int64_t i = 0; i < n; i++)
		ids[i] = run_token(s, span, i);
	return n;
}

void pal__runs_read(pal__runs *r, const pal__site *s, const pal__span *spans, int n, int64_t *at,
		    const pal__tap *tap)
{
	int rows = 0;
	for (int i = 0; i < n; i++) {
		int64_t length = run_tokens(s, &spans[i], &at[i]);
		for (int64_t p = 0; p < length; p++) {
			s->rows[rows++] =
				(pal__row){run_token(s, &spans[i], p), p, &r->kv[i], NULL};
			bool last = i + 1 == n && p + 1 == length;
			if (rows < s->n_batch && !last)
				continue;
			pal__forward(s->m, s->scratch, s->rows, rows, tap);
			rows = 0;
		}
	}
}

typedef struct {
	const float *angles;
	const pal__site *s;
	const pal__span *span;
	const pal__kv *kv;
	int64_t at;
} putting;

static void put_item(void *arg, size_t item, int worker)
{
	const putting *p = arg;
	const pal__hparams *h = &p->s->m->h;
	size_t layer = item / h->n_kv_heads, head = item % h->n_kv_heads;
	float k[PAL__KV_MAX_DIM], v[PAL__KV_MAX_DIM];
	(void)worker;
	if (!pal__kv_bounded(&p->s->kv->shape, layer))
		return;
	for (size_t i = 0; i < (size_t)(p->span->end - p->span->from); i++) {
		pal__take(p->s->m, p->kv, p->angles + i * h->n_rot, layer, head, p->at + (int64_t)i,
			  k, v);
		pal__put(p->s, p->span, i, layer, head, k, v);
	}
}

void pal__angles(const pal_model *m, int64_t pos, size_t n, float *angles)
{
	const pal__hparams *h = &m->h;
	for (size_t i = 0; i < n; i++, angles += h->n_rot)
		pal__rope_at(&h->rope, h->n_rot, pos + (int64_t)i, angles, angles + h->n_rot / 2);
}

void pal__runs_put(pal__runs *r, pal__site *s, const pal__span *spans, int n, const int64_t *at,
		   size_t n_layers)
{
	for (int i = 0; i < n; i++) {
		putting p = {r->angles, s, &spans[i], &r->kv[i], at[i]};
		pal__angles(s->m, at[i], (size_t)(spans[i].end - spans[i].from), r->angles);
		pal__put_begin(s, &spans[i]);
		pal__pool_run(s->m->pool, n_layers * s->m->h.n_kv_heads, put_item, &p);
	}
}
