/* Changes of what stood in the log before (src/session/change.c), against themselves (contract C2):
 * the bits depend on log, events and changes alone.
 *
 *   changes [--seed N] [--rounds N] MODEL...
 *
 * A round is a random program of appends, generations, restorations, changes far back, cuts and
 * truncations, on a session; on another one of the same options, but of other batches, threads and
 * instruction set, and with a drafter; and at some steps a third one is made from what a store
 * would have of the first (log, events, changes). After each step all must have equal logs, events
 * and logits; and the disk fails at some changes, which then have not happened. Speaks TAP. */
#include <string.h>

#include "base/disk.h"
#include "draft/drafter.h"
#include "programs.h"

#define STEPS 14
#define MAX_LOG 2500

enum { CHANGED, CUT, MOVED, EVENTS, RESUMED, FAILED, N_LIVE };
static const char *const live_names[N_LIVE] = {"changes far back",
					       "cuts",
					       "changes that move what is behind them",
					       "events after a change",
					       "sessions made from what was stored",
					       "changes that failed"};
static uint64_t live[N_LIVE];

typedef struct {
	uint64_t state;
	pal_model *m[2];
	pal_session *s[2];
	pal_drafter *d;
	pal_error err;
} program;

static pal_status append(program *p)
{
	int32_t ids[400];
	size_t n = 1 + (size_t)random_below(&p->state, 400);
	for (size_t i = 0; i < n; i++)
		ids[i] = (int32_t)random_below(&p->state, 9);
	pal_status s = pal_session_append(p->s[0], ids, n, NULL, NULL, NULL, &p->err);
	return s ? s : pal_session_append(p->s[1], ids, n, NULL, NULL, NULL, &p->err);
}

static pal_status generate(program *p)
{
	pal_generate_options o = {.sampling = pal_sampling_default(), .ignore_end = true};
	o.sampling.temperature = random_below(&p->state, 2) ? 0.9f : 0;
	o.sampling.seed = random_next(&p->state);
	o.max_tokens = 1 + random_below(&p->state, 30);
	pal_status s = pal_generate(p->s[0], &o, NULL, &p->err);
	o.drafter = p->d;
	return s ? s : pal_generate(p->s[1], &o, NULL, &p->err);
}

static pal_status restore(program *p)
{
	pal_status s = pal_session_restore(p->s[0], &p->err);
	return s ? s : pal_session_restore(p->s[1], &p->err);
}

static void *copy_of(const void *from, size_t n)
{
	void *p = malloc(n + 1);
	return p ? memcpy(p, from, n) : NULL;
}

/* With a disk that fails somewhere nothing has changed, and then it is done. */
static pal_status fail_first(program *p, int64_t at, int64_t n_old, const int32_t *ids,
			     int64_t n_new)
{
	int64_t length = pal_session_length(p->s[0]);
	int32_t *log = copy_of(pal_session_log(p->s[0]), (size_t)length * sizeof *log);
	pal__disk_fail_after(random_below(&p->state, 60));
	pal_status s = pal__session_change(p->s[0], at, n_old, ids, n_new, &p->err);
	pal__disk_fail_after(-1);
	bool same = s && pal_session_length(p->s[0]) == length && !p->s[0]->broken &&
		    !memcmp(log, pal_session_log(p->s[0]), (size_t)length * sizeof *log);
	live[FAILED] += s != PAL_OK;
	free(log);
	if (!s)
		return PAL_OK;
	/* The disk fails on, when what was done is to be undone. */
	if (p->s[0]->broken || (!same && p->s[0]->stale))
		return PAL_ECANCELLED;
	if (!same)
		return pal__fail(&p->err, PAL_EINVAL, "a failed change has changed something");
	return pal__session_change(p->s[0], at, n_old, ids, n_new, &p->err);
}

static pal_status change(program *p)
{
	int32_t ids[100];
	int64_t length = pal_session_length(p->s[0]), n_new = random_below(&p->state, 100);
	int64_t at = random_below(&p->state, length), n_old = random_below(&p->state, 100);
	if (random_below(&p->state, 3) == 0) {
		n_old = length - at;
		n_new = 0;
	} else if (random_below(&p->state, 2)) {
		n_new = n_old;
	}
	for (int64_t i = 0; i < n_new; i++)
		ids[i] = (int32_t)random_below(&p->state, 9);
	if (!pal__session_can_change(p->s[0], at, n_old, n_new))
		return PAL_OK;
	live[at + n_old == length && !n_new ? CUT : n_old == n_new ? CHANGED : MOVED]++;
	pal_status s = random_below(&p->state, 3)
			       ? pal__session_change(p->s[0], at, n_old, ids, n_new, &p->err)
			       : fail_first(p, at, n_old, ids, n_new);
	return s ? s : pal__session_change(p->s[1], at, n_old, ids, n_new, &p->err);
}

/* A few tokens, of those that came since the last change. */
static pal_status truncate_both(program *p)
{
	int64_t n = pal_session_length(p->s[0]) - random_below(&p->state, 20);
	if (n < 1 || pal_session_truncate(p->s[0], n, NULL))
		return PAL_OK;
	return pal_session_truncate(p->s[1], n, &p->err);
}

static pal_status step(program *p)
{
	int64_t length = pal_session_length(p->s[0]);
	if (length < 300)
		return append(p);
	switch (random_below(&p->state, 8)) {
	case 0:
		return length < MAX_LOG ? append(p) : change(p);
	case 1:
		return pal_session_logits(p->s[0]) ? restore(p) : PAL_OK;
	case 2:
		return truncate_both(p);
	case 3:
	case 4:
		return pal_session_logits(p->s[0]) ? generate(p) : append(p);
	default:
		return change(p);
	}
}

static bool same(const pal_session *a, const pal_session *b, const char *what)
{
	int64_t n = pal_session_length(a);
	uint64_t events = pal_session_n_events(a);
	const float *x = pal_session_logits(a), *y = pal_session_logits(b);
	bool equal = n == pal_session_length(b) && events == pal_session_n_events(b) &&
		     !memcmp(pal_session_log(a), pal_session_log(b), (size_t)n * sizeof(int32_t));
	for (uint64_t i = 0; equal && i < events; i++) {
		pal_event e, f;
		equal = !pal_session_event(a, i, &e, NULL) && !pal_session_event(b, i, &f, NULL) &&
			!memcmp(&e, &f, sizeof e);
	}
	if (!equal)
		printf("# %s: other logs or events\n", what);
	if (equal && x && y && memcmp(x, y, a->model->h.n_vocab * sizeof *x)) {
		printf("# %s: other logits\n", what);
		return false;
	}
	return equal;
}

static bool resumed(program *p)
{
	pal_session *a = p->s[0], *c = NULL;
	uint64_t n = a->n_changes, events = a->n_events;
	pal__changed *changes = malloc((n + 1) * sizeof *changes);
	int32_t **ids = calloc(n + 1, sizeof *ids);
	pal_event *e = malloc((events + 1) * sizeof *e);
	pal_status s = pal_session_open(p->m[1], &a->o, &c, &p->err);
	for (uint64_t i = 0; !s && i < n; i++)
		s = pal__session_changed(a, i, &changes[i], &ids[i], &p->err);
	for (uint64_t i = 0; !s && i < events; i++)
		s = pal_session_event(a, i, &e[i], &p->err);
	if (!s)
		s = pal__session_resume(c, a->log, a->length, e, events, changes,
					(const int32_t *const *)ids, n, &p->err);
	bool equal = !s && same(a, c, "made from what was stored");
	if (s)
		printf("# %s\n", p->err.text);
	live[RESUMED] += n > 0;
	for (uint64_t i = 0; i < n; i++)
		pal__free(ids[i]);
	pal_session_close(c);
	free(changes);
	free(ids);
	free(e);
	return equal;
}

static bool run(program *p)
{
	for (int i = 0; i < STEPS; i++) {
		pal_status s = step(p);
		if (s == PAL_ECANCELLED)
			return true;
		if (s) {
			printf("# step %d: %s\n", i, p->err.text);
			return false;
		}
		if (!same(p->s[0], p->s[1], "grouped in another way"))
			return false;
		if (random_below(&p->state, 5) == 0 && !resumed(p))
			return false;
	}
	live[EVENTS] += p->s[0]->n_changes ? p->s[0]->n_events : 0;
	return resumed(p);
}

static bool round_of(const char *path, uint64_t seed)
{
	program p = {.state = seed};
	pal_session_options o;
	size_t bytes;
	bool ok = false;
	for (int i = 0; i < 2; i++)
		p.m[i] = load(path,
			      (pal_model_options){.n_threads = 1 + (int)random_below(&p.state, 3),
						  .isa = random_isa(&p.state)});
	do {
		o = random_options(&p.state);
		o.reread = 32;
		o.restore_prefill = false;
	} while (pal__session_need_on(NULL, p.m[0], &o, &bytes, NULL));
	/* Runs hold as much as a batch, and so they are equal for equal batches only. */
	o.n_batch = 200;
	pal_status s = pal_session_open(p.m[0], &o, &p.s[0], &p.err);
	o.n_batch = 100 + (int)random_below(&p.state, 300);
	if (!s)
		s = pal_session_open(p.m[1], &o, &p.s[1], &p.err);
	if (!s)
		s = pal_drafter_open(p.m[1], &(pal_drafter_options){.source = "ngram"}, &p.d,
				     &p.err);
	if (s)
		printf("# %s\n", p.err.text);
	else
		ok = run(&p);
	pal_drafter_close(p.d);
	for (int i = 0; i < 2; i++) {
		pal_session_close(p.s[i]);
		pal_model_close(p.m[i]);
	}
	return ok;
}

int main(int argc, char **argv)
{
	uint64_t seed = 1;
	int rounds = 16, at = 1, failed = 0;
	for (; at + 1 < argc && argv[at][0] == '-'; at += 2) {
		if (!strcmp(argv[at], "--seed"))
			seed = strtoull(argv[at + 1], NULL, 10);
		else
			rounds = atoi(argv[at + 1]);
	}
	for (int i = 0; i < rounds && !failed; i++) {
		failed = !round_of(argv[at + i % (argc - at)], seed + (uint64_t)i);
		if (failed)
			printf("# --seed %llu, %s\n", (unsigned long long)seed + (uint64_t)i,
			       argv[at + i % (argc - at)]);
	}
	printf("%sok 1 - %d rounds of changes\n", failed ? "not " : "", rounds);
	for (int i = 0; i < N_LIVE; i++)
		printf("%sok %d - %llu %s\n", live[i] ? "" : "not ", i + 2,
		       (unsigned long long)live[i], live_names[i]);
	printf("1..%d\n", N_LIVE + 1);
	return failed;
}
