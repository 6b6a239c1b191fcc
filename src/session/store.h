/* The store: sessions in SQLite, so that they outlive the process.
 *
 * One file, sessions.db, in WAL mode. A commit is one transaction and whole or not there.
 *
 * Invariants:
 *  - What a commit returned PAL_OK for is there after kill -9 at any instant (with `sync`: after a
 *    loss of power, too).
 *  - A log's tokens, events and changes carry checksums (XXH3-64 over what they are and where they
 *    belong); a session that does not have them is quarantined when it is read: it is named, kept
 *    as it is, and in nobody's way. The other sessions live.
 *  - A store belongs to one process at a time (a second one is refused), and to the model whose
 *    hash it holds.
 *  - Calls may come from any thread.
 */
#ifndef PAL_SESSION_STORE_H
#define PAL_SESSION_STORE_H

#include "session/service.h"

typedef struct pal__store pal__store;

/* What a session is, but for its log. Fixed when it is created, but for `used` and what follows. */
typedef struct {
	char id[PAL__ID_BYTES];
	char label[PAL__MAX_LABEL + 1];
	uint64_t owner;
	int32_t eos[PAL__MAX_EOS];
	int n_eos;
	bool stateless;
	double created, used; /* seconds since 1970 */
	int64_t turns;
	int64_t length; /* tokens that are committed */
	uint64_t n_events;
	/* A generation under way: its parameters, so that it can go on. */
	bool generating;
	int64_t remaining; /* tokens that it is still to make; 0: no limit */
	pal_sampling sampling;
} pal__record;

/* A change of what stood in the log before: at a log of `at` tokens and after `n_events` events,
 * old[n_old] at `position` became new[n_new]. */
typedef struct {
	int64_t at, position;
	uint64_t n_events;
	int32_t n_old, n_new;
	int32_t *ids; /* [n_old + n_new]: old, then new */
} pal__change;

/* Everything of one session. Arrays are freed by pal__stored_free. */
typedef struct {
	pal__record record;
	int32_t *ids;         /* [record.length] as they are now, changes made */
	pal_event *events;    /* [record.n_events] */
	pal__change *changes; /* [n_changes] in their order */
	size_t n_changes;
} pal__stored;

/* dir: made when it is not there, for the user alone. model_hash: of its weights. sync: see above.
 * Errors: PAL_EIO, PAL_EFORMAT (no database of ours, or damaged as a whole), PAL_EUNSUPPORTED
 * (of a newer version), PAL_EBUSY (another process has it), PAL_EINVAL (of another model). */
pal_status pal__store_open(const char *dir, uint64_t model_hash, bool sync, pal__store **out,
			   pal_error *err);
void pal__store_close(pal__store *t); /* NULL is fine */

pal_status pal__store_create(pal__store *t, const pal__record *record, pal_error *err);
pal_status pal__store_delete(pal__store *t, const char *id, pal_error *err);

/* All of a session at once, which is read from a file, say. Errors: PAL_EINVAL (there is one of
 * that id, or it is none). */
pal_status pal__store_insert(pal__store *t, const pal__stored *stored, pal_error *err);

/* A copy of all that a session has, under record->id; record is its as it shall be, but for length
 * and n_events. */
pal_status pal__store_fork(pal__store *t, const char *id, const pal__record *record,
			   pal_error *err);

/* What a commit changes, all at once. */
typedef struct {
	const pal__record *record; /* length and n_events are those afterwards */
	int64_t keep;              /* tokens [0, keep) stay as they are, those behind are dropped;
				    * with 0 and no change all earlier changes, too */
	const int32_t *ids;        /* [record->length - keep] behind them */
	uint64_t keep_events;
	const pal_event *events;   /* [record->n_events - keep_events] */
	const pal__change *change; /* or NULL. It comes first: keep and ids are of the log that has
				    * been changed, whose tokens before change->position and behind
				    * the change are those of before, moved. */
} pal__commit;

/* Whatever fails changes nothing. Errors: PAL_ENOTFOUND, PAL_EFORMAT (damaged: it is quarantined
 * now), PAL_EINVAL (it does not fit what is stored), PAL_EIO (a full disk, too). */
pal_status pal__store_commit(pal__store *t, const pal__commit *commit, pal_error *err);

/* Errors: PAL_ENOTFOUND, PAL_EFORMAT (damaged: it is quarantined now), PAL_EIO. */
pal_status pal__store_load(pal__store *t, const char *id, pal__stored *out, pal_error *err);
void pal__stored_free(pal__stored *s); /* fine on a zeroed struct */

/* All sessions that are not quarantined: at() for each, in order of last use, latest first. at()
 * calls nothing of the store. */
pal_status pal__store_each(pal__store *t, void (*at)(void *user, const pal__record *record),
			   void *user, pal_error *err);

/* Quarantined ones: their ids and why. */
pal_status pal__store_quarantined(pal__store *t,
				  void (*at)(void *user, const char *id, const char *why),
				  void *user, pal_error *err);

/* Bytes under names, as in service.h; those of an owner. What is older than so many seconds is
 * dropped by pal__store_expire. */
pal_status pal__store_put(pal__store *t, const char *name, uint64_t owner, const void *data,
			  size_t n, pal_error *err);
pal_status pal__store_get(pal__store *t, const char *name, uint64_t owner, void **data, size_t *n,
			  pal_error *err);
pal_status pal__store_forget(pal__store *t, const char *name, uint64_t owner, pal_error *err);
pal_status pal__store_expire(pal__store *t, double older_than_s, pal_error *err);

uint64_t pal__store_bytes(pal__store *t); /* of its files */

/* --- one session as one file (session/transfer.c, docs/formats/session.md) ------------------ */

/* bytes: freed with pal__free. Without its id and owner. Errors: PAL_EINVAL (it is none),
 * PAL_ENOMEM. */
pal_status pal__transfer_write(const pal__stored *s, uint64_t model_hash, void **bytes, size_t *n,
			       pal_error *err);

/* Every byte is hostile. n_vocab: of the model; ids are checked. The record has no id and no owner;
 * events and changes are of the log as it was then; whether a session can replay them is its to
 * say. Takes at most 12 times n. Errors: PAL_EFORMAT, PAL_EUNSUPPORTED (a newer version),
 * PAL_EINVAL (of another model), PAL_ENOMEM. */
pal_status pal__transfer_read(const void *bytes, size_t n, uint64_t model_hash, int32_t n_vocab,
			      pal__stored *out, pal_error *err);

#endif
