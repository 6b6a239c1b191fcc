#include "restore/calibrate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "model/forward.h"

#define SINKS 4
#define ROOM (SINKS + PAL__PROBE_SEEN + PAL__PROBE_WINDOW + PAL__PROBE_QUESTION)
#define BATCH PAL_MAX_BATCH
#define WORTH 0.002f /* what another head must add to the score */
#define MAX_HEADS 8  /* that are chosen */
#define QUOTED 12    /* tokens of a passage */
#define REPEATED 8   /* of which so many are repeated */

_Static_assert(ROOM <= BATCH, "a question is read at once");

#define MAX_POOL 8 /* logs whose chunks compete */
#define POOL_BYTES ((size_t)64 << 20)
#define WHOLE 65535 /* a share of 1 */

/* What a probe came to: of each head, row and chunk the share of attention. Chunks are those of
 * the log, and behind them those of the other logs in the pool. */
typedef struct {
	bool later;
	size_t n_rows, n_chunks;
	bool *right;     /* [n_chunks] */
	uint16_t *share; /* [n_heads_all][n_rows][n_chunks] */
} answer;

/* A log that was read: it is asked about, and its chunks stand for those of a longer log when
 * others are. Heads that find the right one of a few chunks need not find it among thousands. */
typedef struct {
	float *k;       /* [n_layers][PAL__PROBE_LOG][n_kv] */
	size_t evicted; /* [SINKS, evicted) is scored */
} pooled;

struct pal__calibration {
	pal_model *model;
	pal__arena arena;
	pal__kv kv;
	pal__scratch scratch;
	size_t n_layers, n_heads, n_kv, n_q, hd; /* n_kv, n_q: floats of a row */
	pooled pool[MAX_POOL];
	size_t n_pool, n_logs;
	pooled *asked; /* the log that is asked about, one of the pool */
	float *q;      /* [n_layers][PAL__SCORED_ROWS][n_q] of the question */
	int32_t log[PAL__PROBE_LOG];
	size_t at, n_rows; /* of the batch at hand: where it goes; rows of q */
	answer *answers;
	size_t n_answers, cap_answers;
};

/* --- memory ------------------------------------------------------------------- */

static pal_status take_memory(pal__calibration *c, pal_error *err)
{
	const pal__hparams *h = &c->model->h;
	const pal__kv_shape shape = {.n_layers = h->n_layers,
				     .n_kv_heads = h->n_kv_heads,
				     .head_dim = h->head_dim,
				     .n_ctx = PAL__PROBE_LOG,
				     .kind = PAL__KV_INT16,
				     .slide = h->window,
				     .slide_every = h->window_every,
				     .piece = BATCH / PAL__ATTN_BLOCK + 1};
	size_t kv, scratch;
	size_t k = c->n_layers * PAL__PROBE_LOG * c->n_kv * sizeof(float);
	size_t q = c->n_layers * PAL__SCORED_ROWS * c->n_q * sizeof(float);
	if (!pal__kv_need(&shape, &kv) || !pal__scratch_need(c->model, BATCH, &scratch))
		return pal__fail(err, PAL_ELIMIT, "the model is too large for this machine");
	c->n_pool = POOL_BYTES / k < 1 ? 1 : POOL_BYTES / k < MAX_POOL ? POOL_BYTES / k : MAX_POOL;
	size_t rest = c->n_pool * pal__arena_need(k) + pal__arena_need(q);
	pal_status s = pal__arena_init(&c->arena, kv + scratch + rest, "the calibration", err);
	if (s != PAL_OK)
		return s;
	pal__scratch_init(&c->scratch, c->model, BATCH, &c->arena);
	pal__kv_init(&c->kv, &shape, &c->arena);
	for (size_t i = 0; i < c->n_pool; i++)
		c->pool[i].k = pal__arena_take(&c->arena, k);
	c->q = pal__arena_take(&c->arena, q);
	return PAL_OK;
}

pal_status pal__calibration_new(pal_model *model, pal__calibration **out, pal_error *err)
{
	const pal__hparams *h = &model->h;
	if (model->no_weights)
		return pal__fail(err, PAL_EINVAL, "%s was opened without its weights", model->path);
	pal__calibration *c = pal__calloc(1, sizeof *c);
	if (!c)
		return pal__fail_memory(err, "the calibration", sizeof *c);
	c->model = model;
	c->n_layers = h->n_layers;
	c->n_heads = h->n_heads;
	c->hd = h->head_dim;
	c->n_kv = h->n_kv_heads * h->head_dim;
	c->n_q = h->n_heads * h->head_dim;
	pal_status s = take_memory(c, err);
	if (s == PAL_OK)
		*out = c;
	else
		pal__calibration_free(c);
	return s;
}

void pal__calibration_free(pal__calibration *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < c->n_answers; i++) {
		pal__free(c->answers[i].right);
		pal__free(c->answers[i].share);
	}
	pal__free(c->answers);
	pal__arena_free(&c->arena);
	pal__free(c);
}

/* --- reading ------------------------------------------------------------------ */

static void keep_k(void *user, size_t layer, const pal__scratch *s, int n)
{
	pal__calibration *c = user;
	float *k = c->asked->k + (layer * PAL__PROBE_LOG + c->at) * c->n_kv;
	memcpy(k, s->k, (size_t)n * c->n_kv * sizeof *k);
	for (size_t i = 0; i < (size_t)n * c->n_kv / c->hd; i++)
		pal__finish_part(c->model, layer, PAL__K, i % (c->n_kv / c->hd), k + i * c->hd);
}

/* Of the last rows. */
static void keep_q(void *user, size_t layer, const pal__scratch *s, int n)
{
	pal__calibration *c = user;
	float *q = c->q + layer * PAL__SCORED_ROWS * c->n_q;
	memcpy(q, s->q + ((size_t)n - c->n_rows) * c->n_q, c->n_rows * c->n_q * sizeof *q);
	for (size_t i = 0; i < c->n_rows * c->n_heads; i++)
		pal__finish_part(c->model, layer, PAL__Q, i % c->n_heads, q + i * c->hd);
}

static void read_rows(pal__calibration *c, const int32_t *ids, size_t n, int64_t pos,
		      void (*at)(void *, size_t, const pal__scratch *, int))
{
	pal__row rows[BATCH];
	const pal__tap tap = {.at = at, .user = c};
	for (size_t i = 0; i < n; i++)
		rows[i] = (pal__row){.token = ids[i], .pos = pos + (int64_t)i, .kv = &c->kv};
	pal__forward(c->model, &c->scratch, rows, (int)n, &tap);
}

pal_status pal__calibration_log(pal__calibration *c, const int32_t *ids, size_t n, pal_error *err)
{
	if (n < SINKS + PAL_CHUNK + PAL__PROBE_WINDOW || n > PAL__PROBE_LOG)
		return pal__fail(err, PAL_EINVAL, "a log of %zu tokens: %d to %d are possible", n,
				 SINKS + PAL_CHUNK + PAL__PROBE_WINDOW, PAL__PROBE_LOG);
	memcpy(c->log, ids, n * sizeof *ids);
	c->asked = &c->pool[c->n_logs++ % c->n_pool];
	c->asked->evicted = n - PAL__PROBE_WINDOW;
	for (c->at = 0; c->at < n;) {
		size_t left = n - c->at, piece = pal__kv_piece(&c->kv, (int64_t)c->at, BATCH);
		piece = left < piece ? left : piece;
		read_rows(c, ids + c->at, piece, (int64_t)c->at, keep_k);
		c->at += piece;
	}
	return pal__model_intact(c->model, err);
}

/* --- scoring ------------------------------------------------------------------ */

typedef struct {
	pal__calibration *c;
	answer *a;
	const pooled *logs[MAX_POOL]; /* [n_logs] whose chunks are scored, the log's own first */
	size_t n_logs;
} scoring;

static size_t chunks_of(const pooled *p)
{
	return (p->evicted + PAL_CHUNK - 1) / PAL_CHUNK;
}

/* The most that rows q[n][hd] score at a position of each chunk: best[chunk][SCORED_ROWS]. */
static void best_dots(const pal__calibration *c, const pooled *log, size_t layer, size_t kv_head,
		      const float *q, size_t n, float (*best)[PAL__SCORED_ROWS])
{
	const float *k = log->k + layer * PAL__PROBE_LOG * c->n_kv + kv_head * c->hd;
	float by_row[PAL__KV_MAX_DIM][PAL__SCORED_ROWS] = {{0}};
	for (size_t r = 0; r < n; r++)
		for (size_t d = 0; d < c->hd; d++)
			by_row[d][r] = q[r * c->n_q + d] * c->model->h.attn_scale;
	for (size_t i = 0; i < chunks_of(log); i++)
		for (size_t r = 0; r < PAL__SCORED_ROWS; r++)
			best[i][r] = -INFINITY;
	for (size_t p = SINKS; p < log->evicted; p++) {
		float dot[PAL__SCORED_ROWS] = {0}, *chunk = best[p / PAL_CHUNK];
		for (size_t d = 0; d < c->hd; d++)
			for (size_t r = 0; r < PAL__SCORED_ROWS; r++)
				dot[r] += by_row[d][r] * k[p * c->n_kv + d];
		for (size_t r = 0; r < PAL__SCORED_ROWS; r++)
			chunk[r] = dot[r] > chunk[r] ? dot[r] : chunk[r];
	}
}

/* One head: of each row the softmax over the chunks' best positions. */
static void score_item(void *arg, size_t item, int worker)
{
	const scoring *t = arg;
	const pal__calibration *c = t->c;
	float best[MAX_POOL * PAL__PROBE_LOG / PAL_CHUNK][PAL__SCORED_ROWS];
	size_t layer = item / c->n_heads, head = item % c->n_heads, n = t->a->n_chunks;
	size_t kv_head = head / (c->n_heads / (c->n_kv / c->hd)), at = 0;
	const float *q = c->q + layer * PAL__SCORED_ROWS * c->n_q + head * c->hd;
	(void)worker;
	for (size_t i = 0; i < t->n_logs; at += chunks_of(t->logs[i++]))
		best_dots(c, t->logs[i], layer, kv_head, q, t->a->n_rows, best + at);
	for (size_t r = 0; r < t->a->n_rows; r++) {
		uint16_t *share = t->a->share + (item * t->a->n_rows + r) * n;
		float most = -INFINITY, sum = 0;
		for (size_t i = 0; i < n; i++)
			most = best[i][r] > most ? best[i][r] : most;
		for (size_t i = 0; i < n; i++)
			sum += best[i][r] = expf(best[i][r] - most);
		for (size_t i = 0; i < n; i++)
			share[i] = (uint16_t)(best[i][r] / sum * WHOLE + 0.5f);
	}
}

/* Whether chunk i, with its margins, holds what is looked for, or 16 positions of it. */
static bool holds(size_t i, const pal__probe *p)
{
	size_t from = i * PAL_CHUNK, to = from + PAL_CHUNK + PAL_CHUNK_MARGIN;
	from -= from ? PAL_CHUNK_MARGIN : 0;
	size_t lo = from > p->from ? from : p->from, hi = to < p->to ? to : p->to;
	size_t want = p->to - p->from < 16 ? p->to - p->from : 16;
	return lo < hi && hi - lo >= want;
}

static pal_status new_answer(pal__calibration *c, const pal__probe *p, scoring *t, pal_error *err)
{
	answer a = {.later = p->later, .n_rows = c->n_rows};
	for (size_t i = 0; i < t->n_logs; i++)
		a.n_chunks += chunks_of(t->logs[i]);
	size_t count = c->n_layers * c->n_heads * a.n_rows * a.n_chunks;
	a.right = pal__calloc(a.n_chunks, sizeof *a.right);
	a.share = pal__calloc(count, sizeof *a.share);
	if (!a.right || !a.share ||
	    !pal__grow((void **)&c->answers, &c->cap_answers, c->n_answers + 1, sizeof a)) {
		pal__free(a.right);
		pal__free(a.share);
		return pal__fail_memory(err, "a probe", count * sizeof *a.share);
	}
	for (size_t i = 0; i < chunks_of(c->asked); i++)
		a.right[i] = holds(i, p);
	c->answers[c->n_answers] = a;
	t->a = &c->answers[c->n_answers++];
	return PAL_OK;
}

static size_t join(int32_t *to, size_t at, const int32_t *from, size_t n)
{
	memcpy(to + at, from, n * sizeof *to);
	return at + n;
}

pal_status pal__calibration_ask(pal__calibration *c, const pal__probe *p, pal_error *err)
{
	int32_t ids[ROOM];
	scoring t = {.c = c, .logs = {c->asked}, .n_logs = 1};
	if (p->n_question < 1 || p->n_question > PAL__PROBE_QUESTION || p->from < SINKS ||
	    p->to <= p->from || p->to > c->asked->evicted || p->seen_from > p->seen_to ||
	    p->seen_to > c->asked->evicted || p->seen_to - p->seen_from > PAL__PROBE_SEEN)
		return pal__fail(err, PAL_EINVAL, "a probe of [%zu, %zu) with [%zu, %zu) in sight",
				 p->from, p->to, p->seen_from, p->seen_to);
	size_t n = join(ids, 0, c->log, SINKS);
	n = join(ids, n, c->log + p->seen_from, p->seen_to - p->seen_from);
	n = join(ids, n, c->log + c->asked->evicted, PAL__PROBE_WINDOW);
	n = join(ids, n, p->question, p->n_question);
	c->n_rows = n < PAL__SCORED_ROWS ? n : PAL__SCORED_ROWS;
	for (size_t i = 0; i < c->n_pool && i < c->n_logs; i++)
		if (&c->pool[i] != c->asked)
			t.logs[t.n_logs++] = &c->pool[i];
	pal_status s = new_answer(c, p, &t, err);
	if (s != PAL_OK)
		return s;
	read_rows(c, ids, n, 0, keep_q);
	pal__pool_run(c->model->pool, c->n_layers * c->n_heads, score_item, &t);
	return pal__model_intact(c->model, err);
}

static size_t draw(uint64_t *seed, size_t below)
{
	*seed = *seed * 6364136223846793005u + 1442695040888963407u;
	return (size_t)(*seed >> 33) % below;
}

pal_status pal__calibration_quote(pal__calibration *c, size_t n, uint64_t *seed, pal_error *err)
{
	pal_status s = PAL_OK;
	for (size_t i = 0; i < n && s == PAL_OK; i++) {
		size_t from = SINKS + draw(seed, c->asked->evicted - SINKS - QUOTED);
		const pal__probe p = {.question = c->log + from,
				      .n_question = REPEATED,
				      .from = from,
				      .to = from + QUOTED};
		s = pal__calibration_ask(c, &p, err);
	}
	return s;
}

/* --- choosing ----------------------------------------------------------------- */

/* How the heads in `heads` do, all together, in the answers of one kind. */
static void rate(const pal__calibration *c, bool later, const pal__heads *heads,
		 pal__head_score *out)
{
	size_t n = 0, hit1 = 0, hit2 = 0;
	double score = 0;
	for (size_t i = 0; i < c->n_answers; i++) {
		const answer *a = &c->answers[i];
		uint32_t sum[MAX_POOL * PAL__PROBE_LOG / PAL_CHUNK] = {0}, right = 0;
		if (a->later != later)
			continue;
		for (size_t r = 0; r < a->n_rows; r++)
			for (size_t k = 0; k < a->n_chunks; k++) {
				for (size_t h = 0; h < heads->n; h++) {
					pal__qhead id = heads->heads[h];
					size_t at = (size_t)id.layer * c->n_heads + id.head;
					sum[k] += a->share[(at * a->n_rows + r) * a->n_chunks + k];
				}
			}
		for (size_t k = 0; k < a->n_chunks; k++)
			right = a->right[k] && sum[k] > right ? sum[k] : right;
		size_t rank = 1;
		for (size_t k = 0; k < a->n_chunks; k++)
			rank += !a->right[k] && sum[k] >= right;
		n++;
		hit1 += rank == 1;
		hit2 += rank <= 2;
		score += 1 / (double)rank;
	}
	out->hit1 = (float)hit1 / (float)n;
	out->hit2 = (float)hit2 / (float)n;
	out->score = (float)(score / (double)n);
}

/* Candidates: all but heads that look no farther than a sliding window, where there are others. */
static size_t list_heads(const pal__calibration *c, pal__head_score *out)
{
	size_t n = 0;
	for (int slides = 0; slides < 2 && !n; slides++)
		for (size_t i = 0; i < c->n_layers * c->n_heads; i++) {
			size_t layer = i / c->n_heads;
			if (pal__kv_slides(&c->kv.shape, layer) == (slides == 1))
				out[n++].head =
					(pal__qhead){(uint32_t)layer, (uint32_t)(i % c->n_heads)};
		}
	return n;
}

static int compare(const void *a, const void *b)
{
	const pal__head_score *x = a, *y = b;
	if (x->score != y->score)
		return x->score < y->score ? 1 : -1;
	int layers = (int)x->head.layer - (int)y->head.layer;
	return layers ? layers : (int)x->head.head - (int)y->head.head;
}

/* Adds the head that helps most, if it helps enough. */
static bool add_head(const pal__calibration *c, bool later, pal__calibrated *out)
{
	pal__head_score best = {.score = out->heads.n ? out->score + WORTH : -1};
	bool found = false;
	for (size_t i = 0; i < out->n_singles && i < 32; i++) {
		pal__heads with = out->heads;
		pal__head_score now = {.head = out->singles[i].head};
		bool has = false;
		for (size_t k = 0; k < with.n; k++)
			has = has || !memcmp(&with.heads[k], &now.head, sizeof now.head);
		if (has)
			continue;
		with.heads[with.n++] = now.head;
		rate(c, later, &with, &now);
		if (now.score > best.score) {
			best = now;
			found = true;
		}
	}
	if (!found)
		return false;
	out->heads.heads[out->heads.n++] = best.head;
	out->hit1 = best.hit1;
	out->hit2 = best.hit2;
	out->score = best.score;
	return true;
}

pal_status pal__calibration_choose(pal__calibration *c, bool later, pal__calibrated *out,
				   pal_error *err)
{
	size_t count = c->n_layers * c->n_heads;
	*out = (pal__calibrated){0};
	for (size_t i = 0; i < c->n_answers; i++)
		out->n_probes += c->answers[i].later == later;
	if (!out->n_probes)
		return PAL_OK;
	out->singles = pal__calloc(count, sizeof *out->singles);
	if (!out->singles)
		return pal__fail_memory(err, "the heads", count * sizeof *out->singles);
	out->n_singles = list_heads(c, out->singles);
	for (size_t i = 0; i < out->n_singles; i++) {
		const pal__heads one = {.heads = {out->singles[i].head}, .n = 1};
		rate(c, later, &one, &out->singles[i]);
	}
	qsort(out->singles, out->n_singles, sizeof *out->singles, compare);
	while (out->heads.n < MAX_HEADS && add_head(c, later, out))
		;
	return PAL_OK;
}
