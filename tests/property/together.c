/* Sessions together against sessions alone (contract C2): passes that a batcher joins give each
 * session the bits that it would have had by itself.
 *
 *   together [--seed N] [--rounds N] MODEL...
 *
 * In a round some threads run a random program each, on a session of its own with options of its
 * own: appends, generation (with drafts of the session's text or of the model's first layers, or
 * none), restoration, truncation. All of them share a batcher. Then each program runs again on a
 * session that is alone. After each step logs, events and logits must be equal. Speaks TAP. */
#include <pthread.h>
#include <string.h>

#include "draft/drafter.h"
#include "model/batcher.h"
#include "programs.h"

#define MOST 6
#define STEPS 8
#define MAX_LOG 1200

enum { EVICTED, EVENTS, JOINED, DRAFTED, N_LIVE };
static const char *const live_names[N_LIVE] = {"steps with something evicted", "events",
					       "passes that were joined", "tokens drafted"};
static uint64_t live[N_LIVE];

typedef struct {
	int64_t length;
	uint64_t n_events, log, events, logits; /* sums */
} seen;

typedef struct {
	uint64_t seed;
	pal_model *m;
	pal__batcher *batcher; /* or NULL */
	pal_session_options o;
	seen steps[STEPS];
	uint64_t evicted, events, drafted;
	pal_error err;
} program;

static uint64_t sum(uint64_t h, const void *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		h = (h ^ ((const uint8_t *)p)[i]) * 0x100000001b3u;
	return h;
}

static pal_status open_one(program *p, pal_session **s)
{
	if (p->batcher)
		return pal__session_open_on(p->batcher, p->m, &p->o, s, &p->err);
	return pal_session_open(p->m, &p->o, s, &p->err);
}

static pal_status append(program *p, pal_session *s, uint64_t *state)
{
	int32_t ids[300];
	size_t n = 1 + (size_t)random_below(state, 300), vocab = p->m->h.n_vocab;
	/* Few different ones, so that there is something to draft. */
	for (size_t i = 0; i < n; i++)
		ids[i] = (int32_t)((size_t)random_below(state, 8) % vocab);
	return pal_session_append(s, ids, n, NULL, NULL, NULL, &p->err);
}

static pal_status generate(program *p, pal_session *s, pal_drafter *d, uint64_t *state)
{
	pal_generate_options o = {.sampling = pal_sampling_default(), .ignore_end = true};
	pal_generate_result r = {0};
	o.sampling.temperature = random_below(state, 2) ? 0.8f : 0;
	o.sampling.seed = random_next(state);
	o.max_tokens = 1 + random_below(state, 40);
	o.drafter = d;
	pal_status status = pal_generate(s, &o, &r, &p->err);
	p->drafted += (uint64_t)r.drafted;
	return status;
}

static pal_status step(program *p, pal_session *s, pal_drafter *d, uint64_t *state)
{
	int64_t length = pal_session_length(s), cut;
	switch (length > MAX_LOG ? 3 : length ? random_below(state, 6) : 0) {
	case 0:
	case 1:
		return append(p, s, state);
	case 2:
		return pal_session_logits(s) ? pal_session_restore(s, &p->err) : PAL_OK;
	case 3:
		cut = length - 1 - random_below(state, 40);
		return pal_session_truncate(s, cut < 1 ? 1 : cut, &p->err);
	default:
		return pal_session_logits(s) ? generate(p, s, d, state) : append(p, s, state);
	}
}

static pal_status look(program *p, const pal_session *s, seen *out)
{
	const float *logits = pal_session_logits(s);
	pal_session_stats t;
	pal_session_get_stats(s, &t);
	*out = (seen){.length = pal_session_length(s), .n_events = pal_session_n_events(s)};
	out->log = sum(1, pal_session_log(s), (size_t)out->length * sizeof(int32_t));
	if (logits)
		out->logits = sum(1, logits, p->m->h.n_vocab * sizeof *logits);
	for (uint64_t i = 0; i < out->n_events; i++) {
		pal_event e;
		pal_status status = pal_session_event(s, i, &e, &p->err);
		if (status)
			return status;
		out->events = sum(out->events + 1, &e, sizeof e);
	}
	p->evicted += t.evicted > 0;
	p->events = t.events;
	return PAL_OK;
}

static pal_status run_steps(program *p, pal_session *s, pal_drafter *d)
{
	uint64_t state = p->seed;
	pal_status status = PAL_OK;
	for (int i = 0; !status && i < STEPS; i++) {
		status = step(p, s, d, &state);
		if (!status)
			status = look(p, s, &p->steps[i]);
	}
	return status;
}

static void *run(void *arg)
{
	program *p = arg;
	pal_session *s = NULL;
	pal_drafter *d = NULL;
	pal_drafter_options drafts[] = {{.source = "ngram"}, {.source = "exit:1"}};
	uint64_t kind = p->seed % 3;
	pal_status status = open_one(p, &s);
	if (!status && kind < 2)
		status = pal_drafter_open(p->m, &drafts[p->m->h.n_layers > 1 ? kind : 0], &d,
					  &p->err);
	if (d)
		d->always = true;
	if (!status && p->batcher)
		pal__batcher_join(&s->scratch);
	if (!status) {
		status = run_steps(p, s, d);
		if (p->batcher)
			pal__batcher_leave(&s->scratch);
	}
	p->err.code = status;
	pal_drafter_close(d);
	pal_session_close(s);
	return NULL;
}

static bool compare(const program *together, const program *alone)
{
	for (int i = 0; i < STEPS; i++)
		if (memcmp(&together->steps[i], &alone->steps[i], sizeof(seen))) {
			printf("# step %d: %lld tokens and %llu events together, %lld and %llu "
			       "alone\n",
			       i, (long long)together->steps[i].length,
			       (unsigned long long)together->steps[i].n_events,
			       (long long)alone->steps[i].length,
			       (unsigned long long)alone->steps[i].n_events);
			return false;
		}
	return true;
}

/* A session that a projection or its own model cannot have is another one. */
static void choose(program *p, uint64_t *state)
{
	size_t bytes;
	do {
		p->o = random_options(state);
		p->o.n_batch = 1 + (int)random_below(state, 128);
		if (random_below(state, 4) == 0)
			p->o.kv_policy = PAL_KV_FULL;
		p->o.n_ctx = 4 * MAX_LOG;
	} while (pal__session_need_on(NULL, p->m, &p->o, &bytes, NULL));
	p->seed = random_next(state);
}

static bool round_of(const char *path, uint64_t seed)
{
	uint64_t state = seed;
	program p[MOST], again;
	pthread_t threads[MOST];
	pal__batcher *batcher;
	pal_error err;
	pal_model *m = load(path, (pal_model_options){.n_threads = 1 + (int)random_below(&state, 3),
						      .isa = random_isa(&state)});
	int n = 2 + (int)random_below(&state, MOST - 1);
	bool same = true;
	if (pal__batcher_new(m, &batcher, &err)) {
		printf("# %s\n", err.text);
		return false;
	}
	for (int i = 0; i < n; i++) {
		p[i] = (program){.m = m, .batcher = batcher};
		choose(&p[i], &state);
		pthread_create(&threads[i], NULL, run, &p[i]);
	}
	for (int i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
	pal__batcher_counts counts;
	pal__batcher_get_counts(batcher, &counts);
	live[JOINED] += counts.joined;
	pal__batcher_free(batcher);
	for (int i = 0; i < n && same; i++) {
		again = p[i];
		again.batcher = NULL;
		memset(again.steps, 0, sizeof again.steps);
		run(&again);
		if (p[i].err.code || again.err.code)
			printf("# %s / %s\n", p[i].err.text, again.err.text);
		same = !p[i].err.code && !again.err.code && compare(&p[i], &again);
		live[EVICTED] += p[i].evicted;
		live[EVENTS] += p[i].events;
		live[DRAFTED] += p[i].drafted;
	}
	pal_model_close(m);
	return same;
}

int main(int argc, char **argv)
{
	uint64_t seed = 1;
	int rounds = 10, at = 1, failed = 0;
	for (; at + 1 < argc && argv[at][0] == '-'; at += 2) {
		if (!strcmp(argv[at], "--seed"))
			seed = strtoull(argv[at + 1], NULL, 10);
		else
			rounds = atoi(argv[at + 1]);
	}
	for (int i = 0; i < rounds && !failed; i++) {
		failed = !round_of(argv[at + i % (argc - at)], seed + (uint64_t)i);
		if (failed)
			printf("# --seed %llu\n", (unsigned long long)seed + (uint64_t)i);
	}
	printf("%sok 1 - %d rounds together as alone\n", failed ? "not " : "", rounds);
	for (int i = 0; i < N_LIVE; i++)
		printf("%sok %d - %llu %s\n", live[i] ? "" : "not ", i + 2,
		       (unsigned long long)live[i], live_names[i]);
	printf("1..%d\n", N_LIVE + 1);
	return failed;
}
