#include "draft/greedy.h"

#include <math.h>

#include "draft/sample.h"
#include "kernels/half.h"

#define LEAST 0.1f /* probability of a draft that is worth its passes */
#define LANES 16   /* of a loop that is written for vectors */

/* e to the x for x <= 0, but for some percent: a number's bits are about linear in its logarithm
 * (N. Schraudolph, 1999). A degree needs no more, and is made of 150,000 of them. */
static inline float weight(float x)
{
	float bits = x * (0x1p23f * 0x1.715476p+0f) + 1064866805.0f;
	return pal__bits_float((uint32_t)(int32_t)(bits > 0 ? bits : 0));
}

/* The probability of the largest of x[n]; 0 if it is no finite number. */
static float share(const float *x, size_t n, float max)
{
	float sum[LANES] = {0}, all = 0;
	size_t i = 0;
	if (!isfinite(max))
		return 0;
	for (; i + LANES <= n; i += LANES)
		for (size_t j = 0; j < LANES; j++)
			sum[j] += weight(x[i + j] - max);
	for (; i < n; i++)
		sum[0] += weight(x[i] - max);
	for (size_t j = 0; j < LANES; j++)
		all += sum[j];
	return weight(0) / all;
}

/* Finer where it matters most: of ten tokens with 0.9 each, one in three drafts is right, and of
 * ten with 0.99 nine in ten. */
uint8_t pal__draft_degree(float p)
{
	static const float from[PAL__DRAFT_BUCKETS - 1] = {0.15f, 0.2f,  0.3f,  0.4f,  0.5f,
							   0.6f,  0.7f,  0.8f,  0.85f, 0.9f,
							   0.93f, 0.96f, 0.98f, 0.99f, 0.995f};
	uint8_t degree = 0;
	while (degree < PAL__DRAFT_BUCKETS - 1 && p >= from[degree])
		degree++;
	return degree;
}

int pal__greedy_draft(const pal__greedy *g, pal__row *rows, int n, int32_t *out, uint8_t *sure,
		      int most)
{
	pal__row *next = &rows[n - 1];
	float all = 1;
	for (int i = 0; i < most; i++) {
		next->logits = g->logits;
		pal__forward(g->model, g->scratch, rows, n, g->tap);
		int32_t id = pal__largest(g->logits, g->model->h.n_vocab);
		float p = share(g->logits, g->model->h.n_vocab, g->logits[id]);
		all *= p;
		if (all < LEAST)
			return i;
		out[i] = id;
		sure[i] = pal__draft_degree(p);
		rows[0] = (pal__row){.token = id, .pos = next->pos + 1, .kv = next->kv};
		next = rows;
		n = 1;
	}
	return most;
}
