/* Sessions against their definition: whatever was done to a session, its logits are those of
 * a fresh session that appends the same log in one go, to the bit (contract C2).
 *
 *   sessions [--seed N] [--rounds N] MODEL...
 *
 * A round opens a model (the models take turns) with a random number of threads and a random
 * instruction set, and plays random programs on several sessions at once: appends in chunks
 * of any size, truncations, cancelled and refused appends, generation. The sessions take turns
 * step by step, or run on threads of their own that share the model's pool. After each step
 * log and logits are compared with those of a model of one thread. Speaks TAP. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "programs.h"

#define MAX_PLAYERS 4
#define MAX_LOG 400
#define STEPS 10

typedef struct {
	pal_model *model, *judge; /* judge: computes what is expected */
	const char *label;        /* of the round */
	int index;
	uint64_t state; /* of the random numbers */
	pal_session *s;
	pal_session_options options;
	int32_t log[MAX_LOG], n_vocab;
	int64_t n;
	bool has_logits;
	float *got, *want; /* [MAX_LOG][n_vocab] */
	char did[160];     /* the last step, for messages */
	bool failed;
} player;

static int64_t below(player *p, int64_t n)
{
	return random_below(&p->state, n);
}

/* Says what went wrong in one piece, since players may be threads. */
static bool wrong(player *p, const char *what, const char *detail)
{
	if (!p->failed)
		printf("# %s session %d (context %lld, batch %d, K/V type %d), after %s: %s %s\n",
		       p->label, p->index, (long long)p->options.n_ctx, p->options.n_batch,
		       (int)p->options.kv_type, p->did, what, detail);
	p->failed = true;
	return false;
}

/* --- the definition ----------------------------------------------------------- */

/* want: the logits of every position of the log, by a fresh session. */
static bool expect(player *p)
{
	pal_session *fresh;
	pal_error err;
	pal_session_options o = {.n_ctx = p->options.n_ctx, .kv_type = p->options.kv_type};
	if (pal_session_open(p->judge, &o, &fresh, &err))
		return wrong(p, "a fresh session:", err.text);
	pal_status s = pal_session_append(fresh, p->log, (size_t)p->n, p->want, NULL, NULL, &err);
	pal_session_close(fresh);
	return s == PAL_OK || wrong(p, "a fresh session:", err.text);
}

static bool same_rows(player *p, const float *got, int64_t from, int64_t end, const char *what)
{
	size_t v = (size_t)p->n_vocab;
	for (int64_t i = from; i < end; i++) {
		const float *want = p->want + (size_t)i * v, *row = got + (size_t)(i - from) * v;
		for (size_t k = 0; k < v; k++) {
			if (!memcmp(row + k, want + k, sizeof *row))
				continue;
			char text[120];
			snprintf(text, sizeof text, "position %lld, logit %zu: %a instead of %a",
				 (long long)i, k, (double)row[k], (double)want[k]);
			return wrong(p, what, text);
		}
	}
	return true;
}

/* The session against the log that it should have. */
static bool check(player *p)
{
	const float *logits = pal_session_logits(p->s);
	if (pal_session_length(p->s) != p->n ||
	    memcmp(pal_session_log(p->s), p->log, (size_t)p->n * sizeof *p->log) != 0)
		return wrong(p, "the log is not what it should be", "");
	if ((logits != NULL) != p->has_logits)
		return wrong(p, logits ? "there are logits" : "there are no logits", "");
	if (!logits)
		return true;
	return expect(p) && same_rows(p, logits, p->n - 1, p->n, "last logits:");
}

/* --- the steps ----------------------------------------------------------------- */

static int64_t chunk_size(player *p, int64_t room)
{
	static const int64_t sizes[] = {1, 1, 2, 3, 5, 16, 31, 64, 65, 200};
	int64_t n = sizes[below(p, (int64_t)(sizeof sizes / sizeof sizes[0]))];
	return n < room ? n : room;
}

static void draw(player *p, int32_t *ids, int64_t n)
{
	for (int64_t i = 0; i < n; i++)
		ids[i] = (int32_t)below(p, p->n_vocab);
}

static bool append(player *p)
{
	int64_t n = chunk_size(p, p->options.n_ctx - p->n);
	bool all = below(p, 2);
	pal_error err;
	draw(p, p->log + p->n, n);
	snprintf(p->did, sizeof p->did, "appending %lld to %lld%s", (long long)n, (long long)p->n,
		 all ? ", all logits" : "");
	if (pal_session_append(p->s, p->log + p->n, (size_t)n, all ? p->got : NULL, NULL, NULL,
			       &err))
		return wrong(p, err.text, "");
	p->n += n;
	p->has_logits = p->has_logits || n > 0;
	if (!check(p))
		return false;
	return !all || !p->has_logits ||
	       same_rows(p, p->got, p->n - n, p->n, "logits of the chunk:");
}

static bool truncate_log(player *p)
{
	int64_t n = below(p, p->n + 1);
	snprintf(p->did, sizeof p->did, "truncating %lld to %lld", (long long)p->n, (long long)n);
	if (pal_session_truncate(p->s, n, NULL))
		return wrong(p, "refused", "");
	p->has_logits = p->has_logits && n == p->n && n > 0;
	p->n = n;
	return check(p);
}

typedef struct {
	size_t calls, stop_at, done, total;
} canceller;

static bool on_progress(void *user, size_t done, size_t total)
{
	canceller *c = user;
	c->done = done;
	c->total = total;
	return ++c->calls < c->stop_at;
}

static bool cancelled(player *p)
{
	int64_t n = chunk_size(p, p->options.n_ctx - p->n), batch = p->options.n_batch;
	if (!n)
		return true;
	int32_t ids[MAX_LOG];
	draw(p, ids, n);
	canceller c = {.stop_at = (size_t)(1 + below(p, (n + batch - 1) / batch))};
	snprintf(p->did, sizeof p->did, "cancelling an append of %lld to %lld after %zu batches",
		 (long long)n, (long long)p->n, c.stop_at);
	pal_status s = pal_session_append(p->s, ids, (size_t)n, below(p, 2) ? p->got : NULL,
					  on_progress, &c, NULL);
	size_t done = c.stop_at * (size_t)batch;
	done = done < (size_t)n ? done : (size_t)n;
	if (s != PAL_ECANCELLED || c.calls != c.stop_at || c.done != done || c.total != (size_t)n)
		return wrong(p, "it was not cancelled there", "");
	return check(p);
}

static bool refused(player *p)
{
	int64_t room = p->options.n_ctx - p->n;
	int32_t ids[MAX_LOG + 1] = {0};
	bool full = below(p, 2);
	if (!full)
		ids[below(p, room + 1)] = below(p, 2) ? -1 : p->n_vocab;
	snprintf(p->did, sizeof p->did, full ? "appending too many" : "appending no token");
	pal_status s = pal_session_append(p->s, ids, (size_t)room + 1, NULL, NULL, NULL, NULL);
	if (s != (full ? PAL_ELIMIT : PAL_EINVAL))
		return wrong(p, "not refused", "");
	if (pal_session_truncate(p->s, p->n + 1, NULL) != PAL_EINVAL ||
	    pal_session_truncate(p->s, -1, NULL) != PAL_EINVAL)
		return wrong(p, "a truncation to nowhere was not refused", "");
	return check(p);
}

static bool generate(player *p)
{
	if (!p->has_logits)
		return true;
	pal_generate_options o = {.sampling = pal_sampling_default(),
				  .max_tokens = 1 + below(p, 4)};
	pal_generate_result r;
	pal_error err;
	o.sampling.temperature = below(p, 2) ? 1.5f : 0;
	o.sampling.seed = random_next(&p->state);
	o.ignore_end = true;
	snprintf(p->did, sizeof p->did, "generating %lld after %lld", (long long)o.max_tokens,
		 (long long)p->n);
	if (pal_generate(p->s, &o, &r, &err))
		return wrong(p, err.text, "");
	int64_t room = p->options.n_ctx - p->n;
	if (r.n_tokens != (o.max_tokens < room ? o.max_tokens : room) ||
	    pal_session_length(p->s) != p->n + r.n_tokens)
		return wrong(p, "another number of tokens came", "");
	memcpy(p->log + p->n, pal_session_log(p->s) + p->n, (size_t)r.n_tokens * sizeof *p->log);
	p->n += r.n_tokens;
	return check(p);
}

static bool step(player *p)
{
	switch (below(p, 10)) {
	case 0:
		return refused(p);
	case 1:
		return generate(p);
	case 2:
	case 3:
		return cancelled(p);
	case 4:
	case 5:
		return truncate_log(p);
	default:
		return append(p);
	}
}

/* --- the rounds ----------------------------------------------------------------- */

static bool start(player *p)
{
	static const int batches[] = {1, 2, 3, 7, 8, 16, 64, 100, PAL_MAX_BATCH};
	pal_error err;
	p->options = (pal_session_options){.n_ctx = 1 + below(p, below(p, 4) ? MAX_LOG : 20),
					   .kv_type = (pal_kv_type)below(p, PAL_KV_AFFINE4 + 1),
					   .n_batch = batches[below(p, 9)]};
	size_t bytes = (size_t)MAX_LOG * (size_t)p->n_vocab * sizeof(float);
	p->got = pal__alloc(bytes);
	p->want = pal__alloc(bytes);
	snprintf(p->did, sizeof p->did, "opening");
	if (!p->got || !p->want || pal_session_open(p->model, &p->options, &p->s, &err))
		return wrong(p, "it failed", p->want ? err.text : "");
	return check(p);
}

static void end(player *p)
{
	pal_session_close(p->s);
	pal__free(p->got);
	pal__free(p->want);
}

static void *play_alone(void *arg)
{
	player *p = arg;
	for (int i = 0; i < STEPS && !p->failed; i++)
		step(p);
	return NULL;
}

static bool play(player *players, int n, bool threads, uint64_t *state)
{
	pthread_t ids[MAX_PLAYERS];
	bool good = true;
	int n_started = 0;
	for (int i = 0; i < n; i++)
		good = start(&players[i]) && good;
	for (int i = 0; i < n && threads && good; i++, n_started++)
		good = pthread_create(&ids[i], NULL, play_alone, &players[i]) == 0;
	for (int i = 0; i < n_started; i++)
		pthread_join(ids[i], NULL);
	for (int i = 0; i < n * STEPS && !threads && good; i++)
		good = step(&players[random_next(state) % (uint64_t)n]);
	for (int i = 0; i < n; i++) {
		good = good && !players[i].failed;
		end(&players[i]);
	}
	return good;
}

/* One round on one model file; label: [160], what it was. */
static bool run_round(const char *path, uint64_t seed, char *label)
{
	uint64_t state = seed * 0x9e3779b97f4a7c15u;
	pal_model_options o = {.n_threads = 1 + (int)(random_next(&state) % 8),
			       .isa = random_isa(&state)},
			  one = {.n_threads = 1};
	int n = 1 + (int)(random_next(&state) % MAX_PLAYERS);
	bool threads = random_next(&state) % 2;
	pal_model *model = load(path, o), *judge = load(path, one);
	pal_model_info info;
	pal_model_get_info(model, &info);
	snprintf(label, 160, "seed %llu: %s, %d threads, %s, %d sessions%s",
		 (unsigned long long)seed, info.arch, info.n_threads, info.isa, n,
		 threads ? " on threads of their own" : " in turns");
	player players[MAX_PLAYERS];
	for (int i = 0; i < n; i++)
		players[i] = (player){.model = model,
				      .judge = judge,
				      .label = label,
				      .index = i,
				      .state = random_next(&state),
				      .n_vocab = info.n_vocab};
	bool good = play(players, n, threads, &state);
	pal_model_close(model);
	pal_model_close(judge);
	return good;
}

int main(int argc, char **argv)
{
	uint64_t seed = 1, rounds = 64;
	int first = 1, failures = 0;
	for (; first + 1 < argc && !strncmp(argv[first], "--", 2); first += 2) {
		uint64_t value = strtoull(argv[first + 1], NULL, 10);
		*(strcmp(argv[first], "--seed") ? &rounds : &seed) = value;
	}
	if (first >= argc || !rounds) {
		fprintf(stderr, "usage: sessions [--seed N] [--rounds N] MODEL...\n");
		return 2;
	}
	int64_t live = pal__mem_live();
	printf("1..%llu\n# seeds %llu to %llu\n", (unsigned long long)rounds + 1,
	       (unsigned long long)seed, (unsigned long long)(seed + rounds - 1));
	for (uint64_t i = 0; i < rounds; i++) {
		char label[160];
		bool good = run_round(argv[first + (int)((seed + i) % (uint64_t)(argc - first))],
				      seed + i, label);
		failures += !good;
		printf("%s %llu - %s\n", good ? "ok" : "not ok", (unsigned long long)i + 1, label);
		fflush(stdout);
	}
	bool clean = pal__mem_live() == live;
	printf("%s %llu - nothing leaked\n", clean ? "ok" : "not ok",
	       (unsigned long long)rounds + 1);
	return failures || !clean;
}
