#include "restore/sidecar.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "base/mem.h"
#include "kernels/half.h"
#include "model/gguf_write.h"

#define ARCHITECTURE "palimpsest-side"
#define VERSION 1
#define SUM_KEY "palimpsest.sum"
#define HEADS_OF_LAYER 1024 /* a head's number: layer * HEADS_OF_LAYER + head */
#define HALF_MAX 65504.0f

_Static_assert(PAL__MAX_HEADS <= HEADS_OF_LAYER, "heads have numbers");

static const char *tensor_name(char out[48], size_t layer, const char *rest)
{
	snprintf(out, 48, "project.%zu.%s", layer, rest);
	return out;
}

/* --- reading ------------------------------------------------------------------ */

/* The u64 of a key. *found, where not NULL: whether it is there; else it has to be. */
static pal_status read_u64(const pal__gguf *g, const char *key, uint64_t *out, bool *found,
			   pal_error *err)
{
	const pal__gguf_kv *kv = pal__gguf_find(g, key);
	if (found)
		*found = kv != NULL;
	if (!kv && found)
		return PAL_OK;
	if (!kv || kv->type != PAL__GGUF_U64)
		return pal__fail(err, PAL_EFORMAT, "%s: the u64 %s is missing", g->path, key);
	memcpy(out, kv->data, sizeof *out);
	return PAL_OK;
}

static pal_status check_model(const pal__gguf *g, const pal_model *model, pal_error *err)
{
	pal__str arch = {0};
	int64_t version = 0;
	pal_status s = pal__gguf_string(g, "general.architecture", true, &arch, err);
	if (s != PAL_OK)
		return s;
	if (arch.n != strlen(ARCHITECTURE) || memcmp(arch.s, ARCHITECTURE, arch.n))
		return pal__fail(err, PAL_EFORMAT,
				 "%s is no side-car: its architecture is %.*s, not " ARCHITECTURE,
				 g->path, (int)(arch.n < 64 ? arch.n : 64), arch.s);
	s = pal__gguf_int(g, "palimpsest.version", true, VERSION, VERSION, &version, err);
	if (s == PAL_OK)
		s = pal__gguf_check_sum(g, SUM_KEY, err);
	if (s != PAL_OK)
		return s;
	uint64_t hash = 0;
	s = read_u64(g, "palimpsest.model_hash", &hash, NULL, err);
	if (s == PAL_OK && hash != model->hash)
		return pal__fail(err, PAL_EINVAL,
				 "%s is the side-car of another model: of %016llx, but %s is "
				 "%016llx",
				 g->path, (unsigned long long)hash, model->path,
				 (unsigned long long)model->hash);
	return s;
}

/* The proposer that is given is the one of the side-car, by its hash. */
static pal_status check_proposer(const pal__sidecar *s, const pal__gguf *g,
				 const pal_model *proposer, pal_error *err)
{
	if (!s->separate)
		return pal__fail(err, PAL_EINVAL,
				 "%s projects the model's own states: it has no use for %s, the "
				 "proposer",
				 g->path, proposer->path);
	if (s->proposer_hash != proposer->hash)
		return pal__fail(err, PAL_EINVAL,
				 "%s was fitted with another proposer: with %016llx, but %s is "
				 "%016llx",
				 g->path, (unsigned long long)s->proposer_hash, proposer->path,
				 (unsigned long long)proposer->hash);
	return PAL_OK;
}

/* Whose states, and what they are: sets separate, proposer, m, n_embd and from. */
static pal_status read_states(pal__sidecar *s, const pal__gguf *g, const pal_model *model,
			      pal_model *proposer, pal_error *err)
{
	static const char layers[] = "palimpsest.proposer.layers",
			  embd[] = "palimpsest.proposer.embd";
	int64_t n = (int64_t)model->h.n_layers, e = (int64_t)model->h.n_embd, m = 0;
	int64_t least_n = 1, most_n = PAL__MAX_LAYERS, least_e = 1, most_e = PAL__MAX_EMBD;
	pal_status st =
		read_u64(g, "palimpsest.proposer.hash", &s->proposer_hash, &s->separate, err);
	if (st == PAL_OK && proposer)
		st = check_proposer(s, g, proposer, err);
	if (st == PAL_OK && !s->separate && (pal__gguf_find(g, layers) || pal__gguf_find(g, embd)))
		st = pal__fail(err, PAL_EFORMAT,
			       "%s: the proposer's shape is there without its hash", g->path);
	if (st == PAL_OK && proposer) {
		least_n = most_n = (int64_t)proposer->h.n_layers;
		least_e = most_e = (int64_t)proposer->h.n_embd;
	}
	if (st == PAL_OK && s->separate)
		st = pal__gguf_int(g, layers, true, least_n, most_n, &n, err);
	if (st == PAL_OK && s->separate)
		st = pal__gguf_int(g, embd, true, least_e, most_e, &e, err);
	if (st == PAL_OK)
		st = pal__gguf_int(g, "palimpsest.project.layer", true, 1, n, &m, err);
	s->proposer = proposer;
	s->m = (size_t)m;
	s->n_embd = (size_t)e;
	s->from = s->separate ? 0 : s->m;
	return st;
}

/* Whether a layer sees a sliding window only, in a model with others. */
static bool looks_near(const pal__hparams *h, size_t layer)
{
	return h->window && h->n_layers >= h->window_every && (layer + 1) % h->window_every != 0;
}

static pal_status check_heads(const pal__gguf *g, const char *key, const pal_model *model,
			      const int32_t *ids, size_t n, pal__heads *out, pal_error *err)
{
	if (n < 1 || n > PAL__MAX_HEADS_SET)
		return pal__fail(err, PAL_EFORMAT, "%s: %s has %zu heads: 1 to %d are possible",
				 g->path, key, n, PAL__MAX_HEADS_SET);
	out->n = n;
	for (size_t i = 0; i < n; i++) {
		size_t layer = (size_t)(ids[i] < 0 ? INT32_MAX : ids[i]) / HEADS_OF_LAYER;
		size_t head = (size_t)(ids[i] < 0 ? 0 : ids[i]) % HEADS_OF_LAYER;
		if (layer >= model->h.n_layers || head >= model->h.n_heads)
			return pal__fail(err, PAL_EFORMAT,
					 "%s: %s: %d is no head of a model of %zu layers with %zu "
					 "heads each",
					 g->path, key, ids[i], model->h.n_layers, model->h.n_heads);
		if (looks_near(&model->h, layer))
			return pal__fail(err, PAL_EFORMAT,
					 "%s: %s: head %d is of a layer with a sliding window, "
					 "which has forgotten what is to be found",
					 g->path, key, ids[i]);
		for (size_t k = 0; k < i; k++)
			if (ids[k] == ids[i])
				return pal__fail(err, PAL_EFORMAT, "%s: %s has %d twice", g->path,
						 key, ids[i]);
		out->heads[i] = (pal__qhead){(uint32_t)layer, (uint32_t)head};
	}
	return PAL_OK;
}

static pal_status read_heads(const pal__gguf *g, const char *key, const pal_model *model,
			     pal__heads *out, pal_error *err)
{
	int32_t *ids = NULL;
	size_t n = 0;
	pal_status s = pal__gguf_ints(g, key, true, &ids, &n, err);
	if (s == PAL_OK)
		s = check_heads(g, key, model, ids, n, out, err);
	pal__free(ids);
	return s;
}

static pal_status find_tensor(const pal__gguf *g, size_t layer, const char *rest, size_t cols,
			      size_t rows, const pal__gguf_tensor **out, pal_error *err)
{
	char name[48];
	const pal__gguf_tensor *t = pal__gguf_tensor_find(g, tensor_name(name, layer, rest));
	if (!t)
		return pal__fail(err, PAL_EFORMAT, "%s: tensor %s is missing", g->path, name);
	if (t->ne[0] != cols || t->ne[1] != rows || t->ne[2] != 1 || t->ne[3] != 1)
		return pal__fail(err, PAL_EFORMAT,
				 "%s: tensor %s has the shape [%llu, %llu, %llu, %llu], expected "
				 "[%zu, %zu]",
				 g->path, name, (unsigned long long)t->ne[0],
				 (unsigned long long)t->ne[1], (unsigned long long)t->ne[2],
				 (unsigned long long)t->ne[3], cols, rows);
	if (t->type != PAL__F32 && (t->type != PAL__F16 || rows == 1))
		return pal__fail(err, PAL_EUNSUPPORTED,
				 "%s: tensor %s: type %s is not supported (supported: F32%s)",
				 g->path, name, pal__type_find((uint32_t)t->type)->name,
				 rows == 1 ? "" : ", F16");
	for (size_t i = 0; i < rows * cols; i++) {
		uint16_t h;
		float f;
		if (t->type == PAL__F16) {
			memcpy(&h, t->data + i * sizeof h, sizeof h);
			f = pal__half_float(h);
		} else {
			memcpy(&f, t->data + i * sizeof f, sizeof f);
		}
		if (!isfinite(f))
			return pal__fail(err, PAL_EFORMAT, "%s: tensor %s: value %zu is not finite",
					 g->path, name, i);
	}
	*out = t;
	return PAL_OK;
}

/* Checks the tensors of every layer; with s->tiles, fills the tiles and biases from them. */
static pal_status each_layer(pal__sidecar *s, const pal__gguf *g, pal_error *err)
{
	size_t at = 0;
	for (size_t i = 0; i < s->n_layers - s->from; i++) {
		const pal__gguf_tensor *w, *b;
		size_t layer = s->from + i;
		pal_status st = find_tensor(g, layer, "weight", s->n_embd, 2 * s->n_kv, &w, err);
		if (st == PAL_OK)
			st = find_tensor(g, layer, "bias", 2 * s->n_kv, 1, &b, err);
		if (st != PAL_OK)
			return st;
		pal__matrix *m = &s->weights[i];
		if (!pal__matrix_shape(m, w->type, 2 * s->n_kv, s->n_embd))
			return pal__fail(err, PAL_ELIMIT, "%s is too large", g->path);
		if (s->tiles) {
			m->data = s->tiles + at;
			for (size_t t = 0; t < m->n_tiles; t++)
				pal__matrix_pack_tile(m, t, w->data, NULL);
			memcpy(s->bias + i * 2 * s->n_kv, b->data, 2 * s->n_kv * sizeof(float));
		}
		if (!pal__add_size(at, pal__matrix_bytes(m), &at))
			return pal__fail(err, PAL_ELIMIT, "%s is too large", g->path);
	}
	s->tiles_bytes = at;
	return PAL_OK;
}

static pal_status read_projection(pal__sidecar *s, const pal__gguf *g, pal_error *err)
{
	size_t n = s->n_layers - s->from;
	if (g->n_tensors != 2 * n)
		return pal__fail(err, PAL_EFORMAT, "%s has %zu tensors instead of %zu", g->path,
				 g->n_tensors, 2 * n);
	if (!n)
		return PAL_OK;
	s->weights = pal__calloc(n, sizeof *s->weights);
	s->bias = pal__calloc(n * 2 * s->n_kv, sizeof *s->bias);
	s->ones = pal__alloc(s->n_embd * sizeof *s->ones);
	if (!s->weights || !s->bias || !s->ones)
		return pal__fail_memory(err, "the side-car", n * 2 * s->n_kv * sizeof *s->bias);
	for (size_t i = 0; i < s->n_embd; i++)
		s->ones[i] = 1;
	pal_status st = each_layer(s, g, err);
	if (st != PAL_OK)
		return st;
	s->tiles = pal__alloc_aligned(s->tiles_bytes);
	if (!s->tiles)
		return pal__fail_memory(err, "the side-car", s->tiles_bytes);
	return each_layer(s, g, err);
}

static pal_status read_all(pal__sidecar *s, const pal__gguf *g, const pal_model *model,
			   pal_model *proposer, pal_error *err)
{
	s->n_layers = model->h.n_layers;
	s->n_kv = model->h.n_kv_heads * model->h.head_dim;
	pal_status st = check_model(g, model, err);
	if (st == PAL_OK)
		st = read_states(s, g, model, proposer, err);
	if (st == PAL_OK)
		st = read_heads(g, "palimpsest.select.first", model, &s->first, err);
	if (st == PAL_OK)
		st = read_heads(g, "palimpsest.select.later", model, &s->later, err);
	if (st == PAL_OK)
		st = read_projection(s, g, err);
	return st;
}

pal_status pal__sidecar_open(const char *path, const pal_model *model, pal_model *proposer,
			     pal__sidecar *out, pal_error *err)
{
	pal__gguf g = {0};
	pal__sidecar s = {0};
	pal_status st = pal__gguf_open(path, &g, err);
	if (st != PAL_OK)
		return st;
	st = read_all(&s, &g, model, proposer, err);
	/* What a shrunken file made of a value is not what the message should be about. */
	if (pal__file_shrunk(&g.file))
		st = pal__gguf_shrunk(&g, err);
	pal__gguf_close(&g);
	if (st == PAL_OK)
		*out = s;
	else
		pal__sidecar_close(&s);
	return st;
}

void pal__sidecar_close(pal__sidecar *s)
{
	pal__free(s->weights);
	pal__free(s->bias);
	pal__free(s->ones);
	pal__free_aligned(s->tiles, s->tiles_bytes);
	*s = (pal__sidecar){0};
}

/* --- writing ------------------------------------------------------------------ */

static void put_heads(pal__gguf_writer *w, const char *key, const pal__heads *h)
{
	uint32_t ids[PAL__MAX_HEADS_SET];
	for (size_t i = 0; i < h->n; i++)
		ids[i] = h->heads[i].layer * HEADS_OF_LAYER + h->heads[i].head;
	pal__gguf_put_array(w, key, PAL__GGUF_U32, ids, h->n);
}

/* Puts one layer's weights; halves: [n], where they are rounded to. */
static void put_weights(pal__gguf_writer *w, const char *name, const float *x, size_t cols,
			size_t rows, uint16_t *halves)
{
	size_t n = cols * rows;
	bool fits = true;
	for (size_t i = 0; i < n; i++) {
		fits = fits && fabsf(x[i]) <= HALF_MAX;
		halves[i] = pal__float_half(x[i]);
	}
	pal__gguf_put_tensor(w, name, fits ? PAL__F16 : PAL__F32, cols, rows,
			     fits ? (const void *)halves : x);
}

static void put_proposer(pal__gguf_writer *w, const pal_model *p)
{
	uint32_t layers = (uint32_t)p->h.n_layers, embd = (uint32_t)p->h.n_embd;
	pal__gguf_put(w, "palimpsest.proposer.hash", PAL__GGUF_U64, &p->hash);
	pal__gguf_put(w, "palimpsest.proposer.layers", PAL__GGUF_U32, &layers);
	pal__gguf_put(w, "palimpsest.proposer.embd", PAL__GGUF_U32, &embd);
	pal__gguf_put_string(w, "palimpsest.proposer.name", p->name);
}

/* The first layer that is projected, and how many values a state has. */
static size_t first_layer(const pal__sidecar_content *c)
{
	return c->proposer ? 0 : c->m;
}

static size_t state_size(const pal__sidecar_content *c, const pal_model *model)
{
	return (c->proposer ? c->proposer : model)->h.n_embd;
}

static void put_all(pal__gguf_writer *w, const pal_model *model, const pal__sidecar_content *c,
		    uint16_t *halves)
{
	uint32_t version = VERSION, m = (uint32_t)c->m;
	size_t from = first_layer(c), n = model->h.n_layers - from, cols = state_size(c, model);
	size_t rows = 2 * model->h.n_kv_heads * model->h.head_dim;
	pal__gguf_put_string(w, "general.architecture", ARCHITECTURE);
	pal__gguf_put_string(w, "general.name", model->name);
	pal__gguf_put(w, "palimpsest.version", PAL__GGUF_U32, &version);
	pal__gguf_put(w, "palimpsest.model_hash", PAL__GGUF_U64, &model->hash);
	if (c->proposer)
		put_proposer(w, c->proposer);
	pal__gguf_put(w, "palimpsest.fit.tokens", PAL__GGUF_U64, &c->tokens);
	pal__gguf_put(w, "palimpsest.project.layer", PAL__GGUF_U32, &m);
	pal__gguf_put_array(w, "palimpsest.project.lambda", PAL__GGUF_F32, c->lambda, n);
	pal__gguf_put_array(w, "palimpsest.project.error_k", PAL__GGUF_F32, c->error_k, n);
	pal__gguf_put_array(w, "palimpsest.project.error_v", PAL__GGUF_F32, c->error_v, n);
	put_heads(w, "palimpsest.select.first", c->first);
	put_heads(w, "palimpsest.select.later", c->later);
	for (size_t i = 0; i < n; i++) {
		char name[48];
		put_weights(w, tensor_name(name, from + i, "weight"), c->weights[i], cols, rows,
			    halves + i * rows * cols);
		pal__gguf_put_tensor(w, tensor_name(name, from + i, "bias"), PAL__F32, rows, 1,
				     c->bias[i]);
	}
}

pal_status pal__sidecar_write(const char *path, const pal_model *model,
			      const pal__sidecar_content *c, pal_error *err)
{
	pal__gguf_writer w = {0};
	size_t n = (model->h.n_layers - first_layer(c)) * state_size(c, model) * 2 *
		   model->h.n_kv_heads * model->h.head_dim;
	uint16_t *halves = pal__calloc(n + 1, sizeof *halves);
	if (!halves)
		return pal__fail_memory(err, "the side-car", n * sizeof *halves);
	put_all(&w, model, c, halves);
	pal_status st = pal__gguf_write(&w, path, SUM_KEY, err);
	pal__gguf_writer_free(&w);
	pal__free(halves);
	return st;
}

/* --- the projection ------------------------------------------------------------- */

typedef struct {
	const pal__sidecar *s;
	const pal__kernels *k;
	const pal__matrix *w;
	const float *x, *bias;
	float eps;
	float *out; /* x itself, to be normalised, or the projection's */
	size_t n;
} projection;

static void norm_item(void *arg, size_t row, int worker)
{
	const projection *p = arg;
	size_t e = p->s->n_embd;
	(void)worker;
	p->k->rms_norm(p->x + row * e, p->s->ones, e, p->eps, p->out + row * e);
}

/* One tile of outputs. */
static void tile_item(void *arg, size_t tile, int worker)
{
	const projection *p = arg;
	size_t from = tile * PAL__TILE_ROWS, rows = p->w->n_rows, left = rows - from;
	const pal__acts acts = {.n = p->n, .k = p->s->n_embd, .x = p->x};
	(void)worker;
	p->k->matmul(p->w, tile, tile + 1, &acts, p->out, rows);
	for (size_t i = 0; i < p->n; i++)
		p->k->add(p->out + i * rows + from, p->bias + from,
			  left < PAL__TILE_ROWS ? left : PAL__TILE_ROWS);
}

void pal__project_norm(const pal__sidecar *s, const pal_model *model, float *x, size_t n)
{
	float eps = (s->proposer ? s->proposer : model)->h.rms_eps;
	projection p = {.s = s, .k = model->kernels, .x = x, .eps = eps, .out = x};
	pal__pool_run(model->pool, n, norm_item, &p);
}

void pal__project(const pal__sidecar *s, const pal_model *model, size_t layer, const float *x,
		  size_t n, float *out)
{
	projection p = {.s = s,
			.k = model->kernels,
			.w = &s->weights[layer - s->from],
			.x = x,
			.bias = s->bias + (layer - s->from) * 2 * s->n_kv,
			.out = out,
			.n = n};
	pal__pool_run(model->pool, p.w->n_tiles, tile_item, &p);
}
