/* Any bytes as a call of kakeya.v1.RuntimeService: the first byte chooses which, the others are its
 * message. It ends with a status, and whatever it says, the sessions hold what they should. */
#include "serve/runtime.h"
#include "../unit/serve/played_service.h"
#include "base/mem.h"
#include "check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A message is what it takes a short buffer to hold. */
static bool take(void *user, const uint8_t *bytes, size_t n)
{
	size_t *sent = user;
	CHECK(bytes && n < 128);
	return ++*sent < 300;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const paths[] = {
		"/kakeya.v1.RuntimeService/CreateSession", "/kakeya.v1.RuntimeService/AppendTokens",
		"/kakeya.v1.RuntimeService/Generate", "/kakeya.v1.RuntimeService/CloseSession",
		"/kakeya.v1.RuntimeService/GetSessionInfo"};
	static const pal__create create = {.eos = {9}, .n_eos = 1};
	static atomic_bool cancel;
	int64_t live = pal__mem_live();
	size_t sent = 0;
	char id[PAL__ID_BYTES];
	pal__runtime *r;
	pal__rpc_end end;
	if (!size)
		return 0;
	played_reset();
	CHECK(!pal__service_create(NULL, &create, id, NULL) && !pal__runtime_open(NULL, &r, NULL));
	played.sessions[0].log[played.sessions[0].length++] = 1;
	pal__rpc rpc = {paths[data[0] % 5], data + 1, size - 1, 0, &cancel, take, &sent};
	pal__runtime_run(r, &rpc, &end);
	CHECK(end.code == GRPC_STATUS_OK ? sent > 0 && !*end.message : *end.message != 0);
	CHECK(end.code != GRPC_STATUS_FAILED_PRECONDITION && end.code != GRPC_STATUS_INTERNAL);
	for (const struct played_session *s = played.sessions;
	     s < played.sessions + PLAYED_SESSIONS; s++)
		for (int64_t i = 0; i < s->length; i++)
			CHECK(s->log[i] >= 0 && s->log[i] < PLAYED_VOCAB);
	pal__free(end.report);
	pal__runtime_close(r);
	CHECK(pal__mem_live() == live);
	return 0;
}
