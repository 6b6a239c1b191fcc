/* The source `model`: a small model that reads along, and says what it would say.
 *
 * It reads a log no sooner than it is asked, and never more of it than sinks and a window: where it
 * is farther behind, or the log was cut behind its ring, it begins anew. Its K/V then goes on
 * behind the sinks as if nothing had been between: `skipped` positions of the log.
 *
 * Invariants:
 *  - Places [0, read) of the K/V were computed in order, from the tokens that `tokens` has of them.
 *    Those below `known` are the log's; those from there on are, where a draft was right.
 *  - Rings hold what they do after `stored` places, the most since it began; `tokens` is as long.
 */
#include <string.h>

#include "base/checked.h"
#include "base/mem.h"
#include "draft/greedy.h"

#define SINK 4
#define BATCH PAL__ATTN_BLOCK /* rows of a pass */

typedef struct {
	pal__draft_source source;
	pal_model *m;
	pal__arena arena;
	pal__kv kv;
	pal__scratch scratch;
	float *logits;   /* [n_vocab] */
	int32_t *tokens; /* [n_tokens] of place i at i % n_tokens */
	int64_t n_tokens;
	int64_t skipped;
	int64_t known, read, stored; /* places */
	pal__row rows[BATCH];
} drafter;

/* --- following the log ---------------------------------------------------------------- */

static int64_t least(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

static int32_t *token_at(const drafter *d, int64_t place)
{
	return &d->tokens[place % d->n_tokens];
}

static int32_t log_at(const drafter *d, const int32_t *log, int64_t place)
{
	return log[place < SINK ? place : place + d->skipped];
}

static void observe(pal__draft_source *source, const int32_t *log, int64_t from, int64_t n)
{
	drafter *d = (drafter *)source;
	(void)log, (void)n;
	d->known = from > d->skipped ? least(d->known, from - d->skipped) : 0;
}

/* Finds what it has read of a log that ends at place `end`, but for the last one, whose logits
 * are wanted. False: it had better begin anew. */
static bool meet(drafter *d, const int32_t *log, int64_t end)
{
	int64_t known = least(d->known, end - 1);
	/* A cut before or among skipped tokens: what is behind them is no longer theirs. */
	if ((d->skipped && known < SINK) || !pal__kv_has(&d->kv, known, d->stored))
		return false;
	while (known < least(d->read, end - 1) && *token_at(d, known) == log_at(d, log, known))
		known++;
	d->known = d->read = known;
	return end - known <= d->kv.shape.window;
}

static void begin(drafter *d, int64_t n)
{
	int64_t most = SINK + d->kv.shape.window;
	d->skipped = n > most ? n - most : 0;
	d->known = d->read = d->stored = 0;
}

/* Place `read` is the token's from now on. */
static void take(drafter *d, int32_t token)
{
	*token_at(d, d->read++) = token;
	d->stored = d->read > d->stored ? d->read : d->stored;
}

/* Rows of the next pass over a log that ends at place `end`. */
static int next_rows(drafter *d, const int32_t *log, int64_t end)
{
	int n = (int)pal__kv_piece(&d->kv, d->read, (size_t)least(BATCH, end - d->read));
	for (int i = 0; i < n; i++) {
		int32_t token = log_at(d, log, d->read);
		d->rows[i] = (pal__row){.token = token, .pos = d->read, .kv = &d->kv};
		take(d, token);
	}
	return n;
}

static int propose(pal__draft_source *source, const pal__draft_view *v, int32_t *out, uint8_t *sure,
		   int most)
{
	drafter *d = (drafter *)source;
	const pal__greedy g = {.model = d->m, .scratch = &d->scratch, .logits = d->logits};
	most = (int)least(most, PAL__DRAFT_MOST);
	if (most < 1)
		return 0;
	if (!meet(d, v->log, v->n - d->skipped))
		begin(d, v->n);
	int64_t end = v->n - d->skipped;
	int rows;
	while (rows = next_rows(d, v->log, end), d->read < end)
		pal__forward(d->m, &d->scratch, d->rows, rows, NULL);
	d->known = end - 1;
	int n = pal__greedy_draft(&g, d->rows, rows, out, sure, most);
	for (int i = 0; i < n && i + 1 < most; i++)
		take(d, out[i]);
	return n;
}

/* --- opening ---------------------------------------------------------------------------- */

static pal_status same_vocabulary(const pal_model *m, const pal_model *verifier, pal_error *err)
{
	if (m->h.n_vocab != verifier->h.n_vocab)
		return pal__fail(err, PAL_EINVAL,
				 "%s has %zu tokens, and %s, for which it is to draft, %zu: the "
				 "vocabularies must be the same",
				 m->path, m->h.n_vocab, verifier->path, verifier->h.n_vocab);
	for (size_t i = 0; i < m->h.n_vocab; i++) {
		pal__str a = pal__token_bytes(m->tokenizer, (int32_t)i),
			 b = pal__token_bytes(verifier->tokenizer, (int32_t)i);
		if (a.n != b.n || memcmp(a.s, b.s, a.n) != 0)
			return pal__fail(err, PAL_EINVAL,
					 "%s has another token %zu than %s, for which it is to "
					 "draft: the vocabularies must be the same",
					 m->path, i, verifier->path);
	}
	return PAL_OK;
}

/* window: at least 1. */
static bool fill_shape(const pal_model *m, int64_t window, pal__kv_shape *shape)
{
	int64_t trained = m->h.n_ctx_train > SINK ? m->h.n_ctx_train - SINK : 1;
	*shape = (pal__kv_shape){.n_layers = m->h.n_layers,
				 .n_kv_heads = m->h.n_kv_heads,
				 .head_dim = m->h.head_dim,
				 .n_ctx = PAL_MAX_LOG,
				 .slide = m->h.window,
				 .slide_every = m->h.window_every,
				 .sink = SINK,
				 .window = least(window, trained),
				 .reread = PAL__ATTN_BLOCK, /* more than are drafted at once */
				 .piece = 1};
	return pal__kv_of_type(PAL_KV_I16, shape);
}

static pal_status make_room(drafter *d, int64_t window, pal_error *err)
{
	pal__kv_shape shape;
	size_t kv, scratch, bytes, logits = d->m->h.n_vocab * sizeof *d->logits;
	bool fits = fill_shape(d->m, window, &shape) && pal__kv_need(&shape, &kv) &&
		    pal__scratch_need(d->m, BATCH, &scratch) && pal__add_size(kv, scratch, &bytes);
	/* As long as the longest ring. */
	int64_t sight = shape.sink + shape.window;
	sight = sight > shape.slide ? sight : shape.slide;
	d->n_tokens = sight + shape.reread + 2 * PAL__ATTN_BLOCK;
	size_t tokens = (size_t)d->n_tokens * sizeof *d->tokens;
	if (!fits || !pal__add_size(bytes, pal__arena_need(logits), &bytes) ||
	    !pal__add_size(bytes, pal__arena_need(tokens), &bytes))
		return pal__fail(err, PAL_ELIMIT, "%s: a window of %lld positions is too large",
				 d->m->path, (long long)window);
	pal_status status = pal__arena_init(&d->arena, bytes, "the draft source model", err);
	if (status)
		return status;
	pal__kv_init(&d->kv, &shape, &d->arena);
	pal__scratch_init(&d->scratch, d->m, BATCH, &d->arena);
	d->logits = pal__arena_take(&d->arena, logits);
	d->tokens = pal__arena_take(&d->arena, tokens);
	return PAL_OK;
}

static void close_source(pal__draft_source *source)
{
	drafter *d = (drafter *)source;
	pal__arena_free(&d->arena);
	pal_model_close(d->m);
	pal__free(d);
}

pal_status pal__draft_model(const pal_model *verifier, const char *path, size_t window,
			    pal__draft_source **out, pal_error *err)
{
	if (window < 1 || window > PAL_MAX_CONTEXT)
		return pal__fail(err, PAL_EINVAL,
				 "a window of %zu positions for %s: 1 to %d are possible", window,
				 path, PAL_MAX_CONTEXT);
	drafter *d = pal__calloc(1, sizeof *d);
	if (!d)
		return pal__fail_memory(err, "the draft source model", sizeof *d);
	d->source = (pal__draft_source){"model", propose, observe, close_source};
	pal_status status = pal__model_open_beside(path, verifier, &d->m, err);
	if (!status)
		status = same_vocabulary(d->m, verifier, err);
	if (!status)
		status = make_room(d, (int64_t)window, err);
	if (status)
		close_source(&d->source);
	else
		*out = &d->source;
	return status;
}
