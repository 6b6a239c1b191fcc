/* The store against a plain model of it in memory, as TAP.
 *
 *   store [--kills N] [--rounds N] [--seed N]
 *
 * Programs of random operations (create, append, truncate, change, fork, delete, bytes under
 * names), each number of which is an operation that depends on the seed and the state alone. A
 * round of a program opens the store again and compares everything that is in it. With --kills the
 * operations are done by a child that says which of them have returned, and is killed at any
 * instant: all that it said must be there, and of the operation under way all or nothing.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "programs.h"
#include "session/store.h"

#define SESSIONS 6
#define NAMES 3
#define MAX_LOG 3000
#define MAX_EVENTS 60
#define MAX_CHANGES 20
#define MAX_CHANGED 300
#define MAX_BYTES 9000
#define HASH 0x1234567890abcdefu

typedef struct {
	bool there;
	pal__record record;
	int32_t ids[MAX_LOG];
	pal_event events[MAX_EVENTS];
	int n_changes;
	pal__change changes[MAX_CHANGES]; /* their ids: in changed */
	int32_t changed[MAX_CHANGES][2 * MAX_CHANGED];
} session;

typedef struct {
	uint64_t done; /* operations */
	session sessions[SESSIONS];
	int n_bytes[NAMES]; /* -1: there are none */
	uint8_t bytes[NAMES][MAX_BYTES];
} model;

#define REQUIRE(c)                                                                        \
	do {                                                                              \
		if (!(c)) {                                                               \
			printf("# %s:%d: broken: %s: %s\n", __FILE__, __LINE__, #c, why); \
			fflush(stdout);                                                   \
			exit(1);                                                          \
		}                                                                         \
	} while (0)

static char why[sizeof((pal_error *)0)->text] = "";

static void worked(pal_status status, const pal_error *err)
{
	if (status)
		snprintf(why, sizeof why, "%s", err->text);
	REQUIRE(status == PAL_OK);
}

/* --- operations: done to the model, and to the store where there is one --------------- */

static pal__record new_record(int i, uint64_t number, uint64_t *r)
{
	pal__record out = {.owner = random_next(r),
			   .n_eos = (int)random_below(r, 4),
			   .stateless = random_below(r, 2),
			   .created = (double)number,
			   .used = (double)number,
			   .sampling = pal_sampling_default()};
	snprintf(out.id, sizeof out.id, "sess-%032d", i);
	snprintf(out.label, sizeof out.label, "label %d", (int)random_below(r, 1000));
	for (int k = 0; k < out.n_eos; k++)
		out.eos[k] = (int32_t)random_below(r, 1000);
	return out;
}

static void create(model *m, int i, uint64_t *r, pal__store *t)
{
	pal_error err = {0};
	session *s = &m->sessions[i];
	s->there = true;
	s->n_changes = 0;
	s->record = new_record(i, m->done, r);
	if (t)
		worked(pal__store_create(t, &s->record, &err), &err);
}

static void fork_session(model *m, int from, int to, uint64_t *r, pal__store *t)
{
	pal_error err = {0};
	session *a = &m->sessions[from], *b = &m->sessions[to];
	*b = *a;
	b->record = new_record(to, m->done, r);
	b->record.length = a->record.length;
	b->record.n_events = a->record.n_events;
	for (int i = 0; i < b->n_changes; i++)
		b->changes[i].ids = b->changed[i];
	if (t)
		worked(pal__store_fork(t, a->record.id, &b->record, &err), &err);
}

static void delete (model *m, int i, pal__store *t)
{
	pal_error err = {0};
	m->sessions[i].there = false;
	if (t)
		worked(pal__store_delete(t, m->sessions[i].record.id, &err), &err);
}

static int64_t smaller(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

/* A change of some tokens by others; all random ones. */
static const pal__change *change(session *s, uint64_t *r)
{
	int64_t n = s->record.length, at = random_below(r, n + 1);
	pal__change *c = &s->changes[s->n_changes];
	*c = (pal__change){
		.at = n,
		.position = at,
		.n_events = s->record.n_events,
		.n_old = (int32_t)random_below(r, smaller(n - at, MAX_CHANGED) + 1),
		.ids = s->changed[s->n_changes++],
	};
	c->n_new = (int32_t)random_below(r, smaller(MAX_LOG - n + c->n_old, MAX_CHANGED) + 1);
	memcpy(c->ids, s->ids + at, 4 * (size_t)c->n_old);
	for (int i = 0; i < c->n_new; i++)
		c->ids[c->n_old + i] = (int32_t)random_below(r, 100000);
	memmove(s->ids + at + c->n_new, s->ids + at + c->n_old, 4 * (size_t)(n - at - c->n_old));
	memcpy(s->ids + at, c->ids + c->n_old, 4 * (size_t)c->n_new);
	s->record.length = n - c->n_old + c->n_new;
	return c;
}

static pal_event random_event(int64_t position, uint64_t *r)
{
	pal_event e;
	memset(&e, 0, sizeof e);
	e.position = position;
	e.reread = (int32_t)random_below(r, 40);
	e.n_chunks = (int32_t)random_below(r, PAL_MAX_SLOTS + 1);
	for (int i = 0; i < e.n_chunks; i++) {
		e.chunks[i] = (i ? e.chunks[i - 1] + 1 : 0) + (int32_t)random_below(r, 50);
		e.sources[i] = (uint8_t)random_below(r, PAL_N_SOURCES);
	}
	return e;
}

/* Of any size: a turn, or the 32 tokens of a generation; with truncation now and then. */
static void commit(model *m, int i, uint64_t *r, pal__store *t)
{
	session *s = &m->sessions[i];
	pal__record *record = &s->record;
	pal__commit c = {.record = record};
	pal_error err = {0};
	if (random_below(r, 12) == 0 && s->n_changes < MAX_CHANGES)
		c.change = change(s, r);
	c.keep = record->length;
	c.keep_events = record->n_events;
	if (random_below(r, 8) == 0 || c.keep > MAX_LOG - 700)
		c.keep = random_below(r, smaller(c.keep, MAX_LOG - 700) + 1);
	if (random_below(r, 8) == 0 || c.keep_events > MAX_EVENTS - 4)
		c.keep_events = (uint64_t)random_below(
			r, smaller((int64_t)c.keep_events, MAX_EVENTS - 4) + 1);
	if (random_below(r, 30) == 0)
		c.keep = 0;
	if (!c.keep && !c.change)
		s->n_changes = 0;
	int64_t more = random_below(r, 3) ? 32 : random_below(r, random_below(r, 2) ? 4 : 700);
	c.ids = s->ids + c.keep;
	c.events = s->events + c.keep_events;
	record->length = c.keep + more;
	record->n_events = c.keep_events + (uint64_t)random_below(r, 4);
	for (int64_t k = c.keep; k < record->length; k++)
		s->ids[k] = (int32_t)random_below(r, 100000);
	for (uint64_t k = c.keep_events; k < record->n_events; k++)
		s->events[k] = random_event(record->length, r);
	record->used = (double)m->done;
	record->turns++;
	record->generating = random_below(r, 2);
	record->remaining = random_below(r, 1000);
	record->sampling.seed = random_next(r);
	if (t)
		worked(pal__store_commit(t, &c, &err), &err);
}

static void put(model *m, int i, uint64_t *r, pal__store *t)
{
	char name[16];
	pal_error err = {0};
	m->n_bytes[i] = (int)random_below(r, random_below(r, 2) ? 20 : MAX_BYTES);
	for (int k = 0; k < m->n_bytes[i]; k++)
		m->bytes[i][k] = (uint8_t)random_next(r);
	snprintf(name, sizeof name, "name %d", i);
	if (t)
		worked(pal__store_put(t, name, 7, m->bytes[i], (size_t)m->n_bytes[i], &err), &err);
}

static void forget(model *m, int i, pal__store *t)
{
	char name[16];
	pal_error err = {0};
	m->n_bytes[i] = -1;
	snprintf(name, sizeof name, "name %d", i);
	if (t)
		worked(pal__store_forget(t, name, 7, &err), &err);
}

/* The next one. */
static void operate(model *m, uint64_t seed, pal__store *t)
{
	uint64_t r = seed * 1000003 + ++m->done;
	int i = (int)random_below(&r, SESSIONS), other = (int)random_below(&r, SESSIONS);
	int name = (int)random_below(&r, NAMES);
	int64_t kind = random_below(&r, 20);
	if (kind == 0)
		put(m, name, &r, t);
	else if (kind == 1 && m->n_bytes[name] >= 0)
		forget(m, name, t);
	else if (!m->sessions[i].there)
		create(m, i, &r, t);
	else if (kind == 2)
		delete (m, i, t);
	else if (kind == 3 && !m->sessions[other].there)
		fork_session(m, i, other, &r, t);
	else
		commit(m, i, &r, t);
}

/* --- comparing ------------------------------------------------------------------------- */

static bool same_record(const pal__record *a, const pal__record *b)
{
	return !strcmp(a->id, b->id) && !strcmp(a->label, b->label) && a->owner == b->owner &&
	       a->n_eos == b->n_eos && !memcmp(a->eos, b->eos, 4 * (size_t)a->n_eos) &&
	       a->stateless == b->stateless && a->created == b->created && a->used == b->used &&
	       a->turns == b->turns && a->length == b->length && a->n_events == b->n_events &&
	       a->generating == b->generating && a->remaining == b->remaining &&
	       a->sampling.seed == b->sampling.seed &&
	       a->sampling.repeat_penalty == b->sampling.repeat_penalty;
}

static bool same_session(const session *a, const pal__stored *b)
{
	if (!same_record(&a->record, &b->record) ||
	    memcmp(a->ids, b->ids, 4 * (size_t)a->record.length) ||
	    memcmp(a->events, b->events, a->record.n_events * sizeof *a->events) ||
	    (size_t)a->n_changes != b->n_changes)
		return false;
	for (int i = 0; i < a->n_changes; i++) {
		const pal__change *c = &a->changes[i], *d = &b->changes[i];
		if (c->at != d->at || c->position != d->position || c->n_events != d->n_events ||
		    c->n_old != d->n_old || c->n_new != d->n_new ||
		    memcmp(c->ids, d->ids, 4 * (size_t)(c->n_old + c->n_new)))
			return false;
	}
	return true;
}

typedef struct {
	const model *m;
	int n;
	double before; /* when the one before was used last */
	bool same;
} listing;

static void listed(void *user, const pal__record *record)
{
	listing *l = user;
	int i = atoi(record->id + 5);
	l->same = l->same && l->m->sessions[i].there && record->used <= l->before &&
		  same_record(&l->m->sessions[i].record, record);
	l->before = record->used;
	l->n++;
}

static void set_aside(void *user, const char *id, const char *reason)
{
	(void)user;
	snprintf(why, sizeof why, "%s: %s", id, reason);
	REQUIRE(!"a session is set aside");
}

static bool same_bytes(const model *m, pal__store *t, int i)
{
	char name[16];
	void *data = NULL;
	size_t n = 0;
	pal_error err = {0};
	snprintf(name, sizeof name, "name %d", i);
	pal_status status = pal__store_get(t, name, 7, &data, &n, &err);
	if (status == PAL_ENOTFOUND)
		return m->n_bytes[i] < 0;
	worked(status, &err);
	bool same = m->n_bytes[i] == (int)n && !memcmp(m->bytes[i], data, n);
	pal__free(data);
	return same;
}

/* Whether the store has what the model has, and nothing else. */
static bool same(const model *m, pal__store *t)
{
	listing l = {m, 0, 1e300, true};
	pal_error err = {0};
	worked(pal__store_each(t, listed, &l, &err), &err);
	for (int i = 0; i < SESSIONS; i++) {
		const session *s = &m->sessions[i];
		pal__stored stored = {0};
		if (!s->there)
			continue;
		pal_status status = pal__store_load(t, s->record.id, &stored, &err);
		if (status != PAL_ENOTFOUND)
			worked(status, &err);
		l.same = l.same && !status && same_session(s, &stored);
		pal__stored_free(&stored);
		l.n--;
	}
	for (int i = 0; i < NAMES; i++)
		l.same = l.same && same_bytes(m, t, i);
	worked(pal__store_quarantined(t, set_aside, NULL, &err), &err);
	return l.same && l.n == 0;
}

static pal__store *open_store(const char *dir, bool sync)
{
	pal__store *t = NULL;
	pal_error err = {0};
	worked(pal__store_open(dir, HASH, sync, &t, &err), &err);
	return t;
}

/* --- programs ----------------------------------------------------------------------------- */

static void in_one_process(model *m, const char *dir, uint64_t seed, uint64_t *r)
{
	pal__store *t = open_store(dir, false);
	for (int64_t i = 1 + random_below(r, 60); i > 0; i--)
		operate(m, seed, t);
	REQUIRE(same(m, t));
	pal__store_close(t);
	t = open_store(dir, false);
	REQUIRE(same(m, t));
	pal__store_close(t);
}

/* Works until it is killed; writes the number of each operation that has returned. */
static void child(model *m, const char *dir, uint64_t seed, int to)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	pal__store *t = open_store(dir, m->done % 2);
	for (;;) {
		operate(m, seed, t);
		REQUIRE(write(to, &m->done, sizeof m->done) == (ssize_t)sizeof m->done);
	}
}

/* How far a child came that was killed after some operations and an instant. */
static uint64_t kill_one(model *m, const char *dir, uint64_t seed, uint64_t *r)
{
	int ends[2];
	uint64_t said = m->done, n;
	REQUIRE(pipe(ends) == 0);
	fflush(stdout);
	pid_t pid = fork();
	REQUIRE(pid >= 0);
	if (!pid) {
		close(ends[0]);
		child(m, dir, seed, ends[1]);
	}
	close(ends[1]);
	int64_t least = random_below(r, 40), wait = random_below(r, 2) ? 300 : 4000;
	while (least-- > 0 && read(ends[0], &n, sizeof n) == (ssize_t)sizeof n)
		said = n;
	usleep((useconds_t)random_below(r, wait));
	REQUIRE(kill(pid, SIGKILL) == 0);
	while (read(ends[0], &n, sizeof n) == (ssize_t)sizeof n)
		said = n;
	close(ends[0]);
	int status = 0;
	REQUIRE(waitpid(pid, &status, 0) == pid);
	REQUIRE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	return said;
}

static void killed(model *m, const char *dir, uint64_t seed, uint64_t *r, int64_t *under_way)
{
	uint64_t said = kill_one(m, dir, seed, r);
	while (m->done < said)
		operate(m, seed, NULL);
	pal__store *t = open_store(dir, false);
	if (!same(m, t)) {
		operate(m, seed, NULL);
		++*under_way;
		REQUIRE(same(m, t));
	}
	pal__store_close(t);
}

static void remove_store(const char *dir)
{
	static const char *const names[] = {"sessions.db", "sessions.db-wal", "sessions.lock"};
	char path[128];
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		snprintf(path, sizeof path, "%s/%s", dir, names[i]);
		unlink(path);
	}
	REQUIRE(rmdir(dir) == 0);
}

int main(int argc, char **argv)
{
	int64_t rounds = 40, kills = 0, under_way = 0;
	uint64_t seed = 1;
	for (int i = 1; i + 1 < argc; i += 2) {
		if (!strcmp(argv[i], "--rounds"))
			rounds = atoll(argv[i + 1]);
		else if (!strcmp(argv[i], "--kills"))
			kills = atoll(argv[i + 1]);
		else if (!strcmp(argv[i], "--seed"))
			seed = (uint64_t)atoll(argv[i + 1]);
	}
	char dir[] = "/tmp/pal-store-XXXXXX";
	model *m = calloc(1, sizeof *m);
	REQUIRE(m && mkdtemp(dir));
	for (int i = 0; i < NAMES; i++)
		m->n_bytes[i] = -1;
	setvbuf(stdout, NULL, _IOLBF, 0);
	uint64_t r = seed;
	printf("1..1\n# seed %llu\n", (unsigned long long)seed);
	for (int64_t i = 0; i < (kills ? kills : rounds); i++) {
		if (kills)
			killed(m, dir, seed, &r, &under_way);
		else
			in_one_process(m, dir, seed, &r);
	}
	if (kills)
		printf("ok 1 - %lld kills: all of %llu operations are there, and %lld that had not "
		       "returned\n",
		       (long long)kills, (unsigned long long)m->done, (long long)under_way);
	else
		printf("ok 1 - %llu operations, %lld times opened again\n",
		       (unsigned long long)m->done, (long long)rounds);
	remove_store(dir);
	free(m);
	return 0;
}
