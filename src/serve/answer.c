#include "serve/answer.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"

/* Where in a text with thoughts before it: <think>\n...\n</think>\n\n... */
enum { AT_START, IN_THOUGHTS, BEHIND_THOUGHTS, IN_TEXT };

static const char open_mark[] = "<think>", close_mark[] = "</think>";

static bool tell(pal__answer *a, pal__part part, const char *text, size_t n)
{
	pal__text *to = part == PAL__THOUGHT ? &a->thoughts : &a->said;
	if (!n)
		return true;
	if (!pal__text_put(to, text, n))
		pal__fault_memory(a->f);
	if (a->f->err.code)
		return false;
	if (a->on_part && !a->on_part(a, part, text, n))
		a->gone = true;
	return !a->gone && !a->f->err.code;
}

/* Text behind the thoughts: content, and calls. n 0: nothing more comes. */
static bool feed_calls(pal__answer *a, const char *text, size_t n)
{
	const char *content = NULL;
	size_t n_content = 0, n_calls = a->n_calls;
	if (!a->calls)
		return tell(a, PAL__SAID, text, n);
	if (pal__calls_feed(a->calls, text, n, &content, &n_content, &n_calls, &a->f->err))
		return false;
	if (!tell(a, PAL__SAID, content, n_content))
		return false;
	while (a->n_calls < n_calls) {
		size_t i = a->n_calls++;
		if (a->on_call && !a->on_call(a, i)) {
			a->gone = true;
			return false;
		}
	}
	return true;
}

static void drop(pal__text *t, size_t n)
{
	memmove(t->s, t->s + n, t->n - n);
	t->n -= n;
}

static size_t count(const pal__text *t, const char *what)
{
	size_t n = 0;
	while (n < t->n && strchr(what, t->s[n]))
		n++;
	return n;
}

/* Bytes at the end of the text that may belong to the closing mark: newlines and its start. */
static size_t may_close(const pal__text *t)
{
	size_t n = sizeof close_mark - 2;
	for (n = n < t->n ? n : t->n; n && memcmp(t->s + t->n - n, close_mark, n);)
		n--;
	while (n < t->n && t->s[t->n - n - 1] == '\n')
		n++;
	return n;
}

/* true: the held text's next part may be looked at. */
static bool at_start(pal__answer *a, bool end)
{
	const size_t mark = sizeof open_mark - 1;
	size_t blank = count(&a->held, " \t\r\n"), n = a->held.n - blank;
	const char *s = a->held.s + blank;
	if (n >= mark && !memcmp(s, open_mark, mark)) {
		drop(&a->held, blank + mark);
		a->state = IN_THOUGHTS;
		return true;
	}
	if (!end && n < mark && !memcmp(s, open_mark, n))
		return false;
	a->state = IN_TEXT;
	return true;
}

static bool in_thoughts(pal__answer *a, bool end)
{
	if (!a->thoughts.n)
		drop(&a->held, count(&a->held, "\n"));
	const char *at = memmem(a->held.s, a->held.n, close_mark, sizeof close_mark - 1);
	size_t n = at ? (size_t)(at - a->held.s) : a->held.n - (end ? 0 : may_close(&a->held));
	size_t text = n;
	while (at && text && a->held.s[text - 1] == '\n')
		text--;
	bool ok = tell(a, PAL__THOUGHT, a->held.s, text);
	drop(&a->held, at ? n + sizeof close_mark - 1 : n);
	a->state = at ? BEHIND_THOUGHTS : a->state;
	return ok && at;
}

/* Splits text into thoughts and what is said. */
static bool feed(pal__answer *a, const char *text, size_t n, bool end)
{
	if (a->state == IN_TEXT && !a->held.n)
		return !n || feed_calls(a, text, n);
	if (!pal__text_put(&a->held, text, n)) {
		pal__fault_memory(a->f);
		return false;
	}
	for (bool more = true; more;) {
		if (a->state == AT_START)
			more = at_start(a, end);
		else if (a->state == IN_THOUGHTS)
			more = in_thoughts(a, end);
		else
			break;
	}
	if (a->state == BEHIND_THOUGHTS) {
		drop(&a->held, count(&a->held, "\n"));
		a->state = a->held.n ? IN_TEXT : a->state;
	}
	if (a->state == IN_TEXT && a->held.n) {
		size_t held = a->held.n;
		a->held.n = 0;
		return feed_calls(a, a->held.s, held);
	}
	return !a->gone && !a->f->err.code;
}

/* --- callbacks of the service ---------------------------------------------------- */

static void started(void *user, const pal__report *report)
{
	pal__answer *a = user;
	a->report = *report;
	if (a->on_start && !a->on_start(a))
		a->gone = true;
}

static bool came(void *user, int32_t id, const char *text, size_t n)
{
	pal__answer *a = user;
	const char *bytes;
	size_t n_bytes;
	if (a->gone || a->f->err.code)
		return false;
	if (id >= 0 && a->generate.n_stops &&
	    !pal_token_bytes(a->api->model, id, &bytes, &n_bytes, NULL) &&
	    !pal__text_put(&a->raw, bytes, n_bytes))
		pal__fault_memory(a->f);
	if (id >= 0 && a->wants_ids && json_array_append_new(a->ids, json_integer(id)))
		pal__fault_memory(a->f);
	if (a->on_token && !a->f->err.code && !a->on_token(a, id, text, n))
		a->gone = true;
	if (a->gone || a->f->err.code)
		return false;
	a->n_thoughts += a->state == IN_THOUGHTS;
	return feed(a, text, n, false);
}

static json_t *token_json(const pal__answer *a, pal_logprob p)
{
	const char *s = "";
	size_t n = 0;
	/* JSON has no infinities: what cannot come is told as the least that a float is. */
	double value = isfinite(p.logprob) ? (double)p.logprob : -9999.0;
	pal_token_bytes(a->api->model, p.id, &s, &n, NULL);
	json_t *bytes = json_array();
	for (size_t i = 0; i < n; i++)
		bytes = pal__json_append(bytes, json_integer((unsigned char)s[i]));
	return json_pack("{s:o, s:f, s:o}", "token", pal__json_text(s, n), "logprob", value,
			 "bytes", bytes);
}

static void likely(void *user, pal_logprob chosen, const pal_logprob *top, int n_top)
{
	pal__answer *a = user;
	/* A turn's end is no text; a session tells of every id. */
	if (a->f->err.code || (!a->wants_ids && pal_token_is_end(a->api->model, chosen.id)))
		return;
	json_t *list = json_array();
	for (int i = 0; i < n_top; i++)
		list = pal__json_append(list, token_json(a, top[i]));
	json_t *one = pal__json_with(token_json(a, chosen), "top_logprobs", list);
	a->logprobs = pal__json_append(a->logprobs ? a->logprobs : json_array(), one);
	if (!a->logprobs)
		pal__fault_memory(a->f);
}

/* --- the run --------------------------------------------------------------------- */

/* The stop string that is complete first; of several at the same byte, the longest. */
static const char *find_stop(const pal__answer *a)
{
	const char *found = NULL;
	for (size_t end = 1; end <= a->raw.n && !found; end++)
		for (size_t i = 0; i < a->generate.n_stops; i++) {
			const char *stop = a->generate.stops[i];
			size_t n = strlen(stop);
			if (n <= end && !memcmp(a->raw.s + end - n, stop, n) &&
			    (!found || n > strlen(found)))
				found = stop;
		}
	return found ? found : a->generate.stops[0];
}

static pal_status finish(pal__answer *a)
{
	const pal_stop stop = a->report.made.stop;
	if (!a->f->err.code && !a->gone && (stop != PAL_STOP_CANCELLED || !a->generates)) {
		feed(a, "", 0, true);
		if (a->calls && !a->f->err.code)
			feed_calls(a, "", 0);
	}
	if (!a->f->err.code && (a->gone || (a->generates && stop == PAL_STOP_CANCELLED)))
		pal__fail(&a->f->err, PAL_ECANCELLED, "the request was cancelled");
	if (!a->f->err.code && a->generates && stop == PAL_STOP_STRING && a->generate.n_stops)
		a->stopped = find_stop(a);
	return a->f->err.code;
}

pal_status pal__answer_run(pal__answer *a, pal__reply *reply, pal__fault *f)
{
	a->reply = reply;
	a->f = f;
	a->state = a->thinks ? AT_START : IN_TEXT;
	a->generate.user = a;
	a->generate.on_token = came;
	a->generate.on_logprobs = a->wants_logprobs ? likely : NULL;
	a->job.generate = a->generates ? &a->generate : NULL;
	a->job.cancel = pal__reply_gone(reply);
	a->job.on_start = started;
	a->job.user = a;
	if (a->wants_ids && !(a->ids = json_array()))
		return pal__fault_memory(f);
	if (a->calls_tools && pal__calls_new(a->api->family, &a->calls, &f->err))
		return f->err.code;
	pal_error err = {0}; /* f holds what went wrong in a callback, which is the cause */
	pal_status s = pal__service_run(a->api->options.service, &a->job, &a->report, &err);
	if (s && !f->err.code) {
		f->err = err;
		f->retry_after_s = a->report.retry_after_s;
	}
	return finish(a);
}

void pal__answer_free(pal__answer *a)
{
	pal__free(a->thoughts.s);
	pal__free(a->said.s);
	pal__free(a->raw.s);
	pal__free(a->held.s);
	pal__calls_free(a->calls);
	json_decref(a->ids);
	json_decref(a->logprobs);
}

const char *pal__answer_finish(const pal__answer *a)
{
	if (a->n_calls)
		return "tool_calls";
	return !a->generates || a->report.made.stop == PAL_STOP_LIMIT ? "length" : "stop";
}

json_t *pal__answer_logprobs(pal__answer *a)
{
	json_t *list = a->logprobs;
	a->logprobs = NULL;
	if (!a->wants_logprobs)
		return json_null();
	return list ? list : json_array();
}

void pal__answer_count(const pal__answer *a, pal__usage *usage, bool first)
{
	if (first) {
		usage->prompt += a->report.prompt_tokens;
		usage->cached += a->report.reused;
	}
	usage->completion += a->report.made.n_tokens;
	usage->reasoning += a->n_thoughts;
	usage->last = a->report;
}
