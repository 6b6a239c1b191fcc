#include "session/session.h"

#include <string.h>

#include "base/checked.h"

typedef struct {
	pal__kv_shape kv;
	int n_batch;
	size_t kv_bytes, other; /* other: scratch, log, rows, logits */
} needs;

static pal_status measure(const pal_model *m, const pal_session_options *options, needs *out,
			  pal_error *err)
{
	static const pal_session_options defaults = {0};
	const pal_session_options *o = options ? options : &defaults;
	const pal__hparams *h = &m->h;
	int64_t n_ctx = o->n_ctx ? o->n_ctx : h->n_ctx_train;
	needs n = {.n_batch = o->n_batch ? o->n_batch : PAL_MAX_BATCH};
	if (n_ctx < 1 || n_ctx > PAL_MAX_CONTEXT)
		return pal__fail(err, PAL_EINVAL, "a context of %lld tokens: 1 to %d are possible",
				 (long long)n_ctx, PAL_MAX_CONTEXT);
	if (n.n_batch < 1 || n.n_batch > PAL_MAX_BATCH)
		return pal__fail(err, PAL_EINVAL, "a batch of %d tokens: 1 to %d are possible",
				 n.n_batch, PAL_MAX_BATCH);
	if (!pal__kv_of_type(o->kv_type, &n.kv))
		return pal__fail(err, PAL_EINVAL, "K/V type %d is not known", (int)o->kv_type);
	n.n_batch = n_ctx < n.n_batch ? (int)n_ctx : n.n_batch;
	n.kv.n_layers = h->n_layers;
	n.kv.n_kv_heads = h->n_kv_heads;
	n.kv.head_dim = h->head_dim;
	n.kv.n_ctx = n_ctx;
	size_t row = h->n_vocab * sizeof(float);
	size_t parts[] = {(size_t)n_ctx * sizeof(int32_t), row, row,
			  (size_t)n.n_batch * sizeof(pal__row)};
	bool fits = pal__kv_need(&n.kv, &n.kv_bytes) && pal__scratch_need(m, n.n_batch, &n.other);
	for (size_t i = 0; fits && i < sizeof parts / sizeof parts[0]; i++)
		fits = pal__add_size(n.other, pal__arena_need(parts[i]), &n.other);
	if (!fits)
		return pal__fail(err, PAL_ELIMIT, "a context of %lld tokens is too large",
				 (long long)n_ctx);
	*out = n;
	return PAL_OK;
}

pal_status pal_session_need(const pal_model *model, const pal_session_options *options,
			    uint64_t *kv_bytes, uint64_t *scratch_bytes, pal_error *err)
{
	needs n = {0};
	pal_status s = measure(model, options, &n, err);
	if (s != PAL_OK)
		return s;
	*kv_bytes = n.kv_bytes;
	*scratch_bytes = n.other;
	return PAL_OK;
}

/* The memory that every session touches soon, and of K/V what some hundred tokens need, is made
 * resident by all threads at once rather than page by page between two tokens. */
#define TOUCHED_KV ((size_t)128 << 20)
#define TOUCHED_PIECE ((size_t)4 << 20)

typedef struct {
	uint8_t *base;
	size_t kv, rest, end; /* bytes: of K/V to touch; where the rest starts and ends */
} touching;

static void touch_item(void *arg, size_t item, int worker)
{
	const touching *t = arg;
	size_t pieces = (t->kv + TOUCHED_PIECE - 1) / TOUCHED_PIECE;
	size_t at =
		item < pieces ? item * TOUCHED_PIECE : t->rest + (item - pieces) * TOUCHED_PIECE;
	size_t end = item < pieces ? t->kv : t->end;
	(void)worker;
	pal__populate(t->base + at, end - at < TOUCHED_PIECE ? end - at : TOUCHED_PIECE);
}

static void touch(const pal_session *s, size_t kv)
{
	touching t = {.base = s->arena.base, .rest = kv, .end = s->arena.size};
	t.kv = kv < TOUCHED_KV ? kv : TOUCHED_KV;
	size_t items = (t.kv + TOUCHED_PIECE - 1) / TOUCHED_PIECE +
		       (t.end - t.rest + TOUCHED_PIECE - 1) / TOUCHED_PIECE;
	pal__pool_run(s->model->pool, items, touch_item, &t);
}

pal_status pal_session_open(pal_model *model, const pal_session_options *options, pal_session **out,
			    pal_error *err)
{
	needs n = {0};
	pal_status status = measure(model, options, &n, err);
	if (status != PAL_OK)
		return status;
	if (model->no_weights)
		return pal__fail(err, PAL_EINVAL, "%s was opened without its weights", model->path);
	size_t bytes;
	if (!pal__add_size(n.kv_bytes, n.other, &bytes))
		return pal__fail(err, PAL_ELIMIT, "the session is too large for this machine");
	pal_session *s = pal__calloc(1, sizeof *s);
	if (!s)
		return pal__fail_memory(err, "the session", sizeof *s);
	status = pal__arena_init(&s->arena, bytes, "the session", err);
	if (status != PAL_OK) {
		pal__free(s);
		return status;
	}
	s->model = model;
	s->n_batch = n.n_batch;
	s->n_ctx = n.kv.n_ctx;
	pal__kv_init(&s->kv, &n.kv, &s->arena);
	pal__scratch_init(&s->scratch, model, n.n_batch, &s->arena);
	s->log = pal__arena_take(&s->arena, (size_t)s->n_ctx * sizeof *s->log);
	s->logits = pal__arena_take(&s->arena, model->h.n_vocab * sizeof *s->logits);
	s->next_logits = pal__arena_take(&s->arena, model->h.n_vocab * sizeof *s->logits);
	s->rows = pal__arena_take(&s->arena, (size_t)s->n_batch * sizeof *s->rows);
	touch(s, n.kv_bytes);
	*out = s;
	return PAL_OK;
}

void pal_session_close(pal_session *s)
{
	if (!s)
		return;
	pal__arena_free(&s->arena);
	pal__free(s);
}

pal_model *pal__session_model(const pal_session *s)
{
	return s->model;
}

int64_t pal_session_length(const pal_session *s)
{
	return s->length;
}

const int32_t *pal_session_log(const pal_session *s)
{
	return s->log;
}

const float *pal_session_logits(const pal_session *s)
{
	return s->has_logits ? s->logits : NULL;
}

static pal_status check_ids(const pal_session *s, const int32_t *ids, size_t n, pal_error *err)
{
	size_t n_vocab = s->model->h.n_vocab;
	for (size_t i = 0; i < n; i++)
		if (ids[i] < 0 || (size_t)ids[i] >= n_vocab)
			return pal__fail(
				err, PAL_EINVAL,
				"token %d at position %lld: the vocabulary has ids 0 to %zu",
				ids[i], (long long)s->length + (long long)i, n_vocab - 1);
	if (n > (size_t)(s->n_ctx - s->length))
		return pal__fail(err, PAL_ELIMIT,
				 "%zu tokens after %lld: the context has room for %lld", n,
				 (long long)s->length, (long long)s->n_ctx);
	return PAL_OK;
}

pal_status pal_session_append(pal_session *s, const int32_t *ids, size_t n, float *logits,
			      pal_session_progress progress, void *user, pal_error *err)
{
	pal_status status = check_ids(s, ids, n, err);
	if (status != PAL_OK || !n)
		return status;
	size_t n_vocab = s->model->h.n_vocab;
	for (size_t done = 0; done < n;) {
		size_t m = n - done < (size_t)s->n_batch ? n - done : (size_t)s->n_batch;
		for (size_t i = 0; i < m; i++) {
			float *to = logits ? logits + (done + i) * n_vocab : NULL;
			if (!logits && done + i + 1 == n)
				to = s->next_logits;
			s->rows[i] = (pal__row){ids[done + i], s->length + (int64_t)(done + i),
						&s->kv, to};
		}
		pal__forward(s->model, &s->scratch, s->rows, (int)m, NULL);
		done += m;
		if (progress && !progress(user, done, n))
			return pal__fail(err, PAL_ECANCELLED, "cancelled after %zu of %zu tokens",
					 done, n);
	}
	status = pal__model_intact(s->model, err);
	if (status != PAL_OK)
		return status;
	memcpy(s->log + s->length, ids, n * sizeof *ids);
	s->length += (int64_t)n;
	if (logits)
		memcpy(s->next_logits, logits + (n - 1) * n_vocab, n_vocab * sizeof *logits);
	float *before = s->logits;
	s->logits = s->next_logits;
	s->next_logits = before;
	s->has_logits = true;
	return PAL_OK;
}

pal_status pal_session_truncate(pal_session *s, int64_t n, pal_error *err)
{
	if (n < 0 || n > s->length)
		return pal__fail(err, PAL_EINVAL, "cannot keep %lld tokens: the session has %lld",
				 (long long)n, (long long)s->length);
	s->has_logits = s->has_logits && n == s->length && n > 0;
	s->length = n;
	return PAL_OK;
}
