#include "session/store.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/newfile.h"
#include "session/store_sql.h"

#define APPLICATION 0x50414c53 /* "PALS" */
#define VERSION 1
#define PAGE 4096
#define STRING(x) #x
#define TEXT(x) STRING(x)

/* A new database, before and after it is in WAL mode. Deleted sessions give their room back. */
static const char before_wal[] = "PRAGMA page_size = " TEXT(PAGE) "; PRAGMA auto_vacuum = FULL";
static const char schema[] =
	"CREATE TABLE store(model_hash INTEGER NOT NULL) STRICT;"
	"CREATE TABLE sessions(n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE,"
	" owner INTEGER NOT NULL, used REAL NOT NULL, record BLOB NOT NULL, sum INTEGER NOT NULL,"
	" damage TEXT) STRICT;"
	"CREATE TABLE pieces(session INTEGER NOT NULL REFERENCES sessions ON DELETE CASCADE,"
	" kind INTEGER NOT NULL, at INTEGER NOT NULL, data BLOB NOT NULL, sum INTEGER NOT NULL,"
	" PRIMARY KEY(session, kind, at)) STRICT, WITHOUT ROWID;"
	"CREATE TABLE bytes(name TEXT NOT NULL, owner INTEGER NOT NULL, made REAL NOT NULL,"
	" data BLOB NOT NULL, sum INTEGER NOT NULL, PRIMARY KEY(name, owner)) STRICT;"
	"PRAGMA application_id = " TEXT(APPLICATION) ";"
						     "PRAGMA user_version = " TEXT(VERSION);

static const char *const sql[PAL__N_SQL] = {
	[PAL__SQL_BEGIN] = "BEGIN IMMEDIATE",
	[PAL__SQL_COMMIT] = "COMMIT",
	[PAL__SQL_ROLLBACK] = "ROLLBACK",
	[PAL__SQL_CREATE] =
		"INSERT INTO sessions(id, owner, used, record, sum) VALUES(?, ?, ?, ?, ?)",
	[PAL__SQL_FIND] = "SELECT n, id, owner, record, sum, damage FROM sessions WHERE id = ?",
	[PAL__SQL_SET] = "UPDATE sessions SET used = ?, record = ?, sum = ? WHERE n = ?",
	[PAL__SQL_DELETE] = "DELETE FROM sessions WHERE id = ?",
	[PAL__SQL_DAMAGE] = "UPDATE sessions SET damage = ? WHERE n = ?",
	[PAL__SQL_EACH] = "SELECT n, id, owner, record, sum, damage FROM sessions"
			  " WHERE damage IS NULL ORDER BY used DESC, n DESC",
	[PAL__SQL_DAMAGED] = "SELECT id, damage FROM sessions WHERE damage IS NOT NULL ORDER BY n",
	[PAL__SQL_PUT_PIECE] = "INSERT OR REPLACE INTO pieces VALUES(?, ?, ?, ?, ?)",
	[PAL__SQL_CUT_PIECES] = "DELETE FROM pieces WHERE session = ? AND kind = ? AND at >= ?",
	[PAL__SQL_LAST_PIECE] = "SELECT at, data, sum FROM pieces WHERE session = ? AND kind = ?"
				" AND at < ? ORDER BY at DESC LIMIT 1",
	[PAL__SQL_PIECES] = "SELECT at, data, sum FROM pieces WHERE session = ? AND kind = ?"
			    " AND at >= ? ORDER BY at",
	[PAL__SQL_PUT_BYTES] = "INSERT OR REPLACE INTO bytes VALUES(?, ?, ?, ?, ?)",
	[PAL__SQL_GET_BYTES] = "SELECT data, sum FROM bytes WHERE name = ? AND owner = ?",
	[PAL__SQL_FORGET_BYTES] = "DELETE FROM bytes WHERE name = ? AND owner = ?",
	[PAL__SQL_EXPIRE_BYTES] = "DELETE FROM bytes WHERE made < ?",
	[PAL__SQL_PAGES] = "PRAGMA page_count",
};

/* --- statements -------------------------------------------------------------- */

pal_status pal__sql_fail(const char *path, sqlite3 *db, int rc, pal_error *err)
{
	const char *said = db ? sqlite3_errmsg(db) : sqlite3_errstr(rc);
	int e = db ? sqlite3_system_errno(db) : 0;
	switch (rc & 0xff) {
	case SQLITE_NOMEM:
		return pal__fail(err, PAL_ENOMEM, "out of memory: %s", path);
	case SQLITE_TOOBIG:
		return pal__fail(err, PAL_ELIMIT, "%s: %s", path, said);
	case SQLITE_CONSTRAINT:
		return pal__fail(err, PAL_EINVAL, "%s: %s", path, said);
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return pal__fail(err, PAL_EBUSY, "%s: another program has it: %s", path, said);
	case SQLITE_FULL:
	case SQLITE_IOERR:
	case SQLITE_CANTOPEN:
	case SQLITE_READONLY:
	case SQLITE_PERM:
	case SQLITE_AUTH:
		if (rc == SQLITE_IOERR_NOMEM)
			return pal__fail(err, PAL_ENOMEM, "out of memory: %s", path);
		return pal__fail(err, PAL_EIO, "%s: %s%s%s", path, said, e ? ": " : "",
				 e ? strerror(e) : "");
	default:
		return pal__fail(err, PAL_EFORMAT, "%s is damaged: %s", path, said);
	}
}

sqlite3_stmt *pal__sql_bind(pal__store *t, pal__sql_id id, const char *format, ...)
{
	sqlite3_stmt *q = t->statements[id];
	va_list ap;
	va_start(ap, format);
	for (int i = 1; *format; i++, format++) {
		/* All but text and bytes cannot fail, and those are not copied. */
		if (*format == 'i') {
			sqlite3_bind_int64(q, i, va_arg(ap, int64_t));
		} else if (*format == 'd') {
			sqlite3_bind_double(q, i, va_arg(ap, double));
		} else if (*format == 't') {
			sqlite3_bind_text(q, i, va_arg(ap, const char *), -1, SQLITE_STATIC);
		} else {
			const void *data = va_arg(ap, const void *);
			size_t n = va_arg(ap, size_t);
			sqlite3_bind_blob64(q, i, n ? data : "", n, SQLITE_STATIC);
		}
	}
	va_end(ap);
	return q;
}

pal_status pal__sql_step(pal__store *t, sqlite3_stmt *q, int *rc, pal_error *err)
{
	pal_status status = PAL_OK;
	*rc = sqlite3_step(q);
	if (*rc == SQLITE_ROW)
		return PAL_OK;
	if (*rc != SQLITE_DONE)
		status = pal__sql_fail(t->path, t->db, *rc, err);
	sqlite3_reset(q);
	return status;
}

pal_status pal__sql_run(pal__store *t, sqlite3_stmt *q, pal_error *err)
{
	int rc = 0;
	pal_status status = pal__sql_step(t, q, &rc, err);
	while (!status && rc == SQLITE_ROW)
		status = pal__sql_step(t, q, &rc, err);
	return status;
}

pal_status pal__sql_begin(pal__store *t, pal_error *err)
{
	return pal__sql_run(t, t->statements[PAL__SQL_BEGIN], err);
}

pal_status pal__sql_end(pal__store *t, pal_status status, pal_error *err)
{
	if (!status)
		status = pal__sql_run(t, t->statements[PAL__SQL_COMMIT], err);
	/* Some errors have rolled back by themselves. */
	if (status && !sqlite3_get_autocommit(t->db))
		pal__sql_run(t, t->statements[PAL__SQL_ROLLBACK], NULL);
	return status;
}

/* --- opening ------------------------------------------------------------------- */

static pal_status run_script(pal__store *t, const char *script, pal_error *err)
{
	int rc = sqlite3_exec(t->db, script, NULL, NULL, NULL);
	return rc ? pal__sql_fail(t->path, t->db, rc, err) : PAL_OK;
}

/* The number in the first row of a query's answer; no row: `none`. */
static pal_status ask(pal__store *t, const char *query, int64_t none, int64_t *out, pal_error *err)
{
	sqlite3_stmt *q = NULL;
	int rc = sqlite3_prepare_v2(t->db, query, -1, &q, NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_step(q);
	*out = rc == SQLITE_ROW ? sqlite3_column_int64(q, 0) : none;
	pal_status status = rc == SQLITE_ROW || rc == SQLITE_DONE
				    ? PAL_OK
				    : pal__sql_fail(t->path, t->db, rc, err);
	sqlite3_finalize(q);
	return status;
}

/* dir and the names of what is in it. */
static pal_status name_files(pal__store *t, const char *dir, char **lock, pal_error *err)
{
	/* A relative one never looks like a URI. */
	const char *here = dir[0] == '/' ? "" : "./";
	size_t n = strlen(dir) + 32;
	t->path = pal__alloc(n);
	t->wal = pal__alloc(n);
	*lock = pal__alloc(n);
	if (!t->path || !t->wal || !*lock)
		return pal__fail_memory(err, dir, 3 * n);
	snprintf(t->path, n, "%s%s/sessions.db", here, dir);
	snprintf(t->wal, n, "%s%s/sessions.db-wal", here, dir);
	snprintf(*lock, n, "%s%s/sessions.lock", here, dir);
	return PAL_OK;
}

/* A file for the user alone: SQLite makes others with the mode of the database. */
static int open_file(const char *path)
{
	return open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
}

static pal_status open_files(pal__store *t, char *lock, pal_error *err)
{
	if (!pal__make_folders(lock))
		return pal__fail(err, PAL_EIO, "%s cannot be made: %s", lock, strerror(errno));
	t->lock = open_file(lock);
	if (t->lock < 0)
		return pal__fail(err, PAL_EIO, "%s cannot be opened: %s", lock, strerror(errno));
	if (flock(t->lock, LOCK_EX | LOCK_NB) != 0)
		return errno == EWOULDBLOCK
			       ? pal__fail(err, PAL_EBUSY, "%s: another process has this store",
					   t->path)
			       : pal__fail(err, PAL_EIO, "%s: %s", lock, strerror(errno));
	int fd = open_file(t->path);
	if (fd < 0)
		return pal__fail(err, PAL_EIO, "%s cannot be opened: %s", t->path, strerror(errno));
	close(fd);
	return PAL_OK;
}

static pal_status open_database(pal__store *t, pal_error *err)
{
	static const int settings[][2] = {
		{SQLITE_DBCONFIG_DEFENSIVE, 1},      {SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0},
		{SQLITE_DBCONFIG_ENABLE_TRIGGER, 0}, {SQLITE_DBCONFIG_ENABLE_VIEW, 0},
		{SQLITE_DBCONFIG_ENABLE_FKEY, 1},
	};
	int rc =
		sqlite3_open_v2(t->path, &t->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_extended_result_codes(t->db, 1);
	for (size_t i = 0; !rc && i < sizeof settings / sizeof *settings; i++)
		rc = sqlite3_db_config(t->db, settings[i][0], settings[i][1], NULL);
	if (rc)
		return pal__sql_fail(t->path, t->db, rc, err);
	sqlite3_busy_timeout(t->db, 1000); /* somebody may be copying it */
	return run_script(t,
			  "PRAGMA locking_mode = EXCLUSIVE; PRAGMA cell_size_check = ON;"
			  "PRAGMA mmap_size = 0; PRAGMA temp_store = MEMORY",
			  err);
}

/* Whether it is ours, or nothing yet. */
static pal_status recognise(pal__store *t, bool *fresh, pal_error *err)
{
	int64_t application = 0, version = 0, tables = 0;
	pal_status status = ask(t, "PRAGMA application_id", 0, &application, err);
	if (!status)
		status = ask(t, "PRAGMA user_version", 0, &version, err);
	if (!status)
		status = ask(t, "SELECT count(*) FROM sqlite_schema", 0, &tables, err);
	if (status)
		return status;
	*fresh = !application && !version && !tables;
	if (!*fresh && application != APPLICATION)
		return pal__fail(err, PAL_EFORMAT, "%s is no database of sessions", t->path);
	if (!*fresh && version != VERSION)
		return pal__fail(err, PAL_EUNSUPPORTED,
				 "%s has version %" PRId64 " (supported: " TEXT(VERSION) ")",
				 t->path, version);
	return PAL_OK;
}

static pal_status make_tables(pal__store *t, uint64_t model_hash, pal_error *err)
{
	char row[80];
	snprintf(row, sizeof row, "INSERT INTO store VALUES(%" PRId64 ")", (int64_t)model_hash);
	pal_status status = run_script(t, "BEGIN IMMEDIATE", err);
	if (!status)
		status = run_script(t, schema, err);
	if (!status)
		status = run_script(t, row, err);
	return status ? status : run_script(t, "COMMIT", err);
}

static pal_status check_model(pal__store *t, uint64_t model_hash, pal_error *err)
{
	int64_t hash = 0;
	pal_status status = ask(t, "SELECT model_hash FROM store", 0, &hash, err);
	if (!status && (uint64_t)hash != model_hash)
		return pal__fail(err, PAL_EINVAL,
				 "%s has sessions of another model: of %016" PRIx64
				 ", but this one is %016" PRIx64,
				 t->path, (uint64_t)hash, model_hash);
	return status;
}

static pal_status prepare(pal__store *t, uint64_t model_hash, bool sync, pal_error *err)
{
	bool fresh = false;
	pal_status status = recognise(t, &fresh, err);
	if (!status && fresh)
		status = run_script(t, before_wal, err);
	if (!status)
		status = run_script(t,
				    sync ? "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
					   "PRAGMA journal_size_limit = 4194304"
					 : "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;"
					   "PRAGMA journal_size_limit = 4194304",
				    err);
	if (!status && fresh)
		status = make_tables(t, model_hash, err);
	if (!status)
		status = check_model(t, model_hash, err);
	for (int i = 0; !status && i < PAL__N_SQL; i++) {
		int rc = sqlite3_prepare_v3(t->db, sql[i], -1, SQLITE_PREPARE_PERSISTENT,
					    &t->statements[i], NULL);
		if (rc)
			status = pal__sql_fail(t->path, t->db, rc, err);
	}
	return status;
}

pal_status pal__store_open(const char *dir, uint64_t model_hash, bool sync, pal__store **out,
			   pal_error *err)
{
	char *lock = NULL;
	pal__store *t = pal__calloc(1, sizeof *t);
	if (!t)
		return pal__fail_memory(err, dir, sizeof *t);
	t->lock = -1;
	pthread_mutex_init(&t->mutex, NULL);
	pal_status status = name_files(t, dir, &lock, err);
	if (!status)
		status = open_files(t, lock, err);
	if (!status)
		status = open_database(t, err);
	if (!status)
		status = prepare(t, model_hash, sync, err);
	pal__free(lock);
	if (status)
		pal__store_close(t);
	else
		*out = t;
	return status;
}

void pal__store_close(pal__store *t)
{
	if (!t)
		return;
	for (int i = 0; i < PAL__N_SQL; i++)
		sqlite3_finalize(t->statements[i]);
	sqlite3_close(t->db);
	/* Only now: another process may open it. */
	if (t->lock >= 0)
		close(t->lock);
	pthread_mutex_destroy(&t->mutex);
	pal__free(t->path);
	pal__free(t->wal);
	pal__free(t);
}

uint64_t pal__store_bytes(pal__store *t)
{
	struct stat st = {0};
	int64_t pages = 0;
	int rc = 0;
	pthread_mutex_lock(&t->mutex);
	sqlite3_stmt *q = t->statements[PAL__SQL_PAGES];
	if (!pal__sql_step(t, q, &rc, NULL) && rc == SQLITE_ROW)
		pages = sqlite3_column_int64(q, 0);
	sqlite3_reset(q);
	pthread_mutex_unlock(&t->mutex);
	return (uint64_t)pages * PAGE + (stat(t->wal, &st) == 0 ? (uint64_t)st.st_size : 0);
}
