/* /v1/completions: text without a template. */
#include <string.h>

#include "base/mem.h"
#include "serve/answer.h"
#include "serve/params.h"
#include "serve/prompt.h"
#include "serve/sse.h"

#define MAX_PROMPTS 64 /* of one request */

struct completion {
	const pal__api *api;
	pal__reply *reply;
	pal__fault f;
	json_t *body, *format;
	pal__ask ask; /* its schema alone */
	pal_constraint *constraint;
	const char *model;
	char id[48];
	json_int_t created;
	pal_sampling sampling;
	const char *stops[PAL__MAX_STOPS];
	size_t n_stops;
	int64_t max_tokens;
	int n, n_logprobs, index; /* index: of all choices of all prompts */
	bool stream, include_usage, logprobs, echo;
	int32_t *ids; /* of the prompt that is answered now */
	size_t n_ids;
	char *prompt;            /* its text, for echo */
	size_t n_prompt, offset; /* offset: bytes of text that log probabilities were told of */
	json_t *choices;
	pal__usage usage;
};

static void refuse_if_there(const pal__params *p, const char *name)
{
	const json_t *j = json_object_get(p->o, name);
	if (!j || json_is_null(j) || (json_is_string(j) && !json_string_length(j)))
		return;
	pal__refuse(p->f, name, "is not supported: must be absent");
	p->f->code = "unsupported_parameter";
}

static void read_request(struct completion *c)
{
	const pal__params p = {c->body, "", &c->f};
	const pal__params q = {pal__param_object(&p, "stream_options"), "stream_options.", &c->f};
	pal__api_model(c->api, pal__param_string(&p, "model"), &c->model, &c->f);
	c->max_tokens = pal__param_int(&p, "max_tokens", 0, PAL__MAX_COUNT, 16);
	c->sampling = pal__param_sampling(&p, 1);
	c->n_stops = pal__param_strings(&p, "stop", PAL__MAX_STOPS, c->stops);
	c->n = (int)pal__param_int(&p, "n", 1, PAL__MAX_CHOICES, 1);
	int64_t logprobs = pal__param_int(&p, "logprobs", 0, PAL_MAX_LOGPROBS, -1);
	c->logprobs = logprobs >= 0;
	c->n_logprobs = logprobs > 0 ? (int)logprobs : 0;
	c->echo = pal__param_bool(&p, "echo", false);
	c->stream = pal__param_bool(&p, "stream", false);
	c->include_usage = pal__param_bool(&q, "include_usage", false);
	refuse_if_there(&p, "suffix");
	if (pal__param_int(&p, "best_of", 1, PAL__MAX_CHOICES, c->n) != c->n)
		pal__refuse(&c->f, "best_of", "is not supported: must be absent or equal to n");
	if (c->echo && c->logprobs)
		pal__refuse(&c->f, "logprobs", "cannot go with echo: a prompt has none here");
	pal__ask_format(&c->ask, &p, "response_format", &c->format);
	pal__ask_constraint(c->api, &c->ask, &c->constraint, &c->f);
}

/* --- parts of replies ------------------------------------------------------------- */

/* As the older API has them: an array for each kind. Takes nothing. */
static json_t *logprobs_json(struct completion *c, pal__answer *a)
{
	json_t *list = pal__answer_logprobs(a);
	json_t *tokens = json_array(), *values = json_array(), *tops = json_array(),
	       *offsets = json_array();
	if (json_is_array(list)) {
		for (size_t i = 0; i < json_array_size(list); i++) {
			json_t *t = json_array_get(list, i), *top = json_object(), *one;
			json_t *all = json_object_get(t, "top_logprobs");
			for (size_t k = 0; k < json_array_size(all); k++) {
				one = json_array_get(all, k);
				top = pal__json_with(top, pal__json_get(one, "token"),
						     json_incref(json_object_get(one, "logprob")));
			}
			tokens = pal__json_append(tokens, json_incref(json_object_get(t, "token")));
			values = pal__json_append(values,
						  json_incref(json_object_get(t, "logprob")));
			tops = pal__json_append(tops, top);
			offsets = pal__json_append(offsets, json_integer((json_int_t)c->offset));
			c->offset += json_array_size(json_object_get(t, "bytes"));
		}
	}
	json_t *o = json_pack("{s:o, s:o, s:o, s:o}", "tokens", tokens, "token_logprobs", values,
			      "top_logprobs", tops, "text_offset", offsets);
	if (json_is_array(list)) {
		json_decref(list);
		return o;
	}
	json_decref(o);
	return list;
}

static json_t *envelope(const struct completion *c, json_t *choices)
{
	return json_pack("{s:s, s:s, s:I, s:s, s:s, s:o}", "id", c->id, "object", "text_completion",
			 "created", c->created, "model", c->model, "system_fingerprint",
			 "palimpsest-" PAL_VERSION, "choices", choices);
}

static json_t *choice_json(struct completion *c, pal__answer *a, const char *text, size_t n,
			   const char *finish)
{
	return json_pack("{s:i, s:o, s:o, s:s?}", "index", c->index, "text",
			 pal__json_text(text, n), "logprobs", logprobs_json(c, a), "finish_reason",
			 finish);
}

static bool chunk(struct completion *c, pal__answer *a, const char *text, size_t n,
		  const char *finish)
{
	json_t *o = envelope(c, pal__json_append(json_array(), choice_json(c, a, text, n, finish)));
	if (c->include_usage)
		o = pal__json_with(o, "usage", json_null());
	return pal__sse_send(c->reply, NULL, o, &c->f);
}

static bool on_start(pal__answer *a)
{
	struct completion *c = a->user;
	if (!pal__reply_begun(c->reply) && !pal__sse_begin(c->reply))
		return false;
	return !c->echo || chunk(c, a, c->prompt, c->n_prompt, NULL);
}

static bool on_part(pal__answer *a, pal__part part, const char *text, size_t n)
{
	(void)part;
	return chunk(a->user, a, text, n, NULL);
}

static void add_choice(struct completion *c, pal__answer *a)
{
	pal__text whole = {0};
	bool ok = (!c->echo || pal__text_put(&whole, c->prompt, c->n_prompt)) &&
		  pal__text_put(&whole, a->said.s, a->said.n);
	if (!ok)
		pal__fault_memory(&c->f);
	else
		c->choices = pal__json_append(
			c->choices, choice_json(c, a, whole.s, whole.n, pal__answer_finish(a)));
	pal__free(whole.s);
}

/* --- the request ------------------------------------------------------------------ */

static void run_choice(struct completion *c, uint64_t owner, int number)
{
	pal__answer a = {.api = c->api,
			 .job = {.owner = owner, .ids = c->ids, .n_ids = c->n_ids},
			 .generate = {.sampling = c->sampling,
				      .max_tokens = c->max_tokens,
				      .stops = c->stops,
				      .n_stops = c->n_stops,
				      .constraint = c->constraint,
				      .n_logprobs = c->n_logprobs},
			 .generates = c->max_tokens > 0,
			 .wants_logprobs = c->logprobs,
			 .user = c};
	a.generate.sampling.seed += (uint64_t)number;
	c->offset = c->echo ? c->n_prompt : 0;
	if (c->stream) {
		a.on_start = on_start;
		a.on_part = on_part;
	}
	if (!pal__answer_run(&a, c->reply, &c->f)) {
		pal__answer_count(&a, &c->usage, number == 0);
		if (c->stream)
			chunk(c, &a, "", 0, pal__answer_finish(&a));
		else
			add_choice(c, &a);
	}
	pal__answer_free(&a);
}

/* One prompt: a string, or an array of ids. */
static void answer_prompt(struct completion *c, const json_t *prompt, uint64_t owner)
{
	const pal__params p = {c->body, "", &c->f};
	const pal_model *m = c->api->model;
	if (json_is_string(prompt))
		pal_tokenize(m, json_string_value(prompt), json_string_length(prompt),
			     PAL_TOKENIZE_SPECIAL | PAL_TOKENIZE_ADD, &c->ids, &c->n_ids,
			     &c->f.err);
	else
		pal__param_ids(&p, "prompt", prompt, c->api->info.n_vocab, &c->ids, &c->n_ids);
	if (!c->f.err.code && !c->n_ids)
		pal__refuse(&c->f, "prompt", "must not be empty");
	if (!c->f.err.code && c->echo)
		pal_detokenize(m, c->ids, c->n_ids, PAL_TOKENIZE_SPECIAL, &c->prompt, &c->n_prompt,
			       &c->f.err);
	for (int i = 0; i < c->n && !c->f.err.code; i++, c->index++)
		run_choice(c, owner, i);
	pal_free(c->ids);
	pal_free(c->prompt);
	c->ids = NULL;
	c->prompt = NULL;
}

static void answer_all(struct completion *c, uint64_t owner)
{
	const json_t *prompt = json_object_get(c->body, "prompt");
	const json_t *first = json_array_get(prompt, 0);
	bool several = json_is_string(first) || json_is_array(first);
	size_t n = several ? json_array_size(prompt) : 1;
	if (!json_is_string(prompt) && !json_is_array(prompt))
		pal__refuse(&c->f, "prompt",
			    "must be a string, an array of strings, an array of token ids, or an "
			    "array of such arrays");
	if (n > MAX_PROMPTS)
		pal__refuse(&c->f, "prompt", "must be at most %d prompts", MAX_PROMPTS);
	for (size_t i = 0; i < n && several; i++)
		if (!json_is_string(json_array_get(prompt, i)) &&
		    !json_is_array(json_array_get(prompt, i)))
			pal__refuse(&c->f, "prompt", "item %zu is neither text nor token ids", i);
	for (size_t i = 0; i < n && !c->f.err.code; i++)
		answer_prompt(c, several ? json_array_get(prompt, i) : prompt, owner);
}

static void end_stream(struct completion *c)
{
	pal__fault none = {0};
	if (!c->f.err.code && c->include_usage)
		pal__sse_send(c->reply, NULL,
			      pal__json_with(envelope(c, json_array()), "usage",
					     pal__usage_completion(&c->usage)),
			      &c->f);
	if (c->f.err.code)
		pal__sse_send(c->reply, NULL, pal__fault_json(&c->f, PAL__OPENAI), &none);
	else
		pal__sse_done(c->reply);
}

void pal__completions(const pal__http_request *r, pal__reply *reply)
{
	struct completion c = {.api = r->user, .reply = reply};
	pal__fresh_id("cmpl-", c.id, sizeof c.id);
	c.created = (json_int_t)pal__wall_clock();
	c.body = pal__params_body(r, &c.f);
	c.choices = json_array();
	if (c.body)
		read_request(&c);
	if (!c.f.err.code)
		answer_all(&c, r->owner);
	if (pal__reply_begun(reply))
		end_stream(&c);
	else if (c.f.err.code)
		pal__reply_fault(reply, &c.f, PAL__OPENAI);
	else
		pal__reply_send(reply, 200,
				pal__json_with(envelope(&c, json_incref(c.choices)), "usage",
					       pal__usage_completion(&c.usage)),
				PAL__OPENAI);
	pal_constraint_close(c.constraint);
	json_decref(c.choices);
	json_decref(c.format);
	json_decref(c.body);
}
