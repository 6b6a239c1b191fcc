/* The store's functions and what they refuse, damage, injected failures, a full disk, threads. That
 * it holds what it is given is tests/property/store.c. */
#include "session/store.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "session/store_sql.h"

#define HASH 0xfedcba9876543210u
#define LOG 600

static char folder[] = "/tmp/pal-store-XXXXXX", dir[64], path[96];
static int32_t ids[4 * LOG];
static pal_event events[3];

/* --- helpers ------------------------------------------------------------------------ */

static pal__store *open_store(void)
{
	pal__store *t = NULL;
	pal_error err = {0};
	if (pal__store_open(dir, HASH, false, &t, &err))
		fail_msg("%s", err.text);
	return t;
}

/* By other hands than the store's. */
static void run_sql(const char *sql)
{
	sqlite3 *db;
	char *said = NULL;
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	if (sqlite3_exec(db, sql, NULL, NULL, &said))
		fail_msg("%s", said);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static pal__record record_of(const char *id)
{
	pal__record r = {.label = "a l\xc3\xa4"
				  "bel",
			 .owner = 0xffffffffffffffffu,
			 .eos = {5, 6},
			 .n_eos = 2,
			 .created = 100.5,
			 .used = 200,
			 .sampling = pal_sampling_default()};
	snprintf(r.id, sizeof r.id, "%s", id);
	return r;
}

static pal__commit append(pal__record *r, int64_t more)
{
	const pal__commit c = {.record = r,
			       .keep = r->length,
			       .ids = ids + r->length,
			       .keep_events = r->n_events,
			       .events = events + r->n_events};
	r->length += more;
	r->n_events++;
	r->used++;
	return c;
}

/* A session of LOG tokens and two events. */
static pal__record make_session(pal__store *t, const char *id)
{
	pal__record r = record_of(id);
	assert_int_equal(pal__store_create(t, &r, NULL), PAL_OK);
	for (int i = 0; i < 2; i++) {
		pal__commit c = append(&r, LOG / 2);
		assert_int_equal(pal__store_commit(t, &c, NULL), PAL_OK);
	}
	return r;
}

static void holds(pal__store *t, const pal__record *r)
{
	pal__stored s = {0};
	pal_error err = {0};
	if (pal__store_load(t, r->id, &s, &err))
		fail_msg("%s", err.text);
	assert_string_equal(s.record.id, r->id);
	assert_string_equal(s.record.label, r->label);
	assert_int_equal(s.record.length, r->length);
	assert_true(s.record.used == r->used && s.record.owner == r->owner);
	assert_int_equal(s.record.n_events, r->n_events);
	assert_memory_equal(s.ids, ids, 4 * (size_t)r->length);
	assert_memory_equal(s.events, events, r->n_events * sizeof *events);
	pal__stored_free(&s);
}

static void refused(pal_status got, pal_status want, const pal_error *err, const char *text)
{
	if (got != want || err->code != want || !strstr(err->text, text) || strchr(err->text, '\n'))
		fail_msg("%d instead of %d: %s (expected: %s)", got, want, err->text, text);
}

static void join_id(void *user, const pal__record *r)
{
	strcat(strcat(user, r->id), " ");
}

static void join_why(void *user, const char *id, const char *why)
{
	strcat(strcat(strcat(strcat(user, id), ": "), why), "\n");
}

static void lists(pal__store *t, const char *want)
{
	char got[512] = "";
	assert_int_equal(pal__store_each(t, join_id, got, NULL), PAL_OK);
	assert_string_equal(got, want);
}

static void aside(pal__store *t, const char *want)
{
	char got[2048] = "";
	assert_int_equal(pal__store_quarantined(t, join_why, got, NULL), PAL_OK);
	assert_string_equal(got, want);
}

static void remove_files(void)
{
	static const char *const names[] = {"", "-wal", "-journal", "-shm"};
	char name[128];
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		snprintf(name, sizeof name, "%s%s", path, names[i]);
		unlink(name);
	}
	snprintf(name, sizeof name, "%s/sessions.lock", dir);
	unlink(name);
}

static int set_up(void **state)
{
	(void)state;
	signal(SIGXFSZ, SIG_IGN);
	for (int i = 0; i < 4 * LOG; i++)
		ids[i] = i * 7919 % 50000;
	for (int i = 0; i < 3; i++)
		events[i] = (pal_event){.position = 10 * i,
					.reread = i,
					.n_chunks = 2,
					.chunks = {1, 5 + i},
					.sources = {0, 3}};
	if (!mkdtemp(folder))
		return -1;
	snprintf(dir, sizeof dir, "%s/deep/er", folder);
	snprintf(path, sizeof path, "%s/sessions.db", dir);
	return 0;
}

static int clean_up(void **state)
{
	(void)state;
	remove_files();
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	char up[64];
	snprintf(up, sizeof up, "%s/deep", folder);
	return rmdir(dir) || rmdir(up) || rmdir(folder);
}

/* --- sessions -------------------------------------------------------------------------- */

static void create_fork_delete(void **state)
{
	(void)state;
	pal_error err = {0};
	pal__store *t = open_store();
	pal__record a = make_session(t, "a"), b = record_of("b"), none = record_of("none");
	holds(t, &a);
	refused(pal__store_create(t, &a, &err), PAL_EINVAL, &err, "new has no log");
	none.n_events = 1;
	refused(pal__store_create(t, &none, &err), PAL_EINVAL, &err, "new has no log");
	pal__record twice = record_of("a");
	refused(pal__store_create(t, &twice, &err), PAL_EINVAL, &err, "UNIQUE");
	b.used = 1000;
	assert_int_equal(pal__store_fork(t, "a", &b, NULL), PAL_OK);
	b.length = a.length;
	b.n_events = a.n_events;
	holds(t, &b);
	lists(t, "b a ");
	refused(pal__store_fork(t, "a", &b, &err), PAL_EINVAL, &err, "UNIQUE");
	refused(pal__store_fork(t, "none", &none, &err), PAL_ENOTFOUND, &err, "none");
	assert_int_equal(pal__store_delete(t, "a", NULL), PAL_OK);
	refused(pal__store_delete(t, "a", &err), PAL_ENOTFOUND, &err, "there is no session a");
	pal__stored s = {0};
	refused(pal__store_load(t, "a", &s, &err), PAL_ENOTFOUND, &err, "there is no session a");
	pal__commit c = append(&a, 1);
	refused(pal__store_commit(t, &c, &err), PAL_ENOTFOUND, &err, "there is no session a");
	pal__store_close(t);
	t = open_store();
	holds(t, &b);
	lists(t, "b ");
	aside(t, "");
	pal__store_close(t);
	/* What was of a went with it. */
	run_sql("CREATE TABLE t(x CHECK(x = 0)); INSERT INTO t SELECT count(*) FROM pieces"
		" WHERE session NOT IN (SELECT n FROM sessions)");
}

static void room_comes_back(void **state)
{
	(void)state;
	pal__store *t = open_store();
	uint64_t before = pal__store_bytes(t);
	assert_true(before > 0);
	pal__record r = record_of("large");
	int32_t *log = calloc(1 << 18, sizeof *log);
	assert_non_null(log);
	assert_int_equal(pal__store_create(t, &r, NULL), PAL_OK);
	r.length = 1 << 18;
	const pal__commit c = {.record = &r, .ids = log};
	assert_int_equal(pal__store_commit(t, &c, NULL), PAL_OK);
	free(log);
	pal__store_close(t);
	t = open_store();
	assert_true(pal__store_bytes(t) > (4 << 18));
	assert_int_equal(pal__store_delete(t, "large", NULL), PAL_OK);
	pal__store_close(t);
	t = open_store();
	assert_true(pal__store_bytes(t) <= before + 65536);
	pal__store_close(t);
}

/* Commits that do not fit what is stored, or are none. */
static void commits_refused(void **state)
{
	(void)state;
	pal_error err = {0};
	pal__store *t = open_store();
	pal__record r = make_session(t, "a"), to = r;
	pal__commit c = {.record = &to, .keep = LOG + 1, .ids = ids, .keep_events = 2};
	to.length = LOG + 1;
	refused(pal__store_commit(t, &c, &err), PAL_EINVAL, &err, "first 601 of 600");
	c.keep = -1;
	refused(pal__store_commit(t, &c, &err), PAL_EINVAL, &err, "first -1 of 600");
	c.keep = 10;
	to.length = 9;
	refused(pal__store_commit(t, &c, &err), PAL_EINVAL, &err, "-1 tokens after");
	to.length = 10;
	c.keep_events = 3;
	refused(pal__store_commit(t, &c, &err), PAL_EINVAL, &err, "2 events, with the first 3");
	c.keep_events = 2;
	to.label[1] = '\xff';
	refused(pal__store_commit(t, &c, &err), PAL_EINVAL, &err, "record of session a is none");
	to = r;
	to.n_events = 3;
	c.events = &(pal_event){.n_chunks = PAL_MAX_SLOTS + 1};
	refused(pal__store_commit(t, &c, &err), PAL_EINVAL, &err, "event 2 is none");
	/* Changes: of other tokens than there are, behind the end, of no shape. */
	pal__change h = {.at = LOG, .position = 7, .n_old = 2, .n_new = 1, .ids = ids + 8};
	to = r;
	c.change = &h;
	refused(pal__store_commit(t, &c, &err), PAL_EINVAL, &err, "change at 7");
	h.position = LOG - 1;
	h.at = LOG + 1;
	refused(pal__store_commit(t, &c, &err), PAL_EINVAL, &err, "change at 599");
	h.position = -1;
	refused(pal__store_commit(t, &c, &err), PAL_EINVAL, &err, "change at -1");
	holds(t, &r);
	pal__store_close(t);
}

static void inserted_whole(void **state)
{
	(void)state;
	pal_error err = {0};
	pal__store *t = open_store();
	int32_t old_new[3] = {1, 2, 3};
	pal__change h = {.at = 9, .position = 4, .n_events = 1, .n_old = 1, .n_new = 2};
	h.ids = old_new;
	pal__stored s = {record_of("a"), ids, events, &h, 1}, back = {0};
	s.record.length = LOG;
	s.record.n_events = 3;
	assert_int_equal(pal__store_insert(t, &s, NULL), PAL_OK);
	holds(t, &s.record);
	assert_int_equal(pal__store_load(t, "a", &back, NULL), PAL_OK);
	assert_int_equal(back.n_changes, 1);
	assert_true(back.changes->n_new == 2 && back.changes->n_events == 1);
	assert_memory_equal(back.changes->ids, old_new, sizeof old_new);
	pal__stored_free(&back);
	refused(pal__store_insert(t, &s, &err), PAL_EINVAL, &err, "UNIQUE");
	s.record = record_of("");
	refused(pal__store_insert(t, &s, &err), PAL_EINVAL, &err, "is none");
	s.record = record_of("b");
	h.position = 10;
	refused(pal__store_insert(t, &s, &err), PAL_EINVAL, &err, "change 0 is none");
	lists(t, "a ");
	pal__store_close(t);
}

static void bytes_under_names(void **state)
{
	(void)state;
	char name[66];
	void *data = NULL;
	size_t n = 9;
	pal_error err = {0};
	pal__store *t = open_store();
	assert_int_equal(pal__store_put(t, "resp", 1, "one", 3, NULL), PAL_OK);
	assert_int_equal(pal__store_put(t, "resp", 1, "other", 5, NULL), PAL_OK);
	assert_int_equal(pal__store_put(t, "empty", 1, NULL, 0, NULL), PAL_OK);
	refused(pal__store_get(t, "resp", 2, &data, &n, &err), PAL_ENOTFOUND, &err, "no resp");
	assert_int_equal(pal__store_get(t, "resp", 1, &data, &n, NULL), PAL_OK);
	assert_true(n == 5 && !memcmp(data, "other", 5));
	pal__free(data);
	assert_int_equal(pal__store_get(t, "empty", 1, &data, &n, NULL), PAL_OK);
	assert_int_equal(n, 0);
	pal__free(data);
	refused(pal__store_forget(t, "resp", 2, &err), PAL_ENOTFOUND, &err, "no resp");
	assert_int_equal(pal__store_forget(t, "empty", 1, NULL), PAL_OK);
	assert_int_equal(pal__store_get(t, "empty", 1, &data, &n, NULL), PAL_ENOTFOUND);
	memset(name, 'x', sizeof name);
	name[64] = 0;
	refused(pal__store_put(t, name, 1, "", 0, &err), PAL_EINVAL, &err, "64 bytes");
	refused(pal__store_put(t, "", 1, "", 0, &err), PAL_EINVAL, &err, "0 bytes");
	refused(pal__store_put(t, "x", 1, name, PAL__MAX_BYTES + 1, &err), PAL_ELIMIT, &err,
		"16777217 bytes");
	assert_int_equal(pal__store_expire(t, 1000, NULL), PAL_OK);
	assert_int_equal(pal__store_get(t, "resp", 1, &data, &n, NULL), PAL_OK);
	pal__free(data);
	pal__store_close(t);
	run_sql("UPDATE bytes SET data = x'6f74686570'");
	t = open_store();
	refused(pal__store_get(t, "resp", 1, &data, &n, &err), PAL_EFORMAT, &err, "checksum");
	assert_int_equal(pal__store_expire(t, -1, NULL), PAL_OK);
	assert_int_equal(pal__store_get(t, "resp", 1, &data, &n, NULL), PAL_ENOTFOUND);
	pal__store_close(t);
}

/* --- opening --------------------------------------------------------------------------- */

static void for_one_process_and_user(void **state)
{
	(void)state;
	static const char *const names[] = {"", "/sessions.db", "/sessions.db-wal",
					    "/sessions.lock"};
	char name[128];
	pal_error err = {0};
	pal__store *t = open_store(), *second = NULL;
	make_session(t, "a");
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		struct stat st;
		snprintf(name, sizeof name, "%s%s", dir, names[i]);
		assert_int_equal(stat(name, &st), 0);
		assert_int_equal(st.st_mode & 0777, i ? 0600 : 0700);
	}
	refused(pal__store_open(dir, HASH, true, &second, &err), PAL_EBUSY, &err,
		"another process has this store");
	assert_null(second);
	pal__store_close(t);
	assert_int_equal(pal__store_open(dir, HASH, true, &second, NULL), PAL_OK);
	lists(second, "a ");
	pal__store_close(second);
	pal__store_close(NULL);
	refused(pal__store_open(dir, 1, true, &second, &err), PAL_EINVAL, &err,
		"another model: of fedcba9876543210, but this one is 0000000000000001");
	refused(pal__store_open("/proc/nothing", HASH, true, &second, &err), PAL_EIO, &err,
		"cannot be made");
}

static void not_ours(void **state)
{
	(void)state;
	pal_error err = {0};
	pal__store *t = NULL;
	pal__store_close(open_store());
	run_sql("PRAGMA user_version = 2");
	refused(pal__store_open(dir, HASH, false, &t, &err), PAL_EUNSUPPORTED, &err,
		"sessions.db has version 2 (supported: 1)");
	run_sql("PRAGMA user_version = 1; DROP TABLE bytes");
	refused(pal__store_open(dir, HASH, false, &t, &err), PAL_EFORMAT, &err,
		"sessions.db is damaged: no such table");
	run_sql("PRAGMA application_id = 1");
	refused(pal__store_open(dir, HASH, false, &t, &err), PAL_EFORMAT, &err,
		"sessions.db is no database of sessions");
	remove_files();
	assert_int_equal(symlink("/dev/null", path), 0);
	refused(pal__store_open(dir, HASH, false, &t, &err), PAL_EIO, &err, "symbolic link");
	unlink(path);
	/* A database of somebody else stays as it is. */
	run_sql("CREATE TABLE mine(x)");
	refused(pal__store_open(dir, HASH, false, &t, &err), PAL_EFORMAT, &err,
		"sessions.db is no database of sessions");
	run_sql("INSERT INTO mine VALUES(1)");
	remove_files();
	FILE *f = fopen(path, "wb");
	for (int i = 0; i < 5000; i++)
		fputc(i & 255, f);
	fclose(f);
	refused(pal__store_open(dir, HASH, false, &t, &err), PAL_EFORMAT, &err,
		"sessions.db is damaged: file is not a database");
}

/* Pages overwritten one by one: an error that says so, or the other session as it was. */
static void pages_damaged(void **state)
{
	(void)state;
	static uint8_t good[1 << 18];
	static const uint8_t bad[4096] = {0x55, 0xff};
	pal__store *t = open_store();
	pal__record a = make_session(t, "a"), b = make_session(t, "b");
	pal__store_close(t);
	FILE *f = fopen(path, "rb");
	size_t n = fread(good, 1, sizeof good, f), opened = 0, refusals = 0;
	fclose(f);
	assert_true(n > 8 * 4096 && n < sizeof good);
	for (size_t at = 0; at < n; at += 4096) {
		pal_error err = {0};
		f = fopen(path, "wb");
		fwrite(good, 1, n, f);
		fseek(f, (long)at, SEEK_SET);
		fwrite(bad, 1, sizeof bad, f);
		fclose(f);
		pal_status status = pal__store_open(dir, HASH, false, &t, &err);
		if (status) {
			refused(status, PAL_EFORMAT, &err, "sessions.db is damaged: ");
			refusals++;
			continue;
		}
		opened++;
		const pal__record *both[] = {&a, &b};
		for (int i = 0; i < 2; i++) {
			pal__stored s = {0};
			status = pal__store_load(t, both[i]->id, &s, &err);
			if (status)
				refused(status, PAL_EFORMAT, &err, "damaged");
			else
				holds(t, both[i]);
			pal__stored_free(&s);
		}
		pal__store_close(t);
	}
	assert_true(opened && refusals);
}

/* --- damaged sessions ------------------------------------------------------------------- */

static void set_aside(void **state)
{
	(void)state;
	static const struct {
		const char *sql, *why;
		bool listing; /* found when sessions are listed */
	} cases[] = {
		{"UPDATE sessions SET owner = 3 WHERE id = 'a'",
		 "the checksum of its record does not fit", true},
		{"UPDATE sessions SET sum = sum + 1 WHERE id = 'a'",
		 "the checksum of its record does not fit", true},
		{"UPDATE sessions SET record = zeroblob(288) WHERE id = 'a'",
		 "the checksum of its record does not fit", true},
		{"UPDATE sessions SET record = x'00' WHERE id = 'a'",
		 "the checksum of its record does not fit", true},
		{"UPDATE pieces SET sum = sum + 1 WHERE session = 1 AND kind = 0 AND at = 240",
		 "tokens from 240 on do not fit their checksum", false},
		{"UPDATE pieces SET data = zeroblob(960) WHERE session = 1 AND kind = 0 AND at = 0",
		 "tokens from 0 on do not fit their checksum", false},
		{"UPDATE pieces SET at = 241 WHERE session = 1 AND kind = 0 AND at = 240",
		 "tokens from 240 on do not fit their checksum", false},
		{"DELETE FROM pieces WHERE session = 1 AND kind = 0 AND at = 240",
		 "tokens from 240 on are missing", false},
		{"DELETE FROM pieces WHERE session = 1 AND kind = 0 AND at = 480",
		 "480 tokens instead of 600", false},
		{"DELETE FROM pieces WHERE session = 1 AND kind = 1 AND at = 1",
		 "1 events instead of 2", false},
		{"UPDATE pieces SET data = x'00' WHERE session = 1 AND kind = 1 AND at = 1",
		 "events from 1 on do not fit their checksum", false},
		{"INSERT INTO pieces SELECT session, 2, 0, data, sum FROM pieces"
		 " WHERE session = 1 AND kind = 1 AND at = 1",
		 "changes from 0 on do not fit their checksum", false},
		/* Another session's are good ones, and yet not its own. */
		{"DELETE FROM pieces WHERE session = 1 AND kind = 0;"
		 "INSERT INTO pieces SELECT 1, kind, at, data, sum FROM pieces"
		 " WHERE session = 2 AND kind = 0",
		 "tokens from 0 on do not fit their checksum", false},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char want[256];
		pal_error err = {0};
		pal__stored s = {0};
		pal__store *t = open_store();
		pal__record a = make_session(t, "a"), b = make_session(t, "b");
		pal__store_close(t);
		run_sql(cases[i].sql);
		t = open_store();
		aside(t, "");
		lists(t, cases[i].listing ? "b " : "b a ");
		refused(pal__store_load(t, "a", &s, &err), PAL_EFORMAT, &err, cases[i].why);
		lists(t, "b ");
		snprintf(want, sizeof want, "a: %s\n", cases[i].why);
		aside(t, want);
		/* And so it stays; the other lives. */
		pal__commit c = append(&a, 1);
		refused(pal__store_commit(t, &c, &err), PAL_EFORMAT, &err, cases[i].why);
		c = append(&b, 1);
		assert_int_equal(pal__store_commit(t, &c, NULL), PAL_OK);
		pal__store_close(t);
		t = open_store();
		aside(t, want);
		holds(t, &b);
		pal__record again = record_of("c");
		refused(pal__store_fork(t, "a", &again, &err), PAL_EFORMAT, &err, cases[i].why);
		assert_int_equal(pal__store_delete(t, "a", NULL), PAL_OK);
		aside(t, "");
		pal__store_close(t);
		remove_files();
	}
}

/* What a commit builds on is checked, too. */
static void damaged_under_a_commit(void **state)
{
	(void)state;
	static const char *const cases[][2] = {
		{"UPDATE pieces SET sum = 0 WHERE at = 480", "the last tokens do not fit"},
		{"DELETE FROM pieces WHERE at = 480", "tokens are missing"},
		{"DELETE FROM pieces", "tokens are missing"},
		{"UPDATE pieces SET data = x'' WHERE at = 480", "tokens are missing"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		pal_error err = {0};
		pal__store *t = open_store();
		pal__record a = make_session(t, "a");
		pal__store_close(t);
		run_sql(cases[i][0]);
		t = open_store();
		pal__commit c = append(&a, 1);
		refused(pal__store_commit(t, &c, &err), PAL_EFORMAT, &err, cases[i][1]);
		lists(t, "");
		pal__store_close(t);
		remove_files();
	}
}

/* --- failures ------------------------------------------------------------------------------ */

static pal_status everything(pal__record *r, pal_error *err)
{
	pal__store *t = NULL;
	pal_status status = pal__store_open(dir, HASH, false, &t, err);
	pal__record b = record_of("b");
	pal__stored s = {0};
	void *data = NULL;
	char list[64] = "";
	size_t n = 0;
	pal__change h = {.at = LOG, .position = 3, .n_old = 2, .n_new = 2};
	int32_t old_new[] = {ids[3], ids[4], ids[3], ids[4]};
	h.ids = old_new;
	pal__record to = *r;
	pal__commit c = append(&to, LOG);
	c.change = &h;
	if (!status)
		status = pal__store_commit(t, &c, err);
	if (!status)
		*r = to;
	if (!status)
		status = pal__store_fork(t, "a", &b, err);
	if (!status)
		status = pal__store_load(t, "b", &s, err);
	if (!status)
		status = pal__store_put(t, "name", 1, ids, sizeof ids, err);
	if (!status)
		status = pal__store_get(t, "name", 1, &data, &n, err);
	if (!status)
		status = pal__store_each(t, join_id, list, err);
	if (!status)
		status = pal__store_delete(t, "b", err);
	pal__free(data);
	pal__stored_free(&s);
	pal__store_close(t);
	return status;
}

/* What failed has changed nothing, or only what came before it. */
static void is_whole(const pal__record *r)
{
	pal__store *t = open_store();
	aside(t, "");
	holds(t, r);
	if (pal__store_delete(t, "b", NULL))
		lists(t, "a ");
	pal__store_close(t);
}

static void without_memory(void **state)
{
	(void)state;
	pal_error err = {0};
	pal__store *t = open_store();
	pal__record r = make_session(t, "a");
	pal__store_close(t);
	int64_t failures = 0;
	for (int64_t i = 0;; i += 1 + i / 8) {
		pal__record to = r;
		int64_t live = pal__mem_live();
		pal__mem_fail_after(i);
		pal_status status = everything(&to, &err);
		bool failed = pal__mem_failed();
		pal__mem_fail_after(-1);
		assert_int_equal(pal__mem_live(), live);
		/* SQLite does without some of it. */
		if (status)
			refused(status, PAL_ENOMEM, &err, "out of memory");
		is_whole(&to);
		if (!failed)
			break;
		failures += status != PAL_OK;
		remove_files();
		t = open_store();
		r = make_session(t, "a");
		pal__store_close(t);
	}
	assert_true(failures > 30);
}

static void full_disk(void **state)
{
	(void)state;
	struct rlimit old, limit;
	pal_error err = {0};
	struct stat st;
	int failures = 0;
	char wal[128];
	pal__store *t = open_store();
	pal__record r = make_session(t, "a");
	snprintf(wal, sizeof wal, "%s-wal", path);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	assert_int_equal(stat(wal, &st), 0);
	for (rlim_t more = 0;; more += 512) {
		pal__record to = r;
		pal__commit c = append(&to, LOG);
		limit = (struct rlimit){(rlim_t)st.st_size + more, old.rlim_max};
		assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
		pal_status status = pal__store_commit(t, &c, &err);
		setrlimit(RLIMIT_FSIZE, &old);
		if (!status) {
			holds(t, &to);
			break;
		}
		refused(status, PAL_EIO, &err, "sessions.db: ");
		failures++;
		holds(t, &r);
	}
	assert_true(failures > 3);
	pal__store_close(t);
	/* None for a new one. */
	remove_files();
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &(struct rlimit){0, old.rlim_max}), 0);
	pal_status status = pal__store_open(dir, HASH, false, &t, &err);
	setrlimit(RLIMIT_FSIZE, &old);
	refused(status, PAL_EIO, &err, "sessions.db: ");
	pal__store_close(open_store());
}

/* --- threads --------------------------------------------------------------------------------- */

static pal__store *shared;

static void count(void *user, const pal__record *r)
{
	(void)r;
	++*(int *)user;
}

static void *work(void *arg)
{
	char id[8];
	pal__stored s = {0};
	void *data = NULL;
	size_t n;
	int sessions = 0;
	snprintf(id, sizeof id, "s%d", *(int *)arg);
	pal__record r = record_of(id);
	int bad = pal__store_create(shared, &r, NULL) != PAL_OK;
	for (int i = 0; i < 20; i++) {
		pal__commit c = {.record = &r, .keep = r.length, .ids = ids + r.length};
		r.length += 32;
		bad += pal__store_commit(shared, &c, NULL) != PAL_OK;
		bad += pal__store_put(shared, id, 1, &i, sizeof i, NULL) != PAL_OK;
		bad += pal__store_get(shared, id, 1, &data, &n, NULL) != PAL_OK;
		bad += !pal__store_bytes(shared);
		pal__free(data);
	}
	bad += pal__store_each(shared, count, &sessions, NULL) != PAL_OK || !sessions;
	bad += pal__store_load(shared, id, &s, NULL) != PAL_OK ||
	       memcmp(s.ids, ids, 4 * (size_t)r.length) != 0;
	pal__stored_free(&s);
	*(int *)arg = bad;
	return NULL;
}

static void threads(void **state)
{
	(void)state;
	pthread_t t[4];
	int args[4];
	shared = open_store();
	for (int i = 0; i < 4; i++) {
		args[i] = i;
		assert_int_equal(pthread_create(&t[i], NULL, work, &args[i]), 0);
	}
	for (int i = 0; i < 4; i++) {
		pthread_join(t[i], NULL);
		assert_int_equal(args[i], 0);
	}
	pal__store_close(shared);
}

/* --- SQLite's memory is ours here, so that it fails, too ---------------------------------------
 */

#define BEFORE 16 /* bytes, that keep the size */

static void *sql_alloc(int n)
{
	char *p = pal__alloc((size_t)n + BEFORE);
	return p ? *(int *)p = n, p + BEFORE : NULL;
}

static void sql_free(void *p)
{
	if (p)
		pal__free((char *)p - BEFORE);
}

static void *sql_realloc(void *p, int n)
{
	char *q = pal__realloc(p ? (char *)p - BEFORE : NULL, (size_t)n + BEFORE);
	return q ? *(int *)q = n, q + BEFORE : NULL;
}

static int sql_size(void *p)
{
	return p ? *(int *)((char *)p - BEFORE) : 0;
}

static int sql_round(int n)
{
	return (n + 7) & ~7;
}

static int sql_init(void *user)
{
	(void)user;
	return SQLITE_OK;
}

static void sql_shutdown(void *user)
{
	(void)user;
}

int main(void)
{
	static const sqlite3_mem_methods memory = {sql_alloc, sql_free, sql_realloc,  sql_size,
						   sql_round, sql_init, sql_shutdown, NULL};
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(create_fork_delete, clean_up),
		cmocka_unit_test_teardown(room_comes_back, clean_up),
		cmocka_unit_test_teardown(commits_refused, clean_up),
		cmocka_unit_test_teardown(inserted_whole, clean_up),
		cmocka_unit_test_teardown(bytes_under_names, clean_up),
		cmocka_unit_test_teardown(for_one_process_and_user, clean_up),
		cmocka_unit_test_teardown(not_ours, clean_up),
		cmocka_unit_test_teardown(pages_damaged, clean_up),
		cmocka_unit_test_teardown(set_aside, clean_up),
		cmocka_unit_test_teardown(damaged_under_a_commit, clean_up),
		cmocka_unit_test_teardown(without_memory, clean_up),
		cmocka_unit_test_teardown(full_disk, clean_up),
		cmocka_unit_test_teardown(threads, clean_up),
	};
	sqlite3_config(SQLITE_CONFIG_MALLOC, &memory);
	sqlite3_initialize();
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
