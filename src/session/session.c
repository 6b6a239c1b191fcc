#include "session/session.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "base/checked.h"
#include "base/clock.h"

/* --- opening ------------------------------------------------------------------------ */

typedef struct {
	pal_session_options o;
	pal__kv_shape kv;
	bool bounded, restores, all_heads;
	pal__batcher *batcher;  /* or NULL: it has a scratch of its own */
	size_t kv_bytes, other; /* other: scratch, log, rows, logits, restoration */
} needs;

/* What restoration works on, as far as it is known before the arena is. */
static pal__site site_of(pal_model *m, const needs *n, pal__kv *kv)
{
	return (pal__site){.m = m,
			   .kv = kv,
			   .n_batch = n->o.n_batch,
			   .left = n->o.left,
			   .all_heads = n->all_heads};
}

/* out: with all_heads and engine. */
static pal_status measure(const pal_model *m, const pal_session_options *options, needs *out,
			  pal_error *err)
{
	needs n = {.all_heads = out->all_heads, .batcher = out->batcher};
	pal_status status = pal__session_plan(m, options, &n.o, &n.kv, err);
	if (status != PAL_OK)
		return status;
	n.bounded = n.kv.window > 0;
	n.restores = n.bounded && n.o.kv_policy == PAL_KV_RESTORED;
	size_t row = m->h.n_vocab * sizeof(float);
	size_t log = n.bounded ? 0 : (size_t)n.o.n_ctx * sizeof(int32_t);
	size_t parts[] = {log, row, row, (size_t)n.o.n_batch * sizeof(pal__row)};
	bool fits = pal__kv_need(&n.kv, &n.kv_bytes) &&
		    (n.batcher || pal__scratch_need(m, n.o.n_batch, &n.other));
	for (size_t i = 0; fits && i < sizeof parts / sizeof parts[0]; i++)
		fits = pal__add_size(n.other, pal__arena_need(parts[i]), &n.other);
	if (fits && n.restores) {
		pal__restore restore;
		pal__kv kv = {.shape = n.kv};
		kv.main.n_layers = n.kv.slide ? n.kv.n_layers / n.kv.slide_every : n.kv.n_layers;
		pal__site site = site_of((pal_model *)m, &n, &kv);
		size_t bytes;
		status = pal__restore_shape(&restore, &site, &n.o, &bytes, err);
		pal__restore_close(&restore);
		if (status)
			return status;
		fits = pal__add_size(n.other, bytes, &n.other);
	}
	if (!fits)
		return pal__fail(err, PAL_ELIMIT, "a context of %lld tokens is too large",
				 (long long)n.o.n_ctx);
	*out = n;
	return PAL_OK;
}

pal_status pal_session_need(const pal_model *model, const pal_session_options *options,
			    uint64_t *kv_bytes, uint64_t *scratch_bytes, pal_error *err)
{
	needs n = {0};
	pal_status s = measure(model, options, &n, err);
	if (s != PAL_OK)
		return s;
	*kv_bytes = n.kv_bytes;
	*scratch_bytes = n.other;
	return PAL_OK;
}

pal_status pal__session_need_on(pal__batcher *e, const pal_model *m,
				const pal_session_options *options, size_t *bytes, pal_error *err)
{
	needs n = {.batcher = e};
	pal_status s = measure(m, options, &n, err);
	if (!s && !pal__add_size(n.kv_bytes, n.other, bytes))
		s = pal__fail(err, PAL_ELIMIT, "the session is too large for this machine");
	return s;
}

/* The memory that every session touches soon, and of K/V what some hundred tokens need, is made
 * resident by all threads at once rather than page by page between two tokens. */
#define TOUCHED_KV ((size_t)128 << 20)
#define TOUCHED_PIECE ((size_t)4 << 20)

typedef struct {
	uint8_t *base;
	size_t kv, rest, end; /* bytes: of K/V to touch; where the rest starts and ends */
} touching;

static void touch_item(void *arg, size_t item, int worker)
{
	const touching *t = arg;
	size_t pieces = (t->kv + TOUCHED_PIECE - 1) / TOUCHED_PIECE;
	size_t at =
		item < pieces ? item * TOUCHED_PIECE : t->rest + (item - pieces) * TOUCHED_PIECE;
	size_t end = item < pieces ? t->kv : t->end;
	(void)worker;
	pal__populate(t->base + at, end - at < TOUCHED_PIECE ? end - at : TOUCHED_PIECE);
}

static void touch(const pal_session *s, size_t kv)
{
	touching t = {.base = s->arena.base, .rest = kv, .end = s->arena.size};
	t.kv = kv < TOUCHED_KV ? kv : TOUCHED_KV;
	size_t items = (t.kv + TOUCHED_PIECE - 1) / TOUCHED_PIECE +
		       (t.end - t.rest + TOUCHED_PIECE - 1) / TOUCHED_PIECE;
	pal__pool_run(s->model->pool, items, touch_item, &t);
}

/* The log of a bounded session: written by pwrite, so that a full disk is a message, and read
 * through a mapping whose pages the system can take back. */
static pal_status open_files(pal_session *s, pal_error *err)
{
	pal_status status = pal__disk_open(&s->log_file, s->o.disk_dir, "the token log", err);
	if (!status)
		status = pal__disk_open(&s->event_file, s->o.disk_dir, "the event log", err);
	if (status)
		return status;
	void *p = mmap(NULL, (size_t)s->n_ctx * sizeof *s->log, PROT_READ,
		       MAP_SHARED | MAP_NORESERVE, s->log_file.fd, 0);
	if (p == MAP_FAILED)
		return pal__fail(err, PAL_EIO, "the token log: cannot map %lld tokens: %s",
				 (long long)s->n_ctx, strerror(errno));
	s->log = p;
	return PAL_OK;
}

static pal_status fill_in(pal_session *s, const needs *n, pal_error *err)
{
	size_t row = s->model->h.n_vocab * sizeof *s->logits;
	pal__kv_init(&s->kv, &n->kv, &s->arena);
	if (n->batcher)
		s->scratch = pal__batcher_scratch(n->batcher, s->n_batch);
	else
		pal__scratch_init(&s->scratch, s->model, s->n_batch, &s->arena);
	if (!s->bounded)
		s->log = pal__arena_take(&s->arena, (size_t)s->n_ctx * sizeof *s->log);
	s->logits = pal__arena_take(&s->arena, row);
	s->next_logits = pal__arena_take(&s->arena, row);
	s->rows = pal__arena_take(&s->arena, (size_t)s->n_batch * sizeof *s->rows);
	pal_status status = s->bounded ? open_files(s, err) : PAL_OK;
	if (!status && s->restores) {
		size_t bytes;
		pal__site site = site_of(s->model, n, &s->kv);
		site.scratch = &s->scratch;
		site.rows = s->rows;
		site.log = s->log;
		status = pal__restore_shape(&s->restore, &site, &s->o, &bytes, err);
		if (!status)
			status = pal__restore_init(&s->restore, &s->arena, s->o.disk_dir, err);
	}
	return status;
}

static pal_status open_session(pal_model *model, const pal_session_options *options, needs n,
			       pal_session **out, pal_error *err)
{
	pal_status status = measure(model, options, &n, err);
	if (status != PAL_OK)
		return status;
	if (model->no_weights)
		return pal__fail(err, PAL_EINVAL, "%s was opened without its weights", model->path);
	size_t bytes;
	if (!pal__add_size(n.kv_bytes, n.other, &bytes))
		return pal__fail(err, PAL_ELIMIT, "the session is too large for this machine");
	pal_session *s = pal__calloc(1, sizeof *s);
	if (!s)
		return pal__fail_memory(err, "the session", sizeof *s);
	s->model = model;
	s->o = n.o;
	s->n_batch = n.o.n_batch;
	s->n_ctx = n.o.n_ctx;
	s->bounded = n.bounded;
	s->restores = n.restores;
	s->scratch_bytes = n.other;
	s->log_file = s->event_file = s->change_file = s->change_ids = s->parked = PAL__NO_DISK;
	s->restore.index.disk = PAL__NO_DISK;
	s->restore.spill.disk = s->restore.hidden.disk = s->restore.memo.disk = PAL__NO_DISK;
	status = pal__arena_init(&s->arena, bytes, "the session", err);
	if (!status)
		status = fill_in(s, &n, err);
	if (status) {
		pal_session_close(s);
		return status;
	}
	touch(s, n.kv_bytes);
	*out = s;
	return PAL_OK;
}

pal_status pal_session_open(pal_model *model, const pal_session_options *options, pal_session **out,
			    pal_error *err)
{
	return open_session(model, options, (needs){0}, out, err);
}

pal_status pal__session_open_on(pal__batcher *e, pal_model *m, const pal_session_options *options,
				pal_session **out, pal_error *err)
{
	return open_session(m, options, (needs){.batcher = e}, out, err);
}

pal_status pal__session_open_all(pal_model *model, const pal_session_options *options,
				 pal_session **out, pal_error *err)
{
	return open_session(model, options, (needs){.all_heads = true}, out, err);
}

pal_status pal__session_ask_heads(pal_session *s, void (*at)(void *user, const pal__look *look),
				  void *user, pal_error *err)
{
	int64_t end = pal__restore_end(&s->restore, s->length - s->o.reread);
	return pal__index_look(&s->restore.index, end, at, user, err);
}

void pal_session_close(pal_session *s)
{
	if (!s)
		return;
	if (s->bounded && s->log)
		munmap(s->log, (size_t)s->n_ctx * sizeof *s->log);
	pal__disk_close(&s->log_file);
	pal__disk_close(&s->event_file);
	pal__disk_close(&s->change_file);
	pal__disk_close(&s->change_ids);
	pal__disk_close(&s->parked);
	if (s->restores)
		pal__restore_close(&s->restore);
	pal__arena_free(&s->arena);
	pal__free(s);
}

pal_model *pal__session_model(const pal_session *s)
{
	return s->model;
}

int64_t pal_session_length(const pal_session *s)
{
	return s->length;
}

const int32_t *pal_session_log(const pal_session *s)
{
	return s->log;
}

const float *pal_session_logits(const pal_session *s)
{
	return s->has_logits ? s->logits : NULL;
}

/* --- reading ------------------------------------------------------------------------ */

/* Rows that the next forward pass makes leave their ring: they are kept before. */
static pal_status keep(pal_session *s, int64_t last, pal_error *err)
{
	int64_t block = last / PAL__ATTN_BLOCK + 1 - (int64_t)s->kv.main.n_blocks;
	if (!s->restores || block <= 0)
		return PAL_OK;
	return pal__restore_keep(&s->restore, block * PAL__ATTN_BLOCK, err);
}

/* Restored positions that a query at pos attends to. */
static uint64_t far_reads(const pal_session *s, int64_t pos)
{
	size_t layer = pal__kv_main_layer(&s->kv.shape, 0);
	if (!s->restores || !pal__kv_sees(&s->kv, layer, pos).far)
		return 0;
	return s->kv.far_rows - (size_t)s->kv.shape.sink;
}

void pal__session_uncount(pal_session *s, size_t kept, size_t n)
{
	for (size_t i = 0; i < n - kept; i++)
		s->far_reads -= far_reads(s, s->length + (int64_t)i);
}

/* How many of n positions from pos on go into one forward pass. */
static size_t piece(const pal_session *s, int64_t pos, size_t n)
{
	n = n < (size_t)s->n_batch ? n : (size_t)s->n_batch;
	n = pal__kv_piece(&s->kv, pos, n);
	size_t to_event = PAL__ATTN_BLOCK - (size_t)(pos % PAL__ATTN_BLOCK);
	return s->restores && s->o.restore_prefill && n > to_event ? to_event : n;
}

static pal_status run(pal_session *s, size_t n, pal_error *err)
{
	pal__tap tap = {.at = pal__restore_tap, .user = &s->restore};
	for (size_t i = 0; i < n; i++)
		s->far_reads += far_reads(s, s->rows[i].pos);
	pal__forward(s->model, &s->scratch, s->rows, (int)n, s->restores ? &tap : NULL);
	return s->restores ? pal__restore_tapped(&s->restore, err) : PAL_OK;
}

pal_status pal__session_read(pal_session *s, const pal__reading *r, pal_error *err)
{
	size_t n_vocab = s->model->h.n_vocab;
	for (size_t done = 0; done < r->n;) {
		int64_t pos = s->length + (int64_t)done;
		size_t m = piece(s, pos, r->n - done);
		pal_status status = keep(s, pos + (int64_t)m - 1, err);
		if (status)
			return status;
		for (size_t i = 0; i < m; i++) {
			float *to = r->logits ? r->logits + (done + i) * n_vocab : NULL;
			if (!r->logits && done + i + 1 == r->n)
				to = s->next_logits;
			s->rows[i] = (pal__row){r->ids[done + i], pos + (int64_t)i, &s->kv, to};
		}
		status = run(s, m, err);
		if (status)
			return status;
		done += m;
		pos += (int64_t)m;
		s->written = pos > s->written ? pos : s->written;
		if (s->restores && s->o.restore_prefill && !r->replay &&
		    pos % PAL__ATTN_BLOCK == 0) {
			status = pal__session_restore_prefill(s, pos, r->logits, s->length, err);
			if (status)
				return status;
		}
		if (r->progress && !r->progress(r->user, done, r->n))
			return pal__fail(err, PAL_ECANCELLED, "cancelled after %zu of %zu tokens",
					 done, r->n);
	}
	return pal__model_intact(s->model, err);
}

static pal_status check_ids(const pal_session *s, const int32_t *ids, size_t n, pal_error *err)
{
	size_t n_vocab = s->model->h.n_vocab;
	for (size_t i = 0; i < n; i++)
		if (ids[i] < 0 || (size_t)ids[i] >= n_vocab)
			return pal__fail(
				err, PAL_EINVAL,
				"token %d at position %lld: the vocabulary has ids 0 to %zu",
				ids[i], (long long)s->length + (long long)i, n_vocab - 1);
	if (n > (size_t)(s->n_ctx - s->length))
		return pal__fail(err, PAL_ELIMIT,
				 "%zu tokens after %lld: the context has room for %lld", n,
				 (long long)s->length, (long long)s->n_ctx);
	return PAL_OK;
}

/* The log's pages that were read or written leave this process; their file has them. */
static void forget_log(const pal_session *s)
{
	madvise(s->log, ((size_t)s->length * sizeof *s->log + 4095) & ~(size_t)4095, MADV_DONTNEED);
}

/* Whether a pass that fails half-way leaves a K/V that no longer is the log's. */
static bool has_rings(const pal_session *s)
{
	return s->bounded || s->kv.shape.slide;
}

pal_status pal__session_write_log(pal_session *s, const int32_t *ids, size_t n, pal_error *err)
{
	pal_status status = check_ids(s, ids, n, err);
	if (!status)
		status = pal__session_refresh(s, err);
	if (status)
		return status;
	if (s->bounded)
		return pal__disk_write(&s->log_file, ids, n * sizeof *ids,
				       (uint64_t)s->length * sizeof *ids, err);
	memcpy(s->log + s->length, ids, n * sizeof *ids);
	return PAL_OK;
}

pal_status pal__session_failed(pal_session *s, uint64_t n_events, pal_status status)
{
	s->stale = s->stale || has_rings(s);
	s->n_events = n_events;
	return status;
}

pal_status pal__session_room(pal_session *s, size_t n, size_t *room, pal_error *err)
{
	pal_status status = pal__session_refresh(s, err);
	if (status)
		return status;
	if (s->length >= s->n_ctx)
		return pal__fail(err, PAL_ELIMIT, "the context has room for %lld",
				 (long long)s->n_ctx);
	n = (uint64_t)n < (uint64_t)(s->n_ctx - s->length) ? n : (size_t)(s->n_ctx - s->length);
	n = piece(s, s->length, n);
	/* With a new block older ones go to files, which then are looked for, or forgotten there:
	 * for tokens that are certain only. */
	size_t to_border = PAL__ATTN_BLOCK - (size_t)(s->length % PAL__ATTN_BLOCK);
	n = s->restores && n > to_border ? to_border : n;
	/* Events of restore_prefill come at the end of a pass, and only of one token here. */
	if (s->restores && s->o.restore_prefill && n > 1 &&
	    (s->length + (int64_t)n) % PAL__ATTN_BLOCK == 0)
		n--;
	int64_t end = s->length + (int64_t)n;
	status = keep(s, end - 1, err);
	if (status)
		return status;
	s->written = end > s->written ? end : s->written;
	*room = n;
	return PAL_OK;
}

pal_status pal_session_append(pal_session *s, const int32_t *ids, size_t n, float *logits,
			      pal_session_progress progress, void *user, pal_error *err)
{
	if (!n)
		return PAL_OK;
	pal_status status = pal__session_write_log(s, ids, n, err);
	if (status)
		return status;
	uint64_t n_events = s->n_events;
	status = pal__session_read(s, &(pal__reading){ids, n, logits, progress, user, false}, err);
	if (status)
		return pal__session_failed(s, n_events, status);
	int64_t before = s->length;
	s->length += (int64_t)n;
	if (s->bounded && before / 65536 != s->length / 65536)
		forget_log(s);
	if (logits)
		memcpy(s->next_logits, logits + (n - 1) * s->model->h.n_vocab,
		       s->model->h.n_vocab * sizeof *logits);
	pal__session_new_logits(s);
	return PAL_OK;
}

void pal__session_new_logits(pal_session *s)
{
	float *last = s->logits;
	s->logits = s->next_logits;
	s->next_logits = last;
	s->has_logits = true;
	s->settled = false;
	s->hidden = NULL;
}

/* --- going back --------------------------------------------------------------------- */

/* Forgets everything but log and events. */
static void empty(pal_session *s)
{
	s->kv.far_rows = (size_t)s->kv.shape.sink;
	s->written = s->bare = 0;
	s->restore.kept = s->restore.index.end = s->restore.spill.end = 0;
	s->restore.hidden.doubt_from = s->restore.hidden.doubt_end = 0;
	s->restore.spill.doubt_from = s->restore.spill.doubt_end = 0;
	s->restore.n_chunks = 0;
	pal__index_restart(&s->restore.index, 0);
}

/* Log and events from where the session is, up to `end` tokens and event n_events; *i: the next. */
static pal_status play(pal_session *s, int64_t end, uint64_t *i, uint64_t n_events, pal_error *err)
{
	pal_status status = PAL_OK;
	while (!status && (s->length < end || *i < n_events)) {
		pal_event e = {.position = end};
		if (*i < n_events)
			status = pal_session_event(s, *i, &e, err);
		/* It may come from a file. */
		if (!status && (e.position < s->length || e.position > end))
			status = pal__fail(err, PAL_EFORMAT,
					   "event %llu at position %lld, before %lld",
					   (unsigned long long)*i, (long long)e.position,
					   (long long)s->length);
		pal__reading r = {.ids = s->log + s->length,
				  .n = (size_t)(e.position - s->length),
				  .replay = true};
		if (!status && r.n)
			status = pal__session_read(s, &r, err);
		s->length = status ? s->length : e.position;
		if (status || *i == n_events)
			continue;
		status = pal__session_check_event(s, &e, s->length, err);
		if (status)
			continue;
		pal__recalling again = {.at = e.position,
					.reread = e.reread,
					.chunks = e.chunks,
					.sources = e.sources,
					.n = e.n_chunks,
					.replay = true};
		status = pal__session_event(s, &again, err);
		(*i)++;
	}
	return status;
}

/* Log, events and changes once more, from the start. */
static pal_status replay(pal_session *s, pal_error *err)
{
	int64_t end = s->length, length = end;
	uint64_t event = 0;
	pal_status status = pal__session_log_of(s, 0, &length, err);
	empty(s);
	s->length = 0;
	for (uint64_t i = 0; !status && i < s->n_changes; i++) {
		pal__changed c = {0};
		int32_t *ids = NULL;
		status = pal__session_changed(s, i, &c, &ids, err);
		pal__free(ids);
		if (!status && (c.at < s->length || c.at > length))
			status = pal__fail(err, PAL_EFORMAT, "change %llu at a log of %lld tokens",
					   (unsigned long long)i, (long long)c.at);
		if (!status)
			status = play(s, c.at, &event, c.n_events, err);
		if (!status && !pal__session_can_change(s, c.position, c.n_old, c.n_new))
			status = pal__fail(err, PAL_EFORMAT, "change %llu at position %lld",
					   (unsigned long long)i, (long long)c.position);
		if (!status)
			status = pal__session_play_change(s, i, length, err);
		length += status ? 0 : c.n_new - c.n_old;
	}
	if (!status)
		status = play(s, end, &event, s->n_events, err);
	if (status && pal__session_log_of(s, s->n_changes, &length, NULL))
		s->broken = true;
	s->length = end;
	return status;
}

pal_status pal__session_refresh(pal_session *s, pal_error *err)
{
	if (s->broken)
		return pal__fail(err, PAL_EIO, "the session's log could not be put back");
	if (!s->stale)
		return PAL_OK;
	pal_status status = replay(s, err);
	s->stale = status != PAL_OK;
	return status;
}

/* Whether what the last positions of a log of n tokens see is still in the rings. */
static bool still_has(const pal_session *s, int64_t n)
{
	const pal__kv_shape *k = &s->kv.shape;
	const pal__kv_ring *rings[] = {&s->kv.main, &s->kv.sliding};
	int64_t sights[] = {k->window ? k->sink + k->window : 0, k->slide};
	for (int i = 0; i < 2; i++) {
		int64_t block =
			(s->written - 1) / PAL__ATTN_BLOCK + 1 - (int64_t)rings[i]->n_blocks;
		if (sights[i] && rings[i]->n_layers && block > 0 &&
		    n - k->reread - sights[i] + 1 < block * PAL__ATTN_BLOCK)
			return false;
	}
	return true;
}

bool pal__session_cuts(const pal_session *s, int64_t n)
{
	pal_event e = {0};
	pal__changed c = {0};
	int32_t *ids = NULL;
	bool whole = !s->stale;
	if (whole && s->n_changes) {
		whole = !pal__session_changed(s, s->n_changes - 1, &c, &ids, NULL);
		whole = whole && n >= c.at - c.n_old + c.n_new;
		pal__free(ids);
	}
	if (!whole || !has_rings(s))
		return whole;
	bool none = !s->n_events || !pal_session_event(s, s->n_events - 1, &e, NULL);
	return none && (!s->n_events || e.position <= n) && still_has(s, n);
}

/* Events since the last change: those before it stand at places of another log. What has been
 * changed is truncated by another change, or altogether. */
static pal_status last_change(pal_session *s, int64_t n, uint64_t *first, pal_error *err)
{
	pal__changed c = {0};
	int32_t *ids = NULL;
	if (!n)
		s->n_changes = s->log_version = s->changed_ids = 0;
	if (!s->n_changes)
		return PAL_OK;
	pal_status status = pal__session_changed(s, s->n_changes - 1, &c, &ids, err);
	pal__free(ids);
	if (status)
		return status;
	*first = c.n_events;
	if (n < c.at - c.n_old + c.n_new)
		return pal__fail(err, PAL_EINVAL,
				 "cannot keep %lld tokens: the log was changed at %lld",
				 (long long)n, (long long)c.at);
	return PAL_OK;
}

pal_status pal_session_truncate(pal_session *s, int64_t n, pal_error *err)
{
	if (n < 0 || n > s->length)
		return pal__fail(err, PAL_EINVAL, "cannot keep %lld tokens: the session has %lld",
				 (long long)n, (long long)s->length);
	if (n == s->length)
		return PAL_OK;
	uint64_t events = s->n_events, first = 0;
	pal_event e;
	pal_status changed = last_change(s, n, &first, err);
	if (changed)
		return changed;
	for (; events > first; events--) {
		pal_status status = pal_session_event(s, events - 1, &e, err);
		if (status)
			return status;
		if (e.position <= n)
			break;
	}
	if (has_rings(s) && (events < s->n_events || !still_has(s, n)))
		s->stale = true;
	s->n_events = events;
	pal__restore *r = &s->restore;
	r->kept = r->kept < n ? r->kept : n;
	r->index.end = r->index.end < n ? r->index.end : n;
	r->spill.end = r->spill.end < n ? r->spill.end : n;
	pal__index_cut(&r->index, n);
	s->has_logits = s->settled = false;
	s->hidden = NULL;
	s->length = n;
	return PAL_OK;
}

pal_status pal__session_mark(pal_session *s, pal__mark *out, pal_error *err)
{
	pal_status status = pal__session_refresh(s, err);
	if (status)
		return status;
	const pal__restore *r = &s->restore;
	size_t row = s->model->h.n_vocab * sizeof(float);
	pal__mark m = {.length = s->length,
		       .kept = r->kept,
		       .index_end = r->index.end,
		       .spill_end = r->spill.end,
		       .bare = s->bare,
		       .n_events = s->n_events,
		       .far_rows = s->kv.far_rows,
		       .n_chunks = r->n_chunks,
		       .has_logits = s->has_logits,
		       .kv = pal__alloc(s->kv.bytes),
		       .logits = pal__alloc(row)};
	if (!m.kv || !m.logits) {
		pal__mark_free(&m);
		return pal__fail_memory(err, "a mark", s->kv.bytes + row);
	}
	memcpy(m.chunks, r->chunks, sizeof m.chunks);
	memcpy(m.sources, r->sources, sizeof m.sources);
	memcpy(m.kv, s->kv.data, s->kv.bytes);
	memcpy(m.logits, s->logits, row);
	*out = m;
	return PAL_OK;
}

void pal__session_rewind(pal_session *s, const pal__mark *m)
{
	pal__restore *r = &s->restore;
	/* Events since have read the last positions again, in a context that is gone. */
	if (s->n_events > m->n_events || s->stale)
		pal__hidden_doubt(&r->hidden, m->length - s->kv.shape.reread, m->length);
	s->length = m->length;
	s->n_events = m->n_events;
	s->bare = m->bare;
	s->has_logits = m->has_logits;
	s->stale = s->settled = false;
	s->hidden = NULL;
	s->kv.far_rows = m->far_rows;
	r->kept = m->kept;
	r->index.end = m->index_end;
	r->spill.end = m->spill_end;
	pal__index_restart(&r->index, m->length);
	pal__memo_displace(&r->memo, UINT64_MAX);
	r->n_chunks = m->n_chunks;
	memcpy(r->chunks, m->chunks, sizeof m->chunks);
	memcpy(r->sources, m->sources, sizeof m->sources);
	memcpy(s->kv.data, m->kv, s->kv.bytes);
	memcpy(s->logits, m->logits, s->model->h.n_vocab * sizeof(float));
}

void pal__mark_free(pal__mark *m)
{
	pal__free(m->kv);
	pal__free(m->logits);
	*m = (pal__mark){0};
}
