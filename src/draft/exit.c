/* The source `exit`: the verifier's first layers and its output head guess what all of them will
 * say. It keeps nothing: the layers' K/V of earlier positions are the verifier's, and those it
 * makes are what the verifier will make, to the bit, of the tokens that are right. */
#include <assert.h>

#include "base/mem.h"
#include "draft/greedy.h"

typedef struct {
	pal__draft_source source;
	size_t n_layers;
	float *logits; /* [n_vocab] */
} early;

static int propose(pal__draft_source *source, const pal__draft_view *v, int32_t *out, uint8_t *sure,
		   int most)
{
	early *e = (early *)source;
	const pal__tap tap = {.n_layers = e->n_layers};
	const pal__greedy g = {v->verifier, v->scratch, &tap, e->logits};
	assert(e->n_layers < v->verifier->h.n_layers && v->n >= 1 && v->room >= 1);
	v->rows[0] = (pal__row){.token = v->log[v->n - 1], .pos = v->n - 1, .kv = v->kv};
	return pal__greedy_draft(&g, v->rows, 1, out, sure, most < v->room ? most : v->room);
}

static void observe(pal__draft_source *source, const int32_t *log, int64_t from, int64_t n)
{
	(void)source, (void)log, (void)from, (void)n;
}

static void close_source(pal__draft_source *source)
{
	early *e = (early *)source;
	pal__free(e->logits);
	pal__free(e);
}

pal_status pal__draft_exit(const pal_model *verifier, int n_layers, pal__draft_source **out,
			   pal_error *err)
{
	size_t all = verifier->h.n_layers, n = verifier->h.n_vocab;
	if (n_layers < 1 || (size_t)n_layers >= all)
		return pal__fail(err, PAL_EINVAL,
				 "exit:%d: at least 1 layer, and fewer than the %zu of %s",
				 n_layers, all, verifier->path);
	early *e = pal__calloc(1, sizeof *e);
	float *logits = pal__calloc(n, sizeof *logits);
	if (!e || !logits) {
		pal__free(e);
		pal__free(logits);
		return pal__fail_memory(err, "the draft source exit",
					sizeof *e + n * sizeof *logits);
	}
	*e = (early){.source = {"exit", propose, observe, close_source},
		     .n_layers = (size_t)n_layers,
		     .logits = logits};
	*out = &e->source;
	return PAL_OK;
}
