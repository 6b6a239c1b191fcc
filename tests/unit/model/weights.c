/* Loaded weights against the bytes of the file they came from. Arguments: model files. */
#include "model/model.h"

#include <stdio.h>

#include "gguf_writer.h"

#include "base/mem.h"

static char **paths;
static int n_paths;

static pal_model *load(const char *path, int threads)
{
	pal_model *m;
	pal_error err;
	if (pal_model_open(path, &(pal_model_options){.n_threads = threads}, &m, &err))
		fail_msg("%s", err.text);
	return m;
}

/* The file's row for row `row` of llama's q and k: pairs (2i, 2i + 1) become (i, i + half). */
static size_t file_row(const pal__hparams *h, bool paired, size_t row)
{
	size_t d = row % h->head_dim, half = h->n_rot / 2;
	if (!paired || d >= h->n_rot)
		return row;
	return row - d + (d < half ? 2 * d : 2 * (d - half) + 1);
}

static uint64_t same_matrix(const pal__gguf *g, const pal__hparams *h, const char *name,
			    const pal__matrix *m, bool paired)
{
	const pal__gguf_tensor *t = pal__gguf_tensor_find(g, name);
	assert_non_null(t);
	size_t block_bytes = (size_t)pal__type_find(t->type)->block_bytes;
	uint8_t block[256];
	assert_int_equal(m->type, t->type);
	assert_int_equal(m->n_rows, t->ne[1]);
	assert_int_equal(m->n_cols, t->ne[0]);
	for (size_t r = 0; r < m->n_rows; r++)
		for (size_t i = 0; i < m->n_blocks; i++) {
			const uint8_t *want =
				t->data + (file_row(h, paired, r) * m->n_blocks + i) * block_bytes;
			pal__matrix_block(m, r, i, block);
			if (memcmp(block, want, block_bytes) != 0)
				fail_msg("%s: row %zu, block %zu", name, r, i);
		}
	return t->ne[0] * t->ne[1];
}

static uint64_t same_vector(const pal__gguf *g, const char *name, const float *v)
{
	const pal__gguf_tensor *t = pal__gguf_tensor_find(g, name);
	assert_true((t != NULL) == (v != NULL));
	if (!t)
		return 0;
	assert_int_equal(t->type, PAL__F32);
	assert_memory_equal(v, t->data, t->ne[0] * sizeof *v);
	return t->ne[0];
}

static uint64_t same_layer(const pal__gguf *g, const pal_model *m, size_t i)
{
	const pal__layer *y = &m->layers[i];
	const struct {
		const char *name;
		const pal__matrix *matrix;
		const float *vector;
	} all[] = {{"attn_q.weight", &y->wq, NULL},
		   {"attn_k.weight", &y->wk, NULL},
		   {"attn_v.weight", &y->wv, NULL},
		   {"attn_output.weight", &y->wo, NULL},
		   {"ffn_gate.weight", &y->gate, NULL},
		   {"ffn_up.weight", &y->up, NULL},
		   {"ffn_down.weight", &y->down, NULL},
		   {"attn_norm.weight", NULL, y->attn_norm},
		   {"ffn_norm.weight", NULL, y->ffn_norm},
		   {"attn_q_norm.weight", NULL, y->q_norm},
		   {"attn_k_norm.weight", NULL, y->k_norm},
		   {"attn_q.bias", NULL, y->bq},
		   {"attn_k.bias", NULL, y->bk},
		   {"attn_v.bias", NULL, y->bv},
		   {"post_attention_norm.weight", NULL, y->post_attn},
		   {"post_ffw_norm.weight", NULL, y->post_ffn}};
	uint64_t n = 0;
	for (size_t k = 0; k < sizeof all / sizeof all[0]; k++) {
		char name[64];
		snprintf(name, sizeof name, "blk.%zu.%s", i, all[k].name);
		bool paired = m->h.arch == PAL__LLAMA && k < 2;
		n += all[k].matrix ? same_matrix(g, &m->h, name, all[k].matrix, paired)
				   : same_vector(g, name, all[k].vector);
	}
	return n;
}

static void same_as_file(void **state)
{
	(void)state;
	for (int i = 0; i < n_paths; i++) {
		pal__gguf g;
		assert_int_equal(pal__gguf_open(paths[i], &g, NULL), PAL_OK);
		pal_model *m = load(paths[i], 2);
		uint64_t n = same_matrix(&g, &m->h, "token_embd.weight", &m->embd, false);
		n += same_vector(&g, "output_norm.weight", m->output_norm);
		assert_int_equal(m->tied, !pal__gguf_tensor_find(&g, "output.weight"));
		if (m->tied)
			assert_ptr_equal(m->output.data, m->embd.data);
		else
			n += same_matrix(&g, &m->h, "output.weight", &m->output, false);
		for (size_t layer = 0; layer < m->h.n_layers; layer++)
			n += same_layer(&g, m, layer);
		assert_int_equal(m->n_params, n);
		pal_model_close(m);
		pal__gguf_close(&g);
	}
}

struct progress {
	uint64_t done, total;
	int calls;
};

static void on_progress(void *user, uint64_t done, uint64_t total)
{
	struct progress *p = user;
	assert_true(done >= p->done && done <= total);
	*p = (struct progress){done, total, p->calls + 1};
}

static void progress(void **state)
{
	struct progress p = {0};
	pal_model *m;
	pal__gguf g;
	(void)state;
	assert_int_equal(pal__gguf_open(paths[0], &g, NULL), PAL_OK);
	const pal_model_options o = {.n_threads = 2, .progress = on_progress, .user = &p};
	assert_int_equal(pal_model_open(paths[0], &o, &m, NULL), PAL_OK);
	assert_true(p.calls >= 2);
	assert_int_equal(p.done, g.file.size);
	assert_int_equal(p.total, g.file.size);
	pal_model_close(m);
	pal__gguf_close(&g);
}

/* The hash of the first model after byte `at` (from its end) was changed by `by`. */
static uint64_t hash_with(size_t at, uint8_t by, int threads)
{
	char path[] = "/tmp/pal-weights-XXXXXX";
	pal__gguf g;
	assert_int_equal(pal__gguf_open(paths[0], &g, NULL), PAL_OK);
	uint8_t *bytes = malloc(g.file.size);
	assert_non_null(bytes);
	memcpy(bytes, g.file.data, g.file.size);
	bytes[g.file.size - 1 - at] ^= by;
	write_file(path, bytes, g.file.size);
	pal__gguf_close(&g);
	free(bytes);
	pal_model *m = load(path, threads);
	uint64_t hash = m->hash;
	pal_model_close(m);
	unlink(path);
	return hash;
}

static void hash(void **state)
{
	(void)state;
	uint64_t h = hash_with(0, 0, 1);
	assert_true(h != 0);
	assert_true(hash_with(0, 0, 5) == h); /* whatever the threads */
	/* The last tensor is a matrix, and may be followed by 31 bytes of padding. */
	for (size_t at = 40; at < 60; at += 3)
		assert_true(hash_with(at, 1, 2) != h);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(same_as_file),
		cmocka_unit_test(progress),
		cmocka_unit_test(hash),
	};
	paths = argv + 1;
	n_paths = argc - 1;
	return n_paths ? cmocka_run_group_tests(tests, NULL, NULL) : 2;
}
