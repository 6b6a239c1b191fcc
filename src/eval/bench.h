/* The benchmark of one model: prefill, decode, and verify(L), by the same procedure
 * and token ids as the peer's, so that their figures can be put side by side.
 */
#ifndef PAL_EVAL_BENCH_H
#define PAL_EVAL_BENCH_H

#include "base/status.h"

#define PAL__BENCH_VERIFY 6 /* L = 1, 2, 4, 8, 16, 32 */
#define PAL__BENCH_ROUNDS 7 /* verify(L) is the best of so many */
#define PAL__BENCH_SPARE 64 /* positions beyond prefill and decode, for verify */

typedef struct {
	int64_t n_prefill, n_decode;
	double prefill_s, decode_s;          /* seconds for all of them */
	double verify_ms[PAL__BENCH_VERIFY]; /* one forward of L tokens, logits for each */
} pal__bench;

/* Positions that a session needs for the benchmark. */
int64_t pal__bench_context(int64_t n_prefill, int64_t n_decode);

/* Measures an empty session of n_vocab logits; n_prefill, n_decode: 1 or more. what
 * happens goes to progress, if not NULL: prompt tokens, decoded tokens and rounds done of
 * all. Errors: those of pal_session_append, PAL_ENOMEM. */
pal_status pal__bench_run(pal_session *s, int32_t n_vocab, int64_t n_prefill, int64_t n_decode,
			  pal_progress progress, void *user, pal__bench *out, pal_error *err);

#endif
