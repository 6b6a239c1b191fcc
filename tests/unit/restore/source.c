/* What sources share, and the source `recompute`. Arguments: models of tests/tools/mkmodel.py. */
#include "restore/recompute.h"

#include "past.h"

static char **paths;
static int n_paths;

/* K and V, before rotation, of the last `n` of the tokens in a session that keeps all: [n][row],
 * rows as in past.h. */
static float *read_alone(const past *p, const int32_t *ids, size_t n_ids, size_t n)
{
	const pal__hparams *h = &p->m->h;
	float *out = malloc(n * p->row * sizeof *out), angles[PAL__MAX_HEAD_DIM];
	past alone = {
		p->m,
		past_session(p->m, &(pal_session_options){.n_ctx = 512, .kv_type = PAL_KV_F32}),
		p->row, out};
	assert_non_null(out);
	assert_int_equal(pal_session_append(alone.s, ids, n_ids, NULL, NULL, NULL, NULL), PAL_OK);
	for (size_t i = 0; i < n; i++) {
		int64_t pos = (int64_t)(n_ids - n + i);
		pal__angles(p->m, pos, 1, angles);
		for (size_t l = 0; l < h->n_layers; l++)
			for (size_t g = 0; !pal__layer_slides(h, l) && g < h->n_kv_heads; g++) {
				float *to = past_row(&alone, (int64_t)i, l, g);
				pal__take(p->m, &alone.s->kv, angles, l, g, pos, to,
					  to + h->head_dim);
			}
	}
	pal_session_close(alone.s);
	return out;
}

/* K before rotation turned to a position, in double: pairs are (i, i + n_rot / 2). */
static void turn(const pal_model *m, const float *k, int64_t pos, double *out)
{
	float cos[PAL__MAX_HEAD_DIM], sin[PAL__MAX_HEAD_DIM];
	size_t half = m->h.n_rot / 2;
	pal__rope_at(&m->h.rope, m->h.n_rot, pos, cos, sin);
	for (size_t d = 0; d < m->h.head_dim; d++)
		out[d] = (double)k[d];
	for (size_t d = 0; d < half; d++) {
		out[d] = (double)k[d] * (double)cos[d] - (double)k[half + d] * (double)sin[d];
		out[half + d] =
			(double)k[half + d] * (double)cos[d] + (double)k[d] * (double)sin[d];
	}
}

/* Far rows from span->row on are what `alone` has: V to the bit. */
static void compare(const past *p, const pal__span *span, const float *alone)
{
	const pal__hparams *h = &p->m->h;
	const past other = {p->m, p->s, p->row, (float *)alone};
	for (int64_t i = 0; i < span->end - span->from; i++)
		for (size_t l = 0; l < h->n_layers; l++)
			for (size_t g = 0; !pal__layer_slides(h, l) && g < h->n_kv_heads; g++) {
				float k[PAL__KV_MAX_DIM], v[PAL__KV_MAX_DIM];
				double want[PAL__KV_MAX_DIM];
				const float *row = past_row(&other, i, l, g);
				bool original = p->s->kv.shape.original;
				size_t at = span->row + (size_t)i;
				past_far(&p->s->kv, l, g, at, k, v);
				turn(p->m, row, original ? span->from + i : (int64_t)at, want);
				assert_memory_equal(v, row + h->head_dim, h->head_dim * sizeof *v);
				for (size_t d = 0; d < h->head_dim; d++)
					if (!(fabs((double)k[d] - want[d]) < 2e-5))
						fail_msg("%s, position %lld, layer %zu, K[%zu]: "
							 "%g, not %g",
							 h->arch_name, (long long)(span->from + i),
							 l, d, (double)k[d], want[d]);
			}
}

/* Chunks are what a session of [sinks, left, chunk] alone computes, several in one go, too. */
static void recompute(void **state)
{
	(void)state;
	for (int i = 0; i < n_paths; i++)
		for (int round = 0; round < 4; round++) {
			pal_session_options o = past_options(PAL_SOURCE_RECOMPUTE);
			o.positions = round & 1 ? PAL_POSITIONS_COMPACT : PAL_POSITIONS_ORIGINAL;
			o.n_batch = round & 2 ? 400 : 64;
			past p = past_open(paths[i], &o, 400);
			pal__restore *r = &p.s->restore;
			/* Without all of their left context; cut short; two as they come. */
			const pal__span spans[] = {
				{4, 40, 4}, {15, 20, 40}, {88, 136, 45}, {136, 160, 93}};
			assert_int_equal(r->runs.n, round & 2 ? 4 : 1);
			pal__recompute(NULL, &r->runs, &r->site, spans, 4);
			for (size_t j = 0; j < 4; j++) {
				int32_t ids[128];
				size_t n = 0;
				for (int64_t t = 0; t < PAST_SINK; t++)
					ids[n++] = past_token(p.m, t);
				for (int64_t t = spans[j].from - 20; t < spans[j].end; t++)
					if (t >= PAST_SINK)
						ids[n++] = past_token(p.m, t);
				float *alone = read_alone(&p, ids, n,
							  (size_t)(spans[j].end - spans[j].from));
				compare(&p, &spans[j], alone);
				free(alone);
			}
			past_close(&p);
		}
}

/* A position that the ring has comes out of it before rotation, and goes back in as it was. */
static void taken_and_put(void **state)
{
	(void)state;
	for (int i = 0; i < n_paths; i++) {
		pal_session_options o = past_options(PAL_SOURCE_RECOMPUTE);
		past p = past_open(paths[i], &o, 100);
		const pal__hparams *h = &p.m->h;
		pal__site *s = &p.s->restore.site;
		const pal__span span = {80, 90, 30};
		float angles[10 * PAL__MAX_HEAD_DIM], k[PAL__KV_MAX_DIM], v[PAL__KV_MAX_DIM];
		pal__angles(p.m, 80, 10, angles);
		pal__put_begin(s, &span);
		for (size_t at = 0; at < 10; at++)
			for (size_t l = 0; l < h->n_layers; l++)
				for (size_t g = 0; !pal__layer_slides(h, l) && g < h->n_kv_heads;
				     g++) {
					pal__take(p.m, s->kv, angles + at * h->n_rot, l, g,
						  80 + (int64_t)at, k, v);
					pal__put(s, &span, at, l, g, k, v);
				}
		past_same(&p, 80, 90, 30, 1e-6f, 0);
		past_close(&p);
	}
}

/* Of each control, what it is meant to break. */
static void controls(void **state)
{
	pal_session_options o = past_options(PAL_SOURCE_RECOMPUTE);
	const pal__span span = {96, 106, 4};
	float k[PAL__KV_MAX_DIM], v[PAL__KV_MAX_DIM], moved[PAL__KV_MAX_DIM];
	past p = past_open(paths[0], &o, 300);
	pal__restore *r = &p.s->restore;
	size_t bytes = p.m->h.head_dim * sizeof *v;
	float whole[10][PAL__KV_MAX_DIM];
	(void)state;
	pal__recompute(&r->memo, &r->runs, &r->site, &span, 1);
	for (size_t i = 0; i < 10; i++)
		past_far(&p.s->kv, 1, 1, 4 + i, k, whole[i]);
	r->site.control = PAL__CONTROL_SHUFFLE;
	pal__recompute(&r->memo, &r->runs, &r->site, &span, 1);
	for (size_t i = 0; i < 10; i++) {
		past_far(&p.s->kv, 1, 1, 4 + (i + 5) % 10, k, moved);
		assert_memory_equal(moved, whole[i], bytes);
	}
	r->site.control = PAL__CONTROL_NO_LOG;
	pal__recompute(&r->memo, &r->runs, &r->site, &span, 1);
	past_far(&p.s->kv, 1, 1, 4, k, v);
	assert_memory_not_equal(v, whole[0], bytes);
	r->site.control = PAL__CONTROL_ZERO;
	pal__recompute(&r->memo, &r->runs, &r->site, &span, 1);
	for (size_t i = 0; i < 10; i++) {
		past_far(&p.s->kv, 1, 1, 4 + i, k, v);
		for (size_t d = 0; d < p.m->h.head_dim; d++)
			assert_true(k[d] == 0 && v[d] == 0);
	}
	past_close(&p);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(recompute),
		cmocka_unit_test(taken_and_put),
		cmocka_unit_test(controls),
	};
	paths = argv + 1;
	n_paths = argc - 1;
	return n_paths ? cmocka_run_group_tests(tests, NULL, NULL) : 2;
}
