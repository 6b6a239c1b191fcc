#include "draft/sample.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/checked.h"
#include "base/mem.h"

#define LANES 16 /* of loops that are written for vectors */
#define BLOCK 64 /* logits that are looked at, or not, together */

/* A token that may be chosen; its logit is a number. */
struct candidate {
	uint32_t key; /* of its logit: smaller is better */
	int32_t id;
};

struct pal__sampler {
	pal_sampling params;
	int32_t n_vocab;
	float *x;      /* [n_vocab] penalised logits */
	uint8_t *seen; /* [n_vocab] 1: the penalty was applied; all 0 between calls */
	struct candidate *kept, *spare; /* [n_vocab] */
	float *kept_x;                  /* [n_vocab] their logits */
	double *weight; /* [n_vocab] exp(x - largest x), or that at the temperature */
};

static bool within(double v, double min, double max)
{
	return v >= min && v <= max; /* false for NaN */
}

static pal_status check(const pal_sampling *p, pal_error *err)
{
	if (!within(p->temperature, 0, 1000))
		return pal__fail(err, PAL_EINVAL, "temperature %g: must be 0 to 1000",
				 (double)p->temperature);
	if (p->top_k < 0)
		return pal__fail(err, PAL_EINVAL, "top-k %d: must be 0 (off) or more", p->top_k);
	if (!within(p->top_p, 0, 1))
		return pal__fail(err, PAL_EINVAL, "top-p %g: must be 0 to 1 (off)",
				 (double)p->top_p);
	if (!within(p->min_p, 0, 1))
		return pal__fail(err, PAL_EINVAL, "min-p %g: must be 0 (off) to 1",
				 (double)p->min_p);
	if (!within(p->repeat_penalty, 0.01, 100))
		return pal__fail(err, PAL_EINVAL,
				 "repetition penalty %g: must be 0.01 to 100 (1: off)",
				 (double)p->repeat_penalty);
	if (p->repeat_last < 0)
		return pal__fail(err, PAL_EINVAL,
				 "repetition penalty over %d tokens: must be 0 "
				 "or more",
				 p->repeat_last);
	return PAL_OK;
}

pal_status pal__sampler_new(int32_t n_vocab, const pal_sampling *params, pal__sampler **out,
			    pal_error *err)
{
	pal_status status = check(params, err);
	if (status)
		return status;
	if (n_vocab < 1)
		return pal__fail(err, PAL_EINVAL, "a vocabulary of %d tokens", n_vocab);
	size_t n = (size_t)n_vocab, size;
	if (!pal__mul_size(n, 2 * sizeof(struct candidate) + 2 * sizeof(float) + sizeof(double) + 1,
			   &size))
		return pal__fail_memory(err, "the sampler", SIZE_MAX);
	pal__sampler *s = pal__calloc(1, sizeof *s);
	if (s) {
		*s = (pal__sampler){.params = *params, .n_vocab = n_vocab};
		s->x = pal__calloc(n, sizeof *s->x);
		s->seen = pal__calloc(n, 1);
		s->kept = pal__calloc(n, sizeof *s->kept);
		s->spare = pal__calloc(n, sizeof *s->spare);
		s->kept_x = pal__calloc(n, sizeof *s->kept_x);
		s->weight = pal__calloc(n, sizeof *s->weight);
	}
	if (!s || !s->x || !s->seen || !s->kept || !s->spare || !s->kept_x || !s->weight) {
		pal__sampler_free(s);
		return pal__fail_memory(err, "the sampler", size);
	}
	*out = s;
	return PAL_OK;
}

void pal__sampler_free(pal__sampler *s)
{
	if (!s)
		return;
	pal__free(s->x);
	pal__free(s->seen);
	pal__free(s->kept);
	pal__free(s->spare);
	pal__free(s->kept_x);
	pal__free(s->weight);
	pal__free(s);
}

/* --- arithmetic ----------------------------------------------------------- */

static uint64_t mix(uint64_t z)
{
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

/* SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014) as
 * a counter: its state after i + 1 steps is a product. Mixing the seed first keeps seeds 1
 * and 2 from giving shifted copies of one stream. */
uint64_t pal__random(uint64_t seed, uint64_t i)
{
	const uint64_t golden = 0x9e3779b97f4a7c15u;
	return mix(mix(seed + golden) + (i + 1) * golden);
}

/* x = n ln 2 + r with |r| <= ln(2)/2; the Taylor series of exp(r) to r^13, whose next term
 * is below 5e-18; then n into the exponent. ln 2 is split so that n * high is exact. */
static inline double exp_neg(double x)
{
	double in = x >= -708 ? x : 0; /* no branch: loops become vectors */
	int32_t n = (int32_t)(in * 1.44269504088896338700 - 0.5);
	double k = (double)n;
	double r = (in - k * 6.93147180369123816490e-01) - k * 1.90821492927058770002e-10;
	double p = 1.0 / 6227020800;
	p = p * r + 1.0 / 479001600;
	p = p * r + 1.0 / 39916800;
	p = p * r + 1.0 / 3628800;
	p = p * r + 1.0 / 362880;
	p = p * r + 1.0 / 40320;
	p = p * r + 1.0 / 5040;
	p = p * r + 1.0 / 720;
	p = p * r + 1.0 / 120;
	p = p * r + 1.0 / 24;
	p = p * r + 1.0 / 6;
	p = p * r + 0.5;
	p = p * r + 1;
	p = p * r + 1;
	uint64_t bits = (uint64_t)(uint32_t)(n + 1023) << 52;
	double scale;
	memcpy(&scale, &bits, sizeof scale);
	return x >= -708 ? p * scale : 0;
}

double pal__exp_neg(double x)
{
	return exp_neg(x);
}

/* The largest of x[n], of which NaNs are no part; -INFINITY if there is none. */
static float largest_value(const float *x, size_t n)
{
	float best[LANES], max = -INFINITY;
	size_t i = 0;
	for (size_t j = 0; j < LANES; j++)
		best[j] = -INFINITY;
	for (; i + LANES <= n; i += LANES)
		for (size_t j = 0; j < LANES; j++)
			best[j] = x[i + j] > best[j] ? x[i + j] : best[j];
	for (; i < n; i++)
		max = x[i] > max ? x[i] : max;
	for (size_t j = 0; j < LANES; j++)
		max = best[j] > max ? best[j] : max;
	return max;
}

/* Where the next of x[n] from i on is that is `from` or more, or some before it: whole blocks
 * without any are skipped. */
static inline size_t skip_below(const float *x, size_t i, size_t n, float from)
{
	for (; i % BLOCK == 0 && i + BLOCK <= n; i += BLOCK) {
		int found = 0;
		for (size_t j = 0; j < BLOCK; j++)
			found += x[i + j] >= from;
		if (found)
			break;
	}
	return i;
}

int32_t pal__largest(const float *x, size_t n)
{
	float max = largest_value(x, n);
	for (size_t i = 0; (i = skip_below(x, i, n, max)) < n; i++)
		if (x[i] == max)
			return (int32_t)i;
	return 0;
}

/* --- selection ------------------------------------------------------------ */

/* Maps larger numbers to smaller keys, and -0 to the key of 0. */
static uint32_t key_of(float x)
{
	uint32_t u;
	x += 0.0f;
	memcpy(&u, &x, sizeof u);
	return u & 0x80000000u ? u : ~u & 0x7fffffffu;
}

/* The tokens whose logits are `from` or more, in ascending order of ids. Returns how many. */
static size_t collect(pal__sampler *s, const float *x, float from)
{
	size_t kept = 0, n = (size_t)s->n_vocab;
	for (size_t i = 0; (i = skip_below(x, i, n, from)) < n; i++) {
		s->kept[kept] = (struct candidate){key_of(x[i]), (int32_t)i};
		kept += x[i] >= from;
	}
	return kept;
}

/* Sorts the candidates best first, the smaller id first among equals as it is now: by the
 * key's digits, the last one first, each pass leaving equals in their order. */
static void sort(pal__sampler *s, size_t n)
{
	for (int shift = 0; shift < 33; shift += 11) {
		uint32_t at[2048] = {0}, sum = 0;
		struct candidate *from = s->kept, *to = s->spare;
		for (size_t i = 0; i < n; i++)
			at[from[i].key >> shift & 2047]++;
		for (size_t i = 0; i < 2048; i++) {
			uint32_t count = at[i];
			at[i] = sum;
			sum += count;
		}
		for (size_t i = 0; i < n; i++)
			to[at[from[i].key >> shift & 2047]++] = from[i];
		s->kept = to;
		s->spare = from;
	}
}

/* Moves heap[0] down to its place in heap[n], whose root is the smallest. */
static void sift(float *heap, size_t n)
{
	float moved = heap[0];
	size_t at = 0;
	for (size_t child; (child = 2 * at + 1) < n; at = child) {
		child += child + 1 < n && heap[child + 1] < heap[child];
		if (!(heap[child] < moved))
			break;
		heap[at] = heap[child];
	}
	heap[at] = moved;
}

/* The k-th largest logit, or less: a heap of the largest so far with the smallest of them
 * on top, to which most logits lose at once. */
static float kth_largest(pal__sampler *s, const float *x, size_t k)
{
	float *heap = s->kept_x;
	size_t n = (size_t)s->n_vocab;
	for (size_t i = 0; i < k; i++)
		heap[i] = -INFINITY; /* a heap already */
	for (size_t i = 0; (i = skip_below(x, i, n, heap[0])) < n; i++)
		if (x[i] > heap[0]) {
			heap[0] = x[i];
			sift(heap, k);
		}
	return heap[0];
}

/* A logit that every weight from `weight` on is above, whatever is rounded on the way. */
static float logit_below(float max, double weight)
{
	double x = (double)max + log(weight);
	return isfinite(max) ? (float)(x - 1e-4 * (fabs((double)max) + 1)) : max;
}

/* Sets the weights of x[n] at a temperature, 0 for NaN; returns their sum. The largest logit
 * weighs 1, also when it is infinite. */
static double weigh(pal__sampler *s, const float *x, size_t n, float max, double temperature)
{
	double *w = s->weight, sum = 0;
	for (size_t i = 0; i < n; i++) {
		double e = exp_neg(((double)x[i] - (double)max) / temperature);
		w[i] = x[i] == max ? 1 : e;
	}
	for (size_t i = 0; i < n; i++)
		sum += w[i];
	return sum;
}

static const float *logits_of_kept(pal__sampler *s, const float *x, size_t n)
{
	for (size_t i = 0; i < n; i++)
		s->kept_x[i] = x[s->kept[i].id];
	return s->kept_x;
}

static int32_t draw(const pal__sampler *s, bool all, size_t n, double sum, uint64_t bits)
{
	double target = (double)(bits >> 11) * 0x1p-53 * sum, got = 0;
	size_t at = 0;
	for (size_t i = 0; i < n && !(got > target); i++) {
		if (s->weight[i] > 0)
			at = i; /* rounding may leave target just above the last sum */
		got += s->weight[i];
	}
	return all ? (int32_t)at : s->kept[at].id;
}

/* --- sampling ------------------------------------------------------------- */

static const float *penalise(pal__sampler *s, const float *logits, const int32_t *log,
			     int64_t n_log)
{
	int64_t from = n_log > s->params.repeat_last ? n_log - s->params.repeat_last : 0;
	float by = s->params.repeat_penalty;
	if (by == 1 || from == n_log)
		return logits;
	memcpy(s->x, logits, (size_t)s->n_vocab * sizeof *s->x);
	for (int64_t i = from; i < n_log; i++) {
		int32_t id = log[i];
		if (id < 0 || id >= s->n_vocab || s->seen[id])
			continue;
		s->seen[id] = 1;
		s->x[id] = s->x[id] > 0 ? s->x[id] / by : s->x[id] * by;
	}
	for (int64_t i = from; i < n_log; i++)
		if (log[i] >= 0 && log[i] < s->n_vocab)
			s->seen[log[i]] = 0;
	return s->x;
}

/* What is left by the filters: n tokens, with logits x. */
struct left {
	bool all; /* the vocabulary; else s->kept, best first if it is sorted */
	bool sorted;
	const float *x;
	size_t n;
};

static void keep(pal__sampler *s, struct left *l, const float *x, float from, bool sorted)
{
	size_t n = collect(s, x, from);
	if (sorted)
		sort(s, n);
	*l = (struct left){.sorted = sorted, .x = logits_of_kept(s, x, n), .n = n};
}

static void top_k(pal__sampler *s, struct left *l, const float *x, size_t k)
{
	/* The heap of many is slower than sorting all. */
	keep(s, l, x, k < l->n / 16 ? kth_largest(s, x, k) : -INFINITY, true);
	l->n = l->n < k ? l->n : k;
}

/* The fewest best that weigh `wanted` of the sum. Those lighter than an n-th of what may be
 * missing cannot be among them, as together they weigh less than that. */
static void top_p(pal__sampler *s, struct left *l, const float *x, float max)
{
	double sum = weigh(s, l->x, l->n, max, 1), wanted = (double)s->params.top_p * sum, got = 0;
	if (!l->sorted) {
		keep(s, l, x, logit_below(max, (sum - wanted) / (double)l->n), true);
		weigh(s, l->x, l->n, max, 1);
	}
	size_t n = 0;
	do
		got += s->weight[n++];
	while (n < l->n && got < wanted);
	l->n = n;
}

static void min_p(pal__sampler *s, struct left *l, const float *x, float max)
{
	double min = (double)s->params.min_p;
	if (l->all)
		keep(s, l, x, logit_below(max, min), false);
	weigh(s, l->x, l->n, max, 1);
	size_t n = 0;
	for (size_t i = 0; i < l->n; i++) {
		s->kept[n] = s->kept[i];
		s->kept_x[n] = s->kept_x[i];
		n += s->weight[i] >= min;
	}
	l->n = n;
}

int32_t pal__sample(pal__sampler *s, const float *logits, const int32_t *log, int64_t n_log)
{
	const pal_sampling *p = &s->params;
	const float *x = penalise(s, logits, log, n_log);
	struct left l = {.all = true, .x = x, .n = (size_t)s->n_vocab};
	int32_t best = pal__largest(x, l.n);
	float max = x[best];
	if (p->temperature == 0 || max != max)
		return best;
	if (p->top_k > 0 && p->top_k < s->n_vocab)
		top_k(s, &l, x, (size_t)p->top_k);
	if (p->top_p < 1)
		top_p(s, &l, x, max);
	if (p->min_p > 0)
		min_p(s, &l, x, max);
	double sum = weigh(s, l.x, l.n, max, (double)p->temperature);
	return draw(s, l.all, l.n, sum, pal__random(p->seed, (uint64_t)n_log));
}
