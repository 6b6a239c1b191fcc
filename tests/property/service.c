/* The service against itself: sessions that are disturbed in every way the service allows are those
 * that were not (contract C2, and durability).
 *
 *   service [--seed N] [--rounds N] MODEL...
 *
 * A round has some clients, each with a random program on a session of its own: appends, requests
 * that generate, forks, exports that are imported again, cancelled requests; or it sends a whole
 * history at each turn, with changes near the front and other ends. The programs run on one service
 * at once, with little memory, so that sessions are written out and come back; between phases the
 * service is closed and opened again on its store. Then each program runs alone, on a service that
 * nothing disturbs. Tokens and their log-probabilities, and logs, must be equal. Speaks TAP. */
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "programs.h"
#include "session/service.h"

#define MOST 5
#define PHASES 3
#define STEPS 5
#define MAX_LOG 4000

enum { PARKED, REPLAYED, REUSED, EDITED, FORKED, IMPORTED, EVENTS, N_LIVE };
static const char *const live_names[N_LIVE] = {"sessions written out",
					       "sessions made from the store",
					       "tokens of histories reused",
					       "histories with changes reused",
					       "forks",
					       "imports",
					       "restorations"};
static uint64_t live[N_LIVE];

typedef struct {
	pal__service *v;
	uint64_t owner, state;
	bool history;
	char id[PAL__ID_BYTES]; /* or empty */
	int32_t log[MAX_LOG];   /* of a history: what the client has */
	size_t n;
	uint64_t sum; /* of all that came */
	pal_error err;
	uint64_t reused, edits, forks, imports, events;
} client;

static void add(uint64_t *h, const void *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		*h = (*h ^ ((const uint8_t *)p)[i]) * 0x100000001b3u;
}

static bool on_token(void *user, int32_t id, const char *text, size_t n)
{
	client *c = user;
	(void)text, (void)n;
	if (id < 0)
		return true;
	add(&c->sum, &id, sizeof id);
	if (c->history && c->n < MAX_LOG)
		c->log[c->n++] = id;
	return true;
}

static void on_logprobs(void *user, pal_logprob chosen, const pal_logprob *top, int n)
{
	client *c = user;
	add(&c->sum, &chosen.logprob, sizeof chosen.logprob);
	add(&c->sum, top, (size_t)n * sizeof *top);
}

static pal_status ask(client *c, const int32_t *ids, size_t n, bool generate)
{
	pal_generate_options o = {.sampling = pal_sampling_default(),
				  .on_token = on_token,
				  .on_logprobs = on_logprobs,
				  .n_logprobs = 2,
				  .ignore_end = true,
				  .user = c};
	o.sampling.temperature = random_below(&c->state, 2) ? 1 : 0;
	o.sampling.seed = random_next(&c->state);
	o.max_tokens = 1 + random_below(&c->state, 50);
	pal__report r;
	pal__job job = {.session = c->history ? NULL : c->id,
			.owner = c->owner,
			.ids = ids,
			.n_ids = n,
			.generate = generate ? &o : NULL};
	pal_status s = pal__service_run(c->v, &job, &r, &c->err);
	c->reused += c->history ? (uint64_t)r.reused : 0;
	c->edits += r.edits > 0;
	c->events += r.events;
	add(&c->sum, &r.length, sizeof r.length);
	if (!s && r.committed != r.length)
		return pal__fail(&c->err, PAL_EINVAL, "%lld of %lld tokens committed",
				 (long long)r.committed, (long long)r.length);
	return s;
}

static void some_ids(client *c, int32_t *ids, size_t n)
{
	for (size_t i = 0; i < n; i++)
		ids[i] = (int32_t)random_below(&c->state, 200);
}

/* A turn of a client without state. */
static pal_status resend(client *c)
{
	size_t n = 1 + (size_t)random_below(&c->state, 300), at, more;
	if (c->n + n + 60 > MAX_LOG)
		c->n = MAX_LOG / 2;
	if (c->n > 100 && random_below(&c->state, 3)) {
		/* Near the front something is other, longer or shorter. */
		at = 10 + (size_t)random_below(&c->state, 80);
		more = (size_t)random_below(&c->state, 3);
		memmove(c->log + at + more, c->log + at, (c->n - at) * sizeof *c->log);
		c->n += more;
		some_ids(c, c->log + at, 3);
	}
	if (c->n > 200 && random_below(&c->state, 4) == 0)
		c->n -= (size_t)random_below(&c->state, 150);
	some_ids(c, c->log + c->n, n);
	c->n += n;
	return ask(c, c->log, c->n, true);
}

static pal_status fork_it(client *c)
{
	char id[PAL__ID_BYTES];
	pal_status s = pal__service_fork(c->v, c->id, c->owner, "a fork", id, &c->err);
	if (s)
		return s;
	/* It goes on as the fork or as itself: both are the same. */
	if (random_below(&c->state, 2)) {
		char other[PAL__ID_BYTES];
		memcpy(other, c->id, sizeof other);
		memcpy(c->id, id, sizeof id);
		memcpy(id, other, sizeof id);
	}
	c->forks++;
	return random_below(&c->state, 2) ? PAL_OK
					  : pal__service_delete(c->v, id, c->owner, NULL, &c->err);
}

static pal_status import_it(client *c)
{
	void *bytes = NULL;
	size_t n = 0;
	pal_status s = pal__service_export(c->v, c->id, c->owner, &bytes, &n, &c->err);
	if (!s)
		s = pal__service_delete(c->v, c->id, c->owner, NULL, &c->err);
	if (!s)
		s = pal__service_import(c->v, bytes, n, c->owner, c->id, &c->err);
	pal_free(bytes);
	c->imports++;
	return s;
}

/* A prompt whose client goes away at once: nothing happens. */
static pal_status cancel_it(client *c)
{
	atomic_bool gone = true;
	int32_t ids[500];
	pal__report r;
	some_ids(c, ids, 500);
	pal__job job = {
		.session = c->id, .owner = c->owner, .ids = ids, .n_ids = 500, .cancel = &gone};
	pal_error err;
	if (pal__service_run(c->v, &job, &r, &err) == PAL_ECANCELLED)
		return PAL_OK;
	return pal__fail(&c->err, PAL_EINVAL, "cancelled, and went on: %s", err.text);
}

static pal_status step(client *c)
{
	int32_t ids[400];
	size_t n = 1 + (size_t)random_below(&c->state, 400);
	if (c->history)
		return resend(c);
	switch (random_below(&c->state, 9)) {
	case 0:
		return fork_it(c);
	case 1:
		return import_it(c);
	case 2:
		return cancel_it(c);
	case 3:
	case 4:
		some_ids(c, ids, n);
		return ask(c, ids, n, false);
	default:
		some_ids(c, ids, n);
		return ask(c, ids, n, true);
	}
}

static void *run_phase(void *arg)
{
	client *c = arg;
	pal__create create = {.owner = c->owner, .n_eos = -1};
	pal_status s = PAL_OK;
	if (!c->history && !*c->id)
		s = pal__service_create(c->v, &create, c->id, &c->err);
	for (int i = 0; !s && i < STEPS; i++)
		s = step(c);
	c->err.code = s;
	return NULL;
}

/* The log is in the store as the client knows it. */
static pal_status add_log(client *c)
{
	int32_t *ids;
	size_t n;
	if (c->history)
		return PAL_OK;
	pal_status s = pal__service_log(c->v, c->id, c->owner, &ids, &n, &c->err);
	if (!s) {
		add(&c->sum, ids, n * sizeof *ids);
		pal_free(ids);
	}
	return s;
}

static bool failed(const client *c)
{
	if (c->err.code)
		printf("# client %llu: %s\n", (unsigned long long)c->owner, c->err.text);
	return c->err.code;
}

/* What is said of sessions that nobody has asked for since the start. */
static bool told(client *c)
{
	pal__session_info info;
	if (c->history || !*c->id)
		return true;
	bool ok = !pal__service_info(c->v, c->id, c->owner, &info, &c->err) && !info.loaded &&
		  (info.stats.length > 0) == (info.stats.kv_bytes > 0);
	if (!ok)
		printf("# client %llu: %lld tokens, K/V of %llu bytes\n",
		       (unsigned long long)c->owner, (long long)info.stats.length,
		       (unsigned long long)info.stats.kv_bytes);
	return ok;
}

static bool together(client *c, int n, pal_model *m, pal__service_options *o)
{
	char dir[] = "/var/tmp/pal-service-XXXXXX", command[64];
	pthread_t threads[MOST];
	pal_error err;
	bool ok = mkdtemp(dir) != NULL;
	o->data_dir = dir;
	for (int phase = 0; ok && phase < PHASES; phase++) {
		pal__service *v;
		pal__service_counts counts;
		if (pal__service_open(m, o, &v, &err)) {
			printf("# %s\n", err.text);
			return false;
		}
		for (int i = 0; i < n; i++) {
			c[i].v = v;
			ok = ok && told(&c[i]);
			pthread_create(&threads[i], NULL, run_phase, &c[i]);
		}
		for (int i = 0; i < n; i++)
			pthread_join(threads[i], NULL);
		for (int i = 0; i < n && ok; i++)
			ok = !failed(&c[i]) && (phase + 1 < PHASES || !add_log(&c[i]));
		pal__service_get_counts(v, &counts);
		live[PARKED] += counts.parked;
		live[REPLAYED] += counts.replayed;
		pal__service_close(v);
	}
	snprintf(command, sizeof command, "rm -r %s", dir);
	return system(command) == 0 && ok;
}

static bool alone(client *c, pal_model *m, pal__service_options *o)
{
	pal__service *v;
	o->memory_limit = 0;
	o->data_dir = NULL;
	if (pal__service_open(m, o, &v, &c->err)) {
		printf("# %s\n", c->err.text);
		return false;
	}
	c->v = v;
	for (int phase = 0; phase < PHASES && !c->err.code; phase++)
		run_phase(c);
	bool ok = !failed(c) && !add_log(c);
	pal__service_close(v);
	return ok;
}

static bool round_of(const char *path, uint64_t seed)
{
	uint64_t state = seed;
	static client c[MOST], again;
	pal_model *m =
		load(path, (pal_model_options){.n_threads = 1 + (int)random_below(&state, 2)});
	pal__service_options o = {.draft = random_below(&state, 2) ? "ngram" : NULL,
				  .idle_s = 1e-3};
	int n = 2 + (int)random_below(&state, MOST - 1);
	o.session = random_options(&state);
	o.session.reread = 32;
	o.session.restore_prefill = false;
	o.session.source = (pal_source)random_below(&state, 2);
	o.session.n_batch = 128;
	o.session.n_ctx = 0;
	for (int i = 0; i < n; i++)
		c[i] = (client){.owner = (uint64_t)i + 1,
				.state = random_next(&state),
				.history = random_below(&state, 2)};
	/* The programs again, each for itself. */
	uint64_t states[MOST];
	for (int i = 0; i < n; i++)
		states[i] = c[i].state;
	bool ok = together(c, n, m, &o);
	for (int i = 0; i < n && ok; i++) {
		again = (client){.owner = c[i].owner, .state = states[i], .history = c[i].history};
		ok = alone(&again, m, &o);
		if (ok && again.sum != c[i].sum) {
			printf("# client %d (%s): others than alone\n", i,
			       c[i].history ? "histories" : "a session");
			ok = false;
		}
		live[REUSED] += c[i].reused;
		live[EDITED] += c[i].edits;
		live[FORKED] += c[i].forks;
		live[IMPORTED] += c[i].imports;
		live[EVENTS] += c[i].events;
	}
	pal_model_close(m);
	return ok;
}

int main(int argc, char **argv)
{
	uint64_t seed = 1;
	int rounds = 6, at = 1, bad = 0;
	for (; at + 1 < argc && argv[at][0] == '-'; at += 2) {
		if (!strcmp(argv[at], "--seed"))
			seed = strtoull(argv[at + 1], NULL, 10);
		else
			rounds = atoi(argv[at + 1]);
	}
	for (int i = 0; i < rounds && !bad; i++) {
		bad = !round_of(argv[at + i % (argc - at)], seed + (uint64_t)i);
		if (bad)
			printf("# --seed %llu, %s\n", (unsigned long long)seed + (uint64_t)i,
			       argv[at + i % (argc - at)]);
	}
	printf("%sok 1 - %d rounds disturbed as undisturbed\n", bad ? "not " : "", rounds);
	for (int i = 0; i < N_LIVE; i++)
		printf("%sok %d - %llu %s\n", live[i] ? "" : "not ", i + 2,
		       (unsigned long long)live[i], live_names[i]);
	printf("1..%d\n", N_LIVE + 1);
	return bad;
}
