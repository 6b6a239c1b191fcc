/* Bounded sessions against their definition: whatever was done to a session, its logits are those
 * of a fresh session that is given the same log in other pieces and the same events, by another
 * number of threads and another instruction set, to the bit (contract C2). And while nothing
 * is evicted they are those of full K/V.
 *
 *   restoration [--seed N] [--rounds N] MODEL...
 *
 * A round is a random program on a session with random sinks, window, slots, source, side-car,
 * proposer, K/V type and positions: appends, truncations, cancelled appends, restoration, events of
 * random chunks, generation, going back to a mark, a failing disk. Speaks TAP. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/disk.h"
#include "programs.h"

#define MAX_LOG 1200
#define STEPS 12

typedef struct {
	pal_model *model, *judge;
	pal_model *proposers[2]; /* of the same file, for model and judge */
	char side[32];
	uint64_t state; /* of the random numbers */
	pal_session_options o;
	pal_session *s;
	int32_t log[MAX_LOG], n_vocab;
	int64_t n;
	uint64_t events, evicted; /* seen in all */
	char did[120], wrong[1000];
} program;

static int64_t below(program *p, int64_t n)
{
	return random_below(&p->state, n);
}

static bool wrong(program *p, const char *what, const char *detail)
{
	if (!p->wrong[0])
		snprintf(p->wrong, sizeof p->wrong, "after %s at %lld tokens: %s %s", p->did,
			 (long long)p->n, what, detail);
	return false;
}

/* --- the definition ------------------------------------------------------------------ */

static bool same(program *p, const float *want, const char *what)
{
	const float *got = pal_session_logits(p->s);
	for (int32_t i = 0; i < p->n_vocab; i++)
		if (memcmp(got + i, want + i, sizeof *got)) {
			char text[160];
			snprintf(text, sizeof text, "logit %d is %a instead of %a", i,
				 (double)got[i], (double)want[i]);
			return wrong(p, what, text);
		}
	return true;
}

/* The last logits against a replay, or, where nothing is evicted yet, against full K/V. */
static bool check(program *p)
{
	pal_session *judge;
	pal_error err = {0};
	pal_session_stats stats;
	pal_session_get_stats(p->s, &stats);
	if (pal_session_length(p->s) != p->n ||
	    memcmp(pal_session_log(p->s), p->log, (size_t)p->n * sizeof *p->log) != 0)
		return wrong(p, "the log is not what it should be", "");
	if (!pal_session_logits(p->s) || !p->n)
		return true;
	p->evicted += (uint64_t)(stats.evicted > 0);
	pal_session_options o = p->o;
	o.n_batch = 1 + (int)below(p, 300);
	o.restore_prefill = false;
	o.reread = 128;
	o.proposer = o.proposer ? p->proposers[1] : NULL;
	if (!stats.evicted)
		o = (pal_session_options){.n_ctx = MAX_LOG, .kv_type = p->o.kv_type};
	if (pal_session_open(p->judge, &o, &judge, &err))
		return wrong(p, "a fresh session:", err.text);
	bool good = stats.evicted ? replay(&p->state, p->s, judge, &err)
				  : append_pieces(&p->state, p->s, judge, p->n, &err);
	good = good ? same(p, pal_session_logits(judge), "last logits:")
		    : wrong(p, "a replay:", err.text);
	pal_session_close(judge);
	return good;
}

/* --- the steps ------------------------------------------------------------------------ */

static void draw(program *p, int64_t n)
{
	for (int64_t i = 0; i < n; i++)
		p->log[p->n + i] = (int32_t)below(p, p->n_vocab);
}

static int64_t size(program *p)
{
	static const int64_t sizes[] = {1, 1, 2, 5, 31, 63, 64, 65, 130, 300};
	int64_t n = sizes[below(p, 10)], room = MAX_LOG - 20 - p->n;
	return n < room ? n : room;
}

static bool append(program *p)
{
	pal_error err;
	int64_t n = size(p);
	draw(p, n);
	snprintf(p->did, sizeof p->did, "appending %lld", (long long)n);
	if (pal_session_append(p->s, p->log + p->n, (size_t)n, NULL, NULL, NULL, &err))
		return wrong(p, "refused:", err.text);
	p->n += n;
	return check(p);
}

static bool stop_at_once(void *user, size_t done, size_t total)
{
	(void)user;
	(void)done;
	(void)total;
	return false;
}

static bool cancel(program *p)
{
	int64_t n = size(p);
	draw(p, n);
	snprintf(p->did, sizeof p->did, "cancelling an append of %lld", (long long)n);
	if (n && pal_session_append(p->s, p->log + p->n, (size_t)n, NULL, stop_at_once, NULL,
				    NULL) != PAL_ECANCELLED)
		return wrong(p, "it was not cancelled", "");
	return check(p);
}

static bool truncate_log(program *p)
{
	int64_t n = below(p, 3) ? p->n - below(p, (p->n < 40 ? p->n : 40) + 1) : below(p, p->n + 1);
	snprintf(p->did, sizeof p->did, "truncating to %lld", (long long)n);
	if (pal_session_truncate(p->s, n, NULL))
		return wrong(p, "refused", "");
	p->n = n;
	return append(p);
}

static bool restore(program *p)
{
	pal_error err;
	snprintf(p->did, sizeof p->did, "restoring");
	if (pal_session_restore(p->s, &err))
		return wrong(p, "refused:", err.text);
	return check(p);
}

static bool apply(program *p)
{
	pal_event e = {.position = p->n};
	pal_error err;
	int64_t reread = 1 + below(p, 32);
	e.reread = (int32_t)(reread < p->n ? reread : p->n);
	int64_t end = p->n ? pal__restore_end(&p->s->restore, p->n - e.reread) : 0;
	snprintf(p->did, sizeof p->did, "an event that reads %d again", e.reread);
	if (!end)
		return true;
	for (int64_t c = 0; c * PAL_CHUNK < end && e.n_chunks < p->s->restore.slots; c++)
		if (!below(p, 4)) {
			e.sources[e.n_chunks] =
				(uint8_t)(below(p, 2) ? PAL_SOURCE_RECOMPUTE : p->o.source);
			e.chunks[e.n_chunks++] = (int32_t)c;
		}
	/* A file may have dropped the chunk, or has it from a question that was taken back:
	 * refused, and all is as before. */
	bool forgets = p->o.disk_budget || p->o.source == PAL_SOURCE_HIDDEN;
	if (pal_session_apply(p->s, &e, &err) && !(err.code == PAL_ELIMIT && forgets))
		return wrong(p, "refused:", err.text);
	return check(p);
}

static bool generate(program *p)
{
	pal_error err;
	const pal_generate_options o = {.sampling = pal_sampling_default(),
					.max_tokens = 1 + below(p, 12),
					.ignore_end = true};
	snprintf(p->did, sizeof p->did, "generating");
	if (!pal_session_logits(p->s))
		return true;
	if (pal_generate(p->s, &o, NULL, &err))
		return wrong(p, "refused:", err.text);
	int64_t n = pal_session_length(p->s);
	memcpy(p->log + p->n, pal_session_log(p->s) + p->n, (size_t)(n - p->n) * sizeof *p->log);
	p->n = n;
	return check(p);
}

static bool mark(program *p)
{
	pal__mark m;
	pal_error err;
	int64_t n = p->n;
	if (pal__session_mark(p->s, &m, &err))
		return wrong(p, "no mark:", err.text);
	bool good = append(p) && generate(p);
	pal__session_rewind(p->s, &m);
	pal__mark_free(&m);
	p->n = n;
	snprintf(p->did, sizeof p->did, "going back to a mark");
	return good && check(p);
}

/* The disk fails for a while: calls may fail, but what they leave is right. */
static bool bad_disk(program *p)
{
	int64_t n = size(p);
	draw(p, n);
	snprintf(p->did, sizeof p->did, "a failing disk");
	pal__disk_fail_after(below(p, 30));
	if (!pal_session_append(p->s, p->log + p->n, (size_t)n, NULL, NULL, NULL, NULL))
		p->n += n;
	pal_session_restore(p->s, NULL);
	pal__disk_fail_after(-1);
	return check(p);
}

static bool step(program *p)
{
	static bool (*const steps[])(program *) = {append,  append,   append,       cancel,
						   restore, restore,  truncate_log, apply,
						   apply,   generate, mark,         bad_disk};
	return p->n + 420 > MAX_LOG ? truncate_log(p) : steps[below(p, 12)](p);
}

static bool play(program *p)
{
	pal_error err;
	p->o = random_options(&p->state);
	p->o.side_car = p->side;
	p->o.proposer = below(p, 2) ? p->proposers[0] : NULL;
	snprintf(p->did, sizeof p->did, "opening");
	if (!random_side(&p->state, p->side, p->model, p->o.proposer, &err))
		return wrong(p, "no side-car:", err.text);
	if (pal_session_open(p->model, &p->o, &p->s, &err))
		return wrong(p, "refused:", err.text);
	bool good = true;
	for (int i = 0; i < STEPS && good; i++)
		good = step(p);
	p->events = pal_session_n_events(p->s);
	pal_session_close(p->s);
	return good;
}

/* paths: of the model, and of what is its proposer if it has one. */
static bool run_round(const char *const paths[2], uint64_t seed, char *label, uint64_t *liveness)
{
	program p = {.state = seed * 0x9e3779b97f4a7c15u};
	const pal_model_options o = {.n_threads = 1 + (int)below(&p, 4),
				     .isa = random_isa(&p.state)},
				one = {.n_threads = 1 + (int)below(&p, 2),
				       .isa = random_isa(&p.state)};
	pal_model_info info;
	snprintf(p.side, sizeof p.side, "/tmp/pal-side-XXXXXX");
	int fd = mkstemp(p.side);
	if (fd < 0)
		exit(1);
	close(fd);
	p.model = load(paths[0], o);
	p.judge = load(paths[0], one);
	p.proposers[0] = load(paths[1], o);
	p.proposers[1] = load(paths[1], one);
	pal_model_get_info(p.model, &info);
	p.n_vocab = info.n_vocab;
	bool good = play(&p);
	snprintf(label, 1500,
		 "seed %llu: %s, %s, sinks %lld, window %lld, %d slots, left %d, type %d, source "
		 "%d%s, selection %d, %s%s %s",
		 (unsigned long long)seed, info.arch, info.isa, (long long)p.o.sink,
		 (long long)p.o.window, p.o.slots, p.o.left, (int)p.o.kv_type, (int)p.o.source,
		 p.o.proposer ? " with a proposer" : "", (int)p.o.selection,
		 p.o.positions ? "original" : "compact", p.o.restore_prefill ? ", prefill" : "",
		 p.wrong);
	liveness[0] += p.events;
	liveness[1] += p.evicted;
	unlink(p.side);
	for (int i = 0; i < 2; i++)
		pal_model_close(p.proposers[i]);
	pal_model_close(p.model);
	pal_model_close(p.judge);
	return good;
}

int main(int argc, char **argv)
{
	uint64_t seed = 1, rounds = 100, liveness[2] = {0};
	int first = 1, failures = 0;
	for (; first + 1 < argc && !strncmp(argv[first], "--", 2); first += 2) {
		uint64_t value = strtoull(argv[first + 1], NULL, 10);
		*(strcmp(argv[first], "--seed") ? &rounds : &seed) = value;
	}
	if (first >= argc || !rounds) {
		fprintf(stderr, "usage: restoration [--seed N] [--rounds N] MODEL...\n");
		return 2;
	}
	int64_t live = pal__mem_live();
	printf("1..%llu\n", (unsigned long long)rounds + 1);
	for (uint64_t i = 0; i < rounds; i++) {
		char label[1500];
		uint64_t n = (uint64_t)(argc - first), at = (seed + i) % n;
		const char *const paths[] = {argv[first + (int)at],
					     argv[first + (int)((at + (seed + i) / n) % n)]};
		bool good = run_round(paths, seed + i, label, liveness);
		failures += !good;
		printf("%s %llu - %s\n", good ? "ok" : "not ok", (unsigned long long)i + 1, label);
		fflush(stdout);
	}
	bool clean = pal__mem_live() == live && liveness[0] > rounds && liveness[1] > rounds;
	printf("# %llu events, %llu comparisons with something evicted\n",
	       (unsigned long long)liveness[0], (unsigned long long)liveness[1]);
	printf("%s %llu - nothing leaked, and much was evicted and restored\n",
	       clean ? "ok" : "not ok", (unsigned long long)rounds + 1);
	return failures || !clean;
}
