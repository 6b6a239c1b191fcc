/* Generation: logits to tokens to the log, and their text to the caller.
 *
 * Invariants:
 *  - A token is reported after it has joined the log and been computed: what the caller
 *    has seen, the session knows, and a next call goes on from there.
 *  - Text is given out when no stop string can begin in it any more. Stop strings are
 *    looked for in the text, so they may lie across tokens in any way; the one that is
 *    complete first counts, and of several complete at the same byte the longest.
 *  - Everything is allocated before the first token.
 */
#include <math.h>
#include <string.h>

#include "base/checked.h"
#include "base/clock.h"
#include "base/mem.h"
#include "draft/drafter.h"
#include "draft/sample.h"
#include "model/model.h"
#include "session/session.h"
#include "text/constraint.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

#define MAX_STOPS 64         /* stop strings of one call */
#define MAX_STOP_BYTES 65536 /* of one stop string */

struct stream {
	const pal_generate_options *options;
	size_t n_stop[MAX_STOPS]; /* bytes of each stop string */
	size_t longest;           /* of them */
	pal__detok detok;
	char *text; /* [cap] certain characters that are held back, and new ones behind them */
	size_t n_text, cap;
};

pal_sampling pal_sampling_default(void)
{
	return (pal_sampling){.top_p = 1, .repeat_penalty = 1, .repeat_last = 64};
}

static pal_status check_stops(struct stream *t, pal_error *err)
{
	const pal_generate_options *o = t->options;
	if (o->n_stops > MAX_STOPS)
		return pal__fail(err, PAL_ELIMIT, "%zu stop strings: at most %d are possible",
				 o->n_stops, MAX_STOPS);
	for (size_t i = 0; i < o->n_stops; i++) {
		size_t n = strlen(o->stops[i]);
		if (n < 1 || n > MAX_STOP_BYTES)
			return pal__fail(err, PAL_EINVAL,
					 "stop string %zu has %zu bytes: 1 to %d "
					 "are possible",
					 i + 1, n, MAX_STOP_BYTES);
		/* Otherwise text could be cut in the middle of a character. */
		if (pal__utf8_valid(o->stops[i], n) != n)
			return pal__fail(err, PAL_EINVAL, "stop string %zu is not UTF-8", i + 1);
		t->n_stop[i] = n;
		t->longest = n > t->longest ? n : t->longest;
	}
	return PAL_OK;
}

/* The first byte of the stop string that text[0, n) ends with, or n. */
static size_t stop_at_end(const struct stream *t, size_t n)
{
	size_t start = n;
	for (size_t i = 0; i < t->options->n_stops; i++) {
		size_t len = t->n_stop[i];
		if (len <= n && n - len < start &&
		    !memcmp(t->text + n - len, t->options->stops[i], len))
			start = n - len;
	}
	return start;
}

/* How many bytes at the end of the text could still become a stop string. */
static size_t may_become_stop(const struct stream *t)
{
	size_t most = t->longest ? t->longest - 1 : 0;
	for (size_t len = most < t->n_text ? most : t->n_text; len > 0; len--)
		for (size_t i = 0; i < t->options->n_stops; i++)
			if (t->n_stop[i] > len &&
			    !memcmp(t->text + t->n_text - len, t->options->stops[i], len))
				return len;
	return 0;
}

static bool emit(struct stream *t, int32_t id, size_t n)
{
	const pal_generate_options *o = t->options;
	bool go_on = !o->on_token || o->on_token(o->user, id, t->text, n);
	memmove(t->text, t->text + n, t->n_text - n);
	t->n_text -= n;
	return go_on;
}

/* Text from byte `from` on is new: reports the token, and whether the text has come to
 * its end, with *stop set. */
static bool report(struct stream *t, int32_t id, size_t from, pal_stop *stop)
{
	for (size_t n = from + 1; n <= t->n_text; n++) {
		size_t start = stop_at_end(t, n);
		if (start == n)
			continue;
		t->n_text = start;
		*stop = PAL_STOP_STRING;
		emit(t, id, start);
		return true;
	}
	if (emit(t, id, t->n_text - may_become_stop(t)))
		return false;
	*stop = PAL_STOP_CANCELLED;
	return true;
}

/* The end of a stream whose text was not cut by a stop string: what was held back. */
static void flush(struct stream *t, pal_stop *stop)
{
	size_t held = t->n_text;
	t->n_text += pal__detok_finish(&t->detok, t->text + held);
	for (size_t n = held + 1; n <= t->n_text && *stop != PAL_STOP_STRING; n++) {
		size_t start = stop_at_end(t, n);
		if (start < n) {
			t->n_text = start;
			*stop = PAL_STOP_STRING;
		}
	}
	if (t->n_text && t->options->on_token)
		t->options->on_token(t->options->user, -1, t->text, t->n_text);
}

struct generation {
	pal_session *s;
	pal__sampler *sampler;
	struct stream t;
	pal_generate_result result;
	const int32_t
		*along; /* [n_along] what comes, of which n_tokens have; NULL: what is sampled */
	size_t n_along;
	size_t n_vocab;
	float *allowed;       /* [n_vocab] logits under a constraint, or NULL */
	const uint64_t *mask; /* of the last next(); NULL: any token */
	pal_logprob chosen, top[PAL_MAX_LOGPROBS]; /* of the last next(), if asked for */
	int n_top;
	bool done;
	pal_status status; /* of a token */
	pal_error *err;
};

static bool is_allowed(const uint64_t *mask, size_t id)
{
	return !mask || mask[id / 64] >> id % 64 & 1;
}

/* The last logits, those of tokens that may not come at -inf. */
static const float *logits_now(struct generation *g)
{
	const float *x = pal_session_logits(g->s);
	size_t n = g->n_vocab;
	g->mask = g->allowed ? pal__constraint_mask(g->t.options->constraint) : NULL;
	if (!g->mask)
		return x;
	for (size_t i = 0; i < n; i++)
		g->allowed[i] = is_allowed(g->mask, i) ? x[i] : -INFINITY;
	return g->allowed;
}

/* Where nothing that may come is a number, any of it will do. */
static int32_t first_allowed(const struct generation *g, int32_t id)
{
	size_t n = g->n_vocab;
	for (size_t i = 0; !is_allowed(g->mask, (size_t)id) && i < n; i++)
		if (is_allowed(g->mask, i))
			return (int32_t)i;
	return id;
}

/* Joins the likeliest so far, most likely first; of equal ones the smaller id. */
static void rank(struct generation *g, int32_t id, float logit)
{
	int most = g->t.options->n_logprobs, at = g->n_top;
	if (at == most && (!at || !(logit > g->top[at - 1].logprob)))
		return;
	at -= at == most;
	for (; at > 0 && logit > g->top[at - 1].logprob; at--)
		g->top[at] = g->top[at - 1];
	g->top[at] = (pal_logprob){id, logit};
	g->n_top += g->n_top < most;
}

/* Of the model's own distribution: what is told, and decides nothing. */
static void tell_logprobs(struct generation *g, int32_t id)
{
	const float *x = pal_session_logits(g->s);
	size_t n = g->n_vocab;
	float most = x[pal__largest(x, n)];
	double sum = 0;
	g->n_top = 0;
	for (size_t i = 0; i < n; i++) {
		sum += x[i] <= most ? pal__exp_neg((double)x[i] - (double)most) : 0;
		if (is_allowed(g->mask, i))
			rank(g, (int32_t)i, x[i]);
	}
	double total = (double)most + log(sum);
	for (int i = 0; i < g->n_top; i++)
		g->top[i].logprob = (float)((double)g->top[i].logprob - total);
	g->chosen = (pal_logprob){id, (float)((double)x[id] - total)};
}

/* -1: there is none. */
static int32_t next(void *user)
{
	struct generation *g = user;
	size_t n = (size_t)g->result.n_tokens;
	if (g->along)
		return n < g->n_along ? g->along[n] : -1;
	int32_t id = pal__sample(g->sampler, logits_now(g), pal_session_log(g->s),
				 pal_session_length(g->s));
	id = first_allowed(g, id);
	if (g->t.options->on_logprobs)
		tell_logprobs(g, id);
	return id;
}

/* A token has joined the log. */
static bool kept(void *user, int32_t id)
{
	struct generation *g = user;
	const pal_generate_options *o = g->t.options;
	size_t from = g->t.n_text;
	g->result.n_tokens++;
	g->done = true;
	if (o->on_logprobs && !g->along)
		o->on_logprobs(o->user, g->chosen, g->top, g->n_top);
	if (!pal__detok_feed(&g->t.detok, id, g->t.text, g->t.cap, &g->t.n_text)) {
		g->status =
			pal__fail(g->err, PAL_ELIMIT, "token %d: its text is longer than %d bytes",
				  id, PAL__MAX_TOKEN_BYTES);
		return false;
	}
	if (g->allowed)
		pal__constraint_take(o->constraint, id);
	g->done = report(&g->t, id, from, &g->result.stop);
	if (!g->done && g->allowed && pal__constraint_done(o->constraint)) {
		g->result.stop = PAL_STOP_END;
		g->done = true;
	}
	if (!g->done && !o->ignore_end && pal__token_is_end(g->t.detok.t, id)) {
		g->result.stop = PAL_STOP_END;
		g->done = true;
	}
	g->done |= o->max_tokens && g->result.n_tokens >= o->max_tokens;
	return !g->done;
}

/* A draft behind ids[0], the pending token, into ids + 1. room: of the pass. */
static int draft(struct generation *g, int32_t *ids, size_t room)
{
	pal_session *s = g->s;
	int64_t max = g->t.options->max_tokens, left = max ? max - g->result.n_tokens : INT64_MAX;
	int32_t *log = s->log;
	int most = (int)(room < (size_t)left ? room : (size_t)left) - 1;
	pal__draft_view v = {.log = log,
			     .n = s->length + 1,
			     .verifier = s->model,
			     .kv = &s->kv,
			     .scratch = &s->scratch,
			     .rows = s->rows,
			     .room = (int)room,
			     .hidden = s->hidden};
	return pal__drafter_propose(g->t.options->drafter, &v, ids + 1, most);
}

static pal_status step(struct generation *g, pal_error *err)
{
	pal_session *s = g->s;
	pal_drafter *d = g->t.options->drafter;
	pal__verifying v = {.next = next, .kept = kept, .user = g, .logits = d ? d->logits : NULL};
	int32_t ids[PAL__DRAFT_MOST + 1];
	size_t room, n = 1, n_kept;
	double seconds;
	pal_error full;
	pal_status status = pal__session_reselect(s, err);
	if (status)
		return status;
	ids[0] = next(g);
	status = pal__session_room(s, d ? (size_t)d->most + 1 : 1, &room, &full);
	g->done = status == PAL_ELIMIT || ids[0] < 0;
	if (g->done)
		return PAL_OK;
	if (status)
		return pal__fail(err, full.code, "%s", full.text);
	if (d) {
		status = pal__session_write_log(s, ids, 1, err);
		n += status ? 0 : (size_t)draft(g, ids, room);
	}
	if (!status)
		status = pal__session_verify(s, &v, ids, n, &n_kept, &seconds, err);
	if (status)
		return status;
	if (d)
		pal__drafter_checked(d, (int)n, (int)n_kept, seconds);
	g->result.forwards++;
	g->result.drafted += (int64_t)n - 1;
	g->result.accepted += (int64_t)n_kept - 1;
	return g->status;
}

static pal_status generate(struct generation *g, pal_error *err)
{
	g->result.stop = PAL_STOP_LIMIT;
	if (g->t.options->drafter)
		pal__drafter_begin(g->t.options->drafter);
	bool resume = g->t.options->resume;
	pal_status status = resume ? PAL_OK : pal_session_restore(g->s, err);
	while (!status && !g->done)
		status = step(g, err);
	if (!status && g->result.stop != PAL_STOP_STRING && g->result.stop != PAL_STOP_CANCELLED)
		flush(&g->t, &g->result.stop);
	return status;
}

static pal_status prepare(pal_session *s, const pal_generate_options *o, struct stream *t,
			  pal_error *err)
{
	*t = (struct stream){.options = o};
	if (o->max_tokens < 0)
		return pal__fail(err, PAL_EINVAL,
				 "%lld tokens to generate: must be 0 (until the "
				 "context is full) or more",
				 (long long)o->max_tokens);
	if (o->n_logprobs < 0 || o->n_logprobs > PAL_MAX_LOGPROBS)
		return pal__fail(err, PAL_EINVAL, "%d likeliest tokens: 0 to %d are possible",
				 o->n_logprobs, PAL_MAX_LOGPROBS);
	if (!pal_session_logits(s))
		return pal__fail(err, PAL_EINVAL, "nothing to go on from: append a token first");
	if (o->drafter && o->drafter->model != pal__session_model(s))
		return pal__fail(err, PAL_EINVAL, "the drafter is another model's");
	pal_status status = check_stops(t, err);
	if (status)
		return status;
	pal__detok_init(&t->detok, pal__model_tokenizer(pal__session_model(s)), false);
	t->detok.at_start = false; /* the log goes before */
	t->cap = t->longest + PAL__MAX_TOKEN_BYTES + 8;
	t->text = pal__alloc(t->cap);
	return t->text ? PAL_OK : pal__fail_memory(err, "generated text", t->cap);
}

static pal_status run(struct generation *g, const pal_generate_options *options,
		      pal_generate_result *out, pal_error *err)
{
	double start = pal__now();
	pal_model_info info;
	pal_status status = prepare(g->s, options, &g->t, err);
	if (status)
		return status;
	pal_model_get_info(pal__session_model(g->s), &info);
	status = pal__sampler_new(info.n_vocab, &options->sampling, &g->sampler, err);
	g->n_vocab = (size_t)info.n_vocab;
	if (!status && options->constraint && !g->along) {
		size_t bytes = g->n_vocab * sizeof *g->allowed;
		g->allowed = pal__alloc(bytes);
		status = g->allowed ? PAL_OK : pal__fail_memory(err, "allowed tokens", bytes);
		pal__constraint_begin(options->constraint);
	}
	if (!status)
		status = generate(g, err);
	pal__sampler_free(g->sampler);
	pal__free(g->allowed);
	pal__free(g->t.text);
	if (status)
		return status;
	g->result.seconds = pal__now() - start;
	if (out)
		*out = g->result;
	return PAL_OK;
}

pal_status pal_generate(pal_session *s, const pal_generate_options *options,
			pal_generate_result *out, pal_error *err)
{
	struct generation g = {.s = s, .err = err};
	return run(&g, options, out, err);
}

pal_status pal__generate_along(pal_session *s, const pal_generate_options *options,
			       const int32_t *ids, size_t n, pal_generate_result *out,
			       pal_error *err)
{
	struct generation g = {.s = s, .err = err, .along = ids, .n_along = n};
	return run(&g, options, out, err);
}
