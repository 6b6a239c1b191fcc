/* /v1/sessions: sessions by their names. */
#include <string.h>

#include "base/mem.h"
#include "serve/answer.h"
#include "serve/params.h"
#include "serve/prompt.h"
#include "serve/sse.h"

#define PAGE 100 /* sessions of one reply at most */

/* A request to a session, and what it has so far. */
struct call {
	const pal__api *api;
	pal__service *service;
	const pal__http_request *request;
	pal__reply *reply;
	pal__fault f;
	json_t *body; /* or NULL */
};

static struct call begin(const pal__http_request *r, pal__reply *reply)
{
	const pal__api *api = r->user;
	return (struct call){
		.api = api, .service = api->options.service, .request = r, .reply = reply};
}

/* An empty body is one without fields. */
static struct call begin_body(const pal__http_request *r, pal__reply *reply)
{
	struct call c = begin(r, reply);
	c.body = r->n_body ? pal__params_body(r, &c.f) : json_object();
	if (!c.body)
		pal__fault_memory(&c.f);
	return c;
}

/* The end of every call: what went wrong, or o, whose reference it takes. */
static void finish(struct call *c, json_t *o)
{
	if (c->f.err.code) {
		json_decref(o);
		pal__reply_fault(c->reply, &c->f, PAL__OPENAI);
	} else {
		pal__reply_send(c->reply, 200, o, PAL__OPENAI);
	}
	json_decref(c->body);
}

static json_t *info_json(const pal__session_info *s)
{
	const pal_session_stats *t = &s->stats;
	json_t *o = json_pack(
		"{s:s, s:s, s:o, s:f, s:f, s:I, s:I, s:I, s:I, s:I, s:o, s:I, s:I}", "object",
		"session", "id", s->id, "label", pal__json_text(s->label, strlen(s->label)),
		"created", s->created, "used", s->used, "length", (json_int_t)t->length,
		"committed", (json_int_t)s->committed, "resident", (json_int_t)t->resident,
		"evicted", (json_int_t)t->evicted, "restored", (json_int_t)t->restored,
		"restored_chunks", pal__report_sources(t->filled), "fallbacks",
		(json_int_t)t->fallbacks, "events", (json_int_t)t->events);
	json_t *more = json_pack(
		"{s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:b, s:b, s:b, s:I, s:I}", "kv_bytes",
		(json_int_t)t->kv_bytes, "scratch_bytes", (json_int_t)t->scratch_bytes,
		"disk_bytes", (json_int_t)t->disk_bytes, "sink", (json_int_t)s->sink, "window",
		(json_int_t)s->window, "budget_positions", (json_int_t)s->budget_positions, "busy",
		s->busy, "loaded", s->loaded, "stateless", s->stateless, "interrupted",
		s->interrupted, "remaining", (json_int_t)s->remaining, "turns",
		(json_int_t)s->turns);
	if (o && (!more || json_object_update_missing(o, more))) {
		json_decref(o);
		o = NULL;
	}
	json_decref(more);
	return o;
}

static void reply_info(struct call *c, const char *id)
{
	pal__session_info info = {0};
	if (!c->f.err.code)
		pal__service_info(c->service, id, c->request->owner, &info, &c->f.err);
	finish(c, c->f.err.code ? NULL : info_json(&info));
}

/* --- the sessions themselves ------------------------------------------------------- */

static void read_eos(const struct call *c, const pal__params *p, pal__create *create)
{
	const json_t *eos = pal__param_array(p, "eos_token_ids");
	int32_t *ids = NULL;
	size_t n = 0;
	create->n_eos = -1;
	if (!eos)
		return;
	if (json_array_size(eos) > PAL__MAX_EOS)
		pal__refuse(p->f, "eos_token_ids", "must be at most %d", PAL__MAX_EOS);
	if (!pal__param_ids(p, "eos_token_ids", eos, c->api->info.n_vocab, &ids, &n)) {
		memcpy(create->eos, ids, n * sizeof *ids);
		create->n_eos = (int)n;
	}
	pal_free(ids);
}

static const char *read_label(const pal__params *p)
{
	const char *label = pal__param_string(p, "label");
	if (label && strlen(label) > PAL__MAX_LABEL)
		pal__refuse(p->f, "label", "must be at most %d bytes", PAL__MAX_LABEL);
	return label;
}

void pal__sessions_create(const pal__http_request *r, pal__reply *reply)
{
	struct call c = begin_body(r, reply);
	const pal__params p = {c.body, "", &c.f};
	pal__create create = {.label = read_label(&p), .owner = r->owner};
	char id[PAL__ID_BYTES] = "";
	read_eos(&c, &p, &create);
	if (!c.f.err.code)
		pal__service_create(c.service, &create, id, &c.f.err);
	reply_info(&c, id);
}

void pal__sessions_list(const pal__http_request *r, pal__reply *reply)
{
	struct call c = begin(r, reply);
	size_t from = (size_t)pal__query_int(r, "from", 0, PAL__MAX_COUNT, 0, &c.f);
	size_t most = (size_t)pal__query_int(r, "limit", 1, PAGE, PAGE, &c.f), n = 0, total = 0;
	pal__session_info *all = pal__calloc(most, sizeof *all);
	json_t *data = json_array();
	if (!all)
		pal__fault_memory(&c.f);
	if (!c.f.err.code)
		pal__service_list(c.service, r->owner, from, all, most, &n, &total, &c.f.err);
	for (size_t i = 0; i < n; i++)
		data = pal__json_append(data, info_json(&all[i]));
	pal__free(all);
	finish(&c, json_pack("{s:s, s:o, s:I}", "object", "list", "data", data, "total",
			     (json_int_t)total));
}

void pal__sessions_get(const pal__http_request *r, pal__reply *reply)
{
	struct call c = begin(r, reply);
	reply_info(&c, r->param[0]);
}

void pal__sessions_delete(const pal__http_request *r, pal__reply *reply)
{
	struct call c = begin(r, reply);
	int64_t length = 0;
	pal__service_delete(c.service, r->param[0], r->owner, &length, &c.f.err);
	finish(&c, json_pack("{s:o, s:s, s:b, s:I}", "id",
			     pal__json_text(r->param[0], strlen(r->param[0])), "object",
			     "session.deleted", "deleted", 1, "length", (json_int_t)length));
}

void pal__sessions_fork(const pal__http_request *r, pal__reply *reply)
{
	struct call c = begin_body(r, reply);
	const pal__params p = {c.body, "", &c.f};
	const char *label = read_label(&p);
	char id[PAL__ID_BYTES] = "";
	if (!c.f.err.code)
		pal__service_fork(c.service, r->param[0], r->owner, label, id, &c.f.err);
	reply_info(&c, id);
}

void pal__sessions_export(const pal__http_request *r, pal__reply *reply)
{
	struct call c = begin(r, reply);
	void *bytes = NULL;
	size_t n = 0;
	if (pal__service_export(c.service, r->param[0], r->owner, &bytes, &n, &c.f.err))
		pal__reply_fault(reply, &c.f, PAL__OPENAI);
	else
		pal__reply_bytes(reply, 200, "application/octet-stream", bytes, n);
	pal_free(bytes);
}

/* A damaged file is the client's mistake here, and not the server's. */
void pal__sessions_import(const pal__http_request *r, pal__reply *reply)
{
	struct call c = begin(r, reply);
	char id[PAL__ID_BYTES] = "";
	pal__service_import(c.service, r->body, r->n_body, r->owner, id, &c.f.err);
	if (c.f.err.code == PAL_EFORMAT)
		c.f.err.code = PAL_EINVAL;
	reply_info(&c, id);
}

void pal__sessions_log(const pal__http_request *r, pal__reply *reply)
{
	struct call c = begin(r, reply);
	int32_t *ids = NULL;
	size_t n = 0;
	json_t *list = json_array();
	pal__service_log(c.service, r->param[0], r->owner, &ids, &n, &c.f.err);
	for (size_t i = 0; i < n; i++)
		list = pal__json_append(list, json_integer(ids[i]));
	pal_free(ids);
	finish(&c, json_pack("{s:o}", "ids", list));
}

static json_t *event_json(const pal_event *e)
{
	json_t *chunks = json_array(), *sources = json_array();
	for (int i = 0; i < e->n_chunks; i++) {
		chunks = pal__json_append(chunks, json_integer(e->chunks[i]));
		sources = pal__json_append(sources, json_string(pal__source_word(e->sources[i])));
	}
	return json_pack("{s:I, s:i, s:o, s:o}", "position", (json_int_t)e->position, "reread",
			 e->reread, "chunks", chunks, "sources", sources);
}

void pal__sessions_memory(const pal__http_request *r, pal__reply *reply)
{
	struct call c = begin(r, reply);
	pal__memory_view *m = pal__calloc(1, sizeof *m);
	json_t *chunks = json_array(), *events = json_array(), *o = NULL;
	if (!m)
		pal__fault_memory(&c.f);
	else
		pal__service_memory(c.service, r->param[0], r->owner, m, &c.f.err);
	for (int i = 0; m && i < m->n_chunks; i++) {
		json_int_t at = (json_int_t)m->chunks[i] * PAL_CHUNK;
		chunks = pal__json_append(chunks,
					  json_pack("{s:i, s:I, s:I, s:s}", "chunk", m->chunks[i],
						    "from", at, "to", at + PAL_CHUNK, "source",
						    pal__source_word(m->sources[i])));
	}
	for (int i = 0; m && i < m->n_events; i++)
		events = pal__json_append(events, event_json(&m->events[i]));
	o = json_pack("{s:I, s:I, s:I, s:o, s:o}", "length", (json_int_t)(m ? m->length : 0),
		      "sink", (json_int_t)(m ? m->sink : 0), "window_from",
		      (json_int_t)(m ? m->window_from : 0), "chunks", chunks, "events", events);
	pal__free(m);
	finish(&c, o);
}

/* --- appending ------------------------------------------------------------------------ */

/* Text that a log begins with has the tokens that the model wants there. */
static void tokenize(struct call *c, const char *text, int32_t **ids, size_t *n)
{
	const pal__params p = {c->body, "", &c->f};
	pal__session_info info = {0};
	unsigned flags = pal__param_bool(&p, "parse_special", true) ? PAL_TOKENIZE_SPECIAL : 0;
	if (c->f.err.code || pal__service_info(c->service, c->request->param[0], c->request->owner,
					       &info, &c->f.err))
		return;
	flags |= info.stats.length ? 0 : PAL_TOKENIZE_ADD;
	pal_tokenize(c->api->model, text, strlen(text), flags, ids, n, &c->f.err);
}

static void read_append(struct call *c, int32_t **ids, size_t *n)
{
	const pal__params p = {c->body, "", &c->f};
	const char *text = pal__param_string(&p, "text");
	const json_t *array = pal__param_array(&p, "ids");
	const pal__ask ask = {.messages = pal__param_array(&p, "messages")};
	bool open_reply = pal__param_bool(&p, "open_reply", true);
	if ((text != NULL) + (array != NULL) + (ask.messages != NULL) != 1)
		pal__refuse(&c->f, "", "one of text, ids and messages must be there");
	if (c->f.err.code)
		return;
	if (array)
		pal__param_ids(&p, "ids", array, c->api->info.n_vocab, ids, n);
	else if (text)
		tokenize(c, text, ids, n);
	else
		pal__ask_ids(c->api, &ask, open_reply, ids, n, &c->f);
	if (!c->f.err.code && !*n)
		pal__refuse(&c->f, "", "there are no tokens to append");
}

void pal__sessions_append(const pal__http_request *r, pal__reply *reply)
{
	struct call c = begin_body(r, reply);
	int32_t *ids = NULL;
	size_t n = 0;
	pal__usage usage = {0};
	read_append(&c, &ids, &n);
	pal__answer a = {
		.api = c.api,
		.job = {.session = r->param[0], .owner = r->owner, .ids = ids, .n_ids = n}};
	if (!c.f.err.code && !pal__answer_run(&a, reply, &c.f))
		pal__answer_count(&a, &usage, true);
	finish(&c, json_pack("{s:s, s:s, s:I, s:I, s:o}", "object", "session.append", "id",
			     a.report.session, "appended", (json_int_t)n, "length",
			     (json_int_t)a.report.length, "usage", pal__usage_completion(&usage)));
	pal__answer_free(&a);
	pal_free(ids);
}

/* --- generating ----------------------------------------------------------------------- */

struct generation {
	struct call *call;
	const char *stops[PAL__MAX_STOPS];
	pal__usage usage;
	bool stream;
};

/* {"object", "id", "text", "ids", "finish_reason", "logprobs"?} */
static json_t *piece(pal__answer *a, const char *object, json_t *ids, json_t *text,
		     const char *finish_reason)
{
	json_t *o = json_pack("{s:s, s:s, s:o, s:o, s:s?}", "object", object, "id", a->job.session,
			      "text", text, "ids", ids, "finish_reason", finish_reason);
	return a->wants_logprobs ? pal__json_with(o, "logprobs", pal__answer_logprobs(a)) : o;
}

static bool on_start(pal__answer *a)
{
	const struct generation *g = a->user;
	return pal__sse_begin(g->call->reply);
}

static bool on_token(pal__answer *a, int32_t id, const char *text, size_t n)
{
	const struct generation *g = a->user;
	json_t *ids = json_array();
	if (id >= 0)
		ids = pal__json_append(ids, json_integer(id));
	return pal__sse_send(g->call->reply, NULL,
			     piece(a, "session.chunk", ids, pal__json_text(text, n), NULL), a->f);
}

static void read_generate(struct generation *g, pal__answer *a, pal__ask *ask, json_t **format)
{
	const pal__params p = {g->call->body, "", &g->call->f};
	a->generate.sampling = pal__param_sampling(&p, 0);
	a->generate.max_tokens =
		pal__param_int(&p, "max_tokens", 1, PAL__MAX_COUNT, PAL__DEFAULT_TOKENS);
	a->generate.stops = g->stops;
	a->generate.n_stops = pal__param_strings(&p, "stop", PAL__MAX_STOPS, g->stops);
	a->generate.resume = pal__param_bool(&p, "resume", false);
	a->generate.ignore_end = pal__param_bool(&p, "ignore_eos", false);
	int64_t logprobs = pal__param_int(&p, "logprobs", 0, PAL_MAX_LOGPROBS, -1);
	a->wants_logprobs = logprobs >= 0;
	a->generate.n_logprobs = logprobs > 0 ? (int)logprobs : 0;
	g->stream = pal__param_bool(&p, "stream", false);
	pal__ask_format(ask, &p, "response_format", format);
	pal__ask_constraint(g->call->api, ask, &a->generate.constraint, &g->call->f);
	a->wants_ids = true;
	a->job.own_eos = true;
	a->generates = true;
	if (g->stream) {
		a->on_start = on_start;
		a->on_token = on_token;
	}
}

/* The last events of a stream, or what is not streamed. */
static void reply_generated(struct generation *g, pal__answer *a)
{
	struct call *c = g->call;
	pal__fault none = {0};
	json_t *o = NULL;
	if (!c->f.err.code)
		o = piece(a, g->stream ? "session.chunk" : "session.generation",
			  g->stream ? json_array() : json_incref(a->ids),
			  pal__json_text(a->said.s, g->stream ? 0 : a->said.n),
			  pal__answer_finish(a));
	if (o)
		o = pal__json_with(o, "usage", pal__usage_completion(&g->usage));
	if (!pal__reply_begun(c->reply)) {
		finish(c, o);
		return;
	}
	if (!c->f.err.code && pal__sse_send(c->reply, NULL, o, &c->f))
		pal__sse_done(c->reply);
	if (c->f.err.code)
		pal__sse_send(c->reply, NULL, pal__fault_json(&c->f, PAL__OPENAI), &none);
	json_decref(c->body);
}

void pal__sessions_generate(const pal__http_request *r, pal__reply *reply)
{
	struct call c = begin_body(r, reply);
	struct generation g = {.call = &c};
	json_t *format = NULL;
	pal__ask ask = {0};
	pal__answer a = {
		.api = c.api, .job = {.session = r->param[0], .owner = r->owner}, .user = &g};
	read_generate(&g, &a, &ask, &format);
	if (!c.f.err.code && !pal__answer_run(&a, reply, &c.f))
		pal__answer_count(&a, &g.usage, true);
	reply_generated(&g, &a);
	pal_constraint_close(a.generate.constraint);
	pal__answer_free(&a);
	json_decref(format);
}
