#include "serve/runtime.h"

#include <assert.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"
#include "serve/report.h"
#include <serve/runtime.pb-c.h>

#define REPLY_BYTES 128 /* of any message that is sent */

struct broken {
	char id[PAL__ID_BYTES];
	uint64_t inv1, inv2;
};

struct pal__runtime {
	pal__service *service;
	pthread_mutex_t lock; /* of broken */
	struct broken broken[PAL__RPC_BROKEN];
	size_t n_broken; /* so far: the newest is number (n_broken - 1) % PAL__RPC_BROKEN */
};

struct call {
	pal__runtime *r;
	const pal__rpc *rpc;
	pal__rpc_end *end;
	pal__report report; /* once `ran` */
	bool ran;
};

pal_status pal__runtime_open(pal__service *service, pal__runtime **out, pal_error *err)
{
	pal__runtime *r = pal__calloc(1, sizeof *r);
	if (!r)
		return pal__fail_memory(err, "the runtime service", sizeof *r);
	r->service = service;
	pthread_mutex_init(&r->lock, NULL);
	*out = r;
	return PAL_OK;
}

void pal__runtime_close(pal__runtime *r)
{
	if (!r)
		return;
	pthread_mutex_destroy(&r->lock);
	pal__free(r);
}

/* --- replies ---------------------------------------------------------------- */

__attribute__((format(printf, 3, 4))) static void finish(struct call *c, grpc_status_code code,
							 const char *fmt, ...)
{
	va_list args;
	c->end->code = code;
	va_start(args, fmt);
	vsnprintf(c->end->message, sizeof c->end->message, fmt, args);
	va_end(args);
}

static grpc_status_code code_of(pal_status status)
{
	switch (status) {
	case PAL_OK:
		return GRPC_STATUS_OK;
	case PAL_EINVAL:
		return GRPC_STATUS_INVALID_ARGUMENT;
	case PAL_ENOMEM:
	case PAL_ELIMIT:
	case PAL_EOVERLOAD:
		return GRPC_STATUS_RESOURCE_EXHAUSTED;
	case PAL_ECANCELLED:
		return GRPC_STATUS_CANCELLED;
	case PAL_ENOTFOUND:
		return GRPC_STATUS_NOT_FOUND;
	case PAL_EBUSY:
		return GRPC_STATUS_ABORTED;
	case PAL_EFORMAT:
		return GRPC_STATUS_DATA_LOSS;
	case PAL_EUNSUPPORTED:
		return GRPC_STATUS_UNIMPLEMENTED;
	case PAL_EIO:
		break;
	}
	return GRPC_STATUS_INTERNAL;
}

static void fail(struct call *c, const pal_error *err)
{
	if (err->code == PAL_EOVERLOAD && c->report.retry_after_s > 0)
		finish(c, code_of(err->code), "%s (try again in %.0f s)", err->text,
		       ceil(c->report.retry_after_s));
	else
		finish(c, code_of(err->code), "%s", err->text);
}

static bool reply(struct call *c, const ProtobufCMessage *message)
{
	uint8_t bytes[REPLY_BYTES];
	size_t n = protobuf_c_message_get_packed_size(message);
	assert(n <= sizeof bytes);
	protobuf_c_message_pack(message, bytes);
	return c->rpc->send(c->rpc->user, bytes, n);
}

/* The only message of a reply. */
static void answer(struct call *c, const ProtobufCMessage *message)
{
	if (!reply(c, message))
		finish(c, GRPC_STATUS_CANCELLED, "the client has gone");
}

/* --- sessions ----------------------------------------------------------------- */

/* A session's violations, counted up by what is added. */
static struct broken violations(pal__runtime *r, const char *id, int inv1, int inv2)
{
	struct broken out = {0}, *b = NULL;
	pthread_mutex_lock(&r->lock);
	for (size_t i = 0; i < PAL__RPC_BROKEN && i < r->n_broken && !b; i++)
		b = strcmp(r->broken[i].id, id) ? NULL : &r->broken[i];
	if (!b && (inv1 || inv2)) {
		b = &r->broken[r->n_broken++ % PAL__RPC_BROKEN];
		*b = (struct broken){0};
		snprintf(b->id, sizeof b->id, "%s", id);
	}
	if (b) {
		b->inv1 += (uint64_t)inv1;
		b->inv2 += (uint64_t)inv2;
		out = *b;
	}
	pthread_mutex_unlock(&r->lock);
	return out;
}

/* What must hold now that `added` tokens have joined the session. Where another request came in
 * between, as the number of turns tells, the length says nothing. */
static void check(struct call *c, const pal__session_info *before, int64_t added)
{
	pal__session_info now = {0};
	if (pal__service_info(c->r->service, before->id, c->rpc->owner, &now, NULL))
		return; /* deleted by now */
	int64_t length = before->stats.length + added;
	bool inv1 = now.budget_positions && now.stats.resident > now.budget_positions;
	bool inv2 = now.turns == before->turns + 1 && now.stats.length != length;
	if (!inv1 && !inv2)
		return;
	violations(c->r, before->id, inv1, inv2);
	finish(c, GRPC_STATUS_FAILED_PRECONDITION,
	       "%s: %lld positions are resident (at most %lld may be), and its history has %lld "
	       "tokens (%lld had been put into it)",
	       before->id, (long long)now.stats.resident, (long long)now.budget_positions,
	       (long long)now.stats.length, (long long)length);
}

static bool find(struct call *c, const char *id, pal__session_info *out)
{
	pal_error err = {0};
	if (strlen(id) >= PAL__ID_BYTES)
		pal__fail(&err, PAL_ENOTFOUND, "there is no such session");
	else
		pal__service_info(c->r->service, id, c->rpc->owner, out, &err);
	if (err.code)
		fail(c, &err);
	return !err.code;
}

static bool run(struct call *c, pal__job *job, pal_error *err)
{
	job->owner = c->rpc->owner;
	job->cancel = c->rpc->cancel;
	job->own_eos = true;
	c->ran = true;
	if (!pal__service_run(c->r->service, job, &c->report, err))
		return true;
	fail(c, err);
	return false;
}

/* ids[n] of a message as ids of tokens. NULL: one can be none. */
static const int32_t *tokens(struct call *c, const uint32_t *ids, size_t n)
{
	static const int32_t none;
	for (size_t i = 0; i < n; i++)
		if (ids[i] > INT32_MAX) {
			finish(c, GRPC_STATUS_INVALID_ARGUMENT,
			       "token id %zu, %u, is outside the vocabulary", i + 1, ids[i]);
			return NULL;
		}
	return n ? (const int32_t *)ids : &none;
}

static void create_session(struct call *c, const void *message)
{
	const Kakeya__V1__CreateSessionRequest *q = message;
	Kakeya__V1__CreateSessionResponse a = KAKEYA__V1__CREATE_SESSION_RESPONSE__INIT;
	pal__create create = {.label = *q->client_label ? q->client_label : NULL,
			      .owner = c->rpc->owner,
			      .n_eos = (int)q->n_eos_token_ids};
	char id[PAL__ID_BYTES];
	pal_error err = {0};
	const int32_t *eos = tokens(c, q->eos_token_ids, q->n_eos_token_ids);
	if (!eos)
		return;
	if (q->n_eos_token_ids > PAL__MAX_EOS) {
		finish(c, GRPC_STATUS_INVALID_ARGUMENT,
		       "%zu end-of-sequence tokens: at most %d are possible", q->n_eos_token_ids,
		       PAL__MAX_EOS);
		return;
	}
	memcpy(create.eos, eos, q->n_eos_token_ids * sizeof *eos);
	if (pal__service_create(c->r->service, &create, id, &err)) {
		fail(c, &err);
		return;
	}
	a.session_id = id;
	answer(c, &a.base);
}

static void append_tokens(struct call *c, const void *message)
{
	const Kakeya__V1__AppendTokensRequest *q = message;
	Kakeya__V1__AppendTokensResponse a = KAKEYA__V1__APPEND_TOKENS_RESPONSE__INIT;
	pal__session_info info = {0};
	pal_error err = {0};
	pal__job job = {.session = q->session_id, .n_ids = q->n_token_ids};
	job.ids = tokens(c, q->token_ids, q->n_token_ids);
	if (!job.ids || !find(c, q->session_id, &info))
		return;
	a.history_length = (uint64_t)info.stats.length;
	if (job.n_ids) {
		if (!run(c, &job, &err))
			return;
		check(c, &info, (int64_t)job.n_ids);
		a.history_length = (uint64_t)c->report.length;
	} else if (info.busy) {
		pal__fail(&err, PAL_EBUSY, "%s: another request is under way", info.id);
		fail(c, &err);
	}
	if (!c->end->code)
		answer(c, &a.base);
}

static void close_session(struct call *c, const void *message)
{
	const Kakeya__V1__CloseSessionRequest *q = message;
	Kakeya__V1__CloseSessionResponse a = KAKEYA__V1__CLOSE_SESSION_RESPONSE__INIT;
	pal__session_info info = {0};
	pal_error err = {0};
	int64_t length = 0;
	if (!find(c, q->session_id, &info))
		return;
	if (pal__service_delete(c->r->service, q->session_id, c->rpc->owner, &length, &err)) {
		fail(c, &err);
		return;
	}
	a.final_history_length = (uint64_t)length;
	answer(c, &a.base);
}

static void get_session_info(struct call *c, const void *message)
{
	const Kakeya__V1__GetSessionInfoRequest *q = message;
	Kakeya__V1__GetSessionInfoResponse a = KAKEYA__V1__GET_SESSION_INFO_RESPONSE__INIT;
	pal__session_info info = {0};
	struct timespec now;
	if (!find(c, q->session_id, &info))
		return;
	struct broken b = violations(c->r, info.id, 0, 0);
	clock_gettime(CLOCK_REALTIME, &now);
	double idle = (double)now.tv_sec + 1e-9 * (double)now.tv_nsec - info.used;
	a.history_length = (uint64_t)info.stats.length;
	a.kv_live_bytes = info.stats.length ? info.stats.kv_bytes : 0;
	a.cache_invariant_inv1_violations = b.inv1;
	a.cache_invariant_inv2_violations = b.inv2;
	a.idle_seconds = info.busy || idle < 0 ? 0 : idle;
	answer(c, &a.base);
}

/* --- generation ----------------------------------------------------------------- */

struct stream {
	struct call *c;
	uint32_t n;          /* tokens so far */
	double start, began; /* by pal__now; began: 0 before generation has */
};

static void began(void *user, const pal__report *report)
{
	struct stream *s = user;
	(void)report;
	s->began = pal__now();
}

static bool token(void *user, int32_t id, const char *text, size_t n_text)
{
	struct stream *s = user;
	Kakeya__V1__GenerateResponse a = KAKEYA__V1__GENERATE_RESPONSE__INIT;
	(void)text, (void)n_text;
	if (id < 0)
		return true; /* text alone, which is not of this wire */
	s->n++;
	a.payload_case = KAKEYA__V1__GENERATE_RESPONSE__PAYLOAD_TOKEN_ID;
	a.token_id = (uint32_t)id;
	return reply(s->c, &a.base);
}

static void done(const struct stream *s, Kakeya__V1__GenerateDone__StopReason reason)
{
	Kakeya__V1__GenerateResponse a = KAKEYA__V1__GENERATE_RESPONSE__INIT;
	Kakeya__V1__GenerateDone d = KAKEYA__V1__GENERATE_DONE__INIT;
	double now = pal__now();
	d.stop_reason = reason;
	d.generated_token_count = s->n;
	d.total_duration_seconds = now - s->start;
	d.prefill_duration_seconds =
		fmax((s->began ? s->began : now) - s->start - s->c->report.queue_s, 0);
	a.payload_case = KAKEYA__V1__GENERATE_RESPONSE__PAYLOAD_DONE;
	a.done = &d;
	answer(s->c, &a.base);
}

static pal_sampling sampling_of(const Kakeya__V1__GenerateRequest *q)
{
	pal_sampling s = pal_sampling_default();
	if (q->given_seed_case)
		s.seed = q->seed;
	if (q->given_temperature_case)
		s.temperature = q->temperature;
	if (q->given_top_p_case)
		s.top_p = q->top_p;
	if (q->given_top_k_case)
		s.top_k = q->top_k > INT32_MAX ? INT32_MAX : (int32_t)q->top_k;
	return s;
}

static void ended(struct stream *s, uint32_t max_tokens)
{
	struct call *c = s->c;
	pal_stop stop = c->report.made.stop;
	if (stop == PAL_STOP_CANCELLED || c->end->code == GRPC_STATUS_CANCELLED) {
		done(s, KAKEYA__V1__GENERATE_DONE__STOP_REASON__STOP_REASON_CANCELLED);
		finish(c, GRPC_STATUS_CANCELLED, "cancelled after %u tokens", s->n);
	} else if (stop == PAL_STOP_END) {
		done(s, KAKEYA__V1__GENERATE_DONE__STOP_REASON__STOP_REASON_EOS);
	} else if (s->n >= max_tokens) {
		done(s, KAKEYA__V1__GENERATE_DONE__STOP_REASON__STOP_REASON_MAX_TOKENS);
	} else {
		finish(c, GRPC_STATUS_RESOURCE_EXHAUSTED,
		       "the session is full: %u of %u tokens were generated", s->n, max_tokens);
	}
}

static void generate(struct call *c, const void *message)
{
	const Kakeya__V1__GenerateRequest *q = message;
	struct stream s = {.c = c, .start = pal__now()};
	pal_generate_options options = {.sampling = sampling_of(q),
					.max_tokens = q->max_tokens,
					.on_token = token,
					.user = &s};
	pal__job job = {
		.session = q->session_id, .generate = &options, .on_start = began, .user = &s};
	pal__session_info info = {0};
	pal_error err = {0};
	if (!find(c, q->session_id, &info))
		return;
	if (q->max_tokens < 1) {
		finish(c, GRPC_STATUS_INVALID_ARGUMENT, "max_tokens 0: must be 1 or more");
		return;
	}
	bool good = run(c, &job, &err);
	if (!good && err.code != PAL_ECANCELLED)
		return;
	check(c, &info, s.n);
	if (c->end->code != GRPC_STATUS_FAILED_PRECONDITION)
		ended(&s, q->max_tokens);
}

/* --- calls -------------------------------------------------------------------------- */

static const struct method {
	const char *path;
	const ProtobufCMessageDescriptor *request;
	void (*run)(struct call *c, const void *message);
} methods[] = {
	{"/kakeya.v1.RuntimeService/CreateSession", &kakeya__v1__create_session_request__descriptor,
	 create_session},
	{"/kakeya.v1.RuntimeService/AppendTokens", &kakeya__v1__append_tokens_request__descriptor,
	 append_tokens},
	{"/kakeya.v1.RuntimeService/Generate", &kakeya__v1__generate_request__descriptor, generate},
	{"/kakeya.v1.RuntimeService/CloseSession", &kakeya__v1__close_session_request__descriptor,
	 close_session},
	{"/kakeya.v1.RuntimeService/GetSessionInfo",
	 &kakeya__v1__get_session_info_request__descriptor, get_session_info},
};

static const struct method *method_of(const char *path)
{
	for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
		if (!strcmp(methods[i].path, path))
			return &methods[i];
	return NULL;
}

bool pal__runtime_has(const char *path)
{
	return method_of(path) != NULL;
}

/* What a message may take: fields that are repeated one by one cost 20 times their bytes. */
struct allowance {
	size_t left; /* bytes */
	bool refused;
};

static void *allowed(void *data, size_t size)
{
	struct allowance *a = data;
	void *p = size <= a->left ? pal__alloc(size) : NULL;
	a->left -= p ? size : 0;
	a->refused |= !p;
	return p;
}

static void give_back(void *data, void *p)
{
	(void)data;
	pal__free(p);
}

static void take_report(struct call *c)
{
	char *text = NULL;
	json_t *o = pal__report_json(&c->report);
	size_t n = o ? json_dumpb(o, NULL, 0, JSON_COMPACT | JSON_ENSURE_ASCII) : 0;
	if (n && (text = pal__alloc(n + 1))) {
		json_dumpb(o, text, n, JSON_COMPACT | JSON_ENSURE_ASCII);
		text[n] = 0;
	}
	json_decref(o);
	c->end->report = text;
}

void pal__runtime_run(pal__runtime *r, const pal__rpc *rpc, pal__rpc_end *end)
{
	struct call c = {.r = r, .rpc = rpc, .end = end};
	struct allowance allowance = {.left = PAL__RPC_UNPACK};
	ProtobufCAllocator allocator = {allowed, give_back, &allowance};
	const struct method *m = method_of(rpc->path);
	*end = (pal__rpc_end){0};
	if (!m) {
		finish(&c, GRPC_STATUS_UNIMPLEMENTED, "%.200s: there is no such call", rpc->path);
		return;
	}
	ProtobufCMessage *message =
		protobuf_c_message_unpack(m->request, &allocator, rpc->n_request, rpc->request);
	if (!message && allowance.refused) {
		finish(&c, GRPC_STATUS_RESOURCE_EXHAUSTED, "the message takes too much memory");
	} else if (!message) {
		finish(&c, GRPC_STATUS_INVALID_ARGUMENT, "the message is no %s",
		       m->request->short_name);
	} else {
		m->run(&c, message);
		if (c.ran)
			take_report(&c);
		protobuf_c_message_free_unpacked(message, &allocator);
	}
}
