#include "model/forward.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/checked.h"
#include "kernels/trig.h"

#define QUERIES 128 /* at most, of one item of attention: for so many K and V are read once */

typedef struct {
	pal_model *m;
	const pal__hparams *h;
	const pal__kernels *k;
	pal__scratch *s;
	const pal__row *rows;
	int n;
} pass;

/* --- scratch ------------------------------------------------------------------ */

static size_t max_size(size_t a, size_t b)
{
	return a > b ? a : b;
}

/* Takes every part from the arena; with a NULL arena only counts. */
static bool lay_out(pal__scratch *s, const pal_model *m, int n_rows, pal__arena *arena,
		    size_t *total)
{
	const pal__hparams *h = &m->h;
	size_t n = (size_t)n_rows, heads = h->n_heads * h->head_dim,
	       kv = h->n_kv_heads * h->head_dim;
	size_t widest = max_size(max_size(h->n_embd, heads), h->n_ff), f = sizeof(float);
	size_t stride = (h->head_dim + 15) & ~(size_t)15;
	s->worker_bytes = pal__arena_need(QUERIES * sizeof(pal__attn_query)) +
			  QUERIES * (stride * f + pal__attn_row(h->head_dim));
	struct {
		void **to;
		size_t bytes;
	} parts[] = {
		{(void **)&s->x, n * h->n_embd * f},
		{(void **)&s->y, n * h->n_embd * f},
		{(void **)&s->q, n * heads * f},
		{(void **)&s->k, n * kv * f},
		{(void **)&s->v, n * kv * f},
		{(void **)&s->mixed, n * heads * f},
		{(void **)&s->gate, n * h->n_ff * f},
		{(void **)&s->up, n * h->n_ff * f},
		{(void **)&s->rope[0], n * h->n_rot * f},
		{(void **)&s->rope[1], n * h->n_rot * f},
		{&s->panels, pal__panels_bytes(n, widest + 31, m->kernels->wide_acts)},
		{(void **)&s->workers, s->worker_bytes * (size_t)pal__pool_threads(m->pool)},
	};
	*total = 0;
	for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
		if (!pal__add_size(*total, pal__arena_need(parts[i].bytes), total))
			return false;
		if (arena)
			*parts[i].to = pal__arena_take(arena, parts[i].bytes);
	}
	return true;
}

bool pal__scratch_need(const pal_model *m, int n_rows, size_t *bytes)
{
	pal__scratch s;
	return lay_out(&s, m, n_rows, NULL, bytes);
}

void pal__scratch_init(pal__scratch *s, const pal_model *m, int n_rows, pal__arena *arena)
{
	size_t bytes;
	*s = (pal__scratch){.n_rows = n_rows};
	bool fits = lay_out(s, m, n_rows, arena, &bytes);
	assert(fits && s->workers);
	(void)fits;
}

/* --- matrix products ------------------------------------------------------------ */

typedef struct {
	const pal__matrix *w;
	float *y; /* [n][w->n_rows] */
} product;

typedef struct {
	const pal__kernels *k;
	pal__acts acts;
	product p[3];
	size_t tiles[3], chunk;
	int n;
} products;

static void product_item(void *arg, size_t item, int worker)
{
	const products *a = arg;
	size_t at = item * a->chunk, end = at + a->chunk;
	(void)worker;
	for (int i = 0; i < a->n; i++) {
		size_t n = a->tiles[i];
		if (at < n)
			a->k->matmul(a->p[i].w, at, end < n ? end : n, &a->acts, a->p[i].y,
				     a->p[i].w->n_rows);
		at = at > n ? at - n : 0;
		end = end > n ? end - n : 0;
		if (!end)
			break;
	}
}

typedef struct {
	const pass *a;
	const float *x, *norm; /* x [n][k]; norm: weights of an RMS norm to apply first, or NULL */
	float *normed;         /* [n][k] */
	float *up;             /* x is a gate to be joined with up, or NULL */
	size_t k;
	bool round; /* to panels */
} preparation;

/* One panel's rows: norm or gate, then rounding to int8. */
static void prepare_panel(const preparation *p, size_t first, int width)
{
	const pal__kernels *k = p->a->k;
	uint8_t *panel = (uint8_t *)p->a->s->panels + pal__panels_bytes(first, p->k, k->wide_acts);
	for (int i = 0; i < width; i++) {
		size_t row = first + (size_t)i;
		const float *x = p->x + row * p->k;
		if (p->norm) {
			k->rms_norm(x, p->norm, p->k, p->a->h->rms_eps, p->normed + row * p->k);
			x = p->normed + row * p->k;
		}
		if (p->up) {
			float *gate = p->a->s->gate + row * p->k;
			(p->a->h->arch == PAL__GEMMA3 ? k->geglu
						      : k->swiglu)(gate, p->up + row * p->k, p->k);
		}
		if (p->round)
			k->quantize(x, p->k, width, i, panel);
	}
}

static void prepare_item(void *arg, size_t item, int worker)
{
	const preparation *p = arg;
	size_t n = (size_t)p->a->n, first = item * PAL__PANEL;
	size_t end = first + PAL__PANEL < n ? first + PAL__PANEL : n;
	(void)worker;
	while (first < end) {
		int width = pal__panel_width(n - first);
		prepare_panel(p, first, width);
		first += (size_t)width;
	}
}

/* y = w x for up to three matrices of one input. What the input needs before (norm, gate,
 * rounding) is done in the same go. */
static void multiply(const pass *a, preparation p, const product *list, int n_list)
{
	products job = {.k = a->k, .n = n_list};
	size_t total = 0;
	p.a = a;
	for (int i = 0; i < n_list; i++) {
		job.p[i] = list[i];
		total += job.tiles[i] = list[i].w->n_tiles;
		p.round = p.round || !pal__type_is_float(list[i].w->type);
	}
	p.k = list[0].w->n_cols;
	pal__pool_run(a->m->pool, ((size_t)a->n + PAL__PANEL - 1) / PAL__PANEL, prepare_item, &p);
	job.acts = (pal__acts){
		.n = (size_t)a->n, .k = p.k, .x = p.norm ? p.normed : p.x, .q = a->s->panels};
	/* Enough items to even out threads of different speed, each of some hundred rows. */
	size_t items = (size_t)pal__pool_threads(a->m->pool) * 8;
	job.chunk = (total + items - 1) / items;
	pal__pool_run(a->m->pool, (total + job.chunk - 1) / job.chunk, product_item, &job);
}

/* --- attention -------------------------------------------------------------------- */

typedef struct {
	const pass *a;
	const pal__layer *w;
	size_t layer;
	bool slides;
	size_t queries, chunks; /* of an item; of a kv head */
} attention;

static const float *angles(const attention *t, size_t row)
{
	return t->a->s->rope[t->slides] + row * t->a->h->n_rot;
}

/* A head of q or k: bias, norm, rotation. */
static void finish_head(const attention *t, size_t row, float *x, const float *bias,
			const float *norm)
{
	const pal__hparams *h = t->a->h;
	const float *cos = angles(t, row);
	if (bias)
		t->a->k->add(x, bias, h->head_dim);
	if (norm)
		t->a->k->rms_norm(x, norm, h->head_dim, h->rms_eps, x);
	t->a->k->rope(x, cos, cos + h->n_rot / 2, h->n_rot);
}

/* One row's share of a kv head: its queries, and K and V into the memory. */
static void store_item(void *arg, size_t item, int worker)
{
	const attention *t = arg;
	const pal__hparams *h = t->a->h;
	size_t row = item / h->n_kv_heads, head = item % h->n_kv_heads, hd = h->head_dim;
	size_t group = h->n_heads / h->n_kv_heads;
	float *k = t->a->s->k + item * hd, *v = t->a->s->v + item * hd;
	(void)worker;
	for (size_t i = head * group; i < (head + 1) * group; i++)
		finish_head(t, row, t->a->s->q + (row * h->n_heads + i) * hd,
			    t->w->bq ? t->w->bq + i * hd : NULL, t->w->q_norm);
	finish_head(t, row, k, t->w->bk ? t->w->bk + head * hd : NULL, t->w->k_norm);
	if (t->w->bv)
		t->a->k->add(v, t->w->bv + head * hd, hd);
	pal__kv_store(t->a->rows[row].kv, t->a->k, t->layer, head, t->a->rows[row].pos, k, v);
}

/* Queries [first, first + n) of one session and kv head, block by block. */
static void attend_run(const attention *t, size_t head, const pal__row *rows, const size_t *row_of,
		       pal__attn_query *q, size_t n)
{
	const pal__hparams *h = t->a->h;
	pal__kv *kv = rows[row_of[0]].kv;
	int64_t window = t->slides ? h->window : 0, first, end, skip;
	pal__kv_blocks(kv, rows[row_of[0]].pos, window, &first, &skip);
	pal__kv_blocks(kv, rows[row_of[n - 1]].pos, window, &skip, &end);
	for (int64_t b = first; b < end; b++) {
		pal__attn_kv block = pal__kv_block(kv, t->layer, head, b);
		block.scale = h->attn_scale;
		if (b + 1 < end)
			block.next = pal__kv_block(kv, t->layer, head, b + 1).k;
		size_t from = 0, to = 0;
		for (size_t i = 0; i < n; i++) {
			int64_t pos = rows[row_of[i]].pos, b0, b1;
			pal__kv_blocks(kv, pos, window, &b0, &b1);
			if (b < b0)
				break; /* and so are all after it */
			if (b >= b1) {
				from = to = i + 1;
				continue;
			}
			pal__kv_range(kv, pos, window, b, &q[i].lo, &q[i].hi);
			to = i + 1;
		}
		for (size_t i = from; i < to; i += PAL__ATTN_MAX_QUERIES) {
			size_t left = to - i;
			t->a->k->attn(
				&block, q + i,
				(int)(left < PAL__ATTN_MAX_QUERIES ? left : PAL__ATTN_MAX_QUERIES));
		}
	}
}

/* Some queries of one kv head: query i is head i % group of row i / group. */
static void attend_item(void *arg, size_t item, int worker)
{
	const attention *t = arg;
	const pal__hparams *h = t->a->h;
	size_t hd = h->head_dim, stride = (hd + 15) & ~(size_t)15,
	       group = h->n_heads / h->n_kv_heads;
	size_t head = item / t->chunks, at = item % t->chunks * t->queries;
	size_t all = (size_t)t->a->n * group, n = all - at < t->queries ? all - at : t->queries;
	uint8_t *space = t->a->s->workers + (size_t)worker * t->a->s->worker_bytes;
	pal__attn_query *q = (void *)space;
	uint8_t *rows = space + pal__arena_need(QUERIES * sizeof *q);
	float *acc = (float *)(void *)(rows + QUERIES * pal__attn_row(hd));
	size_t row_of[QUERIES];
	memset(acc, 0, n * stride * sizeof *acc);
	for (size_t i = 0; i < n; i++) {
		row_of[i] = (at + i) / group;
		size_t in = row_of[i] * h->n_heads + head * group + (at + i) % group;
		q[i] = (pal__attn_query){
			.q = t->a->s->q + in * hd,
			.row = rows + i * pal__attn_row(hd),
			.acc = acc + i * stride,
			.max = -INFINITY,
		};
		if (t->a->rows[row_of[i]].kv->shape.kind == PAL__KV_INT16)
			t->a->k->attn_begin(q[i].q, hd, rows + i * pal__attn_row(hd));
	}
	for (size_t i = 0, end; i < n; i = end) { /* rows of one session are neighbours */
		for (end = i + 1; end < n; end++)
			if (t->a->rows[row_of[end]].kv != t->a->rows[row_of[i]].kv)
				break;
		attend_run(t, head, t->a->rows, row_of + i, q + i, end - i);
	}
	for (size_t i = 0; i < n; i++) {
		size_t out = row_of[i] * h->n_heads + head * group + (at + i) % group;
		t->a->k->attn_end(q[i].acc, q[i].sum, hd, t->a->s->mixed + out * hd);
	}
}

static void attend(const pass *a, size_t layer)
{
	attention t = {.a = a, .w = &a->m->layers[layer], .layer = layer};
	t.slides = pal__layer_slides(a->h, layer);
	size_t heads = a->h->n_kv_heads, all = (size_t)a->n * (a->h->n_heads / heads);
	size_t items = (size_t)pal__pool_threads(a->m->pool) * 4;
	pal__pool_run(a->m->pool, (size_t)a->n * heads, store_item, &t);
	/* Queries that go together share loads of K and V; but every thread wants work. */
	t.queries = (all * heads + items - 1) / items;
	t.queries = (t.queries + 3) & ~(size_t)3;
	if (t.queries > 16)
		t.queries = (t.queries + 15) & ~(size_t)15;
	t.queries = t.queries > QUERIES ? QUERIES : t.queries;
	t.chunks = (all + t.queries - 1) / t.queries;
	pal__pool_run(a->m->pool, heads * t.chunks, attend_item, &t);
}

/* --- the layers --------------------------------------------------------------------- */

/* x += y, after a norm of y where the model has one. */
static void join(const pass *a, const float *norm)
{
	size_t e = a->h->n_embd;
	for (int i = 0; i < a->n; i++) {
		float *y = a->s->y + (size_t)i * e;
		if (norm)
			a->k->rms_norm(y, norm, e, a->h->rms_eps, y);
		a->k->add(a->s->x + (size_t)i * e, y, e);
	}
}

static void run_layer(const pass *a, size_t layer)
{
	const pal__layer *w = &a->m->layers[layer];
	pal__scratch *s = a->s;
	multiply(a, (preparation){.x = s->x, .norm = w->attn_norm, .normed = s->y},
		 (product[]){{&w->wq, s->q}, {&w->wk, s->k}, {&w->wv, s->v}}, 3);
	attend(a, layer);
	multiply(a, (preparation){.x = s->mixed}, (product[]){{&w->wo, s->y}}, 1);
	join(a, w->post_attn);
	multiply(a, (preparation){.x = s->x, .norm = w->ffn_norm, .normed = s->y},
		 (product[]){{&w->gate, s->gate}, {&w->up, s->up}}, 2);
	multiply(a, (preparation){.x = s->gate, .up = s->up}, (product[]){{&w->down, s->y}}, 1);
	join(a, w->post_ffn);
}

static void embed_item(void *arg, size_t item, int worker)
{
	const pass *a = arg;
	const pal__hparams *h = a->h;
	float *x = a->s->x + item * h->n_embd;
	(void)worker;
	pal__matrix_row(&a->m->embd, (size_t)a->rows[item].token, x);
	if (h->embd_scale != 1)
		a->k->scale(x, h->embd_scale, h->n_embd);
	for (int i = 0; i < (h->window ? 2 : 1); i++) {
		float *cos = a->s->rope[i] + item * h->n_rot;
		pal__rope_at(i ? &h->rope_sliding : &h->rope, h->n_rot, a->rows[item].pos, cos,
			     cos + h->n_rot / 2);
	}
}

/* logits = cap tanh(logits / cap), in double: rare, and exact where logits are small. */
static void soft_cap(float *logits, size_t n, double cap)
{
	for (size_t i = 0; i < n; i++) {
		double e = pal__exp64(2 * (double)logits[i] / cap);
		logits[i] = (float)(cap * (e - 1) / (e + 1));
	}
}

/* Logits of the rows that want them: those rows are moved together first. */
static void finish(pass *a)
{
	size_t e = a->h->n_embd, v = a->h->n_vocab;
	int wanted = 0, n = a->n;
	bool in_place = true; /* all wanted logits lie one after the other */
	float *first = NULL;
	for (int i = 0; i < n; i++) {
		if (!a->rows[i].logits)
			continue;
		first = first ? first : a->rows[i].logits;
		in_place = in_place && a->rows[i].logits == first + (size_t)wanted * v;
		memmove(a->s->x + (size_t)wanted * e, a->s->x + (size_t)i * e, e * sizeof(float));
		wanted++;
	}
	if (!wanted)
		return;
	preparation p = {.x = a->s->x, .norm = a->m->output_norm, .normed = a->s->y};
	if (in_place) {
		a->n = wanted;
		multiply(a, p, (product[]){{&a->m->output, first}}, 1);
	}
	for (int i = 0, at = 0; i < n; i++) {
		if (!a->rows[i].logits)
			continue;
		if (!in_place) {
			a->n = 1;
			p.x = a->s->x + (size_t)at++ * e;
			multiply(a, p, (product[]){{&a->m->output, a->rows[i].logits}}, 1);
		}
		if (a->h->softcap > 0)
			soft_cap(a->rows[i].logits, v, (double)a->h->softcap);
	}
}

void pal__forward(pal_model *m, pal__scratch *s, const pal__row *rows, int n)
{
	pass a = {m, &m->h, m->kernels, s, rows, n};
	assert(n >= 1 && n <= s->n_rows);
	pal__pool_run(m->pool, (size_t)n, embed_item, &a);
	for (size_t i = 0; i < m->h.n_layers; i++)
		run_layer(&a, i);
	finish(&a);
}
