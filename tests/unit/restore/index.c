/* Scores of the selection index against what they mean, in double precision. Arguments: model files
 * of tests/tools/mkmodel.py. */
#include "restore/index.h"

#include "past.h"

#define LONG 4400 /* more than a wave of slabs on one thread */

static char **paths;
static int n_paths;

static pal_session *long_session(pal_model *m, int64_t length)
{
	static int32_t ids[LONG];
	pal_session_options o = past_options(PAL_SOURCE_RECOMPUTE);
	pal_error err;
	pal_session *s = past_session(m, &o);
	for (int64_t i = 0; i < length; i++)
		ids[i] = past_token(m, i);
	if (pal_session_append(s, ids, (size_t)length, NULL, NULL, NULL, &err) ||
	    pal__restore_keep(&s->restore, pal__restore_end(&s->restore, length - 1), &err))
		fail_msg("%s", err.text);
	return s;
}

/* K of a position as the file has it: [head_dim]. */
static void kept_row(const pal__index *x, int64_t pos, size_t pair, float *k)
{
	static uint8_t bytes[65536] __attribute__((aligned(64)));
	float all[PAL__KV_MAX_DIM];
	pal__matrix one = x->tile;
	size_t tiles = PAL__SLAB / PAL__TILE_ROWS, tile = (size_t)pos / PAL__TILE_ROWS;
	uint64_t at = ((tile / tiles * x->n_pairs + pair) * tiles + tile % tiles) * one.tile_bytes;
	one.n_rows = PAL__TILE_ROWS;
	one.n_tiles = 1;
	one.data = bytes;
	assert_true(one.tile_bytes <= sizeof bytes);
	assert_int_equal(pal__disk_read(&x->disk, bytes, one.tile_bytes, at, NULL), PAL_OK);
	pal__matrix_row(&one, (size_t)pos % PAL__TILE_ROWS, all);
	memcpy(k, all, x->m->h.head_dim * sizeof *k);
}

/* Queries that look for a position, some of them faintly for a second one. */
static void look_for(pal__index *x, int row, int64_t first, int64_t second)
{
	float a[PAL__KV_MAX_DIM], b[PAL__KV_MAX_DIM];
	size_t hd = x->m->h.head_dim;
	for (size_t i = 0; i < x->n_heads; i++) {
		size_t at = (size_t)((x->q_end - 4 + row) % PAL__RING_ROWS);
		float *q = x->queries + (i * PAL__RING_ROWS + at) * x->tile.n_cols;
		float size = 0;
		kept_row(x, first, x->pair_of[i], a);
		kept_row(x, second, x->pair_of[i], b);
		for (size_t d = 0; d < hd; d++)
			size += a[d] * a[d];
		for (size_t d = 0; d < hd; d++)
			q[d] = (a[d] + (i & 1 ? 0.8f * b[d] : 0)) * 30 / size / x->m->h.attn_scale;
	}
}

/* A query vector's shares by chunk, of which the best position speaks; only its 8 best ones. */
static void shares(const pal__index *x, const float *q, size_t pair, size_t n, double *chunk)
{
	size_t hd = x->m->h.head_dim, chunks = (n + PAL_CHUNK - 1) / PAL_CHUNK;
	double best[LONG / PAL_CHUNK + 1], most = -INFINITY, sum = 0;
	float k[PAL__KV_MAX_DIM];
	for (size_t c = 0; c < chunks; c++)
		best[c] = -INFINITY;
	for (size_t i = 0; i < n; i++) {
		double dot = 0;
		kept_row(x, (int64_t)i, pair, k);
		for (size_t d = 0; d < hd; d++)
			dot += (double)q[d] * (double)k[d];
		dot *= (double)x->m->h.attn_scale;
		best[i / PAL_CHUNK] = fmax(best[i / PAL_CHUNK], dot);
		most = fmax(most, dot);
	}
	for (size_t c = 0; c < chunks; c++)
		sum += exp(best[c] - most);
	for (size_t c = 0; c < chunks; c++) {
		size_t better = 0;
		for (size_t e = 0; e < chunks; e++)
			better += best[e] > best[c];
		chunk[c] = better < 8 ? exp(best[c] - most) / sum : 0;
	}
}

/* Of all chunks below end: the sum over query rows and heads of their shares. */
static void define(const pal__index *x, int64_t end, int rows, bool later, double *out)
{
	double one[LONG / PAL_CHUNK + 1], sums[2][LONG / PAL_CHUNK + 1];
	size_t chunks = ((size_t)end + PAL_CHUNK - 1) / PAL_CHUNK;
	memset(sums, 0, sizeof sums);
	for (int64_t r = x->q_end - rows; r < x->q_end; r++)
		for (size_t h = 0; h < x->n_heads; h++) {
			const float *q =
				x->queries + (h * PAL__RING_ROWS + (size_t)(r % PAL__RING_ROWS)) *
						     x->tile.n_cols;
			shares(x, q, x->pair_of[h], (size_t)end, one);
			for (size_t c = 0; c < chunks; c++) {
				sums[0][c] += x->first[h] ? one[c] : 0;
				sums[1][c] += x->later[h] ? one[c] : 0;
			}
		}
	for (size_t c = 0; c < chunks; c++)
		out[c] = fmax(sums[0][c], later ? sums[1][c] : 0);
}

/* All that are found have the score that the definition gives them, as far as rounding queries to
 * bytes goes, and what has much is found. */
static void check(pal__index *x, int64_t end, int rows, bool later)
{
	double want[LONG / PAL_CHUNK + 1];
	pal__found found[PAL__MAX_FOUND];
	size_t n, chunks = ((size_t)end + PAL_CHUNK - 1) / PAL_CHUNK;
	pal_error err;
	define(x, end, rows, later, want);
	if (pal__index_score(x, end, rows, later, found, &n, &err))
		fail_msg("%s", err.text);
	assert_true(n > 0);
	for (size_t i = 0; i < n; i++) {
		assert_true(found[i].chunk >= 0 && (size_t)found[i].chunk < chunks);
		assert_true(!i || found[i].score <= found[i - 1].score);
		double w = want[found[i].chunk];
		if (!(fabs((double)found[i].score - w) < 0.03 + 0.03 * w))
			fail_msg("%d rows below %lld: chunk %d has %g, not %g", rows,
				 (long long)end, found[i].chunk, (double)found[i].score, w);
		want[found[i].chunk] = 0;
	}
	for (size_t c = 0; c < chunks; c++)
		if (want[c] > 0.5)
			fail_msg("chunk %zu, which has %g, is not found", c, want[c]);
}

static void definition(void **state)
{
	(void)state;
	for (int i = 0; i < n_paths; i++) {
		pal_model *m = past_model(paths[i], 2, NULL);
		pal_session *s = long_session(m, 1203);
		pal__index *x = &s->restore.index;
		const int64_t ends[] = {1, 15, 16, 17, 31, 33, 500, 1023, 1024, 1025, x->end};
		assert_int_equal(x->end, 1203 - PAST_WINDOW);
		assert_int_equal(x->q_end, 1203);
		x->q_end -= 7; /* as if a pass had been taken back in part */
		assert_true(x->q_end - x->q_from > 16);
		look_for(x, 0, 3, 1100);
		look_for(x, 1, 700, 14);
		look_for(x, 2, 1150, 30);
		look_for(x, 3, 40, 1030);
		for (size_t e = 0; e < sizeof ends / sizeof ends[0]; e++) {
			check(x, ends[e], 4, false);
			check(x, ends[e], 1, false);
		}
		/* A second set of heads counts later only, and where it finds more. */
		for (size_t h = 0; h < x->n_heads; h++) {
			x->later[h] = h & 1;
			x->first[h] = !(h & 1);
		}
		check(x, x->end, 2, false);
		check(x, x->end, 2, true);
		pal_session_close(s);
		pal_model_close(m);
	}
}

/* By chunk, what all heads and positions give. */
static void take_look(void *user, const pal__look *look)
{
	double *sum = user;
	for (size_t i = 0; i < look->n; i++) {
		assert_true(!i || look->found[i].score <= look->found[i - 1].score);
		sum[look->found[i].chunk] += (double)look->found[i].score;
	}
}

/* What heads look for, asked of a few at a time, adds up to the scores of all of them. */
static void looks(void **state)
{
	(void)state;
	for (int i = 0; i < n_paths; i++) {
		static int32_t ids[1500];
		pal_session_options o = past_options(PAL_SOURCE_RECOMPUTE);
		pal_model *m = past_model(paths[i], 2, NULL);
		pal_session *s;
		pal__found found[PAL__MAX_FOUND];
		double sum[1500 / PAL_CHUNK + 1];
		size_t n;
		for (int64_t k = 0; k < 1500; k++)
			ids[k] = past_token(m, k);
		assert_int_equal(pal__session_open_all(m, &o, &s, NULL), PAL_OK);
		assert_int_equal(pal_session_append(s, ids, 1500, NULL, NULL, NULL, NULL), PAL_OK);
		pal__index *x = &s->restore.index;
		memset(x->first, 1, x->n_heads);
		size_t all = x->n_heads <= 16 ? x->n_heads : 16;
		assert_int_equal(x->at_once, all);
		x->n_heads = all;
		assert_int_equal(pal__index_score(x, 1200, 16, false, found, &n, NULL), PAL_OK);
		assert_true(n > 1);
		for (x->at_once = 1; x->at_once <= all; x->at_once += 2) {
			memset(sum, 0, sizeof sum);
			assert_int_equal(pal__index_look(x, 1200, take_look, sum, NULL), PAL_OK);
			for (size_t k = 0; k < n; k++)
				assert_true(fabs(sum[found[k].chunk] - (double)found[k].score) <
					    1e-4);
		}
		pal_session_close(s);
		pal_model_close(m);
	}
}

/* Rows of the file are K before rotation, as far as 4 bits say it, wherever a keeping stopped. */
static void rows(void **state)
{
	(void)state;
	for (int i = 0; i < n_paths; i++) {
		pal_session_options o = past_options(PAL_SOURCE_RECOMPUTE);
		past p = past_open(paths[i], &o, 130);
		pal__index *x = &p.s->restore.index;
		const pal__hparams *h = &p.m->h;
		pal_error err;
		for (int64_t end = x->end; end < 120; end += 11) {
			assert_int_equal(pal__index_keep(x, &p.s->kv, end, &err), PAL_OK);
			assert_int_equal(x->end, end);
		}
		for (int64_t pos = 70; pos < x->end; pos++)
			for (size_t pair = 0; pair < x->n_pairs; pair++) {
				float k[PAL__KV_MAX_DIM], want[PAL__KV_MAX_DIM], v[PAL__KV_MAX_DIM],
					angles[PAL__MAX_HEAD_DIM];
				pal__angles(p.m, pos, 1, angles);
				pal__take(p.m, &p.s->kv, angles, x->pairs[pair].layer,
					  x->pairs[pair].head, pos, want, v);
				kept_row(x, pos, pair, k);
				for (size_t d = 0; d < h->head_dim; d++) {
					float most = 0;
					for (size_t e = d / 32 * 32;
					     e < h->head_dim && e < d / 32 * 32 + 32; e++)
						most = fmaxf(most, fabsf(want[e]));
					/* Half a step of an eighth; at the far end a whole one. */
					assert_true(fabsf(k[d] - want[d]) <= most * 0.126f);
				}
			}
		past_close(&p);
	}
}

/* The same bits on every instruction set and with any number of threads. */
static void same_everywhere(void **state)
{
	static const struct {
		int threads;
		const char *isa;
	} how[] = {{1, "scalar"}, {1, NULL}, {3, NULL}};
	(void)state;
	for (int i = 0; i < 2 && i < n_paths; i++) {
		pal__found first[3][PAL__MAX_FOUND];
		size_t n_first[3] = {0};
		for (size_t j = 0; j < 3; j++) {
			pal_model *m = past_model(paths[i], how[j].threads, how[j].isa);
			pal_session *s = long_session(m, LONG);
			pal__index *x = &s->restore.index;
			pal_error err;
			for (int t = 0; t < 3; t++) {
				pal__found found[PAL__MAX_FOUND];
				size_t n;
				if (t == 2) {
					look_for(x, 3, 17, 4321);
					look_for(x, 2, 2100, 300);
				}
				assert_int_equal(pal__index_score(x, t ? x->end : 1000, 4, false,
								  found, &n, &err),
						 PAL_OK);
				assert_true(n > 1);
				if (!j) {
					memcpy(first[t], found, n * sizeof *found);
					n_first[t] = n;
				}
				assert_int_equal(n, n_first[t]);
				assert_memory_equal(found, first[t], n * sizeof *found);
			}
			pal_session_close(s);
			pal_model_close(m);
		}
	}
}

/* What cannot be read is an error, from whichever thread. */
static void failures(void **state)
{
	pal_model *m = past_model(paths[0], 2, NULL);
	pal_session *s = long_session(m, 2300);
	pal__found found[PAL__MAX_FOUND];
	pal_error err;
	size_t n = 9, n_good = 0;
	(void)state;
	assert_int_equal(
		pal__index_score(&s->restore.index, INT64_MAX, 4, false, found, &n_good, &err),
		PAL_OK);
	bool failed = true;
	for (int after = 0; failed; after++) {
		pal__disk_fail_after(after);
		pal_status status =
			pal__index_score(&s->restore.index, INT64_MAX, 4, false, found, &n, &err);
		failed = pal__disk_failed();
		pal__disk_fail_after(-1);
		assert_int_equal(status, failed ? PAL_EIO : PAL_OK);
		assert_true(!failed || !strncmp(err.text, "the selection index: reading", 28));
		assert_true(after < 1000);
	}
	assert_int_equal(n, n_good);
	assert_int_equal(pal__index_score(&s->restore.index, 0, 4, false, found, &n, &err), PAL_OK);
	assert_int_equal(n, 0);
	pal_session_close(s);
	pal_model_close(m);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(definition), cmocka_unit_test(looks),
		cmocka_unit_test(rows),       cmocka_unit_test(same_everywhere),
		cmocka_unit_test(failures),
	};
	paths = argv + 1;
	n_paths = argc - 1;
	return n_paths ? cmocka_run_group_tests(tests, NULL, NULL) : 2;
}
