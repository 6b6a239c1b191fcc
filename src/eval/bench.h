/* The benchmark of one model: prefill, decode, and verify(L), by the same procedure
 * and token ids as the peer's, so that their figures can be put side by side; prefill and
 * decode at several depths; and the speed at which this machine's memory is read.
 */
#ifndef PAL_EVAL_BENCH_H
#define PAL_EVAL_BENCH_H

#include "base/pool.h"
#include "base/status.h"

#define PAL__BENCH_VERIFY 32 /* the largest L */
#define PAL__BENCH_ROUNDS 7  /* verify(L) is the best of so many */
#define PAL__BENCH_SPARE 64  /* positions beyond prefill and decode, for verify */
#define PAL__BENCH_LIST 32   /* depths, or L's, at most */

typedef struct {
	size_t n;                       /* 0 to PAL__BENCH_LIST */
	int64_t items[PAL__BENCH_LIST]; /* [n] ascending, 1 or more */
} pal__bench_list;

typedef struct {
	int64_t n_prefill, n_decode; /* 1 or more */
	pal__bench_list verify;      /* L's, up to PAL__BENCH_VERIFY */
	pal__bench_list depths;      /* further lengths of the prompt */
} pal__bench_plan;

/* A prompt and n_decode tokens after it. */
typedef struct {
	double prefill_s, decode_s; /* seconds for all of them */
	double restore_s;           /* before the first token, what is brought back */
	double kv_bytes;            /* of K/V that a decoded token sees, on average */
	double fill_s; /* to fill every slot with chunks from all over the log, the best of
			* PAL__BENCH_ROUNDS; 0: none can be restored. Of `depths` only */
	int slots;
} pal__bench_depth;

typedef struct {
	pal__bench_depth first;                   /* after n_prefill */
	pal__bench_depth depths[PAL__BENCH_LIST]; /* [plan's depths] */
	double verify_ms[PAL__BENCH_LIST]; /* [plan's L's] one forward of L tokens, logits for each
					    */
} pal__bench;

/* Positions that a session needs for the benchmark. */
int64_t pal__bench_context(const pal__bench_plan *plan);

/* Measures an empty session of n_vocab logits. What happens goes to progress, if not NULL:
 * prompt tokens, decoded tokens and rounds done of all. Errors: those of
 * pal_session_append, PAL_ENOMEM. */
pal_status pal__bench_run(pal_session *s, int32_t n_vocab, const pal__bench_plan *plan,
			  pal_progress progress, void *user, pal__bench *out, pal_error *err);

/* Bytes a second that the pool's threads read from a buffer of 512 MB, far more than most
 * caches hold: the best of some passes, in about 0.3 s. Errors: PAL_ENOMEM. */
pal_status pal__bench_bandwidth(pal__pool *pool, double *bytes_s, pal_error *err);

/* Bytes of weights that the forward pass of one token reads. */
uint64_t pal__bench_token_bytes(const pal_model *m);

#endif
