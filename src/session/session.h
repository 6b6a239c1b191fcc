/* Sessions: a token log, the K/V computed from it, and events that brought evicted K/V back.
 *
 * Invariants:
 *  - The K/V holds what the log's last position sees, as the log and the events say; `logits`
 *    are those of its last position while has_logits.
 *  - While `stale` the K/V holds less, after a failure half-way or a truncation that reached
 *    behind a ring; whoever needs it replays log and events first.
 *  - All memory is one arena, allocated when the session opens; log, events and what restoration
 *    keeps of a bounded session are in files (contract C1).
 *  - The log grows only by tokens that were computed: an append that fails leaves the
 *    session as it was, its last logits too.
 */
#ifndef PAL_SESSION_SESSION_H
#define PAL_SESSION_SESSION_H

#include "model/batcher.h"
#include "restore/lexical.h"
#include "restore/restore.h"

struct pal_session {
	pal_model *model;
	pal_session_options o; /* without zeros that stand for defaults */
	int n_batch;
	int64_t n_ctx, length;
	int64_t written; /* to K/V: what rings still have depends on the farthest ever */
	pal__arena arena;
	pal__kv kv;
	pal__scratch scratch;
	pal__row *rows;     /* [n_batch] */
	int32_t *log;       /* [n_ctx] in the arena, or a mapping of log_file */
	float *logits;      /* [n_vocab] */
	float *next_logits; /* [n_vocab] those of an append under way; then the two change places */
	bool has_logits, stale;
	bool settled;        /* reselection has nothing more to say about the last position */
	const float *hidden; /* [n_embd] the last position's, before the output norm, until the
			      * scratch is used for something else; or NULL */

	bool bounded, restores;
	size_t scratch_bytes;
	pal__disk log_file, event_file, change_file, change_ids;
	uint64_t n_changes, changed_ids; /* changed_ids: bytes in change_ids */
	uint64_t log_version;            /* changes that the log file has */
	pal__disk parked;                /* what the arena holds, while it is given back */
	bool broken;                     /* the log file could not be put back */
	uint64_t n_events, n_rounds, far_reads;
	int64_t bare; /* positions from here on were read while nothing restored was in sight, and
		       * would be to the bit what they are if they were read again like that */
	pal__restore restore;
	double select_s, fill_s, reread_s;
};

pal_model *pal__session_model(const pal_session *s);

/* pal_session_open and pal_session_need for sessions whose passes a batcher joins. */
pal_status pal__session_open_on(pal__batcher *e, pal_model *m, const pal_session_options *options,
				pal_session **out, pal_error *err);
pal_status pal__session_need_on(pal__batcher *e, const pal_model *m,
				const pal_session_options *options, size_t *bytes, pal_error *err);

/* The options with defaults and budget worked out, and the K/V they make. */
pal_status pal__session_plan(const pal_model *m, const pal_session_options *options,
			     pal_session_options *out, pal__kv_shape *shape, pal_error *err);

/* Computes tokens ids[n] behind `length`, which the log file has already; logits as in
 * pal_session_append. Does not change length. */
typedef struct {
	const int32_t *ids;
	size_t n;
	float *logits;
	pal_session_progress progress;
	void *user;
	bool replay; /* no events but those that are replayed */
} pal__reading;
pal_status pal__session_read(pal_session *s, const pal__reading *reading, pal_error *err);

/* Parts of an append: checks ids[n], makes a stale session whole and writes them behind the log's
 * end; undoes what a failed pass did, and returns its status; takes the reads of restored rows by
 * positions [length - kept + from, ...) of a pass of n back that were not kept. */
pal_status pal__session_write_log(pal_session *s, const int32_t *ids, size_t n, pal_error *err);
pal_status pal__session_failed(pal_session *s, uint64_t n_events, pal_status status);
void pal__session_uncount(pal_session *s, size_t kept, size_t n);

/* next_logits are those of the last position from now on. */
void pal__session_new_logits(pal_session *s);

/* What stood in the log long before its end is changed (src/session/change.c): n_old tokens at
 * `position` become ids[n_new]; with n_new 0 and the log's last n_old tokens, it is cut. Whether
 * that can be done for this session: it restores, has much evicted, and the place is; else the log
 * is to be truncated, and read again from there. */
bool pal__session_can_change(const pal_session *s, int64_t position, int64_t n_old, int64_t n_new);
pal_status pal__session_change(pal_session *s, int64_t position, int64_t n_old, const int32_t *ids,
			       int64_t n_new, pal_error *err);

typedef struct {
	int64_t at, position; /* at: the log's length before */
	uint64_t n_events;    /* before */
	int64_t n_old, n_new;
	uint64_t ids_at;
} pal__changed;

/* Change i and its ids [n_old + n_new], freed by pal__free; the same again, for a replay whose log
 * file has `total` tokens. */
pal_status pal__session_changed(const pal_session *s, uint64_t i, pal__changed *out, int32_t **ids,
				pal_error *err);
pal_status pal__session_play_change(pal_session *s, uint64_t i, int64_t total, pal_error *err);

/* The log file with the first `version` changes; *length: of it. */
pal_status pal__session_log_of(pal_session *s, uint64_t version, int64_t *length, pal_error *err);

/* An empty session becomes one that was stored: its log as it is, with n_changes made (ids as
 * above, change after change), and its events. */
pal_status pal__session_resume(pal_session *s, const int32_t *log, int64_t n,
			       const pal_event *events, uint64_t n_events,
			       const pal__changed *changes, const int32_t *const *ids,
			       uint64_t n_changes, pal_error *err);

/* The session's memory to a file and back (src/session/park.c). In between nothing else is done
 * with it but closing it; its log can be read. On failure it is as before. */
pal_status pal__session_park(pal_session *s, pal_error *err);
pal_status pal__session_unpark(pal_session *s, pal_error *err);

/* Another session that is as this one is, which is unparked. Scratch of its own, or the batcher
 * that it is on. */
pal_status pal__session_copy(pal_session *s, pal_session **out, pal_error *err);

/* Whether a truncation to n tokens leaves K/V that need no replay. */
bool pal__session_cuts(const pal_session *s, int64_t n);

/* Makes a stale session whole. */
pal_status pal__session_refresh(pal_session *s, pal_error *err);

/* Chunks into sight, and the last `reread` positions read again: an event at `at` tokens, which
 * joins the list unless it is a replay. Logits of positions from `first` on go to `logits`
 * [at - first][n_vocab], those of the last one to next_logits. */
typedef struct {
	int64_t at;
	int reread;
	const int32_t *chunks;
	const uint8_t *sources; /* NULL: the session's source, with its fallback */
	int n;
	float *logits;
	int64_t first;
	bool replay;
} pal__recalling;
pal_status pal__session_event(pal_session *s, const pal__recalling *r, pal_error *err);

/* Whether an event can be at a log of `length` tokens. Errors: PAL_EINVAL. */
pal_status pal__session_check_event(const pal_session *s, const pal_event *e, int64_t length,
				    pal_error *err);

/* Events of restore_prefill, at position `at`. */
pal_status pal__session_restore_prefill(pal_session *s, int64_t at, float *logits, int64_t first,
					pal_error *err);

/* As generation goes on: brings in what the last position looks for, where it is not in sight. */
pal_status pal__session_reselect(pal_session *s, pal_error *err);

/* Whether pal__session_reselect would bring something in. Errors: PAL_EIO. */
pal_status pal__session_looks(pal_session *s, bool *out, pal_error *err);

/* Positions from the log's end on that one pass may compute, at most n; all that leaves the K/V for
 * them is kept. Errors: PAL_ELIMIT (the context is full), those of keeping. */
pal_status pal__session_room(pal_session *s, size_t n, size_t *room, pal_error *err);

/* Checks ids[n], a pending token and guesses behind it, in one pass (src/session/verify.c). */
typedef struct {
	int32_t (*next)(void *user);          /* the token that comes after the log as it is now */
	bool (*kept)(void *user, int32_t id); /* id has joined the log; false: it ends with it */
	void *user;
	float *logits; /* [n][n_vocab]; NULL: n is 1 */
} pal__verifying;

/* Appends ids[0], and ids[i] behind it as long as each is what next() says. n: 1 to the session's
 * room. *n_kept: how many joined the log. *seconds: of the pass. Errors: as pal_session_append. */
pal_status pal__session_verify(pal_session *s, const pal__verifying *v, const int32_t *ids,
			       size_t n, size_t *n_kept, double *seconds, pal_error *err);

/* Generates as pal_generate does, but along ids[n]: the passes and the drafts are real, and the
 * token that comes next is always that of ids. */
pal_status pal__generate_along(pal_session *s, const pal_generate_options *options,
			       const int32_t *ids, size_t n, pal_generate_result *out,
			       pal_error *err);

/* A session as it is now, to come back to: for many questions about one log. */
typedef struct {
	int64_t length, kept, index_end, spill_end, bare;
	uint64_t n_events;
	size_t far_rows;
	int n_chunks;
	int32_t chunks[PAL_MAX_SLOTS];
	uint8_t sources[PAL_MAX_SLOTS];
	bool has_logits;
	uint8_t *kv;   /* [kv.bytes] */
	float *logits; /* [n_vocab] */
} pal__mark;
pal_status pal__session_mark(pal_session *s, pal__mark *out, pal_error *err);
void pal__session_rewind(pal_session *s, const pal__mark *mark);
void pal__mark_free(pal__mark *mark);

/* A restored session whose index keeps every query head: not for generating, but to be asked what
 * each of them looks for, as pal__index_look does, after an event. */
pal_status pal__session_open_all(pal_model *model, const pal_session_options *options,
				 pal_session **out, pal_error *err);
pal_status pal__session_ask_heads(pal_session *s, void (*at)(void *user, const pal__look *look),
				  void *user, pal_error *err);

/* Breaks restoration, for negative controls. other: of PAL__CONTROL_FOREIGN, at least as long. */
void pal__session_control(pal_session *s, pal__control control, pal_session *other);

#endif
