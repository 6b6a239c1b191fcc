/* The calls of the runtime service over a service that is played. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "played_service.h"
#include "serve/runtime.h"
#include <serve/runtime.pb-c.h>

/* What came back of one call. */
static struct {
	ProtobufCMessage *messages[64]; /* [n] */
	size_t n, room;                 /* the client goes when it has so many */
	atomic_bool cancel;
	pal__rpc_end end;
	const ProtobufCMessageDescriptor *type;
} got;

static pal__runtime *runtime;

static int set_up(void **state)
{
	(void)state;
	played_reset();
	return pal__runtime_open(NULL, &runtime, NULL);
}

static void forget(void)
{
	for (size_t i = 0; i < got.n; i++)
		protobuf_c_message_free_unpacked(got.messages[i], NULL);
	got.n = 0;
	pal__free(got.end.report);
	got.end.report = NULL;
}

static int tear_down(void **state)
{
	(void)state;
	forget();
	pal__runtime_close(runtime);
	return 0;
}

static bool take(void *user, const uint8_t *bytes, size_t n)
{
	(void)user;
	if (got.n == got.room)
		return false;
	got.messages[got.n] = protobuf_c_message_unpack(got.type, NULL, n, bytes);
	assert_non_null(got.messages[got.n]);
	got.n++;
	return true;
}

/* Calls with bytes; the status. */
static int call_bytes(const char *name, const void *bytes, size_t n, uint64_t owner)
{
	char path[128];
	const ProtobufCServiceDescriptor *service = &kakeya__v1__runtime_service__descriptor;
	const ProtobufCMethodDescriptor *m =
		protobuf_c_service_descriptor_get_method_by_name(service, name);
	snprintf(path, sizeof path, "/%s/%s", service->name, name);
	forget();
	got.type = m ? m->output : NULL;
	got.room = got.room ? got.room : 64;
	assert_true(pal__runtime_has(path) == (m != NULL));
	pal__rpc rpc = {path, bytes, n, owner, &got.cancel, take, NULL};
	pal__runtime_run(runtime, &rpc, &got.end);
	assert_true(got.end.code == GRPC_STATUS_OK || *got.end.message);
	return (int)got.end.code;
}

static int call(const char *name, const ProtobufCMessage *request)
{
	static uint8_t bytes[1 << 16];
	assert_true(protobuf_c_message_get_packed_size(request) <= sizeof bytes);
	return call_bytes(name, bytes, protobuf_c_message_pack(request, bytes), 0);
}

static int create(const uint32_t *eos, size_t n_eos, char *id)
{
	Kakeya__V1__CreateSessionRequest q = KAKEYA__V1__CREATE_SESSION_REQUEST__INIT;
	q.client_label = (char *)"a label";
	q.eos_token_ids = (uint32_t *)eos;
	q.n_eos_token_ids = n_eos;
	int code = call("CreateSession", &q.base);
	if (!code) {
		assert_int_equal(got.n, 1);
		const Kakeya__V1__CreateSessionResponse *a = (void *)got.messages[0];
		snprintf(id, PAL__ID_BYTES, "%s", a->session_id);
	}
	return code;
}

static int append(const char *id, const uint32_t *ids, size_t n, uint64_t *length)
{
	Kakeya__V1__AppendTokensRequest q = KAKEYA__V1__APPEND_TOKENS_REQUEST__INIT;
	q.session_id = (char *)id;
	q.token_ids = (uint32_t *)ids;
	q.n_token_ids = n;
	int code = call("AppendTokens", &q.base);
	assert_int_equal(got.n, code ? 0 : 1);
	if (!code)
		*length = ((Kakeya__V1__AppendTokensResponse *)got.messages[0])->history_length;
	return code;
}

static int generate(const char *id, uint32_t max_tokens)
{
	Kakeya__V1__GenerateRequest q = KAKEYA__V1__GENERATE_REQUEST__INIT;
	q.session_id = (char *)id;
	q.max_tokens = max_tokens;
	return call("Generate", &q.base);
}

static Kakeya__V1__GetSessionInfoResponse info(const char *id)
{
	Kakeya__V1__GetSessionInfoRequest q = KAKEYA__V1__GET_SESSION_INFO_REQUEST__INIT;
	q.session_id = (char *)id;
	assert_int_equal(call("GetSessionInfo", &q.base), GRPC_STATUS_OK);
	return *(Kakeya__V1__GetSessionInfoResponse *)got.messages[0];
}

static int close_session(const char *id)
{
	Kakeya__V1__CloseSessionRequest q = KAKEYA__V1__CLOSE_SESSION_REQUEST__INIT;
	q.session_id = (char *)id;
	return call("CloseSession", &q.base);
}

/* Message i is token `id`; -1: the end, which is `done`. */
static const Kakeya__V1__GenerateDone *expect_token(size_t i, int id)
{
	const Kakeya__V1__GenerateResponse *a = (void *)got.messages[i];
	assert_true(i < got.n);
	assert_int_equal(a->payload_case, id < 0 ? KAKEYA__V1__GENERATE_RESPONSE__PAYLOAD_DONE
						 : KAKEYA__V1__GENERATE_RESPONSE__PAYLOAD_TOKEN_ID);
	if (id >= 0)
		assert_int_equal(a->token_id, id);
	return id < 0 ? a->done : NULL;
}

/* Tokens from `first` on, n of them, then done for this reason. */
static void expect_stream(int first, size_t n, int reason)
{
	assert_int_equal(got.n, n + 1);
	for (size_t i = 0; i < n; i++)
		expect_token(i, first + (int)i);
	const Kakeya__V1__GenerateDone *d = expect_token(n, -1);
	assert_int_equal(d->stop_reason, reason);
	assert_int_equal(d->generated_token_count, n);
	assert_true(d->prefill_duration_seconds >= 0 && d->total_duration_seconds > 0);
	assert_true(d->prefill_duration_seconds <= d->total_duration_seconds);
}

static void sessions(void **state)
{
	char id[PAL__ID_BYTES], other[PAL__ID_BYTES];
	uint64_t length = 9;
	(void)state;
	assert_int_equal(create(NULL, 0, id), GRPC_STATUS_OK);
	assert_int_equal(create((uint32_t[]){7, 8}, 2, other), GRPC_STATUS_OK);
	assert_string_not_equal(id, other);
	assert_string_equal(played.sessions[0].label, "a label");
	assert_int_equal(played.sessions[1].n_eos, 2);
	assert_int_equal(played.sessions[1].eos[1], 8);
	assert_int_equal(append(id, NULL, 0, &length), GRPC_STATUS_OK);
	assert_int_equal(length, 0);
	assert_int_equal(info(id).kv_live_bytes, 0);
	assert_int_equal(append(id, (uint32_t[]){1, 2, 3}, 3, &length), GRPC_STATUS_OK);
	assert_int_equal(length, 3);
	assert_non_null(strstr(got.end.report, "\"log_length\":3"));
	assert_int_equal(append(id, NULL, 0, &length), GRPC_STATUS_OK);
	assert_int_equal(length, 3);
	assert_int_equal(info(id).history_length, 3);
	assert_int_equal(info(id).kv_live_bytes, 4096);
	assert_true(info(id).idle_seconds > 0);
	assert_int_equal(info(other).history_length, 0);
	assert_int_equal(close_session(id), GRPC_STATUS_OK);
	assert_int_equal(
		((Kakeya__V1__CloseSessionResponse *)got.messages[0])->final_history_length, 3);
	assert_int_equal(close_session(id), GRPC_STATUS_NOT_FOUND);
	assert_int_equal(append(id, (uint32_t[]){1}, 1, &length), GRPC_STATUS_NOT_FOUND);
	assert_int_equal(append(id, NULL, 0, &length), GRPC_STATUS_NOT_FOUND);
	assert_int_equal(generate(id, 3), GRPC_STATUS_NOT_FOUND);
}

static void wrong_values(void **state)
{
	static char lengthy[5000];
	uint32_t many[PAL__MAX_EOS + 1] = {0};
	char id[PAL__ID_BYTES];
	uint64_t length;
	(void)state;
	memset(lengthy, 'x', sizeof lengthy - 1);
	assert_int_equal(create(many, PAL__MAX_EOS + 1, id), GRPC_STATUS_INVALID_ARGUMENT);
	assert_int_equal(create((uint32_t[]){100}, 1, id), GRPC_STATUS_INVALID_ARGUMENT);
	assert_int_equal(create((uint32_t[]){UINT32_MAX}, 1, id), GRPC_STATUS_INVALID_ARGUMENT);
	assert_int_equal(create(many, PAL__MAX_EOS, id), GRPC_STATUS_OK);
	assert_int_equal(append(id, (uint32_t[]){1, 100}, 2, &length),
			 GRPC_STATUS_INVALID_ARGUMENT);
	assert_int_equal(append(id, (uint32_t[]){1, 1u << 31}, 2, &length),
			 GRPC_STATUS_INVALID_ARGUMENT);
	assert_int_equal(info(id).history_length, 0);
	assert_int_equal(generate(id, 3), GRPC_STATUS_INVALID_ARGUMENT);
	assert_int_equal(generate(id, 0), GRPC_STATUS_INVALID_ARGUMENT);
	assert_int_equal(generate("", 1), GRPC_STATUS_NOT_FOUND);
	assert_int_equal(generate(lengthy, 1), GRPC_STATUS_NOT_FOUND);
	assert_int_equal(call_bytes("Nothing", "", 0, 0), GRPC_STATUS_UNIMPLEMENTED);
}

static void streams(void **state)
{
	char id[PAL__ID_BYTES];
	uint64_t length;
	(void)state;
	assert_int_equal(create((uint32_t[]){9}, 1, id), GRPC_STATUS_OK);
	append(id, (uint32_t[]){2}, 1, &length);
	assert_int_equal(generate(id, 4), GRPC_STATUS_OK);
	expect_stream(3, 4, KAKEYA__V1__GENERATE_DONE__STOP_REASON__STOP_REASON_MAX_TOKENS);
	assert_non_null(strstr(got.end.report, "\"log_length\":5"));
	assert_int_equal(info(id).history_length, 5);
	assert_int_equal(generate(id, 50), GRPC_STATUS_OK); /* its end is 9, which is sent */
	expect_stream(7, 3, KAKEYA__V1__GENERATE_DONE__STOP_REASON__STOP_REASON_EOS);
	assert_int_equal(info(id).history_length, 8);
	assert_int_equal(generate(id, 2), GRPC_STATUS_OK); /* and it goes on behind it */
	expect_stream(10, 2, KAKEYA__V1__GENERATE_DONE__STOP_REASON__STOP_REASON_MAX_TOKENS);
	played.room = 12;
	assert_int_equal(generate(id, 50), GRPC_STATUS_RESOURCE_EXHAUSTED);
	assert_int_equal(got.n, 2);
	expect_token(1, 13);
}

static void samplings(void **state)
{
	Kakeya__V1__GenerateRequest q = KAKEYA__V1__GENERATE_REQUEST__INIT;
	char id[PAL__ID_BYTES];
	uint64_t length;
	(void)state;
	create(NULL, 0, id);
	append(id, (uint32_t[]){2}, 1, &length);
	generate(id, 1);
	pal_sampling plain = pal_sampling_default();
	assert_memory_equal(&played.sampling, &plain, sizeof plain);
	q.session_id = id;
	q.max_tokens = 1;
	q.given_seed_case = KAKEYA__V1__GENERATE_REQUEST__GIVEN_SEED_SEED;
	q.seed = UINT64_MAX;
	q.given_temperature_case = KAKEYA__V1__GENERATE_REQUEST__GIVEN_TEMPERATURE_TEMPERATURE;
	q.temperature = 0.5f;
	q.given_top_p_case = KAKEYA__V1__GENERATE_REQUEST__GIVEN_TOP_P_TOP_P;
	q.top_p = 0.75f;
	q.given_top_k_case = KAKEYA__V1__GENERATE_REQUEST__GIVEN_TOP_K_TOP_K;
	q.top_k = UINT32_MAX;
	assert_int_equal(call("Generate", &q.base), GRPC_STATUS_OK);
	assert_true(played.sampling.seed == UINT64_MAX && played.sampling.temperature == 0.5f);
	assert_true(played.sampling.top_p == 0.75f && played.sampling.top_k == INT32_MAX);
}

static void ends_early(void **state)
{
	char id[PAL__ID_BYTES];
	uint64_t length;
	(void)state;
	create(NULL, 0, id);
	append(id, (uint32_t[]){2}, 1, &length);
	got.room = 3; /* the client goes when the fourth comes, which is in the history */
	assert_int_equal(generate(id, 9), GRPC_STATUS_CANCELLED);
	got.room = 0;
	assert_int_equal(info(id).history_length, 5);
	atomic_store(&got.cancel, true);
	assert_int_equal(generate(id, 9), GRPC_STATUS_CANCELLED);
	expect_stream(0, 0, KAKEYA__V1__GENERATE_DONE__STOP_REASON__STOP_REASON_CANCELLED);
	atomic_store(&got.cancel, false);
	played.fail_after = 2;
	assert_int_equal(generate(id, 9), GRPC_STATUS_INTERNAL);
	assert_string_equal(got.end.message, "the disk is on fire");
	assert_int_equal(got.n, 2);
	played.fail_after = 0;
	assert_int_equal(info(id).history_length, 7);
	assert_int_equal(generate(id, 1), GRPC_STATUS_OK);
	expect_stream(9, 1, KAKEYA__V1__GENERATE_DONE__STOP_REASON__STOP_REASON_MAX_TOKENS);
	assert_int_equal(info(id).cache_invariant_inv2_violations, 0);
}

static void statuses(void **state)
{
	static const struct {
		pal_status status;
		grpc_status_code code;
	} pairs[] = {
		{PAL_EINVAL, GRPC_STATUS_INVALID_ARGUMENT},
		{PAL_ENOMEM, GRPC_STATUS_RESOURCE_EXHAUSTED},
		{PAL_EIO, GRPC_STATUS_INTERNAL},
		{PAL_EFORMAT, GRPC_STATUS_DATA_LOSS},
		{PAL_EUNSUPPORTED, GRPC_STATUS_UNIMPLEMENTED},
		{PAL_ELIMIT, GRPC_STATUS_RESOURCE_EXHAUSTED},
		{PAL_ECANCELLED, GRPC_STATUS_CANCELLED},
		{PAL_ENOTFOUND, GRPC_STATUS_NOT_FOUND},
		{PAL_EBUSY, GRPC_STATUS_ABORTED},
		{PAL_EOVERLOAD, GRPC_STATUS_RESOURCE_EXHAUSTED},
	};
	char id[PAL__ID_BYTES];
	uint64_t length;
	(void)state;
	create(NULL, 0, id);
	append(id, (uint32_t[]){2}, 1, &length);
	for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
		played.fail = pairs[i].status;
		assert_int_equal(append(id, (uint32_t[]){1}, 1, &length), pairs[i].code);
		assert_int_equal(generate(id, 1), pairs[i].code);
	}
	assert_string_equal(got.end.message, "told to fail");
	played.retry_after_s = 2.5;
	generate(id, 1);
	assert_string_equal(got.end.message, "told to fail (try again in 3 s)");
	played.fail = PAL_OK;
	played.sessions[0].busy = true;
	assert_int_equal(append(id, (uint32_t[]){1}, 1, &length), GRPC_STATUS_ABORTED);
	assert_int_equal(append(id, NULL, 0, &length), GRPC_STATUS_ABORTED);
	assert_int_equal(generate(id, 1), GRPC_STATUS_ABORTED);
	assert_int_equal(close_session(id), GRPC_STATUS_ABORTED);
	assert_true(info(id).idle_seconds == 0);
}

static void owners(void **state)
{
	Kakeya__V1__CloseSessionRequest q = KAKEYA__V1__CLOSE_SESSION_REQUEST__INIT;
	uint8_t bytes[64];
	char id[PAL__ID_BYTES];
	(void)state;
	create(NULL, 0, id);
	q.session_id = id;
	size_t n = protobuf_c_message_pack(&q.base, bytes);
	assert_int_equal(call_bytes("CloseSession", bytes, n, 7), GRPC_STATUS_NOT_FOUND);
	assert_int_equal(call_bytes("CloseSession", bytes, n, 0), GRPC_STATUS_OK);
}

static void invariants(void **state)
{
	char id[PAL__ID_BYTES], other[PAL__ID_BYTES];
	uint64_t length;
	(void)state;
	create(NULL, 0, id);
	create(NULL, 0, other);
	assert_int_equal(append(id, (uint32_t[]){1, 2}, 2, &length), GRPC_STATUS_OK);
	played.resident = PLAYED_LOG;
	assert_int_equal(append(id, (uint32_t[]){1}, 1, &length), GRPC_STATUS_FAILED_PRECONDITION);
	assert_int_equal(generate(id, 2), GRPC_STATUS_FAILED_PRECONDITION);
	played.resident = 0;
	played.lost = 1;
	assert_int_equal(append(id, (uint32_t[]){1, 2}, 2, &length),
			 GRPC_STATUS_FAILED_PRECONDITION);
	played.lost = 0;
	assert_int_equal(info(id).cache_invariant_inv1_violations, 2);
	assert_int_equal(info(id).cache_invariant_inv2_violations, 1);
	assert_int_equal(info(other).cache_invariant_inv1_violations, 0);
	assert_int_equal(append(id, (uint32_t[]){1}, 1, &length), GRPC_STATUS_OK);
}

static void hostile(void **state)
{
	static const char *const names[] = {"CreateSession", "AppendTokens", "Generate",
					    "CloseSession", "GetSessionInfo"};
	static uint8_t many[PAL__RPC_MESSAGE];
	uint8_t cut[] = {0x0a, 40, 's'}, wrong_type[] = {0x08, 1}, endless[11];
	(void)state;
	memset(endless, 0xff, sizeof endless);
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		assert_int_equal(call_bytes(names[i], cut, sizeof cut, 0),
				 GRPC_STATUS_INVALID_ARGUMENT);
		assert_int_equal(call_bytes(names[i], wrong_type, sizeof wrong_type, 0),
				 GRPC_STATUS_INVALID_ARGUMENT);
		assert_int_equal(call_bytes(names[i], endless, sizeof endless, 0),
				 GRPC_STATUS_INVALID_ARGUMENT);
	}
	/* token_ids, each by itself: read, they would be 20 times as much. */
	for (size_t i = 0; i < sizeof many; i += 2)
		many[i] = 2 << 3, many[i + 1] = 1;
	int64_t live = pal__mem_live();
	assert_int_equal(call_bytes("AppendTokens", many, sizeof many, 0),
			 GRPC_STATUS_RESOURCE_EXHAUSTED);
	assert_int_equal(pal__mem_live(), live);
	/* And in one piece, which is how clients send them. */
	many[0] = 2 << 3 | 2;
	many[1] = 0xf0, many[2] = 0xff, many[3] = 0xff, many[4] = 0x01;
	memset(many + 5, 1, sizeof many - 5);
	assert_int_equal(call_bytes("AppendTokens", many, 5 + 0x3ffff0, 0), GRPC_STATUS_NOT_FOUND);
}

static void no_memory(void **state)
{
	char id[PAL__ID_BYTES];
	uint64_t length = 0;
	(void)state;
	pal__runtime *r = NULL;
	pal__mem_fail_after(0);
	assert_int_equal(pal__runtime_open(NULL, &r, NULL), PAL_ENOMEM);
	pal__mem_fail_after(-1);
	create(NULL, 0, id);
	forget();
	int64_t live = pal__mem_live();
	for (int n = 0, code = 1; code; n++) {
		pal__mem_fail_after(n);
		code = append(id, (uint32_t[]){1}, 1, &length);
		bool failed = pal__mem_failed();
		pal__mem_fail_after(-1);
		assert_true(code == GRPC_STATUS_OK ||
			    (failed && code == GRPC_STATUS_RESOURCE_EXHAUSTED));
		forget();
		assert_int_equal(pal__mem_live(), live);
	}
	assert_int_equal(length, 1);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(sessions),   TEST(wrong_values), TEST(streams), TEST(samplings),
		TEST(ends_early), TEST(statuses),     TEST(owners),  TEST(invariants),
		TEST(hostile),    TEST(no_memory),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
