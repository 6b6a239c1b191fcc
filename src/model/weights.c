/* Weights: from the file's tensors to tiles and vectors.
 *
 * Invariants:
 *  - A tensor's name says where it goes and what shape it must have; a missing one, a
 *    wrong shape, and one that has no place are errors that name it.
 *  - All tiles are one block, in the order of the plan: in memory, so that huge pages hold
 *    small matrices too, or mapped from a file of tiles (tiles.h).
 *  - Repacking is split into items of some rows of one matrix, done by the pool; each item
 *    also hashes the bytes it read and lets go of their pages, so that the resident set
 *    stays near the size of the weights.
 */
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/checked.h"
#include "base/mem.h"
#include "kernels/half.h"
#include "model/model.h"

#define ITEM_BYTES ((size_t)1 << 20) /* about what one item of repacking reads */

typedef struct {
	pal__matrix *m;
	const pal__gguf_tensor *t;
	const uint32_t *map;      /* of rows, or NULL */
	size_t offset;            /* of its tiles, in bytes */
	size_t first_item, tiles; /* tiles: of one item */
} job;

typedef struct {
	pal_model *model;
	const pal__gguf *g;
	bool *taken; /* [g->n_tensors] */
	job *jobs;
	size_t n_jobs, cap_jobs, n_items;
	uint32_t *map_q, *map_k; /* llama's order of rows, or NULL */
	XXH64_hash_t *hashes;    /* [n_items] */
	_Atomic uint64_t done;   /* bytes, of total */
	uint64_t total;
	pal_progress progress;
	void *user;
	pal_error *err;
} loader;

/* --- finding tensors -------------------------------------------------------- */

static pal_status take(loader *l, const char *name, bool required, const pal__gguf_tensor **out)
{
	*out = pal__gguf_tensor_find(l->g, name);
	if (*out)
		l->taken[*out - l->g->tensors] = true;
	else if (required)
		return pal__fail(l->err, PAL_EFORMAT, "%s: tensor %s is missing", l->g->path, name);
	return PAL_OK;
}

static pal_status check_shape(loader *l, const pal__gguf_tensor *t, size_t cols, size_t rows)
{
	if (t->ne[0] == cols && t->ne[1] == rows && t->ne[2] == 1 && t->ne[3] == 1)
		return PAL_OK;
	return pal__fail(
		l->err, PAL_EFORMAT,
		"%s: tensor %s has the shape [%llu, %llu, %llu, %llu], expected [%zu, %zu]",
		l->g->path, t->name, (unsigned long long)t->ne[0], (unsigned long long)t->ne[1],
		(unsigned long long)t->ne[2], (unsigned long long)t->ne[3], cols, rows);
}

/* Plans a matrix of rows outputs by cols inputs. */
static pal_status plan_matrix(loader *l, const char *name, size_t cols, size_t rows,
			      const uint32_t *map, pal__matrix *m)
{
	const pal__gguf_tensor *t;
	pal_status s = take(l, name, true, &t);
	if (s == PAL_OK)
		s = check_shape(l, t, cols, rows);
	if (s != PAL_OK)
		return s;
	if (!pal__grow((void **)&l->jobs, &l->cap_jobs, l->n_jobs + 1, sizeof *l->jobs))
		return pal__fail_memory(l->err, "the list of tensors", sizeof *l->jobs);
	pal__matrix shape;
	size_t offset = l->model->tiles_bytes;
	if (!pal__matrix_shape(&shape, t->type, rows, cols) ||
	    !pal__add_size(offset, pal__matrix_bytes(&shape), &l->model->tiles_bytes))
		return pal__fail(l->err, PAL_ELIMIT, "%s: tensor %s is too large for this machine",
				 l->g->path, name);
	*m = shape;
	size_t tiles = ITEM_BYTES / shape.tile_bytes + 1;
	l->jobs[l->n_jobs++] = (job){m, t, map, offset, l->n_items, tiles};
	l->n_items += (shape.n_tiles + tiles - 1) / tiles;
	l->model->weight_bytes += pal__matrix_bytes(&shape);
	l->model->n_params += (uint64_t)rows * cols;
	return PAL_OK;
}

static float vector_value(const pal__gguf_tensor *t, size_t i)
{
	float f;
	uint16_t h;
	if (t->type == PAL__F32) {
		memcpy(&f, t->data + i * sizeof f, sizeof f);
		return f;
	}
	memcpy(&h, t->data + i * sizeof h, sizeof h);
	return t->type == PAL__F16 ? pal__half_float(h) : pal__bf16_float(h);
}

/* Row i of llama's q and k is row map[i] of the tensor; their biases follow. */
static pal_status load_vector(loader *l, const char *name, bool required, size_t n,
			      const uint32_t *map, float **out)
{
	const pal__gguf_tensor *t;
	pal_status s = take(l, name, required, &t);
	if (s != PAL_OK || !t)
		return s;
	s = check_shape(l, t, n, 1);
	if (s != PAL_OK)
		return s;
	if (!pal__type_is_float(t->type))
		return pal__fail(l->err, PAL_EUNSUPPORTED,
				 "%s: tensor %s: type %s is not supported for a vector (supported: "
				 "F32, F16, BF16)",
				 l->g->path, name, pal__type_find((uint32_t)t->type)->name);
	float *v = pal__alloc(n * sizeof *v);
	if (!v)
		return pal__fail_memory(l->err, name, n * sizeof *v);
	*out = v;
	for (size_t i = 0; i < n; i++) {
		v[i] = vector_value(t, map ? map[i] : i);
		if (!isfinite(v[i]))
			return pal__fail(l->err, PAL_EFORMAT,
					 "%s: tensor %s: value %zu is not finite", l->g->path, name,
					 map ? map[i] : i);
	}
	l->model->weight_bytes += n * sizeof *v;
	l->model->n_params += n;
	return PAL_OK;
}

/* --- the plan ------------------------------------------------------------------ */

/* llama's files rotate neighbouring values of a head, (2i, 2i + 1), where everybody else
 * rotates (i, i + n_rot / 2). Scores do not change when q's and k's dimensions are
 * re-ordered alike, so the rows are, once, and one rotation serves all. */
static pal_status make_map(loader *l, size_t heads, uint32_t **out)
{
	const pal__hparams *h = &l->model->h;
	size_t n = heads * h->head_dim, half = h->n_rot / 2;
	uint32_t *map = pal__alloc(n * sizeof *map);
	if (!map)
		return pal__fail_memory(l->err, "the order of rows", n * sizeof *map);
	for (size_t i = 0; i < n; i++) {
		size_t d = i % h->head_dim, from = d;
		if (d < half)
			from = 2 * d;
		else if (d < h->n_rot)
			from = 2 * (d - half) + 1;
		map[i] = (uint32_t)(i - d + from);
	}
	*out = map;
	return PAL_OK;
}

static const char *layer_name(char out[64], size_t layer, const char *rest)
{
	snprintf(out, 64, "blk.%zu.%s", layer, rest);
	return out;
}

static pal_status plan_layer(loader *l, size_t i)
{
	const pal__hparams *h = &l->model->h;
	pal__layer *y = &l->model->layers[i];
	size_t e = h->n_embd, q = h->n_heads * h->head_dim, kv = h->n_kv_heads * h->head_dim;
	bool qk_norm = h->arch == PAL__QWEN3 || h->arch == PAL__GEMMA3,
	     post = h->arch == PAL__GEMMA3;
	bool bias = h->arch == PAL__QWEN2, maybe = bias || h->arch == PAL__LLAMA;
	char name[64];
	pal_status s = PAL_OK;
#define MATRIX(rest, cols, rows, map, to) \
	if (s == PAL_OK)                  \
	s = plan_matrix(l, layer_name(name, i, rest ".weight"), cols, rows, map, &y->to)
#define VECTOR(when, rest, required, n, map, to) \
	if (s == PAL_OK && (when))               \
	s = load_vector(l, layer_name(name, i, rest), required, n, map, &y->to)
	MATRIX("attn_q", e, q, l->map_q, wq);
	MATRIX("attn_k", e, kv, l->map_k, wk);
	MATRIX("attn_v", e, kv, NULL, wv);
	MATRIX("attn_output", q, e, NULL, wo);
	MATRIX("ffn_gate", e, h->n_ff, NULL, gate);
	MATRIX("ffn_up", e, h->n_ff, NULL, up);
	MATRIX("ffn_down", h->n_ff, e, NULL, down);
	VECTOR(true, "attn_norm.weight", true, e, NULL, attn_norm);
	VECTOR(true, "ffn_norm.weight", true, e, NULL, ffn_norm);
	VECTOR(qk_norm, "attn_q_norm.weight", true, h->head_dim, NULL, q_norm);
	VECTOR(qk_norm, "attn_k_norm.weight", true, h->head_dim, NULL, k_norm);
	VECTOR(post, "post_attention_norm.weight", true, e, NULL, post_attn);
	VECTOR(post, "post_ffw_norm.weight", true, e, NULL, post_ffn);
	VECTOR(maybe, "attn_q.bias", bias, q, l->map_q, bq);
	VECTOR(maybe, "attn_k.bias", bias, kv, l->map_k, bk);
	VECTOR(maybe, "attn_v.bias", bias, kv, NULL, bv);
#undef MATRIX
#undef VECTOR
	return s;
}

static pal_status plan_ends(loader *l)
{
	pal_model *m = l->model;
	const pal__gguf_tensor *t;
	size_t e = m->h.n_embd, v = m->h.n_vocab;
	pal_status s = plan_matrix(l, "token_embd.weight", e, v, NULL, &m->embd);
	if (s == PAL_OK)
		s = load_vector(l, "output_norm.weight", true, e, NULL, &m->output_norm);
	m->tied = !pal__gguf_tensor_find(l->g, "output.weight");
	if (s == PAL_OK && !m->tied)
		s = plan_matrix(l, "output.weight", e, v, NULL, &m->output);
	if (s == PAL_OK && m->tied)
		m->output = m->embd;
	if (s == PAL_OK && m->h.arch == PAL__LLAMA)
		s = take(l, "rope_freqs.weight", false, &t); /* read with the hyper-parameters */
	return s;
}

static pal_status plan(loader *l)
{
	pal_model *m = l->model;
	pal_status s = PAL_OK;
	if (m->h.arch == PAL__LLAMA) {
		s = make_map(l, m->h.n_heads, &l->map_q);
		if (s == PAL_OK)
			s = make_map(l, m->h.n_kv_heads, &l->map_k);
	}
	if (s == PAL_OK)
		s = plan_ends(l);
	for (size_t i = 0; i < m->h.n_layers && s == PAL_OK; i++)
		s = plan_layer(l, i);
	for (size_t i = 0; i < l->g->n_tensors && s == PAL_OK; i++)
		if (!l->taken[i])
			s = pal__fail(l->err, PAL_EUNSUPPORTED,
				      "%s: tensor %s has no place in a %s model", l->g->path,
				      l->g->tensors[i].name, m->h.arch_name);
	return s;
}

/* --- progress ---------------------------------------------------------------------- */

/* What came before is done; `bytes` more follow. */
static void next_stage(loader *l, uint64_t bytes)
{
	atomic_store(&l->done, l->total);
	l->total += bytes;
	if (l->progress) /* steps may all fall to other threads, which do not report */
		l->progress(l->user, l->total - bytes, l->total);
}

static void step(void *user, uint64_t bytes, int worker)
{
	loader *l = user;
	uint64_t done = atomic_fetch_add(&l->done, bytes) + bytes;
	if (l->progress && worker == 0)
		l->progress(l->user, done, l->total);
}

/* --- repacking ------------------------------------------------------------------- */

static void place(loader *l, const uint8_t *tiles)
{
	pal_model *m = l->model;
	/* Only the memory of pack() is written through these. */
	for (size_t i = 0; i < l->n_jobs; i++)
		l->jobs[i].m->data = (uint8_t *)(uintptr_t)tiles + l->jobs[i].offset;
	if (m->tied)
		m->output.data = m->embd.data;
}

static void pack_item(void *arg, size_t item, int worker)
{
	loader *l = arg;
	size_t lo = 0, hi = l->n_jobs;
	while (hi - lo > 1) { /* the job that the item belongs to */
		size_t mid = (lo + hi) / 2;
		if (l->jobs[mid].first_item <= item)
			lo = mid;
		else
			hi = mid;
	}
	const job *j = &l->jobs[lo];
	size_t first = (item - j->first_item) * j->tiles, end = first + j->tiles;
	end = end < j->m->n_tiles ? end : j->m->n_tiles;
	for (size_t t = first; t < end; t++)
		pal__matrix_pack_tile(j->m, t, j->t->data, j->map);
	size_t row = j->t->n_bytes / j->m->n_rows, from = first * PAL__TILE_ROWS;
	size_t to = end * PAL__TILE_ROWS < j->m->n_rows ? end * PAL__TILE_ROWS : j->m->n_rows;
	l->hashes[item] = XXH3_64bits(j->t->data + from * row, (to - from) * row);
	pal__file_forget(&l->g->file, j->t->offset + from * row, (to - from) * row);
	step(l, (to - from) * row, worker);
}

static pal_status pack(loader *l)
{
	pal_model *m = l->model;
	l->hashes = pal__calloc(l->n_items, sizeof *l->hashes);
	if (!l->hashes)
		return pal__fail_memory(l->err, "the list of hashes", l->n_items);
	m->tiles = pal__alloc_aligned(m->tiles_bytes);
	if (!m->tiles)
		return pal__fail_memory(l->err, "the weights", m->tiles_bytes);
	place(l, m->tiles);
	next_stage(l, l->g->file.size);
	pal__pool_run(m->pool, l->n_items, pack_item, l);
	XXH64_hash_t head = XXH3_64bits(l->g->file.data, (size_t)l->g->data_offset);
	m->hash = XXH3_64bits_withSeed(l->hashes, l->n_items * sizeof *l->hashes, head);
	return pal__gguf_shrunk(l->g, l->err);
}

/* --- the cache ------------------------------------------------------------------- */

typedef struct {
	char *path;
	pal__tiles_record *records; /* [l->n_jobs] */
	pal__tiles_key key;
} cache;

static pal_status identify(loader *l, const char *dir, cache *c, pal_error *err)
{
	pal_status s = pal__tiles_path(dir, l->g->path, &c->path, err);
	if (s != PAL_OK)
		return s;
	c->records = pal__calloc(l->n_jobs, sizeof *c->records);
	if (!c->records)
		return pal__fail_memory(err, "the list of matrices", l->n_jobs);
	for (size_t i = 0; i < l->n_jobs; i++) {
		const job *j = &l->jobs[i];
		c->records[i] =
			(pal__tiles_record){.name = XXH3_64bits(j->t->name, strlen(j->t->name)),
					    .type = (uint32_t)j->m->type,
					    .rows = j->m->n_rows,
					    .cols = j->m->n_cols,
					    .offset = j->offset};
	}
	const pal__file *f = &l->g->file;
	c->key = (pal__tiles_key){.model_bytes = f->size,
				  .model_head = XXH3_64bits(f->data, (size_t)l->g->data_offset),
				  .records = c->records,
				  .n_records = l->n_jobs,
				  .bytes = l->model->tiles_bytes};
	if (!pal__file_times(f, &c->key.mtime, &c->key.ctime))
		return pal__fail(err, PAL_EIO, "%s: its times are unknown", l->g->path);
	return PAL_OK;
}

/* Writes what was packed, unless the model has changed since the key was made. */
static pal_status keep(loader *l, const cache *c, pal_error *err)
{
	const pal_model *m = l->model;
	int64_t mtime, ctime;
	if (!pal__file_times(&l->g->file, &mtime, &ctime) || mtime != c->key.mtime ||
	    ctime != c->key.ctime)
		return pal__fail(err, PAL_EIO, "%s is not written: the model file is changing",
				 c->path);
	next_stage(l, m->tiles_bytes);
	return pal__tiles_write(c->path, &c->key, m->hash, m->tiles, m->pool, step, l, err);
}

static pal_status take_note(loader *l, const char *before, const char *after)
{
	char note[2 * sizeof(pal_error)];
	int n = snprintf(note, sizeof note, "%s: %s", before, after);
	l->model->cache_note = pal__strndup(note, (size_t)n);
	return l->model->cache_note ? PAL_OK : pal__fail_memory(l->err, "a note", (size_t)n);
}

/* Whatever is wrong with the cache, but for memory, is a note and no error. */
static pal_status load_with_cache(loader *l, const cache *c)
{
	pal_model *m = l->model;
	pal_error why = {0}, why_not = {0};
	pal_status found = PAL_OK, kept;
	if (access(c->path, F_OK) == 0) {
		next_stage(l, m->tiles_bytes);
		found = pal__tiles_open(c->path, &c->key, m->pool, step, l, &m->cached, &why);
	}
	if (found == PAL_ENOMEM)
		return pal__fail(l->err, found, "%s", why.text);
	if (m->cached.data) {
		place(l, m->cached.data);
		m->hash = m->cached.model_hash;
		return pal__gguf_shrunk(l->g, l->err);
	}
	pal_status s = pack(l);
	if (s != PAL_OK)
		return s;
	kept = keep(l, c, &why_not);
	if (kept == PAL_ENOMEM)
		return pal__fail(l->err, kept, "%s", why_not.text);
	if (kept != PAL_OK)
		return take_note(l, found ? why.text : why_not.text,
				 found ? why_not.text : "the next start will repack, too");
	return found ? take_note(l, why.text, "it was written again") : PAL_OK;
}

static pal_status load_tiles(loader *l, const char *dir)
{
	cache c = {0};
	pal_error why = {0};
	if (!dir)
		return pack(l);
	pal_status s = identify(l, dir, &c, &why);
	if (s == PAL_OK) {
		s = load_with_cache(l, &c);
	} else if (s == PAL_ENOMEM) {
		pal__fail(l->err, s, "%s", why.text);
	} else {
		s = pack(l);
		if (s == PAL_OK)
			s = take_note(l, why.text, "the cache is not used");
	}
	pal__free(c.path);
	pal__free(c.records);
	return s;
}

pal_status pal__weights_load(pal_model *m, const pal__gguf *g, const pal_model_options *o,
			     pal_error *err)
{
	loader l = {.model = m, .g = g, .progress = o->progress, .user = o->user, .err = err};
	size_t n = g->n_tensors ? g->n_tensors : 1;
	l.taken = pal__calloc(n, sizeof *l.taken);
	m->layers = pal__calloc(m->h.n_layers, sizeof *m->layers);
	pal_status s = l.taken && m->layers ? plan(&l) : pal__fail_memory(err, "the layers", n);
	if (s == PAL_OK)
		s = m->no_weights ? pal__gguf_shrunk(g, err) : load_tiles(&l, o->cache_dir);
	if (s == PAL_OK && !m->no_weights)
		next_stage(&l, 0);
	pal__free(l.taken);
	pal__free(l.jobs);
	pal__free(l.map_q);
	pal__free(l.map_k);
	pal__free(l.hashes);
	return s;
}

void pal__weights_free(pal_model *m)
{
	for (size_t i = 0; m->layers && i < m->h.n_layers; i++) {
		pal__layer *y = &m->layers[i];
		float *vectors[] = {y->attn_norm, y->ffn_norm, y->q_norm,    y->k_norm,  y->bq,
				    y->bk,        y->bv,       y->post_attn, y->post_ffn};
		for (size_t k = 0; k < sizeof vectors / sizeof vectors[0]; k++)
			pal__free(vectors[k]);
	}
	pal__free_aligned(m->tiles, m->tiles_bytes);
	pal__file_unmap(&m->cached.file);
	pal__free(m->output_norm);
	pal__free(m->layers);
	m->tiles = NULL;
	m->output_norm = NULL;
	m->layers = NULL;
}
