/* Fits the projection of a side-car: from the state at layer m's input to K and V of the layers
 * from m on, by ridge regression over text that streams through the model; or from the state of a
 * proposer, another model with the same vocabulary, to K and V of all layers.
 *
 * Invariants:
 *  - The model sees text as restoration will show it: windows of some sinks and neighbouring
 *    tokens, of which those with little left context are not counted.
 *  - Every tenth batch is held out: lambda, m and all errors come from there.
 *  - Memory is fixed before the first token, PAL__FIT_MEMORY at most for the sums.
 *  - The result depends on model, text and options, not on the number of threads.
 */
#ifndef PAL_RESTORE_FIT_H
#define PAL_RESTORE_FIT_H

#include "restore/sidecar.h"

#define PAL__FIT_MEMORY ((size_t)1 << 30) /* bytes of sums */
#define PAL__FIT_SINKS 4                  /* tokens of a window; docs/formats/sidecar.md */
#define PAL__FIT_LEFT 64                  /* tokens behind them that are not counted */
#define PAL__FIT_WINDOW 256               /* all of a window */

typedef struct pal__fit pal__fit;

/* Sets ids[n] to the next token ids; *got: how many, 0 at the end. */
typedef pal_status (*pal__fit_next)(void *user, int32_t *ids, size_t n, size_t *got,
				    pal_error *err);

typedef struct {
	uint64_t tokens;         /* to read at most */
	pal_model *proposer;     /* or NULL */
	size_t layer;            /* m, 1 to n_layers - 1, or to the proposer's n_layers, which is
				  * its last layer's output; 0: choose it, of a proposer among its
				  * last layer's input and output */
	double threshold;        /* the most that 1 - R2 of K may be in layers that select */
	pal__heads first, later; /* that select */
	pal__fit_next next;
	bool (*progress)(void *user, uint64_t tokens); /* after every batch; false: stop; or NULL */
	/* Each m that was tried as if it had been chosen: fit->chosen is it, and weights and bias
	 * are its projection. The chosen one comes last. Or NULL. */
	pal_status (*each)(void *user, const pal__fit *fit, pal_error *err);
	void *user; /* of all three */
} pal__fit_options;

typedef struct {
	float k, v;    /* 1 - R2 on held-out text */
	double lambda; /* relative to the mean square of the state */
} pal__fit_error;

struct pal__fit {
	size_t n_layers;
	uint64_t tokens, rows, held; /* tokens read; rows that were fitted, and held out */
	bool separate;               /* there is a proposer */
	size_t n_m, *m;              /* [n_m] those that were tried, ascending */
	pal__fit_error *errors;      /* [n_m][n_layers]; of layers that are not projected: zeros */
	size_t chosen;               /* index into m */
	bool good;                   /* whether it is below the threshold */
	float *weights;              /* [n_layers - from][2 n_kv][values of a state] */
	float *bias;                 /* [n_layers - from][2 n_kv] */
};

/* The first layer that is projected with m number i. */
static inline size_t pal__fit_from(const pal__fit *f, size_t i)
{
	return f->separate ? 0 : f->m[i];
}

/* Errors: PAL_EINVAL (too little text; a layer that is none; a model without weights, or with one
 * layer; a proposer with other tokens), PAL_ELIMIT (too large for PAL__FIT_MEMORY), PAL_ENOMEM,
 * PAL_ECANCELLED, those of next and each. */
pal_status pal__fit_run(pal_model *model, const pal__fit_options *options, pal__fit *out,
			pal_error *err);
void pal__fit_free(pal__fit *f); /* fine on a zeroed struct */

/* Writes it as a side-car. Errors: those of pal__sidecar_write. */
pal_status pal__fit_write(const pal__fit *f, const pal_model *model,
			  const pal__fit_options *options, const char *path, pal_error *err);

#endif
