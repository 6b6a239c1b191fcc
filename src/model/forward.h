/* The forward pass: tokens at positions to logits, over the sessions' K/V.
 *
 * A batch is a list of rows, each a token at a position of some session's K/V. Rows of one
 * session come in ascending positions without gaps, after those already stored. Logits of a
 * row depend on the weights, that session's tokens and its far rows alone (contract C2): every
 * step computes a row on its own, or by kernels that keep rows apart.
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

typedef struct pal__scratch {
	int n_rows;               /* capacity */
	float *x, *y;             /* [n][n_embd]: the residual stream; a layer's input or output */
	float *q, *k, *v, *mixed; /* [n][heads * head_dim] */
	float *q_far;             /* [n][n_heads * head_dim]: q as the far rows see it */
	float *gate, *up;         /* [n][n_ff] */
	float *rope[3];   /* [n][n_rot]: cos and sin, of full and sliding layers; for far rows */
	void *panels;     /* activations */
	uint8_t *workers; /* per thread: attention's running sums */
	size_t worker_bytes;
	/* Where logits that go to many places are made first, [n_staged][n_vocab]; or NULL. */
	float *staged;
	int n_staged;
	/* Not NULL: it has no memory, but stands for the batcher's (model/batcher.h). */
	struct pal__batcher *batcher;
	uint64_t served;       /* rows that the batcher has computed for it */
	bool awaited, waiting; /* of a member: others wait for it; it waits for its pass */
	struct pal__scratch *next;
} pal__scratch;

/* Looks into a forward pass, and can make it stop early. */
typedef struct {
	/* Called on the calling thread for each layer, when s->x has the layer's input [n][n_embd]
	 * and s->q, s->k and s->v the bare products: before bias, norm and rotation. */
	void (*at)(void *user, size_t layer, const pal__scratch *s, int n); /* or NULL */
	void *user;
	size_t n_layers; /* 0: all. Else only the first ones are run, `at` is called for layer
			  * n_layers, too, with x alone, and the output head reads that x */
} pal__tap;

/* Bytes of the arena for batches of up to n_rows rows; false: they do not fit a size_t. */
bool pal__scratch_need(const pal_model *m, int n_rows, size_t *bytes);
void pal__scratch_init(pal__scratch *s, const pal_model *m, int n_rows, pal__arena *arena);

/* n: 1 to the scratch's capacity. Rows of one K/V touch at most its shape's `piece` blocks. tap:
 * or NULL. Afterwards s->x starts with the last residual streams [wanted][n_embd], before the
 * output norm, of the rows whose logits were wanted, in their order. */
void pal__forward(pal_model *m, pal__scratch *s, const pal__row *rows, int n, const pal__tap *tap);

/* The scratch to work in by hand: s itself, or the batcher's, which nobody else uses until
 * pal__scratch_leave. In between no pass may be asked for. */
pal__scratch *pal__scratch_enter(pal__scratch *s);
void pal__scratch_leave(pal__scratch *s);

/* The bare products s->k and s->v of a layer whose input of n rows is in s->x, to the bit as
 * pal__forward makes them. Changes s->y. */
void pal__keys_values(pal_model *m, pal__scratch *s, size_t layer, int n);

/* What attention does to a bare product of layer `layer` before it rotates it: bias and norm. x:
 * [head_dim] of head `head` of q, of k, or of v. */
typedef enum { PAL__Q, PAL__K, PAL__V } pal__part;
void pal__finish_part(const pal_model *m, size_t layer, pal__part part, size_t head, float *x);

#endif
