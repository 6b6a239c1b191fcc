/* A service, a model and a transport for tests of the endpoints: all of them deterministic.
 *
 * The model has a token for each byte and a few special ones, and no weights. What it "generates"
 * is fake.script, whatever the prompt is. Sessions are lists of ids. A reply is kept as text.
 */
#ifndef PAL_TEST_SERVE_FAKE_H
#define PAL_TEST_SERVE_FAKE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../text/small_vocab.h"
#include "base/mem.h"
#include "model/model.h"
#include "serve/api.h"
#include "serve/json.h"
#include "serve/uri.h"

typedef struct {
	const char *script; /* what is generated */
	pal_status fails;   /* of the run; 0: it does not */
	int64_t fails_at;   /* tokens that come before it fails; -1: before anything is told */
	int64_t gone_at;    /* writes that the client takes before it goes; -1: it stays */
	/* The last job that was run. */
	char prompt[16384]; /* its ids as text, special tokens too */
	char spoken[16384]; /* without them */
	pal_sampling sampling;
	int64_t max_tokens;
	bool constrained, own_eos, resumed;
	int runs;
} fake_state;

/* What a call replied. */
typedef struct {
	int status;
	char type[64], retry_after[32];
	char *body; /* [n], NUL behind it */
	size_t n;
	bool streamed;
} fake_reply;

#define FAKE_MOST 16   /* sessions, stored values */
#define FAKE_LOG 65536 /* ids */
#define FAKE_OWNER 7

static fake_state fake;

struct fake_session {
	bool used;
	char id[PAL__ID_BYTES], label[PAL__MAX_LABEL + 1];
	int32_t log[FAKE_LOG];
	size_t n;
	uint64_t owner;
};

struct pal__service {
	pal_model model;
	struct fake_session sessions[FAKE_MOST];
	struct {
		char name[64];
		char *data;
		size_t n;
	} stored[FAKE_MOST];
	int next;
};

static struct pal__service fake_service;
static pal__api *fake_api;

/* --- the model ---------------------------------------------------------------- */

static pal__tokenizer *fake_vocabulary(void)
{
	static const char *const special[] = {"<|im_start|>", "<|endoftext|>"};
	small_vocab v;
	pal__tokenizer *t = NULL;
	small_byte_level(&v, "qwen2");
	v.spec.add_bos = v.spec.add_eos = false;
	v.spec.n_merges = 0; /* a token for each byte */
	for (size_t i = 0; i < sizeof special / sizeof *special; i++)
		small_add(&v, special[i], PAL__TOKEN_CONTROL, 0);
	if (pal__tokenizer_new(&v.spec, &t, NULL))
		abort();
	return t;
}

/* A new service, and its endpoints. */
static void fake_start(const char *family, bool any_model)
{
	static const pal__kernels kernels = {.name = "none"};
	memset(&fake_service, 0, sizeof fake_service);
	fake = (fake_state){.script = "Hello.", .fails_at = -1, .gone_at = -1};
	fake_service.model = (pal_model){.kernels = &kernels,
					 .tokenizer = fake_vocabulary(),
					 .name = (char *)"small",
					 .path = (char *)"small.gguf",
					 .chat_family = family};
	if (pal__pool_new(1, NULL, &fake_service.model.pool, NULL))
		abort();
	fake_service.model.h.n_vocab = pal__tokenizer_n_tokens(fake_service.model.tokenizer);
	fake_service.model.h.n_ctx_train = 4096;
	const pal__api_options options = {
		.service = &fake_service, .path = "models/small-1.gguf", .any_model = any_model};
	if (pal__api_new(&options, &fake_api, NULL))
		abort();
}

static void fake_stop(void)
{
	for (int i = 0; i < FAKE_MOST; i++)
		free(fake_service.stored[i].data);
	pal__tokenizer_free(fake_service.model.tokenizer);
	pal__pool_free(fake_service.model.pool);
	pal__api_free(fake_api);
}

/* --- the service -------------------------------------------------------------- */

pal_model *pal__service_model(const pal__service *v)
{
	return (pal_model *)&v->model;
}

static struct fake_session *fake_find(const char *id, uint64_t owner, pal_error *err)
{
	for (int i = 0; i < FAKE_MOST; i++)
		if (fake_service.sessions[i].used && !strcmp(fake_service.sessions[i].id, id) &&
		    fake_service.sessions[i].owner == owner)
			return &fake_service.sessions[i];
	pal__fail(err, PAL_ENOTFOUND, "no session has the id \"%.40s\"", id);
	return NULL;
}

static struct fake_session *fake_create(uint64_t owner, const char *label, pal_error *err)
{
	for (int i = 0; i < FAKE_MOST; i++) {
		struct fake_session *s = &fake_service.sessions[i];
		if (s->used)
			continue;
		s->used = true;
		s->owner = owner;
		s->n = 0;
		snprintf(s->id, sizeof s->id, "sess-%032d", ++fake_service.next);
		snprintf(s->label, sizeof s->label, "%s", label ? label : "");
		return s;
	}
	pal__fail(err, PAL_EOVERLOAD, "there are %d sessions", FAKE_MOST);
	return NULL;
}

pal_status pal__service_create(pal__service *v, const pal__create *c, char *id, pal_error *err)
{
	(void)v;
	struct fake_session *s = fake_create(c->owner, c->label, err);
	if (!s)
		return PAL_EOVERLOAD;
	strcpy(id, s->id);
	return PAL_OK;
}

static void fake_describe(const struct fake_session *s, pal__session_info *out)
{
	*out = (pal__session_info){.created = 1, .used = 2, .committed = (int64_t)s->n};
	strcpy(out->id, s->id);
	strcpy(out->label, s->label);
	out->stats.length = (int64_t)s->n;
}

pal_status pal__service_info(pal__service *v, const char *id, uint64_t owner,
			     pal__session_info *out, pal_error *err)
{
	(void)v;
	const struct fake_session *s = fake_find(id, owner, err);
	if (!s)
		return PAL_ENOTFOUND;
	fake_describe(s, out);
	return PAL_OK;
}

pal_status pal__service_delete(pal__service *v, const char *id, uint64_t owner, int64_t *length,
			       pal_error *err)
{
	(void)v;
	struct fake_session *s = fake_find(id, owner, err);
	if (!s)
		return PAL_ENOTFOUND;
	*length = (int64_t)s->n;
	s->used = false;
	return PAL_OK;
}

pal_status pal__service_fork(pal__service *v, const char *id, uint64_t owner, const char *label,
			     char *new_id, pal_error *err)
{
	(void)v;
	struct fake_session *from = fake_find(id, owner, err);
	struct fake_session *to = from ? fake_create(owner, label, err) : NULL;
	if (!to)
		return from ? PAL_EOVERLOAD : PAL_ENOTFOUND;
	memcpy(to->log, from->log, from->n * sizeof *from->log);
	to->n = from->n;
	strcpy(new_id, to->id);
	return PAL_OK;
}

pal_status pal__service_log(pal__service *v, const char *id, uint64_t owner, int32_t **ids,
			    size_t *n, pal_error *err)
{
	(void)v;
	const struct fake_session *s = fake_find(id, owner, err);
	if (!s)
		return PAL_ENOTFOUND;
	*ids = pal__alloc(s->n * sizeof **ids);
	if (!*ids)
		return pal__fail_memory(err, "ids", s->n);
	*n = s->n;
	memcpy(*ids, s->log, s->n * sizeof **ids);
	return PAL_OK;
}

pal_status pal__service_export(pal__service *v, const char *id, uint64_t owner, void **bytes,
			       size_t *n, pal_error *err)
{
	int32_t *ids = NULL;
	pal_status s = pal__service_log(v, id, owner, &ids, n, err);
	*n *= sizeof *ids;
	*bytes = ids;
	return s;
}

pal_status pal__service_import(pal__service *v, const void *bytes, size_t n, uint64_t owner,
			       char *id, pal_error *err)
{
	(void)v;
	if (n % 4 || n / 4 > FAKE_LOG)
		return pal__fail(err, PAL_EFORMAT, "no session's file");
	struct fake_session *s = fake_create(owner, NULL, err);
	if (!s)
		return PAL_EOVERLOAD;
	if (n)
		memcpy(s->log, bytes, n);
	s->n = n / 4;
	strcpy(id, s->id);
	return PAL_OK;
}

pal_status pal__service_list(pal__service *v, uint64_t owner, size_t from, pal__session_info *out,
			     size_t most, size_t *n, size_t *total, pal_error *err)
{
	(void)err;
	*n = *total = 0;
	for (int i = 0; i < FAKE_MOST; i++) {
		const struct fake_session *s = &v->sessions[i];
		if (!s->used || s->owner != owner)
			continue;
		if ((*total)++ >= from && *n < most)
			fake_describe(s, &out[(*n)++]);
	}
	return PAL_OK;
}

pal_status pal__service_memory(pal__service *v, const char *id, uint64_t owner,
			       pal__memory_view *out, pal_error *err)
{
	(void)v;
	const struct fake_session *s = fake_find(id, owner, err);
	if (!s)
		return PAL_ENOTFOUND;
	*out = (pal__memory_view){.length = (int64_t)s->n,
				  .sink = 4,
				  .window_from = 8,
				  .n_chunks = 1,
				  .chunks = {2},
				  .sources = {PAL_SOURCE_SPILL},
				  .n_events = 1,
				  .events = {{.position = 9,
					      .reread = 3,
					      .n_chunks = 1,
					      .chunks = {2},
					      .sources = {PAL_SOURCE_SPILL}}}};
	return PAL_OK;
}

/* A token of the script, as pal_generate tells it. text: those bytes of it that are told. */
static bool fake_tell(const pal_generate_options *g, int32_t id, const char *text, size_t n)
{
	const pal_logprob p = {id, -0.5f}, top[2] = {{id, -0.5f}, {'x', -1.5f}};
	if (g->on_logprobs)
		g->on_logprobs(g->user, p, top, g->n_logprobs < 2 ? g->n_logprobs : 2);
	return g->on_token(g->user, id, text, n);
}

/* Bytes of the script before the first stop string; *len: bytes of that. */
static size_t fake_script_end(const pal_generate_options *g, size_t *len)
{
	size_t end = strlen(fake.script);
	*len = 0;
	for (size_t i = 0; i < g->n_stops; i++) {
		const char *at = strstr(fake.script, g->stops[i]);
		if (at && (size_t)(at - fake.script) < end) {
			end = (size_t)(at - fake.script);
			*len = strlen(g->stops[i]);
		}
	}
	return end;
}

static pal_status fake_generate(struct fake_session *s, const pal__job *job, pal__report *r,
				pal_error *err)
{
	const pal_generate_options *g = job->generate;
	const pal__tokenizer *t = fake_service.model.tokenizer;
	int32_t *ids, end_id = 0;
	size_t n, len, cut = fake_script_end(g, &len), told = 0, n_text;
	pal__detok d;
	char text[8];
	while (!pal__token_is_end(t, end_id))
		end_id++;
	if (pal__tokenize(t, fake.script, strlen(fake.script), 0, &ids, &n, err))
		return err->code;
	pal__detok_init(&d, t, false);
	r->made.stop = PAL_STOP_LIMIT;
	for (size_t i = 0; r->made.n_tokens < (g->max_tokens ? g->max_tokens : FAKE_LOG); i++) {
		if (fake.fails && r->made.n_tokens == fake.fails_at) {
			pal__free(ids);
			return pal__fail(err, fake.fails, "it failed on purpose");
		}
		int32_t id = i < n ? ids[i] : end_id;
		n_text = 0;
		pal__detok_feed(&d, id, text, sizeof text, &n_text);
		n_text = told + n_text > cut ? cut - told : n_text;
		told += n_text;
		r->made.n_tokens++;
		s->log[s->n++ % FAKE_LOG] = id;
		if (!fake_tell(g, id, text, n_text)) {
			r->made.stop = PAL_STOP_CANCELLED;
			break;
		}
		if (id == end_id || (len && i + 1 == cut + len)) {
			r->made.stop = id == end_id ? PAL_STOP_END : PAL_STOP_STRING;
			break;
		}
	}
	pal__free(ids);
	return PAL_OK;
}

static void fake_remember(const pal__job *job)
{
	char *text = NULL;
	size_t n;
	fake.runs++;
	*fake.prompt = 0;
	if (job->n_ids && !pal_detokenize(&fake_service.model, job->ids, job->n_ids,
					  PAL_TOKENIZE_SPECIAL, &text, &n, NULL))
		snprintf(fake.prompt, sizeof fake.prompt, "%s", text);
	pal_free(text);
	text = NULL;
	*fake.spoken = 0;
	if (job->n_ids &&
	    !pal_detokenize(&fake_service.model, job->ids, job->n_ids, 0, &text, &n, NULL))
		snprintf(fake.spoken, sizeof fake.spoken, "%s", text);
	pal_free(text);
	fake.own_eos = job->own_eos;
	if (!job->generate)
		return;
	fake.sampling = job->generate->sampling;
	fake.max_tokens = job->generate->max_tokens;
	fake.constrained = job->generate->constraint != NULL;
	fake.resumed = job->generate->resume;
}

pal_status pal__service_run(pal__service *v, const pal__job *job, pal__report *report,
			    pal_error *err)
{
	(void)v;
	*report = (pal__report){.prompt_tokens = (int64_t)job->n_ids,
				.reused = (int64_t)job->n_ids / 2,
				.kv_bytes = 1000};
	fake_remember(job);
	if (fake.fails && fake.fails_at < 0) {
		report->retry_after_s = 2.5;
		return pal__fail(err, fake.fails, "it failed on purpose");
	}
	struct fake_session *s = job->session ? fake_find(job->session, job->owner, err)
					      : fake_create(job->owner, NULL, err);
	if (!s)
		return err->code;
	if (s->n + job->n_ids > FAKE_LOG / 2) {
		s->used = job->session;
		return pal__fail(err, PAL_ELIMIT, "%zu tokens: max_tokens is %d", job->n_ids,
				 FAKE_LOG / 2);
	}
	if (job->n_ids)
		memcpy(s->log + s->n, job->ids, job->n_ids * sizeof *job->ids);
	s->n += job->n_ids;
	report->length = (int64_t)s->n;
	strcpy(report->session, s->id);
	job->on_start(job->user, report);
	pal_status status = job->generate ? fake_generate(s, job, report, err) : PAL_OK;
	report->length = report->committed = (int64_t)s->n;
	s->used = job->session; /* those of histories are not kept */
	return status;
}

static int fake_stored(const char *name)
{
	int i = 0;
	while (i < FAKE_MOST && strcmp(fake_service.stored[i].name, name) != 0)
		i++;
	return i;
}

pal_status pal__service_put(pal__service *v, const char *name, uint64_t owner, const void *data,
			    size_t n, pal_error *err)
{
	int i = fake_stored(name);
	(void)owner;
	i = i < FAKE_MOST ? i : fake_stored("");
	if (i == FAKE_MOST)
		return pal__fail(err, PAL_ELIMIT, "too much is stored");
	snprintf(v->stored[i].name, sizeof v->stored[i].name, "%s", name);
	free(v->stored[i].data);
	v->stored[i].data = malloc(n + 1);
	memcpy(v->stored[i].data, data, n);
	v->stored[i].n = n;
	return PAL_OK;
}

pal_status pal__service_get(pal__service *v, const char *name, uint64_t owner, void **data,
			    size_t *n, pal_error *err)
{
	int i = fake_stored(name);
	(void)owner;
	if (i == FAKE_MOST)
		return pal__fail(err, PAL_ENOTFOUND, "nothing is stored as \"%s\"", name);
	*n = v->stored[i].n;
	*data = pal__strndup(v->stored[i].data, *n);
	return *data ? PAL_OK : pal__fail_memory(err, "data", *n);
}

pal_status pal__service_forget(pal__service *v, const char *name, uint64_t owner, pal_error *err)
{
	int i = fake_stored(name);
	(void)owner;
	if (i == FAKE_MOST)
		return pal__fail(err, PAL_ENOTFOUND, "nothing is stored as \"%s\"", name);
	*v->stored[i].name = 0;
	return PAL_OK;
}

void pal__service_get_counts(pal__service *v, pal__service_counts *out)
{
	(void)v;
	*out = (pal__service_counts){.requests = (uint64_t)fake.runs, .filled = {0, 3, 0, 0}};
}

/* --- the transport -------------------------------------------------------------- */

struct pal__reply {
	fake_reply r;
	size_t cap;
	atomic_bool gone;
	int64_t writes;
};

static struct pal__reply fake_last;

static void fake_put(const void *bytes, size_t n)
{
	if (fake_last.r.n + n + 1 > fake_last.cap) {
		fake_last.cap = 2 * (fake_last.r.n + n + 1);
		fake_last.r.body = realloc(fake_last.r.body, fake_last.cap);
	}
	if (n)
		memcpy(fake_last.r.body + fake_last.r.n, bytes, n);
	fake_last.r.n += n;
	fake_last.r.body[fake_last.r.n] = 0;
}

const char *pal__http_header(const pal__http_request *r, const char *name)
{
	(void)r;
	(void)name;
	return NULL;
}

const char *pal__http_query(const pal__http_request *r, const char *name)
{
	const pal__uri *u = r->source;
	for (int i = 0; i < u->n_args; i++)
		if (!strcmp(u->names[i], name))
			return u->values[i];
	return NULL;
}

void pal__reply_header(pal__reply *r, const char *name, const char *value)
{
	if (!strcmp(name, "Retry-After"))
		snprintf(r->r.retry_after, sizeof r->r.retry_after, "%s", value);
}

static void fake_begin(pal__reply *r, int status, const char *type)
{
	if (r->r.status)
		abort(); /* two replies to one request */
	r->r.status = status;
	snprintf(r->r.type, sizeof r->r.type, "%s", type);
}

void pal__reply_bytes(pal__reply *r, int status, const char *type, const void *bytes, size_t n)
{
	fake_begin(r, status, type);
	fake_put(bytes, n);
}

static int fake_put_json(const char *s, size_t n, void *user)
{
	(void)user;
	fake_put(s, n);
	return 0;
}

/* As the transport does: what cannot be written, memory being out, is an error. */
void pal__reply_json(pal__reply *r, int status, json_t *body)
{
	static const char out[] = "{\"error\":{\"message\":\"out of memory\"}}";
	fake_begin(r, status, "application/json");
	if (json_dump_callback(body, fake_put_json, NULL, JSON_COMPACT)) {
		r->r.status = 503;
		r->r.n = 0;
		fake_put(out, sizeof out - 1);
	}
	json_decref(body);
}

bool pal__reply_begin(pal__reply *r, int status, const char *type)
{
	fake_begin(r, status, type);
	r->r.streamed = true;
	return true;
}

bool pal__reply_write(pal__reply *r, const void *bytes, size_t n)
{
	if (fake.gone_at >= 0 && r->writes >= fake.gone_at) {
		atomic_store(&r->gone, true);
		return false;
	}
	r->writes++;
	fake_put(bytes, n);
	return true;
}

bool pal__reply_begun(const pal__reply *r)
{
	return r->r.status != 0;
}

atomic_bool *pal__reply_gone(pal__reply *r)
{
	return &r->gone;
}

static bool fake_dispatch(const char *method, const pal__uri *u, pal__http_request *r)
{
	for (const pal__route *t = pal__api_routes(fake_api); t->method; t++)
		if (!strcmp(t->method, method) && pal__uri_match(u, t->path, r->param)) {
			r->user = t->user;
			t->handler(r, &fake_last);
			return true;
		}
	return false;
}

/* Owner 7's request; target may have a query. The reply is valid until the next one. NULL: there
 * is no such route. */
static const fake_reply *fake_call(const char *method, const char *target, const char *body,
				   size_t n)
{
	pal__uri u = {0};
	pal__http_request r = {.method = method,
			       .path = target,
			       .body = body,
			       .n_body = n,
			       .owner = FAKE_OWNER,
			       .id = "r",
			       .source = &u};
	char *kept = fake_last.r.body;
	size_t cap = fake_last.cap;
	fake_last = (struct pal__reply){.r.body = kept, .cap = cap};
	fake_put("", 0);
	bool found = !pal__uri_parse(target, &u, NULL) && fake_dispatch(method, &u, &r);
	pal__uri_free(&u);
	return found ? &fake_last.r : NULL;
}

#endif
