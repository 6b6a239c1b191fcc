/* A session of little memory, and all K and V that it has had: what its tests compare with. */
#ifndef PAST_H
#define PAST_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "session/session.h"

#define PAST_WINDOW 32
#define PAST_SINK 4
#define PAST_MOST 512 /* positions */

static inline pal_model *past_model(const char *path, int threads, const char *isa)
{
	pal_model *m;
	pal_error err;
	if (pal_model_open(path, &(pal_model_options){.n_threads = threads, .isa = isa}, &m, &err))
		fail_msg("%s", err.text);
	return m;
}

static inline pal_session_options past_options(pal_source source)
{
	return (pal_session_options){.kv_policy = PAL_KV_RESTORED,
				     .kv_type = PAL_KV_F32,
				     .sink = PAST_SINK,
				     .window = PAST_WINDOW,
				     .reread = 8,
				     .slots = 6,
				     .left = 20,
				     .n_batch = 64,
				     .positions = PAL_POSITIONS_ORIGINAL,
				     .source = source,
				     .disk_dir = "/tmp",
				     .n_ctx = 65536};
}

static inline int32_t past_token(const pal_model *m, int64_t pos)
{
	uint32_t x = (uint32_t)pos * 2654435761u;
	return (int32_t)((x ^ x >> 15) % (m->h.n_vocab - 8));
}

/* What was computed for a position before it left its ring: [layer][head][K, V][head_dim]. */
typedef struct {
	pal_model *m;
	pal_session *s;
	size_t row;  /* floats of a position */
	float *rows; /* [PAST_MOST][row] */
} past;

static inline pal_session *past_session(pal_model *m, const pal_session_options *o)
{
	pal_session *s;
	pal_error err;
	if (pal_session_open(m, o, &s, &err))
		fail_msg("%s", err.text);
	return s;
}

static inline float *past_row(const past *p, int64_t pos, size_t layer, size_t head)
{
	const pal__hparams *h = &p->m->h;
	return p->rows + (size_t)pos * p->row + (layer * h->n_kv_heads + head) * 2 * h->head_dim;
}

/* Appends up to `length` tokens and keeps their K and V. */
static inline void past_append(past *p, int64_t length)
{
	const pal__hparams *h = &p->m->h;
	pal_error err;
	assert_true(length <= PAST_MOST);
	for (int64_t pos = pal_session_length(p->s); pos < length;) {
		int32_t ids[16];
		size_t n = 0;
		for (; n < 16 && pos + (int64_t)n < length; n++)
			ids[n] = past_token(p->m, pos + (int64_t)n);
		if (pal_session_append(p->s, ids, n, NULL, NULL, NULL, &err))
			fail_msg("%s", err.text);
		for (size_t end = (size_t)pos + n; pos < (int64_t)end; pos++)
			for (size_t l = 0; l < h->n_layers; l++)
				for (size_t g = 0; g < h->n_kv_heads; g++) {
					float *to = past_row(p, pos, l, g);
					pal__kv_load(&p->s->kv, l, g, pos, to, to + h->head_dim);
				}
	}
}

static inline past past_open(const char *path, const pal_session_options *o, int64_t length)
{
	past p = {.m = past_model(path, 2, NULL)};
	p.row = p.m->h.n_layers * p.m->h.n_kv_heads * 2 * p.m->h.head_dim;
	p.rows = malloc(PAST_MOST * p.row * sizeof *p.rows);
	assert_non_null(p.rows);
	p.s = past_session(p.m, o);
	past_append(&p, length);
	return p;
}

static inline void past_close(past *p)
{
	pal_session_close(p->s);
	pal_model_close(p->m);
	free(p->rows);
}

/* A far row of float K/V. */
static inline void past_far(const pal__kv *kv, size_t layer, size_t head, size_t row, float *k,
			    float *v)
{
	size_t hd = kv->shape.head_dim, place = row % PAL__ATTN_BLOCK;
	pal__attn_kv b = pal__kv_far_block(kv, NULL, layer, head, row / PAL__ATTN_BLOCK, NULL);
	for (size_t d = 0; d < hd; d++) {
		k[d] = ((const float *)b.k)[d * PAL__ATTN_BLOCK + place];
		v[d] = ((const float *)b.v)[place * ((hd + 15) & ~(size_t)15) + d];
	}
}

/* Positions below this are evicted for whatever comes next. */
static inline int64_t past_end(past *p)
{
	pal_error err;
	int64_t end = pal__restore_end(&p->s->restore, p->s->length - 1);
	if (pal__restore_keep(&p->s->restore, end, &err))
		fail_msg("%s", err.text);
	return end;
}

/* Far rows from `row` on have positions [from, end): V as far as `v` of what it was, and K
 * (at original positions) as far as `k`, both as parts of the row's largest number. */
static inline void past_same(const past *p, int64_t from, int64_t end, size_t row, float k_part,
			     float v_part)
{
	const pal__kv_shape *shape = &p->s->kv.shape;
	size_t hd = shape->head_dim;
	float got[2][PAL__KV_MAX_DIM];
	for (int64_t pos = from; pos < end; pos++, row++)
		for (size_t l = 0; l < shape->n_layers; l++)
			for (size_t g = 0; pal__kv_bounded(shape, l) && g < shape->n_kv_heads;
			     g++) {
				const float *want = past_row(p, pos, l, g);
				past_far(&p->s->kv, l, g, row, got[0], got[1]);
				for (size_t part = 0; part < 2; part++, want += hd) {
					float most = 0, allowed = part ? v_part : k_part;
					for (size_t d = 0; d < hd; d++)
						most = fmaxf(most, fabsf(want[d]));
					for (size_t d = 0; d < hd; d++)
						if (!(fabsf(got[part][d] - want[d]) <=
						      allowed * most))
							fail_msg("position %lld in row %zu, layer "
								 "%zu, head %zu, %c[%zu]: %a, not "
								 "%a",
								 (long long)pos, row, l, g,
								 "KV"[part], d,
								 (double)got[part][d],
								 (double)want[d]);
				}
			}
}

#endif
