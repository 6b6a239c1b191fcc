#include "model/forward.h"

#include <assert.h>
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "base/checked.h"
#include "kernels/trig.h"

#define PART 512 /* columns that are rounded in one go */

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
	s->worker_bytes = pal__arena_need(PAL__ATTN_MAX_QUERIES * sizeof(pal__attn_query)) +
			  PAL__ATTN_MAX_QUERIES * (stride * f + pal__attn_row(h->head_dim));
	struct {
		void **to;
		size_t bytes;
	} parts[] = {
		{(void **)&s->x, n * h->n_embd * f},
		{(void **)&s->y, n * h->n_embd * f},
		{(void **)&s->q, max_size(2 * (heads + kv), 2 * h->n_ff) * n * f},
		{(void **)&s->rope[0], n * h->n_rot * f},
		{(void **)&s->rope[1], n * h->n_rot * f},
		{&s->panels, pal__panels_bytes(n, widest + 31)},
		{(void **)&s->workers, s->worker_bytes * (size_t)pal__pool_threads(m->pool)},
	};
	*total = 0;
	for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
		if (!pal__add_size(*total, pal__arena_need(parts[i].bytes), total))
			return false;
		if (arena)
			*parts[i].to = pal__arena_take(arena, parts[i].bytes);
	}
	if (!arena)
		return true;
	/* A layer is done with attention's rows when it writes the feed-forward's. */
	s->k = s->q + n * heads;
	s->v = s->k + n * kv;
	s->mixed = s->v + n * kv;
	s->gate = s->q;
	s->up = s->gate + n * h->n_ff;
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

/* Memory is fetched ahead, and so a thread should go on where it was: each has a share of the
 * chunks, from whose front it takes. One that has none left takes from the end of another's. */
typedef struct {
	_Alignas(PAL__ALIGN) _Atomic uint64_t left; /* end << 32 | front */
} share;

typedef struct {
	const pal__kernels *k;
	pal__acts acts;
	product p[3];
	size_t tiles[3], chunk;
	int n, n_shares;
	share shares[PAL_MAX_THREADS];
} products;

static void deal(products *a, size_t chunks)
{
	for (size_t i = 0, n = (size_t)a->n_shares; i < n; i++)
		atomic_init(&a->shares[i].left,
			    (uint64_t)(chunks * (i + 1) / n) << 32 | chunks * i / n);
}

/* A chunk nobody has; there is one for each item. */
static size_t take_chunk(products *a, int worker)
{
	for (int i = 0;; i++) {
		_Atomic uint64_t *from = &a->shares[(worker + i) % a->n_shares].left;
		uint64_t at = atomic_load(from), front, end;
		while ((front = (uint32_t)at) < (end = at >> 32)) {
			uint64_t to = i ? (end - 1) << 32 | front : end << 32 | (front + 1);
			if (atomic_compare_exchange_weak(from, &at, to))
				return i ? end - 1 : front;
		}
	}
}

static void product_item(void *arg, size_t item, int worker)
{
	products *a = arg;
	size_t at = take_chunk(a, worker) * a->chunk, end = at + a->chunk;
	(void)item;
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
	float *x;          /* [n][k] */
	float *y;          /* [n][k] to add to x first, or NULL */
	const float *post; /* weights of an RMS norm of y before that, or NULL */
	const float *norm; /* weights of an RMS norm of x, or NULL */
	float *normed;     /* [n][k]: may be y */
	float *up;         /* x is a gate to be joined with up, or NULL */
	size_t k, parts;   /* parts: of a panel, PART columns each, or 1 */
	bool round;        /* to panels */
} preparation;

/* x += y, after a norm of y where the model has one. */
static void join(const preparation *p, size_t row)
{
	const pal__kernels *k = p->a->k;
	float *y = p->y + row * p->k;
	if (p->post)
		k->rms_norm(y, p->post, p->k, p->a->h->rms_eps, y);
	k->add(p->x + row * p->k, y, p->k);
}

/* Rows [first, end): what the layer before left to add, and norm. */
static void prepare_rows(const preparation *p, size_t first, size_t end)
{
	const pal__kernels *k = p->a->k;
	for (size_t row = first; row < end; row++) {
		if (p->y)
			join(p, row);
		if (p->norm)
			k->rms_norm(p->x + row * p->k, p->norm, p->k, p->a->h->rms_eps,
				    p->normed + row * p->k);
	}
}

/* Columns [from, to) of a panel: gate, then rounding to int8. */
static void prepare_columns(const preparation *p, size_t first, int width, size_t from, size_t to)
{
	const pal__kernels *k = p->a->k;
	const float *x = p->norm ? p->normed : p->x;
	for (size_t row = first; p->up && row < first + (size_t)width; row++) {
		size_t at = row * p->k + from;
		(p->a->h->arch == PAL__GEMMA3 ? k->geglu : k->swiglu)(p->x + at, p->up + at,
								      to - from);
	}
	if (p->round)
		k->quantize(x + first * p->k, p->k, from, to, width,
			    (uint8_t *)p->a->s->panels + pal__panels_bytes(first, p->k));
}

static void rows_item(void *arg, size_t item, int worker)
{
	const preparation *p = arg;
	(void)worker;
	prepare_rows(p, item, item + 1);
}

/* A panel, or a part of it, whose rows are ready. */
static void columns_item(void *arg, size_t item, int worker)
{
	const preparation *p = arg;
	size_t panel = (size_t)p->a->k->panel, first = item / p->parts * panel;
	size_t from = item % p->parts * PART, to = p->parts == 1 ? p->k : from + PART;
	int width = pal__panel_width((size_t)p->a->n - first, (int)panel);
	(void)worker;
	if (p->parts == 1)
		prepare_rows(p, first, first + (size_t)width);
	prepare_columns(p, first, width, from, to < p->k ? to : p->k);
}

/* Many panels are shared out whole. Of few, rows are and then columns, so that verification,
 * which is one panel, has all threads; a single row is not worth waking them. */
static void prepare(preparation *p)
{
	size_t n = (size_t)p->a->n, panel = (size_t)p->a->k->panel;
	size_t panels = (n + panel - 1) / panel;
	p->parts = n < 4 || panels >= 2 * (size_t)pal__pool_threads(p->a->m->pool)
			   ? 1
			   : (p->k + PART - 1) / PART;
	if (p->parts > 1 && p->norm)
		pal__pool_run(p->a->m->pool, n, rows_item, p);
	pal__pool_run(p->a->m->pool, panels * p->parts, columns_item, p);
}

/* y = w x for up to three matrices of one input. What the input needs before (norm, gate,
 * rounding) is done in the same go. */
static void multiply(const pass *a, preparation p, const product *list, int n_list)
{
	products job;
	size_t total = 0;
	p.a = a;
	job.k = a->k;
	job.n = n_list;
	for (int i = 0; i < n_list; i++) {
		job.p[i] = list[i];
		total += job.tiles[i] = list[i].w->n_tiles;
		p.round = p.round || !pal__type_is_float(list[i].w->type);
	}
	p.k = list[0].w->n_cols;
	prepare(&p);
	job.acts = (pal__acts){
		.n = (size_t)a->n, .k = p.k, .x = p.norm ? p.normed : p.x, .q = a->s->panels};
	/* Enough items to even out threads of different speed, each of some hundred rows. */
	size_t items = (size_t)pal__pool_threads(a->m->pool) * 4;
	job.chunk = (total + items - 1) / items;
	size_t chunks = (total + job.chunk - 1) / job.chunk;
	job.n_shares = pal__pool_threads(a->m->pool);
	deal(&job, chunks);
	pal__pool_run(a->m->pool, chunks, product_item, &job);
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
static void store_row(const attention *t, size_t row, size_t head)
{
	const pal__hparams *h = t->a->h;
	size_t hd = h->head_dim, group = h->n_heads / h->n_kv_heads;
	float *k = t->a->s->k + (row * h->n_kv_heads + head) * hd;
	float *v = t->a->s->v + (row * h->n_kv_heads + head) * hd;
	for (size_t i = head * group; i < (head + 1) * group; i++)
		finish_head(t, row, t->a->s->q + (row * h->n_heads + i) * hd,
			    t->w->bq ? t->w->bq + i * hd : NULL, t->w->q_norm);
	finish_head(t, row, k, t->w->bk ? t->w->bk + head * hd : NULL, t->w->k_norm);
	if (t->w->bv)
		t->a->k->add(v, t->w->bv + head * hd, hd);
	pal__kv_store(t->a->rows[row].kv, t->a->k, t->layer, head, t->a->rows[row].pos, k, v);
}

/* Neighbouring positions share cache lines, and so an item is some of them. */
static void store_item(void *arg, size_t item, int worker)
{
	const attention *t = arg;
	size_t heads = t->a->h->n_kv_heads, row = item / heads * PAL__ATTN_BLOCK;
	size_t end = row + PAL__ATTN_BLOCK, n = (size_t)t->a->n;
	(void)worker;
	for (; row < end && row < n; row++)
		store_row(t, row, item % heads);
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
	uint8_t *rows = space + pal__arena_need(PAL__ATTN_MAX_QUERIES * sizeof *q);
	float *acc = (float *)(void *)(rows + PAL__ATTN_MAX_QUERIES * pal__attn_row(hd));
	size_t row_of[PAL__ATTN_MAX_QUERIES];
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
	size_t stored = ((size_t)a->n + PAL__ATTN_BLOCK - 1) / PAL__ATTN_BLOCK;
	pal__pool_run(a->m->pool, stored * heads, store_item, &t);
	/* Queries that go together share loads of K and V; but every thread wants work. */
	t.queries = (all * heads + items - 1) / items;
	t.queries = (t.queries + 3) & ~(size_t)3;
	if (t.queries > PAL__ATTN_MAX_QUERIES)
		t.queries += -t.queries % PAL__ATTN_MAX_QUERIES;
	t.queries = t.queries > PAL__ATTN_MAX_QUERIES ? PAL__ATTN_MAX_QUERIES : t.queries;
	t.chunks = (all + t.queries - 1) / t.queries;
	pal__pool_run(a->m->pool, heads * t.chunks, attend_item, &t);
}

/* --- the layers --------------------------------------------------------------------- */

/* Layer `layer`; what it adds to x last is left in y to whoever reads x next. */
static void run_layer(const pass *a, size_t layer)
{
	const pal__layer *w = &a->m->layers[layer], *before = layer ? w - 1 : NULL;
	pal__scratch *s = a->s;
	multiply(a,
		 (preparation){.x = s->x,
			       .y = before ? s->y : NULL,
			       .post = before ? before->post_ffn : NULL,
			       .norm = w->attn_norm,
			       .normed = s->y},
		 (product[]){{&w->wq, s->q}, {&w->wk, s->k}, {&w->wv, s->v}}, 3);
	attend(a, layer);
	multiply(a, (preparation){.x = s->mixed}, (product[]){{&w->wo, s->y}}, 1);
	multiply(a,
		 (preparation){.x = s->x,
			       .y = s->y,
			       .post = w->post_attn,
			       .norm = w->ffn_norm,
			       .normed = s->y},
		 (product[]){{&w->gate, s->gate}, {&w->up, s->up}}, 2);
	multiply(a, (preparation){.x = s->gate, .up = s->up}, (product[]){{&w->down, s->y}}, 1);
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
	preparation p = {.a = a,
			 .x = a->s->x,
			 .y = a->s->y,
			 .post = a->m->layers[a->h->n_layers - 1].post_ffn,
			 .k = e};
	for (int i = 0; i < n; i++) {
		if (!a->rows[i].logits)
			continue;
		join(&p, (size_t)i);
		first = first ? first : a->rows[i].logits;
		in_place = in_place && a->rows[i].logits == first + (size_t)wanted * v;
		memmove(a->s->x + (size_t)wanted * e, a->s->x + (size_t)i * e, e * sizeof(float));
		wanted++;
	}
	if (!wanted)
		return;
	p = (preparation){.x = a->s->x, .norm = a->m->output_norm, .normed = a->s->y};
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
