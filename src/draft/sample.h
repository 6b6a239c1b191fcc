/* Sampling: logits to one token id.
 *
 * The filters, in this order, each over what the one before it left:
 *  1. the repetition penalty, once for every different id in the last repeat_last
 *     tokens of the log: positive logits are divided, others multiplied by it;
 *  2. top-k: the k largest logits, the smaller id first among equals;
 *  3. top-p: the fewest most probable tokens whose probabilities sum to top_p or more;
 *  4. min-p: tokens at least min_p times as probable as the most probable one;
 *  5. temperature: logits are divided by it, and one token is drawn.
 * Sums run from the best token on after 2 or 3, and in the order of ids before.
 * Probabilities in 3 and 4 are those of temperature 1. With temperature 0 the largest
 * penalised logit wins, the smaller id among equals.
 *
 * Invariants:
 *  - The token is a pure function of the logits' bits, the log and the parameters, the
 *    same on every machine: double arithmetic in a fixed order, and an exp of our own.
 *  - The random number for token i of a log is a pure function of (seed, i): what was
 *    drawn before, or whether anything was, does not matter.
 *  - A NaN is never chosen, unless all logits are NaN: then id 0 is.
 *  - Nothing is sorted that does not have to be: of 150,000 logits, greedy and top-k look at
 *    each twice, and top-p sorts those that may be among the wanted.
 *  - A sampler allocates when it is made and never again. One thread at a time.
 */
#ifndef PAL_DRAFT_SAMPLE_H
#define PAL_DRAFT_SAMPLE_H

#include <stdint.h>

#include "base/status.h"

typedef struct pal__sampler pal__sampler;

/* n_vocab: 1 or more logits a call. Errors: PAL_EINVAL (a parameter outside its range,
 * naming both), PAL_ENOMEM. */
pal_status pal__sampler_new(int32_t n_vocab, const pal_sampling *params, pal__sampler **out,
			    pal_error *err);
void pal__sampler_free(pal__sampler *s); /* NULL is fine */

/* Token number n_log of log[n_log]. logits: [n_vocab] float. */
int32_t pal__sample(pal__sampler *s, const float *logits, const int32_t *log, int64_t n_log);

/* The id of the largest of x[n], the smallest among equals; 0 if all are NaN: greedy's choice. */
int32_t pal__largest(const float *x, size_t n);

/* 64 random bits for token i under seed. */
uint64_t pal__random(uint64_t seed, uint64_t i);

/* e to the x for x <= 0, relative error below 1e-15; 0 below -708. */
double pal__exp_neg(double x);

#endif
