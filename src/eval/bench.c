#include "eval/bench.h"

#include <time.h>

#include "base/checked.h"
#include "base/mem.h"

#define WARM_UP 16 /* tokens computed and forgotten first, to touch the weights */

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

struct bench {
	pal_session *s;
	int32_t n_vocab;
	int32_t *ids;  /* [n_prefill, at least the largest L] */
	float *logits; /* [largest L][n_vocab] */
	pal_progress progress;
	void *user;
	uint64_t done, total; /* steps for progress */
};

static void advance(struct bench *b, uint64_t steps)
{
	b->done += steps;
	if (b->progress)
		b->progress(b->user, b->done, b->total);
}

static int32_t argmax(const float *x, int32_t n)
{
	int32_t best = 0;
	for (int32_t i = 1; i < n; i++)
		if (x[i] > x[best])
			best = i;
	return best;
}

static bool on_prefill(void *user, size_t done, size_t total)
{
	struct bench *b = user;
	(void)total;
	if (b->progress)
		b->progress(b->user, b->done + done, b->total);
	return true;
}

static pal_status prefill(struct bench *b, pal__bench *r, pal_error *err)
{
	size_t n = (size_t)r->n_prefill;
	pal_status status =
		pal_session_append(b->s, b->ids, n < WARM_UP ? n : WARM_UP, NULL, NULL, NULL, err);
	if (!status)
		status = pal_session_truncate(b->s, 0, err);
	if (status)
		return status;
	double start = now();
	status = pal_session_append(b->s, b->ids, n, NULL, on_prefill, b, err);
	r->prefill_s = now() - start;
	advance(b, n);
	return status;
}

static pal_status decode(struct bench *b, pal__bench *r, pal_error *err)
{
	int32_t token = 5;
	double start = now();
	for (int64_t i = 0; i < r->n_decode; i++) {
		pal_status status = pal_session_append(b->s, &token, 1, NULL, NULL, NULL, err);
		if (status)
			return status;
		token = argmax(pal_session_logits(b->s), b->n_vocab);
		advance(b, 1);
	}
	r->decode_s = now() - start;
	return PAL_OK;
}

static pal_status verify(struct bench *b, pal__bench *r, pal_error *err)
{
	int64_t length = pal_session_length(b->s);
	for (size_t i = 0; i < PAL__BENCH_VERIFY; i++) {
		double best = 0;
		for (int round = 0; round < PAL__BENCH_ROUNDS; round++) {
			double start = now();
			pal_status status = pal_session_append(b->s, b->ids, (size_t)1 << i,
							       b->logits, NULL, NULL, err);
			double t = now() - start;
			if (!status)
				status = pal_session_truncate(b->s, length, err);
			if (status)
				return status;
			best = round == 0 || t < best ? t : best;
			advance(b, 1);
		}
		r->verify_ms[i] = best * 1e3;
	}
	return PAL_OK;
}

int64_t pal__bench_context(int64_t n_prefill, int64_t n_decode)
{
	return n_prefill + n_decode + PAL__BENCH_SPARE;
}

pal_status pal__bench_run(pal_session *s, int32_t n_vocab, int64_t n_prefill, int64_t n_decode,
			  pal_progress progress, void *user, pal__bench *out, pal_error *err)
{
	const int64_t largest = 1 << (PAL__BENCH_VERIFY - 1);
	int64_t n_ids = n_prefill > largest ? n_prefill : largest;
	pal__bench r = {.n_prefill = n_prefill, .n_decode = n_decode};
	size_t ids_bytes, logit_bytes;
	if (!pal__mul_size((size_t)n_ids, sizeof(int32_t), &ids_bytes) ||
	    !pal__mul_size((size_t)n_vocab * sizeof(float), (size_t)largest, &logit_bytes))
		return pal__fail_memory(err, "the benchmark", SIZE_MAX);
	struct bench b = {.s = s,
			  .n_vocab = n_vocab,
			  .ids = pal__alloc(ids_bytes),
			  .logits = pal__alloc(logit_bytes),
			  .progress = progress,
			  .user = user,
			  .total = (uint64_t)(n_prefill + n_decode) +
				   PAL__BENCH_VERIFY * PAL__BENCH_ROUNDS};
	pal_status status = PAL_OK;
	if (!b.ids || !b.logits)
		status = pal__fail_memory(err, "the benchmark", ids_bytes + logit_bytes);
	/* The peer's ids: spread over the vocabulary, past the byte tokens. */
	int32_t range = n_vocab > 300 ? n_vocab - 300 : n_vocab;
	for (int64_t i = 0; i < n_ids && !status; i++)
		b.ids[i] = (int32_t)((300 + i * 7919) % range);
	if (!status)
		status = prefill(&b, &r, err);
	if (!status)
		status = decode(&b, &r, err);
	if (!status)
		status = verify(&b, &r, err);
	pal__free(b.ids);
	pal__free(b.logits);
	if (!status)
		*out = r;
	return status;
}
