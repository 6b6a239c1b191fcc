/* Sessions that nobody uses, written out; and copies of sessions.
 *
 * Invariants:
 *  - A parked session keeps its files and its addresses; the memory behind them is the system's
 *    until it is unparked, and then it is to the bit what it was.
 *  - A copy goes on as the original would, and shares nothing with it.
 */
#include <string.h>
#include <sys/mman.h>

#include "session/session.h"

#define PIECE ((size_t)64 << 10) /* of the arena, that is written if anything in it is */

static bool all_zero(const uint8_t *p, size_t n)
{
	return !n || (!p[0] && !memcmp(p, p + 1, n - 1));
}

/* Each piece of the arena that has something goes to its place in the file. */
static pal_status write_out(const pal_session *s, pal__disk *to, pal_error *err)
{
	pal_status status = pal__disk_open(to, s->o.disk_dir, "a parked session", err);
	for (size_t at = 0; !status && at < s->arena.size; at += PIECE) {
		size_t n = s->arena.size - at < PIECE ? s->arena.size - at : PIECE;
		if (!all_zero(s->arena.base + at, n))
			status = pal__disk_write(to, s->arena.base + at, n, at, err);
	}
	return status;
}

static pal_status read_in(pal_session *s, const pal__disk *from, pal_error *err)
{
	size_t n = from->bytes < s->arena.size ? (size_t)from->bytes : s->arena.size;
	return pal__disk_read(from, s->arena.base, n, 0, err);
}

/* Whole pages inside the arena. */
static void give_back(const pal_session *s)
{
	const uintptr_t page = 4096;
	uintptr_t from = ((uintptr_t)s->arena.base + page - 1) & ~(page - 1);
	uintptr_t end = ((uintptr_t)s->arena.base + s->arena.size) & ~(page - 1);
	if (from < end)
		madvise((void *)from, end - from, MADV_DONTNEED);
}

pal_status pal__session_park(pal_session *s, pal_error *err)
{
	pal__disk file = PAL__NO_DISK;
	pal_status status = write_out(s, &file, err);
	if (status) {
		pal__disk_close(&file);
		return status;
	}
	s->parked = file;
	s->hidden = NULL;
	give_back(s);
	if (s->bounded)
		madvise(s->log, ((size_t)s->length * sizeof *s->log + 4095) & ~(size_t)4095,
			MADV_DONTNEED);
	return PAL_OK;
}

pal_status pal__session_unpark(pal_session *s, pal_error *err)
{
	if (s->parked.fd < 0)
		return PAL_OK;
	pal_status status = read_in(s, &s->parked, err);
	if (!status)
		pal__disk_close(&s->parked);
	return status;
}

/* --- copies --------------------------------------------------------------------------- */

static pal_status copy_files(const pal_session *s, pal_session *c, pal_error *err)
{
	const struct {
		const pal__disk *from;
		pal__disk *to;
	} files[] = {{&s->log_file, &c->log_file},
		     {&s->event_file, &c->event_file},
		     {&s->change_file, &c->change_file},
		     {&s->change_ids, &c->change_ids},
		     {&s->restore.index.disk, &c->restore.index.disk},
		     {&s->restore.spill.disk, &c->restore.spill.disk},
		     {&s->restore.hidden.disk, &c->restore.hidden.disk}};
	pal_status status = PAL_OK;
	for (size_t i = 0; !status && i < sizeof files / sizeof files[0]; i++) {
		if (files[i].from->fd < 0)
			continue;
		if (files[i].to->fd < 0)
			status = pal__disk_open(files[i].to, c->o.disk_dir, files[i].from->what,
						err);
		if (!status)
			status = pal__disk_copy(files[i].from, files[i].to, err);
	}
	return status;
}

/* All that is neither memory of the arena nor a file. */
static void copy_state(const pal_session *s, pal_session *c)
{
	c->length = s->length;
	c->written = s->written;
	c->has_logits = s->has_logits;
	c->stale = s->stale;
	c->settled = s->settled;
	c->n_events = s->n_events;
	c->n_rounds = s->n_rounds;
	c->far_reads = s->far_reads;
	c->bare = s->bare;
	c->n_changes = s->n_changes;
	c->changed_ids = s->changed_ids;
	c->log_version = s->log_version;
	c->kv.far_rows = s->kv.far_rows;
	/* They change places. */
	c->logits = (float *)(void *)(c->arena.base + ((uint8_t *)s->logits - s->arena.base));
	c->next_logits =
		(float *)(void *)(c->arena.base + ((uint8_t *)s->next_logits - s->arena.base));
	const pal__restore *r = &s->restore;
	pal__restore *to = &c->restore;
	to->kept = r->kept;
	to->index.end = r->index.end;
	to->index.q_from = r->index.q_from;
	to->index.q_end = r->index.q_end;
	to->spill.end = r->spill.end;
	to->spill.first = r->spill.first;
	to->spill.doubt_from = r->spill.doubt_from;
	to->spill.doubt_end = r->spill.doubt_end;
	to->hidden.first = r->hidden.first;
	to->hidden.newest = r->hidden.newest;
	to->hidden.doubt_from = r->hidden.doubt_from;
	to->hidden.doubt_end = r->hidden.doubt_end;
	to->n_chunks = r->n_chunks;
	memcpy(to->chunks, r->chunks, sizeof r->chunks);
	memcpy(to->sources, r->sources, sizeof r->sources);
	memcpy(to->filled, r->filled, sizeof r->filled);
	to->fallbacks = r->fallbacks;
	to->memo.hits = r->memo.hits;
	to->dropped = r->dropped;
	memcpy(to->note, r->note, sizeof r->note);
}

pal_status pal__session_copy(pal_session *s, pal_session **out, pal_error *err)
{
	pal_session *c = NULL;
	pal_status status = pal__session_unpark(s, err);
	if (!status)
		status = pal__session_open_on(s->scratch.batcher, s->model, &s->o, &c, err);
	if (!status)
		status = copy_files(s, c, err);
	if (status) {
		pal_session_close(c);
		return status;
	}
	for (size_t at = 0; at < s->arena.size; at += PIECE) {
		size_t n = s->arena.size - at < PIECE ? s->arena.size - at : PIECE;
		if (!all_zero(s->arena.base + at, n))
			memcpy(c->arena.base + at, s->arena.base + at, n);
	}
	copy_state(s, c);
	*out = c;
	return PAL_OK;
}
