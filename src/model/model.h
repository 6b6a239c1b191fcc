/* A loaded model: hyper-parameters, weights as tiles, tokenizer and thread pool.
 *
 * Invariants:
 *  - Immutable once open, but for the pool, whose loops take turns; sessions share it.
 *  - Nothing points into the model file: it is unmapped when pal_model_open returns. Tiles may
 *    be a mapping of a file of their own: pal__model_intact before what was computed is used.
 *  - Norms and biases are finite. Every tensor of the file has a place here; a file with
 *    one that has not was refused.
 */
#ifndef PAL_MODEL_MODEL_H
#define PAL_MODEL_MODEL_H

#include "base/pool.h"
#include "kernels/kernels.h"
#include "model/hparams.h"
#include "model/tiles.h"
#include "text/tokenizer.h"

typedef struct {
	pal__matrix wq, wk, wv, wo; /* q, k: rows in pairs' order for llama, see weights.c */
	pal__matrix gate, up, down;
	float *attn_norm, *ffn_norm; /* [n_embd] */
	float *q_norm, *k_norm;      /* [head_dim], or NULL */
	float *bq, *bk, *bv;         /* [n_heads or n_kv_heads * head_dim], or NULL */
	float *post_attn, *post_ffn; /* [n_embd], or NULL */
} pal__layer;

struct pal_model {
	pal__hparams h;
	const pal__kernels *kernels;
	pal__pool *pool;
	bool shares_pool; /* it is another model's */
	pal__tokenizer *tokenizer;
	uint8_t *tiles; /* [tiles_bytes] of all matrices; NULL: mapped, or no weights */
	size_t tiles_bytes;
	pal__tiles cached;        /* where they are mapped; zeros: nowhere */
	char *cache_note;         /* or NULL */
	pal__matrix embd, output; /* output.data is embd.data when tied */
	bool tied, no_weights;    /* no_weights: matrices have shapes, but no data */
	float *output_norm;       /* [n_embd] */
	pal__layer *layers;       /* [h.n_layers] */
	char *name, *path;
	const char *chat_family; /* of tokenizer.chat_template; NULL: none or unknown */
	bool has_chat_template;
	uint64_t hash, weight_bytes, n_params;
};

const pal__tokenizer *pal__model_tokenizer(const pal_model *m);

/* As pal_model_open, with the threads and the instruction set of `host`, which is closed last: two
 * pools would fight for the cores. */
pal_status pal__model_open_beside(const char *path, const pal_model *host, pal_model **out,
				  pal_error *err);

/* PAL_EIO when the file that the tiles are mapped from has been cut short. */
pal_status pal__model_intact(const pal_model *m, pal_error *err);

/* Reads every tensor of g into m (h, kernels and pool are set); on failure what was read is
 * freed by pal__weights_free. Of the options: no_weights, cache_dir and progress. */
pal_status pal__weights_load(pal_model *m, const pal__gguf *g, const pal_model_options *o,
			     pal_error *err);
void pal__weights_free(pal_model *m);

#endif
