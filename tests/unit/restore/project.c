/* The source `project`: with a side-car that is right, its far rows are those of `recompute`, be
 * the states the model's own or a proposer's; with the control, they are not. Arguments: models. */
#include "restore/project.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "restore/recompute.h"

#define LENGTH 300
#define SINK 4
#define BATCH 128

static char **paths;
static int n_paths;
static int32_t tokens[LENGTH];

typedef struct {
	pal_model *m, *proposer; /* the same file; proposer: or NULL */
	pal__arena arena;
	pal__kv kv;
	pal__scratch scratch;
	pal__row rows[BATCH];
	pal__site site;
	pal__runs runs;
	pal__sidecar side;
	pal__projector projector;
} memory;

/* The side-car that projects the last layer as the model computes it: K and V are products of the
 * state, normalised with a weight. Of a proposer's, the layers below it get zeros. */
static void write_exact(const pal_model *m, const pal_model *proposer, const char *path)
{
	enum { MOST = 8 };
	size_t last = m->h.n_layers - 1, e = m->h.n_embd, kv = m->h.n_kv_heads * m->h.head_dim;
	const pal__layer *y = &m->layers[last];
	float *zeros = calloc(2 * kv * e, sizeof *zeros), *w = malloc(2 * kv * e * sizeof *w);
	const float *weights[MOST], *bias[MOST], record[MOST] = {0};
	assert_true(w && zeros && last < MOST);
	for (size_t l = 0; l <= last; l++) {
		weights[l] = proposer && l < last ? zeros : w;
		bias[l] = zeros;
	}
	for (size_t r = 0; r < 2 * kv; r++) {
		pal__matrix_row(r < kv ? &y->wk : &y->wv, r % kv, w + r * e);
		for (size_t k = 0; k < e; k++)
			w[r * e + k] *= y->attn_norm[k];
	}
	const pal__heads heads = {.heads = {{(uint32_t)last, 0}}, .n = 1};
	const pal__sidecar_content c = {.proposer = proposer,
					.m = last,
					.weights = weights,
					.bias = bias,
					.lambda = record,
					.error_k = record,
					.error_v = record,
					.first = &heads,
					.later = &heads};
	assert_int_equal(pal__sidecar_write(path, m, &c, NULL), PAL_OK);
	free(w);
	free(zeros);
}

static void open_memory(memory *a, const char *path, bool separate)
{
	char side[] = "/tmp/pal-project-XXXXXX";
	int fd = mkstemp(side);
	assert_true(fd >= 0);
	close(fd);
	pal_error err;
	const pal_model_options o = {.n_threads = 3};
	if (pal_model_open(path, &o, &a->m, &err))
		fail_msg("%s", err.text);
	if (separate && pal_model_open(path, &o, &a->proposer, &err))
		fail_msg("%s", err.text);
	write_exact(a->m, a->proposer, side);
	if (pal__sidecar_open(side, a->m, a->proposer, &a->side, &err))
		fail_msg("%s", err.text);
	unlink(side);
	const pal__hparams *h = &a->m->h;
	const pal__kv_shape shape = {.n_layers = h->n_layers,
				     .n_kv_heads = h->n_kv_heads,
				     .head_dim = h->head_dim,
				     .n_ctx = LENGTH,
				     .kind = PAL__KV_FLOAT,
				     .slide = h->window,
				     .slide_every = h->window_every,
				     .sink = SINK,
				     .window = 64,
				     .piece = 3,
				     .slots = 4 * PAL__SPAN_ROWS};
	size_t kv, scratch, runs, projector, rope = PAL__SPAN_ROWS * h->n_rot * sizeof(float);
	a->site = (pal__site){.m = a->m,
			      .kv = &a->kv,
			      .scratch = &a->scratch,
			      .rows = a->rows,
			      .n_batch = BATCH,
			      .left = 20,
			      .log = tokens};
	a->kv.shape = shape;
	assert_true(pal__kv_need(&shape, &kv));
	assert_true(pal__scratch_need(a->m, BATCH, &scratch));
	assert_true(pal__runs_need(&a->site, &runs));
	assert_true(pal__projector_need(&a->side, &a->site, &projector));
	size_t all = kv + scratch + runs + projector + pal__arena_need(rope);
	assert_int_equal(pal__arena_init(&a->arena, all, "a test", NULL), PAL_OK);
	pal__kv_init(&a->kv, &shape, &a->arena);
	pal__scratch_init(&a->scratch, a->m, BATCH, &a->arena);
	pal__runs_init(&a->runs, &a->site, &a->arena);
	pal__projector_init(&a->projector, &a->side, &a->site, &a->arena);
	a->site.rope = pal__arena_take(&a->arena, rope);
	assert_int_equal(a->arena.used, a->arena.size);
}

static void close_memory(memory *a)
{
	pal__arena_free(&a->arena);
	pal__sidecar_close(&a->side);
	pal_model_close(a->m);
	pal_model_close(a->proposer);
}

static const pal__span spans[] = {{4, 52, 4}, {88, 136, 52}, {136, 180, 100}, {200, 248, 144}};
#define N_SPANS (sizeof spans / sizeof *spans)

/* The mean square of the difference between `far` and the rows now, over that of `far`. */
static double difference(const memory *a, const uint8_t *far, size_t layer)
{
	const pal__kv_shape *s = &a->kv.shape;
	double apart = 0, all = 0;
	size_t end = spans[N_SPANS - 1].row + 48, stride = (s->head_dim + 15) / 16 * 16;
	for (size_t head = 0; head < s->n_kv_heads; head++)
		for (size_t row = 4; row < end; row++) {
			pal__attn_kv b = pal__kv_far_block(&a->kv, a->m->kernels, layer, head,
							   row / 64, NULL);
			size_t at = row % 64;
			const float *k = b.k, *v = b.v;
			const float *k_was =
				(const float *)(const void *)(far + ((const uint8_t *)b.k -
								     a->kv.far.data));
			const float *v_was =
				(const float *)(const void *)(far + ((const uint8_t *)b.v -
								     a->kv.far.data));
			for (size_t d = 0; d < s->head_dim; d++) {
				double x = (double)k_was[d * 64 + at], y = (double)k[d * 64 + at];
				apart += (x - y) * (x - y);
				all += x * x;
				x = (double)v_was[at * stride + d];
				y = (double)v[at * stride + d];
				apart += (x - y) * (x - y);
				all += x * x;
			}
		}
	return apart / all;
}

static void like_recompute(void **state)
{
	(void)state;
	for (int i = 0; i < 2 * n_paths; i++) {
		memory a = {0};
		open_memory(&a, paths[i / 2], i % 2);
		const pal__kv_ring *ring = &a.kv.far;
		size_t bytes =
			ring->n_blocks * ring->n_layers * a.kv.shape.n_kv_heads * a.kv.head_bytes;
		uint8_t *far = malloc(bytes);
		assert_non_null(far);
		pal__recompute(NULL, &a.runs, &a.site, spans, N_SPANS);
		memcpy(far, ring->data, bytes);
		memset(ring->data, 0, bytes);
		pal__project_spans(&a.projector, &a.runs, &a.site, spans, N_SPANS);
		for (size_t layer = 0; layer < a.m->h.n_layers; layer++) {
			if (!pal__kv_bounded(&a.kv.shape, layer))
				continue;
			double apart = difference(&a, far, layer);
			if (layer < a.side.m) /* computed, or projected to nothing */
				assert_true(apart == 0 || (a.proposer && apart > 0.2));
			else /* activations are int8 there, and weights halves here */
				assert_true(apart < 2e-3);
		}
		a.site.control = PAL__CONTROL_RANDOM;
		pal__project_spans(&a.projector, &a.runs, &a.site, spans, N_SPANS);
		if (pal__kv_bounded(&a.kv.shape, a.side.m))
			assert_true(difference(&a, far, a.side.m) > 0.5);
		free(far);
		close_memory(&a);
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(like_recompute)};
	if (argc < 2)
		return 1;
	for (int i = 0; i < LENGTH; i++)
		tokens[i] = (i * 37 + i * i * 11) % 260;
	paths = argv + 1;
	n_paths = argc - 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
