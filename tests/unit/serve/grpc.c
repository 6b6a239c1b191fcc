/* gRPC as a client of the gRPC core sees it, over a service that is played. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/support/alloc.h>

#include "base/mem.h"
#include "played_service.h"
#include "serve/grpc.h"
#include "serve/runtime.h"
#include <serve/runtime.pb-c.h>

#define PATH "/kakeya.v1.RuntimeService/"

static pal__grpc *server;
static grpc_channel *channel;
static grpc_completion_queue *queue;

/* One call, and what came back of it. */
static struct {
	grpc_call *call;
	grpc_status_code status;
	grpc_slice text;
	grpc_metadata_array first, last;
	int messages;
	uint8_t bytes[256]; /* [n] of the last message */
	size_t n;
} got;

static bool checks_key(const void *keys, const char *key, uint64_t *owner)
{
	*owner = 7;
	return !strcmp(keys, key);
}

/* The last entry of the log. */
static struct {
	pthread_mutex_t lock;
	char rpc[64], code[64];
} noted = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void note(void *user, const json_t *entry)
{
	(void)user;
	pthread_mutex_lock(&noted.lock);
	snprintf(noted.rpc, sizeof noted.rpc, "%s",
		 json_string_value(json_object_get(entry, "rpc")));
	snprintf(noted.code, sizeof noted.code, "%s",
		 json_string_value(json_object_get(entry, "code")));
	pthread_mutex_unlock(&noted.lock);
}

/* Entries come before the client has its status. */
static void expect_noted(const char *rpc, const char *code)
{
	pthread_mutex_lock(&noted.lock);
	assert_string_equal(noted.rpc, rpc);
	assert_string_equal(noted.code, code);
	pthread_mutex_unlock(&noted.lock);
}

static void connect_to(int port)
{
	char target[64];
	grpc_channel_credentials *creds = grpc_insecure_credentials_create();
	snprintf(target, sizeof target, "127.0.0.1:%d", port);
	channel = grpc_channel_create(target, creds, NULL);
	queue = grpc_completion_queue_create_for_next(NULL);
	grpc_channel_credentials_release(creds);
}

static void disconnect(void)
{
	grpc_completion_queue_shutdown(queue);
	while (grpc_completion_queue_next(queue, gpr_inf_future(GPR_CLOCK_REALTIME), NULL).type !=
	       GRPC_QUEUE_SHUTDOWN)
		;
	grpc_completion_queue_destroy(queue);
	grpc_channel_destroy(channel);
}

static int set_up(void **state)
{
	pal__grpc_options o = {.key = *state ? checks_key : NULL, .keys = *state, .log = note};
	played_reset();
	grpc_init();
	if (pal__grpc_start(NULL, &o, &server, NULL))
		return -1;
	connect_to(pal__grpc_port(server));
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	disconnect();
	pal__grpc_stop(server, 0);
	grpc_shutdown();
	return 0;
}

/* Waits for the operations with this tag. */
static void await(void *tag)
{
	grpc_event e = grpc_completion_queue_next(queue, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
	assert_true(e.type == GRPC_OP_COMPLETE && e.tag == tag);
}

static grpc_call *open_call(const char *path, gpr_timespec until)
{
	grpc_slice slice = grpc_slice_from_copied_string(path);
	grpc_call *c = grpc_channel_create_call(channel, NULL, GRPC_PROPAGATE_DEFAULTS, queue,
						slice, NULL, until, NULL);
	grpc_slice_unref(slice);
	return c;
}

/* Begins a call with a message (NULL: none, and it stays open) and a key, if any. */
static void begin(const char *path, const void *bytes, size_t n, const char *key, int seconds)
{
	grpc_slice slice = grpc_slice_from_copied_buffer(bytes ? bytes : "", n);
	grpc_byte_buffer *message = grpc_raw_byte_buffer_create(&slice, 1);
	grpc_metadata header = {.key = grpc_slice_from_static_string("authorization"),
				.value = grpc_slice_from_copied_string(key ? key : "")};
	grpc_op ops[4] = {{.op = GRPC_OP_SEND_INITIAL_METADATA},
			  {.op = GRPC_OP_RECV_INITIAL_METADATA},
			  {.op = GRPC_OP_SEND_MESSAGE},
			  {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT}};
	memset(&got, 0, sizeof got);
	grpc_metadata_array_init(&got.first);
	grpc_metadata_array_init(&got.last);
	got.text = grpc_empty_slice();
	ops[0].data.send_initial_metadata.count = key ? 1 : 0;
	ops[0].data.send_initial_metadata.metadata = &header;
	ops[1].data.recv_initial_metadata.recv_initial_metadata = &got.first;
	ops[2].data.send_message.send_message = message;
	gpr_timespec until = gpr_time_add(gpr_now(GPR_CLOCK_REALTIME),
					  gpr_time_from_seconds(seconds, GPR_TIMESPAN));
	got.call = open_call(path, until);
	assert_int_equal(grpc_call_start_batch(got.call, ops, bytes ? 4 : 2, ops, NULL),
			 GRPC_CALL_OK);
	await(ops);
	grpc_byte_buffer_destroy(message);
	grpc_slice_unref(slice);
	grpc_slice_unref(header.value);
}

/* The next message. false: there is none any more. */
static bool next(void)
{
	grpc_byte_buffer *message = NULL;
	grpc_byte_buffer_reader reader;
	grpc_op op = {.op = GRPC_OP_RECV_MESSAGE};
	op.data.recv_message.recv_message = &message;
	assert_int_equal(grpc_call_start_batch(got.call, &op, 1, &op, NULL), GRPC_CALL_OK);
	await(&op);
	if (!message)
		return false;
	assert_true(grpc_byte_buffer_reader_init(&reader, message));
	grpc_slice all = grpc_byte_buffer_reader_readall(&reader);
	got.n = GRPC_SLICE_LENGTH(all);
	assert_true(got.n <= sizeof got.bytes);
	memcpy(got.bytes, GRPC_SLICE_START_PTR(all), got.n);
	grpc_slice_unref(all);
	grpc_byte_buffer_reader_destroy(&reader);
	grpc_byte_buffer_destroy(message);
	got.messages++;
	return true;
}

static int status(void)
{
	grpc_op op = {.op = GRPC_OP_RECV_STATUS_ON_CLIENT};
	op.data.recv_status_on_client.trailing_metadata = &got.last;
	op.data.recv_status_on_client.status = &got.status;
	op.data.recv_status_on_client.status_details = &got.text;
	assert_int_equal(grpc_call_start_batch(got.call, &op, 1, &op, NULL), GRPC_CALL_OK);
	await(&op);
	return (int)got.status;
}

/* The report of the call that ended, or "". */
static const char *report(void)
{
	static char text[4096];
	*text = 0;
	for (size_t i = 0; i < got.last.count; i++) {
		const grpc_metadata *m = &got.last.metadata[i];
		if (!grpc_slice_str_cmp(m->key, "palimpsest-report"))
			snprintf(text, sizeof text, "%.*s", (int)GRPC_SLICE_LENGTH(m->value),
				 (const char *)GRPC_SLICE_START_PTR(m->value));
	}
	return text;
}

static void forget(void)
{
	grpc_slice_unref(got.text);
	grpc_metadata_array_destroy(&got.first);
	grpc_metadata_array_destroy(&got.last);
	grpc_call_unref(got.call);
}

/* A whole call: its status, and how many messages came. */
static int call(const char *path, const void *bytes, size_t n, const char *key)
{
	begin(path, bytes, n, key, 30);
	while (next())
		;
	int code = status();
	forget();
	return code;
}

static size_t pack(const ProtobufCMessage *message, uint8_t bytes[256])
{
	assert_true(protobuf_c_message_get_packed_size(message) <= 256);
	return protobuf_c_message_pack(message, bytes);
}

/* A session with one token; its id goes into request[256] to generate max_tokens. */
static size_t ready(uint8_t *request, uint32_t max_tokens)
{
	Kakeya__V1__AppendTokensRequest a = KAKEYA__V1__APPEND_TOKENS_REQUEST__INIT;
	Kakeya__V1__GenerateRequest g = KAKEYA__V1__GENERATE_REQUEST__INIT;
	assert_int_equal(call(PATH "CreateSession", "", 0, NULL), GRPC_STATUS_OK);
	Kakeya__V1__CreateSessionResponse *r =
		kakeya__v1__create_session_response__unpack(NULL, got.n, got.bytes);
	assert_non_null(r);
	g.session_id = a.session_id = r->session_id;
	g.max_tokens = max_tokens;
	a.token_ids = (uint32_t[]){1};
	a.n_token_ids = 1;
	assert_int_equal(call(PATH "AppendTokens", request, pack(&a.base, request), NULL),
			 GRPC_STATUS_OK);
	size_t n = pack(&g.base, request);
	kakeya__v1__create_session_response__free_unpacked(r, NULL);
	return n;
}

static void streams(void **state)
{
	uint8_t request[256];
	size_t n = ready(request, 20);
	(void)state;
	begin(PATH "Generate", request, n, NULL, 30);
	while (next())
		;
	assert_int_equal(got.messages, 21);
	assert_int_equal(status(), GRPC_STATUS_OK);
	assert_non_null(strstr(report(), "\"log_length\":21"));
	forget();
	Kakeya__V1__GenerateResponse *last =
		kakeya__v1__generate_response__unpack(NULL, got.n, got.bytes);
	assert_non_null(last);
	assert_int_equal(last->payload_case, KAKEYA__V1__GENERATE_RESPONSE__PAYLOAD_DONE);
	kakeya__v1__generate_response__free_unpacked(last, NULL);
}

static void errors(void **state)
{
	static uint8_t large[PAL__RPC_MESSAGE + 1];
	(void)state;
	assert_int_equal(call(PATH "Nothing", "", 0, NULL), GRPC_STATUS_UNIMPLEMENTED);
	assert_int_equal(call("/grpc.health.v1.Health/Check", "", 0, NULL),
			 GRPC_STATUS_UNIMPLEMENTED);
	expect_noted("", "UNIMPLEMENTED");
	assert_int_equal(call(PATH "CreateSession", "\xff\xff", 2, NULL),
			 GRPC_STATUS_INVALID_ARGUMENT);
	assert_int_equal(call(PATH "CreateSession", large, sizeof large, NULL),
			 GRPC_STATUS_RESOURCE_EXHAUSTED);
	assert_int_equal(call(PATH "CreateSession", "", 0, NULL), GRPC_STATUS_OK);
	expect_noted("CreateSession", "OK");
}

static void cancels(void **state)
{
	uint8_t request[256];
	size_t n = ready(request, 50);
	(void)state;
	played_slow(); /* three tokens come, and no more */
	begin(PATH "Generate", request, n, NULL, 30);
	while (got.messages < 3)
		assert_true(next());
	assert_int_equal(grpc_call_cancel(got.call, NULL), GRPC_CALL_OK);
	assert_int_equal(status(), GRPC_STATUS_CANCELLED);
	forget();
	/* The session is free once the server has heard of it, and then the next one's deadline
	 * passes. */
	for (int code = GRPC_STATUS_ABORTED; code != GRPC_STATUS_DEADLINE_EXCEEDED;) {
		assert_int_equal(code, GRPC_STATUS_ABORTED);
		begin(PATH "Generate", request, n, NULL, 1);
		while (next())
			;
		code = status();
		forget();
	}
}

/* Headers alone take no thread. */
static void no_message(void **state)
{
	(void)state;
	grpc_call *open[PAL__RPC_CALLS - 2];
	grpc_op op = {.op = GRPC_OP_SEND_INITIAL_METADATA};
	for (size_t i = 0; i < sizeof open / sizeof *open; i++) {
		open[i] = open_call(PATH "Generate", gpr_inf_future(GPR_CLOCK_REALTIME));
		assert_int_equal(grpc_call_start_batch(open[i], &op, 1, &op, NULL), GRPC_CALL_OK);
		await(&op);
	}
	assert_int_equal(call(PATH "CreateSession", "", 0, NULL), GRPC_STATUS_OK);
	for (size_t i = 0; i < sizeof open / sizeof *open; i++) {
		grpc_call_cancel(open[i], NULL);
		grpc_call_unref(open[i]);
	}
	assert_int_equal(call(PATH "CreateSession", "", 0, NULL), GRPC_STATUS_OK);
}

static void keys(void **state)
{
	static char key[] = "a key";
	static const char *const wrong[] = {
		NULL, "", "a key", "Bearer", "Bearer ", "Bearer a kez", "Basic a key"};
	*state = key;
	assert_int_equal(set_up(state), 0);
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
		assert_int_equal(call(PATH "CreateSession", "", 0, wrong[i]),
				 GRPC_STATUS_UNAUTHENTICATED);
	expect_noted("CreateSession", "UNAUTHENTICATED");
	assert_int_equal(call(PATH "CreateSession", "", 0, "Bearer a key"), GRPC_STATUS_OK);
	assert_int_equal(call(PATH "CreateSession", "", 0, "bearer a key"), GRPC_STATUS_OK);
	assert_int_equal(played.sessions[0].owner, 7);
	tear_down(state);
	*state = NULL;
}

/* What runs is cancelled when time is up, and says so. */
static void stops(void **state)
{
	uint8_t request[256];
	assert_int_equal(set_up(state), 0);
	size_t n = ready(request, 50);
	played_slow();
	begin(PATH "Generate", request, n, NULL, 30);
	assert_true(next());
	pal__grpc_stop(server, 0.05);
	server = NULL;
	while (next())
		;
	assert_int_equal(status(), GRPC_STATUS_CANCELLED);
	assert_int_equal(got.messages, 4); /* with `done` */
	assert_int_equal(played.cancelled, 1);
	forget();
	tear_down(state);
}

static void bad_options(void **state)
{
	(void)state;
	pal_error err;
	pal__grpc *g = NULL, *second = NULL;
	int64_t live = pal__mem_live();
	static const pal__grpc_options bad[] = {
		{.port = -1},   {.port = 65536},   {.host = "0.0.0.0"},
		{.host = "::"}, {.tls_cert = "x"}, {.tls_key = "x"},
	};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		assert_int_equal(pal__grpc_start(NULL, &bad[i], &g, &err), PAL_EINVAL);
		assert_true(*err.text);
	}
	pal__grpc_options o = {.tls_cert = "/no/such/file", .tls_key = "/no/such/file"};
	assert_int_equal(pal__grpc_start(NULL, &o, &g, &err), PAL_EIO);
	assert_non_null(strstr(err.text, "/no/such/file"));
	o = (pal__grpc_options){.host = "0.0.0.0", .anyone = true};
	assert_int_equal(pal__grpc_start(NULL, &o, &g, &err), PAL_OK);
	o = (pal__grpc_options){.port = pal__grpc_port(g), .host = "127.0.0.1"};
	assert_int_equal(pal__grpc_start(NULL, &o, &second, &err), PAL_EIO);
	assert_non_null(strstr(err.text, "127.0.0.1:"));
	pal__grpc_stop(g, 0);
	pal__grpc_stop(NULL, 0);
	assert_null(second);
	assert_int_equal(pal__mem_live(), live);
}

static void no_memory(void **state)
{
	(void)state;
	static const pal__grpc_options o;
	pal__grpc *g = NULL;
	int64_t live = pal__mem_live();
	for (int n = 0; !g; n++) {
		pal__mem_fail_after(n);
		pal_status s = pal__grpc_start(NULL, &o, &g, NULL);
		pal__mem_fail_after(-1);
		assert_int_equal(s, g ? PAL_OK : PAL_ENOMEM);
		assert_int_equal(g ? live : pal__mem_live(), live);
	}
	/* The first call had no memory: it is asked for again. */
	grpc_init();
	played_reset();
	connect_to(pal__grpc_port(g));
	assert_int_equal(call(PATH "CreateSession", "", 0, NULL), GRPC_STATUS_OK);
	disconnect();
	pal__grpc_stop(g, 0);
	grpc_shutdown();
	assert_int_equal(pal__mem_live(), live);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(streams),
		TEST(errors),
		TEST(cancels),
		TEST(no_message),
		cmocka_unit_test(keys),
		cmocka_unit_test(stops),
		cmocka_unit_test(bad_options),
		cmocka_unit_test(no_memory),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
