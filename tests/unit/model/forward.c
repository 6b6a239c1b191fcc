/* The forward pass over rows of several sessions in one batch, which sessions alone never
 * make: each row's logits are those of its session alone, to the bit. Arguments: models. */
#include "model/forward.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"

#define SEQUENCES 3
#define LENGTH 90 /* beyond a block of K/V, and the sliding window of the test's models */
#define BATCH 40

static char **paths;
static int n_paths;

static uint64_t random_state = 1;

static size_t below(size_t n)
{
	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	return (size_t)(random_state >> 33) % n;
}

/* K/V and scratch for one run of all sequences. */
typedef struct {
	pal_model *m;
	pal__arena arena;
	pal__kv kv[SEQUENCES];
	pal__scratch scratch;
} memory;

static void open_memory(memory *a, pal_model *m, int n_rows)
{
	const pal__hparams *h = &m->h;
	const pal__kv_shape shape = {.n_layers = h->n_layers,
				     .n_kv_heads = h->n_kv_heads,
				     .head_dim = h->head_dim,
				     .n_ctx = LENGTH,
				     .kind = PAL__KV_INT16};
	size_t kv, scratch;
	a->m = m;
	assert_true(pal__kv_need(&shape, &kv));
	assert_true(pal__scratch_need(m, n_rows, &scratch));
	assert_int_equal(pal__arena_init(&a->arena, SEQUENCES * kv + scratch, "a test", NULL),
			 PAL_OK);
	pal__scratch_init(&a->scratch, m, n_rows, &a->arena);
	assert_int_equal(a->arena.used, scratch); /* what was asked is what is taken */
	for (int i = 0; i < SEQUENCES; i++)
		pal__kv_init(&a->kv[i], &shape, &a->arena);
	assert_int_equal(a->arena.used, a->arena.size);
}

static float *new_logits(const pal_model *m)
{
	float *p = pal__calloc(SEQUENCES * LENGTH * m->h.n_vocab, sizeof *p);
	assert_non_null(p);
	return p;
}

static float *row_at(float *logits, const pal_model *m, int sequence, int64_t pos)
{
	return logits + ((size_t)sequence * LENGTH + (size_t)pos) * m->h.n_vocab;
}

/* Rows of random sequences in random numbers; some want no logits. */
static void run_mixed(memory *a, const int32_t tokens[][LENGTH], float *logits,
		      bool wanted[][LENGTH])
{
	int64_t at[SEQUENCES] = {0};
	for (;;) {
		pal__row rows[BATCH];
		int n = 0, order = (int)below(SEQUENCES);
		for (int k = 0; k < SEQUENCES; k++) {
			int i = (order + k) % SEQUENCES;
			int64_t left = LENGTH - at[i], take = (int64_t)below(18);
			take = take < left ? take : left;
			for (; take && n < BATCH; take--, n++, at[i]++) {
				wanted[i][at[i]] = below(3) > 0;
				float *to = row_at(logits, a->m, i, at[i]);
				rows[n] = (pal__row){tokens[i][at[i]], at[i], &a->kv[i],
						     wanted[i][at[i]] ? to : NULL};
			}
		}
		if (n)
			pal__forward(a->m, &a->scratch, rows, n, NULL);
		if (at[0] + at[1] + at[2] == SEQUENCES * LENGTH)
			return;
	}
}

static void play(const char *path)
{
	int32_t tokens[SEQUENCES][LENGTH];
	bool wanted[SEQUENCES][LENGTH];
	memory alone, mixed;
	pal_model *m;
	assert_int_equal(pal_model_open(path, &(pal_model_options){.n_threads = 3}, &m, NULL),
			 PAL_OK);
	open_memory(&alone, m, 1);
	open_memory(&mixed, m, BATCH);
	float *want = new_logits(m), *got = new_logits(m);
	for (int i = 0; i < SEQUENCES; i++)
		for (int64_t pos = 0; pos < LENGTH; pos++) {
			tokens[i][pos] = (int32_t)below(m->h.n_vocab);
			pal__forward(m, &alone.scratch,
				     &(pal__row){tokens[i][pos], pos, &alone.kv[i],
						 row_at(want, m, i, pos)},
				     1, NULL);
		}
	run_mixed(&mixed, tokens, got, wanted);
	for (int i = 0; i < SEQUENCES; i++)
		for (int64_t pos = 0; pos < LENGTH; pos++) {
			const float *g = row_at(got, m, i, pos), *w = row_at(want, m, i, pos);
			for (size_t k = 0; k < m->h.n_vocab; k++)
				if (wanted[i][pos] ? memcmp(g + k, w + k, sizeof *g) != 0
						   : g[k] != 0)
					fail_msg("%s: sequence %d, position %d, logit %zu: %a, "
						 "alone %a",
						 path, i, (int)pos, k, (double)g[k], (double)w[k]);
		}
	pal__free(want);
	pal__free(got);
	pal__arena_free(&alone.arena);
	pal__arena_free(&mixed.arena);
	pal_model_close(m);
}

static void batches_of_several_sessions(void **state)
{
	(void)state;
	for (int i = 0; i < n_paths; i++)
		for (int round = 0; round < 1 + (i == 0); round++)
			play(paths[i]);
}

/* The first layers only: what the output head reads is what the next layer would; and of all
 * layers, the logits are the usual ones. */
typedef struct {
	size_t layer, bytes; /* which one; of what it reads */
	float *x;
} watch;

static void keep_input(void *user, size_t layer, const pal__scratch *s, int n)
{
	watch *w = user;
	(void)n;
	if (layer == w->layer)
		memcpy(w->x, s->x, w->bytes);
}

static void first_layers(void **state)
{
	(void)state;
	for (int i = 0; i < n_paths; i++) {
		memory a;
		pal_model *m;
		assert_int_equal(
			pal_model_open(paths[i], &(pal_model_options){.n_threads = 2}, &m, NULL),
			PAL_OK);
		size_t v = m->h.n_vocab, row = m->h.n_embd * sizeof(float);
		open_memory(&a, m, 5);
		float *want = new_logits(m), *got = new_logits(m);
		watch w = {.bytes = 5 * row, .x = pal__calloc(5, row)};
		pal__row rows[5];
		for (int k = 0; k < 5; k++)
			rows[k] = (pal__row){(int32_t)below(v), k, &a.kv[0], want + (size_t)k * v};
		for (size_t n = 1; n <= m->h.n_layers; n++) {
			pal__tap tap = {.at = keep_input, .user = &w};
			w.layer = n;
			/* The first layers' own call for the last one, or a full pass. */
			tap.n_layers = n == m->h.n_layers ? n : 0;
			pal__forward(m, &a.scratch, rows, 5, &tap);
			rows[1].logits = NULL;
			for (int k = 0; k < 5; k += 2)
				rows[k].logits = got + (size_t)k * v;
			rows[3].logits = NULL;
			pal__forward(m, &a.scratch, rows, 5, &(pal__tap){.n_layers = n});
			for (size_t k = 0; k < 3; k++)
				assert_memory_equal((uint8_t *)a.scratch.x + k * row,
						    (uint8_t *)w.x + 2 * k * row, row);
			for (size_t k = 0; k < 5; k++)
				rows[k].logits = want + k * v;
			if (n < m->h.n_layers)
				assert_true(memcmp(want, got, v * sizeof *want) != 0);
		}
		memset(want, 0, 5 * v * sizeof *want);
		pal__forward(m, &a.scratch, rows, 5, NULL);
		assert_memory_equal(a.scratch.x, w.x, 5 * row);
		for (size_t k = 0; k < 5; k += 2)
			assert_memory_equal(want + k * v, got + k * v, v * sizeof *want);
		pal__free(w.x);
		pal__free(want);
		pal__free(got);
		pal__arena_free(&a.arena);
		pal_model_close(m);
	}
}

static void sizes(void **state)
{
	size_t before = 0, bytes;
	pal_model *m;
	(void)state;
	assert_int_equal(pal_model_open(paths[0], NULL, &m, NULL), PAL_OK);
	for (int n = 1; n <= PAL_MAX_BATCH; n *= 2) {
		assert_true(pal__scratch_need(m, n, &bytes));
		assert_true(bytes > before && bytes % PAL__ALIGN == 0);
		before = bytes;
	}
	pal_model_close(m);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(batches_of_several_sessions),
		cmocka_unit_test(first_layers),
		cmocka_unit_test(sizes),
	};
	paths = argv + 1;
	n_paths = argc - 1;
	return n_paths ? cmocka_run_group_tests(tests, NULL, NULL) : 2;
}
