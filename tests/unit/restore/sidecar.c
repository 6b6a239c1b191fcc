/* Side-cars: written and read again, refused when anything is wrong, and the projection's
 * arithmetic. Arguments: models. */
#include "restore/sidecar.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "kernels/half.h"
#include "model/gguf_write.h"

static char **paths;
static int n_paths;
static char path[] = "/tmp/pal-side-XXXXXX";
static uint64_t random_state = 1;

static float noise(void)
{
	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	return (float)(random_state >> 40) * 0x1p-23f - 1;
}

static pal_model *load(const char *model, const char *isa, int threads)
{
	pal_model *m;
	pal_error err;
	const pal_model_options o = {.n_threads = threads, .isa = isa};
	if (pal_model_open(model, &o, &m, &err))
		fail_msg("%s", err.text);
	return m;
}

/* Random contents for layer `from` on. */
typedef struct {
	size_t n, rows, cols;
	float *values; /* [n][rows][cols], then [n][rows] */
	const float *weights[8], *bias[8];
	float record[8];
	pal__heads heads;
	pal__sidecar_content c;
} contents;

static void make_of(contents *c, const pal_model *m, const pal_model *proposer, size_t from,
		    float size)
{
	*c = (contents){.n = m->h.n_layers - (proposer ? 0 : from),
			.rows = 2 * m->h.n_kv_heads * m->h.head_dim,
			.cols = (proposer ? proposer : m)->h.n_embd};
	size_t weights = c->n * c->rows * c->cols, all = weights + c->n * c->rows;
	c->values = malloc((all + 1) * sizeof *c->values);
	assert_non_null(c->values);
	for (size_t i = 0; i < all; i++)
		c->values[i] = i < weights ? size * noise() : noise();
	for (size_t i = 0; i < c->n; i++) {
		c->weights[i] = c->values + i * c->rows * c->cols;
		c->bias[i] = c->values + weights + i * c->rows;
	}
	/* The last layer never slides. */
	uint32_t last = (uint32_t)m->h.n_layers - 1;
	c->heads = (pal__heads){.heads = {{last, 3}, {m->h.window ? last : 0, 2}}, .n = 2};
	c->c = (pal__sidecar_content){.proposer = proposer,
				      .m = from,
				      .weights = c->weights,
				      .bias = c->bias,
				      .lambda = c->record,
				      .error_k = c->record,
				      .error_v = c->record,
				      .first = &c->heads,
				      .later = &c->heads,
				      .tokens = 99};
}

static void make(contents *c, const pal_model *m, size_t from, float size)
{
	make_of(c, m, NULL, from, size);
}

static void write_good(const pal_model *m, contents *c, size_t from, float size)
{
	make(c, m, from, size);
	assert_int_equal(pal__sidecar_write(path, m, &c->c, NULL), PAL_OK);
}

/* --- reading ------------------------------------------------------------------ */

static void read_again(void **state)
{
	(void)state;
	for (int i = 0; i < n_paths; i++) {
		pal_model *m = load(paths[i], NULL, 2);
		for (size_t from = 1; from <= m->h.n_layers; from++)
			for (int large = 0; large < 2; large++) {
				contents c;
				pal__sidecar s;
				pal_error err;
				write_good(m, &c, from, large ? 1e6f : 1);
				if (pal__sidecar_open(path, m, NULL, &s, &err))
					fail_msg("%s", err.text);
				assert_int_equal(s.m, from);
				assert_int_equal(s.first.n, 2);
				assert_int_equal(s.first.heads[0].layer, m->h.n_layers - 1);
				assert_int_equal(s.first.heads[0].head, 3);
				assert_int_equal(s.later.heads[1].head, 2);
				for (size_t k = 0; k < c.n; k++)
					assert_int_equal(s.weights[k].type,
							 large ? PAL__F32 : PAL__F16);
				pal__sidecar_close(&s);
				free(c.values);
			}
		pal_model_close(m);
	}
}

static void refused_with(const pal_model *m, pal_model *proposer, pal_status status,
			 const char *why)
{
	pal__sidecar s = {.m = 77};
	pal_error err = {0};
	int64_t live = pal__mem_live();
	assert_int_equal(pal__sidecar_open(path, m, proposer, &s, &err), status);
	if (!strstr(err.text, why))
		fail_msg("\"%s\" instead of \"%s\"", err.text, why);
	assert_int_equal(s.m, 77);
	assert_int_equal(pal__mem_live(), live);
}

static void refused(const pal_model *m, pal_status status, const char *why)
{
	refused_with(m, NULL, status, why);
}

/* With the proposer, and without it, when it still says which heads find chunks. */
static void of_a_proposer(void **state)
{
	(void)state;
	pal_model *m = load(paths[0], NULL, 1), *proposer = load(paths[2], NULL, 1);
	assert_int_not_equal(m->h.n_embd, proposer->h.n_embd);
	for (size_t layer = 1; layer <= proposer->h.n_layers; layer++)
		for (int given = 0; given < 2; given++) {
			contents c;
			pal__sidecar s;
			pal_error err;
			make_of(&c, m, proposer, layer, 1);
			assert_int_equal(pal__sidecar_write(path, m, &c.c, NULL), PAL_OK);
			if (pal__sidecar_open(path, m, given ? proposer : NULL, &s, &err))
				fail_msg("%s", err.text);
			assert_true(s.separate && s.proposer == (given ? proposer : NULL));
			assert_true(s.m == layer && s.from == 0 && s.n_layers == m->h.n_layers);
			assert_true(s.proposer_hash == proposer->hash);
			assert_int_equal(s.n_embd, proposer->h.n_embd);
			assert_int_equal(s.first.heads[0].head, 3);
			pal__sidecar_close(&s);
			free(c.values);
		}
	pal_model_close(proposer);
	pal_model_close(m);
}

static void wrong_proposer(void **state)
{
	(void)state;
	char hash[32];
	contents c;
	pal_model *m = load(paths[0], NULL, 1), *proposer = load(paths[2], NULL, 1);
	make_of(&c, m, proposer, 1, 1);
	assert_int_equal(pal__sidecar_write(path, m, &c.c, NULL), PAL_OK);
	snprintf(hash, sizeof hash, "%016llx", (unsigned long long)proposer->hash);
	refused_with(m, m, PAL_EINVAL, "another proposer");
	refused_with(m, m, PAL_EINVAL, hash);
	/* Of the same hash, but another shape. */
	proposer->h.n_embd *= 2;
	refused_with(m, proposer, PAL_EFORMAT, "palimpsest.proposer.embd");
	proposer->h.n_embd /= 2;
	proposer->h.n_layers++;
	refused_with(m, proposer, PAL_EFORMAT, "palimpsest.proposer.layers");
	c.c.m = proposer->h.n_layers--;
	assert_int_equal(pal__sidecar_write(path, m, &c.c, NULL), PAL_OK);
	refused_with(m, proposer, PAL_EFORMAT, "palimpsest.project.layer");
	free(c.values);
	write_good(m, &c, 1, 1);
	refused_with(m, proposer, PAL_EINVAL, "has no use for");
	free(c.values);
	pal_model_close(proposer);
	pal_model_close(m);
}

static void other_model(void **state)
{
	(void)state;
	char hash[32];
	contents c;
	pal_model *m = load(paths[0], NULL, 1);
	write_good(m, &c, 1, 1);
	snprintf(hash, sizeof hash, "%016llx", (unsigned long long)m->hash);
	m->hash ^= 1;
	refused(m, PAL_EINVAL, hash);
	refused(m, PAL_EINVAL, "the side-car of another model");
	snprintf(hash, sizeof hash, "%016llx", (unsigned long long)m->hash);
	refused(m, PAL_EINVAL, hash);
	free(c.values);
	pal_model_close(m);
}

/* Writes a side-car for a change of one thing, and says why it is refused. */
static void wrong(const pal_model *m, contents *c, pal_status status, const char *why)
{
	assert_int_equal(pal__sidecar_write(path, m, &c->c, NULL), PAL_OK);
	refused(m, status, why);
}

static void wrong_contents(void **state)
{
	(void)state;
	contents c;
	pal_model *m = load(paths[0], NULL, 1);
	make(&c, m, 1, 1);
	c.heads.heads[1].head = (uint32_t)m->h.n_heads;
	wrong(m, &c, PAL_EFORMAT, "is no head of a model");
	c.heads.heads[1] = (pal__qhead){(uint32_t)m->h.n_layers, 0};
	wrong(m, &c, PAL_EFORMAT, "is no head of a model");
	c.heads.heads[1] = c.heads.heads[0];
	wrong(m, &c, PAL_EFORMAT, "twice");
	m->h.window = 8; /* as if the first of two layers slid */
	m->h.window_every = 2;
	c.heads.heads[1] = (pal__qhead){0, 1};
	wrong(m, &c, PAL_EFORMAT, "of a layer with a sliding window");
	m->h.window = 0;
	c.heads.n = 0;
	wrong(m, &c, PAL_EFORMAT, "has 0 heads");
	c.heads.n = 1;
	c.values[5] = NAN;
	wrong(m, &c, PAL_EFORMAT, "value 5 is not finite");
	c.values[5] = 0;
	float *bias = c.values + c.n * c.rows * c.cols;
	bias[1] = INFINITY;
	wrong(m, &c, PAL_EFORMAT, "project.1.bias: value 1 is not finite");
	bias[1] = 0;
	m->h.n_embd /= 2; /* a model of another shape that has the same hash */
	assert_int_equal(pal__sidecar_write(path, m, &c.c, NULL), PAL_OK);
	m->h.n_embd *= 2;
	refused(m, PAL_EFORMAT, "has the shape");
	m->h.n_layers++;
	refused(m, PAL_EFORMAT, "tensors instead of");
	m->h.n_layers--;
	free(c.values);
	pal_model_close(m);
}

static void damaged(void **state)
{
	(void)state;
	contents c;
	pal_model *m = load(paths[0], NULL, 1);
	write_good(m, &c, 1, 1);
	FILE *f = fopen(path, "r+");
	assert_non_null(f);
	fseek(f, 0, SEEK_END);
	long size = ftell(f);
	for (long at = 0; at < size; at += at < 1000 ? 1 : 97) {
		pal__sidecar s;
		pal_error err;
		fseek(f, at, SEEK_SET);
		int was = fgetc(f);
		fseek(f, at, SEEK_SET);
		fputc(was ^ 0x20, f);
		fflush(f);
		if (pal__sidecar_open(path, m, NULL, &s, &err) == PAL_OK)
			fail_msg("byte %ld of %ld is not missed", at, size);
		fseek(f, at, SEEK_SET);
		fputc(was, f);
		fflush(f);
	}
	assert_int_equal(ftruncate(fileno(f), size - 1), 0);
	refused(m, PAL_EFORMAT, path);
	fclose(f);
	free(c.values);
	pal_model_close(m);
}

static void not_a_sidecar(void **state)
{
	(void)state;
	pal_model *m = load(paths[0], NULL, 1);
	pal__sidecar s;
	pal_error err = {0};
	assert_int_equal(pal__sidecar_open(paths[0], m, NULL, &s, &err), PAL_EFORMAT);
	assert_non_null(strstr(err.text, "is no side-car"));
	assert_int_equal(pal__sidecar_open("/nowhere/a.gguf", m, NULL, &s, &err), PAL_EIO);
	pal_model_close(m);
}

static void no_memory(void **state)
{
	(void)state;
	contents c;
	pal_model *m = load(paths[0], NULL, 1);
	write_good(m, &c, 1, 1);
	int64_t live = pal__mem_live();
	pal_status status = PAL_ENOMEM;
	for (int64_t i = 0; status == PAL_ENOMEM; i++) {
		pal__sidecar s;
		pal__mem_fail_after(i);
		status = pal__sidecar_open(path, m, NULL, &s, NULL);
		bool failed = pal__mem_failed();
		pal__mem_fail_after(-1);
		assert_int_equal(status, failed ? PAL_ENOMEM : PAL_OK);
		if (status == PAL_OK)
			pal__sidecar_close(&s);
		assert_int_equal(pal__mem_live(), live);
	}
	status = PAL_ENOMEM;
	for (int64_t i = 0; status == PAL_ENOMEM; i++) {
		pal__mem_fail_after(i);
		status = pal__sidecar_write(path, m, &c.c, NULL);
		bool failed = pal__mem_failed();
		pal__mem_fail_after(-1);
		assert_int_equal(status, failed ? PAL_ENOMEM : PAL_OK);
		assert_int_equal(pal__mem_live(), live);
	}
	free(c.values);
	pal_model_close(m);
}

/* --- the projection ------------------------------------------------------------- */

enum { ROWS = 19 };

/* Projects rows of noise, the same for the same seed. */
static float *project(const pal__sidecar *s, const pal_model *m, size_t layer, float *x)
{
	float *out = malloc(ROWS * 2 * s->n_kv * sizeof *out);
	assert_non_null(out);
	random_state = 5;
	for (size_t i = 0; i < ROWS * s->n_embd; i++)
		x[i] = 30 * noise();
	pal__project_norm(s, m, x, ROWS);
	pal__project(s, m, layer, x, ROWS, out);
	return out;
}

/* Against the same in double, and on every instruction set that this CPU has. */
static void arithmetic(void **state)
{
	(void)state;
	static const char *const isas[] = {"scalar", "avx2", "avx512", "amx", "neon"};
	contents c;
	pal__sidecar s;
	pal_model *m = load(paths[0], NULL, 3);
	size_t layer = m->h.n_layers - 1;
	write_good(m, &c, 1, 1);
	assert_int_equal(pal__sidecar_open(path, m, NULL, &s, NULL), PAL_OK);
	float *x = malloc(ROWS * s.n_embd * sizeof *x);
	assert_non_null(x);
	float *out = project(&s, m, layer, x);
	for (size_t i = 0; i < ROWS; i++) {
		double square = 0;
		for (size_t k = 0; k < s.n_embd; k++)
			square += (double)x[i * s.n_embd + k] * (double)x[i * s.n_embd + k];
		assert_true(fabs(square / (double)s.n_embd - 1) < 1e-4);
		for (size_t r = 0; r < c.rows; r++) {
			double sum = (double)c.bias[layer - 1][r];
			for (size_t k = 0; k < c.cols; k++)
				sum += (double)pal__half_float(pal__float_half(
					       c.weights[layer - 1][r * c.cols + k])) *
				       (double)x[i * c.cols + k];
			assert_true(fabs(sum - (double)out[i * c.rows + r]) < 1e-4);
		}
	}
	for (size_t k = 0; k < sizeof isas / sizeof *isas; k++) {
		const pal__kernels *kernels;
		if (pal__kernels_choose(isas[k], &kernels, NULL))
			continue;
		pal_model *other = load(paths[0], isas[k], 1);
		float *again = project(&s, other, layer, x);
		assert_memory_equal(out, again, ROWS * c.rows * sizeof *out);
		free(again);
		pal_model_close(other);
	}
	free(out);
	free(x);
	free(c.values);
	pal__sidecar_close(&s);
	pal_model_close(m);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(read_again),     cmocka_unit_test(of_a_proposer),
		cmocka_unit_test(wrong_proposer), cmocka_unit_test(other_model),
		cmocka_unit_test(wrong_contents), cmocka_unit_test(damaged),
		cmocka_unit_test(not_a_sidecar),  cmocka_unit_test(no_memory),
		cmocka_unit_test(arithmetic),
	};
	int fd = mkstemp(path);
	if (argc < 2 || fd < 0)
		return 1;
	close(fd);
	paths = argv + 1;
	n_paths = argc - 1;
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	unlink(path);
	return failed;
}
