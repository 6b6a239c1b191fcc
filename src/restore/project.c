#include "restore/project.h"

#include <assert.h>
#include <string.h>

#include "base/checked.h"

typedef struct {
	pal__projector *p;
	const pal__runs *r; /* where the states are computed */
	pal__site *s;
	const pal__span *spans;
	const int64_t *at; /* of the spans in their runs */
	int n;
	size_t layer;
	int span; /* at hand */
} projecting;

static size_t state_bytes(const pal__sidecar *s)
{
	return pal__arena_need(PAL__RUNS * PAL__SPAN_ROWS * s->n_embd * sizeof(float));
}

static size_t kv_bytes(const pal__sidecar *s)
{
	return pal__arena_need(PAL__SPAN_ROWS * 2 * s->n_kv * sizeof(float));
}

/* The site as the proposer reads it. */
static pal__site proposer_site(const pal__sidecar *side, const pal__site *s, pal__scratch *scratch)
{
	pal__site own = *s;
	own.m = side->proposer;
	own.scratch = scratch;
	return own;
}

bool pal__projector_need(const pal__sidecar *side, const pal__site *s, size_t *bytes)
{
	size_t more;
	if (!pal__add_size(state_bytes(side), kv_bytes(side), bytes))
		return false;
	if (!side->proposer)
		return true;
	const pal__site own = proposer_site(side, s, NULL);
	return pal__runs_need(&own, &more) && pal__add_size(*bytes, more, bytes) &&
	       pal__scratch_need(side->proposer, s->n_batch, &more) &&
	       pal__add_size(*bytes, more, bytes);
}

void pal__projector_init(pal__projector *p, const pal__sidecar *side, const pal__site *s,
			 pal__arena *arena)
{
	*p = (pal__projector){.side = side};
	if (side->proposer) {
		const pal__site own = proposer_site(side, s, NULL);
		pal__runs_init(&p->runs, &own, arena);
		pal__scratch_init(&p->scratch, side->proposer, s->n_batch, arena);
	}
	p->x = pal__arena_take(arena, state_bytes(side));
	p->kv = pal__arena_take(arena, kv_bytes(side));
	assert(p->x && p->kv);
}

static float *state(const projecting *a, int span, int64_t i)
{
	return a->p->x + ((size_t)span * PAL__SPAN_ROWS + (size_t)i) * a->p->side->n_embd;
}

/* Keeps the states of the spans' rows: sinks and left context are not wanted. */
static void keep_states(void *user, size_t layer, const pal__scratch *scratch, int n)
{
	const projecting *a = user;
	size_t e = a->p->side->n_embd;
	if (layer != a->p->side->m)
		return;
	for (int j = 0; j < n; j++) {
		int span = (int)(a->s->rows[j].kv - a->r->kv);
		int64_t i = a->s->rows[j].pos - a->at[span];
		if (i >= 0)
			memcpy(state(a, span, i), scratch->x + (size_t)j * e, e * sizeof(float));
	}
}

/* Half of the state's dimensions change their sign: what the projection was fitted to is gone,
 * the size of what it gives is not. */
static void spoil(const projecting *a, float *x)
{
	for (size_t i = 0; i < a->p->side->n_embd; i++)
		if ((i + 1) * 0x9e3779b97f4a7c15u >> 63)
			x[i] = -x[i];
}

/* One kv head of one layer and span: bias and norm, and where it belongs. */
static void put_item(void *arg, size_t head, int worker)
{
	const projecting *a = arg;
	const pal_model *m = a->s->m;
	const pal__span *span = &a->spans[a->span];
	size_t hd = m->h.head_dim, n_kv = a->p->side->n_kv;
	(void)worker;
	for (size_t i = 0; i < (size_t)(span->end - span->from); i++) {
		float *k = a->p->kv + i * 2 * n_kv + head * hd, *v = k + n_kv;
		pal__finish_part(m, a->layer, PAL__K, head, k);
		pal__finish_part(m, a->layer, PAL__V, head, v);
		pal__put(a->s, span, i, a->layer, head, k, v);
	}
}

static void project_span(projecting *a)
{
	const pal__sidecar *side = a->p->side;
	const pal__span *span = &a->spans[a->span];
	size_t n = (size_t)(span->end - span->from);
	float *x = state(a, a->span, 0);
	for (size_t i = 0; i < n && a->s->control == PAL__CONTROL_RANDOM; i++)
		spoil(a, x + i * side->n_embd);
	pal__project_norm(side, a->s->m, x, n);
	pal__put_begin(a->s, span);
	for (a->layer = side->from; a->layer < side->n_layers; a->layer++) {
		if (!pal__kv_bounded(&a->s->kv->shape, a->layer))
			continue;
		pal__project(side, a->s->m, a->layer, x, n, a->p->kv);
		pal__pool_run(a->s->m->pool, a->s->m->h.n_kv_heads, put_item, a);
	}
}

void pal__project_spans(pal__projector *p, pal__runs *r, pal__site *s, const pal__span *spans,
			size_t n)
{
	int64_t at[PAL__RUNS];
	const pal__sidecar *side = p->side;
	const pal__site reader = side->proposer ? proposer_site(side, s, &p->scratch) : *s;
	r = side->proposer ? &p->runs : r;
	for (size_t i = 0; i < n; i += (size_t)r->n) {
		int some = n - i < (size_t)r->n ? (int)(n - i) : r->n;
		projecting a = {.p = p, .r = r, .s = s, .spans = spans + i, .at = at, .n = some};
		/* With from = n_layers there is nothing to project, and all layers are run. */
		const pal__tap tap = {.at = keep_states, .user = &a, .n_layers = side->m};
		pal__runs_read(r, &reader, spans + i, some, at, &tap);
		if (!side->proposer)
			pal__runs_put(r, s, spans + i, some, at, side->from);
		for (a.span = 0; a.span < some && side->from < side->n_layers; a.span++)
			project_span(&a);
	}
}
