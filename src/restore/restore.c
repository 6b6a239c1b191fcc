#include "restore/restore.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"

static const char *const names[] = {"recompute", "spill", "hidden", "project"};

static bool spills(const pal__restore *r)
{
	return r->source == PAL_SOURCE_SPILL;
}

static bool hides(const pal__restore *r)
{
	return r->source == PAL_SOURCE_HIDDEN;
}

static bool projects(const pal__restore *r)
{
	return r->source == PAL_SOURCE_PROJECT;
}

/* Whether a proposer could be what its side-car says; path: of that, or NULL. */
static pal_status check_proposer(const pal_model *m, const pal_model *proposer, const char *path,
				 pal_error *err)
{
	int32_t first;
	if (!path)
		return pal__fail(err, PAL_EINVAL,
				 "a proposer needs a side-car that was fitted with it (pal fit): "
				 "none is given, and none is beside the model");
	if (proposer->no_weights)
		return pal__fail(err, PAL_EINVAL,
				 "%s, the proposer, was opened without its weights",
				 proposer->path);
	if (!pal__tokenizer_same(m->tokenizer, proposer->tokenizer, &first))
		return pal__fail(err, PAL_EINVAL,
				 "%s cannot be the proposer: its token %d is not that of %s",
				 proposer->path, first, m->path);
	return PAL_OK;
}

/* Whether a side-car that was read, or none, can project. */
static pal_status check_side(const pal__sidecar *side, const char *path, pal_error *err)
{
	if (!path || side->from >= side->n_layers)
		return pal__fail(
			err, PAL_EINVAL,
			"restoring by projection needs a side-car that has one (pal fit): %s",
			path ? path : "none is given, and none is beside the model");
	if (side->separate && !side->proposer)
		return pal__fail(
			err, PAL_EINVAL,
			"%s projects the states of a proposer, %016llx, which is not given", path,
			(unsigned long long)side->proposer_hash);
	return PAL_OK;
}

/* The side-car that is named, or the one beside the model. */
static pal_status open_side(pal__restore *r, const pal_session_options *o, pal_error *err)
{
	const pal_model *m = r->site.m;
	static const char end[] = ".gguf", side[] = ".side.gguf";
	size_t n = m->path ? strlen(m->path) : 0;
	char *beside = NULL;
	const char *path = o->side_car;
	if (!path && n > strlen(end) && !strcmp(m->path + n - strlen(end), end)) {
		beside = pal__alloc(n + sizeof side);
		if (!beside)
			return pal__fail_memory(err, "a path", n + sizeof side);
		memcpy(beside, m->path, n - strlen(end));
		memcpy(beside + n - strlen(end), side, sizeof side);
		path = access(beside, F_OK) ? NULL : beside;
	}
	pal_status s = o->proposer ? check_proposer(m, o->proposer, path, err) : PAL_OK;
	if (!s && path)
		s = pal__sidecar_open(path, m, o->proposer, &r->side, err);
	if (!s && projects(r))
		s = check_side(&r->side, path, err);
	pal__free(beside);
	return s;
}

pal_status pal__restore_shape(pal__restore *r, const pal__site *site, const pal_session_options *o,
			      size_t *bytes, pal_error *err)
{
	static const pal__pack_kind kinds[] = {PAL__PACK_F16, PAL__PACK_INT8, PAL__PACK_AFFINE4};
	*r = (pal__restore){.site = *site, .source = o->source, .slots = o->slots};
	r->index.disk = r->spill.disk = r->hidden.disk = r->memo.disk = PAL__NO_DISK;
	if ((unsigned)o->source >= PAL_N_SOURCES)
		return pal__fail(err, PAL_EUNSUPPORTED, "the source %d is not known",
				 (int)o->source);
	if ((unsigned)o->spill_type >= sizeof kinds / sizeof kinds[0])
		return pal__fail(err, PAL_EINVAL, "the spill type %d is not known",
				 (int)o->spill_type);
	pal_status s = site->all_heads ? PAL_OK : open_side(r, o, err);
	if (s)
		return s;
	if (site->all_heads)
		pal__index_shape_all(&r->index, site->m, &site->kv->shape);
	else
		pal__index_shape(&r->index, site->m, &site->kv->shape, r->side.first.heads,
				 r->side.first.n, r->side.later.heads, r->side.later.n,
				 o->restore_prefill ? PAL__KEPT_ROWS : PAL__SCORED_ROWS);
	size_t runs, memo, index, rope = PAL__SPAN_ROWS * site->m->h.n_rot * sizeof(float);
	*bytes = pal__arena_need(rope);
	bool fits = pal__runs_need(site, &runs) && pal__add_size(*bytes, runs, bytes) &&
		    pal__memo_need(site, o->slots, &memo) && pal__add_size(*bytes, memo, bytes) &&
		    pal__index_need(&r->index, &index) && pal__add_size(*bytes, index, bytes);
	if (projects(r))
		fits = fits && pal__projector_need(&r->side, site, &runs) &&
		       pal__add_size(*bytes, runs, bytes);
	if (spills(r))
		fits = fits &&
		       pal__spill_shape(&r->spill, site, kinds[o->spill_type], o->disk_budget) &&
		       pal__add_size(*bytes, pal__spill_need(&r->spill, site), bytes);
	if (hides(r))
		fits = fits && pal__hidden_shape(&r->hidden, site, o->disk_budget) &&
		       pal__add_size(*bytes, pal__hidden_need(&r->hidden), bytes);
	return fits ? PAL_OK : pal__fail(err, PAL_ELIMIT, "the session is too large");
}

pal_status pal__restore_init(pal__restore *r, pal__arena *arena, const char *dir, pal_error *err)
{
	r->site.rope = pal__arena_take(arena, PAL__SPAN_ROWS * r->site.m->h.n_rot * sizeof(float));
	pal__runs_init(&r->runs, &r->site, arena);
	pal__memo_init(&r->memo, &r->site, r->slots, &r->runs, arena, dir);
	if (projects(r))
		pal__projector_init(&r->projector, &r->side, &r->site, arena);
	pal_status s = pal__index_init(&r->index, arena, dir, err);
	if (!s && spills(r))
		s = pal__spill_init(&r->spill, &r->site, arena, dir, err);
	if (!s && hides(r))
		s = pal__hidden_init(&r->hidden, arena, dir, err);
	return s;
}

void pal__restore_close(pal__restore *r)
{
	pal__index_close(&r->index);
	pal__spill_close(&r->spill);
	pal__hidden_close(&r->hidden);
	pal__memo_close(&r->memo);
	pal__sidecar_close(&r->side);
}

pal_status pal__restore_keep(pal__restore *r, int64_t end, pal_error *err)
{
	if (end <= r->kept)
		return PAL_OK;
	pal_status s = pal__index_keep(&r->index, r->site.kv, end, err);
	if (!s && spills(r))
		s = pal__spill_keep(&r->spill, &r->site, end, &r->dropped, err);
	if (!s)
		r->kept = end;
	return s;
}

void pal__restore_tap(void *restore, size_t layer, const pal__scratch *s, int n)
{
	pal__restore *r = restore;
	pal__index_tap(&r->index, layer, s, r->site.rows[0].pos, n);
	if (hides(r))
		pal__hidden_write(&r->hidden, &r->site, layer, s, n, &r->dropped);
}

pal_status pal__restore_tapped(pal__restore *r, pal_error *err)
{
	pal_error e = r->hidden.error;
	r->hidden.error = (pal_error){0};
	return e.code ? pal__fail(err, e.code, "%s", e.text) : PAL_OK;
}

int64_t pal__restore_end(const pal__restore *r, int64_t pos)
{
	const pal__kv *kv = r->site.kv;
	pal__kv_sight sight = pal__kv_sees(kv, pal__kv_main_layer(&kv->shape, 0), pos);
	return sight.far ? sight.first : 0;
}

/* Whether a chunk's K/V are made from tokens: such chunks go together, as many as fit a batch. */
static bool reads_tokens(pal_source source)
{
	return source == PAL_SOURCE_RECOMPUTE || source == PAL_SOURCE_PROJECT;
}

/* One chunk from a file. */
static pal_status fill_one(pal__restore *r, pal_source source, const pal__span *span,
			   pal_error *err)
{
	pal__restore *from = r->other ? r->other : r;
	if (source == PAL_SOURCE_SPILL && spills(from))
		return pal__spill_fill(&from->spill, &r->site, span, err);
	if (source == PAL_SOURCE_HIDDEN && hides(from))
		return pal__hidden_fill(&from->hidden, &r->site, span, err);
	return pal__fail(err, PAL_EINVAL, "this session has no source %s",
			 (size_t)source < PAL_N_SOURCES ? names[source] : "of that number");
}

/* The spans of chunks, one behind the other, without what is not evicted or twice. */
static void lay_spans(const pal__restore *r, const int32_t *chunks, int n, int64_t end,
		      pal__span *spans)
{
	int64_t before = r->site.kv->shape.sink;
	size_t row = (size_t)before;
	for (int i = 0; i < n; i++) {
		int64_t from = (int64_t)chunks[i] * PAL_CHUNK - PAL_CHUNK_MARGIN,
			to = from + PAL__SPAN_ROWS;
		from = from < before ? before : from;
		to = to > end ? end : to;
		to = to < from ? from : to;
		spans[i] = (pal__span){from, to, row};
		row += (size_t)(to - from);
		before = to;
	}
}

pal_status pal__restore_fill(pal__restore *r, const int32_t *chunks, const uint8_t *sources, int n,
			     int64_t end, bool exact, pal_error *err)
{
	pal__span spans[PAL_MAX_SLOTS];
	pal_error why = {0};
	const int32_t *log = r->site.log;
	assert(n <= r->slots);
	lay_spans(r, chunks, n, end, spans);
	if (r->other)
		r->site.log = r->other->site.log;
	pal_status s = PAL_OK;
	pal__span tokens[2][PAL_MAX_SLOTS] = {{{0}}}; /* to recompute, to project */
	size_t n_tokens[2] = {0};
	for (int i = 0; i < n; i++) {
		pal_source source = exact ? (pal_source)sources[i] : r->source;
		if (source == PAL_SOURCE_PROJECT && !projects(r))
			s = pal__fail(&why, PAL_EINVAL, "this session has no source project");
		else if (!reads_tokens(source))
			s = fill_one(r, source, &spans[i], &why);
		if (s && exact)
			break;
		if (s) {
			r->fallbacks++;
			pal__memo_displace(&r->memo, UINT64_MAX); /* it may have put some rows */
			snprintf(r->note, sizeof r->note, "%.200s: recomputed", why.text);
			source = PAL_SOURCE_RECOMPUTE;
			s = PAL_OK;
		}
		int list = source == PAL_SOURCE_PROJECT;
		if (reads_tokens(source))
			tokens[list][n_tokens[list]++] = spans[i];
		r->chunks[i] = chunks[i];
		r->sources[i] = (uint8_t)source;
		r->filled[source]++;
	}
	if (s) {
		pal__fail(err, s, "%s", why.text);
		pal__memo_displace(&r->memo, UINT64_MAX);
	} else {
		pal__recompute(&r->memo, &r->runs, &r->site, tokens[0], n_tokens[0]);
	}
	if (!s && n_tokens[1])
		pal__project_spans(&r->projector, &r->runs, &r->site, tokens[1], n_tokens[1]);
	if (!s && r->side.proposer)
		s = pal__model_intact(r->side.proposer, err);
	const pal__span *last = n && !s ? &spans[n - 1] : NULL;
	r->site.log = log;
	r->n_chunks = s ? 0 : n;
	r->site.kv->far_rows = last ? last->row + (size_t)(last->end - last->from)
				    : (size_t)r->site.kv->shape.sink;
	return s;
}
