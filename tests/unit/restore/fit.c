/* Fits of small random models: the layer that is linear in its state is found, the same for any
 * number of threads, and the same where the model is its own proposer; what is written can be used.
 * Arguments: models with the same tokens. */
#include "restore/fit.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "text/vocabulary.h"

static char **paths;
static int n_paths;

/* A text of random tokens. */
typedef struct {
	uint64_t random;
	int32_t n_vocab;
	size_t left;       /* tokens */
	int batches, most; /* most: after which it stops; 0: never */
	bool fails;        /* at the end */
	size_t each;       /* m's that were shown */
	size_t last;       /* the last of them */
} text;

static pal_status next(void *user, int32_t *ids, size_t n, size_t *got, pal_error *err)
{
	text *t = user;
	if (!t->left && t->fails)
		return pal__fail(err, PAL_EIO, "the text is torn");
	*got = n < t->left ? n : t->left;
	*got = *got > 100 ? 100 : *got; /* in pieces */
	for (size_t i = 0; i < *got; i++) {
		t->random = t->random * 6364136223846793005u + 1442695040888963407u;
		ids[i] = (int32_t)((t->random >> 33) % (uint64_t)t->n_vocab);
	}
	t->left -= *got;
	return PAL_OK;
}

static bool progress(void *user, uint64_t tokens)
{
	text *t = user;
	t->batches++;
	assert_true(tokens > 0);
	return t->batches != t->most;
}

/* All m are shown, each once, with a projection of its own. */
static pal_status each(void *user, const pal__fit *f, pal_error *err)
{
	text *t = user;
	size_t n = f->n_layers - pal__fit_from(f, f->chosen);
	(void)err;
	t->last = f->m[f->chosen];
	assert_false(t->each >> t->last & 1);
	t->each |= (size_t)1 << t->last;
	assert_true(n > 0 && f->weights[0] != 0 && f->bias[0] != 0);
	return PAL_OK;
}

static pal_status each_fails(void *user, const pal__fit *f, pal_error *err)
{
	(void)user;
	(void)f;
	return pal__fail(err, PAL_EIO, "enough seen");
}

static pal_model *load(const char *path, int threads)
{
	pal_model *m;
	pal_error err;
	const pal_model_options o = {.n_threads = threads};
	if (pal_model_open(path, &o, &m, &err))
		fail_msg("%s", err.text);
	return m;
}

static pal__fit_options options(text *t, const pal_model *m, size_t tokens)
{
	*t = (text){.random = 1, .n_vocab = (int32_t)m->h.n_vocab, .left = tokens};
	return (pal__fit_options){.tokens = tokens,
				  .threshold = 0.1,
				  .first = {.heads = {{1, 0}}, .n = 1},
				  .later = {.heads = {{1, 1}}, .n = 1},
				  .next = next,
				  .progress = progress,
				  .user = t};
}

/* K and V of layer m itself are linear in the state that they are computed from. */
static void linear_layer(void **state)
{
	(void)state;
	for (int i = 0; i < n_paths; i++) {
		pal_model *m = load(paths[i], 2);
		text t;
		pal__fit f;
		pal_error err;
		pal__fit_options o = options(&t, m, 40000);
		if (pal__fit_run(m, &o, &f, &err))
			fail_msg("%s", err.text);
		assert_int_equal(f.n_m, m->h.n_layers - 1);
		assert_int_equal(f.tokens, 40000);
		assert_true(f.rows > 8 * f.held && f.held > 0);
		assert_int_equal(f.m[f.chosen], 1);
		assert_true(f.good);
		for (size_t k = 0; k < f.n_m; k++)
			for (size_t l = f.m[k]; l < f.n_layers; l++) {
				const pal__fit_error *e = &f.errors[k * f.n_layers + l];
				/* int8 activations are not quite linear */
				assert_true(l != f.m[k] || (e->k < 1e-3f && e->v < 1e-3f));
				assert_true(l == f.m[k] || (e->k > 1e-3f && e->k < 1.1f));
				assert_true(e->lambda > 0);
			}
		pal__fit_free(&f);
		pal_model_close(m);
	}
}

static void threads_and_layer(void **state)
{
	(void)state;
	pal__fit f[2];
	size_t n = 0;
	for (int i = 0; i < 2; i++) {
		pal_model *m = load(paths[0], 1 + 2 * i);
		text t;
		pal__fit_options o = options(&t, m, 20000);
		o.layer = m->h.n_layers - 1;
		assert_int_equal(pal__fit_run(m, &o, &f[i], NULL), PAL_OK);
		assert_int_equal(f[i].n_m, 1);
		assert_int_equal(f[i].m[0], m->h.n_layers - 1);
		n = 2 * m->h.n_kv_heads * m->h.head_dim * m->h.n_embd;
		pal_model_close(m);
	}
	assert_memory_equal(f[0].weights, f[1].weights, n * sizeof(float));
	pal__fit_free(&f[0]);
	pal__fit_free(&f[1]);
}

/* What is written is the fit, up to the rounding of halves. */
static void written(void **state)
{
	(void)state;
	char path[] = "/tmp/pal-fit-XXXXXX";
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	close(fd);
	pal_model *m = load(paths[0], 2);
	text t;
	pal__fit f;
	pal__sidecar s;
	pal__fit_options o = options(&t, m, 20000);
	assert_int_equal(pal__fit_run(m, &o, &f, NULL), PAL_OK);
	assert_int_equal(pal__fit_write(&f, m, &o, path, NULL), PAL_OK);
	assert_int_equal(pal__sidecar_open(path, m, NULL, &s, NULL), PAL_OK);
	assert_int_equal(s.m, f.m[f.chosen]);
	assert_int_equal(s.later.heads[0].head, 1);
	float *row = malloc(s.n_embd * sizeof *row);
	for (size_t i = 0; i < s.n_layers - s.m; i++)
		for (size_t r = 0; r < 2 * s.n_kv; r++) {
			const float *w = f.weights + (i * 2 * s.n_kv + r) * s.n_embd;
			pal__matrix_row(&s.weights[i], r, row);
			for (size_t k = 0; k < s.n_embd; k++)
				assert_true(fabsf(row[k] - w[k]) <= 0.001f * fabsf(w[k]) + 1e-7f);
			assert_true(s.bias[i * 2 * s.n_kv + r] == f.bias[i * 2 * s.n_kv + r]);
		}
	free(row);
	unlink(path);
	pal__sidecar_close(&s);
	pal__fit_free(&f);
	pal_model_close(m);
}

/* A proposer that is the model itself: its states are those of the model's own layers. */
static void own_proposer(void **state)
{
	(void)state;
	for (int i = 0; i < n_paths; i++) {
		pal_model *m = load(paths[i], 2), *proposer = load(paths[i], 1);
		size_t from = m->h.n_layers - 1;
		pal__fit own, f;
		text t;
		pal_error err;
		pal__fit_options o = options(&t, m, 20000);
		o.layer = from;
		assert_int_equal(pal__fit_run(m, &o, &own, NULL), PAL_OK);
		o = options(&t, m, 20000);
		o.layer = from;
		o.proposer = proposer;
		if (pal__fit_run(m, &o, &f, &err))
			fail_msg("%s", err.text);
		assert_true(f.separate && pal__fit_from(&f, 0) == 0 && f.m[0] == from);
		size_t y = 2 * m->h.n_kv_heads * m->h.head_dim, n = y * m->h.n_embd;
		assert_memory_equal(f.weights + from * n, own.weights, n * sizeof(float));
		assert_memory_equal(f.bias + from * y, own.bias, y * sizeof(float));
		assert_true(f.errors[from].k == own.errors[from].k && own.errors[from].k < 1e-3f);
		assert_true(f.errors[0].k > 1e-3f && f.errors[0].k < 1.1f);
		pal__fit_free(&f);
		pal__fit_free(&own);
		/* Not told which: the input of its last layer is as good as it gets there. */
		o = options(&t, m, 20000);
		o.proposer = proposer;
		o.each = each;
		o.first.heads[0].layer = o.later.heads[0].layer = (uint32_t)from;
		assert_int_equal(pal__fit_run(m, &o, &f, NULL), PAL_OK);
		assert_int_equal(f.n_m, 2);
		assert_true(f.m[0] == from && f.m[1] == from + 1);
		assert_int_equal(f.chosen, 0);
		assert_int_equal(t.each, 3 << from);
		assert_int_equal(t.last, from);
		pal__fit_free(&f);
		pal_model_close(proposer);
		pal_model_close(m);
	}
}

/* Another model, with states of another size. */
static void other_proposer(void **state)
{
	(void)state;
	char path[] = "/tmp/pal-fit-XXXXXX";
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	close(fd);
	pal_model *m = load(paths[0], 2), *proposer = load(paths[1], 1);
	text t;
	pal__fit f;
	pal__sidecar s;
	pal__fit_options o = options(&t, m, 20000);
	o.proposer = proposer;
	o.layer = proposer->h.n_layers; /* its output */
	assert_int_equal(pal__fit_run(m, &o, &f, NULL), PAL_OK);
	assert_int_equal(pal__fit_write(&f, m, &o, path, NULL), PAL_OK);
	assert_int_equal(pal__sidecar_open(path, m, proposer, &s, NULL), PAL_OK);
	assert_true(s.m == proposer->h.n_layers && s.from == 0);
	assert_int_equal(s.n_embd, proposer->h.n_embd);
	pal__sidecar_close(&s);
	pal__fit_free(&f);
	unlink(path);
	pal_model_close(proposer);
	pal_model_close(m);
}

static void fails(pal_model *m, const pal__fit_options *o, pal_status status, const char *why)
{
	pal__fit f = {.tokens = 5};
	pal_error err = {0};
	int64_t live = pal__mem_live();
	assert_int_equal(pal__fit_run(m, o, &f, &err), status);
	if (!strstr(err.text, why))
		fail_msg("\"%s\" instead of \"%s\"", err.text, why);
	assert_int_equal(f.tokens, 5);
	assert_int_equal(pal__mem_live(), live);
}

static void failures(void **state)
{
	(void)state;
	pal_model *m = load(paths[0], 1), *bare;
	text t;
	pal__fit_options o = options(&t, m, 0);
	fails(m, &o, PAL_EINVAL, "too little text: 0 tokens");
	o = options(&t, m, 3000);
	fails(m, &o, PAL_EINVAL, "too little text");
	o = options(&t, m, 3000);
	t.fails = true;
	o.tokens = 9000;
	fails(m, &o, PAL_EIO, "the text is torn");
	o = options(&t, m, 20000);
	o.layer = m->h.n_layers;
	fails(m, &o, PAL_EINVAL, "starts at layer 1 to 1");
	o = options(&t, m, 20000);
	t.most = 3;
	fails(m, &o, PAL_ECANCELLED, "cancelled");
	assert_int_equal(t.batches, 3);
	o = options(&t, m, 20000);
	o.each = each_fails;
	fails(m, &o, PAL_EIO, "enough seen");
	const pal_model_options without = {.no_weights = true};
	assert_int_equal(pal_model_open(paths[0], &without, &bare, NULL), PAL_OK);
	o = options(&t, m, 20000);
	fails(bare, &o, PAL_EINVAL, "without its weights");
	o = options(&t, m, 20000);
	o.proposer = bare;
	fails(m, &o, PAL_EINVAL, "without its weights");
	pal_model_close(bare);
	o.proposer = load(paths[1], 1);
	o.proposer->tokenizer->bytes[o.proposer->tokenizer->at[7]]++;
	fails(m, &o, PAL_EINVAL, "cannot be the proposer: its token 7 is not that of");
	pal_model_close(o.proposer);
	o = options(&t, m, 20000);
	o.proposer = m;
	o.layer = m->h.n_layers + 1;
	fails(m, &o, PAL_EINVAL, "starts at layer 1 to 2");
	pal_model_close(m);
}

static void no_memory(void **state)
{
	(void)state;
	pal_model *m = load(paths[0], 1);
	int64_t live = pal__mem_live();
	pal_status s = PAL_ENOMEM;
	for (int64_t i = 0; s == PAL_ENOMEM; i++) {
		text t;
		pal__fit f;
		pal__fit_options o = options(&t, m, 8000);
		o.proposer = m; /* models are shared */
		pal__mem_fail_after(i);
		s = pal__fit_run(m, &o, &f, NULL);
		bool failed = pal__mem_failed();
		pal__mem_fail_after(-1);
		assert_int_equal(s, failed ? PAL_ENOMEM : PAL_OK);
		if (s == PAL_OK)
			pal__fit_free(&f);
		assert_int_equal(pal__mem_live(), live);
	}
	pal_model_close(m);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(linear_layer), cmocka_unit_test(threads_and_layer),
		cmocka_unit_test(own_proposer), cmocka_unit_test(other_proposer),
		cmocka_unit_test(written),      cmocka_unit_test(failures),
		cmocka_unit_test(no_memory),
	};
	if (argc < 2)
		return 1;
	paths = argv + 1;
	n_paths = argc - 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
