/* The forward pass: tokens at positions to logits, over the sessions' K/V.
 *
 * A batch is a list of rows, each a token at a position of some session's K/V. Rows of one
 * session come in ascending positions without gaps, after those already stored. Logits of a
 * row depend on the weights and that session's tokens alone (contract C2): every step
 * computes a row on its own, or by kernels that keep rows apart.
 *
 * Nothing is allocated and nothing can fail: all memory is the scratch, sized at opening.
 */
#ifndef PAL_MODEL_FORWARD_H
#define PAL_MODEL_FORWARD_H

#include "memory/kv.h"
#include "model/model.h"

typedef struct {
	int32_t token; /* valid */
	int64_t pos;   /* below kv's n_ctx */
	pal__kv *kv;
	float *logits; /* [n_vocab] where they go, or NULL: not wanted */
} pal__row;

typedef struct {
	int n_rows;               /* capacity */
	float *x, *y;             /* [n][n_embd]: the residual stream; a layer's input or output */
	float *q, *k, *v, *mixed; /* [n][heads * head_dim] */
	float *gate, *up;         /* [n][n_ff] */
	float *rope[2];           /* [n][n_rot]: cos and sin, of full and sliding layers */
	void *panels;             /* activations */
	uint8_t *workers;         /* per thread: attention's running sums */
	size_t worker_bytes;
} pal__scratch;

/* Bytes of the arena for batches of up to n_rows rows; false: they do not fit a size_t. */
bool pal__scratch_need(const pal_model *m, int n_rows, size_t *bytes);
void pal__scratch_init(pal__scratch *s, const pal_model *m, int n_rows, pal__arena *arena);

/* n: 1 to the scratch's capacity. */
void pal__forward(pal_model *m, pal__scratch *s, const pal__row *rows, int n);

#endif
