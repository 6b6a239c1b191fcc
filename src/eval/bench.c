#include "eval/bench.h"

#include <string.h>

#include "base/checked.h"
#include "base/clock.h"
#include "base/mem.h"
#include "session/session.h"

#define WARM_UP 16 /* tokens computed and forgotten first, to touch the weights */

#define READ_BYTES ((size_t)1 << 29) /* buffer whose reading is timed */
#define READ_CHUNK ((size_t)1 << 20) /* bytes of one item of the pool */
#define READ_PASSES 5
#define READ_SUMS 32 /* accumulators: additions never wait for one another */

struct bench {
	pal_session *s;
	int32_t n_vocab;
	int32_t *ids;  /* [the longest prompt, at least the largest L] */
	float *logits; /* [largest L][n_vocab] */
	pal_progress progress;
	void *user;
	uint64_t done, total; /* steps for progress */
};

static void advance(struct bench *b, uint64_t steps)
{
	b->done += steps;
	if (b->progress)
		b->progress(b->user, b->done, b->total);
}

static int32_t argmax(const float *x, int32_t n)
{
	int32_t best = 0;
	for (int32_t i = 1; i < n; i++)
		if (x[i] > x[best])
			best = i;
	return best;
}

static bool on_prefill(void *user, size_t done, size_t total)
{
	struct bench *b = user;
	(void)total;
	if (b->progress)
		b->progress(b->user, b->done + done, b->total);
	return true;
}

/* Appends the prompt's tokens from..to, and adds the time that it took. */
static pal_status prefill(struct bench *b, int64_t from, int64_t to, double *seconds,
			  pal_error *err)
{
	size_t n = (size_t)(to - from);
	double start = pal__now();
	pal_status s = pal_session_append(b->s, b->ids + from, n, NULL, on_prefill, b, err);
	*seconds += pal__now() - start;
	advance(b, n);
	return s;
}

static pal_status warm_up(struct bench *b, int64_t n_prefill, pal_error *err)
{
	size_t n = n_prefill < WARM_UP ? (size_t)n_prefill : WARM_UP;
	pal_status s = pal_session_append(b->s, b->ids, n, NULL, NULL, NULL, err);
	return s ? s : pal_session_truncate(b->s, 0, err);
}

/* Bytes of K/V that the token at `pos` sees: each is read once. */
static double kv_bytes(const pal_session *s, int64_t pos)
{
	const pal__hparams *h = &s->model->h;
	double row = (double)(s->kv.head_bytes / PAL__ATTN_BLOCK * h->n_kv_heads), sum = 0;
	for (size_t layer = 0; layer < h->n_layers; layer++) {
		pal__kv_sight sight = pal__kv_sees(&s->kv, layer, pos);
		size_t far = sight.far ? s->kv.far_rows : 0;
		sum += row * (double)(pos + 1 - sight.first + (int64_t)far);
	}
	return sum;
}

/* As pal_generate does: chunks are brought back before the first token, whose time is apart, and
 * looked for again before each. */
static pal_status decode(struct bench *b, int64_t n, pal__bench_depth *d, pal_error *err)
{
	int32_t token = 5;
	double start = pal__now();
	pal_status status = pal_session_restore(b->s, err);
	d->restore_s = pal__now() - start;
	for (int64_t i = 0; i < n && !status; i++) {
		d->kv_bytes += kv_bytes(b->s, pal_session_length(b->s)) / (double)n;
		start = pal__now();
		status = pal__session_reselect(b->s, err);
		if (!status)
			status = pal_session_append(b->s, &token, 1, NULL, NULL, NULL, err);
		if (!status)
			token = argmax(pal_session_logits(b->s), b->n_vocab);
		d->decode_s += pal__now() - start;
		advance(b, 1);
	}
	return status;
}

static pal_status verify(struct bench *b, const pal__bench_list *l, double *ms, pal_error *err)
{
	int64_t length = pal_session_length(b->s);
	for (size_t i = 0; i < l->n; i++) {
		double best = 0;
		for (int round = 0; round < PAL__BENCH_ROUNDS; round++) {
			double start = pal__now();
			pal_status status = pal_session_append(b->s, b->ids, (size_t)l->items[i],
							       b->logits, NULL, NULL, err);
			double t = pal__now() - start;
			if (!status)
				status = pal_session_truncate(b->s, length, err);
			if (status)
				return status;
			best = round == 0 || t < best ? t : best;
			advance(b, 1);
		}
		ms[i] = best * 1e3;
	}
	return PAL_OK;
}

/* Fills all slots with chunks from all over the log, others each time. */
static pal_status fill(struct bench *b, pal__bench_depth *d, pal_error *err)
{
	pal_session *s = b->s;
	int reread = s->o.reread;
	int64_t apart = 0; /* chunks from one slot's to the next's; 0: no slots */
	pal_status status = PAL_OK;
	if (s->o.kv_policy == PAL_KV_RESTORED && s->length > reread)
		apart = pal__restore_end(&s->restore, s->length - reread) / PAL_CHUNK / s->o.slots;
	for (int round = 0; apart > 1 && round <= PAL__BENCH_ROUNDS && !status; round++) {
		int32_t set[PAL_MAX_SLOTS];
		for (int i = 0; i < s->o.slots; i++)
			set[i] = (int32_t)(i * apart + round % apart);
		const pal__recalling r = {
			.at = s->length, .reread = reread, .chunks = set, .n = s->o.slots};
		pal__memo_forget(&s->restore.memo);
		double before = s->fill_s;
		status = pal__session_event(s, &r, err);
		double t = s->fill_s - before;
		if (round) /* the first one may have to write what left the window */
			d->fill_s = round == 1 || t < d->fill_s ? t : d->fill_s;
		d->slots = s->o.slots;
	}
	return status;
}

/* One prompt grows from depth to depth: what a depth costs is what it took so far. */
static pal_status depths(struct bench *b, const pal__bench_plan *plan, pal__bench *r,
			 pal_error *err)
{
	double seconds = 0;
	pal_status s = pal_session_truncate(b->s, 0, err);
	for (size_t i = 0; i < plan->depths.n && !s; i++) {
		int64_t from = i ? plan->depths.items[i - 1] : 0, to = plan->depths.items[i];
		s = prefill(b, from, to, &seconds, err);
		r->depths[i].prefill_s = seconds;
		if (!s)
			s = decode(b, plan->n_decode, &r->depths[i], err);
		if (!s)
			s = fill(b, &r->depths[i], err);
		if (!s)
			s = pal_session_truncate(b->s, to, err);
		if (!s && i + 1 < plan->depths.n) /* a bounded session may read all again */
			s = pal__session_refresh(b->s, err);
	}
	return s;
}

static int64_t deepest(const pal__bench_plan *plan)
{
	return plan->depths.n ? plan->depths.items[plan->depths.n - 1] : 0;
}

int64_t pal__bench_context(const pal__bench_plan *plan)
{
	int64_t prompt = plan->n_prefill > deepest(plan) ? plan->n_prefill : deepest(plan);
	return prompt + plan->n_decode + PAL__BENCH_SPARE;
}

static uint64_t steps(const pal__bench_plan *plan)
{
	return (uint64_t)(plan->n_prefill + plan->n_decode + deepest(plan)) +
	       (uint64_t)plan->n_decode * plan->depths.n + plan->verify.n * PAL__BENCH_ROUNDS;
}

pal_status pal__bench_run(pal_session *s, int32_t n_vocab, const pal__bench_plan *plan,
			  pal_progress progress, void *user, pal__bench *out, pal_error *err)
{
	int64_t n_ids = pal__bench_context(plan); /* more than any prompt, and than any L */
	pal__bench r = {0};
	size_t ids_bytes, logit_bytes;
	if (!pal__mul_size((size_t)n_ids, sizeof(int32_t), &ids_bytes) ||
	    !pal__mul_size((size_t)n_vocab * sizeof(float), PAL__BENCH_VERIFY, &logit_bytes))
		return pal__fail_memory(err, "the benchmark", SIZE_MAX);
	struct bench b = {.s = s,
			  .n_vocab = n_vocab,
			  .ids = pal__alloc(ids_bytes),
			  .logits = pal__alloc(logit_bytes),
			  .progress = progress,
			  .user = user,
			  .total = steps(plan)};
	pal_status status = PAL_OK;
	if (!b.ids || !b.logits)
		status = pal__fail_memory(err, "the benchmark", ids_bytes + logit_bytes);
	/* The peer's ids: spread over the vocabulary, past the byte tokens. */
	int32_t range = n_vocab > 300 ? n_vocab - 300 : n_vocab;
	for (int64_t i = 0; i < n_ids && !status; i++)
		b.ids[i] = (int32_t)((300 + i * 7919) % range);
	if (!status)
		status = warm_up(&b, plan->n_prefill, err);
	if (!status)
		status = prefill(&b, 0, plan->n_prefill, &r.first.prefill_s, err);
	if (!status)
		status = decode(&b, plan->n_decode, &r.first, err);
	if (!status)
		status = verify(&b, &plan->verify, r.verify_ms, err);
	if (!status && plan->depths.n)
		status = depths(&b, plan, &r, err);
	pal__free(b.ids);
	pal__free(b.logits);
	if (!status)
		*out = r;
	return status;
}

/* --- the machine's memory ------------------------------------------------- */

struct reading {
	uint8_t *data; /* [READ_BYTES] */
	uint64_t sums[READ_BYTES / READ_CHUNK];
};

/* Pages that nobody has written are one page of zeros, in the cache. */
static void fill_chunk(void *arg, size_t item, int worker)
{
	struct reading *r = arg;
	(void)worker;
	memset(r->data + item * READ_CHUNK, 1, READ_CHUNK);
}

static void read_chunk(void *arg, size_t item, int worker)
{
	struct reading *r = arg;
	const uint64_t *p = (const uint64_t *)(r->data + item * READ_CHUNK);
	uint64_t sums[READ_SUMS] = {0}, sum = 0;
	(void)worker;
	for (size_t i = 0; i < READ_CHUNK / sizeof *p; i += READ_SUMS)
		for (size_t j = 0; j < READ_SUMS; j++)
			sums[j] += p[i + j];
	for (size_t j = 0; j < READ_SUMS; j++)
		sum += sums[j];
	r->sums[item] = sum; /* so that the reading is not left out */
}

pal_status pal__bench_bandwidth(pal__pool *pool, double *bytes_s, pal_error *err)
{
	const size_t n = READ_BYTES / READ_CHUNK;
	double best = 0;
	struct reading r = {.data = pal__alloc_aligned(READ_BYTES)};
	if (!r.data)
		return pal__fail_memory(err, "the buffer whose reading is timed", READ_BYTES);
	pal__pool_run(pool, n, fill_chunk, &r);
	for (int pass = 0; pass < READ_PASSES; pass++) {
		double start = pal__now();
		pal__pool_run(pool, n, read_chunk, &r);
		double rate = (double)READ_BYTES / (pal__now() - start);
		best = rate > best ? rate : best;
	}
	pal__free_aligned(r.data, READ_BYTES);
	*bytes_s = best;
	return PAL_OK;
}

uint64_t pal__bench_token_bytes(const pal_model *m)
{
	/* Of an embedding that is not the output matrix too, a token reads one row. */
	return m->weight_bytes - (m->tied ? 0 : pal__matrix_bytes(&m->embd));
}
