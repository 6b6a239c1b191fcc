/* The store's inside: one connection behind a mutex, and its statements.
 *
 * Tables:
 *   store     one row: the hash of the model.
 *   sessions  a session's number, id, owner and record; its sum; `damage`: why it is set aside.
 *   pieces    its tokens (at most PAL__PIECE_TOKENS in a row), events and changes (one a row).
 *   bytes     what clients store under names.
 *
 * Invariants:
 *  - Whoever touches the connection holds the mutex; a statement is reset before it is given up.
 *  - Pieces of tokens follow one another without gaps, `at` is the first one's position; events
 *    and changes are counted from 0. The record says how many of each there are.
 *  - Nothing is mapped: the file is locked exclusively, so the index of the WAL is in memory,
 *    and a full disk is a message and not a signal.
 */
#ifndef PAL_SESSION_STORE_SQL_H
#define PAL_SESSION_STORE_SQL_H

#include <pthread.h>
#include <sqlite3.h>

#include "session/encode.h"

#define PAL__PIECE_TOKENS 240 /* of which four rows fill a page of 4096 bytes */
#define PAL__MAX_NAME 63
#define PAL__MAX_BYTES ((size_t)16 << 20)

/* What a sum is of; the first three are kinds of pieces, too. */
typedef enum { PAL__TOKENS, PAL__EVENTS, PAL__CHANGES, PAL__RECORD, PAL__BYTES } pal__kind;

typedef enum {
	PAL__SQL_BEGIN,
	PAL__SQL_COMMIT,
	PAL__SQL_ROLLBACK,
	PAL__SQL_CREATE,
	PAL__SQL_FIND,
	PAL__SQL_SET,
	PAL__SQL_DELETE,
	PAL__SQL_DAMAGE,
	PAL__SQL_EACH,
	PAL__SQL_DAMAGED,
	PAL__SQL_PUT_PIECE,
	PAL__SQL_CUT_PIECES,
	PAL__SQL_LAST_PIECE,
	PAL__SQL_PIECES,
	PAL__SQL_PUT_BYTES,
	PAL__SQL_GET_BYTES,
	PAL__SQL_FORGET_BYTES,
	PAL__SQL_EXPIRE_BYTES,
	PAL__SQL_PAGES,
	PAL__N_SQL
} pal__sql_id;

struct pal__store {
	pthread_mutex_t mutex;
	sqlite3 *db;
	sqlite3_stmt *statements[PAL__N_SQL];
	char *path, *wal; /* of the database */
	int lock;         /* descriptor of the lock file */
};

/* Binds values by format (i: int64_t, d: double, t: text, b: bytes and size_t; pointers stay valid
 * until the statement is given up). */
sqlite3_stmt *pal__sql_bind(pal__store *t, pal__sql_id id, const char *format, ...);

/* A step: SQLITE_ROW or SQLITE_DONE in *rc, or an error; then, and after SQLITE_DONE, the statement
 * is given up. */
pal_status pal__sql_step(pal__store *t, sqlite3_stmt *q, int *rc, pal_error *err);
pal_status pal__sql_run(pal__store *t, sqlite3_stmt *q, pal_error *err); /* to the end */

/* What SQLite says, as a status and a sentence. */
pal_status pal__sql_fail(const char *path, sqlite3 *db, int rc, pal_error *err);

pal_status pal__sql_begin(pal__store *t, pal_error *err);

/* Commits, or with a status that is not PAL_OK rolls back and returns it. */
pal_status pal__sql_end(pal__store *t, pal_status status, pal_error *err);

/* --- sessions (store_load.c) ------------------------------------------------ */

typedef struct {
	int64_t n; /* its number */
	uint64_t n_changes;
	pal__record record;
} pal__found_session;

/* Errors: PAL_ENOTFOUND, PAL_EFORMAT (it is, or now was, set aside). */
pal_status pal__store_find(pal__store *t, const char *id, pal__found_session *out, pal_error *err);

/* Sets a session aside, after undoing the transaction that is under way. Returns PAL_EFORMAT. */
pal_status pal__store_damaged(pal__store *t, int64_t n, const char *id, const char *why,
			      pal_error *err);

/* XXH3-64 of n bytes, where they belong and what they are. name: the session's id; at: of a piece;
 * of a record and of bytes under a name: their owner. */
uint64_t pal__store_sum(const char *name, pal__kind kind, int64_t at, const void *data, size_t n);

/* As pal__store_load, the mutex held. */
pal_status pal__store_load_locked(pal__store *t, const char *id, pal__stored *out, pal_error *err);

#endif
