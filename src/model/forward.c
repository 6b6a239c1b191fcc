#include "model/forward.h"

#include <assert.h>
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "base/checked.h"
#include "kernels/trig.h"
#include "model/batcher.h"

#define PART 512 /* columns that are rounded in one go */

typedef struct {
	pal_model *m;
	const pal__hparams *h;
	const pal__kernels *k;
	pal__scratch *s;
	const pal__row *rows;
	int n;
	bool far; /* some rows see far ones, at compact positions */
	const pal__tap *tap;
} pass;

/* Queries of one session and kv head. Query i is head i % group of row i / group. */
typedef struct {
	pal__kv *kv;
	pal__attn_query q[PAL__ATTN_MAX_QUERIES];
	size_t at[PAL__ATTN_MAX_QUERIES];     /* of their vectors in q and mixed, in heads */
	int64_t pos[PAL__ATTN_MAX_QUERIES];   /* ascending */
	int64_t first[PAL__ATTN_MAX_QUERIES]; /* position they see, ascending */
	size_t n, far;                        /* queries from `far` on see the far rows */
	uint8_t *rows, *block;                /* block: space for one that is packed */
} query_run;

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
	s->worker_bytes = pal__arena_need(sizeof(query_run)) + pal__kv_space(h->head_dim) +
			  PAL__ATTN_MAX_QUERIES * (stride * f + pal__attn_row(h->head_dim));
	struct {
		void **to;
		size_t bytes;
	} parts[] = {
		{(void **)&s->x, n * h->n_embd * f},
		{(void **)&s->y, n * h->n_embd * f},
		{(void **)&s->q, max_size(3 * heads + 2 * kv, 2 * h->n_ff) * n * f},
		{(void **)&s->rope[0], n * h->n_rot * f},
		{(void **)&s->rope[1], n * h->n_rot * f},
		{(void **)&s->rope[2], n * h->n_rot * f},
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
	s->q_far = s->mixed + n * heads;
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
	size_t layer;
	bool slides;
	size_t queries, chunks; /* of an item; of a kv head */
} attention;

static void rotate(const attention *t, size_t row, int kind, float *x)
{
	const pal__hparams *h = t->a->h;
	const float *cos = t->a->s->rope[kind] + row * h->n_rot;
	t->a->k->rope(x, cos, cos + h->n_rot / 2, h->n_rot);
}

void pal__finish_part(const pal_model *m, size_t layer, pal__part part, size_t head, float *x)
{
	const pal__layer *w = &m->layers[layer];
	size_t hd = m->h.head_dim;
	const float *bias = part == PAL__Q ? w->bq : part == PAL__K ? w->bk : w->bv;
	const float *norm = part == PAL__Q ? w->q_norm : part == PAL__K ? w->k_norm : NULL;
	if (bias)
		m->kernels->add(x, bias + head * hd, hd);
	if (norm)
		m->kernels->rms_norm(x, norm, hd, m->h.rms_eps, x);
}

/* One row's share of a kv head: its queries, and K and V into the memory. */
static void store_row(const attention *t, size_t row, size_t head)
{
	const pal__hparams *h = t->a->h;
	size_t hd = h->head_dim, group = h->n_heads / h->n_kv_heads;
	float *k = t->a->s->k + (row * h->n_kv_heads + head) * hd;
	float *v = t->a->s->v + (row * h->n_kv_heads + head) * hd;
	for (size_t i = head * group; i < (head + 1) * group; i++) {
		size_t at = (row * h->n_heads + i) * hd;
		pal__finish_part(t->a->m, t->layer, PAL__Q, i, t->a->s->q + at);
		if (t->a->far && !t->slides) {
			memcpy(t->a->s->q_far + at, t->a->s->q + at, hd * sizeof(float));
			rotate(t, row, 2, t->a->s->q_far + at);
		}
		rotate(t, row, t->slides, t->a->s->q + at);
	}
	pal__finish_part(t->a->m, t->layer, PAL__K, head, k);
	rotate(t, row, t->slides, k);
	pal__finish_part(t->a->m, t->layer, PAL__V, head, v);
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

/* Reads vectors [from, n) from `from_vectors`. */
static void begin(const attention *t, query_run *r, const float *vectors, size_t from)
{
	size_t hd = t->a->h->head_dim;
	for (size_t i = from; i < r->n; i++) {
		r->q[i].q = vectors + r->at[i] * hd;
		r->q[i].row = r->rows + i * pal__attn_row(hd);
		if (pal__kv_is_int(r->kv->shape.kind))
			t->a->k->attn_begin(r->q[i].q, hd, r->rows + i * pal__attn_row(hd));
	}
}

static void attend_far(const attention *t, size_t head, query_run *r)
{
	size_t rows = r->kv->far_rows, n = r->n - r->far;
	begin(t, r, r->kv->shape.original ? t->a->s->q : t->a->s->q_far, r->far);
	for (size_t b = 0; b * PAL__ATTN_BLOCK < rows; b++) {
		pal__attn_kv block = pal__kv_far_block(r->kv, t->a->k, t->layer, head, b, r->block);
		size_t left = rows - b * PAL__ATTN_BLOCK;
		block.scale = t->a->h->attn_scale;
		for (size_t i = r->far; i < r->n; i++) {
			r->q[i].lo = 0;
			r->q[i].hi = left < PAL__ATTN_BLOCK ? (int)left : PAL__ATTN_BLOCK;
		}
		t->a->k->attn(&block, r->q + r->far, (int)n);
	}
}

/* Block by block; a block's queries are neighbours, since both ends of what they see ascend. */
static void attend_near(const attention *t, size_t head, query_run *r)
{
	int64_t end = r->pos[r->n - 1] / PAL__ATTN_BLOCK + 1;
	begin(t, r, t->a->s->q, 0);
	for (int64_t b = r->first[0] / PAL__ATTN_BLOCK; b < end; b++) {
		int64_t start = b * PAL__ATTN_BLOCK;
		pal__attn_kv block = pal__kv_block(r->kv, t->a->k, t->layer, head, b, r->block);
		size_t from = 0, to;
		block.scale = t->a->h->attn_scale;
		if (b + 1 < end)
			block.next = pal__kv_next(r->kv, t->layer, head, b + 1);
		while (r->pos[from] < start)
			from++;
		for (to = from; to < r->n && r->first[to] < start + PAL__ATTN_BLOCK; to++) {
			int64_t lo = r->first[to] - start, hi = r->pos[to] + 1 - start;
			r->q[to].lo = lo > 0 ? (int)lo : 0;
			r->q[to].hi = hi < PAL__ATTN_BLOCK ? (int)hi : PAL__ATTN_BLOCK;
		}
		if (to > from)
			t->a->k->attn(&block, r->q + from, (int)(to - from));
	}
}

/* Fills a run with queries [at, end) of the kv head, as many as are of one session. */
static void take_run(const attention *t, query_run *r, size_t head, size_t at, size_t end)
{
	const pal__hparams *h = t->a->h;
	size_t group = h->n_heads / h->n_kv_heads;
	r->kv = t->a->rows[at / group].kv;
	r->far = SIZE_MAX;
	for (r->n = 0; at < end && t->a->rows[at / group].kv == r->kv; at++, r->n++) {
		size_t row = at / group;
		int64_t pos = t->a->rows[row].pos;
		pal__kv_sight sight = pal__kv_sees(r->kv, t->layer, pos);
		r->at[r->n] = row * h->n_heads + head * group + at % group;
		r->pos[r->n] = pos;
		r->first[r->n] = sight.first;
		if (sight.far && r->far == SIZE_MAX)
			r->far = r->n;
	}
}

static void attend_item(void *arg, size_t item, int worker)
{
	const attention *t = arg;
	const pal__hparams *h = t->a->h;
	size_t hd = h->head_dim, stride = (hd + 15) & ~(size_t)15;
	size_t head = item / t->chunks, at = item % t->chunks * t->queries;
	size_t end = (size_t)t->a->n * (h->n_heads / h->n_kv_heads);
	uint8_t *space = t->a->s->workers + (size_t)worker * t->a->s->worker_bytes;
	query_run *r = (void *)space;
	end = at + t->queries < end ? at + t->queries : end;
	r->block = space + pal__arena_need(sizeof *r);
	r->rows = r->block + pal__kv_space(hd);
	float *acc = (float *)(void *)(r->rows + PAL__ATTN_MAX_QUERIES * pal__attn_row(hd));
	for (; at < end; at += r->n) {
		take_run(t, r, head, at, end);
		memset(acc, 0, r->n * stride * sizeof *acc);
		for (size_t i = 0; i < r->n; i++)
			r->q[i] = (pal__attn_query){.acc = acc + i * stride, .max = -INFINITY};
		if (r->far < r->n)
			attend_far(t, head, r);
		attend_near(t, head, r);
		for (size_t i = 0; i < r->n; i++)
			t->a->k->attn_end(r->q[i].acc, r->q[i].sum, hd,
					  t->a->s->mixed + r->at[i] * hd);
	}
}

static void attend(const pass *a, size_t layer)
{
	attention t = {.a = a, .layer = layer};
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
	if (a->tap && a->tap->at)
		a->tap->at(a->tap->user, layer, s, a->n);
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

void pal__keys_values(pal_model *m, pal__scratch *s, size_t layer, int n)
{
	const pal__layer *w = &m->layers[layer];
	pass a = {.m = m, .h = &m->h, .k = m->kernels, .s = s, .n = n};
	assert(n >= 1 && n <= s->n_rows);
	multiply(&a, (preparation){.x = s->x, .norm = w->attn_norm, .normed = s->y},
		 (product[]){{&w->wk, s->k}, {&w->wv, s->v}}, 2);
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
	for (int i = 0; i < 3; i++) {
		float *cos = a->s->rope[i] + item * h->n_rot;
		int64_t pos = i == 2 ? pal__kv_far_pos(a->rows[item].kv) : a->rows[item].pos;
		if (i == 1 ? h->window > 0 : i == 0 || a->far)
			pal__rope_at(i == 1 ? &h->rope_sliding : &h->rope, h->n_rot, pos, cos,
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

/* Logits of rows[n] that lie one after the other in x, from row `from` on. */
static void make_logits(pass *a, const pal__row **rows, int from, int n)
{
	size_t e = a->h->n_embd, v = a->h->n_vocab;
	pal__scratch *s = a->s;
	bool in_place = true; /* all lie one after the other */
	for (int i = 1; i < n; i++)
		in_place = in_place && rows[i]->logits == rows[0]->logits + (size_t)i * v;
	float *to = in_place ? rows[0]->logits : s->staged;
	preparation p = {.x = s->x + (size_t)from * e, .norm = a->m->output_norm, .normed = s->y};
	a->n = n;
	multiply(a, p, (product[]){{&a->m->output, to}}, 1);
	for (int i = 0; i < n; i++) {
		if (!in_place)
			memcpy(rows[i]->logits, to + (size_t)i * v, v * sizeof *to);
		if (a->h->softcap > 0)
			soft_cap(rows[i]->logits, v, (double)a->h->softcap);
	}
}

/* Logits of the rows that want them: those rows are moved together first. last: what is left to
 * do to x. */
static void finish(pass *a, const preparation *last)
{
	size_t e = a->h->n_embd, v = a->h->n_vocab;
	int wanted = 0, n = a->n;
	const pal__row *rows[PAL_MAX_BATCH];
	bool in_place = true;
	for (int i = 0; i < n; i++) {
		if (!a->rows[i].logits)
			continue;
		prepare_rows(last, (size_t)i, (size_t)i + 1);
		memmove(a->s->x + (size_t)wanted * e, a->s->x + (size_t)i * e, e * sizeof(float));
		rows[wanted] = &a->rows[i];
		in_place = in_place && rows[wanted]->logits == rows[0]->logits + (size_t)wanted * v;
		wanted++;
	}
	int most = in_place ? wanted : a->s->staged ? a->s->n_staged : 1;
	for (int at = 0; at < wanted; at += most)
		make_logits(a, rows + at, at, wanted - at < most ? wanted - at : most);
}

static bool sees_far(const pal__row *rows, int n)
{
	for (int i = 0; i < n; i++) {
		const pal__kv_shape *s = &rows[i].kv->shape;
		if (s->window && !s->original && rows[i].pos >= s->sink + s->window)
			return true;
	}
	return false;
}

void pal__forward(pal_model *m, pal__scratch *s, const pal__row *rows, int n, const pal__tap *tap)
{
	if (s->batcher) {
		pal__batcher_forward(s, rows, n, tap);
		return;
	}
	pass a = {m, &m->h, m->kernels, s, rows, n, sees_far(rows, n), tap};
	size_t end = tap && tap->n_layers ? tap->n_layers : m->h.n_layers;
	assert(n >= 1 && n <= s->n_rows);
	pal__pool_run(m->pool, (size_t)n, embed_item, &a);
	for (size_t i = 0; i < end; i++)
		run_layer(&a, i);
	preparation last = {.a = &a,
			    .x = s->x,
			    .y = s->y,
			    .post = m->layers[end - 1].post_ffn,
			    .k = m->h.n_embd};
	if (tap && tap->n_layers && tap->at) {
		prepare_rows(&last, 0, (size_t)n);
		last.y = NULL;
		tap->at(tap->user, end, s, n);
	}
	finish(&a, &last);
}
