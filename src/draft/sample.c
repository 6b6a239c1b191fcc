#include "draft/sample.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/checked.h"
#include "base/mem.h"

struct candidate {
	double weight; /* exp(x - largest x), or that at the temperature */
	float x;       /* logit after the penalty; never NaN */
	int32_t id;
};

struct pal__sampler {
	pal_sampling params;
	int32_t n_vocab;
	float *x;              /* [n_vocab] penalised logits */
	uint8_t *seen;         /* [n_vocab] 1: the penalty was applied; all 0 between calls */
	struct candidate *all; /* [n_vocab] */
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
	if (!pal__mul_size(n, sizeof(struct candidate) + sizeof(float) + 1, &size))
		return pal__fail_memory(err, "the sampler", SIZE_MAX);
	pal__sampler *s = pal__calloc(1, sizeof *s);
	if (s) {
		*s = (pal__sampler){.params = *params, .n_vocab = n_vocab};
		s->x = pal__calloc(n, sizeof *s->x);
		s->seen = pal__calloc(n, 1);
		s->all = pal__calloc(n, sizeof *s->all);
	}
	if (!s || !s->x || !s->seen || !s->all) {
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
	pal__free(s->all);
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
double pal__exp_neg(double x)
{
	if (!(x >= -708))
		return 0;
	int64_t n = (int64_t)(x * 1.44269504088896338700 - 0.5);
	double k = (double)n;
	double r = (x - k * 6.93147180369123816490e-01) - k * 1.90821492927058770002e-10;
	double p = 1.0 / 6227020800;
	static const double inverse[] = {1.0 / 479001600,
					 1.0 / 39916800,
					 1.0 / 3628800,
					 1.0 / 362880,
					 1.0 / 40320,
					 1.0 / 5040,
					 1.0 / 720,
					 1.0 / 120,
					 1.0 / 24,
					 1.0 / 6,
					 0.5,
					 1,
					 1};
	for (size_t i = 0; i < sizeof inverse / sizeof *inverse; i++)
		p = p * r + inverse[i];
	uint64_t bits = (uint64_t)(n + 1023) << 52;
	double scale;
	memcpy(&scale, &bits, sizeof scale);
	return p * scale;
}

/* --- selection ------------------------------------------------------------ */

static bool better(const struct candidate *a, const struct candidate *b)
{
	return a->x > b->x || (a->x == b->x && a->id < b->id);
}

/* Moves heap[at] down to its place in heap[n], whose root is the best candidate, or the
 * worst one. */
static void sift(struct candidate *heap, size_t n, size_t at, bool best)
{
	struct candidate moved = heap[at];
	for (size_t child; (child = 2 * at + 1) < n; at = child) {
		if (child + 1 < n && better(&heap[child + 1], &heap[child]) == best)
			child++;
		if (better(&heap[child], &moved) != best)
			break;
		heap[at] = heap[child];
	}
	heap[at] = moved;
}

static void heapify(struct candidate *heap, size_t n, bool best)
{
	for (size_t i = n / 2; i-- > 0;)
		sift(heap, n, i, best);
}

/* Every id whose logit is a number, in ascending order. Returns how many. */
static size_t collect(pal__sampler *s, const float *x)
{
	size_t n = 0;
	for (int32_t id = 0; id < s->n_vocab; id++)
		if (x[id] == x[id])
			s->all[n++] = (struct candidate){.x = x[id], .id = id};
	return n;
}

/* The k best, best first: a heap of the best so far with the worst of them on top, which
 * most logits lose to at once. */
static size_t collect_top(pal__sampler *s, const float *x, size_t k)
{
	struct candidate *heap = s->all;
	size_t n = 0;
	for (int32_t id = 0; id < s->n_vocab; id++) {
		struct candidate c = {.x = x[id], .id = id};
		if (x[id] != x[id])
			continue;
		if (n < k) {
			heap[n++] = c;
			if (n == k)
				heapify(heap, k, false);
		} else if (better(&c, &heap[0])) {
			heap[0] = c;
			sift(heap, k, 0, false);
		}
	}
	if (n < k)
		heapify(heap, n, false);
	for (size_t end = n; end > 1; end--) {
		struct candidate worst = heap[0];
		heap[0] = heap[end - 1];
		heap[end - 1] = worst;
		sift(heap, end - 1, 0, false);
	}
	return n;
}

/* Sets the weights at a temperature; returns their sum. The largest logit weighs 1, also
 * when it is infinite. */
static double weigh(struct candidate *c, size_t n, double temperature)
{
	double sum = 0, max = -INFINITY;
	for (size_t i = 0; i < n; i++)
		max = (double)c[i].x > max ? (double)c[i].x : max;
	for (size_t i = 0; i < n; i++) {
		double x = (double)c[i].x;
		c[i].weight = x == max ? 1 : pal__exp_neg((x - max) / temperature);
		sum += c[i].weight;
	}
	return sum;
}

static size_t keep_above(struct candidate *c, size_t n, double weight)
{
	size_t kept = 0;
	for (size_t i = 0; i < n; i++)
		if (c[i].weight >= weight)
			c[kept++] = c[i];
	return kept;
}

/* The fewest best candidates that weigh `wanted` of `sum`, best first. Those lighter than
 * an n-th of what may be missing cannot be among them (together they weigh less than
 * that), which leaves few; the rest come off a heap one by one until the weight is
 * reached, so that nothing is sorted that is not needed. */
static size_t keep_top_p(struct candidate *c, size_t n, double top_p, double sum)
{
	double got = 0, wanted = top_p * sum;
	n = keep_above(c, n, (sum - wanted) / (double)n);
	heapify(c, n, true);
	size_t left = n;
	do {
		struct candidate best = c[0];
		c[0] = c[--left];
		sift(c, left, 0, true);
		c[left] = best;
		got += best.weight;
	} while (left && got < wanted);
	/* The chosen lie at the end, worst first: turn the whole around. */
	for (size_t i = 0, j = n - 1; i < j; i++, j--) {
		struct candidate swap = c[i];
		c[i] = c[j];
		c[j] = swap;
	}
	return n - left;
}

static int32_t draw(const struct candidate *c, size_t n, double sum, uint64_t bits)
{
	double target = (double)(bits >> 11) * 0x1p-53 * sum, got = 0;
	int32_t id = c[0].id;
	for (size_t i = 0; i < n; i++) {
		if (c[i].weight > 0)
			id = c[i].id; /* rounding may leave target just above the last sum */
		got += c[i].weight;
		if (got > target)
			break;
	}
	return id;
}

/* --- sampling ------------------------------------------------------------- */

static int32_t largest(const float *x, int32_t n)
{
	int32_t best = 0;
	while (best < n && x[best] != x[best])
		best++;
	if (best == n)
		return 0;
	for (int32_t i = best + 1; i < n; i++)
		if (x[i] > x[best])
			best = i;
	return best;
}

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

int32_t pal__sample(pal__sampler *s, const float *logits, const int32_t *log, int64_t n_log)
{
	const pal_sampling *p = &s->params;
	const float *x = penalise(s, logits, log, n_log);
	if (p->temperature == 0)
		return largest(x, s->n_vocab);
	bool top_k = p->top_k > 0 && p->top_k < s->n_vocab;
	struct candidate *c = s->all;
	size_t n = top_k ? collect_top(s, x, (size_t)p->top_k) : collect(s, x);
	if (!n)
		return 0;
	if (p->top_p < 1)
		n = keep_top_p(c, n, p->top_p, weigh(c, n, 1));
	else if (p->min_p > 0)
		weigh(c, n, 1);
	if (p->min_p > 0)
		n = keep_above(c, n, p->min_p);
	double sum = weigh(c, n, p->temperature);
	return draw(c, n, sum, pal__random(p->seed, (uint64_t)n_log));
}
