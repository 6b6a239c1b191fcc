#include "restore/index.h"

#include <assert.h>
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "base/checked.h"
#include "kernels/exp.h"
#include "restore/source.h"

#define CHUNKS (PAL__SLAB / PAL_CHUNK)
#define PAIRS 4 /* that are read at once */

_Static_assert(PAL_CHUNK == PAL__RUN, "a chunk is a run of scores");
#define TILES (PAL__SLAB / PAL__TILE_ROWS)
#define TOP PAL__LOOK_CHUNKS
#define Q4_BYTES 18 /* of a block of 32 */

/* --- shape ------------------------------------------------------------------------ */

static void add_head(pal__index *x, pal__qhead h, bool later)
{
	size_t i = 0;
	while (i < x->n_heads && (x->heads[i].layer != h.layer || x->heads[i].head != h.head))
		i++;
	if (i == x->n_heads) {
		if (x->n_heads == 2 * PAL__MAX_HEADS_SET)
			return;
		x->heads[x->n_heads++] = h;
	}
	*(later ? &x->later[i] : &x->first[i]) = true;
}

static void find_pairs(pal__index *x)
{
	size_t group = x->m->h.n_heads / x->m->h.n_kv_heads;
	for (size_t i = 0; i < x->n_heads; i++) {
		pal__qhead pair = {x->heads[i].layer, x->heads[i].head / (uint32_t)group};
		size_t at = 0;
		while (at < x->n_pairs &&
		       (x->pairs[at].layer != pair.layer || x->pairs[at].head != pair.head))
			at++;
		if (at == x->n_pairs)
			x->pairs[x->n_pairs++] = pair;
		x->pair_of[i] = at;
	}
}

static void finish_shape(pal__index *x, size_t at_once, int max_rows)
{
	find_pairs(x);
	x->at_once = at_once < x->n_heads ? at_once : x->n_heads;
	size_t most = PAL__MAX_PROBES / x->at_once;
	x->max_rows = (size_t)max_rows < most ? max_rows : (int)most;
	pal__matrix_shape(&x->tile, PAL__Q4_0, PAL__SLAB, (x->m->h.head_dim + 31) / 32 * 32);
}

void pal__index_shape(pal__index *x, pal_model *m, const pal__kv_shape *kv, const pal__qhead *first,
		      size_t n_first, const pal__qhead *later, size_t n_later, int max_rows)
{
	*x = (pal__index){.m = m, .disk = PAL__NO_DISK};
	uint32_t layer = (uint32_t)(m->h.n_layers / 2);
	while (layer + 1 < m->h.n_layers && !pal__kv_bounded(kv, layer))
		layer++;
	for (uint32_t i = 0; !n_first && i < m->h.n_heads && i < PAL__MAX_HEADS_SET; i++)
		add_head(x, (pal__qhead){layer, i}, false);
	for (size_t i = 0; i < n_first; i++)
		add_head(x, first[i], false);
	for (size_t i = 0; i < n_later; i++)
		add_head(x, later[i], true);
	finish_shape(x, x->n_heads, max_rows);
}

void pal__index_shape_all(pal__index *x, pal_model *m, const pal__kv_shape *kv)
{
	*x = (pal__index){.m = m, .disk = PAL__NO_DISK};
	size_t bounded = 0, seen = 0;
	for (size_t i = 0; i < m->h.n_layers; i++)
		bounded += pal__kv_bounded(kv, i);
	size_t every = (bounded * m->h.n_heads + PAL__INDEX_HEADS - 1) / PAL__INDEX_HEADS;
	for (uint32_t i = 0; i < m->h.n_layers; i++) {
		if (!pal__kv_bounded(kv, i) || seen++ % every)
			continue;
		for (uint32_t h = 0; h < m->h.n_heads && x->n_heads < PAL__INDEX_HEADS; h++)
			x->heads[x->n_heads++] = (pal__qhead){i, h};
	}
	finish_shape(x, PAL__MAX_PROBES / PAL__SCORED_ROWS, PAL__SCORED_ROWS);
}

static size_t n_probes(const pal__index *x)
{
	return x->at_once * (size_t)x->max_rows;
}

/* Those that one pair can have. */
static size_t pair_probes(const pal__index *x)
{
	size_t most = 0;
	for (size_t pair = 0; pair < x->n_pairs; pair++) {
		size_t heads = 0;
		for (size_t h = 0; h < x->n_heads; h++)
			heads += x->pair_of[h] == pair;
		most = heads > most ? heads : most;
	}
	return (most < x->at_once ? most : x->at_once) * (size_t)x->max_rows;
}

/* A slab of the pairs that are read at once. */
static size_t slab_bytes(const pal__index *x)
{
	size_t pairs = x->n_pairs < PAIRS ? x->n_pairs : PAIRS;
	return pal__arena_need(pairs * pal__matrix_bytes(&x->tile));
}

static bool lay_out(pal__index *x, pal__arena *arena, size_t *bytes)
{
	size_t threads = (size_t)pal__pool_threads(x->m->pool), probes = n_probes(x);
	x->n_wave = 4 * threads * probes;
	if (x->n_wave * sizeof *x->wave < PAL__MAX_PANEL * x->tile.n_cols * sizeof(float))
		x->n_wave = PAL__MAX_PANEL * x->tile.n_cols * sizeof(float) / sizeof *x->wave + 1;
	x->worker_bytes =
		slab_bytes(x) + pal__arena_need(pair_probes(x) * PAL__SLAB * sizeof(float));
	struct {
		void **to;
		size_t bytes;
	} parts[] = {
		{(void **)&x->queries,
		 x->n_heads * PAL__RING_ROWS * x->tile.n_cols * sizeof(float)},
		{(void **)&x->workers, x->worker_bytes * threads},
		{(void **)&x->panels, pal__panels_bytes(probes, x->tile.n_cols) + 64 * x->n_pairs},
		{(void **)&x->wave, x->n_wave * sizeof *x->wave},
	};
	*bytes = 0;
	for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
		if (!pal__add_size(*bytes, pal__arena_need(parts[i].bytes), bytes))
			return false;
		if (arena)
			*parts[i].to = pal__arena_take(arena, parts[i].bytes);
	}
	return true;
}

bool pal__index_need(const pal__index *x, size_t *bytes)
{
	pal__index copy = *x;
	return lay_out(&copy, NULL, bytes);
}

pal_status pal__index_init(pal__index *x, pal__arena *arena, const char *dir, pal_error *err)
{
	size_t bytes;
	lay_out(x, arena, &bytes);
	assert(x->wave);
	x->dir = dir;
	return pal__disk_open(&x->disk, dir, "the selection index", err);
}

void pal__index_close(pal__index *x)
{
	pal__disk_close(&x->disk);
}

/* --- keeping ---------------------------------------------------------------------- */

/* A row of K as Q4_0: d = the value of largest size / -8, codes round(x / d) + 8 in 0..15. */
static void to_q4(const float *x, size_t n, size_t padded, uint8_t *out)
{
	for (size_t b = 0; b < padded / 32; b++, out += Q4_BYTES) {
		float most = 0, values[32];
		for (size_t i = 0; i < 32; i++) {
			values[i] = b * 32 + i < n ? x[b * 32 + i] : 0;
			if (!(fabsf(values[i]) <= 1e30f))
				values[i] = 0;
			if (fabsf(values[i]) > fabsf(most))
				most = values[i];
		}
		float d = pal__half_float(pal__float_half(most / -8)), by = d != 0 ? 1 / d : 0;
		uint16_t half = pal__float_half(d);
		uint8_t codes[32];
		for (size_t i = 0; i < 32; i++) {
			float code = values[i] * by + 8.5f;
			codes[i] = code < 0 ? 0 : code > 15 ? 15 : (uint8_t)code;
		}
		memcpy(out, &half, 2);
		for (size_t i = 0; i < 16; i++)
			out[2 + i] = (uint8_t)(codes[i] | codes[i + 16] << 4);
	}
}

static uint64_t tile_at(const pal__index *x, size_t tile, size_t pair)
{
	return ((tile / TILES * x->n_pairs + pair) * TILES + tile % TILES) * x->tile.tile_bytes;
}

static pal_status keep_tile(pal__index *x, const pal__kv *kv, size_t tile, int64_t end,
			    pal_error *err)
{
	const pal__hparams *h = &x->m->h;
	float angles[PAL__TILE_ROWS * PAL__MAX_HEAD_DIM], k[PAL__KV_MAX_DIM], v[PAL__KV_MAX_DIM];
	uint8_t rows[PAL__TILE_ROWS * (PAL__KV_MAX_DIM / 32) * Q4_BYTES];
	size_t row_bytes = x->tile.n_cols / 32 * Q4_BYTES;
	int64_t from = (int64_t)tile * PAL__TILE_ROWS;
	pal__matrix one = x->tile;
	one.n_rows = PAL__TILE_ROWS;
	one.n_tiles = 1;
	one.data = x->workers;
	end = end - from < PAL__TILE_ROWS ? end : from + PAL__TILE_ROWS;
	pal__angles(x->m, from, (size_t)(end - from), angles);
	for (size_t p = 0; p < x->n_pairs; p++) {
		memset(rows, 0, PAL__TILE_ROWS * row_bytes);
		for (int64_t pos = from; pos < end; pos++) {
			size_t i = (size_t)(pos - from);
			pal__take(x->m, kv, angles + i * h->n_rot, x->pairs[p].layer,
				  x->pairs[p].head, pos, k, v);
			to_q4(k, h->head_dim, x->tile.n_cols, rows + i * row_bytes);
		}
		pal__matrix_pack_tile(&one, 0, rows, NULL);
		pal_status s = pal__disk_write(&x->disk, one.data, one.tile_bytes,
					       tile_at(x, tile, p), err);
		if (s)
			return s;
	}
	return PAL_OK;
}

pal_status pal__index_keep(pal__index *x, const pal__kv *kv, int64_t end, pal_error *err)
{
	for (int64_t at = x->end / PAL__TILE_ROWS * PAL__TILE_ROWS; at < end && x->end < end;
	     at += PAL__TILE_ROWS) {
		pal_status s = keep_tile(x, kv, (size_t)(at / PAL__TILE_ROWS), end, err);
		if (s)
			return s;
	}
	x->end = end > x->end ? end : x->end;
	return PAL_OK;
}

/* --- moving ----------------------------------------------------------------------- */

#define ROWS_BYTES (PAL__TILE_ROWS * (PAL__KV_MAX_DIM / 32) * Q4_BYTES)

/* A tile's shape, in the scratch. */
static pal__matrix one_tile(const pal__index *x)
{
	pal__matrix one = x->tile;
	one.n_rows = PAL__TILE_ROWS;
	one.n_tiles = 1;
	one.data = x->workers;
	return one;
}

static size_t row_bytes(const pal__index *x)
{
	return x->tile.n_blocks * Q4_BYTES;
}

/* A tile of a pair as rows [PAL__TILE_ROWS][row_bytes]. */
static pal_status read_rows(pal__index *x, size_t tile, size_t pair, uint8_t *rows, pal_error *err)
{
	pal__matrix one = one_tile(x);
	pal_status s =
		pal__disk_read(&x->disk, one.data, one.tile_bytes, tile_at(x, tile, pair), err);
	for (size_t row = 0; !s && row < PAL__TILE_ROWS; row++)
		for (size_t b = 0; b < one.n_blocks; b++)
			pal__matrix_block(&one, row, b, rows + row * row_bytes(x) + b * Q4_BYTES);
	return s;
}

static pal_status write_rows(pal__index *x, pal__disk *to, size_t tile, size_t pair,
			     const uint8_t *rows, pal_error *err)
{
	pal__matrix one = one_tile(x);
	pal__matrix_pack_tile(&one, 0, rows, NULL);
	return pal__disk_write(to, one.data, one.tile_bytes, tile_at(x, tile, pair), err);
}

pal_status pal__index_put(pal__index *x, const pal__kv *kv, int64_t at, int64_t pos, int64_t n,
			  pal_error *err)
{
	const pal__hparams *h = &x->m->h;
	float angles[PAL__MAX_HEAD_DIM], k[PAL__KV_MAX_DIM], v[PAL__KV_MAX_DIM];
	uint8_t rows[ROWS_BYTES];
	pal_status s = PAL_OK;
	for (int64_t tile = pos / PAL__TILE_ROWS; !s && tile * PAL__TILE_ROWS < pos + n; tile++)
		for (size_t p = 0; !s && p < x->n_pairs; p++) {
			int64_t from = tile * PAL__TILE_ROWS, end = from + PAL__TILE_ROWS;
			s = read_rows(x, (size_t)tile, p, rows, err);
			from = from > pos ? from : pos;
			end = end < pos + n ? end : pos + n;
			for (int64_t i = from; !s && i < end; i++) {
				pal__angles(x->m, at + i - pos, 1, angles);
				pal__take(x->m, kv, angles, x->pairs[p].layer, x->pairs[p].head,
					  at + i - pos, k, v);
				to_q4(k, h->head_dim, x->tile.n_cols,
				      rows + (size_t)(i % PAL__TILE_ROWS) * row_bytes(x));
			}
			if (!s)
				s = write_rows(x, &x->disk, (size_t)tile, p, rows, err);
		}
	return s;
}

/* A move, pair by pair: each has its own part of every slab, which is read and written whole. */
typedef struct {
	const pal__index *x;
	pal__disk *to;
	int64_t position, n_old, n_new, end; /* end: of the new positions */
	pal_error error;
	_Atomic bool failed;
} move;

/* Slabs of a pair as they were, by number % 2, and the one that is made: [tile.n_tiles] tiles. */
typedef struct {
	const move *v;
	size_t pair;
	int64_t held[2]; /* -1: none */
	uint8_t *was[2], *made;
} moving;

static pal_status read_slab(moving *m, int64_t slab, pal_error *err)
{
	const pal__index *x = m->v->x;
	int64_t end = m->v->end - m->v->n_new + m->v->n_old, left = end - slab * PAL__SLAB;
	size_t tiles =
		left < PAL__SLAB ? ((size_t)left + PAL__TILE_ROWS - 1) / PAL__TILE_ROWS : TILES;
	m->held[slab % 2] = slab;
	return pal__disk_read(&x->disk, m->was[slab % 2], tiles * x->tile.tile_bytes,
			      tile_at(x, (size_t)slab * TILES, m->pair), err);
}

/* The row of a position as it was, [row_bytes]. */
static pal_status row_was(moving *m, int64_t pos, uint8_t *row, pal_error *err)
{
	const pal__index *x = m->v->x;
	int64_t slab = pos / PAL__SLAB;
	if (m->held[slab % 2] != slab) {
		pal_status s = read_slab(m, slab, err);
		if (s)
			return s;
	}
	pal__matrix w = x->tile;
	w.data = m->was[slab % 2];
	for (size_t b = 0; b < w.n_blocks; b++)
		pal__matrix_block(&w, (size_t)(pos % PAL__SLAB), b, row + b * Q4_BYTES);
	return PAL_OK;
}

/* A tile as it is after the move; new positions are zeros. */
static pal_status move_tile(moving *m, int64_t tile, pal_error *err)
{
	const move *v = m->v;
	uint8_t rows[ROWS_BYTES];
	memset(rows, 0, PAL__TILE_ROWS * row_bytes(v->x));
	for (int64_t i = 0; i < PAL__TILE_ROWS; i++) {
		int64_t pos = tile * PAL__TILE_ROWS + i, was = pos;
		if (pos >= v->end)
			break;
		if (pos >= v->position + v->n_new)
			was = pos - v->n_new + v->n_old;
		else if (pos >= v->position)
			continue;
		pal_status s = row_was(m, was, rows + (size_t)i * row_bytes(v->x), err);
		if (s)
			return s;
	}
	pal__matrix one = v->x->tile;
	one.n_rows = PAL__TILE_ROWS;
	one.n_tiles = 1;
	one.data = m->made + (size_t)tile % TILES * one.tile_bytes;
	pal__matrix_pack_tile(&one, 0, rows, NULL);
	return PAL_OK;
}

static pal_status move_pair(moving *m, pal_error *err)
{
	const move *v = m->v;
	size_t tile_bytes = v->x->tile.tile_bytes;
	pal__disk to = *v->to; /* others write, too */
	pal_status s = PAL_OK;
	for (int64_t slab = 0; !s && slab * PAL__SLAB < v->end; slab++) {
		size_t n = 0;
		for (; !s && n < TILES; n++) {
			int64_t tile = slab * (int64_t)TILES + (int64_t)n;
			if (tile * PAL__TILE_ROWS >= v->end)
				break;
			s = move_tile(m, tile, err);
		}
		if (!s)
			s = pal__disk_write(&to, m->made, n * tile_bytes,
					    tile_at(v->x, (size_t)slab * TILES, m->pair), err);
	}
	return s;
}

static void move_item(void *arg, size_t item, int worker)
{
	move *v = arg;
	size_t bytes = pal__matrix_bytes(&v->x->tile);
	uint8_t *space = pal__alloc_aligned(3 * bytes);
	pal_error error = {0};
	pal_status s;
	if (space) {
		moving m = {v, item, {-1, -1}, {space, space + bytes}, space + 2 * bytes};
		s = move_pair(&m, &error);
	} else {
		s = pal__fail_memory(&error, "the selection index", 3 * bytes);
	}
	(void)worker;
	if (s && !atomic_exchange(&v->failed, true))
		v->error = error;
	pal__free_aligned(space, 3 * bytes);
}

pal_status pal__index_move(pal__index *x, int64_t position, int64_t n_old, int64_t n_new,
			   int64_t end, pal_error *err)
{
	pal__disk to = PAL__NO_DISK;
	pal_status s = pal__disk_open(&to, x->dir, "the selection index", err);
	if (s)
		return s;
	move v = {.x = x,
		  .to = &to,
		  .position = position,
		  .n_old = n_old,
		  .n_new = n_new,
		  .end = end - n_old + n_new};
	pal__pool_run(x->m->pool, x->n_pairs, move_item, &v);
	if (v.failed) {
		pal__disk_close(&to);
		return pal__fail(err, v.error.code, "%s", v.error.text);
	}
	size_t tiles = ((size_t)v.end + PAL__TILE_ROWS - 1) / PAL__TILE_ROWS;
	to.bytes = tiles ? tile_at(x, tiles - 1, x->n_pairs - 1) + x->tile.tile_bytes : 0;
	pal__disk_close(&x->disk);
	x->disk = to;
	return PAL_OK;
}

static float *query(const pal__index *x, size_t head, int64_t pos)
{
	return x->queries +
	       (head * PAL__RING_ROWS + (size_t)(pos % PAL__RING_ROWS)) * x->tile.n_cols;
}

void pal__index_tap(pal__index *x, size_t layer, const pal__scratch *s, int64_t pos, int n)
{
	const pal__hparams *h = &x->m->h;
	int rows = n < PAL__KEPT_ROWS ? n : PAL__KEPT_ROWS;
	if (pos < x->q_from || pos > x->q_end || n > rows)
		x->q_from = pos + n - rows;
	x->q_end = pos + n;
	for (size_t i = 0; i < x->n_heads; i++) {
		if (x->heads[i].layer != layer)
			continue;
		for (int row = n - rows; row < n; row++) {
			float *to = query(x, i, pos + row);
			memset(to, 0, x->tile.n_cols * sizeof *to);
			memcpy(to,
			       s->q + ((size_t)row * h->n_heads + x->heads[i].head) * h->head_dim,
			       h->head_dim * sizeof *to);
			pal__finish_part(x->m, layer, PAL__Q, x->heads[i].head, to);
		}
	}
}

/* --- scoring ---------------------------------------------------------------------- */

/* Probe i is a query vector: of head head[i] at row row[i]. Those of a pair are neighbours. */
typedef struct {
	pal__index *x;
	size_t from, to; /* the heads whose vectors are scored */
	size_t n, head[PAL__MAX_PROBES], row[PAL__MAX_PROBES];
	size_t first[PAL__INDEX_HEADS + 1]; /* of each pair; one more at the end */
	const uint8_t *panels[PAL__INDEX_HEADS];
	float *vectors;
	int64_t end;
	size_t slab; /* of the wave */
	pal_error error;
	_Atomic bool failed;
} probing;

static void choose_probes(probing *p, int rows)
{
	pal__index *x = p->x;
	uint8_t *panel = x->panels;
	size_t k = x->tile.n_cols;
	rows = rows < x->max_rows ? rows : x->max_rows;
	rows = rows < x->q_end - x->q_from ? rows : (int)(x->q_end - x->q_from);
	for (size_t pair = 0; pair < x->n_pairs; pair++) {
		p->first[pair] = p->n;
		p->panels[pair] = panel;
		for (size_t h = p->from; h < p->to; h++)
			for (int r = 0; x->pair_of[h] == pair && r < rows; r++) {
				p->head[p->n] = h;
				p->row[p->n++] = (size_t)r;
			}
		/* Vectors of a pair, one after the other, become panels. */
		size_t n = p->n - p->first[pair], widest = (size_t)x->m->kernels->panel;
		for (size_t i = 0; i < n; i += widest) {
			int width = pal__panel_width(n - i, (int)widest);
			for (int c = 0; c < width; c++) {
				size_t at = p->first[pair] + i + (size_t)c;
				memcpy(p->vectors + (size_t)c * k,
				       query(x, p->head[at], x->q_end - rows + (int64_t)p->row[at]),
				       k * sizeof(float));
			}
			x->m->kernels->quantize(p->vectors, k, 0, k, width,
						panel + pal__panels_bytes(i, k));
		}
		panel += (pal__panels_bytes(n, k) + 63) & ~(size_t)63;
	}
	p->first[x->n_pairs] = p->n;
}

/* Pairs from `pair` on that are read together: neighbours in the file that have probes. */
static size_t pairs_at_once(const probing *p, size_t pair)
{
	size_t n = 0;
	while (n < PAIRS && pair + n < p->x->n_pairs && p->first[pair + n + 1] > p->first[pair + n])
		n++;
	return n;
}

/* What a slab of `n` positions in w says to the probes of a pair. */
static void score_slab(const probing *p, const pal__matrix *w, size_t n, size_t pair, float *y,
		       pal__peaks *out)
{
	const pal__kernels *k = p->x->m->kernels;
	size_t first = p->first[pair], count = p->first[pair + 1] - first;
	pal__acts acts = {.n = count, .k = w->n_cols, .q = p->panels[pair]};
	k->matmul(w, 0, w->n_tiles, &acts, y, PAL__SLAB);
	for (size_t i = 0; i < count; i++) {
		pal__peaks *o = out + first + i;
		for (size_t c = n / PAL_CHUNK; c < CHUNKS; c++)
			o->best[c] = -INFINITY;
		o->sum = k->peaks(y + i * PAL__SLAB, n, p->x->m->h.attn_scale, o->best, &o->most);
	}
}

static void slab_item(void *arg, size_t item, int worker)
{
	probing *p = arg;
	pal__index *x = p->x;
	size_t slab = p->slab + item, pair_bytes = TILES * x->tile.tile_bytes;
	int64_t from = (int64_t)(slab * PAL__SLAB);
	size_t n = (size_t)(p->end - from) < PAL__SLAB ? (size_t)(p->end - from) : PAL__SLAB;
	uint8_t *data = x->workers + (size_t)worker * x->worker_bytes;
	float *y = (float *)(void *)(data + slab_bytes(x));
	pal__matrix w = x->tile;
	w.n_rows = n;
	w.n_tiles = (n + PAL__TILE_ROWS - 1) / PAL__TILE_ROWS;
	for (size_t pair = 0, some; pair < x->n_pairs && !p->failed; pair += some ? some : 1) {
		pal_error error;
		some = pairs_at_once(p, pair);
		if (some && pal__disk_read(&x->disk, data,
					   (some - 1) * pair_bytes + w.n_tiles * w.tile_bytes,
					   tile_at(x, slab * TILES, pair), &error)) {
			if (!atomic_exchange(&p->failed, true))
				p->error = error;
			return;
		}
		for (size_t i = 0; i < some; i++) {
			w.data = data + i * pair_bytes;
			score_slab(p, &w, n, pair + i, y, x->wave + item * p->n);
		}
	}
}

/* What a probe has found so far: its best chunks, best first, and the sum over all. */
typedef struct {
	int32_t chunk[TOP];
	float value[TOP];
	float max, sum;
} best;

static void join_chunk(best *b, int32_t chunk, float value)
{
	int at = TOP;
	while (at > 0 && (b->chunk[at - 1] < 0 || b->value[at - 1] < value))
		at--;
	if (at == TOP)
		return;
	memmove(b->chunk + at + 1, b->chunk + at, (size_t)(TOP - 1 - at) * sizeof *b->chunk);
	memmove(b->value + at + 1, b->value + at, (size_t)(TOP - 1 - at) * sizeof *b->value);
	b->chunk[at] = chunk;
	b->value[at] = value;
}

/* Most slabs have nothing that is among the best. */
static void join_slab(best *b, int32_t chunk, const pal__peaks *s)
{
	if (!(s->most > -INFINITY))
		return;
	if (s->most > b->max) {
		b->sum = b->sum * pal__exp(b->max - s->most) + s->sum;
		b->max = s->most;
	} else {
		b->sum += s->sum * pal__exp(s->most - b->max);
	}
	if (b->chunk[TOP - 1] >= 0 && !(s->most > b->value[TOP - 1]))
		return;
	for (int32_t c = 0; c < (int32_t)CHUNKS; c++)
		if (s->best[c] > -INFINITY)
			join_chunk(b, chunk + c, s->best[c]);
}

void pal__found_add(pal__found found[PAL__MAX_FOUND], size_t *n, pal__found f)
{
	size_t at = *n;
	while (at > 0 && (found[at - 1].score < f.score ||
			  (found[at - 1].score == f.score && found[at - 1].chunk > f.chunk)))
		at--;
	if (at == PAL__MAX_FOUND)
		return;
	*n += *n < PAL__MAX_FOUND;
	memmove(found + at + 1, found + at, (*n - at - 1) * sizeof *found);
	found[at] = f;
}

/* Chunks that probes look for, each with its scores by both head sets: sums over rows and heads, in
 * the order of the probes. */
typedef struct {
	int32_t chunk;
	float first, later;
} scored;

typedef struct {
	scored list[PAL__MAX_PROBES * TOP];
	uint16_t slot[2 * PAL__MAX_PROBES * TOP]; /* by the chunk's number: its place and 1, or 0 */
	size_t n;
} tally;

static scored *place_of(tally *t, int32_t chunk)
{
	size_t slots = sizeof t->slot / sizeof t->slot[0], at = (size_t)chunk % slots;
	while (t->slot[at] && t->list[t->slot[at] - 1].chunk != chunk)
		at = (at + 1) % slots;
	if (!t->slot[at]) {
		t->list[t->n] = (scored){.chunk = chunk};
		t->slot[at] = (uint16_t)++t->n;
	}
	return &t->list[t->slot[at] - 1];
}

static void rank(const probing *p, const best *all, bool later, pal__found *found, size_t *n)
{
	tally t;
	memset(t.slot, 0, sizeof t.slot);
	t.n = 0;
	for (size_t i = 0; i < p->n; i++)
		for (int k = 0; k < TOP && all[i].chunk[k] >= 0; k++) {
			scored *s = place_of(&t, all[i].chunk[k]);
			float share = pal__exp(all[i].value[k] - all[i].max) / all[i].sum;
			s->first += p->x->first[p->head[i]] ? share : 0;
			s->later += p->x->later[p->head[i]] ? share : 0;
		}
	*n = 0;
	for (size_t i = 0; i < t.n; i++) {
		const scored *s = &t.list[i];
		float score = later && s->later > s->first ? s->later : s->first;
		pal__found_add(found, n, (pal__found){s->chunk, score});
	}
}

/* The best chunks below `end` of every query vector of heads [from, to): all[p->n]. */
static pal_status find_best(probing *p, int rows, best all[PAL__MAX_PROBES], pal_error *err)
{
	pal__index *x = p->x;
	choose_probes(p, rows);
	for (size_t i = 0; i < p->n; i++) {
		all[i] = (best){.max = -INFINITY};
		memset(all[i].chunk, 0xff, sizeof all[i].chunk);
	}
	size_t slabs = ((size_t)p->end + PAL__SLAB - 1) / PAL__SLAB;
	size_t most = p->n ? x->n_wave / p->n : slabs;
	for (p->slab = 0; p->slab < slabs; p->slab += most) {
		size_t wave = slabs - p->slab < most ? slabs - p->slab : most;
		pal__pool_run(x->m->pool, wave, slab_item, p);
		if (p->failed)
			return pal__fail(err, p->error.code, "%s", p->error.text);
		for (size_t item = 0; item < wave; item++)
			for (size_t i = 0; i < p->n; i++)
				join_slab(&all[i], (int32_t)((p->slab + item) * CHUNKS),
					  x->wave + item * p->n + i);
	}
	return PAL_OK;
}

pal_status pal__index_score(pal__index *x, int64_t end, int rows, bool later,
			    pal__found found[PAL__MAX_FOUND], size_t *n, pal_error *err)
{
	best all[PAL__MAX_PROBES];
	probing p = {.x = x, .to = x->n_heads, .vectors = (float *)(void *)x->wave};
	p.end = end < x->end ? end : x->end;
	*n = 0;
	if (p.end <= 0 || x->q_end == x->q_from)
		return PAL_OK;
	pal_status s = find_best(&p, rows, all, err);
	if (s == PAL_OK)
		rank(&p, all, later, found, n);
	return s;
}

pal_status pal__index_look(pal__index *x, int64_t end,
			   void (*at)(void *user, const pal__look *look), void *user,
			   pal_error *err)
{
	best all[PAL__MAX_PROBES];
	pal_status s = PAL_OK;
	end = end < x->end ? end : x->end;
	for (size_t from = 0; end > 0 && from < x->n_heads && s == PAL_OK; from += x->at_once) {
		probing p = {.x = x, .from = from, .end = end, .vectors = (float *)(void *)x->wave};
		p.to = from + x->at_once < x->n_heads ? from + x->at_once : x->n_heads;
		s = find_best(&p, PAL__SCORED_ROWS, all, err);
		for (size_t i = 0; i < p.n && s == PAL_OK; i++) {
			pal__look look = {.head = p.head[i]};
			for (; look.n < TOP && all[i].chunk[look.n] >= 0; look.n++)
				look.found[look.n] = (pal__found){
					all[i].chunk[look.n],
					pal__exp(all[i].value[look.n] - all[i].max) / all[i].sum};
			at(user, &look);
		}
	}
	return s;
}
