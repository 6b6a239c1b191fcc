/* Hyper-parameters: what a model file says of its shape, checked.
 *
 * After pal__hparams_read every field is inside its limits, products of two of them fit
 * an int64_t, and combinations that no code path handles have been refused by name.
 */
#ifndef PAL_MODEL_HPARAMS_H
#define PAL_MODEL_HPARAMS_H

#include "model/gguf.h"

#define PAL__MAX_LAYERS 1024
#define PAL__MAX_EMBD (1 << 17) /* n_embd, n_heads * head_dim */
#define PAL__MAX_FF (1 << 20)
#define PAL__MAX_HEADS 1024
#define PAL__MAX_HEAD_DIM 1024 /* memory/kv.h's, too */

typedef enum { PAL__QWEN3, PAL__QWEN2, PAL__LLAMA, PAL__GEMMA3 } pal__arch;

/* Rotary positions of one kind of layer: angle of pair i at position p = p * freq[i]. */
typedef struct {
	double freq[PAL__MAX_HEAD_DIM / 2]; /* radians a position */
	double scale;                       /* of the cosines and sines (YaRN) */
} pal__rope;

typedef struct {
	pal__arch arch;
	char arch_name[16];
	size_t n_vocab, n_layers, n_embd, n_heads, n_kv_heads, head_dim, n_ff;
	size_t n_rot; /* leading dimensions of a head that are rotated, even */
	int64_t n_ctx_train;
	float rms_eps;
	float embd_scale; /* of the embedding's rows */
	float attn_scale; /* of the scores */
	float softcap;    /* logits = softcap tanh(logits / softcap); 0: not */
	/* Sliding layers see the last `window` positions; layer l slides when window > 0 and
	 * l % window_every != window_every - 1. */
	int64_t window;
	size_t window_every;
	pal__rope rope, rope_sliding; /* of full and of sliding layers */
} pal__hparams;

/* n_vocab is that of the tokenizer. Errors: PAL_EFORMAT, PAL_EUNSUPPORTED, PAL_ELIMIT. */
pal_status pal__hparams_read(const pal__gguf *g, size_t n_vocab, pal__hparams *out, pal_error *err);

static inline bool pal__layer_slides(const pal__hparams *h, size_t layer)
{
	return h->window && layer % h->window_every != h->window_every - 1;
}

/* cos and sin of every pair at position pos: [n_rot / 2] each. */
void pal__rope_at(const pal__rope *r, size_t n_rot, int64_t pos, float *cos, float *sin);

#endif
