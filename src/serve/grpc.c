#include "serve/grpc.h"

#include <assert.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/support/alloc.h>
#include <grpc/support/log.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "serve/guard.h"
#include "serve/runtime.h"
#include "serve/traffic.h"

/* Events of a call, each with a tag of its own. */
enum { ARRIVED, CLOSED, MESSAGE, SENT, ENDED, N_EVENTS };

struct tag {
	struct call *call; /* NULL: the server has shut down */
	int event;
};

/* A call lives until every operation that was started has come back, and its thread, if it was
 * given one, is done with it. Fields are the loop's, but for those of its thread, and those that
 * the lock guards. */
struct call {
	struct pal__grpc *g;
	struct call *next, *before; /* of all calls */
	struct call *next_ready;
	struct tag tags[N_EVENTS];
	grpc_call *call; /* NULL: none has come yet */
	grpc_call_details details;
	grpc_metadata_array metadata;
	grpc_byte_buffer *message;
	uint64_t owner;
	double since;  /* by pal__now: it has come */
	int cancelled; /* what CLOSED says */
	atomic_bool cancel;
	int holds;                /* operations and threads; under the lock */
	bool sending, sent, read; /* under the lock. read: its message has come */
	pthread_cond_t change;    /* of sending */
	bool begun;               /* the first headers have been sent */
	pal__rpc_end end;
	grpc_metadata trailer;
	grpc_slice text; /* of the status */
};

struct pal__grpc {
	pal__grpc_options o; /* without strings */
	pal__runtime *runtime;
	grpc_server *server;
	grpc_completion_queue *queue;
	struct tag shut;
	int port;
	pthread_t loop;
	bool looping;

	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t work, quiet;
	struct call *awaited; /* the call that comes next; NULL: memory was out */
	struct call *calls, *ready, **last_ready;
	int n_calls, n_taken, n_threads; /* open; given to threads; threads there are */
	bool stopping, is_shut, leaving;
	pthread_t threads[PAL__RPC_CALLS];
};

/* --- calls ------------------------------------------------------------------------ */

static void init_cond(pthread_cond_t *c)
{
	pthread_condattr_t a;
	pthread_condattr_init(&a);
	pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
	pthread_cond_init(c, &a);
	pthread_condattr_destroy(&a);
}

/* Waits for c, at most until `until` (by pal__now). */
static void wait_until(pthread_cond_t *c, pthread_mutex_t *lock, double until)
{
	struct timespec t = {.tv_sec = (time_t)until};
	t.tv_nsec = (long)(1e9 * (until - (double)t.tv_sec));
	pthread_cond_timedwait(c, lock, &t);
}

static struct call *call_new(pal__grpc *g)
{
	struct call *c = pal__calloc(1, sizeof *c);
	if (!c)
		return NULL;
	c->g = g;
	for (int i = 0; i < N_EVENTS; i++)
		c->tags[i] = (struct tag){c, i};
	grpc_call_details_init(&c->details);
	grpc_metadata_array_init(&c->metadata);
	c->trailer.value = c->text = grpc_empty_slice();
	init_cond(&c->change);
	return c;
}

static void call_free(struct call *c)
{
	grpc_call_details_destroy(&c->details);
	grpc_metadata_array_destroy(&c->metadata);
	grpc_byte_buffer_destroy(c->message);
	grpc_slice_unref(c->trailer.value);
	grpc_slice_unref(c->text);
	if (c->call)
		grpc_call_unref(c->call);
	pthread_cond_destroy(&c->change);
	pal__free(c);
}

/* Under the lock. */
static void release(struct call *c)
{
	pal__grpc *g = c->g;
	if (--c->holds)
		return;
	*(c->before ? &c->before->next : &g->calls) = c->next;
	if (c->next)
		c->next->before = c->before;
	if (!--g->n_calls)
		pthread_cond_broadcast(&g->quiet);
	call_free(c);
}

/* Starts operations that come back as `event`. The caller has added a hold for them, which is its
 * own again when they could not be started. */
static bool start(struct call *c, const grpc_op *ops, size_t n, int event)
{
	return grpc_call_start_batch(c->call, ops, n, &c->tags[event], NULL) == GRPC_CALL_OK;
}

/* The same from the loop, with the hold. */
static bool begin(struct call *c, const grpc_op *ops, size_t n, int event)
{
	c->holds++;
	bool good = start(c, ops, n, event);
	if (!good)
		release(c);
	return good;
}

/* The first headers, if they have not been sent: the operation, or none. */
static size_t headers(struct call *c, grpc_op *ops)
{
	size_t n = c->begun ? 0 : 1;
	c->begun = true;
	ops[0] = (grpc_op){.op = GRPC_OP_SEND_INITIAL_METADATA};
	return n;
}

static const char *code_name(grpc_status_code code)
{
	static const char *const names[] = {"OK",
					    "CANCELLED",
					    "UNKNOWN",
					    "INVALID_ARGUMENT",
					    "DEADLINE_EXCEEDED",
					    "NOT_FOUND",
					    "ALREADY_EXISTS",
					    "PERMISSION_DENIED",
					    "RESOURCE_EXHAUSTED",
					    "FAILED_PRECONDITION",
					    "ABORTED",
					    "OUT_OF_RANGE",
					    "UNIMPLEMENTED",
					    "INTERNAL",
					    "UNAVAILABLE",
					    "DATA_LOSS",
					    "UNAUTHENTICATED"};
	return names[code];
}

/* Of what is called, only what there is gets into the log. */
static void note(const struct call *c)
{
	char when[PAL__LOG_TIME], owner[20];
	const pal__grpc_options *o = &c->g->o;
	char *path = o->log ? grpc_slice_to_c_string(c->details.method) : NULL;
	if (!path)
		return;
	pal__log_time(when);
	snprintf(owner, sizeof owner, "%016llx", (unsigned long long)c->owner);
	json_t *entry = json_pack("{s:s, s:s, s:s, s:f, s:s}", "time", when, "rpc",
				  pal__runtime_has(path) ? strrchr(path, '/') + 1 : "", "code",
				  code_name(c->end.code), "ms", 1e3 * (pal__now() - c->since),
				  "owner", owner);
	if (entry)
		o->log(o->user, entry);
	json_decref(entry);
	gpr_free(path);
}

/* The operations that end the call as c->end says. ops: [2]. */
static size_t ending(struct call *c, grpc_op *ops)
{
	size_t n = headers(c, ops);
	grpc_op status = {.op = GRPC_OP_SEND_STATUS_FROM_SERVER};
	note(c);
	c->text = grpc_slice_from_copied_string(c->end.message);
	status.data.send_status_from_server.status = c->end.code;
	if (*c->end.message)
		status.data.send_status_from_server.status_details = &c->text;
	if (c->end.report) {
		c->trailer.key = grpc_slice_from_static_string("palimpsest-report");
		c->trailer.value = grpc_slice_from_copied_string(c->end.report);
		status.data.send_status_from_server.trailing_metadata = &c->trailer;
		status.data.send_status_from_server.trailing_metadata_count =
			grpc_header_nonbin_value_is_legal(c->trailer.value) ? 1 : 0;
		pal__free(c->end.report);
	}
	ops[n] = status;
	return n + 1;
}

/* Ends a call that no thread was given. */
static void refuse(struct call *c, grpc_status_code code, const char *text)
{
	grpc_op ops[2];
	c->end.code = code;
	snprintf(c->end.message, sizeof c->end.message, "%s", text);
	begin(c, ops, ending(c, ops), ENDED);
}

/* --- threads ------------------------------------------------------------------------ */

/* Waits until what is being sent has gone. A client that takes nothing for too long loses its
 * call, and then it comes back. Under the lock. */
static void await_sent(struct call *c)
{
	double until = pal__now() + PAL__RPC_SEND_S;
	while (c->sending && pal__now() < until)
		wait_until(&c->change, &c->g->lock, until);
	if (c->sending)
		grpc_call_cancel(c->call, NULL);
	while (c->sending)
		pthread_cond_wait(&c->change, &c->g->lock);
}

/* pal__rpc's send. */
static bool send_message(void *user, const uint8_t *bytes, size_t n)
{
	struct call *c = user;
	grpc_slice slice = grpc_slice_from_copied_buffer((const char *)bytes, n);
	grpc_byte_buffer *buffer = grpc_raw_byte_buffer_create(&slice, 1);
	grpc_op ops[2];
	size_t n_ops = headers(c, ops);
	ops[n_ops] = (grpc_op){.op = GRPC_OP_SEND_MESSAGE};
	ops[n_ops].data.send_message.send_message = buffer;
	pthread_mutex_lock(&c->g->lock);
	c->sending = true;
	c->holds++;
	pthread_mutex_unlock(&c->g->lock);
	bool good = start(c, ops, n_ops + 1, SENT);
	pthread_mutex_lock(&c->g->lock);
	if (good) {
		await_sent(c);
	} else {
		c->sending = false;
		c->holds--; /* never the last: this thread has one */
	}
	good = good && c->sent;
	pthread_mutex_unlock(&c->g->lock);
	grpc_byte_buffer_destroy(buffer);
	grpc_slice_unref(slice);
	return good && !atomic_load(&c->cancel);
}

static void run(struct call *c)
{
	grpc_byte_buffer_reader reader;
	char *path = grpc_slice_to_c_string(c->details.method);
	if (grpc_byte_buffer_reader_init(&reader, c->message)) {
		grpc_slice request = grpc_byte_buffer_reader_readall(&reader);
		grpc_byte_buffer_reader_destroy(&reader);
		pal__rpc rpc = {.path = path,
				.request = GRPC_SLICE_START_PTR(request),
				.n_request = GRPC_SLICE_LENGTH(request),
				.owner = c->owner,
				.cancel = &c->cancel,
				.send = send_message,
				.user = c};
		pal__runtime_run(c->g->runtime, &rpc, &c->end);
		grpc_slice_unref(request);
	} else {
		c->end.code = GRPC_STATUS_INVALID_ARGUMENT;
	}
	gpr_free(path);
}

/* Runs a call to its end, and hands it back. */
static void serve(struct call *c)
{
	pal__grpc *g = c->g;
	grpc_op ops[2];
	run(c);
	size_t n = ending(c, ops);
	pthread_mutex_lock(&g->lock);
	c->holds++;
	pthread_mutex_unlock(&g->lock);
	bool good = start(c, ops, n, ENDED);
	pthread_mutex_lock(&g->lock);
	g->n_taken--;
	c->holds -= good ? 0 : 1;
	release(c);
	pthread_mutex_unlock(&g->lock);
}

static void *work(void *arg)
{
	pal__grpc *g = arg;
	pthread_mutex_lock(&g->lock);
	for (;;) {
		while (!g->ready && !g->leaving)
			pthread_cond_wait(&g->work, &g->lock);
		struct call *c = g->ready;
		if (!c)
			break;
		g->ready = c->next_ready;
		if (!g->ready)
			g->last_ready = &g->ready;
		pthread_mutex_unlock(&g->lock);
		serve(c);
		pthread_mutex_lock(&g->lock);
	}
	pthread_mutex_unlock(&g->lock);
	return NULL;
}

/* Gives the call to a thread, a new one when all have something to do. */
static void hand_over(struct call *c)
{
	pal__grpc *g = c->g;
	if (g->n_taken == g->n_threads && g->n_threads < PAL__RPC_CALLS &&
	    !pthread_create(&g->threads[g->n_threads], NULL, work, g))
		g->n_threads++;
	if (g->n_taken == g->n_threads) {
		refuse(c, GRPC_STATUS_RESOURCE_EXHAUSTED,
		       "too many calls at once: try again in a moment");
		return;
	}
	c->holds++;
	g->n_taken++;
	*g->last_ready = c;
	g->last_ready = &c->next_ready;
	pthread_cond_signal(&g->work);
}

/* --- events, all under the lock ------------------------------------------------------- */

/* Asks for the next call. */
static void await_call(pal__grpc *g)
{
	struct call *c = g->awaited = g->stopping ? NULL : call_new(g);
	if (c && grpc_server_request_call(g->server, &c->call, &c->details, &c->metadata, g->queue,
					  g->queue, &c->tags[ARRIVED]) != GRPC_CALL_OK) {
		call_free(c);
		g->awaited = NULL;
	}
}

static bool may_call(struct call *c)
{
	static const char scheme[] = "Bearer ";
	const pal__grpc *g = c->g;
	char key[1024] = "";
	for (size_t i = 0; i < c->metadata.count; i++) {
		const grpc_metadata *m = &c->metadata.metadata[i];
		size_t n = GRPC_SLICE_LENGTH(m->value), skip = sizeof scheme - 1;
		const char *value = (const char *)GRPC_SLICE_START_PTR(m->value);
		if (grpc_slice_str_cmp(m->key, "authorization") == 0 && n >= skip &&
		    n - skip < sizeof key && !strncasecmp(value, scheme, skip))
			snprintf(key, sizeof key, "%.*s", (int)(n - skip), value + skip);
	}
	return !g->o.key || g->o.key(g->o.keys, key, &c->owner);
}

static void arrived(struct call *c)
{
	pal__grpc *g = c->g;
	grpc_op close = {.op = GRPC_OP_RECV_CLOSE_ON_SERVER},
		receive = {.op = GRPC_OP_RECV_MESSAGE};
	char *path = grpc_slice_to_c_string(c->details.method);
	c->since = pal__now();
	c->next = g->calls;
	if (c->next)
		c->next->before = c;
	g->calls = c;
	g->n_calls++;
	c->holds++; /* as long as this function looks at it */
	close.data.recv_close_on_server.cancelled = &c->cancelled;
	receive.data.recv_message.recv_message = &c->message;
	begin(c, &close, 1, CLOSED);
	if (!pal__runtime_has(path))
		refuse(c, GRPC_STATUS_UNIMPLEMENTED, "there is no such call");
	else if (!may_call(c))
		refuse(c, GRPC_STATUS_UNAUTHENTICATED,
		       "a key is needed (authorization: Bearer KEY)");
	else if (g->n_calls > PAL__RPC_OPEN)
		refuse(c, GRPC_STATUS_RESOURCE_EXHAUSTED,
		       "too many calls are open: try again in a moment");
	else
		begin(c, &receive, 1, MESSAGE);
	gpr_free(path);
	release(c);
}

static void on_event(pal__grpc *g, struct call *c, int event, bool success)
{
	switch (event) {
	case ARRIVED:
		await_call(g);
		if (success)
			arrived(c);
		else
			call_free(c);
		return;
	case CLOSED:
		if (c->cancelled)
			atomic_store(&c->cancel, true);
		break;
	case MESSAGE:
		c->read = true;
		if (success && c->message)
			hand_over(c);
		else
			refuse(c, GRPC_STATUS_INVALID_ARGUMENT, "there is no message");
		break;
	case SENT:
		c->sending = false;
		c->sent = success;
		pthread_cond_signal(&c->change);
		break;
	}
	release(c);
}

/* Now and then. */
static void look_round(pal__grpc *g)
{
	double now = pal__now();
	if (!g->awaited)
		await_call(g);
	for (struct call *c = g->calls; c; c = c->next)
		if (!c->read && now - c->since > PAL__RPC_ARRIVE_S)
			grpc_call_cancel_with_status(c->call, GRPC_STATUS_DEADLINE_EXCEEDED,
						     "no message came", NULL);
}

static void *loop(void *arg)
{
	pal__grpc *g = arg;
	double next = pal__now() + 1;
	for (;;) {
		gpr_timespec until = gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
						  gpr_time_from_seconds(1, GPR_TIMESPAN));
		grpc_event e = grpc_completion_queue_next(g->queue, until, NULL);
		const struct tag *tag = e.tag;
		if (e.type == GRPC_QUEUE_SHUTDOWN)
			return NULL;
		pthread_mutex_lock(&g->lock);
		if (e.type == GRPC_OP_COMPLETE && tag->call) {
			on_event(g, tag->call, tag->event, e.success);
		} else if (e.type == GRPC_OP_COMPLETE) {
			g->is_shut = true;
			pthread_cond_broadcast(&g->quiet);
		}
		if (pal__now() >= next) {
			look_round(g);
			next = pal__now() + 1;
		}
		pthread_mutex_unlock(&g->lock);
	}
}

/* --- starting and stopping -------------------------------------------------------------- */

/* What the core has to say is about connections, and for developers of the core. */
static void silent(gpr_log_func_args *args)
{
	(void)args;
}

/* Whether host is this machine alone, by all of its addresses. */
static bool is_loopback(const char *host)
{
	struct addrinfo *found = NULL;
	bool is = !getaddrinfo(host, NULL, NULL, &found) && found;
	for (const struct addrinfo *a = found; a; a = a->ai_next)
		is = is && pal__address_loopback(a->ai_addr);
	if (found)
		freeaddrinfo(found);
	return is;
}

static pal_status check(const pal__grpc_options *o, const char *host, pal_error *err)
{
	if (o->port < 0 || o->port > 65535)
		return pal__fail(err, PAL_EINVAL, "port %d: must be 0 (any) to 65535", o->port);
	if (!o->tls_cert != !o->tls_key)
		return pal__fail(err, PAL_EINVAL, "TLS needs both a certificate and its key");
	if (!is_loopback(host) && !o->key && !o->anyone)
		return pal__fail(err, PAL_EINVAL,
				 "%s is not this machine alone: that needs keys, or to be told "
				 "that anyone may call",
				 host);
	return PAL_OK;
}

/* A file as a string. */
static pal_status read_text(const char *path, char **out, pal_error *err)
{
	pal__file f = {0};
	pal_status status = pal__file_map(path, &f, err);
	if (status)
		return status;
	*out = pal__strndup((const char *)f.data, f.size);
	pal__file_unmap(&f);
	return *out ? PAL_OK : pal__fail_memory(err, path, f.size);
}

static pal_status credentials(const pal__grpc_options *o, grpc_server_credentials **out,
			      pal_error *err)
{
	char *cert = NULL, *key = NULL;
	pal_status status = PAL_OK;
	if (!o->tls_cert) {
		*out = grpc_insecure_server_credentials_create();
		return PAL_OK;
	}
	status = read_text(o->tls_cert, &cert, err);
	if (!status)
		status = read_text(o->tls_key, &key, err);
	if (!status) {
		grpc_ssl_pem_key_cert_pair pair = {.private_key = key, .cert_chain = cert};
		*out = grpc_ssl_server_credentials_create_ex(
			NULL, &pair, 1, GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE, NULL);
		if (!*out)
			status = pal__fail(err, PAL_EINVAL, "%s, %s: no certificate and its key",
					   o->tls_cert, o->tls_key);
	}
	pal__free(cert);
	pal__free(key);
	return status;
}

static grpc_server *make_server(void)
{
	grpc_resource_quota *quota = grpc_resource_quota_create("palimpsest");
	const struct {
		const char *key;
		int value;
	} numbers[] = {
		{GRPC_ARG_ALLOW_REUSEPORT, 0}, /* else two servers could share a port unseen */
		{GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, PAL__RPC_MESSAGE},
		{GRPC_ARG_MAX_METADATA_SIZE, PAL__RPC_METADATA},
		{GRPC_ARG_MAX_CONCURRENT_STREAMS, PAL__RPC_CALLS},
		{GRPC_ARG_MAX_CONNECTION_IDLE_MS, 1000 * PAL__RPC_IDLE_S},
		{GRPC_ARG_KEEPALIVE_TIME_MS, 1000 * PAL__RPC_ALIVE_S},
		{GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, 1000 * PAL__RPC_ARRIVE_S},
		/* A small message could become any amount of memory: none is taken compressed. */
		{GRPC_COMPRESSION_CHANNEL_ENABLED_ALGORITHMS_BITSET, 1 << GRPC_COMPRESS_NONE},
		{GRPC_ARG_ENABLE_CHANNELZ, 0},
		{GRPC_ARG_ENABLE_HTTP_PROXY, 0},
	};
	enum { N = sizeof numbers / sizeof *numbers };
	grpc_arg args[N + 1];
	grpc_channel_args all = {N + 1, args};
	for (int i = 0; i < N; i++) {
		args[i] = (grpc_arg){.type = GRPC_ARG_INTEGER, .key = (char *)numbers[i].key};
		args[i].value.integer = numbers[i].value;
	}
	grpc_resource_quota_resize(quota, PAL__RPC_BUFFERS);
	args[N] = (grpc_arg){.type = GRPC_ARG_POINTER, .key = (char *)GRPC_ARG_RESOURCE_QUOTA};
	args[N].value.pointer.p = quota;
	args[N].value.pointer.vtable = grpc_resource_quota_arg_vtable();
	grpc_server *server = grpc_server_create(&all, NULL);
	grpc_resource_quota_unref(quota);
	return server;
}

static pal_status listen_at(pal__grpc *g, const pal__grpc_options *o, const char *host,
			    pal_error *err)
{
	grpc_server_credentials *creds = NULL;
	char address[300];
	pal_status status = credentials(o, &creds, err);
	if (status)
		return status;
	snprintf(address, sizeof address, strchr(host, ':') ? "[%s]:%d" : "%s:%d", host, o->port);
	g->port = grpc_server_add_http2_port(g->server, address, creds);
	grpc_server_credentials_release(creds);
	if (!g->port)
		return pal__fail(err, PAL_EIO, "%s: cannot listen here: %s", address,
				 o->tls_cert ? "it is taken, or no address of this machine, or "
					       "certificate and key do not go together"
					     : "it is taken, or no address of this machine");
	grpc_server_start(g->server);
	return PAL_OK;
}

/* What ends a program is for its own threads, not for ours and the core's, which are born now and
 * inherit this. before: what to go back to. */
static void block_signals(sigset_t *before)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &set, before);
}

/* g is zeroed but for its locks. On failure it is for pal__grpc_stop. */
static pal_status start_server(pal__grpc *g, pal__service *service, const pal__grpc_options *o,
			       const char *host, pal_error *err)
{
	grpc_init();
	g->queue = grpc_completion_queue_create_for_next(NULL);
	g->server = make_server();
	grpc_server_register_completion_queue(g->server, g->queue, NULL);
	pal_status status = pal__runtime_open(service, &g->runtime, err);
	if (!status)
		status = listen_at(g, o, host, err);
	if (!status && pthread_create(&g->loop, NULL, loop, g))
		status = pal__fail(err, PAL_EIO, "no thread could be made for gRPC");
	g->looping = !status;
	return status;
}

pal_status pal__grpc_start(pal__service *service, const pal__grpc_options *options, pal__grpc **out,
			   pal_error *err)
{
	const char *host = options->host ? options->host : "127.0.0.1";
	pal_status status = check(options, host, err);
	pal__grpc *g = status ? NULL : pal__calloc(1, sizeof *g);
	if (!g)
		return status ? status : pal__fail_memory(err, "the gRPC server", sizeof *g);
	g->o = *options;
	g->last_ready = &g->ready;
	pthread_mutex_init(&g->lock, NULL);
	init_cond(&g->work);
	init_cond(&g->quiet);
	if (!getenv("GRPC_VERBOSITY"))
		gpr_set_log_function(silent);
	sigset_t before;
	block_signals(&before);
	status = start_server(g, service, options, host, err);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (status) {
		pal__grpc_stop(g, 0);
		return status;
	}
	pthread_mutex_lock(&g->lock);
	await_call(g);
	pthread_mutex_unlock(&g->lock);
	*out = g;
	return PAL_OK;
}

int pal__grpc_port(const pal__grpc *g)
{
	return g->port;
}

/* Under the lock. */
static void await_quiet(pal__grpc *g, double seconds)
{
	double until = pal__now() + seconds;
	while (g->calls && pal__now() < until)
		wait_until(&g->quiet, &g->lock, until);
}

/* No call is there any more afterwards, and none comes. */
static void end_calls(pal__grpc *g, double wait_s)
{
	pthread_mutex_lock(&g->lock);
	g->stopping = true;
	pthread_mutex_unlock(&g->lock);
	grpc_server_shutdown_and_notify(g->server, g->queue, &g->shut);
	pthread_mutex_lock(&g->lock);
	await_quiet(g, wait_s);
	for (struct call *c = g->calls; c; c = c->next)
		atomic_store(&c->cancel, true);
	await_quiet(g, PAL__RPC_STOP_S);
	pthread_mutex_unlock(&g->lock);
	grpc_server_cancel_all_calls(g->server);
	pthread_mutex_lock(&g->lock);
	while (g->looping && (g->calls || !g->is_shut))
		pthread_cond_wait(&g->quiet, &g->lock);
	g->leaving = true;
	pthread_cond_broadcast(&g->work);
	pthread_mutex_unlock(&g->lock);
	for (int i = 0; i < g->n_threads; i++)
		pthread_join(g->threads[i], NULL);
}

void pal__grpc_stop(pal__grpc *g, double wait_s)
{
	if (!g)
		return;
	end_calls(g, wait_s);
	grpc_completion_queue_shutdown(g->queue);
	if (g->looping)
		pthread_join(g->loop, NULL);
	else
		loop(g); /* it never began: what is left in the queue is taken here */
	grpc_server_destroy(g->server);
	grpc_completion_queue_destroy(g->queue);
	grpc_shutdown();
	pal__runtime_close(g->runtime);
	pthread_cond_destroy(&g->work);
	pthread_cond_destroy(&g->quiet);
	pthread_mutex_destroy(&g->lock);
	pal__free(g);
}
