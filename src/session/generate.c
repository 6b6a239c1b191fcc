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
#include <string.h>

#include "base/checked.h"
#include "base/clock.h"
#include "base/mem.h"
#include "draft/sample.h"
#include "model/model.h"
#include "session/session.h"
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

static pal_status step(pal_session *s, pal__sampler *sampler, struct stream *t,
		       pal_generate_result *result, bool *done, pal_error *err)
{
	const pal_generate_options *o = t->options;
	pal_status selected = pal__session_reselect(s, err);
	if (selected)
		return selected;
	int32_t id = pal__sample(sampler, pal_session_logits(s), pal_session_log(s),
				 pal_session_length(s));
	pal_error full;
	pal_status status = pal_session_append(s, &id, 1, NULL, NULL, NULL, &full);
	*done = true;
	if (status == PAL_ELIMIT) {
		result->stop = PAL_STOP_LIMIT;
		return PAL_OK;
	}
	if (status)
		return pal__fail(err, full.code, "%s", full.text);
	result->n_tokens++;
	size_t from = t->n_text;
	bool fits = pal__detok_feed(&t->detok, id, t->text, t->cap, &t->n_text);
	if (!fits)
		return pal__fail(err, PAL_ELIMIT, "token %d: its text is longer than %d bytes", id,
				 PAL__MAX_TOKEN_BYTES);
	*done = report(t, id, from, &result->stop);
	if (!*done && !o->ignore_end && pal__token_is_end(t->detok.t, id)) {
		result->stop = PAL_STOP_END;
		*done = true;
	}
	return PAL_OK;
}

static pal_status generate(pal_session *s, pal__sampler *sampler, struct stream *t,
			   pal_generate_result *result, pal_error *err)
{
	int64_t limit = t->options->max_tokens;
	bool done = false;
	result->stop = PAL_STOP_LIMIT;
	pal_status restored = pal_session_restore(s, err);
	if (restored)
		return restored;
	while (!done && (!limit || result->n_tokens < limit)) {
		pal_status status = step(s, sampler, t, result, &done, err);
		if (status)
			return status;
	}
	if (result->stop != PAL_STOP_STRING && result->stop != PAL_STOP_CANCELLED)
		flush(t, &result->stop);
	return PAL_OK;
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
	if (!pal_session_logits(s))
		return pal__fail(err, PAL_EINVAL, "nothing to go on from: append a token first");
	pal_status status = check_stops(t, err);
	if (status)
		return status;
	pal__detok_init(&t->detok, pal__model_tokenizer(pal__session_model(s)), false);
	t->detok.at_start = false; /* the log goes before */
	t->cap = t->longest + PAL__MAX_TOKEN_BYTES + 8;
	t->text = pal__alloc(t->cap);
	return t->text ? PAL_OK : pal__fail_memory(err, "generated text", t->cap);
}

pal_status pal_generate(pal_session *s, const pal_generate_options *options,
			pal_generate_result *out, pal_error *err)
{
	struct stream t;
	pal__sampler *sampler = NULL;
	pal_model_info info;
	pal_generate_result result = {0};
	double start = pal__now();
	pal_status status = prepare(s, options, &t, err);
	if (status)
		return status;
	pal_model_get_info(pal__session_model(s), &info);
	status = pal__sampler_new(info.n_vocab, &options->sampling, &sampler, err);
	if (!status)
		status = generate(s, sampler, &t, &result, err);
	pal__sampler_free(sampler);
	pal__free(t.text);
	if (status)
		return status;
	result.seconds = pal__now() - start;
	if (out)
		*out = result;
	return PAL_OK;
}
