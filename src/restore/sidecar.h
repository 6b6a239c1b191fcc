/* The side-car of a model: what `pal fit` found out about it, a small GGUF file
 * (docs/formats/sidecar.md).
 *
 * Invariants:
 *  - It belongs to one model, by its hash; that of another model is refused. The states that it
 *    projects are that model's own, or those of one proposer, by its hash, too.
 *  - Layers below `from` have no projection, each of [from, n_layers) has one; from = n_layers:
 *    there is none. Of the model's own states from = m; of a proposer's from = 0.
 *  - Everything is finite and within the model's shape; heads are unique and in their lists'
 *    order of importance. A file that is damaged anywhere is refused.
 *  - Nothing points into the file: it is unmapped when pal__sidecar_open returns.
 */
#ifndef PAL_RESTORE_SIDECAR_H
#define PAL_RESTORE_SIDECAR_H

#include "restore/index.h"

typedef struct {
	pal__qhead heads[PAL__MAX_HEADS_SET];
	size_t n; /* at least 1 */
} pal__heads;

typedef struct {
	pal_model *proposer; /* whose states are projected, or NULL: the model itself */
	uint64_t proposer_hash;
	bool separate;         /* a proposer's states; without it nothing can be projected */
	size_t m;              /* the states are inputs of its layer m, or the output of its last */
	size_t from, n_layers; /* the layers that are projected */
	size_t n_embd, n_kv;   /* of the states; n_kv_heads * head_dim of the model */
	pal__matrix *weights;  /* [n_layers - from], 2 n_kv outputs: K, then V */
	float *bias;           /* [n_layers - from][2 n_kv] */
	float *ones;           /* [n_embd] */
	uint8_t *tiles;        /* [tiles_bytes] of all weights */
	size_t tiles_bytes;
	pal__heads first, later; /* that find chunks in the first round, and in later ones */
} pal__sidecar;

/* proposer: outlives the side-car; NULL: none is at hand. Errors: PAL_EIO, PAL_EFORMAT,
 * PAL_EUNSUPPORTED, PAL_ELIMIT, PAL_ENOMEM, and PAL_EINVAL for the side-car of another model or of
 * another proposer than the one given. */
pal_status pal__sidecar_open(const char *path, const pal_model *model, pal_model *proposer,
			     pal__sidecar *out, pal_error *err);
void pal__sidecar_close(pal__sidecar *s); /* fine on a zeroed struct */

/* What is to be written. */
typedef struct {
	const pal_model *proposer;      /* or NULL */
	size_t m;                       /* as in pal__sidecar; n: the layers that are projected */
	const float *const *weights;    /* [n] of [2 n_kv][n_embd] */
	const float *const *bias;       /* [n] of [2 n_kv] */
	const float *lambda;            /* [n], for the record */
	const float *error_k, *error_v; /* [n]: 1 - R2 on held-out text */
	const pal__heads *first, *later;
	uint64_t tokens; /* of the text it was fitted on */
} pal__sidecar_content;

/* Weights are written as F16, those of a layer that has larger ones as F32. Errors: PAL_ENOMEM,
 * PAL_EIO. */
pal_status pal__sidecar_write(const char *path, const pal_model *model,
			      const pal__sidecar_content *c, pal_error *err);

/* States as the projections want them: RMS-normalised, without a weight. x: [n][n_embd], changed
 * in place. */
void pal__project_norm(const pal__sidecar *s, const pal_model *model, float *x, size_t n);

/* K and V of n rows of layer `layer` >= from from such states. x: [n][n_embd]; out: [n][2 n_kv], K
 * then V, before bias, norm and rotation. The same bits for any number of threads and any
 * instruction set. */
void pal__project(const pal__sidecar *s, const pal_model *model, size_t layer, const float *x,
		  size_t n, float *out);

#endif
