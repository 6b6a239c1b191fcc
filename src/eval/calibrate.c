#include "eval/calibrate.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "session/session.h"

#define SINKS 4
#define WINDOW 256
#define REREAD 32
#define IN_SIGHT (WINDOW + REREAD + 64) /* tokens before the end that are, or are read again */
#define FIRST (SINKS + 8)               /* where facts begin */
#define ASK_EVERY 128                   /* tokens of a log */
#define ASK_COST 64                     /* tokens that a question counts as, for progress */
#define QUOTED 24                       /* tokens of a passage */
#define REPEATED 16                     /* of which so many are repeated */
#define KEPT 32                         /* chunks of a head that are kept for a question */
#define CANDIDATES 32                   /* the best heads alone, of which the set is made */
#define WORTH 0.01f                     /* what another head must add to the score */
#define MAX_HEADS 8                     /* that are chosen */
#define CHUNKS (PAL__CALIBRATION_LOG / PAL_CHUNK)

/* What was looked for at one moment, and what every head found. */
typedef struct {
	bool later;
	int n, from, to; /* sentences; those that are looked for now: [from, to) */
	int64_t begin[PAL__TASK_SENTENCES], end[PAL__TASK_SENTENCES];
	pal__found *found; /* [n_heads][KEPT]: the score that a head gives; chunk -1: none */
} answer;

struct pal__calibration {
	pal_model *model;
	pal__qhead *heads; /* [n_heads], candidates */
	size_t n_heads;
	answer *answers;
	size_t n_answers, cap_answers;
	pal__calibration_progress progress;
	void *user;
	/* Of the log at hand. */
	pal_session *s;
	pal__mark mark;
	uint64_t done, total;
};

pal_status pal__calibration_new(pal_model *model, pal__calibration **out, pal_error *err)
{
	pal__calibration *c = pal__calloc(1, sizeof *c);
	if (!c)
		return pal__fail_memory(err, "the calibration", sizeof *c);
	c->model = model;
	*out = c;
	return PAL_OK;
}

void pal__calibration_free(pal__calibration *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < c->n_answers; i++)
		pal__free(c->answers[i].found);
	pal__free(c->answers);
	pal__free(c->heads);
	pal__free(c);
}

void pal__calibration_watch(pal__calibration *c, pal__calibration_progress progress, void *user)
{
	c->progress = progress;
	c->user = user;
}

/* --- logs ----------------------------------------------------------------------- */

static void advance(pal__calibration *c, size_t n)
{
	c->done += n;
	if (c->progress)
		c->progress(c->user, c->done < c->total ? c->done : c->total, c->total);
}

static pal_status append(pal__calibration *c, const int32_t *ids, size_t n, pal_error *err)
{
	pal_status s = PAL_OK;
	for (size_t m; n && s == PAL_OK; ids += m, n -= m) {
		m = n < PAL_MAX_BATCH ? n : PAL_MAX_BATCH;
		s = pal_session_append(c->s, ids, m, NULL, NULL, NULL, err);
		advance(c, m);
	}
	return s;
}

static pal_status open_log(pal__calibration *c, size_t length, pal_error *err)
{
	const pal_session_options o = {
		.kv_policy = PAL_KV_RESTORED, .sink = SINKS, .window = WINDOW, .reread = REREAD};
	if (length < PAL__CALIBRATION_LEAST || length > PAL__CALIBRATION_LOG)
		return pal__fail(err, PAL_EINVAL, "a log of %zu tokens: %d to %d are possible",
				 length, PAL__CALIBRATION_LEAST, PAL__CALIBRATION_LOG);
	c->done = 0;
	c->total = length + length / ASK_EVERY * ASK_COST;
	pal_status s = pal__session_open_all(c->model, &o, &c->s, err);
	if (s != PAL_OK || c->heads)
		return s;
	const pal__index *x = &c->s->restore.index;
	c->heads = pal__alloc(x->n_heads * sizeof *c->heads);
	if (!c->heads)
		return pal__fail_memory(err, "the heads", x->n_heads * sizeof *c->heads);
	memcpy(c->heads, x->heads, x->n_heads * sizeof *c->heads);
	c->n_heads = x->n_heads;
	return PAL_OK;
}

static void close_log(pal__calibration *c)
{
	pal__mark_free(&c->mark);
	pal_session_close(c->s);
	c->s = NULL;
}

/* --- questions ------------------------------------------------------------------ */

/* Adds what one query vector found to its head's list, which forgets what has least. */
static void take_look(void *user, const pal__look *look)
{
	const answer *a = user;
	pal__found *list = a->found + look->head * KEPT;
	for (size_t i = 0; i < look->n; i++) {
		size_t at = 0, least = 0;
		for (; at < KEPT && list[at].chunk != look->found[i].chunk; at++)
			least = list[at].score < list[least].score ? at : least;
		if (at < KEPT)
			list[at].score += look->found[i].score;
		else if (list[least].score < look->found[i].score)
			list[least] = look->found[i];
	}
}

/* Asks every head, with what is in sight now. */
static pal_status look(pal__calibration *c, const answer *what, pal_error *err)
{
	answer a = *what;
	size_t n = c->n_heads * KEPT;
	a.found = pal__calloc(n, sizeof *a.found);
	if (!a.found ||
	    !pal__grow((void **)&c->answers, &c->cap_answers, c->n_answers + 1, sizeof a)) {
		pal__free(a.found);
		return pal__fail_memory(err, "an answer", n * sizeof *a.found);
	}
	for (size_t i = 0; i < n; i++)
		a.found[i].chunk = -1;
	c->answers[c->n_answers++] = a;
	return pal__session_ask_heads(c->s, take_look, &a, err);
}

/* The end of the log read again, with the chunks of [begin, end) in sight. */
static pal_status restore(pal__calibration *c, int64_t begin, int64_t end, pal_error *err)
{
	pal_event e = {.position = pal_session_length(c->s), .reread = REREAD};
	for (int64_t i = begin / PAL_CHUNK; i * PAL_CHUNK < end && e.n_chunks < c->s->o.slots; i++)
		e.chunks[e.n_chunks++] = (int32_t)i;
	return pal_session_apply(c->s, &e, err);
}

/* A question about sentences; joined: the first one says what the others are about. */
static pal_status ask(pal__calibration *c, const pal__question *q, bool joined, pal_error *err)
{
	answer a = {.n = q->n_needles, .to = joined ? 1 : q->n_needles};
	memcpy(a.begin, q->begin, sizeof a.begin);
	memcpy(a.end, q->end, sizeof a.end);
	pal_status s = pal_session_append(c->s, q->prompt, q->n_prompt, NULL, NULL, NULL, err);
	if (s == PAL_OK)
		s = restore(c, 0, 0, err);
	if (s == PAL_OK)
		s = look(c, &a, err);
	if (s == PAL_OK && joined && a.n > 1) {
		a.later = true;
		a.from = 1;
		a.to = a.n;
		s = restore(c, a.begin[0], a.end[0], err);
		if (s == PAL_OK)
			s = look(c, &a, err);
	}
	if (s == PAL_OK)
		pal__session_rewind(c->s, &c->mark);
	advance(c, ASK_COST);
	return s;
}

static pal_status ask_sample(pal__calibration *c, const pal__tasks *tasks, pal__sample *sample,
			     int n_facts, pal_error *err)
{
	const int32_t *ids;
	pal_status s = PAL_OK;
	for (size_t n = 1; s == PAL_OK && n;) {
		s = pal__sample_next(sample, &ids, &n, err);
		if (s == PAL_OK)
			s = append(c, ids, n, err);
	}
	if (s == PAL_OK)
		s = pal__session_mark(c->s, &c->mark, err);
	for (int i = 0; i < n_facts && s == PAL_OK; i++) {
		const pal__question *q = pal__sample_question(sample, i);
		s = ask(c, q, pal__tasks_hard(tasks, q->kind), err);
	}
	return s;
}

pal_status pal__calibration_tasks(pal__calibration *c, const pal__tasks *tasks, size_t length,
				  bool chat, uint64_t seed, pal_error *err)
{
	pal__sample_spec spec = {.seed = seed,
				 .length = (int64_t)length,
				 .first = FIRST,
				 .last = (int64_t)length - IN_SIGHT,
				 .n_facts = (int)(length / ASK_EVERY),
				 .chat = chat};
	pal__sample *sample = NULL;
	pal__spec_kinds(tasks, &spec);
	pal_status s = open_log(c, length, err);
	if (s == PAL_OK)
		s = pal__sample_new(tasks, c->model, &spec, &sample, err);
	if (s == PAL_OK)
		s = ask_sample(c, tasks, sample, spec.n_facts, err);
	pal__sample_free(sample);
	close_log(c);
	return s;
}

pal_status pal__calibration_text(pal__calibration *c, const int32_t *ids, size_t n, uint64_t seed,
				 pal_error *err)
{
	int32_t prompt[REPEATED];
	pal_status s = open_log(c, n, err);
	if (s == PAL_OK)
		s = append(c, ids, n, err);
	if (s == PAL_OK)
		s = pal__session_mark(c->s, &c->mark, err);
	for (size_t i = 0; i < n / ASK_EVERY && s == PAL_OK; i++) {
		size_t from = FIRST + pal__draw(&seed) % (n - IN_SIGHT - FIRST - QUOTED);
		const pal__question q = {.n_needles = 1,
					 .begin = {(int64_t)from},
					 .end = {(int64_t)from + QUOTED},
					 .prompt = prompt,
					 .n_prompt = REPEATED};
		memcpy(prompt, ids + from, sizeof prompt);
		s = ask(c, &q, false, err);
	}
	close_log(c);
	return s;
}

/* --- choosing ------------------------------------------------------------------- */

/* Whether chunk i, with its margins, holds sentence k, or 16 positions of it. */
static bool holds(int64_t i, const answer *a, int k)
{
	int64_t from = i * PAL_CHUNK - PAL_CHUNK_MARGIN;
	int64_t to = from + PAL_CHUNK + 2 * PAL_CHUNK_MARGIN, n = a->end[k] - a->begin[k];
	int64_t lo = from > a->begin[k] ? from : a->begin[k], hi = to < a->end[k] ? to : a->end[k];
	return hi - lo >= (n < 16 ? n : 16);
}

/* The rank of the best chunk that holds sentence k; those with others of the fact are no rivals. */
static size_t rank_of(const answer *a, int k, const float scores[CHUNKS])
{
	float right = 0;
	size_t rank = 1;
	for (int64_t i = a->begin[k] / PAL_CHUNK - 1; i <= a->end[k] / PAL_CHUNK + 1; i++)
		if (i >= 0 && i < CHUNKS && scores[i] > right && holds(i, a, k))
			right = scores[i];
	for (int64_t i = 0; i < CHUNKS; i++) {
		bool rival = scores[i] >= right;
		for (int t = 0; rival && t < a->n; t++)
			rival = !holds(i, a, t);
		rank += rival;
	}
	return rank;
}

static void add_scores(const pal__calibration *c, const answer *a, const pal__heads *heads,
		       float scores[CHUNKS])
{
	memset(scores, 0, CHUNKS * sizeof *scores);
	for (size_t i = 0; i < heads->n; i++) {
		size_t at = 0;
		while (memcmp(&c->heads[at], &heads->heads[i], sizeof *c->heads) != 0)
			at++;
		const pal__found *list = a->found + at * KEPT;
		for (size_t t = 0; t < KEPT; t++)
			if (list[t].chunk >= 0 && list[t].chunk < CHUNKS)
				scores[list[t].chunk] += list[t].score;
	}
}

/* How heads do, all together, in the answers of one kind. */
static void rate(const pal__calibration *c, bool later, const pal__heads *heads,
		 pal__head_score *out)
{
	size_t n = 0, hit1 = 0, hit2 = 0;
	double score = 0;
	float scores[CHUNKS];
	for (size_t i = 0; i < c->n_answers; i++) {
		const answer *a = &c->answers[i];
		if (a->later != later)
			continue;
		add_scores(c, a, heads, scores);
		for (int k = a->from; k < a->to; k++) {
			size_t rank = rank_of(a, k, scores);
			n++;
			hit1 += rank == 1;
			hit2 += rank <= 2;
			score += 1 / (double)rank;
		}
	}
	out->hit1 = (float)hit1 / (float)n;
	out->hit2 = (float)hit2 / (float)n;
	out->score = (float)(score / (double)n);
}

static int compare(const void *a, const void *b)
{
	const pal__head_score *x = a, *y = b;
	if (x->score != y->score)
		return x->score < y->score ? 1 : -1;
	int layers = (int)x->head.layer - (int)y->head.layer;
	return layers ? layers : (int)x->head.head - (int)y->head.head;
}

/* Adds the head that helps most, if it helps enough. */
static bool add_head(const pal__calibration *c, bool later, pal__calibrated *out)
{
	pal__head_score best = {.score = out->heads.n ? out->score + WORTH : -1};
	bool found = false;
	for (size_t i = 0; i < out->n_singles && i < CANDIDATES; i++) {
		pal__heads with = out->heads;
		pal__head_score now = {.head = out->singles[i].head};
		bool has = false;
		for (size_t k = 0; k < with.n; k++)
			has = has || !memcmp(&with.heads[k], &now.head, sizeof now.head);
		if (has)
			continue;
		with.heads[with.n++] = now.head;
		rate(c, later, &with, &now);
		if (now.score > best.score) {
			best = now;
			found = true;
		}
	}
	if (!found)
		return false;
	out->heads.heads[out->heads.n++] = best.head;
	out->hit1 = best.hit1;
	out->hit2 = best.hit2;
	out->score = best.score;
	return true;
}

pal_status pal__calibration_choose(pal__calibration *c, bool later, pal__calibrated *out,
				   pal_error *err)
{
	*out = (pal__calibrated){0};
	for (size_t i = 0; i < c->n_answers; i++)
		if (c->answers[i].later == later)
			out->n_probes += (size_t)(c->answers[i].to - c->answers[i].from);
	if (!out->n_probes)
		return PAL_OK;
	out->singles = pal__calloc(c->n_heads, sizeof *out->singles);
	if (!out->singles)
		return pal__fail_memory(err, "the heads", c->n_heads * sizeof *out->singles);
	out->n_singles = c->n_heads;
	for (size_t i = 0; i < c->n_heads; i++) {
		const pal__heads one = {.heads = {c->heads[i]}, .n = 1};
		out->singles[i].head = c->heads[i];
		rate(c, later, &one, &out->singles[i]);
	}
	qsort(out->singles, out->n_singles, sizeof *out->singles, compare);
	while (out->heads.n < MAX_HEADS && add_head(c, later, out))
		;
	return PAL_OK;
}
